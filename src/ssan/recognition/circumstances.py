"""What a run took place in and what its network costs, for the journal: nothing here decides anything."""

import hashlib
import os
import stat
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from ssan.datasets.samples import Sample
from ssan.models.counting import multiply_adds, num_parameters
from ssan.recipe import Recipe
from ssan.training.conditions import Files
from ssan.training.environment import environment
from ssan.video.clip_file import split_path


def circumstances(model: nn.Module, recipe: Recipe, device: str, processes: int) -> dict[str, Any]:
    """``environment`` and ``cost``, as the journal's ``start`` has them; what is not known is None.

    :param recipe: complete: with ``crop_px``.
    :param device: ``cpu`` or ``cuda``.
    :param processes: that train together, on all machines.
    """
    return {"environment": environment(device, processes, recipe.precision), "cost": cost(model, recipe)}


def cost(model: nn.Module, recipe: Recipe) -> dict[str, Any]:
    """Parameters, and multiply-adds of one clip of the recipe's frames and size."""
    assert recipe.crop_px is not None
    try:
        macs = multiply_adds(model, recipe.num_frames, recipe.crop_px)
    except (RuntimeError, TypeError, ValueError):
        # A network of one's own may ask for the values of its features, or hold what cannot be copied; it can be
        # trained all the same.
        macs = None
    return {
        "params": num_parameters(model),
        "macs": macs,
        "num_frames": recipe.num_frames,
        "crop_px": recipe.crop_px,
    }


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
