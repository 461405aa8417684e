"""The learning curve and what it says of more clips."""

import numpy as np
import pytest

from ssan.probe.learning_curve import Point, learning_curve, num_heads, verdict


def point(num: int, right: list[float] | np.ndarray) -> Point:
    return Point(num, np.asarray(right, dtype=float), (0.0, 1.0))


def asked(train: np.ndarray, test: np.ndarray, seed: int) -> np.ndarray:
    """A learner that is right on as many test clips as it has clips, and knows two classes."""
    right = np.arange(len(test)) < len(train)
    labels = LABELS[test]
    answers = np.where(right, labels, 1 - labels)
    return np.eye(2)[answers]


LABELS = np.arange(60) % 2


def test_points_are_of_an_eighth_a_quarter_half_and_all_of_the_clips() -> None:
    train, test = np.arange(32), np.arange(32, 60)
    calls: list[int] = []
    points = learning_curve(
        asked, [(train, test)], LABELS, None, np.ones(28, dtype=bool), told=lambda: calls.append(1)
    )  # fmt: skip
    assert [(point.num_train, point.top1) for point in points] == [
        (4, pytest.approx(4 / 28)), (8, pytest.approx(8 / 28)), (16, pytest.approx(16 / 28)), (32, 1.0),
    ]  # fmt: skip
    assert len(calls) == num_heads([(train, test)]) == 15


def test_groups_are_drawn_whole_and_a_part_as_large_as_the_one_before_is_left_out() -> None:
    groups = np.arange(60) // 8  # four of eight clips for training
    train, test = np.arange(32), np.arange(32, 60)
    seen: list[np.ndarray] = []

    def look(items: np.ndarray, asked_items: np.ndarray, seed: int) -> np.ndarray:
        seen.append(items)
        return asked(items, asked_items, seed)

    points = learning_curve(look, [(train, test)], LABELS, groups, np.ones(28, dtype=bool))
    assert [point.num_train for point in points] == [8, 16, 32]  # an eighth and a quarter are both one group
    assert all(len(items) == 8 * len(np.unique(groups[items])) for items in seen)
    assert len({tuple(items) for items in seen if len(items) == 8}) > 1


def test_over_folds_every_test_clip_counts_once() -> None:
    items = np.arange(60)
    splits = [(items[items % 3 != fold], items[items % 3 == fold]) for fold in range(3)]
    points = learning_curve(asked, splits, LABELS, None, np.ones(60, dtype=bool))
    assert [point.num_train for point in points] == [4, 10, 20, 40]
    assert all(len(point.right) == 60 for point in points)
    assert points[0].top1 == pytest.approx(4 / 20)


def test_a_gain_beyond_chance_says_that_more_clips_would_help() -> None:
    half, whole = [0.0, 1.0] * 50, [1.0, 1.0] * 40 + [0.0, 1.0] * 10
    said = verdict([point(50, half), point(100, whole)], None)
    assert said.startswith("with half of your clips (50) 0.50, with all 100 0.90: more clips would help (gain +0.400")


def test_no_gain_on_many_clips_says_that_more_would_hardly_help() -> None:
    right = [1.0] * 900 + [0.0] * 100
    assert ": more would hardly help (gain +0.000" in verdict([point(50, right), point(100, right)], None)


def test_a_gain_that_may_be_chance_is_not_called_one() -> None:
    half, whole = [1.0, 0.0, 1.0, 1.0, 0.0, 1.0], [1.0, 1.0, 1.0, 0.0, 0.0, 1.0]
    assert "whether more would help cannot be told" in verdict([point(3, half), point(6, whole)], None)


def test_what_persons_gain_together_is_one_gain() -> None:
    """Ten clips of one person among five are gained: by clips that is beyond chance, by persons it is not."""
    half, whole = np.zeros(50), np.concatenate([np.ones(10), np.zeros(40)])
    assert "would help (" in verdict([point(25, half), point(50, whole)], None)
    assert "cannot be told" in verdict([point(25, half), point(50, whole)], np.arange(50) // 10)


def test_a_single_point_says_nothing_of_more() -> None:
    assert verdict([point(3, [1.0, 0.0])], None) == (
        "with all 3 clips 0.50; they are too few to leave out half of them"
    )  # fmt: skip
