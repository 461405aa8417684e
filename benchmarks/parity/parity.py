"""Imported weights against the networks they come from: the same clip, the peer's logits and ours.

    python -m benchmarks.parity.parity --peers-python ENV/bin/python --tsm CHECKOUT --mmaction2 CHECKOUT [CASE ...]

``ENV`` is an environment of its own with torch, the torchvision that matches it, mmcv-lite 2.1, mmengine and
importlib_metadata; the checkouts are those of mit-han-lab/temporal-shift-module and open-mmlab/mmaction2. For each case
of benchmarks/parity/parity_peers.py that environment builds the peer's own network with random weights and statistics,
saves a checkpoint as the peer does, and its logits of a random clip (8 frames of 224 px, or 3, 174 classes, float32, or
float64 where that is too coarse). Here ``ssan import`` makes a model file of it, which is loaded as ``ssan predict``
loads it, and its logits are compared. Networks that have no counterpart here must be refused. The figures go to
benchmarks/results/parity.json; with cases named, theirs alone are made anew.

mmaction2's relation head (TRN) draws relations at each forward; of more than 3 frames its scores therefore differ from
time to time. Ours are compared with their mean over draws, and, given the relations of one draw, with that draw's.

``--golden`` makes tests/golden/released.json.gz instead: names, shapes and float64 outputs of small cases.
"""

import argparse
import copy
import gzip
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from benchmarks.timing import RESULTS
from ssan.errors import ModelError
from ssan.files import read_json, write_json
from ssan.models.classifier import Classifier
from ssan.weights.classifier_file import load_labeller
from ssan.weights.imported import import_weights

HERE = Path(__file__).parent
OUT = RESULTS / "parity.json"
GOLDEN = HERE.parents[1] / "tests" / "golden" / "released.json.gz"
# What each of the peers' networks is here; None: it has a part that cannot be imported, and is refused.
AS: dict[str, str | None] = {
    "torchvision-resnet18": "tsn_r18",
    "torchvision-resnet50": "tsn_r50",
    "torchvision-mobilenet_v2": "tsn_mobilenet_v2",
    "tsm-tsn-resnet50": "tsn_r50",
    "tsm-tsm-resnet18": "tsm_r18",
    "tsm-tsm-resnet18-without-dropout": "tsm_r18",
    "tsm-tsm-resnet50": "tsm_r50",
    "tsm-tsm-resnet101": "tsm_r101",
    "tsm-tsn-mobilenetv2": "tsn_mobilenet_v2",
    "tsm-tsm-mobilenetv2": "tsm_mobilenet_v2",
    "tsm-tsn_nl-resnet50": "tsn_nl_r50",
    "tsm-tsm_nl-resnet50": "tsm_nl_r50",
    "mmaction2-tsn-resnet18": "tsn_r18",
    "mmaction2-tsn-resnet50": "tsn_r50",
    "mmaction2-tsm-resnet18": "tsm_r18",
    "mmaction2-tsm-resnet50": "tsm_r50",
    "mmaction2-tsm-resnet101": "tsm_r101",
    "mmaction2-tsn-mobilenet_v2": "tsn_mobilenet_v2",
    "mmaction2-tsm-mobilenet_v2": "tsm_mobilenet_v2",
    "mmaction2-tsm_nl-resnet50": "tsm_nl_r50",
    "mmaction2-tsm_nl_gaussian-resnet50": "tsm_nl_r50",
    "mmaction2-tsm_nl_dot_product-resnet50": "tsm_nl_r50",
    "mmaction2-tsm_nl_concatenation-resnet50": None,
    "mmaction2-trn-resnet18": "trn_r18",
    "mmaction2-trn-resnet50": "trn_r50",
    "mmaction2-trn_of_one_scale-resnet50": None,
}
# Of these the tests keep names, shapes and outputs; of all other networks of TSM's and mmaction2's, names and shapes.
KEPT_OUTPUTS = (
    "tsm-tsm-resnet18", "tsm-tsn-mobilenetv2", "tsm-tsm-mobilenetv2",
    "mmaction2-tsn-resnet18", "mmaction2-tsm-resnet18", "mmaction2-tsn-mobilenet_v2", "mmaction2-tsm-mobilenet_v2",
    "tsm-tsm_nl-resnet50", "mmaction2-tsm_nl_dot_product-resnet50", "mmaction2-trn-resnet18",
)  # fmt: skip


