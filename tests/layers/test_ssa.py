"""SeparableSelfAttention against a twin written in loops, numbers worked by hand, and what it may and may not know."""

import itertools
import logging
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import naive
from blocks import HALF, B, C, H, T, W, check_half_precision, randomised, video
from ssan.errors import UsageError
from ssan.layers import LAYERS, SeparableSelfAttention

SWITCHES = {
    "embedding": [None, 5],
    "similarity_scale": ["sqrt", "none"],
    "position_branch": [True, False],
    "channel_branch": [True, False],
    "shared_value": [True, False],
    "temporal_kernel": [3, 1],
    "temporal_embedding": ["split", "tied"],
    "temporal_scope": ["frame", "position"],
    "output": ["residual", "plain"],
    "pool_keys": [False, True],
}
COMBINATIONS = [
    dict(zip(SWITCHES, values, strict=True))
    for values in itertools.product(*SWITCHES.values())
    # "plain" needs e = c; without a position branch there are no keys to pool.
    if not (values[0] == 5 and values[8] == "plain") and not (values[9] and not values[2])
]


@pytest.fixture(autouse=True)
def _torch_writes_no_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    """Under pytest's log capture torch writes down every step of a compilation, which takes longer than the step."""
    monkeypatch.setattr(logging.getLogger("torch.__trace"), "disabled", True)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(8))
def test_equals_the_loops_for_every_combination_of_switches(part: int) -> None:
    assert len(COMBINATIONS) == 576
    for number, switches in list(enumerate(COMBINATIONS))[part::8]:
        # Small enough for loops; still pairwise different primes where it matters.
        x = video(seed=number, b=1, t=3, c=7, h=2, w=5)
        layer = randomised(SeparableSelfAttention(7, **switches).double(), seed=number)
        training = number % 2 == 0
        layer.train(training)
        params = {name: tensor.numpy().copy() for name, tensor in layer.state_dict().items()}
        keywords = {name: value for name, value in switches.items() if name != "embedding"}
        expected = naive.ssa(x.numpy(), params, training=training, **keywords)
        torch.testing.assert_close(
            layer(x).detach(), torch.from_numpy(expected), rtol=0, atol=1e-10, msg=lambda m, s=switches: f"{s}: {m}"
        )


def test_equals_the_loops_on_several_videos_of_prime_sizes() -> None:
    switches = {name: values[0] for name, values in SWITCHES.items() if name != "embedding"}
    layer = randomised(SeparableSelfAttention(C, embedding=5).double()).eval()
    x = video()
    params = {name: tensor.numpy() for name, tensor in layer.state_dict().items()}
    expected = naive.ssa(x.numpy(), params, training=False, **switches)
    torch.testing.assert_close(layer(x).detach(), torch.from_numpy(expected), rtol=0, atol=1e-10)


def test_a_number_worked_by_hand() -> None:
    """Two frames of one position and one channel, x = 1 and 3; W_theta = W_phi = W_g = 1, no biases.

    One position and one channel: both softmaxes over a single entry are 1, so A = g + g = 2 g = (2, 6). The temporal
    weights are (previous, own, next) = (0, 1, 0) for theta_T and (1, 0, 0) for phi_T: theta_T = (2, 6), phi_T = (0, 2).
    M_T rows: softmax(2 * (0, 2)) and softmax(6 * (0, 2)), so the second entries are 1 / (1 + e^-4) and 1 / (1 + e^-12).
    M_T g with g = (1, 3) is 1 + 2 * those.
    """
    layer = SeparableSelfAttention(1, output="plain").double()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.zero_()
        for name in ("theta", "phi", "g"):
            getattr(layer, name).weight.fill_(1)
        layer.temporal.weight[0, 0, 1, 0] = 1
        layer.temporal.weight[1, 0, 0, 0] = 1
    out = layer(torch.tensor([1.0, 3.0], dtype=torch.float64).view(1, 2, 1, 1, 1)).flatten().tolist()
    assert out == pytest.approx([1 + 2 / (1 + math.exp(-4)), 1 + 2 / (1 + math.exp(-12))], abs=1e-12)


