"""A part of a long file: the frames that reading the whole gives, and no more of the file read than they need."""

from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from test_decode_selected import CHOICES, NUM_FRAMES, STRUCTURES, everything, render
from tests.encoded_videos import cut_start

from ssan.errors import UsageError, VideoError
from ssan.video import groups, part, reader
from ssan.video.decode import VideoFile

PARTS: list[tuple[float | None, float | None]] = [
    (0, 0.5), (None, 1.0), (1.0, 2.0), (0.99, 1.01), (2.04, 2.05), (1.7, 2.9), (3.0, None), (3.85, 99), (0.3, 0.31),
]  # fmt: skip


@pytest.fixture
def every_file_is_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(groups, "LONG_SECONDS", 0)


def lists_of_wholes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A list that takes the path of every file that is listed whole from now on."""
    listed: list[str] = []
    original = VideoFile._survey

    def noted(self: VideoFile) -> None:
        if not isinstance(self, part.FilePart) or self._packets.num_frames == NUM_FRAMES:
            listed.append(self.path)
        original(self)

    monkeypatch.setattr(VideoFile, "_survey", noted)
    return listed


def check(path: Path) -> None:
    reference = everything(path)
    with VideoFile(path) as whole:
        spans = [whole.span(*seconds) for seconds in PARTS]
        begins = [whole.begin_seconds(number) for number in range(NUM_FRAMES)]
        times = whole.read(range(NUM_FRAMES)).times_seconds
    for seconds, (first, stop) in zip(PARTS, spans, strict=True):
        with part.FilePart(path, seconds) as opened:
            assert opened.num_frames == opened.num_promised == stop - first, seconds
            for order in (range(stop - first), [stop - first - 1], [0]):
                clip = opened.read(order)
                assert clip.indices == tuple(order)
                assert clip.times_seconds == pytest.approx([times[first + number] for number in order], abs=1e-6)
                for own, number in zip(clip.frames, order, strict=True):
                    assert np.array_equal(own.permute(1, 2, 0).numpy(), reference[first + number][1]), (seconds, number)
            if stop < NUM_FRAMES:
                assert opened.duration_seconds == pytest.approx(begins[stop] - begins[first], abs=1e-6)
            assert opened.begin_seconds(stop - first - 1) == pytest.approx(begins[stop - 1] - begins[first], abs=1e-6)


KINDS = ["h264_closed.mp4", "h264_open.mp4", "h264_one_group.mp4", "hevc_closed.mkv", "vp9_hidden.webm", "mjpeg.mov",
         "mpeg4_b.mp4", "mpeg4_no_b.avi", "mpeg2.ts"]  # fmt: skip


@pytest.mark.slow
@pytest.mark.usefixtures("every_file_is_long")
@pytest.mark.parametrize("name", KINDS)
def test_a_part_has_the_frames_that_the_whole_has_there(name: str, tmp_path: Path) -> None:
    render(tmp_path / name, *STRUCTURES[name])
    check(tmp_path / name)


@pytest.mark.slow
@pytest.mark.usefixtures("every_file_is_long")
@pytest.mark.parametrize("name", ["h264_pyramid.mkv", "hevc_open.mp4", "mpeg4_b.avi"])
def test_a_part_too_large_to_hold_is_sought_again(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    render(tmp_path / name, *STRUCTURES[name])
    monkeypatch.setattr(part, "MOST_BYTES_HELD", 1000)
    check(tmp_path / name)


@pytest.mark.slow
@pytest.mark.usefixtures("every_file_is_long")
def test_frames_of_a_part_that_come_unevenly_are_found_by_their_times(tmp_path: Path) -> None:
    steps = np.cumsum(np.random.default_rng(0).integers(1, 5, NUM_FRAMES)).tolist()
    render(tmp_path / "vfr.mkv", "libx264", {"g": "12", "bf": "3"}, "yuv420p", steps)
    check(tmp_path / "vfr.mkv")


@pytest.mark.slow
@pytest.mark.usefixtures("every_file_is_long")
@pytest.mark.parametrize(
    "name", ["h264_closed.mp4", "h264_open.mp4", "h264_pyramid.mkv", "hevc_open.mp4", "vp9_realtime.webm"]
)
def test_what_a_part_is_asked_for_does_not_take_the_whole(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    render(tmp_path / name, *STRUCTURES[name])
    listed = lists_of_wholes(monkeypatch)
    with part.FilePart(tmp_path / name, (2.0, 2.5)) as opened:
        opened.read([0, 5])
    assert not listed


@pytest.mark.slow
@pytest.mark.usefixtures("every_file_is_long")
def test_a_part_that_begins_when_the_video_is_over_is_refused(tmp_path: Path) -> None:
    for name in ("h264_closed.mp4", "h264_pyramid.mkv", "mpeg4_b.avi"):
        render(tmp_path / name, *STRUCTURES[name])
        for apart in (True, False):
            with pytest.raises(VideoError, match="the part begins at 9 s, and the video lasts 3") as caught:
                reader.open_video(tmp_path / name, part=(9.0, 10.0), apart=apart)
            assert caught.value.code == "too_few_frames"


@pytest.mark.slow
@pytest.mark.usefixtures("every_file_is_long")
def test_a_frame_of_a_part_that_does_not_come_is_looked_for_in_the_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    render(tmp_path / "a.mkv", *STRUCTURES["h264_pyramid.mkv"])
    monkeypatch.setattr(VideoFile, "_decode_selected", lambda self, wanted: iter(()))
    check(tmp_path / "a.mkv")


@pytest.mark.slow
def test_a_part_is_a_video_of_its_own(tmp_path: Path) -> None:
    render(tmp_path / "a.mp4", *STRUCTURES["h264_closed.mp4"])
    reference = everything(tmp_path / "a.mp4")
    for apart in (True, False):
        clip = reader.read_clip(tmp_path / "a.mp4", lambda n: [0, n - 1], part=(1.0, 2.0), apart=apart)
        assert (clip.indices, clip.num_frames, clip.num_promised) == ((0, 11), 12, 12)
        assert clip.duration_seconds == pytest.approx(1.0)
        for own, number in zip(clip.frames, (12, 23), strict=True):
            assert np.array_equal(own.permute(1, 2, 0).numpy(), reference[number][1])
    with reader.open_video(tmp_path / "a.mp4", part=(1.0, 2.0), apart=False) as opened:
        assert opened.part == (1.0, 2.0)
        (given,) = opened.stream()
        assert given.indices == tuple(range(12))
        with pytest.raises(UsageError, match="has no parts"):
            opened.span(0, 1)


class Counting:
    """A file that counts the bytes that FFmpeg reads of it."""

    def __init__(self, path: str) -> None:
        self._file = open(path, "rb")  # noqa: SIM115
        self.num_bytes = 0

    def read(self, size: int) -> bytes:
        data = self._file.read(size)
        self.num_bytes += len(data)
        return data

    def seek(self, to: int, whence: int = 0) -> int:
        return self._file.seek(to, whence)

    def tell(self) -> int:
        return self._file.tell()

    def close(self) -> None:
        self._file.close()


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_how_much_is_read_for_a_part_does_not_grow_with_the_file(
    suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What FFmpeg reads of the file is counted; the index is read whole, a few bytes a frame."""
    piece = tmp_path / "piece.mp4"
    render(piece, "libx264", {"g": "12", "bf": "2", "crf": "10"}, "yuv420p")
    counted: dict[int, int] = {}
    opening = av.open
    for num_times in (20, 100):
        path = tmp_path / f"{num_times}.{suffix}"
        looped(piece, path, num_times)
        files: list[Counting] = []

        def through(name: str, files: list[Counting] = files, **options: Any) -> Any:
            files.append(Counting(name.removeprefix("file:")))
            return opening(files[-1], **options)

        monkeypatch.setattr(av, "open", through)
        with part.FilePart(path, (60.0, 62.0)) as opened:
            clip = opened.read(range(0, 24, 3))
        monkeypatch.setattr(av, "open", opening)
        counted[num_times] = sum(file.num_bytes for file in files)
        for file in files:
            file.close()
        reference = everything(piece)
        for own, number in zip(clip.frames, range(0, 24, 3), strict=True):
            expected = reference[(720 + number) % NUM_FRAMES][1]
            assert np.array_equal(own.permute(1, 2, 0).numpy(), expected), number
    sizes = {num_times: (tmp_path / f"{num_times}.{suffix}").stat().st_size for num_times in counted}
    assert counted[100] < sizes[100] / 5
    assert counted[100] - counted[20] < (24 if suffix == "mp4" else 4) * 80 * NUM_FRAMES


