"""Page of several runs: tables, curves in one picture, recipes that differ, gains and losses by class."""

import math
from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from ssan.report.formatting import Table, count, duration, interval, listed, protocol, share, signed
from ssan.report.html import as_drawing
from ssan.report.journal_runs import (
    PROBE,
    Evaluation,
    JournalRun,
    RunGroup,
    comparable,
    differences,
    shown,
    spread,
    whole,
)
from ssan.report.one_run import CURVES, ENVIRONMENT, cost_table, in_words
from ssan.report.plots import COLOURS, DASHES, Line, gains_plot, lines_plot, num_numbered


def comparison(runs: Sequence[JournalRun], groups: Sequence[RunGroup]) -> dict[str, Any]:
    recipes = differences([run.recipe for run in runs])
    environments = differences([{k: run.environment.get(k) for k in ENVIRONMENT} for run in runs])
    styles = _styles(groups)
    evaluations = comparable(runs)
    seeded = any(len(group.runs) > 1 for group in groups)
    return {
        "overview": _overview(runs),
        "groups": _groups_table(groups) if seeded else None,
        "legend": [
            (group.name + (f", seeds {listed(group.seeds)}" if len(group.runs) > 1 else ""), colour, dashed)
            for group, (colour, dashed) in zip(groups, styles, strict=True)
        ],
        "curves": _curves_of_many(groups, styles),
        "evaluations": _evaluations_side_by_side(evaluations, groups),
        "gains": _gains(evaluations, groups),
        "recipe": _across(runs, recipes),
        "environment": _across(runs, {ENVIRONMENT[key]: row for key, row in environments.items()}),
        "cost": cost_table(runs),
    }


def _overview(runs: Sequence[JournalRun]) -> Table:
    rows = []
    for run in runs:
        planned = whole(run.recipe.get("epochs"))
        rows.append((
            run.name, run.model or "", shown(run.seed), run.status,
            f"{len(run.epochs)}" + (f" of {planned}" if planned else ""),
            share(run.val_top1), interval(run.val_interval95), shown(run.best["epoch"]) if run.best else "",
            count(whole(run.start.get("num_val"))), duration(run.train_seconds),
        ))  # fmt: skip
    columns = (
        "run", "model", "seed", "state", "epochs", "best validation top-1", "95 % interval", "in epoch", "videos",
        "training took",
    )  # fmt: skip
    return Table(columns, rows, numeric=(2, 4, 5, 6, 7, 8, 9))


def _groups_table(groups: Sequence[RunGroup]) -> Table:
    rows = []
    for group in groups:
        found = spread(run.val_top1 for run in group.runs)
        if len(group.runs) > 1:
            rows.append((group.name, listed(group.seeds), *_spread_cells(found)))
    return Table(
        ("recipe", "seeds", "runs", "mean of best validation top-1", "standard deviation", "lowest", "highest"),
        rows,
        numeric=(2, 3, 4, 5, 6),
    )


def _spread_cells(found: Any) -> tuple[str, ...]:
    if found is None:
        return ("",) * 5
    return str(found.num), share(found.mean), share(found.sd), share(found.low), share(found.high)


