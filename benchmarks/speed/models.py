"""Our networks against those of TSM's own code, torchvision and transformers: time, parameters, multiply-adds.

    OMP_NUM_THREADS=1 python -m benchmarks.speed.models --tsm CHECKOUT

CHECKOUT is a clone of github.com/mit-han-lab/temporal-shift-module, which needs torchvision. The peers are no
dependency of ours: run this in an environment of its own that also has torchvision and transformers; what is not there
is passed over and said. Torchvision's wheel for CUDA imports beside a torch for the CPU, because the two operators that
it misses are declared first.

One clip of random pixels at 224 px, random weights, 174 classes, one thread; as many frames as the network was made
for, which is 8 where it takes any number. A training step is forward, cross entropy, backward and SGD with momentum.
Ours have channels-last memory, as in our training; each peer the memory that its own code gives it, and TSM's code
also channels last. The figure is processor time over that of ``tsn_r50`` in the same round; all take turns.

Three rounds after one that is not timed, fewer where ten minutes (``--minutes``) would not do. Writes
benchmarks/results/models.json.
"""

import argparse
import contextlib
import importlib
import io
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.timing import RESULTS, interleaved, ratio, store, summary
from ssan.models.catalogue import MODELS, build, channels_last
from ssan.models.cost import multiply_adds, num_parameters

OUT = RESULTS / "models.json"
BASE = "tsn_r50"
# Of ours, those that the catalogue has.
OURS = [
    "tsn_r50", "tsm_r50", "ssan_r50", "trn_r50", "nl1d_r50", "nl2d_r50", "nl2d1d_r50", "nl3d_r50", "a2_r50",
    "blvnet_r50", "ssan3d_r50", "i3d", "nl_i3d_r50", "s3d", "s3dg", "c3d",
]  # fmt: skip
NUM_CLASSES, SIZE_PX = 174, 224


