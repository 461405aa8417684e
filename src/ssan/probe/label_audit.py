"""Whose label is probably wrong: what heads on frozen features say of clips that they were not fitted on."""

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ssan.datasets.doubts import doubts
from ssan.datasets.samples import Sample
from ssan.datasets.source import DataSource
from ssan.datasets.wrong import bounds_of
from ssan.errors import SsanError
from ssan.probe.doubts import doubts_of_classes, doubts_of_folds, near_duplicates
from ssan.probe.features import describe
from ssan.probe.folds import names_as_numbers
from ssan.probe.probe import (
    NUM_FOLDS,
    Fitter,
    frozen_network,
    groups_by_name,
    read_clips,
    refuse_single_class,
    splits_of,
)
from ssan.weights.labeller import Labeller

NOBODY = -1
MOST_PAIRS = 1000
"""Of near duplicates, the most similar."""


@dataclass(frozen=True)
class Suspect:
    """A clip whose label others' labels speak against.

    :param item: which clip.
    :param probability: of the label it has, by a head fitted without it.
    :param suggested: the class that is likelier, and ``suggested_probability`` its own.
    :param confident: whether the clip counts in the confident joint, off its diagonal.
    """

    item: int
    probability: float
    suggested: int
    suggested_probability: float
    confident: bool


@dataclass(frozen=True)
class LabelAudit:
    """What was found of a set of labelled clips.

    :param samples: the clips that could be read.
    :param probabilities: (n, k) of each class, by a head that the clip, or its group, had no part in.
    :param asked: (n) whether that head knew the clip's class; nothing is said of the others.
    :param suspects: the worst first.
    :param joint: (k, k) confident joint, rows the labels given.
    :param duplicates: pairs of clips with the cosine of their features, the most similar first.
    :param failed: clips that could not be read.
    """

    samples: list[Sample]
    classes: list[str]
    probabilities: np.ndarray
    asked: np.ndarray
    suspects: list[Suspect]
    joint: np.ndarray
    duplicates: list[tuple[int, int, float]]
    failed: list[tuple[Sample, SsanError]]
    protocol: dict[str, Any]
    warnings: list[str]
    seconds: dict[str, float]

    def confused(self) -> list[tuple[int, int, int]]:
        """Pairs of classes (label given, class that is likelier, clips), the most frequent first."""
        pairs = [(int(i), int(j), int(self.joint[i, j])) for i, j in np.argwhere(self.joint) if i != j]
        return sorted(pairs, key=lambda pair: (-pair[2], pair[:2]))

    def as_dict(self) -> dict[str, Any]:
        """The fields of ``ssan data audit --json``."""
        labels = np.array([sample.label_index for sample in self.samples])
        right = self.probabilities.argmax(axis=1) == labels
        paths = [sample.path for sample in self.samples]
        return {
            "num_checked": int(self.asked.sum()),
            "num_skipped": len(self.failed),
            "agreement": float(right[self.asked].mean()) if self.asked.any() else None,
            "num_confident": sum(suspect.confident for suspect in self.suspects),
            "suspects": [self._suspect(suspect) for suspect in self.suspects],
            "confused": [
                {"label": self.classes[i], "suggested": self.classes[j], "num": num} for i, j, num in self.confused()
            ],
            "duplicates": [[paths[i], paths[j], similarity] for i, j, similarity in self.duplicates],
            "num_duplicates_across_splits": sum(
                self.samples[i].split != self.samples[j].split for i, j, _ in self.duplicates
            ),
            "protocol": self.protocol,
            "seconds": self.seconds,
            "warnings": self.warnings,
            "failed": [error.as_dict() for _, error in self.failed],
        }

    def _suspect(self, suspect: Suspect) -> dict[str, Any]:
        sample = self.samples[suspect.item]
        return {
            "path": sample.path,
            "label": sample.label,
            "probability": suspect.probability,
            "suggested": self.classes[suspect.suggested],
            "suggested_probability": suspect.suggested_probability,
            "confident": suspect.confident,
            "split": sample.split,
            "id": sample.id,
            **bounds_of(sample),
        }


