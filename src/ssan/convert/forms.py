"""Forms that a video is converted to: H.264, a folder of JPEG frames, bare pixels, or optical flow; each checked.

A writer is ``write(frames, partial, settings)``: it puts what it makes of the frames under the name ``partial``.
"""

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from fractions import Fraction
from typing import Any

import av
import av.error
import numpy as np
import simplejpeg
from av.video.stream import VideoStream

from ssan.convert.optical_flow import as_pictures, flow_between
from ssan.convert.workers import StoppedError, is_stopping
from ssan.errors import UsageError, VideoError
from ssan.video.clip import TIMES_FILE, Clip, Resize, Video
from ssan.video.picture import read_picture
from ssan.video.reader import open_video

TICKS_PER_SECOND = 90_000
SMPTE170M, LIMITED_RANGE = 6, 1
GROUP = 8
"""Frames from one that stands for itself to the next: what has to be decoded for one frame is half of it."""
SURELY_REPEATABLE_PX = 256
"""x264 weighs (mbtree) 16 blocks of 16 pixels at a time, in narrower pictures some that nobody has written: at widths
of 24 and 64 px the bytes differed from process to process; below this width it goes without."""


@dataclass(frozen=True)
class Settings:
    """How videos are converted; results of other settings do not go into the same folder or file.

    :param form: a key of ``FORMS``.
    :param short_side_px: of the pictures, or
    :param height_px: of them; pictures that are smaller stay as they are, and None leaves all of them so.
    :param quality: of H.264 the constant rate factor (0 to 51, less is better), of JPEG 1 to 100; None is the form's
        usual one.
    :param method: of optical flow, and ``bound``, the pixels of motion that are shown as the brightest grey.
    """

    form: str
    short_side_px: int | None = None
    height_px: int | None = None
    quality: int | None = None
    method: str | None = None
    bound: float | None = None

    def __post_init__(self) -> None:
        qualities = FORMS[self.form].qualities
        if qualities is None:
            if self.quality is not None:
                raise UsageError("a clip file holds pixels as they are and takes no quality; leave it out")
        else:
            least, most, usual = qualities
            object.__setattr__(self, "quality", usual if self.quality is None else self.quality)
            if not least <= (self.quality or 0) <= most:
                raise UsageError(f"the quality is {self.quality}; expected {least} to {most}")
        if self.bound is not None and not 0 < self.bound <= 10_000:
            raise UsageError(f"the bound is {self.bound:g}; expected pixels, more than 0 and not more than 10,000")

    def as_dict(self) -> dict[str, Any]:
        return {name: value for name, value in asdict(self).items() if value is not None}

    @property
    def resize(self) -> Resize:
        return Resize("shrink", self.short_side_px, tallest_px=self.height_px, multiple=FORMS[self.form].multiple)


class Frames:
    """All frames of a video in sequence, and what is learned on the way.

    ``times`` and ``durations`` are those of the frames given so far; ``truncated`` is why there were no more, where
    more were announced.
    """

    def __init__(self, video: Video, resize: Resize) -> None:
        self.video, self._resize = video, resize
        self.times: list[float] = []
        self.durations: list[float] = []
        self.size_px = (0, 0)
        self.truncated: VideoError | None = None

    @property
    def frames_per_second(self) -> float:
        """The mean, as far as it is known before the frames are."""
        return self.video.num_frames / self.video.duration_seconds if self.video.duration_seconds > 0 else 25.0

    def __iter__(self) -> Iterator[tuple[Clip, np.ndarray]]:
        """Clips, and their pixels (t, h, w, 3) as numpy has them."""
        try:
            for clip in self.video.stream(resize=self._resize):
                if is_stopping():
                    raise StoppedError
                self.times += clip.times_seconds
                self.durations += clip.durations_seconds
                pixels = clip.frames.permute(0, 2, 3, 1).numpy()
                self.size_px = (pixels.shape[1], pixels.shape[2])
                yield clip, pixels
        except VideoError as error:
            if error.code != "truncated" or not self.times:
                raise
            self.truncated = error


