"""Folders as people have them: no video in them is lost without a word, and nothing else becomes a class."""

import os
from pathlib import Path

import pytest

from ssan.datasets import Samples, read
from ssan.datasets.tree import find_videos, is_frame_folder, look_for_videos
from ssan.errors import UsageError
from ssan.recognition.predict import expand


def _touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def _below(root: Path) -> list[str]:
    return [os.path.relpath(path, root) for path in find_videos(root)]


def test_a_run_kept_beside_the_classes_is_none_of_them(tmp_path: Path) -> None:
    _touch(tmp_path / "a", "walk/x.mp4", "sit/y.mp4", "run/.lock", "earlier/journal.jsonl")
    assert read("folder", tmp_path / "a", "all").classes == ["sit", "walk"]
    _touch(tmp_path / "b", "train/walk/x.mp4", "val/walk/y.mp4", "run/.lock")
    assert [sample.id for sample in read("folder", tmp_path / "b", "val")] == ["val/walk/y"]


# ----------------------------------------------------------------------------------------- pictures beside videos


def test_a_stray_picture_does_not_hide_the_videos_of_a_class(tmp_path: Path) -> None:
    _touch(tmp_path, "walk/poster.jpg", "walk/a.mp4", "walk/b.avi", "run/c.mp4")
    samples = read("folder", tmp_path, "all")
    assert [(sample.id, sample.label) for sample in samples] == [
        ("run/c", "run"),
        ("walk/a", "walk"),
        ("walk/b", "walk"),
    ]
    (note,) = samples.notes
    assert "1 folder with pictures beside videos" in note
    assert "the videos are read, and 1 picture left out" in note
    assert str(tmp_path / "walk") in note
    assert not is_frame_folder(tmp_path / "walk")


def test_of_pictures_beside_folders_of_videos_those_count_of_which_there_are_more(tmp_path: Path) -> None:
    _touch(tmp_path, "walk/poster.png", "walk/clip1/1.jpg", "walk/clip2/1.jpg", "walk/deep/er/x.mp4")
    _touch(tmp_path, "frames/1.jpg", "frames/2.jpg", "frames/masks/1.png", "frames/text/a.txt", "frames/.hidden/1.jpg")
    assert _below(tmp_path) == ["frames", "walk/clip1", "walk/clip2", "walk/deep/er/x.mp4"]
    found = look_for_videos(tmp_path)
    assert found.mixed == {str(tmp_path / "walk"): 1}
    assert found.covered == {str(tmp_path / "frames"): 1}
    assert any("the pictures are read as one video, and 1 folder left out" in note for note in found.notes())


def test_pictures_beside_nested_folders_are_looked_through_once(tmp_path: Path) -> None:
    place = "."
    for depth in range(60):
        place = f"{place}/d{depth}"
        _touch(tmp_path, f"{place}/poster.jpg")
    _touch(tmp_path, f"{place}/a.mp4")
    assert [path.endswith("/a.mp4") for path in find_videos(tmp_path)] == [True]


def test_videos_beside_a_picture_are_each_labelled(tmp_path: Path) -> None:
    _touch(tmp_path, "inbox/a.mp4", "inbox/b.mp4", "inbox/cover.jpg", "frames/1.jpg", "frames/2.jpg")
    videos, notes = expand([str(tmp_path / "inbox"), str(tmp_path / "frames"), "nowhere.mp4"])
    assert [os.path.relpath(path, tmp_path) for path in videos[:-1]] == ["inbox/a.mp4", "inbox/b.mp4", "frames"]
    assert videos[-1] == "nowhere.mp4"
    assert len(notes) == 1
    assert "1 picture left out" in notes[0]


def test_a_clip_file_that_cannot_be_read_stands_for_itself(tmp_path: Path) -> None:
    (tmp_path / "bad.clips").write_bytes(b"no clip file")
    _touch(tmp_path, "a.mp4")
    assert expand([str(tmp_path / "a.mp4"), str(tmp_path / "bad.clips")])[0] == [
        str(tmp_path / "a.mp4"), str(tmp_path / "bad.clips"),
    ]  # fmt: skip


# --------------------------------------------------------------------------------- what a folder holds besides


@pytest.mark.parametrize("suffix", [".asf", ".divx", ".m2v", ".y4m", ".f4v", ".h264", ".MXF"])
def test_files_of_many_kinds_are_tried(tmp_path: Path, suffix: str) -> None:
    _touch(tmp_path, f"walk/a{suffix}")
    assert [(sample.id, sample.path) for sample in read("folder", tmp_path, "all")] == [
        ("walk/a", f"{tmp_path}/walk/a{suffix}")
    ]


