"""Commands of ``ssan`` in processes of their own: several side by side, each with its log, none outliving this one."""

import contextlib
import subprocess
import sys
import threading
from pathlib import Path
from typing import Self

from ssan.errors import TrainingError
from ssan.processes import told_to_end_with_us

PATIENCE_SECONDS = 120.0
"""How long a training may take to save its state when it is told to stop."""


class CommandRunner:
    """Runs commands of ``ssan``, from any thread, each in a process that ends when this one does.

    As a context it stops them when an exception leaves it: each saves its state, and no further one is begun.

    :param threads: of each process; None leaves them alone.
    """

    def __init__(self, threads: int | None = None) -> None:
        self.threads = threads
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen[str]] = set()
        self._stopped = threading.Event()

    def __enter__(self) -> Self:
        self._stopped.clear()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self.stop()

    def run(self, *words: str, log: Path | None = None, num_processes: int = 1, some_may_fail: bool = False) -> str:
        """Run a command and return what it prints on standard output.

        :param log: is added to by what the command says on the way; None leaves that on standard error.
        :param num_processes: more than one are started by ``torchrun``.
        :param some_may_fail: whether status 1, done though some videos failed, is no failure: the answer counts them.
        :raises TrainingError: it failed, with its last words; KeyboardInterrupt: it was stopped.
        """
        program = [sys.executable, "-m"]
        if num_processes > 1:
            program += ["torch.distributed.run", "--standalone", f"--nproc-per-node={num_processes}", "-m"]
        environment = told_to_end_with_us()
        if self.threads is not None:
            environment["OMP_NUM_THREADS"] = str(self.threads)
        if log is not None:
            log.parent.mkdir(parents=True, exist_ok=True)
        with open(log, "a", encoding="utf-8") if log is not None else contextlib.nullcontext() as told:
            with self._lock:
                if self._stopped.is_set():
                    raise KeyboardInterrupt
                # In a session of its own: Ctrl-C is for this process to pass on, once.
                process = subprocess.Popen(
                    [*program, "ssan", *words], env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                    stderr=told, text=True, start_new_session=True,
                )  # fmt: skip
                self._running.add(process)
            printed = process.communicate()[0]
            with self._lock:
                self._running.discard(process)
        if self._stopped.is_set() and process.returncode != 0:
            raise KeyboardInterrupt
        if process.returncode not in ((0, 1) if some_may_fail else (0,)):
            said = "see above" if log is None else f"{_last_words(log)}. Look at the log"
            raise TrainingError(
                f"`ssan {words[0]}` ended with status {process.returncode}: {said}; run it again, what is done stays",
                path=None if log is None else str(log),
            )
        return printed

    def stop(self) -> None:
        """Tell every command to end and wait until it has; one that takes too long is killed."""
        with self._lock:
            self._stopped.set()
            running = list(self._running)
        for process in running:
            process.terminate()
        for process in running:
            try:
                process.wait(PATIENCE_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()


def _last_words(log: Path) -> str:
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return lines[-1].removeprefix("ssan: ") if lines else "it said nothing"
