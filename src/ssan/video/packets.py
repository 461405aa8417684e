"""Packets of a video file, listed without decoding: when their frames are shown, and where decoding can begin.

Where time stamps can be trusted, frame i of the video is the one with the i-th smallest of them, and
``ssan.video.decode`` takes out of the file only what it needs for that one. Where anything speaks against it (pictures
that may give no frame, headers that change within the stream), the file is decoded in sequence.
"""

import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate, pairwise

import av
import av.container
import av.error
from av.video.stream import VideoStream

from ssan.video.bitstream import NO_PICTURE, Headers, picture_types, shown


@dataclass
class Listing:
    """What is kept of each packet that is not empty, in the order of the file, which is that of decoding.

    :param pts: time stamps, in ticks; None where there is none.
    :param beginnings: the positions of those where decoding can begin, and in ``seek_ticks`` where to seek for them.
    :param discarded: the positions of those that an edit list cuts off.
    """

    pts: list[int | None] = field(default_factory=list)
    beginnings: list[int] = field(default_factory=list)
    seek_ticks: list[int] = field(default_factory=list)
    start: float = math.inf
    end: float = -math.inf
    discarded: list[int] = field(default_factory=list)

    def add(self, packet: av.Packet) -> None:
        pts, discarded = packet.pts, packet.is_discard
        if pts is not None:
            if packet.is_keyframe:
                dts = packet.dts
                self.beginnings.append(len(self.pts))
                self.seek_ticks.append(pts if dts is None else min(pts, dts))
            if not discarded:
                self.start = min(self.start, pts)
                self.end = max(self.end, pts + (packet.duration or 0))
        if discarded:
            self.discarded.append(len(self.pts))
        self.pts.append(pts)

    def is_complete(self) -> bool:
        """Whether frame i of the video can be told to be the one with the i-th smallest time stamp."""
        return (
            len(self.pts) > 0
            and None not in self.pts
            and len(set(self.pts)) == len(self.pts)
            # Pictures shown before the first from which decoding can begin need others that are not there.
            and self.beginnings[:1] == [0]
            and self.pts[0] == self.start
        )

    def begins(self) -> list[int] | None:
        """When the frames begin that are not cut off, in ticks, ascending; None where stamps lack or repeat."""
        cut = set(self.discarded)
        ticks = [tick for position, tick in enumerate(self.pts) if position not in cut]
        known = sorted(tick for tick in ticks if tick is not None)
        return known if known and len(set(known)) == len(ticks) else None

    @cached_property
    def ticks(self) -> list[int]:
        """Time stamps in the order in which frames are shown; as the others below it is for when the list is whole."""
        return sorted(tick for tick in self.pts if tick is not None)

    @cached_property
    def _positions(self) -> dict[int | None, int]:
        return {tick: position for position, tick in reversed(list(enumerate(self.pts)))}  # of equal ones the first

    @cached_property
    def _beginnings_by_tick(self) -> tuple[list[int], list[int]]:
        """The beginnings' time stamps, ascending, and for each the last position of a beginning shown no later."""
        by_tick = sorted((tick, position) for position in self.beginnings if (tick := self.pts[position]) is not None)
        return [tick for tick, _ in by_tick], list(accumulate((position for _, position in by_tick), max))

    def last_beginning(self, tick: int) -> int:
        """The last position to begin whose own frame is shown no later than ``tick``; one of them must be.

        What follows it in the file and is shown before it may need earlier pictures, and is not the frame at ``tick``.
        In a file that lists key frames in another order than it shows them, that need not be the one shown last.
        """
        ticks, last = self._beginnings_by_tick
        number = bisect_right(ticks, tick)
        assert number
        return last[number - 1]

    def position_of(self, tick: int | None) -> int | None:
        """The position of the first packet with this time stamp, if there is one."""
        return self._positions.get(tick)

    def seek_tick(self, beginning: int) -> int:
        """Where to seek for the packet at this position, from which decoding can begin."""
        return self.seek_ticks[bisect_left(self.beginnings, beginning)]


@dataclass(frozen=True)
class Packets:
    """The packets of a stream.

    :param held: themselves, the last one empty, which empties the decoder; None where together they are too large, or
        the file is read in sequence.
    :param num_frames: how many frames they are, as far as packets tell.
    :param num_missing: how many more the index of the file tells of, where it has one.
    :param broken: what ended the listing before the end of the file.
    :param trusted: whether frame i of the video is the one with the i-th smallest time stamp.
    :param single: whether each packet holds one picture, which is coded; only of MPEG-4 it may be in doubt.
    :param num_bytes: of all packets.
    :param begins: when each frame begins, in ticks, in the order in which they are shown; None where packets do not
        tell. In an avi these are the numbers of chunks, and ``end`` is the one behind the last.
    """

    held: Sequence[av.Packet] | None
    listing: Listing
    num_frames: int
    num_missing: int
    broken: av.error.FFmpegError | None
    trusted: bool
    single: bool
    num_bytes: int
    begins: Sequence[float] | None
    end: float


# Compressed video kept in memory between listing the packets and decoding some of them; ten seconds of 1080p are 5 to
# 10 MB. Of a larger file the wanted groups are read once more.
MOST_BYTES_HELD = 16_000_000

