"""What every layer and every named model promises, checked on each entry of LAYERS and MODELS; and checks that bite.

The last part breaks a layer or a model in one place and sees the check of that promise fail.
"""

import copy
import logging
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import naive
from ssan.errors import UsageError
from ssan.layers import LAYERS, DoubleAttention, NonLocal, NonLocalPair, SeparableSelfAttention, TemporalShift
from ssan.models.catalogue import MODELS, NETWORKS, ModelSpec, build, without_memory
from ssan.models.classifier import Classifier

C = 11  # channels of the layers under test; at least the 8 of a shift by an eighth
K = 5  # classes of the models under test
TINY = [name for name, spec in MODELS.items() if spec.backbone == "tiny"]
# More of the blocks of ResNet-18 and 50, which are tried with numbers: these on shapes alone.
SHALLOWER = {"r34": "r18", "r101": "r50", "r152": "r50"}
DEEP = {
    **{
        name: f"{spec.family}_{SHALLOWER[spec.backbone]}" for name, spec in MODELS.items() if spec.backbone in SHALLOWER
    },
    "blvnet_r101": "blvnet_r50",
}
# So most of what is attention elsewhere than in SSA: what it does with numbers is tried in two ResNets of each family.
ATTENDING = [
    name for name, spec in MODELS.items()
    if spec.family not in ("tsn", "tsm", "trn", "ssan") and spec.layer is not None
    and spec.backbone in ("r18", "mobilenet_v2", "efficientnet_lite0")
]  # fmt: skip
# So the networks that are whole by themselves and large: of each kind a small one is tried, and two large ones as well.
LARGE = [name for name, network in NETWORKS.items() if network.small and name not in ("i3d", "r3d_r18")]


@pytest.fixture(autouse=True)
def _torch_writes_no_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    """Under pytest's log capture torch writes down every step of a compilation, which takes longer than the step."""
    monkeypatch.setattr(logging.getLogger("torch.__trace"), "disabled", True)


def large_ones_slow(names: Iterable[str]) -> list[Any]:
    """The names as parameters, with a mark where a network takes long: the smallest of each family is tried always."""
    return [pytest.param(name, marks=[pytest.mark.slow] if MODELS[name].backbone != "tiny" else []) for name in names]


