"""Copies of converted videos, and their manifest: a tree of files or folders, or one clip file.

The manifest has a first line with the settings and then a line for each copy; the last line about a copy counts::

    {"settings": {"form": "video", "short_side_px": 256, "quality": 18}}
    {"name": "walk/daria", "source": [123456, 1700000000000000000], "bytes": 65432, "num_frames": 84, "truncated": null}

``source`` is the video's size in bytes and its time of change in nanoseconds. It is written to when a copy has its
name; a copy without a line is made again.
"""

import glob
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from ssan.errors import SsanError, UsageError, VideoError
from ssan.files import NO_LINK, NO_WAIT, naming_a_full_disk, read_jsonl, remove_partials
from ssan.video.clip_file import ClipFileWriter, open_clip_file, split_path
from ssan.video.clip_index import Entry, FrameTable, malformed, old_entry

# What the manifest says of each copy, at least.
FIELDS = {"name", "source", "bytes", "num_frames", "truncated"}


@dataclass(frozen=True)
class CopyJob:
    """A video, its name among the copies, and where what is made of it is to be."""

    source: str
    name: str
    target: str


@dataclass(frozen=True)
class Made:
    """What became of a video: a copy of so many bytes, of a truncated one too; or ``error``, and none."""

    job: CopyJob
    error: SsanError | None = None
    truncated: SsanError | None = None
    num_bytes: int = 0
    size_px: tuple[int, int] = (0, 0)
    times: tuple[float, ...] = ()
    durations: tuple[float, ...] = ()


class Manifest:
    """The manifest at ``path``, made if there is none.

    :raises UsageError: it was made with other settings, or is no manifest.
    """

    def __init__(self, path: str, settings: dict[str, Any]) -> None:
        self.path = path
        self.entries: dict[str, dict[str, Any]] = {}
        lines = [line for _, line in read_jsonl(path, "a manifest of copies")] if os.path.exists(path) else []
        for number, line in enumerate(lines, start=1):
            if line is None or (number > 1 and not line.keys() >= FIELDS):
                raise UsageError(
                    "not a line about a copy; remove the copies with this file, and make them again",
                    code="bad_annotation",
                    path=path,
                    line=number,
                )
            if number == 1 and line.get("settings") != settings:
                raise UsageError(
                    f"what is there was made with {json.dumps(line.get('settings'))}, and now {json.dumps(settings)} "
                    "is asked for; ask for the same, or name another path",
                    path=path,
                )
            if number > 1:
                self.entries[line["name"]] = line
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | NO_LINK | NO_WAIT
        self._handle = open(os.open(path, flags, 0o666), "ab")  # noqa: SIM115, until ``__exit__``
        self._handle.truncate(Path(path).read_bytes().rfind(b"\n") + 1)  # a crash may have left half a line
        if not lines:
            self._append({"settings": settings})

    def record(self, name: str, **fields: Any) -> None:
        """Append what is known about the copy ``name``."""
        self.entries[name] = {"name": name, **fields}
        self._append(self.entries[name])

    def _append(self, line: dict[str, Any]) -> None:
        with naming_a_full_disk(self.path):
            self._handle.write(json.dumps(line, allow_nan=False).encode() + b"\n")
            self._handle.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._handle.close()


class Tree:
    """Copies that are files or folders of their own."""

    def __init__(self, dest: str, manifest: Manifest) -> None:
        self.dest, self.manifest = dest, manifest
        self._fingerprints: dict[str, list[int]] = {}
        self._remove_leftovers()

    def _remove_leftovers(self) -> None:
        for folder, below, _ in os.walk(self.dest):
            remove_partials(folder)
            below[:] = [name for name in below if not name.startswith(".")]

    def known(self, job: CopyJob) -> dict[str, Any] | None:
        """The manifest's entry of a copy that is there, as it was made, and of the video as it is now."""
        self._fingerprints[job.name] = _fingerprint(job.source)
        entry = self.manifest.entries.get(job.name)
        same = entry is not None and entry["source"] == self._fingerprints[job.name] and self._is_there(job, entry)
        return entry if same else None

    def _is_there(self, job: CopyJob, entry: dict[str, Any]) -> bool:
        return size_on_disk(job.target) == entry["bytes"]

    @contextmanager
    def writing(self, num_pending: int) -> Iterator[None]:
        """Meanwhile copies are kept."""
        yield

    def keep(self, made: Made) -> SsanError | None:
        """Write down what was made, or say why it cannot be kept."""
        self._record(made)
        return None

    def _record(self, made: Made, **more: Any) -> None:
        self.manifest.record(
            made.job.name,
            source=self._fingerprints[made.job.name],
            bytes=made.num_bytes,
            num_frames=len(made.times),
            truncated=made.truncated.message if made.truncated else None,
            **more,
        )


