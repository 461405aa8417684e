"""The page of evidence: equal to its results, which have each row's figures once, and words that follow from them."""

from pathlib import Path
from typing import Any

import pytest
from benchmarks.pages import evidence

ROOT = Path(__file__).resolve().parents[2]


def row(name: str, title: str, top1: list[float], difference: tuple[float, float, float] | None, sure: bool) -> Any:
    low, mean, high = difference or (None, None, None)
    return {
        "row": name,
        "title": title,
        "frames": "8",
        "seeds": [{"seed": seed, "top1": value, "num_scored": 300} for seed, value in enumerate(top1)],
        "difference": {"num_seeds": len(top1), "mean": mean, "low": low, "high": high},
        "pair_above_chance": [sure] * len(top1),
    }


def test_the_page_is_that_of_its_results() -> None:
    content = evidence.read_json(evidence.RESULTS)
    assert evidence.PAGE.read_text(encoding="utf-8") == evidence.page(content), (
        "run `python -m benchmarks.pages.evidence --page`"
    )
    assert set(content["tables"]) == set(evidence.EVERYTHING)
    for name, sets in content["tables"].items():
        assert [data["name"] for data in sets] == ["order", "relation"]
        for data in sets:
            assert [found["row"] for found in data["rows"]] == evidence.EVERYTHING[name]
            assert "run" not in str([list(figures) for found in data["rows"] for figures in found["seeds"]])
    if content["figure4"]:
        assert evidence.FIGURE.exists()


@pytest.mark.slow
def test_every_row_of_the_page_can_be_trained_small(tmp_path: Path) -> None:
    from ssan.reproduce.plan import Data
    from ssan.reproduce.recognition import runs_of
    from ssan.reproduce.tables import TABLES

    data = Data("order", (), "test", "order")
    for name, rows in evidence.EVERYTHING.items():
        for one in rows:
            known = TABLES[name].row(one)
            assert known.members or runs_of(known, data, 3, tmp_path, mini="tiny"), f"{name} {one}"
        assert evidence.REFERENCES[name] in rows
    trainings = {
        run.folder
        for name, rows in evidence.LAPTOP.items()
        for one in rows
        for task in evidence.TASKS
        for run in runs_of(TABLES[name].row(one), Data(task, (), "test", task), 3, tmp_path, mini="tiny")
    }
    assert len(trainings) == 24, "as the page and the script say"


def test_the_words_below_a_table_follow_from_its_figures() -> None:
    rows = [
        row("nl3d", "3D NL", [0.2, 0.3], (-0.9, -0.7, -0.5), sure=False),
        row("nl2d", "2D NL", [0.9, 0.8], (-0.3, -0.1, 0.1), sure=True),
        row("nl1d", "1D NL", [0.99, 0.99], (0.01, 0.05, 0.09), sure=True),
        row("nl2d1d", "2D+1D NL", [], None, sure=True),
        row("ssa", "SSA", [0.95, 0.94], (0.0, 0.0, 0.0), sure=True),
    ]
    said = evidence.findings("table2", {"rows": rows})
    assert said == [
        "- Right pairs above guessing in every run, but for: 3D NL; their directions say nothing.",
        "- The interval lies wholly below SSA: 3D NL.",
        "- The interval lies wholly above SSA: 1D NL.",
        "- No difference to SSA shown by these seeds: 2D NL.",
    ]
    assert evidence.findings("table2", {"rows": [{**one, "seeds": []} for one in rows]}) == ["Not run."]


def test_cells_are_blank_where_nothing_was_run() -> None:
    assert evidence.share(None) == ""
    assert evidence.share(0.5) == "0.500"
    assert evidence.share(0.51234, 0.0123) == "0.512 ± 0.012"
    assert evidence.interval({"mean": None, "low": None, "high": None}) == ""
    assert evidence.interval({"mean": 0.1, "low": None, "high": None}) == "+0.100"
    assert evidence.interval({"mean": -0.1, "low": -0.25, "high": 0.05}) == "-0.100 [-0.250, +0.050]"


@pytest.mark.slow
def test_figure_4_is_drawn_of_two_runs_scores_and_told_by_class(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import numpy as np

    from ssan.recognition.score_file import write_scores
    from ssan.reproduce.plan import Data
    from ssan.reproduce.recognition import ClassifierRun, RecognitionRequest, runs_of
    from ssan.reproduce.runs import Execution
    from ssan.reproduce.tables import TABLES

    data = Data("relation", (), "test", "relation")
    order = RecognitionRequest(TABLES["table1"], [], [data], tmp_path, 1, mini="tiny")
    labels = np.arange(20) % 4
    right = np.eye(4)[labels]
    for name, scores in (("tsm_8f", np.roll(right, 1, axis=1)), ("ssa_8f", right)):
        (run,) = runs_of(TABLES["table1"].row(name), data, 1, tmp_path, mini="tiny")
        run.folder.mkdir(parents=True)
        ids = [str(n) for n in range(20)]
        write_scores(run.scores, ids, scores, labels, [*"abcd"], {"split": "test"})
    monkeypatch.setattr(evidence.Setting, "orders", lambda self, wanted: [order])
    monkeypatch.setattr(ClassifierRun, "evaluation", lambda self: {"top1": 1.0})
    monkeypatch.setattr(evidence, "FIGURE", tmp_path / "figure.png")
    found = evidence.figure_4(evidence.Setting(tmp_path, 1, Execution()))
    assert (tmp_path / "figure.png").read_bytes()[:4] == b"\x89PNG"
    assert (found["difference"], found["num_videos"]) == (1.0, 20)
    shown = "\n".join(evidence.figure_section(found))
    assert "| a | 5 | 0.000 | 1.000 | +1.000 |" in shown
