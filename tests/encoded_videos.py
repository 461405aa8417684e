"""Videos encoded in every way that matters to a reader: codecs, structures of groups, uneven times, turned, cut."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np

NUM_FRAMES = 47
# name: (encoder, options, pixel format)
STREAMS: dict[str, tuple[str, dict[str, str], str]] = {
    "h264_closed": ("libx264", {"g": "12", "bf": "3", "flags": "+cgop"}, "yuv420p"),
    "h264_open": ("libx264", {"g": "12", "bf": "3", "x264-params": "open-gop=1:b-adapt=0"}, "yuv420p"),
    "h264_pyramid": ("libx264", {"g": "25", "bf": "7", "x264-params": "b-pyramid=normal:b-adapt=0"}, "yuv420p"),
    "h264_one_group": ("libx264", {"g": "999", "bf": "2", "refs": "6"}, "yuv420p"),
    "h264_no_b": ("libx264", {"g": "10", "bf": "0"}, "yuv420p"),
    "h264_intra": ("libx264", {"g": "1"}, "yuv420p"),
    "h264_refresh": ("libx264", {"g": "15", "x264-params": "intra-refresh=1:bframes=0"}, "yuv420p"),
    "h264_10bit": ("libx264", {"g": "12", "bf": "3"}, "yuv420p10le"),
    "hevc_open": ("libx265", {"x265-params": "keyint=12:bframes=4:open-gop=1:log-level=none"}, "yuv420p"),
    "hevc_closed": ("libx265", {"x265-params": "keyint=12:bframes=3:open-gop=0:log-level=none"}, "yuv420p"),
    "hevc_10bit": ("libx265", {"x265-params": "keyint=20:log-level=none"}, "yuv420p10le"),
    "vp9_hidden": ("libvpx-vp9", {"g": "15", "auto-alt-ref": "1", "lag-in-frames": "20", "cpu-used": "8"}, "yuv420p"),
    "vp9_realtime": ("libvpx-vp9", {"g": "10", "deadline": "realtime", "cpu-used": "8"}, "yuv420p"),
    "vp8": ("libvpx", {"g": "10", "auto-alt-ref": "1", "lag-in-frames": "10"}, "yuv420p"),
    "av1": ("libsvtav1", {"preset": "12", "g": "16", "svtav1-params": "log-level=0"}, "yuv420p"),
    "mpeg4_b": ("mpeg4", {"g": "12", "bf": "2"}, "yuv420p"),
    "mpeg4_no_b": ("mpeg4", {"g": "12", "bf": "0"}, "yuv420p"),
    "mpeg2": ("mpeg2video", {"g": "12", "bf": "2"}, "yuv420p"),
    "mjpeg": ("mjpeg", {}, "yuvj420p"),
}


def picture(number: int, height: int, width: int) -> np.ndarray:
    """A picture that differs from its neighbours everywhere: moving stripes and a square on noise."""
    y, x = np.mgrid[:height, :width]
    noise = np.random.default_rng(number).integers(0, 40, (height, width, 3))
    stripes = (np.sin((x + 3 * number) / 5) * 60 + np.cos((y - 2 * number) / 7) * 40 + 110)[..., None]
    out = (noise + stripes).clip(0, 255).astype(np.uint8)
    out[number % 32 : number % 32 + 12, (5 * number) % 48 : (5 * number) % 48 + 12] = (230, number * 5 % 255, 20)
    return out


def render(
    path: Path, stream: str, *, size: tuple[int, int] = (64, 64), uneven: bool = False, rotation: int = 0
) -> None:
    encoder, options, pixels = STREAMS[stream]
    steps = np.cumsum(np.random.default_rng(0).integers(1, 9, NUM_FRAMES)).tolist()
    with av.open(
        str(path), "w", options={"movflags": "faststart"} if path.suffix in (".mp4", ".mov") else {}
    ) as output:
        video = output.add_stream(encoder, rate=24, options=dict(options))
        video.height, video.width, video.pix_fmt = *size, pixels
        if rotation:
            video.set_display_rotation(rotation)
        for number in range(NUM_FRAMES):
            frame = av.VideoFrame.from_ndarray(picture(number, *size), format="rgb24").reformat(format=pixels)
            frame.pts, frame.time_base = (steps[number] if uneven else number), Fraction(1, 24)
            output.mux(video.encode(frame))
        output.mux(video.encode())


def cut_start(data: bytes, num_frames: int) -> bytes:
    """An mp4 whose edit list begins some frames later."""
    at, header = data.index(b"elst") + 16, data.index(b"mdhd")
    tick = int.from_bytes(data[header + 16 : header + 20], "big") // 24
    begin = int.from_bytes(data[at : at + 4], "big") + num_frames * tick
    return data[:at] + begin.to_bytes(4, "big") + data[at + 4 :]
