"""Names as they come: two that look alike, lists that are none, links that lead out, and what a terminal would obey."""

import os
import shutil
import unicodedata
from pathlib import Path
from typing import Any

import pytest

from ssan.datasets import Sample, detect, read
from ssan.datasets.audit import Fault, write_list, write_skipped
from ssan.datasets.lists import lists_there
from ssan.datasets.source import DataSource
from ssan.datasets.tables import plain_form
from ssan.datasets.tree import Finder
from ssan.errors import AnnotationError, SsanError, UsageError, VideoError
from ssan.weights.imported import read_class_names

CAFE = "Caf\u00e9"
DECOMPOSED = unicodedata.normalize("NFD", CAFE)


def _put(path: Path, content: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")
    return path


def _refused(format: str, root: Path, split: str = "all", **options: str) -> SsanError:
    with pytest.raises(SsanError) as caught:
        read(format, root, split, **options)
    assert isinstance(caught.value, UsageError | AnnotationError)
    return caught.value


# ------------------------------------------------------------------------------------------- names that look alike


@pytest.mark.parametrize(("one", "other"), [(CAFE, DECOMPOSED), ("walk", "walk "), ("\u00df", "SS"), ("WALK", "walk")])
def test_classes_that_look_alike_are_refused(tmp_path: Path, one: str, other: str) -> None:
    assert plain_form(one) == plain_form(other)
    _put(tmp_path / "data" / "train" / one / "a.mp4")
    _put(tmp_path / "data" / "val" / other / "b.mp4")
    message = _refused("folder", tmp_path / "data").message
    assert "differ only by case, outer blanks or the Unicode form of a letter" in message
    if one == CAFE:  # they would look the same
        assert "'Caf\\xe9'" in message
        assert "'Cafe\\u0301'" in message


def test_labels_in_files_that_look_alike_are_refused(tmp_path: Path) -> None:
    table = _put(tmp_path / "list.csv", f"path,label\na.mp4,{CAFE}\nb.mp4,{DECOMPOSED}\n")
    assert "differ only by case" in _refused("csv", table).message
    _put(tmp_path / "lists" / "train.txt", "a 3 0\n")
    _put(tmp_path / "lists" / "category.txt", f"{CAFE}\n{DECOMPOSED}\n")
    assert "differ only by case" in _refused("tsm_list", tmp_path / "lists").message
    _put(tmp_path / "v1" / "something-something-v1-labels.csv", f"{CAFE}\n")
    _put(tmp_path / "v1" / "something-something-v1-train.csv", f"7;{DECOMPOSED}\n")
    error = _refused("sthv1", tmp_path / "v1", "train")
    assert (error.code, "Did you mean 'Caf\\xe9'? It differs only by" in error.message) == ("unknown_label", True)


def test_a_video_is_found_in_either_unicode_form_of_its_name(tmp_path: Path) -> None:
    _put(tmp_path / DECOMPOSED / "\u00e0.mp4")
    _put(tmp_path / "plain.mp4")
    for name in (f"{CAFE}/\u00e0.mp4", f"{CAFE}/a\u0300.avi", f"{DECOMPOSED}/a\u0300"):
        assert Finder(tmp_path).find(name) == f"{tmp_path}/{DECOMPOSED}/\u00e0.mp4"
    assert Finder(tmp_path).find(f"{CAFE}/b.mp4") is None
    table = _put(tmp_path / "list.csv", f"path,label\n{CAFE}/a\u0300.mp4,x\n")
    assert [sample.exists for sample in read("csv", table, "all")] == [True]


# ------------------------------------------------------------------------------------------------ what is a list


@pytest.mark.parametrize("text", ["recorded in room 7\n", "room 7 12\nroom 8 9\n", "walk 7\n"])
def test_a_note_that_ends_in_a_number_is_no_list(tmp_path: Path, text: str) -> None:
    _put(tmp_path / "walk" / "a.mp4")
    _put(tmp_path / "run" / "b.mp4")
    _put(tmp_path / "train_notes.txt", text)
    if text.startswith("walk"):  # a list of one folder: it names something that is there
        assert detect(str(tmp_path)) == "mmaction2_list"
        return
    assert detect(str(tmp_path)) == "folder"
    samples = read("auto", tmp_path, "all")
    assert [sample.label for sample in samples] == ["run", "walk"]
    (note,) = samples.notes
    assert "train_notes.txt is not taken for a list, as no line of it names a video that is here" in note
    assert read("folder", tmp_path, "all").notes == []
    assert detect(str(tmp_path), str(tmp_path / "train_notes.txt")) != "folder"


def test_a_list_whose_videos_are_there_or_elsewhere_is_one(tmp_path: Path) -> None:
    _put(tmp_path / "a" / "train_list.txt", "walk/x.avi 1\nwalk/gone.avi 0\n")
    _put(tmp_path / "a" / "videos" / "walk" / "x.mp4")
    _put(tmp_path / "b" / "train_list.txt", "walk/x.avi 1\n")
    _put(tmp_path / "c" / "train_videofolder.txt", "x 7 1\n")
    _put(tmp_path / "c" / "walk" / "other.mp4")
    assert [detect(str(tmp_path / name)) for name in "abc"] == ["mmaction2_list", "mmaction2_list", "tsm_list"]
    shutil.move(tmp_path / "a" / "videos", tmp_path / "elsewhere")
    _put(tmp_path / "a" / "walk" / "other.mp4")
    assert detect(str(tmp_path / "a")) == "folder"
    assert detect(str(tmp_path / "a"), videos=str(tmp_path / "elsewhere")) == "mmaction2_list"
    assert lists_there(str(tmp_path / "a"), None, None) == []


def test_a_note_beside_a_list_of_the_same_split_is_passed_over(tmp_path: Path) -> None:
    _put(tmp_path / "train_list.txt", "walk/x.avi 1\n")
    _put(tmp_path / "train_notes.txt", "recorded in room 7\n")
    _put(tmp_path / "walk" / "x.mp4")
    assert [sample.id for sample in read("auto", tmp_path, "train")] == ["walk/x"]


# ---------------------------------------------------------------------------------------------- links and devices


def test_a_link_out_of_the_data_is_no_file_of_names(tmp_path: Path) -> None:
    secret = _put(tmp_path / "secret.txt", "password\nhunter2\n")
    lists = tmp_path / "data"
    _put(lists / "train.txt", "a 3 0\n")
    (lists / "category.txt").symlink_to(secret)
    error = _refused("tsm_list", lists, "train")
    assert (error.code, "password" in str(error)) == ("path_escape", False)
    assert "--reader labels=FILE" in error.message
    assert read("tsm_list", lists, "train", labels=str(secret)).classes == ["password", "hunter2"]
    (lists / "category.txt").unlink()
    (lists / "category.txt").symlink_to(_put(lists / "names" / "mine.txt", "walk\n").relative_to(lists))
    assert read("tsm_list", lists, "train").classes == ["walk"]
    (lists / "train.txt").unlink()
    (lists / "train.txt").symlink_to(secret)
    assert _refused("tsm_list", lists, "train").code == "path_escape"
    v1 = tmp_path / "v1" / "something-something-v1-labels.csv"
    v1.parent.mkdir()
    v1.symlink_to(secret)
    assert _refused("sthv1", v1.parent, "train").code == "path_escape"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_or_a_device_is_no_list_and_nobody_waits_for_it(tmp_path: Path) -> None:
    _put(tmp_path / "train.txt", "a 3 0\n")
    for name in ("zero", "pipe"):
        place = tmp_path / f"{name}.txt"
        os.mkfifo(place) if name == "pipe" else place.symlink_to("/dev/zero")
        assert "not a file" in _refused("tsm_list", tmp_path, "train", labels=str(place)).message
        assert _refused("tsm_list", tmp_path, "train", annotations=str(place)).code == "missing"
        place.unlink()


# -------------------------------------------------------------------------------------------------- command line


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["list", "check", "describe"])
def test_the_data_may_be_the_first_argument_of_every_verb(ssan: Any, tmp_path: Path, verb: str) -> None:
    _put(tmp_path / "data" / "walk" / "a.mp4")
    first, second = (ssan("data", verb, *given, tmp_path / "data", "--quiet") for given in ([], ["--data"]))
    assert first.code == second.code != 2
    assert "walk" in first.out
    for arguments in ([], [tmp_path, "--data", tmp_path]):
        answer = ssan("data", verb, *arguments)
        assert (answer.code, answer.err.count("\n")) == (2, 1)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["list", "--reader", "split=val"], "split=val is no option of a reader; say it with --split"),
        (["list", "--reader", "root=x"], "say it with --data"),
        (["list", "--reader", "format=csv"], "say it with --format"),
        (["list", "--val-groups", "(a)=a", "--reader", "val_groups=(b)=b"], "val_groups is given already"),
        (["list", "--reader", "fold=1/2", "--reader", "fold=2/2"], "fold is given already, as '1/2'"),
        (["describe", "--plot", "x.foo"], "--plot x.foo: its name must end in .png or .svg or .pdf"),
        (["describe", "--plot", "x"], "its name must end in"),
        (["describe", "--plot", "{folder}"], "a folder, where a file is to be written"),
        (["check", "--write-clean", "clean.txt"], "its name must end in .csv"),
    ],
)
def test_options_that_collide_and_outputs_of_no_kind_are_one_line(
    ssan: Any, tmp_path: Path, arguments: list[str], words: str
) -> None:
    _put(tmp_path / "data" / "walk" / "a.mp4")
    (tmp_path / "folder.png").mkdir()
    verb, *rest = (word.format(folder=tmp_path / "folder.png") for word in arguments)
    answer = ssan("data", verb, tmp_path / "data", *rest)
    assert (answer.code, answer.out, answer.err.count("\n")) == (2, "", 1)
    assert words in answer.err