class OneFile(Tree):
    """Copies in a clip file; each is appended to it when it has been made, and the file is finished in the end.

    :raises UsageError: the file has other videos than the manifest says.
    """

    def __init__(self, dest: str, manifest: Manifest) -> None:
        super().__init__(dest, manifest)
        self._partial = f"{dest}.part"
        self._entries: dict[str, Entry] = {}
        self._old: dict[str, FrameTable] = {}  # what a manifest of version 1 says of frames
        there = next((path for path in (dest, self._partial) if os.path.exists(path)), None)
        if there is not None:
            size = os.path.getsize(there)
            for name, line in manifest.entries.items():
                entry = self._entry(name, line)
                if entry.end <= size:  # else the machine went down before its disk had all
                    self._entries[name] = entry
        if there == dest and not self._is_of_manifest():
            raise UsageError(
                f"the clip file has other videos than its manifest says; remove both, {dest} and {manifest.path}, to "
                "make it again, or name another path",
                path=dest,
            )
        self._drop_overlaps()

    def _entry(self, name: str, line: dict[str, Any]) -> Entry:
        clip = line.get("clip")
        if isinstance(clip, dict) and "times_seconds" in clip:
            entry, self._old[name] = old_entry(clip, self.manifest.path)
        else:
            entry = Entry.of(clip, self.manifest.path)
        if entry.name != name:
            raise malformed(self.manifest.path, f"{name!r} is called {entry.name!r}")
        return entry

    def _is_of_manifest(self) -> bool:
        there = open_clip_file(self.dest).entries
        return len(there) == len(self._entries) and all(
            name in there and (there[name].offset, there[name].num_bytes, there[name].crc32)
            == (entry.offset, entry.num_bytes, entry.crc32)
            for name, entry in self._entries.items()
        )  # fmt: skip

    def _drop_overlaps(self) -> None:
        """Of a file that two have written at a time, as those could that knew no lock: make again what is mixed up."""
        last = None
        for entry in sorted(self._entries.values(), key=lambda entry: entry.offset):
            if last is not None and entry.offset < last.offset + last.num_bytes:
                self._entries.pop(entry.name)
                self._entries.pop(last.name, None)
            if last is None or entry.offset + entry.num_bytes > last.offset + last.num_bytes:
                last = entry

    def _remove_leftovers(self) -> None:
        folder, name = os.path.split(pixels_path(self.dest, ""))
        remove_partials(folder or ".", name)
        for path in Path(folder).glob(glob.escape(name) + "*"):
            path.unlink()

    def _is_there(self, job: CopyJob, entry: dict[str, Any]) -> bool:
        return job.name in self._entries

    @contextmanager
    def writing(self, num_pending: int) -> Iterator[None]:
        if num_pending == 0 and os.path.exists(self.dest):
            yield
            return
        self._writer = ClipFileWriter(self.dest, self._entries.values())
        try:
            for name in self._old.keys() & self._entries.keys():
                entry = self._writer.describe(self._entries[name], self._old[name])
                self.manifest.record(**{**self.manifest.entries[name], "clip": entry.as_dict()})
            yield
            if self._writer.entries:
                self._writer.finish()
        finally:
            self._writer.close()
        if not self._writer.entries:
            os.unlink(self._partial)

    def keep(self, made: Made) -> SsanError | None:
        try:
            with open(made.job.target, "rb") as pixels:
                entry = self._writer.append(made.job.name, pixels, made.size_px, made.times, made.durations)
        except VideoError as error:
            message = error.message
            return VideoError(message, code=error.code, path=made.job.source)
        finally:
            os.unlink(made.job.target)
        self._record(made, clip=entry.as_dict())
        return None


def pixels_path(dest: str, which: str) -> str:
    """Where the pixels of a video are put before they are appended to the clip file ``dest``: beside it, hidden."""
    folder, name = os.path.split(dest)
    return os.path.join(folder, f".{name}.pixels.{which}")


def size_on_disk(path: str) -> int | None:
    """Bytes in a file, or in the files of a folder; None where there is neither."""
    try:
        if not os.path.isdir(path):
            return os.path.getsize(path)
        with os.scandir(path) as entries:
            return sum(entry.stat().st_size for entry in entries)
    except FileNotFoundError:
        return None


def _fingerprint(path: str) -> list[int]:
    """What changes with a video: its size and its time of change; of a folder of frames, of all of them."""
    inside = split_path(path)
    if inside:
        clips = open_clip_file(inside[0])
        return [clips.entries[inside[1]].num_bytes, clips.entries[inside[1]].crc32]
    try:
        times = [os.stat(path).st_mtime_ns]
        if os.path.isdir(path):
            with os.scandir(path) as entries:
                times += [entry.stat().st_mtime_ns for entry in entries]
        return [size_on_disk(path) or 0, max(times)]
    except OSError:  # whoever reads it is told why
        return [0, 0]
