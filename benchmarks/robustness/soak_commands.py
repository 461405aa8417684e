"""Commands killed at random moments and started again: conversion, extraction, check and ``reproduce``.

Each is run once without interruption, and then again and again with SIGKILL, at a moment drawn evenly over the time
that the uninterrupted one took: by turns to all of its processes, and to the first alone, whose children have then to
end by themselves. It is started again until it is done, and what it has made is compared with what the uninterrupted
one made: byte for byte, or by its content where times are written or the order is that of the work. Counted is what
lies about in the end: temporary files and locks in the folder, processes, shared memory.
"""

import hashlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open
from tests.training_runs import alive, differences, kill_all

from ssan.features.store import open_vectors
from ssan.files import read_json, write_json
from ssan.models.catalogue import build
from ssan.recipe import make_recipe
from ssan.training.journal import read_journal
from ssan.video.clip_file import ClipFile, ClipVideo
from ssan.weights.classifier_file import save_labeller

MOST_KILLS_OF_A_RUN = 4
PATIENCE_SECONDS = 30.0
"""How long what a killed process has started may take to end."""


@dataclass(frozen=True)
class Command:
    """What is run, with {data}, {model} and {out} to be filled in, and what of it must not depend on kills."""

    words: str
    content: Callable[[Path], dict[str, Any]]
    share: int


def clip_file(out: Path) -> dict[str, Any]:
    opened = ClipFile(f"{out}/copy.clips")
    found: dict[str, Any] = {"manifest": sorted(read_manifest(Path(f"{out}/copy.clips.jsonl")))}
    for name, entry in opened.entries.items():
        with ClipVideo(name, entry, opened) as video:
            found[name] = (video.is_whole(), entry.crc32, entry.num_frames, video.size_px)
            found[f"{name}/frames"] = opened.frames(entry).as_bytes()
    return found


def tree(out: Path) -> dict[str, Any]:
    """The SHA-256 of every file; of the manifest its lines in the order of the names."""
    root, found = out / "copy", {}
    for path in sorted(root.rglob("*")):
        if path.is_file() and path.name not in ("converted.jsonl", ".lock"):
            found[str(path.relative_to(root))] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found | {"manifest": sorted(read_manifest(root / "converted.jsonl"))}


def read_manifest(path: Path) -> Iterator[str]:
    last = {line["name"]: line for line in read_journal(path)[1:]}
    for line in last.values():
        yield str([line[key] for key in ("name", "source", "bytes", "num_frames", "truncated")])


def vectors(out: Path) -> dict[str, Any]:
    store = open_vectors(out / "features")
    rows = {name: (store.rows(name).tobytes(), store.spans(name).tobytes()) for name in store.ids}
    return {**rows, "provenance": str(store.provenance), "dim": store.dim}


def checked(out: Path) -> dict[str, Any]:
    answer = read_json(out / "answer.json")
    found = {str(row["path"]): str(sorted(row.items())) for row in answer["files"]}
    counts = {key: answer[key] for key in ("num_checked", "num_ok")}
    return found | counts | {"clean": (out / "clean.csv").read_text()}


def table(out: Path) -> dict[str, Any]:
    """The figures of each run, its weights, and the table without its times."""
    root, found = out / "table", {}
    for path in sorted(root.glob("runs/**/model.safetensors")) + sorted(root.glob("**/*.npz")):
        found[str(path.relative_to(root))] = _content_of(path)
    for run in sorted(root.glob("runs/*/*/seed_*")):
        last: dict[Any, dict[str, Any]] = {row["epoch"]: row for row in read_journal(run / "journal.jsonl", "epoch")}
        rows = [{key: row[key] for key in row if key.startswith(("val_", "train_"))} for row in last.values()]
        found[f"{run.name} of {run.parent.name}"] = str(rows)
    for one in read_json(root / "table1-mini.json")["data"]:
        for row in one["rows"]:
            found[f"row {row['row']}"] = str([row[key] for key in ("top1", "num_seeds", "num_frames") if key in row])
    return found


