"""Small videos of the kinds that are met in the wild, written on purpose: each with what a second program needs to
read it. ``odd_files`` yields them; tests/video/test_oracle.py compares what is read out of them."""

import math
import shutil
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import av
import av.error
import numpy as np

HEIGHT, WIDTH, NUM_FRAMES, RATE = 48, 64, 23, 24
FRAME = 1 / RATE + 0.002
"""How long a frame is shown, in seconds, and a little more."""

# name: (encoder, options, pixel format)
STREAMS: dict[str, tuple[str, dict[str, str], str]] = {
    "h264_closed": ("libx264", {"g": "8", "bf": "3", "flags": "+cgop"}, "yuv420p"),
    "h264_open": ("libx264", {"g": "8", "bf": "3", "x264-params": "open-gop=1:b-adapt=0:scenecut=0"}, "yuv420p"),
    "h264_pyramid": ("libx264", {"g": "25", "bf": "7", "x264-params": "b-pyramid=normal:b-adapt=0"}, "yuv420p"),
    "h264_no_b": ("libx264", {"g": "8", "bf": "0"}, "yuv420p"),
    "h264_plain_entropy": ("libx264", {"g": "8", "bf": "2", "x264-params": "no-cabac=1:no-8x8dct=1"}, "yuv420p"),
    "h264_other_chroma": ("libx264", {"g": "8", "bf": "3", "x264-params": "chroma-qp-offset=9"}, "yuv420p"),
    "h264_interlaced": ("libx264", {"g": "8", "bf": "2", "x264-params": "tff=1"}, "yuv444p"),
    "h264_refresh": ("libx264", {"x264-params": "intra-refresh=1:bframes=0:keyint=10"}, "yuv420p"),
    "h264_10bit": ("libx264", {"g": "8", "bf": "3"}, "yuv420p10le"),
    "h264_444": ("libx264", {"g": "8", "bf": "2"}, "yuv444p"),
    "hevc_open": ("libx265", {"x265-params": "keyint=8:bframes=4:open-gop=1:log-level=none"}, "yuv420p"),
    "hevc_closed": ("libx265", {"x265-params": "keyint=8:bframes=3:open-gop=0:log-level=none"}, "yuv420p"),
    "vp9_hidden": ("libvpx-vp9", {"g": "15", "auto-alt-ref": "1", "lag-in-frames": "20", "cpu-used": "8"}, "yuv420p"),
    "vp8_hidden": ("libvpx", {"g": "10", "auto-alt-ref": "1", "lag-in-frames": "10"}, "yuv420p"),
    "av1": ("libsvtav1", {"preset": "12", "g": "16", "svtav1-params": "log-level=0"}, "yuv420p"),
    "mpeg4_b": ("mpeg4", {"g": "9", "bf": "2"}, "yuv420p"),
    "mpeg4_no_b": ("mpeg4", {"g": "9", "bf": "0"}, "yuv420p"),
    "mpeg4_one_group": ("mpeg4", {"g": "300", "bf": "2", "sc_threshold": "1000000000"}, "yuv420p"),
    "mpeg2": ("mpeg2video", {"g": "9", "bf": "2"}, "yuv420p"),
    "mpeg2_interlaced": ("mpeg2video", {"g": "9", "bf": "2", "flags": "+ildct+ilme"}, "yuv420p"),
    "mjpeg": ("mjpeg", {}, "yuvj420p"),
    "msmpeg4": ("msmpeg4", {"g": "9"}, "yuv420p"),
    "wmv2": ("wmv2", {"g": "9"}, "yuv420p"),
    "flv1": ("flv", {"g": "9"}, "yuv420p"),
    "ffv1": ("ffv1", {}, "yuv420p"),
}
CONTAINERS = {
    "h264": ("mp4", "mkv", "mov", "avi", "ts", "flv", "h264"),
    "hevc": ("mp4", "mkv", "ts"),
    "vp9": ("webm", "mp4"),
    "vp8": ("webm",),
    "av1": ("mp4", "webm"),
    "mpeg4": ("mp4", "mkv", "mov", "avi", "ts"),
    "mpeg2": ("ts", "mkv", "mpg", "avi"),
    "mjpeg": ("mov", "mkv", "avi"),
    "msmpeg4": ("avi", "asf"),
    "wmv2": ("asf",),
    "flv1": ("flv",),
    "ffv1": ("mkv", "avi"),
}
WITH_TIMES = ("mp4", "mov", "mkv", "webm", "ts", "flv", "asf", "mpg")
"""Containers that say when a frame is shown."""


