"""The command line as other programs see it: exit status, one line for a mistake, JSON with the promised fields."""

import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
import typer

from ssan.cli.main import app
from ssan.errors import CODES

SETTINGS = ["crop_px=32", "size_px=32", "num_frames=4", "batch=8", "epochs=1", "crop=center", "flip=off"]


def all_numbers_are_finite(value: Any) -> bool:
    if isinstance(value, dict):
        return all(map(all_numbers_are_finite, value.values()))
    if isinstance(value, list):
        return all(map(all_numbers_are_finite, value))
    return not isinstance(value, float) or np.isfinite(value)


def test_help_names_every_command(ssan: Any) -> None:
    answer = ssan("--help")
    assert answer.code == 0
    for verb in (
        "demo",
        "train",
        "eval",
        "compare",
        "ensemble",
        "submission",
        "report",
        "predict",
        "info",
        "reproduce",
        "import",
        "models",
        "recipes",
        "data",
    ):
        assert verb in answer.out
    assert ssan().out == answer.out


def commands() -> list[list[str]]:
    """Every command, by the words that reach it; and the groups of commands."""
    found: list[list[str]] = [[]]

    def walk(command: Any, words: list[str]) -> None:
        for name, below in getattr(command, "commands", {}).items():
            found.append([*words, name])
            walk(below, [*words, name])

    walk(typer.main.get_command(app), [])
    return found


@pytest.mark.slow
@pytest.mark.parametrize("words", commands(), ids=lambda words: " ".join(["ssan", *words]))
def test_help_of_every_command_works_by_both_its_names(ssan: Any, words: list[str]) -> None:
    answer = ssan(*words, "--help")
    assert answer.code == 0
    assert f"Usage: {' '.join(['ssan', *words])}" in answer.out
    assert ssan(*words, "-h").out == answer.out


def test_the_version_is_that_of_the_package(ssan: Any) -> None:
    answer = ssan("--version")
    assert (answer.code, answer.out) == (0, f"{importlib.metadata.version('ssan')}\n")


