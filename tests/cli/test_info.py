"""``ssan info``: what a file is, was trained on or made of, takes, and has reached."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from ssan.cli.main import status
from ssan.models.catalogue import build
from ssan.recipe import make_recipe
from ssan.weights.classifier_file import load_labeller, save_labeller
from ssan.weights.model_file import write_model_file

SETTINGS = ["crop_px=32", "size_px=36", "num_frames=4", "batch=8", "epochs=2", "crop=center", "flip=off"]


@pytest.fixture(scope="module")
def run(order_set: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("info") / "run"
    common = ["--data", str(order_set), "--quiet", "--workers", "0", "--device", "cpu"]
    assert status(["train", "--model", "ssan_tiny", "--out", str(out), *common, *SETTINGS]) == 0
    assert status(["eval", str(out), "--split", "test", "--scores", str(out / "scores.npz"), *common]) == 0
    return out


def lines(answer: Any) -> dict[str, str]:
    return {line[:12].strip(): line[13:] for line in answer.out.splitlines()}


@pytest.mark.slow
def test_of_a_run_it_says_what_it_was_trained_on_takes_and_has_reached(ssan: Any, run: Path, order_set: Path) -> None:
    found = ssan("info", run, "--json").json
    assert (found["schema"], found["path"], found["kind"], found["task"]) == (1, str(run), "run", "recognition")
    assert (found["model"], found["status"], found["num_epochs"]) == ("ssan_tiny", "finished", 2)
    assert found["trained_on"] == {
        "data": {"root": str(order_set), "format": "auto", "options": {}}, "num_train": 28, "num_val": 6, "init": None,
    }  # fmt: skip
    assert len(found["classes"]) == 4
    assert (found["takes"]["num_frames"], found["takes"]["size_px"], found["takes"]["crop_px"]) == (4, 36, 32)
    end = [json.loads(line) for line in (run / "journal.jsonl").read_text().splitlines()]
    (end,) = [event for event in end if event["event"] == "end"]
    assert found["reached"]["val_top1"] == end["val_top1"]
    assert found["reached"]["epoch"] == end["best_epoch"]
    (row,) = found["evaluations"]
    assert (row["split"], row["num_scored"]) == ("test", 6)
    assert row["interval95"][0] <= row["top1"] <= row["interval95"][1]
    assert found["recipe"]["epochs"] == 2
    shown = lines(ssan("info", run))
    assert (shown["kind"], shown["model"], shown["epochs"]) == ("run", "ssan_tiny", "2")
    assert shown["trained on"].startswith(f"data root {order_set}, format auto, train 28, val 6")
    assert shown["evaluated"].startswith(f"split test, scored 6, top1 {row['top1']:.4g}, ")


@pytest.mark.slow
def test_of_a_model_file_it_says_the_same_as_the_file(ssan: Any, run: Path) -> None:
    found = ssan("info", run / "model.safetensors", "--json").json
    labeller = load_labeller(run)
    assert (found["kind"], found["task"], found["model"]) == ("model", "recognition", "ssan_tiny")
    assert found["classes"] == labeller.classes
    assert found["takes"] == labeller.preprocess.as_dict()
    assert found["sha256"] == labeller.hash
    assert found["num_params"] == sum(parameter.numel() for parameter in labeller.model.parameters())
    assert found["num_tensors"] == len(load_file(run / "model.safetensors"))
    assert found["reached"] == {"split": "val", "num_scored": 6, "top1": labeller.protocol["top1"]}


def test_of_an_imported_model_it_says_where_it_is_from(ssan: Any, tmp_path: Path) -> None:
    recipe = make_recipe({"model": "tsn_tiny", "num_frames": 2, "size_px": 40, "crop_px": 32})
    protocol = {"imported_from": {"file": "tsn.pth", "layout": "tsm"}, "top1": float("nan")}
    (tmp_path / "tsn").mkdir()
    save_labeller(tmp_path / "tsn" / "model.safetensors", build("tsn_tiny", 3), ["a", "b", "c"], recipe, protocol)
    found = ssan("info", tmp_path / "tsn", "--json").json
    assert (found["kind"], found["trained_on"]["imported_from"]["file"]) == ("model", "tsn.pth")
    assert found["reached"] == {"top1": None}
    assert lines(ssan("info", tmp_path / "tsn"))["trained on"] == "imported from file tsn.pth, layout tsm"


def test_of_a_network_of_ones_own_and_of_a_joint_space_it_says_what_is_known(ssan: Any, tmp_path: Path) -> None:
    write_model_file(tmp_path / "own", {"w": torch.ones(2)}, {"recipe": {"model": "own"}, "classes": ["a", "b"]})
    found = ssan("info", tmp_path / "own", "--json").json
    assert (found["model"], found["num_params"], found["classes"]) == ("own", None, ["a", "b"])
    metadata = {
        "kind": "retrieval", "recipe": {"text": "gru"}, "streams": [{"name": "ssa", "dim": 5}],
        "protocol": {"val_r1": 0.25, "train_list": "0123"},
    }  # fmt: skip
    write_model_file(tmp_path / "joint", {"w": torch.ones(2)}, metadata)
    found = ssan("info", tmp_path / "joint", "--json").json
    assert (found["task"], found["model"], found["takes"]) == ("retrieval", "gru", [{"name": "ssa", "dim": 5}])
    assert found["reached"] == {"val_r1": 0.25}


@pytest.mark.slow
def test_of_a_score_file_it_says_how_it_came_about_and_what_it_reaches(ssan: Any, run: Path) -> None:
    found = ssan("info", run / "scores.npz", "--json").json
    assert (found["kind"], found["num_videos"], found["num_labelled"]) == ("scores", 6, 6)
    with np.load(run / "scores.npz") as file:
        assert found["reached"]["top1"] == (file["scores"].argmax(axis=1) == file["labels"]).mean()
        assert found["protocol"] == json.loads(str(file["protocol"]))
        assert found["classes"] == file["class_names"].tolist()


def test_of_features_it_says_how_many_and_what_made_them(ssan: Any, run: Path, order_set: Path, tmp_path: Path) -> None:
    out = tmp_path / "features"
    made = ssan("extract", run, "--data", order_set, "--split", "val", "-o", out, "--json", "--workers", 0)
    found = ssan("info", out, "--json").json
    assert found["kind"] == "features"
    for key in ("num_videos", "num_vectors", "dim"):
        assert found[key] == made.json[key]
    assert found["made_by"]["hash"] == load_labeller(run).hash
    (tmp_path / "published").mkdir()
    for name in "ab":
        np.save(tmp_path / "published" / f"{name}.npy", np.ones((3, 7), np.float32))
    found = ssan("info", tmp_path / "published", "--json").json
    assert (found["kind"], found["num_videos"], found["dim"], found["made_by"]) == ("features", 2, 7, None)


@pytest.mark.slow
def test_of_a_clip_file_it_says_what_lies_in_it(ssan: Any, order_set: Path, tmp_path: Path) -> None:
    videos = order_set / "20bn-something-something-v2"
    made = ssan("data", "resize", videos, tmp_path / "x.clips", "--to", "clips", "--short-side", 32, "--workers", 1)
    assert made.code == 0
    found = ssan("info", tmp_path / "x.clips", "--json").json
    assert (found["kind"], found["num_videos"], found["sizes_px"]) == ("clips", 40, [[32, 32]])
    assert found["bytes"] == (tmp_path / "x.clips").stat().st_size
    listed = ssan("data", "list", tmp_path / "x.clips", "--format", "folder", "--reader", "split=x")
    assert listed.code == 2  # videos without classes are no data set, and are told of all the same


@pytest.mark.parametrize("name", ["weights.pth", "features.pkl"])
def test_files_of_other_toolkits_are_sent_to_import(ssan: Any, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"0123")
    answer = ssan("info", tmp_path / name)
    assert (answer.code, answer.err.count("\n")) == (2, 1)
    assert "`ssan import` makes a model file" in answer.err