def test_a_source_in_python_refuses_what_no_reader_takes() -> None:
    with pytest.raises(UsageError, match="no option of a reader"):
        DataSource("data", options={"split": "val"})


def test_a_list_shows_no_control_characters(ssan: Any, tmp_path: Path) -> None:
    _put(tmp_path / "wa\x1b[31mlk" / "a\nb\x07.mp4")
    answer = ssan("data", "list", tmp_path)
    assert answer.out.count("\n") == 1
    assert "\x1b" not in answer.out
    assert "\x07" not in answer.out


def test_names_with_a_carriage_return_survive_a_written_list(tmp_path: Path) -> None:
    sample = Sample("w/a\rb", str(tmp_path / "w" / "a\rb.mp4"), label="wa\rlk", label_index=0, exists=False)
    assert write_list(tmp_path / "clean.csv", [sample], str(tmp_path)) == []
    (back,) = read("csv", tmp_path / "clean.csv", "all")
    assert (back.id, back.path, back.label) == (sample.id, sample.path, sample.label)
    write_skipped(tmp_path / "skipped.csv", [Fault(sample, VideoError("no", code="missing"))])
    assert (tmp_path / "skipped.csv").read_bytes().count(b'"w/a\rb"') == 1


# ------------------------------------------------------------------------------- names of classes with commas


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("walking, slowly\nrunning, fast\n", ["walking, slowly", "running, fast"]),
        ("walk,slowly\nrun\n", ["walk,slowly", "run"]),
        ('name\nwalk, slowly\n"run, fast"\nsit\n', ["walk, slowly", "run, fast", "sit"]),
        ("id,name\n1,run\n0,walk, slowly, home\n", ["walk, slowly, home", "run"]),
    ],
)
def test_class_names_may_hold_commas_one_a_row(tmp_path: Path, text: str, names: list[str]) -> None:
    assert read_class_names(_put(tmp_path / "names.csv", text)) == names


@pytest.mark.parametrize("text", ["0,walk\n1,run\n", "0, walk\n1, run\n", "walk,7\nrun,8\n", "name,id\nrun, fast,0\n"])
def test_a_table_whose_columns_nobody_names_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(UsageError, match="or one a line into a file that ends in"):
        read_class_names(_put(tmp_path / "names.csv", text))