class Peer(nn.Module):
    """A network of another project behind our layout: clips (b, t, 3, h, w) to logits (b, k)."""

    def __init__(self, network: nn.Module, arrange: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.network = network
        self.arrange = arrange

    def forward(self, clips: Tensor) -> Tensor:
        answer = self.network(self.arrange(clips))
        return getattr(answer, "logits", answer)

    def train(self, mode: bool = True) -> "Peer":
        self.training = mode
        self.network.train(mode)  # by hand: TSM's own train() returns nothing
        return self


@dataclass(frozen=True)
class Entry:
    """A network to measure: its name in the table, whose code, how to make it, its frames and memory format."""

    name: str
    code: str
    make: Callable[[], nn.Module]
    num_frames: int = 8
    channels_last: bool = False


def ours() -> list[Entry]:
    return [
        Entry(name, "ssan", partial(build, name, NUM_CLASSES), MODELS[name].num_frames, channels_last=True)
        for name in OURS
        if name in MODELS
    ]


def tsm(checkout: str) -> list[Entry]:
    """TSM on ResNet-50 from its authors' code, with their settings for Something-Something."""
    sys.path.insert(0, checkout)
    network = importlib.import_module("ops.models").TSN

    def make() -> nn.Module:
        with contextlib.redirect_stdout(io.StringIO()):  # it reports every block
            made = network(
                NUM_CLASSES, 8, "RGB", base_model="resnet50", consensus_type="avg", dropout=0.5, img_feature_dim=256,
                partial_bn=False, pretrain=None, is_shift=True, shift_div=8, shift_place="blockres", print_spec=False,
            )  # fmt: skip
        return Peer(made, lambda clips: clips.flatten(1, 2))

    name = "TSM, ResNet-50"
    return [Entry(name, "its own", make), Entry(f"{name}, channels last", "its own", make, channels_last=True)]


def torchvision() -> list[Entry]:
    library = torch.library.Library("torchvision", "FRAGMENT")
    for operator in ("nms", "qnms"):
        with contextlib.suppress(RuntimeError):  # it is there already, from a wheel that fits
            library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    networks = importlib.import_module("torchvision.models.video")

    def make(name: str) -> nn.Module:
        return Peer(getattr(networks, name)(weights=None, num_classes=NUM_CLASSES), lambda clips: clips.transpose(1, 2))

    # S3D halves time four times and pools 2 of it at the end; MViT's positions are those of 16 frames.
    kinds = [
        ("S3D", "s3d", 16), ("R3D-18", "r3d_18", 8), ("R(2+1)D-18", "r2plus1d_18", 8), ("MViTv2-S", "mvit_v2_s", 16),
        ("Swin3D-T", "swin3d_t", 8),
    ]  # fmt: skip
    return [Entry(title, "torchvision", partial(make, name), number) for title, name, number in kinds]


def transformers() -> list[Entry]:
    library = importlib.import_module("transformers")

    def make(name: str) -> nn.Module:
        config = getattr(library, f"{name}Config")(num_labels=NUM_CLASSES)
        return Peer(getattr(library, f"{name}ForVideoClassification")(config), lambda clips: clips)

    kinds = [("VideoMAE-B", "VideoMAE", 16), ("TimeSformer-B", "Timesformer", 8)]
    return [Entry(title, "transformers", partial(make, name), number) for title, name, number in kinds]


def entries(checkout: str | None) -> list[Entry]:
    """Ours and the peers that can be had here, torchvision's first: TSM's code imports it."""
    found = ours()
    sources: list[tuple[str, Callable[[], list[Entry]]]] = [("torchvision", torchvision)]
    if checkout:
        sources.append((f"TSM's code in {checkout}", partial(tsm, checkout)))
    sources.append(("transformers", transformers))
    for what, source in sources:
        try:
            found += source()
        except ImportError as error:
            print(f"passed over: {what}: {error}", file=sys.stderr)
    return found


def make_calls(entry: Entry, model: nn.Module) -> dict[str, Callable[[], None]]:
    """A training step and an inference of one clip, on the same model."""
    clips = torch.randn(1, entry.num_frames, 3, SIZE_PX, SIZE_PX)
    if entry.channels_last:
        channels_last(model)
        clips = clips.flatten(0, 1).contiguous(memory_format=torch.channels_last).unflatten(0, clips.shape[:2])
    labels = torch.randint(NUM_CLASSES, (1,))
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9, nesterov=True, weight_decay=5e-4)

    def train() -> None:
        model.train()
        optimizer.zero_grad(set_to_none=True)
        F.cross_entropy(model(clips), labels).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)  # a dozen networks are held at once, without their gradients

    def infer() -> None:
        model.eval()
        with torch.inference_mode():
            model(clips)

    return {"train": train, "infer": infer}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tsm", metavar="CHECKOUT", help="a clone of TSM's repository")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=10.0, help="no further round that would end later than this")
    parser.add_argument("--only", nargs="*", help="parts of names; the base is measured in any case")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    chosen = [
        entry
        for entry in entries(arguments.tsm)
        if entry.name == BASE or not arguments.only or any(part in entry.name for part in arguments.only)
    ]
    calls: dict[str, Callable[[], None]] = {}
    about: dict[str, dict[str, Any]] = {}
    for entry in chosen:
        model = entry.make()
        about[entry.name] = {
            "name": entry.name,
            "code": entry.code,
            "num_frames": entry.num_frames,
            "channels_last": entry.channels_last,
            "params": num_parameters(model),
            "macs": multiply_adds(model, entry.num_frames, SIZE_PX),
        }
        print(json.dumps(about[entry.name]), file=sys.stderr, flush=True)
        for work, call in make_calls(entry, model).items():
            calls[f"{work} {entry.name}"] = call
    seconds = interleaved(calls, arguments.rounds, most_seconds=60 * arguments.minutes)
    rows = []
    for name, row in about.items():
        for work in ("train", "infer"):
            values = seconds[f"{work} {name}"]
            row[work] = {**ratio(seconds, f"{work} {name}", f"{work} {BASE}"), **summary(values)}
        rows.append(row)
        print(json.dumps(row), flush=True)
    rounds = len(next(iter(seconds.values())))
    store(OUT, "cpu", {"base": BASE, "rounds": rounds, "batch": 1, "size_px": SIZE_PX}, rows)


if __name__ == "__main__":
    main()
