"""A head on a network of the transformers library: its file has the head alone, and finds its encoder by the hash."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import ssan as door
from ssan.datasets.source import DataSource
from ssan.errors import ModelError
from ssan.features.store import Vectors
from ssan.probe.probe import probe
from ssan.training.journal import Journal
from ssan.weights.classifier_file import load_labeller
from ssan.weights.head_file import HeadOnEncoder, load_head
from ssan.weights.hub import open_transformers
from ssan.weights.hub_files import lasting
from ssan.weights.model_file import hash_tensors, read_model_file, write_model_file

transformers = pytest.importorskip("transformers", reason="transformers is not installed")

PERSON = "/([a-z]+)_[0-9]"
COMMON = ("--workers", "0", "--quiet", "--device", "cpu")
SIZES = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 20}
PLANE = {"image_size": 32, "patch_size": 8, "num_frames": 4}
PROCESSOR = {"size": 32, "crop_size": 32, "image_mean": [0.45, 0.4, 0.5], "image_std": [0.2, 0.25, 0.3]}


def write_encoder(folder: Path, name: str, seed: int = 3) -> Path:
    """A tiny network with random weights, as the library saves it."""
    torch.manual_seed(seed)
    kind = "VideoMAEConfig" if name.startswith("VideoMAE") else "TimesformerConfig"
    network = getattr(transformers, name)(getattr(transformers, kind)(**SIZES, **PLANE))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))
    network.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(PROCESSOR))
    return folder


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_encoder(tmp_path_factory.mktemp("encoder") / "time former", "TimesformerModel")


@pytest.fixture(scope="module")
def probed(people: Path, encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A probe of it, each person left out in turn."""
    out = tmp_path_factory.mktemp("probed") / "run"
    source = DataSource(str(people), "folder", {"groups": PERSON})
    probe(open_transformers(f"hf:{encoder}"), source, out, curve=False, quiet=True)
    return out


@pytest.fixture
def run(probed: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(probed, tmp_path / "run"))


def rewritten(run: Path, **metadata: Any) -> Path:
    """The head file with other words in it, whole by its hashes."""
    tensors, said = read_model_file(run / "model.safetensors")
    del said["sha256"]
    write_model_file(run / "model.safetensors", tensors, {**said, **metadata})
    return run


# ------------------------------------------------------------------------------------------------------ what is written


def test_the_file_has_the_head_alone_and_says_which_encoder_it_needs(probed: Path, encoder: Path) -> None:
    assert sorted(load_file(probed / "model.safetensors")) == ["fc.bias", "fc.weight"]
    _, said = read_model_file(probed / "model.safetensors")
    opened = open_transformers(f"hf:{encoder}")
    assert said["encoder"] == {"source": f"hf:{encoder}", "sha256": opened.hash}
    assert said["classes"] == ["blue", "green", "red"]
    assert said["preprocess"] == opened.preprocess.as_dict()
    protocol = said["protocol"]
    assert (protocol["kind"], protocol["top1"], protocol["frozen_hash"]) == ("leave_one_group_out", 1.0, opened.hash)
    for word in ("mean", "std", "rescale_factor", "offset", "architecture", "transformers", "processor", "features"):
        assert protocol[word] == opened.protocol[word]
    assert not (probed / "recipe.yaml").exists()
    assert not list(probed.rglob("config.json"))


