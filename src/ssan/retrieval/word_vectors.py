"""Word vectors that others have published: GloVe's, fastText's and word2vec's files, and the vocabulary they give."""

import codecs
import gzip
import io
import lzma
import re
import zipfile
import zlib
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np

from ssan.errors import AnnotationError, UsageError, few, quoted
from ssan.files import is_text
from ssan.retrieval.text import MOST_WORD_BYTES, Vocabulary

MOST_DIM = 10_000
MOST_LINE_BYTES = 1_000_000
MOST_MATRIX_BYTES = 16_000_000_000
# Words of a file that are kept beside those of the captions.
MOST_BESIDE = 100_000


@dataclass(frozen=True)
class WordVectors:
    """Word vectors out of a file: row i of ``matrix``, float32 (n, dim), belongs to ``words[i]``.

    ``num_read`` entries of the file were looked at, of which ``num_repeated`` named a kept word again (the first
    counts) and ``num_nameless`` had a name that no caption can hold, empty or no UTF-8. ``num_promised`` is how many
    entries the file's header speaks of, where it has one.
    """

    words: list[str]
    matrix: np.ndarray
    source: str
    dim: int
    num_read: int
    num_repeated: int
    num_nameless: int
    num_promised: int | None


def read_word_vectors(
    path: str | Path, *, wanted: Collection[str] | None = None, most: int | None = None
) -> WordVectors:
    """Read GloVe's text form, fastText's (with a header line) or word2vec's binary one, each also in .gz or .zip.

    What a file is follows from its content. It is read through once, and what is not wanted is not kept, so that files
    of gigabytes need little memory. Of an entry that is not wanted only the length is looked at, not its numbers.

    A text file may end before its header's count, as the beginning of one does; a binary one may not.

    :param path: of an archive of several files, ``glove.6B.zip/glove.6B.300d.txt`` names one.
    :param wanted: the words to keep; by default all.
    :param most: entries to read, from the beginning of the file, where the frequent words are; by default all.
    :raises UsageError: no such file, or one of several in an archive that has to be named.
    :raises AnnotationError: with the line (or the number of the word): an entry without numbers, of another dimension
        than the first or the header, with NaN, or a file cut short.
    """
    file, member = _in_archive(path)
    where = str(path)
    with _opened(file, member, where) as handle:
        head = handle.read(MOST_LINE_BYTES)
    form = _form(head, where)
    kept = _Kept(form, where, None if wanted is None else frozenset(_as_bytes(wanted)))
    read = _read_binary if form.binary else _read_text
    with _opened(file, member, where) as handle:
        read(handle, kept, most)
    if not kept.num_read:
        raise AnnotationError("no word vectors in it; expected a word and its numbers a line", code="empty", path=where)
    matrix = np.frombuffer(kept.rows, "<f4").astype(np.float32, copy=False).reshape(-1, form.dim)
    words = [word.decode() for word in kept.words]
    return WordVectors(
        words, matrix, where, form.dim, kept.num_read, kept.num_repeated, kept.num_nameless, form.num_promised
    )


@dataclass(frozen=True)
class _Form:
    """What a file of vectors is. ``num_promised`` is None where it has no header."""

    binary: bool
    dim: int
    num_promised: int | None


@dataclass
class _Kept:
    """What has been kept of a file so far; ``rows`` are the float32 numbers of all kept words, one after the other."""

    form: _Form
    where: str
    wanted: frozenset[bytes] | None
    words: dict[bytes, None] = field(default_factory=dict)
    rows: bytearray = field(default_factory=bytearray)
    num_read: int = 0
    num_repeated: int = 0
    num_nameless: int = 0

    def wants(self, word: bytes) -> bool:
        """Whether an entry's numbers are to be kept; counts the entry."""
        self.num_read += 1
        if not _is_name(word):
            self.num_nameless += 1
            return False
        if word in self.words:
            self.num_repeated += 1
            return False
        return self.wanted is None or word in self.wanted

    def keep(self, word: bytes, row: np.ndarray, line: int | None) -> None:
        """Keep a row (dim,) of any float type."""
        if not np.all(np.abs(row) <= np.finfo(np.float32).max):  # False for NaN too
            raise AnnotationError(
                f"the vector of {_shown(word)} (word {self.num_read:,}) has a value that is not finite; "
                "download the file again, or take its line out",
                code="nan",
                path=self.where,
                line=line,
            )
        self.words[word] = None
        self.rows += row.astype("<f4").tobytes()
        if len(self.rows) > MOST_MATRIX_BYTES:
            raise AnnotationError(
                f"more than {MOST_MATRIX_BYTES:,} bytes of vectors; say which words are wanted, or how many at most",
                code="bad_annotation",
                path=self.where,
            )


