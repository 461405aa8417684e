"""S3D's three forms against the networks that they are of, with the same random weights, in float64.

    python -m benchmarks.parity.s3d_parity --kylemin CHECKOUT --milnce CHECKOUT [--torchvision FOLDER] [--golden]

The checkouts are of kylemin/S3D and antoine77340/S3D_HowTo100M, and ``FOLDER`` is what `pip install --no-deps --target
FOLDER torchvision` makes. Of each its network is taken with random weights and statistics, which go into ours by the
names that ``ssan import`` knows for its files, every tensor or none; of MIL-NCE's network the text tower too. Compared
are the logits of a clip of a whole size and, where the network takes it, of another; kylemin's average goes over whole
pictures, so that of it 224 px are the most. Writes benchmarks/results/s3d_parity.json and ends with an error where a
logit differs by more than 1e-4 of the largest.

S3D-G with slim's stem was never released as torch code or weights: it has no peer here.

``--golden`` writes tests/golden/s3d.json.gz instead, the names and shapes of the peers' tensors.
"""

import argparse
import contextlib
import gzip
import importlib
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.parity.i3d_parity import module_of
from benchmarks.timing import RESULTS
from ssan.files import write_json
from ssan.models.catalogue import build
from ssan.retrieval.milnce import TextTower
from ssan.weights.layouts import fit

OUT = RESULTS / "s3d_parity.json"
GOLDEN = Path(__file__).parents[2] / "tests" / "golden" / "s3d.json.gz"
MOST = 1e-4
NUM_CLASSES, JOINT = 400, 512
WORDS = [f"word{i}" for i in range(66_249)]


class Peer(NamedTuple):
    """A network of another project, the name of ours, and what makes logits (b, k) of clips (b, 3, t, h, w).

    :param sizes: frames, height and width of the clips.
    """

    layout: str
    name: str
    network: nn.Module
    logits: Callable[[Tensor], Tensor]
    sizes: tuple[tuple[int, int, int], ...]


def kylemin(checkout: str) -> Peer:
    network = module_of(Path(checkout) / "model.py").S3D(NUM_CLASSES)
    return Peer("kylemin_s3d", "s3d", network, network, ((16, 64, 96), (19, 75, 81)))


def torchvision(folder: str) -> Peer:
    sys.path.insert(0, folder)
    library = torch.library.Library("torchvision", "FRAGMENT")
    for operator in ("nms", "qnms"):  # a wheel for CUDA beside a torch for the CPU misses them
        with contextlib.suppress(RuntimeError):
            library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    network = importlib.import_module("torchvision.models.video").s3d(num_classes=NUM_CLASSES)
    return Peer("torchvision", "s3d", network, network, ((16, 224, 224), (17, 231, 257)))


def milnce(checkout: str) -> Peer:
    with tempfile.TemporaryDirectory() as folder:
        np.save(f"{folder}/dict.npy", np.array(WORDS))
        network = module_of(Path(checkout) / "s3dg.py").S3D(f"{folder}/dict.npy", JOINT)
    return Peer(
        "milnce",
        "s3d_milnce",
        network,
        lambda x: network(x)["video_embedding"],
        ((8, 64, 96), (10, 76, 82), (26, 70, 100)),
    )


def randomised(network: nn.Module) -> nn.Module:
    """Statistics of BatchNorm too, so that features keep their size and none is left out."""
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.BatchNorm3d):
                module.weight.uniform_(0.8, 1.6)
                module.bias.uniform_(-0.2, 0.4)
                module.running_mean.uniform_(-0.2, 0.2)  # type: ignore[union-attr]
                module.running_var.uniform_(0.2, 0.6)  # type: ignore[union-attr]
    return network.double().eval()


@torch.inference_mode()
def compare(peer: Peer) -> list[dict[str, Any]]:
    state = randomised(peer.network).state_dict()
    ours = build(peer.name, JOINT if peer.layout == "milnce" else NUM_CLASSES).double().eval()
    found = fit(state, ours)
    assert found is not None
    assert (found.layout, found.num_wrong) == (peer.layout, 0), found
    ours.load_state_dict(found.tensors)
    rows = []
    for t, h, w in peer.sizes:
        clips = torch.rand(2, t, 3, h, w, dtype=torch.float64) * 2 - 1
        theirs, own = peer.logits(clips.transpose(1, 2)), ours(clips)
        rows.append(
            {
                "peer": peer.layout, "model": peer.name, "clip": [t, h, w], "largest_logit": float(theirs.abs().max()),
                "spread": float((theirs[0] - theirs[1]).abs().max()),
                "largest_difference": float((own - theirs).abs().max()),
            }
        )  # fmt: skip
    return rows


@torch.inference_mode()
def compare_text(peer: Peer) -> dict[str, Any]:
    tower = TextTower.of(peer.network.state_dict(), WORDS).double()
    captions = ["Word1 word2, word77", "no such thing", "", " ".join(WORDS[::500])]
    theirs = peer.network.text_module(captions)["text_embedding"]  # type: ignore[operator]
    own = tower(torch.from_numpy(tower.encode(captions)))
    return {
        "peer": peer.layout, "model": "the text tower", "captions": len(captions),
        "largest_logit": float(theirs.abs().max()), "largest_difference": float((own - theirs).abs().max()),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kylemin", required=True, metavar="CHECKOUT")
    parser.add_argument("--milnce", required=True, metavar="CHECKOUT")
    parser.add_argument("--torchvision", metavar="FOLDER")
    parser.add_argument("--golden", action="store_true", help="make the file that the tests keep")
    options = parser.parse_args()
    torch.manual_seed(0)
    peers = [kylemin(options.kylemin), milnce(options.milnce)]
    if options.torchvision:
        peers.append(torchvision(options.torchvision))
    if options.golden:
        kept = {
            peer.layout: {name: list(tensor.shape) for name, tensor in peer.network.state_dict().items()}
            for peer in peers
        }
        GOLDEN.write_bytes(gzip.compress(json.dumps(kept, separators=(",", ":")).encode(), mtime=0))
        return
    rows = [row for peer in peers for row in compare(peer)] + [compare_text(peers[1])]
    for row in rows:
        print(json.dumps(row))
    write_json(OUT, {"schema": 1, "torch": torch.__version__, "rows": rows})
    worst = max(row["largest_difference"] / row["largest_logit"] for row in rows)
    sys.exit(f"the largest difference is {worst:.1e} of the largest logit, more than {MOST}" if worst > MOST else 0)


if __name__ == "__main__":
    main()
