"""Weights from elsewhere: read without executing anything, matched key by key, every key accounted for."""

import argparse
import os
import pickle
import struct
import sys
import tracemalloc
import urllib.error
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from ssan.errors import ModelError
from ssan.models.catalogue import build
from ssan.models.classifier import Classifier
from ssan.video.preprocess import center_box, resize_frames, resize_rule
from ssan.weights.named import IMAGENET_FILES
from ssan.weights.state_dict import imagenet_file, load_backbone, read_state_dict

TENSORS = {"conv1.weight": torch.randn(2, 3), "bn1.running_mean": torch.randn(2), "steps": torch.tensor(7)}


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert set(found) == set(expected)
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name


# Reading.


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".tar"])
def test_a_torch_file_of_tensors_is_read(tmp_path: Path, suffix: str) -> None:
    torch.save(TENSORS, tmp_path / f"w{suffix}")
    assert_same(read_state_dict(tmp_path / f"w{suffix}"), TENSORS)
    assert_same(read_state_dict(str(tmp_path / f"w{suffix}")), TENSORS)


def test_a_torch_file_of_the_older_format_is_read(tmp_path: Path) -> None:
    torch.save(TENSORS, tmp_path / "w.pth", _use_new_zipfile_serialization=False)
    assert_same(read_state_dict(tmp_path / "w.pth"), TENSORS)


def test_a_safetensors_file_is_read(tmp_path: Path) -> None:
    save_file(TENSORS, tmp_path / "w.safetensors")
    assert_same(read_state_dict(tmp_path / "w.safetensors"), TENSORS)


@pytest.mark.parametrize("wrapper", ["state_dict", "model"])
def test_tensors_beside_other_things_of_a_run_are_found(tmp_path: Path, wrapper: str) -> None:
    content = {"epoch": 3, "arch": "resnet50", wrapper: {f"module.{name}": t for name, t in TENSORS.items()}}
    torch.save(content, tmp_path / "w.pth")
    assert_same(read_state_dict(tmp_path / "w.pth"), TENSORS)


def test_module_is_taken_off_at_the_front_alone(tmp_path: Path) -> None:
    torch.save({"module.a": torch.zeros(1), "b.module.c": torch.ones(1)}, tmp_path / "w.pth")
    assert set(read_state_dict(tmp_path / "w.pth")) == {"a", "b.module.c"}
    save_file({"module.a": torch.zeros(1)}, tmp_path / "w.safetensors")
    assert set(read_state_dict(tmp_path / "w.safetensors")) == {"a"}


