"""Which frames are looked at: numbers worked out by hand, and no frame out of reach."""

import random

import numpy as np
import pytest

from ssan.errors import UsageError, VideoError
from ssan.video.preprocess import dense_indices, dense_moments, segment_indices


class Fixed:
    """A source of chance that always says the same."""

    def __init__(self, value: float) -> None:
        self.value = value

    def random(self) -> float:
        return self.value


NEARLY_ONE = 1 - 2**-53


def test_one_view_takes_the_middle_of_every_part() -> None:
    assert segment_indices(10, 4, rng=None) == [1, 3, 6, 8]  # 1.25 3.75 6.25 8.75
    assert segment_indices(80, 8, rng=None) == [5, 15, 25, 35, 45, 55, 65, 75]
    assert segment_indices(30, 3, rng=None) == [5, 15, 25]
    assert segment_indices(7, 1, rng=None) == [3]


def test_two_views_take_a_quarter_and_three_quarters_of_every_part() -> None:
    assert segment_indices(10, 4, rng=None, view=0, num_views=2) == [0, 3, 5, 8]  # 0.625 3.125 5.625 8.125
    assert segment_indices(10, 4, rng=None, view=1, num_views=2) == [1, 4, 6, 9]  # 1.875 4.375 6.875 9.375


@pytest.mark.parametrize(("num_segments", "num_views"), [(8, 2), (8, 10), (3, 5), (1, 10)])
def test_views_have_no_frame_in_common_when_there_are_frames_enough(num_segments: int, num_views: int) -> None:
    for num_frames in (num_segments * num_views, num_segments * num_views + 1, 173):
        views = [
            segment_indices(num_frames, num_segments, rng=None, view=v, num_views=num_views) for v in range(num_views)
        ]
        for frames in zip(*views, strict=True):
            assert list(frames) == sorted(set(frames))
        assert all(0 <= frame < num_frames for view in views for frame in view)


def test_training_takes_the_given_point_of_every_part() -> None:
    assert segment_indices(10, 4, rng=Fixed(0.0)) == [0, 2, 5, 7]  # 0 2.5 5 7.5
    assert segment_indices(10, 4, rng=Fixed(0.8)) == [2, 4, 7, 9]  # 2 4.5 7 9.5
    assert segment_indices(10, 4, rng=Fixed(NEARLY_ONE)) == [2, 4, 7, 9]


def test_training_draws_one_frame_of_each_part_independently() -> None:
    draws = {tuple(segment_indices(20, 2, rng=np.random.default_rng(seed))) for seed in range(200)}
    assert all(0 <= first < 10 <= second < 20 for first, second in draws)
    assert len({second - first for first, second in draws}) > 5


@pytest.mark.parametrize(("num_frames", "num_segments"), [(11, 4), (23, 8), (8, 8), (5, 8), (1, 8), (17, 1)])
def test_every_frame_can_be_drawn_in_training(num_frames: int, num_segments: int) -> None:
    rng = np.random.default_rng(0)
    drawn = {frame for _ in range(1000) for frame in segment_indices(num_frames, num_segments, rng=rng)}
    assert drawn == set(range(num_frames))


def test_the_last_frames_are_drawn_as_often_as_the_first() -> None:
    rng = np.random.default_rng(0)
    drawn = np.bincount([f for _ in range(4000) for f in segment_indices(15, 8, rng=rng)], minlength=15)
    assert drawn.min() > 0.9 * drawn.mean()
    assert drawn.max() < 1.1 * drawn.mean()


def test_a_short_video_repeats_frames_in_order() -> None:
    assert segment_indices(3, 8, rng=None) == [0, 0, 0, 1, 1, 2, 2, 2]
    assert segment_indices(1, 4, rng=None) == [0, 0, 0, 0]
    drawn = segment_indices(3, 8, rng=np.random.default_rng(1))
    assert drawn == sorted(drawn)
    assert len(drawn) == 8


def test_the_same_seed_draws_the_same_frames_from_either_source_of_chance() -> None:
    for source in (np.random.default_rng, random.Random):
        assert segment_indices(100, 8, rng=source(3)) == segment_indices(100, 8, rng=source(3))
        assert segment_indices(100, 8, rng=source(3)) != segment_indices(100, 8, rng=source(4))
        assert all(type(frame) is int for frame in segment_indices(100, 8, rng=source(3)))


def test_dense_views_start_evenly_from_the_first_start_to_the_last() -> None:
    assert dense_indices(10, 3, stride=3, rng=None, view=0, num_views=3) == [0, 3, 6]
    assert dense_indices(10, 3, stride=3, rng=None, view=1, num_views=3) == [1, 4, 7]
    assert dense_indices(10, 3, stride=3, rng=None, view=2, num_views=3) == [3, 6, 9]
    assert dense_indices(300, 8, stride=8, rng=None, view=9, num_views=10)[-1] == 299
    starts = [dense_indices(300, 8, stride=8, rng=None, view=view, num_views=10)[0] for view in range(10)]
    assert starts == [0, 27, 54, 81, 108, 135, 162, 189, 216, 243]


