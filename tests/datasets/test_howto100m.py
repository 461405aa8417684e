"""Narrated videos: the list of HowTo100M, and captions that are read when they are asked for and grow as published."""

import io
import json
import os
import pickle
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from test_fuzz import STEPS, Makes, check_refusal, fuzz

import naive
from ssan.datasets import Sample, detect, read
from ssan.datasets.howto100m import NarratedVideos, count_words
from ssan.errors import AnnotationError, SsanError

# Times that are hand-worked with below: captions of 2, 1, 3, 1 and 2 s.
TEXTS = ["so today we", "cut", "the onion's skin, don't hurry", "", "and fry it"]
STARTS = [0.0, 2.0, 3.5, 6.5, 8.0]
ENDS = [2.0, 3.0, 6.5, 7.5, 10.0]
ENTRY = {"start": STARTS, "end": ENDS, "text": TEXTS}


def put(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    content = content if isinstance(content, str | bytes) else json.dumps(content)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def narrated(folder: Path, content: Any) -> NarratedVideos:
    return NarratedVideos(put(folder / "captions.json", content))


# ---------------------------------------------------------------------------------------------------------- the list

LIST = 'video_id,category_1,category_2,rank,task_id\nnVb_-1,"Cars, Other",Bikes,27,52907\nCTP,Food,Drinks,6,25938\n'


def test_the_list_of_howto100m_has_a_sample_for_each_video(tmp_path: Path) -> None:
    path = put(tmp_path / "HowTo100M_v1.csv", LIST)
    put(tmp_path / "videos" / "CTP.webm", b"")
    expected = [
        Sample("nVb_-1", f"{tmp_path}/nVb_-1.mp4", exists=False, video="nVb_-1"),
        Sample("CTP", f"{tmp_path}/videos/CTP.webm", video="CTP"),
    ]
    for split in ("train", "all"):
        assert read("auto", tmp_path, split) == read("auto", path, split) == expected
    with pytest.raises(SsanError, match="no split 'val'; use --split train"):
        read("howto100m", tmp_path, "val")
    with pytest.raises(SsanError, match="expected it in the folder"):
        read("howto100m", tmp_path / "videos", "train")


@pytest.mark.parametrize("task", ["task", "task_id"])
def test_the_column_of_the_task_may_have_either_name_and_a_path_names_the_features(tmp_path: Path, task: str) -> None:
    text = f"video_id,category_1,category_2,rank,{task},path\na,x,y,1,2, food/vid_a.npy\nb,x,y,1,2,\n"
    path = put(tmp_path / "mine.csv", text)
    assert detect(str(path)) == "howto100m"
    assert [(s.id, s.video) for s in read("auto", path, "train")] == [("a", "food/vid_a"), ("b", "b")]


@pytest.mark.parametrize(
    ("text", "code", "line", "words"),
    [
        ("video_id\na\na\n", "duplicate", 3, "'a' stands in line 2 too"),
        ("video_id\na\n..\n", "path_escape", 3, "is not a file name"),
        ("video_id,path\na,../x.npy\n", "path_escape", 2, "the path of features is '../x'"),
        ("video_id,path\na,/x.npy\n", "path_escape", 2, "the path of features is '/x'"),
        ("video_id\n", "empty", None, "there is no video in it"),
        ("video;rank\na;1\n", "bad_annotation", 1, "no column 'video_id'"),
    ],
)
def test_malformed_lists_of_howto100m_are_named_with_their_line(
    tmp_path: Path, text: str, code: str, line: int | None, words: str
) -> None:
    path = put(tmp_path / "HowTo100M_v1.csv", text)
    with pytest.raises(AnnotationError) as caught:
        read("howto100m", tmp_path, "train")
    assert (caught.value.code, caught.value.path, caught.value.line) == (code, str(path), line)
    assert words in caught.value.message


# ------------------------------------------------------------------------------------------------------------ growing


@pytest.mark.parametrize(
    ("index", "min_seconds", "min_words", "expected"),
    [
        # Long enough as it is: 3 s.
        (2, 3.0, 0, ("the onion's skin, don't hurry", 3.5, 6.5)),
        # With the one before it would last 3 s (0 to 3), with the one after 4.5 s (2 to 6.5); 3 s are not 4 yet, and
        # there is nothing before any more.
        (1, 2.5, 0, ("so today we cut", 0.0, 3.0)),
        (1, 4.0, 0, ("so today we cut the onion's skin, don't hurry", 0.0, 6.5)),
        # Before: 2 to 6.5 is 4.5 s; after: 3.5 to 7.5 is 4 s, which is shorter; it has no words, but lasts.
        (2, 3.5, 0, ("the onion's skin, don't hurry", 3.5, 7.5)),
        # After that 4 s: before is 2 to 7.5, 5.5 s, after 3.5 to 10, 6.5 s.
        (2, 5.0, 0, ("cut the onion's skin, don't hurry", 2.0, 7.5)),
        # At the ends there is one side.
        (0, 2.5, 0, ("so today we cut", 0.0, 3.0)),
        (4, 3.0, 0, ("and fry it", 6.5, 10.0)),
        # Nothing is left to take.
        (2, 11.0, 0, ("so today we cut the onion's skin, don't hurry and fry it", 0.0, 10.0)),
        (3, 0.0, 99, ("so today we cut the onion's skin, don't hurry and fry it", 0.0, 10.0)),
        # By words alone the side with more of them: of "cut" 3 before and 5 after.
        (1, 0.0, 2, ("cut the onion's skin, don't hurry", 2.0, 6.5)),
        (1, 0.0, 1, ("cut", 2.0, 3.0)),
        # "the onion's skin, don't hurry" are 5 words.
        (2, 0.0, 5, ("the onion's skin, don't hurry", 3.5, 6.5)),
        (2, 0.0, 6, ("cut the onion's skin, don't hurry", 2.0, 6.5)),
        # Either that is lacking makes it grow: 3 s are enough, 5 words are not, and time says which side.
        (2, 3.0, 6, ("cut the onion's skin, don't hurry", 2.0, 7.5)),
    ],
)
def test_a_caption_grows_with_its_neighbours_as_worked_by_hand(
    tmp_path: Path, index: int, min_seconds: float, min_words: int, expected: tuple[str, float, float]
) -> None:
    assert narrated(tmp_path, {"v": ENTRY}).grown("v", index, min_seconds, min_words) == expected


def test_of_two_neighbours_that_are_equal_the_one_before_is_taken(tmp_path: Path) -> None:
    entry = {"start": [0, 2, 4], "end": [2, 4, 6], "text": ["a b", "c", "d e"]}
    videos = narrated(tmp_path, {"v": entry})
    assert videos.grown("v", 1, 3.0) == ("a b c", 0.0, 4.0)
    assert videos.grown("v", 1, 0.0, 2) == ("a b c", 0.0, 4.0)


def test_captions_from_before_stand_in_front_unless_the_order_is_that_of_taking(tmp_path: Path) -> None:
    videos = narrated(tmp_path, {"v": ENTRY})
    assert videos.grown("v", 1, 4.0, order="taken") == ("cut so today we the onion's skin, don't hurry", 0.0, 6.5)
    assert videos.grown("v", 1, 4.0) == ("so today we cut the onion's skin, don't hurry", 0.0, 6.5)


@pytest.mark.slow
@given(
    captions=st.lists(
        st.tuples(st.integers(0, 9), st.integers(0, 7), st.sampled_from(["", "a", "b c", "don't d", "e, f-g h"])),
        min_size=1, max_size=7,
    ),
    index=st.integers(0, 6),
    min_seconds=st.sampled_from([0.0, 0.5, 3.0, 5.0, 11.0, 99.0]),
    min_words=st.sampled_from([0, 1, 3, 7, 99]),
)  # fmt: skip
@fuzz(150)
def test_growing_agrees_with_its_naive_twin(
    tmp_path: Path, captions: list[tuple[int, int, str]], index: int, min_seconds: float, min_words: int
) -> None:
    """Also where recognised speech overlaps and is out of order."""
    starts = [float(start) for start, _, _ in captions]
    ends = [float(start + length) for start, length, _ in captions]
    texts = [text for _, _, text in captions]
    index %= len(texts)
    videos = narrated(tmp_path, {"v": {"start": starts, "end": ends, "text": texts}})
    taken = naive.grown_caption(texts, starts, ends, index, min_seconds, min_words)
    assert videos.grown("v", index, min_seconds, min_words, order="taken") == (
        " ".join(texts[place] for place in taken if texts[place]), starts[min(taken)], ends[max(taken)],
    )  # fmt: skip


def test_words_are_counted_as_published() -> None:
    assert [count_words(text) for text in ("", "don't over-cook it", "caf\u00e9_1 \u8d70!", "...")] == [0, 4, 2, 0]


def test_clips_are_drawn_with_replacement_and_grown(tmp_path: Path) -> None:
    videos = narrated(tmp_path, {"v": ENTRY})
    clips = videos.clips("v", 200, np.random.default_rng(3), 3.0)
    drawn = np.random.default_rng(3).integers(5, size=200)
    assert clips == [videos.grown("v", int(index), 3.0) for index in drawn]
    assert set(videos.clips("v", 200, np.random.default_rng(3), 1.0)) == {*videos.captions("v")}
    assert videos.clips("v", 200, np.random.default_rng(4), 3.0) != clips
    taken = videos.clips("v", 200, np.random.default_rng(3), 4.0, order="taken")
    assert ("cut so today we the onion's skin, don't hurry", 0.0, 6.5) in taken


# ------------------------------------------------------------------------------------------------------------- files


def same(videos: NarratedVideos, content: dict[str, Any]) -> None:
    assert videos.ids == list(content)
    assert len(videos) == len(content)
    for video, entry in content.items():
        assert video in videos
        assert videos.num_captions(video) == len(entry["text"])
        said = zip(entry["text"], map(float, entry["start"]), map(float, entry["end"]), strict=True)
        assert videos.captions(video) == [*said]


CONTENT = {
    "v": ENTRY,
    "w{}": {
        "end": [2, 3],
        "start": [1, 2],
        "text": ['a "quoted" {brace} \\ and }', "caf\u00e9 \U0001f373\n]"],
        "other": 5,
    },
    "x\u00e9": {"start": [], "end": [], "text": []},
}


@pytest.mark.parametrize("ascii", [True, False])
@pytest.mark.parametrize(("indent", "mark"), [(None, b""), (2, b""), (None, b"\xef\xbb\xbf")])
def test_captions_are_read_from_json_in_any_layout(
    tmp_path: Path, ascii: bool, indent: int | None, mark: bytes
) -> None:
    text = json.dumps(CONTENT, ensure_ascii=ascii, indent=indent)
    same(narrated(tmp_path, mark + text.encode()), CONTENT)
    assert narrated(tmp_path, "{ }\n").ids == []


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_captions_are_read_from_pickles_of_lists_and_of_arrays(tmp_path: Path, protocol: int) -> None:
    arrays: dict[str, Any] = {
        "v": {"start": np.array(STARTS), "end": np.array(ENDS, np.float32), "text": np.array(TEXTS, object)},
        "w": {
            "start": (np.float64(1), np.int32(2)),
            "end": np.array([2, 3], ">i8"),
            "text": np.array(["a b", "\u8d70"]),
        },
    }
    expected = {"v": ENTRY, "w": {"start": [1, 2], "end": [2, 3], "text": ["a b", "\u8d70"]}}
    for content in (arrays, expected):
        same(NarratedVideos(put(tmp_path / "c.pickle", pickle.dumps(content, protocol))), expected)


def test_a_text_that_is_null_or_nan_has_no_words(tmp_path: Path) -> None:
    entry = {"start": [0, 1, 2], "end": [1, 2, 3], "text": [None, float("nan"), " a "]}
    assert [text for text, _, _ in narrated(tmp_path, {"v": entry}).captions("v")] == ["", "", "a"]
    assert narrated(tmp_path, {"v": entry}).grown("v", 0, 2.5) == ("a", 0.0, 3.0)


def test_narrated_videos_pass_to_loader_processes(tmp_path: Path) -> None:
    videos = narrated(tmp_path, CONTENT)
    same(pickle.loads(pickle.dumps(videos)), CONTENT)


def test_of_json_what_is_said_is_read_only_when_it_is_asked_for(tmp_path: Path) -> None:
    entry = {"start": [*range(500)], "end": [*range(1, 501)], "text": ["some words " * 7] * 500}
    path = put(tmp_path / "c.json", {f"v{n}": entry for n in range(300)})
    tracemalloc.start()
    videos = NarratedVideos(path)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert videos.num_captions("v299") == 500
    assert most < os.path.getsize(path) / 30


@pytest.mark.parametrize(
    ("content", "code", "words"),
    [
        ("", "bad_annotation", "neither JSON nor a pickle"),
        ("[]", "bad_annotation", "neither JSON nor a pickle"),
        ('{"v": 5}', "bad_annotation", "what follows byte 1 (video 1) is not the captions of a video"),
        ('{"v": {}, "w": {"a": {}}}', "bad_annotation", "what follows byte 9 (video 2) is not"),
        ('{"v": {}', "bad_annotation", "what follows byte 1 (video 1) is not"),
        ('{"v": {},}', "bad_annotation", "what follows byte 9 (video 2) is not"),
        ('{"v": {}} {', "bad_annotation", "there is more after the last video, from byte 9 on"),
        ('{"v": {}, "v": {}}', "duplicate", "the video 'v' stands twice"),
        ('{"../v": {}}', "path_escape", "video 1: the id '../v' is not a file name"),
        ('{"\\ud800": {}}', "path_escape", "is not a file name"),
        ('{"\\x": {}}', "bad_annotation", "the id at byte 1 is no text"),
        (b'{"\xff": {}}', "bad_annotation", "the id at byte 1 is no text"),
        ('{"v": ' * 50_000, "bad_annotation", "is not the captions of a video"),
        ("{" * 200_000, "bad_annotation", "is not the captions of a video"),
    ],
)
def test_what_is_no_json_of_captions_is_refused_with_its_place(
    tmp_path: Path, content: str | bytes, code: str, words: str
) -> None:
    with pytest.raises(AnnotationError) as caught:
        narrated(tmp_path, content)
    assert (caught.value.code, caught.value.path) == (code, str(tmp_path / "captions.json"))
    assert words in caught.value.message
    check_refusal(caught.value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"text": ["a"]}, "has 2 starts, 2 ends and 1 texts"),
        ({"text": None}, "the captions of 'v' are no such object"),
        ({"text": ["a", 5]}, "caption 1 of 'v' is no text"),
        ({"start": [0, float("nan")]}, "caption 1 of 'v' is from nan to 2"),
        ({"start": [0, -1]}, "caption 1 of 'v' is from -1 to 2"),
        ({"end": [1, 1e400]}, "caption 1 of 'v' is from 1 to inf"),
        ({"end": [1, 0.5]}, "with no end before its start"),
        ({"end": [1, "2"]}, "caption 1 of 'v' is from 1 to '2'"),
        ({"end": [1, True]}, "caption 1 of 'v' is from 1 to True"),
    ],
)
@pytest.mark.parametrize("pickled", [False, True])
def test_malformed_captions_of_a_video_are_named_when_it_is_asked_for(
    tmp_path: Path, pickled: bool, change: dict[str, Any], words: str
) -> None:
    content = {"v": {"start": [0, 1], "end": [1, 2], "text": ["a", "b"], **change}, "w": ENTRY}
    videos = narrated(tmp_path, pickle.dumps(content) if pickled else content)
    assert videos.num_captions("w") == 5
    with pytest.raises(AnnotationError) as caught:
        videos.num_captions("v")
    assert words in caught.value.message
    check_refusal(caught.value)