def looped(piece: Path, path: Path, num_times: int) -> None:
    """A file that shows a piece again and again, by copying its packets."""
    with av.open(str(piece)) as source, av.open(str(path), "w") as output:
        stream = source.streams.video[0]
        copy = output.add_stream_from_template(stream)
        packets = [packet for packet in source.demux(stream) if packet.size]
        length = round(NUM_FRAMES / 12 / float(stream.time_base or 1))
        for number in range(num_times):
            for packet in packets:
                new = av.Packet(bytes(packet))
                new.stream, new.time_base, new.is_keyframe = copy, packet.time_base, packet.is_keyframe
                new.pts, new.dts = (packet.pts or 0) + number * length, (packet.dts or 0) + number * length
                new.duration = packet.duration
                output.mux(new)


BY_GROUPS = {"h264_closed.mp4", "h264_one_group.mp4", "h264_no_b.mp4", "h264_intra.mp4",
             "h264_10bit.mp4", "h264_strict_pyramid.mov", "h264_slices.mp4", "av1.mp4", "mjpeg.mov"}  # fmt: skip


@pytest.mark.slow
@pytest.mark.usefixtures("every_file_is_long")
@pytest.mark.parametrize("name", [*sorted(BY_GROUPS), "h264_open.mp4", "mpeg4_b.mp4"])
def test_frames_of_a_long_file_by_number_are_those_of_the_whole(name: str, tmp_path: Path) -> None:
    render(tmp_path / name, *STRUCTURES[name])
    check_numbers(tmp_path / name, name in BY_GROUPS)


