"""Accuracies of score matrices small enough to be worked by hand."""

import numpy as np
import pytest

from ssan.training.metrics import (
    accuracies,
    accuracy,
    confusion,
    mean_class_accuracy,
    mean_interval,
    pair_accuracies,
    per_class,
    ranks,
    share_interval,
    wilson_interval,
)

# Own class:      0 is first       1 is second     2 is third      2 is first
SCORES = np.array([[0.9, 0.1, 0.0], [0.8, 0.7, 0.1], [0.5, 0.4, 0.3], [-2.0, -3.0, -1.0]])
LABELS = np.array([0, 1, 2, 2])


def test_ranks_count_from_zero() -> None:
    assert ranks(SCORES, LABELS).tolist() == [0, 1, 2, 0]


def test_accuracy_is_the_share_among_the_top() -> None:
    assert [accuracy(SCORES, LABELS, top) for top in (1, 2, 3)] == [0.5, 0.75, 1.0]


def test_a_tie_counts_against_the_video() -> None:
    level = np.array([[1.0, 1.0, 0.0], [2.0, 2.0, 2.0]])
    assert ranks(level, np.array([0, 0])).tolist() == [1, 2]
    assert accuracy(level, np.array([0, 0])) == 0.0


def test_equal_scores_for_everything_are_no_success_whatever_the_class() -> None:
    assert accuracy(np.zeros((3, 3)), np.array([0, 1, 2])) == 0.0


def test_nan_is_refused_and_counted_by_video() -> None:
    scores = SCORES.copy()
    scores[1, 0] = scores[1, 2] = scores[3, 1] = np.nan
    with pytest.raises(ValueError, match=r"2 of 4 videos"):
        accuracy(scores, LABELS)


def test_nan_is_refused_where_the_class_of_the_video_has_a_number() -> None:
    with pytest.raises(ValueError, match="NaN"):
        ranks(np.array([[1.0, np.nan]]), np.array([0]))


def test_infinite_scores_are_scores() -> None:
    assert ranks(np.array([[-np.inf, 0.0, np.inf]]), np.array([1])).tolist() == [1]


def test_top_5_of_fewer_than_five_classes_is_everything() -> None:
    assert accuracy(SCORES, LABELS, top=5) == 1.0
    assert accuracy(np.zeros((4, 3)), LABELS, top=5) == 1.0


@pytest.mark.parametrize(("num_classes", "top5"), [(2, None), (5, None), (6, 2 / 3), (7, 2 / 3)])
def test_top_5_is_told_of_six_classes_or_more(num_classes: int, top5: float | None) -> None:
    scores = np.arange(3.0 * num_classes).reshape(3, num_classes)
    # Scores rise with the class: the last is first, the sixth from the end is sixth.
    found = accuracies(scores, np.array([num_classes - 1, num_classes - 2, max(0, num_classes - 6)]))
    assert found["top5"] == top5
    assert found["top1"] == 1 / 3


def test_mean_class_accuracy_weighs_classes_alike() -> None:
    scores = np.array([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [1.0, 0.0]])
    labels = np.array([0, 0, 0, 1])
    assert accuracy(scores, labels) == 0.75
    assert mean_class_accuracy(scores, labels) == 0.5


def test_mean_class_accuracy_leaves_out_classes_without_a_video() -> None:
    scores = np.array([[1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0]])
    assert mean_class_accuracy(scores, np.array([0, 3])) == 1.0
    assert mean_class_accuracy(SCORES, LABELS) == pytest.approx((1 + 0 + 0.5) / 3)


def test_per_class_says_none_for_a_class_without_a_video() -> None:
    assert per_class(np.c_[SCORES, [-9.0] * 4], LABELS, ["a", "b", "c", "d"]) == [
        {"label": "a", "num": 1, "top1": 1.0},
        {"label": "b", "num": 1, "top1": 0.0},
        {"label": "c", "num": 2, "top1": 0.5},
        {"label": "d", "num": 0, "top1": None},
    ]


@pytest.mark.parametrize(
    ("right", "num", "low", "high"),
    [
        (8, 10, 0.4902, 0.9433),
        (0, 10, 0.0, 0.2775),
        (10, 10, 0.7225, 1.0),
        (1, 1, 0.2065, 1.0),
        # Newcombe (1998), table I, method 3.
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_interval_has_the_published_values(right: int, num: int, low: float, high: float) -> None:
    assert wilson_interval(right, num) == pytest.approx((low, high), abs=5e-5)


def test_wilson_interval_is_exact_at_its_ends_and_holds_the_share() -> None:
    for num in (1, 3, 10, 77, 24_777):
        assert wilson_interval(0, num)[0] == 0.0
        assert wilson_interval(num, num)[1] == 1.0
        for right in range(0, num + 1, max(1, num // 7)):
            low, high = wilson_interval(right, num)
            assert 0.0 <= low <= right / num <= high <= 1.0


def test_wilson_interval_of_nothing_is_everything() -> None:
    assert wilson_interval(0, 0) == (0.0, 1.0)


def test_wilson_interval_is_symmetric() -> None:
    low, high = wilson_interval(3, 17)
    assert wilson_interval(14, 17) == pytest.approx((1 - high, 1 - low))


def test_pair_accuracies_tell_the_pair_from_the_direction() -> None:
    pairs = [(0, 1), (2, 3)]
    labels = np.array([0, 1, 2, 3, 0])
    #          right  other direction  right  other pair  other direction
    predicted = np.array([0, 0, 2, 1, 1])
    assert pair_accuracies(predicted, labels, pairs) == (0.8, 0.5)


def test_within_pair_is_none_where_no_answer_is_in_the_right_pair() -> None:
    assert pair_accuracies(np.array([2, 3]), np.array([0, 1]), [(0, 1), (2, 3)]) == (0.0, None)


def test_confusion_has_true_classes_as_rows() -> None:
    table = confusion(np.array([1, 1, 0, 2]), np.array([0, 0, 0, 2]), 4)
    assert table.tolist() == [[1, 2, 0, 0], [0, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]]


def test_an_interval_of_groups_is_wider_where_their_videos_are_right_together() -> None:
    right = np.repeat([1.0, 0.0, 1.0, 1.0, 0.0, 1.0], 10)
    groups = np.repeat(np.arange(6), 10)
    low, high = share_interval(right, groups)
    alone = share_interval(right)
    assert alone == list(wilson_interval(40, 60))
    assert low < alone[0]
    assert high > alone[1]
    # Six draws of six groups, four of which are right: a binomial number out of 6 at 2/3.
    assert low == pytest.approx(2 / 6)
    assert high == pytest.approx(6 / 6)


def test_groups_that_are_all_right_have_the_interval_of_as_many_trials() -> None:
    assert share_interval(np.ones(40), np.repeat(np.arange(4), 10)) == [0.025 ** (1 / 4), 1.0]
    assert share_interval(np.zeros(40), np.repeat(np.arange(4), 10)) == [0.0, 1 - 0.025 ** (1 / 4)]


def test_a_single_group_says_nothing_of_groups_so_its_videos_speak_for_themselves() -> None:
    assert share_interval(np.ones(40), np.zeros(40)) == list(wilson_interval(40, 40))


def test_the_interval_of_a_mean_is_that_of_the_normal_law_where_there_are_many() -> None:
    values = np.random.default_rng(0).normal(2.0, 3.0, 2000)
    low, high = mean_interval(values)
    error = 1.96 * values.std() / np.sqrt(2000)
    assert (low, high) == pytest.approx((values.mean() - error, values.mean() + error), abs=0.15 * error)
