"""Layers attached to somebody else's image network: keys, outputs, videos kept apart, compiled, exported, copied."""

import copy
import logging
import os
import pickle
import re
import subprocess
import sys
import threading
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import image_resnet
import ssan
from image_resnet import ResNet
from ssan.attachment.attach import attached_layers
from ssan.errors import ModelError, UsageError
from ssan.models.catalogue import build
from ssan.models.classifier import Classifier
from ssan.recipe import make_recipe
from ssan.recognition.evaluate import Protocol, evaluate
from ssan.recognition.train import DataSource, train
from ssan.recognition.trainable import freeze_batch_norm, new_parameters
from ssan.weights.classifier_file import load_labeller

B, T, S = 2, 3, 31  # videos, frames, side in pixels of most clips here
IMAGE = torch.zeros(1, 3, 32, 32)  # as large as the networks here need


@pytest.fixture(autouse=True)
def _torch_writes_no_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    """Under pytest's log capture torch writes down every step of a compilation, which takes longer than the step."""
    monkeypatch.setattr(logging.getLogger("torch.__trace"), "disabled", True)


class ConvNextBlock(nn.Module):
    """A block that computes with the channels last, as ConvNeXt's in timm and transformers do."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(width, width, 7, padding=3, groups=width)
        self.norm = nn.LayerNorm(width)
        self.mlp = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        y = self.dwconv(x).permute(0, 2, 3, 1)
        return x + self.mlp(F.gelu(self.norm(y))).permute(0, 3, 1, 2)


class ConvNext(nn.Module):
    """Built like timm's: it has ``num_features``, and ``reset_classifier`` takes its head off."""

    def __init__(self, width: int = 7, num_classes: int = 11) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 4, stride=4)
        self.stages = nn.Sequential(ConvNextBlock(width), ConvNextBlock(width))
        self.num_features = width
        self.head: nn.Module = nn.Linear(width, num_classes)

    def reset_classifier(self, num_classes: int) -> None:
        self.head = nn.Linear(self.num_features, num_classes) if num_classes else nn.Identity()

    def forward_features(self, x: Tensor) -> Tensor:
        return self.stages(self.stem(x))

    def forward(self, pixel_values: Tensor) -> Tensor:
        return self.head(self.forward_features(pixel_values).mean((-2, -1)))


Pair = namedtuple("Pair", ["scores", "maps"])  # as torchvision's GoogLeNet makes them


class Returns(nn.Module):
    """A network whose answer is made by ``shape`` of its feature maps."""

    def __init__(self, shape: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 7, 3, stride=2)
        self.shape = shape

    def forward(self, x: Tensor) -> Any:
        return self.shape(self.conv(x))


def randomised(network: nn.Module) -> nn.Module:
    """In evaluation, with BatchNorm that does something, as that of a trained network."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.3, 0.3)
            nn.init.uniform_(module.running_mean, -0.3, 0.3)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return network.eval()


def clip(b: int = B, t: int = T, side: int = S) -> Tensor:
    return torch.randn(b, t, 3, side, side)


def with_ssa(start: bool = False, places: str = "layer[12].*.conv2", side: Any = "before", **sizes: int) -> nn.Module:
    """A ResNet with SSA in the paper's place, which does something from the start unless ``start`` is the identity."""
    return randomised(ssan.attach(ResNet(**sizes), places, "ssa", side=side, example=IMAGE, identity_start=start))


def with_shifts(**sizes: int) -> nn.Module:
    network = ResNet(11, **sizes)
    return randomised(ssan.attach(network, "layer[12].*.conv1", "temporal_shift", side="before", example=IMAGE))


def channels_last() -> nn.Module:
    return ssan.attach(ConvNext(), "stages.*.mlp", "ssa", identity_start=False).eval()


ATTACHED: dict[str, Callable[[], nn.Module]] = {
    "before conv2": with_ssa,
    "after bn1": lambda: with_ssa(places="layer[12].*.bn1", side="after"),
    "after stages": lambda: with_ssa(places="layer[12]", side="after"),
    "channels last": channels_last,
    "shift": with_shifts,
}
# Compiling takes as long as there are modules, so only stages that have a layer, and in each the block that all have.
FEW = {"num_blocks": 1, "num_stages": 2}
COMPILED: dict[str, Callable[[], nn.Module]] = {
    "before conv2": lambda: with_ssa(**FEW),
    "channels last": channels_last,
    "shift": lambda: with_shifts(**FEW),
}


