"""Readers of captions: one sample for each, under the ids that features have, and what is wrong named by its place."""

import json
import os
import string
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from test_fuzz import CELLS, SPLITS, as_table, check_list, fuzz

from ssan.datasets import Sample, Samples, detect, read
from ssan.datasets.audit import audit
from ssan.datasets.describe import describe
from ssan.errors import AnnotationError, SsanError, UsageError

SPLIT_OF_VIDEO = {"video0": "train", "video1": "train", "video2": "validate", "video3": "test", "video4": "test"}


def msrvtt(splits: dict[str, str], per_video: int = 2) -> dict[str, Any]:
    """The JSON of MSR-VTT: sentences of the videos in turn, as the official files mix them."""
    videos = [
        {"video_id": name, "id": number, "category": 9, "url": "https://example.org", "start time": 137.72,
         "end time": 149.44, "split": split}
        for number, (name, split) in enumerate(splits.items())
    ]  # fmt: skip
    sentences = [
        {"video_id": name, "sen_id": turn * len(splits) + number, "caption": f"caption {turn} of {name}"}
        for turn in range(per_video)
        for number, name in enumerate(splits)
    ]
    return {"info": {}, "videos": videos, "sentences": sentences}


def put(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    content = content if isinstance(content, str | bytes) else json.dumps(content)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def shown(samples: Samples) -> list[tuple[Any, ...]]:
    return [(s.id, s.video, s.caption, s.start_seconds, s.end_seconds, s.split) for s in samples]


def refused(format: str, root: Path, split: str = "all", **options: str) -> SsanError:
    with pytest.raises(SsanError) as caught:
        read(format, root, split, **options)
    assert isinstance(caught.value, UsageError | AnnotationError)
    assert len(caught.value.message.splitlines()) == 1
    return caught.value


# ---------------------------------------------------------------------------------------------------------- MSR-VTT

PAIRS = 'key,vid_key,video_id,sentence\nret0,msr3,video3,a dog runs\nret1,msr4,video4,"one, two ""and"" three"\n'


def test_msrvtt_has_a_sample_for_each_caption_and_the_times_are_not_those_of_the_clip(tmp_path: Path) -> None:
    put(tmp_path / "MSRVTT_data.json", msrvtt(SPLIT_OF_VIDEO))
    put(tmp_path / "TrainValVideo" / "video2.webm", b"")
    samples = read("auto", tmp_path, "val")
    assert samples == [
        Sample("video2#2", f"{tmp_path}/TrainValVideo/video2.webm", caption="caption 0 of video2", split="val",
               video="video2"),
        Sample("video2#7", f"{tmp_path}/TrainValVideo/video2.webm", caption="caption 1 of video2", split="val",
               video="video2"),
    ]  # fmt: skip
    train = read("msrvtt", tmp_path, "train")
    assert [s.id for s in train] == ["video0#0", "video0#5", "video1#1", "video1#6"]
    assert {(s.path, s.exists) for s in train} == {(f"{tmp_path}/video{n}.mp4", False) for n in (0, 1)}
    assert Counter(s.split for s in read("msrvtt", tmp_path, "all")) == {"train": 4, "val": 2, "test": 4}
    assert train.classes == []


@pytest.mark.parametrize("folder", ["", "annotations", "train_val_annotation"])
def test_the_two_files_of_msrvtt_are_one(tmp_path: Path, folder: str) -> None:
    whole = put(tmp_path / "a" / "MSRVTT_data.json", msrvtt(SPLIT_OF_VIDEO))
    known = {name: split for name, split in SPLIT_OF_VIDEO.items() if split != "test"}
    put(tmp_path / "b" / folder / "train_val_videodatainfo.json", msrvtt(known))
    put(tmp_path / "b" / "test_videodatainfo.json", msrvtt({"video3": "test", "video4": "test"}))
    for split in ("train", "val", "test", "all"):
        one, two = read("auto", whole, split), read("auto", tmp_path / "b", split)
        assert [(s.video, s.caption, s.split) for s in one] == [(s.video, s.caption, s.split) for s in two]


def test_the_pairs_of_1ka_need_no_json(tmp_path: Path) -> None:
    path = put(tmp_path / "MSRVTT_JSFUSION_test.csv", "\ufeff" + PAIRS.replace("\n", "\r\n"))
    expected = [("ret0", "video3", "a dog runs", None, None), ("ret1", "video4", 'one, two "and" three', None, None)]
    for root in (tmp_path, path):
        assert shown(read("auto", root, "test")) == [(*row, "test") for row in expected]
        assert shown(read("auto", root, "all")) == [(*row, "test") for row in expected]
    assert "and the name of the list says 'test'" in refused("msrvtt", path, "train").message
    assert (
        "no JSON file of MSR-VTT here"
        in refused("msrvtt", put(tmp_path / "MSRVTT_train.9k.csv", "video_id\nx\n")).message
    )


def test_the_protocol_of_msrvtt_follows_from_the_files_that_are_there(tmp_path: Path) -> None:
    data = put(tmp_path / "MSRVTT_data.json", msrvtt(SPLIT_OF_VIDEO))

    def videos(split: str, **options: str) -> list[str | None]:
        return [*dict.fromkeys(s.video for s in read("msrvtt", tmp_path, split, **options))]

    assert videos("train") == ["video0", "video1"]
    put(tmp_path / "MSRVTT_JSFUSION_test.csv", PAIRS)
    put(tmp_path / "MSRVTT_train.7k.csv", "video_id\nvideo2\nvideo0\n")
    assert videos("train") == videos("train", protocol="1k-A-7k") == ["video2", "video0"]
    put(tmp_path / "MSRVTT_train.9k.csv", "video_id\nvideo1\nvideo3\nvideo2\n")
    assert videos("train") == videos("train", protocol="1k-A-9k") == ["video1", "video3", "video2"]
    assert [s.id for s in read("msrvtt", tmp_path, "train")][:2] == ["video1#1", "video1#6"]
    assert len(read("msrvtt", tmp_path, "test")) == 2
    error = refused("msrvtt", tmp_path, "val")
    assert "has captions for training and for the test, and none for validation" in error.message
    assert error.code == "empty"
    assert len(read("msrvtt", tmp_path, "all")) == 2 + 3 * 2
    assert len(read("msrvtt", tmp_path, "test", protocol="full")) == 4
    assert len(read("msrvtt", data, "test")) == 4
    (tmp_path / "MSRVTT_train.7k.csv").unlink()
    assert "no MSRVTT_train.7k.csv here" in refused("msrvtt", tmp_path, "train", protocol="1k-A-7k").message
    assert (
        "unknown protocol '1kA'. Did you mean '1k-A-9k'? Known" in refused("msrvtt", tmp_path, protocol="1kA").message
    )


def test_a_list_of_ones_own_says_the_videos_or_the_pairs_of_msrvtt(tmp_path: Path) -> None:
    put(tmp_path / "MSRVTT_data.json", msrvtt(SPLIT_OF_VIDEO))
    ids = put(tmp_path / "mine.csv", "video_id,why\nvideo3,x\n")
    assert shown(read("msrvtt", tmp_path, "train", list=str(ids))) == [
        ("video3#3", "video3", "caption 0 of video3", None, None, "train"),
        ("video3#8", "video3", "caption 1 of video3", None, None, "train"),
    ]
    pairs = put(tmp_path / "pairs.csv", "video_id,sentence\nv,one\nw,two\nv,three\n")
    assert [s.id for s in read("auto", pairs, "test")] == ["v#0", "w#0", "v#1"]


def broken(path: tuple[str | int, ...], value: Any) -> dict[str, Any]:
    """MSR-VTT's JSON with one value exchanged; ``...`` leaves the key out."""
    content: Any = msrvtt(SPLIT_OF_VIDEO)
    place = content
    for key in path[:-1]:
        place = place[key]
    if value is ...:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return content


@pytest.mark.parametrize(
    ("content", "code", "words"),
    [
        (broken(("videos",), ...), "bad_annotation", "there is no list 'videos'"),
        (broken(("sentences",), {}), "bad_annotation", "there is no list 'sentences'"),
        (broken(("videos", 1), 5), "bad_annotation", "entry 2 of 'videos' is 5"),
        (broken(("videos", 1, "video_id"), ...), "bad_annotation", "video 2: the id of the video is None"),
        (broken(("videos", 1, "video_id"), "../x"), "path_escape", "video 2: the id '../x' is not a file name"),
        (broken(("videos", 1, "video_id"), "video0"), "duplicate", "video 2: the id 'video0' stands in video 1 too"),
        (broken(("videos", 2, "split"), "dev"), "bad_annotation", "video 3 ('video2'): unknown split 'dev'"),
        (broken(("videos", 2, "split"), ...), "bad_annotation", "video 3 ('video2') has no split"),
        (broken(("sentences", 3, "video_id"), "video9"), "bad_annotation", "sentence 4: there is no video 'video9'"),
        (broken(("sentences", 3, "caption"), " \n"), "bad_annotation", "sentence 4: the caption is ' \\n'"),
        (broken(("sentences", 3, "caption"), ["a"]), "bad_annotation", "sentence 4: the caption is a list"),
        (broken(("sentences", 3, "caption"), "\ud800"), "bad_annotation", "sentence 4: the caption is '\\ud800'"),
        (broken(("sentences", 3, "sen_id"), ...), "bad_annotation", "sentence 4: the sen_id is None"),
        (broken(("sentences", 5, "sen_id"), 0), "duplicate", "sentence 6: the id 'video0#0' stands in sentence 1 too"),
        ("[" * 100_000, "bad_annotation", "not usable JSON"),
        ('{"videos": [', "bad_annotation", "not valid JSON"),
        ([], "bad_annotation", "there is no list 'videos'"),
    ],
)
def test_malformed_json_of_msrvtt_is_named_with_its_entry(tmp_path: Path, content: Any, code: str, words: str) -> None:
    path = put(tmp_path / "MSRVTT_data.json", content)
    error = refused("msrvtt", tmp_path)
    assert (error.code, error.path) == (code, str(path))
    assert words in error.message


@pytest.mark.parametrize(
    ("text", "code", "line", "words"),
    [
        (PAIRS.replace(",", ";"), "bad_annotation", 1, "separated by semicolons"),
        (PAIRS.replace("a dog runs", ""), "bad_annotation", 2, "the caption is ''"),
        (PAIRS.replace("video4", "a/b"), "path_escape", 3, "is not a file name"),
        (PAIRS.replace("video4", ".."), "path_escape", 3, "is not a file name"),
        (PAIRS.replace("ret1", "ret0"), "duplicate", 3, "'ret0' stands in line 2 too"),
        ("key,vid_key,video_id,sentence\n", "empty", None, "there is nothing in it"),
        ("video_id\nvideo0\nvideo0\n", "duplicate", 3, "stands in line 2 too"),
        ("video_id\nvideo0\nvideo7\n", "bad_annotation", 3, "no caption of 'video7'"),
    ],
)
def test_malformed_lists_of_msrvtt_are_named_with_their_line(
    tmp_path: Path, text: str, code: str, line: int | None, words: str
) -> None:
    put(tmp_path / "MSRVTT_data.json", msrvtt(SPLIT_OF_VIDEO))
    path = put(tmp_path / "mine.csv", text)
    error = refused("msrvtt", tmp_path, list=str(path))
    assert (error.code, error.path, error.line) == (code, str(path), line)
    assert words in error.message


# --------------------------------------------------------------------------------------------------------- YouCook2

CLIPS = 'end,start,task,text,video_id\n60,47,226,pick the ends,xHr8\n9,2.5,101,"cut, then fry",bc\n89,67,226,mix,xHr8\n'


def recipes(**changes: Any) -> dict[str, Any]:
    clips = [
        {"segment": [47, 60], "id": 0, "sentence": "pick the ends"},
        {"segment": [67.5, 89], "id": 1, "sentence": "mix\n well \U0001f373"},
    ]
    clips[1] = {**clips[1], **{key: value for key, value in changes.items() if key in ("segment", "id", "sentence")}}
    about = {"duration": 88.9, "subset": "validation", "recipe_type": "226", "annotations": clips}
    about |= {key: value for key, value in changes.items() if key in about}
    other = {
        "duration": 20.0,
        "subset": "training",
        "recipe_type": "101",
        "annotations": [clips[0] | {"segment": [0, 3]}],
    }
    return {"database": {"xHr8": {key: v for key, v in about.items() if v is not ...}, "bc": other}}


def test_youcook2_has_a_sample_for_each_clip_with_its_bounds(tmp_path: Path) -> None:
    path = put(tmp_path / "annotations" / "youcookii_annotations_trainval.json", recipes())
    put(tmp_path / "raw_videos" / "validation" / "226" / "xHr8.mkv", b"")
    for root, options in ((tmp_path, {}), (path, {"videos": str(tmp_path)})):
        samples = read("auto", root, "val", **options)
        assert shown(samples) == [
            ("xHr8#0", "xHr8", "pick the ends", 47.0, 60.0, "val"),
            ("xHr8#1", "xHr8", "mix\n well \U0001f373", 67.5, 89.0, "val"),
        ]
        assert {(s.path, s.exists) for s in samples} == {(f"{tmp_path}/raw_videos/validation/226/xHr8.mkv", True)}
        assert shown(read("youcook2", root, "train", **options)) == [("bc#0", "bc", "pick the ends", 0, 3, "train")]
    assert (
        "no caption of the split 'test'; found {'val': 2, 'train': 1}" in refused("youcook2", tmp_path, "test").message
    )


def test_clips_for_testing_of_youcook2_have_no_captions(tmp_path: Path) -> None:
    content = {"database": {"q": {"duration": 9, "subset": "testing", "annotations": [{"segment": [1, 2], "id": 0}]}}}
    put(tmp_path / "youcookii_annotations_test_segments_only.json", content)
    assert shown(read("auto", tmp_path, "test")) == [("q#0", "q", None, 1, 2, "test")]


def test_the_clip_list_of_youcook2_is_of_validation(tmp_path: Path) -> None:
    path = put(tmp_path / "validation_youcook.csv", CLIPS)
    for root in (tmp_path, path, put(tmp_path / "other.csv", CLIPS)):
        assert shown(read("auto", root, "val")) == [
            ("xHr8#0", "xHr8", "pick the ends", 47.0, 60.0, "val"),
            ("bc#0", "bc", "cut, then fry", 2.5, 9.0, "val"),
            ("xHr8#1", "xHr8", "mix", 67.0, 89.0, "val"),
        ]
    assert "this list has clips of validation alone" in refused("youcook2", path, "train").message


@pytest.mark.parametrize(
    ("changes", "code", "words"),
    [
        ({"segment": [60, 47]}, "bad_annotation", "video 1 ('xHr8'): clip 2: the part ends at 47 s and starts at 60 s"),
        ({"segment": [50, 50]}, "bad_annotation", "expected an end after the start"),
        ({"segment": [50, 90]}, "bad_annotation", "clip 2: it ends at 90 s and the video at 88.9 s"),
        ({"segment": [50, float("nan")]}, "bad_annotation", "clip 2: 'nan' is no time"),
        ({"segment": [-1, 5]}, "bad_annotation", "clip 2: '-1' is no time"),
        ({"segment": [1, 10**400]}, "bad_annotation", "is no time"),
        ({"segment": ["1", "2"]}, "bad_annotation", "clip 2: the segment is a list; expected [start, end]"),
        ({"segment": [True, 2]}, "bad_annotation", "clip 2: the segment is a list; expected [start, end]"),
        ({"segment": 5}, "bad_annotation", "clip 2: the segment is 5; expected [start, end]"),
        ({"sentence": ""}, "bad_annotation", "clip 2: the caption is ''"),
        ({"sentence": None}, "bad_annotation", "clip 2: the caption is None"),
        ({"id": 0}, "duplicate", "clip 2: the id 'xHr8#0' stands in clip 1 too"),
        ({"id": None}, "bad_annotation", "clip 2: the id is None"),
        ({"duration": ...}, "bad_annotation", "video 1 ('xHr8'): expected its duration"),
        ({"duration": float("nan")}, "bad_annotation", "video 1 ('xHr8'): expected its duration"),
        ({"subset": "dev"}, "bad_annotation", "video 1 ('xHr8'): unknown split 'dev'"),
        ({"annotations": ...}, "bad_annotation", "there is no list 'annotations'"),
    ],
)
def test_malformed_json_of_youcook2_is_named_with_its_clip(
    tmp_path: Path, changes: dict[str, Any], code: str, words: str
) -> None:
    path = put(tmp_path / "youcookii_annotations_trainval.json", recipes(**changes))
    error = refused("youcook2", tmp_path)
    assert (error.code, error.path) == (code, str(path))
    assert words in error.message


@pytest.mark.parametrize("identity", ["..", "a/b", "a\\b", "", "x" * 201])
def test_an_id_of_youcook2_that_is_no_file_name_is_refused(tmp_path: Path, identity: str) -> None:
    content = recipes()
    content["database"][identity] = content["database"].pop("bc")
    put(tmp_path / "youcookii_annotations_trainval.json", content)
    assert refused("youcook2", tmp_path).code == "path_escape"


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        (CLIPS.replace("60,47", "47,60"), 2, "the part ends at 47 s and starts at 60 s"),
        (CLIPS.replace("60,47", "nan,47"), 2, "'nan' is no time"),
        (CLIPS.replace("60,47", ",47"), 2, "a bound of the clip is empty"),
        (CLIPS.replace("mix", ""), 4, "the caption is ''"),
        (CLIPS.replace("bc", "../bc"), 3, "is not a file name"),
        (CLIPS.replace(",", "\t"), 1, "separated by tabs"),
        (CLIPS.replace('"cut, then fry"', "cut, then fry"), 3, "6 values where the header has 5 columns"),
    ],
)
def test_malformed_clip_lists_of_youcook2_are_named_with_their_line(
    tmp_path: Path, text: str, line: int, words: str
) -> None:
    path = put(tmp_path / "validation_youcook.csv", text)
    error = refused("youcook2", tmp_path)
    assert (error.path, error.line) == (str(path), line)
    assert words in error.message


