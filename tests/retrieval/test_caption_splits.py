"""Which captions choose the epoch, what figures are called, and what is left out of training and counted."""

import csv
import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ssan.datasets.source import DataSource
from ssan.errors import SsanError, UsageError
from ssan.features.streams import open_features
from ssan.recipe import RetrievalRecipe, make_retrieval_recipe
from ssan.retrieval.evaluate import evaluate
from ssan.retrieval.material import captions_of_split
from ssan.retrieval.model_file import load_retriever
from ssan.retrieval.train import Material, open_streams, train
from ssan.training import fit as fit_module
from ssan.training.batches import Draw
from ssan.training.journal import read_journal

WORDS = ("red", "green", "blue", "white", "black", "ball", "box", "ring")
DIM = len(WORDS)


def write(path: Path, *rows: tuple[object, ...]) -> Path:
    with open(path, "w", newline="", encoding="utf-8") as handle:
        csv.writer(handle).writerows(rows)
    return path


def features(folder: Path, names: list[str]) -> Path:
    folder.mkdir(exist_ok=True)
    for place, name in enumerate(names):
        rng = np.random.default_rng(place)
        row = rng.random((2, DIM)) + 2 * (np.arange(DIM) == place % DIM)
        np.save(folder / f"{name}.npy", row.astype(np.float32))
    return folder


def recipe(**changes: Any) -> RetrievalRecipe:
    values = {"text": "maxpool", "dim": 16, "word_dim": 8, "tokens": "lower", "epochs": 1, "batch": 8, "lr": 0.01,
              "captions": "all", "features": "ours"}  # fmt: skip
    return make_retrieval_recipe({**values, **changes})


def of(captions: Path, folder: Path, format: str = "captions_csv", **more: Any) -> Material:
    return Material(DataSource(str(captions), format), (str(folder),), **more)


@pytest.fixture
def clips(tmp_path: Path) -> tuple[Path, Path]:
    """24 clips, 12 to train on, 4 for validation, 8 for the test; and their features."""
    splits = ["train"] * 12 + ["val"] * 4 + ["test"] * 8
    rows = [(f"v{n}", f"a {WORDS[n % DIM]} thing", split) for n, split in enumerate(splits)]
    path = write(tmp_path / "captions.csv", ("video", "caption", "split"), *rows)
    return path, features(tmp_path / "features", [f"v{n}" for n in range(24)])


@pytest.fixture
def msrvtt(tmp_path: Path) -> tuple[Path, Path]:
    """MSR-VTT with the lists of 1k-A: four videos to train on, two pairs for the test."""
    videos = [f"video{n}" for n in range(6)]
    content = {
        "videos": [{"video_id": video, "split": "train"} for video in videos],
        "sentences": [
            {"video_id": video, "sen_id": 2 * n + k, "caption": f"a {WORDS[n]} {WORDS[5 + k]}"}
            for n, video in enumerate(videos)
            for k in range(2)
        ],
    }
    root = tmp_path / "msrvtt"
    root.mkdir()
    (root / "MSRVTT_data.json").write_text(json.dumps(content))
    write(root / "MSRVTT_train.9k.csv", ("video_id",), *((video,) for video in videos[:4]))
    write(root / "MSRVTT_JSFUSION_test.csv", ("key", "vid_key", "video_id", "sentence"),
          *((f"ret{n}", f"msr{n}", f"video{n}", f"a {WORDS[n]} ball") for n in (4, 5)))  # fmt: skip
    return root, features(tmp_path / "features", videos)


# ------------------------------------------------------------------------------------------- what chooses the epoch


