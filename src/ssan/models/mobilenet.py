"""MobileNetV2 (Sandler et al., CVPR 2018) over the frames of a video: torchvision's module names, and slots."""

from torch import Tensor, nn

# Expansion, output channels, number of blocks, stride of the first (table 2 there); then the stage, by resolution.
LAYOUT = [
    (1, 16, 1, 1, "res1"),
    (6, 24, 2, 2, "res2"),
    (6, 32, 3, 2, "res3"),
    (6, 64, 4, 2, "res4"),
    (6, 96, 3, 1, "res4"),
    (6, 160, 3, 2, "res5"),
    (6, 320, 1, 1, "res5"),
]


def conv_bn_relu(num_in: int, num_out: int, kernel: int = 3, stride: int = 1, groups: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(num_in, num_out, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(num_out),
        nn.ReLU6(inplace=True),
    )


class InvertedResidual(nn.Module):
    """Expansion, depthwise convolution, projection, and a shortcut where the shapes allow; (b, t, c, h, w) in and out.

    ::

        x -+- before_conv1 - expansion - depthwise - projection - after_projection -(+)- after_block ->
           +----------------------- shortcut, where there is one ---------------------+

    ``before_conv1`` exists only in blocks with a shortcut: a shift there leaves the shortcut's copy untouched. Unsaid
    by the SSAN paper, our choice: SSA goes to ``after_projection``, where there are few channels (the first 1x1 widens
    sixfold), in the blocks of 24 and 32 channels, here ``res2`` and ``res3`` (pinned in tests/models/test_networks.py).
    """

    before_conv1: nn.Module
    after_projection: nn.Module
    after_block: nn.Module

    def __init__(self, num_in: int, num_out: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = num_in * expansion
        layers: list[nn.Module] = [] if expansion == 1 else [conv_bn_relu(num_in, hidden, kernel=1)]
        layers += [
            conv_bn_relu(hidden, hidden, stride=stride, groups=hidden),
            nn.Conv2d(hidden, num_out, 1, bias=False),
            nn.BatchNorm2d(num_out),
        ]
        self.conv = nn.Sequential(*layers)
        self.has_shortcut = stride == 1 and num_in == num_out
        self.slot_channels = {"after_projection": num_out, "after_block": num_out}
        if self.has_shortcut:
            self.slot_channels["before_conv1"] = num_in
        for slot in self.slot_channels:
            self.add_module(slot, nn.Identity())

    def forward(self, x: Tensor) -> Tensor:
        t = x.shape[1]
        y = self.before_conv1(x) if self.has_shortcut else x
        y = self.conv(y.flatten(0, 1)).unflatten(0, (-1, t))
        y = self.after_projection(y)
        return self.after_block(x + y if self.has_shortcut else y)


class MobileNetV2(nn.Module):
    """Frames (b, t, 3, h, w) to pooled features (b, t, 1280), each frame by itself while the slots are empty."""

    num_features = 1280

    def __init__(self) -> None:
        super().__init__()
        self.stages: dict[str, list[InvertedResidual]] = {}
        modules: list[nn.Module] = [conv_bn_relu(3, 32, stride=2)]
        num_in = 32
        for expansion, num_out, depth, stride, stage in LAYOUT:
            for index in range(depth):
                block = InvertedResidual(num_in, num_out, stride if index == 0 else 1, expansion)
                self.stages.setdefault(stage, []).append(block)
                modules.append(block)
                num_in = num_out
        modules.append(conv_bn_relu(num_in, self.num_features, kernel=1))
        self.features = nn.Sequential(*modules)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out")

    def feature_map(self, x: Tensor) -> Tensor:
        """Frames (b, t, 3, h, w) to the last convolution's features (b, t, 1280, h / 32, w / 32)."""
        t = x.shape[1]
        x = self.features[0](x.flatten(0, 1)).unflatten(0, (-1, t))
        for index in range(1, len(self.features) - 1):  # by module, not by ``stages``: a block may have been wrapped
            x = self.features[index](x)
        return self.features[-1](x.flatten(0, 1)).unflatten(0, (-1, t))

    def forward(self, x: Tensor) -> Tensor:
        return self.feature_map(x).mean(dim=(-2, -1))
