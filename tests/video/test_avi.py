"""MPEG-4 in avi and elsewhere: packets of two pictures, of none, and chunks that show a picture on."""

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from tests.encoded_videos import picture

from ssan.errors import VideoError
from ssan.video import bitstream, decode
from ssan.video.bitstream import VOP
from ssan.video.reader import open_video

HEIGHT, WIDTH, NUM_FRAMES, RATE = 48, 64, 29, 10
NOT_CODED = VOP + b"\x50\x9f"
"""A picture that is over after its type and time: a placeholder for one that has come already."""

Chunks = list[tuple[bytes, bool]]


def encoded(num_b: int) -> tuple[Any, Any, list[bytes]]:
    """A container, which has to live as long as its stream, the stream and its pictures, in the order of decoding."""
    box = av.open("/dev/null", "w", format="avi")
    stream = box.add_stream("mpeg4", rate=RATE, options={"bf": str(num_b), "g": "9", "b_strategy": "0"})
    stream.height, stream.width, stream.pix_fmt = HEIGHT, WIDTH, "yuv420p"
    frames = [av.VideoFrame.from_ndarray(picture(n, HEIGHT, WIDTH), format="rgb24") for n in range(NUM_FRAMES)]
    return box, stream, [bytes(packet) for frame in [*frames, None] for packet in stream.encode(frame)]


def write(path: Path, stream: Any, chunks: Iterable[tuple[bytes, bool]], times: list[int] | None = None) -> Path:
    with av.open(str(path), "w") as box:
        copy = box.add_stream_from_template(stream)
        copy.time_base = Fraction(1, RATE)
        for number, (data, is_key) in enumerate(chunks):
            packet = av.Packet(data)
            packet.stream, packet.time_base, packet.is_keyframe = copy, Fraction(1, RATE), is_key
            packet.pts = packet.dts = times[number] if times else number
            box.mux(packet)
    return path


def kind(data: bytes) -> int:
    return data[data.find(VOP) + 4] >> 6


def as_they_are(pictures: list[bytes]) -> Chunks:
    return [(data, kind(data) == bitstream.I_PICTURE) for data in pictures]


def packed(pictures: list[bytes], *, every: int = 1, junk: bool = False) -> Chunks:
    """As DivX packs: a P or I picture and the first B behind it in one chunk, a placeholder behind the last B.

    :param every: only every so-many-th is packed.
    :param junk: two chunks of one byte follow the first picture.
    """
    chunks: Chunks = []
    seen, at = 0, 0
    while at < len(pictures):
        reference, at = pictures[at], at + 1
        behind: list[bytes] = []
        while at < len(pictures) and kind(pictures[at]) == bitstream.B_PICTURE:
            behind, at = [*behind, pictures[at]], at + 1
        is_packed = bool(behind) and seen % every == 0
        seen += bool(behind)
        is_key = kind(reference) == bitstream.I_PICTURE
        chunks.append((reference + behind[0] if is_packed else reference, is_key))
        if junk and len(chunks) == 1:
            chunks += [(b"\x7f", True)] * 2
        chunks += [(data, False) for data in behind[is_packed:]]
        chunks += [(NOT_CODED, False)] * is_packed
    return chunks


def says_packed(pictures: list[bytes]) -> list[bytes]:
    at = pictures[0].find(VOP)
    return [pictures[0][:at] + b"\x00\x00\x01\xb2DivX503b1393p" + pictures[0][at:], *pictures[1:]]


