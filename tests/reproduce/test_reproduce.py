"""The paper's tables: every row's recipe, its small network, its figures out of journals, and the page about them."""

import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.forked import ForkedCommand

from ssan.commands import CommandRunner
from ssan.errors import UsageError
from ssan.models.catalogue import NETWORKS, without_memory
from ssan.models.cost import multiply_adds, num_parameters
from ssan.recipe import Recipe, read_recipe
from ssan.recognition.score_file import write_scores
from ssan.recognition.train import complete
from ssan.reproduce.plan import Data, network_name, recipe_of
from ssan.reproduce.recognition import ClassifierRun, RecognitionRequest, runs_of
from ssan.reproduce.results import difference, over_seeds
from ssan.reproduce.table import collect, write
from ssan.reproduce.tables import TABLES, Row, Table
from ssan.shipped import shipped
from ssan.training.journal import Journal
from ssan.weights.classifier_file import build_from

ORDER = Data("order", ("--data", "videos"), "test", "order")
MEASURES = RecognitionRequest.measures
ROWS = [(table, row) for table in TABLES.values() for row in table.rows]
TRAINED = [(table, row) for table, row in ROWS if row.recipe]


def named(pair: tuple[Table, Row]) -> str:
    return f"{pair[0].name}-{pair[1].name}"


@cache
def _cost(recipe: str, num_classes: int) -> dict[str, int]:
    whole = Recipe.model_validate_json(recipe)
    with without_memory():
        model = build_from(whole, num_classes)
    return {"params": num_parameters(model), "macs": multiply_adds(model, whole.num_frames, whole.crop_px or 0)}


def cost_of(recipe: Recipe, num_classes: int) -> dict[str, int]:
    """Of a recipe's network; counted once for recipes that differ in their epochs alone."""
    return _cost(recipe.model_copy(update={"epochs": 1}).model_dump_json(), num_classes)


def test_the_papers_figures_are_those_of_its_tables() -> None:
    """Typed once more from the paper, in percent, as it prints them."""
    printed = {
        "table1": {"tsn": 19.5, "trn": 34.4, "tsm_8f": 45.6, "tsm_16f": 47.2, "tsm_en": 49.7, "ssa_8f": 49.5,
                   "ssa_16f": 51.7, "ssa_en": 55.1},
        "table2": {"nl3d": 60.6, "nl2d": 60.3, "nl1d": 60.1, "nl2d1d": 61.0, "ssa": 62.3},
        "table3": {"tsn": 31.9, "trn": 48.8, "tsm_8f": 59.1, "tsm_16f": 63.4, "ssa_8f": 62.3, "ssa_16f": 66.0,
                   "ssa_en": 67.4},
        "table4": {"tsn": 70.6, "tsm_8f": 74.1, "a2": 74.6, "nl_i3d_128f": 76.5, "ssa_8f": 75.8, "ssa_16f": 76.4,
                   "ssa_en": 77.5},
        "table5": {"none": 61.0, "sa": 61.5, "sa_sve": 61.4, "sa_sve_ta": 62.3},
        "table6": {"res2": 61.2, "res3": 61.8, "res2_res3": 62.3},
    }  # fmt: skip
    for name, rows in printed.items():
        for row, percent in rows.items():
            assert TABLES[name].row(row).top1 == pytest.approx(percent / 100)
    assert [TABLES["table1"].row(name).top5 for name in ("ssa_8f", "ssa_16f", "ssa_en")] == [0.795, 0.813, 0.849]
    assert [TABLES["table4"].row(name).top5 for name in ("ssa_8f", "ssa_16f", "ssa_en")] == [0.924, 0.927, 0.933]


def num_frames_of(row: Row) -> int:
    """Of a row as the paper says it: 8, 16x2 or, which is the same, 16+16; of C3D it says none, and ARTNet 16."""
    if row.frames == "-":
        return 16
    return math.prod(map(int, row.frames.split("x"))) if "x" in row.frames else sum(map(int, row.frames.split("+")))


