"""Layers that look across frames, put into an image network that somebody else wrote, without renaming one of its keys.

The layer becomes a child of the module after (or before) which it sits, so its keys are added to the network's and none
of the network's own changes::

    layer1.0.conv2.weight
    layer1.0.conv2.before_input.theta.weight      <- added by attach(..., side="before")
    layer1.0.bn2.after_output.theta.weight        <- added by attach(..., side="after")

Two small things make it run. A forward hook of that module gives the layer its features as (b, t, c, h, w); and the
network's class is replaced by a subclass of it whose ``forward`` folds the frames of a video into the batch, and
unfolds what comes out. How many frames a video has is known from the input, for the time of the call, in the thread
that makes it. ``torch.compile`` and ``torch.export`` see through both, and copies and pickles keep them.
"""

import difflib
import functools
import inspect
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, Literal, TypeVar, get_args

import torch
from torch import Tensor, nn

from ssan.errors import UsageError, unknown
from ssan.layers import LAYERS
from ssan.models.catalogue import call_with_options

Network = TypeVar("Network", bound=nn.Module)
Side = Literal["after", "before"]

# Children under these names are attached layers. They begin as the slots of our own networks do, so that whatever
# treats layers in slots apart (rates, frozen BatchNorm) does so here too.
SLOTS: dict[Side, str] = {"after": "after_output", "before": "before_input"}
HANDLES = "_ssan_handles"
SEEN = "_ssan_frames_seen"

# What an image network has been seen to raise for an input that it was not made for.
UNFIT = (RuntimeError, ValueError, TypeError, AssertionError, LookupError, AttributeError)


# ``_SCOPE.num_frames`` is the number of frames of the call under way in this thread, 0 outside of any.
_SCOPE = threading.local()


def _frames_in_scope() -> int:
    return getattr(_SCOPE, "num_frames", 0)


class folded:  # noqa: N801 - read as a verb: with folded(8): ...
    """Within it, a batch of images counts as videos of ``num_frames`` frames each, folded into the batch axis.

    For code that folds frames itself, or calls a part of a network with attached layers::

        with ssan.folded(8):
            maps = network.forward_features(frames)  # (b * 8, 3, h, w), the frames of a video side by side

    :raises UsageError: ``num_frames`` is below 1.
    """

    def __init__(self, num_frames: int) -> None:
        if num_frames < 1:
            raise UsageError(f"folded: num_frames is {num_frames}; a video has 1 or more")
        self.num_frames = num_frames

    def __enter__(self) -> "folded":
        self.outer = _frames_in_scope()
        _SCOPE.num_frames = self.num_frames
        return self

    def __exit__(self, *exception: object) -> None:
        _SCOPE.num_frames = self.outer


