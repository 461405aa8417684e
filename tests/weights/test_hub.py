"""Video networks of the transformers library, tiny and random, beside the library's own forward on the same pixels."""

import hashlib
import json
import shutil
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from ssan.errors import ModelError, UsageError
from ssan.weights.hub import KINDS, open_transformers
from ssan.weights.hub_files import fetch_from_hub
from ssan.weights.processors import DEFAULTS, read_processor

transformers = pytest.importorskip("transformers", reason="transformers is not installed")

CLASSES = ["wave", "clap", "jump", "sit down", "turn"]
SIZES = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 20}
PLANE = {"image_size": 32, "patch_size": 8, "num_frames": 4}
VJEPA2 = {
    "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "crop_size": 32, "patch_size": 8,
    "frames_per_clip": 4, "pred_hidden_size": 24, "pred_num_attention_heads": 2, "pred_num_hidden_layers": 1,
    "num_pooler_layers": 1,
}  # fmt: skip
VIVIT = {**SIZES, "image_size": 32, "num_frames": 4, "tubelet_size": [2, 8, 8]}
XCLIP = {
    "text_config": {"hidden_size": 12, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2,
                    "vocab_size": 20, "max_position_embeddings": 8},
    "vision_config": {**SIZES, **PLANE, "mit_hidden_size": 16, "mit_intermediate_size": 8,
                      "mit_num_attention_heads": 2},
    "projection_dim": 16, "prompt_num_attention_heads": 2,
}  # fmt: skip
DECODER = {"decoder_hidden_size": 12, "decoder_num_attention_heads": 2, "decoder_intermediate_size": 12,
           "decoder_num_hidden_layers": 1}  # fmt: skip
