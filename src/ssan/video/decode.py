"""Frames out of a video file, or out of a folder of pictures, behind one small interface.

Frame i of a file is the i-th frame that decoding its best video stream from the beginning to the end yields. That is
the definition to which everything here, and every faster way of reading, is held. FFmpeg picks the best stream (the
one marked as default, else the one with most bits). What FFmpeg would print goes nowhere: PyAV drops it.

Pictures come out upright: the rotation that a telephone writes into the file is applied, and ``height_px``,
``width_px`` and ``resize`` speak of the upright picture.

Unsaid by the paper, our choice: pixels stay as they are stored, also where the file says that they are not square
(many Kinetics clips do); tests/test_decode.py holds it. Resizing is bilinear with the filter widened when shrinking.
"""

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from types import TracebackType
from typing import Self

import av
import av.container
import av.error
import numpy as np
import torch
from av.stream import Disposition
from av.video.reformatter import Interpolation, VideoReformatter
from av.video.stream import VideoStream

from ssan.errors import UsageError, VideoError
from ssan.video.clip import Clip

Resize = Callable[[int, int], tuple[int, int]]
"""(height, width) of the upright picture, in pixels -> (height, width) wanted."""


class Video(ABC):
    """A video that can be read: where it is, how long, how large, and its frames by number.

    ``num_promised`` is what the file announces. ``num_frames`` begins there and is corrected when reading finds that
    fewer or more frames decode. ``duration_seconds`` runs from the start of the first frame to the end of the last.
    """

    path: str
    num_frames: int
    num_promised: int
    duration_seconds: float

    @abstractmethod
    def read(self, indices: Sequence[int], *, resize: Resize | None = None) -> Clip:
        """Read the frames with these numbers, in this order; numbers may repeat.

        All frames of a clip get one size: what ``resize`` makes of the size of the earliest frame asked for, or that
        size itself. Raises ``VideoError`` where a frame cannot be had.
        """

    @cached_property
    @abstractmethod
    def size_px(self) -> tuple[int, int]:
        """Height and width of the first frame, upright, in pixels."""

    @property
    def height_px(self) -> int:
        return self.size_px[0]

    @property
    def width_px(self) -> int:
        return self.size_px[1]

    def _clip(
        self, frames: torch.Tensor, indices: Sequence[int], times: Sequence[float], durations: Sequence[float]
    ) -> Clip:
        numbers = tuple(int(index) for index in indices)
        return Clip(
            frames,
            numbers,
            tuple(times),
            tuple(durations),
            self.num_frames,
            self.num_promised,
            self.duration_seconds,
            self.path,
        )

    def close(self) -> None:
        """Give back what is held open; ``with`` does it."""
        return

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def open_video(path: str | os.PathLike[str], *, frames_per_second: float | None = None, threads: int = 1) -> Video:
    """Open a video file, or a folder that directly holds JPEG or PNG files, one per frame.

    ``frames_per_second`` is for folders, 12 unless given; a file knows its own. ``threads`` is for files: more than one
    helps when a single video is read, and hurts when several processes read one each.
    """
    path = existing_path(path)
    if os.path.isdir(path):
        from ssan.video.folder import FrameFolder  # which builds on this file

        return FrameFolder(path, frames_per_second=frames_per_second)
    return VideoFile(path, threads=threads)


def read_clip(
    path: str | os.PathLike[str],
    choose: Callable[[int], Sequence[int]],
    *,
    resize: Resize | None = None,
    frames_per_second: float | None = None,
    threads: int = 1,
) -> Clip:
    """Open a video, let ``choose`` pick frame numbers from the number of frames that there are, and read those.

    A file can promise more frames than decode. If the choice reaches beyond those that do, ``choose`` is asked once
    more with the true number; the clip then has ``num_frames < num_promised``.
    """
    with open_video(path, frames_per_second=frames_per_second, threads=threads) as video:
        try:
            return video.read(choose(video.num_frames), resize=resize)
        except VideoError as error:
            if error.code != "truncated" or video.num_frames == 0:
                raise
        return video.read(choose(video.num_frames), resize=resize)


