"""The temporal shift of TSM (Lin, Gan, Han, ICCV 2019, section 3)."""

from typing import Literal

import torch
from torch import Tensor, nn

from ssan.errors import UsageError


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

    Source: TSM, section 3.2 and figure 1b; ``past`` is its online form, figure 1c and section 4.2, which looks at no
    frame that is still to come, so that a video can be fed as it is filmed (``ssan.models.stream``). It has no weights
    and costs no multiplication. TSM puts it at the start of the residual branch ("residual shift", section 4.1), which
    here is the slot ``before_conv1``.

    :param channels: channels c of the input.
    :param divisor: 8 moves an eighth of the channels each way; must lie in [2, channels].
    :param direction: ``both``, or ``past`` for a shift from earlier frames alone.
    """

    def __init__(self, channels: int, *, divisor: int = 8, direction: Literal["both", "past"] = "both") -> None:
        super().__init__()
        if not 2 <= divisor <= channels:
            raise UsageError(f"temporal_shift: divisor is {divisor}; it must lie between 2 and the {channels} channels")
        if direction not in ("both", "past"):
            raise UsageError(f"temporal_shift: direction is {direction!r}; it must be 'both' or 'past'")
        self.num_shifted = channels // divisor
        self.divisor = divisor
        self.direction = direction

    def forward(self, x: Tensor, before: Tensor | None = None) -> Tensor:
        """Shift (b, t, c, h, w) along t; the result has the same shape and needs no copy by the caller.

        :param before: what ``carried`` took from the frames before these, in place of zeros; for ``past`` alone.
        """
        if x.dim() != 5:
            raise ValueError(f"temporal_shift takes (b, t, c, h, w); got {x.dim()} axes: {tuple(x.shape)}")
        n = self.num_shifted
        zeros = torch.zeros_like(x[:, :1, :n])
        if self.direction == "past":
            from_previous = torch.cat([zeros if before is None else before, x[:, :-1, :n]], dim=1)
            return torch.cat([from_previous, x[:, :, n:]], dim=2)
        if before is not None:
            raise ValueError("a shift in both directions needs the frames to come; only direction='past' goes on")
        from_next = torch.cat([x[:, 1:, :n], zeros], dim=1)
        from_previous = torch.cat([zeros, x[:, :-1, n : 2 * n]], dim=1)
        return torch.cat([from_next, from_previous, x[:, :, 2 * n :]], dim=2)

    def carried(self, x: Tensor) -> Tensor:
        """What a frame that follows ``x`` (b, t, c, h, w) will show of it: its last frame's moved channels, copied."""
        return x[:, -1:, : self.num_shifted].clone()

    def extra_repr(self) -> str:
        return f"divisor={self.divisor}, direction={self.direction!r}"
