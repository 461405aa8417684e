"""Fitting a module to batches with the Lightning Trainer: the step, the rate, what is measured, and the way back in."""

import contextlib
import importlib.util
import logging
import math
import os
import shutil
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import lightning.pytorch as pl
import numpy as np
import torch
from torch import Tensor, nn

from ssan.errors import SsanError, TrainingError, UsageError, VideoError, on_one_line
from ssan.processes import Processes, processes
from ssan.recipe import OptimisationKeys
from ssan.training.batches import Batches, BatchPlan
from ssan.training.callbacks import CheckpointKeeper, DataWaitMeter, EarlyStop, Interruption, Progress, Recorder
from ssan.training.checkpoint import StateFile
from ssan.training.cluster_environment import Launched
from ssan.training.conditions import Files, conditions, differences, use_threads
from ssan.training.ema import Average
from ssan.training.environment import environment, out_of_memory, used_precision
from ssan.training.journal import Journal
from ssan.training.optim import LearningRate

# By these words alone do torch and gloo tell the end of another process from any other fault.
SIGNS_OF_A_DEAD_PROCESS = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "killed by signal")

# What torch.compile makes code with.
COMPILER: str | Callable[..., Any] = "inductor"

# A recipe's precisions, by Lightning's names.
PRECISIONS: dict[str, Any] = {"32": "32-true", "bf16": "bf16-mixed", "16": "16-mixed"}

NOTHING_TO_STOP_BY = (
    "early_stop is set, but nothing chooses the best epoch, and the last one is kept; leave early_stop out, or give "
    "captions that choose (--val-split)"
)

Loss = Callable[[Any, Tensor], Tensor]
"""Outputs and targets of a batch to the mean loss, a scalar."""

Measure = Callable[[Any, Tensor], dict[str, Tensor]]
"""Outputs and targets of a validation batch to values per item; each is averaged over all items of the set."""


@dataclass(frozen=True)
class AtFirst:
    """What is not trained in the first epochs.

    :param epochs: how many these are.
    :param parameters: they get no gradient, so that neither a step nor its momentum, its decay or the norm that
        ``clip_norm`` bounds knows of them; their first step is that of the epoch that follows.
    :param modules: they stay in evaluation mode as long.
    """

    epochs: int
    parameters: list[nn.Parameter]
    modules: list[nn.Module]


@dataclass(frozen=True)
class Task:
    """What is fitted to what.

    :param batches: split (``train`` or ``val``), rank and number of processes to that process's batches.
    :param optimizer: makes the optimizer for a given rate.
    :param rate: makes the schedule for a given number of optimizer steps an epoch.
    :param frozen: modules that stay in evaluation mode while the rest trains.
    :param at_first: what else is not trained in the first epochs.
    :param keep: called with the module and its measures when an epoch's ``monitor`` is the best so far.
    :param monitor: the measure whose largest value is best; None keeps the last epoch's weights as the best.
    :param files: what is learnt from, so that a run that goes on can tell whether it is still the same.
    :param whole: called with the module in evaluation mode after each epoch; measures of the validation set as a
        whole, such as ranks, which no item has by itself. Each process computes all of them.
    :param measured_on: the split that the batches ``val`` are of, where they are of another one: measures are called
        by it.
    :param environment: what ``ssan.training.environment`` finds, where it has been asked already.
    :param ema: decay of an ``Average`` of the weights; it is what validation looks at, and what is kept as the best.
    :param compile: train with the module compiled by torch; validation uses it as it is.
    """

    module: nn.Module
    batches: Callable[[str, int, int], Batches]
    loss: Loss
    measure: Measure
    optimizer: Callable[[nn.Module, float], torch.optim.Optimizer]
    rate: Callable[[int], LearningRate]
    keep: Callable[[nn.Module, dict[str, float]], None]
    frozen: list[nn.Module] = field(default_factory=list)
    at_first: AtFirst | None = None
    monitor: str | None = "top1"
    whole: Callable[[nn.Module], dict[str, float]] | None = None
    files: Files | None = None
    measured_on: str = "val"
    environment: Mapping[str, Any] | None = None
    ema: float | None = None
    compile: bool = False

    def key(self, name: str) -> str:
        """What a measure is called: by the split that it is of, and after the loss of the training itself."""
        key = f"{self.measured_on}_{name}"
        return f"{key}_after" if key == "train_loss" else key