@pytest.fixture(params=ATTACHED)
def attached(request: pytest.FixtureRequest) -> nn.Module:
    return ATTACHED[request.param]()


# Keys.


def test_no_key_of_the_network_is_renamed_and_the_layers_are_added() -> None:
    network = randomised(ResNet())
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    returned = ssan.attach(network, "layer[12].*.conv2", "ssa", side="before", example=IMAGE)
    assert returned is network
    after = network.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    added = after.keys() - before.keys()
    assert {name.split(".before_input.")[0] for name in added} == {
        "layer1.0.conv2", "layer1.1.conv2", "layer2.0.conv2", "layer2.1.conv2",
    }  # fmt: skip
    assert "layer1.0.conv2.before_input.theta.weight" in added
    assert not set(network.load_state_dict(before, strict=False).missing_keys) - added


def test_detaching_gives_the_network_back() -> None:
    network, images = randomised(ResNet()), torch.randn(2, 3, S, S)
    before, expected = list(network.state_dict()), network(images)
    kinds = {name: (type(module), set(module.__dict__)) for name, module in network.named_modules()}
    ssan.attach(network, "layer[12].*.conv2", "ssa", side="before", example=IMAGE, identity_start=False)
    ssan.attach(network, "layer3", "temporal_shift", divisor=3)
    network(clip())
    assert ssan.detach(network) is network
    assert list(network.state_dict()) == before
    assert torch.equal(network(images), expected)
    assert {name: (type(module), set(module.__dict__)) for name, module in network.named_modules()} == kinds
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in network.modules())
    with pytest.raises(UsageError, match="nothing is attached to this ResNet"):
        ssan.detach(network)


def test_to_everybody_else_the_network_is_of_its_own_class() -> None:
    network = with_ssa()
    assert isinstance(network, ResNet)
    assert type(network).__name__ == "ResNet"


# What comes out.


def test_a_layer_can_be_attached_with_a_share_of_it_at_first() -> None:
    network = ssan.attach(ResNet(), "layer1.*.conv2", "ssa", side="before", example=IMAGE, start=0.25)
    weights = [layer.norm.weight for layer in attached_layers(network).values()]
    assert weights
    assert all(torch.equal(weight, torch.full_like(weight, 0.25)) for weight in weights)


def test_from_the_identity_start_the_answer_is_exactly_the_bare_networks() -> None:
    network, x = randomised(ResNet()), clip()
    expected = network(x.flatten(0, 1)).unflatten(0, (B, T))
    ssan.attach(network, "layer[12].*.conv2", "ssa", side="before", example=IMAGE)
    assert torch.equal(network(x), expected)
    ssan.detach(network)
    ssan.attach(network, "layer[12].*.conv2", "ssa", side="before", example=IMAGE, identity_start=False)
    assert not torch.allclose(network(x), expected)


@pytest.mark.slow
def test_attached_before_conv2_it_is_our_own_network() -> None:
    """The same places, the same weights: our ResNet-18 with its slots is the other way to the same numbers."""
    own = build("ssan_r18", 11).eval()
    randomised(own)
    theirs = ssan.attach(ResNet(64), "layer[12].*.conv2", "ssa", side="before", example=IMAGE).eval()
    renamed = {
        name.removeprefix("backbone.").replace(".after_conv1.", ".conv2.before_input."): tensor
        for name, tensor in own.state_dict().items()
    }
    theirs.load_state_dict(renamed)
    x = clip()
    torch.testing.assert_close(theirs(x).mean(dim=1), own(x), rtol=0, atol=1e-6)


def test_a_video_is_answered_as_without_its_neighbours(attached: nn.Module) -> None:
    x = clip(3)
    with torch.no_grad():
        together = attached(x)
        for i in range(3):
            torch.testing.assert_close(together[i], attached(x[i : i + 1])[0], rtol=0, atol=1e-6)


def test_any_number_of_frames_goes_through_one_network(attached: nn.Module) -> None:
    with torch.no_grad():
        first = attached(clip := torch.randn(2, 5, 3, S, S))
        for t in (1, 7):
            assert attached(torch.randn(1, t, 3, S, S)).shape[:2] == (1, t)
        assert torch.equal(attached(clip), first)


