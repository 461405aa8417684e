"""A block of your own between the frames of an image network, trained, saved, and loaded again.

    python examples/own_block.py videos runs/own

The block takes videos (b, t, c, h, w) and gives the same shape. It begins as the identity, so that a network with
pre-trained weights answers as it did until the block has learnt something.
"""

import sys

import torch
from torch import Tensor, nn

import ssan
from ssan.models.classifier import Classifier


class Difference(nn.Module):
    """What has changed since the frame before, weighted for each channel, and added: y_t = x_t + w (x_t - x_{t-1})."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        before = torch.cat([x[:, :1], x[:, :-1]], dim=1)
        return x + self.weight.view(-1, 1, 1) * (x - before)


def network(num_classes: int) -> Classifier:
    """A small image network with the block behind its first convolution; torchvision's and timm's go as well."""
    torch.manual_seed(0)
    images = nn.Sequential(
        nn.Conv2d(3, 16, 5, stride=4), nn.ReLU(), nn.Conv2d(16, 32, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    )  # fmt: skip
    return ssan.video_classifier(ssan.attach(images, "0", Difference), num_classes, dropout=0.0)


def main(data: str, out: str) -> None:
    train, val = ssan.read_dataset(data, "train"), ssan.read_dataset(data, "val")
    keys = {"epochs": 2, "batch": 8, "optimizer": "adamw", "lr": 0.003, "size_px": 32, "crop_px": 32, "flip": "off"}
    done = ssan.train(keys, (train, val), out, model=network(len(train.classes)), quiet=True)

    # The file has the weights, and only this code can build the network: it is made once more, and given.
    model = ssan.load_model(out, model=network(len(train.classes)))
    weights = model.network.state_dict()
    learnt = next(tensor for name, tensor in weights.items() if name.endswith("after_output.weight"))
    print(f"{done['steps']} steps; the block's largest weight is no longer 0: {bool(learnt.abs().max() > 0)}")
    print(f"{len(model.predict(val))} validation videos labelled")


if __name__ == "__main__":
    main(*sys.argv[1:])