@dataclass(frozen=True)
class OddFile:
    """A video and what is known of it.

    :param size: height and width, in pixels, when the picture is upright.
    :param pixels: the format of what the decoder gives, by FFmpeg's name.
    :param whole: False where something is lacking on purpose, at the beginning or at the end.
    :param exact: False where turning pixels into RGB heeds more than their numbers: with interlaced lines, and chroma
        of 10 bits.
    :param late_seconds: by how much frames may be shown at other times than the program says; None where time stamps
        repeat or go back, so that no second can be told.
    """

    path: Path
    pixels: str
    size: tuple[int, int] = (HEIGHT, WIDTH)
    whole: bool = True
    exact: bool = True
    late_seconds: float | None = 0.002


def picture(number: int) -> np.ndarray:
    """A picture (height, width, 3) that differs from all others everywhere: moving stripes and a square on noise."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    noise = np.random.default_rng(number).integers(0, 40, (HEIGHT, WIDTH, 3))
    stripes = (np.sin((x + 3 * number) / 5) * 60 + np.cos((y - 2 * number) / 7) * 40 + 110)[..., None]
    out = (noise + stripes).clip(0, 255).astype(np.uint8)
    out[number % 30 : number % 30 + 12, (5 * number) % 48 : (5 * number) % 48 + 12] = (230, number * 9 % 255, 20)
    return out


@dataclass(frozen=True)
class Coded:
    """A coded picture. Times are in frames, ``pts`` when it is shown, ``dts`` when it is decoded."""

    data: bytes
    pts: int
    dts: int
    key: bool


@dataclass(frozen=True)
class Source:
    """A video as its encoder gave it, and the smallest file of it, which serves other files as a template."""

    path: Path
    pictures: tuple[Coded, ...]


class Sources:
    """Encodes each stream once. Matroska keeps parameter sets apart from the pictures, avi with the first of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._made: dict[tuple[str, str, int], Source] = {}

    def __call__(self, stream: str, container: str = "mkv", first: int = 0) -> Source:
        if (stream, container, first) not in self._made:
            self._made[stream, container, first] = self._encode(stream, container, first)
        return self._made[stream, container, first]

    def _encode(self, stream: str, container: str, first: int) -> Source:
        encoder, options, pixels = STREAMS[stream]
        path = self.folder / f"source_{stream}_{first}.{container}"
        packets: list[av.Packet] = []
        with av.open(str(path), "w") as output:
            video = output.add_stream(encoder, rate=RATE, options=dict(options))
            video.height, video.width, video.pix_fmt = HEIGHT, WIDTH, pixels
            for number in range(NUM_FRAMES):
                frame = av.VideoFrame.from_ndarray(picture(first + number), format="rgb24").reformat(format=pixels)
                frame.pts, frame.time_base = number, Fraction(1, RATE)
                packets += video.encode(frame)
            packets += video.encode()
            times = [(packet.pts, packet.dts, packet.is_keyframe) for packet in packets]
            output.mux(packets)
        with av.open(str(path)) as written:  # muxers change the bytes
            contents = [bytes(packet) for packet in written.demux(video=0) if packet.size]
        return Source(path, tuple(Coded(data, *when) for data, when in zip(contents, times, strict=True)))


