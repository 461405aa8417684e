"""Mistakes in what layers are given that several share: features of another shape, and widths that are none."""

from torch import Tensor

from ssan.errors import UsageError


def not_features(x: Tensor, channels: int, layer: str) -> ValueError:
    """The error of a layer that takes (b, t, c, h, w) of so many channels and was given something else."""
    if x.dim() != 5:
        return ValueError(f"{layer} takes (b, t, c, h, w); got {x.dim()} axes: {tuple(x.shape)}")
    return ValueError(
        f"{layer} was made for {channels} channels; got {x.shape[2]} in (b, t, c, h, w) = {tuple(x.shape)}: make it "
        "with as many, or swap the axes t and c if they are the other way round"
    )


def embedding_width(embedding: object, channels: int, layer: str) -> int:
    """The width e that an option ``embedding`` of a layer stands for: a number, ``half`` of the channels, or all."""
    if embedding is None:
        return channels
    if embedding == "half":
        return max(channels // 2, 1)
    if type(embedding) is int and embedding >= 1:
        return embedding
    raise UsageError(
        f"{layer}: embedding is {embedding!r}; it must be a number of at least 1, 'half' for half of the channels, or "
        "nothing for all of them"
    )
