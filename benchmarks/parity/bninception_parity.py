"""BN-Inception against the network of TSM's code, without and with its shift, with the same weights, in float64.

    python -m benchmarks.parity.bninception_parity CHECKOUT

``CHECKOUT`` is a checkout of mit-han-lab/temporal-shift-module; nothing of it but the network is used, without its
ending, whose average takes 7 x 7 values alone. Random weights of ours are put into it by the names that ``ssan import``
knows, every tensor of it or none. Writes benchmarks/results/bninception_parity.json and ends with an error where a
score differs by more than 1e-4 of the largest.

``--golden`` writes tests/golden/bninception.json.gz instead: names and shapes of its tensors.
"""

import argparse
import contextlib
import io
import json
import sys
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks.parity.blvnet_parity import compare, finish, keep_golden, shapes
from benchmarks.parity.i3d_parity import module_of
from benchmarks.timing import RESULTS
from ssan.models.catalogue import build
from ssan.weights.layouts import LAYOUTS

OUT = RESULTS / "bninception_parity.json"
GOLDEN = Path(__file__).parents[2] / "tests" / "golden" / "bninception.json.gz"
NUM_CLASSES = 174


class Theirs(nn.Module):
    """The network of TSM's code under the names of its files: clips (b, t, 3, h, w), red first, to scores (b, k)."""

    def __init__(self, checkout: str, num_frames: int | None) -> None:
        super().__init__()
        network = module_of(Path(checkout) / "archs" / "bn_inception.py").BNInception()
        self.new_fc = nn.Linear(network.fc.in_features, NUM_CLASSES)
        network.fc = nn.Identity()  # dropout there, which does nothing in evaluation
        if num_frames is not None:
            with contextlib.redirect_stdout(io.StringIO()):
                network.build_temporal_ops(num_frames, is_temporal_shift="block", shift_div=8)
        self.base_model = network

    def forward(self, clips: Tensor) -> Tensor:
        frames = clips.flip(2).flatten(0, 1)
        features = self.base_model.features(frames).mean(dim=(-2, -1))
        return self.new_fc(features).unflatten(0, (len(clips), -1)).mean(dim=1)


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkout", metavar="CHECKOUT")
    parser.add_argument("--golden", action="store_true", help="make the file that the tests keep")
    options = parser.parse_args()
    sys.path.insert(0, options.checkout)  # its shift is imported by its own name
    if options.golden:
        keep_golden(GOLDEN, {"tsm": shapes(Theirs(options.checkout, None))})
        return
    rows = []
    for name in ("tsn_bninception", "tsm_bninception"):
        for num_frames, height, width in ((3, 224, 224), (4, 96, 160)):
            ours = build(name, NUM_CLASSES).double()
            generator = torch.Generator().manual_seed(1)
            clips = torch.randn(2, num_frames, 3, height, width, generator=generator, dtype=torch.float64)
            theirs = Theirs(options.checkout, num_frames if name.startswith("tsm") else None).double()
            row = {"model": name, "clip": list(clips.shape)}
            rows.append(row | compare(theirs, ours, LAYOUTS["tsm"], clips))
            print(json.dumps(rows[-1]), flush=True)
    finish(OUT, rows)


if __name__ == "__main__":
    main()
