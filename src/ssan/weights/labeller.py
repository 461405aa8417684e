"""A network with everything needed to use it on a video, wherever it came from."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ssan.errors import quoted
from ssan.models.classifier import VideoNetwork
from ssan.recipe import Recipe
from ssan.video.preprocess import Preprocess
from ssan.weights.model_file import wrong_model


@dataclass(frozen=True)
class EncoderFiles:
    """The files of a network that is the transformers library's, and that is never copied into a file of ours.

    :param source: ``hf:`` and an absolute path, or ``hf://user/name``, with the revision where it is known.
    :param sha256: over the files that decide what it makes of a video.
    """

    source: str
    sha256: str


@dataclass(frozen=True)
class Labeller:
    """A classifier, or a network without classes, with everything needed to use it on a video.

    :param classes: in the order of its scores; empty of a network that describes videos by features alone.
    :param recipe: None where nothing of ours describes the network.
    :param hash: SHA-256 of its tensors, or of the files that they were read from.
    :param name: of the network, for messages: one of ``ssan models`` or of ``ssan weights list``, or ``hf:FOLDER``.
    :param threshold: the share of the softmax below which a video is none of the classes, where one was chosen.
    :param encoder: of a network of the transformers library, or of a head on one, the files of that network.
    """

    model: VideoNetwork
    classes: list[str]
    preprocess: Preprocess
    recipe: Recipe | None
    protocol: dict[str, Any]
    hash: str
    name: str = ""
    threshold: float | None = None
    encoder: EncoderFiles | None = None


def metadata_part(metadata: Mapping[str, Any], name: str, kind: type, path: Path) -> Any:
    """What a model file says under a name, of this type and not empty.

    :raises ModelError: it does not (code ``wrong_model``).
    """
    value = metadata.get(name)
    if not isinstance(value, kind) or not value:
        raise wrong_model(f"its metadata lacks {name!r}", path)
    return value


def protocol_in(metadata: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """How the accuracy of a model file was measured; empty where it does not say.

    :raises ModelError: it says so otherwise than by a mapping (code ``wrong_model``).
    """
    protocol = metadata.get("protocol") or {}
    if not isinstance(protocol, dict):
        raise wrong_model("its protocol is no mapping; copy the file again", path)
    return protocol


def threshold_in(metadata: Mapping[str, Any], path: Path) -> float | None:
    """The threshold that ``keep_threshold`` wrote into a model file, if it did.

    :raises ModelError: it is no share (code ``wrong_model``).
    """
    kept = metadata.get("threshold")
    if kept is None:
        return None
    value = kept.get("threshold") if isinstance(kept, dict) else None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise wrong_model(
            f"its threshold is {quoted(str(value), 40)}; expected a share from 0 to 1. Choose it again with "
            "`ssan eval --choose-threshold SHARE --write`",
            path,
        )
    return float(value)
