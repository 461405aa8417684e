"""Work shared among the processes that a launcher has started: each does a part, and all get the whole."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from ssan.errors import SsanError, TrainingError, UsageError, shortened
from ssan.processes import Processes

T = TypeVar("T")
Item = TypeVar("Item")

# How long all may take to start; and how long one may work while the others wait for it. One that ends is noticed at
# once.
MEETING = timedelta(minutes=10)
WORKING = timedelta(days=30)
ROUND = 8  # items of each process between two exchanges


@dataclass(frozen=True)
class Together:
    """The processes that share a piece of work; by itself, one that does all of it.

    :param group: torch's, where there are several.
    """

    processes: Processes = field(default_factory=Processes)
    group: Any = None

    @property
    def first(self) -> bool:
        """Whether this process speaks and writes for all."""
        return self.processes.first

    def mine(self, items: Sequence[Item]) -> Sequence[Item]:
        """This process's share: every n-th item, of n processes."""
        return items[self.processes.rank :: self.processes.world]

    def each(self, work: Callable[[], T]) -> list[T]:
        """What ``work`` gives on each process, in their order, to all of them.

        :raises SsanError: it failed on one of them; all learn which.
        """
        if self.processes.world == 1:
            return [work()]
        own: T | SsanError
        try:
            own = work()
        except SsanError as error:
            own = error
        found: list[Any] = [None] * self.processes.world
        try:
            dist.all_gather_object(found, own, group=self.group)
        except RuntimeError as error:
            raise TrainingError(
                f"a process that this one works with has ended ({shortened(str(error).split('. ')[0])}); look at what "
                "it said, or whether memory ran out, and start again"
            ) from error
        for rank, given in enumerate(found):
            if isinstance(given, SsanError):
                given.message += f" (process {rank + 1} of {self.processes.world})"
                raise given
        return found

    def inorder(self, shares: Sequence[Sequence[T]]) -> list[T]:
        """The shares of all processes as one list, in the order of before ``mine``."""
        num = sum(map(len, shares))
        return [shares[n % len(shares)][n // len(shares)] for n in range(num)]

    def over(self, items: Sequence[Item], work: Callable[[Item], T]) -> Iterator[T]:
        """``work`` of each item, in order, as it comes; each process does its share of it."""
        if self.processes.world == 1:
            yield from map(work, items)
            return
        at_once = ROUND * self.processes.world
        for start in range(0, len(items), at_once):
            part = self.mine(items[start : start + at_once])
            yield from self.inorder(self.each(lambda part=part: [work(item) for item in part]))  # type: ignore[misc]


ALONE = Together()


@contextlib.contextmanager
def together(processes: Processes) -> Iterator[Together]:
    """Meet the other processes of a launcher, where there are any, and part from them at the end.

    :raises TrainingError: not all of them come.
    :raises UsageError: the port where they meet is in use.
    """
    if processes.world == 1:
        yield ALONE
        return
    if torch.cuda.is_available() and torch.cuda.device_count() > processes.local_rank:
        torch.cuda.set_device(processes.local_rank)
    where = f"{processes.address}, port {processes.port}"
    try:
        dist.init_process_group(
            "gloo",
            init_method=f"tcp://{processes.address}:{processes.port}",
            rank=processes.rank,
            world_size=processes.world,
            timeout=MEETING,
        )
        group = dist.new_group(backend="gloo", timeout=WORKING)
    except (RuntimeError, ValueError) as error:
        if "address already in use" in str(error).lower():
            raise UsageError(
                f"the processes cannot meet at {where}: it is in use, perhaps by another run. Use a free one: set "
                "MASTER_PORT, to the same for all processes"
            ) from error
        raise TrainingError(
            f"the {processes.world} processes did not meet at {where} ({shortened(str(error).split('. ')[0])}); look "
            "at what the others said, and start again"
        ) from error
    try:
        yield Together(processes, group)
    finally:
        dist.destroy_process_group()
