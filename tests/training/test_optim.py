"""The learning rate of every step, worked by hand, and what an optimizer is given to train."""

import json
import math
from typing import Literal

import pytest
import torch
from torch import nn

from ssan.training.optim import LearningRate, make_optimizer, scaled_lr


def test_linear_rule_doubles_the_rate_with_the_batch() -> None:
    assert scaled_lr(0.01, "linear", 128, 64) == pytest.approx(0.02)
    assert scaled_lr(0.01, "linear", 16, 64) == pytest.approx(0.0025)


def test_square_root_rule_doubles_the_rate_with_four_times_the_batch() -> None:
    assert scaled_lr(0.01, "sqrt", 256, 64) == pytest.approx(0.02)
    assert scaled_lr(0.01, "sqrt", 16, 64) == pytest.approx(0.005)


def test_without_a_rule_the_rate_is_as_written() -> None:
    assert scaled_lr(0.01, "none", 4096, 64) == 0.01


def test_every_rule_leaves_the_reference_batch_alone() -> None:
    rules: tuple[Literal["linear", "sqrt", "none"], ...] = ("linear", "sqrt", "none")
    assert [scaled_lr(0.03, rule, 64, 64) for rule in rules] == [0.03] * 3


# -------------------------------------------------------------------------------------------------- the schedule


def _rates(rate: LearningRate, steps: int) -> list[float]:
    return [rate.value(step) for step in range(steps)]


def test_warm_up_climbs_in_equal_steps_and_arrives_with_the_first_step_after_it() -> None:
    rate = LearningRate(base=1.0, schedule="constant", steps_per_epoch=4, epochs=10)
    assert _rates(rate, 6) == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0, 1.0])


def test_warm_up_of_half_an_epoch_lasts_half_as_many_steps() -> None:
    rate = LearningRate(base=3.0, schedule="constant", steps_per_epoch=4, epochs=10, warmup_epochs=0.5)
    assert _rates(rate, 4) == pytest.approx([1.0, 2.0, 3.0, 3.0])


def test_without_warm_up_the_first_step_has_the_whole_rate() -> None:
    rate = LearningRate(base=0.5, schedule="constant", steps_per_epoch=4, epochs=10, warmup_epochs=0)
    assert rate.value(0) == 0.5


def test_warm_up_longer_than_the_run_takes_half_of_it() -> None:
    rate = LearningRate(base=1.0, schedule="constant", steps_per_epoch=4, epochs=1, warmup_epochs=5)
    assert _rates(rate, 4) == pytest.approx([1 / 3, 2 / 3, 1.0, 1.0])


def test_cosine_falls_from_the_whole_rate_over_half_of_it_to_nearly_nothing() -> None:
    rate = LearningRate(base=1.0, schedule="cosine", steps_per_epoch=4, epochs=3)
    assert rate.value(4) == pytest.approx(1.0)
    assert rate.value(6) == pytest.approx(0.5 * (1 + math.sqrt(0.5)))
    assert rate.value(8) == pytest.approx(0.5)
    assert rate.value(11) == pytest.approx(0.5 * (1 + math.cos(7 * math.pi / 8)))
    assert rate.value(12) == pytest.approx(0.0)


def test_steps_multiply_the_rate_from_their_epoch_on() -> None:
    rate = LearningRate(
        base=1.0, schedule="step", steps_per_epoch=2, epochs=6, warmup_epochs=0, milestones=(2, 4), gamma=0.1
    )
    assert _rates(rate, 12) == pytest.approx([1.0] * 4 + [0.1] * 4 + [0.01] * 4)


def _plateau(**changes: float) -> LearningRate:
    return LearningRate(
        base=1.0, schedule="plateau", steps_per_epoch=1, epochs=50, warmup_epochs=0, patience=3, **changes
    )


def test_plateau_reduces_after_patience_epochs_without_a_lower_loss() -> None:
    rate, seen = _plateau(), []
    for loss in (2.0, 1.0, 1.0, 1.5, 1.2, 1.1, 1.1, 1.1, 0.9):
        rate.observe(loss)
        seen.append(rate.value(20))
    #                  2.0  1.0  1.0  1.5  1.2  1.1  1.1  1.1   0.9
    assert seen == pytest.approx([1.0, 1.0, 1.0, 1.0, 0.1, 0.1, 0.1, 0.01, 0.01])


def test_a_lower_loss_begins_the_count_of_the_plateau_anew() -> None:
    rate = _plateau()
    for loss in (1.0, 1.1, 1.1, 0.9, 1.0, 1.0):
        rate.observe(loss)
    assert rate.reductions == 0
    rate.observe(0.95)
    assert rate.reductions == 1


def test_a_loss_that_is_not_a_number_is_no_progress() -> None:
    rate = _plateau()
    for loss in (1.0, math.nan, math.nan, math.nan):
        rate.observe(loss)
    assert rate.reductions == 1


def test_gamma_is_the_factor_of_the_plateau() -> None:
    rate = _plateau(gamma=0.5, reductions=2)
    assert rate.value(9) == pytest.approx(0.25)


@pytest.mark.parametrize("schedule", ["constant", "cosine", "step"])
def test_only_the_plateau_looks_at_the_loss(schedule: Literal["constant", "cosine", "step"]) -> None:
    rate = LearningRate(base=1.0, schedule=schedule, steps_per_epoch=2, epochs=50, patience=1, milestones=(9,))
    before = _rates(rate, 100)
    for _ in range(5):
        rate.observe(7.0)
    assert _rates(rate, 100) == before