# ------------------------------------------------------------------------------------------------------------ LSMDC

CLIP = "0001_American_Beauty_00.00.51.926-00.00.54.129"
ROW = f"{CLIP}\t00:00:51.926\t00:00:54.129\t00:00:51.426\t00:00:54.629\t"


def test_lsmdc_is_six_columns_and_a_file_for_each_clip(tmp_path: Path) -> None:
    text = f'{ROW}SOMEONE says "hello".\r\n\r\n{ROW}"No", she says\r\n{ROW.replace("0001", "0002")}He goes.\r\n'
    put(tmp_path / "LSMDC16_annos_training.csv", text)
    put(tmp_path / "LSMDC16_challenge_1000_publictect.csv", f"{ROW}He waits.\n")
    put(tmp_path / "videos" / "0001_American_Beauty" / f"{CLIP}.mp4", b"")
    other = CLIP.replace("0001", "0002")
    samples = read("auto", tmp_path, "train")
    assert shown(samples) == [
        (f"{CLIP}#0", CLIP, 'SOMEONE says "hello".', None, None, "train"),
        (f"{CLIP}#1", CLIP, '"No", she says', None, None, "train"),
        (f"{other}#0", other, "He goes.", None, None, "train"),
    ]
    assert [(s.path, s.exists) for s in samples] == [
        *[(f"{tmp_path}/videos/0001_American_Beauty/{CLIP}.mp4", True)] * 2, (f"{tmp_path}/{other}.avi", False),
    ]  # fmt: skip
    assert [s.caption for s in read("lsmdc", tmp_path, "test")] == ["He waits."]
    assert [s.id for s in read("lsmdc", tmp_path, "all")][-1] == f"{CLIP}#2"
    assert "no file of LSMDC for the split 'val' here" in refused("lsmdc", tmp_path, "val").message
    one = tmp_path / "LSMDC16_challenge_1000_publictect.csv"
    assert len(read("auto", one, "test")) == 1
    assert "the file's name says 'test'" in refused("lsmdc", one, "train").message
    put(tmp_path / "LSMDC16_annos_training_someone.csv", text)
    assert "there are 2 files for the split 'train'" in refused("lsmdc", tmp_path, "train").message