@pytest.mark.slow
@pytest.mark.parametrize("pair", TRAINED, ids=named)
def test_a_rows_recipe_is_of_its_frames_and_tells_the_papers_figure(pair: tuple[Table, Row]) -> None:
    table, row = pair
    recipe = recipe_of(row, Data(table.format, (), "val"), (), mini=None)
    assert recipe is not None
    assert recipe.num_frames == num_frames_of(row)
    head = "".join(line for line in shipped()[row.recipe or ""].read_text().splitlines() if line.startswith("#"))
    if row.top1 is not None:
        assert re.search(rf"\b{100 * row.top1:.1f}\b", head), "the recipe's head says which figure is expected"
    assert recipe.epochs == (200 if table.format == "kinetics400" else 80)
    with without_memory():
        build_from(complete(recipe), 7)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in shipped() if re.match("table[1-6]/", name)])
def test_the_cost_in_a_recipes_head_is_its_networks(name: str) -> None:
    head = shipped()[name].read_text(encoding="utf-8")
    found = re.search(r"# Cost: ([\d.]+) M parameters, ([\d.]+) G multiply-adds a clip; ([\d.]+)e18 in all", head)
    assert found, "how much work a run is stands in its recipe"
    recipe = complete(read_recipe(shipped()[name]))
    num_classes = 400 if name.startswith("table4/") else 174
    cost = cost_of(recipe, num_classes)
    assert float(found[1]) == round(cost["params"] / 1e6, 2)
    assert float(found[2]) == round(cost["macs"] / 1e9, 1)
    videos = {"table1": 86_017, "table4": 240_000}.get(name.split("/")[0], 168_913)
    assert float(found[3]) == round(3 * cost["macs"] * videos * recipe.epochs / 1e18, 2)
    assert f"ssan train --recipe {name} --data" in head


@pytest.mark.slow
@pytest.mark.parametrize("pair", TRAINED, ids=named)
def test_a_small_network_has_the_layer_options_and_frames_of_its_row(pair: tuple[Table, Row]) -> None:
    table, row = pair
    full = recipe_of(row, Data(table.format, (), "val"), (), mini=None)
    small = recipe_of(row, ORDER, (), mini="tiny")
    assert full is not None
    if small is None:
        assert row.name in ("res5", "every_second"), "the small network has three stages of one block each"
        return
    if full.model in NETWORKS:
        assert small.model == NETWORKS[full.model].small
        assert small.num_frames == NETWORKS[small.model].num_frames
        return
    assert small.model.rpartition("_")[0] == full.model.rpartition("_")[0]
    assert small.num_frames == full.num_frames
    options = {key: value for key, value in full.layer.items() if key != "identity_start"}
    if not full.model.startswith("trn_"):
        assert {key: value for key, value in small.layer.items() if key != "identity_start"} == options
    assert small.places == full.places
    task = read_recipe(shipped()["order/ssan_tiny"])
    for key in ("epochs", "lr", "optimizer", "batch", "size_px", "crop_px", "flip", "schedule"):
        assert getattr(small, key) == getattr(task, key), "what the folder's recipes have in common"
    with without_memory():
        build_from(complete(small), 6)


# Rows that differ in what their small network does not have: backbone, depth, frames of a network whole by itself.
ONE_WHEN_SMALL = [
    {"blvnet_r50", "blvnet_r101"}, {"blvnet_8", "blvnet_16", "blvnet_24"}, {"tsn", "tsn_bninception"},
    {"trn", "trn_bninception"}, {"nl_i3d_8f", "nl_i3d_128f"},
]  # fmt: skip


