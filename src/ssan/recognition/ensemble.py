"""Ensembles, several models as one: their scores of the same videos, added."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ssan.errors import UsageError, few
from ssan.files import sha256
from ssan.recognition.score_file import UNKNOWN, ScoreFile, as_kept, read_scores, write_scores
from ssan.training.metrics import accuracies

Average = Literal["logits", "probabilities"]


@dataclass(frozen=True)
class Ensemble:
    """Members added up.

    :param ids: of the videos, in the order of the first member.
    :param scores: (n, k), rounded as a score file keeps them, so that whoever reads the file counts the same answers.
    :param labels: (n), indices into ``classes``; -1 where no member knows the class.
    :param answer: the fields of ``ssan ensemble --json``.
    """

    ids: list[str]
    scores: np.ndarray
    labels: np.ndarray
    classes: list[str]
    answer: dict[str, Any]


def ensemble(paths: Sequence[str], *, weights: Sequence[float] | None = None, average: Average = "logits") -> Ensemble:
    """Add the scores of members, video by video, with equal weight unless ``weights`` are given.

    With the weights w divided by their sum, the scores of a video become, for members with scores s_1, s_2, ...

        logits:         w_1 s_1 + w_2 s_2 + ...
        probabilities:  log(w_1 softmax(s_1) + w_2 softmax(s_2) + ...)

    A member whose own views were averaged as probabilities holds logarithms of them; these differ from logits by one
    number for all classes of a video, which changes no order of classes in either sum.

    Unsaid by the paper, our choice: SSA_En (tables 1 and 4) adds logits, with equal weight
    (test_two_members_are_added_as_by_hand, test_probabilities_are_added_after_the_softmax_of_each_member).

    The protocol has the settings that all members share, ``ensemble`` (what was added, ``average``) and ``members``.

    :raises UsageError: there are fewer than two members, or one twice; a weight is not above 0; a file is no score file
        (``read_scores``); the members' videos, classes, splits or labels differ; some videos have a label and some
        none.
    """
    if len(paths) < 2:
        raise UsageError(f"{len(paths)} score file was given; an ensemble needs two or more")
    weights = [1.0] * len(paths) if weights is None else list(weights)
    if len(weights) != len(paths):
        raise UsageError(f"{len(weights)} weights for {len(paths)} score files; give one for each, in their order")
    if not all(0 < weight < math.inf for weight in weights):
        raise UsageError(f"the weights are {weights}; they must be above 0: leave out a file that shall not count")
    files = [read_scores(path) for path in paths]
    hashes = [sha256(path) for path in paths]
    for index, own in enumerate(hashes):
        if own in hashes[:index]:
            raise UsageError(
                f"it holds the same as {paths[hashes.index(own)]}, which would count twice; leave one out, or use "
                "--weights",
                code="duplicate",
                path=paths[index],
            )
    first = files[0]
    aligned = [first.scores, *(_scores_in_order_of(first, other) for other in files[1:])]
    labels = _common_labels(files)
    shares = np.array(weights) / math.fsum(weights)
    scores = as_kept(_added(aligned, shares, average)).astype(np.float64)
    members = [
        {"path": file.path, "sha256": own, "weight": weight, **accuracies(rows, labels), "protocol": file.protocol}
        for file, own, weight, rows in zip(files, hashes, weights, aligned, strict=True)
    ]
    kept = ("path", "sha256", "weight", "protocol")
    protocol = {
        **_shared([file.protocol for file in files]),
        "ensemble": average,
        "members": [{key: member[key] for key in kept} for member in members],
    }
    answer = {"num_videos": len(first.ids), "members": members, **accuracies(scores, labels), "protocol": protocol}
    return Ensemble(first.ids, scores, labels, first.classes, answer)


def write_ensemble(path: str | Path, whole: Ensemble) -> None:
    """Write the scores of an ensemble as a score file whose protocol names the members."""
    write_scores(path, whole.ids, whole.scores, whole.labels, whole.classes, whole.answer["protocol"])


def _shared(protocols: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The settings that all members have with one value, and the split, from any member that names it."""
    first = protocols[0]
    agreed = {key for key in first if all(key in other and other[key] == first[key] for other in protocols)}
    split = next((protocol["split"] for protocol in protocols if "split" in protocol), None)
    return {"split": split, **{key: first[key] for key in first if key in agreed and key != "split"}}