def write_video(frames: Frames, path: str, settings: Settings) -> None:
    """H.264 in mp4: every frame with its own time stamp, none that refers to later ones, short groups, no sound.

    The clock begins where that of the video does; one that begins before 0 is shifted to begin there. Colours are
    converted by the matrix of SMPTE 170M, and the file says so: they come back as they were.
    """
    with av.open(path, "w", format="mp4") as output:
        stream: VideoStream | None = None
        last, shift = -1, 0.0
        durations: list[int] = []

        def mux(packets: list[av.Packet]) -> None:
            for packet in packets:  # one a frame, in their order
                packet.duration = durations.pop(0)
                output.mux(packet)

        for clip, pixels in frames:
            if stream is None:
                stream = _add_stream(output, frames, pixels.shape[1:3], settings)
                shift = max(0.0, -clip.times_seconds[0])
            for picture, time, duration in zip(pixels, clip.times_seconds, clip.durations_seconds, strict=True):
                frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
                last = max(last + 1, round((time + shift) * TICKS_PER_SECOND))
                frame.pts, frame.time_base = last, Fraction(1, TICKS_PER_SECOND)
                durations.append(max(1, round(duration * TICKS_PER_SECOND)))
                mux(stream.encode(frame))
        if stream is not None:
            mux(stream.encode(None))


def _add_stream(
    output: av.container.OutputContainer, frames: Frames, size_px: tuple[int, ...], settings: Settings
) -> VideoStream:
    rate = Fraction(frames.frames_per_second).limit_denominator(1001)
    options = {"crf": str(settings.quality), "preset": "fast"}
    if size_px[1] < SURELY_REPEATABLE_PX:
        options["x264-params"] = "mbtree=0"
    stream = output.add_stream("libx264", rate=rate, options=options)
    assert isinstance(stream, VideoStream)
    stream.height, stream.width = size_px
    stream.pix_fmt = "yuv420p"
    stream.time_base = stream.codec_context.time_base = Fraction(1, TICKS_PER_SECOND)
    stream.codec_context.gop_size = GROUP
    stream.codec_context.max_b_frames = 0
    stream.codec_context.thread_count = 1
    stream.codec_context.colorspace = SMPTE170M
    stream.codec_context.color_range = LIMITED_RANGE
    return stream


def write_jpeg(frames: Frames, path: str, settings: Settings) -> None:
    """``00001.jpg`` and so on at full chroma, and in ``.times.json`` when each is shown (``ssan.video.folder``)."""
    os.mkdir(path)
    shown: dict[str, tuple[float, float]] = {}
    for clip, pixels in frames:
        for picture, time, duration in zip(pixels, clip.times_seconds, clip.durations_seconds, strict=True):
            name = f"{len(shown) + 1:05d}.jpg"
            shown[name] = (time, duration)
            _write(os.path.join(path, name), _jpeg(picture, settings, "RGB", "444"))
    _write(os.path.join(path, TIMES_FILE), json.dumps({"frames": shown}, allow_nan=False).encode())


def write_pixels(frames: Frames, path: str, settings: Settings) -> None:
    """The bytes of one frame after another, for a clip file."""
    with open(path, "wb") as handle:
        for _, pixels in frames:
            handle.write(pixels.data)


def write_flow(frames: Frames, path: str, settings: Settings) -> None:
    """``flow_x_00001.jpg``, ``flow_y_00001.jpg`` and so on: the motion from each frame to the next."""
    assert settings.method is not None
    assert settings.bound is not None
    os.mkdir(path)
    flow = flow_between(settings.method)
    before: np.ndarray | None = None
    count = 0
    for _, pixels in frames:
        for picture in pixels:
            if before is not None:
                count += 1
                for axis, grey in zip("xy", as_pictures(flow(before, picture), settings.bound), strict=True):
                    name = os.path.join(path, f"flow_{axis}_{count:05d}.jpg")
                    _write(name, _jpeg(grey[..., None], settings, "GRAY", "Gray"))
            before = picture
    if count == 0:
        raise VideoError(
            "the video has one frame; expected two or more, between which something moves. Leave it out",
            code="too_few_frames",
            path=frames.video.path,
        )


