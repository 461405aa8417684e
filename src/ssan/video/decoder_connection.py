"""Connection of the process that reads videos with the one that decodes: what both know of it, and the reader's end.

What they say to each other is plain data, JSON after its length, through pipes. Pixels are in memory that both see,
where the system has such and they fit in there; else they follow the answer through the pipe.

A decoder is fed with other people's files and may be made to say anything: what it says is never run, and what is used
of it is looked at first (``checked``).
"""

import contextlib
import json
import math
import mmap
import os
import select
import struct
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from ssan.errors import SsanError, UsageError, VideoError
from ssan.video.clip import MOST_PIXELS, Examination, Resize

# ------------------------------------------------------------------------------------------------------------- messages


LENGTH = struct.Struct("<I")

MOST_BYTES = 1 << 28
"""Of a message, pixels aside: the times of some million frames."""

KINDS: dict[str, type[SsanError]] = {"UsageError": UsageError, "VideoError": VideoError}


class NotAnAnswerError(Exception):
    """The other process has said something else than was asked."""


def packed(message: Any) -> bytes:
    """A message as bytes. Names of files that are not UTF-8 come through."""
    content = json.dumps(message).encode()
    return LENGTH.pack(len(content)) + content


def unpacked(content: bytes | bytearray | memoryview) -> Any:
    try:
        return json.loads(bytes(content))
    except (ValueError, RecursionError) as error:
        raise NotAnAnswerError from error


def plain_error(error: SsanError) -> dict[str, Any]:
    return {"kind": "UsageError" if isinstance(error, UsageError) else "VideoError", **error.as_dict()}


def error_of(content: Any) -> SsanError:
    """The error that ``plain_error`` has made plain."""
    try:
        kind, message = KINDS[content["kind"]], content["message"]
        code, path, line = content["code"], content["path"], content["line"]
        _check(isinstance(message, str) and (path is None or isinstance(path, str)))
        return kind(message, code=code, path=path, line=line)
    except (KeyError, TypeError, ValueError) as error:
        raise NotAnAnswerError from error


def plain_resize(resize: Resize | None) -> list[Any] | None:
    if resize is None:
        return None
    if not isinstance(resize, Resize):
        raise UsageError(f"resize is a {type(resize).__name__}; expected a Resize, such as Resize('square', 224)")
    return [resize.mode, resize.size_px, resize.width_px, resize.tallest_px, resize.multiple]


def resize_of(content: Any) -> Resize | None:
    return None if content is None else Resize(*content)


def plain_examination(found: Examination | None) -> list[Any] | None:
    if found is None:
        return None
    error = None if found.error is None else plain_error(found.error)
    return [found.frames_promised, found.frames_decoded, found.at_seconds, error]


# ---------------------------------------------------------------------------------------------------- checks of answers


def checked(request: Sequence[Any], content: Any, shape: Any) -> Any:
    """The answer to a request, a verb and its arguments, if it is one.

    :param shape: of the pixels that come with it, or None.
    :raises NotAnAnswerError: it is not.
    """
    verb = request[0]
    pixels = verb in ("pictures", "stream", "more", "files") and not (content is None and verb in ("stream", "more"))
    _check((shape is not None) == pixels)
    if pixels:
        _check(isinstance(shape, list) and len(shape) == 4 and all(map(_is_whole, shape)) and shape[3] == 3)
        _check(shape[0] >= 1 and 1 <= shape[1] * shape[2] <= MOST_PIXELS)
        _check(isinstance(content, list))
        _check(verb != "pictures" or shape[0] == len(request[2]))
        _check(verb != "files" or shape[0] <= len(request[2]))
        if verb != "files":
            _check(len(content) == 3 and all(_are_numbers(part, shape[0]) for part in content[1:]))
    if verb == "frames_at":
        _check(isinstance(content, list) and len(content) == len(request[2]))
    try:
        return CHECKS[verb](content)
    except (TypeError, ValueError) as error:
        raise NotAnAnswerError from error


def _opened(content: Any) -> Any:
    number, num_frames, num_promised, seconds, random_access = content
    _check(all(map(_is_whole, (number, num_frames, num_promised))) and isinstance(random_access, bool))
    return number, num_frames, num_promised, _number(seconds), random_access


def _pair(content: Any) -> tuple[int, int]:
    one, other = content
    _check(_is_whole(one) and _is_whole(other))
    return one, other


def _whole(content: Any) -> int:
    _check(_is_whole(content))
    return int(content)


