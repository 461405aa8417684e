"""What happens beside the training step: keeping checkpoints, recording, showing progress, stopping when told."""

import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from types import FrameType, TracebackType
from typing import Any, Self

import lightning.pytorch as pl
import torch
from torch import nn
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from ssan.errors import TrainingError, VideoError
from ssan.files import naming_a_full_disk, remove_partials
from ssan.processes import num_cores
from ssan.training.batches import Batches
from ssan.training.journal import Journal


class CheckpointKeeper(pl.Callback):
    """Keeps the best model, and in ``last/`` the state to resume from, each written whole or not at all.

    The best model is written before the state that calls it the best: a run killed between the two resumes before the
    validation that found it, and finds it again.
    """

    def __init__(
        self,
        folder: Path,
        keep: Callable[[nn.Module, dict[str, float]], None],
        monitor: str | None,
        every_steps: int | None,
        loss: str = "val_loss",
    ) -> None:
        self.folder, self.path = folder, folder / "last" / "state.ckpt"
        self.keep, self.monitor, self.every_steps, self.loss = keep, monitor, every_steps, loss
        self.best: dict[str, float] = {}
        self.best_epoch = 0
        self.saved_step = -1
        self.resumed_from_step: int | None = None

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "best_epoch": self.best_epoch}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.best, self.best_epoch = dict(state["best"]), int(state["best_epoch"])

    def on_fit_start(self, trainer: pl.Trainer, module: Any) -> None:
        if trainer.is_global_zero:
            remove_partials(self.folder)
            remove_partials(self.path.parent)

    def on_train_start(self, trainer: pl.Trainer, module: Any) -> None:
        if trainer.ckpt_path is not None:
            self.resumed_from_step = trainer.global_step

    def on_train_batch_end(self, trainer: pl.Trainer, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if self.every_steps and trainer.global_step % self.every_steps == 0:
            self.save(trainer, batch_idx)

    def on_validation_end(self, trainer: pl.Trainer, module: Any) -> None:
        _refuse_lost_weights(trainer, module)
        measures: dict[str, float] = module.measures
        if self._is_best(measures):
            self.best, self.best_epoch = measures, trainer.current_epoch + 1
            if trainer.is_global_zero:
                self.keep(module.module, measures)

    def _is_best(self, measures: dict[str, float]) -> bool:
        if self.monitor is None or not self.best:
            return True
        # Of two equal epochs the one with the lower loss is the better.
        (value, loss), (best, lowest) = ((of[self.monitor], of[self.loss]) for of in (measures, self.best))
        return (value, -loss) > (best, -lowest)

    def on_train_epoch_end(self, trainer: pl.Trainer, module: Any) -> None:
        self._write(trainer)

    def save(self, trainer: pl.Trainer, batch_idx: int) -> None:
        """Save within an epoch; only between optimizer steps, and not after the last, where validation comes first."""
        at_step = (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        if at_step and batch_idx + 1 < trainer.num_training_batches and self.saved_step != trainer.global_step:
            _refuse_lost_weights(trainer, trainer.lightning_module)
            self._write(trainer)

    def on_exception(self, trainer: pl.Trainer, module: Any, exception: BaseException) -> None:
        """Save where a video stopped the run, so that no step is lost; of several processes only this one would."""
        if not isinstance(exception, VideoError) or trainer.world_size > 1 or not trainer.training:
            return
        done = trainer.fit_loop.epoch_loop.batch_progress.current
        if done.ready == done.completed > 0:  # it came between two batches
            self.save(trainer, done.completed - 1)

    def _write(self, trainer: pl.Trainer) -> None:
        self.saved_step = trainer.global_step
        trainer.save_checkpoint(self.path)  # every process takes part; process 0 writes


def _refuse_lost_weights(trainer: pl.Trainer, module: Any) -> None:
    """Stop before weights that are not finite replace the last good ones, be the loss still a number."""
    for name, parameter in module.module.named_parameters():
        if not torch.isfinite(parameter).all():
            raise TrainingError(
                f"the weights of {name} are not finite after step {trainer.global_step} (epoch "
                f"{trainer.current_epoch + 1}); the state and the best model saved before are kept. Lower lr, set "
                "clip_norm, or use precision=32",
                code="nan",
            )


STARVED = 0.1
"""The share of its time that training may wait for data before something is said about it."""


class DataWaitMeter(pl.Callback):
    """Measures starvation: the share of the time of an epoch's steps that is spent waiting for the next batch.

    With several processes it is that of the one that waits longest, for which the others wait in turn.
    """

    def __init__(self, quiet: bool) -> None:
        self.quiet = quiet
        self.share = 0.0
        self._began = self._waited_before = 0.0
        self._advised = False

    def on_train_start(self, trainer: pl.Trainer, module: Any) -> None:
        self._begin(trainer)  # a run resumed in mid-epoch has no start of an epoch

    def on_train_epoch_start(self, trainer: pl.Trainer, module: Any) -> None:
        self._begin(trainer)

    def _begin(self, trainer: pl.Trainer) -> None:
        self._began, self._waited_before = perf_counter(), _batches(trainer).waited_seconds

    def on_train_batch_end(self, trainer: pl.Trainer, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        passed = perf_counter() - self._began
        self.share = min((_batches(trainer).waited_seconds - self._waited_before) / passed, 1.0)

    def on_validation_start(self, trainer: pl.Trainer, module: Any) -> None:
        if trainer.world_size > 1:
            own = torch.tensor(self.share, device=trainer.strategy.root_device)
            self.share = float(trainer.strategy.reduce(own, reduce_op="max").item())

    def on_train_epoch_end(self, trainer: pl.Trainer, module: Any) -> None:
        if self.share > STARVED and not self._advised and not self.quiet and trainer.is_global_zero:
            self._advised = True
            print(advice(self.share, _batches(trainer).num_workers), file=sys.stderr, flush=True)


def advice(share: float, workers: int) -> str:
    """What to do where training waits for data for that share of its time."""
    more = f"--workers (now {workers}) up to the number of cores, " if workers < num_cores() else ""
    return (
        f"training waits for data for {share:.0%} of its time. What helps: {more}smaller videos (`ssan data resize "
        "SOURCE DEST --short-side 256`, once), or clips that need no decoding (the same with --to clips)"
    )


def _batches(trainer: pl.Trainer) -> Batches:
    assert isinstance(trainer.train_dataloader, Batches)
    return trainer.train_dataloader


class Recorder(pl.Callback):
    """Writes each epoch to the journal, ``metrics.csv`` and TensorBoard.

    The rows are part of the saved state, and are written down after it: a run killed in between writes them when it is
    resumed, so that no epoch is missing and none stands there twice.
    """

    def __init__(self, journal: Journal, folder: Path, meter: DataWaitMeter) -> None:
        self.journal, self.folder, self.meter = journal, folder, meter
        self._rows: list[dict[str, Any]] = []
        self._epoch_started = 0.0
        self._board: SummaryWriter | None = None

    @property
    def num_epochs(self) -> int:
        """How many epochs have been validated, those before the run was gone on with too."""
        return len(self._rows)

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self._rows}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._rows = list(state["rows"])

    def on_fit_start(self, trainer: pl.Trainer, module: Any) -> None:
        if trainer.is_global_zero:
            self._write()

    def on_train_start(self, trainer: pl.Trainer, module: Any) -> None:
        self._epoch_started = time.monotonic()  # a run resumed in mid-epoch has no start of an epoch
        if trainer.is_global_zero and trainer.ckpt_path is not None:
            self.journal.record(
                "resumed",
                step=trainer.global_step,
                epoch=trainer.current_epoch + 1,
                epochs=trainer.max_epochs,
                threads=torch.get_num_threads(),
                inexact=module.inexact,
            )
            if module.inexact:
                print(
                    "warning: gone on with, but the weights may differ from those of a run never stopped: "
                    + "; ".join(module.inexact),
                    file=sys.stderr,
                    flush=True,
                )

    def on_train_epoch_start(self, trainer: pl.Trainer, module: Any) -> None:
        self._epoch_started = time.monotonic()

    def on_validation_end(self, trainer: pl.Trainer, module: Any) -> None:
        self._rows.append({
            "epoch": trainer.current_epoch + 1,
            "step": trainer.global_step,
            **module.measures,
            "lr": module.lr,
            "data_wait": round(self.meter.share, 4),
            "seconds": round(time.monotonic() - self._epoch_started, 3),
        })  # fmt: skip

    def on_exception(self, trainer: pl.Trainer, module: Any, exception: BaseException) -> None:
        if isinstance(exception, VideoError) and trainer.is_global_zero:
            self.journal.record("failed", code=exception.code, message=str(exception))

    def on_train_epoch_end(self, trainer: pl.Trainer, module: Any) -> None:
        if trainer.is_global_zero:
            self._write()

    def _write(self) -> None:
        """Write down the rows that the journal lacks."""
        written = {row["epoch"] for row in self.journal.events("epoch")}
        for row in self._rows:
            if row["epoch"] not in written:
                with naming_a_full_disk(self.folder):
                    self._show(row)
                self.journal.record("epoch", **row)
        self.journal.write_tables()

    def _show(self, row: dict[str, Any]) -> None:
        if self._board is None:
            # What an earlier, killed process may have shown of this epoch is taken back.
            self._board = SummaryWriter(str(self.folder), purge_step=row["epoch"])
        for name, value in row.items():
            if name not in ("epoch", "step", "seconds"):
                self._board.add_scalar(name, value, row["epoch"])
        self._board.flush()

    def teardown(self, trainer: pl.Trainer, module: Any, stage: str) -> None:
        if self._board is not None:
            self._board.close()


class EarlyStop(pl.Callback):
    """Ends training when too many epochs have passed since the best one, or since more epochs were asked for.

    A run that has ended so is at its end when it is resumed, until it is asked for another number of epochs.

    :param most: epochs without a better one; None never ends it.
    """

    def __init__(self, keeper: CheckpointKeeper, recorder: Recorder, most: int | None, quiet: bool) -> None:
        self.keeper, self.recorder, self.most, self.quiet = keeper, recorder, most, quiet
        self.stopped = False
        self._asked: int | None = None  # epochs that the state's run was to have
        self._since = 0  # epochs of the run before the last that was asked for

    def state_dict(self) -> dict[str, Any]:
        return {"asked": self._asked, "since": self._since}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._asked, self._since = state["asked"], int(state["since"])

    def on_fit_start(self, trainer: pl.Trainer, module: Any) -> None:
        # States are loaded by now, and whether there is something to be done has not been looked at yet.
        if self._asked not in (None, trainer.max_epochs):
            self._since = self.recorder.num_epochs
        self._asked = trainer.max_epochs
        self._look(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, module: Any) -> None:
        self._look(trainer)

    def _look(self, trainer: pl.Trainer) -> None:
        done = self.recorder.num_epochs
        if self.most is not None and done < (trainer.max_epochs or 0):
            self.stopped = done - max(self.keeper.best_epoch, self._since) >= self.most
            trainer.should_stop = self.stopped

    def on_train_end(self, trainer: pl.Trainer, module: Any) -> None:
        if self.stopped and trainer.is_global_zero and not self.quiet:
            print(
                f"{self.keeper.folder.name}: {self.most} epochs without a better {self.keeper.monitor} than that of "
                f"epoch {self.keeper.best_epoch}: training ends after epoch {self.recorder.num_epochs} of "
                f"{trainer.max_epochs} (early_stop)",
                file=sys.stderr,
                flush=True,
            )


class Progress(pl.Callback):
    """A progress bar for each epoch, on standard error; plain lines where that is no terminal."""

    def __init__(self, name: str, quiet: bool, meter: DataWaitMeter) -> None:
        self.name, self.quiet, self.meter = name, quiet, meter
        self._bar: tqdm[Any] | None = None

    def on_train_epoch_start(self, trainer: pl.Trainer, module: Any) -> None:
        if trainer.is_global_zero and not self.quiet and sys.stderr.isatty():
            self._bar = tqdm(
                total=int(trainer.num_training_batches),
                desc=f"{self.name} epoch {trainer.current_epoch + 1}/{trainer.max_epochs}",
                file=sys.stderr,
                unit="batch",
                leave=False,
            )
            self._bar.update(trainer.fit_loop.epoch_loop.batch_progress.current.ready)

    def on_train_batch_end(self, trainer: pl.Trainer, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if self._bar is not None:
            self._bar.set_postfix(loss=f"{module.last_loss:.3f}", data_wait=f"{self.meter.share:.0%}", refresh=False)
            self._bar.update()

    def on_train_epoch_end(self, trainer: pl.Trainer, module: Any) -> None:
        if self._bar is not None:
            self._bar.close()
        if trainer.is_global_zero and not self.quiet:
            shown = "  ".join(f"{name} {value:.4f}" for name, value in module.measures.items())
            shown += f"  data_wait {self.meter.share:.2f}"
            done = f"{self.name} epoch {trainer.current_epoch + 1}/{trainer.max_epochs}"
            print(f"{done}  {shown}", file=sys.stderr, flush=True)


class Interruption(pl.Callback):
    """SIGTERM and Ctrl-C save at the next step and stop the run; a second one stops it at once.

    It listens within ``with``, and gives the signals back after it.
    """

    def __init__(self, keeper: CheckpointKeeper) -> None:
        self.keeper = keeper
        self._told = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        self._listen()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def on_train_start(self, trainer: pl.Trainer, module: Any) -> None:
        # Lightning has put a handler of its own before ours: on SIGTERM it would end the run anywhere, unsaved, with
        # status 0, and make one process of several wait for the others in the middle of whatever it does.
        self._listen()

    def on_train_batch_end(self, trainer: pl.Trainer, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        # After the last batch of an epoch validation comes first; the end of the epoch then saves and stops.
        at_step = (
            batch_idx + 1
        ) % trainer.accumulate_grad_batches == 0 and batch_idx + 1 < trainer.num_training_batches
        if self._anyone_told(trainer) and at_step:
            self.keeper.save(trainer, batch_idx)
            raise InterruptedRun

    def on_train_epoch_end(self, trainer: pl.Trainer, module: Any) -> None:
        if self._anyone_told(trainer) and trainer.current_epoch + 1 < (trainer.max_epochs or 0):
            raise InterruptedRun

    def _listen(self) -> None:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._before.setdefault(number, signal.signal(number, self._tell))

    def _tell(self, number: int, frame: FrameType | None) -> None:
        if self._told:
            raise InterruptedRun
        self._told = True

    def _anyone_told(self, trainer: pl.Trainer) -> bool:
        if trainer.world_size == 1:
            return self._told
        told = torch.tensor(float(self._told), device=trainer.strategy.root_device)
        return bool(trainer.strategy.reduce(told, reduce_op="sum").item() > 0)


class InterruptedRun(BaseException):
    """The run was told to stop and has saved its state; told twice, the one it saved last."""
