"""Hostile files, from a seed: damaged videos, things that pose as videos, and paths that are no files at all.

``plans`` lists them; each makes its own file from its own random numbers, so a part of the list gives the same files as
the whole. Sources are rendered here, small; real videos may be added.
"""

import json
import os
import pickle
import shutil
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path

import av
import numpy as np
import simplejpeg

from ssan.errors import CODES

Rng = np.random.Generator
Damage = Callable[[bytes, Rng], bytes]

ANY_ERROR = frozenset(CODES)
NO_VIDEO = frozenset({"not_video"})
NO_PICTURES = frozenset({"not_video", "no_video_stream"})
OK = frozenset({"ok"})
UNKNOWN: frozenset[str] = frozenset()

OUTSIDE = "outside"
"""A folder beside that of the files, which some of them name."""

HEIGHT, WIDTH, NUM_FRAMES = 64, 96, 36
SAME = {"x264-params": "mbtree=0"}  # with it, x264 does not always write the same file
VIDEOS = {
    "h264.mp4": ("libx264", "mp4", {"bf": "3", "g": "12", "preset": "veryfast", **SAME}, {}),
    "h264_fast.mp4": (
        "libx264",
        "mp4",
        {"bf": "2", "g": "250", "preset": "veryfast", **SAME},
        {"movflags": "faststart"},
    ),
    "vp9.webm": ("libvpx-vp9", "webm", {"g": "12", "cpu-used": "8", "deadline": "realtime"}, {}),
    "mpeg4.avi": ("mpeg4", "avi", {"bf": "2", "g": "12"}, {}),
    "h264.ts": ("libx264", "mpegts", {"bf": "2", "g": "12", "preset": "veryfast", **SAME}, {}),
    "hevc.mkv": (
        "libx265",
        "matroska",
        {"g": "12", "preset": "ultrafast", "x265-params": "log-level=none:bframes=0:frame-threads=1:pools=none"},
        {},
    ),
    "mjpeg.mov": ("mjpeg", "mov", {}, {}),
}


@dataclass(frozen=True)
class Hostile:
    """A file to be made, and what is known about the answer.

    :param name: the path as given on the command line, relative to the folder of all of them.
    :param truth: the outcomes ("ok" or codes) that are right; empty where nothing but reading can tell.
    :param damaged: a damaged video: where it is read all the same, its frames can be compared.
    :param unreadable: its permissions forbid reading, which they do for everybody but root.
    :param moving: to be cut and restored, or to grow, while it is read.
    :param answers: paths that the answer has, where they are not the name itself (a folder that is walked).
    """

    name: str
    kind: str
    make: Callable[[Path, Rng], None] = field(repr=False)
    truth: frozenset[str] = UNKNOWN
    damaged: bool = False
    unreadable: bool = False
    moving: bool = False
    answers: tuple[str, ...] = ()

    @property
    def paths(self) -> tuple[str, ...]:
        return self.answers or (self.name,)


