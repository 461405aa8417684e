"""A joint space of texts and videos: trained on captions and features, measured, saved, and gone on with."""

import csv
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from ssan.datasets.source import DataSource
from ssan.errors import ModelError, UsageError
from ssan.features.streams import open_features
from ssan.recipe import RetrievalRecipe, make_retrieval_recipe, read_retrieval_recipe
from ssan.retrieval.evaluate import embed, evaluate, tell_apart
from ssan.retrieval.model_file import build_space, load_retriever
from ssan.retrieval.pairs import CaptionPairs, NarratedPairs, captioned, features_of
from ssan.retrieval.text import Vocabulary
from ssan.retrieval.train import Material, open_streams, train
from ssan.shipped import JOINT, shipped
from ssan.training.batches import Draw
from ssan.training.callbacks import CheckpointKeeper
from ssan.training.journal import read_journal
from ssan.video.preprocess import Preprocess

COLOURS = ("red", "green", "blue", "white", "black")
THINGS = ("ball", "box", "ring", "cross", "cup", "key", "hat")
DIM = 13


def write_rows(path: Path, *rows: tuple[object, ...]) -> Path:
    with open(path, "w", newline="", encoding="utf-8") as handle:
        csv.writer(handle).writerows(rows)
    return path


def read_rows(path: Path) -> list[list[str]]:
    with open(path, newline="", encoding="utf-8") as handle:
        return list(csv.reader(handle))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Videos whose features say which colour and which thing; captions that say so in words; words with vectors."""
    root = tmp_path_factory.mktemp("world")
    rng = np.random.default_rng(3)
    rows: list[tuple[object, ...]] = [("video", "caption", "split")]
    (root / "features").mkdir()
    (root / "more").mkdir()
    for n, (colour, thing) in enumerate((c, t) for c in range(len(COLOURS)) for t in range(len(THINGS))):
        for copy, split in enumerate(("train", "train", "val", "test")):
            name = f"v{n}_{copy}"
            vector = np.zeros(DIM)
            vector[colour] = vector[len(COLOURS) + thing] = 1
            noisy = vector + 0.05 * rng.standard_normal((3, DIM))
            np.save(root / "features" / f"{name}.npy", noisy.astype(np.float16))
            np.save(root / "more" / f"{name}.npy", rng.standard_normal((2, 7)).astype(np.float32))
            rows.append((name, f"A {COLOURS[colour]} {THINGS[thing]}", split))
            if split == "train":
                rows.append((name, f"there is a {THINGS[thing]}, {COLOURS[colour]}", split))
    write_rows(root / "captions.csv", *rows)
    words = ["a", "A", *COLOURS, *THINGS, "unseen"]
    table = rng.standard_normal((len(words), 11))
    lines = [" ".join([word, *(f"{value:.4f}" for value in row)]) for word, row in zip(words, table, strict=True)]
    (root / "words.txt").write_text("\n".join(lines) + "\n")
    return root


def small(**changes: Any) -> RetrievalRecipe:
    return make_retrieval_recipe(
        {
            "text": "gru", "text_dim": 32, "dim": 32, "word_dim": 17, "tokens": "lower", "epochs": 12, "batch": 32,
            "lr": 0.01, "captions": "all", "features": "ours", "aggregate": "max", "max_words": 9, **changes,
        }
    )  # fmt: skip


def material(world: Path, **changes: Any) -> Material:
    source = DataSource(str(world / "captions.csv"), "captions_csv")
    return Material(**{"captions": source, "features": (str(world / "features"),), **changes})


def figures(world: Path, run: Path, split: str = "test", **options: Any) -> dict[str, Any]:
    retriever = load_retriever(run)
    streams = open_streams([str(world / "features")], (), [stream["name"] for stream in retriever.streams])
    samples = DataSource(str(world / "captions.csv"), "captions_csv").read(split)
    return evaluate(retriever, samples, streams, split=split, **options)


@pytest.fixture(scope="module")
def trained(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("trained") / "run"
    train(small(), material(world), out, quiet=True)
    return out


# --------------------------------------------------------------------------------------------------------- training


@pytest.mark.slow
def test_videos_that_were_never_seen_are_found_by_what_is_in_them(world: Path, trained: Path) -> None:
    found = figures(world, trained)
    assert found["num_queries"] == found["num_candidates"] == 35
    assert found["text_to_video"]["r1"] > 0.7  # guessing gives 0.03
    assert found["video_to_text"]["r1"] > 0.7
    assert found["num_missing"] == found["num_ties"] == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "loss"), [("bigru", "hardest_negative"), ("lstm", "info_nce"), ("maxpool", "mil_nce")]
)
def test_every_text_tower_and_every_loss_learns(world: Path, tmp_path: Path, text: str, loss: str) -> None:
    answer = train(small(text=text, loss=loss), material(world), tmp_path / "run", quiet=True)
    assert answer["val"]["r5"] > 0.5
    assert answer["val"]["mean_recall"] == pytest.approx(np.mean([answer["val"][key] for key in ("r1", "r5", "r10")]))


@pytest.mark.slow
def test_a_text_model_of_the_transformers_library_reads_the_captions(world: Path, tmp_path: Path, bert: Path) -> None:
    recipe = small(text="transformer", transformer=str(bert), train_words=True, epochs=2)
    train(recipe, material(world), tmp_path / "run", quiet=True)
    start = torch.load(tmp_path / "run" / "last" / "state.ckpt", weights_only=True)["state_dict"]
    assert any(name.startswith("module.tower.model.") for name in start)
    found = figures(world, tmp_path / "run")
    assert found["num_queries"] == 35
    assert found["protocol"]["text"] == "transformer"


@pytest.mark.slow
@pytest.mark.parametrize("aggregate", ["mean", "attention"])
def test_features_over_time_are_aggregated_as_the_recipe_says(world: Path, tmp_path: Path, aggregate: str) -> None:
    train(small(aggregate=aggregate, epochs=8), material(world), tmp_path / "run", quiet=True)
    assert figures(world, tmp_path / "run")["text_to_video"]["r5"] > 0.6


def test_two_streams_are_joined_in_the_order_of_the_recipe(world: Path, tmp_path: Path) -> None:
    both = material(world, features=(str(world / "more"), str(world / "features")))
    train(small(features="noise+ours", epochs=2), both, tmp_path / "run", quiet=True)
    retriever = load_retriever(tmp_path / "run")
    assert [(stream["name"], stream["dim"]) for stream in retriever.streams] == [("noise", 7), ("ours", DIM)]
    with pytest.raises(ModelError, match=r"trained on features noise \(7\), ours \(13\), and is given"):
        retriever.check(open_streams([str(world / "features"), str(world / "more")], (), ["noise", "ours"]))


@pytest.mark.slow
def test_the_best_epoch_is_kept_and_its_recalls_are_those_of_the_whole_validation_set(
    world: Path, tmp_path: Path
) -> None:
    answer = train(small(epochs=5, batch=16), material(world), tmp_path / "run", quiet=True)
    rows = read_journal(tmp_path / "run" / "journal.jsonl", "epoch")
    best = max(rows, key=lambda row: (row["val_mean_recall"], -row["val_loss"]))
    assert answer["best_epoch"] == best["epoch"]
    again = figures(world, tmp_path / "run", "val")["text_to_video"]
    assert again["r1"] == pytest.approx(best["val_r1"])
    assert again["median_rank"] == best["val_median_rank"]


def test_without_a_validation_split_the_last_epoch_is_kept(world: Path, tmp_path: Path) -> None:
    answer = train(small(epochs=3), material(world, val_split=None), tmp_path / "run", quiet=True)
    assert answer["best_epoch"] == 3
    state = torch.load(tmp_path / "run" / "last" / "state.ckpt", weights_only=True)["state_dict"]
    for name, tensor in load_file(tmp_path / "run" / "model.safetensors").items():
        assert torch.equal(tensor, state[f"module.{name}"]), name
    assert load_retriever(tmp_path / "run").protocol["chosen_by"] == "the last epoch is kept"


def test_word_vectors_that_are_given_stay_as_they_are_and_their_coverage_is_told(world: Path, tmp_path: Path) -> None:
    given = material(world, vectors=str(world / "words.txt"))
    train(small(epochs=3, tokens="howto100m"), given, tmp_path / "run", quiet=True)
    start = read_journal(tmp_path / "run" / "journal.jsonl", "start")[0]
    words = start["words"]
    assert (words["kind"], words["dim"]) == ("given, frozen", 11)
    assert dict(words["missing"]) == {"there": 70, "is": 70}
    retriever = load_retriever(tmp_path / "run")
    assert retriever.vocabulary is not None
    assert "unseen" in retriever.vocabulary
    rows = {
        line.split()[0]: np.array(line.split()[1:], float) for line in (world / "words.txt").read_text().splitlines()
    }
    matrix = retriever.model.state_dict()["tower.words.weight"]
    place = retriever.vocabulary.words.index("hat") + 1
    np.testing.assert_allclose(matrix[place], rows["hat"], atol=1e-6)


def test_the_journal_says_what_an_epoch_is(world: Path, tmp_path: Path) -> None:
    for captions, num in (("one", 70), ("all", 140)):
        answer = train(small(epochs=1, captions=captions), material(world), tmp_path / captions, quiet=True)
        start = read_journal(tmp_path / captions / "journal.jsonl", "start")[0]
        assert answer["num_train"] == start["num_train"] == num
    assert start["epoch_of"] == "captions"


# ---------------------------------------------------------------------------------------------------------- resuming


class Killed(BaseException):
    """Stands for a power cut: nothing catches it."""


@pytest.mark.slow
@pytest.mark.parametrize("captions", ["one", "all"])
def test_a_run_killed_in_mid_epoch_and_resumed_is_the_run_never_stopped(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, captions: str
) -> None:
    recipe = small(epochs=4, batch=16, captions=captions, checkpoint_every_steps=2, schedule="exponential")
    train(recipe, material(world), tmp_path / "whole", quiet=True)
    original: Callable[..., Any] = CheckpointKeeper.on_train_batch_end

    def dies(self: CheckpointKeeper, trainer: Any, *rest: Any) -> None:
        original(self, trainer, *rest)
        if trainer.global_step == (8 if captions == "one" else 13):
            raise Killed

    monkeypatch.setattr(CheckpointKeeper, "on_train_batch_end", dies)
    with pytest.raises(Killed):
        train(recipe, material(world), tmp_path / "cut", quiet=True)
    monkeypatch.setattr(CheckpointKeeper, "on_train_batch_end", original)
    answer = train(recipe, material(world), tmp_path / "cut", resume=True, quiet=True)
    assert answer["resumed_from_step"] in (8, 12)
    whole, cut = (
        torch.load(tmp_path / name / "last" / "state.ckpt", weights_only=True)["state_dict"]
        for name in ("whole", "cut")
    )
    assert all(torch.equal(whole[name], cut[name]) for name in whole)
    best = [load_file(tmp_path / name / "model.safetensors") for name in ("whole", "cut")]
    assert all(torch.equal(best[0][name], best[1][name]) for name in best[0])


def test_resuming_with_other_features_is_refused_and_says_what_differs(world: Path, tmp_path: Path) -> None:
    train(small(epochs=1), material(world), tmp_path / "run", quiet=True)
    with pytest.raises(UsageError, match=r"cannot resume.*epochs 1 is now 2"):
        train(small(epochs=2), material(world), tmp_path / "run", resume=True, quiet=True)
    with pytest.raises(UsageError, match=r"cannot resume.*features"):
        train(
            small(epochs=1), material(world, features=(str(world / "more"),)), tmp_path / "run", resume=True, quiet=True
        )


# -------------------------------------------------------------------------------------- starting from another's weights


@pytest.mark.slow
def test_a_joint_space_that_is_started_from_gives_its_weights_and_the_words_that_both_know(
    world: Path, trained: Path, tmp_path: Path
) -> None:
    other = write_rows(
        tmp_path / "other.csv", ("video", "caption", "split"),
        *((f"v{n}_0", f"a shiny {COLOURS[n // 7]} {THINGS[n % 7]}", "train") for n in range(35)),
    )  # fmt: skip
    fine = material(world, captions=DataSource(str(other), "captions_csv"), val_split=None)
    answer = train(small(init=str(trained), epochs=1, lr=1e-12), fine, tmp_path / "run", allow_unused=True, quiet=True)
    assert answer["weights"]["missing"] == ["tower.words.weight: 1 of 16 words"]
    before, after = load_retriever(trained), load_retriever(tmp_path / "run")
    assert before.vocabulary is not None
    assert after.vocabulary is not None
    words = [before.model.state_dict()["tower.words.weight"], after.model.state_dict()["tower.words.weight"]]
    for word in before.vocabulary.words:
        one, two = (v.words.index(word) + 1 for v in (before.vocabulary, after.vocabulary))
        torch.testing.assert_close(words[0][one], words[1][two])
    torch.testing.assert_close(before.model.video.fc.weight, after.model.video.fc.weight)


@pytest.mark.slow
def test_starting_from_a_joint_space_of_another_form_is_refused(world: Path, trained: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"of another form: .* expected"):
        train(small(init=str(trained), dim=16), material(world), tmp_path / "run", quiet=True)
    with pytest.raises(ModelError, match="no such model file"):
        train(small(init=str(tmp_path / "none")), material(world), tmp_path / "run", quiet=True)


# ---------------------------------------------------------------------------------------------------- pairs of a batch


def test_one_caption_of_each_clip_is_drawn_by_seed_epoch_and_clip_alone(world: Path) -> None:
    samples = DataSource(str(world / "captions.csv"), "captions_csv").read("train")
    streams = open_features(world / "features")
    vocabulary = Vocabulary.of([sample.caption or "" for sample in samples], "lower")
    data = captioned(samples, streams, lambda texts: vocabulary.encode(texts, 9))
    pairs = CaptionPairs(data, features_of(streams, data.clips, "max"), "one", seed=5)
    assert len(pairs) == 70
    draws = [Draw(2, item) for item in range(70)]
    (words, features), groups = pairs.__getitems__(draws)
    for place in (0, 13, 69):
        (alone, own), group = pairs[draws[place]]
        assert torch.equal(alone[0], words[place])
        assert torch.equal(own[0], features[place])
        assert group.tolist() == [groups[place]] == [place]
    other = pairs.__getitems__([Draw(3, item) for item in range(70)])[0][0]
    changed = (words != other).any(dim=1).float().mean()
    assert 0.3 < changed < 0.7  # two captions each: half of them are drawn anew


def test_a_pair_is_a_caption_with_the_features_of_its_own_video(world: Path) -> None:
    samples = DataSource(str(world / "captions.csv"), "captions_csv").read("train")
    streams = open_features(world / "features")
    vocabulary = Vocabulary.of([sample.caption or "" for sample in samples], "lower")
    data = captioned(samples, streams, lambda texts: vocabulary.encode(texts, 9))
    pairs = CaptionPairs(data, features_of(streams, data.clips, "max"), "all", seed=0)
    (words, features), _ = pairs.__getitems__([Draw(0, item) for item in range(len(pairs))])
    for row, vector in zip(words, features, strict=True):
        said = {vocabulary.words[index - 1] for index in row.tolist() if index}
        colour, thing = vector[:5].argmax(), vector[5:12].argmax()
        assert {COLOURS[colour], THINGS[thing]} <= said


@pytest.fixture
def narrated(tmp_path: Path) -> Path:
    """Three videos whose speech runs from 0 to 60 s, with a vector a second; the third's features end at 20 s."""
    told = {
        f"film{n}": {
            "start": [2.0 * k for k in range(30)],
            "end": [2.0 * k + 2 for k in range(30)],
            "text": [f"word{n} number{k % 4}" for k in range(30)],
        }
        for n in range(3)
    }
    (tmp_path / "said.json").write_text(json.dumps(told))
    (tmp_path / "features").mkdir()
    for n in range(3):
        seconds = 20 if n == 2 else 61
        rows = np.stack([np.full(seconds, n + 1.0), np.arange(seconds) + 1.0], axis=1)
        np.save(tmp_path / "features" / f"film{n}.npy", rows.astype(np.float32))
    write_rows(
        tmp_path / "HowTo100M_v1.csv", ("video_id", "category_1", "category_2", "rank", "task_id"),
        *((f"film{n}", "Food", "Soup", 1, 5) for n in range(3)),
    )  # fmt: skip
    return tmp_path


