"""The page of a run, or of several side by side, from their journals alone.

No figure is made here that a journal does not give: what was not run is blank. Derived are intervals of shares, means
and spreads over seeds, differences, and times per epoch and per video.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
from markupsafe import Markup

import ssan
from ssan.files import writing
from ssan.insight.page import as_drawing, render_page
from ssan.insight.plots import COLOURS, DASHES, Line, confusion_plot, gains_plot, lines_plot, matrix_plot
from ssan.insight.runs import (
    PROBE,
    Evaluation,
    Group,
    Run,
    comparable,
    differences,
    grouped,
    number,
    read_runs,
    shown,
    spread,
    warnings,
    whole,
    word,
)

MOST_NAMED_CLASSES = 20  # of a confusion matrix with names and counts in it
MOST_DRAWN_CLASSES = 2000
MOST_CONFUSED = 20
MOST_ENDS = 15  # classes at either end of a long list that stand outside the fold
CURVES = {
    "train_loss": "training loss",
    "val_loss": "validation loss",
    "val_top1": "validation top-1",
    "lr": "learning rate",
    "data_wait": "share of the time waiting for data",
    "seconds": "seconds, with validation",
}
ENVIRONMENT = {
    "ssan": "ssan", "ssan_commit": "commit of ssan", "python": "Python", "torch": "torch", "lightning": "lightning",
    "av": "av", "numpy": "numpy", "cuda": "CUDA", "cudnn": "cuDNN", "platform": "system", "processor": "processor",
    "cores": "cores", "threads": "threads of torch", "device": "device", "device_name": "its name",
    "processes": "processes",
}  # fmt: skip


@dataclass(frozen=True)
class Table:
    """Rows for people.

    :param numeric: columns that stand to the right.
    :param rows: a cell is text, markup, or "" for what is not known.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    numeric: Sequence[int] = ()


def report(folders: Sequence[str], out: str) -> dict[str, Any]:
    """Write the page of these runs to ``out``; the answer has the fields of ``ssan report --json``.

    :raises UsageError: a folder is no run, or its journal is damaged.
    """
    runs = read_runs(folders)
    groups = grouped(runs)
    said = warnings(runs, groups) if len(runs) > 1 else []
    page = render_page(
        "report.html.j2",
        title=f"{runs[0].name}: a run of ssan" if len(runs) == 1 else f"{len(runs)} runs of ssan",
        runs=[_view(run, alone=len(runs) == 1) for run in runs],
        comparison=_comparison(runs, groups) if len(runs) > 1 else None,
        warnings=said,
        made=when(datetime.now(UTC).timestamp()),
        version=ssan.__version__,
        most_named=MOST_NAMED_CLASSES,
        most_confused=MOST_CONFUSED,
        most_ends=MOST_ENDS,
    )
    with writing(out) as handle:
        handle.write(page)
    return {
        "page": out,
        "runs": [_headline(run) for run in runs],
        "groups": [_group_headline(group) for group in groups if len(group.runs) > 1],
        "warnings": said,
    }


def _headline(run: Run) -> dict[str, Any]:
    best = run.best
    return {
        "run": run.folder,
        "name": run.name,
        "model": run.model,
        "seed": run.seed,
        "status": run.status,
        "epochs": len(run.epochs),
        "epochs_planned": whole(run.recipe.get("epochs")),
        "best_epoch": best["epoch"] if best else None,
        "val_top1": run.val_top1,
        "val_interval95": list(run.val_interval95) if run.val_interval95 else None,
        "num_train": whole(run.start.get("num_train")),
        "num_val": whole(run.start.get("num_val")),
        "train_seconds": run.train_seconds,
        "epoch_seconds": run.epoch_seconds,
        "params": whole(run.cost.get("params")),
        "macs": whole(run.cost.get("macs")),
        "evaluations": [
            {
                "split": evaluation.split,
                "list": evaluation.videos,
                **evaluation.figures,
                "interval95": list(evaluation.interval95) if evaluation.interval95 else None,
                "protocol": evaluation.protocol,
                "probe": evaluation.probe,
                "outdated": evaluation.outdated,
            }
            for evaluation in run.evaluations
        ],
    }


