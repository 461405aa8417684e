"""Frames out of a folder of pictures, one file a frame."""

import os
import re
from collections.abc import Callable, Sequence
from functools import cached_property

import numpy as np
import torch

from ssan.errors import UsageError, VideoError
from ssan.video.clip import Clip, Resize, Video, cannot_open, checked_size, existing_path, wanted_places
from ssan.video.picture import read_picture
from ssan.video.transforms import resize as resize_frames

FOLDER_FRAMES_PER_SECOND = 12.0
"""Something-Something V1 and Jester ship folders of JPEG files at this rate, which nothing in the folder tells."""

_PICTURE = re.compile(r"(?!\.).*\.(jpe?g|png)", re.IGNORECASE | re.DOTALL)
_FLOW = re.compile(r"(flow_)?[xy]_?[0-9]+\.", re.IGNORECASE)


class FrameFolder(Video):
    """A folder that directly holds JPEG or PNG files, one per frame, in the order of the numbers in their names.

    Names are compared piece by piece, digits as numbers: ``img_2.jpg`` comes before ``img_10.jpg``. Hidden files are
    left out, and so are optical flow fields (``x_00001.jpg``, ``flow_y_00001.jpg``), which some lists of frames keep
    beside them. The orientation that a camera may write into a JPEG file is not applied.

    :param decode: path of a picture to its pixels (h, w, 3).
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        frames_per_second: float | None = None,
        decode: Callable[[str], np.ndarray] = read_picture,
    ) -> None:
        self.path = existing_path(path)
        self.frames_per_second = FOLDER_FRAMES_PER_SECOND if frames_per_second is None else frames_per_second
        self._decode = decode
        if not self.frames_per_second > 0:
            raise UsageError(f"frames_per_second is {frames_per_second}; expected a number above 0")
        try:
            names = os.listdir(self.path)
        except OSError as error:
            raise cannot_open(self.path, error) from error
        names = [name for name in names if _PICTURE.fullmatch(name) and not _FLOW.match(name)]
        if not names:
            raise VideoError(
                "the folder directly holds no frames; expected .jpg, .jpeg or .png files. "
                "Give the folder in which the frames themselves are",
                code="empty",
                path=self.path,
            )
        self.files = [os.path.join(self.path, name) for name in sorted(names, key=_natural)]
        self.num_frames = self.num_promised = len(self.files)
        self.duration_seconds = self.num_frames / self.frames_per_second

    @cached_property
    def size_px(self) -> tuple[int, int]:
        height, width, _ = self._decode(self.files[0]).shape
        return height, width

    def begin_seconds(self, index: int) -> float:
        return index / self.frames_per_second

    def read(self, indices: Sequence[int], *, resize: Resize | None = None) -> Clip:
        places = wanted_places(indices, self.path)
        if max(places) >= self.num_frames:
            raise VideoError(
                f"frame {max(places)} was wanted, the folder has frames 0 to {self.num_frames - 1}. "
                "Ask for one of those",
                code="too_few_frames",
                path=self.path,
            )
        output: torch.Tensor | None = None
        for index in sorted(places):
            frame = torch.from_numpy(self._decode(self.files[index])).permute(2, 0, 1)[None]
            if output is None:
                size = (frame.shape[2], frame.shape[3])
                height, width = checked_size(*(resize(*size) if resize else size), self.path)
                output = torch.empty((len(indices), height, width, 3), dtype=torch.uint8).permute(0, 3, 1, 2)
            output[places[index]] = resize_frames(frame, output.shape[2], output.shape[3])
        assert output is not None
        return Clip(
            frames=output,
            indices=tuple(int(index) for index in indices),
            times_seconds=tuple(index / self.frames_per_second for index in indices),
            durations_seconds=(1 / self.frames_per_second,) * len(indices),
            num_frames=self.num_frames,
            num_promised=self.num_promised,
            duration_seconds=self.duration_seconds,
            path=self.path,
        )


def _natural(name: str) -> list[str | int]:
    """Text and numbers of a name in turn, so that lists compare text with text and number with number."""
    return [int(piece) if place % 2 else piece for place, piece in enumerate(re.split(r"([0-9]+)", name))]