class VideoFile(Video):
    """A file that FFmpeg reads. Opening it lists its packets, which decodes nothing; it stays open until ``close``."""

    def __init__(self, path: str | os.PathLike[str], *, threads: int = 1) -> None:
        self.path = existing_path(path)
        self._threads = threads
        self._open = ExitStack()
        container, stream = self._open.enter_context(_opened(self.path, threads))
        try:
            self._frames_per_second = float(stream.average_rate or stream.guessed_rate or 25)
            self._packets = _list_packets(container, stream)
            self._survey(stream)
        except BaseException:
            self.close()
            raise
        self._stream = stream

    def close(self) -> None:
        self._open.close()

    def _survey(self, stream: VideoStream) -> None:
        """Count the packets that will become frames, and find when the first begins and the last ends.

        Packets that an edit list cuts off are marked "discard" and become none. What the file promises is in the index
        of mp4, mov and avi; webm and mkv keep no such index, so one that is cut off promises no more than it holds.
        """
        packets = self._packets
        indexed = sum(entry.size > 0 and not entry.is_discard for entry in stream.index_entries)
        self.num_frames = packets.num_frames
        self.num_promised = max(packets.num_frames, indexed)
        ticks = packets.end - packets.start
        tick = float(stream.time_base or 0)
        self.duration_seconds = ticks * tick if ticks > 0 else packets.num_frames / self._frames_per_second
        if packets.num_frames == 0:
            raise VideoError(
                f"the file announces {self.num_promised} frames and holds none; expected at least one. "
                "Copy or download it again",
                code="truncated" if self.num_promised else "empty",
                path=self.path,
            )

    @cached_property
    def size_px(self) -> tuple[int, int]:
        try:
            _, frame = next(self._decode([0]))
        except _EndOfVideoError as end:
            raise self._too_short(end, 0) from end.cause
        return _upright_size(frame)

    def read(self, indices: Sequence[int], *, resize: Resize | None = None) -> Clip:
        places = wanted_places(indices, self.path)
        times, durations = [0.0] * len(indices), [0.0] * len(indices)
        output: np.ndarray | None = None
        reformatter = VideoReformatter()
        try:
            for index, frame in self._decode(sorted(places)):
                if output is None:
                    size = _upright_size(frame)
                    output = np.empty((len(indices), *(resize(*size) if resize else size), 3), np.uint8)
                picture = _upright_rgb(frame, reformatter, output.shape[1], output.shape[2])
                for place in places[index]:
                    output[place] = picture
                    times[place], durations[place] = self._when(index, frame)
        except _EndOfVideoError as end:
            raise self._too_short(end, max(places)) from end.cause
        except av.error.FFmpegError as error:
            raise VideoError(
                f"a frame decodes but cannot be turned into RGB ({error.strerror}); convert the file to H.264",
                code="decode_error",
                path=self.path,
            ) from error
        assert output is not None
        self.num_frames = max(self.num_frames, max(places) + 1)
        return self._clip(torch.from_numpy(output).permute(0, 3, 1, 2), indices, times, durations)

    def _decode(self, wanted: Sequence[int]) -> Iterator[tuple[int, av.VideoFrame]]:
        """Yield (number, frame) for the wanted frame numbers, which are distinct and ascending.

        Where the packets' time stamps can be trusted, only what the wanted frames need is decoded; a wanted frame that
        does not come that way is looked for in sequence, from where the fast way has got to.
        """
        done = 0
        if self._packets.trusted and self._threads == 1 and wanted[-1] < self._packets.num_frames:
            for number, frame in _decode_selected(self._stream, self._packets, wanted):
                yield number, frame
                done += 1
        if done < len(wanted):
            yield from _decode_in_sequence(self.path, wanted[done:], self._threads)

    def _when(self, index: int, frame: av.VideoFrame) -> tuple[float, float]:
        """When a frame begins and how long it is shown; counted by the frame rate where the file gives no times."""
        tick = float(frame.time_base or 0)
        start = index / self._frames_per_second if frame.pts is None else frame.pts * tick
        return start, (frame.duration or 0) * tick or 1 / self._frames_per_second

    def _too_short(self, end: "_EndOfVideoError", asked: int) -> VideoError:
        """Correct ``num_frames``, and say in an error why frame ``asked`` cannot be had."""
        announced = self.num_promised
        self.num_frames = end.num_decoded
        cause = f" ({end.cause.strerror})" if end.cause else ""
        if end.num_decoded == 0:
            code, message = "decode_error", f"no frame decodes{cause}; expected {announced}. Copy or download it again"
        elif asked < announced:
            code = "truncated"
            message = (
                f"only {end.num_decoded} of {announced} announced frames decode{cause}, and frame {asked} was wanted. "
                f"Copy or download the file again, or ask for frames 0 to {end.num_decoded - 1}"
            )
        else:
            code = "too_few_frames"
            message = f"frame {asked} was wanted, the video has frames 0 to {end.num_decoded - 1}. Ask for one of those"
        return VideoError(message, code=code, path=self.path)


class _EndOfVideoError(Exception):
    """Decoding came to an end, at an error or not, before the last wanted frame. It never leaves this file."""

    def __init__(self, num_decoded: int, cause: av.error.FFmpegError | None) -> None:
        super().__init__(num_decoded)
        self.num_decoded = num_decoded
        self.cause = cause


