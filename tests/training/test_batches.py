"""Batches are a function of seed, epoch, position and process, and a run goes on where it stopped."""

import functools
import multiprocessing.reduction
import os
import signal
import warnings
from collections import Counter
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import Dataset

from ssan.errors import SsanError, TrainingError, UsageError, VideoError
from ssan.training import workers as workers_module
from ssan.training.batches import Batches, BatchPlan, Draw, DrawAgain

SIZES = [(7, 3), (12, 4), (13, 4), (1, 5), (64, 64), (65, 64), (101, 8), (9, 1)]


def _plan(
    num_items: int, batch: int, *, epoch: int = 0, shuffle: bool = True, seed: int = 0, **where: int
) -> BatchPlan:
    plan = BatchPlan(num_items, batch, seed=seed, shuffle=shuffle, **where)
    plan.epoch = epoch
    return plan


def _items(plan: BatchPlan) -> list[list[int]]:
    return [[draw.item for draw in batch] for batch in plan]


@pytest.mark.parametrize(("num_items", "batch"), SIZES)
def test_every_epoch_has_every_item_once(num_items: int, batch: int) -> None:
    for epoch in range(3):
        items = list(chain(*_items(_plan(num_items, batch, epoch=epoch))))
        assert sorted(items) == list(range(num_items))


