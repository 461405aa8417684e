"""Accuracies of a matrix of scores, with their uncertainty."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

FEWEST_FOR_TOP5 = 6
"""Classes; of fewer, every answer has the right one among five."""
TOOK_NO_PART = 0.99
"""The share of videos with the same answer to reversed frames from which on the layer between frames counts as idle."""


def ranks(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The rank of each video's own class among its scores (n, k), 0 for first; a tie counts against it.

    :raises ValueError: a score is NaN: it would compare as smaller than everything and hide in the mean.
    """
    assert labels.min(initial=0) >= 0, "a video without a label has no rank"
    if np.isnan(scores).any():
        raise ValueError(f"{int(np.isnan(scores).any(axis=1).sum())} of {len(scores)} videos have scores that are NaN")
    own = np.take_along_axis(scores, labels[:, None], axis=1)
    return (scores >= own).sum(axis=1) - 1


def accuracy(scores: np.ndarray, labels: np.ndarray, top: int = 1) -> float:
    """Share of videos whose class is among the ``top`` highest scores."""
    return float((ranks(scores, labels) < top).mean())


def accuracies(scores: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """Top-1, top-5, mean class accuracy and the interval of top-1.

    None each where a label is not known (-1); top-5 is None of fewer than 6 classes too, where it says nothing.
    """
    if labels.min() < 0:
        return dict.fromkeys(("top1", "top5", "mean_class_accuracy", "interval95"))
    num_right = int((ranks(scores, labels) == 0).sum())
    return {
        "top1": num_right / len(labels),
        "top5": accuracy(scores, labels, top=5) if scores.shape[1] >= FEWEST_FOR_TOP5 else None,
        "mean_class_accuracy": mean_class_accuracy(scores, labels),
        "interval95": list(wilson_interval(num_right, len(labels))),
    }


def mean_class_accuracy(scores: np.ndarray, labels: np.ndarray) -> float:
    """Mean over the classes that occur of the top-1 accuracy within each."""
    right = ranks(scores, labels) == 0
    return float(np.mean([right[labels == label].mean() for label in np.unique(labels)]))


def wilson_interval(num_right: float, num: int, z: float = 1.959963984540054) -> tuple[float, float]:
    """The 95 % interval of a proportion after Wilson (1927), within [0, 1] also for 0 or all of few.

    It speaks of other videos of the same kind, not of other training runs.
    """
    if num == 0:
        return 0.0, 1.0
    share = num_right / num
    center = (share + z * z / (2 * num)) / (1 + z * z / num)
    half = z * math.sqrt(share * (1 - share) / num + z * z / (4 * num * num)) / (1 + z * z / num)
    # At 0 and at all of them the ends are exact, but for rounding.
    return max(0.0, min(center - half, share)), min(1.0, max(center + half, share))


def interval_at_the_end(all: bool, num: int) -> list[float]:
    """Clopper's and Pearson's interval of a share, 95 %, where all of ``num`` trials have succeeded, or none."""
    most = 1 - 0.025 ** (1 / num)
    return [1 - most, 1.0] if all else [0.0, most]


def share_interval(right: np.ndarray, groups: np.ndarray | None = None, *, seed: int = 0) -> list[float]:
    """The 95 % interval of the mean of values in 0..1, one a video (n).

    Wilson's (``wilson_interval``) where each video stands for itself. With the ``groups`` (n) of the videos, persons or
    recordings whose videos are right or wrong together, that of ``mean_interval``; it speaks of other groups. Where all
    are right, or none, every draw would say so too: it is then Clopper's and Pearson's for as many groups.
    """
    num_groups = 0 if groups is None else len(np.unique(groups))
    if groups is None or num_groups < 2:
        return list(wilson_interval(float(np.sum(right)), len(right)))
    if right.min() == right.max() and right[0] in (0, 1):
        return interval_at_the_end(bool(right[0]), num_groups)
    return mean_interval(right, groups, seed=seed)


def mean_interval(
    values: np.ndarray, groups: np.ndarray | None = None, *, draws: int = 2000, seed: int = 0
) -> list[float]:
    """Percentiles 2.5 and 97.5 of the mean of values (n) over draws with replacement of their groups (Efron, 1979).

    Each draw has as many groups as there are, each with all of its values; by default each value is its own group.
    """
    places = np.arange(len(values)) if groups is None else np.unique(groups, return_inverse=True)[1]
    num = int(places.max()) + 1
    sums, counts = np.bincount(places, weights=values, minlength=num), np.bincount(places, minlength=num)
    rng = np.random.default_rng(seed)
    means: list[np.ndarray] = []
    at_once = max(1, 2**22 // num)
    for start in range(0, draws, at_once):
        times = rng.multinomial(num, np.full(num, 1 / num), size=min(at_once, draws - start))
        means.append(times @ sums / (times @ counts))
    return np.quantile(np.concatenate(means), [0.025, 0.975]).tolist()


def per_class(scores: np.ndarray, labels: np.ndarray, classes: Sequence[str]) -> list[dict[str, Any]]:
    """For each class its number of videos and top-1 accuracy (None where it has no video)."""
    right = ranks(scores, labels) == 0
    rows = []
    for index, label in enumerate(classes):
        own = right[labels == index]
        rows.append({"label": label, "num": len(own), "top1": float(own.mean()) if len(own) else None})
    return rows


def pair_accuracies(
    predicted: np.ndarray, labels: np.ndarray, pairs: Sequence[tuple[int, int]]
) -> tuple[float, float | None]:
    """For classes that come in pairs: share of answers in the right pair, and among these, in the right class of it.

    The second is None where no answer is in the right pair.
    """
    pair_of = {index: number for number, pair in enumerate(pairs) for index in pair}
    in_pair = np.array([pair_of[p] == pair_of[q] for p, q in zip(predicted.tolist(), labels.tolist(), strict=True)])
    right = predicted == labels
    return float(in_pair.mean()), float(right[in_pair].mean()) if in_pair.any() else None


def confusion(predicted: np.ndarray, labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Counts (k, k): row the true class, column the answer."""
    table = np.zeros((num_classes, num_classes), dtype=np.int64)
    np.add.at(table, (labels, predicted), 1)
    return table


def confusion_counts(scores: np.ndarray, labels: np.ndarray) -> list[list[int]]:
    """``[true index, predicted index, count]`` of each pair of classes that occurs, sorted, from scores (n, k).

    Videos whose class is not known, with a label below 0, are left out.

    The answer is the class with the highest score, of equal ones the first. Top-1 counts such a tie as wrong; where
    there are ties, more may stand on the diagonal here than top-1 tells.
    """
    known = labels >= 0
    table = confusion(scores[known].argmax(axis=1), labels[known], scores.shape[1])
    return [[int(row), int(column), int(table[row, column])] for row, column in np.argwhere(table)]