def narrated_material(root: Path) -> Material:
    return Material(
        DataSource(str(root / "HowTo100M_v1.csv"), "howto100m"), (str(root / "features"),), (1.0,),
        narrations=str(root / "said.json"),
    )  # fmt: skip


def test_clips_of_narrated_videos_are_drawn_grown_and_pooled_over_their_seconds(narrated: Path) -> None:
    from ssan.datasets.howto100m import NarratedVideos

    told = NarratedVideos(narrated / "said.json")
    streams = open_features(narrated / "features", 1.0)
    texts: list[str] = []

    def encode(captions: Any) -> np.ndarray:
        texts.extend(captions)
        return np.ones((len(captions), 3), np.int64)

    pairs = NarratedPairs(
        told, [(f"film{n}", f"film{n}") for n in range(3)], streams, encode, count=5, min_seconds=5.0, min_words=0,
        how="max", seed=1,
    )  # fmt: skip
    (words, features), groups = pairs.__getitems__([Draw(0, 1), Draw(0, 2)])
    assert words.shape == (10, 3)
    assert groups.tolist() == [1] * 5 + [2] * 5
    assert all(
        text.split()[0] == f"word{group}" and len(text.split()) == 6 for text, group in zip(texts, groups, strict=True)
    )
    # A clip of 6 s has the rows of 7 seconds; the maximum is its last one's: odd, as starts are even. |(2, m)| is 1.
    ratios = (features[:5, 1] / features[:5, 0] * 2).round().int()
    assert all(int(last) % 2 == 1 and 7 <= last <= 61 for last in ratios)
    # What is said behind the last vector of the third film is drawn again.
    assert ((features[5:, 1] / features[5:, 0] * 3).round() <= 20).all()