@pytest.mark.slow
def test_every_network_is_one_run_whatever_table_it_stands_in() -> None:
    def folders(name: str) -> dict[str, str]:
        rows = TABLES[name].rows
        return {
            row.name: run[0].folder.parent.name for row in rows if (run := runs_of(row, ORDER, 1, Path(), mini="tiny"))
        }

    tables = {name: folders(name) for name in TABLES}
    ssa = {tables["table2"]["ssa"], tables["table1"]["ssa_8f"], tables["table5"]["sa_sve_ta"]}
    assert ssa | {tables["table6"]["res2_res3"], tables["choices"]["ssa"]} == {"ssan_tiny_8f"}
    assert tables["table5"]["none"] == tables["table2"]["nl2d1d"] == "nl2d1d_tiny_8f"
    assert tables["table5"]["sve_ta"] == tables["choices"]["no_channels"]
    for name, rows in tables.items():
        for folder in set(rows.values()):
            alike = {row for row in rows if rows[row] == folder}
            assert len(alike) == 1 or alike in ONE_WHEN_SMALL, f"two rows of {name} are one network: {alike}"
    recipes = {}
    for _, row in TRAINED:
        recipe = recipe_of(row, ORDER, (), mini="tiny")
        if recipe is not None:
            assert recipes.setdefault(network_name(recipe), recipe) == recipe, "one folder, two recipes"


def test_a_start_from_weights_is_the_identity_and_the_choice_is_the_other_one() -> None:
    row, data = TABLES["choices"].row("start"), Data("sthv2", (), "val")
    full, small = recipe_of(row, data, (), mini=None), recipe_of(row, ORDER, (), mini="tiny")
    assert full is not None
    assert small is not None
    assert (full.layer["identity_start"], small.layer["identity_start"]) == (False, True)


def test_overrides_reach_every_recipe() -> None:
    runs = runs_of(
        TABLES["table2"].row("ssa"), ORDER, 2, Path("out"), ["epochs=3", "layer.pool_keys=true"], mini="tiny"
    )
    assert [run.recipe.epochs for run in runs] == [3, 3]
    assert [run.seed for run in runs] == [0, 1]
    assert runs[0].recipe.layer["pool_keys"] is True
    assert runs[1].folder == Path("out/runs/order/ssan_tiny_8f_pool_keys-true/seed_1")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["table9", "--mini"], "unknown table 'table9'"),
        (["table2"], "table2 wants its data: name them with --data (format sthv2), or add --mini"),
        (["table2", "--mini", "--rows", "nl3d,ssan"], "--rows of table2: unknown row 'ssan'. Did you mean 'ssa'?"),
        (["table2", "--mini", "--tasks", "ordr"], "--tasks: there is no task 'ordr'; expected order or relation"),
        (["table2", "--mini", "--tasks", ","], "--tasks names none; expected order or relation"),
        (["table2", "--mini", "layer.similarity_scale=1"], "similarity_scale"),
        (["table2", "--data", "nowhere"], "nowhere: no Something-Something V2 annotations here"),
        (
            ["table1", "--mini", "--rows", "nl_i3d_gcn"],
            "none of the rows can be trained here: nl_i3d_gcn; choose others with --rows",
        ),
        (["table2", "--mini", "epoch=2"], "unknown key 'epoch'. Did you mean 'epochs'?"),
        (["table2", "--mini", "--backbone", "r19"], "unknown backbone 'r19'. Did you mean 'r18'?"),
    ],
)
def test_a_mistake_is_told_before_the_work(tmp_path: Path, ssan: Any, given: list[str], said: str) -> None:
    answer = ssan("reproduce", *given, "--videos-per-task", "60", "--out", tmp_path / "out")
    assert answer.code == 2
    assert said in answer.err
    assert not (tmp_path / "out").exists()


# ------------------------------------------------------------------------------- figures out of journals made by hand


