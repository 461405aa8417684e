"""Named models: a family (what looks across frames, and where) on a backbone, or a network that is whole by itself.

``ssan_r50`` is the family ``ssan`` on the backbone ``r50``. Each family is one entry below, each backbone another, and
``MODELS`` is their product, but for backbones that are offered with some families alone, and beside it the networks
that are whole by themselves, such as ``i3d``.
"""

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any, get_args

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ssan.errors import UsageError, first_line, shortened, unknown
from ssan.layers import CONSENSUSES, LAYERS
from ssan.models.blvnet import BLVNet
from ssan.models.bninception import BNInception
from ssan.models.c3d import C3D
from ssan.models.classifier import Classifier
from ssan.models.efficientnet_lite import EfficientNetLite
from ssan.models.i3d import InceptionI3D
from ssan.models.mobilenet import MobileNetV2
from ssan.models.nl_i3d import NonLocalI3D
from ssan.models.r3d import BasicBlock3D, Bottleneck3D, ResNet3D
from ssan.models.resnet import BasicBlock, Bottleneck, ResNet
from ssan.models.resnext3d import ResNeXt3D
from ssan.models.s3d import S3D
from ssan.models.slots import SlotChoice, fill_slots

# No network is this wide, and the memory of a machine is at stake: recipes also come with models from elsewhere.
MAX_OPTION = 65_536


@dataclass(frozen=True)
class Backbone:
    """A 2-D network by name, and the frames it was made for.

    :param build: makes it; keyword arguments are options of the backbone, such as ``stride_in``.
    :param ssa_slot: where attention goes in its blocks.
    :param shift_every: TSM shifts in every block, in every second one where a stage has 23 blocks or more.
    :param families: those that it is offered with; all of them without any named.
    """

    build: Callable[..., nn.Module]
    size_px: int = 224
    ssa_slot: str = "after_conv1"
    shift_every: int = 1
    families: tuple[str, ...] = ()


BACKBONES: dict[str, Backbone] = {
    "r18": Backbone(partial(ResNet, BasicBlock, (2, 2, 2, 2))),
    "r34": Backbone(partial(ResNet, BasicBlock, (3, 4, 6, 3))),
    "r50": Backbone(partial(ResNet, Bottleneck, (3, 4, 6, 3))),
    "r101": Backbone(partial(ResNet, Bottleneck, (3, 4, 23, 3)), shift_every=2),
    "r152": Backbone(partial(ResNet, Bottleneck, (3, 8, 36, 3)), shift_every=2),
    "mobilenet_v2": Backbone(MobileNetV2, ssa_slot="after_projection"),
    "efficientnet_lite0": Backbone(EfficientNetLite, ssa_slot="after_projection"),
    # Of TSN's, TRN's and TSM's own figures.
    "bninception": Backbone(BNInception, families=("tsn", "tsm", "trn")),
    # For the demo and for experiments on a laptop: three bottlenecks of width 16.
    "tiny": Backbone(partial(ResNet, Bottleneck, (1, 1, 1), width=16), size_px=48),
}


@dataclass(frozen=True)
class Family:
    """What a model adds to its backbone.

    :param layer: a name in ``LAYERS``, put into slots.
    :param knows_order: whether scores change when the frames are permuted.
    :param options: arguments of the layer that the family stands for; a run cannot change them.
    :param defaults: arguments of the layer that are not its own defaults, and that a run may change.
    :param over: another family, whose layers are there as well. An option of a run that only they take goes to them.
    :param consensus: a name in ``CONSENSUSES``; without one, scores are averaged over frames.
    """

    layer: str | None
    places: Callable[[Backbone, tuple[str, ...]], SlotChoice] | None
    knows_order: bool
    options: Mapping[str, Any] = field(default_factory=dict)
    defaults: Mapping[str, Any] = field(default_factory=dict)
    over: str | None = None
    consensus: str | None = None


