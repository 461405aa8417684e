"""BN-Inception: poolings and colours worked by hand, branches, slots, what TSM shifts, shapes on the way, and cost."""

import math

import pytest
import torch
from tests.blocks import Times
from torch import Tensor, nn

from ssan.errors import UsageError
from ssan.layers import TemporalShift
from ssan.models.bninception import MODULES, BNInception, Inception, ReversedColours, Second, Widths, max_pool
from ssan.models.catalogue import build, specification, without_memory
from ssan.models.classifier import Classifier
from ssan.models.cost import multiply_adds, num_parameters


def values(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def on_meta(name: str, num_classes: int = 174) -> Classifier:
    with without_memory():
        return build(name, num_classes)


def largest_in_loops(x: Tensor, num: list[int]) -> Tensor:
    """Of (c, h, w): the largest of 3x3 pixels from 2 i on, of those that there are."""
    return torch.stack([
        torch.stack([x[:, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3].amax(dim=(1, 2)) for j in range(num[1])], dim=1)
        for i in range(num[0])
    ], dim=1)  # fmt: skip


@pytest.mark.parametrize("size", [(8, 6), (7, 4), (5, 3), (2, 1), (1, 9)])
def test_a_pooling_begins_at_the_first_pixel_and_is_cut_off_behind_the_last(size: tuple[int, int]) -> None:
    """As released: ceil((n - 3) / 2) + 1 values of n, which are n / 2 of an even side and one less than half else."""
    x = values(2, *size)
    num = [max(1, math.ceil((side - 3) / 2) + 1) for side in size]
    assert torch.equal(max_pool(x[None])[0], largest_in_loops(x, num))


@pytest.mark.parametrize("size", [(8, 6), (7, 4), (5, 3), (2, 1), (1, 9)])
def test_a_pooling_beside_convolutions_gives_as_many_values_as_they_do(size: tuple[int, int]) -> None:
    x, conv = values(2, *size), nn.Conv2d(2, 1, 3, 2, 1).double()
    num = [(side + 1) // 2 for side in size]
    pooled = max_pool(x[None] - 10, beside_convolutions=True)[0]
    assert torch.equal(pooled, largest_in_loops(x - 10, num))  # below zero, so nothing outside counts
    assert conv(x[None]).shape[2:] == pooled.shape[1:]


def test_filters_for_blue_green_red_see_them_in_red_green_blue() -> None:
    conv = ReversedColours(3, 1, 1)
    with torch.no_grad():
        conv.weight.copy_(torch.tensor([100.0, 10.0, 1.0]).view(1, 3, 1, 1))  # blue, green, red
        conv.bias.fill_(0.5)
        assert conv(torch.tensor([2.0, 3.0, 4.0]).view(1, 3, 1, 1)).item() == 432.5
        assert ReversedColours(3, 64, 7, 2, 3)(torch.zeros(1, 3, 9, 8)).shape == (1, 64, 5, 4)


@pytest.mark.slow
def test_pixels_lose_the_mean_of_their_colour_and_nothing_else() -> None:
    model, seen = build("tsn_bninception", 2).eval(), []
    model.backbone.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    pixels = torch.tensor([255, 117, 0], dtype=torch.uint8).view(1, 1, 3, 1, 1).expand(1, 1, 3, 8, 8)
    with torch.inference_mode():
        model(pixels)
    torch.testing.assert_close(seen[0][0, 0, :, 0, 0], torch.tensor([127.0, 0.0, -104.0]), rtol=0, atol=1e-4)


def with_random_norms(block: nn.Module) -> nn.Module:
    block.double().eval()
    for module in block.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight, module.bias, module.running_mean):
                nn.init.normal_(tensor)
            nn.init.uniform_(module.running_var, 0.5, 2)
    return block


def convolved(x: Tensor, part: nn.Sequential, stride: int = 1) -> Tensor:
    conv, norm, _ = part
    y = nn.functional.conv2d(x, conv.weight, conv.bias, stride, conv.kernel_size[0] // 2)
    scale = norm.weight / (norm.running_var + 1e-5).sqrt()
    return ((y - norm.running_mean[:, None, None]) * scale[:, None, None] + norm.bias[:, None, None]).relu()


@torch.no_grad()
@pytest.mark.parametrize(("alone", "pooled", "by_max"), [(4, 5, False), (4, 5, True), (0, 0, True)])
def test_a_modules_branches_stand_side_by_side_and_stride_in_their_last_convolution(
    alone: int, pooled: int, by_max: bool
) -> None:
    block = with_random_norms(Inception(7, Widths(alone, 3, 6, 2, 8, pooled), pooled_by_max=by_max))
    x, stride = values(2, 7, 6, 9), 1 if alone else 2
    around = nn.functional.pad(x, (1, 1, 1, 1), value=-math.inf if by_max else 0.0)
    windows = torch.stack([around[:, :, i : i + 6, j : j + 9] for i in range(3) for j in range(3)])
    last = windows.amax(dim=0) if by_max else windows.sum(dim=0) / 9
    branches = [
        *([convolved(x, block.alone)] if alone else []),
        convolved(convolved(x, block.single[0]), block.single[1], stride),
        convolved(convolved(convolved(x, block.twofold[0]), block.twofold[1]), block.twofold[2], stride),
        convolved(last, block.pooled) if pooled else torch.stack([largest_in_loops(frame, [3, 5]) for frame in x]),
    ]
    torch.testing.assert_close(block.of_frames(x), torch.cat(branches, dim=1), rtol=0, atol=1e-10)


def test_the_modules_that_stride_and_the_last_pool_by_the_largest() -> None:
    network = on_meta("tsn_bninception").backbone
    modules = {name: network.get_submodule(f"inception_{name}") for name in MODULES}
    assert [name for name, module in modules.items() if module.stride == 2] == ["3c", "4e"]
    assert [name for name, module in modules.items() if module.pooled_by_max] == ["3c", "4e", "5b"]
    assert [name for name, module in modules.items() if module.alone is None] == ["3c", "4e"]


@torch.no_grad()
def test_slots_sit_before_all_branches_and_behind_them() -> None:
    for block in (Inception(7, MODULES["3a"], pooled_by_max=False), Second(7, 5)):
        with_random_norms(block)
        x = values(2, 3, 7, 8, 6)
        block.before_conv1, block.after_block = Times(-0.3), Times(1.7)
        expected = 1.7 * block.of_frames(-0.3 * x.flatten(0, 1)).unflatten(0, (2, 3))
        torch.testing.assert_close(block(x), expected, rtol=0, atol=1e-10)
        assert block.slot_channels == {"before_conv1": 7, "after_block": expected.shape[2]}


def test_the_shift_stands_before_every_block_but_the_first_convolution() -> None:
    model = on_meta("tsm_bninception")
    shifts = {name: module for name, module in model.backbone.named_modules() if isinstance(module, TemporalShift)}
    places = ["conv2", *(f"inception_{name}" for name in MODULES)]
    assert list(shifts) == [f"{place}.before_conv1" for place in places]
    assert [shift.channels for shift in shifts.values()] == [64, 192, 256, 320, 576, 576, 576, 608, 608, 1056, 1024]
    assert len(model.state_dict()) == len(on_meta("tsn_bninception").state_dict()) == 485


@pytest.mark.slow
def test_shapes_on_the_way_are_those_of_the_drawing() -> None:
    network = on_meta("tsn_bninception").backbone.eval()
    shapes = {}
    for name, module in network.named_children():
        module.register_forward_hook(lambda _, __, out, name=name: shapes.update({name: tuple(out.shape[-3:])}))
    assert network(torch.empty(2, 3, 3, 224, 224, device="meta")).shape == (2, 3, 1024)
    assert shapes == {
        "conv1": (64, 112, 112), "conv2": (192, 28, 28), "inception_3a": (256, 28, 28), "inception_3b": (320, 28, 28),
        "inception_3c": (576, 14, 14), "inception_4a": (576, 14, 14), "inception_4b": (576, 14, 14),
        "inception_4c": (608, 14, 14), "inception_4d": (608, 14, 14), "inception_4e": (1056, 7, 7),
        "inception_5a": (1024, 7, 7), "inception_5b": (1024, 7, 7),
    }  # fmt: skip
    for height, width in [(256, 320), (97, 33), (1, 1)]:
        assert network(torch.empty(1, 1, 3, height, width, device="meta")).shape == (1, 1, 1024)


def test_cost_of_a_frame_is_that_counted_on_tsms_code() -> None:
    model = on_meta("tsn_bninception", 1000)
    assert num_parameters(model) == 11_295_240
    assert round(multiply_adds(model, 1, 224) / 1e9, 2) == 2.03


@torch.no_grad()
def test_batch_norms_averages_move_by_a_tenth() -> None:
    network = BNInception()
    norm = network.conv1[1]
    norm(torch.full((2, 64, 1, 1), 5.0))
    assert norm.running_mean[0].item() == pytest.approx(0.5)
    assert {m.momentum for m in network.modules() if isinstance(m, nn.BatchNorm2d)} == {0.1}


def test_it_is_offered_with_the_families_of_its_figures_alone() -> None:
    assert specification("tsm_bninception").places.every == 1
    with pytest.raises(UsageError, match="unknown model 'ssan_bninception'"):
        build("ssan_bninception", 2)
