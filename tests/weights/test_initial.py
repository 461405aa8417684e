"""What a run starts from: whose weights they are, what of them it takes, and that this is said and recorded."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from ssan.models.catalogue import build
from ssan.recipe import make_recipe
from ssan.recognition.train import complete
from ssan.training.journal import read_journal
from ssan.weights.classifier_file import build_from, save_labeller
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


@pytest.mark.slow
def test_a_run_goes_on_without_the_file_that_it_began_with(train: Train, classes: list[str], tmp_path: Path) -> None:
    first = train(write_model(tmp_path / "m.safetensors", classes))
    (tmp_path / "m.safetensors").unlink()
    again = train(tmp_path / "m.safetensors", resume=True)
    assert again.code == 0, again.err
    assert again.json["weights"] == first.json["weights"]