def _examined(content: Any) -> Examination | None:
    if content is None:
        return None
    promised, decoded, seconds, error = content
    found = None if error is None else error_of(error)
    _check(found is None or isinstance(found, VideoError))
    at = None if seconds is None else _number(seconds)
    return Examination(_whole(promised), _whole(decoded), at, found)  # type: ignore[arg-type]


def _as_it_is(content: Any) -> Any:
    return content


CHECKS: dict[str, Callable[[Any], Any]] = {
    "open": _opened,
    "size": _pair,
    "num_frames": _whole,
    "begin": lambda content: _number(content),
    "span": _pair,
    "frames_at": lambda content: [_whole(number) for number in content],
    "examine": _examined,
    "pictures": _as_it_is,
    "stream": _as_it_is,
    "more": _as_it_is,
    "files": _as_it_is,
    "look": lambda content: _check(content is None),
}


def _check(true: bool) -> None:
    if not true:
        raise NotAnAnswerError


def _is_whole(value: Any) -> bool:
    return type(value) is int and 0 <= value < 1 << 62


def _number(value: Any) -> float:
    _check(type(value) in (int, float))
    try:
        return float(value)
    except OverflowError:
        return math.inf


def _are_numbers(values: Any, count: int) -> bool:
    return isinstance(values, list) and len(values) == count and all(type(value) in (int, float) for value in values)


# -------------------------------------------------------------------------------------------------------- shared memory


NUM_SLOTS = 4
"""Of the memory that both processes see. Each holds the pixels of one clip, as long as somebody has it."""

SLOT_BYTES = 1 << 28
"""Room of a slot: eight pictures of 4K. It is taken up when it is written to."""

KEPT_BYTES = 1 << 23
"""How much of a slot stays taken up when nobody has its pixels any more."""


