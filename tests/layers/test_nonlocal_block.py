"""NonLocal and its pair against a twin in loops, numbers worked by hand, and what each of its axes may see."""

import itertools
import math

import pytest
import torch
from torch import Tensor, nn

import naive
from blocks import HALF, B, C, H, T, W, check_half_precision, randomised, video
from ssan.errors import UsageError
from ssan.layers import NonLocal, NonLocalPair
from ssan.models.catalogue import build

SWITCHES = {
    "axes": ["thw", "hw", "t"],
    "embedding": [None, 5, "half"],
    "similarity_scale": ["sqrt", "none"],
    "pool_keys": [False, True],
}
COMBINATIONS = [
    dict(zip(SWITCHES, values, strict=True))
    for values in itertools.product(*SWITCHES.values())
    if not (values[0] == "t" and values[3])  # without space there is nothing to pool
]


# The two other ways to compare positions, each with everything else that changes what is compared.
COMPARISONS = [
    {"axes": axes, "embedding": 5, "similarity_scale": scale, "pool_keys": pool_keys, "pairwise": pairwise}
    for pairwise in ("gaussian", "dot_product")
    for axes in ("thw", "hw", "t")
    for scale in ("sqrt", "none")
    for pool_keys in (False, True)
    if not (axes == "t" and pool_keys)
]


def numbers(layer: nn.Module) -> dict[str, object]:
    """Before a pass in training changes BatchNorm's statistics."""
    return {name: tensor.numpy().copy() for name, tensor in layer.state_dict().items()}


def close(found: Tensor, expected: object, atol: float = 1e-10) -> None:
    torch.testing.assert_close(found.detach(), torch.as_tensor(expected), rtol=0, atol=atol)


# Against the loops.


@pytest.mark.slow
@pytest.mark.parametrize("switches", COMBINATIONS + COMPARISONS, ids=lambda s: "-".join(map(str, s.values())))
@pytest.mark.parametrize("training", [True, False])
def test_equals_the_loops_for_every_combination_of_switches(switches: dict[str, object], training: bool) -> None:
    layer = randomised(NonLocal(7, **switches).double()).train(training)
    x, params = video(b=1, t=3, c=7, h=2, w=5), numbers(layer)
    expected = naive.non_local(
        x.numpy(), params, training=training, **{k: v for k, v in switches.items() if k != "embedding"}
    )
    close(layer(x), expected)


@pytest.mark.parametrize("axes", SWITCHES["axes"])
def test_equals_the_loops_on_several_videos_of_prime_sizes(axes: str) -> None:
    layer = randomised(NonLocal(C, axes=axes, embedding=5).double()).eval()
    x = video(h=2, w=5)
    close(
        layer(x),
        naive.non_local(x.numpy(), numbers(layer), axes=axes, similarity_scale="sqrt", pool_keys=False, training=False),
    )


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("pool_keys", [True, False])
def test_the_pair_is_the_loops_within_frames_and_then_over_them(training: bool, pool_keys: bool) -> None:
    layer = randomised(NonLocalPair(7, embedding=5, pool_keys=pool_keys).double()).train(training)
    params = numbers(layer)
    x = video(b=2, t=3, c=7, h=2, w=5)
    expected = x.numpy()
    for half, axes, pooled in [("space", "hw", pool_keys), ("time", "t", False)]:
        own = {name.removeprefix(f"{half}."): value for name, value in params.items() if name.startswith(half)}
        expected = naive.non_local(
            expected, own, axes=axes, similarity_scale="sqrt", pool_keys=pooled, training=training
        )
    close(layer(x), expected)


# Worked by hand.


def passes_everything_on(layer: nn.Module) -> nn.Module:
    """One channel, every weight 1 and every bias 0, BatchNorm the identity: y = x + softmax(x_i x_j) x_j."""
    layer = layer.double().eval()
    with torch.no_grad():
        for name, tensor in layer.state_dict().items():
            tensor.fill_(1.0 if name.endswith("weight") else 0.0)
        for module in layer.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_var.fill_(1 - module.eps)
    return layer