def _group_headline(group: Group) -> dict[str, Any]:
    whole_group = spread(run.val_top1 for run in group.runs)
    return {
        "name": group.name,
        "runs": [run.folder for run in group.runs],
        "seeds": group.seeds,
        "val_top1": vars(whole_group) if whole_group else None,
    }


# ---------------------------------------------------------------------------------------------------------- one run


def _view(run: Run, *, alone: bool) -> dict[str, Any]:
    """What the template shows of one run.

    :param alone: whether its page has no other; the curves of several stand in one picture instead.
    """
    planned = whole(run.recipe.get("epochs"))
    data = run.start.get("data") if isinstance(run.start.get("data"), dict) else {}
    assert isinstance(data, dict)
    times = [number(moment.get("time")) for moment in run.moments]
    return {
        "name": run.name,
        "folder": run.folder,
        "status": run.status,
        "status_text": _status(run),
        "facts": [
            ("model", run.model or ""),
            ("data", _data(data)),
            ("classes", f"{len(run.classes)}" if run.classes else ""),
            ("videos", _videos(run)),
            ("seed", shown(run.seed)),
            ("epochs", f"{len(run.epochs)}" + (f" of {planned}" if planned else "")),
            ("started", when(times[0]) if times else ""),
            ("last entry", when(run.last_time)),
            ("training took", duration(run.train_seconds)),
        ],
        "best": {
            "top1": share(run.val_top1),
            "interval": interval(run.val_interval95),
            "epoch": run.best["epoch"],
            "num": count(whole(run.start.get("num_val"))),
            "protocol": _validation(run),
        }
        if run.best
        else None,
        "curves": _curves_of_one(run) if alone else [],
        "evaluations": [_evaluation_view(evaluation, run) for evaluation in run.evaluations],
        "cost": _cost_table([run]),
        "recipe": Table(("key", "value"), [(key, shown(value)) for key, value in run.recipe.items()]),
        "environment": Table(
            ("", "at the start"),
            [(title, shown(run.environment[key])) for key, title in ENVIRONMENT.items() if key in run.environment],
        ),
        "dropped": _dropped(run),
        "history": Table(("when", "what"), [(when(number(row.get("time"))), _moment(row)) for row in run.moments]),
    }


def _status(run: Run) -> str:
    last = run.moments[-1]
    if run.status == "finished":
        return "finished"
    if run.status == "interrupted":
        return "interrupted; its state is saved, and --resume goes on with it"
    if run.status == "failed":
        return f"failed: {word(last.get('message')) or ''}"
    return f"not ended: running when this page was made, or killed after {when(run.last_time)}"


def _data(data: dict[str, Any]) -> str:
    parts = [word(data.get("root")) or "", f"({data['format']})" if word(data.get("format")) else ""]
    options = data.get("options")
    given = [f"{key}={shown(value)}" for key, value in options.items()] if isinstance(options, dict) else []
    return " ".join(part for part in (*parts, *given) if part)


def _videos(run: Run) -> str:
    train, val = (whole(run.start.get(key)) for key in ("num_train", "num_val"))
    return "" if train is None or val is None else f"{train:,} for training, {val:,} for validation"


def _validation(run: Run) -> str:
    """How the validation of a training run looks at a video: one view, the centre crop, mean of the frames' logits."""
    own = {key: run.recipe.get(key) for key in ("num_frames", "sampling", "resize", "size_px", "crop_px")}
    return protocol({**own, "views": 1, "crops": 1, "average": "logits"})


