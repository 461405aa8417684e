"""Labels in doubt: counts and orders worked by hand, exchanged labels found, and the table that is mended read back."""

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from coloured_clips import write_clip
from ssan.datasets import Sample
from ssan.datasets.source import DataSource
from ssan.errors import UsageError
from ssan.probe.label_audit import (
    NOBODY,
    audit_labels,
    confident_joint,
    duplicates,
    likely_classes,
    out_of_fold,
    suspects,
)
from ssan.weights.classifier_file import load_labeller

PERSON = "/([a-z]+)_[0-9]"
COMMON = ("--workers", "0", "--quiet", "--device", "cpu")

# The mean of class 0 over its own is 0.6, of class 1 over its own 0.6; class 2 has no clip.
PROBABILITIES = np.array([[0.9, 0.1, 0.0], [0.6, 0.4, 0.0], [0.3, 0.7, 0.0], [0.2, 0.8, 0.0], [0.6, 0.4, 0.0]])
LABELS = np.array([0, 0, 0, 1, 1])


def test_the_confident_joint_worked_by_hand() -> None:
    likely = likely_classes(PROBABILITIES, LABELS)
    assert likely.tolist() == [0, 0, 1, 1, 0]
    assert confident_joint(likely, LABELS, 3).tolist() == [[2, 1, 0], [1, 1, 0], [0, 0, 0]]


def test_a_clip_that_reaches_no_class_s_mean_counts_for_none() -> None:
    probabilities, labels = np.array([[0.95, 0.05], [0.65, 0.35], [0.1, 0.9]]), np.array([0, 0, 1])
    likely = likely_classes(probabilities, labels)
    assert likely.tolist() == [0, NOBODY, 1]
    assert confident_joint(likely, labels, 2).sum() == 2


def test_of_several_classes_that_count_the_most_probable_does_and_not_the_most_probable_of_all() -> None:
    # Means: 0.3, 0.5 and 0.9. The last clip's highest class is 2, which is below its mean.
    probabilities = np.array([[0.3, 0.3, 0.4], [0.2, 0.5, 0.3], [0.1, 0.0, 0.9], [0.35, 0.2, 0.45]])
    likely = likely_classes(probabilities, np.array([0, 1, 2, 2])[[0, 1, 2, 2]])
    assert likely[3] == 0


def test_suspects_come_the_least_probable_label_first() -> None:
    likely = likely_classes(PROBABILITIES, LABELS)
    found = suspects(PROBABILITIES, LABELS, likely, np.full(5, True))
    assert [(s.item, s.probability, s.suggested, s.suggested_probability, s.confident) for s in found] == [
        (2, 0.3, 1, 0.7, True), (4, 0.4, 0, 0.6, True),
    ]  # fmt: skip
    assert [s.item for s in suspects(PROBABILITIES, LABELS, likely, np.array([1, 1, 0, 1, 1], bool))] == [4]


def test_a_class_that_is_likelier_is_a_doubt_also_where_it_is_not_confident() -> None:
    probabilities, labels = np.array([[0.45, 0.55], [0.9, 0.1], [0.1, 0.9]]), np.array([0, 0, 1])
    (found,) = suspects(probabilities, labels, likely_classes(probabilities, labels), np.full(3, True))
    assert (found.item, found.suggested, found.confident) == (0, 1, False)


def test_a_clip_whose_class_its_head_has_never_seen_is_not_asked() -> None:
    class Told:
        labels, seed = np.array([0, 0, 1, 1, 2]), 0

        def answers(self, train: np.ndarray, items: np.ndarray, seed: int) -> np.ndarray:
            assert not set(train) & set(items)
            return np.log(np.tile([0.5, 0.25, 0.25], (len(items), 1)))

    splits = [(np.array([0, 2]), np.array([1, 3, 4])), (np.array([1, 3, 4]), np.array([0, 2]))]
    probabilities, asked = out_of_fold(Told(), splits, 3)  # type: ignore[arg-type]
    assert asked.tolist() == [True, True, True, True, False]
    np.testing.assert_allclose(probabilities, np.tile([0.5, 0.25, 0.25], (5, 1)))


def test_near_duplicates_are_found_within_a_split_and_across_two() -> None:
    rows = np.random.default_rng(0).normal(size=(12, 8))
    rows[1] = rows[0] + 1e-4  # within train
    rows[9] = rows[0] + 2e-4  # the nearest of another split, though not the nearest of all
    pairs = {pair[:2] for pair in duplicates(rows, ["train"] * 6 + ["val"] * 6)}
    assert {(0, 1), (0, 9)} <= pairs <= {(0, 1), (0, 9), (1, 9)}
    found = duplicates(rows, [None] * 12)
    assert (0, 1) in {pair[:2] for pair in found}
    assert [pair[2] for pair in found] == sorted((pair[2] for pair in found), reverse=True)


