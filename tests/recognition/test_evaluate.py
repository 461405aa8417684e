"""Scoring: views, crops and averages against scores computed by hand, the probe, and what is counted beside."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from ssan.datasets import read
from ssan.errors import UsageError
from ssan.models.catalogue import build
from ssan.recipe import make_recipe
from ssan.recognition.evaluate import Protocol, evaluate, score
from ssan.recognition.predict import predict
from ssan.video.preprocess import Preprocess
from ssan.weights.classifier_file import build_from, load_labeller, save_labeller
from ssan.weights.labeller import Labeller


@pytest.fixture(scope="module")
def labeller(order_set: Path) -> Labeller:
    """An untrained SSAN whose scores differ well from video to video."""
    torch.manual_seed(3)
    model = build("ssan_tiny", 4).eval()
    nn.init.normal_(model.fc.weight, std=2.0)
    preprocess = Preprocess(num_frames=4, size_px=40, crop_px=32, resize="short_side")
    return Labeller(model, read("sthv2", order_set, "all").classes, preprocess, make_recipe({}), {}, "")


@torch.no_grad()
def by_hand(labeller: Labeller, path: str, views: int, crops: int) -> torch.Tensor:
    """Logits of each view (v, k), one clip at a time, in float64."""
    clips, _ = labeller.preprocess.test_views(path, views, crops)  # type: ignore[arg-type]
    return torch.stack([labeller.model(clip[None])[0].double() for clip in clips])


@pytest.mark.slow
@pytest.mark.parametrize(("views", "crops"), [(1, 1), (3, 1), (2, 3), (1, 10)])
def test_logits_are_averaged_over_views_and_crops(views: int, crops: int, labeller: Labeller, order_set: Path) -> None:
    samples = read("sthv2", order_set, "test")
    result = score(labeller, samples, Protocol(views, crops), batch=4, quiet=True)  # type: ignore[arg-type]
    for sample, row in zip(samples, result.scores["as_sampled"], strict=True):
        own = by_hand(labeller, sample.path, views, crops)
        assert len(own) == views * crops
        np.testing.assert_allclose(row, own.mean(dim=0).numpy(), atol=1e-5)


def test_probabilities_are_averaged_after_the_softmax_of_each_view(labeller: Labeller, order_set: Path) -> None:
    samples = read("sthv2", order_set, "test")
    result = score(labeller, samples, Protocol(3, 1, "probabilities"), quiet=True)
    logits = score(labeller, samples, Protocol(3, 1, "logits"), quiet=True)
    gaps = []
    for sample, row, other in zip(samples, result.scores["as_sampled"], logits.scores["as_sampled"], strict=True):
        own = by_hand(labeller, sample.path, 3, 1).softmax(dim=1).mean(dim=0)
        np.testing.assert_allclose(np.exp(row), own.numpy(), atol=1e-5)
        gaps.append(np.abs(own.numpy() - torch.from_numpy(other).softmax(dim=0).numpy()).max())
    assert max(gaps) > 1e-4, "the two averages must differ somewhere, or the test shows nothing"


@pytest.mark.slow
def test_the_batch_size_does_not_change_a_score(labeller: Labeller, order_set: Path) -> None:
    samples = read("sthv2", order_set, "test")
    one = score(labeller, samples, Protocol(2), batch=1, quiet=True).scores["as_sampled"]
    many = score(labeller, samples, Protocol(2), batch=64, workers=1, quiet=True).scores["as_sampled"]
    np.testing.assert_allclose(one, many, atol=1e-5)


def test_the_probe_permutes_the_frames_already_sampled(labeller: Labeller, order_set: Path) -> None:
    samples = read("sthv2", order_set, "test")
    result = score(labeller, samples, Protocol(), probe=True, quiet=True)
    again = score(labeller, samples, Protocol(), probe=True, batch=2, quiet=True)
    for number, sample in enumerate(samples):
        clips, _ = labeller.preprocess.test_views(sample.path)
        with torch.no_grad():
            backwards = labeller.model(clips.flip(1))[0]
        np.testing.assert_allclose(result.scores["reversed"][number], backwards.double().numpy(), atol=1e-5)
    assert np.abs(result.scores["reversed"] - result.scores["as_sampled"]).max() > 1e-3
    assert np.abs(result.scores["shuffled"] - result.scores["as_sampled"]).max() > 1e-3
    # A shuffle belongs to a video, however the set is cut into batches.
    np.testing.assert_allclose(result.scores["shuffled"], again.scores["shuffled"], atol=1e-5)


def test_a_network_blind_to_order_gives_the_same_answers_to_every_order(order_set: Path, labeller: Labeller) -> None:
    torch.manual_seed(3)
    blind = build("tsn_tiny", 4).eval()
    nn.init.normal_(blind.fc.weight, std=2.0)
    tsn = Labeller(blind, labeller.classes, labeller.preprocess, labeller.recipe, {}, "")
    answer = evaluate(tsn, read("sthv2", order_set, "all"), Protocol(), split="all", probe=True, quiet=True)
    assert answer["probe"]["reversed_same_prediction"] == 1.0
    assert answer["probe"]["shuffled_top1"] == answer["top1"]


def test_videos_without_labels_are_refused(order_set: Path, labeller: Labeller, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(order_set, tmp_path / "data")
    (tmp_path / "data" / "test-answers.csv").unlink()
    with pytest.raises(UsageError, match="no label"):
        evaluate(labeller, read("sthv2", tmp_path / "data", "test"), Protocol(), split="test", quiet=True)


def test_classes_in_another_order_are_refused(order_set: Path, labeller: Labeller) -> None:
    other = Labeller(labeller.model, labeller.classes[::-1], labeller.preprocess, labeller.recipe, {}, "")
    with pytest.raises(UsageError, match="another order"):
        evaluate(other, read("sthv2", order_set, "test"), Protocol(), split="test", quiet=True)


def test_scores_that_are_not_numbers_are_refused(order_set: Path, labeller: Labeller) -> None:
    broken = build("tsn_tiny", 4).eval()
    nn.init.constant_(broken.fc.bias, float("nan"))
    other = Labeller(broken, labeller.classes, labeller.preprocess, labeller.recipe, {}, "")
    with pytest.raises(UsageError, match="NaN") as caught:
        evaluate(other, read("sthv2", order_set, "test"), Protocol(), split="test", quiet=True)
    assert caught.value.code == "nan"


def test_a_label_without_a_number_is_an_answer_that_says_so(order_set: Path, labeller: Labeller) -> None:
    broken = build("tsn_tiny", 4).eval()
    nn.init.constant_(broken.fc.bias, float("nan"))
    other = Labeller(broken, labeller.classes, labeller.preprocess, labeller.recipe, {}, "")
    path = read("sthv2", order_set, "test")[0].path
    answer = predict(other, path)
    assert (answer["path"], answer["ok"], answer["error"]["code"]) == (path, False, "nan")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ssan_tiny", "tsm_mobilenet_v2", "tsn_r18"])
def test_a_model_read_back_gives_the_same_scores(name: str, tmp_path: Path) -> None:
    recipe = make_recipe({"model": name, "num_frames": 3, "size_px": 37, "crop_px": 32})
    model = build_from(recipe, 5).eval()
    for tensor in model.state_dict().values():
        if tensor.is_floating_point():
            torch.nn.init.uniform_(tensor, 0.1, 0.3)
    save_labeller(tmp_path / "model.safetensors", model, list("abcde"), recipe, {})
    read_back = load_labeller(tmp_path / "model.safetensors").model
    clips = torch.randn(2, 3, 3, 32, 32)
    torch.testing.assert_close(read_back(clips), model(clips), rtol=0, atol=0)
    assert not any(tensor.is_meta for tensor in (*read_back.parameters(), *read_back.buffers()))
    assert all(parameter.requires_grad for parameter in read_back.parameters())


@pytest.mark.slow
def test_reading_a_model_does_not_import_the_compiler(tmp_path: Path) -> None:
    recipe = make_recipe({"model": "ssan_tiny", "size_px": 48, "crop_px": 48})
    save_labeller(tmp_path / "model.safetensors", build_from(recipe, 2), ["a", "b"], recipe, {})
    code = (
        "import sys; from ssan.weights.classifier_file import load_labeller; load_labeller(sys.argv[1]); "
        "print([name for name in ('torch._dynamo', 'torch._inductor', 'lightning', 'sympy') if name in sys.modules])"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "model.safetensors")]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_a_place_where_no_scores_can_be_written_is_refused_before_the_work(
    order_set: Path, labeller: Labeller, tmp_path: Path
) -> None:
    samples = read("auto", str(order_set), "val")
    (tmp_path / "folder.npz").mkdir()
    (tmp_path / "file").touch()
    for name in ("x.foo", "folder.npz", "file/x.npz", "file/deep/x.npz"):
        with pytest.raises(UsageError, match="name"):
            evaluate(
                replace(labeller, model=None),  # type: ignore[arg-type]  # not reached
                samples,
                Protocol(),
                split="val",
                scores_file=tmp_path / name,
            )


def test_too_little_memory_says_what_helps(
    order_set: Path, labeller: Labeller, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*rest: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(type(labeller.model), "forward", fails)
    with pytest.raises(
        UsageError, match=r"out of memory with 16 clips of \d+ frames of \d+ px at a time; lower --batch"
    ):
        score(labeller, read("auto", str(order_set), "val"), Protocol())
