"""Rules that split a folder into training and validation, and what is said of a split that cannot be right."""

import unicodedata
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from ssan.datasets import Sample, Samples, read
from ssan.datasets.doubts import doubts, doubts_of_training
from ssan.errors import AnnotationError, SsanError, UsageError
from ssan.video.clip_file import open_clip_file


def _touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def _ids(samples: Samples) -> list[str]:
    return [sample.id for sample in samples]


def _refused(root: Path, split: str = "train", **options: str) -> SsanError:
    with pytest.raises(SsanError) as caught:
        read("folder", root, split, **options)
    assert isinstance(caught.value, UsageError | AnnotationError)
    return caught.value


@pytest.fixture
def people(tmp_path: Path) -> Path:
    """Eight people, two videos of each in each of two classes."""
    return _touch(
        tmp_path / "people",
        *(f"Person {n}/{verb}/{take}.mp4" for n in range(1, 9) for verb in ("run", "walk") for take in "ab"),
    )


# ------------------------------------------------------------------------------------------------ a file of splits


@pytest.mark.parametrize("there", ["walk/a.mp4", "walk/a.webm", "walk/a/00001.jpg", "walk/a.avi"])
def test_a_split_file_finds_a_video_that_has_been_converted(tmp_path: Path, there: str) -> None:
    _touch(tmp_path / "data", there, "run/b.mp4", "run/b.webm")
    (tmp_path / "s.csv").write_text("path,split\nwalk/a.avi,train\nrun/b.avi,val\n")
    assert _ids(read("folder", tmp_path / "data", "train", splits=str(tmp_path / "s.csv"))) == ["walk/a"]
    (sample,) = read("folder", tmp_path / "data", "val", splits=str(tmp_path / "s.csv"))
    assert sample.path.endswith("b.webm")
    (tmp_path / "s.csv").write_text("path,split\nwalk/a.avi,train\nwalk/c.avi,val\n")
    assert (
        "1 of 2 videos that it names are not in" in _refused(tmp_path / "data", splits=str(tmp_path / "s.csv")).message
    )


@pytest.mark.slow
def test_a_split_file_finds_videos_in_a_clip_file(ssan: Any, order_set: Path, tmp_path: Path) -> None:
    video = next((order_set / "20bn-something-something-v2").iterdir())
    for name in ("walk/a.webm", "run/b.webm"):
        (tmp_path / "data" / name).parent.mkdir(parents=True)
        (tmp_path / "data" / name).write_bytes(video.read_bytes())
    copied = ssan("data", "resize", tmp_path / "data", tmp_path / "x.clips", "--to", "clips", "--short-side", 16)
    assert copied.code == 0
    assert sorted(open_clip_file(str(tmp_path / "x.clips")).entries) == ["run/b", "walk/a"]
    (tmp_path / "s.csv").write_text("path,split\nwalk/a.webm,train\nrun/b.webm,val\n")
    assert _ids(read("folder", tmp_path / "x.clips", "val", splits=str(tmp_path / "s.csv"))) == ["run/b"]


def test_a_split_file_written_on_another_system_finds_names_in_either_unicode_form(tmp_path: Path) -> None:
    for form, other in (("NFC", "NFD"), ("NFD", "NFC")):
        root = tmp_path / form
        _touch(root, unicodedata.normalize(form, "caf\u00e9/\u00e0.mp4"))
        row = unicodedata.normalize(other, "caf\u00e9/\u00e0.avi")
        (tmp_path / "s.csv").write_text(f"path,split\n{row},val\n", encoding="utf-8")
        assert len(read("folder", root, "val", splits=str(tmp_path / "s.csv"))) == 1


# ---------------------------------------------------------------------------------------- groups, shares and folds