def _added(aligned: Sequence[np.ndarray], shares: np.ndarray, average: Average) -> np.ndarray:
    if average == "logits":
        return np.add.reduce([share * rows for share, rows in zip(shares, aligned, strict=True)])
    terms = [_log_softmax(rows) + math.log(share) for share, rows in zip(shares, aligned, strict=True)]
    return np.logaddexp.reduce(terms)


def _log_softmax(scores: np.ndarray) -> np.ndarray:
    below = scores - scores.max(axis=1, keepdims=True)
    return below - np.log(np.exp(below).sum(axis=1, keepdims=True))


def _scores_in_order_of(first: ScoreFile, other: ScoreFile) -> np.ndarray:
    """The scores of ``other`` with its videos in the order of ``first``; files that cannot be added are refused."""
    pair = f"{first.path} and {other.path}"
    splits = [file.protocol.get("split") for file in (first, other)]
    if None not in splits and splits[0] != splits[1]:
        raise UsageError(
            f"{pair} are of other splits, {splits[0]!r} and {splits[1]!r}; score the same videos with each member"
        )
    if first.classes != other.classes:
        raise UsageError(_class_difference(first, other), code="unknown_label")
    row_of = {identity: row for row, identity in enumerate(other.ids)}
    known = set(first.ids)
    only_first = [identity for identity in first.ids if identity not in row_of]
    only_other = [identity for identity in other.ids if identity not in known]
    if only_first or only_other:
        raise UsageError(
            f"{pair} are not about the same videos: {len(only_first)} in the first only ({few(only_first)}), "
            f"{len(only_other)} in the second only ({few(only_other)}), {len(known) - len(only_first)} in both; score "
            "the same videos with each member"
        )
    return other.scores[[row_of[identity] for identity in first.ids]]


def _class_difference(first: ScoreFile, other: ScoreFile) -> str:
    pair = f"{first.path} and {other.path}"
    only_first, only_other = sorted({*first.classes} - {*other.classes}), sorted({*other.classes} - {*first.classes})
    if only_first or only_other:
        return (
            f"{pair} have other classes: {len(only_first)} in the first only ({few(only_first)}), {len(only_other)} "
            f"in the second only ({few(only_other)}); expected models of the same classes"
        )
    index = next(n for n, names in enumerate(zip(first.classes, other.classes, strict=True)) if len({*names}) == 2)
    return (
        f"{pair} have the same classes in another order, from class {index} on ({first.classes[index]!r} and "
        f"{other.classes[index]!r}); score both with the same list of classes (--reader class_order=..., --classes of "
        "ssan import)"
    )


def _common_labels(files: Sequence[ScoreFile]) -> np.ndarray:
    """The label of each video of the first file, from any file that knows it."""
    first = files[0]
    labels = first.labels
    for other in files[1:]:
        row_of = {identity: row for row, identity in enumerate(other.ids)}
        others = other.labels[[row_of[identity] for identity in first.ids]]
        different = np.flatnonzero((labels != others) & (labels != UNKNOWN) & (others != UNKNOWN))
        if len(different):
            row = different[0]
            raise UsageError(
                f"{len(different)} of {len(labels)} videos have one label in {other.path} and another in the files "
                f"before it; the first is {first.ids[row]!r}: {first.classes[others[row]]!r} and "
                f"{first.classes[labels[row]]!r}. Score all with the same annotations: labels must not differ",
                code="unknown_label",
            )
        labels = np.where(labels == UNKNOWN, others, labels)
    num_unknown = int((labels == UNKNOWN).sum())
    if 0 < num_unknown < len(labels):
        raise UsageError(
            f"{num_unknown} of {len(labels)} videos have no label in any of the files; expected labels for all or for "
            "none: score a split at a time"
        )
    return labels
