"""What a command writes into, no other writes into meanwhile: it is refused in one line, and nothing is harmed."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from ssan.datasets import read
from ssan.errors import TrainingError, UsageError
from ssan.files import one_writer
from ssan.models.catalogue import build
from ssan.recipe import make_recipe
from ssan.training.journal import Journal
from ssan.training.run_folder import ending_in_the_journal
from ssan.weights.classifier_file import save_labeller


@pytest.fixture(scope="module")
def model_file(tmp_path_factory: pytest.TempPathFactory, order_set: Path) -> Path:
    torch.manual_seed(5)
    recipe = make_recipe({"model": "ssan_tiny", "num_frames": 2, "size_px": 40, "crop_px": 32})
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    save_labeller(path, build("ssan_tiny", 4), read("sthv2", order_set, "all").classes, recipe, {})
    return path


@pytest.fixture
def held(tmp_path: Path) -> Iterator[Path]:
    """A folder that somebody writes into."""
    with one_writer(tmp_path / "held", folder=True):
        (tmp_path / "held" / "last").mkdir()
        (tmp_path / "held" / "last" / ".state.ckpt.abc.part").write_text("being written")
        yield tmp_path / "held"


COMMANDS = {
    "train": ["train", "--model", "ssan_tiny", "--data", "{data}", "--out", "{held}"],
    "train --resume": ["train", "--model", "ssan_tiny", "--data", "{data}", "--out", "{held}", "--resume"],
    "demo": ["demo", "--out", "{held}"],
    "data synth": ["data", "synth", "{held}", "--task", "order", "--videos", "60"],
    "reproduce": ["reproduce", "table1", "--mini", "--out", "{held}"],
    "reproduce of captions": ["reproduce", "table7", "--mini", "--out", "{held}"],
    "data resize": ["data", "resize", "{data}", "{held}"],
    "data frames": ["data", "frames", "{data}", "{held}"],
}


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_a_folder_that_is_being_written_is_refused_and_stays_as_it_is(
    ssan: Any, held: Path, order_set: Path, name: str
) -> None:
    before = {path: path.read_bytes() for path in held.rglob("*") if path.is_file()}
    answer = ssan(*(word.format(data=order_set, held=held) for word in COMMANDS[name]))
    assert answer.code == 2
    assert answer.err.startswith(f"ssan: {held}: it is being written by process {os.getpid()} since 2")
    assert (answer.err.count("\n"), answer.out) == (1, "")
    assert {path: path.read_bytes() for path in held.rglob("*") if path.is_file()} == before


def test_a_training_of_texts_and_videos_is_refused_too(held: Path) -> None:
    from ssan.retrieval.train import train

    with pytest.raises(UsageError, match="being written by process"):
        train(None, None, held)  # type: ignore[arg-type, call-arg]


def test_a_score_file_that_is_being_written_is_refused(
    ssan: Any, model_file: Path, order_set: Path, tmp_path: Path
) -> None:
    scores = tmp_path / "scores.npz"
    words = ("eval", model_file, "--data", order_set, "--device", "cpu", "--workers", "0", "--scores", scores)
    with one_writer(scores):
        answer = ssan(*words)
    assert answer.code == 2
    assert f"{scores}: it is being written by process" in answer.err
    assert not scores.exists()
    assert ssan(*words).code == 0
    assert [path.name for path in tmp_path.iterdir()] == ["scores.npz"]


def test_of_several_processes_the_first_has_the_lock_and_the_others_are_of_its_run(
    held: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(recipe: Any, data: Any, out: Path) -> dict[str, Any]:
        return {"ran": True}

    for rank, allowed in ((0, False), (1, True)):
        for name, value in (("RANK", rank), ("WORLD_SIZE", 2), ("LOCAL_RANK", rank), ("LOCAL_WORLD_SIZE", 2)):
            monkeypatch.setenv(name, str(value))
        if allowed:
            assert ending_in_the_journal(run)(None, None, held) == {"ran": True}
        else:
            with pytest.raises(UsageError, match="being written"):
                ending_in_the_journal(run)(None, None, held)


def test_a_run_is_alone_until_its_end_is_noted(tmp_path: Path) -> None:
    other = f"from ssan.files import one_writer\nwith one_writer({str(tmp_path / 'run')!r}, folder=True): pass"

    def run(recipe: Any, data: Any, out: Path) -> dict[str, Any]:
        refused = subprocess.run([sys.executable, "-c", other], capture_output=True, text=True, check=False)
        assert f"by process {os.getpid()} since" in refused.stderr
        raise TrainingError("the loss is lost", code="nan")

    with pytest.raises(TrainingError):
        ending_in_the_journal(run)(None, None, tmp_path / "run")
    assert [event["event"] for event in Journal(tmp_path / "run").events()] == ["failed"]
    subprocess.run([sys.executable, "-c", other], check=True)
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["journal.jsonl"]


def test_what_a_killed_reproduce_was_writing_goes_with_the_next(ssan: Any, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    partial = tmp_path / "out" / ".table1-mini.html.0123.part"
    partial.touch()
    done = ssan(
        "reproduce", "table1", "--mini", "--rows", "tsm_8f", "--data", tmp_path / "no", "--out", tmp_path / "out"
    )
    assert done.code == 2
    assert not partial.exists()