def test_pre_training_on_narrated_videos_and_fine_tuning_from_it(narrated: Path, tmp_path: Path) -> None:
    vectors = tmp_path / "words.txt"
    words = [*(f"word{n}" for n in range(3)), *(f"number{k}" for k in range(4)), "film"]
    vectors.write_text("".join(f"{word} {' '.join(str(n + k) for k in range(5))}\n" for n, word in enumerate(words)))
    given = narrated_material(narrated)
    with pytest.raises(UsageError, match="give their vectors with --vectors"):
        train(small(clips=4, epochs=1), given, tmp_path / "none", quiet=True)
    given = Material(given.captions, given.features, given.rates, str(vectors), given.narrations)
    recipe = small(clips=4, batch=2, epochs=2, min_seconds=5.0, loss="max_margin")
    answer = train(recipe, given, tmp_path / "pre", quiet=True)
    assert (answer["num_train"], answer["best_epoch"]) == (3, 2)
    assert "mean_recall" not in answer["train"]
    assert "val" not in answer
    captions = write_rows(
        tmp_path / "fine.csv",
        ("video", "caption", "split"),
        *((f"film{n}", f"film word{n}", "train") for n in range(3)),
    )
    fine = Material(
        DataSource(str(captions), "captions_csv"), given.features, given.rates, str(vectors), val_split=None
    )
    answer = train(small(epochs=1, init=str(tmp_path / "pre")), fine, tmp_path / "fine", quiet=True)
    assert answer["weights"]["missing"] == []