def test_a_video_or_a_caption_that_is_not_there_is_named(tmp_path: Path) -> None:
    videos = narrated(tmp_path, CONTENT)
    with pytest.raises(AnnotationError, match="there are no captions of the video 'y'"):
        videos.num_captions("y")
    for index in (5, -1):
        with pytest.raises(IndexError, match="of 'v', which has 5"):
            videos.grown("v", index)
    with pytest.raises(AnnotationError, match="has no captions; leave it out"):
        videos.clips("x\u00e9", 3, np.random.default_rng(0))
    with pytest.raises(AnnotationError, match="no JSON"):
        narrated(tmp_path, '{"v": {"start": [1}}').num_captions("v")
    with pytest.raises(SsanError, match="no such file; expected captions"):
        NarratedVideos(tmp_path / "none.json")


# -------------------------------------------------------------------------------------------------- hostile pickles


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_that_would_run_something_is_refused_by_name_and_does_not(tmp_path: Path, protocol: int) -> None:
    for content in ({"v": Makes(str(tmp_path / "made"))}, Makes(str(tmp_path / "made"))):
        with pytest.raises(AnnotationError, match=r"a pickle with '(os|posix|nt)\.\w+', which is not read") as caught:
            narrated(tmp_path, pickle.dumps(content, protocol))
        check_refusal(caught.value)
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    ("program", "words"),
    [
        (b"\x80\x02cbuiltins\neval\n.", "builtins.eval"),
        (b"\x80\x02cnumpy\nload\n.", "numpy.load"),
        # The state of what is found by name is not to be set: here the encoder's own defaults.
        (b"\x80\x02c_codecs\nencode\nN}X\x0c\0\0\0__defaults__)s\x86b.", "state of its own"),
        (b"\x80\x02c_codecs\nencode\nX\x01\0\0\0aX\x03\0\0\0zip\x86R.", "another encoding than latin1"),
        (b"\x80\x02cnumpy\ndtype\nX\x03\0\0\0V99\x89\x88\x87R.", "numpy.dtype of 'V99'"),
    ],
)
def test_a_pickle_of_anything_but_plain_values_is_refused_by_name(tmp_path: Path, program: bytes, words: str) -> None:
    with pytest.raises(AnnotationError) as caught:
        narrated(tmp_path, program)
    assert words in caught.value.message
    check_refusal(caught.value)


