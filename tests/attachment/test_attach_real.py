"""Layers attached to networks of torchvision, timm and transformers; skipped where these are not installed.

    pip install --no-deps torchvision timm; pip install transformers

``--no-deps`` keeps the torch that is there. torchvision's wheels are built for CUDA: beside torch for the CPU they want
the names of two operators before the import, which are declared here.
"""

import importlib.util
import io
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import ssan
from ssan.attachment.attach import attached_layers
from ssan.errors import UsageError

B, T, S, K = 2, 4, 32, 5  # videos, frames, side in pixels, classes

# All three packages import torchvision where it is installed. The names last as long as this object.
LIBRARY = torch.library.Library("torchvision", "FRAGMENT")
if importlib.util.find_spec("torchvision") is not None and not torch.cuda.is_available():
    for operator in ("nms", "qnms"):
        LIBRARY.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

# Other people's packages warn of what is not ours to mend.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


@pytest.fixture(autouse=True)
def _torch_writes_no_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    """Under pytest's log capture torch writes down every step of a compilation, which takes longer than the step."""
    monkeypatch.setattr(logging.getLogger("torch.__trace"), "disabled", True)


def package(name: str, how: str) -> Any:
    return pytest.importorskip(name, reason=f"needs {name}: {how}", exc_type=ImportError)


def of_torchvision(name: str) -> nn.Module:
    models = package("torchvision", "pip install --no-deps torchvision").models
    return getattr(models, name)()


def of_timm(name: str) -> nn.Module:
    package("timm", "pip install --no-deps timm torchvision; pip install huggingface_hub pyyaml")
    return importlib.import_module("timm").create_model(name)


def of_transformers(kind: str, config: str) -> nn.Module:
    """A small network with random weights; nothing is downloaded."""
    found = package("transformers", "pip install transformers")
    sizes = {"depths": [1, 1, 1, 1], "hidden_sizes": [16, 24, 32, 40], "num_labels": 7}
    if config == "ResNetConfig":
        sizes |= {"embedding_size": 16, "layer_type": "basic"}
    return getattr(found, kind)(getattr(found, config)(**sizes))


@dataclass(frozen=True)
class Case:
    """A network, where the layer goes, and how many places and features that makes.

    :param head: what ``video_classifier`` takes off.
    """

    make: Callable[[], nn.Module]
    places: str
    side: Any
    num_places: int
    num_features: int
    head: str | None = None


CASES = {
    "torchvision resnet18": Case(
        lambda: of_torchvision("resnet18"), "layer[12].*.conv2", "before", 4, 512, head="fc"
    ),
    "torchvision mobilenet_v3_small": Case(
        lambda: of_torchvision("mobilenet_v3_small"), "features.[2345]", "after", 4, 576, head="classifier"
    ),
    "timm mobilenetv3_small_100": Case(
        lambda: of_timm("mobilenetv3_small_100"), "blocks.[12]", "after", 2, 1024
    ),
    "timm regnety_002": Case(lambda: of_timm("regnety_002"), "s[23].*.conv2", "before", 5, 368),
    "transformers ResNetModel": Case(
        lambda: of_transformers("ResNetModel", "ResNetConfig"),
        "encoder.stages.[01].layers.*.layer.1.convolution", "before", 2, 40,
    ),
    "transformers ResNetForImageClassification": Case(
        lambda: of_transformers("ResNetForImageClassification", "ResNetConfig"),
        "resnet.encoder.stages.[01].layers.*.layer.1.convolution", "before", 2, 40, head="classifier",
    ),
    "transformers ConvNextForImageClassification, channels last": Case(
        lambda: of_transformers("ConvNextForImageClassification", "ConvNextConfig"),
        "convnext.encoder.stages.[01].layers.*.pwconv2", "after", 2, 40, head="classifier",
    ),
}  # fmt: skip


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]


def made(case: Case) -> nn.Module:
    """The network in float64, with scales and shifts at random and statistics of what passes, as of a trained one."""
    torch.manual_seed(0)
    network = case.make().double()
    for name, parameter in network.named_parameters():
        if parameter.dim() == 1:  # libraries set these to 0, to 1 or nearly to 0
            nn.init.uniform_(parameter, *((-0.2, 0.2) if name.endswith("bias") else (0.5, 1.5)))
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1.0
    answer(network.train(), clip(3, 5).flatten(0, 1))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    return network.eval()


def attach(network: nn.Module, case: Case, **options: Any) -> nn.Module:
    example = torch.zeros(1, 3, 2 * S, 2 * S, dtype=torch.float64)  # smaller than the default, for the sake of time
    return ssan.attach(network, case.places, "ssa", side=case.side, example=example, **options)