def test_groups_are_searched_in_paths_where_no_file_name_has_one(people: Path) -> None:
    options = {"class_folder": "last", "val_groups": "^Person ([0-9])=4,7"}
    val = read("folder", people, "val", **options)
    assert {sample.id.split("/")[0] for sample in val} == {"Person 4", "Person 7"}
    assert len(val) == 8
    assert len(read("folder", people, "train", **options)) == 24
    message = _refused(people, val_groups="^Person ([0-9])=9").message
    assert "no file has the group '9'; found: 1, 2, 3, 4, 5, 6, 7, 8" in message
    nowhere = _refused(people, val_groups="^Mensch ([0-9])=4").message
    assert "no file has the group '4'; found: none (neither in file names nor in paths, such as 'Person 1/" in nowhere


def test_a_group_in_file_names_is_not_looked_for_in_paths(tmp_path: Path) -> None:
    _touch(tmp_path, "ann_x/bob_1.mp4", "ann_x/2.mp4")
    assert _ids(read("folder", tmp_path, "val", val_groups="^([a-z]+)_=bob")) == ["ann_x/bob_1"]


def test_a_share_is_drawn_from_each_class_the_same_for_every_command(tmp_path: Path) -> None:
    _touch(tmp_path, *(f"walk/{n}.avi" for n in range(20)), *(f"run/{n}.avi" for n in range(10)), "sit/only.avi")
    val = read("folder", tmp_path, "val", val_fraction="0.2")
    assert Counter(sample.label for sample in val) == {"walk": 4, "run": 2}
    train = read("folder", tmp_path, "train", val_fraction="0.2")
    assert len(train) + len(val) == 31
    assert not set(_ids(train)) & set(_ids(val))
    assert any("6 of 31 videos are for validation (--val-fraction 0.2, split_seed 0)" in note for note in val.notes)
    assert _ids(read("folder", tmp_path, "val", val_fraction="0.2", split_seed="1")) != _ids(val)
    for path in tmp_path.glob("*/*.avi"):  # converted since
        path.rename(path.with_suffix(".mp4"))
    assert _ids(read("folder", tmp_path, "val", val_fraction="0.2")) == _ids(val)


def test_a_video_that_is_added_leaves_the_others_where_they_are(tmp_path: Path) -> None:
    _touch(tmp_path, *(f"walk/{n}.avi" for n in range(100)))
    before = set(_ids(read("folder", tmp_path, "val", val_fraction="0.3")))
    _touch(tmp_path, "walk/new.avi")
    assert len(before ^ set(_ids(read("folder", tmp_path, "val", val_fraction="0.3")))) <= 2


def test_folds_divide_the_videos_evenly_and_each_class_too(tmp_path: Path) -> None:
    _touch(tmp_path, *(f"walk/{n}.avi" for n in range(13)), *(f"run/{n}.avi" for n in range(7)))
    folds = [read("folder", tmp_path, "val", fold=f"{k}/5") for k in range(1, 6)]
    assert sorted(identity for fold in folds for identity in _ids(fold)) == sorted(
        _ids(read("folder", tmp_path, "all"))
    )
    assert {len(fold) for fold in folds} == {4}
    assert {sum(sample.label == "walk" for sample in fold) for fold in folds} == {2, 3}