@pytest.fixture(scope="module")
def mislabelled(people: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The clips of ``people``, of which a red one lies among the blue, with a copy of a green one."""
    root = tmp_path_factory.mktemp("mislabelled") / "clips"
    shutil.copytree(people, root)
    (root / "red" / "ann_0").rename(root / "blue" / "ann_7")
    shutil.copytree(root / "green" / "bob_0", root / "green" / "dan_8")
    return root


@pytest.mark.slow
def test_a_label_that_was_exchanged_is_the_first_doubt(mislabelled: Path, untrained: Path, tmp_path: Path) -> None:
    source = DataSource(str(mislabelled), "folder", {"groups": PERSON})
    found = audit_labels(load_labeller(untrained), source, tmp_path / "features", quiet=True)
    answer = found.as_dict()
    assert answer["num_checked"] == 25
    first = answer["suspects"][0]
    assert (first["path"], first["label"], first["suggested"], first["confident"]) == (
        str(mislabelled / "blue" / "ann_7"), "blue", "red", True,
    )  # fmt: skip
    assert first["probability"] < 0.2 < 0.5 < first["suggested_probability"]
    assert answer["confused"][0] == {"label": "blue", "suggested": "red", "num": 1}
    assert answer["duplicates"][0][:2] == [str(mislabelled / "green" / name) for name in ("bob_0", "dan_8")]
    assert answer["duplicates"][0][2] == pytest.approx(1.0, abs=1e-4)
    assert answer["protocol"]["kind"] == "leave_one_group_out"


@pytest.mark.slow
def test_the_command_writes_a_page_and_a_table_which_is_read_back_when_it_is_mended(
    mislabelled: Path, untrained: Path, tmp_path: Path, ssan: Any
) -> None:
    (broken := mislabelled.parent / "with_a_broken_one").mkdir()
    shutil.copytree(mislabelled, broken, dirs_exist_ok=True)
    (broken / "red" / "cy_9.mp4").write_bytes(b"")
    out = tmp_path / "audit"
    done = ssan(
        "data", "audit", broken, "--model", untrained, "--groups", "/([a-z]+)_[0-9]", "--val-groups", f"{PERSON}=dan",
        "--out", out, "--json", *COMMON,
    )  # fmt: skip
    assert done.code == 1, done.err  # a clip that cannot be read
    assert done.json["schema"] == 1
    assert done.json["num_skipped"] == 1
    assert done.json["failed"][0]["path"] == str(broken / "red" / "cy_9.mp4")
    assert done.json["num_duplicates_across_splits"] == 1  # bob is for training, dan for validation
    page = Path(done.json["page"]).read_text(encoding="utf-8")
    assert page.count("data:image/jpeg") == len(done.json["suspects"]) + 2 * len(done.json["duplicates"])
    assert "two splits: train and val" in page

    with open(done.json["table"], newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0])[:4] == ["path", "label", "suggested", "probability"]
    assert len(rows) == 26
    assert (rows[0]["path"], rows[0]["suggested"]) == ("blue/ann_7", "red")
    assert float(rows[0]["probability"]) == done.json["suspects"][0]["probability"]
    rows[0]["label"] = rows[0]["suggested"]
    with open(done.json["table"], "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    mended = Path(done.json["table"]).read_bytes()
    again = ssan("data", "audit", broken, "--model", untrained, "--out", out, *COMMON)
    assert (again.code, "may have been mended" in again.err) == (2, True)
    assert Path(done.json["table"]).read_bytes() == mended
    listed = ssan("data", "list", broken, "--annotations", done.json["table"], "--format", "csv", "--json")
    samples = {row["path"]: row for row in map(json.loads, listed.out.splitlines())}
    assert samples[str(broken / "blue" / "ann_7")]["label"] == "red"
    assert len(samples) == 26
    assert {row["split"] for row in samples.values()} == {"train", "val"}
    assert {row["label"] for row in samples.values()} == {"blue", "green", "red"}


@pytest.mark.slow
def test_without_an_out_nothing_is_left_behind_and_words_name_the_doubt(
    mislabelled: Path, untrained: Path, tmp_path: Path, ssan: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    done = ssan("data", "audit", "--data", mislabelled, "--model", untrained, *COMMON)
    assert done.code == 0, done.err
    assert f"{mislabelled / 'blue' / 'ann_7'}: blue (" in done.out.splitlines()[1]
    assert "give --groups" in done.err
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_audited_is_refused(untrained: Path, tmp_path: Path, ssan: Any) -> None:
    for number in range(3):
        write_clip(tmp_path / "data" / "one" / f"ann_{number}", (200, 20, 20), 1.0, number)
    done = ssan("data", "audit", tmp_path / "data", "--model", untrained, *COMMON)
    assert done.code == 2
    assert "single class" in done.err
    assert ssan("data", "audit", tmp_path / "data", "--model", tmp_path / "no.safetensors", *COMMON).code == 2
    (tmp_path / "file").write_text("")
    done = ssan("data", "audit", tmp_path / "data", "--model", untrained, "--out", tmp_path / "file", *COMMON)
    assert done.code == 2
    assert "it is a file" in done.err
    for number in range(3):
        write_clip(tmp_path / "data" / "two" / f"ann_{number}", (20, 20, 200), 1.0, number)
    source, network = DataSource(str(tmp_path / "data"), "folder", {"groups": "(eve)"}), load_labeller(untrained)
    with pytest.raises(UsageError, match="matches nothing"):
        audit_labels(network, source, tmp_path / "features", quiet=True)


def test_samples_of_one_video_are_told_apart_by_their_parts() -> None:
    from ssan.probe.label_audit import LabelAudit

    parts = [Sample(f"v{n}", "v.mp4", "a", 0, start_seconds=float(n), end_seconds=n + 1.0) for n in range(2)]
    doubt = suspects(np.array([[0.1, 0.9], [0.9, 0.1]]), np.zeros(2, int), np.array([1, 0]), np.full(2, True))
    audit = LabelAudit(
        parts, ["a", "b"], np.array([[0.1, 0.9], [0.9, 0.1]]), np.full(2, True), doubt, np.zeros((2, 2), int), [], [],
        {}, [], {},
    )  # fmt: skip
    (row,) = audit.as_dict()["suspects"]
    assert (row["id"], row["start_seconds"], row["end_seconds"]) == ("v0", 0.0, 1.0)
