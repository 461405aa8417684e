"""Reading videos: frames by number out of a file or a folder of pictures, decoded in a process apart.

A decoder is a large program in C that is fed with other people's files. Ours runs in a process of its own, so that a
file that makes it crash, hang, or ask for all memory costs this process an error that names the file and no more. Each
process that reads videos has one such reader, which starts when the first video is opened (about 0.2 seconds), serves
one request after another, and ends with it; threads that read side by side have one each (``OwnReader``). Pixels come
back in memory that both processes see, where the system has such: a slot of it belongs to one clip until the last view
of its frames is gone.

Before a video is blamed for the end of its reader, what was asked for is tried once more in a new one: it may have been
another program, or the want of memory, that has ended it.
"""

import atexit
import math
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from types import TracebackType
from typing import Any, Self, TypeVar, cast

import numpy as np

from ssan.errors import UsageError, VideoError, shortened
from ssan.video.clip import Clip, Examination, Part, PartOfVideo, Resize, SecondsPart, Video
from ssan.video.decoder_connection import Connection, NotAnAnswerError, plain_resize
from ssan.video.decoder_process import LIMIT_VARIABLE, MORE_TIME, DecoderEndedError, DecoderProcess

LIMIT_SECONDS = 120.0
"""How much processor time opening a video, or reading one clip of it, may take, unless told otherwise."""

CLOCK_FACTOR = 10
"""How many times the limit may pass by the clock: on a loaded machine or a slow disk work takes longer."""


def open_video(
    path: str | os.PathLike[str],
    *,
    frames_per_second: float | None = None,
    threads: int = 1,
    limit_seconds: float | None = None,
    apart: bool = True,
    part: SecondsPart | None = None,
) -> Video:
    """Open a video file, a folder that directly holds JPEG or PNG files, one per frame, or ``x.clips/a``: video ``a``
    of the clip file ``x.clips`` (``ssan.video.clip_file``).

    ``frames_per_second`` is for folders, 12 unless given; a file knows its own. ``threads`` is for files: more than one
    helps when a single video is read, and hurts when several processes read one each. ``limit_seconds`` of processor
    time may be spent on opening it and on each clip, by default ``LIMIT_SECONDS`` or what the environment variable
    SSAN_DECODE_SECONDS says. ``apart=False`` decodes in this process, without the limits of time and memory. Of a
    ``part`` of a file, in seconds, the video that is given has the frames alone, numbered from the first of them
    (``ssan.video.part``); folders and clip files are opened whole.

    :raises VideoError: it cannot be read; the code says why.
    """
    path = os.fspath(path)
    if ".clips" in path:
        from ssan.video.clip_file import open_clip_video, split_path

        inside = split_path(path)
        if inside:
            return open_clip_video(path, *inside)
    if os.path.isdir(path):
        from ssan.video.folder import FrameFolder

        if not apart:
            return FrameFolder(path, frames_per_second=frames_per_second)
        limit = limit_of(limit_seconds)
        return FrameFolder(
            path,
            frames_per_second=frames_per_second,
            decode=lambda files: pictures_of(path, files, limit),
            look=lambda file: look_at_picture(file, limit),
        )
    if apart:
        return VideoApart(path, threads=threads, limit_seconds=limit_seconds, part=part)
    from ssan.video.part import open_file

    return open_file(path, threads=threads, part=part)


def read_clip(
    path: str | os.PathLike[str],
    choose: Callable[[int], Sequence[int]],
    *,
    part: Part | None = None,
    resize: Resize | None = None,
    frames_per_second: float | None = None,
    threads: int = 1,
    limit_seconds: float | None = None,
    apart: bool = True,
) -> Clip:
    """Open a video, let ``choose`` pick frame numbers from the number of frames that there are, and read those.

    Of a ``part`` of the video (``Video.frames_of``) ``choose`` is given the number of frames in the part, and counts
    from its first one. So do the clip's ``indices``; its ``num_frames``, ``num_promised`` and ``duration_seconds`` are
    those of the part: what a long video is as a whole, reading a part of it need not find out.

    A file can promise more frames than decode. If the choice reaches beyond those that do, ``choose`` is asked once
    more with the true number; the clip then has ``num_frames < num_promised``.
    """
    return read_chosen(
        path,
        lambda video: choose(video.num_frames),
        part=part,
        resize=resize,
        frames_per_second=frames_per_second,
        threads=threads,
        limit_seconds=limit_seconds,
        apart=apart,
    )


