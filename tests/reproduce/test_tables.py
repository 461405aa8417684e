"""The recipes of the paper's tables build what the tables compare, and differ in that alone."""

import itertools
import re
from functools import cache

import pytest
import torch
from torch import Tensor, nn

from ssan.layers import DoubleAttention, NonLocal, NonLocalPair, SeparableSelfAttention, TemporalShift
from ssan.models.catalogue import NETWORKS, without_memory
from ssan.models.classifier import Classifier
from ssan.recipe import Recipe, read_recipe
from ssan.recognition.train import complete
from ssan.shipped import shipped
from ssan.weights.classifier_file import build_from

# Top-1 on the validation videos of Something-Something V2, as printed in the paper.
FIGURES = {
    "table2/nl3d": 60.6, "table2/nl2d": 60.3, "table2/nl1d": 60.1, "table2/nl2d1d": 61.0, "table2/ssa": 62.3,
    "table5/none": 61.0, "table5/sa": 61.5, "table5/sa_sve": 61.4, "table5/sa_sve_ta": 62.3,
    "table6/res2": 61.2, "table6/res3": 61.8, "table6/res2_res3": 62.3,
}  # fmt: skip
TABLES = [name for name in shipped() if name.startswith(("table2/", "table5/", "table6/"))]


def recipe(name: str) -> Recipe:
    return complete(read_recipe(shipped()[name]))


@cache
def on_meta(name: str) -> Classifier:
    """The recipe's network without its numbers, built once; nobody changes it."""
    with without_memory():
        return build_from(recipe(name), 174)


def blocks(name: str) -> dict[str, nn.Module]:
    """The layers in the slots, by their names in the backbone."""
    kinds = (SeparableSelfAttention, NonLocalPair, NonLocal, DoubleAttention)
    found = {n: m for n, m in on_meta(name).backbone.named_modules() if isinstance(m, kinds)}
    return {n: m for n, m in found.items() if n.rsplit(".", 1)[0] not in found}


@cache
def scores(name: str) -> tuple[dict[str, tuple[int, ...]], Tensor]:
    """The network's keys with their shapes, and its scores of a clip under weights that depend on these alone."""
    with without_memory():
        model = build_from(recipe(name), 5)
    model = model.to_empty(device="cpu").eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for key, tensor in sorted(model.state_dict().items()):
            if not tensor.is_floating_point():
                tensor.zero_()
            else:
                spread = 1 / tensor[0].numel() ** 0.5 if tensor.dim() > 1 else 0.2
                tensor.copy_(torch.randn(tensor.shape, generator=generator) * spread)
                if key.endswith("running_var") or (tensor.dim() == 1 and key.endswith("weight")):
                    tensor.abs_().add_(0.8)
        clip = torch.randn(1, 3, 3, 32, 32, generator=generator)
        return {key: tuple(tensor.shape) for key, tensor in model.state_dict().items()}, model(clip)


def test_the_recipes_are_all_there() -> None:
    combinations = ["_".join(on) for n in range(1, 4) for on in itertools.combinations(("sa", "sve", "ta"), n)]
    assert set(TABLES) == {*FIGURES, *(f"table5/{on}" for on in combinations), "table5/none_in_ssa",
                           "table6/res4", "table6/res5"}  # fmt: skip
    assert len(combinations) + len(["none"]) == 8


@pytest.mark.parametrize("name", TABLES)
def test_a_recipe_names_the_figure_of_the_paper_and_no_other(name: str) -> None:
    first = shipped()[name].read_text(encoding="utf-8").splitlines()[0]
    expected = [f"{FIGURES[name]:.1f}"] if name in FIGURES else []
    assert re.findall(r"\b6\d\.\d\b", first) == expected
    assert ("Not in the paper." in first) == (name.startswith("table5/") and name not in FIGURES)


ALL = [name for name in shipped() if re.match(r"table[1-6]/", name)]


