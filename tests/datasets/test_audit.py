"""The check of videos: it names what is wrong with which and where, remembers what it found, and ends when told to."""

import csv
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import simplejpeg

from ssan.cli.main import status
from ssan.datasets import Sample, audit, audit_cache, read
from ssan.datasets.audit import Audit, Look, write_list
from ssan.errors import VideoError
from ssan.video import container_length, decoder_server
from ssan.video.folder import Gap, numbering_gaps
from ssan.video.reader import OwnReader, open_video

FRAMES, RATE = 31, 10


def render(path: Path, codec: str = "mpeg4", *, seed: int = 0, group: int = 5, **options: str) -> Path:
    """31 frames of noise and a moving square, 10 a second; noise so that each packet has some hundred bytes."""
    chance = np.random.default_rng(seed)
    muxing = {"movflags": "faststart"} if path.suffix == ".mp4" else {}
    with av.open(str(path), "w", options=muxing) as output:
        stream = output.add_stream(codec, rate=RATE, options={"g": str(group), **options})
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(FRAMES):
            picture = chance.integers(0, 90, (48, 64, 3), np.uint8)
            picture[11:29, number : number + 13] = 255
            output.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        output.mux(stream.encode())
    return path


def with_hidden_pictures(source: Path, target: Path) -> Path:
    """VP8 with two packets more, of pictures that are not shown: encoders put some there for others to refer to."""
    with av.open(str(source)) as given, av.open(str(target), "w") as output:
        stream = output.add_stream_from_template(given.streams.video[0])
        for number, packet in enumerate(given.demux(given.streams.video[0])):
            if packet.dts is None:
                continue
            if number in (7, 18):
                hidden = av.Packet(bytes([bytes(packet)[0] & ~0x10]) + bytes(packet)[1:])  # the bit that says "shown"
                hidden.pts = hidden.dts = (packet.pts or 0) - 1
                hidden.time_base, hidden.stream = packet.time_base, stream
                output.mux(hidden)
            packet.stream = stream
            output.mux(packet)
    return target


def cut(path: Path, share: float) -> Path:
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    return path


def damage(path: Path, *numbers: int) -> Path:
    """Overwrite the middle of the packets with these numbers, in the order of the file."""
    with av.open(str(path)) as container:
        packets = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    content = bytearray(path.read_bytes())
    for number in numbers:
        position, size = packets[number]
        content[position + size // 3 : position + size // 2] = bytes([0xA5]) * (size // 2 - size // 3)
    path.write_bytes(content)
    return path


def write_frames(folder: Path, names: Sequence[str]) -> Path:
    folder.mkdir()
    for shade, name in enumerate(names):
        (folder / name).write_bytes(simplejpeg.encode_jpeg(np.full((11, 13, 3), shade, np.uint8), colorspace="RGB"))
    return folder


def samples_of(folder: Path, **fields: Any) -> list[Sample]:
    return [Sample(path.name, str(path), **fields) for path in sorted(folder.iterdir())]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("whole")
    return {
        "h264.mp4": render(folder / "h264.mp4", "libx264"),
        "h264.mkv": render(folder / "h264.mkv", "libx264"),
        "mpeg4.avi": render(folder / "mpeg4.avi", "mpeg4", bf="2"),
        "vp9.webm": render(folder / "vp9.webm", "libvpx-vp9"),
        "vp8.webm": with_hidden_pictures(render(folder / "plain.webm", "libvpx"), folder / "vp8.webm"),
        "mpeg2.ts": render(folder / "mpeg2.ts", "mpeg2video", bf="2"),
    }


NAMES = ["h264.mp4", "h264.mkv", "mpeg4.avi", "vp9.webm", "vp8.webm", "mpeg2.ts"]


@pytest.fixture
def found(tmp_path: Path) -> Callable[..., Audit]:
    """Check samples, with a memory of this test's own."""

    def run(samples: Sequence[Sample], **options: Any) -> Audit:
        settings: dict[str, Any] = {"depth": "whole", "workers": 1, "memory": tmp_path / "memory.sqlite", "quiet": True}
        return audit.audit(samples, **{**settings, **options})

    return run


# ------------------------------------------------------------------------------------------------ one video, examined


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_wrong_with_a_whole_video(whole: dict[str, Path], name: str) -> None:
    with open_video(whole[name]) as video:
        seen = video.examine()
    assert (seen.frames_decoded, seen.at_seconds, seen.error) == (FRAMES, None, None)
    assert seen.frames_promised == FRAMES + 2 * (name == "vp8.webm")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["h264.mp4", "h264.mkv", "mpeg4.avi", "vp9.webm", "vp8.webm"])
