"""Which frames of a video to look at: arithmetic on frame numbers, which count from 0."""

import math
from typing import Protocol

from ssan.errors import UsageError, VideoError


class Random(Protocol):
    """What is asked of a source of chance: ``numpy.random.Generator`` and ``random.Random`` both have it."""

    def random(self) -> float:
        """A number in [0, 1)."""
        ...


def segment_indices(
    num_frames: int, num_segments: int, *, rng: Random | None, view: int = 0, num_views: int = 1
) -> list[int]:
    """One frame out of each of ``num_segments`` equal parts of the video (TSN's sampling).

    Part i of s is the stretch [i * n / s, (i + 1) * n / s) of a video of n frames. Its ends need not be whole numbers.
    In training (``rng`` given; ``view`` is then ignored) every part gives the frame at a random point of it. In testing
    view v of V takes the point (v + 1/2) / V of every part: one view is the middle, and views differ from one another
    wherever a part has a frame for each of them, that is from s * V frames on. 10 frames in 4 parts:

        frame  | 0 | 1 | 2 | 3 | 4 | 5 | 6 | 7 | 8 | 9 |
        part   |----0----|----1----|----2----|----3----|
        1 view       1       3           6       8          the middles
        2 views  0           3       5           8          view 0
                     1           4       6           9      view 1

    Every frame can be drawn in training. A video with fewer frames than parts gives some frames more than once.

    How we differ from TSM's code: there a part has floor(n / s) frames, so the last n mod s are never drawn; a short
    video gives sorted random draws, and a very short one its first frame s times; testing has one view.
    """
    _check(num_frames, num_segments, view, num_views)
    if rng is not None:
        # The bound is the last frame that begins before the part's end, where rounding could carry the product.
        return [
            min(int((i + rng.random()) * num_frames / num_segments), ((i + 1) * num_frames - 1) // num_segments)
            for i in range(num_segments)
        ]
    point, points = 2 * view + 1, 2 * num_views
    return [(i * points + point) * num_frames // (points * num_segments) for i in range(num_segments)]


def dense_indices(
    num_frames: int, num_segments: int, *, stride: int, rng: Random | None, view: int = 0, num_views: int = 1
) -> list[int]:
    """Every ``stride``-th frame, ``num_segments`` of them, from one start (the sampling usual on Kinetics).

    In training (``rng`` given; ``view`` is then ignored) the start is any from which the video lasts until the last
    frame. In testing one view starts in the middle of those starts; several are spread evenly over them, the first
    and the last included. 10 frames, 3 of them with stride 3, so starts 0 to 3:

        frame       0  1  2  3  4  5  6  7  8  9
        view 0      x        x        x
        view 1         x        x        x
        view 2               x        x        x

    Every frame can be drawn in training: a video shorter than ``num_segments * stride`` frames still has ``stride``
    starts (or as many as it has frames), and repeats its last frame where it does not last.

    How we differ from TSM's code: there a short video begins again from its first frame, and starts leave the last
    ``stride - 1`` frames out of reach.
    """
    _check(num_frames, num_segments, view, num_views)
    if stride < 1:
        raise UsageError(f"the stride between frames is {stride}; expected 1 or more")
    num_starts = max(num_frames - (num_segments - 1) * stride, min(stride, num_frames))
    if rng is not None:
        start = min(int(rng.random() * num_starts), num_starts - 1)
    elif num_views == 1:
        start = (num_starts - 1) // 2
    else:
        start = view * (num_starts - 1) // (num_views - 1)
    return [min(start + i * stride, num_frames - 1) for i in range(num_segments)]


def sliding_windows(
    duration_seconds: float, *, window_seconds: float, stride_seconds: float
) -> list[tuple[float, float]]:
    """Windows that slide over a video, [start, end) in seconds from its beginning, until one reaches its end.

    The last one ends with the video, and is shorter where the strides do not fit. 10 seconds, windows of 4, stride 3:

        seconds    0  1  2  3  4  5  6  7  8  9  10
        windows    |--------0--|
                            |--------1--|
                                     |--------2--|
    """
    if not (window_seconds > 0 and stride_seconds > 0):
        raise UsageError(f"windows of {window_seconds:g} s every {stride_seconds:g} s; expected lengths above 0")
    num_more = max(0, math.ceil((duration_seconds - window_seconds) / stride_seconds - 1e-9))
    starts = [number * stride_seconds for number in range(num_more + 1)]
    # Strides longer than windows leave gaps, and the end can be in one.
    return [(s, min(s + window_seconds, duration_seconds)) for s in starts if s == 0 or s < duration_seconds]


def _check(num_frames: int, num_segments: int, view: int, num_views: int) -> None:
    if num_frames < 1:
        raise VideoError(f"the video has {num_frames} frames; expected at least one", code="too_few_frames")
    if num_segments < 1:
        raise UsageError(f"{num_segments} frames of a video were asked for; expected 1 or more")
    if not 0 <= view < num_views:
        raise UsageError(f"view {view} of {num_views} was asked for; views count from 0")
