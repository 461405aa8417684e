"""I3D (Carreira and Zisserman, CVPR 2017): Inception-v1, its filters inflated into time, as its authors released it.

A clip of 64 frames of 224 px on its way (table of figure 3 there; T frames, then the side, then channels)::

    conv 7x7x7 / 2            32  112    64
    max 1x3x3 / (1,2,2)       32   56    64
    conv 1x1x1, conv 3x3x3    32   56   192
    max 1x3x3 / (1,2,2)       32   28   192
    mixed 3b, 3c              32   28   480
    max 3x3x3 / 2             16   14   480
    mixed 4b to 4f            16   14   832
    max 2x2x2 / 2              8    7   832
    mixed 5b, 5c               8    7  1024
    average 2x7x7 / 1          7    1  1024

What TensorFlow does without saying so is part of the network: its "SAME" padding depends on the size of what is padded,
and where the padding is odd there is one more behind than before; its BatchNorm, from the library Sonnet, has no scale
and an epsilon of 1e-3. Both 3x3x3 convolutions of a mixed module have that size, although Inception-v1 has a 5x5 there.
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Triple = tuple[int, int, int]
"""Of time, height and width."""
Padding = Callable[[int, int, int], tuple[int, int]]
"""The padding of one axis, before and behind, of its size, the kernel and the stride."""

# Channels of a mixed module: 1x1x1; 1x1x1 before a 3x3x3 and that; the same once more; 1x1x1 behind the pooling.
MIXED: dict[str, tuple[int, int, int, int, int, int]] = {
    "3b": (64, 96, 128, 16, 32, 32),
    "3c": (128, 128, 192, 32, 96, 64),
    "4b": (192, 96, 208, 16, 48, 64),
    "4c": (160, 112, 224, 24, 64, 64),
    "4d": (128, 128, 256, 24, 64, 64),
    "4e": (112, 144, 288, 32, 64, 64),
    "4f": (256, 160, 320, 32, 128, 128),
    "5b": (256, 160, 320, 32, 128, 128),
    "5c": (384, 192, 384, 48, 128, 128),
}


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """TensorFlow's "SAME" padding of one axis, before and behind, with which it gives ceil(size / stride) values."""
    total = max(kernel - (size % stride or stride), 0)
    return total // 2, total - total // 2


def scaled(channels: int, width: float) -> int:
    """A share of so many channels, one at least."""
    return max(1, round(channels * width))


