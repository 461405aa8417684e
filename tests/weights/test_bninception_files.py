"""Files of BN-Inception: TSM's, TRN's and ImageNet's, by names and shapes of the network in TSM's code.

``golden/bninception.json.gz`` was written by ``benchmarks/parity/bninception_parity.py --golden``. TRN's own network,
of yjxiong's tensorflow-model-zoo.torch, has these names too; its head's are those of TRNmodule.py there.
"""

import gzip
import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from ssan.models.catalogue import build, without_memory
from ssan.models.classifier import Classifier
from ssan.weights.bninception_names import our_name, published_name
from ssan.weights.classifier_file import load_labeller
from ssan.weights.imported import import_weights
from ssan.weights.layouts import LAYOUTS, fit, names_in, num_classes_in, num_frames_in
from ssan.weights.state_dict import load_backbone

GOLDEN: dict[str, list[int]] = json.loads(
    gzip.decompress((Path(__file__).parents[1] / "golden/bninception.json.gz").read_bytes())
)["tsm"]


def shapes(name: str, num_classes: int = 174, num_frames: int = 8) -> Classifier:
    with without_memory():
        return build(name, num_classes, num_frames=num_frames)


def file_of_trn(num_frames: int = 8, num_classes: int = 174) -> dict[str, Tensor]:
    """TRN's: features of 256 numbers, and for each number of frames from all down to two, two linear layers."""
    sizes = {name: shape for name, shape in GOLDEN.items() if "num_batches" not in name}  # of torch 0.3
    sizes |= {"new_fc.weight": [256, 1024], "new_fc.bias": [256]}
    for number, frames in enumerate(range(num_frames, 1, -1)):
        place = f"consensus.fc_fusion_scales.{number}"
        sizes |= {f"{place}.1.weight": [256, 256 * frames], f"{place}.1.bias": [256]}
        sizes |= {f"{place}.3.weight": [num_classes, 256], f"{place}.3.bias": [num_classes]}
    return {name: torch.empty(shape, device="meta") for name, shape in sizes.items()}


@pytest.mark.parametrize("model", ["tsn_bninception", "tsm_bninception"])
def test_each_tensor_of_a_file_is_one_of_ours_and_none_is_left(model: str) -> None:
    own = shapes(model)
    names = names_in(LAYOUTS["tsm"], own, "new_fc.")
    assert names is not None
    assert len(set(names.values())) == len(names) == len(GOLDEN) == 485
    assert {names[key]: list(tensor.shape) for key, tensor in own.state_dict().items()} == GOLDEN


PLACES = {
    "conv1.0.weight": "conv1_7x7_s2.weight",
    "conv1.1.running_mean": "conv1_7x7_s2_bn.running_mean",
    "conv2.reduce.0.bias": "conv2_3x3_reduce.bias",
    "conv2.conv.1.weight": "conv2_3x3_bn.weight",
    "inception_3a.alone.0.weight": "inception_3a_1x1.weight",
    "inception_3c.single.0.1.bias": "inception_3c_3x3_reduce_bn.bias",
    "inception_4e.single.1.0.bias": "inception_4e_3x3.bias",
    "inception_4a.twofold.0.0.weight": "inception_4a_double_3x3_reduce.weight",
    "inception_5b.twofold.1.1.running_var": "inception_5b_double_3x3_1_bn.running_var",
    "inception_5b.twofold.2.0.weight": "inception_5b_double_3x3_2.weight",
    "inception_5a.pooled.1.num_batches_tracked": "inception_5a_pool_proj_bn.num_batches_tracked",
}


def test_places_by_hand_and_back() -> None:
    assert {ours: published_name(ours) for ours in PLACES} == PLACES
    assert {our_name(theirs): theirs for theirs in PLACES.values()} == PLACES
    for key in shapes("tsn_bninception").backbone.state_dict():
        assert our_name(published_name(key)) == key
    assert our_name("last_linear.weight") == "fc.weight"
    for other in ("layer1.0.conv1.weight", "conv1.weight", "inception_3a_5x5.weight", "features.0.0.weight", "fc.bias"):
        assert our_name(other) == other