class RunsCode:
    """Unpickled without care, it writes the marker file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, ...]:
        return os.system, (f"echo executed > '{self.marker}'",)


@pytest.mark.parametrize("kind", ["pickle", "torch", "torch, older format", "within a state dict"])
def test_a_file_that_would_execute_code_is_refused_and_executes_none(tmp_path: Path, kind: str) -> None:
    path, marker = tmp_path / "w.pth", tmp_path / "marker"
    attack = RunsCode(marker)
    if kind == "pickle":
        path.write_bytes(pickle.dumps(attack))
    elif kind == "within a state dict":
        torch.save({"state_dict": {**TENSORS, "x": attack}}, path)
    else:
        torch.save(attack, path, _use_new_zipfile_serialization=kind == "torch")
    with pytest.raises(ModelError, match=r"files that need code to be executed are refused\. Convert it to") as caught:
        read_state_dict(path)
    assert not marker.exists()
    assert caught.value.code == "wrong_model"
    assert caught.value.path == str(path)
    # The attack is a real one: without care it succeeds.
    torch.load(path, weights_only=False) if kind != "pickle" else pickle.loads(path.read_bytes())
    assert marker.exists()


def test_what_a_checkpoint_says_of_its_run_is_passed_over(tmp_path: Path) -> None:
    accuracy = np.float64(45.6)
    content = {"best_prec1": accuracy, "curve": np.ones(3), "args": argparse.Namespace(lr=np.float32(0.1)), "epoch": 3}
    torch.save({**content, "state_dict": TENSORS}, tmp_path / "w.pth.tar")
    assert_same(read_state_dict(tmp_path / "w.pth.tar"), TENSORS)
    # As numpy before its version 2 wrote it; in the older format names stand in the file as they are.
    torch.save({**content, "state_dict": TENSORS}, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    old = (tmp_path / "old.pth").read_bytes()
    if b"numpy._core.multiarray\n" in old:
        old = old.replace(b"numpy._core.multiarray\n", b"numpy.core.multiarray\n")
    assert b"numpy.core.multiarray\nscalar" in old
    assert_same(read_state_dict(as_file(tmp_path / "old.pth", old)), TENSORS)


def test_a_curve_of_mmengine_is_passed_over_without_mmengine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its class need not be there; its state names methods, which are not looked up."""

    class HistoryBuffer:
        def mean(self) -> None: ...

    class Method:
        def __reduce__(self) -> tuple[object, ...]:
            return getattr, (HistoryBuffer, "mean")

    module = ModuleType("mmengine.logging.history_buffer")
    HistoryBuffer.__module__, HistoryBuffer.__qualname__ = module.__name__, "HistoryBuffer"
    module.HistoryBuffer = HistoryBuffer  # type: ignore[attr-defined]
    buffer = HistoryBuffer()
    vars(buffer).update(_log_history=np.ones(2), _statistics_methods={"mean": Method()})
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "mmengine", ModuleType("mmengine"))
        patch.setitem(sys.modules, "mmengine.logging", ModuleType("mmengine.logging"))
        patch.setitem(sys.modules, module.__name__, module)
        torch.save({"message_hub": {"loss": buffer}, "state_dict": TENSORS}, tmp_path / "w.pth")
    assert_same(read_state_dict(tmp_path / "w.pth"), TENSORS)
    assert "mmengine" not in sys.modules


def test_what_is_passed_over_is_no_tensor(tmp_path: Path) -> None:
    torch.save({"state_dict": {**TENSORS, "x": np.ones(3)}}, tmp_path / "w.pth")
    with pytest.raises(ModelError, match="holds no tensors by name"):
        read_state_dict(tmp_path / "w.pth")


class CallsWhatItIsGiven:
    """Looks a function up in a class that may be named, and calls it: ``getattr(Namespace, ...)(...)``."""

    def __reduce__(self) -> tuple[object, ...]:
        return Looked(), ()


class Looked:
    def __reduce__(self) -> tuple[object, ...]:
        return getattr, (argparse.Namespace, "__init__")

    def __call__(self) -> None: ...


def test_what_is_passed_over_cannot_be_called(tmp_path: Path) -> None:
    torch.save({"state_dict": TENSORS, "x": CallsWhatItIsGiven()}, tmp_path / "w.pth")
    with pytest.raises(ModelError, match="cannot be read as plain tensors"):
        read_state_dict(tmp_path / "w.pth")


def test_an_object_that_would_need_its_code_is_named(tmp_path: Path) -> None:
    torch.save({"state_dict": TENSORS, "x": torch.nn.Linear(1, 1)}, tmp_path / "w.pth")
    with pytest.raises(ModelError, match=r"\(it contains torch\.nn\.modules\.linear\.Linear\); files that need code"):
        read_state_dict(tmp_path / "w.pth")


