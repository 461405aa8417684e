"""The meter of starvation: how much of its time training waits for data, and what is said about it."""

import time
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from ssan.cores import num_cores
from ssan.training.batches import Batches, BatchPlan
from ssan.training.callbacks import STARVED, advice
from ssan.training.fit import Task, fit
from ssan.training.journal import read_journal
from ssan.training.optim import LearningRate, make_optimizer

NUM_ITEMS, BATCH, CLASSES = 14, 2, 3
SLEEP_SECONDS = 0.03


class _Slow(Dataset[tuple[Tensor, Tensor]]):
    """Items that take a while each."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def __getitem__(self, draw: tuple[int, int]) -> tuple[Tensor, Tensor]:
        time.sleep(self.seconds)
        return torch.full((5,), float(draw[1])), torch.tensor(draw[1] % CLASSES)


class _SlowNetwork(nn.Module):
    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds, self.linear = seconds, nn.Linear(5, CLASSES)

    def forward(self, inputs: Tensor) -> Tensor:
        time.sleep(self.seconds)
        return self.linear(inputs)  # type: ignore[no-any-return]


def _batches(seconds: float) -> Batches:
    return Batches(_Slow(seconds), BatchPlan(NUM_ITEMS, BATCH))


def _run(folder: Path, *, data: float, network: float, quiet: bool = False) -> list[float]:
    """The shares that the journal has, one an epoch, of a run that waits so long for each item and in each step."""
    task = Task(
        module=_SlowNetwork(network),
        batches=lambda split, rank, world: _batches(data if split == "train" else 0),
        loss=nn.functional.cross_entropy,
        measure=lambda scores, labels: {"loss": scores.sum(1), "top1": (scores.argmax(1) == labels).float()},
        optimizer=lambda module, rate: make_optimizer(module, "sgd", lr=rate, momentum=0.9, weight_decay=0),
        rate=lambda steps: LearningRate(base=0.001, schedule="constant", steps_per_epoch=steps, epochs=2),
        keep=lambda module, measures: None,
    )
    fit(task, folder, epochs=2, seed=0, quiet=quiet)
    return [row["data_wait"] for row in read_journal(folder / "journal.jsonl", "epoch")]


def test_a_loader_made_slow_shows_in_the_journal_and_is_spoken_about_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shares = _run(tmp_path / "slow", data=SLEEP_SECONDS, network=0)
    # All but the first of 7 batches are counted as waiting, in the first epoch; from then on all are.
    assert 0.6 < shares[0] < 0.95
    assert 0.8 < shares[1] <= 1
    said = capsys.readouterr().err
    assert said.count("training waits for data") == 1
    assert "--workers" in said
    assert "ssan data resize" in said
    assert f"data_wait {shares[0]:.2f}" in said


def test_a_network_that_is_slow_is_not_called_starved(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert max(_run(tmp_path / "run", data=0, network=SLEEP_SECONDS)) < STARVED
    assert "training waits for data" not in capsys.readouterr().err


def test_half_of_the_time_is_a_half(tmp_path: Path) -> None:
    _, share = _run(tmp_path / "run", data=SLEEP_SECONDS, network=BATCH * SLEEP_SECONDS, quiet=True)
    assert 0.35 < share < 0.6


def test_nothing_is_said_where_quiet_was_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _run(tmp_path / "run", data=SLEEP_SECONDS, network=0, quiet=True)
    assert capsys.readouterr().err == ""


def test_waiting_for_the_very_first_batch_is_not_counted_and_later_ones_are() -> None:
    batches = _batches(SLEEP_SECONDS)
    iterator = iter(batches)
    next(iterator)
    assert batches.waited_seconds == 0
    time.sleep(SLEEP_SECONDS)  # what happens between two batches is nobody's waiting
    next(iterator)
    assert BATCH * SLEEP_SECONDS <= batches.waited_seconds < 2 * BATCH * SLEEP_SECONDS
    list(iterator)
    before = batches.waited_seconds
    next(iter(batches))
    assert batches.waited_seconds - before >= BATCH * SLEEP_SECONDS


def test_more_workers_are_advised_only_up_to_the_number_of_cores() -> None:
    cores = num_cores()
    assert f"--workers (now {cores - 1})" in advice(0.5, cores - 1)
    assert "--workers" not in advice(0.5, cores)
    assert "50% of its time" in advice(0.5, cores)
