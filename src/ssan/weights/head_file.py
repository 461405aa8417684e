"""Head files: a linear layer on the features of a network of the transformers library, which lies elsewhere.

Nothing of that network is in the file but where it lay and the hash of its files. What the file says of a place is not
trusted: a folder is used where its files have that hash, and nothing is made of any other.
"""

import hashlib
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ssan.errors import ModelError, SsanError, UsageError, printable, quoted
from ssan.models.classifier import VideoNetwork
from ssan.video.preprocess import Preprocess
from ssan.weights.hub import TransformersNetwork, open_transformers
from ssan.weights.hub_files import HUB, PREFIX, hub_name, local_folder
from ssan.weights.labeller import EncoderFiles, Labeller, metadata_part, protocol_in, threshold_in
from ssan.weights.model_file import write_model_file, wrong_model

BESIDE = "encoder"
"""The folder, or link to one, that stands beside a head file for an encoder that is not at its place."""

# Of the protocol of an encoder what says how pixels reach it and what is taken of it.
OF_THE_ENCODER = (
    "architecture", "transformers", "processor", "mean", "std", "rescale_factor", "offset", "resample", "features",
)  # fmt: skip


class HeadOnEncoder(VideoNetwork):
    """A network of the transformers library with a linear layer on its features; its own classifier is left out.

    :param num_classes: k.
    """

    def __init__(self, encoder: TransformersNetwork, num_classes: int) -> None:
        super().__init__()
        self.encoder = encoder.without_classes()
        self.fc = nn.Linear(encoder.num_features, num_classes)

    @property
    def num_features(self) -> int:
        return self.encoder.num_features

    def features(self, clips: Tensor) -> Tensor:
        """Clips (b, t, 3, h, w) to what the linear layer takes, (b, num_features)."""
        return self.encoder.features(clips)

    def forward(self, clips: Tensor) -> Tensor:
        """Clips (b, t, 3, h, w) to logits (b, k)."""
        return self.fc(self.features(clips))


def save_head(
    path: str | Path,
    weight: Tensor,
    bias: Tensor,
    classes: Sequence[str],
    encoder: EncoderFiles,
    preprocess: Preprocess,
    protocol: Mapping[str, Any],
) -> str:
    """Write a linear layer, (k, d) and (k), for an encoder; returns the hash that ``load_head`` gives it."""
    metadata = {
        "classes": list(classes),
        "preprocess": preprocess.as_dict(),
        "protocol": dict(protocol),
        "encoder": {"source": encoder.source, "sha256": encoder.sha256},
    }
    head = write_model_file(path, {"fc.weight": weight.float(), "fc.bias": bias.float()}, metadata)
    return _hash(head, encoder)


def load_head(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any], device: str = "cpu") -> Labeller:
    """The labeller of a head file, in evaluation mode, once its encoder is found and has the hash that it had.

    :param tensors: of the file, and ``metadata``, as ``read_model_file`` returns them.
    :raises ModelError: the encoder is not there (``missing``, of the hub ``not_fetched``), it is another one, or the
        parts of the file do not fit together (``wrong_model``).
    """
    written = _encoder_in(metadata, path)
    classes = [str(label) for label in metadata_part(metadata, "classes", list, path)]
    protocol, threshold = protocol_in(metadata, path), threshold_in(metadata, path)
    shapes = {name: tuple(tensor.shape) if tensor.is_floating_point() else None for name, tensor in tensors.items()}
    weight = shapes.get("fc.weight") or ()
    if shapes != {"fc.weight": (len(classes), *weight[1:]), "fc.bias": (len(classes),)} or len(weight) != 2:
        raise wrong_model(
            f"it is no linear layer for its {len(classes)} classes; expected fc.weight and fc.bias alone. Copy the "
            "file again",
            path,
        )
    opened = _open_encoder(written, path, device)
    if metadata_part(metadata, "preprocess", dict, path) != opened.preprocess.as_dict():
        raise wrong_model(
            "its preprocessing is not that of its encoder; use the version of ssan that it was made with", path
        )
    if weight[1] != opened.model.num_features:
        raise wrong_model(
            f"its layer takes {weight[1]} features, and its encoder gives {opened.model.num_features}; use the version "
            "of ssan that it was made with",
            path,
        )
    assert isinstance(opened.model, TransformersNetwork)
    model = HeadOnEncoder(opened.model, len(classes))
    model.fc.load_state_dict({name.removeprefix("fc."): tensor.float() for name, tensor in tensors.items()})
    return Labeller(
        model=model.eval().requires_grad_(False).to(device),
        classes=classes,
        preprocess=opened.preprocess,
        recipe=None,
        protocol=protocol,
        hash=_hash(metadata["sha256"], written),
        name=opened.name,
        threshold=threshold,
        encoder=opened.encoder,
    )


def _hash(head: str, encoder: EncoderFiles) -> str:
    """Of the whole network: equal heads on two encoders are two networks."""
    return hashlib.sha256(f"{head} on {encoder.sha256}".encode()).hexdigest()


def _encoder_in(metadata: Mapping[str, Any], path: Path) -> EncoderFiles:
    """What a file says of its encoder; refused where it is no place, or one that depends on where we are."""
    said = metadata_part(metadata, "encoder", dict, path)
    source, digest = said.get("source"), said.get("sha256")
    if not isinstance(digest, str) or re.fullmatch(r"[0-9a-f]{64}", digest) is None:
        raise wrong_model("it says no SHA-256 of its encoder; copy the file again", path)
    valid = isinstance(source, str) and source.startswith((HUB, f"{PREFIX}/"))
    if valid and source.startswith(HUB):
        try:
            hub_name(source)
        except UsageError:
            valid = False
    if not valid:
        raise wrong_model(
            f"its encoder is {quoted(str(source), 120)}; expected hf: with an absolute path, or hf://user/name. Copy "
            "the file again",
            path,
        )
    return EncoderFiles(str(source), digest)


def _open_encoder(written: EncoderFiles, path: Path, device: str) -> Labeller:
    """The encoder of a head, from its own place or from beside the file; the first whose files are those of then.

    :raises ModelError: there is none, or none of them is that one.
    """
    folder = str(path.absolute().with_name(BESIDE))
    beside = printable(folder)
    places = [place for place in (written.source, f"{PREFIX}/{folder.lstrip('/')}") if _is_there(place)]
    refused: SsanError | None = None
    for place in places:

        def check(found: str, place: str = place) -> None:
            if found != written.sha256:
                raise wrong_model(
                    f"its head was fitted on another encoder than {quoted(place)} is now (SHA-256 {found[:16]}..., "
                    f"expected {written.sha256[:16]}...); put the files that it had there, or into a folder {beside}",
                    path,
                )

        try:
            return open_transformers(place, device, check=check)
        except SsanError as error:
            refused = refused or error
    if refused is not None:
        raise refused
    if written.source.startswith(HUB):
        name, revision = hub_name(written.source)
        raise ModelError(
            f"it needs the encoder {written.source}, which is not on this machine; run `hf download {name} --revision "
            f"{revision}`, or put its files, or a link to them, at {beside}",
            code="not_fetched",
            path=str(path),
        )
    raise ModelError(
        f"it needs the encoder {quoted(written.source)}, and there is no such folder; put it back there, or put it, or "
        f"a link to it, at {beside}",
        code="missing",
        path=str(path),
    )


def _is_there(place: str) -> bool:
    if not place.startswith(HUB):
        return os.path.isdir(place.removeprefix(PREFIX))  # also False of what is no path at all
    try:
        local_folder(place)
    except ModelError:
        return False
    return True