@pytest.mark.parametrize("name", ALL)
def test_a_recipe_says_everything_and_says_it_as_section_4_2_does(name: str) -> None:
    written = read_recipe(shipped()[name])
    # What is left out, besides the layer of a model that is given whole, only applies to other choices, or to machines.
    left_out = set(Recipe.model_fields) - written.model_fields_set
    machines = {"checkpoint_every_steps", "checkpoint_gradients", "compile", "sync_bn"}
    small_sets = {
        "new_norm_lr_scale", "new_norm_weight_decay", "frozen_epochs", "frozen_stages", "class_weights", "balance",
        "early_stop", "consensus", "frames_per_second",
    }  # fmt: skip
    assert left_out <= {"layer", "places", "backbone", "stride", "milestones", "patience", *machines, *small_sets}
    assert len(shipped()[name].read_text(encoding="utf-8").splitlines()) <= 48
    same = Recipe(init="imagenet", crop_px=224, size_px=256)
    differing = {key for key in Recipe.model_fields if getattr(written, key) != getattr(same, key)}
    asked = {"model", "layer", "places", *(["epochs"] if name.startswith("table4/") else [])}
    if written.model in NETWORKS:  # as it was published: its frames, and what it starts from
        asked |= {"init", "num_frames", "sampling", "stride", "frames_per_second", "resize", "crop_px", "size_px"}
        asked |= {"backbone"}
    if written.model.endswith("_bninception"):  # which starts from a file that is not fetched by name
        asked |= {"init"}
    if re.search(r"(_16f|trn)", name):
        asked |= {"num_frames", "dropout"}
    if name.endswith("_tsm_style"):
        # The recipe of TSM's code, as its repository has it.
        assert (written.epochs, written.milestones, written.clip_norm) == (50, [20, 40], 20)
        assert written.weight_decay == (1e-4 if name.startswith("table4/") else 5e-4)
        assert written.flip == ("swap" if name.startswith("table4/") else "off")
        asked |= {
            "epochs", "milestones", "clip_norm", "schedule", "warmup_epochs", "parameter_groups", "flip", "resize",
            "weight_decay",
        }  # fmt: skip
    assert differing <= asked


@pytest.mark.parametrize(("table", "free"), [("table2", "model"), ("table6", "places")])
def test_recipes_of_a_table_differ_in_what_the_table_compares(table: str, free: str) -> None:
    recipes = [recipe(name).model_dump() for name in TABLES if name.startswith(f"{table}/")]
    assert len(recipes) == 5
    for key in Recipe.model_fields:
        assert len({repr(values[key]) for values in recipes}) == (5 if key == free else 1), key


# Table 2.


def test_table_2_puts_each_block_into_the_places_of_ssa() -> None:
    ssa = blocks("table2/ssa")
    assert len(ssa) == 7
    for name, kind, axes in [
        ("nl3d", NonLocal, "thw"), ("nl2d", NonLocal, "hw"), ("nl1d", NonLocal, "t"), ("nl2d1d", NonLocalPair, None),
    ]:  # fmt: skip
        own = blocks(f"table2/{name}")
        assert list(own) == list(ssa)
        assert {type(block) for block in own.values()} == {kind}
        if axes:
            assert {block.axes for block in own.values()} == {axes}


def test_blocks_of_table_2_have_the_width_of_ssa() -> None:
    widths = [block.embedding for block in blocks("table2/ssa").values()]
    assert widths == [64] * 3 + [128] * 4
    assert [block.theta.out_features for block in blocks("table2/nl3d").values()] == widths
    pairs = blocks("table2/nl2d1d").values()
    assert [(pair.space.g.out_features, pair.time.g.out_features) for pair in pairs] == [(e, e) for e in widths]


# Table 5.


@pytest.mark.slow
def test_without_its_three_parts_table_5_is_the_pair_of_table_2() -> None:
    keys, found = scores("table5/none")
    expected_keys, expected = scores("table2/nl2d1d")
    assert keys == expected_keys
    assert torch.equal(found, expected)
    assert recipe("table5/none") == recipe("table2/nl2d1d")


@pytest.mark.slow
def test_with_its_three_parts_table_5_is_ssa() -> None:
    keys, found = scores("table5/sa_sve_ta")
    expected_keys, expected = scores("table2/ssa")
    assert keys == expected_keys
    assert torch.equal(found, expected)


