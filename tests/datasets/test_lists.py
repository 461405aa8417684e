"""Readers find the videos, the classes and the splits that are there, and name file and line where a list is wrong."""

import csv
import json
import os
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import simplejpeg

from ssan.datasets import FORMATS, Sample, Samples, read
from ssan.datasets import detect as detect_format
from ssan.datasets.audit import audit, write_skipped
from ssan.datasets.samples import canonical_split, inside
from ssan.datasets.tree import find_videos, is_frame_folder
from ssan.errors import AnnotationError, SsanError, UsageError
from ssan.video.mirror import flip_pairs

FIELDS = [
    "id",
    "path",
    "label",
    "label_index",
    "start_seconds",
    "end_seconds",
    "num_frames",
    "caption",
    "exists",
    "split",
    "video",
    "start_frame",
    "end_frame",
]
PEOPLE = ("daria", "denis", "ido", "moshe", "shahar")
PREFIX = "something-something-v2-"


def _touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def _ids(samples: Samples) -> list[str]:
    return [sample.id for sample in samples]


def _refused(format: str, root: Path, split: str = "all", **options: str) -> SsanError:
    with pytest.raises(SsanError) as caught:
        read(format, root, split, **options)
    assert isinstance(caught.value, UsageError | AnnotationError)
    return caught.value


# -------------------------------------------------------------------------------------------------- what all share


def test_a_sample_has_the_promised_fields_in_this_order() -> None:
    assert list(Sample("a", "a.mp4").as_dict()) == FIELDS
    assert Sample("a", "a.mp4").as_dict() == dict.fromkeys(FIELDS) | {"id": "a", "path": "a.mp4", "exists": True}


@pytest.mark.parametrize(
    ("word", "split"),
    [
        ("train", "train"),
        ("training", "train"),
        ("validation", "val"),
        ("valid", "val"),
        ("validate", "val"),
        ("testing", "test"),
    ]
    + [(word, word) for word in ("val", "test", "all")],
)
def test_a_split_goes_by_its_usual_names(word: str, split: str) -> None:
    assert canonical_split(word) == split


def test_an_unknown_split_is_refused_with_a_suggestion(tmp_path: Path) -> None:
    assert "unknown split 'trian'. Did you mean 'train'? Known: all, test, train, val" in str(
        _refused("folder", _touch(tmp_path, "walk/a.mp4"), "trian")
    )


def test_an_unknown_format_is_refused_with_a_suggestion(tmp_path: Path) -> None:
    assert "unknown format 'sthv3'. Did you mean 'sthv2'?" in str(_refused("sthv3", tmp_path))


def test_an_option_of_another_format_is_refused_and_nothing_is_no_option(tmp_path: Path) -> None:
    _touch(tmp_path, "walk/a.mp4")
    message = str(_refused("folder", tmp_path, class_order="file"))
    assert (
        message == "the format folder does not take 'class_order'; it takes splits, val_groups, "
        "val_fraction, fold, groups, split_seed, class_folder"
    )
    assert len(read("folder", tmp_path, "all", class_order=None)) == 1


def test_two_videos_with_one_id_are_refused() -> None:
    with pytest.raises(AnnotationError, match=r"list: two videos have the id 'a': a\.mp4 and b/a\.mp4") as caught:
        Samples([Sample("a", "a.mp4"), Sample("b", "b.mp4"), Sample("a", "b/a.mp4")], [], "list")
    assert caught.value.code == "duplicate"


def test_keeping_some_samples_keeps_classes_and_source() -> None:
    samples = Samples([Sample("a", "a.mp4"), Sample("b", "b.mp4")], ["x", "y"], "list")
    kept = samples.kept(samples[1:])
    assert (_ids(kept), kept.classes, kept.source) == (["b"], ["x", "y"], "list")


@pytest.mark.parametrize("path", ["../a.mp4", "x/../../a.mp4", "/etc/passwd", "..", "../root-2/a.mp4", "a\0.mp4"])
def test_a_path_that_leads_out_is_refused(path: str) -> None:
    with pytest.raises(AnnotationError) as caught:
        inside("/data/root", path, source="list.csv", line=3)
    assert (caught.value.code, caught.value.path, caught.value.line) == ("path_escape", "list.csv", 3)


@pytest.mark.parametrize("path", ["a.mp4", "x/a.mp4", "x/../a.mp4", "..a.mp4", "/data/root/a.mp4"])
def test_a_path_that_stays_inside_is_joined(path: str) -> None:
    assert inside("/data/root/", path, source="list.csv").startswith("/data/root/")


