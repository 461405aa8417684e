"""Page of one run: how it stands, curves, evaluations with their confusions and classes, cost."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup

from ssan.report import probe_run
from ssan.report.film_strip import FilmStrips
from ssan.report.formatting import Table, bar, count, duration, giga, interval, memory, plain, protocol, share, when
from ssan.report.journal_runs import (
    Evaluation,
    JournalReversal,
    JournalRun,
    JournalThreshold,
    WrongAnswer,
    number,
    shown,
    whole,
    word,
)
from ssan.report.matrix import confusion_table
from ssan.report.plots import COLOURS, Line, lines_plot, matrix_plot
from ssan.training.metrics import TOOK_NO_PART, wilson_interval
from ssan.video.clip import FramePart

MOST_NAMED_CLASSES = 20  # of a confusion matrix with names and counts in it
MOST_DRAWN_CLASSES = 2000
MOST_CONFUSED = 20
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
    "processes": "processes", "precision": "precision", "scikit-learn": "scikit-learn",
}  # fmt: skip


def view(run: JournalRun, *, alone: bool, strips: FilmStrips | None = None) -> dict[str, Any]:
    """What the template shows of one run.

    :param alone: whether its page has no other; the curves of several stand in one picture instead.
    :param strips: of videos that were answered wrongly; None shows none.
    """
    data = run.start.get("data") if isinstance(run.start.get("data"), dict) else {}
    assert isinstance(data, dict)
    times = [number(moment.get("time")) for moment in run.moments]
    return {
        "name": run.name,
        "folder": run.folder,
        "status": run.status,
        "status_text": status_text(run),
        "facts": [
            ("model", run.model or ""),
            ("data", _data(data)),
            ("classes", f"{len(run.classes)}" if run.classes else ""),
            *(probe_run.facts(run) if run.is_probe else _of_training(run)),
            ("started", when(times[0]) if times else ""),
            ("last entry", when(run.last_time)),
            *([] if run.is_probe else [("training took", duration(run.train_seconds))]),
        ],
        "head": probe_run.view(run),
        "best": {
            "top1": share(run.val_top1),
            "interval": interval(run.val_interval95),
            "epoch": run.best["epoch"],
            "num": count(whole(run.start.get("num_val"))),
            "protocol": _validation(run),
        }
        if run.best
        else None,
        "order": order_text(run),
        "idle": _idle(run.reversal),
        "curves": _curves_of_one(run) if alone else [],
        "evaluations": [_evaluation_view(evaluation, run, strips) for evaluation in run.evaluations],
        "cost": cost_table([run]),
        "recipe": recipe_table(run),
        "environment": environment_table(run),
        "dropped": _dropped(run),
        "history": history_table(run),
    }


def _of_training(run: JournalRun) -> list[tuple[str, str]]:
    planned = whole(run.recipe.get("epochs"))
    return [
        ("videos", _videos(run)),
        ("seed", shown(run.seed)),
        ("epochs", f"{len(run.epochs)}" + (f" of {planned}" if planned else "")),
    ]


def recipe_table(run: JournalRun) -> Table:
    return Table(("key", "value"), [(key, shown(value)) for key, value in run.recipe.items()])


def environment_table(run: JournalRun) -> Table:
    known = [(title, shown(run.environment[key])) for key, title in ENVIRONMENT.items() if key in run.environment]
    return Table(("", "at the start"), known)


def history_table(run: JournalRun) -> Table:
    return Table(("when", "what"), [(when(number(row.get("time"))), _moment(row)) for row in run.moments])


def status_text(run: JournalRun) -> str:
    last = run.moments[-1]
    if run.status == "finished":
        return "finished" + (f" early{_stopped_text(run)}" if run.stopped_early else "")
    if run.status == "interrupted":
        return "interrupted; its state is saved, and --resume goes on with it"
    if run.status == "failed":
        return f"failed: {word(last.get('message')) or ''}"
    return f"not ended: running when this page was made, or killed after {when(run.last_time)}"


def _stopped_text(run: JournalRun) -> str:
    """Why training ended before its time."""
    patience, best = whole(run.recipe.get("early_stop")), run.best
    if patience is None or best is None:
        return ": no epoch was better any more"
    those = "which was" if patience == 1 else f"{patience} in a row were"
    return f" after epoch {run.epochs[-1]['epoch']}, {those} no better than epoch {best['epoch']}"


def _idle(found: JournalReversal | None) -> bool:
    """Whether the layer between frames took no part; of answers that are all one class nothing can be told."""
    return found is not None and found.same_prediction >= TOOK_NO_PART and found.num_answers != 1


def order_text(run: JournalRun) -> str:
    """How much the order of frames changed the answers at the end of training; "" where nothing is known."""
    found = run.reversal
    if found is None:
        return ""
    changed = found.num - round(found.same_prediction * found.num)
    listed = whole(run.start.get("num_val"))
    drawn = f", drawn of {listed:,}," if listed is not None and found.num < listed else ""
    said = (
        f"With their frames reversed, {changed:,} of {found.num:,} validation videos{drawn} got another answer from "
        f"the best model ({share(changed / found.num)}, 95 % interval {interval(wilson_interval(changed, found.num))})"
    )
    return said + ("." if found.top1 is None else f"; top-1 is {share(found.top1)} then.")


def _threshold_text(found: JournalThreshold | None) -> str:
    """A sentence on the threshold that was chosen; "" where there is none."""
    if found is None:
        return ""
    said = f"An answer is given from a score of {share(found.threshold)} on."
    if found.num and found.num_answered is not None and 0 <= found.num_answered <= found.num:
        which = "of none of the classes" if found.of_none else "whose answer is wrong"
        wanted = "" if found.wanted is None else f"; at most {found.wanted:g} was asked for"
        said += (
            f" Of {found.num:,} videos {which} {found.num_answered:,} get one all the same "
            f"({share(found.num_answered / found.num)}, 95 % interval "
            f"{interval(wilson_interval(found.num_answered, found.num))}{wanted})."
        )
    if found.right_answered is not None:
        said += f" Of the right answers {share(found.right_answered)} are given."
    return said


def _data(data: dict[str, Any]) -> str:
    parts = [word(data.get("root")) or "", f"({data['format']})" if word(data.get("format")) else ""]
    options = data.get("options")
    given = [f"{key}={shown(value)}" for key, value in options.items()] if isinstance(options, dict) else []
    return " ".join(part for part in (*parts, *given) if part)


def _videos(run: JournalRun) -> str:
    train, val = (whole(run.start.get(key)) for key in ("num_train", "num_val"))
    return "" if train is None or val is None else f"{train:,} for training, {val:,} for validation"


def _validation(run: JournalRun) -> str:
    """How the validation of a training run looks at a video: one view, the centre crop, mean of the frames' logits."""
    own = {key: run.recipe.get(key) for key in ("num_frames", "sampling", "resize", "size_px", "crop_px")}
    return protocol({**own, "views": 1, "crops": 1, "average": "logits"})


