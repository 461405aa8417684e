"""A clip file gives the frames back that were put in, is a folder to whoever lists it, and is refused when damaged."""

import hashlib
import io
import json
import os
import shutil
import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ssan.datasets import read
from ssan.datasets.audit import audit
from ssan.datasets.tree import Finder, find_videos, is_tree, subfolders
from ssan.errors import VideoError
from ssan.recognition.predict import expand
from ssan.video.clip_file import ClipFile, ClipFileWriter, ClipVideo
from ssan.video.clip_index import FOOTER, FOOTER_1, HEADER, MAGIC, TABLE
from ssan.video.preprocess import resize_frames, resize_rule
from ssan.video.reader import open_video, read_clip

NAMES = ["jump/ann_1", "jump/ann.2", "run/fast/bob", "run/ann"]
TIMES = [0.25, 0.5, 1.75, 2.0, 3.5]
DURATIONS = [0.25, 1.25, 0.25, 1.5, 0.5]


def pixels_of(number: int) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, (5, 7, 11, 3), np.uint8)


def put(writer: ClipFileWriter, name: str, pixels: np.ndarray) -> None:
    size = (pixels.shape[1], pixels.shape[2])
    writer.append(name, io.BytesIO(pixels.tobytes()), size, TIMES[: len(pixels)], DURATIONS[: len(pixels)])


@pytest.fixture
def path(tmp_path: Path) -> str:
    writer = ClipFileWriter(str(tmp_path / "x.clips"))
    for number, name in enumerate(NAMES):
        put(writer, name, pixels_of(number))
    assert not (tmp_path / "x.clips").exists()
    assert writer.finish() == (tmp_path / "x.clips").stat().st_size
    assert [file.name for file in tmp_path.iterdir()] == ["x.clips"]
    return str(tmp_path / "x.clips")


def test_frames_come_back_bit_for_bit_in_the_order_asked_with_their_times(path: str) -> None:
    for number, name in enumerate(NAMES):
        clip = read_clip(f"{path}/{name}", lambda n: [n - 1, 0, 2, 2])
        assert np.array_equal(clip.frames.permute(0, 2, 3, 1).numpy(), pixels_of(number)[[4, 0, 2, 2]])
        assert clip.frames.is_contiguous(memory_format=torch.channels_last)
        assert clip.indices == (4, 0, 2, 2)
        assert clip.times_seconds == (3.5, 0.25, 1.75, 1.75)
        assert clip.durations_seconds == (0.5, 0.25, 0.25, 0.25)
        assert (clip.num_frames, clip.num_promised, clip.duration_seconds) == (5, 5, 3.75)
        assert clip.path == f"{path}/{name}"


def test_a_clip_is_its_owners_alone(path: str) -> None:
    read_clip(f"{path}/run/ann", lambda n: [1]).frames.zero_()
    assert np.array_equal(read_clip(f"{path}/run/ann", lambda n: [1]).frames[0].permute(1, 2, 0), pixels_of(3)[1])


def test_frames_are_resized_as_pictures_of_a_folder_are(path: str) -> None:
    rule = resize_rule("short_side", 5)
    clip = read_clip(f"{path}/jump/ann.2", lambda n: [3, 1], resize=rule)
    assert clip.frames.shape == (2, 3, 5, 8)
    stored = torch.from_numpy(pixels_of(1)[[3, 1]]).permute(0, 3, 1, 2)
    assert torch.equal(clip.frames, resize_frames(stored, 5, 8))