def array_pickle(shape: tuple[int, ...], kind: str, content: Any) -> bytes:
    """What numpy writes for an array, with a shape, a type and bytes of one's choosing."""
    real = np.array([1.0])
    made, arguments, _ = real.__reduce__()  # type: ignore[misc]

    class Writes:
        def __reduce__(self) -> Any:
            return made, arguments, (1, shape, np.dtype(kind), False, content)

    text = io.BytesIO()
    pickle.Pickler(text, 2).dump({"v": {"start": Writes(), "end": [1], "text": ["a"]}})
    return text.getvalue()


@pytest.mark.parametrize(
    ("shape", "kind", "content"),
    [
        ((10**12,), "<f8", b"\0" * 8),
        ((1,), "<f8", b"\0" * 7),
        ((1,), "O", b"\0" * 8),
        ((-1,), "<f8", b""),
    ],
)
def test_an_array_that_is_not_what_it_says_is_refused(
    tmp_path: Path, shape: tuple[int, ...], kind: str, content: bytes
) -> None:
    with pytest.raises(AnnotationError, match="a pickle with 'numpy"):
        narrated(tmp_path, array_pickle(shape, kind, content))
    assert narrated(tmp_path, array_pickle((1,), "<f8", b"\0" * 8)).captions("v") == [("a", 0.0, 1.0)]
    with pytest.raises(AnnotationError, match="captions of 'v' are no such object"):
        narrated(tmp_path, array_pickle((1, 1), "<f8", b"\0" * 8)).captions("v")


