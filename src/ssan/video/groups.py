"""Frames of a long mp4 by their numbers, of which no more is read than its index and the groups that hold them.

The index says of every packet when it is decoded and whether decoding can begin there. Nothing is exchanged across a
picture at which the decoder begins anew (IDR): with those at packets a and b, the frames a to b - 1 of the video are
the packets a to b - 1 of the file, in the order of their time stamps. So only such groups are listed as hold what is
wanted. Where anything speaks against it, the whole is listed.
"""

import math
import os
import struct
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import IO

import av
import av.error

from ssan.video.bitstream import Headers, begins_anew
from ssan.video.clip import HAIR_SECONDS, Examination, Resize
from ssan.video.decode import Pictures, VideoFile
from ssan.video.packets import MOST_BYTES_HELD, Listing, Packets, brings_change

LONG_SECONDS = 60.0
"""A file that lasts no longer, and is not large, is listed whole, which shows more of what may be wrong with it."""

MOST_GROUPS = 32
"""So many are remembered."""


def is_long(video: VideoFile) -> bool:
    lasts = (video._container.duration or 0) > LONG_SECONDS * av.time_base
    return video._threads == 1 and (lasts or os.stat(video.path).st_size > MOST_BYTES_HELD)


@dataclass(frozen=True)
class PacketGroup:
    """The packets from one at which the decoder begins anew, number ``first`` in the file, up to the next such one."""

    first: int
    packets: list[av.Packet]
    ticks: list[int]
    end: int


class LongFile(VideoFile):
    """A video file; of a long mp4 the groups alone are listed that are asked for."""

    def _list(self) -> None:
        self._headers = Headers(self._codec, self._stream.codec_context.extradata or b"")
        self._groups: dict[int, PacketGroup] = {}
        self._delay = 0  # of the first packet, from when it is decoded to when it is shown
        self._by_groups = False
        if (
            self._container.format.name.startswith("mov,")
            and is_long(self)
            and 0 < self._stream.frames == len(self._stream.index_entries)
            and has_plain_tables(self.path)
        ):
            num_frames = self._stream.frames
            first, last = self._group(0), self._group(num_frames - 1)
            if first is not None and last is not None:
                self._packets = Packets(
                    held=None,
                    listing=_listing([first]),
                    num_frames=num_frames,
                    num_missing=0,
                    broken=None,
                    trusted=True,
                    single=True,
                    num_bytes=0,
                    begins=None,
                    end=last.end,
                )
                self._survey()
                self._start, self._by_groups = first.ticks[0], True
                return
            self._reopen()
        super()._list()

    @property
    def _codec(self) -> str:
        return self._stream.codec_context.codec.canonical_name

    def _list_whole(self) -> None:
        if self._by_groups:
            self._by_groups = False
            self._groups.clear()
            self._reopen()
            super()._list()

    def _group(self, number: int) -> PacketGroup | None:
        """The group that holds a frame; None where it is not sure that it does."""
        index, count = self._stream.index_entries, self._stream.frames
        first = index.search_timestamp(index[number].timestamp, backward=True)
        if first in self._groups:
            return self._groups[first]
        if not 0 <= first <= number:
            return None
        stop = count
        if number + 1 < count:
            following = index.search_timestamp(index[number + 1].timestamp, backward=False)
            stop = following if following >= 0 else count
        # FFmpeg seeks by when frames are shown, a few frames after they are decoded, which is what the index tells.
        decoded = index[first].timestamp
        last = index[stop].timestamp - 1 if stop < count else index[count - 1].timestamp
        packets: list[av.Packet] = []
        # The delay is that of the first group, and another's may differ: tried until the packets are the group's.
        for tick in dict.fromkeys((decoded + self._delay, last, decoded)):
            packets = self._packets_at(tick, decoded, stop - first)
            if packets:
                break
        if not packets:
            return None
        *packets, behind = packets
        shown = [packet.pts for packet in packets if packet.pts is not None and self._is_plain(packet)]
        ticks = sorted(shown)
        if len(set(ticks)) != len(packets) or not begins_anew(self._codec, packets[0]) or shown[0] != ticks[0]:
            return None
        if (stop == count and behind.size) or (stop < count and not self._follows(behind, ticks[-1])):
            return None
        if first == 0:
            self._delay = shown[0] - decoded
        if len(self._groups) == MOST_GROUPS:
            self._groups.pop(next(iter(self._groups)))
        end = max((packet.pts or 0) + (packet.duration or 0) for packet in packets)
        self._groups[first] = PacketGroup(first, packets, ticks, end)
        return self._groups[first]

    def _packets_at(self, tick: int, decoded: int, count: int) -> list[av.Packet]:
        """So many packets and one more, the first decoded then; none where seeking leads elsewhere."""
        packets: list[av.Packet] = []
        size = 0
        try:
            self._container.seek(tick, stream=self._stream)
            # One more than the group has: the one behind it has to begin anew, or the group is not closed.
            for packet in self._container.demux(self._stream):
                packets.append(packet)
                size += packet.size
                if packets[0].dts != decoded or size > MOST_BYTES_HELD:
                    return []
                if len(packets) > count:
                    return packets
        except av.error.FFmpegError:
            pass
        return []

    def _is_plain(self, packet: av.Packet) -> bool:
        late = packet.dts is not None and packet.pts is not None and packet.dts <= packet.pts
        return late and not packet.is_discard and not brings_change(packet) and self._headers.hold_in(bytes(packet))

    def _follows(self, packet: av.Packet, tick: int) -> bool:
        return packet.pts is not None and packet.pts > tick and begins_anew(self._codec, packet)

    def _decode(self, wanted: Sequence[int]) -> Iterator[tuple[int, av.VideoFrame]]:
        if self._by_groups and wanted[-1] < self._packets.num_frames:
            groups: dict[int, PacketGroup] = {}
            goals: dict[int, int] = {}
            # All or none: a choice that needs more than may be held is read as that of any other file.
            for number in wanted:
                group = self._group(number)
                if group is None:
                    break
                groups[group.first] = group
                goals[number] = group.ticks[number - group.first]
                if sum(packet.size for group in groups.values() for packet in group.packets) > MOST_BYTES_HELD:
                    break
            if len(goals) == len(wanted):
                held = [packet for group in groups.values() for packet in group.packets]
                listing = _listing(list(groups.values()))
                self._packets = replace(self._packets, held=[*held, av.Packet()], listing=listing)
                self._goals = goals
            else:
                self._list_whole()
        yield from super()._decode(wanted)

    def _first_number(self) -> int:
        self._list_whole()  # what did not come in the short way may be lacking
        return super()._first_number()

    def begin_seconds(self, index: int) -> float:
        if self._by_groups and index < self._packets.num_frames:
            group = self._group(index)
            if group is not None:
                return (group.ticks[index - group.first] - self._start) * self._tick
            self._list_whole()
        return super().begin_seconds(index)

    def _find_begins(self) -> None:
        if not self._by_groups:
            super()._find_begins()

    def first_from(self, seconds: float) -> int:
        if not self._by_groups:
            return super().first_from(seconds)
        index, wanted = self._stream.index_entries, self._start + (seconds - HAIR_SECONDS) / self._tick
        number = max(index.search_timestamp(math.floor(wanted), backward=True, any_frame=True), 0)
        group = self._group(number)
        while group is not None and group.ticks[0] > wanted and group.first > 0:  # shown later than it is decoded
            group = self._group(group.first - 1)
        if group is None:
            self._list_whole()
            return super().first_from(seconds)
        return group.first + bisect_left(group.ticks, wanted)

    def stream_pictures(self, *, resize: Resize | None = None, allocate: object = None) -> Iterator[Pictures]:
        self._list_whole()
        return super().stream_pictures(resize=resize, allocate=allocate)  # type: ignore[arg-type]

    def examining(self) -> Iterator[Examination | None]:
        self._list_whole()
        return super().examining()


