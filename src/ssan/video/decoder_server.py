"""Server of decoded frames: the main loop of the process in which videos are decoded; ``ssan.video.reader`` asks it."""

import contextlib
import mmap
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from typing import IO, Any

import numpy as np

from ssan.errors import SsanError
from ssan.processes import be_killed_with_parent
from ssan.video.clip import Examination
from ssan.video.decode import Pictures, VideoFile
from ssan.video.decoder_connection import (
    LENGTH,
    packed,
    plain_error,
    plain_examination,
    resize_of,
    shared_array,
    unpacked,
)
from ssan.video.part import open_file
from ssan.video.picture import read_picture, read_pictures

STRETCH_SECONDS = 1.0
"""For how long a video is examined at a time: a limit of time then is one of standing still, not of a long video."""

Answer = tuple[Any, np.ndarray | None]
"""What is said, and the pixels that come with it."""


class Server:
    """Answers requests until there are no more."""

    def __init__(self, requests: IO[bytes], answers: IO[bytes], shared: mmap.mmap | None) -> None:
        self.requests, self.answers, self.shared = requests, answers, shared
        self.videos: dict[int, VideoFile] = {}
        self.streams: dict[int, tuple[int, Iterator[Pictures]]] = {}
        self.examinations: dict[int, Iterator[Examination | None]] = {}
        self.given = self.slot = 0
        self.verbs: dict[str, Callable[..., Answer]] = {
            "open": self.open,
            "size": lambda number: (self.videos[number].size_px, None),
            "num_frames": lambda number: (self.videos[number].num_frames, None),
            "begin": lambda number, index: (self.videos[number].begin_seconds(index), None),
            "span": lambda number, start, end: (self.videos[number].span(start, end), None),
            "frames_at": lambda number, moments: (self.videos[number].frames_at(moments), None),
            "examine": self.examine,
            "pictures": self.pictures,
            "stream": self.stream,
            "more": self.more,
            "files": self.files,
            "look": self.look,
        }

    def serve(self) -> None:
        while True:  # until the pipe is closed, by the one that asks or because that one has ended
            length = self.requests.read(LENGTH.size)
            if len(length) < LENGTH.size:
                return
            let_go, limit_seconds, self.slot, verb, *arguments = unpacked(self.requests.read(*LENGTH.unpack(length)))
            # Nothing handles the signal: where the time is over the kernel ends this process, whatever it is doing.
            _limit_processor_time(limit_seconds)
            content: Any
            pixels = None
            try:
                kind, (content, pixels) = "ok", self.verbs[verb](*arguments)
            except SsanError as error:
                kind, content = "error", plain_error(error)
            except MemoryError:
                kind, content = "memory", None
            _limit_processor_time(0)
            self.send(kind, content, pixels)
            if let_go:  # while nobody waits
                _limit_processor_time(limit_seconds)
                for number in let_go:
                    self.let_go(number)
                _limit_processor_time(0)

    def new_number(self) -> int:
        self.given += 1
        return self.given

    def open(self, where: str | None, path: str, threads: int, part: list[float | None] | None = None) -> Answer:
        if where is not None:
            os.chdir(where)
        start, end = part or (None, None)
        video = open_file(path, threads=threads, part=None if part is None else (start, end))
        number = self.new_number()
        self.videos[number] = video
        return (number, video.num_frames, video.num_promised, video.duration_seconds, video.random_access), None

    def let_go(self, number: int) -> None:
        """Close a video with all that is read from it, or one stream."""
        for stream, (of, _) in list(self.streams.items()):
            if number in (stream, of):
                del self.streams[stream]
        self.examinations.pop(number, None)
        video = self.videos.pop(number, None)
        if video is not None:
            video.close()

    def examine(self, number: int) -> Answer:
        """Examine one more stretch of a video; None where there is more to come."""
        frames = self.examinations.setdefault(number, self.videos[number].examining())
        until = time.monotonic() + STRETCH_SECONDS
        for found in frames:  # packet by packet, so that a stretch ends on time in a long video too
            if found is not None or time.monotonic() > until:
                return plain_examination(found), None
        raise AssertionError("an examination ended without a finding")

    def look(self, where: str | None, path: str) -> Answer:
        """Decode a picture and send nothing of it."""
        if where is not None:
            os.chdir(where)
        read_picture(path)
        return None, None

    def files(self, where: str | None, paths: list[str]) -> Answer:
        """Picture files: so many from the first on as have its size."""
        if where is not None:
            os.chdir(where)
        return [], read_pictures(paths, self.allocate)

    def pictures(self, number: int, indices: list[int], resize: list[Any] | None) -> Answer:
        found = self.videos[number].pictures(indices, resize=resize_of(resize), allocate=self.allocate)
        return [None, found.times_seconds, found.durations_seconds], found.pixels

    def stream(self, number: int, resize: list[Any] | None) -> Answer:
        """Begin to read a whole video; the answer is its first pictures, and ``more`` gives those that follow."""
        frames = self.videos[number].stream_pictures(resize=resize_of(resize), allocate=self.allocate)
        stream = self.new_number()
        self.streams[stream] = number, frames
        return self.more(stream)

    def more(self, stream: int) -> Answer:
        found = next(self.streams[stream][1], None)
        if found is None:
            del self.streams[stream]
            return None, None
        return [stream, found.times_seconds, found.durations_seconds], found.pixels

    def allocate(self, shape: tuple[int, ...]) -> np.ndarray:
        """An array in the memory that both processes see, where it fits in there."""
        shared = shared_array(self.shared, self.slot, shape)
        return np.empty(shape, np.uint8) if shared is None else shared

    def send(self, kind: str, content: Any, pixels: np.ndarray | None) -> None:
        shape = None if pixels is None else pixels.shape
        self.answers.write(packed([kind, content, shape]))
        if pixels is not None and shared_array(self.shared, self.slot, pixels.shape) is None:
            self.answers.write(np.ascontiguousarray(pixels).reshape(-1).data)
        self.answers.flush()


def _limit_processor_time(seconds: float) -> None:
    """From now on; on a loaded machine what this process does takes longer by the clock, and no more of this."""
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_PROF, seconds)


def _give_up_rights(num_bytes: int) -> None:
    """Hold this process to its share of the memory, and let it write no file."""
    # Where the machine's memory runs out, it is this process that is ended, which can be started anew.
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w", encoding="ascii") as handle:
        handle.write("900")
    try:
        import resource
    except ImportError:  # not on every system
        return
    for name, limit in (("RLIMIT_CORE", 0), ("RLIMIT_FSIZE", 0), ("RLIMIT_AS", num_bytes)):
        # A lower limit may be set already, or the system may not know this one.
        with contextlib.suppress(ValueError, OSError, AttributeError):
            resource.setrlimit(getattr(resource, name), (limit, limit))


def main() -> None:
    parent, limit_bytes, *files = map(int, sys.argv[1:])
    be_killed_with_parent(parent)
    answers = os.fdopen(os.dup(1), "wb")
    # What a library prints, or the last words of a crash, belong into nobody's output.
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    shared = mmap.mmap(files[0], 0) if files else None
    _give_up_rights(limit_bytes + (len(shared) if shared else 0))
    server = Server(sys.stdin.buffer, answers, shared)
    try:
        server.serve()
    except BaseException:
        server.send("defect", traceback.format_exc(), None)
        raise


if __name__ == "__main__":
    main()
