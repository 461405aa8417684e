"""bLVNet-TAM: which frame goes where, what a shortcut takes, how two sizes meet, shapes on the way, and cost."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import naive
from ssan.errors import UsageError
from ssan.layers import TemporalAggregation
from ssan.models.blvnet import AggregatedBottleneck, BigLittleModule, BigLittleStem, BLVNet, branch
from ssan.models.catalogue import build, specification, without_memory
from ssan.models.classifier import Classifier
from ssan.models.cost import multiply_adds, num_parameters


def values(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def randomised(module: nn.Module) -> nn.Module:
    """Every weight and statistic random, in float64 and evaluation."""
    for seed, (name, tensor) in enumerate(module.double().eval().state_dict().items()):
        if tensor.is_floating_point():
            tensor.copy_(values(*tensor.shape, seed=seed) if tensor.dim() else tensor)
            if name.endswith("running_var"):
                tensor.abs_().add_(0.5)
    return module


def on_meta(name: str, num_classes: int = 174) -> Classifier:
    with without_memory():
        return build(name, num_classes)


def aggregated(x: Tensor, layer: nn.Module) -> Tensor:
    return torch.from_numpy(
        naive.temporal_aggregation(x.numpy(), {k: v.numpy() for k, v in layer.state_dict().items()})
    )


def averaged_over_3x3(x: Tensor) -> Tensor:
    """Every second pixel (c, h, w) with its eight neighbours, of which those outside are zeros that count."""
    c, h, w = x.shape
    out = np.zeros((c, (h + 1) // 2, (w + 1) // 2))
    for i in range(out.shape[1]):
        for j in range(out.shape[2]):
            for y in range(2 * i - 1, 2 * i + 2):
                for z in range(2 * j - 1, 2 * j + 2):
                    if 0 <= y < h and 0 <= z < w:
                        out[:, i, j] += x[:, y, z].numpy() / 9
    return torch.from_numpy(out)


def convolved(block: AggregatedBottleneck, frame: Tensor) -> Tensor:
    """The three convolutions of a block over one frame (c, h, w)."""
    y = block.bn1(block.conv1(frame[None])).relu()
    y = block.bn2(block.conv2(y)).relu()
    return block.bn3(block.conv3(y))[0]


@torch.no_grad()
def test_a_shortcut_without_layers_takes_the_features_before_the_aggregation() -> None:
    block, x = randomised(AggregatedBottleneck(12, 12, aggregated=True)), values(2, 3, 12, 5, 7)
    inner = aggregated(x, block.aggregation)
    for b in range(2):
        for t in range(3):
            expected = (convolved(block, inner[b, t]) + x[b, t]).relu()
            torch.testing.assert_close(block(x)[b, t], expected, rtol=0, atol=1e-10)


@torch.no_grad()
@pytest.mark.parametrize(("num_in", "stride"), [(8, 2), (12, 2), (8, 1)])
def test_a_shortcut_with_layers_takes_the_aggregated_features_averaged_where_the_block_strides(
    num_in: int, stride: int
) -> None:
    block, x = randomised(AggregatedBottleneck(num_in, 12, stride, aggregated=True)), values(2, 3, num_in, 5, 8)
    inner = aggregated(x, block.aggregation)
    for b in range(2):
        for t in range(3):
            short = averaged_over_3x3(inner[b, t]) if stride == 2 else inner[b, t]
            if num_in != 12:
                *_, conv, norm = block.downsample
                short = norm(conv(short[None]))[0]
            expected = (convolved(block, inner[b, t]) + short).relu()
            torch.testing.assert_close(block(x)[b, t], expected, rtol=0, atol=1e-10)


@torch.no_grad()
def test_a_branch_strides_in_its_first_block_and_may_end_without_a_relu() -> None:
    big, x = randomised(branch(8, 12, 3, 2, last_relu=False)), values(1, 2, 8, 9, 6)
    assert [block.conv2.stride for block in big] == [(2, 2), (1, 1), (1, 1)]
    assert [block.last_relu for block in big] == [True, True, False]
    assert big(x).shape == (1, 2, 12, 5, 3)
    assert (big(x) < 0).any()
    assert [block.last_relu for block in branch(8, 12, 2, 1, last_relu=True)] == [True, True]
    assert [block.last_relu for block in branch(8, 12, 1, 2, last_relu=False)] == [True]  # as released
    assert all(block.aggregation is None for block in big)


@torch.no_grad()
@pytest.mark.parametrize(("height", "width"), [(8, 6), (5, 7)])
@pytest.mark.parametrize("stride", [1, 2])
def test_a_stage_gives_the_second_frame_to_the_deep_branch_and_repeats_its_pixels(
    height: int, width: int, stride: int
) -> None:
    stage, x = randomised(BigLittleModule(8, 16, 3, stride, alpha=2, beta=4)), values(2, 6, 8, height, width)
    inner, out = aggregated(x, stage.aggregation), stage(x)
    rows, columns = (height + 1) // 2, (width + 1) // 2
    for b in range(2):
        for pair in range(3):
            little = stage.widen(stage.little(inner[b : b + 1, 2 * pair][:, None])[:, 0])[0]
            big = stage.big(inner[b : b + 1, 2 * pair + 1][:, None])[0, 0]
            assert big.shape == (16, rows, columns)
            both = little.clone()
            for i in range(height):
                for j in range(width):
                    both[:, i, j] += big[:, i * rows // height, j * columns // width]
            expected = stage.fusion(both.relu()[None, None])[0, 0]
            torch.testing.assert_close(out[b, pair], expected, rtol=0, atol=1e-9)


@torch.no_grad()
def test_the_stem_gives_the_second_frame_to_its_short_branch() -> None:
    stem, x = randomised(BigLittleStem(8, 2)), values(2, 4, 8, 6, 5)
    inner, out = aggregated(x, stem.aggregation), stem(x)
    assert out.shape == (2, 2, 8, 3, 3)
    for b in range(2):
        for pair in range(2):
            first, second = inner[b, 2 * pair][None], inner[b, 2 * pair + 1][None]
            expected = stem.merge((stem.big(second) + stem.little(first)).relu()).relu()[0]
            torch.testing.assert_close(out[b, pair], expected, rtol=0, atol=1e-10)


def test_depths_of_the_branches_are_those_of_big_little_net() -> None:
    def depths(name: str) -> list[tuple[int, int]]:
        network = on_meta(name).backbone
        stages = [network.get_submodule(f"layer{n}") for n in (1, 2, 3)]
        assert all(type(stage.fusion) is AggregatedBottleneck and not stage.fusion.aggregation for stage in stages)
        return [(len(stage.big), len(stage.little)) for stage in stages]

    assert depths("blvnet_r50") == [(2, 1), (3, 1), (5, 1)]
    assert depths("blvnet_r101") == [(3, 1), (7, 1), (17, 3)]
    for name in ("blvnet_r50", "blvnet_r101"):
        network = on_meta(name).backbone
        assert [block.aggregation.channels for block in network.layer4] == [1024, 2048, 2048]
        assert sum(isinstance(module, TemporalAggregation) for module in network.modules()) == 7


@pytest.mark.slow
def test_shapes_on_the_way_are_those_of_the_drawing() -> None:
    network = on_meta("blvnet_r50").backbone.eval()
    shapes = {}
    for name, module in network.named_children():
        module.register_forward_hook(lambda _, __, out, name=name: shapes.update({name: tuple(out.shape[1:])}))
    assert network(torch.empty(2, 16, 3, 224, 224, device="meta")).shape == (2, 8, 2048)
    assert shapes == {
        "conv1": (64, 112, 112), "bn1": (64, 112, 112), "stem": (8, 64, 56, 56), "layer1": (8, 256, 28, 28),
        "layer2": (8, 512, 14, 14), "layer3": (8, 1024, 14, 14), "layer4": (8, 2048, 7, 7),
    }  # fmt: skip
    for t, height, width, expected in [(2, 112, 112, 1), (7, 33, 97, 4), (1, 1, 1, 1)]:
        assert network(torch.empty(1, t, 3, height, width, device="meta")).shape == (1, expected, 2048)


@torch.no_grad()
def test_a_map_is_handed_on_as_that_of_both_frames_of_its_pair() -> None:
    network, seen = build("blvnet_tiny", 2).backbone, []
    network.layer2.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    network.layer1.register_forward_hook(lambda _, __, out: seen.append(out))
    network(values(1, 4, 3, 32, 32).float())
    pairs, frames = seen
    assert torch.equal(frames[:, ::2], pairs)
    assert torch.equal(frames[:, 1::2], pairs)


@torch.no_grad()
def test_the_last_of_an_odd_number_of_frames_stands_twice() -> None:
    network, clip = randomised(build("blvnet_tiny", 2)), values(2, 3, 3, 20, 28)
    assert network.backbone(clip).shape == (2, 2, 512)
    assert torch.equal(network(clip), network(clip[:, [0, 1, 2, 2]]))
    assert not torch.allclose(network(clip), network(clip[:, [0, 1, 2, 1]]))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "params", "of_16", "of_32"),
    [("blvnet_r50", 25_020_142, 23.85, 47.70), ("blvnet_r101", 40_177_134, 32.15, 64.30)],
)
def test_cost_is_that_counted_on_the_authors_code(name: str, params: int, of_16: float, of_32: float) -> None:
    model = on_meta(name)
    assert num_parameters(model) == params
    assert [round(multiply_adds(model, num, 224) / 1e9, 2) for num in (16, 32)] == [of_16, of_32]


def test_every_block_starts_as_its_shortcut() -> None:
    network = BLVNet((2, 2, 2, 1), width=8)
    blocks = [block for block in network.modules() if isinstance(block, AggregatedBottleneck)]
    assert len(blocks) == 3 * 3 + 1
    assert all((block.bn3.weight == 0).all() and (block.bn1.weight == 1).all() for block in blocks)
    x = F.relu(torch.randn(1, 2, 32, 4, 4))
    same = next(block for block in blocks if block.downsample is None and block.conv1.in_channels == 32)
    torch.testing.assert_close(same(x), x)


def test_the_catalogue_has_its_frames_size_and_options() -> None:
    spec = specification("blvnet_r50")
    assert (spec.num_frames, spec.size_px, spec.knows_order, spec.places) == (16, 224, True, None)
    assert spec.preprocess == {"num_frames": 16, "resize": "short_side", "size_px": 224}
    with without_memory():
        assert build("blvnet_r50", 2, backbone_options={"width": 32}).backbone.num_features == 1024
        for options in ({"alpha": 0}, {"alpha": 65}, {"beta": 0}):
            with pytest.raises(UsageError, match=r"blvnet: alpha is \d+ and beta \d; alpha must lie between"):
                build("blvnet_r50", 2, backbone_options=options)
