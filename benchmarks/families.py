"""Whether a small model of every family learns to tell what happens, and which way: the `order` and `relation` tasks.

    python benchmarks/families.py --work runs/families

Renders each task once, trains the tiny model of every family through the command line, one thread a run, evaluates on
the test split with the order probe, and writes benchmarks/results/families.json row by row and docs/families.md. Runs
that are finished are not repeated; one that was interrupted goes on. `--epochs 16` trains for another number of epochs
than the recipes, which makes rows of its own. What relation.py trains on the relation task is read from its results.
"""

import argparse
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import relation
from ssan.files import writing
from ssan.models.catalogue import FAMILIES
from ssan.recipe import read_recipe
from ssan.recognition.metrics import wilson_interval
from ssan.shipped import shipped
from tables import heading, line
from trainings import ROOT, render, rows_of, run_all, train_and_evaluate

RESULTS = ROOT / "benchmarks" / "results" / "families.json"
HEAD = ROOT / "docs" / "families.head.md"
PAGE = ROOT / "docs" / "families.md"
TITLES = {
    "tsn": "TSN",
    "nl3d": "non-local 3D",
    "nl2d": "non-local 2D",
    "nl1d": "non-local 1D",
    "nl2d1d": "non-local 2D, then 1D",
    "a2": "double attention",
    "tsm": "TSM",
    "trn": "TRN",
    "ssan": "SSA",
}
# The 3D block once more, in the places and with the settings of TSM's code, over single frames and over TSM: they are
# made of what other rows tell of.
LEFT_OUT = {"tsn_nl", "tsm_nl"}
KEY = ("task", "family", "seed", "epochs")
Row = dict[str, Any]


@dataclass(frozen=True)
class Task:
    """A set of rendered videos. Classes come in pairs that differ by direction alone."""

    level: str
    num_videos: int
    num_classes: int

    @property
    def chances(self) -> dict[str, float]:
        """What guessing gives."""
        return {"top1": 1 / self.num_classes, "pair_top1": 2 / self.num_classes, "within_pair_top1": 1 / 2}


TASKS = {
    "order": Task("clear", 2000, 6),
    "relation": Task("cue_far_colours", relation.NUM_VIDEOS, relation.NUM_CLASSES),
}
# relation.py trains these families by the same recipes on the same videos.
ELSEWHERE = [("relation", family) for family in TITLES if f"{family}_tiny" in relation.VARIANTS]


def budget(task: str, family: str) -> int:
    """The epochs of the family's recipe for a task."""
    return read_recipe(shipped()[f"{task}/{family}_tiny"]).epochs


def run(work: Path, task: str, family: str, seed: int, epochs: int) -> Row:
    """Train and evaluate one family's tiny model; its figures, but for the seconds: no care is taken to time alike."""
    out = work / task / f"{family}_{seed}_{epochs}_epochs"
    figures = train_and_evaluate(f"{task}/{family}_tiny", work / task / "data", out, seed, f"epochs={epochs}")
    return {key: value for key, value in figures.items() if key != "train_seconds"}


def all_rows() -> list[Row]:
    """The rows of this script's results, and those of relation.py's that are of a family and of the task's level."""
    known = {f"{family}_tiny": family for _, family in ELSEWHERE}
    theirs = [
        {"task": "relation", "family": known[row["variant"]], **row}
        for row in rows_of(relation.RESULTS)
        if row["level"] == TASKS["relation"].level and row["variant"] in known
    ]
    return [*rows_of(RESULTS), *theirs]


def above_chance(row: Row, key: str) -> bool:
    """Whether a row's share lies above guessing: the whole 95 % interval of it does."""
    share, num = row[key], row["num_test"]
    if key == "within_pair_top1":
        num = round(row["pair_top1"] * num)
    return share is not None and wilson_interval(round(share * num), num)[0] > TASKS[row["task"]].chances[key]


def blind(row: Row) -> bool:
    """Whether permuting the frames changed none of the accuracies."""
    return bool(row["top1"] == row["reversed_top1"] == row["shuffled_top1"])


def which(rows: list[Row], is_so: Any) -> str:
    """The families of which something is so in all runs or some, as a list in words."""
    named = []
    for family, title in TITLES.items():
        answers = [is_so(row) for row in rows if row["family"] == family]
        if any(answers):
            named.append(title if all(answers) else f"{title} in {sum(answers)} of {len(answers)} runs")
    return "; ".join(named) or "none"


def cell(row: Row, key: str) -> str:
    return "" if row.get(key) is None else f"{row[key]:.3f}"


FIGURES = {
    "top-1": "top1",
    "right pair": "pair_top1",
    "direction within it": "within_pair_top1",
    "frames reversed": "reversed_top1",
    "frames shuffled": "shuffled_top1",
    "same answer reversed": "reversed_same_prediction",
    "last training loss": "last_train_loss",
}


def section(name: str, rows: list[Row]) -> str:
    """A task's table, a line a run, and what it shows; families that were not run have a blank line."""
    task = TASKS[name]
    rows = [row for row in rows if row["task"] == name]
    title = f"## Task `{name}`, level `{task.level}`"
    sizes = {(row["num_train"], row["num_test"]) for row in rows}
    budgets = ", ".join(str(epochs) for epochs in sorted({budget(name, family) for family in TITLES}))
    lines = [
        title,
        "",
        *(f"{train} training videos, {test} test videos." for train, test in sorted(sizes)),
        f"The common budget is {budgets} epochs; a line with more is a longer run. "
        f"Guessing gives {task.chances['top1']:.3f} top-1, {task.chances['pair_top1']:.3f} right pairs and "
        f"{task.chances['within_pair_top1']:.3f} right directions within them.",
        "",
        *heading("family", "knows order", "seed", "epochs", *FIGURES),
    ]
    for family, title in TITLES.items():
        knows = "yes" if FAMILIES[family].knows_order else "no"
        mine = sorted((row for row in rows if row["family"] == family), key=lambda row: (row["epochs"], row["seed"]))
        lines += [
            line(title, knows, row["seed"], row["epochs"], *(cell(row, key) for key in FIGURES.values()))
            for row in mine
        ] or [line(title, knows, *[""] * (2 + len(FIGURES)))]
    lines += [
        "",
        f"- Right pair above guessing: {which(rows, partial(above_chance, key='pair_top1'))}.",
        f"- Direction within it above guessing: {which(rows, partial(above_chance, key='within_pair_top1'))}.",
        f"- Reversed and shuffled frames with the very accuracy of frames in order: {which(rows, blind)}.",
    ]
    return "\n".join(lines)


def page() -> str:
    """The page: docs/families.head.md, which says what the figures mean, and a section a task."""
    sections = [section(name, all_rows()) for name in TASKS]
    return "\n\n".join([HEAD.read_text(encoding="utf-8").rstrip(), *sections]) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, default=Path("runs/families"))
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=list(TASKS))
    parser.add_argument("--families", nargs="+", default=list(TITLES), choices=list(TITLES))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--epochs", type=int, help="the recipes' own by default")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time")
    arguments = parser.parse_args()
    for name in arguments.tasks:
        task = TASKS[name]
        render(arguments.work / name / "data", name, task.level, task.num_videos, task.num_classes)
    wanted = [
        (name, family, seed, arguments.epochs or budget(name, family))
        for name in arguments.tasks
        for family in arguments.families
        for seed in arguments.seeds
        if (name, family) not in ELSEWHERE
    ]
    run_all(RESULTS, KEY, wanted, partial(run, arguments.work), arguments.jobs)
    with writing(PAGE) as handle:
        handle.write(page())


if __name__ == "__main__":
    main()
