"""Non-local I3D and C2D: blocks in loops, the authors' shapes and places, counted cost, groups, and order."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from naive_volumes import convolved, filled, normed, params_of, pooled, relu, values
from ssan.errors import UsageError
from ssan.models.catalogue import MODELS, build, specification, without_memory
from ssan.models.cost import multiply_adds, num_parameters
from ssan.models.inflate import inflated_to
from ssan.models.nl_i3d import NonLocalI3D, PooledNonLocal, VolumeBottleneck
from ssan.models.resnet import Bottleneck, ResNet
from ssan.weights.state_dict import load_backbone

GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.mark.parametrize(("length", "stride", "num_in"), [(3, 2, 4), (1, 1, 8)])
def test_a_bottleneck_looks_over_frames_in_its_first_convolution_and_strides_in_space(
    length: int, stride: int, num_in: int
) -> None:
    block, x = filled(VolumeBottleneck(num_in, 2, stride, length)), values(1, num_in, 3, 4, 5)
    p, given = params_of(block), x[0].numpy()
    y = relu(normed(convolved(given, p["conv1.weight"], padding=(length // 2, 0, 0)), p, "bn1"))
    y = relu(normed(convolved(y, p["conv2.weight"], (1, stride, stride), (0, 1, 1)), p, "bn2"))
    y = normed(convolved(y, p["conv3.weight"]), p, "bn3")
    if stride == 2:
        given = normed(convolved(given, p["downsample.0.weight"], (1, 2, 2)), p, "downsample.1")
    with torch.no_grad():
        np.testing.assert_allclose(block(x)[0].numpy(), relu(y + given), rtol=0, atol=1e-12)
    assert (block.downsample is None) == (stride == 1)


def attended_in_loops(x: np.ndarray, p: dict[str, np.ndarray]) -> np.ndarray:
    """One clip (c, t, h, w): each position over the positions of the pooled features of all frames."""
    keys = pooled(x, (1, 2, 2), (1, 2, 2)).reshape(len(x), -1)
    phi = p["phi.weight"] @ keys
    g = p["g.weight"] @ keys + p["g.bias"][:, None]
    out = np.empty_like(x)
    for at in np.ndindex(*x.shape[1:]):
        theta = p["theta.weight"] @ x[(slice(None), *at)] + p["theta.bias"]
        weights = np.exp([theta @ phi[:, j] / np.sqrt(len(theta)) for j in range(phi.shape[1])])
        out[(slice(None), *at)] = p["out.weight"] @ (g @ (weights / weights.sum()))
    return x + normed(out, p, "norm")


@pytest.mark.parametrize("size", [(2, 4, 4), (3, 5, 2)])
def test_a_non_local_block_pools_features_before_keys_and_values_and_leaves_an_odd_row_out(
    size: tuple[int, int, int],
) -> None:
    layer, x = filled(PooledNonLocal(6)), values(1, size[0], 6, *size[1:])
    expected = attended_in_loops(x[0].transpose(0, 1).numpy(), params_of(layer))
    with torch.no_grad():
        out = layer(x)[0].transpose(0, 1)
    np.testing.assert_allclose(out.numpy(), expected, rtol=0, atol=1e-12)


def test_a_non_local_block_starts_as_the_identity() -> None:
    layer, x = PooledNonLocal(4).double(), values(1, 2, 4, 2, 2)
    with torch.no_grad():
        assert torch.equal(layer(x), x)


def test_groups_of_frames_attend_by_themselves() -> None:
    whole, x = filled(PooledNonLocal(4)), values(2, 7, 4, 2, 4)
    grouped = PooledNonLocal(4, group_frames=3).double().eval()
    grouped.load_state_dict(whole.state_dict())
    with torch.no_grad():
        expected = torch.cat([whole(x[:, i : i + 3]) for i in (0, 3, 6)], dim=1)
        torch.testing.assert_close(grouped(x), expected, rtol=0, atol=1e-12)
        assert not torch.allclose(whole(x), expected)
        assert torch.equal(grouped(x[:, :3]), whole(x[:, :3]))


def on_meta(name: str = "nl_i3d_r50", **options: object) -> nn.Module:
    with without_memory():
        return build(name, 400, backbone_options=options).eval()


def shapes_on_the_way(network: nn.Module, t: int) -> tuple[list[tuple[int, ...]], tuple[int, ...]]:
    shapes: list[tuple[int, ...]] = []
    for name in ("conv1", "layer1", "layer2", "layer3", "layer4"):
        network.get_submodule(name).register_forward_hook(lambda _, __, out: shapes.append(tuple(out.shape[1:])))
    return shapes, tuple(network(torch.empty(1, t, 3, 224, 224, device="meta")).shape)


@pytest.mark.slow
@pytest.mark.parametrize(("t", "stride", "frames"), [(8, 1, [8, 8, 4]), (32, 2, [16, 8, 4]), (128, 2, [64, 32, 16])])
def test_shapes_on_the_way_are_the_authors(t: int, stride: int, frames: list[int]) -> None:
    shapes, out = shapes_on_the_way(on_meta(time_stride=stride, group_frames=4).backbone, t)
    stem, second, rest = frames
    assert shapes == [
        (64, stem, 112, 112), (256, second, 55, 55), (512, rest, 28, 28), (1024, rest, 14, 14), (2048, rest, 7, 7),
    ]  # fmt: skip
    assert out == (1, rest, 2048)


def test_inflated_blocks_and_non_local_blocks_are_where_the_authors_have_them() -> None:
    network = on_meta(group_frames=4).backbone
    lengths = [[block.conv1.kernel_size[0] for block in blocks] for blocks in network.stages.values()]
    assert lengths == [[3, 3, 3], [3, 1, 3, 1], [3, 1, 3, 1, 3, 1], [1, 3, 1]]
    found = {name: layer for name, layer in network.named_modules() if isinstance(layer, PooledNonLocal)}
    assert list(found) == [f"layer{n}.{i}.after_block" for n, i in [(2, 1), (2, 3), (3, 1), (3, 3), (3, 5)]]
    assert [layer.group_frames for layer in found.values()] == [4, 4, 0, 0, 0]
    assert [layer.theta.out_features for layer in found.values()] == [256, 256, 512, 512, 512]
    plain = on_meta("c2d_nl_r50").backbone
    assert {module.kernel_size[0] for module in plain.modules() if isinstance(module, nn.Conv3d)} == {1}
    assert sum(isinstance(module, PooledNonLocal) for module in plain.modules()) == 5
    assert not any(isinstance(module, PooledNonLocal) for module in on_meta(non_local=False).modules())


def test_cost_is_that_of_a_port_less_the_biases_that_change_nothing() -> None:
    """28.04 M and 32.83 G without non-local blocks, 35.40 M and 40.96 G with them, for 32 frames."""
    plain, whole = on_meta(time_stride=2, non_local=False), on_meta(time_stride=2)
    assert (round(num_parameters(plain) / 1e6, 2), round(multiply_adds(plain, 32, 224) / 1e9, 2)) == (28.04, 32.83)
    assert (round(num_parameters(whole) / 1e6, 2), round(multiply_adds(whole, 32, 224) / 1e9, 2)) == (35.40, 40.96)


@pytest.mark.slow
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(("t", "h", "w"), [(1, 1, 1), (3, 17, 40), (9, 64, 33)])
def test_a_clip_of_any_size_is_described(stride: int, t: int, h: int, w: int) -> None:
    out = on_meta(time_stride=stride).backbone(torch.empty(2, t, 3, h, w, device="meta"))
    assert out.shape == (2, max(1, t // (8 if stride == 2 else 2)), 2048)


class OnlyPooling(NonLocalI3D):
    def feature_map(self, clips: Tensor) -> Tensor:
        return clips


def test_a_larger_picture_is_averaged_over_windows_of_seven() -> None:
    """A row of 9 pixels, 0 to 8, in 3 windows of 7 with means 3, 4, 5; what lies at the edge is in one of them."""
    row = torch.arange(9.0).expand(1, 1, 2, 7, 9).clone()
    network = OnlyPooling((1,), width=4)
    assert network(row).flatten().tolist() == pytest.approx([4.0, 4.0])
    row[..., 0] += 7 * 3
    assert network(row).flatten().tolist() == pytest.approx([5.0, 5.0])


@pytest.mark.slow
def test_each_tensor_of_a_resnet_of_pictures_has_its_place() -> None:
    theirs = json.loads((GOLDEN / "torchvision_resnet50.json").read_text(encoding="utf-8"))
    theirs = {name: shape for name, shape in theirs.get("shapes", theirs).items() if not name.startswith("fc.")}
    for name in ("nl_i3d_r50", "c2d_nl_r50"):
        own = {key: tensor.shape for key, tensor in on_meta(name).backbone.state_dict().items()}
        own = {key: shape for key, shape in own.items() if ".after_block." not in key}
        made = inflated_to({key: torch.empty(shape, device="meta") for key, shape in theirs.items()}, own)
        assert {key: tensor.shape for key, tensor in made.items()} == own


def test_a_file_of_pictures_is_loaded_and_leaves_only_the_non_local_blocks_as_they_start() -> None:
    model, pictures = build("nl_i3d_tiny", 3), ResNet(Bottleneck, (1, 2, 2), width=16)
    report = load_backbone(model, pictures.state_dict(), source="file")
    assert {name.split(".")[3] for name in report.missing if not name.startswith("fc.")} == {"after_block"}
    assert (report.unexpected, report.inflated) == ([], 1 + 5 * 3 + 3)
    clip = values(1, 1, 3, 48, 48).float()
    with torch.no_grad():
        assert model.eval()(clip).isfinite().all()


def test_c2d_knows_neighbours_and_not_which_of_two_comes_first() -> None:
    network, clip = filled(NonLocalI3D((1, 2, 2), width=4, inflated=False)), values(1, 4, 3, 48, 48)
    with torch.no_grad():
        scores = [network(clip[:, order]).mean(dim=1) for order in ([0, 1, 2, 3], [3, 2, 1, 0], [0, 2, 1, 3])]
    torch.testing.assert_close(scores[1], scores[0], rtol=0, atol=1e-9)
    assert (scores[2] - scores[0]).abs().max() > 1e-6 * scores[0].abs().max()
    assert MODELS["c2d_nl_r50"].knows_order


def test_the_catalogue_has_its_frames_and_its_options_are_checked() -> None:
    spec = specification("nl_i3d_r50")
    assert (spec.num_frames, spec.size_px) == (8, 224)
    assert (spec.preprocess["stride"], spec.preprocess["frames_per_second"]) == (8, 30.0)
    with pytest.raises(UsageError, match=r"nl_i3d: width is 16 and time_stride 3; expected 1 or more, and 1 \(frames"):
        build("nl_i3d_tiny", 3, backbone_options={"time_stride": 3})
