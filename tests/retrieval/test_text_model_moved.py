"""A joint space whose captions a transformers text model reads: pooled as is asked for, wherever the model lies."""

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ssan.errors import ModelError, UsageError
from ssan.retrieval.model_file import load_retriever


@pytest.fixture
def run(bert: Path, tmp_path: Path, ssan: Any) -> dict[str, Path]:
    """A run whose text model, frozen, lies in a folder that can be moved."""
    folder = tmp_path / "text_model"
    shutil.copytree(bert, folder)
    (tmp_path / "features").mkdir()
    for n in range(6):
        np.save(tmp_path / "features" / f"v{n}.npy", np.random.default_rng(n).random((2, 5)))
    captions = tmp_path / "captions.csv"
    with open(captions, "w", newline="") as handle:
        rows = [(f"v{n}", ["a man walks left", "a man walks right"][n % 2]) for n in range(6)]
        csv.writer(handle).writerows([("video", "caption"), *rows])
    found = {"out": tmp_path / "run", "folder": folder, "captions": captions, "features": tmp_path / "features"}
    done = ssan(
        "retrieval", "train", "--captions", captions, "--features", found["features"], "--out", found["out"],
        "--val-split", "none", "--text", "transformer", f"transformer={folder}", "pooling=cls", "dim=8", "epochs=2",
        "max_words=9", "--quiet",
    )  # fmt: skip
    assert done.code == 0, done.err
    return found


def measured(ssan: Any, run: dict[str, Path], *words: object) -> Any:
    return ssan("retrieval", "eval", run["out"], "--captions", run["captions"], "--features", run["features"],
                "--json", "--bootstrap", 0, *words)  # fmt: skip


@pytest.mark.slow
def test_a_text_model_that_was_moved_is_named_and_answers_as_before(
    run: dict[str, Path], tmp_path: Path, ssan: Any
) -> None:
    before = measured(ssan, run).json
    moved = tmp_path / "elsewhere"
    run["folder"].rename(moved)
    done = measured(ssan, run)
    assert done.code == 2
    assert f"was in {run['folder']}, and there is none in" in done.err
    assert "name the folder where it lies now with --transformer FOLDER" in done.err
    again = measured(ssan, run, "--transformer", moved)
    assert again.code == 0, again.err
    assert again.json["text_to_video"] == before["text_to_video"]


def test_a_text_model_of_another_tokeniser_is_refused(run: dict[str, Path], tmp_path: Path) -> None:
    path = run["folder"] / "tokenizer.json"
    content = json.loads(path.read_text())
    words = content["model"]["vocab"]
    words["left"], words["right"] = words["right"], words["left"]
    path.write_text(json.dumps(content))
    with pytest.raises(ModelError, match="its configuration or its tokeniser differs"):
        load_retriever(run["out"])


def test_the_weights_are_those_of_the_model_file(run: dict[str, Path], tmp_path: Path) -> None:
    """Whatever weights the folder has: those that were trained with came along."""
    from safetensors.torch import load_file, save_file

    words = torch.tensor([[2, 5, 6, 3]])
    before = load_retriever(run["out"]).model.embed_text(words)
    path = run["folder"] / "model.safetensors"
    save_file({name: tensor + 1 for name, tensor in load_file(path).items()}, path, metadata={"format": "pt"})
    torch.testing.assert_close(load_retriever(run["out"]).model.embed_text(words), before, rtol=0, atol=0)


def test_pooling_is_the_recipes_and_of_a_file_of_before_the_mean(run: dict[str, Path], tmp_path: Path) -> None:
    from safetensors import safe_open

    from ssan.weights.model_file import read_model_file, write_model_file

    assert load_retriever(run["out"]).model.tower.pooling == "cls"
    tensors, metadata = read_model_file(run["out"] / "model.safetensors")
    with safe_open(run["out"] / "model.safetensors", framework="pt") as file:
        assert "text_model" in str(file.metadata())
    del metadata["recipe"]["pooling"], metadata["text_model"]
    kept = {key: value for key, value in metadata.items() if key not in ("format", "sha256", "metadata_sha256")}
    write_model_file(tmp_path / "before.safetensors", tensors, kept)
    assert load_retriever(tmp_path / "before.safetensors").model.tower.pooling == "mean"


def test_a_model_with_words_of_its_own_takes_no_text_model(tmp_path: Path, run: dict[str, Path], ssan: Any) -> None:
    done = ssan("retrieval", "train", "--captions", run["captions"], "--features", run["features"], "--out",
                tmp_path / "gru", "--val-split", "none", "dim=8", "text_dim=8", "epochs=1", "--quiet")  # fmt: skip
    assert done.code == 0
    with pytest.raises(UsageError, match="leave out --transformer"):
        load_retriever(tmp_path / "gru", transformer=str(run["folder"]))
