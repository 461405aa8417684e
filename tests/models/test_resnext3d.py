"""3-D ResNeXt: its block in loops, shapes of the released network, counted cost, and what its pixels become."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from naive_volumes import convolved, filled, normed, params_of, relu, values
from ssan.errors import UsageError
from ssan.models.catalogue import build, specification, without_memory
from ssan.models.cost import multiply_adds, num_parameters
from ssan.models.resnext3d import ResNeXt3D, ResNeXtBottleneck3D
from ssan.recipe import make_recipe
from ssan.recognition.train import complete


def test_a_bottleneck_convolves_its_channels_in_groups_and_gives_twice_its_width() -> None:
    block, x = filled(ResNeXtBottleneck3D(8, 4, groups=2)), values(1, 8, 3, 4, 2)
    p, given = params_of(block), x[0].numpy()
    y = relu(normed(convolved(given, p["conv1.weight"]), p, "bn1"))
    y = relu(normed(convolved(y, p["conv2.weight"], padding=(1, 1, 1), groups=2), p, "bn2"))
    y = relu(normed(convolved(y, p["conv3.weight"]), p, "bn3") + given)
    with torch.no_grad():
        np.testing.assert_allclose(block(x)[0].numpy(), y, rtol=0, atol=1e-12)


@pytest.fixture(scope="module")
def network() -> nn.Module:
    with without_memory():
        return build("resnext3d_101", 400).eval()


@pytest.mark.slow
def test_shapes_on_the_way_are_those_of_the_table(network: nn.Module) -> None:
    shapes = []
    hooks = [
        network.backbone.get_submodule(name).register_forward_hook(lambda _, __, out: shapes.append(out.shape[1:]))
        for name in ("conv1", "layer1", "layer2", "layer3", "layer4")
    ]
    assert network.backbone(torch.empty(2, 16, 3, 112, 112, device="meta")).shape == (2, 1, 2048)
    assert shapes == [(64, 16, 56, 56), (256, 8, 28, 28), (512, 4, 14, 14), (1024, 2, 7, 7), (2048, 1, 4, 4)]
    for hook in hooks:
        hook.remove()


@pytest.mark.slow
def test_cost_is_the_released_codes(network: nn.Module) -> None:
    """48.34 M and 9.57 G counted there for 400 classes and 16 frames of 112 px."""
    assert round(num_parameters(network) / 1e6, 2) == 48.34
    assert round(multiply_adds(network, 16, 112) / 1e9, 2) == 9.57


class OnlyMean(ResNeXt3D):
    def feature_map(self, clips: Tensor) -> Tensor:
        return clips


def test_a_larger_clip_is_averaged_over_all_of_a_frame() -> None:
    clip = torch.arange(12.0).view(1, 1, 2, 2, 3)
    assert OnlyMean((1,), width=4, groups=2)(clip).tolist() == [[[2.5], [8.5]]]


def test_a_clip_of_any_size_is_described() -> None:
    network = filled(ResNeXt3D((1, 1), width=4, groups=2))
    with torch.no_grad():
        for t, h, w in ((1, 1, 1), (5, 9, 20)):
            assert network(values(2, t, 3, h, w)).shape == (2, -(-t // 4), 16)


def test_pixels_are_bytes_less_the_extractors_mean() -> None:
    model, seen = build("resnext3d_tiny", 3).eval(), []
    model.backbone.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    with torch.inference_mode():
        model(torch.full((1, 2, 3, 8, 8), 120, dtype=torch.uint8))
    torch.testing.assert_close(seen[0][0, 0, :, 0, 0], torch.tensor([9.4, 16.8, 23.7]), rtol=0, atol=1e-3)


def test_the_catalogue_has_the_extractors_frames_and_its_options_are_checked() -> None:
    assert (specification("resnext3d_101").num_frames, specification("resnext3d_101").size_px) == (16, 112)
    recipe = complete(make_recipe({"model": "resnext3d_101"}))
    assert (recipe.frames_per_second, recipe.resize, recipe.size_px, recipe.crop_px) == (24.0, "short_side", 112, 112)
    assert complete(make_recipe({"model": "resnext3d_101", "crop_px": 224})).size_px == 224
    for options in ({"width": 12}, {"groups": 0}, {"width": 1, "groups": 1}):
        with pytest.raises(UsageError, match=r"resnext3d: width is .* expected an even multiple of the groups"):
            build("resnext3d_tiny", 3, backbone_options=options)
