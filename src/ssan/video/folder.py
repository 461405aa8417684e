"""Frames out of a folder of pictures, one file a frame."""

import json
import os
import re
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ssan.errors import SsanError, UsageError, VideoError
from ssan.files import read_text
from ssan.video.clip import (
    FOLDER_FRAMES_PER_SECOND,
    TIMES_FILE,
    Clip,
    Examination,
    Resize,
    Video,
    assumed_rate,
    cannot_open,
    checked_size,
    existing_path,
    positions_in_clip,
)
from ssan.video.picture import read_picture, read_pictures

if TYPE_CHECKING:
    import torch

MOST_BYTES_OF_TIMES = 100_000_000

MOST_SECONDS = 1e12
"""Of a time in it; some clocks count from long ago."""

_PICTURE = re.compile(r"(?!\.).*\.(jpe?g|png)", re.IGNORECASE | re.DOTALL)
_FLOW = re.compile(r"(flow_)?[xy]_?[0-9]+\.", re.IGNORECASE)


class FrameFolder(Video):
    """A folder that directly holds JPEG or PNG files, one per frame, in the order of the numbers in their names.

    Names are compared piece by piece, digits as numbers: ``img_2.jpg`` comes before ``img_10.jpg``, and beside
    ``img_02.jpg`` it is refused. Hidden files are left out, and so are optical flow fields (``x_00001.jpg``,
    ``flow_y_00001.jpg``), which some lists of frames keep beside them. The orientation that a camera may write into a
    JPEG file is not applied.

    When a frame is shown follows from ``frames_per_second``; where that is not given, from the file ``.times.json``,
    which has it by the frame's name, so that frames removed later leave the times of the others as they are; and where
    there is none, from ``assumed_rate`` or 12 frames a second. A frame that the file does not know is an error.

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
        told = assumed_rate() if frames_per_second is None else frames_per_second
        self.frames_per_second = FOLDER_FRAMES_PER_SECOND if told is None else told
        self._decode, self._look = decode, look
        if not self.frames_per_second > 0:
            raise UsageError(f"frames_per_second is {frames_per_second}; expected a number above 0")
        try:
            present = os.listdir(self.path)
        except OSError as error:
            raise cannot_open(self.path, error) from error
        names = [name for name in present if _PICTURE.fullmatch(name) and not _FLOW.match(name)]
        if not names:
            raise VideoError(
                "the folder directly holds no frames; expected .jpg, .jpeg or .png files. "
                "Give the folder in which the frames themselves are",
                code="empty",
                path=self.path,
            )
        names.sort(key=_natural)
        for one, other in pairwise(names):
            if _natural(one) == _natural(other):
                raise VideoError(
                    f"{one!r} and {other!r} are frames of one number; expected each number once, or it "
                    "cannot be told which comes first. Remove one, or the frames of an earlier extraction",
                    code="duplicate",
                    path=self.path,
                )
        self.files = [os.path.join(self.path, name) for name in names]
        self.num_frames = self.num_promised = len(self.files)
        period = 1 / self.frames_per_second
        self._shown = [(number / self.frames_per_second, period) for number in range(self.num_frames)]
        self.duration_seconds = self.num_frames / self.frames_per_second
        if frames_per_second is None and TIMES_FILE in present:
            self._shown = _read_times(self.path, [os.path.basename(file) for file in self.files])
            self.duration_seconds = sum(self._shown[-1]) - self._shown[0][0]

    @cached_property
    def size_px(self) -> tuple[int, int]:
        _, height, width, _ = self._decode(self.files[:1]).shape
        return height, width

    def begin_seconds(self, index: int) -> float:
        return self._shown[index][0] - self._shown[0][0]

    def read(self, indices: Sequence[int], *, resize: Resize | None = None) -> Clip:
        from torch import empty, from_numpy, uint8

        from ssan.video.preprocess import resize_frames

        positions = positions_in_clip(indices, self.path)
        if max(positions) >= self.num_frames:
            raise VideoError(
                f"frame {max(positions)} was wanted, the folder has frames 0 to {self.num_frames - 1}. "
                "Ask for one of those",
                code="too_few_frames",
                path=self.path,
            )
        output: torch.Tensor | None = None
        remaining = sorted(positions)
        while remaining:
            frames = from_numpy(self._decode([self.files[index] for index in remaining])).permute(0, 3, 1, 2)
            if output is None:
                size = (frames.shape[2], frames.shape[3])
                height, width = checked_size(*(resize(*size) if resize else size), self.path)
                output = empty((len(indices), height, width, 3), dtype=uint8).permute(0, 3, 1, 2)
            resized = resize_frames(frames, output.shape[2], output.shape[3])
            for index, frame in zip(remaining[: len(frames)], resized, strict=True):
                output[positions[index]] = frame
            remaining = remaining[len(frames) :]
        assert output is not None
        return Clip(
            frames=output,
            indices=tuple(int(index) for index in indices),
            times_seconds=tuple(self._shown[index][0] for index in indices),
            durations_seconds=tuple(self._shown[index][1] for index in indices),
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
        missing = sum(gap.size for gap in gaps)
        promised, decoded = self.num_frames + missing, self.num_frames - len(errors)
        if errors:
            first = min(errors)
            name, message = os.path.basename(self.files[first]), errors[first].message
            wrong = VideoError(
                f"{len(errors)} of {self.num_frames} frames do not decode, first {name}: {message}",
                code="decode_error",
                path=self.path,
            )
            return Examination(promised, decoded, self.begin_seconds(first), wrong)
        if gaps:
            named = ", ".join(map(_named, gaps[:3])) + (", ..." if len(gaps) > 3 else "")
            wrong = VideoError(
                f"frames are missing in the numbering of the names: {named}, together {missing} of {promised}; "
                "expected every number. Extract or copy the frames again",
                code="truncated",
                path=self.path,
            )
            return Examination(promised, decoded, self.begin_seconds(gaps[0].before_frame), wrong)
        return Examination(promised, decoded)


class Gap(NamedTuple):
    """Numbers that no frame has, before the frame that is now number ``before_frame``."""

    before_frame: int
    numbers: range

    @property
    def size(self) -> int:
        """How many there are; ``len`` counts no further than what memory could hold."""
        return (self.numbers.stop - self.numbers.start) // self.numbers.step


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
        Gap(before_frame, range(number + step, numbers[before_frame], step))
        for before_frame, (number, jump) in enumerate(zip(numbers, steps, strict=False), start=1)
        if jump > step
    ]


def _named(gap: Gap) -> str:
    return str(gap.numbers[0]) if gap.size == 1 else f"{gap.numbers[0]} to {gap.numbers[-1]}"


def _read_times(folder: str, names: Sequence[str]) -> list[tuple[float, float]]:
    """When each of these frames is shown and for how long, as the folder's own file has it."""
    path = os.path.join(folder, TIMES_FILE)
    expected = '{"frames": {"00001.jpg": [time, duration], ...}}'
    try:
        content = json.loads(read_text(path, expected, most_bytes=MOST_BYTES_OF_TIMES, error=VideoError))
        shown = [(float(time), float(duration)) for time, duration in map(content["frames"].__getitem__, names)]
    except SsanError as error:
        message = error.message
        raise VideoError(message, code="decode_error", path=path) from error
    except KeyError as error:
        raise VideoError(
            f"there is no time of the frame {error.args[0]!r}; expected one of every frame in the folder. Make the "
            "frames again, or remove this file: they then have 12 frames a second",
            code="decode_error",
            path=path,
        ) from None
    except (ValueError, OverflowError, TypeError, AttributeError, RecursionError):
        shown = []
    if not all(abs(number) <= MOST_SECONDS for pair in shown for number in pair) or not shown:
        raise VideoError(
            f"this is not when frames are shown; expected {expected}. Make the frames again, or remove this file",
            code="decode_error",
            path=path,
        )
    return shown


def _natural(name: str) -> list[str | int]:
    """Text and numbers of a name in turn, so that lists compare text with text and number with number."""
    return [int(piece) if number % 2 else piece for number, piece in enumerate(re.split(r"([0-9]+)", name))]
