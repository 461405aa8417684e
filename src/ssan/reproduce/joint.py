"""Tables 7 and 8: joint spaces trained and evaluated row by row, the figures collected, the page written.

OUT/videos/order, OUT/videos/captions       the rendered videos of the small version
OUT/runs/order/NETWORK/seed_0               its classifiers, the same that tables 1 to 6 train
OUT/features/NETWORK/seed_0                 what they make of the captioned videos
OUT/runs/DATA/ROW/seed_0                    a joint space, with journal and model
OUT/TABLE.json, OUT/TABLE.html              what is known of the table
"""

import json
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ssan.datasets.synthetic_captions import render_captions
from ssan.errors import SsanError, UsageError
from ssan.files import write_json, writing
from ssan.insight.page import render_page
from ssan.insight.plots import seeds_plot
from ssan.processes import terminable
from ssan.recipe import RetrievalRecipe, make_retrieval_recipe, read_retrieval_recipe, write_recipe
from ssan.reproduce.joint_tables import JointRow, JointTable
from ssan.reproduce.plan import Data, Run, runs_of
from ssan.reproduce.results import as_percent, over_seeds
from ssan.reproduce.runs import Crew, Means, evaluation, make
from ssan.reproduce.table import PROTOCOL, rendered
from ssan.reproduce.tables import TABLES
from ssan.shipped import shipped
from ssan.training.journal import read_journal

SMALL_RECIPE = "retrieval/captions_gru"
SMALL_VIDEOS, SMALL_SEED, SMALL_PX = 2000, 7, 48
# Every rendered video is one window.
SMALL_WINDOW_SECONDS = 10.0
CLASSIFIERS = {"tsn_tiny": "tsn", "ssan_tiny": "ssa_8f"}
"""Of the small networks whose features are taken, the row of table 1 that trains them."""
KINDS = ("direction", "object")


@dataclass
class Words:
    """How the commands name captions and features.

    :param captions: options that name the captions.
    :param features: by the names of the recipes' streams, folders or files.
    :param vectors: a file of word vectors.
    :param narrations: options that name narrated videos, for pre-training, and ``narrated`` their features by name.
    """

    captions: tuple[str, ...] = ()
    features: Mapping[str, str] = field(default_factory=dict)
    vectors: str | None = None
    narrations: tuple[str, ...] = ()
    narrated: Mapping[str, str] = field(default_factory=dict)


@dataclass
class JointOrder:
    """What is asked for.

    :param name: of the data, for the folders of the runs.
    :param mini: whether the rows are small networks on rendered videos.
    :param overrides: ``key=value`` for every recipe.
    :param classifier: ``key=value`` for the recipes of the small classifiers.
    :param num_videos: rendered for the classifiers and with captions; as many as the figures are told of by default.
    :param labelled: the rendered videos that small classifiers learn from, once they are there.
    """

    table: JointTable
    rows: list[JointRow]
    out: Path
    name: str
    words: Words
    seeds: int = 1
    mini: bool = False
    overrides: Sequence[str] = ()
    means: Means = field(default_factory=Means)
    classifier: Sequence[str] = ()
    num_videos: int | None = None
    labelled: Data | None = None

    @property
    def split(self) -> str:
        return "test" if self.mini else self.table.split


@dataclass(frozen=True)
class JointRun:
    """One training of one row, with one seed."""

    row: JointRow
    recipe: RetrievalRecipe
    seed: int
    folder: Path

    @property
    def title(self) -> str:
        return "/".join(self.folder.parts[-3:])


def runs(order: JointOrder, row: JointRow, *, seeds: int | None = None) -> list[JointRun]:
    """The runs of a row, one for each seed from 0 on; none of a row that cannot be trained here."""
    name = (SMALL_RECIPE if row.small else None) if order.mini else row.recipe
    if name is None:
        return []
    values = read_retrieval_recipe(shipped()[name]).model_dump()
    if order.mini and row.small:
        values["features"] = row.name
    recipe = make_retrieval_recipe(values, order.overrides)
    folder = order.out / "runs" / order.name / row.name
    return [
        JointRun(row, recipe.model_copy(update={"seed": seed}), seed, folder / f"seed_{seed}")
        for seed in range(seeds or order.seeds)
    ]


def check(order: JointOrder) -> None:
    """Look whether the rows can be trained with what is named, before anything is made.

    :raises UsageError: none of the rows is ours, or features, narrations or word vectors that they need are not named.
    """
    wanted = [run for row in order.rows for run in runs(order, row, seeds=1)]
    if not wanted:
        raise UsageError(
            f"none of the rows can be trained here: {', '.join(row.name for row in order.rows)}; choose others with "
            "--rows"
        )
    if order.mini:
        return
    for run in wanted:
        for name in run.recipe.streams:
            if name not in order.words.features:
                raise UsageError(f"row {run.row.name} wants features {name!r}: name them with --features {name}=PATH")
            if run.row.pretraining and name not in order.words.narrated:
                raise UsageError(
                    f"row {run.row.name} is pre-trained: name the features of the narrated videos with "
                    f"--narrated-features {name}=PATH, or choose rows with --rows"
                )
        if run.row.pretraining and not order.words.narrations:
            raise UsageError(
                f"row {run.row.name} is pre-trained: name the narrated videos with --narrated LIST and --narrations "
                "FILE, or choose rows with --rows"
            )


# -------------------------------------------------------------------------------------------------------- the runs


