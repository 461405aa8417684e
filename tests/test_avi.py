"""MPEG-4 in avi: the index of a file gives what its demuxer does, or nothing."""

import struct
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest

sys.path.append(str(Path(__file__).resolve().parents[1] / "benchmarks"))

from exactness import picture
from ssan.video import avi, decode, packets

HEIGHT, WIDTH, NUM_FRAMES = 48, 64, 29
ENTRY = struct.Struct("<4sIII")


def render(path: Path, *, bf: int = 0, sound: bool = False) -> bytes:
    with av.open(str(path), "w") as output:
        stream = output.add_stream("mpeg4", rate=12, options={"bf": str(bf), "g": "7"})
        stream.height, stream.width, stream.pix_fmt = HEIGHT, WIDTH, "yuv420p"
        silence = output.add_stream("pcm_s16le", rate=8000, layout="mono") if sound else None
        for number in range(NUM_FRAMES):
            output.mux(stream.encode(av.VideoFrame.from_ndarray(picture(number, HEIGHT, WIDTH), format="rgb24")))
            if silence is not None:
                samples = av.AudioFrame.from_ndarray(np.full((1, 667), number, np.int16), format="s16", layout="mono")
                samples.sample_rate = 8000
                output.mux(silence.encode(samples))
        output.mux(stream.encode())
        if silence is not None:
            output.mux(silence.encode())
    return path.read_bytes()


KINDS: dict[str, dict[str, Any]] = {"plain": {}, "with B pictures": {"bf": 2}, "with sound": {"sound": True}}


