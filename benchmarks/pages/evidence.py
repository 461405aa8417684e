"""The evidence: small versions of tables 1, 2, 5 and 6, the choices that the paper leaves open, Weizmann by person.

    python -m benchmarks.pages.evidence --work runs/evidence                       the tier of a laptop, 24 trainings
    python -m benchmarks.pages.evidence --work runs/evidence --tier all            every row
    python -m benchmarks.pages.evidence --work runs/evidence --minutes 9 --tier all   as far as it comes in nine minutes
    python -m benchmarks.pages.evidence --work runs/evidence --weizmann DIR        each person of Weizmann left out once
    python -m benchmarks.pages.evidence --work runs/evidence --page                the page alone, of what was run

Trains by `ssan reproduce` on the rendered tasks `order` and `relation`, at least three seeds, and goes on where it
stopped. What the journals say goes to benchmarks/results/evidence.json, and from there to docs/evidence.md; nothing is
typed, and what was not run is blank. For a GPU, `--backbone r18 --size-px 112` trains ResNets in place of the small
network, and `--cache` turns the videos into one memory-mapped clip file first.
"""

import argparse
import json
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.pages.tables import heading, line
from benchmarks.timing import machine
from ssan.errors import SsanError
from ssan.files import read_json, write_json, writing
from ssan.processes import num_cores
from ssan.recipe import read_recipe
from ssan.recognition.compare import compare
from ssan.recognition.score_file import read_scores
from ssan.report.plots import gains_plot, save_figure
from ssan.reproduce.plan import TASKS, Data
from ssan.reproduce.recognition import ClassifierRun, RecognitionRequest, rendered
from ssan.reproduce.results import difference
from ssan.reproduce.runs import Execution, PlannedRun, make_all
from ssan.reproduce.table import collect, reproduce_table
from ssan.reproduce.tables import TABLES
from ssan.shipped import shipped
from ssan.training.metrics import wilson_interval

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results" / "evidence.json"
HEAD = ROOT / "docs" / "evidence.head.md"
PAGE = ROOT / "docs" / "evidence.md"
FIGURE = ROOT / "docs" / "evidence-figure4.png"

# What a laptop has time for: the four networks that the tables turn on.
LAPTOP = {"table1": ["tsn", "tsm_8f", "ssa_8f"], "table2": ["nl2d1d", "ssa"]}
EVERYTHING = {
    "table1": ["tsn", "trn", "tsm_8f", "tsm_16f", "tsm_en", "ssa_8f", "ssa_16f", "ssa_en"],
    "table2": ["nl3d", "nl2d", "nl1d", "nl2d1d", "ssa"],
    "table5": ["none", "sa", "sa_sve", "sa_sve_ta", "sve", "ta", "sa_ta", "sve_ta"],
    "table6": ["res2", "res3", "res2_res3", "res4"],
    "choices": [row.name for row in TABLES["choices"].rows if row.name != "every_second"],
}
REFERENCES = {"table1": "ssa_8f", "table2": "ssa", "table5": "none", "table6": "res2_res3", "choices": "ssa"}
"""The row that the others of a table are compared with."""

PERSONS = ("daria", "denis", "eli", "ido", "ira", "lena", "lyova", "moshe", "shahar")
WEIZMANN = {"TSN": "finetune/tsn_mobilenet_v2", "SSA": "finetune/ssan_mobilenet_v2"}


@dataclass(frozen=True)
class Setting:
    """What networks are trained, and by what.

    :param work: the folder of videos and runs.
    :param backbone: of the small networks.
    :param overrides: ``key=value`` for every recipe.
    :param cache: read from one clip file instead of the videos.
    """

    work: Path
    seeds: int
    execution: Execution
    backbone: str = "tiny"
    overrides: tuple[str, ...] = ()
    cache: bool = False

    def orders(self, wanted: Mapping[str, Sequence[str]]) -> list[RecognitionRequest]:
        data = rendered(self.work, list(TASKS), workers=num_cores(), cache=self.cache)
        return [
            RecognitionRequest(
                TABLES[name], TABLES[name].chosen(list(rows)), data, self.work, self.seeds, mini=self.backbone,
                overrides=self.overrides, execution=self.execution,
            )
            for name, rows in wanted.items()
        ]  # fmt: skip


