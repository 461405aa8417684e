"""C3D (Tran et al., ICCV 2015, section 3.3): eight 3x3x3 convolutions, five poolings, two layers of 4096.

A clip of 16 frames of 112 px on its way (frames, then the side, then channels)::

    conv1a, max 1x2x2         16   56    64
    conv2a, max 2x2x2          8   28   128
    conv3a, 3b, max 2x2x2      4   14   256
    conv4a, 4b, max 2x2x2      2    7   512
    conv5a, 5b, max 2x2x2      1    4   512      padded by 1 in space
    fc6, fc7                   1        4096

Convolutions have biases, and there is no BatchNorm unless it is asked for. The last pooling is padded, as in the
authors' Caffe model and in mmaction2 (``backbones/c3d.py``), whose names and numbers these are; without, as in another
port, its map is 3 x 3.
"""

import math

import torch.nn.functional as F
from torch import Tensor, nn

from ssan.errors import UsageError

# Channels of the convolutions that stand before each pooling, by their numbers in the names.
CONVOLUTIONS = ((64,), (128,), (256, 256), (512, 512), (512, 512))


class C3D(nn.Module):
    """Clips (b, t, 3, h, w) to features (b, t', 4096): one time for each 16 frames, and what is left over is dropped.

    Unsaid by the paper, our choice: a larger picture has several 4 x 4 windows behind the last pooling, whose features
    are averaged; a smaller one is padded by zeros behind to one window; and where fewer than 2 frames, rows or columns
    are left to pool, the pooling's window is as large as that. Pinned by
    ``test_a_larger_picture_is_averaged_over_windows``, ``test_a_smaller_one_is_padded_to_a_window`` and
    ``test_a_short_clip_is_pooled_as_far_as_it_goes``.

    :param width: share of the channels of every layer, for a small network.
    :param side: of fc6's window; 4 for pictures of 112 px.
    :param dropout: share of fc6's features dropped in training; those of fc7 are the classifier's to drop.
    :param norm: with BatchNorm behind each convolution, which then has no bias (mmaction2's ``norm_cfg``): from random
        weights it is learned sooner.
    :raises UsageError: a side below 1, or a width of which no channel is left.
    """

    # mmaction2's, of bytes: 104, 117 and 128, and no scale.
    input_mean = (104 / 255, 117 / 255, 128 / 255)
    input_std = (1 / 255, 1 / 255, 1 / 255)

    def __init__(self, *, width: float = 1.0, side: int = 4, dropout: float = 0.5, norm: bool = False) -> None:
        super().__init__()
        if side < 1 or not 1 / 64 <= width <= 16:
            raise UsageError(f"c3d: side is {side} and width {width:g}; expected 1 or more, and 1/64 to 16")
        self.side = side
        self.stages: dict[str, list[nn.Module]] = {}
        num_in = 3
        for number, channels in enumerate(CONVOLUTIONS, 1):
            for letter, num in zip("ab", channels, strict=False):
                num_out = round(num * width)
                convolution = nn.Conv3d(num_in, num_out, 3, padding=1, bias=not norm)
                nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
                if convolution.bias is not None:
                    nn.init.zeros_(convolution.bias)
                self.add_module(f"conv{number}{letter}", convolution)
                self.add_module(f"norm{number}{letter}", nn.BatchNorm3d(num_out) if norm else nn.Identity())
                if number > 1:
                    self.stages.setdefault(f"res{number}", []).append(convolution)
                num_in = num_out
        self.num_features = round(4096 * width)
        self.fc6 = nn.Linear(num_in * side * side, self.num_features)
        self.fc7 = nn.Linear(self.num_features, self.num_features)
        for layer, usual in ((self.fc6, 8192), (self.fc7, 4096)):
            # 0.005 as it is published, and in a small network so much more that what it gives is as large.
            nn.init.normal_(layer.weight, std=0.005 * math.sqrt(usual / layer.in_features))
            nn.init.zeros_(layer.bias)
        self.dropout = nn.Dropout(dropout)

    def feature_map(self, clips: Tensor) -> Tensor:
        """Clips (b, t, 3, h, w) to what the last pooling gives, (b, 512, t', h', w')."""
        x = clips.transpose(1, 2)
        for number, channels in enumerate(CONVOLUTIONS, 1):
            for letter, _ in zip("ab", channels, strict=False):
                x = self.get_submodule(f"conv{number}{letter}")(x)
                x = F.relu(self.get_submodule(f"norm{number}{letter}")(x), inplace=True)
            x = self._pooled(x, in_time=number > 1, padding=number == 5)
        return x

    def _pooled(self, x: Tensor, *, in_time: bool, padding: bool) -> Tensor:
        t, h, w = x.shape[2:]
        space = (2, 2) if padding else (min(2, h), min(2, w))
        kernel = (min(2, t) if in_time else 1, *space)
        return F.max_pool3d(x, kernel, (kernel[0], 2, 2), padding=(0, 1, 1) if padding else 0)

    def forward(self, clips: Tensor) -> Tensor:
        x = self.feature_map(clips)
        h, w = x.shape[3:]
        x = F.pad(x, (0, max(self.side - w, 0), 0, max(self.side - h, 0)))
        # fc6 sees a window of the map, which makes it a convolution; fc7 what that gives at each place.
        weight = self.fc6.weight.view(self.num_features, -1, 1, self.side, self.side)
        x = F.relu(F.conv3d(x, weight, self.fc6.bias), inplace=True).permute(0, 2, 3, 4, 1)
        x = F.relu(self.fc7(self.dropout(x)), inplace=True)  # (b, t', h', w', 4096)
        return x.mean(dim=(2, 3))
