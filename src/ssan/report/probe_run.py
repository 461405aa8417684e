"""What the page of a run of ``ssan probe`` shows beside its evaluation: how accuracy grows with clips, and doubts."""

from typing import Any

from ssan.report.formatting import LEFT_OUT_IN_TURN, Table, count, duration, interval, share
from ssan.report.journal_runs import JournalRun, mapping, number, shown, whole, word
from ssan.report.plots import growth_plot

WAYS = {
    "split": "the data's own split",
    **{kind: f"{way}, the head of the file fitted on all clips" for kind, way in LEFT_OUT_IN_TURN.items()},
}


def facts(run: JournalRun) -> list[tuple[str, str]]:
    """What the table of facts has for a probe in the place of what concerns training."""
    start, frozen = run.start, mapping(run.start.get("frozen"))
    train, test = (whole(start.get(key)) for key in ("num_train", "num_val"))
    how, took = mapping(run.probed.get("protocol")), mapping(run.probed.get("seconds"))
    return [
        ("frozen network", word(frozen.get("name")) or ""),
        ("head", word(start.get("head")) or ""),
        ("clips", "" if train is None or test is None else f"{train:,} for the head, {test:,} asked"),
        ("measured by", WAYS.get(str(how.get("kind")), "")),
        *([("groups", groups)] if (groups := word(how.get("groups"))) else []),
        ("strength (C)", shown(number(how.get("strength")))),
        ("seed", shown(whole(start.get("probe_seed")))),
        ("features took", duration(number(took.get("features")))),
        ("heads took", duration(number(took.get("head")))),
    ]


def view(run: JournalRun) -> dict[str, Any] | None:
    """Learning curve and warnings; None of another kind of run."""
    if not run.is_probe:
        return None
    points = points_of(run)
    said = run.probed.get("warnings")
    return {
        "sentence": word(run.probed.get("more_clips")) or "",
        "picture": growth_plot(points, _in_words(points)) if len(points) > 1 else None,
        "table": Table(
            ("clips for the head", "top-1", "95 % interval"),
            [(count(num), share(top1), interval(ends)) for num, top1, ends in points],
            numeric=(0, 1, 2),
        ),
        "warnings": [text for text in said if isinstance(text, str)] if isinstance(said, list) else [],
    }


def points_of(run: JournalRun) -> list[tuple[int, float, tuple[float, float]]]:
    """Of each point of the learning curve the number of clips, the accuracy and its interval."""
    rows = run.probed.get("learning_curve")
    found = []
    for row in rows if isinstance(rows, list) else []:
        row = mapping(row)
        ends = row.get("interval95")
        low, high = [number(end) for end in ends] if isinstance(ends, list) and len(ends) == 2 else (None, None)
        num, top1 = whole(row.get("num_train")), number(row.get("top1"))
        if num is not None and num > 0 and top1 is not None and low is not None and high is not None:
            found.append((num, top1, (low, high)))
    return found


def _in_words(points: list[tuple[int, float, tuple[float, float]]]) -> str:
    each = "; ".join(f"{num} clips {top1:.3f} ({low:.3f} to {high:.3f})" for num, top1, (low, high) in points)
    return f"Top-1 by the number of clips for the head, with 95 % intervals: {each}"
