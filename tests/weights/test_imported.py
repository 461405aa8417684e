"""Released weights: each toolkit's names, outputs of the toolkits' own networks, and what is refused.

``golden/released.json.gz`` was written by ``benchmarks/parity/parity.py --golden`` from the toolkits' own networks:
names and shapes of their tensors, and outputs of small inputs. Weights are drawn again here, seeded with their names.
"""

import copy
import csv
import gzip
import json
import math
import os
import zlib
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ssan.errors import ModelError, UsageError
from ssan.models.catalogue import MODELS, build, without_memory
from ssan.models.classifier import Classifier
from ssan.video.preprocess import segment_indices
from ssan.weights.classifier_file import load_labeller
from ssan.weights.imported import import_weights, read_class_names
from ssan.weights.layouts import LAYOUTS, Outline, fit, names_in, num_frames_in
from ssan.weights.model_file import read_model_file

GOLDEN: dict[str, Any] = json.loads(
    gzip.decompress((Path(__file__).parents[1] / "golden/released.json.gz").read_bytes())
)
PLACED = [case for case, kept in GOLDEN.items() if kept["as"] is not None]
WITH_OUTPUTS = [case for case, kept in GOLDEN.items() if "logits" in kept]
REFUSED = [case for case, kept in GOLDEN.items() if kept["as"] is None]


# What the names of a peer's tensors do not tell of its non-local blocks.
PAIRWISE = {f"mmaction2-tsm_nl_{word}-resnet50": word for word in ("gaussian", "dot_product")}
# The biases that a peer's non-local blocks have and ours do not.
SPARE = {"tsm": ("nl.phi.0.bias", "nl.W.0.bias"), "mmaction2": ("non_local_block.phi.0.conv.bias",)}


def on_meta(name: str, num_classes: int) -> Classifier:
    with without_memory():
        return build(name, num_classes)


def counterpart(case: str, name: str | None = None) -> Classifier:
    """The shapes of our network of seven classes for a peer's of four frames; or another's, with the same options."""
    name = name or GOLDEN[case]["as"]
    return _built(name, PAIRWISE.get(case) if MODELS[name].layer == "nonlocal" else None)


@cache
def _built(name: str, pairwise: str | None) -> Classifier:
    """A network's shapes, made once for all cases; nobody changes it."""
    with without_memory():
        return build(name, 7, num_frames=4, layer_options={"pairwise": pairwise} if pairwise else {})


def drawn(case: str) -> dict[str, Tensor]:
    """The peer's tensors, by its names, as benchmarks/parity/parity_peers.py drew them."""
    state = {}
    for name, shape in GOLDEN[case]["shapes"].items():
        # numpy's legacy generator: its stream is frozen for good.
        noise = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(tuple(shape))
        if name.endswith("num_batches_tracked"):
            state[name] = torch.tensor(0)
            continue
        if name.endswith("running_var"):
            noise = np.abs(noise) + 0.5
        elif len(shape) == 1:
            noise = noise * 0.1 + (1.0 if name.endswith("weight") else 0.0)
        else:
            small = "dot_product" in case and any(part in name for part in (".theta.", ".phi.", ".g."))
            gain = 0.01 if small else 2 if "mobilenet" in case else 1
            noise = noise * math.sqrt(gain / math.prod(shape[1:]))
        state[name] = torch.from_numpy(noise)
    return state


def empty(case: str) -> dict[str, Tensor]:
    """The peer's tensors without content."""
    kind = {True: torch.int64, False: torch.float32}
    return {
        name: torch.empty(shape, dtype=kind[name.endswith("num_batches_tracked")], device="meta")
        for name, shape in GOLDEN[case]["shapes"].items()
    }


# Names.


@pytest.mark.slow
@pytest.mark.parametrize("case", PLACED)
def test_names_and_shapes_are_those_of_the_toolkits_own_network(case: str) -> None:
    layout = LAYOUTS[case.partition("-")[0]]
    model = counterpart(case)
    classifier = "base_model.fc." if case.endswith("without-dropout") else layout.classifiers[0]
    names = names_in(layout, model, classifier)
    assert names is not None
    assert len(set(names.values())) == len(names)
    own = model.state_dict()
    assert set(own) <= set(names)
    theirs, shapes = dict(GOLDEN[case]["shapes"]), {}
    for key, tensor in own.items():
        # A 1x1x1 convolution there is a linear map here.
        in_block = ".after_block." in key and tensor.dim() == 2
        shapes[names[key]] = list(tensor.shape) + ([1, 1, 1] if in_block else [])
    spare = {name: theirs.pop(name) for key, name in names.items() if key not in own}
    assert shapes == theirs
    num_blocks = 5 if MODELS[GOLDEN[case]["as"]].layer == "nonlocal" and case not in PAIRWISE else 0
    assert len(spare) == num_blocks * len(SPARE[case.partition("-")[0]])
    assert all(name.endswith(SPARE[case.partition("-")[0]]) for name in spare)