@pytest.mark.parametrize(
    ("root", "path", "stays"),
    [
        (".", "a.mp4", True), (".", "../a.mp4", False), ("..", "a.mp4", True), ("..", "../a.mp4", False),
        ("../..", "../../a.mp4", False), ("", "a.mp4", True), ("", "../a.mp4", False), ("/", "etc/a.mp4", True),
    ],
)  # fmt: skip
def test_a_path_leads_out_or_not_however_its_root_is_spelled(
    root: str, path: str, stays: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a/b/c").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "a/b/c")  # deep enough for ".." to lead somewhere else each time
    if stays:
        assert os.path.normpath(inside(root, path, source="list.csv")) == os.path.normpath(os.path.join(root, path))
    else:
        with pytest.raises(AnnotationError, match="leads out of"):
            inside(root, path, source="list.csv")


def test_a_path_that_no_file_can_have_is_refused() -> None:
    with pytest.raises(AnnotationError) as caught:
        inside("/data/root", "\ud800.mp4", source="list.csv")
    assert caught.value.code == "path_escape"


@pytest.mark.parametrize(
    ("files", "format"),
    [
        (["walk/a.mp4"], "folder"),
        ([f"{PREFIX}labels.json"], "sthv2"),
        (["labels/labels.json", "labels/train.json"], "sthv2"),
        ([f"labels/{PREFIX}labels.json"], "sthv2"),
        (["labels.json", "train.json"], "sthv2"),
        (["labels.json", "walk/a.mp4"], "folder"),
    ],
)
def test_the_format_is_known_by_the_files(tmp_path: Path, files: list[str], format: str) -> None:
    assert detect_format(str(_touch(tmp_path, *files))) == format


def test_a_csv_file_is_known_by_its_name(tmp_path: Path) -> None:
    assert detect_format(str(tmp_path / "list.CSV")) == "csv"
    assert detect_format(str(tmp_path), str(tmp_path / "list.csv")) == "csv"


def test_annotations_elsewhere_are_looked_at_to_know_the_format(tmp_path: Path) -> None:
    _touch(tmp_path, f"lists/{PREFIX}labels.json", "videos/1.webm")
    assert detect_format(str(tmp_path / "videos"), str(tmp_path / "lists")) == "sthv2"


def test_no_data_there_is_missing(tmp_path: Path) -> None:
    for format in ("auto", "folder", "csv", "sthv2"):
        assert _refused(format, tmp_path / "nowhere").code == "missing"
    assert _refused("auto", tmp_path / "nowhere.csv").code == "missing"


# ------------------------------------------------------------------------------------------------ finding videos


def test_videos_are_found_by_suffix_in_sorted_order_and_hidden_files_are_not(tmp_path: Path) -> None:
    _touch(tmp_path, "b/2.MP4", "b/1.webm", "a.avi", "notes.txt", "b/.3.mp4", "list.csv")
    assert find_videos(tmp_path) == [str(tmp_path / name) for name in ("a.avi", "b/1.webm", "b/2.MP4")]


def test_a_folder_of_pictures_is_one_video(tmp_path: Path) -> None:
    _touch(tmp_path, "walk/clip/0001.jpg", "walk/clip/0002.JPG", "walk/b.mp4")
    assert find_videos(tmp_path) == [str(tmp_path / "walk/b.mp4"), str(tmp_path / "walk/clip")]
    assert find_videos(tmp_path / "walk/clip") == [str(tmp_path / "walk/clip")]


def test_a_folder_named_like_a_video_is_looked_into(tmp_path: Path) -> None:
    _touch(tmp_path, "x.mp4/part.mp4", "y.mp4/0001.jpg", "z.mp4/notes.txt")
    assert find_videos(tmp_path) == [str(tmp_path / "x.mp4/part.mp4"), str(tmp_path / "y.mp4")]


def test_a_hidden_thumbnail_does_not_make_a_folder_of_videos_one_video(tmp_path: Path) -> None:
    _touch(tmp_path, "walk/.cover.jpg", "walk/a.mp4")
    os.mkdir(tmp_path / "walk" / "pictures.jpg")
    assert not is_frame_folder(tmp_path / "walk")
    assert find_videos(tmp_path) == [str(tmp_path / "walk/a.mp4")]


def test_links_that_lead_in_a_circle_are_walked_once(tmp_path: Path) -> None:
    _touch(tmp_path, "walk/a.mp4", "walk/deep/b.mp4")
    for name in ("x", "y", "z"):
        (tmp_path / "walk" / name).symlink_to(".")
        (tmp_path / "walk" / "deep" / name).symlink_to("..")
    (tmp_path / "walk" / "itself").symlink_to("itself")
    (tmp_path / "walk" / "itself.mp4").symlink_to("itself.mp4")
    (tmp_path / "walk" / "itself.jpg").symlink_to("nowhere")
    (tmp_path / "walk" / "itself.jpg").unlink()
    found = find_videos(tmp_path)
    assert found == [str(tmp_path / "walk" / name) for name in ("a.mp4", "deep/b.mp4", "itself.mp4")]
    assert read("folder", tmp_path, "all").classes == ["walk"]


@pytest.mark.slow
def test_folders_nested_without_end_are_walked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for _ in range(1200):
        os.mkdir("d")
        os.chdir("d")
    Path("a.mp4").touch()
    try:
        (found,) = find_videos(str(tmp_path))
        assert found.endswith("/d/a.mp4")
    finally:
        monkeypatch.chdir(tmp_path)
        for folder in reversed([Path("/".join(["d"] * depth)) for depth in range(1, 1201)]):
            (folder / "a.mp4").unlink(missing_ok=True)
            folder.rmdir()


def test_a_folder_that_cannot_be_looked_into_stands_for_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _touch(tmp_path, "closed/a.mp4", "open/b.mp4")
    real = os.scandir

    def scandir(path: str) -> Any:
        if Path(path).name == "closed":
            raise PermissionError(13, "Permission denied", path)
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    assert find_videos(tmp_path) == [str(tmp_path / "closed"), str(tmp_path / "open/b.mp4")]
    with pytest.raises(UsageError, match="cannot be looked into"):
        read("folder", tmp_path / "closed", "all")


# ------------------------------------------------------------------------------------------- a folder of classes


@pytest.fixture
def people(tmp_path: Path) -> Path:
    root = tmp_path / "people"
    return _touch(root, *(f"{verb}/{name}_{verb}.avi" for verb in ("walk", "run", "bend") for name in PEOPLE))


def test_all_of_a_folder_needs_no_rule(people: Path) -> None:
    samples = read("folder", people, "all")
    assert samples.classes == ["bend", "run", "walk"]
    assert Counter((sample.label, sample.label_index) for sample in samples) == {
        ("bend", 0): 5, ("run", 1): 5, ("walk", 2): 5,
    }  # fmt: skip
    assert (
        samples[0].as_dict()
        == Sample(id="bend/daria_bend", path=f"{people}/bend/daria_bend.avi", label="bend", label_index=0).as_dict()
    )
    assert samples.source == str(people)


def test_a_class_without_a_video_is_a_class(people: Path) -> None:
    (people / "jump").mkdir()
    samples = read("folder", people, "all")
    assert (samples.classes, len(samples)) == (["bend", "jump", "run", "walk"], 15)
    assert {sample.label_index for sample in samples} == {0, 2, 3}


def test_folders_named_after_splits_are_the_splits(tmp_path: Path) -> None:
    _touch(tmp_path, "train/walk/1.mp4", "train/run/2.mp4", "validation/walk/3.mp4", "test/jump/4.mp4", ".git/x/5.mp4")
    splits = {split: read("folder", tmp_path, split) for split in ("train", "val", "test", "all")}
    assert {split: _ids(samples) for split, samples in splits.items()} == {
        "train": ["train/run/2", "train/walk/1"],
        "val": ["validation/walk/3"],
        "test": ["test/jump/4"],
        "all": ["test/jump/4", "train/run/2", "train/walk/1", "validation/walk/3"],
    }
    assert all(samples.classes == ["jump", "run", "walk"] for samples in splits.values())
    assert [sample.label_index for sample in splits["all"]] == [0, 1, 2, 2]


def test_a_hidden_folder_is_no_class(tmp_path: Path) -> None:
    _touch(tmp_path, ".git/a.mp4", "walk/a.mp4")
    assert read("folder", tmp_path, "all").classes == ["walk"]


def test_a_class_named_test_is_a_class_where_there_is_no_train(tmp_path: Path) -> None:
    _touch(tmp_path, "test/1.mp4", "walk/2.mp4")
    assert read("folder", tmp_path, "all").classes == ["test", "walk"]


def test_a_split_file_says_the_split(people: Path, tmp_path: Path) -> None:
    table = tmp_path / "splits.csv"
    table.write_text("path,split\nwalk/ido_walk.avi,val\nrun/ido_run.avi,train\nbend/ido_bend.avi,testing\n")
    found = {split: _ids(read("folder", people, split, splits=str(table))) for split in ("train", "val", "test")}
    assert found == {"train": ["run/ido_run"], "val": ["walk/ido_walk"], "test": ["bend/ido_bend"]}
    assert read("folder", people, "val", splits=str(table)).classes == ["bend", "run", "walk"]
    assert len(read("folder", people, "all", splits=str(table))) == 15


@pytest.mark.parametrize("spelling", ["people", "./people", "people/", "people/../people", "people//"])
def test_a_split_file_holds_however_the_folder_is_spelled(
    people: Path, monkeypatch: pytest.MonkeyPatch, spelling: str
) -> None:
    monkeypatch.chdir(people.parent)
    Path("splits.csv").write_text("split,path\nval,./walk//ido_walk.avi\n")
    (sample,) = read("folder", spelling, "val", splits="splits.csv")  # type: ignore[arg-type]
    assert sample.id == "walk/ido_walk"
    assert sample.path.startswith(spelling)


@pytest.mark.parametrize(
    ("text", "code", "line", "words"),
    [
        ("path,split\nwalk/nobody.avi,val\nrun/ido_run.avi,val\n", "missing", None, "1 of 2 videos that it names"),
        ("path,split\nrun/ido_run.avi,val\nrun/ido_run.avi,train\n", "duplicate", 3, "stands in an earlier line"),
        ("path,split\nrun/ido_run.avi,vall\n", "bad_annotation", 2, "unknown split 'vall'. Did you mean 'val'?"),
        ("path,split\nrun/ido_run.avi,all\n", "bad_annotation", 2, "unknown split 'all'"),
        ("path,split\n../run/ido_run.avi,val\n", "path_escape", 2, "leads out"),
        ("path;split\nrun/ido_run.avi;val\n", "bad_annotation", 1, "no column 'path'; expected a header with path,spl"),
        ("path\nrun/ido_run.avi\n", "bad_annotation", 1, "no column 'split'"),
    ],
)
def test_a_wrong_split_file_is_named(
    people: Path, tmp_path: Path, text: str, code: str, line: int | None, words: str
) -> None:
    table = tmp_path / "splits.csv"
    table.write_text(text)
    error = _refused("folder", people, "train", splits=str(table))
    assert (error.code, error.path, error.line) == (code, str(table), line)
    assert words in error.message


def test_groups_in_the_file_name_say_the_split(people: Path) -> None:
    rule = "^([a-z]+)_=daria,ido,moshe"
    val, train = (read("folder", people, split, val_groups=rule) for split in ("val", "train"))
    assert Counter(Path(sample.path).name.split("_")[0] for sample in val) == {"daria": 3, "ido": 3, "moshe": 3}
    assert Counter(Path(sample.path).name.split("_")[0] for sample in train) == {"denis": 3, "shahar": 3}
    assert len(read("folder", people, "test", val_groups=rule)) == 0


def test_the_groups_of_a_rule_stand_after_its_last_equals_sign(people: Path) -> None:
    assert len(read("folder", people, "val", val_groups="^(?=d)([a-z]+)_=daria, denis")) == 6


def test_a_file_that_does_not_match_is_for_training(people: Path) -> None:
    _touch(people, "walk/12.avi")
    assert "walk/12" in _ids(read("folder", people, "train", val_groups="^([a-z]+)_=ido"))


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ("^([a-z]+)_=daria,nobody", "no file has the group 'nobody'; found: daria, denis, ido, moshe, shahar"),
        ("^([a-z]+_=daria", "is not a regular expression"),
        ("^[a-z]+_=daria", "has no group; put the part that names the group in ( )"),
        ("^([a-z]+)_", "expected REGEX=a,b,c"),
        ("^([a-z]+)_=", "expected REGEX=a,b,c"),
        ("^([0-9]+)=3", "no file has the group '3'; found: none"),
    ],
)
def test_a_wrong_rule_of_groups_says_what_is_wrong(people: Path, rule: str, words: str) -> None:
    assert words in _refused("folder", people, "train", val_groups=rule).message