@dataclass(frozen=True)
class Outcome:
    """How a run came out.

    :param epochs: how many were made, by all parts of a run that was gone on with.
    :param stopped_early: whether it ended for lack of a better epoch, before all that were asked for.
    """

    steps: int
    epochs: int
    best_epoch: int
    best: dict[str, float]
    resumed_from_step: int | None
    seconds: float
    stopped_early: bool


class TrainingModule(pl.LightningModule):
    """A module, a loss and a rate, as the Trainer wants them."""

    def __init__(self, task: Task, seed: int, environment: Mapping[str, Any]) -> None:
        super().__init__()
        self.module = task.module
        self.task, self.seed = task, seed
        self.environment = environment
        self.inexact: list[str] = []  # why a run that went on may not end with the weights of one never stopped
        self.average: Average | None = None
        # Beside the module, not around it or in it: its keys stay, and so does what everybody else computes with it.
        # A batch has one of two sizes. Each is compiled for itself, so that a resumed run computes with the same code.
        self._compiled = torch.compile(task.module.forward, backend=COMPILER, dynamic=False) if task.compile else None
        self.rate: LearningRate | None = None
        self.measures: dict[str, float] = {}
        self._loaded: dict[str, Any] = {}
        self._weights: list[float] = []
        self._train_sum, self._train_items = 0.0, 0
        self._val_sums: dict[str, Tensor] = {}
        self._val_items = 0

    def train_dataloader(self) -> Batches:
        batches = self.task.batches("train", self.trainer.global_rank, self.trainer.world_size)
        if self._loaded:
            batches.load_state_dict(self._loaded["position"])
        return batches

    def val_dataloader(self) -> Batches:
        return self.task.batches("val", self.trainer.global_rank, self.trainer.world_size)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        # The trainer has no loader yet. Making it set one up here would lose the position of a resumed run.
        steps = math.ceil(len(self.train_dataloader()) / self.trainer.accumulate_grad_batches)
        self.rate = self.task.rate(steps)
        return self.task.optimizer(self.module, self.rate.base)

    def train(self, mode: bool = True) -> "TrainingModule":
        super().train(mode)
        for module in self.task.frozen:
            module.eval()
        return self

    @property
    def waiting(self) -> AtFirst | None:
        """What is not trained in this epoch and will be in a later one."""
        at_first = self.task.at_first
        return at_first if at_first is not None and self.trainer.current_epoch < at_first.epochs else None

    def _set_modes(self) -> None:
        self.train()
        for module in self.waiting.modules if self.waiting is not None else ():
            module.eval()

    def on_train_start(self) -> None:
        # The Trainer leaves modes as it finds them, and so would never ask which modules are frozen. (A run resumed in
        # mid-epoch has no start of an epoch.)
        self._set_modes()
        assert self.trainer.train_dataloader is not None
        self._weights = step_weights(self.trainer.train_dataloader.plan, self.trainer.accumulate_grad_batches)

    def on_train_epoch_start(self) -> None:
        self._set_modes()

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        # Dropout and the like depend on where the run is, not on what was drawn before: so it can start from here.
        where = [self.seed, self.trainer.current_epoch, batch_idx, self.trainer.global_rank]
        torch.manual_seed(int(np.random.SeedSequence(where).generate_state(1, np.uint64)[0]))

    def training_step(self, batch: tuple[Any, Tensor], batch_idx: int) -> Tensor:
        inputs, targets = batch
        loss = self.task.loss((self._compiled or self.module)(inputs), targets)
        value = loss.item()
        if not math.isfinite(value):
            layer = first_not_finite(self.module, inputs)
            raise TrainingError(
                f"the loss is {value} at step {self.trainer.global_step} (epoch {self.trainer.current_epoch + 1}, "
                f"batch {batch_idx + 1}), first not finite in {layer or 'the loss itself'}; the last state and "
                "the best model saved are kept. Lower lr, set clip_norm, or use precision=32",
                code="nan",
            )
        self._train_sum += value * len(targets)
        self._train_items += len(targets)
        self.last_loss = value
        return loss * self._weights[batch_idx]

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        assert self.rate is not None
        self.lr = self.rate.value(self.trainer.global_step)
        for group in optimizer.param_groups:
            group["lr"] = self.lr * group["lr_scale"]
        for parameter in self.waiting.parameters if self.waiting is not None else ():
            parameter.grad = None

    def optimizer_step(self, *arguments: Any, **named: Any) -> None:
        super().optimizer_step(*arguments, **named)
        if self.average is not None:
            self.average.update()

    # Callbacks come before the module at every hook: the best model is kept while the average is in.

    def on_validation_start(self) -> None:
        if self.average is not None:
            self.average.put_in()

    def on_validation_end(self) -> None:
        if self.average is not None:
            self.average.take_out()

    def on_validation_epoch_start(self) -> None:
        self._val_sums, self._val_items = {}, 0

    def validation_step(self, batch: tuple[Any, Tensor], batch_idx: int) -> None:
        inputs, targets = batch
        for name, values in self.task.measure(self.module(inputs), targets).items():
            # In float64, so that the sum does not depend on how the set was cut into batches.
            self._val_sums[name] = self._val_sums.get(name, 0) + values.double().sum()
        self._val_items += len(targets)

    def on_validation_epoch_end(self) -> None:
        assert self.rate is not None
        sums = torch.stack([*self._val_sums.values(), self._sum_like(self._val_items)])
        train = torch.stack([self._sum_like(self._train_sum), self._sum_like(self._train_items)])
        sums, train = (self.trainer.strategy.reduce(total, reduce_op="sum") for total in (sums, train))
        means = (sums[:-1] / sums[-1]).tolist()
        self.measures = {
            "train_loss": (train[0] / train[1]).item(),
            **{self.task.key(name): value for name, value in zip(self._val_sums, means, strict=True)},
        }
        if self.task.whole is not None:
            self.measures |= {self.task.key(name): value for name, value in self.task.whole(self.module).items()}
        self.rate.observe(self.measures[self.task.key("loss")])
        self._train_sum, self._train_items = 0.0, 0

    def _sum_like(self, value: float) -> Tensor:
        return torch.tensor(float(value), dtype=torch.float64, device=next(iter(self._val_sums.values())).device)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        assert self.rate is not None
        checkpoint["rate"] = self.rate.state_dict()
        assert self.trainer.train_dataloader is not None
        checkpoint["position"] = self.trainer.train_dataloader.state_dict()
        # Each process has its own share of the epoch's losses, and only the first one writes.
        own = torch.tensor([self._train_sum, self._train_items], dtype=torch.float64, device=self.device)
        checkpoint["train_sums"] = self.trainer.strategy.all_gather(own).reshape(-1, 2).tolist()
        threads = torch.tensor(torch.get_num_threads(), device=self.device)
        each = self.trainer.strategy.all_gather(threads).reshape(-1).tolist()
        checkpoint["conditions"] = conditions(self.environment, each, self.task.files)
        if self.average is not None:
            checkpoint["average"] = self.average.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        here = {name: tensor.shape for name, tensor in self.state_dict().items()}
        there = {name: getattr(tensor, "shape", None) for name, tensor in checkpoint["state_dict"].items()}
        if here != there:
            other = min(name for name in here | there if here.get(name) != there.get(name))
            raise UsageError(
                f"cannot resume: the state is that of another model ({other} is {there.get(other, 'missing')} in it, "
                f"expected {here.get(other, 'nothing')}). Copy last/ of this run again, or remove it: the run then "
                "starts from its beginning",
                path=str(self.trainer.ckpt_path),
            )
        self._loaded = {key: checkpoint[key] for key in ("rate", "position", "train_sums")}
        kept = checkpoint.get("conditions")
        use_threads(kept, self.trainer.global_rank)
        self.inexact = differences(kept, self.environment, self.task.files)
        if self.task.ema is not None:
            if "average" not in checkpoint:
                raise UsageError(
                    f"cannot resume: ema is {self.task.ema:g}, but no average of the weights is in the state. Copy "
                    "last/ of this run again, or remove it: the run then starts from its beginning",
                    path=str(self.trainer.ckpt_path),
                )
            self._loaded["average"] = checkpoint["average"]

    def on_fit_start(self) -> None:
        if self.task.ema is not None:
            self.average = Average(self.module, self.task.ema)  # no sooner: the module is on its device from here on
        # The schedule is made in configure_optimizers, after the checkpoint's hook and before this one.
        if self._loaded:
            assert self.rate is not None
            self.rate.load_state_dict(self._loaded["rate"])
            self._train_sum, items = self._loaded["train_sums"][self.trainer.global_rank]
            self._train_items = int(items)
            if self.average is not None:
                self.average.load_state_dict(self._loaded["average"])


