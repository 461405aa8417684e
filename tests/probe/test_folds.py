"""Folds and parts: no group is ever on both sides, and every class is on every side it can be on."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssan.probe.folds import each_group, folds, names_as_numbers, other_items, part


@st.composite
def labelled(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    num = draw(st.integers(2, 60))
    labels = draw(st.lists(st.integers(0, 4), min_size=num, max_size=num))
    groups = draw(st.lists(st.integers(0, 7), min_size=num, max_size=num))
    return np.array(labels), np.array(groups)


@pytest.mark.slow
@settings(deadline=None)
@given(labelled(), st.integers(2, 10), st.integers(0, 5))
def test_every_clip_is_in_one_fold_and_every_group_in_one(
    data: tuple[np.ndarray, np.ndarray], num: int, seed: int
) -> None:
    labels, groups = data
    found = folds(labels, groups, num, seed=seed)
    assert len(found) == min(num, len(np.unique(groups)))
    assert sorted(np.concatenate(found).tolist()) == list(range(len(labels)))
    homes = [set(groups[items].tolist()) for items in found]
    assert all(homes)
    assert sum(map(len, homes)) == len(set.union(*homes))


@pytest.mark.slow
@settings(deadline=None)
@given(labelled(), st.sampled_from([1 / 8, 1 / 4, 1 / 2]), st.integers(0, 5))
def test_a_part_has_whole_groups(data: tuple[np.ndarray, np.ndarray], share: float, seed: int) -> None:
    labels, groups = data
    items = part(labels, groups, share, np.random.default_rng(seed))
    left = other_items(len(labels), items)
    assert len(items) > 0
    assert not set(groups[items].tolist()) & set(groups[left].tolist())


def test_folds_of_clips_have_each_class_alike() -> None:
    labels = np.repeat([0, 1, 2], [10, 5, 20])
    for items in folds(labels, None, 5, seed=3):
        assert np.bincount(labels[items]).tolist() == [2, 1, 4]


def test_folds_of_groups_have_each_class_alike_where_groups_allow_it() -> None:
    """Eight persons, two of whom have shown the rare class: they are dealt into two folds of two."""
    groups = np.repeat(np.arange(8), 3)
    labels = np.zeros(24, dtype=int)
    labels[[0, 9]] = 1
    first, second = folds(labels, groups, 2, seed=1)
    assert [int(labels[items].sum()) for items in (first, second)] == [1, 1]
    assert {len(first), len(second)} == {12}


def test_a_part_of_clips_has_every_class() -> None:
    labels = np.repeat([0, 1, 2], [16, 1, 8])
    items = part(labels, None, 1 / 4, np.random.default_rng(0))
    assert np.bincount(labels[items]).tolist() == [4, 1, 2]


def test_parts_differ_by_the_draw_and_not_otherwise() -> None:
    labels, groups = np.arange(40) % 4, np.arange(40) // 5
    drawn = [part(labels, groups, 1 / 4, np.random.default_rng(seed)).tolist() for seed in (0, 0, 1, 2, 3)]
    assert drawn[0] == drawn[1]
    assert len({tuple(items) for items in drawn}) > 1


def test_each_group_is_left_out_by_its_name() -> None:
    assert names_as_numbers(["b", "a", "b", "c"]).tolist() == [1, 0, 1, 2]
    assert [items.tolist() for items in each_group(np.array([1, 0, 1, 2]))] == [[1], [0, 2], [3]]