def test_a_file_of_lsmdc_that_is_not_utf8_is_refused_until_its_encoding_is_said(tmp_path: Path) -> None:
    path = put(tmp_path / "LSMDC16_annos_val.csv", f"{ROW}It\u2019s a caf\u00e9.\n".encode("cp1252"))
    error = refused("lsmdc", tmp_path, "val")
    assert (error.code, error.path) == ("bad_annotation", str(path))
    assert "not UTF-8 text (byte " in error.message
    assert "--reader encoding=cp1252" in error.message
    assert [s.caption for s in read("lsmdc", tmp_path, "val", encoding="cp1252")] == ["It\u2019s a caf\u00e9."]
    assert "unknown encoding 'utf16'" in refused("lsmdc", tmp_path, "val", encoding="utf16").message


@pytest.mark.parametrize(
    ("text", "code", "line", "words"),
    [
        (f"{ROW}a\n{ROW}\n", "bad_annotation", 2, "has 5 columns; expected 6 columns separated by tabs"),
        (f"{ROW}a\n" + f"{ROW}b\n".replace("\t", ","), "bad_annotation", 2, "has 1 columns; expected 6"),
        (f"{ROW}a\tb\n", "bad_annotation", 1, "has 7 columns; expected 6"),
        (f"../{ROW}a\n", "path_escape", 1, "is not a file name"),
        ("\n", "empty", None, "there is nothing in it"),
    ],
)
def test_malformed_files_of_lsmdc_are_named_with_their_line(
    tmp_path: Path, text: str, code: str, line: int | None, words: str
) -> None:
    path = put(tmp_path / "LSMDC16_annos_training.csv", text)
    error = refused("lsmdc", tmp_path)
    assert (error.code, error.path, error.line) == (code, str(path), line)
    assert words in error.message


