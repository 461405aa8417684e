"""Leaderboard files: lines worked by hand, all layouts and orders of classes, lists that the scores do not fit."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ssan.cli.main import status
from ssan.datasets.something import read_test_list
from ssan.errors import AnnotationError, SsanError, UsageError
from ssan.recognition import submission
from ssan.recognition.score_file import ScoreFile, read_scores, write_scores
from ssan.recognition.submission import write_submission

CLASSES = ["Throwing something", "Closing something", "Pouring; slowly", "Bending something", "Opening something",
           'Showing a "sign"', "Approaching something"]  # fmt: skip
IDS = ["31", "7", "103"]  # in the official order, which is none
#           0    1    2    3    4    5    6
SCORES = {
    "31": [0.5, 3.0, -1.0, 2.0, 7.0, 1.0, 0.0],
    "7": [9.0, 8.0, 7.0, 6.0, 5.0, 4.0, 3.0],
    "103": [0.0, 1.0, 2.0, 2.0, 2.0, 2.0, 1.0],  # four are level, then two
}
V2_LINES = ["31;4;1;3;5;0", "7;0;1;2;3;4", "103;2;3;4;5;1"]
V1_LINES = ["31;Opening something", "7;Throwing something", '103;"Pouring; slowly"']


def write(path: Path, classes: list[str], ids: list[str], rows: dict[str, list[float]] = SCORES) -> str:
    """Scores in an order of classes and videos."""
    scores = [[rows[identity][CLASSES.index(name)] for name in classes] for identity in ids]
    write_scores(path, ids, np.array(scores), [-1] * len(ids), classes, {"split": "test"})
    return str(path)


@pytest.fixture
def scores(tmp_path: Path) -> str:
    """As a model of the sorted classes gives them, read in another order of videos."""
    return write(tmp_path / "scores.npz", sorted(CLASSES), ["103", "31", "7"])


@pytest.fixture
def v2(tmp_path: Path) -> Path:
    root = tmp_path / "v2"
    root.mkdir()
    # Not in the order of the indices, which are what counts.
    labels = {name: str(CLASSES.index(name)) for name in sorted(CLASSES)}
    (root / "something-something-v2-labels.json").write_text(json.dumps(labels))
    (root / "something-something-v2-test.json").write_text(json.dumps([{"id": identity} for identity in IDS]))
    return root


@pytest.fixture
def v1(tmp_path: Path) -> Path:
    root = tmp_path / "v1"
    root.mkdir()
    quoted = ['"Pouring; slowly"' if ";" in name else name for name in CLASSES]
    quoted = ['"Showing a ""sign"""' if "sign" in name else name for name in quoted]
    (root / "something-something-v1-labels.csv").write_text("\n".join(quoted) + "\n")
    (root / "something-something-v1-test.csv").write_text("\n".join(IDS) + "\n")
    return root


def test_lines_of_v2_are_as_by_hand(scores: str, v2: Path, tmp_path: Path) -> None:
    answer = write_submission(tmp_path / "out.csv", read_scores(scores), "sthv2", str(v2))
    assert (tmp_path / "out.csv").read_text() == "\n".join(V2_LINES) + "\n"
    assert answer == {
        "path": str(tmp_path / "out.csv"), "format": "sthv2", "num_videos": 3, "num_classes": 7, "num_ties": 1,
        "scores": scores, "protocol": {"split": "test"},
    }  # fmt: skip


def test_lines_of_v1_have_the_text_of_the_class(scores: str, v1: Path, tmp_path: Path) -> None:
    answer = write_submission(tmp_path / "out.csv", read_scores(scores), "sthv1", str(v1))
    assert (tmp_path / "out.csv").read_text() == "\n".join(V1_LINES) + "\n"
    assert (answer["format"], answer["num_ties"]) == ("sthv1", 1)


@pytest.mark.parametrize("order", [CLASSES, sorted(CLASSES), CLASSES[::-1]], ids=["file", "sorted", "backwards"])
def test_the_order_of_classes_and_videos_of_the_scores_does_not_matter(
    order: list[str], v1: Path, v2: Path, tmp_path: Path
) -> None:
    for ids in (IDS, IDS[::-1]):
        held = read_scores(write(tmp_path / "x.npz", order, ids))
        for format, root, lines in (("sthv1", v1, V1_LINES), ("sthv2", v2, V2_LINES)):
            write_submission(tmp_path / "out.csv", held, format, str(root))  # type: ignore[arg-type]
            assert (tmp_path / "out.csv").read_text().splitlines() == lines


