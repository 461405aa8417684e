"""3-D ResNets against torchvision's own, with the same random weights.

    python -m benchmarks.parity.r3d_parity [--golden]

Needs torchvision. ``r3d_18`` is its named network; those of 34 layers and of bottlenecks are made of its classes, as it
names none. Writes benchmarks/results/r3d_parity.json and ends with an error where a logit differs by more than 1e-4 of
the largest. ``--golden`` writes tests/golden/r3d.json.gz instead: names and shapes of the tensors of 18 and 50 layers.
"""

import argparse
from functools import partial

from torch import nn
from torchvision.models.video import resnet

from benchmarks.parity.volumes import clip_of, compare, random_model, write, write_golden

NUM_CLASSES = 11
NETWORKS = {
    "r3d_r18": (resnet.BasicBlock, [2, 2, 2, 2]),
    "r3d_r34": (resnet.BasicBlock, [3, 4, 6, 3]),
    "r3d_r50": (resnet.Bottleneck, [3, 4, 6, 3]),
}


def peer(name: str, num_classes: int = NUM_CLASSES) -> nn.Module:
    block, depths = NETWORKS[name]
    make = partial(resnet.VideoResNet, block, [resnet.Conv3DSimple] * 4, depths, resnet.BasicStem)
    return resnet.r3d_18(num_classes=num_classes) if name == "r3d_r18" else make(num_classes=num_classes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--golden", action="store_true", help="make the file that the tests keep")
    if parser.parse_args().golden:
        write_golden("r3d", {name: peer(name, 400) for name in ("r3d_r18", "r3d_r50")})
        return
    rows = []
    for name in NETWORKS:
        for size in ((16, 64, 64), (9, 45, 70)):
            clip = clip_of(*size)
            rows.append(compare(name, "torchvision", random_model(name, NUM_CLASSES), peer(name), clip))
    write("r3d", rows)


if __name__ == "__main__":
    main()
