"""The joint spaces of tables 7 and 8 as they are asked for, and what there is of them: figures, or what differs."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ssan.errors import SsanError, UsageError
from ssan.recipe import RetrievalRecipe, make_retrieval_recipe, read_retrieval_recipe
from ssan.report.journal_runs import number, whole
from ssan.reproduce.joint_tables import JointRow, JointTable
from ssan.reproduce.plan import Data, PlannedRun, runs_of
from ssan.reproduce.results import as_dict, epochs_of, seconds_of
from ssan.reproduce.runs import Means, events_of
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
from ssan.reproduce.tables import TABLES
from ssan.shipped import shipped

SMALL_RECIPE = "retrieval/captions_gru"
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
        "curve": {epoch: _watched(row) for epoch, row in epochs.items()},
    }


def _watched(row: Mapping[str, Any]) -> float | None:
    """The mean of the recalls after an epoch, by the name of the captions that it is of."""
    known = (number(row.get(f"{split}_mean_recall")) for split in ("val", "test", "train"))
    return next((value for value in known if value is not None), None)


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
        before = pretraining_of(order, run)
        told = events_of(before.folder)
        said = [f"its pre-training: {word}" for word in other_pretraining(order, before, told)]
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
    words = words_of(order, run)
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


def words_of(order: JointOrder, run: JointRun) -> Words:
    """How the commands name a run's captions and features; of a small network those that are made of it."""
    if not order.mini:
        return order.words
    root = order.out / "videos" / "captions"
    if order.labelled is None or not (root / "captions.csv").exists():
        return Words()
    captions = ("--captions", str(root / "captions.csv"), "--format", "captions_csv")
    folder = classifier_of(order, run).folder
    return Words(captions, {run.row.name: str(order.out / "features" / folder.parent.name / folder.name)})


def classifier_of(order: JointOrder, run: JointRun) -> PlannedRun:
    """The run of the small classifier whose features a row takes."""
    row = TABLES["table1"].row(CLASSIFIERS[run.row.small or ""])
    assert order.labelled is not None
    return runs_of(row, order.labelled, [run.seed], order.out, order.classifier, mini="tiny")[0]


@dataclass(frozen=True)
class Pretraining:
    """The pre-training that a run starts from; several rows and tables can share it."""

    recipe: RetrievalRecipe
    folder: Path


def pretraining_of(order: JointOrder, run: JointRun) -> Pretraining:
    recipe = read_retrieval_recipe(shipped()[run.row.pretraining or ""], order.overrides)
    folder = order.out / "runs" / "narrated" / Path(run.row.pretraining or "").name / f"seed_{run.seed}"
    return Pretraining(recipe.model_copy(update={"seed": run.seed}), folder)


def other_pretraining(order: JointOrder, before: Pretraining, events: Sequence[Mapping[str, Any]]) -> list[str]:
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
