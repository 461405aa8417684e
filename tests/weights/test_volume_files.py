"""Files of networks over time and space: names and shapes of the peers' own networks, read one to one.

``golden/NETWORK.json.gz`` was written by ``benchmarks/parity/NETWORK_parity.py --golden``.
"""

import gzip
import json
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

from ssan.models.catalogue import build, without_memory
from ssan.models.classifier import Classifier
from ssan.weights.layouts import LAYOUTS, fit, names_in, num_classes_in


class File(NamedTuple):
    """A released file: where its names are kept, whose they are, and how many.

    :param places: some names by ours, worked by hand.
    """

    golden: str
    key: str
    model: str
    layout: str
    num_tensors: int
    places: dict[str, str]
    num_classes: int = 400
    num_dropped: int = 0


FILES = [
    File(
        "r3d", "r3d_r18", "r3d_r18", "torchvision", 122,
        {
            "backbone.conv1.weight": "stem.0.weight",
            "backbone.bn1.running_var": "stem.1.running_var",
            "backbone.layer1.0.conv2.weight": "layer1.0.conv2.0.weight",
            "backbone.layer3.1.bn1.bias": "layer3.1.conv1.1.bias",
            "backbone.layer2.0.downsample.1.running_mean": "layer2.0.downsample.1.running_mean",
            "fc.bias": "fc.bias",
        },
    ),
    File(
        "r3d", "r3d_r50", "r3d_r50", "torchvision", 320,
        {
            "backbone.layer4.2.conv3.weight": "layer4.2.conv3.0.weight",
            "backbone.layer1.0.bn3.weight": "layer1.0.conv3.1.weight",
            "backbone.layer1.0.downsample.0.weight": "layer1.0.downsample.0.weight",
        },
    ),
    File(
        "c3d", "c3d", "c3d", "mmaction2", 22,
        {
            "backbone.conv1a.weight": "backbone.conv1a.conv.weight",
            "backbone.conv5b.bias": "backbone.conv5b.conv.bias",
            "backbone.fc6.weight": "backbone.fc6.weight",
            "fc.weight": "cls_head.fc_cls.weight",
        },
        num_classes=101,
    ),
    File(
        "resnext3d", "resnext3d_101", "resnext3d_101", "3d_resnets", 626,
        {
            "backbone.layer3.22.conv2.weight": "layer3.22.conv2.weight",
            "backbone.layer1.0.downsample.1.bias": "layer1.0.downsample.1.bias",
            "fc.weight": "fc.weight",
        },
    ),
    File(
        "nl_i3d", "pytorch_resnet3d", "nl_i3d_r50", "pytorch_resnet3d", 385,
        {
            "backbone.layer2.3.after_block.theta.weight": "layer2.3.nl.theta.weight",
            "backbone.layer3.5.after_block.norm.running_var": "layer3.5.nl.bn.running_var",
            "backbone.layer3.1.after_block.out.bias": "layer3.1.nl.out.bias",
            "backbone.layer1.0.bn1.weight": "layer1.0.bn1.weight",
            "fc.bias": "fc.bias",
        },
        num_dropped=5,
    ),
]  # fmt: skip


@pytest.fixture(params=FILES, ids=lambda file: f"{file.model}-{file.layout}")
def file(request: pytest.FixtureRequest) -> File:
    return request.param


@cache
def shapes(model: str, num_classes: int) -> Classifier:
    with without_memory():
        return build(model, num_classes)


def golden(file: File) -> dict[str, list[int]]:
    path = Path(__file__).parents[1] / f"golden/{file.golden}.json.gz"
    return json.loads(gzip.decompress(path.read_bytes()))[file.key]


def test_each_tensor_of_a_file_is_one_of_ours_and_none_is_left(file: File) -> None:
    kept, model = golden(file), shapes(file.model, file.num_classes)
    names = names_in(LAYOUTS[file.layout], model, LAYOUTS[file.layout].classifiers[0])
    assert names is not None
    assert len(kept) == file.num_tensors
    assert len(set(names.values())) == len(names)
    counters = {name for key, name in names.items() if key.endswith("num_batches_tracked")}
    assert set(names.values()) - set(kept) <= counters
    assert set(kept) <= set(names.values())
    assert {key: names[key] for key in file.places} == file.places


def test_a_file_is_told_by_its_names_and_fits(file: File) -> None:
    state = {name: torch.empty(shape, device="meta") for name, shape in golden(file).items()}
    state = {name: tensor.long() if "num_batches" in name else tensor for name, tensor in state.items()}
    model = shapes(file.model, file.num_classes)
    found = fit(state, model)
    assert found is not None
    assert (found.layout, found.missing, found.unexpected, found.reshaped) == (file.layout, [], [], [])
    assert set(found.tensors) >= {key for key in model.state_dict() if not key.endswith("_tracked")}
    assert len(found.dropped) == file.num_dropped
    assert num_classes_in(state) == file.num_classes
