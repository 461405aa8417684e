"""Blocks that go into a network's slots: tensors in, tensors of the same shape out, one idea a file.

Every layer takes video features (b, t, c, h, w) and returns the same shape. It learns the number of frames from each
input and owns none, so a network trained on 8 frames runs on 16, and entries of the batch never mix.

A new layer is one file here, one line in ``LAYERS`` and one recipe; ``LAYERS[name](channels, **options)`` builds it.
"""

from collections.abc import Callable

from torch import nn

from ssan.layers.ssa import SeparableSelfAttention
from ssan.layers.temporal_shift import TemporalShift

LAYERS: dict[str, Callable[..., nn.Module]] = {
    "ssa": SeparableSelfAttention,
    "temporal_shift": TemporalShift,
}
