"""What a video file holds, found without decoding: its packets, when their frames are shown, where decoding can begin.

Where time stamps can be trusted, frame i of the video is the one with the i-th smallest of them, and
``ssan.video.decode`` takes out of the file only what it needs for that one.
"""

import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate

import av
import av.container
import av.error
import numpy as np
from av.video.stream import VideoStream


@dataclass
class Listing:
    """What is kept of each packet that is not empty, in the order of the file, which is that of decoding.

    :param pts: time stamps, in ticks; None where there is none.
    :param beginnings: the places of those from which decoding can begin, and in ``seek_ticks`` where to seek for them.
    :param num_discarded: how many an edit list cuts off.
    """

    pts: list[int | None] = field(default_factory=list)
    beginnings: list[int] = field(default_factory=list)
    seek_ticks: list[int] = field(default_factory=list)
    start: float = math.inf
    end: float = -math.inf
    num_discarded: int = 0

    @classmethod
    def of(cls, packets: Iterable[av.Packet]) -> "Listing":
        listing = cls()
        for packet in packets:
            listing.add(packet)
        return listing

    def add(self, packet: av.Packet) -> None:
        if not packet.size:  # the last one is empty, and only empties the decoder
            return
        pts, discarded = packet.pts, packet.is_discard
        if pts is not None:
            if packet.is_keyframe:
                dts = packet.dts
                self.beginnings.append(len(self.pts))
                self.seek_ticks.append(pts if dts is None else min(pts, dts))
            if not discarded:
                self.start = min(self.start, pts)
                self.end = max(self.end, pts + (packet.duration or 0))
        self.num_discarded += discarded
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

    @cached_property
    def ticks(self) -> list[int]:
        """Time stamps in the order in which frames are shown; as the others below it is for when the list is whole."""
        return sorted(tick for tick in self.pts if tick is not None)

    @cached_property
    def _places(self) -> dict[int | None, int]:
        return {tick: place for place, tick in reversed(list(enumerate(self.pts)))}  # of equal ones the first

    @cached_property
    def _beginnings_by_tick(self) -> tuple[list[int], list[int]]:
        """The beginnings' time stamps, ascending, and for each the last place of a beginning shown no later."""
        shown = sorted((tick, place) for place in self.beginnings if (tick := self.pts[place]) is not None)
        return [tick for tick, _ in shown], list(accumulate((place for _, place in shown), max))

    def last_beginning(self, tick: int) -> int:
        """The last place to begin whose own frame is shown no later than ``tick``; one of them must be.

        What follows it in the file and is shown before it may need earlier pictures, and is not the frame at ``tick``.
        In a file that lists key frames in another order than it shows them, that need not be the one shown last.
        """
        ticks, last = self._beginnings_by_tick
        number = bisect_right(ticks, tick)
        assert number
        return last[number - 1]

    def place_of(self, tick: int | None) -> int | None:
        """The place of the first packet with this time stamp, if there is one."""
        return self._places.get(tick)

    def seek_tick(self, beginning: int) -> int:
        """Where to seek for the packet at this place, from which decoding can begin."""
        return self.seek_ticks[bisect_left(self.beginnings, beginning)]


@dataclass(frozen=True)
class Packets:
    """The packets of a stream.

    :param held: themselves, the last one empty, which empties the decoder; None where together they are too large.
    :param broken: what ended the listing before the end of the file.
    :param trusted: whether frame i of the video is the one with the i-th smallest time stamp.
    """

    held: list[av.Packet] | None
    listing: Listing
    num_frames: int
    broken: av.error.FFmpegError | None
    trusted: bool


# Compressed video kept in memory between listing the packets and decoding some of them; ten seconds of 1080p are 5 to
# 10 MB. Of a larger file the wanted groups are read once more.
MOST_BYTES_HELD = 16_000_000

# Containers whose time stamps say when each frame is shown, and codecs in which each packet is one frame. In the others
# (avi, mpeg, mpegts, raw streams) time stamps are missing, guessed or repeated; of MPEG-4 in avi the order in which
# frames are shown follows from the pictures' types.
TRUSTED_CONTAINERS = {"mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm"}
TRUSTED_CODECS = {"h264", "hevc", "mpeg4", "mjpeg", "vp9", "av1"}


