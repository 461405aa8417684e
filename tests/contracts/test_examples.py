"""The programs in examples/ run, on rendered videos, and print what they say; so do the notebook's cells."""

import csv
import json
import re
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest
from benchmarks.pages import notebook

import ssan

EXAMPLES = Path(__file__).parents[2] / "examples"
QUICK = ["epochs=1", "batch=8", "num_frames=3", "size_px=32", "crop_px=32"]
RUN_HERE = {"label_folder", "features_of_array", "train_own_data", "own_block", "compare_models"}


@pytest.fixture
def example(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run a program as Python does, with these words behind it; what it has printed."""

    def run(name: str, *words: object) -> str:
        monkeypatch.setattr(sys, "argv", [name, *map(str, words)])
        capsys.readouterr()
        runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
        return capsys.readouterr().out

    return run


@pytest.fixture(scope="module")
def runs(order_set: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("runs")
    keys: dict[str, Any] = {"epochs": 1, "batch": 8, "num_frames": 3, "size_px": 32, "crop_px": 32}
    for name in ("tsn", "ssan"):
        ssan.train(f"demo/{name}_tiny", order_set, folder / name, changes=keys, device="cpu", quiet=True)
    return {name: folder / name for name in ("tsn", "ssan")}


def test_every_program_is_run_here() -> None:
    assert {path.stem for path in EXAMPLES.glob("*.py")} == RUN_HERE
    for path in EXAMPLES.glob("*.py"):
        assert re.search(rf"\n    python examples/{path.name} ", path.read_text(encoding="utf-8")), path.name


@pytest.mark.slow
def test_a_folder_is_labelled(example: Any, runs: dict[str, Path], order_set: Path, tmp_path: Path) -> None:
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    for video in sorted(order_set.rglob("*.webm"))[:3]:
        (inbox / video.name).write_bytes(video.read_bytes())
    (inbox / "bad.mp4").write_text("no video")
    said = example("label_folder", runs["ssan"], inbox, tmp_path / "labels.csv")
    assert said == f"{tmp_path / 'labels.csv'}: 3 videos labelled, 1 could not be read\n"
    with open(tmp_path / "labels.csv", newline="", encoding="utf-8") as handle:
        rows = list(csv.DictReader(handle))
    assert [Path(row["path"]).name for row in rows] == sorted(path.name for path in inbox.iterdir())
    classes = ssan.read_dataset(order_set).classes
    for row in rows:
        bad = row["path"].endswith("bad.mp4")
        assert row["error"].startswith("not_video: ") == bad
        assert bad or (row["label"] in classes and 0.25 <= float(row["score"]) <= 1)


@pytest.mark.slow
def test_features_of_an_array_find_the_second_that_is_alike(
    example: Any, runs: dict[str, Path], order_set: Path
) -> None:
    videos = sorted(order_set.rglob("*.webm"))
    said = example("features_of_array", runs["ssan"], videos[0], videos[1])
    assert re.fullmatch(r"[1-9] seconds of 256 features; second [0-9] is most like it \([01]\.[0-9]{3}\)\n", said), said


@pytest.mark.slow
def test_a_model_is_trained_on_own_data(example: Any, order_set: Path, tmp_path: Path) -> None:
    said = example("train_own_data", order_set, tmp_path / "run", "demo/ssan_tiny", *QUICK).splitlines()
    val = ssan.read_dataset(order_set, "val")
    assert said[0] == f"{len(ssan.read_dataset(order_set, 'train'))} videos, 1 epochs; best epoch 1"
    right = int(said[1].split()[0])
    assert said[1] == f"{right} of {len(val)} validation videos right"
    assert len(said) - 2 == len(val) - right
    assert ssan.load_model(tmp_path / "run").recipe.epochs == 1


@pytest.mark.slow
def test_an_own_block_is_trained_and_loaded(example: Any, order_set: Path, tmp_path: Path) -> None:
    said = example("own_block", order_set, tmp_path / "run").splitlines()
    assert said[0].endswith("steps; the block's largest weight is no longer 0: True")
    assert said[1] == f"{len(ssan.read_dataset(order_set, 'val'))} validation videos labelled"


@pytest.mark.slow
def test_two_models_are_compared(example: Any, runs: dict[str, Path], order_set: Path) -> None:
    said = example("compare_models", runs["tsn"], runs["ssan"], order_set, "train").splitlines()
    num = len(ssan.read_dataset(order_set, "train"))
    first, second = (int(line.rsplit(": ")[1].split()[0]) for line in said[:2])
    only = [int(number) for number in re.findall(r"only the \w+ (\d+)", said[2])]
    assert only[1] - only[0] == second - first
    assert said[3].startswith(f"difference {(second - first) / num:+.3f}, 95 % [")


@pytest.mark.slow
def test_the_notebook_gives_the_outputs_that_are_stored_in_it() -> None:
    """After a change of it: python -m benchmarks.pages.notebook."""
    stored = notebook.read()
    assert notebook.run(stored) == stored
    cells = [cell for cell in stored["cells"] if cell["cell_type"] == "code"]
    assert sum(bool(cell["outputs"]) for cell in cells) >= 6
    assert not re.search(r"/tmp|/home|/work|/Users|site-packages", json.dumps(stored))