def train(setting: Setting, wanted: Mapping[str, Sequence[str]], minutes: float | None) -> None:
    """Make the runs, as many as there is time for; those under way are stopped with their states saved."""
    if minutes is not None:
        threading.Timer(60 * minutes, _interrupt).start()
    for order in setting.orders(wanted):
        answer = reproduce_table(order)
        for error in answer["failed"]:
            print(f"failed: {error['path']}: {error['message']}", file=sys.stderr)


def _interrupt() -> None:
    import _thread

    _thread.interrupt_main()


def tables_of(setting: Setting) -> dict[str, Any]:
    """Every table's figures on each task, as far as runs are done; without the paths of this machine."""
    found: dict[str, Any] = {}
    for order in setting.orders(EVERYTHING):
        sets = []
        for data in order.data:
            content = collect(order, data, ensembles=True)
            content.pop("words")
            content.pop("left_out")
            reference = next(row for row in content["rows"] if row["row"] == REFERENCES[order.table.name])
            for row in content["rows"]:
                row["difference"] = difference(row["seeds"], reference["seeds"])
                row["pair_above_chance"] = _above_chance(row, TASKS[data.name].num_classes)
                for figures in row["seeds"]:
                    figures.pop("run", None)
                    figures.pop("scores", None)
            content["rows"] = [row for row in content["rows"] if row["row"] in EVERYTHING[order.table.name]]
            sets.append(content)
        found[order.table.name] = sets
    return found


def _above_chance(row: Mapping[str, Any], num_classes: int) -> list[bool]:
    """For each seed whether its share of right pairs lies above guessing: the whole 95 % interval of it does."""
    return [
        wilson_interval(round(figures["pair_top1"] * figures["num_scored"]), figures["num_scored"])[0] > 2 / num_classes
        for figures in row["seeds"]
    ]


def figure_4(setting: Setting) -> dict[str, Any] | None:
    """TSM against SSA on the relation task, of the lowest seed that both have: the paper's figure 4 on our videos."""
    order = setting.orders({"table1": ["tsm_8f", "ssa_8f"]})[0]
    data = next(data for data in order.data if data.name == "relation")
    for a, b in zip(*(order.runs(order.table.row(name), data) for name in ("tsm_8f", "ssa_8f")), strict=True):
        if a.evaluation() and b.evaluation():
            answer = compare(read_scores(a.scores), read_scores(b.scores))
            low, high = (100 * end for end in answer["difference_interval95"])
            title = (
                f"SSA less TSM on relation, seed {a.seed}: {100 * answer['difference']:+.1f} [{low:.1f}, {high:.1f}]"
            )
            save_figure(gains_plot(answer["per_class"], title), FIGURE)
            return {
                "seed": a.seed,
                **{key: answer[key] for key in ("num_videos", "difference", "difference_interval95", "per_class")},
            }
    return None


def weizmann(work: Path, root: Path, init: str, execution: Execution) -> None:
    """Fine-tune on all persons but one, nine times, and evaluate on that one."""
    runs = []
    for recipe in WEIZMANN.values():
        values = read_recipe(shipped()[recipe]).model_copy(update={"init": init})
        for person in PERSONS:
            words = ("--data", str(root), "--format", "folder", "--val-groups", f"^([a-z]+)_={person}")
            folder = work / "runs" / "weizmann" / Path(recipe).name / person / "seed_0"
            runs.append(ClassifierRun(values, 0, folder, Data("weizmann", words, "val")))
    pending = [run for run in runs if run.evaluation() is None]

    def note(run: PlannedRun, error: SsanError | None) -> None:
        print(f"{'/'.join(run.folder.parts[-3:])}: {error or 'done'}", file=sys.stderr, flush=True)

    make_all(pending, execution, work / "logs", note)


