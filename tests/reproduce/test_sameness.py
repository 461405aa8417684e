"""A table shows what was asked for: never runs of other videos, captions, features or recipes, nor half a result."""

import csv
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ssan.datasets.fingerprint import fingerprint
from ssan.datasets.source import DataSource
from ssan.errors import SsanError, TrainingError, UsageError
from ssan.files import write_json
from ssan.recognition.score_file import read_scores, write_scores
from ssan.recognition.train import complete
from ssan.reproduce import recognition
from ssan.reproduce.joint_tables import JOINT_TABLES
from ssan.reproduce.plan import Data, seeds_of
from ssan.reproduce.recognition import PROTOCOL, ClassifierRun, RecognitionRequest, runs_of
from ssan.reproduce.retrieval import JointSpaceRun, Pretraining, RetrievalInputs, RetrievalRequest
from ssan.reproduce.runs import Execution, refuse_other_data
from ssan.reproduce.sameness import see, see_material, source_of, words_of
from ssan.reproduce.table import collect, write
from ssan.reproduce.tables import TABLES
from ssan.training.journal import Journal

CLASSES = ["clap", "wave"]


def no_command(*words: str, **options: Any) -> str:
    raise AssertionError(f"nothing is to be made, and `ssan {words[0]}` is started")


def videos(root: Path, num: int = 6, *, more: dict[str, int] | None = None) -> Path:
    """Folders of classes, each file of a few bytes: nothing here decodes them."""
    for split in ("train", "val"):
        for label in CLASSES:
            folder = root / split / label
            folder.mkdir(parents=True)
            for n in range(num):
                name = f"{n}.mp4"
                (folder / name).write_bytes(b"x" * (10 + n + (more or {}).get(f"{split}/{label}/{name}", 0)))
    return root


def data_of(root: Path, name: str = "folder") -> Data:
    words = ("--data", str(root), "--format", "folder")
    return Data(name, words, "val", seen=see(words, "val"))


def asked(out: Path, data: Data, row: str = "ssa_8f", **more: Any) -> ClassifierRun:
    return runs_of(TABLES["table1"].row(row), data, 1, out, mini="tiny", **more)[0]


def finished(run: ClassifierRun, root: Path, *, old: bool = False, skipped: int = 0) -> Journal:
    """A run as training and evaluation on ``root`` leave it."""
    source = DataSource(str(root), "folder")
    read = {split: source.read(split) for split in ("train", "val")}
    told = {split: fingerprint(samples) for split, samples in read.items()}
    data = {"root": str(root), "format": "folder", "options": {}}
    journal = Journal(run.folder)
    journal.record(
        "start", recipe=json.loads(complete(run.recipe).model_dump_json()), data=data, classes=CLASSES,
        num_train=told["train"]["num"] - skipped, num_val=told["val"]["num"], num_skipped=skipped,
        train_list=told["train"]["list"] if not skipped else "another", val_list=told["val"]["list"],
        **({} if old else {"listed": told}),
    )  # fmt: skip
    journal.record("epoch", epoch=1, train_loss=0.5, val_top1=0.5, seconds=3.0)
    journal.record("end")
    (run.folder / "model.safetensors").write_bytes(b"")
    evaluated(run, root, old=old)
    return journal


def evaluated(run: ClassifierRun, root: Path, *, old: bool = False, wrong: int = 1) -> None:
    samples = DataSource(str(root), "folder").read("val")
    labels = np.array([sample.label_index for sample in samples])
    scores = np.eye(2)[labels]
    scores[:wrong] = 1 - scores[:wrong]
    protocol = {"split": "val", "num_frames": 8, **PROTOCOL, "sampling": "segment", "size_px": 48, "crop_px": 48}
    protocol["resize"] = "square"
    write_scores(run.folder / "scores.npz", [s.id for s in samples], scores, labels, CLASSES, protocol)
    told = fingerprint(samples)
    Journal(run.folder).record(
        "evaluated", split="val", protocol=protocol, top1=1 - wrong / len(samples), top5=1.0, num_scored=len(samples),
        num_missing=0, num_failed=0, list=told["list"], data={"root": str(root)}, **({} if old else {"listed": told}),
    )  # fmt: skip


OTHERS = {
    "another number": {"num": 5},
    "other sizes": {"more": {"train/wave/3.mp4": 1}},
    "other sizes in validation": {"more": {"val/clap/0.mp4": 7}},
}


