"""What hostile files do beside their answer: ports opened, files elsewhere opened, processes and shared memory left."""

import contextlib
import ctypes
import os
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

MARK = "SSAN_HOSTILE_RUN"
"""In the environment of a command and of all that it starts: which run of which command they belong to."""

TABLES = ("tcp", "tcp6", "udp", "udp6", "raw", "raw6")
IN_OPEN = 0x20
SHARED = Path("/dev/shm")
PATIENCE_SECONDS = 5.0


class Watch:
    """Looks at one command while it runs, and at what is left when it has ended; ``problems`` says what was seen.

    It needs ``/proc``: elsewhere nothing is seen, and ``can_see`` says so.
    """

    can_see = Path("/proc/self/environ").exists()

    def __init__(self) -> None:
        self.mark = f"{MARK}={uuid.uuid4().hex}"
        self.problems: list[str] = []
        self._over = threading.Event()
        self._ports: set[str] = set()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._shared = set(os.listdir(SHARED)) if SHARED.is_dir() else set()

    def environment(self) -> dict[str, str]:
        name, _, value = self.mark.partition("=")
        return {name: value}

    def __enter__(self) -> "Watch":
        if self.can_see:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        if not self.can_see:
            return
        self._thread.join()
        self.problems += [f"a port was opened: {port}" for port in sorted(self._ports)]
        until = time.monotonic() + PATIENCE_SECONDS
        while (left := self.processes()) and time.monotonic() < until:
            time.sleep(0.05)
        self.problems += [f"a process is left: {_command(pid)}" for pid in left]
        while (names := self._new_shared_memory()) and time.monotonic() < until:
            time.sleep(0.05)  # of others on the machine there may be some, which they remove
        self.problems += [f"shared memory is left: {name}" for name in sorted(names)]

    def _new_shared_memory(self) -> set[str]:
        """What is there by the names that ours and torch's have, and was not before."""
        names = set(os.listdir(SHARED)) - self._shared if SHARED.is_dir() else set()
        return {name for name in names if name.startswith("torch_")}

    def processes(self) -> list[int]:
        """Those of the command and of all that it has started, as far as they live."""
        found = []
        for pid in (int(name) for name in os.listdir("/proc") if name.isdigit()):
            with contextlib.suppress(OSError):
                if self.mark.encode() in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
                    found.append(pid)
        return found

    def _look(self) -> None:
        while not self._over.wait(0.25):
            for pid in self.processes():
                self._ports |= set(_ports(pid))


def _ports(pid: int) -> Iterator[str]:
    """The sockets of a process that lead into a network."""
    own = set()
    with contextlib.suppress(OSError):
        for link in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                own.add(os.readlink(link))
    numbers = {link[8:-1] for link in own if link.startswith("socket:[")}
    for table in TABLES if numbers else ():
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
                words = line.split()
                if words[9] in numbers:
                    yield f"{table} {words[1]} to {words[2]} by {_command(pid)}"


def _command(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")[-80:].strip()
    return f"process {pid}"


class Outside:
    """A folder whose files nobody should open: hostile files name them. Counted by the kernel, where it can."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._file = -1
        with contextlib.suppress(OSError, AttributeError):
            libc = ctypes.CDLL(None, use_errno=True)
            self._file = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
            if libc.inotify_add_watch(self._file, os.fsencode(folder), IN_OPEN) < 0:
                self._file = -1

    @property
    def can_see(self) -> bool:
        return self._file >= 0

    def num_opened(self) -> int:
        """How often a file in it has been opened since this was last asked."""
        count = 0
        while self.can_see:
            try:
                events = os.read(self._file, 1 << 16)
            except BlockingIOError:
                break
            while events:
                length = 16 + int.from_bytes(events[12:16], "little")
                count, events = count + 1, events[length:]
        return count

    def close(self) -> None:
        if self.can_see:
            os.close(self._file)
            self._file = -1