def test_of_equal_scores_the_class_of_the_lower_index_goes_first(v2: Path, v1: Path, tmp_path: Path) -> None:
    level = {identity: [0.0] * 7 for identity in IDS}
    held = read_scores(write(tmp_path / "x.npz", CLASSES[::-1], IDS, level))
    assert write_submission(tmp_path / "out.csv", held, "sthv2", str(v2))["num_ties"] == 3
    assert (tmp_path / "out.csv").read_text().splitlines()[0] == "31;0;1;2;3;4"
    write_submission(tmp_path / "out.csv", held, "sthv1", str(v1))
    assert (tmp_path / "out.csv").read_text().splitlines()[0] == "31;Throwing something"


def test_equal_scores_below_the_answers_are_no_tie(v2: Path, tmp_path: Path) -> None:
    rows = {identity: [7.0, 6.0, 5.0, 4.0, 3.0, 1.0, 1.0] for identity in IDS}
    assert write_submission(
        tmp_path / "o.csv", read_scores(write(tmp_path / "x.npz", CLASSES, IDS, rows)), "sthv2", str(v2)
    )["num_ties"] == 0  # fmt: skip
    rows["7"] = [7.0, 6.0, 5.0, 4.0, 3.0, 3.0, 1.0]  # the fifth and the sixth: the rule has decided
    assert write_submission(
        tmp_path / "o.csv", read_scores(write(tmp_path / "x.npz", CLASSES, IDS, rows)), "sthv2", str(v2)
    )["num_ties"] == 1  # fmt: skip


def test_the_list_is_found_in_every_layout(v1: Path, v2: Path, tmp_path: Path) -> None:
    expected = IDS, CLASSES
    second = tmp_path / "second" / "labels"
    shutil.copytree(v2, second)
    for path in list(second.iterdir()):
        path.rename(second / path.name.removeprefix("something-something-v2-"))
    below = tmp_path / "below" / "labels"
    shutil.copytree(v1, below)
    for format, annotations in (
        ("sthv2", v2),
        ("sthv2", v2 / "something-something-v2-test.json"),
        ("sthv2", second.parent),
        ("sthv2", second / "test.json"),
        ("sthv1", v1),
        ("sthv1", v1 / "something-something-v1-test.csv"),
        ("sthv1", below.parent),
    ):
        assert read_test_list(format, str(annotations)) == expected  # type: ignore[arg-type]


