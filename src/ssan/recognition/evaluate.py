"""Evaluation of a classifier: scores and accuracies of a set of labelled videos under a named protocol."""

import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from ssan.datasets.clips import TestClips, collate_with_errors
from ssan.datasets.samples import Sample, Samples, canonical_split, hash_list
from ssan.datasets.wrong import MOST_WRONG, write_wrong, wrong_answers
from ssan.errors import UsageError, VideoError
from ssan.models.classifier import VideoNetwork
from ssan.recognition.score_file import UNKNOWN, check_name, write_scores
from ssan.recognition.threshold import choose_threshold
from ssan.training.batches import Batches, BatchPlan, Draw
from ssan.training.environment import out_of_memory
from ssan.training.metrics import accuracies, accuracy, confusion_counts, per_class
from ssan.training.together import ALONE, Together
from ssan.video.preprocess import Preprocess
from ssan.weights.labeller import Labeller

Average = Literal["logits", "probabilities"]
ORDERS = ("as_sampled", "reversed", "shuffled")
MOST_REVERSED = 500
"""Videos whose answer to reversed frames is looked at when a training ends, at most."""


@dataclass(frozen=True)
class Protocol:
    """How a video's score comes about; printed with every accuracy.

    What of the model's own preprocessing is not said here stays as it is: sampling, and the number of frames and the
    sizes where they are None.

    :param views: clips of a video: shifted within its segments, or windows spread over its length
        (``video/preprocess``).
    :param crops: of each view: 1 (centre), 3 (along the longer side) or 10 (corners, centre, mirrored).
    :param average: what is averaged over views and crops: ``logits``, as TSM's code does, or ``probabilities``, as
        mmaction2's; frames within a view are always averaged as logits.
    :param resize: of the frames, to a ``square`` or by their ``short_side``.
    :param size_px: side after resizing.
    :param crop_px: side of each crop; full resolution is that of the shorter side, ``size_px``.
    :param num_frames: of each clip, for a network that takes any number.
    """

    views: int = 1
    crops: Literal[1, 3, 10] = 1
    average: Average = "logits"
    resize: Literal["square", "short_side"] | None = None
    size_px: int | None = None
    crop_px: int | None = None
    num_frames: int | None = None

    @property
    def num_clips(self) -> int:
        """Clips of one video that the network sees."""
        return self.views * self.crops

    def preprocess(self, own: Preprocess) -> Preprocess:
        """The model's ``own`` preprocessing with what this protocol changes of it.

        :raises UsageError: a crop does not fit into the picture, or all crops are cut from the same place. Of a video
            that is itself square and resized by its short side, three crops at full resolution are the same as well:
            its score is then that of one.
        """
        used = replace(
            own,
            resize=own.resize if self.resize is None else self.resize,
            size_px=own.size_px if self.size_px is None else self.size_px,
            crop_px=own.crop_px if self.crop_px is None else self.crop_px,
            num_frames=own.num_frames if self.num_frames is None else self.num_frames,
        )
        if used.crop_px > used.size_px:
            raise UsageError(
                f"crops of {used.crop_px} px do not fit into pictures resized to {used.size_px} px; lower --crop-px, "
                f"or give --size-px {used.crop_px} or more"
            )
        if self.crops > 1 and used.resize == "square" and used.crop_px == used.size_px:
            raise UsageError(
                f"the {self.crops} crops of {used.crop_px} px would all be cut from one place, as --resize square "
                f"makes every picture {used.size_px} px high and wide; use --resize short_side, or lower --crop-px"
            )
        return used

    def as_dict(self, own: Preprocess, split: str) -> dict[str, Any]:
        """Everything that decides the score of a video, and of which split the videos are."""
        used = self.preprocess(own)
        return {
            "split": canonical_split(split),
            "num_frames": used.num_frames,
            "sampling": used.sampling,
            **({"stride": used.stride} if used.sampling == "dense" else {}),
            **({} if used.frames_per_second is None else {"frames_per_second": used.frames_per_second}),
            "views": self.views,
            "crops": self.crops,
            "resize": used.resize,
            "size_px": used.size_px,
            "crop_px": used.crop_px,
            "average": self.average,
        }


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
    group: Together = ALONE,
    orders: Sequence[str] | None = None,
) -> Scores:
    """Score each video; one that cannot be read is passed over and listed.

    Of several processes each scores whole batches of the list, as one process alone would cut it, and all get the same
    scores to the last bit.

    :param batch: clips at a time: those that go through the network together, and those that a loader process puts
        together, unless a single video has more. A video is opened once for all its views, so its clips stay together.
    :param orders: in which the frames are seen, of ``ORDERS``; all with ``probe``, and else as sampled alone.
    :raises UsageError: the protocol does not fit the model's preprocessing.
    """
    model, device = labeller.model, next(labeller.model.parameters()).device
    missing = [sample for sample in samples if not sample.exists]
    present = [sample for sample in samples if sample.exists]
    orders = orders or (ORDERS if probe else ORDERS[:1])
    preprocess = protocol.preprocess(labeller.preprocess)
    clips = TestClips(present, preprocess, num_views=protocol.views, num_crops=protocol.crops)
    plan = Share(BatchPlan(len(present), max(1, batch // protocol.num_clips)), group) if present else None
    silent = quiet or not group.first or not sys.stderr.isatty()

    def share() -> list[_Batch]:
        done: list[_Batch] = []
        if plan is None or not len(plan):
            return done
        num = sum(map(len, plan))
        with tqdm(total=num, desc="scoring", unit="video", disable=silent, file=sys.stderr, leave=False) as bar:
            loader = Batches(clips, plan, workers=workers, collate=collate_with_errors)
            for draws, (views, outcomes) in zip(list(plan), loader, strict=True):
                good = [draw.item for draw, error in zip(draws, outcomes, strict=True) if error is None]
                rows = {}
                if views is not None:
                    views = views.to(device, non_blocking=True)
                    ids = [present[item].id for item in good]
                    for order in orders:
                        permuted = _permute(views, order, seed, ids)
                        rows[order] = _video_scores(model, permuted, protocol.average, batch)
                done.append(_Batch(good, [error for error in outcomes if error is not None], rows))
                bar.update(len(outcomes))
        return done

    same = group.each(lambda: hash_list(samples.kept(present)))
    if len(set(same)) > 1:
        raise UsageError(
            "the processes do not find the same videos; put them where all machines see them under the same names",
            path=samples.source,
        )
    batches = group.inorder(group.each(share))
    empty = np.zeros((0, len(labeller.classes)))
    scores = {order: np.concatenate([empty, *(part.rows[order] for part in batches if part.rows)]) for order in orders}
    scored = [present[item] for part in batches for item in part.good]
    return Scores(scored, scores, missing, [error for part in batches for error in part.errors])


@dataclass(frozen=True)
class _Batch:
    """What came of a batch: the items scored, what went wrong with others, and by order of frames the scores."""

    good: list[int]
    errors: list[VideoError]
    rows: dict[str, np.ndarray]


class Share(BatchPlan):
    """The batches of a plan that fall to one of several processes: every n-th, whole."""

    def __init__(self, plan: BatchPlan, group: Together) -> None:
        self.batches = group.mine(list(plan))
        self.epoch = self.position = 0

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[Draw]]:
        return iter(self.batches[self.position :])


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
def _video_scores(model: VideoNetwork, views: Tensor, average: Average, batch: int) -> np.ndarray:
    """Views (b, v, t, 3, h, w) to one row of scores per video (b, k), at most ``batch`` clips at a time."""
    try:
        logits = torch.cat([model(part) for part in views.flatten(0, 1).split(batch)]).double()
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        raise UsageError(
            f"out of memory with {batch} clips of {views.shape[2]} frames of {views.shape[-1]} px at a time; lower "
            "--batch, --crop-px or --size-px, or use --device cpu"
        ) from error
    logits = logits.unflatten(0, views.shape[:2])
    if average == "logits":
        return logits.mean(dim=1).cpu().numpy()
    # The logarithm of the mean, taken so that no probability is too small to have one.
    mean = logits.log_softmax(dim=-1).logsumexp(dim=1) - math.log(logits.shape[1])
    return mean.cpu().numpy()


def evaluate(
    labeller: Labeller,
    samples: Samples,
    protocol: Protocol,
    *,
    split: str,
    probe: bool = False,
    scores_file: str | Path | None = None,
    wrong_file: str | Path | None = None,
    false_alarms: float | None = None,
    none: Samples | None = None,
    batch: int = 16,
    workers: int = 0,
    seed: int = 0,
    quiet: bool = False,
    group: Together = ALONE,
) -> dict[str, Any]:
    """Accuracies over the videos that could be scored; the answer has the fields of ``ssan eval --json``.

    Of a split whose labels are not public, such as the test splits of Something-Something, only scores can be had: the
    accuracies are then None, and the labels in the score file -1.

    :param wrong_file: for the videos that were answered wrongly; the answer has the worst of them.
    :param false_alarms: choose a threshold by this share of false alarms (``choose_threshold``).
    :param none: videos of none of the classes, for that choice.
    :param group: of several processes each scores a share; all have the answer, and the first writes the files.
    :raises UsageError: the model's classes are not the data's, some videos have no label (or all, and there is no
        ``scores_file``), or none could be scored.
    """
    _check_what_is_asked(labeller, samples, split, scores_file)
    if false_alarms is not None and any(sample.label_index is None for sample in samples):
        raise UsageError(
            f"a threshold is chosen by videos whose labels are known, and those of {split!r} have none; name another "
            "split",
            path=samples.source,
        )
    full = protocol.as_dict(labeller.preprocess, split)
    result = score(
        labeller, samples, protocol, probe=probe, batch=batch, workers=workers, seed=seed, quiet=quiet, group=group
    )
    _refuse_useless(result, samples)
    labels = np.array([UNKNOWN if sample.label_index is None else sample.label_index for sample in result.samples])
    scores = result.scores["as_sampled"]
    known = labels != UNKNOWN
    wrong = wrong_answers(result.samples, scores, labeller.classes)
    answer: dict[str, Any] = {
        "num_scored": len(labels),
        "num_missing": len(result.missing),
        "num_failed": len(result.errors),
        **accuracies(scores, labels),
        "protocol": full,
        "per_class": per_class(scores[known], labels[known], labeller.classes),
        "confusion": confusion_counts(scores, labels),
        "num_wrong": len(wrong) if known.all() else None,
        "wrong": wrong[:MOST_WRONG],
        "failed": [error.as_dict() for error in result.errors],
        "missing": [sample.path for sample in result.missing],
    }
    if probe:
        answer["probe"] = {
            "reversed_top1": accuracy(result.scores["reversed"], labels) if known.all() else None,
            "shuffled_top1": accuracy(result.scores["shuffled"], labels) if known.all() else None,
            "reversed_same_prediction": _same_prediction(result),
        }
    if false_alarms is not None:
        others = None
        if none is not None:
            found = score(labeller, none, protocol, batch=batch, workers=workers, seed=seed, quiet=quiet, group=group)
            _refuse_useless(found, none)
            answer["failed"] += [error.as_dict() for error in found.errors]  # told, and no part of what is measured
            others = found.scores["as_sampled"]
        answer["threshold"] = choose_threshold(scores, labels, false_alarms, others).as_dict()
    if wrong_file is not None and group.first:
        write_wrong(wrong_file, wrong)
    if scores_file is not None and group.first:
        ids = [sample.id for sample in result.samples]
        write_scores(scores_file, ids, scores, labels, labeller.classes, full)
    return answer


def _same_prediction(result: Scores) -> float:
    """The share of the videos whose answer is the same with their frames reversed."""
    forwards, backwards = (result.scores[order].argmax(axis=1) for order in ("as_sampled", "reversed"))
    return float((forwards == backwards).mean())


@dataclass(frozen=True)
class Reversal:
    """What reversing the frames of labelled videos does to a model's answers.

    :param num: videos that were looked at, of ``num_listed``.
    :param same_prediction: the share of them with the same answer.
    :param top1: accuracy with frames as sampled.
    :param reversed_top1: accuracy with the same frames reversed; the labels stay.
    :param num_answers: how many classes the answers are of, with frames as sampled; of one, nothing can be told.
    """

    num: int
    num_listed: int
    same_prediction: float
    top1: float
    reversed_top1: float
    num_answers: int


def reversal(
    labeller: Labeller,
    samples: Samples,
    *,
    most: int = MOST_REVERSED,
    batch: int = 16,
    workers: int = 0,
    seed: int = 0,
    quiet: bool = False,
) -> Reversal | None:
    """Ask a model about videos with their frames as sampled and reversed; None where none of them can be read.

    :param samples: labelled videos; of more than ``most`` so many are drawn, from ``seed`` alone.
    """
    chosen = list(samples)
    if len(chosen) > most:
        drawn = np.random.default_rng(seed).choice(len(chosen), most, replace=False)
        chosen = [chosen[index] for index in sorted(drawn.tolist())]
    result = score(
        labeller, samples.kept(chosen), Protocol(), orders=ORDERS[:2], batch=batch, workers=workers, quiet=quiet
    )
    if not result.samples:
        return None
    labels = np.array([sample.label_index for sample in result.samples])
    return Reversal(
        num=len(labels),
        num_listed=len(samples),
        same_prediction=_same_prediction(result),
        top1=accuracy(result.scores["as_sampled"], labels),
        reversed_top1=accuracy(result.scores["reversed"], labels),
        num_answers=len(np.unique(result.scores["as_sampled"].argmax(axis=1))),
    )


def _check_what_is_asked(labeller: Labeller, samples: Samples, split: str, scores_file: str | Path | None) -> None:
    if samples.classes != labeller.classes:
        raise UsageError(_class_difference(labeller.classes, samples.classes), code="wrong_model", path=samples.source)
    if not samples:
        raise UsageError(f"there are no videos in the split {split!r}; name another with --split", path=samples.source)
    if scores_file is not None:
        check_name(scores_file)
    num_unlabelled = sum(sample.label_index is None for sample in samples)
    if num_unlabelled and (num_unlabelled < len(samples) or scores_file is None):
        raise UsageError(
            f"{num_unlabelled} of {len(samples)} videos have no label, so nothing can be measured; "
            + (
                "expected labels for all or for none: evaluate a split at a time"
                if num_unlabelled < len(samples)
                else "--scores FILE.npz keeps their scores, `ssan predict` labels them"
            ),
            path=samples.source,
        )


def _refuse_useless(result: Scores, samples: Samples) -> None:
    """Refuse scores of no video, and those that are no numbers."""
    if not result.samples:
        first = f", first: {result.errors[0]}" if result.errors else ""
        raise UsageError(
            f"none of {len(samples)} videos could be scored: {len(result.missing)} missing, {len(result.errors)} "
            f"failed{first}. Look at --data and --videos",
            path=samples.source,
        )
    if not all(np.isfinite(rows).all() for rows in result.scores.values()):
        raise UsageError("the model's scores are NaN or infinite; its weights are unusable", code="nan")


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
