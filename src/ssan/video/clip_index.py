"""The index of a clip file: which videos are in it, where, and of what size; read in one go, and small.

What is said of each single frame lies apart, and is read with its video: of 170,000 videos the index has some 15 MB.

The index of version 2, whose numbers are unsigned and little-endian::

    names                of the videos, UTF-8, with the byte 0xff between two; in the order of their parts
    table     40 bytes   of each video, in that order: where its pixels begin (8), where what is said of its frames
                         begins (8), number of frames (4), height (4) and width (4) in pixels, CRC-32 of its pixels (4)
                         and of what is said of its frames (4), zero (4)
    footer    64 bytes   where the names begin (8), their length (8), number of videos (8), SHA-256 of names and table
                         (32), b"ssanclip"

That of version 1 is JSON in UTF-8, with the times of all frames, and no sums of single frames::

    index                {"videos": [{"name", "offset", "num_frames", "height_px", "width_px", "times_seconds",
                         "durations_seconds", "crc32"}, ...]}
    footer    56 bytes   where the index begins (8), its length (8), its SHA-256 (32), b"ssanclip"
"""

import hashlib
import json
import os
import struct
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from typing import IO, Any, NamedTuple

import numpy as np

from ssan.errors import VideoError, quoted, shortened
from ssan.video.clip import MOST_PIXELS

MAGIC = b"ssanclip"
VERSION = 2
HEADER = struct.Struct("<8sII")
FOOTER = struct.Struct("<QQQ32s8s")
FOOTER_1 = struct.Struct("<QQ32s8s")
TABLE = np.dtype([
    ("offset", "<u8"), ("frames_at", "<u8"), ("num_frames", "<u4"), ("height_px", "<u4"), ("width_px", "<u4"),
    ("crc32", "<u4"), ("frames_crc32", "<u4"), ("zero", "<u4"),
])  # fmt: skip
BETWEEN = b"\xff"  # is in no letter of UTF-8
FRAME_BYTES = 20
MOST_INDEX_BYTES, MOST_INDEX_BYTES_1 = 1 << 29, 1 << 28
"""Of versions 2 and 1: a hundred bytes a video are enough for five million; JSON takes several times its room."""

MOST_FRAMES = 10_000_000
"""Of one video; four days at 25 a second."""

# Of a time; thirty years, so that no sum of times is infinite.
MOST_SECONDS = 1e9


class FrameTable(NamedTuple):
    """What is said of the frames of a video: when each is shown and for how long, and the CRC-32 of its pixels.

    In a file: the times, the durations (float64), the sums (uint32), little-endian. ``sums`` is None where none were
    taken, in files of version 1.
    """

    times_seconds: np.ndarray
    durations_seconds: np.ndarray
    sums: np.ndarray | None

    def as_bytes(self) -> bytes:
        assert self.sums is not None
        return b"".join([
            self.times_seconds.astype("<f8").tobytes(),
            self.durations_seconds.astype("<f8").tobytes(),
            self.sums.astype("<u4").tobytes(),
        ])  # fmt: skip

    @classmethod
    def of(cls, data: bytes | bytearray) -> "FrameTable":
        count = len(data) // FRAME_BYTES
        times, durations = np.frombuffer(data, "<f8", 2 * count).reshape(2, count)
        return cls(times, durations, np.frombuffer(data, "<u4", count, 16 * count))

    def is_sound(self) -> bool:
        return bool((np.abs([self.times_seconds, self.durations_seconds]) <= MOST_SECONDS).all())


@dataclass(frozen=True)
class Entry:
    """One video of a clip file: where its pixels are, of what size its frames are, where more is said of these."""

    name: str
    offset: int
    num_frames: int
    height_px: int
    width_px: int
    crc32: int
    frames_at: int
    frames_crc32: int

    @property
    def frame_bytes(self) -> int:
        return self.height_px * self.width_px * 3

    @property
    def num_bytes(self) -> int:
        return self.num_frames * self.frame_bytes

    @property
    def end(self) -> int:
        """Where what is in the file of this video ends; of one without more than its pixels, where these do."""
        said = self.frames_at + self.num_frames * FRAME_BYTES if self.frames_at else 0
        return max(self.offset + self.num_bytes, said)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def of(cls, content: Any, path: str) -> "Entry":
        """An entry out of JSON; the file at ``path`` says it."""
        names = [field.name for field in fields(cls)]
        if not isinstance(content, dict) or set(content) != set(names) or not _is_name(content["name"]):
            raise malformed(path, f"an entry is {quoted(str(content), 80)}")
        if not all(type(content[name]) is int and 0 <= content[name] < 1 << 62 for name in names[1:]):
            raise malformed(path, f"{content['name']!r} has numbers that are none")
        return cls(**content)


def key_of(name: str) -> bytes:
    """What names are sorted by: their parts, by code points. No letter comes before the zero between two of them."""
    return name.encode("utf-8", "surrogatepass").replace(b"/", b"\0")


def _name_of(key: bytes) -> str:
    return key.replace(b"\0", b"/").decode("utf-8", "surrogatepass")


