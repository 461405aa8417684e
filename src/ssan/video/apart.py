"""The process in which videos are decoded; see ``ssan.video.reader``, which starts it."""

import mmap
import os
import pickle
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from functools import partial
from typing import IO, Any

import numpy as np

from ssan.errors import SsanError
from ssan.video.clip import Examination, Part
from ssan.video.decode import Pictures, VideoFile
from ssan.video.part import open_file
from ssan.video.picture import read_picture, read_pictures
from ssan.video.reader import Array, Size, shared_array

STRETCH_SECONDS = 1.0
"""For how long a video is examined at a time: a limit of time then is one of standing still, not of a long video."""


class Server:
    """Answers requests until there are no more."""

    def __init__(self, requests: IO[bytes], answers: IO[bytes], shared: mmap.mmap | None) -> None:
        self.requests, self.answers, self.shared = requests, answers, shared
        self.videos: dict[int, VideoFile] = {}
        self.streams: dict[int, Iterator[Pictures]] = {}
        self.examinations: dict[int, Iterator[Examination | None]] = {}
        self.opened = self.place = 0
        self.verbs: dict[str, Callable[..., Any]] = {
            "open": self.open,
            "size": lambda number: self.videos[number].size_px,
            "num_frames": lambda number: self.videos[number].num_frames,
            "begin": lambda number, index: self.videos[number].begin_seconds(index),
            "span": lambda number, start, end: self.videos[number].span(start, end),
            "examine": self.examine,
            "pictures": self.pictures,
            "stream": self.stream,
            "more": self.more,
            "files": self.files,
            "look": self.look,
        }

    def serve(self) -> None:
        while True:
            try:
                let_go, limit_seconds, self.place, verb, *arguments = pickle.load(self.requests)
            except EOFError:
                return
            # Nothing handles SIGALRM: where the time is over the kernel ends this process, whatever it is doing.
            _alarm(limit_seconds)
            try:
                answer = ("ok", self.verbs[verb](*arguments))
            except SsanError as error:
                answer = ("error", error)
            except MemoryError:
                answer = ("memory", None)
            _alarm(0)
            self.send(answer)
            if let_go:  # while nobody waits
                _alarm(limit_seconds)
                for number in let_go:
                    self.streams.pop(number, None)
                    self.examinations.pop(number, None)
                    self.videos.pop(number).close()
                _alarm(0)

    def open(
        self, where: str | None, path: str, threads: int, part: Part | None = None
    ) -> tuple[int, int, int, float, bool, Size]:
        if where is not None:
            os.chdir(where)
        video = open_file(path, threads=threads, part=part)
        self.opened += 1
        self.videos[self.opened] = video
        known = video.num_frames, video.num_promised, video.duration_seconds, video.random_access
        return self.opened, *known, video.announced_size_px

    def examine(self, number: int) -> Examination | None:
        """Examine one more stretch of a video; None where there is more to come."""
        frames = self.examinations.setdefault(number, self.videos[number].examining())
        until = time.monotonic() + STRETCH_SECONDS
        for found in frames:
            if found is not None or time.monotonic() > until:
                return found
        raise AssertionError("an examination ended without a finding")

    def look(self, where: str | None, path: str) -> None:
        """Decode a picture and send nothing of it."""
        if where is not None:
            os.chdir(where)
        read_picture(path)

    def files(self, where: str | None, paths: list[str]) -> tuple[np.ndarray]:
        """Picture files: so many from the first on as have its size."""
        if where is not None:
            os.chdir(where)
        return (read_pictures(paths, self.allocate),)

    def pictures(self, number: int, indices: tuple[int, ...], sizes: tuple[Size, Size | None] | None) -> Pictures:
        resize = partial(self.resize, *sizes) if sizes else None
        return self.videos[number].pictures(indices, resize=resize, allocate=self.allocate)

    def stream(self, number: int, sizes: tuple[Size, Size | None] | None) -> Pictures | None:
        """Begin to read a whole video; the answer is its first pictures, and ``more`` gives those that follow."""
        resize = partial(self.resize, *sizes) if sizes else None
        self.streams[number] = self.videos[number].stream_pictures(resize=resize, allocate=self.allocate)
        return self.more(number)

    def more(self, number: int) -> Pictures | None:
        return next(self.streams[number], None)

    def allocate(self, shape: tuple[int, ...]) -> np.ndarray:
        """An array in the memory that both processes see, where it fits in there."""
        shared = shared_array(self.shared, self.place, shape)
        return np.empty(shape, np.uint8) if shared is None else shared

    def resize(self, announced: Size, wanted: Size | None, height: int, width: int) -> Size:
        """Which size to make of this one is for the process that asked to say; of the announced one it has."""
        if wanted is not None and (height, width) == announced:
            return wanted
        self.send(("resize", (height, width)))
        return pickle.load(self.requests)

    def send(self, answer: tuple[str, Any]) -> None:
        kind, content = answer
        pixels = None
        if isinstance(content, tuple) and content and isinstance(content[0], np.ndarray):
            pixels = content[0]
            content = (Array(pixels.shape), *content[1:])
        pickle.dump((kind, content), self.answers)
        if pixels is not None and shared_array(self.shared, self.place, pixels.shape) is None:
            self.answers.write(pixels.reshape(-1).data)
        self.answers.flush()


def _alarm(seconds: float) -> None:
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_REAL, seconds)


def _limit_memory(num_bytes: int) -> None:
    try:
        import resource
    except ImportError:  # not on every system
        return
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        resource.setrlimit(resource.RLIMIT_AS, (num_bytes, num_bytes))
    except (ValueError, OSError):  # a lower limit is set already, or the system does not know this one
        return


def main() -> None:
    answers = os.fdopen(os.dup(1), "wb")
    # What a library prints, or the last words of a crash, belong into nobody's output.
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    limit_bytes, *files = map(int, sys.argv[1:])
    shared = mmap.mmap(files[0], 0) if files else None
    _limit_memory(limit_bytes + (len(shared) if shared else 0))
    server = Server(sys.stdin.buffer, answers, shared)
    try:
        server.serve()
    except BaseException:
        server.send(("defect", traceback.format_exc()))
        raise


if __name__ == "__main__":
    main()