@pytest.mark.slow
@pytest.mark.parametrize("what", OTHERS)
def test_runs_on_other_videos_are_refused_and_not_shown(tmp_path: Path, what: str) -> None:
    a, b = videos(tmp_path / "a"), videos(tmp_path / "b", **OTHERS[what])
    finished(asked(tmp_path / "out", data_of(a)), a)
    assert asked(tmp_path / "out", data_of(a)).evaluation() is not None
    run = asked(tmp_path / "out", data_of(b))
    assert run.evaluation() is None
    with pytest.raises(UsageError, match=r"is of other videos than are named now.*Name another folder with --out"):
        refuse_other_data([run])
    order = RecognitionRequest(
        TABLES["table1"], TABLES["table1"].chosen(["ssa_8f"]), [data_of(b)], tmp_path / "out", mini="tiny"
    )
    found = collect(order, order.data[0])
    assert [row["top1"] for row in found["rows"] if row["row"] == "ssa_8f"] == [None]
    assert str(b) in found["left_out"][0]["message"]
    with pytest.raises(UsageError, match="made otherwise"):
        run.make(no_command, Execution())


@pytest.mark.slow
def test_the_command_shows_runs_on_its_data_and_refuses_others_in_one_line(tmp_path: Path, ssan: Any) -> None:
    a, b = videos(tmp_path / "a"), videos(tmp_path / "b", 5)
    words = ("reproduce", "table6", "--mini", "--rows", "res2", "--out", tmp_path / "out", "--json", "--data")
    (run,) = runs_of(TABLES["table6"].row("res2"), data_of(a, "auto"), 1, tmp_path / "out", mini="tiny")
    finished(run, a)
    answer = ssan(*words, a)
    assert answer.code == 0
    assert "table6: 1 runs, 1 done" in answer.err
    assert answer.json["data"][0]["rows"][0]["top1"] == pytest.approx(11 / 12)
    assert (run.folder / "report.html").exists(), "the page that a killed command has not made"
    answer = ssan(*words, b)
    assert answer.code == 2
    (line,) = answer.err.splitlines()
    assert "train: 12 are now 10" in line
    assert f"the data were {str(a)!r} and are {str(b)!r}" in line
    assert f"Name another folder with --out, or remove {tmp_path / 'out' / 'runs' / 'auto'}" in line


def test_a_part_of_the_videos_kept_for_validation_is_told_to_every_run(tmp_path: Path, ssan: Any) -> None:
    """As ``ssan train`` has it: a run that is there had all of the videos for training."""
    whole = videos(tmp_path / "a")
    root = whole / "train"
    words = ("--data", str(root), "--format", "auto", "--val-fraction", "0.25")
    data = Data("auto", words, "val", seen=see(words, "val"))
    (run,) = runs_of(TABLES["table6"].row("res2"), data, 1, tmp_path / "out", mini="tiny")
    finished(run, whole)
    answer = ssan("reproduce", "table6", "--mini", "--rows", "res2", "--out", tmp_path / "out", *words)
    assert answer.code == 2
    assert "Name another folder with --out" in answer.err
    assert f"train: 12 are now {len(source_of(words).read('train'))}" in answer.err


@pytest.mark.parametrize(
    "words",
    [
        ("--data", "d", "--format", "csv"),
        ("--data", "d", "--format", "", "--val-groups", "x=a,b", "--val-fraction", "0.1", "--groups", "(.*)_"),
        ("--captions", "c", "--format", "msrvtt", "--annotations", "a", "--videos", "v", "--reader", "protocol=1k=A"),
    ],
    ids=["plain", "labelled", "captions"],
)
def test_data_are_the_same_said_in_words_of_the_command_line(words: tuple[str, ...]) -> None:
    source = source_of(words)
    assert len(source.options) == (len(words) - 4) // 2
    assert words_of(source, words[0]) == words


def test_other_labels_of_the_same_files_are_other_videos(tmp_path: Path) -> None:
    a, b = videos(tmp_path / "a"), videos(tmp_path / "b")
    for split in ("train", "val"):
        (b / split / "clap").rename(b / split / "bow")
    finished(asked(tmp_path / "out", data_of(a)), a)
    assert "classes[0] 'clap' is now 'bow'" in str(asked(tmp_path / "out", data_of(b)).objection())


def test_the_same_videos_in_another_place_are_the_same(tmp_path: Path) -> None:
    a = videos(tmp_path / "a")
    finished(asked(tmp_path / "out", data_of(a)), a, skipped=2)
    a.rename(tmp_path / "moved")
    assert asked(tmp_path / "out", data_of(tmp_path / "moved")).evaluation() is not None


