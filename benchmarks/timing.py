"""What the timing scripts share: the machine they ran on, interleaved rounds, and what a child process needs."""

import platform
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from typing import Any

import torch

from ssan.files import read_json, write_json

RESULTS = Path(__file__).parent / "results"


def machine(device: str = "cpu") -> dict[str, Any]:
    """What the figures depend on, in words that name no particular computer."""
    cpu = next(
        (line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")),
        platform.processor(),
    )
    found: dict[str, Any] = {
        "cpu": cpu,
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
    }
    if device == "cuda":
        found["gpu"] = torch.cuda.get_device_name()
    return found


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text(encoding="utf-8").splitlines()
    except OSError:
        return []


def clock(device: str) -> Callable[[], float]:
    """Seconds so far: of this process's processors on the CPU, which others on the machine disturb least; of the wall
    on a GPU, once everything given to it is done."""
    if device == "cpu":
        return time.process_time

    def now() -> float:
        torch.cuda.synchronize()
        return time.perf_counter()

    return now


def interleaved(
    calls: Mapping[str, Callable[[], object]], rounds: int, device: str = "cpu", most_seconds: float | None = None
) -> dict[str, list[float]]:
    """Seconds of each call in each of ``rounds``; every round makes all calls once; one before is not timed.

    After a timed round that brought the whole so near to ``most_seconds`` on the wall that another like it would not
    end in time, there is no further one.
    """
    now, begin = clock(device), time.monotonic()
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(rounds + 1):
        round_begin = time.monotonic()
        for name, call in calls.items():
            start = now()
            call()
            elapsed = now() - start
            if number:
                seconds[name].append(elapsed)
        after = time.monotonic()
        if number and most_seconds is not None and after - begin + (after - round_begin) > most_seconds:
            break
    return seconds


def ratio(seconds: Mapping[str, list[float]], one: str, other: str) -> dict[str, float]:
    """``one`` over ``other``: of their least seconds, and the median of the rounds' own ratios."""
    pairs = zip(seconds[one], seconds[other], strict=True)
    return {
        "ratio_min": round(min(seconds[one]) / min(seconds[other]), 3),
        "ratio_median": round(median(a / b for a, b in pairs), 3),
    }


def store(path: Path, device: str, about: Mapping[str, Any], rows: list[dict[str, Any]]) -> None:
    """Write what was measured on a device beside what the file holds of the other kind."""
    results = read_json(path) if path.exists() else {"schema": 1, "cpu": None, "gpu": None}
    results["gpu" if device == "cuda" else "cpu"] = {"machine": machine(device), **about, "rows": rows}
    write_json(path, results)


def summary(values: list[float]) -> dict[str, float]:
    return {"seconds_min": round(min(values), 4), "seconds_median": round(median(values), 4)}