# By architecture: the class of its configuration, and how small it is here.
TINY: dict[str, tuple[str, dict[str, Any]]] = {
    "VideoMAEForVideoClassification": ("VideoMAEConfig", {**SIZES, **PLANE}),
    "VideoMAEModel": ("VideoMAEConfig", {**SIZES, **PLANE, "use_mean_pooling": False}),
    "VideoMAEForPreTraining": ("VideoMAEConfig", {**SIZES, **PLANE, **DECODER}),
    "TimesformerForVideoClassification": ("TimesformerConfig", {**SIZES, **PLANE}),
    "TimesformerModel": ("TimesformerConfig", {**SIZES, **PLANE}),
    "VivitForVideoClassification": ("VivitConfig", VIVIT),
    "VivitModel": ("VivitConfig", VIVIT),
    "VJEPA2ForVideoClassification": ("VJEPA2Config", VJEPA2),
    "VJEPA2Model": ("VJEPA2Config", VJEPA2),
    "XCLIPModel": ("XCLIPConfig", XCLIP),
}
CLASSIFIERS = [name for name, kind in KINDS.items() if kind.has_classes]
MEAN, STD = [0.45, 0.4, 0.5], [0.2, 0.25, 0.3]
PROCESSOR = {
    "size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}, "image_mean": MEAN, "image_std": STD,
}  # fmt: skip


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A tiny network of each architecture, as the library saves it."""
    made = {}
    for name, (config, sizes) in TINY.items():
        torch.manual_seed(len(made) + 1)
        labels = {"id2label": dict(enumerate(CLASSES))} if name in CLASSIFIERS else {}
        network = getattr(transformers, name)(getattr(transformers, config)(**sizes, **labels))
        with torch.no_grad():  # what the library begins at zero would hide what is added to it
            for parameter in network.parameters():
                parameter.add_(0.05 * torch.randn(parameter.shape))
        made[name] = tmp_path_factory.mktemp(name)
        network.save_pretrained(made[name])
        (made[name] / "preprocessor_config.json").write_text(json.dumps(PROCESSOR))
    return made


@pytest.fixture
def folder(folders: dict[str, Path], tmp_path: Path) -> Callable[..., Path]:
    """A copy of one of them, in which words of its files are others; None leaves a word out."""

    def copy(name: str, config: dict[str, Any] | None = None, processor: dict[str, Any] | None = None) -> Path:
        to = tmp_path / f"{name}-{len(list(tmp_path.iterdir()))}"
        shutil.copytree(folders[name], to)
        for file, words in (("config.json", config), ("preprocessor_config.json", processor)):
            said = {**json.loads((to / file).read_text()), **(words or {})}
            (to / file).write_text(json.dumps({word: value for word, value in said.items() if value is not None}))
        return to

    return copy


def _clips(num_frames: int = 4, seed: int = 7) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (3, num_frames, 3, 32, 32), dtype=torch.uint8, generator=generator)


def _processed(name: str, folder: Path, clips: Tensor) -> Tensor:
    """Clips through the library's own processor; V-JEPA 2's needs torchvision, and is worked by hand."""
    if name.startswith("VJEPA2"):
        pixels = clips.double().numpy() / 255
        shape = (1, 1, 3, 1, 1)
        return torch.from_numpy((pixels - np.array(MEAN).reshape(shape)) / np.array(STD).reshape(shape)).float()
    kind = transformers.VivitImageProcessor if name.startswith("Vivit") else transformers.VideoMAEImageProcessor
    processor = kind.from_pretrained(folder)
    frames = [[frame.permute(1, 2, 0).numpy() for frame in clip] for clip in clips]
    return torch.stack([processor(video, return_tensors="pt")["pixel_values"][0] for video in frames])


def _inputs(name: str, folder: Path, clips: Tensor) -> dict[str, Tensor]:
    return {"pixel_values_videos" if name.startswith("VJEPA2") else "pixel_values": _processed(name, folder, clips)}


def _theirs(name: str, folder: Path) -> Any:
    return getattr(transformers, name).from_pretrained(folder, attn_implementation="eager").eval()


@pytest.mark.slow
@pytest.mark.parametrize("name", CLASSIFIERS)
@torch.no_grad()
def test_a_classifier_gives_the_logits_of_the_library_on_its_own_processors_pixels(
    folders: dict[str, Path], name: str
) -> None:
    ours, theirs = open_transformers(f"hf:{folders[name]}"), _theirs(name, folders[name])
    clips = _clips()
    taken: list[Tensor] = []
    theirs.classifier.register_forward_pre_hook(lambda _, given: taken.append(given[0]))
    expected = theirs(_processed(name, folders[name], clips)).logits
    assert expected.std() > 0.01
    torch.testing.assert_close(ours.model(clips), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(ours.model.features(clips), taken[0], rtol=1e-5, atol=1e-5)
    assert ours.model.num_features == taken[0].shape[1] == 24
    assert ours.classes == CLASSES
    assert ours.recipe is None


def _pooled(name: str, found: Any) -> Tensor:
    tokens = found.last_hidden_state
    return tokens.mean(dim=1) if name in ("VJEPA2Model", "VideoMAEForPreTraining") else tokens[:, 0]


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in TINY if name not in (*CLASSIFIERS, "XCLIPModel")])
@torch.no_grad()
def test_an_encoder_gives_the_pooled_tokens_of_the_library(folders: dict[str, Path], name: str) -> None:
    ours, theirs = open_transformers(f"hf:{folders[name]}"), _theirs(name, folders[name])
    clips = _clips()
    encoder = getattr(theirs, "videomae", theirs)
    expected = _pooled(name, encoder(_processed(name, folders[name], clips)))
    torch.testing.assert_close(ours.model.features(clips), expected, rtol=1e-5, atol=1e-5)
    assert ours.classes == []
    with pytest.raises(UsageError, match="is an encoder without classes"):
        ours.model(clips)


@torch.no_grad()
def test_xclips_features_are_its_joint_embedding_of_videos(folders: dict[str, Path]) -> None:
    """As its own comparison with texts has them before they are normalised."""
    ours, theirs = open_transformers(f"hf:{folders['XCLIPModel']}"), _theirs("XCLIPModel", folders["XCLIPModel"])
    clips = _clips()
    found = theirs(
        input_ids=torch.tensor([[0, 5, 2]]), pixel_values=_processed("XCLIPModel", folders["XCLIPModel"], clips)
    )
    features = ours.model.features(clips)
    torch.testing.assert_close(features / features.norm(dim=-1, keepdim=True), found.video_embeds, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(features, found.mit_output[1], rtol=1e-5, atol=1e-5)
    assert ours.model.num_features == 16
    assert ours.model.network.text_model is None  # not kept


def test_the_defaults_of_a_silent_processor_are_the_librarys() -> None:
    classes = {"videomae": "VideoMAEImageProcessor", "vivit": "VivitImageProcessor"}
    for kind, name in classes.items():
        made = getattr(transformers, name)()
        for word, value in DEFAULTS[kind].items():
            theirs = getattr(made, word, False)
            # Versions write sizes as dicts or as records, and colours as lists or tuples.
            assert (dict(value) == {k: v for k, v in dict(theirs).items() if v is not None}
                    if isinstance(value, dict) else np.array_equal(value, theirs)), (kind, word)  # fmt: skip


def test_what_a_processor_says_decides_the_pixels_and_is_in_the_protocol(folder: Callable[..., Path]) -> None:
    old = folder("VideoMAEForVideoClassification", processor={"size": 40, "crop_size": 32, "image_std": [0.5] * 3})
    opened = open_transformers(f"hf:{old}")
    preprocess = opened.preprocess
    assert (preprocess.num_frames, preprocess.resize, preprocess.size_px, preprocess.crop_px) == (
        4, "short_side", 40, 32,
    )  # fmt: skip
    said = opened.protocol
    assert (said["mean"], said["std"], said["size_px"], said["num_frames"]) == (MEAN, [0.5] * 3, 40, 4)
    assert (said["architecture"], said["processor"]) == ("VideoMAEForVideoClassification", "preprocessor_config.json")
    assert said["frames_per_second"] is None
    assert said["source_sha256"] == opened.hash
    square = folder("VideoMAEForVideoClassification", processor={"size": {"height": 32, "width": 32}})
    assert open_transformers(f"hf:{square}").preprocess.resize == "square"
    jepa = open_transformers(f"hf:{folder('VJEPA2Model')}")
    assert jepa.preprocess.size_px == 36  # int(32 * 256 / 224), whatever its file says


def test_frames_are_taken_at_the_processors_rate_or_from_all_of_a_video(folder: Callable[..., Path]) -> None:
    sampled = open_transformers(f"hf:{folder('VJEPA2Model', processor={'do_sample_frames': True, 'fps': 8})}")
    assert (sampled.preprocess.sampling, sampled.preprocess.stride) == ("dense", 1)
    assert sampled.preprocess.frames_per_second == sampled.protocol["frames_per_second"] == 8
    silent = open_transformers(f"hf:{folder('VJEPA2Model', processor={'fps': 8})}")
    assert (silent.preprocess.sampling, silent.preprocess.frames_per_second) == ("segment", None)


def test_the_processor_of_version_5_lies_in_a_file_of_its_own_or_of_the_network_of_texts(
    folder: Callable[..., Path],
) -> None:
    path = folder("XCLIPModel")
    (path / "processor_config.json").write_text(json.dumps({"image_processor": {**PROCESSOR, "image_mean": [0.1] * 3}}))
    assert read_processor(path, "xclip").mean == (0.1, 0.1, 0.1)
    (path / "processor_config.json").write_text(json.dumps({"processor_class": "XCLIPProcessor"}))
    (path / "video_preprocessor_config.json").write_text(json.dumps({**PROCESSOR, "image_mean": 0.3}))
    assert read_processor(path, "xclip").mean == (0.3, 0.3, 0.3)
    (path / "video_preprocessor_config.json").unlink()
    assert read_processor(path, "xclip").mean == (0.45, 0.4, 0.5)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"do_resize": False}, "resizes no pictures"),
        ({"do_center_crop": False}, "pictures are not square; expected do_center_crop"),
        ({"crop_size": 33}, "cuts 33 px out of 32"),
        ({"crop_size": {"height": 32, "width": 30}}, "crop_size is .*a height and a width that are equal"),
        ({"size": {"shortest_edge": 10**9}}, "size is '1000000000' px; expected 1 to 1024"),
        ({"size": {"shortest_edge": "32"}}, "size is '32' px; expected 1 to 1024"),
        ({"image_std": [0.2, 0.0, 0.2]}, "image_std is '0.0'; expected a number above 0"),
        ({"image_mean": [0.2, 0.1]}, "image_mean has 2 numbers"),
        ({"image_mean": float("nan")}, "image_mean is 'nan'"),
        ({"rescale_factor": "1/255"}, "rescale_factor is '1/255'"),
        ({"do_flip_channel_order": True}, "asks for 'do_flip_channel_order'"),
        ({"size": 28, "crop_size": 28}, "makes pictures of 28 px, and its network was made for 32"),
    ],
)
def test_a_processor_that_cannot_be_followed_is_refused(
    folder: Callable[..., Path], words: dict[str, Any], message: str
) -> None:
    path = folder("VideoMAEForVideoClassification", processor=words)
    with pytest.raises(ModelError, match=message) as caught:
        open_transformers(f"hf:{path}")
    assert caught.value.code == "wrong_model"


def test_a_folder_without_a_processor_is_refused(folder: Callable[..., Path]) -> None:
    path = folder("VivitForVideoClassification")
    (path / "preprocessor_config.json").unlink()
    with pytest.raises(ModelError, match="says nowhere how pictures are resized and normalised"):
        open_transformers(f"hf:{path}")


@torch.no_grad()
def test_clips_that_a_network_cannot_take_are_told(folders: dict[str, Path]) -> None:
    mae = open_transformers(f"hf:{folders['VideoMAEForVideoClassification']}").model
    with pytest.raises(UsageError, match="takes clips of 4 frames and of no other number; it was given 6"):
        mae(_clips(6))
    with pytest.raises(UsageError, match="takes pictures of 32 x 32 px and no others; it was given 32 x 24"):
        mae(_clips()[..., :24])
    for name in ("VJEPA2ForVideoClassification", "TimesformerForVideoClassification"):  # which do it by themselves
        expected = _theirs(name, folders[name])(**_inputs(name, folders[name], _clips(6))).logits
        found = open_transformers(f"hf:{folders[name]}").model(_clips(6))
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_pixels_that_are_normalised_already_stay_as_they_are(folders: dict[str, Path]) -> None:
    name = "TimesformerForVideoClassification"
    model = open_transformers(f"hf:{folders[name]}").model
    clips = _clips()
    torch.testing.assert_close(
        model(_processed(name, folders[name], clips)), model(clips), rtol=1e-5, atol=1e-5
    )  # fmt: skip


@torch.no_grad()
def test_weights_of_half_precision_and_in_parts_are_read(folder: Callable[..., Path]) -> None:
    path = folder("VJEPA2ForVideoClassification")
    clips, whole = _clips(), open_transformers(f"hf:{path}")
    tensors = load_file(path / "model.safetensors")
    (path / "model.safetensors").unlink()
    names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    keys = sorted(tensors)
    halves = [keys[::2], keys[1::2]]
    for file, half in zip(names, halves, strict=True):
        save_file({key: tensors[key].half() for key in half}, path / file, metadata={"format": "pt"})
    index = {
        "metadata": {},
        "weight_map": {key: file for file, half in zip(names, halves, strict=True) for key in half},
    }
    (path / "model.safetensors.index.json").write_text(json.dumps(index))
    parts = open_transformers(f"hf:{path}")
    assert parts.model(clips).dtype == torch.float32
    torch.testing.assert_close(parts.model(clips), whole.model(clips), rtol=0, atol=0.02)
    assert parts.hash != whole.hash
    index["weight_map"][keys[0]] = "../elsewhere.safetensors"
    (path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ModelError, match="does not name files of weights that lie beside it"):
        open_transformers(f"hf:{path}")


@torch.no_grad()
def test_names_of_weights_of_older_versions_are_the_librarys_to_know(folder: Callable[..., Path]) -> None:
    """VideoMAE's published files have the biases of queries and values by other names."""
    path = folder("VideoMAEForVideoClassification")
    before = open_transformers(f"hf:{path}").model(_clips())
    tensors = {
        key.replace("query.bias", "q_bias").replace("value.bias", "v_bias"): value
        for key, value in load_file(path / "model.safetensors").items()
    }
    assert any(key.endswith("q_bias") for key in tensors)
    save_file(tensors, path / "model.safetensors", metadata={"format": "pt"})
    assert torch.equal(open_transformers(f"hf:{path}").model(_clips()), before)


