"""How a video becomes the input of a network: sampling, resizing and cropping, in training and in testing."""

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from torch import Tensor

from ssan.errors import VideoError
from ssan.video.clip import Clip, FramePart, Part
from ssan.video.frame_array import FrameArray
from ssan.video.reader import open_video, read_clip
from ssan.video.sampling import dense_indices, segment_indices, sliding_windows
from ssan.video.transforms import crop_views, resize_rule
from ssan.video.windows import read_windows

MOST_WINDOWS = 100_000
"""Of one video: a day, one a second."""


@dataclass(frozen=True)
class Preprocess:
    """How a video becomes the input of a network; travels with the model's file.

    :param sampling: ``segment`` (one frame of each of ``num_frames`` parts) or ``dense`` (every ``stride``-th frame).
    :param size_px: side after resizing, to a ``square`` or with the ``short_side`` that long.
    :param crop_px: side of the network's input.
    """

    num_frames: int = 8
    sampling: Literal["segment", "dense"] = "segment"
    stride: int = 8
    resize: Literal["square", "short_side"] = "square"
    size_px: int = 256
    crop_px: int = 224

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def training_clip(self, path: str, rng: np.random.Generator, part: Part | None = None) -> Clip:
        """Randomly sampled frames of a video, or of a part of it, resized, not yet cropped."""
        return read_clip(
            path, lambda n: self._indices(n, rng, 0, 1), part=part, resize=resize_rule(self.resize, self.size_px)
        )

    def test_views(
        self, path: str, num_views: int = 1, num_crops: Literal[1, 3, 10] = 1, part: Part | None = None
    ) -> tuple[Tensor, Clip]:
        """All views of a video, (v, t, 3, crop_px, crop_px) with crops within a view together, and its decoded frames.

        The file is opened and read once for all views; of a ``part`` of it all are there.
        """
        clip = read_clip(
            path,
            lambda n: [i for view in range(num_views) for i in self._indices(n, None, view, num_views)],
            part=part,
            resize=resize_rule(self.resize, self.size_px),
        )
        crops = crop_views(clip.frames, self.crop_px, num_crops)  # (crops, views * t, 3, h, w)
        return crops.unflatten(1, (num_views, self.num_frames)).transpose(0, 1).flatten(0, 1), clip

    def test_clip(self, video: FrameArray) -> Tensor:
        """The one view of a video in memory, (1, t, 3, crop_px, crop_px): what ``test_views`` has of a video on disk.

        Frames are resized as the pictures of a folder are. Those of a video file are resized as they are turned into
        RGB, which rounds once where this rounds twice and has its colours at full resolution; where nothing is to be
        resized, both are the same to the bit.

        :raises VideoError: it has no frame (code ``too_few_frames``), or pictures too large for a video.
        """
        indices = self._indices(video.num_frames, None, 0, 1)
        return crop_views(video.read(indices, resize_rule(self.resize, self.size_px)), self.crop_px, 1)

    def windows(
        self, path: str, *, window_seconds: float, stride_seconds: float, part: Part | None = None
    ) -> Iterator[tuple[tuple[float, float], Tensor]]:
        """A clip (t, 3, crop_px, crop_px) of each window that slides over a video, with the window's start and end.

        Of a ``part`` of the video, the windows slide over that. Times are seconds from the beginning of the video. What
        is shorter than a window is one window.

        The file is opened once, and no more of it is decoded than the windows need, one after another. Windows end with
        ``VideoError`` where the video ends before it should; so they begin where the part lies after its end, or where
        there would be more than ``MOST_WINDOWS``.
        """
        with open_video(path) as video:
            first, stop = video.frames_of(part)  # refuses what lies outside
            if isinstance(part, FramePart):  # by the video's own clock
                part = video.begin_seconds(first), video.begin_seconds(stop) if stop < video.num_frames else None
            start, end = part or (None, None)
            start = start or 0.0
            lasts = max(min(video.duration_seconds, math.inf if end is None else end) - start, 0.0)
            if lasts > MOST_WINDOWS * stride_seconds:
                raise VideoError(
                    f"it says that it lasts {lasts:g} s, more than {MOST_WINDOWS} windows every {stride_seconds:g} s; "
                    "expected fewer. Cut it, or leave it out",
                    code="decode_error",
                    path=path,
                )
            bounds = [
                (start + first, start + last)
                for first, last in sliding_windows(lasts, window_seconds=window_seconds, stride_seconds=stride_seconds)
            ]
            spans = [video.span(*window) for window in bounds]
            chosen = [[first + i for i in self._indices(stop - first, None, 0, 1)] for first, stop in spans]
            clips = read_windows(video, chosen, resize=resize_rule(self.resize, self.size_px))
            for window, clip in zip(bounds, clips, strict=True):
                yield window, crop_views(clip.frames, self.crop_px, 1)[0]

    def _indices(self, num_frames: int, rng: np.random.Generator | None, view: int, num_views: int) -> list[int]:
        if self.sampling == "dense":
            return dense_indices(
                num_frames, self.num_frames, stride=self.stride, rng=rng, view=view, num_views=num_views
            )
        return segment_indices(num_frames, self.num_frames, rng=rng, view=view, num_views=num_views)
