"""Inflation: weights of a network of pictures made into those of a network of volumes (Carreira and Zisserman, 2017).

Section 2.2 there: a filter n x n becomes t x n x n, repeated over time and divided by t, so that a video that repeats
one picture has the picture's response. ``centre`` puts the filter at one moment alone instead, and zeros elsewhere.

Both hold where a filter sees frames alone. At the ends of a clip it also sees padding: zeros there make the response to
a constant video another one with the repeated filter, and with ``centre`` not.
"""

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from ssan.errors import UsageError, unknown

How = Literal["mean", "centre"]
HOWS: tuple[How, ...] = ("mean", "centre")


def inflate(weight: Tensor, length: int, how: How = "mean") -> Tensor:
    """Filters (out, in, h, w) of pictures to filters (out, in, length, h, w) of volumes.

    Unsaid by the paper, our choice: of an even length ``centre`` is the later one of the two in the middle, where a
    convolution padded by ``length // 2`` in front has the frame itself (``test_the_centre_of_an_even_length``).

    :raises UsageError: these are no such filters, the length is below 1, or ``how`` is unknown.
    """
    if how not in HOWS:
        raise UsageError(unknown("way to inflate", how, HOWS))
    if weight.dim() != 4 or length < 1:
        raise UsageError(
            f"filters of shape {tuple(weight.shape)} are to be {length} frames long; expected (out, in, h, w), and 1 "
            "frame or more"
        )
    if how == "mean":
        return (weight / length).unsqueeze(2).repeat(1, 1, length, 1, 1)
    inflated = weight.new_zeros(*weight.shape[:2], length, *weight.shape[2:])
    inflated[:, :, length // 2] = weight
    return inflated


def inflated_to(state: Mapping[str, Tensor], shapes: Mapping[str, torch.Size], how: How = "mean") -> dict[str, Tensor]:
    """A network of pictures' tensors, those inflated whose name is a filter of volumes in ``shapes``.

    A filter whose name is not there, or that differs in more than the length, stays as it is: whoever loads the tensors
    says what does not fit.
    """

    def fitting(name: str, tensor: Tensor) -> Tensor:
        shape = shapes.get(name)
        if shape is None or tensor.dim() != 4 or len(shape) != 5:
            return tensor
        return inflate(tensor, shape[2], how) if tensor.shape == (*shape[:2], *shape[3:]) else tensor

    return {name: fitting(name, tensor) for name, tensor in state.items()}
