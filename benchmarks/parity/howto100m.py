"""Losses and metrics of reference 22 and of MIL-NCE, run by their authors' own code, and ours on the same numbers.

    python -m benchmarks.parity.howto100m --howto100m CHECKOUT [--milnce CHECKOUT]

The checkouts are those of antoine77340/howto100m and antoine77340/MIL-NCE_HowTo100M; neither is a part of the package.
Their losses send what they make to a GPU: in this process ``Tensor.cuda`` gives back the tensor itself. Compared are
the loss and its slope, in float32, on random similarities (max-margin) or vectors (MIL-NCE), over the largest entry of
the authors' slope; then their recalls of random matrices without ties, and of two on which their metrics mislead.
Figures go to benchmarks/results/howto100m.json; a difference of more than 1e-6 ends with an error.
"""

import argparse
import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor

from benchmarks.timing import RESULTS
from ssan.errors import UsageError
from ssan.files import write_json
from ssan.retrieval.losses import max_margin, mil_nce
from ssan.retrieval.metrics import Positives, ranks, summary

MOST = 1e-6
# Videos in a batch, pairs a video, margin, share of the loss that is within videos.
MAX_MARGIN = [
    (32, 64, 0.1, 0.5), (32, 2, 0.1, 0.5), (7, 5, 0.1, 0.5), (2, 3, 0.2, 0.5), (13, 11, 1.0, 0.5), (13, 11, 0.1, 0.2),
    (64, 1, 0.1, 0.5), (256, 1, 0.2, 0.5),
]  # fmt: skip
# Videos in a batch, texts a video, length of the vectors.
MIL_NCE = [(32, 5, 512), (7, 3, 61), (128, 1, 256), (2, 11, 17)]
MATRICES = [(1000, 0.0), (1000, 3.0), (3350, 2.0), (13, 1.0)]