def as_file(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def test_a_missing_file_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such weights file") as caught:
        read_state_dict(tmp_path / "w.pth")
    assert caught.value.code == "missing"
    with pytest.raises(ModelError, match="no such weights file"):
        read_state_dict(tmp_path)  # a folder


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"hello, these are not weights",
        b"the first letter of a text is an instruction to the unpickler, and each letter another",
        b"Query: where are the weights?\nhere\n",
        b"PK\x03\x04 and no more",
        b"\x80\x02",
        bytes(range(256)),
    ],
)
def test_a_file_of_something_else_is_refused_by_name(tmp_path: Path, suffix: str, content: bytes) -> None:
    path = as_file(tmp_path / f"w{suffix}", content)
    with pytest.raises(ModelError) as caught:
        read_state_dict(path)
    assert caught.value.code == "wrong_model"
    assert caught.value.path == str(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("form", ["torch", "torch, older format", "safetensors"])
def test_a_file_cut_short_anywhere_is_refused(tmp_path: Path, form: str) -> None:
    path = tmp_path / ("w.safetensors" if form == "safetensors" else "w.pth")
    if form == "safetensors":
        save_file(TENSORS, path)
    else:
        torch.save(TENSORS, path, _use_new_zipfile_serialization=form == "torch")
    whole = path.read_bytes()
    for length in range(0, len(whole), max(1, len(whole) // 60)):
        with pytest.raises(ModelError):
            read_state_dict(as_file(path, whole[:length]))


@pytest.mark.parametrize(
    "content",
    [{}, [], 3, torch.zeros(2), {"a": 1}, {"a": 1, "b": torch.ones(1)}, {"state_dict": {}}, {"state_dict": {"a": 1}}],
)
def test_a_file_without_tensors_by_name_is_refused(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(ModelError, match="holds no tensors by name; expected a state dict"):
        read_state_dict(tmp_path / "w.pth")


def test_an_empty_safetensors_file_is_refused(tmp_path: Path) -> None:
    save_file({}, tmp_path / "w.safetensors")
    with pytest.raises(ModelError, match="holds no tensors by name"):
        read_state_dict(tmp_path / "w.safetensors")


@pytest.mark.parametrize(
    "tensor",
    [
        torch.eye(3).to_sparse(),
        torch.zeros(3, device="meta"),
        torch.zeros(3, dtype=torch.complex64),
    ],
    ids=["sparse", "without content", "complex"],
)
def test_a_tensor_that_is_not_plain_numbers_is_refused_by_name(tmp_path: Path, tensor: Tensor) -> None:
    torch.save({**TENSORS, "strange": tensor}, tmp_path / "w.pth")
    with pytest.raises(ModelError, match="the tensor 'strange' is sparse, quantized") as caught:
        read_state_dict(tmp_path / "w.pth")
    assert caught.value.code == "wrong_model"


# Files that promise more than they hold.


def repacked(path: Path, change: Callable[[str, bytes], bytes], how: int = zipfile.ZIP_STORED) -> Path:
    """A torch file whose members are written anew."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", how) as archive:
        for name, content in members.items():
            archive.writestr(name, change(name, content))
    return path


def test_a_member_that_unpacks_to_gigabytes_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    torch.save(TENSORS, tmp_path / "w.pth")
    with zipfile.ZipFile(tmp_path / "w.pth") as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(tmp_path / "w.pth", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, content in members.items():
            if name.endswith("data.pkl"):
                with archive.open(name, "w", force_zip64=True) as member:
                    for _ in range(64):
                        member.write(bytes(1 << 20))
            else:
                archive.writestr(name, content)
    tracemalloc.start()
    try:
        with pytest.raises(ModelError, match=r"the member 'w/data\.pkl' is packed, which torch does not do"):
            read_state_dict(tmp_path / "w.pth")
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()


def test_members_that_say_they_are_larger_than_the_file_are_refused(tmp_path: Path) -> None:
    torch.save(TENSORS, tmp_path / "w.pth")
    path = repacked(tmp_path / "w.pth", lambda name, content: content)
    whole = bytearray(path.read_bytes())
    entry = whole.index(b"PK\x01\x02")
    whole[entry + 20 : entry + 28] = struct.pack("<II", 1 << 31, 1 << 31)
    with pytest.raises(ModelError, match="its members are said to be larger than the file"):
        read_state_dict(as_file(path, bytes(whole)))


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(
    ("tensor", "words"),
    [
        (
            torch.zeros(1).expand(2_000_000_000, 2048),
            "a tensor of 2000000000x2048 numbers, larger than its storage of 1",
        ),
        (torch.zeros(1).expand(2), "a tensor of 2 numbers, larger than its storage of 1"),
        (torch.arange(4.0).as_strided((2, 3), (1, 1)), "a tensor of 2x3 numbers, larger than its storage of 4"),
    ],
)
def test_a_tensor_larger_than_its_storage_is_refused(tmp_path: Path, tensor: Tensor, words: str, zipped: bool) -> None:
    torch.save({**TENSORS, "wide": tensor}, tmp_path / "w.pth", _use_new_zipfile_serialization=zipped)
    with pytest.raises(ModelError, match=words):
        read_state_dict(tmp_path / "w.pth")


@pytest.mark.parametrize("change", [(b"K\x02K\x03", b"K\x02K\x09"), (b"K\x00K\x02K\x03", b"K\x09K\x02K\x03")])
def test_a_tensor_that_reaches_out_of_its_storage_is_refused(tmp_path: Path, change: tuple[bytes, bytes]) -> None:
    torch.save(TENSORS, tmp_path / "w.pth")
    path = repacked(tmp_path / "w.pth", lambda name, content: content.replace(*change, 1))
    with pytest.raises(ModelError, match=r"a tensor of .* numbers, larger than its storage of 6"):
        read_state_dict(path)


def test_two_tensors_of_one_name_are_refused_by_it(tmp_path: Path) -> None:
    torch.save({"module.a": torch.zeros(1), "a": torch.ones(1)}, tmp_path / "w.pth")
    with pytest.raises(ModelError, match=r"two tensors have the name 'a' once `module\.` is taken off"):
        read_state_dict(tmp_path / "w.pth")


KINDS = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16,
         torch.int8, torch.uint8, torch.bool, torch.float8_e4m3fn, torch.uint16]  # fmt: skip


@pytest.mark.parametrize("zipped", [True, False])
def test_tensors_of_any_kind_and_layout_are_those_that_torch_itself_reads(tmp_path: Path, zipped: bool) -> None:
    whole = torch.randn(4, 6, 5)
    content = {
        # torch itself does not read the last two from its older format.
        **{str(kind): (torch.rand(3, 2) * 100).to(kind) for kind in KINDS[: None if zipped else -2]},
        "view": whole[1:3, ::2],
        "turned": whole.transpose(0, 2),
        "last in memory": torch.randn(1, 3, 4, 4).to(memory_format=torch.channels_last),
        "shared": whole,
        "empty": torch.zeros(0, 3),
        "one": torch.tensor(3.5),
        "parameter": torch.nn.Parameter(torch.randn(2)),
        "frozen": torch.nn.Parameter(torch.randn(2), requires_grad=False),
    }
    marked = torch.nn.Parameter(torch.randn(2))
    marked.told = "so"  # type: ignore[attr-defined]
    content["marked"] = marked
    torch.save(OrderedDict(content), tmp_path / "w.pth", _use_new_zipfile_serialization=zipped)
    expected, found = torch.load(tmp_path / "w.pth", weights_only=True), read_state_dict(tmp_path / "w.pth")
    assert list(found) == list(expected)
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype
        assert found[name].stride() == tensor.stride() or not tensor.numel()
        assert found[name].contiguous().view(-1).view(torch.uint8).tolist() == (
            tensor.detach().contiguous().view(-1).view(torch.uint8).tolist()
        ), name


def test_what_stands_in_a_whole_network_and_its_optimizer_is_read(tmp_path: Path) -> None:
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 2, 1), torch.nn.BatchNorm2d(2))
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    network(torch.randn(2, 3, 4, 4)).sum().backward()
    optimizer.step()
    beside = {"optimizer": optimizer.state_dict(), "size": torch.Size([3]), "kind": torch.float32, "on": {1, 2},
              "where": torch.device("cpu"), "raw": b"\0\xff", "text": "\u00e9", "empty": (), "random":
              torch.get_rng_state()}  # fmt: skip
    for zipped in (True, False):
        torch.save(
            {"state_dict": network.state_dict(), **beside}, tmp_path / "w.pth", _use_new_zipfile_serialization=zipped
        )
        assert_same(read_state_dict(tmp_path / "w.pth"), network.state_dict())


# Loading into a model.


def image_weights(backbone: str, num_classes: int = 1000) -> dict[str, Tensor]:
    """An image network's state dict with torchvision's names; all values random, so that each can be recognised."""
    head = "classifier.1." if backbone == "mobilenet_v2" else "fc."
    return {
        key.removeprefix("backbone.").replace("fc.", head): torch.rand_like(tensor) if tensor.dim() else tensor
        for key, tensor in build(f"tsn_{backbone}", num_classes).state_dict().items()
    }


def check_backbone_came_from(model: Classifier, state: dict[str, Tensor]) -> None:
    own = model.backbone.state_dict()
    names = [name for name in state if not name.startswith(("fc.", "classifier."))]
    assert len(names) > 50
    for name in names:
        assert torch.equal(own[name], state[name]), name


@pytest.mark.slow
@pytest.mark.parametrize("backbone", ["r18", "mobilenet_v2"])
def test_image_weights_leave_only_attention_and_classifier_missing(backbone: str) -> None:
    model, state = build(f"ssan_{backbone}", 7), image_weights(backbone)
    fc = model.fc.weight.clone()
    report = load_backbone(model, state, source="w.pth")
    assert report.unexpected == []
    assert report.reshaped == ["fc.weight", "fc.bias"]
    slot = "after_projection" if backbone == "mobilenet_v2" else "after_conv1"
    in_slots = [key for key in report.missing if f".{slot}." in key]
    assert set(report.missing) == {*in_slots, "fc.weight", "fc.bias"}
    assert set(in_slots) == {key for key in model.state_dict() if f".{slot}." in key}
    assert report.matched == len(state) - 2 == len(model.state_dict()) - len(report.missing)
    check_backbone_came_from(model, state)
    assert torch.equal(model.fc.weight, fc)
    assert report.as_dict() == {
        "matched": report.matched, "missing": report.missing, "unexpected": [], "reshaped": ["fc.weight", "fc.bias"],
        "classes_taken": 0, "lost": [], "inflated": 0,
    }  # fmt: skip


CLASSES = ["ask", "bend", "clap", "dive", "eat", "fall", "give"]


@pytest.mark.slow
@pytest.mark.parametrize("backbone", ["r18", "mobilenet_v2"])
def test_a_classifier_of_the_same_classes_is_loaded_too(backbone: str) -> None:
    model, state = build(f"tsm_{backbone}", 7), image_weights(backbone, 7)
    report = load_backbone(model, state, source="w.pth", classes=CLASSES, of_file=CLASSES)
    assert (report.missing, report.unexpected, report.reshaped) == ([], [], [])
    assert (report.matched, report.classes_taken) == (len(model.state_dict()), 7)
    check_backbone_came_from(model, state)
    assert torch.equal(model.fc.weight, state["classifier.1.weight" if backbone == "mobilenet_v2" else "fc.weight"])


@pytest.mark.slow
def test_a_classifier_of_as_many_classes_of_other_or_unknown_names_is_not_loaded() -> None:
    state = image_weights("r18", 7)
    for of_file in ([], [name.upper() for name in CLASSES]):
        model = build("tsn_r18", 7)
        before = model.fc.weight.clone()
        report = load_backbone(model, state, source="w.pth", classes=CLASSES, of_file=of_file)
        assert report.missing == ["fc.weight", "fc.bias"]
        assert report.classes_taken == 0
        assert torch.equal(model.fc.weight, before)


@pytest.mark.slow
def test_a_classifier_of_the_same_classes_in_another_order_is_loaded_class_by_class() -> None:
    model, state, order = build("tsn_r18", 7), image_weights("r18", 7), [3, 0, 6, 1, 5, 2, 4]
    report = load_backbone(model, state, source="w", classes=CLASSES, of_file=[CLASSES[row] for row in order])
    assert (report.missing, report.classes_taken) == ([], 7)
    for row, index in enumerate(order):
        assert torch.equal(model.fc.weight[index], state["fc.weight"][row])
        assert torch.equal(model.fc.bias[index], state["fc.bias"][row])


@pytest.mark.parametrize("family", ["tsn", "trn"])
def test_of_a_classifier_of_some_of_the_classes_those_are_loaded_and_the_others_start_at_random(family: str) -> None:
    state = build(f"{family}_tiny", 3, num_frames=3).state_dict()
    state = {name: torch.rand_like(tensor) if tensor.dim() else tensor for name, tensor in state.items()}
    model = build(f"{family}_tiny", 4, num_frames=3)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    report = load_backbone(model, state, source="w", classes=["a", "b", "c", "d"], of_file=["d", "x", "b"])
    by_class = [name for name in state if name.startswith("fc." if family == "tsn" else "consensus.score.")]
    assert report.missing == report.reshaped == by_class
    assert report.classes_taken == 2
    for name in by_class:
        rows = model.state_dict()[name]
        assert torch.equal(rows[1], state[name][2])
        assert torch.equal(rows[3], state[name][0])
        assert torch.equal(rows[[0, 2]], before[name][[0, 2]])


@pytest.mark.slow
def test_attention_that_starts_as_the_identity_leaves_the_image_network_as_it_was() -> None:
    state = image_weights("r18", 7)
    plain = build("tsn_r18", 7).eval()
    attentive = build("ssan_r18", 7, layer_options={"identity_start": True}).eval()
    clips = torch.randn(1, 2, 3, 32, 32)
    with torch.no_grad():
        for model in (plain, attentive):
            load_backbone(model, state, source="w.pth", classes=CLASSES, of_file=CLASSES)
        assert torch.equal(plain(clips), attentive(clips))


def test_a_model_of_an_earlier_run_gives_its_attention_too_and_keeps_only_its_classifier() -> None:
    earlier, later = build("ssan_tiny", 4), build("ssan_tiny", 7, layer_options={"identity_start": True})
    report = load_backbone(later, earlier.state_dict(), source="model.safetensors")
    assert report.missing == report.reshaped == ["fc.weight", "fc.bias"]
    assert report.unexpected == []
    theta = "backbone.layer1.0.after_conv1.theta.weight"
    assert torch.equal(later.state_dict()[theta], earlier.state_dict()[theta])
    assert torch.equal(later.backbone.layer1[0].after_conv1.norm.weight, torch.ones(16))


@pytest.mark.slow
def test_image_weights_leave_relations_at_random_and_those_of_an_earlier_run_are_loaded_where_they_fit() -> None:
    model = build("trn_r18", 7, num_frames=3)
    report = load_backbone(model, image_weights("r18"), source="w.pth")
    own = [key for key in model.state_dict() if key.startswith(("consensus.", "fc."))]
    assert report.missing == own
    assert report.unexpected == []
    earlier, later = build("trn_tiny", 4, num_frames=3), build("trn_tiny", 7, num_frames=3)
    report = load_backbone(later, earlier.state_dict(), source="model.safetensors")
    assert (
        report.missing
        == report.reshaped
        == [f"consensus.score.{scale}.{kind}" for scale in range(2) for kind in ("weight", "bias")]
    )
    assert report.unexpected == []
    for key in ("fc.weight", "consensus.fuse.1.weight"):
        assert torch.equal(later.state_dict()[key], earlier.state_dict()[key])


@pytest.mark.slow
def test_old_files_without_counters_and_files_without_a_classifier_are_taken() -> None:
    state = {
        name: tensor
        for name, tensor in image_weights("r18").items()
        if not name.endswith("num_batches_tracked") and not name.startswith("fc.")
    }
    model = build("tsn_r18", 7)
    report = load_backbone(model, state, source="w.pth")
    assert report.reshaped == report.unexpected == []
    assert {key.rsplit(".", 1)[-1] for key in report.missing} == {"num_batches_tracked", "weight", "bias"}
    assert len([key for key in report.missing if key.startswith("fc.")]) == 2
    check_backbone_came_from(model, state)


@pytest.mark.slow
def test_keys_of_something_beside_the_network_are_told_and_do_no_harm() -> None:
    state = image_weights("r18")
    model = build("tsn_r18", 7)
    report = load_backbone(model, {**state, "projector.0.weight": torch.zeros(3)}, source="w.pth")
    assert report.unexpected == ["projector.0.weight"]
    check_backbone_came_from(model, state)


def test_layers_that_the_model_has_no_place_for_are_told_and_do_no_harm() -> None:
    """The backbone of an attentive network is still that backbone."""
    state = {key.removeprefix("backbone."): tensor for key, tensor in build("ssan_tiny", 7).state_dict().items()}
    model = build("tsn_tiny", 7)
    report = load_backbone(model, state, source="w.pth")
    assert report.unexpected == report.lost == [key for key in state if ".after_conv1." in key] != []
    assert report.missing == ["fc.weight", "fc.bias"]


def test_layers_of_another_width_keep_their_start_and_count_as_lost() -> None:
    state = build("ssan_tiny", 7, layer_options={"embedding": 5}).state_dict()
    model = build("ssan_tiny", 7)
    before = model.state_dict()["backbone.layer1.0.after_conv1.theta.weight"].clone()
    report = load_backbone(model, state, source="w.pth")
    assert set(report.lost) == {key for key in report.reshaped if ".after_conv1." in key} != set()
    assert torch.equal(model.state_dict()["backbone.layer1.0.after_conv1.theta.weight"], before)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("given", "wanted", "message"),
    [
        # The blocks of 50 begin with a 1x1, and have a third convolution.
        (
            "r50",
            "r18",
            r"23 of 122 keys do not fit, first backbone\.layer1\.0\.conv1\.weight \(\(64, 64, 1, 1\) for \(64,",
        ),
        (
            "r50",
            "r18",
            r"; 198 keys are not known here, first layer1\.0\.conv3\.weight\. Give the file of the backbone",
        ),
        (
            "mobilenet_v2",
            "r18",
            r"100 of 122 keys do not fit, first backbone\.conv1\.weight \(missing\); 312 keys are not",
        ),
        # 34 has all that 18 has, and eight blocks more: twelve keys each, two of them counters that may be missing.
        (
            "r18",
            "r34",
            r"80 of 218 keys do not fit, first backbone\.layer1\.2\.conv1\.weight \(missing\); 0 keys are not",
        ),
        ("r34", "r18", r"0 of 122 keys do not fit; 96 keys are not known here, first layer1\.2\.conv1\.weight"),
    ],
)
def test_another_networks_weights_are_refused_and_nothing_is_changed(given: str, wanted: str, message: str) -> None:
    model = build(f"tsn_{wanted}", 7)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(ModelError, match=r"these are another network's weights: .*" + message) as caught:
        load_backbone(model, image_weights(given), source="w.pth")
    assert caught.value.code == "wrong_model"
    assert caught.value.path == "w.pth"
    assert_same(model.state_dict(), before)


@pytest.mark.slow
def test_one_backbone_tensor_of_another_shape_is_enough_to_refuse() -> None:
    state = image_weights("r18")
    state["layer4.1.bn2.running_var"] = torch.ones(3)
    with pytest.raises(ModelError, match=r"1 of \d+ keys do not fit, .*layer4\.1\.bn2\.running_var \(\(3,\) for"):
        load_backbone(build("ssan_r18", 7), state, source="w.pth")


# ImageNet by name.


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    return tmp_path / "hub" / "checkpoints"


@pytest.mark.parametrize("problem", [urllib.error.URLError("no route to host"), OSError("disk"), RuntimeError("hash")])
def test_without_a_network_it_is_said_what_to_put_where(
    hub: Path, monkeypatch: pytest.MonkeyPatch, problem: Exception
) -> None:
    def fail(*args: object, **options: object) -> None:
        raise problem

    monkeypatch.setattr(torch.hub, "download_url_to_file", fail)
    with pytest.raises(ModelError) as caught:
        imagenet_file("r50")
    message = str(caught.value)
    assert "https://download.pytorch.org/models/resnet50-0676ba61.pth" in message
    assert "--init FILE" in message
    assert str(hub / "resnet50-0676ba61.pth") in message
    assert str(problem) in message
    assert caught.value.code == "missing"


def test_a_cache_that_cannot_be_made_is_said_too(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.parent.write_text("a file where the folder should be")
    monkeypatch.setattr(torch.hub, "download_url_to_file", lambda *a, **o: pytest.fail("went on"))
    with pytest.raises(ModelError, match="could not be fetched"):
        imagenet_file("r50")


def test_a_file_is_fetched_once_with_its_hash_and_then_taken_from_the_cache(
    hub: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, str]] = []

    def fetch(url: str, path: str, hash_prefix: str, progress: bool) -> None:
        asked.append((url, hash_prefix))
        torch.save(TENSORS, path)

    monkeypatch.setattr(torch.hub, "download_url_to_file", fetch)
    for _ in range(3):
        path = imagenet_file("mobilenet_v2")
        assert path == hub / "mobilenet_v2-b0353104.pth"
        assert_same(read_state_dict(path), TENSORS)
    assert asked == [("https://download.pytorch.org/models/mobilenet_v2-b0353104.pth", "b0353104")]


def test_published_files_are_those_of_torchvisions_first_version() -> None:
    assert IMAGENET_FILES == {
        "r18": "resnet18-f37072fd.pth",
        "r34": "resnet34-b627a593.pth",
        "r50": "resnet50-0676ba61.pth",
        "r101": "resnet101-63fe2227.pth",
        "r152": "resnet152-394f9c45.pth",
        "mobilenet_v2": "mobilenet_v2-b0353104.pth",
    }


def test_a_backbone_without_published_weights_is_named(hub: Path) -> None:
    with pytest.raises(ModelError, match=r"no published ImageNet weights for the backbone 'tiny'; known: r18, r34"):
        imagenet_file("tiny")


# Real weights, where they are.

# ImageNet's classes are numbered in the order of these names' numbers, and these are its first twenty.
FIRST_CLASSES = [
    "tench", "goldfish", "great_white_shark", "tiger_shark", "hammerhead", "electric_ray", "stingray", "cock", "hen",
    "ostrich", "brambling", "goldfinch", "house_finch", "junco", "indigo_bunting", "robin", "bulbul", "jay", "magpie",
    "chickadee",
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.shared
def test_real_image_weights_name_real_photos(shared: Path) -> None:
    """A photo is a clip of one frame. The file's own figure is 16 of 20 right; another resize may cost one or two."""
    import simplejpeg

    state = read_state_dict(shared / "weights" / "mobilenet_v2_imagenet_dequantized_torchvision.pth")
    report = load_backbone(build("ssan_mobilenet_v2", 174), state, source="file")
    assert report.unexpected == []
    assert report.reshaped == ["fc.weight", "fc.bias"]
    assert all(".after_projection." in key for key in report.missing if not key.startswith("fc."))

    model = build("tsn_mobilenet_v2", 1000).eval()
    names = [str(number) for number in range(1000)]
    assert load_backbone(model, state, source="file", classes=names, of_file=names).missing == []
    photos = sorted((shared / "weights" / "photos").glob("n*.jpeg"))
    assert len(photos) == 20
    num_right = 0
    for number, photo in enumerate(photos):
        assert photo.stem.split("_", 1)[1] == FIRST_CLASSES[number]
        pixels = simplejpeg.decode_jpeg(photo.read_bytes())
        frame = torch.from_numpy(pixels).permute(2, 0, 1).unsqueeze(0)
        frame = resize_frames(frame, *resize_rule("short_side", 256)(*frame.shape[-2:]))
        frame = center_box(*frame.shape[-2:], 224).of(frame)
        with torch.no_grad():
            num_right += int(model(frame.unsqueeze(0)).argmax()) == number
    assert num_right >= 14
