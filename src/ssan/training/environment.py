"""What a run took place in, for the journal: versions, machine and device. Nothing here decides anything."""

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

import ssan
from ssan.cores import num_cores

PACKAGES = ("av", "lightning", "numpy")


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