@pytest.mark.slow
@pytest.mark.parametrize("case", PLACED)
def test_a_toolkits_network_fits_its_counterpart_by_its_own_layout_and_no_other_family(case: str) -> None:
    found = fit(empty(case), counterpart(case))
    assert found is not None
    assert (found.layout, found.num_wrong, found.counters) == (case.partition("-")[0], 0, [])
    spec = MODELS[GOLDEN[case]["as"]]
    for family in {"tsn", "tsm", "tsn_nl", "tsm_nl", "trn"} - {spec.family}:
        other = fit(empty(case), counterpart(case, f"{family}_{spec.backbone}"))
        assert other is None or other.num_wrong > 0, family
        # With the shift and without it, what does not fit are the convolutions that follow it.
        if {family, spec.family} in ({"tsn", "tsm"}, {"tsn_nl", "tsm_nl"}):
            assert other is not None
            assert len(other.missing) + len(other.counters) == len(other.unexpected) > 0
            assert all(".net." in name for name in (other.missing if family.startswith("tsm") else other.unexpected))


@pytest.mark.slow
@pytest.mark.parametrize("case", WITH_OUTPUTS)
def test_a_placed_network_scores_a_clip_as_the_toolkits_own_does(case: str) -> None:
    """Relations too, whose outputs here are the mean over draws of the toolkit's that take each equally often."""
    model = copy.deepcopy(counterpart(case)).double().to_empty(device="cpu").eval()
    found = fit(drawn(case), model)
    assert found is not None
    model.load_state_dict(found.tensors)
    clip = torch.from_numpy(np.random.RandomState(zlib.crc32(b"clip")).standard_normal((1, 4, 3, 64, 64)))
    expected = torch.tensor(GOLDEN[case]["logits"], dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(model(clip)[0], expected, rtol=0, atol=1e-8)


def test_an_image_networks_names_are_our_own_and_tell_of_no_shift() -> None:
    names = names_in(LAYOUTS["torchvision"], on_meta("tsn_r18", 7), "fc.")
    assert names is not None
    assert all(key.removeprefix("backbone.") == name for key, name in names.items())
    assert names_in(LAYOUTS["torchvision"], on_meta("tsm_r18", 7), "fc.") is None


@pytest.mark.parametrize(
    ("model", "places"),
    [
        ("ssan_r18", {}),
        ("tsm_r18", {"slot": "after_conv1"}),
        ("tsn_nl_r18", {"slot": "after_conv1"}),
        ("tsn_nl_mobilenet_v2", {}),
        ("nl2d_r18", {"slot": "after_block"}),
    ],
    ids=["attention", "shifts elsewhere", "non-local blocks elsewhere", "on MobileNetV2", "within frames"],
)
def test_networks_that_no_toolkit_has_are_in_no_layout(model: str, places: dict[str, Any]) -> None:
    with torch.device("meta"):
        network = build(model, 7, places=places)
    for layout in LAYOUTS.values():
        assert names_in(layout, network, layout.classifiers[0]) is None


@pytest.mark.parametrize(
    ("model", "layouts"), [("trn_r18", {"trn", "mmaction2"}), ("tsm_nl_r18", {"tsm", "mmaction2"})]
)
def test_a_network_is_in_the_files_of_those_toolkits_that_have_it(model: str, layouts: set[str]) -> None:
    network = on_meta(model, 7)
    has = {name for name, layout in LAYOUTS.items() if names_in(layout, network, layout.classifiers[0]) is not None}
    assert has == layouts


@pytest.mark.slow
def test_a_family_that_no_toolkit_has_on_the_smallest_backbone_is_in_no_layout_on_any_other() -> None:
    """So the network nearest to a file is sought among the others alone."""
    for family in ("nl3d", "nl2d", "nl1d", "nl2d1d", "a2", "ssan"):
        for backbone in ("tiny", "r18", "mobilenet_v2", "efficientnet_lite0"):
            assert Outline.of(on_meta(f"{family}_{backbone}", 7)).names == {}, (family, backbone)
    for family in ("tsn", "tsm", "tsn_nl", "tsm_nl", "trn"):
        assert Outline.of(on_meta(f"{family}_tiny", 7)).names != {}, family


def test_keys_that_are_not_pooled_show_in_the_names() -> None:
    with torch.device("meta"):
        network = build("tsn_nl_r18", 7, layer_options={"pool_keys": False})
    for layout, name in [("tsm", "nl.g.weight"), ("mmaction2", "non_local_block.g.conv.weight")]:
        names = names_in(LAYOUTS[layout], network, "fc.")
        assert names is not None
        assert names["backbone.layer2.0.after_block.g.weight"] == f"{LAYOUTS[layout].prefix}layer2.0.{name}"


# Files.


def tiny_state(
    model: str = "tsm_tiny", layout: str = "tsm", num_classes: int = 5, num_frames: int = 8
) -> dict[str, Tensor]:
    """A small network's tensors by a layout's names, every value random."""
    network = build(model, num_classes, num_frames=num_frames)
    names = names_in(LAYOUTS[layout], network, LAYOUTS[layout].classifiers[0])
    assert names is not None
    own, state = network.state_dict(), {}
    for key, name in names.items():
        # Biases that only the toolkit has are of the length of what stands beside them.
        like = key.replace("phi.bias", "theta.bias").replace("out.bias", "norm.bias")
        tensor = own[like]
        state[name] = torch.rand_like(tensor) + 0.5 if tensor.is_floating_point() else tensor + 3
        if ".after_block." in key and tensor.dim() == 2:
            state[name] = state[name][..., None, None, None]
    return state


def saved(path: Path, state: dict[str, Tensor], **beside: object) -> str:
    torch.save({"epoch": 3, "arch": "tiny", "state_dict": state, **beside}, path)
    return str(path)


def test_a_checkpoint_becomes_a_model_file_that_scores_as_its_weights_do(tmp_path: Path) -> None:
    state = tiny_state()
    file = saved(tmp_path / "x.pth.tar", {f"module.{name}": tensor for name, tensor in state.items()})
    out = tmp_path / "out" / "model.safetensors"
    released = import_weights(file, "tsm_tiny", str(out), overrides=["num_frames=3", "crop_px=32"])
    labeller = load_labeller(out)
    assert labeller.classes == ["0", "1", "2", "3", "4"]
    assert labeller.preprocess.as_dict() == {
        "num_frames": 3, "sampling": "segment", "stride": 8, "resize": "short_side", "size_px": 37, "crop_px": 32,
    }  # fmt: skip
    by_hand = build("tsm_tiny", 5).eval()
    tensors = {name.replace("base_model.", "backbone.").replace(".net.", "."): t for name, t in state.items()}
    by_hand.load_state_dict({name.replace("new_fc.", "fc."): tensor for name, tensor in tensors.items()})
    clip = torch.randn(1, 3, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(labeller.model(clip), by_hand(clip))
    answer = released.as_dict()
    assert (answer["layout"], answer["missing"], answer["unexpected"]) == ("tsm", [], [])
    assert answer["matched"] == len(state)
    assert answer["file"] == str(out)
    assert answer["sha256"] == labeller.hash
    assert labeller.protocol["average"] == "logits"
    assert labeller.protocol["imported_from"]["file"] == "x.pth.tar"


@pytest.mark.slow
@pytest.mark.parametrize("layout", [name for name, layout in LAYOUTS.items() if layout.resnet is not None])
def test_the_layout_is_found_and_how_it_averages_views_is_kept(layout: str, tmp_path: Path) -> None:
    model = "trn_tiny" if layout == "trn" else "tsn_tiny"  # whose code names TSN's networks as TSM's does
    file = saved(tmp_path / "x.pth", tiny_state(model, layout))
    assert import_weights(file, model, str(tmp_path)).layout == layout
    protocol = load_labeller(tmp_path).protocol
    assert protocol["imported_from"]["layout"] == layout
    assert protocol["average"] == ("probabilities" if layout == "mmaction2" else "logits")


def test_a_folder_gets_a_model_file_of_the_usual_name(tmp_path: Path) -> None:
    file = saved(tmp_path / "x.pth", tiny_state())
    for out in (str(tmp_path), f"{tmp_path}/new/", f"{tmp_path}/new"):
        released = import_weights(file, "tsm_tiny", out)
        assert released.file == os.path.join(out, "model.safetensors")
        assert load_labeller(out).hash == released.sha256


def refused(file: str, model: str, tmp_path: Path, **options: Any) -> str:
    """The refusal of a file; nothing may have been written."""
    with pytest.raises(ModelError) as caught:
        import_weights(file, model, str(tmp_path / "out.safetensors"), **options)
    assert caught.value.code == "wrong_model"
    assert caught.value.path == file
    assert not (tmp_path / "out.safetensors").exists()
    return caught.value.message


@pytest.mark.slow
def test_a_tensor_too_many_too_few_or_of_another_shape_is_refused_by_name(tmp_path: Path) -> None:
    state = tiny_state()
    more = {**state, "base_model.layer9.weight": torch.ones(2), "more": torch.ones(1)}
    said = refused(saved(tmp_path / "a.pth", more), "tsm_tiny", tmp_path)
    assert "by the names of tsm: 2 not in the model (base_model.layer9.weight, more)." in said
    assert "Nearest is tsm_tiny by the names of tsm, with 2 that do not fit" in said

    fewer = {name: tensor for name, tensor in state.items() if not name.startswith("base_model.layer2.")}
    said = refused(saved(tmp_path / "b.pth", fewer), "tsm_tiny", tmp_path)
    # Three convolutions, one in the shortcut, and their four BatchNorms; the counters may be missing.
    assert "20 not in the file (base_model.layer2.0.conv1.net.weight, base_model.layer2.0.bn1.weight," in said

    state["base_model.bn1.bias"] = torch.ones(7)
    said = refused(saved(tmp_path / "c.pth", state), "tsm_tiny", tmp_path)
    assert "1 of another shape (base_model.bn1.bias (7 for 16))" in said


@pytest.mark.slow
def test_numbers_of_another_kind_are_refused(tmp_path: Path) -> None:
    state = tiny_state()
    state["base_model.conv1.weight"] = state["base_model.conv1.weight"].to(torch.int64)
    said = refused(saved(tmp_path / "a.pth", state), "tsm_tiny", tmp_path)
    assert "1 of another shape (base_model.conv1.weight (int64 for 16x3x7x7))" in said


@pytest.mark.slow
def test_a_file_of_another_network_is_told_which_it_is(tmp_path: Path) -> None:
    said = refused(saved(tmp_path / "a.pth", tiny_state("tsn_tiny", "mmaction2")), "tsm_tiny", tmp_path)
    assert "3 not in the file (backbone.layer1.0.conv1.conv.net.weight, backbone.layer2.0.conv1.conv.net.weight" in said
    assert said.endswith("It fits tsn_tiny; import it with --as tsn_tiny")
    said = refused(saved(tmp_path / "b.pth", tiny_state("tsn_tiny", "torchvision")), "ssan_tiny", tmp_path)
    assert said.startswith(f"no file of {', '.join(LAYOUTS)} holds a network such as ssan_tiny. It fits tsn_tiny")


@pytest.mark.slow
def test_a_file_with_non_local_blocks_or_relations_is_told_which_network_it_is(tmp_path: Path) -> None:
    for name, layout in [("tsm_nl_tiny", "tsm"), ("tsn_nl_tiny", "mmaction2"), ("trn_tiny", "mmaction2")]:
        said = refused(saved(tmp_path / f"{name}.pth", tiny_state(name, layout, num_frames=5)), "tsm_tiny", tmp_path)
        assert said.endswith(f"It fits {name}; import it with --as {name}")


def test_the_cases_that_are_refused_are_these() -> None:
    assert REFUSED == ["mmaction2-tsm_nl_concatenation-resnet50", "mmaction2-trn_of_one_scale-resnet50"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("case", "part"),
    [
        (c, "a relation head of one scale (TRN)" if "trn" in c else "non-local blocks that compare by concatenation")
        for c in REFUSED
    ],
)
def test_what_cannot_be_imported_is_named(case: str, part: str, tmp_path: Path) -> None:
    state = {name: torch.zeros(tensor.shape) for name, tensor in empty(case).items()}
    said = refused(saved(tmp_path / "a.pth", state), "tsm_r50", tmp_path)
    assert f"It has {part}, which cannot be imported" in said


@pytest.mark.slow
def test_a_relation_of_one_scale_by_the_names_of_trns_own_code_is_named(tmp_path: Path) -> None:
    state = tiny_state("tsn_tiny")
    state["consensus.classifier.1.weight"] = torch.ones(7, 5)
    said = refused(saved(tmp_path / "a.pth", state), "trn_tiny", tmp_path)
    assert "It has a relation head of one scale by the names of TRN's own code, which cannot be imported" in said


# Non-local blocks.


def imported(file: str, model: str, tmp_path: Path, **options: Any) -> tuple[dict[str, Tensor], list[str]]:
    """The tensors of the model file that an import writes, and its notes."""
    released = import_weights(file, model, str(tmp_path / "out.safetensors"), **options)
    return read_model_file(tmp_path / "out.safetensors")[0], released.notes


def test_the_bias_before_batchnorm_is_taken_off_the_mean_that_it_subtracts(tmp_path: Path) -> None:
    state = tiny_state("tsm_nl_tiny")
    tensors, notes = imported(saved(tmp_path / "a.pth", state), "tsm_nl_tiny", tmp_path)
    for layer in ("layer2", "layer3"):
        mean, bias = (state[f"base_model.{layer}.0.nl.W.{part}"] for part in ("1.running_mean", "0.bias"))
        ours = tensors[f"backbone.{layer}.0.after_block.norm.running_mean"]
        torch.testing.assert_close(ours, mean - bias, rtol=0, atol=1e-6)
        assert not torch.allclose(ours, mean)
    assert any(
        note.startswith(
            "2 biases before a BatchNorm are part of the mean that it subtracts now: base_model.layer2.0.nl.W"
        )
        for note in notes
    )


def test_the_bias_of_phi_is_left_out_whatever_it_is_and_told(tmp_path: Path) -> None:
    state = tiny_state("tsm_nl_tiny")
    tensors, notes = imported(saved(tmp_path / "a.pth", state), "tsm_nl_tiny", tmp_path)
    state["base_model.layer2.0.nl.phi.0.bias"] += 7
    others, _ = imported(saved(tmp_path / "b.pth", state), "tsm_nl_tiny", tmp_path)
    assert all(torch.equal(tensor, others[name]) for name, tensor in tensors.items())
    assert any(
        note.startswith("2 biases that no score depends on are left out: base_model.layer2.0.nl") for note in notes
    )


def test_the_bias_of_phi_is_placed_where_a_dot_product_needs_it(tmp_path: Path) -> None:
    state = tiny_state("tsm_nl_tiny", "mmaction2")
    file = saved(tmp_path / "tsm_r50-nl-dot-product_8xb16-1x1x8-50e_kinetics400-rgb.pth", state)
    tensors, notes = imported(file, "tsm_nl_tiny", tmp_path)
    bias = state["backbone.layer2.0.non_local_block.phi.0.conv.bias"]
    assert torch.equal(tensors["backbone.layer2.0.after_block.phi.bias"], bias)
    assert load_labeller(tmp_path / "out.safetensors").model.backbone.layer2[0].after_block.pairwise == "dot_product"
    assert not any("left out" in note for note in notes)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["nl.W.0.bias", "nl.phi.0.bias", "nl.theta.weight"])
def test_a_tensor_of_a_non_local_block_that_is_missing_or_of_another_shape_is_named(name: str, tmp_path: Path) -> None:
    state = tiny_state("tsm_nl_tiny")
    taken = state.pop(f"base_model.layer3.0.{name}")
    said = refused(saved(tmp_path / "a.pth", state), "tsm_nl_tiny", tmp_path)
    assert f"1 not in the file (base_model.layer3.0.{name})" in said
    state[f"base_model.layer3.0.{name}"] = taken[1:]
    said = refused(saved(tmp_path / "b.pth", state), "tsm_nl_tiny", tmp_path)
    assert f"1 of another shape (base_model.layer3.0.{name} (" in said


@pytest.mark.slow
def test_a_convolution_over_more_than_one_position_is_no_linear_map(tmp_path: Path) -> None:
    state = tiny_state("tsm_nl_tiny")
    state["base_model.layer2.0.nl.g.0.weight"] = (
        state["base_model.layer2.0.nl.g.0.weight"].expand(-1, -1, 3, 1, 1).clone()
    )
    said = refused(saved(tmp_path / "a.pth", state), "tsm_nl_tiny", tmp_path)
    assert "1 of another shape (base_model.layer2.0.nl.g.0.weight (64x128x3x1x1 for 64x128))" in said


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("TSM_kinetics_RGB_resnet50_shift4_blockres_avg_segment8_e100_dense_nl.pth", {"divisor": 4}),
        ("tsm_imagenet-pretrained-r50-nl-dot-product_8xb16-1x1x8-50e_k400.pth", {"pairwise": "dot_product"}),
        ("tsm_nl_embedded_gaussian_r50_1x1x8_50e_kinetics400_rgb_2020.pth", {"pairwise": "embedded_gaussian"}),
        ("tsm_nl_dot_product_r50_1x1x8_50e_kinetics400_rgb_2020.pth", {"pairwise": "dot_product"}),
        ("x.pth", {}),
    ],
)
def test_the_shift_and_the_comparison_of_non_local_blocks_come_from_the_name(
    name: str, layer: dict[str, Any], tmp_path: Path
) -> None:
    layout = "tsm" if name.startswith("TSM") else "mmaction2"
    file = saved(tmp_path / name, tiny_state("tsm_nl_tiny", layout))
    released = import_weights(file, "tsm_nl_tiny", str(tmp_path / "m.safetensors"))
    assert released.recipe.layer == layer
    told = [note for note in released.notes if note.startswith("neither names nor shapes tell how non-local blocks")]
    assert len(told) == (layout == "mmaction2")
    assert any("layer.pairwise=embedded_gaussian" in note for note in told) == (name == "x.pth")
    given = {"pairwise": "embedded_gaussian", "similarity_scale": "sqrt"}
    overrides = [f"layer.{key}={value}" for key, value in given.items()]
    other = import_weights(file, "tsm_nl_tiny", str(tmp_path / "m.safetensors"), overrides=overrides)
    assert other.recipe.layer == {**layer, **given}
    assert not any(note.startswith("neither names") for note in other.notes)


