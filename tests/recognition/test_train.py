"""Training: what a recipe turns into, what is written, and that a run resumed is the run that never stopped."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from tests.forked import ForkedCommand
from torch import nn

from ssan.datasets import Samples, read
from ssan.errors import TrainingError, UsageError, VideoError
from ssan.models.catalogue import build
from ssan.recipe import OptimisationKeys, Recipe, make_recipe
from ssan.recognition import train as train_module
from ssan.recognition.train import DataSource, complete, train
from ssan.recognition.trainable import freeze_batch_norm, new_parameters
from ssan.training.batches import Batches, BatchPlan
from ssan.training.fit import Task, TrainingModule, fit, step_weights
from ssan.training.journal import read_journal
from ssan.training.optim import LearningRate
from ssan.weights.classifier_file import load_labeller

SMALL = {
    "model": "ssan_tiny", "crop_px": 32, "size_px": 36, "epochs": 2, "batch": 8, "num_frames": 3, "lr": 0.003,
    "optimizer": "adamw", "lr_rule": "none", "crop": "random", "dropout": 0.3, "schedule": "plateau", "patience": 1,
}  # fmt: skip


def small(**changes: Any) -> Recipe:
    return make_recipe({**SMALL, **changes})


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """The weights at the end of a run (not the best ones), from the state that it leaves."""
    state = torch.load(folder / "last" / "state.ckpt", weights_only=True)
    return state["state_dict"]


def assert_same_weights(one: Path, other: Path) -> None:
    a, b = weights(one), weights(other)
    assert a.keys() == b.keys()
    different = [name for name in a if not torch.equal(a[name], b[name])]
    assert not different, f"{len(different)} of {len(a)} tensors differ, first {different[0]}"


@pytest.fixture(scope="module")
def finished(order_set: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A small run, never interrupted."""
    out = tmp_path_factory.mktemp("runs") / "run"
    return out, train(small(), DataSource(str(order_set)), out, quiet=True)


@pytest.mark.slow
def test_the_answer_has_the_promised_fields(finished: tuple[Path, dict[str, Any]]) -> None:
    out, answer = finished
    assert set(answer) >= {
        "model", "num_train", "num_val", "num_skipped", "epochs", "steps", "best_epoch", "val_top1", "train_seconds",
        "resumed_from_step", "weights",
    }  # fmt: skip
    assert (answer["num_train"], answer["num_skipped"], answer["epochs"]) == (28, 0, 2)
    assert answer["steps"] == 2 * 4
    assert answer["best_epoch"] in (1, 2)
    assert answer["resumed_from_step"] is None
    assert 0 <= answer["val_top1"] <= 1
    assert answer["model"] == str(out / "model.safetensors")


@pytest.mark.slow
def test_a_run_leaves_every_promised_file(finished: tuple[Path, dict[str, Any]]) -> None:
    out, _ = finished
    names = {path.name for path in out.iterdir()}
    assert names >= {"model.safetensors", "last", "recipe.yaml", "journal.jsonl", "metrics.csv", "skipped.csv"}
    assert any(name.startswith("events.out.tfevents") for name in names)
    assert not [name for name in names if name.endswith(".part")]
    assert len((out / "metrics.csv").read_text().splitlines()) == 1 + 2


@pytest.mark.slow
def test_the_recipe_written_is_complete_and_makes_the_same_run(finished: tuple[Path, dict[str, Any]]) -> None:
    from ssan.recipe import read_recipe

    out, _ = finished
    assert read_recipe(out / "recipe.yaml") == complete(small())


def test_the_journal_says_what_was_trained_on_and_at_which_rate(finished: tuple[Path, dict[str, Any]]) -> None:
    (start,) = read_journal(finished[0] / "journal.jsonl", "start")
    assert start["effective_batch"] == 8
    assert start["lr"] == 0.003
    assert start["num_train"] == 28
    epochs = read_journal(finished[0] / "journal.jsonl", "epoch")
    assert [row["epoch"] for row in epochs] == [1, 2]
    assert {"train_loss", "val_loss", "val_top1", "lr", "seconds", "step"} <= set(epochs[0])


