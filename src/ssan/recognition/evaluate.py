"""Scoring a set of labelled videos under a named protocol."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from ssan.datasets.clips import TestClips, collate_with_errors
from ssan.datasets.samples import Sample, Samples
from ssan.errors import UsageError, VideoError
from ssan.models.classifier import Classifier
from ssan.recognition.metrics import accuracy, mean_class_accuracy, per_class, wilson_interval
from ssan.recognition.model_file import Labeller
from ssan.recognition.score_file import write_scores
from ssan.training.batches import Batches, BatchPlan

Average = Literal["logits", "probabilities"]
ORDERS = ("as_sampled", "reversed", "shuffled")


@dataclass(frozen=True)
class Protocol:
    """How a video's score comes about; printed with every accuracy.

    :param views: clips of a video, spread over its length.
    :param crops: 1 (centre), 3 (along the longer side) or 10 (corners, centre, mirrored).
    :param average: what is averaged over views and crops: ``logits``, as TSM's code does, or ``probabilities``, as
        mmaction2's; frames within a view are always averaged as logits.
    :param resize: of the frames; the model's own where None.
    """

    views: int = 1
    crops: Literal[1, 3, 10] = 1
    average: Average = "logits"


@dataclass(frozen=True)
class Scores:
    """Scores of videos, in the order of their list.

    :param samples: the videos scored.
    :param scores: by order of frames (``as_sampled``, and with the probe ``reversed``, ``shuffled``), each (n, k): mean
        logits, or the logarithm of mean probabilities.
    :param missing: videos that the list names and that are not there.
    :param errors: what the others gave that could not be scored.
    """

    samples: list[Sample]
    scores: dict[str, np.ndarray]
    missing: list[Sample]
    errors: list[VideoError]


def score(
    labeller: Labeller,
    samples: Samples,
    protocol: Protocol,
    *,
    probe: bool = False,
    batch: int = 16,
    workers: int = 0,
    seed: int = 0,
    quiet: bool = False,
) -> Scores:
    """Score each video; one that cannot be read is passed over and listed."""
    model, device = labeller.model, next(labeller.model.parameters()).device
    missing = [sample for sample in samples if not sample.exists]
    present = [sample for sample in samples if sample.exists]
    orders = ORDERS if probe else ORDERS[:1]
    rows: dict[str, list[np.ndarray]] = {order: [] for order in orders}
    scored: list[Sample] = []
    errors: list[VideoError] = []
    clips = TestClips(present, labeller.preprocess, num_views=protocol.views, num_crops=protocol.crops)
    loader = Batches(clips, BatchPlan(len(present), batch), workers=workers, collate=collate_with_errors)
    position = 0
    silent = quiet or not sys.stderr.isatty()
    with tqdm(total=len(present), desc="scoring", unit="video", disable=silent, file=sys.stderr, leave=False) as bar:
        for views, outcomes in loader if present else ():
            good = [present[position + n] for n, error in enumerate(outcomes) if error is None]
            errors += [error for error in outcomes if error is not None]
            scored += good
            if views is not None:
                views = views.to(device, non_blocking=True)
                for order in orders:
                    permuted = _permute(views, order, seed, [sample.id for sample in good])
                    rows[order].append(_video_scores(model, permuted, protocol.average, batch))
            position += len(outcomes)
            bar.update(len(outcomes))
    empty = np.zeros((0, len(labeller.classes)))
    return Scores(scored, {o: np.concatenate(r) if r else empty for o, r in rows.items()}, missing, errors)


def _permute(views: Tensor, order: str, seed: int, ids: Sequence[str]) -> Tensor:
    """Permute the frames of views (b, v, t, 3, h, w); a shuffle is drawn for each video from (seed, its id)."""
    if order == "as_sampled":
        return views
    if order == "reversed":
        return views.flip(2)
    t = views.shape[2]
    shuffles = []
    for identity in ids:
        rng = np.random.default_rng([seed, *identity.encode()])
        shuffles.append(views.new_tensor(rng.permutation(t).tolist(), dtype=torch.long))
    return torch.stack([video[:, shuffle] for video, shuffle in zip(views, shuffles, strict=True)])


@torch.inference_mode()
def _video_scores(model: Classifier, views: Tensor, average: Average, batch: int) -> np.ndarray:
    """Views (b, v, t, 3, h, w) to one row of scores per video (b, k), at most ``batch`` clips at a time."""
    logits = torch.cat([model(part) for part in views.flatten(0, 1).split(batch)]).double()
    logits = logits.unflatten(0, views.shape[:2])
    if average == "logits":
        return logits.mean(dim=1).cpu().numpy()
    return logits.softmax(dim=-1).mean(dim=1).log().cpu().numpy()


def evaluate(
    labeller: Labeller,
    samples: Samples,
    protocol: Protocol,
    *,
    split: str,
    probe: bool = False,
    scores_file: str | Path | None = None,
    batch: int = 16,
    workers: int = 0,
    seed: int = 0,
    quiet: bool = False,
) -> dict[str, Any]:
    """Accuracies over the videos that could be scored; the answer has the fields of ``ssan eval --json``.

    :raises UsageError: the model's classes are not the data's, the videos have no labels, or none could be scored.
    """
    if samples.classes != labeller.classes:
        raise UsageError(_class_difference(labeller.classes, samples.classes), code="wrong_model", path=samples.source)
    if not samples:
        raise UsageError(f"there are no videos in the split {split!r}; name another with --split", path=samples.source)
    unlabelled = [sample for sample in samples if sample.label_index is None]
    if unlabelled:
        raise UsageError(
            f"{len(unlabelled)} of {len(samples)} videos have no label, so nothing can be measured; `ssan predict` "
            "labels them",
            path=samples.source,
        )
    result = score(labeller, samples, protocol, probe=probe, batch=batch, workers=workers, seed=seed, quiet=quiet)
    if not result.samples:
        first = f", first: {result.errors[0]}" if result.errors else ""
        raise UsageError(
            f"none of {len(samples)} videos could be scored: {len(result.missing)} missing, {len(result.errors)} "
            f"failed{first}. Look at --data and --videos",
            path=samples.source,
        )
    labels = np.array([sample.label_index for sample in result.samples])
    scores = result.scores["as_sampled"]
    if np.isnan(scores).any():
        raise UsageError("the model's scores are NaN; its weights are unusable", code="nan")
    num_right = round(accuracy(scores, labels) * len(labels))
    full = {
        "split": split,
        "num_frames": labeller.preprocess.num_frames,
        "sampling": labeller.preprocess.sampling,
        "views": protocol.views,
        "crops": protocol.crops,
        "resize": labeller.preprocess.resize,
        "size_px": labeller.preprocess.size_px,
        "crop_px": labeller.preprocess.crop_px,
        "average": protocol.average,
    }
    answer: dict[str, Any] = {
        "num_scored": len(labels),
        "num_missing": len(result.missing),
        "num_failed": len(result.errors),
        "top1": accuracy(scores, labels),
        "top5": accuracy(scores, labels, top=5),
        "mean_class_accuracy": mean_class_accuracy(scores, labels),
        "interval95": list(wilson_interval(num_right, len(labels))),
        "protocol": full,
        "per_class": per_class(scores, labels, labeller.classes),
        "failed": [error.as_dict() for error in result.errors],
        "missing": [sample.path for sample in result.missing],
    }
    if probe:
        backwards = result.scores["reversed"]
        answer["probe"] = {
            "reversed_top1": accuracy(backwards, labels),
            "shuffled_top1": accuracy(result.scores["shuffled"], labels),
            "reversed_same_prediction": float((backwards.argmax(axis=1) == scores.argmax(axis=1)).mean()),
        }
    if scores_file is not None:
        ids = [sample.id for sample in result.samples]
        write_scores(scores_file, ids, scores, labels, labeller.classes, full)
    return answer


def _class_difference(model: Sequence[str], data: Sequence[str]) -> str:
    if sorted(model) == sorted(data):
        return (
            "the model has the data's classes in another order; read the data with the order that it was trained on "
            "(--reader class_order=...)"
        )
    only_model, only_data = sorted(set(model) - set(data)), sorted(set(data) - set(model))
    return (
        f"the model's {len(model)} classes are not the data's {len(data)}: only the model has "
        f"{only_model[:3] or 'none'}, only the data have {only_data[:3] or 'none'}. Evaluate a model on the classes it "
        "was trained for"
    )