def test_without_any_rule_the_refusal_says_what_to_do(people: Path) -> None:
    for split in ("train", "val", "test"):
        message = _refused("folder", people, split).message
        assert all(advice in message for advice in ("FOLDER/train", "--splits CSV", "--val-groups", "--split all"))


def test_two_rules_are_one_too_many(people: Path) -> None:
    assert "give one of them" in _refused("folder", people, "train", splits="a.csv", val_groups="(a)=a").message


def test_a_folder_without_classes_says_what_was_expected(tmp_path: Path) -> None:
    assert "FOLDER/CLASS/FILE" in _refused("folder", _touch(tmp_path, "notes.txt")).message
    assert "does not say which videos" in _refused("folder", _touch(tmp_path, "a.mp4"), "train").message


def test_videos_without_classes_are_listed_without_labels(tmp_path: Path) -> None:
    samples = read("folder", _touch(tmp_path, "b.mp4", "a.mp4", "notes.txt"), "all")
    assert [(s.id, s.label, s.label_index, s.split) for s in samples] == [
        ("a", None, None, None),
        ("b", None, None, None),
    ]
    assert samples.classes == []


def test_classes_that_differ_only_by_case_are_refused(tmp_path: Path) -> None:
    error = _refused("folder", _touch(tmp_path, "Walk/a.mp4", "walk/b.mp4"))
    assert "'Walk' and 'walk' differ only by case" in error.message


