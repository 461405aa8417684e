"""What several layers are given alike, and mistakes in it: features of another shape, widths, and the start."""

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


def start_weight(start: object, identity_start: bool, layer: str) -> float:
    """The weight with which the last norm starts: ``start``, a share in 0..1 of its full weight, 1.

    Without one, 0 under ``identity_start`` and 1 else: the share 0 makes the block the identity, 1 lets all of it in.
    """
    if start is None:
        return 0.0 if identity_start else 1.0
    if isinstance(start, bool) or not isinstance(start, int | float) or not 0 <= start <= 1:
        raise UsageError(
            f"{layer}: start is {start!r}; it must lie between 0, where the block is the identity at first, and 1"
        )
    if identity_start:
        raise UsageError(
            f"{layer}: start is {start:g} and identity_start true, which say the same thing twice; give start alone"
        )
    return float(start)