def made_run(
    out: Path, row: str, seed: int, scores: np.ndarray, labels: list[int], *, minutes: float = 1.0
) -> ClassifierRun:
    """A finished run of table 2 on the order task, as its journal and its score file would be."""
    run = runs_of(TABLES["table2"].row(row), ORDER, seed + 1, out, mini="tiny")[seed]
    classes = [f"class {n}" for n in range(scores.shape[1])]
    protocol = {
        "split": "test", "num_frames": 8, "sampling": "segment", "views": 1, "crops": 1, "resize": "square",
        "size_px": 48, "crop_px": 48, "average": "logits",
    }  # fmt: skip
    journal = Journal(run.folder)
    recipe = json.loads(complete(run.recipe).model_dump_json())
    cost = {"params": 12345, "macs": 67890}
    journal.record("start", recipe=recipe, num_train=70, num_skipped=0, processes=1, cost=cost)
    for epoch in (1, 2):
        journal.record("epoch", epoch=epoch, train_loss=1 / epoch, val_top1=epoch / 4, seconds=30 * minutes)
    journal.record("end")
    right = scores.argmax(axis=1) == np.array(labels)
    journal.record(
        "evaluated", split="test", protocol=protocol, top1=float(right.mean()), top5=1.0, num_scored=len(labels),
        num_missing=0, num_failed=0, probe={"reversed_top1": 0.25, "shuffled_top1": 0.5},
    )  # fmt: skip
    write_scores(run.folder / "scores.npz", [str(n) for n in range(len(labels))], scores, labels, classes, protocol)
    return run


def scores_of(answers: list[int], num_classes: int = 4) -> np.ndarray:
    return np.eye(num_classes)[answers] * 3.0


LABELS = [0, 0, 1, 1, 2, 3, 2, 3]


def test_figures_of_a_run_are_those_of_its_journal_and_scores(tmp_path: Path) -> None:
    # Right, right direction wrong, right, another pair; then three right and one direction wrong.
    run = made_run(tmp_path, "ssa", 0, scores_of([0, 1, 1, 2, 2, 3, 3, 3]), LABELS, minutes=2.5)
    figures = run.figures()
    assert figures is not None
    assert figures["top1"] == 5 / 8
    assert figures["pair_top1"] == 7 / 8
    assert figures["within_pair_top1"] == 5 / 7
    assert figures["train_seconds"] == 150.0
    assert (figures["params"], figures["macs"], figures["epochs"]) == (12345, 67890, 2)
    assert (figures["reversed_top1"], figures["last_train_loss"]) == (0.25, 0.5)


@pytest.mark.parametrize("what", ["no journal", "no end", "no scores", "another split", "another protocol"])
def test_a_run_that_is_not_finished_has_no_figures(tmp_path: Path, what: str) -> None:
    run = made_run(tmp_path, "ssa", 0, scores_of(LABELS), LABELS)
    journal = run.folder / "journal.jsonl"
    assert run.evaluation() is not None
    if what == "no journal":
        journal.unlink()
    elif what == "no end":
        journal.write_text(journal.read_text().replace('"event": "end"', '"event": "interrupted"'))
    elif what == "no scores":
        (run.folder / "scores.npz").unlink()
    elif what == "another split":
        journal.write_text(journal.read_text().replace('"split": "test"', '"split": "val"'))
    else:
        journal.write_text(journal.read_text().replace('"views": 1', '"views": 10'))
    assert run.evaluation() is None
    assert run.figures() is None


def test_a_run_by_another_recipe_is_not_taken_for_it(tmp_path: Path) -> None:
    run = made_run(tmp_path, "ssa", 0, scores_of(LABELS), LABELS)
    journal = run.folder / "journal.jsonl"
    first, *rest = journal.read_text().splitlines(keepends=True)
    start = json.loads(first)

    def rewritten(recipe: object) -> bool:
        journal.write_text(json.dumps({**start, "recipe": recipe}) + "\n" + "".join(rest))
        return run.evaluation() is not None

    used = start["recipe"]
    older = {key: value for key, value in used.items() if key != "ema"}
    assert rewritten({**older, "a_key_of_later_times": 3}), "a version that lacked a key did as its default says"
    assert not rewritten({**used, "epochs": 3})
    assert not rewritten({key: value for key, value in used.items() if key != "epochs"})
    assert not rewritten({})
    assert not rewritten(None)


