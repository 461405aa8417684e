"""Decoding only what is needed gives the pixels of decoding everything, whatever the codec, container and structure."""

import struct
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import av
import numpy as np
import pytest
from tests.encoded_videos import STREAMS, picture

from ssan.video import decode, packets
from ssan.video.reader import open_video

SIDE, NUM_FRAMES = 64, 47

# Between them: closed and open groups of pictures, pyramids of B frames, groups longer than the video, references far
# back, intra only, 10 bit. The benchmark of exactness reads every one of its streams from every container.
FROM_THE_BENCHMARK = {
    "h264_closed": ("mp4",), "h264_open": ("mp4",), "h264_pyramid": ("mkv",), "h264_one_group": ("mp4",),
    "h264_no_b": ("mp4",), "h264_intra": ("mp4",), "h264_refresh": ("mp4",), "h264_10bit": ("mp4",),
    "hevc_open": ("mp4",), "hevc_closed": ("mkv",), "hevc_10bit": ("mov",), "vp9_hidden": ("webm",),
    "vp9_realtime": ("webm",), "vp8": ("webm",), "av1": ("mp4", "mkv"), "mpeg4_b": ("mp4", "avi"),
    "mpeg4_no_b": ("avi",), "mpeg2": ("ts",), "mjpeg": ("mov", "avi"),
}  # fmt: skip
# name: encoder, its options, pixel format
STRUCTURES: dict[str, tuple[str, dict[str, str], str]] = {
    **{f"{name}.{kind}": STREAMS[name] for name, kinds in FROM_THE_BENCHMARK.items() for kind in kinds},
    "h264_strict_pyramid.mov": ("libx264", {"bf": "5", "x264-params": "b-pyramid=strict:b-adapt=0"}, "yuv420p"),
    "h264_slices.mp4": ("libx264", {"g": "12", "bf": "3", "slices": "4"}, "yuv420p"),
    "h264.ts": ("libx264", {"g": "12", "bf": "3"}, "yuv420p"),
    "h264.avi": ("libx264", {"g": "12", "bf": "2"}, "yuv420p"),
}


def render(path: Path, encoder: str, options: dict[str, str], pixels: str, times: Sequence[int] | None = None) -> None:
    try:
        with av.open(str(path), "w") as output:
            stream = output.add_stream(encoder, rate=12, options=dict(options))
            stream.width, stream.height, stream.pix_fmt = SIDE, SIDE, pixels
            for number in range(NUM_FRAMES):
                frame = av.VideoFrame.from_ndarray(picture(number, SIDE, SIDE), format="rgb24").reformat(format=pixels)
                frame.pts = number if times is None else times[number]
                output.mux(stream.encode(frame))
            output.mux(stream.encode())
    except (av.error.FFmpegError, ValueError) as error:
        if isinstance(error, ValueError) and "encoder" not in str(error).lower():
            raise
        pytest.skip(f"this build of FFmpeg has no {encoder}: {error}")


def everything(path: Path) -> list[tuple[int | None, np.ndarray]]:
    """Time stamp and pixels of every frame, decoded from the beginning, apart from the package."""
    with av.open(str(path)) as container:
        return [(f.pts, f.to_ndarray(format="rgb24")) for f in container.decode(container.streams.best("video"))]


def packets_fed(monkeypatch: pytest.MonkeyPatch) -> list[int | None]:
    """A list that takes the time stamp of every packet given to a decoder from now on where frames are selected."""
    fed: list[int | None] = []
    original = decode.VideoFile._packets_from

    def noted(self: decode.VideoFile, position: int) -> Any:
        for packet in original(self, position):
            fed.append(packet.pts)
            yield packet

    monkeypatch.setattr(decode.VideoFile, "_packets_from", noted)
    return fed


CHOICES = [
    [0], [1], [11], [12], [13], [NUM_FRAMES - 1], list(range(NUM_FRAMES)), list(range(0, NUM_FRAMES, 7)),
    [2, 8, 14, 20, 26, 31, 37, 43], [10, 11, 12, 13, 14], [44, 45, 46], [23, 24], [5, 40],
]  # fmt: skip


def check(path: Path) -> Any:
    """Every choice of frames against the frames of the whole; returns the packets as they were listed."""
    reference = everything(path)
    with open_video(path, apart=False) as video:
        assert isinstance(video, decode.VideoFile)
        for choice in CHOICES:
            choice = [number for number in choice if number < len(reference)]
            clip = video.read(choice)
            for position, number in enumerate(choice):
                own = clip.frames[position].permute(1, 2, 0).numpy()
                assert np.array_equal(own, reference[number][1]), f"{path.name}: frame {number} of {choice}"
        return video._packets