@pytest.mark.slow
def test_train_answers_as_promised(ssan: Any, order_set: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    answer = ssan(
        "train", "--model", "tsn_tiny", "--data", order_set, "--out", out, "--json", "--workers", 0, *SETTINGS
    )
    assert answer.code == 0
    assert answer.json["schema"] == 1
    assert {
        "model", "num_train", "num_val", "num_skipped", "epochs", "steps", "best_epoch", "val_top1", "train_seconds",
        "resumed_from_step", "weights",
    } <= set(answer.json)  # fmt: skip
    assert set(answer.json["weights"]) >= {"matched", "missing", "unexpected"}
    assert all_numbers_are_finite(answer.json)
    assert "epoch 1/1" in answer.err


@pytest.mark.slow
def test_train_with_a_skipped_video_finishes_with_status_1(ssan: Any, order_set: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(order_set, data)
    next((data / "20bn-something-something-v2").iterdir()).write_text("not a video")
    common = ["--model", "tsn_tiny", "--data", data, "--json", "--quiet", "--workers", 0]
    refused = ssan("train", *common, "--out", tmp_path / "a", *SETTINGS)
    assert (refused.code, refused.out) == (2, "")
    assert refused.err.count("\n") == 1
    skipped = ssan("train", *common, "--out", tmp_path / "b", "--skip-bad", *SETTINGS)
    assert skipped.code == 1
    assert skipped.json["num_skipped"] == 1


@pytest.mark.slow
def test_eval_answers_as_promised(ssan: Any, order_set: Path, trained: Path, tmp_path: Path) -> None:
    scores = tmp_path / "scores.npz"
    answer = ssan(
        "eval", trained, "--data", order_set, "--split", "test", "--probe", "--views", 2, "--scores", scores, "--json",
        "--workers", 0,
    )  # fmt: skip
    assert answer.code == 0
    got = answer.json
    assert set(got) >= {
        "schema", "num_scored", "num_missing", "num_failed", "top1", "top5", "mean_class_accuracy", "interval95",
        "protocol", "probe", "per_class",
    }  # fmt: skip
    assert set(got["protocol"]) >= {"num_frames", "views", "crops", "resize", "crop_px", "average"}
    assert set(got["probe"]) == {"reversed_top1", "shuffled_top1", "reversed_same_prediction"}
    assert (got["num_scored"], got["num_missing"], got["num_failed"]) == (6, 0, 0)
    assert got["interval95"][0] <= got["top1"] <= got["interval95"][1]
    assert got["top5"] is None  # of four classes
    assert sum(row["num"] for row in got["per_class"]) == 6
    with np.load(scores) as file:
        assert set(file) == {"ids", "scores", "labels", "class_names", "protocol"}
        assert file["scores"].shape == (6, 4)
        assert (file["scores"].argmax(axis=1) == file["labels"]).mean() == got["top1"]
        assert json.loads(str(file["protocol"]))["views"] == 2


@pytest.mark.slow
def test_eval_counts_missing_and_broken_videos_beside_the_accuracy(
    ssan: Any, order_set: Path, trained: Path, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    shutil.copytree(order_set, data)
    ids = [entry["id"] for entry in json.loads((data / "something-something-v2-test.json").read_text())]
    videos = data / "20bn-something-something-v2"
    (videos / f"{ids[0]}.webm").unlink()
    (videos / f"{ids[1]}.webm").write_bytes(b"\x00" * 2000)
    answer = ssan("eval", trained, "--data", data, "--split", "test", "--json", "--workers", 0)
    assert answer.code == 1
    assert (answer.json["num_scored"], answer.json["num_missing"], answer.json["num_failed"]) == (4, 1, 1)
    (failed,) = answer.json["failed"]
    assert set(failed) == {"path", "code", "message", "line"}
    assert failed["code"] == "not_video"


@pytest.mark.slow
def test_eval_of_a_model_for_other_classes_is_refused(ssan: Any, trained: Path, tmp_path: Path) -> None:
    for label in ("jump", "run"):
        (tmp_path / "data" / "val" / label).mkdir(parents=True)
        (tmp_path / "data" / "train" / label).mkdir(parents=True)
    answer = ssan("eval", trained, "--data", tmp_path / "data", "--json")
    assert answer.code == 2
    assert "classes" in answer.err


@pytest.mark.slow
def test_predict_prints_one_object_a_line_in_the_order_asked(
    ssan: Any, order_set: Path, trained: Path, tmp_path: Path
) -> None:
    videos = sorted((order_set / "20bn-something-something-v2").iterdir())[:3]
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"")
    paths = [videos[2], broken, videos[0], tmp_path / "absent.mp4"]
    answer = ssan("predict", trained, *paths, "--top", 2, "--json")
    assert answer.code == 1
    assert [line["path"] for line in answer.lines] == [str(path) for path in paths]
    first, second, third, fourth = answer.lines
    assert (first["ok"], second["ok"], third["ok"], fourth["ok"]) == (True, False, True, False)
    assert set(first) >= {"path", "ok", "num_frames", "duration_seconds", "top"}
    assert len(first["top"]) == 2
    assert set(first["top"][0]) == {"label", "index", "score"}
    assert first["top"][0]["score"] >= first["top"][1]["score"]
    assert first["duration_seconds"] == pytest.approx(first["num_frames"] / 12, abs=0.02)
    assert (second["error"]["code"], fourth["error"]["code"]) == ("empty", "missing")
    assert set(second["error"]) == {"path", "code", "message", "line"}
    assert second["error"]["code"] in CODES


@pytest.mark.slow
def test_a_video_that_is_cut_off_is_labelled_and_said_to_be(
    ssan: Any, order_set: Path, trained: Path, tmp_path: Path
) -> None:
    path = tmp_path / "cut.avi"
    with av.open(str(path), "w") as output:
        stream = output.add_stream("mpeg4", rate=12)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(40):
            picture = np.random.default_rng(number).integers(0, 255, (48, 64, 3), np.uint8)
            output.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        output.mux(stream.encode())
    assert "warning" not in ssan("predict", trained, path, "--json").json
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    answer = ssan("predict", trained, path, "--json")
    assert (answer.code, answer.json["ok"], answer.json["warning"]["code"]) == (0, True, "truncated")
    assert "the video ends before its file says it does" in answer.err


@pytest.mark.slow
def test_a_name_that_is_not_utf8_comes_back_byte_by_byte(order_set: Path, trained: Path, tmp_path: Path) -> None:
    video = next((order_set / "20bn-something-something-v2").iterdir())
    name = os.fsencode(tmp_path) + b"/\xff\nx.webm"
    shutil.copy(video, os.fsdecode(name))
    for json_wanted in (True, False):
        run = subprocess.run(
            [sys.executable, "-m", "ssan", "predict", str(trained), name, *(["--json"] if json_wanted else [])],
            capture_output=True,
            check=False,
        )
        assert (run.returncode, run.stderr) == (0, b"")
        if json_wanted:
            assert os.fsencode(json.loads(run.stdout)["path"]) == name
        else:  # but for what would begin a line of its own
            assert run.stdout.startswith(name.replace(b"\n", b"\\n") + b": ")


@pytest.mark.slow
def test_a_refusal_shows_no_control_characters(ssan: Any) -> None:
    answer = ssan("predict", "a\x1b[31m\nb\u202e", "x.mp4")
    assert answer.code == 2
    assert "a\\x1b[31m b\\u202e" in answer.err
    assert answer.err.rstrip("\n").isprintable()


def test_a_path_that_is_too_long_is_one_line(ssan: Any, order_set: Path) -> None:
    for arguments in (
        ["train", "--recipe", "x" * 300, "--data", order_set, "--out", "o"],
        ["train", "--model", "tsn_tiny", "--data", order_set, "--out", "o", "--init", "x" * 300],
        ["data", "list", "--data", "x" * 300],
        ["data", "list", "--data", "x" * 300 + ".csv"],
    ):
        answer = ssan(*arguments)
        assert answer.code == 2
        assert answer.err.count("\n") == 1


def test_scores_of_all_labels_are_shares_that_sum_to_one(ssan: Any, order_set: Path, trained: Path) -> None:
    video = next((order_set / "20bn-something-something-v2").iterdir())
    answer = ssan("predict", trained, video, "--top", 99, "--json")
    assert sum(best["score"] for best in answer.lines[0]["top"]) == pytest.approx(1)


@pytest.mark.slow
def test_predict_takes_a_folder_of_pictures_as_one_video_and_walks_any_other(
    ssan: Any, order_set: Path, trained: Path, tmp_path: Path
) -> None:
    import simplejpeg

    frames = tmp_path / "all" / "b_frames"
    frames.mkdir(parents=True)
    for number in range(5):
        picture = np.full((40, 40, 3), 40 * number, np.uint8)
        (frames / f"{number:05d}.jpg").write_bytes(simplejpeg.encode_jpeg(picture))
    video = next((order_set / "20bn-something-something-v2").iterdir())
    shutil.copy(video, tmp_path / "all" / "a.webm")
    (tmp_path / "all" / "notes.txt").write_text("not looked at")
    answer = ssan("predict", trained, tmp_path / "all", "--json")
    assert [Path(line["path"]).name for line in answer.lines] == ["a.webm", "b_frames"]
    assert answer.lines[1]["num_frames"] == 5
    assert ssan("predict", trained, frames, "--json").lines[0]["num_frames"] == 5
    (tmp_path / "nothing").mkdir()
    empty = ssan("predict", trained, tmp_path / "nothing", "--json")
    assert (empty.code, empty.lines[0]["error"]["code"]) == (1, "empty")


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A shifting network with TSM's names, in a file named as TSM's code does, for the rendered set's four classes."""
    import torch

    from ssan.models.catalogue import build
    from ssan.weights.layouts import LAYOUTS, names_in

    model = build("tsm_tiny", 4)
    names = names_in(LAYOUTS["tsm"], model, "new_fc.")
    assert names is not None
    state = {f"module.{names[key]}": tensor for key, tensor in model.state_dict().items()}
    path = tmp_path / "TSM_order_RGB_resnet50_shift8_blockres_avg_segment5_e50.pth.tar"
    torch.save({"epoch": 50, "arch": "resnet50", "state_dict": state, "best_prec1": np.float64(45.6)}, path)
    return path


def test_import_answers_as_promised_and_its_model_file_works_at_once(
    ssan: Any, order_set: Path, checkpoint: Path, tmp_path: Path
) -> None:
    out = tmp_path / "tsm" / "model.safetensors"
    labels = order_set / "something-something-v2-labels.json"
    answer = ssan("import", checkpoint, "--as", "tsm_tiny", "-o", out, "--classes", labels, "--json")
    assert answer.code == 0
    got = answer.json
    assert (got["schema"], got["layout"], got["missing"], got["unexpected"]) == (1, "tsm", [], [])
    assert got["matched"] == 80
    assert (got["model"], got["num_classes"], got["file"]) == ("tsm_tiny", 4, str(out))
    assert got["preprocess"]["num_frames"] == 5
    assert answer.err.splitlines() == [f"ssan: {note}" for note in got["notes"]]
    assert any("num_frames=5" in note for note in got["notes"])
    video = next((order_set / "20bn-something-something-v2").iterdir())
    line = ssan("predict", out.parent, video, "--top", 4, "--json").lines[0]
    assert {best["label"] for best in line["top"]} == set(json.loads(labels.read_text()))
    scored = ssan("eval", out, "--data", order_set, "--split", "test", "--json", "--workers", 0)
    assert (scored.code, scored.json["num_scored"]) == (0, 6)


def test_import_tells_people_what_was_placed_and_without_names_that_classes_are_numbers(
    ssan: Any, checkpoint: Path, tmp_path: Path
) -> None:
    answer = ssan("import", checkpoint, "--as", "tsm_tiny", "-o", tmp_path / "m.safetensors", "num_frames=3")
    assert answer.out == f"{tmp_path / 'm.safetensors'}: tsm_tiny, 80 tensors by the names of tsm, 4 classes\n"
    assert "no class names were given, so they are 0 to 3; give them with --classes" in answer.err
    quiet = ssan("import", checkpoint, "--as", "tsm_tiny", "-o", tmp_path / "m.safetensors", "--quiet")
    assert (quiet.code, quiet.err) == (0, "")


@pytest.mark.slow
def test_import_refuses_another_network_in_one_line_and_writes_nothing(
    ssan: Any, checkpoint: Path, tmp_path: Path
) -> None:
    out = tmp_path / "m.safetensors"
    answer = ssan("import", checkpoint, "--as", "tsn_tiny", "-o", out, "--json")
    assert (answer.code, answer.out, answer.err.count("\n")) == (2, "", 1)
    assert (
        "3 not in the model (base_model.layer1.0.conv1.net.weight, base_model.layer2.0.conv1.net.weight" in answer.err
    )
    assert "It fits tsm_tiny; import it with --as tsm_tiny" in answer.err
    assert not out.exists()


def test_models_answers_as_promised(ssan: Any) -> None:
    rows = ssan("models", "--json").json["models"]
    named = {row["name"]: row for row in rows}
    assert set(named) >= {
        f"{family}_{backbone}"
        for family in ("tsn", "tsm", "ssan")
        for backbone in ("r18", "r34", "r50", "r101", "mobilenet_v2", "tiny")
    }
    for row in rows:
        assert set(row) >= {
            "name", "family", "backbone", "layer", "places", "params", "macs", "num_frames", "size_px", "knows_order",
        }  # fmt: skip
    assert named["tsn_r50"]["macs"] < named["ssan_r50"]["macs"]
    assert named["tsn_r50"]["knows_order"] is False
    assert not any("latency_seconds" in row for row in rows)


def test_models_by_name_are_listed_with_what_they_cost(ssan: Any) -> None:
    (row,) = ssan("models", "tsm_tiny", "--cost", "--runs", 2, "--json").json["models"]
    assert row["name"] == "tsm_tiny"
    assert row["latency_runs"] == 2
    assert {
        "train_activation_bytes", "inference_activation_bytes", "latency_seconds", "latency_threads",
    } <= set(row)  # fmt: skip
    shown = ssan("models", "tsm_tiny", "tsn_tiny", "--cost", "--runs", 1)
    assert [line.split()[0] for line in shown.out.splitlines()] == ["name", "tsm_tiny", "tsn_tiny", "one"]
    assert shown.err == ""


def test_models_are_compared_from_their_score_files(ssan: Any, order_set: Path, trained: Path, tmp_path: Path) -> None:
    for name, options in [("a.npz", []), ("b.npz", ["--views", 3])]:
        scores = ["--scores", tmp_path / name]
        assert (
            ssan("eval", trained, "--data", order_set, "--split", "test", *scores, *options, "--workers", 0).code == 0
        )
    answer = ssan("compare", tmp_path / "a.npz", tmp_path / "b.npz", "--json")
    assert answer.code == 0
    assert answer.json["num_videos"] == 6
    assert set(answer.json["protocol_differences"]) == {"views"}
    assert sum(answer.json["counts"].values()) == 6
    same = ssan("compare", tmp_path / "a.npz", tmp_path / "a.npz", "--json")
    assert same.json["difference"] == 0
    assert same.json["difference_interval95"] == [0, 0]
    assert (same.json["mcnemar"]["exact_p"], same.err) == (1, "")


def test_recipes_are_listed_shown_and_copied(ssan: Any, tmp_path: Path) -> None:
    names = [row["name"] for row in ssan("recipes", "list", "--json").json["recipes"]]
    assert "demo/ssan_tiny" in names
    shown = ssan("recipes", "show", "demo/ssan_tiny").out
    assert ssan("recipes", "copy", "demo/ssan_tiny", tmp_path).code == 0
    assert (tmp_path / "ssan_tiny.yaml").read_text() == shown
    again = ssan("recipes", "copy", "demo/ssan_tiny", tmp_path)
    assert again.code == 2
    unknown = ssan("recipes", "show", "demo/ssan_tinny")
    assert unknown.code == 2
    assert "Did you mean 'demo/ssan_tiny'" in unknown.err
    bare = ssan("recipes")
    assert (bare.code, bare.out) == (0, ssan("recipes", "list").out)
    assert ssan("recipes", "--json").json == ssan("recipes", "list", "--json").json


def test_synth_renders_what_list_then_lists(ssan: Any, tmp_path: Path) -> None:
    out = tmp_path / "clips"
    made = ssan("data", "synth", out, "--task", "relation", "--videos", 20, "--seed", 3, "--size-px", 32, "--json")
    assert made.code == 0
    assert made.json["num_videos"] == 20
    listed = ssan("data", "list", "--data", out, "--split", "all", "--json")
    assert listed.code == 0
    assert len(listed.lines) == 20
    for line in listed.lines:
        assert set(line) == {
            "id", "path", "label", "label_index", "start_seconds", "end_seconds", "num_frames", "caption", "exists",
            "split", "video", "start_frame", "end_frame",
        }  # fmt: skip
        assert isinstance(line["id"], str)
        assert line["exists"] is True
        assert Path(line["path"]).is_file()


MISTAKES = [
    (["trian"], "trian"),
    (["train", "--model", "ssan_tiny"], "--data"),
    (["train", "--model", "ssan_tny", "--data", "{data}", "--out", "{out}"], "Did you mean 'ssan_tiny'"),
    (["train", "--data", "{data}", "--out", "{out}"], "--model NAME or --recipe FILE"),
    (["train", "--recipe", "demo/ssan_tinny", "--data", "{data}", "--out", "{out}"], "Did you mean 'demo/ssan_tiny'"),
    (["train", "--recipe", "ssan_mobilenet_v2", "--data", "{data}", "--out", "{out}"], "'finetune/ssan_mobilenet_v2'"),
    (["train", "--model", "x_tiny", "--recipe", "demo/ssan_tiny", "--data", "{data}", "--out", "{out}"], "'x_tiny'"),
    (["retrieval", "train", "--captions", "{data}", "--features", "f", "--out", "{out}", "--margin", "1"], "margin=1"),
    (["predict", "{run}", "x.mp4", "--epochs", "3"], "No such option: --epochs"),
    (["models", "{run}"], "`ssan info"),
    (["recipes", "keys", "epoch"], "Did you mean 'epochs'"),
    (["recipes", "--json", "show", "demo/ssan_tiny"], "ssan recipes show --json"),
    (["info", "absent"], "absent: no such file or folder"),
    (["info", "{data}"], "`ssan data describe`"),
    (["info", "{data}/something-something-v2-labels.json"], "not a model file"),
    (["train", "--model", "ssan_tiny", "--data", "{data}", "--out", "{out}", "epoch=3"], "Did you mean 'epochs'"),
    (["train", "--model", "ssan_tiny", "--data", "{data}", "--out", "{out}", "epochs=three"], "epochs"),
    (["train", "--model", "ssan_tiny", "--data", "{data}", "--out", "{out}", "epochs"], "key=value"),
    (["train", "--model", "ssan_tiny", "--data", "{data}", "--out", "{out}", "layer.chanels=3"], "chanels"),
    (["train", "--model", "tsn_tiny", "--data", "{data}", "--out", "{out}", "layer.e=3"], "no layer"),
    (["train", "--model", "tsn_tiny", "--data", "{data}", "--out", "{out}", "--init", "absent.pth"], "absent.pth"),
    (["train", "--model", "tsn_tiny", "--data", "absent", "--out", "{out}"], "absent"),
    (["train", "--recipe", "absent.yaml", "--data", "{data}", "--out", "{out}"], "absent.yaml"),
    (["eval", "absent.safetensors", "--data", "{data}"], "absent.safetensors"),
    (["eval", "{run}", "--data", "{data}", "--crops", "4"], "expected 1, 3 or 10"),
    (["eval", "{run}", "--data", "{data}", "--split", "tset"], "Did you mean 'test'"),
    (["eval", "{run}", "--data", "{data}", "--scores", "{out}.csv"], ".npz"),
    (["eval", "{run}", "--data", "{data}", "--device", "cuda"], "cuda"),
    (["predict", "{data}/something-something-v2-labels.json", "x.mp4"], "not a model file"),
    (["import", "absent.pth", "--as", "tsm_tiny", "-o", "{out}"], "absent.pth: no such weights file"),
    (["import", "{run}/recipe.yaml", "--as", "tsm_tny", "-o", "{out}"], "Did you mean 'tsm_tiny'"),
    (["import", "{run}/recipe.yaml", "--as", "tsm_tiny", "-o", "{out}"], "not a readable weights file"),
    (["import", "{run}/recipe.yaml", "--as", "tsm_tiny", "-o", "{out}", "frames=8"], "unknown key 'frames'"),
    (["import", "{run}/recipe.yaml", "--as", "tsm_tiny"], "'--out'"),
    (["models", "ssan_tinny", "--cost"], "Did you mean 'ssan_tiny'"),
    (["compare", "absent.npz", "absent.npz"], "absent.npz"),
    (["compare", "{data}/something-something-v2-labels.json", "b.npz"], "expected a score file"),
    (["data", "list", "--data", "{data}", "--format", "sthv3"], "Did you mean 'sthv2'"),
    (["data", "list", "--data", "{data}", "--reader", "colour=red"], "colour"),
    (["data", "synth", "{out}", "--task", "ordr", "--videos", "9"], "Did you mean 'order'"),
    (["data", "synth", "{out}", "--task", "order", "--videos", "0"], "videos"),
    (["data"], "command"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("arguments", "expected"), MISTAKES, ids=lambda value: " ".join(value)[:60])
def test_a_mistake_prints_one_line_that_names_it_and_exits_with_2(
    arguments: list[str], expected: str, ssan: Any, order_set: Path, trained: Path, tmp_path: Path
) -> None:
    filled = [a.format(data=order_set, out=tmp_path / "out", run=trained) for a in arguments]
    if "cuda" in filled:
        import torch

        if torch.cuda.is_available():
            pytest.skip("there is a CUDA device here, so asking for one is no mistake")
    answer = ssan(*filled)
    assert answer.code == 2
    assert answer.out == ""
    assert answer.err.count("\n") == 1, answer.err
    assert expected.lower() in answer.err.lower()


def test_a_mistake_in_a_recipe_names_file_line_and_the_nearest_key(ssan: Any, order_set: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("model: ssan_tiny\n# a comment\nepochs: 3\nlearning: 0.1\nbatchs: 4\n")
    answer = ssan("train", "--recipe", recipe, "--data", order_set, "--out", tmp_path / "out")
    assert answer.code == 2
    assert f"{recipe} line 4: unknown key 'learning'" in answer.err
    recipe.write_text("model: ssan_tiny\nbatchs: 4\n")
    answer = ssan("train", "--recipe", recipe, "--data", order_set, "--out", tmp_path / "out")
    assert "line 2: unknown key 'batchs'. Did you mean 'batch'?" in answer.err


def test_the_installed_command_is_this_one() -> None:
    run = subprocess.run([sys.executable, "-m", "ssan", "trian"], capture_output=True, text=True, check=False)
    assert run.returncode == 2
    assert run.stderr.startswith("ssan: ")


@pytest.mark.slow
def test_a_reader_that_goes_away_is_no_error(order_set: Path) -> None:
    """`ssan data list ... | head -1` ends quietly."""
    command = f"{sys.executable} -m ssan data list --data '{order_set}' --json | head -n 1"
    run = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, check=False)
    assert json.loads(run.stdout)["id"]
    assert run.stderr == ""


def test_a_place_that_cannot_be_written_is_one_line(ssan: Any, order_set: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    answer = ssan("train", "--model", "tsn_tiny", "--data", order_set, "--out", tmp_path / "file" / "run", "--quiet")
    assert answer.code == 2
    assert answer.err.count("\n") == 1
    assert str(tmp_path / "file") in answer.err


# ------------------------------------------------------------------------------------------- where output goes


def shell(line: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-o", "pipefail", "-c", line.replace("ssan ", f"{sys.executable} -m ssan ")],
        capture_output=True, text=True, check=False, env={**os.environ, **environment}, timeout=300,
    )  # fmt: skip


ASCII = {"PYTHONIOENCODING": "ascii"}
C_LOCALE = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
FULL = "ssan: standard output cannot be written (No space left on device); the answer is lost, run again\n"


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no device that is always full")
@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("command", ["--help", "recipes list", "recipes list --json"])
def test_an_answer_that_a_full_device_does_not_take_is_one_line_and_status_1(command: str, unbuffered: str) -> None:
    run = shell(f"ssan {command} >/dev/full", PYTHONUNBUFFERED=unbuffered)
    assert (run.returncode, run.stderr) == (1, FULL)


@pytest.mark.slow
@pytest.mark.parametrize("command", ["--help", "recipes list", "recipes show table1/ssa_8f"])
def test_a_reader_that_has_gone_is_no_error_whatever_is_printed(command: str) -> None:
    run = shell(f"ssan {command} | true; echo ${{PIPESTATUS[0]}}")
    assert (run.stdout, run.stderr) == ("0\n", "")


@pytest.mark.slow
def test_work_is_done_where_standard_error_is_closed_full_or_read_by_nobody(tmp_path: Path) -> None:
    command = "ssan recipes list --json"
    expected = shell(command).stdout
    assert expected
    for where in ("2>&-", "2>/dev/full", "2> >(true)"):
        run = shell(f"{command} {where}")
        assert (run.returncode, run.stdout) == (0, expected), where
    # A file that is opened later does not get the place of what is closed, and its content.
    assert shell(f"ssan recipes copy demo/ssan_tiny '{tmp_path}/r.yaml' >&- 2>&- <&-").returncode == 0
    assert (tmp_path / "r.yaml").read_text() == shell("ssan recipes show demo/ssan_tiny").stdout


@pytest.mark.slow
@pytest.mark.parametrize("encoding", [ASCII, C_LOCALE])
def test_what_the_encoding_lacks_is_escaped(tmp_path: Path, encoding: dict[str, str]) -> None:
    (tmp_path / "a" / "Caf\u00e9").mkdir(parents=True)
    run = shell(f"ssan recipes copy demo/ssan_tiny '{tmp_path}/a/Caf\u00e9/r.yaml'", **encoding)
    assert (run.returncode, run.stderr) == (0, "")
    assert run.stdout.endswith(("Caf\\xe9/r.yaml\n", "Caf\\udcc3\\udca9/r.yaml\n"))
    again = shell(f"ssan recipes copy demo/ssan_tiny '{tmp_path}/a/Caf\u00e9/r.yaml'", **encoding)
    assert again.returncode == 2
    assert again.stderr.count("\n") == 1


def test_sigterm_ends_a_command_with_143_and_takes_its_temporary_files_along(tmp_path: Path) -> None:
    code = f"""
import time
from ssan.cli import main
from ssan.files import writing
def work(arguments):
    with writing({str(tmp_path / "out")!r}) as handle:
        handle.write("half")
        main.print("begun", flush=True)
        time.sleep(300)
main.status = work
main.run()
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as run:
        assert run.stdout is not None
        assert run.stdout.readline() == b"begun\n"
        assert os.listdir(tmp_path)
        run.terminate()
        _, err = run.communicate(timeout=120)
    assert (run.returncode, err) == (143, b"")
    assert os.listdir(tmp_path) == []


FORGED = "a\x1b[2J\x07\x9b\u202eb\u2028\nssan: all is well"


@pytest.mark.slow
def test_a_terminal_is_told_nothing_by_names_and_labels(ssan: Any, tmp_path: Path) -> None:
    """Neither control nor bidirectional characters, nor a line that is not ours."""
    videos = tmp_path / "root" / "train" / "walk"
    videos.mkdir(parents=True)
    (videos / f"{FORGED}.mp4").write_bytes(b"no video")
    shown = r"a\x1b[2J\x07\x9b\u202eb\u2028\nssan: all is well"
    for more in ((), ("--json",)):
        for command in (("list", "--split", "train"), ("check", "--split", "train"), ("describe",)):
            answer = ssan("data", *command, "--data", tmp_path / "root", *more)
            printed = answer.out + answer.err
            assert all(letter in "\n\t" or letter.isprintable() for letter in printed)
            assert not any(line.startswith("ssan: all is well") for line in printed.splitlines())
    (answer,) = ssan("data", "list", "--split", "train", "--data", tmp_path / "root", "--json").lines
    assert os.path.basename(answer["path"]) == f"{FORGED}.mp4"
    assert shown in ssan("data", "list", "--split", "train", "--data", tmp_path / "root").out


def test_what_no_command_prints_itself_is_shown_too() -> None:
    """Warnings, the log, and progress: whatever is written on either stream."""
    code = f"""
import sys, warnings
from ssan.cli import screen
screen.open_screens()
warnings.warn({FORGED!r})
sys.stdout.write({FORGED!r})
sys.stderr.write("\\x1b[A")
sys.stderr.write("\\r 50%")
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    said = run.stdout + run.stderr.replace(b"\x1b[A\r 50%", b"")
    assert said.count(b"\\x1b[2J\\x07\\x9b\\u202eb\\u2028") == 2
    assert not any(code in said for code in (b"\x1b", b"\x07", b"\xc2\x9b", "\u202e".encode()))


# --------------------------------------------------------------------------------------------------- no memory


def ask_for_more_than_there_is(kind: str) -> None:
    if kind == "torch":
        torch.empty(2**60, dtype=torch.uint8)
    elif kind == "numpy":
        np.ones((2**50, 3))
    elif kind == "python":
        bytearray(2**62)
    elif kind == "gpu":
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")
    else:
        raise OSError(12, "Cannot allocate memory")


@pytest.mark.parametrize("kind", ["torch", "numpy", "python", "gpu", "a process"])
def test_a_lack_of_memory_is_one_line_with_what_helps(ssan: Any, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ssan.recognition.train.train", lambda *_, **__: ask_for_more_than_there_is(kind))
    answer = ssan("train", "--model", "tsn_tiny", "--data", "nowhere", "--out", "nowhere")
    assert answer.code == 2
    assert answer.err.startswith("ssan: the memory does not suffice")
    assert "lower batch, num_frames, size_px and crop_px" in answer.err
    assert answer.err.count("\n") == 1
    if kind in ("torch", "numpy", "gpu"):
        assert "were asked for" in answer.err


def test_a_defect_of_ours_is_not_called_a_lack_of_memory(ssan: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object, **__: object) -> None:
        raise RuntimeError("shapes do not fit")

    monkeypatch.setattr("ssan.recognition.train.train", fails)
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        ssan("train", "--model", "tsn_tiny", "--data", "nowhere", "--out", "nowhere")
