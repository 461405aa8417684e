"""What a model argument stands for: a model file, a run's folder, a name of ``ssan weights list``, ``hf:FOLDER``."""

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

from torch import Tensor, nn

from ssan.errors import ModelError, UsageError, few, unknown
from ssan.models.catalogue import MODELS, build, without_memory
from ssan.models.classifier import Classifier
from ssan.recipe import make_recipe
from ssan.weights.classifier_file import build_from, load_labeller, preprocess_of
from ssan.weights.fetching import agreed, fetch
from ssan.weights.hub import open_transformers
from ssan.weights.imported import read_class_names
from ssan.weights.labeller import Labeller
from ssan.weights.layouts import all_by_our_names, num_classes_in
from ssan.weights.model_file import hash_tensors, wrong_model
from ssan.weights.named import NAMED, NamedWeights, file_of, is_here
from ssan.weights.state_dict import load_backbone, read_state_dict

TRANSFORMERS = "hf:"
CLASS_NAMES = Path(__file__).with_name("class_names")


def _by_our_names(network: str, path: str | Path) -> dict[str, Tensor]:
    """The tensors of a network that is whole by itself, of a file in any layout that such files have."""
    state = read_state_dict(path)
    with without_memory():
        model = build(network, num_classes_in(state) or 1)
    return all_by_our_names(state, model, str(path))


# How a file becomes tensors under names that ``load_backbone`` knows, by the layout of named weights.
READERS: dict[str, Callable[[str | Path], dict[str, Tensor]]] = {
    "torchvision": read_state_dict,
    "i3d": partial(_by_our_names, "i3d"),
    "efficientnet_lite_pytorch": read_state_dict,
}


def open_model(spec: str, device: str = "cpu", *, model: Classifier | None = None) -> Labeller:
    """A trained network and what it needs to see a video, in evaluation mode.

    :param spec: the path of a model file or of a run's folder, a name of ``ssan weights list`` whose file is here, or
        ``hf:`` and a folder or a name of the transformers library's. What lies there goes before a name.
    :param model: as of ``load_labeller``.
    :raises ModelError: it is no model (code ``wrong_model``), there is no such thing (``missing``), or the file of a
        name has not been fetched (``not_fetched``).
    :raises UsageError: it is the name of a network, which has no weights.
    """
    if spec.startswith(TRANSFORMERS):
        return open_transformers(spec, device)
    if os.path.exists(spec):
        return load_labeller(Path(spec), device, model=model)
    if spec in NAMED:
        if model is not None:
            raise UsageError(f"{spec} is named weights, which have their own network; leave model= out")
        return open_named(NAMED[spec], device)
    if spec in MODELS:
        raise UsageError(
            f"{spec} is the name of a network without weights; name a model file or a run's folder, or weights of "
            "`ssan weights list`"
        )
    near = "" if os.sep in spec or "." in spec else f", and an {unknown('name', spec, [*NAMED, *MODELS])}"
    raise ModelError(
        f"no such model file or folder{near}; "
        "give what `ssan train` or `ssan import` has written, or a name of `ssan weights list`",
        code="missing",
        path=spec,
    )


def open_classifier(spec: str, device: str = "cpu") -> Labeller:
    """As ``open_model``, of a network that has classes.

    :raises UsageError: it has none, and describes videos by features alone.
    """
    labeller = open_model(spec, device)
    if not labeller.classes:
        raise UsageError(
            f"{spec} describes videos by features and has no classes; fit some with `ssan probe`, or give it to "
            "`ssan extract`"
        )
    return labeller


def open_named(weights: NamedWeights, device: str = "cpu") -> Labeller:
    """The network of named weights, whose file is here.

    A backbone is a network of single frames, without classes: those of its file are of images, and its last layer is
    left out.

    :raises ModelError: the file is not here, is another one, or does not fit the network or the list of classes.
    """
    path, state = read_named(weights)
    classes = class_names(weights)
    recipe = make_recipe(dict(weights.recipe))
    network = build_from(recipe, len(classes) or 1)
    if not classes:
        nn.init.zeros_(network.fc.weight)  # never used, and the same each time, for the hash of the tensors
    source = str(path)
    report = load_backbone(network, state, source=source, classes=classes, of_file=classes)
    rest = [
        name
        for name in report.missing
        if not name.endswith("num_batches_tracked") and (classes or not name.startswith(network.class_rows))
    ]
    if rest or (classes and report.reshaped):
        raise wrong_model(
            f"its tensors do not fit {weights.network} with the {len(classes)} classes of {weights.classes}: "
            f"{few(rest or report.reshaped)}; expected all of them. Upgrade ssan, or look at the list of classes",
            source,
        )
    preprocess = preprocess_of(recipe)
    protocol = {
        "named": weights.name, "sha256": weights.sha256, "published": weights.accuracy, "views": 1, "crops": 1,
        "average": "logits", **preprocess.as_dict(),
    }  # fmt: skip
    return Labeller(
        model=network.eval().to(device),
        classes=classes,
        preprocess=preprocess,
        recipe=recipe,
        protocol=protocol,
        hash=hash_tensors(network.state_dict()),
        name=weights.name,
    )


def read_named(weights: NamedWeights) -> tuple[Path, dict[str, Tensor]]:
    """The file of named weights and its tensors under names that ``load_backbone`` knows.

    It is fetched only where the user has agreed to that once and for all (``SSAN_FETCH``).

    :raises ModelError: as of ``file_of`` and ``fetch``.
    """
    if agreed() and not is_here(weights):
        fetch(weights)
    path = file_of(weights)
    return path, READERS[weights.layout](path)


def class_names(weights: NamedWeights) -> list[str]:
    """The classes of named weights, in the order of their scores; none of a backbone."""
    return [] if weights.classes is None else read_class_names(CLASS_NAMES / weights.classes)
