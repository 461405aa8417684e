"""Batches whose content is a pure function of (seed, epoch, position, rank), so that a run resumes in mid-epoch."""

import signal
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from torch.utils.data import DataLoader, Dataset, Sampler

from ssan.errors import UsageError


class Draw(NamedTuple):
    """What a dataset is asked for: ``item`` as seen in ``epoch``, which seeds its augmentation."""

    epoch: int
    item: int


class BatchPlan(Sampler[list[Draw]]):
    """The batches of each epoch, from a position on.

    An epoch's order is one permutation drawn from (seed, epoch). It is cut into ``ceil(num_items / (batch * world))``
    batches of nearly equal size, so no item is left out and no batch is a small rest; each process takes every
    ``world``-th item of each batch. In training all processes get equally many items of a batch, which leaves out at
    most ``world - 1`` of it; in validation (``shuffle=False``) nothing is left out and nothing is repeated.

    With ``batch`` 1, so many batches could leave a process without an item; there are then fewer, and in validation a
    process may get 2 items of one.

    :param batch: items of a batch on each process, at most.
    """

    def __init__(
        self, num_items: int, batch: int, *, seed: int = 0, shuffle: bool = False, rank: int = 0, world: int = 1
    ) -> None:
        if num_items < world:
            raise UsageError(f"{num_items} videos cannot be shared among {world} processes; use fewer processes")
        self.num_items, self.batch, self.seed, self.shuffle = num_items, batch, seed, shuffle
        self.rank, self.world = rank, world
        self.epoch = 0
        self.position = 0

    def __len__(self) -> int:
        """Batches of a whole epoch, the same on every process and wherever the position is."""
        return min(-(-self.num_items // (self.batch * self.world)), self.num_items // self.world)

    def __iter__(self) -> Iterator[list[Draw]]:
        order = np.arange(self.num_items)
        if self.shuffle:
            order = np.random.default_rng([self.seed, self.epoch]).permutation(self.num_items)
        for together in np.array_split(order, len(self))[self.position :]:
            if self.shuffle:
                together = together[: len(together) - len(together) % self.world]
            yield [Draw(self.epoch, int(index)) for index in together[self.rank :: self.world]]


class Batches(DataLoader[Any]):
    """A loader over a ``BatchPlan`` that can say where it is and start from there (``state_dict``).

    The position counts batches handed out, not those that workers have prepared ahead.
    """

    def __init__(
        self, dataset: Dataset[Any], plan: BatchPlan, *, workers: int = 0, collate: Callable[..., Any] | None = None
    ) -> None:
        super().__init__(
            dataset,
            batch_sampler=plan,
            num_workers=workers,
            collate_fn=collate,
            persistent_workers=workers > 0,
            worker_init_fn=_ignore_interrupt,
        )
        self.plan = plan

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        if self.plan.position >= len(self.plan):
            self.plan.epoch, self.plan.position = self.plan.epoch + 1, 0
        handed_out = self.plan.position
        for batch in super().__iter__():
            handed_out += 1
            self.plan.position = handed_out
            yield batch

    def state_dict(self) -> dict[str, int]:
        return {"epoch": self.plan.epoch, "position": self.plan.position}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.plan.epoch, self.plan.position = state["epoch"], state["position"]


def _ignore_interrupt(worker: int) -> None:
    """Ctrl-C reaches every process of a terminal; the main one alone decides what it means, and needs its workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
