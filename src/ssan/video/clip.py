"""The one value in which frames travel."""

from dataclasses import dataclass

import torch


@dataclass(frozen=True, eq=False, slots=True)
class Clip:
    """Some frames of one video, with where and when in the video each of them is.

    ``frames`` is a uint8 tensor (t, 3, h, w), RGB, a permuted view of contiguous (t, h, w, 3) memory, which is what
    torch calls channels-last. ``indices``, ``times_seconds`` and ``durations_seconds`` have one entry per frame, in the
    order in which the frames were asked for: the number of the frame in presentation order, from 0; when it is first
    shown, on the file's own clock, which need not begin at 0; and for how long it is shown.

    ``duration_seconds`` and ``num_frames`` are those of the whole video as far as is known, ``num_promised`` the frames
    that the file announced. ``num_frames`` is the smaller one where reading found the end of the video before the
    announced end: such a file is truncated or damaged, and whoever reads many files should count them.
    """

    frames: torch.Tensor
    indices: tuple[int, ...]
    times_seconds: tuple[float, ...]
    durations_seconds: tuple[float, ...]
    num_frames: int
    num_promised: int
    duration_seconds: float
    path: str