def module(folder: str, name: str) -> ModuleType:
    """One file of a checkout, by itself."""
    spec = importlib.util.spec_from_file_location(f"peer_{name}", Path(folder, f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


def differences(theirs: Callable[..., Tensor], ours: Callable[..., Tensor], *inputs: Tensor) -> dict[str, float]:
    """The loss by the authors' code, and how far ours is from it in value and in slope."""
    found = []
    for loss in (theirs, ours):
        own = [tensor.clone().requires_grad_() for tensor in inputs]
        value = loss(*own)
        value.backward()
        found.append((value.item(), [tensor.grad for tensor in own if tensor.grad is not None]))
    (their_value, their_slopes), (our_value, our_slopes) = found
    largest = max(slope.abs().max().item() for slope in their_slopes)
    apart = max((a - b).abs().max().item() for a, b in zip(their_slopes, our_slopes, strict=True))
    return {
        "value": their_value,
        "difference": abs(their_value - our_value),
        "relative_difference": abs(their_value - our_value) / abs(their_value),
        "slope_difference": apart,
        "relative_slope_difference": apart / largest,
    }


def max_margin_rows(folder: str) -> list[dict[str, Any]]:
    their_loss = module(folder, "loss").MaxMarginRankingLoss
    rows = []
    for seed, (num_videos, num_pairs, margin, rate) in enumerate(MAX_MARGIN):
        b = num_videos * num_pairs
        theirs = their_loss(
            margin=margin, negative_weighting=True, batch_size=num_videos, n_pair=num_pairs, hard_negative_rate=rate
        )
        generator = torch.Generator().manual_seed(seed)
        s_bb = 2 * torch.rand(b, b, generator=generator) - 1
        groups = torch.arange(num_videos).repeat_interleave(num_pairs)
        options = {"margin": margin, "hard_negative_rate": rate}

        def ours(s_bb: Tensor, groups: Tensor = groups, options: dict[str, float] = options) -> Tensor:
            return max_margin(s_bb, torch.eye(len(s_bb)), groups, **options)  # type: ignore[arg-type]

        case = {"num_videos": num_videos, "num_pairs": num_pairs, **options}
        rows.append({"loss": "max_margin", **case, **differences(theirs, ours, s_bb)})
    return rows


def mil_nce_rows(folder: str) -> list[dict[str, Any]]:
    theirs = module(folder, "loss").MILNCELoss()
    rows = []
    for seed, (num_videos, num_texts, d) in enumerate(MIL_NCE):
        generator = torch.Generator().manual_seed(seed)
        video_vd = torch.randn(num_videos, d, generator=generator) / d**0.5
        text_bd = torch.randn(num_videos * num_texts, d, generator=generator)
        groups = torch.arange(num_videos).repeat_interleave(num_texts)

        def ours(video_vd: Tensor, text_bd: Tensor, groups: Tensor = groups) -> Tensor:
            return mil_nce(text_bd, video_vd[groups], groups, temperature=1.0)

        case = {"num_videos": num_videos, "num_texts": num_texts, "d": d}
        rows.append({"loss": "mil_nce", **case, **differences(theirs, ours, video_vd, text_bd)})
    return rows


def our_recalls(scores: np.ndarray) -> dict[str, float] | str:
    """Our figures under their names, or what is said instead."""
    n = len(scores)
    try:
        found = summary(ranks(scores, Positives.from_pairs(range(n), range(n), n, n)).text_to_video.ranks, bootstrap=0)
    except UsageError as error:
        return error.message
    names = {"R1": "r1", "R5": "r5", "R10": "r10", "MR": "median_rank"}
    return {theirs: found[ours] for theirs, ours in names.items()}


def metric_rows(folder: str) -> list[dict[str, Any]]:
    theirs = module(folder, "metrics").compute_metrics
    rows = []
    for seed, (n, lift) in enumerate(MATRICES):
        rng = np.random.default_rng(seed)
        scores = rng.permutation(n * n).reshape(n, n) / n**2  # no two are equal
        scores[np.arange(n), np.arange(n)] += lift / 4 + 0.25 / n**2
        found = {name: float(value) for name, value in theirs(scores).items()}
        ours = our_recalls(scores)
        rows.append(
            {"matrix": f"{n} x {n}, no two scores equal", "theirs": found, "ours": ours, "equal": found == ours}
        )
    for name, scores in traps().items():
        found = {key: float(value) for key, value in theirs(scores).items()}
        ours = our_recalls(scores)
        rows.append({"matrix": name, "theirs": found, "ours": ours, "equal": found == ours})
    return rows


def traps() -> dict[str, np.ndarray]:
    """Ten queries of which five are right: of the other five the scores are NaN, or all level."""
    right = np.eye(10)
    nan, level = right.copy(), right.copy()
    nan[5:], level[5:] = np.nan, 0.5
    return {"10 x 10, five rows right, five NaN": nan, "10 x 10, five rows right, five level": level}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--howto100m", required=True, help="a checkout of antoine77340/howto100m")
    parser.add_argument("--milnce", help="a checkout of antoine77340/MIL-NCE_HowTo100M")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with mock.patch.object(torch.Tensor, "cuda", lambda tensor, *_, **__: tensor):
        losses = max_margin_rows(options.howto100m)
        if options.milnce:
            losses += mil_nce_rows(options.milnce)
    metrics = metric_rows(options.howto100m)
    for row in losses + metrics:
        print(json.dumps(row), flush=True)
    write_json(
        RESULTS / "howto100m.json",
        {"schema": 1, "torch": torch.__version__, "precision": "float32", "losses": losses, "metrics": metrics},
    )
    kinds = ("relative_difference", "slope_difference")
    worst = max(row[kind] for row in losses for kind in kinds)
    unlike = [row["matrix"] for row in metrics if "no two" in row["matrix"] and not row["equal"]]
    if worst > MOST or unlike:
        sys.exit(f"the largest difference is {worst:.1e}, limit {MOST}; other metrics on {unlike or 'no matrix'}")


if __name__ == "__main__":
    main()