def _dropped(run: Run) -> Table:
    rows = [
        ("training", "left out, listed in skipped.csv", shown(whole(run.start.get("num_skipped")))),
        ("training", "known to be damaged, used as far as they decode", shown(whole(run.start.get("num_damaged")))),
    ]
    for evaluation in run.evaluations:
        which = f"evaluation on {evaluation.split}"
        rows.append((which, "missing", count(evaluation.figures["num_missing"])))
        rows.append((which, "could not be read", count(evaluation.figures["num_failed"])))
    return Table(("where", "videos", "number"), rows, numeric=(2,))


def _moment(event: dict[str, Any]) -> str:
    kind, step, epoch = event["event"], whole(event.get("step")), whole(event.get("epoch"))
    if kind == "start":
        return "started"
    if kind == "resumed":
        where = f" in epoch {epoch}" if epoch is not None else ""
        return f"gone on with{where}" + (f", from step {step}" if step is not None else "")
    if kind == "interrupted":
        return "interrupted, its state saved"
    if kind == "failed":
        return f"failed: {word(event.get('message')) or ''}"
    steps = whole(event.get("steps"))
    return "finished" + (f" after {steps:,} steps" if steps is not None else "")


def _curves_of_one(run: Run) -> list[Markup]:
    found = []
    losses = [key for key in ("train_loss", "val_loss") if run.each(key)]
    if losses:
        lines = [
            Line(*run.curve(key), COLOURS[1 - n], label=CURVES[key].partition(" ")[0])
            for n, key in enumerate(("train_loss", "val_loss"))
            if key in losses
        ]
        alt = "Loss by epoch: " + "; ".join(_in_words(run, key, CURVES[key].partition(" ")[0]) for key in losses)
        found.append(lines_plot(lines, "loss", alt))
    for key, title in CURVES.items():
        if key not in ("train_loss", "val_loss") and run.each(key):
            line = Line(*run.curve(key), COLOURS[1])
            alt = f"{title.capitalize()} by epoch: {_in_words(run, key)}"
            found.append(lines_plot([line], title, alt, share=key in ("val_top1", "data_wait")))
    return found


def _in_words(run: Run, key: str, name: str = "") -> str:
    rows = [(row["epoch"], value) for row in run.epochs if (value := number(row.get(key))) is not None]
    (first, start), (last, end) = rows[0], rows[-1]
    ends = f"{start:.4g} in epoch {first}" + (f", {end:.4g} in epoch {last}" if last != first else "")
    return f"{name} {ends}".strip()


def _evaluation_view(evaluation: Evaluation, run: Run) -> dict[str, Any]:
    notes = []
    if evaluation.outdated:
        notes.append("the run went on afterwards, so its best model may be another now")
    if evaluation.repeats:
        notes.append(f"the latest of {evaluation.repeats + 1} under this protocol")
    figures = evaluation.figures
    return {
        "split": evaluation.split,
        "top1": share(figures["top1"]),
        "top5": share(figures["top5"]),
        "mean_class_accuracy": share(figures["mean_class_accuracy"]),
        "interval": interval(evaluation.interval95),
        "scored": count(figures["num_scored"]),
        "missing": count(figures["num_missing"]),
        "failed": count(figures["num_failed"]),
        "protocol": protocol(evaluation.protocol),
        "when": when(evaluation.time),
        "seconds": duration(figures["seconds"]),
        "notes": notes,
        "probe": _probe_row(evaluation),
        "confusion": _confusion_picture(evaluation),
        "confused": _confused(evaluation),
        "per_class": _per_class(evaluation),
        "num_classes": len(evaluation.classes),
    }


def _probe_row(evaluation: Evaluation) -> Table | None:
    if evaluation.probe is None:
        return None
    values = [share(evaluation.figures["top1"]), *(share(evaluation.probe[key]) for key in evaluation.probe)]
    return Table(
        ("frames as sampled, top-1", "reversed, top-1", "shuffled, top-1", "same answer reversed"), [values], range(4)
    )


