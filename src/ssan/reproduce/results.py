"""Results of runs, out of their journals: means and spreads over seeds, differences, and how they are shown."""

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ssan.report.journal_runs import number, whole
from ssan.training.journal import read_journal


def events_of(folder: Path) -> list[dict[str, Any]]:
    """What the journal in a run's folder tells; nothing where there is none.

    :raises UsageError: a line of it is damaged.
    """
    path = folder / "journal.jsonl"
    return read_journal(path) if path.exists() else []


def epochs_of(events: Sequence[Mapping[str, Any]]) -> dict[int, Mapping[str, Any]]:
    """The epochs that a journal tells of, by their numbers; of two records of one, the later."""
    rows = [event for event in events if event.get("event") == "epoch"]
    return {epoch: row for row in rows if (epoch := whole(row.get("epoch"))) is not None}


def seconds_of(epochs: Mapping[int, Mapping[str, Any]]) -> float:
    """How long epochs took together."""
    return round(sum(number(row.get("seconds")) or 0.0 for row in epochs.values()), 1)


def as_dict(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def over_seeds(figures: Sequence[Mapping[str, Any]], measures: Sequence[str]) -> dict[str, Any]:
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


def agreed(values: Sequence[Any]) -> Any:
    """What all values are; None where there are none, or several."""
    kinds = {json.dumps(value, sort_keys=True) for value in values}
    return values[0] if len(kinds) == 1 else None


def as_percent(value: float | None, digits: int = 1) -> str:
    """A share as the paper prints it; nothing where there is none."""
    return "" if value is None or not np.isfinite(value) else f"{100 * value:.{digits}f}"


def spread(mean: float | None, std: float | None, *, percent: bool = True) -> str:
    """A mean over seeds, with its standard deviation where there are several; blank where it was not run."""

    def text(value: float | None) -> str:
        return as_percent(value) if percent else "" if value is None else f"{value:.1f}"

    return f"{text(mean)} ± {text(std)}" if text(mean) and std is not None else text(mean)
