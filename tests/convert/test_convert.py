"""Converted data sets read as the videos did, by the same names, frames and times; what does not is not kept."""

import json
import multiprocessing.synchronize
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import simplejpeg
from av.video.frame import PictureType
from tests.forked import ForkedCommand
from torch.nn.functional import interpolate

from squares import square
from ssan.cli.main import status
from ssan.convert import forms
from ssan.convert.convert import convert
from ssan.convert.forms import Settings
from ssan.convert.optical_flow import as_pictures, flow_between
from ssan.convert.workers import in_processes
from ssan.datasets import read
from ssan.datasets.tree import find_videos
from ssan.errors import SsanError, UsageError, VideoError
from ssan.video.clip import Clip
from ssan.video.clip_file import ClipFile
from ssan.video.reader import open_video, read_clip

HEIGHT, WIDTH, BITS = 46, 98, 7
# Of one.mkv, in seconds: it begins late, and its frames come unevenly.
TIMES = [0.3, 0.4, 0.9, 1.0, 1.3, 1.9, 2.0, 2.1, 2.2, 3.0, 3.1]
SETTINGS = {
    "video": Settings("video", short_side_px=23),
    "jpeg": Settings("jpeg", short_side_px=23),
    "clips": Settings("clips", short_side_px=23),
}


