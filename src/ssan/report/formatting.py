"""Formatting of the tables of a page: figures, times and protocols as people read them; "" for what is not known."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from markupsafe import Markup

from ssan.report.journal_runs import shown

LEFT_OUT_IN_TURN = {"leave_one_group_out": "each group left out in turn", "folds": "each fold left out in turn"}
"""How a head on frozen features is asked clips that it was not fitted on, where the data have no split."""


@dataclass(frozen=True)
class Table:
    """Rows for people.

    :param numeric: columns that stand to the right.
    :param rows: a cell is text, markup, or "" for what is not known.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    numeric: Sequence[int] = ()


def share(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def signed(value: float | None) -> str:
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
    if left.get("sampling") != "dense":
        left.pop("stride", None)  # says nothing there
    if kind := LEFT_OUT_IN_TURN.get(str(left.get("kind"))):
        parts.append(kind)
        left.pop("kind")
    elif left.get("kind") == "split":
        left.pop("kind")
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


def listed(numbers: Iterable[int]) -> str:
    return ", ".join(map(str, numbers))
