"""Somebody else's image network, in a file of its own: another process that reads one needs little to know it."""

import torch
from torch import Tensor, nn


class Block(nn.Module):
    """torchvision's basic block, with its names and with its one ReLU that runs twice."""

    def __init__(self, num_in: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(num_in, width, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample: nn.Module | None = None
        if stride != 1 or num_in != width:
            self.downsample = nn.Sequential(nn.Conv2d(num_in, width, 1, stride, bias=False), nn.BatchNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        y += x if self.downsample is None else self.downsample(x)
        return self.relu(y)


class ResNet(nn.Module):
    """A ResNet-18 as torchvision names it, as narrow as one likes, and with as few blocks and stages."""

    def __init__(self, width: int = 7, num_classes: int = 11, num_blocks: int = 2, num_stages: int = 4) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.stages = [f"layer{n + 1}" for n in range(num_stages)]
        for n, stage in enumerate(self.stages):
            first = Block(width * 2 ** max(n - 1, 0), width * 2**n, 2 if n else 1)
            others = [Block(width * 2**n, width * 2**n, 1) for _ in range(num_blocks - 1)]
            self.add_module(stage, nn.Sequential(first, *others))
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.fc = nn.Linear(width * 2 ** (num_stages - 1), num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        for stage in self.stages:
            x = getattr(self, stage)(x)
        return self.fc(torch.flatten(self.avgpool(x), 1))