@pytest.mark.slow
def test_a_gaussian_has_no_embeddings_and_its_file_none_either(tmp_path: Path) -> None:
    state = tiny_state("tsm_nl_tiny", "mmaction2")
    state = {name: tensor for name, tensor in state.items() if ".theta." not in name and ".phi." not in name}
    said = refused(saved(tmp_path / "a.pth", state), "tsm_nl_tiny", tmp_path)
    assert "(backbone.layer2.0.non_local_block.theta.conv.weight" in said
    tensors, _ = imported(saved(tmp_path / "tsm_r50-nl-gaussian_1x1x8-.pth", state), "tsm_nl_tiny", tmp_path)
    assert not any("phi" in name or "theta" in name for name in tensors)


# Relations.


@pytest.mark.slow
def test_the_number_of_frames_that_relations_are_for_comes_from_their_tensors(tmp_path: Path) -> None:
    state = tiny_state("trn_tiny", "mmaction2", num_frames=5)
    assert state["cls_head.consensus.fc_fusion_scales.0.1.weight"].shape == (256, 5 * 256)
    file = saved(tmp_path / "trn_r50_1x1x8-50e.pth", state)
    released = import_weights(file, "trn_tiny", str(tmp_path / "m.safetensors"))
    assert (released.recipe.num_frames, len(released.classes)) == (5, 5)
    assert load_labeller(tmp_path / "m.safetensors").model.consensus.num_frames == 5
    assert any("the scores are what its draws come to on average" in note for note in released.notes)
    with pytest.raises(ModelError, match=r"by the names of mmaction2: 4 not in the file .*fc_fusion_scales\.4"):
        import_weights(file, "trn_tiny", str(tmp_path / "m.safetensors"), overrides=["num_frames=6"])