def _as_bytes(words: Iterable[str]) -> Iterator[bytes]:
    return (word.encode() for word in words if is_text(word))


def _is_name(word: bytes) -> bool:
    """Whether bytes can be a word of a caption: UTF-8, and not empty."""
    try:
        return word.decode() != ""
    except UnicodeDecodeError:
        return False


def _shown(word: bytes) -> str:
    return quoted(word.decode(errors="replace"), 50)


def _malformed(problem: str, where: str, line: int | None = None, code: str = "bad_annotation") -> AnnotationError:
    return AnnotationError(f"{problem}; download the file again", code=code, path=where, line=line)


# ------------------------------------------------------------------------------------------ files and their forms


def _in_archive(path: str | Path) -> tuple[Path, str | None]:
    """A path as a file and, where the path goes on inside of it, the name in the archive."""
    path = Path(path)
    for file in (path, *path.parents):
        try:
            found = file.is_file()
        except (OSError, ValueError):  # a name that no file can have
            found = False
        if found:
            return file, None if file == path else path.relative_to(file).as_posix()
    raise UsageError(
        "no such file; expected word vectors (GloVe .txt, word2vec .bin, fastText .vec)", code="missing", path=str(path)
    )


def _most_unpacked(packed: int) -> int:
    """How many bytes may come out of so many packed ones: numbers in text become half as many, or a third."""
    return 100 * packed + 10_000_000


class _Bounded(io.RawIOBase):
    """What comes out of a packed file, up to a limit: a few bytes can be made to unpack without end."""

    def __init__(self, inside: gzip.GzipFile, most: int) -> None:
        self.inside, self.left = inside, most

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count = self.inside.readinto(buffer)
        self.left -= count
        if self.left < 0:
            raise zlib.error("it goes on for more than 100 times its size")
        return count


@contextmanager
def _opened(file: Path, member: str | None, where: str) -> Iterator[IO[bytes]]:
    """The file's bytes, unpacked where it is packed; what goes wrong in unpacking is an error of the file."""
    try:
        with open(file, "rb") as raw:
            magic = raw.read(4)
            raw.seek(0)
            if magic == b"PK\x03\x04":
                with zipfile.ZipFile(raw) as archive, archive.open(_member(archive, member, file, where)) as inside:
                    yield inside
            elif member is not None:
                raise UsageError(f"{file.name} is not an archive; give its own path", code="missing", path=where)
            elif magic[:2] == b"\x1f\x8b":
                with gzip.open(raw) as inside:
                    yield io.BufferedReader(_Bounded(inside, _most_unpacked(file.stat().st_size)))
            else:
                yield raw
    except EOFError:
        raise _malformed("it ends in the middle of what is packed", where, code="truncated") from None
    except (zlib.error, lzma.LZMAError, zipfile.BadZipFile, gzip.BadGzipFile, NotImplementedError) as problem:
        raise _malformed(f"it cannot be unpacked ({problem})", where) from None
    except OSError as problem:
        raise UsageError(
            f"it cannot be read ({problem.strerror or problem}); look at its permissions", path=where
        ) from None


def _member(archive: zipfile.ZipFile, name: str | None, file: Path, where: str) -> zipfile.ZipInfo:
    """The file of an archive that is asked for, or its only one."""
    files = {info.filename: info for info in archive.infolist() if not info.is_dir()}
    files = {inside: info for inside, info in files.items() if not inside.startswith("__MACOSX/")}
    if name is None and len(files) != 1:
        raise UsageError(
            f"an archive of {len(files)} files: {few(list(files), 10)}; write the name of one after the archive's, "
            f"as in {file.name}/{next(iter(files), 'NAME')}",
            code="missing",
            path=where,
        )
    if name is not None and name not in files:
        raise UsageError(f"{file.name} has no {name!r}; it has {few(list(files), 10)}", code="missing", path=where)
    info = next(iter(files.values())) if name is None else files[name]
    if info.file_size > _most_unpacked(info.compress_size):
        raise _malformed("it unpacks to more than 100 times its size", where)
    if info.flag_bits & 1:
        raise UsageError("it is encrypted; unpack it first, and give the path of what was in it", path=where)
    return info