@pytest.mark.parametrize("format", ["sthv1", "sthv2"])
def test_missing_and_extra_videos_are_refused_and_nothing_is_written(
    format: str, v1: Path, v2: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    root, out = {"sthv1": v1, "sthv2": v2}[format], tmp_path / "out.csv"
    out.write_text("yesterday's")
    rows = {**SCORES, "55": [0.0] * 7, "56": [0.0] * 7}
    for ids, words in (
        (["31", "7"], "1 are missing ('103'), 0 are not in the list (none)"),
        (["31", "7", "103", "55", "56"], "0 are missing (none), 2 are not in the list ('55', '56')"),
        (["55"], "3 are missing ('31', '7', '103'), 1 are not in the list ('55')"),
    ):
        held = write(tmp_path / "x.npz", CLASSES, ids, rows)
        assert status(["submission", held, "--format", format, "--annotations", str(root), "-o", str(out)]) == 2
        said = capfd.readouterr()
        assert (said.out, said.err) == (
            "",
            f"ssan: {held}: its videos are not the 3 of {root}: {words}; expected scores of exactly the test split: "
            "look at what `ssan eval --split test` says of missing and failed videos\n",
        )
        assert out.read_text() == "yesterday's"


def test_classes_of_other_names_are_refused_and_named(v2: Path, tmp_path: Path) -> None:
    names = [name.replace("Closing", "Shutting") for name in CLASSES]
    held = tmp_path / "x.npz"
    write_scores(held, IDS, np.array(list(SCORES.values())), [-1] * 3, [*names, "Waiting"][:8][1:], {})
    with pytest.raises(UsageError) as caught:
        write_submission(tmp_path / "out.csv", read_scores(held), "sthv2", str(v2))
    assert str(caught.value) == (
        f"{held}: its classes are not those of {v2}: 2 in the scores only ('Shutting something', 'Waiting'), 2 in the "
        "labels only ('Throwing something', 'Closing something'); expected the same names, in any order"
    )
    assert caught.value.code == "unknown_label"


def test_lists_that_are_not_official_are_refused(scores: str, v1: Path, v2: Path, tmp_path: Path) -> None:
    held, out = read_scores(scores), tmp_path / "out.csv"

    def refuse(format: str, annotations: Path, expected: str, kind: type[SsanError] = UsageError) -> None:
        with pytest.raises(kind, match=expected):
            write_submission(out, held, format, str(annotations))  # type: ignore[arg-type]
        assert not out.exists()

    refuse("sthv2", v1, "no Something-Something V2 annotations here")
    refuse("sthv1", v2, "no something-something-v1-labels.csv here")
    refuse("sthv2", v2 / "something-something-v2-labels.json", r"expected the list of the test split, .* test\.json")
    refuse("sthv1", v2 / "something-something-v2-test.json", r"expected the list of the test split, .* test\.csv")
    refuse("sthv2", tmp_path / "absent-test.json", "no such file")
    named = v2 / "something-something-v2-test.json"
    for content, expected in (
        ('[{"id": "31"}, {"id": "7"}, {"id": "31"}]', "entry 3: the id '31' stands in entry 1 too"),
        ('[{"id": "31/7"}]', "'31/7' is not a file name"),
        ("[]", "there is nothing in it"),
        ("{}", "expected a list of entries"),
    ):
        named.write_text(content)
        refuse("sthv2", v2, expected, AnnotationError)
    (v1 / "something-something-v1-test.csv").write_text("31\n7;Throwing something\n103\n")
    refuse("sthv1", v1, r"test.csv line 2: expected id, and found 2 values", AnnotationError)
    (v2 / "something-something-v2-labels.json").write_text('{"a": "0", "b": "1", "c": "2", "d": "3"}')
    named.write_text('[{"id": "31"}]')
    refuse("sthv2", v2, "4 classes in the labels, and sthv2 wants 5 answers")


@pytest.mark.parametrize("damage", ["another index", "a class twice", "two exchanged", "no class"])
def test_a_file_that_reads_back_otherwise_is_not_kept(
    damage: str, scores: str, v2: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    damaged = {
        "another index": lambda row: [*row[:4], 6] if row[0] == 4 else row,
        "a class twice": lambda row: [*row[:4], row[3]],
        "two exchanged": lambda row: [row[0], row[2], row[1], *row[3:]] if row[0] == 4 else row,
        "no class": lambda row: [*row[:4], 7],
    }[damage]
    original = submission._words
    monkeypatch.setattr(submission, "_words", lambda row, *rest: original(damaged(row), *rest))
    (tmp_path / "out").mkdir()
    with pytest.raises(SsanError, match="what was read back is not what was written"):
        write_submission(tmp_path / "out" / "out.csv", read_scores(scores), "sthv2", str(v2))
    assert list((tmp_path / "out").iterdir()) == []


def test_the_command_answers(
    scores: str, v2: Path, v1: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "out.csv")
    assert status(["submission", scores, "--format", "sthv2", "--annotations", str(v2), "-o", out]) == 0
    assert capfd.readouterr().out.splitlines() == [
        f"{out}: 3 videos, 7 classes, as sthv2",
        "1 videos have equal scores among the best, taken in the order of the labels",
    ]
    assert status(["submission", scores, "--format", "sthv1", "--annotations", str(v1), "-o", out, "--json"]) == 0
    answer = json.loads(capfd.readouterr().out)
    assert (answer["schema"], answer["num_videos"], answer["path"]) == (1, 3, out)


@pytest.mark.slow
def test_the_real_list_of_v2_gets_its_27157_lines(shared: Path, tmp_path: Path) -> None:
    folder = shared / "annotations" / "sthv2_official"
    entries = json.loads((folder / "something-something-v2-test.json").read_text())
    labels: dict[str, Any] = json.loads((folder / "something-something-v2-labels.json").read_text())
    ids, names = [entry["id"] for entry in entries], sorted(labels)
    rng = np.random.default_rng(0)
    rows = rng.permutation(len(ids))
    scores = rng.normal(size=(len(ids), len(names))).astype(np.float32)
    held = ScoreFile("x.npz", [ids[row] for row in rows], scores[rows].astype(float), np.full(len(ids), -1), names, {})
    answer = write_submission(tmp_path / "out.csv", held, "sthv2", str(folder))
    assert (answer["num_videos"], answer["num_classes"]) == (27157, 174)
    lines = (tmp_path / "out.csv").read_text().splitlines()
    assert [line.split(";")[0] for line in lines] == ids
    name_of = {index: name for name, index in labels.items()}
    for row in (0, 1, 13_579, 27_156):
        best = sorted(zip(scores[row].tolist(), names, strict=True), reverse=True)[:5]
        assert [name_of[index] for index in lines[row].split(";")[1:]] == [name for _, name in best]
