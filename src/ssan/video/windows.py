"""Many clips of one video, such as windows that slide over it, each frame decoded as seldom as the file allows."""

from bisect import bisect_right
from collections.abc import Iterator, Sequence

from ssan.errors import UsageError
from ssan.video.clip import Clip, Resize, Video


def read_windows(video: Video, windows: Sequence[Sequence[int]], *, resize: Resize | None = None) -> Iterator[Clip]:
    """Read the frames of each window, in the order of the windows, which must be that of their first frames.

    Of a file in which decoding can begin anywhere, only what each window needs is decoded. Any other is decoded once,
    from its beginning to the end of the last window, and of its frames those are kept that a later window needs.

    :param windows: frame numbers, ascending in each window.
    :raises VideoError: a frame cannot be had; all windows before it have been given then.
    """
    firsts = [window[0] for window in windows if len(window)]
    if len(firsts) < len(windows) or firsts != sorted(firsts) or any(list(w) != sorted(w) for w in windows):
        raise UsageError("windows must hold frames, ascending, and come in the order of their first frames")
    if video.random_access:
        for window in windows:
            yield video.read(window, resize=resize)
        return
    from torch import Tensor, stack

    kept: dict[int, tuple[Tensor, float, float]] = {}
    waiting = 0  # the first window that has not been given
    for clip in video.stream(resize=resize):
        begun = windows[waiting : bisect_right(firsts, clip.indices[-1])]
        needed = {index for window in begun for index in window}
        for place, index in enumerate(clip.indices):
            if index in needed:
                # A copy, so that the frames around it are not kept in memory too.
                kept[index] = clip.frames[place].clone(), clip.times_seconds[place], clip.durations_seconds[place]
        while waiting < len(windows) and windows[waiting][-1] <= clip.indices[-1]:
            frames, times, durations = zip(*(kept[index] for index in windows[waiting]), strict=True)
            yield Clip(
                frames=stack(frames),
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