_HEADER = re.compile(rb"(\d{1,12}) (\d{1,6}) *\r?")
_CONTROL = bytes(set(range(32)) - set(b"\t\n\v\f\r"))


def _form(head: bytes, where: str) -> _Form:
    """What a file is, from its beginning: a header of two numbers or none, then bytes or text."""
    first, _, rest = head.removeprefix(codecs.BOM_UTF8).partition(b"\n")
    header = _HEADER.fullmatch(first)
    if header is None:
        dim = _trailing_numbers(first.rstrip(b" \r"))
        if not 1 <= dim <= MOST_DIM:
            raise AnnotationError(
                "no word vectors: the first line is neither a word and its numbers nor a header of two numbers. "
                "Expected GloVe's text form, fastText's .vec (not its .bin, a whole model) or word2vec's .bin",
                code="bad_annotation" if head else "empty",
                path=where,
                line=1,
            )
        return _Form(False, dim, None)
    num_promised, dim = int(header[1]), int(header[2])
    if not 1 <= dim <= MOST_DIM:
        raise _malformed(f"its header speaks of vectors of {dim} numbers; expected 1 to {MOST_DIM:,}", where, 1)
    is_text_line = _trailing_numbers(rest.partition(b"\n")[0].rstrip(b" \r")) >= dim
    return _Form(not is_text_line and _looks_binary(rest[:65536]), dim, num_promised)


def _trailing_numbers(line: bytes) -> int:
    """How many fields at the end of a line are numbers, the first field, which is a word, not counted."""
    fields = line.split(b" ")[1:]
    for count, number in enumerate(reversed(fields)):
        if not _is_number(number):
            return count
    return len(fields)


def _is_number(text: bytes) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return b"_" not in text


def _looks_binary(content: bytes) -> bool:
    """Whether bytes hold what text does not: control characters, or no UTF-8."""
    if content.translate(None, _CONTROL) != content:
        return True
    try:
        codecs.getincrementaldecoder("utf-8")().decode(content)  # its end may cut a letter in two
    except UnicodeDecodeError:
        return True
    return False


# ------------------------------------------------------------------------------------------------ reading a file


def _read_text(handle: IO[bytes], kept: _Kept, most: int | None) -> None:
    """Read lines of a word, which may hold blanks, and ``dim`` numbers, all with one blank between."""
    dim, where = kept.form.dim, kept.where
    # A line that is not wanted is told by its first field, without looking for the end of its word.
    beginnings = None if kept.wanted is None else {word.partition(b" ")[0] for word in kept.wanted}
    blank = None
    number = 0
    while most is None or kept.num_read < most:
        line = handle.readline(MOST_LINE_BYTES + 1)
        number += 1
        if number == 1:
            line = line.removeprefix(codecs.BOM_UTF8)
            if kept.form.num_promised is not None:
                continue
        if not line:
            break
        if len(line) > MOST_LINE_BYTES:
            raise _malformed(f"a line of more than {MOST_LINE_BYTES:,} bytes", where, number)
        line = line.rstrip(b" \r\n")
        if not line:
            blank = blank or number
            continue
        if blank is not None:
            raise _malformed("a blank line between words", where, blank)
        count = line.count(b" ")
        if count < dim:
            raise _malformed(
                f"{_shown(line.partition(b' ')[0])} has {count} numbers, where others have {dim}", where, number
            )
        if count == dim and beginnings is not None and line.partition(b" ")[0] not in beginnings:
            kept.wants(line.partition(b" ")[0])
            continue
        word, *numbers = line.rsplit(b" ", dim)
        if _trailing_numbers(word):  # what should be the end of a word of several parts
            count = dim + _trailing_numbers(word)
            raise _malformed(
                f"{_shown(word.partition(b' ')[0])} has {count} numbers, where others have {dim}", where, number
            )
        if not kept.wants(word):
            continue
        try:
            row = np.array(list(map(float, numbers)))
        except ValueError:
            row = None
        if row is None or b"_" in line[len(word) :]:  # which float() would take for digits' grouping
            wrong = next(text for text in numbers if not _is_number(text))
            raise _malformed(f"{_shown(wrong)} is no number, in the vector of {_shown(word)}", where, number)
        kept.keep(word, row, number)


