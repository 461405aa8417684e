"""A convolution over time: its outputs in parts, and on the CPU gradients that are a few matrix products."""

from typing import Any, cast

import torch
from torch import Tensor, nn


class TemporalConvolution(nn.Conv2d):
    """A k x 1 x 1 convolution over (t, h, w), of odd k, as one of k x 1 over (t, p); beyond the ends it sees zeros.

    Weights, names and start are those of ``nn.Conv2d(c, parts * e, (k, 1))``. What is made for several uses comes in
    parts of e channels, each contiguous, as its reader needs it: out of one result each would be copied.

    On the CPU, in single and double precision, the gradients are products of matrices with frames shifted in time: a
    quarter of the time of the library's backward for kernels of this form (with the block in benchmarks/block.py).
    Forward and elsewhere the library's own are taken.

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