@pytest.mark.parametrize(
    ("axes", "attended"),
    [
        ("thw", (math.e + 3 * math.e**3 + 2 * math.e**2) / (math.e + math.e**3 + 1 + math.e**2)),
        ("hw", (math.e + 3 * math.e**3) / (math.e + math.e**3)),
        ("t", math.e / (math.e + 1)),
    ],
)
def test_a_number_worked_by_hand(axes: str, attended: float) -> None:
    """Two frames of two positions, (1, 3) and (0, 2): the position that holds 1 has similarities 1, 3, 0, 2 to all.

    It weighs what it sees by their exponentials: all four, or the first two (its frame), or the first and the third
    (its place). The output adds its own 1.
    """
    x = torch.tensor([1.0, 3.0, 0.0, 2.0], dtype=torch.float64).view(1, 2, 1, 1, 2)
    out = passes_everything_on(NonLocal(1, axes=axes))(x)
    assert out[0, 0, 0, 0, 0].item() == pytest.approx(1 + attended, abs=1e-12)


@pytest.mark.parametrize(
    ("axes", "attended"),
    [("thw", (1 + 3 * 3 + 2 * 2) / 4), ("hw", (1 + 3 * 3) / 2), ("t", 1 / 2)],
)
def test_a_dot_product_worked_by_hand(axes: str, attended: float) -> None:
    """The same position weighs what it sees by the similarities 1, 3, 0, 2 over how many there are."""
    x = torch.tensor([1.0, 3.0, 0.0, 2.0], dtype=torch.float64).view(1, 2, 1, 1, 2)
    out = passes_everything_on(NonLocal(1, axes=axes, pairwise="dot_product"))(x)
    assert out[0, 0, 0, 0, 0].item() == pytest.approx(1 + attended, abs=1e-12)


def test_a_gaussian_compares_the_features_themselves() -> None:
    """Pixels of two channels, (1, 0) and (2, 1): the first has similarities 1 and 2; g keeps the second channel."""
    layer = passes_everything_on(NonLocal(2, axes="hw", embedding=1, similarity_scale="none", pairwise="gaussian"))
    assert {name.split(".")[0] for name in layer.state_dict()} == {"g", "out", "norm"}
    with torch.no_grad():
        layer.g.weight.copy_(torch.tensor([[0.0, 1.0]]))
    x = torch.tensor([[1.0, 2.0], [0.0, 1.0]], dtype=torch.float64).view(1, 1, 2, 1, 2)
    attended = math.e**2 / (math.e + math.e**2)
    assert layer(x)[0, 0, :, 0, 0].tolist() == pytest.approx([1 + attended, 0 + attended], abs=1e-12)


def test_the_pair_worked_by_hand() -> None:
    """Two frames of one position, 1 and 3. Within its frame a position sees itself alone: x' = x + x = 2 and 6.

    Over frames the first weighs 2 and 6 by the exponentials of 4 and 12, the second by those of 12 and 36.
    """
    x = torch.tensor([1.0, 3.0], dtype=torch.float64).view(1, 2, 1, 1, 1)
    out = passes_everything_on(NonLocalPair(1))(x).flatten().tolist()
    expected = [2 + 2 + 4 / (1 + math.exp(-8)), 6 + 2 + 4 / (1 + math.exp(-24))]
    assert out == pytest.approx(expected, abs=1e-12)


# What each choice of axes may see.


@pytest.mark.parametrize("axes", SWITCHES["axes"])
def test_a_position_sees_the_positions_that_its_axes_name_and_no_other(axes: str) -> None:
    layer = randomised(NonLocal(C, axes=axes).double()).eval()
    x = video(b=2).requires_grad_()
    layer(x)[0, 1, :, 2, 3].sum().backward()
    assert x.grad is not None
    reached = {tuple(place) for place in x.grad.abs().sum(dim=2).nonzero().tolist()}
    expected = {
        "thw": {(0, i, y, z) for i in range(T) for y in range(H) for z in range(W)},
        "hw": {(0, 1, y, z) for y in range(H) for z in range(W)},
        "t": {(0, i, 2, 3) for i in range(T)},
    }[axes]
    assert reached == expected


def test_the_pair_sees_everything() -> None:
    layer = randomised(NonLocalPair(C).double()).eval()
    x = video(b=1).requires_grad_()
    layer(x)[0, 1, :, 2, 3].sum().backward()
    assert x.grad is not None
    assert (x.grad.abs().sum(dim=2) > 0).all()


