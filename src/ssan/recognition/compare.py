"""Comparison of two models on the same videos: what their difference is worth, and in which classes it lies."""

import csv
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ssan.errors import UsageError, few
from ssan.files import writing
from ssan.recognition.score_file import UNKNOWN, ScoreFile
from ssan.training.metrics import ranks, wilson_interval

COLUMNS = ("label", "num", "top1_a", "top1_b", "difference", "only_a", "only_b")


def mcnemar(only_a: int, only_b: int) -> tuple[float, float]:
    """McNemar's test on the videos that exactly one of two models gets right: the exact p, and the mid-p.

    If the models were equally good, each of the n = ``only_a + only_b`` videos would fall to either side like a fair
    coin. With k the smaller side and X ~ Binomial(n, 1/2), two-sided::

        exact = min(1, 2 P(X <= k))          mid-p = 2 P(X <= k) - P(X = k)

    The exact test is conservative, the mid-p less so (Fagerland, Lydersen and Laake, 2013, BMC Medical Research
    Methodology 13:91). Sums are of whole numbers, so the result is exact to the last digit for any n; 30,000 videos
    take some hundredths of a second. Without such a video both are 1.
    """
    n, k = only_a + only_b, min(only_a, only_b)
    ways = total = 1  # to choose i of n, and the sum of these up to i
    for i in range(1, k + 1):
        ways = ways * (n - i + 1) // i
        total += ways
    return min(2 * total, 2**n) / 2**n, (2 * total - ways) / 2**n


def bootstrap_interval(
    only_a: int, only_b: int, num: int, *, resamples: int = 10_000, seed: int = 0
) -> tuple[float, float]:
    """The 95 % interval of top-1 of B less that of A, from videos drawn anew with replacement, pairs kept together.

    A video adds +1, -1 or 0 to ``num`` times the difference, so drawing videos is drawing how many of each of the three
    kinds there are, from a multinomial distribution: the same numbers as by drawing videos one by one, in no memory.
    The ends are the 2.5th and 97.5th percentile of ``resamples`` draws (Efron, 1979; linear between neighbours).

    It speaks of other videos of the same kind, not of other training runs.
    """
    shares = np.array([only_a, only_b, num - only_a - only_b]) / num
    drawn = np.random.default_rng(seed).multinomial(num, shares, size=resamples)
    low, high = np.percentile((drawn[:, 1] - drawn[:, 0]) / num, [2.5, 97.5])
    return float(low), float(high)


def match(a: ScoreFile, b: ScoreFile, *, common: bool = False) -> tuple[ScoreFile, ScoreFile, int, int]:
    """Both files with the videos and classes in the order of ``a``, and how many videos only ``a`` and only ``b`` had.

    :param common: leave out the videos that only one of them has.
    :raises UsageError: they have other classes, other videos (without ``common``), none in common, or a video with
        two labels or without one.
    """
    only_a, only_b = sorted(set(a.classes) - set(b.classes)), sorted(set(b.classes) - set(a.classes))
    if only_a or only_b:
        raise UsageError(
            f"{a.path} and {b.path} have other classes: {len(only_a)} in the first only ({few(only_a)}), "
            f"{len(only_b)} in the second only ({few(only_b)}); expected the same names, in any order",
            code="unknown_label",
        )
    row_of_b = {identity: row for row, identity in enumerate(b.ids)}
    kept = [row for row, identity in enumerate(a.ids) if identity in row_of_b]
    lost_a, lost_b = len(a.ids) - len(kept), len(b.ids) - len(kept)
    if (lost_a or lost_b) and not (common and kept):
        known = set(a.ids)
        first = few([identity for identity in a.ids if identity not in row_of_b])
        second = few([identity for identity in b.ids if identity not in known])
        raise UsageError(
            f"{a.path} and {b.path} are not about the same videos: {lost_a} in the first only ({first}), {lost_b} in "
            f"the second only ({second}), {len(kept)} in both; "
            + ("expected some in both" if common else "score the same videos, or take --common for those in both"),
        )
    rows_a = np.array(kept)
    rows_b = np.array([row_of_b[a.ids[row]] for row in kept])
    for file, rows in ((a, rows_a), (b, rows_b)):
        num_unknown = int((file.labels[rows] == UNKNOWN).sum())
        if num_unknown:
            raise UsageError(
                f"{num_unknown} of {len(kept)} videos have no label, so no answer to them is right or wrong; compare "
                "scores of a split that has labels",
                path=file.path,
            )
    index_in_a = {name: index for index, name in enumerate(a.classes)}
    column_of_b = np.array([index_in_a[name] for name in b.classes])
    labels_a, labels_b = a.labels[rows_a], column_of_b[b.labels[rows_b]]
    different = np.flatnonzero(labels_a != labels_b)
    if len(different):
        first = different[0]
        raise UsageError(
            f"{len(different)} of {len(kept)} videos have one label in {a.path} and another in {b.path}; the first is "
            f"{a.ids[rows_a[first]]!r}: {a.classes[labels_a[first]]!r} and {a.classes[labels_b[first]]!r}. Score both "
            "with the same annotations",
            code="unknown_label",
        )
    ids = [a.ids[row] for row in kept]
    aligned_a = ScoreFile(a.path, ids, a.scores[rows_a], labels_a, a.classes, a.protocol)
    scores_b = b.scores[np.ix_(rows_b, np.argsort(column_of_b))]
    return aligned_a, ScoreFile(b.path, ids, scores_b, labels_b, a.classes, b.protocol), lost_a, lost_b


