"""A run that is stopped anywhere, by anything, goes on to the end of the run that was never stopped.

Most moments are tried on a toy, whose steps cost nothing and whose files are those of any run; some on videos too.
"""

import csv
import itertools
import json
import math
import os
import pickle
import resource
import shutil
import struct
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tests import training_runs
from tests.forked import ForkedCommand
from torch import Tensor, nn
from torch.utils.data import Dataset
from torch.utils.tensorboard import SummaryWriter

from ssan.cli.main import status
from ssan.errors import SsanError, TrainingError, UsageError
from ssan.recipe import OptimisationKeys, Recipe, make_recipe, read_recipe
from ssan.recognition.train import DataSource, train
from ssan.training.batches import Batches, BatchPlan, Draw
from ssan.training.callbacks import CheckpointKeeper, Recorder
from ssan.training.checkpoint import StateFile
from ssan.training.fit import AtFirst, Task, TrainingModule, fit
from ssan.training.journal import Journal, planned_epochs, read_journal
from ssan.training.optim import LearningRate, make_optimizer
from ssan.training.run_folder import epochs_to_make, open_run
from ssan.weights.classifier_file import load_labeller

# Four epochs of four steps: warm-up in the first, and a rate that falls after the second (asserted below).
KEYS = {
    "model": "ssan_tiny", "crop_px": 32, "size_px": 36, "epochs": 4, "batch": 8, "num_frames": 3, "lr": 0.05,
    "optimizer": "adamw", "lr_rule": "none", "crop": "random", "dropout": 0.3, "schedule": "plateau", "patience": 1,
    "checkpoint_every_steps": 1,
}  # fmt: skip


def recipe(**changes: Any) -> Recipe:
    return make_recipe({**KEYS, **changes})


class Killed(BaseException):
    """Stands for a power cut: nothing catches it."""


def run(data: Path, out: Path, resume: bool = False, **changes: Any) -> dict[str, Any]:
    """Train, and leave the answer where the comparison looks for it."""
    answer = train(recipe(**changes), DataSource(str(data)), out, resume=resume, quiet=True)
    Path(f"{out}.json").write_text(json.dumps(answer))
    return answer


class ToyItems(Dataset[tuple[Tensor, int]]):
    """Vectors of three classes; for training each is seen through noise that its epoch and its index decide."""

    def __init__(self, num_items: int, noise: float) -> None:
        self.means = np.random.default_rng(1).standard_normal((3, 5))
        self.num_items, self.noise = num_items, noise

    def __len__(self) -> int:
        return self.num_items

    def __getitem__(self, draw: Draw) -> tuple[Tensor, int]:  # type: ignore[override]
        seen = np.random.default_rng([2, draw.item]).standard_normal(5) / 2
        seen += self.noise * np.random.default_rng([3, draw.epoch, draw.item]).standard_normal(5)
        return torch.from_numpy(self.means[draw.item % 3] + seen).float(), draw.item % 3


class Toy(nn.Module):
    """What depends on more than the weights: statistics of batches, and dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential()
        self.backbone.add_module("conv1", nn.Linear(5, 7))
        self.backbone.add_module("bn1", nn.BatchNorm1d(7))
        self.dropout, self.fc = nn.Dropout(0.3), nn.Linear(7, 3)

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.fc(self.dropout(self.backbone(x).relu()))
        return scores


def run_toy(
    out: Path, resume: bool = False, *, batch: int = 8, epochs: int = 4, accumulate: int = 1,
    checkpoint_every_steps: int | None = 1, schedule: Any = "plateau", early_stop: int | None = None,
    more_epochs: int | None = None, quiet: bool = True, frozen_epochs: int = 0, classes: list[int] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Train the toy on 28 items, by the rules of ``KEYS``, and leave the answer where the comparison looks for it."""

    def batches(split: str, rank: int, world: int) -> Batches:
        items = ToyItems(28, 0.5) if split == "train" else ToyItems(12, 0.0)
        shuffle = split == "train"
        plan = BatchPlan(
            len(items), batch, seed=5, shuffle=shuffle, rank=rank, world=world, classes=classes if shuffle else None
        )
        return Batches(items, plan)

    def keep(module: nn.Module, measures: dict[str, float]) -> None:
        save_file(module.state_dict(), out / "model.safetensors", {"top1": str(measures["val_top1"])})

    def measure(scores: Tensor, labels: Tensor) -> dict[str, Tensor]:
        loss = nn.functional.cross_entropy(scores, labels, reduction="none")
        return {"loss": loss, "top1": (scores.argmax(dim=1) == labels).float()}

    open_run(
        out,
        {"recipe": {**KEYS, "epochs": epochs}, "network": str(Toy())},
        lambda old, new: [],
        resume=resume,
        first=True,
        begin=lambda folder: None,
    )
    torch.manual_seed(4)
    keys = OptimisationKeys(
        epochs=epochs_to_make(out, epochs, more_epochs, resume=resume), seed=6, accumulate=accumulate,
        schedule=schedule, patience=1, early_stop=early_stop, checkpoint_every_steps=checkpoint_every_steps,
    )  # fmt: skip
    toy = Toy()
    task = Task(
        module=toy,
        batches=batches,
        at_first=AtFirst(frozen_epochs, [*toy.backbone.parameters()], [toy.backbone.bn1]) if frozen_epochs else None,
        loss=nn.functional.cross_entropy,
        measure=measure,
        optimizer=lambda module, rate: make_optimizer(module, "adamw", lr=rate, momentum=0.9, weight_decay=0.01),
        rate=lambda steps: LearningRate.of(keys, 0.05, steps),
        keep=keep,
    )
    outcome = fit(task, out, keys, quiet=quiet, resume=resume)
    answer = {
        "steps": outcome.steps, "epochs": outcome.epochs, "stopped_early": outcome.stopped_early,
        "best_epoch": outcome.best_epoch, "val_top1": outcome.best["val_top1"],
        "resumed_from_step": outcome.resumed_from_step,
    }  # fmt: skip
    Journal(out).record("end", **answer)
    Path(f"{out}.json").write_text(json.dumps(answer))
    return answer


