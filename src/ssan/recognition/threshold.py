"""From which share of the softmax on an answer is given, and below which a video is said to be none of the classes."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from ssan.errors import UsageError
from ssan.training.metrics import ranks, wilson_interval


@dataclass(frozen=True)
class ChosenThreshold:
    """A threshold, and what it does to the videos by which it was chosen.

    An answer is given where the share of the likeliest class is at least ``threshold``. A false alarm is an answer to a
    video that should have none: one of no class (``of`` is ``none``), or, where no such videos are given, one whose
    likeliest class is not its own (``of`` is ``wrong``).

    :param wanted: the share of false alarms that was asked for, at most.
    :param num: videos that should have no answer, and ``num_false_alarms`` those that have one all the same.
    :param num_right: videos whose likeliest class is their own, and ``num_right_answered`` those that are answered.
    """

    threshold: float
    wanted: float
    of: str
    num: int
    num_false_alarms: int
    num_right: int
    num_right_answered: int

    def as_dict(self) -> dict[str, Any]:
        """For the answer of ``ssan eval`` and for a model file."""
        return {
            "threshold": self.threshold,
            "false_alarms_wanted": self.wanted,
            "of": self.of,
            "num": self.num,
            "num_false_alarms": self.num_false_alarms,
            "false_alarms": self.num_false_alarms / self.num,
            "interval95": list(wilson_interval(self.num_false_alarms, self.num)),
            "right_answered": self.num_right_answered / self.num_right if self.num_right else None,
        }


def top_shares(scores: np.ndarray) -> np.ndarray:
    """The softmax share of the likeliest class of each video (n), of its scores (n, k)."""
    best = scores.max(axis=1, keepdims=True)
    return 1 / np.exp(scores.astype(np.float64) - best).sum(axis=1)


def choose_threshold(
    scores: np.ndarray, labels: np.ndarray, false_alarms: float, none: np.ndarray | None = None
) -> ChosenThreshold:
    """The lowest threshold at which at most this share of the videos that should have no answer get one.

    It lies halfway between the highest share (of the softmax) that must have no answer and the next higher one that
    occurs, so that rounding on another machine changes no answer.

    :param scores: (n, k) of videos of the classes, and ``labels`` (n).
    :param none: (m, k) scores of videos that are of none of the classes.
    :raises UsageError: there is nothing to choose by, or no threshold does it.
    """
    if not 0 < false_alarms < 1:
        raise UsageError(f"a share of false alarms of {false_alarms:g} was asked for; expected one between 0 and 1")
    shares, right = top_shares(scores), ranks(scores, labels) == 0
    alarms = shares[~right] if none is None else top_shares(none)
    if not len(alarms):
        raise UsageError(
            "no video was answered wrongly, so that nothing says from where on answers are; give videos of none of the "
            "classes with --none FOLDER"
        )
    allowed = int(false_alarms * len(alarms) + 1e-9)
    barred = float(np.sort(alarms)[::-1][allowed])  # this one, and all below it, are to have no answer
    above = np.concatenate([shares[right], alarms])
    above = above[above > barred]
    if not len(above) and barred >= 1:
        raise UsageError(
            f"{int((alarms >= 1).sum())} of {len(alarms)} videos that should have no answer have one with a share of "
            "1: no threshold tells them apart. Ask for more false alarms, or take another model"
        )
    threshold = (barred + (float(above.min()) if len(above) else 1.0)) / 2
    if threshold <= barred:  # neighbours among floating-point numbers
        threshold = float(np.nextafter(barred, 2))
    return ChosenThreshold(
        threshold,
        false_alarms,
        "wrong" if none is None else "none",
        len(alarms),
        int((alarms >= threshold).sum()),
        int(right.sum()),
        int((shares[right] >= threshold).sum()),
    )
