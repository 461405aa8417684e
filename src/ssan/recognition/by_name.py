"""Networks and trainings by name: what ``ssan.create_model`` and ``ssan.train`` are."""

import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ssan.datasets import Samples
from ssan.datasets.source import DataSource
from ssan.errors import UsageError
from ssan.models.classifier import Classifier
from ssan.recipe import Recipe, make_recipe, read_recipe
from ssan.recognition.train import complete
from ssan.recognition.train import train as train_classifier
from ssan.recognition.video_model import choose_device
from ssan.weights.classifier_file import build_from
from ssan.weights.initial import read_initial, start_from


def create_model(
    name: str,
    num_classes: int | None = None,
    *,
    pretrained: str | os.PathLike[str] | None = None,
    num_frames: int = 8,
    dropout: float = 0.5,
    layer: Mapping[str, Any] | None = None,
    places: Mapping[str, Any] | None = None,
) -> Classifier:
    """Make a network by its name in ``ssan models``: a module that maps videos (b, t, 3, h, w) to logits (b, k).

    ::

        network = create_model("ssan_r50", 174, pretrained="imagenet")
        logits = network(torch.zeros(2, 8, 3, 224, 224, dtype=torch.uint8))

    Pixels of type uint8 are normalised by the network; floating-point ones count as normalised already. It is in
    training mode, on the CPU. Unlike ``load_model`` it makes the network alone, without names of classes or
    preprocessing.

    :param num_classes: k. Without it the classifier is that of the file ``pretrained``, with its classes.
    :param pretrained: weights to start from: ``imagenet`` (fetched once, the backbone alone), a name of ``ssan weights
        list``, a file of weights, a model file, or a run's folder. With ``num_classes`` the classifier is new, and a
        layer between frames that is not in the file starts as the identity where it can.
    :param num_frames: of a clip, for networks that have weights for each (``trn_*``); others take any number.
    :param dropout: share of the features dropped in training.
    :param layer: options of the layer between frames, such as ``{"channel_branch": False}``.
    :param places: where it goes, if not the usual place, such as ``{"stages": ["res3"]}``.
    :raises UsageError: an unknown name or option, or a number of classes that nothing tells.
    :raises ModelError: the file is missing, damaged, or of another network.
    """
    init = None if pretrained is None else os.fspath(pretrained)
    recipe = complete(
        make_recipe({
            "model": name, "init": init, "num_frames": num_frames, "dropout": dropout,
            "layer": dict(layer or {}), "places": dict(places or {}),
        })
    )  # fmt: skip
    classes: list[str] = []
    if num_classes is None:
        classes = [] if init in (None, "imagenet") else read_initial(str(init)).classes
        if not classes:
            raise UsageError(
                "num_classes is not given, and "
                + ("there is no file" if init is None else f"{init} does not say")
                + " which classes there are; give their number, such as 174"
            )
    elif isinstance(num_classes, bool) or not isinstance(num_classes, int) or num_classes < 1:
        raise UsageError(f"num_classes is {num_classes!r}; expected a whole number, 1 or more")
    model = build_from(recipe, num_classes or len(classes))
    for warning in start_from(model, recipe, classes).warnings:
        warnings.warn(warning, stacklevel=2)
    return model


def train(
    recipe: str | os.PathLike[str] | Mapping[str, Any] | Recipe,
    data: str | os.PathLike[str] | tuple[Samples, Samples] | DataSource,
    out: str | os.PathLike[str],
    *,
    changes: Mapping[str, Any] | None = None,
    resume: bool = False,
    skip_bad: bool = False,
    device: str = "auto",
    workers: int = 0,
    quiet: bool = False,
    model: Classifier | None = None,
) -> dict[str, Any]:
    """Train a classifier on labelled videos, and keep the best one in a folder that ``load_model`` takes.

    ::

        train("finetune/ssan_efficientnet_lite0", "videos", "runs/mine", changes={"epochs": 20})
        load_model("runs/mine").predict("inbox")

    The answer says what came out, with the fields of ``ssan train --json``: ``val_top1`` (in 0..1), ``best_epoch``,
    ``num_train``, ``num_val``, ``num_skipped``, ``train_seconds``, ``model`` (the path of the file) and others. What
    the run did is in its folder (``recipe.yaml``, ``journal.jsonl``, ``metrics.csv``). Ctrl-C ends it with its state
    saved.

    :param recipe: the name of one in ``ssan recipes list``, a YAML file, or the keys themselves,
        ``{"model": "ssan_tiny", "epochs": 3}``, with defaults for the rest; ``ssan.recipe.Recipe`` describes each key.
    :param data: the path of labelled videos, split into ``train`` and ``val``; two lists of ``ssan.read_dataset``,
        ``(train, val)``; or ``ssan.datasets.source.DataSource``, where more than the path is to be said.
    :param out: folder of the run; a new one, or with ``resume`` that of a run that is to go on.
    :param changes: keys of the recipe that are to differ.
    :param skip_bad: leave out videos that cannot be read, and list them in ``skipped.csv``.
    :param device: ``cpu`` or ``cuda``; ``auto`` is the GPU where there is one.
    :param workers: processes that read videos; 0 reads in this one. More need a script whose work is in
        ``if __name__ == "__main__":``, wherever processes are not forked.
    :param quiet: no progress on standard error.
    :param model: a network of one's own (``ssan.video_classifier``) in the place of one that the recipe names.
    :raises UsageError: the recipe, the data or the folder does not allow it.
    :raises VideoError, AnnotationError: a list or a video is bad, and ``skip_bad`` is off.
    """
    if isinstance(recipe, str | os.PathLike):
        recipe = read_recipe(os.fspath(recipe))
    elif not isinstance(recipe, Recipe | Mapping):
        raise UsageError(f"the recipe is a {type(recipe).__name__}; expected a name, a file, or a mapping of its keys")
    values = recipe.model_dump() if isinstance(recipe, Recipe) else dict(recipe)
    chosen = choose_device(device)
    if chosen not in ("cpu", "cuda"):
        raise UsageError(f"device is {chosen!r}; training takes cpu or cuda, and CUDA_VISIBLE_DEVICES says which")
    return train_classifier(
        make_recipe({**values, **(changes or {})}),
        data,
        Path(out),
        resume=resume,
        skip_bad=skip_bad,
        device="cuda" if chosen == "cuda" else "cpu",
        workers=workers,
        quiet=quiet,
        model=model,
    )
