"""What a run was made in, for the journal: versions, machine and device. Nothing here decides anything."""

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import torch

from ssan import _version
from ssan.processes import num_cores

Precision = Literal["32", "bf16", "16"]
PACKAGES = ("av", "lightning", "numpy")


def environment(device: str, processes: int, precision: Precision = "32") -> dict[str, Any]:
    """Versions, machine and device of this process, in words that name no particular computer.

    :param precision: as a recipe asks for it; what is computed with stands in ``precision``.
    """
    gpu = device == "cuda"
    return {
        "ssan": _version.__version__,
        "ssan_commit": source_commit(Path(_version.__file__)),
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        **{package: _version_of(package) for package in PACKAGES},
        "cuda": torch.version.cuda if gpu else None,
        "cudnn": str(torch.backends.cudnn.version()) if gpu else None,
        "platform": platform.platform(),
        "processor": processor(),
        "cores": num_cores(),
        "threads": torch.get_num_threads(),
        "device": device,
        "device_name": torch.cuda.get_device_name() if gpu else None,
        "processes": processes,
        "precision": used_precision(precision, device),
    }


def used_precision(precision: Precision, device: str) -> Precision:
    """What a recipe's precision comes to on a device: torch has no mixed precision of type float16 on the CPU."""
    return "bf16" if precision == "16" and device == "cpu" else precision


def precision_note(precision: Precision, device: str) -> str | None:
    """What is to be said where a precision is not what it is called, or not the device's own."""
    if used_precision(precision, device) != precision:
        return "precision is 16, which torch does not have on the CPU: this run computes in bf16"
    if precision == "bf16" and device == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        return f"precision is bf16, which {torch.cuda.get_device_name()} does not have: torch emulates it, slowly"
    return None


def out_of_memory(error: BaseException) -> bool:
    """Whether torch or Python found too little memory, of the machine or of its GPU."""
    # On the CPU torch tells it by its words alone.
    words = ("out of memory", "can't allocate memory", "not enough memory")
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(word in str(error).lower() for word in words)
    )


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


def _version_of(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