# ------------------------------------------------------------------------------------------------------ a CSV file

OWN = (
    'video,caption,start,end,split\nb/one,a man walks,0.5,2,train\nb/one,"he says ""hi""\nand goes",2,,train\n'
    "two.part,\U0001f415 runs,,,val\nb/one,again,,,val\n"
)


def test_captions_in_a_csv_file_have_the_ids_of_features_and_stable_ids_of_their_own(tmp_path: Path) -> None:
    path = put(tmp_path / "mine.csv", OWN)
    put(tmp_path / "b" / "one.mkv", b"")
    samples = read("auto", path, "all")
    assert shown(samples) == [
        ("b/one#0", "b/one", "a man walks", 0.5, 2.0, "train"),
        ("b/one#1", "b/one", 'he says "hi"\nand goes', 2.0, None, "train"),
        ("two.part#0", "two.part", "\U0001f415 runs", None, None, "val"),
        ("b/one#2", "b/one", "again", None, None, "val"),
    ]
    assert [(s.path, s.exists) for s in samples[1:3]] == [
        (f"{tmp_path}/b/one.mkv", True),
        (f"{tmp_path}/two.part", False),
    ]
    assert shown(read("captions_csv", path, "val")) == shown(samples)[2:]
    assert (
        "no caption of the split 'test'; found {'train': 2, 'val': 2}" in refused("captions_csv", path, "test").message
    )
    put(tmp_path / "captions.csv", OWN)
    elsewhere = put(tmp_path / "w" / "two.part.avi", b"").parent
    assert len(read("captions_csv", tmp_path, "val")) == 2
    assert [s.exists for s in read("captions_csv", tmp_path, "val", videos=str(elsewhere))] == [True, False]
    assert read("captions_csv", tmp_path, "val", annotations=str(path)) == read("captions_csv", path, "val")


