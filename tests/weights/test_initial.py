"""What a run starts from: whose weights they are, what of them it takes, and that this is said and recorded."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ssan.errors import ModelError
from ssan.models.catalogue import MODELS, NETWORKS, Network, build, specification
from ssan.recipe import make_recipe
from ssan.recognition.train import complete
from ssan.training.journal import read_journal
from ssan.weights.classifier_file import build_from, save_labeller
from ssan.weights.initial import start_from
from ssan.weights.model_file import write_model_file

KEYS = ["crop_px=32", "size_px=36", "epochs=1", "batch=8", "num_frames=3", "lr=1e-9", "dropout=0"]
Train = Callable[..., Any]


@pytest.fixture(scope="module")
def classes(order_set: Path) -> list[str]:
    labels = json.loads(next(order_set.glob("*labels.json")).read_text())
    return sorted(labels, key=lambda name: int(labels[name]))


@pytest.fixture
def train(ssan: Any, order_set: Path, tmp_path: Path) -> Train:
    """Train for an epoch at a rate of almost nothing, from given weights."""

    def run(init: Path, *changes: str, model: str = "ssan_tiny", resume: bool = False) -> Any:
        return ssan(
            "train", "--model", model, "--init", init, "--data", order_set, "--out", tmp_path / "run", "--json",
            "--device", "cpu", "--workers", 0, *(["--resume"] if resume else []), *KEYS, *changes,
        )  # fmt: skip

    return run


def write_model(path: Path, classes: list[str], model: str = "ssan_tiny", **keys: Any) -> Path:
    """A model file whose weights are told from any random start."""
    recipe = complete(make_recipe({"model": model, "crop_px": 32, "size_px": 36, "num_frames": 3, **keys}))
    network = build_from(recipe, len(classes))
    with torch.no_grad():
        network.fc.weight.copy_(torch.arange(1.0, network.fc.weight.numel() + 1).view_as(network.fc.weight) / 1e4)
    save_labeller(path, network, classes, recipe, {})
    return path


def warnings_of(said: str) -> list[str]:
    """What is warned of before the training; at its end a small one may be told that its layer took no part."""
    return [line for line in said.splitlines() if line.startswith("warning: ") and "took no part" not in line]


def classifier(out: Path) -> torch.Tensor:
    return load_file(out / "model.safetensors")["fc.weight"]


@pytest.mark.slow
def test_a_runs_folder_stands_for_its_model_and_its_classes_are_found_by_name(
    train: Train, classes: list[str], tmp_path: Path
) -> None:
    folder = tmp_path / "earlier"
    write_model(folder / "model.safetensors", classes[::-1])
    answer = train(folder)
    assert answer.code == 0, answer.err
    taken = answer.json["weights"]
    assert (taken["missing"], taken["unexpected"], taken["lost"]) == ([], [], [])
    assert (taken["classes_taken"], taken["num_classes"]) == (4, 4)
    there = load_file(folder / "model.safetensors")["fc.weight"]
    assert torch.allclose(classifier(tmp_path / "run"), there.flip(0), atol=1e-5)
    assert "the classifier starts with 4 of 4 classes, by their names" in answer.err
    assert not warnings_of(answer.err)
    (start,) = read_journal(tmp_path / "run" / "journal.jsonl", "start")
    assert start["weights"] == taken


@pytest.mark.slow
def test_the_classifier_of_other_classes_is_not_taken_and_that_is_said(train: Train, tmp_path: Path) -> None:
    answer = train(write_model(tmp_path / "cats.safetensors", ["cat", "dog", "cow", "hen"]))
    assert answer.json["weights"]["missing"] == ["fc.weight", "fc.bias"]
    assert classifier(tmp_path / "run").abs().max() < 0.01  # that of the file goes up to 0.1
    assert "the classifier starts at random: no class has a name of the file's" in answer.err


@pytest.mark.slow
def test_weights_of_tensors_alone_do_not_name_their_classes(train: Train, tmp_path: Path) -> None:
    save_file(build("ssan_tiny", 4).state_dict(), tmp_path / "plain.safetensors")
    answer = train(tmp_path / "plain.safetensors")
    assert answer.json["weights"]["missing"] == ["fc.weight", "fc.bias"]
    assert "the classifier starts at random: the file does not name its classes" in answer.err


@pytest.mark.slow
@pytest.mark.parametrize(
    ("keys", "changes", "model", "words"),
    [
        ({}, [], "tsm_tiny", ["lost", "model is 'ssan_tiny' there and 'tsm_tiny' here"]),
        ({"layer": {"embedding": 7}}, [], "ssan_tiny", ["lost", "layer.embedding is 7 there and None here"]),
        # All tensors fit, and what is computed with them is another thing.
        ({"model": "tsm_tiny"}, [], "tsn_tiny", ["model is 'tsm_tiny' there and 'tsn_tiny' here"]),
        (
            {},
            ["layer.similarity_scale=none"],
            "ssan_tiny",
            ["layer.similarity_scale is None there and 'none' here"],
        ),
    ],
)
def test_a_network_that_loses_its_layers_or_computes_otherwise_is_warned_of(
    keys: dict[str, Any], changes: list[str], model: str, words: list[str],
    train: Train, classes: list[str], tmp_path: Path,
) -> None:  # fmt: skip
    answer = train(write_model(tmp_path / "m.safetensors", classes, **keys), "--quiet", *changes, model=model)
    assert answer.code == 0
    warned = warnings_of(answer.err)
    assert len(warned) == len(words)
    for line, word in zip(warned, words, strict=True):
        assert word in line
    assert bool(answer.json["weights"]["lost"]) == ("lost" in words)


@pytest.mark.slow
def test_a_network_of_single_frames_loses_nothing_where_it_gets_layers_between_them(
    train: Train, classes: list[str], tmp_path: Path
) -> None:
    answer = train(write_model(tmp_path / "m.safetensors", classes, model="tsn_tiny"))
    assert not warnings_of(answer.err)
    assert "at random: 26 tensors (backbone.layer1.0.after_conv1." in answer.err
    assert "model is 'tsn_tiny' there and 'ssan_tiny' here" in answer.err


def test_what_holds_no_network_for_videos_is_refused_in_a_line(train: Train, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    answer = train(tmp_path / "empty")
    assert (answer.code, "holds no model.safetensors" in answer.err) == (2, True)
    write_model_file(tmp_path / "joint.safetensors", {"a": torch.zeros(1)}, {"kind": "retrieval"})
    answer = train(tmp_path / "joint.safetensors")
    assert (answer.code, "ssan retrieval train --init" in answer.err) == (2, True)
    write_model_file(tmp_path / "new.safetensors", {"a": torch.zeros(1)}, {"recipe": {"hue": 1}})
    answer = train(tmp_path / "new.safetensors")
    assert (answer.code, "its recipe cannot be read by this version" in answer.err) == (2, True)


# --------------------------------------------------------------------------------- a network of volumes from pictures


class Volumes(nn.Module):
    """Clips (b, t, 3, h, w) to (b, t - 2, 5): two convolutions, of which the first one looks across frames."""

    num_features = 5

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv3d(3, 4, (3, 3, 3), padding=(0, 1, 1), bias=False)
        self.bn1 = nn.BatchNorm3d(4)
        self.conv2 = nn.Conv3d(4, 5, 1)

    def forward(self, clips: Tensor) -> Tensor:
        return self.conv2(self.bn1(self.conv1(clips.transpose(1, 2))).relu()).mean(dim=(3, 4)).transpose(1, 2)


@pytest.fixture
def volumes(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is in the catalogue."""
    monkeypatch.setitem(NETWORKS, "volumes", Network(Volumes, num_frames=3, size_px=32))
    plain = specification("i3d")
    monkeypatch.setitem(MODELS, "volumes", replace(plain, name="volumes", family="volumes", backbone="volumes"))


