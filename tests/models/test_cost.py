"""Parameters, multiply-adds and memory, against sums done by hand."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ssan.errors import UsageError
from ssan.layers import SeparableSelfAttention
from ssan.models.catalogue import BACKBONES, MODELS, NETWORKS, build
from ssan.models.classifier import Classifier
from ssan.models.cost import (
    COUNTED,
    catalogue_rows,
    count,
    inference_peak,
    measure,
    multiply_adds,
    num_parameters,
    saved_for_backward,
)


class OneConvolution(nn.Module):
    """3 to 2 channels, 3x3, 54 weights, then SSA; features are means over positions."""

    num_features = 2

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 3, padding=1, bias=False)
        self.ssa = SeparableSelfAttention(2, **options)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x.flatten(0, 1)).unflatten(0, x.shape[:2])
        return self.ssa(y).mean(dim=(-2, -1))


CONVOLUTION = 2 * 16 * 54  # 2 frames of 4x4 positions
LINEAR = 2 * 2 * 3  # 2 features to 3 classes, in each of 2 frames
EMBEDDINGS = 4 * 2 * 16 * 2 * 2  # theta, phi, g and W_z: 2 frames, 16 positions, 2 by 2 weights
POSITIONS = 2 * 2 * 16 * 16 * 2  # theta phi^T and M_P g: 2 frames, 16 by 16 pairs, 2 channels
CHANNELS = 2 * 2 * 2 * 2 * 16  # theta^T phi and g M_C^T: 2 frames, 2 by 2 pairs, 16 positions
TIME_CONVOLUTION = 2 * 16 * 3 * 2 * 4  # 2 frames, 16 positions, 3 taps, 2 channels to theta_T and phi_T
FRAMES = 2 * 2 * 2 * 16 * 2  # theta_T phi_T^T and M_T g_T: 2 by 2 pairs, 16 positions of 2 channels
WHOLE = CONVOLUTION + LINEAR + EMBEDDINGS + POSITIONS + CHANNELS + TIME_CONVOLUTION + FRAMES


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, WHOLE),
        ({"position_branch": False}, WHOLE - POSITIONS),
        ({"channel_branch": False}, WHOLE - CHANNELS),
        ({"pool_keys": True}, WHOLE - POSITIONS + POSITIONS // 4),
        ({"temporal_kernel": 1}, WHOLE - TIME_CONVOLUTION * 2 // 3),
        ({"shared_value": False}, WHOLE + EMBEDDINGS // 4),
    ],
)
def test_multiply_adds_are_those_counted_by_hand(options: dict[str, Any], expected: int) -> None:
    assert WHOLE == 5580
    assert multiply_adds(Classifier(OneConvolution(**options), 3), 2, 4) == expected


def test_a_model_counts_alike_wherever_it_is_and_stays_as_it_was() -> None:
    """The CPU's attention kernel is one that torch's counter does not know; it would leave the attention out."""
    model = build("ssan_tiny", 5).train()
    model.backbone.bn1.eval()  # frozen, as in fine-tuning
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with torch.device("meta"):
        expected = multiply_adds(build("ssan_tiny", 5), 4, 48)
    assert multiply_adds(model, 4, 48) == expected
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert {parameter.device.type for parameter in model.parameters()} == {"cpu"}
    assert model.training
    assert not model.backbone.bn1.training


def test_one_small_frame_can_be_counted() -> None:
    """Its last features are one position of one frame, of which BatchNorm in training could take no variance."""
    model = build("tsn_r18", 5).train()
    assert 0 < multiply_adds(model, 1, 32) < multiply_adds(model, 1, 64)


@pytest.mark.slow
@pytest.mark.parametrize(("stride_in", "giga"), [("conv2", 99.3), ("conv1", 74.9)])
def test_attention_in_res2_and_res3_costs_what_its_formula_says(stride_in: str, giga: float) -> None:
    """A block of c channels on p positions and 8 frames: 12 c^2 p a frame for the 1x1 and 3x1x1 convolutions and the
    channel branch, 2 p^2 c a frame for the position branch, 2 * 8^2 p c for the temporal attention.
    """

    def block(c: int, p: int) -> int:
        return 8 * (12 * c * c * p + 2 * p * p * c) + 2 * 64 * p * c

    first = 56 * 56 if stride_in == "conv2" else 28 * 28
    attention = 3 * block(64, 56 * 56) + block(128, first) + 3 * block(128, 28 * 28)
    totals = []
    for name in ("tsn_r50", "ssan_r50"):
        with torch.device("meta"):
            model = build(name, 174, backbone_options={"stride_in": stride_in})
        totals.append(multiply_adds(model, 8, 224))
    assert totals[1] - totals[0] == attention
    assert round(totals[1] / 1e9, 1) == giga


def test_parameters_are_weights_and_not_statistics() -> None:
    """3 to 2 channels 3x3, BatchNorm's weight and bias of 2 channels, 2 features and a bias to 5 classes."""
    model = nn.Sequential(nn.Conv2d(3, 2, 3, bias=False), nn.BatchNorm2d(2), nn.Linear(2, 5))
    assert num_parameters(model) == 54 + 4 + 15