def test_a_video_cut_off_is_truncated_where_its_last_frame_ends(
    whole: dict[str, Path], name: str, tmp_path: Path
) -> None:
    path = cut(Path(shutil.copy(whole[name], tmp_path)), 0.6)
    seen = [open_video(path, apart=way).examine() for way in (True, False)]
    for one in seen:
        assert one.error is not None
        assert one.error.code == "truncated"
        # H.264 lacks the last few pictures that need later ones: they leave a gap before the last that decodes.
        assert one.at_seconds is not None
        assert -0.01 < one.at_seconds - one.frames_decoded / RATE < (0.41 if "h264" in name else 0.01)
        assert 3 <= one.frames_decoded < 29
        assert one.frames_promised >= FRAMES
        assert f"{one.frames_decoded} of {one.frames_promised}" in one.error.message
        assert f"of {whole[name].stat().st_size:,} bytes" in one.error.message
    assert str(seen[0]) == str(seen[1])


def test_damaged_frames_are_counted_and_the_first_has_its_time(tmp_path: Path) -> None:
    path = damage(render(tmp_path / "a.mp4", "mpeg4", group=1), 7, 19)
    with open_video(path) as video:
        seen = video.examine()
    assert (seen.frames_promised, seen.frames_decoded, seen.at_seconds) == (FRAMES, FRAMES, pytest.approx(0.7))
    assert seen.error is not None
    assert seen.error.code == "decode_error"
    assert seen.error.message.startswith("2 of 31 frames are damaged, the first at 0.70 s")


@pytest.mark.slow
def test_a_long_video_is_examined_in_stretches(whole: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoder_server, "STRETCH_SECONDS", 0.0)
    server = decoder_server.Server(None, None, None)  # type: ignore[arg-type]
    (number, *_), _ = server.open(None, str(whole["h264.mp4"]), 1)
    answers = [server.examine(number)[0]]
    while answers[-1] is None:
        answers.append(server.examine(number)[0])
    assert len(answers) == FRAMES + 2  # each packet, the empty one that ends the stream, and what was found
    assert answers[-1] == [FRAMES, FRAMES, None, None]


@pytest.mark.parametrize("name", ["h264.mp4", "h264.mkv", "mpeg4.avi", "vp9.webm"])
def test_headers_announce_the_length_that_a_whole_file_has(whole: dict[str, Path], name: str, tmp_path: Path) -> None:
    length = whole[name].stat().st_size
    assert container_length.announced_bytes(whole[name]) == length
    assert container_length.announced_bytes(cut(Path(shutil.copy(whole[name], tmp_path)), 0.7)) == length
    with open(tmp_path / name, "wb") as longer:
        longer.write(whole[name].read_bytes() + b"rubbish at the end" * 3)
    assert container_length.announced_bytes(tmp_path / name) in (length, None)


def test_a_stream_without_headers_announces_nothing(whole: dict[str, Path]) -> None:
    assert container_length.announced_bytes(whole["mpeg2.ts"]) is None


def test_frames_of_a_folder_that_do_not_decode_are_counted_and_the_first_is_named(tmp_path: Path) -> None:
    folder = write_frames(tmp_path / "a", [f"{number:03d}.jpg" for number in range(1, 8)])
    (folder / "004.jpg").write_bytes(b"no picture")
    cut(folder / "006.jpg", 0.5)
    for way in (True, False):
        seen = open_video(folder, apart=way).examine()
        assert (seen.frames_promised, seen.frames_decoded, seen.at_seconds) == (7, 5, pytest.approx(3 / 12))
        assert seen.error is not None
        assert (seen.error.code, seen.error.path) == ("decode_error", str(folder))
        assert seen.error.message.startswith("2 of 7 frames do not decode, first 004.jpg: the frame does not decode")