def test_mean_and_spread_over_seeds_by_hand() -> None:
    summary = over_seeds(
        [{"top1": 0.5, "top5": 0.9}, {"top1": 0.7, "top5": 0.9}, {"top1": 0.9, "top5": None}], MEASURES
    )
    assert summary["num_seeds"] == 3
    assert summary["top1"] == pytest.approx(0.7)
    assert summary["top1_std"] == pytest.approx(0.2)
    assert (summary["top5"], summary["top5_std"]) == (pytest.approx(0.9), 0.0)
    assert (summary["pair_top1"], summary["pair_top1_std"]) == (None, None)
    assert over_seeds([{"top1": 0.5}], MEASURES)["top1_std"] is None


def test_a_difference_is_paired_by_seed_and_its_interval_students() -> None:
    """Differences 0.1, 0.2, 0.3: mean 0.2, deviation 0.1, t of two degrees 4.303, so 0.2 +- 4.303 * 0.1 / sqrt(3)."""
    ours = [{"seed": seed, "top1": top1} for seed, top1 in ((0, 0.6), (1, 0.8), (2, 1.0), (5, 0.1))]
    theirs = [{"seed": seed, "top1": top1} for seed, top1 in ((2, 0.7), (1, 0.6), (0, 0.5), (4, 0.9))]
    found = difference(ours, theirs)
    assert found["num_seeds"] == 3
    assert found["mean"] == pytest.approx(0.2)
    assert found["high"] == pytest.approx(0.2 + 4.303 * 0.1 / math.sqrt(3))
    assert found["low"] == pytest.approx(0.2 - 4.303 * 0.1 / math.sqrt(3))
    assert difference(ours[:1], theirs)["low"] is None
    assert difference([], theirs)["mean"] is None


@pytest.mark.slow
def test_the_page_has_ours_beside_the_papers_and_blanks(tmp_path: Path) -> None:
    made_run(tmp_path, "ssa", 0, scores_of(LABELS), LABELS)
    made_run(tmp_path, "ssa", 1, scores_of([0, 0, 1, 1, 2, 3, 2, 0]), LABELS)
    table = TABLES["table2"]
    order = RecognitionRequest(table, table.chosen(["ssa", "nl3d"]), [ORDER], tmp_path, seeds=1, mini="tiny")
    answer = write(order, [])
    ssa = answer["data"][0]["rows"][-1]
    assert ssa["num_seeds"] == 2, "a seed finished earlier counts, though this call asks for one"
    assert ssa["top1"] == pytest.approx((1 + 7 / 8) / 2)
    assert [row["top1"] for row in answer["data"][0]["rows"][:4]] == [None] * 4
    page = (tmp_path / "table2-mini.html").read_text(encoding="utf-8")
    cells = [re.sub("<[^>]+>", "", cell).strip() for cell in re.findall("<td[^>]*>(.*?)</td>", page, re.S)]
    at = cells.index("SSA")
    assert cells[at : at + 8] == [
        "SSA",
        "8",
        "62.3",
        "93.8 ± 8.8",
        "93.8 ± 8.8",
        "100.0 ± 0.0",
        "25.0 ± 0.0",
        "50.0 ± 0.0",
    ]
    at = cells.index("3D NL")
    assert cells[at : at + 12] == ["3D NL", "8", "60.6", *[""] * 9]
    assert 'href="runs/order/ssan_tiny_8f/seed_1/journal.jsonl"' in page
    assert "http" not in page.replace("http://www.w3.org", "")
    assert json.loads((tmp_path / "table2-mini.json").read_text())["data"][0]["rows"][-1]["top1"] == ssa["top1"]


# ------------------------------------------------------------------------------------------------- commands, for real


@pytest.mark.slow
def test_a_command_that_fails_is_told_with_its_last_words(tmp_path: Path) -> None:
    with pytest.raises(
        Exception, match=r"`ssan eval` ended with status 2: .*no such model file.*Look at the log; run it again"
    ):
        CommandRunner().run("eval", str(tmp_path / "none"), "--data", str(tmp_path), log=tmp_path / "logs" / "a.log")


