"""What networks of volumes consist of, one position after another, in float64: clips are (c, t, h, w)."""

import itertools
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

Triple = tuple[int, int, int]


def values(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def filled(module: nn.Module, seed: int = 0) -> nn.Module:
    """In float64 and in evaluation, every weight and statistic random."""
    generator = torch.Generator().manual_seed(seed)
    module = module.double().eval()
    with torch.no_grad():
        for name, tensor in module.state_dict().items():
            if tensor.is_floating_point():
                tensor.uniform_(0.5, 1.5, generator=generator) if name.endswith("var") else tensor.uniform_(
                    -0.5, 0.5, generator=generator
                )
    return module


def params_of(module: nn.Module) -> dict[str, np.ndarray]:
    return {name: tensor.numpy() for name, tensor in module.state_dict().items()}


def convolved(
    x: np.ndarray, weight: np.ndarray, stride: Triple = (1, 1, 1), padding: Triple = (0, 0, 0), groups: int = 1
) -> np.ndarray:
    """Outside there are zeros; a group of channels sees its own share of the input alone."""
    kernel = weight.shape[2:]
    sizes = [(n + 2 * p - k) // s + 1 for n, p, k, s in zip(x.shape[1:], padding, kernel, stride, strict=True)]
    out = np.zeros((len(weight), *sizes))
    num_in, num_out = weight.shape[1], len(weight) // groups
    for at in itertools.product(*map(range, sizes)):
        for tap in itertools.product(*map(range, kernel)):
            place = [i * s + k - p for i, s, k, p in zip(at, stride, tap, padding, strict=True)]
            if all(0 <= i < n for i, n in zip(place, x.shape[1:], strict=True)):
                seen = x[:, place[0], place[1], place[2]]
                for group in range(groups):
                    rows = slice(group * num_out, (group + 1) * num_out)
                    taps = weight[rows, :, tap[0], tap[1], tap[2]]
                    out[rows, at[0], at[1], at[2]] += taps @ seen[group * num_in : (group + 1) * num_in]
    return out


def pooled(x: np.ndarray, kernel: Triple, stride: Triple, padding: Triple = (0, 0, 0)) -> np.ndarray:
    """The largest of each window that begins inside, of what of it is there; a window that is not full is left out."""
    sizes = [(n + 2 * p - k) // s + 1 for n, p, k, s in zip(x.shape[1:], padding, kernel, stride, strict=True)]
    out = np.zeros((len(x), *sizes))
    for at in itertools.product(*map(range, sizes)):
        spans = [
            range(max(i * s - p, 0), min(i * s - p + k, n))
            for i, s, p, k, n in zip(at, stride, padding, kernel, x.shape[1:], strict=True)
        ]
        window = [x[:, a, b, c] for a, b, c in itertools.product(*spans)]
        out[:, at[0], at[1], at[2]] = np.max(window, axis=0)
    return out


def normed(x: np.ndarray, params: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    """BatchNorm in evaluation, with an epsilon of 1e-5."""
    out = np.empty_like(x)
    for c in range(len(x)):
        spread = np.sqrt(params[f"{name}.running_var"][c] + 1e-5)
        out[c] = (x[c] - params[f"{name}.running_mean"][c]) / spread
        out[c] = out[c] * params[f"{name}.weight"][c] + params[f"{name}.bias"][c]
    return out


def relu(x: np.ndarray) -> np.ndarray:
    return np.maximum(x, 0)