# --------------------------------------------------------------------------------------------------------- bad input


@pytest.mark.slow
def test_captions_without_features_are_refused_named_and_with_leave_left_out_and_counted(
    world: Path, tmp_path: Path
) -> None:
    rows = read_rows(world / "captions.csv")
    path = write_rows(tmp_path / "c.csv", *map(tuple, rows), ("nowhere", "a red hat", "train"))
    given = material(world, captions=DataSource(str(path), "captions_csv"))
    with pytest.raises(UsageError, match=r"1 of 176 captions cannot be used.*no features of nowhere in features"):
        train(small(epochs=1), given, tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()
    answer = train(small(epochs=1), given, tmp_path / "run", skip_bad=True, quiet=True)
    assert answer["num_skipped"] == 1
    skipped = read_rows(tmp_path / "run" / "skipped.csv")
    assert [row[1:3] for row in skipped] == [["path", "code"], ["nowhere", "missing"]]


@pytest.mark.slow
def test_features_without_captions_are_refused_unless_that_is_allowed(world: Path, tmp_path: Path) -> None:
    rows = read_rows(world / "captions.csv")
    path = write_rows(tmp_path / "c.csv", *(tuple(row) for row in rows if row[0] != "v0_0"))
    given = material(world, captions=DataSource(str(path), "captions_csv"))
    with pytest.raises(UsageError, match=r"1 of 140 features have no caption in any split: 'v0_0'"):
        train(small(epochs=1), given, tmp_path / "run", quiet=True)
    answer = train(small(epochs=1), given, tmp_path / "run", allow_unused=True, quiet=True)
    assert (answer["num_unused"], answer["num_skipped"]) == (1, 0)


def test_a_caption_of_unknown_words_alone_is_refused_where_it_is_measured(
    world: Path, trained: Path, tmp_path: Path
) -> None:
    path = write_rows(tmp_path / "c.csv", ("video", "caption"), ("v0_3", "zxq wvu"), ("v1_3", "a red box"))
    samples = DataSource(str(path), "captions_csv").read("test")
    retriever, streams = load_retriever(trained), open_features(world / "features")
    with pytest.raises(UsageError, match=r"no word of the caption 'zxq wvu' is known"):
        evaluate(retriever, samples, streams, split="test")
    found = evaluate(retriever, samples, streams, split="test", skip_bad=True)
    assert (found["num_queries"], found["num_missing"]) == (1, 1)
    assert found["dropped"][0]["code"] == "empty"


def test_features_of_another_length_are_refused(world: Path, trained: Path) -> None:
    samples = DataSource(str(world / "captions.csv"), "captions_csv").read("test")
    with pytest.raises(ModelError, match=r"trained on features ours \(13\), and is given more \(7\)"):
        evaluate(load_retriever(trained), samples, open_features(world / "more"), split="test")


def test_features_of_another_network_or_rate_than_in_training_are_refused(world: Path, trained: Path) -> None:
    from ssan.features.extract import Rate, provenance

    retriever = load_retriever(trained)
    (stream,) = open_features(world / "features")
    encoder = type("Encoder", (), {"name": "ssan_tiny", "hash": "1f", "preprocess": Preprocess()})()
    retriever.streams[0]["provenance"] = provenance(encoder, Rate(4.0, 2.0))
    stream.provenance = provenance(encoder, Rate(4.0, 2.0))
    assert retriever.check([stream]) == []
    encoder.hash = "2e"
    stream.provenance = provenance(encoder, Rate(4.0, 1.0))
    with pytest.raises(ModelError, match=r"ours: hash is 2e, and was 1f in training; .*stride_seconds is 1.0, and was"):
        retriever.check([stream])
    encoder.hash, encoder.preprocess = "1f", Preprocess(size_px=99)
    stream.provenance = provenance(encoder, Rate(4.0, 2.0))
    with pytest.raises(ModelError, match=r"ours: preprocess\.size_px is 99, and was .* --features ours=PATH"):
        retriever.check([stream])


@pytest.mark.slow
def test_features_that_are_not_finite_are_refused_by_name(world: Path, tmp_path: Path) -> None:
    (tmp_path / "bad").mkdir()
    for path in (world / "features").iterdir():
        array = np.load(path)
        if path.stem == "v3_1":
            array[1, 2] = np.nan
        np.save(tmp_path / "bad" / path.name, array)
    with pytest.raises(Exception, match=r"v3_1") as raised:
        train(small(epochs=1), material(world, features=(str(tmp_path / "bad"),)), tmp_path / "run", quiet=True)
    assert raised.value.code == "nan"  # type: ignore[attr-defined]


def test_another_number_of_streams_than_the_recipe_names_is_refused(world: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"2d\+ssa, 2 streams, and 1 are given"):
        train(small(features="2d+ssa"), material(world), tmp_path / "run", quiet=True)


def test_an_empty_split_is_refused_with_advice(world: Path, tmp_path: Path) -> None:
    path = write_rows(tmp_path / "c.csv", ("video", "caption", "split"), ("v0_0", "a red ball", "train"))
    given = material(world, captions=DataSource(str(path), "captions_csv"))
    with pytest.raises(UsageError, match="--val-split none"):
        train(small(), given, tmp_path / "run", quiet=True)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda meta: {**meta, "ssan.kind": '"something"'}, "not one that finds videos by text"),
        (lambda meta: {**meta, "ssan.streams": "[]"}, "lacks the recipe or the streams"),
        (lambda meta: {**meta, "ssan.streams": '[{"name": 3}]'}, "lacks the recipe or the streams"),
        (lambda meta: {**meta, "ssan.recipe": '{"text": "lstm"}'}, "do not fit its recipe"),
        (lambda meta: {**meta, "ssan.recipe": '{"texts": "gru"}'}, "cannot be built by this version"),
        (lambda meta: {**meta, "ssan.vocabulary": '{"words": []}'}, "vocabulary"),
        (
            lambda meta: {**meta, "ssan.streams": re.sub('"dim": *[0-9]+', f'"dim": {2**63}', meta["ssan.streams"])},
            "lacks",
        ),
        (lambda meta: {**meta, "ssan.protocol": "[1]"}, "lacks the recipe or the streams"),
    ],
)
def test_a_model_file_whose_parts_do_not_fit_is_refused(trained: Path, tmp_path: Path, change: Any, said: str) -> None:
    from safetensors import safe_open
    from safetensors.torch import save_file

    with safe_open(trained / "model.safetensors", framework="pt") as file:
        metadata = change({**file.metadata(), "ssan.format": "1"})  # of which the metadata has no hash
    save_file(load_file(trained / "model.safetensors"), tmp_path / "m.safetensors", metadata=metadata)
    with pytest.raises(ModelError, match=said):
        load_retriever(tmp_path / "m.safetensors")


