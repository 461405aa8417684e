"""bLVNet-TAM against its authors' own network, with the same random weights, in float64.

    python -m benchmarks.parity.blvnet_parity CHECKOUT

``CHECKOUT`` is a checkout of IBM/bLVNet-TAM; nothing of it but the network is used. Random weights and statistics of
ours are put into it by the names that ``ssan import`` knows for its files, every tensor of it or none, and the features
and scores of random clips of both are compared. Writes benchmarks/results/blvnet_parity.json and ends with an error
where one differs by more than 1e-4 of the largest.

``--golden`` writes tests/golden/blvnet.json.gz instead: names and shapes of the tensors of the authors' own networks.
"""

import argparse
import gzip
import json
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.parity.i3d_parity import MOST, module_of
from benchmarks.timing import RESULTS
from ssan.files import write_json
from ssan.models.catalogue import build
from ssan.models.classifier import Classifier
from ssan.weights.layouts import LAYOUTS, names_in

OUT = RESULTS / "blvnet_parity.json"
GOLDEN = Path(__file__).parents[2] / "tests" / "golden" / "blvnet.json.gz"
LAYOUT = LAYOUTS["blvnet_tam"]
DEPTHS = {"blvnet_r50": 50, "blvnet_r101": 101}
NUM_CLASSES = 174


class Theirs(nn.Module):
    """The authors' network for a number of frames: normalised clips (b, t, 3, h, w) to scores (b, k)."""

    def __init__(self, checkout: str, depth: int, num_frames: int, num_classes: int = NUM_CLASSES) -> None:
        super().__init__()
        backbone = module_of(Path(checkout) / "core" / "models" / "blvnet_tam_backbone.py")
        network = backbone.blvnet_tam_backbone(depth, 2, 4, num_frames, imagenet_blnet_pretrained=False)
        self.new_fc = nn.Linear(network.fc.in_features, num_classes)
        network.fc = nn.Identity()  # dropout there, which does nothing in evaluation
        self.baseline_model = network

    def forward(self, clips: Tensor) -> Tensor:
        return self.new_fc(self.baseline_model(clips.flatten(0, 1))).unflatten(0, (len(clips), -1)).mean(dim=1)


def randomise(network: nn.Module) -> None:
    """Every weight and statistic random, of sizes that keep what passes through of one size."""
    generator = torch.Generator().manual_seed(0)
    for name, tensor in network.state_dict().items():
        if not tensor.is_floating_point():
            continue
        if name.endswith("running_var"):
            tensor.uniform_(0.5, 1.5, generator=generator)
        elif tensor.dim() == 1:
            tensor.uniform_(-0.2, 0.2, generator=generator)
            if name.endswith("weight"):
                tensor.add_(0.8)
        else:
            tensor.normal_(std=(2 / tensor[0].numel()) ** 0.5, generator=generator)


def compare(theirs: nn.Module, ours: Classifier, layout: Any, clips: Tensor) -> dict[str, float]:
    """The largest score of ours, random everywhere, and by how much those of the other network with its weights differ.

    :raises RuntimeError: a tensor of either network has no counterpart in the other.
    """
    randomise(ours)
    names = names_in(layout, ours, layout.classifiers[0])
    assert names is not None
    theirs.load_state_dict({names[key]: tensor for key, tensor in ours.state_dict().items()})
    expected, scores = theirs.eval()(clips), ours.eval()(clips)
    return {"largest_score": float(scores.abs().max()), "largest_difference": float((expected - scores).abs().max())}


def shapes(network: nn.Module) -> dict[str, list[int]]:
    return {name: list(tensor.shape) for name, tensor in network.state_dict().items()}


def keep_golden(path: Path, content: dict[str, dict[str, list[int]]]) -> None:
    path.write_bytes(gzip.compress(json.dumps(content, separators=(",", ":")).encode(), mtime=0))


def finish(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write the results, and end: with an error where the scores of a row differ by too much."""
    write_json(path, {"schema": 1, "torch": torch.__version__, "rows": rows})
    worst = max(row["largest_difference"] / row["largest_score"] for row in rows)
    sys.exit(f"the largest difference is {worst:.1e} of the largest score, more than {MOST}" if worst > MOST else 0)


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkout", metavar="CHECKOUT")
    parser.add_argument("--golden", action="store_true", help="make the file that the tests keep")
    options = parser.parse_args()
    if options.golden:
        keep_golden(GOLDEN, {name: shapes(Theirs(options.checkout, depth, 16)) for name, depth in DEPTHS.items()})
        return
    rows = []
    for name, depth in DEPTHS.items():
        for num_frames, height, width in ((8, 112, 112), (4, 72, 100)):
            ours = build(name, NUM_CLASSES).double()
            generator = torch.Generator().manual_seed(1)
            clips = torch.randn(2, num_frames, 3, height, width, generator=generator, dtype=torch.float64)
            row = {"model": name, "clip": list(clips.shape)}
            theirs = Theirs(options.checkout, depth, num_frames).double()
            rows.append(row | compare(theirs, ours, LAYOUT, clips))
            print(json.dumps(rows[-1]), flush=True)
    finish(OUT, rows)


if __name__ == "__main__":
    main()
