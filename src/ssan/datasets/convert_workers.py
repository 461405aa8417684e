"""Work spread over processes that end with the one that has asked for it."""

import multiprocessing
import signal
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.synchronize import Event
from typing import TypeVar

from ssan.errors import SsanError
from ssan.processes import end_with, share_memory_among

Task = TypeVar("Task")
Result = TypeVar("Result")

_stopping: Event | None = None


class StoppedError(Exception):
    """Ends what a worker is doing when nobody waits for it any more."""


def is_stopping() -> bool:
    """Whether what this process is doing is no longer wanted."""
    return _stopping is not None and _stopping.is_set()


def in_processes(work: Callable[[Task], Result], tasks: Iterable[Task], workers: int) -> Generator[Result, None, None]:
    """The results of ``work``, as they come. At most two tasks a worker are under way.

    When the caller stops asking, or is interrupted, ``is_stopping`` is true in the workers, and they are waited for.

    :raises SsanError: a worker was ended from outside.
    """
    context = multiprocessing.get_context("spawn")
    stopping = context.Event()
    waiting: set[Future[Result]] = set()
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_begin, initargs=(stopping, workers)) as pool:
        try:
            for task in tasks:
                waiting.add(pool.submit(work, task))
                if len(waiting) >= 2 * workers:
                    done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                    for future in done:
                        yield future.result()
            while waiting:
                done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                for future in done:
                    yield future.result()
        except BrokenProcessPool as error:
            raise SsanError(
                "a worker process was ended from outside, perhaps because memory ran out; expected it to last. What is "
                "done is kept: run again with fewer --workers"
            ) from error
        finally:
            stopping.set()
            pool.shutdown(wait=True, cancel_futures=True)


def _begin(stopping: Event, workers: int) -> None:
    global _stopping
    import torch

    _stopping = stopping
    torch.set_num_threads(1)
    share_memory_among(workers)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that asked to decide on
    parent = multiprocessing.parent_process()
    assert parent is not None
    assert parent.pid is not None
    end_with(parent.pid)  # the queue that work comes by stays open in each worker, so that end does not show in it
