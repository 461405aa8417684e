"""What commands print: lines that a terminal only shows, and an end in order where nobody takes them."""

import builtins
import io
import os
import re
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import IO, Any

from ssan.errors import escaped

# How progress bars that stand below each other are reached.
_MOVES = re.compile(r"(\x1b\[A)+")


class ReaderGoneError(Exception):
    """Whoever read standard output has gone."""


class OutputLostError(Exception):
    """Standard output takes nothing more, as on a full disk; the message says why."""


def print(*words: object, end: str = "\n", file: IO[str] | None = None, flush: bool = False) -> None:
    """As Python's, one line: a line end or a control character in a file's name or a label is shown, not obeyed."""
    line = escaped(" ".join(map(str, words)), keep="\t")
    builtins.print(line, end=end, file=sys.stdout if file is None else file, flush=flush)


def tell(message: object) -> None:
    """Print a line on standard error that says what a command has to say beside its answer."""
    print(f"ssan: {message}", file=sys.stderr, flush=True)


class Screen(io.TextIOWrapper):
    """Standard output or error, on which no control or bidirectional character is printed that came in from a file.

    What the encoding lacks is escaped; bytes of names that are not UTF-8 are printed as they are where it is UTF-8.

    :param lenient: for standard error: what cannot be written is given up, and the work goes on.
    """

    def __init__(self, under: io.TextIOWrapper, *, lenient: bool) -> None:
        plain = under.encoding.lower().replace("-", "") == "utf8"
        super().__init__(
            under.buffer,
            encoding=under.encoding,
            errors="surrogateescape" if plain else "backslashreplace",
            line_buffering=under.line_buffering,
            write_through=under.write_through,
        )
        under.detach()
        self.lenient = lenient

    def write(self, text: str) -> int:
        if text == "":  # typer tries a stream so, and drops what is raised
            return 0
        # Progress bars go back to the beginning of their line.
        plain = text if _MOVES.fullmatch(text) else escaped(text, keep="\n\t\r" if self.lenient else "\n\t")
        with self._what_cannot_be_written():
            super().write(plain)
        return len(text)

    def flush(self) -> None:
        with self._what_cannot_be_written():
            super().flush()

    @contextmanager
    def _what_cannot_be_written(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            # What is waiting to be written would be tried again at the end.
            nothing = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nothing, self.fileno())
            os.close(nothing)
            if self.lenient:
                return
            if isinstance(error, BrokenPipeError):
                raise ReaderGoneError from None
            raise OutputLostError(error.strerror or str(error)) from None


def open_screens() -> None:
    """Make standard output and error ``Screen``s; where they are closed, what is printed there is dropped."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:  # closed; the next file that is opened must not get its number
            os.open(os.devnull, os.O_RDWR)
    for name in ("stdout", "stderr"):
        stream: Any = getattr(sys, name)
        if stream is None:
            stream = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - open to the end
        if isinstance(stream, io.TextIOWrapper):
            stream = Screen(stream, lenient=name == "stderr")
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)


def end_in_order_when_told_to() -> None:
    """Let SIGTERM end the command by an exception, so that temporary files go with it; the exit status is 143."""

    def end(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    signal.signal(signal.SIGTERM, end)
    if hasattr(os, "register_at_fork"):  # a process that hangs in C would not come to run it
        os.register_at_fork(after_in_child=lambda: signal.signal(signal.SIGTERM, signal.SIG_DFL))