# ---------------------------------------------------------------------------------------------------- what is refused


def test_a_folder_that_is_no_model_of_transformers_is_told(tmp_path: Path, bert: Path) -> None:
    with pytest.raises(UsageError, match="no such folder; expected hf:FOLDER") as missing:
        open_transformers(f"hf:{tmp_path / 'nothing'}")
    assert missing.value.code == "missing"
    with pytest.raises(ModelError, match=r"has no config\.json") as empty:
        open_transformers(f"hf:{tmp_path}")
    assert empty.value.code == "missing"
    with pytest.raises(
        ModelError, match="'BertModel' is no network of videos that is known here; expected one of Video"
    ):
        open_transformers(f"hf:{bert}")
    for text, message in [("[]", "expected a JSON object"), ("{", "not valid JSON"), ("{}", "names no architecture")]:
        (tmp_path / "config.json").write_text(text)
        with pytest.raises(ModelError, match=message):
            open_transformers(f"hf:{tmp_path}")


def test_pickled_weights_are_not_read(folder: Callable[..., Path]) -> None:
    path = folder("VideoMAEForVideoClassification")
    torch.save(load_file(path / "model.safetensors"), path / "pytorch_model.bin")
    (path / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"its weights are a pickle \(pytorch_model.bin\), which could run code"):
        open_transformers(f"hf:{path}")
    (path / "pytorch_model.bin").unlink()
    with pytest.raises(ModelError, match=r"has no model\.safetensors"):
        open_transformers(f"hf:{path}")
    (path / "model.safetensors").write_bytes(b"\xff" * 64)
    with pytest.raises(ModelError, match="not a safetensors file"):
        open_transformers(f"hf:{path}")


