"""One table: its runs made as far as asked, its figures collected, its page written."""

import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ssan.convert.convert import convert
from ssan.convert.forms import Settings
from ssan.errors import SsanError
from ssan.files import read_json, sha256, write_json, writing
from ssan.recognition.score_file import read_scores
from ssan.report.report import report
from ssan.reproduce.page import page
from ssan.reproduce.plan import TASKS, Data, PlannedRun, runs_of, seeds_of
from ssan.reproduce.results import agreed, curves_of, figures_of, over_seeds, pairs_in
from ssan.reproduce.runs import SCORES, Crew, Means, ensemble, evaluation, make_all, objection, refuse_other_videos
from ssan.reproduce.sameness import see
from ssan.reproduce.tables import Row, Table
from ssan.synthetic.dataset import VIDEO_FOLDER, keep_number, render

PROTOCOL = {"views": 1, "crops": 1, "average": "logits"}
"""The paper's: "single clip and the 224 central crop for evaluation" (section 4.2)."""

JOURNALS = "*/*/journal.jsonl"
"""Of the runs in a folder: a network, a seed."""


@dataclass
class Order:
    """What is asked for.

    :param data: labelled videos, or several sets of them; the rows are trained on each.
    :param mini: the backbone of small networks in place of the recipes' own; None for the recipes' own.
    :param overrides: ``key=value`` for every recipe.
    """

    table: Table
    rows: list[Row]
    data: list[Data]
    out: Path
    seeds: int = 1
    mini: str | None = None
    overrides: Sequence[str] = ()
    means: Means = field(default_factory=Means)

    def runs(self, row: Row, data: Data, *, seeds: Iterable[int] | None = None) -> list[PlannedRun]:
        return runs_of(row, data, self.seeds if seeds is None else seeds, self.out, self.overrides, mini=self.mini)


def rendered(
    out: Path, names: Sequence[str], *, num_videos: int | None = None, workers: int = 1, cache: bool = False
) -> list[Data]:
    """Render the tasks of these names below ``out``, or what is lacking of them.

    :param cache: make one clip file of the videos, to be read in their place.
    """
    found = []
    for name in names:
        task = TASKS[name]
        root = out / "videos" / name
        keep_number(root, (out / "runs" / name).glob(JOURNALS), num_videos or task.num_videos, "--videos-per-task")
        render(
            root, name, num_videos or task.num_videos, 0, level=task.level, num_classes=task.num_classes,
            size_px=task.size_px, workers=workers,
        )  # fmt: skip
        words = ["--data", str(root), "--format", "sthv2"]
        if cache:
            clips = f"{root}.clips"
            convert(str(root / VIDEO_FOLDER), clips, Settings("clips"), workers=workers, quiet=True)
            words += ["--videos", clips]
        found.append(Data(name, tuple(words), "test", name, see(words, "test")))
    return found


def reproduce(order: Order, *, quiet: bool = False) -> dict[str, Any]:
    """Train and evaluate what is not done of the rows, and write the table's page and figures; the answer has both.

    A run that fails is listed, and the others go on. The page is written anew after each run.
    """
    began = time.monotonic()
    wanted = [run for data in order.data for row in order.rows for run in order.runs(row, data)]
    wanted = list({run.folder: run for run in wanted}.values())
    refuse_other_videos(wanted)
    pending = [run for run in wanted if evaluation(run, PROTOCOL) is None]
    failed: list[SsanError] = []
    for run in wanted:
        if run not in pending and not (run.folder / "report.html").exists():  # killed between the figures and the page
            try:
                report([str(run.folder)], str(run.folder / "report.html"))
            except SsanError as error:
                failed.append(error)
    say = (lambda text: None) if quiet else (lambda text: tqdm.write(text, file=sys.stderr))
    say(f"{order.table.name}: {len(wanted)} runs, {len(wanted) - len(pending)} done; logs in {order.out / 'logs'}")
    silent = quiet or not sys.stderr.isatty()
    done = 0
    write(order, failed)
    with tqdm(total=len(pending), desc=order.table.name, unit="run", disable=silent, file=sys.stderr) as bar:

        def note(run: PlannedRun, error: SsanError | None) -> None:
            nonlocal done
            done += 1
            bar.update()
            if error is not None:
                failed.append(error)
                say(f"{done}/{len(pending)} {run.title}: {error}")
            else:
                event = evaluation(run, PROTOCOL)
                top1 = f"top-1 {event['top1']:.3f}" if event else "not evaluated"
                say(f"{done}/{len(pending)} {run.title}: {top1}")
            write(order, failed)

        try:
            make_all(pending, order.means, PROTOCOL, order.out / "logs", note)
        except KeyboardInterrupt:
            say(f"stopped; what is done is kept in {order.out}, and the same command goes on")
            raise
    answer = write(order, failed, ensembles=True)
    return {**answer, "seconds": round(time.monotonic() - began, 1)}


