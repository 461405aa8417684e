"""Preprocessing: how a video becomes the input of a network, in training and in testing.

Sampling chooses frame numbers, which count from 0. The decoder resizes those frames. Crops and mirror images are taken
from frames (t, 3, h, w) of type uint8, and ``normalise`` turns them into floating-point numbers on the device.
``Preprocess`` is all of it but the augmentation, and travels with a model's file. Chance comes only from a generator
that is passed in, and what it decides holds for all frames of a clip.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
import torch
import torch.nn.functional as F

from ssan.errors import UsageError, VideoError, unknown
from ssan.video.clip import Clip, FramePart, Part, PartOfVideo, Resize, Video
from ssan.video.frame_array import FrameArray
from ssan.video.mirror import FlipMap
from ssan.video.reader import open_video, read_chosen
from ssan.video.windows import read_each_window, read_windows

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
TSN_SCALES = (1.0, 0.875, 0.75, 0.66)

MOST_WINDOWS = 100_000
"""Of one video: a day, one a second."""


# ------------------------------------------------------------------------------------------------------------- sampling


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
    _check_sampling(num_frames, num_segments, view, num_views)
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
    _check_sampling(num_frames, num_segments, view, num_views)
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


def dense_moments(
    lasts_seconds: float,
    num_segments: int,
    *,
    stride: int,
    frames_per_second: float,
    rng: Random | None,
    view: int = 0,
    num_views: int = 1,
) -> list[float]:
    """What ``dense_indices`` does, in time: moments ``stride / frames_per_second`` seconds apart, from one start.

    Of a video of ``frames_per_second`` constant frames a second, the frames that are shown then are those of
    ``dense_indices``; of any other they are those of the same video at that rate, each frame shown until the next one
    begins. 2 seconds, 3 moments at 4 frames a second with stride 2; the last begins a frame, 0.25 s, before the end:

        seconds    0   0.25 0.5  0.75  1   1.25 1.5  1.75  2
        view 0     x         x         x
        view 1               x         x         x                the middle: also the one view
        view 2                    x         x         x

    What lies behind the end shows the last frame.
    """
    _check_sampling(1, num_segments, view, num_views)
    if stride < 1 or not frames_per_second > 0:
        raise UsageError(
            f"the stride is {stride} at {frames_per_second:g} frames a second; expected 1 or more, and a rate above 0"
        )
    apart = stride / frames_per_second
    starts = max(lasts_seconds - (num_segments - 1) * apart, min(apart, lasts_seconds))
    last = max(starts - 1 / frames_per_second, 0.0)
    if rng is not None:
        start = rng.random() * starts
    else:
        start = last / 2 if num_views == 1 else view * last / (num_views - 1)
    return [start + i * stride / frames_per_second for i in range(num_segments)]


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


def _check_sampling(num_frames: int, num_segments: int, view: int, num_views: int) -> None:
    if num_frames < 1:
        raise VideoError(f"the video has {num_frames} frames; expected at least one", code="too_few_frames")
    if num_segments < 1:
        raise UsageError(f"{num_segments} frames of a video were asked for; expected 1 or more")
    if not 0 <= view < num_views:
        raise UsageError(f"view {view} of {num_views} was asked for; views count from 0")


# --------------------------------------------------------------------------- resizing, cropping, mirroring, normalising


def resize_rule(mode: Literal["square", "short_side"], size_px: int) -> Resize:
    """From a picture's (height, width) to the (height, width) wanted, for the decoder to apply; see ``Resize``."""
    if size_px < 1:
        raise UsageError(f"a picture {size_px} pixels large was asked for; expected 1 or more")
    if mode not in ("square", "short_side"):
        raise UsageError(unknown("resize mode", mode, ("square", "short_side")))
    return Resize(mode, size_px)


