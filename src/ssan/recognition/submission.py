"""Submissions to the leaderboards of Something-Something: a model's answers to the videos of the test split."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ssan.datasets.something import read_test_list
from ssan.datasets.tables import table
from ssan.errors import SsanError, UsageError, few
from ssan.files import replacing
from ssan.recognition.score_file import ScoreFile

Format = Literal["sthv1", "sthv2"]
NUM_ANSWERS = {"sthv1": 1, "sthv2": 5}
COLUMNS = {"sthv1": ["id", "label"], "sthv2": ["id", *(f"c{rank}" for rank in range(1, 6))]}


def write_submission(path: str | Path, scores: ScoreFile, format: Format, annotations: str) -> dict[str, Any]:
    """Write a leaderboard file, whole or not at all; the answer has the fields of ``ssan submission --json``.

    ``sthv1`` has lines ``id;label`` with the text of the likeliest class, ``sthv2`` lines ``id;c1;c2;c3;c4;c5`` with
    the indices, by the official labels file, of the five likeliest, best first. Lines are in the order of the official
    list, no header. The order of classes that the scores have does not matter: they are found by name.

    Unsaid by the publisher, our choice: of classes with equal scores, the one that stands first in the labels file goes
    first (test_of_equal_scores_the_class_of_the_lower_index_goes_first).

    :param annotations: of the test split, see ``read_test_list``.
    :raises UsageError: the classes are not the official ones, or the videos are not exactly those of the list.
    :raises AnnotationError: the official list or the labels are malformed.
    """
    official_ids, official = read_test_list(format, annotations)
    num = NUM_ANSWERS[format]
    if len(official) < num:
        raise UsageError(
            f"{len(official)} classes in the labels, and {format} wants {num} answers for each video; expected the "
            "labels of the whole set",
            path=annotations,
        )
    _check_classes(scores, official, annotations)
    _check_ids(scores, official_ids, annotations)
    column_of = {name: column for column, name in enumerate(scores.classes)}
    row_of = {identity: row for row, identity in enumerate(scores.ids)}
    rows = [row_of[identity] for identity in official_ids]
    own = scores.scores[np.ix_(rows, [column_of[name] for name in official])]
    order = np.argsort(-own, axis=1, kind="stable")
    answers = order[:, :num]
    with replacing(path) as partial:
        with open(partial, "w", encoding="utf-8", newline="") as handle:
            lines = csv.writer(handle, delimiter=";", lineterminator="\n")
            for identity, indices in zip(official_ids, answers.tolist(), strict=True):
                lines.writerow([identity, *(_words(indices, format, official))])
        _read_back(partial, format, official_ids, official, own)
    best = np.take_along_axis(own, order, axis=1)[:, : num + 1]
    return {
        "path": str(path),
        "format": format,
        "num_videos": len(official_ids),
        "num_classes": len(official),
        "num_ties": int((best[:, :-1] == best[:, 1:]).any(axis=1).sum()),
        "scores": scores.path,
        "protocol": scores.protocol,
    }


def _words(indices: Sequence[int], format: Format, official: Sequence[str]) -> list[str]:
    return [official[index] if format == "sthv1" else str(index) for index in indices]


def _check_classes(scores: ScoreFile, official: Sequence[str], annotations: str) -> None:
    known, own = set(official), set(scores.classes)
    only_scores = [name for name in scores.classes if name not in known]
    only_official = [name for name in official if name not in own]
    if only_scores or only_official:
        raise UsageError(
            f"its classes are not those of {annotations}: {len(only_scores)} in the scores only ({few(only_scores)}), "
            f"{len(only_official)} in the labels only ({few(only_official)}); expected the same names, in any order",
            code="unknown_label",
            path=scores.path,
        )


def _check_ids(scores: ScoreFile, official: Sequence[str], annotations: str) -> None:
    known, own = set(official), set(scores.ids)
    missing = [identity for identity in official if identity not in own]
    extra = [identity for identity in scores.ids if identity not in known]
    if missing or extra:
        raise UsageError(
            f"its videos are not the {len(official)} of {annotations}: {len(missing)} are missing ({few(missing)}), "
            f"{len(extra)} are not in the list ({few(extra)}); expected scores of exactly the test split: look at what "
            "`ssan eval --split test` says of missing and failed videos",
            code="missing" if missing else None,
            path=scores.path,
        )


def _read_back(
    path: str, format: Format, official_ids: Sequence[str], official: Sequence[str], own: np.ndarray
) -> None:
    """Read the file as the leaderboard does, and compare it with the scores (n, k) in the official order."""
    rows = [values for _, values in table(path, ";", COLUMNS[format])]
    index_of = {name if format == "sthv1" else str(index): index for index, name in enumerate(official)}
    answers = [[index_of.get(word, -1) for word in words] for _, *words in rows]
    right = [identity for identity, *_ in rows] == list(official_ids) and min(map(min, answers)) >= 0
    if right:
        # Classes that were not named have no higher score than the last that was, and none was named twice.
        indices = np.array(answers)
        named = np.take_along_axis(own, indices, axis=1)
        rest = own.copy()
        np.put_along_axis(rest, indices, -np.inf, axis=1)
        right = bool(
            (np.isneginf(rest).sum(axis=1) == indices.shape[1]).all()
            and (np.diff(named, axis=1) <= 0).all()
            and (rest.max(axis=1) <= named[:, -1]).all()
        )
    if not right:
        raise SsanError("what was read back is not what was written; write it to another disk", path=path)