def randomised(module: nn.Module, seed: int = 0) -> nn.Module:
    """Every weight and statistic random, BatchNorm's too, and in evaluation.

    The ranges keep the features of all networks here of moderate size: larger ones saturate the attention, whose
    gradient then vanishes; in smaller ones BatchNorm's biases drown what the frames show.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in module.state_dict().items():
            if not tensor.is_floating_point():
                tensor.zero_()
            elif name.endswith("running_var"):
                tensor.uniform_(0.5, 1.5, generator=generator)
            elif tensor.dim() == 1:
                tensor.uniform_(-0.2, 0.2, generator=generator)
                if name.endswith("weight"):
                    tensor.add_(0.8)
            else:
                # Most of the weights are in few tensors; the numbers of a large one come again after so many.
                first, *others = tensor.view(-1).split(100_003)
                limit = math.sqrt(4 / tensor[0].numel())
                first.uniform_(-limit, limit, generator=generator)
                for part in others:
                    part.copy_(first[: len(part)])
    return module.eval()


def video(seed: int = 1, b: int = 2, t: int = 3, c: int = C, h: int = 2, w: int = 5) -> Tensor:
    return torch.randn(b, t, c, h, w, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def clips(seed: int = 1, b: int = 1, t: int = 3, side: int = 16) -> Tensor:
    """So small that ResNet-50 passes all checks in seconds; attention still has 16 positions in Res2."""
    return video(seed, b, t, 3, side, side)


# The promises. Each check takes what is promised about and raises AssertionError where the promise is broken.


def check_keeps_the_shape(layer: nn.Module) -> None:
    for b, t, h, w in [(2, 3, 5, 7), (1, 1, 1, 1), (3, 2, 7, 1)]:
        assert layer(video(b=b, t=t, h=h, w=w)).shape == (b, t, C, h, w)


def check_takes_any_number_of_frames(module: nn.Module, make: Callable[..., Tensor]) -> None:
    """One instance takes many, few, one; and answers the first clip as before."""
    with torch.no_grad():
        first = module(make(t=2))
        for t in (3, 1):
            out = module(make(t=t))
            assert out.isfinite().all()
            assert out.shape == ((1, K) if out.dim() == 2 else (first.shape[0], t, *first.shape[2:]))
        assert torch.equal(module(make(t=2)), first)


def check_batch_entries_never_mix(module: nn.Module, batch: Tensor) -> None:
    """The last entry, which has neighbours on one side alone, is as without them; and so is the first."""
    with torch.no_grad():
        together = module(batch)
        assert len(together) == len(batch)
        for i in (0, -1):
            alone = module(batch[i].unsqueeze(0))[0]
            assert (together[i] - alone).abs().max() <= 1e-10 * (1 + alone.abs().max())


def check_gradient_reaches_everything(module: nn.Module, x: Tensor) -> None:
    x = x.clone().requires_grad_()
    module.zero_grad()
    out = module(x)
    weights = torch.randn(out.shape, generator=torch.Generator().manual_seed(3), dtype=out.dtype)
    (out * weights).sum().backward()
    assert x.grad is not None
    assert (x.grad != 0).flatten(2).any(dim=2).all(), "a frame gets no gradient"
    gradients = {name: parameter.grad for name, parameter in module.named_parameters()}
    for name, gradient in gradients.items():
        assert gradient is not None, name
        lowest, highest = gradient.aminmax()  # what is not a number is both
        assert lowest.isfinite(), name
        assert highest.isfinite(), name
        # What should be zero comes out as rounding error, not as zero.
        assert max(-lowest, highest) > 1e-12, name


def check_equals_its_twin(layer: nn.Module, twin: Callable[[np.ndarray, nn.Module], np.ndarray]) -> None:
    x = video()
    with torch.no_grad():
        gap = (layer(x) - torch.from_numpy(twin(x.numpy(), layer))).abs().max()
    assert gap < 1e-10, f"differs from the loops by {gap}"


def check_order_is_known(module: nn.Module, knows_order: bool) -> None:
    """Permuted frames change the scores exactly where the catalogue says so; three orders of one clip as one batch."""
    clip = clips(t=3)
    orders = [[0, 1, 2], [2, 1, 0], [1, 0, 2]]
    with torch.no_grad():
        scores = module(torch.cat([clip[:, order] for order in orders]))
    gaps = (scores[1:] - scores[0]).abs().amax(dim=1) / scores.abs().max()
    if knows_order:  # S3D-G's gates let half of it through, ten times in a row
        assert (gaps > 1e-8).all(), f"permuting the frames changes the scores by only {gaps.tolist()}"
    else:
        assert (gaps < 1e-10).all(), f"permuting the frames changes the scores by {gaps.tolist()}"


def check_copies_are_whole(module: nn.Module, fresh: nn.Module, x: Tensor) -> None:
    """A deep copy answers alike and shares nothing; a state dict carries all of a module into a fresh one."""
    with torch.no_grad():
        expected = module(x)
        copied = copy.deepcopy(module)
        assert torch.equal(copied(x), expected)
        fresh.load_state_dict(module.state_dict())
        assert torch.equal(fresh.eval()(x), expected)
        if not list(module.parameters()):
            return
        randomised(copied, seed=9)
        assert not torch.allclose(copied(x), expected)
        assert torch.equal(module(x), expected)


# Layers.


def ssa_in_loops(x: np.ndarray, layer: nn.Module) -> np.ndarray:
    params = {name: tensor.numpy() for name, tensor in layer.state_dict().items()}
    return naive.ssa(
        x, params, training=False, output="residual", similarity_scale="sqrt", position_branch=True,
        channel_branch=True, shared_value=True, temporal_kernel=3, temporal_embedding="split",
        temporal_scope="frame", pool_keys=False,
    )  # fmt: skip


def nonlocal_in_loops(x: np.ndarray, layer: nn.Module, axes: str = "thw", part: str = "") -> np.ndarray:
    params = {name.removeprefix(part): tensor.numpy() for name, tensor in layer.state_dict().items()}
    return naive.non_local(x, params, axes=axes, similarity_scale="sqrt", pool_keys=False, training=False)


def pair_in_loops(x: np.ndarray, layer: nn.Module) -> np.ndarray:
    return nonlocal_in_loops(nonlocal_in_loops(x, layer, "hw", "space."), layer, "t", "time.")


def double_attention_in_loops(x: np.ndarray, layer: nn.Module) -> np.ndarray:
    params = {name: tensor.numpy() for name, tensor in layer.state_dict().items()}
    return naive.double_attention(x, params, training=False)


def temporal_aggregation_in_loops(x: np.ndarray, layer: nn.Module) -> np.ndarray:
    return naive.temporal_aggregation(x, {name: tensor.numpy() for name, tensor in layer.state_dict().items()})


TWINS: dict[str, Callable[[np.ndarray, nn.Module], np.ndarray]] = {
    "ssa": ssa_in_loops,
    "temporal_shift": lambda x, _: naive.temporal_shift(x, 8),
    "nonlocal": nonlocal_in_loops,
    "nonlocal_pair": pair_in_loops,
    "double_attention": double_attention_in_loops,
    "temporal_aggregation": temporal_aggregation_in_loops,
}


@pytest.fixture(params=LAYERS)
def layer_name(request: pytest.FixtureRequest) -> str:
    return request.param


def layer_of(name: str) -> nn.Module:
    return randomised(LAYERS[name](C).double())


def test_a_layer_keeps_the_shape(layer_name: str) -> None:
    check_keeps_the_shape(layer_of(layer_name))


def test_a_layer_takes_any_number_of_frames(layer_name: str) -> None:
    check_takes_any_number_of_frames(layer_of(layer_name), video)


def test_a_layer_never_mixes_entries_of_the_batch(layer_name: str) -> None:
    check_batch_entries_never_mix(layer_of(layer_name), video(b=3))


def test_in_a_layer_gradient_reaches_every_parameter_and_frame(layer_name: str) -> None:
    check_gradient_reaches_everything(layer_of(layer_name), video())


def test_a_layer_has_a_twin_in_loops_and_equals_it(layer_name: str) -> None:
    assert layer_name in TWINS, f"write {layer_name} once more in tests/naive.py, and name it in TWINS"
    check_equals_its_twin(layer_of(layer_name), TWINS[layer_name])


def test_a_layer_can_be_copied_and_saved(layer_name: str) -> None:
    check_copies_are_whole(layer_of(layer_name), LAYERS[layer_name](C).double(), video())


# Models.


def model_of(name: str, num_frames: int = 3) -> Classifier:
    """With random numbers everywhere, and none drawn before these."""
    with without_memory():
        model = build(name, K, num_frames=num_frames).double()
    return randomised(model.to_empty(device="cpu"))  # type: ignore[return-value]


@dataclass
class Named:
    spec: ModelSpec
    model: Classifier

    @property
    def any_number_of_frames(self) -> bool:
        """A consensus with weights for each frame is built for the three of ``clips``; all else takes any number."""
        return self.spec.consensus is None


@pytest.fixture(
    scope="module", params=large_ones_slow(name for name in MODELS if name not in {*DEEP, *ATTENDING, *LARGE})
)
def named(request: pytest.FixtureRequest) -> Iterator[Named]:
    """One model at a time, with random numbers everywhere; pytest runs all tests of a model together."""
    return Named(MODELS[request.param], model_of(request.param))


def test_a_model_takes_any_number_of_frames(named: Named) -> None:
    if named.any_number_of_frames:
        check_takes_any_number_of_frames(named.model, clips)
        return
    assert named.model(clips(t=3)).shape == (1, K)
    for t in (2, 4):
        with pytest.raises(UsageError, match=rf"trained on, 3; got {t} frames\. Give num_frames=3"):
            named.model(clips(t=t))


def test_a_model_gives_each_clip_its_own_row_of_scores(named: Named) -> None:
    check_batch_entries_never_mix(named.model, clips(b=2, t=2 if named.any_number_of_frames else 3))


def test_a_model_knows_the_order_of_frames_exactly_where_the_catalogue_says_so(named: Named) -> None:
    check_order_is_known(named.model, named.spec.knows_order)


@pytest.mark.slow
def test_in_a_model_gradient_reaches_every_parameter_and_frame(named: Named) -> None:
    # The keys of its last non-local block are pooled: a picture must leave it more than one.
    side = 64 if named.spec.name == "nl_i3d_tiny" else 16
    check_gradient_reaches_everything(named.model, clips(side=side))


@cache
def shapes_of(name: str) -> Classifier:
    with without_memory():
        return build(name, K, num_frames=3)


def kinds_by_stage(model: nn.Module) -> dict[str, set[type[nn.Module]]]:
    """Which modules a network has, and in which stage or beside them."""
    found: dict[str, set[type[nn.Module]]] = {}
    for name, module in model.named_modules():
        found.setdefault(".".join(name.split(".")[:2]), set()).add(type(module))
    return found


@pytest.mark.slow
@pytest.mark.parametrize("name", DEEP)
def test_a_deep_model_is_more_of_the_blocks_of_one_that_is_tried(name: str) -> None:
    model, shallow = shapes_of(name), shapes_of(DEEP[name])
    assert kinds_by_stage(model) == kinds_by_stage(shallow)
    deeper, shallower = model.state_dict(), shallow.state_dict()
    assert len(deeper) > len(shallower)
    assert {name: tensor.shape for name, tensor in shallower.items()}.items() <= {
        name: tensor.shape for name, tensor in deeper.items()
    }.items()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["s3d", "s3dg"])
def test_a_wide_network_is_its_small_one_with_more_channels(name: str) -> None:
    wide, small = shapes_of(name), shapes_of(NETWORKS[name].small or "")
    assert kinds_by_stage(wide) == kinds_by_stage(small)
    narrower = small.state_dict()
    assert wide.state_dict().keys() == narrower.keys()
    assert all(tensor.numel() >= narrower[key].numel() for key, tensor in wide.state_dict().items())


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [*(name for name in DEEP if MODELS[name].family in ("tsn", "tsm", "ssan")), *ATTENDING, *LARGE]
)
def test_in_a_deep_model_shapes_go_through_and_a_gradient_reaches_every_parameter(name: str) -> None:
    model = shapes_of(name)
    model.zero_grad()
    scores = model(torch.empty(2, 3, 3, 16, 16, device="meta"))
    assert scores.shape == (2, K)
    scores.sum().backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []


@pytest.mark.parametrize("name", large_ones_slow(n for n in MODELS if MODELS[n].backbone in ("tiny", "mobilenet_v2")))
def test_a_model_can_be_copied_and_saved(name: str) -> None:
    model, fresh = model_of(name), model_of(name)
    check_copies_are_whole(model, randomised(fresh, seed=5), clips())


@pytest.mark.slow
@pytest.mark.parametrize("name", TINY)
def test_a_model_can_be_exported_and_gives_equal_scores(name: str) -> None:
    model = model_of(name, num_frames=4)
    x = clips(b=2, t=4)
    program = torch.export.export(model, (x,))
    with torch.no_grad():
        torch.testing.assert_close(program.module()(x), model(x), rtol=0, atol=1e-12)


def test_the_catalogue_says_of_some_models_that_they_know_order_and_of_some_that_they_do_not() -> None:
    assert {spec.knows_order for spec in MODELS.values()} == {True, False}


# Checks that bite: a whole thing passes, the same thing broken in one place does not.


class SoftmaxOverTheWrongAxis(SeparableSelfAttention):
    def forward(self, x: Tensor) -> Tensor:
        with mock.patch.object(Tensor, "softmax", lambda z, dim: torch.softmax(z, -2 if dim == -1 else -1)):
            return super().forward(x)


class SimilarityNotScaled(SeparableSelfAttention):
    def forward(self, x: Tensor) -> Tensor:
        attend = F.scaled_dot_product_attention
        with mock.patch.object(F, "scaled_dot_product_attention", lambda q, k, v, scale: attend(q, k, v, scale=1.0)):
            return super().forward(x)


class ResidualSignFlipped(SeparableSelfAttention):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * x - super().forward(x)  # x - z for x + z


class ResidualForgotten(SeparableSelfAttention):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) - x


class ThetaAndPhiSwapped(SeparableSelfAttention):
    def forward(self, x: Tensor) -> Tensor:
        swapped = copy.deepcopy(self)
        swapped.theta, swapped.phi = swapped.phi, swapped.theta
        return SeparableSelfAttention.forward(swapped, x)


class VideosFoldedIntoOne(SeparableSelfAttention):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.flatten(0, 1).unsqueeze(0)).view_as(x)


class BuiltForTwoFrames(SeparableSelfAttention):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x[:, :2])


class RemembersTheLastClip(TemporalShift):
    seen: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        y, self.seen = y if self.seen is None else y + self.seen.mean(), x
        return y


class ValueDetached(SeparableSelfAttention):
    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.g.register_forward_hook(lambda module, inputs, output: output.detach())


class PositionsTransposed(SeparableSelfAttention):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).transpose(-2, -1)


class ShiftedTheOtherWay(TemporalShift):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.flip(1)).flip(1)


class ShiftedInACircle(TemporalShift):
    def forward(self, x: Tensor) -> Tensor:
        n = self.num_shifted
        return torch.cat([x[:, :, :n].roll(-1, 1), x[:, :, n : 2 * n].roll(1, 1), x[:, :, 2 * n :]], dim=2)


class NotShifted(TemporalShift):
    def forward(self, x: Tensor) -> Tensor:
        return x


class ShiftedAcrossVideos(TemporalShift):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.flatten(0, 1).unsqueeze(0)).view_as(x)


class EveryPositionOfTheFrame(NonLocal):
    """3D attention that sees 2D."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, axes="hw")


