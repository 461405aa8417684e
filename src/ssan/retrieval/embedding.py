"""The joint space of captions and videos: gated embedding units, attention over time, and both sides together."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ssan.errors import UsageError, unknown

AGGREGATES = ("max", "mean", "attention")


class GatedEmbeddingUnit(nn.Module):
    """A linear layer, each of whose outputs is let through as far as a gate of all of them opens; of length 1::

        y = W x + b
        z = y * sigmoid(V y + c)
        out = z / |z|

    An input for which z is zero gives zero.

    Source: Miech, Laptev, Sivic, "Learning a text-video embedding from incomplete and heterogeneous data" (2018),
    section 3.1; HowTo100M, Miech et al., ICCV 2019, section 4.1, and its released code.

    :param num_inputs: length of x.
    :param dim: d, length of the output.
    """

    def __init__(self, num_inputs: int, dim: int) -> None:
        super().__init__()
        self.fc = nn.Linear(num_inputs, dim)
        self.gate = nn.Linear(dim, dim)

    def forward(self, x_bf: Tensor) -> Tensor:
        """Map (b, num_inputs) to (b, dim)."""
        y_bd = self.fc(x_bf)
        return F.normalize(y_bd * self.gate(y_bd).sigmoid(), dim=1)


class AttentionOverTime(nn.Module):
    """One vector of several over time: their mean, weighted by what a learned score makes of each; of length 1::

        a = softmax_t(w . x_t)
        out = m / |m|,  m = sum_t a_t x_t

    Unsaid by the paper, our choice: reference 22 takes the maximum over time; this is the form with weights. The score
    has no bias, which the softmax would take away, and w is zero at first, so that training starts from the mean
    (test_attention_over_time_starts_from_the_mean). Vectors beyond a video's own number have no weight; a video without
    any gives zero.

    :param num_features: f, length of the vectors.
    """

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.score = nn.Linear(num_features, 1, bias=False)
        nn.init.zeros_(self.score.weight)

    def forward(self, x_btf: Tensor, num_b: Tensor) -> Tensor:
        """Map vectors (b, t, f), of which the first ``num_b`` (b,) of each video count, to (b, f)."""
        beyond_bt = torch.arange(x_btf.shape[1], device=x_btf.device) >= num_b[:, None]
        # What stands beyond the end need not even be finite.
        x_btf = x_btf.masked_fill(beyond_bt[:, :, None], 0)
        score_bt = self.score(x_btf).squeeze(2)
        weight_bt = score_bt.masked_fill(beyond_bt, torch.finfo(score_bt.dtype).min).softmax(dim=1)
        return F.normalize(torch.einsum("bt,btf->bf", weight_bt, x_btf), dim=1)


class JointSpace(nn.Module):
    """Captions and videos as vectors of length 1, so that their dot product says how well they go together.

    A caption goes through a text tower and a gated embedding unit, the features of a video through another such unit.
    Reference 22's network is this one with the ``maxpool`` tower, 4096 = 2048 + 2048 features, and "max"
    (benchmarks/parity/howto100m_parity.py compares the two).

    Source: HowTo100M, Miech et al., ICCV 2019, section 4.1.

    :param tower: maps words (b, l) to (b, tower.num_features), as those of ``towers.TOWERS``.
    :param video_dims: length of the vectors of each stream of features.
    :param dim: d; reference 22 trains with 4,096 and has released weights with 6,144.
    :param aggregate: how the vectors of a video over time become one. For "max" and "mean" that has been done
        beforehand (``features.pooled``); "attention" is learned here, one ``AttentionOverTime`` a stream.
    :raises UsageError: an unknown aggregate, or no stream.
    """

    def __init__(self, tower: nn.Module, video_dims: Sequence[int], dim: int, aggregate: str = "max") -> None:
        super().__init__()
        if aggregate not in AGGREGATES:
            raise UsageError(unknown("aggregate", aggregate, AGGREGATES))
        if not video_dims or min(video_dims) < 1 or dim < 1:
            raise UsageError(f"a joint space of {dim} for features of {list(video_dims)}; expected sizes of at least 1")
        self.tower = tower
        self.video_dims = tuple(video_dims)
        self.aggregate = aggregate
        num_features: int = tower.num_features  # type: ignore[assignment]
        self.text = GatedEmbeddingUnit(num_features, dim)
        self.video = GatedEmbeddingUnit(sum(video_dims), dim)
        of_streams = video_dims if aggregate == "attention" else ()
        self.over_time = nn.ModuleList(AttentionOverTime(num_features) for num_features in of_streams)

    def embed_text(self, words_bl: Tensor) -> Tensor:
        """Words (b, l), int64, to (b, d)."""
        return self.text(self.tower(words_bl))

    def embed_video(self, features: Tensor | Sequence[tuple[Tensor, Tensor]]) -> Tensor:
        """Features to (b, d).

        For "max" and "mean" they are (b, sum of video_dims), pooled, each stream of length 1, and joined; for
        "attention" one pair (vectors (b, t, f), their number (b,)) a stream.
        """
        if isinstance(features, Tensor):
            if self.aggregate == "attention" or features.shape[1:] != (sum(self.video_dims),):
                raise ValueError(f"{self.aggregate} over {self.video_dims} does not take {tuple(features.shape)}")
            return self.video(features)
        shapes = [tuple(vectors_btf.shape) for vectors_btf, _ in features]
        if self.aggregate != "attention" or [shape[2:] for shape in shapes] != [(f,) for f in self.video_dims]:
            raise ValueError(f"{self.aggregate} over {self.video_dims} does not take a list of {shapes}")
        pooled = [pool(*stream) for pool, stream in zip(self.over_time, features, strict=True)]
        return self.video(torch.cat(pooled, dim=1))

    def forward(self, pairs: tuple[Tensor, Tensor | Sequence[tuple[Tensor, Tensor]]]) -> tuple[Tensor, Tensor]:
        """Pairs of words and features, as ``embed_text`` and ``embed_video`` take them, to two tensors (b, d)."""
        words_bl, features = pairs
        return self.embed_text(words_bl), self.embed_video(features)