def likely_classes(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Of each clip the class that it confidently is, or ``NOBODY`` (-1).

    A class counts for a clip where its probability (n, k) is at least the mean that it has over the clips labelled as
    this class; of several that count, the most probable. (Northcutt, Jiang and Chuang, Confident Learning, 2021,
    section 3.1, equations 1 and 2.) A class without a clip never counts.
    """
    num_classes = probabilities.shape[1]
    least = np.full(num_classes, np.inf)
    for label in np.unique(labels):
        least[label] = probabilities[labels == label, label].mean()
    # Rounding must not keep a clip from its class where all have the same probability.
    counts = np.where(probabilities >= least - 1e-12, probabilities, -1.0)
    return np.where(counts.max(axis=1) >= 0, counts.argmax(axis=1), NOBODY)


def confident_joint(likely: np.ndarray, labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Counts (k, k): rows the labels given, columns what clips confidently are; clips that are nothing do not count."""
    joint = np.zeros((num_classes, num_classes), dtype=np.int64)
    sure = likely != NOBODY
    np.add.at(joint, (labels[sure], likely[sure]), 1)
    return joint


def suspects(probabilities: np.ndarray, labels: np.ndarray, likely: np.ndarray, asked: np.ndarray) -> list[Suspect]:
    """The clips of which another class is likelier, or confidently theirs; the least probable label first.

    Unsaid by the paper, our choice: the order is by the probability of the label given, and confidence is told beside
    it. Pinned by ``test_suspects_come_the_least_probable_label_first``.
    """
    top = probabilities.argmax(axis=1)
    found = []
    for item in np.flatnonzero(asked & ((top != labels) | ((likely != labels) & (likely != NOBODY)))):
        confident = bool(likely[item] not in (labels[item], NOBODY))
        suggested = int(likely[item] if confident else top[item])
        own, other = (float(probabilities[item, index]) for index in (labels[item], suggested))
        found.append(Suspect(int(item), own, suggested, other, confident))
    return sorted(found, key=lambda suspect: (suspect.probability, -suspect.suggested_probability, suspect.item))


def softmax(logits: np.ndarray) -> np.ndarray:
    """Logits (n, k) to probabilities."""
    shares: np.ndarray = np.exp(logits - logits.max(axis=1, keepdims=True))
    return shares / shares.sum(axis=1, keepdims=True)


def out_of_fold(
    fitter: Fitter, splits: Sequence[tuple[np.ndarray, np.ndarray]], num_classes: int
) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities (n, k) of clips by heads that were fitted without them, and which clips (n) were asked fairly.

    Not fairly asked is a clip of a class that its head has never seen.
    """
    labels = fitter.labels
    probabilities, asked = np.zeros((len(labels), num_classes)), np.zeros(len(labels), dtype=bool)
    for train, items in splits:
        probabilities[items] = softmax(fitter.answers(train, items, fitter.seed))
        asked[items] = np.isin(labels[items], labels[train])
    return probabilities, asked


def duplicates(rows: np.ndarray, homes: Sequence[str | None]) -> list[tuple[int, int, float]]:
    """Pairs of near duplicates of features (n, d) among all clips, and across splits where there are several."""
    found = {pair[:2]: pair[2] for pair in near_duplicates(rows, np.arange(len(rows)))[0]}
    sides = names_as_numbers([home or "" for home in homes])
    if len(np.unique(sides)) > 1:
        found |= {pair[:2]: pair[2] for pair in near_duplicates(rows, sides)[0]}
    pairs = sorted(((i, j, similarity) for (i, j), similarity in found.items()), key=lambda row: (-row[2], row[:2]))
    return pairs[:MOST_PAIRS]


def audit_labels(
    labeller: Labeller,
    source: DataSource,
    store: str | Path,
    *,
    num_folds: int = NUM_FOLDS,
    views: int = 1,
    batch: int = 16,
    workers: int = 0,
    seed: int = 0,
    quiet: bool = False,
) -> LabelAudit:
    """Ask of each clip of all splits, of heads fitted on the others, how probable its label is.

    :param source: ``groups`` among its options is the regex of groups, which are left out whole.
    :param store: folder of the features.
    :param num_folds: where there are no groups.
    :raises UsageError: the data or the store do not allow it.
    """
    regex = source.options.get("groups")
    asked_for = read_clips(source, way="folds" if regex is None else "groups")
    listed, classes = asked_for.train, asked_for.train.classes
    names = None if regex is None else groups_by_name(listed, source.root, regex)
    frozen = frozen_network(labeller)
    features = describe(
        frozen, listed, store, root=source.folder, num_views=views, batch=batch, workers=workers, quiet=quiet
    )
    began = time.perf_counter()
    failed = {id(sample) for sample, _ in features.failed}
    kept = [place for place, sample in enumerate(listed) if id(sample) not in failed]
    samples = [listed[place] for place in kept]
    labels = np.array([sample.label_index for sample in samples])
    groups = None if names is None else names_as_numbers([names[place] for place in kept])
    splits = splits_of(asked_for, np.zeros(len(samples)), labels, groups, num_folds, seed)
    for train, _ in splits:
        refuse_single_class(labels[train], listed)
    fitter = Fitter("linear", features, labels, groups, len(classes), seed)
    probabilities, asked = out_of_fold(fitter, splits, len(classes))
    likely = np.full(len(samples), NOBODY)
    likely[asked] = likely_classes(probabilities[asked], labels[asked])
    warnings = doubts(listed) + doubts_of_classes(labels, None, classes) + doubts_of_folds(splits, labels, classes)
    if groups is None:
        warnings.append(
            "nothing says which clips are of one person or recording: a wrong label that all clips of one have is not "
            "seen as one; give --groups 'REGEX'"
        )
    if len(features.failed):
        codes = Counter(error.code for _, error in features.failed)
        num = len(features.failed)
        warnings.append(
            f"{num} {'clip' if num == 1 else 'clips'} cannot be read: "
            + ", ".join(f"{times} {code}" for code, times in codes.items())
        )
    return LabelAudit(
        samples=samples,
        classes=classes,
        probabilities=probabilities,
        asked=asked,
        suspects=suspects(probabilities, labels, likely, asked),
        joint=confident_joint(likely, labels, len(classes)),
        duplicates=duplicates(fitter.pooled.mean(axis=1), [sample.split for sample in samples]),
        failed=features.failed,
        protocol={
            "kind": asked_for.way,
            "num_folds": len(splits),
            **({"groups": regex} if regex is not None else {}),
            "frozen": frozen.name,
            "frozen_hash": frozen.hash,
            "views": views,
            **labeller.preprocess.as_dict(),
        },
        warnings=warnings,
        seconds={"features": round(features.seconds, 3), "heads": round(time.perf_counter() - began, 3)},
    )
