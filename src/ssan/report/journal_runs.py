"""Runs as their journals tell of them: one read from its folder, and several of them set side by side.

Nothing else of a run is opened. A journal may come from an older version, or from elsewhere: what it lacks, and what is
not of the kind expected there, is None.
"""

import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import mean, median, stdev
from typing import Any, Literal

from ssan.errors import UsageError, quoted, shortened
from ssan.training.journal import planned_epochs, read_journal
from ssan.training.metrics import FEWEST_FOR_TOP5, wilson_interval
from ssan.video.clip import FramePart, Part

Status = Literal["finished", "interrupted", "failed", "not ended"]
STATUS_AFTER: dict[str, Status] = {
    "start": "not ended", "resumed": "not ended", "interrupted": "interrupted", "failed": "failed", "end": "finished",
}  # fmt: skip
# What a protocol usually takes from the model; the rest is how it was tested.
OF_THE_MODEL = ("num_frames", "sampling", "stride", "resize", "size_px", "crop_px")
# What of that can be set for testing.
SIZES = ("resize", "size_px", "crop_px")
LARGEST = 3.5e38
MOST_COUNTED = 10**12
MOST_WRONG = 100
PROBE = ("reversed_top1", "shuffled_top1", "reversed_same_prediction")


@dataclass(frozen=True)
class WrongAnswer:
    """A video that an evaluation answered wrongly.

    :param score: share of the class predicted, and ``probability`` of the true one.
    :param part: of the video that was asked; None of all of it.
    """

    path: str
    label: str
    predicted: str
    score: float | None
    probability: float | None
    part: Part | None


@dataclass(frozen=True)
class JournalThreshold:
    """A threshold that ``ssan eval --choose-threshold`` chose, and what it does to the videos it was chosen by.

    :param of_none: whether those that should have no answer are of none of the classes; else they are the wrong ones.
    :param num: of them, ``num_answered`` with an answer all the same.
    :param wanted: the largest share of these that was asked for.
    :param right_answered: share of the right answers that are given.
    :param kept: whether it was written to the model's file.
    """

    threshold: float
    of_none: bool
    num: int | None
    num_answered: int | None
    wanted: float | None
    right_answered: float | None
    kept: bool


@dataclass(frozen=True)
class JournalReversal:
    """What the end of training found of the order of frames: ``num`` videos asked again with their frames reversed."""

    num: int
    same_prediction: float
    top1: float | None
    num_answers: int | None = None


@dataclass(frozen=True)
class Evaluation:
    """One ``evaluated`` event.

    :param wrong: the worst of those answered wrongly, the worst first; ``num_wrong`` of them all.
    :param videos: the start of a hash of the list of videos; None where the journal has none.
    :param outdated: whether the run went on after it, so that its best model may be another now.
    :param repeats: earlier evaluations of the same videos under the same protocol that this one stands for.
    :param threshold: the last that was chosen here, or in one of those of the same model; one that was kept in its file
        goes before one that was not.
    """

    time: float | None
    split: str
    videos: str | None
    protocol: dict[str, Any]
    figures: dict[str, float | None]
    interval95: tuple[float, float] | None
    probe: dict[str, float | None] | None
    classes: list[str]
    counts: list[int | None]
    accuracies: list[float | None]
    confusion: list[tuple[int, int, int]] | None
    outdated: bool
    repeats: int
    num_wrong: int | None = None
    wrong: list["WrongAnswer"] = field(default_factory=list)
    threshold: JournalThreshold | None = None

    @property
    def testing(self) -> dict[str, Any]:
        """The part of the protocol that is not the model's own."""
        return {key: value for key, value in self.protocol.items() if key not in (*OF_THE_MODEL, "split")}

    @property
    def input(self) -> dict[str, Any]:
        """The part of the protocol that is the model's own."""
        return {key: self.protocol[key] for key in OF_THE_MODEL if key in self.protocol}

    def of_what(self, *, sizes: bool) -> tuple[str, ...]:
        """What must be equal for figures of two models to be comparable: split, videos, classes, way of testing.

        :param sizes: whether the sizes of pictures are part of the way of testing, and not the model's own.
        """
        given = {key: self.protocol.get(key) for key in SIZES} if sizes else {}
        return self.split, str(self.videos), as_key(self.classes), as_key({**self.testing, **given})