@pytest.mark.parametrize(("num_items", "batch"), SIZES)
def test_no_batch_is_a_small_rest(num_items: int, batch: int) -> None:
    plan = _plan(num_items, batch)
    sizes = [len(items) for items in _items(plan)]
    assert len(sizes) == len(plan) == -(-num_items // batch)
    assert max(sizes) <= batch
    assert max(sizes) - min(sizes) <= 1


def test_an_epoch_is_drawn_from_seed_and_epoch_alone() -> None:
    torch.manual_seed(1)
    once = _items(_plan(50, 8, epoch=3, seed=5))
    torch.manual_seed(2)
    later = _plan(50, 8, seed=5)
    for _ in range(2):
        list(later)  # whatever was drawn before
    later.epoch = 3
    assert _items(later) == once


def test_epochs_and_seeds_differ() -> None:
    orders = [_items(_plan(50, 8, epoch=epoch, seed=seed)) for epoch in range(3) for seed in range(3)]
    assert all(a != b for place, a in enumerate(orders) for b in orders[:place])


def test_the_draw_says_the_epoch() -> None:
    assert {draw.epoch for batch in _plan(5, 2, epoch=4) for draw in batch} == {4}


def test_validation_is_in_the_order_of_the_list() -> None:
    assert _items(_plan(7, 3, shuffle=False, epoch=2)) == [[0, 1, 2], [3, 4], [5, 6]]


@pytest.mark.parametrize(("num_items", "batch"), [(24, 4), (101, 8), (10, 1), (9, 2), (64, 3)])
def test_two_processes_together_have_the_batches_of_one(num_items: int, batch: int) -> None:
    alone = _items(_plan(num_items, 2 * batch, epoch=1))
    pair = [_items(_plan(num_items, batch, epoch=1, rank=rank, world=2)) for rank in range(2)]
    assert len(pair[0]) == len(pair[1]) == len(alone)
    for whole, first, second in zip(alone, *pair, strict=True):
        assert len(first) - len(second) in (0, 1)
        assert (first, second) == (whole[::2], whole[1::2])


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("world", [1, 2, 3, 4])
@pytest.mark.parametrize(("num_items", "batch"), [(24, 4), (101, 8), (11, 1), (5, 1), (4, 9), (7, 2)])
def test_an_epoch_has_every_item_once_over_all_processes(num_items: int, batch: int, world: int, shuffle: bool) -> None:
    plans = [_plan(num_items, batch, shuffle=shuffle, rank=rank, world=world) for rank in range(world)]
    items = list(chain(*chain(*(_items(plan) for plan in plans))))
    assert sorted(items) == list(range(num_items))


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("world", [2, 3, 4])
def test_no_process_ever_gets_an_empty_batch(world: int, shuffle: bool) -> None:
    for num_items in range(world, 40):
        for batch in (1, 2, 3):
            for rank in range(world):
                plan = _plan(num_items, batch, shuffle=shuffle, rank=rank, world=world)
                sizes = [len(items) for items in _items(plan)]
                assert len(sizes) == len(plan)
                assert min(sizes) >= 1
                assert max(sizes) <= max(batch, 2)


@pytest.mark.parametrize("world", [1, 2, 3, 4])
def test_weighted_means_of_the_processes_average_to_the_mean_of_the_batch(world: int) -> None:
    for num_items in range(world, 40):
        plans = [_plan(num_items, 2, rank=rank, world=world) for rank in range(world)]
        for position, shares in enumerate(zip(*(_items(plan) for plan in plans), strict=True)):
            means = [sum(own) / len(own) * plan.weights()[position] for own, plan in zip(shares, plans, strict=True)]
            whole = list(chain(*shares))
            assert sum(means) / world == pytest.approx(sum(whole) / len(whole))


def test_more_processes_than_videos_are_refused() -> None:
    with pytest.raises(UsageError, match=r"3 videos cannot be shared among 4 processes; use fewer"):
        BatchPlan(3, 8, world=4)


# Of 13 items 8 have class 0, 1 has class 4, 4 have class 2; 13 over 3 classes is 4 each, and one more of one of them.
UNEVEN = [0, 0, 2, 0, 4, 0, 2, 0, 0, 2, 0, 2, 0]


def _even(epoch: int, *, seed: int = 0, rank: int = 0, world: int = 1, batch: int = 4) -> BatchPlan:
    plan = BatchPlan(len(UNEVEN), batch, seed=seed, shuffle=True, rank=rank, world=world, classes=UNEVEN)
    plan.epoch = epoch
    return plan


def test_an_epoch_that_draws_classes_evenly_has_as_many_of_each() -> None:
    one_more, of_the_large = Counter[int](), Counter[int]()
    for epoch in range(60):
        items = [draw.item for batch in _even(epoch) for draw in batch]
        assert len(items) == len(UNEVEN)
        num = Counter(UNEVEN[item] for item in items)
        assert sorted(num.values()) == [4, 4, 5]
        one_more[max(num, key=lambda label: num[label])] += 1
        times = Counter(items)
        assert all(times[item] <= 1 for item in range(13) if UNEVEN[item] == 0)  # fewer are drawn than there are
        assert {times[item] for item in (2, 6, 9, 11)} in ({1}, {1, 2})  # each of the four, one of them twice at most
        assert times[4] == num[4]  # the only one, each time
        of_the_large.update(item for item in items if UNEVEN[item] == 0)
    assert set(one_more) == {0, 2, 4}
    assert set(of_the_large) == {item for item in range(13) if UNEVEN[item] == 0}


def test_what_is_drawn_again_in_an_epoch_is_told_apart() -> None:
    draws = [draw for batch in _even(3) for draw in batch]
    assert len(set(draws)) == len(draws)
    only = [draw for draw in draws if draw.item == 4]
    assert only[0] == Draw(3, 4)
    assert only[1:] == [DrawAgain(3, 4, n) for n in range(1, len(only))]


def test_an_even_epoch_depends_on_seed_and_epoch_alone_and_goes_on_in_its_middle() -> None:
    def drawn(plan: BatchPlan) -> list[Any]:
        return list(plan)

    assert drawn(_even(2)) == drawn(_even(2))
    assert drawn(_even(2)) != drawn(_even(3))
    assert drawn(_even(2)) != drawn(_even(2, seed=1))
    later = _even(2)
    later.position = 2
    assert drawn(later) == drawn(_even(2))[2:]


def test_an_even_epoch_is_shared_by_processes_as_any() -> None:
    alone = list(_even(1, batch=6))
    pair = [list(_even(1, batch=3, rank=rank, world=2)) for rank in range(2)]
    assert [[whole[::2], whole[1::2]] for whole in alone] == [list(shares) for shares in zip(*pair, strict=True)]


# ---------------------------------------------------------------------------------------------------- the loader


class _Echo(Dataset[tuple[int, int]]):
    """Gives back what it was asked for."""

    def __getitem__(self, draw: Draw) -> tuple[int, int]:
        return tuple(draw)


def _as_list(items: list[tuple[int, int]]) -> list[tuple[int, int]]:
    return items


def _quietly(batches: Batches) -> Iterator[list[tuple[int, int]]]:
    """An epoch of a loader; newer interpreters warn of every fork from a process with threads."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*fork", category=DeprecationWarning)
        yield from batches


def _batches(workers: int = 0) -> Batches:
    return Batches(_Echo(), BatchPlan(23, 4, seed=3, shuffle=True), workers=workers, collate=_as_list)


@functools.cache
def _three_epochs() -> tuple[tuple[tuple[int, int], ...], ...]:
    batches = _batches()
    return tuple(tuple(batch) for _ in range(3) for batch in batches)


def test_epochs_follow_one_another_by_themselves() -> None:
    assert Counter(epoch for batch in _three_epochs() for epoch, _ in batch) == {0: 23, 1: 23, 2: 23}
    assert [len(batch) for batch in _three_epochs()[:6]] == [4, 4, 4, 4, 4, 3]


def test_the_position_counts_batches_handed_out_and_not_those_prepared_ahead() -> None:
    batches = _batches(workers=1)
    for number, _ in enumerate(_quietly(batches), start=1):
        assert batches.state_dict() == {"epoch": 0, "position": number}


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("position", [0, 2, 6])
def test_resuming_yields_exactly_the_batches_that_remain_and_then_the_next_epoch(workers: int, position: int) -> None:
    before = _batches()
    for number, _ in enumerate(before, start=1):
        if number == position:
            break
    state = before.state_dict() if position else {"epoch": 0, "position": 0}
    assert state["position"] == position

    after = _batches(workers)
    after.load_state_dict(state)
    seen = [tuple(batch) for _ in range(2) for batch in _quietly(after)]
    # At the end of an epoch the two epochs are the next two.
    wanted = _three_epochs()[position : 18 if position == 6 else 12]
    assert seen == list(wanted)


def test_an_epoch_left_early_goes_on_where_it_was_left() -> None:
    batches = _batches(workers=1)
    seen = []
    for batch in _quietly(batches):
        seen.append(tuple(batch))
        if len(seen) == 2:
            break
    seen += [tuple(batch) for batch in _quietly(batches)]
    assert seen == list(_three_epochs()[:6])


def test_one_worker_gives_what_none_gives() -> None:
    batches = _batches(workers=1)
    assert [tuple(batch) for _ in range(3) for batch in _quietly(batches)] == list(_three_epochs())


# ------------------------------------------------------------------------------------------------------- the workers


@pytest.fixture
def _looked_after_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch looks every five seconds whether a worker that says nothing is alive still."""
    looks = torch.utils.data.dataloader._MultiProcessingDataLoaderIter._try_get_data
    monkeypatch.setattr(looks, "__defaults__", (0.2,))


FORKS = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")


class _Pictures(Dataset[Any]):
    """Tensors of several kinds, one of them a view with strides of its own."""

    def __getitem__(self, draw: Draw) -> dict[str, Any]:
        frames = torch.arange(4 * 50 * 60 * 3, dtype=torch.uint8).reshape(4, 50, 60, 3) + draw.item
        return {
            "view": frames.permute(0, 3, 1, 2)[1:, :, 3:40, 2:],
            "numbers": torch.full((3,), draw.item / 7, dtype=torch.float64),
            "none": torch.zeros(0, 5),
            "name": f"item {draw.item}",
        }


@FORKS
def test_what_a_worker_makes_is_equal_in_value_type_and_strides_and_needs_no_place_in_dev_shm() -> None:
    plan = BatchPlan(3, 2)
    made, here = (list(chain(*_quietly(Batches(_Pictures(), plan, workers=w, collate=_as_list)))) for w in (1, 0))
    for item, same in zip(made, here, strict=True):
        assert item["name"] == same["name"]
        for key in ("view", "numbers", "none"):
            assert torch.equal(item[key], same[key])
            assert (item[key].dtype, item[key].stride()) == (same[key].dtype, same[key].stride())
        if hasattr(os, "memfd_create"):
            assert not item["view"].is_shared()  # as what torch passes on is
        item["view"][0, 0, 0, 0] += 1  # it can be written to


class _Gone(Dataset[Any]):
    def __getitem__(self, draw: Draw) -> int:
        if draw.item == 3:
            raise VideoError("no such file", code="missing", path="a/b.mp4")
        return draw.item


@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=FORKS)])
def test_a_video_that_is_gone_is_the_same_error_from_a_worker_as_from_this_process(workers: int) -> None:
    with pytest.raises(VideoError) as caught:
        list(_quietly(Batches(_Gone(), BatchPlan(6, 2), workers=workers, collate=_as_list)))
    assert caught.value.as_dict() == {"path": "a/b.mp4", "code": "missing", "message": "no such file", "line": None}