def test_a_csv_file_of_captions_without_splits_is_whichever_is_asked_for(tmp_path: Path, monkeypatch: Any) -> None:
    put(tmp_path / "c.csv", "caption,other,video\nsmall,x,a\n")
    put(tmp_path / "a.webm", b"")
    monkeypatch.chdir(tmp_path)
    for split in ("train", "test"):
        assert read("auto", "c.csv", split) == [Sample("a#0", "a.webm", caption="small", split=split, video="a")]
    assert [s.split for s in read("auto", "c.csv", "all")] == [None]


@pytest.mark.parametrize(
    ("text", "code", "line", "words"),
    [
        (OWN.replace(",a man walks", ", "), "bad_annotation", 2, "the caption is ''"),
        (OWN.replace("two.part", "../two"), "path_escape", 5, "leads out of"),
        (OWN.replace("two.part", "/etc/passwd"), "path_escape", 5, "leads out of"),
        (OWN.replace("two.part", "b/../two"), "bad_annotation", 5, "expected it without detours, 'two'"),
        (OWN.replace("two.part", ""), "bad_annotation", 5, "the video is empty"),
        (OWN.replace("0.5,2", "2,0.5"), "bad_annotation", 2, "the part ends at 0.5 s and starts at 2 s"),
        (OWN.replace("0.5,2", "nan,2"), "bad_annotation", 2, "'nan' is no time"),
        (OWN.replace(",val", ",dev"), "bad_annotation", 5, "unknown split 'dev'"),
        (OWN.replace(",val", ","), "bad_annotation", 5, "unknown split ''"),
        (OWN.replace("video,", "vid,"), "bad_annotation", 1, "the first line has no column 'video'"),
        (OWN.replace(",", ";"), "bad_annotation", 1, "separated by semicolons"),
        ("video,caption\n", "empty", None, "no caption of the split 'all'; found none at all"),
        (b"video,caption\na,caf\xe9\n", "bad_annotation", None, "not UTF-8 text (byte 19)"),
    ],
)
def test_malformed_captions_in_a_csv_file_are_named_with_their_line(
    tmp_path: Path, text: str | bytes, code: str, line: int | None, words: str
) -> None:
    path = put(tmp_path / "c.csv", text)
    error = refused("captions_csv", path)
    assert (error.code, error.path, error.line) == (code, str(path), line)
    assert words in error.message