@dataclass(frozen=True)
class JournalRun:
    """A run as its journal tells it.

    :param folder: as the user named it.
    :param name: the shortest end of the folder's path that no other run of the report has.
    :param epochs: the ``epoch`` events by number; of two records of one, the later.
    :param moments: the events that say when the run was started, stopped or gone on with, oldest first.
    """

    folder: str
    name: str
    start: dict[str, Any]
    epochs: list[dict[str, Any]]
    evaluations: list[Evaluation]
    moments: list[dict[str, Any]]
    last_time: float | None
    measured: list[dict[str, Any]] = field(default_factory=list)
    probed: dict[str, Any] = field(default_factory=dict)

    @property
    def is_retrieval(self) -> bool:
        """Whether it is a joint space of texts and videos, whose evaluations are in ``measured``."""
        return self.start.get("task") == "retrieval"

    @property
    def is_probe(self) -> bool:
        """Whether it is a head on frozen features, of which ``probed`` has what was found."""
        return self.start.get("task") == "probe"

    @property
    def recipe(self) -> dict[str, Any]:
        """Every key of the recipe, inner ones as ``layer.NAME``."""
        return _flat(mapping(self.start.get("recipe")))

    @property
    def model(self) -> str | None:
        return word(self.recipe.get("model"))

    @property
    def seed(self) -> int | None:
        return whole(self.recipe.get("seed"))

    @property
    def classes(self) -> list[str]:
        classes = self.start.get("classes")
        return [str(label) for label in classes] if isinstance(classes, list) else []

    @property
    def environment(self) -> dict[str, Any]:
        """Of the start; of journals that do not have it, what stood in its place."""
        older = {key: self.start.get(key) for key in ("device", "processes")}
        return {**mapping(self.start.get("versions")), **older, **mapping(self.start.get("environment"))}

    @property
    def cost(self) -> dict[str, Any]:
        return mapping(self.start.get("cost"))

    @property
    def status(self) -> Status:
        return STATUS_AFTER[self.moments[-1]["event"]]

    @property
    def end(self) -> dict[str, Any]:
        """What training answered in the end; nothing of a run that has not ended, or went on since."""
        return self.moments[-1] if self.status == "finished" else {}

    @property
    def stopped_early(self) -> bool:
        return self.end.get("stopped_early") is True

    @property
    def reversal(self) -> JournalReversal | None:
        """What became of the best model's answers in the end with frames reversed; None where that was not asked."""
        num, same = whole(self.end.get("reversed_num")), number(self.end.get("reversed_same_prediction"))
        if num is None or num < 1 or same is None or not 0 <= same <= 1:
            return None
        return JournalReversal(
            num, same, number(self.end.get("reversed_top1")), whole(self.end.get("reversed_num_answers"))
        )

    @property
    def best(self) -> dict[str, Any] | None:
        """The epoch that is kept: the highest validation top-1, of equal ones the lowest loss."""
        rows = [row for row in self.epochs if number(row.get("val_top1")) is not None]

        def merit(row: Mapping[str, Any]) -> tuple[float, float]:
            loss = number(row.get("val_loss"))
            return number(row["val_top1"]) or 0.0, -math.inf if loss is None else -loss

        return max(rows, key=merit, default=None)

    @property
    def val_top1(self) -> float | None:
        return number(self.best["val_top1"]) if self.best else None

    @property
    def val_interval95(self) -> tuple[float, float] | None:
        """Wilson's interval of ``val_top1``; None where it is no share of that many videos."""
        share, num = self.val_top1, whole(self.start.get("num_val"))
        if share is None or not num or not 0 <= share <= 1:
            return None
        return wilson_interval(round(share * num), num)

    @property
    def train_seconds(self) -> float | None:
        """All epochs, each with its validation; epoch by epoch, so that a run that was resumed has the same sum."""
        seconds = self.each("seconds")
        return sum(seconds) if seconds else None

    @property
    def epoch_seconds(self) -> float | None:
        """Of the median epoch, with its validation."""
        seconds = self.each("seconds")
        return median(seconds) if seconds else None

    @property
    def videos_per_second(self) -> float | None:
        """Videos of an epoch, those for validation too, over the seconds of the median epoch."""
        num = [whole(self.start.get(key)) for key in ("num_train", "num_val")]
        if not self.epoch_seconds or None in num:
            return None
        return sum(n or 0 for n in num) / self.epoch_seconds

    def each(self, key: str) -> list[float]:
        """The values of a key over the epochs that have it."""
        return [value for value in (number(row.get(key)) for row in self.epochs) if value is not None]

    def curve(self, key: str) -> tuple[list[int], list[float]]:
        """Epochs and values of a key; NaN where an epoch has none."""
        values = [number(row.get(key)) for row in self.epochs]
        return [row["epoch"] for row in self.epochs], [math.nan if value is None else value for value in values]