def read_chosen(
    path: str | os.PathLike[str],
    choose: Callable[[Video], Sequence[int]],
    *,
    part: Part | None = None,
    resize: Resize | None = None,
    frames_per_second: float | None = None,
    threads: int = 1,
    limit_seconds: float | None = None,
    apart: bool = True,
) -> Clip:
    """As ``read_clip``, where ``choose`` is given the video itself, or the part, and can ask it for times as well."""
    part = None if part == (None, None) else part
    seconds = part if isinstance(part, tuple) else None
    video = open_video(
        path,
        frames_per_second=frames_per_second,
        threads=threads,
        limit_seconds=limit_seconds,
        apart=apart,
        part=seconds,
    )
    try:
        if part is not None and video.part is None:
            video = PartOfVideo(video, part)
        try:
            return video.read(choose(video), resize=resize)
        except VideoError as error:
            if error.code != "truncated" or video.num_frames == 0:
                raise
        return video.read(choose(video), resize=resize)
    finally:
        video.close()


def limit_of(seconds: float | None) -> float:
    """The limit of processor time, as given, by the environment, or ``LIMIT_SECONDS``."""
    name, said = "limit_seconds", str(seconds)
    if seconds is None:
        name, said = LIMIT_VARIABLE, os.environ.get(LIMIT_VARIABLE, "").strip()
        try:
            seconds = float(said) if said else LIMIT_SECONDS
        except ValueError:
            seconds = math.nan
    if not 0 < seconds < 1e9:
        raise UsageError(f"{name} is {shortened(said, 80)}; expected seconds, more than 0")
    return seconds