def _listing(groups: Sequence[PacketGroup]) -> Listing:
    listing = Listing()
    # In the order of decoding, which is that of the groups: positions are counted through all of them.
    for group in groups:
        for packet in group.packets:
            listing.add(packet)
    # Decoding begins at the first of each group; other key frames need not be such at which it can.
    positions = [sum(len(before.packets) for before in groups[:number]) for number in range(len(groups))]
    ticks = [
        tick for position, tick in zip(listing.beginnings, listing.seek_ticks, strict=True) if position in positions
    ]
    return replace(listing, beginnings=positions, seek_ticks=ticks)


def has_plain_tables(path: str) -> bool:
    """Whether an mp4 has no fragments, and each track one sample description and at most one edit, at normal speed."""
    try:
        with open(path, "rb") as handle:
            return _all_plain(handle, 0, os.fstat(handle.fileno()).st_size)
    except (OSError, struct.error):
        return False


INSIDE = {b"moov", b"trak", b"edts", b"mdia", b"minf", b"stbl"}
MOST_BOXES = 1000


def _all_plain(handle: IO[bytes], begin: int, end: int) -> bool:
    """Whether the boxes between two offsets are such (ISO/IEC 14496-12, sections 4.2, 8.5.2 and 8.6.6)."""
    for _ in range(MOST_BOXES):  # a length of eight bytes, again and again, would keep this going for hours
        if begin + 8 > end:
            return True
        handle.seek(begin)
        length, kind = struct.unpack(">I4s", handle.read(8))
        content = begin + 8
        if length == 1:
            (length,) = struct.unpack(">Q", handle.read(8))
            content += 8
        length = end - begin if length == 0 else length
        if length < 8 or kind in (b"moof", b"mvex"):
            return False
        if kind in INSIDE and not _all_plain(handle, content, begin + length):
            return False
        if kind in (b"stsd", b"elst"):
            version, count = struct.unpack(">B3xI", handle.read(8))
            if kind == b"stsd" and count != 1:
                return False
            if kind == b"elst":
                form = struct.Struct(">Qqi" if version == 1 else ">Iii")
                edits = [form.unpack(handle.read(form.size)) for _ in range(min(count, 3))]
                media = [rate for _, time, rate in edits if time != -1]  # the others delay the beginning
                if count > 2 or len(media) > 1 or any(rate != 1 << 16 for rate in media):
                    return False
        begin += length
    return False
