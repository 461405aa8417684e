"""Runs killed at random moments and resumed: whether they end with what a run that was never killed ends with.

    python -m benchmarks.robustness.soak --work runs/soak --kills 100 --jobs 2

Trains a tiny model on a rendered set in four configurations (1 or 2 processes, 0 or 2 loader processes each), once
without interruption, and then again and again with SIGKILL sent to all of a run's processes at a moment drawn evenly
over the time that the uninterrupted run took, its start included. A run killed is resumed, until it is done; then
every tensor of its last state and of its best model, the best epoch, and the rows of its journal, table and curves
are compared with the uninterrupted run's. Writes benchmarks/results/soak.json; exit status 1 if anything differs.
Runs that are finished are not repeated.

    python -m benchmarks.robustness.soak --what conversion,extraction,check,reproduce --kills 30

does so with other commands (``soak_commands.py``), and writes benchmarks/results/soak_commands.json.
"""

import argparse
import itertools
import json
import os
import platform
import shutil
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tests.training_runs import RECIPE, content, differences, finish, kill_all, start

from ssan.files import read_json, write_json
from ssan.training.journal import read_journal

RESULTS = Path(__file__).parents[1] / "results" / "soak.json"
# Processes, loader processes of each, optimizer steps between two states saved.
CONFIGURATIONS = [(1, 0, 1), (2, 2, 3), (1, 2, 3), (2, 0, 1)]
MOST_KILLS_OF_A_RUN = 12
BOUND = 1e-5  # of weights, between two processes and one, with BatchNorm frozen and without dropout


def phase(out: Path, since: float, epochs: int, steps_per_epoch: int, every: int) -> str:
    """What a run was doing when it was killed, as far as its files tell; ``since`` is when it was started."""
    if list(out.glob("**/.*.part")):
        return "saving"
    state = out / "last" / "state.ckpt"
    events = read_journal(out / "journal.jsonl") if (out / "journal.jsonl").exists() else []
    trained = state.exists() and state.stat().st_mtime > since
    if not trained and not any(event["event"] == "resumed" and event["time"] > since for event in events):
        return "start-up"
    if not state.exists():
        return "training"
    position = torch.load(state, weights_only=True)["position"]
    if position["epoch"] + 1 == epochs and position["position"] == steps_per_epoch:
        return "after the last epoch"
    if steps_per_epoch - every <= position["position"] < steps_per_epoch:
        return "last steps of an epoch and validation"
    return "training"


