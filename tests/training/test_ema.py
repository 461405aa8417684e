"""The average of the weights: its numbers by hand, what is done with it in a run, and that it survives a kill."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from ssan.errors import UsageError
from ssan.recipe import Recipe, make_recipe
from ssan.recognition.train import DataSource, train
from ssan.training.ema import Average
from ssan.training.fit import TrainingModule
from ssan.training.journal import read_journal

KEYS = {
    "model": "ssan_tiny", "crop_px": 32, "size_px": 36, "epochs": 2, "batch": 8, "num_frames": 3, "lr": 0.02,
    "lr_rule": "none", "crop": "random", "dropout": 0.3, "schedule": "constant", "ema": 0.9,
}  # fmt: skip


def recipe(**changes: Any) -> Recipe:
    return make_recipe({**KEYS, **changes})


def state_of(out: Path) -> dict[str, Any]:
    state: dict[str, Any] = torch.load(out / "last" / "state.ckpt", weights_only=True)
    return state


class Unfinished(BaseException):
    """Stands for a power cut: nothing catches it."""


@pytest.fixture(scope="module")
def whole(order_set: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("ema") / "run"
    train(recipe(checkpoint_every_steps=1), DataSource(str(order_set)), out, quiet=True)
    return out


def test_three_steps_worked_by_hand() -> None:
    module = nn.Linear(1, 1, bias=False)
    seen = []
    nn.init.constant_(module.weight, 1.0)
    average = Average(module, 0.2)
    for weight in (2.0, 4.0, 8.0):
        nn.init.constant_(module.weight, weight)
        average.update()
        seen.append(average.values["weight"].item())
    # Decays 1/10, 2/11, and no longer 3/12 but 0.2: 0.1 * 1 + 0.9 * 2; (2 * 1.9 + 9 * 4) / 11; 0.2 * that + 0.8 * 8.
    assert seen == pytest.approx([1.9, 39.8 / 11, 0.2 * 39.8 / 11 + 6.4])


def test_the_random_start_leaves_the_average_of_a_short_run() -> None:
    module = nn.Linear(1, 1, bias=False)
    nn.init.constant_(module.weight, 1.0)
    average, left = Average(module, 0.9999), []
    nn.init.zeros_(module.weight)
    for _ in range(3):
        average.update()
        left.append(average.values["weight"].item())
    assert left == pytest.approx([1 / 10, 1 / 55, 1 / 220])


def test_statistics_of_batch_norm_are_averaged_and_what_counts_is_copied() -> None:
    norm = nn.BatchNorm1d(1)
    average = Average(norm, 0.5)
    norm.running_mean.fill_(10.0)  # type: ignore[union-attr]
    norm.running_var.fill_(21.0)  # type: ignore[union-attr]
    norm.num_batches_tracked.fill_(7)  # type: ignore[union-attr]
    average.update()
    assert average.values["running_mean"].item() == pytest.approx(9.0)
    assert average.values["running_var"].item() == pytest.approx(0.1 * 1 + 0.9 * 21)
    assert average.values["num_batches_tracked"].item() == 7


def test_a_module_that_computed_with_the_average_has_its_own_weights_back() -> None:
    module = nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5))
    average, addresses = Average(module, 0.9), [tensor.data_ptr() for tensor in module.state_dict().values()]
    nn.init.normal_(module[0].weight)
    trained = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    average.update()
    average.put_in()
    assert all(torch.equal(tensor, average.values[name]) for name, tensor in module.state_dict().items())
    assert not torch.equal(module[0].weight, trained["0.weight"])
    average.take_out()
    assert all(torch.equal(tensor, trained[name]) for name, tensor in module.state_dict().items())
    # The same memory throughout, which optimizers and other processes know.
    assert [tensor.data_ptr() for tensor in module.state_dict().values()] == addresses


def test_a_module_under_two_names_has_its_own_weights_back_too() -> None:
    shared = nn.Linear(3, 3)
    module = nn.Sequential(shared, nn.ReLU(), shared)
    average = Average(module, 0.9)
    nn.init.normal_(shared.weight)
    trained = shared.weight.clone()
    average.update()
    average.put_in()
    assert not torch.equal(shared.weight, trained)
    average.take_out()
    assert torch.equal(shared.weight, trained)
    assert sorted(average.values) == ["0.bias", "0.weight"]


@pytest.mark.slow
def test_a_run_averages_after_each_step_and_not_after_each_batch(
    order_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[dict[str, torch.Tensor]] = []
    step, fit_start = TrainingModule.optimizer_step, TrainingModule.on_fit_start

    def note(fit: TrainingModule) -> None:
        seen.append({name: tensor.double().clone() for name, tensor in fit.module.state_dict().items()})

    monkeypatch.setattr(TrainingModule, "on_fit_start", lambda self: (fit_start(self), note(self)))
    monkeypatch.setattr(
        TrainingModule, "optimizer_step", lambda self, *rest, **named: (step(self, *rest, **named), note(self))
    )
    keys = {"epochs": 1, "batch": 4, "accumulate": 2, "ema": 0.25}
    answer = train(recipe(**keys), DataSource(str(order_set)), tmp_path / "run", quiet=True)
    assert len(seen) == 1 + answer["steps"] == 5
    expected = seen[0]
    for number, now in enumerate(seen[1:]):
        decay = min(0.25, (1 + number) / (10 + number))
        expected = {name: decay * expected[name] + (1 - decay) * now[name] for name in now}
    average = state_of(tmp_path / "run")["average"]
    assert average["updates"] == 4
    counting = [name for name, value in average["values"].items() if not value.is_floating_point()]
    for name in expected.keys() - set(counting):
        torch.testing.assert_close(average["values"][name].double(), expected[name], rtol=1e-5, atol=1e-6)
    assert {average["values"][name].item() for name in counting} == {7}


@pytest.mark.slow
def test_the_average_is_measured_and_kept_and_training_goes_on_from_the_weights(
    order_set: Path, tmp_path: Path, whole: Path
) -> None:
    state, kept = state_of(whole), load_file(whole / "model.safetensors")
    # Both epochs' models were tried; the better one, of either epoch, is an average.
    train(recipe(epochs=1), DataSource(str(order_set)), tmp_path / "first", quiet=True)
    first = state_of(tmp_path / "first")["average"]["values"]
    averages = [first, state["average"]["values"]]
    assert any(all(torch.equal(kept[name], average[name]) for name in kept) for average in averages)
    trained = {name.removeprefix("module."): tensor for name, tensor in state["state_dict"].items()}
    assert not torch.equal(kept["fc.weight"], trained["fc.weight"])

    # Without an average the steps are the same, and other weights are measured.
    train(recipe(ema=None, epochs=2), DataSource(str(order_set)), tmp_path / "plain", quiet=True)
    plain = state_of(tmp_path / "plain")
    assert "average" not in plain
    assert all(torch.equal(tensor, state["state_dict"][name]) for name, tensor in plain["state_dict"].items())
    losses = [[row["val_loss"] for row in read_journal(run / "journal.jsonl", "epoch")]
              for run in (whole, tmp_path / "plain")]  # fmt: skip
    assert all(one != other for one, other in zip(*losses, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("step", [2, 6])
def test_a_killed_run_goes_on_with_its_average_to_the_last_bit(
    step: int, order_set: Path, tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = TrainingModule.training_step

    def dies(self: TrainingModule, *rest: Any) -> Any:
        if self.trainer.global_step == step:
            raise Unfinished
        return original(self, *rest)

    monkeypatch.setattr(TrainingModule, "training_step", dies)
    out = tmp_path / "run"
    with pytest.raises(Unfinished):
        train(recipe(checkpoint_every_steps=1), DataSource(str(order_set)), out, quiet=True)
    monkeypatch.setattr(TrainingModule, "training_step", original)
    answer = train(recipe(checkpoint_every_steps=1), DataSource(str(order_set)), out, resume=True, quiet=True)
    assert answer["resumed_from_step"] == step
    one, other = state_of(whole), state_of(out)
    assert one["average"]["updates"] == other["average"]["updates"] == 8
    for part in (lambda state: state["state_dict"], lambda state: state["average"]["values"]):
        assert all(torch.equal(part(one)[name], part(other)[name]) for name in part(one))
    kept, same = load_file(whole / "model.safetensors"), load_file(out / "model.safetensors")
    assert all(torch.equal(kept[name], same[name]) for name in kept)


@pytest.mark.slow
def test_a_state_without_the_average_is_refused(order_set: Path, tmp_path: Path, whole: Path) -> None:
    import shutil

    out = tmp_path / "run"
    shutil.copytree(whole, out)
    state = state_of(out)
    del state["average"]
    torch.save(state, out / "last" / "state.ckpt")
    with pytest.raises(UsageError, match=r"ema is 0\.9, but no average of the weights is in the state"):
        train(recipe(checkpoint_every_steps=1), DataSource(str(order_set)), out, resume=True, quiet=True)
