"""State dicts from elsewhere: read without executing anything, matched key by key, every key accounted for."""

import os
import pickle
import re
import struct
import urllib.error
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from ssan.errors import ModelError, first_line, named, quoted
from ssan.models.classifier import Classifier
from ssan.models.inflate import inflated_to
from ssan.models.slots import slots_of
from ssan.pickles import DamagedPickle, read_pickle
from ssan.weights import bninception_names, efficientnet_names
from ssan.weights.fetching import fetch
from ssan.weights.model_file import wrong_model
from ssan.weights.named import IMAGENET_FILES, IMAGENET_URL, NAMED
from ssan.weights.nl_i3d_names import of_blobs
from ssan.weights.torch_files import MAGIC, Strange, read_torch_file

# What reading a damaged file, or one of another kind, has been seen to raise.
UNREADABLE = (
    RuntimeError, EOFError, OSError, ValueError, LookupError, TypeError, AttributeError, AssertionError, struct.error,
    SafetensorError, ArithmeticError, MemoryError,
)  # fmt: skip

# The final classifier in torchvision's ResNet and MobileNetV2; both become ``fc`` of ``Classifier``.
CLASSIFIER_PREFIXES = ("fc.", "classifier.1.")


@dataclass
class LoadReport:
    """What became of each key, by the model's names for matched and missing ones and the file's for the rest.

    :param matched: number of tensors loaded, whole.
    :param missing: keys of the model that the file does not have, or not in this shape; they keep their random start.
    :param unexpected: keys of the file that the model does not have.
    :param reshaped: keys in both whose shapes differ, or of which only the rows of some classes were taken; they are
        also listed under ``missing``.
    :param classes_taken: classes of the model whose scores start as those of the file's classes of the same name.
    :param lost: keys of the file's layers between frames that were not loaded.
    :param inflated: of the tensors loaded those that were filters of pictures and are now filters over time too.
    """

    matched: int = 0
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    reshaped: list[str] = field(default_factory=list)
    classes_taken: int = 0
    lost: list[str] = field(default_factory=list)
    inflated: int = 0

    def as_dict(self) -> dict[str, object]:
        return dict(vars(self))


def read_state_dict(path: str | Path) -> dict[str, Tensor]:
    """Read tensors by name from a ``.safetensors`` file or a torch file (``.pth``, ``.pt``, ``.tar``).

    A torch file is read as ``torch_files`` does: tensors and plain containers, no code. So is a pickle of nested dicts
    of numpy's arrays, whose names are then the words on the way to each, joined by points; one of Caffe2's blobs has
    torch's ends of names, as ``of_blobs`` says. A dictionary that holds the
    tensors under ``state_dict`` or ``model`` is opened, and a ``module.`` left by data parallelism is taken off.

    :raises ModelError: the file is missing or unreadable, needs code to be executed, holds no tensors by name, or two
        of one name, or values that no network can have (code ``nan``).
    """
    path = Path(path)
    state: dict[str, Tensor] = {}
    for key, tensor in _tensors_in(path).items():
        name = str(key).removeprefix("module.")
        if name in state:
            raise wrong_model(
                f"two tensors have the name {quoted(name)} once `module.` is taken off; leave out the one that is not "
                "meant, where it was made",
                path,
            )
        if isinstance(tensor, Strange) or tensor.is_complex():
            raise wrong_model(
                f"the tensor {quoted(name, 80)} is sparse, quantized, complex or without content; expected plain "
                "numbers. Convert it where it was made",
                path,
            )
        if (values := _strange_values(name, tensor)) is not None:
            raise ModelError(
                f"the tensor {quoted(name)} has {values}, with which nothing can be computed; take the weights of an "
                "earlier epoch",
                code="nan",
                path=str(path),
            )
        state[name] = tensor
    return state