def test_labels_that_are_not_those_of_the_classifier_are_refused(folder: Callable[..., Path]) -> None:
    name = "VivitForVideoClassification"
    fewer = folder(name, config={"id2label": {"0": "a", "1": "b"}})
    with pytest.raises(ModelError, match=r"names 2 classes \(id2label\), and the classifier of the weights has 5"):
        open_transformers(f"hf:{fewer}")
    holes = folder(name, config={"id2label": {"0": "a", "1": "b", "2": "c", "3": "d", "5": "e"}})
    with pytest.raises(ModelError, match=r"id2label has the numbers .*expected 0 to 4, each once"):
        open_transformers(f"hf:{holes}")


def test_weights_of_another_network_are_refused(folder: Callable[..., Path], folders: dict[str, Path]) -> None:
    path = folder("VideoMAEForVideoClassification")
    tensors = load_file(path / "model.safetensors")
    lost = "videomae.encoder.layer.1.output.dense.weight"
    padded = {**tensors, "more": torch.zeros(24 * 20)}
    del padded[lost]
    save_file(padded, path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=rf"1 tensors are missing \({lost}\)"):
        open_transformers(f"hf:{path}")
    save_file({**tensors, "more": torch.zeros(3)}, path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"1 tensors belong to nothing in it \(more\)"):
        open_transformers(f"hf:{path}")
    wider = folder("TimesformerModel", config={"intermediate_size": 18})
    with pytest.raises(ModelError, match=r"weights do not fit|cannot make a network of it"):
        open_transformers(f"hf:{wider}")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "words", "message"),
    [
        ("VideoMAEForVideoClassification", {"num_hidden_layers": 10**9}, "num_hidden_layers' is 1000000000"),
        ("VideoMAEForVideoClassification", {"hidden_size": 10**12}, "hidden_size' is 1000000000000; expected at most"),
        ("VideoMAEForVideoClassification", {"hidden_size": 65536, "num_hidden_layers": 128},
         "describes a network of [0-9,]+ numbers, and its weights are"),
        ("VideoMAEForVideoClassification", {"hidden_size": 65536, "num_frames": 32},
         "256 tokens of 65536 channels; expected"),
        ("VideoMAEForVideoClassification", {"intermediate_size": 65536}, "describes a network of [0-9,]+ numbers, and"),
        ("VideoMAEForVideoClassification", {"image_size": 65536, "patch_size": 1}, "8589934592 tokens of"),
        ("VideoMAEForVideoClassification", {"num_frames": 65536}, "clips have 65536 frames; expected at most 512"),
        ("VideoMAEForVideoClassification", {"num_frames": 0}, "whole numbers above 0"),
        ("VideoMAEForVideoClassification", {"num_attention_heads": 0}, "cannot make a network of it"),
        ("VideoMAEForVideoClassification", {"hidden_act": "no such"}, "cannot make a network of it"),
        ("VideoMAEForVideoClassification", {"hidden_size": "24"}, "cannot make a network of it"),
        ("VideoMAEForVideoClassification", {"model_type": "vivit"}, "model_type is 'vivit', and a VideoMAEForVideo"),
        ("VideoMAEForVideoClassification", {"quantization_config": {"bits": 4}}, "weights are quantised"),
        ("VivitForVideoClassification", {"tubelet_size": [2]}, "whole numbers above 0, and squares"),
        ("VJEPA2Model", {"pred_hidden_size": 60000, "pred_num_attention_heads": 2}, "describes a network of"),
        ("XCLIPModel", {"vision_config": {"num_hidden_layers": 10**6}}, "num_hidden_layers' is 1000000"),
        ("XCLIPModel", {"text_config": {"vocab_size": 60000, "hidden_size": 60000}}, "describes a network of"),
    ],
)  # fmt: skip
def test_a_hostile_configuration_is_told_before_memory_is_spent(
    folder: Callable[..., Path], name: str, words: dict[str, Any], message: str
) -> None:
    path = folder(name, config=words)
    with pytest.raises(ModelError, match=message) as caught:
        open_transformers(f"hf:{path}")
    assert caught.value.code == "wrong_model"
    assert len(str(caught.value).splitlines()) == 1


