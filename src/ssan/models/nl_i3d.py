"""Non-local networks (Wang, Girshick, Gupta, He, CVPR 2018): I3D and C2D of ResNet-50 with five non-local blocks.

As their authors' code has them (video-nonlocal-net, lib/models). A clip of 224 px on its way, of 8 frames 8 apart
(their ``resnet_video.py``) or of 32 frames 2 apart (``resnet_video_org.py``, ``time_stride=2``); frames, the side,
channels::

                                                       8 frames     32 frames
    conv 5x7x7 / (time_stride, 2, 2)                    8  112        16  112     64
    max (time_stride)x3x3 / (time_stride, 2, 2)         8   55         8   55     64    not padded
    res2                                                8   55         8   55    256
    max 2x1x1 / (2, 1, 1)                               4   55         4   55    256
    res3, / (1, 2, 2), two non-local blocks             4   28         4   28    512
    res4, / (1, 2, 2), three non-local blocks           4   14         4   14   1024
    res5, / (1, 2, 2)                                   4    7         4    7   2048
    average 7x7 / 1                                     4    1         4    1   2048

Half of the blocks are inflated, by a 3x1x1 convolution in place of their first 1x1x1: all of res2, the first and every
second one of res3 and res4, the second of res5. In C2D (``inflated=False``) none is, the stem is 1x7x7, and only the
two poolings and the non-local blocks see more than a frame: which of two neighbours came first changes nothing.

Non-local blocks follow the second and every second block after it. Their keys and values are made of features that are
pooled before (``NonLocal`` pools what was made), and their last BatchNorm starts at 0. Models of 128 frames have them
in groups of four frames in res3 (``group_frames=4``).

Modules have the names of a ResNet for pictures (``ssan.models.resnet``): ``--init`` with such a file inflates its
filters, and leaves the non-local blocks as they start.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssan.errors import UsageError
from ssan.layers.nonlocal_block import NonLocal
from ssan.models.r3d import StagedNetwork


class PooledNonLocal(NonLocal):
    """The non-local block as its authors' code has it: the features are max-pooled 2x2, and phi and g see these.

    A last odd row or column is in no window, but where there is one alone.

    Unsaid by the authors, whose code refuses it, our choice: where the frames are no multiple of ``group_frames``,
    those left over are the last group. Pinned by ``test_groups_of_frames_attend_by_themselves``.

    :param group_frames: so many frames after one another attend to one another alone; 0 for all.
    """

    def __init__(self, channels: int, *, group_frames: int = 0) -> None:
        super().__init__(channels, axes="thw", embedding="half", identity_start=True)
        self.group_frames = group_frames

    def forward(self, x: Tensor) -> Tensor:
        b, t, size = x.shape[0], x.shape[1], self.group_frames
        if not 0 < size < t:
            return super().forward(x)
        whole = t - t % size
        groups = super().forward(x[:, :whole].unflatten(1, (-1, size)).flatten(0, 1))
        groups = groups.unflatten(0, (b, -1)).flatten(1, 2)
        return groups if whole == t else torch.cat([groups, super().forward(x[:, whole:])], dim=1)

    def _keys_and_values(self, x_btpc: Tensor, h: int, w: int) -> tuple[Tensor, Tensor]:
        pictures = x_btpc.flatten(0, 1).unflatten(1, (h, w)).permute(0, 3, 1, 2)
        pooled = F.max_pool2d(pictures, (min(2, h), min(2, w)), 2).flatten(2).transpose(1, 2)
        pooled = pooled.unflatten(0, x_btpc.shape[:2])
        return self.phi(pooled), self.g(pooled)


class VolumeBottleneck(nn.Module):
    """k x1x1, 1x3x3, 1x1x1 convolutions, of which the second strides in space, and a shortcut; (b, c, t, h, w).

    What is put into the slot ``after_block`` maps (b, t, c, h, w) to the same shape.
    """

    after_block: nn.Module

    def __init__(self, num_in: int, width: int, stride: int, length: int) -> None:
        super().__init__()
        num_out = 4 * width
        self.conv1 = nn.Conv3d(num_in, width, (length, 1, 1), padding=(length // 2, 0, 0), bias=False)
        self.bn1 = nn.BatchNorm3d(width)
        self.conv2 = nn.Conv3d(width, width, (1, 3, 3), (1, stride, stride), padding=(0, 1, 1), bias=False)
        self.bn2 = nn.BatchNorm3d(width)
        self.conv3 = nn.Conv3d(width, num_out, 1, bias=False)
        self.bn3 = nn.BatchNorm3d(num_out)
        self.downsample: nn.Module | None = None
        if stride != 1 or num_in != num_out:
            shortcut = nn.Conv3d(num_in, num_out, 1, (1, stride, stride), bias=False)
            self.downsample = nn.Sequential(shortcut, nn.BatchNorm3d(num_out))
        self.slot_channels = {"after_block": num_out}
        self.after_block = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y = F.relu(self.bn2(self.conv2(y)), inplace=True)
        y = self.bn3(self.conv3(y))
        y = F.relu(y + (x if self.downsample is None else self.downsample(x)), inplace=True)
        return self.after_block(y.transpose(1, 2)).transpose(1, 2)


def max_pool(x: Tensor, kernel: Sequence[int], stride: Sequence[int]) -> Tensor:
    """The largest of each whole window of (b, c, t, h, w); windows are no larger than what there is."""
    return F.max_pool3d(x, [min(k, n) for k, n in zip(kernel, x.shape[2:], strict=True)], list(stride))


class NonLocalI3D(StagedNetwork):
    """Clips (b, t, 3, h, w) to features (b, t', 2048), t' = t / 2, or t / 8 with ``time_stride=2``, rounded down.

    A picture larger than 224 px gives several windows of the average pooling, whose features are averaged and so the
    classifier's scores; their authors' code averages probabilities.

    Unsaid by the authors, whose code takes what it was made for, our choice: where a pooling's window is larger than
    what there is (a single frame, or small pictures), it is as large as that. Pinned by
    ``test_a_clip_of_any_size_is_described``.

    :param num_blocks: blocks of each stage, ``res2`` first (``layer1`` in names).
    :param width: channels inside the blocks of the first stage; doubled by every further one.
    :param inflated: I3D; False for C2D.
    :param non_local: with non-local blocks in res3 and res4.
    :param time_stride: of the stem and of the pooling behind it over frames: 1 or 2.
    :param group_frames: see ``PooledNonLocal``; of res3's alone.
    :raises UsageError: an option of which there is no network.
    """

    # theirs: 114.75 and 57.375 of bytes, for all channels.
    input_mean = (0.45, 0.45, 0.45)
    input_std = (0.225, 0.225, 0.225)

    def __init__(
        self,
        num_blocks: Sequence[int] = (3, 4, 6, 3),
        *,
        width: int = 64,
        inflated: bool = True,
        non_local: bool = True,
        time_stride: int = 1,
        group_frames: int = 0,
    ) -> None:
        super().__init__()
        if width < 1 or time_stride not in (1, 2):
            raise UsageError(
                f"nl_i3d: width is {width} and time_stride {time_stride}; expected 1 or more, and 1 (frames far apart) "
                "or 2 (frames close to one another)"
            )
        self.time_stride = time_stride
        length = 5 if inflated else 1
        self.conv1 = nn.Conv3d(3, width, (length, 7, 7), (time_stride, 2, 2), padding=(length // 2, 3, 3), bias=False)
        self.bn1 = nn.BatchNorm3d(width)

        def block_of(num_in: int, number: int, index: int, stride: int) -> tuple[nn.Module, int]:
            longer = inflated and (number == 0 or index % 2 == (number == 3))
            block = VolumeBottleneck(num_in, width * 2**number, stride, 3 if longer else 1)
            num_out = 4 * width * 2**number
            if non_local and number in (1, 2) and index % 2 == 1:
                block.after_block = PooledNonLocal(num_out, group_frames=group_frames if number == 1 else 0)
            return block, num_out

        self.add_stages(width, num_blocks, block_of)

    def before_stage(self, number: int, x: Tensor) -> Tensor:
        if number == 0:
            return max_pool(x, (self.time_stride, 3, 3), (self.time_stride, 2, 2))
        return max_pool(x, (2, 1, 1), (2, 1, 1)) if number == 1 else x

    def forward(self, clips: Tensor) -> Tensor:
        x = self.feature_map(clips)
        h, w = x.shape[3:]
        x = F.avg_pool3d(x, (1, min(7, h), min(7, w)), stride=1)
        return x.mean(dim=(3, 4)).transpose(1, 2)