def test_the_largest_scale_stands_first_there_and_last_here(tmp_path: Path) -> None:
    state = tiny_state("trn_tiny", "mmaction2", num_frames=3)
    tensors, _ = imported(saved(tmp_path / "a.pth", state), "trn_tiny", tmp_path)
    scales = "cls_head.consensus.fc_fusion_scales"
    for theirs, ours in [("0.1", "fuse.1"), ("0.3", "score.1"), ("1.1", "fuse.0"), ("1.3", "score.0")]:
        for part in ("weight", "bias"):
            assert torch.equal(tensors[f"consensus.{ours}.{part}"], state[f"{scales}.{theirs}.{part}"])
    assert torch.equal(tensors["fc.weight"], state["cls_head.fc_cls.weight"])


@pytest.mark.parametrize(("num_scales", "num_frames"), [(0, None), (1, 2), (15, 16), (16, None)])
def test_relations_of_more_frames_than_ours_can_have_are_not_counted(num_scales: int, num_frames: int | None) -> None:
    names = [f"cls_head.consensus.fc_fusion_scales.{number}.1.weight" for number in range(num_scales)]
    assert num_frames_in({name: torch.ones(1) for name in [*names, "cls_head.fc_cls.weight"]}) == num_frames


@pytest.mark.slow
def test_input_that_is_no_picture_is_named(tmp_path: Path) -> None:
    state = tiny_state()
    state["base_model.conv1.weight"] = torch.ones(16, 10, 7, 7)
    said = refused(saved(tmp_path / "a.pth", state), "tsm_tiny", tmp_path)
    assert "It has a first convolution of 10 channels (optical flow or differences)" in said


