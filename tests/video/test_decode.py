"""Frames come out exactly: every rendered frame shows its own number, as bright and dark columns."""

import os
import random
import shutil
import struct
import wave
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import simplejpeg
import torch
from av.stream import Disposition

from ssan.errors import UsageError, VideoError
from ssan.video.clip import Resize
from ssan.video.decode import VideoFile
from ssan.video.folder import FrameFolder
from ssan.video.picture import read_pictures
from ssan.video.reader import open_video, read_clip

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
HEIGHT, WIDTH, BITS = 48, 112, 7

KINDS = {
    "h264.mp4": ("libx264", {"bf": "3", "g": "12", "preset": "veryfast"}),
    "vp9.webm": ("libvpx-vp9", {"auto-alt-ref": "1", "lag-in-frames": "12", "cpu-used": "8", "deadline": "realtime"}),
    "mpeg4.avi": ("mpeg4", {"bf": "2", "g": "12"}),
    "h264.mkv": ("libx264", {"bf": "2", "g": "300", "preset": "veryfast"}),
    "h264.ts": ("libx264", {"bf": "2", "g": "12", "preset": "veryfast"}),
}


def numbered(number: int) -> np.ndarray:
    """A picture (HEIGHT, WIDTH, 3) of columns, bright where a bit of the number is 1, the lowest bit on the left."""
    bright = [230 if number >> bit & 1 else 25 for bit in range(BITS)]
    return np.ascontiguousarray(
        np.repeat(np.repeat(np.uint8([bright]), HEIGHT, 0), WIDTH // BITS, 1)[..., None].repeat(3, 2)
    )


def number_in(picture: torch.Tensor) -> int:
    """What ``numbered`` wrote, from a picture (3, h, w) of any size."""
    columns = torch.nn.functional.interpolate(picture[None].float(), (1, BITS), mode="area").mean(1).flatten()
    return sum(int(value > 128) << bit for bit, value in enumerate(columns))


def render(path: Path, num_frames: int, *, container: dict[str, str] | None = None, rotation: int = 0) -> Path:
    codec, options = next(kind for name, kind in KINDS.items() if name.split(".")[1] == path.suffix[1:])
    with av.open(str(path), "w", options=container or {}) as output:
        stream = output.add_stream(codec, rate=10, options=dict(options))
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.bit_rate = 400_000
        if rotation:
            stream.set_display_rotation(rotation)
        for number in range(num_frames):
            output.mux(stream.encode(av.VideoFrame.from_ndarray(numbered(number), format="rgb24")))
        output.mux(stream.encode())
    return path


def sequential(path: Path, wanted: Sequence[int] | None = None) -> tuple[list[np.ndarray], int]:
    """All frames (or the wanted ones) of the best stream, decoded from the beginning, turned upright; and their number.

    Written apart from the package: a decoder error ends the video.
    """
    pictures, count = {}, 0
    with av.open(str(path)) as container:
        try:
            for frame in container.decode(container.streams.best("video")):
                if wanted is None or count in wanted:
                    pictures[count] = np.rot90(frame.to_ndarray(format="rgb24"), frame.rotation // 90)
                count += 1
        except av.error.InvalidDataError:
            pass
    return [pictures[index] for index in (range(count) if wanted is None else wanted)], count


def as_pictures(frames: torch.Tensor) -> np.ndarray:
    return frames.permute(0, 2, 3, 1).numpy()


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("videos")
    return {name: render(folder / name, 31) for name in KINDS}


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_every_frame_is_the_one_that_sequential_decoding_gives(videos: dict[str, Path], name: str) -> None:
    reference, count = sequential(videos[name])
    with open_video(videos[name]) as video:
        clip = video.read(range(video.num_frames))
    assert count == 31
    assert clip.num_frames == clip.num_promised == 31
    assert [number_in(frame) for frame in clip.frames] == list(range(31))
    assert np.array_equal(as_pictures(clip.frames), np.stack(reference))


@pytest.mark.parametrize("apart", [True, False])
@pytest.mark.parametrize("name", KINDS)
def test_a_stream_gives_every_frame_once_in_clips_of_bounded_size(
    videos: dict[str, Path], name: str, apart: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not apart:  # the process apart has its own bound, above all of these
        monkeypatch.setattr("ssan.video.clip.STREAM_BYTES", 9 * 24 * 56 * 3)
    with open_video(videos[name], apart=apart) as video:
        whole = video.read(range(31), resize=Resize("exact", 24, 56))
        clips = list(video.stream(resize=Resize("short_side", 24)))
    assert [len(clip.indices) for clip in clips] == ([31] if apart else [9, 9, 9, 4])
    assert torch.equal(torch.cat([clip.frames for clip in clips]), whole.frames)
    for field in ("indices", "times_seconds", "durations_seconds"):
        assert sum((getattr(clip, field) for clip in clips), ()) == getattr(whole, field)


@pytest.mark.parametrize("apart", [True, False])
def test_a_stream_of_a_truncated_file_gives_what_decodes_and_then_says_so(tmp_path: Path, apart: bool) -> None:
    whole = render(tmp_path / "whole.mp4", 60, container={"movflags": "faststart"}).read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) * 2 // 3])
    _, decodable = sequential(tmp_path / "cut.mp4")
    with open_video(tmp_path / "cut.mp4", apart=apart) as video:
        stream = video.stream()
        given = [number_in(frame) for frame in next(stream).frames]
        with pytest.raises(VideoError, match="of 60 announced frames decode") as caught:
            next(stream)
        assert caught.value.code == "truncated"
        assert video.num_frames == decodable
    assert given == list(range(decodable))


@pytest.mark.parametrize("name", KINDS)
def test_frames_come_in_the_order_asked_and_may_repeat(videos: dict[str, Path], name: str) -> None:
    order = [30, 3, 17, 3, 0, 29]
    begin = {"h264.ts": 0.2}.get(name, 0.0)  # a broadcast begins when it begins
    with open_video(videos[name]) as video:
        clip = video.read(order)
    assert [number_in(frame) for frame in clip.frames] == order
    assert clip.indices == tuple(order)
    assert clip.times_seconds == pytest.approx([begin + number / 10 for number in order], abs=0.002)
    assert clip.durations_seconds == pytest.approx([0.1] * 6, abs=0.002)


def test_a_clip_says_how_long_the_video_is_and_keeps_channels_last(videos: dict[str, Path]) -> None:
    for path in videos.values():
        with open_video(path) as video:
            assert video.duration_seconds == pytest.approx(3.1, abs=0.01)
            assert (video.height_px, video.width_px) == (HEIGHT, WIDTH)
            frames = video.read([4, 5]).frames
        assert frames.dtype == torch.uint8
        assert frames.shape == (2, 3, HEIGHT, WIDTH)
        assert frames.is_contiguous(memory_format=torch.channels_last)


def test_times_are_the_ones_in_the_file_where_frames_come_unevenly(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "uneven.mkv"), "w") as output:
        stream = output.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for number, tenths in enumerate((3, 4, 9, 20)):
            frame = av.VideoFrame.from_ndarray(numbered(number), format="rgb24")
            frame.pts, frame.time_base = tenths, Fraction(1, 10)
            output.mux(stream.encode(frame))
        output.mux(stream.encode())
    clip = read_clip(tmp_path / "uneven.mkv", lambda n: [3, 0, 2, 1])
    assert [number_in(frame) for frame in clip.frames] == [3, 0, 2, 1]
    assert clip.times_seconds == pytest.approx([2.0, 0.3, 0.9, 0.4])


@pytest.mark.parametrize("apart", [True, False])
def test_the_frames_of_a_part_are_those_that_begin_in_it(tmp_path: Path, apart: bool) -> None:
    """Frames of a file with a clock that starts at 5 s and goes unevenly: ticks of a tenth of a second."""
    path, ticks = tmp_path / "uneven.mkv", [50, 51, 55, 56, 57, 70]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width = stream.height = 32
        stream.pix_fmt = "yuv420p"
        for number, tick in enumerate(ticks):
            frame = av.VideoFrame.from_ndarray(numbered(number), format="rgb24").reformat(32, 32)
            frame.pts, frame.time_base = tick, Fraction(1, 10)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    with open_video(path, apart=apart) as video:
        assert [round(video.begin_seconds(index), 6) for index in range(6)] == [0, 0.1, 0.5, 0.6, 0.7, 2]
        assert [video.span(*part) for part in [(0, 0.5), (0.5, 0.7), (0.7, None), (None, 0.1), (None, None)]] == [
            (0, 2), (2, 4), (4, 6), (0, 1), (0, 6),
        ]  # fmt: skip
        # Nothing begins between 0.8 and 1.9 s: it is the frame that began at 0.7 s.
        assert video.span(0.8, 1.9) == (4, 5)
        with pytest.raises(VideoError, match="the part begins at 9 s"):
            video.span(9, 10)


def test_times_are_counted_where_the_file_has_none(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "raw.h264"), "w") as output:
        stream = output.add_stream("libx264", rate=25)  # what FFmpeg takes a raw stream to have
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for number in range(9):
            output.mux(stream.encode(av.VideoFrame.from_ndarray(numbered(number), format="rgb24")))
        output.mux(stream.encode())
    with open_video(tmp_path / "raw.h264") as video:
        clip = video.read([8, 2])
        assert (video.num_frames, video.duration_seconds) == (9, pytest.approx(9 / 25))
    assert [number_in(frame) for frame in clip.frames] == [8, 2]
    assert clip.times_seconds == pytest.approx([8 / 25, 2 / 25])
    assert clip.durations_seconds == pytest.approx([1 / 25] * 2)