def _where_ssa_goes(backbone: Backbone, _: tuple[str, ...]) -> SlotChoice:
    """Section 3.3 for SSA; section 4.3 compares the non-local blocks with it in the same places."""
    return SlotChoice(("res2", "res3"), backbone.ssa_slot)


def _where_tsm_has_non_local_blocks(*_: object) -> SlotChoice:
    """The five of the non-local paper's ResNet-50, as TSM's code counts "every second block": 0, 2 and 0, 2, 4."""
    return SlotChoice(("res3", "res4"), "after_block", every=2)


def _non_local_in_tsm(knows_order: bool, over: str | None = None) -> Family:
    """The block as TSM's code and mmaction2 build it: half the channels inside, keys pooled, similarities unscaled."""
    return Family(
        "nonlocal",
        _where_tsm_has_non_local_blocks,
        knows_order=knows_order,
        options={"axes": "thw"},
        defaults={"embedding": "half", "similarity_scale": "none", "pool_keys": True},
        over=over,
    )


FAMILIES: dict[str, Family] = {
    "tsn": Family(None, None, knows_order=False),
    "tsm": Family(
        "temporal_shift",
        lambda backbone, stages: SlotChoice(stages, "before_conv1", backbone.shift_every),
        knows_order=True,
    ),
    "tsn_nl": _non_local_in_tsm(knows_order=False),
    "tsm_nl": _non_local_in_tsm(knows_order=True, over="tsm"),
    "trn": Family(None, None, knows_order=True, consensus="relation"),
    "nl3d": Family("nonlocal", _where_ssa_goes, knows_order=False, options={"axes": "thw"}),
    "nl2d": Family("nonlocal", _where_ssa_goes, knows_order=False, options={"axes": "hw"}),
    "nl1d": Family("nonlocal", _where_ssa_goes, knows_order=False, options={"axes": "t"}),
    "nl2d1d": Family("nonlocal_pair", _where_ssa_goes, knows_order=False),
    "a2": Family("double_attention", _where_ssa_goes, knows_order=False),
    "ssan": Family("ssa", _where_ssa_goes, knows_order=True),
}


@dataclass(frozen=True)
class Network:
    """A network over time and space that is whole by itself: it has no slots, and no family goes on it.

    :param build: makes it; keyword arguments are its options.
    :param size_px: side of its input.
    :param preprocess: fields of ``Preprocess``, and keys of a recipe, as it was published with, where these are not the
        usual ones.
    :param small: the network of the same kind that stands for it in small tables (``ssan reproduce --mini``).
    """

    build: Callable[..., nn.Module]
    num_frames: int
    size_px: int
    knows_order: bool = True
    preprocess: Mapping[str, Any] = field(default_factory=dict)
    small: str | None = None


# I3D's authors, and S3D's after them.
_AS_I3D = {"sampling": "dense", "stride": 1, "frames_per_second": 25.0, "resize": "short_side"}


def _blvnet(*num_blocks: int) -> Network:
    return Network(
        partial(BLVNet, num_blocks),
        num_frames=16,
        size_px=224,
        preprocess={"resize": "short_side", "size_px": 224},
        small="blvnet_tiny",
    )


# 16 frames in a row at 15 a second, as torchvision evaluates its weights (references/video_classification there), whose
# pictures are squeezed to 171 x 128 px; here they keep their shape.
_R3D = {"sampling": "dense", "stride": 1, "frames_per_second": 15.0, "resize": "short_side"}

_NON_LOCAL = {"sampling": "dense", "stride": 8, "frames_per_second": 30.0, "resize": "short_side"}

