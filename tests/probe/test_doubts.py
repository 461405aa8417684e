"""Each warning by a case, and by one that has no reason for it."""

import numpy as np
import pytest

from ssan.datasets import Sample
from ssan.probe.doubts import (
    doubts_of_classes,
    doubts_of_duplicates,
    doubts_of_folds,
    doubts_of_groups,
    near_duplicates,
)

CLASSES = ["wave", "run", "jump"]


def test_classes_of_one_or_two_clips_are_named_with_their_number() -> None:
    (said,) = doubts_of_classes(np.array([0] * 5 + [1] * 2 + [2]), None, CLASSES)
    assert said.startswith("2 classes have fewer than 3 clips to learn from: 'run' (2), 'jump' (1)")
    assert doubts_of_classes(np.repeat([0, 1, 2], 3), None, CLASSES) == []


def test_a_class_for_training_alone_is_named() -> None:
    (said,) = doubts_of_classes(np.repeat([0, 1, 2], 3), np.array([0, 2]), CLASSES)
    assert "1 class is for training alone, so nothing is measured of it: 'run'" in said


def test_a_class_that_one_group_alone_has_shown_cannot_be_answered_when_it_is_left_out() -> None:
    labels, items = np.array([0, 1, 0, 1, 0, 2]), np.arange(6)
    splits = [(items[2:], items[:2]), (np.array([0, 1, 4, 5]), items[2:4]), (items[:4], items[4:])]
    (said,) = doubts_of_folds(splits, labels, CLASSES)
    assert said.startswith("1 class has all clips in one fold or group, so that 1 clips")
    assert said.endswith("'jump'")
    assert doubts_of_folds(splits, np.array([0, 1] * 3), CLASSES) == []


def test_persons_on_both_sides_are_counted_and_named() -> None:
    (said,) = doubts_of_groups(["ann", "bob", "bob"], ["bob", "cy", "bob"])
    assert said.startswith("1 group is in training and in testing too ('bob'): 2 of 3 test clips")
    assert doubts_of_groups(["ann", "bob"], ["cy", "dan"]) == []


def test_a_side_of_one_person_is_said() -> None:
    assert doubts_of_groups(["ann", "ann"], ["cy", "dan"]) == ["all clips for training are of one group, 'ann'"]
    assert doubts_of_groups(["ann", "bob"], ["cy", "cy"]) == ["all clips for testing are of one group, 'cy'"]


def rows_with_copies(num: int, copies: dict[int, int], noise: float) -> np.ndarray:
    rng = np.random.default_rng(0)
    rows = 100.0 + rng.normal(size=(num, 16))
    for one, other in copies.items():
        rows[other] = rows[one] + noise * rng.normal(size=16)
    return rows


def test_near_duplicates_across_sides_are_found_the_nearest_first() -> None:
    sides = np.arange(20) % 2
    rows = rows_with_copies(20, {0: 5}, 0.1)
    rows[7] = rows[12]
    found, threshold = near_duplicates(rows, sides)
    assert [pair[:2] for pair in found] == [(7, 12), (0, 5)]
    assert 0.9 < threshold < found[1][2] < found[0][2] <= 1.0


@pytest.mark.parametrize("noise", [1.0, 0.1])
def test_the_threshold_is_relative_clips_that_are_all_close_are_none(noise: float) -> None:
    """The same cloud, ten times as tight around a common look: nothing in it stands out."""
    rows = 100.0 + noise * np.random.default_rng(1).normal(size=(30, 16))
    assert near_duplicates(rows, np.arange(30) % 2)[0] == []


def test_copies_on_one_side_are_no_matter() -> None:
    assert near_duplicates(rows_with_copies(20, {0: 4}, 0.0), np.arange(20) % 2)[0] == []
    assert near_duplicates(np.ones((3, 4)), np.zeros(3))[0] == []


def test_large_sets_are_compared_in_pieces_and_nothing_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, sides = rows_with_copies(40, {3: 8, 11: 30}, 0.05), np.arange(40) % 2
    whole = near_duplicates(rows, sides)
    monkeypatch.setattr("ssan.probe.doubts._AT_ONCE", 40 * 7)
    pieces = near_duplicates(rows, sides)
    assert [pair[:2] for pair in whole[0]] == [(3, 8), (11, 30)]
    assert [pair[:2] for pair in pieces[0]] == [pair[:2] for pair in whole[0]]
    assert pieces[1] == pytest.approx(whole[1], abs=1e-5)


def test_they_are_told_with_their_number_the_first_and_the_rule() -> None:
    samples = [Sample(str(n), f"clips/{n}.webm") for n in range(20)]
    (said,) = doubts_of_duplicates(rows_with_copies(20, {0: 5}, 0.0), np.arange(20) % 2, samples, "the split")
    assert said.startswith("1 pair of near duplicates across the split (cosine of the features above 0.9")
    assert "first clips/0.webm and clips/5.webm (1.0000)" in said
