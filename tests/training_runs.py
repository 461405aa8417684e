"""Trainings as processes of their own: started, killed with all that they have started, and compared."""

import csv
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tests.forked import ForkedCommand

from ssan.files import read_json
from ssan.training.journal import read_journal

# Warm-up in the first epoch; augmentation and dropout on; a plateau so short that the rate falls.
RECIPE = [
    "crop_px=32", "size_px=36", "num_frames=3", "epochs=20", "batch=4", "optimizer=adamw", "lr=0.01", "lr_rule=none",
    "schedule=plateau", "patience=1", "gamma=0.5", "warmup_epochs=1", "crop=random", "dropout=0.3",
]  # fmt: skip
TIMED = ("time", "seconds", "data_wait")
"""What of an epoch depends on the clock."""


def start(data: Path, out: Path, processes: int, workers: int, *overrides: str) -> "subprocess.Popen[bytes]":
    """Start or resume a run; what it says goes to files beside its folder."""
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"] if processes > 1 else []
    command = [
        sys.executable, *launcher, "-m", "ssan", "train", "--model", "ssan_tiny", "--data", str(data),
        "--out", str(out), "--resume", "--workers", str(workers), "--device", "cpu", "--quiet", "--json",
        *RECIPE, *overrides,
    ]  # fmt: skip
    out.parent.mkdir(parents=True, exist_ok=True)
    with open(f"{out}.json", "wb") as answer, open(f"{out}.log", "wb") as log:
        return subprocess.Popen(
            command, stdout=answer, stderr=log, env={**os.environ, "OMP_NUM_THREADS": "1"}, start_new_session=True
        )


def as_torchrun_says() -> list[dict[str, str]]:
    """The variables that torchrun gives to each of two processes on this machine."""
    with socket.socket() as trial:
        trial.bind(("127.0.0.1", 0))
        port = trial.getsockname()[1]
    common = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    return [{**common, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(2)]


def finish(
    process: "subprocess.Popen[bytes] | ForkedCommand", out: Path, seconds: float | None = None
) -> dict[str, Any]:
    """Wait for a run's end and return its answer."""
    try:
        status = process.wait(seconds)
    except subprocess.TimeoutExpired:
        kill_all(process)
        raise SystemExit(f"{out}: not done after {seconds:.0f} s; look at {out}.log") from None
    if status != 0:
        raise SystemExit(f"{out}: exit status {status}\n{Path(f'{out}.log').read_text()[-3000:]}")
    answer: dict[str, Any] = read_json(f"{out}.json")
    return answer


def kill_all(process: "subprocess.Popen[bytes] | ForkedCommand") -> None:
    """Send SIGKILL to a process and to all that it has started (torchrun gives its own a session each)."""
    family = [process.pid]
    for pid in family:  # grows while it is walked; whoever is stopped starts nobody new
        try:
            os.kill(pid, signal.SIGSTOP)
            for children in Path(f"/proc/{pid}/task").glob("*/children"):
                family += [int(child) for child in children.read_text().split()]
        except (ProcessLookupError, FileNotFoundError):
            continue
    for pid in family:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    process.wait()
    while any(alive(pid) for pid in family):
        time.sleep(0.01)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def leaves(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Tensors and plain values of a state, by name; not the trainer's counters of loops, nor times and versions."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if key not in ("loops", "environment", *TIMED):
                yield from leaves(inner, f"{name}/{key}")
    elif isinstance(value, (list, tuple)):
        for index, inner in enumerate(value):
            yield from leaves(inner, f"{name}/{index}")
    else:
        yield name, value


def content(out: Path) -> dict[str, Any]:
    """All of a finished run that must not depend on whether it was killed."""
    found = dict(leaves(torch.load(out / "last" / "state.ckpt", weights_only=True), "state"))
    with safe_open(out / "model.safetensors", framework="pt") as file:
        found |= {f"model/{name}": file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
        found |= {f"model/{name}": value for name, value in file.metadata().items()}
    rows = read_journal(out / "journal.jsonl", "epoch")
    found["journal"] = [{key: row[key] for key in row if key not in TIMED} for row in rows]
    with open(out / "metrics.csv", encoding="utf-8", newline="") as table:
        found["table"] = [{key: row[key] for key in row if key not in TIMED} for row in csv.DictReader(table)]
    found |= {f"curve/{tag}": values for tag, values in curves(out).items() if tag not in TIMED}
    answer = read_json(f"{out}.json")
    found |= {f"answer/{key}": answer[key] for key in ("steps", "best_epoch", "val_top1")}
    found["left over"] = sorted(str(path.relative_to(out)) for path in out.glob("**/.*"))
    return found


def curves(out: Path) -> dict[str, list[tuple[int, float]]]:
    """Steps and values by tag, as TensorBoard shows them: what a run wrote after it went on replaces what was there.

    Files are taken in the order of their making, which their names tell by second and then by a number. TensorBoard's
    own order is that of letters: of two files of one second it takes the tenth before the ninth.
    """

    def made(path: Path) -> tuple[int, int]:
        parts = path.name.split(".")
        return int(parts[3]), int(parts[-1])

    found: dict[str, list[tuple[int, float]]] = {}
    for path in sorted(out.glob("events.out.tfevents.*"), key=made):
        events = EventAccumulator(str(path)).Reload()
        for tag in events.Tags()["scalars"]:
            later = [(event.step, event.value) for event in events.Scalars(tag)]
            found[tag] = [(step, value) for step, value in found.get(tag, []) if step < later[0][0]] + later
    return found


def same(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    return bool(one == other)


def differences(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    return sorted(name for name in one | other if not same(one.get(name), other.get(name)))
