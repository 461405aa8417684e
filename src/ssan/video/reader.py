"""Reading videos: frames by number out of a file or a folder of pictures, decoded in a process apart.

A decoder is a large program in C that is fed with other people's files. Ours runs in a process of its own, so that a
file that makes it crash, hang, or ask for all memory costs this process an error that names the file and no more. Each
process that reads videos has one such reader, which starts when the first video is opened (about 0.2 seconds), serves
one request after another, and ends with it; threads that read side by side have one each (``OwnReader``). Pixels come
back in memory that both processes see, where the system has such: a place of it belongs to one clip until the last view
of its frames is gone.
"""

import atexit
import contextlib
import io
import math
import mmap
import os
import pickle
import signal
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any, NamedTuple, Self, cast

import numpy as np

from ssan.errors import VideoError
from ssan.video.clip import Clip, Examination, Part, PartOfVideo, Resize, Video

LIMIT_SECONDS = 120.0
"""How long opening a video, or reading one clip of it, may take."""

LIMIT_BYTES = 4 << 30
"""How much memory the reader may have, where the system can hold it to that; 4K video takes a tenth of it."""


def open_video(
    path: str | os.PathLike[str],
    *,
    frames_per_second: float | None = None,
    threads: int = 1,
    limit_seconds: float = LIMIT_SECONDS,
    apart: bool = True,
    part: Part | None = None,
) -> Video:
    """Open a video file, a folder that directly holds JPEG or PNG files, one per frame, or ``x.clips/a``: video ``a``
    of the clip file ``x.clips`` (``ssan.video.clip_file``).

    ``frames_per_second`` is for folders, 12 unless given; a file knows its own. ``threads`` is for files: more than one
    helps when a single video is read, and hurts when several processes read one each. ``apart=False`` decodes in this
    process, without the limits of time and memory. Of a ``part`` of a file the video that is given has the frames
    alone, numbered from the first of them (``ssan.video.part``); folders and clip files are opened whole.

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

        def decode(files: Sequence[str]) -> np.ndarray:
            (pixels,) = _own_reader().call(limit_seconds, path, "files", _where(path), list(files))
            return cast(np.ndarray, pixels)

        def look(file: str) -> None:
            _own_reader().call(limit_seconds, file, "look", _where(file), file)

        if not apart:
            return FrameFolder(path, frames_per_second=frames_per_second)
        return FrameFolder(path, frames_per_second=frames_per_second, decode=decode, look=look)
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
    limit_seconds: float = LIMIT_SECONDS,
    apart: bool = True,
) -> Clip:
    """Open a video, let ``choose`` pick frame numbers from the number of frames that there are, and read those.

    Of a ``part`` of the video (``Video.frames_of``) ``choose`` is given the number of frames in the part, and counts
    from its first one. So do the clip's ``indices``, and its ``num_frames``, ``num_promised`` and ``duration_seconds`` are
    those of the part: what a long video is as a whole, reading a part of it need not find out.

    A file can promise more frames than decode. If the choice reaches beyond those that do, ``choose`` is asked once
    more with the true number; the clip then has ``num_frames < num_promised``.
    """
    part = None if part == (None, None) else part
    video = open_video(
        path, frames_per_second=frames_per_second, threads=threads, limit_seconds=limit_seconds, apart=apart,
        part=part if isinstance(part, tuple) else None,
    )
    try:
        if part is not None and video.part is None:
            video = PartOfVideo(video, part)
        try:
            return video.read(choose(video.num_frames), resize=resize)
        except VideoError as error:
            if error.code != "truncated" or video.num_frames == 0:
                raise
        return video.read(choose(video.num_frames), resize=resize)
    finally:
        video.close()


class VideoApart(Video):
    """A video file that the process apart has open."""

    def __init__(
        self, path: str, *, threads: int = 1, limit_seconds: float = LIMIT_SECONDS, part: Part | None = None
    ) -> None:
        self.path, self._limit, self.part = path, limit_seconds, part
        self._reader = _own_reader()
        answer = self._reader.call(limit_seconds, path, "open", _where(path), path, threads, part)
        self._number, self.num_frames, self.num_promised, self.duration_seconds, *rest = answer
        self.random_access, self._announced = rest

    @property
    def size_px(self) -> tuple[int, int]:
        return cast(tuple[int, int], self._call("size"))

    def read(self, indices: Sequence[int], *, resize: Resize | None = None) -> Clip:
        numbers = tuple(int(index) for index in indices)
        return self._clip(self._call("pictures", numbers, self._sizes(resize), resize=resize), numbers)

    def stream(self, *, resize: Resize | None = None) -> Iterator[Clip]:
        done = 0
        pictures = self._call("stream", self._sizes(resize), resize=resize)
        while pictures is not None:
            stop = done + len(pictures[0])
            yield self._clip(pictures, range(done, stop))
            done = stop
            pictures = self._call("more", resize=resize)
        self.num_frames = done

    def _sizes(self, resize: Resize | None) -> "tuple[Size, Size | None] | None":
        """The announced size and what becomes of it: the other process asks only where a picture has another."""
        return (self._announced, resize(*self._announced) if all(self._announced) else None) if resize else None

    def _clip(self, pictures: tuple[np.ndarray, Sequence[float], Sequence[float]], numbers: Sequence[int]) -> Clip:
        import torch

        pixels, times, durations = pictures
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
        return cast(float, self._call("begin", index))

    def span(self, start_seconds: float | None, end_seconds: float | None) -> tuple[int, int]:
        return cast(tuple[int, int], self._call("span", start_seconds, end_seconds))

    def examine(self) -> Examination:
        found: Examination | None = None
        while found is None:  # in stretches of about a second, each with the whole limit of time
            found = self._call("examine")
        self.num_frames = found.frames_decoded
        return found

    def close(self) -> None:
        self._reader.let_go(self._number)

    def _call(self, verb: str, *arguments: Any, resize: Resize | None = None) -> Any:
        try:
            answer = self._reader.call(self._limit, self.path, verb, self._number, *arguments, resize=resize)
        except VideoError:
            # What went wrong may have shown how many frames there are.
            if self._reader.alive:
                self.num_frames = self._reader.call(self._limit, self.path, "num_frames", self._number)
            raise
        if verb == "pictures":
            self.num_frames = max(self.num_frames, max(arguments[0]) + 1)
        return answer


Size = tuple[int, int]
"""Height and width, in pixels."""


class Array(NamedTuple):
    """Stands in an answer for an array of bytes: in the shared memory where it fits, else they follow as they are."""

    shape: tuple[int, ...]


LARGE_PAGES = "glibc.malloc.hugetlb=1"
"""Makes glibc (2.35 on) ask for large pages where the system gives them on demand; unknown to others, and ignored."""

NUM_PLACES = 4
"""Of the memory that both processes see. Each holds the pixels of one clip, as long as somebody has it."""

PLACE_BYTES = 1 << 28
"""Room of a place: eight pictures of 4K. It is taken up when it is written to."""

KEPT_BYTES = 1 << 23
"""How much of a place stays taken up when nobody has its pixels any more."""


def shared_array(memory: mmap.mmap | None, place: int, shape: tuple[int, ...]) -> np.ndarray | None:
    """Bytes of this shape at a place of the shared memory; None where they do not fit or there is none."""
    count = math.prod(shape)
    if memory is None or count > len(memory) // NUM_PLACES:
        return None
    return np.frombuffer(memory, np.uint8, count, place * (len(memory) // NUM_PLACES)).reshape(shape)


class _Places:
    """The places of the shared memory, lent to the clips whose pixels are there: a copy would cost a few percent.

    The first place is not lent. It is for when all others are, and its pixels are copied.
    """

    def __init__(self, memory: mmap.mmap) -> None:
        self._memory, self._owner = memory, os.getpid()
        self._free = list(range(1, NUM_PLACES))
        self._lent: set[int] = set()

    def choose(self) -> int:
        return self._free[-1] if self._free else 0

    def take(self, place: int, shape: tuple[int, ...]) -> np.ndarray | None:
        """The pixels of this shape at a place that was chosen; it is free again when the last view of them is gone."""
        array = shared_array(self._memory, place, shape)
        if array is None:
            return None
        if place == 0:
            array = array.copy()
            self._clear(place, array.size)
            return array
        self._free.remove(place)
        self._lent.add(place)
        # A reshaped array has the flat one as its base, and so have its views and the tensors made of them.
        weakref.finalize(array.base, self._give_back, place, array.size).atexit = False
        return array

    def keep_lent(self) -> None:
        """Never use again what is lent now: a process about to be forked off has it too."""
        self._lent.clear()

    def _give_back(self, place: int, size: int) -> None:
        if place in self._lent and os.getpid() == self._owner:
            self._lent.remove(place)
            self._clear(place, size)
            self._free.append(place)

    def _clear(self, place: int, size: int) -> None:
        if size > KEPT_BYTES:
            room = len(self._memory) // NUM_PLACES
            self._memory.madvise(mmap.MADV_REMOVE, place * room + KEPT_BYTES, room - KEPT_BYTES)


@contextlib.contextmanager
def _shared_memory() -> Iterator[tuple[int, mmap.mmap] | tuple[None, None]]:
    """Memory that a process started meanwhile can map too, by its number as an open file; None where there is none."""
    file = memory = None
    if hasattr(os, "memfd_create") and hasattr(mmap, "MADV_REMOVE"):
        with contextlib.suppress(OSError):
            file = os.memfd_create("ssan")
            os.ftruncate(file, NUM_PLACES * PLACE_BYTES)
            memory = mmap.mmap(file, NUM_PLACES * PLACE_BYTES)
    try:
        # The numbers to 2 are those of the standard streams, which the process started has its own for.
        yield (file, memory) if file is not None and file > 2 and memory is not None else (None, None)
    finally:
        if file is not None:
            os.close(file)


class _Reader:
    """A process apart, seen from here: requests and answers are pickled."""

    def __init__(self) -> None:
        source = str(Path(__file__).parents[2])
        before = os.environ.get("PYTHONPATH")
        with _shared_memory() as (file, memory):
            self.places = _Places(memory) if memory is not None else None
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "ssan.video.apart", str(LIMIT_BYTES), *([str(file)] if file else [])],
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
            )
        self._to, self._back = cast(IO[bytes], self._process.stdin), cast(io.BufferedReader, self._process.stdout)
        _widen(self._back)
        self._lock = threading.Lock()
        self._let_go: list[int] = []
        self.alive = True
        _living.add(self)

    def let_go(self, number: int) -> None:
        """Close a video; it is said with the next request and done after that one's answer: nobody waits for it."""
        self._let_go.append(number)

    def call(self, limit_seconds: float, path: str, *request: Any, resize: Resize | None = None) -> Any:
        """Ask for something about ``path`` and wait for the answer, up to ``limit_seconds``."""
        with self._lock:
            if not self.alive:
                raise VideoError(
                    "the process that had it open has crashed on another video; open it again",
                    code="decode_error",
                    path=path,
                )
            try:
                closed, self._let_go = self._let_go, []
                place = self.places.choose() if self.places is not None else 0
                kind, content = self._exchange(place, (closed, limit_seconds, place, *request), resize)
            except (EOFError, OSError, pickle.UnpicklingError) as error:
                raise self._end(limit_seconds, path) from error
            except BaseException:
                # Interrupted between a question and its answer: the next answer would be to this question.
                self.stop()
                raise
        if kind == "error":
            raise content
        if kind == "memory":
            raise VideoError(
                f"decoding it takes more memory than a video may have ({LIMIT_BYTES >> 30} GB); expected smaller "
                "pictures, or fewer at a time. Leave it out, or convert it to H.264",
                code="decode_error",
                path=path,
            )
        if kind == "defect":
            raise RuntimeError(f"reading {path} failed in a way that is a defect of ssan:\n{content}")
        return content

    def _exchange(self, place: int, request: tuple[Any, ...], resize: Resize | None) -> tuple[str, Any]:
        self._send(request)
        kind, content = pickle.load(self._back)
        if kind == "resize":
            assert resize is not None
            self._send(resize(*content))
            kind, content = pickle.load(self._back)
        if isinstance(content, tuple) and content and isinstance(content[0], Array):
            content = (self._receive(place, content[0].shape), *content[1:])
        return kind, content

    def _send(self, message: Any) -> None:
        pickle.dump(message, self._to)
        self._to.flush()

    def _receive(self, place: int, shape: tuple[int, ...]) -> np.ndarray:
        shared = self.places.take(place, shape) if self.places is not None else None
        if shared is not None:
            return shared
        array = np.empty(shape, np.uint8)
        view = array.reshape(-1).data
        while len(view):
            count = self._back.readinto(view)
            if not count:
                raise EOFError
            view = view[count:]
        return array

    def _end(self, limit_seconds: float, path: str) -> VideoError:
        """What to say of a process that has ended in the middle of a request."""
        self.stop()
        code = self._process.wait()
        if code == -getattr(signal, "SIGALRM", 0):
            what = f"reading it took more than {limit_seconds:g} seconds and was stopped; expected less"
        elif code < 0:
            what = f"the decoder crashed on it ({signal.Signals(-code).name}); expected a whole video"
        else:
            what = f"the process that decodes ended with status {code}; expected an answer"
        return VideoError(f"{what}. Leave it out, or convert it to H.264", code="decode_error", path=path)

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
        if self.current is None or not self.current.alive:
            self.current = _Reader()
            if self.ended:  # meanwhile
                self.current.kill()
        return self.current

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
    global _reader
    _parents.append(_reader)
    _reader = None


def _stop() -> None:
    if _reader is not None:
        _reader.stop()


atexit.register(_stop)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_keep_lent, after_in_child=_leave_to_parent)
