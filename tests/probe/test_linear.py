"""The linear head: folded by hand, against scikit-learn as a pipeline, and its strength chosen within the rows."""

import numpy as np
import pytest

from ssan.probe import linear
from ssan.probe.linear import NEVER, USUAL_STRENGTH, balanced, choose_strength, fit_linear


def clouds(num: int, dim: int, num_classes: int, *, apart: float = 3.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Rows around a centre of each class, with dimensions on very different scales and far from 0."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(num_classes, dim)) * apart
    labels = np.arange(num) % num_classes
    return (centres[labels] + rng.normal(size=(num, dim))) * np.logspace(-2, 2, dim) + 50.0, labels


@pytest.mark.slow
def test_the_standardisation_is_folded_into_weight_and_bias_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two rows 2 and 6: mean 4, deviation 2. A fit of weight 3 and bias 1 on z = (x - 4) / 2 is 1.5 x - 5."""

    class Fixed:
        coef_, intercept_, n_iter_ = np.array([[3.0]]), np.array([1.0]), np.array([1])

        def set_params(self, **_: object) -> None: ...
        def fit(self, rows: np.ndarray, labels: np.ndarray, *, sample_weight: np.ndarray) -> None:
            assert rows.ravel().tolist() == [-1.0, 1.0]
            assert sample_weight.tolist() == [1.0, 1.0]

    monkeypatch.setattr(linear, "_regression", Fixed)
    head = fit_linear(np.array([[2.0], [6.0]]), np.array([0, 1]), 2, 1.0)
    assert (head.mean.tolist(), head.scale.tolist()) == ([4.0], [2.0])
    # Of two classes the second has half of it, the first half of its negative.
    assert head.weight.ravel().tolist() == [-0.75, 0.75]
    assert head.bias.tolist() == [2.5, -2.5]
    difference = head.logits(np.array([[2.0], [6.0], [10.0]]))
    assert (difference[:, 1] - difference[:, 0]).tolist() == [-2.0, 4.0, 10.0]


@pytest.mark.parametrize(("num", "dim"), [(40, 6), (20, 33)])
@pytest.mark.parametrize("num_classes", [2, 3])
def test_it_is_scikit_learns_regression_behind_its_scaler_also_with_more_dimensions_than_rows(
    num: int, dim: int, num_classes: int
) -> None:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    rows, labels = clouds(num, dim, num_classes, apart=0.6)
    labels[:3] = 0  # not balanced
    regression = LogisticRegression(C=0.1, class_weight="balanced", tol=1e-8, max_iter=5000)
    peer = make_pipeline(StandardScaler(), regression).fit(rows, labels)
    logits = fit_linear(rows, labels, num_classes, 0.1).logits(rows)
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert np.abs(shares - peer.predict_proba(rows)).max() < 2e-3


def test_a_dimension_that_does_not_vary_has_no_weight_and_breaks_nothing() -> None:
    rows, labels = clouds(12, 4, 3)
    rows[:, 2] = 7.0
    head = fit_linear(rows, labels, 3, 1.0)
    assert np.isfinite(head.logits(rows)).all()
    assert np.abs(head.weight[:, 2]).max() == 0


def test_classes_without_a_row_are_never_answered() -> None:
    rows, labels = clouds(30, 5, 3)
    head = fit_linear(rows, 2 * labels, 6, 1.0)
    logits = head.logits(rows)
    assert (logits.argmax(axis=1) == 2 * labels).all()
    assert (logits[:, [1, 3, 5]] == NEVER).all()
    assert logits[:, [0, 2, 4]].max(axis=1).min() >= 0
    single = fit_linear(rows, np.ones(30, dtype=int), 3, 1.0)
    assert (single.logits(rows).argmax(axis=1) == 1).all()


def test_balanced_weights_give_each_class_the_same_sum() -> None:
    assert balanced(np.array([0, 0, 0, 2])).tolist() == [2 / 3, 2 / 3, 2 / 3, 2.0]


def test_what_can_be_told_apart_is_told_apart_on_other_clips() -> None:
    rows, labels = clouds(90, 20, 3)
    items = np.arange(90)
    strength = choose_strength(rows[:60], labels[:60], items[:60], None, 3)
    assert strength in linear.STRENGTHS
    head = fit_linear(rows[:60], labels[:60], 3, strength)
    assert (head.logits(rows[60:]).argmax(axis=1) == labels[60:]).all()


def test_noise_is_penalised_more_than_what_can_be_learnt() -> None:
    rng = np.random.default_rng(3)
    labels, clips = np.arange(60) % 3, np.arange(60)
    noise = choose_strength(rng.normal(size=(60, 40)), labels, clips, None, 3)
    learnt = choose_strength(clouds(60, 40, 3)[0], labels, clips, None, 3)
    assert noise < learnt


def test_held_out_to_choose_by_are_whole_groups_and_all_rows_of_a_clip(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, labels = clouds(24, 3, 2)
    clips, groups = np.arange(24) // 2, np.arange(24) // 6
    held: list[tuple[np.ndarray, np.ndarray]] = []
    real = linear._fit

    def look(standard: linear._Standard, of_rest: np.ndarray, *rest: object) -> linear.LinearHead:
        held.append((standard.mean, of_rest))
        return real(standard, of_rest, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(linear, "_fit", look)
    choose_strength(rows, labels, clips, groups, 2)
    means = {tuple(mean) for mean, _ in held}
    # Standardised by the rest alone: the means are those of the rows without one group.
    assert means == {tuple(rows[groups != group].mean(axis=0)) for group in range(4)}


def test_where_nothing_can_be_held_out_the_usual_strength_counts() -> None:
    rows, labels = clouds(3, 4, 3)
    assert choose_strength(rows, labels, np.arange(3), None, 3) == USUAL_STRENGTH


@pytest.mark.parametrize(("factor", "shift"), [(1e-3, 0.0), (1e3, -20.0), (0.1, 500.0)])
def test_the_answers_do_not_depend_on_the_scale_of_features(factor: float, shift: float) -> None:
    rng = np.random.default_rng(2)
    rows, labels = rng.normal(size=(20, 4)), np.arange(20) % 3
    plain = fit_linear(rows, labels, 3, 0.1).logits(rows)
    other = fit_linear(rows * factor + shift, labels, 3, 0.1).logits(rows * factor + shift)
    assert np.abs(plain - other).max() < 2e-3
