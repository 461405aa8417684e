"""Files of non-local networks as their authors released them: pickles of Caffe2's blobs.

Blobs have the names that the authors' code gives them (lib/models of video-nonlocal-net), put together here once more:
there is no Caffe2 to ask.
"""

import json
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ssan.cli.main import status
from ssan.errors import ModelError
from ssan.models.catalogue import build
from ssan.weights.classifier_file import load_labeller
from ssan.weights.layouts import all_by_our_names
from ssan.weights.nl_i3d_names import of_blobs
from ssan.weights.state_dict import read_state_dict

NORM = ("s", "b", "rm", "riv")


def shapes_of_blobs(depths: tuple[int, ...], width: int, num_classes: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    """The blobs of the network and their shapes, stage by stage."""
    yield "conv1_w", (width, 3, 5, 7, 7)
    yield from ((f"res_conv1_bn_{end}", (width,)) for end in NORM)
    num_in = width
    for stage, depth in enumerate(depths, 2):
        inside = width * 2 ** (stage - 2)
        for block in range(depth):
            length = 3 if stage == 2 or block % 2 == 0 else 1  # without a res5, whose second block is the inflated one
            filters = {"2a": (inside, num_in, length, 1, 1), "2b": (inside, inside, 1, 3, 3),
                       "2c": (4 * inside, inside, 1, 1, 1)}  # fmt: skip
            if block == 0:
                filters["1"] = (4 * inside, num_in, 1, 1, 1)
            for branch, shape in filters.items():
                yield f"res{stage}_{block}_branch{branch}_w", shape
                yield from ((f"res{stage}_{block}_branch{branch}_bn_{end}", shape[:1]) for end in NORM)
            num_in = 4 * inside
            if stage in (3, 4) and block % 2 == 1:
                prefix = f"nonlocal_conv{stage}_{block}"
                for part in ("theta", "phi", "g", "out"):
                    num_out, given = (num_in, num_in // 2) if part == "out" else (num_in // 2, num_in)
                    yield f"{prefix}_{part}_w", (num_out, given, 1, 1, 1)
                    yield f"{prefix}_{part}_b", (num_out,)
                yield from ((f"{prefix}_bn_{end}", (num_in,)) for end in NORM)
    yield "pred_w", (num_classes, num_in)
    yield "pred_b", (num_classes,)


@pytest.fixture
def blobs() -> dict[str, Any]:
    """Those of ``nl_i3d_tiny`` for 5 classes, with what a solver keeps beside them."""
    generator = np.random.default_rng(0)
    kept: dict[str, Any] = {"model_iter": 400_000, "lr": np.float32(0.0001)}
    for name, shape in shapes_of_blobs((1, 2, 2), 16, 5):
        kept[name] = generator.uniform(0.2 if name.endswith("riv") else -0.2, 0.3, shape).astype(np.float32)
        if name.endswith(("_w", "_b", "_s")):
            kept[f"{name}_momentum"] = np.zeros(shape, np.float32)
    return kept


def written(blobs: dict[str, Any], path: Path) -> Path:
    path.write_bytes(pickle.dumps({"blobs": blobs}, protocol=2))
    return path


def test_a_file_of_blobs_is_imported_whole(
    blobs: dict[str, Any], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file, out = written(blobs, tmp_path / "weights.pkl"), tmp_path / "model.safetensors"
    assert status(["import", str(file), "--as", "nl_i3d_tiny", "-o", str(out), "--json"]) == 0
    answer = json.loads(capfd.readouterr().out)
    assert (answer["layout"], answer["missing"], answer["unexpected"]) == ("video_nonlocal_net", [], [])
    assert answer["num_classes"] == 5
    labeller = load_labeller(out)
    assert labeller.protocol["average"] == "probabilities"  # as its authors test
    state = labeller.model.state_dict()
    for ours, theirs in {
        "backbone.conv1.weight": "conv1_w",
        "backbone.bn1.running_var": "res_conv1_bn_riv",
        "backbone.layer1.0.downsample.1.weight": "res2_0_branch1_bn_s",
        "backbone.layer2.1.bn2.running_mean": "res3_1_branch2b_bn_rm",
        "backbone.layer3.0.conv3.weight": "res4_0_branch2c_w",
        "backbone.layer3.1.after_block.theta.bias": "nonlocal_conv4_1_theta_b",
        "backbone.layer2.1.after_block.norm.bias": "nonlocal_conv3_1_bn_b",
        "fc.weight": "pred_w",
    }.items():
        assert np.array_equal(state[ours].numpy(), blobs[theirs]), ours
    mean = blobs["nonlocal_conv3_1_bn_rm"] - blobs["nonlocal_conv3_1_out_b"]
    np.testing.assert_allclose(state["backbone.layer2.1.after_block.norm.running_mean"].numpy(), mean, atol=1e-7)


def test_statistics_of_a_frozen_norm_are_such_that_scale_and_bias_are_all() -> None:
    state = of_blobs({"x_bn_s": torch.tensor([2.0]), "x_bn_b": torch.tensor([3.0]), "lone_b": torch.ones(1)})
    assert set(state) == {"x_bn.weight", "x_bn.bias", "x_bn.running_mean", "x_bn.running_var", "lone.bias"}
    norm = torch.nn.BatchNorm3d(1).eval()
    norm.load_state_dict({name.removeprefix("x_bn."): state[name] for name in state if name[0] == "x"}, strict=False)
    assert norm(torch.full((1, 1, 1, 1, 1), 5.0)).item() == pytest.approx(13.0, abs=1e-5)


def test_a_blob_too_few_or_half_of_the_statistics_is_refused_by_name(blobs: dict[str, Any], tmp_path: Path) -> None:
    for name, missing in (("res3_0_branch2b_w", "res3_0_branch2b.weight"),
                          ("res4_1_branch2a_bn_rm", "res4_1_branch2a_bn.running_mean")):  # fmt: skip
        rest = {word: value for word, value in blobs.items() if word != name}
        state = read_state_dict(written(rest, tmp_path / "weights.pkl"))
        with pytest.raises(ModelError, match=rf"as it was published: {missing}$"):
            all_by_our_names(state, build("nl_i3d_tiny", 5), "file")


@pytest.mark.parametrize("content", [{}, {"conv1_w": "text"}, {"conv1_w": {"deeper": "text"}}, {1: np.zeros(2)}])
def test_blobs_that_are_no_arrays_by_name_are_no_weights(content: dict[Any, Any], tmp_path: Path) -> None:
    with pytest.raises(ModelError) as caught:
        read_state_dict(written(content, tmp_path / "weights.pkl"))
    assert caught.value.code == "wrong_model"
