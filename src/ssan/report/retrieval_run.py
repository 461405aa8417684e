"""Page of a joint space of texts and videos: its recalls both ways, curves, protocol and recipe."""

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from ssan.report.formatting import Table, count, duration, interval, share, when
from ssan.report.journal_runs import JournalRun, as_key, mapping, number, shown, whole, word
from ssan.report.one_run import curve_of, environment_table, history_table, recipe_table, status_text
from ssan.report.plots import COLOURS, Line, lines_plot

WAYS = {"text_to_video": "videos for a text", "video_to_text": "texts for a video"}
RECALLS = {"r1": "R@1", "r5": "R@5", "r10": "R@10"}
RANKS = {"median_rank": "median rank", "mean_rank": "mean rank"}
WATCHED = {**RECALLS, "mean_recall": "mean of R@1, R@5 and R@10"}
COUNTS = {
    "num_queries": "captions",
    "num_candidates": "candidates",
    "num_missing": "captions left out",
    "num_ties": "ties",
    "num_repeated_captions": "captions that another clip has too",
}


def view(run: JournalRun) -> dict[str, Any]:
    """What the template shows of one joint space."""
    data, words = mapping(run.start.get("data")), mapping(run.start.get("words"))
    planned, times = whole(run.recipe.get("epochs")), [number(moment.get("time")) for moment in run.moments]
    end: dict[str, Any] = next((moment for moment in reversed(run.moments) if moment["event"] == "end"), {})
    streams = run.start.get("streams")
    named = [mapping(stream) for stream in streams] if isinstance(streams, list) else []
    return {
        "name": run.name,
        "folder": run.folder,
        "status": run.status,
        "status_text": status_text(run),
        "facts": [
            ("text tower", shown(run.recipe.get("text"))),
            ("features", " + ".join(f"{shown(s.get('name'))} ({shown(s.get('dim'))})" for s in named)),
            ("captions", shown(data.get("root"))),
            ("pairs", f"{count(whole(run.start.get('num_train')))} an epoch"),
            ("best epoch", _chosen(data, end)),
            ("words", shown(whole(words.get("num_words")))),
            ("seed", shown(run.seed)),
            ("epochs", f"{len(run.epochs)}" + (f" of {planned}" if planned else "")),
            ("started", when(times[0]) if times else ""),
            ("last entry", when(run.last_time)),
            ("training took", duration(run.train_seconds)),
        ],
        "curves": _curves(run, watched="validation" if _val_split(data) else "training captions"),
        "evaluations": [_evaluation(event) for event in _latest(run.measured)],
        "cost": Table(("", ""), [("parameters", count(whole(run.cost.get("params")))), *_left_out(run)], numeric=(1,)),
        "recipe": recipe_table(run),
        "environment": environment_table(run),
        "history": history_table(run),
    }


def headline(run: JournalRun) -> dict[str, Any]:
    """The fields of ``ssan report --json`` of a joint space."""
    return {
        "run": run.folder,
        "name": run.name,
        "task": "retrieval",
        "model": word(run.recipe.get("text")),
        "seed": run.seed,
        "status": run.status,
        "epochs": len(run.epochs),
        "epochs_planned": whole(run.recipe.get("epochs")),
        "train_seconds": run.train_seconds,
        "params": whole(run.cost.get("params")),
        "evaluations": [
            {
                "split": word(event.get("split")),
                **{way: {key: number(mapping(event.get(way)).get(key)) for key in (*RECALLS, *RANKS)} for way in WAYS},
                **{key: whole(event.get(key)) for key in COUNTS},
                "protocol": mapping(event.get("protocol")),
            }
            for event in _latest(run.measured)
        ],
    }


def _val_split(data: Mapping[str, Any]) -> str | None:
    return word(data.get("val_split"))


def _chosen(data: Mapping[str, Any], end: Mapping[str, Any]) -> str:
    best, split = whole(end.get("best_epoch")), _val_split(data)
    how = f"chosen by the recalls on {split}" if split else "the last one: no captions were kept apart to choose by"
    return how if best is None else f"{best}, {how}"