def test_more_decoding_threads_give_the_same_pixels(videos: dict[str, Path]) -> None:
    for path in videos.values():
        one, two = (read_clip(path, lambda n: range(0, n, 5), threads=threads).frames for threads in (1, 2))
        assert torch.equal(one, two)


def test_resize_sees_the_size_and_decides_it(videos: dict[str, Path]) -> None:
    clip = read_clip(videos["h264.mp4"], lambda n: [8, 21], resize=Resize("short_side", HEIGHT // 2))
    assert clip.frames.shape == (2, 3, HEIGHT // 2, WIDTH // 2)
    assert [number_in(frame) for frame in clip.frames] == [8, 21]


@pytest.mark.parametrize("rotation", [90, 180, 270])
def test_a_rotated_file_comes_out_upright(tmp_path: Path, rotation: int) -> None:
    """Stored with 1 as its number, the picture is bright at its left edge; turning moves that edge."""
    with open_video(render(tmp_path / "turned.mp4", 2, rotation=rotation)) as video:
        tall = rotation != 180
        assert (video.height_px, video.width_px) == ((WIDTH, HEIGHT) if tall else (HEIGHT, WIDTH))
        frame = video.read([1]).frames[0].float().mean(0)
        assert frame.shape == (video.height_px, video.width_px)
        small = video.read([1], resize=Resize("short_side", 24)).frames[0]
        assert small.shape == ((3, 56, 24) if tall else (3, 24, 56))
    edges = {"top": frame[:8], "bottom": frame[-8:], "left": frame[:, :8], "right": frame[:, -8:]}
    # Counter-clockwise by 90 degrees the left edge becomes the bottom.
    assert max(edges, key=lambda edge: float(edges[edge].mean())) == {90: "bottom", 180: "right", 270: "top"}[rotation]


def test_the_matrix_in_the_header_turns_clockwise_as_the_standard_says(tmp_path: Path) -> None:
    """x' = -y, y' = x in a picture whose y points down: the right edge goes to the bottom, the left edge to the top."""
    data = bytearray(render(tmp_path / "plain.mp4", 2).read_bytes())
    at = data.index(b"tkhd") + 44
    assert struct.unpack(">9i", data[at : at + 36]) == (65536, 0, 0, 0, 65536, 0, 0, 0, 1 << 30)
    data[at : at + 36] = struct.pack(">9i", 0, 65536, 0, -65536, 0, 0, 0, 0, 1 << 30)
    (tmp_path / "turned.mp4").write_bytes(data)
    frame = read_clip(tmp_path / "turned.mp4", lambda n: [1]).frames[0].float()
    assert frame[:, :8].mean() > 200
    assert frame[:, -8:].mean() < 50


MATRICES = {"as it is": (1, 0, 0, 1), "turned by 180": (-1, 0, 0, -1), "left to right": (-1, 0, 0, 1),
            "upside down": (1, 0, 0, -1), "clockwise": (0, 1, -1, 0), "counter-clockwise": (0, -1, 1, 0),
            "one diagonal": (0, 1, 1, 0), "the other diagonal": (0, -1, -1, 0), "doubled": (-2, 0, 0, 2)}  # fmt: skip


@pytest.mark.parametrize("name", MATRICES)
def test_a_display_matrix_that_turns_by_quarters_or_mirrors_is_followed(tmp_path: Path, name: str) -> None:
    """A point (x, y) of the stored picture is shown at (a x + c y, b x + d y), moved to where both are above 0."""
    turned = with_matrix(tmp_path, *MATRICES[name])
    stored, shown = (read_clip(path, lambda n: [1]).frames[0].numpy() for path in (tmp_path / "plain.mp4", turned))
    a, b, c, d = np.sign(MATRICES[name])
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    to_x, to_y = a * x + c * y, b * x + d * y
    expected = np.zeros((3, np.ptp(to_y) + 1, np.ptp(to_x) + 1), np.uint8)
    expected[:, to_y - to_y.min(), to_x - to_x.min()] = stored
    assert np.array_equal(shown, expected)
    with open_video(turned) as video:
        assert (video.height_px, video.width_px) == expected.shape[1:]


@pytest.mark.parametrize("matrix", [(0.7071, 0.7071, -0.7071, 0.7071), (0.9, 0.1, -0.1, 0.9), (0, 0, 0, 0)])
def test_a_display_matrix_that_turns_by_other_than_quarters_is_not_followed(
    tmp_path: Path, matrix: tuple[float, ...]
) -> None:
    turned = with_matrix(tmp_path, *matrix)
    stored, shown = (read_clip(path, lambda n: [1]).frames for path in (tmp_path / "plain.mp4", turned))
    assert torch.equal(stored, shown)


def with_matrix(tmp_path: Path, a: float, b: float, c: float, d: float) -> Path:
    """A picture that is the same neither mirrored nor turned, with this matrix in the file's header."""
    with av.open(str(tmp_path / "plain.mp4"), "w") as output:
        stream = output.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        pixels = numbered(19)
        pixels[: HEIGHT // 3] //= 2
        for _ in range(2):
            output.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        output.mux(stream.encode())
    data = bytearray((tmp_path / "plain.mp4").read_bytes())
    at = data.index(b"tkhd") + 44
    fixed = [round(value * 65536) for value in (a, b, 0, c, d, 0, 0, 0)]
    data[at : at + 36] = struct.pack(">9i", *fixed, 1 << 30)
    (tmp_path / "turned.mp4").write_bytes(data)
    return tmp_path / "turned.mp4"


def test_where_time_stamps_go_back_no_second_is_told(tmp_path: Path, videos: dict[str, Path]) -> None:
    """Two broadcasts in one file, the second's clock beginning anew."""
    (tmp_path / "twice.ts").write_bytes(2 * videos["h264.ts"].read_bytes())
    with open_video(tmp_path / "twice.ts") as video:
        assert [number_in(frame) for frame in video.read([5, 40]).frames] == [5, 9]
        with pytest.raises(VideoError, match="time stamps lack, repeat or go back") as caught:
            video.span(1, 2)
        assert (caught.value.code, caught.value.path) == ("decode_error", str(tmp_path / "twice.ts"))
        assert video.span(None, None) == (0, 62)
        assert video.examine().error is None


@pytest.mark.parametrize("suffix", ["ts", "mpg", "mkv"])
def test_a_part_of_a_recording_that_began_between_key_frames_begins_where_frames_do(
    tmp_path: Path, suffix: str
) -> None:
    """The pictures before the first key frame give no frames; the clock counts from the first that does."""
    whole = tmp_path / "whole.ts"
    with av.open(str(whole), "w") as output:
        stream = output.add_stream("mpeg2video", rate=10, options={"g": "10", "bf": "0"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for number in range(40):
            output.mux(stream.encode(av.VideoFrame.from_ndarray(numbered(number), format="rgb24")))
        output.mux(stream.encode())
    cut = tmp_path / f"cut.{suffix}"
    with av.open(str(whole)) as source, av.open(str(cut), "w") as output:
        copy = output.add_stream_from_template(source.streams.video[0])
        for number, packet in enumerate(source.demux(video=0)):
            if number >= 4 and packet.size:
                packet.stream = copy
                output.mux(packet)
    with open_video(cut) as video:
        first, stop = video.span(1.0, 2.0)
        assert [number_in(frame) for frame in video.read(range(first, stop)).frames] == list(range(20, 30))
        assert video.begin_seconds(first) == pytest.approx(1.0, abs=0.002)


def test_frames_before_the_start_of_an_edit_list_do_not_count(tmp_path: Path) -> None:
    data = bytearray(render(tmp_path / "whole.mp4", 31).read_bytes())
    at = data.index(b"elst") + 16  # version, number of entries, duration, then where the edit begins
    tick = int.from_bytes(data[data.index(b"mdhd") + 16 : data.index(b"mdhd") + 20], "big") // 10
    begin = int.from_bytes(data[at : at + 4], "big")
    data[at : at + 4] = (begin + 5 * tick).to_bytes(4, "big")
    (tmp_path / "cut.mp4").write_bytes(data)
    with open_video(tmp_path / "cut.mp4") as video:
        assert video.num_frames == video.num_promised == 26
        assert [number_in(frame) for frame in video.read([0, 7, 25]).frames] == [5, 12, 30]
        assert video.duration_seconds == pytest.approx(2.6, abs=0.01)


def test_of_two_streams_the_one_that_the_file_prefers_is_read(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "two.mkv"), "w") as output:
        streams = [output.add_stream("mpeg4", rate=10) for _ in range(2)]
        for stream, (height, width) in zip(streams, ((32, 48), (64, 96)), strict=True):
            stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        streams[1].disposition = Disposition.default
        for stream in streams:
            for _ in range(3):
                picture = np.zeros((stream.height, stream.width, 3), np.uint8)
                output.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            output.mux(stream.encode())
    with open_video(tmp_path / "two.mkv") as video:
        assert (video.height_px, video.width_px, video.num_frames) == (64, 96, 3)


def test_pixels_that_are_not_square_stay_as_they_are_stored(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "wide.mp4"), "w") as output:
        stream = output.add_stream("libx264", rate=10)
        stream.height, stream.width, stream.pix_fmt = 32, 48, "yuv420p"
        stream.sample_aspect_ratio = Fraction(4, 3)
        output.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((32, 48, 3), np.uint8), format="rgb24")))
        output.mux(stream.encode())
    with av.open(str(tmp_path / "wide.mp4")) as container:
        assert container.streams.video[0].sample_aspect_ratio == Fraction(4, 3)
    assert read_clip(tmp_path / "wide.mp4", lambda n: [0]).frames.shape == (1, 3, 32, 48)


@pytest.mark.parametrize("name", ["12:30.mp4", "a %03d.mp4", "ü 漢.mp4", "-x.mp4"])
def test_a_name_is_only_a_name(
    videos: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    shutil.copy(videos["h264.mp4"], tmp_path / name)
    monkeypatch.chdir(tmp_path)
    assert read_clip(name, lambda n: [n - 1]).indices == (30,)


# --- files that are not as they should be


def test_of_a_truncated_file_the_frames_that_decode_are_used_and_the_rest_is_counted(tmp_path: Path) -> None:
    whole = render(tmp_path / "whole.mp4", 60, container={"movflags": "faststart"}).read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) * 2 // 3])
    _, decodable = sequential(tmp_path / "cut.mp4")
    asked: list[int] = []

    def first_and_last(num_frames: int) -> list[int]:
        asked.append(num_frames)
        return [0, num_frames - 1]

    clip = read_clip(tmp_path / "cut.mp4", first_and_last)
    assert 5 < decodable < 60
    assert asked[-1] == decodable
    assert len(asked) <= 2
    assert clip.indices == (0, decodable - 1)
    assert [number_in(frame) for frame in clip.frames] == [0, decodable - 1]
    assert (clip.num_frames, clip.num_promised) == (decodable, 60)


def test_a_truncated_file_says_so_when_a_lost_frame_is_insisted_on(tmp_path: Path) -> None:
    whole = render(tmp_path / "whole.mp4", 60, container={"movflags": "faststart"}).read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) * 2 // 3])
    with open_video(tmp_path / "cut.mp4") as video:
        with pytest.raises(VideoError, match="of 60 announced frames decode") as caught:
            video.read([0, 59])
        assert caught.value.code == "truncated"
        assert video.num_frames < video.num_promised == 60
    with pytest.raises(VideoError) as caught:
        read_clip(tmp_path / "cut.mp4", lambda n: [59])
    assert caught.value.code == "truncated"


