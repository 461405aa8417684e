"""Bitstream: what compressed pictures say of themselves, where a packet can be another thing than one frame.

MPEG-4 part 2 has packets of two pictures, of none, and pictures that are not coded and give no frame. H.264, HEVC and
MPEG-4 can bring new headers within the stream: whoever begins to decode behind them would decode with the old ones.
"""

from collections.abc import Iterator

import av

VOP = b"\x00\x00\x01\xb6"
"""The start code of a picture in MPEG-4 part 2 (a video object plane)."""

I_PICTURE, B_PICTURE, NO_PICTURE = 0, 2, -1
"""Types of pictures: the two bits behind the start code; 1 is a predicted one, 3 a sprite."""

LEAST_BYTES = 16
"""Of an MPEG-4 picture that is coded for certain; one that is not is over after its type and time."""


def picture_types(data: bytes) -> list[int]:
    """The types of the MPEG-4 pictures in a packet, NO_PICTURE for one so short that it may not be coded."""
    types = []
    at = data.find(VOP)
    while at >= 0:  # to the last one: each is a frame of its own, and DivX packs two into a packet
        following = data.find(VOP, at + len(VOP))
        length = (len(data) if following < 0 else following) - at
        types.append(data[at + len(VOP)] >> 6 if length >= LEAST_BYTES else NO_PICTURE)
        at = following
    return types


def shown(types: list[int], with_b: bool) -> list[int] | None:
    """For each picture, in the order of decoding, the number at which it is shown; None where that is not known.

    A B picture is shown when it is decoded, any other one when the next that is no B has come. Not known where a
    picture may not be coded, and where B pictures lack one to refer to.
    """
    numbers: list[int] = [0] * len(types)
    number, waiting, references = 0, -1, 0
    # A reference waits for the next one: only then it is known how many B pictures are shown before it.
    for position, kind in enumerate(types):
        if kind == NO_PICTURE:
            return None
        if kind == B_PICTURE:
            if references < 2 or not with_b:
                return None
            numbers[position] = number
            number += 1
            continue
        references += 1
        if waiting >= 0:
            numbers[waiting] = number
            number += 1
        waiting = position
    if waiting < 0:
        return None
    numbers[waiting] = number
    return numbers


UNITS: dict[str, tuple[int, int, int, tuple[int, ...]]] = {
    "h264": (4, 0, 0x1F, (7, 8, 13, 15)),
    "hevc": (21, 1, 0x3F, (32, 33, 34)),
}
"""Where extradata say how long lengths are, where the first byte of a unit says its type, and which are headers."""


class Headers:
    """Whether the headers that a stream begins with hold to its end.

    :param codec: FFmpeg's name.
    :param extradata: what the container keeps of the stream's headers.
    """

    def __init__(self, codec: str, extradata: bytes) -> None:
        self._codec, self._extradata = codec, extradata
        self._layers = set(_layers(extradata)) if codec == "mpeg4" else set()
        # In mp4 and Matroska a unit is preceded by its length; how many bytes that has the extradata say.
        self._length_bytes = 0
        at, self._shift, self._mask, self._kinds = UNITS.get(codec, (0, 0, 0, ()))
        if len(extradata) > at > 0 and extradata[0] == 1:
            self._length_bytes = (extradata[at] & 3) + 1

    def hold_in(self, data: bytes) -> bool:
        """Whether a packet has no others, nor any that cannot be told."""
        if self._codec == "mpeg4":
            self._layers.update(_layers(data))
            return len(self._layers) < 2
        if not self._kinds:
            return True
        at, step = 0, self._length_bytes
        # Every unit: headers stand before the first slice, but nothing keeps a file from putting some behind it.
        while step and at + step < len(data):
            begin = at + step
            at = begin + int.from_bytes(data[at:begin], "big")
            if data[begin] >> self._shift & self._mask in self._kinds and data[begin:at] not in self._extradata:
                return False
        return step > 0


def begins_anew(codec: str, packet: av.Packet) -> bool:
    """Whether nothing before a packet has to do with it or with what follows, in mp4: in H.264 and HEVC an IDR picture.

    In the other codecs it is any key frame; MPEG-4 is not among them.
    """
    if codec not in UNITS:
        return packet.is_keyframe and codec in ("vp9", "av1", "mjpeg")
    data, (_, shift, mask, _) = bytes(packet), UNITS[codec]
    at = 0
    while at + 4 < len(data):  # past headers and remarks, up to the first slice, whose kind is that of the picture
        kind = data[at + 4] >> shift & mask
        if kind in ((1, 5) if codec == "h264" else range(32)):  # the first slice of the picture
            return packet.is_keyframe and kind in ((5,) if codec == "h264" else (19, 20))
        at += 4 + int.from_bytes(data[at : at + 4], "big")
    return False


def _layers(data: bytes) -> Iterator[bytes]:
    """The headers of video object layers in MPEG-4: start codes 0x20 to 0x2f, up to the next one."""
    at = data.find(b"\x00\x00\x01")
    while 0 <= at < len(data) - 3:  # by start codes, as a layer's header may stand behind others
        kind, following = data[at + 3], data.find(b"\x00\x00\x01", at + 3)
        if 0x20 <= kind <= 0x2F:
            yield data[at : following if following >= 0 else len(data)].rstrip(b"\x00")
        elif kind == VOP[3]:
            return  # the headers stand before the first picture
        at = following