class UnscaledBatchNorm(nn.BatchNorm3d):
    """BatchNorm whose scale is one: it is kept as a constant, by its usual name, and never trained.

    So files of ports that have a scale fill a tensor each, also where somebody has trained theirs since.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=1e-3, momentum=0.001)
        del self.weight
        self.register_buffer("weight", torch.ones(channels))


class Unit(nn.Module):
    """A convolution with TensorFlow's padding, BatchNorm and ReLU; (b, c, t, h, w) in and out.

    :param kernel, stride: alike on all three axes, or of each.
    :param padding: another rule than TensorFlow's.
    :param norm: makes the BatchNorm of so many channels.
    """

    def __init__(
        self,
        num_in: int,
        num_out: int,
        kernel: int | Triple,
        stride: int | Triple = 1,
        *,
        padding: Padding = same_padding,
        norm: Callable[[int], nn.Module] = UnscaledBatchNorm,
    ) -> None:
        super().__init__()
        self.padding = padding
        self.conv = nn.Conv3d(num_in, num_out, kernel, stride, bias=False)
        self.norm = norm(num_out)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.norm(self._convolved(x)), inplace=True)

    def _convolved(self, x: Tensor) -> Tensor:
        kernel, stride = self.conv.kernel_size, self.conv.stride
        if kernel == (1, 1, 1):
            return self.conv(x)
        pads = [self.padding(*axis) for axis in zip(x.shape[2:], kernel, stride, strict=True)]
        before: Triple = (pads[0][0], pads[1][0], pads[2][0])
        more = [behind - first for first, behind in pads]
        if any(more):  # where there is one more behind, only that one is a copy of what is padded
            x = F.pad(x, [0, more[2], 0, more[1], 0, more[0]])
        return F.conv3d(x, self.conv.weight, None, stride, before)


MakeUnit = Callable[[int, int, int], nn.Module]
"""Of the channels in and out, and the kernel."""


def max_pool(x: Tensor, kernel: Triple, stride: Triple, padding: Padding = same_padding) -> Tensor:
    """The largest of each window of (b, c, t, h, w), with TensorFlow's padding, of values that are not negative.

    A zero behind the last value changes nothing then, and a window may as well be cut off there. Frames are pooled by
    themselves, and then over time: the largest of the largest is the same, and torch's pooling of pictures many times
    as fast as that of volumes.

    :param padding: another rule than TensorFlow's.
    """
    pads = [padding(*axis) for axis in zip(x.shape[2:], kernel, stride, strict=True)]
    num = [
        (size + sum(pad) - k) // step + 1 for size, pad, k, step in zip(x.shape[2:], pads, kernel, stride, strict=True)
    ]
    beyond = [size + 2 * pad[0] - k for size, pad, k in zip(x.shape[2:], pads, kernel, strict=True)]
    cut_off = any(beyond[axis] // stride[axis] + 1 < num[axis] for axis in (1, 2))
    if any(-(-beyond[axis] // stride[axis]) + 1 < num[axis] for axis in (1, 2)):  # a window that is padding but for one
        x = F.pad(x, [0, max(pads[2][1] - pads[2][0], 0), 0, max(pads[1][1] - pads[1][0], 0)])
        cut_off = False
    frames = x.transpose(1, 2)
    before = [pad[0] for pad in pads[1:]]
    pooled = F.max_pool2d(frames.flatten(0, 1), kernel[1:], stride[1:], before, ceil_mode=cut_off)
    pooled = pooled[..., : num[1], : num[2]].unflatten(0, frames.shape[:2])
    if kernel[0] == 1:
        return pooled.transpose(1, 2)
    pooled = F.pad(pooled, [0] * 6 + list(pads[0]))
    step = stride[0]
    last = (num[0] - 1) * step
    largest = pooled[:, : last + 1 : step]
    for i in range(1, kernel[0]):
        largest = torch.maximum(largest, pooled[:, i : i + last + 1 : step])
    return largest.transpose(1, 2)


class Mixed(nn.Module):
    """An Inception module: four branches side by side; (b, c, t, h, w) in and out.

    :param unit: makes what convolves, of the channels in and out and the kernel, 1 or 3.
    :param last: makes the last of each branch, where it differs.
    """

    def __init__(
        self, num_in: int, channels: Sequence[int], unit: MakeUnit = Unit, last: MakeUnit | None = None
    ) -> None:
        super().__init__()
        last = last or unit
        alone, before_3, after_3, before_5, after_5, pooled = channels
        self.branch_0 = last(num_in, alone, 1)
        self.branch_1 = nn.Sequential(unit(num_in, before_3, 1), last(before_3, after_3, 3))
        self.branch_2 = nn.Sequential(unit(num_in, before_5, 1), last(before_5, after_5, 3))
        self.branch_3 = last(num_in, pooled, 1)
        self.num_out = alone + after_3 + after_5 + pooled

    def forward(self, x: Tensor) -> Tensor:
        pooled = max_pool(x, (3, 3, 3), (1, 1, 1))
        return torch.cat([self.branch_0(x), self.branch_1(x), self.branch_2(x), self.branch_3(pooled)], dim=1)


class InflatedInception(nn.Module):
    """What I3D and the networks after it have in common: a stem, the mixed modules, and where is pooled between them.

    A picture larger than 224 px gives several windows of the average pooling, whose mean is taken: as the classifier is
    linear, its scores are then averaged over positions, as the released networks' are.

    :param stem: clips (b, 3, t, h, w) to (b, c, t / 2, h / 2, w / 2).
    :param unit, last: as of ``Mixed``; ``last`` is also the one before the first mixed module.
    :param width: share of the channels of every layer, for a small network.
    """

    padding: Padding = staticmethod(same_padding)

    def __init__(self, stem: nn.Module, width: float, unit: MakeUnit = Unit, last: MakeUnit | None = None) -> None:
        super().__init__()
        first, num_in = scaled(64, width), scaled(192, width)
        self.conv_1a = stem
        self.conv_2b = unit(first, first, 1)
        self.conv_2c = (last or unit)(first, num_in, 3)
        self.stages: dict[str, list[nn.Module]] = {"res2": [self.conv_2b, self.conv_2c]}
        for name, channels in MIXED.items():
            block = Mixed(num_in, [scaled(num, width) for num in channels], unit, last)
            self.add_module(f"mixed_{name}", block)
            self.stages.setdefault(f"res{name[0]}", []).append(block)
            num_in = block.num_out
        self.num_features = num_in
        for module in self.modules():
            if isinstance(module, nn.Conv3d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out")

    def feature_map(self, clips: Tensor) -> Tensor:
        """Clips (b, t, 3, h, w) to the last module's features (b, 1024, t / 8, h / 32, w / 32).

        Each is rounded up, but for symmetric padding, whose 2x2x2 pooling leaves out a last odd one.
        """
        x = self.conv_1a(clips.transpose(1, 2))
        x = max_pool(x, (1, 3, 3), (1, 2, 2), self.padding)
        x = self.conv_2c(self.conv_2b(x))
        x = max_pool(x, (1, 3, 3), (1, 2, 2), self.padding)
        for name in MIXED:
            if name == "4b":
                x = max_pool(x, (3, 3, 3), (2, 2, 2), self.padding)
            elif name == "5b":
                x = max_pool(x, (2, 2, 2), (2, 2, 2), self.padding)
            x = self.get_submodule(f"mixed_{name}")(x)
        return x

    def forward(self, clips: Tensor) -> Tensor:
        x = self.feature_map(clips)
        t, h, w = x.shape[2:]
        x = F.avg_pool3d(x, (min(2, t), min(7, h), min(7, w)), stride=1)
        return x.mean(dim=(3, 4)).transpose(1, 2)


class InceptionI3D(InflatedInception):
    """Clips (b, t, 3, h, w), values in [-1, 1], to features (b, t', 1024): at 64 frames of 224 px t' is 7.

    Unsaid by the paper, our choice: where the pooling's window of 2 x 7 x 7 is larger than what there is (fewer than 9
    frames, or pictures below 193 px), it is as large as that. Pinned by
    ``test_a_small_clip_is_averaged_over_what_there_is``.

    :param width: share of the channels of every layer, for a small network.
    """

    input_mean = (0.5, 0.5, 0.5)
    input_std = (0.5, 0.5, 0.5)

    def __init__(self, *, width: float = 1.0) -> None:
        super().__init__(Unit(3, scaled(64, width), 7, stride=2), width)