def _matrix(evaluation: Evaluation) -> np.ndarray | None:
    num = len(evaluation.classes)
    if evaluation.confusion is None or not 0 < num <= MOST_DRAWN_CLASSES:
        return None
    table = np.zeros((num, num), dtype=np.int64)
    for true, predicted, times in evaluation.confusion:
        table[true, predicted] += times
    return table


def _confusion_picture(evaluation: Evaluation) -> Markup | None:
    table = _matrix(evaluation)
    if table is None:
        return None
    if len(table) <= MOST_NAMED_CLASSES:
        return confusion_plot(table, evaluation.classes, paired=False)
    right, total = int(table.trace()), int(table.sum())
    alt = (
        f"Confusion matrix of {len(table)} classes, rows the true ones: {right:,} of {total:,} videos on the diagonal; "
        "the most frequent confusions stand in the table beside it"
    )
    return matrix_plot(table, alt)


def _confused(evaluation: Evaluation) -> Table | None:
    """The most frequent confusions: true class, answer, videos, share of the class's videos."""
    if evaluation.confusion is None:
        return None
    totals: dict[int, int] = {}
    for true, _, times in evaluation.confusion:
        totals[true] = totals.get(true, 0) + times
    wrong = [(times, times / totals[true], true, predicted) for true, predicted, times in evaluation.confusion
             if true != predicted and times > 0]  # fmt: skip
    wrong.sort(key=lambda row: (-row[0], -row[1], row[2], row[3]))
    names = evaluation.classes
    return Table(
        ("true class", "answer", "videos", "share of the class"),
        [(names[a], names[b], f"{times:,}", share(part)) for times, part, a, b in wrong[:MOST_CONFUSED]],
        numeric=(2, 3),
    )


def _per_class(evaluation: Evaluation) -> Table:
    """Classes by top-1, the highest first; those without a video last."""
    numbers = range(1, len(evaluation.classes) + 1)
    rows = sorted(
        zip(evaluation.classes, numbers, evaluation.counts, evaluation.accuracies, strict=True),
        key=lambda row: (row[3] is None, -(row[3] or 0), -(row[2] or 0)),
    )
    return Table(
        ("class", "its number", "videos", "top-1", ""),
        [(name, f"{place}", count(num), share(top1), bar(top1)) for name, place, num, top1 in rows],
        numeric=(1, 2, 3),
    )


# ------------------------------------------------------------------------------------------------------ several runs


def _comparison(runs: Sequence[Run], groups: Sequence[Group]) -> dict[str, Any]:
    recipes = differences([run.recipe for run in runs])
    environments = differences([{k: run.environment.get(k) for k in ENVIRONMENT} for run in runs])
    styles = _styles(groups)
    evaluations = comparable(runs)
    seeded = any(len(group.runs) > 1 for group in groups)
    return {
        "overview": _overview(runs),
        "groups": _groups_table(groups) if seeded else None,
        "legend": [
            (group.name + (f", seeds {_listed(group.seeds)}" if len(group.runs) > 1 else ""), colour, dashed)
            for group, (colour, dashed) in zip(groups, styles, strict=True)
        ],
        "curves": _curves_of_many(groups, styles),
        "evaluations": _evaluations_side_by_side(evaluations, groups),
        "gains": _gains(evaluations, groups),
        "recipe": _across(runs, recipes),
        "environment": _across(runs, {ENVIRONMENT[key]: row for key, row in environments.items()}),
        "cost": _cost_table(runs),
    }


def _overview(runs: Sequence[Run]) -> Table:
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


def _groups_table(groups: Sequence[Group]) -> Table:
    rows = []
    for group in groups:
        found = spread(run.val_top1 for run in group.runs)
        if len(group.runs) > 1:
            rows.append((group.name, _listed(group.seeds), *_spread_cells(found)))
    return Table(
        ("recipe", "seeds", "runs", "mean of best validation top-1", "standard deviation", "lowest", "highest"),
        rows,
        numeric=(2, 3, 4, 5, 6),
    )


