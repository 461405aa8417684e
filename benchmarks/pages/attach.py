"""What an attached layer is worth: torchvision's ResNet-18 with SSA in it and without, on the `order` task.

    python -m benchmarks.pages.attach --work runs/attach

Renders videos in which the classes of a pair differ by direction alone, takes torchvision's ResNet-18 with random
weights (--thin N divides its channels, so that a run takes minutes on one core), makes a video classifier of it with
and without attached layers, trains both by the same recipe, and writes top-1, the share of answers in the right pair
and, of these, in the right direction to benchmarks/results/attach.json. It needs torchvision; the package does not.

The settings are a first guess but for one: rate, places and width were not searched. SSA does not start as the
identity, because the weights around it are random. Of the number of epochs 8 and 16 were tried and the validation split
chose: at the end of 8 the network with SSA had 0.656 there, gained in each of the last three and had a loss just under
log 2, where pairs are told apart and directions begin to be; with 16 it had 1.000 after ten. The bare network had 0.361
and 0.394 at best. On the test split the trainings of 8 epochs had 0.524 of the directions right without SSA and 0.659
with it; these figures were known when the longer ones were begun.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

# torchvision's wheels are built for CUDA: beside torch for the CPU they want these names declared before the import,
# which Lightning makes where torchvision is installed.
if not torch.cuda.is_available():
    LIBRARY = torch.library.Library("torchvision", "FRAGMENT")
    for operator in ("nms", "qnms"):
        LIBRARY.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

import ssan
from benchmarks.timing import RESULTS, machine
from ssan.files import write_json
from ssan.models.classifier import Classifier
from ssan.recipe import make_recipe
from ssan.recognition.evaluate import Protocol, score
from ssan.recognition.train import DataSource, train
from ssan.synthetic.dataset import render
from ssan.training.metrics import accuracy, pair_accuracies
from ssan.weights.classifier_file import load_labeller

RECIPE = {
    "num_frames": 8, "size_px": 48, "crop_px": 48, "crop": "center", "flip": "off", "batch": 32, "optimizer": "adamw",
    "lr": 0.003, "lr_rule": "none", "weight_decay": 0.01, "schedule": "cosine", "warmup_epochs": 1,
}  # fmt: skip


def image_network(thin: int) -> torch.nn.Module:
    """torchvision's ResNet-18, its channels divided by ``thin``."""
    from torchvision.models.resnet import BasicBlock, ResNet

    class Thin(ResNet):
        def _make_layer(self, block: Any, planes: int, *arguments: Any, **options: Any) -> torch.nn.Sequential:
            if planes == 64:  # the first stage: here torchvision has made its first convolution
                self.inplanes = 64 // thin
                self.conv1 = torch.nn.Conv2d(3, self.inplanes, 7, 2, 3, bias=False)
                self.bn1 = torch.nn.BatchNorm2d(self.inplanes)
            return super()._make_layer(block, planes // thin, *arguments, **options)

    network = Thin(BasicBlock, [2, 2, 2, 2])
    network.fc = torch.nn.Linear(512 // thin, 1000)
    return network


def classifier(variant: str, num_classes: int, thin: int, seed: int) -> Classifier:
    torch.manual_seed(seed)
    network = image_network(thin)
    if variant == "ssa":
        # From random weights, so the layer does not start as the identity.
        ssan.attach(network, "layer[12].*.conv2", "ssa", side="before", identity_start=False)
    return ssan.video_classifier(network, num_classes, head="fc", dropout=0.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, default=Path("runs/attach"))
    parser.add_argument("--videos", type=int, default=1200)
    parser.add_argument("--classes", type=int, default=6)
    parser.add_argument("--epochs", type=int, default=16)
    parser.add_argument("--thin", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    data = DataSource(str(arguments.work / "data"))
    if not Path(data.root).exists():
        render(data.root, "order", arguments.videos, 0, num_classes=arguments.classes, size_px=48)
    recipe = make_recipe({**RECIPE, "epochs": arguments.epochs, "seed": arguments.seed})
    test, rows = data.read("test"), []
    labels = np.array([sample.label_index for sample in test])
    pairs = [(2 * n, 2 * n + 1) for n in range(len(test.classes) // 2)]
    for variant in ("bare", "ssa"):
        out = arguments.work / f"{variant}_{arguments.seed}"
        model = classifier(variant, len(test.classes), arguments.thin, arguments.seed)
        answer = train(recipe, data, out, resume=True, model=model)
        model = classifier(variant, len(test.classes), arguments.thin, arguments.seed)
        result = score(load_labeller(out, model=model), test, Protocol(), probe=True)
        assert not result.errors
        scores = result.scores["as_sampled"]
        pair, within = pair_accuracies(scores.argmax(axis=1), labels, pairs)
        rows.append(
            {
                "variant": variant,
                "params": sum(parameter.numel() for parameter in model.parameters()),
                "top1": accuracy(scores, labels),
                "pair_top1": pair,
                "within_pair_top1": within,
                "reversed_top1": accuracy(result.scores["reversed"], labels),
                "num_train": answer["num_train"],
                "num_test": len(labels),
                "epochs": arguments.epochs,
                "train_seconds": answer["train_seconds"],
            }
        )
        print(json.dumps(rows[-1]), flush=True)
    about = {"network": f"torchvision resnet18, channels / {arguments.thin}", "classes": len(test.classes)}
    write_json(
        RESULTS / "attach.json", {"schema": 1, "machine": machine(), **about, "seed": arguments.seed, "runs": rows}
    )


if __name__ == "__main__":
    main()