def list_packets(container: av.container.InputContainer, stream: VideoStream) -> Packets:
    held: list[av.Packet] | None = []
    size = 0
    listing = Listing()
    broken: av.error.FFmpegError | None = None
    try:
        for packet in container.demux(stream):
            if held is None:
                listing.add(packet)
                continue
            held.append(packet)
            size += packet.size
            if size > MOST_BYTES_HELD:
                listing, held = Listing.of(held), None
    except av.error.FFmpegError as error:
        broken = error  # a broken file can end before its own index does
    codec = stream.codec_context.codec.canonical_name
    if held is not None and broken is None and container.format.name == "avi" and codec == "mpeg4":
        ordered = _put_in_order(held, stream)
        if ordered is not None:
            listing = Listing.of(ordered)
            return Packets(ordered, listing, len(listing.pts), broken, listing.is_complete())
    if held is not None:
        listing = Listing.of(held)
    known = container.format.name in TRUSTED_CONTAINERS and codec in TRUSTED_CODECS
    trusted = known and broken is None and listing.num_discarded == 0 and listing.is_complete()
    return Packets(held, listing, len(listing.pts) - listing.num_discarded, broken, trusted)


def _put_in_order(packets: list[av.Packet], stream: VideoStream) -> list[av.Packet] | None:
    """Packets of MPEG-4 in avi, each with one picture, its time stamp the number at which it is shown; or None.

    A B picture is shown when it is decoded, any other one when the next that is no B has come. DivX packs a B picture
    behind the one before and leaves an empty place; FFmpeg's own filter takes such packets apart. None where a packet
    does not hold one coded picture, and where B pictures lack one to refer to: how many frames come is then not known.
    """
    single, emptying = packets[:-1], packets[-1:]
    if not single or not all(packet.size for packet in single):
        return None
    pictures = _pictures(single)
    if any(count > 1 for _, count in pictures):
        unpack = av.BitStreamFilterContext("mpeg4_unpack_bframes", stream)
        single = [part for packet in single for part in unpack.filter(packet)]
        pictures = _pictures(single)
    shown, waiting, references = 0, None, 0
    for packet, (kind, count) in zip(single, pictures, strict=True):
        if kind is None or count > 1:
            return None
        is_b = kind == 2
        if is_b and (references < 2 or not stream.codec_context.has_b_frames):
            return None
        if is_b:
            packet.pts = shown
        else:
            references += 1
            if waiting is not None:
                waiting.pts = shown
            waiting, shown = packet, shown + (waiting is not None)
        shown += is_b
    if waiting is None:
        return None
    waiting.pts = shown
    return [*single, *emptying]


def _pictures(packets: Sequence[av.Packet]) -> list[tuple[int | None, int]]:
    """Of each packet the type of its first coded picture (0 intra, 1 predicted, 2 B), and how many pictures it has.

    The type is None where there is no start code of a picture, or next to nothing after it: a picture that is not coded
    is over after its type and time, and gives no frame.
    """
    data = np.frombuffer(APART.join([*packets, b""]), np.uint8)  # ``Packet`` has the buffer protocol
    ends = np.cumsum([packet.size + len(APART) for packet in packets]) - len(APART)
    # All at once, from the rarest byte on: packet by packet this was a tenth of the time of reading a clip.
    starts = np.flatnonzero(data[3:] == VOP[3])
    for place in (2, 1, 0):
        starts = starts[data[starts + place] == VOP[place]]
    firsts = np.searchsorted(starts, np.append(0, ends))
    counts = np.diff(firsts)
    first = np.append(starts, len(data))[firsts[:-1]]  # where a packet has none, one beyond its end
    types = data[np.minimum(first + 4, len(data) - 1)].astype(int) >> 6
    kinds = np.where(first + 16 <= ends, types, -1)
    return [(kind if kind >= 0 else None, count) for kind, count in zip(kinds.tolist(), counts.tolist(), strict=True)]


VOP = b"\x00\x00\x01\xb6"
"""The start code of a picture in MPEG-4 part 2 (a video object plane)."""

APART = b"\xff"
"""Between packets, so that the end of one and the beginning of the next make no start code."""
