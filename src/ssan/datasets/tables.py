"""Tables and lists that annotations are written in, read with the number of each line.

A byte order mark and every kind of line end are taken as they come. Empty lines hold nothing, but count; blanks around
a value are no part of it. Whatever else is not as expected is an ``AnnotationError`` with file and line.
"""

import csv
import difflib
import io
import math
import os
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from ssan.datasets.samples import SPLIT_ALIASES, canonical_split
from ssan.errors import AnnotationError, UsageError, printable, quoted, shortened, unknown
from ssan.files import read_text

MOST_CLASSES = 100_000
MOST_DIGITS = 9
MOST_SECONDS = 1e9
DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars"}

Where = tuple[str, int]
"""A file, and a line of it."""

_FILE_ID = re.compile(r"[^/\\\0\ud800-\udfff]{1,200}")


def fault(message: str, path: str, line: int | None = None, *, code: str = "bad_annotation") -> AnnotationError:
    """The error to raise for what stands in a line of an annotation file."""
    return AnnotationError(message, code=code, path=path, line=line)


def plain_form(name: str) -> str:
    """What names have in common that people, and some programs and systems, take for one: case, blanks, Unicode form.

    >>> plain_form("Cafe\u0301 ") == plain_form("caf\u00e9")
    True
    """
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", name).casefold()).strip()


PLAINLY = "case, outer blanks or the Unicode form of a letter"

# ------------------------------------------------------------------------------------------------------- tables


def table_with_header(path: str, required: Sequence[str]) -> list[tuple[int, dict[str, str]]]:
    """The rows of a CSV file, each by the names in its first line, with the line that it begins in.

    :param required: columns that must be there; others may be.
    """
    return list(rows_with_header(path, required))


