"""An attentive head: features pooled over time by attention, then a linear layer, trained by the loop of all runs."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import Dataset

from ssan.layers.attention_over_frames import AttentionOverFrames
from ssan.probe.features import ClipFeatures
from ssan.probe.linear import LinearHead, balanced
from ssan.recipe import Recipe, make_recipe
from ssan.training.batches import Batches, BatchPlan, Draw
from ssan.training.fit import Task, fit
from ssan.training.optim import LearningRate, make_optimizer

RECIPE = make_recipe({
    "epochs": 40, "batch": 32, "optimizer": "adamw", "lr": 1e-3, "lr_rule": "none", "schedule": "cosine",
    "warmup_epochs": 1.0, "weight_decay": 0.0,
})  # fmt: skip
"""Of the head's training. Unsaid by the paper, our choice."""


class AttentiveHead(nn.Module):
    """A linear layer with a row more than classes, the query of the attention, and the attention over time.

    It begins as a linear head does, with a query of 0, which weighs all times alike, and is trained on what that was
    fitted to: the mean cross-entropy with balanced class weights, and C's penalty on the weights of standardised
    features. What attention adds is thus what training can take from it.

    :param start: the linear head that was fitted to the same clips.
    :param num_rows: for which C's penalty counts.
    """

    def __init__(self, start: LinearHead, num_rows: int) -> None:
        super().__init__()
        num_classes, dim = start.weight.shape
        self.penalty = 1 / (2 * start.strength * num_rows)
        mean, scale = torch.from_numpy(start.mean), torch.from_numpy(start.scale)
        self.register_buffer("mean", mean.float(), persistent=False)
        self.register_buffer("scale", scale.float(), persistent=False)
        self.fc = nn.Linear(dim, num_classes + 1)
        self.consensus = AttentionOverFrames(num_classes)
        weight = torch.from_numpy(start.weight)
        with torch.no_grad():
            self.fc.weight.zero_()[:-1] = weight * scale
            self.fc.bias.zero_()[:-1] = torch.from_numpy(start.bias) + weight @ mean

    def forward(self, features_btd: Tensor) -> tuple[Tensor, Tensor]:
        """Features at each time, as they come out of the network, to logits (b, k), and the penalty."""
        standard = (features_btd - self.mean) / self.scale  # type: ignore[operator]
        return self.consensus(self.fc(standard)), self.penalty * self.fc.weight.square().sum()

    def folded(self) -> tuple[Tensor, Tensor]:
        """Weight (k + 1, d) and bias of the linear layer that does the same to features that are not standardised."""
        weight = self.fc.weight.detach().double() / self.scale.double()  # type: ignore[operator]
        return weight, self.fc.bias.detach().double() - weight @ self.mean.double()  # type: ignore[operator]


class TimesOfClips(Dataset[tuple[Tensor, int]]):
    """The features at each time of a view of a clip, (t, d), and its class."""

    def __init__(self, features: ClipFeatures, items: Sequence[int], labels: np.ndarray) -> None:
        self.features, self.labels = features, labels
        self.rows = [(int(item), view) for item in items for view in range(features.num_views)]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, draw: Draw) -> tuple[Tensor, int]:
        item, view = self.rows[draw[1]]
        return torch.from_numpy(self.features.times(item)[view].astype(np.float32)), int(self.labels[item])


def _together(items: Sequence[tuple[Tensor, int]]) -> tuple[Tensor, Tensor]:
    return torch.stack([times for times, _ in items]), torch.tensor([label for _, label in items])


def _measure(outputs: tuple[Tensor, Tensor], labels: Tensor) -> dict[str, Tensor]:
    logits = outputs[0]
    return {
        "loss": F.cross_entropy(logits, labels, reduction="none"),
        "top1": (logits.argmax(dim=1) == labels).float(),
    }


def fit_attentive(
    features: ClipFeatures,
    items: np.ndarray,
    labels: np.ndarray,
    start: LinearHead,
    *,
    seed: int = 0,
    folder: str | Path | None = None,
) -> AttentiveHead:
    """Train an attentive head on these clips, from the linear head of the same; its last epoch is what counts.

    :param labels: of all clips.
    :param folder: of the run, whose journal has the epochs; None keeps nothing of them.
    """
    rows = TimesOfClips(features, items.tolist(), labels)
    if len(np.unique(labels[items])) < 2:  # there is nothing to tell apart
        return AttentiveHead(start, len(rows))
    weights = torch.zeros(start.weight.shape[0])
    weights[torch.from_numpy(labels[items])] = torch.from_numpy(balanced(labels[items])).float()
    recipe = RECIPE.model_copy(update={"seed": seed})

    def batches(split: str, rank: int, world: int) -> Batches:
        plan = BatchPlan(len(rows), recipe.batch, seed=seed, shuffle=split == "train", rank=rank, world=world)
        return Batches(rows, plan, collate=_together)

    def loss(outputs: tuple[Tensor, Tensor], targets: Tensor) -> Tensor:
        logits, penalty = outputs
        own = F.cross_entropy(logits, targets, reduction="none")
        return (own * weights.to(own)[targets]).mean() + penalty

    head = AttentiveHead(start, len(rows))
    task = Task(
        module=head,
        batches=batches,
        loss=loss,
        measure=_measure,
        optimizer=lambda module, rate: make_optimizer(
            module, recipe.optimizer, lr=rate, momentum=recipe.momentum, weight_decay=recipe.weight_decay
        ),
        rate=lambda steps: LearningRate.of(recipe, recipe.lr, steps),
        keep=lambda module, measures: None,
        monitor=None,
        measured_on="train",
    )
    if folder is not None:
        _run(task, Path(folder), recipe)
        return head
    with tempfile.TemporaryDirectory(prefix="ssan-probe-") as scratch:
        _run(task, Path(scratch), recipe)
    return head


def _run(task: Task, folder: Path, recipe: Recipe) -> None:
    # Quiet, as there may be dozens of heads; a bar of heads says how far all have come.
    fit(task, folder, recipe, quiet=True)


@torch.inference_mode()
def logits_of(head: AttentiveHead, features: ClipFeatures, items: Sequence[int]) -> np.ndarray:
    """Logits (n, k) of clips, the mean over their views."""
    found = [
        head.eval()(torch.from_numpy(features.times(int(item)).astype(np.float32)))[0].mean(dim=0) for item in items
    ]
    return torch.stack(found).double().numpy()