@pytest.fixture(scope="module")
def rows() -> dict[str, dict[str, Any]]:
    listed = catalogue_rows()
    assert len({row["name"] for row in listed}) == len(listed)
    return {row["name"]: row for row in listed}


def test_the_catalogue_lists_every_family_on_every_backbone(rows: dict[str, dict[str, Any]]) -> None:
    backbones = ("r18", "r34", "r50", "r101", "mobilenet_v2", "tiny")
    families = ("tsn", "tsm", "tsn_nl", "tsm_nl", "trn", "nl3d", "nl2d", "nl1d", "nl2d1d", "a2", "ssan")
    assert {f"{family}_{backbone}" for family in families for backbone in backbones} <= set(rows)


def test_a_row_has_the_fields_of_the_contract(rows: dict[str, dict[str, Any]]) -> None:
    for row in rows.values():
        assert set(row) == {
            "name", "family", "backbone", "layer", "places", "params", "macs", "num_frames", "size_px",
            "num_classes", "knows_order", "consensus", "over",
        }  # fmt: skip
        assert row["name"] in (f"{row['family']}_{row['backbone']}", row["family"])
        assert type(row["params"]) is type(row["macs"]) is int
        assert (row["places"] is None) == (row["layer"] is None) == (row["family"] in ("tsn", "trn", *NETWORKS))
        assert row["over"] == ("tsm" if row["family"] == "tsm_nl" else None)
        assert row["consensus"] == ("relation" if row["family"] == "trn" else None)
    assert rows["ssan_r50"]["places"] == {"stages": ["res2", "res3"], "slot": "after_conv1", "every": 1}
    assert rows["ssan_r50"]["layer"] == "ssa"
    assert rows["tsm_r101"]["places"] == {
        "stages": ["res2", "res3", "res4", "res5"], "slot": "before_conv1", "every": 2,
    }  # fmt: skip
    assert rows["tsm_r101"]["layer"] == "temporal_shift"


def test_a_row_counts_eight_frames_of_the_backbones_size_and_174_classes(rows: dict[str, dict[str, Any]]) -> None:
    assert {row["num_frames"] for name, row in rows.items() if name not in NETWORKS} == {8}
    assert rows["i3d"]["num_frames"] == 64
    assert {row["num_classes"] for row in rows.values()} == {174}
    assert {row["size_px"] for name, row in rows.items() if name.endswith("_tiny")} == {48}
    assert {row["size_px"] for name, row in rows.items() if name not in NETWORKS and not name.endswith("_tiny")} == {
        224
    }
    assert rows["r3d_r18"]["size_px"] == 112
    # 23,508,032 is ResNet-50 without its classifier of images.
    assert rows["tsn_r50"]["params"] == 23_508_032 + 2049 * 174
    assert round(rows["tsn_r50"]["macs"] / 1e9, 1) == 32.7
    assert rows["ssan_tiny"]["macs"] == multiply_adds(build("ssan_tiny", 174), 8, 48)


def test_a_shift_is_free_and_attention_is_not(rows: dict[str, dict[str, Any]]) -> None:
    for backbone in BACKBONES:
        tsn, tsm, ssan = (rows.get(f"{family}_{backbone}") for family in ("tsn", "tsm", "ssan"))
        for field in ("params", "macs"):
            assert tsn[field] == tsm[field]
            if not BACKBONES[backbone].families:
                assert tsm[field] < ssan[field]


@pytest.mark.slow
def test_the_counts_that_come_with_the_package_are_those_of_counting() -> None:
    counted = json.loads(COUNTED.read_text(encoding="utf-8"))
    assert counted == {name: count(name) for name in MODELS}, (
        "run `python -m benchmarks.pages.cost` and commit what it wrote"
    )


