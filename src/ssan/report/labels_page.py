"""The page of labelled videos: of each a film strip, and below it which label it has when."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from ssan._version import __version__
from ssan.files import writing
from ssan.report.film_strip import FilmStrips
from ssan.report.formatting import Table, duration, when
from ssan.report.html import render_page

MOST_VIDEOS = 300
"""That stand on the page; the others are counted."""

MOST_STRETCHES = 200
"""Of one video; so many differ in colour to nobody's eye."""

MOST_ROWS = 12
"""Of the table of one video."""

NONE = "none of these"


@dataclass
class Stretch:
    """Windows of a video that follow each other and have one label; None where they could not be labelled.

    :param end: of the last of them, and ``until`` the same, or where the next window begins if that is earlier.
    """

    label: str | None
    start: float
    end: float
    until: float
    num: int = 1
    score: float = 0.0


@dataclass
class _Video:
    path: str
    num_windows: int = 0
    num_failed: int = 0
    end: float = 0.0
    stretches: list[Stretch] = field(default_factory=list)
    num_left_out: int = 0
    top: list[tuple[str, float]] = field(default_factory=list)
    error: str = ""


@dataclass
class LabelledVideos:
    """What is said of videos, gathered from the lines of ``ssan predict --json``; no more is kept than is shown."""

    videos: list[_Video] = field(default_factory=list)
    labels: Counter[str] = field(default_factory=Counter)
    num_videos: int = 0
    num_windows: int = 0
    num_failed: int = 0

    def add(self, line: Mapping[str, Any], *, begins: bool) -> None:
        """Take an answer; ``begins`` says whether it is the first one of its video."""
        self.num_windows += 1
        self.num_failed += not line["ok"]
        label, score = None, 0.0
        if line["ok"]:
            best = line["top"][0]
            label, score = NONE if line.get("none") else best["label"], best["score"]
            self.labels[label] += 1
        if begins:
            self.num_videos += 1
            if self.num_videos <= MOST_VIDEOS:
                self.videos.append(_Video(line["path"]))
        if self.num_videos > MOST_VIDEOS:
            return
        video = self.videos[-1]
        video.num_windows += 1
        if not line["ok"]:
            video.num_failed += 1
            video.error = video.error or line["error"]["message"]
        elif video.num_windows == 1:
            video.top = [(best["label"], best["score"]) for best in line["top"]]
        start, end = line.get("start_seconds", 0.0), line.get("end_seconds", line.get("duration_seconds"))
        if end is None:
            return  # of a video that could not be opened nothing is known
        video.end = max(video.end, end)
        if video.stretches:
            before = video.stretches[-1]
            before.until = min(before.end, start)
            if before.label == label and start <= before.end:
                before.end = before.until = end
                before.num, before.score = before.num + 1, before.score + score
                return
        if len(video.stretches) == MOST_STRETCHES:
            video.num_left_out += 1
        else:
            video.stretches.append(Stretch(label, start, end, end, 1, score))


def write_labels_page(out: str, found: LabelledVideos, *, network: str, windows: str, strips: FilmStrips) -> None:
    """Write the page.

    :param windows: how windows slide, in words; "" where whole videos were labelled.
    """
    # The colours of the most frequent labels are the furthest apart; what is none of the labels has none.
    named = [label for label, _ in found.labels.most_common() if label != NONE]
    hues = {label: (200 + number * 137) % 360 for number, label in enumerate(named)}
    page = render_page(
        "labels.html.j2",
        title=f"Videos labelled by {network}",
        network=network,
        windows=windows,
        num_videos=found.num_videos,
        num_windows=found.num_windows,
        num_failed=found.num_failed,
        num_labels=len(found.labels),
        labels=Table(
            ("label", "windows" if windows else "videos"),
            [(label, f"{num:,}") for label, num in found.labels.most_common(50)],
            numeric=(1,),
        ),
        videos=[_shown(video, strips, hues, in_windows=bool(windows)) for video in found.videos],
        num_gone=len(strips.gone),
        made=when(datetime.now(UTC).timestamp()),
        version=__version__,
    )
    with writing(out) as handle:
        handle.write(page)


def _shown(video: _Video, strips: FilmStrips, hues: Mapping[str, int], *, in_windows: bool) -> dict[str, Any]:
    """A video as the template takes it."""
    if in_windows:
        listed = [stretch for stretch in video.stretches if stretch.label is not None]
        table = Table(
            ("from", "to", "label", "score"),
            [
                (clock(stretch.start), clock(stretch.end), str(stretch.label), f"{stretch.score / stretch.num:.3f}")
                for stretch in listed[:MOST_ROWS]
            ],
            numeric=(3,),
        )
        num_more = max(0, len(listed) - MOST_ROWS) + video.num_left_out
    else:
        table = Table(
            ("label", "score"), [(name, f"{score:.3f}") for name, score in video.top[:MOST_ROWS]], numeric=(1,)
        )
        num_more = 0
    return {
        "path": video.path,
        "strip": strips.of(video.path),
        "lasts": duration(video.end) if video.end else "",
        "num_windows": video.num_windows,
        "num_failed": video.num_failed,
        "error": video.error,
        "track": _track(video, hues) if in_windows else [],
        "table": table,
        "num_more": num_more,
    }


def _track(video: _Video, hues: Mapping[str, int]) -> list[dict[str, Any]]:
    """The video's time from left to right: its stretches and the gaps between them, each with its share in percent."""
    parts: list[dict[str, Any]] = []
    at = 0.0
    for stretch in video.stretches:
        for label, start, until in ((None, at, stretch.start), (stretch.label, stretch.start, stretch.until)):
            if until > start:
                parts.append({
                    "label": label or "", "hue": hues.get(label or ""),
                    "percent": f"{100 * (until - start) / video.end:.3f}", "at": f"{clock(start)} to {clock(until)}",
                })  # fmt: skip
        at = stretch.until
    return parts


def clock(seconds: float) -> str:
    """A moment of a video.

    >>> clock(8.25), clock(71), clock(3725.5)
    ('0:08.3', '1:11.0', '1:02:05.5')
    """
    tenths = int(seconds * 10 + 0.5)
    minutes, rest = divmod(tenths, 600)
    hours, minutes = divmod(minutes, 60)
    long = f"{hours}:{minutes:02d}" if hours else f"{minutes}"
    return f"{long}:{rest // 10:02d}.{rest % 10}"
