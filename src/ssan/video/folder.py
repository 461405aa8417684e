"""Frames out of a folder of pictures, one file a frame."""

import os
import re
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ssan.errors import UsageError, VideoError
from ssan.video.clip import (
    Clip,
    Examination,
    Resize,
    Video,
    cannot_open,
    checked_size,
    existing_path,
    wanted_places,
)
from ssan.video.picture import read_picture, read_pictures

if TYPE_CHECKING:
    import torch

FOLDER_FRAMES_PER_SECOND = 12.0
"""Something-Something V1 and Jester ship folders of JPEG files at this rate, which nothing in the folder tells."""

_PICTURE = re.compile(r"(?!\.).*\.(jpe?g|png)", re.IGNORECASE | re.DOTALL)
_FLOW = re.compile(r"(flow_)?[xy]_?[0-9]+\.", re.IGNORECASE)


class FrameFolder(Video):
    """A folder that directly holds JPEG or PNG files, one per frame, in the order of the numbers in their names.

    Names are compared piece by piece, digits as numbers: ``img_2.jpg`` comes before ``img_10.jpg``. Hidden files are
    left out, and so are optical flow fields (``x_00001.jpg``, ``flow_y_00001.jpg``), which some lists of frames keep
    beside them. The orientation that a camera may write into a JPEG file is not applied.

    :param decode: paths of pictures to the pixels (n, h, w, 3) of so many from the first on as have its size.
    :param look: decodes one picture, and raises what ``decode`` would; what it returns is of no concern.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        frames_per_second: float | None = None,
        decode: Callable[[Sequence[str]], np.ndarray] = read_pictures,
        look: Callable[[str], object] = read_picture,
    ) -> None:
        self.path = existing_path(path)
        self.frames_per_second = FOLDER_FRAMES_PER_SECOND if frames_per_second is None else frames_per_second
        self._decode, self._look = decode, look
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
        _, height, width, _ = self._decode(self.files[:1]).shape
        return height, width

    def begin_seconds(self, index: int) -> float:
        return index / self.frames_per_second

    def read(self, indices: Sequence[int], *, resize: Resize | None = None) -> Clip:
        from torch import empty, from_numpy, uint8

        from ssan.video.transforms import resize as resize_frames

        places = wanted_places(indices, self.path)
        if max(places) >= self.num_frames:
            raise VideoError(
                f"frame {max(places)} was wanted, the folder has frames 0 to {self.num_frames - 1}. "
                "Ask for one of those",
                code="too_few_frames",
                path=self.path,
            )
        output: torch.Tensor | None = None
        remaining = sorted(places)
        while remaining:
            frames = from_numpy(self._decode([self.files[index] for index in remaining])).permute(0, 3, 1, 2)
            if output is None:
                size = (frames.shape[2], frames.shape[3])
                height, width = checked_size(*(resize(*size) if resize else size), self.path)
                output = empty((len(indices), height, width, 3), dtype=uint8).permute(0, 3, 1, 2)
            resized = resize_frames(frames, output.shape[2], output.shape[3])
            for index, frame in zip(remaining[: len(frames)], resized, strict=True):
                output[places[index]] = frame
            remaining = remaining[len(frames) :]
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

    def examine(self) -> Examination:
        errors: dict[int, VideoError] = {}
        for index, file in enumerate(self.files):
            try:
                self._look(file)
            except VideoError as error:
                errors[index] = error
        gaps = numbering_gaps([os.path.basename(file) for file in self.files])
        missing = sum(len(gap.numbers) for gap in gaps)
        promised, decoded = self.num_frames + missing, self.num_frames - len(errors)
        if errors:
            first = min(errors)
            name, message = os.path.basename(self.files[first]), errors[first].message
            wrong = VideoError(
                f"{len(errors)} of {self.num_frames} frames do not decode, first {name}: {message}",
                code="decode_error",
                path=self.path,
            )
            return Examination(promised, decoded, first / self.frames_per_second, wrong)
        if gaps:
            named = ", ".join(map(_named, gaps[:3])) + (", ..." if len(gaps) > 3 else "")
            wrong = VideoError(
                f"frames are missing in the numbering of the names: {named}, together {missing} of {promised}; "
                "expected every number. Extract or copy the frames again",
                code="truncated",
                path=self.path,
            )
            return Examination(promised, decoded, gaps[0].place / self.frames_per_second, wrong)
        return Examination(promised, decoded)


class Gap(NamedTuple):
    """Numbers that no frame has, before the frame that is now at ``place``."""

    place: int
    numbers: range


def numbering_gaps(names: Sequence[str]) -> list[Gap]:
    """The numbers left out in names of frames that count up, in the order of those numbers.

    The last number in a name counts. Names may count in steps other than one, if most of them do: of 5, 10, 20, 25 it
    is 15 that is missing. Where no step is that of most names, as in a choice of single frames, nothing is.
    """
    numbers = [int(found[-1]) for name in names if (found := re.findall("[0-9]+", os.path.splitext(name)[0]))]
    if len(numbers) != len(names) or len(numbers) < 3:
        return []
    steps = [after - before for before, after in pairwise(numbers)]
    step, count = Counter(steps).most_common(1)[0]
    if step < 1 or 2 * count <= len(steps):
        return []
    return [
        Gap(place, range(number + step, numbers[place], step))
        for place, (number, jump) in enumerate(zip(numbers, steps, strict=False), start=1)
        if jump > step
    ]


def _named(gap: Gap) -> str:
    return str(gap.numbers[0]) if len(gap.numbers) == 1 else f"{gap.numbers[0]} to {gap.numbers[-1]}"


def _natural(name: str) -> list[str | int]:
    """Text and numbers of a name in turn, so that lists compare text with text and number with number."""
    return [int(piece) if place % 2 else piece for place, piece in enumerate(re.split(r"([0-9]+)", name))]
