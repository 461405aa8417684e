"""Layers that look across frames, put into an image network that somebody else wrote, without renaming one of its keys.

The layer becomes a child of the module after (or before) which it sits, so its keys are added to the network's and none
of the network's own changes::

    layer1.0.conv2.weight
    layer1.0.conv2.before_input.theta.weight      <- added by attach(..., side="before")
    layer1.0.bn2.after_output.theta.weight        <- added by attach(..., side="after")

Two small things make it run: a forward hook of that module gives the layer its features as (b, t, c, h, w), and the
network folds the frames of a video into its batch (``fold_frames``). Which modules a name means, and what passes there,
is found in ``targets``.
"""

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar, get_args

import torch
from torch import Tensor, nn

from ssan.attachment.fold_frames import SEEN, UNFIT, across_frames, evaluating, example_images, video_class
from ssan.attachment.targets import SLOTS, Side, half_size, inspect_targets, match_modules, resolve_target
from ssan.errors import UsageError, first_line, unknown
from ssan.layers import LAYERS
from ssan.models.catalogue import call_with_options

Network = TypeVar("Network", bound=nn.Module)

HANDLES = "_ssan_handles"


def attach(
    network: Network,
    modules: str | Sequence[str],
    layer: str | nn.Module | Callable[[int], nn.Module] = "ssa",
    *,
    side: Side = "after",
    example: Tensor | None = None,
    **options: Any,
) -> Network:
    """Put a layer into an image network at named modules, and return the network, which then takes videos.

    It is the same object with the same keys and the layers' in addition. Called with (b, t, 3, h, w) it runs on all
    frames, and every tensor that it returns has the axes b and t where the bare network has n. ``detach`` undoes it.

    ::

        attach(resnet, "layer[12].*.conv2", "ssa", side="before")  # as the paper, in torchvision's and timm's
        attach(resnet, "layer[1234].*.conv1", "temporal_shift", side="before")  # as TSM
        attach(convnext, ["stages.1", "stages.2"], "ssa")

    Unsaid by the paper, our choice: SSA, and any other layer that can, starts as the identity, so that the network
    answers as it did until the layer has learnt something (``identity_start=False`` for a network with random weights,
    ``start=0.2`` for a share of the layer at first; pinned in tests/attachment/test_attach.py).

    :param modules: names of modules, as in ``network.named_modules()``; in each part of a name ``*``, ``?`` and
        ``[12]`` are wildcards. An ``nn.Sequential`` stands for its last module (or its first, where ``side`` is
        ``before``).
    :param layer: a name in ``LAYERS``, or what makes a module from a number of channels; it maps (b, t, c, h, w) to the
        same shape. Where only one is named also the module itself.
    :param side: ``after`` the module's output or ``before`` its (first) input: a tensor (n, c, h, w), or (n, h, w, c)
        inside networks that compute so, which is found out by running ``example`` in two sizes. A network that takes
        one size alone is taken to compute in (n, c, h, w).
    :param example: images (n, 3, h, w) that the bare network takes; one of 224 x 224 by default.
    :param options: named arguments of the layer, such as ``channel_branch=False``; of named layers only.
    :raises UsageError: no module has the name, a layer is there already, what passes there is not one 4-D tensor, or it
        passes more than once; the network is then as it was.
    """
    targets = _targets(network, modules, side)
    make = _maker(layer, len(targets), options)
    example = example_images(network) if example is None else example
    found = inspect_targets(network, example, targets, side)
    added = {name: make(found[name].channels).to(found[name].device, found[name].dtype) for name in targets}
    original: Any = type(network)
    try:
        for name, new in added.items():
            _put(network.get_submodule(name), side, new, found[name].channels_last)
        if not hasattr(original, "ssan_image_class"):
            network.__class__ = video_class(original)
        _try(network, example if any(len(one.shapes) < 2 for one in found.values()) else half_size(example), added)
    except BaseException:
        for name in added:
            _take_out(network.get_submodule(name), side)
        network.__class__ = original
        raise
    return network


def _targets(network: nn.Module, modules: str | Sequence[str], side: Side) -> list[str]:
    """The modules that are meant, by their names, of a network to which a layer can be attached there."""
    if isinstance(network, torch.jit.ScriptModule) or hasattr(network, "_orig_mod"):
        raise UsageError(
            "attach: the network is compiled already; attach to the network itself, and compile the result"
        )
    if side not in SLOTS:
        raise UsageError(f"attach: side is {side!r}; it must be {' or '.join(map(repr, get_args(Side)))}")
    targets = [resolve_target(network, name, side) for name in match_modules(network, modules)]
    for position, name in enumerate(targets):
        if SLOTS[side] in network.get_submodule(name)._modules or name in targets[:position]:
            raise UsageError(f"attach: there is a layer {side} {name} already; name each module once, or detach first")
    return targets