@dataclass(frozen=True)
class RunGroup:
    """Runs whose recipes differ by the seed alone, on the same data, with the same effective batch."""

    name: str
    runs: list[JournalRun]

    @property
    def seeds(self) -> list[int]:
        return sorted({run.seed for run in self.runs if run.seed is not None})


@dataclass(frozen=True)
class Spread:
    """Mean of runs, their standard deviation (of a sample: divided by their number less one), and both ends."""

    num: int
    mean: float
    sd: float
    low: float
    high: float


def spread(values: Iterable[float | None]) -> Spread | None:
    """Mean and spread of two or more values; None of fewer."""
    known = [value for value in values if value is not None]
    if len(known) < 2:
        return None
    return Spread(len(known), mean(known), stdev(known), min(known), max(known))


def read_runs(folders: Sequence[str]) -> list[JournalRun]:
    """Read the journals of runs.

    :raises UsageError: a folder is no run, is named twice, or has a journal that cannot be one.
    """
    seen: dict[str, str] = {}
    for folder in folders:
        whole_path = os.path.realpath(folder)
        if whole_path in seen:
            raise UsageError(f"it is the same run as {seen[whole_path]}; name each run once", path=folder)
        seen[whole_path] = folder
    return [_read(folder, name) for folder, name in zip(folders, _names(list(seen)), strict=True)]


def _read(folder: str, name: str) -> JournalRun:
    path = Path(folder) / "journal.jsonl"
    if not path.is_file():
        what = "there is no journal.jsonl in it" if Path(folder).is_dir() else "there is no such folder"
        raise UsageError(f"no run: {what}; name the --out of an `ssan train`", code="missing", path=folder)
    # What is no word is no kind of event.
    events = [{**event, "event": word(event.get("event"))} for event in read_journal(path)]
    starts = [event for event in events if event["event"] == "start"]
    if not starts:
        raise UsageError(
            "the journal has no start, so nothing is known of the run; name the --out of an `ssan train` that has "
            "begun to train",
            code="bad_annotation",
            path=str(path),
        )
    start = {**starts[-1], "recipe": {**mapping(starts[-1].get("recipe")), **_planned(events)}}
    is_retrieval = start.get("task") == "retrieval"
    rows: dict[int, dict[str, Any]] = {}
    evaluations: dict[tuple[Any, ...], Evaluation] = {}
    for event in events:
        if event.get("event") == "epoch":
            epoch = whole(event.get("epoch"))
            if epoch is None:
                raise UsageError(
                    f"an epoch without its number: epoch is {quoted(str(event.get('epoch')), 80)}; copy the journal "
                    "again",
                    code="bad_annotation",
                    path=str(path),
                )
            rows[epoch] = event
    # The last event of the journal at which the best model may have changed.
    last = max((n for n, event in enumerate(events) if event.get("event") == "epoch"), default=-1)
    for index, event in enumerate(events):
        if event.get("event") == "evaluated" and not is_retrieval:
            found = _evaluation(event, str(path), outdated=index < last)
            key = (*found.of_what(sizes=True), as_key(found.input))
            before = evaluations.pop(key, None)  # made again, it moves to the end
            evaluations[key] = _again(found, before) if before else found
    times = [number(event.get("time")) for event in events]
    return JournalRun(
        folder=folder,
        name=name,
        start=start,
        epochs=[rows[epoch] for epoch in sorted(rows)],
        evaluations=list(evaluations.values()),
        moments=[event for event in events if event.get("event") in STATUS_AFTER],
        last_time=max((time for time in times if time is not None), default=None),
        measured=[event for event in events if event["event"] == "evaluated"] if is_retrieval else [],
        probed=next((event for event in reversed(events) if event["event"] == "probed"), {}),
    )


def _again(found: Evaluation, before: Evaluation) -> Evaluation:
    """An evaluation that was made before, under the same protocol."""
    threshold, older = found.threshold, before.threshold if before.outdated == found.outdated else None
    if older is not None and (threshold is None or (older.kept and not threshold.kept)):
        threshold = older
    return replace(found, repeats=before.repeats + 1, threshold=threshold)


