"""Score files: the scores of videos under one protocol, comparable across models and toolkits.

A compressed ``.npz`` with the arrays ``ids`` (n), ``scores`` (n, k), ``labels`` (n; -1 where the class is not known),
``class_names`` (k), and ``protocol``, JSON as one string. Nothing in it is executed when it is read.
"""

import io
import json
import math
import os
import sys
import tokenize
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from ssan.errors import UsageError, few, on_one_line
from ssan.files import writing

ARRAYS = ("ids", "scores", "labels", "class_names", "protocol")
UNKNOWN = -1
"""The label of a video whose class is not known."""
# Scores of a million videos in 500 classes; no benchmark is larger, and the memory of a machine is at stake.
MOST_BYTES = 4_000_000_000
FORM = "a score file, as `ssan eval --scores FILE.npz` writes it"


@dataclass(frozen=True)
class ScoreFile:
    """What a score file holds, checked.

    :param path: as the user gave it.
    :param ids: of the videos, each once.
    :param scores: (n, k), finite, as float64; the highest of a row is the answer.
    :param labels: (n), indices into ``classes``, or ``UNKNOWN``.
    :param classes: names in the order of the scores' columns, each once.
    :param protocol: how the scores came about.
    """

    path: str
    ids: list[str]
    scores: np.ndarray
    labels: np.ndarray
    classes: list[str]
    protocol: dict[str, Any]


def check_name(path: str | Path) -> None:
    """Refuse a name that no score file has, or where none can be written, before there are scores to lose."""
    if Path(path).suffix != ".npz":
        raise UsageError("a score file's name ends in .npz; name it so", path=str(path))
    if os.path.isdir(path):
        raise UsageError("it is a folder; name a file to write, ending in .npz", path=str(path))
    folder = os.path.abspath(os.path.dirname(path))
    while not os.path.exists(folder):  # folders that are not there are made
        folder = os.path.dirname(folder)
    if not os.path.isdir(folder) or not os.access(folder, os.W_OK):
        raise UsageError(f"no file can be written in {folder}; name another folder", path=str(path))


def as_kept(scores: np.ndarray) -> np.ndarray:
    """Scores as a score file keeps them, float32; those that are none, or too large for it, are refused."""
    with np.errstate(over="ignore"):
        kept = scores.astype(np.float32)
    if not np.isfinite(kept).all():
        raise UsageError("some scores are NaN, infinite or beyond 3e38; expected finite numbers", code="nan")
    return kept


def write_scores(
    path: str | Path,
    ids: Sequence[str],
    scores: np.ndarray,
    labels: Sequence[int] | np.ndarray,
    classes: Sequence[str],
    protocol: dict[str, Any],
) -> None:
    """Write a score file, whole or not at all; scores (n, k) are kept as float32, labels not known are ``UNKNOWN``."""
    check_name(path)
    kept = as_kept(scores)
    content = io.BytesIO()
    np.savez_compressed(
        content,
        ids=np.array(ids),
        scores=kept,
        labels=np.array(labels),
        class_names=np.array(classes),
        protocol=np.array(json.dumps(protocol)),
    )
    with writing(path, "wb") as handle:
        handle.write(content.getvalue())


def read_scores(path: str | Path) -> ScoreFile:
    """Read and check a score file.

    :raises UsageError: it is missing, damaged or of another kind; ids or classes repeat; labels lie outside the
        classes; scores are not finite.
    """
    where = str(path)
    if not os.path.isfile(where):
        what = "not a file" if os.path.exists(where) else "no such file"
        raise UsageError(f"{what}; expected {FORM}", code="missing", path=where)
    arrays = _read_arrays(where)
    ids, scores, labels, classes = (arrays[name] for name in ARRAYS[:4])
    _check_kinds(where, arrays)
    n, k = scores.shape
    if n == 0 or k == 0 or ids.shape != (n,) or labels.shape != (n,) or classes.shape != (k,):
        raise _foreign(
            where, f"ids {ids.shape}, scores {scores.shape}, labels {labels.shape}, class_names {classes.shape}"
        )
    for what, names in [("ids", ids), ("class_names", classes)]:
        values, counts = np.unique(names, return_counts=True)
        if len(values) < len(names):
            repeated = values[counts > 1]
            raise UsageError(
                f"{len(repeated)} of its {what} are there more than once ({few(repeated.tolist())}); expected each "
                "once: leave out the copies",
                code="duplicate",
                path=where,
            )
    if labels.min() < UNKNOWN or labels.max() >= k:
        raise UsageError(
            f"its labels lie between {labels.min()} and {labels.max()}; expected indices of its {k} classes, or "
            f"{UNKNOWN} where the class is not known",
            code="unknown_label",
            path=where,
        )
    with np.errstate(over="ignore"):
        bad = ~np.isfinite(scores.astype(np.float32)).all(axis=1)
    if bad.any():
        raise UsageError(
            f"{bad.sum()} of its {n} videos have scores that are not finite, or beyond 3e38 "
            f"({few(ids[bad].tolist())}); expected numbers: look at the model that gave them",
            code="nan",
            path=where,
        )
    return ScoreFile(
        where, ids.tolist(), scores.astype(np.float64), labels.astype(np.int64), classes.tolist(),
        _protocol(where, arrays["protocol"]),
    )  # fmt: skip


