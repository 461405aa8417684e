"""ResNet (He et al., CVPR 2016) over the frames of a video, with named slots for layers that look across them.

Module names are torchvision's, so an ImageNet state dict loads unchanged. A slot is an empty ``nn.Identity`` and adds
no key until a layer is put there.
"""

from collections.abc import Sequence
from typing import ClassVar, Literal

from torch import Tensor, nn

from ssan.errors import UsageError

Stride = Literal["conv2", "conv1"]


def conv3x3(num_in: int, num_out: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(num_in, num_out, 3, stride, padding=1, bias=False)


def conv1x1(num_in: int, num_out: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(num_in, num_out, 1, stride, bias=False)


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 convolutions and a shortcut; features (b, t, c, h, w) in and out.

    ::

        x -+- before_conv1 - conv1 - after_conv1 - conv2 - after_conv2 - conv3 -(+)- relu - after_block ->
           +------------------------------ shortcut ------------------------------+

    ``after_conv1`` and ``after_conv2`` come after BatchNorm and ReLU. ``slot_channels`` says how many channels pass
    through each slot. With ``stride_in="conv2"`` (torchvision's networks) a block that halves the resolution does so in
    its 3x3 convolution and ``after_conv1`` still sees the larger map; ``"conv1"`` is the original ResNet.
    """

    expansion: ClassVar[int] = 4
    before_conv1: nn.Module
    after_conv1: nn.Module
    after_conv2: nn.Module
    after_block: nn.Module

    def __init__(
        self, num_in: int, width: int, stride: int = 1, shortcut: nn.Module | None = None, stride_in: Stride = "conv2"
    ) -> None:
        super().__init__()
        num_out = width * self.expansion
        self.conv1 = conv1x1(num_in, width, stride if stride_in == "conv1" else 1)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = conv3x3(width, width, stride if stride_in == "conv2" else 1)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = conv1x1(width, num_out)
        self.bn3 = nn.BatchNorm2d(num_out)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = shortcut
        self.slot_channels = {
            "before_conv1": num_in, "after_conv1": width, "after_conv2": width, "after_block": num_out,
        }  # fmt: skip
        for slot in self.slot_channels:
            self.add_module(slot, nn.Identity())

    def forward(self, x: Tensor) -> Tensor:
        t = x.shape[1]  # frames fold into the batch for each convolution and unfold for each slot; both are views
        y = self.before_conv1(x).flatten(0, 1)
        y = self.relu(self.bn1(self.conv1(y)))
        y = self.after_conv1(y.unflatten(0, (-1, t))).flatten(0, 1)
        y = self.relu(self.bn2(self.conv2(y)))
        y = self.after_conv2(y.unflatten(0, (-1, t))).flatten(0, 1)
        y = self.bn3(self.conv3(y))
        x = x.flatten(0, 1)
        y = self.relu(y + (x if self.downsample is None else self.downsample(x)))
        return self.after_block(y.unflatten(0, (-1, t)))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut, as in ResNet-18 and 34; features (b, t, c, h, w) in and out.

    It has no 1x1 convolution. Unsaid by the paper, our choice: SSA goes to ``after_conv1`` all the same, after the
    first convolution with its BatchNorm and ReLU (pinned in tests/models/test_networks.py).
    """

    expansion: ClassVar[int] = 1
    before_conv1: nn.Module
    after_conv1: nn.Module
    after_block: nn.Module

    def __init__(
        self, num_in: int, width: int, stride: int = 1, shortcut: nn.Module | None = None, stride_in: Stride = "conv2"
    ) -> None:
        super().__init__()
        # Its first convolution is the 3x3 that strides: there is nothing for stride_in to choose.
        self.conv1 = conv3x3(num_in, width, stride)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = conv3x3(width, width)
        self.bn2 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = shortcut
        self.slot_channels = {"before_conv1": num_in, "after_conv1": width, "after_block": width}
        for slot in self.slot_channels:
            self.add_module(slot, nn.Identity())

    def forward(self, x: Tensor) -> Tensor:
        t = x.shape[1]
        y = self.before_conv1(x).flatten(0, 1)
        y = self.relu(self.bn1(self.conv1(y)))
        y = self.after_conv1(y.unflatten(0, (-1, t))).flatten(0, 1)
        y = self.bn2(self.conv2(y))
        x = x.flatten(0, 1)
        y = self.relu(y + (x if self.downsample is None else self.downsample(x)))
        return self.after_block(y.unflatten(0, (-1, t)))


class ResNet(nn.Module):
    """Frames (b, t, 3, h, w) to pooled features (b, t, num_features), each frame by itself while the slots are empty.

    :param block: ``Bottleneck`` or ``BasicBlock``.
    :param num_blocks: blocks of each stage, ``res2`` first (torchvision's ``layer1``).
    :param width: channels of the first stage; doubled by every further one.
    :param stride_in: see ``Bottleneck``.
    """

    def __init__(
        self,
        block: type[Bottleneck] | type[BasicBlock],
        num_blocks: Sequence[int],
        *,
        width: int = 64,
        stride_in: Stride = "conv2",
    ) -> None:
        super().__init__()
        if stride_in not in ("conv1", "conv2"):
            raise UsageError(f"resnet: stride_in is {stride_in!r}; it must be 'conv1' or 'conv2'")
        self.conv1 = nn.Conv2d(3, width, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.stages: dict[str, list[Bottleneck | BasicBlock]] = {}
        num_in = width
        for number, depth in enumerate(num_blocks):
            stage_width, blocks = width * 2**number, []
            for index in range(depth):
                stride = 2 if number > 0 and index == 0 else 1
                num_out = stage_width * block.expansion
                shortcut = None
                if stride != 1 or num_in != num_out:
                    shortcut = nn.Sequential(conv1x1(num_in, num_out, stride), nn.BatchNorm2d(num_out))
                blocks.append(block(num_in, stage_width, stride, shortcut, stride_in))
                num_in = num_out
            self.add_module(f"layer{number + 1}", nn.Sequential(*blocks))
            self.stages[f"res{number + 2}"] = blocks
        self.num_features = num_in
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def feature_map(self, x: Tensor) -> Tensor:
        """Frames (b, t, 3, h, w) to the last stage's features (b, t, c, h', w')."""
        t = x.shape[1]
        x = self.maxpool(self.relu(self.bn1(self.conv1(x.flatten(0, 1)))))
        x = x.unflatten(0, (-1, t))
        for number in range(len(self.stages)):
            x = self.get_submodule(f"layer{number + 1}")(x)
        return x

    def forward(self, x: Tensor) -> Tensor:
        return self.feature_map(x).mean(dim=(-2, -1))