# Containers whose time stamps say when each frame is shown, and codecs in which each packet is one frame, with the
# exceptions that ``ssan.video.bitstream`` knows. In the others (avi, mpeg, mpegts, raw streams) time stamps lack, are
# guessed or repeated; of MPEG-4 in avi the order in which frames are shown follows from their types.
TRUSTED_CONTAINERS = {"mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm"}
TRUSTED_CODECS = {"h264", "hevc", "mpeg4", "mjpeg", "vp9", "av1"}

HIDING_CODECS = {"vp8"}
"""Their packets can hold pictures that are never shown."""

CHANGES = {"new_extradata", "param_change"}


def brings_change(packet: av.Packet) -> bool:
    """Whether the decoder's headers change with this packet, as in an mp4 with several sample descriptions.

    They come with the first packet that needs them alone: whoever begins to decode behind it lacks them.
    """
    return any(beside.data_type in CHANGES for beside in packet.iter_sidedata())


def list_packets(container: av.container.InputContainer, stream: VideoStream) -> Packets:
    """What ``container`` holds of a stream."""
    codec = stream.codec_context.codec.canonical_name
    is_avi, is_mpeg4 = container.format.name == "avi", codec == "mpeg4"
    known = codec in TRUSTED_CODECS and (container.format.name in TRUSTED_CONTAINERS or (is_avi and is_mpeg4))
    headers = Headers(codec, stream.codec_context.extradata or b"")
    held: list[av.Packet] | None = [] if known else None
    listing = Listing()
    types: list[int] = []  # of MPEG-4 pictures
    num_coded, single, same = 0, True, True
    chunks: list[int | None] = []
    size = 0
    broken: av.error.FFmpegError | None = None
    try:
        # All is asked of a packet while it is here: a large file is not held, and reading it again takes long.
        for packet in container.demux(stream):
            if held is not None:
                held.append(packet)
            size += packet.size
            if size > MOST_BYTES_HELD:
                held = None
            if not packet.size:  # the last one is empty, and only empties the decoder
                continue
            listing.add(packet)
            if is_avi:
                chunks.append(packet.dts)
            if is_mpeg4:
                kinds = picture_types(bytes(packet))
                single &= len(kinds) == 1 and kinds[0] != NO_PICTURE
                num_coded += len(kinds) - kinds.count(NO_PICTURE)
                types += kinds
            if known and same:
                same = headers.hold_in(bytes(packet)) and not brings_change(packet)
    except av.error.FFmpegError as error:
        broken = error  # a broken file can end before its own index does
    num_packets = len(listing.pts) - len(listing.discarded)
    num_indexed = sum(entry.size > 0 and not entry.is_discard for entry in stream.index_entries)
    begins = _begins_of_chunks(chunks) if is_avi else listing.begins()
    counted = single and begins is not None and codec not in HIDING_CODECS
    if not is_avi:
        counted = counted and (listing.is_complete() or bool(listing.discarded))
    trusted = known and single and same and broken is None and not listing.discarded
    end = listing.end
    if is_avi:
        end = _end_of_chunks(begins or [], stream, whole=broken is None and num_packets == num_indexed)
        numbers = shown(types, bool(stream.codec_context.has_b_frames)) if is_mpeg4 and trusted and held else None
        if numbers is None:
            trusted = False
        else:
            listing = _in_order_shown(held or [], numbers)
    trusted = trusted and listing.is_complete()
    return Packets(
        held=held if trusted else None,
        listing=listing,
        num_frames=num_packets if single else max(num_coded, 1),
        num_missing=max(0, num_indexed - num_packets),
        broken=broken,
        trusted=trusted,
        single=single,
        num_bytes=size,
        begins=begins if counted else None,
        end=end,
    )


def _begins_of_chunks(chunks: Sequence[int | None]) -> list[int] | None:
    """The numbers of an avi's chunks that hold pictures; None where they lack or repeat.

    Avi has a frame rate and no times: a chunk is shown for one frame, and where it is empty the picture before it is
    shown on. The order of pictures is another where some refer to later ones, but not when one is shown.
    """
    known = [number for number in chunks if number is not None]
    in_order = all(before < after for before, after in pairwise(known))
    return known if known and len(known) == len(chunks) and in_order else None


def _end_of_chunks(begins: Sequence[int], stream: VideoStream, whole: bool) -> float:
    """Where the last picture of an avi ends: chunks behind it are in the header's count, of a file that is whole."""
    if not begins:
        return -math.inf
    step = min((after - before for before, after in pairwise(begins)), default=1)
    return max(begins[-1] + step, (stream.duration or 0) if whole else 0)


def _in_order_shown(packets: Sequence[av.Packet], numbers: Sequence[int]) -> Listing:
    """What is kept of an avi's pictures, with the numbers at which they are shown for time stamps."""
    listing = Listing()
    # Packets get these numbers too: the decoder hands them on, which is how a frame is told from the others.
    for packet, number in zip(packets, numbers, strict=False):  # the last one is empty
        packet.pts = packet.dts = number
        listing.add(packet)
    return listing
