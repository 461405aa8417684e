"""Layers and models as a library's: exported with sizes left open, mapped over, in other precisions, made wrongly."""

import logging
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import nn
from torch.export import Dim

from ssan.errors import UsageError
from ssan.layers import LAYERS, TemporalRelation
from ssan.models.catalogue import build

C = 8
WITHOUT_WIDTH = ("temporal_shift", "temporal_aggregation")
FORMS: list[tuple[str, dict[str, Any]]] = [
    *[(name, {}) for name in LAYERS],
    ("ssa", {"pool_keys": True}),
    ("ssa", {"temporal_scope": "position", "shared_value": False}),
    ("nonlocal", {"pool_keys": True, "embedding": "half"}),
    ("nonlocal", {"axes": "t"}),
    ("nonlocal", {"axes": "hw", "pairwise": "dot_product"}),
    ("temporal_shift", {"direction": "past"}),
]


@pytest.fixture(autouse=True)
def _torchs_own_advice_is_no_fault() -> Iterator[None]:
    """Exporting and mapping tell of torch's own deprecations and of slower ways that it takes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@pytest.fixture(autouse=True)
def _torch_writes_no_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    """Under pytest's log capture torch writes down every step of a compilation, which takes longer than the step."""
    monkeypatch.setattr(logging.getLogger("torch.__trace"), "disabled", True)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "options"), FORMS)
def test_exported_with_open_sizes_a_layer_takes_any_size_and_number_of_frames(
    name: str, options: dict[str, Any]
) -> None:
    layer = LAYERS[name](C, **options).eval()
    open_axes = dict.fromkeys((0, 1, 3, 4), Dim.DYNAMIC)
    exported = torch.export.export(layer, (torch.randn(2, 4, C, 12, 10),), dynamic_shapes=(open_axes,)).module()
    for sizes in [(2, 4, C, 12, 10), (3, 5, C, 7, 9), (2, 2, C, 13, 6), (5, 3, C, 5, 15)]:
        x = torch.randn(sizes)
        with torch.no_grad():
            assert torch.allclose(exported(x), layer(x), atol=1e-5), sizes


@pytest.mark.slow
def test_exported_with_open_sizes_a_model_takes_any_size() -> None:
    model = build("ssan_tiny", 3, layer_options={"pool_keys": True}).eval()
    open_axes = dict.fromkeys((0, 1, 3, 4), Dim.DYNAMIC)
    exported = torch.export.export(model, (torch.randn(2, 4, 3, 48, 40),), dynamic_shapes=(open_axes,)).module()
    for sizes in [(3, 5, 3, 33, 47), (2, 2, 3, 64, 24)]:
        x = torch.randn(sizes)
        with torch.no_grad():
            assert torch.allclose(exported(x), model(x), atol=1e-5), sizes


@pytest.mark.parametrize("name", list(LAYERS))
def test_a_layer_can_be_mapped_over_and_so_can_its_gradient(name: str) -> None:
    layer = LAYERS[name](C).eval().double()
    x = torch.randn(3, 2, 4, C, 3, 5, dtype=torch.float64)
    assert torch.allclose(torch.func.vmap(layer)(x), torch.stack([layer(part) for part in x]))
    weights = dict(layer.named_parameters())

    def loss(weights: dict[str, torch.Tensor], part: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(layer, weights, (part,)).square().mean()

    mapped = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))(weights, x)
    for place, part in enumerate(x):
        alone = torch.func.grad(loss)(weights, part)
        assert all(torch.allclose(mapped[key][place], alone[key]) for key in weights)


@pytest.mark.parametrize("name", list(LAYERS))
def test_a_layer_for_other_channels_says_so(name: str) -> None:
    with pytest.raises(ValueError, match=r"was made for 16 channels; got 8 in \(b, t, c, h, w\) = \(1, 2, 8, 3, 3\)"):
        LAYERS[name](16)(torch.randn(1, 2, 8, 3, 3))
    with pytest.raises(ValueError, match=r"takes \(b, t, c, h, w\); got 4 axes"):
        LAYERS[name](16)(torch.randn(2, 16, 3, 3))


def test_a_consensus_for_other_features_says_so() -> None:
    with pytest.raises(ValueError, match=r"takes \(b, t, 5\); got \(1, 3, 7\)"):
        TemporalRelation(2, 3, num_features=5)(torch.randn(1, 3, 7))


@pytest.mark.parametrize(
    "make",
    [
        *[lambda name=name: LAYERS[name](8, embedding=2.5) for name in LAYERS if name not in WITHOUT_WIDTH],
        *[lambda name=name: LAYERS[name](8, embedding=True) for name in LAYERS if name not in WITHOUT_WIDTH],
        lambda: LAYERS["temporal_shift"](8, divisor=2.5),
        lambda: LAYERS["temporal_shift"](8, divisor="2"),
        lambda: TemporalRelation(2, 3, num_relations=2.5),
        lambda: build("ssan_tiny", 2, layer_options={"embedding": 2.5}),
    ],
)
def test_a_width_or_number_that_is_none_is_refused_by_name(make: Callable[[], nn.Module]) -> None:
    with pytest.raises(UsageError, match=r"(embedding|divisor|num_relations) is (2\.5|True|'2'); it must "):
        make()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("name", ["ssan_tiny", "tsm_tiny"])
def test_a_model_of_another_precision_takes_pixels(name: str, dtype: torch.dtype) -> None:
    model = build(name, 3, num_frames=3).eval()
    pixels = torch.randint(0, 256, (2, 3, 3, 32, 32), dtype=torch.uint8)
    with torch.no_grad():
        expected = model(pixels)
        scores = model.to(dtype)(pixels)
    assert scores.dtype == dtype
    assert torch.allclose(scores.float(), expected, atol=0.02 * float(expected.abs().max()))
