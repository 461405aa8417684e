"""Where the files of a model of the transformers library are: in a folder, or fetched from the hub with consent."""

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ssan.errors import ModelError, UsageError, on_one_line, quoted
from ssan.weights.model_file import wrong_model
from ssan.weights.processors import FILES

PREFIX, HUB = "hf:", "hf://"
_PART = r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9])?"
_NAME = re.compile(rf"hf://({_PART}/{_PART})(?:@([A-Za-z0-9][A-Za-z0-9._-]{{0,94}}))?")
# What a model consists of here; nothing else of its repository is fetched.
_WEIGHTS = re.compile(r"model(?:-\d{5}-of-\d{5})?\.safetensors|model\.safetensors\.index\.json")
_WEIGHTS_HERE = {"model.safetensors", "model.safetensors.index.json"}
WANTED = ("config.json", *FILES)


def hub_name(spec: str) -> tuple[str, str]:
    """The repository and the revision that ``hf://user/name`` or ``hf://user/name@REVISION`` stands for.

    :raises UsageError: it is of no such form.
    """
    found = _NAME.fullmatch(spec)
    if found is None or ".." in spec or "--" in spec:
        raise UsageError(
            f"{quoted(spec, 120)} names no model of the hub; expected hf://user/name, or hf:FOLDER for a folder here"
        )
    return found[1], found[2] or "main"


def local_folder(spec: str) -> Path:
    """The folder that ``hf:FOLDER`` or ``hf://user/name`` stands for; nothing is fetched.

    :raises UsageError: no such folder (code ``missing``), or no such form of a name.
    :raises ModelError: a model of the hub that is not on this machine (code ``not_fetched``).
    """
    if not spec.startswith(HUB):
        folder = Path(spec.removeprefix(PREFIX)).expanduser()
        if not spec.startswith(PREFIX) or not folder.is_dir():
            raise UsageError(
                "no such folder; expected hf:FOLDER with a folder as save_pretrained of transformers writes it, or "
                "hf://user/name",
                code="missing",
                path=spec,
            )
        return folder
    name, revision = hub_name(spec)
    hub = _library()
    try:
        found = Path(hub.snapshot_download(name, revision=revision, local_files_only=True, allow_patterns=[*WANTED]))
        if _WEIGHTS_HERE.intersection(os.listdir(found)):
            return found
    except (OSError, ValueError):
        pass  # as the library says that there is none
    raise ModelError(
        f"{name} is not on this machine, and nothing is fetched unasked; give --yes, run `hf download {name}`, or put "
        f"its config.json, {FILES[2]} and model.safetensors into a folder and give hf:FOLDER",
        code="not_fetched",
        path=spec,
    )


def lasting(spec: str, folder: Path) -> str:
    """The same from anywhere on this machine, and for the same files: an absolute path, or a name with its commit.

    :param folder: that ``local_folder`` gave for ``spec``.
    """
    if not spec.startswith(HUB):
        return f"{PREFIX}/{os.path.abspath(folder).lstrip('/')}"
    commit = folder.name
    return f"{HUB}{hub_name(spec)[0]}@{commit}" if re.fullmatch(r"[0-9a-f]{40}", commit) else spec


def fetch_from_hub(spec: str, consent: Callable[[str, int], bool]) -> Path:
    """Fetch a model of the hub into the cache of huggingface_hub, as far as it is used here; its folder.

    What there is and how large it is is asked first. Weights are fetched as safetensors or not at all.

    :param consent: asked with the repository's name and the bytes to fetch before any is; False leaves them.
    :raises ModelError: code ``not_fetched``: no consent, or no answer from the hub (no network, no such name, or one
        that needs a login); ``wrong_model``: it has no weights as safetensors, or is no model of transformers.
    """
    name, revision = hub_name(spec)
    hub = _library()
    failures: tuple[type[Exception], ...] = (OSError, ValueError, *_of_transport())
    try:
        found = hub.HfApi().model_info(name, revision=revision, files_metadata=True)
        sizes: dict[str, int] = {file.rfilename: file.size or 0 for file in found.siblings or ()}
        wanted = _wanted(sizes, spec)
        num_bytes = sum(sizes[file] for file in wanted)
        if not consent(name, num_bytes):
            raise ModelError(
                f"{name} was not fetched: {num_bytes / 1e6:.1f} MB from the hub need consent; give --yes, or run "
                f"`hf download {name}`",
                code="not_fetched",
                path=spec,
            )
        return Path(hub.snapshot_download(name, revision=revision, allow_patterns=wanted))
    except ModelError:
        raise
    except failures as problem:
        raise ModelError(
            f"{name} cannot be fetched ({on_one_line(problem)}); look at its name and the network, or fetch it "
            "elsewhere and give hf:FOLDER",
            code="not_fetched",
            path=spec,
        ) from None


def _wanted(sizes: dict[str, int], spec: str) -> list[str]:
    """The files to fetch, out of those of a repository."""
    weights = [name for name in sizes if _WEIGHTS.fullmatch(name)]
    if "model.safetensors" in weights:  # whole, and perhaps in parts beside
        weights = ["model.safetensors"]
    if "config.json" not in sizes or not weights:
        pickled = any(name.endswith(".bin") for name in sizes)
        raise wrong_model(
            "its weights are pickles alone, which are not read; ask its maker for model.safetensors"
            if pickled and "config.json" in sizes
            else "it is no model of transformers: it has no config.json with a model.safetensors; look at its name",
            spec,
        )
    return sorted([name for name in WANTED if name in sizes] + weights)


def _of_transport() -> tuple[type[Exception], ...]:
    """What the library's connections raise that is no ``OSError``."""
    found: list[type[Exception]] = []
    for name in ("httpx2", "httpx"):
        try:
            module: Any = __import__(name)
        except ImportError:
            continue
        found.append(module.HTTPError)
    return tuple(found)


def _library() -> Any:
    try:
        import huggingface_hub
    except ImportError:
        raise UsageError(
            "a model of the hub needs huggingface_hub, which is not installed; run: pip install 'ssan[hf]'"
        ) from None
    return huggingface_hub
