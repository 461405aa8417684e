"""Folders of frames, and files that pose as pictures or videos: what is read, by which names and times."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import simplejpeg

from ssan.datasets import source as source_module
from ssan.datasets.source import DataSource
from ssan.errors import UsageError, VideoError
from ssan.video.clip import RATE_VARIABLE, TIMES_FILE
from ssan.video.picture import read_picture
from ssan.video.reader import open_video


def frames_in(folder: Path, *names: str) -> Path:
    folder.mkdir(parents=True)
    for number, name in enumerate(names):
        picture = np.full((16, 24, 3), 4 * number % 256, np.uint8)
        (folder / name).write_bytes(simplejpeg.encode_jpeg(picture, colorspace="RGB"))
    return folder


# ------------------------------------------------------------------------------------------------------ names, times


def test_two_frames_of_one_number_are_refused_as_nothing_says_which_comes_first(tmp_path: Path) -> None:
    folder = frames_in(tmp_path / "v", "img_1.jpg", "img_01.jpg", "img_2.jpg")
    with pytest.raises(VideoError, match=r"'img_0?1\.jpg' and 'img_0?1\.jpg'") as caught:
        open_video(folder)
    assert (caught.value.code, caught.value.path) == ("duplicate", str(folder))


def test_a_frame_of_a_huge_number_is_a_gap_and_no_end_of_the_check(tmp_path: Path) -> None:
    names = [f"{number:05d}.jpg" for number in (1, 2, 3, 4)]
    with open_video(frames_in(tmp_path / "v", *names, f"{10**26 - 1}.jpg")) as video:
        found = video.examine()
    assert found.error is not None
    assert found.error.code == "truncated"
    assert found.frames_promised == 10**26 - 1


@pytest.mark.parametrize("time", ["1" + "0" * 400, "1e308", "-1e308", "1e400", '"x"', "[]"])
def test_times_that_are_none_are_refused_in_one_line(time: str, tmp_path: Path) -> None:
    folder = frames_in(tmp_path / "v", "1.jpg", "2.jpg")
    (folder / TIMES_FILE).write_text(f'{{"frames": {{"1.jpg": [0, 1], "2.jpg": [{time}, {time}]}}}}')
    with pytest.raises(VideoError, match="not when frames are shown") as caught:
        open_video(folder)
    assert (caught.value.code, caught.value.path) == ("decode_error", str(folder / TIMES_FILE))


@pytest.fixture
def with_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A list with parts in seconds of a folder of 60 frames, which does not say how many frames a second it has."""
    frames_in(tmp_path / "v", *(f"{number}.jpg" for number in range(60)))
    (tmp_path / "list.csv").write_text("path,label,id,start_seconds,end_seconds\nv,a,1,1,2\nv,b,2,0,1\n")
    monkeypatch.setenv(RATE_VARIABLE, "")
    monkeypatch.setattr(source_module, "_said", False)
    return tmp_path


def test_that_twelve_frames_a_second_are_assumed_is_said_once(
    with_parts: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    source = DataSource(str(with_parts / "list.csv"))
    source.read("all")
    assert open_video(with_parts / "v").span(1, 2) == (12, 24)
    (line,) = capfd.readouterr().err.splitlines()
    assert "12 are assumed" in line
    assert "--reader frames_per_second=N" in line
    source.read("all")
    assert capfd.readouterr().err == ""


def test_the_rate_of_folders_that_do_not_say_it_is_an_option_which_holds_for_what_is_read(
    with_parts: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    source = DataSource(str(with_parts / "list.csv"), options={"frames_per_second": "25"})
    assert len(source.read("all")) == 2
    assert open_video(with_parts / "v").span(1, 2) == (25, 50)
    assert open_video(with_parts / "v", frames_per_second=10).span(1, 2) == (10, 20)
    assert capfd.readouterr().err == ""
    times = {f"{number}.jpg": [number / 5, 0.2] for number in range(60)}
    (with_parts / "v" / TIMES_FILE).write_text(json.dumps({"frames": times}))
    assert open_video(with_parts / "v").span(1, 2) == (5, 10)


@pytest.mark.parametrize("rate", ["fast", "0", "-1", "nan", "inf"])
def test_a_rate_that_is_none_is_refused(rate: str, with_parts: Path) -> None:
    with pytest.raises(UsageError, match=f"frames_per_second is '{rate}'; expected a number above 0"):
        DataSource(str(with_parts / "list.csv"), options={"frames_per_second": rate}).read("all")


# -------------------------------------------------------------------------------------- what poses as something else

SDP = "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video {} RTP/AVP 96\na=rtpmap:96 H264/90000\n"
LISTS = {
    "sdp": SDP.format(45_678),
    "concat": "ffconcat version 1.0\nfile 'beside.jpg'\n",
    "concat of a pipe": "ffconcat version 1.0\nfile 'pipe'\n",
    "hls": "#EXTM3U\n#EXT-X-TARGETDURATION:3\n#EXTINF:3,\npipe\n#EXT-X-ENDLIST\n",
    "rtsp": "[Reference]\nRef1=rtsp://127.0.0.1:9/a\n",
    "imf": "<?xml version='1.0'?><CompositionPlaylist xmlns='http://www.smpte-ra.org/schemas/2067-3/2016'/>",
    "text": "hello\n" * 50,
}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
@pytest.mark.parametrize("kind", LISTS)
def test_a_list_that_poses_as_a_picture_or_a_video_leads_nowhere(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each leads to a file beside it, to a pipe where it would wait, or to a port."""
    folder = frames_in(tmp_path / "v", "beside.jpg")
    monkeypatch.chdir(folder)
    os.mkfifo(folder / "pipe")
    for name, code in (("1.jpg", "decode_error"), ("1.png", "decode_error"), ("a.mp4", "not_video")):
        (folder / name).write_text(LISTS[kind])
        look = (lambda path: open_video(path, limit_seconds=20)) if name == "a.mp4" else read_picture
        with pytest.raises(VideoError) as caught:
            look(str(folder / name))
        assert (caught.value.code, caught.value.path) == (code, str(folder / name))
        assert "seconds" not in caught.value.message


def test_a_picture_is_what_it_begins_as_and_a_video_is_none(tmp_path: Path) -> None:
    from PIL import Image

    pixels = np.full((16, 24, 3), 200, np.uint8)
    for kind in ("PNG", "BMP", "GIF", "WEBP", "JPEG"):
        Image.fromarray(pixels).save(tmp_path / "a.jpg", kind)
        read = read_picture(str(tmp_path / "a.jpg"))
        assert read.shape == (16, 24, 3)
        assert np.abs(read.astype(int) - 200).max() <= 3
    for content in (b"\0\0\0\x18ftypisom", b"RIFF\x10\0\0\0AVI LIST", b"P6 1 1 255 abc", b""):
        (tmp_path / "a.jpg").write_bytes(content + bytes(50))
        with pytest.raises(VideoError, match="expected a whole JPEG or PNG file"):
            read_picture(str(tmp_path / "a.jpg"))