@dataclass(frozen=True)
class _Packets:
    """The packets of a stream in the order in which they lie in the file, which is that of decoding.

    :param packets: themselves, the last one empty, which empties the decoder; None where together they are too large
        to hold.
    :param pts: their time stamps, in ticks; None where one has none.
    :param keys: the places of those from which decoding can begin.
    :param trusted: whether frame i of the video is the one with the i-th smallest time stamp.
    """

    packets: list[av.Packet] | None
    pts: list[int | None]
    keys: list[int]
    num_frames: int
    start: float
    end: float
    trusted: bool


# Compressed video kept in memory between listing the packets and decoding some of them; ten seconds of 1080p are 5 to
# 10 MB. A larger file is decoded in sequence.
MOST_BYTES_HELD = 24_000_000

# Containers whose time stamps say when each frame is shown, and codecs in which each packet is one frame. In the others
# (avi, mpeg, mpegts, raw streams) time stamps are missing, guessed or repeated.
TRUSTED_CONTAINERS = {"mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm"}
TRUSTED_CODECS = {"h264", "hevc", "mpeg4", "mjpeg", "vp9", "av1"}


def _list_packets(container: av.container.InputContainer, stream: VideoStream) -> _Packets:
    packets: list[av.Packet] | None = []
    pts: list[int | None] = []
    keys: list[int] = []
    count, size, start, end, discarded, broken = 0, 0, float("inf"), float("-inf"), False, False
    try:
        for packet in container.demux(stream):
            if packet.size and packet.is_discard:
                discarded = True
            elif packet.size:  # the last, empty one only empties the decoder
                count += 1
                if packet.pts is not None:
                    start = min(start, packet.pts)
                    end = max(end, packet.pts + (packet.duration or 0))
            size += packet.size
            if size > MOST_BYTES_HELD:
                packets = None
            if packets is not None:
                if packet.is_keyframe and packet.size:
                    keys.append(len(packets))
                packets.append(packet)
                pts.append(packet.pts)
    except av.error.FFmpegError:
        broken = True  # a broken file can end before its own index does
    known = {tick for tick in pts[:-1] if tick is not None}
    trusted = (
        packets is not None
        and count > 0
        and not discarded
        and not broken
        and len(known) == count == len(packets) - 1
        and container.format.name in TRUSTED_CONTAINERS
        and stream.codec_context.codec.canonical_name in TRUSTED_CODECS
        # Pictures shown before the first from which decoding can begin need others that are not there.
        and keys[:1] == [0]
        and pts[0] == start
    )
    return _Packets(packets, pts, keys, count, start, end, trusted)


def _decode_selected(
    stream: VideoStream, listed: _Packets, wanted: Sequence[int]
) -> Iterator[tuple[int, av.VideoFrame]]:
    """Yield (number, frame) for the wanted frames, decoding from the last possible beginning before each.

    On the way, frames that nobody wants and no other frame refers to are not decoded. Ends early, at the first wanted
    frame that does not come or at a decoder's error.
    """
    assert listed.packets is not None
    ticks = sorted(tick for tick in listed.pts[:-1] if tick is not None)
    goals = [ticks[number] for number in wanted]
    asked = set(goals)
    decoder = stream.codec_context
    decoder.flush_buffers()
    key_ticks = [listed.pts[place] for place in listed.keys]
    position = 0
    waiting: list[av.VideoFrame] = []  # wanted frames that came before their turn
    try:
        for number, goal in zip(wanted, goals, strict=True):
            frame = next((f for f in waiting if f.pts == goal), None)
            # The last beginning whose own frame is shown no later than the goal: what follows it in the file and is
            # shown before it may need earlier pictures, and is not the goal.
            begin = max(
                place for place, tick in zip(listed.keys, key_ticks, strict=True) if tick is not None and tick <= goal
            )
            if frame is None and begin > position:
                decoder.flush_buffers()
                position, waiting = begin, []
            while frame is None and position < len(listed.packets):
                packet = listed.packets[position]
                decoder.skip_frame = "DEFAULT" if packet.pts in asked or not packet.size else "NONREF"
                waiting += [f for f in decoder.decode(packet) if f.pts in asked]
                position += 1
                frame = next((f for f in waiting if f.pts == goal), None)
            if frame is None:
                return
            waiting.remove(frame)
            yield number, frame
    except av.error.FFmpegError:
        return
    finally:
        decoder.skip_frame = "DEFAULT"


