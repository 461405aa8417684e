"""The process in which videos are decoded, as it is seen from the one that reads them; its own side is ``apart``."""

import atexit
import contextlib
import math
import os
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self, TypeVar, cast

import numpy as np

from ssan.errors import UsageError, VideoError, shortened
from ssan.processes import memory_share
from ssan.video.clip import Clip, Examination, Resize, SecondsPart, Video
from ssan.video.messages import (
    LENGTH,
    MOST_BYTES,
    NotAnAnswerError,
    Pipes,
    checked,
    error_of,
    packed,
    plain_resize,
    unpacked,
)
from ssan.video.shared_memory import SharedSlots, shared_memory

LIMIT_SECONDS = 120.0
"""How much processor time opening a video, or reading one clip of it, may take, unless told otherwise."""

LIMIT_VARIABLE = "SSAN_DECODE_SECONDS"
"""The environment variable that sets another limit."""

CLOCK_FACTOR = 10
"""How many times the limit may pass by the clock: on a loaded machine or a slow disk work takes longer."""

LIMIT_BYTES = 4 << 30
"""How much memory a reader may have, where the system can hold it to that; 4K video takes a tenth of it."""

LEAST_BYTES = 1 << 30
"""What each has where many share the memory (``ssan.processes.memory_share``)."""


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
        while True:
            try:
                for clip in self._stream(how, done):
                    yield clip
                    done += len(clip.indices)
                break
            except _EndedError as ended:
                if ended.final or ended_at == done:
                    raise ended.about(self.path) from ended
                ended_at = done
        self.num_frames = done

    def _stream(self, how: list[Any] | None, skip: int) -> Iterator[Clip]:
        """The clips of a stream of its own, but for those with the first ``skip`` frames."""
        reader, done, stream = self._opened(), 0, None
        try:
            found, pixels = self._learning(partial(self._ask, reader, "stream", self._number, how))
            while found is not None:
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
        except _EndedError as ended:
            if ended.final:
                raise
        return ask()
    except _EndedError as ended:
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


class _EndedError(Exception):
    """The process apart has ended before it answered.

    :param final: whether it would do so again, so that trying once more is of no use.
    """

    def __init__(self, what: str, advice: str, *, final: bool = False) -> None:
        super().__init__(what)
        self.what, self.advice, self.final = what, advice, final

    def about(self, path: str) -> VideoError:
        twice = "" if self.final else ", and so did the next one"
        message = f"{self.what}{twice}; {self.advice}"
        return VideoError(message, code="decode_error", path=path)


LARGE_PAGES = "glibc.malloc.hugetlb=1"
"""Makes glibc (2.35 on) ask for large pages where the system gives them on demand; unknown to others, and ignored."""