def detach(network: Network) -> Network:
    """Take out all layers that ``attach`` put in and return the network, the image network that it was before.

    :raises UsageError: no layer is attached to it.
    """
    kind = getattr(type(network), "ssan_image_class", None)
    if kind is None:
        raise UsageError(
            f"detach: nothing is attached to this {type(network).__name__}; give what `attach` returned, not a part of "
            "it or what wraps it"
        )
    for module in list(network.modules()):
        for side in SLOTS:
            _take_out(module, side)
    network.__class__ = kind
    return network


def attached_layers(network: nn.Module) -> dict[str, nn.Module]:
    """The layers that are attached to a network, by their module names."""
    return {
        f"{name}.{slot}" if name else slot: module._modules[slot]
        for name, module in network.named_modules()
        for slot in module.__dict__.get(HANDLES, {})
    }


def _maker(
    layer: str | nn.Module | Callable[[int], nn.Module], num_targets: int, options: Mapping[str, Any]
) -> Callable[[int], nn.Module]:
    """From a number of channels to the module that goes to a target."""
    if isinstance(layer, nn.Module):
        if num_targets > 1 or options:
            raise UsageError(
                f"attach: one {type(layer).__name__} was given for {num_targets} modules"
                + (f" with options {dict(options)}" if options else "")
                + "; give a class, or a function of the number of channels, and each gets its own"
            )
        return lambda channels: layer
    if isinstance(layer, str):
        if layer not in LAYERS:
            raise UsageError("attach: " + unknown("layer", layer, LAYERS))
        name, kind = layer, LAYERS[layer]
    else:
        name, kind = getattr(layer, "__name__", "layer"), layer
    takes_start = "identity_start" in inspect.signature(kind).parameters
    if takes_start and options.get("output") != "plain" and options.get("start") is None:
        options = {"identity_start": True, **options}

    def make(channels: int) -> nn.Module:
        new = call_with_options(functools.partial(kind, channels), options, f"layer {name}")
        if not isinstance(new, nn.Module):
            raise UsageError(f"attach: {name} makes a {type(new).__name__}; it must make a module from the channels")
        return new

    return make


def _put(module: nn.Module, side: Side, layer: nn.Module, channels_last: bool) -> None:
    layer.train(module.training)
    module.add_module(SLOTS[side], layer)
    hook = functools.partial(_after_output if side == "after" else _before_input, channels_last=channels_last)
    # The handle is kept with the module: copied or pickled with it, it belongs to the copy.
    handles = module.__dict__.setdefault(HANDLES, {})
    register = module.register_forward_hook if side == "after" else module.register_forward_pre_hook
    handles[SLOTS[side]] = register(hook)


def _take_out(module: nn.Module, side: Side) -> None:
    handles = module.__dict__.get(HANDLES, {})
    if SLOTS[side] not in handles:
        return
    handles.pop(SLOTS[side]).remove()
    delattr(module, SLOTS[side])
    if not handles:
        delattr(module, HANDLES)
        module.__dict__.pop(SEEN, None)


def _after_output(module: nn.Module, args: Any, out: Tensor, *, channels_last: bool) -> Tensor:
    return across_frames(module, module.after_output, out, channels_last)


def _before_input(module: nn.Module, args: tuple[Any, ...], *, channels_last: bool) -> tuple[Any, ...]:
    return across_frames(module, module.before_input, args[0], channels_last), *args[1:]


def _try(network: nn.Module, example: Tensor, added: Mapping[str, nn.Module]) -> None:
    """Run one video of two frames, and see each new layer run once and keep the shape of its input."""
    runs: dict[str, int] = dict.fromkeys(added, 0)

    def look(name: str, given: Tensor, out: Any) -> None:
        runs[name] += 1
        if not isinstance(out, Tensor) or out.shape != given.shape:
            shape = tuple(out.shape) if isinstance(out, Tensor) else type(out).__name__
            raise UsageError(
                f"attach: the layer at {name} makes {shape} of {tuple(given.shape)}; it must keep (b, t, c, h, w)"
            )

    handles = [
        layer.register_forward_hook(lambda _, args, out, name=name: look(name, args[0], out))
        for name, layer in added.items()
    ]
    try:
        with evaluating(network):
            network(example[:1].expand(2, -1, -1, -1).unsqueeze(0))
    except UNFIT as error:
        raise UsageError(
            f"attach: with the layers the network does not run on a video of two frames ({first_line(error)}); does "
            "the layer take any number of frames, and the network any number of images?"
        ) from error
    finally:
        for handle in handles:
            handle.remove()
    wrong = next((name for name, count in runs.items() if count != 1), None)
    if wrong is not None:
        raise UsageError(
            f"attach: the layer at {wrong} ran {runs[wrong]} times in one pass, not once; the network calls that "
            "module otherwise than as a module. Name another module"
        )
