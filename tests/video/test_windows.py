"""Windows of a long video: the frames that belong to each, and no more decoded than they need."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from PIL import Image

from ssan.errors import UsageError, VideoError
from ssan.video import decode
from ssan.video import windows as module
from ssan.video.preprocess import Preprocess, dense_indices, sliding_windows
from ssan.video.reader import open_video
from ssan.video.windows import read_each_window, read_windows

NUM_FRAMES, RATE, SIDE = 211, 10, 32
KINDS = {"h264.mp4": ("libx264", {"g": "20", "bf": "2"}), "h264.ts": ("libx264", {"g": "20", "bf": "2"})}


def brightness(number: int) -> int:
    return 16 + number  # of 211 frames, each its own


@pytest.fixture(scope="module", params=KINDS)
def video(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A long video in which decoding can begin at every twentieth frame, and one that has to be read in sequence."""
    path = tmp_path_factory.mktemp("windows") / request.param
    encoder, options = KINDS[request.param]
    with av.open(str(path), "w") as container:
        stream = container.add_stream(encoder, rate=RATE, options={**options, "crf": "10", "preset": "veryfast"})
        stream.width, stream.height, stream.pix_fmt = SIDE, SIDE, "yuv420p"
        for number in range(NUM_FRAMES):
            picture = np.full((SIDE, SIDE, 3), brightness(number), np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return path


def test_windows_slide_until_one_reaches_the_end() -> None:
    assert sliding_windows(10, window_seconds=4, stride_seconds=3) == [(0, 4), (3, 7), (6, 10)]
    assert sliding_windows(9, window_seconds=4, stride_seconds=3) == [(0, 4), (3, 7), (6, 9)]
    assert sliding_windows(10.5, window_seconds=2, stride_seconds=4) == [(0, 2), (4, 6), (8, 10)]
    assert sliding_windows(3, window_seconds=4, stride_seconds=3) == [(0, 3)]
    tenths = sliding_windows(0.3, window_seconds=0.1, stride_seconds=0.1)
    assert [round(bound, 6) for window in tenths for bound in window] == [0, 0.1, 0.1, 0.2, 0.2, 0.3]


@pytest.mark.parametrize("lengths", [(0, 1), (1, 0), (-1, 1), (float("nan"), 1)])
def test_windows_without_length_are_a_mistake_of_usage(lengths: tuple[float, float]) -> None:
    with pytest.raises(UsageError, match="expected lengths above 0"):
        sliding_windows(10, window_seconds=lengths[0], stride_seconds=lengths[1])


@pytest.mark.parametrize("apart", [True, False])
def test_each_window_has_its_own_frames(video: Path, apart: bool) -> None:
    windows = [[0, 3, 6], [5, 5, 8], [8, 100], [100, 101, 210]]
    with open_video(video, apart=apart) as opened:
        assert opened.random_access == video.name.endswith("mp4")
        clips = list(read_windows(opened, windows))
        assert [list(clip.indices) for clip in clips] == windows
        for clip in clips:
            single = opened.read(clip.indices)
            assert torch.equal(clip.frames, single.frames)
            assert (clip.times_seconds, clip.durations_seconds) == (single.times_seconds, single.durations_seconds)
            assert clip.frames.float().mean((1, 2, 3)).tolist() == pytest.approx(
                [brightness(index) for index in clip.indices], abs=3
            )


def test_where_decoding_can_begin_anywhere_no_more_is_read_than_the_windows_need(
    video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fed, original, streams = [], decode.VideoFile._packets_from, []

    def packets(self: decode.VideoFile, position: int) -> Iterator[av.Packet]:
        for packet in original(self, position):
            fed.append(packet)
            yield packet

    def stream(self: decode.VideoFile, **options: Any) -> Iterator[decode.Pictures]:
        streams.append(self)
        return whole(self, **options)

    def refuse(*_: Any) -> Any:
        raise AssertionError("decoded from the beginning for one window")

    whole = decode.VideoFile.stream_pictures
    monkeypatch.setattr(decode.VideoFile, "_packets_from", packets)
    monkeypatch.setattr(decode.VideoFile, "stream_pictures", stream)
    monkeypatch.setattr(decode, "_in_sequence", refuse)
    with open_video(video, apart=False) as opened:
        windows = [
            dense_indices(20, 4, stride=2, rng=None),
            [160 + i for i in dense_indices(20, 4, stride=2, rng=None)],
        ]
        assert len(list(read_windows(opened, windows))) == 2
        if opened.random_access:
            assert not streams
            assert len(fed) <= 2 * 20  # a group of pictures for each window, of 211 frames
        else:
            assert len(streams) == 1
            assert not fed


def test_windows_of_a_preprocessing_are_what_its_test_view_makes_of_the_part(video: Path) -> None:
    preprocess = Preprocess(num_frames=3, size_px=24, crop_px=20)
    found = list(preprocess.windows(str(video), window_seconds=5, stride_seconds=2.5))
    assert [window for window, _ in found] == [(2.5 * k, min(2.5 * k + 5, 21.1)) for k in range(8)]
    for window, clip in found[::3]:
        (view,), _ = preprocess.test_views(str(video), part=window)
        assert torch.equal(clip, view)


def test_the_windows_before_the_end_of_a_truncated_video_come_and_then_its_error(tmp_path: Path, video: Path) -> None:
    cut = tmp_path / f"cut{video.suffix}"
    cut.write_bytes(video.read_bytes()[: video.stat().st_size * 3 // 4])
    if video.suffix == ".mp4":  # its index is at the end
        with pytest.raises(VideoError):
            open_video(cut)
        return
    with open_video(cut) as opened:
        got = read_windows(opened, [[0, 1], [2, 50], [opened.num_frames - 1, opened.num_frames + 5]])
        assert [list(next(got).indices), list(next(got).indices)] == [[0, 1], [2, 50]]
        with pytest.raises(VideoError):
            next(got)


@pytest.mark.parametrize("windows", [[[5], [3]], [[3, 2]], [[1], []]])
def test_windows_out_of_order_or_empty_are_a_mistake_of_usage(video: Path, windows: list[list[int]]) -> None:
    with open_video(video) as opened, pytest.raises(UsageError, match="ascending"):
        list(read_windows(opened, windows))


def test_a_frame_that_several_windows_show_is_decoded_once_for_all_of_them(
    video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[int]] = []
    windows = [list(range(start, start + 40, 5)) for start in range(0, 160, 5)]  # 32 of them, an eighth apart
    with open_video(video, apart=False) as opened:
        read = type(opened).read

        def noted(self: Any, indices: Any, **options: Any) -> Any:
            asked.append(list(indices))
            return read(self, indices, **options)

        monkeypatch.setattr(type(opened), "read", noted)
        clips = list(read_windows(opened, windows))
        monkeypatch.setattr(type(opened), "read", read)
        assert [list(clip.indices) for clip in clips] == windows
        for clip in clips[::7]:
            assert torch.equal(clip.frames, opened.read(clip.indices).frames)
            assert clip.frames.permute(0, 2, 3, 1).is_contiguous()
    if video.name.endswith("mp4"):
        assert len(asked) == 2  # sixteen windows at a time, whose frames are in memory together
        assert all(len(set(indices)) == len(indices) == 8 + 15 for indices in asked)
    else:
        assert not asked


def folder_with_a_hole(folder: Path, num_frames: int, broken: int) -> str:
    """A video as a folder of pictures at 12 frames a second, one of which is none."""
    folder.mkdir()
    for number in range(num_frames):
        picture = np.full((SIDE, SIDE, 3), brightness(number), np.uint8)
        Image.fromarray(picture).save(folder / f"{number:05d}.png")
    (folder / f"{broken:05d}.png").write_bytes(b"no picture")
    return str(folder)


def test_a_window_that_cannot_be_read_says_why_and_those_after_it_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = folder_with_a_hole(tmp_path / "frames", 40, broken=15)
    # Windows 1 and 2 overlap the others, and are read together with them; frame 15 is in both.
    windows = [[0, 9, 12], [10, 15, 19], [15, 16], [16, 30], [38, 39]]
    with open_video(path) as opened:
        found = list(read_each_window(opened, windows))
        assert [isinstance(clip, VideoError) for clip in found] == [False, True, True, False, False]
        for window, clip in zip(windows, found, strict=True):
            if isinstance(clip, VideoError):
                assert "00015.png" in f"{clip.path} {clip.message}"
            else:
                assert [int(frame[0, 0, 0]) for frame in clip.frames] == [brightness(number) for number in window]
        # Where faults have cost too much, what follows is given up.
        monkeypatch.setattr(module, "FAULTS_SECONDS", 0.0)
        assert [isinstance(clip, VideoError) for clip in read_each_window(opened, windows)] == [False, *[True] * 4]


def test_of_a_video_read_in_sequence_a_fault_is_that_of_all_windows_after_it(
    tmp_path: Path, video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if video.suffix == ".mp4":
        return
    cut = tmp_path / "cut.ts"
    cut.write_bytes(video.read_bytes()[: video.stat().st_size // 2])
    with open_video(cut) as opened:
        behind = [[opened.num_frames + number] for number in range(3)]
        begun: list[int] = []
        stream = type(opened).stream
        monkeypatch.setattr(type(opened), "stream", lambda self, **how: begun.append(1) or stream(self, **how))
        found = list(read_each_window(opened, [[0, 1], [2, 50], *behind]))
    assert [isinstance(clip, VideoError) for clip in found] == [False, False, True, True, True]
    assert len(begun) == 1
