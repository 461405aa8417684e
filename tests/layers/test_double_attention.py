"""DoubleAttention against a twin in loops, a number worked by hand, and the axes of its two softmaxes."""

import math

import pytest
import torch
from torch import Tensor, nn

import naive
from blocks import HALF, B, C, H, T, W, randomised, video
from ssan.errors import UsageError
from ssan.layers import DoubleAttention, double_attention


@pytest.mark.parametrize("embedding", [None, 5, "half"])
@pytest.mark.parametrize("training", [True, False])
def test_equals_the_loops_for_every_combination_of_switches(embedding: object, training: bool) -> None:
    layer = randomised(DoubleAttention(C, embedding=embedding).double()).train(training)
    params = {name: tensor.numpy().copy() for name, tensor in layer.state_dict().items()}
    x = video(h=2, w=5)
    expected = torch.from_numpy(naive.double_attention(x.numpy(), params, training=training))
    torch.testing.assert_close(layer(x).detach(), expected, rtol=0, atol=1e-10)


def by_hand() -> tuple[nn.Module, Tensor]:
    """One channel, two descriptors: A = (x, 0), B = (x, 0), V = (x, 0), and W_z adds up its inputs."""
    layer = DoubleAttention(1, embedding=2).double().eval()
    with torch.no_grad():
        for name, tensor in layer.state_dict().items():
            tensor.fill_(1.0 if name in ("out.weight", "norm.weight") else 0.0)
        layer.norm.running_var.fill_(1 - layer.norm.eps)
        for part in (layer.features, layer.maps, layer.vectors):
            part.weight[0] = 1
    return layer, torch.tensor([0.0, math.log(3)], dtype=torch.float64).view(1, 2, 1, 1, 1)


def test_a_number_worked_by_hand() -> None:
    """Two frames of one position, x = 0 and ln 3.

    Over positions B's columns (0, ln 3) and (0, 0) become the maps (1/4, 3/4) and (1/2, 1/2): the descriptors hold
    3/4 ln 3 and 1/2 ln 3. Over descriptors V's rows (0, 0) and (ln 3, 0) become (1/2, 1/2) and (3/4, 1/4): the first
    position gets 3/8 + 1/4 = 5/8 of ln 3, the second 9/16 + 1/8 = 11/16 of it, each besides its own x.
    """
    layer, x = by_hand()
    expected = [5 / 8 * math.log(3), (1 + 11 / 16) * math.log(3)]
    assert layer(x).flatten().tolist() == pytest.approx(expected, abs=1e-12)


def test_the_second_softmax_runs_over_descriptors() -> None:
    """Over positions V's columns would become (1/4, 3/4) and (1/2, 1/2), and the first position get 7/16 of ln 3."""
    layer, x = by_hand()
    assert layer(x).flatten()[0].item() != pytest.approx(7 / 16 * math.log(3), abs=0.1)
    # A position that asks for nothing in particular is handed the mean of the descriptors, wherever others are.
    with torch.no_grad():
        layer.vectors.weight.zero_()
    assert (layer(x) - x).flatten().tolist() == pytest.approx([5 / 8 * math.log(3)] * 2, abs=1e-12)


def test_a_bias_of_the_maps_would_change_nothing() -> None:
    """The reason for having none: it would add the same to a descriptor's whole map, and the softmax stays."""
    layer = randomised(DoubleAttention(C).double()).eval()
    x = video()
    expected = layer(x)
    layer.maps.register_forward_hook(lambda module, inputs, output: output + video(seed=8)[0, 0, :, 0, 0])
    torch.testing.assert_close(layer(x), expected, rtol=0, atol=1e-10)
    layer.vectors.register_forward_hook(lambda module, inputs, output: output + video(seed=8)[0, 0, :, 0, 0])
    assert not torch.allclose(layer(x), expected)


def test_every_position_of_every_frame_is_gathered_from_and_handed_to() -> None:
    layer = randomised(DoubleAttention(C).double()).eval()
    x = video(b=2).requires_grad_()
    layer(x)[0, 1, :, 2, 3].sum().backward()
    assert x.grad is not None
    reached = x.grad.abs().sum(dim=2) > 0
    assert reached[0].all()
    assert not reached[1].any()


def test_the_width_is_that_of_ssa_unless_told_otherwise() -> None:
    for embedding, width in [(None, 12), ("half", 6), (5, 5)]:
        layer = DoubleAttention(12, embedding=embedding)
        assert {part.out_features for part in (layer.features, layer.maps, layer.vectors)} == {width}


def test_starts_as_the_identity_when_told_to() -> None:
    x = torch.randn(B, T, C, H, W)
    assert torch.equal(DoubleAttention(C, identity_start=True)(x), x)
    assert not torch.allclose(DoubleAttention(C)(x), x)


def test_gradients_are_those_of_finite_differences() -> None:
    layer = randomised(DoubleAttention(3, embedding=2).double()).train()
    names, parameters = zip(*layer.named_parameters(), strict=True)

    def call(x: Tensor, *values: Tensor) -> Tensor:
        return torch.func.functional_call(layer, dict(zip(names, values, strict=True)), (x,))

    assert torch.autograd.gradcheck(call, (video(b=1, t=2, c=3, h=2, w=3).requires_grad_(), *parameters))


@pytest.mark.parametrize(("dtype", "tolerance"), HALF)
def test_in_half_precision_it_stays_close_to_single(dtype: torch.dtype, tolerance: float) -> None:
    layer = DoubleAttention(16).eval()
    x = torch.randn(2, 3, 16, 5, 7)
    with torch.no_grad():
        single = layer(x) - x
        with torch.autocast("cpu", dtype):
            half = layer(x) - x
    assert (single - half).abs().max() < tolerance * single.abs().max()
    assert not torch.equal(single, half)  # autocast did something


def test_in_half_precision_many_small_weights_still_add_up() -> None:
    """One of 50,007 positions has the similarity 14.25, whose exponential is 1.5 million, the others have 0.

    Each of these weighs 6.27e-7, which is 10.5 times the smallest number of float16: it would be 4 percent off there.
    """
    features, maps = torch.ones(1, 50_007, 1), torch.zeros(1, 50_007, 1)
    features[0, 0], maps[0, 0] = 0, 14.25
    expected = 50_006 / (50_006 + math.exp(14.25))
    found = [double_attention._gather(features.half(), maps.half())]
    with torch.autocast("cpu", torch.float16):
        found.append(double_attention._gather(features.half(), maps.half()))
    for gathered in found:
        assert gathered.dtype == torch.float16
        assert gathered.item() == pytest.approx(expected, rel=1e-2)


@pytest.mark.parametrize(("embedding", "shown"), [(0, "0"), ("quarter", "'quarter'"), (True, "True")])
def test_a_wrong_option_is_named(embedding: object, shown: str) -> None:
    with pytest.raises(UsageError, match=f"double_attention: embedding is {shown}; it must be a number"):
        DoubleAttention(C, embedding=embedding)


def test_a_batch_of_images_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\(b, t, c, h, w\); got 4 axes"):
        DoubleAttention(C)(torch.randn(2, C, H, W))