class QueriesAndKeysExchanged(NonLocal):
    """The softmax over the wrong axis of theta phi^T, but for the transposition of the result."""

    def _attend(self, theta: Tensor, phi: Tensor, g: Tensor) -> Tensor:
        return super()._attend(phi, theta, g)


class NonLocalSoftmaxOverTheWrongAxis(NonLocal):
    def _attend(self, theta: Tensor, phi: Tensor, g: Tensor) -> Tensor:
        q, k, v = (z.flatten(1, 2) for z in (theta, phi, g))
        return ((q @ k.mT * self.scale).softmax(dim=1) @ v).view_as(theta)


class NonLocalNotScaled(NonLocal):
    def __init__(self, channels: int) -> None:
        super().__init__(channels, similarity_scale="none")


class NonLocalResidualSignFlipped(NonLocal):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * x - super().forward(x)


class ClipsFoldedIntoOne(NonLocal):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.flatten(0, 1).unsqueeze(0)).view_as(x)


class TimeBeforeSpace(NonLocalPair):
    def forward(self, x: Tensor) -> Tensor:
        return self.space(self.time(x))


class OneResidualForBoth(NonLocalPair):
    def forward(self, x: Tensor) -> Tensor:
        y = self.space(x) - x
        return x + self.time(y) - y


