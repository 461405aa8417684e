"""That a new layer takes part: what is frozen, its norms' rates, rare classes, and what is said at the end."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.training_runs import as_torchrun_says
from torch import Tensor, nn
from torch.utils.data import Dataset

import ssan
from ssan.datasets.clips import TestClips
from ssan.datasets.source import DataSource
from ssan.errors import UsageError
from ssan.models.catalogue import build
from ssan.processes import processes
from ssan.recipe import OptimisationKeys, Recipe, make_recipe
from ssan.recognition import train as train_module
from ssan.recognition.evaluate import Protocol, evaluate, reversal
from ssan.recognition.train import balanced_weights, complete, knows_order, train, weighted_loss
from ssan.recognition.trainable import freeze_batch_norm, freeze_stages, new_norm_weights
from ssan.training.batches import Batches, BatchPlan, Draw, DrawAgain
from ssan.training.fit import AtFirst, Task, fit
from ssan.training.journal import read_journal
from ssan.training.optim import LearningRate
from ssan.weights.classifier_file import build_from, load_labeller, preprocess_of
from ssan.weights.labeller import Labeller

SMALL = {
    "model": "ssan_tiny", "crop_px": 32, "size_px": 36, "epochs": 1, "batch": 8, "num_frames": 3, "lr": 0.01,
    "optimizer": "adamw", "lr_rule": "none", "crop": "random", "dropout": 0.0, "schedule": "constant",
}  # fmt: skip
LAYERS_OF_TINY = ("backbone.layer1.0.after_conv1.", "backbone.layer2.0.after_conv1.")


def small(**changes: Any) -> Recipe:
    return make_recipe({**SMALL, **changes})


def weights(folder: Path) -> dict[str, Tensor]:
    state = torch.load(folder / "last" / "state.ckpt", weights_only=True)["state_dict"]
    return {name.removeprefix("module."): tensor for name, tensor in state.items()}


class Reached(BaseException):
    """Stands where training would begin."""


def task_of(recipe: Recipe, data: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> Task:
    """What a recipe asks the loop for."""
    found = []

    def fit(task: Task, *rest: Any, **named: Any) -> None:
        found.append(task)
        raise Reached

    monkeypatch.setattr(train_module, "fit", fit)
    with pytest.raises(Reached):
        train(recipe, DataSource(str(data)), out, quiet=True)
    return found[0]


# ------------------------------------------------------------------------------------------------- what is frozen


def test_of_the_backbone_alone_means_that_the_norms_of_new_layers_train_as_ever() -> None:
    model = build("ssan_tiny", 3)
    frozen = freeze_batch_norm(model, of_new_layers=False)
    names = {id(module): name for name, module in model.named_modules()}
    assert frozen
    assert not [name for module in frozen if (name := names[id(module)] + ".").startswith(LAYERS_OF_TINY)]
    others = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d) and module not in frozen]
    assert {names[id(module)] for module in others} == {f"{prefix}norm" for prefix in LAYERS_OF_TINY}
    assert all(parameter.requires_grad for module in others for parameter in module.parameters())
    assert not any(parameter.requires_grad for module in frozen for parameter in module.parameters())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "num", "frozen", "trained"),
    [
        ("ssan_tiny", 1, ("conv1.", "bn1.", "layer1."), ("layer2.", "layer3.")),
        ("tsn_tiny", 3, ("conv1.", "bn1.", "layer1.", "layer2.", "layer3."), ()),
        (
            "ssan_mobilenet_v2", 2, tuple(f"features.{n}." for n in range(4)),
            tuple(f"features.{n}." for n in range(4, 19)),
        ),
    ],
)  # fmt: skip
def test_frozen_stages_are_the_first_ones_and_what_is_before_them(
    name: str, num: int, frozen: tuple[str, ...], trained: tuple[str, ...]
) -> None:
    model = build(name, 3)
    resting = freeze_stages(model, num)
    new = ("after_conv1", "after_projection")
    for key, parameter in model.backbone.named_parameters():
        assert key.startswith((*frozen, *trained))
        is_new = any(part in new for part in key.split("."))
        assert parameter.requires_grad == (is_new or key.startswith(trained)), key
    names = {id(module): key for key, module in model.backbone.named_modules()}
    expected = {
        key for key, module in model.backbone.named_modules()
        if isinstance(module, nn.BatchNorm2d) and f"{key}.".startswith(frozen) and not set(key.split(".")) & set(new)
    }  # fmt: skip
    assert {names[id(module)] for module in resting} == expected
    assert expected


def test_stages_that_are_not_there_are_refused() -> None:
    with pytest.raises(UsageError, match="frozen_stages is 4, but the backbone has 3: res2, res3, res4"):
        freeze_stages(build("tsn_tiny", 3), 4)
    model = build("tsn_tiny", 3)
    del model.backbone.stages
    with pytest.raises(UsageError, match="a ResNet does not say which blocks its stages are made of"):
        freeze_stages(model, 1)


@pytest.mark.slow
def test_a_run_with_frozen_norms_and_stages_leaves_these_as_they_were_and_trains_the_layers(
    order_set: Path, tmp_path: Path
) -> None:
    recipe = small(freeze_bn="backbone", frozen_stages=1)
    train(recipe, DataSource(str(order_set)), tmp_path / "run", quiet=True)
    torch.manual_seed(recipe.seed)
    before, after = build_from(complete(recipe), 4).state_dict(), weights(tmp_path / "run")
    layers = {name for name in after if name.startswith(LAYERS_OF_TINY)}
    norms = {name.rpartition(".")[0] for name in after if name.endswith("running_mean")}
    for name, tensor in after.items():
        of_norm = name.rpartition(".")[0] in norms
        stays = name not in layers and (
            of_norm or name.startswith("backbone.layer1.") or name == "backbone.conv1.weight"
        )
        # An embedding without which the softmax answers the same (phi's bias) need not move.
        assert torch.equal(tensor, before[name]) == stays or name.endswith("phi.bias"), name
    assert {after[f"{prefix}norm.num_batches_tracked"].item() for prefix in LAYERS_OF_TINY} == {4}


class _Items(Dataset[Any]):
    def __getitem__(self, draw: Any) -> Any:
        return torch.zeros(()), 0


class _TwoWeights(nn.Module):
    """A loss that falls by 1000 for each unit of one weight, and by 3 for one of the other."""

    def __init__(self) -> None:
        super().__init__()
        self.steep, self.flat = nn.Parameter(torch.zeros(())), nn.Parameter(torch.zeros(()))
        self.norm = nn.BatchNorm1d(2)

    def forward(self, x: Tensor) -> Tensor:
        self.norm(torch.tensor([[1.0, 2.0], [3.0, 5.0]]))
        return -1000 * self.steep - 3 * self.flat + 0 * x


@pytest.mark.slow
def test_what_waits_gets_no_step_no_statistics_and_no_share_of_the_clipped_norm(tmp_path: Path) -> None:
    """With lr 0.1 and a norm of 1: 0.1 a step for the weight alone; with both, 1000 and 3 over their norm."""
    module, seen = _TwoWeights(), []

    def keep(module: nn.Module, measures: dict[str, float]) -> None:
        seen.append((module.steep.item(), module.flat.item(), int(module.norm.num_batches_tracked)))  # type: ignore[arg-type, operator]

    task = Task(
        module=module,
        batches=lambda split, rank, world: Batches(_Items(), BatchPlan(2, 1)),
        loss=lambda out, _: out.mean(),
        measure=lambda out, _: {"loss": out},
        optimizer=lambda module, rate: torch.optim.SGD(
            [{"params": list(module.parameters()), "lr": rate, "lr_scale": 1.0, "weight_decay": 0.0}]
        ),
        rate=lambda steps: LearningRate(0.1, "constant", steps, 3, warmup_epochs=0),
        keep=keep,
        monitor=None,
        at_first=AtFirst(2, [module.steep], [module.norm]),
    )
    fit(task, tmp_path, OptimisationKeys(epochs=3, clip_norm=1.0), quiet=True)
    assert [steep for steep, _, _ in seen] == pytest.approx([0, 0, 0.2], abs=1e-5)
    assert [flat for _, flat, _ in seen] == pytest.approx([0.2, 0.4, 0.4 + 2 * 0.1 * 3 / math.hypot(1000, 3)])
    assert [tracked for _, _, tracked in seen] == [0, 0, 2]


@pytest.mark.slow
def test_the_backbone_waits_whole_and_new_layers_do_not(
    order_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = task_of(small(frozen_epochs=3), order_set, tmp_path / "run", monkeypatch)
    assert task.at_first is not None
    assert task.at_first.epochs == 3
    names = {id(parameter): name for name, parameter in task.module.named_parameters()}
    waiting = {names[id(parameter)] for parameter in task.at_first.parameters}
    assert waiting == {name for name in names.values() if not name.startswith((*LAYERS_OF_TINY, "fc."))}
    of_layers = {f"{prefix}norm" for prefix in LAYERS_OF_TINY}
    resting = {name for name, module in task.module.named_modules() if module in task.at_first.modules}
    norms = {name for name, module in task.module.named_modules() if isinstance(module, nn.BatchNorm2d)}
    assert resting == norms - of_layers
    assert not task.frozen


# ----------------------------------------------------------------------------------------- the norms of new layers


def test_the_norms_of_new_layers_have_a_rate_and_a_decay_of_their_own(
    order_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = small(new_norm_lr_scale=7, new_norm_weight_decay=0, backbone_lr_scale=0.5, weight_decay=0.01)
    task = task_of(recipe, order_set, tmp_path / "run", monkeypatch)
    names = {id(parameter): name for name, parameter in task.module.named_parameters()}
    found = {
        (group["lr_scale"], group["weight_decay"]): {names[id(parameter)] for parameter in group["params"]}
        for group in task.optimizer(task.module, 0.1).param_groups
    }
    assert set(found) == {(0.5, 0.01), (1.0, 0.01), (7.0, 0.0)}
    assert found[7.0, 0.0] == {f"{prefix}norm.weight" for prefix in LAYERS_OF_TINY}
    assert {f"{prefix}norm.bias" for prefix in LAYERS_OF_TINY} <= found[1.0, 0.01]
    assert not [name for name in found[0.5, 0.01] if name.startswith((*LAYERS_OF_TINY, "fc."))]
    assert new_norm_weights(build("nl2d1d_tiny", 3)) == {
        f"{prefix}{half}.norm.weight" for prefix in LAYERS_OF_TINY for half in ("space", "time")
    }
    assert new_norm_weights(build("tsm_tiny", 3)) == set()


def test_a_share_of_the_layer_at_first_is_the_recipes_to_say() -> None:
    for init in (None, "x.pth"):
        recipe = complete(make_recipe({"model": "ssan_tiny", "init": init, "layer": {"start": 0.2}}))
        assert recipe.layer == {"start": 0.2}
        norm = build_from(recipe, 3).state_dict()["backbone.layer1.0.after_conv1.norm.weight"]
        assert torch.equal(norm, torch.full_like(norm, 0.2))


# ------------------------------------------------------------------------------------------------- rare classes


def test_balanced_weights_by_hand() -> None:
    assert balanced_weights([0, 3, 0, 0]) == pytest.approx({0: 4 / (2 * 3), 3: 4 / (2 * 1)})
    assert balanced_weights([1, 2, 0, 0, 1, 2]) == pytest.approx({0: 1, 1: 1, 2: 1})
    of_each = [0] * 7 + [1] * 3 + [4] * 2
    weight = balanced_weights(of_each)
    assert sum(weight[label] for label in of_each) / len(of_each) == pytest.approx(1)


def test_a_weighted_loss_is_the_mean_of_what_each_video_counts() -> None:
    scores, labels = torch.randn(5, 4, dtype=torch.float64), torch.tensor([0, 3, 3, 0, 1])
    loss = weighted_loss({0: 0.5, 1: 2.0, 3: 1.25})
    by_hand = 0.0
    for row, label in zip(scores.tolist(), labels.tolist(), strict=True):
        nll = math.log(sum(math.exp(score) for score in row)) - row[label]
        by_hand += {0: 0.5, 1: 2.0, 3: 1.25}[label] * nll / 5
    assert loss(scores, labels).item() == pytest.approx(by_hand)
    parts = [loss(scores[:2], labels[:2]), loss(scores[2:], labels[2:])]
    assert (2 * parts[0] + 3 * parts[1]).item() / 5 == pytest.approx(by_hand)


@pytest.mark.slow
def test_the_recipe_reaches_the_loss_and_the_draws(
    order_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weighted = task_of(small(class_weights="balanced"), order_set, tmp_path / "weighted", monkeypatch)
    train_list = DataSource(str(order_set)).read("train")
    of_each = [sample.label_index for sample in train_list]
    scores, labels = torch.randn(28, 4), torch.tensor(of_each)
    counts = torch.bincount(labels, minlength=4)
    expected = nn.functional.cross_entropy(scores, labels, weight=28 / (4 * counts))  # over all, torch's mean is ours
    assert weighted.loss(scores, labels).item() == pytest.approx(expected.item(), rel=1e-6)
    assert weighted.measure(scores, labels)["loss"].mean().item() == pytest.approx(
        nn.functional.cross_entropy(scores, labels).item(), rel=1e-6
    )
    assert weighted.batches("train", 0, 1).plan._of_class is None
    even = task_of(small(balance="classes"), order_set, tmp_path / "even", monkeypatch)
    assert even.loss is nn.functional.cross_entropy
    drawn = [draw.item for batch in even.batches("train", 0, 1).plan for draw in batch]
    assert torch.bincount(labels[drawn], minlength=4).tolist() == [7, 7, 7, 7]
    assert [len(batch) for batch in even.batches("val", 0, 1).plan] == [6]
    clips = even.batches("train", 0, 1).dataset
    seen = [clips[draw][0] for draw in (Draw(2, 5), DrawAgain(2, 5, 1), DrawAgain(2, 5, 2), DrawAgain(2, 5, 1))]
    assert not torch.equal(seen[0], seen[1])
    assert not torch.equal(seen[1], seen[2])
    assert torch.equal(seen[1], seen[3])


# ------------------------------------------------------------------------------------- the order of frames, at the end


def labeller_of(data: Path, name: str) -> Labeller:
    recipe = complete(small(model=name))
    torch.manual_seed(5)
    model = build_from(recipe, 4).eval()
    samples = DataSource(str(data)).read("all")
    clips = torch.cat([TestClips(samples, preprocess_of(recipe))[0, index][0] for index in range(10)])  # type: ignore[index]
    with torch.no_grad():  # two classes, on both sides of the middle of what reversal changes most
        seen = torch.stack([model.features(clips), model.features(clips.flip(1))])
        towards = (seen[0] - seen[1]).norm(dim=1).argmax()
        direction = seen[0, towards] - seen[1, towards] if name != "tsn_tiny" else seen[0, 0]
        model.fc.weight[:2] = torch.stack([direction, -direction])
        model.fc.bias[:2] = -(model.fc.weight @ seen.mean(dim=(0, 1)))[:2]
    return Labeller(model, samples.classes, preprocess_of(recipe), recipe, {}, "")


@pytest.mark.slow
def test_reversal_is_what_the_network_says_of_the_same_frames_backwards(order_set: Path) -> None:
    labeller, samples = labeller_of(order_set, "tsm_tiny"), DataSource(str(order_set)).read("all")
    clips, right, same, backwards = TestClips(samples, labeller.preprocess), 0, 0, 0
    with torch.no_grad():
        for index, sample in enumerate(samples):
            views, _ = clips[0, index]  # type: ignore[misc]
            forth, back = (labeller.model(seen).argmax().item() for seen in (views, views.flip(1)))
            right, backwards = right + (forth == sample.label_index), backwards + (back == sample.label_index)
            same += forth == back
    found = reversal(labeller, samples, quiet=True)
    assert found is not None
    assert 0 < same < 40
    assert (found.num, found.num_listed) == (40, 40)
    assert (found.same_prediction, found.top1, found.reversed_top1) == (same / 40, right / 40, backwards / 40)
    blind = reversal(labeller_of(order_set, "tsn_tiny"), samples, quiet=True)
    assert blind is not None
    assert blind.same_prediction == 1


@pytest.mark.slow
def test_of_many_videos_some_are_drawn_by_the_seed(order_set: Path) -> None:
    labeller, samples = labeller_of(order_set, "tsm_tiny"), DataSource(str(order_set)).read("all")
    found = [reversal(labeller, samples, most=9, seed=seed, quiet=True) for seed in (1, 1, 2, 3, 4)]
    assert found[0] is not None
    assert (found[0].num, found[0].num_listed) == (9, 40)
    assert found[0] == found[1]
    assert len(set(map(str, found))) > 1


@pytest.mark.slow
def test_which_networks_know_the_order_of_frames() -> None:
    told = {
        name: knows_order(build_from(complete(small(model=name)), 3), complete(small(model=name)))
        for name in ("tsn_tiny", "nl3d_tiny", "a2_tiny", "ssan_tiny", "tsm_tiny", "trn_tiny")
    }
    assert [name for name, knows in told.items() if knows] == ["ssan_tiny", "tsm_tiny", "trn_tiny"]
    blind = complete(small(layer={"temporal_kernel": 1}))
    assert not knows_order(build_from(blind, 3), blind)
    assert not knows_order(build("ssan_tiny", 3), complete(small(num_frames=1)))
    own = small().model_copy(update={"model": "own"})
    for layer, options, knows in [
        ("ssa", {}, True), ("ssa", {"temporal_kernel": 1}, False), ("nonlocal", {}, False),
        ("temporal_shift", {}, True),
    ]:  # fmt: skip
        assert knows_order(own_network(layer, **options), own) == knows
    assert not knows_order(ssan.video_classifier(images(), 4), own)


def images() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 8, 5, 4), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(2))


def own_network(layer: str = "ssa", **options: Any) -> Any:
    return ssan.video_classifier(ssan.attach(images(), "0", layer, **options), 4, dropout=0.0)


@pytest.mark.slow
def test_a_training_ends_with_what_reversed_frames_changed(
    order_set: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    data, out = DataSource(str(order_set)), tmp_path / "run"
    answer = train(small(), data, out)
    said = capsys.readouterr().err
    val = data.read("val")
    probe = evaluate(load_labeller(out), val, Protocol(), split="val", probe=True, quiet=True)["probe"]
    assert answer["reversed_same_prediction"] == probe["reversed_same_prediction"]
    assert answer["reversed_top1"] == probe["reversed_top1"]
    assert answer["reversed_num"] == len(val) == 6
    (end,) = read_journal(out / "journal.jsonl", "end")
    assert {key: end[key] for key in answer if key.startswith("reversed_")} == {
        key: value for key, value in answer.items() if key.startswith("reversed_")
    }
    changed = round(6 * (1 - probe["reversed_same_prediction"]))
    assert f"run: with their frames reversed, {changed} of 6 validation videos get another answer" in said
    assert ("took no part" in said) == (changed == 0 and answer["reversed_num_answers"] > 1)
    assert ("every one of them is given the same class" in said) == (answer["reversed_num_answers"] == 1)

    # From the identity, at a rate of nothing, the layer is none; of answers of one class nothing could be told.
    idle = small(layer={"identity_start": True}, lr=1e-12, new_norm_lr_scale=1.0)
    ask = train_module.reversal
    monkeypatch.setattr(train_module, "reversal", lambda *a, **b: replace(ask(*a, **b), num_answers=2))
    answer = train(idle, data, tmp_path / "idle", quiet=True)
    assert answer["reversed_same_prediction"] == 1
    said = capsys.readouterr().err
    assert said.startswith("warning: the layer between frames took no part: with their frames reversed, 6 of 6")
    assert "docs/label.md" in said
    monkeypatch.setattr(train_module, "reversal", lambda *a, **b: replace(ask(*a, **b), num_answers=1))
    answer = train(idle, data, tmp_path / "constant", quiet=True)
    assert (answer["reversed_same_prediction"], answer["reversed_num_answers"]) == (1, 1)
    assert "took no part" not in capsys.readouterr().err

    answer = train(small(model="tsn_tiny"), data, tmp_path / "tsn")
    assert [answer[key] for key in ("reversed_same_prediction", "reversed_top1", "reversed_num")] == [None] * 3
    assert "reversed" not in capsys.readouterr().err


@pytest.mark.slow
def test_a_network_of_ones_own_keeps_the_weights_that_it_ended_with(order_set: Path, tmp_path: Path) -> None:
    network = own_network(start=0.5)
    recipe = make_recipe({key: value for key, value in SMALL.items() if key not in ("model", "dropout")}, ["epochs=2"])
    answer = train(recipe, DataSource(str(order_set)), tmp_path / "run", model=network, quiet=True)
    assert answer["reversed_num"] == 6
    state = weights(tmp_path / "run")
    assert all(torch.equal(tensor, state[name]) for name, tensor in network.state_dict().items())


@pytest.mark.slow
def test_of_several_processes_the_first_alone_looks_at_the_order(
    order_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Outcome:
        epochs = steps = best_epoch = seconds = 1
        stopped_early = resumed_from_step = None
        best = {"val_top1": 0.5}  # noqa: RUF012

    asked: list[Any] = []
    monkeypatch.setattr(train_module, "fit", lambda *rest, **named: Outcome)
    monkeypatch.setattr(train_module, "reversal", lambda *rest, **named: asked.append(rest))
    first, second = (processes(variables) for variables in as_torchrun_says())
    for here, num in ((second, 0), (first, 1)):
        monkeypatch.setattr(train_module, "processes", lambda here=here: here)
        monkeypatch.setattr(train_module, "load_labeller", lambda *rest, **named: None)
        (tmp_path / "run").mkdir(exist_ok=True)
        (tmp_path / "run" / "model.safetensors").touch()
        answer = train(small(), DataSource(str(order_set)), tmp_path / "run", quiet=True)
        assert len(asked) == num
        assert answer["reversed_num"] is None


# --------------------------------------------------------------------------------------------------- no split at all


@pytest.mark.slow
def test_where_there_is_no_split_whole_groups_are_drawn_and_the_journal_says_how(
    order_set: Path, tmp_path: Path, ssan: Any
) -> None:
    listed = DataSource(str(order_set)).read("all")
    for number, sample in enumerate(listed):
        place = tmp_path / "videos" / f"class{sample.label_index}" / f"person{number % 5}_{number}.webm"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(sample.path)
    groups = "^(person[0-9])_"
    answer = ssan(
        "train", "--model", "tsn_tiny", "--data", tmp_path / "videos", "--out", tmp_path / "run", "--val-fraction", 0.2,
        "--groups", groups, "--workers", 0, "--json", "crop_px=32", "num_frames=2", "epochs=1",
    )  # fmt: skip
    assert answer.code == 0, answer.err
    assert (answer.json["num_train"], answer.json["num_val"]) == (32, 8)
    (start,) = read_journal(tmp_path / "run" / "journal.jsonl", "start")
    assert start["data"]["options"] == {"val_fraction": "0.2", "groups": groups}
    source = DataSource(**start["data"])
    persons = [{sample.id.split("/")[1].split("_")[0] for sample in source.read(split)} for split in ("train", "val")]
    assert [len(found) for found in persons] == [4, 1]
    assert not persons[0] & persons[1]
    assert "8 of 40 videos are for validation, those of 'person" in answer.err
