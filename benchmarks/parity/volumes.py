"""What the parity scripts of networks over time and space share: random weights, the peer's names, the comparison.

A peer is a module of another toolkit that maps normalised clips (b, 3, t, h, w) to logits (b, k). It gets our random
weights by the names that a layout has for them, every tensor of it or none, so that names and numbers are both tried.
"""

import gzip
import importlib.util
import json
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.timing import RESULTS
from ssan.files import write_json
from ssan.models.catalogue import build
from ssan.models.classifier import Classifier
from ssan.weights.layouts import LAYOUTS, fit, names_in

GOLDEN = Path(__file__).parents[2] / "tests" / "golden"
MOST = 1e-4
"""Of the largest logit, the largest difference that is let through."""


def random_model(name: str, num_classes: int = 11, **options: Any) -> Classifier:
    """A named network in float64, every weight and statistic of it random, in evaluation."""
    generator = torch.Generator().manual_seed(0)
    model = build(name, num_classes, backbone_options=options).double().eval()
    with torch.no_grad():
        for key, tensor in model.state_dict().items():
            if not tensor.is_floating_point():
                continue
            if tensor.dim() > 1:
                tensor.normal_(generator=generator).mul_(math.sqrt(2 / tensor[0].numel()))
            elif key.endswith("running_var"):
                tensor.uniform_(0.5, 1.5, generator=generator)
            else:
                tensor.uniform_(-0.2, 0.2, generator=generator).add_(0.8 if key.endswith("weight") else 0.0)
    return model


def module_of(file: str | Path, name: str | None = None) -> Any:
    """A Python file of a checkout, imported by itself."""
    spec = importlib.util.spec_from_file_location(name or Path(file).stem, file)
    if spec is None or spec.loader is None or not Path(file).is_file():
        raise SystemExit(f"no {file}")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def by_their_names(layout: str, model: Classifier, shapes: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our tensors by a layout's names, in the peer's shapes: a 1x1x1 convolution of theirs may be a linear map here."""
    names = names_in(LAYOUTS[layout], model, LAYOUTS[layout].classifiers[0])
    assert names is not None
    own = model.state_dict()
    return {theirs: own[key].reshape(shapes[theirs].shape) for key, theirs in names.items() if key in own}


def compare(network: str, layout: str, model: Classifier, peer: nn.Module, clip: Tensor) -> dict[str, Any]:
    """Logits of ours and of the peer with the same weights, for a normalised clip (b, t, 3, h, w) in float64.

    The peer gets our numbers, and keeps its own random ones in biases that ours does without; then ours is imported
    from it, as from a file.
    """
    peer = peer.double().eval()
    given = by_their_names(layout, model, peer.state_dict())
    rest = peer.load_state_dict(given, strict=False)
    assert not rest.unexpected_keys, rest.unexpected_keys
    found = fit(peer.state_dict(), model)
    assert found is not None
    assert (found.layout, found.num_wrong) == (layout, 0), found
    assert set(rest.missing_keys) == {*found.folded, *found.dropped}
    model.load_state_dict(found.tensors)
    with torch.inference_mode():
        ours, theirs = model(clip), peer(clip.transpose(1, 2))
    gap = float((ours - theirs).abs().max() / theirs.abs().max())
    row = {"model": network, "layout": layout, "clip": list(clip.shape), "tensors": len(given)}
    row["largest_difference"] = gap
    print(json.dumps(row), flush=True)
    return row


def clip_of(t: int, h: int, w: int, b: int = 1) -> Tensor:
    return torch.randn(b, t, 3, h, w, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def write(name: str, rows: list[dict[str, Any]]) -> None:
    """Write benchmarks/results/NAME_parity.json, and end with an error where a difference is too large."""
    write_json(RESULTS / f"{name}_parity.json", {"schema": 1, "torch": torch.__version__, "rows": rows})
    worst = max(row["largest_difference"] for row in rows)
    sys.exit(f"the largest difference is {worst:.1e} of the largest logit, more than {MOST}" if worst > MOST else 0)


def write_golden(name: str, peers: Mapping[str, nn.Module]) -> None:
    """Keep names and shapes of the peers' tensors for tests/weights/test_volume_files.py."""
    kept = {
        layout: {key: list(tensor.shape) for key, tensor in peer.state_dict().items()} for layout, peer in peers.items()
    }
    (GOLDEN / f"{name}.json.gz").write_bytes(gzip.compress(json.dumps(kept, separators=(",", ":")).encode(), mtime=0))
