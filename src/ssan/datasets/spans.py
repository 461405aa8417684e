"""Labelled spans of videos, as annotation tools save them, made into a list of samples."""

import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ssan.datasets.captions import shown
from ssan.datasets.samples import Sample, Samples
from ssan.datasets.splits import SplitRule
from ssan.datasets.tables import MOST_SECONDS, fault, refuse_lookalikes
from ssan.datasets.tree import identity, names_in
from ssan.errors import UsageError, named, quoted, shortened
from ssan.files import is_text

Bound = float | int | None


@dataclass(frozen=True, slots=True)
class Span:
    """A part of a video, [start, stop), and what it shows.

    :param path: of the video, or where it would be.
    :param key: what the tool calls the span; nothing for a label of the whole video.
    :param label: one line without blanks around it; nothing where there is none.
    :param start: in seconds from the beginning of the file's first frame, or a frame, counted from 0; None with
        ``stop`` for the whole video.
    :param in_frames: whether the bounds count frames.
    """

    path: str
    exists: bool
    key: str
    label: str
    start: Bound = None
    stop: Bound = None
    in_frames: bool = False

    @property
    def is_empty(self) -> bool:
        return self.start is not None and self.start == self.stop


def label_of(text: str) -> str:
    """A label as one line: blanks and line ends within it are one blank."""
    return " ".join(text.split())


def check_order(start: float, stop: float, source: str, line: int | None = None, *, prefix: str = "") -> None:
    """Refuse a span whose end is before its start.

    :param prefix: for a file without lines, what of it says so.
    """
    if stop < start:
        raise fault(
            f"{prefix}the span ends at {stop:g} s and starts at {start:g} s; expected an end after the start",
            source,
            line,
        )


def seconds_of(start: object, stop: object, source: str, prefix: str) -> tuple[float, float]:
    """The bounds of a span as a JSON file has them, in seconds from the beginning of the file."""
    bounds: list[float] = []
    for bound in (start, stop):
        if not isinstance(bound, int | float) or isinstance(bound, bool) or not 0 <= bound < MOST_SECONDS:
            raise fault(
                f"{prefix}a bound of the span is {shown(bound)}; expected seconds from the beginning of the video, "
                "such as 12.5",
                source,
            )
        bounds.append(float(bound))
    begin, end = bounds
    check_order(begin, end, source, prefix=prefix)
    return begin, end


def annotation_files(
    root: str, annotations: str | None, videos: str | None, suffix: str, what: str
) -> tuple[list[str], str]:
    """The files of a tool, and the folder of the videos.

    ``annotations``, or else the root, is one of the files, or the folder in which they lie. Videos are in ``videos``,
    or else in the root, or beside the file that it is.

    :param what: the files, for the message.
    :raises UsageError: there is none.
    """
    source = annotations or root
    folder = videos or (root if annotations is not None or os.path.isdir(root) else os.path.dirname(root) or ".")
    files = [source]
    if os.path.isdir(source):
        files = [os.path.join(source, name) for name in names_in(source) if name.lower().endswith(suffix)]
    if not files:
        raise UsageError(
            f"no {what} (*{suffix}) here; expected one, or more; --annotations names another folder, or a file",
            code="missing",
            path=source,
        )
    return files, folder


