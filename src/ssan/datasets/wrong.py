"""Which videos a model answered wrongly: a list of them, the worst first, and the same as a file."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ssan.datasets.audit import as_csv
from ssan.datasets.samples import Sample
from ssan.files import writing
from ssan.training.metrics import ranks

MOST_WRONG = 100
"""So many are named in an answer and in a journal; a file has all."""

COLUMNS = ("path", "label", "predicted", "score", "probability", "id", "start_seconds", "end_seconds", "start_frame",
           "end_frame")  # fmt: skip


def wrong_answers(samples: Sequence[Sample], scores: np.ndarray, classes: Sequence[str]) -> list[dict[str, Any]]:
    """The videos of which another class has a score as high as their own; the least probable truth first.

    Each is ``path``, ``label`` (the truth), ``predicted``, ``score`` (the share of the softmax of the class predicted),
    ``probability`` (of the truth), ``id``, and the bounds of a part of a video.

    :param samples: videos without a label are passed over, as nothing is known of them.
    :param scores: (n, k), as accuracies are made of.
    """
    known = [place for place, sample in enumerate(samples) if sample.label_index is not None]
    if not known:
        return []
    scores = scores[known].astype(np.float64)
    labels = np.array([samples[place].label_index for place in known])
    shares = np.exp(scores - scores.max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)
    others = scores.copy()
    others[np.arange(len(known)), labels] = -np.inf
    predicted = others.argmax(axis=1)
    found = []
    for row in np.flatnonzero(ranks(scores, labels) > 0):
        sample = samples[known[row]]
        found.append(
            {
                "path": sample.path,
                "label": classes[labels[row]],
                "predicted": classes[predicted[row]],
                "score": float(shares[row, predicted[row]]),
                "probability": float(shares[row, labels[row]]),
                "id": sample.id,
                **bounds_of(sample),
            }
        )
    return sorted(found, key=lambda answer: (answer["probability"], -answer["score"], answer["id"]))


def bounds_of(sample: Sample) -> dict[str, Any]:
    """The bounds of the part of a video that a sample is, by their names; nothing of a whole video."""
    start, end = sample.seconds
    bounds = {
        "start_seconds": start, "end_seconds": end, "start_frame": sample.start_frame, "end_frame": sample.end_frame,
    }  # fmt: skip
    return {name: value for name, value in bounds.items() if value is not None}


def write_wrong(path: str | Path, answers: Sequence[Mapping[str, Any]]) -> None:
    """Write wrong answers as CSV, a line each."""
    rows = [[answer.get(column, "") for column in COLUMNS] for answer in answers]
    with writing(path) as handle:
        handle.write(as_csv([COLUMNS, *rows]))