def test_a_file_without_a_classifier_is_refused(tmp_path: Path) -> None:
    state = {name: tensor for name, tensor in tiny_state().items() if "new_fc" not in name}
    said = refused(saved(tmp_path / "a.pth", state), "tsm_tiny", tmp_path)
    assert "it has no classifier under a known name (fc.bias, classifier.1.bias, new_fc.bias," in said
    assert "`ssan train --init`" in said


def test_counters_that_an_old_file_does_not_have_are_set_to_zero_and_told(tmp_path: Path) -> None:
    state = {name: tensor for name, tensor in tiny_state().items() if not name.endswith("num_batches_tracked")}
    released = import_weights(saved(tmp_path / "a.pth", state), "tsm_tiny", str(tmp_path))
    assert (released.matched, released.counters_set_to_zero) == (len(state), 13)
    assert any(
        "13 counters of batches (num_batches_tracked) are not in the file; set to 0" in n for n in released.notes
    )
    tensors, _ = read_model_file(tmp_path / "model.safetensors")
    counters = [tensor for name, tensor in tensors.items() if name.endswith("num_batches_tracked")]
    assert len(counters) == 13
    assert all(int(counter) == 0 for counter in counters)


def test_counters_that_a_file_has_are_kept(tmp_path: Path) -> None:
    import_weights(saved(tmp_path / "a.pth", tiny_state()), "tsm_tiny", str(tmp_path))
    tensors, _ = read_model_file(tmp_path / "model.safetensors")
    assert int(tensors["backbone.bn1.num_batches_tracked"]) == 3


