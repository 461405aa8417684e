"""Parameters and multiply-adds of the networks beside published figures, and what an ImageNet file leaves missing.

    python -m benchmarks.pages.cost

Counts on shapes alone, in seconds, and writes benchmarks/results/cost.json, docs/cost.md, and for every named model
src/ssan/models/counted.json, which `ssan models` reads: run it whenever a model is added or changed.
"""

import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import torch

from ssan.files import read_json, write_json, writing
from ssan.models.catalogue import MODELS, build
from ssan.models.cost import COUNTED, NUM_CLASSES, multiply_adds, num_parameters
from ssan.models.cost import count as count_named
from ssan.weights.state_dict import load_backbone

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results" / "cost.json"
PAGE = ROOT / "docs" / "cost.md"
LISTS = "mmaction2's model lists"
RELEASED = "the released code, counted layer by layer"
PORT = "a port, counted layer by layer"
LITE = "TensorFlow's EfficientNet-Lite"
TSMS = "TSM's code, counted layer by layer"
BLVNET = "its authors' code, counted layer by layer"


class Row(NamedTuple):
    """A network, what to count it for, and what is published: millions of parameters, billions of multiply-adds."""

    title: str
    model: str
    params: float | None = None
    macs: float | None = None
    source: str = ""
    num_frames: int = 8
    size_px: int = 224
    num_classes: int = NUM_CLASSES
    options: Mapping[str, Any] = MappingProxyType({})