class VideoApart(Video):
    """A video file that the process apart has open; where that has ended, it is opened again in a new one."""

    def __init__(
        self, path: str, *, threads: int = 1, limit_seconds: float | None = None, part: SecondsPart | None = None
    ) -> None:
        self.path, self._limit, self._threads, self.part = path, limit_of(limit_seconds), threads, part
        self._where = _where(path)
        self._reader: _Reader | None = None
        twice(self._opened, path)

    def _opened(self) -> "_Reader":
        """The process that has the video open."""
        if self._reader is None or not self._reader.alive:
            reader = _own_reader()
            answer, _ = reader.call(self._limit, self.path, "open", self._where, self.path, self._threads, self.part)
            self._number, num_frames, self.num_promised, self.duration_seconds, self.random_access = answer
            if self._reader is None:
                self.num_frames = num_frames  # later it may be known better
            self._reader = reader
        return self._reader

    @property
    def size_px(self) -> tuple[int, int]:
        return cast(tuple[int, int], self._call("size")[0])

    def read(self, indices: Sequence[int], *, resize: Resize | None = None) -> Clip:
        numbers = tuple(int(index) for index in indices)
        clip = self._clip(*self._call("pictures", numbers, plain_resize(resize)), numbers)
        self.num_frames = max(self.num_frames, max(numbers) + 1)
        return clip

    def stream(self, *, resize: Resize | None = None) -> Iterator[Clip]:
        how, done, ended_at = plain_resize(resize), 0, -1
        while True:  # begun again where a decoder has ended, unless two have at the same frame
            try:
                for clip in self._stream(how, done):
                    yield clip
                    done += len(clip.indices)
                break
            except DecoderEndedError as ended:
                if ended.final or ended_at == done:
                    raise ended.about(self.path) from ended
                ended_at = done
        self.num_frames = done

    def _stream(self, how: list[Any] | None, skip: int) -> Iterator[Clip]:
        """The clips of a stream of its own, but for those with the first ``skip`` frames."""
        reader, done, stream = self._opened(), 0, None
        try:
            found, pixels = self._learning(partial(self._ask, reader, "stream", self._number, how))
            while found is not None:  # each clip is asked for when it is wanted: the next one takes memory
                stream, done = found[0], done + len(pixels)
                if done > skip:
                    yield self._clip(found, pixels, range(done - len(pixels), done))
                found, pixels = self._learning(partial(self._ask, reader, "more", stream))
            stream = None
        finally:
            if stream is not None:
                reader.let_go(stream)

    def _clip(self, found: list[Any], pixels: np.ndarray, numbers: Sequence[int]) -> Clip:
        import torch

        _, times, durations = found
        return Clip(
            frames=torch.from_numpy(pixels).permute(0, 3, 1, 2),
            indices=tuple(numbers),
            times_seconds=tuple(times),
            durations_seconds=tuple(durations),
            num_frames=self.num_frames,
            num_promised=self.num_promised,
            duration_seconds=self.duration_seconds,
            path=self.path,
        )

    def begin_seconds(self, index: int) -> float:
        return cast(float, self._call("begin", index)[0])

    def span_seconds(self, start_seconds: float | None, end_seconds: float | None) -> tuple[int, int]:
        return cast(tuple[int, int], self._call("span", start_seconds, end_seconds)[0])

    def frames_at(self, moments_seconds: Sequence[float]) -> list[int]:
        return cast(list[int], self._call("frames_at", list(moments_seconds))[0])

    def examine(self) -> Examination:
        found: Examination | None = None
        while found is None:  # in stretches of about a second, each with the whole limit of time
            found = self._call("examine")[0]
        self.num_frames = found.frames_decoded
        return found

    def close(self) -> None:
        if self._reader is not None:
            self._reader.let_go(self._number)

    def _call(self, verb: str, *arguments: Any) -> tuple[Any, Any]:
        def ask() -> tuple[Any, Any]:
            reader = self._opened()
            return self._learning(partial(self._ask, reader, verb, self._number, *arguments))

        return twice(ask, self.path)

    def _ask(self, reader: "_Reader", verb: str, *arguments: Any) -> tuple[Any, Any]:
        return reader.call(self._limit, self.path, verb, *arguments)

    def _learning(self, ask: Callable[[], "Answer"]) -> "Answer":
        """What was asked for; where it went wrong, that may have shown how many frames there are."""
        try:
            return ask()
        except VideoError:
            if self._reader is not None and self._reader.alive:
                self.num_frames, _ = self._ask(self._reader, "num_frames", self._number)
            raise


Answer = TypeVar("Answer")


def twice(ask: Callable[[], Answer], path: str) -> Answer:
    """The answer; where the process apart ends before it comes, that of the next one.

    :raises VideoError: that one has ended too, or the first for want of time.
    """
    try:
        try:
            return ask()
        except DecoderEndedError as ended:
            if ended.final:
                raise
        return ask()
    except DecoderEndedError as ended:
        raise ended.about(path) from ended


def pictures_of(path: str, files: Sequence[str], limit_seconds: float) -> np.ndarray:
    """Picture files of the folder ``path`` as (n, h, w, 3): so many from the first on as have its size."""

    def ask() -> np.ndarray:
        _, pixels = _own_reader().call(limit_seconds, path, "files", _where(path), list(files))
        return cast(np.ndarray, pixels)

    return twice(ask, path)


def look_at_picture(file: str, limit_seconds: float) -> None:
    """Decode a picture and keep nothing of it."""
    twice(lambda: _own_reader().call(limit_seconds, file, "look", _where(file), file), file)