@pytest.fixture(scope="module", params=list(KINDS))
def whole(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return render(tmp_path_factory.mktemp("avi") / "whole.avi", **KINDS[request.param])


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return render(tmp_path_factory.mktemp("avi") / "plain.avi")


def from_index(path: Path, most_bytes: int = 1 << 24) -> Sequence[av.Packet] | None:
    with decode._opened(str(path), 1) as (container, stream):
        return avi.from_index(str(path), stream, len(container.streams), most_bytes)


def demuxed(path: Path) -> list[av.Packet] | None:
    with decode._opened(str(path), 1) as (container, stream):
        return avi.put_in_order(list(container.demux(stream)), stream)


def as_told(given: Any) -> list[tuple[bytes, int | None, bool]]:
    return [(bytes(packet), packet.pts, bool(packet.is_keyframe)) for packet in given if packet.size]


def parts(data: bytes) -> tuple[int, int]:
    """Where the list of chunks begins, and the index behind it."""
    movi = data.index(b"movi")
    end = movi + struct.unpack_from("<I", data, movi - 4)[0]
    return movi, end + end % 2


def test_the_index_gives_the_packets_that_the_demuxer_does(whole: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.avi").write_bytes(whole)
    given, expected = from_index(tmp_path / "a.avi"), demuxed(tmp_path / "a.avi")
    assert isinstance(given, avi.Slices)
    assert expected is not None
    assert as_told(given) == as_told(expected)
    assert len(given) == len(expected) == NUM_FRAMES + 1
    assert not given[NUM_FRAMES].size
    assert as_told(given[3:7]) == as_told(given)[3:7]
    listed, known = packets.Listing.of_pictures(given.shown, given.keys), packets.Listing.of(expected)
    assert (listed.pts, listed.beginnings, listed.start) == (known.pts, known.beginnings, known.start)
    assert listed.is_complete()


def test_it_is_the_index_from_which_a_whole_file_is_read(
    whole: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.avi").write_bytes(whole)
    with decode.VideoFile(tmp_path / "a.avi") as video:
        assert isinstance(video._packets.held, avi.Slices)
        frames = video.read([28, 3, 17]).frames
        assert (video.num_frames, video.num_promised) == (NUM_FRAMES, NUM_FRAMES)
    monkeypatch.setattr(packets, "from_index", lambda *_: None)
    with decode.VideoFile(tmp_path / "a.avi") as video:
        assert isinstance(video._packets.held, list)
        assert (video.read([28, 3, 17]).frames == frames).all()
        assert (video.num_frames, video.num_promised) == (NUM_FRAMES, NUM_FRAMES)


def changed(data: bytes, at: int, new: bytes) -> bytes:
    return data[:at] + new + data[at + len(new) :]


def entry(data: bytes, number: int, **changes: Any) -> bytes:
    """A file with one entry of its index changed."""
    at = parts(data)[1] + 8 + ENTRY.size * number
    fields = dict(zip(("name", "flags", "place", "size"), ENTRY.unpack_from(data, at), strict=True))
    return changed(data, at, ENTRY.pack(*(fields | changes).values()))


def chunk(data: bytes, number: int) -> int:
    """Where a chunk begins, its eight bytes of name and size included."""
    movi, index = parts(data)
    places = [ENTRY.unpack_from(data, index + 8 + ENTRY.size * of)[2] for of in (0, number)]
    return movi + 4 + places[1] - places[0]


def with_chunk(data: bytes, at: int, new: bytes) -> bytes:
    """A file with one more chunk, of which the index does not tell."""
    movi, _ = parts(data)
    size = struct.unpack_from("<I", data, movi - 4)[0]
    data = changed(data, movi - 4, struct.pack("<I", size + len(new)))
    return data[:at] + new + data[at:]


def behind_odd(data: bytes) -> int:
    """Where the first chunk of an odd size ends, and a zero follows."""
    sizes = {
        at: struct.unpack_from("<I", data, at + 4)[0] for at in (chunk(data, number) for number in range(NUM_FRAMES))
    }
    return next(at + 8 + size for at, size in sizes.items() if size % 2)


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "cut off in the pictures": lambda data: data[: chunk(data, 20) + 11],
    "cut off before its index": lambda data: data[: parts(data)[1]],
    "cut off in its index": lambda data: data[: -ENTRY.size],
    "an index without the last picture": lambda data: changed(
        data, parts(data)[1] + 4, struct.pack("<I", ENTRY.size * (NUM_FRAMES - 1))
    )[: -ENTRY.size],
    "an entry with another size": lambda data: entry(data, 5, size=12),
    "an entry with another place": lambda data: entry(data, 5, place=chunk(data, 4)),
    "an entry of no stream": lambda data: entry(data, 5, name=b"07dc"),
    "a picture of no stream": lambda data: changed(entry(data, 5, name=b"07dc"), chunk(data, 5), b"07dc"),
    "something in the gap behind an odd size": lambda data: changed(data, behind_odd(data), b"0"),
    "a picture called sound": lambda data: changed(entry(data, 5, name=b"00wb"), chunk(data, 5), b"00wb"),
    "a key frame called none": lambda data: entry(data, 7, flags=0),
    "another picture called a key frame": lambda data: entry(data, 5, flags=0x10),
    "a chunk with another size": lambda data: changed(data, chunk(data, 5) + 4, b"\x0c\0\0\0"),
    "a chunk that no entry tells of": lambda data: with_chunk(data, chunk(data, 5), b"00dc\x04\0\0\0abcd"),
    "an empty picture that no entry tells of": lambda data: with_chunk(data, chunk(data, 5), b"00dc\0\0\0\0"),
    "a chunk behind the last": lambda data: with_chunk(data, parts(data)[1], data[chunk(data, 5) : chunk(data, 6)]),
    "a picture behind the index": lambda data: data + data[chunk(data, 7) : chunk(data, 8)],
    "a writer whose name begins a chunk": lambda data: data + b"LIST\x14\0\0\0INFOISFT\x08\0\0\0my 00dc ",
    "a picture not coded": lambda data: changed(data, chunk(data, 6) - 9, b"\0\0\x01\xb6\x50\0\0\0\0"),
    "two pictures in one packet": lambda data: changed(data, chunk(data, 6) - 40, avi.VOP + b"\x90" + bytes(35)),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_where_a_file_and_its_index_differ_the_demuxer_is_asked(damage: str, plain: bytes, tmp_path: Path) -> None:
    broken = DAMAGE[damage](plain)
    assert broken != plain
    (tmp_path / "a.avi").write_bytes(broken)
    assert from_index(tmp_path / "a.avi") is None


@pytest.mark.parametrize(
    "behind", [b"JUNK\x05\0\0\0\0\0\0\0\0\0", b"LIST\x14\0\0\0INFOISFT\x08\0\0\0Lavf0.1\0"], ids=["empty", "writer"]
)
def test_what_says_nothing_behind_the_index_does_no_harm(behind: bytes, plain: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.avi").write_bytes(plain + behind)
    given, expected = from_index(tmp_path / "a.avi"), demuxed(tmp_path / "a.avi")
    assert given is not None
    assert expected is not None
    assert as_told(given) == as_told(expected)


def test_places_may_count_from_the_beginning_of_the_file(plain: bytes, tmp_path: Path) -> None:
    elsewhere = plain
    for number in range(NUM_FRAMES):
        elsewhere = entry(elsewhere, number, place=chunk(plain, number))
    assert elsewhere != plain
    (tmp_path / "a.avi").write_bytes(elsewhere)
    given, expected = from_index(tmp_path / "a.avi"), demuxed(tmp_path / "a.avi")
    assert given is not None
    assert expected is not None
    assert as_told(given) == as_told(expected)


def packed(data: bytes, contents: list[bytes], kinds: list[int]) -> bytes:
    """As DivX writes it: each B picture, no two of them neighbours, in the packet before, and a gap in its place."""
    for place, kind in enumerate(kinds):
        if kind == avi.B_PICTURE:
            contents[place - 1] += contents[place]
            contents[place] = avi.VOP + b"\x50\0\0"
    movi, chunks, index = parts(data)[0], b"", b""
    for content, kind in zip(contents, kinds, strict=True):
        index += ENTRY.pack(b"00dc", 0x10 * (kind == avi.I_PICTURE), 4 + len(chunks), len(content))
        chunks += b"00dc" + struct.pack("<I", len(content)) + content + bytes(len(content) % 2)
    sizes = [struct.pack("<I", size) for size in (4 + len(chunks), len(index))]
    return data[: movi - 4] + sizes[0] + b"movi" + chunks + b"idx1" + sizes[1] + index


def test_packed_b_pictures_are_taken_apart(tmp_path: Path) -> None:
    plain = render(tmp_path / "b.avi", bf=1)
    reference = demuxed(tmp_path / "b.avi")
    assert reference is not None
    contents = [bytes(packet) for packet in reference[:-1]]
    kinds, _ = avi._pictures(reference[:-1])
    assert (kinds == avi.B_PICTURE).sum() > 9
    (tmp_path / "packed.avi").write_bytes(packed(plain, contents, kinds.tolist()))
    given, expected = from_index(tmp_path / "packed.avi"), demuxed(tmp_path / "packed.avi")
    assert given is not None
    assert expected is not None
    assert as_told(given) == as_told(expected)
    assert [(bytes(packet), packet.pts) for packet in given] == [(bytes(packet), packet.pts) for packet in reference]
    read = []
    for name in ("b", "packed"):
        with decode.VideoFile(tmp_path / f"{name}.avi") as video:
            assert video._packets.trusted
            read.append(video.read([1, 13, 20]).frames)
    assert (read[0] == read[1]).all()


def test_an_index_of_indexes_or_one_that_ffmpeg_reads_otherwise_is_not_gone_by(plain: bytes, tmp_path: Path) -> None:
    assert avi._indexed_chunks(plain, 0, 1) is not None
    assert avi._indexed_chunks(changed(plain, plain.index(b"JUNK"), b"indx"), 0, 1) is None
    (tmp_path / "a.avi").write_bytes(plain)
    with decode._opened(str(tmp_path / "a.avi"), 1) as (_, stream):
        entries = list(stream.index_entries)
        for known, found in [(entries, True), (entries[:-1], False)]:
            told: Any = SimpleNamespace(index=0, index_entries=known, codec_context=stream.codec_context)
            assert (avi.from_index(str(tmp_path / "a.avi"), told, 1, 1 << 24) is not None) is found


def test_a_large_file_is_not_read_at_once(plain: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.avi").write_bytes(plain)
    assert from_index(tmp_path / "a.avi", len(plain)) is not None
    assert from_index(tmp_path / "a.avi", len(plain) - 1) is None


def test_pictures_are_found_in_the_packet_that_holds_their_start_code() -> None:
    code = avi.VOP
    contents = {
        code + bytes([0x40]) + bytes(20): (1, 1),
        b"\x00\x00\x01": (avi.NO_PICTURE, 0),  # the next one's first byte makes no start code of it
        b"\xb6" + bytes(20): (avi.NO_PICTURE, 0),
        bytes(7) + code + bytes([0x80]) + bytes(11): (2, 1),
        bytes(7) + code + bytes([0x80]) + bytes(10): (avi.NO_PICTURE, 1),  # over after its type and time
        code + bytes([0x00]) + bytes(13) + code + bytes([0xC0]) + bytes(13): (0, 2),
        b"\xff" * 31: (avi.NO_PICTURE, 0),
        bytes(3) + code: (avi.NO_PICTURE, 1),
    }
    kinds, counts = avi._pictures([av.Packet(content) for content in contents])
    assert list(zip(kinds.tolist(), counts.tolist(), strict=True)) == list(contents.values())


@pytest.mark.parametrize("at_once", [1 << 16, 5])
def test_every_start_code_in_noise_is_found(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(avi, "WORDS_AT_ONCE", at_once)
    chance = np.random.default_rng(0)
    noise = [chance.choice(np.array([0, 0, 1, 0xB6], np.uint8), size).tobytes() for size in range(1, 300)]
    kinds, counts = avi._pictures([av.Packet(content) for content in noise])
    assert counts.tolist() == [content.count(avi.VOP) for content in noise]
    assert counts.sum() > 100
    for content, kind in zip(noise, kinds.tolist(), strict=True):
        at = content.find(avi.VOP)
        assert kind == (content[at + 4] >> 6 if at >= 0 and at + 16 <= len(content) else avi.NO_PICTURE)
    for size in range(8):
        content = bytes(size) + avi.VOP[2:]
        assert avi._start_codes(np.frombuffer(content, np.uint8)).tolist() == ([size - 2] if size >= 2 else [])


@pytest.mark.parametrize(
    ("kinds", "with_b", "expected"),
    [
        ([0, 1, 1], False, [0, 1, 2]),
        ([0, 1, 2, 2, 1, 2], True, [0, 3, 1, 2, 5, 4]),
        ([0, 1, 2], False, None),
        ([0, 2, 1], True, None),
        ([0, 1, avi.NO_PICTURE], True, None),
        ([], True, None),
    ],
)
def test_a_b_picture_is_shown_at_once_and_others_when_the_next_has_come(
    kinds: list[int], with_b: bool, expected: list[int] | None
) -> None:
    assert avi._shown(kinds, with_b) == expected