def write(
    path: Path,
    source: Source,
    *,
    pictures: Sequence[Coded] | None = None,
    when: Callable[[int], int] = lambda number: number,
    ticks_a_second: int = RATE,
    sound: bool = False,
    options: dict[str, str] | None = None,
) -> None:
    """Put coded pictures into a container; ``when`` says at which tick what would be shown as the i-th is shown."""
    unit = Fraction(1, ticks_a_second)
    coded = source.pictures if pictures is None else pictures
    with av.open(str(source.path)) as template, av.open(str(path), "w", options=options or {}) as output:
        stream = output.add_stream_from_template(template.streams.video[0])
        stream.time_base = unit
        silence = output.add_stream("mp3" if path.suffix == ".flv" else "mp2", rate=44100) if sound else None
        if silence is not None:
            for begin in range(0, 2 * 44100, 1152):
                samples = av.AudioFrame.from_ndarray(np.zeros((1, 2 * 1152), np.int16), format="s16", layout="stereo")
                samples.sample_rate, samples.pts, samples.time_base = 44100, begin, Fraction(1, 44100)
                output.mux(silence.encode(samples))
        late = max(0, *(one.dts - when(one.pts) for one in coded)) if path.suffix == ".avi" else 0
        for one in coded:
            packet = av.Packet(one.data)
            packet.stream, packet.time_base = stream, unit
            # Decoding times that go with the moved ones: as far apart, never behind the time of showing.
            packet.pts, packet.dts = when(one.pts) + late, min(when(max(one.dts, 0)) + min(one.dts, 0), when(one.pts))
            packet.is_keyframe = one.key
            output.mux_one(packet)
        if silence is not None:
            output.mux(silence.encode())


def uneven(number: int) -> int:
    return int(np.cumsum([0, *np.random.default_rng(0).integers(1, 6, 400)])[number])


# An mp4, written box by box: no muxer writes what is wanted here.

UPRIGHT = (1, 0, 0, 1)


def box(kind: bytes, *contents: bytes) -> bytes:
    content = b"".join(contents)
    return struct.pack(">I4s", 8 + len(content), kind) + content


def table(kind: bytes, rows: Sequence[Sequence[int]], form: str = "I", before: bytes = b"") -> bytes:
    """A box that counts its rows."""
    return box(kind, bytes(4), before, struct.pack(">I", len(rows)), *(struct.pack(f">{form}", *row) for row in rows))


def description(source: Source) -> bytes:
    """A sample description of H.264: how the pictures of a Matroska file are to be decoded."""
    with av.open(str(source.path)) as template:
        record = template.streams.video[0].codec_context.extradata or b""
    head = bytes(6) + struct.pack(">H16xHHIIIH32xHh", 1, WIDTH, HEIGHT, 72 << 16, 72 << 16, 0, 1, 24, -1)
    return box(b"avc1", head, box(b"avcC", record))