@pytest.mark.slow
@pytest.mark.parametrize("name", STRUCTURES)
def test_every_choice_of_frames_has_the_pixels_of_the_whole(name: str, tmp_path: Path) -> None:
    render(tmp_path / name, *STRUCTURES[name])
    check(tmp_path / name)


@pytest.mark.slow
@pytest.mark.parametrize("name", STRUCTURES)
def test_a_file_too_large_to_hold_is_sought_in_and_has_the_pixels_of_the_whole(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    render(tmp_path / name, *STRUCTURES[name])
    monkeypatch.setattr(packets, "MOST_BYTES_HELD", 1000)
    listed = check(tmp_path / name)
    assert listed.held is None
    assert listed.num_frames == NUM_FRAMES


@pytest.mark.slow
@pytest.mark.parametrize("held", [True, False])
@pytest.mark.parametrize("name", ["h264_closed.mp4", "h264_open.mp4", "hevc_closed.mkv", "vp9_realtime.webm"])
def test_it_is_the_selecting_way_that_is_taken_and_it_decodes_less(
    name: str, held: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    render(tmp_path / name, *STRUCTURES[name])
    fed = packets_fed(monkeypatch)

    def refuse(*_: Any) -> Any:
        raise AssertionError("decoded in sequence")

    monkeypatch.setattr(decode, "_in_sequence", refuse)
    if not held:
        monkeypatch.setattr(packets, "MOST_BYTES_HELD", 1000)
    with open_video(tmp_path / name, apart=False) as video:
        assert isinstance(video, decode.VideoFile)
        assert video._packets.trusted
        begin = video._packets.listing.beginnings[-1]
        video.read([NUM_FRAMES - 1])
        assert fed[0] == video._packets.listing.pts[begin]
        assert len(fed) <= NUM_FRAMES - begin + 1 < NUM_FRAMES


@pytest.mark.slow
@pytest.mark.parametrize("name", ["h264_closed.mp4", "hevc_closed.mkv", "mpeg4_b.avi"])
def test_nothing_behind_a_wanted_frame_is_decoded_where_the_next_has_its_own_beginning(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    render(tmp_path / name, *STRUCTURES[name])
    reference, fed = everything(tmp_path / name), packets_fed(monkeypatch)
    with open_video(tmp_path / name, apart=False) as video:
        assert isinstance(video, decode.VideoFile)
        listed = video._packets.listing
        second = listed.beginnings[1]
        wanted = [listed.ticks.index(cast(int, listed.pts[position])) for position in (second - 1, second + 3)]
        clip = video.read(sorted(wanted))
    expected: list[int | None] = []
    for number in sorted(wanted):
        position = listed.position_of(listed.ticks[number])
        expected += listed.pts[listed.last_beginning(listed.ticks[number]) : cast(int, position) + 1]
    assert fed == expected
    for frame, number in zip(clip.frames, sorted(wanted), strict=True):
        assert np.array_equal(frame.permute(1, 2, 0).numpy(), reference[number][1])


@pytest.mark.slow
def test_interlaced_pictures_of_which_a_packet_can_be_half_are_read_in_sequence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "interlaced.mp4"
    render(path, "libx264", {"g": "12", "bf": "2", "flags": "+ilme+ildct"}, "yuv420p")
    assert check(path).trusted  # nothing but a picture tells
    sequences: list[Sequence[int]] = []
    original = decode._in_sequence

    def counted(frames: Any, wanted: Sequence[int]) -> Any:
        sequences.append(list(wanted))
        return original(frames, wanted)

    monkeypatch.setattr(decode, "_in_sequence", counted)
    with open_video(path, apart=False) as video:
        video.read([5, 20])
    assert sequences == [[5, 20]]


def test_frames_that_come_unevenly_are_counted_not_timed(tmp_path: Path) -> None:
    steps = np.random.default_rng(0).integers(1, 9, NUM_FRAMES)
    render(tmp_path / "vfr.mp4", "libx264", {"g": "12", "bf": "3"}, "yuv420p", np.cumsum(steps).tolist())
    assert check(tmp_path / "vfr.mp4").trusted


@pytest.mark.slow
def test_containers_without_trustworthy_time_stamps_are_listed_and_then_decoded_in_sequence_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    original = decode.open_container

    def counted(path: str, threads: int) -> Any:
        opened.append(path)
        return original(path, threads)

    for name in ("mpeg2.ts", "h264.ts", "h264.avi"):
        render(tmp_path / name, *STRUCTURES[name])
        assert not check(tmp_path / name).trusted
        monkeypatch.setattr(decode, "open_container", counted)
        with open_video(tmp_path / name, apart=False) as video:
            video.read([3, NUM_FRAMES - 1])
        monkeypatch.setattr(decode, "open_container", original)
    assert len(opened) == 2 * 3  # to be listed, and anew to be decoded


@pytest.mark.slow
@pytest.mark.parametrize("held", [True, False])
def test_a_wanted_frame_that_the_selecting_way_misses_is_found_in_sequence(
    held: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    render(tmp_path / "a.mp4", *STRUCTURES["h264_closed.mp4"])
    selected = decode.VideoFile._decode_selected

    def gives_up(*arguments: Any) -> Any:
        yield next(iter(selected(*arguments)))

    monkeypatch.setattr(decode.VideoFile, "_decode_selected", gives_up)
    if not held:
        monkeypatch.setattr(packets, "MOST_BYTES_HELD", 1000)
    check(tmp_path / "a.mp4")


def test_seeking_that_leads_elsewhere_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a file whose own index of where groups begin is wrong."""
    render(tmp_path / "a.mp4", *STRUCTURES["h264_closed.mp4"])
    monkeypatch.setattr(packets, "MOST_BYTES_HELD", 1000)
    listing = decode.list_packets

    def misleading(*arguments: Any) -> Any:
        listed = listing(*arguments)
        listed.listing.seek_ticks[:] = listed.listing.seek_ticks[1:] + listed.listing.seek_ticks[:1]
        return listed

    monkeypatch.setattr(decode, "list_packets", misleading)
    check(tmp_path / "a.mp4")


@pytest.mark.parametrize("ticks", [[0, 3, 5, 7], [3, 0, 7, 5], [0, 7, 3, 5], [7, 5, 3, 0], [0]])
def test_the_last_beginning_is_found_whatever_the_order_in_which_they_are_shown(ticks: list[int]) -> None:
    """A beginning every third packet; what is between them is shown much later and none of them."""
    listing = packets.Listing(
        pts=[tick for start in ticks for tick in (start, 100 + start, 200 + start)],
        beginnings=[3 * number for number in range(len(ticks))],
        seek_ticks=[1000 + start for start in ticks],
    )
    for tick in range(9):
        possible = [3 * number for number, start in enumerate(ticks) if start <= tick]
        if possible:
            assert listing.last_beginning(tick) == max(possible)
    assert [listing.seek_tick(3 * number) for number in range(len(ticks))] == [1000 + start for start in ticks]


def test_of_packets_with_one_time_stamp_the_first_is_found() -> None:
    listing = packets.Listing(pts=[2, 5, None, 5, 3])
    assert [listing.position_of(tick) for tick in (2, 5, 3, 7)] == [0, 1, 4, None]
    assert listing.ticks == [2, 3, 5, 5]


OTHER_HEADERS = {
    "libx264": [{"x264-params": "cabac=1:8x8dct=1"}, {"x264-params": "cabac=0:8x8dct=0:ref=2:qp=30"}],
    "mpeg4": [{}, {"mpeg_quant": "1"}],
}


def in_band(encoder: str, extradata: bytes) -> bytes:
    """The headers that a container keeps, as they stand in a packet: in H.264 each behind its length."""
    if encoder != "libx264":
        return extradata
    end = 8 + int.from_bytes(extradata[6:8], "big")  # of the one sequence parameter set; then the one for pictures
    length = int.from_bytes(extradata[end + 1 : end + 3], "big")
    return b"\0\0" + extradata[6:end] + b"\0\0" + extradata[end + 1 : end + 3 + length]


@pytest.mark.slow
@pytest.mark.parametrize("repeated", [False, True])
@pytest.mark.parametrize("suffix", ["mkv", "mp4", "mov"])
@pytest.mark.parametrize("encoder", OTHER_HEADERS)
def test_headers_that_change_within_the_stream_are_not_begun_behind(
    encoder: str, suffix: str, repeated: bool, tmp_path: Path
) -> None:
    """Two encodings in one stream; the second's headers stand before its first picture and nowhere else.

    Headers that are repeated, but do not change, do no harm.
    """
    path = tmp_path / f"joined.{suffix}"
    parts = []
    for number, options in enumerate(OTHER_HEADERS[encoder]):
        parts.append(tmp_path / f"{number}.{suffix}")
        render(parts[-1], encoder, {"g": "12", "bf": "0", **({} if repeated else options)}, "yuv420p")
    with av.open(str(parts[0])) as before, av.open(str(parts[1])) as after, av.open(str(path), "w") as output:
        streams = before.streams.video[0], after.streams.video[0]
        copy = output.add_stream_from_template(streams[0])
        headers = in_band(encoder, streams[1].codec_context.extradata or b"")
        assert (streams[0].codec_context.extradata == streams[1].codec_context.extradata) == repeated
        count = 0
        for packet in [*before.demux(streams[0]), *after.demux(streams[1])]:
            if not packet.size:
                continue
            new = av.Packet(headers + bytes(packet) if count == NUM_FRAMES else bytes(packet))
            new.stream, new.time_base, new.is_keyframe = copy, Fraction(1, 12), packet.is_keyframe
            new.pts = new.dts = count
            output.mux(new)
            count += 1
    reference = everything(path)
    assert len(reference) == 2 * NUM_FRAMES
    orders = [[number] for number in (5, 47, 55, 59, 70, 93)] + [[70, 3, 50]]
    with open_video(path, apart=False) as used:
        for order in orders:
            with open_video(path, apart=False) as fresh:
                for video in (used, fresh):
                    for own, number in zip(video.read(order).frames, order, strict=True):
                        assert np.array_equal(own.permute(1, 2, 0).numpy(), reference[number][1]), number
        assert used.random_access == repeated


def box_at(data: bytes, *names: bytes) -> tuple[int, int]:
    """Where the box at a path begins and ends."""
    at, end = 0, len(data)
    for name in names:
        while data[at + 4 : at + 8] != name:
            at += int.from_bytes(data[at : at + 4], "big")
        begin, end, at = at, at + int.from_bytes(data[at : at + 4], "big"), at + 8
    return begin, end


def with_box(data: bytes, content: bytes, *names: bytes) -> bytes:
    """A file with other content in the box at a path; those around it grow."""
    begin, end = box_at(data, *names)
    grown = 8 + len(content) - (end - begin)
    data = data[: begin + 8] + content + data[end:]
    for depth in range(len(names)):
        at, end = box_at(data, *names[: depth + 1]) if depth + 1 < len(names) else (begin, 0)
        size = int.from_bytes(data[at : at + 4], "big") + grown
        data = data[:at] + size.to_bytes(4, "big") + data[at + 4 :]
    return data


@pytest.mark.slow
def test_decoding_does_not_begin_behind_a_change_of_the_sample_description(tmp_path: Path) -> None:
    """Two encodings in one mp4, the headers of each in a sample description of its own."""
    table = b"moov", b"trak", b"mdia", b"minf", b"stbl"
    parts = []
    for number, options in enumerate(OTHER_HEADERS["libx264"]):
        parts.append(tmp_path / f"{number}.mp4")
        render(parts[-1], "libx264", {"g": "12", "bf": "0", **options}, "yuv420p")
    path = tmp_path / "joined.mp4"
    with av.open(str(parts[0])) as before, av.open(str(parts[1])) as after, av.open(str(path), "w") as output:
        copy = output.add_stream_from_template(before.streams.video[0])
        packets_of = [p for source in (before, after) for p in source.demux(video=0) if p.size]
        for count, packet in enumerate(packets_of):
            new = av.Packet(bytes(packet))
            new.stream, new.time_base, new.is_keyframe = copy, Fraction(1, 12), packet.is_keyframe
            new.pts = new.dts = count
            output.mux(new)
        half = sum(packet.size for packet in packets_of[:NUM_FRAMES])
    data, other = path.read_bytes(), parts[1].read_bytes()
    descriptions = [content[slice(*box_at(content, *table, b"stsd"))][16:] for content in (data, other)]
    first = data.index(b"mdat") + 4
    for name, numbers in {
        b"stsc": (0, 2, 1, NUM_FRAMES, 1, 2, NUM_FRAMES, 2),  # of each chunk how many samples and which description
        b"stco": (0, 2, first, first + half),
    }.items():
        data = with_box(data, struct.pack(f">{len(numbers)}I", *numbers), *table, name)
    data = with_box(data, struct.pack(">2I", 0, 2) + b"".join(descriptions), *table, b"stsd")
    path.write_bytes(data)
    reference = everything(path)
    assert len(reference) == 2 * NUM_FRAMES
    with open_video(path, apart=False) as used:
        for order in ([93], [5], [59, 3, 70], [0], [47]):
            with open_video(path, apart=False) as fresh:
                for video in (used, fresh):
                    for own, number in zip(video.read(order).frames, order, strict=True):
                        assert np.array_equal(own.permute(1, 2, 0).numpy(), reference[number][1]), number