def test_the_whole_video_streams(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ssan.video.clip.STREAM_BYTES", 2 * 7 * 11 * 3)
    with open_video(f"{path}/jump/ann_1") as video:
        clips = list(video.stream())
    assert [clip.indices for clip in clips] == [(0, 1), (2, 3), (4,)]
    assert np.array_equal(torch.cat([clip.frames for clip in clips]).permute(0, 2, 3, 1), pixels_of(0))


def test_a_frame_beyond_the_end_and_a_name_that_is_not_there_say_so(path: str) -> None:
    with open_video(f"{path}/run/ann") as video, pytest.raises(VideoError, match="frames 0 to 4") as caught:
        video.read([5])
    assert caught.value.code == "too_few_frames"
    for name in ("/run/zoe", "/run", "", "/run/ann/x", "/../x.clips"):
        with pytest.raises(VideoError) as caught:
            open_video(path + name)
        assert caught.value.code == "missing"
        assert caught.value.path == path + name


def test_it_is_a_folder_to_whoever_lists_it(path: str) -> None:
    assert is_tree(path)
    assert is_tree(f"{path}/run/fast")
    assert not is_tree(f"{path}/run/ann")
    assert not is_tree(f"{path}/walk")
    assert subfolders(path) == ["jump", "run"]
    assert subfolders(f"{path}/run") == ["fast"]
    assert find_videos(path) == [f"{path}/{name}" for name in sorted(NAMES, key=lambda name: name.split("/"))]
    assert find_videos(f"{path}/run") == [f"{path}/run/ann", f"{path}/run/fast/bob"]
    videos, notes = expand([path, f"{path}/run", f"{path}/jump/ann.2"])
    assert list(videos) == [*find_videos(path), *find_videos(f"{path}/run"), f"{path}/jump/ann.2"]
    assert notes == []


def test_annotations_find_its_videos_under_whatever_suffix_they_had(path: str, tmp_path: Path) -> None:
    finder = Finder(path)
    assert finder.find("run/ann.avi") == f"{path}/run/ann"
    assert finder.find("jump/ann.2") == f"{path}/jump/ann.2"
    assert finder.find("jump/ann.2.webm") == f"{path}/jump/ann.2"
    assert finder.find("jump/ann") is None
    (tmp_path / "list.csv").write_text("path,label\nrun/fast/bob.mp4,run\nrun/eve.mp4,run\n")
    samples = read("csv", str(tmp_path / "list.csv"), "all", videos=path)
    assert [(sample.path, sample.exists) for sample in samples] == [
        (f"{path}/run/fast/bob", True),
        (f"{path}/run/eve.mp4", False),
    ]


def test_a_folder_of_classes_has_the_ids_that_its_files_have(path: str, tmp_path: Path) -> None:
    for name in NAMES:
        (tmp_path / "files" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "files" / f"{name}.avi").touch()
    files, clips = (read("auto", root, "all") for root in (str(tmp_path / "files"), path))
    assert {(s.id, s.label, s.label_index) for s in files} == {(s.id, s.label, s.label_index) for s in clips}
    assert len(clips) == 4
    assert all(open_video(sample.path).num_frames == 5 for sample in clips)


def test_a_folder_with_such_a_name_stays_a_folder(tmp_path: Path) -> None:
    (tmp_path / "old.clips" / "run").mkdir(parents=True)
    (tmp_path / "old.clips" / "run" / "a.mp4").touch()
    assert find_videos(tmp_path / "old.clips") == [str(tmp_path / "old.clips" / "run" / "a.mp4")]
    with pytest.raises(VideoError) as caught:
        open_video(tmp_path / "old.clips" / "run" / "a.mp4")
    assert caught.value.code == "empty"


def test_a_file_that_was_replaced_meanwhile_is_opened_anew(path: str) -> None:
    assert open_video(f"{path}/run/ann").num_frames == 5
    writer = ClipFileWriter(f"{path}2.clips")
    put(writer, "run/ann", pixels_of(9)[:3])
    writer.finish()
    shutil.move(f"{path}2.clips", path)
    clip = read_clip(f"{path}/run/ann", range)
    assert np.array_equal(clip.frames.permute(0, 2, 3, 1), pixels_of(9)[:3])


# --- writing


def test_writing_goes_on_after_the_last_whole_video(tmp_path: Path) -> None:
    path = str(tmp_path / "x.clips")
    first = ClipFileWriter(path)
    put(first, "a", pixels_of(1))
    entries = dict(first.entries)
    first._handle.write(b"half a video")
    first.close()
    second = ClipFileWriter(path, entries.values())
    put(second, "b", pixels_of(2))
    assert second.entries["b"].offset == second.entries["a"].end, "what was half written is gone"
    with pytest.raises(VideoError):
        ClipFile(second.partial)
    second.finish()
    third = ClipFileWriter(path, second.entries.values())  # a finished one is gone on with too
    put(third, "c", pixels_of(3))
    put(third, "a", pixels_of(4)[:2])
    third.finish()
    expected = {"a": pixels_of(4)[:2], "b": pixels_of(2), "c": pixels_of(3)}
    assert set(ClipFile(path).entries) == set(expected)
    for name, pixels in expected.items():
        assert np.array_equal(read_clip(f"{path}/{name}", range).frames.permute(0, 2, 3, 1), pixels)


def test_what_does_not_arrive_on_the_disk_is_refused_and_leaves_no_trace(tmp_path: Path) -> None:
    writer = ClipFileWriter(str(tmp_path / "x.clips"))
    put(writer, "a", pixels_of(1))
    with pytest.raises(VideoError, match="are not there"):
        writer.append("b", io.BytesIO(bytes(100)), (7, 11), TIMES, DURATIONS)
    writer.finish()
    pixels, frames, index = 5 * 7 * 11 * 3, 5 * (8 + 8 + 4), len("a") + TABLE.itemsize
    assert (tmp_path / "x.clips").stat().st_size == HEADER.size + pixels + frames + index + FOOTER.size
    assert set(ClipFile(tmp_path / "x.clips").entries) == {"a"}


def test_altered_pixels_show_when_they_are_looked_for(path: str) -> None:
    data = bytearray(Path(path).read_bytes())
    data[HEADER.size + 3] ^= 1
    Path(path).write_bytes(data)
    whole = {}
    for name in NAMES:
        with open_video(f"{path}/{name}") as video:
            assert isinstance(video, ClipVideo)
            whole[name] = video.is_whole()
    assert whole == dict.fromkeys(NAMES, True) | {"jump/ann_1": False}


# --- files that are not as they should be


def _code(path: str) -> str | None:
    with pytest.raises(VideoError) as caught:
        open_video(f"{path}/run/ann")
    assert caught.value.path == path
    return caught.value.code


def test_a_file_cut_short_anywhere_is_refused(path: str) -> None:
    data = Path(path).read_bytes()
    for length in (len(data) - 1, len(data) - FOOTER.size, len(data) - 200, len(data) // 2, HEADER.size, 3, 0):
        Path(path).write_bytes(data[:length])
        assert _code(path) == ("truncated" if length >= HEADER.size else "not_video")


def test_every_byte_of_index_and_footer_counts(path: str) -> None:
    data = Path(path).read_bytes()
    begin = FOOTER.unpack(data[-FOOTER.size :])[0]
    for offset in range(begin, len(data), 37):
        Path(path).write_bytes(data[:offset] + bytes([data[offset] ^ 4]) + data[offset + 1 :])
        assert _code(path) in ("decode_error", "truncated"), offset
    Path(path).write_bytes(HEADER.pack(MAGIC, 3, 0) + data[HEADER.size :])
    with pytest.raises(VideoError, match="version 3"):
        ClipFile(path)


# --- version 1, which had the times of all frames in its index


def _as_version_1(path: str, lie: Callable[[list[dict[str, Any]]], Any] = lambda videos: None) -> None:
    """Write a file with the same videos as earlier releases did."""
    data, videos, opened = HEADER.pack(MAGIC, 1, 0), [], ClipFile(path)
    for name, entry in opened.entries.items():
        frames = opened.frames(entry)
        videos.append({
            "name": name, "offset": len(data), "num_frames": entry.num_frames, "height_px": 7, "width_px": 11,
            "times_seconds": frames.times_seconds.tolist(), "durations_seconds": frames.durations_seconds.tolist(),
            "crc32": entry.crc32,
        })  # fmt: skip
        data += Path(path).read_bytes()[entry.offset : entry.offset + entry.num_bytes]
    lie(videos)
    index = json.dumps({"videos": videos}).encode()
    footer = FOOTER_1.pack(len(data), len(index), hashlib.sha256(index).digest(), MAGIC)
    Path(path).write_bytes(data + index + footer)


def test_files_of_version_1_are_read(path: str) -> None:
    _as_version_1(path)
    assert find_videos(path) == [f"{path}/{name}" for name in sorted(NAMES, key=lambda name: name.split("/"))]
    for number, name in enumerate(NAMES):
        clip = read_clip(f"{path}/{name}", range)
        assert np.array_equal(clip.frames.permute(0, 2, 3, 1).numpy(), pixels_of(number))
        assert (clip.times_seconds, clip.durations_seconds) == (tuple(TIMES), tuple(DURATIONS))
        with open_video(f"{path}/{name}") as video:
            assert isinstance(video, ClipVideo)
            assert video.is_whole()


LIES: dict[str, Callable[[list[dict[str, Any]]], Any]] = {
    "beyond the end": lambda videos: videos[0].update(
        num_frames=500, times_seconds=[0] * 500, durations_seconds=[1] * 500
    ),
    "a frame too many": lambda videos: videos[0].update(num_frames=6),
    "overlapping the header": lambda videos: videos[0].update(offset=8),
    "before the beginning": lambda videos: videos[0].update(offset=-16),
    "no number": lambda videos: videos[0].update(height_px="7"),
    "a number that is none": lambda videos: videos[0].update(num_frames=True),
    "no pixels": lambda videos: videos[0].update(height_px=0),
    "a picture as large as the world": lambda videos: videos[0].update(height_px=1 << 40),
    "upwards": lambda videos: videos[0].update(name="../ann"),
    "absolute": lambda videos: videos[0].update(name="/etc/ann"),
    "twice": lambda videos: videos[0].update(name=videos[1]["name"]),
    "times that are none": lambda videos: videos[0].update(times_seconds=[None] * 5),
    "times without end": lambda videos: videos[0].update(durations_seconds=[float("inf")] * 5),
    "times beyond what a number holds": lambda videos: videos[0].update(times_seconds=[10**400] * 5),
    "times whose sum is without end": lambda videos: videos[0].update(times_seconds=[-1.7e308, 0, 0, 0, 1.7e308]),
    "a size beyond what a number holds": lambda videos: videos[0].update(num_frames=10**400),
    "another number of times": lambda videos: videos[0].update(times_seconds=[0.0] * 4),
    "two at one offset": lambda videos: videos[0].update(offset=videos[1]["offset"]),
    "a field too many": lambda videos: videos[0].update(codec="h264"),
    "a field too few": lambda videos: videos[0].pop("crc32"),
    "no entry": lambda videos: videos.insert(0, 5),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("lie", LIES)
def test_an_index_that_lies_is_refused_whatever_its_hash_says(path: str, lie: str) -> None:
    _as_version_1(path, LIES[lie])
    assert _code(path) == "decode_error"


def _write_index(path: str, names: list[bytes], table: np.ndarray) -> None:
    """Put another index into a file, with a hash that is right."""
    data = Path(path).read_bytes()
    begin = FOOTER.unpack(data[-FOOTER.size :])[0]
    joined = b"\xff".join(names)
    index = joined + table.tobytes()
    footer = FOOTER.pack(begin, len(joined), len(table), hashlib.sha256(index).digest(), MAGIC)
    Path(path).write_bytes(data[:begin] + index + footer)


def _index_of(path: str) -> tuple[list[bytes], np.ndarray]:
    data = Path(path).read_bytes()
    begin, length, count, _, _ = FOOTER.unpack(data[-FOOTER.size :])
    names = data[begin : begin + length].split(b"\xff")
    return names, np.frombuffer(data, TABLE, count, begin + length).copy()


TABLE_LIES: list[tuple[str, int | str]] = [
    ("offset", 8), ("offset", (1 << 64) - 8), ("offset", "next"), ("frames_at", 0), ("frames_at", (1 << 64) - 60),
    ("frames_at", "next"), ("num_frames", 0), ("num_frames", (1 << 32) - 1), ("height_px", 0),
    ("height_px", (1 << 32) - 1), ("width_px", (1 << 32) - 1),
]  # fmt: skip


@pytest.mark.parametrize(("field", "value"), TABLE_LIES)
def test_an_offset_where_no_video_can_be_is_refused_whatever_the_hash_says(
    path: str, field: str, value: int | str
) -> None:
    names, table = _index_of(path)
    table[1][field] = table[2][field] if value == "next" else value
    _write_index(path, names, table)
    assert _code(path) == "decode_error"


@pytest.mark.parametrize(
    "names",
    [[b"a", b"b", b"c"], [b"a", b"b", b"c", b"c"], [b"a", b"c", b"b", b"d"], [b"", b"b", b"c", b"d"],
     [b"../a", b"b", b"c", b"d"], [b"/a", b"b", b"c", b"d"], [b"\xfe", b"b", b"c", b"d"]],
)  # fmt: skip
def test_names_that_lie_are_refused_whatever_the_hash_says(path: str, names: list[bytes]) -> None:
    _write_index(path, sorted(names) if b"\xfe" in names else names, _index_of(path)[1])
    assert _code(path) == "decode_error"


def test_what_claims_gigabytes_of_a_file_without_content_is_refused_before_it_is_read(path: str) -> None:
    names, table = _index_of(path)
    data = Path(path).read_bytes()
    begin, _, _, _, _ = FOOTER.unpack(data[-FOOTER.size :])
    with open(path, "r+b") as handle:  # the names take 3 GB of nothing
        length = 3 << 30
        handle.seek(begin + length + table.nbytes)
        handle.write(FOOTER.pack(begin, length, len(table), bytes(32), b"ssanclip"))
        handle.truncate()
    with pytest.raises(VideoError, match="more than 536,870,912"):
        ClipFile(path)
    with open(path, "r+b") as handle:  # a video has 150 million frames
        frames = 150_000_000
        one = table[:1].copy()
        one["num_frames"], one["height_px"], one["width_px"], one["frames_at"] = frames, 1, 1, 64 + 3 * frames
        one["offset"] = 64
        index, begin = names[0] + one.tobytes(), 64 + 23 * frames
        handle.seek(begin)
        handle.write(index + FOOTER.pack(begin, len(names[0]), 1, hashlib.sha256(index).digest(), b"ssanclip"))
        handle.truncate()
    with pytest.raises(VideoError, match="150000000 frames"):
        ClipFile(path)


def test_an_index_of_version_1_with_more_lists_than_videos_is_refused_before_it_is_made(path: str) -> None:
    _as_version_1(path)
    data = Path(path).read_bytes()
    index = b'{"videos": [' + b"[]," * 100_000 + b"[]]}"
    begin = int.from_bytes(data[-56:-48], "little")
    footer = struct.pack("<QQ32s8s", begin, len(index), hashlib.sha256(index).digest(), b"ssanclip")
    Path(path).write_bytes(data[:begin] + index + footer)
    with pytest.raises(VideoError, match="more lists than videos"):
        ClipFile(path)


def test_many_videos_at_one_offset_are_refused_at_once(path: str) -> None:
    _, table = _index_of(path)
    many = np.repeat(table[:1], 50_000)
    _write_index(path, [f"{number:06d}".encode() for number in range(len(many))], many)
    with pytest.raises(VideoError, match="where another video does"):
        ClipFile(path)


def test_a_file_of_videos_by_the_ten_thousand_is_opened_without_what_is_said_of_their_frames(path: str) -> None:
    """Places are made up, in a file with a hole, as only its length is looked at."""
    num, frames = 20_000, 400
    names = [f"class {number % 50:02d}/{number:06d}".encode() for number in range(num)]
    table = np.zeros(num, TABLE)
    table["num_frames"], table["height_px"], table["width_px"] = frames, 1, 1
    table["offset"] = HEADER.size + np.arange(num) * frames * 23
    table["frames_at"] = table["offset"] + frames * 3
    begin = HEADER.size + num * frames * 23
    joined = b"\xff".join(sorted(names))
    index = joined + table.tobytes()
    with open(path, "wb") as handle:
        handle.write(HEADER.pack(MAGIC, 2, 0))
        handle.seek(begin)
        handle.write(index + FOOTER.pack(begin, len(joined), num, hashlib.sha256(index).digest(), MAGIC))
    tracemalloc.start()
    try:
        opened = ClipFile(path)
        assert tracemalloc.get_traced_memory()[1] < 20e6, "of the 160 MB that are said of frames nothing is read"
    finally:
        tracemalloc.stop()
    assert opened.subfolders("") == [f"class {number:02d}" for number in range(50)]
    assert len(opened.videos("class 07")) == num // 50
    assert opened.entries["class 07/000107"].num_frames == frames


def test_a_frame_that_was_altered_is_refused_when_it_is_read_and_the_others_are_not(path: str) -> None:
    entry = ClipFile(path).entries["run/ann"]
    with open(path, "rb+") as handle:
        handle.seek(entry.offset + 2 * entry.frame_bytes + 5)
        handle.write(b"\0\1")
    assert np.array_equal(read_clip(f"{path}/run/ann", lambda n: [1]).frames[0].permute(1, 2, 0), pixels_of(3)[1])
    with pytest.raises(VideoError, match="frame 2 is not what was written") as caught:
        read_clip(f"{path}/run/ann", lambda n: [1, 2])
    assert (caught.value.code, caught.value.path) == ("decode_error", f"{path}/run/ann")


def test_times_that_were_altered_are_refused(path: str) -> None:
    with open(path, "rb+") as handle:
        handle.seek(ClipFile(path).entries["run/ann"].frames_at + 3)
        handle.write(b"\1")
    with pytest.raises(VideoError, match="of the frames of 'run/ann'"):
        open_video(f"{path}/run/ann")
    assert open_video(f"{path}/run/fast/bob").num_frames == 5


def test_a_file_that_shrinks_while_it_is_read_is_an_error_and_no_end_of_the_process(path: str) -> None:
    with open_video(f"{path}/run/ann") as video:
        assert isinstance(video, ClipVideo)
        video.read([0])
        os.truncate(path, 2000)
        with pytest.raises(VideoError, match="shorter since it was opened") as caught:
            video.read([4])
        assert caught.value.code == "truncated"
        assert not video.is_whole()


def test_whoever_reads_a_file_goes_on_while_it_is_added_to(path: str) -> None:
    with open_video(f"{path}/run/ann") as video:
        writer = ClipFileWriter(path, ClipFile(path).entries.values())
        put(writer, "run/zoe", pixels_of(8))
        assert np.array_equal(video.read(range(5)).frames.permute(0, 2, 3, 1), pixels_of(3))
        writer.finish()
        assert np.array_equal(video.read(range(5)).frames.permute(0, 2, 3, 1), pixels_of(3))
    assert np.array_equal(read_clip(f"{path}/run/zoe", range).frames.permute(0, 2, 3, 1), pixels_of(8))
    assert np.array_equal(read_clip(f"{path}/run/ann", range).frames.permute(0, 2, 3, 1), pixels_of(3))


@pytest.mark.parametrize("name", ["Caf\u00e9/\u0915\u094d\u0937", "a\nb/c d", "bytes\udcff/x", "a.b/c", "a/c", "a b/c"])
def test_names_of_any_letters_are_found(tmp_path: Path, name: str) -> None:
    writer = ClipFileWriter(str(tmp_path / "x.clips"))
    for other in (name, "a.b/d", "a/d", "a", "z"):
        put(writer, other, pixels_of(len(other)))
    writer.finish()
    opened = ClipFile(tmp_path / "x.clips")
    assert opened.below("") == sorted({name, "a.b/d", "a/d", "a", "z"}, key=lambda name: name.split("/"))
    assert opened.videos(name.rpartition("/")[0]) == sorted({name.rpartition("/")[2]} | (
        {"d"} if name in ("a.b/c", "a/c") else set()
    ))  # fmt: skip
    assert opened.subfolders("") == sorted({name.split("/")[0], "a", "a.b"})
    assert np.array_equal(
        read_clip(f"{tmp_path}/x.clips/{name}", range).frames.permute(0, 2, 3, 1), pixels_of(len(name))
    )
    assert "a/" not in opened.entries
    assert name.replace("/", "\0") not in opened.entries


def test_a_link_where_the_file_is_to_be_written_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("dear to somebody")
    (tmp_path / "x.clips.part").symlink_to(tmp_path / "victim")
    with pytest.raises(OSError, match=r"x\.clips\.part"):
        ClipFileWriter(str(tmp_path / "x.clips"))
    assert (tmp_path / "victim").read_text() == "dear to somebody"


def test_parts_of_its_videos_are_found_by_their_times(path: str) -> None:
    with open_video(f"{path}/run/ann") as video:
        assert [video.begin_seconds(number) for number in range(5)] == [0, 0.25, 1.5, 1.75, 3.25]
        assert video.span(0.25, 1.75) == (1, 3)
        assert video.span(1.75, None) == (3, 5)


def test_its_videos_are_checked_and_the_check_is_remembered(path: str, tmp_path: Path) -> None:
    samples = read("auto", path, "all")
    first = audit(samples, depth="whole", memory=tmp_path / "memory.sqlite", quiet=True)
    assert [(found.ok, found.frames_decoded) for found in first.findings] == [(True, 5)] * len(NAMES)
    again = audit(samples, depth="whole", memory=tmp_path / "memory.sqlite", quiet=True)
    assert again.num_remembered == len(NAMES)
    with open(path, "rb+") as handle:  # one byte of the first video's pixels
        handle.seek(HEADER.size + 100)
        before = handle.read(1)
        handle.seek(HEADER.size + 100)
        handle.write(bytes([before[0] ^ 1]))
    damaged = audit(samples, depth="whole", memory=tmp_path / "memory.sqlite", quiet=True)
    wrong = [found for found in damaged.findings if not found.ok]
    assert [(Path(found.path).name, found.code) for found in wrong] == [("ann_1", "decode_error")]
    assert "CRC-32" in wrong[0].message


def test_the_folder_of_a_set_can_be_in_it(tmp_path: Path) -> None:
    """As ``--videos x.clips`` with the lists apart: the reader looks below the names that it knows."""
    writer = ClipFileWriter(str(tmp_path / "x.clips"))
    put(writer, "20bn-something-something-v2/7", pixels_of(0))
    writer.finish()
    lists = tmp_path / "lists"
    lists.mkdir()
    (lists / "something-something-v2-labels.json").write_text('{"Holding something": "0"}')
    (lists / "something-something-v2-train.json").write_text(
        '[{"id": "7", "label": "holding a cup", "template": "Holding [something]", "placeholders": ["a cup"]}]'
    )
    (sample,) = read("sthv2", tmp_path / "x.clips", "train", annotations=str(lists))
    assert (sample.path, sample.exists) == (f"{tmp_path}/x.clips/20bn-something-something-v2/7", True)
