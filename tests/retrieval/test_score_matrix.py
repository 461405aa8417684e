"""Matrices of scores on disk and what is right in them: figures by hand, every layout, and files that are none."""

import json
import pickle
import random
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ssan.errors import AnnotationError, SsanError, UsageError
from ssan.retrieval.matrix import evaluate_matrix, open_matrix, read_truth

# Text 0 finds video 1 first; text 1 has videos 0 and 3, ranks 3 and 2; text 2 has video 1 on a level with video 2.
SCORES = np.array([[0.25, 0.75, 0.5, 0.0, -1.0], [0.0, 0.75, -0.5, 0.25, -1.0], [0.25, 0.5, 0.5, 0.125, -1.0]])
TRUTH = "query_row,video_column\n0,1\n1,0\n1,3\n2,1\n"


def save(folder: Path, scores: np.ndarray, truth: str = TRUTH) -> tuple[str, str]:
    np.save(folder / "S.npy", scores)
    (folder / "T.csv").write_text(truth, encoding="utf-8")
    return str(folder / "S.npy"), str(folder / "T.csv")


def test_the_answer_by_hand(tmp_path: Path) -> None:
    scores, truth = save(tmp_path, SCORES)
    found = evaluate_matrix(scores, truth, bootstrap=0)
    assert found == {
        "num_queries": 3,
        "num_candidates": 5,
        "num_missing": 0,
        "num_ties": 1,
        "text_to_video": {
            "r1": 1 / 3, "r5": 1.0, "r10": 1.0, "median_rank": 2.0, "mean_rank": 5 / 3,
            "num_queries": 3, "num_left_out": 0, "num_ties": 1,
        },
        # Video 0: text 1 is last. Video 1: text 0 is level with text 1, which is wrong. Video 3: text 1 is first.
        "video_to_text": {
            "r1": 1 / 3, "r5": 1.0, "r10": 1.0, "median_rank": 2.0, "mean_rank": 2.0,
            "num_queries": 3, "num_left_out": 2, "num_ties": 1,
        },
        "protocol": {
            "captions": truth, "positives": "truth", "tie_rule": "pessimistic", "scores": scores, "bootstrap": 0,
            "interval": "bootstrap over videos; Clopper-Pearson over videos where all or none count",
                "seed": 0,
        },
    }  # fmt: skip


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["<f2", "<f4", "<f8", ">f4"])
def test_every_layout_has_the_same_answer(dtype: str, order: Any, tmp_path: Path) -> None:
    expected = evaluate_matrix(*save(tmp_path, SCORES), bootstrap=31)
    files = save(tmp_path, SCORES.astype(dtype, order=order))
    mapped = open_matrix(files[0])
    assert isinstance(mapped, np.memmap)
    assert not mapped.flags.writeable
    assert mapped.flags.c_contiguous == (order == "C")
    assert evaluate_matrix(*files, bootstrap=31) == expected


