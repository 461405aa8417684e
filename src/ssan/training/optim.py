"""Optimizers and the learning rate over a run (SSAN, section 4.2; Goyal et al. 2017 for the scaling and warm-up).

The alternative to section 4.2 is the recipe of TSM (Lin, Gan, Han, ICCV 2019, section 5.1, and its authors' code),
which has rates and decays by kind of parameter.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from ssan.recipe import OptimisationKeys

# Layers with a weight and a bias for each channel and nothing else.
NORMS = (_BatchNorm, nn.LayerNorm, nn.GroupNorm, nn.modules.instancenorm._InstanceNorm)


def scaled_lr(lr: float, rule: Literal["linear", "sqrt", "none"], effective_batch: int, reference_batch: int) -> float:
    """The rate for ``effective_batch`` clips a step (batch x processes x accumulated), from that for the reference."""
    ratio = effective_batch / reference_batch
    return lr * {"linear": ratio, "sqrt": math.sqrt(ratio), "none": 1.0}[rule]


def make_optimizer(
    module: nn.Module,
    kind: Literal["sgd", "adamw"],
    *,
    lr: float,
    momentum: float,
    weight_decay: float,
    lr_scale: Callable[[str], float] = lambda name: 1.0,
    multiples: Mapping[str, tuple[float, float]] | None = None,
    own_decay: Mapping[str, float] | None = None,
    fused: bool = False,
) -> torch.optim.Optimizer:
    """SGD with Nesterov momentum, or AdamW, over the parameters that require a gradient.

    :param lr_scale: parameter name to the share of ``lr`` that it gets; each share is one parameter group, which keeps
        it as ``lr_scale``. Parameters with share 0 are not trained.
    :param multiples: parameter name to what its share and its weight decay are multiplied by, as ``tsm_multiples``
        gives it; 1 and 1 for all by default.
    :param own_decay: parameter name to its weight decay, where that is not ``weight_decay`` times its multiple.
    :param fused: AdamW makes its step in one pass over all numbers of a parameter. It is several times as fast where
        parameters are large, and rounds differently.
    """
    shares: dict[tuple[float, float, bool], list[nn.Parameter]] = {}
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            rate, decay = multiples[name] if multiples is not None else (1.0, 1.0)
            own = own_decay is not None and name in own_decay
            decay = own_decay[name] if own_decay is not None and own else decay
            share = lr_scale(name) * rate
            if share == 0:
                parameter.requires_grad_(False)
            else:
                shares.setdefault((share, decay, own), []).append(parameter)
    groups: list[dict[str, Any]] = [
        {
            "params": parameters, "lr": lr * share, "lr_scale": share,
            "weight_decay": decay if own else weight_decay * decay,
        }
        for (share, decay, own), parameters in sorted(shares.items())
    ]  # fmt: skip
    if kind == "sgd":
        return torch.optim.SGD(groups, lr=lr, momentum=momentum, nesterov=momentum > 0, weight_decay=weight_decay)
    return torch.optim.AdamW(groups, lr=lr, weight_decay=weight_decay, fused=fused or None)


def tsm_multiples(module: nn.Module, is_last: Callable[[str], bool]) -> dict[str, tuple[float, float]]:
    """Parameter name to what TSM's recipe multiplies its rate and its weight decay by.

    ======================  ====  =====
    parameter               rate  decay
    ======================  ====  =====
    last layer: weight         5      1
    last layer: bias          10      0
    norm: weight, bias         1      0
    elsewhere: bias            2      0
    elsewhere: anything        1      1
    ======================  ====  =====

    TSM's networks have no other norm than BatchNorm; LayerNorm and its like count as one here.

    :param is_last: whether the parameter of a name is the last layer's.
    """
    norms = {name for name, part in module.named_modules() if isinstance(part, NORMS)}

    def multiples(name: str) -> tuple[float, float]:
        owner, _, kind = name.rpartition(".")
        if owner in norms:
            return 1.0, 0.0
        if is_last(name):
            return (10.0, 0.0) if kind == "bias" else (5.0, 1.0)
        return (2.0, 0.0) if kind == "bias" else (1.0, 1.0)

    return {name: multiples(name) for name, _ in module.named_parameters()}


@dataclass
class LearningRate:
    """The rate at each step: linear warm-up, times a decay by epoch, by plateau, or along a cosine.

    ::

        rate
        lr |   ____________            plateau, step: times gamma, now and then
           |  /            |______
           | /                    |___
           +-----------------------------> steps
             warm-up

    ``value`` is a pure function of the step and of ``reductions``, which only ``plateau`` changes; both are all the
    state there is.

    :param base: the rate after warm-up.
    :param steps_per_epoch: optimizer steps, not batches.
    """

    base: float
    schedule: Literal["plateau", "step", "exponential", "cosine", "constant"]
    steps_per_epoch: int
    epochs: int
    warmup_epochs: float = 1.0
    milestones: Sequence[int] = ()
    gamma: float = 0.1
    patience: int = 5
    reductions: int = 0
    best_loss: float = math.inf
    epochs_since_best: int = 0

    @classmethod
    def of(cls, recipe: OptimisationKeys, base: float, steps_per_epoch: int) -> "LearningRate":
        """The schedule that a recipe asks for, at the rate ``base``."""
        return cls(
            base=base,
            schedule=recipe.schedule,
            steps_per_epoch=steps_per_epoch,
            epochs=recipe.epochs,
            warmup_epochs=recipe.warmup_epochs,
            milestones=recipe.milestones,
            gamma=recipe.gamma,
            patience=recipe.patience,
        )

    def value(self, step: int) -> float:
        """The rate of optimizer step ``step``, counted from 0."""
        # A warm-up as long as the run would never arrive.
        warmup = min(self.warmup_epochs * self.steps_per_epoch, self.steps_per_epoch * self.epochs / 2)
        if step < warmup:
            return self.base * (step + 1) / (math.ceil(warmup) + 1)
        if self.schedule == "cosine":
            total = self.steps_per_epoch * self.epochs
            return self.base * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(total - warmup, 1)))
        if self.schedule == "step":
            epoch = step // self.steps_per_epoch
            return self.base * self.gamma ** sum(epoch >= milestone for milestone in self.milestones)
        if self.schedule == "exponential":
            return self.base * self.gamma ** (step // self.steps_per_epoch)
        return self.base * self.gamma**self.reductions

    def observe(self, validation_loss: float) -> None:
        """Tell the schedule an epoch's validation loss; ``plateau`` acts after ``patience`` epochs above the best."""
        if self.schedule != "plateau":
            return
        if validation_loss < self.best_loss:
            self.best_loss, self.epochs_since_best = validation_loss, 0
            return
        self.epochs_since_best += 1
        if self.epochs_since_best >= self.patience:
            self.reductions, self.epochs_since_best = self.reductions + 1, 0

    def state_dict(self) -> dict[str, float]:
        return {
            "reductions": self.reductions,
            "best_loss": self.best_loss,
            "epochs_since_best": self.epochs_since_best,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.reductions = int(state["reductions"])
        self.best_loss = float(state["best_loss"])
        self.epochs_since_best = int(state["epochs_since_best"])