def test_a_model_that_was_not_counted_is_counted_on_the_spot(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    counts = {"tsn_tiny": {"params": 3, "macs": 5}}
    (tmp_path / "counted.json").write_text(json.dumps(counts))
    monkeypatch.setattr("ssan.models.cost.COUNTED", tmp_path / "counted.json")
    first, second = catalogue_rows(["tsm_tiny", "tsn_tiny"])
    assert (first["name"], first["params"], first["macs"]) == ("tsm_tiny", *count("tsm_tiny").values())
    assert (second["name"], second["params"], second["macs"]) == ("tsn_tiny", 3, 5)


def test_a_row_of_an_unknown_model_is_refused() -> None:
    with pytest.raises(UsageError, match="Did you mean 'tsn_tiny'"):
        catalogue_rows(["tsn_tinny"])


class Layers(nn.Module):
    """Two features to three, ReLU, three to five; what lives at once is worked out below."""

    def __init__(self, inplace: bool) -> None:
        super().__init__()
        self.wide, self.relu, self.out = nn.Linear(2, 3), nn.ReLU(inplace), nn.Linear(3, 5)

    def forward(self, x: Tensor) -> Tensor:
        y = self.wide(x)
        y = self.relu(y)
        return self.out(y)


ROWS = torch.zeros(7, 2)
FLOAT = 4  # bytes


@pytest.mark.parametrize("inplace", [False, True])
def test_kept_for_backward_are_the_inputs_of_linear_layers_once_each(inplace: bool) -> None:
    """The first layer keeps its 2 features; ReLU its 3 results, which are also what the last layer keeps."""
    assert saved_for_backward(Layers(inplace), ROWS) == 7 * (2 + 3) * FLOAT


def test_parameters_are_not_counted_as_kept() -> None:
    """A gradient for the features needs the weights; they are there in any case."""
    features = torch.zeros(7, 2, requires_grad=True)
    assert saved_for_backward(Layers(False), features) == 7 * (2 + 3) * FLOAT


def test_what_a_frozen_model_keeps_is_nothing() -> None:
    assert saved_for_backward(Layers(False).requires_grad_(False), ROWS) == 0


@pytest.mark.parametrize("inplace", [False, True])
def test_the_peak_of_inference_is_at_the_last_layer(inplace: bool) -> None:
    """Alive there: the clips' 2, its 3 features, its 5 results. Without being freed, ReLU's input would add 3."""
    assert inference_peak(Layers(inplace), ROWS) == 7 * (2 + 3 + 5) * FLOAT


def test_the_peak_of_inference_counts_what_stands_beside_while_it_does() -> None:
    """ReLU not in place, of 11 features, holds its input and its result beside the clip; less is alive afterwards."""
    model = nn.Sequential(nn.Linear(2, 11), nn.ReLU(), nn.Linear(11, 1))
    assert inference_peak(model, ROWS) == 7 * (2 + 11 + 11) * FLOAT
    assert inference_peak(nn.Sequential(nn.Linear(2, 11), nn.ReLU(True), nn.Linear(11, 1)), ROWS) == 7 * 14 * FLOAT


def test_a_view_takes_no_memory() -> None:
    assert inference_peak(nn.Flatten(0), ROWS) == 7 * 2 * FLOAT


def test_measuring_memory_leaves_a_model_as_it_was() -> None:
    model = build("ssan_tiny", 5)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    saved_for_backward(model.train(), torch.randn(1, 3, 3, 32, 32))
    inference_peak(model.eval(), torch.randn(1, 3, 3, 32, 32))
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_twice_the_frames_keep_twice_as_much_but_for_the_statistics_of_batchnorm() -> None:
    model = build("tsn_tiny", 5).train()
    two, four = (saved_for_backward(model, torch.randn(1, t, 3, 32, 32)) for t in (2, 4))
    channels = sum(module.num_features for module in model.modules() if isinstance(module, nn.BatchNorm2d))
    assert 2 * two - four == 2 * channels * FLOAT  # mean and deviation of each


def test_attention_keeps_more() -> None:
    tsn, ssan = (saved_for_backward(build(n, 5), torch.randn(1, 3, 3, 32, 32)) for n in ("tsn_tiny", "ssan_tiny"))
    assert tsn < ssan


def test_a_measured_model_says_with_how_many_threads_and_runs() -> None:
    got = measure("tsn_tiny", runs=2)
    assert (got["latency_threads"], got["latency_runs"]) == (torch.get_num_threads(), 2)
    assert got["latency_seconds"] > 0
    assert 0 < got["inference_activation_bytes"] < got["train_activation_bytes"]
