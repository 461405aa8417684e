"""Classifiers of tables 1 to 6: the commands that train and evaluate them, their figures, and what their page shows.

A row that is the same network in two tables is one run: a run's folder is named by what it trains, not by its table.

    OUT/videos/order, OUT/videos/relation      the rendered videos of a small table
    OUT/runs/DATA/NETWORK/seed_0/              a run's folder, with journal, model and scores of the evaluation
    OUT/runs/DATA/NETWORK/recipe.yaml          the recipe of all its seeds
    OUT/TABLE.json, OUT/TABLE.html             what is known of a table
"""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from markupsafe import Markup

from ssan.commands import CommandRunner
from ssan.convert.convert import convert
from ssan.convert.forms import Settings
from ssan.errors import SsanError, UsageError
from ssan.files import read_json, sha256, write_json
from ssan.recipe import Recipe
from ssan.recognition.score_file import ScoreFile, read_scores
from ssan.recognition.train import complete
from ssan.report.journal_runs import number, whole
from ssan.report.report import report
from ssan.reproduce.page import SEEDS, Column, by_recipe, ours, papers
from ssan.reproduce.plan import TASKS, Data, network_name, recipe_of
from ssan.reproduce.results import agreed, as_dict, epochs_of, events_of, seconds_of
from ssan.reproduce.runs import Execution, PlannedRun, SsanCommand
from ssan.reproduce.sameness import (
    evaluations,
    has_ended,
    is_of_these_videos,
    last_start,
    other_recipe,
    other_videos,
    see,
)
from ssan.reproduce.table import TableRequest
from ssan.reproduce.tables import Row
from ssan.synthetic.dataset import VIDEO_FOLDER, keep_number, render
from ssan.training.metrics import accuracy, pair_accuracies

SCORES = "scores.npz"
PROTOCOL: Mapping[str, Any] = {"views": 1, "crops": 1, "average": "logits"}
"""The paper's: "single clip and the 224 central crop for evaluation" (section 4.2)."""

JOURNALS = "*/*/journal.jsonl"
"""Of the runs in a folder: a network, a seed."""


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


# ------------------------------------------------------------------------------------------------------------- a run


@dataclass(frozen=True)
class ClassifierRun(PlannedRun):
    """One training of a classifier, and its evaluation by the paper's protocol."""

    recipe: Recipe
    data: Data

    material: ClassVar[str] = "videos"

    @property
    def scores(self) -> Path:
        return self.folder / SCORES

    def other_data(self, start: Mapping[str, Any]) -> list[str]:
        return other_videos(start, self.data.seen)

    def differing(self, events: Sequence[Mapping[str, Any]]) -> list[str]:
        start = last_start(events)
        return [*other_recipe(start, complete(self.recipe)), *self.other_data(start)] if start else []

    def evaluation(self) -> dict[str, Any] | None:
        """The last evaluation of a finished run by the paper's protocol, as its journal has it; None without one.

        None too where the run was trained by another recipe or on other videos than are asked for, or its journal is
        damaged (``objection`` says so); where the evaluation was of others, or is no evaluation; and where the scores
        in the folder are not those that it tells of.
        """
        try:
            events = events_of(self.folder)
        except UsageError:
            return None
        if not has_ended(events) or self.differing(events):
            return None
        for event in evaluations(events):
            used = event.get("protocol")
            if (
                event.get("split") == self.data.split
                and isinstance(used, Mapping)
                and all(used.get(key) == value for key, value in PROTOCOL.items())
                and is_of_these_videos(event, self.data.seen)
                and _is_measured(event)
            ):
                return dict(event) if self._are_its_scores(event) else None
        return None

    def _are_its_scores(self, event: Mapping[str, Any]) -> bool:
        """Whether the score file in the folder is of an evaluation: by its protocol, its videos and their labels.

        One that a killed command or another one has left is not; it is then written anew.
        """
        try:
            found = read_scores(self.scores)
        except SsanError:
            return False
        if len(found.ids) != event["num_scored"] or found.protocol != event["protocol"]:
            return False
        seen = self.data.seen
        if seen is not None and any(
            seen.labels.get(name, -2) != label for name, label in zip(found.ids, found.labels.tolist(), strict=True)
        ):
            return False
        # Scores are kept with fewer digits than they were measured with, so that equal ones may be ranked otherwise.
        return abs(accuracy(found.scores, np.asarray(found.labels)) - event["top1"]) <= 2 / len(found.ids)

    def figures(self) -> dict[str, Any] | None:
        event = self.evaluation()
        if event is None:
            return None
        events = events_of(self.folder)
        start, epochs = last_start(events), epochs_of(events)
        probe, cost = as_dict(event.get("probe")), as_dict(start.get("cost"))
        no_pairs = {"pair_top1": None, "within_pair_top1": None}
        return {
            "seed": self.seed,
            "run": str(self.folder),
            "top1": event["top1"],
            "top5": event["top5"],
            **(no_pairs if self.data.task is None else pairs_in(read_scores(self.scores))),
            "reversed_top1": number(probe.get("reversed_top1")),
            "shuffled_top1": number(probe.get("shuffled_top1")),
            "num_scored": event["num_scored"],
            "num_missing": event["num_missing"],
            "num_failed": event["num_failed"],
            "protocol": event["protocol"],
            "num_train": whole(start.get("num_train")),
            "num_skipped": whole(start.get("num_skipped")),
            "epochs": len(epochs),
            "train_seconds": seconds_of(epochs),
            "processes": whole(start.get("processes")) or 1,
            "last_train_loss": number(epochs[max(epochs)].get("train_loss")) if epochs else None,
            "params": whole(cost.get("params")),
            "macs": whole(cost.get("macs")),
        }

    def curve(self) -> dict[int, float]:
        """Validation top-1 by epoch, if it has begun and is the one that is asked for."""
        if self.objection() is not None:
            return {}
        rows = epochs_of(events_of(self.folder))
        return {epoch: top1 for epoch, row in rows.items() if (top1 := number(row.get("val_top1"))) is not None}

    def make(self, ssan: SsanCommand, execution: Execution) -> None:
        self.refuse_another()
        common = [*self.data.words, *execution.reading, "--seed", str(self.seed), "--quiet", "--json"]
        if not self._is_trained():
            ssan(
                "train", "--recipe", str(self.recipe_file), "--out", str(self.folder), "--resume",
                *execution.skipping, *common, num_processes=execution.processes,
            )  # fmt: skip
        ssan(
            "eval", str(self.folder), "--split", self.data.split, "--scores", str(self.scores),
            *(word for key, value in PROTOCOL.items() for word in (f"--{key}", str(value))),
            *(["--probe"] if self.data.task else []), *common,
        )  # fmt: skip
        ssan("report", str(self.folder))

    def _is_trained(self) -> bool:
        if not has_ended(events_of(self.folder)):
            return False
        if not (self.folder / "model.safetensors").exists():
            raise UsageError(
                "the run has ended, and its model.safetensors is gone; remove the folder and run again, or put it back",
                code="missing",
                path=str(self.folder),
            )
        return True

    def finish_page(self) -> None:
        path = self.folder / "report.html"
        if not path.exists():
            report([str(self.folder)], str(path))