def samples_of(
    spans: Iterable[Span], split: str, folder: str, source: str, rule: SplitRule, notes: Sequence[str] = ()
) -> Samples:
    """The list of all labelled spans, video by video and in the order of time; classes are sorted.

    Spans without a label, and those of no length, are left out; those that overlap stay. All of that is said, and for
    how long between two spans there is none.

    :param folder: of the videos, from which their ids and the rule for splits count.
    :param notes: what the reader has to say already.
    :raises UsageError: a split other than ``all`` is asked for and there is no rule.
    :raises AnnotationError: no span is left, or two labels differ only by case or the like.
    """
    spans = list(spans)
    if split != "all" and not rule.given:
        raise UsageError(
            "annotations do not say which videos are for training and which for validation. Give --splits CSV (columns "
            "path,split), --val-groups 'REGEX=a,b,c', --val-fraction 0.2 or --fold 1/5; --split all takes every span",
            path=source,
        )
    unlabelled = [span for span in spans if not span.label]
    empty = [span for span in spans if span.label and span.is_empty]
    kept = [span for span in spans if span.label and not span.is_empty]
    said = [*notes]
    if unlabelled:
        said.append(_left_out(unlabelled, "without a label", folder))
    if empty:
        said.append(_left_out(empty, "of no length", folder))
    if not kept:
        why = shortened("; ".join(said), 800)
        raise fault(
            f"no labelled span is left of {len(spans)}{': ' if why else ''}{why}; expected one at least",
            source,
            code="empty",
        )
    by_video: dict[str, list[Span]] = {}
    for span in kept:
        by_video.setdefault(span.path, []).append(span)
    for of_video in by_video.values():
        of_video.sort(key=lambda span: (span.start or 0, math.inf if span.stop is None else span.stop))
    said += _of_time(list(by_video.values()), folder)
    classes = sorted({span.label for span in kept})
    unwritable = next((label for label in classes if not is_text(label)), None)
    if unwritable is not None:
        raise fault(f"the label {quoted(unwritable)} is not UTF-8; name it otherwise", source)
    refuse_lookalikes(classes, source)
    homes: dict[str, str] = {}
    if rule.given:
        homes, drawn = rule.homes(folder, [(of_video[0].label, path) for path, of_video in by_video.items()])
        said += drawn
    index = {label: number for number, label in enumerate(classes)}
    seen: dict[str, int] = {}
    samples = []
    for path, of_video in by_video.items():
        name = identity(path, folder)  # which asks the system
        samples += [_sample(span, _id(name, span.key, seen), index[span.label], homes.get(path)) for span in of_video]
    return Samples((sample for sample in samples if split in ("all", sample.split)), classes, source, said)


def _id(video: str, key: str, seen: dict[str, int]) -> str:
    name = video + (f"#{key.encode('utf-8', 'backslashreplace').decode()}" if key else "")
    while name in seen:  # several ranges or labels of one region
        seen[name] += 1
        name = f"{name}.{seen[name]}"
    seen[name] = 1
    return name


def _sample(span: Span, name: str, index: int, split: str | None) -> Sample:
    start, stop = span.start, span.stop
    if not span.in_frames:
        return Sample(name, span.path, span.label, index, start, stop, exists=span.exists, split=split)
    assert not isinstance(start, float)
    assert not isinstance(stop, float)
    return Sample(
        name, span.path, span.label, index, exists=span.exists, split=split, start_frame=start, end_frame=stop
    )


def _left_out(some: Sequence[Span], why: str, folder: str) -> str:
    first, num = some[0], len(some)
    at = "" if first.start is None else f" at {f'frame {first.start:g}' if first.in_frames else f'{first.start:g} s'}"
    return f"{num} span{'s' * (num != 1)} {why} left out, such as that{at} of {named(identity(first.path, folder))}"


def _of_time(videos: Sequence[Sequence[Span]], folder: str) -> list[str]:
    """What overlaps, and what lies between spans and is in none."""
    overlapping: list[Span] = []
    gaps: dict[bool, list[float]] = {False: [], True: []}
    for spans in videos:
        reached: dict[bool, float] = {}  # seconds, and frames, that nobody can compare
        for span in spans:
            if span.start is None or span.stop is None:
                continue
            before = reached.get(span.in_frames, span.start)
            if span.start < before:
                overlapping.append(span)
            elif span.start > before:
                gaps[span.in_frames].append(span.start - before)
            reached[span.in_frames] = max(before, span.stop)
    said = []
    if overlapping:
        first = overlapping[0]
        said.append(
            f"{len(overlapping)} of the spans overlap an earlier one of the same video, such as "
            f"{quoted(identity(first.path, folder) + '#' + first.key)}: what they share is in several samples"
        )
    for in_frames, lengths in gaps.items():
        if lengths:
            total = f"{sum(lengths):g} frames" if in_frames else f"{sum(lengths):.3f} s"
            said.append(
                f"between the spans of a video, {len(lengths)} stretches ({total} in all) have no label and are in no "
                "sample, nor is what comes before the first span and after the last"
            )
    return said