def write(order: Order, failed: list[SsanError], *, ensembles: bool = False) -> dict[str, Any]:
    """Collect what there is, and write it as ``TABLE.json`` and ``TABLE.html``."""
    name = f"{order.table.name}-mini" if order.mini else order.table.name
    sets = [collect(order, data, failed, ensembles=ensembles) for data in order.data]
    answer = {
        "table": order.table.name,
        "title": order.table.title,
        "mini": order.mini is not None,
        "backbone": order.mini,
        "overrides": list(order.overrides),
        "data": sets,
        "failed": [error.as_dict() for error in failed],
        "page": str(order.out / f"{name}.html"),
    }
    order.out.mkdir(parents=True, exist_ok=True)
    write_json(order.out / f"{name}.json", {"schema": 1, **answer})
    curves = {
        data.name: {row.title + frames(row, order): curves_of(_known(order, row, data)) for row in order.rows}
        for data in order.data
    }
    with writing(order.out / f"{name}.html") as handle:
        handle.write(page(answer, curves, order.out))
    return answer


def frames(row: Row, order: Order) -> str:
    """The number of frames, where the table has several."""
    return f" {row.frames}f" if len({other.frames for other in order.table.rows}) > 1 else ""


def _known(order: Order, row: Row, data: Data) -> list[PlannedRun]:
    """The runs of a row with the seeds asked for, and those that earlier calls have finished beyond them."""
    runs = order.runs(row, data)
    return order.runs(row, data, seeds=seeds_of(runs[0].folder.parent, order.seeds)) if runs else []


def collect(
    order: Order, data: Data, failed: list[SsanError] | None = None, *, ensembles: bool = False
) -> dict[str, Any]:
    """The figures of every row of the table on one set of videos; rows that were not run are blank.

    What is there and is not the run that is asked for is left out, and listed.

    :param failed: is added to where an ensemble cannot be made.
    """
    rows, failed, left_out = [], [] if failed is None else failed, []
    for row in order.table.rows:
        if row.members:
            seeds = _ensembles(order, row, data, failed, make=ensembles and row in order.rows)
        else:
            known = _known(order, row, data)
            seeds = [found for run in known if (found := figures_of(run, PROTOCOL)) is not None]
            objections = [error for run in known if (error := objection(run)) is not None]
            left_out += [error.as_dict() for error in objections if str(error) not in map(str, failed)]
        rows.append(
            {
                "row": row.name,
                "title": row.title,
                "frames": row.frames,
                "recipe": row.recipe,
                "members": list(row.members),
                "paper": {"top1": row.top1, "top5": row.top5, "test_top1": row.test_top1},
                "note": row.note,
                "seeds": seeds,
                **over_seeds(seeds),
            }
        )
    every = [figures for row in rows for figures in row["seeds"]]
    return {
        "name": data.name,
        "words": list(data.words),
        "split": data.split,
        "task": data.task,
        "num_scored": agreed([figures["num_scored"] for figures in every]),
        "num_train": agreed([figures["num_train"] for figures in every if "num_train" in figures]),
        "rows": rows,
        "left_out": left_out,
    }


def _ensembles(order: Order, row: Row, data: Data, failed: list[SsanError], *, make: bool) -> list[dict[str, Any]]:
    """The figures of an ensemble, for each seed of which all members are done; made anew only where ``make``."""
    found = []
    members = [{run.seed: run for run in _known(order, order.table.row(name), data)} for name in row.members]
    crew = Crew(order.means)
    for seed in sorted(set.intersection(*map(set, members))):
        runs = [by_seed[seed] for by_seed in members]
        if any(evaluation(run, PROTOCOL) is None for run in runs):
            continue
        name = f"{order.table.name}_{row.name}_seed_{seed}"
        scores = order.out / "ensembles" / data.name / f"{name}.npz"
        answer = _made_of(runs, scores)
        if answer is None and make:
            try:
                made = ensemble(runs, crew, order.out / "logs" / f"{name}.log", scores)
            except SsanError as error:
                failed.append(error)
                continue
            write_json(scores.with_suffix(".json"), {**made, "sha256": _hashes(runs, scores)})
            answer = _made_of(runs, scores)
        if answer is None:
            continue
        figures = {
            "seed": seed,
            "scores": str(scores),
            "top1": answer["top1"],
            "top5": answer["top5"],
            "num_scored": answer["num_videos"],
            "protocol": answer["protocol"],
        }
        found.append({**figures, **(pairs_in(read_scores(scores)) if data.task else {})})
    return found


def _made_of(runs: Sequence[PlannedRun], scores: Path) -> dict[str, Any] | None:
    """What is known of an ensemble's scores, if they are there and of these very runs; else they are made again."""
    try:
        answer = read_json(scores.with_suffix(".json"))
        if not isinstance(answer, dict) or answer.get("sha256") != _hashes(runs, scores):
            return None
    except (SsanError, OSError):  # killed before the one or the other was there
        return None
    return answer


def _hashes(runs: Sequence[PlannedRun], scores: Path) -> dict[str, Any]:
    return {"members": [sha256(run.folder / SCORES) for run in runs], "scores": sha256(scores)}