def test_a_list_with_paths_and_labels_is_no_list_of_captions(tmp_path: Path) -> None:
    path = put(tmp_path / "c.csv", "path,label,video,caption\na.mp4,walk,x,y\n")
    assert detect(str(path)) == "csv"


# ------------------------------------------------------------------------------------------------ what commands say


@pytest.fixture
def own(tmp_path: Path, order_set: Path) -> Path:
    """Five captions of three videos, of which two are there; one caption is said of two."""
    there = sorted((order_set / "20bn-something-something-v2").iterdir())
    for name, path in zip("ab", there, strict=False):
        os.symlink(path, tmp_path / f"{name}{path.suffix}")
    rows = ["a,one two,train", "a,three,train", "b,one two,val", "gone,one,test", "a,x y z w v,train"]
    return put(tmp_path / "c.csv", "video,caption,split\n" + "\n".join(rows) + "\n")


@pytest.mark.slow
def test_captions_are_described_by_videos_words_and_repetition(own: Path, ssan: Any) -> None:
    found = describe(read("captions_csv", own, "all"), look=0)
    assert (found["num_videos"], found["num_samples"], found["num_missing"]) == (3, 5, 1)
    assert found["first_missing"] == [f"{own.parent}/gone"]
    assert found["splits"]["train"] == {"num_videos": 1, "num_samples": 3, "num_missing": 0}
    assert found["num_captions"] == 5
    assert found["caption_words"] == {"num": 5, "smallest": 1, "median": 2, "largest": 5}
    assert found["captions_per_video"] == {"num": 3, "smallest": 1, "median": 1, "largest": 3}
    assert found["num_repeated_captions"] == 1
    assert found["repeated_captions"] == [{"caption": "one two", "num_videos": 2}]
    text = ssan("data", "describe", "--data", own, "--look", 0).out
    assert "a video has 1 to 3 captions, median 1 (3)\nrepeated    1 captions that several videos have\n" in text
    assert "  2         one two" in text
    assert "classes" not in text
    assert "no label" not in text


def test_a_caption_that_one_video_has_twice_is_not_repeated() -> None:
    twice = [Sample(str(n), "p", caption="x", video="v") for n in range(2)]
    assert describe(Samples(twice, (), "list"), look=0)["num_repeated_captions"] == 0


