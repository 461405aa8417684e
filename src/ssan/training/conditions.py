"""What the weights of a run depend on beside its recipe and its list of videos, as its state keeps it.

Sums are rounded by the number of threads that share them, by the version of the library and by the machine; and files
may be written anew under their names. A run that goes on takes up the threads of before, and says what it cannot.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ssan.errors import shortened

# Of ``environment``: what numbers depend on.
DECISIVE = (
    "ssan", "ssan_commit", "torch", "lightning", "numpy", "av", "cuda", "cudnn", "processor", "device", "device_name",
    "precision",
)  # fmt: skip


@dataclass(frozen=True)
class Files:
    """The files that a run learns from.

    :param paths: in the order of the run's list.
    :param marks: (n, 2), int64: of each what follows from the sizes, and the time of its last change.
    """

    paths: Sequence[str]
    marks: Tensor


def conditions(environment: Mapping[str, Any], threads: Sequence[int], files: Files | None) -> dict[str, Any]:
    """What a state keeps; ``threads`` are those of each process."""
    kept = {key: environment.get(key) for key in DECISIVE}
    return {"environment": kept, "threads": list(threads), "marks": None if files is None else files.marks}


def use_threads(kept: Any, rank: int) -> None:
    """Compute with as many threads as this process did when the state was kept."""
    threads = kept.get("threads") if isinstance(kept, Mapping) else None
    if isinstance(threads, list) and rank < len(threads) and type(threads[rank]) is int and 0 < threads[rank] <= 4096:
        torch.set_num_threads(threads[rank])


def differences(kept: Any, environment: Mapping[str, Any], files: Files | None) -> list[str]:
    """Why a run that goes on from a state may not end with the weights of one never stopped, in words."""
    if not isinstance(kept, Mapping):
        return ["the state is of a version of ssan that did not keep what it computed with"]
    before = kept.get("environment")
    found = []
    for key in DECISIVE:
        old, new = before.get(key) if isinstance(before, Mapping) else None, environment.get(key)
        if old != new:
            found.append(f"{key.replace('_', ' ')} was {_shown(old)} and is {_shown(new)}")
    marks = kept.get("marks")
    if files is not None and isinstance(marks, Tensor) and marks.shape == files.marks.shape:
        other = marks != files.marks
        for rows, what in [
            (other[:, 0], "have another size"),
            (other[:, 1] & ~other[:, 0], "were written since, in the same size"),
        ]:
            if rows.any():
                first = files.paths[int(rows.nonzero()[0])]
                found.append(f"{int(rows.sum())} of {len(rows)} videos {what}, first {os.fspath(first)}")
    return found


def _shown(value: Any) -> str:
    return shortened(str(value), 100)