class Entries(Mapping[str, Entry]):
    """The videos of a clip file by name, and the folders that their names make; looked up by bisection.

    :param tables: what is said of the frames of each, where the file has it in its index.
    """

    def __init__(self, keys: list[bytes], table: np.ndarray, tables: list[FrameTable] | None = None) -> None:
        self._keys, self._table, self._tables = keys, table, tables

    def __len__(self) -> int:
        return len(self._keys)

    def __iter__(self) -> Iterator[str]:
        return map(_name_of, self._keys)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self._find(name) is not None

    def __getitem__(self, name: str) -> Entry:
        number = self._find(name)
        if number is None:
            raise KeyError(name)
        row = self._table[number]
        return Entry(name, *(int(row[field.name]) for field in fields(Entry)[1:]))

    def frames(self, name: str) -> FrameTable | None:
        """What the index itself says of the frames of a video."""
        number = self._find(name)
        return None if self._tables is None or number is None else self._tables[number]

    def _find(self, name: str) -> int | None:
        key = key_of(name)
        number = bisect_left(self._keys, key)
        return number if number < len(self._keys) and self._keys[number] == key and "\0" not in name else None

    def _below(self, folder: str) -> tuple[int, int, bytes]:
        """Where the videos below a folder begin and end, and how their keys begin; "" is the uppermost folder."""
        if not folder:
            return 0, len(self._keys), b""
        start = key_of(folder) + b"\0"
        return bisect_left(self._keys, start), bisect_left(self._keys, start[:-1] + b"\1"), start

    def is_folder(self, folder: str) -> bool:
        start, stop, _ = self._below(folder)
        return start < stop or not folder

    def below(self, folder: str) -> list[str]:
        start, stop, _ = self._below(folder)
        return [_name_of(key) for key in self._keys[start:stop]]

    def inside(self, folder: str) -> tuple[list[str], list[str]]:
        """The names directly in a folder: of folders, and of videos, as the last parts of their names."""
        number, stop, start = self._below(folder)
        folders: list[str] = []
        videos: list[str] = []
        while number < stop:
            part, more, _ = self._keys[number][len(start) :].partition(b"\0")
            (folders if more else videos).append(_name_of(part))
            number = bisect_left(self._keys, start + part + b"\1", number, stop) if more else number + 1
        return folders, videos


def index_bytes(entries: Iterable[Entry], begins: int) -> bytes:
    """Index and footer, to be written from the byte ``begins`` on."""
    ordered = sorted(entries, key=lambda entry: key_of(entry.name))
    table = np.zeros(len(ordered), TABLE)
    for name in TABLE.names or ():
        if name != "zero":
            table[name] = [getattr(entry, name) for entry in ordered]
    names = BETWEEN.join(entry.name.encode("utf-8", "surrogatepass") for entry in ordered)
    index = names + table.tobytes()
    return index + FOOTER.pack(begins, len(names), len(ordered), hashlib.sha256(index).digest(), MAGIC)


def read_index(handle: IO[bytes], path: str) -> Entries:
    """The index of an open clip file, checked: every video lies where data can lie, and none on another.

    :raises VideoError: it is cut short, altered in its index, or no clip file.
    """
    size = os.fstat(handle.fileno()).st_size
    magic, version, _ = HEADER.unpack(handle.read(HEADER.size).ljust(HEADER.size, b"\0"))
    if magic != MAGIC:
        raise VideoError(
            "this is not a clip file; expected one that ssan data resize --to clips has written",
            code="not_video",
            path=path,
        )
    if version not in (1, VERSION):
        raise VideoError(
            f"a clip file of version {version}; this release reads versions 1 and {VERSION}. Make it again, or use a "
            "newer release",
            code="not_video",
            path=path,
        )
    footer = FOOTER if version == VERSION else FOOTER_1
    cut = VideoError(
        f"the clip file is cut short: it has {size} bytes, and its index is not at their end. Copy it again",
        code="truncated",
        path=path,
    )
    if size < HEADER.size + footer.size:
        raise cut
    handle.seek(size - footer.size)
    begins, length, *more, digest, magic = footer.unpack(handle.read(footer.size))
    whole = length + sum(more) * TABLE.itemsize
    if magic != MAGIC or begins < HEADER.size or begins + whole + footer.size != size:
        raise cut
    most = MOST_INDEX_BYTES if version == VERSION else MOST_INDEX_BYTES_1
    if whole > most:
        raise malformed(path, f"it takes {whole:,} bytes, more than {most:,}")
    handle.seek(begins)
    index = handle.read(whole)
    if hashlib.sha256(index).digest() != digest:
        raise malformed(path, "its SHA-256 is another than the one written down")
    if version == 1:
        keys, table, tables = _read_json(index, path)
        entries = Entries(keys, table, tables)
    else:
        keys = index[:length].replace(b"/", b"\0").split(BETWEEN) if length else []
        table = np.frombuffer(index, TABLE, offset=length)
        entries = Entries(keys, table)
    if len(keys) != len(table):
        raise malformed(path, f"it has {len(keys)} names of {len(table)} videos")
    _check_names(keys, path)
    _check_offsets(keys, table, begins, version, path)
    return entries