def attach(
    network: Network,
    places: str | Sequence[str],
    layer: str | nn.Module | Callable[[int], nn.Module] = "ssa",
    *,
    side: Side = "after",
    example: Tensor | None = None,
    **options: Any,
) -> Network:
    """Put a layer into an image network at named places, and return the network, which then takes videos.

    It is the same object with the same keys and the layers' in addition. Called with (b, t, 3, h, w) it runs on all
    frames, and every tensor that it returns has the axes b and t where the bare network has n. ``detach`` undoes it.

    ::

        attach(resnet, "layer[12].*.conv2", "ssa", side="before")   # the paper's place in torchvision's and timm's
        attach(resnet, "layer[1234].*.conv1", "temporal_shift", side="before")                          # TSM's place
        attach(convnext, ["stages.1", "stages.2"], "ssa")

    Unsaid by the paper, our choice: SSA, and any other layer that can, starts as the identity, so that the network
    answers as it did until the layer has learnt something (``identity_start=False`` for a network with random weights;
    pinned in tests/test_attach.py).

    :param places: names of modules, as in ``network.named_modules()``; in each part of a name ``*``, ``?`` and ``[12]``
        are wildcards. An ``nn.Sequential`` stands for its last module (or its first, where ``side`` is ``before``).
    :param layer: a name in ``LAYERS``, or what makes a module from a number of channels; it maps (b, t, c, h, w) to the
        same shape. For a single place also the module itself.
    :param side: ``after`` the module's output or ``before`` its (first) input: a tensor (n, c, h, w), or (n, h, w, c)
        inside networks that compute so, which is found out by running ``example`` in two sizes. A network that takes
        one size alone is taken to compute in (n, c, h, w).
    :param example: images (n, 3, h, w) that the bare network takes; one of 224 x 224 by default.
    :param options: named arguments of the layer, such as ``channel_branch=False``; of named layers only.
    :raises UsageError: no module has the name, a layer is there already, what passes there is not one 4-D tensor, or it
        passes more than once; the network is then as it was.
    """
    if isinstance(network, torch.jit.ScriptModule) or hasattr(network, "_orig_mod"):
        raise UsageError(
            "attach: the network is compiled already; attach to the network itself, and compile the result"
        )
    if side not in SLOTS:
        raise UsageError(f"attach: side is {side!r}; it must be {' or '.join(map(repr, get_args(Side)))}")
    targets = [_resolve(network, name, side) for name in _match(network, places)]
    for position, name in enumerate(targets):
        if SLOTS[side] in network.get_submodule(name)._modules or name in targets[:position]:
            raise UsageError(f"attach: there is a layer {side} {name} already; name each place once, or detach first")
    make = _maker(layer, len(targets), options)
    example = example_images(network) if example is None else example
    seen = _watch(network, example, targets, side)
    added = {name: make(seen[name].channels).to(seen[name].device, seen[name].dtype) for name in targets}
    original: Any = type(network)
    try:
        for name, new in added.items():
            _put(network.get_submodule(name), side, new, seen[name].channels_last)
        if not hasattr(original, "ssan_image_class"):
            network.__class__ = _video_class(original)
        _try(network, example if any(len(one.shapes) < 2 for one in seen.values()) else _half(example), added)
    except BaseException:
        for name in added:
            _take_out(network.get_submodule(name), side)
        network.__class__ = original
        raise
    return network


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


def example_images(network: nn.Module) -> Tensor:
    """One black image (1, 3, 224, 224) where the network's weights are, and of their type."""
    weight = next((p for p in network.parameters() if p.is_floating_point()), torch.empty(0))
    return torch.zeros(1, 3, 224, 224, device=weight.device, dtype=weight.dtype)


class evaluating:  # noqa: N801 - with evaluating(network): ...
    """Within it all of a network is in evaluation mode and nothing is recorded for a gradient; afterwards each module
    is in the mode that it was in."""

    def __init__(self, network: nn.Module) -> None:
        self.network = network
        self.no_grad = torch.no_grad()

    def __enter__(self) -> None:
        self.training = {module: module.training for module in self.network.modules()}
        self.network.eval()
        self.no_grad.__enter__()

    def __exit__(self, *exception: Any) -> None:
        self.no_grad.__exit__(*exception)
        for module, training in self.training.items():
            module.training = training


# Where.


def _names(network: nn.Module) -> Iterator[str]:
    """Names of the network's own modules, without the attached layers and their parts."""
    slots = set(SLOTS.values())
    return (name for name, _ in network.named_modules() if name and not slots & set(name.split(".")))


def _match(network: nn.Module, places: str | Sequence[str]) -> list[str]:
    names = list(_names(network))
    found: list[str] = []
    for pattern in [places] if isinstance(places, str) else places:
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
        raise UsageError("attach: no place is named; give names of modules, such as 'layer[12].*.conv2'")
    return found


