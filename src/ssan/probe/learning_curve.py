"""How accuracy grows with the number of clips, and whether more would help."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ssan.probe.folds import part
from ssan.training.metrics import mean_interval, share_interval

SHARES = (1 / 8, 1 / 4, 1 / 2)
NUM_DRAWS = 5
# With so many clips for training a draw is as good as five, and takes long.
ENOUGH_CLIPS = 2000
HARDLY = 0.02
"""A gain from half to all of the clips below this is none that anybody would film more clips for."""

Answers = Callable[[np.ndarray, np.ndarray, int], np.ndarray]
"""The items to fit a head on, those to ask it, a seed; the logits (n, k)."""


@dataclass(frozen=True)
class Point:
    """Accuracy of heads that were fitted on a part of the clips.

    :param right: (n) of each test clip, the share of heads that answer it right.
    """

    num_train: int
    right: np.ndarray
    interval95: tuple[float, float]

    @property
    def top1(self) -> float:
        return float(self.right.mean())

    def as_dict(self) -> dict[str, Any]:
        return {"num_train": self.num_train, "top1": self.top1, "interval95": list(self.interval95)}


def learning_curve(
    answers: Answers,
    splits: list[tuple[np.ndarray, np.ndarray]],
    labels: np.ndarray,
    groups: np.ndarray | None,
    right: np.ndarray,
    *,
    seed: int = 0,
    told: Callable[[], None] = lambda: None,
) -> list[Point]:
    """Heads fitted on 1/8, 1/4, 1/2 and all of the clips for training.

    Parts are drawn by whole groups, or of each class alike. Each of several draws gives its own heads; a point is their
    mean. A part that comes out as large as the one before is left out.

    :param splits: items for training and for testing; every test clip is in one of them.
    :param right: (n) whether each test clip was answered right with all of the clips, in the order of the splits.
    :param told: called after each head.
    """
    tested = np.concatenate([test for _, test in splits])
    of_test = None if groups is None else groups[tested]
    sizes = [len(train) for train, _ in splits]
    num_draws = 1 if max(sizes) > ENOUGH_CLIPS else max(1, -(-NUM_DRAWS // len(splits)))
    points: list[Point] = []
    for place, share in enumerate(SHARES):
        drawn = []
        for number, (train, _) in enumerate(splits):
            of_train = None if groups is None else groups[train]
            for draw in range(num_draws):
                rng = np.random.default_rng([seed, place, number, draw])
                drawn.append(train[part(labels[train], of_train, share, rng)])
        num_train = round(float(np.mean([len(items) for items in drawn])))
        before = points[-1].num_train if points else 0
        if not before < num_train < round(float(np.mean(sizes))):
            for _ in drawn:
                told()
            continue
        found = []
        for number, (_, test) in enumerate(splits):
            shares = np.zeros(len(test))
            for draw in range(num_draws):
                logits = answers(drawn[number * num_draws + draw], test, seed + draw)
                shares += logits.argmax(axis=1) == labels[test]
                told()
            found.append(shares / num_draws)
        points.append(_point(num_train, np.concatenate(found), of_test, seed))
    points.append(_point(round(float(np.mean(sizes))), right.astype(np.float64), of_test, seed))
    return points


def num_heads(splits: list[tuple[np.ndarray, np.ndarray]]) -> int:
    """How many heads the curve takes, so that a bar can say how far it is."""
    num_draws = 1 if max(len(train) for train, _ in splits) > ENOUGH_CLIPS else max(1, -(-NUM_DRAWS // len(splits)))
    return len(SHARES) * num_draws * len(splits)


def _point(num_train: int, right: np.ndarray, groups: np.ndarray | None, seed: int) -> Point:
    low, high = share_interval(right, groups, seed=seed)
    return Point(num_train, right, (low, high))


def verdict(points: list[Point], groups: np.ndarray | None, *, seed: int = 0) -> str:
    """One sentence: whether more clips would help.

    By the gain from about half of the clips to all, of each test clip its own, and the 95 % interval of its mean over
    test clips (or groups) drawn anew. Above 0, more clips would help. Below ``HARDLY``, more would hardly. Else it
    cannot be told from so few. Nothing is foretold beyond another doubling.
    """
    if len(points) < 2:
        return (
            f"with all {points[-1].num_train} clips {points[-1].top1:.2f}; they are too few to leave out half of them"
        )
    half, whole = points[-2], points[-1]
    gain = whole.right - half.right
    low, high = mean_interval(gain, groups, seed=seed)
    share = half.num_train / whole.num_train
    of = "half" if 0.4 <= share <= 0.6 else f"{share:.0%}"
    said = f"with {of} of your clips ({half.num_train}) {half.top1:.2f}, with all {whole.num_train} {whole.top1:.2f}: "
    if low > 0:
        return said + f"more clips would help (gain {gain.mean():+.3f}, 95 % interval {low:+.3f} to {high:+.3f})"
    if high < HARDLY:
        return said + f"more would hardly help (gain {gain.mean():+.3f}, 95 % interval {low:+.3f} to {high:+.3f})"
    return said + (
        f"whether more would help cannot be told (gain {gain.mean():+.3f}, 95 % interval {low:+.3f} to {high:+.3f})"
    )
