"""Vectors of floating-point numbers on disk: by id, with their times, with where they came from; read as asked for.

    FEATURES/store.json        {"schema": 1, "dim": 2048, "dtype": "float16", "provenance": {...}}
    FEATURES/part-0.vectors    rows of dim numbers, one after another, float16, little-endian
    FEATURES/part-0.spans      start and end of each row in seconds, float64, little-endian
    FEATURES/part-0.jsonl      {"id", "path", "first", "num", "crc"}, one line an entry: its rows [first, first + num)

Each writing process has a part of its own. An entry counts once its line is complete, which is written after its rows:
a writer that is killed anywhere loses the entry that it was writing and no other, and the next one on that part cuts
off what was left of it.
"""

import json
import os
import re
import weakref
import zlib
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import numpy as np

from ssan.errors import SsanError, UsageError, few, quoted
from ssan.files import (
    is_text,
    naming_a_full_disk,
    one_writer,
    open_regular,
    pread_exactly,
    read_json,
    read_jsonl,
    write_json,
)

STORE = "store.json"
SCHEMA = 1
DTYPE = "float16"
ROWS, SPANS = np.dtype("<f2"), np.dtype("<f8")
# No network is this wide; and no list of ids has such lines.
MOST_DIM, MOST_LINE = 65_536, 65_536
MOST_ID = 4096

_PART = re.compile(r"part-(0|[1-9]\d{0,5})\.jsonl")


def part_id(video: str, start_seconds: float | None, end_seconds: float | None) -> str:
    """The id of the entry of a part of a video, [start, end) in seconds; of all of it, the video's own.

    >>> part_id("kitchen/a", 2.0, 7.25), part_id("kitchen/a", None, None)
    ('kitchen/a@2-7.25', 'kitchen/a')
    """
    if start_seconds is None and end_seconds is None:
        return video
    end = "" if end_seconds is None else f"{end_seconds:.10g}"
    return f"{video}@{start_seconds or 0:.10g}-{end}"


class Entry(NamedTuple):
    """Where the rows of an id are: in which part, from which row on, how many, with which checksum.

    ``stop`` is where its line ends, in bytes.
    """

    part: int
    first: int
    num: int
    crc: int
    stop: int


@dataclass(frozen=True)
class StorePart:
    """The files of one writing process."""

    folder: Path
    number: int

    @property
    def lines(self) -> Path:
        return self.folder / f"part-{self.number}.jsonl"

    @property
    def vectors(self) -> Path:
        return self.folder / f"part-{self.number}.vectors"

    @property
    def spans(self) -> Path:
        return self.folder / f"part-{self.number}.spans"

    def entries(self) -> dict[str, Entry]:
        """The entries of complete lines, in their order; what follows the last one was cut off.

        :raises UsageError: a complete line that is none of ours, or that does not go on where the one before ends.
        """
        found: dict[str, Entry] = {}
        first = 0
        lines = read_jsonl(self.lines, "the entries of a store", most_bytes=MOST_LINE)
        for number, (stop, said) in enumerate(lines, start=1):
            if said is None or not _is_entry(said) or said["first"] != first or said["id"] in found:
                raise self._altered(number)
            found[said["id"]] = Entry(self.number, first, said["num"], said["crc"], stop)
            first += said["num"]
        return found

    def _altered(self, line: int) -> UsageError:
        return UsageError(
            "not a line of a store of vectors, or not in its order; the file was altered. Copy the store again, or "
            "extract into another folder",
            code="bad_annotation",
            path=str(self.lines),
            line=line,
        )


def _is_entry(said: dict[str, Any]) -> bool:
    if not isinstance(said.get("id"), str) or not said["id"]:
        return False
    numbers = [said.get(name) for name in ("first", "num", "crc")]
    return all(type(number) is int and 0 <= number < 1 << 48 for number in numbers) and said["num"] > 0


def _parts(folder: Path) -> list[StorePart]:
    """The parts of a store by their numbers; names of any other form are not ours."""
    found = [_PART.fullmatch(name) for name in os.listdir(folder)]
    return sorted((StorePart(folder, int(name[1])) for name in found if name), key=lambda part: part.number)


