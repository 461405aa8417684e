"""Tables 7 and 8: joint spaces trained and evaluated row by row, the figures collected, the page written.

OUT/videos/order, OUT/videos/captions       the rendered videos of the small version
OUT/runs/order/NETWORK/seed_0               its classifiers, the same that tables 1 to 6 train
OUT/features/NETWORK/seed_0                 what they make of the captioned videos
OUT/runs/DATA/ROW/seed_0                    a joint space, with journal and model
OUT/TABLE.json, OUT/TABLE.html              what is known of the table
"""

import sys
import time
from collections.abc import Iterable, Mapping, Sequence
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
from ssan.insight.runs import number, whole
from ssan.processes import terminable
from ssan.recipe import RetrievalRecipe, make_retrieval_recipe, read_retrieval_recipe, write_recipe
from ssan.reproduce.joint_tables import JointRow, JointTable
from ssan.reproduce.plan import Data, Run, runs_of, seeds_of
from ssan.reproduce.results import as_dict, as_percent, epochs_of, over_seeds, seconds_of
from ssan.reproduce.runs import Crew, Means, evaluation, events_of, make
from ssan.reproduce.sameness import (
    SeenMaterial,
    evaluations,
    has_ended,
    is_of_this_material,
    last_start,
    other_material,
    other_recipe,
    refused,
    see_material,
)
from ssan.reproduce.table import PROTOCOL, keep_number, rendered
from ssan.reproduce.tables import TABLES
from ssan.shipped import shipped

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
    looked_at: dict[tuple[str, ...], SeenMaterial] = field(default_factory=dict)
    """What captions and features were when a run was first compared with them, by their names."""

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


def runs(order: JointOrder, row: JointRow, *, seeds: Iterable[int] | None = None) -> list[JointRun]:
    """The runs of a row, one for each seed; none of a row that cannot be trained here."""
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
        for seed in (range(order.seeds) if seeds is None else seeds)
    ]


def check(order: JointOrder) -> None:
    """Look whether the rows can be trained with what is named, before anything is made.

    :raises UsageError: none of the rows is ours, or features, narrations or word vectors that they need are not named.
    """
    wanted = [run for row in order.rows for run in runs(order, row, seeds=[0])]
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


DIRECTIONS = ("text_to_video", "video_to_text")
RECALLS, RANKS = ("r1", "r5", "r10"), ("median_rank", "mean_rank")
UNSET = ("init", "word_dim")
"""Keys of a recipe that depend on the data at hand."""


def figures_of(run: JointRun, order: JointOrder) -> dict[str, Any] | None:
    """The figures of a finished run; None where it is not finished, or is not the one that is asked for."""
    try:
        events = events_of(run.folder)
        if not has_ended(events) or _differing(order, run, events):
            return None
    except SsanError:
        return None
    seen = _seen(order, run)
    found = [event for event in evaluations(events) if event.get("split") == order.split and _is_measured(event)
             and is_of_this_material(event, seen)]  # fmt: skip
    if not found:
        return None
    event, start, epochs = found[0], last_start(events), epochs_of(events)
    best, back, twins = event["text_to_video"], event["video_to_text"], as_dict(event.get("twins"))
    return {
        "seed": run.seed,
        "run": str(run.folder),
        **{key: best[key] for key in (*RECALLS, *RANKS)},
        **{f"back_{key}": back[key] for key in RECALLS},
        **{kind: number(as_dict(twins.get(kind)).get("accuracy")) for kind in KINDS},
        "num_queries": event["num_queries"],
        "num_candidates": event["num_candidates"],
        "num_missing": event["num_missing"],
        "protocol": event["protocol"],
        "num_train": whole(start.get("num_train")),
        "train_seconds": seconds_of(epochs),
        "params": whole(as_dict(start.get("cost")).get("params")),
        "curve": {epoch: number(row.get("val_mean_recall")) for epoch, row in epochs.items()},
    }


def _is_measured(event: Mapping[str, Any]) -> bool:
    """Whether an evaluation has the figures that a table shows; what is no share, rank or count is none."""
    ways = [as_dict(event.get(way)) for way in DIRECTIONS]
    shares = [number(way.get(key)) for way in ways for key in RECALLS]
    ranks = [number(ways[0].get(key)) for key in RANKS]
    counts = [whole(event.get(key)) for key in ("num_queries", "num_candidates", "num_missing")]
    return (
        all(share is not None and 0 <= share <= 1 for share in shares)
        and all(rank is not None and rank >= 1 for rank in ranks)
        and all(count is not None and count >= 0 for count in counts)
        and {"positives", "tie_rule"} <= set(as_dict(event.get("protocol")))
    )


def objection(order: JointOrder, run: JointRun) -> SsanError | None:
    """Why a run that is there is not the one that is asked for; None where it is, or has not been begun."""
    try:
        differing = _differing(order, run, events_of(run.folder))
    except SsanError as error:
        return error
    return refused(differing, str(run.folder)) if differing else None


def _differing(order: JointOrder, run: JointRun, events: Sequence[Mapping[str, Any]]) -> list[str]:
    """In what a run that was begun differs from the one that is asked for, or stands on another pre-training."""
    start = last_start(events)
    if not start:
        return []
    said = other_recipe(start, run.recipe, unset=UNSET)
    if not said:
        said = other_material(start, _seen(order, run))
    if not said and run.row.pretraining:
        before = _pretraining(order, run)
        told = events_of(before.folder)
        said = [f"its pre-training: {word}" for word in _other_pretraining(order, before, told)]
        trained = [number(event.get("time")) or 0.0 for event in told if event.get("event") == "epoch"]
        if not said and max(trained, default=0.0) > (number(start.get("time")) or 0.0):
            said = ["its pre-training is newer than it is"]
    return said


