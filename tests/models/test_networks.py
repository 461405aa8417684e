"""The networks: torchvision's names, shapes and numbers; the slots; where each named model puts its layers."""

import gzip
import json
import math
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.blocks import Times
from torch import Tensor, nn

from ssan.errors import UsageError
from ssan.layers import NonLocal, SeparableSelfAttention, TemporalShift
from ssan.models.catalogue import BACKBONES, FAMILIES, MODELS, NETWORKS, build, specification, without_memory
from ssan.models.classifier import Classifier
from ssan.models.cost import multiply_adds, num_parameters
from ssan.models.mobilenet import InvertedResidual
from ssan.models.resnet import BasicBlock, Bottleneck, ResNet
from ssan.models.slots import SlotChoice, fill_slots
from ssan.video.preprocess import normalise

GOLDEN = Path(__file__).parents[1] / "golden"
TORCHVISION = {
    "r18": "resnet18",
    "r34": "resnet34",
    "r50": "resnet50",
    "r101": "resnet101",
    "r152": "resnet152",
    "mobilenet_v2": "mobilenet_v2",
}


def on_meta(name: str, num_classes: int = 174, **options: object) -> Classifier:
    """The named model's shapes without its numbers."""
    with without_memory():
        return build(name, num_classes, **options)  # type: ignore[arg-type]


def filled(model: Classifier, kind: type[nn.Module]) -> list[str]:
    """Names of the modules of a kind, within the backbone and in the network's order."""
    return sorted(
        (name for name, module in model.backbone.named_modules() if isinstance(module, kind)),
        key=lambda name: [int(part) if part.isdigit() else part for part in name.split(".")],
    )


# Torchvision's names, shapes and numbers.


@pytest.mark.parametrize("backbone", TORCHVISION)
def test_state_dict_has_the_keys_and_shapes_of_torchvision(backbone: str) -> None:
    """The golden files were written from torchvision 0.28; BatchNorm's counters are among the keys."""
    path = GOLDEN / f"torchvision_{TORCHVISION[backbone]}.json"
    if path.exists():
        golden = json.loads(path.read_text())
    else:
        golden = json.loads(gzip.decompress(path.with_suffix(".json.gz").read_bytes()))
    own = {}
    for key, tensor in on_meta(f"tsn_{backbone}", 1000).state_dict().items():
        name = key.removeprefix("backbone.")
        if backbone == "mobilenet_v2":
            name = name.replace("fc.", "classifier.1.")
        own[name] = list(tensor.shape)
    assert own == golden


def fill_by_name(model: Classifier, classifier: str) -> None:
    """Every tensor from a generator seeded with its torchvision name, as for the golden outputs."""
    for key, tensor in model.state_dict().items():
        if not tensor.is_floating_point():
            continue
        name = key.removeprefix("backbone.")
        if key.startswith("fc."):
            name = f"{classifier}.{key.removeprefix('fc.')}"
        # numpy's legacy generator: its stream is frozen for good.
        noise = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(tuple(tensor.shape))
        if name.endswith("running_var"):
            noise = np.abs(noise) + 0.5
        elif tensor.dim() == 1:
            noise = noise * 0.1 + (1.0 if name.endswith("weight") else 0.0)
        else:
            noise = noise * math.sqrt(2 / tensor[0].numel())
        tensor.copy_(torch.from_numpy(noise))


@pytest.mark.slow
@pytest.mark.parametrize(("backbone", "classifier"), [("r18", "fc"), ("mobilenet_v2", "classifier.1")])
def test_each_frame_scores_as_an_image_does_in_torchvision(backbone: str, classifier: str) -> None:
    """Four pictures of 64 px as two clips of two frames; torchvision's outputs are in the golden file, 12 digits."""
    golden = json.loads((GOLDEN / "torchvision_outputs.json").read_text())["outputs"][TORCHVISION[backbone]]
    expected = torch.tensor(golden, dtype=torch.float64)
    model = build(f"tsn_{backbone}", 7).double().eval()
    frames = torch.from_numpy(np.random.RandomState(zlib.crc32(b"frames")).standard_normal((4, 3, 64, 64)))
    with torch.no_grad():
        fill_by_name(model, classifier)
        scores = model.frame_scores(frames.unflatten(0, (2, 2))).flatten(0, 1)
    torch.testing.assert_close(scores, expected, rtol=1e-8, atol=1e-8)