def _content_of(path: Path) -> str:
    if path.suffix == ".safetensors":  # which has what is said of the tensors in an order of its own each time
        with safe_open(path, "np") as model:
            said = sorted((model.metadata() or {}).items())
            return str([said, [hashlib.sha256(model.get_tensor(name)).hexdigest() for name in sorted(model.keys())]])
    with np.load(path) as arrays:  # an archive has the time of its making in it, and the protocol where its members lie
        names = sorted({*arrays.files} - {"protocol"})
        return str([hashlib.sha256(arrays[name].tobytes()).hexdigest() for name in names])


COMMANDS = {
    "conversion": [
        Command("data resize {data}/{videos} {out}/copy.clips --to clips --short-side 24 --workers 2", clip_file, 4),
        Command("data resize {data} {out}/copy --short-side 24 --workers 2", tree, 4),
        Command("data frames {data} {out}/copy --height 24 --workers 2", tree, 3),
    ],
    "extraction": [Command("extract {model} --data {data} -o {out}/features --workers 1 --device cpu", vectors, 7)],
    "check": [
        Command("data check --data {data} --memory {out}/memory.sqlite --write-clean {out}/clean.csv --workers 2",
                checked, 7),
    ],
    "reproduce": [
        Command("reproduce table1 --mini --rows tsm_en --tasks order --videos-per-task 60 --jobs 2 --device cpu "
                "--out {out}/table epochs=1", table, 5),
    ],
}  # fmt: skip


class CommandSoak:
    """One after another, so that what is left over is its command's."""

    def __init__(self, work: Path, data: Path, seed: int) -> None:
        self.work, self.data, self.seed = work, data, seed
        self.model = work / "model.safetensors"
        self.rows: list[dict[str, Any]] = []
        if not self.model.exists():
            work.mkdir(parents=True, exist_ok=True)
            recipe = make_recipe({"model": "ssan_tiny", "num_frames": 2, "size_px": 40, "crop_px": 32})
            save_labeller(self.model, build("ssan_tiny", 2), ["one", "other"], recipe, {})

    def start(self, command: Command, out: Path) -> "subprocess.Popen[bytes]":
        out.mkdir(parents=True, exist_ok=True)
        videos = next(path.name for path in self.data.iterdir() if path.is_dir())
        words = [
            word.format(data=self.data, model=self.model, out=out, videos=videos) for word in shlex.split(command.words)
        ]
        environment = {
            **os.environ, "OMP_NUM_THREADS": "1", "XDG_CACHE_HOME": str(out / "cache"),
            "TMPDIR": str(out.parent / "temporary"),
        }  # fmt: skip
        (out.parent / "temporary").mkdir(exist_ok=True)
        with open(out / "answer.json", "wb") as answer, open(out / "log", "ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "ssan", *words, "--json", "--quiet"],
                stdout=answer, stderr=log, env=environment, start_new_session=True,
            )  # fmt: skip

    def finish(self, process: "subprocess.Popen[bytes]", out: Path) -> None:
        status = process.wait(1800)
        if status not in (0, 1):
            raise SystemExit(f"{out}: exit status {status}\n{(out / 'log').read_text()[-3000:]}")

    def run(self, name: str, number: int, kills: int) -> None:
        """Kill one command as often as that, over as many runs as it takes."""
        command = COMMANDS[name][number]
        folder = self.work / f"{name}_{number}"
        shutil.rmtree(folder, ignore_errors=True)
        began = time.monotonic()
        self.finish(self.start(command, folder / "reference"), folder / "reference")
        lasts = time.monotonic() - began
        expected = command.content(folder / "reference")
        done, index = 0, 0
        while done < kills:
            rng = np.random.default_rng([self.seed, sum(name.encode()), number, index])
            row = self._one(command, folder / f"run_{index}", rng, lasts, min(kills - done, MOST_KILLS_OF_A_RUN))
            row |= {"command": name, "words": command.words, "uninterrupted_seconds": round(lasts, 1)}
            row["differences"] = differences(expected, command.content(folder / f"run_{index}"))
            self.rows.append(row)
            write_json(self.work / "commands.json", self.rows)
            print(
                f"{name} {number} run {index}: {row['kills']} kills, {len(row['differences'])} differences, left over: "
                f"{row['left_over']}, processes {row['processes_left']}, shared memory {row['shared_memory_left']}",
                flush=True,
            )
            done, index = done + row["kills"], index + 1

    def _one(self, command: Command, out: Path, rng: np.random.Generator, lasts: float, most: int) -> dict[str, Any]:
        kills, lingering, shared = 0, 0, set(os.listdir("/dev/shm"))
        while True:
            process = self.start(command, out)
            if kills == most:
                break
            try:
                process.wait(rng.uniform(0, lasts))
                break
            except subprocess.TimeoutExpired:
                if kills % 2:
                    lingering += kill_first(process)
                else:
                    kill_all(process)
                kills += 1
        self.finish(process, out)
        left = [path for path in out.rglob(".*") if path.name.endswith((".part", ".lock")) or ".pixels." in path.name]
        left += list(out.rglob("*.part"))
        return {
            "kills": kills,
            "left_over": sorted({str(path.relative_to(out)) for path in left}),
            "processes_left": lingering,
            "shared_memory_left": sorted(name for name in set(os.listdir("/dev/shm")) - shared if not in_use(name)),
        }