def test_a_run_of_an_older_version_is_known_by_its_lists_and_its_place(tmp_path: Path) -> None:
    a, b, c = videos(tmp_path / "a"), videos(tmp_path / "b"), videos(tmp_path / "c", 5)
    finished(asked(tmp_path / "out", data_of(a)), a, old=True)
    assert asked(tmp_path / "out", data_of(a)).evaluation() is not None
    for other in (b, c):
        assert asked(tmp_path / "out", data_of(other)).evaluation() is None
        assert asked(tmp_path / "out", data_of(other)).objection() is not None


def test_an_evaluation_by_hand_on_other_videos_is_not_the_tables(tmp_path: Path) -> None:
    a, b = videos(tmp_path / "a"), videos(tmp_path / "b", 5)
    run = asked(tmp_path / "out", data_of(a))
    finished(run, a)
    kept = (run.folder / "scores.npz").read_bytes()
    evaluated(run, b, wrong=4)
    assert run.evaluation() is None, "the scores in the folder are of the other videos"
    (run.folder / "scores.npz").write_bytes(kept)
    found = run.evaluation()
    assert found is not None
    assert found["num_scored"] == 12
    assert run.objection() is None, "it is only to be evaluated again"


def test_what_was_measured_before_the_last_epoch_is_of_another_model(tmp_path: Path) -> None:
    a = videos(tmp_path / "a")
    run = asked(tmp_path / "out", data_of(a))
    journal = finished(run, a)
    journal.record("resumed", step=3, epoch=2)
    journal.record("epoch", epoch=2, train_loss=0.4, val_top1=0.6, seconds=3.0)
    assert run.evaluation() is None, "it goes on"
    journal.record("end")
    assert run.evaluation() is None, "the model may be another now"
    evaluated(run, a)
    assert run.evaluation() is not None


@pytest.mark.parametrize("recipe", [None, [], {}, {"layer": {"x": None}}, {"epochs": [1e30]}, {"layer": 10**30}])
def test_a_journal_whose_recipe_is_none_is_of_another_run(tmp_path: Path, recipe: object) -> None:
    a = videos(tmp_path / "a")
    run = asked(tmp_path / "out", data_of(a))
    Journal(run.folder).record("start", recipe=recipe)
    assert isinstance(run.objection(), UsageError)
    assert run.evaluation() is None


@pytest.mark.parametrize("left", ["half a score file", "no score file", "scores of fewer videos", "scores of others"])
def test_scores_that_a_killed_command_left_are_made_again(tmp_path: Path, left: str) -> None:
    a = videos(tmp_path / "a")
    run = asked(tmp_path / "out", data_of(a))
    finished(run, a)
    path = run.folder / "scores.npz"
    found = read_scores(path)
    if left == "half a score file":
        path.write_bytes(path.read_bytes()[:100])
    elif left == "no score file":
        path.unlink()
    elif left == "scores of fewer videos":
        write_scores(path, found.ids[1:], found.scores[1:], found.labels[1:], CLASSES, found.protocol)
    else:
        write_scores(path, found.ids, found.scores[:, ::-1], found.labels, CLASSES, found.protocol)
    assert run.evaluation() is None
    assert run.objection() is None


def test_a_model_that_is_gone_is_told_with_the_remedy(tmp_path: Path) -> None:
    a = videos(tmp_path / "a")
    run = asked(tmp_path / "out", data_of(a))
    finished(run, a)
    (run.folder / "scores.npz").unlink()
    (run.folder / "model.safetensors").unlink()
    with pytest.raises(UsageError, match=r"its model.safetensors is gone; remove the folder and run again"):
        run.make(no_command, Execution())


BAD = ["1", 1e30, -0.25, None, True, [], {}, 10**400]


@pytest.mark.parametrize("key", ["top1", "top5", "num_scored", "num_missing", "num_failed", "protocol", "split"])
def test_an_evaluation_with_unusable_figures_is_none(tmp_path: Path, key: str) -> None:
    a = videos(tmp_path / "a")
    run = asked(tmp_path / "out", data_of(a))
    finished(run, a)
    journal = run.folder / "journal.jsonl"
    *before, last = journal.read_text().splitlines(keepends=True)
    for value in BAD:
        journal.write_text("".join(before) + json.dumps({**json.loads(last), key: value}) + "\n")
        # Of few classes there is no top-5.
        assert (run.evaluation() is not None) == (key == "top5" and value is None)
    fields = json.loads(last)
    del fields[key]
    journal.write_text("".join(before) + json.dumps(fields) + "\n")
    assert run.evaluation() is None