def resize_frames(frames: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Resize uint8 frames (t, c, h, w), bilinear, with the filter widened when shrinking; rounded to uint8 again."""
    if frames.shape[-2:] == (height, width):
        return frames
    return F.interpolate(frames, (height, width), mode="bilinear", antialias=True, align_corners=False)


class Box(NamedTuple):
    """A rectangle of a picture, in pixels from its top left corner."""

    top: int
    left: int
    height: int
    width: int

    def of(self, frames: torch.Tensor) -> torch.Tensor:
        """The part of every frame that is inside: a view, not a copy."""
        return frames[..., self.top : self.top + self.height, self.left : self.left + self.width]


def multi_scale_box(
    height: int, width: int, crop_px: int, rng: np.random.Generator, scales: Sequence[float] = TSN_SCALES
) -> Box:
    """TSN's multi-scale crop: a rectangle to be cut out and resized to ``crop_px``.

    Its sides are ``scales`` times the shorter side of the picture, drawn so that the two are at most one scale apart
    (a side within 2 pixels of ``crop_px`` becomes ``crop_px``: no resizing for so little). It sits at one of 13 points
    of the 5 x 5 grid that divides the room to spare into quarters, rounded down:

        x . x . x
        . x . x .
        x . x . x
        . x . x .
        x . x . x
    """
    sides = [max(1, int(min(height, width) * scale)) for scale in scales]
    sides = [crop_px if abs(side - crop_px) < 3 else side for side in sides]
    pairs = [(tall, wide) for i, tall in enumerate(sides) for j, wide in enumerate(sides) if abs(i - j) <= 1]
    tall, wide = pairs[rng.integers(len(pairs))]
    tall, wide = min(tall, height), min(wide, width)  # crop_px may be 1 or 2 pixels more than the picture has
    row, column = _GRID[rng.integers(len(_GRID))]
    return Box((height - tall) // 4 * row, (width - wide) // 4 * column, tall, wide)


_GRID = [(row, column) for row in range(5) for column in range(5) if (row + column) % 2 == 0]


def random_box(height: int, width: int, crop_px: int, rng: np.random.Generator) -> Box:
    """A square of side ``crop_px`` anywhere in the picture, every position equally likely."""
    _check_fits(height, width, crop_px)
    top, left = rng.integers(height - crop_px + 1), rng.integers(width - crop_px + 1)
    return Box(int(top), int(left), crop_px, crop_px)


def center_box(height: int, width: int, crop_px: int) -> Box:
    """The square of side ``crop_px`` in the middle of the picture (half a pixel up and left where it must be)."""
    _check_fits(height, width, crop_px)
    return Box((height - crop_px) // 2, (width - crop_px) // 2, crop_px, crop_px)


def three_boxes(height: int, width: int, crop_px: int) -> list[Box]:
    """The squares at the beginning, the middle and the end of the longer side, in the middle of the shorter.

    Of a square picture the longer side is the width; with ``crop_px`` as large as the picture, the three are one.

    How we differ from TSM's code: there the squares always move along x, so a portrait video is cut three times alike.
    """
    middle = center_box(height, width, crop_px)
    if height > width:
        return [middle._replace(top=0), middle, middle._replace(top=height - crop_px)]
    return [middle._replace(left=0), middle, middle._replace(left=width - crop_px)]


def five_boxes(height: int, width: int, crop_px: int) -> list[Box]:
    """The squares in the four corners (top left, top right, bottom left, bottom right) and in the middle."""
    middle = center_box(height, width, crop_px)
    bottom, right = height - crop_px, width - crop_px
    return [*(middle._replace(top=top, left=left) for top in (0, bottom) for left in (0, right)), middle]


def crop_views(frames: torch.Tensor, crop_px: int, num_crops: Literal[1, 3, 10]) -> torch.Tensor:
    """Cut frames (t, 3, h, w) into the crops of a test, (v, t, 3, crop_px, crop_px).

    1: the middle. 3: along the longer side. 10: four corners and the middle, then the mirror images of those five;
    mirror images falsify classes such as "from left to right", so 10 crops suit data without them.
    """
    height, width = frames.shape[-2:]
    if num_crops == 1:
        boxes = [center_box(height, width, crop_px)]
    elif num_crops == 3:
        boxes = three_boxes(height, width, crop_px)
    elif num_crops == 10:
        boxes = five_boxes(height, width, crop_px)
    else:
        raise UsageError(f"{num_crops} crops were asked for; expected 1, 3 or 10")
    crops = torch.stack([box.of(frames) for box in boxes])
    return torch.cat([crops, crops.flip(-1)]) if num_crops == 10 else crops


def _check_fits(height: int, width: int, crop_px: int) -> None:
    if min(height, width) < crop_px:
        raise UsageError(
            f"a crop of {crop_px} pixels does not fit in a picture {height} high and {width} wide; "
            f"resize the shorter side to {crop_px} or more, or crop less"
        )


@dataclass(frozen=True)
class Augmentation:
    """What training does to a clip: a crop, then perhaps a mirror image.

    ``crop``: "multi_scale" (TSN's, resized to ``crop_px``), "random" or "center" (a square of ``crop_px``).
    ``flip``: "swap" mirrors half of the clips and gives those of a class with a partner that partner's label;
    "skip_directed" mirrors half of the clips of the classes without a direction; "off" mirrors none. Clips of a
    directed class without a partner are never mirrored. ``flip_pairs`` comes from the function of that name.
    """

    crop: Literal["multi_scale", "random", "center"] = "multi_scale"
    crop_px: int = 224
    flip: Literal["swap", "skip_directed", "off"] = "off"
    flip_pairs: FlipMap = field(default_factory=FlipMap)
    scales: tuple[float, ...] = TSN_SCALES

    def __post_init__(self) -> None:
        for name, known in (("crop", ("multi_scale", "random", "center")), ("flip", ("swap", "skip_directed", "off"))):
            if getattr(self, name) not in known:
                raise UsageError(unknown(name, getattr(self, name), known))

    def apply(self, frames: torch.Tensor, label_index: int, rng: np.random.Generator) -> tuple[torch.Tensor, int]:
        """Frames (t, 3, h, w) and their class -> frames (t, 3, crop_px, crop_px) and the class that they now show."""
        height, width = frames.shape[-2:]
        if self.crop == "multi_scale":
            box = multi_scale_box(height, width, self.crop_px, rng, self.scales)
        elif self.crop == "random":
            box = random_box(height, width, self.crop_px, rng)
        else:
            box = center_box(height, width, self.crop_px)
        frames = resize_frames(box.of(frames), self.crop_px, self.crop_px)
        if self.flip == "off" or rng.random() >= 0.5:
            return frames, label_index
        if self.flip == "swap" and label_index in self.flip_pairs.partner:
            return frames.flip(-1), self.flip_pairs.partner[label_index]
        if label_index in self.flip_pairs.directed:
            return frames, label_index
        return frames.flip(-1), label_index


def normalise(
    frames: torch.Tensor,
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
    dtype: torch.dtype = torch.float32,
) -> torch.Tensor:
    """Turn uint8 frames (..., c, h, w) into (frames / 255 - mean) / std, on the device where they are.

    Computed in float32 and then rounded to ``dtype``.
    """
    scale = torch.tensor([1 / (255 * s) for s in std], device=frames.device).view(-1, 1, 1)
    shift = torch.tensor([m / s for m, s in zip(mean, std, strict=True)], device=frames.device).view(-1, 1, 1)
    return (frames * scale).sub_(shift).to(dtype)


# -------------------------------------------------------------------------------------------------------- preprocessing


class Window(NamedTuple):
    """A window of a video: the ``number``-th, from 0, of so many, [start, end) in seconds from the video's beginning.

    :param num_frames: that begin in it, of which the network sees some.
    :param views: what the network sees, (1, t, 3, crop_px, crop_px); None where that cannot be read.
    :param decoded: the frames that it was made of, or why there are none.
    """

    number: int
    num_windows: int
    start_seconds: float
    end_seconds: float
    num_frames: int
    views: torch.Tensor | None
    decoded: Clip | VideoError


@dataclass(frozen=True)
class Preprocess:
    """How a video becomes the input of a network; travels with the model's file.

    :param sampling: ``segment`` (one frame of each of ``num_frames`` parts) or ``dense`` (every ``stride``-th frame).
    :param size_px: side after resizing, to a ``square`` or with the ``short_side`` that long.
    :param crop_px: side of the network's input.
    :param frames_per_second: with ``dense``, the rate in time at which every ``stride``-th frame is taken; None takes
        the file's own frames, whatever their rate. Frames in memory, of which no time is known, count as being at it.
    """

    num_frames: int = 8
    sampling: Literal["segment", "dense"] = "segment"
    stride: int = 8
    resize: Literal["square", "short_side"] = "square"
    size_px: int = 256
    crop_px: int = 224
    frames_per_second: float | None = None

    def __post_init__(self) -> None:
        if self.frames_per_second is not None and (self.sampling != "dense" or not self.frames_per_second > 0):
            raise UsageError(
                f"frames_per_second is {self.frames_per_second:g} with sampling {self.sampling!r}; expected a rate "
                "above 0, and dense sampling, or none"
            )

    def as_dict(self) -> dict[str, Any]:
        """The fields, but for a rate where none is said: files of before rates were said have no word of it."""
        fields = asdict(self)
        return {name: value for name, value in fields.items() if name != "frames_per_second" or value is not None}

    def training_clip(self, path: str, rng: np.random.Generator, part: Part | None = None) -> Clip:
        """Randomly sampled frames of a video, or of a part of it, resized, not yet cropped."""
        return read_chosen(
            path, lambda video: self._chosen(video, rng), part=part, resize=resize_rule(self.resize, self.size_px)
        )

    def test_views(
        self, path: str, num_views: int = 1, num_crops: Literal[1, 3, 10] = 1, part: Part | None = None
    ) -> tuple[torch.Tensor, Clip]:
        """All views of a video, (v, t, 3, crop_px, crop_px) with crops within a view together, and its decoded frames.

        The file is opened and read once for all views; of a ``part`` of it all are there.
        """
        clip = read_chosen(
            path,
            lambda video: self._chosen(video, None, num_views),
            part=part,
            resize=resize_rule(self.resize, self.size_px),
        )
        crops = crop_views(clip.frames, self.crop_px, num_crops)  # (crops, views * t, 3, h, w)
        return crops.unflatten(1, (num_views, self.num_frames)).transpose(0, 1).flatten(0, 1), clip

    def test_clip(self, video: FrameArray) -> torch.Tensor:
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
    ) -> Iterator[tuple[tuple[float, float], torch.Tensor]]:
        """A clip (t, 3, crop_px, crop_px) of each window that slides over a video, with the window's start and end.

        Of a ``part`` of the video, the windows slide over that. Times are seconds from the beginning of the video. What
        is shorter than a window is one window.

        The file is opened once, and no more of it is decoded than the windows need, one after another. Windows end with
        ``VideoError`` where the video ends before it should; so they begin where the part lies after its end, or where
        there would be more than ``MOST_WINDOWS``.
        """
        with open_video(path) as video:
            bounds, _, chosen = self._sliding(video, window_seconds, stride_seconds, part)
            clips = read_windows(video, chosen, resize=resize_rule(self.resize, self.size_px))
            for window, clip in zip(bounds, clips, strict=True):
                yield window, crop_views(clip.frames, self.crop_px, 1)[0]

    def each_window(
        self, path: str, *, window_seconds: float, stride_seconds: float, part: Part | None = None
    ) -> Iterator["Window"]:
        """As ``windows``, but a window that cannot be read says why, and those after it come all the same.

        :raises VideoError: the video cannot be opened, or as ``windows`` at once; nothing has been given then.
        """
        with open_video(path) as video:
            bounds, spans, chosen = self._sliding(video, window_seconds, stride_seconds, part)
            clips = read_each_window(video, chosen, resize=resize_rule(self.resize, self.size_px))
            for number, (found, (start, end), (first, stop)) in enumerate(zip(clips, bounds, spans, strict=True)):
                views = None if isinstance(found, VideoError) else crop_views(found.frames, self.crop_px, 1)
                yield Window(number, len(bounds), start, end, stop - first, views, found)

    def _sliding(
        self, video: Video, window_seconds: float, stride_seconds: float, part: Part | None
    ) -> tuple[list[tuple[float, float]], list[tuple[int, int]], list[list[int]]]:
        """Windows that slide over a video: their bounds in seconds, their frames [first, stop), and those to read."""
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
                path=video.path,
            )
        bounds = [
            (start + first, start + last)
            for first, last in sliding_windows(lasts, window_seconds=window_seconds, stride_seconds=stride_seconds)
        ]
        spans = [video.span(*window) for window in bounds]
        chosen = [
            [first + i for i in self._chosen(PartOfVideo(video, FramePart(first, stop)), None)] for first, stop in spans
        ]
        return bounds, spans, chosen

    def _chosen(self, video: Video, rng: np.random.Generator | None, num_views: int = 1) -> list[int]:
        """The numbers of the frames of all views of a video."""
        if self.frames_per_second is None:
            return [i for view in range(num_views) for i in self._indices(video.num_frames, rng, view, num_views)]
        lasts = video.lasts_seconds()
        return video.frames_at([
            moment
            for view in range(num_views)
            for moment in dense_moments(
                lasts, self.num_frames, stride=self.stride, frames_per_second=self.frames_per_second, rng=rng,
                view=view, num_views=num_views,
            )
        ])  # fmt: skip

    def _indices(self, num_frames: int, rng: np.random.Generator | None, view: int, num_views: int) -> list[int]:
        if self.sampling == "dense":
            return dense_indices(
                num_frames, self.num_frames, stride=self.stride, rng=rng, view=view, num_views=num_views
            )
        return segment_indices(num_frames, self.num_frames, rng=rng, view=view, num_views=num_views)
