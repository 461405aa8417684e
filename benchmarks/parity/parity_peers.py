"""The peers' side of benchmarks/parity/parity.py: their own networks with random weights, saved as they save them.

Run by an interpreter of its own that has the peers' libraries (and neither ssan nor, in ours, the peers'):

    python -m benchmarks.parity.parity_peers CASE FOLDER [--tsm CHECKOUT] [--mmaction2 CHECKOUT] [--small]

writes FOLDER/CASE.pth.tar, the checkpoint, and FOLDER/CASE.pt: the clip (1, t, 3, s, s) that the network was given, its
logits (1, k), and the names and shapes of its tensors. mmaction2's relation head (TRN) draws relations with numpy's
generator: its logits are the mean over draws in which each relation of a scale comes equally often, and beside them are
those of one draw, as numpy makes it, with what was drawn. All weights, and BatchNorm's statistics too, are drawn from a
generator seeded with the tensor's name, as tests/weights/test_imported.py draws them, so that small outputs can be kept
without the weights. ``--small`` makes a network for the kept ones, in float64: 64 px, four frames, seven classes.
"""

import argparse
import math
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor, nn

# torchvision's wheel is made for CUDA; beside torch for the CPU its import needs two operators to be declared.
DECLARED = torch.library.Library("torchvision", "FRAGMENT")
for operator in ("nms", "qnms"):
    DECLARED.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

PIXELS = {"mean": [123.675, 116.28, 103.53], "std": [58.395, 57.12, 57.375]}


def gain(case: str, name: str) -> float:
    """How large a tensor's random values are, so that a network's outputs are of the order of 1.

    A dot product of features and their sum with further ones grows with their third power, five times in a row.
    """
    if "dot_product" in case and any(part in name for part in (".theta.", ".phi.", ".g.")):
        return 0.01
    return 2 if "mobilenet" in case else 1


def drawn(name: str, tensor: Tensor, gain: float) -> Tensor:
    """A tensor's random values."""
    # numpy's legacy generator: its stream is frozen for good.
    noise = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(tuple(tensor.shape))
    if name.endswith("running_var"):
        noise = np.abs(noise) + 0.5
    elif tensor.dim() == 1:
        noise = noise * 0.1 + (1.0 if name.endswith("weight") else 0.0)
    else:
        noise = noise * math.sqrt(gain / tensor[0].numel())
    return torch.from_numpy(noise).to(tensor.dtype)


def torchvision_network(arch: str, num_classes: int) -> nn.Module:
    import torchvision

    class Frames(nn.Module):
        """An image network over frames; the mean of their scores."""

        def __init__(self) -> None:
            super().__init__()
            self.network = getattr(torchvision.models, arch)(num_classes=num_classes)

        def forward(self, clip: Tensor) -> Tensor:
            return self.network(clip.flatten(0, 1)).unflatten(0, clip.shape[:2]).mean(dim=1)

    return Frames()


def tsm_network(arch: str, num_classes: int, num_frames: int, **options: Any) -> nn.Module:
    from ops.models import TSN

    TSN.print_spec = False  # read before it is set, for MobileNetV2
    return TSN(
        num_classes, num_frames, "RGB", base_model=arch, pretrain=None, dropout=options.pop("dropout", 0.5),
        partial_bn=False, print_spec=False, **options,
    )  # fmt: skip


def mmaction2_network(backbone: dict[str, Any], head: dict[str, Any], num_classes: int, num_frames: int) -> nn.Module:
    from mmaction.registry import MODELS
    from mmaction.utils import register_all_modules

    register_all_modules(init_default_scope=True)
    if head["type"] != "TSNHead":
        head = {**head, "num_segments": num_frames}
    if backbone["type"].endswith("TSM"):
        backbone = {**backbone, "num_segments": num_frames, "pretrained2d": False}
    recognizer = MODELS.build(
        {
            "type": "Recognizer2D",
            "backbone": {**backbone, "pretrained": None},
            "cls_head": {**head, "num_classes": num_classes, "average_clips": None},
            "data_preprocessor": {"type": "ActionDataPreprocessor", **PIXELS, "format_shape": "NCHW"},
        }
    )

    class Scores(nn.Module):
        """The recognizer's scores of clips that are normalised already."""

        def __init__(self) -> None:
            super().__init__()
            self.recognizer = recognizer

        def forward(self, clip: Tensor) -> Tensor:
            if draws(recognizer):
                return mean_of_draws(recognizer, clip)
            return self.recognizer(clip, mode="tensor", stage="head")

    return Scores()


