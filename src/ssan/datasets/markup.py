"""XML that annotation tools write, read element by element: it may come from anybody and be of any size."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from xml.parsers import expat

from ssan.datasets.tables import fault
from ssan.errors import AnnotationError, UsageError, quoted, shortened
from ssan.files import MOST_TEXT_BYTES, open_regular

MOST_DEPTH = 40
MOST_LETTERS = 100_000
"""Of the text in one element."""

_PIECE_BYTES = 1 << 16


@dataclass(slots=True)
class Element:
    """An element where it begins (``text`` is None), and another like it where it has ended.

    :param names: its name, behind those of the elements that it is in.
    :param line: where it begins, from 1.
    :param text: what stands in it directly, without the blanks around.
    """

    names: tuple[str, ...]
    attributes: dict[str, str]
    line: int
    text: str | None = None
    pieces: list[str] = field(default_factory=list)
    letters: int = 0


def elements(path: str | Path, root: str, expected: str) -> Iterator[Element]:
    """The elements of a file one after another, of which none is kept: memory is that of the deepest nesting.

    Documents that declare a type are refused, as no tool that is read here writes them, and with them every entity:
    none can grow into gigabytes, and none names a file or an address to be read.

    :param root: the name that the outermost element must have.
    :param expected: what should be there, for the message.
    :raises UsageError: there is no such file, or it is none.
    :raises AnnotationError: it is not well-formed, another document, too large, or nested too deeply.
    """
    where = str(path)
    reader = _Reader(where, root, expected)
    with open_regular(path, expected) as handle:
        size = 0
        while True:
            try:
                piece = handle.read(_PIECE_BYTES)
            except OSError as problem:
                raise UsageError(f"it cannot be read ({problem.strerror}); look at the disk", path=where) from None
            size += len(piece)
            if size > MOST_TEXT_BYTES:
                raise fault(f"larger than {MOST_TEXT_BYTES:,} bytes; expected {expected}", where)
            yield from reader.read(piece)
            if not piece:
                return


class _Reader:
    def __init__(self, path: str, root: str, expected: str) -> None:
        self._path, self._root, self._expected = path, root, expected
        self._open: list[Element] = []
        self._ready: list[Element] = []
        self._parser = parser = expat.ParserCreate()
        parser.buffer_text = True
        parser.StartDoctypeDeclHandler = self._doctype
        parser.EntityDeclHandler = self._doctype
        parser.StartElementHandler = self._begin
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._say

    def read(self, piece: bytes) -> Iterator[Element]:
        """What begins and ends in a piece of the file; an empty piece is the end of it."""
        try:
            self._parser.Parse(piece, not piece)
        except expat.ExpatError as error:
            raise self._fault(
                f"not well-formed XML ({expat.ErrorString(error.code)}); expected {self._expected}. Export the file "
                "again",
                error.lineno,
            ) from None
        except (LookupError, ValueError) as error:  # an encoding that Python does not know, or cannot use here
            raise self._fault(f"not usable XML ({quoted(str(error), 80)}); save the file as UTF-8") from None
        ready, self._ready = self._ready, []
        yield from ready

    def _fault(self, message: str, line: int | None = None) -> AnnotationError:
        return fault(message, self._path, self._parser.CurrentLineNumber if line is None else line)

    def _doctype(self, *_: object) -> None:
        raise self._fault(
            "the file declares a document type or an entity, which no annotation tool writes; expected "
            f"{self._expected}"
        )

    def _begin(self, name: str, attributes: dict[str, str]) -> None:
        if not self._open and name != self._root:
            raise self._fault(
                f"the file begins with <{shortened(name, 40)}>; expected <{self._root}>, {self._expected}"
            )
        if len(self._open) >= MOST_DEPTH:
            raise self._fault(f"elements are nested {MOST_DEPTH} deep and deeper; expected {self._expected}")
        above = self._open[-1].names if self._open else ()
        element = Element((*above, name), attributes, self._parser.CurrentLineNumber)
        self._open.append(element)
        self._ready.append(element)

    def _say(self, text: str) -> None:
        element = self._open[-1]
        element.letters += len(text)
        if element.letters > MOST_LETTERS:
            name = shortened(element.names[-1], 40)
            raise self._fault(f"<{name}> holds more than {MOST_LETTERS:,} letters; expected {self._expected}")
        element.pieces.append(text)

    def _end(self, _: str) -> None:
        element = self._open.pop()
        self._ready.append(Element(element.names, element.attributes, element.line, "".join(element.pieces).strip()))
        element.pieces.clear()
