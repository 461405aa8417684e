"""Targets, the modules of an image network where a layer can go: found by name, with what passes there."""

import difflib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ssan.attachment.fold_frames import run_images
from ssan.errors import UsageError

Side = Literal["after", "before"]

# Children under these names are attached layers. They begin as the slots of our own networks do, so that whatever
# treats layers in slots apart (rates, frozen BatchNorm) does so here too.
SLOTS: dict[Side, str] = {"after": "after_output", "before": "before_input"}


def _names(network: nn.Module) -> Iterator[str]:
    """Names of the network's own modules, without the attached layers and their parts."""
    slots = set(SLOTS.values())
    return (name for name, _ in network.named_modules() if name and not slots & set(name.split(".")))


def match_modules(network: nn.Module, patterns: str | Sequence[str]) -> list[str]:
    """Names of the network's modules that fit the patterns, in the order of these and, within one, of the network.

    :raises UsageError: a pattern fits none, or there is none.
    """
    names = list(_names(network))
    found: list[str] = []
    for pattern in [patterns] if isinstance(patterns, str) else patterns:
        parts = pattern.split(".")
        matching = [
            name
            for name in names
            if len(name.split(".")) == len(parts) and all(map(fnmatchcase, name.split("."), parts))
        ]
        if not matching:
            near = difflib.get_close_matches(pattern, names, n=3, cutoff=0.3) or names[:3]
            raise UsageError(
                f"attach: the network has no module {pattern!r}. Near it: {', '.join(near)}; all are in "
                "network.named_modules(), and * stands for one part of a name"
            )
        found += matching
    if not found:
        raise UsageError("attach: no module is named; give names of modules, such as 'layer[12].*.conv2'")
    return found


def resolve_target(network: nn.Module, name: str, side: Side) -> str:
    """A module that can have a child. A Sequential runs whatever it holds: its last or first module stands for it."""
    module = network.get_submodule(name)
    if isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward and len(module):
        children = list(module._modules)
        return resolve_target(network, f"{name}.{children[-1 if side == 'after' else 0]}", side)
    if isinstance(module, nn.Sequential | nn.ModuleList | nn.ModuleDict):
        parts = [f"{name}.{child}" for child in module._modules]
        raise UsageError(
            f"attach: {name} is a {type(module).__name__}, which holds modules and may run each of them; name one of "
            f"its parts instead: {', '.join(parts[:5]) or 'it has none'}"
        )
    return name


@dataclass
class Target:
    """What passes at a module where a layer goes, over runs of images in two sizes."""

    shapes: list[torch.Size] = field(default_factory=list)
    device: torch.device | None = None
    dtype: torch.dtype | None = None

    @property
    def channels_last(self) -> bool:
        """Whether of the last three axes the last is the only one that does not follow the size of the image."""
        if len(self.shapes) < 2:
            return False
        follows = [a != b for a, b in zip(*self.shapes, strict=True)]
        return follows[1:] == [True, True, False]

    @property
    def channels(self) -> int:
        return self.shapes[0][-1 if self.channels_last else 1]


def inspect_targets(network: nn.Module, example: Tensor, targets: Sequence[str], side: Side) -> dict[str, Target]:
    """Run images through the network and see what passes at each target."""
    found = {name: Target() for name in targets}
    calls = dict.fromkeys(targets, 0)
    where = f"the {'output' if side == 'after' else 'input'} of"

    def look(name: str, given: Any) -> None:
        calls[name] += 1
        if not isinstance(given, Tensor):
            kind = type(given).__name__ if given is not None else "nothing in its first position"
            raise UsageError(f"attach: {where} {name} is {kind}; a layer goes where one tensor (n, c, h, w) passes")
        if given.dim() != 4:
            raise UsageError(
                f"attach: {where} {name} has {given.dim()} axes, {tuple(given.shape)}; a layer goes where a tensor "
                "(n, c, h, w) passes"
            )
        found[name].shapes.append(given.shape)
        found[name].device, found[name].dtype = given.device, given.dtype

    handles = []
    for name in targets:
        module = network.get_submodule(name)
        if side == "after":
            hook = module.register_forward_hook(lambda _, args, out, name=name: look(name, out))
        else:
            hook = module.register_forward_pre_hook(lambda _, args, name=name: look(name, args[0] if args else None))
        handles.append(hook)
    try:
        run_images(network, example)
        for name, count in calls.items():
            if count != 1:
                times = "never runs" if count == 0 else f"runs {count} times"
                raise UsageError(
                    f"attach: {name} {times} in one pass, and a layer goes where features pass once; name another "
                    "module (a ReLU, for one, is often shared: take the BatchNorm before it or the convolution after)"
                )
        try:
            run_images(network, half_size(example))
        except UsageError:  # It takes one size alone.
            for one in found.values():
                del one.shapes[1:]
    finally:
        for handle in handles:
            handle.remove()
    return found


def half_size(example: Tensor) -> Tensor:
    """Images of half the height and width."""
    return example[..., ::2, ::2]
