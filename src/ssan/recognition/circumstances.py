"""What a run took place in, what its network costs and how it ended, for the journal: nothing here decides anything."""

import functools
import os
import platform
import subprocess
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
from torch import nn

import ssan
from ssan.cores import num_cores
from ssan.errors import TrainingError
from ssan.models.counting import multiply_adds, num_parameters
from ssan.processes import processes
from ssan.recipe import Recipe
from ssan.training.callbacks import InterruptedRun
from ssan.training.journal import Journal

PACKAGES = ("av", "lightning", "numpy")

Training = TypeVar("Training", bound=Callable[..., dict[str, Any]])


def ending_in_the_journal(run: Training) -> Training:
    """Let a function that trains into a folder, its third argument, note there when it is interrupted or fails.

    What is refused before a step is made is no failure of the run, and leaves the journal as it was.
    """

    @functools.wraps(run)
    def noting(recipe: Any, data: Any, out: str | Path, **rest: Any) -> dict[str, Any]:
        try:
            return run(recipe, data, out, **rest)
        except InterruptedRun:
            _note(out, "interrupted")
            raise
        except TrainingError as error:
            _note(out, "failed", code=error.code, message=error.message)
            raise

    return cast(Training, noting)


def _note(out: str | Path, event: str, **fields: Any) -> None:
    if processes().first:
        Journal(out).record(event, **fields)


def circumstances(model: nn.Module, recipe: Recipe, device: str, processes: int) -> dict[str, Any]:
    """``environment`` and ``cost``, as the journal's ``start`` has them; what is not known is None.

    :param recipe: complete: with ``crop_px``.
    :param device: ``cpu`` or ``cuda``.
    :param processes: that train together, on all machines.
    """
    return {"environment": environment(device, processes), "cost": cost(model, recipe)}


def environment(device: str, processes: int) -> dict[str, Any]:
    """Versions, machine and device of this process, in words that name no particular computer."""
    gpu = device == "cuda"
    return {
        "ssan": ssan.__version__,
        "ssan_commit": source_commit(Path(ssan.__file__)),
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        **{package: _version(package) for package in PACKAGES},
        "cuda": torch.version.cuda if gpu else None,
        "cudnn": str(torch.backends.cudnn.version()) if gpu else None,
        "platform": platform.platform(),
        "processor": processor(),
        "cores": num_cores(),
        "threads": torch.get_num_threads(),
        "device": device,
        "device_name": torch.cuda.get_device_name() if gpu else None,
        "processes": processes,
    }


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


def processor() -> str | None:
    """The processor's name, as the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor()) or None


def source_commit(file: Path) -> str | None:
    """The commit of the checkout that this file of the package runs from, ``-dirty`` behind it where files differ.

    None where it is installed without its history, or git is not there to ask.
    """
    checkout = file.parents[2]
    if not (checkout / ".git").exists() or not (checkout / "src" / "ssan").samefile(file.parent):
        return None
    # A hook of git that trains would else speak of its own repository; and nothing is locked for a look.
    others = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    command = ["git", "-C", str(checkout), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        said = subprocess.run(
            command, env={**others, "GIT_OPTIONAL_LOCKS": "0"}, capture_output=True, text=True, timeout=5, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return said.stdout.strip() or None


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