def refuse_other_material(order: JointOrder, wanted: Sequence[JointRun]) -> None:
    """Look whether the runs that are there are of the captions and features that are asked for.

    :raises UsageError: some are of others.
    """
    others = []
    for run in wanted:
        try:
            start = last_start(events_of(run.folder))
        except UsageError:
            continue
        if start and (said := other_material(start, _seen(order, run))):
            others.append((run, said))
    if others:
        (run, said), num = others[0], len(others)
        raise UsageError(
            f"this run is of other data than are named now, as {num} of the {len(wanted)} that are wanted are: "
            f"{'; '.join(said)}. Name another folder with --out, or remove {run.folder.parents[1]}",
            path=str(run.folder),
        )


def _seen(order: JointOrder, run: JointRun) -> SeenMaterial | None:
    """Captions and features of a run as they are now; None where nobody has named them, or they are still to be made.

    :raises SsanError: they cannot be read.
    """
    words = _words(order, run)
    if not words.captions or any(name not in words.features for name in run.recipe.streams):
        return None
    features = {name: words.features[name] for name in run.recipe.streams}
    if order.mini and not all(Path(path).exists() for path in features.values()):
        return None
    # Features of small networks are made while others are compared, and then are others.
    key = (*words.captions, *features.values(), str(order.mini and _stores(features.values())))
    if key not in order.looked_at:
        val = "val" if order.mini else None
        order.looked_at[key] = see_material(words.captions, features, order.split, val=val, vectors=words.vectors)
    return order.looked_at[key]


def _stores(paths: Iterable[str]) -> list[int]:
    return [file.stat().st_size for path in paths for file in sorted(Path(path).glob("part-*.jsonl"))]


def _words(order: JointOrder, run: JointRun) -> Words:
    """How the commands name a run's captions and features; of a small network those that are made of it."""
    if not order.mini:
        return order.words
    root = order.out / "videos" / "captions"
    if order.labelled is None or not (root / "captions.csv").exists():
        return Words()
    captions = ("--captions", str(root / "captions.csv"), "--format", "captions_csv")
    folder = _classifier(order, run).folder
    return Words(captions, {run.row.name: str(order.out / "features" / folder.parent.name / folder.name)})


def _classifier(order: JointOrder, run: JointRun) -> Run:
    """The run of the small classifier whose features a row takes."""
    row = TABLES["table1"].row(CLASSIFIERS[run.row.small or ""])
    assert order.labelled is not None
    return runs_of(row, order.labelled, [run.seed], order.out, order.classifier, mini="tiny")[0]


def _small_words(order: JointOrder, run: JointRun, crew: Crew, log: Path) -> Words:
    """Train a classifier on the task `order`, and let it describe the captioned videos: other ones than it has seen."""
    classifier = _classifier(order, run)
    if evaluation(classifier, PROTOCOL) is None:
        with writing(classifier.folder.parent / "recipe.yaml") as handle:
            handle.write(write_recipe(classifier.recipe.model_copy(update={"seed": 0})))
        make(classifier, crew, PROTOCOL, log)
    words = _words(order, run)
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


@dataclass(frozen=True)
class Pretraining:
    """The pre-training that a run starts from; several rows and tables can share it."""

    recipe: RetrievalRecipe
    folder: Path


def _pretraining(order: JointOrder, run: JointRun) -> Pretraining:
    recipe = read_retrieval_recipe(shipped()[run.row.pretraining or ""], order.overrides)
    folder = order.out / "runs" / "narrated" / Path(run.row.pretraining or "").name / f"seed_{run.seed}"
    return Pretraining(recipe.model_copy(update={"seed": run.seed}), folder)


def _other_pretraining(order: JointOrder, before: Pretraining, events: Sequence[Mapping[str, Any]]) -> list[str]:
    """In what a pre-training that was begun differs from the one that is asked for, in words."""
    start = last_start(events)
    if not start:
        return []
    words = order.words
    said = other_recipe(start, before.recipe, unset=UNSET)
    if said or not words.narrations or any(name not in words.narrated for name in before.recipe.streams):
        return said
    features = {name: words.narrated[name] for name in before.recipe.streams}
    key = (*words.narrations, *features.values())
    if key not in order.looked_at:
        *captions, option, narrations = words.narrations
        assert option == "--narrations"
        order.looked_at[key] = see_material(captions, features, None, vectors=words.vectors, narrations=narrations)
    return other_material(start, order.looked_at[key])


def _pretrained(order: JointOrder, run: JointRun, crew: Crew, log: Path, words: Sequence[str]) -> Path:
    """The joint space that a row starts from, pre-trained on narrated videos; what is done is not done again.

    :raises SsanError: another pre-training is there.
    """
    before = _pretraining(order, run)
    recipe, folder = before.recipe.model_copy(update={"seed": 0}), before.folder
    events = events_of(folder)
    differing = _other_pretraining(order, before, events)
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
            order.out / "videos" / "captions", order.out / "runs" / order.name, order.num_videos or SMALL_VIDEOS
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


def known(order: JointOrder) -> list[JointRun]:
    """The runs of all rows of the table that can be trained here, with seeds that earlier calls have made."""
    return [run for row in order.table.rows if not _is_blank(order, row) for run in _known(order, row)]


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
        "left_out": [error.as_dict() for run in known(order) if (error := objection(order, run)) is not None],
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
