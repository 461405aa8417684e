"""What the tests of single blocks share: one small video, weights of which none can be left out unnoticed."""

import torch
from torch import Tensor, nn

# All sizes are different primes, so that no two axes can be mistaken for each other; embeddings are 3, 5 or 7 wide.
B, T, C, H, W = 2, 3, 7, 5, 11

# Relative to the largest value: a few of the roundings of each precision (2^-8 and 2^-11) on the way through a block.
HALF = [(torch.bfloat16, 4e-2), (torch.float16, 5e-3)]


def randomised(layer: nn.Module, seed: int = 0) -> nn.Module:
    """Every weight and statistic random, so that none can be left out unnoticed."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in layer.state_dict().items():
            if tensor.is_floating_point():
                tensor.copy_(torch.randn(tensor.shape, generator=generator, dtype=tensor.dtype) * 0.5)
                if name.endswith("running_var"):
                    tensor.abs_().add_(0.5)
    return layer


def video(seed: int = 1, b: int = B, t: int = T, c: int = C, h: int = H, w: int = W) -> Tensor:
    return torch.randn(b, t, c, h, w, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def check_half_precision(layer: nn.Module, weights: list[Tensor], dtype: torch.dtype, tolerance: float) -> None:
    """Under autocast output and gradients, of the input and ``weights``, stay close to those in single precision."""
    x, d_out = torch.randn(2, 3, 16, 5, 7), torch.randn(2, 3, 16, 5, 7)
    found = []
    for enabled in (False, True):
        own = x.clone().requires_grad_()
        with torch.autocast("cpu", dtype, enabled=enabled):
            y = layer(own)
        found.append((y.detach(), *torch.autograd.grad(y, [own, *weights], d_out)))
    for single, half in zip(*found, strict=True):
        assert half.dtype == torch.float32
        assert (single - half).abs().max() < tolerance * single.abs().max()
    assert not torch.equal(found[0][0], found[1][0])  # autocast did something


class Times(nn.Module):
    """What stands in a slot and can be told: features (b, t, c, h, w) times a number."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        assert x.dim() == 5
        return x * self.factor