def check_captions(path: Path) -> None:
    try:
        videos = NarratedVideos(path)
    except SsanError as error:
        check_refusal(error)
        return
    for video in videos.ids:
        try:
            for index in range(videos.num_captions(video)):
                text, start, end = videos.grown(video, index, 3.0, 2)
                json.dumps([text, start, end], allow_nan=False).encode()
        except SsanError as error:
            check_refusal(error)


@given(steps=st.lists(st.sampled_from(STEPS), max_size=14), protocol=st.sampled_from([b"\x80\x02", b"", b"}", b"("]))
@example([b"r\xff\xff\xff\xff"], b"}")  # a place in memory for 4 billion objects
@example([b"\x96\xff\xff\xff\xff\xff\xff\xff\x0f"], b"\x80\x05")
@example([b"]", b"q\x01", b"h\x01", b"a"], b"\x80\x02")
@fuzz(150)
def test_any_program_in_a_pickle_of_captions_is_refused_and_not_run(
    tmp_path: Path, steps: list[bytes], protocol: bytes
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        check_captions(put(tmp_path / "c.pickle", protocol + b"".join(steps) + b"."))
    assert not (tmp_path / "made").exists()


WHOLE = [
    json.dumps(CONTENT).encode(),
    *(pickle.dumps({"v": {k: np.array(x) for k, x in ENTRY.items()}}, p) for p in (0, 2, 5)),
]


@pytest.mark.slow
@given(
    content=st.sampled_from(WHOLE),
    changes=st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), max_size=4),
    cut=st.floats(0.1, 1),
)
@fuzz(150)
def test_any_damage_to_captions_is_survived(
    tmp_path: Path, content: bytes, changes: list[tuple[float, int]], cut: float
) -> None:
    damaged = bytearray(content)
    for share, byte in changes:
        damaged[int(share * len(content))] = byte
    check_captions(put(tmp_path / "c", bytes(damaged[: int(len(damaged) * cut)])))


ANYTHING = st.lists(st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5), max_size=3)


@given(entry=st.dictionaries(st.sampled_from(["start", "end", "text"]), ANYTHING, max_size=3))
@fuzz(60)
def test_any_values_of_captions_are_read_or_refused(tmp_path: Path, entry: dict[str, Any]) -> None:
    check_captions(put(tmp_path / "c.json", {"v": entry}))
    check_captions(put(tmp_path / "c.pickle", pickle.dumps({"v": entry})))
