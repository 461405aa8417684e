"""Frames at a rate in time: which are shown when, in files whose own rate varies, in parts of them, and in folders."""

import json
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from ssan.errors import UsageError
from ssan.video.clip import Clip, Examination, FramePart, Resize, Video
from ssan.video.frame_array import FrameArray
from ssan.video.preprocess import Preprocess
from ssan.video.reader import open_video

# Of a clock that starts at 5 s, in tenths; the last of the six frames is shown for a tenth.
TICKS = [50, 51, 55, 56, 57, 70]
SIDE = 32


@pytest.fixture(scope="module")
def uneven(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("rate") / "uneven.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width = stream.height = SIDE
        stream.pix_fmt = "yuv420p"
        for number, tick in enumerate(TICKS):
            picture = np.full((SIDE, SIDE, 3), 40 * number, np.uint8)
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = tick, Fraction(1, 10)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return str(path)


def at_five(**options: object) -> Preprocess:
    """Four frames, 0.2 s apart."""
    sizes = {"size_px": SIDE, "crop_px": SIDE, "resize": "short_side"}
    how = {"num_frames": 4, "sampling": "dense", "stride": 1, "frames_per_second": 5.0}
    return Preprocess(**{**sizes, **how, **options})  # type: ignore[arg-type]


class Fixed:
    def __init__(self, value: float) -> None:
        self.value = value

    def random(self) -> float:
        return self.value


@pytest.mark.parametrize("apart", [True, False])
def test_a_frame_is_shown_until_the_next_one_begins(uneven: str, apart: bool) -> None:
    with open_video(uneven, apart=apart) as video:
        assert video.duration_seconds == pytest.approx(2.1)
        moments = [0.0, 0.05, 0.1, 0.3, 0.4999, 0.5, 0.65, 1.9, 2.0, 9.0]
        assert video.frames_at(moments) == [0, 0, 1, 1, 1, 2, 3, 4, 5, 5]
        assert video.frames_at([]) == []


def test_the_test_clip_of_a_variable_rate_by_hand(uneven: str) -> None:
    """The clip lasts 0.6 s and a frame, 0.8 s of 2.1 s, so it begins at 0.65 s: 0.65, 0.85, 1.05, 1.25 s."""
    views, clip = at_five().test_views(uneven)
    assert clip.indices == (3, 4, 4, 4)
    assert [round(float(frame.float().mean()) / 40) for frame in views[0]] == [3, 4, 4, 4]
    _, clip = at_five().test_views(uneven, num_views=2)
    assert clip.indices == (0, 1, 1, 3, 4, 4, 4, 4)  # 0, 0.2, 0.4, 0.6 and 1.3, 1.5, 1.7, 1.9 s
    _, clip = at_five(stride=4).test_views(uneven)
    assert clip.indices == (1, 4, 4, 5)  # too short for 2.6 s: any of the first 0.8 s, so 0.3, 1.1, 1.9, 2.7 s


def test_the_training_clip_begins_anywhere_from_which_the_video_lasts(uneven: str) -> None:
    """From 0 to 1.5 s: at 0 it has 0, 0.2, 0.4, 0.6 s, at 0.45 s also 0.65, 0.85 and 1.05."""
    assert at_five().training_clip(uneven, Fixed(0.0)).indices == (0, 1, 1, 3)  # type: ignore[arg-type]
    assert at_five().training_clip(uneven, Fixed(0.3)).indices == (1, 3, 4, 4)  # type: ignore[arg-type]
    drawn = [at_five().training_clip(uneven, np.random.default_rng(seed)).indices for seed in range(40)]
    assert {index for indices in drawn for index in indices} == set(range(6))


def test_of_a_part_time_counts_from_its_first_frame(uneven: str) -> None:
    """Frames 1 to 4 begin at 0, 0.4, 0.5, 0.6 s and last until 1.9 s: the clip begins at 0.55 s."""
    for part in ((0.1, 2.0), FramePart(1, 5)):
        _, clip = at_five().test_views(uneven, part=part)
        assert clip.num_frames == 4
        assert clip.duration_seconds == pytest.approx(1.9)
        assert clip.indices == (2, 3, 3, 3)


def test_a_folder_has_its_own_rate_or_times(tmp_path: Path) -> None:
    from PIL import Image

    for number in range(6):
        Image.new("RGB", (SIDE, SIDE), (40 * number,) * 3).save(tmp_path / f"{number:05d}.png")
    with open_video(tmp_path, frames_per_second=10) as video:
        assert video.frames_at([0, 0.1, 0.19, 0.5, 2]) == [0, 1, 1, 5, 5]
    times = {f"{number:05d}.png": [tick / 10, 0.1] for number, tick in enumerate(TICKS)}
    (tmp_path / ".times.json").write_text(json.dumps({"frames": times}))
    _, clip = at_five().test_views(str(tmp_path))
    assert clip.indices == (3, 4, 4, 4)


def test_frames_in_memory_count_as_being_at_the_rate() -> None:
    pixels = torch.arange(20, dtype=torch.uint8).view(20, 1, 1, 1).expand(20, SIDE, SIDE, 3)
    clip = at_five(stride=2).test_clip(FrameArray(pixels, channels_first=False))
    assert clip[0, :, 0, 0, 0].tolist() == [6, 8, 10, 12]  # starts 0 to 13


def test_windows_have_the_frames_of_their_parts(uneven: str) -> None:
    found = list(at_five().windows(uneven, window_seconds=1.0, stride_seconds=0.5))
    assert [window for window, _ in found] == [(0, 1), (0.5, 1.5), (1, 2), (1.5, pytest.approx(2.1))]
    for window, clip in found:
        (view,), _ = at_five().test_views(uneven, part=window)
        assert torch.equal(clip, view)


class CutShort(Video):
    """Promises ten frames of a tenth of a second, and has six."""

    path, num_frames, num_promised, duration_seconds = "cut", 6, 10, 1.0

    def begin_seconds(self, index: int) -> float:
        return index / 10

    def read(self, indices: object, *, resize: Resize | None = None) -> Clip:
        raise NotImplementedError

    def examine(self) -> Examination:
        raise NotImplementedError

    @property
    def size_px(self) -> tuple[int, int]:
        return SIDE, SIDE


def test_a_video_that_ends_early_lasts_as_long_as_it_can_be_read() -> None:
    assert CutShort().lasts_seconds() == pytest.approx(0.6)
    assert CutShort().frames_at([0.55, 0.95]) == [5, 5]


def test_a_rate_of_nothing_and_one_without_dense_sampling_are_refused() -> None:
    with pytest.raises(UsageError, match="frames_per_second is 25 with sampling 'segment'"):
        Preprocess(frames_per_second=25.0)
    for rate in (0.0, -1.0, float("nan")):
        with pytest.raises(UsageError, match="expected a rate above 0"):
            at_five(frames_per_second=rate)


def test_files_of_before_have_no_word_of_a_rate() -> None:
    assert Preprocess().as_dict() == {
        "num_frames": 8, "sampling": "segment", "stride": 8, "resize": "square", "size_px": 256, "crop_px": 224,
    }  # fmt: skip
    assert at_five().as_dict()["frames_per_second"] == 5.0
