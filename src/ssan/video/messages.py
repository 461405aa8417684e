"""What the process that reads and the one that decodes say to each other: plain data, JSON after its length.

A decoder is fed with other people's files and may be made to say anything: what it says is never run, and what is used
of it is looked at first (``checked``).
"""

import contextlib
import json
import math
import os
import select
import struct
import time
from collections.abc import Callable, Sequence
from typing import Any

from ssan.errors import SsanError, UsageError, VideoError
from ssan.video.clip import MOST_PIXELS, Examination, Resize

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


# ------------------------------------------------------------------------------- what answers have to be, by the verb


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


# ----------------------------------------------------------------------------------------------- the way they take


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
        while rest:
            self._wait(self._to)
            with contextlib.suppress(BlockingIOError):
                rest = rest[os.write(self._to, rest) :]

    def take(self, count: int) -> bytes:
        """So many bytes, and no more: what has come with them is kept."""
        while len(self._buffer) < count:
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
        while len(room):
            self._wait(self._back)
            with contextlib.suppress(BlockingIOError):
                piece = os.read(self._back, min(len(room), 1 << 20))
                if not piece:
                    raise EOFError
                room[: len(piece)] = piece
                room = room[len(piece) :]