@pytest.mark.slow
def test_predict_and_eval_answer_by_the_encoders_features_and_the_head(
    probed: Path, encoder: Path, people: Path, tmp_path: Path, ssan: Any
) -> None:
    opened, clip = open_transformers(f"hf:{encoder}"), people / "red" / "ann_0"
    head = {name: tensor.double() for name, tensor in load_file(probed / "model.safetensors").items()}
    frames, _ = opened.preprocess.test_views(str(clip))
    with torch.inference_mode():
        logits = head["fc.weight"] @ opened.model.features(frames)[0].double() + head["fc.bias"]
    found = load_labeller(probed)
    with torch.inference_mode():
        torch.testing.assert_close(found.model(frames)[0].double(), logits, rtol=1e-4, atol=1e-4)
        assert torch.equal(found.model.features(frames), opened.model.features(frames))
    assert (found.recipe, found.name, found.classes) == (None, f"hf:{encoder}", ["blue", "green", "red"])

    answer = ssan("predict", probed, clip, "--json", "--quiet", "--workers", "0", "--device", "cpu").lines[0]
    shares = {row["label"]: row["score"] for row in answer["top"]}
    assert shares == pytest.approx(dict(zip(found.classes, logits.softmax(0).tolist(), strict=True)), abs=1e-5)
    model = door.load_model(probed, device="cpu")
    assert (model.predict(str(clip))[0].label, model.features(str(clip)).shape) == ("red", (1, 24))

    common = ["--data", people, "--split", "all", "--workers", "0", "--quiet"]
    scores = tmp_path / "scores.npz"
    done = ssan("eval", probed, *common, "--json", "--scores", scores)
    assert (done.code, done.json["top1"]) == (0, 1.0)
    assert ssan("compare", scores, scores, "--json").code == 0


@pytest.mark.slow
def test_a_classifier_of_the_library_is_probed_by_what_its_own_classifier_takes(people: Path, tmp_path: Path) -> None:
    folder = write_encoder(tmp_path / "mae", "VideoMAEForVideoClassification")
    labeller = open_transformers(f"hf:{folder}")
    before = labeller.model.classifier
    answer = probe(
        labeller, DataSource(str(people), "folder", {"groups": PERSON}), tmp_path / "run", curve=False, quiet=True
    )
    assert answer["num_test"] == 24
    assert labeller.model.classifier is before is not None  # the network that was given is as it was
    found = load_labeller(tmp_path / "run")
    assert isinstance(found.model, HeadOnEncoder)
    assert found.model.encoder.classifier is None
    clips = torch.randint(0, 256, (2, 4, 3, 32, 32), dtype=torch.uint8)
    with torch.inference_mode():
        expected = found.model.fc(labeller.model.features(clips))
        assert torch.equal(found.model(clips), expected)
    assert found.model(clips).shape == (2, 3)


def test_the_cost_is_counted_on_shapes_as_it_is_on_numbers(probed: Path) -> None:
    (start,) = Journal(probed).events("start")
    model = load_labeller(probed).model
    with FlopCounterMode(display=False) as counter, torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        model(torch.zeros(1, 4, 3, 32, 32))
    assert start["cost"] == {
        "params": sum(parameter.numel() for parameter in model.parameters()),
        "macs": counter.get_total_flops() // 2, "num_frames": 4, "crop_px": 32,
    }  # fmt: skip


@pytest.mark.slow
def test_page_info_and_threshold_take_such_a_run(run: Path, encoder: Path, people: Path, ssan: Any) -> None:
    told = ssan("info", run / "model.safetensors", "--json").json
    assert (told["model"], told["encoder"]["source"]) == (f"hf:{encoder}", f"hf:{encoder}")
    assert (told["num_params"], told["classes"], told["takes"]["num_frames"]) == (None, ["blue", "green", "red"], 4)
    assert ssan("info", run, "--json").json["reached"]["top1"] == 1.0
    assert ssan("report", run, "--json").json["runs"][0]["model"] == f"hf:{encoder}"
    assert "Recipe of the frozen network" in (run / "report.html").read_text()
    before = load_labeller(run)
    none = people / "green"
    chosen = ssan(
        "eval", run, "--data", people, "--split", "all", "--choose-threshold", "0.5", "--none", none, "--write",
        "--json", "--workers", "0", "--quiet",
    )  # fmt: skip
    assert chosen.code == 0, chosen.err
    after = load_labeller(run)
    assert after.threshold == chosen.json["threshold"]["threshold"]
    assert (before.threshold, after.hash) == (None, before.hash)
    (evaluated,) = [row for row in Journal(run).events("evaluated") if "threshold" in row]
    assert evaluated["model_hash"] == Journal(run).events("evaluated")[0]["model_hash"] == after.hash


