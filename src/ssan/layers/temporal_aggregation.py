"""The temporal aggregation module of bLVNet-TAM (Fan et al., "More Is Less", NeurIPS 2019)."""

import torch.nn.functional as F
from torch import Tensor, nn

from ssan.layers.shape import not_features


class TemporalAggregation(nn.Module):
    """Each channel of a frame becomes a weighted sum of itself and of the same channel of its neighbours.

    ::

        y[i] = relu(w_prev * x[i-1] + w_curr * x[i] + w_next * x[i+1])       w of length c each, * channel by channel

    Frames before the first and after the last are zeros. Source: the module as its authors released it (class TAM of
    IBM/bLVNet-TAM) with their three frames; the three weights are depth-wise 1x1 convolutions without a bias.

    Unsaid by the paper, our choice: the layer starts with the weights 0, 1, 0, so that features that are not negative
    pass it as they are. Pinned by ``test_it_starts_as_a_relu_of_each_frame``. In bLVNet-TAM it starts as its authors'
    code has it, ``ssan.models.blvnet``.

    :param channels: channels c of the input.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.prev, self.curr, self.next = (_of_each_channel(channels, start) for start in (0.0, 1.0, 0.0))

    def forward(self, x: Tensor) -> Tensor:
        """Aggregate (b, t, c, h, w) along t; the result has the same shape."""
        if x.dim() != 5 or x.shape[2] != self.channels:
            raise not_features(x, self.channels, "temporal_aggregation")
        t, frames = x.shape[1], x.flatten(0, 1)
        prev, curr, following = (
            weighted(frames).unflatten(0, (-1, t)) for weighted in (self.prev, self.curr, self.next)
        )
        prev = F.pad(prev, (0, 0, 0, 0, 0, 0, 1, 0))[:, :-1]
        following = F.pad(following, (0, 0, 0, 0, 0, 0, 0, 1))[:, 1:]
        return F.relu(prev + curr + following)


def _of_each_channel(channels: int, start: float) -> nn.Conv2d:
    """A weight for each channel, which is this one at first."""
    weights = nn.Conv2d(channels, channels, 1, groups=channels, bias=False)
    nn.init.constant_(weights.weight, start)
    return weights