def _spread_cells(found: Any) -> tuple[str, ...]:
    if found is None:
        return ("",) * 5
    return str(found.num), share(found.mean), share(found.sd), share(found.low), share(found.high)


def _styles(groups: Sequence[Group]) -> list[tuple[str, int]]:
    return [(COLOURS[n % len(COLOURS)], n // len(COLOURS) % len(DASHES)) for n in range(len(groups))]


def _curves_of_many(groups: Sequence[Group], styles: Sequence[tuple[str, int]]) -> list[Markup]:
    found = []
    for key, title in CURVES.items():
        lines, words = [], []
        for group, (colour, dashed) in zip(groups, styles, strict=True):
            for run in group.runs:
                if run.each(key):
                    lines.append(Line(*run.curve(key), colour, dashed))
                    words.append(_in_words(run, key, f"{run.name}"))
        if lines:
            alt = f"{title.capitalize()} by epoch: {'; '.join(words)}"
            found.append(lines_plot(lines, title, alt, share=key in ("val_top1", "data_wait")))
    return found


def _evaluations_side_by_side(
    evaluations: Sequence[Sequence[tuple[Run, Evaluation]]], groups: Sequence[Group]
) -> list[dict[str, Any]]:
    """A table for each set of videos and way of testing, a row for each run."""
    found = []
    for rows in evaluations:
        probed = any(evaluation.probe for _, evaluation in rows)
        inputs = [protocol(evaluation.input) for _, evaluation in rows]
        own_input = len(set(inputs)) > 1
        columns = ["run", *(["input"] if own_input else [])]
        texts = len(columns)
        columns += ["top-1", "95 % interval", "top-5", "mean class", "scored", "missing", "failed"]
        columns += ["reversed", "shuffled", "same reversed"] if probed else []
        cells = []
        for (run, evaluation), its_input in zip(rows, inputs, strict=True):
            figures, probe = evaluation.figures, evaluation.probe or {}
            cells.append([
                run.name + (" (before the run went on)" if evaluation.outdated else ""),
                *([its_input] if own_input else []),
                share(figures["top1"]), interval(evaluation.interval95), share(figures["top5"]),
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


def _groups_evaluated(groups: Sequence[Group], evaluated: Sequence[tuple[Run, Evaluation]]) -> Table | None:
    rows = []
    for group in groups:
        found = spread(evaluation.figures["top1"] for run, evaluation in evaluated if run in group.runs)
        if found:
            rows.append((group.name, *_spread_cells(found)))
    columns = ("recipe", "runs", "mean top-1", "standard deviation", "lowest", "highest")
    return Table(columns, rows, numeric=(1, 2, 3, 4, 5)) if rows else None


def _gains(evaluations: Sequence[Sequence[tuple[Run, Evaluation]]], groups: Sequence[Group]) -> list[dict[str, Any]]:
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
            f"{title}: {better} classes gain, {worse} lose; the largest gain is {_signed(rows[0]['difference'])}; all "
            "of them stand in the table below"
        )
        found.append(
            {
                "split": example.split,
                "testing": protocol(example.testing),
                "picture": as_drawing(gains_plot(rows, title), alt),
                "means": any(len(group.runs) > 1 for group in groups),
                "table": Table(
                    ("class", "videos", a, b, "difference"),
                    [(row["label"], count(row["num"]), share(row["top1_a"]), share(row["top1_b"]),
                      _signed(row["difference"])) for row in rows],
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


def _across(runs: Sequence[Run], rows: dict[str, list[Any]]) -> Table | None:
    """A row for each key, a column for each run."""
    if not rows:
        return None
    return Table(("key", *(run.name for run in runs)), [(key, *map(shown, values)) for key, values in rows.items()])


def _cost_table(runs: Sequence[Run]) -> Table:
    rows: list[tuple[str, list[str]]] = [
        ("parameters", [count(whole(run.cost.get("params"))) for run in runs]),
        ("multiply-adds of a clip", [giga(whole(run.cost.get("macs"))) for run in runs]),
        ("seconds of the median epoch, with validation", [plain(run.epoch_seconds) for run in runs]),
        ("videos a second, those for validation too", [plain(run.videos_per_second) for run in runs]),
        ("training, all epochs", [duration(run.train_seconds) for run in runs]),
    ]
    # Memory and the like, where a version of the training loop notes it.
    for key in dict.fromkeys(key for run in runs for row in run.epochs for key in row if key.endswith("_bytes")):
        title = f"{key.removesuffix('_bytes').replace('_', ' ')}, largest of the epochs"
        rows.append((title, [memory(max(run.each(key), default=None)) for run in runs]))
    for n in range(max((len(run.evaluations) for run in runs), default=0) if len(runs) == 1 else 0):
        evaluation = runs[0].evaluations[n]
        rows.append((f"evaluation on {evaluation.split}", [duration(evaluation.figures["seconds"])]))
    names = [run.name for run in runs] if len(runs) > 1 else [""]
    return Table(("", *names), [(title, *cells) for title, cells in rows], numeric=range(1, len(names) + 1))


# -------------------------------------------------------------------------------------------------------- for people


def share(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _signed(value: float | None) -> str:
    return "" if value is None else f"{value:+.4f}"


def interval(ends: tuple[float, float] | None) -> str:
    return "" if ends is None else f"{ends[0]:.4f} to {ends[1]:.4f}"


def count(value: float | None) -> str:
    return "" if value is None else f"{value:,}"


def plain(value: float | None) -> str:
    return "" if value is None else f"{value:,.1f}" if value < 1000 else f"{value:,.0f}"


def giga(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value / 1e9:,.1f} G" if value >= 1e9 else f"{value / 1e6:,.1f} M"


def memory(value: float | None) -> str:
    return "" if value is None else f"{value / 2**20:,.0f} MiB"


def duration(seconds: float | None) -> str:
    """Seconds as people say them.

    >>> duration(11103.0), duration(151.0), duration(8.25)
    ('3 h 05 min', '2 min 31 s', '8.2 s')
    """
    if seconds is None:
        return ""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def when(time: float | None) -> str:
    """A time in seconds since 1970, in UTC."""
    if time is None:
        return ""
    try:
        return f"{datetime.fromtimestamp(time, UTC):%Y-%m-%d %H:%M} UTC"
    except (ValueError, OverflowError, OSError):
        return ""


def bar(value: float | None) -> Markup | str:
    """A bar as wide as a share."""
    if value is None:
        return ""
    width = 100 * min(max(value, 0.0), 1.0)
    return Markup('<span class="bar" style="width:{}%"></span>').format(f"{width:.1f}")


def protocol(given: dict[str, Any]) -> str:
    """A protocol, or a part of one, in words; a setting that is not known here stands as key=value."""
    left = {key: value for key, value in given.items() if value is not None}
    parts = []

    def take(*keys: str) -> list[str] | None:
        return [shown(left.pop(key)) for key in keys] if all(key in left for key in keys) else None

    left.pop("split", None)
    if frames := take("num_frames"):
        sampling = take("sampling")
        parts.append(f"{frames[0]} frames" + (f" ({sampling[0]})" if sampling else ""))
    if views := take("views", "crops"):
        parts.append(f"{views[0]} {_plural(views[0], 'view')} x {views[1]} {_plural(views[1], 'crop')}")
    if crop := take("crop_px"):
        parts.append(f"crop {crop[0]} px")
    if resized := take("resize", "size_px"):
        parts.append(f"resized to {resized[0].replace('_', ' ')} {resized[1]} px")
    if average := take("average"):
        parts.append(f"mean of {average[0]}")
    return ", ".join([*parts, *(f"{key}={shown(value)}" for key, value in left.items())])


def _plural(num: str, word: str) -> str:
    return word if num == "1" else f"{word}s"


def _listed(numbers: Iterable[int]) -> str:
    return ", ".join(map(str, numbers))
