"""The pages of trained tiny models: equal to their results, from recipes with one budget, from runs made once."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from benchmarks.pages import families, relation, trainings

from ssan.models.catalogue import FAMILIES, NETWORKS
from ssan.recipe import Recipe, read_recipe
from ssan.recognition.score_file import write_scores
from ssan.recognition.train import complete
from ssan.reproduce.plan import Data, recipe_of
from ssan.shipped import shipped


def row(**changes: Any) -> dict[str, Any]:
    """A run on the order task: 300 test videos, 139 answers in the right pair, 75 of these in the right direction."""
    plain = {
        "task": "order", "family": "tsn", "seed": 0, "epochs": 8, "top1": 0.25, "pair_top1": 139 / 300,
        "within_pair_top1": 75 / 139, "reversed_top1": 0.25, "shuffled_top1": 0.25, "reversed_same_prediction": 1.0,
        "last_train_loss": 1.375, "num_train": 1400, "num_test": 300,
    }  # fmt: skip
    return plain | changes


@pytest.mark.parametrize("script", [families, relation])
def test_a_page_is_what_its_results_give(script: Any) -> None:
    written = script.PAGE.read_text(encoding="utf-8")
    assert written == script.page(), f"run `python -m {script.__name__}` and commit what it wrote"


def test_the_head_names_tests_that_there_are() -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", families.HEAD.read_text(encoding="utf-8"))
    assert len(named) == 3
    for file, test in named:
        assert f"def {test}(" in (families.ROOT / file).read_text(encoding="utf-8")


@pytest.mark.parametrize("task", families.TASKS)
def test_every_family_has_a_recipe_for_each_task_and_recipes_of_a_task_differ_in_the_model_alone(task: str) -> None:
    assert set(families.TITLES) | families.LEFT_OUT == set(FAMILIES)
    assert {FAMILIES[family].layer for family in families.LEFT_OUT} == {FAMILIES["nl3d"].layer}
    recipes = {family: read_recipe(shipped()[f"{task}/{family}_tiny"]) for family in families.TITLES}
    assert {name: recipe.model for name, recipe in recipes.items()} == {name: f"{name}_tiny" for name in recipes}
    for key in Recipe.model_fields:
        if key != "model":
            assert len({repr(getattr(recipe, key)) for recipe in recipes.values()}) == 1, key
    small = {network.small for network in NETWORKS.values() if network.small}
    for name in small:  # of its kind's frames, and otherwise alike
        whole, of_network = recipes["tsn"].model_dump(), read_recipe(shipped()[f"{task}/{name}"]).model_dump()
        assert of_network["model"] == name
        assert {key for key in whole if whole[key] != of_network[key]} <= {"model", "num_frames"}
    there = [name.removeprefix(f"{task}/") for name in shipped() if name.startswith(f"{task}/")]
    others = [f"{task}/{name}" for name in there if name not in small and name.removesuffix("_tiny") not in recipes]
    assert others == (["relation/ssan_without_space_tiny"] if task == "relation" else [])
    for name in others:
        whole, part = recipes["ssan"].model_dump(), read_recipe(shipped()[name]).model_dump()
        assert [key for key in whole if whole[key] != part[key]] == ["layer"]


def test_a_run_is_above_guessing_where_its_whole_interval_is() -> None:
    """139 of 300 have the interval 0.408 to 0.520, 117 one from 0.337, 115 one from 0.330; guessing gives 0.333."""
    for num_right, expected in [(139, True), (117, True), (115, False), (60, False)]:
        assert families.above_chance(row(pair_top1=num_right / 300), "pair_top1") is expected
    # 80 of the 139 in the right pair have an interval from 0.492, as of 300 it would be from 0.519; 85 one from 0.528.
    assert not families.above_chance(row(within_pair_top1=80 / 139), "within_pair_top1")
    assert families.above_chance(row(within_pair_top1=85 / 139), "within_pair_top1")
    assert not families.above_chance(row(pair_top1=0.0, within_pair_top1=None), "within_pair_top1")


def test_a_section_has_a_line_a_run_says_what_holds_and_leaves_blank_what_was_not_run() -> None:
    told = {"within_pair_top1": 0.9, "reversed_top1": 0.05, "top1": 0.875}
    rows = [row(), row(family="ssan", seed=1), row(family="ssan", **told), row(family="ssan", seed=2, **told)]
    rows.append(row(family="a2", pair_top1=0.25, within_pair_top1=None, task="relation"))
    lines = families.section("order", rows).splitlines()
    tsn = "| TSN | no | 0 | 8 | 0.250 | 0.463 | 0.540 | 0.250 | 0.250 | 1.000 | 1.375 |"
    ssa = [text for text in lines if text.startswith("| SSA |")]
    assert tsn in lines
    assert [text.split("|")[3:6] for text in ssa] == [
        [" 0 ", " 8 ", " 0.875 "], [" 1 ", " 8 ", " 0.250 "], [" 2 ", " 8 ", " 0.875 "],
    ]  # fmt: skip
    assert "| double attention | no |  |  |  |  |  |  |  |  |  |" in lines
    assert "- Right pair above guessing: TSN; SSA." in lines
    assert "- Direction within it above guessing: SSA in 2 of 3 runs." in lines
    assert "- Reversed and shuffled frames with the very accuracy of frames in order: TSN; SSA in 1 of 3 runs." in lines
    assert "Guessing gives 0.167 top-1, 0.333 right pairs and 0.500 right directions" in "\n".join(lines)


def test_a_run_is_trained_and_evaluated_once_and_its_figures_are_those_of_its_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Labels 0 1 2 3 3, answers 0 0 3 1 3: four in the right pair, two of them right."""
    commands: list[tuple[str, ...]] = []
    out = tmp_path / "run"

    def ssan(*arguments: str) -> str:
        commands.append(arguments)
        if arguments[0] == "eval":
            scores = np.eye(4)[[0, 0, 3, 1, 3]]
            np.savez(out / "test.npz", scores=scores, labels=np.array([0, 1, 2, 3, 3]), class_names=np.array([*"abcd"]))
            probe = {"reversed_top1": 0.2, "shuffled_top1": 0.6, "reversed_same_prediction": 0.8}
            return json.dumps({"top1": 0.4, "num_scored": 5, "probe": probe})
        out.mkdir()
        events: list[dict[str, Any]] = [{"event": "start", "num_train": 7}, {"event": "start", "num_train": 7}]
        # The first epoch is there twice, as after a resumption: the later counts.
        losses = [(0, 3.0, 2.0), (0, 2.5, 1.0), (1, 1.5, 0.5)]
        events += [{"event": "epoch", "epoch": e, "train_loss": loss, "seconds": s} for e, loss, s in losses]
        (out / "journal.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
        return ""

    monkeypatch.setattr(trainings, "ssan", ssan)
    for _ in range(2):
        found = trainings.train_and_evaluate("order/tsn_tiny", tmp_path / "data", out, 3, "epochs=2")
        assert found == {
            "top1": 0.4, "pair_top1": 0.8, "within_pair_top1": 0.5, "reversed_top1": 0.2, "shuffled_top1": 0.6,
            "reversed_same_prediction": 0.8, "last_train_loss": 1.5, "num_train": 7, "num_test": 5, "epochs": 2,
            "train_seconds": 1.5,
        }  # fmt: skip
    assert [command[0] for command in commands] == ["train", "eval"]
    assert commands[0][-1] == "epochs=2"
    assert {"order/tsn_tiny", "--resume", "3"} <= set(commands[0])
    assert {"--probe", "test", "3"} <= set(commands[1])


def test_rows_are_written_one_by_one_and_a_new_row_takes_the_place_of_the_old(tmp_path: Path) -> None:
    results = tmp_path / "results.json"
    before = [{"family": "tsn", "seed": 0, "top1": 0.1}, {"family": "a2", "seed": 0, "top1": 0.2}]
    results.write_text(json.dumps({"schema": 1, "runs": before}))

    def run(family: str, seed: int) -> dict[str, Any]:
        if family == "trn":
            raise OSError("the disk is full")
        return {"top1": 0.5}

    with pytest.raises(OSError, match="disk"):
        trainings.run_all(results, ("family", "seed"), [("tsn", 0), ("tsn", 1), ("trn", 0)], run, jobs=1)
    assert trainings.rows_of(results) == [
        {"family": "tsn", "seed": 0, "top1": 0.5}, before[1], {"family": "tsn", "seed": 1, "top1": 0.5},
    ]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("family", families.TITLES)
@pytest.mark.parametrize("task", families.TASKS)
def test_a_small_row_of_a_table_is_trained_as_the_recipe_of_its_family_says(task: str, family: str) -> None:
    small = recipe_of(families.table_row(family), Data(task, (), "test", task), (), mini="tiny")
    assert small is not None
    assert complete(small).model_dump() == complete(read_recipe(shipped()[f"{task}/{family}_tiny"])).model_dump()
    assert families.budget(task) == small.epochs


def make_run(work: Path, task: str, family: str, seed: int, *, done: bool = True) -> None:
    """Labels 0 1 2 3 3, answers 0 0 3 1 3: four in the right pair, two of them right; three epochs of training."""
    (run,) = [run for run in families.runs(work, task, family) if run.seed == seed]
    recipe = complete(run.recipe).model_dump()
    made_by = {"ssan": "0.5.7", "ssan_commit": "abc"}
    events: list[dict[str, Any]] = [{"event": "start", "recipe": recipe, "num_train": 7, "num_skipped": 0}]
    events[0] |= {"environment": made_by}
    events += [{"event": "epoch", "epoch": n, "train_loss": 3.0 - n, "seconds": 1.0} for n in range(3)]
    protocol = {"split": "test", "views": 1, "crops": 1, "average": "logits"}
    if done:
        probe = {"reversed_top1": 0.2, "shuffled_top1": 0.6, "reversed_same_prediction": 0.8}
        answer = {"top1": 0.4, "top5": 1.0, "num_scored": 5, "num_missing": 0, "num_failed": 0}
        events += [{"event": "end"}, {"event": "evaluated", "protocol": protocol, "split": "test", "probe": probe}]
        events[-1] |= answer
    (run.folder / "journal.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    scores = np.eye(4, dtype=np.float32)[[0, 0, 3, 1, 3]]
    write_scores(run.folder / "scores.npz", [*"vwxyz"], scores, np.array([0, 1, 2, 3, 3]), [*"abcd"], protocol)


@pytest.mark.slow
def test_rows_come_from_finished_runs_of_every_seed_and_replace_earlier_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = [row(family="tsm", seed=2), row(family="a2", top1=0.125), row(family="tsn", seed=5)]
    monkeypatch.setattr(families, "RESULTS", tmp_path / "families.json")
    families.RESULTS.write_text(json.dumps({"schema": 1, "runs": before}))
    for name, seed, done in [("tsm_tiny_8f", 0, False), ("tsm_tiny_8f", 2, True), ("tsn_tiny_8f", 0, True)]:
        (tmp_path / "runs" / "order" / name / f"seed_{seed}").mkdir(parents=True)
        make_run(tmp_path, "order", name.split("_")[0], seed, done=done)
    families.write_results(tmp_path)
    found = {(one["family"], one["seed"]): one for one in trainings.rows_of(families.RESULTS)}
    assert list(found) == [("tsn", 0), ("tsn", 5), ("a2", 0), ("tsm", 2)]
    assert [found["a2", 0], found["tsn", 5]] == before[1:]
    assert found["tsm", 2] == {
        "task": "order", "family": "tsm", "seed": 2, "epochs": 3, "top1": 0.4, "pair_top1": 0.8,
        "within_pair_top1": 0.5, "reversed_top1": 0.2, "shuffled_top1": 0.6, "reversed_same_prediction": 0.8,
        "last_train_loss": 1.0, "num_train": 7, "num_test": 5, "version": "0.5.7", "commit": "abc",
    }  # fmt: skip


def test_what_is_lacking_is_made_by_the_tables_that_the_families_are_rows_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Any] = []
    monkeypatch.setattr(
        families, "rendered", lambda work, tasks, workers: [Data(task, (), "test", task) for task in tasks]
    )
    monkeypatch.setattr(families, "reproduce_table", lambda order: made.append(order) or {"failed": []})
    assert families.train(tmp_path, ["order"], ["tsn", "ssan", "a2", "trn"], 2, families.Execution()) == 0
    assert [(order.table.name, [one.name for one in order.rows]) for order in made] == [
        ("table1", ["tsn", "trn"]), ("table2", ["ssa"]), ("table4", ["a2"]),
    ]  # fmt: skip
    for order in made:
        assert (order.out, order.mini, order.seeds) == (tmp_path, "tiny", 2)
        assert [data.name for data in order.data] == ["order"]


def test_what_relation_trained_stands_in_for_runs_that_are_lacking(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = [row(family=family, task="relation", seed=2, top1=0.5) for family in ("trn", "tsn")]
    theirs = {key: value for key, value in row().items() if key not in ("task", "family", "seed")}
    far, other = {"level": "cue_far_colours"}, {"level": "cue_far_three"}
    variants = [
        far | {"variant": "tsm_tiny", "seed": 2},
        far | {"variant": "tsn_tiny", "seed": 2},
        far | {"variant": "tsn_tiny", "seed": 1},
        far | {"variant": "ssan_without_space_tiny", "seed": 2},
        other | {"variant": "tsn_tiny", "seed": 3},
    ]
    for name, script, rows in [("f", families, own), ("r", relation, [theirs | variant for variant in variants])]:
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps({"schema": 1, "runs": rows}))
        monkeypatch.setattr(script, "RESULTS", path)
    found = families.all_rows()
    assert [(one["family"], one["seed"], one["top1"]) for one in found] == [
        ("trn", 2, 0.5), ("tsn", 2, 0.5), ("tsm", 2, 0.25), ("tsn", 1, 0.25),
    ]  # fmt: skip
    assert {one["task"] for one in found} == {"relation"}
