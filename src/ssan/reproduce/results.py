"""What the journals of a table's runs say: figures of each run, means and spreads over seeds, and differences."""

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ssan.recognition.metrics import pair_accuracies
from ssan.recognition.score_file import ScoreFile, read_scores
from ssan.report.journal_runs import number, whole
from ssan.reproduce.plan import PlannedRun
from ssan.reproduce.runs import SCORES, evaluation, events_of, objection
from ssan.reproduce.sameness import last_start

MEASURES = ("top1", "top5", "pair_top1", "within_pair_top1", "reversed_top1", "shuffled_top1")
"""What is averaged over seeds, where it was measured."""


def figures_of(run: PlannedRun, protocol: Mapping[str, Any]) -> dict[str, Any] | None:
    """The figures of a finished run; None where it is not finished. What its journal does not give is None."""
    event = evaluation(run, protocol)
    if event is None:
        return None
    events = events_of(run.folder)
    start, epochs = last_start(events), epochs_of(events)
    probe, cost = as_dict(event.get("probe")), as_dict(start.get("cost"))
    return {
        "seed": run.seed,
        "run": str(run.folder),
        "top1": event["top1"],
        "top5": event["top5"],
        **_pairs(run),
        "reversed_top1": number(probe.get("reversed_top1")),
        "shuffled_top1": number(probe.get("shuffled_top1")),
        "num_scored": event["num_scored"],
        "num_missing": event["num_missing"],
        "num_failed": event["num_failed"],
        "protocol": event["protocol"],
        "num_train": whole(start.get("num_train")),
        "num_skipped": whole(start.get("num_skipped")),
        "epochs": len(epochs),
        "train_seconds": seconds_of(epochs),
        "processes": whole(start.get("processes")) or 1,
        "last_train_loss": number(epochs[max(epochs)].get("train_loss")) if epochs else None,
        "params": whole(cost.get("params")),
        "macs": whole(cost.get("macs")),
    }


def epochs_of(events: Sequence[Mapping[str, Any]]) -> dict[int, Mapping[str, Any]]:
    """The epochs that a journal tells of, by their numbers; of two records of one, the later."""
    rows = [event for event in events if event.get("event") == "epoch"]
    return {epoch: row for row in rows if (epoch := whole(row.get("epoch"))) is not None}


def seconds_of(epochs: Mapping[int, Mapping[str, Any]]) -> float:
    """How long epochs took together."""
    return round(sum(number(row.get("seconds")) or 0.0 for row in epochs.values()), 1)


def as_dict(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _pairs(run: PlannedRun) -> dict[str, float | None]:
    """Of a rendered task, the share of answers in the right pair, and the right ones among these."""
    if run.data.task is None:
        return {"pair_top1": None, "within_pair_top1": None}
    return pairs_in(read_scores(run.folder / SCORES))


def pairs_in(scores: ScoreFile) -> dict[str, float | None]:
    """The same of a score file; classes 2n and 2n + 1 are a pair."""
    pairs = [(2 * n, 2 * n + 1) for n in range(len(scores.classes) // 2)]
    pair, within = pair_accuracies(scores.scores.argmax(axis=1), scores.labels, pairs)
    return {"pair_top1": pair, "within_pair_top1": within}


def over_seeds(figures: Sequence[Mapping[str, Any]], measures: Sequence[str] = MEASURES) -> dict[str, Any]:
    """Mean and standard deviation (n - 1) over seeds of each measure; None where it was not measured, or once only."""
    summary: dict[str, Any] = {"num_seeds": len(figures)}
    for key in measures:
        values = [row[key] for row in figures if row.get(key) is not None]
        summary[key] = statistics.fmean(values) if values else None
        summary[f"{key}_std"] = statistics.stdev(values) if len(values) > 1 else None
    return summary


# Student's t, 97.5 %, by degrees of freedom.
STUDENT = {
    1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262, 10: 2.228, 11: 2.201,
    12: 2.179, 13: 2.160, 14: 2.145, 15: 2.131, 16: 2.120, 17: 2.110, 18: 2.101, 19: 2.093,
}  # fmt: skip


def difference(
    figures: Sequence[Mapping[str, Any]], reference: Sequence[Mapping[str, Any]], key: str = "top1"
) -> dict[str, float | int | None]:
    """The mean difference to a reference over the seeds that both have, with its 95 % interval (paired, Student's t).

    The interval speaks of other seeds. Two seeds give one of hardly any use, one seed gives none.
    """
    by_seed = {row["seed"]: row[key] for row in reference if row.get(key) is not None}
    pairs = [row[key] - by_seed[row["seed"]] for row in figures if row.get(key) is not None and row["seed"] in by_seed]
    if not pairs:
        return {"num_seeds": 0, "mean": None, "low": None, "high": None}
    mean = statistics.fmean(pairs)
    if len(pairs) < 2:
        return {"num_seeds": 1, "mean": mean, "low": None, "high": None}
    half = STUDENT.get(len(pairs) - 1, 1.96) * statistics.stdev(pairs) / math.sqrt(len(pairs))
    return {"num_seeds": len(pairs), "mean": mean, "low": mean - half, "high": mean + half}


def curves_of(runs: Sequence[PlannedRun]) -> list[dict[int, float]]:
    """Validation top-1 by epoch, of each run that has begun and is the one that is asked for."""
    curves = []
    for run in runs:
        if objection(run) is None:
            rows = epochs_of(events_of(run.folder))
            curve = {epoch: top1 for epoch, row in rows.items() if (top1 := number(row.get("val_top1"))) is not None}
            curves += [curve] if curve else []
    return curves


def agreed(values: Sequence[Any]) -> Any:
    """What all values are; None where there are none, or several."""
    kinds = {json.dumps(value, sort_keys=True) for value in values}
    return values[0] if len(kinds) == 1 else None


def as_percent(value: float | None, digits: int = 1) -> str:
    """A share as the paper prints it; nothing where there is none."""
    return "" if value is None or not np.isfinite(value) else f"{100 * value:.{digits}f}"