@pytest.mark.parametrize("num_frames", [8, 3])
def test_a_file_of_trn_is_told_by_its_names_with_its_classes_and_frames(num_frames: int) -> None:
    state = file_of_trn(num_frames)
    assert (num_classes_in(state), num_frames_in(state)) == (174, num_frames)
    found = fit(state, shapes("trn_bninception", num_frames=num_frames))
    assert found is not None
    assert (found.layout, found.num_wrong, len(found.counters)) == ("trn", 0, 69)
    names = names_in(LAYOUTS["trn"], shapes("trn_bninception", num_frames=num_frames), "new_fc.")
    assert names is not None
    assert names["consensus.fuse.0.weight"] == f"consensus.fc_fusion_scales.{num_frames - 2}.1.weight"
    assert names[f"consensus.score.{num_frames - 2}.bias"] == "consensus.fc_fusion_scales.0.3.bias"


def test_relations_are_in_files_of_trn_alone() -> None:
    own = shapes("trn_bninception")
    assert [name for name, layout in LAYOUTS.items() if names_in(layout, own, layout.classifiers[0])] == ["trn"]


@pytest.mark.slow
def test_an_import_of_trns_file_takes_every_value(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    state = {name: torch.rand(x.shape, generator=generator) for name, x in file_of_trn(3, 5).items()}
    file = tmp_path / "TRN_something_RGB_BNInception_TRNmultiscale_segment3_best.pth.tar"
    torch.save({"state_dict": {f"module.{name}": x for name, x in state.items()}}, file)
    done = import_weights(str(file), "trn_bninception", str(tmp_path / "out") + "/")
    assert (done.layout, done.matched, done.recipe.num_frames, len(done.classes)) == ("trn", len(state), 3, 5)
    read = load_labeller(tmp_path / "out").model.state_dict()
    for ours, theirs in PLACES.items():
        if "num_batches" not in theirs:
            assert torch.equal(read[f"backbone.{ours}"], state[f"base_model.{theirs}"])
    assert torch.equal(read["consensus.fuse.1.weight"], state["consensus.fc_fusion_scales.0.1.weight"])


@pytest.mark.slow
def test_an_import_says_whether_the_network_is_taken_to_shift(tmp_path: Path) -> None:
    state = {
        name: torch.tensor(0) if "num_batches" in name else torch.ones([5 if n == 174 else n for n in shape])
        for name, shape in GOLDEN.items()
    }
    file = tmp_path / "TSM_something_RGB_BNInception_shift8_block_avg_segment8_e50.pth"
    torch.save(state, file)
    for model, does in [("tsn_bninception", "does not"), ("tsm_bninception", "does")]:
        notes = import_weights(str(file), model, str(tmp_path / model) + "/").notes
        assert f"tell whether BN-Inception shifts; it is read as {model}, which {does}" in "\n".join(notes)
        assert load_labeller(tmp_path / model).model.state_dict()["fc.weight"].shape == (5, 1024)


@pytest.mark.slow
@pytest.mark.parametrize("last", ["last_linear", "fc"])
def test_an_imagenet_file_fills_the_backbone(last: str) -> None:
    names = {name.removeprefix("base_model."): shape for name, shape in GOLDEN.items() if "new_fc" not in name}
    state = {name: torch.rand(shape) if shape else torch.tensor(0) for name, shape in names.items()}
    state |= {f"{last}.weight": torch.rand(1000, 1024), f"{last}.bias": torch.rand(1000)}
    model = build("tsm_bninception", 5)
    report = load_backbone(model, state, source="file")
    assert (report.matched, report.missing, report.unexpected) == (483, ["fc.weight", "fc.bias"], [])
    for ours, theirs in PLACES.items():
        assert torch.equal(model.backbone.state_dict()[ours], state[theirs])
