"""The temporal shift of TSM (Lin, Gan, Han, ICCV 2019, section 3)."""

from typing import Any, Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssan.errors import UsageError
from ssan.layers.shape import not_features

Moves = tuple[tuple[int, int, int], ...]


class TemporalShift(nn.Module):
    """Move a part of the channels one frame back in time and another part one frame on; the rest stays.

    ::

        direction="both"
        channels   [0, c/8)         frame i shows what frame i+1 held     (the last frame: zeros)
                   [c/8, 2c/8)      frame i shows what frame i-1 held     (the first frame: zeros)
                   [2c/8, c)        unchanged

        direction="past"
        channels   [0, c/8)         frame i shows what frame i-1 held     (the first frame: zeros)
                   [c/8, c)         unchanged

    Source: TSM, section 4.1 and figure 1b; ``past`` is its online form, figure 1c and section 4.2, which looks at no
    frame that is still to come, so that a video can be fed as it is filmed (``ssan.models.stream``). It has no weights
    and costs no multiplication. TSM puts it at the start of the residual branch ("residual shift", section 3.3), which
    here is the slot ``before_conv1``.

    :param channels: channels c of the input.
    :param divisor: 8 moves an eighth of the channels each way; must lie in [2, channels].
    :param direction: ``both``, or ``past`` for a shift from earlier frames alone.
    """

    def __init__(self, channels: int, *, divisor: int = 8, direction: Literal["both", "past"] = "both") -> None:
        super().__init__()
        self.channels = channels
        if type(divisor) is not int or not 2 <= divisor <= channels:
            raise UsageError(
                f"temporal_shift: divisor is {divisor!r}; it must lie between 2 and the {channels} channels"
            )
        if direction not in ("both", "past"):
            raise UsageError(f"temporal_shift: direction is {direction!r}; it must be 'both' or 'past'")
        self.num_shifted = channels // divisor
        self.divisor = divisor
        self.direction = direction

    def forward(self, x: Tensor, before: Tensor | None = None) -> Tensor:
        """Shift (b, t, c, h, w) along t; the result has the same shape and needs no copy by the caller.

        :param before: what ``carried`` took from the frames before these, instead of zeros; for ``past`` alone.
        """
        if x.dim() != 5 or x.shape[2] != self.channels:
            raise not_features(x, self.channels, "temporal_shift")
        if before is not None and self.direction != "past":
            raise ValueError("a shift in both directions needs the frames to come; only direction='past' goes on")
        n = self.num_shifted
        moves = ((0, n, 1),) if self.direction == "past" else ((0, n, -1), (n, 2 * n, 1))
        # Frames "all but one", written in place, are taken for several by an export, which then refuses short clips.
        shifted = _padded(x, moves) if _exporting() else cast(Tensor, _Moved.apply(x, moves))
        if before is not None:
            shifted[:, :1, :n] = before
        return shifted

    def carried(self, x: Tensor) -> Tensor:
        """What a frame that follows ``x`` (b, t, c, h, w) will show of it: its last frame's moved channels, copied."""
        return x[:, -1:, : self.num_shifted].clone()

    def extra_repr(self) -> str:
        return f"divisor={self.divisor}, direction={self.direction!r}"


# Of torch 2.7; before it, what is exported is compiled.
_exporting = getattr(torch.compiler, "is_exporting", torch.compiler.is_compiling)


def _padded(x: Tensor, moves: Moves) -> Tensor:
    """``_Moved`` for any number of frames, a size that is left open: pieces of the clip between two frames of zeros."""
    framed = F.pad(x, (0, 0, 0, 0, 0, 0, 1, 1))
    parts = [framed[:, (slice(None, -2) if step > 0 else slice(2, None)), first:end] for first, end, step in moves]
    return torch.cat([*parts, x[:, :, moves[-1][1] :]], dim=2)


class _Moved(torch.autograd.Function):
    """Ranges of channels (first, last + 1) moved by one frame, on (1) or back (-1), in one pass over memory.

    Written with ``torch.cat`` the result loses channels-last memory, which the convolutions behind it then restore, and
    the gradient is put together from zeros, slice by slice: eight times the work. The transpose of a move is the move
    in the other direction.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, moves: Moves) -> Tensor:
        moved = torch.empty_like(x)
        for first, end, step in moves:
            if step > 0:
                moved[:, 1:, first:end] = x[:, :-1, first:end]
                moved[:, :1, first:end] = 0
            else:
                moved[:, :-1, first:end] = x[:, 1:, first:end]
                moved[:, -1:, first:end] = 0
        rest = moves[-1][1]
        moved[:, :, rest:] = x[:, :, rest:]
        return moved

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Moves], output: Tensor) -> None:
        ctx.moves = inputs[1]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        back = tuple((first, end, -step) for first, end, step in ctx.moves)
        return cast(Tensor, _Moved.apply(gradient, back)), None
