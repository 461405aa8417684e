"""Cost of a model: parameters and multiply-adds, counted on shapes alone; memory and time, measured."""

import copy
import json
import time
import weakref
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from ssan.models.catalogue import MODELS, build, channels_last, specification, without_memory

# Something-Something's.
NUM_CLASSES = 174

# What `count` gives for the named models: counting them all takes many times as long as everything else that
# `ssan models` does. Made by benchmarks/pages/cost.py; tests/models/test_cost.py holds it equal to counting.
COUNTED = Path(__file__).with_name("counted.json")


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
        if isinstance(module, _BatchNorm):  # not counted, and on shapes alone the slowest of all
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


def catalogue_rows(names: Sequence[str] = ()) -> list[dict[str, Any]]:
    """One row per named model (all of them without ``names``), as ``ssan models --json`` prints it, for 174 classes.

    :raises UsageError: an unknown name.
    """
    counted = json.loads(COUNTED.read_text(encoding="utf-8"))
    rows: list[dict[str, Any]] = []
    for spec in [specification(name) for name in names or MODELS]:
        places = None
        if spec.places is not None:
            places = {"stages": list(spec.places.stages), "slot": spec.places.slot, "every": spec.places.every}
        rows.append(
            {
                "name": spec.name,
                "family": spec.family,
                "backbone": spec.backbone,
                "layer": spec.layer,
                "over": spec.over,
                "consensus": spec.consensus,
                "places": places,
                **(counted.get(spec.name) or count(spec.name)),
                "num_frames": spec.num_frames,
                "size_px": spec.size_px,
                "num_classes": NUM_CLASSES,
                "knows_order": spec.knows_order,
            }
        )
    return rows


def measure(name: str, *, runs: int = 3) -> dict[str, Any]:
    """Memory and time of a named model on the CPU, with random weights, for one clip in channels-last memory.

    - ``train_activation_bytes``: see ``saved_for_backward``;
    - ``inference_activation_bytes``: see ``inference_peak``;
    - ``latency_seconds``: the median over ``latency_runs`` inferences of the time on the wall, after one that is not
      timed, with ``latency_threads`` threads of torch.
    """
    spec = specification(name)
    model = channels_last(build(name, NUM_CLASSES))
    clips = torch.randn(spec.num_frames, 3, spec.size_px, spec.size_px).contiguous(memory_format=torch.channels_last)[
        None
    ]
    kept = saved_for_backward(model.train(), clips)
    most = inference_peak(model.eval(), clips)
    seconds = []
    with torch.inference_mode():
        for _ in range(runs):
            start = time.perf_counter()
            model(clips)
            seconds.append(time.perf_counter() - start)
    return {
        "train_activation_bytes": kept,
        "inference_activation_bytes": most,
        "latency_seconds": median(seconds),
        "latency_runs": runs,
        "latency_threads": torch.get_num_threads(),
    }


def saved_for_backward(model: nn.Module, clips: Tensor) -> int:
    """Bytes that ``model``, in the mode it is in, keeps for the backward pass of ``clips`` (b, t, 3, h, w), to logits.

    Each piece of memory counts once, whole, however many tensors lie in it; parameters and buffers do not count. That
    is what a training step holds at the end of its forward pass, less the loss, and what grows with the batch. Work
    space inside kernels, gradients and the optimiser's state come on top. Statistics of BatchNorm in training mode are
    left as they were.
    """
    own = {tensor.untyped_storage().data_ptr() for tensor in [*model.parameters(), *model.buffers()]}
    before = {name: tensor.clone() for name, tensor in model.named_buffers()}
    kept: dict[int, torch.UntypedStorage] = {}  # held here, so that no address is given out twice

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage
        return tensor

    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model(clips)
    with torch.no_grad():
        for name, tensor in model.named_buffers():
            tensor.copy_(before[name])
    return sum(storage.nbytes() for storage in kept.values())


def inference_peak(model: nn.Module, clips: Tensor) -> int:
    """The most bytes of tensors alive at once while ``model`` maps ``clips`` (b, t, 3, h, w) to logits, no gradients.

    The clips count, parameters and buffers do not. Looked at after every operation of torch: what a kernel takes and
    gives back inside one is not seen.
    """
    own = {tensor.untyped_storage().data_ptr() for tensor in [*model.parameters(), *model.buffers()]}
    with torch.no_grad(), _Alive(own, clips) as alive:
        model(clips)
    return alive.most


class _Alive(TorchDispatchMode):
    """Counts the bytes of memory alive, of tensors that operations give; ``most`` is the largest number so far."""

    def __init__(self, own: set[int], clips: Tensor) -> None:
        super().__init__()
        self.own = own
        self.seen: dict[int, weakref.ref[torch.UntypedStorage]] = {}
        self.now = self.most = 0
        self._add(clips)

    def _add(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        address, size = storage.data_ptr(), storage.nbytes()
        if address in self.own or address in self.seen or not size:
            return

        def gone(_: object) -> None:
            del self.seen[address]
            self.now -= size

        self.seen[address] = weakref.ref(storage, gone)
        self.now += size
        self.most = max(self.most, self.now)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        answer = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(answer):
            if isinstance(leaf, Tensor):
                self._add(leaf)
        return answer
