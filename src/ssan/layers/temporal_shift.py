"""The temporal shift of TSM (Lin, Gan, Han, ICCV 2019, section 3)."""

import torch
from torch import Tensor, nn

from ssan.errors import UsageError


class TemporalShift(nn.Module):
    """Move a part of the channels one frame back in time and another part one frame on; the rest stays.

    ::

        channels   [0, c/8)         frame i shows what frame i+1 held     (the last frame: zeros)
                   [c/8, 2c/8)      frame i shows what frame i-1 held     (the first frame: zeros)
                   [2c/8, c)        unchanged

    Source: TSM, section 3.2 and figure 1b. It has no weights and costs no multiplication. TSM puts it at the start of
    the residual branch ("residual shift", section 4.1), which here is the slot ``before_conv1``.

    :param channels: channels c of the input.
    :param divisor: 8 moves an eighth of the channels each way; must lie in [2, channels].
    """

    def __init__(self, channels: int, *, divisor: int = 8) -> None:
        super().__init__()
        if not 2 <= divisor <= channels:
            raise UsageError(f"temporal_shift: divisor is {divisor}; it must lie between 2 and the {channels} channels")
        self.num_shifted = channels // divisor
        self.divisor = divisor

    def forward(self, x: Tensor) -> Tensor:
        """Shift (b, t, c, h, w) along t; the result has the same shape and needs no copy by the caller."""
        if x.dim() != 5:
            raise ValueError(f"temporal_shift takes (b, t, c, h, w); got {x.dim()} axes: {tuple(x.shape)}")
        n = self.num_shifted
        zeros = torch.zeros_like(x[:, :1, :n])
        from_next = torch.cat([x[:, 1:, :n], zeros], dim=1)
        from_previous = torch.cat([zeros, x[:, :-1, n : 2 * n]], dim=1)
        return torch.cat([from_next, from_previous, x[:, :, 2 * n :]], dim=2)

    def extra_repr(self) -> str:
        return f"divisor={self.divisor}"