def _checksum(rows: np.ndarray, spans: np.ndarray) -> int:
    return zlib.crc32(spans.data, zlib.crc32(rows.data))


def _read_store(folder: Path) -> tuple[int, dict[str, Any]]:
    """The length of the vectors, and where they came from."""
    path = folder / STORE
    said = read_json(path)
    dim = said.get("dim") if isinstance(said, dict) else None
    if (
        not isinstance(said, dict)
        or said.get("schema") != SCHEMA
        or said.get("dtype") != DTYPE
        or not (type(dim) is int and 0 < dim <= MOST_DIM)
        or not isinstance(said.get("provenance"), dict)
    ):
        raise UsageError(
            f"not the description of a store of vectors that this version reads; expected schema {SCHEMA}, dtype "
            f"{DTYPE}, dim of 1 to {MOST_DIM} and the provenance",
            code="bad_annotation",
            path=str(path),
        )
    return dim, said["provenance"]


class VectorWriter:
    """Adds entries to a store, which it makes where there is none.

    ``done`` has the ids that are there, whoever wrote them, when the writer is opened, and those added since. ``with``
    closes it.

    :param dim: length of the vectors.
    :param provenance: where they come from, as JSON; the same for all that a store holds.
    :param part: number of the writing process; no two may write to one part at a time.
    :raises UsageError: the store has vectors of another length or provenance, the first difference is named; or another
        process is writing to the part.
    """

    def __init__(self, folder: str | Path, dim: int, provenance: Mapping[str, Any], *, part: int = 0) -> None:
        if not 0 < dim <= MOST_DIM:
            raise UsageError(f"vectors of length {dim}; expected 1 to {MOST_DIM}")
        self.folder, self.dim = Path(folder), dim
        self.provenance: dict[str, Any] = json.loads(json.dumps(dict(provenance), allow_nan=False))
        if self.folder.exists() and not self.folder.is_dir():
            raise UsageError("a file lies where the store is to be; name another folder", path=str(self.folder))
        self._part = StorePart(self.folder, part)
        self._open = ExitStack()
        try:
            self._open.enter_context(one_writer(self._part.lines))
            # Behind the lock: of two writers that began at a time, the later one finds what the first has made.
            _make(self.folder, dim, self.provenance)
            self._lines, self._vectors, self._spans = map(
                self._add_to, (self._part.lines, self._part.vectors, self._part.spans)
            )
            self.done = self._mend()
        except BaseException:
            self._open.close()
            raise
        for other in _parts(self.folder):
            if other.number != part:
                self.done.update(other.entries())

    def _add_to(self, path: Path) -> FileIO:
        handle = open(path, "ab+", buffering=0)  # noqa: SIM115
        self._open.callback(_close, handle, path)
        return handle

    def _mend(self) -> set[str]:
        """Cut off what a killed writer left behind its last entry; returns the ids of the part."""
        entries = self._part.entries()
        # The lines of a machine that lost its power may have reached the disk before the rows have.
        while entries and not self._is_whole(entries[next(reversed(entries))]):
            entries.popitem()
        last = entries[next(reversed(entries))] if entries else Entry(0, 0, 0, 0, 0)
        self._num, self._stop = last.first + last.num, last.stop
        self._cut()
        return set(entries)

    def _cut(self) -> None:
        """Cut the files off where the last entry ends."""
        sizes = self._stop, self._num * self.dim * ROWS.itemsize, self._num * 2 * SPANS.itemsize
        for handle, size in zip((self._lines, self._vectors, self._spans), sizes, strict=True):
            os.truncate(handle.fileno(), size)

    def _is_whole(self, entry: Entry) -> bool:
        row, span = self.dim * ROWS.itemsize, 2 * SPANS.itemsize
        self._vectors.seek(entry.first * row)
        self._spans.seek(entry.first * span)
        rows, spans = self._vectors.read(entry.num * row), self._spans.read(entry.num * span)
        whole = len(rows) == entry.num * row and len(spans) == entry.num * span
        return whole and zlib.crc32(spans, zlib.crc32(rows)) == entry.crc

    def add(self, name: str, rows: np.ndarray, spans: np.ndarray, path: str) -> None:
        """Add the vectors of one id; when this returns, they are in the store, and stay there if the process is killed.

        :param rows: (n, dim) numbers, n of 1 or more; kept as float16.
        :param spans: (n, 2) start and end of each in seconds, [start, end), in the order of time.
        :param path: of the video, for whoever looks at the store.
        :raises SsanError: numbers that are not finite, or that float16 cannot hold (code ``nan``); an id that is there
            already (code ``duplicate``); or the disk is full (code ``no_space``).
        """
        if not name or len(name) > MOST_ID or not is_text(name):
            raise UsageError(f"the id {quoted(name, 80)} cannot be stored; expected 1 to {MOST_ID} letters", path=path)
        if name in self.done:
            raise UsageError(f"{name!r} is in the store already; ids must differ", code="duplicate", path=path)
        rows, spans = np.asarray(rows), np.ascontiguousarray(spans, SPANS)
        if rows.ndim != 2 or rows.shape[1] != self.dim or len(rows) == 0 or spans.shape != (len(rows), 2):
            raise UsageError(
                f"vectors {rows.shape} with times {spans.shape} for {name!r}; expected (n, {self.dim}) and (n, 2), n "
                "of 1 or more"
            )
        in_order = (np.diff(spans, axis=0) >= 0).all() and (spans[:, 0] <= spans[:, 1]).all() and spans[0, 0] >= 0
        if not (np.isfinite(spans).all() and in_order):
            raise UsageError(f"the times of {name!r} are not in order; expected [start, end) in seconds, ascending")
        with np.errstate(over="ignore"):
            kept = np.ascontiguousarray(rows, ROWS)
        if not np.isfinite(kept).all():
            what = "beyond what float16 holds (65504)" if np.isfinite(rows).all() else "NaN or infinite"
            raise SsanError(
                f"the vectors of {name!r} are {what}; expected finite numbers. If those of other videos are so too, "
                "the model's weights are unusable",
                code="nan",
                path=path,
            )
        line = {"id": name, "path": path, "first": self._num, "num": len(kept), "crc": _checksum(kept, spans)}
        encoded = json.dumps(line).encode() + b"\n"
        if len(encoded) > MOST_LINE:
            raise UsageError(f"the path of {quoted(name, 80)} is too long; expected fewer than {MOST_LINE} bytes")
        try:
            with naming_a_full_disk(self._part.vectors):
                for handle, content in [
                    (self._vectors, kept.data),
                    (self._spans, spans.data),
                    (self._lines, memoryview(encoded)),
                ]:
                    _write(handle, content)
        except BaseException:
            self._cut()  # whoever goes on after the error finds the rows where the lines say
            raise
        self._num, self._stop = self._num + len(kept), self._stop + len(encoded)
        self.done.add(name)

    def close(self) -> None:
        """See that everything is on the disk, and let others write to the part."""
        self._open.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def _make(folder: Path, dim: int, provenance: dict[str, Any]) -> None:
    """Describe a new store, or see that what is there is one with such vectors."""
    if not (folder / STORE).exists():
        if _parts(folder) and not (folder / STORE).exists():  # another writer may have made both just now
            raise UsageError(
                f"{STORE} is missing beside its parts; copy the store again", code="missing", path=str(folder)
            )
        with suppress(FileExistsError):
            write_json(
                folder / STORE, {"schema": SCHEMA, "dim": dim, "dtype": DTYPE, "provenance": provenance}, new=True
            )
    # Read back also where it was just to be written: writers of other parts may have begun at the same time.
    its_dim, its_provenance = _read_store(folder)
    difference = _difference({"dim": its_dim, **its_provenance}, {"dim": dim, **provenance})
    if difference is not None:
        raise UsageError(
            f"the vectors in this store differ from those to be added: {difference}. Name another folder, or make them "
            "as those were made",
            code="wrong_model",
            path=str(folder),
        )


