"""The demo end to end, small: its files, its figures, and a page that needs nothing but itself."""

import json
import re
from pathlib import Path

import pytest

from ssan.cli.main import status
from ssan.datasets import read


@pytest.mark.slow
@pytest.mark.usefixtures("forked_commands")
def test_the_demo_writes_its_results_and_one_page_that_needs_nothing_else(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "demo"
    assert status(["demo", "--out", str(out), "--videos", "120", "--epochs", "1", "--quiet", "--json"]) == 0
    said = capfd.readouterr()
    results = json.loads(said.out)
    assert results == json.loads((out / "results.json").read_text())
    assert set(results) >= {
        "render_seconds", "train_seconds", "evaluate_seconds", "num_train", "num_test", "models", "predictions",
    }  # fmt: skip
    assert set(results["train_seconds"]) == set(results["models"]) == {"tsn_tiny", "ssan_tiny"}
    for figures in results["models"].values():
        assert set(figures) == {"top1", "pair_top1", "within_pair_top1", "reversed_top1", "shuffled_top1"}
    # A network that sees frames one by one cannot tell a video from its reverse.
    tsn = results["models"]["tsn_tiny"]
    assert tsn["top1"] == tsn["reversed_top1"] == tsn["shuffled_top1"]
    assert (results["num_train"], results["num_test"]) == (84, 18)
    classes = read("sthv2", out / "data", "train").classes
    for prediction in results["predictions"]:
        assert set(prediction) == {"path", "label", "predicted", "score"}
        assert {prediction["label"], prediction["predicted"]} <= set(classes)
        assert Path(prediction["path"]).is_file()

    page = (out / "index.html").read_text(encoding="utf-8")
    assert not re.findall(r"(?:src|href)=[\"'](?!data:)", page), "the page must not ask for anything"
    assert page.count('class="strip"') == 2 * len(results["predictions"])
    for label in {prediction["label"] for prediction in results["predictions"]}:
        assert label in page
    assert f"{results['models']['ssan_tiny']['top1']:.3f}" in page


def test_a_demo_on_a_gpu_is_refused_with_the_command_that_trains_on_one(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert status(["demo", "--out", str(tmp_path), "--device", "cuda"]) == 2
    assert "ssan train" in capfd.readouterr().err
