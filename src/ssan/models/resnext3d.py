"""3-D ResNeXt (Hara, Kataoka, Satoh, CVPR 2018): the network whose features HowTo100M and reference 22 have of a clip.

A clip of 16 frames of 112 px on its way (frames, then the side, then channels)::

    conv 7x7x7 / (1,2,2)      16   56    64
    max 3x3x3 / 2              8   28    64      padded by 1
    res2                       8   28   256
    res3, / 2 in all axes      4   14   512
    res4, / 2                  2    7  1024
    res5, / 2                  1    4  2048
    mean over a frame          1       2048

As kenshohara's code had it when its weights were released, and as HowTo100M's extractor has it
(``videocnn/models/resnext.py``): bottlenecks of 32 groups, as wide inside as half of what they give, which stride in
their 3x3x3 convolution. The names of its tensors are ours.
"""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from ssan.errors import UsageError
from ssan.models.r3d import Bottleneck3D, StagedNetwork, shortcut


class ResNeXtBottleneck3D(Bottleneck3D):
    """A bottleneck that gives twice its width, and whose 3x3x3 convolution sees its channels in groups."""

    expansion = 2


class ResNeXt3D(StagedNetwork):
    """Clips (b, t, 3, h, w) to features (b, t', 2048), t' = t / 16 rounded up; any t, h and w of at least 1.

    Unsaid by the authors, whose code takes clips of the size that it was made for, our choice: of a larger one all
    positions of a frame are averaged, and each time is described by itself. Pinned by
    ``test_a_larger_clip_is_averaged_over_all_of_a_frame``.

    :param num_blocks: blocks of each stage, ``res2`` first (``layer1`` in names).
    :param width: channels inside the blocks of the first stage; doubled by every further one.
    :param groups: of the 3x3x3 convolutions.
    :raises UsageError: a width that groups do not divide, or an odd one.
    """

    # HowTo100M's extractor subtracts these from bytes and scales nothing; kenshohara's code had 114.8, 107.7 and 99.5.
    input_mean = (110.6 / 255, 103.2 / 255, 96.3 / 255)
    input_std = (1 / 255, 1 / 255, 1 / 255)

    def __init__(self, num_blocks: Sequence[int] = (3, 4, 23, 3), *, width: int = 128, groups: int = 32) -> None:
        super().__init__()
        if groups < 1 or width < 2 or width % 2 or width % groups:
            raise UsageError(
                f"resnext3d: width is {width} and groups {groups}; expected an even multiple of the groups"
            )
        num_in = width // 2
        self.conv1 = nn.Conv3d(3, num_in, 7, (1, 2, 2), padding=3, bias=False)
        self.bn1 = nn.BatchNorm3d(num_in)

        def block_of(num_in: int, number: int, index: int, stride: int) -> tuple[nn.Module, int]:
            num_out = width * 2**number * ResNeXtBottleneck3D.expansion
            beside = shortcut(num_in, num_out, stride)
            return ResNeXtBottleneck3D(num_in, width * 2**number, stride, beside, groups=groups), num_out

        self.add_stages(num_in, num_blocks, block_of)

    def before_stage(self, number: int, x: Tensor) -> Tensor:
        return F.max_pool3d(x, 3, 2, padding=1) if number == 0 else x
