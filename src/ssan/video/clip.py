"""Clip: the one value in which frames travel, and the interface of whatever gives it."""

import os
from abc import ABC, abstractmethod
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import TYPE_CHECKING, Literal, Self

from ssan.errors import UsageError, VideoError, quoted

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True)
class Resize:
    """What becomes of a picture's size: called with (height, width), upright, in pixels, it gives those wanted.

    It is plain data, which travels to the process that decodes.

    :param mode: ``square`` makes both sides ``size_px`` and lets the picture be distorted; ``short_side`` makes the
        shorter side so long and keeps the aspect ratio, the longer side rounded to the nearest whole number, halves up;
        ``exact`` makes it ``size_px`` high and ``width_px`` wide; ``shrink`` does as ``short_side``, and then makes it
        no more than ``tallest_px`` high, each only where that makes it smaller, and sides multiples of ``multiple``.
    """

    mode: Literal["square", "short_side", "exact", "shrink"]
    size_px: int | None = None
    width_px: int | None = None
    tallest_px: int | None = None
    multiple: int = 1

    def __call__(self, height: int, width: int) -> tuple[int, int]:
        size = self.size_px
        if self.mode == "shrink":
            if size is not None and min(height, width) > size:
                height, width = _with_short_side(size, height, width)
            if self.tallest_px is not None and height > self.tallest_px:
                height, width = self.tallest_px, max(1, (2 * width * self.tallest_px + height) // (2 * height))
            least = self.multiple
            return max(least, height - height % least), max(least, width - width % least)
        assert size is not None
        if self.mode == "exact":
            return size, size if self.width_px is None else self.width_px
        return (size, size) if self.mode == "square" else _with_short_side(size, height, width)


def _with_short_side(size_px: int, height: int, width: int) -> tuple[int, int]:
    short, long = min(height, width), max(height, width)
    longer = (2 * long * size_px + short) // (2 * short)
    return (size_px, longer) if height <= width else (longer, size_px)


@dataclass(frozen=True, eq=False, slots=True)
class Clip:
    """Some frames of one video, with where and when in the video each of them is.

    ``frames`` is a uint8 tensor (t, 3, h, w), RGB, a permuted view of contiguous (t, h, w, 3) memory, which is what
    torch calls channels-last. ``indices``, ``times_seconds`` and ``durations_seconds`` have one entry per frame, in the
    order in which the frames were asked for: the number of the frame in presentation order, from 0; when it is first
    shown, on the file's own clock, which need not begin at 0; and for how long it is shown.

    ``duration_seconds`` and ``num_frames`` are those of the whole video as far as is known, or of the part of it that
    was opened, from whose first frame ``indices`` then count; ``num_promised`` the frames that the file announced.
    ``num_frames`` is the smaller one where reading found the end of the video before the announced end: such a file is
    truncated or damaged, and whoever reads many files should count them.
    """

    frames: "torch.Tensor"
    indices: tuple[int, ...]
    times_seconds: tuple[float, ...]
    durations_seconds: tuple[float, ...]
    num_frames: int
    num_promised: int
    duration_seconds: float
    path: str


@dataclass(frozen=True, slots=True)
class Frame:
    """The number of a frame, where a time in seconds might stand as well: nobody can take one for the other."""

    number: int


@dataclass(frozen=True, slots=True)
class FramePart:
    """A part of a video that is counted in frames, [first, stop), from 0; ``stop`` None is the end of the video.

    What counts frames never becomes seconds on the way to them: at which rate would not be known.
    """

    first: int
    stop: int | None = None


SecondsPart = tuple[float | None, float | None]
"""Start and end, in seconds from the beginning of a video; None is its beginning, or its end."""

Part = SecondsPart | FramePart
"""A part of a video."""


@dataclass(frozen=True, slots=True)
class Examination:
    """What looking at every frame of a video has shown.

    ``frames_promised`` is what the file announces, or a folder's numbering; ``frames_decoded`` counts those that
    decode. ``at_seconds``, counted from the first frame, is where what is wrong begins; None where nothing is wrong.
    ``error`` says what is: code ``truncated`` where the video ends early, ``decode_error`` where frames are damaged.
    """

    frames_promised: int
    frames_decoded: int
    at_seconds: float | None = None
    error: VideoError | None = None


class Video(ABC):
    """A video that can be read: where it is, how long, how large, and its frames by number.

    ``num_promised`` is what the file announces. ``num_frames`` begins there and is corrected when reading finds that
    fewer or more frames decode. ``duration_seconds`` runs from the start of the first frame to the end of the last.
    With ``random_access`` a frame takes the decoding of some before it, without it of all. Of a video that was opened
    for a ``part`` alone all of this is that of the part.
    """

    path: str
    num_frames: int
    num_promised: int
    duration_seconds: float
    random_access: bool = True
    part: Part | None = None

    @abstractmethod
    def read(self, indices: Sequence[int], *, resize: Resize | None = None) -> Clip:
        """Read the frames with these numbers, in this order; numbers may repeat.

        All frames of a clip get one size: what ``resize`` makes of the size of the earliest frame asked for, or that
        size itself. Raises ``VideoError`` where a frame cannot be had.
        """

    @abstractmethod
    def begin_seconds(self, index: int) -> float:
        """When the frame with this number begins, from the beginning of the first one on."""

    def span(self, start_seconds: float | Frame | None, end_seconds: float | Frame | None) -> tuple[int, int]:
        """The frames [first, stop) that begin in a part of the video, [start, end) seconds after its own beginning.

        None is the beginning, or the end. Parts that divide a video among them divide its frames: each belongs to one.
        Where no frame begins in the part, as in a part shorter than a frame, it is the one that is shown at its start.
        Both bounds can be frames instead, as those of a sample are whose list counts frames.

        :raises VideoError: the part begins after the video has ended.
        """
        if not isinstance(start_seconds, Frame) and not isinstance(end_seconds, Frame):
            return self.span_seconds(start_seconds, end_seconds)
        if isinstance(start_seconds, float | int) or isinstance(end_seconds, float | int):
            raise UsageError(f"the part is from {start_seconds} to {end_seconds}; expected seconds alone, or frames")
        first = 0 if start_seconds is None else start_seconds.number
        return self.frames_of(FramePart(first, None if end_seconds is None else end_seconds.number))

    def span_seconds(self, start_seconds: float | None, end_seconds: float | None) -> tuple[int, int]:
        """What ``span`` gives of a part in seconds."""
        if not start_seconds and end_seconds is None:
            return 0, self.num_frames
        hair = HAIR_SECONDS
        first = self.first_from(start_seconds) if start_seconds else 0
        stop = self.num_frames
        if end_seconds is not None:
            stop = self.first_from(end_seconds)
        lasts = self.lasts_seconds()
        if start_seconds is not None and start_seconds >= max(lasts, hair):
            raise begins_too_late(start_seconds, lasts, self.path)
        return (first, stop) if first < stop else (max(first - 1, 0), max(first, 1))

    def lasts_seconds(self) -> float:
        """``duration_seconds``, or less where fewer frames decode than were promised."""
        if self.num_frames >= self.num_promised:
            return self.duration_seconds
        return self.begin_seconds(self.num_frames - 1) + self.duration_seconds / self.num_promised

    def frames_at(self, moments_seconds: Sequence[float]) -> list[int]:
        """The numbers of the frames that are shown at these moments, in seconds from the beginning of the first frame.

        Each frame is shown until the next one begins; after the end it is the last one that counts as shown.
        """
        firsts = [self.first_from(moment + 2 * HAIR_SECONDS) for moment in moments_seconds]
        return [min(max(first - 1, 0), self.num_frames - 1) for first in firsts]

    def frames_of(self, part: Part | None) -> tuple[int, int]:
        """The frames [first, stop) of a part, in seconds (``span``) or in frames; of None all.

        :raises VideoError: the part begins after the video has ended.
        """
        if not isinstance(part, FramePart):
            return (0, self.num_frames) if part is None else self.span(*part)
        if part.first >= self.num_frames:
            raise VideoError(
                f"the part begins with frame {part.first}, and the video has frames 0 to {self.num_frames - 1}; "
                "expected a part within it. Look at the annotation, or whether the video is whole",
                code="too_few_frames",
                path=self.path,
            )
        return part.first, self.num_frames if part.stop is None else min(part.stop, self.num_frames)

    def first_from(self, seconds: float) -> int:
        """The number of the first frame that begins then or later; that of all frames where none does."""
        return bisect_left(range(self.num_frames), seconds - HAIR_SECONDS, key=self.begin_seconds)

    def stream(self, *, resize: Resize | None = None) -> Iterator[Clip]:
        """Read all frames in sequence, in clips of as many as fit in ``STREAM_BYTES``, one at least.

        All frames get one size: what ``resize`` makes of the first frame's, or that size itself. Raises ``VideoError``
        after the last frame that can be had, where more were announced (code ``truncated``) or there is none.
        """
        size = checked_size(*(resize(*self.size_px) if resize else self.size_px), self.path)
        count = frames_at_once(*size)
        for start in range(0, self.num_frames, count):
            yield self.read(range(start, min(start + count, self.num_frames)), resize=Resize("exact", *size))

    @abstractmethod
    def examine(self) -> Examination:
        """Decode every frame from the first to the last and see whether all are there and whole.

        No picture is kept, so that it needs the memory of a few frames. Raises ``VideoError`` only where the examining
        itself fails: a decoder that crashes, hangs or runs out of memory.
        """

    @property
    @abstractmethod
    def size_px(self) -> tuple[int, int]:
        """Height and width of the first frame, upright, in pixels."""

    @property
    def height_px(self) -> int:
        return self.size_px[0]

    @property
    def width_px(self) -> int:
        return self.size_px[1]

    def close(self) -> None:
        """Give back what is held open; ``with`` does it."""
        return

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


class PartOfVideo(Video):
    """The frames of a video that are in a part of it (``Video.frames_of``), numbered from the first of them."""

    def __init__(self, video: Video, part: Part) -> None:
        self._video, self.part = video, part
        self.path, self.random_access = video.path, video.random_access
        self._find()
        self.num_promised = self.num_frames

    def _find(self) -> None:
        video = self._video
        self._first, stop = video.frames_of(self.part)
        self.num_frames = stop - self._first
        lasts = video.duration_seconds if stop >= video.num_frames else video.begin_seconds(stop)
        self.duration_seconds = lasts - video.begin_seconds(self._first)

    def read(self, indices: Sequence[int], *, resize: Resize | None = None) -> Clip:
        try:
            clip = self._video.read([self._first + index for index in indices], resize=resize)
        except VideoError as error:
            if error.code == "truncated" and self._video.num_frames:
                self._find()  # in what there is
            raise
        return replace(
            clip,
            indices=tuple(int(index) for index in indices),
            num_frames=self.num_frames,
            num_promised=self.num_promised,
            duration_seconds=self.duration_seconds,
        )

    def begin_seconds(self, index: int) -> float:
        return self._video.begin_seconds(self._first + index) - self._video.begin_seconds(self._first)

    def frames_at(self, moments_seconds: Sequence[float]) -> list[int]:
        begin = self._video.begin_seconds(self._first)
        found = self._video.frames_at([begin + moment for moment in moments_seconds])
        return [min(max(number - self._first, 0), self.num_frames - 1) for number in found]

    def examine(self) -> Examination:
        return self._video.examine()

    @property
    def size_px(self) -> tuple[int, int]:
        return self._video.size_px

    def close(self) -> None:
        self._video.close()


HAIR_SECONDS = 1e-6
"""Times come from annotations in decimals and from files in ticks: a hair's breadth is no difference."""


def begins_too_late(start_seconds: float, lasts_seconds: float, path: str) -> VideoError:
    return VideoError(
        f"the part begins at {start_seconds:g} s, and the video lasts {lasts_seconds:g} s; expected a part within it. "
        "Look at the annotation, or whether the video is whole",
        code="too_few_frames",
        path=path,
    )


STREAM_BYTES = 1 << 24
"""Of the pixels of a clip, where a whole video is read clip by clip."""


def frames_at_once(height: int, width: int) -> int:
    """How many frames of this size go into a clip of a stream."""
    return max(1, STREAM_BYTES // (height * width * 3))


FOLDER_FRAMES_PER_SECOND = 12.0
"""Something-Something V1 and Jester ship folders of JPEG files at this rate, which nothing in the folder tells."""

TIMES_FILE = ".times.json"
"""In a folder of frames, when each is shown: {"frames": {"00001.jpg": [time, duration], ...}}, in seconds."""

RATE_VARIABLE = "SSAN_FRAMES_PER_SECOND"
"""The environment variable with the rate of folders that do not say it; ``--reader frames_per_second`` sets it."""


def assumed_rate() -> float | None:
    """The rate of folders of frames that do not say it, where the user has told it."""
    text = os.environ.get(RATE_VARIABLE, "").strip()
    if not text:
        return None
    try:
        rate = float(text)
    except ValueError:
        rate = 0.0
    if not 0 < rate <= 100_000:
        raise UsageError(f"frames_per_second is {quoted(text, 80)}; expected a number above 0, 100,000 at most")
    return rate


MOST_PIXELS = 1 << 27
"""Of one picture, 16,384 x 8,192; an 8K video has a quarter of it."""


def checked_size(height: int, width: int, path: str) -> tuple[int, int]:
    """A picture's height and width, unless it is too large to be one of a video.

    Headers can claim anything, and a picture of one pixel by ten thousand grows when its short side is to be 256.
    """
    if height * width > MOST_PIXELS:
        raise VideoError(
            f"a picture of {width} x {height} pixels is too large; expected {MOST_PIXELS} pixels at most. "
            "Leave it out, or make it smaller",
            code="decode_error",
            path=path,
        )
    return height, width


def positions_in_clip(indices: Sequence[int], path: str) -> dict[int, list[int]]:
    """For every frame number that is asked for: at which positions of the clip it goes."""
    if len(indices) == 0 or min(indices) < 0:
        raise UsageError(f"frames {list(indices)} were asked for; expected at least one, counted from 0", path=path)
    positions: dict[int, list[int]] = {}
    for position, index in enumerate(indices):
        positions.setdefault(int(index), []).append(position)
    return positions


def existing_path(path: str | os.PathLike[str]) -> str:
    """The path as text, if a folder or a file with something in it is there; an error that says what is not."""
    path = os.fspath(path)
    if os.path.isdir(path):
        return path
    if not os.path.exists(path):
        what = f"a link to {os.readlink(path)!r}, which does not exist" if os.path.islink(path) else "no such file"
        raise VideoError(f"{what}; expected a video file or a folder of frames", code="missing", path=path)
    if not os.path.isfile(path):
        raise VideoError("neither a file nor a folder; expected a video file", code="not_video", path=path)
    try:
        with open(path, "rb") as handle:
            empty = not handle.read(1)
    except OSError as error:
        raise cannot_open(path, error) from error
    if empty:
        raise VideoError(
            "the file is empty (zero bytes); expected a video. Copy or download it again", code="empty", path=path
        )
    return path


def cannot_open(path: str, error: OSError) -> VideoError:
    code = "missing" if isinstance(error, FileNotFoundError) else "decode_error"
    return VideoError(f"it cannot be opened: {error.strerror}. Look at its permissions", code=code, path=path)