def test_the_epoch_is_not_chosen_on_the_test_pairs_of_1ka_unless_that_is_asked_for(
    msrvtt: tuple[Path, Path], tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=r"none for validation; .*--val-split .*test.*--val-split none"):
        train(recipe(), of(*msrvtt, "msrvtt"), tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()
    answer = train(recipe(), of(*msrvtt, "msrvtt", val_split="test"), tmp_path / "run", quiet=True)
    assert (answer["measured_on"], answer["chosen_by"]) == ("test", "mean_recall on test")
    assert "val" not in answer
    assert set(answer["test"]) == {"loss", "r1", "r5", "r10", "median_rank", "mean_recall"}


def test_a_run_whose_epoch_the_test_has_chosen_says_test_wherever_it_shows(
    msrvtt: tuple[Path, Path], tmp_path: Path, ssan: Any
) -> None:
    out = tmp_path / "run"
    captions = ("--captions", msrvtt[0], "--format", "msrvtt", "--features", msrvtt[1])
    done = ssan("retrieval", "train", *captions, "--val-split", "test", "--out", out, "dim=16", "text_dim=16",
                "tokens=lower", "epochs=2")  # fmt: skip
    assert done.code == 0, done.err
    shown = done.out + done.err + (out / "metrics.csv").read_text()
    shown += json.dumps(load_retriever(out).protocol) + json.dumps(read_journal(out / "journal.jsonl", "epoch"))
    assert "val_r1" not in shown
    assert "validation" not in shown
    assert "test_r1" in done.out
    assert "test_mean_recall" in (out / "metrics.csv").read_text()
    protocol = load_retriever(out).protocol
    assert protocol["chosen_by"] == "mean_recall on test"
    assert {"test_r1", "test_mean_recall", "test_loss"} <= set(protocol)
    told = ssan("retrieval", "eval", out, *captions, "--json").json
    assert told["protocol"]["chosen_by"] == "mean_recall on test"
    assert "by these very captions the best epoch was chosen" in told["notes"]


@pytest.mark.parametrize("split", ["all", "val"])
def test_captions_that_hold_the_test_or_are_those_of_training_choose_no_epoch(tmp_path: Path, split: str) -> None:
    """A table without splits is all of it whichever split is asked for."""
    names = [f"v{n}" for n in range(4)]
    path = write(tmp_path / "c.csv", ("video", "caption"), *((name, "a red ball") for name in names))
    given = of(path, features(tmp_path / "features", names), val_split=split)
    with pytest.raises(UsageError, match="--val-split none"):
        train(recipe(), given, tmp_path / "run", quiet=True)


def test_captions_of_clips_that_are_trained_on_are_counted_among_those_that_choose(
    clips: tuple[Path, Path], tmp_path: Path, ssan: Any
) -> None:
    with open(clips[0], "a") as handle:
        handle.write("v0,once more a red thing,val\n")
    done = ssan("retrieval", "train", "--captions", clips[0], "--features", clips[1], "--out", tmp_path / "run",
                "dim=16", "text_dim=16", "epochs=1")  # fmt: skip
    assert done.code == 0
    assert read_journal(tmp_path / "run" / "journal.jsonl", "start")[0]["num_val_in_train"] == 1
    assert "1 of the captions that choose the epoch are of clips trained on" in done.err


def test_figures_on_training_captions_are_called_so_everywhere(
    clips: tuple[Path, Path], tmp_path: Path, ssan: Any
) -> None:
    out = tmp_path / "run"
    done = ssan("retrieval", "train", "--captions", clips[0], "--features", clips[1], "--out", out, "--val-split",
                "none", "dim=16", "text_dim=16", "epochs=2")  # fmt: skip
    assert done.code == 0, done.err
    header = (out / "metrics.csv").read_text().splitlines()[0].split(",")
    assert {"train_loss", "train_loss_after", "train_r1", "train_mean_recall"} <= set(header)
    shown = [done.out, done.err, *header, *load_retriever(out).protocol, (out / "journal.jsonl").read_text()]
    assert not [word for word in shown if "val_r1" in word or "val_mean" in word or "val_loss" in word]
    assert "train_r1" in done.out
    assert "the last epoch is kept" in done.out
    end = read_journal(out / "journal.jsonl", "end")[0]
    assert end["measured_on"] == "train"
    assert "val" not in end


def test_a_plateau_of_the_rate_follows_the_loss_on_what_is_measured(clips: tuple[Path, Path], tmp_path: Path) -> None:
    given = of(*clips, val_split=None)
    answer = train(recipe(epochs=3, schedule="plateau", patience=1), given, tmp_path / "run", quiet=True)
    assert answer["train"]["loss"] > 0


# --------------------------------------------------------------------------------------------------- narrated videos


@pytest.fixture
def narrated(tmp_path: Path) -> tuple[Material, Path]:
    """Three videos with a vector a second; of the second all is said behind its vectors, of the third nearly all."""
    starts = {"film0": range(0, 40, 2), "film1": range(100, 140, 2), "film2": [2, *range(100, 900, 2)]}
    told = {
        name: {"start": [*start], "end": [second + 2 for second in start], "text": ["a red ball"] * len(start)}
        for name, start in starts.items()
    }
    (tmp_path / "said.json").write_text(json.dumps(told))
    for name in told:
        (tmp_path / "features").mkdir(exist_ok=True)
        np.save(tmp_path / "features" / f"{name}.npy", np.ones((40, DIM), np.float32))
    listed = write(tmp_path / "HowTo100M_v1.csv", ("video_id", "category_1", "category_2", "rank"),
                   *((name, "Food", "Soup", 1) for name in told))  # fmt: skip
    lines = [f"{word} {' '.join(str(n + k) for k in range(5))}" for n, word in enumerate(("a", *WORDS))]
    (tmp_path / "words.txt").write_text("\n".join(lines) + "\n")
    given = of(listed, tmp_path / "features", "howto100m", rates=(1.0,), vectors=str(tmp_path / "words.txt"),
               narrations=str(tmp_path / "said.json"))  # fmt: skip
    return given, tmp_path / "run"


def test_a_video_of_which_all_is_said_behind_its_features_is_left_out_before_training(
    narrated: tuple[Material, Path],
) -> None:
    given, out = narrated
    asked = recipe(clips=3, batch=2, epochs=2, min_seconds=0, captions="one")
    with pytest.raises(UsageError, match=r"1 of 3 videos cannot be used: 'film1'\. First: all that is said in film1"):
        train(asked, given, out, quiet=True)
    answer = train(asked, given, out, skip_bad=True, quiet=True)
    assert (answer["num_train"], answer["num_skipped"]) == (2, 1)
    with open(out / "skipped.csv", newline="") as handle:
        assert [row[:3] for row in csv.reader(handle)][1:] == [["film1", "film1", "too_few_frames"]]


def test_of_a_video_with_one_clip_within_its_features_that_one_is_drawn(narrated: tuple[Material, Path]) -> None:
    from ssan.datasets.howto100m import NarratedVideos
    from ssan.retrieval.pairs import NarratedPairs

    given, _ = narrated
    texts: list[str] = []

    def encode(captions: Any) -> np.ndarray:
        texts.extend(captions)
        return np.ones((len(captions), 1), np.int64)

    told = NarratedVideos(given.narrations or "")
    pairs = NarratedPairs(told, [("film2", "film2")], open_features(given.features[0], 1.0), encode, count=50,
                          min_seconds=0, min_words=0, how="max", seed=0)  # fmt: skip
    (_, found), groups = pairs.__getitems__([Draw(0, 0)])
    assert len(texts) == len(found) == len(groups) == 50


def test_malformed_narrations_of_one_video_are_left_out_too(narrated: tuple[Material, Path]) -> None:
    given, out = narrated
    said = Path(given.narrations or "")
    content = json.loads(said.read_text())
    content["film1"]["start"] = ["no", "numbers"]
    said.write_text(json.dumps(content))
    answer = train(recipe(clips=2, batch=2, captions="one"), given, out, skip_bad=True, quiet=True)
    assert answer["num_skipped"] == 1


# -------------------------------------------------------------------------------------------------- damaged features


def spoil(path: Path, how: str) -> None:
    if how == "cut":
        path.write_bytes(path.read_bytes()[:-9])
    elif how == "nan":
        np.save(path, np.full((2, DIM), np.nan, np.float32))
    elif how == "wider":
        np.save(path, np.ones((2, DIM + 1), np.float32))
    else:
        path.unlink()
        os.mkfifo(path)


@pytest.mark.slow
@pytest.mark.parametrize("aggregate", ["max", "attention"])
@pytest.mark.parametrize(("how", "code"), [("cut", "truncated"), ("nan", "nan"), ("wider", "wrong_model"),
                                           ("pipe", "bad_annotation")])  # fmt: skip
def test_one_damaged_file_of_features_is_left_out_and_counted(
    clips: tuple[Path, Path], tmp_path: Path, how: str, code: str, aggregate: str
) -> None:
    spoil(clips[1] / "v0.npy", how)  # the first one that is looked at, too
    given = of(*clips)
    with pytest.raises(SsanError, match=r"1 of 16 captions cannot be used: 'v0#0'.*v0") as caught:
        train(recipe(aggregate=aggregate), given, tmp_path / "run", quiet=True)
    assert caught.value.code == code
    answer = train(recipe(aggregate=aggregate), given, tmp_path / "run", skip_bad=True, quiet=True)
    assert (answer["num_train"], answer["num_skipped"]) == (11, 1)


def test_training_that_left_something_out_ends_with_status_1(
    clips: tuple[Path, Path], tmp_path: Path, ssan: Any
) -> None:
    spoil(clips[1] / "v3.npy", "nan")
    done = ssan("retrieval", "train", "--captions", clips[0], "--features", clips[1], "--out", tmp_path / "run",
                "--skip-bad", "--json", "dim=16", "text_dim=16", "epochs=1")  # fmt: skip
    assert (done.code, done.json["num_skipped"]) == (1, 1)


@pytest.mark.parametrize("suffix", [".pth", ".pkl"])
def test_of_a_file_with_all_features_those_of_one_video_can_be_left_out(
    clips: tuple[Path, Path], tmp_path: Path, suffix: str
) -> None:
    import pickle

    table = {f"v{n}": np.random.default_rng(n).random((2, DIM)).astype(np.float32) for n in range(24)}
    table["v5"][1, 1] = np.inf
    table["v0"] = table["v0"][:, :0]
    path = tmp_path / f"f{suffix}"
    if suffix == ".pkl":
        path.write_bytes(pickle.dumps(table))
    else:
        torch.save({name: torch.from_numpy(array) for name, array in table.items()}, path)
    answer = train(recipe(), of(clips[0], path), tmp_path / "run", skip_bad=True, quiet=True)
    assert (answer["num_train"], answer["num_skipped"]) == (10, 2)


def test_clips_whose_captions_cannot_be_read_stay_among_the_candidates(
    clips: tuple[Path, Path], tmp_path: Path
) -> None:
    train(recipe(), of(*clips), tmp_path / "run", quiet=True)
    rows = [(f"v{n}", "a red thing" if n < 20 else "zxq") for n in range(16, 24)]
    path = write(tmp_path / "c.csv", ("video", "caption"), *rows)
    retriever = load_retriever(tmp_path / "run")
    streams = open_streams([str(clips[1])], (), ["ours"])
    samples = DataSource(str(path), "captions_csv").read("test")
    found = evaluate(retriever, samples, streams, split="test", skip_bad=True)
    assert (found["num_queries"], found["num_missing"], found["num_candidates"]) == (4, 4, 8)
    assert found["num_clips_missing"] == 0
    assert found["video_to_text"]["num_left_out"] == 4


def test_ids_in_another_unicode_form_are_told_of(tmp_path: Path, clips: tuple[Path, Path]) -> None:
    features(clips[1], ["cafe\u0301"])
    path = write(tmp_path / "c.csv", ("video", "caption", "split"), ("caf\u00e9", "a red box", "train"))
    with pytest.raises(UsageError, match="of the same name in another Unicode form"):
        train(recipe(), of(path, clips[1], val_split=None), tmp_path / "run", allow_unused=True, quiet=True)
    rows = [("caf\u00e9", "a red box", "train"), ("cafe\u0301", "a blue box", "train")]
    path = write(tmp_path / "d.csv", ("video", "caption", "split"), *rows)
    with pytest.raises(UsageError, match=r"'caf\\xe9' and 'cafe\\u0301' differ only by their Unicode form"):
        train(recipe(), of(path, clips[1], val_split=None), tmp_path / "run", allow_unused=True, quiet=True)


# ------------------------------------------------------------------------------------------- captions of the same clip


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["max_margin", "hardest_negative", "info_nce"])
@pytest.mark.parametrize("same_video", ["auto", "negative", "left_out"])
def test_other_captions_of_a_clip_are_no_negatives_by_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, loss: str, same_video: str
) -> None:
    from ssan.retrieval import train as module

    seen: list[str] = []
    known = module.LOSSES[loss]

    def watching(*arguments: Any, **options: Any) -> Any:
        seen.append(options["same_video"])
        return known(*arguments, **options)

    monkeypatch.setitem(module.LOSSES, loss, watching)
    rows = [(f"v{n % 4}", f"{WORDS[n]} thing", "train") for n in range(8)]
    path = write(tmp_path / "c.csv", ("video", "caption", "split"), *rows)
    given = of(path, features(tmp_path / "features", [f"v{n}" for n in range(4)]), val_split=None)
    train(recipe(loss=loss, same_video=same_video), given, tmp_path / "run", quiet=True)
    assert set(seen) == {"left_out" if same_video == "auto" else same_video}