@pytest.mark.slow
def test_a_journal_with_unusable_numbers_gives_a_table_with_blanks(tmp_path: Path) -> None:
    a = videos(tmp_path / "a")
    run = asked(tmp_path / "out", data_of(a))
    finished(run, a)
    order = RecognitionRequest(
        TABLES["table1"], TABLES["table1"].chosen(["ssa_8f"]), [data_of(a)], tmp_path / "out", mini="tiny"
    )
    journal = run.folder / "journal.jsonl"
    lines = [json.loads(line) for line in journal.read_text().splitlines()]
    keys = {
        "start": ("num_train", "num_skipped", "processes", "cost"),
        "epoch": ("epoch", "seconds", "train_loss", "val_top1"),
    }
    for value in (*BAD, float("nan"), float("inf")):
        changed = [{**line, **dict.fromkeys(keys.get(line["event"], ()), value)} for line in lines]
        journal.write_text("\n".join(map(json.dumps, changed)) + "\n")
        answer = write(order, [])
        assert json.loads(Path(answer["page"]).with_suffix(".json").read_text())
    journal.write_text(journal.read_text().replace('"end"', '"end'))
    answer = write(order, [])
    assert "not a line of a journal" in answer["data"][0]["left_out"][0]["message"]
    assert "not a line of a journal" in Path(answer["page"]).read_text()


def test_a_folder_put_aside_is_no_seed(tmp_path: Path) -> None:
    for name in ("seed_0", "seed_7", "seed_0_old", "seed_1.bak", "seed_", "seed_007"):
        (tmp_path / name).mkdir()
    assert seeds_of(tmp_path, 2) == [0, 1, 7]


# ----------------------------------------------------------------------------------------------------- rendered videos


@pytest.mark.parametrize(
    ("words", "videos_in", "run"),
    [
        (
            ["reproduce", "table6", "--mini", "--tasks", "order", "--videos-per-task"],
            "videos/order",
            "runs/order/a/seed_0",
        ),
        (["demo", "--videos"], "data", "ssan_tiny"),
    ],
    ids=["reproduce", "demo"],
)
def test_another_number_of_rendered_videos_is_refused_before_they_are_rendered(
    tmp_path: Path, ssan: Any, words: list[str], videos_in: str, run: str
) -> None:
    write_json(tmp_path / videos_in / "synthetic.json", {"num_videos": 120})
    Journal(tmp_path / run).record("start", recipe={})
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    answer = ssan(*words, 180, "--quiet", "--out", tmp_path)
    assert answer.code == 2
    (line,) = answer.err.splitlines()
    assert (
        "is a run of 120 rendered videos, and 180 are asked for; name another folder with --out, or ask for 120" in line
    )
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


# ---------------------------------------------------------------------------------------------------------- ensembles


def two_members(tmp_path: Path) -> tuple[RecognitionRequest, list[str]]:
    a = videos(tmp_path / "a")
    data = data_of(a)
    for row in ("tsm_8f", "tsm_16f"):
        finished(asked(tmp_path / "out", data, row), a)
    found = TABLES["table1"]
    return RecognitionRequest(found, found.chosen(["tsm_en"]), [data], tmp_path / "out", mini="tiny"), []


def made(monkeypatch: pytest.MonkeyPatch, calls: list[str]) -> None:
    """Ensembles by hand in place of the command, which takes seconds to start."""

    def add_scores(members: Any, ssan: Any, scores: Path) -> dict[str, Any]:
        calls.append(scores.name)
        scores.parent.mkdir(parents=True, exist_ok=True)
        scores.write_bytes((members[0].folder / "scores.npz").read_bytes())
        return {"top1": 0.75, "top5": 1.0, "num_videos": 12, "protocol": {"split": "val"}}

    monkeypatch.setattr(recognition, "add_scores", add_scores)


