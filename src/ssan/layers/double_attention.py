"""The double attention block of A2-Nets (Chen, Kalantidis, Li, Yan, Feng, NeurIPS 2018)."""

from typing import Literal

import torch
from torch import Tensor, nn

from ssan.layers.shape import embedding_width, not_features, start_weight


class DoubleAttention(nn.Module):
    """Gather a few descriptors from all positions of a clip, then hand each position those that it asks for.

    With ``x`` the features of all n = t p positions as a matrix (n, c), every ``W`` a 1x1 convolution, and d the number
    of descriptors::

        A, B, V = W_A x, W_B x, W_V x                             (n, e), (n, d), (n, d)
        G = A^T softmax_positions(B)                              (e, d)   gathering, section 3.1
        Z = softmax_descriptors(V) G^T                            (n, e)   distribution, section 3.2
        y = x + BN(W_z Z)

    The two softmaxes run along different axes. A column of B becomes an attention map, which sums to 1 over the clip's
    positions; a row of V becomes a position's attention over descriptors, which sums to 1 over those d. (Code that
    takes the second over positions too can be found in public; the paper's section 3.2 asks for unit sums over
    descriptors. Pinned by test_the_second_softmax_runs_over_descriptors.)

    No convolution sees neighbouring frames and every sum is over a set, so the block cannot know the order of frames.
    Its cost grows with n, where that of a non-local block grows with n^2.

    Our choice, each pinned in tests/layers/test_double_attention.py: e = d = c unless ``embedding`` says otherwise (a
    number, or ``half`` for c // 2), as for the blocks that it stands beside in the slots; BatchNorm after W_z, with
    weight 0 at first under ``identity_start``, or the weight ``start``, as in ``NonLocal``; W_B without a bias, which
    the softmax over positions would take away again.

    Source: A2-Nets, section 3.1 to 3.3.

    :param channels: channels c of the input.
    :raises UsageError: an ``embedding`` that is no width.
    """

    def __init__(
        self,
        channels: int,
        *,
        embedding: int | Literal["half"] | None = None,
        identity_start: bool = False,
        start: float | None = None,
    ) -> None:
        super().__init__()
        self.channels = channels
        e = embedding_width(embedding, channels, "double_attention")
        self.features = nn.Linear(channels, e)
        self.maps = nn.Linear(channels, e, bias=False)
        self.vectors = nn.Linear(channels, e)
        self.out = nn.Linear(e, channels, bias=False)
        self.norm = nn.BatchNorm2d(channels)
        nn.init.constant_(self.norm.weight, start_weight(start, identity_start, "double_attention"))

    def forward(self, x: Tensor) -> Tensor:
        """Map features (b, t, c, h, w) to the same shape; any b, t, h, w of at least 1."""
        if x.dim() != 5 or x.shape[2] != self.channels:
            raise not_features(x, self.channels, "double_attention")
        b, t, _, h, w = x.shape
        x_bnc = x.permute(0, 1, 3, 4, 2).flatten(1, 3).contiguous()
        gathered_bed = _gather(self.features(x_bnc), self.maps(x_bnc))
        z_bne = self.vectors(x_bnc).softmax(dim=2) @ gathered_bed.mT
        # Each position an image of one pixel: BatchNorm's backward is slow where a gradient lies channels first.
        z_bnc = self.norm(self.out(z_bne).view(b * t * h * w, -1, 1, 1)).view_as(x_bnc)
        return x + z_bnc.unflatten(1, (t, h, w)).permute(0, 1, 4, 2, 3)


def _gather(a_bne: Tensor, b_bnd: Tensor) -> Tensor:
    """A^T softmax_positions(B), (b, e, d), in the precision of A.

    Half precision keeps few digits of a weight near 1 / n, and n is 25,000: there it is taken in float32.
    """
    if a_bne.dtype not in (torch.float16, torch.bfloat16):
        return a_bne.mT @ b_bnd.softmax(dim=1)
    with torch.autocast(a_bne.device.type, enabled=False):
        return (a_bne.float().mT @ b_bnd.float().softmax(dim=1)).to(a_bne.dtype)
