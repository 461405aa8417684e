"""BN-Inception (Ioffe and Szegedy, ICML 2015, figure 5), the network of TSN and TRN, over frames, and with slots.

A frame of 224 px on its way, as TSN's authors released it (side, then channels)::

    conv 7x7 / 2, max 3x3 / 2            56    64
    conv2: 1x1, 3x3, max 3x3 / 2         28   192
    3a, 3b                               28   320
    3c, which strides                    14   576
    4a to 4d                             14   608
    4e, which strides                     7  1056
    5a, 5b                                7  1024

Convolutions have biases, although a BatchNorm follows each. Max poolings that stride begin at the first pixel and are
cut off behind the last. The released network takes blue, green, red from 0 to 255; ours takes red, green, blue, as all
of ours do, and turns its first filters round.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Widths(NamedTuple):
    """Channels of an Inception module.

    :param alone: of the 1x1 convolution; 0 where there is none, in a module that strides.
    :param before_3, after_3: of the 1x1 before a 3x3, and of that.
    :param before_double, double: of the 1x1 before two 3x3, and of each of these.
    :param pooled: of the 1x1 behind the pooling; 0 where what was pooled is handed on as it is.
    """

    alone: int
    before_3: int
    after_3: int
    before_double: int
    double: int
    pooled: int


MODULES: dict[str, Widths] = {
    "3a": Widths(64, 64, 64, 64, 96, 32),
    "3b": Widths(64, 64, 96, 64, 96, 64),
    "3c": Widths(0, 128, 160, 64, 96, 0),
    "4a": Widths(224, 64, 96, 96, 128, 128),
    "4b": Widths(192, 96, 128, 96, 128, 128),
    "4c": Widths(160, 128, 160, 128, 160, 128),
    "4d": Widths(96, 128, 192, 160, 192, 128),
    "4e": Widths(0, 128, 192, 192, 256, 0),
    "5a": Widths(352, 192, 320, 160, 224, 128),
    "5b": Widths(352, 192, 320, 192, 224, 128),
}
POOLED_BY_MAX = ("3c", "4e", "5b")  # all others by the mean


class ReversedColours(nn.Conv2d):
    """A convolution of red, green, blue by filters for blue, green, red."""

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight.flip(1), self.bias, self.stride, self.padding)


def conv_bn_relu(num_in: int, num_out: int, kernel: int = 1, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(num_in, num_out, kernel, stride, kernel // 2), nn.BatchNorm2d(num_out), nn.ReLU(inplace=True)
    )


def max_pool(x: Tensor, *, beside_convolutions: bool = False) -> Tensor:
    """The largest of 3x3 pixels, from the first on by steps of 2; windows are cut off behind the last pixel.

    As released an odd side n gives (n - 1) / 2 values, whose windows lie inside: fewer than a convolution that strides
    beside it, with which the released network cannot be computed then. Unsaid by the paper, our choice: beside
    convolutions there is one more window, of the last pixels alone; so there is where the side is 1. Pinned by
    ``test_a_pooling_beside_convolutions_gives_as_many_values_as_they_do``.
    """
    room = [side % 2 if beside_convolutions else int(side == 1) for side in x.shape[-2:]]
    if any(room):
        x = F.pad(x, (0, room[1], 0, room[0]), value=-torch.inf)
    return F.max_pool2d(x, 3, 2, ceil_mode=True)


class SlottedBlock(nn.Module):
    """What computes frame by frame between two slots; (b, t, c, h, w) in and out.

    ::

        x - before_conv1 - all branches - after_block ->

    There is no shortcut, so what a shift at ``before_conv1`` moves is moved for all branches: TSM's "in-place" shift,
    as its code has it for this network.
    """

    before_conv1: nn.Module
    after_block: nn.Module

    def __init__(self, num_in: int, num_out: int) -> None:
        super().__init__()
        self.slot_channels = {"before_conv1": num_in, "after_block": num_out}
        for slot in self.slot_channels:
            self.add_module(slot, nn.Identity())

    def forward(self, x: Tensor) -> Tensor:
        t = x.shape[1]
        y = self.of_frames(self.before_conv1(x).flatten(0, 1))
        return self.after_block(y.unflatten(0, (-1, t)))

    def of_frames(self, x: Tensor) -> Tensor:
        """Frames (bt, c, h, w) to what the block makes of each."""
        raise NotImplementedError


class Second(SlottedBlock):
    """The second convolution with its 1x1 before it, and the pooling behind it."""

    def __init__(self, num_in: int, num_out: int) -> None:
        super().__init__(num_in, num_out)
        self.reduce = conv_bn_relu(num_in, num_in)
        self.conv = conv_bn_relu(num_in, num_out, 3)

    def of_frames(self, x: Tensor) -> Tensor:
        return max_pool(self.conv(self.reduce(x)))


class Inception(SlottedBlock):
    """An Inception module with batch normalisation: up to four branches side by side.

    A module that strides has no branch of a single 1x1, and hands on what it pooled; the other two branches stride in
    their last convolution.

    :param pooled_by_max: whether the pooling takes the largest of 3x3 pixels, and not their mean, in which pixels
        outside count as zeros.
    """

    def __init__(self, num_in: int, widths: Widths, *, pooled_by_max: bool) -> None:
        self.num_out = widths.alone + widths.after_3 + widths.double + (widths.pooled or num_in)
        super().__init__(num_in, self.num_out)
        self.stride = 1 if widths.pooled else 2
        self.pooled_by_max = pooled_by_max
        self.alone = conv_bn_relu(num_in, widths.alone) if widths.alone else None
        self.single = nn.Sequential(
            conv_bn_relu(num_in, widths.before_3),
            conv_bn_relu(widths.before_3, widths.after_3, 3, self.stride),
        )
        self.twofold = nn.Sequential(
            conv_bn_relu(num_in, widths.before_double),
            conv_bn_relu(widths.before_double, widths.double, 3),
            conv_bn_relu(widths.double, widths.double, 3, self.stride),
        )
        self.pooled = conv_bn_relu(num_in, widths.pooled) if widths.pooled else None

    def of_frames(self, x: Tensor) -> Tensor:
        branches = [] if self.alone is None else [self.alone(x)]
        branches += [self.single(x), self.twofold(x)]
        if self.stride == 2:
            pooled = max_pool(x, beside_convolutions=True)
        elif self.pooled_by_max:
            pooled = F.max_pool2d(x, 3, 1, padding=1)
        else:
            pooled = F.avg_pool2d(x, 3, 1, padding=1)
        return torch.cat([*branches, pooled if self.pooled is None else self.pooled(pooled)], dim=1)


class BNInception(nn.Module):
    """Frames (b, t, 3, h, w) to pooled features (b, t, 1024), each frame by itself while the slots are empty.

    Unsaid by the paper, our choice: BatchNorm's averages move by a tenth of each batch, torch's usual share. The ports
    of the released network say 0.9, Caffe's share of what stays, which in torch is the share of what is new. Pinned by
    ``test_batch_norms_averages_move_by_a_tenth``.
    """

    # Pixels less 128, 117 and 104 (of red, green, blue), and not divided.
    input_mean = (128 / 255, 117 / 255, 104 / 255)
    input_std = (1 / 255, 1 / 255, 1 / 255)

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Sequential(ReversedColours(3, 64, 7, 2, 3), nn.BatchNorm2d(64), nn.ReLU(inplace=True))
        self.conv2 = Second(64, 192)
        self.stages: dict[str, list[nn.Module]] = {"res2": [self.conv2]}
        num_in = 192
        for name, widths in MODULES.items():
            block = Inception(num_in, widths, pooled_by_max=name in POOLED_BY_MAX)
            self.add_module(f"inception_{name}", block)
            self.stages.setdefault(f"res{name[0]}", []).append(block)
            num_in = block.num_out
        self.num_features = num_in
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]

    def feature_map(self, x: Tensor) -> Tensor:
        """Frames (b, t, 3, h, w) to the last module's features (b, t, 1024, h / 32, w / 32), about."""
        t = x.shape[1]
        x = max_pool(self.conv1(x.flatten(0, 1))).unflatten(0, (-1, t))
        x = self.conv2(x)
        for name in MODULES:
            x = self.get_submodule(f"inception_{name}")(x)
        return x

    def forward(self, x: Tensor) -> Tensor:
        return self.feature_map(x).mean(dim=(-2, -1))
