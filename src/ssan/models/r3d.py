"""3-D ResNets (Tran et al., CVPR 2018, table 1, "R3D"): every 3x3 convolution of a ResNet is 3x3x3.

A clip of 16 frames of 112 px on its way through ``r3d_r18`` (frames, then the side, then channels)::

    conv 3x7x7 / (1,2,2)      16   56    64
    res2                      16   56    64
    res3, / 2 in all axes      8   28   128
    res4, / 2                  4   14   256
    res5, / 2                  2    7   512
    mean over a frame          2         512

There is no pooling behind the stem, and a shortcut strides in time as its block does. So torchvision's code has it
(``models/video/resnet.py``, ``r3d_18``), whose weights fit. Bottlenecks are those of its own class of that name, which
has no released weights.

Modules have the names of a ResNet for pictures (``ssan.models.resnet``): ``--init`` with such a file inflates its
filters, every one of ResNet-18, 34 and 50.
"""

from collections.abc import Callable, Sequence
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from ssan.errors import UsageError


def conv3d(num_in: int, num_out: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Conv3d:
    """A convolution without bias that keeps the size but for its stride, which like its kernel is that of all axes."""
    return nn.Conv3d(num_in, num_out, kernel, stride, padding=kernel // 2, groups=groups, bias=False)


class BasicBlock3D(nn.Module):
    """Two 3x3x3 convolutions, of which the first strides, and a shortcut; (b, c, t, h, w) in and out."""

    expansion: ClassVar[int] = 1

    def __init__(self, num_in: int, width: int, stride: int = 1, shortcut: nn.Module | None = None) -> None:
        super().__init__()
        self.conv1 = conv3d(num_in, width, 3, stride)
        self.bn1 = nn.BatchNorm3d(width)
        self.conv2 = conv3d(width, width, 3)
        self.bn2 = nn.BatchNorm3d(width)
        self.downsample = shortcut

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y = self.bn2(self.conv2(y))
        return F.relu(y + (x if self.downsample is None else self.downsample(x)), inplace=True)


class Bottleneck3D(nn.Module):
    """1x1x1, 3x3x3, 1x1x1 convolutions, of which the second strides, and a shortcut; (b, c, t, h, w) in and out."""

    expansion: ClassVar[int] = 4

    def __init__(
        self, num_in: int, width: int, stride: int = 1, shortcut: nn.Module | None = None, *, groups: int = 1
    ) -> None:
        super().__init__()
        self.conv1 = conv3d(num_in, width, 1)
        self.bn1 = nn.BatchNorm3d(width)
        self.conv2 = conv3d(width, width, 3, stride, groups)
        self.bn2 = nn.BatchNorm3d(width)
        self.conv3 = conv3d(width, width * self.expansion, 1)
        self.bn3 = nn.BatchNorm3d(width * self.expansion)
        self.downsample = shortcut

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y = F.relu(self.bn2(self.conv2(y)), inplace=True)
        y = self.bn3(self.conv3(y))
        return F.relu(y + (x if self.downsample is None else self.downsample(x)), inplace=True)


def shortcut(num_in: int, num_out: int, stride: int) -> nn.Module | None:
    """The 1x1x1 convolution beside a block that changes what it adds to; None beside others."""
    if stride == 1 and num_in == num_out:
        return None
    return nn.Sequential(conv3d(num_in, num_out, 1, stride), nn.BatchNorm3d(num_out))


class StagedNetwork(nn.Module):
    """A stem of ``conv1`` and ``bn1``, and stages of residual blocks; all but the first stage begin with stride 2."""

    conv1: nn.Conv3d
    bn1: nn.BatchNorm3d

    def add_stages(
        self, num_in: int, num_blocks: Sequence[int], block_of: Callable[[int, int, int, int], tuple[nn.Module, int]]
    ) -> None:
        """Make the stages ``layer1`` and on, and draw the weights of all convolutions.

        :param num_in: channels behind the stem.
        :param block_of: of the channels before it, the stage, the place in it and the stride, a block and its channels.
        """
        self.stages: dict[str, list[nn.Module]] = {}
        for number, depth in enumerate(num_blocks):
            blocks: list[nn.Module] = []
            for index in range(depth):
                block, num_in = block_of(num_in, number, index, 2 if number > 0 and index == 0 else 1)
                blocks.append(block)
            self.add_module(f"layer{number + 1}", nn.Sequential(*blocks))
            self.stages[f"res{number + 2}"] = blocks
        self.num_features = num_in
        for module in self.modules():
            if isinstance(module, nn.Conv3d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def before_stage(self, number: int, x: Tensor) -> Tensor:
        """What is done to (b, c, t, h, w) before a stage, the first of which is 0."""
        return x

    def feature_map(self, clips: Tensor) -> Tensor:
        """Clips (b, t, 3, h, w) to the last stage's features (b, c, t', h', w')."""
        x = F.relu(self.bn1(self.conv1(clips.transpose(1, 2))), inplace=True)
        for number in range(len(self.stages)):
            x = self.get_submodule(f"layer{number + 1}")(self.before_stage(number, x))
        return x

    def forward(self, clips: Tensor) -> Tensor:
        return self.feature_map(clips).mean(dim=(3, 4)).transpose(1, 2)


class ResNet3D(StagedNetwork):
    """Clips (b, t, 3, h, w) to features (b, t', num_features), t' = t / 8 rounded up where there are four stages.

    Any t, h and w of at least 1. torchvision takes the mean over frames of the last map before its linear layer, ours
    the mean of its scores, which is the same.

    :param block: ``BasicBlock3D`` or ``Bottleneck3D``.
    :param num_blocks: blocks of each stage, ``res2`` first (torchvision's ``layer1``).
    :param width: channels of the first stage; doubled by every further one.
    :param time_stride: of the stem over frames; 1 in torchvision's networks, 2 in ARTNet's C3D-ResNet18 (Wang et al.,
        CVPR 2018, its authors' models/112_c3d_resnet_18_deploy.prototxt).
    :raises UsageError: a stride or a width below 1.
    """

    # torchvision's, of Kinetics.
    input_mean = (0.43216, 0.394666, 0.37645)
    input_std = (0.22803, 0.22145, 0.216989)

    def __init__(
        self,
        block: type[BasicBlock3D] | type[Bottleneck3D],
        num_blocks: Sequence[int],
        *,
        width: int = 64,
        time_stride: int = 1,
    ) -> None:
        super().__init__()
        if width < 1 or time_stride < 1:
            raise UsageError(f"r3d: width is {width} and time_stride {time_stride}; both must be 1 or more")
        self.conv1 = nn.Conv3d(3, width, (3, 7, 7), (time_stride, 2, 2), padding=(1, 3, 3), bias=False)
        self.bn1 = nn.BatchNorm3d(width)

        def block_of(num_in: int, number: int, index: int, stride: int) -> tuple[nn.Module, int]:
            num_out = width * 2**number * block.expansion
            return block(num_in, width * 2**number, stride, shortcut(num_in, num_out, stride)), num_out

        self.add_stages(width, num_blocks, block_of)
