"""EfficientNet-Lite0 over the frames of a video, with slots.

The network is EfficientNet-B0 (Tan and Le, ICML 2019, table 1) as its authors released it for small machines: without
squeeze and excitation, with ReLU6, and with stem and head of a fixed width.
"""

from torch import Tensor, nn
from torch.nn import functional as F

# Kernel, expansion, output channels, number of blocks, stride of the first; then the stage, by resolution.
LAYOUT = [
    (3, 1, 16, 1, 1, "res1"),
    (3, 6, 24, 2, 2, "res2"),
    (5, 6, 40, 2, 2, "res3"),
    (3, 6, 80, 3, 2, "res4"),
    (5, 6, 112, 3, 1, "res4"),
    (5, 6, 192, 4, 2, "res5"),
    (3, 6, 320, 1, 1, "res5"),
]
# Of the released network, in torch's terms: TensorFlow's momentum is 0.99.
EPS, MOMENTUM = 1e-3, 0.01


class SameConv2d(nn.Conv2d):
    """A convolution that pads as TensorFlow's "SAME" does: to ceil(n / stride) outputs, an odd pixel at the far end.

    With stride 2 a kernel of 3 over 8 pixels reads pixels 0-2, 2-4, 4-6 and 6-8, of which the last is padding; torch's
    own padding of 1 would begin at pixel -1.
    """

    def __init__(self, num_in: int, num_out: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        # With stride 1 an odd kernel is padded alike at both ends, which needs no copy.
        super().__init__(num_in, num_out, kernel, stride, kernel // 2 if stride == 1 else 0, groups=groups, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        if self.stride[0] > 1:
            (top, bottom), (left, right) = (self._room(length) for length in x.shape[-2:])
            x = F.pad(x, (left, right, top, bottom))
        return super().forward(x)

    def _room(self, length: int) -> tuple[int, int]:
        """Zeros before and behind an axis."""
        kernel, stride = self.kernel_size[0], self.stride[0]
        room = max(kernel - (length % stride or stride), 0)
        return room // 2, room - room // 2


def conv_bn(num_in: int, num_out: int, kernel: int, stride: int = 1, groups: int = 1, *, relu: bool) -> nn.Sequential:
    layers: list[nn.Module] = [
        SameConv2d(num_in, num_out, kernel, stride, groups),
        nn.BatchNorm2d(num_out, EPS, MOMENTUM),
    ]
    return nn.Sequential(*layers, *([nn.ReLU6(inplace=True)] if relu else []))


class MBConv(nn.Module):
    """Expansion, depthwise convolution, projection, and a shortcut where the shapes allow; (b, t, c, h, w) in and out.

    ::

        x -+- before_conv1 - expansion - depthwise - projection - after_projection -(+)- after_block ->
           +----------------------- shortcut, where there is one ---------------------+

    Slots are those of MobileNetV2's blocks, for the same reasons. Unsaid by the SSAN paper, our choice: SSA goes to
    ``after_projection`` in the blocks of 24 and 40 channels, here ``res2`` and ``res3`` (pinned in
    tests/models/test_efficientnet_lite.py).
    """

    before_conv1: nn.Module
    after_projection: nn.Module
    after_block: nn.Module

    def __init__(self, num_in: int, num_out: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = num_in * expansion
        self.expansion = conv_bn(num_in, hidden, 1, relu=True) if expansion > 1 else nn.Identity()
        self.depthwise = conv_bn(hidden, hidden, kernel, stride, groups=hidden, relu=True)
        self.projection = conv_bn(hidden, num_out, 1, relu=False)
        self.has_shortcut = stride == 1 and num_in == num_out
        self.slot_channels = {"after_projection": num_out, "after_block": num_out}
        if self.has_shortcut:
            self.slot_channels["before_conv1"] = num_in
        for slot in self.slot_channels:
            self.add_module(slot, nn.Identity())

    def forward(self, x: Tensor) -> Tensor:
        t = x.shape[1]
        y = self.before_conv1(x) if self.has_shortcut else x
        y = self.projection(self.depthwise(self.expansion(y.flatten(0, 1)))).unflatten(0, (-1, t))
        y = self.after_projection(y)
        return self.after_block(x + y if self.has_shortcut else y)


class EfficientNetLite(nn.Module):
    """Frames (b, t, 3, h, w) to pooled features (b, t, 1280), each frame by itself while the slots are empty."""

    num_features = 1280
    # The released network takes (x - 127) / 128 of pixels in 0..255.
    input_mean = (127 / 255,) * 3
    input_std = (128 / 255,) * 3

    def __init__(self) -> None:
        super().__init__()
        self.stages: dict[str, list[MBConv]] = {}
        self.stem = conv_bn(3, 32, 3, stride=2, relu=True)
        self.blocks = nn.ModuleList()
        num_in = 32
        for kernel, expansion, num_out, depth, stride, stage in LAYOUT:
            for index in range(depth):
                block = MBConv(num_in, num_out, kernel, stride if index == 0 else 1, expansion)
                self.stages.setdefault(stage, []).append(block)
                self.blocks.append(block)
                num_in = num_out
        self.head = conv_bn(num_in, self.num_features, 1, relu=True)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out")

    def feature_map(self, x: Tensor) -> Tensor:
        """Frames (b, t, 3, h, w) to the last convolution's features (b, t, 1280, h / 32, w / 32), rounded up."""
        t = x.shape[1]
        x = self.stem(x.flatten(0, 1)).unflatten(0, (-1, t))
        for block in self.blocks:
            x = block(x)
        return self.head(x.flatten(0, 1)).unflatten(0, (-1, t))

    def forward(self, x: Tensor) -> Tensor:
        return self.feature_map(x).mean(dim=(-2, -1))