def test_the_answer_is_json_and_its_intervals_hold_the_figures(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    truth = "video_column,query_row\r\n" + "".join(f"{row % 37},{row}\r\n" for row in range(101))
    found = evaluate_matrix(*save(tmp_path, rng.random((101, 37)), truth), seed=7)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    for direction in (found["text_to_video"], found["video_to_text"]):
        assert set(direction["interval95"]) == {"r1", "r5", "r10", "median_rank", "mean_rank"}
        for name, (low, high) in direction["interval95"].items():
            assert low <= direction[name] <= high
    assert found["protocol"]["bootstrap"] == 1000
    assert found["protocol"]["seed"] == 7


def test_three_versions_of_the_header_are_read(tmp_path: Path) -> None:
    for version in ((1, 0), (2, 0), (3, 0)):
        with open(tmp_path / "S.npy", "wb") as handle:
            np.lib.format.write_array(handle, SCORES, version)
        assert np.array_equal(open_matrix(str(tmp_path / "S.npy")), SCORES)


def test_a_header_of_python_2_is_read_without_a_warning(tmp_path: Path) -> None:
    np.save(tmp_path / "S.npy", SCORES)
    content = (tmp_path / "S.npy").read_bytes()
    assert b"(3, 5), }  " in content
    (tmp_path / "S.npy").write_bytes(content.replace(b"(3, 5), }  ", b"(3L, 5L), }"))
    assert np.array_equal(open_matrix(str(tmp_path / "S.npy")), SCORES)


# ------------------------------------------------------------------------------------------------------- the matrix


def test_a_missing_matrix_and_a_folder_are_refused(tmp_path: Path) -> None:
    for path, words in [(tmp_path / "none.npy", "no such file"), (tmp_path, "not a file")]:
        with pytest.raises(UsageError, match=words) as caught:
            open_matrix(str(path))
        assert (caught.value.code, caught.value.path) == ("missing", str(path))


@pytest.mark.parametrize("num_bytes", [1, 8, 60])
def test_a_matrix_that_is_cut_off_is_refused(num_bytes: int, tmp_path: Path) -> None:
    path, truth = save(tmp_path, SCORES)
    Path(path).write_bytes(Path(path).read_bytes()[:-num_bytes])
    with pytest.raises(
        UsageError, match=f"promises 3 x 5 scores of float64, 120 bytes, and {120 - num_bytes} follow"
    ) as e:
        evaluate_matrix(path, truth)
    assert (e.value.code, e.value.path) == ("truncated", path)


def test_a_header_that_promises_more_than_any_machine_has_is_refused(tmp_path: Path) -> None:
    path, _ = save(tmp_path, SCORES)
    Path(path).write_bytes(
        Path(path).read_bytes().replace(b"(3, 5), }" + b" " * 20, b"(3000000000000, 5000000000), }"[:29])
    )
    with pytest.raises(UsageError) as caught:
        open_matrix(path)
    assert caught.value.code in ("truncated", "bad_annotation")


class Trap:
    def __reduce__(self) -> tuple[Any, ...]:
        return open, ("sprung", "w")


def test_pickled_objects_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    np.save(tmp_path / "S.npy", np.array([[Trap(), 1]], dtype=object), allow_pickle=True)
    (tmp_path / "P.npy").write_bytes(pickle.dumps(Trap()))
    for name in ("S.npy", "P.npy"):
        with pytest.raises(UsageError) as caught:
            open_matrix(name)
        assert caught.value.code == "bad_annotation"
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    ("scores", "words"),
    [
        (np.zeros((3, 5), dtype=np.int64), "int64 of 2 axes"),
        (np.zeros((3, 5), dtype=np.complex64), "complex64 of 2 axes"),
        (np.zeros((3, 5), dtype=np.longdouble), "of 2 axes"),
        (np.zeros(15), "float64 of 1 axes"),
        (np.zeros((3, 5, 1)), "float64 of 3 axes"),
        (np.float64(3), "float64 of 0 axes"),
        (np.zeros((3, 5), dtype=[("a", "f4")]), "of 2 axes"),
    ],
)
def test_arrays_of_another_kind_are_refused(scores: np.ndarray, words: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=words) as caught:
        evaluate_matrix(*save(tmp_path, scores))
    assert caught.value.code == "bad_annotation"


@pytest.mark.parametrize("shape", [(0, 5), (3, 0)])
def test_a_matrix_of_nothing_is_refused(shape: tuple[int, int], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=f"{shape[0]} x {shape[1]} scores") as caught:
        evaluate_matrix(*save(tmp_path, np.zeros(shape)))
    assert caught.value.code == "empty"


def test_bytes_after_the_matrix_are_refused(tmp_path: Path) -> None:
    path, truth = save(tmp_path, SCORES)
    with open(path, "ab") as handle:
        handle.write(b"more")
    with pytest.raises(UsageError, match="120 bytes, and 124 follow") as caught:
        evaluate_matrix(path, truth)
    assert caught.value.code == "bad_annotation"


@pytest.mark.parametrize("order", ["C", "F"])
def test_scores_that_are_no_numbers_are_refused(order: Any, tmp_path: Path) -> None:
    scores = SCORES.astype(np.float16, order=order)
    scores[1, 4] = np.nan
    path, truth = save(tmp_path, scores)
    with pytest.raises(UsageError, match="row 1, column 4") as caught:
        evaluate_matrix(path, truth)
    assert (caught.value.code, caught.value.path) == ("nan", path)


