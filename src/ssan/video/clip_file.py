"""Many videos in one file, decoded: their frames lie there as they lie in memory, and are read without a decoder.

The layout, whose numbers are unsigned and little-endian::

    header    16 bytes   b"ssanclip", version (4 bytes, 1), zero (4 bytes)
    data                 of each video its frames in the order in which they are shown, each of them height x width x 3
                         bytes: rows from the top, pixels from the left, red green blue
    index                JSON in UTF-8: {"videos": [{"name", "offset", "num_frames", "height_px", "width_px",
                         "times_seconds", "durations_seconds", "crc32"}, ...]}
    footer    56 bytes   where the index begins (8), its length (8), its SHA-256 (32), b"ssanclip"

``offset`` counts from the beginning of the file, times and durations have one entry per frame, ``crc32`` is that of the
video's data. A name is relative, with "/" between its parts and without a suffix. Between videos there may be data that
no video has: a video that was written again leaves its place.

In the file ``x.clips`` the video ``a/b`` has the path ``x.clips/a/b``, as if the file were a folder.
"""

import hashlib
import json
import math
import mmap
import os
import struct
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cached_property, lru_cache
from typing import IO, Any

import numpy as np

from ssan.errors import VideoError
from ssan.files import naming_a_full_disk
from ssan.video.clip import Clip, Examination, Resize, Video, cannot_open, checked_size, wanted_places

SUFFIX = ".clips"
MAGIC = b"ssanclip"
VERSION = 1
HEADER = struct.Struct("<8sII")
FOOTER = struct.Struct("<QQ32s8s")


@dataclass(frozen=True)
class Entry:
    """One video of a clip file: where its data is, of what size its frames are, and when each is shown."""

    name: str
    offset: int
    num_frames: int
    height_px: int
    width_px: int
    times_seconds: tuple[float, ...]
    durations_seconds: tuple[float, ...]
    crc32: int

    @property
    def num_bytes(self) -> int:
        return self.num_frames * self.height_px * self.width_px * 3

    @property
    def end(self) -> int:
        return self.offset + self.num_bytes

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def of(cls, content: Any, path: str, end: int) -> "Entry":
        """An entry out of JSON, checked; its data must lie in the file at ``path`` before ``end``."""
        names = {field.name for field in fields(cls)}
        if not isinstance(content, dict) or set(content) != names or not _is_name(content["name"]):
            raise _malformed(path, f"an entry is {str(content)[:80]!r}")
        whole = [content[name] for name in ("offset", "num_frames", "height_px", "width_px", "crc32")]
        if any(type(number) is not int or number < 0 for number in whole):
            raise _malformed(path, f"{content['name']!r} has the numbers {whole}")
        for name in ("times_seconds", "durations_seconds"):
            if not isinstance(content[name], list) or not all(map(_is_finite, content[name])):
                raise _malformed(path, f"{content['name']!r} has {name} that are no numbers")
            content[name] = tuple(map(float, content[name]))
        entry = cls(**content)
        checked_size(entry.height_px, entry.width_px, path)
        if (
            entry.num_bytes == 0
            or entry.offset < HEADER.size
            or entry.end > end
            or not len(entry.times_seconds) == len(entry.durations_seconds) == entry.num_frames
        ):
            raise _malformed(
                path,
                f"{entry.name!r} has {entry.num_frames} frames of {entry.width_px} x {entry.height_px} from byte "
                f"{entry.offset} on with {len(entry.times_seconds)} times, in {end} bytes",
            )
        return entry


