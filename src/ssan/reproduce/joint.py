"""Tables 7 and 8: joint spaces trained and evaluated row by row, the figures collected, the page written.

OUT/videos/order, OUT/videos/captions       the rendered videos of the small version
OUT/runs/order/NETWORK/seed_0               its classifiers, the same that tables 1 to 6 train
OUT/features/NETWORK/seed_0                 what they make of the captioned videos
OUT/runs/DATA/ROW/seed_0                    a joint space, with journal and model
OUT/TABLE.json, OUT/TABLE.html              what is known of the table
"""

import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ssan.errors import SsanError
from ssan.files import write_json, writing
from ssan.processes import terminable
from ssan.recipe import write_recipe
from ssan.report.html import render_page
from ssan.report.plots import seeds_plot
from ssan.reproduce.joint_runs import (
    KINDS,
    SMALL_RECIPE,
    JointOrder,
    JointRun,
    Words,
    check,
    classifier_of,
    figures_of,
    objection,
    other_pretraining,
    pretraining_of,
    refuse_other_material,
    runs,
    words_of,
)
from ssan.reproduce.joint_tables import JointRow
from ssan.reproduce.plan import seeds_of
from ssan.reproduce.results import as_percent, over_seeds
from ssan.reproduce.runs import Crew, evaluation, events_of, make
from ssan.reproduce.sameness import has_ended, refused
from ssan.reproduce.table import JOURNALS, PROTOCOL, rendered
from ssan.synthetic.captions import render_captions
from ssan.synthetic.dataset import keep_number

__all__ = [
    "JointOrder",
    "JointRun",
    "Words",
    "check",
    "collect",
    "figures_of",
    "page",
    "reproduce_joint",
    "runs",
    "write",
]

SMALL_VIDEOS, SMALL_SEED, SMALL_PX = 2000, 7, 48
# Every rendered video is one window.
SMALL_WINDOW_SECONDS = 10.0


def _small_words(order: JointOrder, run: JointRun, crew: Crew, log: Path) -> Words:
    """Train a classifier on the task `order`, and let it describe the captioned videos: other ones than it has seen."""
    classifier = classifier_of(order, run)
    if evaluation(classifier, PROTOCOL) is None:
        with writing(classifier.folder.parent / "recipe.yaml") as handle:
            handle.write(write_recipe(classifier.recipe.model_copy(update={"seed": 0})))
        make(classifier, crew, PROTOCOL, log)
    words = words_of(order, run)
    features = words.features[run.row.name]
    crew.ssan(
        log, "extract", str(classifier.folder), "--data", *words.captions[1:], "-o", features,
        "--window-seconds", str(SMALL_WINDOW_SECONDS), "--stride-seconds", str(SMALL_WINDOW_SECONDS),
        *crew.means.words, "--quiet", "--json",
    )  # fmt: skip
    return words


def make_joint(order: JointOrder, run: JointRun, crew: Crew, log: Path) -> None:
    """Train and evaluate one run, as far as it is not done.

    :raises SsanError: it cannot be made, or another run is there.
    """
    problem = objection(order, run)
    if problem is not None:
        raise problem
    words = _small_words(order, run, crew, log) if order.mini else order.words
    common = [*crew.means.words, "--quiet", "--json"]
    more: list[str] = ["--skip-bad"] if crew.means.skip_bad else []
    start: list[str] = []
    if run.row.pretraining:
        start = ["--init", str(_pretrained(order, run, crew, log, [*more, *common]))]
    streams = [word for name in run.recipe.streams for word in ("--features", words.features[name])]
    vectors = ["--vectors", words.vectors] if words.vectors else []
    chosen = [] if order.mini else ["--val-split", "none"]
    recipe = run.folder.parent / "recipe.yaml"
    crew.ssan(
        log, "retrieval", "train", "--recipe", str(recipe), *words.captions, *streams, *vectors, *start, *chosen,
        "--allow-unused", "--out", str(run.folder), "--resume", "--seed", str(run.seed), *more, *common,
        processes=crew.means.processes,
    )  # fmt: skip
    twins = ["--twins", str(order.out / "videos" / "captions" / "twins.csv")] if order.mini else []
    crew.ssan(
        log, "retrieval", "eval", str(run.folder), *words.captions, *streams, "--split", order.split, *twins, *more,
        *_without_workers(common),
    )  # fmt: skip