def test_a_frame_beyond_the_end_is_too_few_frames_not_a_truncated_file(videos: dict[str, Path]) -> None:
    with open_video(videos["vp9.webm"]) as video:
        with pytest.raises(VideoError, match="frames 0 to 30") as caught:
            video.read([31])
        assert video.num_frames == 31
    assert caught.value.code == "too_few_frames"


@pytest.mark.parametrize("indices", [[], [0, -1]])
def test_no_frames_and_negative_frames_are_mistakes_of_usage(videos: dict[str, Path], indices: list[int]) -> None:
    with open_video(videos["vp9.webm"]) as video, pytest.raises(UsageError):
        video.read(indices)


def write_bad_files(folder: Path) -> dict[str, str]:
    """File name -> the code of the error that it must give."""
    (folder / "zero.mp4").write_bytes(b"")
    (folder / "text.mp4").write_text("This is no video.\n" * 100)
    (folder / "text.txt").write_text("This is no video.\n" * 100)  # FFmpeg would play this on a terminal
    (folder / "noise.mp4").write_bytes(random.Random(5).randbytes(20_000))
    (folder / "picture.mp4").write_bytes(simplejpeg.encode_jpeg(numbered(1), colorspace="RGB"))
    (folder / "list.mp4").write_text("ffconcat version 1.0\nfile whole.mp4\n")
    whole = render(folder / "whole.mp4", 12).read_bytes()
    (folder / "no_index.mp4").write_bytes(whole[: whole.index(b"moov") - 4])
    (folder / "dangling.mp4").symlink_to(folder / "nothing.mp4")
    (folder / "folder.mp4").mkdir()
    (folder / "folder.mp4" / "notes.txt").write_text("no frames here")
    os.mkfifo(folder / "pipe.mp4")
    with wave.open(str(folder / "sound.wav"), "wb") as sound:
        sound.setparams((1, 2, 8000, 0, "NONE", ""))
        sound.writeframes(bytes(16_000))
    at = whole.index(b"mdat")
    damaged = bytearray(whole)
    damaged[at + 4 : whole.index(b"moov") - 4] = bytes(whole.index(b"moov") - 8 - at)
    (folder / "damaged.mp4").write_bytes(damaged)
    return {
        "absent.mp4": "missing",
        "dangling.mp4": "missing",
        "zero.mp4": "empty",
        "folder.mp4": "empty",
        "text.mp4": "not_video",
        "text.txt": "not_video",
        "noise.mp4": "not_video",
        "picture.mp4": "not_video",
        "list.mp4": "not_video",
        "no_index.mp4": "not_video",
        "pipe.mp4": "not_video",
        "sound.wav": "no_video_stream",
        "damaged.mp4": "decode_error",
    }