def test_a_classifier_is_no_joint_space_and_says_so(trained: Path) -> None:
    from ssan.weights.classifier_file import load_labeller

    with pytest.raises(ModelError, match="a joint space of texts and videos, which has no classes"):
        load_labeller(trained)


# --------------------------------------------------------------------------------------------------------- evaluation


def test_twins_are_told_apart_by_whose_score_is_higher_by_hand(world: Path, trained: Path, tmp_path: Path) -> None:
    retriever, streams = load_retriever(trained), open_features(world / "features")
    samples = DataSource(str(world / "captions.csv"), "captions_csv").read("test")
    data = captioned(samples, streams, retriever.encode)
    embedded = embed(retriever, data, streams)
    names = [clip[0] for clip in data.clips]
    right = sum(
        float(embedded.text_nd[n] @ embedded.video_md[n]) > float(embedded.text_nd[n] @ embedded.video_md[(n + 1) % 35])
        for n in range(35)
    )
    table = write_rows(
        tmp_path / "twins.csv", ("video", "other", "kind"),
        *((names[n], names[(n + 1) % 35], "next") for n in range(35)), ("v0_3", "v0_0", "elsewhere"),
        ("v0_3", "v1_3", "few"),
    )  # fmt: skip
    found = tell_apart(embedded, str(table))
    assert found["next"]["accuracy"] == pytest.approx(right / 35)
    assert right > 25
    assert (found["elsewhere"]["num"], found["elsewhere"]["num_left_out"]) == (0, 1)
    assert found["elsewhere"]["accuracy"] is None
    low, high = found["next"]["interval95"]
    assert low <= right / 35 <= high


