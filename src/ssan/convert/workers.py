"""Worker processes that share work and end with the process that has asked for it."""

import multiprocessing
import multiprocessing.connection
import signal
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from multiprocessing.connection import Connection
from typing import Any, TypeVar

from ssan.errors import SsanError
from ssan.processes import end_with, share_memory_among

Task = TypeVar("Task")
Result = TypeVar("Result")

_asker: Connection | None = None
"""In a worker, the pipe to the process that asks."""


class StoppedError(Exception):
    """Ends what a worker is doing when nobody waits for it any more."""


def is_stopping() -> bool:
    """Whether what this process is doing is no longer wanted: nobody asks for more until a task is done."""
    return _asker is not None and _asker.poll()


def in_processes(work: Callable[[Task], Result], tasks: Iterable[Task], workers: int) -> Generator[Result, None, None]:
    """The results of ``work``, as they come. One task a worker is under way.

    When the caller stops asking, or is interrupted, ``is_stopping`` is true in the workers, and they are waited for.
    They are asked through pipes alone: semaphores would stay in shared memory when all processes are killed.

    :raises SsanError: a worker was ended from outside.
    """
    context = multiprocessing.get_context("spawn")
    pending, asked = iter(tasks), 0
    with ExitStack() as crew:
        pipes: list[Any] = []
        for _ in range(workers):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(work, theirs, workers))
            process.start()
            theirs.close()
            crew.callback(process.join)
            pipes.append(ours)
        for pipe in pipes:  # closed before anyone is waited for
            crew.callback(pipe.close)
        for pipe in pipes:
            asked += _ask(pipe, pending)
        while asked:
            for pipe in multiprocessing.connection.wait(pipes):
                assert isinstance(pipe, Connection)
                with _naming_an_end_from_outside():
                    result, error = pipe.recv()
                asked -= 1
                if error is not None:
                    raise error
                asked += _ask(pipe, pending)
                yield result


def _ask(pipe: Connection, tasks: Iterable[Any]) -> int:
    """Hand on the next task; how many there were, one or none."""
    for task in tasks:
        with _naming_an_end_from_outside():
            pipe.send(task)
        return 1
    return 0


@contextmanager
def _naming_an_end_from_outside() -> Iterator[None]:
    try:
        yield
    except (EOFError, OSError) as error:
        raise SsanError(
            "a worker process was ended from outside, perhaps because memory ran out; expected it to last. What is "
            "done is kept: run again with fewer --workers"
        ) from error


def _serve(work: Callable[[Any], Any], asker: Connection, workers: int) -> None:
    global _asker
    import torch

    _asker = asker
    torch.set_num_threads(1)
    share_memory_among(workers)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that asked to decide on
    parent = multiprocessing.parent_process()
    assert parent is not None
    assert parent.pid is not None
    end_with(parent.pid)  # while a task is done nobody looks at the pipe, and what is done for nobody may be long
    with suppress(EOFError, ConnectionError):  # nobody asks any more
        while True:
            task = asker.recv()
            try:
                answer = work(task), None
            except StoppedError:
                return
            except (SsanError, OSError, MemoryError) as error:  # anything else is a defect, and ends this process
                asker.send((None, error))
                return
            asker.send(answer)