def step_weights(plan: BatchPlan, accumulate: int) -> list[float]:
    """What the mean loss of each of this process's batches counts for, so that a step has the mean over its items.

    The Trainer divides the sum over the batches of a step by ``accumulate``, also where an epoch's last step has fewer;
    and batches differ by an item.
    """
    whole, rest = divmod(plan.num_items, len(plan))
    sizes = [whole + (position < rest) for position in range(len(plan))]
    weights = []
    for position, weight in enumerate(plan.weights()):
        first = position - position % accumulate
        weights.append(weight * (accumulate * sizes[position] / sum(sizes[first : first + accumulate])))
    return weights


@torch.no_grad()
def first_not_finite(module: nn.Module, inputs: Any) -> str | None:
    """The name of the first part of ``module`` whose output for ``inputs`` is not finite, in the order of computing."""
    found: list[str] = []

    def look(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(part: nn.Module, given: Any, out: Any) -> None:
            outputs = [z for z in (out if isinstance(out, tuple | list) else [out]) if isinstance(z, Tensor)]
            if not all(torch.isfinite(z).all() for z in outputs if z.is_floating_point()):
                found.append(name)

        return hook

    # Parts finish before what they are parts of, so the first to report is the innermost.
    hooks = [part.register_forward_hook(look(name)) for name, part in module.named_modules() if name]
    try:
        module(inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return found[0] if found else None


def fit(
    task: Task,
    folder: str | Path,
    recipe: OptimisationKeys,
    *,
    device: Literal["cpu", "cuda"] = "cpu",
    quiet: bool = False,
    resume: bool = False,
) -> Outcome:
    """Train ``task.module`` for the recipe's ``epochs``, validating after each.

    The run's files go to ``folder``. ``last`` in it is written every ``checkpoint_every_steps`` optimizer steps and
    after each epoch. With ``resume`` the run goes on from there, if there is one, and ends with the weights of a run
    that was never interrupted; where it cannot be sure of that it says why, in a line and in the journal. SIGTERM and
    Ctrl-C write it too and raise ``InterruptedRun``.

    A run that has ended goes on where the recipe has more epochs than it had. Its state says how far it is, and the
    schedule is that of the new number of epochs from there on: ``constant``, ``step``, ``exponential`` and ``plateau``
    go on as they would have, had the number been this one from the start, and so does a warm-up unless it was cut to
    half of a shorter run; ``cosine`` rises to where the longer curve is at this step, and falls again from there. With
    ``early_stop`` epochs without a better one training ends before its time; these are counted anew from where more
    epochs were asked for.

    Under ``torchrun`` or ``srun`` every process calls this; gradients are averaged over them.

    :param recipe: with all keys of the task's optimizer and schedule too, of which this function reads the rest.
    :raises TrainingError: the loss or the weights are not finite (code ``nan``).
    :raises UsageError: the state to resume from is damaged, or not this run's; or nothing says which epoch is better.
    :raises SsanError: the disk is full (code ``no_space``); the state saved before is kept.
    """
    folder = Path(folder)
    journal = Journal(folder)
    processes_here = processes()
    check_machine(processes_here, device, compile=task.compile)
    surroundings = task.environment or environment(device, processes_here.world, recipe.precision)
    module = TrainingModule(task, recipe.seed, surroundings)
    monitor = None if task.monitor is None else task.key(task.monitor)
    if recipe.early_stop is not None and monitor is None:
        raise UsageError(NOTHING_TO_STOP_BY)
    keeper = CheckpointKeeper(folder, task.keep, monitor, recipe.checkpoint_every_steps, task.key("loss"))
    state = folder / "last" / "state.ckpt"
    start_from = str(state) if resume and state.is_file() else None
    started = time.monotonic()
    meter = DataWaitMeter(quiet)
    recorder = Recorder(journal, folder, meter)
    stopper = EarlyStop(keeper, recorder, recipe.early_stop, quiet)
    with _quiet_lightning(), _own_threads(), Interruption(keeper) as interruption:
        trainer = pl.Trainer(
            accelerator="gpu" if device == "cuda" else "cpu",
            devices=processes_here.local_world,
            num_nodes=processes_here.machines,
            strategy="ddp" if processes_here.world > 1 else "auto",
            precision=PRECISIONS[used_precision(recipe.precision, device)],
            max_epochs=recipe.epochs,
            accumulate_grad_batches=recipe.accumulate,
            gradient_clip_val=recipe.clip_norm,
            # In this order at every hook: what is kept in the state is known before it is written.
            callbacks=[meter, stopper, keeper, recorder, Progress(folder.name, quiet, meter), interruption],
            plugins=[StateFile(), Launched(processes_here)],
            use_distributed_sampler=False,
            num_sanity_val_steps=0,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=folder,
        )
        try:
            trainer.fit(module, ckpt_path=start_from, weights_only=True)
        except VideoError as error:
            if state.is_file():
                error.message += "; the run is saved: go on with --resume once the video can be read"
            raise
        except (RuntimeError, MemoryError) as error:
            explained = _explained(error, processes_here, device)
            if explained is None:
                raise
            raise explained from error
    return Outcome(
        steps=trainer.global_step,
        epochs=recorder.num_epochs,
        best_epoch=keeper.best_epoch,
        best=keeper.best,
        resumed_from_step=keeper.resumed_from_step,
        seconds=time.monotonic() - started,
        stopped_early=stopper.stopped,
    )


def _explained(error: RuntimeError | MemoryError, processes_here: Processes, device: str) -> SsanError | None:
    """What an error of torch means to the user; None where it is a defect."""
    if out_of_memory(error):
        return TrainingError(
            f"out of memory on the {'GPU' if device == 'cuda' else 'machine'}; the state saved is kept. Start again, "
            "in another folder, with a lower batch and as much more accumulate (batch=4 accumulate=2 for batch=8), "
            "checkpoint_gradients=true, fewer frames (num_frames) or smaller ones (crop_px)"
        )
    if "address already in use" in str(error).lower():
        return UsageError(
            f"the processes cannot meet at {processes_here.address}, port {processes_here.port}: it is in use, perhaps "
            "by another run. Use a free one: set MASTER_PORT, to the same for all processes"
        )
    if type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
        said = on_one_line(error, 300)
        return TrainingError(f"torch cannot compile this network here ({said}); leave out compile=true")
    if any(sign in str(error) for sign in SIGNS_OF_A_DEAD_PROCESS):
        return TrainingError(
            "a process that this one works with has ended: another one of the run, or one that reads videos "
            f"({str(error).split('. ')[0]}). The state saved is kept; look at what that process said, or whether "
            "memory ran out, and go on with --resume"
        )
    return None


def check_machine(processes_here: Processes, device: str, *, compile: bool) -> None:
    """Refuse where there are fewer GPUs than processes, or nothing to compile with.

    :raises UsageError: a process computes on the GPU of its number; torch's compiler needs one for C++, and on a GPU
        Triton.
    """
    if device == "cuda" and torch.cuda.device_count() < processes_here.local_world:
        raise UsageError(
            f"{processes_here.local_world} processes on this machine, but GPUs seen by this one: "
            f"{torch.cuda.device_count()}. Start as many processes as there are GPUs; in Slurm ask for them by "
            "--gpus-per-node, and not by --gpus-per-task, which shows each process one"
        )
    if not compile or COMPILER != "inductor":
        return
    wanted = (os.environ.get("CXX", "").split() or ["g++"])[0]
    if shutil.which(wanted) is None:
        raise UsageError(
            f"compile is true, but there is no C++ compiler here ({wanted} is not found), which torch needs for it; "
            "install g++, name another in CXX, or leave out compile=true"
        )
    if device == "cuda" and importlib.util.find_spec("triton") is None:
        raise UsageError(
            "compile is true, but Triton is not installed, which torch needs for it on a GPU; install triton, or leave "
            "out compile=true"
        )


@contextlib.contextmanager
def _own_threads() -> Iterator[None]:
    """Give the process back the number of threads that it had: a run that goes on computes with that of its state."""
    before = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def _quiet_lightning() -> Iterator[None]:
    """Keep Lightning's advertisements and advice out of the log; what matters of it is said by us."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"lightning\..*")
            warnings.filterwarnings("ignore", message=r".*`isinstance\(treespec, LeafSpec\)` is deprecated.*")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