ROWS = [
    Row("TSN, ResNet-50", "tsn_r50", 23.9, 32.7, "ResNet-50 alone"),
    Row("TSN, ResNet-50", "tsn_r50", 24.33, 102.7, LISTS, num_frames=25, num_classes=400),
    Row("TSN, ResNet-101", "tsn_r101", 43.32, 195.8, LISTS, num_frames=25, num_classes=400),
    Row("TSN, MobileNetV2", "tsn_mobilenet_v2"),
    Row("TSM, ResNet-50", "tsm_r50", 23.87, 32.88, LISTS),
    Row("TSM, ResNet-50", "tsm_r50", 23.87, 65.75, LISTS, num_frames=16),
    Row("TSM, ResNet-101", "tsm_r101", 42.86, 62.66, LISTS),
    Row("TSM, MobileNetV2", "tsm_mobilenet_v2", 2.736, 3.269, LISTS, num_classes=400),
    Row("TSM, MobileNetV2", "tsm_mobilenet_v2", 2.736, 3.269, f"{LISTS}, if at 256", size_px=256, num_classes=400),
    Row("TSM with non-local blocks, ResNet-50", "tsm_nl_r50", 31.68, 61.30, LISTS, num_classes=400),
    Row("TRN, ResNet-50", "trn_r50", 26.64, 42.94, LISTS, size_px=256),
    Row("Non-local 1-D, ResNet-50", "nl1d_r50"),
    Row("Non-local 2-D, ResNet-50", "nl2d_r50"),
    Row("Non-local 2-D then 1-D, ResNet-50", "nl2d1d_r50"),
    Row("Non-local 3-D, ResNet-50", "nl3d_r50"),
    Row("A2, ResNet-50", "a2_r50"),
    Row("SSAN, ResNet-50", "ssan_r50", 24.6, 76.0, "estimate, see below"),
    Row("SSAN, ResNet-50, stride in the 1x1", "ssan_r50", 24.6, 76.0, "the same", options={"stride_in": "conv1"}),
    Row("SSAN, ResNet-101", "ssan_r101"),
    Row("SSAN, MobileNetV2", "ssan_mobilenet_v2"),
    Row("EfficientNet-Lite0, one picture", "tsn_efficientnet_lite0", 4.7, 0.407, LITE, num_frames=1, num_classes=1000),
    Row("TSN, EfficientNet-Lite0", "tsn_efficientnet_lite0"),
    Row("SSAN, EfficientNet-Lite0", "ssan_efficientnet_lite0"),
    Row("BN-Inception, one picture", "tsn_bninception", 11.30, 2.03, TSMS, num_frames=1, num_classes=1000),
    Row("TSN, BN-Inception", "tsn_bninception"),
    Row("TRN, BN-Inception", "trn_bninception"),
    Row("S3D", "s3d", 8.320048, 71.92, "torchvision, counted layer by layer", num_frames=64, num_classes=400),
    Row("S3D-G", "s3dg", num_frames=64, num_classes=400),
    Row("MIL-NCE's S3D-G", "s3d_milnce", 9.67, 37.1, "its code, counted likewise", num_frames=32, num_classes=512),
    Row("MIL-NCE's S3D-G", "s3d_milnce", 9.67, 73.6, "its code, counted likewise", num_frames=64, num_classes=512),
    Row("bLVNet-TAM 8x2, bLResNet-50", "blvnet_r50", 25.02, 23.85, BLVNET, num_frames=16),
    Row("bLVNet-TAM 16x2, bLResNet-50", "blvnet_r50", 25.02, 47.70, BLVNET, num_frames=32),
    Row("bLVNet-TAM 8x2, bLResNet-101", "blvnet_r101", 40.18, 32.15, BLVNET, num_frames=16),
    Row("bLVNet-TAM 16x2, bLResNet-101", "blvnet_r101", 40.18, 64.30, BLVNET, num_frames=32),
    Row("I3D", "i3d", 12.70, 111.15, PORT, num_frames=64, num_classes=400),
    *(
        Row(f"3-D ResNet-{depth}", f"r3d_r{depth}", *published, num_frames=16, size_px=112, num_classes=400)
        for depth, published in ((18, (33.371472, 40.697, "torchvision")), (34, ()), (50, ()))
    ),
    Row(
        "3-D ResNet-18, stride 2 over frames in its stem",
        "r3d_r18",
        num_frames=16,
        size_px=112,
        num_classes=400,
        options={"time_stride": 2},
    ),
    Row("3-D ResNeXt-101", "resnext3d_101", 48.34, 9.57, RELEASED, num_frames=16, size_px=112, num_classes=400),
    Row("C3D", "c3d", 78.4, 38.5, LISTS, num_frames=16, size_px=112, num_classes=101),
    Row(
        "I3D, ResNet-50",
        "nl_i3d_r50",
        28.04,
        32.83,
        PORT,
        num_frames=32,
        num_classes=400,
        options={"time_stride": 2, "non_local": False},
    ),
    Row(
        "Non-local I3D, ResNet-50",
        "nl_i3d_r50",
        35.40,
        40.96,
        PORT,
        num_frames=32,
        num_classes=400,
        options={"time_stride": 2},
    ),
    Row("Non-local I3D, ResNet-50", "nl_i3d_r50", num_classes=400),
    Row(
        "Non-local I3D, ResNet-50",
        "nl_i3d_r50",
        num_frames=128,
        num_classes=400,
        options={"time_stride": 2, "group_frames": 4},
    ),
    Row("Non-local C2D, ResNet-50", "c2d_nl_r50", num_frames=32, num_classes=400, options={"time_stride": 2}),
]


def count() -> list[dict[str, Any]]:
    rows = []
    for row in ROWS:
        with torch.device("meta"):
            model = build(row.model, row.num_classes, backbone_options=dict(row.options))
        rows.append(
            {
                "title": row.title,
                "model": row.model,
                "backbone_options": dict(row.options),
                "num_frames": row.num_frames,
                "size_px": row.size_px,
                "num_classes": row.num_classes,
                "params": num_parameters(model),
                "macs": multiply_adds(model, row.num_frames, row.size_px),
                "published_params": row.params and round(row.params * 1e6),
                "published_macs": row.macs and round(row.macs * 1e9),
                "source": row.source,
            }
        )
    return rows


def missing_keys(name: str) -> dict[str, Any]:
    """Which keys a model keeps at random when torchvision's ImageNet file (its key list, 1000 classes) is loaded."""
    architecture = {"r50": "resnet50", "mobilenet_v2": "mobilenet_v2"}[name.split("_", 1)[1]]
    shapes = read_json(ROOT / "tests" / "golden" / f"torchvision_{architecture}.json")
    shapes = shapes.get("shapes", shapes)
    model = build(name, NUM_CLASSES)
    report = load_backbone(model, {key: torch.zeros(shape) for key, shape in shapes.items()}, source=architecture)
    kinds = Counter(re.sub(r"\d+", "N", key) for key in report.missing)
    return {"matched": report.matched, "missing": dict(kinds), "unexpected": report.unexpected}


