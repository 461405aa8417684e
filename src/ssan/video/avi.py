"""MPEG-4 in avi: which pictures there are, and when each is shown, which the container does not say.

Avi has a frame rate and no times; the order in which frames are shown follows from the types of the pictures, which
their start codes tell. The pictures come from FFmpeg's demuxer, packet by packet (``put_in_order``), or, where the
file and its index agree to the last byte, from that index and one search through the bytes (``from_index``), which
takes half of the time.
"""

import os
import re
from collections.abc import Sequence
from itertools import product
from typing import overload

import av
import numpy as np
from av.video.stream import VideoStream

VOP = b"\x00\x00\x01\xb6"
"""The start code of a picture in MPEG-4 part 2 (a video object plane)."""

I_PICTURE, B_PICTURE, NO_PICTURE = 0, 2, -1
"""Types of pictures: the two bits behind the start code; 1 is a predicted one, 3 a sprite."""

APART = b"\xff"
"""Between packets, so that the end of one and the beginning of the next make no start code."""

ENTRY = np.dtype([("name", "<u4"), ("flags", "<u4"), ("place", "<u4"), ("size", "<u4")])
"""An entry of an avi's index. The name is four letters, two of the stream's number and two of what it has: 00dc."""

KEY_FRAME = 0x10
"""The flag of an entry from whose chunk decoding can begin."""

WRITER = re.compile(
    rb"LIST.\0\0\0INFOISFT.\0\0\0(?:(?!\d\d[a-z]{2}|ix|indx|idx1|JUNK|LIST)[A-Za-z0-9._ -])+\0*", re.DOTALL
)
"""A list with the name of the program that wrote the file, without a word that begins a chunk."""


class Slices(Sequence[av.Packet]):
    """Packets that are made when they are asked for, out of the bytes of a file; the last one is empty.

    :param begins: where each begins, and in ``ends`` where it ends.
    :param shown: their time stamps.
    :param keys: from which of them decoding can begin.
    """

    def __init__(
        self, data: bytes, begins: Sequence[int], ends: Sequence[int], shown: list[int], keys: Sequence[bool]
    ) -> None:
        self._data, self._begins, self._ends, self.shown, self.keys = data, begins, ends, shown, keys

    def __len__(self) -> int:
        return len(self.shown) + 1

    @overload
    def __getitem__(self, place: int) -> av.Packet: ...

    @overload
    def __getitem__(self, place: slice) -> list[av.Packet]: ...

    def __getitem__(self, place: int | slice) -> av.Packet | list[av.Packet]:
        if isinstance(place, slice):
            return [self[number] for number in range(*place.indices(len(self)))]
        if place == len(self.shown):
            return av.Packet()
        content = self._data[self._begins[place] : self._ends[place]]
        packet = av.Packet(len(content))
        packet.update(content)  # made of bytes, it would have none of the zeros behind it that decoders run into
        packet.pts = packet.dts = self.shown[place]
        packet.is_keyframe = self.keys[place]
        return packet


def from_index(path: str, stream: VideoStream, num_streams: int, most_bytes: int) -> Sequence[av.Packet] | None:
    """The packets of MPEG-4 in an avi, with time stamps as ``put_in_order`` gives them; None where that is not sure.

    It is sure where the entries of the index, of all streams together, lie in the file as they say, one behind the
    other from the beginning of the list of chunks to its end: whoever reads chunk after chunk, as FFmpeg does, then
    meets the same as whoever goes by the index. None also of files of more than ``most_bytes``, and of those that have
    to be looked at packet by packet: packed B pictures, pictures not coded, key frames that are no I pictures.
    """
    with open(path, "rb") as handle:  # not memory-mapped: a file that shrinks meanwhile would end the process
        if os.fstat(handle.fileno()).st_size > most_bytes:
            return None
        data = handle.read(most_bytes)
    chunks = _indexed_chunks(data, stream.index, num_streams)
    if chunks is None or len(stream.index_entries) != len(chunks[0]):  # FFmpeg has made something else of the index
        return None
    begins, ends, keys = chunks
    kinds, counts = _kinds(np.frombuffer(data, np.uint8), begins, ends)
    if ((kinds == I_PICTURE) != keys).any():
        return None
    slices = Slices(data, begins.tolist(), ends.tolist(), list(range(len(begins))), keys.tolist())
    if (counts > 1).any():
        return put_in_order(list(slices), stream)
    shown = _shown(kinds.tolist(), bool(stream.codec_context.has_b_frames))
    if shown is None:
        return None
    slices.shown = shown
    return slices


def _indexed_chunks(data: bytes, own: int, num_streams: int) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """Where the chunks of stream ``own`` begin and end, and which are key frames; None where the index is in doubt.

    An avi has lists that describe its streams, ``LIST`` size ``movi`` with the chunks (name, size, content, and a zero
    where the size is odd), then ``idx1`` size with an entry for each. Places count from wherever the first one does.
    """
    movi = data.find(b"movi")
    size = _number(data, movi - 4)
    end = movi + size + size % 2
    num_bytes = _number(data, end + 4)
    if data[max(movi - 8, 0) : movi - 4] != b"LIST" or data[end : end + 4] != b"idx1":
        return None
    # A large file has an index of indexes in front, and more chunks behind.
    if b"indx" in data[:movi] or num_bytes < 16 or num_bytes % 16 or not _ends_at(data, end + 8 + num_bytes):
        return None
    entries = np.frombuffer(data, ENTRY, num_bytes // 16, end + 8)
    names, sizes = entries["name"], entries["size"].astype(np.int64)
    begins = entries["place"].astype(np.int64) - int(entries["place"][0]) + movi + 12
    ends = begins + sizes
    following = ends + sizes % 2 + 8
    if not np.array_equal(begins[1:], following[:-1]) or following[-1] != end + 8:
        return None
    content = np.frombuffer(data, np.uint8)
    headers = content[begins[:, None] + np.arange(-8, 0)].view("<u4")
    if not np.array_equal(headers, np.stack([names, entries["size"]], axis=1)) or content[ends[sizes % 2 == 1]].any():
        return None
    pictures = np.logical_or(*(names == name for name in _names([own], ["dc", "db"])))
    others = _names([number for number in range(num_streams) if number != own], ["dc", "db", "wb"])
    if not pictures.any() or not others.issuperset(names[~pictures].tolist()):
        return None
    return begins[pictures], ends[pictures], (entries["flags"][pictures] & KEY_FRAME) > 0


def _number(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 4], "little") if at >= 0 else 0