def test_other_clips_of_a_narrated_video_are_negatives_as_in_reference_22(
    narrated: tuple[Material, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from ssan.retrieval import train as module

    seen: list[dict[str, Any]] = []
    known = module.LOSSES["max_margin"]

    def watching(*arguments: Any, **options: Any) -> Any:
        seen.append(options)
        return known(*arguments, **options)

    monkeypatch.setitem(module.LOSSES, "max_margin", watching)
    given, out = narrated
    train(recipe(clips=3, batch=2, captions="one"), given, out, skip_bad=True, quiet=True)
    assert {(options["same_video"], options["negative_weighting"]) for options in seen} == {("negative", True)}


def test_what_other_captions_are_cannot_be_said_where_they_are_right(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="mil_nce takes other captions of a clip for right"):
        recipe(loss="mil_nce", same_video="left_out")


def test_a_run_of_before_these_keys_goes_on_where_they_make_no_difference() -> None:
    from ssan.retrieval.train import _changes

    now = {"data": {}, "num_train": 1, "num_val": 0, "processes": 1, "train_list": "a", "val_list": None,
           "streams": [{"name": "ours", "given": "f", "dim": 3, "provenance": {}}]}  # fmt: skip
    before = {**now, "streams": [{"name": "ours", "dim": 3, "provenance": {}}]}

    def differing(**changes: Any) -> list[str]:
        asked = json.loads(recipe(**changes).model_dump_json())
        lacking = {key: value for key, value in asked.items() if key not in ("same_video", "pooling")}
        return _changes({**before, "recipe": lacking}, {**now, "recipe": asked})

    assert differing(captions="one") == []
    assert differing(captions="all", loss="mil_nce") == []
    assert differing(captions="all") == ["same_video 'negative' is now 'auto'"]
    assert differing(captions="all", same_video="negative") == []
    assert differing(captions="one", text="transformer", transformer="folder") == ["pooling 'mean' is now 'auto'"]


# ------------------------------------------------------------------------------------------- as the pages have it


@pytest.mark.slow
def test_rendered_captions_are_taken_by_their_folder_as_documented(tmp_path: Path, ssan: Any) -> None:
    done = ssan("data", "synth", tmp_path / "dir", "--task", "captions", "--videos", 12, "--size-px", 32, "--workers",
                1, "--quiet")  # fmt: skip
    assert done.code == 0, done.err
    names = sorted(path.stem for path in (tmp_path / "dir" / "videos").iterdir())
    (tmp_path / "features").mkdir()
    features(tmp_path / "features" / "videos", names)
    common = ("--captions", tmp_path / "dir", "--features", f"ssa={tmp_path / 'features'}", "--quiet")
    done = ssan("retrieval", "train", "--recipe", "retrieval/captions_gru", *common, "--out", tmp_path / "run",
                "epochs=1", "--val-split", "none")  # fmt: skip
    assert done.code == 0, done.err
    told = ssan("retrieval", "eval", tmp_path / "run", *common, "--twins", tmp_path / "dir" / "twins.csv")
    assert told.code == 0, told.err
    assert "twins that differ by direction" in told.out


def test_labelled_videos_are_refused_as_captions_without_options_that_are_not_there(
    tmp_path: Path, clips: tuple[Path, Path], ssan: Any
) -> None:
    (tmp_path / "videos" / "walk").mkdir(parents=True)
    (tmp_path / "videos" / "walk" / "a.mp4").write_bytes(b"")
    done = ssan(
        "retrieval", "train", "--captions", tmp_path / "videos", "--features", clips[1], "--out", tmp_path / "r"
    )
    assert done.code == 2
    assert (
        "these are no captions (they look like folder); expected a CSV file with the header video,caption" in done.err
    )
    assert "--splits" not in done.err
    assert "--val-groups" not in done.err


# ------------------------------------------------------------------------------------------------------- words


def test_captions_without_spaces_between_words_are_told_of_with_the_remedy(tmp_path: Path, ssan: Any) -> None:
    rows = [(f"v{n}", f"一个男人在{WORDS[n]}球场上跑步然后坐下", "train") for n in range(4)]
    path = write(tmp_path / "c.csv", ("video", "caption", "split"), *rows)
    common = ("--captions", path, "--features", features(tmp_path / "features", [f"v{n}" for n in range(4)]))
    done = ssan("retrieval", "train", *common, "--out", tmp_path / "run", "--val-split", "none", "dim=8", "text_dim=8",
                "epochs=1")  # fmt: skip
    assert done.code == 0
    assert "4 captions may need it: Without spaces between words, as Chinese, Japanese and Thai are" in done.err
    assert "text=transformer" in done.err
    other = write(tmp_path / "d.csv", ("video", "caption"), ("v0", "他在公园里慢慢地走"))
    told = ssan("retrieval", "eval", tmp_path / "run", "--captions", other, "--features", common[3])
    assert told.code == 2
    assert "put spaces between the words" in told.err


# ---------------------------------------------------------------------------------------- numbers and letters from afar


def narrations_of(path: Path, content: Any) -> Path:
    import pickle

    path.write_bytes(pickle.dumps(content))
    return path


@pytest.mark.parametrize(
    "content",
    [
        {"film1": {"start": [10**7000], "end": [10**7000 + 1], "text": ["a"]}},
        {"film1": {"start": [1], "end": [2], "text": ["\ud800"]}},
        {"film1": {"start": [1], "end": [2], "text": np.array(["a"]).view(np.uint32) * 0 + 0x7FFFFFFF}},
        {"film1": {"start": [1e30], "end": [1e31], "text": ["a"]}},
        {"film1": {"start": [10**7000] * 2, "end": [1], "text": 10**7000}},
    ],
)
def test_narrations_with_numbers_and_letters_that_there_are_not_are_one_line(
    narrated: tuple[Material, Path], content: dict[str, Any]
) -> None:
    from ssan.datasets.howto100m import NarratedVideos

    path = narrations_of(Path(narrated[0].captions.root).parent / "said.pkl", content)
    with pytest.raises(SsanError) as caught:
        NarratedVideos(path).captions("film1")
    assert len(str(caught.value).splitlines()) == 1
    assert len(str(caught.value)) < 600


def test_text_of_numpy_beyond_unicode_is_one_line(tmp_path: Path) -> None:
    import pickle

    from ssan.datasets.howto100m import NarratedVideos

    text = np.array(["abc"])
    content = pickle.dumps({"film": {"start": [1], "end": [2], "text": text}})
    raw = text.tobytes()
    assert raw in content
    path = tmp_path / "said.pkl"
    path.write_bytes(content.replace(raw, b"\xff\xff\xff\x7f" * 3))
    with pytest.raises(SsanError) as caught:
        NarratedVideos(path).captions("film")
    assert len(str(caught.value).splitlines()) == 1


def test_a_tensor_that_is_larger_than_its_file_is_refused_at_once(tmp_path: Path) -> None:
    for name, content in {
        "stride": {"a": torch.zeros(1).expand(2_000_000_000, 2048)},
        "shared": {f"v{n}": table for table in [torch.zeros(64, 2048)] for n in range(500)},
    }.items():
        torch.save(content, tmp_path / f"{name}.pth")
        with pytest.raises(UsageError, match="cannot be read as plain features"):
            open_features(tmp_path / f"{name}.pth")


@pytest.mark.parametrize("header", [b"{'descr': '<f4', 'fortran_order': False, 'shape': (" + b"(" * 3000,
                                    b"{'descr': '<f4', 'fortran_order': False, 'shape': (2, " + b"9" * 5000 + b")}",
                                    b"{'descr': '<f4', 'fortran_order': False, 'shape': (-2, 8)}",
                                    b"L'\n''' \xff"])  # fmt: skip
def test_hostile_headers_of_npy_files_are_one_line(clips: tuple[Path, Path], header: bytes) -> None:
    for version in (1, 2):
        length = len(header).to_bytes(2 * version, "little")
        (clips[1] / "v3.npy").write_bytes(b"\x93NUMPY" + bytes([version, 0]) + length + header + b"\0" * 64)
        (stream,) = open_features(clips[1])
        with pytest.raises(UsageError) as caught:
            stream.rows("v3")
        assert len(str(caught.value).splitlines()) == 1


# ------------------------------------------------------------------------------------------------------ read once


def test_captions_are_read_once(clips: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    read = DataSource.read

    def counted(self: DataSource, split: str) -> Any:
        asked.append(split)
        return read(self, split)

    monkeypatch.setattr(DataSource, "read", counted)
    answer = train(recipe(), of(*clips), tmp_path / "run", quiet=True)
    assert (answer["num_train"], answer["num_val"]) == (12, 4)
    assert asked == ["all"]


def lists(folder: Path) -> dict[str, DataSource]:
    """A source of captions in every form that splits can be told apart in, and one in which they are not."""
    folder.mkdir()
    rows = [("v1", "one", "val"), ("v2", "two", "train"), ("v1", "three", "test"), ("v2", "four", "train")]
    told = write(folder / "told.csv", ("video", "caption", "split"), *rows)
    untold = write(folder / "untold.csv", ("video", "caption"), *(row[:2] for row in rows))
    for name in ("lsmdc", "youcook", "msrvtt"):
        (folder / name).mkdir()
    for name, films in (("training", "ab"), ("val", "c"), ("challenge_1000_publictect", "d")):
        where = name if name.startswith("challenge") else f"annos_{name}"
        lines = [f"{film}_1_00.00-2\t1\t2\t3\t4\t{words}\n" for film in films for words in ("He sits.", "She runs.")]
        (folder / "lsmdc" / f"LSMDC16_{where}.csv").write_text("".join(lines))
    database = {
        video: {
            "duration": 100.5, "subset": subset, "recipe_type": "1",
            "annotations": [{"segment": [3, 7], "id": 0, "sentence": f"stir {video}"}],
        }
        for video, subset in {"a": "training", "b": "validation", "c": "training"}.items()
    }  # fmt: skip
    path = folder / "youcook" / "youcookii_annotations_trainval.json"
    path.write_text(json.dumps({"database": database}))
    content = {
        "videos": [{"video_id": f"video{n}", "split": split} for n, split in enumerate(("train", "validate", "test"))],
        "sentences": [{"video_id": f"video{n % 3}", "caption": f"a {n}", "sen_id": n} for n in range(6)],
    }
    (folder / "msrvtt" / "MSRVTT_data.json").write_text(json.dumps(content))
    sources = {"told": told, "untold": untold} | {name: folder / name for name in ("lsmdc", "youcook", "msrvtt")}
    return {name: DataSource(str(source)) for name, source in sources.items()}


@pytest.mark.parametrize("name", ["told", "untold", "lsmdc", "youcook", "msrvtt"])
def test_the_captions_of_a_split_are_those_that_their_reader_gives(name: str, tmp_path: Path) -> None:
    source = lists(tmp_path / "lists")[name]
    every, nums = source.read("all"), []
    for split in ("train", "val", "test"):
        try:
            expected = source.read(split)
        except SsanError as error:
            with pytest.raises(type(error), match=re.escape(error.message)):
                captions_of_split(source, split, every)
            continue
        found = captions_of_split(source, split, every)
        assert (list(found), found.source, found.classes) == (list(expected), expected.source, expected.classes)
        nums.append(len(found))
    assert sum(nums) == (3 * len(every) if name == "untold" else len(every))


# ----------------------------------------------------------------------------------------- more epochs, early stop


def test_a_joint_space_makes_an_epoch_more_as_one_that_had_it_from_the_start(
    clips: tuple[Path, Path], tmp_path: Path
) -> None:
    train(recipe(epochs=2), of(*clips), tmp_path / "whole", quiet=True)
    train(recipe(epochs=1), of(*clips), tmp_path / "run", quiet=True)
    answer = train(recipe(epochs=1), of(*clips), tmp_path / "run", quiet=True, resume=True, more_epochs=1)
    assert (answer["epochs"], answer["stopped_early"]) == (2, False)
    one, other = (torch.load(tmp_path / name / "last" / "state.ckpt", weights_only=True) for name in ("whole", "run"))
    assert one["state_dict"].keys() == other["state_dict"].keys()
    assert all(torch.equal(tensor, other["state_dict"][name]) for name, tensor in one["state_dict"].items())
    recipes = [(tmp_path / name / "recipe.yaml").read_text() for name in ("whole", "run")]
    assert recipes[0] == recipes[1]


def test_an_early_stop_wants_captions_that_choose(clips: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="early_stop is set, but nothing chooses the best epoch"):
        train(recipe(early_stop=2), of(*clips, val_split=None), tmp_path / "run", quiet=True)
    assert not (tmp_path / "run" / "journal.jsonl").exists()


def test_the_journal_has_the_environment_that_was_asked_for_once(
    clips: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def again(*_: Any) -> Any:
        raise AssertionError("asked a second time")

    monkeypatch.setattr(fit_module, "environment", again)
    train(recipe(), of(*clips), tmp_path / "run", quiet=True)
    (start,) = read_journal(tmp_path / "run" / "journal.jsonl", "start")
    assert start["environment"]["torch"] == str(torch.__version__)
    kept = torch.load(tmp_path / "run" / "last" / "state.ckpt", weights_only=True)["conditions"]["environment"]
    assert kept.items() <= start["environment"].items()
