"""Errors that a user's mistake or a user's file can raise, one family, and how values are written in their messages.

Every message says what happened with its values, what was expected, and what to do. The command line prints one of
these as one line, without a traceback; anything else that escapes is a defect of the package.
"""

import difflib
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

CODES = (
    "missing",
    "empty",
    "not_video",
    "no_video_stream",
    "truncated",
    "decode_error",
    "too_few_frames",
    "duplicate",
    "bad_annotation",
    "unknown_label",
    "path_escape",
    "wrong_model",
    "nan",
    "no_space",
    "not_fetched",
)


class SsanError(Exception):
    """The family. ``path`` and ``line`` say where, ``code`` is one of ``CODES`` or None for a mistake of usage."""

    def __init__(
        self, message: str, *, code: str | None = None, path: str | None = None, line: int | None = None
    ) -> None:
        if code is not None and code not in CODES:
            raise ValueError(f"{code!r} is not an error code; known: {', '.join(CODES)}")
        super().__init__(message)
        self.message = message
        self.code = code
        self.path = None if path is None else str(path)
        self.line = line

    def __str__(self) -> str:
        where = self.path or ""
        if self.line is not None:
            where += f" line {self.line}" if where else f"line {self.line}"
        return f"{where}: {self.message}" if where else self.message

    def __reduce__(self) -> tuple[Any, ...]:
        # Errors cross process borders (loader workers); keyword-only fields need saying how.
        return _rebuild, (type(self), self.message, self.code, self.path, self.line)

    def as_dict(self) -> dict[str, Any]:
        """The error as the command line's JSON shows it: path, code, message, line."""
        return {"path": self.path, "code": self.code, "message": self.message, "line": self.line}


class UsageError(SsanError):
    """A command, option, recipe or argument that cannot be carried out."""


class VideoError(SsanError):
    """A video (file or folder of frames) that cannot be read as asked."""


class AnnotationError(SsanError):
    """A list of videos, labels or captions that does not say what it should."""


class ModelError(SsanError):
    """A model file, or weights, that do not fit what they are asked to be."""


class TrainingError(SsanError):
    """A run that cannot go on."""


def _rebuild(kind: type[SsanError], message: str, code: str | None, path: str | None, line: int | None) -> SsanError:
    return kind(message, code=code, path=path, line=line)


def unknown(kind: str, word: str, known: Iterable[str]) -> str:
    """A sentence for a word that is not among the known ones: the nearest one first, then all of them.

    >>> unknown("layer", "sssa", ["ssa", "temporal_shift"])
    "unknown layer 'sssa'. Did you mean 'ssa'? Known: ssa, temporal_shift"
    """
    names = sorted(known)
    near = difflib.get_close_matches(word[:80], names, n=1, cutoff=0.5)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return f"unknown {kind} {quoted(word, 80)}.{hint} Known: {', '.join(names)}"


def shortened(text: str, most: int = 200) -> str:
    """A text for a message, cut where it is longer than ``most`` letters.

    >>> shortened("abcdef", 4)
    'abcd...'
    """
    return text if len(text) <= most else f"{text[:most]}..."


def quoted(text: str, most: int = 200) -> str:
    """A value for a message, in quotes, and cut where it is long."""
    return repr(shortened(text, most))


def printable(path: str) -> str:
    """A path for a message: as it is, or quoted where it has line ends or what no screen shows."""
    return path if path.isprintable() else repr(path)


def named(name: str, most: int = 120) -> str:
    """A name for a message, without quotes where it can do without, and cut where it is long."""
    return printable(shortened(name, most))


def few(names: Sequence[str], most: int = 3, show: Callable[[str], str] = repr) -> str:
    """The first of many names, for a message.

    >>> few(["a", "b", "c", "d"])
    "'a', 'b', 'c', ..."

    :param show: how each name is written, such as ``named``.
    """
    return (", ".join(map(show, names[:most])) + (", ..." if len(names) > most else "")) or "none"


def first_line(error: object, most: int = 200) -> str:
    """What an error from elsewhere says, for a message: its first line, or its kind where it says nothing.

    >>> first_line(ValueError("no number\nat line 3")), first_line(KeyError())
    ('no number', 'KeyError')
    """
    return shortened(next(iter(str(error).splitlines()), type(error).__name__), most)


def on_one_line(error: object, most: int = 200) -> str:
    """All that an error from elsewhere says, for a message, its lines joined to one; its kind where it says nothing."""
    return shortened(" ".join(str(error).split()), most) or type(error).__name__


# What a terminal obeys or reorders text by, and halves of letters (but bytes of names that are not UTF-8).
_OBEYED = re.compile("[\0-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udc7f\udd00-\udfff]")


def escaped(text: str, keep: str = "") -> str:
    """A text in which what a terminal would obey is shown as Python writes it.

    >>> escaped("a\\x1b[31m\\nb")
    'a\\\\x1b[31m\\\\nb'

    :param keep: control characters that are left as they are.
    """
    return _OBEYED.sub(lambda found: found[0] if found[0] in keep else repr(found[0])[1:-1], text)


def escaped_json(text: str) -> str:
    """A JSON document in which what a terminal would obey stands as JSON escapes it."""
    return _OBEYED.sub(lambda found: "\n" if found[0] == "\n" else f"\\u{ord(found[0]):04x}", text)


_NO_MEMORY = re.compile(
    r"out of memory|(can't|cannot|could not) allocate|not enough memory|bad_alloc|ALLOC_FAILED", re.I
)
_ASKED = re.compile(r"allocate ([\d.]+ ?(?:bytes|[KMGTPE]i?B))")


def lack_of_memory(error: BaseException) -> str | None:
    """A sentence for an error that says that memory does not suffice, in Python's words or torch's; None of others."""
    said = str(error)
    if not isinstance(error, MemoryError) and _NO_MEMORY.search(said) is None:
        return None
    asked = _ASKED.search(said)
    return (
        f"the memory does not suffice{f', {asked[1]} were asked for' if asked else ''}; use fewer or smaller pictures "
        "(lower batch, num_frames, size_px and crop_px, --views or --workers), a smaller model, or a machine with more"
    )
