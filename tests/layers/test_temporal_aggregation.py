"""TemporalAggregation against a twin written in loops, numbers worked by hand, and how it starts."""

import pytest
import torch
from torch import Tensor

import naive
from ssan.layers import TemporalAggregation

# All sizes are different primes, so that no two axes can be mistaken for each other.
B, T, C, H, W = 2, 5, 11, 3, 7


def video(b: int = B, t: int = T, c: int = C, h: int = H, w: int = W) -> Tensor:
    return torch.randn(b, t, c, h, w, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def with_weights(channels: int, prev: float, curr: float, following: float) -> TemporalAggregation:
    layer = TemporalAggregation(channels).double()
    with torch.no_grad():
        for part, weight in ((layer.prev, prev), (layer.curr, curr), (layer.next, following)):
            part.weight.fill_(weight)
    return layer


@pytest.mark.parametrize("num_frames", [1, 2, 5])
def test_equals_the_loops(num_frames: int) -> None:
    layer, x = TemporalAggregation(C).double(), video(t=num_frames)
    with torch.no_grad():
        for seed, weight in enumerate(layer.parameters()):
            weight.copy_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(seed)))
        expected = naive.temporal_aggregation(x.numpy(), {k: v.numpy() for k, v in layer.state_dict().items()})
        torch.testing.assert_close(layer(x), torch.from_numpy(expected), rtol=0, atol=1e-12)


def test_each_neighbour_has_its_own_weight_and_none_lies_beyond_the_ends() -> None:
    """Frames 1, 2, 3 with the weights 100, 10, 1: 0 + 10 + 2, 100 + 20 + 3, 200 + 30 + 0."""
    frames = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64).view(1, 3, 1, 1, 1)
    assert with_weights(1, 100, 10, 1)(frames).flatten().tolist() == [12, 123, 230]
    assert with_weights(1, 100, 10, 1)(frames[:, :1]).flatten().tolist() == [10]


def test_what_is_below_zero_becomes_zero() -> None:
    """Frames 1, 2, 3 with the weights -1, 1, 0: 1 - 0, 2 - 1, 3 - 2; with 1, -1, 0 the opposite, and so nothing."""
    frames = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64).view(1, 3, 1, 1, 1)
    assert with_weights(1, -1, 1, 0)(frames).flatten().tolist() == [1, 1, 1]
    assert with_weights(1, 1, -1, 0)(frames).flatten().tolist() == [0, 0, 0]


def test_a_channel_never_sees_another() -> None:
    x = torch.zeros(1, 3, C, 1, 1, dtype=torch.float64)
    x[:, :, 4] = 1
    out = with_weights(C, 1, 1, 1)(x)
    assert out[0, :, :, 0, 0].sum(dim=0).nonzero().flatten().tolist() == [4]


def test_it_starts_as_a_relu_of_each_frame() -> None:
    x = video()
    assert torch.equal(TemporalAggregation(C).double()(x), x.relu())