class DoubleAttentionResidualSignFlipped(DoubleAttention):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * x - super().forward(x)


class BothSoftmaxesOverPositions(DoubleAttention):
    def forward(self, x: Tensor) -> Tensor:
        with mock.patch.object(Tensor, "softmax", lambda z, dim: torch.softmax(z, 1)):
            return super().forward(x)


class GatheredOverDescriptors(DoubleAttention):
    def forward(self, x: Tensor) -> Tensor:
        with mock.patch.object(Tensor, "softmax", lambda z, dim: torch.softmax(z, 2)):
            return super().forward(x)


class LastFrameOnly(Classifier):
    def forward(self, clips: Tensor) -> Tensor:
        return self.frame_scores(clips)[:, -1]


class MeanOverTheBatch(Classifier):
    def forward(self, clips: Tensor) -> Tensor:
        return self.frame_scores(clips).mean(dim=(0, 1)).expand(len(clips), -1)


def tiny(family: str, kind: type[Classifier] = Classifier, **options: object) -> nn.Module:
    model = build(f"{family}_tiny", K, **options)  # type: ignore[arg-type]
    return randomised(kind(model.backbone, K).double())


def equals_loops(layer: nn.Module) -> None:
    name = next(name for name, kind in LAYERS.items() if isinstance(layer, kind))  # type: ignore[arg-type]
    check_equals_its_twin(layer, TWINS[name])