def test_gaps_in_the_numbering_of_frames_are_named(tmp_path: Path) -> None:
    numbers = [1, 2, 4, 5, 6, 10, 11, 12, 13]
    seen = open_video(write_frames(tmp_path / "a", [f"img_{number}.jpg" for number in numbers])).examine()
    assert (seen.frames_promised, seen.frames_decoded, seen.at_seconds) == (13, 9, pytest.approx(2 / 12))
    assert seen.error is not None
    assert seen.error.code == "truncated"
    assert "3, 7 to 9, together 4 of 13" in seen.error.message


@pytest.mark.parametrize(
    ("numbers", "gaps"),
    [
        ([5, 10, 20, 25, 30], [Gap(2, range(15, 20, 5))]),
        ([3, 17, 40, 41, 90], []),  # single frames that somebody chose
        ([7, 8], []),
        ([0, 1, 2, 3], []),
    ],
)
def test_a_step_that_most_names_have_is_the_numbering(numbers: list[int], gaps: list[Gap]) -> None:
    assert numbering_gaps([f"a2_{number:04d}.jpg" for number in numbers]) == gaps


# ----------------------------------------------------------------------------------------------------- a list of them


@pytest.mark.slow
def test_every_kind_of_fault_has_its_code_and_the_order_is_that_of_the_list(
    whole: dict[str, Path], tmp_path: Path, found: Callable[..., Audit]
) -> None:
    folder = tmp_path / "videos"
    folder.mkdir()
    shutil.copy(whole["h264.mp4"], folder / "a.mp4")
    damage(render(folder / "b.mp4", group=1), 11)
    cut(Path(shutil.copy(whole["vp9.webm"], folder / "c.webm")), 0.5)
    (folder / "d.mp4").write_bytes(b"")
    (folder / "e.mp4").write_text("no video at all")
    late = Path(shutil.copy(whole["h264.mp4"], folder / "f.mp4"))  # the list of frames goes with the end
    with av.open(str(whole["h264.mp4"])) as source, av.open(str(late), "w") as output:
        stream = output.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(source.streams.video[0]):
            if packet.dts is not None:
                packet.stream = stream
                output.mux(packet)
    cut(late, 0.5)
    write_frames(folder / "g", ["1.jpg", "2.jpg", "4.jpg", "5.jpg"])
    samples = [*samples_of(folder), Sample("h", str(folder / "h.mp4"))]
    one = found(samples)
    assert [(Path(finding.path).name, finding.ok, finding.code) for finding in one.findings] == [
        ("a.mp4", True, None), ("b.mp4", False, "decode_error"), ("c.webm", False, "truncated"),
        ("d.mp4", False, "empty"), ("e.mp4", False, "not_video"), ("f.mp4", False, "truncated"),
        ("g", False, "truncated"), ("h.mp4", False, "missing"),
    ]  # fmt: skip
    assert all(bool(finding.message) == (not finding.ok) for finding in one.findings)
    assert [fault.sample.id for fault in one.unusable] == ["d.mp4", "e.mp4", "f.mp4", "h"]
    assert [Path(finding.path).name for finding in one.damaged] == ["b.mp4", "c.webm", "g"]
    assert one.clean == samples[:1]
    three = found(samples, workers=3, memory=tmp_path / "other.sqlite")
    assert [finding.as_dict() for finding in three.findings] == [finding.as_dict() for finding in one.findings]
    opened = found(samples, depth="open", memory=tmp_path / "third.sqlite")
    assert [finding.code for finding in opened.findings if finding.look.usable] == [None] * 4
    assert [fault.sample for fault in opened.unusable] == [fault.sample for fault in one.unusable]