def test_the_mean_over_frames_knows_their_order_only_with_the_layer(attached: nn.Module) -> None:
    x = clip()
    with torch.no_grad():
        aware = (attached(x).mean(dim=1) - attached(x.flip(1)).mean(dim=1)).abs().max()
        ssan.detach(attached)
        scores = [attached(y.flatten(0, 1)).unflatten(0, (B, T)).mean(dim=1) for y in (x, x.flip(1))]
    assert aware > 1e-5
    torch.testing.assert_close(*scores, rtol=0, atol=1e-6)


def test_a_gradient_reaches_every_parameter_of_every_layer() -> None:
    network = with_ssa().train()
    network(clip()).square().sum().backward()
    layers = attached_layers(network)
    assert len(layers) == 4
    for name, layer in layers.items():
        for key, parameter in layer.named_parameters():
            assert parameter.grad is not None, f"{name}.{key}"
            assert parameter.grad.abs().max() > 0, f"{name}.{key}"


class Recording(nn.Module):
    """The identity, which remembers what it was made for and what it saw."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels

    def forward(self, x: Tensor) -> Tensor:
        self.given = x
        return x


@pytest.mark.parametrize(("place", "last"), [("stages.0.dwconv", False), ("stages.0.mlp", True)])
def test_a_layer_sees_channels_third_wherever_the_network_has_them(place: str, last: bool) -> None:
    network, raw = ConvNext().eval(), []
    network.get_submodule(place).register_forward_hook(lambda module, args, out: raw.append(out))
    ssan.attach(network, place, Recording)
    raw.clear()
    network(clip(side=28))
    (layer,) = attached_layers(network).values()
    assert layer.channels == 7
    (features,) = raw
    expected = features.permute(0, 3, 1, 2) if last else features
    assert torch.equal(layer.given, expected.unflatten(0, (B, T)))


RETURNS: dict[str, tuple[Callable[[Tensor], Any], Callable[[Any], list[Tensor]]]] = {
    "list": (lambda x: [x, x.mean((2, 3))], list),
    "tuple": (lambda x: (x.mean((2, 3)), None), lambda out: [out[0]]),
    "named tuple": (lambda x: Pair(x.mean((2, 3)), x), lambda out: [out.scores, out.maps]),
    "dict": (lambda x: {"a": x, "b": {"c": x}}, lambda out: [out["a"], out["b"]["c"]]),
}


@pytest.mark.parametrize("kind", RETURNS)
def test_every_tensor_that_a_network_returns_has_videos_and_frames(kind: str) -> None:
    shape, tensors = RETURNS[kind]
    network, x = Returns(shape), clip()
    bare = tensors(network(x.flatten(0, 1)))
    out = ssan.attach(network, "conv", example=IMAGE)(x)
    assert type(out) is type(shape(torch.zeros(1, 1, 1, 1)))
    for one, other in zip(tensors(out), bare, strict=True):
        assert torch.equal(one, other.unflatten(0, (B, T)))


def test_the_clip_may_be_given_by_name() -> None:
    network, x = ssan.attach(ConvNext(), "stages.0", identity_start=False).eval(), clip()
    assert torch.equal(network(pixel_values=x), network(x))


# Calls of all kinds.


def test_images_are_refused_where_nobody_says_how_they_are_folded() -> None:
    network = with_ssa()
    with pytest.raises(UsageError, match=re.escape("takes videos (b, t, 3, h, w); got (6, 3, 31, 31)")):
        network(clip().flatten(0, 1))
    with pytest.raises(UsageError, match="without knowing how many"):
        network.layer1(torch.randn(6, 7, 7, 7))


def test_folded_frames_go_through_the_network_and_its_parts() -> None:
    network, x = with_ssa(), clip()
    images = x.flatten(0, 1)
    with ssan.folded(T):
        whole = network(images)
        maps = network.maxpool(network.relu(network.bn1(network.conv1(images))))
        maps = network.layer4(network.layer3(network.layer2(network.layer1(maps))))
    assert torch.equal(whole, network(x).flatten(0, 1))
    assert torch.equal(network.fc(maps.mean((2, 3))), whole)
    with ssan.folded(4), pytest.raises(UsageError, match="6 frames are not whole videos of 4"):
        network(images)


def test_a_call_that_fails_leaves_nothing_behind() -> None:
    network = with_ssa()
    with pytest.raises(RuntimeError):
        network(torch.randn(B, T, 5, S, S))
    with pytest.raises(UsageError, match="without knowing how many"):
        network.layer1(torch.randn(6, 7, 7, 7))


def test_threads_with_other_numbers_of_frames_do_not_disturb_each_other() -> None:
    """Both are inside the same network at once: each waits for the other at the layer."""
    network = with_ssa()
    clips = {t: torch.randn(12 // t, t, 3, S, S) for t in (3, 4)}
    expected = {t: network(x).detach() for t, x in clips.items()}
    meet = threading.Barrier(2, timeout=60)
    network.layer1[0].conv1.register_forward_hook(lambda *_: print(meet.wait()))
    answers: dict[int, Tensor] = {}
    threads = [threading.Thread(target=lambda t=t: answers.update({t: network(clips[t])})) for t in clips]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.equal(answers[t], expected[t]) for t in clips)


def test_a_network_within_a_network_has_frames_of_its_own() -> None:
    inner, x = with_ssa(), clip()
    expected = inner(x).sum()

    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.inner = nn.Conv2d(3, 7, 3), inner

        def forward(self, images: Tensor) -> Tensor:
            return self.conv(images).mean((2, 3)) + self.inner(x).sum()

    outer = ssan.attach(Outer(), "conv", "ssa", example=IMAGE).eval()
    y = torch.randn(1, 5, 3, S, S)
    with ssan.folded(5):
        direct = outer.conv(y[0]).mean((2, 3))
    torch.testing.assert_close(outer(y)[0], direct + expected)


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpointing_gives_the_same_gradients(reentrant: bool) -> None:
    """A checkpointed stage runs again in the backward pass, when the call that knew the frames is over."""

    class Checkpointed(nn.Module):
        def __init__(self, stage: nn.Module) -> None:
            super().__init__()
            self.stage = stage

        def forward(self, x: Tensor) -> Tensor:
            return checkpoint(self.stage, x, use_reentrant=reentrant)

    plain = with_ssa()
    saving = copy.deepcopy(plain)
    saving.layer2 = Checkpointed(saving.layer2)
    x = clip()
    gradients = []
    for network in (plain, saving):
        network(x).square().sum().backward()
        gradients.append([p.grad for p in network.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


# Copies.


def test_a_deep_copy_has_layers_of_its_own() -> None:
    network, x = with_ssa(), clip()
    expected = network(x)
    copied = copy.deepcopy(network)
    for parameter in copied.parameters():
        nn.init.zeros_(parameter)
    assert torch.equal(network(x), expected)
    assert not copied(x).any()
    ssan.detach(copied)
    assert torch.equal(network(x), expected)
    assert list(copied.state_dict()) == list(ResNet().state_dict())


IN_ANOTHER_PROCESS = """
import sys, ssan
print('attach' in dir(ssan), 'torch' in sys.modules)
ssan.attach
print('torch' in sys.modules, flush=True)
import torch, image_resnet
network, x, expected = torch.load(sys.argv[1], weights_only=False)
seen = []
for module in network.modules(): module.register_forward_pre_hook(lambda *_: seen.append(1))
assert torch.equal(network(x), expected) and seen
assert list(ssan.detach(network).state_dict()) == list(image_resnet.ResNet().state_dict())
"""


@pytest.fixture(scope="module")
def another_process(tmp_path_factory: pytest.TempPathFactory) -> subprocess.CompletedProcess[str]:
    """A fresh interpreter, which takes attach from the package and then reads a pickled network."""
    network, x = with_ssa(), clip()
    file = tmp_path_factory.mktemp("pickled") / "network.pt"
    torch.save((network, x, network(x)), file)
    path = os.pathsep.join(filter(None, [str(Path(image_resnet.__file__).parent), os.environ.get("PYTHONPATH")]))
    return subprocess.run(
        [sys.executable, "-c", IN_ANOTHER_PROCESS, str(file)],
        capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path},
    )  # fmt: skip


@pytest.mark.slow
def test_a_pickled_network_is_the_same_network_in_another_process(
    another_process: subprocess.CompletedProcess[str],
) -> None:
    """Also with a hook added there: numbers of hooks begin anew in each process."""
    assert another_process.returncode == 0, another_process.stderr
    network = with_ssa()
    assert type(pickle.loads(pickle.dumps(network))) is type(network)


# Compiled and exported.


@pytest.mark.slow
@pytest.mark.parametrize("kind", COMPILED)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_it_compiles_in_one_piece_for_any_number_of_frames(kind: str) -> None:
    torch._dynamo.reset()
    attached = COMPILED[kind]()
    compiled = torch.compile(attached, backend="eager", fullgraph=True)
    with torch.no_grad():
        for x in (clip(), clip(3, 5)):
            torch.testing.assert_close(compiled(x), attached(x), rtol=0, atol=1e-5)


@pytest.mark.slow
def test_a_compiled_stage_of_it_knows_the_frames_too() -> None:
    torch._dynamo.reset()
    network, x, y = with_ssa(**FEW), clip(), clip(1, 5)
    with torch.no_grad():
        expected = network(x), network(y)
        network.layer1.compile(backend="eager")
        torch.testing.assert_close((network(x), network(y)), expected, rtol=0, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("kind", COMPILED)
@pytest.mark.parametrize("strict", [False, True], ids=["not strict", "strict"])
# Strict export says that the number of frames is set and put back; that is what is wanted.
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore:.*side effects happened")
def test_it_exports_with_any_number_of_videos_and_frames(kind: str, strict: bool) -> None:
    attached = COMPILED[kind]()
    sizes = ({0: torch.export.Dim("b"), 1: torch.export.Dim("t", min=3, max=64)},)
    program = torch.export.export(attached, (clip(),), dynamic_shapes=sizes, strict=strict).module()
    with torch.no_grad():
        for x in (clip(), clip(3, 5)):
            torch.testing.assert_close(program(x), attached(x), rtol=0, atol=1e-5)


# What cannot be.


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.unused = nn.Conv2d(3, 3, 3), nn.Conv2d(3, 3, 3)
        self.pool, self.pair = nn.AdaptiveAvgPool2d(1), Returns(lambda x: (x, x))
        self.parts = nn.ModuleDict({"one": nn.Conv2d(3, 3, 1)})

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(self.conv(self.parts["one"](x)))
        return self.pool(self.pair(x)[0]).flatten(1)


class Halves(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        return x[:, :1]


REFUSED: list[tuple[Callable[[], nn.Module], tuple[Any, ...], dict[str, Any], str]] = [
    (ResNet, ("layer1.0.conv3",), {}, "no module 'layer1.0.conv3'. Near it: layer1.0.conv"),
    (ResNet, ("layer1.*",), {"side": "behind"}, "side is 'behind'; it must be 'after' or 'before'"),
    (ResNet, ([],), {}, "no module is named"),
    (ResNet, ("fc",), {}, "the output of fc has 2 axes, (1, 11)"),
    (ResNet, ("layer1.0.relu",), {}, "layer1.0.relu runs 2 times in one pass"),
    (ResNet, (["layer1", "layer1.1"],), {}, "there is a layer after layer1.1 already"),
    (ResNet, ("layer1", "sssa"), {}, "unknown layer 'sssa'. Did you mean 'ssa'?"),
    (ResNet, ("layer1",), {"chanel_branch": False}, "layer ssa: unknown option 'chanel_branch'"),
    (ResNet, ("layer[12]", nn.Identity()), {}, "one Identity was given for 2 modules"),
    (ResNet, ("layer1", lambda channels: channels), {}, "makes a int"),
    (ResNet, ("layer1", Halves), {}, "the layer at layer1.1 makes (1, 1, 7,"),
    (ResNet, ("layer1",), {"example": torch.zeros(1, 5, 31, 31)}, "does not take images (1, 5, 31, 31)"),
    (Twice, ("conv",), {}, "conv runs 2 times"),
    (Twice, ("unused",), {}, "unused never runs"),
    (Twice, ("pair",), {}, "the output of pair is tuple"),
    (
        Twice,
        ("parts",),
        {},
        "parts is a ModuleDict, which holds modules and may run each of them; name one of its parts",
    ),
    (lambda: torch.compile(ResNet()), ("layer1",), {}, "compiled already"),
]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch.compile's own, the first time
@pytest.mark.parametrize(("make", "arguments", "options", "message"), REFUSED, ids=[case[3][:30] for case in REFUSED])
def test_what_cannot_be_attached_is_refused_and_nothing_is_changed(
    make: Callable[[], nn.Module], arguments: tuple[Any, ...], options: dict[str, Any], message: str
) -> None:
    network = make()
    kind, keys = type(network), list(network.state_dict())
    with pytest.raises(UsageError, match=re.escape(message)):
        ssan.attach(network, *arguments, **{"example": IMAGE, **options})
    assert type(network) is kind
    assert list(network.state_dict()) == keys
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in network.modules())


def test_a_second_layer_at_a_place_is_refused_and_the_first_stays() -> None:
    network, x = with_ssa(), clip()
    expected = network(x)
    with pytest.raises(UsageError, match=r"before layer1\.0\.conv2 already"):
        ssan.attach(network, "layer1.*.conv2", "temporal_shift", side="before", divisor=5)
    with pytest.raises(UsageError, match="runs 2 times"):
        ssan.attach(network, "layer3.0.relu")
    assert torch.equal(network(x), expected)
    ssan.attach(network, "layer4", "ssa")
    assert torch.equal(network(x), expected)


def test_attaching_leaves_modes_and_statistics_as_they_are() -> None:
    network = ResNet()
    network.layer2.eval()
    modes = {name: module.training for name, module in network.named_modules()}
    statistics = network.bn1.running_mean.clone()
    ssan.attach(network, "layer[12].*.conv2", side="before")
    assert {name: module.training for name, module in network.named_modules() if name in modes} == modes
    assert torch.equal(network.bn1.running_mean, statistics)
    assert not network.layer2[0].conv2.before_input.norm.training


def test_a_layer_has_the_type_of_what_passes_there() -> None:
    network = ssan.attach(ResNet().double(), "layer1.*.conv2", side="before")
    assert {p.dtype for p in network.parameters()} == {torch.float64}


# The classifier around it.


def test_a_network_like_timms_becomes_a_classifier_of_videos_in_two_lines() -> None:
    network = ssan.attach(ConvNext(), "stages.*", identity_start=False)
    classifier = ssan.video_classifier(network, 5).eval()
    x = clip()
    assert classifier(x).shape == (B, 5)
    assert isinstance(network.head, nn.Identity)
    assert classifier.backbone.num_features == 7
    expected = classifier.fc(network(x)).mean(dim=1)
    torch.testing.assert_close(classifier(x), expected)


@pytest.mark.parametrize(
    ("make", "head", "num_features"),
    [
        (ResNet, None, 11),
        (ResNet, "fc", 56),
        (lambda: Returns(lambda x: x), None, 7),
        (lambda: Returns(lambda x: {"pooler_output": x.mean((2, 3), keepdim=True), "last_hidden_state": x}), None, 7),
        (lambda: Returns(lambda x: {"last_hidden_state": x}), None, 7),
    ],
)
def test_features_are_counted_in_what_a_network_returns(
    make: Callable[[], nn.Module], head: str | None, num_features: int
) -> None:
    classifier = ssan.video_classifier(make(), 5, head=head)
    assert classifier.backbone.num_features == num_features
    assert classifier(clip()).shape == (B, 5)


def test_what_returns_no_features_is_no_backbone() -> None:
    with pytest.raises(UsageError, match="the network returns logits, and none of pooler_output"):
        ssan.video_classifier(Returns(lambda x: {"logits": x}), 5)
    with pytest.raises(UsageError, match=r"the network returns list; expected features \(n, f\)"):
        ssan.video_classifier(Returns(lambda x: [x]), 5)
    with pytest.raises(UsageError, match=r"no module 'classifier' to take off; it ends in .*fc"):
        ssan.video_classifier(ResNet(), 5, head="classifier")


def test_where_a_head_was_taken_off_the_features_stand_under_the_name_of_its_logits() -> None:
    network = Returns(lambda x: x.mean((2, 3)))
    network.add_module("head", nn.Linear(7, 11))
    convolve = network.forward
    network.forward = lambda x: {"logits": network.head(convolve(x)), "pooler_output": None}  # type: ignore[method-assign]
    classifier = ssan.video_classifier(network, 5, head="head")
    assert classifier.backbone.num_features == 7
    assert classifier(clip()).shape == (B, 5)


def test_the_new_layer_of_a_classifier_is_of_the_networks_type() -> None:
    classifier = ssan.video_classifier(ResNet().double(), 5, head="fc")
    assert {p.dtype for p in classifier.parameters()} == {torch.float64}
    assert classifier(clip().double()).dtype == torch.float64


def test_attached_layers_count_as_new_and_keep_learning_where_batch_norm_is_frozen() -> None:
    classifier = ssan.video_classifier(with_ssa(), 5)
    new = new_parameters(classifier)
    assert {name.split(".")[0] for name in new} == {"fc", "backbone"}
    assert len(new) == 2 + sum(1 for layer in attached_layers(classifier).values() for _ in layer.parameters())
    freeze_batch_norm(classifier)
    norms = {n: p.requires_grad for n, p in classifier.named_parameters() if ".bn1." in n or ".norm." in n}
    assert {name: ".norm." in name for name in norms} == norms


def test_a_networks_own_parts_do_not_count_as_new_by_what_they_are_called() -> None:
    """Transformers' PoolFormer calls its norms so."""
    network = ResNet()
    network.before_norm = nn.BatchNorm2d(3)
    network.after_norm = nn.LayerNorm(3)
    classifier = ssan.video_classifier(network, 5, head="fc")
    assert new_parameters(classifier) == {"fc.weight", "fc.bias"}
    freeze_batch_norm(classifier)
    assert not network.before_norm.weight.requires_grad