def test_a_channel_gathers_the_channels_of_its_row() -> None:
    """Equation 6's g M_C^T, by hand: one position, theta = (1, 0), phi = (0, ln 3), g = (4, 8).

    theta^T phi = [[0, ln 3], [0, 0]]; its softmaxed rows are (1/4, 3/4) and (1/2, 1/2), so channel 0 gathers 7 and
    channel 1 gathers 6. The transposed reading would give 4/4 + 8/2 = 5 and 3/4*4 + 8/2 = 7.
    """
    layer = SeparableSelfAttention(2, position_branch=False, temporal_kernel=1).double()
    seen = []
    layer.temporal.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].flatten().tolist()))
    with torch.no_grad():
        for name in ("theta", "phi", "g"):
            getattr(layer, name).weight.zero_()
        layer.theta.bias.copy_(torch.tensor([1.0, 0.0]))
        layer.phi.bias.copy_(torch.tensor([0.0, math.log(3)], dtype=torch.float64))
        layer.g.bias.copy_(torch.tensor([4.0, 8.0]))
    layer.eval()(torch.zeros(1, 1, 2, 1, 1, dtype=torch.float64))
    assert seen[0] == pytest.approx([7.0, 6.0], abs=1e-12)


@pytest.mark.parametrize("t", [1, 2, 3, 5, 13])
def test_one_block_takes_any_number_of_frames(t: int) -> None:
    layer = SeparableSelfAttention(C).eval()
    assert layer(torch.randn(1, t, C, H, W)).shape == (1, t, C, H, W)


def test_entries_of_the_batch_never_mix() -> None:
    layer = randomised(SeparableSelfAttention(C).double()).eval()
    x = video(b=3)
    together = layer(x)
    for i in range(3):
        torch.testing.assert_close(together[i : i + 1], layer(x[i : i + 1]), rtol=0, atol=1e-12)


def test_every_frame_reaches_every_frame_and_every_position_every_position() -> None:
    layer = randomised(SeparableSelfAttention(C).double()).eval()
    x = video(b=1).requires_grad_()
    layer(x)[0, 0, :, 0, 0].sum().backward()
    assert x.grad is not None
    assert (x.grad.abs().sum(dim=2) > 0).all()


def test_starts_as_the_identity_when_told_to() -> None:
    x = torch.randn(B, T, C, H, W)
    assert torch.equal(SeparableSelfAttention(C, identity_start=True)(x), x)
    assert torch.equal(SeparableSelfAttention(C, start=0)(x), x)
    assert not torch.allclose(SeparableSelfAttention(C)(x), x)


def test_every_parameter_gets_a_gradient() -> None:
    for scope in ("frame", "position"):
        # In training BatchNorm takes away what is the same everywhere, such as the effect of a bias.
        layer = randomised(SeparableSelfAttention(C, shared_value=False, temporal_scope=scope).double()).eval()
        (layer(video()) * video(seed=5)).sum().backward()
        for name, parameter in layer.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.abs().max() > 1e-12, name


def test_gradients_are_those_of_finite_differences() -> None:
    layer = randomised(SeparableSelfAttention(3, embedding=2, pool_keys=True).double()).eval()
    x = video(b=1, t=2, c=3, h=2, w=3).requires_grad_()
    assert torch.autograd.gradcheck(layer, (x,))


def permuted_gap(layer: nn.Module, order: list[int]) -> float:
    """How far the mean over frames of the block's output changes when the frames are permuted."""
    x = video(b=1, t=5)
    with torch.no_grad():
        return float((layer(x).mean(dim=1) - layer(x[:, order]).mean(dim=1)).abs().max())


@pytest.mark.parametrize("order", [[4, 3, 2, 1, 0], [2, 0, 4, 1, 3]])
@pytest.mark.parametrize("scope", ["frame", "position"])
def test_without_the_convolution_over_time_the_order_of_frames_is_unknown(order: list[int], scope: str) -> None:
    layer = randomised(SeparableSelfAttention(C, temporal_kernel=1, temporal_scope=scope).double()).eval()
    assert permuted_gap(layer, order) < 1e-10


@pytest.mark.parametrize("order", [[4, 3, 2, 1, 0], [2, 0, 4, 1, 3]])
@pytest.mark.parametrize("scope", ["frame", "position"])
def test_with_the_convolution_over_time_the_order_of_frames_is_known(order: list[int], scope: str) -> None:
    layer = randomised(SeparableSelfAttention(C, temporal_scope=scope).double()).eval()
    assert permuted_gap(layer, order) > 1e-3


def test_the_position_branch_keeps_no_matrix_of_positions() -> None:
    """At 56 x 56 a written-out (p, p) matrix would be 39 MB a frame; nothing that autograd keeps comes near it."""
    layer = SeparableSelfAttention(8)
    x = torch.randn(1, 1, 8, 56, 56, requires_grad=True)
    sizes: list[int] = []

    def pack(tensor: Tensor) -> Tensor:
        sizes.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        layer(x)
    assert max(sizes) < 56**4 / 20