def frames(layer: nn.Module) -> None:
    check_takes_any_number_of_frames(layer, video)


def no_mixing(module: nn.Module) -> None:
    check_batch_entries_never_mix(module, clips(b=3) if isinstance(module, Classifier) else video(b=3))


def gradient(layer: nn.Module) -> None:
    check_gradient_reaches_everything(layer, video())


def knows(model: nn.Module) -> None:
    check_order_is_known(model, True)


def knows_not(model: nn.Module) -> None:
    check_order_is_known(model, False)


BROKEN_LAYERS = [
    (SoftmaxOverTheWrongAxis, equals_loops),
    (SimilarityNotScaled, equals_loops),
    (ResidualSignFlipped, equals_loops),
    (ResidualForgotten, equals_loops),
    (ThetaAndPhiSwapped, equals_loops),
    (VideosFoldedIntoOne, no_mixing),
    (BuiltForTwoFrames, frames),
    (RemembersTheLastClip, frames),
    (ValueDetached, gradient),
    (PositionsTransposed, check_keeps_the_shape),
    (ShiftedTheOtherWay, equals_loops),
    (ShiftedInACircle, equals_loops),
    (NotShifted, equals_loops),
    (ShiftedAcrossVideos, no_mixing),
    (EveryPositionOfTheFrame, equals_loops),
    (QueriesAndKeysExchanged, equals_loops),
    (NonLocalSoftmaxOverTheWrongAxis, equals_loops),
    (NonLocalNotScaled, equals_loops),
    (NonLocalResidualSignFlipped, equals_loops),
    (ClipsFoldedIntoOne, no_mixing),
    (TimeBeforeSpace, equals_loops),
    (OneResidualForBoth, equals_loops),
    (DoubleAttentionResidualSignFlipped, equals_loops),
    (BothSoftmaxesOverPositions, equals_loops),
    (GatheredOverDescriptors, equals_loops),
]


@pytest.mark.slow
@pytest.mark.parametrize(("broken", "check"), BROKEN_LAYERS, ids=lambda value: value.__name__)
def test_a_broken_layer_is_caught(broken: type[nn.Module], check: Callable[[nn.Module], None]) -> None:
    whole = broken.__base__
    assert whole in LAYERS.values()
    check(randomised(whole(C).double()))  # type: ignore[misc]
    with pytest.raises(AssertionError):
        check(randomised(broken(C).double()))


@pytest.mark.slow
def test_broken_models_are_caught() -> None:
    no_mixing(tiny("ssan"))
    knows_not(tiny("tsn"))
    for model, check in [
        (tiny("ssan", MeanOverTheBatch), no_mixing),
        (tiny("tsn", LastFrameOnly), knows_not),
        (tiny("tsn"), knows),
        (tiny("tsm"), knows_not),
        (tiny("ssan"), knows_not),
        (tiny("ssan", layer_options={"temporal_kernel": 1}), knows),
        *((tiny(family), knows) for family in ("nl3d", "nl2d", "nl1d", "nl2d1d", "a2")),
    ]:
        with pytest.raises(AssertionError):
            check(model)