def _jpeg(picture: np.ndarray, settings: Settings, colours: str, subsampling: str) -> bytes:
    try:
        return simplejpeg.encode_jpeg(
            picture, quality=settings.quality, colorspace=colours, colorsubsampling=subsampling, fastdct=False
        )
    except ValueError as error:
        height, width = picture.shape[:2]
        raise VideoError(
            f"a frame of {width} x {height} pixels cannot be written as JPEG ({error}); make it smaller",
            code="decode_error",
        ) from error


def _write(path: str, data: bytes) -> None:
    with open(path, "wb") as handle:
        handle.write(data)


def check_copy(frames: Frames, path: str, settings: Settings) -> None:
    """Read what was written once more, whole, and compare: as many frames, each shown when it was in the video.

    Times count from the first frame, in both: a container may begin at another time. They may differ by half of what
    the frame is shown for.

    :raises VideoError: it is not the same.
    """
    times: list[float] = []
    try:
        with open_video(path) as video:
            for clip in video.stream():
                times += clip.times_seconds
    except VideoError as error:
        raise _not_kept(f"does not read: {error.message}") from error
    if len(times) != len(frames.times):
        raise _not_kept(f"has {len(times)} frames and the video {len(frames.times)}")
    for number, (new, old, duration) in enumerate(zip(times, frames.times, frames.durations, strict=True)):
        new, old = new - times[0], old - frames.times[0]
        if abs(new - old) > duration / 2:
            raise _not_kept(f"shows frame {number} {new:.4f} s after the first, the video {old:.4f} s after it")


def check_flow(frames: Frames, path: str, settings: Settings) -> None:
    """Read the pictures of optical flow: two for each two frames that follow each other, as large as those."""
    count = len(frames.times) - 1
    expected = {f"flow_{axis}_{number:05d}.jpg" for axis in "xy" for number in range(1, count + 1)}
    found = set(os.listdir(path))
    if found != expected:
        raise _not_kept(f"has {len(found)} pictures; expected {2 * count}")
    for name in sorted(found):
        try:
            size = read_picture(os.path.join(path, name)).shape[:2]
        except VideoError as error:
            raise _not_kept(f"does not read: {error.message}") from error
        if size != frames.size_px:
            raise _not_kept(f"has a picture of {size}; expected {frames.size_px}")


def check_nothing(frames: Frames, path: str, settings: Settings) -> None:
    """Bare pixels are read back where they are appended to the clip file."""


def _not_kept(what: str) -> VideoError:
    return VideoError(f"the copy {what}; expected the same of both, so it was removed", code="decode_error")


@dataclass(frozen=True)
class Form:
    """One thing that videos are converted to.

    :param multiple: of which height and width must be.
    :param suffix: of the file that a video becomes; None where it becomes a folder.
    :param qualities: from which to which ``quality`` may be, and the one by default; None where it has none.
    """

    write: Callable[[Frames, str, Settings], None]
    check: Callable[[Frames, str, Settings], None]
    multiple: int = 1
    suffix: str | None = None
    qualities: tuple[int, int, int] | None = None


FORMS = {
    "video": Form(write_video, check_copy, multiple=2, suffix=".mp4", qualities=(0, 51, 18)),
    "jpeg": Form(write_jpeg, check_copy, qualities=(1, 100, 95)),
    "clips": Form(write_pixels, check_nothing, suffix=""),
    "flow": Form(write_flow, check_flow, qualities=(1, 100, 95)),
}


def require_encoder() -> None:
    """Refuse to begin where PyAV's FFmpeg cannot write H.264."""
    try:
        av.codec.Codec("libx264", "w")
    except ValueError:
        raise UsageError(
            "this build of PyAV has no libx264, which writes H.264; use --to jpeg or --to clips, or install PyAV from "
            "PyPI: pip install --force-reinstall --only-binary av av"
        ) from None
