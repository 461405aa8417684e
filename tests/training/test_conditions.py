"""A run that goes on takes up the threads of before, and says what else is not as it was: versions, machine, videos."""

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from ssan import _version
from ssan.datasets.fingerprint import files_of
from ssan.datasets.samples import Sample
from ssan.recipe import make_recipe
from ssan.recognition.train import DataSource, train
from ssan.training.callbacks import InterruptedRun
from ssan.training.fit import TrainingModule
from ssan.training.journal import read_journal

RECIPE = make_recipe({
    "model": "tsn_tiny", "crop_px": 32, "size_px": 36, "epochs": 1, "batch": 8, "num_frames": 2, "lr": 0.01,
    "lr_rule": "none", "crop": "random", "checkpoint_every_steps": 1,
})  # fmt: skip


@pytest.fixture
def videos(order_set: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(order_set, tmp_path / "videos"))


@pytest.fixture
def stopped(videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run that was stopped after its second step of four."""
    original, out = TrainingModule.training_step, tmp_path / "run"

    def stops(self: TrainingModule, *batch: Any) -> Any:
        if self.trainer.global_step == 2:
            raise InterruptedRun
        return original(self, *batch)

    with monkeypatch.context() as patch:
        patch.setattr(TrainingModule, "training_step", stops)
        with pytest.raises(InterruptedRun):
            train(RECIPE, DataSource(str(videos)), out, quiet=True)
    return out


def go_on(videos: Path, out: Path) -> dict[str, Any]:
    """Go on with the run; what its journal says of that."""
    train(RECIPE, DataSource(str(videos)), out, resume=True, quiet=True)
    (resumed,) = read_journal(out / "journal.jsonl", "resumed")
    return resumed


@pytest.mark.slow
def test_a_run_goes_on_with_the_threads_that_it_was_begun_with(
    videos: Path, stopped: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads, seen, original = torch.get_num_threads(), [], TrainingModule.training_step

    def looks(self: TrainingModule, *batch: Any) -> Any:
        seen.append(torch.get_num_threads())
        return original(self, *batch)

    monkeypatch.setattr(TrainingModule, "training_step", looks)
    torch.set_num_threads(threads + 2)
    assert go_on(videos, stopped)["threads"] == threads
    assert seen == [threads] * 2
    assert torch.get_num_threads() == threads + 2


@pytest.mark.slow
def test_where_nothing_is_other_nothing_is_said(videos: Path, stopped: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert go_on(videos, stopped)["inexact"] == []
    assert "warning" not in capfd.readouterr().err


@pytest.mark.slow
def test_another_version_is_said_in_a_line_and_in_the_journal(
    videos: Path, stopped: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    was = _version.__version__
    monkeypatch.setattr(_version, "__version__", "77.0")
    assert go_on(videos, stopped)["inexact"] == [f"ssan was {was} and is 77.0"]
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("warning: gone on with, but the weights may differ")
    assert line.endswith(f"ssan was {was} and is 77.0")


@pytest.mark.slow
def test_videos_that_are_others_now_are_counted_and_the_first_is_named(videos: Path, stopped: Path) -> None:
    listed = DataSource(str(videos)).read("train")
    bigger, touched = Path(listed[3].path), Path(listed[5].path)
    bigger.write_bytes(bigger.read_bytes() + b"\0" * 10)
    os.utime(touched, ns=(0, 10**18))
    assert go_on(videos, stopped)["inexact"] == [
        f"1 of 34 videos have another size, first {bigger}",
        f"1 of 34 videos were written since, in the same size, first {touched}",
    ]


@pytest.mark.slow
def test_a_state_that_did_not_keep_what_it_was_computed_with_says_so(videos: Path, stopped: Path) -> None:
    path = stopped / "last" / "state.ckpt"
    state = torch.load(path, weights_only=True)
    del state["conditions"]
    torch.save(state, path)
    (said,) = go_on(videos, stopped)["inexact"]
    assert "did not keep what it computed with" in said


def test_of_a_folder_of_frames_every_frame_counts(tmp_path: Path) -> None:
    folder, sample = tmp_path / "frames", Sample("a", str(tmp_path / "frames"))
    folder.mkdir()
    for name in ("1.jpg", "2.jpg"):
        (folder / name).write_bytes(b"x")
        os.utime(folder / name, ns=(0, 10**18))
    seen = [files_of([sample]).marks]
    (folder / "2.jpg").write_bytes(b"yy")
    os.utime(folder / "2.jpg", ns=(0, 10**18))
    seen.append(files_of([sample]).marks)
    os.utime(folder / "1.jpg", ns=(0, 2 * 10**18))
    seen.append(files_of([sample]).marks)
    assert (seen[0] != seen[1]).tolist() == [[True, False]]
    assert (seen[1] != seen[2]).tolist() == [[False, True]]
