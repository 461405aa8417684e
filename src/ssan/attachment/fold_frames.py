"""Frames folded into the batch of an image network, which then takes videos, and how many a video has while it runs.

The network's class is replaced by a subclass of it whose ``forward`` folds the frames of a video into the batch, and
unfolds what comes out. How many frames a video has is known from the input, for the time of the call, in the thread
that makes it; attached layers ask for it. ``torch.compile`` and ``torch.export`` see through it, and copies and pickles
keep it.
"""

import functools
import threading
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ssan.errors import UsageError, first_line

SEEN = "_ssan_frames_seen"

# What an image network has been seen to raise for an input that it was not made for.
UNFIT = (RuntimeError, ValueError, TypeError, AssertionError, LookupError, AttributeError)

# ``_SCOPE.num_frames`` is the number of frames of the call under way in this thread, 0 outside of any.
_SCOPE = threading.local()


def frames_in_scope() -> int:
    """Frames of a video in the call under way, 0 outside of any."""
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
        self.outer = frames_in_scope()
        _SCOPE.num_frames = self.num_frames
        return self

    def __exit__(self, *exception: object) -> None:
        _SCOPE.num_frames = self.outer


def across_frames(module: nn.Module, layer: Any, x: Tensor, channels_last: bool) -> Tensor:
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
    if t := frames_in_scope():
        if not torch.compiler.is_compiling():
            module.__dict__[SEEN] = t
        return t
    if torch._C._current_graph_task_id() != -1 and SEEN in module.__dict__:
        return module.__dict__[SEEN]
    raise UsageError(
        "a layer that looks across frames was reached without knowing how many a video has; call the network that it "
        "was attached to with (b, t, 3, h, w), or call a part of it within ssan.folded(num_frames)"
    )


# The network's class.


@functools.cache
def video_class(kind: Any) -> Any:
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
    made = video_class(kind)
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
    if not frames_in_scope():
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


# Images, each a video of one frame.


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


def run_images(network: nn.Module, images: Tensor) -> Any:
    """What a network makes of images (n, 3, h, w), in evaluation, each a video of one frame.

    :raises UsageError: it does not take them.
    """
    try:
        with evaluating(network), folded(1):
            return network(images)
    except UNFIT as error:
        raise UsageError(
            f"the network does not take images {tuple(images.shape)} ({first_line(error)}); give images that it takes "
            "as example="
        ) from error