def test_videos_that_share_a_path_are_told_apart_by_the_ids_of_their_features() -> None:
    samples = Samples([Sample("1", "p", caption="x", video="v"), Sample("2", "p", caption="x", video="w")], (), "list")
    assert describe(samples, look=0)["num_videos"] == 2


@pytest.mark.slow
def test_captions_are_listed_and_missing_videos_are_counted_once(own: Path, ssan: Any) -> None:
    listed = ssan("data", "list", "--data", own, "--json")
    assert [line["video"] for line in listed.lines] == ["a", "a", "b", "gone", "a"]
    assert listed.err == "ssan: 1 of 3 videos are missing\n"
    assert ssan("data", "list", "--data", own, "--split", "test").out == f"gone#0\tone\t{own.parent}/gone  (missing)\n"


@pytest.mark.slow
def test_each_video_is_checked_once_though_many_captions_name_it(own: Path, ssan: Any) -> None:
    found = audit(read("captions_csv", own, "all"), quiet=True)
    assert [(len(one.samples), one.code) for one in found.findings] == [(3, None), (1, None), (1, "missing")]
    answer = ssan("data", "check", "--data", own, "--json", "--quiet")
    assert (answer.code, answer.json["num_checked"], answer.json["num_ok"]) == (1, 3, 2)
    refusal = ssan("data", "check", "--data", own, "--write-clean", own.parent / "clean.csv")
    assert refusal.code == 2
    assert "these have captions; leave it out" in refusal.err


# ----------------------------------------------------------------------------------------------------------- anything

WORDS = st.sampled_from([*CELLS, "video0", "ret0", "a dog", "\U0001f415"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 10**30) | st.floats() | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)


