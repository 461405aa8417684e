"""Labelling long videos window by window: bounds, contents, memory, what cannot be read, the table."""

import csv
import gc
import io
import shutil
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from PIL import Image

from ssan.datasets.samples import Sample
from ssan.errors import UsageError
from ssan.models.catalogue import build
from ssan.recipe import make_recipe
from ssan.recognition.predict import predict
from ssan.recognition.predict_windows import COLUMNS, as_row, predict_windows
from ssan.recognition.video_model import VideoModel
from ssan.video.reader import VideoApart
from ssan.weights.classifier_file import load_labeller, save_labeller
from ssan.weights.labeller import Labeller

SIDE, CLIP = 40, 3


@pytest.fixture(scope="module")
def labeller(tmp_path_factory: pytest.TempPathFactory) -> Labeller:
    torch.manual_seed(5)
    recipe = make_recipe({"model": "ssan_tiny", "num_frames": CLIP, "size_px": SIDE, "crop_px": 32})
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    save_labeller(path, build("ssan_tiny", 3), ["a", "b", "c"], recipe, {})
    return load_labeller(path)


def pictures(folder: Path, num_frames: int, seed: int = 0) -> Path:
    """A video as a folder of pictures, 12 of which are a second."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    for number in range(num_frames):
        Image.fromarray(rng.integers(0, 256, (SIDE, SIDE, 3), np.uint8)).save(folder / f"{number:05d}.png")
    return folder


def cut(source: Path, target: Path, first: int, stop: int) -> str:
    """The frames [first, stop) of a folder as a video of their own."""
    target.mkdir(parents=True)
    for number, name in enumerate(sorted(path.name for path in source.iterdir())[first:stop]):
        shutil.copy(source / name, target / f"{number:05d}.png")
    return str(target)


def long_video(path: Path, num_frames: int) -> str:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10, options={"g": "20", "preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = SIDE, SIDE, "yuv420p"
        for number in range(num_frames):
            picture = np.full((SIDE, SIDE, 3), number % 200, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return str(path)


@pytest.mark.slow
def test_windows_have_bounds_worked_by_hand_and_the_answers_of_the_parts_cut_out(
    labeller: Labeller, tmp_path: Path
) -> None:
    # 33 frames are 2.75 s. Windows of 1 s every 0.75 s: 0, 0.75, 1.5, and the last from 2.25 to the end.
    whole = pictures(tmp_path / "whole", 33)
    answers = list(predict_windows(labeller, [str(whole)], window_seconds=1.0, step_seconds=0.75, top=3))
    assert [(one.line["start_seconds"], one.line["end_seconds"]) for one in answers] == [
        (0, 1), (0.75, 1.75), (1.5, 2.5), (2.25, 2.75)
    ]  # fmt: skip
    parts = [(0, 12), (9, 21), (18, 30), (27, 33)]
    assert [one.line["num_frames"] for one in answers] == [12, 12, 12, 6]
    assert {(one.video, one.num_windows, one.line["path"]) for one in answers} == {(0, 4, str(whole))}
    for one, (first, stop) in zip(answers, parts, strict=True):
        alone = predict(labeller, cut(whole, tmp_path / f"{first}", first, stop), top=3)
        assert one.line["ok"]
        assert one.line["top"] == alone["top"]
    assert len({one.line["top"][0]["score"] for one in answers}) == 4  # that they differ at all


def test_a_video_shorter_than_a_window_is_one_window_and_steps_may_leave_gaps(
    labeller: Labeller, tmp_path: Path
) -> None:
    short = str(pictures(tmp_path / "short", 6))
    (one,) = predict_windows(labeller, [short], window_seconds=10)
    assert (one.line["start_seconds"], one.line["end_seconds"], one.line["num_frames"]) == (0, 0.5, 6)
    assert one.line["top"] == predict(labeller, short)["top"]
    found = predict_windows(labeller, [str(pictures(tmp_path / "gaps", 27))], window_seconds=0.5, step_seconds=1)
    assert [(one.line["start_seconds"], one.line["end_seconds"]) for one in found] == [(0, 0.5), (1, 1.5), (2, 2.25)]
    for window, step in ((0, 1), (1, -1), (float("nan"), 1), (1, float("inf"))):
        with pytest.raises(UsageError, match="above 0"):
            predict_windows(labeller, [short], window_seconds=window, step_seconds=step)


@pytest.mark.slow
def test_of_a_long_video_the_frames_of_one_window_are_held_at_a_time(
    labeller: Labeller, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = long_video(tmp_path / "long.mp4", 600)
    held, most, read_frames = 0, 0, 0
    read: Callable[..., Any] = VideoApart.read

    def dropped(num: int) -> None:
        nonlocal held
        held -= num

    def counted(self: Any, indices: Any, **how: Any) -> Any:
        nonlocal held, most, read_frames
        clip = read(self, indices, **how)
        held, read_frames = held + len(clip.indices), read_frames + len(clip.indices)
        most = max(most, held)
        weakref.finalize(clip.frames, dropped, len(clip.indices))
        return clip

    monkeypatch.setattr(VideoApart, "read", counted)
    num = 0
    for num, one in enumerate(predict_windows(labeller, [path], window_seconds=2.0), 1):  # noqa: B007
        assert one.line["ok"]
    gc.collect()
    assert (num, read_frames) == (30, 30 * CLIP)
    assert CLIP <= most <= 2 * CLIP
    assert held == 0


def test_what_cannot_be_read_has_an_answer_that_says_why_and_the_rest_goes_on(
    labeller: Labeller, tmp_path: Path
) -> None:
    holed = pictures(tmp_path / "holed", 36)
    (holed / "00018.png").write_bytes(b"no picture")  # of the middle second, frames 2, 6 and 10 are seen: 14, 18, 22
    (tmp_path / "broken.mp4").write_bytes(b"not a video")
    paths = [str(tmp_path / "broken.mp4"), str(holed), str(pictures(tmp_path / "good", 12))]
    answers = list(predict_windows(labeller, paths, window_seconds=1))
    assert [(one.video, one.num_windows, one.line["ok"]) for one in answers] == [
        (0, 1, False), (1, 3, True), (1, 3, False), (1, 3, True), (2, 1, True)
    ]  # fmt: skip
    assert set(answers[0].line) == {"path", "ok", "error"}
    assert set(answers[2].line) == {"path", "ok", "start_seconds", "end_seconds", "error"}
    assert (answers[2].line["start_seconds"], answers[2].line["end_seconds"]) == (1, 2)
    assert answers[2].line["path"] == answers[2].line["error"]["path"] == str(holed)
    assert [one.line["path"] for one in answers] == [paths[0], *[paths[1]] * 3, paths[2]]


@pytest.mark.slow
def test_readers_beside_the_network_change_neither_answers_nor_their_order(labeller: Labeller, tmp_path: Path) -> None:
    lengths = [30, 6, 12, 40, 5]
    paths = [str(pictures(tmp_path / f"{seed}", num, seed)) for seed, num in enumerate(lengths)]
    paths.insert(2, str(tmp_path / "absent.mp4"))
    alone = list(predict_windows(labeller, paths, window_seconds=0.5, top=2))
    assert [one.video for one in alone] == [0] * 5 + [1] + [2] + [3] * 2 + [4] * 7 + [5]
    assert list(predict_windows(labeller, paths, window_seconds=0.5, top=2, workers=2)) == alone
    assert list(predict_windows(labeller, [], window_seconds=1, workers=2)) == []


def test_a_model_in_python_answers_windows_as_the_command_does(labeller: Labeller, tmp_path: Path) -> None:
    model, video = VideoModel(labeller), pictures(tmp_path / "whole", 33)
    (video / "00015.png").write_bytes(b"no picture")  # the second window is seen by frames 11, 15 and 19
    (tmp_path / "absent.mp4").touch()
    paths = [str(video), str(tmp_path / "absent.mp4")]
    lines = [one.line for one in predict_windows(labeller, paths, window_seconds=1, step_seconds=0.75, top=2)]
    answers = model.predict(paths, top=2, windows=1, step=0.75)
    assert [answer.ok for answer in answers] == [line["ok"] for line in lines] == [True, False, True, True, False]
    for answer, line in zip(answers, lines, strict=True):
        assert (answer.path, answer.start_seconds, answer.end_seconds, answer.num_frames) == tuple(
            line.get(name) for name in ("path", "start_seconds", "end_seconds", "num_frames")
        )
        assert answer.top == [(best["label"], best["score"]) for best in line.get("top", [])]
        assert answer.duration_seconds is None
    part = Sample("x", str(video), start_seconds=1.5, end_seconds=2.5)
    assert [(one.start_seconds, one.end_seconds) for one in model.predict(part, windows=0.5)] == [(1.5, 2), (2, 2.5)]
    with pytest.raises(UsageError, match="no windows of them"):
        model.predict(np.zeros((4, SIDE, SIDE, 3), np.uint8), windows=1)
    with pytest.raises(UsageError, match="give windows"):
        model.predict(paths, step=1)


def test_rows_of_the_table_come_back_as_they_were() -> None:
    path = 'odd, "name"\r\n.mp4'
    top = [{"label": "jump, high", "index": 1, "score": 0.1 + 0.2}, {"label": "b", "index": 0, "score": 0.25}]
    lines = [
        {"path": path, "ok": True, "start_seconds": 0.0, "end_seconds": 2.5, "num_frames": 5, "top": top},
        {"path": path, "ok": True, "start_seconds": 2.5, "end_seconds": 5.0, "num_frames": 5, "top": top, "none": True},
        {"path": path, "ok": False, "start_seconds": 5.0, "end_seconds": 6.0, "error": {}},
        {"path": "gone.mp4", "ok": False, "error": {}},
        {"path": "whole.mp4", "ok": True, "num_frames": 5, "duration_seconds": 4.5, "top": top, "none": False},
    ]
    text = "".join(map(as_row, lines))
    assert list(csv.reader(io.StringIO(text, newline=""))) == [
        [path, "0.0", "2.5", "jump, high", "0.30000000000000004"],
        [path, "2.5", "5.0", "", "0.30000000000000004"],
        [path, "5.0", "6.0", "", ""],
        ["gone.mp4", "", "", "", ""],
        ["whole.mp4", "0.0", "4.5", "jump, high", "0.30000000000000004"],
    ]
    assert all(len(row) == len(COLUMNS) for row in csv.reader(io.StringIO(text, newline="")))