def _check_names(keys: list[bytes], path: str) -> None:
    before = b""
    for number, key in enumerate(keys):
        try:
            name = _name_of(key)
        except UnicodeDecodeError:
            raise malformed(path, f"{quoted(key.decode(errors='replace'), 80)} is no name") from None
        if not _is_name(name):
            raise malformed(path, f"{quoted(name, 80)} is no name below the file")
        if number and key <= before:
            raise malformed(path, f"{name!r} stands there " + ("twice" if key == before else "out of order"))
        before = key


def _check_offsets(keys: list[bytes], table: np.ndarray, end: int, version: int, path: str) -> None:
    area = table["height_px"].astype(np.uint64) * table["width_px"]
    with np.errstate(over="ignore"):  # where this overflows the picture is refused
        pixels = table["num_frames"] * np.minimum(area, MOST_PIXELS + 1) * np.uint64(3)
    begins, sizes = [table["offset"]], [pixels]
    if version == VERSION:
        begins.append(table["frames_at"])
        sizes.append(table["num_frames"] * np.uint64(FRAME_BYTES))
    wrong = (area > MOST_PIXELS) | (pixels == 0) | (table["num_frames"] > MOST_FRAMES)
    for begin, size in zip(begins, sizes, strict=True):
        # An offset near the end of what 64 bits count must not come round.
        wrong |= (begin < HEADER.size) | (begin > end) | (size > end - np.minimum(begin, end))
    if wrong.any():
        number = int(wrong.argmax())
        row = table[number]
        raise malformed(
            path,
            f"{_name_of(keys[number])!r} has {row['num_frames']} frames of {row['width_px']} x {row['height_px']} from "
            f"byte {row['offset']} on, in {end} bytes",
        )
    begin, size = np.concatenate(begins), np.concatenate(sizes)
    order = np.argsort(begin, kind="stable")
    over = begin[order][1:] < (begin + size)[order][:-1]
    if over.any():
        number = int(order[int(over.argmax()) + 1]) % len(keys)
        raise malformed(path, f"{_name_of(keys[number])!r} lies where another video does")


def _read_json(text: bytes, path: str) -> tuple[list[bytes], np.ndarray, list[FrameTable]]:
    """The index of version 1."""
    if 30 * (text.count(b"[") + text.count(b"{")) > len(text) + 1000:  # each takes a hundred bytes of memory
        raise malformed(path, "it has more lists than videos")
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise malformed(path, str(error)) from None
    if not isinstance(content, dict) or not isinstance(content.get("videos"), list):
        raise malformed(path, 'it is not {"videos": [...]}')
    found = sorted((old_entry(video, path) for video in content["videos"]), key=lambda pair: key_of(pair[0].name))
    table = np.zeros(len(found), TABLE)
    for name in ("offset", "num_frames", "height_px", "width_px", "crc32"):
        table[name] = [getattr(entry, name) for entry, _ in found]
    return [key_of(entry.name) for entry, _ in found], table, [frames for _, frames in found]


OLD_FIELDS = {
    "name", "offset", "num_frames", "height_px", "width_px", "times_seconds", "durations_seconds", "crc32",
}  # fmt: skip


def old_entry(content: Any, path: str) -> tuple[Entry, FrameTable]:
    """An entry of version 1 out of JSON, and what it says of the frames."""
    if not isinstance(content, dict) or set(content) != OLD_FIELDS or not _is_name(content["name"]):
        raise malformed(path, f"an entry is {quoted(str(content), 80)}")
    numbers = [content[name] for name in ("num_frames", "height_px", "width_px", "crc32")]
    offset = content["offset"]
    if not all(type(number) is int and 0 <= number < 1 << 32 for number in numbers) or not (
        type(offset) is int and 0 <= offset < 1 << 62
    ):
        raise malformed(path, f"{content['name']!r} has the numbers {shortened(str([offset, *numbers]))}")
    columns = [content["times_seconds"], content["durations_seconds"]]
    for column in columns:
        if not isinstance(column, list) or len(column) != numbers[0] or not all(map(_is_time, column)):
            raise malformed(path, f"{content['name']!r} has times that are none, or another number of them than frames")
    num_frames, height, width, crc = numbers
    times, durations = (np.array(column, np.float64) for column in columns)
    return Entry(content["name"], offset, num_frames, height, width, crc, 0, 0), FrameTable(times, durations, None)


def malformed(path: str, what: str) -> VideoError:
    return VideoError(
        f"the index of the clip file is not as it was written: {what}. Copy it again, or make it again",
        code="decode_error",
        path=path,
    )


def _is_name(name: Any) -> bool:
    """Whether this names a video below the file: relative, and never upwards."""
    return isinstance(name, str) and "\0" not in name and all(part not in ("", ".", "..") for part in name.split("/"))


def _is_time(value: Any) -> bool:
    return type(value) in (int, float) and -MOST_SECONDS <= value <= MOST_SECONDS