def in_sequence(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as box:
        return [frame.to_ndarray(format="rgb24") for frame in box.decode(video=0)]


def check(path: Path) -> int:
    """Frames asked for together, alone and in a stream are those of decoding in sequence; nothing is called wrong."""
    expected = in_sequence(path)
    num_frames = len(expected)
    with open_video(path, apart=False) as video:
        assert (video.num_frames, video.num_promised) == (num_frames, num_frames)
        together = video.read(range(num_frames)).frames.permute(0, 2, 3, 1).numpy()
        assert np.array_equal(together, np.stack(expected))
        for number in (num_frames - 1, 0, num_frames // 2, 3):
            alone = video.read([number]).frames[0].permute(1, 2, 0).numpy()
            assert np.array_equal(alone, expected[number]), number
        assert sum(len(clip.indices) for clip in video.stream()) == num_frames
        assert (video.num_frames, video.num_promised) == (num_frames, num_frames)
        found = video.examine()
        assert (found.error, found.frames_promised, found.frames_decoded) == (None, num_frames, num_frames)
    return num_frames


@pytest.mark.slow
@pytest.mark.parametrize("num_b", [0, 1, 2])
@pytest.mark.parametrize("layout", ["unpacked", "packed", "half packed", "packed behind chunks of one byte"])
def test_packed_or_not_frames_are_those_of_decoding_in_sequence(layout: str, num_b: int, tmp_path: Path) -> None:
    _box, stream, pictures = encoded(num_b)
    if layout == "unpacked":
        chunks = as_they_are(pictures)
    else:
        options: dict[str, Any] = {"half packed": {"every": 2}, "packed": {}}.get(layout, {"junk": True})
        chunks = packed(says_packed(pictures), **options)
        assert num_b == 0 or max(data.count(VOP) for data, _ in chunks) == 2
    path = write(tmp_path / "a.avi", stream, chunks)
    assert check(path) == NUM_FRAMES
    with decode.VideoFile(path) as video:
        assert video.random_access == (
            layout == "unpacked" or (num_b == 0 and layout != "packed behind chunks of one byte")
        )


@pytest.mark.slow
@pytest.mark.parametrize(("most_bytes", "num_decoded"), [(1 << 26, 1), (NUM_FRAMES * HEIGHT * WIDTH, 3)])
@pytest.mark.parametrize("suffix", ["avi", "mkv", "mp4"])
def test_what_had_to_be_decoded_to_be_listed_is_not_decoded_again_unless_it_is_large(
    suffix: str, most_bytes: int, num_decoded: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _box, stream, pictures = encoded(2)
    path = write(tmp_path / f"a.{suffix}", stream, packed(says_packed(pictures)))
    expected = in_sequence(path)
    monkeypatch.setattr(decode, "MOST_BYTES_KEPT", most_bytes)
    opened: list[str] = []
    opening = decode.open_container

    def counted(path: str, threads: int) -> Any:
        opened.append(path)
        return opening(path, threads)

    monkeypatch.setattr(decode, "open_container", counted)
    with decode.VideoFile(path) as video:
        assert not video.random_access
        for numbers in (range(len(expected)), [7, 2, 7]):
            read = video.read(numbers).frames.permute(0, 2, 3, 1).numpy()
            assert np.array_equal(read, np.stack([expected[n] for n in numbers]))
        assert len(opened) == 1 + num_decoded  # first of all to list it
        with pytest.raises(VideoError, match="frame 99"):
            video.read([99])
    assert video._kept is None


@pytest.mark.parametrize("num_b", [0, 2])
def test_nothing_that_is_done_to_listed_packets_changes_what_is_decoded_in_sequence(
    num_b: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _box, stream, pictures = encoded(num_b)
    path = write(tmp_path / "a.avi", stream, as_they_are(pictures))
    listing = decode.list_packets

    def emptied(*arguments: Any) -> Any:
        listed = listing(*arguments)
        assert listed.held
        for packet in listed.held:
            packet.update(bytes(packet.size))
        return listed

    monkeypatch.setattr(decode, "list_packets", emptied)
    with open_video(path, apart=False) as video:
        assert video.random_access
        frames = video.read([5, 20]).frames.permute(0, 2, 3, 1).numpy()
    expected = in_sequence(path)
    assert np.array_equal(frames, np.stack([expected[5], expected[20]]))


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["mp4", "mkv", "avi"])
def test_pictures_that_are_not_coded_are_no_frames(suffix: str, tmp_path: Path) -> None:
    _box, stream, pictures = encoded(0)
    chunks = as_they_are(pictures)
    for at in (4, 11, 12, 25):
        chunks.insert(at, (NOT_CODED, False))
    assert check(write(tmp_path / f"a.{suffix}", stream, chunks)) == NUM_FRAMES
    # At the end of a file the decoder may show the last one twice; then it is so.
    assert check(write(tmp_path / f"b.{suffix}", stream, [*chunks, *[(NOT_CODED, False)] * 5])) - NUM_FRAMES in (0, 1)


@pytest.mark.parametrize("num_b", [0, 2])
def test_a_chunk_of_no_bytes_shows_the_picture_before_it_on(num_b: int, tmp_path: Path) -> None:
    """Ten pictures at ten a second, then nothing new for two seconds."""
    _box, stream, pictures = encoded(num_b)
    times = [number if number < 10 else number + 20 for number in range(NUM_FRAMES)]
    path = write(tmp_path / "a.avi", stream, as_they_are(pictures), times)
    assert path.read_bytes().count(b"00dc\0\0\0\0") >= 20
    assert check(path) == NUM_FRAMES
    for apart in (True, False):
        with open_video(path, apart=apart) as video:
            assert video.duration_seconds == pytest.approx(4.9)
            assert [video.begin_seconds(number) for number in (0, 9, 10, 28)] == pytest.approx([0, 0.9, 3.0, 4.8])
            assert [video.span(*part) for part in [(0.5, 1), (2, 2.5), (3, 4)]] == [(5, 10), (9, 10), (10, 20)]
            clip = video.read([9, 10, 28])
            assert clip.times_seconds == pytest.approx([0.9, 3.0, 4.8])
            assert clip.durations_seconds == pytest.approx([2.1, 0.1, 0.1])


def test_the_last_picture_is_shown_to_the_end_that_the_header_tells_of(tmp_path: Path) -> None:
    _box, stream, pictures = encoded(0)
    path = write(tmp_path / "a.avi", stream, [*as_they_are(pictures), (b"", False)], [*range(NUM_FRAMES), 40])
    with open_video(path, apart=False) as video:
        assert video.num_frames == NUM_FRAMES
        assert video.duration_seconds == pytest.approx(4.1)


def test_a_part_of_a_packed_file_is_counted_by_what_comes_out_of_the_decoder(tmp_path: Path) -> None:
    _box, stream, pictures = encoded(2)
    path = write(tmp_path / "a.avi", stream, packed(says_packed(pictures), junk=True))
    with open_video(path) as video:
        begins = [video.begin_seconds(number) for number in range(NUM_FRAMES)]
        assert begins == pytest.approx([number / RATE for number in range(NUM_FRAMES)], abs=0.3)
        first, stop = video.span(1.0, 2.0)
        assert [number for number, begin in enumerate(begins) if 1 - 1e-6 <= begin < 2 - 1e-6] == [*range(first, stop)]


def test_pictures_are_told_by_their_start_codes() -> None:
    assert bitstream.picture_types(VOP + b"\x40" + bytes(20)) == [1]
    assert bitstream.picture_types(bytes(7) + VOP + b"\x80" + bytes(11)) == [bitstream.B_PICTURE]
    assert bitstream.picture_types(bytes(7) + VOP + b"\x80" + bytes(10)) == [bitstream.NO_PICTURE]
    assert bitstream.picture_types(VOP + bytes(14) + VOP + b"\xc0" + bytes(13)) == [0, 3]
    assert bitstream.picture_types(b"\x00\x00\x01") == bitstream.picture_types(b"\x7f") == []
    assert bitstream.picture_types(VOP) == [bitstream.NO_PICTURE]


@pytest.mark.parametrize(
    ("kinds", "with_b", "expected"),
    [
        ([0, 1, 1], False, [0, 1, 2]),
        ([0, 1, 2, 2, 1, 2], True, [0, 3, 1, 2, 5, 4]),
        ([0, 1, 2], False, None),
        ([0, 2, 1], True, None),
        ([0, 1, bitstream.NO_PICTURE], True, None),
        ([], True, None),
    ],
)
def test_a_b_picture_is_shown_at_once_and_others_when_the_next_has_come(
    kinds: list[int], with_b: bool, expected: list[int] | None
) -> None:
    assert bitstream.shown(kinds, with_b) == expected