def test_the_model_file_opens_with_the_plain_library_and_says_everything(
    finished: tuple[Path, dict[str, Any]],
) -> None:
    with safe_open(finished[1]["model"], framework="pt") as file:
        metadata = file.metadata()
        assert "backbone.layer1.0.after_conv1.theta.weight" in file.keys()  # noqa: SIM118 - not a dict
    assert set(metadata) == {
        "ssan.format", "ssan.recipe", "ssan.classes", "ssan.preprocess", "ssan.protocol", "ssan.sha256",
        "ssan.metadata_sha256",
    }  # fmt: skip
    assert json.loads(metadata["ssan.classes"])[0] == "Moving something from left to right"
    labeller = load_labeller(finished[1]["model"])
    assert labeller.preprocess.crop_px == 32
    assert not labeller.model.training


@pytest.mark.slow
def test_resuming_a_finished_run_changes_nothing(order_set: Path, finished: tuple[Path, dict[str, Any]]) -> None:
    out, answer = finished
    before = weights(out)
    again = train(small(), DataSource(str(order_set)), out, resume=True, quiet=True)
    assert again["val_top1"] == answer["val_top1"]
    assert again["steps"] == answer["steps"]
    assert all(torch.equal(tensor, before[name]) for name, tensor in weights(out).items())


class Killed(BaseException):
    """Stands for a power cut: nothing catches it."""


