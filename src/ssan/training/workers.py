"""Processes that prepare batches: how they begin, how they hand over what they have made, and what their end means.

torch passes tensors between processes through files in ``/dev/shm``, of which containers have little, and a process
that finds no room there either dies or drops its batch without a word. Here they lie in files without a name, which
take of the machine's memory and need no room there; where the system has no such files it is torch's way that is used.
"""

import errno
import mmap
import multiprocessing
import multiprocessing.queues
import multiprocessing.reduction
import os
import pickle
import shutil
import signal
from collections.abc import Callable, Generator, Iterator, Sequence
from io import BytesIO
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info

from ssan.errors import SsanError, TrainingError
from ssan.processes import end_with, share_memory_among

SHARED = "/dev/shm"
COULD_NOT_HAND_OVER = 74
"""The exit status of a worker that could not pass on a batch (EX_IOERR of sysexits.h)."""

ALIGNMENT = 64


class WorkerEndedError(Exception):
    """A worker has ended before its work was done; what it was at can be asked for again."""


# ------------------------------------------------------------------------------------------------------ in a worker


def begin(worker: int) -> None:
    """Set up a worker.

    It gets a process group of its own: Ctrl-C, torchrun and schedulers send their signals to all of a group; the main
    process alone decides what they mean, and needs its workers until then. When that one ends, however, so does this.
    """
    if hasattr(os, "setpgrp"):  # not on every system
        os.setpgrp()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    info = get_worker_info()
    share_memory_among(info.num_workers if info else 1)
    parent = multiprocessing.parent_process()
    assert parent is not None
    assert parent.pid is not None
    end_with(parent.pid)
    # A queue that cannot send prints why and goes on, and whoever waits for the batch does so for ever.
    multiprocessing.queues.Queue._on_queue_feeder_error = staticmethod(_end)  # type: ignore[attr-defined]


def _end(error: BaseException, value: object) -> None:
    os._exit(COULD_NOT_HAND_OVER)


class Carried(Dataset[Any]):
    """A dataset whose items, put together as batches, go to the main process; so do the errors that name a file.

    An error raised in a worker would come out there with a traceback for its message, and without path and code.
    """

    def __init__(self, dataset: Dataset[Any], collate: Callable[[Any], Any] | None) -> None:
        self.dataset, self.collate = dataset, collate or torch.utils.data.default_collate

    def __getitems__(self, draws: Sequence[Any]) -> Any:
        try:
            several = getattr(self.dataset, "__getitems__", None)
            items = several(draws) if several else [self.dataset[draw] for draw in draws]
            return carried(self.collate(items))
        except SsanError as error:
            return error


def as_it_is(batch: Any) -> Any:
    """What has been put together already."""
    return batch


def carried(value: Any) -> Any:
    """What a worker gives, on its way; in the main process it is the value itself again (``_Handed``)."""
    if get_worker_info() is None or not hasattr(os, "memfd_create"):
        return value
    return _Handed(value)


