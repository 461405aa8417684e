"""Windows that slide over a video, and other clips of one: each frame is decoded as seldom as the file allows."""

import time
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import replace

from ssan.errors import UsageError, VideoError
from ssan.video.clip import Clip, Resize, Video

MOST_TOGETHER = 16
"""Of windows that overlap, so many are read at a time: their frames are in memory together."""

FAULTS_SECONDS = 300.0
"""By the clock, what windows that cannot be read may cost of a video before those after them are given up untried."""


def read_windows(video: Video, windows: Sequence[Sequence[int]], *, resize: Resize | None = None) -> Iterator[Clip]:
    """Read the frames of each window, in the order of the windows, which must be that of their first frames.

    Of a file in which decoding can begin anywhere, only what the windows need is decoded, and of windows that overlap
    each frame once, several windows at a time. Any other is decoded once, from its beginning to the end of the last
    window, and of its frames those are kept that a later window needs.

    :param windows: frame numbers, ascending in each window.
    :raises VideoError: a frame cannot be had; all windows before it have been given then.
    """
    firsts = [window[0] for window in windows if len(window)]
    if len(firsts) < len(windows) or firsts != sorted(firsts) or any(list(w) != sorted(w) for w in windows):
        raise UsageError("windows must hold frames, ascending, and come in the order of their first frames")
    if video.random_access:
        for group in _overlapping(windows):
            yield from _read_together(video, group, resize)
        return
    from torch import Tensor, stack

    kept: dict[int, tuple[Tensor, float, float]] = {}
    waiting = 0  # the first window that has not been given
    for clip in video.stream(resize=resize):
        begun = windows[waiting : bisect_right(firsts, clip.indices[-1])]
        needed = {index for window in begun for index in window}
        # Of frames that pass once: what a window that has begun needs is kept until that window is whole.
        for position, index in enumerate(clip.indices):
            if index in needed:
                # A copy, so that the frames around it are not kept in memory too.
                kept[index] = (
                    clip.frames[position].clone(),
                    clip.times_seconds[position],
                    clip.durations_seconds[position],
                )
        # In their order, as many as this piece has completed: several can end in it, or none.
        while waiting < len(windows) and windows[waiting][-1] <= clip.indices[-1]:
            frames, times, durations = zip(*(kept[index] for index in windows[waiting]), strict=True)
            yield Clip(
                frames=stack([frame.permute(1, 2, 0) for frame in frames]).permute(0, 3, 1, 2),
                indices=tuple(int(index) for index in windows[waiting]),
                times_seconds=times,
                durations_seconds=durations,
                num_frames=video.num_frames,
                num_promised=video.num_promised,
                duration_seconds=video.duration_seconds,
                path=video.path,
            )
            waiting += 1
        if waiting == len(windows):
            return
        kept = {index: frame for index, frame in kept.items() if index >= windows[waiting][0]}
    if waiting < len(windows):
        yield video.read(windows[waiting], resize=resize)  # which says what is wrong with it


def read_each_window(
    video: Video, windows: Sequence[Sequence[int]], *, resize: Resize | None = None
) -> Iterator[Clip | VideoError]:
    """As ``read_windows``, but what cannot be read of a window stands in its place, and those after it are read.

    Where a frame takes the decoding of all before it, what lies in the way of one window does so of all later ones:
    they have the same error. So have those left over when faults have taken ``FAULTS_SECONDS``.
    """
    coming, done, lost_seconds = read_windows(video, windows, resize=resize), 0, 0.0
    while done < len(windows):
        began = time.monotonic()
        try:
            clip = next(coming)
        except VideoError as error:
            done, lost_seconds = done + 1, lost_seconds + time.monotonic() - began
            yield error
            if not video.random_access or lost_seconds > FAULTS_SECONDS:
                yield from [error] * (len(windows) - done)
                return
            coming = read_windows(video, windows[done:], resize=resize)
        else:
            done += 1
            yield clip


def _overlapping(windows: Sequence[Sequence[int]]) -> Iterator[list[Sequence[int]]]:
    """Windows in groups: those that begin before an earlier one of the group has ended, a few at most."""
    group: list[Sequence[int]] = []
    last = -1
    # A frame is decoded once for all windows of a group, whose frames are in memory at a time: hence a few at most.
    for window in windows:
        if group and (window[0] > last or len(group) == MOST_TOGETHER):
            yield group
            group = []
        group.append(window)
        last = max(last, window[-1]) if len(group) > 1 else window[-1]
    if group:
        yield group


def _read_together(video: Video, windows: list[Sequence[int]], resize: Resize | None) -> Iterator[Clip]:
    """The clip of each window, of frames that are decoded once for all of them."""
    try:
        together = video.read(sorted({index for window in windows for index in window}), resize=resize)
    except VideoError:
        if len(windows) == 1:
            raise
        for window in windows:  # those before the fault can be had
            yield video.read(window, resize=resize)
        return
    positions = {index: position for position, index in enumerate(together.indices)}
    for window in windows:
        chosen = [positions[index] for index in window]
        yield replace(
            together,
            frames=together.frames.permute(0, 2, 3, 1)[chosen].permute(0, 3, 1, 2),
            indices=tuple(int(index) for index in window),
            times_seconds=tuple(together.times_seconds[position] for position in chosen),
            durations_seconds=tuple(together.durations_seconds[position] for position in chosen),
        )