def _planned(events: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """The epochs of the recipe, or those that were asked for since."""
    planned = planned_epochs(events)
    return {} if planned is None else {"epochs": planned}


def _evaluation(event: Mapping[str, Any], path: str, *, outdated: bool) -> Evaluation:
    protocol = mapping(event.get("protocol"))
    classes = [row for row in _sequence(event.get("per_class")) if isinstance(row, dict)]
    low, high = [number(end) for end in (*_sequence(event.get("interval95")), None, None)][:2]
    probe = event.get("probe")
    fields = ("top1", "top5", "mean_class_accuracy", "num_scored", "num_missing", "num_failed", "seconds")
    figures = {key: number(event.get(key)) for key in fields}
    if 0 < len(classes) < FEWEST_FOR_TOP5:  # earlier versions wrote it down
        figures["top5"] = None
    return Evaluation(
        time=number(event.get("time")),
        split=word(event.get("split")) or word(protocol.get("split")) or "",
        videos=word(event.get("list")),
        protocol=protocol,
        figures=figures,
        interval95=None if low is None or high is None else (low, high),
        probe={key: number(probe.get(key)) for key in PROBE} if isinstance(probe, dict) else None,
        classes=[str(row.get("label")) for row in classes],
        counts=[whole(row.get("num")) for row in classes],
        accuracies=[number(row.get("top1")) for row in classes],
        confusion=_confusion(event.get("confusion"), len(classes), path) or None,
        outdated=outdated,
        repeats=0,
        num_wrong=whole(event.get("num_wrong")),
        wrong=[
            answer
            for answer in map(_wrong, _sequence(event.get("wrong"))[:MOST_WRONG])
            if answer.path and answer.predicted
        ],
        threshold=_threshold(event.get("threshold")),
    )


def _threshold(value: Any) -> JournalThreshold | None:
    value = mapping(value)
    threshold = number(value.get("threshold"))
    if threshold is None:
        return None
    return JournalThreshold(
        threshold,
        value.get("of") == "none",
        whole(value.get("num")),
        whole(value.get("num_false_alarms")),
        number(value.get("false_alarms_wanted")),
        number(value.get("right_answered")),
        word(value.get("written")) is not None,
    )


def _wrong(row: Any) -> WrongAnswer:
    row = mapping(row)
    bounds = tuple(number(row.get(key)) for key in ("start_seconds", "end_seconds"))
    frames = tuple(whole(row.get(key)) for key in ("start_frame", "end_frame"))
    part: Part | None = None
    if frames != (None, None):
        part = FramePart(max(0, frames[0] or 0), frames[1])
    elif bounds != (None, None):
        part = (bounds[0], bounds[1])
    label, predicted, path = (word(row.get(key)) or "" for key in ("label", "predicted", "path"))
    return WrongAnswer(path, label, predicted, number(row.get("score")), number(row.get("probability")), part)


def _confusion(value: Any, num_classes: int, path: str) -> list[tuple[int, int, int]] | None:
    if not isinstance(value, list):
        return None
    found = []
    for cell in value:
        numbers = [whole(part) for part in cell] if isinstance(cell, list) else []
        if (
            len(numbers) != 3
            or not all(n is not None and 0 <= n < num_classes for n in numbers[:2])
            or not 0 <= (-1 if numbers[2] is None else numbers[2]) <= MOST_COUNTED
        ):
            raise UsageError(
                f"a confusion has {shortened(str(cell), 80)}; expected [true index, predicted index, count] of "
                f"{num_classes} classes; copy the journal again",
                code="bad_annotation",
                path=path,
            )
        true, predicted, count = (n or 0 for n in numbers)
        found.append((true, predicted, count))
    return found


def grouped(runs: Sequence[JournalRun]) -> list[RunGroup]:
    """The runs by what their recipes have in common but for the seed, in the order of the first of each."""
    together: dict[str, list[JournalRun]] = {}
    for run in runs:
        what = {key: value for key, value in run.recipe.items() if key != "seed"}
        data = [run.start.get(key) for key in ("classes", "train_list", "val_list", "effective_batch")]
        together.setdefault(as_key([what, data]), []).append(run)
    groups = list(together.values())
    recipes = [members[0].recipe for members in groups]
    names = []
    for members, recipe in zip(groups, recipes, strict=True):
        if len(members) == 1:
            names.append(members[0].name)
            continue
        same_model = [other for other in recipes if other.get("model") == recipe.get("model")]
        differing = [key for key in differences(same_model) if key != "seed" and recipe.get(key) is not None]
        said = [f"{key}={shown(recipe[key])}" for key in differing]
        names.append(", ".join([members[0].model or members[0].name, *said[:4]]))
    for n, name in enumerate(names):  # what is left differs in the data, which have no short name
        if names.count(name) > 1:
            names[n] = f"{name} ({groups[n][0].name})"
    return [RunGroup(name, members) for name, members in zip(names, groups, strict=True)]


def comparable(runs: Sequence[JournalRun]) -> list[list[tuple[JournalRun, Evaluation]]]:
    """The evaluations by what they are of, in the order in which they come.

    Models have sizes of their own, and can be compared all the same; but where a run was tested at several, each size
    is compared by itself.
    """
    for sizes in (False, True):
        together: dict[tuple[str, ...], list[tuple[JournalRun, Evaluation]]] = {}
        for run in runs:
            for evaluation in run.evaluations:
                together.setdefault(evaluation.of_what(sizes=sizes), []).append((run, evaluation))
        found = list(together.values())
        if all(len({run.folder for run, _ in rows}) == len(rows) for rows in found):
            break
    return found


def differences(mappings: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """The keys whose values are not all the same, each with its value in each mapping; None where one has it not."""
    keys = dict.fromkeys(key for mapping in mappings for key in mapping)
    values = {key: [mapping.get(key) for mapping in mappings] for key in keys}
    return {key: row for key, row in values.items() if any(value != row[0] for value in row)}


def warnings(runs: Sequence[JournalRun], groups: Sequence[RunGroup]) -> list[str]:
    """What makes the runs less comparable than their curves in one picture suggest."""
    said = []
    for key, what in (
        ("classes", "have other classes, or the same in another order"),
        ("val_list", "were validated on other videos"),
        ("train_list", "were trained on other videos"),
    ):
        sorts: dict[str, list[str]] = {}
        for run in runs:
            sorts.setdefault(as_key(run.start.get(key)), []).append(run.name)
        if len(sorts) > 1:
            each = "; ".join(_named(names) for names in sorts.values())
            said.append(f"These runs {what}, so their figures do not measure the same: {each}.")
    lists: dict[str, dict[str, list[str]]] = {}
    for run in runs:
        for evaluation in run.evaluations:
            names = lists.setdefault(evaluation.split, {}).setdefault(str(evaluation.videos), [])
            if run.name not in names:
                names.append(run.name)
    for split, by_list in lists.items():
        if len(by_list) > 1:
            each = "; ".join(_named(names) for names in by_list.values())
            said.append(
                f"The evaluations on {split} are of other videos, so they stand in tables of their own: {each}."
            )
    for group in groups:
        if len(group.runs) > len(group.seeds) and len(group.runs) > 1:
            said.append(
                f"{_named([run.name for run in group.runs])} have the same recipe and data, but {len(group.runs)} runs "
                f"have {len(group.seeds)} different seeds: the spread is not one over seeds alone."
            )
    unfinished = [run.name for run in runs if run.status != "finished"]
    if unfinished:
        said.append(f"Not finished: {_named(unfinished)}. Their figures are those of the epochs so far.")
    return said


def _named(names: Sequence[str]) -> str:
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")


def _names(paths: Sequence[str]) -> list[str]:
    """The last parts of each path, as many as it takes to tell them apart."""
    parts = [Path(path).parts for path in paths]
    for length in range(1, max(map(len, parts)) + 1):
        names = ["/".join(path[-length:]).replace("//", "/") for path in parts]
        if len(set(names)) == len(names):
            return names
    return list(paths)


def number(value: Any) -> float | None:
    """A finite number as it stands in a journal, or None; beyond what float32 holds it is none that a run has had."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value if abs(value) <= LARGEST else None  # false of NaN


def whole(value: Any) -> int | None:
    """A whole number as it stands in a journal, or None; the largest is that of a seed."""
    return value if isinstance(value, int) and number(value) is not None and abs(value) < 2**63 else None


def word(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def shown(value: Any) -> str:
    """A value of a recipe or an environment for people: as YAML and JSON have it, nothing for None."""
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def as_key(value: Any) -> str:
    """Equal for what is equal, whatever the order of its keys."""
    return json.dumps(value, sort_keys=True)


def _flat(recipe: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in recipe.items():
        if isinstance(value, dict):  # an empty one is as good as none
            found.update({f"{key}.{inner}": given for inner, given in value.items()} if value else {key: None})
        else:
            found[key] = value
    return found


def mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _sequence(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