def _difference(there: Any, here: Any, name: str = "") -> str | None:
    """The first difference of two JSON values, in words."""
    if isinstance(there, dict) and isinstance(here, dict):
        inner = (_difference(there.get(k), here.get(k), f"{name}.{k}" if name else k) for k in {**there, **here})
        return next((difference for difference in inner if difference), None)
    if type(there) is type(here) and there == here:
        return None
    return f"{name} is {json.dumps(there)} there and {json.dumps(here)} here"


def _write(handle: FileIO, content: memoryview) -> None:
    """Write everything; a system takes at most 2 GiB at a time."""
    left = memoryview(content).cast("B")
    while len(left):
        left = left[handle.write(left) :]


def _close(handle: FileIO, path: Path) -> None:
    try:
        with naming_a_full_disk(path):
            os.fsync(handle.fileno())
    finally:
        handle.close()


class Vectors:
    """A store that is read: rows by id, as far as they were written when it was opened.

    An id that is in two parts, which only two jobs at a time can bring about, counts where it comes first, in the order
    of the parts' numbers. The rows of an entry are compared with their checksum when they are first asked for.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.dim, self.provenance = _read_store(self.folder)
        self._entries: dict[str, Entry] = {}
        self._parts: dict[int, tuple[StorePart, _Rows, _Rows]] = {}
        for part in _parts(self.folder):
            entries = part.entries()
            num = sum(entry.num for entry in entries.values())
            self._parts[part.number] = part, _Rows(part.vectors, num, self.dim, ROWS), _Rows(part.spans, num, 2, SPANS)
            self._entries |= {name: entry for name, entry in entries.items() if name not in self._entries}
        self.ids = list(self._entries)
        self.num_vectors = sum(entry.num for entry in self._entries.values())

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __len__(self) -> int:
        return len(self._entries)

    def rows(self, name: str) -> np.ndarray:
        """The vectors of an id, (n, dim) float16, not to be written to."""
        return self._slice(name)[0]

    def spans(self, name: str) -> np.ndarray:
        """Start and end of each vector of an id, (n, 2) float64 in seconds, [start, end), in the order of time."""
        return self._slice(name)[1]

    def _slice(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        entry = self._entries.get(name)
        if entry is None:
            raise UsageError(
                f"there are no vectors of {name!r}; it has, for instance, {few(self.ids)}. Extract them",
                code="missing",
                path=str(self.folder),
            )
        part, vectors, spans = self._parts[entry.part]
        rows, times = vectors.read(entry.first, entry.num), spans.read(entry.first, entry.num)
        if _checksum(rows, times) != entry.crc:
            raise UsageError(
                f"the vectors of {name!r} are not those that were written; the file or {part.spans.name} was "
                "altered. Copy the store again, or extract into another folder",
                code="bad_annotation",
                path=str(part.vectors),
            )
        return rows, times


class _Rows:
    """The first ``num`` rows of a file; what a writer has written beyond them does not count yet.

    They are read and not mapped into memory: of a map whose file shrinks, a look ends the process.
    """

    def __init__(self, path: Path, num: int, width: int, dtype: np.dtype[Any]) -> None:
        self.path, self.width, self.dtype = path, width, dtype
        if not path.exists():
            raise UsageError("the file is missing; copy the store again", code="missing", path=str(path))
        with open_regular(path, "a file of a store of vectors; copy the store again") as handle:
            needed, size = num * width * dtype.itemsize, os.fstat(handle.fileno()).st_size
            if size < needed:
                raise self._cut(size, needed)
            self._descriptor = os.dup(handle.fileno())
        weakref.finalize(self, os.close, self._descriptor)

    def read(self, first: int, num: int) -> np.ndarray:
        rows = np.empty((num, self.width), self.dtype)
        begin = first * self.width * self.dtype.itemsize
        if not pread_exactly(self._descriptor, rows.data.cast("B"), begin):
            raise self._cut(os.fstat(self._descriptor).st_size, begin + rows.nbytes)
        rows.flags.writeable = False
        return rows

    def _cut(self, size: int, needed: int) -> UsageError:
        return UsageError(
            f"the file has {size} bytes, expected {needed}: it is cut off. Copy the store again, or extract once more, "
            "which adds what is missing",
            code="truncated",
            path=str(self.path),
        )


def open_vectors(path: str | Path) -> Vectors:
    """Open a store of vectors.

    :raises UsageError: there is none, or a file of it is missing, cut off or altered; the file is named.
    """
    if not (Path(path) / STORE).is_file():
        raise UsageError(
            f"no store of vectors; expected a folder with {STORE}, which `ssan extract` makes",
            code="missing",
            path=str(path),
        )
    return Vectors(path)