def kill_first(process: "subprocess.Popen[bytes]") -> int:
    """Send SIGKILL to a process alone, and wait for what it has started; how many did not end by themselves."""
    family = [process.pid]
    for pid in family:
        for children in Path(f"/proc/{pid}/task").glob("*/children"):
            try:
                family += [int(child) for child in children.read_text().split()]
            except OSError:
                continue
    process.kill()
    process.wait()
    until = time.monotonic() + PATIENCE_SECONDS
    while any(map(alive, family)) and time.monotonic() < until:
        time.sleep(0.05)
    left = [pid for pid in family if alive(pid)]
    for pid in left:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    return len(left)


def in_use(name: str) -> bool:
    """Whether some process has a piece of shared memory; on a machine with others it may be theirs."""
    for maps in Path("/proc").glob("[0-9]*/maps"):
        try:
            if f"/dev/shm/{name}" in maps.read_text(errors="replace"):
                return True
        except OSError:
            continue
    return False


def soak_commands(work: Path, data: Path, what: list[str], kills: int, seed: int) -> dict[str, Any]:
    """Kill the commands, each its share; what was found, for the file of results."""
    soak = CommandSoak(work, data, seed)
    chosen = [(name, number) for name in what for number in range(len(COMMANDS[name]))]
    shares = [COMMANDS[name][number].share for name, number in chosen]
    each = [kills * share // sum(shares) for share in shares]
    for index in range(kills - sum(each)):
        each[index % len(each)] += 1
    began = time.monotonic()
    for (name, number), count in zip(chosen, each, strict=True):
        soak.run(name, number, count)
    rows = soak.rows
    return {
        "schema": 1,
        "kills": sum(row["kills"] for row in rows),
        "runs": len(rows),
        "differences": sum(bool(row["differences"]) for row in rows),
        "left_over": sum(len(row["left_over"]) for row in rows),
        "processes_left": sum(row["processes_left"] for row in rows),
        "shared_memory_left": sum(len(row["shared_memory_left"]) for row in rows),
        "by_command": {name: sum(row["kills"] for row in rows if row["command"] == name) for name in what},
        "seconds": round(time.monotonic() - began, 1),
        "seed": seed,
        "each": rows,
    }