# The classifier.


def test_scores_of_a_clip_are_the_mean_of_its_frames() -> None:
    model = build("tsn_tiny", 5).double().eval()
    with torch.no_grad():
        model.fc.weight.normal_()
        clips = torch.randn(2, 3, 3, 32, 32, dtype=torch.float64)
        expected = sum(model(clips[:, i : i + 1]) for i in range(3)) / 3
        torch.testing.assert_close(model(clips), expected, rtol=0, atol=1e-12)
        assert model.frame_scores(clips).shape == (2, 3, 5)


def test_pixels_of_uint8_are_normalised_and_floating_point_ones_taken_as_they_are() -> None:
    model = build("tsn_tiny", 5).eval()
    pixels = torch.randint(0, 256, (1, 2, 3, 32, 32), dtype=torch.uint8)
    with torch.no_grad():
        model.fc.weight.normal_()
        assert torch.equal(model(pixels), model(normalise(pixels)))
        assert not torch.allclose(model(pixels), model(pixels.float()))


def test_pixels_are_normalised_as_the_backbone_says() -> None:
    """A frame of grey level 51, which is 0.2: with mean 0.5, 0.2, 0.1 and deviation 0.5, 1, 0.1 it is -0.6, 0, 1."""

    class Colours(nn.Module):
        num_features = 3
        input_mean = (0.5, 0.2, 0.1)
        input_std = (0.5, 1.0, 0.1)

        def forward(self, x: Tensor) -> Tensor:
            return x.mean(dim=(-2, -1))

    model = Classifier(Colours(), 2).eval()
    pixels = torch.full((1, 2, 3, 4, 4), 51, dtype=torch.uint8)
    torch.testing.assert_close(model.features(pixels), torch.tensor([[-0.6, 0.0, 1.0]]), atol=1e-6, rtol=0)
    assert model.num_features == 3
    as_they_are = torch.full((1, 2, 3, 4, 4), 0.25)
    torch.testing.assert_close(model.features(as_they_are), torch.full((1, 3), 0.25), atol=1e-6, rtol=0)


def test_dropout_falls_on_the_features_before_the_linear_layer() -> None:
    """With all features 1 and weights 1/f the score is the share of features kept, times 2 for the half dropped."""

    class Ones(nn.Module):
        num_features = 10_000

        def forward(self, x: Tensor) -> Tensor:
            return torch.ones(*x.shape[:2], self.num_features)

    model = Classifier(Ones(), 1, dropout=0.5)
    nn.init.constant_(model.fc.weight, 1 / 10_000)
    clips = torch.zeros(1, 1, 3, 1, 1)
    assert model.eval()(clips).item() == pytest.approx(1, abs=1e-4)
    values = [model.train()(clips).item() for _ in range(5)]
    assert len(set(values)) > 1
    assert values == pytest.approx([1] * 5, abs=0.1)
    assert build("tsn_tiny", 3).dropout.p == 0.5
    assert build("tsn_tiny", 3, dropout=0.2).dropout.p == 0.2


def test_the_new_linear_layer_starts_near_zero() -> None:
    fc = build("tsn_r18", 174).fc
    assert fc.weight.std().item() == pytest.approx(0.001, rel=0.05)
    assert (fc.bias == 0).all()


# The slots: where the drawings in the docstrings show them.


def with_marked_slots(block: nn.Module) -> nn.Module:
    """Each slot multiplies by a number of its own, so that none can stand in another's place unnoticed."""
    block.double().eval()
    for module in block.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight, module.bias, module.running_mean):
                nn.init.normal_(tensor)
            nn.init.uniform_(module.running_var, 0.5, 2)
    for slot, factor in zip(sorted(block.slot_channels), [0.3, 1.7, -0.9, 2.3], strict=False):
        setattr(block, slot, Times(factor))
    return block


def slots(block: nn.Module) -> dict[str, float]:
    return {slot: getattr(block, slot).factor for slot in block.slot_channels}


