"""Labelling many videos: read ahead by other processes, answered as one by one."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch

from ssan.datasets import read
from ssan.models.catalogue import build
from ssan.recipe import make_recipe
from ssan.recognition import predict as module
from ssan.recognition.predict import predict, predict_each
from ssan.weights.classifier_file import load_labeller, save_labeller
from ssan.weights.labeller import Labeller


@pytest.fixture(scope="module")
def labeller(tmp_path_factory: pytest.TempPathFactory) -> Labeller:
    torch.manual_seed(5)
    recipe = make_recipe({"model": "ssan_tiny", "num_frames": 2, "size_px": 40, "crop_px": 32})
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    save_labeller(path, build("ssan_tiny", 3), ["a", "b", "c"], recipe, {})
    return load_labeller(path)


@pytest.fixture
def paths(order_set: Path, tmp_path: Path) -> list[str]:
    """Videos, one of which is none and one of which is not there."""
    (tmp_path / "broken.mp4").write_bytes(b"not a video")
    videos = [sample.path for sample in read("sthv2", order_set, "all")[:5]]
    return [videos[0], str(tmp_path / "broken.mp4"), *videos[1:], str(tmp_path / "absent.mp4")]


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 1, 2])
def test_answers_are_those_of_each_video_by_itself_in_order(labeller: Labeller, paths: list[str], workers: int) -> None:
    answers = list(predict_each(labeller, paths, top=2, workers=workers))
    assert answers == [predict(labeller, path, top=2) for path in paths]
    assert [answer["ok"] for answer in answers] == [True, False, True, True, True, True, False]
    assert list(predict_each(labeller, [], workers=workers)) == []


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_the_workers_are_processes_that_read_the_videos(
    labeller: Labeller, paths: list[str], workers: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "readers").mkdir()
    whole = module._read

    def noted(preprocess: Any, path: str) -> Any:
        (tmp_path / "readers" / str(os.getpid())).touch()
        return whole(preprocess, path)

    monkeypatch.setattr(module, "_read", noted)
    list(predict_each(labeller, paths, workers=workers))
    readers = {int(path.name) for path in (tmp_path / "readers").iterdir()}
    assert (os.getpid() in readers, len(readers)) == (workers == 0, max(1, workers))