def rows_with_header(path: str, required: Sequence[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """The same rows one after another, for tables of millions of which little is kept."""
    rows = _cells(path, ",", "a CSV file")
    header = [cell.strip() for cell in next(rows, (1, []))[1]]
    absent = [name for name in required if name not in header]
    if absent:
        other = _other_delimiter(",".join(header), ",", lambda names: set(required) <= set(names))
        raise fault(
            f"the first line has no column {absent[0]!r}; expected a header with {','.join(required)}, separated by "
            f"commas, and found {quoted(','.join(header) or 'nothing')}{other}",
            path,
            1,
        )
    twice = next((name for column, name in enumerate(header) if name in header[:column]), None)
    if twice is not None:
        raise fault(f"the column {quoted(twice)} stands twice in the header; leave out one", path, 1)
    for line, cells in rows:
        if len(cells) != len(header):
            raise fault(
                f"{len(cells)} values where the header has {len(header)} columns; put values with commas in quotes",
                path,
                line,
            )
        yield line, dict(zip(header, map(str.strip, cells), strict=True))


def table(path: str, delimiter: str, columns: Sequence[str]) -> list[tuple[int, list[str]]]:
    """The rows of a file without a header, as many values each as there are ``columns``, with the line they begin in.

    Values that hold the delimiter stand in quotes, as in any CSV file.
    """
    expected = delimiter.join(columns)
    rows = []
    for line, cells in _cells(path, delimiter, f"lines of {expected}"):
        values = [cell.strip() for cell in cells]
        if len(values) != len(columns):
            other = ""
            if len(values) == 1:
                other = _other_delimiter(values[0], delimiter, lambda words: len(words) == len(columns))
            raise fault(
                f"expected {expected}, and found {len(values)} value{'s' * (len(values) != 1)}, "
                f"{quoted(delimiter.join(values))}{other}; put values that hold {delimiter!r} in quotes",
                path,
                line,
            )
        rows.append((line, values))
    return rows


def _cells(path: str, delimiter: str, expected: str) -> Iterator[tuple[int, list[str]]]:
    if os.path.isdir(path):
        raise UsageError(f"a folder, where {expected} was expected", path=path)
    text = read_text(path, expected, error=AnnotationError)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    first, last = 1, 0
    try:
        for cells in reader:
            first, last = last + 1, reader.line_num
            if len(cells) > 1 or (cells and cells[0].strip()):
                yield first, cells
    except csv.Error as error:
        raise fault(
            f"not a CSV file: {error}; expected values separated by {DELIMITERS[delimiter]}, and quotes in pairs",
            path,
            last + 1,
        ) from None


def _other_delimiter(text: str, delimiter: str, fits: Callable[[list[str]], bool]) -> str:
    """What the values of a line are separated by instead, for a message; nothing where that cannot be told."""
    for other, name in DELIMITERS.items():
        if other != delimiter and fits([word.strip() for word in text.split(other)]):
            return f", separated by {name}"
    return ""


# -------------------------------------------------------------------------------------------------------- lists


def beginning_of(path: str, num_bytes: int) -> bytes:
    """The first bytes of a file, by which to tell what it is; none of what is no file or cannot be read."""
    try:
        if os.path.isfile(path):  # a pipe would have to be waited for
            with open(path, "rb") as handle:
                return handle.read(num_bytes)
    except OSError:
        pass
    return b""


def refuse_link_out(path: str, home: str, remedy: str) -> str:
    """The path of a file of names that was found below ``home``, unless a link leads out of there.

    What it holds would be shown, and be written into model files: a data set from elsewhere must not choose files of
    whoever reads it.
    """
    real, whole = os.path.realpath(path), os.path.realpath(home)
    if os.path.isfile(path) and not real.startswith(os.path.join(whole, "")):
        raise fault(
            f"a link to {printable(real)}, outside of {printable(home)}; it is not followed; {remedy}",
            path,
            code="path_escape",
        )
    return path


def lines_of(path: str, expected: str, *, encoding: str = "utf-8-sig") -> list[tuple[int, str]]:
    """The lines of a file that hold something, without the blanks around it, with their numbers."""
    text = read_text(path, expected, error=AnnotationError, encoding=encoding)
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return [(number, line) for number, line in enumerate(map(str.strip, lines), start=1) if line]


def number_of(word: str) -> int | None:
    """The whole number, 0 or above, that a word of ASCII digits stands for; None for any other word."""
    return int(word) if word.isdecimal() and word.isascii() and len(word) <= MOST_DIGITS else None


def class_names(
    path: str, *, numbered: bool = False, form: Callable[[str], str] = plain_form, but_for: str = PLAINLY
) -> list[str]:
    """The classes that a file names one a line, in its order.

    :param numbered: each line begins with the number of the class, counted from 1, as in UCF101's ``classInd.txt``.
    :param form: two names of one form are refused; ``but_for`` is what it does away with, in words.
    :raises AnnotationError: there is none, a line between them is empty, or two are the same but for case.
    """
    lines = lines_of(path, "a file of class names, one a line")
    if len(lines) > MOST_CLASSES:
        raise fault(f"{len(lines):,} lines; expected the names of {MOST_CLASSES:,} classes at most", path)
    names = []
    for number, (line, text) in enumerate(lines, start=1):
        name = text
        if numbered:
            word, _, name = (part.strip() for part in text.partition(" "))
            if number_of(word) != number or not name:
                raise fault(
                    f"expected '{number} NAME', and found {quoted(text)}; classes are counted from 1", path, line
                )
        names.append((line, name))
    return unlike_names(names, path, form=form, but_for=but_for)


def unlike_names(
    names: Sequence[tuple[int, str]], path: str, *, form: Callable[[str], str] = plain_form, but_for: str = PLAINLY
) -> list[str]:
    """The names of classes in the order of their lines, none of which may be left empty or stand twice."""
    if not names:
        raise fault("there are no class names in it; expected one a line", path, code="empty")
    first: dict[str, Where] = {}
    for number, (line, name) in enumerate(names, start=1):
        if line != number:
            raise fault("the line is empty; expected the name of a class in every line", path, number)
        if name in first:
            raise fault(
                f"the class {quoted(name)} stands in line {first[name][1]} too; a class has one line",
                path,
                line,
                code="duplicate",
            )
        first[name] = (path, line)
    refuse_lookalikes(first, path, first, form=form, but_for=but_for)
    return list(first)


# ----------------------------------------------------------------------------------------------------- what is said


def refuse_lookalikes(
    classes: Iterable[str],
    source: str,
    where: Mapping[str, Where] | None = None,
    *,
    form: Callable[[str], str] = plain_form,
    but_for: str = PLAINLY,
) -> None:
    """Refuse two classes of one form, which some program or file system would take for one.

    :param where: the file and the line that each first stands in.
    :param but_for: what ``form`` does away with, in words.
    """
    formed: dict[str, str] = {}
    for label in classes:
        other = formed.setdefault(form(label), label)
        if other != label:
            path, line = (source, None) if where is None else where[label]
            same = unicodedata.normalize("NFC", other) == unicodedata.normalize("NFC", label)
            names = " and ".join(ascii(shortened(name)) if same else quoted(name) for name in (other, label))
            raise fault(
                f"the classes {names} differ only by {but_for}; make them one, or name them apart",
                path,
                line,
            )


def unknown_label(label: str, classes: Sequence[str], named_in: str, path: str, line: int | None) -> AnnotationError:
    """The error to raise for a label that is none of the classes."""
    alike = next((name for name in classes if plain_form(name) == plain_form(label)), None)
    near = [] if alike else difflib.get_close_matches(label[:200], classes, n=1, cutoff=0.6)
    hint = f" Did you mean {quoted(near[0])}?" if near else " Both files must be of one release"
    if alike is not None:
        hint = f" Did you mean {shortened(alike)!a}? It differs only by {PLAINLY}; write both alike"
    return fault(
        f"{quoted(label)} is none of the {len(classes)} classes in {printable(named_in)}.{hint}",
        path,
        line,
        code="unknown_label",
    )


def check_id(identity: str, path: str, line: int | None = None, *, prefix: str = "") -> None:
    """Refuse an id that is no plain file name.

    :param prefix: for a file without lines, what of it has the id.
    """
    if _FILE_ID.fullmatch(identity) is None or identity in (".", ".."):
        raise fault(
            f"{prefix}the id {quoted(identity)} is not a file name; expected one, such as 1234, without separators",
            path,
            line,
            code="path_escape",
        )


def check_once(
    seen: dict[str, Where], identity: str, path: str, line: int, *, unit: str = "line", advice: str = ""
) -> None:
    """Note where an id stands, and refuse it where it stood before.

    :param unit: what ``line`` counts, for a file without lines.
    """
    before = seen.setdefault(identity, (path, line))
    if before != (path, line):
        there = f"{unit} {before[1]}" + (f" of {printable(before[0])}" if before[0] != path else "")
        raise fault(
            f"{'' if unit == 'line' else f'{unit} {line}: '}the id {quoted(identity)} stands in {there} too; ids must "
            f"differ{advice}",
            path,
            line if unit == "line" else None,
            code="duplicate",
        )


def known_split(word: str, source: str, line: int | None) -> str:
    """``train``, ``val`` or ``test`` for what a line of a table says."""
    known = {"train", "val", "test", *SPLIT_ALIASES}
    if word not in known:
        raise fault(unknown("split", word, known), source, line)
    return canonical_split(word)


def part(
    start: str | None, end: str | None, source: str, line: int | None, *, prefix: str = ""
) -> tuple[float | None, float | None]:
    """The bounds of a part of a video, in seconds, from what an annotation says; nothing said is None.

    :param prefix: for a file without lines, what of it says so.
    """
    bounds = []
    for word in (start, end):
        try:
            value = float(word) if word else None
        except ValueError:
            value = math.nan
        if value is not None and not (0 <= value < MOST_SECONDS):
            raise fault(
                f"{prefix}{quoted(str(word))} is no time; expected seconds from the beginning of the video, such as "
                "12.5",
                source,
                line,
            )
        bounds.append(value)
    first, last = bounds
    if last is not None and last <= (first or 0):
        raise fault(
            f"{prefix}the part ends at {last:g} s and starts at {first or 0:g} s; expected an end after the start",
            source,
            line,
        )
    return first, last


def frame_part(start: str | None, end: str | None, source: str, line: int | None) -> tuple[int | None, int | None]:
    """The bounds of a part of a video that counts frames, from 0; nothing said is None."""
    for word in (start, end):
        if word and number_of(word) is None:
            raise fault(f"{quoted(word)} is no frame; expected a whole number, counted from 0", source, line)
    first, stop = (number_of(word) if word else None for word in (start, end))
    if stop is not None and stop <= (first or 0):
        raise fault(
            f"the part ends before frame {stop} and starts with frame {first or 0}; expected an end after the start",
            source,
            line,
        )
    return first, stop