def test_the_same_video_is_looked_at_once_whatever_parts_of_it_are_listed(
    whole: dict[str, Path], found: Callable[..., Audit], looks: list[str]
) -> None:
    path = str(whole["h264.mp4"])
    samples = [Sample(str(n), path, start_seconds=n / 2, end_seconds=n / 2 + 0.5) for n in range(5)]
    assert [finding.ok for finding in found(samples).findings] == [True]
    assert looks == [path]


def test_a_part_beyond_the_end_and_frames_that_are_not_there_are_faults_of_these_samples_alone(
    whole: dict[str, Path], tmp_path: Path, found: Callable[..., Audit]
) -> None:
    path, folder = str(whole["h264.mp4"]), str(write_frames(tmp_path / "a", ["1.jpg", "2.jpg", "3.jpg"]))
    samples = [
        Sample("in", path, start_seconds=3.0),
        Sample("out", path, start_seconds=3.2),
        Sample("three", folder, num_frames=3),
        Sample("five", folder, num_frames=5),
    ]
    checked = found(samples)
    assert [(finding.ok, finding.code) for finding in checked.findings] == [(False, "too_few_frames")] * 2
    assert "'out' begins at 3.2 s, the video ends at 3.10 s" in checked.findings[0].message
    assert "the list says 5 frames, the folder holds 3" in checked.findings[1].message
    assert [sample.id for sample in checked.clean] == ["in", "three"]
    # A folder with fewer frames can be trained on; of a part that is not there nothing can.
    assert [(fault.sample.id, fault.error.code) for fault in checked.unusable] == [("out", "too_few_frames")]


