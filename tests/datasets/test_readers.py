"""Readers of the data sets that people train on: official layouts, real lists, and what is wrong named by its line."""

import json
import os
import string
import tempfile
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssan.cli.options import Format
from ssan.datasets import FORMATS, Samples, detect, read
from ssan.datasets.kinetics import canonical_label
from ssan.datasets.lists import split_named
from ssan.datasets.samples import inside, is_plain
from ssan.datasets.source import options_of
from ssan.datasets.tables import class_names, table, table_with_header
from ssan.errors import AnnotationError, SsanError, UsageError
from ssan.video.mirror import flip_pairs

V1 = "something-something-v1-"
JESTER = "jester-v1-"


def _put(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def _touch(root: Path, *names: str) -> Path:
    for name in names:
        _put(root / name, b"")
    return root


def _ids(samples: Samples) -> list[str]:
    return [sample.id for sample in samples]


def _refused(format: str, root: Path, split: str = "train", **options: str) -> SsanError:
    with pytest.raises(SsanError) as caught:
        read(format, root, split, **options)
    assert isinstance(caught.value, UsageError | AnnotationError)
    assert len(caught.value.message.splitlines()) == 1
    return caught.value


def _where(error: SsanError, root: Path) -> tuple[str | None, str | None, int | None]:
    """Code, file relative to the root, and line of an error."""
    return error.code, None if error.path is None else os.path.relpath(error.path, root), error.line


# ------------------------------------------------------------------------------------------- tables and lists


def test_tables_take_a_byte_order_mark_every_line_end_quotes_and_commas(tmp_path: Path) -> None:
    path = _put(tmp_path / "a.csv", '\ufeffid,label\r\n1,"run, fast"\r\r\n2,"say ""go"""\n\n 3 , x \n')
    assert table_with_header(str(path), ["id"]) == [
        (2, {"id": "1", "label": "run, fast"}),
        (4, {"id": "2", "label": 'say "go"'}),
        (6, {"id": "3", "label": "x"}),
    ]
    path = _put(tmp_path / "b.csv", '\ufeff1;run, fast\r\n2;"a;b"\r3;say "go"\n')
    assert table(str(path), ";", ["id", "label"]) == [
        (1, ["1", "run, fast"]),
        (2, ["2", "a;b"]),
        (3, ["3", 'say "go"']),
    ]


def test_a_row_over_several_lines_is_named_by_its_first(tmp_path: Path) -> None:
    path = _put(tmp_path / "a.csv", 'id,label\n1,"a\nb"\n"2\n\n",x\n3,y\n')
    assert [line for line, _ in table_with_header(str(path), ["id"])] == [2, 4, 7]


@pytest.mark.parametrize(("mark", "name"), [(";", "semicolons"), ("\t", "tabs"), ("|", "vertical bars")])
def test_the_delimiter_that_is_there_instead_of_a_comma_is_named(tmp_path: Path, mark: str, name: str) -> None:
    path = _put(tmp_path / "a.csv", f"id{mark}label\n1{mark}x\n")
    with pytest.raises(AnnotationError, match=rf"expected a header with id,label, .*separated by {name}$") as caught:
        table_with_header(str(path), ["id", "label"])
    assert caught.value.line == 1


def test_class_names_are_the_lines_of_a_file_in_their_order(tmp_path: Path) -> None:
    assert class_names(str(_put(tmp_path / "a.txt", "\ufeffrun\r\nbend, low\r\n\r\n"))) == ["run", "bend, low"]
    assert class_names(str(_put(tmp_path / "b.txt", "1 run\n2 1 bend\n")), numbered=True) == ["run", "1 bend"]


@pytest.mark.parametrize(
    ("text", "numbered", "code", "line", "words"),
    [
        ("", False, "empty", None, "no class names"),
        ("\n \n", False, "empty", None, "no class names"),
        ("run\n\nbend\n", False, "bad_annotation", 2, "the line is empty; expected the name of a class"),
        ("\nrun\n", False, "bad_annotation", 1, "the line is empty"),
        ("run\nbend\nrun\n", False, "duplicate", 3, "'run' stands in line 1 too"),
        ("run\nbend\nRun\n", False, "bad_annotation", 3, "'run' and 'Run' differ only by case"),
        ("1 run\n3 bend\n", True, "bad_annotation", 2, "expected '2 NAME', and found '3 bend'"),
        ("0 run\n1 bend\n", True, "bad_annotation", 1, "expected '1 NAME', and found '0 run'"),
        ("1 run\n2\n", True, "bad_annotation", 2, "expected '2 NAME', and found '2'"),
    ],
)
def test_malformed_class_names_are_named(
    tmp_path: Path, text: str, numbered: bool, code: str, line: int | None, words: str
) -> None:
    path = _put(tmp_path / "a.txt", text)
    with pytest.raises(AnnotationError) as caught:
        class_names(str(path), numbered=numbered)
    assert _where(caught.value, tmp_path) == (code, "a.txt", line)
    assert words in caught.value.message


@pytest.mark.slow
@given(
    name=st.text(alphabet="ab./ \0\ud800", max_size=9),
    root=st.sampled_from([".", "..", "x", "x/..", "/data", "/data/", "./x//y"]),
)
@settings(max_examples=300, deadline=None, derandomize=True, database=None)
def test_a_name_that_is_plain_is_one_that_joining_and_checking_would_leave_alone(name: str, root: str) -> None:
    if is_plain(name):
        assert inside(root, name, source="") == os.path.normpath(os.path.join(root, name))
        assert os.path.normpath(name) == name


# --------------------------------------------------------------------------------- Something-Something V1, Jester

V1_FILES = {
    "labels": "Holding something\nTurning something upside down\nApproaching something\n",
    "train": "100;Turning something upside down\n7;Holding something\n",
    "validation": "12;Approaching something\n",
    "test": "3\n4\n",
}


def _rows(root: Path, prefix: str = V1, **files: str) -> Path:
    for name, content in (V1_FILES | files).items():
        _put(root / f"{prefix}{name}.csv", content)
    return root


@pytest.mark.parametrize(
    ("format", "prefix", "folder"),
    [("sthv1", V1, "20bn-something-something-v1"), ("jester", JESTER, "20bn-jester-v1"), ("sthv1", V1, "frames"),
     ("jester", JESTER, "videos"), ("sthv1", f"labels/{V1}", "."), ("jester", f"annotations/{JESTER}", "frames")],
)  # fmt: skip
def test_v1_and_jester_are_rows_of_id_and_label_and_folders_of_frames(
    tmp_path: Path, format: str, prefix: str, folder: str
) -> None:
    _touch(_rows(tmp_path, prefix), f"{folder}/100/00001.jpg", f"{folder}/100/00002.jpg")
    assert detect(str(tmp_path)) == format
    samples = read("auto", tmp_path, "train")
    assert samples.classes == V1_FILES["labels"].splitlines()
    place = os.path.normpath(tmp_path / folder)
    assert [(s.id, s.path, s.label, s.label_index, s.num_frames, s.caption, s.exists, s.split) for s in samples] == [
        ("100", f"{place}/100", "Turning something upside down", 1, None, None, True, "train"),
        ("7", f"{place}/7", "Holding something", 0, None, None, False, "train"),
    ]
    assert [(s.id, s.label, s.split) for s in read(format, tmp_path, "test")] == [
        ("3", None, "test"),
        ("4", None, "test"),
    ]
    assert [(s.id, s.split) for s in read(format, tmp_path, "all")] == [
        ("100", "train"), ("7", "train"), ("12", "val"), ("3", "test"), ("4", "test"),
    ]  # fmt: skip


def test_the_classes_of_v1_have_either_order_by_name(tmp_path: Path) -> None:
    _rows(tmp_path)
    by_file, by_name = (read("sthv1", tmp_path, "train", class_order=order) for order in ("file", "sorted"))
    assert by_name.classes == ["Approaching something", "Holding something", "Turning something upside down"]
    assert [s.label for s in by_name] == [s.label for s in by_file]
    assert [s.label_index for s in by_name] == [2, 1]
    assert [s.label_index for s in by_file] == [1, 0] == [s.label_index for s in read("sthv1", tmp_path, "train")]
    assert (
        "class_order is 'tsm'; it must be 'file' or 'sorted'" in _refused("sthv1", tmp_path, class_order="tsm").message
    )


@pytest.mark.parametrize("name", [f"{V1}test-answers.csv", "test-answers.csv"])
def test_the_test_videos_of_v1_have_the_labels_of_the_answers(tmp_path: Path, name: str) -> None:
    _put(_rows(tmp_path) / name, "4;Holding something\n")
    assert [(s.id, s.label, s.label_index) for s in read("sthv1", tmp_path, "test")] == [
        ("3", None, None),
        ("4", "Holding something", 0),
    ]


def test_the_lists_and_the_frames_of_v1_may_lie_apart(tmp_path: Path) -> None:
    _touch(_rows(tmp_path / "lists"), "frames/7/00001.jpg")
    _touch(tmp_path, "cache/7.mp4")
    options = {"annotations": str(tmp_path / "lists"), "videos": str(tmp_path / "cache")}
    samples = read("auto", tmp_path, "train", **options)
    assert [(s.path, s.exists) for s in samples] == [
        (f"{tmp_path}/cache/100", False),
        (f"{tmp_path}/cache/7.mp4", True),
    ]


@pytest.mark.parametrize(
    ("name", "content", "code", "line", "words"),
    [
        ("train", "7,Holding something\n", "bad_annotation", 1, "expected id;label, and found 1 value, '7,Hold"),
        ("train", "7,Holding something\n", "bad_annotation", 1, "separated by commas"),
        ("train", "7;Holding something\n8\tHolding something\n", "bad_annotation", 2, "separated by tabs"),
        ("train", "7;Holding something\n8;a;b\n", "bad_annotation", 2, "3 values, '8;a;b'; put values that hold"),
        ("train", '7;"Holding something\n8;x\n', "bad_annotation", 1, "unexpected end of data; expected values"),
        ("train", "7;holding something\n", "unknown_label", 1, "Did you mean 'Holding something'?"),
        ("train", "7;\n", "unknown_label", 1, "'' is none of the 3 classes in"),
        ("train", "7;Holding something\n\n7;Holding something\n", "duplicate", 3, "'7' stands in line 1 too"),
        ("train", "../7;Holding something\n", "path_escape", 1, "'../7' is not a file name"),
        ("train", "..;Holding something\n", "path_escape", 1, "'..' is not a file name"),
        ("train", "a/7;Holding something\n", "path_escape", 1, "is not a file name"),
        ("train", "a\\7;Holding something\n", "path_escape", 1, "without separators"),
        ("train", ";Holding something\n", "path_escape", 1, "'' is not a file name"),
        ("train", "\n\n", "empty", None, "expected a video in every line"),
        ("train", b"7;Holding s\xfcmething\n", "bad_annotation", None, "not UTF-8 text (byte 11)"),
        ("labels", "Holding something\n\nTurning\n", "bad_annotation", 2, "the line is empty"),
        ("labels", "", "empty", None, "no class names"),
        ("labels", "Holding\nTurning\nHolding\n", "duplicate", 3, "'Holding' stands in line 1 too"),
        ("labels", "Holding\nholding\n", "bad_annotation", 2, "differ only by case"),
        ("labels", "0;Holding\n", "bad_annotation", 1, "expected label, and found 2 values"),
    ],
)  # fmt: skip
def test_malformed_rows_of_v1_are_named_with_file_and_line(
    tmp_path: Path, name: str, content: str | bytes, code: str, line: int | None, words: str
) -> None:
    path = _put(_rows(tmp_path) / f"{V1}{name}.csv", content)
    error = _refused("sthv1", tmp_path)
    assert (error.code, error.path, error.line) == (code, str(path), line)
    assert words in error.message


@pytest.mark.parametrize(
    ("answers", "code", "line"),
    [("3;Eating something\n", "unknown_label", 1), ("3\n", "bad_annotation", 1),
     ("3;Holding something\n4;Holding something\n3;Holding something\n", "duplicate", 3)],
)  # fmt: skip
@pytest.mark.parametrize("format", ["sthv1", "sthv2"])
def test_malformed_answers_are_named_with_their_own_file(
    tmp_path: Path, format: str, answers: str, code: str, line: int
) -> None:
    _rows(tmp_path)
    _something_v2(tmp_path)
    _put(tmp_path / "test-answers.csv", answers)
    assert _where(_refused(format, tmp_path, "test"), tmp_path) == (code, "test-answers.csv", line)


def test_a_label_in_the_test_rows_of_v1_is_not_left_out_silently(tmp_path: Path) -> None:
    error = _refused("sthv1", _rows(tmp_path, test="3;Holding something\n"), "test")
    assert _where(error, tmp_path) == ("bad_annotation", f"{V1}test.csv", 1)


def test_an_id_in_two_splits_of_v1_is_named_with_both_files(tmp_path: Path) -> None:
    error = _refused("sthv1", _rows(tmp_path, validation="7;Holding something\n"), "all")
    assert _where(error, tmp_path) == ("duplicate", f"{V1}validation.csv", 1)
    assert f"line 2 of {tmp_path}/{V1}train.csv" in error.message


def test_what_is_missing_of_v1_is_said(tmp_path: Path) -> None:
    assert f"expected it and {V1}train.csv" in _refused("sthv1", tmp_path).message
    _rows(tmp_path)
    (tmp_path / f"{V1}validation.csv").unlink()
    assert _where(_refused("sthv1", tmp_path, "val"), tmp_path) == ("missing", f"{V1}validation.csv", None)
    assert _ids(read("sthv1", tmp_path, "all")) == ["100", "7", "3", "4"]


# ---------------------------------------------------------------------------------------- Something-Something V2


def _something_v2(root: Path, labels: str = '{"Holding something": "0", "Pushing something": "1"}') -> Path:
    _put(root / "something-something-v2-labels.json", labels)
    for name, entries in (("train", [{"id": "7", "template": "Holding [something]"}]), ("test", [{"id": "3"}])):
        _put(root / f"something-something-v2-{name}.json", json.dumps(entries))
    return root


@pytest.mark.parametrize("folder", ["20bn-something-something-v2-frames", "frames", "videos"])
def test_extracted_frames_of_v2_are_found_in_their_folder(tmp_path: Path, folder: str) -> None:
    _touch(_something_v2(tmp_path), f"{folder}/7/00001.jpg")
    (sample,) = read("auto", tmp_path, "train")
    assert (sample.path, sample.exists) == (f"{tmp_path}/{folder}/7", True)


@pytest.mark.parametrize(
    ("labels", "code", "words"),
    [
        ('{"A": "0", "A": "0"}', "duplicate", "'A' stands twice"),
        ('{"Fall": "0", "fall": "1"}', "bad_annotation", "'Fall' and 'fall' differ only by case"),
    ],
)
def test_classes_of_v2_that_are_one_are_refused(tmp_path: Path, labels: str, code: str, words: str) -> None:
    error = _refused("sthv2", _something_v2(tmp_path, labels))
    assert _where(error, tmp_path) == (code, "something-something-v2-labels.json", None)
    assert words in error.message


def test_a_repeated_id_of_v2_is_named_with_both_entries(tmp_path: Path) -> None:
    entries = [{"id": name, "template": "Holding something"} for name in ("7", "8", "7")]
    _put(_something_v2(tmp_path) / "something-something-v2-train.json", json.dumps(entries))
    assert "entry 3: the id '7' stands in entry 1 too" in _refused("sthv2", tmp_path).message


# ------------------------------------------------------------------------------------------------- Kinetics-400

HEADER = "label,youtube_id,time_start,time_end,split,is_cc\n"
KINETICS = {
    "train.csv": HEADER + 'air drumming,-0a_Bc,3,13,train,0\n"massaging person\'s head",b,10,20,train,0\n',
    "val.csv": HEADER + "hurling (sport),c,0,10,validate,0\n",
    "test.csv": "youtube_id,time_start,time_end,split\nd,100,110,test\n",
}


def _kinetics(root: Path, **changed: str | bytes) -> Path:
    for name, content in (KINETICS | {key.replace("_dot_", "."): text for key, text in changed.items()}).items():
        _put(root / name, content)
    return root


def test_kinetics_is_csv_files_and_trimmed_videos(tmp_path: Path) -> None:
    _touch(_kinetics(tmp_path), "-0a_Bc_000003_000013.mp4")
    assert detect(str(tmp_path)) == "kinetics400"
    samples = read("auto", tmp_path, "all")
    assert samples.classes == ["air drumming", "hurling (sport)", "massaging person's head"]
    assert [tuple(sample.as_dict().values())[:11] for sample in samples[:2]] == [
        ("-0a_Bc_000003_000013", f"{tmp_path}/-0a_Bc_000003_000013.mp4", "air drumming", 0, None, None, None, None,
         True, "train", None),
        ("b_000010_000020", f"{tmp_path}/b_000010_000020.mp4", "massaging person's head", 2, None, None, None, None,
         False, "train", None),
    ]  # fmt: skip
    assert [(s.id, s.label_index, s.split, s.exists) for s in samples[2:]] == [
        ("c_000000_000010", 1, "val", False),
        ("d_000100_000110", None, "test", False),
    ]
    for split, ids in (("train", 2), ("val", 1), ("test", 1)):
        assert len(read("kinetics400", tmp_path, split)) == ids
        assert read("kinetics400", tmp_path, split).classes == samples.classes


@pytest.mark.parametrize(
    ("folder", "suffix"),
    [("massaging person's head", ".mkv"), ("massaging_person's_head", ".mp4"), ("massaging_persons_head", "/1.jpg"),
     ("videos/massaging person's head", ".mp4"), ("train/massaging_persons_head", ".mp4"), ("train", ".webm"),
     ("videos_train/massaging_person's_head", ".mp4"), ("train_256/massaging_persons_head", ".mp4"),
     ("videos", "/1.png"),
     ("videos/val", ".mp4")],
)  # fmt: skip
def test_a_video_of_kinetics_is_found_flat_or_in_its_class_folder_however_that_is_written(
    tmp_path: Path, folder: str, suffix: str
) -> None:
    _touch(_kinetics(tmp_path), f"{folder}/b_000010_000020{suffix}", f"{folder}/other.mp4")
    sample = read("kinetics400", tmp_path, "train")[1]
    assert sample.exists
    assert sample.path == f"{tmp_path}/{folder}/b_000010_000020{'' if suffix[0] == '/' else suffix}"
    assert (sample.start_seconds, sample.end_seconds) == (None, None)


def test_a_folder_of_another_class_is_not_where_a_video_of_kinetics_is_looked_for(tmp_path: Path) -> None:
    _touch(_kinetics(tmp_path), "air_drumming/b_000010_000020.mp4")
    assert not read("kinetics400", tmp_path, "train")[1].exists


def test_of_a_whole_video_of_kinetics_the_sample_is_its_part(tmp_path: Path) -> None:
    _touch(_kinetics(tmp_path), "train/b.mp4", "train/-0a_Bc.mp4", "train/-0a_Bc_000003_000013.mp4")
    trimmed, whole = read("kinetics400", tmp_path, "train")
    assert (trimmed.path, trimmed.start_seconds) == (f"{tmp_path}/train/-0a_Bc_000003_000013.mp4", None)
    assert (whole.id, whole.path) == ("b_000010_000020", f"{tmp_path}/train/b.mp4")
    assert (whole.start_seconds, whole.end_seconds, whole.exists) == (10.0, 20.0, True)


@pytest.mark.parametrize(
    "names",
    [("kinetics-400_train.csv", "kinetics-400_val.csv"), ("kinetics_400_train.csv", "kinetics_400_validate.csv"),
     ("annotations/train.csv", "annotations/validation.csv"), ("K400_train.csv", "K400_VAL.csv")],
)  # fmt: skip
def test_the_files_of_kinetics_have_several_names(tmp_path: Path, names: tuple[str, str]) -> None:
    for name, text in zip(names, (KINETICS["train.csv"], KINETICS["val.csv"]), strict=True):
        _put(tmp_path / name, text)
    assert [len(read("auto", tmp_path, split)) for split in ("train", "val", "all")] == [2, 1, 3]


def test_one_file_of_kinetics_may_hold_several_splits(tmp_path: Path) -> None:
    path = _put(tmp_path / "lists" / "k.csv", KINETICS["train.csv"] + KINETICS["val.csv"].removeprefix(HEADER))
    assert detect(str(path)) == detect(str(tmp_path), str(path)) == detect(str(tmp_path / "lists")) == "kinetics400"
    for root, options in ((path, {}), (tmp_path / "lists", {}), (tmp_path, {"annotations": str(path)})):
        found = {split: _ids(read("auto", root, split, **options)) for split in ("train", "val", "all")}
        assert found["val"] == ["c_000000_000010"]
        assert found["all"] == found["train"] + found["val"]
        assert len(found["train"]) == 2
        error = _refused("kinetics400", root, "test", **options)
        assert _where(error, tmp_path) == ("empty", "lists/k.csv", None)
        assert "no row of the split 'test'; found {'train': 2, 'val': 1}" in error.message


def test_a_file_of_names_says_the_classes_of_kinetics_and_their_order(tmp_path: Path) -> None:
    _kinetics(tmp_path)
    names = _put(tmp_path / "names.txt", "Massaging_Persons_Head\nhurling sport\n'air drumming'\nyoga\n")
    samples = read("kinetics400", tmp_path, "train", labels=str(names))
    assert samples.classes == names.read_text().splitlines()
    assert [(s.label, s.label_index) for s in samples] == [("'air drumming'", 2), ("Massaging_Persons_Head", 0)]
    names.write_text("air drumming\nmassaging a head\n")
    error = _refused("kinetics400", tmp_path, labels=str(names))
    assert _where(error, tmp_path) == ("unknown_label", "train.csv", 3)
    assert f"none of the 2 classes in {names}" in error.message
    names.write_text("air drumming\nair_drumming\n")
    assert _where(_refused("kinetics400", tmp_path, labels=str(names)), tmp_path) == ("bad_annotation", "names.txt", 2)


def test_the_ways_to_write_a_class_of_kinetics_have_one_form() -> None:
    ways = [
        "massaging person's head",
        "massaging_person's_head",
        "massaging_persons_head",
        ' "Massaging person\'s head"',
    ]
    assert {canonical_label(way) for way in ways} == {"massaging persons head"}
    assert canonical_label("hurling (sport)") == canonical_label("hurling_sport") != canonical_label("hurling")


@pytest.mark.parametrize(
    ("name", "content", "code", "line", "words"),
    [
        ("train", HEADER.replace(",", ";") + "x;b;10;20;train;0\n", "bad_annotation", 1, "separated by semicolons"),
        (
            "train",
            HEADER + "massaging, heads,b,10,20,train,0\n",
            "bad_annotation",
            2,
            "7 values where the header has 6",
        ),
        ("train", HEADER + "x,b,10,20,trian,0\n", "bad_annotation", 2, "Did you mean 'train'?"),
        (
            "train",
            HEADER + "x,b,10,20,val,0\n",
            "bad_annotation",
            2,
            "the split is 'val' in a file whose name says 'tr",
        ),
        (
            "train",
            HEADER + "x,b,10,20,train,0\nx,b,10,20,train,0\n",
            "duplicate",
            3,
            "'b_000010_000020' stands in line 2",
        ),
        ("train", HEADER + "x,../b,10,20,train,0\n", "path_escape", 2, "'../b' is not a file name"),
        ("train", HEADER + "x,b,20,10,train,0\n", "bad_annotation", 2, "ends at 10 s and starts at 20 s"),
        ("train", HEADER + "x,b,ten,20,train,0\n", "bad_annotation", 2, "'ten' is no time"),
        ("train", HEADER + "x,b,1.5,20,train,0\n", "bad_annotation", 2, "'1.5' to '20'; expected whole seconds"),
        ("train", HEADER + "x,b,,20,train,0\n", "bad_annotation", 2, "expected whole seconds"),
        ("train", HEADER + ",b,10,20,train,0\n", "bad_annotation", 2, "the label is empty"),
        (
            "train",
            HEADER + "x,b,1,2,train,0\nX,c,1,2,train,0\n",
            "bad_annotation",
            3,
            "differ only by case, quotes, paren",
        ),
        (
            "train",
            HEADER + "a b,b,1,2,train,0\na_b,c,1,2,train,0\n",
            "bad_annotation",
            3,
            "'a b' and 'a_b' differ only",
        ),
        ("train", HEADER, "empty", None, "no row of the split 'train'; found none at all"),
        ("train", "", "bad_annotation", 1, "no column 'youtube_id'"),
        ("train", "youtube_id,time_start,time_end\nb,10,20\n", "bad_annotation", 1, "no column 'label'"),
        ("train", HEADER.encode() + b"\xff,b,10,20,train,0\n", "bad_annotation", None, "not UTF-8"),
        (
            "val",
            HEADER + "Air_drumming,c,0,10,val,0\n",
            "bad_annotation",
            2,
            "'air drumming' and 'Air_drumming' differ",
        ),
    ],
)
def test_malformed_files_of_kinetics_are_named_with_file_and_line(
    tmp_path: Path, name: str, content: str | bytes, code: str, line: int | None, words: str
) -> None:
    path = _put(_kinetics(tmp_path) / f"{name}.csv", content)
    error = _refused("kinetics400", tmp_path)
    assert (error.code, error.path, error.line) == (code, str(path), line)
    assert words in error.message


def test_files_of_kinetics_that_are_not_there_or_twice_are_said(tmp_path: Path) -> None:
    assert "expected train.csv, val.csv or test.csv with the header" in _refused("kinetics400", tmp_path).message
    _put(tmp_path / "train.csv", KINETICS["train.csv"])
    assert "no CSV file for the split 'val' here; found train.csv" in _refused("kinetics400", tmp_path, "val").message
    _put(tmp_path / "kinetics_400_train.csv", KINETICS["train.csv"])
    assert "'kinetics_400_train.csv' and 'train.csv' stand side by side" in _refused("kinetics400", tmp_path).message
    both = _put(tmp_path / "lists" / "both.csv", "label,youtube_id,time_start,time_end\nx,b,1,2\n")
    assert len(read("kinetics400", both, "all")) == 1
    assert "neither its name nor a column 'split' says" in _refused("kinetics400", both).message


# ----------------------------------------------------------------------------------------------- UCF101 and HMDB51


def _ucf(root: Path, home: str = "", **changed: str | bytes) -> Path:
    files = {
        "classInd": "1 Archery\r\n2 Biking\r\n",
        "trainlist01": "Archery/v_Archery_g02_c01.avi 1\r\nBiking/v_Biking_g02_c01.avi 2\r\n",
        "testlist01": "Biking/v_Biking_g01_c01.avi\r\n",
        "trainlist02": "Biking/v_Biking_g01_c01.avi 2\n",
        "testlist02": "Archery/v_Archery_g02_c01.avi 1\nBiking/v_Biking_g02_c01.avi\n",
    }
    for name, content in (files | changed).items():
        _put(root / home / f"{name}.txt", content)
    return root


@pytest.mark.parametrize("home", ["", "ucfTrainTestlist"])
def test_ucf101_is_split_by_its_lists(tmp_path: Path, home: str) -> None:
    _touch(_ucf(tmp_path, home), "UCF-101/Biking/v_Biking_g02_c01.avi", "UCF-101/v_Biking_g01_c01.mp4")
    assert detect(str(tmp_path)) == "ucf101"
    train, val, test, everything = (read("auto", tmp_path, split) for split in ("train", "val", "test", "all"))
    assert train.classes == ["Archery", "Biking"]
    place = f"{tmp_path}/UCF-101"
    assert [(s.id, s.path, s.label, s.label_index, s.exists, s.split) for s in everything] == [
        ("Archery/v_Archery_g02_c01", f"{place}/Archery/v_Archery_g02_c01.avi", "Archery", 0, False, "train"),
        ("Biking/v_Biking_g02_c01", f"{place}/Biking/v_Biking_g02_c01.avi", "Biking", 1, True, "train"),
        ("Biking/v_Biking_g01_c01", f"{place}/v_Biking_g01_c01.mp4", "Biking", 1, True, "test"),
    ]
    assert list(train) == everything[:2]
    assert list(test) == everything[2:]
    assert [(s.id, s.split) for s in val] == [(s.id, "val") for s in test]
    assert _ids(read("auto", tmp_path, "train", fold="2")) == ["Biking/v_Biking_g01_c01"]
    assert _ids(read("auto", tmp_path, "test", fold="2")) == ["Archery/v_Archery_g02_c01", "Biking/v_Biking_g02_c01"]


def test_the_lists_of_ucf101_may_lie_apart(tmp_path: Path) -> None:
    _touch(_ucf(tmp_path / "lists"), "x/y")
    _touch(tmp_path, "clips/Archery/v_Archery_g02_c01/00001.jpg")
    for options in (
        {"annotations": str(tmp_path / "lists")},
        {"annotations": str(tmp_path / "lists"), "videos": "clips"},
    ):
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(tmp_path)
            sample = read("auto", "clips", "train", **options)[0]
        assert (sample.path, sample.exists) == ("clips/Archery/v_Archery_g02_c01", True)


@pytest.mark.parametrize(
    ("name", "content", "code", "line", "words"),
    [
        (
            "trainlist01",
            "Archery/a.avi 1\nBiking/b.avi\n",
            "bad_annotation",
            2,
            "CLASS/FILE and the number of the class",
        ),
        ("trainlist01", "Archery/a.avi,1\n", "bad_annotation", 1, "and found 'Archery/a.avi,1'"),
        ("trainlist01", "Archery/a.avi 2\n", "bad_annotation", 1, "has the number 2; 'Archery' has 1 in"),
        ("trainlist01", "Archery/a.avi 0\n", "bad_annotation", 1, "has the number 0"),
        ("trainlist01", "archery/a.avi 1\n", "unknown_label", 1, "Did you mean 'Archery'?"),
        ("trainlist01", "a.avi 1\n", "bad_annotation", 1, "expected CLASS/FILE, and found 'a.avi'"),
        ("trainlist01", "../a.avi 1\n", "unknown_label", 1, "'..' is none of the 2 classes"),
        ("trainlist01", "Archery/.. 1\n", "path_escape", 1, "'..' is not a file name"),
        ("trainlist01", "Archery/a.avi 1\nArchery/a.avi 1\n", "duplicate", 2, "'Archery/a' stands in line 1 too"),
        ("trainlist01", " \n", "empty", None, "expected CLASS/FILE in every line"),
        ("trainlist01", b"Archery/\xff.avi 1\n", "bad_annotation", None, "not UTF-8"),
        ("classInd", "1 Archery\n2 archery\n", "bad_annotation", 2, "differ only by case"),
        ("classInd", "Archery\nBiking\n", "bad_annotation", 1, "expected '1 NAME'"),
    ],
)
def test_malformed_lists_of_ucf101_are_named_with_file_and_line(
    tmp_path: Path, name: str, content: str | bytes, code: str, line: int | None, words: str
) -> None:
    error = _refused("ucf101", _ucf(tmp_path, **{name: content}))
    assert _where(error, tmp_path) == (code, f"{name}.txt", line)
    assert words in error.message


def test_a_number_after_a_test_video_of_ucf101_is_checked_too(tmp_path: Path) -> None:
    error = _refused("ucf101", _ucf(tmp_path, testlist01="Biking/v_Biking_g01_c01.avi 1\n"), "test")
    assert _where(error, tmp_path) == ("bad_annotation", "testlist01.txt", 1)


def test_the_lists_of_ucf101_whose_classes_count_from_1_are_no_other_lists(tmp_path: Path) -> None:
    _ucf(tmp_path)
    for format in ("tsm_list", "mmaction2_list"):
        assert "there is no list for the split 'train'" in _refused(format, tmp_path).message


def test_a_video_in_both_lists_of_a_fold_is_refused(tmp_path: Path) -> None:
    error = _refused("ucf101", _ucf(tmp_path, testlist01="Biking/v_Biking_g02_c01.avi\n"), "all")
    assert _where(error, tmp_path) == ("duplicate", "testlist01.txt", 1)


@pytest.mark.parametrize("format", ["ucf101", "hmdb51"])
def test_folds_that_are_not_there_are_said(tmp_path: Path, format: str) -> None:
    _hmdb(_ucf(tmp_path))
    assert "fold is '4'; it must be one of 1, 2, 3" in _refused(format, tmp_path, fold="4").message
    assert _refused(format, tmp_path, fold="3").code == "missing"
    assert f"no lists of {format.upper()} here" in _refused(format, tmp_path / "nowhere").message


def _hmdb(root: Path, home: str = "", **changed: str | bytes) -> Path:
    files = {
        "climb_test_split1": "a_climb_1.avi 1 \nb_climb_2.avi 0 \n#20 c&d_climb.avi 2 \n",
        "brush_hair_test_split1": "e.avi 2 \nf.avi 1 \n",
        "climb_test_split2": "a_climb_1.avi 2 \n",
        "brush_hair_test_split2": "e.avi 1 \n",
    }
    for name, content in (files | changed).items():
        _put(root / home / f"{name}.txt", content)
    return root


@pytest.mark.parametrize("home", ["", "testTrainMulti_7030_splits"])
def test_hmdb51_is_split_by_the_numbers_in_its_lists(tmp_path: Path, home: str) -> None:
    _touch(_hmdb(tmp_path, home), "hmdb51_org/climb/#20 c&d_climb.avi", "hmdb51_org/e.mp4")
    assert detect(str(tmp_path)) == "hmdb51"
    train, val, test, everything = (read("auto", tmp_path, split) for split in ("train", "val", "test", "all"))
    place = f"{tmp_path}/hmdb51_org"
    assert everything.classes == ["brush_hair", "climb"]
    assert [(s.id, s.path, s.label_index, s.exists, s.split) for s in everything] == [
        ("brush_hair/e", f"{place}/e.mp4", 0, True, "test"),
        ("brush_hair/f", f"{place}/brush_hair/f.avi", 0, False, "train"),
        ("climb/a_climb_1", f"{place}/climb/a_climb_1.avi", 1, False, "train"),
        ("climb/b_climb_2", f"{place}/climb/b_climb_2.avi", 1, False, None),
        ("climb/#20 c&d_climb", f"{place}/climb/#20 c&d_climb.avi", 1, True, "test"),
    ]
    assert _ids(train) == ["brush_hair/f", "climb/a_climb_1"]
    assert _ids(test) == _ids(val) == ["brush_hair/e", "climb/#20 c&d_climb"]
    assert {s.split for s in val} == {"val"}
    assert _ids(read("auto", tmp_path, "test", fold="2")) == ["climb/a_climb_1"]


@pytest.mark.parametrize(
    ("content", "code", "line", "words"),
    [
        ("a.avi 1\nb.avi 3\n", "bad_annotation", 2, "expected 'FILE 0', 'FILE 1' or 'FILE 2', and found 'b.avi 3'"),
        ("a.avi\n", "bad_annotation", 1, "and found 'a.avi'"),
        ("a.avi,1\n", "bad_annotation", 1, "and found 'a.avi,1'"),
        ("../a.avi 1\n", "path_escape", 1, "is not a file name"),
        ("a.avi 1\na.avi 2\n", "duplicate", 2, "'climb/a' stands in line 1 too"),
        ("", "empty", None, "there is nothing in it"),
    ],
)
def test_malformed_lists_of_hmdb51_are_named_with_file_and_line(
    tmp_path: Path, content: str, code: str, line: int | None, words: str
) -> None:
    error = _refused("hmdb51", _hmdb(tmp_path, climb_test_split1=content))
    assert _where(error, tmp_path) == (code, "climb_test_split1.txt", line)
    assert words in error.message


def test_classes_of_hmdb51_alike_or_without_a_list_are_refused(tmp_path: Path) -> None:
    _hmdb(tmp_path, run_test_split2="a.avi 1\n")
    assert _where(_refused("hmdb51", tmp_path), tmp_path) == ("missing", "run_test_split1.txt", None)
    _hmdb(tmp_path, Climb_test_split1="z.avi 1\n")
    assert "'Climb' and 'climb' differ only by case" in _refused("hmdb51", tmp_path).message


# ----------------------------------------------------------------------------------- lists of TSM and mmaction2


def _lists(root: Path, train: str | bytes, val: str | bytes = "v 5 0\n", names: str | None = None) -> Path:
    _put(root / "train_videofolder.txt", train)
    _put(root / "val_videofolder.txt", val)
    if names is not None:
        _put(root / "category.txt", names)
    return root


def test_a_list_of_tsm_is_paths_numbers_of_frames_and_class_indices(tmp_path: Path) -> None:
    _lists(tmp_path, 'a/7 54 1\nmy clip 3.mp4  31\t0 \n\n"q" 12 2 3 1\n', names="run\nbend, low\n")
    _touch(tmp_path, "frames/a/7/00001.jpg", "my clip 3.webm")
    assert detect(str(tmp_path)) == "tsm_list"
    samples = read("auto", tmp_path, "train")
    assert samples.classes == ["run", "bend, low"]
    assert [tuple(sample.as_dict().values())[:11] for sample in samples] == [
        ("a/7", f"{tmp_path}/frames/a/7", "bend, low", 1, None, None, 54, None, True, "train", None),
        ("my clip 3", f"{tmp_path}/my clip 3.webm", "run", 0, None, None, 31, None, True, "train", None),
        ('"q" 12 2', f'{tmp_path}/"q" 12 2', "bend, low", 1, None, None, 3, None, False, "train", None),
    ]
    assert [(s.id, s.split) for s in read("auto", tmp_path, "all")][-1] == ("v", "val")
    assert _refused("tsm_list", tmp_path, "test").code == "missing"


def test_without_names_the_classes_of_a_list_are_numbers_the_same_in_each_split(tmp_path: Path) -> None:
    _lists(tmp_path, "a 5 3\n", "v 5 0\n")
    for split in ("train", "val", "all"):
        assert read("tsm_list", tmp_path, split).classes == ["0", "1", "2", "3"]


@pytest.mark.parametrize(
    ("name", "text"),
    [("category.txt", "run\nbend\n"), ("label_map.txt", "run\nbend\n"), ("classInd.txt", "1 run\n2 bend\n")],
)
def test_names_of_classes_are_found_beside_a_list(tmp_path: Path, name: str, text: str) -> None:
    _put(_lists(tmp_path, "a 5 1\n") / name, text)
    assert read("tsm_list", tmp_path, "train").classes == ["run", "bend"]
    other = _put(tmp_path / "names", "jump\nfall\n")
    assert read("tsm_list", tmp_path, "train", labels=str(other))[0].label == "fall"


@pytest.mark.parametrize(
    ("name", "split"),
    [("train.txt", "train"), ("train_list.txt", "train"), ("trainlist.txt", "train"), ("val_rgb.txt", "val"),
     ("validation.txt", "val"), ("something_val_list.txt", "val"), ("ucf101_rgb_train_split_1.txt", "train"),
     ("TEST.txt", "test"), ("testing2.txt", "test"), ("retrained.txt", None), ("videos.txt", None),
     ("train_and_val.txt", None), ("latest.txt", None)],
)  # fmt: skip
def test_the_name_of_a_list_says_its_split(name: str, split: str | None) -> None:
    assert split_named(f"/validation/{name}") == split


@pytest.mark.parametrize("folder", ["", "labels", "annotations"])
def test_lists_of_other_names_are_found_and_two_for_a_split_are_refused(tmp_path: Path, folder: str) -> None:
    _put(tmp_path / folder / "kinetics_train_list.txt", "a 5 0\n")
    _put(tmp_path / folder / "notes.txt", "nothing\n")
    assert detect(str(tmp_path)) == "tsm_list"
    assert _ids(read("auto", tmp_path, "train")) == ["a"]
    _put(tmp_path / folder / "train2.txt", "b 5 0\n")
    error = _refused("tsm_list", tmp_path)
    assert "2 lists for the split 'train': kinetics_train_list.txt, train2.txt" in error.message
    _put(tmp_path / folder / "train_videofolder.txt", "c 5 0\n")
    assert _ids(read("auto", tmp_path, "train")) == ["c"]


def test_one_list_is_read_for_the_split_of_its_name_and_for_all(tmp_path: Path) -> None:
    _lists(tmp_path / "lists", "a 5 0\nb 5 1\n")
    _touch(tmp_path, "clips/b/1.jpg")
    path = str(tmp_path / "lists" / "train_videofolder.txt")
    for split in ("train", "all"):
        samples = read("auto", tmp_path / "clips", split, annotations=path)
        assert [(s.id, s.exists, s.split) for s in samples] == [("a", False, "train"), ("b", True, "train")]
    error = _refused("tsm_list", tmp_path / "clips", "val", annotations=path)
    assert "no list for the split 'val'" in error.message
    assert "found train_videofolder.txt" in error.message
    assert read("auto", Path(path), "train")[0].path == f"{tmp_path}/lists/a"
    other = str(_put(tmp_path / "videos.txt", "a 5 0\n"))
    assert [s.split for s in read("tsm_list", tmp_path, "all", annotations=other)] == [None]
    assert _refused("tsm_list", tmp_path, "train", annotations=other).code == "missing"


@pytest.mark.parametrize(
    ("content", "code", "line", "words"),
    [
        ("a 5 0\nb 5\n", "bad_annotation", 2, "expected PATH NUM_FRAMES LABEL, separated by blanks, whole num"),
        ("a,5,0\n", "bad_annotation", 1, "(these are separated by commas), and found 'a,5,0'"),
        ("a;5;0\n", "bad_annotation", 1, "(these are separated by semicolons)"),
        ("a|5|0\n", "bad_annotation", 1, "(these are separated by vertical bars)"),
        ("a 5 -1\n", "bad_annotation", 1, "whole numbers after the path, and found 'a 5 -1'"),
        ("a 5 1.0\n", "bad_annotation", 1, "found 'a 5 1.0'"),
        ("a 5 \u0661\n", "bad_annotation", 1, "found 'a 5 \u0661'"),
        ("5 1\n", "bad_annotation", 1, "found '5 1'"),
        (f"a {'9' * 5000} 1\n", "bad_annotation", 1, "found 'a 9999"),
        ("a 5 0\nb 5 2\n", "bad_annotation", 2, "the class index is 2; expected 0 to 1, for the 2 classes in"),
        ("a 5 999999999\n", "bad_annotation", 1, "LABEL 999999999; expected a LABEL below 100,000"),
        ("a 5 0\n\na.mp4 5 0\n", "duplicate", 3, "the id 'a' stands in line 1 too"),
        ("../a 5 0\n", "path_escape", 1, "leads out of"),
        ("x/../../a 5 0\n", "path_escape", 1, "leads out of"),
        ("/etc/passwd 5 0\n", "path_escape", 1, "with --videos"),
        (". 5 0\n", "bad_annotation", 1, "expected a file below"),
        ("a.mp4 5 1 0\n", "bad_annotation", 1, "multi-label"),
        ("\r\n\r\n", "empty", None, "expected PATH NUM_FRAMES LABEL in every line"),
        (b"\xff 5 0\n", "bad_annotation", None, "not UTF-8"),
    ],
)  # fmt: skip
def test_malformed_lists_of_tsm_are_named_with_file_and_line(
    tmp_path: Path, content: str | bytes, code: str, line: int | None, words: str
) -> None:
    error = _refused("tsm_list", _lists(tmp_path, content, names="run\nbend\n"))
    assert _where(error, tmp_path) == (code, "train_videofolder.txt", line)
    assert words in error.message


def test_a_path_with_detours_stays_in_the_folder_of_videos_too(tmp_path: Path) -> None:
    home = tmp_path / "home"
    _touch(tmp_path, "home/videos/b.mp4", "home/home/b.mp4")
    _lists(home, f"../home/b.mp4 5 0\n{home}/c 5 0\nvideos/../d 5 0\n")
    samples = read("tsm_list", home, "train")
    assert [(s.path, s.exists) for s in samples] == [
        (f"{home}/videos/b.mp4", True), (f"{home}/c", False), (f"{home}/d", False),
    ]  # fmt: skip


def test_mmaction2_has_three_kinds_of_lists_told_by_their_columns(tmp_path: Path) -> None:
    found = {}
    for kind, text in {
        "video": "a/x.mp4 1\nb.avi 0\n",
        "rawframes": "a/x 7 1\nb 5 0\n",
        "rawframes_offset": "a/x 2 5 1\na/x 7 5 1\n",
    }.items():
        _put(tmp_path / kind / f"sthv1_train_list_{kind}.txt", text)
        assert detect(str(tmp_path / kind)) == ("tsm_list" if kind == "rawframes" else "mmaction2_list")
        samples, same = (
            read("mmaction2_list", tmp_path / kind, "train"),
            read("mmaction2_list", tmp_path / kind, "train", kind=kind),
        )
        assert list(samples) == list(same)
        found[kind] = [(s.id, s.label_index, s.num_frames, s.start_frame, s.end_frame) for s in samples]
    assert found == {
        "video": [("a/x", 1, None, None, None), ("b", 0, None, None, None)],
        "rawframes": [("a/x", 1, 7, None, None), ("b", 0, 5, None, None)],
        "rawframes_offset": [
            ("a/x_000002_000006", 1, 5, 2, 7),
            ("a/x_000007_000011", 1, 5, 7, 12),
        ],
    }


def test_lists_of_several_kinds_side_by_side_are_chosen_by_kind(tmp_path: Path) -> None:
    _put(tmp_path / "k_train_list_videos.txt", "a.mp4 1\n")
    _put(tmp_path / "k_train_list_rawframes.txt", "b 7 1\n")
    assert _ids(read("mmaction2_list", tmp_path, "train", kind="video")) == ["a"]
    assert _ids(read("mmaction2_list", tmp_path, "train", kind="rawframes")) == ["b"]
    assert "2 lists for the split 'train'" in _refused("mmaction2_list", tmp_path).message
    assert "unknown kind 'videos'. Did you mean 'video'?" in _refused("mmaction2_list", tmp_path, kind="videos").message


@pytest.mark.parametrize(
    ("text", "options", "line", "words"),
    [
        ("a.mp4 0 3\nb.mp4 0 2 4\n", {}, 1, "(multi-label) cannot be read"),
        ("imgs 5 1\nimgs 5 3 5\n", {}, 2, "'imgs 5 3 5' ends in 3 numbers, and line 1 in 2. Lists with several labels"),
        ("a.mp4 0 3\n", {"kind": "video"}, 1, "(multi-label) cannot be read"),
        ("clip a 0\nclip 7 0\n", {}, 2, "say which kind it is (video, rawframes, rawframes_offset)"),
        ("# 0\nimgs\n", {}, 2, "ends in 0 numbers"),
        ("imgs\n5\n", {}, 1, "expected PATH LABEL or PATH NUM_FRAMES LABEL or PATH OFFSET NUM_FRAMES LABEL"),
        ("a 1 2 3 4\n", {}, 1, "separated by blanks, and found 'a 1 2 3 4'"),
        ("a,0\n", {"kind": "video"}, 1, "(these are separated by commas)"),
        ("a 2 0 1\n", {}, 1, "NUM_FRAMES 0 and LABEL 1; expected a LABEL below 100,000, and a frame or more"),
    ],
)
def test_lists_of_mmaction2_that_cannot_be_told_are_refused_with_advice(
    tmp_path: Path, text: str, options: dict[str, str], line: int, words: str
) -> None:
    _put(tmp_path / "train.txt", text)
    error = _refused("mmaction2_list", tmp_path, **options)
    assert _where(error, tmp_path) == ("bad_annotation", "train.txt", line)
    assert words in error.message


def test_two_numbers_after_a_video_file_are_labels_unless_the_format_says_otherwise(tmp_path: Path) -> None:
    _put(tmp_path / "train.txt", "a.mp4 7 1\nb.mp4 5 0\n")
    error = _refused("auto", tmp_path)
    assert _where(error, tmp_path) == ("bad_annotation", "train.txt", 1)
    assert "several labels for a video (multi-label) cannot be read" in error.message
    assert "say --format tsm_list" in error.message
    for format, options in (("tsm_list", {}), ("mmaction2_list", {"kind": "rawframes"})):
        assert [s.num_frames for s in read(format, tmp_path, "train", **options)] == [7, 5]


def test_paths_that_end_in_numbers_are_read_where_the_kind_is_said(tmp_path: Path) -> None:
    _put(tmp_path / "train.txt", "clip a 0\nclip 7 0\n")
    assert _ids(read("mmaction2_list", tmp_path, "train", kind="video")) == ["clip a", "clip 7"]


# ------------------------------------------------------------------------------------------------------- formats


def test_lists_of_two_data_sets_in_one_folder_are_refused(tmp_path: Path) -> None:
    _kinetics(_rows(tmp_path))
    assert "here are the lists of sthv1 and kinetics400; say which with --format" in _refused("auto", tmp_path).message


def test_other_files_in_a_folder_of_classes_do_not_make_it_a_list(tmp_path: Path) -> None:
    _touch(tmp_path, "walk/a.mp4", "run/b.mp4")
    _put(tmp_path / "train_notes.txt", "filmed in the garden\n")
    _put(tmp_path / "train.csv", "path,split\nwalk/a.mp4,train\n")
    assert detect(str(tmp_path)) == "folder"


def test_the_command_line_names_every_format() -> None:
    (option,) = Format.__metadata__  # type: ignore[attr-defined]
    assert set(option.help.replace(" or ", ", ").rstrip(".").split(", ")) == {*FORMATS, "auto"}


def test_the_page_on_data_has_a_section_for_every_format_with_its_options() -> None:
    page = (Path(__file__).parents[2] / "docs" / "data.md").read_text(encoding="utf-8")
    sections = {text.split(":")[0]: text for text in page.split("\n### ")[1:]}
    assert set(sections) == set(FORMATS)
    for format, reader in FORMATS.items():
        for option in set(options_of(reader)) - {"annotations", "videos"}:
            alike = {"jester": "sthv1", "mmaction2_list": "tsm_list"}.get(format, format)
            alike = "label_studio" if format in ("cvat", "elan", "via") else alike
            assert option.replace("_", "-") in (sections[format] + sections[alike]).replace("_", "-"), (format, option)


# ------------------------------------------------------------------------------------------------ written and read

LETTERS = st.text(alphabet=string.ascii_letters + string.digits + " ._-'(),;\"#&\u00fc\u8d70", min_size=1, max_size=12)
NAMES = LETTERS.filter(lambda name: name == name.strip() and not name.startswith(".")).map(lambda name: f"x{name}y")
LABELS = st.lists(NAMES, min_size=1, max_size=5, unique_by=canonical_label)


@pytest.mark.slow
@given(
    labels=LABELS.filter(lambda labels: not any('"' in label or ";" in label for label in labels)),
    rows=st.lists(st.tuples(NAMES, st.integers(0, 99), st.integers(0, 999)), max_size=6, unique_by=lambda row: row[0]),
    end=st.sampled_from(["\n", "\r\n", "\r"]),
    mark=st.sampled_from([b"", b"\xef\xbb\xbf"]),
)
@settings(max_examples=60, deadline=None, derandomize=True, database=None)
def test_what_is_written_into_a_list_is_what_is_read(
    labels: list[str], rows: list[tuple[str, int, int]], end: str, mark: bytes
) -> None:
    rows = [("x0y", 1, 2), *((name, label, count) for name, label, count in rows if name != "x0y")]
    wanted = [(name, labels[label % len(labels)]) for name, label, _ in rows]
    counts = [count for *_, count in rows]

    def written(lines: list[str]) -> bytes:
        return mark + end.join(lines).encode()

    def quoted(word: str) -> str:
        return '"' + word.replace('"', '""') + '"'

    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        by_format = {
            "sthv1": {
                f"{V1}labels.csv": written(labels),
                f"{V1}train.csv": written([f"{quoted(name)};{label}" for name, label in wanted]),
            },
            "tsm_list": {
                "category.txt": written(labels),
                "train_videofolder.txt": written(
                    [f"{name} {c} {labels.index(label)}" for (name, label), c in zip(wanted, counts, strict=True)]
                ),
            },
            "hmdb51": {
                f"{label}_test_split1.txt": written([f"{name} 1 " for name, own in wanted if own == label])
                for label in {label for _, label in wanted}
            },
            "kinetics400": {
                "train.csv": written(
                    ["label,youtube_id,time_start,time_end,split"]
                    + [f"{quoted(label)},{quoted(name)},{count},{count + 10},train"
                       for (name, label), count in zip(wanted, counts, strict=True)]
                )
            },
        }  # fmt: skip
        for format, files in by_format.items():
            for name, content in files.items():
                _put(home / format / name, content)
            samples = read(format, home / format, "train")
            ids = {
                "hmdb51": [f"{label}/{name}" for name, label in wanted],
                "kinetics400": [f"{name}_{c:06d}_{c + 10:06d}" for (name, _), c in zip(wanted, counts, strict=True)],
            }.get(format, [name for name, _ in wanted])
            found = {s.id: s.label for s in samples}
            assert found == dict(zip(ids, [label for _, label in wanted], strict=True))
            assert [s.label for s in samples] == [samples.classes[s.label_index or 0] for s in samples]
            if format == "tsm_list":
                assert (_ids(samples), [s.num_frames for s in samples], samples.classes) == (ids, counts, labels)
            if format == "sthv1":
                assert (_ids(samples), samples.classes) == (ids, labels)


# ----------------------------------------------------------------------------------------------------- real files


def _num_lines(path: Path) -> int:
    return sum(1 for line in path.read_bytes().splitlines() if line.strip())


@pytest.mark.slow
@pytest.mark.shared
def test_the_real_lists_of_jester_are_read_whole(shared: Path) -> None:
    root = shared / "annotations" / "jester_official_csv"
    counts = {split: len(read("auto", root, split)) for split in ("train", "val", "test")}
    assert counts == {"train": 118_562, "val": 14_787, "test": 14_743}
    assert counts["train"] == _num_lines(root / f"{JESTER}train.csv")
    samples = read("jester", root, "val", videos=str(shared / "videos" / "jester_frames" / "training_samples"))
    assert (len(samples.classes), samples.classes[0], samples.classes[26]) == (27, "Swiping Left", "Doing other things")
    assert (samples[0].id, samples[0].label, samples[0].label_index) == ("9223", "Thumb Up", 20)
    # Mirrored, a hand that turns clockwise turns counterclockwise, and a swipe to the left goes to the right.
    pairs = [tuple(samples.classes[index] for index in pair) for pair in flip_pairs(samples.classes).pairs]
    assert pairs == [
        ("Swiping Left", "Swiping Right"),
        ("Sliding Two Fingers Left", "Sliding Two Fingers Right"),
        ("Turning Hand Clockwise", "Turning Hand Counterclockwise"),
    ]


@pytest.mark.shared
def test_real_frames_of_jester_are_found_by_their_id(shared: Path, tmp_path: Path) -> None:
    _rows(tmp_path, JESTER, labels="Thumb Up\n", train="24;Thumb Up\n25;Thumb Up\n")
    samples = read("auto", tmp_path, "train", videos=str(shared / "videos" / "jester_frames" / "training_samples"))
    assert [sample.exists for sample in samples] == [True, False]
    assert len(os.listdir(samples[0].path)) > 30


@pytest.mark.slow
@pytest.mark.shared
def test_the_real_lists_of_v2_in_tsms_form_are_read_whole(shared: Path) -> None:
    root = shared / "annotations" / "sthv2_tsm_lists"
    samples = read("auto", root, "all")
    assert Counter(sample.split for sample in samples) == {"train": 168_913, "val": 24_777}
    assert (samples[0].id, samples[0].num_frames, samples[0].label_index) == ("78687", 54, 19)
    assert {sample.label_index for sample in samples} == set(range(174))
    assert samples[-1].label == samples.classes[samples[-1].label_index or 0]
    assert flip_pairs(samples.classes).pairs == [(86, 87), (93, 94), (166, 167)]
    first, *_, last = (root / "val_videofolder.txt").read_text().split()
    assert (samples[168_913].id, str(samples[-1].label_index)) == (first, last)


@pytest.mark.slow
@pytest.mark.shared
@pytest.mark.parametrize("fold", ["1", "2", "3"])
def test_the_real_lists_of_ucf101_hold_13320_videos_in_each_fold(shared: Path, fold: str) -> None:
    root = shared / "annotations" / "ucf101_splits"
    train, test, everything = (read("auto", root, split, fold=fold) for split in ("train", "test", "all"))
    assert len(train) == _num_lines(root / f"trainlist0{fold}.txt") == {"1": 9537, "2": 9586, "3": 9624}[fold]
    assert len(everything) == len(train) + len(test) == len({*_ids(train), *_ids(test)}) == 13_320
    assert (len(train.classes), train.classes[0], train.classes[100]) == (101, "ApplyEyeMakeup", "YoYo")


@pytest.mark.shared
def test_the_real_class_lists_have_exactly_the_three_pairs_of_something_something(shared: Path, tmp_path: Path) -> None:
    maps = shared / "annotations" / "mmaction2_label_maps"
    _rows(tmp_path, labels=(maps / "sthv1_label_map.txt").read_text())
    _put(tmp_path / f"{V1}train.csv", "1;Holding something\n")
    by_file, by_name = (read("sthv1", tmp_path, "train", class_order=order).classes for order in ("file", "sorted"))
    assert len(by_file) == len(by_name) == 174
    assert flip_pairs(by_file).pairs == [(2, 4), (30, 41), (52, 66)]
    pairs = flip_pairs(by_name).pairs
    assert len(pairs) == 3
    assert {frozenset(by_name[i] for i in pair) for pair in pairs} == {
        frozenset(by_file[i] for i in pair) for pair in [(2, 4), (30, 41), (52, 66)]
    }
    assert flip_pairs(class_names(str(maps / "sthv2_label_map.txt"))).pairs == [(86, 87), (93, 94), (166, 167)]


@pytest.mark.shared
def test_the_real_class_lists_of_kinetics_name_the_same_400_classes(shared: Path, tmp_path: Path) -> None:
    lists = shared / "annotations"
    files = [
        lists / "kinetics400_tsm" / "kinetics_label_map.txt",
        lists / "mmaction2_label_maps" / "kinetics_label_map_k400.txt",
    ]
    names = [class_names(str(path)) for path in files]
    assert names[0] == names[1]
    assert len({canonical_label(name) for name in names[0]}) == 400
    rows = "".join(f'"{name}",v{place},0,10,train,0\n' for place, name in enumerate(reversed(names[0])))
    _put(tmp_path / "train.csv", HEADER + rows)
    assert read("kinetics400", tmp_path, "train").classes == sorted(names[0])
    _touch(
        tmp_path,
        *(f"videos/{name.replace(' ', '_')}/v{399 - place}_000000_000010.mp4" for place, name in enumerate(names[0])),
    )
    samples = read("kinetics400", tmp_path, "train", labels=str(files[0]))
    assert [sample.label_index for sample in samples] == list(range(399, -1, -1))
    assert all(sample.exists for sample in samples)


@pytest.mark.shared
def test_mmaction2s_own_lists_are_read_or_refused_by_name(shared: Path, tmp_path: Path) -> None:
    lists = shared / "annotations" / "mmaction2_test_lists"
    for name in ("rawframe_test_list_multi_label.txt", "video_test_list_multi_label.txt"):
        assert "multi-label" in _refused("mmaction2_list", lists / name, "test").message
    kinds = {}
    for name in ("rawframe_test_list.txt", "video_test_list.txt", "rawframe_test_list_with_offset.txt"):
        error = _refused("mmaction2_list", lists / name, "test")  # each names its only video twice
        assert _where(error, lists) == ("duplicate", name, 2)
        path = _put(tmp_path / name, (lists / name).read_text().splitlines()[0])
        (sample,) = read("mmaction2_list", path, "test")
        kinds[name] = (sample.id, sample.label_index, sample.num_frames, sample.start_frame)
    assert list(kinds.values()) == [
        ("imgs", 127, 5, None),
        ("test", 0, None, None),
        ("imgs_000002_000006", 127, 5, 2),
    ]
