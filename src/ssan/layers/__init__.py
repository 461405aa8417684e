"""Blocks that go into a network's slots: tensors in, tensors of the same shape out, one idea a file.

Every layer takes video features (b, t, c, h, w) and returns the same shape. It learns the number of frames from each
input and owns none, so a network trained on 8 frames runs on 16, and entries of the batch never mix.

A new layer is one file here, one line in ``LAYERS`` and one recipe; ``LAYERS[name](channels, **options)`` builds it.

A consensus comes after the backbone and makes one answer of the frames' features: (b, t, f) to (b, k).
``CONSENSUSES[name](num_classes, num_frames, **options)`` builds it, and its ``num_features`` is the f that it wants.
Without one, a network's scores are the mean of its frames' scores.
"""

from collections.abc import Callable

from torch import nn

from ssan.layers.attention_over_frames import AttentionOverFrames
from ssan.layers.double_attention import DoubleAttention
from ssan.layers.nonlocal_block import NonLocal, NonLocalPair
from ssan.layers.relation import TemporalRelation
from ssan.layers.ssa import SeparableSelfAttention
from ssan.layers.temporal_aggregation import TemporalAggregation
from ssan.layers.temporal_shift import TemporalShift

LAYERS: dict[str, Callable[..., nn.Module]] = {
    "ssa": SeparableSelfAttention,
    "temporal_shift": TemporalShift,
    "nonlocal": NonLocal,
    "nonlocal_pair": NonLocalPair,
    "double_attention": DoubleAttention,
    "temporal_aggregation": TemporalAggregation,
}

CONSENSUSES: dict[str, Callable[..., nn.Module]] = {
    "relation": TemporalRelation,
    "attention": AttentionOverFrames,
}
