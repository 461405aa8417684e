"""The threshold below which a video is none of the classes: chosen by scores worked by hand, kept, and used."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from coloured_clips import write_clip, write_people
from ssan.errors import ModelError, UsageError
from ssan.models.catalogue import build
from ssan.recipe import make_recipe
from ssan.recognition.threshold import choose_threshold, top_shares
from ssan.weights.classifier_file import keep_threshold, load_labeller, save_labeller
from ssan.weights.model_file import read_model_file

COMMON = ("--workers", "0", "--quiet", "--device", "cpu")


def scores(*shares: float) -> np.ndarray:
    """Logits of two classes of which the first has these shares."""
    first = np.array(shares)
    return np.log(np.stack([first, 1 - first], axis=1))


# Of each the first class is the likeliest; it is right of the first four, and wrong of the others.
SCORES = scores(0.95, 0.85, 0.75, 0.65, 0.9, 0.8, 0.7, 0.6)
LABELS = np.array([0, 0, 0, 0, 1, 1, 1, 1])


def test_the_share_of_the_likeliest_class_is_that_of_the_softmax() -> None:
    np.testing.assert_allclose(top_shares(np.array([[0.0, np.log(3.0)], [1000.0, 1000.0]])), [0.75, 0.5])


@pytest.mark.parametrize(
    ("wanted", "threshold", "alarms", "right"),
    [(0.25, 0.825, 1, 0.5), (0.2, 0.925, 0, 0.25), (0.5, 0.725, 2, 0.75), (0.75, 0.625, 3, 1.0)],
)
def test_of_wrong_answers_at_most_the_share_asked_for_is_given(
    wanted: float, threshold: float, alarms: int, right: float
) -> None:
    found = choose_threshold(SCORES, LABELS, wanted)
    assert found.threshold == pytest.approx(threshold)
    assert (found.of, found.num, found.num_false_alarms, found.num_right) == ("wrong", 4, alarms, 4)
    answer = found.as_dict()
    assert answer["false_alarms"] == alarms / 4 <= wanted
    assert answer["right_answered"] == right
    low, high = answer["interval95"]
    assert low <= alarms / 4 <= high


def test_videos_of_no_class_take_the_place_of_wrong_answers() -> None:
    found = choose_threshold(SCORES, LABELS, 0.5, scores(0.99, 0.5))
    # 0.5 must have no answer, 0.99 may; the next higher share among right answers is 0.65.
    assert (found.of, found.num, found.num_false_alarms) == ("none", 2, 1)
    assert found.threshold == pytest.approx((0.5 + 0.65) / 2)
    assert found.num_right_answered == 4


def test_of_equal_shares_all_have_no_answer_where_one_must_not() -> None:
    found = choose_threshold(scores(0.8, 0.8, 0.8, 0.8, 0.9), np.array([1, 1, 1, 1, 0]), 0.5)
    assert found.num_false_alarms == 0
    assert found.threshold == pytest.approx(0.85)


def test_above_the_highest_share_the_threshold_lies_between_it_and_one() -> None:
    found = choose_threshold(scores(0.8, 0.7), np.array([1, 0]), 0.05)
    assert found.threshold == pytest.approx(0.9)
    assert (found.num_false_alarms, found.num_right_answered) == (0, 0)


def test_what_no_threshold_can_do_is_refused() -> None:
    with pytest.raises(UsageError, match="no video was answered wrongly"):
        choose_threshold(SCORES[:4], LABELS[:4], 0.05)
    with pytest.raises(UsageError, match="1 of 1 videos that should have no answer have one with a share of 1"):
        choose_threshold(np.array([[1000.0, 0.0]]), np.array([1]), 0.05)
    with pytest.raises(UsageError, match="between 0 and 1"):
        choose_threshold(SCORES, LABELS, 1.0)


# --------------------------------------------------------------------------------------------- the commands


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A network that is not trained, of the colours of ``people``, whose answers differ from clip to clip."""
    torch.manual_seed(1)
    network = build("tsn_tiny", 3)
    torch.nn.init.normal_(network.fc.weight, std=3.0)
    recipe = make_recipe({"model": "tsn_tiny", "num_frames": 3, "size_px": 32, "crop_px": 32})
    path = tmp_path / "model.safetensors"
    save_labeller(path, network, ["blue", "green", "red"], recipe, {"top1": 0.5})
    return path


@pytest.mark.slow
def test_a_threshold_is_chosen_kept_and_used(people: Path, model: Path, tmp_path: Path, ssan: Any) -> None:
    before = load_labeller(model)
    assert before.threshold is None
    assert "none" not in ssan("predict", model, people / "red" / "ann_0", "--json", *COMMON).json
    done = ssan(
        "eval", model, "--data", people, "--split", "all", "--choose-threshold", 0.2, "--write", "--json", *COMMON
    )
    assert done.code == 0, done.err
    chosen = done.json["threshold"]
    assert chosen["of"] == "wrong"
    assert chosen["num"] == done.json["num_wrong"] > 0
    assert chosen["num_false_alarms"] <= 0.2 * chosen["num"]
    after = load_labeller(model)
    assert after.threshold == chosen["threshold"]
    assert (after.hash, after.classes, after.protocol) == (before.hash, before.classes, before.protocol)
    assert read_model_file(model)[1]["threshold"]["num_false_alarms"] == chosen["num_false_alarms"]

    answers = [json.loads(line) for line in ssan("predict", model, people, "--json", *COMMON).out.splitlines()]
    assert len(answers) == 24
    wrong = [answer for answer in answers if answer["top"][0]["label"] != Path(answer["path"]).parent.name]
    given = [answer for answer in wrong if not answer["none"]]
    assert (len(wrong), len(given)) == (chosen["num"], chosen["num_false_alarms"])
    for answer in answers:
        assert answer["none"] is (answer["top"][0]["score"] < chosen["threshold"])


