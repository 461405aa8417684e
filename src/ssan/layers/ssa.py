"""The separable self-attention block of SSAN (CVPR 2021, section 3.2, equations 4 to 8)."""

import math
from typing import Any, Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssan.errors import UsageError
from ssan.layers.shape import embedding_width, not_features, start_weight


class SeparableSelfAttention(nn.Module):
    """Attend within each frame, over positions and over channels, then over frames.

    With ``x_t`` the features of frame t as a matrix (p, c) and every ``W`` a 1x1 convolution::

        theta_t, phi_t, g_t = W_theta x_t, W_phi x_t, W_g x_t           (p, e) each
        M_P = softmax_rows(s_p * theta_t phi_t^T)                       (p, p)   eq. 4, position branch
        M_C = softmax_rows(s_c * theta_t^T phi_t)                       (e, e)   eq. 5, channel branch
        A_t = M_P g_t + g_t M_C^T                                       (p, e)   eq. 6
        theta_T, phi_T = split(W_T * A over time)                       (t, p e) each
        M_T = softmax_rows(s_t * theta_T phi_T^T)                       (t, t)   eq. 7
        y = x + BN(W_z (M_T g_T))                                                eq. 8, g_T = g as (t, p e)

    Said by the paper: both spatial branches share theta and phi; one 3x1x1 convolution makes the temporal embeddings
    from A; the spatial and the temporal attention share the value g. Attention treats frames as a set, so that
    convolution is the only part of the block that knows their order.

    Unsaid by the paper, our choice (each pinned in tests/layers/test_ssa.py against a twin written in loops):

    - ``embedding``: the width e; None means e = c, ``half`` e = c // 2, the habit of non-local blocks.
    - ``similarity_scale``: ``sqrt`` divides each similarity by the square root of the length of the axis it sums over
      (e, p, and p e); ``none`` takes the products as they are.
    - ``position_branch``, ``channel_branch``: which terms of eq. 6 there are; with neither, A = g, which is the block
      without spatial attention.
    - ``shared_value``: False gives the temporal attention a value of its own, a 1x1x1 convolution of A.
    - ``temporal_kernel``: 3, or 1 for an embedding that sees one frame; frames beyond the ends count as zero.
    - ``temporal_embedding``: ``split`` cuts 2 e outputs into theta_T and phi_T; ``tied`` uses e outputs as both.
    - ``temporal_scope``: ``frame`` compares whole frames, one (t, t) matrix; ``position`` compares each position with
      itself at other times, one (t, t) matrix a position, scaled by the square root of e.
    - ``output``: ``residual`` is eq. 8 above; ``plain`` returns M_T g_T itself, and then needs e = c.
    - ``identity_start``: the last BatchNorm starts with weight 0, so that the block is the identity at first and a
      pre-trained network keeps its features; False starts it with 1, as from random weights.
    - ``start``: the weight that it starts with instead, from 0 to 1: between the two the network keeps most of its
      features, and the block has gradients from the first step on.
    - ``pool_keys``: phi and g are max-pooled 2x2 before the position branch, a quarter of its cost; the channel branch
      and the temporal attention see them whole.

    A position branch never holds its (p, p) matrix where the device has a memory-efficient kernel for it.

    :param channels: channels c of the input.
    """

    def __init__(
        self,
        channels: int,
        *,
        embedding: int | Literal["half"] | None = None,
        similarity_scale: Literal["sqrt", "none"] = "sqrt",
        position_branch: bool = True,
        channel_branch: bool = True,
        shared_value: bool = True,
        temporal_kernel: Literal[1, 3] = 3,
        temporal_embedding: Literal["split", "tied"] = "split",
        temporal_scope: Literal["frame", "position"] = "frame",
        output: Literal["residual", "plain"] = "residual",
        identity_start: bool = False,
        start: float | None = None,
        pool_keys: bool = False,
    ) -> None:
        super().__init__()
        self.channels = channels
        for name, value, allowed in [
            ("similarity_scale", similarity_scale, ("sqrt", "none")),
            ("temporal_kernel", temporal_kernel, (1, 3)),
            ("temporal_embedding", temporal_embedding, ("split", "tied")),
            ("temporal_scope", temporal_scope, ("frame", "position")),
            ("output", output, ("residual", "plain")),
        ]:
            if value not in allowed:
                raise UsageError(f"ssa: {name} is {value!r}; it must be {' or '.join(map(repr, allowed))}")
        e = embedding_width(embedding, channels, "ssa")
        if output == "plain" and start is not None:
            raise UsageError(
                f"ssa: start is {start!r}, of the last BatchNorm, which output 'plain' has not; leave it out"
            )
        if output == "plain" and e != channels:
            raise UsageError(f"ssa: output 'plain' needs embedding = channels; got {e} and {channels}")

        self.embedding = e
        self.similarity_scale = similarity_scale
        self.position_branch = position_branch
        self.channel_branch = channel_branch
        self.temporal_scope = temporal_scope
        self.pool_keys = pool_keys

        # A 1x1 convolution is a Linear over the last axis of (b, t, p, c), where channels-last memory makes it free.
        self.g = nn.Linear(channels, e)
        if position_branch or channel_branch:
            self.theta = nn.Linear(channels, e)
            self.phi = nn.Linear(channels, e)
        self.temporal = TemporalConvolution(
            e, e, kernel=temporal_kernel, parts=2 if temporal_embedding == "split" else 1
        )
        self.g_temporal = None if shared_value else nn.Linear(e, e)
        if output == "residual":
            self.out: nn.Linear | None = nn.Linear(e, channels, bias=False)
            self.norm = nn.BatchNorm2d(channels)
            nn.init.constant_(self.norm.weight, start_weight(start, identity_start, "ssa"))
        else:
            self.out = None

    def forward(self, x: Tensor) -> Tensor:
        """Map features (b, t, c, h, w) to the same shape; any b, t, h, w of at least 1."""
        if x.dim() != 5 or x.shape[2] != self.channels:
            raise not_features(x, self.channels, "ssa")
        b, t, _, h, w = x.shape
        # Channels last from here on: copied once, unless the input lies so already, and every reshape is then free.
        x_btpc = x.permute(0, 1, 3, 4, 2).flatten(2, 3).contiguous()
        g_btpe = self.g(x_btpc)
        a_btpe = self._attend_within_frames(x_btpc, g_btpe, h, w)
        value_btpe = g_btpe if self.g_temporal is None else self.g_temporal(a_btpe)
        y_btpe = self._attend_over_frames(a_btpe, value_btpe)
        if self.out is None:
            return y_btpe.unflatten(2, (h, w)).permute(0, 1, 4, 2, 3)
        # Each position an image of one pixel: BatchNorm's backward is slow where a gradient lies channels first.
        z_btpc = self.norm(self.out(y_btpe).view(b * t * h * w, -1, 1, 1)).view_as(x_btpc)
        return x + z_btpc.unflatten(2, (h, w)).permute(0, 1, 4, 2, 3)

    def _attend_within_frames(self, x_btpc: Tensor, g_btpe: Tensor, h: int, w: int) -> Tensor:
        """Equations 4 to 6: (b, t, p, c) and the value (b, t, p, e) to the spatial attention maps A (b, t, p, e)."""
        if not (self.position_branch or self.channel_branch):
            return g_btpe
        theta = self.theta(x_btpc).flatten(0, 1)  # (bt, p, e), as are phi and g
        phi = self.phi(x_btpc).flatten(0, 1)
        g = g_btpe.flatten(0, 1)
        a = None
        if self.position_branch:
            keys, values = (pool_2x2(phi, h, w), pool_2x2(g, h, w)) if self.pool_keys else (phi, g)
            # One head, spelled out as an axis: without it the CPU's memory-efficient kernel is not taken.
            a = F.scaled_dot_product_attention(
                theta.unsqueeze(1), keys.unsqueeze(1), values.unsqueeze(1), scale=self._scale(self.embedding)
            ).squeeze(1)
        if self.channel_branch:
            affinity_ee = _affinity(theta.transpose(1, 2), phi, self._scale(h * w))
            # The sum of equation 6 inside the product, without a pass of its own.
            a = g @ affinity_ee.mT if a is None else torch.baddbmm(a, g, affinity_ee.mT)
        assert a is not None
        return a.unflatten(0, g_btpe.shape[:2])

    def _attend_over_frames(self, a_btpe: Tensor, value_btpe: Tensor) -> Tensor:
        """Equations 7 and 8 up to M_T g_T: spatial attention maps and values (b, t, p, e) to (b, t, p, e)."""
        embedded = self.temporal(a_btpe)
        theta, phi = embedded[0], embedded[-1]  # one and the same where they are tied
        if self.temporal_scope == "position":
            theta, phi, value = (z.transpose(1, 2) for z in (theta, phi, value_btpe))  # (b, p, t, e)
            scale = self._scale(self.embedding)
            return F.scaled_dot_product_attention(theta, phi, value, scale=scale).transpose(1, 2)
        p, e = a_btpe.shape[2:]
        affinity_btt = _affinity(theta.flatten(2), phi.flatten(2).transpose(1, 2), self._scale(p * e))
        return (affinity_btt @ value_btpe.flatten(2)).view_as(value_btpe)

    def _scale(self, length: int) -> float:
        """What a similarity that sums over an axis of this length is multiplied by."""
        if self.similarity_scale == "none":
            return 1.0
        # Of a size that is left open while the block is exported, math.sqrt would take the present value for good.
        return 1 / (math.sqrt(length) if isinstance(length, int) else torch.sym_float(length) ** 0.5)


