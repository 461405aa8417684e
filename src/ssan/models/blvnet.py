"""bLVNet-TAM (Fan et al., "More Is Less", NeurIPS 2019): two branches that share the frames of a video between them.

Of each pair of frames the second goes through a deep branch at half the resolution (big), the first through a shallow,
narrow one at the full resolution (little). A stage adds the two, and hands its map on as that of both frames. Across
pairs look the temporal aggregation modules. "8x2" in the tables are 8 pairs, 16 frames.

A clip of 16 frames of 224 px through bLResNet-50 on its way (maps, side, channels; a map is handed on twice)::

    conv 7x7 / 2                  16  112    64
    stem: big and little           8   56    64
    layer1: aggregated, 2 | 1      8   28   256       bottlenecks of big | little, and one behind both
    layer2: aggregated, 3 | 1      8   14   512
    layer3: aggregated, 5 | 1      8   14  1024
    layer4: 3, each aggregated     8    7  2048

As its authors released it (IBM/bLVNet-TAM); Big-Little Net (Chen et al., ICLR 2019) is where the branches are from.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssan.errors import UsageError
from ssan.layers.temporal_aggregation import TemporalAggregation

EXPANSION = 4


def conv_bn(num_in: int, num_out: int, kernel: int = 1, stride: int = 1) -> tuple[nn.Conv2d, nn.BatchNorm2d]:
    return nn.Conv2d(num_in, num_out, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(num_out)


class AggregatedBottleneck(nn.Module):
    """1x1, 3x3, 1x1 convolutions and a shortcut; features (b, t, c, h, w) in and out.

    ::

        x -+- aggregation - conv1 - conv2 - conv3 -(+)- relu ->
           +-------------- shortcut ----------------+

    The shortcut of a block that strides is averaged over 3x3 pixels before its 1x1 convolution. A shortcut with a
    convolution or an average takes what comes out of the aggregation, one without takes what goes into it.

    :param num_out: channels of the output; the 3x3 convolution has a fourth of them.
    :param aggregated: whether there is an aggregation; without one frames pass by themselves.
    :param last_relu: whether what comes out passes a ReLU.
    """

    def __init__(
        self, num_in: int, num_out: int, stride: int = 1, *, aggregated: bool = False, last_relu: bool = True
    ) -> None:
        super().__init__()
        inside = num_out // EXPANSION
        self.aggregation = TemporalAggregation(num_in) if aggregated else None
        self.conv1, self.bn1 = conv_bn(num_in, inside)
        self.conv2, self.bn2 = conv_bn(inside, inside, 3, stride)
        self.conv3, self.bn3 = conv_bn(inside, num_out)
        shortcut: list[nn.Module] = [nn.AvgPool2d(3, 2, 1)] if stride == 2 else []
        shortcut += conv_bn(num_in, num_out) if num_in != num_out else ()
        self.downsample = nn.Sequential(*shortcut) if shortcut else None
        self.last_relu = last_relu

    def forward(self, x: Tensor) -> Tensor:
        t = x.shape[1]
        aggregated = (x if self.aggregation is None else self.aggregation(x)).flatten(0, 1)
        y = F.relu(self.bn1(self.conv1(aggregated)))
        y = F.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        y = y + (x.flatten(0, 1) if self.downsample is None else self.downsample(aggregated))
        return (F.relu(y) if self.last_relu else y).unflatten(0, (-1, t))


def branch(num_in: int, num_out: int, depth: int, stride: int, *, last_relu: bool) -> nn.Sequential:
    """So many bottlenecks, of which the first strides; the last may be without its ReLU."""
    return nn.Sequential(
        *(
            AggregatedBottleneck(
                num_in if index == 0 else num_out,
                num_out,
                stride if index == 0 else 1,
                # Unsaid by the paper, and so in its authors' code: a branch of a single bottleneck keeps its ReLU.
                last_relu=last_relu or depth == 1 or index < depth - 1,
            )
            for index in range(depth)
        )
    )


class BigLittleStem(nn.Module):
    """Aggregation, then 3x3 / 2 of the second frames beside 3x3, 3x3 / 2, 1x1 of the first, and 1x1 of their sum.

    Frames (b, 2n, c, h, w) to pairs (b, n, c, h / 2, w / 2); ``little`` is narrower by ``alpha``.
    """

    def __init__(self, channels: int, alpha: int) -> None:
        super().__init__()
        narrow = channels // alpha
        self.aggregation = TemporalAggregation(channels)
        self.big = nn.Sequential(*conv_bn(channels, channels, 3, 2))
        self.little = nn.Sequential(
            *conv_bn(channels, narrow, 3), nn.ReLU(), *conv_bn(narrow, narrow, 3, 2), nn.ReLU(),
            *conv_bn(narrow, channels),
        )  # fmt: skip
        self.merge = nn.Sequential(*conv_bn(channels, channels))

    def forward(self, frames: Tensor) -> Tensor:
        frames = self.aggregation(frames)
        n = frames.shape[1] // 2
        both = self.big(frames[:, 1::2].flatten(0, 1)) + self.little(frames[:, ::2].flatten(0, 1))
        return F.relu(self.merge(F.relu(both))).unflatten(0, (-1, n))


class BigLittleModule(nn.Module):
    """A stage: aggregation, the two branches side by side, their sum, and a bottleneck behind it.

    Frames (b, 2n, c, h, w) to pairs (b, n, num_out, h / stride, w / stride). ``big`` strides at once, and is brought
    back to the size of ``little`` by repeating its pixels; the bottleneck behind both strides then.

    :param depth: bottlenecks of the stage in a plain network: ``big`` has one less, ``little`` one less than a share.
    :param alpha: by how much ``little`` is narrower.
    :param beta: by how much ``little`` is shallower.
    """

    def __init__(self, num_in: int, num_out: int, depth: int, stride: int, alpha: int, beta: int) -> None:
        super().__init__()
        narrow = num_out // alpha
        self.aggregation = TemporalAggregation(num_in)
        self.big = branch(num_in, num_out, depth - 1, 2, last_relu=False)
        self.little = branch(num_in, narrow, max(1, depth // beta - 1), 1, last_relu=True)
        self.widen = nn.Sequential(*conv_bn(narrow, num_out))
        self.fusion = AggregatedBottleneck(num_out, num_out, stride)

    def forward(self, frames: Tensor) -> Tensor:
        frames = self.aggregation(frames)
        n = frames.shape[1] // 2
        big, little = self.big(frames[:, 1::2]).flatten(0, 1), self.little(frames[:, ::2]).flatten(0, 1)
        both = F.interpolate(big, size=little.shape[-2:], mode="nearest") + self.widen(little)
        return self.fusion(F.relu(both).unflatten(0, (-1, n)))


class BLVNet(nn.Module):
    """Clips (b, t, 3, h, w) to features (b, t / 2, 2048), one for each pair of frames.

    Unsaid by the paper, our choice: of an odd number of frames the last stands twice, so that it is a pair. Pinned by
    ``test_the_last_of_an_odd_number_of_frames_stands_twice``.

    :param num_blocks: bottlenecks of each of the four stages in a plain network of this depth, two at least.
    :param width: channels of the stem; each stage has so many times 4, 8, 16, 32.
    :param alpha: by how much the little branch is narrower; 2 in all that was published.
    :param beta: by how much it is shallower; 4 in all that was published.
    """

    def __init__(self, num_blocks: Sequence[int], *, width: int = 64, alpha: int = 2, beta: int = 4) -> None:
        super().__init__()
        if not 1 <= alpha <= width or beta < 1:
            raise UsageError(
                f"blvnet: alpha is {alpha} and beta {beta}; alpha must lie between 1 and the width, {width}, and beta "
                "be 1 or more"
            )
        self.conv1, self.bn1 = conv_bn(3, width, 7, 2)
        self.stem = BigLittleStem(width, alpha)
        widths = [width * EXPANSION * 2**number for number in range(4)]
        inputs = [width, *widths]
        for number, stride in enumerate((2, 2, 1)):
            stage = BigLittleModule(inputs[number], widths[number], num_blocks[number], stride, alpha, beta)
            self.add_module(f"layer{number + 1}", stage)
        self.layer4 = nn.Sequential(
            *(
                AggregatedBottleneck(inputs[3 + (index > 0)], widths[3], 2 if index == 0 else 1, aggregated=True)
                for index in range(num_blocks[3])
            )
        )
        self.stages: dict[str, list[nn.Module]] = {
            "res2": [self.get_submodule("layer1")], "res3": [self.get_submodule("layer2")],
            "res4": [self.get_submodule("layer3")], "res5": list(self.layer4),
        }  # fmt: skip
        self.num_features = widths[3]
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        for module in self.modules():
            if isinstance(module, AggregatedBottleneck):
                nn.init.zeros_(module.bn3.weight)

    def feature_map(self, clips: Tensor) -> Tensor:
        """Clips (b, t, 3, h, w) to the last stage's features (b, t / 2, 2048, h / 32, w / 32), each rounded up."""
        if clips.shape[1] % 2:
            clips = torch.cat([clips, clips[:, -1:]], dim=1)
        t = clips.shape[1]
        x = F.relu(self.bn1(self.conv1(clips.flatten(0, 1)))).unflatten(0, (-1, t))
        x = self.stem(x)
        for name in ("layer1", "layer2", "layer3"):
            x = self.get_submodule(name)(x.repeat_interleave(2, dim=1))
        return self.layer4(x)

    def forward(self, clips: Tensor) -> Tensor:
        return self.feature_map(clips).mean(dim=(-2, -1))