def check_block(block: nn.Module, expected: Tensor, x: Tensor) -> None:
    with torch.no_grad():
        out = block(x.unflatten(0, (2, 3)))
        torch.testing.assert_close(out.flatten(0, 1), expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("stride", [1, 2])
def test_slots_of_a_bottleneck_sit_where_the_drawing_shows_them(stride: int) -> None:
    shortcut = nn.Sequential(nn.Conv2d(5, 28, 1, stride), nn.BatchNorm2d(28))
    block = with_marked_slots(Bottleneck(5, 7, stride, shortcut))
    x, factor = torch.randn(6, 5, 11, 13, dtype=torch.float64), slots(block)
    with torch.no_grad():
        y = block.bn1(block.conv1(factor["before_conv1"] * x)).relu()
        y = block.bn2(block.conv2(factor["after_conv1"] * y)).relu()
        y = block.bn3(block.conv3(factor["after_conv2"] * y))
        expected = factor["after_block"] * (y + shortcut(x)).relu()
    check_block(block, expected, x)


def test_slots_of_a_basic_block_sit_where_a_bottleneck_has_them() -> None:
    block = with_marked_slots(BasicBlock(7, 7))
    x, factor = torch.randn(6, 7, 11, 13, dtype=torch.float64), slots(block)
    with torch.no_grad():
        y = block.bn1(block.conv1(factor["before_conv1"] * x)).relu()
        y = block.bn2(block.conv2(factor["after_conv1"] * y))
        expected = factor["after_block"] * (y + x).relu()
    check_block(block, expected, x)


@pytest.mark.parametrize(("num_out", "expansion"), [(5, 6), (5, 1), (7, 6)])
def test_slots_of_an_inverted_residual_sit_where_the_drawing_shows_them(num_out: int, expansion: int) -> None:
    block = with_marked_slots(InvertedResidual(5, num_out, 1, expansion))
    x, factor = torch.randn(6, 5, 11, 13, dtype=torch.float64), slots(block)
    with torch.no_grad():
        y = factor["after_projection"] * block.conv(factor.get("before_conv1", 1.0) * x)
        expected = factor["after_block"] * (x + y if num_out == 5 else y)
    check_block(block, expected, x)
    assert ("before_conv1" in factor) == (num_out == 5)


def test_a_block_that_halves_the_resolution_has_no_shortcut() -> None:
    block = InvertedResidual(5, 5, 2, 6)
    assert "before_conv1" not in block.slot_channels
    assert block(torch.randn(1, 2, 5, 8, 8)).shape == (1, 2, 5, 4, 4)


@pytest.mark.parametrize("backbone", ["r18", "tiny", "mobilenet_v2"])
def test_every_slot_tells_how_many_channels_pass_through_it(backbone: str) -> None:
    network = BACKBONES[backbone].build().eval()
    seen: list[tuple[str, int, int]] = []
    for blocks in network.stages.values():
        for block in blocks:
            for slot, channels in block.slot_channels.items():
                getattr(block, slot).register_forward_hook(
                    lambda module, inputs, output, s=slot, c=channels: seen.append((s, c, inputs[0].shape[2]))
                )
    with torch.no_grad():
        features = network(torch.randn(1, 2, 3, 64, 64))
    assert features.shape == (1, 2, network.num_features)
    assert len(seen) == sum(len(block.slot_channels) for blocks in network.stages.values() for block in blocks)
    assert [s for s, told, found in seen if told != found] == []


def test_a_block_that_was_wrapped_is_still_run() -> None:
    """Sharding and compiling put a wrapper in a block's place; the network must go through it."""
    for name, parent, key in [("tsn_tiny", "layer2", "0"), ("tsn_mobilenet_v2", "features", "5")]:
        model = build(name, 3).eval()
        container = model.backbone.get_submodule(parent)
        calls: list[int] = []

        class Wrapper(nn.Module):
            def __init__(self, block: nn.Module, log: list[int]) -> None:
                super().__init__()
                self.block, self.log = block, log

            def forward(self, x: Tensor) -> Tensor:
                self.log.append(1)
                return self.block(x)

        setattr(container, key, Wrapper(container.get_submodule(key), calls))
        model(torch.randn(1, 2, 3, 32, 32))
        assert calls == [1], name


# Which slots the named models fill.


def test_ssan_r50_attends_in_every_block_of_res2_and_res3() -> None:
    assert filled(on_meta("ssan_r50"), SeparableSelfAttention) == [
        "layer1.0.after_conv1",
        "layer1.1.after_conv1",
        "layer1.2.after_conv1",
        "layer2.0.after_conv1",
        "layer2.1.after_conv1",
        "layer2.2.after_conv1",
        "layer2.3.after_conv1",
    ]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("backbone", "res2", "res3"), [("r18", 2, 2), ("r34", 3, 4), ("r101", 3, 4), ("r152", 3, 8), ("tiny", 1, 1)]
)
def test_other_resnets_attend_after_the_first_convolution_too(backbone: str, res2: int, res3: int) -> None:
    expected = [f"layer1.{i}.after_conv1" for i in range(res2)] + [f"layer2.{i}.after_conv1" for i in range(res3)]
    assert filled(on_meta(f"ssan_{backbone}"), SeparableSelfAttention) == expected