class _Killed(Dataset[tuple[int, int]]):
    """Kills the process that it is read in as often as it is told to, at item 9."""

    def __init__(self, folder: Path, times: int) -> None:
        self.folder, self.times = folder, times

    def __getitem__(self, draw: Draw) -> tuple[int, int]:
        if draw.item == 9 and len(list(self.folder.iterdir())) < self.times:
            (self.folder / str(os.getpid())).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return tuple(draw)


@pytest.mark.slow
@FORKS
@pytest.mark.usefixtures("_looked_after_at_once")
def test_a_worker_that_is_killed_is_started_anew_and_nothing_is_left_out_or_given_twice(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    batches = Batches(_Killed(tmp_path, 1), BatchPlan(23, 4, seed=3, shuffle=True), workers=2, collate=_as_list)
    assert [tuple(batch) for batch in _quietly(batches)] == list(_three_epochs()[:6])
    assert (batches.num_restarts, len(list(tmp_path.iterdir()))) == (1, 1)
    said = capfd.readouterr().err
    assert "a process that reads videos, ended by SIGKILL; starting anew" in said


@pytest.mark.slow
@FORKS
@pytest.mark.usefixtures("_looked_after_at_once")
def test_workers_killed_twice_at_the_same_batch_are_an_error_that_says_what_helps(tmp_path: Path) -> None:
    batches = Batches(_Killed(tmp_path, 9), BatchPlan(23, 4), workers=1, collate=_as_list)
    with pytest.raises(TrainingError, match=r"worker 1 of 1.*ended by SIGKILL, twice.*fewer --workers"):
        list(_quietly(batches))
    assert batches.state_dict()["position"] <= 2  # and not beyond what was handed out


@pytest.mark.slow
@FORKS
@pytest.mark.usefixtures("_looked_after_at_once")
@pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="this system has no files in memory")
def test_a_worker_that_cannot_hand_on_its_batch_ends_and_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(file: int) -> Any:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(multiprocessing.reduction, "DupFd", full)
    with pytest.raises(TrainingError, match="could not hand on what it had read, twice"):
        list(_quietly(Batches(_Pictures(), BatchPlan(3, 2), workers=1, collate=_as_list)))


@pytest.mark.skipif(not os.path.isdir("/dev/shm"), reason="this system has no such place")
def test_too_little_room_for_workers_is_told_with_the_place_its_size_and_what_helps(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = os.statvfs("/dev/shm")
    full = os.statvfs_result([real.f_bsize, real.f_frsize, real.f_blocks, 0, 0, *real[5:]])
    monkeypatch.setattr(os, "statvfs", lambda path: full)
    with pytest.raises(SsanError, match=r"2 processes .*/dev/shm has .* MB, of which 0 are free.*--shm-size") as caught:
        list(Batches(_Echo(), BatchPlan(3, 2), workers=2))
    assert (caught.value.code, caught.value.path) == ("no_space", workers_module.SHARED)