def assert_resumes_in_mid_epoch(recipe: Recipe, data: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that dies at step 2 and goes on, in ``folder / "run"``, ends with the weights of one that does not."""
    from ssan.training.fit import TrainingModule

    original = TrainingModule.training_step

    def dies(self: TrainingModule, batch: Any, batch_idx: int) -> Any:
        if self.trainer.global_step == 2:
            raise Killed
        return original(self, batch, batch_idx)

    monkeypatch.setattr(TrainingModule, "training_step", dies)
    with pytest.raises(Killed):
        train(recipe, DataSource(str(data)), folder / "run", quiet=True)
    monkeypatch.setattr(TrainingModule, "training_step", original)
    train(recipe, DataSource(str(data)), folder / "run", resume=True, quiet=True)
    train(recipe, DataSource(str(data)), folder / "whole", quiet=True)
    assert_same_weights(folder / "run", folder / "whole")


@pytest.mark.slow
def test_a_run_resumed_in_mid_epoch_keeps_its_batch_norm_frozen(
    order_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = small(freeze_bn=True, epochs=1, checkpoint_every_steps=1)
    assert_resumes_in_mid_epoch(recipe, order_set, tmp_path, monkeypatch)
    assert not weights(tmp_path / "run")["module.backbone.bn1.running_mean"].any()
    (epoch,) = read_journal(tmp_path / "run" / "journal.jsonl", "epoch")
    assert epoch["seconds"] < 600


@pytest.mark.slow
@pytest.mark.parametrize("step", [2, 3, 4, 5])
def test_a_run_killed_in_mid_epoch_and_resumed_ends_with_the_same_weights(
    step: int, order_set: Path, tmp_path: Path, finished: tuple[Path, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    from ssan.training.fit import TrainingModule

    recipe = small(checkpoint_every_steps=1)
    original = TrainingModule.training_step

    def dies(self: TrainingModule, batch: Any, batch_idx: int) -> Any:
        if self.trainer.global_step == step:
            raise Killed
        return original(self, batch, batch_idx)

    out = tmp_path / "run"
    monkeypatch.setattr(TrainingModule, "training_step", dies)
    with pytest.raises(Killed):
        train(recipe, DataSource(str(order_set)), out, quiet=True)
    monkeypatch.setattr(TrainingModule, "training_step", original)
    answer = train(recipe, DataSource(str(order_set)), out, resume=True, quiet=True)
    assert answer["resumed_from_step"] == step
    assert_same_weights(out, finished[0])
    assert answer["val_top1"] == finished[1]["val_top1"]
    (row,) = [row for row in read_journal(out / "journal.jsonl", "epoch") if row["epoch"] == 2]
    (same,) = [row for row in read_journal(finished[0] / "journal.jsonl", "epoch") if row["epoch"] == 2]
    assert (row["train_loss"], row["val_loss"]) == (same["train_loss"], same["val_loss"])


@pytest.mark.slow
def test_the_number_of_loader_processes_does_not_change_the_weights(
    order_set: Path, tmp_path: Path, finished: tuple[Path, dict[str, Any]]
) -> None:
    train(small(), DataSource(str(order_set)), tmp_path / "run", workers=2, quiet=True)
    assert_same_weights(tmp_path / "run", finished[0])


@pytest.mark.slow
def test_another_seed_gives_other_weights(
    order_set: Path, tmp_path: Path, finished: tuple[Path, dict[str, Any]]
) -> None:
    train(small(seed=1, epochs=1), DataSource(str(order_set)), tmp_path / "run", quiet=True)
    a, b = weights(tmp_path / "run"), weights(finished[0])
    assert not torch.equal(a["module.fc.weight"], b["module.fc.weight"])


@pytest.mark.slow
@pytest.mark.parametrize(("number", "workers"), [(signal.SIGTERM, 1), (signal.SIGINT, 1)])
def test_a_signal_saves_and_exits_with_130_and_the_run_goes_on(
    number: signal.Signals, workers: int, order_set: Path, tmp_path: Path, ssan: Any
) -> None:
    out = tmp_path / "run"
    words = [
        "train", "--model", "ssan_tiny", "--data", str(order_set), "--out", str(out), "--workers", str(workers),
        "--json", "--quiet", "crop_px=32", "num_frames=3", "batch=4", "epochs=5",
    ]  # fmt: skip
    process = ForkedCommand(
        [sys.executable, "-m", "ssan", *words], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"}, start_new_session=True,
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while not (out / "metrics.csv").exists():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline, "no epoch in two minutes"
        time.sleep(0.005)
    # Ctrl-C in a terminal, a scheduler and torchrun mean the whole group.
    os.killpg(process.pid, number)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 130, said
    assert said.count("\n") == 1, said
    assert "--resume" in said
    done = len(read_journal(out / "journal.jsonl", "epoch"))
    assert 1 <= done < 5
    resumed = ssan(*words, "--resume")
    assert resumed.code == 0, resumed.err
    assert resumed.json["resumed_from_step"] >= done * 7
    assert resumed.json["steps"] == 5 * 7


@pytest.mark.slow
@pytest.mark.parametrize("spot", ["training_step", "on_train_batch_end", "validation_step", "on_train_epoch_start"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_heard_wherever_it_comes_and_the_handlers_are_given_back(
    number: signal.Signals,
    spot: str,
    order_set: Path,
    tmp_path: Path,
    finished: tuple[Path, dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from ssan.training.callbacks import InterruptedRun
    from ssan.training.fit import TrainingModule

    original, sent = getattr(TrainingModule, spot), []

    def tells(self: TrainingModule, *arguments: Any) -> Any:
        if not sent and self.trainer.global_step >= 3:
            sent.append(self.trainer.global_step)
            os.kill(os.getpid(), number)
        return original(self, *arguments)

    before = [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)]
    monkeypatch.setattr(TrainingModule, spot, tells)
    with pytest.raises(InterruptedRun):
        train(small(), DataSource(str(order_set)), tmp_path / "run", quiet=True)
    assert [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)] == before
    answer = train(small(), DataSource(str(order_set)), tmp_path / "run", resume=True, quiet=True)
    assert sent[0] <= answer["resumed_from_step"] <= sent[0] + 1
    assert_same_weights(tmp_path / "run", finished[0])


def test_a_folder_that_holds_a_run_is_not_overwritten(order_set: Path, finished: tuple[Path, dict[str, Any]]) -> None:
    with pytest.raises(UsageError, match="--resume"):
        train(small(), DataSource(str(order_set)), finished[0], quiet=True)


def test_resuming_with_another_recipe_is_refused_and_the_difference_shown(
    order_set: Path, finished: tuple[Path, dict[str, Any]]
) -> None:
    with pytest.raises(UsageError, match=r"lr 0\.003 is now 0\.01"):
        train(small(lr=0.01), DataSource(str(order_set)), finished[0], resume=True, quiet=True)


@pytest.mark.slow
def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_step(
    order_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cross_entropy = torch.nn.functional.cross_entropy
    calls = []

    def broken(scores: torch.Tensor, labels: torch.Tensor, **options: Any) -> torch.Tensor:
        if scores.requires_grad:
            calls.append(1)
        loss = cross_entropy(scores, labels, **options)
        return loss * float("nan") if len(calls) == 6 else loss

    monkeypatch.setattr(train_module.F, "cross_entropy", broken)
    with pytest.raises(
        TrainingError, match=r"nan at step 5 \(epoch 2, batch 2\), first not finite in the loss itself"
    ) as caught:
        train(small(), DataSource(str(order_set)), tmp_path / "run", quiet=True)
    assert caught.value.code == "nan"
    assert load_labeller(tmp_path / "run").classes


@pytest.mark.parametrize("layer", ["backbone.layer2.0.conv2", "backbone.layer1.0.after_conv1.temporal", "fc"])
def test_the_layer_in_which_a_number_was_lost_is_named(layer: str) -> None:
    from ssan.training.fit import first_not_finite

    model, clips = build("ssan_tiny", 3).eval(), torch.randint(0, 256, (2, 3, 3, 32, 32), dtype=torch.uint8)
    assert first_not_finite(model, clips) is None
    with torch.no_grad():
        model.get_submodule(layer).weight.view(-1)[0] = float("nan")
    assert first_not_finite(model, clips) == layer
    assert not any(part._forward_hooks for part in model.modules())


@pytest.mark.parametrize("kind", [tuple, list])
def test_a_number_lost_in_one_of_several_outputs_is_found(kind: type) -> None:
    from ssan.training.fit import first_not_finite

    class Split(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> Any:
            return kind([x.long(), x, x / 0])

    network = torch.nn.Sequential(torch.nn.Linear(2, 2), Split())
    assert first_not_finite(network, torch.ones(1, 2)) == "1"


@pytest.mark.slow
def test_a_bad_video_is_refused_by_name_or_skipped_and_counted(order_set: Path, tmp_path: Path) -> None:
    import shutil

    data = tmp_path / "data"
    shutil.copytree(order_set, data)
    victim = sorted((data / "20bn-something-something-v2").iterdir())[0]
    victim.write_bytes(b"")
    with pytest.raises(UsageError, match=victim.name) as caught:
        train(small(epochs=1), DataSource(str(data)), tmp_path / "refused", quiet=True)
    assert caught.value.code == "empty"
    answer = train(small(epochs=1), DataSource(str(data)), tmp_path / "run", skip_bad=True, quiet=True)
    assert answer["num_skipped"] == 1
    assert answer["num_train"] + answer["num_val"] == 28 + 6 - 1
    assert victim.name in (tmp_path / "run" / "skipped.csv").read_text()


def test_a_video_that_breaks_while_training_is_named(
    order_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ssan.video import preprocess

    def breaks(path: str, *rest: Any, **options: Any) -> Any:
        raise VideoError("the disk has gone", code="decode_error", path=path)

    monkeypatch.setattr(preprocess, "read_chosen", breaks)
    with pytest.raises(VideoError, match=r"\.webm: the disk has gone"):
        train(small(epochs=1), DataSource(str(order_set)), tmp_path / "run", quiet=True)


@pytest.mark.slow
def test_a_run_stopped_by_a_video_is_saved_at_that_step_and_goes_on_once_it_is_back(
    order_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ssan.video.preprocess import Preprocess

    recipe, original = small(model="tsn_tiny"), Preprocess.training_clip
    train(recipe, DataSource(str(order_set)), tmp_path / "whole", quiet=True)
    read = 0

    def breaks(self: Preprocess, path: str, *rest: Any) -> Any:
        nonlocal read
        read += 1
        if read == 28 + 7 + 7 + 3:  # in the third batch of the second epoch, where nothing was saved since the first
            raise VideoError("it has gone", code="missing", path=path)
        return original(self, path, *rest)

    monkeypatch.setattr(Preprocess, "training_clip", breaks)
    with pytest.raises(VideoError, match=r"\.webm: it has gone; the run is saved: go on with --resume") as caught:
        train(recipe, DataSource(str(order_set)), tmp_path / "run", quiet=True)
    (failed,) = read_journal(tmp_path / "run" / "journal.jsonl", "failed")
    assert failed["code"] == "missing"
    assert str(caught.value.path) in failed["message"]
    answer = train(recipe, DataSource(str(order_set)), tmp_path / "run", resume=True, quiet=True)
    assert answer["resumed_from_step"] == 6
    assert_same_weights(tmp_path / "whole", tmp_path / "run")


@pytest.mark.slow
@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory: you tried ..."),
        MemoryError("Unable to allocate 3.00 GiB"),
    ],
)
def test_too_little_memory_is_one_line_with_what_helps(
    error: Exception, order_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ssan: Any
) -> None:
    def fails(*rest: Any) -> Any:
        raise error

    monkeypatch.setattr(TrainingModule, "training_step", fails)
    answer = ssan(
        "train", "--model", "tsn_tiny", "--data", order_set, "--out", tmp_path / "run", "--quiet", "--workers", 0,
        "crop_px=32", "num_frames=2",
    )  # fmt: skip
    assert answer.code == 2
    assert answer.err.count("\n") == 1
    for word in ("out of memory", "lower batch", "accumulate", "checkpoint_gradients=true", "num_frames"):
        assert word in answer.err


@pytest.mark.slow
def test_data_are_a_path_a_source_or_two_lists(order_set: Path, tmp_path: Path) -> None:
    recipe = small(model="tsn_tiny", epochs=1)
    lists = tuple(read("auto", order_set, split) for split in ("train", "val"))
    for name, data in [
        ("path", order_set),
        ("text", str(order_set)),
        ("source", DataSource(str(order_set))),
        ("lists", lists),
    ]:
        train(recipe, data, tmp_path / name, quiet=True)  # type: ignore[arg-type]
        assert_same_weights(tmp_path / "path", tmp_path / name)
    train(recipe, lists, tmp_path / "lists", quiet=True, resume=True)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="the data are a list; expected a path, DataSource"):
        train(recipe, list(lists), tmp_path / "none", quiet=True)  # type: ignore[arg-type]
    other = Samples(lists[1], lists[1].classes[::-1], "other")
    with pytest.raises(UsageError, match="have other classes"):
        train(recipe, (lists[0], other), tmp_path / "none", quiet=True)


def test_attention_starts_as_the_identity_only_where_there_are_weights_to_protect() -> None:
    assert complete(make_recipe({"model": "ssan_tiny"})).layer == {"identity_start": False}
    assert complete(make_recipe({"model": "ssan_tiny", "init": "x.pth"})).layer == {"identity_start": True}
    for model in ("nl3d_tiny", "nl2d1d_tiny", "a2_tiny"):
        assert complete(make_recipe({"model": model, "init": "x.pth"})).layer == {"identity_start": True}
    for model in ("tsn_tiny", "tsm_tiny", "trn_tiny"):
        assert complete(make_recipe({"model": model, "init": "x.pth"})).layer == {}
    chosen = {"model": "ssan_tiny", "init": "x.pth", "layer": {"identity_start": False}}
    assert complete(make_recipe(chosen)).layer == {"identity_start": False}
    assert complete(make_recipe({"model": "tsn_tiny"})).layer == {}


def test_sizes_come_from_the_model_unless_the_recipe_says_them() -> None:
    recipe = complete(make_recipe({"model": "ssan_r50"}))
    assert (recipe.crop_px, recipe.size_px) == (224, 256)
    recipe = complete(make_recipe({"model": "ssan_r50", "crop_px": 112}))
    assert (recipe.crop_px, recipe.size_px) == (112, 128)
    with pytest.raises(UsageError, match="smaller than crop_px"):
        complete(make_recipe({"model": "ssan_r50", "size_px": 200}))


@pytest.mark.slow
def test_frozen_batch_norm_keeps_its_statistics_and_the_backbones_weights(order_set: Path, tmp_path: Path) -> None:
    train(small(freeze_bn=True, epochs=1), DataSource(str(order_set)), tmp_path / "run", quiet=True)
    after = weights(tmp_path / "run")
    for name, tensor in after.items():
        if name.endswith("running_mean"):
            assert torch.equal(tensor, torch.zeros_like(tensor)), name
    assert torch.equal(after["module.backbone.bn1.weight"], torch.ones(16))
    assert not torch.equal(after["module.backbone.layer1.0.after_conv1.norm.weight"], torch.ones(16))


def test_frozen_norms_are_all_of_them_and_only_the_backbones_stop_learning() -> None:
    model = build("ssan_tiny", 3)
    frozen = freeze_batch_norm(model)
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    assert {id(module) for module in frozen} == {id(module) for module in norms}
    trained = {name for name, p in model.named_parameters() if p.requires_grad and ".norm." in name}
    assert trained == {f"backbone.layer{n}.0.after_conv1.norm.{kind}" for n in (1, 2) for kind in ("weight", "bias")}


def test_new_parameters_are_the_classifiers_the_consensuss_and_the_slots() -> None:
    for name, new in [("trn_tiny", ("fc.", "consensus.")), ("ssan_mobilenet_v2", ("fc.", "after_projection."))]:
        model = build(name, 3)
        expected = {key for key, _ in model.named_parameters() if any(f".{part}" in f".{key}" for part in new)}
        assert new_parameters(model) == expected
        assert 0 < len(expected) < len(list(model.parameters()))


@pytest.mark.slow
def test_relations_are_built_for_the_recipes_frames_and_drawn_alike_after_an_interruption(
    order_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = small(model="trn_tiny", epochs=1, num_frames=5, checkpoint_every_steps=1)
    assert_resumes_in_mid_epoch(recipe, order_set, tmp_path, monkeypatch)
    labeller = load_labeller(tmp_path / "run")
    assert labeller.model.consensus.num_frames == labeller.preprocess.num_frames == 5
    with pytest.raises(UsageError, match="num_frames is 1; a relation needs 2"):
        train(small(model="trn_tiny", num_frames=1), DataSource(str(order_set)), tmp_path / "one", quiet=True)


@pytest.mark.slow
def test_a_backbone_share_of_zero_trains_the_new_layers_alone(order_set: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    recipe = small(backbone_lr_scale=0.0, epochs=1)
    train(recipe, DataSource(str(order_set)), tmp_path / "run", quiet=True)
    torch.manual_seed(recipe.seed)
    start = build("ssan_tiny", 4, layer_options={"identity_start": False}).state_dict()
    after = weights(tmp_path / "run")
    assert torch.equal(after["module.backbone.conv1.weight"], start["backbone.conv1.weight"])
    assert not torch.equal(after["module.fc.weight"], start["fc.weight"])


def test_a_backbone_share_of_zero_is_frozen_before_processes_agree_on_gradients(
    order_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Reached(BaseException):
        pass

    def fit(task: Any, *rest: Any, **named: Any) -> None:
        learns = {name for name, parameter in task.module.named_parameters() if parameter.requires_grad}
        assert learns == new_parameters(task.module)
        raise Reached

    monkeypatch.setattr(train_module, "fit", fit)
    with pytest.raises(Reached):
        train(small(backbone_lr_scale=0.0), DataSource(str(order_set)), tmp_path / "run", quiet=True)


def test_a_step_of_fewer_batches_has_the_mean_gradient_of_what_there_is(tmp_path: Path) -> None:
    """Items 1 to 5 in batches of one, four a step: the first step has 2.5 for its gradient, the last one 5."""

    class Item(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(()))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.weight * x

    def batches(split: str, rank: int, world: int) -> Batches:
        def collate(draws: list[tuple[int, int]]) -> tuple[torch.Tensor, torch.Tensor]:
            return torch.tensor([float(index + 1) for _, index in draws]), torch.zeros(len(draws))

        return Batches(Same(), BatchPlan(5, 1), collate=collate)

    class Same(torch.utils.data.Dataset[Any]):
        def __getitem__(self, draw: Any) -> Any:
            return draw

    seen = []

    class Sgd(torch.optim.SGD):
        def step(self, closure: Any = None) -> Any:
            out = super().step(closure)
            seen.append(self.param_groups[0]["params"][0].grad.item())
            return out

    task = Task(
        module=Item(),
        batches=batches,
        loss=lambda out, _: out.mean(),
        measure=lambda out, _: {"loss": out},
        optimizer=lambda module, rate: Sgd([{"params": list(module.parameters()), "lr": rate, "lr_scale": 1.0}]),
        rate=lambda steps: LearningRate(0.1, "constant", steps, 1, warmup_epochs=0),
        keep=lambda *rest: None,
        monitor=None,
    )
    fit(task, tmp_path, OptimisationKeys(epochs=1, accumulate=4), quiet=True)
    assert seen == pytest.approx([2.5, 5.0])


@pytest.mark.parametrize(("sizes", "accumulate"), [((7, 3, 1), 2), ((28, 4, 2), 3), ((29, 4, 2), 64), ((9, 1, 3), 2)])
def test_each_item_of_a_step_counts_alike_on_every_process(sizes: tuple[int, int, int], accumulate: int) -> None:
    num, batch, world = sizes
    plans = [BatchPlan(num, batch, rank=rank, world=world) for rank in range(world)]
    weights = [step_weights(plan, accumulate) for plan in plans]
    shares = [[len(draws) for draws in plan] for plan in plans]
    for first in range(0, len(plans[0]), accumulate):
        positions = range(first, min(first + accumulate, len(plans[0])))
        of_a_step = sum(shares[rank][n] for rank in range(world) for n in positions)
        for rank in range(world):
            for n in positions:
                # The mean of a batch, averaged over processes, summed and divided by `accumulate`.
                assert weights[rank][n] / shares[rank][n] / world / accumulate == pytest.approx(1 / of_a_step)


@pytest.mark.slow
def test_the_effective_batch_is_no_larger_than_an_epoch_and_that_is_said(
    order_set: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    recipe = small(model="tsn_tiny", accumulate=64, epochs=1, lr_rule="linear", lr_reference_batch=17, lr=0.001)
    train(recipe, DataSource(str(order_set)), tmp_path / "run")
    (start,) = read_journal(tmp_path / "run" / "journal.jsonl", "start")
    assert (start["effective_batch"], start["lr"]) == (28, pytest.approx(0.001 * 28 / 17))
    assert "accumulate is 512, and an epoch has 28 videos" in capfd.readouterr().err


@pytest.mark.slow
def test_half_precision_on_a_cpu_is_called_what_it_is(
    order_set: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for name, precision in [("half", "16"), ("bf16", "bf16")]:
        recipe = small(model="tsn_tiny", precision=precision, epochs=1)
        train(recipe, DataSource(str(order_set)), tmp_path / name)
        (start,) = read_journal(tmp_path / name / "journal.jsonl", "start")
        assert start["environment"]["precision"] == "bf16"
        assert ("this run computes in bf16" in capfd.readouterr().err) == (precision == "16")
    assert_same_weights(tmp_path / "half", tmp_path / "bf16")


@pytest.mark.slow
def test_accumulated_batches_make_the_same_number_of_steps_as_larger_ones(order_set: Path, tmp_path: Path) -> None:
    answer = train(small(batch=4, accumulate=2, epochs=1), DataSource(str(order_set)), tmp_path / "run", quiet=True)
    (start,) = read_journal(tmp_path / "run" / "journal.jsonl", "start")
    assert start["effective_batch"] == 8
    assert answer["steps"] == 4


@pytest.mark.slow
def test_mixed_precision_clipping_and_sgd_train_too(order_set: Path, tmp_path: Path) -> None:
    recipe = small(precision="bf16", clip_norm=0.5, optimizer="sgd", lr=0.01, schedule="cosine", epochs=1)
    train(recipe, DataSource(str(order_set)), tmp_path / "run", quiet=True)
    train(
        small(optimizer="sgd", lr=0.01, schedule="cosine", epochs=1),
        DataSource(str(order_set)),
        tmp_path / "full",
        quiet=True,
    )
    (half,), (full,) = (read_journal(tmp_path / name / "journal.jsonl", "epoch") for name in ("run", "full"))
    assert half["train_loss"] == pytest.approx(full["train_loss"], rel=0.05)
    assert half["train_loss"] != full["train_loss"]


def test_environment_variables_of_a_launcher_are_not_set_here() -> None:
    assert "WORLD_SIZE" not in os.environ, "the tests above train with one process"
