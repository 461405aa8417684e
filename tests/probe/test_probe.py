"""``ssan probe`` from the command line: protocols, the model that comes out, warnings, and what is refused."""

import contextlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from conftest import SHARED
from ssan.cli.main import status
from ssan.datasets.source import DataSource
from ssan.errors import UsageError
from ssan.models.catalogue import build
from ssan.probe.probe import labeller_of_weights, probe, read_clips, recipe_with_head
from ssan.recipe import make_recipe
from ssan.recognition.train import train
from ssan.training.journal import Journal
from ssan.weights.classifier_file import load_labeller, save_labeller

PERSON = "/([a-z]+)_[0-9]"
COMMON = ("--workers", "0", "--quiet", "--device", "cpu")


@pytest.fixture(scope="module")
def left_out(people: Path, untrained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A linear probe, each person left out in turn."""
    out = tmp_path_factory.mktemp("probes") / "left_out"
    words = ["probe", str(untrained), "--data", str(people), "--groups", PERSON, "--out", str(out), "--json", *COMMON]
    with open(out.with_name("answer.json"), "w", encoding="utf-8") as said, contextlib.redirect_stdout(said):
        assert status(words) == 0
    return out


def answer_of(out: Path) -> dict[str, Any]:
    (probed,) = Journal(out).events("probed")
    return probed


def split(people: Path, root: Path, val: str) -> Path:
    """The clips as a folder with its own split: one person for validation."""
    for clip in people.glob("*/*"):
        home = "val" if clip.name.startswith(val) else "train"
        shutil.copytree(clip, root / home / clip.parent.name / clip.name)
    return root


# ---------------------------------------------------------------------------------------------------- the answer


@pytest.mark.slow
def test_each_person_is_left_out_in_turn_and_the_head_of_the_file_is_fitted_on_all(left_out: Path) -> None:
    answer = json.loads(left_out.with_name("answer.json").read_text(encoding="utf-8"))
    assert {
        "schema", "model", "head", "num_train", "num_test", "top1", "interval95", "protocol", "seconds",
        "learning_curve", "warnings",
    } <= set(answer)  # fmt: skip
    assert (answer["head"], answer["num_train"], answer["num_test"]) == ("linear", 24, 24)
    assert answer["top1"] == 1.0
    assert answer["interval95"] == [0.025 ** (1 / 4), 1.0]  # of four persons
    how = answer["protocol"]
    assert (how["kind"], how["num_folds"], how["fitted_on"], how["groups"]) == ("leave_one_group_out", 4, "all", PERSON)
    assert (how["interval"], how["views"], how["num_frames"], how["crop_px"]) == ("resampled groups", 1, 3, 32)
    assert set(answer["seconds"]) == {"features", "head"}
    assert answer["learning_curve"][-1] == {"num_train": 18, "top1": 1.0, "interval95": [0.025 ** (1 / 4), 1.0]}
    assert [point["num_train"] for point in answer["learning_curve"]] == [6, 12, 18]  # one person, two, three
    assert "more would hardly help" in answer["more_clips"] or "cannot be told" in answer["more_clips"]
    assert answer["warnings"] == []


@pytest.mark.slow
def test_the_model_is_an_ordinary_one(left_out: Path, people: Path, untrained: Path, tmp_path: Path, ssan: Any) -> None:
    labels = ssan("predict", left_out, people, "--json").lines
    assert len(labels) == 24
    assert all(line["top"][0]["label"] == Path(line["path"]).parent.name for line in labels)
    again = ssan("eval", left_out, "--data", people, "--split", "all", "--json", "--workers", "0")
    assert again.json["top1"] == 1.0
    assert "fitted on all clips that `ssan probe` was given" in again.err
    assert "for which the probe measured 1.0000" in again.err
    found, before = load_labeller(left_out), load_labeller(untrained)
    assert found.classes == ["blue", "green", "red"]
    assert found.recipe == before.recipe
    assert found.protocol["kind"] == "leave_one_group_out"
    assert found.protocol["top1"] == 1.0
    assert found.protocol["frozen_hash"] == before.hash
    backbone = {name: tensor for name, tensor in before.model.state_dict().items() if name.startswith("backbone.")}
    assert all(torch.equal(found.model.state_dict()[name], tensor) for name, tensor in backbone.items())


@pytest.mark.slow
def test_the_page_has_its_learning_curve_and_its_doubts(left_out: Path, tmp_path: Path, ssan: Any) -> None:
    run = Path(shutil.copytree(left_out, tmp_path / "run"))
    with open(run / "journal.jsonl") as handle:
        events = [json.loads(line) for line in handle]
    for event in events:
        if event["event"] == "probed":
            event["warnings"] = ["a <doubt>"]
    (run / "journal.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    done = ssan("report", run, "--json")
    assert done.json["runs"][0]["task"] == "probe"
    assert done.json["runs"][0]["top1"] == 1.0
    page = (run / "report.html").read_text()
    assert "With fewer clips" in page
    assert "Top-1 by the number of clips for the head, with 95 % intervals: 6 clips" in page
    assert "a &lt;doubt&gt;" in page
    assert "Epoch by epoch" not in page
    assert "Best validation top-1" not in page
    assert "Recipe of the frozen network" in page
    assert "groups left out in turn" in page


def test_the_page_of_a_probe_that_has_not_ended_says_so(left_out: Path, tmp_path: Path, ssan: Any) -> None:
    run = tmp_path / "run"
    run.mkdir()
    start = (left_out / "journal.jsonl").read_text().splitlines()[0]
    (run / "journal.jsonl").write_text(start + "\n")
    assert "no result yet" in ssan("report", run).out
    assert "The journal has no learning curve." in (run / "report.html").read_text()


@pytest.mark.slow
def test_a_probe_stands_beside_a_training_run(left_out: Path, trained: Path, tmp_path: Path, ssan: Any) -> None:
    assert ssan("report", left_out, trained, "-o", tmp_path / "both.html").code == 0
    assert "With fewer clips" in (tmp_path / "both.html").read_text()


@pytest.mark.slow
def test_of_a_split_the_head_that_was_measured_is_kept(
    people: Path, untrained: Path, tmp_path: Path, ssan: Any
) -> None:
    root = split(people, tmp_path / "split", "dan")
    out = tmp_path / "run"
    answer = ssan("probe", untrained, "--data", root, "--out", out, "--json", *COMMON).json
    assert (answer["num_train"], answer["num_test"]) == (18, 6)
    assert (answer["protocol"]["kind"], answer["protocol"]["fitted_on"]) == ("split", "train")
    assert answer["protocol"]["interval"] == "Wilson"
    assert ssan("eval", out, "--data", root, "--json", "--workers", "0").json["top1"] == answer["top1"]
    with_persons = ssan(
        "probe", untrained, "--data", root, "--groups", PERSON, "--out", tmp_path / "b", "--no-curve", "--json", *COMMON
    ).json
    assert with_persons["protocol"]["kind"] == "split"
    assert with_persons["warnings"] == ["all clips for testing are of one group, 'dan'"]
    asked = ssan(
        "probe", untrained, "--data", root, "--groups", PERSON, "--protocol", "groups", "--out", tmp_path / "c",
        "--no-curve", "--json", *COMMON,
    ).json  # fmt: skip
    assert (asked["protocol"]["kind"], asked["num_test"]) == ("leave_one_group_out", 24)


@pytest.mark.slow
def test_without_split_or_groups_folds_are_left_out_with_a_warning(
    people: Path, untrained: Path, tmp_path: Path, ssan: Any
) -> None:
    answer = ssan(
        "probe",
        untrained,
        "--data",
        people,
        "--folds",
        "3",
        "--no-curve",
        "--out",
        tmp_path / "run",
        "--json",
        *COMMON,
    ).json
    assert (answer["protocol"]["kind"], answer["protocol"]["num_folds"]) == ("folds", 3)
    assert answer["learning_curve"] == []
    assert any("give --groups 'REGEX' or a split" in said for said in answer["warnings"])


@pytest.mark.slow
def test_views_of_a_clip_are_rows_in_training_and_averaged_in_testing(
    people: Path, untrained: Path, tmp_path: Path, ssan: Any
) -> None:
    root, out = split(people, tmp_path / "split", "dan"), tmp_path / "run"
    answer = ssan(
        "probe", untrained, "--data", root, "--views", "2", "--no-curve", "--out", out, "--json", *COMMON
    ).json
    assert answer["protocol"]["views"] == 2
    scores = tmp_path / "scores.npz"
    done = ssan("eval", out, "--data", root, "--views", "2", "--scores", scores, "--json", "--workers", "0")
    assert done.json["top1"] == answer["top1"]


@pytest.mark.slow
def test_an_attentive_head_makes_an_ordinary_model_too(
    people: Path, untrained: Path, tmp_path: Path, ssan: Any
) -> None:
    root, out = split(people, tmp_path / "split", "dan"), tmp_path / "run"
    done = ssan(
        "probe", untrained, "--data", root, "--head", "attentive", "--no-curve", "--out", out, "--json", *COMMON
    )
    assert done.code == 0, done.err
    found = load_labeller(out)
    assert found.recipe.consensus == "attention"
    assert found.model.fc.out_features == 4
    assert ssan("eval", out, "--data", root, "--json", "--workers", "0").json["top1"] == done.json["top1"]
    ssan("report", out)
    page = (out / "report.html").read_text()
    assert "The attentive head, epoch by epoch" in page
    assert "Loss by epoch: training" in page


@pytest.mark.slow
def test_a_network_with_a_consensus_of_its_own_is_probed_by_its_backbone(
    people: Path, tmp_path: Path, ssan: Any
) -> None:
    torch.manual_seed(1)
    recipe = make_recipe(
        {"model": "trn_tiny", "num_frames": 3, "size_px": 32, "crop_px": 32, "layer": {"bottleneck": 5}}
    )
    path = tmp_path / "trn.safetensors"
    model = build("trn_tiny", 2, num_frames=3, layer_options={"bottleneck": 5})
    save_labeller(path, model, ["one", "other"], recipe, {})
    out = tmp_path / "run"
    done = ssan("probe", path, "--data", people, "--groups", PERSON, "--no-curve", "--out", out, "--json", *COMMON)
    assert done.json["top1"] == 1.0
    found = load_labeller(out)
    assert (found.recipe.model, found.recipe.layer) == ("tsn_tiny", {})


def test_a_layer_between_frames_stays_in_the_network() -> None:
    recipe = make_recipe({"model": "ssan_tiny", "layer": {"channel_branch": False}, "size_px": 40, "crop_px": 32})
    torch.manual_seed(0)

    class Named:
        model, name = build("ssan_tiny", 2, layer_options={"channel_branch": False}), None

    Named.recipe = recipe  # type: ignore[attr-defined]
    assert recipe_with_head(Named, "linear") == recipe  # type: ignore[arg-type]
    attentive = recipe_with_head(Named, "attentive")  # type: ignore[arg-type]
    assert attentive.model_copy(update={"consensus": None}) == recipe


# ------------------------------------------------------------------------------------------------- once more, on and on


@pytest.mark.slow
def test_the_same_command_takes_up_the_features_and_gives_the_same(
    left_out: Path, people: Path, untrained: Path, tmp_path: Path, ssan: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Path(shutil.copytree(left_out, tmp_path / "run"))
    before = answer_of(run)
    monkeypatch.setattr("ssan.probe.features._time_features", None)  # which must not be asked
    assert ssan("probe", untrained, "--data", people, "--groups", PERSON, "--out", run, *COMMON).code == 0
    after = answer_of(run)
    unlike = ("seconds", "model", "time")
    assert {k: v for k, v in after.items() if k not in unlike} == {k: v for k, v in before.items() if k not in unlike}
    assert load_labeller(run).hash == load_labeller(left_out).hash


@pytest.mark.slow
def test_a_store_can_be_shared_and_one_of_another_network_is_refused(
    people: Path, untrained: Path, tmp_path: Path, ssan: Any
) -> None:
    common = ["--data", people, "--groups", PERSON, "--no-curve", "--features", tmp_path / "store", *COMMON]
    assert ssan("probe", untrained, "--out", tmp_path / "a", *common).code == 0
    assert not (tmp_path / "a" / "features").exists()
    refused = ssan("probe", untrained, "--out", tmp_path / "b", "--views", "2", *common)
    assert refused.code == 2
    assert "views is 1 there and 2 here" in refused.err
    assert ssan("report", tmp_path / "b").out.startswith(f"{tmp_path / 'b'}: failed")


def test_interrupted_it_says_what_is_kept(
    people: Path, untrained: Path, tmp_path: Path, ssan: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("ssan.probe.probe.choose_strength", stop)
    done = ssan("probe", untrained, "--data", people, "--groups", PERSON, "--out", tmp_path / "run", *COMMON)
    assert done.code == 130
    assert "the same command goes on" in done.err
    assert Journal(tmp_path / "run").events()[-1]["event"] == "interrupted"
    assert not (tmp_path / "run" / "model.safetensors").exists()


def test_a_run_of_another_kind_is_left_alone(people: Path, untrained: Path, trained: Path, ssan: Any) -> None:
    before = (trained / "journal.jsonl").read_bytes()
    done = ssan("probe", untrained, "--data", people, "--groups", PERSON, "--out", trained, *COMMON)
    assert done.code == 2
    assert "holds a run that is no probe" in done.err
    assert (trained / "journal.jsonl").read_bytes() == before


# ------------------------------------------------------------------------------------------------------------ warnings


def warned(ssan: Any, *arguments: object) -> tuple[int, str]:
    done = ssan("probe", *arguments, "--no-curve", "--json", *COMMON)
    assert done.code in (0, 1), done.err
    return done.code, "\n".join(done.json["warnings"])


@pytest.mark.slow
def test_persons_and_copies_on_both_sides_small_classes_and_clips_left_out_are_told(
    people: Path, untrained: Path, tmp_path: Path, ssan: Any
) -> None:
    root = split(people, tmp_path / "split", "dan")
    shutil.copytree(people / "red" / "ann_0", root / "val" / "red" / "ann_9")
    for clip in (root / "train" / "green").glob("[bc]*"):
        shutil.rmtree(clip)
    (root / "train" / "blue" / "eve_0.webm").write_bytes(b"no video")
    shutil.rmtree(root / "val" / "blue")
    code, said = warned(
        ssan, untrained, "--data", root, "--groups", PERSON.replace("[0-9]", ""), "--out", tmp_path / "run"
    )
    assert code == 1
    assert "1 class has fewer than 3 clips to learn from: 'green' (2)" in said
    assert "1 class is for training alone, so nothing is measured of it: 'blue'" in said
    assert "1 group is in training and in testing too ('ann'): 1 of 5 test clips" in said
    assert "1 of 20 clips left out" in said
    assert "of near duplicates across the split (cosine of the features above 0." in said
    assert "ann_0" in said
    assert "ann_9" in said
    skipped = (tmp_path / "run" / "skipped.csv").read_text()
    assert "eve_0.webm" in skipped


@pytest.mark.slow
def test_a_class_for_testing_alone_is_told(people: Path, untrained: Path, tmp_path: Path, ssan: Any) -> None:
    root = split(people, tmp_path / "split", "dan")
    shutil.rmtree(root / "train" / "red")
    _, said = warned(ssan, untrained, "--data", root, "--out", tmp_path / "run")
    assert "1 of 3 classes has no video for training: 'red'; the 2 for validation cannot be answered right" in said
    assert load_labeller(tmp_path / "run").classes == ["blue", "green", "red"]


@pytest.mark.slow
def test_a_class_of_one_person_alone_is_told(people: Path, untrained: Path, tmp_path: Path, ssan: Any) -> None:
    root = Path(shutil.copytree(people, tmp_path / "people"))
    for clip in (root / "red").glob("[bcd]*"):
        shutil.rmtree(clip)
    _, said = warned(ssan, untrained, "--data", root, "--groups", PERSON, "--out", tmp_path / "run")
    assert "1 class has all clips in one fold or group, so that 2 clips cannot be answered right" in said


# ------------------------------------------------------------------------------------------------------------- refused


def test_a_single_class_is_refused(people: Path, untrained: Path, tmp_path: Path, ssan: Any) -> None:
    shutil.copytree(people / "red", tmp_path / "one" / "red")
    done = ssan("probe", untrained, "--data", tmp_path / "one", "--groups", PERSON, "--out", tmp_path / "run", *COMMON)
    assert done.code == 2
    assert "all 8 clips for training are of a single class, 'red'" in done.err
    assert not (tmp_path / "run").exists()


def test_a_regex_that_matches_nothing_says_what_it_was_matched_against(
    people: Path, untrained: Path, tmp_path: Path, ssan: Any
) -> None:
    done = ssan("probe", untrained, "--data", people, "--groups", "^person(.)", "--out", tmp_path / "run", *COMMON)
    assert done.code == 2
    assert "matches nothing: neither a file name nor a path below" in done.err
    assert "'blue/ann_0'" in done.err


@pytest.mark.slow
@pytest.mark.parametrize(
    ("regex", "said"),
    [
        ("/(ann|bob)_", "matches 12 of 24 clips, and not 'blue/cy_0'"),
        ("(/)", "are of one group"),
        ("ann", "has no group"),
        ("(", "is not a regular expression"),
    ],
)
def test_a_regex_that_tells_nobody_apart_or_not_all_is_refused(
    regex: str, said: str, people: Path, untrained: Path, tmp_path: Path, ssan: Any
) -> None:
    done = ssan("probe", untrained, "--data", people, "--groups", regex, "--no-curve", "--out", tmp_path / "r", *COMMON)
    assert done.code == 2, done.err
    assert said in done.err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--protocol", "groups"], "--protocol groups needs --groups"),
        (["--protocol", "split"], "does not say which videos are for training"),
        (["--split", "test"], "the data have no split"),
    ],
)
def test_a_protocol_that_the_data_do_not_allow_is_refused(
    options: list[str], said: str, people: Path, untrained: Path, tmp_path: Path, ssan: Any
) -> None:
    done = ssan("probe", untrained, "--data", people, *options, "--out", tmp_path / "run", *COMMON)
    assert (done.code, said in done.err) == (2, True), done.err


def test_a_name_without_weights_and_a_misspelt_one_are_told_apart(people: Path, tmp_path: Path, ssan: Any) -> None:
    common = ["--data", people, "--out", tmp_path / "run", *COMMON]
    assert "name of a network without weights" in ssan("probe", "tsn_tiny", *common).err
    assert "Did you mean 'tsn_tiny'?" in ssan("probe", "tsn_tni", *common).err


def test_unlabelled_clips_are_refused(people: Path, untrained: Path, tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("path,label\nblue/ann_0,blue\nred/ann_0,\n")
    source = DataSource(str(tmp_path / "list.csv"), "csv", {"videos": str(people)})
    with pytest.raises(UsageError, match="label"):
        read_clips(source)


# --------------------------------------------------------------------------------------------------- weights of others


@pytest.mark.slow
def test_a_name_with_weights_sees_pictures_as_imagenet_is_tested(people: Path, tmp_path: Path, ssan: Any) -> None:
    torch.manual_seed(2)
    weights = {name.removeprefix("backbone."): tensor for name, tensor in build("tsn_r18", 1).state_dict().items()
               if name.startswith("backbone.")}  # fmt: skip
    torch.save(weights, tmp_path / "r18.pth")
    labeller = labeller_of_weights("tsn_r18", str(tmp_path / "r18.pth"))
    own = labeller.preprocess
    assert (own.num_frames, own.resize, own.size_px, own.crop_px) == (8, "short_side", 256, 224)
    assert not labeller.model.training


@pytest.mark.slow
def test_a_network_of_volumes_with_weights_sees_what_it_was_published_with(tmp_path: Path) -> None:
    torch.manual_seed(2)
    weights = build("i3d", 1).state_dict()
    torch.save(weights, tmp_path / "i3d.pth")
    labeller = labeller_of_weights("i3d", str(tmp_path / "i3d.pth"))
    own = labeller.preprocess
    assert (own.num_frames, own.sampling, own.frames_per_second, own.crop_px) == (64, "dense", 25.0, 224)
    assert (labeller.name, labeller.model.training) == ("i3d", False)
    kept = labeller.model.state_dict()
    assert all(torch.equal(kept[name], weights[name]) for name in weights if name.startswith("backbone."))


@pytest.mark.slow
def test_a_head_on_frozen_features_is_what_training_with_a_frozen_backbone_could_find(
    people: Path, untrained: Path, tmp_path: Path
) -> None:
    """Both tell the colours apart from the same features; the one in closed form, the other by steps."""
    root = split(people, tmp_path / "split", "dan")
    labeller = load_labeller(untrained)
    found = probe(labeller, DataSource(str(root)), tmp_path / "probe", curve=False, quiet=True)
    recipe = make_recipe({
        **labeller.recipe.model_dump(), "init": str(untrained), "backbone_lr_scale": 0.0, "freeze_bn": True,
        "epochs": 8, "batch": 6, "lr": 0.5, "lr_rule": "none", "schedule": "constant", "dropout": 0.0, "flip": "off",
        "crop": "center", "weight_decay": 0.0,
    })  # fmt: skip
    trained = train(recipe, str(root), tmp_path / "train", quiet=True)
    assert found["top1"] >= trained["val_top1"] - 1e-9
    backbones = [load_labeller(path).model.backbone.state_dict() for path in (tmp_path / "probe", tmp_path / "train")]
    assert all(
        torch.equal(backbones[0][name], backbones[1][name]) for name in backbones[0] if "num_batches" not in name
    )


@pytest.mark.shared
@pytest.mark.slow
def test_a_frozen_mobilenet_knows_the_actions_of_persons_it_has_not_seen(tmp_path: Path, ssan: Any) -> None:
    weights = SHARED / "weights" / "mobilenet_v2_imagenet_dequantized_torchvision.pth"
    data = SHARED / "dataset" / "weizmann"
    if not (weights.is_file() and data.is_dir()):
        pytest.skip(f"no weights or no videos at {SHARED}")
    few = [path for path in data.glob("*/*.avi") if path.parent.name in ("bend", "jack", "wave2")]
    for path in few:
        if path.name.startswith(("daria", "ido", "moshe", "lena")):
            (tmp_path / "few" / path.parent.name).mkdir(parents=True, exist_ok=True)
            shutil.copy(path, tmp_path / "few" / path.parent.name)
    done = ssan(
        "probe", "tsn_mobilenet_v2", "--init", weights, "--data", tmp_path / "few", "--groups", "^([a-z]+)_",
        "--out", tmp_path / "run", "--no-curve", "--json", *COMMON,
    )  # fmt: skip
    assert done.json["num_test"] == 12
    assert done.json["top1"] > 0.8
    assert np.isfinite(done.json["interval95"]).all()