class ClipFile:
    """A clip file, open: its videos by name, and the folders that their names make.

    :raises VideoError: it is cut short, altered in its index, or no clip file.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)
        try:
            with open(self.path, "rb") as handle:
                index, end = _read_index(handle, self.path)
                self.data: bytes | mmap.mmap = mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ)
        except OSError as error:
            raise cannot_open(self.path, error) from error
        self.entries: dict[str, Entry] = {}
        for content in index:
            entry = Entry.of(content, self.path, end)
            if entry.name in self.entries:
                raise _malformed(self.path, f"{entry.name!r} stands there twice")
            self.entries[entry.name] = entry

    @cached_property
    def _folders(self) -> dict[str, tuple[set[str], set[str]]]:
        """Of each folder, "" being the uppermost, the names directly in it: of folders, and of videos."""
        folders: dict[str, tuple[set[str], set[str]]] = {"": (set(), set())}
        for name in self.entries:
            *parts, last = name.split("/")
            folder = ""
            for part in parts:
                folders[folder][0].add(part)
                folder = f"{folder}/{part}" if folder else part
                folders.setdefault(folder, (set(), set()))
            folders[folder][1].add(last)
        return folders

    def is_folder(self, folder: str) -> bool:
        return folder in self._folders

    def subfolders(self, folder: str) -> list[str]:
        """The names of the folders directly in one, sorted."""
        return sorted(self._folders.get(folder, (set(), set()))[0])

    def videos(self, folder: str) -> list[str]:
        """The last parts of the names of the videos directly in a folder, sorted."""
        return sorted(self._folders.get(folder, (set(), set()))[1])

    def below(self, folder: str) -> list[str]:
        """The names of all videos below a folder, sorted part by part."""
        start = f"{folder}/" if folder else ""
        return sorted((name for name in self.entries if name.startswith(start)), key=lambda name: name.split("/"))


class ClipVideo(Video):
    """A video in a clip file; only the frames that are wanted are read."""

    def __init__(self, path: str, entry: Entry, data: bytes | mmap.mmap) -> None:
        self.path, self._entry = path, entry
        pixels = np.frombuffer(data, np.uint8, entry.num_bytes, entry.offset)
        self._pixels = pixels.reshape(entry.num_frames, entry.height_px, entry.width_px, 3)
        self.num_frames = self.num_promised = entry.num_frames
        self.duration_seconds = entry.times_seconds[-1] + entry.durations_seconds[-1] - entry.times_seconds[0]

    @property
    def size_px(self) -> tuple[int, int]:
        return self._entry.height_px, self._entry.width_px

    def begin_seconds(self, index: int) -> float:
        return self._entry.times_seconds[index] - self._entry.times_seconds[0]

    def examine(self) -> Examination:
        if self.is_whole():
            return Examination(self.num_promised, self.num_frames)
        damaged = VideoError(
            "its pixels are not those that were written (by their CRC-32); expected the same. Copy the clip file again",
            code="decode_error",
            path=self.path,
        )
        return Examination(self.num_promised, self.num_frames, 0.0, damaged)

    def read(self, indices: Sequence[int], *, resize: Resize | None = None) -> Clip:
        from torch import channels_last, from_numpy

        from ssan.video.transforms import resize as resize_frames

        numbers = tuple(int(index) for index in indices)
        if max(wanted_places(numbers, self.path)) >= self.num_frames:
            raise VideoError(
                f"frame {max(numbers)} was wanted, the video has frames 0 to {self.num_frames - 1}. Ask for one of "
                "those",
                code="too_few_frames",
                path=self.path,
            )
        frames = from_numpy(self._pixels[list(numbers)]).permute(0, 3, 1, 2)  # picked, so a copy
        if resize:
            frames = resize_frames(frames, *checked_size(*resize(*self.size_px), self.path))
        return Clip(
            frames=frames.contiguous(memory_format=channels_last),
            indices=numbers,
            times_seconds=tuple(self._entry.times_seconds[number] for number in numbers),
            durations_seconds=tuple(self._entry.durations_seconds[number] for number in numbers),
            num_frames=self.num_frames,
            num_promised=self.num_promised,
            duration_seconds=self.duration_seconds,
            path=self.path,
        )

    def is_whole(self) -> bool:
        """Whether the data is what was written: compared by its CRC-32, frame by frame."""
        crc = 0
        for frame in self._pixels:
            crc = zlib.crc32(frame.data, crc)
        return crc == self._entry.crc32


def split_path(path: str | os.PathLike[str]) -> tuple[str, str] | None:
    """A path that leads to a clip file, or into one: that file, and the name in it ("" for the file); else None.

    >>> split_path("x.clips/a/b")  # where x.clips is a file
    ('x.clips', 'a/b')
    """
    path = os.fspath(path)
    end = path.find(SUFFIX)
    while end >= 0:
        end += len(SUFFIX)
        if path[end : end + 1] in ("", os.sep, "/") and os.path.isfile(path[:end]):
            name = os.path.normpath(path[end:].strip("/" + os.sep) or ".").replace(os.sep, "/")
            return path[:end], "" if name == "." else name
        end = path.find(SUFFIX, end)
    return None


def open_clip_file(path: str) -> ClipFile:
    """The clip file at a path; opened once by each process, unless it has changed meanwhile."""
    try:
        status = os.stat(path)
    except OSError as error:
        raise cannot_open(path, error) from error
    return _opened(path, (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns))


@lru_cache(maxsize=16)
def _opened(path: str, identity: tuple[int, ...]) -> ClipFile:
    return ClipFile(path)


def open_clip_video(path: str, file: str, name: str) -> ClipVideo:
    """The video ``name`` of the clip file ``file``; ``path`` is what it was asked for by."""
    opened = open_clip_file(file)
    entry = opened.entries.get(name)
    if entry is None:
        what = f"{len(opened.below(name))} videos and none" if opened.is_folder(name) else "nothing"
        raise VideoError(
            f"the clip file has {what} of this name; expected the name of a video in it. ssan data list --data "
            "names them",
            code="missing",
            path=path,
        )
    return ClipVideo(path, entry, opened.data)


class ClipFileWriter:
    """Appends videos to ``path`` + ".part", which takes the name ``path`` when it is finished.

    What was written in between can be gone on with: ``entries`` are the videos known to be whole, and what follows the
    last of them in the file is dropped. A finished file becomes one that is being written again.
    """

    def __init__(self, path: str, entries: Iterable[Entry] = ()) -> None:
        self.path, self.partial = path, f"{path}.part"
        self.entries = {entry.name: entry for entry in entries}
        if os.path.exists(path):
            os.replace(path, self.partial)
        self._handle: IO[bytes] = open(self.partial, "rb+" if self.entries else "wb+")  # noqa: SIM115, until ``close``
        with naming_a_full_disk(self.partial):
            self._handle.seek(0)
            self._handle.write(HEADER.pack(MAGIC, VERSION, 0))
            self._handle.truncate(max((entry.end for entry in self.entries.values()), default=HEADER.size))
            self._handle.flush()

    def append(
        self, name: str, data: IO[bytes], size_px: tuple[int, int], times: Sequence[float], durations: Sequence[float]
    ) -> Entry:
        """Copy the frames that ``data`` holds, and read them back.

        :raises VideoError: they were not there, or are not on the disk as they were given.
        """
        handle, crc = self._handle, 0
        with naming_a_full_disk(self.partial):
            offset = handle.seek(0, os.SEEK_END)
            while piece := data.read(1 << 22):
                crc = zlib.crc32(piece, crc)
                handle.write(piece)
            handle.flush()
            os.fsync(handle.fileno())
        entry = Entry(name, offset, len(times), *size_px, tuple(times), tuple(durations), crc)
        written = mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ)
        if entry.end != len(written) or not ClipVideo(name, entry, written).is_whole():
            handle.truncate(offset)
            raise VideoError(
                f"{entry.num_bytes} bytes were to be written and are not there; expected as many. Look at the disk",
                code="decode_error",
                path=f"{self.path}/{name}",
            )
        self.entries[name] = entry
        return entry

    def finish(self) -> int:
        """Write the index, and give the file its name; the answer is its size in bytes."""
        names = sorted(self.entries, key=lambda name: name.split("/"))
        index = json.dumps({"videos": [self.entries[name].as_dict() for name in names]}, allow_nan=False).encode()
        with naming_a_full_disk(self.partial):
            offset = self._handle.seek(0, os.SEEK_END)
            self._handle.write(index + FOOTER.pack(offset, len(index), hashlib.sha256(index).digest(), MAGIC))
            self._handle.flush()
            os.fsync(self._handle.fileno())
            size = self._handle.tell()
        self._handle.close()
        ClipFile(self.partial)
        os.replace(self.partial, self.path)
        return size

    def close(self) -> None:
        """Leave the unfinished file as it is, to be gone on with."""
        self._handle.close()


def _read_index(handle: IO[bytes], path: str) -> tuple[list[Any], int]:
    """What the index lists, and where the data ends."""
    size = os.fstat(handle.fileno()).st_size
    magic, version, _ = HEADER.unpack(handle.read(HEADER.size).ljust(HEADER.size, b"\0"))
    if magic != MAGIC:
        raise VideoError(
            "this is not a clip file; expected one that ssan data resize --to clips has written",
            code="not_video",
            path=path,
        )
    if version != VERSION:
        raise VideoError(
            f"a clip file of version {version}; this release reads version {VERSION}. Make it again, or use a newer "
            "release",
            code="not_video",
            path=path,
        )
    cut = VideoError(
        f"the clip file is cut short: it has {size} bytes, and its index is not at their end. Copy it again",
        code="truncated",
        path=path,
    )
    if size < HEADER.size + FOOTER.size:
        raise cut
    handle.seek(size - FOOTER.size)
    offset, length, digest, magic = FOOTER.unpack(handle.read(FOOTER.size))
    if magic != MAGIC or offset < HEADER.size or offset + length + FOOTER.size != size:
        raise cut
    handle.seek(offset)
    text = handle.read(length)
    if hashlib.sha256(text).digest() != digest:
        raise _malformed(path, "its SHA-256 is another than the one written down")
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _malformed(path, str(error)) from None
    if not isinstance(content, dict) or not isinstance(content.get("videos"), list):
        raise _malformed(path, 'it is not {"videos": [...]}')
    return content["videos"], offset


def _malformed(path: str, what: str) -> VideoError:
    return VideoError(
        f"the index of the clip file is not as it was written: {what}. Copy it again, or make it again",
        code="decode_error",
        path=path,
    )


def _is_name(name: Any) -> bool:
    """Whether this names a video below the file: relative, and never upwards."""
    return isinstance(name, str) and "\0" not in name and all(part not in ("", ".", "..") for part in name.split("/"))


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