def _dropped(run: JournalRun) -> Table:
    rows = [
        ("training", "left out, listed in skipped.csv", shown(_num_skipped(run))),
        ("training", "known to be damaged, used as far as they decode", shown(whole(run.start.get("num_damaged")))),
    ]
    for evaluation in run.evaluations:
        which = f"evaluation on {evaluation.split}"
        rows.append((which, "missing", count(evaluation.figures["num_missing"])))
        rows.append((which, "could not be read", count(evaluation.figures["num_failed"])))
    return Table(("where", "videos", "number"), rows, numeric=(2,))


def _num_skipped(run: JournalRun) -> int | None:
    """Of a probe those whose features could not be had, which it learns after its start."""
    return whole((run.probed if run.is_probe else run.start).get("num_skipped"))


def _moment(event: dict[str, Any]) -> str:
    kind, step, epoch = event["event"], whole(event.get("step")), whole(event.get("epoch"))
    if kind == "start":
        return "started"
    if kind == "resumed":
        where = f" in epoch {epoch}" if epoch is not None else ""
        reasons = event.get("inexact")
        said = [word(reason) or "" for reason in reasons] if isinstance(reasons, list) else []
        told = f"gone on with{where}" + (f", from step {step}" if step is not None else "")
        planned = whole(event.get("epochs"))
        told += f", to epoch {planned}" if planned is not None else ""
        return told + (f"; not as one never stopped: {'; '.join(said)}" if said else "")
    if kind == "interrupted":
        return "interrupted, its state saved"
    if kind == "failed":
        return f"failed: {word(event.get('message')) or ''}"
    steps = whole(event.get("steps"))
    early = ", early: no epoch was better any more" if event.get("stopped_early") is True else ""
    return "finished" + (f" after {steps:,} steps" if steps is not None else "") + early