@pytest.mark.slow
@pytest.mark.parametrize("left", ["no answer", "half an answer", "an older answer", "no scores", "half the scores"])
def test_an_ensemble_that_was_cut_off_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, left: str) -> None:
    order, calls = two_members(tmp_path)
    made(monkeypatch, calls)

    def row() -> dict[str, Any]:
        rows = write(order, [], ensembles=True)["data"][0]["rows"]
        return next(row for row in rows if row["row"] == "tsm_en")

    assert row()["top1"] == 0.75
    scores = tmp_path / "out" / "ensembles" / "folder" / "table1_tsm_en_seed_0.npz"
    answer = scores.with_suffix(".json")
    if left == "no answer":
        answer.unlink()
    elif left == "half an answer":
        answer.write_text('{"top1": 0.7')
    elif left == "an older answer":  # the scores were made again, of members that were trained again
        write_json(answer, {**json.loads(answer.read_text()), "sha256": {"members": ["a", "b"], "scores": "c"}})
    elif left == "no scores":
        scores.unlink()
    else:
        scores.write_bytes(scores.read_bytes()[:50])
    found = {row["row"]: row["top1"] for row in collect(order, order.data[0])["rows"]}
    assert (found["tsm_en"], found["tsm_8f"]) == (None, 11 / 12), "looking makes nothing, and shows no half"
    assert row()["top1"] == 0.75
    assert calls == [scores.name, scores.name]
    assert row()["top1"] == 0.75
    assert len(calls) == 2, "what is whole is not made again"


@pytest.mark.slow
def test_an_ensemble_that_fails_is_listed_and_the_page_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order, _ = two_members(tmp_path)

    def fail(*_: Any) -> dict[str, Any]:
        raise TrainingError("`ssan ensemble` ended with status 2: no space", path="log")

    monkeypatch.setattr(recognition, "add_scores", fail)
    answer = write(order, [], ensembles=True)
    assert [error["message"] for error in answer["failed"]] == ["`ssan ensemble` ended with status 2: no space"]
    assert "no space" in Path(answer["page"]).read_text()


# -------------------------------------------------------------------------------------------------- captions, features


def captioned(root: Path, *, words: str = "a man walks", more: int = 0) -> tuple[tuple[str, ...], dict[str, str]]:
    """Captions and features of twelve videos, and how commands name them."""
    root.mkdir()
    with open(root / "captions.csv", "w", newline="") as handle:
        writer = csv.writer(handle)
        writer.writerow(("video", "caption", "split"))
        for n in range(12):
            writer.writerow((f"v{n}", f"{words} {n}", ("train", "val", "test")[n % 3]))
    (root / "features").mkdir()
    for n in range(12):
        np.save(root / "features" / f"v{n}.npy", np.zeros((2 + more * (n == 0), 4), np.float16))
    return ("--captions", str(root / "captions.csv"), "--format", "captions_csv"), {"ssa": str(root / "features")}


def joint_order(out: Path, captions: tuple[str, ...], features: dict[str, str], **more: Any) -> RetrievalRequest:
    found = JOINT_TABLES["table8"]
    inputs = RetrievalInputs(features, narrations=(*captions, "--narrations", "none"), narrated=features)
    data = Data("data", captions, found.split)
    return RetrievalRequest(found, found.chosen(["ssa"]), [data], out, inputs=inputs, **more)


def run_of(order: RetrievalRequest, row: str = "ssa") -> JointSpaceRun:
    (run,) = order.runs(order.table.row(row), order.data[0])
    return run


def joint_finished(run: JointSpaceRun, captions: tuple[str, ...], features: dict[str, str]) -> Journal:
    seen = see_material(captions, features, "val")
    journal = Journal(run.folder)
    recipe = json.loads(run.recipe.model_dump_json())
    journal.record("start", recipe=recipe, listed=seen.training, num_train=4, cost={"params": 1})
    journal.record("epoch", epoch=1, seconds=1.0)
    journal.record("end")
    measured(run, captions, features)
    return journal


def measured(run: Any, captions: tuple[str, ...], features: dict[str, str], **changed: Any) -> None:
    way = {"r1": 0.25, "r5": 0.5, "r10": 0.75, "median_rank": 2.0, "mean_rank": 2.5}
    told = {
        "split": "val", "listed": see_material(captions, features, "val").evaluated, "text_to_video": way,
        "video_to_text": way, "num_queries": 4, "num_candidates": 4, "num_missing": 0,
        "protocol": {"positives": "own", "tie_rule": "pessimistic"},
    }  # fmt: skip
    Journal(run.folder).record("evaluated", **{**told, **changed})