def test_damaged_headers_are_read_or_refused_and_nothing_else(tmp_path: Path) -> None:
    path, _ = save(tmp_path, SCORES)
    whole = Path(path).read_bytes()
    draw = random.Random(0)
    words = [b"(", b"'" * 3, b"\\x", b"[" * 300, b"9" * 90, b"-1", b"None", b"\0", b"{}", b"1L", b"f4", b"|O"]
    refused = []
    for _ in range(400):
        content = bytearray(whole)
        for _ in range(draw.randint(1, 3)):
            place = draw.randrange(128)
            word = draw.choice([*words, bytes([draw.randrange(256)])])
            content[place : place + len(word)] = word
        Path(path).write_bytes(bytes(content[: draw.choice([len(content), len(content), draw.randrange(200)])]))
        try:
            assert open_matrix(path).dtype.kind == "f"
        except SsanError as error:
            refused.append(error)
    assert len(refused) > 200
    assert {error.path for error in refused} == {path}
    assert not [error for error in refused if "\n" in error.message]


def test_a_header_of_endless_brackets_is_refused(tmp_path: Path) -> None:
    for text in (b"[" * 9000, b"{'descr': " + b"-" * 9000, b"1" * 9000):
        (tmp_path / "S.npy").write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text)
        with pytest.raises(UsageError, match="damaged or of another kind") as caught:
            open_matrix(str(tmp_path / "S.npy"))
        assert caught.value.code == "bad_annotation"


# ------------------------------------------------------------------------------------------------- what is right in it


@pytest.mark.parametrize(
    ("line", "words", "code"),
    [
        ("3,1", "query_row is '3'; expected a whole number from 0 to 2", "bad_annotation"),
        ("1,5", "video_column is '5'; expected a whole number from 0 to 4", "bad_annotation"),
        ("-1,1", "query_row is '-1'", "bad_annotation"),
        ("1,1.0", "video_column is '1.0'", "bad_annotation"),
        ("1,", "video_column is ''", "bad_annotation"),
        ("1,²", "video_column is '²'", "bad_annotation"),
        ("1,99999999999999999999", "video_column is '99999999999999999999'", "bad_annotation"),
        ("1", "1 values where the header has 2 columns", "bad_annotation"),
        ("1,3", "row 1, column 3 stands in line 4 too", "duplicate"),
    ],
)
def test_a_line_that_is_not_as_expected_is_named(line: str, words: str, code: str, tmp_path: Path) -> None:
    scores, truth = save(tmp_path, SCORES, TRUTH + line + "\n")
    with pytest.raises(AnnotationError) as caught:
        evaluate_matrix(scores, truth)
    assert words in caught.value.message
    assert (caught.value.path, caught.value.line, caught.value.code) == (truth, 6, code)


@pytest.mark.parametrize(
    ("truth", "words", "line"),
    [
        ("query_row,video_column\n1,0\n", r"2 of the 3 rows of the matrix have no line \(row 0 is the first\)", None),
        ("query_row,video_column\n", r"3 of the 3 rows", None),
        ("row,column\n0,1\n", "no column 'query_row'", 1),
        ("query_row;video_column\n0;1\n", "separated by semicolons", 1),
        ("", "found 'nothing'", 1),
    ],
)
def test_a_table_that_is_not_as_expected_is_refused(truth: str, words: str, line: int | None, tmp_path: Path) -> None:
    _, path = save(tmp_path, SCORES, truth)
    with pytest.raises(AnnotationError, match=words) as caught:
        read_truth(path, 3, 5)
    assert (caught.value.path, caught.value.line) == (path, line)


def test_a_missing_table_is_refused(tmp_path: Path) -> None:
    scores, _ = save(tmp_path, SCORES)
    with pytest.raises(SsanError) as caught:
        evaluate_matrix(scores, str(tmp_path / "none.csv"))
    assert (caught.value.code, caught.value.path) == ("missing", str(tmp_path / "none.csv"))
