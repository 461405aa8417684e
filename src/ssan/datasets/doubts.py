"""Doubts about a list of videos that can be read all the same: said before anything is trained on it."""

import math
import os
from collections import Counter
from collections.abc import Sequence

from ssan.datasets.samples import Sample, Samples
from ssan.errors import printable, quoted

NUM_NAMED = 3


def doubts(samples: Samples) -> list[str]:
    """What there is to be said of a list, in a line each; it may hold one split or several.

    What its reader has to say (``Samples.notes``), classes that no video has, or none for training; a single class; and
    what is for training and for validation too. Captioned videos have no classes to speak of.
    """
    train, val = ([sample for sample in samples if sample.split == name] for name in ("train", "val"))
    said = list(samples.notes)
    if samples.classes:
        said += _of_classes(samples, train, val)
    return said + _in_both(train, val)


def doubts_of_training(train: Samples, val: Samples) -> list[str]:
    """The same, of the two lists that a run trains and validates on."""
    notes = list(dict.fromkeys([*train.notes, *val.notes]))
    return notes + _of_classes(train, train, val) + _in_both(train, val)


def _of_classes(samples: Samples, train: Sequence[Sample], val: Sequence[Sample]) -> list[str]:
    said, classes = [], samples.classes
    if len(classes) == 1:
        said.append(f"there is a single class, {quoted(classes[0])}: every answer will be right, and say nothing")
    counts = Counter(sample.label_index for sample in (*samples, *val))
    empty = [label for index, label in enumerate(classes) if not counts[index]]
    if empty:
        said.append(f"{_classes(empty, classes)} no video here, and can be learned from none: {_named(empty)}")
    taught = Counter(sample.label_index for sample in train)
    untaught = [index for index in range(len(classes)) if counts[index] and not taught[index]]
    if untaught and train:
        asked = Counter(sample.label_index for sample in val)
        num = sum(asked[index] for index in untaught)
        labels = [classes[index] for index in untaught]
        said.append(
            f"{_classes(labels, classes)} no video for training: {_named(labels)}"
            + (f"; the {num} for validation cannot be answered right" if num else "")
        )
    return said


def _classes(some: Sequence[str], classes: Sequence[str]) -> str:
    return f"{len(some)} of {len(classes)} classes {'has' if len(some) == 1 else 'have'}"


def _named(labels: Sequence[str]) -> str:
    return ", ".join(map(quoted, labels[:NUM_NAMED])) + (", ..." if len(labels) > NUM_NAMED else "")


def _in_both(train: Sequence[Sample], val: Sequence[Sample]) -> list[str]:
    """Videos, or parts that overlap, that are for training and for validation."""
    taught: dict[str, list[Sample]] = {}
    for sample in train:
        taught.setdefault(os.path.abspath(sample.path), []).append(sample)
    shared = []
    for sample in val:
        others = taught.get(os.path.abspath(sample.path), ())
        other = next((other for other in others if _overlap(sample, other)), None)
        if other is not None:
            shared.append((sample, other))
    if not shared:
        return []
    sample, other = shared[0]
    what = "videos" if sample.is_whole and other.is_whole else "videos, or parts of them,"
    return [
        f"{len(shared)} {what} are for validation and for training too, such as {printable(sample.path)} "
        f"({quoted(sample.id)} and {quoted(other.id)}): what is measured on them says nothing of other videos"
    ]


def _overlap(one: Sample, other: Sample) -> bool:
    """Whether two samples of one video have frames in common, or may have: bounds in frames and in seconds."""
    if one.is_whole or other.is_whole:
        return True
    pairs = [((one.start_frame, one.end_frame), (other.start_frame, other.end_frame)), (one.seconds, other.seconds)]
    return all((first or 0) < _end(end) and (begin or 0) < _end(stop) for (first, stop), (begin, end) in pairs)


def _end(bound: float | None) -> float:
    return math.inf if bound is None else bound