def test_channels_last_and_contiguous_input_give_the_same() -> None:
    layer = randomised(SeparableSelfAttention(C).double()).eval()
    x = video()
    last = x.flatten(0, 1).to(memory_format=torch.channels_last).unflatten(0, (B, T))
    torch.testing.assert_close(layer(x), layer(last), rtol=0, atol=1e-12)
    assert layer(last).flatten(0, 1).is_contiguous(memory_format=torch.channels_last)


def test_input_that_lies_in_no_usual_order_gives_the_same() -> None:
    layer = randomised(SeparableSelfAttention(C).double()).eval()
    x = video()
    layouts = [
        x.permute(4, 3, 2, 1, 0).contiguous().permute(4, 3, 2, 1, 0),
        torch.cat([x, x + 1], dim=2)[:, :, :C],
        torch.stack([x, x + 1], dim=5)[..., 0],
        x.flip(1).flip(1),
        x[:, :1].expand(B, T, C, H, W),
    ]
    for other in layouts:
        torch.testing.assert_close(layer(other), layer(other.clone().contiguous()), rtol=0, atol=1e-12)


def test_gradients_are_the_same_whatever_the_layout_of_input_and_of_what_comes_back() -> None:
    layer = randomised(SeparableSelfAttention(C).double()).train()
    found = []
    for layout in (torch.contiguous_format, torch.channels_last):
        for returned in (torch.contiguous_format, torch.channels_last):
            x = video().flatten(0, 1).contiguous(memory_format=layout).unflatten(0, (B, T)).requires_grad_()
            d_out = video(seed=3).flatten(0, 1).contiguous(memory_format=returned).unflatten(0, (B, T))
            found.append(torch.autograd.grad(layer(x), [x, *layer.parameters()], d_out))
    for other in found[1:]:
        for a, b in zip(found[0], other, strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=1e-10)


@pytest.mark.slow
def test_every_switch_has_the_gradients_of_finite_differences() -> None:
    """Each alternative once, the others at their defaults; inputs, weights and biases, BatchNorm over the batch too."""
    defaults = {name: values[0] for name, values in SWITCHES.items()}
    for name, (_, other) in SWITCHES.items():
        switches = defaults | {"embedding": 2} | {name: 2 if name == "embedding" else other}
        if switches["output"] == "plain":
            switches["embedding"] = None
        layer = randomised(SeparableSelfAttention(3, **switches).double()).train()
        names, parameters = zip(*layer.named_parameters(), strict=True)

        def call(x: Tensor, *values: Tensor, layer: nn.Module = layer, names: tuple[str, ...] = names) -> Tensor:
            return torch.func.functional_call(layer, dict(zip(names, values, strict=True)), (x,))

        x = video(b=1, t=3, c=3, h=2, w=2).requires_grad_()
        assert torch.autograd.gradcheck(call, (x, *parameters)), name


def test_without_gradients_the_result_is_the_same() -> None:
    layer = randomised(SeparableSelfAttention(C).double()).eval()
    with_gradients = layer(video().requires_grad_())
    with torch.inference_mode():
        torch.testing.assert_close(layer(video()), with_gradients.detach(), rtol=0, atol=1e-12)
    assert with_gradients.requires_grad
    assert not layer.requires_grad_(False)(video()).requires_grad


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
@pytest.mark.parametrize("switched", [{}, {"temporal_scope": "position", "pool_keys": True, "shared_value": False}])
def test_compiled_it_gives_the_same_values_and_gradients(backend: str, switched: dict[str, object]) -> None:
    layer = randomised(SeparableSelfAttention(C, embedding=5, **switched).double()).eval()
    check_compiled(layer, video(), backend, atol=1e-10)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")  # raised inside inductor, by its own imports
@pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler, which inductor needs")
def test_compiled_to_machine_code_it_gives_the_same_values_and_gradients(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch._inductor.config
    import torch._inductor.cpu_vec_isa as sets

    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(torch._inductor.config, "compile_threads", 1)  # each of several would import torch first
    # Vectors of one kind, where the processor has it: else it is tried out first which of six can be compiled and run.
    monkeypatch.setattr(torch._inductor.config.cpp, "vec_isa_ok", True)
    monkeypatch.setattr(sets, "supported_vec_isa_list", [sets.VecAVX2()], raising=False)
    layer = randomised(SeparableSelfAttention(C, embedding=5).double()).eval()
    check_compiled(layer, video(), "inductor", atol=1e-10)


def check_compiled(layer: nn.Module, x: Tensor, backend: str, atol: float) -> None:
    """One graph, without breaks; then the same output and the same gradients as without compilation."""
    torch.compiler.reset()
    compiled = torch.compile(layer, backend=backend, fullgraph=True)
    found = []
    for call in (layer, compiled):
        own = x.clone().requires_grad_()
        y = call(own)
        found.append((y.detach(), *torch.autograd.grad(y, [own, *layer.parameters()], video(seed=4))))
    torch.compiler.reset()
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=atol)


