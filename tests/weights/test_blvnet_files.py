"""Files of bLVNet-TAM: names and shapes of its authors' own networks, read one to one.

``golden/blvnet.json.gz`` was written by ``benchmarks/parity/blvnet_parity.py --golden``.
"""

import gzip
import json
from pathlib import Path

import pytest
import torch

from ssan.models.catalogue import build, without_memory
from ssan.models.classifier import Classifier
from ssan.weights.classifier_file import load_labeller
from ssan.weights.imported import import_weights
from ssan.weights.layouts import LAYOUTS, all_by_our_names, fit, names_in, num_classes_in

GOLDEN: dict[str, dict[str, list[int]]] = json.loads(
    gzip.decompress((Path(__file__).parents[1] / "golden/blvnet.json.gz").read_bytes())
)
LAYOUT = LAYOUTS["blvnet_tam"]


def shapes(name: str) -> Classifier:
    with without_memory():
        return build(name, 174)


def file_of(name: str) -> dict[str, torch.Tensor]:
    state = {key: torch.empty(shape, device="meta") for key, shape in GOLDEN[name].items()}
    return {key: tensor.long() if "num_batches" in key else tensor for key, tensor in state.items()}


@pytest.mark.parametrize(("name", "num_tensors"), [("blvnet_r50", 449), ("blvnet_r101", 791)])
def test_each_tensor_of_a_file_is_one_of_ours_and_none_is_left(name: str, num_tensors: int) -> None:
    model = shapes(name)
    names = names_in(LAYOUT, model, LAYOUT.classifiers[0])
    assert names is not None
    assert len(names) == len(set(names.values())) == len(GOLDEN[name]) == num_tensors
    assert {names[key]: list(tensor.shape) for key, tensor in model.state_dict().items()} == GOLDEN[name]


# A few tensors worked by hand, each from another kind of place.
PLACES = {
    "backbone.conv1.weight": "baseline_model.conv1.weight",
    "backbone.stem.aggregation.prev.weight": "baseline_model.tam.prev.weight",
    "backbone.stem.big.1.bias": "baseline_model.bn_b0.bias",
    "backbone.stem.little.3.weight": "baseline_model.l_conv1.weight",
    "backbone.stem.little.7.running_var": "baseline_model.bn_l2.running_var",
    "backbone.stem.merge.0.weight": "baseline_model.bl_init.weight",
    "backbone.layer1.aggregation.next.weight": "baseline_model.layer1.tam.next.weight",
    "backbone.layer1.big.0.downsample.1.weight": "baseline_model.layer1.big.0.downsample.1.weight",
    "backbone.layer2.little.0.conv2.weight": "baseline_model.layer2.little.0.conv2.weight",
    "backbone.layer2.widen.1.running_mean": "baseline_model.layer2.little_e.1.running_mean",
    "backbone.layer3.fusion.bn3.weight": "baseline_model.layer3.fusion.0.bn3.weight",
    "backbone.layer4.1.aggregation.curr.weight": "baseline_model.layer4.1.tam.curr.weight",
    "fc.bias": "new_fc.bias",
}


def test_places_by_hand() -> None:
    names = names_in(LAYOUT, shapes("blvnet_r50"), LAYOUT.classifiers[0])
    assert names is not None
    assert {key: names[key] for key in PLACES} == PLACES


@pytest.mark.parametrize("classifier", ["new_fc.", "baseline_model.fc."])
def test_a_file_is_told_by_its_names_with_and_without_dropout(classifier: str) -> None:
    state = {key.replace("new_fc.", classifier): tensor for key, tensor in file_of("blvnet_r50").items()}
    found = fit(state, shapes("blvnet_r50"))
    assert found is not None
    assert (found.layout, found.num_wrong, num_classes_in(state)) == ("blvnet_tam", 0, 174)
    deeper = fit(state, shapes("blvnet_r101"))
    assert deeper is not None
    assert deeper.num_wrong > 0


def test_all_of_a_file_is_taken() -> None:
    state = file_of("blvnet_r50")
    assert set(all_by_our_names(state, shapes("blvnet_r50"), "file")) == set(shapes("blvnet_r50").state_dict())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "num_frames"), [("st2stv1-bLVNet-TAM-50-a2-b4-f16x2.pth.tar", 32), ("weights_f16x2.pth", 8)]
)
def test_an_import_takes_every_value_and_the_frames_that_the_files_name_tells(
    file: str, num_frames: int, tmp_path: Path
) -> None:
    model = build("blvnet_tiny", 5)
    names = names_in(LAYOUT, model, LAYOUT.classifiers[0])
    assert names is not None
    own = {key: torch.rand_like(x) if x.is_floating_point() else x for key, x in model.state_dict().items()}
    torch.save({"state_dict": {f"module.{names[key]}": x for key, x in own.items()}}, tmp_path / file)
    done = import_weights(str(tmp_path / file), "blvnet_tiny", str(tmp_path / "out") + "/")
    assert (done.layout, done.matched, done.recipe.num_frames) == ("blvnet_tam", len(own), num_frames)
    assert ("from the file's name: num_frames=32" in done.notes) == (num_frames == 32)
    read = load_labeller(tmp_path / "out").model.state_dict()
    assert all(torch.equal(read[key], x) for key, x in own.items())
