"""I3D: TensorFlow's padding worked by hand and in loops, the shapes of the paper's figure, cost, and averaging."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssan.errors import UsageError
from ssan.models.catalogue import MODELS, build, channels_last, specification, without_memory
from ssan.models.cost import multiply_adds, num_parameters
from ssan.models.i3d import MIXED, InceptionI3D, Mixed, Unit, UnscaledBatchNorm, max_pool, same_padding


def values(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def windows_in_tensorflow(size: int, kernel: int, stride: int) -> list[list[int]]:
    """The positions that each window of "SAME" sees, by its definition: ceil(n / s) windows, the padding shared out."""
    num = -(-size // stride)
    total = max((num - 1) * stride + kernel - size, 0)
    return [[i * stride - total // 2 + k for k in range(kernel)] for i in range(num)]


def convolved_in_loops(x: np.ndarray, weight: np.ndarray, stride: int) -> np.ndarray:
    """One clip (c, t, h, w), one position after another; outside there is nothing."""
    axes = [windows_in_tensorflow(size, weight.shape[2], stride) for size in x.shape[1:]]
    out = np.zeros((len(weight), *map(len, axes)))
    for i, frames in enumerate(axes[0]):
        for j, rows in enumerate(axes[1]):
            for k, columns in enumerate(axes[2]):
                for a, t in enumerate(frames):
                    for b, row in enumerate(rows):
                        for c, column in enumerate(columns):
                            if 0 <= t < x.shape[1] and 0 <= row < x.shape[2] and 0 <= column < x.shape[3]:
                                out[:, i, j, k] += weight[:, :, a, b, c] @ x[:, t, row, column]
    return out


def test_same_padding_by_hand() -> None:
    assert same_padding(224, 7, 2) == (2, 3)
    assert same_padding(223, 7, 2) == (3, 3)
    assert same_padding(112, 3, 2) == (0, 1)
    assert same_padding(111, 3, 2) == (1, 1)
    assert same_padding(8, 2, 2) == (0, 0)
    assert same_padding(7, 2, 2) == (0, 1)
    assert same_padding(5, 3, 1) == (1, 1)
    assert same_padding(5, 1, 2) == (0, 0)


@pytest.mark.parametrize(("kernel", "stride"), [(7, 2), (3, 1), (1, 1)])
@pytest.mark.parametrize("size", [(4, 5, 6), (5, 8, 3), (1, 2, 7)])
def test_a_convolution_is_padded_as_in_tensorflow(kernel: int, stride: int, size: tuple[int, int, int]) -> None:
    unit = Unit(2, 3, kernel, stride).double().eval()
    x = values(1, 2, *size)
    with torch.no_grad():
        unit.norm.running_mean.zero_()
        unit.norm.running_var.fill_(1 - 1e-3)
        unit.norm.bias.fill_(100.0)  # so that ReLU takes nothing away
        out = unit(x)[0] - 100
    expected = convolved_in_loops(x[0].numpy(), unit.conv.weight.detach().numpy(), stride)
    torch.testing.assert_close(out, torch.from_numpy(expected), rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    ("kernel", "stride"),
    [((1, 3, 3), (1, 2, 2)), ((3, 3, 3), (2, 2, 2)), ((2, 2, 2), (2, 2, 2)), ((3, 3, 3), (1, 1, 1))],
)
@pytest.mark.parametrize("size", [(4, 6, 7), (5, 1, 2), (1, 3, 8), (2, 2, 1)])
def test_a_pooling_is_padded_as_in_tensorflow(
    kernel: tuple[int, int, int], stride: tuple[int, int, int], size: tuple[int, int, int]
) -> None:
    x = values(2, 3, *size).relu()
    axes = [windows_in_tensorflow(*axis) for axis in zip(size, kernel, stride, strict=True)]
    inside = [[[i for i in window if 0 <= i < n] for window in axis] for axis, n in zip(axes, size, strict=True)]
    out = max_pool(x, kernel, stride)
    assert out.shape == (2, 3, *map(len, axes))
    for i, frames in enumerate(inside[0]):
        for j, rows in enumerate(inside[1]):
            for k, columns in enumerate(inside[2]):
                largest = x[:, :, frames][:, :, :, rows][..., columns].amax(dim=(2, 3, 4))
                assert torch.equal(out[:, :, i, j, k], largest)


def test_batch_norm_has_an_epsilon_of_a_thousandth_and_a_scale_that_stays_one() -> None:
    norm = UnscaledBatchNorm(2).eval()
    assert [name for name, _ in norm.named_parameters()] == ["bias"]
    assert set(norm.state_dict()) == set(nn.BatchNorm3d(2).state_dict())
    with torch.no_grad():
        norm.bias.copy_(torch.tensor([0.0, 5.0]))
        norm.running_mean.copy_(torch.tensor([1.0, 0.0]))
        norm.running_var.copy_(torch.tensor([0.003, 0.249]))
        out = norm(torch.ones(1, 2, 1, 1, 1)).flatten()
    torch.testing.assert_close(out, torch.tensor([0.0, 7.0]))  # 1 / sqrt(0.249 + 0.001) is 2
    norm.train()
    norm(torch.full((2, 2, 1, 1, 1), 4.0))
    assert norm.running_mean[0].item() == pytest.approx(1 + 0.001 * 3)


def on_meta(num_classes: int = 400) -> nn.Module:
    with without_memory():
        return build("i3d", num_classes)


@pytest.mark.slow
def test_shapes_on_the_way_are_those_of_the_papers_figure() -> None:
    network = on_meta().backbone
    shapes = {}
    for name, module in network.named_children():
        module.register_forward_hook(lambda _, __, out, name=name: shapes.update({name: tuple(out.shape[1:])}))
    assert network(torch.empty(2, 250, 3, 224, 224, device="meta")).shape == (2, 31, 1024)  # of 125, 63, 32 frames
    assert network(torch.empty(1, 64, 3, 224, 224, device="meta")).shape == (1, 7, 1024)
    assert shapes["conv_1a"] == (64, 32, 112, 112)
    assert shapes["conv_2c"] == (192, 32, 56, 56)
    assert shapes["mixed_3b"] == (256, 32, 28, 28)
    assert shapes["mixed_3c"] == (480, 32, 28, 28)
    assert [shapes[f"mixed_4{letter}"][0] for letter in "bcdef"] == [512, 512, 512, 528, 832]
    assert shapes["mixed_4b"][1:] == (16, 14, 14)
    assert shapes["mixed_5b"] == (832, 8, 7, 7)
    assert shapes["mixed_5c"] == (1024, 8, 7, 7)


def test_cost_is_that_of_a_port_of_the_authors_code_less_the_scales() -> None:
    """12.70 M and 111.15 G of pytorch-i3d for 400 classes; it has a scale in each BatchNorm, 7,280 in all."""
    model = on_meta()
    scales = sum(tensor.numel() for name, tensor in model.named_buffers() if name.endswith("weight"))
    assert num_parameters(model) == 12_689_984
    assert scales == 7_280
    assert round((num_parameters(model) + scales) / 1e6, 2) == 12.70
    assert round(multiply_adds(model, 64, 224) / 1e9, 2) == 111.15
    assert len(model.state_dict()) == 344


def test_the_catalogue_has_its_frames_size_and_rate() -> None:
    spec = specification("i3d")
    assert MODELS["i3d"] is spec
    assert (spec.num_frames, spec.size_px, spec.layers, spec.places) == (64, 224, (), None)
    assert spec.preprocess == {
        "num_frames": 64, "sampling": "dense", "stride": 1, "frames_per_second": 25.0, "resize": "short_side",
    }  # fmt: skip
    for what in ({"layer_options": {"divisor": 4}}, {"places": {"every": 2}}):
        with without_memory(), pytest.raises(UsageError, match="i3d has no layer between its frames"):
            build("i3d", 5, **what)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="the backbone of i3d: unknown option 'stride_in'"):
        build("i3d", 5, backbone_options={"stride_in": "conv1"})


class OnlyPooling(InceptionI3D):
    """The network without its layers: the features are what it is given as the last map."""

    def __init__(self) -> None:
        nn.Module.__init__(self)

    def feature_map(self, clips: Tensor) -> Tensor:
        return clips


def test_a_larger_picture_is_averaged_over_windows_of_seven() -> None:
    """A row of 9 pixels, 0 to 8, in 3 windows of 7 with means 3, 4, 5; time 0, 10, 20 in windows of 2."""
    places = torch.arange(9.0).expand(1, 1, 3, 7, 9) + torch.tensor([0.0, 10.0, 20.0]).view(3, 1, 1)
    network = OnlyPooling()
    assert network(places).flatten().tolist() == pytest.approx([9.0, 19.0])
    places[..., 0] += 7 * 3  # what lies at the edge is in one of the three windows
    assert network(places).flatten().tolist() == pytest.approx([10.0, 20.0])


def test_a_small_clip_is_averaged_over_what_there_is() -> None:
    network = OnlyPooling()
    assert network(torch.full((1, 1, 1, 2, 3), 6.0)).tolist() == [[[6.0]]]
    assert network(torch.arange(6.0).view(1, 1, 1, 2, 3)).tolist() == [[[2.5]]]


def test_the_scores_averaged_over_places_and_time_are_those_of_the_averaged_features() -> None:
    """As released: a linear map at each place, then the mean; here the mean first."""
    features, weight, bias = values(2, 7, 3, 3, 5), values(4, 5, seed=1), values(4, seed=2)
    released = F.linear(features, weight, bias).mean(dim=(1, 2, 3))
    torch.testing.assert_close(F.linear(features.mean(dim=(2, 3)), weight, bias).mean(dim=1), released)


def test_pixels_become_numbers_from_minus_one_to_one() -> None:
    model = build("i3d", 3).eval()
    seen = []
    model.backbone.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    pixels = torch.tensor([0, 51, 255], dtype=torch.uint8).view(1, 1, 3, 1, 1).expand(1, 2, 3, 4, 4)
    with torch.inference_mode():
        model(pixels)
    torch.testing.assert_close(seen[0][0, 0, :, 0, 0], torch.tensor([-1.0, -0.6, 1.0]))


@pytest.mark.slow
def test_channels_last_changes_where_weights_lie_and_not_what_is_computed() -> None:
    model = build("i3d", 3).double().eval()
    clip = values(1, 9, 3, 40, 33)
    with torch.no_grad():
        before = model(clip)
        channels_last(model)
        torch.testing.assert_close(model(clip), before, rtol=0, atol=1e-12)
    assert model.backbone.conv_1a.conv.weight.is_contiguous(memory_format=torch.channels_last_3d)


def test_the_blocks_that_can_be_computed_twice_are_all_of_its_units() -> None:
    with without_memory():
        network = InceptionI3D()
    blocks = [block for blocks in network.stages.values() for block in blocks]
    assert len([block for block in blocks if isinstance(block, Mixed)]) == len(MIXED)
    held = sum(parameter.numel() for block in blocks for parameter in block.parameters())
    assert held + sum(parameter.numel() for parameter in network.conv_1a.parameters()) == num_parameters(network)
