"""Part of a video file, of which no more is read than it needs, however long the file is.

Of mp4 and Matroska, FFmpeg seeks by the file's index to the last key frame before the part. From there packets are
listed until the part is over for certain, and its frames are those that begin in it, numbered from the first of them::

    packets   ... I  b  b  P  b  b  P  I  b  b  P  b  b  P  I  b  b  P ...
    part                      [--------------)
    listed        I  b  b  P  b  b  P  I  b  b  P  b  b  P  I              and some more

What number they have in the whole nobody needs to know. Where anything speaks against it, the whole is listed.
"""

import math
import os
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import islice

import av
import av.container
import av.error
import numpy as np
from av.video.stream import VideoStream

from ssan.errors import UsageError
from ssan.video.bitstream import Headers
from ssan.video.clip import HAIR_SECONDS, Clip, Resize, SecondsPart, Video, begins_too_late
from ssan.video.decode import MOST_DELAY, Pictures, VideoFile
from ssan.video.groups import LongFile, is_long
from ssan.video.packets import MOST_BYTES_HELD, TRUSTED_CODECS, TRUSTED_CONTAINERS, Listing, Packets, brings_change


def open_file(path: str | os.PathLike[str], *, threads: int = 1, part: SecondsPart | None = None) -> VideoFile:
    """Open a video file, or a part of one."""
    return LongFile(path, threads=threads) if part is None else FilePart(path, part, threads=threads)


class FilePart(VideoFile):
    """The frames of a file that begin in a part of it, [start, end) seconds, numbered from the first of them.

    ``num_frames``, ``num_promised`` and ``duration_seconds`` are those of the part. Which frames belong to it is as
    ``Video.span`` says.
    """

    part: SecondsPart

    def __init__(self, path: str | os.PathLike[str], part: SecondsPart, *, threads: int = 1) -> None:
        self.part = part
        self._first: int | None = None
        self._offset = 0  # in what the whole was found to hold
        super().__init__(path, threads=threads)

    def _list(self) -> None:
        start, end = self.part
        if is_long(self):
            packets = list_part(self._container, self._stream, start or 0.0, end, self.path)
            if packets is not None:
                self._packets = packets
                self._survey()
                self._goals = [*map(int, packets.begins or [])]
                return
            self._reopen()
        super()._list()
        first, stop = VideoFile.span_seconds(self, start, end)
        begin = self.begin_seconds(first) if first else 0.0
        lasts = self.begin_seconds(stop) if stop < self.num_frames else self.duration_seconds
        self.duration_seconds = lasts - begin
        self._first = self._offset = first
        goals = self._packets.listing.ticks if self._packets.trusted else []
        self._goals = goals[first:stop]
        self._packets = replace(self._packets, num_frames=stop - first)
        self.num_frames = self.num_promised = stop - first

    def _first_number(self) -> int:
        if self._first is None:
            with VideoFile(self.path, threads=self._threads) as whole:
                self._first, _ = whole.span(*self.part)
        return self._first

    def begin_seconds(self, index: int) -> float:
        if not self._offset:
            return super().begin_seconds(index)
        return super().begin_seconds(index + self._offset) - super().begin_seconds(self._offset)

    def _when(self, index: int, frame: av.VideoFrame) -> tuple[float, float]:
        return super()._when(index + self._offset, frame)

    def span_seconds(self, start_seconds: float | None, end_seconds: float | None) -> tuple[int, int]:
        raise UsageError("a part of a video has no parts; open the whole video", path=self.path)

    def stream(self, *, resize: Resize | None = None) -> Iterator[Clip]:
        return Video.stream(self, resize=resize)

    def stream_pictures(
        self, *, resize: Resize | None = None, allocate: Callable[[tuple[int, ...]], np.ndarray] | None = None
    ) -> Iterator[Pictures]:
        raise UsageError(
            "a part of a video is read by the numbers of its frames; open the whole video to read it in sequence",
            path=self.path,
        )