class _Reader(DecoderProcess):
    """A decoder process that can be asked; what is said is plain data (``ssan.video.decoder_connection``)."""

    def __init__(self) -> None:
        super().__init__()
        self._connection = Connection(self._to.fileno(), self._back.fileno(), self.memory)
        self._lock = threading.Lock()
        self._let_go: list[int] = []
        _living.add(self)

    def let_go(self, number: int) -> None:
        """Close a video, or end a stream; it is said with the next request and done after that one's answer: nobody
        waits for it.
        """
        self._let_go.append(number)

    def call(self, limit_seconds: float, path: str, *request: Any) -> tuple[Any, np.ndarray | None]:
        """Ask for something about ``path`` and wait for the answer and the pixels that come with it.

        :param limit_seconds: of processor time; by the clock it may take ``CLOCK_FACTOR`` times as long.
        :raises DecoderEndedError: the process has ended meanwhile, or before.
        """
        with self._lock:
            if not self.alive:
                raise DecoderEndedError("the process that had it open has ended on another video", "open it again")
            try:
                closed, self._let_go = self._let_go, []
                until = time.monotonic() + CLOCK_FACTOR * limit_seconds
                kind, content, pixels = self._connection.ask(closed, limit_seconds, request, until=until)
            except TimeoutError as error:
                self.kill()
                self.stop()
                raise DecoderEndedError(
                    f"reading it took more than {CLOCK_FACTOR * limit_seconds:g} seconds by the clock and was stopped",
                    f"expected less. {MORE_TIME}",
                    final=True,
                ) from error
            except (EOFError, OSError, NotAnAnswerError) as error:
                raise self.end_of(limit_seconds, nonsense=isinstance(error, NotAnAnswerError)) from error
            except BaseException:
                # Interrupted between a question and its answer: the next answer would be to this question.
                self.stop()
                raise
        if kind == "error":
            raise content
        if kind == "memory":
            raise VideoError(
                f"decoding it takes more memory than a video may have ({self.limit_bytes / 2**30:.3g} GB); expected "
                "smaller pictures, or fewer at a time. Leave it out, or convert it to H.264",
                code="decode_error",
                path=path,
            )
        if kind == "defect":
            raise RuntimeError(f"reading {path} failed in a way that is a defect of ssan:\n{content}")
        return content, pixels

    def keep_lent(self) -> None:
        """Before a fork: the clips that there are will be two processes' clips, and their pixels in the same memory."""
        if self._connection.slots is not None:
            self._connection.slots.keep_lent()


def _where(path: str) -> str | None:
    """The folder that a path is relative to, which is this process's and may have changed since the reader's start."""
    return None if os.path.isabs(path) else os.getcwd()


_reader: _Reader | None = None
_living: weakref.WeakSet[_Reader] = weakref.WeakSet()
_parents: list[_Reader | None] = []
_of_thread = threading.local()


class OwnReader:
    """Gives the thread that enters it a reader apart from that of the process: several threads then read side by side.

    The decoding is done by the readers, so threads are enough to keep all cores busy. ``end``, which any thread may
    call, makes what the reader is doing fail at once.
    """

    def __init__(self) -> None:
        self.current: _Reader | None = None
        self.ended = False

    def __enter__(self) -> Self:
        _of_thread.own = self
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        _of_thread.own = None
        if self.current is not None:
            self.current.stop()

    def reader(self) -> _Reader:
        self._go_on()
        if self.current is None or not self.current.alive:
            self.current = _Reader()
            self._go_on()  # it may have been ended meanwhile
        return self.current

    def _go_on(self) -> None:
        if self.ended:
            if self.current is not None:
                self.current.kill()
            raise DecoderEndedError("reading was ended", "expected to be waited for", final=True)

    def end(self) -> None:
        self.ended = True
        if self.current is not None:
            self.current.kill()


def _own_reader() -> _Reader:
    """The reader of this thread, or of this process; a new one if there is none yet, or if it has ended."""
    global _reader
    own = getattr(_of_thread, "own", None)
    if own is not None:
        return cast(_Reader, own.reader())
    if _reader is None or not _reader.alive:
        _reader = _Reader()
    return _reader


def _keep_lent() -> None:
    for reader in _living:
        reader.keep_lent()


def _leave_to_parent() -> None:
    """After a fork the reader is still the parent's: it is neither used nor ended here."""
    global _reader
    _parents.append(_reader)
    _reader = None


def _stop() -> None:
    if _reader is not None:
        _reader.stop()


atexit.register(_stop)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_keep_lent, after_in_child=_leave_to_parent)
