"""Parameters and multiply-adds of a network, counted on shapes alone."""

import copy

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from ssan.models.catalogue import build, specification, without_memory

# Something-Something's.
NUM_CLASSES = 174


def num_parameters(model: nn.Module) -> int:
    """Trainable numbers in ``model``."""
    return sum(parameter.numel() for parameter in model.parameters())


def multiply_adds(model: nn.Module, num_frames: int, size_px: int) -> int:
    """Multiply-adds of one clip (1, num_frames, 3, size_px, size_px): convolutions, linear layers, matrix products.

    Counted by torch's flop counter, which counts a multiply-add as two, on a copy on the ``meta`` device: nothing is
    computed, and the attention kernel of the CPU, which the counter does not know, is not taken. Element-wise work
    (normalisation, softmax, pooling) is not counted, as in the literature's tables.
    """
    tensors = [*model.parameters(), *model.buffers()]
    shapes = copy.deepcopy(model, {id(tensor): tensor.detach().to("meta") for tensor in tensors})
    return _on_shapes(shapes, num_frames, size_px)


def _on_shapes(shapes: nn.Module, num_frames: int, size_px: int) -> int:
    """The same of a model that is on the ``meta`` device and has no other use: it is changed."""
    shapes.eval()
    for module in shapes.modules():
        if isinstance(module, nn.BatchNorm2d):  # not counted, and on shapes alone the slowest of all
            module.forward = nn.Identity().forward  # type: ignore[method-assign]
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        shapes(torch.empty(1, num_frames, 3, size_px, size_px, device="meta"))
    return counter.get_total_flops() // 2


def count(name: str, num_classes: int = NUM_CLASSES) -> dict[str, int]:
    """Parameters and multiply-adds of a named model, for one clip of its own number and size of frames."""
    spec = specification(name)
    with without_memory():
        model = build(name, num_classes)
    return {"params": num_parameters(model), "macs": _on_shapes(model, spec.num_frames, spec.size_px)}