# Training it.

SHORT = {"crop_px": 32, "size_px": 36, "epochs": 1, "batch": 8, "num_frames": 3, "lr": 0.003, "optimizer": "adamw"}


def own_classifier(width: int = 8) -> Classifier:
    """Eight channels wide: with five, torch's own convolution corrupts memory in training on frames as decoded."""
    torch.manual_seed(5)
    return ssan.video_classifier(
        ssan.attach(ResNet(width), "layer1.*.conv2", side="before", example=IMAGE), 4, head="fc", dropout=0.3
    )


@pytest.mark.slow
def test_a_network_of_ones_own_is_trained_and_read_again(order_set: Path, tmp_path: Path) -> None:
    data, out = DataSource(str(order_set)), tmp_path / "run"
    answer = train(make_recipe(SHORT), data, out, model=(trained := own_classifier()), quiet=True)
    assert answer["steps"] == 4
    start = own_classifier().state_dict()
    assert not torch.equal(start["fc.weight"], trained.fc.weight)
    labeller = load_labeller(out, model=own_classifier())
    read = labeller.model.state_dict()
    assert all(torch.equal(read[name], tensor) for name, tensor in trained.state_dict().items())
    assert (labeller.recipe.model, labeller.recipe.dropout) == ("own", 0.3)
    scored = evaluate(labeller, data.read("val"), Protocol(), split="val", quiet=True)
    assert scored["top1"] == answer["val_top1"]
    again = train(make_recipe(SHORT), data, out, model=own_classifier(), resume=True, quiet=True)
    assert (again["val_top1"], again["steps"]) == (answer["val_top1"], 4)
    with pytest.raises(ModelError, match=r"only the code that made it can build; .*load_labeller\(path, model=...\)"):
        load_labeller(out)
    other = ssan.video_classifier(ResNet(), 4, head="fc")
    with pytest.raises(ModelError, match=r"do not fit the model given.*make the model as it was made for training"):
        load_labeller(out, model=other)