@pytest.mark.slow
def test_pixel_statistics_that_are_ours_are_taken_and_others_refused(tmp_path: Path) -> None:
    state = tiny_state("tsn_tiny", "mmaction2")
    state["data_preprocessor.mean"] = torch.tensor([123.675, 116.28, 103.53]).view(3, 1, 1)
    state["data_preprocessor.std"] = torch.tensor([58.395, 57.12, 57.375]).view(3, 1, 1)
    import_weights(saved(tmp_path / "a.pth", state), "tsn_tiny", str(tmp_path))
    state["data_preprocessor.std"] = torch.ones(3, 1, 1)
    said = refused(saved(tmp_path / "b.pth", state), "tsn_tiny", tmp_path)
    assert "1 not in the model (data_preprocessor.std)" in said


def test_half_precision_is_widened(tmp_path: Path) -> None:
    state = {name: t.half() if t.is_floating_point() else t for name, t in tiny_state().items()}
    import_weights(saved(tmp_path / "a.pth", state), "tsm_tiny", str(tmp_path))
    tensors, _ = read_model_file(tmp_path / "model.safetensors")
    assert tensors["fc.weight"].dtype == torch.float32
    assert torch.equal(tensors["fc.weight"], state["new_fc.weight"].float())


class RunsCode:
    """Unpickled without care, it writes the marker file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, ...]:
        return os.system, (f"echo executed > '{self.marker}'",)


@pytest.mark.parametrize("new_format", [True, False])
def test_a_checkpoint_that_would_execute_code_is_refused_and_executes_none(new_format: bool, tmp_path: Path) -> None:
    file, marker = str(tmp_path / "a.pth.tar"), tmp_path / "marker"
    content = {"state_dict": tiny_state(), "best_prec1": RunsCode(marker)}
    torch.save(content, file, _use_new_zipfile_serialization=new_format)
    said = refused(file, "tsm_tiny", tmp_path)
    assert "it contains posix.system" in said or "it contains nt.system" in said
    assert "if you trust who made it, keep its tensors alone: torch.save(torch.load(" in said
    assert not marker.exists()
    # The attack is a real one: without care it succeeds.
    torch.load(file, weights_only=False)
    assert marker.exists()


# What a name tells.


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("TSM_kinetics_RGB_resnet50_shift8_blockres_avg_segment8_e50.pth", (8, "segment", 8, {"divisor": 8})),
        ("TSM_somethingv2_RGB_resnet50_shift4_blockres_avg_segment16_e45.pth", (16, "segment", 8, {"divisor": 4})),
        ("TSM_kinetics_RGB_resnet50_shift8_blockres_avg_segment8_e100_dense.pth", (8, "dense", 8, {"divisor": 8})),
        ("TSM_kinetics_RGB_resnet50_avg_segment5_e50.pth", (5, "segment", 8, {})),
        ("tsm_imagenet-pretrained-r50_8xb16-1x1x16-50e_kinetics400-rgb_2022-042a.pth", (16, "segment", 8, {})),
        ("tsm_imagenet-pretrained-r50_8xb16-dense-1x1x16-50e_kinetics400-rgb_20.pth", (16, "dense", 4, {})),
        ("tsm_r50_dense_1x1x8_100e_kinetics400_rgb_20210701-a54ff3d3.pth", (8, "dense", 8, {})),
        ("resnet50-0676ba61.pth", (8, "segment", 8, {})),
        ("tsn_r50_320p_5x1x3_110e_kinetics400_flow_20200705.pth", (8, "segment", 8, {})),
    ],
)
def test_frames_and_shift_come_from_a_name_of_the_toolkits_form(
    name: str, expected: tuple[Any, ...], tmp_path: Path
) -> None:
    released = import_weights(saved(tmp_path / name, tiny_state()), "tsm_tiny", str(tmp_path / "m.safetensors"))
    recipe = released.recipe
    assert (recipe.num_frames, recipe.sampling, recipe.stride, recipe.layer) == expected
    told = "the file's name does not tell" if "1x1x" not in name and "segment" not in name else "from the file's name:"
    assert any(note.startswith(told) for note in released.notes)


def test_what_is_asked_for_goes_before_the_name(tmp_path: Path) -> None:
    file = saved(tmp_path / "TSM_x_RGB_resnet50_shift8_blockres_avg_segment8_e50.pth", tiny_state())
    released = import_weights(
        file, "tsm_tiny", str(tmp_path), overrides=["num_frames=11", "layer.divisor=4", "resize=square", "size_px=61"]
    )
    labeller = load_labeller(tmp_path)
    assert labeller.preprocess.num_frames == 11
    assert (labeller.preprocess.resize, labeller.preprocess.size_px, labeller.preprocess.crop_px) == ("square", 61, 48)
    assert released.recipe.layer == {"divisor": 4}
    assert labeller.model.backbone.layer1[0].before_conv1.divisor == 4


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["model=tsn_tiny"], "model=tsn_tiny contradicts --as tsm_tiny"),
        (["size_px=20"], "size_px is 20, smaller than crop_px, 48"),
        (["frames=8"], "unknown key 'frames'"),
        (["layer.divisor=1"], "divisor is 1"),
    ],
)
def test_a_recipe_that_cannot_be_is_refused(overrides: list[str], message: str, tmp_path: Path) -> None:
    file = saved(tmp_path / "a.pth", tiny_state())
    with pytest.raises(UsageError, match=message):
        import_weights(file, "tsm_tiny", str(tmp_path / "m.safetensors"), overrides=overrides)


def test_weights_are_not_replaced_by_the_model_made_of_them(tmp_path: Path) -> None:
    file = saved(tmp_path / "model.safetensors.pth", tiny_state())
    for out in (file, str(tmp_path / "." / "model.safetensors.pth")):
        with pytest.raises(UsageError, match="would replace the weights it is made from"):
            import_weights(file, "tsm_tiny", out)
    with pytest.raises(ModelError, match="no such weights file") as caught:
        import_weights(str(tmp_path / "absent.pth"), "tsm_tiny", str(tmp_path / "m.safetensors"))
    assert caught.value.code == "missing"


@pytest.mark.parametrize("num_segments", [1, 3, 5, 8, 16])
def test_the_frames_looked_at_are_those_of_both_toolkits(num_segments: int) -> None:
    """Their middle of part k of s is int(tick / 2 + tick * k), tick = n / s, in floating point.

    For other numbers, such as 7 and 25, their rounding now and then gives the frame before.
    """
    for n in range(1, 500):
        tick = n / num_segments
        theirs = [int(tick / 2 + tick * k) for k in range(num_segments)]
        assert segment_indices(n, num_segments, rng=None) == theirs


# Class names.

NAMES = ["pull left, then right", "push", 'say "no"']


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("a.txt", 'pull left, then right\npush\nsay "no"\n\n'),
        ("a", '\ufeffpull left, then right\r\n push \r\nsay "no"'),
        ("a.json", json.dumps(NAMES)),
        ("a.json", json.dumps({name: str(number) for number, name in reversed(list(enumerate(NAMES)))})),
        ("a.json", json.dumps({name: number for number, name in reversed(list(enumerate(NAMES)))})),
        ("a.json", json.dumps({"2": NAMES[2], "0": NAMES[0], "1": NAMES[1]})),
        ("a.csv", '"pull left, then right"\npush\n"say ""no"""\n'),
        ("a.csv", 'id,name\n2,"say ""no"""\n1,push\n0,"pull left, then right"\n'),
        ("a.CSV", 'Label,count\n"pull left, then right",8\npush,9\n"say ""no""",3\n'),
    ],
)
def test_class_names_are_read_in_the_order_of_the_scores(file: str, text: str, tmp_path: Path) -> None:
    (tmp_path / file).write_text(text, encoding="utf-8", newline="")
    assert read_class_names(tmp_path / file) == NAMES


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("a.txt", "", "it has no class names"),
        ("a.txt", "a\n\nb\n", "the name of class 1 is empty"),
        ("a.json", "3", "expected a list of class names, or a mapping"),
        ("a.json", '["a", 3]', "expected a list of class names"),
        ("a.json", '{"a": 0, "b": 2}', "must be 0 to 1, each once; 1 is not there"),
        ("a.json", '{"a": 0, "b": 0}', "each once; 1 is not there"),
        ("a.json", '{"a": 0, "b": null}', "each once; 1 is not there"),
        ("a.json", '{"0": "a", "1": ""}', "the name of class 1 is empty"),
        ("a.csv", "a,b\nc,d\n", "the row 'a,b' has 2 cells"),
        ("a.csv", "id,name\n0,a\n1\n", "the row '1' has 1 cells"),
        ("a.csv", "id,name\n0,a\n0,b\n", "each once; 1 is not there"),
        ("a.csv", '"a\n', "not valid CSV"),
        ("a.csv", "name\n", "it has no class names"),
        ("a.csv", "", "it has no class names"),
    ],
)
def test_malformed_class_names_are_refused(file: str, text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / file).write_text(text)
    with pytest.raises(UsageError, match=message) as caught:
        read_class_names(tmp_path / file)
    assert caught.value.path == str(tmp_path / file)