def draws(network: nn.Module) -> bool:
    """Whether a network's scores depend on what numpy draws."""
    return any(hasattr(module, "relations_scales") for module in network.modules())


def mean_of_draws(recognizer: nn.Module, clip: Tensor) -> Tensor:
    """The scores of a relation head, averaged over draws that by turns take all relations of each scale.

    Draw number n takes the k relations from number n k on, and begins again behind the last of all m. After a number of
    draws that every m divides, each relation has come equally often.
    """
    features, _ = recognizer.extract_feat(clip, stage="backbone")
    num_draws = math.lcm(*map(len, recognizer.cls_head.consensus.relations_scales))
    total = torch.zeros(1, dtype=torch.float64)
    for n in range(num_draws):
        with mock.patch.object(np.random, "choice", lambda m, k, replace, n=n: (np.arange(k) + n * k) % m):
            total = total + recognizer.cls_head(features, clip.shape[1])
    return (total / num_draws).to(clip.dtype)


def one_draw(recognizer: nn.Module, clip: Tensor) -> dict[str, Any]:
    """The scores of a relation head as it gives them, and the relations that it drew, from the larger scales on."""
    drawn: list[list[int]] = []
    choice = np.random.RandomState(0).choice

    def kept(*arguments: Any, **options: Any) -> np.ndarray:
        drawn.append(choice(*arguments, **options).tolist())
        return np.array(drawn[-1])

    with mock.patch.object(np.random, "choice", kept):
        logits = recognizer(clip, mode="tensor", stage="head")
    return {"logits": logits, "relations": drawn}


SHIFT = {"is_shift": True, "shift_div": 8, "shift_place": "blockres"}


def non_local(mode: str) -> dict[str, Any]:
    """The options of a ResNetTSM of depth 50 with non-local blocks, as in the configurations of the released ones."""
    return {
        "non_local": ((0, 0, 0), (1, 0, 1, 0), (1, 0, 1, 0, 1, 0), (0, 0, 0)),
        "non_local_cfg": {"sub_sample": True, "use_scale": False, "norm_cfg": {"type": "BN3d"}, "mode": mode},
    }


def _torchvision(arch: str) -> Callable[..., nn.Module]:
    return lambda num_classes, num_frames: torchvision_network(arch, num_classes)


def _tsm(arch: str, **options: Any) -> Callable[..., nn.Module]:
    return lambda *sizes: tsm_network(arch, *sizes, **options)


def _mmaction2(backbone: dict[str, Any], head: str, num_features: int, **options: Any) -> Callable[..., nn.Module]:
    return lambda *sizes: mmaction2_network(backbone, {"type": head, "in_channels": num_features, **options}, *sizes)


CASES: dict[str, Callable[..., nn.Module]] = {
    **{f"torchvision-{arch}": _torchvision(arch) for arch in ("resnet18", "resnet50", "mobilenet_v2")},
    **{
        f"tsm-{family}-{arch}": _tsm(arch, **options)
        for arch in ("resnet18", "resnet50", "resnet101", "mobilenetv2")
        for family, options in [("tsn", {}), ("tsm", SHIFT)]
    },
    "tsm-tsm-resnet18-without-dropout": _tsm("resnet18", dropout=0, **SHIFT),
    "tsm-tsn_nl-resnet50": _tsm("resnet50", non_local=True),
    "tsm-tsm_nl-resnet50": _tsm("resnet50", non_local=True, **SHIFT),
    **{
        f"mmaction2-tsn-resnet{depth}": _mmaction2({"type": "ResNet", "depth": depth}, "TSNHead", features)
        for depth, features in [(18, 512), (50, 2048)]
    },
    **{
        f"mmaction2-tsm-resnet{depth}": _mmaction2({"type": "ResNetTSM", "depth": depth}, "TSMHead", features)
        for depth, features in [(18, 512), (50, 2048), (101, 2048)]
    },
    "mmaction2-tsm-mobilenet_v2": _mmaction2({"type": "MobileNetV2TSM"}, "TSMHead", 1280),
    "mmaction2-tsn-mobilenet_v2": _mmaction2({"type": "MobileNetV2"}, "TSNHead", 1280),
    **{
        f"mmaction2-tsm_nl{suffix}-resnet50": _mmaction2(
            {"type": "ResNetTSM", "depth": 50, **non_local(mode)}, "TSMHead", 2048
        )
        for suffix, mode in [
            ("", "embedded_gaussian"),
            ("_gaussian", "gaussian"),
            ("_dot_product", "dot_product"),
            ("_concatenation", "concatenation"),
        ]
    },
    **{
        f"mmaction2-trn-resnet{depth}": _mmaction2({"type": "ResNet", "depth": depth}, "TRNHead", features)
        for depth, features in [(18, 512), (50, 2048)]
    },
    "mmaction2-trn_of_one_scale-resnet50": _mmaction2(
        {"type": "ResNet", "depth": 50}, "TRNHead", 2048, relation_type="TRN"
    ),
}