def killed(
    monkeypatch: pytest.MonkeyPatch, owner: type, method: str, when: Callable[..., bool], start: Callable[[], Any]
) -> None:
    """Call ``start``, which dies where ``method`` is called and ``when`` says so."""
    original = getattr(owner, method)

    def dies(self: Any, *rest: Any, **named: Any) -> Any:
        if when(self, *rest):
            raise Killed
        return original(self, *rest, **named)

    monkeypatch.setattr(owner, method, dies)
    with pytest.raises(Killed):
        start()
    monkeypatch.setattr(owner, method, original)


def assert_same_run(one: Path, other: Path) -> None:
    """Weights, optimizer, best model, best epoch, journal, table and curves."""
    found = training_runs.differences(training_runs.content(one), training_runs.content(other))
    assert not found, f"{len(found)} differ, first {found[:3]}"


def state_of(out: Path) -> dict[str, Any]:
    state: dict[str, Any] = torch.load(out / "last" / "state.ckpt", weights_only=True)
    return state


@pytest.fixture(scope="module", autouse=True)
def _the_rate_falls() -> Iterator[None]:
    """As far as the schedule is told, the validation loss never gets lower after the first epoch."""
    observe = LearningRate.observe
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LearningRate, "observe", lambda self, loss: observe(self, 1.0))
        yield


