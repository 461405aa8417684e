"""Videos in memory: arrays and tensors of frames, whose shape, type and order of axes are made sure of."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ssan.errors import UsageError
from ssan.video.clip import Resize, checked_size

EXPECTED = "expected uint8 frames (t, h, w, 3) or (t, 3, h, w) in RGB, or several such videos, (b, t, h, w, 3)"


@dataclass(frozen=True, eq=False)
class FrameArray:
    """The frames of one video, uint8 in RGB, as numpy or torch have them.

    :param pixels: (t, h, w, 3), or (t, 3, h, w) where ``channels_first``.
    """

    pixels: np.ndarray | Tensor
    channels_first: bool

    @property
    def num_frames(self) -> int:
        return len(self.pixels)

    def read(self, indices: Sequence[int], resize: Resize) -> Tensor:
        """The frames with these numbers, (t, 3, h, w), resized as the pictures of a folder are; no other is copied.

        :raises VideoError: the pictures are too large to be those of a video.
        """
        chosen = self.pixels[list(indices)]
        # A copy: torch takes no array of numpy's that runs backwards.
        frames = torch.from_numpy(np.ascontiguousarray(chosen)) if isinstance(chosen, np.ndarray) else chosen.cpu()
        if not self.channels_first:
            frames = frames.permute(0, 3, 1, 2)
        from ssan.video.preprocess import resize_frames  # which imports this file

        height, width = checked_size(*resize(*frames.shape[-2:]), "")
        # In one order of memory, so that what is computed does not depend on the order of the axes that came.
        return resize_frames(frames.contiguous(memory_format=torch.channels_last), height, width)


def frame_arrays(pixels: np.ndarray | Tensor, name: str = "the array") -> list[FrameArray]:
    """The videos in an array: one of (t, h, w, 3) or (t, 3, h, w), b of an array with one axis more before these.

    The axis of length 3 is that of the colours. Unsaid by any convention, our choice: where both could be it, as in
    (8, 3, 20, 3), the array is refused, as a video three pixels high or wide is worth no guess
    (``test_an_array_that_could_be_read_in_two_ways_is_refused``).

    :param name: what messages call it.
    :raises UsageError: it has another type or shape.
    """
    shape, kind = tuple(pixels.shape), str(pixels.dtype).removeprefix("torch.")
    given = f"{name} has shape {shape} and type {kind}"
    if kind != "uint8":
        floating = kind.startswith(("float", "bfloat"))
        raise UsageError(
            f"{given}; {EXPECTED}. " + ("Where 1.0 is white: " if floating else "")
            + ("(255 * frames).round() as uint8" if floating else "Give the pixels as decoded, 0 to 255, as uint8")
        )  # fmt: skip
    if len(shape) == 5:
        return [one for part in pixels for one in frame_arrays(part, f"a video of {name}")]
    if len(shape) == 3 and 3 in (shape[0], shape[2]):
        raise UsageError(f"{given}; {EXPECTED}. One picture is frames[None]; of a list numpy.stack makes a video")
    if len(shape) != 4 or 3 not in (shape[1], shape[3]):
        what = "Leave out alpha by frames[..., :3]" if shape[-1:] == (4,) else "Move the axes, or repeat a grey channel"
        raise UsageError(f"{given}; {EXPECTED}. {what}")
    if shape[1] == shape[3]:
        raise UsageError(
            f"{given}; {EXPECTED}. It can be read both ways, with pictures three pixels wide or high: make them larger"
        )
    channels_first = shape[1] == 3
    if 0 in (shape[2:] if channels_first else shape[1:3]):
        raise UsageError(f"{given}; {EXPECTED}. Its pictures have no pixels: look at how they were cut")
    return [FrameArray(pixels, channels_first)]
