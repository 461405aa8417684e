"""Video classifiers that have any image network for a backbone."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from ssan.attachment.fold_frames import example_images, folded, run_images
from ssan.errors import UsageError
from ssan.models.classifier import Classifier

# What transformers' networks return has these; the first that is there is taken. Where a classifier was taken off, the
# features stand under the name of its logits.
POOLED = ("pooler_output", "last_hidden_state")
WITHOUT_HEAD = ("logits", *POOLED)


class FrameFeatures(nn.Module):
    """An image network on each frame: clips (b, t, 3, h, w) to features (b, t, num_features).

    The network maps images (n, 3, h, w) to vectors (n, f), to maps (n, f, h', w'), which are averaged over their
    positions, or to a mapping that has one of these under one of the names ``outputs``.

    :param network: it may have layers attached (``ssan.attach``), which then look across the frames of each clip.
    :param example: images (n, 3, h, w) that it takes, for finding ``num_features``; one of 224 x 224 by default.
    :param outputs: names to look for in a mapping, the first that is there is taken.
    :raises UsageError: it returns something else.
    """

    def __init__(self, network: nn.Module, *, example: Tensor | None = None, outputs: Sequence[str] = POOLED) -> None:
        super().__init__()
        self.network, self.outputs = network, tuple(outputs)
        images = example_images(network) if example is None else example
        self.num_features: int = _vectors(run_images(network, images), self.outputs).shape[1]

    def forward(self, clips: Tensor) -> Tensor:
        t = clips.shape[1]
        with folded(t):
            features = _vectors(self.network(clips.flatten(0, 1)), self.outputs)
        return features.unflatten(0, (-1, t))


def _vectors(out: Any, names: Sequence[str]) -> Tensor:
    """What an image network returned, as one vector for each image, (n, f)."""
    if isinstance(out, Mapping):
        name = next((name for name in names if isinstance(out.get(name), Tensor)), None)
        if name is None:
            raise UsageError(
                f"the network returns {', '.join(map(str, out))}, and none of {' or '.join(names)}; name "
                "the classifier that is to be taken off as head=, or give the model without it"
            )
        out = out[name]
    if not isinstance(out, Tensor) or out.dim() not in (2, 4):
        shape = tuple(out.shape) if isinstance(out, Tensor) else type(out).__name__
        raise UsageError(f"the network returns {shape}; expected features (n, f) or (n, f, h, w)")
    return out if out.dim() == 2 else out.mean(dim=(2, 3))


def video_classifier(
    network: nn.Module,
    num_classes: int,
    *,
    head: str | None = None,
    dropout: float = 0.5,
    example: Tensor | None = None,
) -> Classifier:
    """A video classifier (the mean of the frames' scores) around any image network, with or without attached layers.

    A network of timm's loses its classifier by its own ``reset_classifier(0)``. Of any other one the module named
    ``head`` is replaced by the identity; without ``head`` what it returns are the features.

    ::

        network = attach(timm.create_model("resnet50", pretrained=True), "layer[12].*.conv2", side="before")
        classifier = video_classifier(network, num_classes=174)

    The new layer is of the network's type and on its device.

    :param head: such as ``fc`` of torchvision's ResNet, ``classifier`` of its MobileNets, ``classifier.2`` of its
        ConvNeXts, whose LayerNorm then stays, ``classifier`` of transformers' models for image classification.
    :param dropout: share of the features dropped in training.
    :param example: images (n, 3, h, w) that the network takes; one of 224 x 224 by default.
    :raises UsageError: there is no module ``head``, or the network does not return features.
    """
    if head is not None:
        names = [name for name, _ in network.named_modules() if name]
        if head not in names:
            raise UsageError(f"the network has no module {head!r} to take off; it ends in {', '.join(names[-3:])}")
        parent, _, name = head.rpartition(".")
        setattr(network.get_submodule(parent), name, nn.Identity())
    elif callable(reset := getattr(network, "reset_classifier", None)):
        reset(0)
    features = FrameFeatures(network, example=example, outputs=POOLED if head is None else WITHOUT_HEAD)
    classifier = Classifier(features, num_classes, dropout=dropout)
    like = example_images(network)
    classifier.fc.to(like.device, like.dtype)
    return classifier
