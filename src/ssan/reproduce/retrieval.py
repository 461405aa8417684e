"""Joint spaces of tables 7 and 8: the commands that train and evaluate them, their figures, and what their page shows.

OUT/videos/order, OUT/videos/captions       the rendered videos of the small version
OUT/runs/order/NETWORK/seed_0               its classifiers, the same that tables 1 to 6 train
OUT/features/NETWORK/seed_0                 what they make of the captioned videos
OUT/runs/DATA/ROW/seed_0                    a joint space, with journal and model
OUT/TABLE.json, OUT/TABLE.html              what is known of the table
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from ssan.errors import SsanError, UsageError
from ssan.recipe import RetrievalRecipe, make_retrieval_recipe, read_retrieval_recipe
from ssan.report.journal_runs import number, whole
from ssan.reproduce.joint_tables import JointRow
from ssan.reproduce.page import SEEDS, by_recipe, ours, papers
from ssan.reproduce.plan import Data
from ssan.reproduce.recognition import JOURNALS, ClassifierRun, rendered, runs_of
from ssan.reproduce.results import as_dict, epochs_of, events_of, seconds_of
from ssan.reproduce.runs import Execution, PlannedRun, SsanCommand
from ssan.reproduce.sameness import (
    SeenMaterial,
    evaluations,
    has_ended,
    is_of_this_material,
    last_start,
    other_material,
    other_recipe,
    see_material,
)
from ssan.reproduce.table import TableRequest
from ssan.reproduce.tables import TABLES, none_trainable
from ssan.shipped import shipped
from ssan.synthetic.captions import render_captions
from ssan.synthetic.dataset import keep_number

SMALL_RECIPE = "retrieval/captions_gru"
SMALL_VIDEOS, SMALL_SEED, SMALL_PX = 2000, 7, 48
# Every rendered video is one window.
SMALL_WINDOW_SECONDS = 10.0
CLASSIFIERS = {"tsn_tiny": "tsn", "ssan_tiny": "ssa_8f"}
"""Of the small networks whose features are taken, the row of table 1 that trains them."""
RECALLS, RANKS = ("r1", "r5", "r10"), ("median_rank", "mean_rank")
TWINS = ("direction", "object")
UNSET = ("init", "word_dim")
"""Keys of a recipe that depend on the data at hand."""


@dataclass
class RetrievalInputs:
    """How the commands name what joint spaces are trained on besides the captions.

    :param features: by the names of the recipes' streams, folders or files.
    :param vectors: a file of word vectors.
    :param narrations: options that name narrated videos, for pre-training, and ``narrated`` their features by name.
    """

    features: Mapping[str, str] = field(default_factory=dict)
    vectors: str | None = None
    narrations: tuple[str, ...] = ()
    narrated: Mapping[str, str] = field(default_factory=dict)


def small_captions(out: Path) -> Data:
    """The captioned videos of the small version, which are rendered below ``out``."""
    words = ("--captions", str(out / "videos" / "captions" / "captions.csv"), "--format", "captions_csv")
    return Data("captions", words, "test")


# ------------------------------------------------------------------------------------------------------------- runs


@dataclass(frozen=True)
class _OfTexts(PlannedRun):
    """A training on texts and features."""

    recipe: RetrievalRecipe
    request: "RetrievalRequest" = field(compare=False, repr=False)

    def train(
        self, ssan: SsanCommand, execution: Execution, captions: Sequence[str], paths: Mapping[str, str], *more: str
    ) -> None:
        """``ssan retrieval train``, going on with what is there.

        :param captions: options that name them.
        :param paths: of features, by the names of their streams.
        """
        vectors = self.request.inputs.vectors
        ssan(
            "retrieval", "train", "--recipe", str(self.recipe_file), *captions, *self.streams(paths),
            *(["--vectors", vectors] if vectors else []), *more, "--allow-unused", "--out", str(self.folder),
            "--resume", "--seed", str(self.seed), *execution.skipping, *execution.reading, "--quiet", "--json",
            num_processes=execution.processes,
        )  # fmt: skip

    def streams(self, paths: Mapping[str, str]) -> list[str]:
        return [word for name in self.recipe.streams for word in ("--features", paths[name])]


@dataclass(frozen=True)
class Pretraining(_OfTexts):
    """The pre-training that joint spaces start from; several rows and tables can share it."""

    def other_data(self, start: Mapping[str, Any]) -> list[str]:
        inputs = self.request.inputs
        if not inputs.narrations or any(name not in inputs.narrated for name in self.recipe.streams):
            return []
        features = {name: inputs.narrated[name] for name in self.recipe.streams}
        *captions, option, narrations = inputs.narrations
        assert option == "--narrations"
        look = partial(see_material, captions, features, None, vectors=inputs.vectors, narrations=narrations)
        return other_material(start, self.request.look((*inputs.narrations, *features.values()), look))

    def differing(self, events: Sequence[Mapping[str, Any]]) -> list[str]:
        start = last_start(events)
        return (other_recipe(start, self.recipe, unset=UNSET) or self.other_data(start)) if start else []

    def figures(self) -> None:
        """None: nothing is measured of it."""

    def make(self, ssan: SsanCommand, execution: Execution) -> None:
        self.refuse_another()
        if not has_ended(events_of(self.folder)) or not (self.folder / "model.safetensors").exists():
            self.write_recipe()
            self.train(ssan, execution, self.request.inputs.narrations, self.request.inputs.narrated)


@dataclass(frozen=True)
class JointSpaceRun(_OfTexts):
    """One training of a joint space, and its evaluation over a whole split."""

    row: JointRow
    data: Data

    def classifier(self) -> ClassifierRun:
        """The run of the small classifier whose features are taken."""
        row, request = TABLES["table1"].row(CLASSIFIERS[self.row.small or ""]), self.request
        assert request.labelled is not None
        return runs_of(row, request.labelled, [self.seed], request.out, request.classifier, mini=request.mini)[0]

    def pretraining(self) -> Pretraining:
        name, request = self.row.pretraining or "", self.request
        recipe = read_retrieval_recipe(shipped()[name], request.overrides)
        folder = request.out / "runs" / "narrated" / Path(name).name / f"seed_{self.seed}"
        return Pretraining(recipe.model_copy(update={"seed": self.seed}), self.seed, folder, request)

    def features(self) -> Mapping[str, str]:
        """Where the features lie, by the names of the streams; of a small network those that are made of it."""
        if not self.request.mini:
            return self.request.inputs.features
        folder = self.classifier().folder
        return {self.row.name: str(self.request.out / "features" / folder.parent.name / folder.name)}

    def seen(self) -> SeenMaterial | None:
        """Captions and features as they are now; None where nobody has named them, or they are still to be made.

        :raises SsanError: they cannot be read.
        """
        request, words, small = self.request, self.data.words, self.request.mini is not None
        if not words or (small and (request.labelled is None or not Path(words[1]).exists())):
            return None
        paths = self.features()
        if any(name not in paths or (small and not Path(paths[name]).exists()) for name in self.recipe.streams):
            return None
        features = {name: paths[name] for name in self.recipe.streams}
        # Features of small networks are made while others are compared, and then are others.
        key = (*words, *features.values(), str(small and _stores(features.values())))
        val, vectors = "val" if small else None, request.inputs.vectors
        return request.look(key, partial(see_material, words, features, self.data.split, val=val, vectors=vectors))

    def other_data(self, start: Mapping[str, Any]) -> list[str]:
        return other_material(start, self.seen())

    def differing(self, events: Sequence[Mapping[str, Any]]) -> list[str]:
        """The same; or whether it stands on another pre-training."""
        start = last_start(events)
        if not start:
            return []
        said = other_recipe(start, self.recipe, unset=UNSET) or self.other_data(start)
        if not said and self.row.pretraining:
            before = self.pretraining()
            told = events_of(before.folder)
            said = [f"its pre-training: {word}" for word in before.differing(told)]
            trained = [number(event.get("time")) or 0.0 for event in told if event.get("event") == "epoch"]
            if not said and max(trained, default=0.0) > (number(start.get("time")) or 0.0):
                said = ["its pre-training is newer than it is"]
        return said

    def figures(self) -> dict[str, Any] | None:
        try:
            events = events_of(self.folder)
            if not has_ended(events) or self.differing(events):
                return None
        except SsanError:
            return None
        seen, split = self.seen(), self.data.split
        found = [event for event in evaluations(events) if event.get("split") == split and _is_measured(event)
                 and is_of_this_material(event, seen)]  # fmt: skip
        if not found:
            return None
        event, start, epochs = found[0], last_start(events), epochs_of(events)
        best, back, twins = event["text_to_video"], event["video_to_text"], as_dict(event.get("twins"))
        return {
            "seed": self.seed,
            "run": str(self.folder),
            **{key: best[key] for key in (*RECALLS, *RANKS)},
            **{f"back_{key}": back[key] for key in RECALLS},
            **{kind: number(as_dict(twins.get(kind)).get("accuracy")) for kind in TWINS},
            "num_queries": event["num_queries"],
            "num_candidates": event["num_candidates"],
            "num_missing": event["num_missing"],
            "protocol": event["protocol"],
            "num_train": whole(start.get("num_train")),
            "train_seconds": seconds_of(epochs),
            "params": whole(as_dict(start.get("cost")).get("params")),
            "curve": {epoch: _watched(row) for epoch, row in epochs.items()},
        }

    def make(self, ssan: SsanCommand, execution: Execution) -> None:
        self.refuse_another()
        more: list[str] = []
        if self.request.mini:
            self._describe_videos(ssan, execution)
        else:
            more += ["--val-split", "none"]
        if self.row.pretraining:
            before = self.pretraining()
            before.make(ssan, execution)
            more += ["--init", str(before.folder)]
        captions, paths = self.data.words, self.features()
        self.train(ssan, execution, captions, paths, *more)
        twins = ["--twins", str(Path(captions[1]).with_name("twins.csv"))] if self.request.mini else []
        ssan(
            "retrieval", "eval", str(self.folder), *captions, *self.streams(paths), "--split", self.data.split, *twins,
            *execution.skipping, *execution.on_device, "--quiet", "--json",
        )  # fmt: skip

    def _describe_videos(self, ssan: SsanCommand, execution: Execution) -> None:
        """Train a classifier on the task `order`, and let it describe the captioned videos: others than it has seen."""
        classifier = self.classifier()
        if classifier.evaluation() is None:
            classifier.write_recipe()
            classifier.make(ssan, execution)
        ssan(
            "extract", str(classifier.folder), "--data", *self.data.words[1:], "-o", self.features()[self.row.name],
            "--window-seconds", str(SMALL_WINDOW_SECONDS), "--stride-seconds", str(SMALL_WINDOW_SECONDS),
            *execution.reading, "--quiet", "--json",
        )  # fmt: skip


def _stores(paths: Iterable[str]) -> list[int]:
    return [file.stat().st_size for path in paths for file in sorted(Path(path).glob("part-*.jsonl"))]


def _watched(row: Mapping[str, Any]) -> float | None:
    """The mean of the recalls after an epoch, by the name of the captions that it is of."""
    known = (number(row.get(f"{split}_mean_recall")) for split in ("val", "test", "train"))
    return next((value for value in known if value is not None), None)


def _is_measured(event: Mapping[str, Any]) -> bool:
    """Whether an evaluation has the figures that a table shows; what is no share, rank or count is none."""
    ways = [as_dict(event.get(way)) for way in ("text_to_video", "video_to_text")]
    shares = [number(way.get(key)) for way in ways for key in RECALLS]
    ranks = [number(ways[0].get(key)) for key in RANKS]
    counts = [whole(event.get(key)) for key in ("num_queries", "num_candidates", "num_missing")]
    return (
        all(share is not None and 0 <= share <= 1 for share in shares)
        and all(rank is not None and rank >= 1 for rank in ranks)
        and all(count is not None and count >= 0 for count in counts)
        and {"positives", "tie_rule"} <= set(as_dict(event.get("protocol")))
    )


# ----------------------------------------------------------------------------------------------------------- a table


@dataclass
class RetrievalRequest(TableRequest[JointRow, JointSpaceRun]):
    """What is asked for of table 7 or 8, on one set of captions.

    :param inputs: features and more, of the rows that are not small.
    :param classifier: ``key=value`` for the recipes of the small classifiers.
    :param num_videos: rendered for the classifiers and with captions; as many as the figures are told of by default.
    :param labelled: the rendered videos that small classifiers learn from, once they are there.
    """

    inputs: RetrievalInputs = field(default_factory=RetrievalInputs)
    classifier: Sequence[str] = ()
    num_videos: int | None = None
    labelled: Data | None = None
    looked_at: dict[tuple[str, ...], SeenMaterial] = field(default_factory=dict)
    """What captions and features were when a run was first compared with them, by their names."""

    template: ClassVar[str] = "joint_table.html.j2"
    measures: ClassVar[tuple[str, ...]] = (*RECALLS, *RANKS, *(f"back_{key}" for key in RECALLS), *TWINS)
    headline: ClassVar[tuple[str, str]] = ("R@1", "r1")

    def look(self, key: tuple[str, ...], see: Callable[[], SeenMaterial]) -> SeenMaterial:
        if key not in self.looked_at:
            self.looked_at[key] = see()
        return self.looked_at[key]

    def check(self) -> None:
        """Look whether the rows can be trained with what is named, before anything is made.

        :raises UsageError: none of the rows is ours, or features, narrations or word vectors that they need are not
            named.
        """
        wanted = [run for row in self.rows for run in self.runs(row, self.data[0], seeds=[0])]
        if not wanted:
            raise none_trainable(self.rows)
        if self.mini:
            return
        for run in wanted:
            for name in run.recipe.streams:
                if name not in self.inputs.features:
                    raise UsageError(
                        f"row {run.row.name} wants features {name!r}: name them with --features {name}=PATH"
                    )
                if run.row.pretraining and name not in self.inputs.narrated:
                    raise UsageError(
                        f"row {run.row.name} is pre-trained: name the features of the narrated videos with "
                        f"--narrated-features {name}=PATH, or choose rows with --rows"
                    )
            if run.row.pretraining and not self.inputs.narrations:
                raise UsageError(
                    f"row {run.row.name} is pre-trained: name the narrated videos with --narrated LIST and "
                    "--narrations FILE, or choose rows with --rows"
                )

    def prepare(self) -> None:
        if not self.mini:
            return
        (self.labelled,) = rendered(self.out, ["order"], num_videos=self.num_videos, workers=self.execution.jobs)
        root, num = self.out / "videos" / "captions", self.num_videos or SMALL_VIDEOS
        journals = (self.out / "runs" / self.data[0].name).glob(JOURNALS)
        keep_number(root, journals, num, "--videos-per-task")
        render_captions(root, num, SMALL_SEED, size_px=SMALL_PX, workers=self.execution.jobs)

    def recipe_name(self, row: JointRow) -> str | None:
        """The shipped recipe that trains a row here; None where none does."""
        return (SMALL_RECIPE if row.small else None) if self.mini else row.recipe

    def runs(self, row: JointRow, data: Data, *, seeds: Iterable[int] | None = None) -> list[JointSpaceRun]:
        name = self.recipe_name(row)
        if name is None:
            return []
        values = read_retrieval_recipe(shipped()[name]).model_dump()
        if self.mini:
            values["features"] = row.name
        recipe = make_retrieval_recipe(values, self.overrides)
        folder = self.out / "runs" / data.name / row.name
        return [
            JointSpaceRun(recipe.model_copy(update={"seed": seed}), seed, folder / f"seed_{seed}", self, row, data)
            for seed in (range(self.seeds) if seeds is None else seeds)
        ]

    def shown(self, row: JointRow) -> bool:
        """All but rows of the other size of network."""
        return not (row.recipe and not row.small) if self.mini else not (row.small and not row.recipe)

    def about_row(self, row: JointRow) -> dict[str, Any]:
        recipe = self.recipe_name(row) or row.recipe
        return {"recipe": recipe, "pretraining": row.pretraining, "paper": {"r1": row.r1, "r5": row.r5}}

    def about_data(self, data: Data, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        return {"data": data.name, "split": data.split}

    def about_sets(self, sets: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        (found,) = sets
        return dict(found)

    def section(self, data: Data, found: Mapping[str, Any]) -> dict[str, Any]:
        seeds = [figures for row in found["rows"] for figures in row["seeds"]]
        first = seeds[0] if seeds else {}
        has_twins = any(figures["direction"] is not None for figures in seeds)
        ranks = [
            ours(title, key, percent=False) for title, key in (("median\nrank", RANKS[0]), ("mean\nrank", RANKS[1]))
        ]
        twins = [ours("direction\ntold apart", "direction"), ours("object\ntold apart", "object")]
        return {
            **{key: first.get(key) for key in ("protocol", "num_queries", "num_candidates")},
            "num_missing": max((figures["num_missing"] for figures in seeds), default=0),
            "has_twins": has_twins,
            "curves": {row["title"]: [_drawn(figures["curve"]) for figures in row["seeds"]] for row in found["rows"]},
            # The recipes of the paper keep the last epoch, and apart from training no captions are looked at.
            "watched": f"mean of R@1, R@5 and R@10 {'in validation' if self.mini else 'on training captions'},",
            "columns": [
                papers("R@1", "r1"), ours("ours\nR@1", "r1", "own"),
                papers("R@5", "r5"), ours("ours\nR@5", "r5", "own"),
                ours("R@10", "r10"), *ranks, ours("video to\ntext R@1", "back_r1"), ours("R@5", "back_r5"),
                *(twins if has_twins else []),
                SEEDS, by_recipe("recipe", "recipe"), by_recipe("starts from", "pretraining"),
            ],
        }  # fmt: skip


def _drawn(curve: Mapping[int, float | None]) -> dict[int, float]:
    return {epoch: value for epoch, value in curve.items() if value is not None}
