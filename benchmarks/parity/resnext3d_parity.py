"""3-D ResNeXt-101 against that of HowTo100M's extractor, with the same random weights.

    python -m benchmarks.parity.resnext3d_parity --extractor CHECKOUT [--golden]

``CHECKOUT`` is one of antoine77340/video_feature_extractor; its network is kenshohara's. Writes
benchmarks/results/resnext3d_parity.json and ends with an error where a logit differs by more than 1e-4 of the largest.
``--golden`` writes tests/golden/resnext3d.json.gz instead: names and shapes of its tensors.
"""

import argparse
from functools import partial
from pathlib import Path

from benchmarks.parity.volumes import clip_of, compare, module_of, random_model, write, write_golden

NUM_CLASSES = 11
SIZES = ((16, 112), (32, 64))
"""Frames and pixels: the size that it was made for, and another."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--extractor", required=True, metavar="CHECKOUT")
    parser.add_argument("--golden", action="store_true", help="make the file that the tests keep")
    options = parser.parse_args()
    make = partial(module_of(Path(options.extractor) / "videocnn" / "models" / "resnext.py").resnet101, cardinality=32)
    if options.golden:
        write_golden("resnext3d", {"resnext3d_101": make(num_classes=400, sample_size=112, sample_duration=16)})
        return
    rows = []
    for t, size in SIZES:
        peer = make(num_classes=NUM_CLASSES, sample_size=size, sample_duration=t)
        model = random_model("resnext3d_101", NUM_CLASSES)
        rows.append(compare("resnext3d_101", "3d_resnets", model, peer, clip_of(t, size, size)))
    write("resnext3d", rows)


if __name__ == "__main__":
    main()