def _names(streams: Sequence[int], kinds: Sequence[str]) -> set[int]:
    return {_number(f"{number:02d}{kind}".encode(), 0) for number, kind in product(streams, kinds)}


def _ends_at(data: bytes, at: int) -> bool:
    """Whether nothing from here to the end of the file can be taken for a chunk, which FFmpeg looks for everywhere."""
    writer = WRITER.match(data, at)
    at = writer.end() if writer else at
    while data[at : at + 4] == b"JUNK":
        size = _number(data, at + 4)
        at += 8 + size + size % 2
    return at == len(data)


def put_in_order(packets: list[av.Packet], stream: VideoStream) -> list[av.Packet] | None:
    """Packets of MPEG-4 in avi, each with one picture, its time stamp the number at which it is shown; or None.

    DivX packs a B picture behind the one before and leaves an empty place; FFmpeg's own filter takes such packets
    apart. None where a packet does not hold one coded picture: how many frames come is then not known.
    """
    single, emptying = packets[:-1], packets[-1:]
    if not single or not all(packet.size for packet in single):
        return None
    kinds, counts = _pictures(single)
    if (counts > 1).any():
        unpack = av.BitStreamFilterContext("mpeg4_unpack_bframes", stream)
        single = [part for packet in single for part in unpack.filter(packet)]
        kinds, counts = _pictures(single)
    if (counts > 1).any():
        return None
    shown = _shown(kinds.tolist(), bool(stream.codec_context.has_b_frames))
    if shown is None:
        return None
    for packet, number in zip(single, shown, strict=True):
        packet.pts = number
    return [*single, *emptying]


def _shown(kinds: Sequence[int], with_b: bool) -> list[int] | None:
    """For each picture, in the order of decoding, the number at which it is shown; None where that is not known.

    A B picture is shown when it is decoded, any other one when the next that is no B has come. Not known where there is
    no coded picture, and where B pictures lack one to refer to.
    """
    shown: list[int] = [0] * len(kinds)
    number, waiting, references = 0, -1, 0
    for place, kind in enumerate(kinds):
        if kind == NO_PICTURE:
            return None
        if kind == B_PICTURE:
            if references < 2 or not with_b:
                return None
            shown[place] = number
            number += 1
            continue
        references += 1
        if waiting >= 0:
            shown[waiting] = number
            number += 1
        waiting = place
    if waiting < 0:
        return None
    shown[waiting] = number
    return shown


def _pictures(packets: Sequence[av.Packet]) -> tuple[np.ndarray, np.ndarray]:
    data = np.frombuffer(APART.join([*packets, b""]), np.uint8)  # ``Packet`` has the buffer protocol
    sizes = np.array([packet.size for packet in packets])
    ends = np.cumsum(sizes + len(APART)) - len(APART)
    return _kinds(data, ends - sizes, ends)


def _kinds(data: np.ndarray, begins: np.ndarray, ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of each stretch of ``data`` the type of its first coded picture, and how many pictures it has.

    The type is NO_PICTURE where there is no start code of one, or next to nothing after it: a picture that is not coded
    is over after its type and time, and gives no frame.
    """
    starts = _start_codes(data)
    firsts = np.searchsorted(starts, begins)
    counts = np.maximum(np.searchsorted(starts, ends - len(VOP), side="right") - firsts, 0)
    first = np.append(starts, len(data))[firsts]  # where a stretch has none, one beyond its end
    types = data[np.minimum(first + len(VOP), len(data) - 1)].astype(int) >> 6
    return np.where(first + 16 <= ends, types, NO_PICTURE), counts


WORDS_AT_ONCE = 1 << 16
"""So many are searched at a time: little enough for the cache, and for memory that is there already."""


def _start_codes(data: np.ndarray) -> np.ndarray:
    """Where pictures begin in ``data``, ascending.

    Looked for in words of two bytes, twice as fast as byte by byte: the code's last two are one, or its middle two are.
    """
    last, middle = (int.from_bytes(part, "little") for part in (VOP[2:], VOP[1:3]))
    words = data[: len(data) // 2 * 2].view("<u2")
    found = []
    for begin in range(0, len(words), WORDS_AT_ONCE):
        some = words[begin : begin + WORDS_AT_ONCE]
        match = some == last
        match |= some == middle
        found.append(2 * (np.flatnonzero(match) + begin))
    at = np.concatenate([np.zeros(0, np.int64), *found])
    starts = np.where(data[at] == VOP[2], at - 2, at - 1)
    starts = starts[(starts >= 0) & (starts + len(VOP) <= len(data))]
    return starts[(data[starts[:, None] + np.arange(len(VOP))] == np.frombuffer(VOP, np.uint8)).all(axis=1)]