@pytest.mark.slow
def test_exported_it_gives_the_same() -> None:
    layer = randomised(SeparableSelfAttention(C).double()).eval()
    exported = torch.export.export(layer, (video(),)).module()
    torch.testing.assert_close(exported(video(seed=2)), layer(video(seed=2)), rtol=0, atol=1e-12)


@pytest.mark.parametrize(("dtype", "tolerance"), HALF)
@pytest.mark.parametrize("scope", ["frame", "position"])
def test_in_half_precision_it_stays_close_to_single(dtype: torch.dtype, tolerance: float, scope: str) -> None:
    torch.manual_seed(1)
    layer = SeparableSelfAttention(16, temporal_scope=scope).train()
    check_half_precision(layer, [layer.g.weight, layer.out.weight], dtype, tolerance)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("how", ["autocast", "weights"])
def test_similarities_of_large_activations_do_not_overflow_half_precision(dtype: torch.dtype, how: str) -> None:
    """Embeddings around 300: a sum over p e = 3,136 products is 10^8, even scaled beyond float16's 65,504."""
    torch.manual_seed(1)
    layer = SeparableSelfAttention(16).train()
    x = 200 * torch.randn(1, 2, 16, 14, 14)
    with torch.no_grad():
        for part in (layer.theta, layer.phi, layer.g):
            part.weight.mul_(3)
        theta = layer.theta(x[:, 0].movedim(1, -1)).flatten(1, 2)
        written_out = theta.half().transpose(1, 2) @ theta.half() / math.sqrt(14 * 14)
        assert written_out.isinf().any(), "nothing overflows here, so the test would show nothing"
    if how == "weights":
        layer, x = layer.to(dtype), x.to(dtype)
    x.requires_grad_()
    with torch.autocast("cpu", dtype, enabled=how == "autocast"):
        y = layer(x)
    y.float().square().mean().backward()
    assert y.isfinite().all()
    assert x.grad is not None
    assert x.grad.isfinite().all()
    for name, parameter in layer.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"similarity_scale": "sqr"}, "similarity_scale"),
        ({"temporal_kernel": 5}, "temporal_kernel"),
        ({"temporal_embedding": "both"}, "temporal_embedding"),
        ({"temporal_scope": "clip"}, "temporal_scope"),
        ({"output": "sum"}, "output"),
        ({"embedding": 0}, "embedding"),
        ({"output": "plain", "embedding": 3}, "plain"),
    ],
)
def test_a_wrong_option_is_named(options: dict[str, object], word: str) -> None:
    with pytest.raises(UsageError, match=word):
        SeparableSelfAttention(C, **options)


def test_a_batch_of_images_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\(b, t, c, h, w\); got 4 axes"):
        SeparableSelfAttention(C)(torch.randn(2, C, H, W))


def test_naive_softmax_rows_sum_to_one() -> None:
    assert sum(naive.softmax([1.0, 2.0, 700.0])) == pytest.approx(1)
    assert np.argmax(naive.softmax([0.0, 3.0, 1.0])) == 1


@pytest.mark.parametrize("name", ["ssa", "nonlocal", "nonlocal_pair", "double_attention"])
def test_a_share_of_the_block_at_first_is_that_share_of_what_all_of_it_adds(name: str) -> None:
    x = torch.randn(2, 3, C, 5, 7)
    added = []
    for options in ({"identity_start": False}, {"start": 1}, {"start": 0.25}):
        torch.manual_seed(3)
        block = LAYERS[name](C, **options)
        halves = [block] if name != "nonlocal_pair" else [block.space]
        added.append(halves[0](x) - x)
    assert torch.equal(added[0], added[1])
    assert torch.allclose(added[2], 0.25 * added[0], atol=1e-6)
    assert added[2].abs().max() > 0.1
    for options, words in [
        ({"start": 1.5}, "start is 1.5; it must lie between 0"),
        ({"start": True}, "start is True"),
        ({"start": 0.5, "identity_start": True}, "say the same thing twice"),
    ]:
        with pytest.raises(UsageError, match=words):
            LAYERS[name](C, **options)


def test_a_block_without_a_last_norm_takes_no_start() -> None:
    with pytest.raises(UsageError, match="output 'plain' has not; leave it out"):
        SeparableSelfAttention(C, output="plain", start=0.5)