def test_every_kind_of_bad_file_has_its_code_and_says_what_to_do(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    expected = write_bad_files(tmp_path)
    found = {}
    for name in expected:
        with pytest.raises(VideoError) as caught:
            read_clip(tmp_path / name, lambda n: [0])
        found[name] = caught.value.code
        assert caught.value.path == str(tmp_path / name)
        assert "expected" in caught.value.message
    assert found == expected
    assert capfd.readouterr().err == ""


def test_the_cover_picture_of_a_song_is_no_video(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "song.mp4"), "w") as output:
        sound, cover = output.add_stream("aac", rate=8000, layout="mono"), output.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = WIDTH, HEIGHT, "yuvj420p"
        cover.disposition = Disposition.attached_pic
        picture = av.VideoFrame.from_ndarray(numbered(1), format="rgb24")
        for packet in [*cover.encode(picture), *cover.encode(None)]:
            output.mux(packet)
        samples = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        samples.sample_rate = 8000
        output.mux([*sound.encode(samples), *sound.encode(None)])
    with av.open(str(tmp_path / "song.mp4")) as container:
        assert container.streams.best("video") is not None
    with pytest.raises(VideoError) as caught:
        open_video(tmp_path / "song.mp4")
    assert caught.value.code == "no_video_stream"


def test_a_file_that_may_not_be_read_says_why(videos: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(VideoError, match="Permission denied") as caught:
        open_video(videos["h264.mp4"], apart=False)
    assert caught.value.code == "decode_error"


# --- folders of frames


def write_frames(folder: Path, names: Sequence[str]) -> Path:
    folder.mkdir()
    for number, name in enumerate(names):
        if name.endswith("png"):
            with av.open(str(folder / name), "w", format="image2") as output:
                stream = output.add_stream("png", rate=1)
                stream.height, stream.width, stream.pix_fmt = HEIGHT, WIDTH, "rgb24"
                output.mux(stream.encode(av.VideoFrame.from_ndarray(numbered(number), format="rgb24")))
                output.mux(stream.encode())
        else:
            (folder / name).write_bytes(simplejpeg.encode_jpeg(numbered(number), quality=95, colorspace="RGB"))
    return folder


def test_frames_of_a_folder_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    folder = write_frames(tmp_path / "video.mp4", [f"img_{number}.jpg" for number in range(1, 13)])
    for stray in (".img_3.jpg", "notes.txt", "flow_x_00001.jpg", "y_00001.jpg"):
        (folder / stray).write_bytes(b"not a frame")
    with open_video(folder) as video:
        assert isinstance(video, FrameFolder)
        assert (video.num_frames, video.num_promised) == (12, 12)
        assert (video.height_px, video.width_px) == (HEIGHT, WIDTH)
        clip = video.read([11, 1, 1, 9])
    assert [number_in(frame) for frame in clip.frames] == [11, 1, 1, 9]
    assert clip.frames.is_contiguous(memory_format=torch.channels_last)


def test_a_folder_has_12_frames_a_second_unless_told_otherwise(tmp_path: Path) -> None:
    folder = write_frames(tmp_path / "video", ["00001.jpg", "00002.jpg", "00003.jpg"])
    with open_video(folder) as video, open_video(folder, frames_per_second=4) as slow:
        assert video.duration_seconds == pytest.approx(3 / 12)
        assert video.read([2]).times_seconds == pytest.approx([2 / 12])
        assert slow.duration_seconds == pytest.approx(3 / 4)
        assert slow.read([2]).durations_seconds == pytest.approx([1 / 4])
    with pytest.raises(UsageError, match="above 0"):
        open_video(folder, frames_per_second=0)


def test_png_frames_come_out_bit_for_bit_and_jpeg_frames_nearly(tmp_path: Path) -> None:
    folder = write_frames(tmp_path / "video", ["0.png", "1.jpeg", "2.PNG".lower()])
    pictures = as_pictures(read_clip(folder, lambda n: range(n)).frames)
    assert np.array_equal(pictures[0], numbered(0))
    assert np.array_equal(pictures[2], numbered(2))
    assert np.abs(pictures[1].astype(int) - numbered(1)).max() < 12


def test_frames_of_a_folder_are_resized_to_what_the_first_one_wants(tmp_path: Path) -> None:
    folder = write_frames(tmp_path / "video", ["1.jpg", "2.jpg"])
    (folder / "3.jpg").write_bytes(simplejpeg.encode_jpeg(numbered(2)[: HEIGHT // 2].copy(), colorspace="RGB"))
    clip = read_clip(folder, lambda n: [2, 0], resize=Resize("exact", HEIGHT // 2, WIDTH * 2))
    assert clip.frames.shape == (2, 3, HEIGHT // 2, WIDTH * 2)
    assert [number_in(frame) for frame in clip.frames] == [2, 0]


def test_a_bad_frame_of_a_folder_is_named(tmp_path: Path) -> None:
    folder = write_frames(tmp_path / "video", ["1.jpg", "2.jpg", "3.jpg", "4.jpg"])
    whole = (folder / "2.jpg").read_bytes()
    (folder / "2.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "3.jpg").unlink()
    (folder / "3.jpg").symlink_to("nothing.jpg")
    (folder / "4.jpg").write_bytes(b"")
    with open_video(folder) as video:
        for index, code in ((1, "decode_error"), (2, "missing"), (3, "decode_error")):
            with pytest.raises(VideoError) as caught:
                video.read([0, index])
            assert caught.value.code == code
            assert caught.value.path == str(folder / f"{index + 1}.jpg")
        with pytest.raises(VideoError, match="frames 0 to 3") as caught:
            video.read([4])
        assert caught.value.code == "too_few_frames"


def test_a_frame_that_is_a_pipe_or_too_large_is_refused_at_once(tmp_path: Path) -> None:
    folder = write_frames(tmp_path / "video", ["1.jpg", "2.jpg", "3.jpg"])
    (folder / "2.jpg").unlink()
    os.mkfifo(folder / "2.jpg")
    bomb = bytearray((folder / "3.jpg").read_bytes())
    at = bomb.index(b"\xff\xc0") + 5
    bomb[at : at + 4] = struct.pack(">HH", 20_000, 20_000)
    (folder / "3.jpg").write_bytes(bomb)
    with open_video(folder) as video:
        for index, words in ((1, "a pipe"), (2, "20000 x 20000 pixels is too large")):
            with pytest.raises(VideoError, match=words) as caught:
                video.read([index])
            assert (caught.value.code, caught.value.path) == ("decode_error", str(folder / f"{index + 1}.jpg"))
        with pytest.raises(VideoError, match="too large"):
            video.read([0], resize=Resize("exact", 256, 4_000_000))


def test_a_video_is_not_resized_to_more_than_a_picture_may_have(videos: dict[str, Path]) -> None:
    with pytest.raises(VideoError, match="4000000 x 256 pixels is too large") as caught:
        read_clip(videos["h264.mp4"], lambda n: [0], resize=Resize("exact", 256, 4_000_000))
    assert (caught.value.code, caught.value.path) == ("decode_error", str(videos["h264.mp4"]))


# --- real files


def real_videos() -> list[Path]:
    suffixes = (".mp4", ".avi", ".mov", ".mkv", ".webm")
    return sorted(path for path in (SHARED / "videos").rglob("*") if path.suffix in suffixes)


@pytest.mark.slow
@pytest.mark.shared
@pytest.mark.skipif(not SHARED.is_dir(), reason="the folder of real videos is not there")
def test_real_videos_give_the_frames_of_sequential_decoding() -> None:
    chance = random.Random(0)
    assert len(real_videos()) > 15
    for path in real_videos():
        _, count = sequential(path, [])
        order = [0, count - 1, *(chance.randrange(count) for _ in range(3))]
        chance.shuffle(order)
        reference, _ = sequential(path, order)
        with open_video(path) as video:
            assert video.num_promised == count or path.name == "corrupted.mp4", path
        clip = read_clip(path, lambda n, order=order: order)
        assert np.array_equal(as_pictures(clip.frames), np.stack(reference)), path


@pytest.mark.slow
@pytest.mark.shared
@pytest.mark.skipif(not SHARED.is_dir(), reason="the folder of real videos is not there")
def test_real_small_videos_are_exact_in_every_frame() -> None:
    paths = sorted((SHARED / "dataset" / "weizmann").rglob("*.avi"))
    assert len(paths) == 90
    for path in paths[::3]:
        reference, count = sequential(path)
        with VideoFile(path) as video:
            assert video.num_frames == count, path
            assert np.array_equal(as_pictures(video.read(range(count)).frames), np.stack(reference)), path


@pytest.mark.shared
@pytest.mark.skipif(not SHARED.is_dir(), reason="the folder of real videos is not there")
def test_a_really_corrupted_video_gives_the_28_frames_that_decode() -> None:
    clip = read_clip(SHARED / "videos" / "decord" / "corrupted.mp4", lambda n: [0, n - 1])
    assert (clip.indices, clip.num_frames, clip.num_promised) == ((0, 27), 28, 50)


@pytest.mark.shared
@pytest.mark.skipif(not SHARED.is_dir(), reason="the folder of real videos is not there")
def test_real_frame_folders_are_read_in_order() -> None:
    with open_video(SHARED / "videos" / "frames_demo" / "running" / "0001") as video:
        assert isinstance(video, FrameFolder)
        assert video.num_frames == 15
        assert [Path(file).name for file in video.files[:2]] == ["img_00001.jpg", "img_00002.jpg"]
        assert video.read([0, 14]).frames.shape == (2, 3, video.height_px, video.width_px)


def test_frames_of_several_sizes_are_each_resized_to_what_the_first_one_wants(tmp_path: Path) -> None:
    """Pictures come in runs of one size; what lies behind a change of size comes too, and in its turn."""
    sizes = [(12, 20), (12, 20), (9, 15), (12, 20), (12, 20)]
    for number, (height, width) in enumerate(sizes, start=1):
        picture = np.full((height, width, 3), 40 * number, np.uint8)
        (tmp_path / f"{number}.jpg").write_bytes(simplejpeg.encode_jpeg(picture, quality=100))
    for apart in (True, False):
        clip = read_clip(tmp_path, lambda n: [4, 0, 2, 2, 3, 1], apart=apart)
        assert clip.frames.shape == (6, 3, 12, 20)
        assert [round(value / 40) for value in clip.frames.float().mean((1, 2, 3)).tolist()] == [5, 1, 3, 3, 4, 2]


def test_pictures_that_together_are_large_come_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(5):
        picture = np.full((12, 20, 3), 40 * number, np.uint8)
        (tmp_path / f"{number}.jpg").write_bytes(simplejpeg.encode_jpeg(picture, quality=100))
    monkeypatch.setattr("ssan.video.picture.MOST_BYTES_AT_ONCE", 2 * 12 * 20 * 3)
    paths = [str(tmp_path / f"{number}.jpg") for number in range(5)]
    assert len(read_pictures(paths)) == 2
    clip = read_clip(tmp_path, range, apart=False)
    assert [round(value / 40) for value in clip.frames.float().mean((1, 2, 3)).tolist()] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("container", "asked"),
    [({}, ["0"]), ({"movflags": "frag_keyframe+empty_moov"}, ["0", None])],
    ids=["index", "fragments"],
)
def test_mp4_is_opened_without_decoding_only_where_its_index_has_all_frames(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, container: dict[str, str], asked: list[str | None]
) -> None:
    path = render(tmp_path / "a.mp4", 31, container=container)
    reference, _ = sequential(path)
    asked_for, opening = [], av.open

    def noting(*arguments: object, **options: dict[str, str]) -> object:
        asked_for.append(options.get("options", {}).get("max_ts_probe"))
        return opening(*arguments, **options)

    monkeypatch.setattr(av, "open", noting)
    with VideoFile(path) as video:
        assert asked_for == asked
        assert video.size_px == (HEIGHT, WIDTH)
        assert np.array_equal(as_pictures(video.read(range(31)).frames), np.stack(reference))