def make_all(hostile: list[Hostile], folder: Path, seed: int) -> None:
    """Make every file of the list in ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    for one in hostile:
        make(one, folder / one.name, seed)


def make(one: Hostile, path: Path, seed: int) -> None:
    """Make one file, the same in any folder."""
    one.make(path, np.random.default_rng([seed, zlib.crc32(os.fsencode(one.name))]))


def pick(hostile: list[Hostile], number: int, seed: int) -> list[Hostile]:
    """A part of the list, in its order: as many kinds as there is room for, then anything."""
    order = np.random.default_rng([seed, 1]).permutation(len(hostile)).tolist()
    first: dict[str, int] = {}
    for index in order:
        first.setdefault(hostile[index].kind, index)
    chosen = list(first.values())[:number]
    chosen += [index for index in order if index not in set(chosen)][: number - len(chosen)]
    return [hostile[index] for index in sorted(chosen)]


# ---------------------------------------------------------------------------------------------------- whole things


def picture(number: int, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """A picture (h, w, 3) that no other number gives: noise with a bright square somewhere else each time."""
    rng = np.random.default_rng([7, number])
    pixels = rng.integers(40, 120, (height // 8 + 1, width // 8 + 1, 3), np.uint8).repeat(8, 0).repeat(8, 1)
    pixels = pixels[:height, :width].copy()
    top, left = (number * 7) % max(height - 16, 1), (number * 11) % max(width - 16, 1)
    pixels[top : top + 16, left : left + 16] = 250
    return pixels


def video(name: str, num_frames: int = NUM_FRAMES) -> bytes:
    """A whole video file."""
    codec, container, options, muxing = VIDEOS[name]
    with tempfile.TemporaryDirectory() as folder:  # a header in front is put there by reading the file again
        path = Path(folder, name)
        with av.open(str(path), "w", format=container, options={**muxing, "fflags": "bitexact"}) as output:
            stream = output.add_stream(codec, rate=12, options=dict(options))
            stream.width, stream.height = WIDTH, HEIGHT
            stream.codec_context.thread_count = 1  # the same file wherever it is made
            stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
            for number in range(num_frames):
                output.mux(stream.encode(av.VideoFrame.from_ndarray(picture(number), format="rgb24")))
            output.mux(stream.encode())
        return path.read_bytes()


def sound(codec: str, container: str) -> bytes:
    """Half a second of a tone, and no picture."""
    content = BytesIO()
    with av.open(content, "w", format=container) as output:
        stream = output.add_stream(codec, rate=16_000, layout="mono")
        for start in range(0, 8192, 1024):
            wave = np.sin(np.arange(start, start + 1024) * 0.1)[None]
            if codec == "aac":
                frame = av.AudioFrame.from_ndarray(wave.astype(np.float32), format="fltp", layout="mono")
            else:
                frame = av.AudioFrame.from_ndarray((wave * 9000).astype(np.int16), format="s16", layout="mono")
            frame.sample_rate, frame.pts = 16_000, start
            output.mux(stream.encode(frame))
        output.mux(stream.encode())
    return content.getvalue()


def jpeg(number: int, height: int = HEIGHT, width: int = WIDTH) -> bytes:
    return simplejpeg.encode_jpeg(picture(number, height, width), colorspace="RGB")


def png(number: int = 0, *, declared: tuple[int, int] = (32, 32)) -> bytes:
    """A PNG file of 32 x 32, whose header declares what ``declared`` (height, width) says."""
    rows = b"".join(b"\0" + row.tobytes() for row in picture(number, 32, 32))

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", declared[1], declared[0], 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        chunk(*part) for part in ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    )


def jpeg_declaring(height: int, width: int) -> bytes:
    """A JPEG file whose header declares another size than it has."""
    data = bytearray(jpeg(0))
    at = data.index(b"\xff\xc0")
    data[at + 5 : at + 9] = struct.pack(">HH", height, width)
    return bytes(data)


def h264_of_size(width_blocks: int, height_blocks: int) -> bytes:
    """A raw H.264 stream whose sequence header declares this many blocks of 16 pixels each way."""
    bits = f"{66:08b}{0:08b}{62:08b}"
    # id 0, frame numbers of 4 bits, order type 2, one reference frame, no gaps; then the size.
    bits += _golomb(0) + _golomb(0) + _golomb(2) + _golomb(1) + "0"
    bits += _golomb(width_blocks - 1) + _golomb(height_blocks - 1) + "1" + "1" + "0" + "0" + "1"
    bits += "0" * (-len(bits) % 8)
    sequence = b"\x67" + int(bits, 2).to_bytes(len(bits) // 8, "big")
    picture_header = b"\x68\xce\x38\x80"
    slices = b"".join(b"\0\0\0\1\x65" + bytes([0x88, 0x84, n, 0x21, 0xA0, 0x3F]) for n in range(3))
    return b"\0\0\0\1" + sequence + b"\0\0\0\1" + picture_header + slices


def _golomb(number: int) -> str:
    digits = f"{number + 1:b}"
    return "0" * (len(digits) - 1) + digits


# -------------------------------------------------------------------------------------------------------- damages


def cut(length: int) -> Damage:
    return lambda data, rng: data[: max(length, 0)]


def flips(count: int, where: str) -> Damage:
    """Turn over ``count`` bits: in the whole file, in its ``header``, or in the compressed ``data``."""

    def damage(data: bytes, rng: Rng) -> bytes:
        inside = parts(data)[where]
        changed = bytearray(data)
        for position in rng.integers(inside.start, inside.stop, count).tolist():
            changed[position] ^= 1 << int(rng.integers(8))
        return bytes(changed)

    return damage


def parts(data: bytes) -> dict[str, range]:
    """Where header and compressed data are: by their boxes in mp4 and mov, by the first twentieth elsewhere."""
    found = {"anywhere": range(len(data)), "header": range(max(len(data) // 20, 1))}
    found["data"] = range(found["header"].stop, len(data))
    position = 0
    while data[4:8] == b"ftyp" and position + 8 <= len(data):
        size, kind = struct.unpack(">I4s", data[position : position + 8])
        if size < 8:
            break
        stop = min(position + size, len(data))
        if kind in (b"moov", b"mdat"):
            found["header" if kind == b"moov" else "data"] = range(position + 8, stop)
        position = stop
    return found


def without_a_piece(data: bytes, rng: Rng) -> bytes:
    start, stop = _piece(data, rng)
    return data[:start] + data[stop:]


def with_noise_between(data: bytes, rng: Rng) -> bytes:
    start, stop = _piece(data, rng)
    return data[:start] + rng.bytes(stop - start) + data[start:]


def with_a_piece_twice(data: bytes, rng: Rng) -> bytes:
    start, stop = _piece(data, rng)
    return data[:stop] + data[start:]


def with_a_piece_of_zeros(data: bytes, rng: Rng) -> bytes:
    start, stop = _piece(data, rng)
    return data[:start] + bytes(stop - start) + data[stop:]


def with_a_piece_elsewhere(data: bytes, rng: Rng) -> bytes:
    start, stop = _piece(data, rng)
    rest = data[:start] + data[stop:]
    position = int(rng.integers(len(rest)))
    return rest[:position] + data[start:stop] + rest[position:]


def _piece(data: bytes, rng: Rng) -> tuple[int, int]:
    length = int(rng.integers(1, max(len(data) // 4, 2)))
    start = int(rng.integers(max(len(data) - length, 1)))
    return start, start + length


PIECES: dict[str, Damage] = {
    "taken out": without_a_piece,
    "noise between": with_noise_between,
    "twice": with_a_piece_twice,
    "zeroed": with_a_piece_of_zeros,
    "elsewhere": with_a_piece_elsewhere,
}


def body_of(other: bytes) -> Damage:
    """The beginning of this file with the body of another."""

    def damage(data: bytes, rng: Rng) -> bytes:
        return data[: parts(data)["data"].start] + other[parts(other)["data"].start :]

    return damage


def several(data: bytes, rng: Rng) -> bytes:
    """Two to four damages, one after the other."""
    for _ in range(int(rng.integers(2, 5))):
        choice = int(rng.integers(3))
        if choice == 0:
            data = list(PIECES.values())[int(rng.integers(len(PIECES)))](data, rng)
        elif choice == 1:
            data = flips(int(rng.integers(1, 50)), str(rng.choice(["anywhere", "header"])))(data, rng)
        else:
            data = data[: int(len(data) * rng.uniform(0.5, 1))]
        data = data or b"\0"
    return data


# Fields of mp4 and mov boxes: the box, the field, its offset after the box's four letters, its form, and lies to tell.
HUGE = (0, 1, 0x7FFFFFFF, 0xFFFFFFFF)
BOXES = [
    (b"stco", "count", 8, ">I", HUGE),
    (b"stco", "offset", 12, ">I", (0, 0xFFFFFFF0)),
    (b"stsz", "size", 8, ">I", (1, 0x7FFFFFFF)),
    (b"stsz", "count", 12, ">I", HUGE),
    (b"stsz", "first", 16, ">I", (0, 0x7FFFFFFF)),
    (b"stts", "count", 8, ">I", HUGE),
    (b"stts", "samples", 12, ">I", (0, 0x7FFFFFFF, 0xFFFFFFFF)),
    (b"stts", "ticks", 16, ">I", (0, 0x7FFFFFFF, 0xFFFFFFFF)),
    (b"stsc", "count", 8, ">I", (0, 0x7FFFFFFF)),
    (b"stsc", "samples", 16, ">I", (0, 0x7FFFFFFF)),
    (b"ctts", "count", 8, ">I", (0, 0x7FFFFFFF)),
    (b"ctts", "ticks", 16, ">I", (0x7FFFFFFF, 0x80000000)),
    (b"stss", "count", 8, ">I", (0, 0x7FFFFFFF)),
    (b"tkhd", "width", 80, ">I", (0, 0xFFFFFFFF)),
    (b"tkhd", "height", 84, ">I", (0, 0xFFFFFFFF)),
    (b"tkhd", "matrix", 44, ">I", (0, 0x7FFFFFFF)),
    (b"mvhd", "timescale", 16, ">I", (0, 0xFFFFFFFF)),
    (b"mdhd", "timescale", 16, ">I", (0, 1, 0xFFFFFFFF)),
    (b"mdhd", "duration", 20, ">I", (0, 0xFFFFFFFE)),
    (b"elst", "count", 8, ">I", (0, 0x7FFFFFFF)),
    (b"elst", "media_time", 16, ">I", (0xFFFFFFFF, 0x7FFFFFFF)),
    (b"avc1", "width", 28, ">H", (0, 1, 0xFFFF)),
    (b"avc1", "height", 30, ">H", (0, 0xFFFF)),
    (b"jpeg", "width", 28, ">H", (0, 0xFFFF)),
    (b"hdlr", "kind", 12, ">I", (0, struct.unpack(">I", b"soun")[0])),
    (b"moov", "box size", -4, ">I", (*HUGE, 9)),
    (b"trak", "box size", -4, ">I", (0, 7, 0xFFFFFFFF)),
    (b"stbl", "box size", -4, ">I", (0, 7, 0xFFFFFFFF)),
    (b"mdat", "box size", -4, ">I", HUGE),
]
# The same for other containers.
FIELDS = {
    "vp9.webm": [
        (b"\x2a\xd7\xb1\x83", "ticks", 4, ">BH", ((0, 0), (255, 65535))),
        (b"\xb0\x81", "width", 2, ">B", (0, 255)),
        (b"\x1f\x43\xb6\x75", "cluster size", 4, ">Q", (0x01FFFFFFFFFFFFFF, 0x0100000000000000)),
        (b"\x18\x53\x80\x67", "segment size", 4, ">Q", (0x01FFFFFFFFFFFFFE, 0x0100000000000001)),
    ],
    "hevc.mkv": [
        (b"\x2a\xd7\xb1\x83", "ticks", 4, ">BH", ((0, 0), (255, 65535))),
        (b"\x1f\x43\xb6\x75", "cluster size", 4, ">Q", (0x01FFFFFFFFFFFFFF, 0x0100000000000000)),
    ],
    "mpeg4.avi": [
        (b"strh", "scale", 28, "<I", (0, 0xFFFFFFFF)),
        (b"strh", "rate", 32, "<I", (0, 0xFFFFFFFF)),
        (b"strh", "length", 40, "<I", (0, 0xFFFFFFFF)),
        (b"strh", "kind", 8, ">I", (struct.unpack(">I", b"auds")[0],)),
        (b"strf", "width", 12, "<I", (0, 0x7FFFFFFF, 0xFFFFFFFF)),
        (b"strf", "height", 16, "<I", (0, 0x7FFFFFFF)),
        (b"movi", "size", -4, "<I", (0, 0xFFFFFFFF)),
        (b"idx1", "size", 4, "<I", (0, 0xFFFFFFFF)),
        (b"RIFF", "size", 4, "<I", (0, 0xFFFFFFFF)),
    ],
}


def lie(mark: bytes, offset: int, form: str, value: int | tuple[int, ...]) -> Damage:
    def damage(data: bytes, rng: Rng) -> bytes:
        changed = bytearray(data)
        struct.pack_into(form, changed, data.index(mark) + offset, *(value if isinstance(value, tuple) else (value,)))
        return bytes(changed)

    return damage


# ----------------------------------------------------------------------------------------------------------- plans


def writes(content: bytes) -> Callable[[Path, Rng], None]:
    def make(path: Path, rng: Rng) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)

    return make


def damages(content: bytes, damage: Damage) -> Callable[[Path, Rng], None]:
    return lambda path, rng: writes(damage(content, rng))(path, rng)


def pictures(files: Mapping[str, bytes]) -> Callable[[Path, Rng], None]:
    """A folder with these files in it."""

    def make(path: Path, rng: Rng) -> None:
        path.mkdir(parents=True)
        for name, content in files.items():
            (path / name).write_bytes(content)

    return make


def plans(sources: Mapping[str, bytes] | None = None, *, at_least: int = 0) -> list[Hostile]:
    """All hostile files; random damages are added until there are ``at_least`` so many.

    :param sources: whole videos by name, beside those rendered here.
    """
    rendered = {name: video(name) for name in VIDEOS}
    whole = {**rendered, **(sources or {})}
    found = [
        *_damaged(whole),
        *_lies(rendered),
        *_impostors(rendered),
        *_short(rendered),
        *_paths(rendered),
        *_names(rendered),
        *_folders(rendered),
        *_moving(rendered),
    ]
    names = list(whole)
    for number in range(max(at_least - len(found), 0)):
        source = names[number % len(names)]
        found.append(
            Hostile(f"several_{number:03d}_{source}", "several damages", damages(whole[source], several), damaged=True)
        )
    assert len({one.name for one in found}) == len(found)
    return found


def _damaged(whole: Mapping[str, bytes]) -> Iterator[Hostile]:
    names = list(whole)
    for index, (name, data) in enumerate(whole.items()):

        def one(label: str, kind: str, damage: Damage, name: str = name, data: bytes = data) -> Hostile:
            return Hostile(f"{label}_{name}", kind, damages(data, damage), damaged=True)

        yield Hostile(f"whole_{name}", "whole", writes(data), OK, damaged=True)
        for tenth in range(1, 10):
            yield one(f"cut_{tenth}0", "cut at a tenth", cut(len(data) * tenth // 10))
        for less in (1, 2, 7, 50, 1000):
            yield one(f"cut_by_{less}", "cut near the end", cut(len(data) - less))
        for where in ("anywhere", "header", "data"):
            for count in (1, 10, 200):
                for turn in range(2):
                    yield one(f"flip_{where}_{count}_{turn}", f"{count} bits turned, {where}", flips(count, where))
        for label, damage in PIECES.items():
            for turn in range(2):
                yield one(f"piece_{label.replace(' ', '_')}_{turn}", f"a piece {label}", damage)
        for step in (1, 2, 3):
            other = names[(index + step) % len(names)]
            yield one(f"body_of_{other.replace('.', '_')}_in", "the body of another", body_of(whole[other]))


def _lies(rendered: Mapping[str, bytes]) -> Iterator[Hostile]:
    tables = {**dict.fromkeys(("h264.mp4", "mjpeg.mov"), BOXES), **FIELDS}
    for name, fields in tables.items():
        data = rendered[name]
        for mark, what, offset, form, values in fields:
            if mark not in data:
                continue
            for number, value in enumerate(values):
                label = mark.decode() if mark.isalnum() else mark.hex()
                yield Hostile(
                    f"lie_{label}_{what.replace(' ', '_')}_{number}_{name}",
                    f"{name.rpartition('.')[2]} fields that lie",
                    damages(data, lie(mark, offset, form, value)),
                    damaged=True,
                )
    deep = b""
    for _ in range(20_000):
        deep = struct.pack(">I4s", len(deep) + 8, b"moov") + deep
    yield Hostile("lie_deep.mp4", "mp4 fields that lie", writes(rendered["h264.mp4"][:32] + deep), ANY_ERROR)
    for blocks in ((1, 1), (256, 256), (1024, 1024), (4096, 4096), (65535, 1)):
        yield Hostile(f"lie_size_{blocks[0]}x{blocks[1]}.mp4", "a huge picture", writes(h264_of_size(*blocks)))
    yield Hostile("lie_size.y4m", "a huge picture", writes(b"YUV4MPEG2 W90000 H90000 F25:1 C444\nFRAME\n" + bytes(99)))


def _impostors(rendered: Mapping[str, bytes]) -> Iterator[Hostile]:
    zipped, whole = BytesIO(), "whole_h264.mp4"
    with zipfile.ZipFile(zipped, "w") as archive:
        archive.writestr("a.mp4", rendered["h264.mp4"])
    texts = {
        "text": "This is not a video.\n" * 20,
        "one_letter": "a",
        "line_feed": "\n",
        "json": json.dumps({"videos": [{"id": 1, "label": "walk"}] * 20}),
        "html": "<!DOCTYPE html><html><head><title>404</title></head><body>Not found</body></html>",
        "xml": "<?xml version='1.0'?><a><b/></a>",
        "svg": "<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'><rect width='9' height='9'/></svg>",
        "m3u8_local": f"#EXTM3U\n#EXT-X-TARGETDURATION:3\n#EXTINF:3,\n{whole}\n#EXT-X-ENDLIST\n",
        "m3u8_network": "#EXTM3U\n#EXT-X-TARGETDURATION:3\n#EXTINF:3,\nhttp://127.0.0.1:9/a.ts\n#EXT-X-ENDLIST\n",
        "m3u8_passwd": "#EXTM3U\n#EXTINF:3,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n",
        "concat": f"ffconcat version 1.0\nfile '{whole}'\n",
        "concat_plain": f"file '{whole}'\nfile '/etc/passwd'\n",
        "concat_outside": f"ffconcat version 1.0\nfile '../{OUTSIDE}/secret.mp4'\n",
        "m3u8_outside": f"#EXTM3U\n#EXTINF:3,\n../{OUTSIDE}/secret.mp4\n#EXT-X-ENDLIST\n",
        "dash": "<?xml version='1.0'?><MPD xmlns='urn:mpeg:dash:schema:mpd:2011' type='static'><Period/></MPD>",
        "csv": "path,label\na.mp4,walk\n",
        "python": "import os\nos.system('echo')\n",
        "lfs_pointer": "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12345\n",
    }
    for label, text in texts.items():
        yield Hostile(f"poses_{label}.mp4", "text posing as a video", writes(text.encode()), NO_VIDEO)
    lists = {
        "sdp": SDP.format("127.0.0.1", 9),
        "sdp_any": SDP.format("0.0.0.0", 45_680),
        "srt": "1\n00:00:01,000 --> 00:00:02,000\nHello\n\n",
        "ass": "[Script Info]\nScriptType: v4.00+\n[Events]\nDialogue: 0,0:00:00.00,0:00:01.00,,,0,0,0,,Hello\n",
        "webvtt": "WEBVTT\n\n00:00.000 --> 00:01.000\nHello\n",
        "metadata": ";FFMETADATA1\ntitle=x\n",
        "rtsp": "[Reference]\nRef1=rtsp://127.0.0.1/a\n",
    }
    for label, text in lists.items():
        yield Hostile(f"poses_{label}.mp4", "a list or subtitles posing as a video", writes(text.encode()), NO_PICTURES)
    yield Hostile("poses_concat_of_pipe.mp4", "text posing as a video", _with_pipe, NO_VIDEO)
    binaries = {
        "png": png(),
        "jpg": jpeg(0),
        "zip": zipped.getvalue(),
        "pickle": pickle.dumps({"frames": list(range(500))}),
        "pdf": b"%PDF-1.4\n%\xe2\xe3\xcf\xd3\n1 0 obj\n<<>>\nendobj\n" + bytes(200),
        "npy": b"\x93NUMPY\x01\x00v\x00{'descr': '<f4', 'fortran_order': False, 'shape': (9,), }" + b" " * 60 + b"\n",
        "elf": b"\x7fELF\x02\x01\x01" + bytes(200),
    }
    for label, content in binaries.items():
        truth = NO_VIDEO if label in ("png", "jpg") else ANY_ERROR
        yield Hostile(f"poses_{label}.mp4", "another format posing as a video", writes(content), truth)
        yield Hostile(f"poses_{label}.avi", "another format posing as a video", writes(content), truth)
    for size in (1, 2, 7, 64, 512, 4096, 65_536, 1_000_000):
        yield Hostile(
            f"noise_{size}.mp4", "noise", lambda p, rng, n=size: writes(rng.bytes(n) if n > 1 else b"\x01")(p, rng),
            ANY_ERROR,
        )  # fmt: skip
    for label, byte in (("zeros", b"\0"), ("ones", b"\xff"), ("ts", b"G" + bytes(187))):
        yield Hostile(f"noise_{label}.webm", "noise", writes(byte * 5000), ANY_ERROR)


def _with_pipe(path: Path, rng: Rng) -> None:
    """A list of a pipe, at which its reader would wait."""
    os.mkfifo(path.with_suffix(".pipe"))
    path.write_text(f"ffconcat version 1.0\nfile '{path.with_suffix('.pipe').name}'\n")


SDP = "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 {}\nt=0 0\nm=video {} RTP/AVP 96\na=rtpmap:96 H264/90000\n"


def _short(rendered: Mapping[str, bytes]) -> Iterator[Hostile]:
    for name in VIDEOS:
        suffix = name.partition(".")[2]
        if name != "h264_fast.mp4":
            yield Hostile(f"zero_bytes.{suffix}", "zero bytes", writes(b""), frozenset({"empty"}))
            yield Hostile(f"first_byte.{suffix}", "the first bytes", writes(rendered[name][:1]), ANY_ERROR)
            yield Hostile(f"first_12.{suffix}", "the first bytes", writes(rendered[name][:12]), ANY_ERROR)
        yield Hostile(f"one_frame_{name}", "one frame", writes(video(name, 1)), OK, damaged=True)
        yield Hostile(f"two_frames_{name}", "two frames", writes(video(name, 2)), OK, damaged=True)
    aac, pcm = sound("aac", "mp4"), sound("pcm_s16le", "wav")
    for name, content in (("a.m4a", aac), ("a.mp4", aac), ("a.wav", pcm), ("a.avi", pcm)):
        yield Hostile(f"sound_{name}", "sound alone", writes(content), frozenset({"no_video_stream"}))
    yield Hostile("sound_cut.mp4", "sound alone", writes(aac[: len(aac) // 2]), ANY_ERROR)


def _paths(rendered: Mapping[str, bytes]) -> Iterator[Hostile]:
    data = rendered["h264.mp4"]

    def link(target: str) -> Callable[[Path, Rng], None]:
        return lambda path, rng: path.symlink_to(target)

    def pipe(path: Path, rng: Rng) -> None:
        os.mkfifo(path)

    def link_to_pipe(path: Path, rng: Rng) -> None:
        os.mkfifo(path.with_suffix(".pipe"))
        path.symlink_to(path.with_suffix(".pipe").name)

    def closed(path: Path, rng: Rng) -> None:
        path.write_bytes(data)
        path.chmod(0)

    def closed_folder(path: Path, rng: Rng) -> None:
        pictures({"00001.jpg": jpeg(1)})(path, rng)
        path.chmod(0)

    def closed_picture(path: Path, rng: Rng) -> None:
        pictures({"00001.jpg": jpeg(1)})(path, rng)
        (path / "00001.jpg").chmod(0)

    def loops(path: Path, rng: Rng) -> None:
        path.mkdir()
        for name in ("a", "b", "c"):
            (path / name).symlink_to(".")
        (path / "part.mp4").write_bytes(data)

    def holds(path: Path, rng: Rng) -> None:
        pictures({"part.mp4": data, "notes.txt": b"x"})(path, rng)
        (path / "self.mp4").symlink_to("self.mp4")

    missing, no_video = frozenset({"missing"}), frozenset({"not_video"})
    yield Hostile("place_absent.mp4", "nothing there", lambda path, rng: None, missing)
    yield Hostile("place_absent/below/x.mp4", "nothing there", lambda path, rng: None, missing)
    yield Hostile("whole_h264.mp4/below.mp4", "nothing there", lambda path, rng: None, missing)
    yield Hostile("place_" + "x" * 300 + ".mp4", "nothing there", lambda path, rng: None, missing)
    yield Hostile("place_dangling.mp4", "a link to nothing", link("nowhere.mp4"), missing)
    yield Hostile("place_itself.mp4", "a link to itself", link("place_itself.mp4"), missing)
    yield Hostile("place_round_1.mp4", "a link to itself", link("place_round_2.mp4"), missing)
    yield Hostile("place_round_2.mp4", "a link to itself", link("place_round_1.mp4"), missing)
    yield Hostile("place_zero.mp4", "a device", link("/dev/zero"), no_video)
    yield Hostile("place_null.mp4", "a device", link("/dev/null"), no_video)
    yield Hostile("place_fifo.mp4", "a named pipe", pipe, no_video)
    yield Hostile("place_link_fifo.mp4", "a named pipe", link_to_pipe, no_video)
    yield Hostile("place_empty_folder.mp4", "a folder named as a video", pictures({}), frozenset({"empty"}))
    yield Hostile("place_text_folder.mp4", "a folder named as a video", pictures({"a.txt": b"x"}), frozenset({"empty"}))
    yield Hostile(
        "place_frames.mp4", "a folder named as a video", pictures({f"{n}.jpg": jpeg(n) for n in range(9)}), OK
    )
    yield Hostile(
        "place_loops", "a folder of links to itself", loops, OK, answers=("place_loops/part.mp4",)
    )  # fmt: skip
    yield Hostile(
        "place_holds.mp4", "a folder named as a video", holds,
        answers=("place_holds.mp4/part.mp4", "place_holds.mp4/self.mp4"),
    )  # fmt: skip
    closed_truth = frozenset({"decode_error", "missing"})
    yield Hostile("place_closed.mp4", "no permission", closed, closed_truth, unreadable=True)
    yield Hostile("place_closed_folder", "no permission", closed_folder, closed_truth, unreadable=True)
    yield Hostile("place_closed_picture", "no permission", closed_picture, closed_truth, unreadable=True)


def _names(rendered: Mapping[str, bytes]) -> Iterator[Hostile]:
    names = [
        "-rf.mp4", "--top.mp4", "a b.mp4", " .mp4", "a\nb.mp4", "a\tb.mp4", "a\x1b[31mb.mp4", "100%.mp4", "%05d.mp4",
        "%s%n.mp4", "a'b.mp4", 'a"b.mp4', "a\\b.mp4", "12:30.mp4", "http:x.mp4", "concat:whole_h264.mp4|x.mp4",
        "pipe:0", "subfile,,start,0,end,9,,:x.mp4", "data:text,x.mp4", "[ab]*?.mp4", "$HOME.mp4", "a;b.mp4", "~.mp4",
        "\u6f22\u5b57.mp4", "e\u0301.mp4", "\u202eabc.mp4", "a\u2028b.mp4", os.fsdecode(b"not utf-8 \xff\xfe.mp4"),
        "x" * 251 + ".mp4",
    ]  # fmt: skip
    for name in names:
        yield Hostile(name, "a strange name", writes(rendered["h264.mp4"]), OK)
    yield Hostile(os.fsdecode(b"empty \xff.mp4"), "a strange name", writes(b""), frozenset({"empty"}))
    yield Hostile("missing\nname.mp4", "nothing there", lambda path, rng: None, frozenset({"missing"}))


def _times(names: Mapping[str, bytes], number: str) -> bytes:
    """When frames are shown, all at one time, for as long."""
    return ('{"frames": {' + ", ".join(f'"{name}": [{number}, {number}]' for name in names) + "}}").encode()


def _folders(rendered: Mapping[str, bytes]) -> Iterator[Hostile]:
    good = {f"{n:05d}.jpg": jpeg(n) for n in range(1, 9)}
    broken, error = good["00004.jpg"], frozenset({"decode_error"})
    folders: dict[str, tuple[dict[str, bytes], frozenset[str]]] = {
        "good": (good, OK),
        "one": ({"1.jpg": good["00001.jpg"]}, OK),
        "none": ({}, frozenset({"empty"})),
        "only_text": ({"a.txt": b"x"}, frozenset({"empty"})),
        "empty_picture": ({**good, "00004.jpg": b""}, error),
        "all_empty": (dict.fromkeys(good, b""), error),
        "text_picture": ({**good, "00004.jpg": b"hello"}, error),
        "half_picture": ({**good, "00004.jpg": broken[: len(broken) // 2]}, UNKNOWN),
        "first_bytes": ({**good, "00004.jpg": broken[:3]}, error),
        "png_as_jpg": (dict.fromkeys(good, png()), OK),
        "jpg_as_png": ({name.replace("jpg", "png"): data for name, data in good.items()}, OK),
        "mixed": ({**good, "00004.png": png(), "00009.PNG": png()}, OK),
        "sizes": ({f"{n}.jpg": jpeg(n, 16 + 8 * n, 40) for n in range(1, 9)}, OK),
        "one_pixel": ({f"{n}.jpg": jpeg(n, 1, 1) for n in range(1, 9)}, OK),
        "one_row": ({f"{n}.jpg": jpeg(n, 1, 3000) for n in range(1, 9)}, OK),
        "video_as_jpg": (dict.fromkeys(good, rendered["h264.mp4"]), UNKNOWN),
        "html_as_jpg": (dict.fromkeys(good, b"<html></html>"), error),
        "m3u8_as_jpg": (dict.fromkeys(good, b"#EXTM3U\n#EXTINF:3,\n00001.jpg\n#EXT-X-ENDLIST\n"), error),
        "sdp_as_jpg": (dict.fromkeys(good, SDP.format("127.0.0.1", 45_682).encode()), error),
        "concat_as_jpg": (
            dict.fromkeys(good, f"ffconcat version 1.0\nfile '../{OUTSIDE}/secret.jpg'\n".encode()),
            error,
        ),
        "rtsp_as_png": ({"1.png": b"[Reference]\nRef1=rtsp://127.0.0.1:9/a\n"}, error),
        "one_number": ({"img_1.jpg": jpeg(1), "img_01.jpg": jpeg(1)}, frozenset({"duplicate"})),
        "times_of_400_digits": ({**good, ".times.json": _times(good, "1" + "0" * 400)}, error),
        "times_of_1e308": ({**good, ".times.json": _times(good, "1e308")}, error),
        "times_nested": ({**good, ".times.json": b"[" * 100_000}, error),
        "sound_as_jpg": (dict.fromkeys(good, sound("aac", "mp4")), error),
        "png_bomb": ({"1.png": png(declared=(30_000, 30_000))}, UNKNOWN),
        "png_huge": ({"1.png": png(declared=(0x7FFFFFFF, 0x7FFFFFFF))}, error),
        "png_no_size": ({"1.png": png(declared=(0, 0))}, error),
        "jpg_bomb": ({"1.jpg": jpeg_declaring(20_000, 20_000)}, UNKNOWN),
        "jpg_no_size": ({"1.jpg": jpeg_declaring(0, 0)}, error),
        "strange_names": ({f"{'x' * n}\n{n} .jpg": jpeg(n) for n in range(1, 9)}, OK),
        "not_utf8": ({os.fsdecode(b"\xff%d.jpg" % n): jpeg(n) for n in range(1, 9)}, OK),
        "long_numbers": ({f"{n}{'0' * 200}.jpg": jpeg(n) for n in range(1, 9)}, OK),
        "hidden": ({f".{n}.jpg": jpeg(n) for n in range(1, 9)}, frozenset({"empty"})),
    }
    for name, (files, truth) in folders.items():
        yield Hostile(f"frames_{name}", "a folder of pictures", pictures(files), truth)

    def with_odd_picture(kind: str) -> Callable[[Path, Rng], None]:
        def make(path: Path, rng: Rng) -> None:
            pictures(good)(path, rng)
            picture_path = path / "00004.jpg"
            picture_path.unlink()
            if kind == "fifo":
                os.mkfifo(picture_path)
            elif kind == "folder":
                picture_path.mkdir()
            else:
                picture_path.symlink_to({"dangling": "nowhere.jpg", "itself": "00004.jpg", "zero": "/dev/zero"}[kind])

        return make

    for kind in ("fifo", "folder", "dangling", "itself", "zero"):
        yield Hostile(
            f"frames_with_{kind}", "a folder with a picture that is no file", with_odd_picture(kind), ANY_ERROR
        )  # fmt: skip


def _moving(rendered: Mapping[str, bytes]) -> Iterator[Hostile]:
    for name, data in rendered.items():
        yield Hostile(f"moving_{name}", "a file that changes while it is read", writes(data), moving=True)


def real(folder: Path) -> dict[str, bytes]:
    """Small whole videos of a folder, to be damaged too."""
    found = sorted(path for path in folder.rglob("*") if path.suffix in (".mp4", ".webm", ".avi", ".mkv", ".mov"))
    return {path.name: path.read_bytes() for path in found if path.stat().st_size < 3_000_000}


def remove(folder: Path) -> None:
    """Remove what ``make_all`` made, also what may not be read."""
    for path in sorted(folder.rglob("*")) if folder.is_dir() else []:
        if path.is_dir() and not path.is_symlink():
            path.chmod(0o700)
    shutil.rmtree(folder, ignore_errors=True)
