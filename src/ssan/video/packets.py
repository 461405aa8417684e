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
from av.video.stream import VideoStream

from ssan.video.avi import Slices, from_index, put_in_order


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

    @classmethod
    def of_pictures(cls, shown: list[int], keys: Iterable[bool]) -> "Listing":
        """Of pictures shown for one tick each: their time stamps, and from which of them decoding can begin."""
        beginnings = [place for place, key in enumerate(keys) if key]
        seek_ticks = [shown[place] for place in beginnings]
        return cls([*shown], beginnings, seek_ticks, min(shown), max(shown) + 1)

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
    :param num_indexed: how many the index of the file tells of, where it has one.
    :param broken: what ended the listing before the end of the file.
    :param trusted: whether frame i of the video is the one with the i-th smallest time stamp.
    """

    held: Sequence[av.Packet] | None
    listing: Listing
    num_frames: int
    num_indexed: int
    broken: av.error.FFmpegError | None
    trusted: bool


# Compressed video kept in memory between listing the packets and decoding some of them; ten seconds of 1080p are 5 to
# 10 MB. Of a larger file the wanted groups are read once more.
MOST_BYTES_HELD = 16_000_000

# Containers whose time stamps say when each frame is shown, and codecs in which each packet is one frame. In the others
# (avi, mpeg, mpegts, raw streams) time stamps are missing, guessed or repeated; of MPEG-4 in avi ``ssan.video.avi``
# knows the order in which frames are shown.
TRUSTED_CONTAINERS = {"mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm"}
TRUSTED_CODECS = {"h264", "hevc", "mpeg4", "mjpeg", "vp9", "av1"}


def list_packets(path: str, container: av.container.InputContainer, stream: VideoStream) -> Packets:
    """What ``container``, the file at ``path``, holds of a stream."""
    codec = stream.codec_context.codec.canonical_name
    is_mpeg4_in_avi = container.format.name == "avi" and codec == "mpeg4"
    if is_mpeg4_in_avi:
        indexed = from_index(path, stream, len(container.streams), MOST_BYTES_HELD)
        if indexed is not None:
            if isinstance(indexed, Slices):
                listing = Listing.of_pictures(indexed.shown, indexed.keys)
            else:
                listing = Listing.of(indexed)
            num_frames = len(listing.pts)
            return Packets(indexed, listing, num_frames, len(stream.index_entries), None, listing.is_complete())
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
    num_indexed = sum(entry.size > 0 and not entry.is_discard for entry in stream.index_entries)
    if held is not None and broken is None and is_mpeg4_in_avi:
        ordered = put_in_order(held, stream)
        if ordered is not None:
            listing = Listing.of(ordered)
            return Packets(ordered, listing, len(listing.pts), num_indexed, broken, listing.is_complete())
    if held is not None:
        listing = Listing.of(held)
    known = container.format.name in TRUSTED_CONTAINERS and codec in TRUSTED_CODECS
    trusted = known and broken is None and listing.num_discarded == 0 and listing.is_complete()
    return Packets(held, listing, len(listing.pts) - listing.num_discarded, num_indexed, broken, trusted)
