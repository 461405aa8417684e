"""Process in which videos are decoded, as it is started, limited and ended; what it does is in ``decoder_server``."""

import contextlib
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any, cast

from ssan.errors import VideoError
from ssan.processes import memory_share
from ssan.video.decoder_connection import shared_memory

LIMIT_BYTES = 4 << 30
"""How much memory a reader may have, where the system can hold it to that; 4K video takes a tenth of it."""

LEAST_BYTES = 1 << 30
"""What each has where many share the memory (``ssan.processes.memory_share``)."""

LIMIT_VARIABLE = "SSAN_DECODE_SECONDS"
"""The environment variable that sets another limit of processor time than ``ssan.video.reader.LIMIT_SECONDS``."""

LEAVE_OUT = "Leave it out, or convert it to H.264"
MORE_TIME = f"Leave it out, convert it to H.264, or set {LIMIT_VARIABLE} to more seconds"

LARGE_PAGES = "glibc.malloc.hugetlb=1"
"""Makes glibc (2.35 on) ask for large pages where the system gives them on demand; unknown to others, and ignored."""


class DecoderEndedError(Exception):
    """The decoder process has ended before it answered.

    :param final: whether it would do so again, so that trying once more is of no use.
    """

    def __init__(self, what: str, advice: str, *, final: bool = False) -> None:
        super().__init__(what)
        self.what, self.advice, self.final = what, advice, final

    def about(self, path: str) -> VideoError:
        twice = "" if self.final else ", and so did the next one"
        message = f"{self.what}{twice}; {self.advice}"
        return VideoError(message, code="decode_error", path=path)


class DecoderProcess:
    """A process that decodes, the pipes to and from it, and the memory that it shares, or None where there is none."""

    def __init__(self) -> None:
        self.limit_bytes = memory_share(LIMIT_BYTES, min(LIMIT_BYTES, LEAST_BYTES))
        source = str(Path(__file__).parents[2])
        before = os.environ.get("PYTHONPATH")
        with shared_memory() as (file, memory):
            self.memory = memory
            self._process = _start(
                [sys.executable, "-P", "-m", "ssan.video.decoder_server", str(os.getpid()), str(self.limit_bytes),
                 *([str(file)] if file else [])],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                pass_fds=(file,) if file else (),
                env={
                    # What one video's pictures took is kept for those of the next, up to 64 MB: asking the system for
                    # it again, page by page, is up to a fiftieth of the time.
                    "MALLOC_MMAP_THRESHOLD_": str(1 << 25),
                    "MALLOC_TRIM_THRESHOLD_": str(1 << 26),
                    **os.environ,
                    # Pictures that a decoder refers to lie in large pages of memory, where glibc has such: a twelfth of
                    # the time of decoding H.264, and less chance in it.
                    "GLIBC_TUNABLES": ":".join(filter(None, [os.environ.get("GLIBC_TUNABLES"), LARGE_PAGES])),
                    "PYTHONPATH": os.pathsep.join([source, *([before] if before else [])]),
                    "OPENBLAS_NUM_THREADS": "1",  # numpy would reserve memory for a thread per core
                },
                start_new_session=True,  # Ctrl-C is for this process to decide on
            )  # fmt: skip
        self._to, self._back = cast(IO[bytes], self._process.stdin), cast(IO[bytes], self._process.stdout)
        _widen(self._back)
        self.alive = True

    def end_of(self, limit_seconds: float, *, nonsense: bool) -> DecoderEndedError:
        """What to say of a process that has ended in the middle of a request."""
        self.stop()
        code = self._process.wait()
        if nonsense:
            return DecoderEndedError(
                "the decoder answered something else than was asked", f"expected an answer. {LEAVE_OUT}"
            )
        if code == -getattr(signal, "SIGPROF", 0):
            what = f"reading it took more than {limit_seconds:g} seconds of processor time and was stopped"
            return DecoderEndedError(what, f"expected less. {MORE_TIME}", final=True)
        if code in (-getattr(signal, "SIGKILL", 9), -signal.SIGTERM):
            return DecoderEndedError(
                f"the process that decodes it was ended from outside ({signal.Signals(-code).name}), perhaps because "
                "memory ran out",
                f"expected it to last. Use fewer --workers, or free memory. {LEAVE_OUT}",
            )
        if code < 0:
            what = f"the decoder crashed on it ({signal.Signals(-code).name})"
            return DecoderEndedError(what, f"expected a whole video. {LEAVE_OUT}")
        return DecoderEndedError(
            f"the process that decodes ended with status {code}", f"expected an answer. {LEAVE_OUT}"
        )

    def kill(self) -> None:
        """End the process while another thread waits for its answer, which then finds out."""
        self._process.kill()

    def stop(self) -> None:
        """End the process: it does so by itself when its standard input is closed, and is made to if it does not."""
        self.alive = False
        for pipe in (self._to, self._back):
            with contextlib.suppress(OSError):
                pipe.close()
        try:
            self._process.wait(0.5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


_starter: ThreadPoolExecutor | None = None


def _start(command: list[str], **options: Any) -> "subprocess.Popen[bytes]":
    """Start a process from a thread that lasts as long as this process: a kernel that is to kill the one when its
    parent ends takes the thread for the parent.
    """
    global _starter
    if _starter is None:
        _starter = ThreadPoolExecutor(1, thread_name_prefix="starts readers")
    return _starter.submit(lambda: subprocess.Popen(command, **options)).result()


def _widen(pipe: IO[bytes]) -> None:
    """Let more bytes of a picture into a pipe at a time, where the system can: both sides have to wake less often."""
    with contextlib.suppress(ImportError, AttributeError, OSError):
        import fcntl

        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, 1 << 20)


def _forget_starter() -> None:
    """After a fork the thread that starts processes is the parent's alone."""
    global _starter
    _starter = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_starter)