def weizmann_figures(work: Path) -> dict[str, Any]:
    """For each method, each person's accuracy, and of all of their videos together, each scored once."""
    found: dict[str, Any] = {}
    for title, recipe in WEIZMANN.items():
        values, persons = read_recipe(shipped()[recipe]), {}
        for person in PERSONS:
            folder = work / "runs" / "weizmann" / Path(recipe).name / person / "seed_0"
            figures = ClassifierRun(values, 0, folder, Data("weizmann", (), "val")).figures()
            if figures is not None:
                persons[person] = {key: figures[key] for key in ("top1", "num_scored", "epochs", "num_train")}
        num = sum(row["num_scored"] for row in persons.values())
        right = sum(round(row["top1"] * row["num_scored"]) for row in persons.values())
        whole = len(persons) == len(PERSONS)
        found[title] = {
            "persons": persons,
            "top1": right / num if whole else None,
            "interval95": list(wilson_interval(right, num)) if whole else None,
            "num_scored": num,
        }
    return found


# ---------------------------------------------------------------------------------------------------------- the page


def share(value: float | None, std: float | None = None) -> str:
    if value is None:
        return ""
    return f"{value:.3f}" + ("" if std is None else f" ± {std:.3f}")


def interval(found: Mapping[str, Any]) -> str:
    if found["mean"] is None:
        return ""
    text = f"{found['mean']:+.3f}"
    return text if found["low"] is None else f"{text} [{found['low']:+.3f}, {found['high']:+.3f}]"


def table_section(name: str, sets: Sequence[Mapping[str, Any]]) -> list[str]:
    table = TABLES[name]
    lines = [f"## {'Choices' if name == 'choices' else f'Table {name[-1]}'}: {table.title.split(': ')[-1]}", ""]
    for data in sets:
        reference = _reference(name, data)
        sizes = f"{data['num_train']} training videos, {data['num_scored']} test videos." if data["num_scored"] else ""
        lines += [f"Task `{data['name']}`. {sizes}".rstrip(), ""]
        lines += heading(
            "method", "frames", "paper, top-1 of its data", "top-1", "right pair", "direction within it", "reversed",
            "seeds", f"top-1 less that of {reference}", "training minutes",
        )  # fmt: skip
        for row in data["rows"]:
            seconds = [figures["train_seconds"] for figures in row["seeds"] if "train_seconds" in figures]
            lines.append(
                line(
                    row["title"],
                    row["frames"],
                    share(row["paper"]["top1"]),
                    share(row["top1"], row["top1_std"]),
                    share(row["pair_top1"], row["pair_top1_std"]),
                    share(row["within_pair_top1"], row["within_pair_top1_std"]),
                    share(row["reversed_top1"]),
                    row["num_seeds"] or "",
                    "" if row["row"] == REFERENCES[name] else interval(row["difference"]),
                    f"{sum(seconds) / len(seconds) / 60:.1f}" if seconds else "",
                )
            )
        lines += ["", *findings(name, data), ""]
    return lines


def _reference(name: str, data: Mapping[str, Any]) -> str:
    row = next(row for row in data["rows"] if row["row"] == REFERENCES[name])
    several = len({other["frames"] for other in data["rows"]}) > 1
    return f"{row['title']} with {row['frames']} frames" if several else row["title"]


def findings(name: str, data: Mapping[str, Any]) -> list[str]:
    """What the figures of a table on a task show, in words that follow from them."""
    run = [row for row in data["rows"] if row["seeds"]]
    if not run:
        return ["Not run."]
    slow = [row["title"] for row in run if not all(row["pair_above_chance"])]
    said = [
        "- Right pairs above guessing in every run"
        + ("." if not slow else f", but for: {', '.join(slow)}; their directions say nothing.")
    ]
    reference = _reference(name, data)
    sure = [row for row in run if row["difference"]["low"] is not None]
    below = [row["title"] for row in sure if row["difference"]["high"] < 0]
    above = [row["title"] for row in sure if row["difference"]["low"] > 0]
    unclear = [row["title"] for row in sure if row["row"] != REFERENCES[name] and row["title"] not in (*below, *above)]
    for words, titles in (("below", below), ("above", above)):
        if titles:
            said.append(f"- The interval lies wholly {words} {reference}: {', '.join(titles)}.")
    if unclear:
        said.append(f"- No difference to {reference} shown by these seeds: {', '.join(unclear)}.")
    return said