def _is_measured(event: Mapping[str, Any]) -> bool:
    """Whether an evaluation has the figures that a table shows; what is no share or no count is none."""
    shares = [number(event.get("top1"))]
    if event.get("top5", "") is not None:  # of few classes it is
        shares.append(number(event.get("top5")))
    counts = [whole(event.get(key)) for key in ("num_scored", "num_missing", "num_failed")]
    return all(share is not None and 0 <= share <= 1 for share in shares) and all(
        count is not None and count >= 0 for count in counts
    )


def pairs_in(scores: ScoreFile) -> dict[str, float | None]:
    """Of a rendered task's scores, the share of answers in the right pair, and the right ones among these.

    Classes 2n and 2n + 1 are a pair.
    """
    pairs = [(2 * n, 2 * n + 1) for n in range(len(scores.classes) // 2)]
    pair, within = pair_accuracies(scores.scores.argmax(axis=1), scores.labels, pairs)
    return {"pair_top1": pair, "within_pair_top1": within}


def runs_of(
    row: Row,
    data: Data,
    seeds: int | Iterable[int],
    out: Path,
    overrides: Sequence[str] = (),
    *,
    mini: str | None = None,
) -> list[ClassifierRun]:
    """The runs of a row, one for each seed, of a number from 0 on; none of a row without recipe."""
    recipe = recipe_of(row, data, overrides, mini=mini)
    if recipe is None:
        return []
    folder = out / "runs" / data.name / network_name(recipe)
    each = range(seeds) if isinstance(seeds, int) else seeds
    return [
        ClassifierRun(recipe.model_copy(update={"seed": seed}), seed, folder / f"seed_{seed}", data) for seed in each
    ]


# ----------------------------------------------------------------------------------------------------------- a table


@dataclass
class RecognitionRequest(TableRequest[Row, ClassifierRun]):
    """What is asked for of one of tables 1 to 6."""

    template: ClassVar[str] = "table.html.j2"
    measures: ClassVar[tuple[str, ...]] = (
        "top1", "top5", "pair_top1", "within_pair_top1", "reversed_top1", "shuffled_top1",
    )  # fmt: skip
    headline: ClassVar[tuple[str, str]] = ("top-1", "top1")

    def runs(self, row: Row, data: Data, *, seeds: Iterable[int] | None = None) -> list[ClassifierRun]:
        return runs_of(row, data, self.seeds if seeds is None else seeds, self.out, self.overrides, mini=self.mini)

    def ensembles(self, row: Row, data: Data, failed: list[SsanError], *, make: bool) -> list[dict[str, Any]]:
        found = []
        members = [{run.seed: run for run in self.known(self.table.row(name), data)} for name in row.members]
        for seed in sorted(set.intersection(*map(set, members))):
            runs = [by_seed[seed] for by_seed in members]
            if any(run.evaluation() is None for run in runs):
                continue
            name = f"{self.table.name}_{row.name}_seed_{seed}"
            scores = self.out / "ensembles" / data.name / f"{name}.npz"
            answer = _made_of(runs, scores)
            if answer is None and make:
                try:
                    with CommandRunner(self.execution.threads) as runner:
                        ssan = partial(runner.run, log=self.out / "logs" / f"{name}.log", some_may_fail=True)
                        made = add_scores(runs, ssan, scores)
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

    def about_row(self, row: Row) -> dict[str, Any]:
        return {
            "frames": row.frames,
            "recipe": row.recipe,
            "members": list(row.members),
            "paper": {"top1": row.top1, "top5": row.top5, "test_top1": row.test_top1},
        }

    def about_data(self, data: Data, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        every = [figures for row in rows for figures in row["seeds"]]
        return {
            "name": data.name,
            "words": list(data.words),
            "split": data.split,
            "task": data.task,
            "num_scored": agreed([figures["num_scored"] for figures in every]),
            "num_train": agreed([figures["num_train"] for figures in every if "num_train" in figures]),
        }

    def about_sets(self, sets: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        return {"backbone": self.mini, "data": list(sets)}

    def section(self, data: Data, found: Mapping[str, Any]) -> dict[str, Any]:
        seeds = [figures for row in found["rows"] for figures in row["seeds"]]
        has_pairs = any(row["pair_top1"] is not None for row in found["rows"])
        top5 = not seeds or any(figures["top5"] is not None for figures in seeds)
        several = len({row.frames for row in self.table.rows}) > 1
        names = [f"{row.title} {row.frames}f" if several else row.title for row in self.rows]
        curves = [[run.curve() for run in self.known(row, data)] for row in self.rows]
        pairs = [
            ours("right\npair", "pair_top1"), ours("direction", "within_pair_top1"),
            ours("frames\nreversed", "reversed_top1"), ours("frames\nshuffled", "shuffled_top1"),
        ]  # fmt: skip
        return {
            "protocol": agreed([_without_split(figures["protocol"]) for figures in seeds if "run" in figures]),
            "has_pairs": has_pairs,
            "num_missing": max((figures.get("num_missing", 0) for figures in seeds), default=0),
            "num_failed": max((figures.get("num_failed", 0) for figures in seeds), default=0),
            "curves": dict(zip(names, curves, strict=True)),
            "watched": "validation top-1",
            "columns": [
                Column("frames", lambda row: row["frames"]),
                papers("top-1", "top1"),
                ours("ours\ntop-1", "top1", "own"),
                *(pairs if has_pairs else [papers("top-5", "top5"), ours("ours\ntop-5", "top5")] if top5 else []),
                SEEDS,
                Column("param.\nM", lambda row: f"{params / 1e6:.2f}" if (params := _cost(row, "params")) else ""),
                Column("mult.-adds\nG", lambda row: _in_billions(_cost(row, "macs"))),
                Column("training\nhours", _hours),
                by_recipe("recipe", "recipe", lambda row: " + ".join(row["members"])),
                Column("runs", self._links, "left"),
            ],
        }

    def _links(self, row: Mapping[str, Any]) -> Markup:
        links = []
        for figures in _trained(row):
            page, journal = (Path(figures["run"]) / name for name in ("report.html", "journal.jsonl"))
            link = os.path.relpath(page if page.exists() else journal, self.out)
            links.append(Markup('<a href="{}">{}</a>').format(link, figures["seed"]))
        return Markup(" ").join(links)


def _trained(row: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The figures of runs, not of ensembles."""
    return [figures for figures in row["seeds"] if "run" in figures]


def _cost(row: Mapping[str, Any], key: str) -> Any:
    return agreed([figures[key] for figures in _trained(row)])


def _in_billions(num: int | None) -> str:
    return "" if not num else f"{num / 1e9:.1f}" if num >= 5e8 else f"{num / 1e9:.3f}"


def _hours(row: Mapping[str, Any]) -> str:
    hours = [figures["train_seconds"] * figures["processes"] / 3600 for figures in _trained(row)]
    return f"{sum(hours) / len(hours):.2f}" if hours else ""


def _without_split(protocol: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in protocol.items() if key not in ("split", "num_frames", "members")}


def add_scores(members: Sequence[ClassifierRun], ssan: SsanCommand, scores: Path) -> dict[str, Any]:
    """Add the scores of runs to an ensemble's; the answer of ``ssan ensemble``."""
    scores.parent.mkdir(parents=True, exist_ok=True)
    files = [str(run.scores) for run in members]
    answer: dict[str, Any] = json.loads(ssan("ensemble", *files, "-o", str(scores), "--json"))
    return answer


def _made_of(runs: Sequence[ClassifierRun], scores: Path) -> dict[str, Any] | None:
    """What is known of an ensemble's scores, if they are there and of these very runs; else they are made again."""
    try:
        answer = read_json(scores.with_suffix(".json"))
        if not isinstance(answer, dict) or answer.get("sha256") != _hashes(runs, scores):
            return None
    except (SsanError, OSError):  # killed before the one or the other was there
        return None
    return answer


def _hashes(runs: Sequence[ClassifierRun], scores: Path) -> dict[str, Any]:
    return {"members": [sha256(run.scores) for run in runs], "scores": sha256(scores)}