def test_a_file_whose_name_is_not_utf8_has_an_id_that_is(tmp_path: Path) -> None:
    _touch(tmp_path, os.fsdecode(b"walk/\xff.mp4"))
    (sample,) = read("folder", tmp_path, "all")
    assert sample.id == r"walk/\xff"
    assert os.fsencode(sample.path).endswith(b"walk/\xff.mp4")


def test_a_class_folder_whose_name_is_not_utf8_is_refused(tmp_path: Path) -> None:
    error = _refused("folder", _touch(tmp_path, os.fsdecode(b"w\xff/a.mp4")))
    assert error.code == "bad_annotation"
    assert "is not UTF-8" in error.message


def test_folders_of_frames_are_videos_of_their_class(tmp_path: Path) -> None:
    _touch(tmp_path, "walk/clip.1/00001.jpg", "walk/clip.2/00001.jpg", "run/a.mp4")
    samples = read("folder", tmp_path, "all")
    assert [(sample.id, sample.label) for sample in samples] == [
        ("run/a", "run"), ("walk/clip.1", "walk"), ("walk/clip.2", "walk"),
    ]  # fmt: skip
    assert samples[1].path == f"{tmp_path}/walk/clip.1"


def test_two_files_that_differ_only_by_suffix_are_refused_for_training_and_told_apart_in_a_list_of_all(
    tmp_path: Path,
) -> None:
    _touch(tmp_path, "walk/a.mp4", "walk/a.avi", "walk/b.avi")
    assert _refused("folder", tmp_path, "train", val_groups="^(.)=b").code == "duplicate"
    assert _ids(read("folder", tmp_path, "all")) == ["walk/a.avi", "walk/a.mp4", "walk/b"]


# -------------------------------------------------------------------------------------------------------- csv file


def _csv(folder: Path, content: str | bytes) -> Path:
    path = folder / "list.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


TABLE = """path,label,split,caption,id,num_frames
b/2.mp4,walk,train,"a man, walking",two,12
1.mp4,run,val,,,
3.mp4,walk,test,"says ""hello"" twice",three,
4.mp4,,testing,,four,
"""


def test_a_csv_file_gives_every_field(tmp_path: Path) -> None:
    _touch(tmp_path, "b/2.mp4")
    samples = read("csv", _csv(tmp_path, TABLE), "all")
    assert samples.classes == ["run", "walk"]
    assert [tuple(sample.as_dict().values())[:11] for sample in samples] == [
        ("two", f"{tmp_path}/b/2.mp4", "walk", 1, None, None, 12, "a man, walking", True, "train", None),
        ("1", f"{tmp_path}/1.mp4", "run", 0, None, None, None, None, False, "val", None),
        ("three", f"{tmp_path}/3.mp4", "walk", 1, None, None, None, 'says "hello" twice', False, "test", None),
        ("four", f"{tmp_path}/4.mp4", None, None, None, None, None, None, False, "test", None),
    ]


def test_a_csv_file_names_parts_of_videos(tmp_path: Path) -> None:
    _touch(tmp_path, "a.webm", "b/00001.jpg")
    rows = (
        "path,label,id,start_seconds,end_seconds\na.avi,walk,1,0.5,2\na.avi,run,2,,1e1\nb.mp4,run,3,7,\nc.mp4,run,4,,\n"
    )
    samples = read("csv", _csv(tmp_path, rows), "all")
    assert [(s.id, s.start_seconds, s.end_seconds) for s in samples] == [
        ("1", 0.5, 2.0), ("2", None, 10.0), ("3", 7.0, None), ("4", None, None),
    ]  # fmt: skip
    # Converted since: another suffix, a folder of frames.
    assert [(s.path, s.exists) for s in samples] == [
        (f"{tmp_path}/a.webm", True), (f"{tmp_path}/a.webm", True),
        (f"{tmp_path}/b", True), (f"{tmp_path}/c.mp4", False),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("bounds", "said"),
    [
        ("-1,2", "'-1' is no time"),
        ("nan,2", "'nan' is no time"),
        ("1,inf", "'inf' is no time"),
        ("one,2", "'one' is no time"),
        ("2,2", "ends at 2 s and starts at 2 s"),
        (",0", "ends at 0 s and starts at 0 s"),
    ],
)
def test_a_part_that_is_none_is_named_with_its_line(tmp_path: Path, bounds: str, said: str) -> None:
    error = _refused("csv", _csv(tmp_path, f"path,label,start_seconds,end_seconds\na.mp4,run,,\nb.mp4,run,{bounds}\n"))
    assert said in error.message
    assert (error.code, error.line) == ("bad_annotation", 3)


