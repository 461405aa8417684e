"""The non-local block (Wang, Girshick, Gupta, He, CVPR 2018), over space and time at once or over one of them."""

import math
from typing import Literal, get_args

import torch.nn.functional as F
from torch import Tensor, nn

from ssan.errors import UsageError
from ssan.layers.shape import embedding_width, not_features, start_weight
from ssan.layers.ssa import pool_2x2

Pairwise = Literal["embedded_gaussian", "gaussian", "dot_product"]


class NonLocal(nn.Module):
    """Let each position attend to the others: of all frames, of its own frame, or its own position in other frames.

    With ``x`` the features of the positions that see each other as a matrix (n, c) and every ``W`` a 1x1 convolution::

        theta, phi, g = W_theta x, W_phi x, W_g x                 (n, e) each
        M = softmax_rows(s * theta phi^T)                         (n, n)   the embedded Gaussian, equation 3
        y = x + BN(W_z (M g))                                              equation 6

    ``axes`` says which positions those are, and SSAN's table 2 names the block after them:

    - ``thw``, "3D": all n = t p positions of the clip.
    - ``hw``, "2D": the n = p positions of a frame, each frame by itself.
    - ``t``, "1D": one position in the n = t frames, each position by itself.

    Attention treats what it attends to as a set: in a network that sees frames one by one and averages their scores,
    no choice of ``axes`` can tell a clip from its frames in another order (pinned in
    tests/layers/test_nonlocal_block.py).

    Source: Non-local Neural Networks, section 3.2 and 3.3. Its own options and ours have the names that
    ``SeparableSelfAttention`` gives them:

    - ``embedding``: the width e. ``half`` is the c // 2 of the non-local paper, whose block sits on wide features. The
      default is e = c: SSAN compares the two blocks at the same point, after a 1x1 convolution that already reduced
      the channels fourfold, and there SSA has e = c; so table 2 compares blocks of one width.
    - ``similarity_scale``: ``sqrt`` divides the similarities by the square root of e, as the authors' code does;
      ``none`` takes them as equation 3 prints them.
    - ``pairwise``: the function f that compares positions. ``embedded_gaussian`` is the one above. ``gaussian``
      compares the features themselves, M = softmax_rows(s * x x^T), equation 2, and has no W_theta and W_phi.
      ``dot_product`` takes M = s * theta phi^T / N, equation 4, where N is the number of positions attended to.
    - ``pool_keys``: phi and g are max-pooled 2x2 in space, the paper's "subsampling trick"; a quarter of the cost.
    - ``identity_start``: the last BatchNorm starts with weight 0, as in the paper, so that a pre-trained network keeps
      its features; False starts it with 1, as from random weights. ``start`` is a weight from 0 to 1 instead.

    Unsaid by the paper, our choice: before a softmax W_phi has no bias. It would add the same to a whole row of
    similarities, which the softmax takes away again (pinned by test_a_bias_of_phi_would_change_nothing); a dot product
    keeps it, and so W_phi has one there. W_z has none either, which BatchNorm would take away again.

    No (n, n) matrix is held where the device has a memory-efficient kernel for it.

    :param channels: channels c of the input.
    :raises UsageError: an option that is none of these, or ``pool_keys`` with ``axes="t"``, where space is not seen.
    """

    def __init__(
        self,
        channels: int,
        *,
        axes: Literal["thw", "hw", "t"] = "thw",
        embedding: int | Literal["half"] | None = None,
        similarity_scale: Literal["sqrt", "none"] = "sqrt",
        pairwise: Pairwise = "embedded_gaussian",
        identity_start: bool = False,
        start: float | None = None,
        pool_keys: bool = False,
    ) -> None:
        super().__init__()
        self.channels = channels
        for name, value, allowed in [
            ("axes", axes, ("thw", "hw", "t")),
            ("similarity_scale", similarity_scale, ("sqrt", "none")),
            ("pairwise", pairwise, get_args(Pairwise)),
        ]:
            if value not in allowed:
                raise UsageError(f"nonlocal: {name} is {value!r}; it must be {' or '.join(map(repr, allowed))}")
        if pool_keys and axes == "t":
            raise UsageError("nonlocal: pool_keys pools in space, which axes 't' does not see; leave it out")
        e = embedding_width(embedding, channels, "nonlocal")
        self.axes = axes
        self.pairwise = pairwise
        self.pool_keys = pool_keys
        num_compared = channels if pairwise == "gaussian" else e
        self.scale = 1 / math.sqrt(num_compared) if similarity_scale == "sqrt" else 1.0

        # A 1x1 convolution is a Linear over the last axis of (b, t, p, c), where channels-last memory makes it free.
        self.theta: nn.Module = nn.Identity()
        self.phi: nn.Module = nn.Identity()
        if pairwise != "gaussian":
            self.theta = nn.Linear(channels, e)
            self.phi = nn.Linear(channels, e, bias=pairwise == "dot_product")
        self.g = nn.Linear(channels, e)
        self.out = nn.Linear(e, channels, bias=False)
        self.norm = nn.BatchNorm2d(channels)
        nn.init.constant_(self.norm.weight, start_weight(start, identity_start, "nonlocal"))

    def forward(self, x: Tensor) -> Tensor:
        """Map features (b, t, c, h, w) to the same shape; any b, t, h, w of at least 1."""
        if x.dim() != 5 or x.shape[2] != self.channels:
            raise not_features(x, self.channels, "nonlocal")
        b, t, _, h, w = x.shape
        # Channels last from here on: copied once, unless the input lies so already, and every reshape is then free.
        x_btpc = x.permute(0, 1, 3, 4, 2).flatten(2, 3).contiguous()
        phi, g = self._keys_and_values(x_btpc, h, w)
        y_btpe = self._attend(self.theta(x_btpc), phi, g)
        # Each position an image of one pixel: BatchNorm's backward is slow where a gradient lies channels first.
        z_btpc = self.norm(self.out(y_btpe).reshape(b * t * h * w, -1, 1, 1)).view_as(x_btpc)
        return x + z_btpc.unflatten(2, (h, w)).permute(0, 1, 4, 2, 3)

    def _keys_and_values(self, x_btpc: Tensor, h: int, w: int) -> tuple[Tensor, Tensor]:
        """phi (b, t, p or pooled p, e or c) and g (b, t, p or pooled p, e)."""
        phi, g = self.phi(x_btpc), self.g(x_btpc)
        if not self.pool_keys:
            return phi, g
        frames = x_btpc.shape[:2]
        phi, g = (pool_2x2(z.flatten(0, 1), h, w).unflatten(0, frames) for z in (phi, g))
        return phi, g

    def _attend(self, theta: Tensor, phi: Tensor, g: Tensor) -> Tensor:
        """M g: queries (b, t, p, e or c), keys and values (b, t, p or pooled p, ...), to (b, t, p, e).

        The kernel attends within the last but one of four axes. They stand there, contiguous, or it writes M out.
        """
        if self.axes == "hw":
            return self._weigh(theta, phi, g)
        if self.axes == "thw":
            q, k, v = (z.flatten(1, 2).unsqueeze(1) for z in (theta, phi, g))  # (b, 1, t p, e)
            return self._weigh(q, k, v).view(*theta.shape[:3], -1)
        q, k, v = (z.transpose(1, 2).contiguous() for z in (theta, phi, g))  # (b, p, t, e)
        return self._weigh(q, k, v).transpose(1, 2)

    def _weigh(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """For each row of q (..., n, e), the rows of v weighted by how that row compares with those of k."""
        if self.pairwise == "dot_product":  # without a softmax between them, products can be taken in any order
            return q @ ((k * (self.scale / k.shape[-2])).mT @ v)
        return F.scaled_dot_product_attention(q, k, v, scale=self.scale)

    def extra_repr(self) -> str:
        return f"axes={self.axes!r}, pairwise={self.pairwise!r}"


class NonLocalPair(nn.Module):
    """A non-local block within each frame, then one over frames, each with its own residual: "2D+1D NL".

    ::

        x' = NonLocal_hw(x)
        y  = NonLocal_t(x')

    Source: SSAN (CVPR 2021), section 4.3, tables 2 and 5: the straightforward way to separate space from time, and the
    baseline of the ablation.

    Unsaid by the paper, our choice, how table 5 leads from this pair to SSA in three switches. The pair differs from
    SSA in the switches of the table (SA, a channel branch; SVE, one value for both attentions; TA, a 3x1x1 convolution
    for the temporal embeddings) and in what no column names: its first half ends with W_z, BatchNorm and a residual
    before the second begins, and its second half compares frames position by position. With the three switches on the
    network must be SSA, with the three off this pair, so the unnamed difference falls on one step. In our eight recipes
    that is the first one: ``recipes/table5/none`` builds this pair, and the seven others set ``channel_branch``,
    ``shared_value`` and ``temporal_kernel`` of ``SeparableSelfAttention``, among which each step then changes one
    thing. A ninth, ``recipes/table5/none_in_ssa``, is SSA with the three off; beside ``none`` it shows what the
    unnamed difference is worth (pinned in tests/reproduce/test_tables.py).

    Options are those of ``NonLocal`` and go to both halves; ``pool_keys`` to the first, which alone sees space.

    :param channels: channels c of the input.
    """

    def __init__(
        self,
        channels: int,
        *,
        embedding: int | Literal["half"] | None = None,
        similarity_scale: Literal["sqrt", "none"] = "sqrt",
        pairwise: Pairwise = "embedded_gaussian",
        identity_start: bool = False,
        start: float | None = None,
        pool_keys: bool = False,
    ) -> None:
        super().__init__()

        def half(axes: Literal["hw", "t"], pool: bool) -> NonLocal:
            return NonLocal(
                channels, axes=axes, embedding=embedding, similarity_scale=similarity_scale, pairwise=pairwise,
                identity_start=identity_start, start=start, pool_keys=pool,
            )  # fmt: skip

        self.space = half("hw", pool_keys)
        self.time = half("t", False)

    def forward(self, x: Tensor) -> Tensor:
        """Map features (b, t, c, h, w) to the same shape; any b, t, h, w of at least 1."""
        return self.time(self.space(x))
