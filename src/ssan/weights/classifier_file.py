"""Classifier files, a trained classifier each: weights, recipe, classes, preprocessing and protocol in one file."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ssan.errors import UsageError, quoted
from ssan.models.catalogue import build, channels_last, without_memory
from ssan.models.classifier import Classifier
from ssan.recipe import Recipe, make_recipe
from ssan.video.preprocess import Preprocess
from ssan.weights.head_file import load_head
from ssan.weights.labeller import Labeller, metadata_part, protocol_in, threshold_in
from ssan.weights.model_file import read_model_file, write_model_file, wrong_model


def preprocess_of(recipe: Recipe) -> Preprocess:
    """The input side of a complete recipe."""
    assert recipe.size_px is not None
    assert recipe.crop_px is not None
    return Preprocess(
        num_frames=recipe.num_frames,
        sampling=recipe.sampling,
        stride=recipe.stride,
        resize=recipe.resize,
        size_px=recipe.size_px,
        crop_px=recipe.crop_px,
        frames_per_second=recipe.frames_per_second,
    )


# What a recipe calls a network that its user made in Python: nothing here can build it.
OWN = "own"


def build_from(recipe: Recipe, num_classes: int) -> Classifier:
    """The recipe's network with random weights, in channels-last memory."""
    model = build(
        recipe.model,
        num_classes,
        num_frames=recipe.num_frames,
        dropout=recipe.dropout,
        layer_options=recipe.layer,
        places=recipe.places,
        backbone_options=recipe.backbone,
        consensus=recipe.consensus,
    )
    channels_last(model)
    return model


def save_labeller(
    path: str | Path, model: Classifier, classes: Sequence[str], recipe: Recipe, protocol: Mapping[str, Any]
) -> str:
    """Write a classifier with what is needed to use it; returns the hash of its tensors."""
    metadata = {
        "recipe": recipe.model_dump(),
        "classes": list(classes),
        "preprocess": preprocess_of(recipe).as_dict(),
        "protocol": dict(protocol),
    }
    return write_model_file(path, model.state_dict(), metadata)


def keep_threshold(path: str | Path, chosen: Mapping[str, Any]) -> None:
    """Write into a classifier's file from which share of the softmax on it is to answer; all else in it stays.

    :param chosen: ``threshold``, and how it was chosen.
    :raises ModelError: the file is not one of ours.
    """
    tensors, metadata = read_model_file(path)
    del metadata["sha256"]  # of the tensors, which is made anew, and is the same
    write_model_file(path, tensors, {**metadata, "threshold": dict(chosen)})


def load_labeller(path: str | Path, device: str = "cpu", *, model: Classifier | None = None) -> Labeller:
    """Read a classifier that ``save_labeller`` wrote, in evaluation mode; a run's folder stands for its best model.

    A head that ``save_head`` wrote is one too, together with its encoder; see ``load_head``.

    :param model: for the file of a network of one's own (``train(..., model=...)``), that network, made once more by
        the code that made it; the weights are loaded into it.
    :raises ModelError: the file is not one of ours, or its parts do not fit together (code ``wrong_model``).
    """
    path = Path(path)
    if path.is_dir():
        path = path / "model.safetensors"
    tensors, metadata = read_model_file(path)
    if metadata.get("kind") == "retrieval":
        raise wrong_model(
            "it is a joint space of texts and videos, which has no classes; use it with `ssan retrieval eval`", path
        )
    if "encoder" in metadata:
        if model is not None:
            raise wrong_model("it is a head on an encoder of transformers, which needs no model=; leave that out", path)
        return load_head(path, tensors, metadata, device)
    classes = [str(label) for label in metadata_part(metadata, "classes", list, path)]
    protocol = protocol_in(metadata, path)
    try:
        recipe = make_recipe(metadata_part(metadata, "recipe", dict, path))
        _check_whose_network(recipe, model, path)
        # Without memory: sizes from elsewhere are compared with the tensors that there are before any is made.
        with without_memory():
            expected = model or build_from(recipe, len(classes))
    except UsageError as error:
        raise wrong_model(
            f"its recipe cannot be built by this version: {error}; use the version it was trained with", path
        ) from error
    whose = f"its recipe ({recipe.model})" if model is None else "the model given"
    advice = "make the model as it was made for training" if model else "copy the file again"
    empty = expected.state_dict()
    _check_shapes(tensors, empty, whose, advice, path)
    if (
        None in (recipe.crop_px, recipe.size_px)
        or metadata_part(metadata, "preprocess", dict, path) != preprocess_of(recipe).as_dict()
    ):
        raise wrong_model("its preprocessing is not that of its recipe; use the version that it was trained with", path)
    tensors = {name: tensor.to(empty[name].dtype) for name, tensor in tensors.items()}
    expected.load_state_dict(tensors, assign=model is None)
    if model is None:
        channels_last(expected)
    return Labeller(
        model=expected.eval().to(device),
        classes=classes,
        preprocess=preprocess_of(recipe),
        recipe=recipe,
        protocol=protocol,
        hash=metadata["sha256"],
        name=recipe.model,
        threshold=threshold_in(metadata, path),
    )


def _check_whose_network(recipe: Recipe, model: Classifier | None, path: Path) -> None:
    """A network of its maker's own has to be given; any other is built of the recipe, and must not."""
    if recipe.model == OWN and model is None:
        raise wrong_model(
            "it is a network of its maker's own, which only the code that made it can build; make it again, and "
            "read the file from Python with load_labeller(path, model=...)",
            path,
        )
    if recipe.model != OWN and model is not None:
        raise wrong_model(f"it is {recipe.model}, which needs no model=; leave that out", path)


def _check_shapes(
    tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor], whose: str, advice: str, path: Path
) -> None:
    """Refuse tensors that are not just those of the network, each of its shape."""
    wrong = next((name for name in {**expected, **tensors} if _shape(tensors, name) != _shape(expected, name)), None)
    if wrong is not None:
        raise wrong_model(
            f"its tensors do not fit {whose}: {quoted(wrong, 80)} is {_shape(tensors, wrong)}, expected "
            f"{_shape(expected, wrong)}; {advice}",
            path,
        )


def _shape(tensors: Mapping[str, Tensor], name: str) -> torch.Size | None:
    return tensors[name].shape if name in tensors else None