def difference(own: int, published: int | None) -> str:
    return "" if published is None else f"{100 * (own - published) / published:+.1f} %"


def page(rows: list[dict[str, Any]], missing: dict[str, Any]) -> str:
    lines = [
        "# What the networks cost",
        "",
        "Generated by `python -m benchmarks.pages.cost`. A multiply-add counts once; convolutions, linear layers and",
        "matrix products are counted, element-wise work is not. A clip is written as frames x pixels.",
        "",
        "| network | clip | classes | parameters | published | difference | multiply-adds | published | difference "
        "| published in |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        own_p, own_m = row["params"], row["macs"]
        pub_p, pub_m = row["published_params"], row["published_macs"]
        lines.append(
            f"| {row['title']} | {row['num_frames']} x {row['size_px']} | {row['num_classes']} | {own_p / 1e6:.2f} M | "
            f"{f'{pub_p / 1e6:.4g} M' if pub_p else ''} | {difference(own_p, pub_p)} | {own_m / 1e9:.1f} G | "
            f"{f'{pub_m / 1e9:.4g} G' if pub_m else ''} | {difference(own_m, pub_m)} | {row['source']} |"
        )
    lines += [
        "",
        "The SSAN paper gives no cost. Its block sits in every bottleneck of Res2 and Res3, right after the first 1x1",
        "convolution. Torchvision's ResNet halves the resolution in the 3x3 convolution, so Res3's first block attends",
        "at 56 x 56 with 128 channels; the original ResNet halves it in the 1x1, and all of Res3 attends at 28 x 28.",
        "The estimate of 76 G belongs to the second kind. Ours is the first by default, because the published ImageNet",
        "weights are of that kind; `backbone.stride_in=conv1` builds the second.",
        "",
        "mmaction2 counts element-wise work too, half a percent of a ResNet. Its figure for TRN is one of 256 px:",
        "42.94 G is the 32.88 G of its TSM times (256 / 224) squared, and is compared as such. So seems to be the one",
        "for MobileNetV2, which is a third above 8 times the 300 M a frame of the MobileNetV2 paper; ours is not.",
        "",
        "The published 407 M of EfficientNet-Lite0 are not reached by its convolutions and last layer. BatchNorm's two",
        "operations and ReLU6's one on each of the 6.7 and 6.2 million outputs a frame would bring ours to 405 M.",
        "",
        "A port of I3D's code has 7,280 scales of BatchNorm more than ours, where they are constants, one each. One of",
        "non-local I3D's has 6,144 biases more than ours, which would change nothing.",
        "",
        "MIL-NCE's code convolves one frame, one row and one column more in its stem than ours, and drops them: the",
        "24 x 2 x 4 x 4 x 64 multiply-adds at 17 x 113 x 113 places, and not at 16 x 112 x 112, are the 0.8 G that",
        "ours lacks at 32 frames. S3D-G's own code was never run here, so its count has nothing beside it.",
        "",
        "## What an ImageNet file leaves at random",
        "",
    ]
    for name, report in missing.items():
        lines += [
            f"`{name}`: {report['matched']} tensors loaded, {sum(report['missing'].values())} missing, "
            f"{len(report['unexpected'])} unexpected. Missing, with N for a number:",
            "",
            *(f"- `{kind}` ({number})" for kind, number in report["missing"].items()),
            "",
        ]
    return "\n".join(lines).rstrip() + "\n"


def main() -> None:
    rows, missing = count(), {name: missing_keys(name) for name in ("ssan_r50", "ssan_mobilenet_v2", "tsn_r50")}
    write_json(COUNTED, {name: count_named(name) for name in MODELS})
    write_json(RESULTS, {"schema": 1, "rows": rows, "imagenet": missing})
    with writing(PAGE) as handle:
        handle.write(page(rows, missing))
    print(PAGE.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