@pytest.mark.slow
@pytest.mark.parametrize("what", ["captions", "features"])
def test_a_joint_space_of_other_captions_or_features_is_refused_and_not_shown(tmp_path: Path, what: str) -> None:
    a = captioned(tmp_path / "a")
    b = captioned(tmp_path / "b", **({"words": "a dog runs"} if what == "captions" else {"more": 1}))
    first, second = joint_order(tmp_path / "out", *a), joint_order(tmp_path / "out", *b)
    run = run_of(first)
    joint_finished(run, *a)
    assert run.figures() is not None
    assert run_of(second).figures() is None
    with pytest.raises(UsageError, match=rf"is of other data than are named now.*other {what}"):
        refuse_other_data([run_of(second)])
    measured(run, *b, text_to_video={"r1": 0.9})
    found = run.figures()
    assert found is not None
    assert found["r1"] == 0.25, "an evaluation by hand on other data is not the table's"


@pytest.mark.slow
@pytest.mark.parametrize("key", ["text_to_video", "video_to_text", "num_queries", "num_missing", "protocol"])
def test_recalls_that_are_none_are_not_shown(tmp_path: Path, key: str) -> None:
    a = captioned(tmp_path / "a")
    order = joint_order(tmp_path / "out", *a)
    run = run_of(order)
    journal = joint_finished(run, *a)
    lines = journal.path.read_text().splitlines(keepends=True)
    way = {"r1": 0.25, "r5": 0.5, "r10": 0.75, "median_rank": 2.0, "mean_rank": 2.5}
    for value in (*BAD, {**way, "r1": 1e30}, {**way, "r10": "1"}):
        journal.path.write_text("".join(lines[:-1]))
        measured(run, *a, **{key: value})
        assert run.figures() is None
        write(order, [])


def test_features_may_grow_by_other_videos(tmp_path: Path) -> None:
    a = captioned(tmp_path / "a")
    order = joint_order(tmp_path / "out", *a)
    run = run_of(order)
    joint_finished(run, *a)
    np.save(tmp_path / "a" / "features" / "another.npy", np.zeros((2, 4), np.float16))
    assert run_of(joint_order(tmp_path / "out", *a)).figures() is not None


def test_a_smoke_run_of_the_pre_training_is_not_taken_for_the_whole(tmp_path: Path) -> None:
    a = captioned(tmp_path / "a")
    smoke, whole = (joint_order(tmp_path / "out", *a, overrides=said) for said in (["epochs=1"], []))
    before, again = (run_of(order, "ssa_pretrained").pretraining() for order in (smoke, whole))
    journal = Journal(before.folder)
    journal.record("start", recipe=json.loads(before.recipe.model_dump_json()), time=1.0)
    journal.record("end")
    (before.folder / "model.safetensors").write_bytes(b"")
    assert before.folder == again.folder
    before.make(no_command, Execution())
    with pytest.raises(SsanError, match=r"made otherwise: epochs 1 is now \d+.*Name another folder with --out"):
        again.make(no_command, Execution())


def test_a_joint_space_whose_pre_training_was_made_anew_is_not_shown(tmp_path: Path) -> None:
    a = captioned(tmp_path / "a")
    order = joint_order(tmp_path / "out", *a)
    run = run_of(order, "ssa_pretrained")
    before: Pretraining = run.pretraining()
    recipe = json.loads(before.recipe.model_dump_json())
    narrated = see_material(a[0], a[1], None).training
    Journal(before.folder).record("start", recipe=recipe, listed=narrated)
    Journal(before.folder).record("epoch", epoch=1)
    joint_finished(run, *a)
    order.inputs.narrations = (*a[0], "--narrations", os.devnull)
    joint_path = before.folder / "journal.jsonl"
    assert run.figures() is None, "other narrations"
    order.inputs.narrations = ()
    assert run.figures() is not None
    joint_path.unlink()
    Journal(before.folder).record("start", recipe=recipe)
    Journal(before.folder).record("epoch", epoch=1, time=1e12)
    text = joint_path.read_text().splitlines()
    joint_path.write_text(text[0] + "\n" + json.dumps({"event": "epoch", "epoch": 1, "time": 1e12}) + "\n")
    assert run.figures() is None
    assert "newer" in str(run.objection())


def test_a_table_is_not_of_a_split_that_was_not_asked_for(tmp_path: Path) -> None:
    a = captioned(tmp_path / "a")
    order = joint_order(tmp_path / "out", *a)
    run = run_of(order)
    joint_finished(run, *a)
    order.data = [replace(order.data[0], split="test")]
    assert run.figures() is not None
    assert run_of(order).figures() is None