def test_class_names_go_into_the_model_file_if_they_are_as_many_as_its_scores(tmp_path: Path) -> None:
    file, names = saved(tmp_path / "a.pth", tiny_state(num_classes=3)), tmp_path / "names.csv"
    with open(names, "w", newline="") as handle:
        csv.writer(handle).writerows([[name] for name in NAMES])
    released = import_weights(file, "tsm_tiny", str(tmp_path), classes=str(names))
    assert load_labeller(tmp_path).classes == NAMES
    assert not any("no class names" in note for note in released.notes)
    names.write_text("a\nb\n")
    with pytest.raises(UsageError, match="it has 2 class names, and the weights are for 3 classes"):
        import_weights(file, "tsm_tiny", str(tmp_path / "b"), classes=str(names))


# Real weights, where they are.


@pytest.mark.slow
@pytest.mark.shared
def test_real_image_weights_are_imported_and_name_real_photos(shared: Path, tmp_path: Path) -> None:
    """The published file's own figure is 16 of these 20 photos; a photo is a folder of one frame."""
    from ssan.recognition.predict import predict

    file = shared / "weights" / "mobilenet_v2_imagenet_dequantized_torchvision.pth"
    released = import_weights(str(file), "tsn_mobilenet_v2", str(tmp_path), overrides=["num_frames=1"])
    assert (released.layout, len(released.classes), released.counters_set_to_zero) == ("torchvision", 1000, 0)
    labeller = load_labeller(tmp_path)
    num_right = 0
    for number, photo in enumerate(sorted((shared / "weights" / "photos").glob("n*.jpeg"))):
        folder = tmp_path / f"photo{number}"
        folder.mkdir()
        (folder / "00001.jpg").write_bytes(photo.read_bytes())
        num_right += predict(labeller, str(folder), top=1)["top"][0]["index"] == number
    assert num_right >= 14


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("base_model.conv1.weight", float("nan"), "values that are not finite"),
        ("new_fc.bias", float("inf"), "values that are not finite"),
        ("base_model.bn1.running_var", -1.0, "a negative variance"),
    ],
)
def test_values_that_no_network_can_have_are_refused_by_name(
    tmp_path: Path, name: str, value: float, words: str
) -> None:
    state = tiny_state()
    state[name].view(-1)[0] = value
    with pytest.raises(ModelError, match=f"the tensor '{name}' has {words}") as caught:
        import_weights(saved(tmp_path / "a.pth", state), "tsm_tiny", str(tmp_path))
    assert caught.value.code == "nan"
    assert not (tmp_path / "model.safetensors").exists()


def test_a_name_with_and_without_module_is_refused_by_it(tmp_path: Path) -> None:
    state = tiny_state()
    state["module.new_fc.bias"] = state["new_fc.bias"] + 1
    assert "two tensors have the name 'new_fc.bias'" in refused(saved(tmp_path / "a.pth", state), "tsm_tiny", tmp_path)