BLIND = [
    ("nl3d", {}), ("nl2d", {}), ("nl1d", {}), ("nl2d1d", {}), ("a2", {}), ("tsn_nl", {}),
    ("nl3d", {"pairwise": "gaussian"}), ("nl3d", {"pairwise": "dot_product"}),
    ("nl3d", {"pool_keys": True, "similarity_scale": "none", "embedding": 5}),
    ("nl2d1d", {"pool_keys": True, "similarity_scale": "none", "embedding": "half"}),
]  # fmt: skip
SEEING = [("ssan", {}), ("tsm", {}), ("tsm", {"direction": "past"}), ("tsm_nl", {}), ("trn", {})]
ORDERS = [[4, 3, 2, 1, 0], [2, 0, 4, 1, 3], [1, 0, 2, 3, 4]]


def changes(family: str, options: dict[str, object]) -> Tensor:
    """How far each other order of the frames moves the scores of a network with random weights, relative to them."""
    model = build(f"{family}_tiny", 3, num_frames=5, layer_options=options).double().eval()
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if tensor.is_floating_point() and not name.endswith("running_mean"):
                spread = 1 / math.sqrt(tensor[0].numel()) if tensor.dim() > 1 else 0.3
                tensor.copy_(torch.randn(tensor.shape, generator=generator, dtype=tensor.dtype) * spread)
                if tensor.dim() == 1 and name.endswith(("weight", "running_var")):
                    tensor.abs_().add_(0.7)
        clip = video(seed=3, b=1, t=5, c=3, h=32, w=32)
        scores = model(torch.cat([clip, *(clip[:, order] for order in ORDERS)]))
    return (scores[1:] - scores[0]).abs().amax(dim=1) / scores.abs().max()


@pytest.mark.parametrize(("family", "options"), BLIND)
def test_in_a_network_of_frames_attention_without_convolution_over_time_cannot_know_their_order(
    family: str, options: dict[str, object]
) -> None:
    assert (changes(family, options) < 1e-10).all()


@pytest.mark.parametrize(("family", "options"), SEEING)
def test_ssa_shifts_and_relations_know_the_order_of_frames(family: str, options: dict[str, object]) -> None:
    assert (changes(family, options) > 1e-4).all()


# The rest of what a block promises.


def test_a_bias_of_phi_would_change_nothing() -> None:
    """The reason for having none: with one, every similarity of a row grows alike, and the softmax stays."""
    layer = randomised(NonLocal(C, embedding=5).double()).eval()
    x = video()
    expected = layer(x)
    layer.phi.register_forward_hook(lambda module, inputs, output: output + video(seed=8)[0, 0, :5, 0, 0])
    close(layer(x), expected.detach())
    layer.theta.register_forward_hook(lambda module, inputs, output: output + video(seed=8)[0, 0, :5, 0, 0])
    assert not torch.allclose(layer(x), expected)


def test_a_bias_of_phi_is_there_where_no_softmax_takes_it_away() -> None:
    layer = randomised(NonLocal(C, embedding=5, pairwise="dot_product").double()).eval()
    x = video()
    expected = layer(x).detach()
    with torch.no_grad():
        layer.phi.bias.zero_()
    assert not torch.allclose(layer(x), expected)


def test_the_width_is_that_of_ssa_unless_told_otherwise() -> None:
    assert NonLocal(12).theta.out_features == 12
    assert NonLocal(12, embedding="half").theta.out_features == 6
    assert NonLocal(1, embedding="half").theta.out_features == 1
    assert NonLocal(12, embedding=5).theta.out_features == 5


@pytest.mark.parametrize("kind", [NonLocal, NonLocalPair])
def test_starts_as_the_identity_when_told_to(kind: type[nn.Module]) -> None:
    x = torch.randn(B, T, C, H, W)
    assert torch.equal(kind(C, identity_start=True)(x), x)
    assert not torch.allclose(kind(C)(x), x)


@pytest.mark.slow
@pytest.mark.parametrize("pairwise", ["embedded_gaussian", "gaussian", "dot_product"])
@pytest.mark.parametrize("axes", SWITCHES["axes"])
def test_gradients_are_those_of_finite_differences(axes: str, pairwise: str) -> None:
    options = {"axes": axes, "embedding": 2, "pool_keys": axes != "t", "pairwise": pairwise}
    layer = randomised(NonLocal(3, **options).double()).train()
    names, parameters = zip(*layer.named_parameters(), strict=True)

    def call(x: Tensor, *values: Tensor) -> Tensor:
        return torch.func.functional_call(layer, dict(zip(names, values, strict=True)), (x,))

    x = video(b=1, t=2, c=3, h=2, w=3).requires_grad_()
    assert torch.autograd.gradcheck(call, (x, *parameters))


