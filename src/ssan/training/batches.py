"""Batches whose content is a pure function of (seed, epoch, position, rank), so that a run resumes in mid-epoch."""

import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np
from torch.utils.data import DataLoader, Dataset, Sampler

from ssan.errors import UsageError
from ssan.training.workers import Carried, WorkerEndedError, as_it_is, begin, died_twice, handed_on


class Draw(NamedTuple):
    """What a dataset is asked for: ``item`` as seen in ``epoch``, which seeds its augmentation."""

    epoch: int
    item: int


class DrawAgain(NamedTuple):
    """A further draw of an item in an epoch: the ``again``-th, from 1, which is augmented otherwise."""

    epoch: int
    item: int
    again: int


class BatchPlan(Sampler[list[Any]]):
    """The batches of each epoch, from a position on.

    An epoch's order is one permutation drawn from (seed, epoch). It is cut into ``ceil(num_items / (batch * world))``
    batches of nearly equal size, so no item is left out and no batch is a small rest; each process takes every
    ``world``-th item of each batch, so nothing is repeated. Of a batch that cannot be shared equally some processes get
    one item more, and ``weights`` says what their mean counts for: together they have the mean of the batch.

    With ``batch`` 1, so many batches could leave a process without an item; there are then fewer, and a process may get
    2 items of one.

    :param batch: items of a batch on each process, at most.
    :param classes: of each item, for an epoch that draws the classes evenly: as many items as there are, as many of
        each class that has any, or one more where that does not come out even, of classes drawn for it. Of a class with
        more, these are drawn without putting them back; one with fewer has each as often as any other of it, or once
        more. Drawn from (seed, epoch) too, and shared among processes as any epoch.
    """

    def __init__(
        self,
        num_items: int,
        batch: int,
        *,
        seed: int = 0,
        shuffle: bool = False,
        rank: int = 0,
        world: int = 1,
        classes: Sequence[int] | None = None,
    ) -> None:
        if num_items < world:
            raise UsageError(f"{num_items} videos cannot be shared among {world} processes; use fewer processes")
        self.num_items, self.batch, self.seed, self.shuffle = num_items, batch, seed, shuffle
        self.rank, self.world = rank, world
        assert classes is None or (shuffle and len(classes) == num_items)
        self._of_class = None if classes is None else [np.flatnonzero(np.equal(classes, k)) for k in np.unique(classes)]
        self.epoch = 0
        self.position = 0

    def __len__(self) -> int:
        """Batches of a whole epoch, the same on every process and wherever the position is."""
        return min(-(-self.num_items // (self.batch * self.world)), self.num_items // self.world)

    def __iter__(self) -> Iterator[list[Any]]:
        order = np.arange(self.num_items)
        if self.shuffle:
            rng = np.random.default_rng([self.seed, self.epoch])
            order = rng.permutation(self.num_items if self._of_class is None else _evenly(self._of_class, rng))
        times = np.zeros(self.num_items, int) if self._of_class is None else _times_before(order)
        for together in np.array_split(np.stack([order, times], axis=1), len(self))[self.position :]:
            mine = together[self.rank :: self.world].tolist()
            yield [DrawAgain(self.epoch, item, n) if n else Draw(self.epoch, item) for item, n in mine]

    def weights(self) -> list[float]:
        """This process's share of the items of each batch of an epoch, times the number of processes.

        Where gradients are averaged over processes, a mean over this process's items times its weight makes the average
        that over all items of the batch.
        """
        whole, rest = divmod(self.num_items, len(self))
        sizes = [whole + (position < rest) for position in range(len(self))]
        return [len(range(self.rank, size, self.world)) * self.world / size for size in sizes]


def _evenly(of_class: Sequence[np.ndarray], rng: np.random.Generator) -> np.ndarray:
    """As many items as the classes have together, evenly from each class, in no order."""
    each, rest = divmod(sum(map(len, of_class)), len(of_class))
    more = set(rng.permutation(len(of_class))[:rest].tolist())
    drawn = []
    for number, items in enumerate(of_class):
        whole, some = divmod(each + (number in more), len(items))
        drawn += [np.tile(items, whole), rng.permutation(items)[:some]]
    return np.concatenate(drawn)


def _times_before(order: np.ndarray) -> np.ndarray:
    """How often each item has come before in an order."""
    seen: Counter[int] = Counter()
    times = np.zeros(len(order), int)
    for position, item in enumerate(order.tolist()):
        times[position] = seen[item]
        seen[item] += 1
    return times


class Batches(DataLoader[Any]):
    """A loader over a ``BatchPlan`` that can say where it is and start from there (``state_dict``).

    The position counts batches handed out, not those that workers have prepared ahead. ``waited_seconds`` is how long
    whoever asked for batches has waited for them, in all but for the first, which also waits for the workers to start.

    A worker that ends is no fault of the videos it was at: all are started anew and that batch is asked for again, once
    (``num_restarts`` counts).
    """

    def __init__(
        self, dataset: Dataset[Any], plan: BatchPlan, *, workers: int = 0, collate: Callable[..., Any] | None = None
    ) -> None:
        super().__init__(
            Carried(dataset, collate) if workers else dataset,
            batch_sampler=plan,
            num_workers=workers,
            collate_fn=as_it_is if workers else collate,
            persistent_workers=workers > 0,
            worker_init_fn=begin,
        )
        self.plan = plan
        self.waited_seconds = 0.0
        self.num_restarts = 0
        self._started = False

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        """
        :raises SsanError: what a video was refused for, or a worker has ended twice at the same batch.
        """
        if self.plan.position >= len(self.plan):
            self.plan.epoch, self.plan.position = self.plan.epoch + 1, 0
        handed_out = self.plan.position
        died_at = -1
        while True:
            coming = handed_on(self, super().__iter__) if self.num_workers else super().__iter__()
            try:
                for batch in self._timed(coming):
                    handed_out += 1
                    self.plan.position = handed_out
                    yield batch
                return
            except WorkerEndedError as error:
                self._iterator = None  # the workers that are left end with it
                if died_at == handed_out:
                    raise died_twice(error) from error
                died_at = handed_out
                self.num_restarts += 1
                print(f"ssan: {error}; starting anew", file=sys.stderr, flush=True)

    def _timed(self, coming: Iterator[Any]) -> Iterator[Any]:
        asked = perf_counter()
        for batch in coming:
            if self._started:
                self.waited_seconds += perf_counter() - asked
            self._started = True
            yield batch
            asked = perf_counter()

    def state_dict(self) -> dict[str, int]:
        return {"epoch": self.plan.epoch, "position": self.plan.position}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.plan.epoch, self.plan.position = state["epoch"], state["position"]