def test_the_schedule_goes_on_from_its_state_as_if_uninterrupted() -> None:
    losses = (1.0, 1.2, 1.2, 1.2, 1.1, 1.1, 0.9, 1.0, 1.0, 1.0)
    for cut in range(len(losses)):
        whole, first, second = _plateau(), _plateau(), _plateau()
        for loss in losses:
            whole.observe(loss)
        for loss in losses[:cut]:
            first.observe(loss)
        state = first.state_dict()
        second.load_state_dict(json.loads(json.dumps(state)))
        for loss in losses[cut:]:
            second.observe(loss)
        assert second == whole
        assert whole.reductions == 2


# ------------------------------------------------------------------------------------------------- the optimizer


class _Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Linear(3, 5)
        self.fc = nn.Linear(5, 2)


def _share(name: str) -> float:
    return 1.0 if name.startswith("fc.") else 0.1


def _sgd(module: nn.Module, **changes: object) -> torch.optim.Optimizer:
    options = {"lr": 0.2, "momentum": 0.9, "weight_decay": 5e-4, **changes}
    return make_optimizer(module, "sgd", **options)  # type: ignore[arg-type]


def test_sgd_is_nesterov_with_momentum_and_weight_decay() -> None:
    optimizer = _sgd(_Small())
    assert type(optimizer) is torch.optim.SGD
    (group,) = optimizer.param_groups
    assert (group["nesterov"], group["momentum"], group["weight_decay"]) == (True, 0.9, 5e-4)


def test_sgd_without_momentum_is_plain() -> None:
    (group,) = _sgd(_Small(), momentum=0.0).param_groups
    assert (group["nesterov"], group["momentum"]) == (False, 0.0)


def test_first_nesterov_step_moves_by_one_plus_momentum_times_the_gradient() -> None:
    module = nn.Linear(1, 1, bias=False)
    nn.init.constant_(module.weight, 2.0)
    optimizer = _sgd(module, lr=0.1, weight_decay=0.5)
    module(torch.ones(1, 1)).sum().backward()
    optimizer.step()
    # The gradient is 1, the decay adds 0.5 * 2: 2 - 0.1 * (1 + 0.9) * 2.
    assert module.weight.item() == pytest.approx(1.62)


def test_adamw_takes_rate_and_weight_decay() -> None:
    optimizer = make_optimizer(_Small(), "adamw", lr=0.003, momentum=0.9, weight_decay=0.01)
    assert type(optimizer) is torch.optim.AdamW
    (group,) = optimizer.param_groups
    assert (group["lr"], group["weight_decay"]) == (0.003, 0.01)


@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_each_share_of_the_rate_is_a_group_that_keeps_its_share(kind: Literal["sgd", "adamw"]) -> None:
    module = _Small()
    optimizer = make_optimizer(module, kind, lr=0.2, momentum=0.9, weight_decay=0.0, lr_scale=_share)
    slow, fast = optimizer.param_groups
    assert [id(p) for p in slow["params"]] == [id(p) for p in module.backbone.parameters()]
    assert [id(p) for p in fast["params"]] == [id(p) for p in module.fc.parameters()]
    assert (slow["lr_scale"], fast["lr_scale"]) == (0.1, 1.0)
    assert (slow["lr"], fast["lr"]) == pytest.approx((0.02, 0.2))


def test_share_zero_freezes() -> None:
    module = _Small()
    optimizer = make_optimizer(
        module, "sgd", lr=0.2, momentum=0.9, weight_decay=0.0, lr_scale=lambda name: float(name.startswith("fc."))
    )
    (group,) = optimizer.param_groups
    assert [id(p) for p in group["params"]] == [id(p) for p in module.fc.parameters()]
    assert [p.requires_grad for p in module.parameters()] == [False, False, True, True]


def test_what_needs_no_gradient_is_left_out() -> None:
    module = _Small()
    module.backbone.weight.requires_grad_(False)
    (group,) = _sgd(module).param_groups
    assert len(group["params"]) == 3


def test_a_parameter_with_a_decay_of_its_own_has_a_group_of_its_own() -> None:
    module = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    optimizer = make_optimizer(
        module, "adamw", lr=0.5, momentum=0.9, weight_decay=0.1, own_decay={"1.weight": 0.02},
        lr_scale=lambda name: 3.0 if name == "1.weight" else 1.0,
    )  # fmt: skip
    found = [
        (group["lr_scale"], group["weight_decay"], [tuple(weight.shape) for weight in group["params"]])
        for group in optimizer.param_groups
    ]
    assert found == [(1.0, 0.1, [(2, 2), (2,), (2,)]), (3.0, 0.02, [(2,)])]
    assert optimizer.param_groups[1]["params"][0] is module[1].weight
    # By AdamW a weight without a gradient's direction shrinks by lr x decay alone: 1 - 1.5 x 0.02.
    for parameter in module.parameters():
        parameter.grad = torch.zeros_like(parameter)
    for group in optimizer.param_groups:
        group["lr"] = 0.5 * group["lr_scale"]
    optimizer.step()
    assert torch.allclose(module[1].weight, torch.full((2,), 1 - 1.5 * 0.02))