NETWORKS: dict[str, Network] = {
    # 64 frames in a row at 25 a second; pictures by their short side (section 4.1 there, and its authors' code).
    "i3d": Network(
        InceptionI3D,
        num_frames=64,
        size_px=224,
        preprocess=_AS_I3D,
        small="i3d_tiny",
    ),
    "i3d_tiny": Network(partial(InceptionI3D, width=0.25), num_frames=16, size_px=48),
    "s3d": Network(S3D, num_frames=64, size_px=224, preprocess=_AS_I3D, small="s3d_tiny"),
    "s3d_tiny": Network(partial(S3D, width=0.25), num_frames=16, size_px=48),
    "s3dg": Network(
        partial(S3D, stem="tensorflow", gating=True), num_frames=64, size_px=224, preprocess=_AS_I3D, small="s3dg_tiny"
    ),
    "s3dg_tiny": Network(partial(S3D, stem="tensorflow", gating=True, width=0.25), num_frames=16, size_px=48),
    # MIL-NCE's video tower: 32 frames in a row at 10 a second, a centre square (S3D_HowTo100M, issue 3).
    "s3d_milnce": Network(
        partial(S3D, stem="space_to_depth", gating=True),
        num_frames=32,
        size_px=224,
        preprocess={**_AS_I3D, "frames_per_second": 10.0, "size_px": 224},
    ),
    # 8x2 of its tables; pictures whole by their short side, as its authors test without scaling up. The depth of 101 is
    # Big-Little Net's own.
    "blvnet_r50": _blvnet(3, 4, 6, 3),
    "blvnet_r101": _blvnet(4, 8, 18, 3),
    "blvnet_tiny": Network(partial(BLVNet, (3, 3, 3, 1), width=16), num_frames=8, size_px=48),
    **{
        f"r3d_{name}": Network(
            partial(ResNet3D, block, depths), num_frames=16, size_px=112, preprocess=_R3D, small="r3d_tiny"
        )
        for name, block, depths in (
            ("r18", BasicBlock3D, (2, 2, 2, 2)),
            ("r34", BasicBlock3D, (3, 4, 6, 3)),
            ("r50", Bottleneck3D, (3, 4, 6, 3)),
        )
    },
    "r3d_tiny": Network(partial(ResNet3D, BasicBlock3D, (1, 1, 1), width=16), num_frames=16, size_px=48),
    # 16 frames in a row (section 3.3 there), pictures by their short side (mmaction2's configs/recognition/c3d).
    "c3d": Network(
        C3D,
        num_frames=16,
        size_px=112,
        preprocess={"sampling": "dense", "stride": 1, "resize": "short_side"},
        small="c3d_tiny",
    ),
    # 8 frames 8 apart, at 30 a second; 32 and 128 frames are told by time_stride=2.
    "nl_i3d_r50": Network(NonLocalI3D, num_frames=8, size_px=224, preprocess=_NON_LOCAL, small="nl_i3d_tiny"),
    # It knows which frames are neighbours, and not which comes first.
    "c2d_nl_r50": Network(
        partial(NonLocalI3D, inflated=False), num_frames=8, size_px=224, preprocess=_NON_LOCAL, small="nl_i3d_tiny"
    ),
    "nl_i3d_tiny": Network(partial(NonLocalI3D, (1, 2, 2), width=16), num_frames=8, size_px=48),
    # HowTo100M's extractor: 16 frames in a row at 24 a second, the short side as large as the crop.
    "resnext3d_101": Network(
        ResNeXt3D,
        num_frames=16,
        size_px=112,
        preprocess={
            "sampling": "dense",
            "stride": 1,
            "frames_per_second": 24.0,
            "resize": "short_side",
            "size_px": 112,
        },
        small="resnext3d_tiny",
    ),
    "resnext3d_tiny": Network(partial(ResNeXt3D, (1, 1, 1), width=32, groups=8), num_frames=16, size_px=48),
    "c3d_tiny": Network(partial(C3D, width=0.125, side=2, norm=True), num_frames=16, size_px=48),
}


@dataclass(frozen=True)
class ModelSpec:
    """A named model: everything but the number of classes and the options of a run.

    :param preprocess: what of a recipe's keys for frames differs from the usual where a run says nothing.
    """

    name: str
    family: str
    backbone: str
    layer: str | None
    over: str | None
    consensus: str | None
    places: SlotChoice | None
    num_frames: int
    size_px: int
    knows_order: bool
    preprocess: Mapping[str, Any] = field(default_factory=dict, hash=False)

    @property
    def layers(self) -> tuple[str, ...]:
        """Names in ``LAYERS``: the family's own, and that of the family which it goes over."""
        lower = FAMILIES[self.over].layer if self.over else None
        return tuple(layer for layer in (lower, self.layer) if layer is not None)