def _read_arrays(where: str) -> dict[str, np.ndarray]:
    try:
        with zipfile.ZipFile(where) as archive:
            sizes = {entry.filename.removesuffix(".npy"): entry.file_size for entry in archive.infolist()}
            absent = [name for name in ARRAYS if name not in sizes]
            if absent:
                raise _foreign(where, f"it lacks {', '.join(absent)}")
            if sum(sizes[name] for name in ARRAYS) > MOST_BYTES:
                raise _foreign(where, f"its arrays take more than {MOST_BYTES:,} bytes")
            arrays = {}
            for name in ARRAYS:
                with archive.open(f"{name}.npy") as member:
                    arrays[name] = _read_array(member, sizes[name])
            return arrays
    except OSError as problem:
        raise UsageError(f"it cannot be read ({problem}); expected {FORM}", path=where) from None
    except (
        zipfile.BadZipFile, zlib.error, EOFError, KeyError, ValueError, TypeError, NotImplementedError, RuntimeError,
        OverflowError, SyntaxError, tokenize.TokenError,
    ) as error:  # fmt: skip
        # What numpy and zipfile raise for damage, encryption, pickled objects, and for archives of another kind; a
        # header that is no text of Python's comes as the last two.
        reason = on_one_line(error)
        raise _foreign(where, f"damaged or of another kind ({reason})") from None


def _read_array(member: IO[bytes], size: int) -> np.ndarray:
    """One array; a header that promises more bytes than the member has is refused before memory is taken for it."""
    version = np.lib.format.read_magic(member)
    read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read_header(member)
    if dtype.hasobject:
        raise ValueError("it holds pickled objects, which are not read; save arrays of text as dtype str")
    if math.prod(shape) * dtype.itemsize > size:
        raise ValueError(f"the header promises {shape} of {dtype}, more than the {size} bytes that are there")
    member.seek(0)
    return np.lib.format.read_array(member, allow_pickle=False)


def _check_kinds(where: str, arrays: dict[str, np.ndarray]) -> None:
    expected = {
        "ids": ("text", "U", 1), "scores": ("floating-point numbers", "f", 2), "labels": ("whole numbers", "iu", 1),
        "class_names": ("text", "U", 1), "protocol": ("JSON text", "U", 0),
    }  # fmt: skip
    for name, (words, kinds, num_axes) in expected.items():
        array = arrays[name]
        if array.dtype.kind not in kinds or array.ndim != num_axes:
            raise _foreign(where, f"{name} is {array.dtype} of {array.ndim} axes, not {words} of {num_axes}")
        if array.dtype.kind == "U" and not _are_letters(array):
            raise _foreign(where, f"{name} has numbers in it that stand for no letter")


def _are_letters(array: np.ndarray) -> bool:
    """Whether an array of text holds nothing beyond Unicode, which numpy takes, and whatever prints it does not."""
    if array.dtype.itemsize == 0 or array.size == 0:
        return True
    numbers = array.astype(array.dtype.newbyteorder("=")).reshape(-1).view(np.uint32)
    return int(numbers.max()) <= sys.maxunicode


def _protocol(where: str, text: np.ndarray) -> dict[str, Any]:
    try:
        value = json.loads(str(text))
        json.dumps(value, allow_nan=False)
    except (ValueError, RecursionError) as error:
        raise _foreign(where, f"its protocol is not JSON with finite numbers ({error})") from None
    if not isinstance(value, dict):
        raise _foreign(where, f"its protocol is {type(value).__name__}, not an object")
    return value


def _foreign(where: str, problem: str) -> UsageError:
    return UsageError(f"{problem}; expected {FORM}", code="bad_annotation", path=where)