@pytest.mark.slow
def test_a_number_goes_before_the_file_s_own_and_words_say_none(model: Path, people: Path, ssan: Any) -> None:
    video = people / "red" / "ann_0"
    done = ssan("predict", model, video, "--threshold", "file", *COMMON)
    assert done.code == 2
    assert "no threshold" in done.err
    keep_threshold(model, {"threshold": 1.0})
    assert ssan("predict", model, video, *COMMON).out.startswith(f"{video}: none of these: ")
    assert ssan("predict", model, video, "--threshold", "file", "--json", *COMMON).json["none"] is True
    assert ssan("predict", model, video, "--threshold", "0", "--json", *COMMON).json["none"] is False
    for word in ("1.5", "nan", "much"):
        done = ssan("predict", model, video, "--threshold", word, *COMMON)
        assert done.code == 2
        assert "--threshold" in done.err


def test_videos_of_none_of_the_classes_are_scored_too(people: Path, model: Path, tmp_path: Path, ssan: Any) -> None:
    write_clip(tmp_path / "none" / "grey", (90, 90, 90), 1.0, 1)
    write_clip(tmp_path / "none" / "white", (250, 250, 250), 1.0, 2)
    before = model.read_bytes()
    done = ssan(
        "eval", model, "--data", people, "--split", "all", "--choose-threshold", 0.4, "--none", tmp_path / "none",
        "--json", *COMMON,
    )  # fmt: skip
    assert done.code == 0, done.err
    assert (done.json["threshold"]["of"], done.json["threshold"]["num"]) == ("none", 2)
    assert done.json["threshold"]["num_false_alarms"] == 0
    assert done.json["num_scored"] == 24
    assert model.read_bytes() == before


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--choose-threshold", "1.2"), "between 0 and 1"),
        (("--write",), "--write goes with a threshold"),
        (("--none", "x"), "--none goes with a threshold"),
        (("--choose-threshold", "0.1", "--views", "2"), "in one view"),
    ],
)
def test_what_goes_with_no_threshold_is_refused(
    words: tuple[str, ...], said: str, people: Path, model: Path, ssan: Any
) -> None:
    done = ssan("eval", model, "--data", people, "--split", "all", *words, *COMMON)
    assert done.code == 2
    assert said in done.err


def test_a_file_whose_threshold_is_no_share_is_refused(model: Path) -> None:
    keep_threshold(model, {"threshold": "high"})
    with pytest.raises(ModelError, match="its threshold is 'high'"):
        load_labeller(model)


# ------------------------------------------------------------------------------------------- wrong answers


def test_eval_names_the_wrong_ones_the_worst_first_and_writes_all(
    people: Path, model: Path, tmp_path: Path, ssan: Any
) -> None:
    from ssan.datasets import read

    done = ssan("eval", model, "--data", people, "--split", "all", "--wrong", tmp_path / "w.csv", "--json", *COMMON)
    assert done.code == 0, done.err
    answer = done.json
    assert answer["num_wrong"] == len(answer["wrong"]) == round((1 - answer["top1"]) * 24) > 0
    told = [row["probability"] for row in answer["wrong"]]
    assert told == sorted(told)
    labels = {row["path"]: Path(row["path"]).parent.name for row in answer["wrong"]}
    assert all(row["label"] == labels[row["path"]] != row["predicted"] for row in answer["wrong"])
    lines = (tmp_path / "w.csv").read_text(encoding="utf-8").splitlines()
    assert lines[0].startswith("path,label,predicted,score,probability,id")
    assert [line.split(",")[0] for line in lines[1:]] == [row["path"] for row in answer["wrong"]]
    # The file is a list of labelled videos, too.
    listed = read("csv", tmp_path / "w.csv", "all", videos="/")
    assert [sample.label for sample in listed] == [row["label"] for row in answer["wrong"]]
    words = ssan("eval", model, "--data", people, "--split", "all", "--wrong", tmp_path / "w.csv", *COMMON).out
    assert f"{answer['num_wrong']} answered wrongly, listed in {tmp_path / 'w.csv'}" in words
    worst = answer["wrong"][0]
    assert f"  {worst['path']}: {worst['label']} ({worst['probability']:.3f}) taken for {worst['predicted']}" in words


@pytest.mark.slow
def test_the_page_of_a_run_shows_the_wrong_ones_and_says_which_are_gone(tmp_path: Path, model: Path, ssan: Any) -> None:
    write_people(tmp_path / "clips", each=1)
    run = tmp_path / "run"
    run.mkdir()
    shutil.copy(model, run / "model.safetensors")
    (run / "journal.jsonl").write_text(json.dumps({"event": "start", "time": 1.0, "recipe": {}}) + "\n")
    answer = ssan("eval", run, "--data", tmp_path / "clips", "--split", "all", "--json", *COMMON).json
    paths = [row["path"] for row in answer["wrong"]]
    assert len(paths) > 2
    shutil.rmtree(paths[1])
    done = ssan("report", run, "--json")
    assert done.code == 0, done.err
    assert done.json["num_strips"] == len(paths) - 1
    page = (run / "report.html").read_text(encoding="utf-8")
    assert page.count("data:image/jpeg") == len(paths) - 1
    assert "1 videos are not there any more" in page
    assert all(path in page for path in paths)
    assert ssan("report", run, "--strips", 0, "--json").json["num_strips"] == 0
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "data:image/jpeg" not in page
    assert all(path in page for path in paths)
