"""Non-local networks against a port of their authors' code, with the same random weights.

    python -m benchmarks.parity.nl_i3d_parity --pytorch-resnet3d CHECKOUT [--golden]

``CHECKOUT`` is one of Tushar-N/pytorch-resnet3d. Its network is that of 32 frames. That of 8 frames is made of it by
the strides of its stem and first pooling, and C2D by convolutions over one frame in place of those over several. The
authors' own code needs Caffe2 and was not run; their names are tried by tests/weights/test_nl_i3d_files.py. Writes
benchmarks/results/nl_i3d_parity.json and ends with an error where a logit differs by more than 1e-4 of the largest.
``--golden`` writes tests/golden/nl_i3d.json.gz instead: names and shapes of the port's tensors.
"""

import argparse
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from benchmarks.parity.volumes import clip_of, compare, module_of, random_model, write, write_golden

NUM_CLASSES = 11


class Port(nn.Module):
    """The port, which takes clips in a dict and answers logits first."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def load_state_dict(self, *args: Any, **options: Any) -> Any:
        return self.network.load_state_dict(*args, **options)

    def state_dict(self, *args: Any, **options: Any) -> Any:
        return self.network.state_dict(*args, **options)

    def forward(self, clips: Tensor) -> Tensor:
        return self.network({"frames": clips})[0]


def far_apart(network: Any) -> None:
    """The network of 8 frames: its stem and first pooling do not stride over frames."""
    network.conv1.stride = (1, 2, 2)
    network.maxpool1 = nn.MaxPool3d((1, 3, 3), (1, 2, 2))


def of_single_frames(network: Any) -> None:
    """C2D: no convolution over frames."""
    network.conv1 = nn.Conv3d(3, 64, (1, 7, 7), network.conv1.stride, (0, 3, 3), bias=False)
    for layer in (network.layer1, network.layer2, network.layer3, network.layer4):
        for block in layer:
            block.conv1 = nn.Conv3d(block.conv1.in_channels, block.conv1.out_channels, 1, bias=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pytorch-resnet3d", required=True, metavar="CHECKOUT")
    parser.add_argument("--golden", action="store_true", help="make the file that the tests keep")
    options = parser.parse_args()
    make = module_of(Path(options.pytorch_resnet3d) / "models" / "resnet.py").I3Res50
    if options.golden:
        write_golden("nl_i3d", {"pytorch_resnet3d": make(num_classes=400, use_nl=True)})
        return
    rows = []
    for name, ours, frames, non_local in (
        ("nl_i3d_r50", {}, 8, True),
        ("nl_i3d_r50", {"time_stride": 2}, 32, True),
        ("nl_i3d_r50", {"time_stride": 2, "non_local": False}, 32, False),
        ("c2d_nl_r50", {"time_stride": 2}, 32, True),
        ("c2d_nl_r50", {}, 8, True),
    ):
        network = make(num_classes=NUM_CLASSES, use_nl=non_local)
        if "time_stride" not in ours:
            far_apart(network)
        if name.startswith("c2d"):
            of_single_frames(network)
        model = random_model(name, NUM_CLASSES, **ours)
        row = compare(name, "pytorch_resnet3d", model, Port(network), clip_of(frames, 96, 112))
        rows.append({"options": ours, **row})
    write("nl_i3d", rows)


if __name__ == "__main__":
    main()