def test_code_and_kernels_that_come_with_a_folder_are_not_run(folder: Callable[..., Path], tmp_path: Path) -> None:
    made = tmp_path / "made"
    words = {
        "auto_map": {"AutoConfig": "evil.Config", "AutoModelForVideoClassification": "evil.Model"},
        "_attn_implementation": "somebody/kernel", "attn_implementation": "somebody/kernel", "return_dict": False,
        "output_hidden_states": True, "torch_dtype": "float16",
    }  # fmt: skip
    path = folder("VideoMAEForVideoClassification", config=words)
    (path / "evil.py").write_text(f"open({str(made)!r}, 'w')\nclass Config: pass\nclass Model: pass\n")
    opened = open_transformers(f"hf:{path}")
    assert opened.model(_clips()).shape == (3, 5)
    assert not made.exists()


def test_without_transformers_the_extra_is_named(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(UsageError, match=r"transformers, which is not installed; run: pip install 'ssan\[hf\]'"):
        open_transformers(f"hf:{folders['VivitModel']}")


# ---------------------------------------------------------------------------------------------------- the command line


@pytest.fixture(scope="module")
def labelled(folders: dict[str, Path], order_set: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A VideoMAE with the classes of the small rendered set."""
    from ssan.datasets import read

    to = Path(shutil.copytree(folders["VideoMAEForVideoClassification"], tmp_path_factory.mktemp("labelled") / "mae"))
    classes = read("sthv2", order_set, "all").classes
    tensors = load_file(to / "model.safetensors")
    tensors |= {name: tensors[name][: len(classes)].clone() for name in ("classifier.weight", "classifier.bias")}
    save_file(tensors, to / "model.safetensors", metadata={"format": "pt"})
    said = json.loads((to / "config.json").read_text())
    (to / "config.json").write_text(json.dumps({**said, "id2label": dict(enumerate(classes))}))
    return to


def test_predict_and_eval_take_a_folder_of_transformers(ssan: Any, labelled: Path, order_set: Path) -> None:
    from ssan.datasets import read

    opened = open_transformers(f"hf:{labelled}")
    videos = read("sthv2", order_set, "test")
    answer = ssan("predict", f"hf:{labelled}", videos[0].path, "--json", "--quiet", "--workers", "0")
    assert answer.code == 0
    clip, _ = opened.preprocess.test_views(videos[0].path)
    theirs = _theirs("VideoMAEForVideoClassification", labelled)
    with torch.no_grad():
        logits = theirs(_processed("VideoMAE", labelled, clip)).logits[0]
    best = answer.lines[0]["top"][0]
    assert best["label"] == opened.classes[int(logits.argmax())]
    assert best["score"] == pytest.approx(float(logits.softmax(0).max()), abs=1e-5)

    common = ["--data", order_set, "--split", "test", "--workers", "0", "--quiet"]
    answer = ssan("eval", f"hf:{labelled}", *common, "--json")
    assert (answer.code, answer.json["num_failed"]) == (0, 0)
    assert answer.json["num_scored"] == len(videos)
    assert answer.json["protocol"]["num_frames"] == 4
    wrong = ssan("eval", f"hf:{labelled}", *common, "--size-px", "28", "--crop-px", "24")
    assert wrong.code == 2
    assert "takes pictures of 32 x 32 px and no others; it was given 24 x 24" in wrong.err


@pytest.mark.slow
def test_extract_takes_an_encoder_and_refuses_to_mix_two(
    ssan: Any, folders: dict[str, Path], folder: Callable[..., Path], order_set: Path, tmp_path: Path
) -> None:
    from ssan.features.store import Vectors

    path = folders["VJEPA2Model"]
    common = ["--data", order_set, "--split", "test", "--workers", "0", "--quiet", "-o", tmp_path / "features"]
    answer = ssan("extract", f"hf:{path}", *common, "--window-seconds", "100", "--json")
    assert (answer.code, answer.json["dim"], answer.json["failed"]) == (0, 24, [])
    from ssan.datasets import read

    video = read("sthv2", order_set, "test")[0]
    opened = open_transformers(f"hf:{path}")
    clip, _ = opened.preprocess.test_views(video.path)
    with torch.no_grad():
        expected = opened.model.features(clip)[0].numpy()
    store = Vectors(tmp_path / "features")
    np.testing.assert_allclose(store.rows(video.id)[0], expected, atol=2e-3)
    other = folder("VJEPA2Model", processor={"image_mean": [0.5, 0.5, 0.5]})
    refused = ssan("extract", f"hf:{other}", *common, "--window-seconds", "100")
    assert refused.code == 2
    assert len(refused.err.splitlines()) == 1
    again = ssan("predict", f"hf:{path}", video.path)
    assert again.code == 2
    assert "has no classes" in again.err or "without classes" in again.err


# -------------------------------------------------------------------------------------------------------- from the hub


class Hub:
    """What the library's hub answers, on this machine: one repository, and how often each path was asked for."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files, self.asked = files, []
        commit, asked = "0123456789abcdef0123456789abcdef01234567", self.asked

        class Handler(BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                self.answer(body=False)

            def do_GET(self) -> None:
                self.answer(body=True)

            def answer(self, *, body: bool) -> None:
                path = self.path.split("?")[0]
                asked.append(path)
                file = path.rpartition("/")[2]
                if path.startswith("/api/models/somebody/tiny/tree"):
                    content = json.dumps([
                        {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
                        for name, data in files.items()
                    ]).encode()  # fmt: skip
                elif path.startswith("/api/models/somebody/tiny"):
                    siblings = [{"rfilename": name, "size": len(data)} for name, data in files.items()]
                    content = json.dumps({
                        "id": "somebody/tiny", "sha": commit, "siblings": siblings, "private": False, "downloads": 0,
                        "likes": 0, "tags": [],
                    }).encode()  # fmt: skip
                elif path.startswith("/somebody/tiny/resolve/") and file in files:
                    content = files[file]
                else:
                    self.send_response(404)
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                self.send_response(200)
                self.send_header("Content-Length", str(len(content)))
                self.send_header("ETag", f'"{hashlib.sha1(content).hexdigest()}"')
                self.send_header("X-Repo-Commit", commit)
                self.end_headers()
                if body:
                    self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"


@pytest.fixture
def hub(folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """The library's hub on this machine, with a ViViT, and an empty cache of the library."""
    from huggingface_hub import constants

    files = {file.name: file.read_bytes() for file in folders["VivitForVideoClassification"].iterdir()}
    made = Hub({**files, "pytorch_model.bin": b"pickle", "README.md": b"read me"})
    threading.Thread(target=made.server.serve_forever, daemon=True).start()
    template = constants.HUGGINGFACE_CO_URL_TEMPLATE.removeprefix(constants.ENDPOINT)
    for name, value in {
        "ENDPOINT": made.url, "HUGGINGFACE_CO_URL_TEMPLATE": made.url + template, "HF_HUB_OFFLINE": False,
        "HF_HUB_CACHE": str(tmp_path / "cache"), "HF_HUB_DISABLE_XET": True, "HF_HUB_DISABLE_TELEMETRY": True,
    }.items():  # fmt: skip
        monkeypatch.setattr(constants, name, value)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    yield made
    made.server.shutdown()
    made.server.server_close()


@pytest.mark.slow
def test_a_model_of_the_hub_is_fetched_with_consent_alone_and_only_what_is_used(hub: Hub) -> None:
    spec, used = "hf://somebody/tiny", {"config.json", "model.safetensors", "preprocessor_config.json"}
    with pytest.raises(
        ModelError, match="somebody/tiny is not on this machine, and nothing is fetched unasked"
    ) as told:
        open_transformers(spec)
    assert (told.value.code, hub.asked) == ("not_fetched", [])
    heard: list[Any] = []
    with pytest.raises(ModelError, match=r"somebody/tiny was not fetched: .* MB from the hub need consent"):
        fetch_from_hub(spec, lambda *told: bool(heard.append(told)))
    assert heard == [("somebody/tiny", sum(len(hub.files[name]) for name in used))]
    assert not any("resolve" in path for path in hub.asked)
    fetch_from_hub(spec, lambda name, size: True)
    assert {path.rpartition("/")[2] for path in hub.asked if "resolve" in path} == used
    hub.asked.clear()
    opened = open_transformers(spec)
    assert (opened.name, opened.classes, hub.asked) == (spec, CLASSES, [])
    with pytest.raises(
        ModelError, match=r"somebody/else cannot be fetched .*; look at its name and the network"
    ) as told:
        fetch_from_hub("hf://somebody/else", lambda name, size: True)
    assert (told.value.code, len(str(told.value).splitlines())) == ("not_fetched", 1)
    del hub.files["model.safetensors"]
    with pytest.raises(ModelError, match="its weights are pickles alone, which are not read"):
        fetch_from_hub(f"{spec}@main", lambda name, size: True)


@pytest.mark.slow
def test_the_command_line_fetches_from_the_hub_when_told_to(ssan: Any, hub: Hub, order_set: Path) -> None:
    video = next(order_set.rglob("*.mp4"), None) or next(order_set.rglob("*.webm"))
    refused = ssan("predict", "hf://somebody/tiny", video, "--json", "--quiet", "--workers", "0")
    assert (refused.code, len(refused.err.splitlines()), hub.asked) == (2, 1, [])
    answer = ssan("predict", "hf://somebody/tiny", video, "--json", "--quiet", "--workers", "0", "--yes")
    assert answer.code == 0
    assert answer.lines[0]["top"][0]["label"] in CLASSES


@pytest.mark.parametrize(
    "spec", ["hf://", "hf://tiny", "hf://a/b/c", "hf://../b", "hf://a/b@", "hf://a/b@../x", "hf:// a/b"]
)
def test_names_that_are_none_of_the_hub_are_told(spec: str) -> None:
    with pytest.raises(UsageError, match="names no model of the hub; expected hf://user/name"):
        open_transformers(spec)
