"""C3D against mmaction2's own, with the same random weights.

    python -m benchmarks.parity.c3d_parity --mmaction2 CHECKOUT [--golden]

``CHECKOUT`` is one of open-mmlab/mmaction2, release 1.x. Of it mmaction/models/backbones/c3d.py is imported alone: what
that takes from elsewhere, a convolution with ReLU and how weights begin, is given to it here. Writes
benchmarks/results/c3d_parity.json and ends with an error where a logit differs by more than 1e-4 of the largest.
``--golden`` writes tests/golden/c3d.json.gz instead: names and shapes of its tensors.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.parity.volumes import clip_of, compare, module_of, random_model, write, write_golden

NUM_CLASSES = 11


class ConvModule(nn.Module):
    """mmcv's, as far as C3D asks: a convolution with a bias, as there is no norm, and ReLU."""

    def __init__(self, num_in: int, num_out: int, kernel_size: Any, padding: Any, **_: Any) -> None:
        super().__init__()
        self.conv = nn.Conv3d(num_in, num_out, kernel_size, padding=padding)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.conv(x))


class Registry:
    """Stands for the toolkit's registry: what it decorates stays as it is."""

    def register_module(self) -> Callable[[type], type]:
        return lambda made: made


def given_to_it() -> None:
    """The modules that the file imports, with what it takes from them."""
    for name, content in {
        "mmcv": {},
        "mmcv.cnn": {"ConvModule": ConvModule},
        "mmengine": {},
        "mmengine.logging": {"MMLogger": None},
        "mmengine.model": {},
        "mmengine.model.weight_init": {"constant_init": None, "kaiming_init": None, "normal_init": None},
        "mmengine.runner": {"load_checkpoint": None},
        "mmengine.utils": {},
        "mmengine.utils.dl_utils": {},
        "mmengine.utils.dl_utils.parrots_wrapper": {"_BatchNorm": nn.BatchNorm3d},
        "mmaction": {},
        "mmaction.registry": {"MODELS": Registry()},
    }.items():
        module = ModuleType(name)
        vars(module).update(content)
        sys.modules[name] = module


class Recognizer(nn.Module):
    """The toolkit's backbone and the linear layer of its head, by the names that they have in its files."""

    def __init__(self, backbone: nn.Module, num_classes: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.cls_head = nn.ModuleDict({"fc_cls": nn.Linear(4096, num_classes)})

    def forward(self, clips: Tensor) -> Tensor:
        return self.cls_head["fc_cls"](self.backbone(clips))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mmaction2", required=True, metavar="CHECKOUT")
    parser.add_argument("--golden", action="store_true", help="make the file that the tests keep")
    options = parser.parse_args()
    given_to_it()
    make = module_of(Path(options.mmaction2) / "mmaction/models/backbones/c3d.py", "mmaction_c3d").C3D
    if options.golden:
        write_golden("c3d", {"c3d": Recognizer(make(), 101)})
        return
    model, peer = random_model("c3d", NUM_CLASSES), Recognizer(make(), NUM_CLASSES)
    write("c3d", [compare("c3d", "mmaction2", model, peer, clip_of(16, 112, 112))])


if __name__ == "__main__":
    main()
