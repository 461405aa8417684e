"""Commands of ssan as processes that need not import torch first: forked from one that has, and otherwise their own.

A started command is a process with its own memory, streams, folder, variables, signals and exit status, as from
``python -m ssan``; what it does not do again is import, which takes longer than most of what tests have done in a
process. Variables that Python and torch read when they start, such as ``OMP_NUM_THREADS``, are those of the process
that is forked from. The program proper is started by tests of the program (``python -m`` in ``tests/cli``), and by
those of torchrun.

Run as a program, this is the process that is forked from; one serves a process of tests. It has one thread alone and
has done nothing but import.
"""

import atexit
import contextlib
import gc
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from typing import IO, Any

PRELOADED = (
    "ssan.cli.main", "ssan.convert.convert", "ssan.demo", "ssan.features.extract", "ssan.recognition.evaluate",
    "ssan.recognition.predict", "ssan.recognition.train", "ssan.reproduce.table", "ssan.retrieval.train",
)  # fmt: skip
LONGEST = 1 << 20
"""Bytes of a request."""


# ------------------------------------------------------------------------------------------------- the side of tests

_lock = threading.Lock()
_server: tuple[int, "subprocess.Popen[bytes]", socket.socket] | None = None


def _connection() -> socket.socket:
    """To the process that is forked from, which is started when it is first asked for."""
    global _server
    if _server is None or _server[0] != os.getpid():
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            paths = os.pathsep.join(path for path in sys.path if path)
            process = subprocess.Popen(
                [sys.executable, "-P", __file__, str(theirs.fileno())], pass_fds=[theirs.fileno()],
                env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}, stdin=subprocess.DEVNULL,
            )  # fmt: skip
        _server = os.getpid(), process, ours
        atexit.register(_end, os.getpid(), process, ours)
    return _server[2]


def _end(owner: int, process: "subprocess.Popen[bytes]", connection: socket.socket) -> None:
    if owner == os.getpid():
        connection.close()
        process.wait()


class ForkedCommand:
    """As much of ``subprocess.Popen`` as tests and ``ssan.commands`` need.

    :param command: ``[python, "-m", "ssan", *words]`` or ``[python, "-c", code, *words]``.
    :param stdout: a file, or ``subprocess.PIPE``: what is printed is then there when the process has ended.
    """

    def __init__(
        self, command: Sequence[str | os.PathLike[str]], *, stdin: Any = None, stdout: Any = None, stderr: Any = None,
        env: Mapping[str, str] | None = None, start_new_session: bool = False, text: bool = False,
        cwd: str | os.PathLike[str] | None = None,
    ) -> None:  # fmt: skip
        words = [os.fspath(word) for word in command]
        assert words[0] == sys.executable
        assert words[1] == "-c" or words[1:3] == ["-m", "ssan"], words
        self.args, self.text, self.returncode = words, text, None
        self._kept: list[IO[bytes] | None] = []
        with contextlib.ExitStack() as stack:
            nothing = stack.enter_context(open(os.devnull, "r+b"))
            streams = [nothing if stdin in (None, subprocess.DEVNULL) else stdin]
            for given, own in ((stdout, 1), (stderr, 2)):
                self._kept.append(tempfile.TemporaryFile() if given == subprocess.PIPE else None)  # noqa: SIM115
                streams.append(self._kept[-1] or {None: own, subprocess.DEVNULL: nothing}.get(given, given))
            self._status, theirs = socket.socketpair()
            stack.enter_context(theirs)
            asked = {
                "words": words[1:], "env": dict(os.environ if env is None else env), "session": start_new_session,
                "cwd": os.fspath(cwd or os.getcwd()),
            }  # fmt: skip
            numbers = [stream if isinstance(stream, int) else stream.fileno() for stream in streams]
            with _lock:
                socket.send_fds(_connection(), [json.dumps(asked).encode()], [theirs.fileno(), *numbers])
        answer = self._status.recv(16)
        assert answer, "the process to fork from has ended"
        self.pid = int(answer)

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            if not select.select([self._status], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(self.args, timeout or 0)
            answer = self._status.recv(16)
            assert answer, "the process to fork from has ended"
            self.returncode = int(answer)
            self._status.close()
        return self.returncode

    def poll(self) -> int | None:
        try:
            return self.wait(0)
        except subprocess.TimeoutExpired:
            return None

    def communicate(self, timeout: float | None = None) -> tuple[Any, Any]:
        """Wait for the end; what was printed, as text or bytes, None of what is no pipe."""
        self.wait(timeout)
        found: list[Any] = []
        for kept in self._kept:
            if kept is not None and not kept.closed:
                kept.seek(0)
                content = kept.read()
                kept.close()
                found.append(content.decode("utf-8").replace("\r\n", "\n") if self.text else content)
            else:
                found.append(None)
        return found[0], found[1]

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


# ------------------------------------------------------------------------------------ the process that is forked from


def serve(requests: socket.socket) -> dict[str, Any] | None:
    """Fork for each request. Returns it in the forked process, and None in this one, when there are no more."""
    ended, ending = socket.socketpair()
    ending.setblocking(False)
    signal.set_wakeup_fd(ending.fileno(), warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    waiting: dict[int, socket.socket] = {}
    while True:
        ready = select.select([requests, ended], [], [])[0]
        if ended in ready:
            ended.recv(1 << 12)
            for pid in list(waiting):
                if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
                    with contextlib.suppress(OSError), waiting.pop(pid) as teller:  # nobody may wait for it
                        teller.send(str(code).encode())
        if requests in ready:
            content, files, _, _ = socket.recv_fds(requests, LONGEST, 4)
            if not content:
                return None
            teller = socket.socket(fileno=files[0])
            if (pid := os.fork()) == 0:
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                for one in (requests, ended, ending, teller, *waiting.values()):
                    one.close()
                for number, file in enumerate(files[1:]):
                    os.dup2(file, number)
                for file in files[1:]:
                    os.close(file)
                asked: dict[str, Any] = json.loads(content)
                return asked
            waiting[pid] = teller
            teller.send(str(pid).encode())
            for file in files[1:]:
                os.close(file)


def main() -> None:
    for name in PRELOADED:
        __import__(name)
    gc.freeze()  # what is imported lasts: looked through once more, it makes the end of each command take seconds
    asked = serve(socket.socket(fileno=int(sys.argv[1])))
    if asked is None:
        return
    if asked["session"]:
        os.setsid()
    os.environ.clear()
    os.environ.update(asked["env"])
    os.chdir(asked["cwd"])
    kind, what, *words = asked["words"]
    sys.argv = [kind, *words]
    if kind == "-c":
        exec(compile(what, "<string>", "exec"), {"__name__": "__main__"})
    else:
        runpy.run_module(what, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