def shared_array(memory: mmap.mmap | None, slot: int, shape: tuple[int, ...]) -> np.ndarray | None:
    """Bytes of this shape in a slot of the shared memory; None where they do not fit or there is none."""
    count = math.prod(shape)
    if memory is None or count > len(memory) // NUM_SLOTS:
        return None
    return np.frombuffer(memory, np.uint8, count, slot * (len(memory) // NUM_SLOTS)).reshape(shape)


class SharedSlots:
    """The slots of the shared memory, lent to the clips whose pixels are there: a copy would cost a few percent.

    The first slot is not lent. It is for when all others are, and its pixels are copied.
    """

    def __init__(self, memory: mmap.mmap) -> None:
        self._memory, self._owner = memory, os.getpid()
        self._free = list(range(1, NUM_SLOTS))
        self._lent: set[int] = set()

    def choose(self) -> int:
        return self._free[-1] if self._free else 0

    def take(self, slot: int, shape: tuple[int, ...]) -> np.ndarray | None:
        """The pixels of this shape in a slot that was chosen; it is free again when the last view of them is gone."""
        array = shared_array(self._memory, slot, shape)
        if array is None:
            return None
        if slot == 0:
            array = array.copy()
            self._clear(slot, array.size)
            return array
        self._free.remove(slot)
        self._lent.add(slot)
        # A reshaped array has the flat one as its base, and so have its views and the tensors made of them.
        weakref.finalize(array.base, self._give_back, slot, array.size).atexit = False
        return array

    def keep_lent(self) -> None:
        """Never use again what is lent now: a process about to be forked off has it too."""
        self._lent.clear()

    def _give_back(self, slot: int, size: int) -> None:
        if slot in self._lent and os.getpid() == self._owner:
            self._lent.remove(slot)
            self._clear(slot, size)
            self._free.append(slot)

    def _clear(self, slot: int, size: int) -> None:
        if size > KEPT_BYTES:
            room = len(self._memory) // NUM_SLOTS
            self._memory.madvise(mmap.MADV_REMOVE, slot * room + KEPT_BYTES, room - KEPT_BYTES)


@contextlib.contextmanager
def shared_memory() -> Iterator[tuple[int, mmap.mmap] | tuple[None, None]]:
    """Memory that a process started meanwhile can map too, by its number as an open file; None where there is none."""
    file = memory = None
    if hasattr(os, "memfd_create") and hasattr(mmap, "MADV_REMOVE"):
        with contextlib.suppress(OSError):
            file = os.memfd_create("ssan", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
            os.ftruncate(file, NUM_SLOTS * SLOT_BYTES)
            _keep_its_size(file)
            memory = mmap.mmap(file, NUM_SLOTS * SLOT_BYTES)
    try:
        # The numbers to 2 are those of the standard streams, which the process started has its own for.
        yield (file, memory) if file is not None and file > 2 and memory is not None else (None, None)
    finally:
        if file is not None:
            os.close(file)


def _keep_its_size(file: int) -> None:
    """A process apart that made the memory shorter would end this one, when it looks there."""
    with contextlib.suppress(ImportError, AttributeError):
        import fcntl

        fcntl.fcntl(file, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)


# ---------------------------------------------------------------------------------------------------------------- pipes


class Pipes:
    """The pipes to and from a process, neither of which is waited for longer than ``until``, a time of the clock.

    A process can be stopped, or wait for a disk that does not answer, and then spends no time of its own.
    """

    def __init__(self, to: int, back: int) -> None:
        self._to, self._back, self.until = to, back, math.inf
        self._buffer = bytearray()
        self._polls: dict[int, select.poll] = {}
        if hasattr(select, "poll"):  # elsewhere a process is waited for without end
            for pipe, event in ((to, select.POLLOUT), (back, select.POLLIN)):
                os.set_blocking(pipe, False)
                self._polls[pipe] = select.poll()
                self._polls[pipe].register(pipe, event)

    def _wait(self, pipe: int) -> None:
        if pipe in self._polls:
            left = self.until - time.monotonic()
            if left <= 0 or not self._polls[pipe].poll(min(left, 1e6) * 1000):
                raise TimeoutError

    def send(self, message: bytes) -> None:
        rest = memoryview(message)
        while rest:  # a pipe takes what it has room for, which may be less than a long list of frames
            self._wait(self._to)
            with contextlib.suppress(BlockingIOError):
                rest = rest[os.write(self._to, rest) :]

    def take(self, count: int) -> bytes:
        """So many bytes, and no more: what has come with them is kept."""
        while len(self._buffer) < count:  # a pipe gives what is there, a part of the answer or more than it
            self._wait(self._back)
            with contextlib.suppress(BlockingIOError):
                piece = os.read(self._back, 1 << 16)
                if not piece:
                    raise EOFError
                self._buffer += piece
        taken = bytes(self._buffer[:count])
        del self._buffer[:count]
        return taken

    def fill(self, room: memoryview) -> None:
        """Put as many bytes there as it takes."""
        there = min(len(room), len(self._buffer))
        room[:there] = self.take(there)
        room = room[there:]
        while len(room):  # pixels are read to where they stay: through the buffer they would be copied once more
            self._wait(self._back)
            with contextlib.suppress(BlockingIOError):
                piece = os.read(self._back, min(len(room), 1 << 20))
                if not piece:
                    raise EOFError
                room[: len(piece)] = piece
                room = room[len(piece) :]


class Connection:
    """The reading process's end: one request at a time, and the answer to it.

    :param to: the pipe to the decoder, and ``back`` that from it, by their numbers as open files.
    """

    def __init__(self, to: int, back: int, memory: mmap.mmap | None) -> None:
        self._pipes = Pipes(to, back)
        self.slots = SharedSlots(memory) if memory is not None else None

    def ask(
        self, let_go: Sequence[int], limit_seconds: float, request: Sequence[Any], *, until: float
    ) -> tuple[str, Any, np.ndarray | None]:
        """Send a request, a verb and its arguments, and wait for the answer: its kind, its content and its pixels.

        :param let_go: what the decoder need keep no longer.
        :param until: a time of the clock; beyond it nothing is waited for.
        :raises TimeoutError: the time is over.
        :raises EOFError: the pipe has ended, as may ``OSError``.
        :raises NotAnAnswerError: what has come is no answer to that.
        """
        slot = self.slots.choose() if self.slots is not None else 0
        self._pipes.until = until
        self._pipes.send(packed([let_go, limit_seconds, slot, *request]))
        return self._receive(slot, request)

    def _receive(self, slot: int, request: Sequence[Any]) -> tuple[str, Any, np.ndarray | None]:
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
        return kind, content, None if shape is None else self._pixels(slot, tuple(shape))

    def _pixels(self, slot: int, shape: tuple[int, ...]) -> np.ndarray:
        shared = self.slots.take(slot, shape) if self.slots is not None else None
        if shared is not None:
            return shared
        array = np.empty(shape, np.uint8)
        self._pipes.fill(array.reshape(-1).data)
        return array
