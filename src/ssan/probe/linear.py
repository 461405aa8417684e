"""A linear head: logistic regression on standardised features, folded into the weights of one linear layer."""

import warnings
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from ssan.probe.folds import folds, other_items

STRENGTHS = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""C of scikit-learn's logistic regression, the inverse of the penalty, among which is chosen."""
USUAL_STRENGTH = 0.01  # where nothing can be held out to choose by
NUM_FOLDS = 5
MOST_ITERATIONS = 2000
# With so many rows a single fold, held out, tells well enough.
ENOUGH_ROWS = 4000
NEVER = -30.0
"""Logit of a class of which there is nothing to learn from; the mean over the others is 0 (see ``_centred``)."""
_LEAST = 1e-7  # probability, so that a class that a fold could not learn costs all strengths the same


@dataclass(frozen=True)
class LinearHead:
    """Logits (n, k) = x weight' + bias, of features x (n, d) as they come out of the network.

    :param strength: C with which it was fitted.
    :param mean: (d) of the features by which they were standardised.
    :param scale: (d) their standard deviation; 1 where it is 0.
    :param converged: whether the fit has come to its end.
    """

    weight: np.ndarray
    bias: np.ndarray
    strength: float
    mean: np.ndarray
    scale: np.ndarray
    converged: bool = True

    def logits(self, rows: np.ndarray) -> np.ndarray:
        return rows.astype(np.float64) @ self.weight.T + self.bias


def balanced(labels: np.ndarray) -> np.ndarray:
    """The weight of each row (n), so that all classes that occur count alike: n / (their number x rows of its own)."""
    _, places, counts = np.unique(labels, return_inverse=True, return_counts=True)
    return (len(labels) / (len(counts) * counts))[places]


def fit_linear(rows: np.ndarray, labels: np.ndarray, num_classes: int, strength: float) -> LinearHead:
    """Logistic regression (multinomial, class weights balanced) on rows (n, d) that are standardised first.

    With z = (x - mean) / scale the fit gives z W' + b. Folded, the weights are W / scale and the bias is
    b - W (mean / scale): the same logits of the features as they are, but for rounding.

    More dimensions than rows are not more to choose from: the penalised optimum lies in the space that the rows span,
    and is looked for there, in an orthonormal basis, which changes neither distances nor the penalty.

    :param labels: (n) of 0 to ``num_classes``; classes without a row are never answered.
    """
    return _fit(_Standard.of(rows), labels, num_classes, strength)


@dataclass(frozen=True)
class _Standard:
    """Rows that are standardised, and turned into the space that they span where that is smaller.

    :param basis: (r, d) orthonormal rows of that space; None where it is not smaller.
    """

    rows: np.ndarray
    mean: np.ndarray
    scale: np.ndarray
    basis: np.ndarray | None

    @classmethod
    def of(cls, rows: np.ndarray) -> Self:
        rows = rows.astype(np.float64)
        mean, scale = rows.mean(axis=0), rows.std(axis=0)
        # What varies by rounding alone does not vary.
        scale = np.where(scale > 1e-6 * np.abs(mean) + 1e-12, scale, 1.0)
        standard, basis = (rows - mean) / scale, None
        if standard.shape[1] > len(standard):
            _, sizes, basis = np.linalg.svd(standard, full_matrices=False)
            basis = basis[: max(1, int((sizes > 1e-10 * sizes[0]).sum()))]
            standard = standard @ basis.T
        return cls(standard, mean, scale, basis)


def _fit(standard: _Standard, labels: np.ndarray, num_classes: int, strength: float, model: Any = None) -> LinearHead:
    """A head for rows that are standardised.

    :param model: a regression that was fitted to the same rows with another strength, from which to go on.
    """
    from sklearn.exceptions import ConvergenceWarning

    known = np.unique(labels)
    weight, bias = np.zeros((num_classes, len(standard.mean))), np.full(num_classes, NEVER)
    bias[known] = 0.0
    converged = True
    if len(known) > 1:
        model = _regression() if model is None else model
        model.set_params(C=strength)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(standard.rows, labels, sample_weight=balanced(labels))
        converged = bool(np.max(model.n_iter_) < MOST_ITERATIONS)
        found, offset = model.coef_, model.intercept_
        if len(known) == 2:  # one row, of the second class against the first
            found, offset = np.concatenate([-found, found]) / 2, np.concatenate([-offset, offset]) / 2
        if standard.basis is not None:
            found = found @ standard.basis
        found, offset = _centred(found), _centred(offset)
        weight[known] = found / standard.scale
        bias[known] = offset - found @ (standard.mean / standard.scale)
    return LinearHead(weight, bias, strength, standard.mean, standard.scale, converged)


def _regression() -> Any:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(max_iter=MOST_ITERATIONS, warm_start=True)


def _centred(of_classes: np.ndarray) -> np.ndarray:
    """Without the mean over classes, which no softmax sees: the highest logit is then never below 0."""
    return of_classes - of_classes.mean(axis=0)


def choose_strength(
    rows: np.ndarray, labels: np.ndarray, clips: np.ndarray, groups: np.ndarray | None, num_classes: int, seed: int = 0
) -> float:
    """The strength by cross-validation within these rows: the lowest balanced log-loss on what was held out.

    Clips are held out with all of their rows, groups with all of their clips; standardisation is of the rest alone. Of
    equal strengths the smaller counts. Where no class has two clips (or groups) there is nothing to choose by, and it
    is ``USUAL_STRENGTH``.

    :param clips: (n) of which clip each row is.
    :param groups: (n) of which group, or None.
    """
    units = clips if groups is None or len(np.unique(groups)) < 2 else groups
    per_class = [len(np.unique(units[labels == label])) for label in np.unique(labels)]
    if max(per_class) < 2 or len(per_class) < 2:
        return USUAL_STRENGTH
    held_out = folds(labels, units, NUM_FOLDS, seed=seed)
    if len(rows) > ENOUGH_ROWS:
        held_out = held_out[:1]
    weights = balanced(labels)
    losses = np.zeros(len(STRENGTHS))
    for items in held_out:
        rest = other_items(len(rows), items)
        standard, model = _Standard.of(rows[rest]), _regression()
        for place, strength in enumerate(STRENGTHS):
            logits = _fit(standard, labels[rest], num_classes, strength, model).logits(rows[items])
            shares = np.exp(logits - logits.max(axis=1, keepdims=True))
            own = shares[np.arange(len(items)), labels[items]] / shares.sum(axis=1)
            losses[place] -= (weights[items] * np.log(np.maximum(own, _LEAST))).sum()
    return STRENGTHS[int(np.argmin(losses))]
