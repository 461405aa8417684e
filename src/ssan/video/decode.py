"""Frames out of a video file.

Frame i of a file is the i-th frame that decoding its best video stream from the beginning to the end yields. That is
the definition to which everything here is held. FFmpeg picks the best stream (the one marked as default, else the one
with most bits). What FFmpeg would print goes nowhere: PyAV drops it.

Pictures come out upright: turned and mirrored as the file asks for (``ssan.video.display_matrix``), and ``height_px``,
``width_px`` and ``resize`` speak of the upright picture.

Unsaid by the paper, our choice: pixels stay as they are stored, also where the file says that they are not square
(many Kinetics clips do); tests/video/test_decode.py holds it. Resizing is bilinear with the filter widened when
shrinking.

How a file is read: opening it lists its packets (``ssan.video.packets``), which decodes nothing. From time stamps that
can be trusted follows which packet each wanted frame needs::

    packets in the file   I  P  b  b  P  b  b  I  P  b  b  P  b  b
    wanted                            *              *
    decoded               I  P        P        I  P  b             the rest of a group only where it is referred to

Where they cannot be trusted everything from the beginning to the last wanted frame is decoded. This file does without
torch: it also runs in the process apart (``ssan.video.reader``), which has to start quickly.
"""

import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import cached_property
from itertools import pairwise
from typing import NamedTuple

import av
import av.error
import numpy as np
from av.video.reformatter import VideoReformatter

from ssan.errors import VideoError
from ssan.video.clip import (
    Clip,
    Examination,
    Resize,
    Video,
    checked_size,
    existing_path,
    frames_at_once,
    positions_in_clip,
)
from ssan.video.container import open_container
from ssan.video.container_length import announced_bytes
from ssan.video.display_matrix import upright_rgb, upright_size
from ssan.video.packets import MOST_BYTES_HELD, list_packets


class Pictures(NamedTuple):
    """Frames as numpy has them: pixels (t, h, w, 3) of type uint8, and when each begins and how long it is shown."""

    pixels: np.ndarray
    times_seconds: list[float]
    durations_seconds: list[float]