def figure_section(found: Mapping[str, Any] | None) -> list[str]:
    lines = ["## Figure 4: TSM and SSA by class, on `relation`", ""]
    if not found:
        return [*lines, "Not run.", ""]
    low, high = found["difference_interval95"]
    lines += [
        f"Seed {found['seed']}, {found['num_videos']} test videos: SSA less TSM {found['difference']:+.3f} "
        f"[{low:+.3f}, {high:+.3f}] (interval over videos, not over trainings).",
        "",
        f"![gains and losses of SSA over TSM by class]({FIGURE.name})",
        "",
        *heading("class", "videos", "TSM", "SSA", "difference"),
    ]
    for row in found["per_class"]:
        cells = [share(row[key]) for key in ("top1_a", "top1_b")]
        change = "" if row["difference"] is None else f"{row['difference']:+.3f}"
        lines.append(line(row["label"], row["num"], *cells, change))
    return [*lines, ""]


def weizmann_section(found: Mapping[str, Any]) -> list[str]:
    lines = ["## Weizmann, each person left out once", "", *heading("method", *PERSONS, "all videos")]
    for title, row in found.items():
        cells = [share(row["persons"].get(person, {}).get("top1")) for person in PERSONS]
        whole = ""
        if row["top1"] is not None:
            low, high = row["interval95"]
            whole = f"{row['top1']:.3f} [{low:.3f}, {high:.3f}]"
        lines.append(line(title, *cells, whole))
    return [*lines, ""]


def page(content: Mapping[str, Any]) -> str:
    """docs/evidence.md: its head, and a section for each part of the results."""
    lines = [HEAD.read_text(encoding="utf-8").rstrip(), ""]
    about = content["machine"]
    lines += [f"Written on {about.get('gpu', about['cpu'])}, torch {about['torch']}.", ""]
    for name in EVERYTHING:
        lines += table_section(name, content["tables"][name])
    lines += figure_section(content["figure4"])
    lines += weizmann_section(content["weizmann"])
    return "\n".join(lines).rstrip() + "\n"


def write_page(setting: Setting, device: str) -> None:
    content = {
        "schema": 1,
        "machine": machine(device),
        "tables": tables_of(setting),
        "figure4": figure_4(setting),
        "weizmann": weizmann_figures(setting.work),
    }  # fmt: skip
    write_json(RESULTS, content)
    with writing(PAGE) as handle:
        handle.write(page(read_json(RESULTS)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, default=Path("runs/evidence"))
    parser.add_argument("--tier", choices=["laptop", "all"], default="laptop")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=num_cores(), help="runs at a time")
    parser.add_argument("--minutes", type=float, help="stop then, with states saved")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--weizmann", type=Path, help="the folder of the data set: classes of videos")
    parser.add_argument("--init", default="imagenet", help="weights of MobileNetV2 for --weizmann")
    parser.add_argument("--backbone", default="tiny", help="of the networks on the rendered tasks")
    parser.add_argument("--size-px", type=int, help="side of their frames; 48 by default")
    parser.add_argument("--cache", action="store_true", help="read from one clip file instead of the videos")
    parser.add_argument("--page", action="store_true", help="train nothing")
    arguments = parser.parse_args()
    execution = Execution(arguments.jobs, device=arguments.device, workers=0, threads=1)
    sizes = (f"size_px={arguments.size_px}", f"crop_px={arguments.size_px}") if arguments.size_px else ()
    setting = Setting(arguments.work, arguments.seeds, execution, arguments.backbone, sizes, arguments.cache)
    began = time.monotonic()
    try:
        if arguments.weizmann:
            weizmann(arguments.work, arguments.weizmann, arguments.init, execution)
        elif not arguments.page:
            wanted = LAPTOP if arguments.tier == "laptop" else EVERYTHING
            train(setting, wanted, arguments.minutes)
    except KeyboardInterrupt:
        print("stopped; the same call goes on", file=sys.stderr)
    write_page(setting, arguments.device)
    print(json.dumps({"seconds": round(time.monotonic() - began, 1), "page": str(PAGE.relative_to(ROOT))}))


if __name__ == "__main__":
    main()
