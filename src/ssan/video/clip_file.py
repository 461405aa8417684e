"""Clip files, many videos in one: their frames lie there as they lie in memory, and are read without a decoder.

The layout, whose numbers are unsigned and little-endian::

    header    16 bytes   b"ssanclip", version (4 bytes, 2), zero (4 bytes)
    data                 of each video its frames in the order in which they are shown, each of them height x width x 3
                         bytes: rows from the top, pixels from the left, red green blue; and then what is said of them:
                         when each is shown and for how long, in seconds, and the CRC-32 of its bytes
    index                which videos there are, where, and of what size (``ssan.video.clip_index``)

A name is relative, with "/" between its parts and without a suffix. Between videos there may be data that no video has:
a video that was written again leaves the old. Files of version 1, which have their times in the index and no sums of
frames, are read too.

In the file ``x.clips`` the video ``a/b`` has the path ``x.clips/a/b``, as if the file were a folder.
"""

import os
import stat
import weakref
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import IO

import numpy as np

from ssan.errors import VideoError
from ssan.files import NO_LINK, NO_WAIT, naming_a_full_disk, pread_exactly
from ssan.video.clip import Clip, Examination, Resize, Video, cannot_open, checked_size, positions_in_clip
from ssan.video.clip_index import (
    FRAME_BYTES,
    HEADER,
    MAGIC,
    VERSION,
    Entries,
    Entry,
    FrameTable,
    index_bytes,
    malformed,
    read_index,
)

SUFFIX = ".clips"


class ClipFile:
    """A clip file, open: its videos by name, and the folders that their names make.

    It is read and never mapped into memory: of a map whose file shrinks, a look ends the process.

    :raises VideoError: it is cut short, altered in its index, or no clip file.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)
        try:
            with open(os.open(self.path, os.O_RDONLY | NO_WAIT), "rb") as handle:
                if not stat.S_ISREG(os.fstat(handle.fileno()).st_mode):
                    raise VideoError("not a file; expected a clip file", code="not_video", path=self.path)
                self.entries: Entries = read_index(handle, self.path)
                self.descriptor = os.dup(handle.fileno())
        except OSError as error:
            raise cannot_open(self.path, error) from error
        weakref.finalize(self, os.close, self.descriptor)

    def is_folder(self, folder: str) -> bool:
        return self.entries.is_folder(folder)

    def subfolders(self, folder: str) -> list[str]:
        """The names of the folders directly in one, sorted."""
        return self.entries.inside(folder)[0]

    def videos(self, folder: str) -> list[str]:
        """The last parts of the names of the videos directly in a folder, sorted."""
        return self.entries.inside(folder)[1]

    def below(self, folder: str) -> list[str]:
        """The names of all videos below a folder, sorted part by part."""
        return self.entries.below(folder)

    def frames(self, entry: Entry) -> FrameTable:
        """What is said of the frames of a video."""
        found = self.entries.frames(entry.name)
        if found is not None:
            return found
        data = bytearray(entry.num_frames * FRAME_BYTES)
        if not pread_exactly(self.descriptor, memoryview(data), entry.frames_at):
            raise _shrunk(self.path)
        found = FrameTable.of(data)
        if zlib.crc32(data) != entry.frames_crc32 or not found.is_sound():
            raise malformed(self.path, f"what it says of the frames of {entry.name!r} was altered")
        return found


def _shrunk(path: str) -> VideoError:
    return VideoError(
        "the clip file has become shorter since it was opened. Wait until nothing writes to it, or copy it again",
        code="truncated",
        path=path,
    )


class ClipVideo(Video):
    """A video in a clip file; only the frames that are wanted are read."""

    def __init__(self, path: str, entry: Entry, file: ClipFile) -> None:
        self.path, self._entry, self._file = path, entry, file
        self._times, self._durations, self._sums = file.frames(entry)
        self.num_frames = self.num_promised = entry.num_frames
        self.duration_seconds = float(self._times[-1] + self._durations[-1] - self._times[0])

    @property
    def size_px(self) -> tuple[int, int]:
        return self._entry.height_px, self._entry.width_px

    def begin_seconds(self, index: int) -> float:
        return float(self._times[index] - self._times[0])

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

        from ssan.video.preprocess import resize_frames

        numbers = tuple(int(index) for index in indices)
        positions = positions_in_clip(numbers, self.path)
        if max(positions) >= self.num_frames:
            raise VideoError(
                f"frame {max(numbers)} was wanted, the video has frames 0 to {self.num_frames - 1}. Ask for one of "
                "those",
                code="too_few_frames",
                path=self.path,
            )
        pixels = np.empty((len(numbers), *self.size_px, 3), np.uint8)
        for number, (first, *others) in positions.items():
            self._fill(pixels[first], number)
            pixels[others] = pixels[first]
        frames = from_numpy(pixels).permute(0, 3, 1, 2)
        if resize:
            frames = resize_frames(frames, *checked_size(*resize(*self.size_px), self.path))
        return Clip(
            frames=frames.contiguous(memory_format=channels_last),
            indices=numbers,
            times_seconds=tuple(self._times[list(numbers)].tolist()),
            durations_seconds=tuple(self._durations[list(numbers)].tolist()),
            num_frames=self.num_frames,
            num_promised=self.num_promised,
            duration_seconds=self.duration_seconds,
            path=self.path,
        )

    def _fill(self, frame: np.ndarray, number: int) -> None:
        """Read a frame (h, w, 3), and see that it is the one that was written."""
        data, entry = frame.data.cast("B"), self._entry
        if not pread_exactly(self._file.descriptor, data, entry.offset + number * entry.frame_bytes):
            raise _shrunk(self._file.path)
        if self._sums is not None and zlib.crc32(data) != self._sums[number]:
            raise VideoError(
                f"frame {number} is not what was written (by its CRC-32); expected the same. Copy the clip file again",
                code="decode_error",
                path=self.path,
            )

    def is_whole(self) -> bool:
        """Whether the data is what was written: compared by its CRC-32, frame by frame."""
        return _sums(self._file.descriptor, self._entry)[0] == self._entry.crc32


def _sums(descriptor: int, entry: Entry) -> tuple[int, np.ndarray]:
    """The CRC-32 of the pixels of a video as they are in the file, and of each frame's; of less where there is less."""
    crc, frame = 0, memoryview(bytearray(entry.frame_bytes))
    each = np.zeros(entry.num_frames, np.uint32)
    for number in range(entry.num_frames):
        if not pread_exactly(descriptor, frame, entry.offset + number * entry.frame_bytes):
            break
        crc, each[number] = zlib.crc32(frame, crc), zlib.crc32(frame)
    return crc, each


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
    return ClipVideo(path, entry, opened)