def test_each_split_of_a_csv_file_has_its_rows_and_all_classes(tmp_path: Path) -> None:
    path = _csv(tmp_path, TABLE)
    assert {split: _ids(read("csv", path, split)) for split in ("train", "val", "test")} == {
        "train": ["two"], "val": ["1"], "test": ["three", "four"],
    }  # fmt: skip
    assert read("csv", path, "train").classes == ["run", "walk"]


def test_classes_are_in_the_order_of_the_file_on_request(tmp_path: Path) -> None:
    samples = read("csv", _csv(tmp_path, TABLE), "all", class_order="file")
    assert samples.classes == ["walk", "run"]
    assert [sample.label_index for sample in samples] == [0, 1, 0, None]
    assert read("csv", tmp_path / "list.csv", "all", class_order="sorted").classes == ["run", "walk"]
    assert "must be 'sorted' or 'file'" in _refused("csv", tmp_path / "list.csv", class_order="random").message


def test_file_and_videos_may_lie_apart(tmp_path: Path) -> None:
    _touch(tmp_path, "videos/1.mp4")
    path = _csv(tmp_path, "path,label\n1.mp4,run\n")
    for samples in (
        read("csv", path, "all", videos=str(tmp_path / "videos")),
        read("csv", tmp_path / "videos", "all", annotations=str(path)),
        read("auto", tmp_path / "videos", "all", annotations=str(path)),
    ):
        assert [(sample.path, sample.exists) for sample in samples] == [(f"{tmp_path}/videos/1.mp4", True)]


def test_byte_order_mark_and_windows_line_ends_change_nothing(tmp_path: Path) -> None:
    plain = read("csv", _csv(tmp_path, TABLE), "all")
    marked = read("csv", _csv(tmp_path, b"\xef\xbb\xbf" + TABLE.replace("\n", "\r\n").encode()), "all")
    assert marked == plain
    assert marked.classes == plain.classes


def test_labels_may_hold_commas_quotes_and_letters_of_all_kinds(tmp_path: Path) -> None:
    labels = ['petting animal (not cat), "really"', "Brötchen schneiden", "走る"]
    with open(tmp_path / "list.csv", "w", encoding="utf-8", newline="") as handle:
        writer = csv.writer(handle)
        writer.writerows([("path", "label"), *((f"{n}.mp4", label) for n, label in enumerate(labels))])
    samples = read("csv", tmp_path / "list.csv", "all", class_order="file")
    assert samples.classes == labels
    assert [sample.label for sample in samples] == labels


def test_blanks_around_values_and_empty_lines_do_not_count(tmp_path: Path) -> None:
    samples = read("csv", _csv(tmp_path, "\npath , label\n\n1.mp4, run\n2.mp4,run \n\n"), "all")
    assert [(sample.id, sample.label) for sample in samples] == [("1", "run"), ("2", "run")]


def test_a_csv_file_of_nothing_but_its_header_is_an_empty_list(tmp_path: Path) -> None:
    assert list(read("csv", _csv(tmp_path, "path,label\n"), "train")) == []


@pytest.mark.parametrize(
    ("text", "code", "line", "words"),
    [
        ("path;label\n1.mp4;run\n", "bad_annotation", 1, "separated by commas, and found 'path;label'"),
        ("path\tlabel\n1.mp4\trun\n", "bad_annotation", 1, "no column 'path'; expected a header with path,label"),
        ("path,class\n1.mp4,run\n", "bad_annotation", 1, "no column 'label'"),
        ("", "bad_annotation", 1, "found 'nothing'"),
        ("path,label\n1.mp4,run\n2.mp4\n", "bad_annotation", 3, "1 values where the header has 2 columns"),
        ("path,label\n1.mp4,run, fast\n", "bad_annotation", 2, "3 values where the header has 2 columns; put values"),
        ('path,label\n1.mp4,"run\n2.mp4,run\n', "bad_annotation", 2, "not a CSV file: unexpected end of data"),
        ('path,label\n1.mp4,"run" fast\n', "bad_annotation", 2, "not a CSV file"),
        (b"path,label\n1.mp4,r\xfcn\n", "bad_annotation", None, "not UTF-8 text (byte 18)"),
        ("path,label,split\n1.mp4,run,trian\n", "bad_annotation", 2, "unknown split 'trian'. Did you mean 'train'?"),
        ("path,label,split\n1.mp4,run,\n", "bad_annotation", 2, "unknown split ''"),
        ("path,label,split\n1.mp4,run,all\n", "bad_annotation", 2, "unknown split 'all'"),
        ("path,label,split\n1.mp4,run,train\n1.avi,run,train\n", "duplicate", 3, "the id '1' stands in line 2 too"),
        ("path,label,split,id\n1.mp4,a,train,x\n\n2.mp4,a,train,x\n", "duplicate", 4, "'x' stands in line 2"),
        ("path,label,split\n../1.mp4,run,train\n", "path_escape", 2, "leads out of"),
        ("path,label,split\nx/../../1.mp4,run,train\n", "path_escape", 2, "leads out of"),
        ("path,label,split\n/etc/passwd,run,train\n", "path_escape", 2, "with --videos"),
        ("path,label,split\n,run,train\n", "bad_annotation", 2, "the path is ''; expected a file below"),
        ("path,label,split\n.,run,train\n", "bad_annotation", 2, "the path is '.'"),
        ("path,label,split\n1.mp4,run,train\n2.mp4,Run,val\n", "bad_annotation", 3, "'run' and 'Run' differ only"),
        ("path,label,split,num_frames\n1.mp4,run,train,1.5\n", "bad_annotation", 2, "num_frames is '1.5'; expected a"),
        ("path,label,split,num_frames\n1.mp4,run,train,\u0661\n", "bad_annotation", 2, "num_frames is"),
        ("path,label,split,num_frames\n1.mp4,run,train,-3\n", "bad_annotation", 2, "num_frames is '-3'"),
        (f"path,label,split,num_frames\n1.mp4,run,train,{'9' * 5000}\n", "bad_annotation", 2, "num_frames is '9999"),
        ("path,label,split,path\n1.mp4,run,train,2.mp4\n", "bad_annotation", 1, "column 'path' stands twice"),
    ],
)
def test_a_malformed_csv_file_is_named_with_its_line(
    tmp_path: Path, text: str | bytes, code: str, line: int | None, words: str
) -> None:
    path = _csv(tmp_path, text)
    error = _refused("csv", path, "train")
    assert (type(error), error.code, error.path, error.line) == (AnnotationError, code, str(path), line)
    assert words in error.message