class _Handed:
    """Any value with tensors in it: when it is unpickled in another process, that one has the value.

    Its large parts are written one after the other into a file without a name, and mapped at the other end.
    """

    def __init__(self, value: Any) -> None:
        content = BytesIO()
        parts: list[pickle.PickleBuffer] = []
        _Pickler(content, protocol=5, buffer_callback=parts.append).dump(value)
        self.content, self.spans = content.getvalue(), list[tuple[int, int]]()
        self.file = os.memfd_create("ssan batch")
        end = 0
        for part in parts:
            with part.raw() as view:
                self.spans.append((end, len(view)))
                written = 0
                while written < len(view):
                    written += os.pwrite(self.file, view[written:], end + written)
                end += -(-len(view) // ALIGNMENT) * ALIGNMENT
        self.size = end
        if end:
            os.ftruncate(self.file, end)

    def __reduce__(self) -> tuple[Any, ...]:
        passed = multiprocessing.reduction.DupFd(self.file)
        os.close(self.file)  # it is pickled once
        return _received, (self.content, passed, self.spans, self.size)


def _received(content: bytes, passed: Any, spans: list[tuple[int, int]], size: int) -> Any:
    file = passed.detach()
    try:
        memory = memoryview(mmap.mmap(file, size)) if size else memoryview(b"")
    finally:
        os.close(file)
    return pickle.loads(content, buffers=[memory[start : start + length] for start, length in spans])


class _Pickler(pickle.Pickler):
    """Tensors as the bytes that their memory is, with the strides they have: what is computed from them is the same."""

    def reducer_override(self, value: Any) -> Any:
        if type(value) is not Tensor or value.device.type != "cpu" or value.layout is not torch.strided:
            return NotImplemented
        if value.requires_grad or not value.numel():
            return NotImplemented
        memory = torch.empty(0, dtype=torch.uint8).set_(value.untyped_storage())
        return _tensor, (memory.numpy(), value.dtype, value.storage_offset(), value.shape, value.stride())


def _tensor(memory: Any, dtype: torch.dtype, offset: int, shape: Sequence[int], strides: Sequence[int]) -> Tensor:
    storage = torch.from_numpy(memory).untyped_storage()
    return torch.empty(0, dtype=dtype).set_(storage, offset, tuple(shape), tuple(strides))


# ---------------------------------------------------------------------------------------------- in the main process


def handed_on(loader: DataLoader[Any], make: Callable[[], Iterator[Any]]) -> Generator[Any, None, None]:
    """What the workers of a loader give, in turn.

    :param make: starts the loader, which starts its workers.
    :raises WorkerEndedError: one of them has ended.
    :raises SsanError: there is no room for what processes need to speak with each other.
    """
    handler = signal.getsignal(signal.SIGCHLD) if hasattr(signal, "SIGCHLD") else None
    if loader.num_workers and getattr(loader, "_iterator", None) is None:
        _check_room(loader.num_workers)
    try:
        coming = make()
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.ENOMEM, errno.EMFILE, errno.EAGAIN):
            raise
        raise _cannot_start(loader.num_workers, error.errno) from error
    # torch's handler raises wherever the main process happens to be when a worker ends. That a batch does not come, and
    # why, is found out below where it is waited for.
    if handler is not None and signal.getsignal(signal.SIGCHLD) is not handler:
        signal.signal(signal.SIGCHLD, handler)
    workers = list(getattr(coming, "_workers", []))
    while True:
        try:
            value = next(coming)
        except StopIteration:
            return
        except (RuntimeError, OSError, EOFError) as error:
            # Where a batch was on its way, it is the way that is broken.
            on_its_way = isinstance(error, EOFError | ConnectionError | FileNotFoundError) and workers
            if not on_its_way and "DataLoader worker" not in str(error):
                raise
            raise WorkerEndedError(_told_of(workers)) from error
        if isinstance(value, SsanError):
            raise value
        yield value


def _check_room(workers: int) -> None:
    """Whether there is room for the semaphores: where that lacks half-way, torch complains of itself too."""
    needed = 8 + 3 * workers  # a page each: of torch's queues to the workers, of that from them, and of an event
    try:
        room = os.statvfs(SHARED) if os.path.isdir(SHARED) else None
    except OSError:
        return
    if room is not None and room.f_blocks and room.f_bavail * room.f_frsize < needed * mmap.PAGESIZE:
        raise _cannot_start(workers, errno.ENOSPC)


def _cannot_start(workers: int, number: int) -> SsanError:
    full = number == errno.ENOSPC
    return SsanError(
        f"{workers} processes that read videos cannot be started ({os.strerror(number)}); expected room for them. "
        f"{_room()}",
        code="no_space" if full else None,
        path=SHARED if full else None,
    )


def _told_of(workers: Sequence[Any]) -> str:
    """Which workers have ended, and how."""
    ends = []
    for number, worker in enumerate(workers):
        worker.join(0)
        code = worker.exitcode
        if code is None:
            continue
        how = f"with status {code}" if code >= 0 else f"by {signal.Signals(-code).name}"
        if code == COULD_NOT_HAND_OVER:
            how = "as it could not hand on what it had read"
        ends.append(f"worker {number + 1} of {len(workers)}, a process that reads videos, ended {how}")
    return "; ".join(ends) or "a process that reads videos has ended"


def died_twice(error: WorkerEndedError) -> SsanError:
    """What to say where a worker has ended, and another one again at the same batch."""
    return TrainingError(f"{error}, twice at the same batch; expected it to last. {_room()}")


def _room() -> str:
    """The memory that a worker may have lacked, and what helps."""
    try:
        usage = shutil.disk_usage(SHARED)
        here = f"{SHARED} has {usage.total / 2**20:.4g} MB, of which {usage.free / 2**20:.4g} are free"
    except OSError:
        here = "Memory may have run out"
    return (
        f"{here}; the memory of the machine may be full too. Take fewer --workers (0 reads in this process), or give "
        "more: a container of docker's gets it by --shm-size"
    )