@pytest.mark.slow
@pytest.mark.usefixtures("forked_commands")
def test_a_table_is_trained_evaluated_added_up_and_not_made_twice(tmp_path: Path, ssan: Any) -> None:
    words = (
        "reproduce", "table1", "--mini", "--rows", "tsm_en", "--tasks", "order", "--videos-per-task", "60", "--out",
        tmp_path, "--json", "--jobs", "2", "size_px=32", "crop_px=32", "epochs=1",
    )  # fmt: skip
    answer = ssan(*words)
    assert answer.code == 0, answer.err
    rows = {row["row"]: row for row in answer.json["data"][0]["rows"]}
    assert [rows[name]["num_seeds"] for name in ("tsm_8f", "tsm_16f", "tsm_en", "ssa_8f")] == [1, 1, 1, 0]
    assert rows["tsm_16f"]["seeds"][0]["protocol"]["num_frames"] == 16
    assert 0 <= rows["tsm_en"]["top1"] <= 1
    added = [np.load(tmp_path / "runs" / "order" / f"tsm_tiny_{n}f" / "seed_0" / "scores.npz") for n in (16, 8)]
    both = np.load(rows["tsm_en"]["seeds"][0]["scores"])
    assert (
        np.argmax(both["scores"], axis=1).tolist()
        == np.argmax(
            sum(one["scores"][np.argsort(one["ids"])] for one in added)[np.argsort(np.argsort(both["ids"]))], axis=1
        ).tolist()
    )
    journal = tmp_path / "runs" / "order" / "tsm_tiny_8f" / "seed_0" / "journal.jsonl"
    assert 'href="runs/order/tsm_tiny_8f/seed_0/report.html"' in Path(answer.json["page"]).read_text(encoding="utf-8")
    before = journal.read_bytes()
    again = ssan(*words)
    assert journal.read_bytes() == before
    assert again.json["data"] == answer.json["data"]
    other = ssan(*words[:-1], "epochs=2")
    assert other.code == 1, "runs of one epoch are no runs of two"
    assert "epochs 1 is now 2" in other.json["failed"][0]["message"]
    assert journal.read_bytes() == before


@pytest.mark.slow
def test_told_to_stop_it_stops_its_trainings_with_their_states_and_goes_on(tmp_path: Path) -> None:
    command = [
        sys.executable, "-m", "ssan", "reproduce", "table2", "--mini", "--rows", "ssa", "--tasks", "order", "--out",
        str(tmp_path), "--videos-per-task", "60", "size_px=32", "crop_px=32", "epochs=400",
    ]  # fmt: skip
    process = ForkedCommand(command, stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    journal = tmp_path / "runs" / "order" / "ssan_tiny_8f" / "seed_0" / "journal.jsonl"
    until = time.monotonic() + 90
    while not (journal.exists() and '"epoch"' in journal.read_text()):
        assert time.monotonic() < until
        assert process.poll() is None
        time.sleep(0.005)
    process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 130, said
    assert "Traceback" not in said
    assert "stopped; what is done is kept in" in said
    assert (journal.parent / "last" / "state.ckpt").exists()
    epochs = journal.read_text().count('"event": "epoch"')
    time.sleep(0.5)
    assert journal.read_text().count('"event": "epoch"') == epochs, "the training it had started goes on"


def test_collecting_reads_and_changes_nothing(tmp_path: Path) -> None:
    run = made_run(tmp_path, "nl2d", 0, scores_of(LABELS), LABELS)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    table = TABLES["table2"]
    found = collect(RecognitionRequest(table, list(table.rows), [ORDER], tmp_path, mini="tiny"), ORDER)
    assert next(row for row in found["rows"] if row["row"] == "nl2d")["seeds"][0]["run"] == str(run.folder)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_a_table_without_that_row_says_so() -> None:
    with pytest.raises(UsageError, match="unknown row 'ssa_9f'"):
        TABLES["table1"].chosen(["ssa_9f"])
    assert [row.name for row in TABLES["table1"].chosen(["ssa_en"])] == ["ssa_8f", "ssa_16f", "ssa_en"]
