"""Model files: tensors and text in one safetensors file, which is read without executing anything."""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ssan.errors import ModelError, quoted
from ssan.files import writing

# Format 2 promises a hash of what is said of the tensors; files of format 1 have none.
FORMAT, OLDER = "2", "1"
PREFIX = "ssan."
METADATA_HASH = f"{PREFIX}metadata_sha256"


def hash_tensors(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over the names, types, shapes and bytes of tensors, in the order of their names."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def hash_metadata(text: Mapping[str, str]) -> str:
    """SHA-256 over the names and texts of a file's metadata but this hash, in the order of their names."""
    pairs = sorted((name, value) for name, value in text.items() if name != METADATA_HASH)
    return hashlib.sha256(json.dumps(pairs).encode()).hexdigest()


def write_model_file(path: str | Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> str:
    """Write tensors with metadata (each value as JSON, under ``ssan.NAME``), whole or not at all; return their hash."""
    # Plain, unshared, row-major copies: safetensors refuses tensors that share memory, and channels-last is a layout of
    # this machine's, not of the file's.
    plain = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()
    }
    digest = hash_tensors(plain)
    text = {f"{PREFIX}{name}": json.dumps(value, ensure_ascii=False) for name, value in metadata.items()}
    text |= {f"{PREFIX}format": FORMAT, f"{PREFIX}sha256": digest}
    text[METADATA_HASH] = hash_metadata(text)
    # As bytes: the library's own writer tells of a full disk in words only.
    content = save(plain, metadata=text)
    with writing(path, "wb") as handle:
        handle.write(content)
    return digest


def wrong_model(message: str, path: str | Path) -> ModelError:
    """The error to raise for a file of weights that is not what it should be."""
    return ModelError(message, code="wrong_model", path=str(path))


def read_model_file(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors by name and metadata by name (without ``ssan.``) of a model file; its hashes are checked.

    :raises ModelError: missing, not a safetensors file, not one of ours, of a newer format, or changed since written.
    """
    if not os.path.isfile(path):
        raise ModelError(
            "no such model file; expected a model.safetensors, or the folder of a run", code="missing", path=str(path)
        )
    try:
        with safe_open(path, framework="pt") as file:
            text = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    except (SafetensorError, OSError, ValueError, RuntimeError, OverflowError) as error:
        raise wrong_model(
            f"not a model file ({error}); expected a .safetensors file that `ssan train` wrote", path
        ) from error
    _check_format(text, path)
    if text.get(f"{PREFIX}sha256") != hash_tensors(tensors):
        raise wrong_model("its tensors are not those that were written (the hash differs); copy the file again", path)
    try:
        metadata = {
            name.removeprefix(PREFIX): json.loads(value)
            for name, value in text.items()
            if name.startswith(PREFIX) and name not in (f"{PREFIX}format", f"{PREFIX}sha256", METADATA_HASH)
        }
    except (ValueError, RecursionError) as error:
        raise wrong_model(f"its metadata is not valid JSON: {error}; copy the file again", path) from error
    metadata["sha256"] = text[f"{PREFIX}sha256"]
    return tensors, metadata


def _check_format(text: Mapping[str, str], path: str | Path) -> None:
    """Refuse metadata that are not ours, of a newer format, or changed since they were written."""
    if f"{PREFIX}format" not in text:
        raise wrong_model(
            "a safetensors file, but not a model of ssan: it does not say its recipe and classes. Give it to "
            "`ssan train --init` if it holds a backbone's weights",
            path,
        )
    written = text[f"{PREFIX}format"]
    if written not in (FORMAT, OLDER):
        raise wrong_model(
            f"its format is {quoted(written, 20)}; this version reads {OLDER!r} and {FORMAT!r}. Upgrade ssan, or copy "
            "the file again",
            path,
        )
    if written != OLDER and text.get(METADATA_HASH) != hash_metadata(text):
        raise wrong_model(
            "what it says of its tensors (recipe, classes, protocol) is not what was written (the hash differs); copy "
            "the file again",
            path,
        )