@pytest.fixture(scope="module")
def whole(order_set: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that is never stopped."""
    out = tmp_path_factory.mktemp("resume") / "whole"
    run(order_set, out)
    check_rates(out)
    return out


@pytest.fixture(scope="module")
def whole_toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("resume") / "toy"
    run_toy(out)
    check_rates(out)
    return out


def check_rates(out: Path) -> None:
    rates = [row["lr"] for row in read_journal(out / "journal.jsonl", "epoch")]
    assert rates[0] < rates[1], "no warm-up"
    assert rates[2] < rates[1], "the rate does not fall after the second epoch"


def _at_step(step: int) -> Callable[..., bool]:
    return lambda fit, *rest: fit.trainer.global_step == step


def _in_epoch(epoch: int) -> Callable[..., bool]:
    return lambda callback, trainer, *rest: trainer.current_epoch + 1 == epoch


# Where a run is killed: (class, method that is never entered or never left), when.
MOMENTS: dict[str, tuple[type, str, Callable[..., bool]]] = {
    "before_the_first_step": (TrainingModule, "on_train_start", lambda *rest: True),
    "before_the_first_state": (TrainingModule, "training_step", _at_step(0)),
    "in_warm_up": (TrainingModule, "training_step", _at_step(2)),
    "after_warm_up": (TrainingModule, "training_step", _at_step(5)),
    "before_the_rate_falls": (TrainingModule, "training_step", _at_step(7)),
    "after_the_rate_fell": (TrainingModule, "training_step", _at_step(8)),
    "in_the_epoch_after": (TrainingModule, "training_step", _at_step(10)),
    "in_validation": (TrainingModule, "validation_step", lambda fit, *rest: fit.trainer.current_epoch == 2),
    "in_the_validation_that_lowers_the_rate": (
        TrainingModule, "on_validation_epoch_end", lambda fit, *rest: fit.trainer.current_epoch == 1,
    ),
    "between_the_best_model_and_the_first_epochs_state": (CheckpointKeeper, "on_train_epoch_end", _in_epoch(1)),
    "between_validation_and_the_last_state": (CheckpointKeeper, "on_train_epoch_end", _in_epoch(4)),
    "between_the_state_and_the_journal": (Recorder, "on_train_epoch_end", _in_epoch(2)),
    "between_the_last_state_and_the_journal": (Recorder, "on_train_epoch_end", _in_epoch(4)),
    "between_the_curves_and_the_journal": (
        Journal, "record", lambda journal, event, **fields: event == "epoch" and len(journal.events("epoch")) == 1,
    ),
    "between_the_last_line_and_the_table": (
        Journal, "write_tables", lambda journal: len(journal.events("epoch")) == 4,
    ),
    "before_the_end_was_recorded": (Journal, "record", lambda journal, event, **fields: event == "end"),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("moment", list(MOMENTS))
def test_a_run_killed_anywhere_and_resumed_is_the_run_never_stopped(
    moment: str, tmp_path: Path, whole_toy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    killed(monkeypatch, *MOMENTS[moment], lambda: run_toy(out))
    run_toy(out, resume=True)
    assert_same_run(whole_toy, out)


@pytest.mark.slow
@pytest.mark.parametrize(
    "moment", ["after_the_rate_fell", "in_validation", "between_the_best_model_and_the_first_epochs_state"]
)
def test_a_run_on_videos_killed_and_resumed_is_the_run_never_stopped(
    moment: str, order_set: Path, tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    killed(monkeypatch, *MOMENTS[moment], lambda: run(order_set, out))
    run(order_set, out, resume=True)
    assert_same_run(whole, out)


# ------------------------------------------------------------------------------------- more epochs, and fewer of them


def lacking(out: Path) -> dict[str, Any]:
    """All of a finished run, but for how many epochs it was to have when, and from when its early stop counts."""
    found = training_runs.content(out)
    return {key: value for key, value in found.items() if not key.endswith(("EarlyStop/asked", "EarlyStop/since"))}


@pytest.mark.slow
@pytest.mark.parametrize("schedule", ["constant", "plateau"])
def test_a_run_that_has_ended_and_made_an_epoch_more_is_the_run_that_had_it_from_the_start(
    schedule: str, tmp_path: Path
) -> None:
    run_toy(tmp_path / "whole", epochs=3, schedule=schedule)
    out = tmp_path / "more"
    assert run_toy(out, epochs=2, schedule=schedule)["epochs"] == 2
    answer = run_toy(out, resume=True, epochs=2, more_epochs=1, schedule=schedule)
    assert (answer["epochs"], answer["resumed_from_step"]) == (3, 8)
    assert training_runs.differences(lacking(tmp_path / "whole"), lacking(out)) == []
    (resumed,) = read_journal(out / "journal.jsonl", "resumed")
    assert resumed["epochs"] == 3
    assert planned_epochs(read_journal(out / "journal.jsonl")) == 3


def test_an_epoch_more_under_a_cosine_begins_where_the_longer_curve_is(tmp_path: Path) -> None:
    out = tmp_path / "run"
    run_toy(out, epochs=2, schedule="cosine")
    run_toy(out, resume=True, epochs=2, more_epochs=1, schedule="cosine")
    rates = [row["lr"] for row in read_journal(out / "journal.jsonl", "epoch")]
    # Of the last step of each epoch: 4 steps of warm-up, and then 4 or 8 along half a period.
    assert rates[1] == pytest.approx(0.05 / 2 * (1 + math.cos(math.pi * 3 / 4)))
    assert rates[2] == pytest.approx(0.05 / 2 * (1 + math.cos(math.pi * 7 / 8)))
    first, last = LearningRate(0.05, "cosine", 4, 3).value(8), LearningRate(0.05, "cosine", 4, 2).value(7)
    assert first == pytest.approx(0.025)
    assert first > last


@pytest.mark.slow
def test_a_run_stopped_among_the_epochs_more_goes_on_to_the_last_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_toy(tmp_path / "whole", epochs=4, schedule="constant")
    out = tmp_path / "run"
    run_toy(out, epochs=2, schedule="constant")
    killed(
        monkeypatch, TrainingModule, "training_step", _at_step(13),
        lambda: run_toy(out, resume=True, epochs=2, more_epochs=2, schedule="constant"),
    )  # fmt: skip
    with pytest.raises(UsageError, match=r"has not come to its end, epoch 4; go on with --resume alone"):
        run_toy(out, resume=True, epochs=2, more_epochs=2, schedule="constant")
    assert run_toy(out, resume=True, epochs=2, schedule="constant")["epochs"] == 4
    assert training_runs.differences(lacking(tmp_path / "whole"), lacking(out)) == []
    # What the folder's own recipe says by now is this run too.
    assert run_toy(out, resume=True, epochs=4, schedule="constant")["steps"] == 16


def test_more_epochs_are_refused_where_no_run_has_ended(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no run to make more epochs of"):
        epochs_to_make(tmp_path / "none", 2, 1, resume=True)
    with pytest.raises(UsageError, match="add --resume"):
        epochs_to_make(tmp_path / "none", 2, 1, resume=False)
    with pytest.raises(UsageError, match="--more-epochs is 0; expected a whole number from 1"):
        epochs_to_make(tmp_path / "none", 2, 0, resume=True)
    assert epochs_to_make(tmp_path / "none", 2, None, resume=True) == 2


@pytest.mark.slow
def test_the_command_makes_more_epochs_and_the_page_of_the_run_says_so(
    order_set: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    keys = [f"{key}={value}" for key, value in {**KEYS, "epochs": 1}.items() if key != "model"]
    command = ["train", "--model", "tsn_tiny", "--data", str(order_set), "--out", str(out), "--workers", "0", "--json"]
    assert status([*command, "--more-epochs", "1", *keys]) == 2
    assert "--more-epochs goes on with a run that has ended; add --resume" in capsys.readouterr().err
    assert status([*command, *keys]) == 0
    assert status([*command, "--resume", *keys, "epochs=2"]) == 2
    assert "epochs 1 is now 2" in (said := capsys.readouterr().err)
    assert "--more-epochs asks for more" in said
    assert status([*command, "--resume", "--more-epochs", "1", *keys]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["epochs"], answer["resumed_from_step"], answer["steps"]) == (2, 4, 8)
    assert read_recipe(out / "recipe.yaml").epochs == load_labeller(out).recipe.epochs == 2
    assert status(["report", str(out), "--json"]) == 0
    (run,) = json.loads(capsys.readouterr().out)["runs"]
    assert (run["epochs"], run["epochs_planned"], run["status"]) == (2, 2, "finished")
    assert "from step 4, to epoch 2" in (out / "report.html").read_text()


def falling(values: list[float]) -> Callable[..., Any]:
    """``on_validation_epoch_end`` that finds these top-1 accuracies, epoch by epoch."""
    original = TrainingModule.on_validation_epoch_end

    def finds(self: TrainingModule) -> None:
        original(self)
        self.measures["val_top1"] = values[self.trainer.current_epoch]

    return finds


# The second epoch is the best, so that the fourth is the second without a better one.
TOP1 = [0.5, 0.75, 0.625, 0.75, 0.5, 0.5, 0.875, 0.5, 0.5, 0.5]


@pytest.fixture
def _known_accuracies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TrainingModule, "on_validation_epoch_end", falling(TOP1))
    # Equal accuracies are decided by the loss: here the first of them is the best.
    monkeypatch.setattr(
        CheckpointKeeper, "_is_best", lambda self, found: found["val_top1"] > self.best.get("val_top1", 0)
    )


@pytest.mark.slow
@pytest.mark.usefixtures("_known_accuracies")
def test_training_ends_early_when_no_epoch_gets_better_and_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    answer = run_toy(out, epochs=10, early_stop=2, quiet=False)
    assert (answer["epochs"], answer["best_epoch"], answer["steps"]) == (4, 2, 16)
    (end,) = read_journal(out / "journal.jsonl", "end")
    assert end["stopped_early"] is True
    said = (
        "run: 2 epochs without a better val_top1 than that of epoch 2: training ends after epoch 4 of 10 (early_stop)"
    )
    assert said in capsys.readouterr().err.splitlines()
    # Resumed, it is at its end; asked for more, it counts from there.
    before = lacking(out)
    again = run_toy(out, resume=True, epochs=10, early_stop=2)
    assert (again["epochs"], again["stopped_early"]) == (4, True)
    assert training_runs.differences(before, lacking(out)) == []
    more = run_toy(out, resume=True, epochs=10, early_stop=2, more_epochs=5)
    assert (more["epochs"], more["stopped_early"]) == (6, True)
    more = run_toy(out, resume=True, epochs=10, early_stop=2, more_epochs=2)
    assert (more["epochs"], more["best_epoch"], more["stopped_early"]) == (8, 7, False)


@pytest.mark.slow
@pytest.mark.usefixtures("_known_accuracies")
def test_a_run_that_would_end_early_ends_so_when_it_was_killed_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_toy(tmp_path / "whole", epochs=10, early_stop=2)
    for moment in (_at_step(13), _at_step(7)):
        shutil.rmtree(tmp_path / "run", ignore_errors=True)
        killed(
            monkeypatch, TrainingModule, "training_step", moment,
            lambda: run_toy(tmp_path / "run", epochs=10, early_stop=2),
        )  # fmt: skip
        run_toy(tmp_path / "run", resume=True, epochs=10, early_stop=2)
        assert_same_run(tmp_path / "whole", tmp_path / "run")


@pytest.mark.slow
def test_a_run_killed_again_and_again_is_the_run_never_stopped(
    tmp_path: Path, whole_toy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    for moment in ("before_the_first_state", "in_warm_up", "between_the_state_and_the_journal", "in_the_epoch_after",
                   "in_validation", "between_the_last_state_and_the_journal"):  # fmt: skip
        killed(monkeypatch, *MOMENTS[moment], lambda: run_toy(out, resume=True))
    run_toy(out, resume=True)
    assert_same_run(whole_toy, out)


def test_an_early_best_model_is_still_the_best_after_a_resumption(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = TrainingModule.on_validation_epoch_end

    def falls(self: TrainingModule) -> None:
        original(self)
        self.measures["val_top1"] = 1 - self.trainer.current_epoch / 10

    monkeypatch.setattr(TrainingModule, "on_validation_epoch_end", falls)
    out = tmp_path / "run"
    killed(monkeypatch, TrainingModule, "training_step", _at_step(6), lambda: run_toy(out))
    best = (out / "model.safetensors").read_bytes()
    answer = run_toy(out, resume=True)
    assert (answer["best_epoch"], answer["val_top1"]) == (1, 1.0)
    assert (out / "model.safetensors").read_bytes() == best


@pytest.mark.slow
@pytest.mark.parametrize("steps", [None, 3])
def test_rare_states_cost_time_and_not_exactness(
    steps: int | None, tmp_path: Path, whole_toy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    killed(
        monkeypatch,
        TrainingModule,
        "training_step",
        _at_step(6),
        lambda: run_toy(out, checkpoint_every_steps=steps),
    )
    answer = run_toy(out, resume=True, checkpoint_every_steps=steps)
    assert answer["resumed_from_step"] == (4 if steps is None else 6)
    assert training_runs.differences(state_of(whole_toy)["state_dict"], state_of(out)["state_dict"]) == []


@pytest.mark.slow
@pytest.mark.parametrize("step", [1, 3, 5])
def test_a_run_that_accumulates_batches_resumes_exactly(
    step: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # 7 batches of 4 an epoch: steps of 2, 2, 2 and 1.
    changes = {"accumulate": 2, "batch": 4, "epochs": 2}
    run_toy(tmp_path / "whole", **changes)
    out = tmp_path / "run"
    killed(monkeypatch, TrainingModule, "training_step", _at_step(step), lambda: run_toy(out, **changes))
    assert run_toy(out, resume=True, **changes)["resumed_from_step"] == step
    assert_same_run(tmp_path / "whole", out)


@pytest.mark.slow
@pytest.mark.parametrize("cut", [0, 1, 40, 400])
def test_a_run_killed_while_the_journals_first_line_was_written_starts_from_its_beginning(
    cut: int, tmp_path: Path, whole_toy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    killed(monkeypatch, *MOMENTS["before_the_first_step"], lambda: run_toy(out))
    path = out / "journal.jsonl"
    line = path.read_bytes()
    assert cut < len(line) - 1
    path.write_bytes(line[:cut])
    run_toy(out, resume=True)
    assert_same_run(whole_toy, out)
    assert len(read_journal(path, "start")) == 1


@pytest.mark.slow
def test_a_run_on_videos_whose_journal_was_cut_begins_its_folder_once_more(
    order_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    killed(monkeypatch, *MOMENTS["before_the_first_step"], lambda: run(order_set, out))
    (start,) = read_journal(out / "journal.jsonl", "start")
    written = (out / "recipe.yaml").read_bytes()
    (out / "journal.jsonl").write_bytes((out / "journal.jsonl").read_bytes()[:400])
    (out / "recipe.yaml").unlink()
    killed(monkeypatch, *MOMENTS["before_the_first_step"], lambda: run(order_set, out, resume=True))
    (again,) = read_journal(out / "journal.jsonl", "start")
    assert {**again, "time": 0} == {**start, "time": 0}
    assert (out / "recipe.yaml").read_bytes() == written


@pytest.mark.slow
def test_a_line_and_files_left_half_written_are_put_right(
    tmp_path: Path, whole_toy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    killed(monkeypatch, TrainingModule, "training_step", _at_step(9), lambda: run_toy(out))
    path = out / "journal.jsonl"
    path.write_bytes(path.read_bytes()[:-30])
    for name in (".model.safetensors.77.part", ".metrics.csv.77.part", "last/.state.ckpt.77.part"):
        (out / name).write_bytes(b"half")
    run_toy(out, resume=True)
    assert_same_run(whole_toy, out)
    assert not list(out.glob("**/*.part"))


@pytest.mark.slow
def test_the_comparison_sees_a_weight_a_row_and_a_file_too_many(whole: Path, tmp_path: Path) -> None:
    expected = training_runs.content(whole)
    copy = tmp_path / "copy"
    shutil.copytree(whole, copy)
    shutil.copy(f"{whole}.json", f"{copy}.json")
    assert training_runs.differences(expected, training_runs.content(copy)) == []
    with open(copy / "journal.jsonl", "a") as journal:
        journal.write(json.dumps(read_journal(copy / "journal.jsonl", "epoch")[-1]) + "\n")
    state = state_of(copy)
    state["state_dict"]["module.fc.bias"][0] += 1e-7
    torch.save(state, copy / "last" / "state.ckpt")
    (copy / ".x.part").touch()
    assert training_runs.differences(expected, training_runs.content(copy)) == [
        "journal",
        "left over",
        "state/state_dict/module.fc.bias",
    ]


def test_curves_follow_the_making_of_their_files_not_the_letters_of_their_names(tmp_path: Path) -> None:
    for number, steps, value in [(9, (1, 2, 3), 1.0), (10, (2,), 5.0)]:
        with SummaryWriter(str(tmp_path / str(number))) as board:
            for step in steps:
                board.add_scalar("loss", value, step)
        (file,) = (tmp_path / str(number)).iterdir()
        file.rename(tmp_path / f"events.out.tfevents.1700000000.a.host.77.{number}")
    assert training_runs.curves(tmp_path) == {"loss": [(1, 1.0), (2, 5.0)]}


# --------------------------------------------------------------------------------------------------- two processes


def _launch(data: Path, out: Path, processes: int, *overrides: str) -> "subprocess.Popen[bytes]":
    process: subprocess.Popen[bytes] = training_runs.start(data, out, processes, 0, *overrides)
    return process


def _launch_pair(data: Path, out: Path, *overrides: str) -> tuple[ForkedCommand, ForkedCommand]:
    """Start both processes of a run as torchrun does, but that they have imported everything already."""
    command = [
        sys.executable, "-m", "ssan", "train", "--model", "ssan_tiny", "--data", str(data), "--out", str(out),
        "--resume", "--workers", "0", "--device", "cpu", "--quiet", "--json", *training_runs.RECIPE, *overrides,
    ]  # fmt: skip

    def start(name: str, variables: dict[str, str]) -> ForkedCommand:
        with open(f"{name}.json", "wb") as answer, open(f"{name}.log", "wb") as log:
            environment = {**os.environ, **variables}
            return ForkedCommand(command, stdout=answer, stderr=log, env=environment, start_new_session=True)

    first, second = training_runs.as_torchrun_says()
    return start(str(out), first), start(f"{out}.1", second)


# 28 videos in batches of 7: one process gets 4 of them, the other 3.
OF_TWO = {"epochs": 3, "optimizer": "sgd", "lr": 0.01, "dropout": 0.0, "freeze_bn": True, "schedule": "constant"}
WORDS_OF_TWO = [
    f"{key}={str(value).lower()}" for key, value in {**KEYS, **OF_TWO, "batch": 4}.items() if key != "model"
]


def _wait_for_step(step: int, out: Path, processes: Sequence["subprocess.Popen[bytes] | ForkedCommand"]) -> None:
    """Wait until a run under way has saved its state at a step, or after it."""
    deadline = time.monotonic() + 120
    while not (out / "last" / "state.ckpt").exists() or state_of(out)["global_step"] < step:
        assert all(process.poll() is None for process in processes), Path(f"{out}.log").read_text()
        assert time.monotonic() < deadline, "no step in two minutes"
        time.sleep(0.005)


@pytest.fixture(scope="module")
def left_by_one(order_set: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    """A run of two processes of torchrun's, the second of which was killed, and torchrun's exit status."""
    out = tmp_path_factory.mktemp("two") / "run"
    process = _launch(order_set, out, 2, *WORDS_OF_TWO)
    try:
        _wait_for_step(1, out, [process])
        children = itertools.chain(*(
            path.read_text().split() for path in Path(f"/proc/{process.pid}/task").glob("*/children")
        ))  # fmt: skip
        victim = next(int(pid) for pid in children if b"RANK=1\0" in Path(f"/proc/{pid}/environ").read_bytes())
        os.kill(victim, 9)
        return out, process.wait(60)
    finally:
        training_runs.kill_all(process)


@pytest.mark.slow
def test_when_one_process_is_killed_the_other_ends_and_says_why(left_by_one: tuple[Path, int]) -> None:
    out, status_of_torchrun = left_by_one
    assert status_of_torchrun == 1
    said = Path(f"{out}.log").read_text()
    assert "ssan: a process that this one works with has ended" in said
    assert "[rank0]: Traceback" not in said
    assert torch.isfinite(state_of(out)["state_dict"]["module.fc.weight"]).all()


@pytest.mark.slow
def test_two_processes_equal_one_and_resume_exactly(
    order_set: Path, tmp_path: Path, left_by_one: tuple[Path, int]
) -> None:
    # Begun under torchrun, where one process was killed; gone on with until both were; and once more, to the end.
    whole, out = tmp_path / "whole", tmp_path / "run"
    shutil.copytree(left_by_one[0], out)
    begun = state_of(out)["global_step"]
    assert 1 <= begun < 7
    pair = _launch_pair(order_set, out, *WORDS_OF_TWO)
    _wait_for_step(max(6, begun + 1), out, pair)
    for process in pair:
        training_runs.kill_all(process)
    first, second = _launch_pair(order_set, out, *WORDS_OF_TWO)
    assert training_runs.finish(first, out, 120)["resumed_from_step"] >= 6
    assert second.wait(120) == 0
    first, second = _launch_pair(order_set, whole, *WORDS_OF_TWO)
    assert training_runs.finish(first, whole, 120)["resumed_from_step"] is None
    assert second.wait(120) == 0
    assert_same_run(whole, out)

    train(recipe(**OF_TWO), DataSource(str(order_set)), tmp_path / "one", quiet=True)
    one, two = state_of(tmp_path / "one")["state_dict"], state_of(whole)["state_dict"]
    assert max((one[name] - two[name]).abs().max().item() for name in one) < 1e-5
    (end,) = read_journal(tmp_path / "one" / "journal.jsonl", "end")
    losses = [
        [row["train_loss"] for row in read_journal(run / "journal.jsonl", "epoch")] for run in (tmp_path / "one", whole)
    ]
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)
    assert end["steps"] == 12


# ------------------------------------------------------------------------------- what is frozen first, even draws


# Of the 28 items one alone is of the class 2, and 7 of the class 1.
UNEVEN = [0] * 20 + [1] * 7 + [2]


@pytest.fixture(scope="module")
def whole_of_two_parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two epochs with the backbone frozen, then two with it; classes drawn evenly."""
    out = tmp_path_factory.mktemp("resume") / "parts"
    run_toy(out, frozen_epochs=2, classes=UNEVEN)
    return out


@pytest.mark.slow
@pytest.mark.parametrize("step", [6, 8, 9])
def test_a_run_goes_on_exactly_in_its_frozen_epochs_at_their_end_and_after_them(
    step: int, tmp_path: Path, whole_of_two_parts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    killed(
        monkeypatch, TrainingModule, "training_step", _at_step(step),
        lambda: run_toy(out, frozen_epochs=2, classes=UNEVEN),
    )  # fmt: skip
    assert run_toy(out, resume=True, frozen_epochs=2, classes=UNEVEN)["resumed_from_step"] == step
    assert_same_run(whole_of_two_parts, out)


@pytest.mark.slow
def test_frozen_epochs_leave_the_backbone_as_it_was(tmp_path: Path, whole_of_two_parts: Path) -> None:
    torch.manual_seed(4)
    before = {f"module.{name}": tensor for name, tensor in Toy().state_dict().items()}
    run_toy(tmp_path / "run", epochs=2, frozen_epochs=2, classes=UNEVEN)
    first, whole = state_of(tmp_path / "run")["state_dict"], state_of(whole_of_two_parts)["state_dict"]
    of_backbone = [name for name in before if name.startswith("module.backbone.")]
    assert len(of_backbone) == 7
    assert all(torch.equal(first[name], before[name]) for name in of_backbone)
    assert not any(torch.equal(whole[name], before[name]) for name in of_backbone)
    assert not torch.equal(first["module.fc.weight"], before["module.fc.weight"])
    assert whole["module.backbone.bn1.num_batches_tracked"] == 8


# ---------------------------------------------------------------------------------------- what goes wrong with a run


def test_a_loss_that_is_lost_leaves_a_good_state_to_resume_from(
    tmp_path: Path, whole_toy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = TrainingModule.on_train_batch_start

    def poisons(self: TrainingModule, batch: Any, batch_idx: int) -> None:
        original(self, batch, batch_idx)
        if self.trainer.global_step == 6:
            self.module.fc.weight.data[0, 0] = float("nan")

    out = tmp_path / "run"
    monkeypatch.setattr(TrainingModule, "on_train_batch_start", poisons)
    for resume in (False, True):  # as long as the cause is there, so is the fault
        with pytest.raises(
            TrainingError, match=r"nan at step 6 \(epoch 2, batch 3\), first not finite in fc;"
        ) as caught:
            run_toy(out, resume=resume)
        assert caught.value.code == "nan"
    assert all(torch.isfinite(weight).all() for weight in state_of(out)["state_dict"].values())
    monkeypatch.setattr(TrainingModule, "on_train_batch_start", original)
    assert run_toy(out, resume=True)["resumed_from_step"] == 6
    assert_same_run(whole_toy, out)


@pytest.mark.slow
@pytest.mark.parametrize("step", [5, 7])
def test_weights_that_are_lost_in_a_step_never_replace_good_ones(
    step: int, tmp_path: Path, whole_toy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = TrainingModule.on_before_optimizer_step

    def poisons(self: TrainingModule, optimizer: torch.optim.Optimizer) -> None:
        original(self, optimizer)
        if self.trainer.global_step == step:
            self.module.backbone.conv1.weight.grad[0] = float("inf")

    out = tmp_path / "run"
    monkeypatch.setattr(TrainingModule, "on_before_optimizer_step", poisons)
    message = rf"the weights of backbone\.conv1\.weight are not finite after step {step + 1} \(epoch 2\)"
    with pytest.raises(TrainingError, match=message) as caught:
        run_toy(out)
    assert caught.value.code == "nan"
    monkeypatch.setattr(TrainingModule, "on_before_optimizer_step", original)
    assert run_toy(out, resume=True)["resumed_from_step"] == min(step, 7)
    assert_same_run(whole_toy, out)


COMMAND = ["train", "--model", "ssan_tiny", "--quiet", "--workers", "0"]
OVERRIDES = [f"{key}={value}" for key, value in KEYS.items() if key != "model"]


@pytest.fixture
def limited() -> Iterator[Callable[[int], None]]:
    """A limit on the size of files, in bytes; lifted after the test."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.slow
def test_a_disk_that_is_full_while_saving_leaves_the_state_of_before(
    order_set: Path,
    tmp_path: Path,
    whole: Path,
    limited: Callable[[int], None],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "run"
    size = (whole / "last" / "state.ckpt").stat().st_size
    original = TrainingModule.training_step

    def fills_the_disk(self: TrainingModule, batch: Any, batch_idx: int) -> Any:
        if self.trainer.global_step == 6:
            limited(size // 2)
        return original(self, batch, batch_idx)

    monkeypatch.setattr(TrainingModule, "training_step", fills_the_disk)
    assert status([*COMMAND, "--data", str(order_set), "--out", str(out), *OVERRIDES]) == 2
    limited(resource.getrlimit(resource.RLIMIT_FSIZE)[1])
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert said.startswith(f"ssan: {out}/last/state.ckpt: the disk is full while writing (File too large)")
    assert "Free space and run again" in said
    assert not list(out.glob("**/*.part"))
    monkeypatch.setattr(TrainingModule, "training_step", original)
    assert run(order_set, out, resume=True)["resumed_from_step"] == 6
    assert_same_run(whole, out)


# The thread that writes the curves dies of its error, after handing it on.
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("file", ["model.safetensors", "journal.jsonl", "events"])
def test_whichever_file_finds_the_disk_full_the_code_is_no_space_and_the_run_can_go_on(
    file: str, order_set: Path, tmp_path: Path, whole: Path, limited: Callable[[int], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    out = tmp_path / "run"
    owner, method = {
        "model.safetensors": (CheckpointKeeper, "on_validation_end"), "journal.jsonl": (Journal, "record"),
        "events": (Recorder, "_show"),
    }[file]  # fmt: skip
    original = getattr(owner, method)
    done = 0 if owner is CheckpointKeeper else 2  # the first epoch's model is the best for certain

    def fills_the_disk(self: Any, *rest: Any, **named: Any) -> Any:
        if len(Journal(out).events("epoch")) == done:
            limited(60)
        try:
            return original(self, *rest, **named)
        finally:
            limited(resource.getrlimit(resource.RLIMIT_FSIZE)[1])

    monkeypatch.setattr(owner, method, fills_the_disk)
    with pytest.raises(SsanError, match="the disk is full") as caught:
        run(order_set, out)
    assert caught.value.code == "no_space"
    monkeypatch.setattr(owner, method, original)
    if done:
        assert load_labeller(out).classes
    run(order_set, out, resume=True)
    assert_same_run(whole, out)


# -------------------------------------------------------------------------------------------- states not to be trusted


@pytest.fixture
def stopped(whole: Path, tmp_path: Path) -> Path:
    """A finished run that may be spoilt."""
    out = tmp_path / "run"
    shutil.copytree(whole, out)
    return out


class Bomb:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def _refused(data: Path, out: Path, capsys: pytest.CaptureFixture[str]) -> str:
    assert status([*COMMAND, "--data", str(data), "--out", str(out), "--resume", *OVERRIDES]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1, said
    assert said.startswith(f"ssan: {out}/last/state.ckpt: cannot resume: "), said
    assert "remove it" in said
    return said


@pytest.mark.slow
@pytest.mark.parametrize("plain", [True, False])
def test_a_state_that_would_run_something_is_refused_and_runs_nothing(
    plain: bool, order_set: Path, stopped: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = {**state_of(stopped), "extra": Bomb(tmp_path / "exploded")}
    path = stopped / "last" / "state.ckpt"
    path.write_bytes(pickle.dumps({"state_dict": Bomb(tmp_path / "exploded")})) if plain else torch.save(state, path)
    assert ("not a zip" if plain else "something else than tensors") in _refused(order_set, stopped, capsys)
    assert not (tmp_path / "exploded").exists()


@pytest.mark.slow
def test_a_state_that_is_cut_changed_or_something_else_is_refused_in_one_line(
    order_set: Path, stopped: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = stopped / "last" / "state.ckpt"
    good = path.read_bytes()
    spoilt = [good[: len(good) * tenth // 10] for tenth in range(10)]
    spoilt += [b"not a state", b"PK\x03\x04" + bytes(200), pickle.dumps([1, 2])]
    with zipfile.ZipFile(path) as archive:
        # One bit in the middle of each of some tensors, and of the structure that names them.
        for part in archive.infolist()[:: len(archive.infolist()) // 20]:
            lengths = struct.unpack("<HH", good[part.header_offset + 26 : part.header_offset + 30])
            place = part.header_offset + 30 + sum(lengths) + part.file_size // 2
            spoilt.append(good[:place] + bytes([good[place] ^ 1]) + good[place + 1 :])
    for content in spoilt:
        path.write_bytes(content)
        with pytest.raises(UsageError, match="cannot resume") as caught:
            StateFile().load_checkpoint(path)
        assert caught.value.path == str(path)
    path.write_bytes(spoilt[5])
    _refused(order_set, stopped, capsys)
    torch.save({"state_dict": {}}, path)
    assert "lacks parts" in _refused(order_set, stopped, capsys)
    torch.save({**state_of_bytes(good), "state_dict": {"module.fc.weight": torch.zeros(2, 2)}}, path)
    assert "another model" in _refused(order_set, stopped, capsys)


def test_a_state_that_is_a_hole_or_unpacks_to_more_than_it_is_is_refused_by_its_size(tmp_path: Path) -> None:
    path = tmp_path / "state.ckpt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("state/data.pkl", b"\x80\x02.")
    end = path.read_bytes()
    with open(path, "wb") as handle:  # an archive may have something before it
        handle.truncate(30_000_000_000)
        handle.seek(0, os.SEEK_END)
        handle.write(end)
    with pytest.raises(UsageError, match=r"it has 30,000,000,\d{3} bytes, and says of 3 what they are"):
        StateFile().load_checkpoint(path)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("state/data.pkl", bytes(30_000_000))
    with pytest.raises(UsageError, match=r"unpacks to 30,000,000 bytes"):
        StateFile().load_checkpoint(path)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(UsageError, match="not a file"):
        StateFile().load_checkpoint(path)


def state_of_bytes(content: bytes) -> dict[str, Any]:
    import io

    state: dict[str, Any] = torch.load(io.BytesIO(content), weights_only=True)
    return state


@pytest.mark.slow
def test_without_its_state_a_run_starts_from_its_beginning(order_set: Path, stopped: Path, whole: Path) -> None:
    (stopped / "last" / "state.ckpt").unlink()
    answer = run(order_set, stopped, resume=True)
    assert answer["resumed_from_step"] is None
    assert training_runs.differences(state_of(whole)["state_dict"], state_of(stopped)["state_dict"]) == []


@pytest.mark.slow
@pytest.mark.parametrize("resume", [True, False])
def test_a_state_without_a_journal_is_no_run_to_go_on_with(resume: bool, order_set: Path, stopped: Path) -> None:
    (stopped / "journal.jsonl").unlink()
    with pytest.raises(UsageError, match=r"no journal that says which; put its journal\.jsonl back, or name another"):
        run(order_set, stopped, resume=resume)


# ------------------------------------------------------------------------------------------------ other data, refused


@pytest.fixture(scope="module")
def listed(order_set: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Videos and their list as CSV, and a finished run on them."""
    from ssan.datasets import read

    folder = tmp_path_factory.mktemp("listed")
    with open(folder / "list.csv", "w", newline="") as handle:
        writer = csv.writer(handle)
        writer.writerow(["path", "label", "split"])
        for split in ("train", "val"):
            writer.writerows([sample.path, sample.label, split] for sample in read("auto", str(order_set), split))
    train(recipe(epochs=1), _source(order_set, folder / "list.csv"), folder / "run", quiet=True)
    return folder / "list.csv", folder / "run"


def _source(videos: Path, path: Path) -> DataSource:
    return DataSource(str(path), "csv", {"videos": str(videos)})


def _rows(change: str, rows: list[list[str]]) -> list[list[str]]:
    head, first, second, *rest = rows
    val = next(row for row in rest if row[2] == "val")
    other = next(row for row in rest if row[1] != first[1])
    return {
        "order": [head, second, first, *rest],
        "label": [head, [first[0], other[1], first[2]], second, *rest],
        "video": [
            head,
            [val[0], first[1], "train"],
            second,
            *(first[:1] + val[1:] if row is val else row for row in rest),
        ],
        "fewer": [head, second, *rest],
        "class": [head, *([row[0], row[1] + "!" if row[1] == first[1] else row[1], row[2]] for row in rows[1:])],
    }[change]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "shown"),
    [
        ("order", "train has as many videos, but other ones, other labels or another order"),
        ("label", "train has as many videos, but other ones"),
        ("video", "val has as many videos, but other ones"),
        ("fewer", "num_train 28 is now 27"),
        ("class", r"classes\[\d\] 'Moving [a-z ]+' is now 'Moving [a-z ]+!'"),
    ],
)
def test_resuming_with_other_videos_is_refused_and_the_difference_shown(
    change: str, shown: str, order_set: Path, listed: tuple[Path, Path]
) -> None:
    path, out = listed
    before = path.read_text()
    with open(path, newline="") as handle:
        rows = list(csv.reader(handle))
    try:
        with open(path, "w", newline="") as handle:
            csv.writer(handle).writerows(_rows(change, rows))
        with pytest.raises(UsageError, match=f"cannot resume: the run was started otherwise: .*{shown}"):
            train(recipe(epochs=1), _source(order_set, path), out, resume=True, quiet=True)
    finally:
        path.write_text(before)
    assert train(recipe(epochs=1), _source(order_set, path), out, resume=True, quiet=True)["steps"] == 4


@pytest.mark.slow
def test_resuming_with_another_recipe_names_the_key_that_differs_within_a_setting(
    order_set: Path, listed: tuple[Path, Path]
) -> None:
    other = recipe(epochs=1, layer={"channel_branch": False})
    with pytest.raises(UsageError, match=r"layer\.channel_branch None is now False") as caught:
        train(other, _source(order_set, listed[0]), listed[1], resume=True, quiet=True)
    assert "identity_start" not in str(caught.value)


def test_starting_anew_in_a_folder_with_a_run_is_refused_from_the_command_line_too(
    order_set: Path, whole: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.stat().st_mtime_ns for path in whole.rglob("*") if path.is_file()}
    assert status([*COMMAND, "--data", str(order_set), "--out", str(whole), *OVERRIDES]) == 2
    assert "--resume" in capsys.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in whole.rglob("*") if path.is_file()} == before
