"""TemporalConvolution against loops, finite differences and the library's own gradients, and where it takes those."""

import itertools

import pytest
import torch
from torch import Tensor, nn

from ssan.layers.ssa import TemporalConvolution

# All sizes are different primes, so that no two axes can be mistaken for each other.
B, T, P, C, E = 2, 5, 7, 3, 11


def features(b: int = B, t: int = T, p: int = P, c: int = C, seed: int = 1) -> Tensor:
    return torch.randn(b, t, p, c, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def convolution(kernel: int, parts: int, c: int = C, e: int = E) -> TemporalConvolution:
    torch.manual_seed(0)
    return TemporalConvolution(c, e, kernel=kernel, parts=parts).double()


@torch.no_grad()
def loops(x: Tensor, layer: TemporalConvolution, kernel: int) -> Tensor:
    """(b, t, p, c) to (b, t, p, all outputs), a number at a time: zeros before the first frame and after the last."""
    b, t, p, _ = x.shape
    assert layer.bias is not None
    y = torch.zeros(b, t, p, layer.out_channels, dtype=x.dtype)
    for i, now, position, o in itertools.product(range(b), range(t), range(p), range(layer.out_channels)):
        total = layer.bias[o].item()
        for j in range(kernel):
            seen = now + j - kernel // 2
            if 0 <= seen < t:
                total += float((layer.weight[o, :, j, 0] * x[i, seen, position]).sum())
        y[i, now, position, o] = total
    return y


@pytest.mark.slow
@pytest.mark.parametrize("kernel", [1, 3, 5])
@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize("t", [1, 2, T])
def test_equals_the_loops_part_by_part(kernel: int, parts: int, t: int) -> None:
    layer, x = convolution(kernel, parts), features(t=t)
    found = layer(x)
    assert [part.shape for part in found] == [(B, t, P, E)] * parts
    assert all(part.is_contiguous() for part in found)
    torch.testing.assert_close(torch.cat(found, dim=-1).detach(), loops(x, layer, kernel), rtol=0, atol=1e-12)
    with torch.no_grad():
        assert all(map(torch.equal, layer(x), found))


@pytest.mark.slow
@pytest.mark.parametrize("kernel", [1, 3, 5])
@pytest.mark.parametrize("t", [1, 2, 4])
def test_its_own_gradients_are_the_derivatives_and_so_are_the_second(kernel: int, t: int) -> None:
    layer = convolution(kernel, 2, c=3, e=2)
    assert layer.bias is not None
    x = features(b=2, t=t, p=2).requires_grad_()

    def call(x: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, ...]:
        return torch.func.functional_call(layer, {"weight": weight, "bias": bias}, (x,))  # type: ignore[no-any-return]

    values = (x, layer.weight, layer.bias)
    assert torch.autograd.gradcheck(call, values)
    assert torch.autograd.gradgradcheck(lambda *z: [part**3 for part in call(*z)], values)


@pytest.mark.parametrize("kernel", [1, 3])
def test_its_gradients_are_those_of_the_library(kernel: int) -> None:
    """Single precision, and features and gradients that do not lie in the order in which the products want them."""
    layer = convolution(kernel, 2, c=32, e=16).float()
    x = features(p=49, c=32).float().transpose(1, 2).contiguous().transpose(1, 2).requires_grad_()
    returned = [features(p=49, c=16, seed=seed).float().transpose(1, 3).contiguous().transpose(1, 3) for seed in (2, 3)]
    own = torch.autograd.grad(layer(x), [x, *layer.parameters()], returned)
    library = nn.functional.conv2d(x.permute(0, 3, 1, 2), layer.weight, layer.bias, padding=(kernel // 2, 0))
    theirs = torch.autograd.grad(library, [x, *layer.parameters()], torch.cat(returned, dim=-1).permute(0, 3, 1, 2))
    for a, b in zip(own, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-4)


def test_a_part_that_nobody_uses_changes_nothing_and_has_no_gradient() -> None:
    layer, x = convolution(3, 2), features().requires_grad_()
    first, _ = layer(x)
    d_x, d_weight = torch.autograd.grad(first.square().sum(), [x, layer.weight])
    alone = convolution(3, 1)
    with torch.no_grad():
        alone.weight.copy_(layer.weight[:E])
        alone.bias.copy_(layer.bias[:E])  # type: ignore[union-attr, index]
    expected = torch.autograd.grad(alone(x)[0].square().sum(), [x, alone.weight])
    torch.testing.assert_close(d_x, expected[0])
    torch.testing.assert_close(d_weight[:E], expected[1])
    assert not d_weight[E:].any()


@pytest.mark.parametrize("frozen", ["x", "weight", "bias"])
def test_what_is_frozen_gets_no_gradient_and_the_rest_the_same(frozen: str) -> None:
    def gradients(frozen: str | None) -> dict[str, Tensor | None]:
        layer, x = convolution(3, 2), features()
        values = {"x": x, **dict(layer.named_parameters())}
        for name, value in values.items():
            value.requires_grad_(name != frozen)
        sum(part.square().sum() for part in layer(x)).backward()
        return {name: value.grad for name, value in values.items()}

    whole, partial = gradients(None), gradients(frozen)
    assert partial.pop(frozen) is None
    for name, gradient in partial.items():
        assert gradient is not None
        torch.testing.assert_close(gradient, whole[name])


def test_on_the_cpu_its_own_gradients_are_taken_in_single_and_double_precision_alone() -> None:
    def taken(layer: TemporalConvolution, x: Tensor) -> bool:
        return "OverTime" in str(layer(x)[0].grad_fn)

    assert taken(convolution(3, 2), features())
    assert taken(convolution(3, 2).float(), features().float())
    assert not taken(convolution(3, 2).bfloat16(), features().bfloat16())
    with torch.autocast("cpu", torch.bfloat16):
        layer = convolution(3, 2).float()
        assert not taken(layer, features().float())
        assert layer(features().float())[0].dtype == torch.bfloat16


def test_weights_have_the_names_shapes_and_start_of_a_plain_convolution() -> None:
    torch.manual_seed(0)
    plain = nn.Conv2d(C, 2 * E, (3, 1), padding=(1, 0)).double().state_dict()
    own = convolution(3, 2).state_dict()
    assert own.keys() == plain.keys()
    assert all(torch.equal(own[name], plain[name]) for name in plain)