def _styles(groups: Sequence[RunGroup]) -> list[tuple[str, int]]:
    return [(COLOURS[n % len(COLOURS)], n // len(COLOURS) % len(DASHES)) for n in range(len(groups))]


def _curves_of_many(groups: Sequence[RunGroup], styles: Sequence[tuple[str, int]]) -> list[Markup]:
    found = []
    for key, title in CURVES.items():
        lines, words = [], []
        for group, (colour, dashed) in zip(groups, styles, strict=True):
            for run in group.runs:
                if run.each(key):
                    lines.append(Line(*run.curve(key), colour, dashed))
                    words.append(in_words(run, key, f"{run.name}"))
        if lines:
            alt = f"{title.capitalize()} by epoch: {'; '.join(words)}"
            found.append(lines_plot(lines, title, alt, share=key in ("val_top1", "data_wait")))
    return found


def _evaluations_side_by_side(
    evaluations: Sequence[Sequence[tuple[JournalRun, Evaluation]]], groups: Sequence[RunGroup]
) -> list[dict[str, Any]]:
    """A table for each set of videos and way of testing, a row for each run."""
    found = []
    for rows in evaluations:
        probed = any(evaluation.probe for _, evaluation in rows)
        inputs = [protocol(evaluation.input) for _, evaluation in rows]
        own_input = len(set(inputs)) > 1
        columns = ["run", *(["input"] if own_input else [])]
        texts = len(columns)
        top5 = any(evaluation.figures["top5"] is not None for _, evaluation in rows)
        columns += ["top-1", "95 % interval", *(["top-5"] if top5 else [])]
        columns += ["mean class", "scored", "missing", "failed"]
        columns += ["reversed", "shuffled", "same reversed"] if probed else []
        cells = []
        for (run, evaluation), its_input in zip(rows, inputs, strict=True):
            figures, probe = evaluation.figures, evaluation.probe or {}
            cells.append([
                run.name + (" (before the run went on)" if evaluation.outdated else ""),
                *([its_input] if own_input else []),
                share(figures["top1"]), interval(evaluation.interval95), *([share(figures["top5"])] if top5 else []),
                share(figures["mean_class_accuracy"]), count(figures["num_scored"]), count(figures["num_missing"]),
                count(figures["num_failed"]), *(share(probe.get(key)) for key in (PROBE if probed else ())),
            ])  # fmt: skip
        example = rows[0][1]
        found.append(
            {
                "split": example.split,
                "testing": protocol(example.testing if own_input else example.protocol),
                "table": Table(columns, cells, numeric=range(texts, len(columns))),
                "groups": _groups_evaluated(groups, rows),
            }
        )
    return found


def _groups_evaluated(groups: Sequence[RunGroup], evaluated: Sequence[tuple[JournalRun, Evaluation]]) -> Table | None:
    rows = []
    for group in groups:
        found = spread(evaluation.figures["top1"] for run, evaluation in evaluated if run in group.runs)
        if found:
            rows.append((group.name, *_spread_cells(found)))
    columns = ("recipe", "runs", "mean top-1", "standard deviation", "lowest", "highest")
    return Table(columns, rows, numeric=(1, 2, 3, 4, 5)) if rows else None


def _gains(
    evaluations: Sequence[Sequence[tuple[JournalRun, Evaluation]]], groups: Sequence[RunGroup]
) -> list[dict[str, Any]]:
    """Gains and losses by class of the second of two recipes over the first, for what both were evaluated on."""
    if len(groups) != 2:
        return []
    found = []
    for evaluated in evaluations:
        each = [[evaluation for run, evaluation in evaluated if run in group.runs] for group in groups]
        example = evaluated[0][1]
        if not all(each) or not example.classes:
            continue
        sides = [_class_means(own) for own in each]
        rows: list[dict[str, Any]] = []
        for label, num, one, two in zip(example.classes, example.counts, *sides, strict=True):
            known = one is not None and two is not None
            rows.append({
                "label": label, "num": num if known else 0, "top1_a": one, "top1_b": two,
                "difference": two - one if one is not None and two is not None else None,
            })  # fmt: skip
        rows.sort(key=lambda row: -math.inf if row["difference"] is None else row["difference"], reverse=True)
        if not any(row["num"] for row in rows):
            continue
        a, b = (group.name for group in groups)
        better, worse = (sum((row["difference"] or 0) * sign > 0 for row in rows) for sign in (1, -1))
        title = f"Top-1 by class on {example.split}: {b} less {a}"
        alt = (
            f"{title}: {better} classes gain, {worse} lose; the largest gain is {signed(rows[0]['difference'])}; all "
            "of them stand in the table below"
        )
        found.append(
            {
                "split": example.split,
                "testing": protocol(example.testing),
                "picture": as_drawing(gains_plot(rows, title), alt),
                "numbered": num_numbered(row["label"] for row in rows if row["num"]),
                "means": any(len(group.runs) > 1 for group in groups),
                "table": Table(
                    ("class", "videos", a, b, "difference"),
                    [(row["label"], count(row["num"]), share(row["top1_a"]), share(row["top1_b"]),
                      signed(row["difference"])) for row in rows],
                    numeric=(1, 2, 3, 4),
                ),
            }
        )  # fmt: skip
    return found


def _class_means(evaluations: Sequence[Evaluation]) -> list[float | None]:
    """Each class's top-1, the mean over evaluations of one group."""
    every = [evaluation.accuracies for evaluation in evaluations]
    means: list[float | None] = []
    for values in zip(*every, strict=True):
        known = [value for value in values if value is not None]
        means.append(sum(known) / len(known) if known else None)
    return means


def _across(runs: Sequence[JournalRun], rows: dict[str, list[Any]]) -> Table | None:
    """A row for each key, a column for each run."""
    if not rows:
        return None
    return Table(("key", *(run.name for run in runs)), [(key, *map(shown, values)) for key, values in rows.items()])