def test_twins_of_equal_scores_count_as_wrong(world: Path, trained: Path, tmp_path: Path) -> None:
    retriever, streams = load_retriever(trained), open_features(world / "features")
    samples = DataSource(str(world / "captions.csv"), "captions_csv").read("test")
    embedded = embed(retriever, captioned(samples, streams, retriever.encode), streams)
    embedded.video_md[:] = embedded.video_md[0]
    table = write_rows(tmp_path / "twins.csv", ("video", "other", "kind"), ("v0_3", "v1_3", "same"))
    assert tell_apart(embedded, str(table))["same"]["accuracy"] == 0


def test_repeated_captions_count_by_the_rule_that_is_named(world: Path, trained: Path, tmp_path: Path) -> None:
    path = write_rows(
        tmp_path / "c.csv",
        ("video", "caption"),
        ("v0_3", "a red ball"),
        ("v0_2", "a red ball"),
        ("v8_3", "a green box"),
    )
    samples = DataSource(str(path), "captions_csv").read("test")
    retriever, streams = load_retriever(trained), open_features(world / "features")
    own, same = (
        evaluate(retriever, samples, streams, split="test", positives=rule) for rule in ("own", "same_caption")
    )
    assert own["num_repeated_captions"] == same["num_repeated_captions"] == 2
    assert own["text_to_video"]["r1"] == pytest.approx(2 / 3)  # of two equal captions one is right at most
    assert same["text_to_video"]["r1"] == 1.0
    assert (own["protocol"]["positives"], same["protocol"]["positives"]) == ("own", "same_caption")


