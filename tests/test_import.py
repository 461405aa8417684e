"""Released weights: each toolkit's names, outputs of the toolkits' own networks, and what is refused.

``golden/released.json.gz`` was written by ``benchmarks/parity.py --golden`` from the toolkits' own networks: names and
shapes of their tensors, and outputs of small inputs. Weights are drawn again here, seeded with their names.
"""

import csv
import gzip
import json
import math
import os
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ssan.errors import ModelError, UsageError
from ssan.models.catalogue import build
from ssan.models.classifier import Classifier
from ssan.models.layouts import LAYOUTS, fit, names_in
from ssan.recognition.model_file import load_labeller
from ssan.recognition.released import import_weights, read_class_names
from ssan.training.checkpoint import read_model_file
from ssan.video.sampling import segment_indices

GOLDEN: dict[str, Any] = json.loads(gzip.decompress((Path(__file__).parent / "golden/released.json.gz").read_bytes()))
PLACED = [case for case, kept in GOLDEN.items() if kept["as"] is not None]
WITH_OUTPUTS = [case for case, kept in GOLDEN.items() if "logits" in kept]
REFUSED = [case for case, kept in GOLDEN.items() if kept["as"] is None]


def on_meta(name: str, num_classes: int) -> Classifier:
    with torch.device("meta"):
        return build(name, num_classes)


def drawn(case: str) -> dict[str, Tensor]:
    """The peer's tensors, by its names, as benchmarks/parity_peers.py drew them."""
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
            noise = noise * math.sqrt((2 if "mobilenet" in case else 1) / math.prod(shape[1:]))
        state[name] = torch.from_numpy(noise).float()
    return state


def empty(case: str) -> dict[str, Tensor]:
    """The peer's tensors without content."""
    kind = {True: torch.int64, False: torch.float32}
    return {
        name: torch.empty(shape, dtype=kind[name.endswith("num_batches_tracked")], device="meta")
        for name, shape in GOLDEN[case]["shapes"].items()
    }


# Names.


@pytest.mark.parametrize("case", PLACED)
def test_names_and_shapes_are_those_of_the_toolkits_own_network(case: str) -> None:
    layout, name = LAYOUTS[case.partition("-")[0]], GOLDEN[case]["as"]
    model = on_meta(name, 7)
    classifier = "base_model.fc." if case.endswith("without-dropout") else layout.classifiers[0]
    names = names_in(layout, model, classifier)
    assert names is not None
    assert len(set(names.values())) == len(names)
    assert {names[key]: list(t.shape) for key, t in model.state_dict().items()} == GOLDEN[case]["shapes"]


@pytest.mark.parametrize("case", PLACED)
def test_a_toolkits_network_fits_its_counterpart_by_its_own_layout_and_no_other_family(case: str) -> None:
    found = fit(empty(case), on_meta(GOLDEN[case]["as"], 7))
    assert found is not None
    assert (found.layout, found.num_wrong, found.counters) == (case.partition("-")[0], 0, [])
    family, _, backbone = GOLDEN[case]["as"].partition("_")
    other = fit(empty(case), on_meta(f"{'tsn' if family == 'tsm' else 'tsm'}_{backbone}", 7))
    assert other is not None
    assert len(other.missing) + len(other.counters) == len(other.unexpected) > 0
    assert all(".net." in name for name in (other.unexpected if family == "tsm" else other.missing))


@pytest.mark.parametrize("case", WITH_OUTPUTS)
def test_a_placed_network_scores_a_clip_as_the_toolkits_own_does(case: str) -> None:
    kept = GOLDEN[case]
    model = build(kept["as"], 7).eval()
    found = fit(drawn(case), model)
    assert found is not None
    model.load_state_dict(found.tensors)
    clip = torch.from_numpy(np.random.RandomState(zlib.crc32(b"clip")).standard_normal((1, 4, 3, 64, 64))).float()
    with torch.no_grad():
        torch.testing.assert_close(model(clip)[0], torch.tensor(kept["logits"]), rtol=0, atol=1e-4)


def test_an_image_networks_names_are_our_own_and_tell_of_no_shift() -> None:
    names = names_in(LAYOUTS["torchvision"], on_meta("tsn_r18", 7), "fc.")
    assert names is not None
    assert all(key.removeprefix("backbone.") == name for key, name in names.items())
    assert names_in(LAYOUTS["torchvision"], on_meta("tsm_r18", 7), "fc.") is None


@pytest.mark.parametrize(
    ("model", "places"),
    [("ssan_r18", {}), ("tsm_r18", {"slot": "after_conv1"})],
    ids=["attention", "shifts elsewhere"],
)
def test_networks_that_no_toolkit_has_are_in_no_layout(model: str, places: dict[str, Any]) -> None:
    with torch.device("meta"):
        network = build(model, 7, places=places)
    for layout in LAYOUTS.values():
        assert names_in(layout, network, layout.classifiers[0]) is None


# Files.


def tiny_state(model: str = "tsm_tiny", layout: str = "tsm", num_classes: int = 5) -> dict[str, Tensor]:
    """A small network's tensors by a layout's names, every value random."""
    network = build(model, num_classes)
    names = names_in(LAYOUTS[layout], network, LAYOUTS[layout].classifiers[0])
    assert names is not None
    return {
        names[key]: torch.rand_like(tensor) + 0.5 if tensor.is_floating_point() else tensor + 3
        for key, tensor in network.state_dict().items()
    }


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


@pytest.mark.parametrize("layout", list(LAYOUTS))
def test_the_layout_is_found_and_how_it_averages_views_is_kept(layout: str, tmp_path: Path) -> None:
    file = saved(tmp_path / "x.pth", tiny_state("tsn_tiny", layout))
    assert import_weights(file, "tsn_tiny", str(tmp_path)).layout == layout
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


def test_numbers_of_another_kind_are_refused(tmp_path: Path) -> None:
    state = tiny_state()
    state["base_model.conv1.weight"] = state["base_model.conv1.weight"].to(torch.int64)
    said = refused(saved(tmp_path / "a.pth", state), "tsm_tiny", tmp_path)
    assert "1 of another shape (base_model.conv1.weight (int64 for 16x3x7x7))" in said


def test_a_file_of_another_network_is_told_which_it_is(tmp_path: Path) -> None:
    said = refused(saved(tmp_path / "a.pth", tiny_state("tsn_tiny", "mmaction2")), "tsm_tiny", tmp_path)
    assert "3 not in the file (backbone.layer1.0.conv1.conv.net.weight, backbone.layer2.0.conv1.conv.net.weight" in said
    assert said.endswith("It fits tsn_tiny; import it with --as tsn_tiny")
    said = refused(saved(tmp_path / "b.pth", tiny_state("tsn_tiny", "torchvision")), "ssan_tiny", tmp_path)
    assert said.startswith("no file of torchvision, tsm, mmaction2 holds a network such as ssan_tiny. It fits tsn_tiny")


@pytest.mark.parametrize(
    ("case", "part"), [(c, "a relation head (TRN)" if "trn" in c else "non-local blocks") for c in REFUSED]
)
def test_what_cannot_be_imported_is_named(case: str, part: str, tmp_path: Path) -> None:
    state = {name: torch.zeros(()).expand(tensor.shape) for name, tensor in empty(case).items()}
    said = refused(saved(tmp_path / "a.pth", state), "tsm_r50", tmp_path)
    assert f"It has {part}, which cannot be imported" in said


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