def _decode_in_sequence(path: str, wanted: Sequence[int], threads: int) -> Iterator[tuple[int, av.VideoFrame]]:
    """Yield (number, frame) for the wanted frame numbers, which are distinct and ascending.

    This is the definition itself: everything from the beginning is decoded, up to the last wanted frame. A decoder
    error ends the video there.
    """
    num_decoded, remaining = 0, iter(wanted)
    target: int | None = next(remaining)
    with _opened(path, threads) as (container, stream):
        frames = container.decode(stream)
        while target is not None:
            try:
                frame = next(frames)
            except (StopIteration, av.error.FFmpegError) as end:
                cause = end if isinstance(end, av.error.FFmpegError) else None
                raise _EndOfVideoError(num_decoded, cause) from None
            if num_decoded == target:
                yield num_decoded, frame
                target = next(remaining, None)
            num_decoded += 1


@contextmanager
def _opened(path: str, threads: int) -> Iterator[tuple[av.container.InputContainer, VideoStream]]:
    """Open a file in FFmpeg and find its best video stream.

    "file:" keeps a name like 12:30.mp4 from being taken for a network address, and the whitelist keeps a playlist that
    poses as a video from opening other addresses. Text, pictures and playlists, which FFmpeg would play, are refused.
    """
    try:
        container = av.open(f"file:{path}", metadata_errors="ignore", options={"protocol_whitelist": "file"})
    except av.error.FFmpegError as error:
        raise VideoError(
            f"FFmpeg does not recognise a video in it ({error.strerror}); expected mp4, webm, avi, mkv or another "
            "video file, complete. Copy or download it again, or leave it out",
            code="not_video",
            path=path,
        ) from error
    with container:
        kind = container.format.name
        if kind in ("tty", "image2", "concat", "hls", "dash") or kind.endswith("_pipe"):
            raise VideoError(
                f"this is not a video ({kind}: a text, a picture or a list); expected mp4, webm, avi, mkv or another "
                "video file, or a folder of pictures. Leave it out",
                code="not_video",
                path=path,
            )
        stream = container.streams.best("video")
        if not isinstance(stream, VideoStream) or stream.disposition & Disposition.attached_pic:
            raise VideoError(
                "there is no video stream in it, only sound or other data; expected a moving picture. Leave it out",
                code="no_video_stream",
                path=path,
            )
        if stream.codec_context is None:
            raise VideoError(
                "this build of FFmpeg has no decoder for its video stream; convert the file to H.264",
                code="decode_error",
                path=path,
            )
        stream.thread_type = "NONE" if threads == 1 else "AUTO"
        stream.thread_count = threads
        yield container, stream


def _upright_size(frame: av.VideoFrame) -> tuple[int, int]:
    return (frame.width, frame.height) if _quarter_turns(frame) % 2 else (frame.height, frame.width)


def _upright_rgb(frame: av.VideoFrame, reformatter: VideoReformatter, height: int, width: int) -> np.ndarray:
    """The frame as (height, width, 3), scaled by swscale, then turned."""
    turns = _quarter_turns(frame)
    if turns % 2:
        height, width = width, height
    scaled = reformatter.reformat(
        frame, width=width, height=height, format="rgb24", interpolation=Interpolation.BILINEAR, threads=1
    )
    return np.rot90(scaled.to_ndarray(), turns)


def _quarter_turns(frame: av.VideoFrame) -> int:
    """How often to turn the stored picture by 90 degrees counter-clockwise until it is upright."""
    return round(frame.rotation / 90) % 4


def wanted_places(indices: Sequence[int], path: str) -> dict[int, list[int]]:
    """For every frame number that is asked for: at which places of the clip it goes."""
    if len(indices) == 0 or min(indices) < 0:
        raise UsageError(f"frames {list(indices)} were asked for; expected at least one, counted from 0", path=path)
    places: dict[int, list[int]] = {}
    for place, index in enumerate(indices):
        places.setdefault(int(index), []).append(place)
    return places


def existing_path(path: str | os.PathLike[str]) -> str:
    """The path as text, if a folder or a file with something in it is there; an error that says what is not."""
    path = os.fspath(path)
    if os.path.isdir(path):
        return path
    if not os.path.exists(path):
        what = f"a link to {os.readlink(path)}, which does not exist" if os.path.islink(path) else "no such file"
        raise VideoError(f"{what}; expected a video file or a folder of frames", code="missing", path=path)
    if not os.path.isfile(path):
        raise VideoError("neither a file nor a folder; expected a video file", code="not_video", path=path)
    try:
        with open(path, "rb") as handle:
            empty = not handle.read(1)
    except OSError as error:
        raise cannot_open(path, error) from error
    if empty:
        raise VideoError(
            "the file is empty (zero bytes); expected a video. Copy or download it again", code="empty", path=path
        )
    return path


def cannot_open(path: str, error: OSError) -> VideoError:
    code = "missing" if isinstance(error, FileNotFoundError) else "decode_error"
    return VideoError(f"it cannot be opened: {error.strerror}. Look at its permissions", code=code, path=path)