def of_pictures(path: Path, **changes: Tensor | None) -> dict[str, Tensor]:
    """A file of the same network for pictures; None leaves a tensor out."""
    state = {
        "conv1.weight": torch.randn(4, 3, 3, 3), "conv2.weight": torch.randn(5, 4, 1, 1), "conv2.bias": torch.randn(5),
        "bn1.weight": torch.rand(4), "bn1.bias": torch.randn(4), "bn1.running_mean": torch.randn(4),
        "bn1.running_var": torch.rand(4) + 0.5, "fc.weight": torch.randn(9, 5), "fc.bias": torch.randn(9),
    }  # fmt: skip
    state = {name: tensor for name, tensor in {**state, **changes}.items() if tensor is not None}
    save_file(state, path)
    return state


@pytest.mark.slow
@pytest.mark.usefixtures("volumes")
def test_filters_of_pictures_are_inflated_for_a_network_of_volumes(train: Train, tmp_path: Path) -> None:
    theirs = of_pictures(tmp_path / "pictures.safetensors")
    answer = train(tmp_path / "pictures.safetensors", model="volumes")
    assert answer.code == 0, answer.err
    taken = answer.json["weights"]
    assert (taken["matched"], taken["inflated"]) == (7, 2)
    assert taken["missing"] == ["backbone.bn1.num_batches_tracked", "fc.weight", "fc.bias"]
    assert "inflated: 2 of them are filters of pictures, now repeated over time and divided by its length" in answer.err
    (start,) = read_journal(tmp_path / "run" / "journal.jsonl", "start")
    assert start["weights"]["inflated"] == 2
    ours = load_file(tmp_path / "run" / "model.safetensors")["backbone.conv1.weight"]
    assert ours.shape == (4, 3, 3, 3, 3)
    for moment in range(3):
        torch.testing.assert_close(ours[:, :, moment], theirs["conv1.weight"] / 3, rtol=0, atol=1e-5)


