"""Attention maps of a network with separable self-attention, computed from its own weights."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ssan.errors import UsageError
from ssan.layers import SeparableSelfAttention


@dataclass(frozen=True)
class Attended:
    """What one block attends to in one clip.

    :param name: the block's module name.
    :param positions: for each frame the row of M_P (equation 4) of the queried position, (t, h', w') in the block's
        resolution; each frame sums to 1. None where the block has no position branch.
    :param frames: M_T (equation 7), (t, t); row i says what frame i takes from each frame. None with the temporal scope
        ``position``, where every position has a matrix of its own.
    """

    name: str
    positions: Tensor | None
    frames: Tensor | None


@torch.no_grad()
def attended(model: nn.Module, clip: Tensor, queries: Tensor) -> list[Attended]:
    """Run a clip (t, 3, h, w) through ``model`` and say what each of its blocks attends to.

    :param queries: (t, 2), for each frame a position (y, x) in it, each coordinate a share of the side in [0, 1).
    :raises UsageError: the model has no separable self-attention.
    """
    blocks = {name: m for name, m in model.named_modules() if isinstance(m, SeparableSelfAttention)}
    if not blocks:
        raise UsageError("this model has no separable self-attention to look into; take an ssan_* model")
    inputs: dict[str, Tensor] = {}
    embedded: dict[str, tuple[Tensor, ...]] = {}
    hooks = []
    for name, block in blocks.items():
        hooks.append(block.register_forward_pre_hook(lambda _, args, name=name: inputs.update({name: args[0]})))
        hooks.append(block.temporal.register_forward_hook(lambda _, __, out, name=name: embedded.update({name: out})))
    was_training = model.training
    try:
        model.eval()
        model(clip[None])
    finally:
        model.train(was_training)
        for hook in hooks:
            hook.remove()
    return [
        Attended(name, _position_rows(block, inputs[name], queries), _frame_rows(block, embedded[name]))
        for name, block in blocks.items()
    ]


def _position_rows(block: SeparableSelfAttention, x: Tensor, queries: Tensor) -> Tensor | None:
    if not block.position_branch:
        return None
    t, _, h, w = x.shape[1:]
    features = x[0].permute(0, 2, 3, 1)  # (t, h, w, c)
    theta, phi = block.theta(features), block.phi(features)
    rows = (queries[:, 0] * h).long().clamp(0, h - 1)
    columns = (queries[:, 1] * w).long().clamp(0, w - 1)
    query = theta[torch.arange(t), rows, columns]  # (t, e)
    scale = 1 / math.sqrt(block.embedding) if block.similarity_scale == "sqrt" else 1.0
    similarity = torch.einsum("te,thwe->thw", query * scale, phi)
    return similarity.flatten(1).softmax(dim=1).view(t, h, w)


def _frame_rows(block: SeparableSelfAttention, embedded: tuple[Tensor, ...]) -> Tensor | None:
    if block.temporal_scope == "position":
        return None
    theta, phi = embedded[0][0], embedded[-1][0]  # (t, p, e)
    scale = 1 / math.sqrt(theta[0].numel()) if block.similarity_scale == "sqrt" else 1.0
    return torch.einsum("tpe,spe->ts", theta * scale, phi).softmax(dim=1)