class Soak:
    def __init__(self, work: Path, kills: int, seed: int) -> None:
        self.work, self.kills, self.seed = work, kills, seed
        self.data = work / "data"
        self.rows: list[dict[str, Any]] = read_json(work / "runs.json") if (work / "runs.json").exists() else []
        self.references: dict[int, dict[str, Any]] = {}
        self._lock = threading.Lock()

    def reference(self, number: int) -> tuple[Path, dict[str, Any]]:
        """The uninterrupted run of a configuration, and what it was like."""
        processes, workers, every = CONFIGURATIONS[number]
        out = self.work / f"{processes}_{workers}" / "reference"
        if not (out.parent / "reference.seconds").exists():
            shutil.rmtree(out, ignore_errors=True)
            began = time.monotonic()
            finish(start(self.data, out, processes, workers, f"checkpoint_every_steps={every}"), out, 600)
            write_json(out.parent / "reference.seconds", round(time.monotonic() - began, 2))
        rates = [row["lr"] for row in read_journal(out / "journal.jsonl", "epoch")]
        falls = sum(after < before for before, after in itertools.pairwise(rates))
        if not falls:
            raise SystemExit(f"{out}: the rate never fell, so no run crosses a plateau; change RECIPE")
        answer = read_json(f"{out}.json")
        about = {
            "processes": processes,
            "workers": workers,
            "checkpoint_every_steps": every,
            "epochs": answer["epochs"],
            "steps": answer["steps"],
            "rate_falls": falls,
            "seconds": read_json(out.parent / "reference.seconds"),
        }
        self.references[number] = about
        return out, about

    def configuration(self, number: int) -> None:
        """Run one configuration until it has had its share of the kills."""
        reference, about = self.reference(number)
        expected = content(reference)
        share = self.kills // len(CONFIGURATIONS) + (number < self.kills % len(CONFIGURATIONS))
        while (left := share - sum(sum(row["phases"].values()) for row in self.rows if row["number"] == number)) > 0:
            index = sum(row["number"] == number for row in self.rows)
            row = self.run(number, index, about, left)
            found = differences(expected, content(reference.parent / f"run_{index}"))
            row["differences"] = found
            with self._lock:
                self.rows.append(row)
                write_json(self.work / "runs.json", self.rows)
            verdict = f"DIFFERENT in {len(found)}: {', '.join(found[:5])}" if found else "the same"
            print(f"{reference.parent.name} run {index}: {sum(row['phases'].values())} kills, {verdict}", flush=True)

    def run(self, number: int, index: int, about: dict[str, Any], most: int) -> dict[str, Any]:
        """One run, killed and resumed until it is done."""
        out = self.work / f"{about['processes']}_{about['workers']}" / f"run_{index}"
        shutil.rmtree(out, ignore_errors=True)
        every, phases = about["checkpoint_every_steps"], Counter[str]()
        rng, began_run = np.random.default_rng([self.seed, number, index]), time.monotonic()
        while True:
            began = time.time()
            process = start(self.data, out, about["processes"], about["workers"], f"checkpoint_every_steps={every}")
            if phases.total() == min(most, MOST_KILLS_OF_A_RUN):
                finish(process, out, 60 + 10 * about["seconds"])
                break
            try:
                process.wait(rng.uniform(0, about["seconds"]))
                finish(process, out)
                break
            except subprocess.TimeoutExpired:
                kill_all(process)
            where = phase(out, began, about["epochs"], about["steps"] // about["epochs"], every)
            phases[where] += 1
            print(f"{out.parent.name} run {index}: killed after {time.time() - began:.1f} s, {where}", flush=True)
        seconds = round(time.monotonic() - began_run, 1)
        return {"number": number, "index": index, "phases": dict(phases), "seconds": seconds}

    def two_against_one(self) -> dict[str, float]:
        """The largest difference of a weight between two processes and one on the same batches."""
        found = {}
        for name, frozen in (("batch_norm_frozen", "true"), ("batch_norm_live", "false")):
            weights = []
            for processes, batch in ((1, 8), (2, 4)):
                out = self.work / f"two_against_one/{name}_{processes}"
                shutil.rmtree(out, ignore_errors=True)
                changes = ("optimizer=sgd", "epochs=3", "dropout=0", f"batch={batch}", f"freeze_bn={frozen}")
                finish(start(self.data, out, processes, 0, *changes), out, 600)
                weights.append(torch.load(out / "last" / "state.ckpt", weights_only=True)["state_dict"])
            one, two = weights
            found[name] = max((one[key].double() - two[key].double()).abs().max().item() for key in one)
        return found

    def results(self) -> dict[str, Any]:
        by_configuration = []
        for number, about in sorted(self.references.items()):
            rows = [row for row in self.rows if row["number"] == number]
            phases = sum((Counter(row["phases"]) for row in rows), Counter[str]())
            by_configuration.append({
                **about,
                "kills": phases.total(),
                "runs": len(rows),
                "differences": sum(bool(row["differences"]) for row in rows),
                "phases": dict(sorted(phases.items())),
            })  # fmt: skip
        phases = sum((Counter(about["phases"]) for about in by_configuration), Counter[str]())
        return {
            "schema": 1,
            "kills": phases.total(),
            "runs": sum(about["runs"] for about in by_configuration),
            "differences": sum(about["differences"] for about in by_configuration),
            "different": [row for row in self.rows if row["differences"]],
            "phases": dict(sorted(phases.items())),
            "seconds": round(sum(row["seconds"] for row in self.rows), 1),
            "by_configuration": by_configuration,
            "seed": self.seed,
            "recipe": RECIPE,
        }


def made_by() -> dict[str, Any]:
    return {
        "machine": {"system": platform.system(), "machine": platform.machine(), "cores": os.cpu_count()},
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
    }


def commands(arguments: argparse.Namespace, data: Path) -> int:
    """The soak of other commands than training."""
    from benchmarks.robustness.soak_commands import soak_commands

    work = arguments.work.resolve() / "commands"
    results = soak_commands(work, data, arguments.what.split(","), arguments.kills, arguments.seed) | made_by()
    write_json(arguments.results or RESULTS.with_name("soak_commands.json"), results)
    told = ("kills", "runs", "differences", "left_over", "processes_left", "shared_memory_left", "seconds")
    print(json.dumps({key: results[key] for key in told}))
    return int(any(results[key] for key in told[2:6]))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, default=Path("runs/soak"))
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2, help="configurations at a time")
    parser.add_argument("--results", type=Path)
    parser.add_argument("--what", default="training", help="training; or conversion, extraction, check, reproduce")
    arguments = parser.parse_args()
    soak = Soak(arguments.work.resolve(), arguments.kills, arguments.seed)
    if not (soak.data / "synthetic.json").exists():
        subprocess.run(
            [sys.executable, "-m", "ssan", "data", "synth", str(soak.data), "--task", "order", "--classes", "4",
             "--size-px", "32", "--videos", "56", "--seed", "0", "--quiet"],
            stdout=subprocess.DEVNULL, check=True,
        )  # fmt: skip
    if arguments.what != "training":
        return commands(arguments, soak.data)
    with ThreadPoolExecutor(arguments.jobs) as pool:
        list(pool.map(soak.configuration, range(len(CONFIGURATIONS))))
    between = soak.two_against_one()
    results = {**soak.results(), "two_processes_against_one": between}
    results |= made_by()
    write_json(arguments.results or RESULTS, results)
    print(json.dumps({key: results[key] for key in ("kills", "runs", "differences", "phases", "seconds")}))
    print(f"two processes against one: {between}; bound with BatchNorm frozen: {BOUND}")
    return int(results["differences"] > 0 or between["batch_norm_frozen"] > BOUND)


if __name__ == "__main__":
    sys.exit(main())
