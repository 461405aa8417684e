"""Recipes of the rows of tables 1 to 6, the data that they are trained on, and the names of their folders."""

import inspect
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ssan.errors import UsageError, unknown
from ssan.layers import LAYERS
from ssan.models.catalogue import BACKBONES, MODELS, NETWORKS, specification, without_memory
from ssan.recipe import Recipe, make_recipe, read_recipe
from ssan.recognition.train import complete
from ssan.reproduce.sameness import Seen
from ssan.reproduce.tables import Row, none_trainable
from ssan.shipped import shipped
from ssan.weights.classifier_file import build_from


@dataclass(frozen=True)
class Task:
    """A set of rendered videos whose classes come in pairs that differ by direction alone."""

    level: str
    num_videos: int
    num_classes: int
    size_px: int = 48


# The sizes and levels at which the small networks were found to learn and not to learn everything.
TASKS = {"order": Task("clear", 2000, 6), "relation": Task("cue_far_colours", 2900, 4)}


@dataclass(frozen=True)
class Data:
    """Labelled or captioned videos, and what is asked of them.

    :param name: of the folder that the runs on them are in.
    :param words: the options of the command line that name them.
    :param split: what is evaluated.
    :param task: the rendered task that they are, if they are one.
    :param seen: the videos as they are now; runs of others are none of these. None where nobody has looked.
    """

    name: str
    words: tuple[str, ...]
    split: str
    task: str | None = None
    seen: Seen | None = field(default=None, compare=False, repr=False)


def recipe_of(row: Row, data: Data, overrides: Sequence[str], *, mini: str | None) -> Recipe | None:
    """The recipe that trains a row; None where there is none: ensembles, and networks that are not ours.

    A small network has the row's layer, options and places, and its number of frames, in the backbone ``mini``; in the
    place of a network that is whole by itself there is the small one of its kind, with frames of its own. All that is
    learned with is as in the recipes of the task. None also where there is no small network, it has no such place, or
    is another row's.
    """
    if row.recipe is None:
        return None
    full = read_recipe(shipped()[row.recipe])
    values = full.model_dump()
    if mini is not None:
        values = read_recipe(shipped()[f"{data.task or 'order'}/tsn_tiny"]).model_dump()
        name = _small(full.model, mini)
        if name is None:
            return None
        num_frames = NETWORKS[name].num_frames if name in NETWORKS else full.num_frames
        values |= {"model": name, "num_frames": num_frames, "layer": {}, "places": {}}
        # Weights are random here, so a layer's start is left to that.
        values["layer"] = {key: value for key, value in full.layer.items() if key not in ("identity_start", "start")}
        if full.model.startswith("trn_"):
            values["layer"] = {}  # as many features as the small network has
        places = {**full.places, **row.places}
        stages = places.get("stages", [])
        if mini == "tiny" and ("res5" in stages or places.get("every", 1) != 1):  # it has three stages of one block
            return None
        values["places"] = places
    layer = {**values["layer"], **row.layer}
    if layer.get("identity_start") == "other":
        layer["identity_start"] = mini is not None
        layer.pop("start", None)
    if layer.get("output") == "plain":
        for key in ("identity_start", "start"):
            layer.pop(key, None)
    places = {**values["places"], **row.places}
    # One network has one recipe, whatever was said that goes without saying.
    values |= {"layer": _unusual_options(values["model"], layer), "places": _unusual_places(values["model"], places)}
    return make_recipe(values, overrides)


def check_rows(rows: Sequence[Row], overrides: Sequence[str], *, mini: str | None) -> None:
    """Look whether the rows can be trained, before anything is made for them.

    :raises UsageError: an override that no recipe takes, or none of the rows is a network of ours.
    """
    data = Data("data", (), "val")
    recipes = [recipe_of(row, data, overrides, mini=mini) for row in rows]
    for recipe in recipes:
        if recipe is not None:
            with without_memory():
                build_from(complete(recipe), 2)
    if not any(recipes):
        raise none_trainable(rows)


def _unusual_options(model: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a model's layer that are not its defaults; how it starts is always told."""
    layer = specification(model).layer
    usual = inspect.signature(LAYERS[layer]).parameters if layer else {}
    return {
        key: value
        for key, value in options.items()
        if key == "identity_start" or key not in usual or usual[key].default != value
    }


def _unusual_places(model: str, places: Mapping[str, Any]) -> dict[str, Any]:
    usual = specification(model).places
    return {
        key: value for key, value in places.items() if usual is None or value != _as_list(getattr(usual, key, None))
    }


def _as_list(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _small(model: str, backbone: str) -> str | None:
    if model in NETWORKS:
        return NETWORKS[model].small
    name = f"{model.rpartition('_')[0]}_{backbone}"
    if name not in MODELS:
        raise UsageError(f"there is no {name}: " + unknown("backbone", backbone, BACKBONES))
    return name


def network_name(recipe: Recipe) -> str:
    """A name for the folder of a network's runs: the model, its frames, and what of layer and places is set."""
    words = [recipe.model, f"{recipe.num_frames}f"]
    words += [f"{key}-{_word(value)}" for key, value in sorted(recipe.layer.items())]
    words += [f"{key}-{_word(value)}" for key, value in sorted(recipe.places.items())]
    return re.sub(r"[^A-Za-z0-9_.-]+", "_", "_".join(words))


def _word(value: Any) -> str:
    return "-".join(map(str, value)) if isinstance(value, list) else str(value).lower()


def seeds_of(folder: Path, num_asked: int) -> list[int]:
    """The seeds that are asked for, from 0 on, and those of the runs that earlier calls have left in the folder."""
    there = [re.fullmatch(r"seed_(0|[1-9]\d{0,17})", path.name) for path in folder.glob("seed_*")]
    return sorted({*range(num_asked), *(int(found[1]) for found in there if found)})
