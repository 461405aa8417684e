"""Whether a small model of every family learns to tell what happens, and which way: the `order` and `relation` tasks.

    python -m benchmarks.pages.families --work runs/evidence           train what is lacking, then the page
    python -m benchmarks.pages.families --work runs/evidence --page    the page alone, of what was run

Takes the runs of evidence.py and `ssan reproduce --mini`, which train the tiny models of these families by the recipes
of `order/` and `relation/` on the same videos, and makes those that are lacking in the same way. Writes
benchmarks/results/families.json, a row for each finished run, and docs/families.md. A row of an earlier run stays until
there is one of the same task, family and seed; what relation.py has trained on the relation task stands in for runs
that are not there.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.pages import relation
from benchmarks.pages.tables import heading, line
from benchmarks.pages.trainings import ROOT, rows_of
from ssan.files import write_json, writing
from ssan.models.catalogue import FAMILIES
from ssan.processes import num_cores
from ssan.recipe import read_recipe
from ssan.reproduce.plan import TASKS, Data
from ssan.reproduce.recognition import ClassifierRun, RecognitionRequest, rendered, runs_of
from ssan.reproduce.runs import Execution
from ssan.reproduce.table import reproduce_table
from ssan.reproduce.tables import TABLES
from ssan.reproduce.tables import Row as TableRow
from ssan.shipped import shipped
from ssan.training.journal import read_journal
from ssan.training.metrics import wilson_interval

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
# The table and its row of which a family's tiny model is the small version.
ROWS = {
    "tsn": ("table1", "tsn"),
    "nl3d": ("table2", "nl3d"),
    "nl2d": ("table2", "nl2d"),
    "nl1d": ("table2", "nl1d"),
    "nl2d1d": ("table2", "nl2d1d"),
    "a2": ("table4", "a2"),
    "tsm": ("table1", "tsm_8f"),
    "trn": ("table1", "trn"),
    "ssan": ("table2", "ssa"),
}
KEY = ("task", "family", "seed")
Row = dict[str, Any]


def chances(task: str) -> dict[str, float]:
    """What guessing gives; classes come in pairs that differ by direction alone."""
    num_classes = TASKS[task].num_classes
    return {"top1": 1 / num_classes, "pair_top1": 2 / num_classes, "within_pair_top1": 1 / 2}


def budget(task: str) -> int:
    """The epochs of a task's recipes, which are common to all families."""
    (epochs,) = {read_recipe(shipped()[f"{task}/{family}_tiny"]).epochs for family in TITLES}
    return epochs


def table_row(family: str) -> TableRow:
    table, row = ROWS[family]
    return TABLES[table].row(row)


def train(work: Path, tasks: Sequence[str], families: Sequence[str], seeds: int, execution: Execution) -> int:
    """Make what is lacking of the runs, as evidence.py does; how many failed."""
    data, num_failed = rendered(work, tasks, workers=num_cores()), 0
    for name in dict.fromkeys(ROWS[family][0] for family in families):
        rows = [table_row(family) for family in families if ROWS[family][0] == name]
        answer = reproduce_table(
            RecognitionRequest(TABLES[name], rows, data, work, seeds, mini="tiny", execution=execution)
        )
        for error in answer["failed"]:
            print(f"failed: {error['path']}: {error['message']}", file=sys.stderr)
        num_failed += len(answer["failed"])
    return num_failed


def runs(work: Path, task: str, family: str) -> list[ClassifierRun]:
    """A family's runs on a task, of each seed from 0 to the last one that has begun."""
    data = Data(task, (), "test", task)
    (first,) = runs_of(table_row(family), data, 1, work, mini="tiny")
    seeds = [int(path.name.removeprefix("seed_")) for path in first.folder.parent.glob("seed_*")]
    return runs_of(table_row(family), data, max(seeds) + 1, work, mini="tiny") if seeds else []


