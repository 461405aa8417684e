"""Work spread over processes that end with the one that has asked for it."""

import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.synchronize import Event
from typing import TypeVar

from ssan.errors import SsanError

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
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_begin, initargs=(stopping,)) as pool:
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


def _begin(stopping: Event) -> None:
    global _stopping
    import torch

    _stopping = stopping
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that asked to decide on
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """The queue that work comes by stays open in each worker, so the end of the parent does not show in it."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    multiprocessing.connection.wait([parent.sentinel])
    os._exit(1)