def _resolve(network: nn.Module, name: str, side: Side) -> str:
    """A module that can have a child. A Sequential runs whatever it holds: its last or first module stands for it."""
    module = network.get_submodule(name)
    if isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward and len(module):
        children = list(module._modules)
        return _resolve(network, f"{name}.{children[-1 if side == 'after' else 0]}", side)
    if isinstance(module, nn.Sequential | nn.ModuleList | nn.ModuleDict):
        parts = [f"{name}.{child}" for child in module._modules]
        raise UsageError(
            f"attach: {name} is a {type(module).__name__}, which holds modules and may run each of them; name one of "
            f"its parts instead: {', '.join(parts[:5]) or 'it has none'}"
        )
    return name


@dataclass
class _Seen:
    """What passes at a place, over runs of images in two sizes."""

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


def _watch(network: nn.Module, example: Tensor, targets: Sequence[str], side: Side) -> dict[str, _Seen]:
    """Run images through the network and see what passes at each place."""
    seen = {name: _Seen() for name in targets}
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
        seen[name].shapes.append(given.shape)
        seen[name].device, seen[name].dtype = given.device, given.dtype

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
            run_images(network, _half(example))
        except UsageError:  # It takes one size alone.
            for one in seen.values():
                del one.shapes[1:]
    finally:
        for handle in handles:
            handle.remove()
    return seen


def _half(example: Tensor) -> Tensor:
    return example[..., ::2, ::2]


def run_images(network: nn.Module, images: Tensor) -> Any:
    """What a network makes of images (n, 3, h, w), in evaluation, each a video of one frame.

    :raises UsageError: it does not take them.
    """
    try:
        with evaluating(network), folded(1):
            return network(images)
    except UNFIT as error:
        raise UsageError(
            f"the network does not take images {tuple(images.shape)} ({_first_line(error)}); give images that it takes "
            "as example="
        ) from error


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)[:200]


# What.


def _maker(
    layer: str | nn.Module | Callable[[int], nn.Module], num_places: int, options: Mapping[str, Any]
) -> Callable[[int], nn.Module]:
    """From a number of channels to the module that goes to a place."""
    if isinstance(layer, nn.Module):
        if num_places > 1 or options:
            raise UsageError(
                f"attach: one {type(layer).__name__} was given for {num_places} places"
                + (f" with options {dict(options)}" if options else "")
                + "; give a class, or a function of the number of channels, and each place gets its own"
            )
        return lambda channels: layer
    if isinstance(layer, str):
        if layer not in LAYERS:
            raise UsageError("attach: " + unknown("layer", layer, LAYERS))
        name, kind = layer, LAYERS[layer]
    else:
        name, kind = getattr(layer, "__name__", "layer"), layer
    if "identity_start" in inspect.signature(kind).parameters and options.get("output") != "plain":
        options = {"identity_start": True, **options}

    def make(channels: int) -> nn.Module:
        new = call_with_options(functools.partial(kind, channels), options, f"layer {name}")
        if not isinstance(new, nn.Module):
            raise UsageError(f"attach: {name} makes a {type(new).__name__}; it must make a module from the channels")
        return new

    return make


# How.


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
    return _across_frames(module, module.after_output, out, channels_last)


def _before_input(module: nn.Module, args: tuple[Any, ...], *, channels_last: bool) -> tuple[Any, ...]:
    return _across_frames(module, module.before_input, args[0], channels_last), *args[1:]


def _across_frames(module: nn.Module, layer: Any, x: Tensor, channels_last: bool) -> Tensor:
    """Features of frames folded into the batch, through a layer that takes (b, t, c, h, w)."""
    t = _frames_now(module)
    if not torch.compiler.is_compiling() and x.shape[0] % t:
        raise UsageError(f"{x.shape[0]} frames are not whole videos of {t}; fold b videos of t frames into b * t")
    y = x.unflatten(0, (-1, t))
    y = layer(y.movedim(-1, 2)).movedim(2, -1) if channels_last else layer(y)
    return y.flatten(0, 1)