def test_one_dense_view_is_the_middle_one() -> None:
    assert dense_indices(100, 4, stride=5, rng=None) == [42, 47, 52, 57]  # starts 0 to 84


def test_a_dense_window_that_the_video_does_not_fill_repeats_the_last_frame() -> None:
    assert dense_indices(5, 4, stride=2, rng=Fixed(0.0)) == [0, 2, 4, 4]
    assert dense_indices(5, 4, stride=2, rng=Fixed(NEARLY_ONE)) == [1, 3, 4, 4]
    assert dense_indices(1, 4, stride=2, rng=Fixed(NEARLY_ONE)) == [0, 0, 0, 0]


@pytest.mark.parametrize(
    ("num_frames", "stride"), [(40, 3), (24, 3), (22, 3), (10, 3), (2, 3), (1, 3), (9, 1), (64, 8)]
)
def test_every_frame_can_be_drawn_in_dense_training(num_frames: int, stride: int) -> None:
    rng = np.random.default_rng(0)
    drawn = {frame for _ in range(1000) for frame in dense_indices(num_frames, 8, stride=stride, rng=rng)}
    assert drawn == set(range(num_frames))


def test_what_cannot_be_sampled_says_so() -> None:
    with pytest.raises(VideoError, match="0 frames") as caught:
        segment_indices(0, 8, rng=None)
    assert caught.value.code == "too_few_frames"
    with pytest.raises(UsageError, match="view 2 of 2"):
        segment_indices(10, 8, rng=None, view=2, num_views=2)
    with pytest.raises(UsageError, match="1 or more"):
        segment_indices(10, 0, rng=None)
    with pytest.raises(UsageError, match="stride"):
        dense_indices(10, 8, stride=0, rng=None)


def test_moments_by_hand() -> None:
    """2 s, 3 moments half a second apart: the last begins at 1.75 s at the latest, so the first between 0 and 0.75."""
    how = {"stride": 2, "frames_per_second": 4}
    assert dense_moments(2.0, 3, **how, rng=None) == [0.375, 0.875, 1.375]
    views = [dense_moments(2.0, 3, **how, rng=None, view=view, num_views=3) for view in range(3)]
    assert views == [[0.0, 0.5, 1.0], [0.375, 0.875, 1.375], [0.75, 1.25, 1.75]]
    assert dense_moments(2.0, 3, **how, rng=Fixed(0.0)) == [0.0, 0.5, 1.0]
    assert dense_moments(2.0, 3, **how, rng=Fixed(0.5)) == [0.5, 1.0, 1.5]  # any of the first second
    assert dense_moments(0.2, 3, **how, rng=Fixed(0.5)) == [0.1, 0.6, 1.1]  # a short one still has all its frames
    assert dense_moments(0.2, 2, **how, rng=None) == [0.0, 0.5]


@pytest.mark.parametrize(
    ("num_frames", "num", "stride"), [(300, 64, 1), (64, 64, 1), (63, 64, 1), (97, 8, 8), (5, 8, 3)]
)
@pytest.mark.parametrize("rate", [25.0, 30000 / 1001, 10.0])
def test_at_a_videos_own_rate_moments_show_the_frames_of_dense_sampling(
    num_frames: int, num: int, stride: int, rate: float
) -> None:
    def shown(moments: list[float]) -> list[int]:
        return [min(int(moment * rate + 1e-6), num_frames - 1) for moment in moments]

    lasts, how = num_frames / rate, {"stride": stride, "frames_per_second": rate}
    for view, num_views in [(0, 1), (0, 3), (1, 3), (2, 3)]:
        at = {"rng": None, "view": view, "num_views": num_views}
        assert shown(dense_moments(lasts, num, **how, **at)) == dense_indices(num_frames, num, stride=stride, **at)
    for seed in range(20):
        drawn, indices = (
            make(np.random.default_rng(seed))
            for make in (
                lambda rng: shown(dense_moments(lasts, num, **how, rng=rng)),
                lambda rng: dense_indices(num_frames, num, stride=stride, rng=rng),
            )
        )
        assert drawn == indices


def test_moments_that_make_no_sense_are_refused() -> None:
    for stride, rate in [(0, 25.0), (1, 0.0), (1, -1.0), (1, float("nan"))]:
        with pytest.raises(UsageError, match="a rate above 0"):
            dense_moments(2.0, 3, stride=stride, frames_per_second=rate, rng=None)