class TemporalConvolution(nn.Conv2d):
    """A k x 1 x 1 convolution over (t, h, w), of odd k, as one of k x 1 over (t, p); beyond the ends it sees zeros.

    Weights, names and start are those of ``nn.Conv2d(c, parts * e, (k, 1))``. What is made for several uses comes in
    parts of e channels, each contiguous, as its reader needs it: out of one result each would be copied.

    On the CPU, in single and double precision, the gradients are products of matrices with frames shifted in time: a
    quarter of the time of the library's backward for kernels of this form (with the block in
    benchmarks/speed/block.py). Forward and elsewhere the library's own are taken.

    :param in_channels: channels c of the input.
    :param out_channels: channels e of each part.
    :param kernel: frames k that an output sees.
    """

    def __init__(self, in_channels: int, out_channels: int, *, kernel: int, parts: int = 1) -> None:
        super().__init__(in_channels, parts * out_channels, (kernel, 1), padding=(kernel // 2, 0))
        self.parts = parts

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:  # type: ignore[override]
        """Map (b, t, p, c) to ``parts`` times (b, t, p, e)."""
        assert self.bias is not None
        precise = x.dtype == self.weight.dtype and x.dtype in (torch.float32, torch.float64)
        if x.device.type != "cpu" or not precise or torch.is_autocast_enabled("cpu"):
            return _convolve(x, self.weight, self.bias, self.parts)
        if not torch.is_grad_enabled() or torch.compiler.is_compiling():  # a compiler makes gradients of its own
            return _convolve(x, self.weight, self.bias, self.parts)
        return cast(tuple[Tensor, ...], _OverTime.apply(x, self.weight, self.bias, self.parts))


def _convolve(x: Tensor, weight: Tensor, bias: Tensor, parts: int) -> tuple[Tensor, ...]:
    x_bctp = x.permute(0, 3, 1, 2)  # in channels-last memory, so that nothing is copied
    padding = (weight.shape[2] // 2, 0)
    pairs = zip(weight.chunk(parts), bias.chunk(parts), strict=True)
    return tuple(torch.conv2d(x_bctp, w, b, padding=padding).permute(0, 2, 3, 1) for w, b in pairs)


class _OverTime(torch.autograd.Function):
    """The convolution, with gradients made of products. Tap j of k looks s = j - k // 2 frames on::

    y[t] = bias + sum_j W_j x[t + s]        dx[t + s] += W_j^T dy[t]        dW_j = sum_t dy[t] x[t + s]^T
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor, parts: int) -> tuple[Tensor, ...]:
        return _convolve(x, weight, bias, parts)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor, int], output: tuple[Tensor, ...]) -> None:
        ctx.save_for_backward(*inputs[:2])

    @staticmethod
    def backward(ctx: Any, *dy: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        x, weight = ctx.saved_tensors
        wants_x, wants_weight, wants_bias, _ = ctx.needs_input_grad
        b, t, p, _ = x.shape
        x_bnc, *dy_bne = (z.flatten(1, 2).contiguous() for z in (x, *dy))  # n = t p
        middle = weight.shape[2] // 2
        dx_bnc, d_weights, d_biases = None, [], []
        for dy_bno, part in zip(dy_bne, weight.chunk(len(dy)), strict=True):
            taps_koc = part.squeeze(3).permute(2, 0, 1).contiguous()
            if wants_x:
                by_middle = dy_bno @ taps_koc[middle]
                dx_bnc = by_middle if dx_bnc is None else dx_bnc.add_(by_middle)
            d_taps = []
            for j, tap_oc in enumerate(taps_koc):
                s = j - middle
                if abs(s) >= t:  # it sees none of these frames
                    d_taps.append(torch.zeros_like(tap_oc))
                    continue
                seen = slice(max(s, 0) * p, (t + min(s, 0)) * p)
                by = slice(max(-s, 0) * p, (t - max(s, 0)) * p)
                if dx_bnc is not None and s != 0:
                    dx_bnc[:, seen].baddbmm_(dy_bno[:, by], tap_oc.expand(b, -1, -1))
                if wants_weight:
                    d_taps.append((dy_bno[:, by].mT @ x_bnc[:, seen]).sum(0))
            if wants_weight:
                d_weights.append(torch.stack(d_taps, dim=2).unsqueeze(3))
            if wants_bias:
                d_biases.append(dy_bno.sum((0, 1)))
        return (
            None if dx_bnc is None else dx_bnc.view_as(x),
            torch.cat(d_weights) if wants_weight else None,
            torch.cat(d_biases) if wants_bias else None,
            None,
        )


def pool_2x2(z: Tensor, h: int, w: int) -> Tensor:
    """2x2 max-pooling of (n, p, e) over its positions; a last odd row or column is a window of its own."""
    pooled = F.max_pool2d(z.unflatten(1, (h, w)).permute(0, 3, 1, 2), 2, ceil_mode=True)
    return pooled.flatten(2).transpose(1, 2).contiguous()


def _affinity(a: Tensor, b: Tensor, scale: float) -> Tensor:
    """softmax_rows(scale * a b) for a (n, i, k) and b (n, k, j), in the precision of a.

    Half precision overflows at 65,504, and k is p (3,000) or p e (200,000): there the product is taken in float32.
    """
    if a.dtype not in (torch.float16, torch.bfloat16):
        return (a @ b * scale).softmax(dim=-1)
    with torch.autocast(a.device.type, enabled=False):
        return (a.float() @ b.float() * scale).softmax(dim=-1).to(a.dtype)