def test_ssan_mobilenet_v2_attends_after_the_projection_of_the_blocks_with_24_and_32_channels() -> None:
    model = on_meta("ssan_mobilenet_v2")
    assert filled(model, SeparableSelfAttention) == [f"features.{i}.after_projection" for i in range(2, 7)]
    widths = [model.backbone.features[i].after_projection.embedding for i in range(2, 7)]
    assert widths == [24, 24, 32, 32, 32]


def test_tsm_r50_shifts_at_the_start_of_all_sixteen_residual_branches() -> None:
    expected = [f"layer{n}.{i}.before_conv1" for n, depth in enumerate((3, 4, 6, 3), 1) for i in range(depth)]
    assert len(expected) == 16
    assert filled(on_meta("tsm_r50"), TemporalShift) == expected


@pytest.mark.parametrize(("backbone", "depths"), [("r101", (3, 4, 23, 3)), ("r152", (3, 8, 36, 3))])
def test_tsm_on_the_deep_resnets_shifts_in_every_second_block_of_each_stage(
    backbone: str, depths: tuple[int, ...]
) -> None:
    expected = [f"layer{n}.{i}.before_conv1" for n, depth in enumerate(depths, 1) for i in range(0, depth, 2)]
    assert filled(on_meta(f"tsm_{backbone}"), TemporalShift) == expected


def test_tsm_mobilenet_v2_shifts_in_the_blocks_with_a_shortcut() -> None:
    model = on_meta("tsm_mobilenet_v2")
    with_shortcut = [3, 5, 6, 8, 9, 10, 12, 13, 15, 16]
    assert filled(model, TemporalShift) == [f"features.{i}.before_conv1" for i in with_shortcut]


def test_a_family_over_another_has_its_layers_too_and_each_option_goes_to_the_layer_that_takes_it() -> None:
    tsm, both = on_meta("tsm_r50"), on_meta("tsm_nl_r50", layer_options={"divisor": 4, "embedding": 5})
    assert filled(both, TemporalShift) == filled(tsm, TemporalShift)
    assert filled(both, NonLocal) == [f"layer2.{i}.after_block" for i in (0, 2)] + [
        f"layer3.{i}.after_block" for i in (0, 2, 4)
    ]
    assert {module.divisor for module in both.modules() if isinstance(module, TemporalShift)} == {4}
    assert {module.theta.out_features for module in both.modules() if isinstance(module, NonLocal)} == {5}
    moved = on_meta("tsm_nl_r50", places={"stages": ("res5",), "every": 1})
    assert filled(moved, NonLocal) == [f"layer4.{i}.after_block" for i in range(3)]
    assert filled(moved, TemporalShift) == filled(tsm, TemporalShift)


def test_a_familys_defaults_hold_until_a_run_says_otherwise() -> None:
    def blocks(**options: object) -> set[tuple[object, ...]]:
        modules = on_meta("tsn_nl_r18", layer_options=options).modules()
        return {(m.pool_keys, m.scale, m.pairwise) for m in modules if isinstance(m, NonLocal)}

    assert blocks() == {(True, 1, "embedded_gaussian")}
    assert blocks(pool_keys=False, pairwise="dot_product") == {(False, 1, "dot_product")}


@pytest.mark.slow
@pytest.mark.parametrize("backbone", BACKBONES)
def test_empty_slots_add_no_key_and_filled_ones_only_their_own(backbone: str) -> None:
    plain = set(on_meta(f"tsn_{backbone}").state_dict())
    assert [key for key in plain if "after_" in key or "before_" in key] == []
    assert set(on_meta(f"tsm_{backbone}").state_dict()) == plain
    if BACKBONES[backbone].families:
        return
    attentive = set(on_meta(f"ssan_{backbone}").state_dict())
    assert plain < attentive
    assert all(f".{BACKBONES[backbone].ssa_slot}." in key for key in attentive - plain)