def _pretrained(order: JointOrder, run: JointRun, crew: Crew, log: Path, words: Sequence[str]) -> Path:
    """The joint space that a row starts from, pre-trained on narrated videos; what is done is not done again.

    :raises SsanError: another pre-training is there.
    """
    before = pretraining_of(order, run)
    recipe, folder = before.recipe.model_copy(update={"seed": 0}), before.folder
    events = events_of(folder)
    differing = other_pretraining(order, before, events)
    if differing:
        raise refused(differing, str(folder))
    if has_ended(events) and (folder / "model.safetensors").exists():
        return folder
    given = folder.parent / "recipe.yaml"
    with writing(given) as handle:
        handle.write(write_recipe(recipe))
    streams = [word for name in recipe.streams for word in ("--features", order.words.narrated[name])]
    vectors = ["--vectors", order.words.vectors] if order.words.vectors else []
    crew.ssan(
        log, "retrieval", "train", "--recipe", str(given), *order.words.narrations, *streams, *vectors,
        "--allow-unused", "--out", str(folder), "--resume", "--seed", str(run.seed), *words,
        processes=crew.means.processes,
    )  # fmt: skip
    return folder


def _without_workers(words: Sequence[str]) -> list[str]:
    """Options without ``--workers N``, which an evaluation does not take."""
    found = list(words)
    if "--workers" in found:
        place = found.index("--workers")
        del found[place : place + 2]
    return found


def reproduce_joint(order: JointOrder, *, quiet: bool = False) -> dict[str, Any]:
    """Train and evaluate what is not done of the rows, and write the table's page and figures; the answer has both.

    A run that fails is listed, and the others go on. The page is written anew after each run.
    """
    began = time.monotonic()
    if order.mini:
        order.labelled = rendered(order.out, ["order"], num_videos=order.num_videos, workers=order.means.jobs)[0]
        keep_number(
            order.out / "videos" / "captions",
            (order.out / "runs" / order.name).glob(JOURNALS),
            order.num_videos or SMALL_VIDEOS,
            "--videos-per-task",
        )
        render_captions(
            order.out / "videos" / "captions", order.num_videos or SMALL_VIDEOS, SMALL_SEED, size_px=SMALL_PX,
            workers=order.means.jobs,
        )  # fmt: skip
    wanted = [run for row in order.rows for run in runs(order, row)]
    refuse_other_material(order, wanted)
    pending = [run for run in wanted if figures_of(run, order) is None]
    for path, recipe in {run.folder.parent: run.recipe.model_copy(update={"seed": 0}) for run in pending}.items():
        with writing(path / "recipe.yaml") as handle:
            handle.write(write_recipe(recipe))
    failed: list[SsanError] = []
    say = (lambda text: None) if quiet else (lambda text: tqdm.write(text, file=sys.stderr))
    say(f"{order.table.name}: {len(wanted)} runs, {len(wanted) - len(pending)} done; logs in {order.out / 'logs'}")
    write(order, failed)
    crew = Crew(order.means)
    silent = quiet or not sys.stderr.isatty()
    with (
        tqdm(total=len(pending), desc=order.table.name, unit="run", disable=silent, file=sys.stderr) as bar,
        terminable(),
        ThreadPoolExecutor(order.means.jobs) as pool,
    ):
        log = order.out / "logs"
        futures = {
            pool.submit(make_joint, order, run, crew, log / f"{'_'.join(run.folder.parts[-3:])}.log"): run
            for run in pending
        }
        try:
            for done, future in enumerate(as_completed(futures), start=1):
                run = futures[future]
                bar.update()
                try:
                    future.result()
                except SsanError as error:
                    failed.append(error)
                    say(f"{done}/{len(pending)} {run.title}: {error}")
                else:
                    figures = figures_of(run, order)
                    r1 = f"R@1 {figures['r1']:.3f}" if figures else "not evaluated"
                    say(f"{done}/{len(pending)} {run.title}: {r1}")
                write(order, failed)
        except BaseException:
            crew.stop()
            pool.shutdown(cancel_futures=True)
            say(f"stopped; what is done is kept in {order.out}, and the same command goes on")
            raise
    return {**write(order, failed), "seconds": round(time.monotonic() - began, 1)}


# -------------------------------------------------------------------------------------------------------- the page

