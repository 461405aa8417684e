"""Training and evaluating on rendered videos through the command line, for the tables of relation.py and families.py.

Runs that are finished are not repeated; one that was interrupted goes on.
"""

import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from ssan.commands import CommandRunner
from ssan.files import read_json, write_json
from ssan.training.journal import read_journal
from ssan.training.metrics import pair_accuracies

ROOT = Path(__file__).parents[2]
SIZE_PX = 48


COMMANDS = CommandRunner(threads=1)


def ssan(*words: str) -> str:
    """Run a command of ssan on one thread and return what it prints."""
    return COMMANDS.run(*words)


def render(data: Path, task: str, level: str, num_videos: int, num_classes: int) -> None:
    """Render a set of videos of one level of a task, or what is lacking of it."""
    ssan(
        "data", "synth", str(data), "--task", task, "--level", level, "--quiet", "--videos", str(num_videos),
        "--classes", str(num_classes), "--size-px", str(SIZE_PX), "--seed", "0",
    )  # fmt: skip


def train_and_evaluate(recipe: str, data: Path, out: Path, seed: int, *overrides: str) -> dict[str, Any]:
    """Train by a shipped recipe, evaluate on the test split with the order probe; the figures of the run in ``out``."""
    scores = out / "test.npz"
    if not scores.exists():
        common = ["--data", str(data), "--workers", "0", "--seed", str(seed), "--quiet", "--json"]
        ssan("train", "--recipe", recipe, "--out", str(out), "--resume", *common, *overrides)
        answer = json.loads(ssan("eval", str(out), "--split", "test", "--probe", "--scores", str(scores), *common))
        write_json(out / "test.json", answer)
    answer = read_json(out / "test.json")
    with np.load(scores) as content:
        predicted, labels = content["scores"].argmax(axis=1), content["labels"]
        pairs = [(2 * n, 2 * n + 1) for n in range(len(content["class_names"]) // 2)]
    pair, within = pair_accuracies(predicted, labels, pairs)
    (start,) = read_journal(out / "journal.jsonl", "start")[:1]
    epochs = {row["epoch"]: row for row in read_journal(out / "journal.jsonl", "epoch")}
    return {
        "top1": answer["top1"],
        "pair_top1": pair,
        "within_pair_top1": within,
        **answer["probe"],
        "last_train_loss": epochs[max(epochs)]["train_loss"],
        "num_train": start["num_train"],
        "num_test": answer["num_scored"],
        "epochs": len(epochs),
        "train_seconds": round(sum(row["seconds"] for row in epochs.values()), 1),
    }


def run_all(
    results: Path,
    names: Sequence[str],
    wanted: Sequence[tuple[Any, ...]],
    run: Callable[..., dict[str, Any]],
    jobs: int,
) -> None:
    """Call ``run(*key)`` for every wanted key, ``jobs`` at a time; each row is in the file of results once it is there.

    A row begins with its key, ``names`` and values, and takes the place of an earlier row with the same key.
    """
    with ThreadPoolExecutor(jobs) as pool, COMMANDS:
        for key, figures in zip(wanted, pool.map(lambda key: run(*key), wanted), strict=True):
            # Read anew: a run takes minutes, in which another call may have added its own.
            known = {tuple(row[name] for name in names): row for row in rows_of(results)}
            known[key] = dict(zip(names, key, strict=True)) | figures
            print(json.dumps(known[key]), flush=True)
            write_json(results, {"schema": 1, "runs": list(known.values())})


def rows_of(results: Path) -> list[dict[str, Any]]:
    """The rows that ``run_all`` has written so far."""
    return read_json(results)["runs"] if results.exists() else []
