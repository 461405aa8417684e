"""Attention laid over the frames that it was computed from."""

import torch
import torch.nn.functional as F
from torch import Tensor


def moving_positions(frames: Tensor) -> Tensor:
    """For each frame of a clip (t, 3, h, w), uint8, the position (y, x) that differs most from the clip's median frame.

    Coordinates are shares of the sides, as ``models.attended`` takes them. For choosing what to look at, no more.
    """
    values = frames.float()
    change = (values - values.median(dim=0).values).abs().sum(dim=1, keepdim=True)
    change = F.avg_pool2d(change, 5, stride=1, padding=2, count_include_pad=False)[:, 0]
    h, w = change.shape[1:]
    best = change.flatten(1).argmax(dim=1)
    return torch.stack([(best // w + 0.5) / h, (best % w + 0.5) / w], dim=1)


def overlay(frames: Tensor, maps: Tensor, queries: Tensor | None = None) -> Tensor:
    """Frames (t, 3, h, w), uint8, darkened where ``maps`` (t, h', w') are low; queried positions get a white cross.

    Each frame's map is stretched to its own largest value: compare positions within a frame, not frames.
    """
    t, _, h, w = frames.shape
    stretched = maps / maps.flatten(1).amax(dim=1).clamp_min(1e-12).view(t, 1, 1)
    light = F.interpolate(stretched[:, None], (h, w), mode="bilinear", align_corners=False)
    shown = (frames.float() * (0.2 + 0.8 * light)).round().to(torch.uint8)
    if queries is not None:
        arm = max(1, h // 24)
        for frame, (y, x) in zip(shown, queries.tolist(), strict=True):
            row, column = min(int(y * h), h - 1), min(int(x * w), w - 1)
            frame[:, max(row - arm, 0) : row + arm + 1, column] = 255
            frame[:, row, max(column - arm, 0) : column + arm + 1] = 255
    return shown
