"""The exponential moving average of a module's weights over its steps (Polyak and Juditsky 1992, in its running form).

Unsaid by the paper, our choice: the average has a warm-up, and takes the statistics of BatchNorm along (pinned in
tests/training/test_ema.py).
"""

from typing import Any

import torch
from torch import Tensor, nn


class Average:
    """Weights and buffers of a module, averaged over its optimizer steps.

    ::

        average <- d * average + (1 - d) * weights          d = min(decay, (1 + n) / (10 + n)),  n = 0, 1, 2, ...

    The decay grows from 0.1, so that the random start does not stay in the average of a short run: after one step a
    tenth of it is left, after two 1/55. BatchNorm's running statistics are averaged like the weights: they belong to
    the activations of the weights at their steps, and so does their mixture. What counts (``num_batches_tracked``) is
    copied.

    :param decay: between 0 and 1; 0.999 looks back about 1,000 steps.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.module, self.decay = module, decay
        self.updates = 0
        self.values = {name: tensor.clone() for name, tensor in self._present()}
        self._trained: dict[str, Tensor] = {}

    def _present(self) -> list[tuple[str, Tensor]]:
        """The module's tensors, in whose memory it computes; one that has several names under the first of them."""
        once: dict[tuple[object, ...], tuple[str, Tensor]] = {}
        for name, tensor in self.module.state_dict().items():
            if isinstance(tensor, Tensor):
                # Of an empty one the address says nothing.
                memory = (tensor.data_ptr(), tensor.shape, tensor.stride()) if tensor.numel() else (name,)
                once.setdefault(memory, (name, tensor))
        return list(once.values())

    def update(self) -> None:
        """Take in the weights after an optimizer step."""
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        for name, now in self._present():
            if now.is_floating_point():
                self.values[name].lerp_(now, 1 - decay)
            else:
                self.values[name].copy_(now)
        self.updates += 1

    @torch.no_grad()
    def put_in(self) -> None:
        """Let the module compute with the average, until ``take_out``."""
        for name, now in self._present():
            self._trained[name] = now.clone()
            now.copy_(self.values[name])

    @torch.no_grad()
    def take_out(self) -> None:
        """Give the module the weights back that it is trained with."""
        for name, now in self._present():
            now.copy_(self._trained.pop(name))

    def state_dict(self) -> dict[str, Any]:
        return {"updates": self.updates, "values": self.values}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.updates = int(state["updates"])
        for name, value in self.values.items():
            value.copy_(state["values"][name])