@pytest.mark.slow
@pytest.mark.parametrize("on", [on for on in itertools.product([False, True], repeat=3) if any(on)])
def test_each_name_in_table_5_is_one_switch_of_ssa(on: tuple[bool, bool, bool]) -> None:
    name = "_".join(word for word, there in zip(("sa", "sve", "ta"), on, strict=True) if there)
    for block in blocks(f"table5/{name}").values():
        assert isinstance(block, SeparableSelfAttention)
        assert block.position_branch
        found = (block.channel_branch, block.g_temporal is None, block.temporal.kernel_size == (3, 1))
        assert found == on


def test_the_ninth_of_table_5_is_ssa_with_the_three_switched_off_and_another_network_than_the_pair() -> None:
    for block in blocks("table5/none_in_ssa").values():
        assert isinstance(block, SeparableSelfAttention)
        assert not block.channel_branch
        assert block.g_temporal is not None
        assert block.temporal.kernel_size == (1, 1)
    assert set(on_meta("table5/none_in_ssa").state_dict()) != set(on_meta("table5/none").state_dict())


def test_each_step_from_none_in_ssa_to_ssa_changes_one_option() -> None:
    steps = ["none_in_ssa", "sa", "sa_sve", "sa_sve_ta"]
    options = [recipe(f"table5/{name}").layer for name in steps]
    for before, after, switch in zip(
        options, options[1:], ["channel_branch", "shared_value", "temporal_kernel"], strict=False
    ):
        assert [key for key in before if before[key] != after[key]] == [switch]


# Table 6, and the non-local paper's own places.


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "depths"),
    [("res2", {1: 3}), ("res3", {2: 4}), ("res2_res3", {1: 3, 2: 4}), ("res4", {3: 6}), ("res5", {4: 3})],
)
def test_table_6_puts_ssa_into_every_block_of_its_stages(name: str, depths: dict[int, int]) -> None:
    expected = [f"layer{n}.{i}.after_conv1" for n, depth in depths.items() for i in range(depth)]
    assert list(blocks(f"table6/{name}")) == expected


@pytest.mark.parametrize(("number", "every"), [(5, 2), (10, 1)])
def test_the_non_local_papers_own_blocks_sit_after_the_blocks_of_res3_and_res4(number: int, every: int) -> None:
    found = blocks(f"nonlocal/nl3d_r50_{number}_blocks")
    assert len(found) == number
    assert list(found) == [f"layer{n}.{i}.after_block" for n, depth in [(2, 4), (3, 6)] for i in range(0, depth, every)]
    for name, block in found.items():
        assert (block.axes, block.pool_keys) == ("thw", True)
        assert block.theta.out_features == {"layer2": 256, "layer3": 512}[name.split(".")[0]]


def test_tsms_non_local_blocks_sit_after_every_second_block_and_the_shift_is_all_that_tsn_lacks() -> None:
    expected = [f"layer{n}.{i}.after_block" for n, depth in [(2, 4), (3, 6)] for i in range(0, depth, 2)]
    shifted, plain = (on_meta(f"nonlocal/{family}_r50").backbone for family in ("tsm_nl", "tsn_nl"))
    for network in (shifted, plain):
        found = {name: module for name, module in network.named_modules() if isinstance(module, NonLocal)}
        assert list(found) == expected
        for name, block in found.items():
            assert (block.axes, block.pool_keys, block.scale, block.pairwise) == ("thw", True, 1, "embedded_gaussian")
            assert block.theta.out_features == {"layer2": 256, "layer3": 512}[name.split(".")[0]]
    shifts = [module for module in shifted.modules() if isinstance(module, TemporalShift)]
    assert [shift.divisor for shift in shifts] == [8] * 16
    assert set(shifted.state_dict()) == set(plain.state_dict())
    assert not any(isinstance(module, TemporalShift) for module in plain.modules())
    written = {name: recipe(f"nonlocal/{name}_r50").model_dump() for name in ("tsm_nl", "tsn_nl")}
    assert {key for key in Recipe.model_fields if written["tsm_nl"][key] != written["tsn_nl"][key]} == {
        "model",
        "layer",
    }


# The tables' rows for other networks.


def test_relations_and_double_attention_have_a_recipe_each() -> None:
    assert recipe("table3/trn_r50").dropout == 0.8
    model = on_meta("table3/trn_r50")
    assert model.consensus.num_frames == 8
    assert len(blocks("table4/a2_r50")) == 7
    assert recipe("table4/a2_r50").epochs == 200