@pytest.mark.usefixtures("volumes")
def test_an_inflated_network_has_of_a_still_video_the_pictures_features(tmp_path: Path) -> None:
    path = tmp_path / "pictures.safetensors"
    theirs = of_pictures(path)
    recipe = complete(make_recipe({"model": "volumes", "init": str(path), "num_frames": 5}))
    model = build_from(recipe, 4).eval()
    start_from(model, recipe, ["a", "b", "c", "d"])
    picture = torch.randn(2, 3, 12, 10)
    found = F.conv2d(picture, theirs["conv1.weight"], padding=1)
    norm = (theirs[f"bn1.{word}"] for word in ("running_mean", "running_var", "weight", "bias"))
    found = F.conv2d(F.batch_norm(found, *norm).relu(), theirs["conv2.weight"], theirs["conv2.bias"]).mean(dim=(2, 3))
    with torch.inference_mode():
        volumes = model.time_features(picture[:, None].expand(-1, 5, -1, -1, -1))
    torch.testing.assert_close(volumes, found[:, None].expand(-1, 3, -1), rtol=1e-4, atol=1e-5)


@pytest.mark.usefixtures("volumes")
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"conv1.weight": torch.ones(4, 3, 5, 5)},
         r"1 of 10 keys do not fit, first backbone\.conv1\.weight \(\(4, 3, 5, 5\) for \(4, 3, 3, 3, 3\)\)"),
        ({"conv1.weight": None, "stem.weight": torch.ones(4, 3, 3, 3)},
         r"1 of 10 keys do not fit, first backbone\.conv1\.weight \(missing\); 1 keys are not known here, first stem"),
        ({"conv2.weight": torch.ones(5, 4)}, r"1 of 10 keys .*conv2\.weight \(\(5, 4\) for \(5, 4, 1, 1, 1\)\)"),
    ],
)  # fmt: skip
def test_pictures_weights_of_other_names_or_sizes_are_refused_as_before(
    changes: dict[str, Tensor | None], message: str, tmp_path: Path
) -> None:
    path = tmp_path / "pictures.safetensors"
    of_pictures(path, **changes)
    recipe = complete(make_recipe({"model": "volumes", "init": str(path)}))
    with pytest.raises(ModelError, match=f"these are another network's weights: {message}"):
        start_from(build_from(recipe, 4), recipe, [])


def test_a_network_of_pictures_takes_no_filters_of_volumes(tmp_path: Path) -> None:
    state = build("tsn_tiny", 4).state_dict()
    state["backbone.conv1.weight"] = state["backbone.conv1.weight"].unsqueeze(2).repeat(1, 1, 3, 1, 1)
    save_file(state, tmp_path / "volumes.safetensors")
    recipe = complete(make_recipe({"model": "tsn_tiny", "init": str(tmp_path / "volumes.safetensors")}))
    with pytest.raises(ModelError, match=r"first backbone\.conv1\.weight"):
        start_from(build_from(recipe, 4), recipe, [])


@pytest.mark.slow
def test_a_run_goes_on_without_the_file_that_it_began_with(train: Train, classes: list[str], tmp_path: Path) -> None:
    first = train(write_model(tmp_path / "m.safetensors", classes))
    (tmp_path / "m.safetensors").unlink()
    again = train(tmp_path / "m.safetensors", resume=True)
    assert again.code == 0, again.err
    assert again.json["weights"] == first.json["weights"]