# Of three frames the head takes all relations, three pairs and one triple: nothing is left to draw.
FRAMES = {"mmaction2-trn-resnet18": 3}

# Scored in float64, with the weights of the checkpoint: with random weights the similarities are so large, those of the
# features themselves in the thousands, that float32's rounding alone moves a softmax by more than is asked for. How far
# depends on the processor: the logits of TSM's two by 3e-5 on one, and by 2e-4 on another.
SCORED_IN_DOUBLE = (
    "tsm-tsn_nl-resnet50", "tsm-tsm_nl-resnet50", "mmaction2-tsm_nl-resnet50", "mmaction2-tsm_nl_gaussian-resnet50",
)  # fmt: skip

# Refused by their names; comparing by concatenation would need 20 GB.
NOT_SCORED = ("mmaction2-tsm_nl_concatenation-resnet50",)


def checkpoint(case: str, network: nn.Module) -> dict[str, Any]:
    """What the peer's training loop would save, with its names."""
    if case.startswith("torchvision"):
        return network.network.state_dict()
    if case.startswith("tsm"):
        # Saved from within DataParallel, with the accuracy as a number of numpy's or a tensor, as it happened to be.
        state = {f"module.{name}": tensor for name, tensor in network.state_dict().items()}
        return {"epoch": 50, "arch": "resnet50", "state_dict": state, "optimizer": {}, "best_prec1": np.float64(45.6)}
    from mmengine.logging import HistoryBuffer

    curve = HistoryBuffer([0.5, 0.25], [1, 1])
    meta = {"epoch": 50, "cfg": "model = dict()", "dataset_meta": {}, "seed": 1}
    return {
        "meta": meta,
        "state_dict": network.recognizer.state_dict(),
        "message_hub": {"log_scalars": {"loss": curve}},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("case", choices=CASES)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--tsm", help="a checkout of mit-han-lab/temporal-shift-module")
    parser.add_argument("--mmaction2", help="a checkout of open-mmlab/mmaction2")
    parser.add_argument("--small", action="store_true")
    options = parser.parse_args()
    sys.path[:0] = [path for path in (options.tsm, options.mmaction2) if path]

    num_classes, num_frames, size_px = (7, 4, 64) if options.small else (174, FRAMES.get(options.case, 8), 224)
    network = CASES[options.case](num_classes, num_frames)
    network.eval()  # TSM's returns nothing
    if options.small:
        network.double()
    # By the names of the file: a wrapper of this script's is not part of them.
    inner = getattr(network, "network", getattr(network, "recognizer", network))
    with torch.no_grad():
        for name, tensor in inner.state_dict().items():
            if tensor.is_floating_point():
                tensor.copy_(drawn(name, tensor, gain(options.case, name)))
        options.folder.mkdir(parents=True, exist_ok=True)
        torch.save(checkpoint(options.case, network), options.folder / f"{options.case}.pth.tar")
        if options.case in SCORED_IN_DOUBLE:
            network.double()
        noise = np.random.RandomState(zlib.crc32(b"clip")).standard_normal((1, num_frames, 3, size_px, size_px))
        clip = torch.from_numpy(noise).to(next(network.parameters()).dtype)
        kept: dict[str, Any] = {"clip": clip}
        if options.case not in NOT_SCORED:
            kept["logits"] = network(clip)
        if draws(network):
            kept["one_draw"] = one_draw(network.recognizer, clip)
    kept["shapes"] = {name: list(tensor.shape) for name, tensor in inner.state_dict().items()}
    torch.save(kept, options.folder / f"{options.case}.pt")


if __name__ == "__main__":
    main()