def figures_of(run: JointRun, split: str) -> dict[str, Any] | None:
    """The figures of a finished run; None where it is not finished, or was trained by another recipe."""
    path = run.folder / "journal.jsonl"
    events = read_journal(path) if path.exists() else []
    start = next((event for event in reversed(events) if event["event"] == "start"), None)
    asked = json.loads(run.recipe.model_dump_json())
    found = [event for event in events if event["event"] == "evaluated" and event.get("split") == split]
    unset = ("init", "word_dim")  # what depends on the data at hand
    if (
        start is None
        or not found
        or any(asked.get(key) != value for key, value in start["recipe"].items() if key in asked and key not in unset)
    ):
        return None
    event, epochs = found[-1], {row["epoch"]: row for row in read_journal(path, "epoch")}
    best = event["text_to_video"]
    twins = event.get("twins") or {}
    return {
        "seed": run.seed,
        "run": str(run.folder),
        **{key: best[key] for key in ("r1", "r5", "r10", "median_rank", "mean_rank")},
        **{f"back_{key}": event["video_to_text"][key] for key in ("r1", "r5", "r10")},
        **{kind: (twins.get(kind) or {}).get("accuracy") for kind in KINDS},
        "num_queries": event["num_queries"],
        "num_candidates": event["num_candidates"],
        "num_missing": event["num_missing"],
        "protocol": event["protocol"],
        "num_train": start["num_train"],
        "train_seconds": round(sum(row["seconds"] for row in epochs.values()), 1),
        "params": start["cost"]["params"],
        "curve": {row["epoch"]: row.get("val_mean_recall") for row in epochs.values()},
    }


def _classifier(order: JointOrder, run: JointRun) -> Run:
    """The run of the small classifier whose features a row takes."""
    row = TABLES["table1"].row(CLASSIFIERS[run.row.small or ""])
    assert order.labelled is not None
    return runs_of(row, order.labelled, run.seed + 1, order.out, order.classifier, mini="tiny")[run.seed]


def _small_words(order: JointOrder, run: JointRun, crew: Crew, log: Path) -> Words:
    """Train a classifier on the task `order`, and let it describe the captioned videos: other ones than it has seen."""
    classifier = _classifier(order, run)
    if evaluation(classifier, PROTOCOL) is None:
        with writing(classifier.folder.parent / "recipe.yaml") as handle:
            handle.write(write_recipe(classifier.recipe.model_copy(update={"seed": 0})))
        make(classifier, crew, PROTOCOL, log)
    root = order.out / "videos" / "captions"
    captions = ("--captions", str(root / "captions.csv"), "--format", "captions_csv")
    features = order.out / "features" / classifier.folder.parent.name / classifier.folder.name
    crew.ssan(
        log, "extract", str(classifier.folder), "--data", *captions[1:], "-o", str(features),
        "--window-seconds", str(SMALL_WINDOW_SECONDS), "--stride-seconds", str(SMALL_WINDOW_SECONDS),
        *crew.means.words, "--quiet", "--json",
    )  # fmt: skip
    return Words(captions, {run.row.name: str(features)})


def make_joint(order: JointOrder, run: JointRun, crew: Crew, log: Path) -> None:
    """Train and evaluate one run, as far as it is not done."""
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
    """The joint space that a row starts from, pre-trained on narrated videos; what is done is not done again."""
    recipe = read_retrieval_recipe(shipped()[run.row.pretraining or ""], order.overrides)
    folder = order.out / "runs" / "narrated" / Path(run.row.pretraining or "").name / f"seed_{run.seed}"
    path = folder / "journal.jsonl"
    if path.exists() and read_journal(path, "end"):
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
        render_captions(
            order.out / "videos" / "captions", order.num_videos or SMALL_VIDEOS, SMALL_SEED, size_px=SMALL_PX,
            workers=order.means.jobs,
        )  # fmt: skip
    wanted = [run for row in order.rows for run in runs(order, row)]
    pending = [run for run in wanted if figures_of(run, order.split) is None]
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
                    figures = figures_of(run, order.split)
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


def collect(order: JointOrder) -> list[dict[str, Any]]:
    """The figures of every row of the table; rows that were not run are blank."""
    rows = []
    for row in order.table.rows:
        if order.mini and not row.small and row.recipe:
            continue  # its features have no small version
        if not order.mini and row.small and not row.recipe:
            continue
        known = runs(order, row)
        if known:
            there = [int(path.name.removeprefix("seed_")) for path in known[0].folder.parent.glob("seed_*")]
            known = runs(order, row, seeds=max([order.seeds, *(seed + 1 for seed in there)]))
        seeds = [found for run in known if (found := figures_of(run, order.split)) is not None]
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
    return render_page(
        "joint_table.html.j2",
        table=answer,
        rows=rows,
        has_twins=any(figures["direction"] is not None for figures in seeds),
        protocol=seeds[0]["protocol"] if seeds else None,
        num_queries=seeds[0]["num_queries"] if seeds else None,
        num_candidates=seeds[0]["num_candidates"] if seeds else None,
        num_missing=max((figures["num_missing"] for figures in seeds), default=0),
        plot=seeds_plot(drawn, "mean of R@1, R@5 and R@10 in validation, by epoch") if drawn else None,
        notes=[{"title": row["title"], "note": row["note"]} for row in answer["rows"] if row["note"]],
    )


def _cell(mean: float | None, std: float | None, *, percent: bool) -> str:
    if mean is None:
        return ""
    text = as_percent(mean) if percent else f"{mean:.1f}"
    return text if std is None else f"{text} ± {as_percent(std) if percent else f'{std:.1f}'}"