def _frames_now(module: nn.Module) -> int:
    """The number of frames of the call under way.

    Checkpointing runs a module again in the backward pass, when the call is over, and on a GPU in another thread. What
    it computes must be what it computed the last time, so the number is what it was then; if it were not, the
    checkpoint itself would find other shapes, and say so.
    """
    if t := _frames_in_scope():
        if not torch.compiler.is_compiling():
            module.__dict__[SEEN] = t
        return t
    if torch._C._current_graph_task_id() != -1 and SEEN in module.__dict__:
        return module.__dict__[SEEN]
    raise UsageError(
        "a layer that looks across frames was reached without knowing how many a video has; call the network that it "
        "was attached to with (b, t, 3, h, w), or call a part of it within ssan.folded(num_frames)"
    )


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
            f"attach: with the layers the network does not run on a video of two frames ({_first_line(error)}); does "
            "the layer take any number of frames, and the network any number of images?"
        ) from error
    finally:
        for handle in handles:
            handle.remove()
    wrong = next((name for name, count in runs.items() if count != 1), None)
    if wrong is not None:
        raise UsageError(
            f"attach: the layer at {wrong} ran {runs[wrong]} times in one pass, not once; the network calls that "
            "module otherwise than as a module. Name another place"
        )


@functools.cache
def _video_class(kind: Any) -> Any:
    """The subclass of an image network's class that takes videos too; to everybody else it is that class."""

    @functools.wraps(kind.forward)
    def forward(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        return _on_video(functools.partial(kind.forward, self), args, kwargs)

    def __reduce_ex__(self: nn.Module, protocol: Any) -> Any:  # noqa: N807 - becomes a method below
        # Its class has no name that could be imported: it is made again where the pickle is read.
        reduced: Any = kind.__reduce_ex__(self, protocol)
        return _new_video, (kind, *reduced[1][1:]), *reduced[2:]

    body = {
        "__module__": kind.__module__, "__qualname__": kind.__qualname__, "__doc__": kind.__doc__,
        "forward": forward, "__reduce_ex__": __reduce_ex__, "ssan_image_class": kind,
    }  # fmt: skip
    return type(kind.__name__, (kind,), body)


def _new_video(kind: Any, *arguments: Any) -> nn.Module:
    made = _video_class(kind)
    return made.__new__(made, *arguments)


def _on_video(forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Call an image network's forward with the frames folded into the batch."""
    inputs = [*args, *kwargs.values()]
    clips = next((value for value in inputs if isinstance(value, Tensor)), None)
    if clips is not None and clips.dim() == 5:
        t = clips.shape[1]
        args = tuple(value.flatten(0, 1) if value is clips else value for value in args)
        kwargs = {name: value.flatten(0, 1) if value is clips else value for name, value in kwargs.items()}
        with folded(t):
            out = forward(*args, **kwargs)
        return _unfold(out, t)
    if not _frames_in_scope():
        shape = "no tensor" if clips is None else tuple(clips.shape)
        raise UsageError(
            f"the network has layers that look across frames and takes videos (b, t, 3, h, w); got {shape}. Images are "
            "videos of one frame, images.unsqueeze(1); frames that are folded already go within ssan.folded(num_frames)"
        )
    return forward(*args, **kwargs)


def _unfold(out: Any, t: int) -> Any:
    """Every tensor of what a network returns with b and t where it has n."""
    if isinstance(out, Tensor):
        return out.unflatten(0, (-1, t)) if out.dim() else out
    if isinstance(out, Mapping):
        unfolded = {name: _unfold(value, t) for name, value in out.items()}
        return unfolded if type(out) is dict else type(out)(**unfolded)
    if isinstance(out, tuple) and hasattr(out, "_fields"):
        return type(out)(*(_unfold(value, t) for value in out))
    if isinstance(out, list | tuple):
        return type(out)(_unfold(value, t) for value in out)
    return out
