"""Decoding only what is needed gives the pixels of decoding everything, whatever the codec, container and structure."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from ssan.video import decode
from ssan.video.decode import open_video

SIDE, NUM_FRAMES = 64, 47

# name: encoder, its options, pixel format. Between them: closed and open groups of pictures, pyramids of B frames,
# groups longer than the video, references far back, intra only, 10 bit, pictures with odd sides.
STRUCTURES: dict[str, tuple[str, dict[str, str], str]] = {
    "h264_closed.mp4": ("libx264", {"g": "12", "bf": "3", "flags": "+cgop"}, "yuv420p"),
    "h264_open.mp4": ("libx264", {"g": "12", "bf": "3", "x264-params": "open-gop=1:b-adapt=0"}, "yuv420p"),
    "h264_pyramid.mkv": ("libx264", {"g": "25", "bf": "7", "x264-params": "b-pyramid=normal:b-adapt=0"}, "yuv420p"),
    "h264_strict_pyramid.mov": ("libx264", {"bf": "5", "x264-params": "b-pyramid=strict:b-adapt=0"}, "yuv420p"),
    "h264_one_group.mp4": ("libx264", {"g": "999", "bf": "2", "refs": "6"}, "yuv420p"),
    "h264_no_b.mp4": ("libx264", {"g": "10", "bf": "0"}, "yuv420p"),
    "h264_intra.mp4": ("libx264", {"g": "1"}, "yuv420p"),
    "h264_refresh.mp4": ("libx264", {"g": "15", "x264-params": "intra-refresh=1:bframes=0"}, "yuv420p"),
    "h264_10bit.mp4": ("libx264", {"g": "12", "bf": "3"}, "yuv420p10le"),
    "h264_slices.mp4": ("libx264", {"g": "12", "bf": "3", "slices": "4"}, "yuv420p"),
    "h264.ts": ("libx264", {"g": "12", "bf": "3"}, "yuv420p"),
    "h264.avi": ("libx264", {"g": "12", "bf": "2"}, "yuv420p"),
    "hevc_open.mp4": ("libx265", {"x265-params": "keyint=12:bframes=4:open-gop=1:log-level=none"}, "yuv420p"),
    "hevc_closed.mkv": ("libx265", {"x265-params": "keyint=12:bframes=3:open-gop=0:log-level=none"}, "yuv420p"),
    "hevc_10bit.mov": ("libx265", {"x265-params": "keyint=20:log-level=none"}, "yuv420p10le"),
    "vp9_hidden.webm": (
        "libvpx-vp9",
        {"g": "15", "auto-alt-ref": "1", "lag-in-frames": "20", "cpu-used": "8"},
        "yuv420p",
    ),
    "vp9_realtime.webm": ("libvpx-vp9", {"g": "10", "deadline": "realtime", "cpu-used": "8"}, "yuv420p"),
    "vp8.webm": ("libvpx", {"g": "10", "auto-alt-ref": "1", "lag-in-frames": "10"}, "yuv420p"),
    "av1.mp4": ("libsvtav1", {"preset": "12", "g": "16", "svtav1-params": "log-level=0"}, "yuv420p"),
    "av1.mkv": ("libsvtav1", {"preset": "12", "g": "16"}, "yuv420p"),
    "mpeg4.mp4": ("mpeg4", {"g": "12", "bf": "2"}, "yuv420p"),
    "mpeg4.avi": ("mpeg4", {"g": "12", "bf": "2"}, "yuv420p"),
    "mpeg2.ts": ("mpeg2video", {"g": "12", "bf": "2"}, "yuv420p"),
    "mjpeg.mov": ("mjpeg", {}, "yuvj420p"),
    "mjpeg.avi": ("mjpeg", {}, "yuvj420p"),
}


def picture(number: int) -> np.ndarray:
    """A picture that differs from its neighbours everywhere: moving stripes and a square on noise."""
    y, x = np.mgrid[:SIDE, :SIDE]
    noise = np.random.default_rng(number).integers(0, 40, (SIDE, SIDE, 3))
    stripes = (np.sin((x + 3 * number) / 5) * 60 + np.cos((y - 2 * number) / 7) * 40 + 110)[..., None]
    out = (noise + stripes).clip(0, 255).astype(np.uint8)
    out[number % 48 : number % 48 + 12, (5 * number) % 48 : (5 * number) % 48 + 12] = (230, number * 5 % 255, 20)
    return out


def render(path: Path, encoder: str, options: dict[str, str], pixels: str, times: Sequence[int] | None = None) -> None:
    try:
        with av.open(str(path), "w") as output:
            stream = output.add_stream(encoder, rate=12, options=dict(options))
            stream.width, stream.height, stream.pix_fmt = SIDE, SIDE, pixels
            for number in range(NUM_FRAMES):
                frame = av.VideoFrame.from_ndarray(picture(number), format="rgb24").reformat(format=pixels)
                frame.pts = number if times is None else times[number]
                output.mux(stream.encode(frame))
            output.mux(stream.encode())
    except (av.error.FFmpegError, ValueError) as error:
        if isinstance(error, ValueError) and "encoder" not in str(error).lower():
            raise
        pytest.skip(f"this build of FFmpeg has no {encoder}: {error}")


def everything(path: Path) -> list[tuple[int | None, np.ndarray]]:
    """Time stamp and pixels of every frame, decoded from the beginning, apart from the package."""
    with av.open(str(path)) as container:
        return [(f.pts, f.to_ndarray(format="rgb24")) for f in container.decode(container.streams.best("video"))]


CHOICES = [
    [0], [1], [11], [12], [13], [NUM_FRAMES - 1], list(range(NUM_FRAMES)), list(range(0, NUM_FRAMES, 7)),
    [2, 8, 14, 20, 26, 31, 37, 43], [10, 11, 12, 13, 14], [44, 45, 46], [23, 24], [5, 40],
]  # fmt: skip


def check(path: Path) -> Any:
    """Every choice of frames against the frames of the whole; returns the packets as they were listed."""
    reference = everything(path)
    with open_video(path) as video:
        assert isinstance(video, decode.VideoFile)
        for choice in CHOICES:
            choice = [number for number in choice if number < len(reference)]
            clip = video.read(choice)
            for place, number in enumerate(choice):
                own = clip.frames[place].permute(1, 2, 0).numpy()
                assert np.array_equal(own, reference[number][1]), f"{path.name}: frame {number} of {choice}"
        return video._packets


@pytest.mark.parametrize("name", STRUCTURES)
def test_every_choice_of_frames_has_the_pixels_of_the_whole(name: str, tmp_path: Path) -> None:
    render(tmp_path / name, *STRUCTURES[name])
    check(tmp_path / name)


@pytest.mark.parametrize("name", ["h264_closed.mp4", "h264_open.mp4", "hevc_closed.mkv", "vp9_realtime.webm"])
def test_it_is_the_selecting_way_that_is_taken_and_it_decodes_less(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    render(tmp_path / name, *STRUCTURES[name])
    fed: list[int] = []
    with open_video(tmp_path / name) as video:
        assert isinstance(video, decode.VideoFile)
        packets = video._packets.packets
        assert video._packets.trusted
        assert packets is not None

        def refuse(*_: Any) -> Any:
            raise AssertionError("decoded in sequence")

        monkeypatch.setattr(decode, "_decode_in_sequence", refuse)
        begin = video._packets.keys[-1]
        object.__setattr__(video._packets, "packets", Counted(packets, fed))  # a frozen dataclass
        video.read([NUM_FRAMES - 1])
    assert min(fed) == begin > 0


class Counted(list[av.Packet]):
    """A list that notes which of its places are asked for."""

    def __init__(self, packets: list[av.Packet], fed: list[int]) -> None:
        super().__init__(packets)
        self.fed = fed

    def __getitem__(self, place: Any) -> Any:
        self.fed.append(place)
        return super().__getitem__(place)


def test_frames_that_come_unevenly_are_counted_not_timed(tmp_path: Path) -> None:
    steps = np.random.default_rng(0).integers(1, 9, NUM_FRAMES)
    render(tmp_path / "vfr.mp4", "libx264", {"g": "12", "bf": "3"}, "yuv420p", np.cumsum(steps).tolist())
    assert check(tmp_path / "vfr.mp4").trusted


def test_containers_without_trustworthy_time_stamps_are_read_in_sequence(tmp_path: Path) -> None:
    for name in ("mpeg4.avi", "h264.ts", "h264.avi"):
        render(tmp_path / name, *STRUCTURES[name])
        assert not check(tmp_path / name).trusted


def test_a_file_too_large_to_hold_is_read_in_sequence_and_its_packets_are_let_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    render(tmp_path / "a.mp4", *STRUCTURES["h264_closed.mp4"])
    monkeypatch.setattr(decode, "MOST_BYTES_HELD", 1000)
    listed = check(tmp_path / "a.mp4")
    assert not listed.trusted
    assert listed.packets is None
    assert listed.num_frames == NUM_FRAMES


def test_a_wanted_frame_that_the_selecting_way_misses_is_found_in_sequence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    render(tmp_path / "a.mp4", *STRUCTURES["h264_closed.mp4"])
    selected = decode._decode_selected

    def gives_up(*arguments: Any) -> Any:
        yield next(iter(selected(*arguments)))

    monkeypatch.setattr(decode, "_decode_selected", gives_up)
    check(tmp_path / "a.mp4")