def _specify(family_name: str, backbone_name: str) -> ModelSpec:
    family, backbone = FAMILIES[family_name], BACKBONES[backbone_name]
    stages = tuple(f"res{n}" for n in range(2, 5 if backbone_name == "tiny" else 6))
    places = family.places(backbone, stages) if family.places else None
    return ModelSpec(
        name=f"{family_name}_{backbone_name}",
        family=family_name,
        backbone=backbone_name,
        layer=family.layer,
        over=family.over,
        consensus=family.consensus,
        places=places,
        num_frames=8,
        size_px=backbone.size_px,
        knows_order=family.knows_order,
    )


def _specify_whole(name: str) -> ModelSpec:
    network = NETWORKS[name]
    return ModelSpec(
        name=name,
        family=name,
        backbone=name,
        layer=None,
        over=None,
        consensus=None,
        places=None,
        num_frames=network.num_frames,
        size_px=network.size_px,
        knows_order=network.knows_order,
        preprocess={"num_frames": network.num_frames, **network.preprocess},
    )


MODELS: dict[str, ModelSpec] = {
    spec.name: spec
    for spec in (
        *(
            _specify(family, name)
            for family in FAMILIES
            for name, backbone in BACKBONES.items()
            if not backbone.families or family in backbone.families
        ),
        *map(_specify_whole, NETWORKS),
    )
}


def specification(name: str) -> ModelSpec:
    """The named model's specification; an unknown name is a ``UsageError`` with the nearest known one."""
    if name not in MODELS:
        raise UsageError(unknown("model", name, MODELS))
    return MODELS[name]


def build(
    name: str,
    num_classes: int,
    *,
    num_frames: int = 8,
    dropout: float = 0.5,
    layer_options: Mapping[str, Any] | None = None,
    places: Mapping[str, Any] | None = None,
    backbone_options: Mapping[str, Any] | None = None,
    consensus: str | None = None,
) -> Classifier:
    """Build a named model with random weights.

    :param num_frames: frames of a clip, for a consensus that has weights for each; other models take any number.
    :param layer_options: named arguments of the family's layer, such as ``{"channel_branch": False}``, or of its
        consensus, such as ``{"num_relations": 5}``.
    :param places: fields of ``SlotChoice`` that differ from the family's own, such as ``{"stages": ("res2",)}``.
    :param backbone_options: named arguments of the backbone, such as ``{"stride_in": "conv1"}``.
    :param consensus: a name in ``CONSENSUSES`` instead of the mean over frames.
    :raises UsageError: an unknown model, option, place or consensus, or one more than the family's own.
    """
    spec = specification(name)
    make = NETWORKS[name].build if name in NETWORKS else BACKBONES[spec.backbone].build
    backbone = call_with_options(make, backbone_options or {}, f"the backbone of {name}")
    family = FAMILIES.get(spec.family, Family(None, None, spec.knows_order))
    options = dict(layer_options or {})
    for what, given, takes in [
        ("layer", options, spec.layer or spec.consensus),
        ("places", places, spec.places),
    ]:
        if given and takes is None:
            raise UsageError(
                f"{name} has no layer between its frames, so {what} cannot be set: {dict(given)}. "
                "Leave it out, or take an ssan_* or tsm_* model"
            )
    for word in options:
        if word in family.options:
            raise UsageError(
                f"{name} is the model with {word} {family.options[word]!r}, so {word} cannot be set; leave it out"
            )
    if spec.over is not None:
        lower = MODELS[f"{spec.over}_{spec.backbone}"]
        its = _takes(lower) - _takes(spec)
        _fill(backbone, lower, {word: options.pop(word) for word in list(options) if word in its})
    _fill(backbone, spec, {**family.defaults, **options, **family.options}, places)
    if spec.consensus is not None and consensus is not None:
        raise UsageError(f"{name} has a consensus of its own, {spec.consensus}; leave out consensus={consensus}")
    chosen = spec.consensus or consensus
    if chosen is None:
        return Classifier(backbone, num_classes, dropout=dropout)
    if chosen not in CONSENSUSES:
        raise UsageError(unknown("consensus", chosen, CONSENSUSES))
    own = options if spec.consensus is not None else {}
    made = call_with_options(partial(CONSENSUSES[chosen], num_classes, num_frames), own, f"consensus {chosen}")
    return Classifier(backbone, num_classes, dropout=dropout, consensus=made)