@pytest.mark.slow
def test_the_command_line_probes_a_folder_and_a_run_of_such_a_probe_once_more(
    encoder: Path, people: Path, tmp_path: Path, ssan: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(encoder.parent)
    common = ["--data", people, "--groups", PERSON, "--no-curve", "--features", tmp_path / "store", "--json", *COMMON]
    done = ssan("probe", f"hf:{encoder.name}", "--out", tmp_path / "a", *common)
    assert (done.code, done.json["top1"]) == (0, 1.0)
    _, said = read_model_file(tmp_path / "a" / "model.safetensors")
    assert said["encoder"]["source"] == f"hf:{encoder}"  # from wherever it is used
    monkeypatch.chdir(tmp_path)
    again = ssan("probe", tmp_path / "a", "--out", tmp_path / "b", *common[: -len(COMMON) - 3], "--json", *COMMON)
    assert (again.code, again.json["top1"]) == (0, 1.0)
    _, said = read_model_file(tmp_path / "b" / "model.safetensors")
    assert said["encoder"]["source"] == f"hf:{encoder}"
    audit = ssan("data", "audit", "--data", people, "--groups", PERSON, "--model", tmp_path / "a", "--out",
                 tmp_path / "audit", "--json", *COMMON)  # fmt: skip
    assert audit.code == 0, audit.err
    assert Vectors(tmp_path / "store").provenance["hash"] == said["encoder"]["sha256"]


@pytest.mark.slow
def test_a_probe_of_ours_that_stood_there_leaves_no_recipe(run: Path, encoder: Path, people: Path) -> None:
    (run / "recipe.yaml").write_text("model: tsn_tiny\n")
    probe(
        open_transformers(f"hf:{encoder}"), DataSource(str(people), "folder", {"groups": PERSON}), run, curve=False,
        quiet=True,
    )  # fmt: skip
    assert not (run / "recipe.yaml").exists()


def test_what_a_network_of_transformers_cannot_have_is_refused_in_a_line(
    probed: Path, encoder: Path, people: Path, tmp_path: Path, ssan: Any
) -> None:
    common = ["--data", people, "--groups", PERSON, "--out", tmp_path / "run", *COMMON]
    attentive = ssan("probe", f"hf:{encoder}", "--head", "attentive", *common)
    assert (attentive.code, len(attentive.err.splitlines())) == (2, 1)
    assert "gives features of whole clips; take --head linear" in attentive.err
    assert not (tmp_path / "run").exists()
    named = ssan("probe", f"hf:{encoder}", "--init", "imagenet", *common)
    assert "a model of transformers has its weights already; leave out --init" in named.err
    init = ssan("train", "--model", "tsn_tiny", "--init", probed, "--data", people, "--val-fraction", "0.5", "--out",
                tmp_path / "run", *COMMON)  # fmt: skip
    assert (init.code, "is a head on an encoder of transformers" in init.err) == (2, True)
    with pytest.raises(ModelError, match="needs no model="):
        door.load_model(probed, device="cpu", model=door.create_model("tsn_tiny", 3))


# ------------------------------------------------------------------------------------------------ where its encoder is


def test_an_encoder_that_is_not_what_it_was_is_refused(run: Path, encoder: Path, tmp_path: Path, ssan: Any) -> None:
    moved = Path(shutil.copytree(encoder, tmp_path / "encoder of mine"))
    rewritten(run, encoder={"source": f"hf:{moved}", "sha256": open_transformers(f"hf:{encoder}").hash})
    before = load_labeller(run)
    tensors = load_file(moved / "model.safetensors")
    name = min(tensors)
    save_file({**tensors, name: tensors[name] + 1e-3}, moved / "model.safetensors", metadata={"format": "pt"})
    refused = ssan("predict", run, tmp_path)
    assert (refused.code, len(refused.err.splitlines())) == (2, 1)
    assert "its head was fitted on another encoder than" in refused.err
    with pytest.raises(ModelError, match=before.encoder.sha256[:16]) as told:
        load_labeller(run)
    assert (told.value.code, told.value.path) == ("wrong_model", str(run / "model.safetensors"))
    # The remedy that is named: the right one beside the file goes before the wrong one at its place.
    (run / "encoder").symlink_to(encoder)
    assert load_labeller(run).hash == before.hash


def test_nothing_is_made_of_a_folder_with_another_hash(
    run: Path, encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rewritten(run, encoder={"source": f"hf:{encoder}", "sha256": "0" * 64})
    monkeypatch.setattr(transformers.TimesformerModel, "from_pretrained", None)
    monkeypatch.setattr(transformers.TimesformerConfig, "from_dict", None)
    with pytest.raises(ModelError, match="another encoder"):
        load_labeller(run)


def test_other_pictures_for_the_same_weights_are_another_encoder(run: Path, encoder: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(encoder, tmp_path / "other"))
    (other / "preprocessor_config.json").write_text(json.dumps({**PROCESSOR, "image_mean": [0.5] * 3}))
    rewritten(run, encoder={"source": f"hf:{other}", "sha256": open_transformers(f"hf:{encoder}").hash})
    with pytest.raises(ModelError, match="another encoder"):
        load_labeller(run)


@pytest.mark.parametrize("link", [False, True])
def test_a_moved_encoder_is_found_beside_the_file(
    run: Path, encoder: Path, tmp_path: Path, link: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = load_labeller(run)
    rewritten(run, encoder={"source": f"hf:{tmp_path / 'gone'}", "sha256": before.encoder.sha256})
    if link:
        (run / "encoder").symlink_to(encoder, target_is_directory=True)
    else:
        shutil.copytree(encoder, run / "encoder")
    found = load_labeller(run)
    assert (found.hash, found.name) == (before.hash, f"hf:{run / 'encoder'}")
    monkeypatch.chdir(run.parent)
    assert load_labeller(run.name).hash == before.hash


def test_a_missing_encoder_is_named_with_both_remedies(run: Path, tmp_path: Path) -> None:
    rewritten(run, encoder={"source": f"hf:{tmp_path / 'gone'}", "sha256": "0" * 64})
    with pytest.raises(ModelError) as told:
        load_labeller(run)
    assert (told.value.code, told.value.path) == ("missing", str(run / "model.safetensors"))
    assert len(str(told.value).splitlines()) == 1
    assert f"it needs the encoder 'hf:{tmp_path / 'gone'}', and there is no such folder" in told.value.message
    assert f"put it back there, or put it, or a link to it, at {run / 'encoder'}" in told.value.message


def test_an_encoder_of_the_hub_is_one_commit_of_it(
    run: Path, encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    commit, cache = "0123456789abcdef0123456789abcdef01234567", tmp_path / "cache"
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    source = f"hf://somebody/tiny@{commit}"
    rewritten(run, encoder={"source": source, "sha256": load_labeller(run).encoder.sha256})
    with pytest.raises(ModelError) as told:
        load_labeller(run)
    assert told.value.code == "not_fetched"
    assert f"it needs the encoder {source}, which is not on this machine" in told.value.message
    assert f"run `hf download somebody/tiny --revision {commit}`, or put its files" in told.value.message
    there = cache / "models--somebody--tiny"
    shutil.copytree(encoder, there / "snapshots" / commit)
    (there / "refs").mkdir()
    (there / "refs" / "main").write_text(commit)
    assert open_transformers("hf://somebody/tiny").encoder.source == source
    assert load_labeller(run).name == source
    shutil.rmtree(cache)
    (run / "encoder").symlink_to(encoder)
    assert load_labeller(run).classes == ["blue", "green", "red"]


def test_a_lasting_name_is_absolute_and_never_one_of_the_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert lasting("hf:mine", Path("mine")) == f"hf:{tmp_path / 'mine'}"
    assert lasting("hf:/", Path("//etc/x")) == "hf:/etc/x"
    assert lasting("hf://a/b", Path("/cache/snapshots/main")) == "hf://a/b"


# ------------------------------------------------------------------------------------------------------- hostile files


@pytest.mark.parametrize(
    "source",
    ["hf:relative", "hf:../../etc", "hf:~", "/etc", "hf://", "hf://a", "hf://../b", "file:///etc", "", None, 7,
     ["hf:/x"], "https://example.org/a"],
)  # fmt: skip
def test_a_place_that_depends_on_where_we_are_is_refused(run: Path, source: Any) -> None:
    with pytest.raises(ModelError, match=r"its encoder is .*; expected hf: with an absolute path, or hf://") as told:
        load_labeller(rewritten(run, encoder={"source": source, "sha256": "0" * 64}))
    assert told.value.code == "wrong_model"


@pytest.mark.parametrize("source", ["hf:/\0", "hf:/" + "a" * 5000, "hf:/dev/zero", "hf:/new\nline", "hf:/\udcff"])
def test_a_strange_place_is_no_folder(run: Path, source: str) -> None:
    tensors, said = read_model_file(run / "model.safetensors")
    with pytest.raises(ModelError, match="there is no such folder") as told:
        load_head(run / "model.safetensors", tensors, {**said, "encoder": {"source": source, "sha256": "0" * 64}})
    assert len(str(told.value).splitlines()) == 1
    assert len(str(told.value)) < 1000


def test_a_folder_that_is_no_model_is_refused_as_everywhere(run: Path, tmp_path: Path) -> None:
    (tmp_path / "evil").mkdir()
    (tmp_path / "evil" / "config.json").write_text('{"architectures": ["Evil"], "auto_map": {"AutoModel": "evil.py"}}')
    rewritten(run, encoder={"source": f"hf:{tmp_path / 'evil'}", "sha256": "0" * 64})
    with pytest.raises(ModelError, match="'Evil' is no network of videos that is known here"):
        load_labeller(run)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"encoder": {}}, "lacks 'encoder'"),
        ({"encoder": "hf:/x"}, "lacks 'encoder'"),
        ({"encoder": {"source": "hf:/x"}}, "says no SHA-256 of its encoder"),
        ({"encoder": {"source": "hf:/x", "sha256": "0" * 63 + "\n"}}, "says no SHA-256 of its encoder"),
        ({"classes": ["a", "b"]}, "no linear layer for its 2 classes"),
        ({"classes": []}, "lacks 'classes'"),
        ({"protocol": [1]}, "protocol is no mapping"),
        ({"threshold": {"threshold": 7}}, "its threshold is '7'"),
        ({"preprocess": {"num_frames": 9}}, "preprocessing is not that of its encoder"),
    ],
)
def test_words_that_do_not_fit_are_told(run: Path, words: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message) as told:
        load_labeller(rewritten(run, **words))
    assert told.value.code == "wrong_model"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fc.weight": torch.zeros(3, 25)}, "its layer takes 25 features, and its encoder gives 24"),
        ({"fc.weight": torch.zeros(3)}, "no linear layer"),
        ({"fc.weight": torch.zeros(3, 24, dtype=torch.int64)}, "no linear layer"),
        ({"fc.bias": torch.zeros(4)}, "no linear layer"),
        ({"encoder.weight": torch.zeros(1)}, "expected fc.weight and fc.bias alone"),
    ],
)
def test_tensors_that_are_no_head_are_told(run: Path, changes: dict[str, torch.Tensor], message: str) -> None:
    tensors, said = read_model_file(run / "model.safetensors")
    del said["sha256"]
    write_model_file(run / "model.safetensors", {**tensors, **changes}, said)
    with pytest.raises(ModelError, match=message):
        load_labeller(run)


def test_equal_heads_on_two_encoders_are_two_networks(run: Path, encoder: Path, tmp_path: Path) -> None:
    first = load_labeller(run)
    other = open_transformers(f"hf:{write_encoder(tmp_path / 'other', 'TimesformerModel', seed=4)}")
    rewritten(run, encoder={"source": other.encoder.source, "sha256": other.hash})
    second = load_labeller(run)
    tensors = [hash_tensors(found.model.fc.state_dict()) for found in (first, second)]
    assert tensors[0] == tensors[1]
    assert len({first.hash, second.hash, *tensors}) == 3
