"""3-D ResNets: blocks in loops, shapes of torchvision's network, its published cost, and filters of pictures."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from naive_volumes import convolved, filled, normed, params_of, relu, values
from ssan.errors import UsageError
from ssan.models.catalogue import build, specification, without_memory
from ssan.models.cost import multiply_adds, num_parameters
from ssan.models.inflate import inflated_to
from ssan.models.r3d import BasicBlock3D, Bottleneck3D, ResNet3D
from ssan.models.resnet import BasicBlock, ResNet
from ssan.weights.state_dict import load_backbone

GOLDEN = Path(__file__).parents[1] / "golden"
ONE, TWO = (1, 1, 1), (2, 2, 2)


def shortcut(num_in: int, num_out: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv3d(num_in, num_out, 1, 2, bias=False), nn.BatchNorm3d(num_out))


def test_a_basic_block_strides_in_its_first_convolution_and_its_shortcut() -> None:
    block, x = filled(BasicBlock3D(3, 4, 2, shortcut(3, 4))), values(1, 3, 4, 5, 3)
    p = params_of(block)
    y = relu(normed(convolved(x[0].numpy(), p["conv1.weight"], TWO, ONE), p, "bn1"))
    y = normed(convolved(y, p["conv2.weight"], ONE, ONE), p, "bn2")
    y = relu(y + normed(convolved(x[0].numpy(), p["downsample.0.weight"], TWO), p, "downsample.1"))
    assert y.shape == (4, 2, 3, 2)
    with torch.no_grad():
        np.testing.assert_allclose(block(x)[0].numpy(), y, rtol=0, atol=1e-12)


def test_a_bottleneck_strides_in_its_middle_convolution_and_adds_what_it_was_given() -> None:
    strided, x = filled(Bottleneck3D(4, 1, 2, shortcut(4, 4))), values(1, 4, 3, 4, 2)
    for block, stride in ((strided, TWO), (filled(Bottleneck3D(4, 1)), ONE)):
        p = params_of(block)
        y = relu(normed(convolved(x[0].numpy(), p["conv1.weight"]), p, "bn1"))
        y = relu(normed(convolved(y, p["conv2.weight"], stride, ONE), p, "bn2"))
        y = normed(convolved(y, p["conv3.weight"]), p, "bn3")
        if stride == TWO:
            y += normed(convolved(x[0].numpy(), p["downsample.0.weight"], TWO), p, "downsample.1")
        else:
            y += x[0].numpy()
        with torch.no_grad():
            np.testing.assert_allclose(block(x)[0].numpy(), relu(y), rtol=0, atol=1e-12)


def on_meta(name: str, **options: int) -> nn.Module:
    with without_memory():
        return build(name, 400, backbone_options=options).eval()


@pytest.mark.parametrize(("time_stride", "frames"), [(1, [16, 16, 8, 4, 2]), (2, [8, 8, 4, 2, 1])])
def test_shapes_on_the_way_are_those_of_the_table(time_stride: int, frames: list[int]) -> None:
    network, shapes = on_meta("r3d_r18", time_stride=time_stride).backbone, []
    for name in ("conv1", "layer1", "layer2", "layer3", "layer4"):
        network.get_submodule(name).register_forward_hook(lambda _, __, out: shapes.append(tuple(out.shape[1:])))
    assert network(torch.empty(2, 16, 3, 112, 112, device="meta")).shape == (2, frames[-1], 512)
    sides, channels = [56, 56, 28, 14, 7], [64, 64, 128, 256, 512]
    assert shapes == [(c, t, side, side) for c, t, side in zip(channels, frames, sides, strict=True)]


@pytest.mark.slow
@pytest.mark.parametrize(("t", "h", "w", "expected"), [(1, 1, 1, 1), (9, 33, 20, 2), (17, 8, 50, 3)])
def test_a_clip_of_any_size_is_described(t: int, h: int, w: int, expected: int) -> None:
    for name, length in (("r3d_r18", 512), ("r3d_r34", 512), ("r3d_r50", 2048)):
        out = on_meta(name).backbone(torch.empty(1, t, 3, h, w, device="meta"))
        assert out.shape == (1, expected, length)


def test_cost_is_torchvisions() -> None:
    """33,371,472 parameters and 40.697 G for 400 classes and 16 frames of 112 px, in its weights' own description."""
    model = on_meta("r3d_r18")
    assert num_parameters(model) == 33_371_472
    assert round(multiply_adds(model, 16, 112) / 1e9, 3) == 40.697
    halved = multiply_adds(on_meta("r3d_r18", time_stride=2), 16, 112)
    assert 2 * halved == multiply_adds(model, 16, 112)


@pytest.mark.parametrize("depth", [18, 34, 50])
def test_each_tensor_of_a_resnet_of_pictures_has_its_place(depth: int) -> None:
    theirs = json.loads((GOLDEN / f"torchvision_resnet{depth}.json").read_text(encoding="utf-8"))
    theirs = {name: shape for name, shape in theirs.get("shapes", theirs).items() if not name.startswith("fc.")}
    own = {name: tensor.shape for name, tensor in on_meta(f"r3d_r{depth}").backbone.state_dict().items()}
    assert set(theirs) == set(own)
    state = {name: torch.empty(shape, device="meta") for name, shape in theirs.items()}
    made = inflated_to(state, own)
    assert {name: tensor.shape for name, tensor in made.items()} == own
    assert all(made[name].dim() == 5 for name, tensor in state.items() if tensor.dim() == 4)


def test_a_file_of_pictures_is_loaded_inflated_and_whole() -> None:
    model, pictures = build("r3d_tiny", 3), ResNet(BasicBlock, (1, 1, 1), width=16)
    report = load_backbone(model, pictures.state_dict(), source="file")
    assert [name for name in report.missing if not name.startswith("fc.")] == []
    assert (report.unexpected, report.inflated) == ([], 9)  # the stem, two in each of 3 blocks, and 2 shortcuts
    taken, given = model.backbone.conv1.weight, pictures.conv1.weight
    assert torch.equal(taken, (given / 3).unsqueeze(2).expand_as(taken))


def test_the_catalogue_has_torchvisions_frames_and_size() -> None:
    spec = specification("r3d_r18")
    assert (spec.num_frames, spec.size_px) == (16, 112)
    assert spec.preprocess["frames_per_second"] == 15.0
    with pytest.raises(UsageError, match=r"r3d: width is 16 and time_stride 0; both must be 1 or more"):
        build("r3d_tiny", 3, backbone_options={"time_stride": 0})


def test_the_blocks_of_its_stages_and_the_stem_are_all_of_it() -> None:
    with without_memory():
        network = ResNet3D(BasicBlock3D, (1, 2))
    held = [block for blocks in network.stages.values() for block in blocks]
    assert [type(block) for block in held] == [BasicBlock3D] * 3
    num = sum(num_parameters(part) for part in (*held, network.conv1, network.bn1))
    assert num == num_parameters(network)