MEASURES = (
    "r1", "r5", "r10", "median_rank", "mean_rank", "back_r1", "back_r5", "back_r10", *KINDS,
)  # fmt: skip


def _objections(order: JointOrder) -> list[SsanError]:
    """Why runs of the table's rows that are there, of any seed, are not the ones that are asked for."""
    there = [run for row in order.table.rows if not _is_blank(order, row) for run in _known(order, row)]
    return [error for run in there if (error := objection(order, run)) is not None]


def _known(order: JointOrder, row: JointRow) -> list[JointRun]:
    first = runs(order, row, seeds=[0])
    return runs(order, row, seeds=seeds_of(first[0].folder.parent, order.seeds)) if first else []


def _is_blank(order: JointOrder, row: JointRow) -> bool:
    """Whether a row does not stand in the table at hand: of other sizes of network."""
    return bool((order.mini and not row.small and row.recipe) or (not order.mini and row.small and not row.recipe))


def collect(order: JointOrder) -> list[dict[str, Any]]:
    """The figures of every row of the table; rows that were not run are blank."""
    rows = []
    for row in order.table.rows:
        if _is_blank(order, row):
            continue
        seeds = [found for run in _known(order, row) if (found := figures_of(run, order)) is not None]
        rows.append(
            {
                "row": row.name,
                "title": row.title,
                "recipe": SMALL_RECIPE if order.mini and row.small else row.recipe,
                "pretraining": row.pretraining,
                "paper": {"r1": row.r1, "r5": row.r5},
                "note": row.note,
                "seeds": seeds,
                **over_seeds(seeds, MEASURES),
            }
        )
    return rows


def write(order: JointOrder, failed: Sequence[SsanError]) -> dict[str, Any]:
    """Collect what there is, and write it as ``TABLE.json`` and ``TABLE.html``."""
    name = f"{order.table.name}-mini" if order.mini else order.table.name
    answer = {
        "table": order.table.name,
        "title": order.table.title,
        "mini": order.mini,
        "overrides": list(order.overrides),
        "data": order.name,
        "split": order.split,
        "rows": collect(order),
        "left_out": [error.as_dict() for error in _objections(order) if str(error) not in map(str, failed)],
        "failed": [error.as_dict() for error in failed],
        "page": str(order.out / f"{name}.html"),
    }
    order.out.mkdir(parents=True, exist_ok=True)
    write_json(order.out / f"{name}.json", {"schema": 1, **answer})
    with writing(order.out / f"{name}.html") as handle:
        handle.write(page(answer))
    return answer


def page(answer: Mapping[str, Any]) -> str:
    """One self-contained HTML page about a table's figures."""
    rows = []
    for row in answer["rows"]:
        cells = {f"paper_{key}": as_percent(row["paper"][key]) for key in ("r1", "r5")}
        for key in MEASURES:
            cells[key] = _cell(row[key], row[f"{key}_std"], percent="rank" not in key)
        rows.append({**row, **cells})
    seeds = [figures for row in answer["rows"] for figures in row["seeds"]]
    curves = {
        row["title"]: [
            {epoch: value for epoch, value in figures["curve"].items() if value is not None} for figures in row["seeds"]
        ]
        for row in answer["rows"]
    }
    drawn = {title: lines for title, lines in curves.items() if any(lines)}
    # The recipes of the paper keep the last epoch, and apart from training no captions are looked at.
    watched = "in validation" if answer["mini"] else "on training captions"
    return render_page(
        "joint_table.html.j2",
        table=answer,
        rows=rows,
        has_twins=any(figures["direction"] is not None for figures in seeds),
        protocol=seeds[0]["protocol"] if seeds else None,
        num_queries=seeds[0]["num_queries"] if seeds else None,
        num_candidates=seeds[0]["num_candidates"] if seeds else None,
        num_missing=max((figures["num_missing"] for figures in seeds), default=0),
        plot=seeds_plot(drawn, f"mean of R@1, R@5 and R@10 {watched}, by epoch") if drawn else None,
        notes=[{"title": row["title"], "note": row["note"]} for row in answer["rows"] if row["note"]],
    )


def _cell(mean: float | None, std: float | None, *, percent: bool) -> str:
    if mean is None:
        return ""
    text = as_percent(mean) if percent else f"{mean:.1f}"
    return text if std is None else f"{text} ± {as_percent(std) if percent else f'{std:.1f}'}"