def test_models_are_the_families_times_the_backbones_and_the_networks_whole_by_themselves() -> None:
    product = {
        f"{family}_{name}"
        for name, backbone in BACKBONES.items()
        for family in FAMILIES
        if family in (backbone.families or FAMILIES)
    }
    assert set(MODELS) == product | set(NETWORKS)
    assert {name for name in MODELS if name.endswith("_bninception")} == {
        "tsn_bninception", "tsm_bninception", "trn_bninception",
    }  # fmt: skip
    for name, spec in MODELS.items():
        assert spec.name == name == (spec.family if name in NETWORKS else f"{spec.family}_{spec.backbone}")
        assert specification(name) is spec


# Other places.


def attended(**places: object) -> list[str]:
    return filled(on_meta("ssan_r50", places=places), SeparableSelfAttention)


def test_every_second_block_of_a_stage_counts_from_its_first() -> None:
    assert attended(every=2) == [f"layer{n}.{i}.after_conv1" for n in (1, 2) for i in (0, 2)]


@pytest.mark.parametrize(("stage", "layer", "depth"), [("res2", 1, 3), ("res3", 2, 4), ("res4", 3, 6), ("res5", 4, 3)])
def test_a_single_stage_can_be_asked_for(stage: str, layer: int, depth: int) -> None:
    assert attended(stages=(stage,)) == [f"layer{layer}.{i}.after_conv1" for i in range(depth)]


@pytest.mark.parametrize(
    ("slot", "channels"), [("before_conv1", 512), ("after_conv1", 128), ("after_conv2", 128), ("after_block", 512)]
)
def test_another_slot_can_be_asked_for_and_the_layer_gets_its_width(slot: str, channels: int) -> None:
    model = on_meta("ssan_r50", places={"slot": slot, "stages": ("res3",)})
    assert filled(model, SeparableSelfAttention) == [f"layer2.{i}.{slot}" for i in range(4)]
    assert model.backbone.layer2[3].get_submodule(slot).embedding == channels


def test_what_is_not_asked_for_stays_as_the_family_has_it() -> None:
    mobile = on_meta("ssan_mobilenet_v2", places={"stages": ("res2",)})
    assert filled(mobile, SeparableSelfAttention) == ["features.2.after_projection", "features.3.after_projection"]
    deep = on_meta("tsm_r101", places={"stages": ("res2",)})
    assert filled(deep, TemporalShift) == ["layer1.0.before_conv1", "layer1.2.before_conv1"]


def test_the_layers_options_reach_every_layer() -> None:
    model = on_meta("ssan_r18", layer_options={"channel_branch": False, "identity_start": True})
    layers = [m for m in model.modules() if isinstance(m, SeparableSelfAttention)]
    assert len(layers) == 4
    assert not any(layer.channel_branch for layer in layers)
    shift = [m for m in on_meta("tsm_r18", layer_options={"divisor": 4}).modules() if isinstance(m, TemporalShift)]
    assert [layer.divisor for layer in shift] == [4] * 8


