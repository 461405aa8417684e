"""Any image network as the backbone of a video classifier."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from ssan.errors import UsageError
from ssan.models.classifier import Classifier
from ssan.models.folding import example_images, folded, run_images

# What transformers' networks return has these; the first that is there is taken.
POOLED = ("pooler_output", "last_hidden_state")


class FrameFeatures(nn.Module):
    """An image network on each frame: clips (b, t, 3, h, w) to features (b, t, num_features).

    The network maps images (n, 3, h, w) to vectors (n, f), to maps (n, f, h', w'), which are averaged over their
    positions, or to a mapping that has one of these as ``pooler_output`` or ``last_hidden_state``.

    :param network: it may have layers attached (``ssan.attach``), which then look across the frames of each clip.
    :param example: images (n, 3, h, w) that it takes, for finding ``num_features``; one of 224 x 224 by default.
    :raises UsageError: it returns something else.
    """

    def __init__(self, network: nn.Module, *, example: Tensor | None = None) -> None:
        super().__init__()
        self.network = network
        images = example_images(network) if example is None else example
        self.num_features: int = _vectors(run_images(network, images)).shape[1]

    def forward(self, clips: Tensor) -> Tensor:
        t = clips.shape[1]
        with folded(t):
            features = _vectors(self.network(clips.flatten(0, 1)))
        return features.unflatten(0, (-1, t))


def _vectors(out: Any) -> Tensor:
    """What an image network returned, as one vector for each image, (n, f)."""
    if isinstance(out, Mapping):
        name = next((name for name in POOLED if isinstance(out.get(name), Tensor)), None)
        if name is None:
            raise UsageError(
                f"the network returns {', '.join(map(str, out))}, and none of {' or '.join(POOLED)}; give one that "
                "returns features, such as the model without its classifier"
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

    :param head: such as ``fc`` of torchvision's ResNet, ``classifier`` of its MobileNets.
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
    return Classifier(FrameFeatures(network, example=example), num_classes, dropout=dropout)