@pytest.mark.parametrize("options", [{"fold": "2/4"}, {"val_fraction": "0.25"}])
def test_groups_stay_whole(people: Path, options: dict[str, str]) -> None:
    options = {**options, "groups": "^Person ([0-9])", "class_folder": "last"}
    val = read("folder", people, "val", **options)
    train = read("folder", people, "train", **options)
    assert (len(val), len(train)) == (8, 24)
    assert not {sample.id.split("/")[0] for sample in val} & {sample.id.split("/")[0] for sample in train}
    assert any("8 of 32 videos are for validation, those of '" in note for note in val.notes)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"val_fraction": "0"}, "--val-fraction is '0'; expected a share"),
        ({"val_fraction": "nan"}, "expected a share"),
        ({"val_fraction": "half"}, "expected a share"),
        ({"fold": "0/5"}, "--fold is '0/5'; expected K/N"),
        ({"fold": "6/5"}, "expected K/N"),
        ({"fold": "1/1"}, "expected K/N"),
        ({"fold": "2"}, "expected K/N"),
        ({"fold": "1/99"}, "there are 32 videos or groups to put into 99 folds"),
        ({"fold": "1/9", "groups": "^Person ([0-9])"}, "there are 8 videos or groups to put into 9 folds"),
        ({"fold": "1/2", "groups": "^Person ([1-7])"}, "has no group; every video needs one"),
        ({"fold": "1/2", "groups": "Person"}, "--groups: 'Person' has no group"),
        ({"fold": "1/2", "val_fraction": "0.5"}, "--val-fraction and --fold say the same thing twice"),
        ({"val_groups": "(a)=a", "groups": "(a)"}, "--groups and --val-groups say the same thing twice"),
        ({"fold": "1/2", "split_seed": "x"}, "split_seed is 'x'"),
    ],
)
def test_a_rule_that_cannot_be_followed_says_so(people: Path, options: dict[str, str], words: str) -> None:
    assert words in _refused(people, **options).message


# -------------------------------------------------------------------------------------------------- what is doubtful


def _sample(identity: str, path: str, label: int | None, split: str, **bounds: Any) -> Sample:
    return Sample(identity, path, None if label is None else "abc"[label], label, split=split, **bounds)


def test_classes_without_videos_and_those_that_training_lacks_are_said() -> None:
    samples = Samples([_sample("1", "1", 0, "train"), _sample("2", "2", 1, "val")], "abc", "")
    said = doubts(samples)
    assert said == [
        "1 of 3 classes has no video here, and can be learned from none: 'c'",
        "1 of 3 classes has no video for training: 'b'; the 1 for validation cannot be answered right",
    ]
    train, val = (samples.kept(s for s in samples if s.split == name) for name in ("train", "val"))
    assert doubts_of_training(train, val) == said
    assert doubts(Samples([_sample("1", "1", 0, "train"), _sample("2", "2", 0, "val")], "a", "")) == [
        "there is a single class, 'a': every answer will be right, and say nothing"
    ]


@pytest.mark.parametrize(
    ("train", "val", "overlap"),
    [
        ({}, {}, True),
        ({}, {"start_seconds": 3.0}, True),
        ({"start_seconds": 0.0, "end_seconds": 2.0}, {"start_seconds": 1.5, "end_seconds": 3.0}, True),
        ({"start_seconds": 0.0, "end_seconds": 2.0}, {"start_seconds": 2.0, "end_seconds": 3.0}, False),
        ({"end_seconds": 2.0}, {"start_seconds": 1.0}, True),
        ({"start_frame": 0, "end_frame": 10}, {"start_frame": 10, "end_frame": 20}, False),
        ({"start_frame": 0, "end_frame": 11}, {"start_frame": 10}, True),
        ({"start_frame": 0, "end_frame": 11}, {"start_seconds": 10.0}, True),
    ],
)
def test_parts_that_overlap_between_training_and_validation_are_said(
    train: dict[str, Any], val: dict[str, Any], overlap: bool
) -> None:
    samples = Samples(
        [_sample("t", "x.mp4", 0, "train", **train), _sample("v", "./x.mp4", 0, "val", **val),
         _sample("u", "y.mp4", 1, "train", **train)], "ab", "",
    )  # fmt: skip
    said = [line for line in doubts(samples) if "for validation and for training too" in line]
    assert len(said) == overlap
    assert all("('v' and 't')" in line for line in said)