def test_a_layer_of_ones_own_can_be_placed_and_the_names_come_back() -> None:
    network = ResNet(BasicBlock, (1, 2), width=8)
    names = fill_slots(network, lambda channels: Times(channels), SlotChoice(("res3",), "after_block"))
    assert names == ["layer2.0.after_block", "layer2.1.after_block"]
    assert network.layer2[1].after_block.factor == 16


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("ssan_r18", {"places": {"stages": ("res22",)}}, r"unknown stage 'res22'\. Did you mean 'res2'\? Known: res2,"),
        ("ssan_r18", {"places": {"slot": "after_con1"}}, r"unknown slot 'after_con1'\. Did you mean 'after_conv1'\?"),
        ("ssan_r18", {"places": {"slot": "after_conv2"}}, r"res2 has unknown slot 'after_conv2'"),
        ("ssan_r18", {"places": {"stage": ("res2",)}}, r"places: unknown option 'stage'\. Did you mean 'stages'\?"),
        ("ssan_r18", {"places": {"every": 0}}, r"every is 0; it must be 1"),
        ("ssan_r18", {"places": {"stages": ()}}, r"no stage is named; known: res2, res3, res4, res5"),
        (
            "ssan_r18",
            {"layer_options": {"channel_brnch": False}},
            r"layer ssa: unknown option 'channel_brnch'\. Did you mean 'channel_branch'\?",
        ),
        (
            "tsm_r18",
            {"layer_options": {"div": 4}},
            r"layer temporal_shift: unknown option 'div'.* Known: direction, divisor",
        ),
        ("nl2d_r18", {"layer_options": {"axes": "t"}}, r"nl2d_r18 is the model with axes 'hw', so axes cannot be set"),
        (
            "nl2d_r18",
            {"layer_options": {"axis": "t"}},
            r"layer nonlocal: unknown option 'axis'\. Did you mean 'axes'\?",
        ),
        ("nl3d_r18", {"layer_options": {"embedding": "all"}}, r"embedding is 'all'; it must be a number of at least 1"),
        (
            "ssan_r50",
            {"backbone_options": {"stride": "conv1"}},
            r"the backbone of ssan_r50: unknown option 'stride'\. Did you mean 'stride_in'\?",
        ),
        ("ssan_r50", {"backbone_options": {"stride_in": "conv3"}}, r"stride_in is 'conv3'; it must be 'conv1' or"),
        ("tsn_mobilenet_v2", {"backbone_options": {"stride_in": "conv1"}}, r"takes none; got 'stride_in'"),
        ("tsm_nl_r18", {"layer_options": {"axes": "t"}}, r"tsm_nl_r18 is the model with axes 'thw', so axes cannot"),
        ("tsm_nl_r18", {"layer_options": {"pairwise": "dot"}}, r"pairwise is 'dot'; it must be 'embedded_gaussian' or"),
        ("tsn_nl_r18", {"layer_options": {"divisor": 8}}, r"layer nonlocal: unknown option 'divisor'"),
        ("tsm_nl_r18", {"places": {"slot": "before_conv1"}}, r"before_conv1 of res3 already has a TemporalShift"),
        ("tsn_r18", {"layer_options": {"divisor": 8}}, r"tsn_r18 has no layer between its frames, so layer cannot"),
        ("tsn_r18", {"places": {"every": 2}}, r"tsn_r18 has no layer between its frames, so places cannot"),
        ("ssam_r50", {}, r"unknown model 'ssam_r50'\. Did you mean 'ssan_r50'\?"),
    ],
)
def test_a_wrong_name_is_told_with_the_nearest_right_one(name: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        on_meta(name, **options)


# Sizes that the literature states.


def test_parameters_and_multiply_adds_are_those_of_the_literature() -> None:
    """With 174 classes and 8 frames of 224 px: ResNet-50 has 23.9 M and 32.7 G, with SSA in Res2 and Res3 24.6 M."""
    plain, attentive = on_meta("tsn_r50"), on_meta("ssan_r50")
    assert round(num_parameters(plain) / 1e6, 1) == 23.9
    assert round(num_parameters(attentive) / 1e6, 1) == 24.6
    assert round(multiply_adds(plain, 8, 224) / 1e9, 1) == 32.7
    assert num_parameters(on_meta("tsm_r50")) == num_parameters(plain)


@pytest.mark.slow
@pytest.mark.parametrize(("stride_in", "side"), [("conv2", 56), ("conv1", 28)])
def test_stride_in_decides_the_resolution_of_the_first_attention_of_res3(stride_in: str, side: int) -> None:
    model = on_meta("ssan_r50", backbone_options={"stride_in": stride_in})
    shapes: dict[str, tuple[int, ...]] = {}
    for name in filled(model, SeparableSelfAttention):
        model.backbone.get_submodule(name).register_forward_pre_hook(
            lambda module, inputs, n=name: shapes.update({n: tuple(inputs[0].shape)})
        )
    scores = model.eval()(torch.empty(1, 2, 3, 224, 224, device="meta"))
    assert scores.shape == (1, 174)
    assert shapes["layer1.2.after_conv1"] == (1, 2, 64, 56, 56)
    assert shapes["layer2.0.after_conv1"] == (1, 2, 128, side, side)
    assert shapes["layer2.1.after_conv1"] == (1, 2, 128, 28, 28)