def _latest(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of evaluations of the same captions, features and protocol the last, the latest first."""
    found = {as_key([event.get(key) for key in ("protocol", "features", "data")]): event for event in events}
    return sorted(found.values(), key=lambda event: number(event.get("time")) or 0.0, reverse=True)


def _left_out(run: JournalRun) -> list[tuple[str, str]]:
    titles = {"num_skipped": "captions left out of training", "num_unused": "videos with features and no caption"}
    return [(title, count(whole(run.start.get(key)))) for key, title in titles.items()]


def _evaluation(event: Mapping[str, Any]) -> dict[str, Any]:
    used, best = mapping(event.get("protocol")), mapping(event.get("text_to_video"))
    rows = []
    for way, title in WAYS.items():
        figures = mapping(event.get(way))
        ends = mapping(figures.get("interval95"))
        recalls = [_with_ends(number(figures.get(key)), ends.get(key)) for key in RECALLS]
        ranks = [_rank(number(figures.get(key))) for key in RANKS]
        rows.append((title, *recalls, *ranks))
    twins = [
        (kind, share(number(mapping(found).get("accuracy"))), count(whole(mapping(found).get("num"))))
        for kind, found in mapping(event.get("twins")).items()
    ]
    said = [*((key.replace("_", " "), shown(value)) for key, value in used.items() if key != "split")]
    return {
        "split": word(event.get("split")) or word(used.get("split")) or "",
        "r1": share(number(best.get("r1"))),
        "interval": interval(_ends(mapping(best.get("interval95")).get("r1"))),
        "table": Table(("", *RECALLS.values(), *RANKS.values()), rows, numeric=range(1, 6)),
        "twins": Table(("twins that differ by", "told apart", "captions"), twins, numeric=(1, 2)) if twins else None,
        "facts": [
            *((title, count(whole(event.get(key)))) for key, title in COUNTS.items() if key in event),
            *said,
            ("made", when(number(event.get("time")))),
        ],
    }


def _ends(value: Any) -> tuple[float, float] | None:
    ends = [number(end) for end in value] if isinstance(value, list) and len(value) == 2 else [None, None]
    return None if ends[0] is None or ends[1] is None else (ends[0], ends[1])


def _with_ends(value: float | None, ends: Any) -> str:
    found = _ends(ends)
    return share(value) + (f" [{found[0]:.3f}, {found[1]:.3f}]" if value is not None and found else "")


def _rank(value: float | None) -> str:
    return "" if value is None else f"{value:,.1f}"


def _curves(run: JournalRun, *, watched: str) -> list[Markup]:
    """Loss and recalls by epoch.

    :param watched: of which captions that is which is called ``val_``, by a version that called everything so.
    """
    of_what = {"val": watched, "test": "test captions", "train": "training captions"}
    losses = {"train_loss": "training", **{f"{split}_loss": of_what[split] for split in ("val", "test")}}
    losses["train_loss_after"] = "training captions, after the epoch"
    known = [key for key in losses if run.each(key)]
    found = [curve_of(run, {key: losses[key] for key in known[:2]}, "loss")]
    for split, title in of_what.items():
        keys = {f"{split}_{key}": name for key, name in WATCHED.items() if run.each(f"{split}_{key}")}
        if keys:
            lines = [
                Line(*run.curve(key), COLOURS[n % len(COLOURS)], label=name)
                for n, (key, name) in enumerate(keys.items())
            ]
            ends = "; ".join(f"{name} {run.each(key)[-1]:.4g}" for key, name in keys.items())
            found.append(lines_plot(lines, f"recall, {title}", f"Recall by epoch, {title}: {ends}", share=True))
    found += [curve_of(run, {key: ""}, title) for key, title in (("lr", "learning rate"), ("seconds", "seconds"))]
    return [picture for picture in found if picture is not None]
