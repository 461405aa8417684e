"""Memory for time: what a block computed is forgotten after its forward pass, and computed again for the backward."""

import contextlib
import functools
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from types import MethodType
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint


def recompute(blocks: Iterable[nn.Module]) -> None:
    """Let each block keep its inputs alone for the backward pass, which then computes the block once more.

    Gradients are those of before: dropout draws the same numbers the second time, and running statistics of BatchNorm
    are updated the first time only. Names of modules and weights do not change.
    """
    for block in blocks:
        # A method, so that a copy of the network has one of its own: copying a function copies nothing.
        block.forward = MethodType(_recomputed(type(block).forward), block)


def _recomputed(forward: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(forward)
    def run(block: nn.Module, *inputs: Any) -> Any:
        if not torch.is_grad_enabled():
            return forward(block, *inputs)
        if torch.compiler.is_compiling():
            # The compiler sees what is written in place, and does so once; it takes no contexts.
            return checkpoint(forward, block, *inputs, use_reentrant=False)

        def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
            return contextlib.nullcontext(), _statistics_rest(block)

        return checkpoint(forward, block, *inputs, use_reentrant=False, context_fn=contexts)

    return run


@contextlib.contextmanager
def _statistics_rest(block: nn.Module) -> Iterator[None]:
    """Within it, a BatchNorm that trains updates copies of its running statistics, which are then thrown away.

    It cannot just be told not to track them: it would keep fewer tensors than the first time, which is an error.
    """
    norms = [part for part in block.modules() if isinstance(part, _BatchNorm) and part.training]
    own = [dict(norm._buffers) for norm in norms]
    try:
        for norm, buffers in zip(norms, own, strict=True):
            norm._buffers.update({name: None if one is None else one.clone() for name, one in buffers.items()})
        yield
    finally:
        for norm, buffers in zip(norms, own, strict=True):
            norm._buffers.update(buffers)