def mostly(usual: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(usual, usual, usual, VALUES)


NAMES = st.sampled_from(["video0", "video1", "video2"])
VIDEO = st.fixed_dictionaries(
    {"video_id": mostly(NAMES), "split": mostly(st.sampled_from(["train", "validate", "test"]))}
)
SENTENCE = st.fixed_dictionaries(
    {"video_id": mostly(NAMES), "sen_id": mostly(st.integers(0, 9)), "caption": mostly(st.text(max_size=9))}
)


@pytest.mark.slow
@given(
    content=st.fixed_dictionaries(
        {
            "videos": mostly(st.lists(mostly(VIDEO), max_size=3)),
            "sentences": mostly(st.lists(mostly(SENTENCE), max_size=5)),
        }
    )
    | VALUES,
    split=SPLITS,
)
@fuzz(80)
def test_any_json_of_msrvtt_is_read_or_refused(tmp_path: Path, content: Any, split: str) -> None:
    put(tmp_path / "a" / "MSRVTT_data.json", content)
    check_list(lambda: read("auto", tmp_path / "a", split), tmp_path / "a")


CLIP_ENTRY = st.fixed_dictionaries(
    {
        "segment": mostly(st.tuples(st.floats(0, 20), st.floats(0, 20)).map(list)),
        "id": mostly(st.integers(0, 9)),
        "sentence": mostly(st.text(max_size=9)),
    }
)
ABOUT = st.fixed_dictionaries(
    {
        "duration": mostly(st.floats(20, 90)),
        "subset": mostly(st.sampled_from(["training", "validation", "testing"])),
        "recipe_type": mostly(st.sampled_from(["1", "2"])),
        "annotations": mostly(st.lists(mostly(CLIP_ENTRY), max_size=3)),
    }
)


@pytest.mark.slow
@given(
    content=st.fixed_dictionaries({"database": st.dictionaries(mostly(NAMES).map(str), mostly(ABOUT), max_size=3)})
    | VALUES,
    split=SPLITS,
)
@fuzz(80)
def test_any_json_of_youcook2_is_read_or_refused(tmp_path: Path, content: Any, split: str) -> None:
    path = put(tmp_path / "a" / "youcookii_annotations_trainval.json", content)
    check_list(lambda: read("auto", path.parent, split), path.parent)


TABLE = st.builds(
    as_table,
    rows=st.lists(st.lists(WORDS, min_size=1, max_size=6), max_size=5),
    delimiter=st.sampled_from([",", ",", ";", "\t"]),
    quoting=st.sampled_from([0, 1, 3]),
    end=st.sampled_from(["\n", "\r\n", "\r"]),
    mark=st.sampled_from([b"", b"", b"\xef\xbb\xbf", b"\xff\xfe"]),
)
HEADERS = {
    "msrvtt": "key,vid_key,video_id,sentence",
    "youcook2": "end,start,task,text,video_id",
    "captions_csv": "video,caption,start,end,split",
    "howto100m": "video_id,category_1,category_2,rank,task_id,path",
}


@pytest.mark.slow
@given(format=st.sampled_from([*HEADERS]), header=st.booleans(), content=TABLE | st.binary(max_size=80), split=SPLITS)
@example("captions_csv", True, b"a,b,1,2,train\n../c,d,,,val\n", "all")
@example("youcook2", True, b"1e999,0,1,a,b\n", "val")
@example("captions_csv", True, b'a,"' + b"x" * 200_000 + b'",,,train\n', "all")
@fuzz(150)
def test_any_table_of_captions_is_read_or_refused(
    tmp_path: Path, format: str, header: bool, content: bytes, split: str
) -> None:
    path = put(tmp_path / "a" / "c.csv", HEADERS[format].encode() * header + b"\n" * header + content)
    check_list(lambda: read(format, path, split), path.parent)
    check_list(lambda: read("auto", path, split), path.parent)


@pytest.mark.slow
@given(
    rows=st.lists(st.lists(WORDS, min_size=6, max_size=6).map("\t".join) | WORDS, max_size=4),
    encoding=st.sampled_from(["utf-8", "cp1252", "latin-1"]),
    split=SPLITS,
)
@fuzz(80)
def test_any_lines_of_lsmdc_are_read_or_refused(tmp_path: Path, rows: list[str], encoding: str, split: str) -> None:
    path = put(tmp_path / "a" / "LSMDC16_annos_training.csv", "\n".join(rows).encode("utf-8", "surrogatepass"))
    check_list(lambda: read("lsmdc", path.parent, split, encoding=encoding), path.parent)


PLAIN = st.text(alphabet=string.ascii_letters + ",\"\n;' \U0001f415", min_size=1, max_size=12).map(
    lambda text: f"x{text}y"
)


@given(captions=st.lists(PLAIN, min_size=1, max_size=5), end=st.sampled_from(["\n", "\r\n"]))
@fuzz(60)
def test_what_is_written_as_captions_is_what_is_read(tmp_path: Path, captions: list[str], end: str) -> None:
    rows = [["video", "caption"], *(["a", caption] for caption in captions)]
    path = put(tmp_path / "c.csv", as_table(rows, ",", 1, end, b""))
    assert [s.caption for s in read("captions_csv", path, "all")] == captions


# --------------------------------------------------------------------------------------------------------- real files


@pytest.fixture
def lists(shared: Path) -> Path:
    folder = shared / "annotations"
    if not (folder / "msrvtt").is_dir():
        pytest.skip(f"no lists of captions at {folder}")
    return folder


@pytest.mark.shared
def test_the_real_pairs_of_1ka_are_1000_of_as_many_videos(lists: Path) -> None:
    samples = read("auto", lists / "msrvtt", "test")
    assert len(samples) == len({s.video for s in samples}) == 1000
    assert (samples[0].id, samples[0].video) == ("ret0", "video9770")
    assert samples[0].caption == "a person is connecting something to system"
    found = describe(samples, look=0)
    assert (found["num_repeated_captions"], found["repeated_captions"][0]["num_videos"]) == (4, 3)


@pytest.mark.slow
@pytest.mark.shared
@pytest.mark.parametrize(("protocol", "num"), [("1k-A-9k", 9000), ("1k-A-7k", 7010)])
def test_the_real_training_lists_of_1ka_hold_no_video_of_its_pairs(
    lists: Path, tmp_path: Path, protocol: str, num: int
) -> None:
    for path in (lists / "msrvtt").iterdir():
        os.symlink(path, tmp_path / path.name)
    put(tmp_path / "MSRVTT_data.json", msrvtt({f"video{n}": "train" for n in range(10_000)}, 1))
    train = {s.video for s in read("msrvtt", tmp_path, "train", protocol=protocol)}
    test = {s.video for s in read("msrvtt", tmp_path, "test", protocol=protocol)}
    assert (len(train), len(test), len(train & test)) == (num, 1000, 0)


@pytest.mark.shared
def test_the_real_clips_of_youcook2_are_3350_of_436_videos(lists: Path) -> None:
    samples = read("auto", lists / "mil_nce" / "validation_youcook.csv", "val")
    assert (len(samples), len({s.video for s in samples})) == (3350, 436)
    assert shown(samples)[0] == ("xHr8X2Wpmno#0", "xHr8X2Wpmno", "pick the ends off the verdalago", 47, 60, "val")


@pytest.mark.shared
def test_the_real_json_of_youcook2_agrees_with_the_clip_list(lists: Path) -> None:
    path = lists / "youcookii_annotations_trainval-first60.json"
    found = {split: read("auto", path, split) for split in ("train", "val")}
    assert {split: (len(s), len({one.video for one in s})) for split, s in found.items()} == {
        "train": (372, 49), "val": (88, 11),
    }  # fmt: skip
    clips = {s.id: s for s in read("auto", lists / "mil_nce" / "validation_youcook.csv", "val")}
    for sample in found["val"]:
        same = clips[sample.id]
        assert (sample.start_seconds, sample.end_seconds) == (same.start_seconds, same.end_seconds)
        assert sample.caption == same.caption