def numbered(number: int, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """A picture of columns, bright where a bit of the number is 1, the lowest bit on the left."""
    bright = np.uint8([[230 if number >> bit & 1 else 25 for bit in range(BITS)]])
    picture = np.repeat(np.repeat(bright, height, 0), width // BITS, 1)
    return np.ascontiguousarray(picture[..., None].repeat(3, 2))


def numbers_in(clip: Clip) -> list[int]:
    columns = interpolate(clip.frames.float(), (1, BITS), mode="area").mean(1).flatten(1)
    return [sum(int(value > 128) << bit for bit, value in enumerate(frame)) for frame in columns]


def render(path: Path, times: list[float], codec: str = "libx264") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as output:
        stream = output.add_stream(codec, rate=10)
        stream.height, stream.width, stream.pix_fmt = HEIGHT, WIDTH, "yuv420p"
        stream.bit_rate = 400_000
        for number, shown in enumerate(times):
            frame = av.VideoFrame.from_ndarray(numbered(number), format="rgb24")
            frame.pts, frame.time_base = round(shown * 10), Fraction(1, 10)
            output.mux(stream.encode(frame))
        output.mux(stream.encode())
    return path


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes: files of two kinds, and a folder of frames; annotations beside them."""
    root = tmp_path_factory.mktemp("rendered")
    render(root / "run" / "one.mkv", TIMES)
    render(root / "run" / "two.avi", [number / 10 for number in range(13)], "mpeg4")
    frames = root / "walk" / "three"
    frames.mkdir(parents=True)
    for number in range(5):
        data = simplejpeg.encode_jpeg(numbered(number, 20, 28), colorspace="RGB")
        (frames / f"img_{number}.jpg").write_bytes(data)
    (frames / "notes.txt").write_text("about the frames")
    (root / "list.csv").write_text("path,label\nrun/one.mkv,run\nrun/two.avi,run\nwalk/three,walk\n")
    return root


@pytest.fixture
def source(rendered: Path, tmp_path: Path) -> Path:
    shutil.copytree(rendered, tmp_path / "source")
    return tmp_path / "source"


def dest_of(form: str, tmp_path: Path) -> str:
    return str(tmp_path / ("copy.clips" if form == "clips" else "copy"))


def fields(summary: Any) -> list[int]:
    return [summary.num_videos, summary.num_converted, summary.num_unchanged, len(summary.failed)]


# --- what comes out


@pytest.mark.parametrize("form", SETTINGS)
def test_copies_have_the_names_the_frames_and_the_times_of_the_videos(form: str, source: Path, tmp_path: Path) -> None:
    dest = dest_of(form, tmp_path)
    summary = convert(str(source), dest, SETTINGS[form])
    assert fields(summary) == [3, 3, 0, 0]
    assert summary.bytes > 0
    videos, copies = (read("folder", root, "all") for root in (str(source), dest))
    assert [(s.id, s.label, s.label_index) for s in copies] == [(s.id, s.label, s.label_index) for s in videos]
    for video, copy in zip(videos, copies, strict=True):
        before, after = read_clip(video.path, range), read_clip(copy.path, range)
        assert numbers_in(after) == numbers_in(before) == list(range(len(before.indices)))
        assert after.times_seconds == pytest.approx(before.times_seconds, abs=1e-4), "the start is kept too"
        assert after.duration_seconds == pytest.approx(before.duration_seconds, abs=1e-3)
        small = video.id == "walk/three"  # 28 x 20 is never enlarged
        expected = (20, 28) if small else (22, 48) if form == "video" else (23, 49)
        assert after.frames.shape[2:] == expected
    # By the annotations, which still say .mkv and .avi.
    table = [str(source / "list.csv")] if form == "clips" else [f"{dest}/list.csv"]
    listed = read("csv", table[0], "all", videos=dest)
    assert [sample.exists for sample in listed] == [True] * 3
    assert summary.num_annotations == (0 if form == "clips" else 1)
    assert form == "clips" or sorted(os.listdir(dest)) == ["converted.jsonl", "list.csv", "run", "walk"]


def test_a_video_is_h264_in_short_groups_without_b_frames_and_its_colours_stay(tmp_path: Path) -> None:
    colours = np.uint8([(255, 0, 0), (0, 255, 0), (0, 0, 255), (200, 130, 40)])
    picture = np.ascontiguousarray(colours.repeat(16, 0)[None].repeat(32, 0))
    folder = tmp_path / "source" / "a"
    folder.mkdir(parents=True)
    for number in range(20):  # nothing moves: an encoder left to itself makes one group of it, mostly of B frames
        (folder / f"{number}.jpg").write_bytes(simplejpeg.encode_jpeg(picture, 100, "RGB", "444"))
    convert(str(tmp_path / "source"), str(tmp_path / "copy"), Settings("video", short_side_px=256))
    with av.open(str(tmp_path / "copy" / "a.mp4")) as container:
        assert [stream.type for stream in container.streams] == ["video"]
        assert container.streams.video[0].codec_context.name == "h264"
        frames = list(container.decode(video=0))
    assert "B" not in {PictureType(frame.pict_type).name for frame in frames}
    keys = [number for number, frame in enumerate(frames) if frame.key_frame]
    assert max(np.diff([*keys, 20])) <= 8
    copied = read_clip(tmp_path / "copy" / "a.mp4", range).frames.numpy().astype(int)
    middles = copied[:, :, 16, 8::16].transpose(0, 2, 1)  # frames, stripes, colours
    assert np.abs(middles - colours).max() <= 8


def test_narrow_videos_are_encoded_without_what_makes_their_bytes_differ_from_run_to_run(tmp_path: Path) -> None:
    render(tmp_path / "source" / "a.mkv", TIMES)
    convert(str(tmp_path / "source"), str(tmp_path / "narrow"), Settings("video", short_side_px=20))
    assert b" mbtree=0 " in (tmp_path / "narrow" / "a.mp4").read_bytes()
    wide = tmp_path / "wide" / "b"
    wide.mkdir(parents=True)
    for number in range(2):
        (wide / f"{number}.jpg").write_bytes(simplejpeg.encode_jpeg(numbered(number).repeat(6, 1).copy(), 100, "RGB"))
    convert(str(tmp_path / "wide"), str(tmp_path / "copy"), Settings("video"))
    assert b" mbtree=1 " in (tmp_path / "copy" / "b.mp4").read_bytes(), "wider ones keep the encoder's own choice"


def test_frames_are_numbered_from_1_and_know_when_they_are_shown(source: Path, tmp_path: Path) -> None:
    dest = tmp_path / "copy"
    assert status(["data", "frames", str(source), str(dest), "--height", "23", "--workers", "1", "--quiet"]) == 0
    folder = dest / "run" / "one"
    assert sorted(os.listdir(folder)) == [".times.json", *(f"{number:05d}.jpg" for number in range(1, 12))]
    assert read_clip(folder, lambda n: [0]).frames.shape[2:] == (23, 49)
    (folder / "00003.jpg").unlink()
    clip = read_clip(folder, range)
    assert clip.times_seconds == pytest.approx([shown for shown in TIMES if shown != 0.9], abs=1e-6)
    assert open_video(folder, frames_per_second=4).duration_seconds == pytest.approx(10 / 4)
    shutil.copy(folder / "00001.jpg", folder / "00012.jpg")
    with pytest.raises(VideoError, match=r"no time of the frame '00012\.jpg'"):
        open_video(folder)
    (folder / "00012.jpg").unlink()
    for wrong in ("", "{}", '{"frames": []}', '{"frames": {"00001.jpg": [NaN, 1]}}', '{"frames": {"00001.jpg": 1}}'):
        (folder / ".times.json").write_text(wrong)
        with pytest.raises(VideoError, match="remove this file"):
            open_video(folder)
    (folder / ".times.json").unlink()
    assert open_video(folder).duration_seconds == pytest.approx(10 / 12)


def test_frames_keep_their_size_unless_a_height_is_given(source: Path, tmp_path: Path) -> None:
    assert status(["data", "frames", str(source), str(tmp_path / "copy"), "--workers", "1", "--quiet"]) == 0
    assert read_clip(tmp_path / "copy" / "run" / "one", lambda n: [0]).frames.shape[2:] == (HEIGHT, WIDTH)


def test_a_clip_file_becomes_files_again(source: Path, tmp_path: Path) -> None:
    convert(str(source), str(tmp_path / "copy.clips"), SETTINGS["clips"])
    assert fields(convert(str(tmp_path / "copy.clips"), str(tmp_path / "copy"), SETTINGS["jpeg"])) == [3, 3, 0, 0]
    clip = read_clip(tmp_path / "copy" / "run" / "one", range)
    assert clip.times_seconds == pytest.approx(TIMES)
    assert numbers_in(clip) == list(range(11))


# --- again


@pytest.mark.parametrize("form", SETTINGS)
def test_run_again_only_what_is_new_or_changed_is_converted(form: str, source: Path, tmp_path: Path) -> None:
    dest = dest_of(form, tmp_path)
    convert(str(source), dest, SETTINGS[form])
    assert fields(convert(str(source), dest, SETTINGS[form])) == [3, 0, 3, 0]
    render(source / "walk" / "four.mkv", TIMES[:3])
    render(source / "run" / "one.mkv", TIMES[:7])
    assert fields(convert(str(source), dest, SETTINGS[form])) == [4, 2, 2, 0]
    counts = {sample.id: open_video(sample.path).num_frames for sample in read("folder", dest, "all")}
    assert counts == {"run/one": 7, "run/two": 13, "walk/four": 3, "walk/three": 5}
    (source / "run" / "two.avi").unlink()
    assert convert(str(source), dest, SETTINGS[form]).num_stale == 1


@pytest.mark.parametrize("form", ["video", "jpeg"])
def test_a_copy_that_was_damaged_is_made_again(form: str, source: Path, tmp_path: Path) -> None:
    convert(str(source), str(tmp_path / "copy"), SETTINGS[form])
    victim = tmp_path / "copy" / "run" / ("one.mp4" if form == "video" else "one/00004.jpg")
    victim.write_bytes(victim.read_bytes()[:-1])
    assert fields(convert(str(source), str(tmp_path / "copy"), SETTINGS[form])) == [3, 1, 2, 0]
    assert len(read_clip(find_videos(tmp_path / "copy")[0], range).indices) == 11


def test_other_settings_than_before_are_refused_and_both_are_shown(source: Path, tmp_path: Path) -> None:
    convert(str(source), str(tmp_path / "copy"), SETTINGS["jpeg"])
    with pytest.raises(UsageError) as caught:
        convert(str(source), str(tmp_path / "copy"), Settings("jpeg", short_side_px=31, quality=80))
    assert '"short_side_px": 23, "quality": 95' in caught.value.message
    assert '"short_side_px": 31, "quality": 80' in caught.value.message


def test_a_clip_file_that_is_not_the_manifests_is_left_alone(source: Path, tmp_path: Path) -> None:
    convert(str(source), str(tmp_path / "copy.clips"), SETTINGS["clips"])
    convert(str(source / "run"), str(tmp_path / "other.clips"), SETTINGS["clips"])
    shutil.copy(tmp_path / "other.clips", tmp_path / "copy.clips")
    with pytest.raises(UsageError, match="other videos than its manifest"):
        convert(str(source), str(tmp_path / "copy.clips"), SETTINGS["clips"])
    assert set(ClipFile(tmp_path / "copy.clips").entries) == {"one", "two"}


# Whoever runs the tests may ignore Ctrl-C, as a job in the background does; what it starts then ignores it too.
PROGRAM = (
    "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
    "from ssan.cli.main import status; sys.exit(status(sys.argv[1:]))"
)


def begin(source: Path, dest: str) -> ForkedCommand:
    return ForkedCommand(
        [sys.executable, "-c", PROGRAM, "data", "resize", str(source), dest, "--to", "clips", "--workers", "1"],
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for_lines(manifest: str, count: int) -> None:
    until = time.monotonic() + 60
    while not os.path.exists(manifest) or Path(manifest).read_bytes().count(b"\n") < count:
        assert time.monotonic() < until
        time.sleep(0.002)


@pytest.mark.slow
def test_killed_or_interrupted_it_goes_on_where_it_was(source: Path, tmp_path: Path) -> None:
    for number in range(60):
        shutil.copy(source / "run" / "two.avi", source / "run" / f"more_{number}.avi")
    dest = str(tmp_path / "copy.clips")
    manifest = f"{dest}.jsonl"
    killed = begin(source, dest)
    wait_for_lines(manifest, 4)
    killed.kill()
    killed.communicate()
    with open(manifest, "ab") as handle:
        handle.write(b'{"name": "run/half a li')
    (tmp_path / ".copy.clips.pixels.7").touch()
    (tmp_path / "..copy.clips.pixels.5.123.part").touch()
    before = Path(manifest).read_bytes().count(b"\n")
    interrupted = begin(source, dest)
    wait_for_lines(manifest, before + 3)
    interrupted.send_signal(signal.SIGINT)
    said = interrupted.communicate()[1]
    assert "Traceback" not in said
    assert "ssan: interrupted; what is converted is kept" in said
    assert interrupted.returncode == 130
    assert not os.path.exists(dest), "what is not whole does not have its name"
    done = Path(manifest).read_bytes().count(b"\n") - 1
    assert 6 <= done < 63
    summary = convert(str(source), dest, Settings("clips", short_side_px=256))
    assert fields(summary) == [63, 63 - done, done, 0]
    assert [open_video(sample.path).num_frames for sample in read("folder", dest, "all")] == [13] * 60 + [11, 13, 5]
    assert not [path for path in tmp_path.rglob("*") if path.name.endswith(".part") or ".pixels." in path.name]


def test_what_a_killed_process_left_is_no_video_and_goes(source: Path, tmp_path: Path) -> None:
    convert(str(source), str(tmp_path / "copy"), SETTINGS["jpeg"])
    videos = find_videos(tmp_path / "copy")
    left = tmp_path / "copy" / "run" / ".one.123.new.part"
    shutil.copytree(tmp_path / "copy" / "run" / "one", left)
    (tmp_path / "copy" / "run" / ".one.mp4.123.part").touch()
    assert find_videos(tmp_path / "copy") == videos
    assert fields(convert(str(source), str(tmp_path / "copy"), SETTINGS["jpeg"])) == [3, 0, 3, 0]
    assert sorted(os.listdir(tmp_path / "copy" / "run")) == ["one", "two"]


@pytest.mark.slow
def test_with_several_processes_the_same_comes_out(source: Path, tmp_path: Path) -> None:
    shutil.copy(source / "list.csv", source / "run" / "broken.mp4")
    one, two = (
        convert(str(source), str(tmp_path / f"{workers}.clips"), SETTINGS["clips"], workers=workers)
        for workers in (1, 2)
    )
    assert fields(one) == fields(two) == [4, 3, 0, 1]
    assert [error.as_dict() for error in one.failed] == [error.as_dict() for error in two.failed]
    for path in find_videos(tmp_path / "1.clips"):
        same = read_clip(path.replace("1.clips", "2.clips"), range)
        assert np.array_equal(read_clip(path, range).frames, same.frames)


@pytest.mark.slow
@pytest.mark.parametrize("form", SETTINGS)
def test_of_two_at_once_the_later_is_refused_in_one_line_and_the_first_is_unharmed(
    form: str, source: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    dest = dest_of(form, tmp_path)
    arguments = ["data", "resize", str(source), dest, "--to", form, "--short-side", "23", "--workers", "1"]
    honest, refused = forms.FORMS[form], []

    def write(frames: Any, path: str, settings: Settings) -> None:
        capfd.readouterr()
        refused.append((status(arguments), capfd.readouterr().err))
        honest.write(frames, path, settings)

    monkeypatch.setitem(forms.FORMS, form, replace(honest, write=write))
    assert fields(convert(str(source), dest, SETTINGS[form])) == [3, 3, 0, 0]
    assert len(refused) == 3
    for code, said in refused:
        assert code == 2
        assert said.startswith(f"ssan: {dest}: it is being written by process {os.getpid()} since")
        assert said.count("\n") == 1
    monkeypatch.undo()
    assert status([*arguments, "--quiet"]) == 0
    assert [open_video(sample.path).num_frames for sample in read("folder", dest, "all")] == [11, 13, 5]
    assert not [path for path in tmp_path.rglob(".*") if path.name != ".times.json"]


def test_a_lock_that_a_killed_process_has_left_is_none_and_makes_a_folder_not_anothers(
    source: Path, tmp_path: Path
) -> None:
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy" / ".lock").write_text("1 2001-02-03 04:05:06 elsewhere")
    assert fields(convert(str(source), str(tmp_path / "copy"), SETTINGS["jpeg"])) == [3, 3, 0, 0]
    assert sorted(os.listdir(tmp_path / "copy")) == ["converted.jsonl", "list.csv", "run", "walk"]


def test_videos_that_two_processes_have_written_over_each_other_are_made_again(source: Path, tmp_path: Path) -> None:
    """As those could that knew no lock: two manifests in one, whose videos lie at the same places."""
    dest = str(tmp_path / "copy.clips")
    convert(str(source), dest, SETTINGS["clips"])
    lines = [json.loads(line) for line in Path(f"{dest}.jsonl").read_text().splitlines()]
    one, two = (next(line for line in lines[1:] if line["name"] == name) for name in ("run/one", "run/two"))
    one["clip"]["offset"] = two["clip"]["offset"] + 7
    Path(f"{dest}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(UsageError, match=rf"remove both, {dest} and {dest}\.jsonl"):
        convert(str(source), dest, SETTINGS["clips"])
    os.rename(dest, f"{dest}.part")
    assert fields(convert(str(source), dest, SETTINGS["clips"])) == [3, 2, 1, 0]
    for sample in read("folder", str(source), "all"):
        copy = read_clip(f"{dest}/{sample.id}", range)
        assert numbers_in(copy) == numbers_in(read_clip(sample.path, range))


def test_a_clip_file_of_version_1_is_gone_on_with(source: Path, tmp_path: Path) -> None:
    dest = str(tmp_path / "copy.clips")
    convert(str(source), dest, SETTINGS["clips"])
    opened = ClipFile(dest)
    lines = [json.loads(line) for line in Path(f"{dest}.jsonl").read_text().splitlines()]
    for line in lines[1:]:
        frames = opened.frames(opened.entries[line["name"]])
        for field in ("frames_at", "frames_crc32"):
            del line["clip"][field]
        line["clip"] |= {
            "times_seconds": frames.times_seconds.tolist(), "durations_seconds": frames.durations_seconds.tolist(),
        }  # fmt: skip
    Path(f"{dest}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert fields(convert(str(source), dest, SETTINGS["clips"])) == [3, 0, 3, 0]
    render(source / "walk" / "four.mkv", TIMES[:3])
    assert fields(convert(str(source), dest, SETTINGS["clips"])) == [4, 1, 3, 0]
    assert fields(convert(str(source), dest, SETTINGS["clips"])) == [4, 0, 4, 0]
    assert read_clip(f"{dest}/run/one", range).times_seconds == pytest.approx(TIMES)
    assert len(ClipFile(dest).entries) == 4


# --- several processes


@pytest.mark.slow
def test_work_of_several_processes_comes_back_whole_and_leaves_no_semaphores(
    capfd: pytest.CaptureFixture[str],
) -> None:
    made = []
    named = multiprocessing.synchronize.SemLock

    class Counted(named):  # type: ignore[valid-type, misc]
        def __init__(self, *given: Any, **more: Any) -> None:
            made.append(self)
            super().__init__(*given, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(multiprocessing.synchronize, "SemLock", Counted)
        assert sorted(in_processes(square, range(6), 2)) == [0, 1, 4, 9, 16, 25]
    assert made == []
    with pytest.raises(VideoError, match="seven") as caught:
        list(in_processes(square, [7], 1))
    assert (caught.value.code, caught.value.path) == ("empty", "7.mp4")
    with pytest.raises(SsanError, match="a worker process was ended from outside"):
        list(in_processes(square, [1, 13, 2], 2))
    assert "Traceback" not in capfd.readouterr().err


# --- what goes wrong


@pytest.mark.parametrize("form", SETTINGS)
def test_a_name_as_long_as_names_may_be_is_converted_or_listed_and_stops_nothing(
    form: str, source: Path, tmp_path: Path
) -> None:
    shutil.copy(source / "run" / "two.avi", source / "run" / ("\u6f22" * 83 + ".avi"))
    shutil.copy(source / "run" / "two.avi", source / "run" / f"{'x' * 252}.ts")
    shutil.move(source / "list.csv", source / ("\u6f22" * 83 + ".csv"))
    summary = convert(str(source), dest_of(form, tmp_path), SETTINGS[form])
    too_long = form == "video"  # .mp4 is longer than .ts
    assert fields(summary) == [5, 5 - too_long, 0, too_long]
    assert [Path(error.path or "").name for error in summary.failed] == [f"{'x' * 252}.ts"] * too_long
    assert len(read("folder", dest_of(form, tmp_path), "all")) == 5 - too_long


def test_annotations_that_link_out_of_the_folder_or_are_no_files_are_told_and_not_copied(
    source: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "secret").write_text("of somebody else")
    (source / "labels.txt").symlink_to(tmp_path / "secret")
    (source / "zero.txt").symlink_to("/dev/zero")
    (source / "gone.json").symlink_to(tmp_path / "gone")
    (source / "again.csv").symlink_to("list.csv")
    os.mkfifo(source / "pipe.json")
    arguments = ["data", "resize", str(source), str(tmp_path / "copy"), "--to", "jpeg", "--workers", "1", "--json"]
    assert status(arguments) == 1
    answer = json.loads(capfd.readouterr().out)
    assert {Path(error["path"]).name: error["code"] for error in answer["not_copied"]} == {
        "labels.txt": "path_escape", "zero.txt": "path_escape", "gone.json": "path_escape", "pipe.json": "missing",
    }  # fmt: skip
    assert (answer["num_converted"], answer["num_failed"], answer["num_annotations"]) == (3, 0, 2)
    assert sorted(os.listdir(tmp_path / "copy")) == ["again.csv", "converted.jsonl", "list.csv", "run", "walk"]
    assert (tmp_path / "copy" / "again.csv").read_text() == (source / "list.csv").read_text()


def test_videos_that_do_not_read_are_listed_and_a_truncated_one_goes_as_far_as_it_decodes(
    source: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (source / "run" / "text.mp4").write_text("no video")
    (source / "run" / "zero.webm").touch()
    shutil.copy(source / "run" / "two.avi", source / "run" / "one.avi")  # would be one.mp4 too
    with av.open(str(source / "walk" / "cut.mp4"), "w", options={"movflags": "faststart"}) as output:
        stream = output.add_stream("libx264", rate=10, options={"bf": "0"})
        stream.height, stream.width, stream.pix_fmt = HEIGHT, WIDTH, "yuv420p"
        for number in range(60):
            output.mux(stream.encode(av.VideoFrame.from_ndarray(numbered(number), format="rgb24")))
        output.mux(stream.encode())
    data = (source / "walk" / "cut.mp4").read_bytes()
    (source / "walk" / "cut.mp4").write_bytes(data[: len(data) * 2 // 3])
    for again in (False, True):
        capfd.readouterr()
        arguments = ["data", "resize", str(source), str(tmp_path / "copy"), "--workers", "1", "--json"]
        assert status(arguments) == 1
        answer = json.loads(capfd.readouterr().out)
        assert {Path(error["path"]).name: error["code"] for error in answer["failed"]} == {
            "one.mkv": "duplicate",
            "text.mp4": "not_video",
            "zero.webm": "empty",
        }
        assert [(Path(error["path"]).name, error["code"]) for error in answer["truncated"]] == [
            ("cut.mp4", "truncated")
        ]
        counts = [answer[f"num_{what}"] for what in ("videos", "converted", "unchanged", "failed", "truncated")]
        assert counts == ([7, 0, 4, 3, 1] if again else [7, 4, 0, 3, 1])
    clip = read_clip(tmp_path / "copy" / "walk" / "cut.mp4", range)
    assert 5 < clip.num_frames == clip.num_promised < 60
    assert numbers_in(clip) == list(range(clip.num_frames))


def _given(clip: Clip, pixels: np.ndarray, times: Sequence[float]) -> tuple[Clip, np.ndarray]:
    count = len(times)
    durations = clip.durations_seconds[:count]
    return Clip(clip.frames[:count], clip.indices[:count], tuple(times), durations, 0, 0, 0.0, ""), pixels[:count]


def _without_a_frame(clip: Clip, pixels: np.ndarray) -> tuple[Clip, np.ndarray]:
    return _given(clip, pixels, clip.times_seconds[:-1])


def _late(clip: Clip, pixels: np.ndarray) -> tuple[Clip, np.ndarray]:
    times = list(clip.times_seconds)
    times[2] += 0.06  # more than half of the tenth of a second for which it is shown
    return _given(clip, pixels, times)


@pytest.mark.parametrize(("harm", "says"), [(_without_a_frame, "has 12 frames and the video 13"), (_late, "frame 2")])
@pytest.mark.parametrize("form", ["video", "jpeg"])
def test_a_copy_that_is_not_as_the_video_is_not_kept(
    form: str, harm: Any, says: str, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (source / "run" / "one.mkv").unlink()
    shutil.rmtree(source / "walk")
    honest = forms.FORMS[form]

    def write(frames: Any, path: str, settings: Settings) -> None:
        class Harmed:
            frames_per_second, video = frames.frames_per_second, frames.video

            def __iter__(self) -> Iterator[Any]:
                return (harm(*given) for given in frames)

        honest.write(Harmed(), path, settings)  # type: ignore[arg-type]

    monkeypatch.setitem(forms.FORMS, form, replace(honest, write=write))
    summary = convert(str(source), str(tmp_path / "copy"), SETTINGS[form])
    assert fields(summary) == [1, 0, 0, 1]
    assert says in summary.failed[0].message
    assert os.listdir(tmp_path / "copy" / "run") == []


@pytest.mark.parametrize("form", ["jpeg", "clips"])
def test_a_full_disk_says_so_and_leaves_nothing_half_written(form: str, source: Path, tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    read_clip(source / "run" / "one.mkv", range)  # the reader has its own memory by now
    big = simplejpeg.encode_jpeg(np.random.default_rng(0).integers(0, 256, (301, 401, 3), np.uint8), 95, "RGB", "444")
    (source / "walk" / "three" / "img_0.jpg").write_bytes(big)
    dest = dest_of(form, tmp_path)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (70_000, before[1]))
    try:
        with pytest.raises(SsanError) as caught:
            convert(str(source), dest, Settings(form))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert caught.value.code == "no_space"
    assert not [path for path in tmp_path.rglob("*") if path.name.endswith(".jpg.part") or ".pixels." in path.name]
    assert fields(convert(str(source), dest, Settings(form)))[3] == 0
    assert sorted(sample.id for sample in read("folder", dest, "all")) == ["run/one", "run/two", "walk/three"]


def test_places_that_would_mix_or_destroy_are_refused(source: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").touch()
    (tmp_path / "nothing").mkdir()
    cases = [
        (source, tmp_path / "mine", "jpeg", "not made here"),
        (source, source / "copy", "jpeg", "apart from the videos"),
        (source / "run", source, "jpeg", "apart from the videos"),
        (source, tmp_path / "copy", "clips", "ends in .clips"),
        (source, tmp_path / "copy.clips", "jpeg", "ends in .clips"),
        (source, source / "list.csv", "jpeg", "a file where a folder"),
        (source / "walk" / "three", tmp_path / "copy", "jpeg", "frames of one video"),
        (source / "none", tmp_path / "copy", "jpeg", "no such folder"),
        (tmp_path / "nothing", tmp_path / "copy", "jpeg", "no videos"),
    ]
    for place, dest, form, says in cases:
        with pytest.raises(UsageError, match=says):
            convert(str(place), str(dest), SETTINGS[form])
    for wrong in ({"quality": 0}, {"quality": 101}, {"bound": 0.0}, {"bound": float("nan")}):
        with pytest.raises(UsageError, match="expected"):
            Settings("flow", **wrong)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="no quality"):
        Settings("clips", quality=3)


def test_without_libx264_the_other_forms_are_named(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(name: str, mode: str) -> None:
        raise av.codec.codec.UnknownCodecError(name)

    monkeypatch.setattr(av.codec, "Codec", unknown)
    with pytest.raises(UsageError, match=r"no libx264.*--to jpeg or --to clips"):
        convert(str(source), str(tmp_path / "copy"), SETTINGS["video"])


# --- optical flow


def test_motion_becomes_grey_linearly_and_more_than_the_bound_counts_as_the_bound() -> None:
    flow = np.array([[[-30.0, 0.0], [10.0, 20.0], [-20.0, -5.0]]])
    x, y = as_pictures(flow, 20.0)
    assert x.tolist() == [[0, 191, 0]]  # 30 / 40 of 255 is 191.25
    assert y.tolist() == [[128, 255, 96]]  # 127.5 and 95.6


def test_without_opencv_the_command_says_how_to_get_it(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    assert status(["data", "flow", str(source), str(tmp_path / "copy")]) == 2
    assert "pip install 'ssan[flow]'" in capfd.readouterr().err
    assert not (tmp_path / "copy").exists()


def _textured(count: int) -> np.ndarray:
    """Frames (t, 90, 120, 3) of a smooth texture that moves 3 pixels to the right and 2 up from each to the next."""
    rng = np.random.default_rng(3)
    y, x = np.mgrid[0:90, 0:120].astype(float)
    waves = [(rng.uniform(0.1, 0.5), rng.uniform(0.1, 0.5), rng.uniform(0, 6)) for _ in range(9)]
    frames = []
    for number in range(count):
        shade = sum(np.sin(a * (x - 3 * number) + b * (y + 2 * number) + c) for a, b, c in waves)
        frames.append(np.clip(128 + 25 * np.asarray(shade), 0, 255).astype(np.uint8)[..., None].repeat(3, 2))
    return np.stack(frames)


@pytest.mark.parametrize("method", ["dis", "tvl1", "farneback"])
def test_flow_of_a_known_translation_is_that_translation(method: str) -> None:
    cv2 = pytest.importorskip("cv2", reason="OpenCV is not installed: pip install 'ssan[flow]'")
    if method == "tvl1" and not hasattr(cv2, "optflow"):
        pytest.skip("this OpenCV has no contrib part, in which TV-L1 is")
    flow = flow_between(method)(*_textured(2))
    assert np.median(flow[..., 0]) == pytest.approx(3, abs=0.2)
    assert np.median(flow[..., 1]) == pytest.approx(-2, abs=0.2)


def test_flow_files_lie_as_tsn_has_them(tmp_path: Path) -> None:
    pytest.importorskip("cv2", reason="OpenCV is not installed: pip install 'ssan[flow]'")
    (tmp_path / "source" / "a").mkdir(parents=True)
    for number, picture in enumerate(_textured(4)):
        (tmp_path / "source" / "a" / f"{number}.jpg").write_bytes(simplejpeg.encode_jpeg(picture, 98, "RGB", "444"))
    arguments = ["data", "flow", str(tmp_path / "source"), str(tmp_path / "copy"), "--bound", "10", "--workers", "1"]
    assert status(arguments) == 0
    folder = tmp_path / "copy" / "a"
    assert sorted(os.listdir(folder)) == [f"flow_{axis}_{number:05d}.jpg" for axis in "xy" for number in (1, 2, 3)]
    for axis, expected in (("x", 127.5 + 3 * 12.75), ("y", 127.5 - 2 * 12.75)):
        grey = simplejpeg.decode_jpeg((folder / f"flow_{axis}_00002.jpg").read_bytes(), colorspace="GRAY")
        assert grey.shape == (90, 120, 1)
        assert np.median(grey) == pytest.approx(expected, abs=3)
    settings = json.loads((tmp_path / "copy" / "converted.jsonl").read_text().splitlines()[0])["settings"]
    assert settings == {"form": "flow", "quality": 95, "method": "dis", "bound": 10}