def test_a_label_over_several_lines_does_not_shift_the_line_numbers(tmp_path: Path) -> None:
    path = _csv(tmp_path, 'path,label\n1.mp4,"run\nfast"\n2.mp4\n')
    assert _refused("csv", path).line == 4


def test_without_a_column_split_only_all_can_be_read(tmp_path: Path) -> None:
    path = _csv(tmp_path, "path,label\n1.mp4,run\n")
    assert "has no column 'split'" in _refused("csv", path, "train").message
    assert len(read("csv", path, "all")) == 1


@pytest.mark.parametrize("header", ["path,label", "path,label,split"])
def test_a_csv_file_takes_no_other_file_of_splits(tmp_path: Path, header: str) -> None:
    path = _csv(tmp_path, f"{header}\n1.mp4,run{',train' * (header.count(',') - 1)}\n")
    error = _refused("csv", path, "all", splits=str(tmp_path / "splits.csv"))
    assert error.message == "--splits: a table has its splits in a column 'split'; write them there"
    assert error.path == str(path)


def test_a_folder_where_a_csv_file_was_expected_is_refused(tmp_path: Path) -> None:
    assert "a CSV file was expected" in _refused("csv", tmp_path).message


# --------------------------------------------------------------------------------------- Something-Something V2

LABELS = {"Pushing something": "1", "Dropping something into something": "0", "Holding something": "2"}
ENTRIES = [
    {"id": "10", "label": "pushing a cup", "template": "Pushing [something]", "placeholders": ["a cup"]},
    {"id": "7", "label": "dropping a pen into a box", "template": "Dropping [something] into [something]"},
]
VALIDATION = [{"id": 12, "label": "holding air", "template": "Holding [something]"}]


def _something(root: Path, start: str = PREFIX, **files: Any) -> Path:
    contents = {"labels": LABELS, "train": ENTRIES, "validation": VALIDATION, "test": [{"id": "3"}, {"id": "4"}]}
    for name, content in (contents | files).items():
        path = root / f"{start}{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return root


@pytest.mark.parametrize("start", [PREFIX, "labels/", f"labels/{PREFIX}", ""])
def test_every_layout_of_something_v2_gives_the_same(tmp_path: Path, start: str) -> None:
    _touch(_something(tmp_path, start), "20bn-something-something-v2/10.webm")
    samples = read("auto", tmp_path, "train")
    assert samples.classes == ["Dropping something into something", "Pushing something", "Holding something"]
    folder = f"{tmp_path}/20bn-something-something-v2"
    assert [tuple(sample.as_dict().values())[:11] for sample in samples] == [
        ("10", f"{folder}/10.webm", "Pushing something", 1, None, None, None, "pushing a cup", True, "train", None),
        (
            "7",
            f"{folder}/7.webm",
            "Dropping something into something",
            0,
            None,
            None,
            None,
            ENTRIES[1]["label"],
            False,
            "train",
            None,
        ),
    ]


def test_the_splits_of_something_v2_are_its_files(tmp_path: Path) -> None:
    _something(tmp_path)
    found = {split: _ids(read("sthv2", tmp_path, split)) for split in ("train", "validation", "val", "test", "all")}
    assert found == {
        "train": ["10", "7"],
        "validation": ["12"],
        "val": ["12"],
        "test": ["3", "4"],
        "all": ["10", "7", "12", "3", "4"],
    }


def test_all_is_what_there_is_and_a_missing_split_is_missing(tmp_path: Path) -> None:
    _something(tmp_path)
    (tmp_path / f"{PREFIX}train.json").unlink()
    assert _ids(read("sthv2", tmp_path, "all")) == ["12", "3", "4"]
    error = _refused("sthv2", tmp_path, "train")
    assert (error.code, error.path) == ("missing", str(tmp_path / f"{PREFIX}train.json"))


def test_the_test_split_has_no_labels_without_answers(tmp_path: Path) -> None:
    assert [(s.label, s.label_index, s.caption) for s in read("sthv2", _something(tmp_path), "test")] == [
        (None, None, None)
    ] * 2


@pytest.mark.parametrize(
    ("start", "answers"),
    [
        ("labels/", "labels/test-answers.csv"),
        (PREFIX, "test-answers.csv"),
        (f"labels/{PREFIX}", f"labels/{PREFIX}test-answers.csv"),
    ],
)
def test_the_test_split_has_the_labels_of_the_answers(tmp_path: Path, start: str, answers: str) -> None:
    _something(tmp_path, start)
    (tmp_path / answers).write_text("4;Holding something\n9;Pushing something\n")
    assert [(s.id, s.label, s.label_index) for s in read("sthv2", tmp_path, "test")] == [
        ("3", None, None),
        ("4", "Holding something", 2),
    ]