def write_mp4(
    path: Path,
    sources: Sequence[Source],
    *,
    when: Callable[[int], int] = lambda number: number,
    edits: Sequence[tuple[int, int]] = (),
    matrix: Sequence[int] = UPRIGHT,
) -> None:
    """H.264 in mp4, each of ``sources`` with a sample description of its own; a tick is the length of a frame.

    :param when: at which tick what would be shown as the i-th is shown.
    :param edits: the edit list: pairs of the tick of the pictures at which a stretch begins, or -1 where nothing is
        shown, and how many ticks it lasts.
    :param matrix: a, b, c, d of the display matrix, where (x, y) is shown at (a x + c y, b x + d y).
    """
    samples, keys, shown, counts = [], [], [], []
    for source in sources:
        before = len(samples)
        for number, one in enumerate(source.pictures):
            samples.append(one.data)
            shown.append(when(before + one.pts))
            if one.key:
                keys.append(before + number + 1)
        counts.append(len(samples) - before)
    # Decoded at the times at which pictures are shown, ascending; shown so much later that none comes too late.
    decoded = sorted(shown)
    late = max(at - seen for at, seen in zip(decoded, shown, strict=True))
    offsets = [seen + late - at for at, seen in zip(decoded, shown, strict=True)]
    lengths = [after - at for at, after in zip(decoded, [*decoded[1:], decoded[-1] + 1], strict=True)]
    ticks = sum(lengths)
    edits = edits or [(0, ticks)]
    listed = [(length, -1 if begin < 0 else begin + late, 1 << 16) for begin, length in edits]
    header = box(b"ftyp", b"isom\0\0\2\0isomiso2avc1mp41")
    places, at = [], len(header) + 8
    for begin, count in zip(np.cumsum([0, *counts[:-1]]), counts, strict=True):
        places.append(at)
        at += sum(map(len, samples[begin : begin + count]))
    a, b, c, d = (factor << 16 for factor in matrix)
    transform = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    samples_table = box(
        b"stbl",
        box(b"stsd", bytes(4), struct.pack(">I", len(sources)), *map(description, sources)),
        table(b"stts", [(1, length) for length in lengths], "II"),
        table(b"ctts", [(1, offset) for offset in offsets], "II"),
        table(b"stss", [(key,) for key in keys]),
        table(b"stsc", [(number + 1, count, number + 1) for number, count in enumerate(counts)], "III"),
        table(b"stsz", [(len(sample),) for sample in samples], before=bytes(4)),
        table(b"stco", [(place,) for place in places]),
    )
    media = box(
        b"mdia",
        box(b"mdhd", struct.pack(">4xIIIIHH", 0, 0, RATE, ticks, 0x55C4, 0)),
        box(b"hdlr", struct.pack(">4xI4s12x", 0, b"vide"), b"pictures\0"),
        box(
            b"minf",
            box(b"vmhd", struct.pack(">I8x", 1)),
            box(b"dinf", table(b"dref", [(12, int.from_bytes(b"url ", "big"), 1)], "III")),
            samples_table,
        ),
    )
    length = sum(length for length, _, _ in listed)
    track = box(
        b"trak",
        box(b"tkhd", struct.pack(">IIIIII8xhhhH", 3, 0, 0, 1, 0, length, 0, 0, 0, 0), transform,
            struct.pack(">II", WIDTH << 16, HEIGHT << 16)),
        box(b"edts", table(b"elst", listed, "IiI")),
        media,
    )  # fmt: skip
    plain_matrix = struct.pack(">9i", 1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
    movie = box(
        b"mvhd", struct.pack(">4xIIIIIH10x", 0, 0, RATE, length, 1 << 16, 256), plain_matrix, bytes(24), b"\0\0\0\2"
    )
    path.write_bytes(header + box(b"mdat", *samples) + box(b"moov", movie, track))


VOP = b"\0\0\1\xb6"
"""How a picture of MPEG-4 begins; the two bits behind it are its type."""


def kind_of(data: bytes) -> int:
    """Of a picture of MPEG-4: 0 where it needs no other, 1 where it needs one before, 2 where also one behind."""
    return data[data.index(VOP) + 4] >> 6


def not_coded(number: int) -> bytes:
    """A picture of MPEG-4 of which nothing is coded: the one before is shown once more."""
    bits = f"0101{number % RATE:0{(RATE - 1).bit_length()}b}10"
    bits += "0" + "1" * (-(len(bits) + 1) % 8)
    return VOP + int(bits, 2).to_bytes(len(bits) // 8, "big")


def packed(pictures: Sequence[Coded], *, first: int = 0, stop: int = 1 << 30, said: bool = True) -> list[Coded]:
    """As DivX packs B pictures into avi: the first behind the picture that it waits for, and a placeholder at the end.

    :param first: from which picture on, and ``stop`` up to which, it is done; the others stay as they are.
    :param said: whether the first picture says so, as DivX does.
    """
    chunks: list[tuple[bytes, bool]] = []
    place = 0
    while place < len(pictures):
        one = pictures[place]
        behind = place + 1
        while behind < len(pictures) and kind_of(pictures[behind].data) == 2:
            behind += 1
        group = pictures[place + 1 : behind]
        if group and first <= place < stop:
            chunks.append((one.data + group[0].data, one.key))
            chunks += [(each.data, False) for each in group[1:]]
            chunks.append((not_coded(place), False))
        else:
            chunks += [(each.data, each.key) for each in (one, *group)]
        place = behind
    if said:
        data, key = chunks[0]
        at = data.index(VOP)
        chunks[0] = (data[:at] + b"\0\0\1\xb2DivX503b1393p" + data[at:], key)
    return [Coded(data, number, number, key) for number, (data, key) in enumerate(chunks)]


def with_chunks(pictures: Sequence[Coded], places: Sequence[int], content: bytes) -> list[Coded]:
    """Pictures with more chunks of this content between them; what is shown when moves on by as many frames."""
    out: list[Coded] = []
    for place, one in enumerate(pictures):
        out.append(replace(one, pts=one.pts + len(out) - place, dts=one.dts + len(out) - place))
        if place in places:
            out.append(Coded(content, out[-1].pts + 1, out[-1].dts + 1, False))
    return out


def without_b(pictures: Sequence[Coded], places: Sequence[int]) -> list[Coded]:
    """MPEG-4 without B pictures in which those at some places are not coded."""
    return [replace(one, data=not_coded(one.pts)) if place in places else one for place, one in enumerate(pictures)]


MATRICES = {
    "upright": (1, 0, 0, 1),
    "turned 90": (0, 1, -1, 0),
    "turned 180": (-1, 0, 0, -1),
    "turned 270": (0, -1, 1, 0),
    "mirrored left to right": (-1, 0, 0, 1),
    "mirrored up to down": (1, 0, 0, -1),
    "mirrored at one diagonal": (0, 1, 1, 0),
    "mirrored at the other diagonal": (0, -1, -1, 0),
}


class OddFiles:
    """Writes them all below a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "sources").mkdir(parents=True)
        self.sources = Sources(folder / "sources")

    def __iter__(self) -> Iterator[OddFile]:
        yield from self.plain()
        yield from self.at_odd_times()
        yield from self.edited()
        yield from self.turned()
        yield from self.described_twice()
        yield from self.packed()
        yield from self.not_coded()
        yield from self.with_empty_chunks()
        yield from self.laid_out()
        yield from self.beginning_late()
        yield from self.damaged()

    def path(self, name: str, suffix: str) -> Path:
        return self.folder / f"{name}.{suffix}".replace(" ", "_")

    def source(self, stream: str, suffix: str) -> Source:
        if stream == "flv1":  # Matroska does not take it
            return self.sources(stream, suffix)
        in_band = suffix in ("avi", "asf") or (suffix == "ts" and stream.startswith("mpeg4"))
        return self.sources(stream, "avi" if in_band else "mkv")

    def made(self, name: str, stream: str, suffix: str, whole: bool = True, **options: object) -> OddFile:
        path = self.path(f"{stream} {name}", suffix)
        if stream == "av1":  # FFmpeg's decoder of it cannot serve an encoder as a template
            shutil.copyfile(self.sources(stream, suffix).path, path)
        else:
            write(path, self.source(stream, suffix), **options)  # type: ignore[arg-type]
        exact = stream not in ("h264_10bit", "mpeg2_interlaced")
        late = 0.002 if suffix in WITH_TIMES else FRAME
        return OddFile(path, STREAMS[stream][2], whole=whole, exact=exact, late_seconds=late)

    def plain(self) -> Iterator[OddFile]:
        for stream in STREAMS:
            for suffix in CONTAINERS[stream.split("_")[0]]:
                yield self.made("plain", stream, suffix)

    def at_odd_times(self) -> Iterator[OddFile]:
        """At a rate that changes, beginning late, with sound, and with many ticks to a frame."""
        some = ("h264_closed", "h264_open", "hevc_open", "vp9_hidden", "mpeg4_b", "mpeg4_no_b", "mpeg2")
        for stream in some:
            for suffix in CONTAINERS[stream.split("_")[0]]:
                if suffix in WITH_TIMES:
                    yield self.made("uneven", stream, suffix, when=uneven)
                    yield self.made("late", stream, suffix, when=lambda number: number + 37)
        for suffix in ("mp4", "mkv", "ts", "avi", "flv"):
            yield self.made("sound", "h264_closed", suffix, sound=True)
        yield self.made("sound", "mpeg4_b", "avi", sound=True)
        for suffix in ("mp4", "mov"):
            yield self.made("fine", "h264_open", suffix, when=lambda n: 1001 * n + n % 3, ticks_a_second=24000)

    def edited(self) -> Iterator[OddFile]:
        edits = {
            "from a key frame": [(8, 12)],
            "within a group": [(5, 11)],
            "after nothing": [(-1, 9), (0, 23)],
            "two stretches": [(3, 6), (12, 8)],
            "the last alone": [(22, 1)],
        }
        for stream in ("h264_closed", "h264_open", "h264_no_b"):
            for name, entries in edits.items():
                path = self.path(f"{stream} edited {name}", "mp4")
                write_mp4(path, [self.source(stream, "mp4")], edits=entries)
                late: float | None = 0.002
                if len(entries) > 1:  # behind a gap FFmpeg counts a tick too many, or one twice
                    late = None if stream == "h264_closed" and entries[0][0] >= 0 else FRAME
                yield OddFile(path, STREAMS[stream][2], late_seconds=late)

    def turned(self) -> Iterator[OddFile]:
        for name, matrix in MATRICES.items():
            path = self.path(name, "mp4")
            write_mp4(path, [self.source("h264_444", "mp4")], matrix=matrix)
            yield OddFile(path, "yuv444p", size=(WIDTH, HEIGHT) if matrix[0] == 0 else (HEIGHT, WIDTH))

    def described_twice(self) -> Iterator[OddFile]:
        """Joined of two encodings whose pictures have to be decoded in different ways."""
        both = [self.sources(name, "mkv", first) for name, first in (("h264_closed", 0), ("h264_plain_entropy", 40))]
        like = [
            both[0],
            self.sources("h264_other_chroma", "mkv", 40),
        ]  # decodes with the wrong one too, to other colours
        for name, sources in {"two descriptions": both, "two alike": like, "three": [*like, both[1]]}.items():
            path = self.path(name, "mp4")
            write_mp4(path, sources)
            yield OddFile(path, "yuv420p")
        pieces = []
        for source in both:
            write(self.folder / "sources" / "piece.ts", source)
            pieces.append((self.folder / "sources" / "piece.ts").read_bytes())
        path = self.path("two joined", "ts")
        path.write_bytes(b"".join(pieces))
        yield OddFile(path, "yuv420p", late_seconds=None)  # its times begin anew
        path = self.path("two joined", "h264")
        pieces = []
        for source in both:
            write(self.folder / "sources" / "piece.h264", source)
            pieces.append((self.folder / "sources" / "piece.h264").read_bytes())
        path.write_bytes(b"".join(pieces))
        yield OddFile(path, "yuv420p", late_seconds=math.inf)

    def packed(self) -> Iterator[OddFile]:
        source = self.source("mpeg4_one_group", "avi")
        groups = self.source("mpeg4_b", "avi")
        ways = {
            "packed": packed(source.pictures),
            "packed in groups": packed(groups.pictures),
            "packed, first half": packed(source.pictures, stop=10),
            "packed, second half": packed(source.pictures, first=10),
            "packed, unsaid": packed(source.pictures, said=False),
            "said packed, is not": packed(source.pictures, stop=0),
        }
        noise = Coded(b"\x7f", 1, 1, True)
        packs = ways["packed"]
        ways["packed, with chunks of a byte"] = [
            replace(one, pts=number, dts=number) for number, one in enumerate([packs[0], noise, noise, *packs[1:]])
        ]
        for name, pictures in ways.items():
            path = self.path(name, "avi")
            write(path, source, pictures=pictures)
            yield OddFile(path, "yuv420p", late_seconds=FRAME)
        for suffix in ("mkv", "mp4"):
            path = self.path("packed", suffix)
            write(path, source, pictures=packs)
            # In Matroska both pictures of a packet have its time.
            yield OddFile(path, "yuv420p", late_seconds=None if suffix == "mkv" else FRAME)

    def not_coded(self) -> Iterator[OddFile]:
        for suffix in ("avi", "mp4", "mkv", "mov", "ts"):
            plain = self.source("mpeg4_no_b", suffix)
            for name, places in {"one": [12], "several": [3, 4, 13, 20]}.items():
                path = self.path(f"not coded {name}", suffix)
                write(path, plain, pictures=without_b(plain.pictures, places))
                yield OddFile(path, "yuv420p", late_seconds=FRAME)

    def with_empty_chunks(self) -> Iterator[OddFile]:
        """Avi in which the last picture is to be shown on."""
        for stream in ("mpeg4_no_b", "mpeg4_b", "mjpeg", "h264_no_b", "ffv1"):
            source = self.source(stream, "avi")
            path = self.path(f"{stream} empty chunks", "avi")
            write(path, source, when=lambda number: number + 5 * (number >= 7) + 2 * (number >= 15))
            # With B pictures one beside a gap of five frames may be taken for one on its other side.
            late = FRAME + 5 / RATE if stream == "mpeg4_b" else FRAME
            yield OddFile(path, STREAMS[stream][2], late_seconds=late)

    def laid_out(self) -> Iterator[OddFile]:
        """Containers written in other ways."""
        for stream in ("h264_closed", "h264_open"):
            yield self.made("in fragments", stream, "mp4", options={"movflags": "frag_keyframe+empty_moov"})
            yield self.made("in fragments of a frame", stream, "mp4", options={"movflags": "frag_every_frame"})
            yield self.made("header first", stream, "mp4", options={"movflags": "faststart"})
            yield self.made("live", stream, "mkv", options={"live": "1"})
            yield self.made("many clusters", stream, "mkv", options={"cluster_time_limit": "100"})
            yield self.made("cues in front", stream, "mkv", options={"reserve_index_space": "4096"})
            yield self.made("wrapping times", stream, "ts", options={"output_ts_offset": "95443.2"})
        yield self.made("live", "vp9_hidden", "webm", options={"live": "1"})

    def beginning_late(self) -> Iterator[OddFile]:
        """Recordings cut at the front, so that the first pictures need others that are not there."""
        for stream in ("h264_closed", "h264_no_b", "mpeg2"):  # of HEVC versions of FFmpeg differ in what they leave out
            whole = self.made("whole", stream, "ts")
            data = whole.path.read_bytes()
            path = self.path(f"{stream} begins late", "ts")
            path.write_bytes(data[188 * (len(data) // 188 // 4) :])
            whole.path.unlink()
            yield replace(whole, path=path, whole=False)

    def damaged(self) -> Iterator[OddFile]:
        cases = [("h264_closed", suffix) for suffix in ("mp4", "mkv", "avi", "ts", "flv")]
        cases += [("hevc_open", "mp4"), ("vp9_hidden", "webm"), ("mpeg4_b", "avi"), ("mpeg4_no_b", "mp4")]
        cases += [("mpeg2", "mpg"), ("mjpeg", "avi")]
        for stream, suffix in cases:
            front = {"movflags": "faststart"} if suffix == "mp4" else {}
            whole = self.made("to be damaged", stream, suffix, options=front)
            data = whole.path.read_bytes()
            whole.path.unlink()
            for name, content in {
                "cut": data[: len(data) * 7 // 10],
                "ends in zeros": data[: len(data) * 7 // 10] + bytes(len(data) - len(data) * 7 // 10),
                "a byte short": data[:-1],
            }.items():
                path = self.path(f"{stream} {name}", suffix)
                path.write_bytes(content)
                yield OddFile(path, whole.pixels, whole=False)


def odd_files(folder: Path) -> list[OddFile]:
    """Write all of them below a folder."""
    return list(OddFiles(folder))
