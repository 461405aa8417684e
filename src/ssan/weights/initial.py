"""Initial weights of a classifier: whose they are, and what of them it takes."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from ssan.errors import ModelError, UsageError, few, named
from ssan.files import sha256
from ssan.models.catalogue import MODELS, build, channels_last, specification
from ssan.models.classifier import Classifier
from ssan.recipe import Recipe, make_recipe
from ssan.weights.model_file import PREFIX, read_model_file, wrong_model
from ssan.weights.named import NAMED
from ssan.weights.open_model import class_names, read_named
from ssan.weights.state_dict import LoadReport, imagenet_file, load_backbone, read_state_dict

# What of a recipe says how the network computes, beside its weights.
NETWORK = ("model", "layer", "places", "backbone", "consensus")


@dataclass(frozen=True)
class Initial:
    """Weights from a file.

    :param path: the file.
    :param classes: names of the classes that its classifier scores, in the order of its rows; empty if not known.
    :param recipe: of the network that they are of; None if not known.
    """

    path: str
    state: dict[str, Tensor]
    classes: list[str] = field(default_factory=list)
    recipe: Recipe | None = None


@dataclass(frozen=True)
class Start:
    """What a run starts from, for the journal, the answer and the screen.

    :param told: lines for the screen.
    :param warnings: lines about what was lost, which are said in any case.
    """

    fields: dict[str, Any]
    told: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def start_from(model: Classifier, recipe: Recipe, classes: Sequence[str]) -> Start:
    """Load what the recipe's ``init`` names into a model, and say what became of it.

    :raises ModelError: the weights are another network's, or of no network.
    """
    if recipe.init is None:
        return Start(LoadReport().as_dict())
    backbone = specification(recipe.model).backbone
    given = read_initial(str(imagenet_file(backbone)) if recipe.init == "imagenet" else recipe.init)
    report = load_backbone(model, given.state, source=given.path, classes=classes, of_file=given.classes)
    differences = _differences(given.recipe, recipe)
    fields = {**report.as_dict(), "num_classes": len(classes), "differences": differences, "sha256": sha256(given.path)}
    told, warnings = _told(report, given, model, classes), []
    if report.lost:
        warnings.append(
            f"{given.path}: the file has layers between frames that are lost: {len(report.lost)} of their tensors have "
            f"no counterpart in this model, or another shape ({few(report.lost, show=named)}). Name the model and the "
            "layer's options that the file was trained with to keep them"
        )
    if differences:
        # Of a network without layers between frames nothing can be lost but by its backbone, which fits.
        (warnings if _looks_across_frames(given.recipe) else told).append(
            f"{given.path}: the weights are of a network that computes otherwise: {'; '.join(differences)}"
        )
    return Start(fields, told, warnings)


def build_pretrained(name: str, init: str) -> tuple[Classifier, str]:
    """A network by its name in ``ssan models`` with all of its weights from a file, but those that score classes.

    :param init: a file of weights, a name of ``ssan weights list``, or ``imagenet``.
    :return: the network, with a single class, in channels-last memory and evaluation mode, and the path of the file.
    :raises ModelError: weights that leave something of the backbone, or a layer between frames, as it was drawn.
    """
    spec = specification(name)
    if init in NAMED and not os.path.exists(init):
        file, state = read_named(NAMED[init])
        path = str(file)
    else:
        path = str(imagenet_file(spec.backbone)) if init == "imagenet" else init
        state = read_state_dict(path)
    model = build(name, num_classes=1)
    report = load_backbone(model, state, source=path)
    untrained = [key for key in report.missing if key.startswith("backbone.") and not key.endswith("_tracked")]
    if untrained:
        raise wrong_model(
            f"it has no weights for the layers of {name} that look across frames ({untrained[0]} and "
            f"{len(untrained) - 1} more), whose features would be noise; give a model that was trained, or take "
            f"tsn_{spec.backbone}",
            path,
        )
    channels_last(model)
    return model.eval(), path


def seen_as_published(name: str, num_frames: int) -> dict[str, Any]:
    """What a network by its name in ``ssan models`` sees of a video, with weights that were not trained here.

    Unsaid by the paper, our choice: pictures as classifiers of ImageNet are tested, resized by their short side and cut
    out of the middle (256 and 224 px); a network that is whole by itself sees what it was published with.

    :param num_frames: of a clip, unless the network was published with a number.
    :return: fields of ``Preprocess``, which are keys of a recipe too.
    """
    spec = specification(name)
    usual = {
        "num_frames": num_frames,
        "resize": "short_side",
        "size_px": round(spec.size_px * 256 / 224),
        "crop_px": spec.size_px,
    }
    return {**usual, **spec.preprocess}


def read_initial(init: str) -> Initial:
    """The tensors of a weights file; of a model file, a run's folder or named weights also its classes and recipe.

    :param init: a path, or a name of ``ssan weights list`` whose file is here.
    :raises ModelError: there is no such file, it cannot be read safely, or it is no classifier's.
    """
    if init.startswith("hf:"):
        raise UsageError(
            "a model of transformers has no weights of a network of ours, so that nothing can start from it; fit a "
            "head on it with `ssan probe`",
            path=init,
        )
    if init in NAMED and not os.path.exists(init):
        weights = NAMED[init]
        file, state = read_named(weights)
        recipe = make_recipe(dict(weights.recipe)) if weights.what == "classifier" else None
        return Initial(str(file), state, class_names(weights), recipe)
    path = os.path.join(init, "model.safetensors") if os.path.isdir(init) else init
    if os.path.isdir(init) and not os.path.isfile(path):
        raise ModelError(
            "the folder holds no model.safetensors; --init takes a weights file, or the folder of a run that has kept "
            "a model",
            code="missing",
            path=init,
        )
    if not _is_model_file(path):
        return Initial(path, read_state_dict(path))
    tensors, metadata = read_model_file(path)
    if metadata.get("kind") == "retrieval":
        raise wrong_model(
            "it is a joint space of texts and videos, which has no network for videos; give it to `ssan retrieval "
            "train --init`",
            path,
        )
    if "encoder" in metadata:
        raise wrong_model(
            "it is a head on an encoder of transformers, and has no weights of a network of ours; take it with "
            "`ssan predict`, or give another run",
            path,
        )
    classes = metadata.get("classes")
    try:
        recipe = make_recipe(metadata["recipe"]) if isinstance(metadata.get("recipe"), dict) else None
    except UsageError as error:
        raise wrong_model(
            f"its recipe cannot be read by this version: {error.message}; use the version it was trained with", path
        ) from error
    return Initial(path, tensors, [str(name) for name in classes] if isinstance(classes, list) else [], recipe)


def _is_model_file(path: str) -> bool:
    """Whether a file says that it is a model of ours; what cannot be read is left to who reads it next."""
    if Path(path).suffix != ".safetensors" or not os.path.isfile(path):
        return False
    try:
        with safe_open(path, framework="pt") as file:
            return f"{PREFIX}format" in (file.metadata() or {})
    except (SafetensorError, OSError, ValueError):
        return False


def _differences(old: Recipe | None, new: Recipe) -> list[str]:
    """In what the network of the file computes otherwise, be its weights of the same shapes."""
    if old is None:
        return []
    found = []
    for key in NETWORK:
        one, other = getattr(old, key), getattr(new, key)
        if isinstance(one, dict):
            # How a layer starts is no part of what it computes.
            words = sorted({*one, *other} - {"identity_start", "start"})
            pairs = [(f"{key}.{word}", one.get(word), other.get(word)) for word in words]
        else:
            pairs = [(key, one, other)]
        found += [f"{name} is {theirs!r} there and {ours!r} here" for name, theirs, ours in pairs if theirs != ours]
    return found


def _told(report: LoadReport, given: Initial, model: Classifier, classes: Sequence[str]) -> list[str]:
    num = report.matched + len(report.missing)
    lines = [f"weights of {given.path}: {report.matched} of the model's {num} tensors taken"]
    if report.inflated:
        lines.append(
            f"  inflated: {report.inflated} of them are filters of pictures, now repeated over time and divided by its "
            "length"
        )
    if report.classes_taken:
        lines.append(f"  the classifier starts with {report.classes_taken} of {len(classes)} classes, by their names")
    elif any(name.startswith(("fc.", "classifier.1.", "consensus.")) for name in given.state):
        why = "no class has a name of the file's" if given.classes else "the file does not name its classes"
        lines.append(f"  the classifier starts at random: {why}")
    rest = [name for name in report.missing if not name.startswith(model.class_rows) and not _counts(name)]
    if rest:
        lines.append(f"  at random: {len(rest)} tensors ({few(rest, show=named)})")
    unknown = [name for name in report.unexpected if name not in report.lost]
    if unknown:
        shown = few(unknown, show=named)
        lines.append(f"  not of this network, left out: {len(unknown)} tensors of the file ({shown})")
    return lines


def _looks_across_frames(recipe: Recipe | None) -> bool:
    spec = MODELS.get(recipe.model) if recipe is not None else None
    return spec is not None and bool(spec.layers or spec.consensus)


def _counts(name: str) -> bool:
    return name.endswith("num_batches_tracked")
