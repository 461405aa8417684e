"""Resizing, cropping, mirroring and normalising clips.

Frames are uint8 tensors (t, 3, h, w). Chance comes only from a ``numpy.random.Generator`` that is passed in, and what
it decides holds for all frames of a clip.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from ssan.errors import UsageError, unknown
from ssan.video.clip import Resize
from ssan.video.mirror import FlipMap as FlipMap
from ssan.video.mirror import flip_pairs as flip_pairs

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
TSN_SCALES = (1.0, 0.875, 0.75, 0.66)


def resize_rule(mode: Literal["square", "short_side"], size_px: int) -> Resize:
    """From a picture's (height, width) to the (height, width) wanted, for the decoder to apply; see ``Resize``."""
    if size_px < 1:
        raise UsageError(f"a picture {size_px} pixels large was asked for; expected 1 or more")
    if mode not in ("square", "short_side"):
        raise UsageError(unknown("resize mode", mode, ("square", "short_side")))
    return Resize(mode, size_px)


def resize(frames: torch.Tensor, height: int, width: int) -> torch.Tensor:
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
    (a side within 2 pixels of ``crop_px`` becomes ``crop_px``: no resizing for so little). It sits at one of 13 places
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
    """A square of side ``crop_px`` anywhere in the picture, every place equally likely."""
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
        frames = resize(box.of(frames), self.crop_px, self.crop_px)
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