@pytest.mark.slow
def test_doubts_stand_at_the_beginning_of_training_and_in_its_journal(
    ssan: Any, order_set: Path, tmp_path: Path
) -> None:
    video = next((order_set / "20bn-something-something-v2").iterdir()).read_bytes()
    for name in ("train/walk/1.webm", "train/run/2.webm", "val/walk/3.webm", "val/sit/4.webm"):
        (tmp_path / "data" / name).parent.mkdir(parents=True)
        (tmp_path / "data" / name).write_bytes(video)
    (tmp_path / "data" / "train" / "jump").mkdir()
    answer = ssan("train", "--model", "tsn_tiny", "--data", tmp_path / "data", "--out", tmp_path / "run",
                  "--workers", 0, "--device", "cpu", "epochs=1", "batch=2", "size_px=16", "crop_px=16")  # fmt: skip
    assert answer.code == 0
    journal = (tmp_path / "run" / "journal.jsonl").read_text()
    for words in ("1 of 4 classes has no video here", "1 of 4 classes has no video for training: 'sit'; the 1 for"):
        assert words in answer.err
        assert words in journal
    for verb in ("check", "describe"):
        told = ssan("data", verb, tmp_path / "data", "--json").json["warnings"]
        assert [line.split(" classes")[0] for line in told] == ["1 of 4", "1 of 4"]
        assert "no video for training: 'sit'" in ssan("data", verb, tmp_path / "data").out
    assert "no video for training: 'sit'" in ssan("data", "list", tmp_path / "data").err


def test_the_rules_are_options_of_commands(ssan: Any, people: Path) -> None:
    options = ["--fold", "1/4", "--groups", "^Person ([0-9])", "--reader", "class_folder=last", "--json"]
    listed = ssan("data", "list", people, "--split", "val", *options)
    assert (listed.code, len(listed.lines)) == (0, 8)
    assert "8 of 32 videos are for validation" in listed.err
    share = ssan("data", "list", "--data", people, "--split", "val", "--val-fraction", 0.5, "--json")
    assert len(share.lines) == 16


# --------------------------------------------------------------------------------------------- a list without a split


def test_a_list_without_a_split_is_split_by_a_rule_and_parts_of_a_video_stay_together(tmp_path: Path) -> None:
    rows = [f"p{person}/{n}.mp4,{'walk' if n % 2 else 'run'}" for person in range(6) for n in range(4)]
    parts = [f"long{n}.mp4,walk,{n}a,0,1\nlong{n}.mp4,run,{n}b,1,2" for n in range(8)]
    (tmp_path / "whole.csv").write_text("path,label\n" + "\n".join(rows) + "\n")
    (tmp_path / "parts.csv").write_text("path,label,id,start_seconds,end_seconds\n" + "\n".join(parts) + "\n")
    groups = {"groups": "^(p[0-9])/", "val_fraction": "0.34"}
    val, train = (read("csv", tmp_path / "whole.csv", split, **groups) for split in ("val", "train"))
    assert (len(val), len(train)) == (8, 16)
    assert not {sample.id[:2] for sample in val} & {sample.id[:2] for sample in train}
    assert any("8 of 24 videos are for validation, those of 'p" in note for note in val.notes)
    assert {sample.split for sample in read("csv", tmp_path / "whole.csv", "all", **groups)} == {"train", "val"}
    val, train = (read("csv", tmp_path / "parts.csv", split, fold="1/4") for split in ("val", "train"))
    assert (len(val), len(train)) == (4, 12)
    assert not {sample.path for sample in val} & {sample.path for sample in train}


def test_a_list_that_has_a_split_takes_no_rule_and_one_without_says_which_there_are(tmp_path: Path) -> None:
    (tmp_path / "own.csv").write_text("path,label,split\na.mp4,walk,train\n")
    (tmp_path / "none.csv").write_text("path,label\na.mp4,walk\n")
    with pytest.raises(UsageError, match="--val-fraction: the file says the splits itself"):
        read("csv", tmp_path / "own.csv", "train", val_fraction="0.5")
    with pytest.raises(UsageError, match=r"has no column 'split'.*--val-fraction 0.2, --fold 1/5"):
        read("csv", tmp_path / "none.csv", "train")