def _read_binary(handle: IO[bytes], kept: _Kept, most: int | None) -> None:
    """Read what word2vec writes: a header line; a word, a blank and ``dim`` float32 values, with or without a line end.

    The values are little-endian.
    """
    dim, where, num_promised = kept.form.dim, kept.where, kept.form.num_promised or 0
    handle.readline(MOST_LINE_BYTES)
    size = 4 * dim
    block, at = b"", 0
    while kept.num_read < (num_promised if most is None else min(most, num_promised)):
        end = block.find(b" ", at)
        if (len(block) if end < 0 else end) - at > MOST_WORD_BYTES:
            raise _malformed(f"word {kept.num_read + 1:,} has more than {MOST_WORD_BYTES:,} bytes", where)
        if end < 0 or end + 1 + size > len(block):
            more = handle.read(1 << 20)
            if not more:
                raise _malformed(f"it ends in word {kept.num_read + 1:,} of {num_promised:,}", where, code="truncated")
            block, at = block[at:] + more, 0
            continue
        word = block[at:end].removeprefix(b"\n")
        if kept.wants(word):
            kept.keep(word, np.frombuffer(block, "<f4", dim, end + 1), None)
        at = end + 1 + size
    if kept.num_read == num_promised and (block[at:] + handle.read(1 << 20)).strip():
        raise _malformed(f"it goes on after its {num_promised:,} words", where)


# ------------------------------------------------------------------------------------- vectors for a vocabulary


@dataclass(frozen=True)
class Coverage:
    """How many words have a vector: of the distinct ones, and of the running ones, where each counts as often as it is.

    ``missing`` has the most frequent words without a vector, with their counts.
    """

    num_distinct: int
    num_distinct_covered: int
    num_running: int
    num_running_covered: int
    missing: list[tuple[str, int]]

    @property
    def of_distinct(self) -> float:
        """The share of distinct words that have a vector, 0..1."""
        return self.num_distinct_covered / max(1, self.num_distinct)

    @property
    def of_running(self) -> float:
        """The share of running words that have a vector, 0..1."""
        return self.num_running_covered / max(1, self.num_running)


def coverage(counts: Mapping[str, int], words: Collection[str], *, most: int = 20) -> Coverage:
    """Compare the words of captions, as ``word_counts`` counts them, with those that have vectors.

    :param words: those that have a vector, as ``WordVectors.words``.
    :param most: how many words without a vector are listed, the most frequent first, equally frequent by alphabet.
    """
    known = frozenset(words)
    missing = sorted((-count, word) for word, count in counts.items() if word not in known)
    num_running = sum(counts.values())
    return Coverage(
        len(counts),
        len(counts) - len(missing),
        num_running,
        num_running + sum(count for count, _ in missing),
        [(word, -count) for count, word in missing[:most]],
    )


def vocabulary_with_vectors(
    counts: Mapping[str, int], tokeniser: str, path: str | Path, *, most: int = MOST_BESIDE
) -> tuple[Vocabulary, np.ndarray, Coverage]:
    """The words of captions that have a vector, the most frequent first, and then the file's first, as it has them.

    Words without a vector are dropped, as in reference 22, and so from every caption. With those of the file a tower
    whose vectors are frozen knows words that no caption of training has. Returns the vocabulary, its embedding matrix,
    float32 (num_rows, dim) with zeros for padding, and how many words of the captions have a vector.

    :param counts: as of ``word_counts``.
    :param most: how many of the file's first words, which are the most frequent, are taken beside.
    :raises UsageError: none of the words has a vector.
    :raises AnnotationError: as ``read_word_vectors``.
    """
    by_count = sorted(counts, key=lambda word: (-counts[word], word))
    first = read_word_vectors(path, most=most)
    there = set(first.words)
    others = [word for word in by_count if word not in there]
    rows = dict(zip(first.words, first.matrix, strict=True))
    if others:
        named = read_word_vectors(path, wanted=others)
        rows |= zip(named.words, named.matrix, strict=True)
    words = [word for word in by_count if word in rows]
    if by_count and not words:
        raise UsageError(
            f"none of the {len(by_count):,} words of the captions ({few(by_count)}) has a vector in {path} "
            f"({few(first.words)}); look at the language and the case of both",
            code="empty",
        )
    known = set(words)
    words += [word for word in first.words if word not in known]
    matrix = np.zeros((len(words) + 1, first.dim), np.float32)
    for row, word in enumerate(words, start=1):
        matrix[row] = rows[word]
    return Vocabulary(words, tokeniser), matrix, coverage(counts, rows.keys())