def check_numbers(path: Path, by_groups: bool) -> None:
    reference = everything(path)
    with VideoFile(path) as whole, groups.LongFile(path) as video:
        assert video._by_groups == by_groups
        assert (video.num_frames, video.num_promised) == (whole.num_frames, whole.num_promised)
        assert video.duration_seconds == pytest.approx(whole.duration_seconds, abs=1e-6)
        for choice in CHOICES:
            if choice[-1] >= len(reference):
                continue
            clip = video.read(choice)
            for own, number in zip(clip.frames, choice, strict=True):
                assert np.array_equal(own.permute(1, 2, 0).numpy(), reference[number][1]), (choice, number)
        for number in range(len(reference)):
            assert video.begin_seconds(number) == pytest.approx(whole.begin_seconds(number), abs=1e-6)
        for seconds in PARTS[:-2]:
            assert video.span(*seconds) == whole.span(*seconds), seconds
        assert video._by_groups == by_groups
        assert sum(len(clip.indices) for clip in video.stream()) == len(reference)
        assert video.examine() == whole.examine()


@pytest.mark.slow
@pytest.mark.usefixtures("every_file_is_long")
def test_a_long_file_is_listed_whole_where_its_index_is_not_that_of_its_frames(tmp_path: Path) -> None:
    """An edit list that begins five frames later, one edit too many, fragments, and a file that is cut off."""
    render(tmp_path / "a.mp4", *STRUCTURES["h264_closed.mp4"])
    data = (tmp_path / "a.mp4").read_bytes()
    (tmp_path / "later.mp4").write_bytes(cut_start(data, 5))
    check_numbers(tmp_path / "later.mp4", False)
    at = data.index(b"elst") + 8
    assert data[at : at + 4] == bytes([0, 0, 0, 1])
    assert groups.has_plain_tables(str(tmp_path / "a.mp4"))
    (tmp_path / "fast.mp4").write_bytes(data[: at + 12 + 4] + bytes([0, 2, 0, 0]) + data[at + 20 :])
    assert not groups.has_plain_tables(str(tmp_path / "fast.mp4"))
    copied(tmp_path / "a.mp4", tmp_path / "parts.mp4", "frag_keyframe+empty_moov")
    assert not groups.has_plain_tables(str(tmp_path / "parts.mp4"))
    check_numbers(tmp_path / "parts.mp4", False)
    copied(tmp_path / "a.mp4", tmp_path / "cut.mp4", "faststart")
    whole = (tmp_path / "cut.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) * 2 // 3])
    with groups.LongFile(tmp_path / "cut.mp4") as video:
        assert not video._by_groups
        with pytest.raises(VideoError) as caught:
            video.read([NUM_FRAMES - 1])
        assert caught.value.code == "truncated"


def copied(source: Path, target: Path, flags: str) -> None:
    with av.open(str(source)) as container, av.open(str(target), "w", options={"movflags": flags}) as output:
        copy = output.add_stream_from_template(container.streams.video[0])
        for packet in container.demux(video=0):
            if packet.size:
                packet.stream = copy
                output.mux(packet)


def test_how_much_is_read_for_a_few_frames_by_number_does_not_grow_with_a_long_mp4(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    piece, path = tmp_path / "piece.mp4", tmp_path / "long.mp4"
    render(piece, "libx264", {"g": "12", "bf": "2", "crf": "10"}, "yuv420p")
    looped(piece, path, 100)
    files: list[Counting] = []
    opening = av.open

    def through(name: str, **options: Any) -> Any:
        files.append(Counting(name.removeprefix("file:")))
        return opening(files[-1], **options)

    monkeypatch.setattr(av, "open", through)
    wanted = [5, 1000, 2000, 3001, 4002, 4699]
    with groups.LongFile(path) as opened:
        clip = opened.read(wanted)
        assert opened._by_groups
    monkeypatch.setattr(av, "open", opening)
    for file in files:
        file.close()
    reference = everything(piece)
    for own, number in zip(clip.frames, wanted, strict=True):
        assert np.array_equal(own.permute(1, 2, 0).numpy(), reference[number % NUM_FRAMES][1]), number
    assert sum(file.num_bytes for file in files) < path.stat().st_size / 4