def _curves_of_one(run: JournalRun) -> list[Markup]:
    losses = {key: CURVES[key].partition(" ")[0] for key in ("train_loss", "val_loss")}
    found = [curve_of(run, losses, "loss")]
    for key, title in CURVES.items():
        if key not in losses:
            found.append(curve_of(run, {key: ""}, title, share=key in ("val_top1", "data_wait")))
    return [picture for picture in found if picture is not None]


def curve_of(run: JournalRun, keys: Mapping[str, str], title: str, *, share: bool = False) -> Markup | None:
    """One or two keys of the epochs in one picture, each by its name; None where no epoch has any."""
    known = {key: name for key, name in keys.items() if run.each(key)}
    if not known:
        return None
    lines = [Line(*run.curve(key), COLOURS[1 - n], label=name or None)
             for n, (key, name) in enumerate(keys.items()) if key in known] if len(keys) > 1 else [
             Line(*run.curve(key), COLOURS[1]) for key in known]  # fmt: skip
    alt = f"{title[:1].upper()}{title[1:]} by epoch: " + "; ".join(in_words(run, *pair) for pair in known.items())
    return lines_plot(lines, title, alt, share=share)


def in_words(run: JournalRun, key: str, name: str = "") -> str:
    rows = [(row["epoch"], value) for row in run.epochs if (value := number(row.get(key))) is not None]
    (first, start), (last, end) = rows[0], rows[-1]
    ends = f"{start:.4g} in epoch {first}" + (f", {end:.4g} in epoch {last}" if last != first else "")
    return f"{name} {ends}".strip()


def _evaluation_view(evaluation: Evaluation, run: JournalRun, strips: FilmStrips | None) -> dict[str, Any]:
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
        "threshold": _threshold_text(evaluation.threshold),
        "threshold_at": share(evaluation.threshold.threshold) if evaluation.threshold else "",
        "threshold_kept": evaluation.threshold is not None and evaluation.threshold.kept,
        "confusion": _confusion_picture(evaluation),
        "confused": _confused(evaluation),
        "per_class": _per_class(evaluation),
        "num_wrong": evaluation.num_wrong,
        **_wrong(evaluation, strips),
        "num_classes": len(evaluation.classes),
        "outdated": evaluation.outdated,
    }


def _wrong(evaluation: Evaluation, strips: FilmStrips | None) -> dict[str, Any]:
    """The wrong answers that the journal names: those with a film strip as tiles, and all of them as a table."""
    tiles = []
    for answer in evaluation.wrong if strips is not None else ():
        strip = strips.of(answer.path, answer.part) if strips is not None else ""
        if strip:
            tiles.append({
                "strip": strip, "path": answer.path, "label": answer.label, "probability": share(answer.probability),
                "other": answer.predicted, "score": share(answer.score), "part": _span(answer),
            })  # fmt: skip
    table = Table(
        ("video", "true class", "its probability", "answer", "its score"),
        [
            (f"{answer.path} {_span(answer)}".strip(), answer.label, share(answer.probability), answer.predicted,
             share(answer.score))
            for answer in evaluation.wrong
        ],
        numeric=(2, 4),
    )  # fmt: skip
    return {"wrong": table, "wrong_tiles": tiles}


def _span(answer: WrongAnswer) -> str:
    """The part of the video in words; nothing where it is all of it."""
    if answer.part is None:
        return ""
    if isinstance(answer.part, FramePart):
        return f"frames {answer.part.first} to {'the end' if answer.part.stop is None else answer.part.stop}"
    start, end = answer.part
    return f"{start or 0:.1f} s to {'the end' if end is None else f'{end:.1f} s'}"


def _probe_row(evaluation: Evaluation) -> Table | None:
    if evaluation.probe is None:
        return None
    values = [share(evaluation.figures["top1"]), *(share(evaluation.probe[key]) for key in evaluation.probe)]
    return Table(("as sampled", "reversed", "shuffled", "same answer reversed"), [values], range(4))


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
        return confusion_table(table, evaluation.classes)
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
        [(name, f"{index}", count(num), share(top1), bar(top1)) for name, index, num, top1 in rows],
        numeric=(1, 2, 3),
    )


def cost_table(runs: Sequence[JournalRun]) -> Table:
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
