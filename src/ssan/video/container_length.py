"""Container length: how many bytes a video file says it has, in the outermost layer of its container.

A download that breaks off leaves a file that is shorter than its own headers say; that can be told without decoding
anything, also where the container keeps no list of frames (webm, mkv) or keeps it at the end, which is lost (mp4).
"""

import os
import struct
from typing import IO

MOST_BOXES = 100_000
"""A fragmented mp4 has two for every fragment, of a second or so."""

# Boxes that must be there whole. What follows the last of them can be anything: some cameras leave rubbish there.
_BOXES = {b"ftyp", b"moov", b"mdat", b"moof"}
_MATROSKA, _SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"


def announced_bytes(path: str | os.PathLike[str]) -> int | None:
    """The length that the headers of an mp4, mov, Matroska, webm or avi file announce; None where they announce none.

    Raises ``OSError`` where the file cannot be read.
    """
    size = os.stat(path).st_size
    with open(path, "rb") as handle:
        head = handle.read(12)
        handle.seek(0)
        if head[4:8] in _BOXES:
            return _of_boxes(handle, size)
        if head[:4] == _MATROSKA:
            return _of_matroska(handle)
        if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
            return _of_riff(handle, size)
    return None


def _of_boxes(handle: IO[bytes], size: int) -> int | None:
    """The end of the last box, each of which begins with its length and its type (ISO/IEC 14496-12, section 4.2)."""
    end = 0
    # From box to box, by their lengths alone: what is in them, nearly all of the file, is not read.
    for _ in range(MOST_BOXES):
        handle.seek(end)
        head = handle.read(16)
        if len(head) < 8:
            break
        length, kind = struct.unpack(">I4s", head[:8])
        if length == 1 and len(head) == 16:
            (length,) = struct.unpack(">Q", head[8:])
        # A length of 0 is that of a last box, which goes as far as the file does.
        if length < 8 or (end + length > size and kind not in _BOXES):
            break
        end += length
    return end or None


def _of_matroska(handle: IO[bytes]) -> int | None:
    """The end of the segment, which follows a header and holds all the rest (RFC 8794 and RFC 9559)."""
    if handle.read(4) != _MATROSKA or (length := _variable_length(handle)) is None:
        return None
    handle.seek(length, os.SEEK_CUR)
    if handle.read(4) != _SEGMENT or (length := _variable_length(handle)) is None:
        return None
    return handle.tell() + length


def _variable_length(handle: IO[bytes]) -> int | None:
    """A number as EBML writes it: zeros before the first bit that is set say how many bytes follow; all ones: unknown.

    None where there is none, or none is meant: a recording that was broken off never learned its length.
    """
    first = handle.read(1)
    if not first or not first[0]:
        return None
    following = 8 - first[0].bit_length()
    rest = handle.read(following)
    if len(rest) < following:
        return None
    number = int.from_bytes(first + rest, "big") & ((1 << 7 * (following + 1)) - 1)
    return None if number == (1 << 7 * (following + 1)) - 1 else number


def _of_riff(handle: IO[bytes], size: int) -> int | None:
    """The end of the last RIFF chunk; a large avi has several, one after another (OpenDML 1.02)."""
    end = 0
    while end < size:  # a file of gigabytes has several
        handle.seek(end)
        head = handle.read(8)
        if len(head) < 8 or head[:4] != b"RIFF":
            break
        (length,) = struct.unpack("<I", head[4:])
        if length in (0, 0xFFFFFFFF):  # never written: the recording was broken off, or went to a pipe
            break
        end += 8 + length
    return end or None