class VideoFile(Video):
    """A file that FFmpeg reads. Opening it lists its packets, which decodes nothing; it stays open until ``close``."""

    def __init__(self, path: str | os.PathLike[str], *, threads: int = 1) -> None:
        self.path = existing_path(path)
        self._threads = threads
        self._open = ExitStack()
        self._container, self._stream = self._open.enter_context(open_container(self.path, threads))
        try:
            self._frames_per_second = float(self._stream.average_rate or self._stream.guessed_rate or 25)
            self._list()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self._open.close()

    def _list(self) -> None:
        self._packets = list_packets(self._container, self._stream)
        self._survey()

    def _reopen(self) -> None:
        self._open.close()
        self._container, self._stream = self._open.enter_context(open_container(self.path, self._threads))

    def _survey(self) -> None:
        """Count the packets that will become frames, and find when the first begins and the last ends.

        Packets that an edit list cuts off are marked "discard" and become none. What the file promises is in the index
        of mp4, mov and avi; webm and mkv keep no such index, so one that is cut off promises no more than it holds.
        """
        packets = self._packets
        self.num_frames = packets.num_frames
        self.num_promised = packets.num_frames + packets.num_missing
        self.random_access = packets.trusted and self._threads == 1
        self._tick = float(self._stream.time_base or 0)
        self._is_avi = self._container.format.name == "avi"
        self._has_stamps = self._is_avi or any(tick is not None for tick in packets.listing.pts)
        self._begins: Sequence[float] | None = packets.begins
        self._end = packets.end
        self._is_surveyed_in_sequence = False
        self._goals: Sequence[int] | Mapping[int, int] = packets.listing.ticks if packets.trusted else []
        if packets.num_frames == 0:
            raise VideoError(
                f"the file announces {self.num_promised} frames and holds none; expected at least one. "
                "Copy or download it again",
                code="truncated" if self.num_promised else "empty",
                path=self.path,
            )
        if not packets.single and packets.broken is None and packets.num_bytes <= MOST_BYTES_HELD:
            self._survey_in_sequence()
        begin = self._begins[0] if self._begins else packets.listing.start
        self.duration_seconds = (self._end - begin) * self._tick
        if not 0 < self.duration_seconds < math.inf or (self._is_avi and not self._begins):
            self.duration_seconds = self.num_frames / self._frames_per_second

    def _survey_in_sequence(self) -> None:
        """Decode everything once, to learn what packets do not tell: how many frames there are and when each begins."""
        self._is_surveyed_in_sequence = True
        shown: list[int | None] = []
        decoded: list[int | None] = []
        with open_container(self.path, self._threads) as (container, stream):
            try:
                # Both time stamps: where those of being shown lack or repeat, those of being decoded may do.
                for frame in container.decode(stream):
                    shown.append(frame.pts)
                    decoded.append(frame.dts)
            except av.error.FFmpegError:  # whoever reads it will be told
                pass
            else:
                self.num_frames = len(shown) or self.num_frames
                if not self._packets.num_missing:
                    self.num_promised = self.num_frames
        period = 1 / (self._frames_per_second * self._tick)
        # When they come out of an avi's decoder is counted in chunks; when they are shown would be a guess.
        self._begins = (None if self._is_avi else _ascending(shown, period)) or _ascending(decoded, period)
        if self._begins:
            self._end = self._begins[-1] + period

    @property
    def announced_size_px(self) -> tuple[int, int]:
        """Height and width by the file's header, not turned upright: likely those of the frames; 0 if not known."""
        return self._stream.codec_context.height, self._stream.codec_context.width

    @cached_property
    def size_px(self) -> tuple[int, int]:
        try:
            _, frame = next(self._decode([0]))
        except _EndOfVideoError as end:
            raise self._too_short(end, 0) from end.cause
        return upright_size(frame)

    def read(self, indices: Sequence[int], *, resize: Resize | None = None) -> Clip:
        return self._clip(self.pictures(indices, resize=resize), indices)

    def stream(self, *, resize: Resize | None = None) -> Iterator[Clip]:
        done = 0
        for pictures in self.stream_pictures(resize=resize):
            stop = done + len(pictures.pixels)
            yield self._clip(pictures, range(done, stop))
            done = stop

    def _clip(self, pictures: Pictures, indices: Sequence[int]) -> Clip:
        from torch import from_numpy

        return Clip(
            frames=from_numpy(pictures.pixels).permute(0, 3, 1, 2),
            indices=tuple(int(index) for index in indices),
            times_seconds=tuple(pictures.times_seconds),
            durations_seconds=tuple(pictures.durations_seconds),
            num_frames=self.num_frames,
            num_promised=self.num_promised,
            duration_seconds=self.duration_seconds,
            path=self.path,
        )

    def pictures(
        self,
        indices: Sequence[int],
        *,
        resize: Resize | None = None,
        allocate: Callable[[tuple[int, ...]], np.ndarray] | None = None,
    ) -> Pictures:
        """What ``read`` gives, as numpy has it; ``allocate`` gives the array of a shape to write the pixels into."""
        positions = positions_in_clip(indices, self.path)
        times, durations = [0.0] * len(indices), [0.0] * len(indices)
        output: np.ndarray | None = None
        reformatter = VideoReformatter()
        try:
            # In the order of the file, whatever that of the clip is: a decoder does not go back.
            for index, frame in self._decode(sorted(positions)):
                if output is None:
                    size = upright_size(frame)
                    size = checked_size(*(resize(*size) if resize else size), self.path)
                    shape = (len(indices), *size, 3)
                    output = allocate(shape) if allocate else np.empty(shape, np.uint8)
                picture = upright_rgb(frame, reformatter, output.shape[1], output.shape[2])
                for position in positions[index]:
                    output[position] = picture
                    times[position], durations[position] = self._when(index, frame)
        except _EndOfVideoError as end:
            raise self._too_short(end, max(positions)) from end.cause
        except av.error.FFmpegError as error:
            raise self._no_rgb(error) from error
        assert output is not None
        self.num_frames = max(self.num_frames, max(positions) + 1)
        return Pictures(output, times, durations)

    def stream_pictures(
        self, *, resize: Resize | None = None, allocate: Callable[[tuple[int, ...]], np.ndarray] | None = None
    ) -> Iterator[Pictures]:
        """What ``stream`` gives, as numpy has it. All is decoded in sequence, once, by a decoder of its own.

        The array that ``allocate`` gives is written to before its pictures are given, and not after that.
        """
        reformatter = VideoReformatter()
        size: tuple[int, int] | None = None
        output: np.ndarray | None = None
        times: list[float] = []
        durations: list[float] = []
        seen = _Seen()
        cause: av.error.FFmpegError | None = None
        with open_container(self.path, self._threads) as (container, stream):
            frames = container.decode(stream)
            while True:  # not a for loop: an error of decoding ends the video, one of making RGB of a frame does not
                try:
                    frame = next(frames)
                except (StopIteration, av.error.FFmpegError) as end:
                    cause = end if isinstance(end, av.error.FFmpegError) else None
                    break
                if size is None:
                    size = upright_size(frame)
                    size = checked_size(*(resize(*size) if resize else size), self.path)
                if output is None:
                    shape = (frames_at_once(*size), *size, 3)
                    output, times, durations = allocate(shape) if allocate else np.empty(shape, np.uint8), [], []
                try:
                    output[len(times)] = upright_rgb(frame, reformatter, *size)
                except av.error.FFmpegError as error:
                    raise self._no_rgb(error) from error
                begin, length = self._when(seen.num_decoded, frame)
                seen.add(frame, begin, length)
                times.append(begin)
                durations.append(length)
                if len(times) == len(output):
                    yield Pictures(output, times, durations)
                    output = None
            if output is not None:
                yield Pictures(output[: len(times)], times, durations)
        done = seen.num_decoded
        lacking = cause or self._packets.num_missing or self._lacks_frames(seen)
        if done == 0 or (done < self.num_promised and lacking):
            raise self._too_short(_EndOfVideoError(done, cause), done) from cause
        self.num_frames = self.num_promised = done

    def _no_rgb(self, error: av.error.FFmpegError) -> VideoError:
        return VideoError(
            f"a frame decodes but cannot be turned into RGB ({error.strerror}); convert the file to H.264",
            code="decode_error",
            path=self.path,
        )

    def examine(self) -> Examination:
        return next(found for found in self.examining() if found is not None)

    def examining(self) -> Iterator[Examination | None]:
        """Decode from the first packet to the last; after each packet None, at the end what was found.

        As everywhere, a decoder's error ends the video. Frames that the decoder calls corrupt are damaged: it has made
        up what it could not decode. Damage that leaves the stream well formed, a few bits in most codecs, stays unseen.
        """
        seen = _Seen()
        cause: av.error.FFmpegError | None = self._packets.broken
        try:
            with open_container(self.path, self._threads) as (container, stream):
                # By packets, as many may give no frame, and whoever examines in stretches of time has to stop between.
                for packet in container.demux(stream):
                    for frame in packet.decode():
                        seen.add(frame, *self._when(seen.num_decoded, frame))
                    yield None
        except av.error.FFmpegError as end:
            cause = end
        if seen.num_decoded == 0:
            yield Examination(self.num_promised, 0, 0.0, self._too_short(_EndOfVideoError(0, cause), 0))
            return
        self.num_frames = decoded = seen.num_decoded
        promised = self.num_promised
        at_seconds: float | None = None
        error: VideoError | None = None
        size, announced = os.stat(self.path).st_size, announced_bytes(self.path) or 0
        if cause or size < announced:
            at_seconds = seen.end_seconds
            reason, lacking = f" ({cause.strerror})" if cause else "", ""
            if size < announced:
                promised = max(promised, self._promised_by_header())
                lacking = f", and only {size:,} of {announced:,} bytes are there"
            message = (
                f"the video ends early, at {at_seconds:.2f} s: {decoded} of {promised} announced frames decode{reason}"
                f"{lacking}; expected all of them. Copy or download it again"
            )
            error = VideoError(message, code="truncated", path=self.path)
        elif seen.num_corrupt:
            at_seconds = seen.corrupt_seconds
            message = (
                f"{seen.num_corrupt} of {decoded} frames are damaged, the first at {at_seconds:.2f} s; expected all of "
                "them whole. Copy or download it again"
            )
            error = VideoError(message, code="decode_error", path=self.path)
        elif self._packets.num_missing or self._lacks_frames(seen):
            at_seconds = seen.end_seconds
            message = (
                f"{decoded} of {promised} announced frames decode, the last ends at {at_seconds:.2f} s; expected all "
                "of them. Copy or download it again"
            )
            error = VideoError(message, code="truncated", path=self.path)
        yield Examination(promised, decoded, at_seconds, error)

    def _promised_by_header(self) -> int:
        """How many frames the header speaks of, by their count or by the length in time; 0 where by neither."""
        seconds = (self._container.duration or 0) / av.time_base
        return max(self._stream.frames, round(seconds * self._frames_per_second))

    def _lacks_frames(self, seen: "_Seen") -> bool:
        """Whether fewer frames came than there are in the packets, of a video that was decoded to its end.

        Where each packet is one frame they are counted. Elsewhere packets can be half a frame, or be there only for
        others to refer to, and frames are lacking where the last comes long before the last packet's time.
        """
        if self._packets.trusted and not seen.interlaced:
            return seen.num_decoded < self.num_promised
        last = self._packets.listing.end
        if seen.last_ticks is None or self._is_avi or not self._packets.single or not math.isfinite(last):
            return False
        return (last - seen.last_ticks) * self._tick > 3 / self._frames_per_second

    def _decode(self, wanted: Sequence[int]) -> Iterator[tuple[int, av.VideoFrame]]:
        """Yield (number, frame) for the wanted frame numbers, which are distinct and ascending.

        Where the packets' time stamps can be trusted, only what the wanted frames need is decoded; a wanted frame that
        does not come that way is looked for in sequence.
        """
        done = 0
        if self.random_access and wanted[-1] < self._packets.num_frames:
            for number, frame in self._decode_selected(wanted):
                yield number, frame
                done += 1
        if done < len(wanted):
            # Anew: nothing that was done to list packets, or to decode some of them, can change what comes.
            first = self._first_number()
            with open_container(self.path, self._threads) as (container, stream):
                for number, frame in _in_sequence(container.decode(stream), [first + n for n in wanted[done:]]):
                    yield number - first, frame

    def _first_number(self) -> int:
        """The number in the file of the frame that is number 0 here."""
        return 0

    def _decode_selected(self, wanted: Sequence[int]) -> Iterator[tuple[int, av.VideoFrame]]:
        """Yield (number, frame) for the wanted frames, decoding from the last possible beginning before each.

        On the way, frames that nobody wants and no other frame refers to are not decoded. Where the next wanted frame
        has a beginning of its own, the decoder is emptied instead of fed until it gives the frame up; not at the end of
        the file, where damage is likely and has to be met. Ends early, at the first wanted frame that does not come, at
        a decoder's error, at a frame that it calls corrupt, and at an interlaced one, of which a packet can be half.
        Damage that it meets nowhere, in what is not decoded, stays unseen.
        """
        listed, decoder = self._packets.listing, self._stream.codec_context
        goals = [self._goals[number] for number in wanted]
        begins = [listed.last_beginning(goal) for goal in goals]
        asked, tail = set(goals), set(listed.pts[-MOST_DELAY:])
        packets: Iterator[av.Packet] = iter(())
        began = -1
        waiting: list[av.VideoFrame] = []  # wanted frames that came before their turn
        try:
            # One decoder for all: of wanted frames in one group those before are decoded once.
            for number, goal, begin, following in zip(wanted, goals, begins, [*begins[1:], math.inf], strict=True):
                frame = next((f for f in waiting if f.pts == goal), None)
                if frame is None and begin > began:
                    decoder.flush_buffers()
                    packets, began, waiting = self._packets_from(begin), begin, []
                while frame is None:  # the decoder holds frames back, so that the wanted one may come packets later
                    packet = next(packets, None)
                    if packet is None:
                        return
                    decoder.skip_frame = "DEFAULT" if packet.pts in asked or not packet.size else "NONREF"
                    frames = decoder.decode(packet)
                    if packet.pts == goal and following > began and goal not in tail:
                        frames += decoder.decode(None)
                        packets = iter(())
                    for come in frames:
                        if come.is_corrupt or come.interlaced_frame:
                            return
                        if come.pts == goal:
                            frame = come
                        if come.pts in asked:
                            waiting.append(come)
                waiting.remove(frame)
                yield number, frame
        except av.error.FFmpegError:
            return
        finally:
            decoder.skip_frame = "DEFAULT"

    def _packets_from(self, position: int) -> Iterator[av.Packet]:
        """The packets from one that begins a group on, out of memory or, where they are too many, out of the file.

        Ends early where seeking leads elsewhere, or to other packets than were listed.
        """
        if self._packets.held is not None:
            for held in range(position, len(self._packets.held)):
                yield self._packets.held[held]
            return
        listed = self._packets.listing
        self._container.seek(listed.seek_tick(position), stream=self._stream)
        number = None
        # Each is compared with the list: a file's own index of where to seek may be wrong, and nothing else would tell.
        for packet in self._container.demux(self._stream):
            if number is None:
                number = listed.position_of(packet.pts)
                if number is None or number > position:
                    return
            if packet.size and (number >= len(listed.pts) or listed.pts[number] != packet.pts):
                return
            if number >= position:
                yield packet
            number += 1

    def begin_seconds(self, index: int) -> float:
        self._find_begins()
        if self._begins is None:
            return index / self._frames_per_second
        beyond = index - len(self._begins) + 1
        if beyond > 0:
            return self.begin_seconds(len(self._begins) - 1) + beyond / self._frames_per_second
        return (self._begins[index] - self._begins[0]) * self._tick

    def span_seconds(self, start_seconds: float | None, end_seconds: float | None) -> tuple[int, int]:
        if start_seconds or end_seconds is not None:
            self._find_begins()  # which may correct the number of frames
        return super().span_seconds(start_seconds, end_seconds)

    def frames_at(self, moments_seconds: Sequence[float]) -> list[int]:
        self._find_begins()  # which may correct the number of frames
        return super().frames_at(moments_seconds)

    def _find_begins(self) -> None:
        """Find when frames begin, where the file has time stamps; in one that has none the frame rate counts.

        :raises VideoError: time stamps lack, repeat or go back.
        """
        if self._begins is None and self._has_stamps and not self._is_surveyed_in_sequence:
            self._survey_in_sequence()
        if self._begins is None and self._has_stamps:
            raise VideoError(
                "its time stamps lack, repeat or go back, and what is shown at which second cannot be told; expected "
                "one for each frame, ascending. Use the video as a whole, or convert it to mp4",
                code="decode_error",
                path=self.path,
            )

    def _when(self, index: int, frame: av.VideoFrame) -> tuple[float, float]:
        """When a frame begins and how long it is shown; counted by the frame rate where the file gives no times."""
        period = 1 / self._frames_per_second
        if not self._is_avi and frame.pts is not None:
            return frame.pts * self._tick, (frame.duration or 0) * self._tick or period
        if self._begins is None or index >= len(self._begins):
            return index * period, period
        following = self._begins[index + 1] if index + 1 < len(self._begins) else self._end
        return self._begins[index] * self._tick, (following - self._begins[index]) * self._tick

    def _too_short(self, end: "_EndOfVideoError", asked: int) -> VideoError:
        """Correct ``num_frames``, and say in an error why frame ``asked`` cannot be had."""
        if not end.cause and end.num_decoded and not (self._packets.begins or self._packets.num_missing):
            self.num_promised = end.num_decoded  # packets did not tell how many frames they are
        announced = max(self.num_promised, self.num_frames)
        self.num_frames = num_decoded = max(end.num_decoded - self._first_number(), 0)
        cause = f" ({end.cause.strerror})" if end.cause else ""
        if num_decoded == 0:
            code, message = "decode_error", f"no frame decodes{cause}; expected {announced}. Copy or download it again"
        elif asked < announced:
            code = "truncated"
            message = (
                f"only {num_decoded} of {announced} announced frames decode{cause}, and frame {asked} was wanted. "
                f"Copy or download the file again, or ask for frames 0 to {num_decoded - 1}"
            )
        else:
            code = "too_few_frames"
            message = f"frame {asked} was wanted, the video has frames 0 to {num_decoded - 1}. Ask for one of those"
        return VideoError(message, code=code, path=self.path)


