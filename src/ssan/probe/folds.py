"""Which clips a head is fitted on and which it is asked: folds and parts of a training set, whole groups at a time."""

from collections.abc import Sequence

import numpy as np


def folds(labels: np.ndarray, groups: np.ndarray | None, num: int, *, seed: int = 0) -> list[np.ndarray]:
    """The clips (n) dealt into at most ``num`` folds, the items of each, so that each has about as many of every class.

    A group is in one fold, whole. There are as many folds as groups (or clips) where these are fewer. Units are dealt
    out the largest first, of equal ones in an order drawn from ``seed``, each to the fold that then has the most even
    share of the classes.
    """
    units = np.arange(len(labels)) if groups is None else np.unique(groups, return_inverse=True)[1]
    num_units = int(units.max()) + 1
    num = min(num, num_units)
    classes = np.unique(labels, return_inverse=True)[1]
    counts_uk = np.zeros((num_units, int(classes.max()) + 1))
    np.add.at(counts_uk, (units, classes), 1)
    # Of each class the share, so that a rare class is dealt out as carefully as a frequent one.
    shares_uk = counts_uk / counts_uk.sum(axis=0)
    order = np.random.default_rng(seed).permutation(num_units)
    order = order[np.argsort(-counts_uk[order].sum(axis=1), kind="stable")]
    dealt_fk, sizes = np.zeros((num, shares_uk.shape[1])), np.zeros(num)
    fold_of = np.empty(num_units, dtype=np.int64)
    for unit in order:
        # Squares grow the least where the unit's own classes are the fewest as yet.
        growth = ((dealt_fk + shares_uk[unit]) ** 2 - dealt_fk**2).sum(axis=1)
        chosen = min(range(num), key=lambda fold: (round(growth[fold], 12), sizes[fold]))
        fold_of[unit] = chosen
        dealt_fk[chosen] += shares_uk[unit]
        sizes[chosen] += counts_uk[unit].sum()
    return [np.flatnonzero(fold_of[units] == fold) for fold in range(num)]


def each_group(groups: np.ndarray) -> list[np.ndarray]:
    """The items of each group, in the order of the groups' names."""
    return [np.flatnonzero(groups == group) for group in np.unique(groups)]


def part(labels: np.ndarray, groups: np.ndarray | None, share: float, rng: np.random.Generator) -> np.ndarray:
    """The items of about such a share of the clips, drawn: of each class one clip at least, or one whole group."""
    if groups is None:
        chosen: list[int] = []
        for label in np.unique(labels):
            own = rng.permutation(np.flatnonzero(labels == label))
            chosen += own[: max(1, round(share * len(own)))].tolist()
        return np.array(sorted(chosen))
    names = rng.permutation(np.unique(groups))
    sizes = np.cumsum([int((groups == name).sum()) for name in names])
    # Of two that are as near the larger, so that half of three groups is two of them, and more than a quarter.
    num = len(sizes) - int(np.abs(sizes - share * len(labels))[::-1].argmin())
    return np.flatnonzero(np.isin(groups, names[:num]))


def other_items(num: int, items: np.ndarray) -> np.ndarray:
    """The items from 0 to ``num`` that are not among these."""
    left = np.ones(num, dtype=bool)
    left[items] = False
    return np.flatnonzero(left)


def names_as_numbers(names: Sequence[str]) -> np.ndarray:
    """Equal numbers for equal names, in the order of the names."""
    return np.unique(np.asarray(names, dtype=object).astype(str), return_inverse=True)[1]