def answer(network: nn.Module, x: Tensor) -> Tensor:
    """What a network says of images or clips, where libraries have it in one of several outputs."""
    with torch.no_grad():
        out = network(x)
    if isinstance(out, Tensor):
        return out
    return out["logits"] if "logits" in out else out["pooler_output"]


def clip(b: int = B, t: int = T) -> Tensor:
    return torch.randn(b, t, 3, S, S, dtype=torch.float64)


def test_no_key_moves_the_start_is_the_identity_and_detaching_gives_the_network_back(case: Case) -> None:
    network = made(case)
    kind, before = type(network), {name: tensor.clone() for name, tensor in network.state_dict().items()}
    inside = [set(module.__dict__) for module in network.modules()]
    x = clip()
    bare = answer(network, x.flatten(0, 1))
    assert attach(network, case) is network
    after = network.state_dict()
    assert len(attached_layers(network)) == case.num_places
    assert [name for name in after if name in before] == list(before)
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    torch.testing.assert_close(answer(network, x).flatten(0, 1), bare, rtol=0, atol=1e-10)
    ssan.detach(network)
    assert type(network) is kind
    assert list(network.state_dict()) == list(before)
    assert [set(module.__dict__) for module in network.modules()] == inside
    assert torch.equal(answer(network, x.flatten(0, 1)), bare)


def test_the_layer_sees_time_in_each_video_apart_and_learns(case: Case) -> None:
    network, x = attach(made(case), case, identity_start=False), clip()
    together, backwards = answer(network, x), answer(network, x.flip(1))
    size = together.abs().mean()
    # Frame t of the clip against the same frame among neighbours in another order.
    assert (together - backwards.flip(1)).abs().max() > 1e-6 * size
    torch.testing.assert_close(answer(network, x[1:]), together[1:], rtol=0, atol=1e-10 * size.item())
    assert answer(network, clip(1, 7)).shape[:2] == (1, 7)

    classifier = ssan.video_classifier(network, K, head=case.head, dropout=0.0)
    nn.init.normal_(classifier.fc.weight)
    classifier.train()(x).square().sum().backward()
    for name, layer in attached_layers(classifier).items():
        for key, parameter in layer.named_parameters():
            assert parameter.grad is not None, f"{name}.{key}"
            assert parameter.grad.abs().max() > 0, f"{name}.{key}"


def test_it_becomes_a_classifier_of_videos_that_is_saved_and_read(case: Case) -> None:
    classifier = ssan.video_classifier(attach(made(case), case, identity_start=False), K, head=case.head).eval()
    assert classifier.backbone.num_features == case.num_features
    nn.init.normal_(classifier.fc.weight)
    x, file = clip(), io.BytesIO()
    scores = answer(classifier, x)
    assert scores.shape == (B, K)
    torch.save(classifier.state_dict(), file)
    file.seek(0)
    again = ssan.video_classifier(attach(case.make().double(), case), K, head=case.head).eval()
    assert not torch.equal(answer(again, x), scores)
    again.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(answer(again, x), scores)


# Each takes seconds, so each is tried on one network: other tests have them on the like of all.


@pytest.mark.parametrize("case", ["transformers ConvNextForImageClassification, channels last"], indirect=True)
def test_it_compiles_in_one_piece_for_any_number_of_frames(case: Case) -> None:
    network = attach(made(case), case, identity_start=False)
    clips = clip(), clip(3, 5)
    expected = [answer(network, x) for x in clips]
    torch._dynamo.reset()
    compiled = torch.compile(network, backend="eager", fullgraph=True)
    for x, scores in zip(clips, expected, strict=True):
        torch.testing.assert_close(answer(compiled, x), scores, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("case", ["timm mobilenetv3_small_100"], indirect=True)
def test_it_exports_with_any_number_of_videos_and_frames(case: Case) -> None:
    network, x, y = attach(made(case), case, identity_start=False), clip(), clip(3, 5)
    sizes = ({0: torch.export.Dim("b"), 1: torch.export.Dim("t", min=3, max=64)},)
    exported = torch.export.export(network, (x,), dynamic_shapes=sizes, strict=False).module()
    for given in (x, y):
        torch.testing.assert_close(answer(exported, given), answer(network, given), rtol=1e-10, atol=1e-10)


def test_logits_alone_are_no_features_until_the_classifier_is_named() -> None:
    case = CASES["transformers ResNetForImageClassification"]
    with pytest.raises(
        UsageError, match=r"the network returns logits, and none of .*; name the classifier .* as head="
    ):
        ssan.video_classifier(made(case), K)