def _takes(spec: ModelSpec) -> set[str]:
    """The options of a model's layer."""
    return set(inspect.signature(LAYERS[spec.layer]).parameters) if spec.layer else set()


def _fill(
    backbone: nn.Module, spec: ModelSpec, options: Mapping[str, Any], places: Mapping[str, Any] | None = None
) -> None:
    """Put a model's layer, if it has one, into the slots of a backbone."""
    if spec.layer is None or spec.places is None:
        return
    make, where, what = LAYERS[spec.layer], spec.places, f"layer {spec.layer}"
    if places:
        where = call_with_options(SlotChoice, {**asdict(where), **places}, "places")
    fill_slots(backbone, lambda channels: call_with_options(partial(make, channels), options, what), where)


@contextmanager
def without_memory() -> Iterator[None]:
    """Build networks in it that have shapes and no values: quick, and of any size."""
    with torch.device("meta"), _WithoutValues():
        yield


def channels_last(model: nn.Module) -> nn.Module:
    """The model, the weights of whose convolutions now lie in memory with the channels last: on most CPUs it is faster.

    Of pictures and of volumes, which torch's own ``to`` cannot do together.
    """
    for part in model.modules():
        if isinstance(part, nn.Conv3d):
            part.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        elif isinstance(part, nn.Conv2d):
            part.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return model


class _WithoutValues(TorchFunctionMode):
    """Leaves out drawing the first values of weights; without memory it would import torch's compiler, for a second."""

    def __torch_function__(
        self, function: Any, types: Any, arguments: tuple[Any, ...] = (), options: dict[str, Any] | None = None
    ) -> Any:
        if function in (Tensor.normal_, Tensor.uniform_) or getattr(function, "__module__", None) == "torch.nn.init":
            return arguments[0] if arguments else (options or {})["tensor"]
        return function(*arguments, **(options or {}))


def call_with_options(make: Callable[..., Any], options: Mapping[str, Any], what: str) -> Any:
    """Call ``make(**options)``; an option that it does not take is a mistake of the user, and named."""
    parameters = inspect.signature(make).parameters
    known = list(parameters)
    for word, value in options.items():
        if word not in known:
            raise UsageError(f"{what}: " + (unknown("option", word, known) if known else f"takes none; got {word!r}"))
        kinds = get_args(parameters[word].annotation) or (parameters[word].annotation,)
        plain = all(kind in (bool, int, float, str, type(None)) for kind in kinds)
        if plain and type(value) not in kinds and not (type(value) is int and float in kinds):
            names = " or ".join("nothing" if kind is type(None) else kind.__name__ for kind in kinds)
            raise UsageError(f"{what}: {word} is {value!r}; expected {names}")
        if type(value) is int and not 0 <= value <= MAX_OPTION:
            raise UsageError(f"{what}: {word} is {value}; it must lie between 0 and {MAX_OPTION}")
    try:
        return make(**options)
    except (TypeError, ValueError, ArithmeticError) as error:
        if not options:
            raise
        given = ", ".join(f"{word}={value!r}" for word, value in options.items())
        raise UsageError(
            f"{what}: it cannot be made with {shortened(given)} ({first_line(error)}); give other values"
        ) from error
