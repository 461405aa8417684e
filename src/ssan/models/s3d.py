"""S3D and S3D-G (Xie et al., ECCV 2018): I3D whose 3x3x3 convolutions see space first and time after, and are gated.

A clip of 64 frames of 224 px goes the way of I3D (``ssan.models.i3d``), with the same channels; T frames,
then the side, then channels::

    stem / 2                            32  112    64
    max 1x3x3 / (1,2,2)                 32   56    64
    conv 1x1x1, conv 1x3x3, conv 3x1x1  32   56   192
    max 1x3x3 / (1,2,2)                 32   28   192
    mixed 3b, 3c                        32   28   480
    max 3x3x3 / 2                       16   14   480
    mixed 4b to 4f                      16   14   832
    max 2x2x2 / 2                        8    7   832
    mixed 5b, 5c                         8    7  1024
    average 2x7x7 / 1                    7    1  1024

S3D-G weighs each channel by what the whole clip shows, behind the convolutions before 3b and behind each branch of a
mixed module ("feature gating" there).

Three networks go by this name, whose stems differ, and with the stem all that no name of a tensor tells (``FORMS``):

- ``separable``: 1x7x7 and then 7x1x1, as torchvision and kylemin/S3D have it. Padding is symmetric, so that windows of
  pooling begin elsewhere than I3D's, and the 2x2x2 one leaves out a last odd frame, row or column.
- ``tensorflow``: 3x7x7 in one, as in slim's ``s3dg.py`` ("7 in the original", it says, 3 is better), with
  TensorFlow's padding, and BatchNorm without scales. A gate has no bias.
- ``space_to_depth``: pixels of 2x2x2 become 24 channels, and 2x4x4 is convolved: the video tower of MIL-NCE (Miech et
  al., CVPR 2020) as antoine77340/S3D_HowTo100M has it. Windows of pooling begin at the first value whatever the size,
  BatchNorm's epsilon is 1e-5, a gate has a bias, pixels are between 0 and 1, and the mean is that of everything.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

from ssan.errors import unknown
from ssan.models.i3d import InflatedInception, Padding, Unit, UnscaledBatchNorm, same_padding, scaled


def symmetric_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Half of the kernel on both sides, and none for one of 2, as torch's users have it.

    Unsaid by the paper, our choice: what is smaller than the kernel even so is filled up behind, so that a small clip
    leaves something. Pinned by ``test_padding_by_hand``.
    """
    around = (kernel - 1) // 2
    return around, max(around, kernel - size - around)


