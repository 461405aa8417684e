"""Fingerprints of sets of videos, which tell two apart wherever they lie: what the list says, and sizes of files."""

import hashlib
import os
import stat
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch

from ssan.datasets.samples import Sample, Samples, hash_list
from ssan.training.conditions import Files
from ssan.video.clip_file import split_path


def fingerprint(samples: Samples) -> dict[str, Any]:
    """``num``, ``list`` and ``files`` of a list as it was read, before anything is left out of it.

    ``list`` is over ids, labels and parts, ``files`` over the sizes of the videos, in their order. Neither is over
    paths: a set that was moved, or copied to another machine, is the same set.
    """
    return {"num": len(samples), "list": hash_list(samples), "files": hash_sizes(sample.path for sample in samples)}


def hash_sizes(paths: Iterable[str]) -> str:
    """The start of a SHA-256 over the sizes of videos, in their order."""
    known: dict[str, str] = {}
    total = hashlib.sha256()
    for path in paths:
        within = split_path(path)
        file = path if within is None else within[0]
        if file not in known:
            known[file] = _size(file)
        total.update(f"{known[file]}\n".encode())
    return total.hexdigest()[:16]


def _size(path: str) -> str:
    """The bytes of a file; of a folder of frames how many there are, and the bytes of the first."""
    try:
        if not os.path.isdir(path):
            return str(os.stat(path).st_size)
        names = sorted(name for name in os.listdir(path) if not name.startswith("."))
        return f"{len(names)} {os.stat(os.path.join(path, names[0])).st_size}" if names else "0"
    except OSError:
        return "missing"


def differences(there: Any, here: Mapping[str, Any], what: str) -> list[str]:
    """In what a fingerprint that was written down differs from one that was taken now, in words.

    What was not written down says nothing. A split that is not there now is none.
    """
    if not isinstance(there, Mapping):
        return []
    if there.get("num") is not None and there["num"] != here["num"]:
        return [f"{what}: {there['num']!r} are now {here['num']}"]
    if there.get("list") is not None and there["list"] != here["list"]:
        return [f"{what}: as many, but other ones, other labels or parts, or another order"]
    if there.get("files") is not None and there["files"] != here["files"]:
        return [f"{what}: the same list, but files of other sizes"]
    return []


def files_of(samples: Sequence[Sample]) -> Files:
    """Size and time of the last change of each video: of a folder of frames those of all that is in it, of a video in a
    clip file that file's."""
    paths = [sample.path for sample in samples]
    known = {path: _mark(path) for path in dict.fromkeys(paths)}
    return Files(paths, torch.tensor([known[path] for path in paths], dtype=torch.int64).reshape(-1, 2))


def _mark(path: str) -> tuple[int, int]:
    packed = split_path(path)
    try:
        status = os.stat(path if packed is None else packed[0])
        if not stat.S_ISDIR(status.st_mode):
            return status.st_size, status.st_mtime_ns
        with os.scandir(path) as entries:
            found = sorted(
                (os.fsencode(entry.name), (status := entry.stat()).st_size, status.st_mtime_ns) for entry in entries
            )
    except (OSError, ValueError):
        return -1, -1
    sizes = hashlib.sha256(repr([(name, size) for name, size, _ in found]).encode()).digest()
    return int.from_bytes(sizes[:7], "big"), max((time for _, _, time in found), default=status.st_mtime_ns)
