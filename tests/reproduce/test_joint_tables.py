"""Tables 7 and 8: the paper's figures, runs that go on where they stopped, and a page with blanks."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ssan.errors import UsageError
from ssan.recipe import read_retrieval_recipe
from ssan.reproduce.joint_tables import JOINT_TABLES
from ssan.reproduce.plan import Data
from ssan.reproduce.retrieval import RetrievalInputs, RetrievalRequest, small_captions
from ssan.reproduce.runs import Execution
from ssan.reproduce.table import collect, reproduce_table, write
from ssan.shipped import shipped
from ssan.training.journal import Journal

TRAINED = [(table, row) for table in JOINT_TABLES.values() for row in table.rows if row.recipe]


def order(out: Path, table: str = "table8", **more: Any) -> RetrievalRequest:
    found = JOINT_TABLES[table]
    return RetrievalRequest(found, found.chosen(None), [Data("data", (), found.split)], out, **more)


def test_the_papers_figures_are_those_of_its_tables() -> None:
    """Typed once more from the paper, in percent, as it prints them."""
    printed = {
        "table7": {"random": (0.1, 0.5), "c_lstm_sa": (4.2, 12.9), "vse_lstm": (3.8, 12.7), "kaufman": (4.7, 16.6),
                   "ct_san": (4.4, 16.6), "jsfusion": (10.2, 31.2), "resnext": (12.1, 35.0), "ssa": (24.4, 49.3)},
        "table8": {"random": (0.03, 0.15), "hglmm": (4.6, 14.3), "resnext": (4.2, 13.7),
                   "resnext_pretrained": (8.2, 24.5), "ssa": (5.5, 15.9), "ssa_pretrained": (10.9, 28.4)},
    }  # fmt: skip
    for name, rows in printed.items():
        there = {row.name: (row.r1, row.r5) for row in JOINT_TABLES[name].rows if row.r1 is not None}
        assert there == {row: pytest.approx((r1 / 100, r5 / 100)) for row, (r1, r5) in rows.items()}


@pytest.mark.parametrize(("table", "row"), TRAINED, ids=lambda part: part.name)
def test_a_rows_recipe_tells_the_papers_figure_and_takes_the_features_of_its_name(table: Any, row: Any) -> None:
    recipe = read_retrieval_recipe(shipped()[row.recipe])
    head = " ".join(line for line in shipped()[row.recipe].read_text().splitlines() if line.startswith("#"))
    if row.r1 is not None:
        assert re.search(rf"\b{100 * row.r1:.1f}\b", head)
        assert re.search(rf"\b{100 * row.r5:.1f}\b", head)
    assert row.name.split("_")[0] in recipe.features
    if row.pretraining:
        before = read_retrieval_recipe(shipped()[row.pretraining])
        assert (before.text, before.dim, before.features) == (recipe.text, recipe.dim, recipe.features)


def test_what_a_row_lacks_is_said_before_the_work(tmp_path: Path) -> None:
    asked = order(tmp_path)
    with pytest.raises(UsageError, match=r"row resnext wants features '2d': name them with --features 2d=PATH"):
        asked.check()
    asked.inputs = RetrievalInputs({"2d": "a", "resnext": "b", "ssa": "c"})
    with pytest.raises(UsageError, match=r"resnext_pretrained is pre-trained: name the features of the narrated"):
        asked.check()
    asked.inputs.narrated = asked.inputs.features
    with pytest.raises(UsageError, match="--narrations"):
        asked.check()
    asked.inputs.narrations = ("--captions", "list.csv")
    asked.check()


def finished(run: Any, r1: float, split: str) -> None:
    """A run's folder as training and evaluation leave it, as far as the table reads it."""
    journal = Journal(run.folder)
    journal.record("start", recipe=json.loads(run.recipe.model_dump_json()), num_train=70, cost={"params": 11})
    journal.record("epoch", epoch=1, seconds=3.0, val_mean_recall=r1)
    journal.record("end")
    way = {"r1": r1, "r5": r1 + 0.1, "r10": r1 + 0.2, "median_rank": 4.0, "mean_rank": 6.5}
    journal.record(
        "evaluated", split=split, text_to_video=way, video_to_text=way, num_queries=50, num_candidates=40,
        num_missing=0, protocol={"positives": "own", "tie_rule": "pessimistic"},
    )  # fmt: skip


@pytest.mark.slow
def test_figures_are_means_over_seeds_and_what_was_not_run_is_blank(tmp_path: Path) -> None:
    asked = order(tmp_path, seeds=2)
    for run, r1 in zip(asked.runs(asked.table.row("ssa"), asked.data[0]), (0.2, 0.3), strict=True):
        finished(run, r1, "val")
    rows = {found["row"]: found for found in collect(asked, asked.data[0])["rows"]}
    assert (rows["ssa"]["r1"], rows["ssa"]["num_seeds"]) == (pytest.approx(0.25), 2)
    assert rows["ssa"]["r1_std"] == pytest.approx(0.0707, abs=1e-4)
    assert rows["ssa_pretrained"]["r1"] is None
    shown = Path(write(asked, [])["page"]).read_text(encoding="utf-8")
    assert "25.0 ± 7.1" in shown
    assert "10.9" in shown  # the paper's, of a row that was not run
    assert "is blank. 50 captions of <i>val</i>, 40 candidates" in shown
    assert "told apart" not in shown  # no twins here


def test_a_run_by_another_recipe_or_on_another_split_is_not_taken_for_it(tmp_path: Path) -> None:
    asked = order(tmp_path)
    (run,) = asked.runs(asked.table.row("ssa"), asked.data[0])
    finished(run, 0.2, "val")
    assert run.figures() is not None
    (other,) = asked.runs(run.row, replace(asked.data[0], split="test"))
    assert other.figures() is None
    asked.overrides = ["epochs=3"]
    (other,) = asked.runs(run.row, asked.data[0])
    assert other.figures() is None


@pytest.mark.slow
@pytest.mark.usefixtures("forked_commands")
def test_the_small_table_is_trained_from_videos_to_recalls_and_not_made_twice(tmp_path: Path) -> None:
    def asked() -> RetrievalRequest:
        table = JOINT_TABLES["table7"]
        return RetrievalRequest(
            table, table.chosen(["ssa", "tsn"]), [small_captions(tmp_path)], tmp_path, mini="tiny",
            overrides=["epochs=1"], execution=Execution(jobs=2, device="cpu", workers=0, threads=1),
            classifier=["epochs=1"], num_videos=24,
        )  # fmt: skip

    answer = reproduce_table(asked(), quiet=True)
    assert answer["failed"] == []
    rows = {row["row"]: row for row in answer["rows"]}
    assert set(rows) >= {"random", "jsfusion", "ssa", "tsn"}
    assert "resnext" not in rows  # its features have no small version
    for name in ("ssa", "tsn"):
        (figures,) = rows[name]["seeds"]
        assert figures["num_queries"] == figures["num_candidates"] == 4
        assert 0 <= figures["r1"] <= figures["r5"] <= 1
        assert 0 <= figures["direction"] <= 1
        assert 0 <= figures["object"] <= 1
    shown = Path(answer["page"]).read_text(encoding="utf-8")
    assert "direction<br>told apart" in shown
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("model.safetensors")}
    assert len(before) == 4
    reproduce_table(asked(), quiet=True)
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("model.safetensors")}