def padding_behind(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """As many windows as of TensorFlow's padding, that begin where those of a size divisible by the stride do."""
    before = max(kernel - stride, 0) // 2
    return before, max((-(-size // stride) - 1) * stride + kernel - size - before, 0)


@dataclass(frozen=True)
class Form:
    """What comes with a stem.

    :param norm: makes the BatchNorm of so many channels.
    :param gate_bias: whether a gate has a bias.
    :param mean, std: of pixels between 0 and 1, alike for the colours.
    :param windows: whether the average goes over windows of 2x7x7, and not over everything at once.
    """

    padding: Padding
    norm: Callable[[int], nn.Module]
    gate_bias: bool = False
    mean: float = 0.5
    std: float = 0.5
    windows: bool = True


FORMS: dict[str, Form] = {
    "separable": Form(symmetric_padding, partial(nn.BatchNorm3d, eps=1e-3, momentum=1e-3)),
    "tensorflow": Form(same_padding, UnscaledBatchNorm),
    "space_to_depth": Form(padding_behind, nn.BatchNorm3d, gate_bias=True, mean=0.0, std=1.0, windows=False),
}

# Pixels between 0 and 1 as torchvision normalises them for its networks of Kinetics: mean and deviation.
KINETICS = ((0.43216, 0.394666, 0.37645), (0.22803, 0.22145, 0.216989))


class SeparableConv(nn.Module):
    """A convolution over space, BatchNorm and ReLU, and the same over time; (b, c, t, h, w) in and out."""

    def __init__(self, num_in: int, num_out: int, kernel: int, stride: int, form: Form) -> None:
        super().__init__()
        make = partial(Unit, padding=form.padding, norm=form.norm)
        self.space = make(num_in, num_out, (1, kernel, kernel), (1, stride, stride))
        self.time = make(num_out, num_out, (kernel, 1, 1), (stride, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.time(self.space(x))


class FeatureGating(nn.Module):
    """A unit whose channels are weighed by what the whole clip shows; (b, c, t, h, w) in and out::

        y = sigmoid(W mean(x) + c) x

    with x what the unit gives, its mean that over time and space, and y channel by channel. Source: S3D's
    paper, and the codes named above, of which slim's has no c.
    """

    def __init__(self, unit: nn.Module, channels: int, bias: bool) -> None:
        super().__init__()
        self.unit = unit
        self.fc = nn.Linear(channels, channels, bias=bias)
        nn.init.normal_(self.fc.weight, std=0.01)  # as slim's, whose distribution is cut off at two deviations
        if bias:
            nn.init.zeros_(self.fc.bias)

    def forward(self, x: Tensor) -> Tensor:
        x = self.unit(x)
        return x * self.fc(x.mean(dim=(2, 3, 4))).sigmoid()[:, :, None, None, None]


class SpaceToDepth(Unit):
    """A unit on pixels of 2x2x2 as channels: (b, c, t, h, w) to (b, 8 c, t / 2, h / 2, w / 2), and the unit.

    Channels are in the order of t, h, w and c. Unsaid by the paper, our choice: odd sizes get zeros behind. Pinned by
    ``test_pixels_become_channels_in_the_order_of_time_height_width_and_colour``.
    """

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(self.as_channels(x))

    @staticmethod
    def as_channels(x: Tensor) -> Tensor:
        t, h, w = (size % 2 for size in x.shape[2:])
        if t or h or w:
            x = F.pad(x, [0, w, 0, h, 0, t])
        x = x.unflatten(4, (-1, 2)).unflatten(3, (-1, 2)).unflatten(2, (-1, 2))
        return x.permute(0, 3, 5, 7, 1, 2, 4, 6).flatten(1, 4)


class S3D(InflatedInception):
    """Clips (b, t, 3, h, w) to features (b, t', 1024): at 64 frames of 224 px t' is 7, or 8 with ``space_to_depth``.

    Values are in [-1, 1], but for ``space_to_depth`` and ``pixels``.

    Unsaid by the paper, our choice: a small clip as in I3D (``test_small_and_odd_clips_pass_through``).

    :param stem: a key of ``FORMS``.
    :param gating: whether features are gated, as in S3D-G.
    :param pixels: ``kinetics`` for pixels as torchvision normalises them, ``own`` as the stem's source does.
    :param width: share of the channels of every layer, for a small network.
    """

    def __init__(
        self, *, stem: str = "separable", gating: bool = False, pixels: str = "own", width: float = 1.0
    ) -> None:
        if stem not in FORMS:
            raise ValueError(unknown("stem", stem, FORMS))
        if pixels not in ("own", "kinetics"):
            raise ValueError(unknown("pixels", pixels, ("own", "kinetics")))
        form = FORMS[stem]
        make = partial(Unit, padding=form.padding, norm=form.norm)

        def unit(num_in: int, num_out: int, kernel: int) -> nn.Module:
            return make(num_in, num_out, 1) if kernel == 1 else SeparableConv(num_in, num_out, kernel, 1, form)

        def gated(num_in: int, num_out: int, kernel: int) -> nn.Module:
            return FeatureGating(unit(num_in, num_out, kernel), num_out, form.gate_bias)

        first = scaled(64, width)
        if stem == "separable":
            conv_1a: nn.Module = SeparableConv(3, first, 7, 2, form)
        elif stem == "tensorflow":
            conv_1a = make(3, first, (3, 7, 7), 2)
        else:
            conv_1a = SpaceToDepth(24, first, (2, 4, 4), padding=form.padding, norm=form.norm)
        super().__init__(conv_1a, width, unit, gated if gating else None)
        self.padding = form.padding
        self.windows = form.windows
        mean, std = KINETICS if pixels == "kinetics" else ((form.mean,) * 3, (form.std,) * 3)
        self.input_mean, self.input_std = mean, std

    def forward(self, clips: Tensor) -> Tensor:
        if self.windows:
            return super().forward(clips)
        return self.feature_map(clips).mean(dim=(3, 4)).transpose(1, 2)