class ClipFileWriter:
    """Appends videos to ``path`` + ".part", which takes the name ``path`` when it is finished.

    What was written in between can be gone on with: ``entries`` are the videos known to be whole, and what follows the
    last of them in the file is dropped. A finished file becomes one that is being written again; whoever reads it then
    goes on reading what was there.
    """

    def __init__(self, path: str, entries: Iterable[Entry] = ()) -> None:
        self.path, self.partial = path, f"{path}.part"
        self.entries = {entry.name: entry for entry in entries}
        ends = max((entry.end for entry in self.entries.values()), default=HEADER.size)
        if os.path.exists(path):
            ends = max(ends, os.path.getsize(path))  # its index stays, for those who read it
            os.replace(path, self.partial)
        # The name can be foreseen: somebody may have laid a link there.
        flags = os.O_RDWR | os.O_CREAT | NO_LINK | NO_WAIT | (0 if self.entries else os.O_TRUNC)
        self._handle: IO[bytes] = open(os.open(self.partial, flags, 0o666), "rb+")  # noqa: SIM115, until ``close``
        with naming_a_full_disk(self.partial):
            self._handle.seek(0)
            self._handle.write(HEADER.pack(MAGIC, VERSION, 0))
            self._handle.truncate(ends)
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
        pixels = Entry(name, offset, len(times), *size_px, crc, 0, 0)
        frames = FrameTable(np.array(times), np.array(durations), None)
        if pixels.end != handle.tell() or not frames.is_sound():
            handle.truncate(offset)
            raise VideoError(
                f"{pixels.num_bytes} bytes were to be written and are not there, or times are none; expected as many. "
                "Look at the disk",
                code="decode_error",
                path=f"{self.path}/{name}",
            )
        try:
            return self.describe(pixels, frames)
        except BaseException:
            handle.truncate(offset)
            raise

    def describe(self, pixels: Entry, frames: FrameTable) -> Entry:
        """Write what is to be said of the frames of a video whose pixels are in the file.

        :raises VideoError: the pixels are not those that were written.
        """
        handle = self._handle
        crc, each = _sums(handle.fileno(), pixels)
        if crc != pixels.crc32:
            raise VideoError(
                "its pixels are not those that were written (by their CRC-32); expected the same. Look at the disk",
                code="decode_error",
                path=f"{self.path}/{pixels.name}",
            )
        said = frames._replace(sums=each).as_bytes()
        with naming_a_full_disk(self.partial):
            at = handle.seek(0, os.SEEK_END)
            handle.write(said)
            handle.flush()
            os.fsync(handle.fileno())
        entry = replace(pixels, frames_at=at, frames_crc32=zlib.crc32(said))
        self.entries[pixels.name] = entry
        return entry

    def finish(self) -> int:
        """Write the index, and give the file its name; the answer is its size in bytes."""
        with naming_a_full_disk(self.partial):
            self._handle.write(index_bytes(self.entries.values(), self._handle.seek(0, os.SEEK_END)))
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
