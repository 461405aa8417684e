"""C3D: its layers in loops, the shapes of its table, its published cost, and clips of other sizes."""

import numpy as np
import pytest
import torch
from torch import nn

from naive_volumes import convolved, filled, normed, params_of, pooled, relu, values
from ssan.errors import UsageError
from ssan.models.c3d import C3D, CONVOLUTIONS
from ssan.models.catalogue import build, specification, without_memory
from ssan.models.cost import multiply_adds, num_parameters
from ssan.weights.layouts import LAYOUTS, names_in

ONE = (1, 1, 1)


@pytest.mark.slow
def test_it_is_convolutions_poolings_and_two_linear_layers_in_this_order() -> None:
    network, clip = filled(C3D(width=1 / 32, side=2)), values(1, 16, 3, 32, 19)
    p, x = params_of(network), clip[0].transpose(0, 1).numpy()
    for number, channels in enumerate(CONVOLUTIONS, 1):
        for letter in "ab"[: len(channels)]:
            x = convolved(x, p[f"conv{number}{letter}.weight"], ONE, ONE)
            x = relu(x + p[f"conv{number}{letter}.bias"][:, None, None, None])
        size = (1, 2, 2) if number == 1 else (2, 2, 2)
        x = pooled(x, size, size, (0, 1, 1) if number == 5 else (0, 0, 0))
    assert x.shape == (16, 1, 2, 1)
    x = np.concatenate([x, np.zeros_like(x)], axis=3)  # padded to the window
    x = relu(p["fc6.weight"] @ x.flatten() + p["fc6.bias"])
    x = relu(p["fc7.weight"] @ x + p["fc7.bias"])
    with torch.no_grad():
        out = network(clip)
    assert out.shape == (1, 1, 128)
    np.testing.assert_allclose(out[0, 0].numpy(), x, rtol=1e-9, atol=1e-9)


def on_meta(num_classes: int = 101) -> nn.Module:
    with without_memory():
        return build("c3d", num_classes).eval()


@pytest.mark.slow
def test_shapes_on_the_way_are_those_of_the_table() -> None:
    network, shapes = on_meta().backbone, {}
    for name, module in network.named_children():
        module.register_forward_pre_hook(lambda _, args, name=name: shapes.update({name: tuple(args[0].shape[1:])}))
    assert network(torch.empty(2, 16, 3, 112, 112, device="meta")).shape == (2, 1, 4096)
    assert shapes["conv2a"] == (64, 16, 56, 56)
    assert shapes["conv3a"] == (128, 8, 28, 28)
    assert shapes["conv4a"] == (256, 4, 14, 14)
    assert shapes["conv5a"] == (512, 2, 7, 7)
    assert network.feature_map(torch.empty(1, 16, 3, 112, 112, device="meta")).shape == (1, 512, 1, 4, 4)
    assert network(torch.empty(1, 49, 3, 250, 113, device="meta")).shape == (1, 3, 4096)


def test_cost_is_mmaction2s() -> None:
    """78.41 M and 38.55 G counted there for 101 classes; its list says 78.4 M and 38.5 G."""
    model = on_meta()
    assert round(num_parameters(model) / 1e6, 2) == 78.41
    assert round(multiply_adds(model, 16, 112) / 1e9, 2) == 38.55


class OnlyLinear(C3D):
    """Behind the last pooling: the clip is the map."""

    def feature_map(self, clips: torch.Tensor) -> torch.Tensor:
        return clips


@pytest.fixture
def linear() -> OnlyLinear:
    network = filled(OnlyLinear(width=1 / 64, side=2))
    assert isinstance(network, OnlyLinear)
    return network


def test_a_larger_picture_is_averaged_over_windows(linear: OnlyLinear) -> None:
    maps = values(1, 8, 3, 2, 4)
    with torch.no_grad():
        windows = [linear(maps[..., i : i + 2]) for i in range(3)]
        torch.testing.assert_close(linear(maps), torch.stack(windows).mean(dim=0), rtol=0, atol=1e-12)


def test_a_smaller_one_is_padded_to_a_window(linear: OnlyLinear) -> None:
    maps = values(1, 8, 1, 2, 2)
    maps[..., 1, :], maps[..., 1] = 0, 0
    with torch.no_grad():
        torch.testing.assert_close(linear(maps[..., :1, :1]), linear(maps), rtol=0, atol=1e-12)


def test_a_short_clip_is_pooled_as_far_as_it_goes() -> None:
    network = filled(C3D(width=1 / 32))
    with torch.no_grad():
        for t, h, w in ((1, 1, 1), (3, 5, 17), (15, 16, 16)):
            assert network(values(1, t, 3, h, w)).shape == (1, 1, 128)
        assert network(values(1, 32, 3, 9, 9)).shape == (1, 2, 128)


def test_pixels_are_bytes_less_a_mean() -> None:
    model, seen = build("c3d_tiny", 3).eval(), []
    model.backbone.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    with torch.inference_mode():
        model(torch.full((1, 2, 3, 8, 8), 120, dtype=torch.uint8))
    torch.testing.assert_close(seen[0][0, 0, :, 0, 0], torch.tensor([16.0, 3.0, -8.0]), rtol=0, atol=1e-3)


def test_the_catalogue_has_its_frames_and_its_options_are_checked() -> None:
    spec = specification("c3d")
    assert (spec.num_frames, spec.size_px, spec.preprocess["stride"]) == (16, 112, 1)
    for options, said in (({"side": 0}, "side is 0"), ({"width": 0.001}, r"width 0\.001")):
        with pytest.raises(UsageError, match=f"c3d: .*{said}"):
            build("c3d_tiny", 3, backbone_options=options)


def test_fc6_is_followed_by_dropout_in_training_alone() -> None:
    network, clip = C3D(width=1 / 32, side=1, dropout=0.9), values(1, 2, 3, 16, 16).float()
    with torch.no_grad():
        assert not torch.equal(network(clip), network(clip))
        network.eval()
        assert torch.equal(network(clip), network(clip))


def test_what_the_linear_layers_give_at_first_is_as_large_in_a_small_network() -> None:
    """Published with 0.005 for 8192 and 4096 numbers."""
    for options in ({"width": 1 / 16}, {"width": 1 / 8, "side": 2}):
        network = C3D(**options)  # type: ignore[arg-type]
        for layer, usual in ((network.fc6, 8192), (network.fc7, 4096)):
            spread = layer.weight.std().item() * (layer.in_features / usual) ** 0.5
            assert spread == pytest.approx(0.005, rel=0.05)


def test_norms_stand_between_convolutions_and_relus_in_place_of_biases() -> None:
    network, clip = filled(C3D(width=1 / 32, side=1, norm=True)), values(1, 1, 3, 2, 2)
    p = params_of(network)
    assert not any(name.startswith("conv") and name.endswith("bias") for name in p)
    seen = []
    network.conv2a.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    with torch.no_grad():
        network(clip)
    x = relu(normed(convolved(clip[0].transpose(0, 1).numpy(), p["conv1a.weight"], ONE, ONE), p, "norm1a"))
    np.testing.assert_allclose(seen[0][0].numpy(), pooled(x, (1, 2, 2), (1, 2, 2)), rtol=0, atol=1e-12)
    with without_memory():
        model = build("c3d", 3, backbone_options={"norm": True})
    names = names_in(LAYOUTS["mmaction2"], model, "cls_head.fc_cls.")
    assert names is not None
    assert names["backbone.norm3b.running_var"] == "backbone.conv3b.bn.running_var"