MOST_DELAY = 16
"""How many pictures a decoder may hold back, by the standards of H.264 and HEVC."""


class _Seen:
    """What has been seen of a video while all of it is decoded; times are counted from the first frame."""

    def __init__(self) -> None:
        self.num_decoded = self.num_corrupt = 0
        self.begin_seconds = self.end_seconds = 0.0
        self.corrupt_seconds: float | None = None
        self.last_ticks: int | None = None
        self.interlaced = False

    def add(self, frame: av.VideoFrame, time_seconds: float, duration_seconds: float) -> None:
        if self.num_decoded == 0:
            self.begin_seconds = time_seconds
        since = max(0.0, time_seconds - self.begin_seconds)
        if frame.is_corrupt:
            self.num_corrupt += 1
            if self.corrupt_seconds is None:
                self.corrupt_seconds = since
        self.num_decoded += 1
        self.end_seconds = max(self.end_seconds, since + duration_seconds)
        self.interlaced |= bool(frame.interlaced_frame)
        if frame.pts is not None:
            self.last_ticks = max(frame.pts, self.last_ticks if self.last_ticks is not None else frame.pts)


def _ascending(ticks: Sequence[int | None], period: float) -> list[float] | None:
    """Time stamps, if each is above the one before; of the last, which may lack, what a constant rate makes them."""
    known: list[float] = [tick for tick in ticks if tick is not None]
    if not known or None in ticks[: len(known)]:
        return None
    known += [known[-1] + period * number for number in range(1, len(ticks) - len(known) + 1)]
    return known if all(before < after for before, after in pairwise(known)) else None


class _EndOfVideoError(Exception):
    """Decoding came to an end, at an error or not, before the last wanted frame. It never leaves this file."""

    def __init__(self, num_decoded: int, cause: av.error.FFmpegError | None) -> None:
        super().__init__(num_decoded)
        self.num_decoded = num_decoded
        self.cause = cause


def _in_sequence(frames: Iterator[av.VideoFrame], wanted: Sequence[int]) -> Iterator[tuple[int, av.VideoFrame]]:
    """Yield (number, frame) for the wanted frame numbers, which are distinct and ascending.

    This is the definition itself: all frames from the beginning, up to the last wanted one. A decoder's error ends the
    video there.
    """
    num_decoded, remaining = 0, iter(wanted)
    target: int | None = next(remaining)
    while target is not None:  # counting what comes out, and nothing that a packet says
        try:
            frame = next(frames)
        except (StopIteration, av.error.FFmpegError) as end:
            cause = end if isinstance(end, av.error.FFmpegError) else None
            raise _EndOfVideoError(num_decoded, cause) from None
        if num_decoded == target:
            yield num_decoded, frame
            target = next(remaining, None)
        num_decoded += 1
