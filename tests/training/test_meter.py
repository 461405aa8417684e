"""The meter of starvation: how much of its time training waits for data, and what is said about it."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from ssan.processes import num_cores
from ssan.recipe import OptimisationKeys
from ssan.training import batches as batches_module
from ssan.training import callbacks as callbacks_module
from ssan.training.batches import Batches, BatchPlan
from ssan.training.callbacks import STARVED, advice
from ssan.training.fit import Task, fit
from ssan.training.journal import read_journal
from ssan.training.optim import LearningRate, make_optimizer

NUM_ITEMS, BATCH, CLASSES = 14, 2, 3
STEPS = NUM_ITEMS // BATCH


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> "Clock":
    """The clock of the meter, which moves when data or the network take their time, and at nothing else."""
    clock = Clock()
    for module in (batches_module, callbacks_module):
        monkeypatch.setattr(module, "perf_counter", clock.now)
    return clock


class Clock:
    def __init__(self) -> None:
        self.seconds = 0.0

    def now(self) -> float:
        return self.seconds

    def advance(self, seconds: float) -> None:
        self.seconds += seconds


class _Slow(Dataset[tuple[Tensor, Tensor]]):
    """Items that take a while each."""

    def __init__(self, clock: Clock, seconds: float) -> None:
        self.clock, self.seconds = clock, seconds

    def __getitem__(self, draw: tuple[int, int]) -> tuple[Tensor, Tensor]:
        self.clock.advance(self.seconds)
        return torch.full((5,), float(draw[1])), torch.tensor(draw[1] % CLASSES)


class _SlowNetwork(nn.Module):
    def __init__(self, clock: Clock, seconds: float) -> None:
        super().__init__()
        self.clock, self.seconds, self.linear = clock, seconds, nn.Linear(5, CLASSES)

    def forward(self, inputs: Tensor) -> Tensor:
        self.clock.advance(self.seconds)
        return self.linear(inputs)  # type: ignore[no-any-return]


def _batches(clock: Clock, seconds: float) -> Batches:
    return Batches(_Slow(clock, seconds), BatchPlan(NUM_ITEMS, BATCH))


def _run(folder: Path, clock: Clock, *, data: float, network: float, quiet: bool = False) -> list[float]:
    """The shares that the journal has, one an epoch, of a run that waits so long for each item and in each step."""
    task = Task(
        module=_SlowNetwork(clock, network),
        batches=lambda split, rank, world: _batches(clock, data if split == "train" else 0),
        loss=nn.functional.cross_entropy,
        measure=lambda scores, labels: {"loss": scores.sum(1), "top1": (scores.argmax(1) == labels).float()},
        optimizer=lambda module, rate: make_optimizer(module, "sgd", lr=rate, momentum=0.9, weight_decay=0),
        rate=lambda steps: LearningRate(base=0.001, schedule="constant", steps_per_epoch=steps, epochs=2),
        keep=lambda module, measures: None,
    )
    fit(task, folder, OptimisationKeys(epochs=2), quiet=quiet)
    return [row["data_wait"] for row in read_journal(folder / "journal.jsonl", "epoch")]


def test_a_loader_made_slow_shows_in_the_journal_and_is_spoken_about_once(
    tmp_path: Path, clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    shares = _run(tmp_path / "slow", clock, data=1, network=0)
    # The first batch of the run, which waits for workers to start, is not counted as waiting.
    assert shares == [pytest.approx((STEPS - 1) / STEPS, abs=1e-4), 1]
    said = capsys.readouterr().err
    assert said.count("training waits for data") == 1
    assert "--workers" in said
    assert "ssan data resize" in said
    assert "data_wait 0.86" in said
    assert "data_wait 1.00" in said


def test_a_network_that_is_slow_is_not_called_starved(
    tmp_path: Path, clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    shares = _run(tmp_path / "run", clock, data=1, network=20 * BATCH)
    assert shares[1] == pytest.approx(1 / 21, abs=1e-4)
    assert max(shares) < STARVED
    assert "training waits for data" not in capsys.readouterr().err


def test_half_of_the_time_is_a_half(tmp_path: Path, clock: Clock) -> None:
    assert _run(tmp_path / "run", clock, data=1, network=BATCH, quiet=True)[1] == 0.5


def test_nothing_is_said_where_quiet_was_asked_for(
    tmp_path: Path, clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    _run(tmp_path / "run", clock, data=1, network=0, quiet=True)
    assert capsys.readouterr().err == ""


def test_waiting_for_the_very_first_batch_is_not_counted_and_later_ones_are(clock: Clock) -> None:
    batches = _batches(clock, 1)
    iterator = iter(batches)
    next(iterator)
    assert batches.waited_seconds == 0
    clock.advance(100)  # what happens between two batches is nobody's waiting
    next(iterator)
    assert batches.waited_seconds == BATCH
    list(iterator)
    assert batches.waited_seconds == BATCH * (STEPS - 1)
    next(iter(batches))
    assert batches.waited_seconds == BATCH * STEPS


def test_more_workers_are_advised_only_up_to_the_number_of_cores() -> None:
    cores = num_cores()
    assert f"--workers (now {cores - 1})" in advice(0.5, cores - 1)
    assert "--workers" not in advice(0.5, cores)
    assert "50% of its time" in advice(0.5, cores)