def test_files_that_no_name_tells_are_named_and_counted(tmp_path: Path) -> None:
    _touch(tmp_path, "walk/a.mp4", "walk/plain", "walk/b.weird", "walk/notes.txt", "walk/a.srt", "walk/README")
    (note,) = read("folder", tmp_path, "all").notes
    assert note.startswith("2 files passed over")
    assert f"{tmp_path}/walk/b.weird, {tmp_path}/walk/plain" in note
    _touch(tmp_path, *(f"walk/{number}" for number in range(7)))
    (note,) = read("folder", tmp_path, "all").notes
    assert note.startswith("9 files passed over")
    assert " and 4 more" in note


def test_what_systems_and_archives_leave_is_no_class(tmp_path: Path) -> None:
    _touch(tmp_path, "walk/a.mp4", "__MACOSX/walk/._a.mp4", "@eaDir/x.db", "walk/@eaDir/a.mp4", "lost+found/x.mp4")
    _touch(tmp_path, "$RECYCLE.BIN/b.mp4", "System Volume Information/c.mp4", "__MACOSX/d.mp4")
    samples = read("folder", tmp_path, "all")
    assert (samples.classes, [sample.id for sample in samples]) == (["walk"], ["walk/a"])


def test_videos_in_no_class_folder_are_told_of(tmp_path: Path) -> None:
    _touch(tmp_path, "walk/a.mp4", "b.mp4", "c.avi", "list.txt")
    samples = read("folder", tmp_path, "all")
    assert [sample.id for sample in samples] == ["walk/a"]
    assert any(note.startswith("2 videos lie in no class folder and are left out") for note in samples.notes)


def test_a_link_to_a_folder_above_lists_no_video_twice(tmp_path: Path) -> None:
    _touch(tmp_path, "root/walk/a.mp4", "root/run/b.mp4")
    (tmp_path / "root" / "walk" / "up").symlink_to("../..")
    (tmp_path / "root" / "walk" / "root").symlink_to(tmp_path / "root")
    assert [sample.id for sample in read("folder", tmp_path / "root", "all")] == ["run/b", "walk/a"]
    (tmp_path / "root" / "all").symlink_to(".")
    assert [sample.id for sample in read("folder", tmp_path / "root", "all")] == ["run/b", "walk/a"]


# ------------------------------------------------------------------------------------------- how folders are read


@pytest.mark.parametrize("folders", [["val"], ["test"], ["val", "test"], ["Validation"]])
def test_a_folder_with_other_splits_than_training_is_read(tmp_path: Path, folders: list[str]) -> None:
    for name in folders:
        _touch(tmp_path, f"{name}/walk/a.mp4", f"{name}/run/b.mp4")
    samples = read("folder", tmp_path, "all")
    assert (samples.classes, len(samples)) == (["run", "walk"], 2 * len(folders))
    split = "test" if folders == ["test"] else "val"
    assert [sample.label for sample in read("folder", tmp_path, split)] == ["run", "walk"]


def test_a_class_called_test_of_folders_of_frames_is_a_class(tmp_path: Path) -> None:
    _touch(tmp_path, "test/clip1/1.jpg", "test/clip2/1.jpg")
    assert read("folder", tmp_path, "all").classes == ["test"]


def test_classes_can_be_the_last_folders_and_it_is_told_where_that_may_be_meant(tmp_path: Path) -> None:
    for person in (1, 2):
        for verb in ("walk", "run"):
            _touch(tmp_path, f"Person {person}/{verb}/x.mp4", f"Person {person}/{verb}/frames/1.jpg")
    first = read("folder", tmp_path, "all")
    assert first.classes == ["Person 1", "Person 2"]
    (note,) = first.notes
    assert "classes are the first folders, such as 'Person 1'; 8 of 8 videos lie deeper" in note
    assert "--reader class_folder=last" in note
    last = read("folder", tmp_path, "all", class_folder="last")
    assert (last.classes, last.notes) == (["run", "walk"], [])
    assert {sample.id: sample.label for sample in last}["Person 2/walk/frames"] == "walk"
    assert {sample.id: sample.label for sample in last}["Person 2/run/x"] == "run"
    assert read("folder", tmp_path, "all", class_folder="first").notes == []
    with pytest.raises(UsageError, match="class_folder is 'middle'; it must be 'first' or 'last'"):
        read("folder", tmp_path, "all", class_folder="middle")


def test_the_last_folder_names_the_class_within_splits_too(tmp_path: Path) -> None:
    _touch(tmp_path, "train/ann/walk/x.mp4", "val/bob/walk/y.mp4", "val/z.mp4", "val/bob/run/w.mp4")
    samples: Samples = read("folder", tmp_path, "val", class_folder="last")
    assert [(sample.id, sample.label) for sample in samples] == [("val/bob/run/w", "run"), ("val/bob/walk/y", "walk")]
    assert any("1 videos lie in no class folder" in note for note in samples.notes)