@pytest.mark.parametrize(
    ("content", "line", "words"),
    [
        (b"4;Holding something\n3\n", 2, "expected id;class"),
        (b"4,Holding something\n", 1, "expected id;class"),
        (b"4;Holding s\xfcmething\n", None, "not UTF-8"),
    ],
)
def test_malformed_answers_are_named(tmp_path: Path, content: bytes, line: int | None, words: str) -> None:
    path = _something(tmp_path) / "test-answers.csv"
    path.write_bytes(content)
    error = _refused("sthv2", tmp_path, "test")
    assert (error.code, error.path, error.line) == ("bad_annotation", str(path), line)
    assert words in error.message
    assert len(read("sthv2", tmp_path, "train")) == 2


def test_an_answer_that_is_no_class_is_an_unknown_label(tmp_path: Path) -> None:
    (_something(tmp_path) / "test-answers.csv").write_text("4;Eating something\n")
    assert _refused("sthv2", tmp_path, "test").code == "unknown_label"


def test_a_video_is_any_file_or_folder_of_its_id_and_webm_comes_first(tmp_path: Path) -> None:
    entries = [{"id": name, "template": "Holding something"} for name in ("1", "2", "3", "4")]
    _something(tmp_path, train=entries)
    _touch(tmp_path, "videos/1.mp4", "videos/1.webm", "videos/1.avi", "videos/2.mp4", "videos/3/00001.jpg")
    assert [(Path(s.path).name, s.exists) for s in read("sthv2", tmp_path, "train")] == [
        ("1.webm", True),
        ("2.mp4", True),
        ("3", True),
        ("4.webm", False),
    ]


def test_annotations_and_videos_of_something_v2_may_lie_apart(tmp_path: Path) -> None:
    _something(tmp_path / "lists")
    _touch(tmp_path, "clips/10.webm")
    samples = read("sthv2", tmp_path, "train", annotations=str(tmp_path / "lists"), videos=str(tmp_path / "clips"))
    assert [(s.path, s.exists) for s in samples] == [
        (f"{tmp_path}/clips/10.webm", True),
        (f"{tmp_path}/clips/7.webm", False),
    ]
    nowhere = read("sthv2", tmp_path / "lists", "train", videos=str(tmp_path / "nowhere"))
    assert [s.exists for s in nowhere] == [False, False]


def test_a_class_that_is_not_in_the_labels_is_named_with_its_entry(tmp_path: Path) -> None:
    _something(tmp_path, train=[*ENTRIES, {"id": "8", "template": "Eating [something]"}])
    error = _refused("sthv2", tmp_path, "train")
    assert (error.code, error.path) == ("unknown_label", str(tmp_path / f"{PREFIX}train.json"))
    assert "entry 3 (id 8): 'Eating something' is none of the 3 classes in" in error.message


@pytest.mark.parametrize("name", ["labels", "train"])
def test_malformed_json_of_something_v2_is_named_with_its_line(tmp_path: Path, name: str) -> None:
    _something(tmp_path, **{name: '[\n{"id": "1"},\n{"id" "2"}\n]'})
    error = _refused("sthv2", tmp_path, "train")
    assert (error.code, error.path, error.line) == ("bad_annotation", str(tmp_path / f"{PREFIX}{name}.json"), 3)


@pytest.mark.parametrize("identity", ["../1", "a/b", "/etc/passwd", "..", ".", "", "a\0b"])
def test_an_id_that_is_no_file_name_is_refused(tmp_path: Path, identity: str) -> None:
    _something(tmp_path, train=[{"id": identity, "template": "Holding something"}])
    error = _refused("sthv2", tmp_path, "train")
    assert (error.code, error.path) == ("path_escape", str(tmp_path / f"{PREFIX}train.json"))


@pytest.mark.parametrize(
    "entry", ["7", {"label": "x"}, {"id": None}, {"id": 1.5}, {"id": True}, {"id": "1", "template": 3}, ["1"]]
)
def test_an_entry_that_says_no_id_or_no_text_is_named_by_its_number(tmp_path: Path, entry: object) -> None:
    _something(tmp_path, train=[ENTRIES[0], entry])
    error = _refused("sthv2", tmp_path, "train")
    assert error.code == "bad_annotation"
    assert error.message.startswith("entry 2 is ")


def test_a_list_that_is_none_is_refused(tmp_path: Path) -> None:
    assert "expected a list" in _refused("sthv2", _something(tmp_path, train={"id": "1"}), "train").message


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        ({"A": "0", "B": "2"}, "the indices have gaps"),
        ({"A": "1", "B": "2"}, "the indices have gaps"),
        ({"A": "0", "B": "0"}, "'B' has the index '0'"),
        ({"A": "0", "B": "one"}, "'B' has the index 'one'"),
        ({"A": "0", "B": "-1"}, "'B' has the index '-1'"),
        ({}, "with indices 0, 1, 2"),
        (["A", "B"], "with indices 0, 1, 2"),
    ],
)
def test_labels_whose_indices_are_not_0_1_2_are_refused(tmp_path: Path, labels: object, words: str) -> None:
    error = _refused("sthv2", _something(tmp_path, labels=labels), "train")
    assert (error.code, error.path) == ("bad_annotation", str(tmp_path / f"{PREFIX}labels.json"))
    assert words in error.message


def test_two_entries_with_one_id_are_refused(tmp_path: Path) -> None:
    assert _refused("sthv2", _something(tmp_path, train=[*ENTRIES, ENTRIES[0]]), "train").code == "duplicate"
    assert _refused("sthv2", _something(tmp_path, validation=ENTRIES), "all").code == "duplicate"