# ---------------------------------------------------------------------------------------------------- the command line


@pytest.mark.slow
def test_train_and_eval_answer_as_the_contract_says(world: Path, tmp_path: Path, ssan: Any) -> None:
    out = tmp_path / "run"
    common = ("--captions", world / "captions.csv", "--features", world / "features", "--json", "--device", "cpu")
    done = ssan(
        "retrieval", "train", *common, "--text", "gru", "--out", out, "--seed", 2, "text_dim=16", "dim=16", "epochs=2",
        "lr=0.01", "batch=32", "--quiet",
    )  # fmt: skip
    assert done.code == 0, done.err
    assert done.json["schema"] == 1
    assert {"model", "num_train", "num_val", "num_skipped", "epochs", "steps", "best_epoch", "val"} <= set(done.json)
    told = ssan("retrieval", "eval", out, *common)
    assert told.code == 0, told.err
    answer = told.json
    assert {"num_queries", "num_candidates", "num_missing", "num_ties", "text_to_video", "video_to_text"} <= set(answer)
    for way in ("text_to_video", "video_to_text"):
        assert {"r1", "r5", "r10", "median_rank", "mean_rank"} <= set(answer[way])
        assert 0 <= answer[way]["r1"] <= answer[way]["r5"] <= answer[way]["r10"] <= 1
    assert {"captions", "positives", "tie_rule"} <= set(answer["protocol"])
    recorded = read_journal(out / "journal.jsonl", "evaluated")[-1]
    assert recorded["text_to_video"] == answer["text_to_video"]
    assert recorded["model_hash"] == load_retriever(out).hash


