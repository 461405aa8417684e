"""Streams of features by their names: given in any order, and refused where they are not those of training."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ssan.errors import ModelError, UsageError
from ssan.features.named import named, open_streams, paths_by_stream
from ssan.features.store import VectorWriter
from ssan.training.journal import read_journal

DIM, NUM = 6, 12


def store(folder: Path, hash: str, seed: int, **changes: Any) -> Path:
    """Features as `ssan extract` leaves them, of the same length whatever the network."""
    provenance = {"source": "ssan extract", "model": f"net_{hash}", "hash": hash, "window_seconds": 4.0,
                  "stride_seconds": 1.5, **changes}  # fmt: skip
    rng = np.random.default_rng(seed)
    with VectorWriter(folder, DIM, provenance) as writer:
        for n in range(NUM):
            writer.add(f"v{n}", rng.random((2, DIM)), np.array([[0, 4], [1.5, 5.5]]), f"v{n}.mp4")
    return folder


def arrays(folder: Path, seed: int) -> Path:
    folder.mkdir()
    for n in range(NUM):
        np.save(folder / f"v{n}.npy", np.random.default_rng([seed, n]).random((2, DIM)))
    return folder


@pytest.fixture
def captions(tmp_path: Path) -> Path:
    path = tmp_path / "captions.csv"
    with open(path, "w", newline="") as handle:
        rows = [(f"v{n}", f"thing number{n}", "train" if n < 8 else "test") for n in range(NUM)]
        csv.writer(handle).writerows([("video", "caption", "split"), *rows])
    return path


def trained(ssan: Any, captions: Path, out: Path, *features: str | Path) -> Any:
    words = [word for given in features for word in ("--features", given)]
    return ssan("retrieval", "train", "--captions", captions, *words, "--out", out, "--val-split", "none", "--json",
                "dim=8", "text_dim=8", "epochs=1", "features=2d+ssa")  # fmt: skip


def evaluated(ssan: Any, captions: Path, out: Path, *features: str | Path) -> Any:
    words = [word for given in features for word in ("--features", given)]
    return ssan("retrieval", "eval", out, "--captions", captions, *words, "--json", "--split", "train")


def test_a_name_before_the_path_is_told_from_a_path_with_the_sign_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert named("2d=a/b=c") == ("2d", "a/b=c")
    assert named("runs/lr=0.1/f") == (None, "runs/lr=0.1/f")
    monkeypatch.chdir(tmp_path)
    Path("lr=1").mkdir()
    assert named("lr=1") == (None, "lr=1")
    assert paths_by_stream(["b=x", "a=y"], ["a", "b"]) == {"a": "y", "b": "x"}
    assert paths_by_stream(["x", "y"], ["a", "b"]) == {"a": "x", "b": "y"}


def test_streams_given_by_name_are_those_given_in_order(captions: Path, tmp_path: Path, ssan: Any) -> None:
    one, other = arrays(tmp_path / "one", 1), arrays(tmp_path / "other", 2)
    assert trained(ssan, captions, tmp_path / "plain", one, other).code == 0
    assert trained(ssan, captions, tmp_path / "named", f"ssa={other}", f"2d={one}").code == 0
    told = [read_journal(tmp_path / name / "journal.jsonl", "epoch")[-1]["train_loss"] for name in ("plain", "named")]
    assert told[0] == told[1]
    answers = [
        evaluated(ssan, captions, tmp_path / "plain", *features).json["text_to_video"]
        for features in ((one, other), (f"ssa={other}", f"2d={one}"))
    ]
    assert answers[0] == answers[1]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["stores", "folders"])
def test_features_that_are_exchanged_are_refused_and_it_is_said_how_to_name_them(
    captions: Path, tmp_path: Path, ssan: Any, kind: str
) -> None:
    if kind == "stores":
        one, other = store(tmp_path / "one", "1f" * 32, 1), store(tmp_path / "other", "2e" * 32, 2)
    else:
        one, other = arrays(tmp_path / "one", 1), arrays(tmp_path / "other", 2)
    assert trained(ssan, captions, tmp_path / "run", one, other).code == 0
    assert evaluated(ssan, captions, tmp_path / "run", one, other).code == 0
    done = evaluated(ssan, captions, tmp_path / "run", other, one)
    assert done.code == 2
    assert "They look exchanged; give those of training, each by its name, as --features 2d=PATH" in done.err
    assert evaluated(ssan, captions, tmp_path / "run", f"ssa={other}", f"2d={one}").code == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    "change", [{"hash": "3d"}, {"preprocess": {"size_px": 5}}, {"stride_seconds": 3.0}, {"window_seconds": 1.0}]
)
def test_features_of_another_network_sight_or_rate_are_refused(
    captions: Path, tmp_path: Path, ssan: Any, change: dict[str, Any]
) -> None:
    known: dict[str, Any] = {"hash": "2e", "preprocess": {"size_px": 4}}
    one, other = store(tmp_path / "one", "1f", 1), store(tmp_path / "other", **known, seed=2)
    again = store(tmp_path / "again", **{**known, **change}, seed=2)
    assert trained(ssan, captions, tmp_path / "run", one, other).code == 0
    done = evaluated(ssan, captions, tmp_path / "run", one, again)
    assert done.code == 2
    assert "not the features that it was trained on: features ssa: " in done.err
    assert "exchanged" not in done.err
    words = ("retrieval", "train", "--captions", captions, "--features", one, "--features", again, "--val-split",
             "none", "--init", tmp_path / "run", "dim=8", "text_dim=8", "epochs=1", "features=2d+ssa",
             "--out", tmp_path / "next")  # fmt: skip
    done = ssan(*words)
    if "stride_seconds" in change or "window_seconds" in change:  # whoever goes on may choose another rate
        assert done.code == 0
        assert "started from another joint space: features ssa: " in done.err
    else:
        assert done.code == 2


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["2d=one", "other"], "other has no name, and others have"),
        (["2d=one", "3d=other"], "3d=other names others"),
        (["2d=one", "2d=other"], "2d=other names them twice"),
        (["2d=one"], "'ssa' is not given; add --features ssa=PATH"),
        (["2d=one", "ssa=both.pth"], "names 1, and there are 2 (2d+3d)"),
    ],
)
def test_names_that_are_not_the_recipes_are_refused(
    tmp_path: Path, given: list[str], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrays(tmp_path / "one", 1)
    arrays(tmp_path / "other", 2)
    torch.save({name: {"v0": torch.ones(DIM)} for name in ("2d", "3d")}, tmp_path / "both.pth")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError) as caught:
        open_streams(given, (), ["2d", "ssa"])
    assert said in str(caught.value)


def test_of_a_file_with_two_streams_one_or_both_can_be_named(tmp_path: Path) -> None:
    table = {name: {"v0": torch.full((DIM,), value)} for name, value in (("2d", 2.0), ("3d", 3.0))}
    torch.save(table, tmp_path / "both.pth")
    arrays(tmp_path / "one", 1)
    streams = open_streams([f"3d={tmp_path / 'both.pth'}", f"2d={tmp_path / 'one'}"], (), ["2d", "3d"])
    assert streams[1].rows("v0")[0, 0] == 3
    streams = open_streams([f"resnet+resnext={tmp_path / 'both.pth'}"], (), ["resnext", "resnet"])
    assert [stream.rows("v0")[0, 0] for stream in streams] == [3, 2]


def test_a_model_of_before_knows_no_more_than_it_was_told(captions: Path, tmp_path: Path, ssan: Any) -> None:
    """Its streams lack what later versions write down; only what both know is compared."""
    from ssan.retrieval.model_file import load_retriever

    one, other = arrays(tmp_path / "one", 1), arrays(tmp_path / "other", 2)
    assert trained(ssan, captions, tmp_path / "run", one, other).code == 0
    retriever = load_retriever(tmp_path / "run")
    streams = open_streams([str(other), str(one)], (), ["2d", "ssa"])
    with pytest.raises(ModelError, match="given as other, one, and were one, other"):
        retriever.check(streams)
    for known in retriever.streams:
        del known["given"]
    (note,) = retriever.check(streams)
    assert "that they are not exchanged cannot be checked" in note
