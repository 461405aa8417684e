"""What makes a probe worth less than it seems: classes of few clips, persons or clips on both sides."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from ssan.datasets.samples import Sample
from ssan.errors import few, printable, quoted

FEW_CLIPS = 3
CLOSER = 10.0
"""So many times closer than the nearest other clip usually is, a clip is a near duplicate."""
CLOSE = 1e-3
"""Distances below this are duplicates however close the others are."""
_AT_ONCE = 1 << 24  # numbers of a piece of the matrix of similarities


def doubts_of_classes(train: np.ndarray, test: np.ndarray | None, classes: Sequence[str]) -> list[str]:
    """Classes of one or two clips, and classes of which nothing is measured.

    :param train: (n) the classes of the clips for training.
    :param test: of those for testing; None where each clip is for both in turn.
    """
    said = []
    counts = Counter(train.tolist())
    scarce = [index for index in range(len(classes)) if 0 < counts[index] < FEW_CLIPS]
    if scarce:
        named = few([f"{quoted(classes[i], 60)} ({counts[i]})" for i in scarce], 5, str)
        said.append(
            f"{_num(len(scarce), 'class has', 'classes have')} fewer than {FEW_CLIPS} clips to learn from: {named}; "
            "add clips, or leave such classes out"
        )
    unasked = [] if test is None else [classes[index] for index in sorted(set(counts) - set(test.tolist()))]
    if unasked:
        said.append(
            f"{_num(len(unasked), 'class is', 'classes are')} for training alone, so nothing is measured of it: "
            f"{few(unasked, 5)}"
        )
    return said


def doubts_of_folds(
    splits: Sequence[tuple[np.ndarray, np.ndarray]], labels: np.ndarray, classes: Sequence[str]
) -> list[str]:
    """Classes whose clips are all held out at once, as those of one person are who alone has shown them."""
    lost = Counter(
        int(label) for train, test in splits for label in labels[test] if label not in set(labels[train].tolist())
    )
    if not lost:
        return []
    named = few([classes[index] for index in sorted(lost)], 5)
    return [
        f"{_num(len(lost), 'class has', 'classes have')} all clips in one fold or group, so that {sum(lost.values())} "
        f"clips cannot be answered right when it is held out: {named}"
    ]


def doubts_of_groups(train: Sequence[str], test: Sequence[str]) -> list[str]:
    """Groups (persons, recordings) that are on both sides, and a side of one group alone."""
    both = sorted(set(train) & set(test))
    said = []
    if both:
        num = sum(group in set(both) for group in test)
        said.append(
            f"{_num(len(both), 'group is', 'groups are')} in training and in testing too ({few(both, 5)}): {num} of "
            f"{len(test)} test clips are of someone or something known from training"
        )
    for name, side in (("training", set(train)), ("testing", set(test))):
        if len(side) == 1:
            said.append(f"all clips for {name} are of one group, {quoted(next(iter(side)), 60)}")
    return said


def near_duplicates(
    rows: np.ndarray, sides: np.ndarray, *, closer: float = CLOSER
) -> tuple[list[tuple[int, int, float]], float]:
    """Clips whose nearest clip of another side is far nearer than is usual, and from which similarity on.

    Features are centred by their mean before their cosine is taken: those of a network all point one way. With the
    distance 1 - cosine of each clip to its nearest of another side, and the median of these, near duplicates are
    ``closer`` times closer than the median, or closer than ``CLOSE``. A rule relative to the data: clips of one room
    and one camera are close to each other, and are none.

    :param rows: (n, d) features of clips.
    :param sides: (n) such as the split, or the group; pairs within one side do not count.
    :return: pairs (i, j, cosine) with i < j, the most similar first; and the threshold.
    """
    centred = rows.astype(np.float32) - rows.mean(axis=0, dtype=np.float64).astype(np.float32)
    centred /= np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-12)
    nearest, which = np.full(len(rows), -2.0), np.zeros(len(rows), dtype=np.int64)
    at_once = max(1, _AT_ONCE // max(1, len(rows)))
    for start in range(0, len(rows), at_once):
        similar = centred[start : start + at_once] @ centred.T
        similar[sides[start : start + at_once, None] == sides[None]] = -2.0
        which[start : start + at_once] = similar.argmax(axis=1)
        nearest[start : start + at_once] = similar.max(axis=1)
    known = nearest > -2.0
    if not known.any():
        return [], 1.0
    threshold = 1 - max(float(np.median(1 - nearest[known])) / closer, CLOSE)
    found = {
        (min(int(i), int(which[i])), max(int(i), int(which[i]))): float(min(nearest[i], 1.0))
        for i in np.flatnonzero(known & (nearest > threshold))
    }
    return sorted(((i, j, value) for (i, j), value in found.items()), key=lambda row: (-row[2], row[:2])), threshold


def doubts_of_duplicates(rows: np.ndarray, sides: np.ndarray, samples: Sequence[Sample], what: str) -> list[str]:
    """The near duplicates of clips across sides, in a line."""
    found, threshold = near_duplicates(rows, sides)
    if not found:
        return []
    i, j, value = found[0]
    return [
        f"{_num(len(found), 'pair', 'pairs')} of near duplicates across {what} (cosine of the features above "
        f"{threshold:.4f}, {CLOSER:g} times closer than the nearest clip is in the median); first "
        f"{printable(samples[i].path)} and {printable(samples[j].path)} ({value:.4f}). What is measured on them says "
        "nothing of other clips"
    ]


def _num(num: int, one: str, many: str) -> str:
    return f"1 {one}" if num == 1 else f"{num} {many}"