@pytest.mark.parametrize(("axes", "t", "side"), [("thw", 4, 28), ("hw", 1, 56)])
def test_keeps_no_matrix_of_positions(axes: str, t: int, side: int) -> None:
    """With 3,136 positions a written-out matrix has 9.8 million numbers; nothing that autograd keeps comes near it."""
    layer = NonLocal(8, axes=axes)
    sizes: list[int] = []

    def pack(tensor: Tensor) -> Tensor:
        sizes.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        layer(torch.randn(1, t, 8, side, side, requires_grad=True))
    assert max(sizes) < 3136**2 / 20


@pytest.mark.parametrize("axes", SWITCHES["axes"])
def test_input_that_lies_in_another_order_gives_the_same(axes: str) -> None:
    layer = randomised(NonLocal(C, axes=axes).double()).eval()
    x = video()
    last = x.flatten(0, 1).to(memory_format=torch.channels_last).unflatten(0, (B, T))
    close(layer(last), layer(x).detach(), atol=1e-12)
    assert layer(last).flatten(0, 1).is_contiguous(memory_format=torch.channels_last)
    strided = torch.stack([x, x + 1], dim=5)[..., 0]
    close(layer(strided), layer(x).detach(), atol=1e-12)


@pytest.mark.parametrize(("dtype", "tolerance"), HALF)
@pytest.mark.parametrize(
    "options", [{"axes": "thw"}, {"axes": "hw"}, {"axes": "t"}, {"pairwise": "gaussian"}, {"pairwise": "dot_product"}]
)
def test_in_half_precision_it_stays_close_to_single(
    dtype: torch.dtype, tolerance: float, options: dict[str, str]
) -> None:
    layer = NonLocal(16, **options).train()
    check_half_precision(layer, [layer.g.weight, layer.out.weight], dtype, tolerance)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("axes", SWITCHES["axes"])
def test_similarities_of_large_activations_do_not_overflow_half_precision(dtype: torch.dtype, axes: str) -> None:
    """Embeddings around 100 of 16 channels: their products, scaled by 4, pass float16's 65,504."""
    layer = NonLocal(16, axes=axes).train()
    x = 300 * torch.randn(1, 3, 16, 5, 7)
    with torch.no_grad():
        layer.phi.weight.mul_(6)
        layer.theta.weight.mul_(6)
        features = x[0].permute(0, 2, 3, 1).flatten(0, 2)
        similarities = layer.theta(features) @ layer.phi(features).mT / 4
        assert similarities.abs().max() > 65_504, "nothing overflows here, so the test would show nothing"
    layer, x = layer.to(dtype), x.to(dtype).requires_grad_()
    y = layer(x)
    y.float().square().mean().backward()
    assert y.isfinite().all()
    assert x.grad is not None
    assert x.grad.isfinite().all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"axes": "wh"}, "axes is 'wh'; it must be 'thw' or 'hw' or 't'"),
        ({"similarity_scale": "sqr"}, "similarity_scale is 'sqr'"),
        ({"pairwise": "dot"}, "pairwise is 'dot'; it must be 'embedded_gaussian' or 'gaussian' or 'dot_product'"),
        ({"axes": "t", "pool_keys": True}, "pool_keys pools in space, which axes 't' does not see"),
        ({"embedding": 0}, "embedding is 0; it must be a number of at least 1"),
        ({"embedding": "halb"}, "embedding is 'halb'"),
        ({"embedding": 2.5}, r"embedding is 2\.5"),
        ({"embedding": True}, "embedding is True"),
    ],
)
def test_a_wrong_option_is_named(options: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        NonLocal(C, **options)


def test_a_batch_of_images_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\(b, t, c, h, w\); got 4 axes"):
        NonLocal(C)(torch.randn(2, C, H, W))


def test_its_description_names_the_axes_and_how_positions_are_compared() -> None:
    assert "axes='hw', pairwise='gaussian'" in repr(NonLocal(C, axes="hw", pairwise="gaussian"))