def list_part(
    container: av.container.InputContainer,
    stream: VideoStream,
    start_seconds: float,
    end_seconds: float | None,
    path: str,
) -> Packets | None:
    """The packets that the frames of a part need, ``begins`` being when those frames do; None where that is not sure.

    Sure it is where every packet is one frame with a time stamp of its own, the first packet of the file is that of the
    first frame, and seeking leads to a key frame shown no later than the part begins. How far the order of frames may
    be from that of packets the standards say (``MOST_DELAY``).

    :raises VideoError: the part begins after the video has ended.
    """
    codec = stream.codec_context.codec.canonical_name
    # An MPEG-4 picture may be no frame; that only the whole tells.
    if container.format.name not in TRUSTED_CONTAINERS or codec not in TRUSTED_CODECS - {"mpeg4"}:
        return None
    headers, tick = Headers(codec, stream.codec_context.extradata or b""), float(stream.time_base or 0)

    def is_plain(packet: av.Packet) -> bool:
        return (
            packet.pts is not None
            and not packet.is_discard
            and not brings_change(packet)
            and headers.hold_in(bytes(packet))
        )

    listing = Listing()
    held: list[av.Packet] | None = []
    size, num_behind, is_at_end = 0, 0, False
    try:
        head = _head(container, stream, is_plain)
        if head is None or not tick:
            return None
        begin = int(head.start)
        wanted = begin + (start_seconds - HAIR_SECONDS) / tick
        until = math.inf if end_seconds is None else begin + (end_seconds - HAIR_SECONDS) / tick
        # On behind the part until no later packet can hold one of its frames, held back as they may be.
        for packet in _packets_from(container, stream, wanted, head):
            is_at_end = not packet.size
            if held is not None:
                held.append(packet)
            if is_at_end:
                break
            if not is_plain(packet):
                return None
            listing.add(packet)
            size += packet.size
            if size > MOST_BYTES_HELD:
                held = None
            num_behind += (packet.pts or 0) >= until
            if num_behind > 2 * MOST_DELAY:
                break
    except av.error.FFmpegError:
        return None
    key = listing.pts[0] if listing.pts and listing.beginnings[:1] == [0] else None
    known = listing.begins()
    if key is None or known is None:
        return None
    # What is shown before the first key frame, but stands behind it, needs others that are not listed.
    ticks = known[bisect_left(known, key) :]
    if is_at_end and start_seconds >= max((listing.end - begin) * tick, HAIR_SECONDS):
        raise begins_too_late(start_seconds, (listing.end - begin) * tick, path)
    if held is not None and not is_at_end:
        held.append(av.Packet())
    return _of_frames(listing, ticks, wanted, until, held, size)


def _head(
    container: av.container.InputContainer, stream: VideoStream, is_plain: Callable[[av.Packet], bool]
) -> Listing | None:
    """The first packets of a file; None where one is not plain, or when the first frame is shown is not sure."""
    head = Listing()
    # Another packet may be shown before the first one: as many are looked at as a decoder holds back, twice.
    for packet in islice(container.demux(stream), 2 * MOST_DELAY):
        if packet.size:
            if not is_plain(packet):
                return None
            head.add(packet)
    return head if head.is_complete() else None


def _of_frames(
    listing: Listing, ticks: Sequence[int], wanted: float, until: float, held: list[av.Packet] | None, size: int
) -> Packets:
    """What is listed, for the frames that begin in [wanted, until), or the one that is shown there.

    :param ticks: when the frames of the listing begin that need nothing but what is listed.
    """
    first, stop = bisect_left(ticks, wanted), bisect_left(ticks, until)
    first, stop = (first, stop) if first < stop else (max(first - 1, 0), max(first, 1))
    return Packets(
        held=held,
        listing=listing,
        num_frames=stop - first,
        num_missing=0,
        broken=None,
        trusted=True,
        single=True,
        num_bytes=size,
        begins=ticks[first:stop],
        end=ticks[stop] if stop < len(ticks) else listing.end,
    )


def _packets_from(
    container: av.container.InputContainer, stream: VideoStream, wanted: float, head: Listing
) -> Iterator[av.Packet]:
    """The packets from the last key frame on that is shown no later than a tick; none where it is not found.

    Where to seek may be counted by when frames are decoded, and the key frame found so be shown later.
    """
    earliest, back = head.seek_ticks[0], 0.0
    while True:  # further back each time: how much later a key frame is shown than decoded nothing says
        target = max(math.floor(wanted - back), earliest)
        container.seek(target, stream=stream)
        packets = container.demux(stream)
        first = next(packets, None)
        if first is None or not first.is_keyframe or first.pts is None:
            return
        if first.pts <= max(wanted, head.start):
            yield first
            yield from packets
            return
        if target == earliest:
            return
        back = max(2 * back, 1 / float(stream.time_base or 1))