def test_files_with_the_same_bytes_are_a_fault_across_splits_and_labels_and_a_remark_within(
    tmp_path: Path, found: Callable[..., Audit], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = render(tmp_path / "a.avi")
    content = first.read_bytes()
    for name in "bcd":
        (tmp_path / f"{name}.avi").write_bytes(content)
    (tmp_path / "e.avi").write_bytes(content[:-1] + bytes([content[-1] ^ 1]))  # as long, other bytes
    homes = {"a": ("train", "x"), "b": ("train", "x"), "c": ("val", "x"), "d": ("train", "y"), "e": ("val", "x")}
    samples = [
        Sample(name, str(tmp_path / f"{name}.avi"), split=split, label=label) for name, (split, label) in homes.items()
    ]
    checked = found(samples, compare=True, depth="open")
    same = str(first)
    assert [(finding.ok, finding.code, finding.same_as) for finding in checked.findings] == [
        (True, None, None), (True, "duplicate", same), (False, "duplicate", same), (False, "duplicate", same),
        (True, None, None),
    ]  # fmt: skip
    assert "listed in the split 'train' with the label 'x'; this one is listed in the split 'val'" in (
        checked.findings[2].message
    )
    assert [sample.id for sample in checked.clean] == ["a", "b", "e"]
    monkeypatch.setattr(audit, "sha256", lambda path: pytest.fail("a file that has not changed was read again"))
    again = found(samples, compare=True, depth="open")
    assert [finding.as_dict() for finding in again.findings] == [finding.as_dict() for finding in checked.findings]


def test_one_file_listed_in_two_splits_is_a_fault(whole: dict[str, Path], found: Callable[..., Audit]) -> None:
    path = str(whole["h264.mp4"])
    samples = [Sample("a", path, split="train"), Sample("b", path, split="val"), Sample("c", path, split="train")]
    (finding,) = found(samples).findings
    assert (finding.ok, finding.code) == (False, "duplicate")
    assert finding.rejected == {"b"}


# -------------------------------------------------------------------------------------------------- what is remembered


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The paths that are looked at, in turn."""
    paths: list[str] = []
    real = audit.look_at

    def noting(path: str, depth: audit.Depth) -> Look:
        paths.append(path)
        return real(path, depth)

    monkeypatch.setattr(audit, "look_at", noting)
    return paths


def test_an_unchanged_video_is_not_looked_at_again_unless_told_to(
    whole: dict[str, Path], tmp_path: Path, found: Callable[..., Audit], looks: list[str]
) -> None:
    videos = tmp_path / "videos"
    videos.mkdir()
    bad = cut(Path(shutil.copy(whole["h264.mp4"], videos)), 0.7)
    write_frames(videos / "frames", ["1.jpg", "2.jpg"])
    samples = samples_of(videos)
    first = found(samples)
    assert (first.num_remembered, len(looks)) == (0, 2)
    second = found(samples)
    assert (second.num_remembered, len(looks)) == (2, 2)
    assert second.findings == first.findings
    assert found(samples, depth="open").findings == first.findings  # the whole video says more than its beginning
    assert len(looks) == 2
    found(samples, again=True)
    assert len(looks) == 4
    before = bad.stat()
    bad.write_bytes(bytes(before.st_size))  # as long, and as old by what is written there
    os.utime(bad, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert found(samples).findings[1].code == "not_video"
    assert looks[4:] == [str(bad)]
    (videos / "frames" / "2.jpg").write_bytes(b"no longer a picture")
    assert found(samples).findings[0].code == "decode_error"
    assert looks[5:] == [str(videos / "frames")]


def test_opening_a_video_does_not_stand_for_looking_at_all_of_it_nor_an_older_check_for_this_one(
    whole: dict[str, Path], found: Callable[..., Audit], looks: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    samples = [Sample("a", str(whole["h264.mp4"]))]
    found(samples, depth="open")
    assert found(samples).findings[0].frames_decoded == FRAMES
    assert len(looks) == 2
    monkeypatch.setattr(audit_cache, "CHECK", audit_cache.CHECK + 1)
    found(samples)
    assert len(looks) == 3


def test_what_the_system_ended_is_not_remembered(
    whole: dict[str, Path], found: Callable[..., Audit], monkeypatch: pytest.MonkeyPatch
) -> None:
    samples = [Sample("a", str(whole["h264.mp4"]))]
    with monkeypatch.context() as patch:
        patch.setattr(audit, "look_at", lambda path, depth: Look(True, "decode_error", "took more than 120 seconds", 9))
        assert found(samples).findings[0].code == "decode_error"
    assert found(samples).findings[0].code is None


KILLED = """
import os, signal, sys
from ssan.datasets import Sample, audit
looked, real = [], audit.look_at
def until_the_fourth(path, depth):
    looked.append(path)
    if len(looked) == 4:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(path, depth)
audit.look_at = until_the_fourth
audit.audit([Sample(path, path) for path in sys.argv[2:]], workers=1, depth="whole", memory=sys.argv[1], quiet=True)
"""


@pytest.mark.slow
def test_a_check_that_is_killed_loses_nothing_that_it_had_found(
    whole: dict[str, Path], tmp_path: Path, looks: list[str]
) -> None:
    paths = [shutil.copy(whole["mpeg4.avi"], tmp_path / f"{number}.avi") for number in range(7)]
    place = tmp_path / "memory.sqlite"
    run = subprocess.run([sys.executable, "-c", KILLED, str(place), *map(str, paths)], check=False)
    assert run.returncode == -signal.SIGKILL
    samples = [Sample(str(path), str(path)) for path in paths]
    checked = audit.audit(samples, depth="whole", workers=1, memory=place, quiet=True)
    assert (checked.num_remembered, looks) == (3, [str(path) for path in paths[3:]])
    assert all(finding.ok for finding in checked.findings)


@pytest.mark.parametrize("obstacle", ["a file where the folder should be", "a file that is no memory"])
def test_a_place_that_cannot_be_written_is_said_once_and_does_not_stop_the_check(
    whole: dict[str, Path], tmp_path: Path, obstacle: str, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "notes").write_text("These are notes, and no SQLite file at all, whatever else they may be." * 30)
    place = tmp_path / "notes" / "memory.sqlite" if "folder" in obstacle else tmp_path / "notes"
    before = (tmp_path / "notes").read_bytes()
    samples = [Sample("a", str(whole["h264.mp4"])), Sample("b", str(whole["vp9.webm"]))]
    checked = audit.audit(samples, workers=1, memory=place)
    assert [finding.ok for finding in checked.findings] == [True, True]
    assert checked.memory is None
    err = capfd.readouterr().err
    assert err.count("cannot be remembered") == err.count("\n") == 1
    assert str(place) in err
    assert (tmp_path / "notes").read_bytes() == before


def test_the_usual_file_is_in_the_folder_for_caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert audit_cache.usual_path() == tmp_path / "ssan" / "checks.sqlite"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert audit_cache.usual_path() == tmp_path / "home" / ".cache" / "ssan" / "checks.sqlite"


def test_a_name_that_is_not_utf8_is_remembered_too(
    whole: dict[str, Path], tmp_path: Path, found: Callable[..., Audit], looks: list[str]
) -> None:
    path = os.path.join(os.fsencode(tmp_path), b"\xff\xfe.mp4")
    shutil.copy(os.fsencode(whole["h264.mp4"]), path)
    samples = [Sample("a", os.fsdecode(path))]
    assert found(samples).findings == found(samples).findings
    assert len(looks) == 1


# ---------------------------------------------------------------------------------------------------- side by side


@pytest.mark.slow
def test_threads_with_readers_of_their_own_do_not_wait_for_each_other(whole: dict[str, Path]) -> None:
    pids: dict[str, int] = {}
    together = threading.Barrier(2, timeout=20)

    def read(name: str) -> None:
        with OwnReader() as own, open_video(whole[name]) as video:
            together.wait()
            assert video.examine().frames_decoded == FRAMES
            assert own.current is not None
            pids[name] = own.current._process.pid
            together.wait()

    threads = [threading.Thread(target=read, args=(name,)) for name in ("h264.mp4", "vp9.webm")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(set(pids.values())) == 2
    for pid in pids.values():
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_a_reader_that_stands_still_can_be_ended_from_another_thread(whole: dict[str, Path]) -> None:
    own, errors = OwnReader(), []
    stands_still = threading.Event()

    def read() -> None:
        with own:
            open_video(whole["h264.mp4"]).close()
            assert own.current is not None
            os.kill(own.current._process.pid, signal.SIGSTOP)
            stands_still.set()
            try:
                open_video(whole["vp9.webm"])
            except VideoError as error:
                errors.append(error.code)

    thread = threading.Thread(target=read)
    thread.start()
    assert stands_still.wait(20)
    time.sleep(0.05)
    own.end()
    thread.join(20)
    assert not thread.is_alive()
    assert errors == ["decode_error"]


def test_a_defect_in_one_thread_is_raised_and_ends_the_others() -> None:
    def task(number: int) -> int:
        if number == 5:
            raise ZeroDivisionError
        return number

    with pytest.raises(ZeroDivisionError):
        list(audit._side_by_side(task, range(40), 3))
    assert sorted(audit._side_by_side(task, range(6, 20), 3)) == [(number, number) for number in range(6, 20)]


# -------------------------------------------------------------------------------------------------- the command line


@pytest.fixture
def ssan(capfd: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    def run(*arguments: object) -> tuple[int, str, str]:
        capfd.readouterr()
        code = status(["data", "check", *map(str, arguments)])
        return (code, *capfd.readouterr())

    return run


@pytest.fixture
def data(whole: dict[str, Path], tmp_path: Path) -> Path:
    """Two classes in two splits: a truncated video, one in both splits, and a quoted name."""
    root = tmp_path / "data"
    for folder in ("train/run, fast", "train/walk", "val/walk"):
        (root / folder).mkdir(parents=True)
    render(root / "train/run, fast/1.mp4", seed=1)
    shutil.copy(whole["h264.mp4"], root / "train/walk/2.mp4")
    cut(Path(shutil.copy(whole["mpeg4.avi"], root / "train/walk/3.avi")), 0.5)
    shutil.copy(whole["h264.mp4"], root / "val/walk/4.mp4")
    render(root / "val/walk/5.avi", seed=5)
    return root


@pytest.mark.slow
def test_the_answer_names_what_is_wrong_and_the_status_says_that_something_is(
    ssan: Callable[..., tuple[int, str, str]], data: Path, tmp_path: Path
) -> None:
    memory_file = tmp_path / "m.sqlite"
    code, out, _ = ssan("--data", data, "--json", "--memory", memory_file, "--workers", 2)
    answer = json.loads(out)
    assert code == 1
    assert (answer["schema"], answer["num_checked"], answer["num_ok"], answer["num_remembered"]) == (1, 5, 3, 0)
    fields = ["path", "ok", "code", "message", "frames_promised", "frames_decoded", "at_seconds", "same_as"]
    assert [list(file) for file in answer["files"]] == [fields] * 5
    files = {file["path"]: file for file in answer["files"]}
    bad = files[f"{data}/train/walk/3.avi"]
    assert (bad["code"], bad["frames_promised"]) == ("truncated", FRAMES)
    assert 0 < bad["frames_decoded"] < FRAMES
    assert files[f"{data}/val/walk/4.mp4"]["same_as"] == f"{data}/train/walk/2.mp4"
    code, out, _ = ssan("--data", data, "--memory", memory_file)
    assert code == 1
    assert out.splitlines()[0].startswith("5 videos: 3 ok, 2 with faults (")
    assert "5 known from before" in out
    assert f"{data}/train/walk/3.avi: truncated: the video ends early" in out
    assert ssan("--data", data, "--split", "val", "--memory", memory_file)[0] == 0


@pytest.mark.slow
def test_the_clean_list_holds_what_is_good_and_is_read_back(
    ssan: Callable[..., tuple[int, str, str]], data: Path, tmp_path: Path
) -> None:
    table = tmp_path / "clean.csv"
    _, _, err = ssan("--data", data, "--write-clean", table, "--memory", tmp_path / "m.sqlite")
    assert f"--data {data} --annotations {table} --format csv" in err
    with open(table, newline="", encoding="utf-8") as handle:
        assert next(csv.reader(handle)) == list(audit.LIST_COLUMNS)
    before = read("folder", data, "all")
    again = read("csv", data, "all", annotations=str(table))
    assert again.classes == before.classes
    assert list(again) == [sample for sample in before if sample.id not in ("train/walk/3", "val/walk/4")]
    assert [sample.id for sample in read("csv", data, "val", annotations=str(table))] == ["val/walk/5"]


def test_everything_that_a_sample_says_survives_the_list(tmp_path: Path) -> None:
    for name in ('a, "b".mp4', "c\nd.mp4", "e.mp4", " f.mp4"):
        (tmp_path / name).touch()
    samples = [
        Sample("1", str(tmp_path / 'a, "b".mp4'), "x", 0, 0.1, 2.3456789012345, 7, 'says, "no"', True, "train"),
        Sample("2", str(tmp_path / "c\nd.mp4"), "y", 1, None, None, None, "two\nlines", True, "val"),
        Sample("3", str(tmp_path / "e.mp4"), split="test"),
        Sample("4", str(tmp_path / " f.mp4"), "x", 0, split="train"),
        Sample("5", str(tmp_path.parent / "elsewhere.mp4"), "x", 0, split="train"),
        Sample("6", str(tmp_path / "e.mp4"), "x \udcff", 0, split="train"),
    ]
    left_out = write_list(tmp_path / "list.csv", samples, str(tmp_path))
    assert [sample.id for sample in left_out] == ["4", "5", "6"]
    assert list(read("csv", tmp_path / "list.csv", "all")) == samples[:3]


def test_videos_without_labels_are_checked_too(
    ssan: Callable[..., tuple[int, str, str]], whole: dict[str, Path], tmp_path: Path
) -> None:
    (tmp_path / "loose").mkdir()
    shutil.copy(whole["vp9.webm"], tmp_path / "loose")
    code, out, _ = ssan("--data", tmp_path / "loose", "--json", "--memory", tmp_path / "m.sqlite")
    assert (code, json.loads(out)["num_ok"]) == (0, 1)


def test_an_empty_split_is_refused_before_anything_is_looked_at(
    ssan: Callable[..., tuple[int, str, str]], data: Path, looks: list[str]
) -> None:
    code, out, err = ssan("--data", data, "--split", "test")
    assert (code, out, looks) == (2, "", [])
    assert "--split all shows every one" in err


@pytest.mark.slow
def test_an_interrupted_check_ends_with_130_and_goes_on_where_it_was(
    ssan: Callable[..., tuple[int, str, str]], data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, looked = audit.look_at, []

    def interrupted(path: str, depth: audit.Depth) -> Look:
        looked.append(path)
        if len(looked) == 3:
            raise KeyboardInterrupt
        return real(path, depth)

    monkeypatch.setattr(audit, "look_at", interrupted)
    code, out, err = ssan("--data", data, "--memory", tmp_path / "m.sqlite", "--workers", 1)
    assert (code, out) == (130, "")
    assert "the same command goes on from there" in err
    _, out, _ = ssan("--data", data, "--memory", tmp_path / "m.sqlite", "--json")
    assert json.loads(out)["num_remembered"] == 2
    with sqlite3.connect(tmp_path / "m.sqlite") as file:
        assert file.execute("SELECT count(*) FROM findings").fetchone() == (5,)
    file.close()


# -------------------------------------------------------------------------------------------------------- training


@pytest.mark.slow
def test_training_keeps_a_truncated_video_and_says_so_where_a_check_has_found_it(
    order_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from ssan.recipe import make_recipe
    from ssan.recognition.train import DataSource, train
    from ssan.training.journal import read_journal

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    shutil.copytree(order_set, tmp_path / "data")
    source = DataSource(str(tmp_path / "data"))
    victim = cut(Path(source.read("train")[3].path), 0.7)
    recipe = make_recipe({"model": "tsn_tiny", "crop_px": 32, "size_px": 32, "epochs": 1, "batch": 14, "num_frames": 2})
    starts = []
    for name in ("before", "after"):
        capfd.readouterr()
        answer = train(recipe, source, tmp_path / name)
        err = capfd.readouterr().err
        assert (answer["num_skipped"], answer["num_train"]) == (0, 28)
        (start,) = read_journal(tmp_path / name / "journal.jsonl", "start")
        starts.append(start)
        assert (str(victim) in err) == (name == "after")
        if name == "before":
            assert audit.audit(source.read("train"), depth="whole", quiet=True).damaged[0].code == "truncated"
    assert [start["num_damaged"] for start in starts] == [0, 1]
    assert starts[0]["train_list"] == starts[1]["train_list"]


# ------------------------------------------------------------------------------------------------------ real files


@pytest.mark.slow
@pytest.mark.shared
def test_the_real_videos_have_one_that_is_truncated_and_two_that_are_the_same(
    shared: Path, found: Callable[..., Audit]
) -> None:
    checked = found(read("folder", shared / "videos", "all"), workers=2, compare=True)
    named = {Path(finding.path).name: finding for finding in checked.findings if finding.code}
    assert set(named) == {"corrupted.mp4", "tests__data__rawvideo_dataset__part_1.mp4"}
    bad, same = named["corrupted.mp4"], named["tests__data__rawvideo_dataset__part_1.mp4"]
    assert (bad.ok, bad.code, bad.frames_promised, bad.frames_decoded) == (False, "truncated", 50, 28)
    assert bad.at_seconds == pytest.approx(2.8)
    assert (same.ok, same.code) == (True, "duplicate")
    assert same.same_as is not None
    assert same.same_as.endswith("part_0.mp4")


@pytest.mark.slow
@pytest.mark.shared
def test_nothing_is_wrong_with_the_videos_of_weizmann(shared: Path, found: Callable[..., Audit]) -> None:
    checked = found(read("folder", shared / "dataset" / "weizmann", "all"), workers=2, compare=True)
    assert len(checked.findings) == 90
    assert [finding for finding in checked.findings if finding.code] == []
