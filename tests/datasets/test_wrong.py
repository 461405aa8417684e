"""Which answers are wrong, worked by hand."""

import csv
from pathlib import Path

import numpy as np
import pytest

from ssan.datasets import Sample
from ssan.datasets.wrong import write_wrong, wrong_answers

CLASSES = ["up", "down", "left"]
SAMPLES = [
    Sample("a", "a.mp4", "up", 0),
    Sample("b", "b.mp4", "up", 0),
    Sample("c", "c.mp4", "left", 2, start_seconds=1.5, end_seconds=4.0),
    Sample("d", "d.mp4"),
    Sample("e", "e, f.mp4", "down", 1, start_frame=3, end_frame=9),
]
SHARES = np.array([[0.6, 0.3, 0.1], [0.3, 0.5, 0.2], [0.1, 0.8, 0.1], [0.1, 0.1, 0.8], [0.4, 0.4, 0.2]])


def test_the_least_probable_truth_comes_first_and_a_tie_is_wrong() -> None:
    found = wrong_answers(SAMPLES, np.log(SHARES), CLASSES)
    assert [(row["id"], row["label"], row["predicted"]) for row in found] == [
        ("c", "left", "down"), ("b", "up", "down"), ("e", "down", "up"),
    ]  # fmt: skip
    assert [row["probability"] for row in found] == pytest.approx([0.1, 0.3, 0.4])
    assert [row["score"] for row in found] == pytest.approx([0.8, 0.5, 0.4])
    assert (found[0]["start_seconds"], found[0]["end_seconds"]) == (1.5, 4.0)
    assert (found[2]["start_frame"], found[2]["end_frame"]) == (3, 9)
    assert "start_seconds" not in found[1]


def test_without_labels_nothing_is_wrong() -> None:
    assert wrong_answers(SAMPLES[3:4], np.log(SHARES[3:4]), CLASSES) == []


def test_the_file_has_a_line_for_each_with_its_bounds(tmp_path: Path) -> None:
    write_wrong(tmp_path / "wrong.csv", wrong_answers(SAMPLES, np.log(SHARES), CLASSES))
    with open(tmp_path / "wrong.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["path"] for row in rows] == ["c.mp4", "b.mp4", "e, f.mp4"]
    assert (rows[0]["start_seconds"], rows[0]["end_seconds"], rows[0]["start_frame"]) == ("1.5", "4.0", "")
    assert (rows[2]["start_frame"], rows[2]["end_frame"]) == ("3", "9")