def protocol_differences(a: dict[str, Any], b: dict[str, Any]) -> dict[str, list[Any]]:
    """The settings in which two protocols differ, each with both values; None where one has it not."""
    keys = [*a, *(key for key in b if key not in a)]
    return {key: [a.get(key), b.get(key)] for key in keys if a.get(key) != b.get(key)}


def compare(
    a: ScoreFile, b: ScoreFile, *, common: bool = False, resamples: int = 10_000, seed: int = 0
) -> dict[str, Any]:
    """Compare B with A: the fields of ``ssan compare --json``. Differences are B less A, gains where B is better.

    A video counts as right where its class alone has the highest score.

    :raises UsageError: the files cannot be matched, see ``match``.
    """
    a, b, lost_a, lost_b = match(a, b, common=common)
    labels, num = a.labels, len(a.ids)
    right_a, right_b = (ranks(file.scores, labels) == 0 for file in (a, b))
    only_a, only_b = int((right_a & ~right_b).sum()), int((right_b & ~right_a).sum())
    exact, mid = mcnemar(only_a, only_b)

    def about(file: ScoreFile, right: np.ndarray) -> dict[str, Any]:
        count = int(right.sum())
        return {
            "path": file.path, "top1": count / num, "interval95": list(wilson_interval(count, num)),
            "protocol": file.protocol,
        }  # fmt: skip

    return {
        "num_videos": num,
        "num_only_in_a": lost_a,
        "num_only_in_b": lost_b,
        "a": about(a, right_a),
        "b": about(b, right_b),
        "difference": (only_b - only_a) / num,
        "difference_interval95": list(bootstrap_interval(only_a, only_b, num, resamples=resamples, seed=seed)),
        "resamples": resamples,
        "seed": seed,
        "counts": {
            "both_right": int((right_a & right_b).sum()),
            "only_a": only_a,
            "only_b": only_b,
            "neither": int((~right_a & ~right_b).sum()),
        },
        "mcnemar": {"exact_p": exact, "mid_p": mid},
        "protocol_differences": protocol_differences(a.protocol, b.protocol),
        "per_class": _per_class(right_a, right_b, labels, a.classes),
    }


def _per_class(
    right_a: np.ndarray, right_b: np.ndarray, labels: np.ndarray, classes: Sequence[str]
) -> list[dict[str, Any]]:
    """A row for each class, the largest gain first; classes without a video last, with None for what has no value."""

    def count(which: np.ndarray) -> list[int]:
        return np.bincount(labels[which], minlength=len(classes)).tolist()

    everything = np.ones_like(right_a)
    rows: list[dict[str, Any]] = []
    for label, num, in_a, in_b, only_a, only_b in zip(
        classes, count(everything), count(right_a), count(right_b), count(right_a & ~right_b),
        count(right_b & ~right_a), strict=True,
    ):  # fmt: skip
        values = (in_a / num, in_b / num, (in_b - in_a) / num) if num else (None, None, None)
        rows.append(dict(zip(COLUMNS, (label, num, *values, only_a, only_b), strict=True)))
    return sorted(rows, key=lambda row: -math.inf if row["num"] == 0 else row["difference"], reverse=True)


def write_table(path: str | Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write the rows of ``per_class`` as CSV, with the columns ``COLUMNS``; what has no value is empty."""
    with writing(path) as handle:
        table = csv.DictWriter(handle, COLUMNS, lineterminator="\n")
        table.writeheader()
        table.writerows(rows)
