"""Sameness of runs: whether one that is there is the one asked for, by the recipe and data its journal tells of.

A folder of runs outlives the command that made them. The next command may name other videos, other captions or other
features, render another number of videos, or change a recipe: what was made of those is not its.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ssan.datasets.fingerprint import differences, fingerprint
from ssan.datasets.source import DataSource
from ssan.errors import UsageError
from ssan.recipe import Recipe, RetrievalRecipe, make_recipe, make_retrieval_recipe
from ssan.retrieval.fingerprint import differences as material_differences
from ssan.retrieval.fingerprint import fingerprint as material_fingerprint
from ssan.training.journal import planned_epochs
from ssan.training.run_folder import change

MOST_SAID = 3
"""Of the differences between two runs, so many are named."""
MOMENTS = ("start", "resumed", "epoch", "interrupted", "failed", "end")


@dataclass(frozen=True)
class Seen:
    """Labelled videos as they are now.

    :param splits: the fingerprints of ``train``, ``val``, and of what is evaluated.
    :param labels: the class of each video that is evaluated, by its id.
    """

    root: str
    splits: Mapping[str, Mapping[str, Any]]
    split: str
    labels: Mapping[str, int | None]
    classes: Sequence[str]


@dataclass(frozen=True)
class SeenMaterial:
    """Captions and features as they are now: what is trained on, and what is evaluated; and where they lie."""

    root: str
    features: Sequence[str]
    training: Mapping[str, Any]
    evaluated: Mapping[str, Any]


OPTIONS = ("annotations", "videos", "splits", "val_groups", "val_fraction", "fold", "groups")
"""Of the command line, by which any format is read; other options are those of ``--reader``."""


def words_of(source: DataSource, option: str = "--data") -> tuple[str, ...]:
    """The options of the command line that name these data: the inverse of ``source_of``."""
    words = [option, source.root, "--format", source.format]
    for key, value in source.options.items():
        words += [f"--{key.replace('_', '-')}", value] if key in OPTIONS else ["--reader", f"{key}={value}"]
    return tuple(words)


def source_of(words: Sequence[str]) -> DataSource:
    """The data that options of the command line name."""
    said = dict[str, str]()
    options = dict[str, str]()
    for option, value in zip(words[::2], words[1::2], strict=False):
        key = option.removeprefix("--").replace("-", "_")
        if option == "--reader":
            key, _, value = value.partition("=")
        (options if option == "--reader" or key in OPTIONS else said)[key] = value
    return DataSource(said.get("data") or said["captions"], said.get("format", "auto"), options)


def see(words: Sequence[str], split: str) -> Seen:
    """Look at labelled videos.

    :raises SsanError: they cannot be read.
    """
    source = source_of(words)
    read = {name: source.read(name) for name in dict.fromkeys(("train", "val", split))}
    asked = read[split]
    return Seen(
        source.root,
        {name: fingerprint(samples) for name, samples in read.items()},
        split,
        {sample.id: sample.label_index for sample in asked},
        read["train"].classes,
    )


def see_material(
    words: Sequence[str],
    features: Mapping[str, str],
    split: str | None,
    *,
    val: str | None = None,
    vectors: str | None = None,
    narrations: str | None = None,
) -> SeenMaterial:
    """Look at captions and features.

    :param split: that is evaluated; None of what is trained on alone.
    :param val: that chooses the best epoch; None where none does.
    :raises SsanError: they cannot be read.
    """
    source = source_of(words)
    trained = {"train": source.read("train"), "val": None if val is None else source.read(val)}
    return SeenMaterial(
        source.root,
        list(features.values()),
        material_fingerprint(trained, features, vectors=vectors, narrations=narrations),
        {} if split is None else material_fingerprint({split: source.read(split)}, features),
    )


def last_start(events: Iterable[Mapping[str, Any]]) -> Mapping[str, Any]:
    """The event by which a run was begun, with the epochs that were asked for since; empty where it has not been."""
    events = list(events)
    start: Mapping[str, Any] = next((event for event in reversed(events) if event.get("event") == "start"), {})
    if not isinstance(start.get("recipe"), Mapping):
        return start
    return {**start, "recipe": {**start["recipe"], "epochs": planned_epochs(events)}}


def has_ended(events: Iterable[Mapping[str, Any]]) -> bool:
    """Whether the last that is told of a training is its end."""
    told = [event.get("event") for event in events if event.get("event") in MOMENTS]
    return bool(told) and told[-1] == "end"


def evaluations(events: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """What was measured of the model as it is now, the latest first: not what was before the last epoch."""
    last = max((index for index, event in enumerate(events) if event.get("event") == "epoch"), default=-1)
    return [event for event in reversed(events[last + 1 :]) if event.get("event") == "evaluated"]


def other_recipe(start: Mapping[str, Any], asked: Recipe | RetrievalRecipe, *, unset: Sequence[str] = ()) -> list[str]:
    """In what the recipe of a run that was begun differs from the one that is asked for, in words.

    A version that lacked a key did as its default says.

    :param asked: complete.
    :param unset: keys that follow from the data at hand.
    """
    used = start.get("recipe")
    if not isinstance(used, Mapping):
        return ["its journal has no recipe"]
    plain = make_recipe({}) if isinstance(asked, Recipe) else make_retrieval_recipe({})
    whole = {**json.loads(plain.model_dump_json()), **used}
    wanted = json.loads(asked.model_dump_json())
    return [change(key, whole.get(key), value) for key, value in wanted.items()
            if key not in unset and whole.get(key) != value]  # fmt: skip


def other_videos(start: Mapping[str, Any], seen: Seen | None) -> list[str]:
    """In what the videos that a run was begun on differ from those that are asked for, in words.

    Of a run of a version that wrote down neither sizes nor whole lists, the lists from which nothing was left out, and
    the folder.
    """
    if seen is None:
        return []
    said = []
    if start.get("classes") is not None and start["classes"] != list(seen.classes):
        said.append(change("classes", start["classes"], list(seen.classes)))
    listed = start.get("listed")
    if isinstance(listed, Mapping):
        for split in ("train", "val"):
            said += differences(listed.get(split), seen.splits[split], split)
        return _and_from_where(said, start, seen.root)
    for split in ("train", "val"):
        now = seen.splits[split]
        then = {"num": start.get(f"num_{split}"), "list": start.get(f"{split}_list")}
        if start.get("num_skipped") in (0, None):
            said += differences(then, now, split)
    if not said and (before := _root(start)) not in (None, seen.root):
        said.append(f"the data {before!r} are now {seen.root!r}")
    return _and_from_where(said, start, seen.root)


def is_of_these_videos(event: Mapping[str, Any], seen: Seen | None) -> bool:
    """Whether an evaluation is of the videos that are asked for."""
    if seen is None:
        return True
    now = seen.splits[seen.split]
    listed = event.get("listed")
    if isinstance(listed, Mapping):
        return not differences(listed, now, seen.split)
    return event.get("list") in (None, now["list"]) and _root(event) in (None, seen.root)


def other_material(start: Mapping[str, Any], seen: SeenMaterial | None) -> list[str]:
    """In what the captions and features that a run was begun on differ from those that are asked for, in words."""
    if seen is None:
        return []
    if isinstance(start.get("listed"), Mapping):
        return material_differences(start["listed"], seen.training)
    now, data = seen.training["captions"]["train"], start.get("data")
    if start.get("train_list") not in (None, now["list"]):
        return ["other captions (train)"]
    return _elsewhere(_root(start), data.get("features") if isinstance(data, Mapping) else None, seen)


def is_of_this_material(event: Mapping[str, Any], seen: SeenMaterial | None) -> bool:
    """Whether an evaluation is of the captions and features that are asked for."""
    if seen is None:
        return True
    if isinstance(event.get("listed"), Mapping):
        return not material_differences(event["listed"], seen.evaluated)
    return not _elsewhere(_root(event), event.get("features"), seen)


def _elsewhere(root: Any, features: Any, seen: SeenMaterial) -> list[str]:
    """Of a run of a version that wrote down no more: whether its captions and features lay elsewhere."""
    said = [] if root in (None, seen.root) else [f"the captions {root!r} are now {seen.root!r}"]
    if features is not None and features != list(seen.features):
        said.append(f"the features {features!r} are now {list(seen.features)!r}")
    return said


def refused(differing: Sequence[str], folder: str) -> UsageError:
    """What is said of a run that is there and is not the one that is asked for."""
    more = f"; and {len(differing) - MOST_SAID} more" if len(differing) > MOST_SAID else ""
    return UsageError(
        f"the run that is there was made otherwise: {'; '.join(differing[:MOST_SAID])}{more}. Name another folder with "
        "--out, or remove this one",
        path=folder,
    )


def _and_from_where(said: list[str], event: Mapping[str, Any], root: str) -> list[str]:
    before = _root(event)
    return [*said, f"the data were {before!r} and are {root!r}"] if said and before not in (None, root) else said


def _root(event: Mapping[str, Any]) -> Any:
    data = event.get("data")
    return data.get("root") if isinstance(data, Mapping) else None