def _tensors_in(path: Path) -> dict[Any, Tensor | Strange]:
    """What a file has by name, tensors and nothing else, out of the dictionaries that toolkits wrap it in."""
    if not os.path.isfile(path):
        raise ModelError("no such weights file; --init names a file, or `imagenet`", code="missing", path=str(path))
    content: Any
    try:
        content = load_file(path) if path.suffix == ".safetensors" else _read_pickled(path)
    except pickle.UnpicklingError as error:
        if isinstance(error, DamagedPickle) or not _begins_as_a_checkpoint(path):
            raise wrong_model(_unreadable(error), path) from error
        is_name = re.fullmatch(r"[\w.]+", str(error)) is not None
        raise wrong_model(
            f"cannot be read as plain tensors ({'it contains ' if is_name else ''}{error}); files that need code to be "
            "executed are refused. Convert it to .safetensors where it was made, or, if you trust who made it, keep "
            "its tensors alone: torch.save(torch.load(FILE, weights_only=False)['state_dict'], NEW_FILE)",
            path,
        ) from error
    except UNREADABLE as error:
        raise wrong_model(_unreadable(error), path) from error
    for wrapper in ("state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
    if (
        not isinstance(content, dict)
        or not content
        or not all(isinstance(v, Tensor | Strange) for v in content.values())
    ):
        raise wrong_model("holds no tensors by name; expected a state dict", path)
    return content


def _read_pickled(path: Path) -> Any:
    """What a torch file holds; of a pickle of nested dicts of arrays, as flax keeps weights, a tensor for each.

    :raises pickle.UnpicklingError: it is neither; of a file that neither reader takes, what the torch reader says.
    """
    try:
        return read_torch_file(path)
    except pickle.UnpicklingError as error:
        with open(path, "rb") as handle:
            begins = handle.read(64)
        if not begins.startswith(b"\x80") or MAGIC.to_bytes(10, "little") in begins:
            raise
        try:
            content = read_pickle(path)
            if isinstance(content, dict) and isinstance(content.get("blobs"), dict):
                blobs = {word: value for word, value in content["blobs"].items() if word not in ("model_iter", "lr")}
                return of_blobs(dict(_arrays_in(blobs)))
            arrays = dict(_arrays_in(content))
        except (pickle.UnpicklingError, *UNREADABLE):
            raise error from None
        return arrays


def _arrays_in(content: Any, place: str = "") -> Iterator[tuple[str, Tensor]]:
    """The arrays in nested dicts, each as a tensor, by the words on the way to it, joined by points.

    :raises DamagedPickle: there is anything else, or two of one name.
    """
    if not isinstance(content, dict) or not all(isinstance(word, str) and "." not in word for word in content):
        raise DamagedPickle("something else than dicts of arrays")
    for word, value in content.items():
        if not isinstance(value, np.ndarray):
            yield from _arrays_in(value, f"{place}{word}.")
        elif value.dtype.kind not in "fiub":
            raise DamagedPickle("an array of something else than numbers")
        else:
            # A copy, in the byte order of this machine: what was read is not to be written to.
            yield place + word, torch.from_numpy(value.astype(value.dtype.newbyteorder("=")))


def _strange_values(name: str, tensor: Tensor) -> str | None:
    """What is wrong with the numbers of a tensor, in words."""
    if not tensor.is_floating_point() or not tensor.numel():
        return None
    numbers = tensor.float() if tensor.itemsize == 1 else tensor  # torch looks into no number of one byte
    if not bool(torch.isfinite(numbers).all()):
        return "values that are not finite"
    if name.endswith("running_var") and float(numbers.min()) < 0:
        return "a negative variance"
    return None


def _unreadable(error: Exception) -> str:
    return f"not a readable weights file ({first_line(error)}); expected .safetensors or a torch state dict"


def _begins_as_a_checkpoint(path: Path) -> bool:
    """Whether a file's first bytes are those of a zip archive or of a pickle of protocol 2 or later."""
    with open(path, "rb") as handle:
        return handle.read(4).startswith((b"PK\x03\x04", b"\x80"))


def load_backbone(
    model: Classifier,
    state: dict[str, Tensor],
    *,
    source: str,
    classes: Sequence[str] = (),
    of_file: Sequence[str] = (),
) -> LoadReport:
    """Load an image network's state dict, under its publisher's names, into a classifier's backbone.

    A state dict under our own names (``model.safetensors`` of an earlier run) is loaded too, with its layers in slots
    and its consensus, where they fit. What scores the classes is loaded class by class, by their names: a class that
    the file does not name keeps its random start, and so do all where names are not known, however many there are.

    A filter of pictures, (o, i, h, w), for a parameter (o, i, t, h, w) of the same name is inflated: repeated over time
    and divided by t, as ``ssan.models.inflate`` says.

    Keys of classifier, consensus and layers in slots may stay missing; nothing else may. Keys that the backbone's own
    parts do not have mean another network; other unknown keys are reported.

    :param source: where the tensors came from, for the message.
    :param classes: names of the model's classes.
    :param of_file: names of the classes that the file's classifier scores, in the order of its rows.
    :raises ModelError: a backbone key is missing, has another shape or is too many: the weights are another network's.
    """
    given, own = _by_our_names(state), model.state_dict()
    given, inflated = _inflated(given, own)
    slots = slots_of(model.backbone)
    row_of = {name: row for row, name in enumerate(of_file)}
    rows = {index: row_of[name] for index, name in enumerate(classes) if name in row_of}
    fitting: dict[str, Tensor] = {}
    partly: dict[str, Tensor] = {}  # of which only the rows of some classes are the file's
    for key, tensor in own.items():
        theirs = given[key][1] if key in given else None
        if theirs is not None and key.startswith(model.class_rows):
            if rows and theirs.shape == (len(of_file), *tensor.shape[1:]):
                (fitting if len(rows) == len(tensor) else partly)[key] = _with_rows(tensor, theirs, rows)
        elif theirs is not None and theirs.shape == tensor.shape:
            fitting[key] = theirs
    report = LoadReport(
        matched=len(fitting),
        missing=[key for key in own if key not in fitting],
        unexpected=[name for key, (name, _) in given.items() if key not in own],
        inflated=len(inflated),
    )
    report.reshaped = [
        key for key in report.missing if key in given and (key in partly or given[key][1].shape != own[key].shape)
    ]
    _refuse_another_network(model, given, report, slots, source)
    model.load_state_dict({**fitting, **partly}, strict=False)
    report.classes_taken = len(rows) if any(key.startswith(model.class_rows) for key in {**fitting, **partly}) else 0
    report.lost = [name for name in (*report.unexpected, *report.reshaped) if _in_slot(name, slots)]
    return report


def _refuse_another_network(
    model: Classifier, given: Mapping[str, tuple[str, Tensor]], report: LoadReport, slots: Set[str], source: str
) -> None:
    """Refuse weights that lack a key which must not stay missing, or have parts that the backbone does not have.

    :param given: the tensors of the file by our names.
    """
    own = model.state_dict()
    # Old files lack BatchNorm's counter of batches; it changes nothing.
    wrong = [
        key
        for key in report.missing
        if not key.startswith(("fc.", "consensus."))
        and not _in_slot(key, slots)
        and not key.endswith("num_batches_tracked")
    ]
    if not wrong and not _has_surplus_parts(model.backbone, report.unexpected, slots):
        return
    first = ""
    if wrong:
        key = wrong[0]
        shapes = f"{tuple(given[key][1].shape)} for {tuple(own[key].shape)}" if key in given else "missing"
        first = f", first {key} ({shapes})"
    raise wrong_model(
        f"these are another network's weights: {len(wrong)} of {len(own)} keys do not fit{first}; "
        f"{len(report.unexpected)} keys are not known here"
        + (f", first {named(report.unexpected[0])}" if report.unexpected else "")
        + ". Give the file of the backbone that the model is built on",
        source,
    )


def _by_our_names(state: Mapping[str, Tensor]) -> dict[str, tuple[str, Tensor]]:
    """The tensors of a file, each with its name there, by the names that a classifier of ours has for them."""
    renamed = {}
    for name, tensor in state.items():
        ours = bninception_names.our_name(efficientnet_names.our_name(name))
        tail = next((ours[len(p) :] for p in CLASSIFIER_PREFIXES if ours.startswith(p)), None)
        own_name = ours if ours.startswith("consensus.") else f"backbone.{ours.removeprefix('backbone.')}"
        renamed[own_name if tail is None else f"fc.{tail}"] = (name, tensor)
    return renamed


def _inflated(
    given: Mapping[str, tuple[str, Tensor]], own: Mapping[str, Tensor]
) -> tuple[dict[str, tuple[str, Tensor]], list[str]]:
    """The tensors of a file by our names, those of pictures as volumes where the model has these, and their names."""
    tensors = {key: tensor for key, (_, tensor) in given.items()}
    made = inflated_to(tensors, {key: tensor.shape for key, tensor in own.items()})
    changed = [key for key, tensor in made.items() if tensor is not tensors[key]]
    return {key: (name, made[key]) for key, (name, _) in given.items()}, changed


def _with_rows(tensor: Tensor, given: Tensor, rows: Mapping[int, int]) -> Tensor:
    """The tensor of a classifier with those rows from the file's that are of the same class; ours to theirs."""
    mixed = tensor.clone()
    mixed[list(rows)] = given[list(rows.values())].to(mixed)
    return mixed


def _has_surplus_parts(backbone: nn.Module, unexpected: Sequence[str], slots: Set[str]) -> bool:
    """Whether parts that the backbone has too are larger in the file.

    ResNet-18 is a part of ResNet-34, and 50 of 101: every key fits, and the file has blocks that the model lacks.
    """
    own_parts = dict(backbone.named_children())
    return any(
        name.removeprefix("backbone.").split(".")[0] in own_parts and not _in_slot(name, slots) for name in unexpected
    )


def _in_slot(key: str, slots: Set[str]) -> bool:
    return not slots.isdisjoint(key.split("."))


def imagenet_file(backbone: str) -> Path:
    """The path of the published ImageNet file for a backbone, fetched once and verified.

    Whoever asks for it has agreed. torchvision's lie in torch's own cache, any other where named weights are kept.

    :raises ModelError: there is no such file for the backbone, or it cannot be fetched; the message then says what to
        put where.
    """
    by_name = NAMED.get(f"{backbone}_imagenet")
    if by_name is not None and backbone not in IMAGENET_FILES:
        return fetch(by_name).path
    if by_name is None:
        known = [name.removesuffix("_imagenet") for name in NAMED if name.endswith("_imagenet")]
        raise ModelError(
            f"there are no published ImageNet weights for the backbone {backbone!r}; known: {', '.join(known)}. Leave "
            "out --init, or give a file",
            code="wrong_model",
        )
    name = IMAGENET_FILES[backbone]
    path = Path(torch.hub.get_dir()) / "checkpoints" / name
    if path.is_file():
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(
            IMAGENET_URL + name, str(path), hash_prefix=name.rsplit("-", 1)[1].removesuffix(".pth"), progress=False
        )
    except (urllib.error.URLError, OSError, RuntimeError) as error:
        raise ModelError(
            f"the ImageNet weights could not be fetched ({error}). Download {IMAGENET_URL}{name} on a machine with a "
            f"network and give it with --init FILE, or put it at {path}",
            code="missing",
        ) from error
    return path