def finished(work: Path) -> Iterator[Row]:
    """The rows of the runs that are done, from their journals and score files; what version made them is told too."""
    for task in TASKS:
        for family in TITLES:
            for run in runs(work, task, family):
                figures, event = run.figures(), run.evaluation()
                if figures is None or event is None:
                    continue
                (start,) = read_journal(run.folder / "journal.jsonl", "start")[-1:]
                measured = ("epochs", "top1", "pair_top1", "within_pair_top1", "reversed_top1", "shuffled_top1")
                yield {
                    **dict(zip(KEY, (task, family, run.seed), strict=True)),
                    **{key: figures[key] for key in measured},
                    "reversed_same_prediction": event["probe"]["reversed_same_prediction"],
                    "last_train_loss": figures["last_train_loss"],
                    "num_train": figures["num_train"],
                    "num_test": figures["num_scored"],
                    "version": start.get("environment", {}).get("ssan"),
                    "commit": start.get("environment", {}).get("ssan_commit"),
                }


def key(row: Row) -> tuple[Any, ...]:
    return tuple(row[name] for name in KEY)


def write_results(work: Path) -> None:
    """Put the rows of the finished runs in the place of earlier ones, and keep those that no run replaces."""
    rows = {key(row): row for row in [*rows_of(RESULTS), *finished(work)]}
    order = {name: number for number, name in enumerate([*TASKS, *TITLES])}
    write_json(
        RESULTS,
        {"schema": 1, "runs": [rows[at] for at in sorted(rows, key=lambda at: (order[at[0]], order[at[1]], at[2]))]},
    )


def all_rows() -> list[Row]:
    """The rows of this script's results, and for runs that are lacking those of relation.py at the task's level."""
    own = rows_of(RESULTS)
    known = {f"{family}_tiny": family for family in TITLES}
    theirs = [
        {"task": "relation", "family": known[row["variant"]], **row}
        for row in rows_of(relation.RESULTS)
        if row["level"] == TASKS["relation"].level and row["variant"] in known
    ]
    there = {key(row) for row in own}
    return [*own, *(row for row in theirs if key(row) not in there)]


def above_chance(row: Row, key: str) -> bool:
    """Whether a row's share lies above guessing: the whole 95 % interval of it does."""
    share, num = row[key], row["num_test"]
    if key == "within_pair_top1":
        num = round(row["pair_top1"] * num)
    return share is not None and wilson_interval(round(share * num), num)[0] > chances(row["task"])[key]


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
    guessing = chances(name)
    rows = [row for row in rows if row["task"] == name]
    title = f"## Task `{name}`, level `{TASKS[name].level}`"
    sizes = {(row["num_train"], row["num_test"]) for row in rows}
    lines = [
        title,
        "",
        *(f"{train} training videos, {test} test videos." for train, test in sorted(sizes)),
        f"The common budget is {budget(name)} epochs. "
        f"Guessing gives {guessing['top1']:.3f} top-1, {guessing['pair_top1']:.3f} right pairs and "
        f"{guessing['within_pair_top1']:.3f} right directions within them.",
        "",
        *heading("family", "knows order", "seed", "epochs", *FIGURES),
    ]
    for family, title in TITLES.items():
        knows = "yes" if FAMILIES[family].knows_order else "no"
        mine = sorted((row for row in rows if row["family"] == family), key=lambda row: row["seed"])
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


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, default=Path("runs/evidence"), help="the folder of videos and runs")
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=list(TASKS))
    parser.add_argument("--families", nargs="+", default=list(TITLES), choices=list(TITLES))
    parser.add_argument("--seeds", type=int, default=1, help="so many of each, from 0 on")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time")
    parser.add_argument("--page", action="store_true", help="train nothing")
    arguments = parser.parse_args()
    num_failed = 0
    if not arguments.page:
        execution = Execution(arguments.jobs, workers=0, threads=1)
        num_failed = train(arguments.work, arguments.tasks, arguments.families, arguments.seeds, execution)
    write_results(arguments.work)
    with writing(PAGE) as handle:
        handle.write(page())
    return 1 if num_failed else 0


if __name__ == "__main__":
    sys.exit(main())
