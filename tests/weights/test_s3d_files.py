"""Files of S3D: names and shapes of the peers' own networks, read one to one; MIL-NCE's text tower stays out.

``golden/s3d.json.gz`` was written by ``benchmarks/parity/s3d_parity.py --golden``.
"""

import gzip
import json
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import Tensor

from ssan.cli.main import status
from ssan.models.catalogue import build, without_memory
from ssan.models.classifier import Classifier
from ssan.video.preprocess import Preprocess
from ssan.weights.classifier_file import load_labeller
from ssan.weights.layouts import LAYOUTS, fit, names_in

GOLDEN: dict[str, dict[str, list[int]]] = json.loads(
    gzip.decompress((Path(__file__).parents[1] / "golden/s3d.json.gz").read_bytes())
)
# Our network, its outputs, and the tensors in a file of it: of MIL-NCE's five are the text tower's.
FILES = {"torchvision": ("s3d", 400, 464), "kylemin_s3d": ("s3d", 400, 464), "milnce": ("s3d_milnce", 512, 537)}
TEXT = "text_module."


@cache
def shapes(name: str, num_classes: int) -> Classifier:
    with without_memory():
        return build(name, num_classes)


def placed(layout: str) -> dict[str, str]:
    name, num_classes, _ = FILES[layout]
    names = names_in(LAYOUTS[layout], shapes(name, num_classes), LAYOUTS[layout].classifiers[0])
    if layout == "torchvision":  # the second of the prefixes that its files have
        names = {key: value.replace("fc.", "classifier.1.") for key, value in (names or {}).items()}
    assert names is not None
    return names


@pytest.mark.parametrize("layout", FILES)
def test_each_tensor_of_a_file_is_one_of_ours_and_none_is_left(layout: str) -> None:
    name, num_classes, num_tensors = FILES[layout]
    names, own = placed(layout), shapes(name, num_classes).state_dict()
    assert len(GOLDEN[layout]) == num_tensors
    assert len(set(names.values())) == len(names)
    assert set(names) == set(own)
    assert set(GOLDEN[layout]) - set(names.values()) == {key for key in GOLDEN[layout] if key.startswith(TEXT)}
    for key, tensor in own.items():
        theirs = GOLDEN[layout][names[key]]
        assert theirs == list(tensor.shape) if len(theirs) < 5 or tensor.dim() == 5 else theirs[:2], key


# A few tensors worked by hand, each from another kind of place, after what the peers' code builds there.
PLACES = {
    "backbone.conv_2b.norm.bias": ("features.2.1.bias", "base.2.bn.bias", "conv_2b.bn1.bias"),
    "backbone.mixed_3b.branch_0.norm.running_var": (
        "features.5.branch0.1.running_var", "base.5.branch0.0.bn.running_var", "mixed_3b.conv_b0.bn1.running_var",
    ),
    "backbone.mixed_4d.branch_1.1.space.conv.weight": (
        "features.10.branch1.1.0.0.weight", "base.10.branch1.1.conv_s.weight", "mixed_4d.conv_b1_b.conv1.weight",
    ),
    "backbone.mixed_4f.branch_2.1.time.norm.running_mean": (
        "features.12.branch2.1.1.1.running_mean", "base.12.branch2.1.bn_t.running_mean",
        "mixed_4f.conv_b2_b.bn2.running_mean",
    ),
    "backbone.mixed_5b.branch_2.0.conv.weight": (
        "features.14.branch2.0.0.weight", "base.14.branch2.0.conv.weight", "mixed_5b.conv_b2_a.conv1.weight",
    ),
    "backbone.mixed_5c.branch_3.conv.weight": (
        "features.15.branch3.1.0.weight", "base.15.branch3.1.conv.weight", "mixed_5c.conv_b3_b.conv1.weight",
    ),
    "fc.bias": ("classifier.1.bias", "fc.0.bias", "fc.bias"),
}  # fmt: skip
# Of the stem, and of gates, which one of the three has.
ALONE = [
    {"backbone.conv_1a.time.conv.weight": "features.0.1.0.weight"},
    {"backbone.conv_1a.space.norm.weight": "base.0.bn_s.weight"},
    {
        "backbone.conv_1a.conv.weight": "conv1.conv1.weight",
        "backbone.conv_2c.fc.bias": "gating.fc.bias",
        "backbone.mixed_4e.branch_1.1.fc.weight": "mixed_4e.gating_b1.fc.weight",
        "backbone.mixed_4e.branch_3.fc.bias": "mixed_4e.gating_b3.fc.bias",
    },
]


@pytest.mark.parametrize("number", range(3))
def test_places_by_hand(number: int) -> None:
    layout = list(FILES)[number]
    names = {key.replace(".unit.", "."): name for key, name in placed(layout).items()}
    expected = {**{key: places[number] for key, places in PLACES.items()}, **ALONE[number]}
    assert {key: names[key] for key in expected} == expected


@pytest.mark.parametrize("layout", FILES)
def test_a_file_is_told_by_its_names_and_fits_no_other_form(layout: str) -> None:
    name, num_classes, _ = FILES[layout]
    state = {key: torch.empty(shape, device="meta") for key, shape in GOLDEN[layout].items()}
    state = {key: tensor.long() if "num_batches" in key else tensor for key, tensor in state.items()}
    found = fit(state, shapes(name, num_classes))
    assert found is not None
    assert (found.layout, found.num_wrong) == (layout, 0)
    assert found.left_out == [key for key in state if key.startswith(TEXT)]
    for other in {"s3d", "s3dg", "s3d_milnce"} - {name}:
        unfit = fit(state, shapes(other, num_classes))
        assert unfit is not None
        assert unfit.num_wrong > 0


@pytest.mark.slow
@pytest.mark.parametrize("layout", FILES)
def test_each_file_is_imported_whole(layout: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    name, _, num_tensors = FILES[layout]
    file, out = tmp_path / "weights.pth", tmp_path / "model.safetensors"
    generator = torch.Generator().manual_seed(0)
    state: dict[str, Tensor] = {}
    for key, shape in GOLDEN[layout].items():
        small = [3 if n in (400, 512) and key.startswith(("classifier", "fc.")) else n for n in shape]
        small = [7, *shape[1:]] if key.endswith("word_embd.weight") else small
        # Only small tensors are random: what large ones hold would take longest.
        large = torch.Size(small).numel() > 10_000
        values = torch.zeros(small) if large else torch.rand(small, generator=generator) + 0.5
        state[f"module.{key}"] = values.long() if "num_batches" in key else values
    torch.save(state, file)
    assert status(["import", str(file), "--as", name, "-o", str(out), "--json"]) == 0
    said = capfd.readouterr()
    answer = json.loads(said.out)
    assert (answer["layout"], answer["matched"]) == (layout, num_tensors - 5 * (layout == "milnce"))
    assert (answer["missing"], answer["unexpected"]) == ([], [])
    assert ("5 tensors of another part are left out: text_module.word_embd.weight" in said.err) == (layout == "milnce")
    assert ("give backbone.pixels=kinetics" in said.err) == (layout == "torchvision")
    labeller = load_labeller(out)
    frames, size_px, rate = (32, 224, 10.0) if layout == "milnce" else (64, 256, 25.0)
    assert labeller.preprocess == Preprocess(frames, "dense", 1, "short_side", size_px, 224, rate)
    own = {key.replace(".unit.", "."): tensor for key, tensor in labeller.model.state_dict().items()}
    for key, places in PLACES.items():
        values = state[f"module.{places[list(FILES).index(layout)]}"]
        assert torch.equal(own[key].reshape(values.shape), values), key