def make(case: str, folder: str, options: argparse.Namespace, *more: str) -> dict[str, Any]:
    """Let the peers' environment make a case; what it saved beside the checkpoint."""
    command = [options.peers_python, str(HERE / "parity_peers.py"), case, folder, *more]
    for name in ("tsm", "mmaction2"):
        if (checkout := getattr(options, name)) is not None:
            command += [f"--{name}", checkout]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    if run.returncode != 0:
        sys.exit(f"{case}: {run.stderr[-2000:]}")
    return torch.load(Path(folder, f"{case}.pt"), weights_only=True)


def compare(case: str, name: str | None, options: argparse.Namespace) -> dict[str, Any]:
    """One row of the results."""
    with tempfile.TemporaryDirectory() as folder:
        theirs = make(case, folder, options)
        file, out = f"{folder}/{case}.pth.tar", f"{folder}/model.safetensors"
        if name is None:
            try:
                import_weights(file, "tsm_r50", out)
            except ModelError as error:
                return {"case": case, "refused": error.message}
            sys.exit(f"{case} was imported, and should have been refused")
        released = import_weights(file, name, out)
        model = load_labeller(out).model.to(theirs["clip"].dtype)
        with torch.inference_mode():
            ours = model(theirs["clip"])
            row = {
                "case": case,
                "as": name,
                "layout": released.layout,
                "matched": released.matched,
                "largest_logit": theirs["logits"].abs().max().item(),
                "largest_difference": _furthest(ours, theirs["logits"]),
            }
            if ours.dtype != torch.float32:
                row["precision"] = str(ours.dtype).removeprefix("torch.")
            if (draw := theirs.get("one_draw")) is not None:
                given = given_relations(model, theirs["clip"], draw["relations"])
                row["largest_difference_given_one_draw"] = _furthest(given, draw["logits"])
                row["from_one_draw_to_their_mean"] = _furthest(theirs["logits"], draw["logits"])
    return row


def _furthest(one: Tensor, other: Tensor) -> float:
    return (one - other).abs().max().item()


def given_relations(model: Classifier, clip: Tensor, drawn: list[list[int]]) -> Tensor:
    """Our scores, with the relations that the peer drew in the place of those that training would draw.

    :param drawn: numbers of relations, of the larger scales first; the largest has one alone, which is not drawn.
    """
    ours = (torch.tensor(numbers) for numbers in [*reversed(drawn), [0]])
    consensus = copy.deepcopy(model.consensus).train()
    with mock.patch.object(torch, "randperm", side_effect=ours):
        return consensus(model.frame_scores(clip))


def golden(options: argparse.Namespace) -> None:
    """Names and shapes in the peers' order, and outputs to 12 digits, of the small cases."""
    kept: dict[str, dict[str, Any]] = json.loads(gzip.decompress(GOLDEN.read_bytes())) if options.cases else {}
    with tempfile.TemporaryDirectory() as folder:
        for case in options.cases or AS:
            name = AS[case]
            if case.startswith("torchvision"):
                continue  # these have golden files of their own
            theirs = make(case, folder, options, "--small")
            kept[case] = {"as": name, "shapes": theirs["shapes"]}
            if case in KEPT_OUTPUTS:
                kept[case]["logits"] = [float(f"{value:.12g}") for value in theirs["logits"][0].tolist()]
    kept = {case: kept[case] for case in AS if case in kept}
    GOLDEN.write_bytes(gzip.compress(json.dumps(kept, separators=(",", ":")).encode(), mtime=0))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"{', '.join(AS)}; all of them if none is named")
    parser.add_argument("--peers-python", required=True)
    parser.add_argument("--tsm", help="a checkout of mit-han-lab/temporal-shift-module")
    parser.add_argument("--mmaction2", help="a checkout of open-mmlab/mmaction2")
    parser.add_argument("--golden", action="store_true", help="make the file that the tests keep")
    options = parser.parse_args()
    if unknown := set(options.cases) - set(AS):
        parser.error(f"unknown case {min(unknown)}; known: {', '.join(AS)}")
    if options.golden:
        golden(options)
        return
    known = {row["case"]: row for row in read_json(OUT)["rows"]} if options.cases else {}
    for case in options.cases or AS:
        known[case] = compare(case, AS[case], options)
        print(json.dumps(known[case]), flush=True)
        rows = [known[case] for case in AS if case in known]
        clip = "8 frames (of mmaction2-trn-resnet18 3) of 224 px, float32 unless a row says otherwise"
        write_json(OUT, {"torch": torch.__version__, "clip": clip, "rows": rows})
    kinds = ("largest_difference", "largest_difference_given_one_draw")
    worst = max(row.get(kind, 0) for row in rows for kind in kinds)
    sys.exit(f"the largest difference is {worst:.1e}, more than 1e-4" if worst > 1e-4 else 0)


if __name__ == "__main__":
    main()