def test_a_matrix_of_scores_is_measured_from_the_command_line(tmp_path: Path, ssan: Any) -> None:
    scores = np.array([[0.9, 0.1, 0.2], [0.8, 0.8, 0.1]], np.float32)
    np.save(tmp_path / "s.npy", scores)
    truth = write_rows(tmp_path / "t.csv", ("query_row", "video_column"), (0, 0), (1, 1))
    done = ssan("retrieval", "eval", "--scores", tmp_path / "s.npy", "--truth", truth, "--json")
    assert done.code == 0, done.err
    answer = done.json
    assert (answer["num_queries"], answer["num_candidates"], answer["num_ties"]) == (2, 3, 1)
    assert (answer["text_to_video"]["r1"], answer["text_to_video"]["mean_rank"]) == (0.5, 1.5)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--scores", "s.npy"], "--truth FILE.csv belong together"),
        (["--scores", "s.npy", "--truth", "t.csv", "model"], "leave out the model"),
        (["model"], "give a model, --captions and --features"),
    ],
)
def test_a_mistake_on_the_command_line_is_told(ssan: Any, given: list[str], said: str) -> None:
    done = ssan("retrieval", "eval", *given)
    assert done.code == 2
    assert said in done.err
    assert len(done.err.strip().splitlines()) == 1


# ------------------------------------------------------------------------------------------------------------- recipes

NAMES = [name for name in shipped() if name.startswith(JOINT)]


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_recipe_of_a_joint_space_builds_and_says_its_command(name: str) -> None:
    recipe = read_retrieval_recipe(shipped()[name])
    with torch.device("meta"):
        model = build_space(recipe, Vocabulary(["a", "b"], recipe.tokens), None, [2048] * len(recipe.streams))
    assert model.video.fc.in_features == 2048 * len(recipe.streams)
    head = shipped()[name].read_text(encoding="utf-8")
    assert f"--recipe {name} " in head
    assert head.count("--features ") >= len(recipe.streams)


def test_a_recipe_of_the_other_kind_is_sent_to_its_command(ssan: Any, tmp_path: Path) -> None:
    done = ssan("train", "--recipe", "table7/gru_ssa", "--data", tmp_path, "--out", tmp_path / "run")
    assert done.code == 2
    assert "a recipe of a joint space of texts and videos; give it to `ssan retrieval train`" in done.err
    with pytest.raises(UsageError, match="a recipe of a classifier; give it to `ssan train`"):
        read_retrieval_recipe(shipped()["table1/ssa_8f"])


def test_a_run_of_a_joint_space_has_a_page_with_its_recalls(trained: Path, ssan: Any, tmp_path: Path) -> None:
    done = ssan("report", trained, "-o", tmp_path / "page.html")
    assert done.code == 0, done.err
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "R@1" in page
    assert str(trained) in page


def test_the_recipes_are_the_training_of_reference_22() -> None:
    fine, pre = (read_retrieval_recipe(shipped()[f"table8/{name}"]) for name in ("gru_ssa", "howto100m_gru_ssa"))
    assert (fine.batch, fine.epochs, fine.lr, fine.margin, fine.clips) == (256, 50, 1e-4, 0.1, 1)
    assert (pre.batch, pre.clips, pre.epochs, pre.lr, pre.gamma) == (32, 64, 15, 1e-4, 0.9)
    assert (pre.max_words, pre.min_seconds, pre.hard_negative_rate, pre.schedule) == (20, 5.0, 0.5, "exponential")


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (["text=gruu"], "text is 'gruu'"),
        (["layers=2"], "unknown key 'layers'"),
        (["text=transformer"], "belong together"),
        (["transformer=folder"], "belong together"),
        (["clips=true"], "true and false are no value"),
    ],
)
def test_a_recipe_with_a_mistake_is_refused(values: list[str], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        make_retrieval_recipe({}, values)