class _Reader:
    """A process apart, seen from here; what is said is plain data (``ssan.video.messages``)."""

    def __init__(self) -> None:
        self.limit_bytes = memory_share(LIMIT_BYTES, min(LIMIT_BYTES, LEAST_BYTES))
        source = str(Path(__file__).parents[2])
        before = os.environ.get("PYTHONPATH")
        with shared_memory() as (file, memory):
            self.places = SharedSlots(memory) if memory is not None else None
            self._process = _start(
                [sys.executable, "-P", "-m", "ssan.video.decoder_server", str(os.getpid()), str(self.limit_bytes),
                 *([str(file)] if file else [])],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                pass_fds=(file,) if file else (),
                env={
                    # What one video's pictures took is kept for those of the next, up to 64 MB: asking the system for
                    # it again, page by page, is up to a fiftieth of the time.
                    "MALLOC_MMAP_THRESHOLD_": str(1 << 25),
                    "MALLOC_TRIM_THRESHOLD_": str(1 << 26),
                    **os.environ,
                    # Pictures that a decoder refers to lie in large pages of memory, where glibc has such: a twelfth of
                    # the time of decoding H.264, and less chance in it.
                    "GLIBC_TUNABLES": ":".join(filter(None, [os.environ.get("GLIBC_TUNABLES"), LARGE_PAGES])),
                    "PYTHONPATH": os.pathsep.join([source, *([before] if before else [])]),
                    "OPENBLAS_NUM_THREADS": "1",  # numpy would reserve memory for a thread per core
                },
                start_new_session=True,  # Ctrl-C is for this process to decide on
            )  # fmt: skip
        self._to, self._back = cast(IO[bytes], self._process.stdin), cast(IO[bytes], self._process.stdout)
        _widen(self._back)
        self._pipes = Pipes(self._to.fileno(), self._back.fileno())
        self._lock = threading.Lock()
        self._let_go: list[int] = []
        self.alive = True
        _living.add(self)

    def let_go(self, number: int) -> None:
        """Close a video, or end a stream; it is said with the next request and done after that one's answer: nobody
        waits for it.
        """
        self._let_go.append(number)

    def call(self, limit_seconds: float, path: str, *request: Any) -> tuple[Any, np.ndarray | None]:
        """Ask for something about ``path`` and wait for the answer and the pixels that come with it.

        :param limit_seconds: of processor time; by the clock it may take ``CLOCK_FACTOR`` times as long.
        :raises _EndedError: the process has ended meanwhile, or before.
        """
        with self._lock:
            if not self.alive:
                raise _EndedError("the process that had it open has ended on another video", "open it again")
            try:
                closed, self._let_go = self._let_go, []
                place = self.places.choose() if self.places is not None else 0
                self._pipes.until = time.monotonic() + CLOCK_FACTOR * limit_seconds
                self._pipes.send(packed([closed, limit_seconds, place, *request]))
                kind, content, pixels = self._receive(place, request)
            except TimeoutError as error:
                self.kill()
                self.stop()
                raise _EndedError(
                    f"reading it took more than {CLOCK_FACTOR * limit_seconds:g} seconds by the clock and was stopped",
                    f"expected less. {MORE_TIME}",
                    final=True,
                ) from error
            except (EOFError, OSError, NotAnAnswerError) as error:
                raise self._end(limit_seconds, isinstance(error, NotAnAnswerError)) from error
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

    def _receive(self, place: int, request: Sequence[Any]) -> tuple[str, Any, np.ndarray | None]:
        (length,) = LENGTH.unpack(self._pipes.take(LENGTH.size))
        if length > MOST_BYTES:
            raise NotAnAnswerError
        message = unpacked(self._pipes.take(length))
        if not isinstance(message, list) or len(message) != 3:
            raise NotAnAnswerError
        kind, content, shape = message
        if kind == "error":
            return kind, error_of(content), None
        if kind in ("memory", "defect"):
            return kind, content, None
        if kind != "ok":
            raise NotAnAnswerError
        content = checked(request, content, shape)
        return kind, content, None if shape is None else self._pixels(place, tuple(shape))

    def _pixels(self, place: int, shape: tuple[int, ...]) -> np.ndarray:
        shared = self.places.take(place, shape) if self.places is not None else None
        if shared is not None:
            return shared
        array = np.empty(shape, np.uint8)
        self._pipes.fill(array.reshape(-1).data)
        return array

    def _end(self, limit_seconds: float, nonsense: bool) -> _EndedError:
        """What to say of a process that has ended in the middle of a request."""
        self.stop()
        code = self._process.wait()
        if nonsense:
            return _EndedError("the decoder answered something else than was asked", f"expected an answer. {LEAVE_OUT}")
        if code == -getattr(signal, "SIGPROF", 0):
            what = f"reading it took more than {limit_seconds:g} seconds of processor time and was stopped"
            return _EndedError(what, f"expected less. {MORE_TIME}", final=True)
        if code in (-getattr(signal, "SIGKILL", 9), -signal.SIGTERM):
            return _EndedError(
                f"the process that decodes it was ended from outside ({signal.Signals(-code).name}), perhaps because "
                "memory ran out",
                f"expected it to last. Use fewer --workers, or free memory. {LEAVE_OUT}",
            )
        if code < 0:
            what = f"the decoder crashed on it ({signal.Signals(-code).name})"
            return _EndedError(what, f"expected a whole video. {LEAVE_OUT}")
        return _EndedError(f"the process that decodes ended with status {code}", f"expected an answer. {LEAVE_OUT}")

    def kill(self) -> None:
        """End the process while another thread waits for its answer, which then finds out."""
        self._process.kill()

    def stop(self) -> None:
        """End the process: it does so by itself when its standard input is closed, and is made to if it does not."""
        self.alive = False
        for pipe in (self._to, self._back):
            with contextlib.suppress(OSError):
                pipe.close()
        try:
            self._process.wait(0.5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


LEAVE_OUT = "Leave it out, or convert it to H.264"
MORE_TIME = f"Leave it out, convert it to H.264, or set {LIMIT_VARIABLE} to more seconds"


_starter: ThreadPoolExecutor | None = None


def _start(command: list[str], **options: Any) -> "subprocess.Popen[bytes]":
    """Start a process from a thread that lasts as long as this process: a kernel that is to kill the one when its
    parent ends takes the thread for the parent.
    """
    global _starter
    if _starter is None:
        _starter = ThreadPoolExecutor(1, thread_name_prefix="starts readers")
    return _starter.submit(lambda: subprocess.Popen(command, **options)).result()


def _widen(pipe: IO[bytes]) -> None:
    """Let more bytes of a picture into a pipe at a time, where the system can: both sides have to wake less often."""
    with contextlib.suppress(ImportError, AttributeError, OSError):
        import fcntl

        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, 1 << 20)


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
            raise _EndedError("reading was ended", "expected to be waited for", final=True)

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
    """Before a fork: the clips that there are will be two processes' clips, and their pixels in the same memory."""
    for reader in _living:
        if reader.places is not None:
            reader.places.keep_lent()


def _leave_to_parent() -> None:
    """After a fork the reader is still the parent's: it is neither used nor ended here."""
    global _reader, _starter
    _parents.append(_reader)
    _reader = _starter = None


def _stop() -> None:
    if _reader is not None:
        _reader.stop()


atexit.register(_stop)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_keep_lent, after_in_child=_leave_to_parent)
