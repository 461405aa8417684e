"""S3D: paddings by hand and in loops, separated convolutions, gates, the three stems, shapes, cost, the catalogue."""

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssan.errors import UsageError
from ssan.models.catalogue import MODELS, NETWORKS, build, without_memory
from ssan.models.cost import multiply_adds, num_parameters
from ssan.models.i3d import MIXED, Mixed, Padding, UnscaledBatchNorm, max_pool, same_padding
from ssan.models.s3d import FORMS, S3D, FeatureGating, SeparableConv, SpaceToDepth, padding_behind, symmetric_padding


def values(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def on_meta(name: str, num_classes: int, **options: object) -> nn.Module:
    with without_memory():
        return build(name, num_classes, **options)  # type: ignore[arg-type]


# Padding and pooling.


def test_padding_by_hand() -> None:
    assert symmetric_padding(224, 7, 2) == (3, 3)
    assert symmetric_padding(112, 3, 2) == (1, 1)
    assert symmetric_padding(7, 2, 2) == (0, 0)
    assert symmetric_padding(1, 2, 2) == (0, 1)  # or nothing would be left of one
    assert padding_behind(8, 3, 2) == (0, 1)
    assert padding_behind(7, 3, 2) == (0, 2)  # where TensorFlow has one on each side
    assert padding_behind(7, 2, 2) == (0, 1)
    assert padding_behind(6, 4, 1) == (1, 2)
    assert padding_behind(5, 3, 1) == (1, 1)


POOLINGS = [((1, 3, 3), (1, 2, 2)), ((3, 3, 3), (2, 2, 2)), ((2, 2, 2), (2, 2, 2)), ((3, 3, 3), (1, 1, 1))]


@pytest.mark.parametrize(("kernel", "stride"), POOLINGS)
@pytest.mark.parametrize("padding", [symmetric_padding, padding_behind, same_padding])
def test_a_pooling_is_of_the_windows_of_the_padded_clip(
    padding: Padding, kernel: tuple[int, int, int], stride: tuple[int, int, int]
) -> None:
    for size in [(4, 6, 7), (5, 1, 2), (1, 3, 8), (2, 2, 1), (7, 9, 4)]:
        x = values(2, 3, *size).relu()
        pads = [padding(*axis) for axis in zip(size, kernel, stride, strict=True)]
        padded = np.pad(x.numpy(), [(0, 0), (0, 0), *pads])
        starts = [
            range(0, n + sum(pad) - k + 1, step) for n, pad, k, step in zip(size, pads, kernel, stride, strict=True)
        ]
        out = max_pool(x, kernel, stride, padding).numpy()
        assert out.shape == (2, 3, *map(len, starts))
        for place in itertools.product(*map(range, out.shape[2:])):
            t, h, w = (starts[axis][i] for axis, i in enumerate(place))
            window = padded[:, :, t : t + kernel[0], h : h + kernel[1], w : w + kernel[2]]
            assert (out[(..., *place)] == window.max(axis=(2, 3, 4))).all()


def test_symmetric_pooling_is_torchs_own() -> None:
    for kernel, stride in POOLINGS:
        for size in [(4, 6, 7), (5, 8, 9)]:
            x = values(1, 2, *size).relu()
            around = [(k - 1) // 2 for k in kernel]
            assert torch.equal(max_pool(x, kernel, stride, symmetric_padding), F.max_pool3d(x, kernel, stride, around))


# Blocks.


def convolved_in_loops(
    x: np.ndarray, weight: np.ndarray, stride: tuple[int, ...], around: tuple[int, ...]
) -> np.ndarray:
    """One clip (c, t, h, w) with so many zeros on both sides of each axis, one position after another."""
    x = np.pad(x, [(0, 0), *((n, n) for n in around)])
    kernel = weight.shape[2:]
    out = np.zeros((len(weight), *((n - k) // s + 1 for n, k, s in zip(x.shape[1:], kernel, stride, strict=True))))
    for place in itertools.product(*map(range, out.shape[1:])):
        for tap in itertools.product(*map(range, kernel)):
            t, h, w = (i * s + k for i, s, k in zip(place, stride, tap, strict=True))
            out[(slice(None), *place)] += weight[(..., *tap)] @ x[:, t, h, w]
    return out


def normalised_in_loops(x: np.ndarray, norm: nn.BatchNorm3d, eps: float) -> np.ndarray:
    out = np.empty_like(x)
    for c in range(len(x)):
        spread = (norm.running_var[c].item() + eps) ** 0.5  # type: ignore[index]
        out[c] = (x[c] - norm.running_mean[c].item()) / spread * norm.weight[c].item() + norm.bias[c].item()  # type: ignore[index]
    return np.maximum(out, 0)


@pytest.fixture
def block() -> SeparableConv:
    block = SeparableConv(2, 3, 3, 2, FORMS["separable"]).double().eval()
    with torch.no_grad():
        for seed, tensor in enumerate(block.state_dict().values()):
            if tensor.is_floating_point():
                tensor.copy_(values(*tensor.shape, seed=seed).abs() if tensor.dim() == 1 else values(*tensor.shape))
    return block


def test_a_convolution_sees_space_and_then_time_with_a_norm_and_a_relu_after_each(block: SeparableConv) -> None:
    x = values(1, 2, 3, 4, 5)
    space, time = block.space, block.time
    between = convolved_in_loops(x[0].numpy(), space.conv.weight.detach().numpy(), (1, 2, 2), (0, 1, 1))
    between = normalised_in_loops(between, space.norm, 1e-3)
    expected = convolved_in_loops(between, time.conv.weight.detach().numpy(), (2, 1, 1), (1, 0, 0))
    expected = normalised_in_loops(expected, time.norm, 1e-3)
    with torch.no_grad():
        out = block(x)[0]
    assert out.shape == (3, 2, 2, 3)
    torch.testing.assert_close(out, torch.from_numpy(expected), rtol=0, atol=1e-9)


def test_a_gate_weighs_channels_by_the_mean_of_the_whole_clip() -> None:
    """Means 2 and -1; W of rows (1, 2) and (0, 3): gates sigmoid(0) and sigmoid(-3), or with c = (1, 3) others."""
    x = torch.stack([torch.tensor([1.0, 3.0]), torch.tensor([-1.0, -1.0])]).view(1, 2, 2, 1, 1)
    for bias, (first, second) in [(False, (0.0, -3.0)), (True, (1.0, 0.0))]:
        gate = FeatureGating(nn.Identity(), 2, bias)
        with torch.no_grad():
            gate.fc.weight.copy_(torch.tensor([[1.0, 2.0], [0.0, 3.0]]))
            if bias:
                gate.fc.bias.copy_(torch.tensor([1.0, 3.0]))
            out = gate(x).flatten(1)
        expected = torch.tensor([[1.0, 3.0, -1.0, -1.0]]) * torch.tensor([first, first, second, second]).sigmoid()
        torch.testing.assert_close(out, expected)
        assert (gate.fc.bias is None) != bias


def test_gates_are_half_open_at_first() -> None:
    gate = FeatureGating(nn.Identity(), 96, bias=True)
    assert gate.fc.weight.std().item() == pytest.approx(0.01, rel=0.1)
    assert not gate.fc.bias.any()


def test_pixels_become_channels_in_the_order_of_time_height_width_and_colour() -> None:
    x = torch.arange(4 * 4 * 6 * 3.0).view(1, 4, 4, 6, 3).permute(0, 4, 1, 2, 3)
    out = SpaceToDepth.as_channels(x)
    assert out.shape == (1, 24, 2, 2, 3)
    for t, h, w, c in itertools.product(range(2), range(2), range(2), range(3)):
        assert torch.equal(out[:, ((t * 2 + h) * 2 + w) * 3 + c], x[:, c, t::2, h::2, w::2])
    odd = SpaceToDepth.as_channels(x[:, :, :3, :, :5])
    assert odd.shape == out.shape
    assert not odd[0, 12:, 1].any()
    assert torch.equal(odd[:, :12, :, :, :2], out[:, :12, :, :, :2])


def test_the_stem_of_pixels_as_channels_is_padded_as_a_stride_of_two_is_in_tensorflow() -> None:
    """2x4x4 of channels are 4x8x8 of pixels, of which one more lies behind than before in each pair."""
    stem = SpaceToDepth(24, 1, (2, 4, 4), padding=padding_behind, norm=nn.BatchNorm3d).double().eval()
    with torch.no_grad():
        stem.conv.weight.fill_(1.0)
        stem.norm.running_var.fill_(1 - 1e-5)
        out = stem(torch.ones(1, 3, 4, 12, 12, dtype=torch.float64))[0, 0]
    rows = torch.tensor(
        [3.0, 4, 4, 4, 3, 2], dtype=torch.float64
    )  # of the four, those inside, the first beginning at -1
    times = torch.tensor([2.0, 1], dtype=torch.float64)
    torch.testing.assert_close(out, 24 * torch.einsum("t,h,w->thw", times, rows, rows))


# Networks.


SIZES = {"s3d": 64, "s3dg": 64, "s3d_milnce": 32}


@pytest.mark.slow
@pytest.mark.parametrize("name", SIZES)
def test_shapes_on_the_way_are_i3ds(name: str) -> None:
    network = on_meta(name, 5).backbone
    shapes = {}
    for module, block in network.named_children():
        block.register_forward_hook(lambda _, __, out, module=module: shapes.update({module: tuple(out.shape[1:])}))
    t = SIZES[name]
    out = network(torch.empty(1, t, 3, 224, 224, device="meta"))
    assert out.shape == (1, t // 8 - (name != "s3d_milnce"), 1024)
    assert shapes["conv_1a"] == (64, t // 2, 112, 112)
    assert shapes["conv_2c"] == (192, t // 2, 56, 56)
    assert shapes["mixed_3c"] == (480, t // 2, 28, 28)
    assert shapes["mixed_4b"] == (512, t // 4, 14, 14)
    assert shapes["mixed_4f"] == (832, t // 4, 14, 14)
    assert shapes["mixed_5c"] == (1024, t // 8, 7, 7)


@pytest.mark.slow
@pytest.mark.parametrize("stem", FORMS)
def test_small_and_odd_clips_pass_through(stem: str) -> None:
    torch.manual_seed(0)
    network = S3D(stem=stem, gating=True, width=0.1).eval()
    with torch.inference_mode():
        for t, h, w in [(1, 1, 1), (2, 3, 1), (5, 17, 40), (33, 64, 50)]:
            out = network(torch.randn(2, t, 3, h, w))
            assert out.shape[::2] == (2, network.num_features)
            assert out.isfinite().all()
            assert out.abs().max() > 0


def test_the_mean_is_over_windows_or_with_pixels_as_channels_over_everything() -> None:
    for stem, expected in [("separable", [9.0, 19.0]), ("space_to_depth", [4.0, 14.0, 24.0])]:
        with without_memory():
            network = S3D(stem=stem, width=0.1)
        places = torch.arange(9.0).expand(1, 1, 3, 7, 9) + torch.tensor([0.0, 10.0, 20.0]).view(3, 1, 1)
        network.feature_map = lambda clips: clips  # type: ignore[method-assign, assignment]
        assert network(places).flatten().tolist() == pytest.approx(expected)


@pytest.mark.slow
def test_cost_is_that_of_the_codes_that_there_are() -> None:
    """Torchvision says 8,320,048; of MIL-NCE's, 37.1 G with a frame, a row and a column that its stem drops."""
    s3d = on_meta("s3d", 400)
    assert num_parameters(s3d) == 8_320_048
    assert round(multiply_adds(s3d, 64, 224) / 1e9, 2) == 71.92
    milnce = on_meta("s3d_milnce", 512)
    assert round(num_parameters(milnce) / 1e6, 2) == 9.67
    dropped = 24 * 2 * 4 * 4 * 64 * (17 * 113 * 113 - 16 * 112 * 112)
    assert round((multiply_adds(milnce, 32, 224) + dropped) / 1e9, 1) == 37.1


def test_gates_are_behind_2c_and_every_branch_of_each_mixed_module() -> None:
    network = on_meta("s3dg", 5).backbone
    gates = [name for name, module in network.named_modules() if isinstance(module, FeatureGating)]
    branches = ["branch_0", "branch_1.1", "branch_2.1", "branch_3"]
    assert gates == ["conv_2c", *(f"mixed_{module}.{branch}" for module in MIXED for branch in branches)]
    assert not [module for module in on_meta("s3d", 5).modules() if isinstance(module, FeatureGating)]


def test_what_comes_with_a_stem_is_in_the_whole_network() -> None:
    for name, kind, eps, bias in [
        ("s3d", nn.BatchNorm3d, 1e-3, None), ("s3dg", UnscaledBatchNorm, 1e-3, False),
        ("s3d_milnce", nn.BatchNorm3d, 1e-5, True),
    ]:  # fmt: skip
        modules = list(on_meta(name, 5).backbone.modules())
        norms = [module for module in modules if isinstance(module, nn.BatchNorm3d)]
        assert {(type(norm), norm.eps) for norm in norms} == {(kind, eps)}
        gates = {module.fc.bias is not None for module in modules if isinstance(module, FeatureGating)}
        assert gates == (set() if bias is None else {bias})
    kernels = {stem: on_meta("s3d", 5, backbone_options={"stem": stem}).backbone.conv_1a for stem in FORMS}
    assert isinstance(kernels["separable"], SeparableConv)
    assert kernels["tensorflow"].conv.kernel_size == (3, 7, 7)
    assert kernels["space_to_depth"].conv.kernel_size == (2, 4, 4)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"stem": "seperable"}, "unknown stem 'seperable'"), ({"pixels": "imagenet"}, "unknown pixels 'imagenet'")],
)
def test_an_unknown_stem_is_named(options: dict[str, str], message: str) -> None:
    with pytest.raises(UsageError, match=f"the backbone of s3d: .*{message}"):
        on_meta("s3d", 5, backbone_options=options)


def test_the_catalogue_has_frames_sizes_and_rates() -> None:
    """MIL-NCE's is the square in the middle of a picture, the others' is cut out of one of 256 px."""
    as_i3d = {"sampling": "dense", "stride": 1, "frames_per_second": 25.0, "resize": "short_side"}
    for name, num_frames, others in [
        ("s3d", 64, {}), ("s3dg", 64, {}), ("s3d_milnce", 32, {"frames_per_second": 10.0, "size_px": 224}),
    ]:  # fmt: skip
        spec = MODELS[name]
        assert (spec.num_frames, spec.size_px, spec.knows_order) == (num_frames, 224, True)
        assert spec.preprocess == {"num_frames": num_frames, **as_i3d, **others}
    assert (NETWORKS["s3d"].small, NETWORKS["s3dg"].small) == ("s3d_tiny", "s3dg_tiny")


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("s3d", {}, [-1.0, -0.6, 1.0]),
        ("s3dg", {}, [-1.0, -0.6, 1.0]),
        ("s3d_milnce", {}, [0.0, 0.2, 1.0]),
        ("s3d", {"pixels": "kinetics"}, [-0.43216 / 0.22803, (0.2 - 0.394666) / 0.22145, (1 - 0.37645) / 0.216989]),
    ],
)
def test_pixels_are_normalised_as_the_network_was_published(
    name: str, options: dict[str, str], expected: list[float]
) -> None:
    model = on_meta(name, 2, backbone_options=options)
    seen = []

    class Seeing(nn.Module):
        input_mean, input_std = model.backbone.input_mean, model.backbone.input_std

        def forward(self, clips: Tensor) -> Tensor:
            seen.append(clips)
            return torch.zeros(1, 1, 1024)

    model.backbone = Seeing()
    model.time_features(torch.tensor([0, 51, 255], dtype=torch.uint8).view(1, 1, 3, 1, 1))
    torch.testing.assert_close(seen[0].flatten(), torch.tensor(expected))


@pytest.mark.parametrize("name", SIZES)
def test_the_blocks_that_can_be_computed_twice_are_all_but_the_stem(name: str) -> None:
    network = on_meta(name, 5).backbone
    blocks = [block for blocks in network.stages.values() for block in blocks]
    assert len([block for block in blocks if isinstance(block, Mixed)]) == len(MIXED)
    held = sum(parameter.numel() for block in blocks for parameter in block.parameters())
    assert held + num_parameters(network.conv_1a) == num_parameters(network)


@pytest.mark.parametrize("name", ["s3d_tiny", "s3dg_tiny"])
def test_a_small_network_has_four_channels_at_least_in_every_layer(name: str) -> None:
    convolutions = [module for module in on_meta(name, 5).modules() if isinstance(module, nn.Conv3d)]
    assert min(module.out_channels for module in convolutions) == 4