def test_no_annotations_of_something_v2_says_what_was_expected(tmp_path: Path) -> None:
    error = _refused("sthv2", tmp_path, "train")
    assert (error.code, error.path) == ("missing", str(tmp_path))
    assert "something-something-v2-labels.json" in error.message
    assert "labels/" in error.message


@pytest.mark.slow
def test_a_rendered_set_reads_as_something_v2(order_set: Path) -> None:
    samples = read("auto", order_set, "all")
    assert (len(samples), len(samples.classes)) == (40, 4)
    assert all(sample.exists and sample.label_index is not None for sample in samples)
    assert {s.id for split in ("train", "val", "test") for s in read("sthv2", order_set, split)} == set(_ids(samples))


# ---------------------------------------------------------------------------------------------------------- audit


def test_the_audit_finds_what_cannot_be_read_and_the_list_says_why(tmp_path: Path) -> None:
    frame = simplejpeg.encode_jpeg(np.zeros((8, 8, 3), np.uint8))
    (tmp_path / "frames").mkdir()
    (tmp_path / "frames" / "1.jpg").write_bytes(frame)
    (tmp_path / "bad, name.mp4").write_text("no video")
    _touch(tmp_path, "empty.mp4")
    samples = [Sample(name, str(tmp_path / name)) for name in ("frames", "empty.mp4", "nowhere.mp4", "bad, name.mp4")]
    faults = audit(samples, quiet=True).unusable
    assert [(fault.sample.id, fault.error.code) for fault in faults] == [
        ("empty.mp4", "empty"), ("nowhere.mp4", "missing"), ("bad, name.mp4", "not_video"),
    ]  # fmt: skip
    write_skipped(tmp_path / "skipped.csv", faults)
    with open(tmp_path / "skipped.csv", newline="", encoding="utf-8") as handle:
        rows = list(csv.DictReader(handle))
    assert [list(row) for row in rows] == [["id", "path", "code", "message"]] * 3
    assert [row["path"] for row in rows] == [fault.error.path for fault in faults]


def test_every_format_says_what_it_reads() -> None:
    assert all((reader.__doc__ or "").strip() for reader in FORMATS.values())


# ----------------------------------------------------------------------------------------------------- real files


@pytest.mark.slow
@pytest.mark.shared
def test_the_official_annotations_of_something_v2_are_read_whole(shared: Path, tmp_path: Path) -> None:
    official = shared / "annotations" / "sthv2_official"
    for name in ("labels.json", "test.json"):
        shutil.copy(official / f"{PREFIX}{name}", tmp_path)
    shutil.copy(official / f"{PREFIX}validation-first400.json", tmp_path / f"{PREFIX}validation.json")
    val, test = (read("auto", tmp_path, split) for split in ("val", "test"))
    assert (len(val), len(test), len(val.classes)) == (400, 27_157, 174)
    assert val.classes[0] == "Approaching something with your camera"
    assert val.classes[173] == "Wiping something off of something"
    assert all(sample.label_index is not None and sample.caption and not sample.exists for sample in val)
    assert (
        val[0].as_dict() | {"path": ""}
        == Sample(
            id="74225",
            path="",
            label="Spinning something that quickly stops spinning",
            label_index=val.classes.index("Spinning something that quickly stops spinning"),
            caption="spinning cube that quickly stops spinning",
            exists=False,
            split="val",
        ).as_dict()
    )
    assert {sample.label for sample in test} == {None}
    assert flip_pairs(val.classes).pairs == [(86, 87), (93, 94), (166, 167)]


@pytest.mark.shared
def test_weizmann_split_by_person_has_three_people_for_validation(shared: Path) -> None:
    root = shared / "dataset" / "weizmann"
    files = [path for path in root.glob("*/*") if path.suffix == ".avi"]
    options = {"val_groups": "^([a-z]+)_=daria,ido,moshe"}
    val, train = (read("auto", root, split, **options) for split in ("val", "train"))
    everything = read("auto", root, "all")
    assert len(everything) == len(files) > 80
    assert len(everything.classes) == 10
    assert Counter(Path(sample.path).name.split("_")[0] for sample in val) == {"daria": 10, "ido": 10, "moshe": 10}
    assert Counter(sample.label for sample in val) == dict.fromkeys(everything.classes, 3)
    assert sorted(_ids(val) + _ids(train)) == sorted(_ids(everything))
    assert val.classes == train.classes == everything.classes


@pytest.mark.shared
def test_a_video_of_weizmann_opens_where_the_list_says_it_is(shared: Path) -> None:
    samples = read("folder", shared / "dataset" / "weizmann", "all")
    with av.open(samples[0].path) as container:
        assert container.streams.video[0].width == 180
    assert audit(samples[:10], quiet=True).unusable == []


def test_a_folder_with_its_own_split_refuses_another_one(tmp_path: Path) -> None:
    for split in ("train", "val"):
        (tmp_path / split / "jump").mkdir(parents=True)
    with pytest.raises(UsageError, match="leave out --val-groups"):
        read("folder", tmp_path, "train", val_groups="^(a)=a")


def test_a_class_folder_beside_the_split_folders_is_not_dropped_silently(tmp_path: Path) -> None:
    for folder in ("train/jump", "val/jump", "run"):
        (tmp_path / folder).mkdir(parents=True)
    with pytest.raises(UsageError, match="'run' lies beside train, val"):
        read("folder", tmp_path, "train")


def test_a_video_in_the_rows_of_two_splits_is_refused_whichever_is_read(tmp_path: Path) -> None:
    table = tmp_path / "list.csv"
    table.write_text("path,label,split\na.mp4,x,train\na.mp4,x,val\n")
    for split in ("train", "val", "all"):
        with pytest.raises(AnnotationError, match="line 2 too") as caught:
            read("csv", table, split)
        assert caught.value.line == 3
