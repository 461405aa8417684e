"""Attention weighting of frames (Wang et al., Temporal Segment Networks, TPAMI 2018): a consensus that learns."""

import torch
from torch import Tensor, nn


class AttentionOverFrames(nn.Module):
    """Weigh the scores of frames by how much each says, instead of averaging them.

    With the features f_i of t frames, a query q and a linear layer W, b of k classes::

        a_i = exp(q f_i) / sum over j of exp(q f_j)
        scores = W (sum over i of a_i f_i) + b

    that is, features pooled by attention and then classified. The weights a_i sum to 1, so the scores are just as well
    the sum of a_i (W f_i + b), the frames' own scores in the same weights. In that form q is one more row of the
    classifier's linear layer, and this module has no weights: its ``num_features`` are k + 1, the scores of a frame and
    then its q f_i. (A bias of that row changes nothing.) With q = 0 it is the mean.

    It takes any number of frames, and does not know their order.

    :param num_classes: k.
    :param num_frames: not used; a consensus is made with it.
    """

    def __init__(self, num_classes: int, num_frames: int = 1) -> None:
        super().__init__()
        self.num_features = num_classes + 1

    def forward(self, scores_btf: Tensor) -> Tensor:
        """The scores of frames and their logits of attention, (b, t, k + 1), to logits (b, k)."""
        if scores_btf.dim() != 3 or scores_btf.shape[2] != self.num_features:
            raise ValueError(
                f"attention over frames takes (b, t, {self.num_features}); got {tuple(scores_btf.shape)}: make it with "
                "num_classes of the scores"
            )
        weights_bt = scores_btf[..., -1].softmax(dim=1)
        return torch.einsum("bt,btk->bk", weights_bt, scores_btf[..., :-1])