def test_a_recipe_that_says_how_to_build_another_network_is_refused(order_set: Path, tmp_path: Path) -> None:
    data = DataSource(str(order_set))
    for changes, message in [
        ({"init": "imagenet"}, "init is 'imagenet', but the model is given as it is"),
        ({"layer": {"channel_branch": False}}, "layer is {'channel_branch': False}"),
        ({"dropout": 0.1}, "dropout is 0.1 in the recipe and 0.3 in the model"),
    ]:
        with pytest.raises(UsageError, match=re.escape(message)):
            train(make_recipe({**SHORT, **changes}), data, tmp_path, model=own_classifier())
    with pytest.raises(UsageError, match="scores for 5 classes, and the data have 4; make it with num_classes=4"):
        train(make_recipe(SHORT), data, tmp_path, model=ssan.video_classifier(ResNet(), 5))
    with pytest.raises(UsageError, match=re.escape("give it as train(..., model=...)")):
        train(make_recipe({**SHORT, "model": "own"}), data, tmp_path)


# The door.


@pytest.mark.slow
def test_the_package_offers_attach_without_importing_torch_before(
    another_process: subprocess.CompletedProcess[str],
) -> None:
    assert another_process.stdout.splitlines() == ["True False", "True"]
    with pytest.raises(AttributeError, match="no attribute 'atach'"):
        ssan.atach  # noqa: B018
