"""Bad files get their code and nothing worse: a part of the benchmark of hostile files, made from the same seed."""

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests import hostile_files, hostile_runs

from ssan.errors import CODES

NUM_FILES = 60


@pytest.fixture(scope="module")
def everything() -> list[hostile_files.Hostile]:
    return hostile_files.plans(at_least=700)


@pytest.fixture(scope="module")
def results(everything: list[hostile_files.Hostile], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    # What needs calls of its own is left to the benchmark.
    chosen = [one for one in everything if not (one.unreadable or one.moving)]
    chosen = hostile_files.pick(chosen, NUM_FILES, seed=0)
    work = tmp_path_factory.mktemp("hostile")
    return hostile_runs.run_hostile(chosen, work, seed=0, seconds=60, memory_gb=12, rounds=0, trainings=["at_once"])


@pytest.mark.slow
def test_no_hostile_file_ends_in_a_traceback_a_hang_or_a_crash(results: dict[str, Any]) -> None:
    assert results["files"] == NUM_FILES
    counts = {key: results[key] for key in ("tracebacks", "hangs", "crashes", "no_answer")}
    assert set(counts.values()) == {0}, results["faults"]
    assert results["problems"] == []


@pytest.mark.slow
def test_every_outcome_is_ok_or_a_code_of_the_contract(results: dict[str, Any]) -> None:
    assert set(results["codes"]) <= {"ok", *CODES}
    assert {"ok", "empty", "missing", "not_video", "no_video_stream", "decode_error"} <= set(results["codes"])


@pytest.mark.slow
def test_where_the_answer_is_known_it_is_given(results: dict[str, Any]) -> None:
    assert results["known"] > 20
    assert results["faults"] == []


@pytest.mark.slow
def test_what_is_read_of_damaged_files_has_its_frames_where_decoding_from_the_beginning_has(
    results: dict[str, Any],
) -> None:
    """Pixels may differ: what damage there is in frames that need not be decoded stays unseen."""
    frames = results["frames"]
    assert frames["files"] > 5
    assert frames["compared"] > 8 * 5
    assert [row for row in frames["rows"] if not row["different"]] == []


@pytest.mark.slow
def test_training_with_skip_bad_leaves_out_what_is_bad_and_counts_it(results: dict[str, Any]) -> None:
    rows = {row["name"]: row for row in results["train"]}
    assert rows["at_once"]["strict"]["status"] == 2
    assert rows["at_once"]["skipping"]["status"] == 1
    assert rows["at_once"]["num_skipped"] == rows["at_once"]["num_bad"] == sum(rows["at_once"]["codes"].values())


@pytest.mark.slow
def test_there_are_at_least_500_files_and_a_name_stands_for_one(everything: list[hostile_files.Hostile]) -> None:
    assert len(everything) >= 500
    assert len({one.name for one in everything}) == len(everything)
    assert sum(bool(one.truth) for one in everything) > 150


def test_a_seed_gives_the_same_files_whichever_part_is_made(
    everything: list[hostile_files.Hostile], tmp_path: Path
) -> None:
    damaged = [one for one in everything if one.kind == "10 bits turned, anywhere"]
    hostile_files.make_all(damaged, tmp_path / "all", 3)
    hostile_files.make_all(damaged[-1:], tmp_path / "one", 3)
    hostile_files.make_all(damaged[-1:], tmp_path / "other", 4)
    all_of_them, one, other = (
        (tmp_path / folder / damaged[-1].name).read_bytes() for folder in ("all", "one", "other")
    )
    assert all_of_them == one != other


def test_a_part_of_the_files_has_every_kind(everything: list[hostile_files.Hostile]) -> None:
    part = hostile_files.pick(everything, NUM_FILES, seed=0)
    assert len(part) == NUM_FILES
    assert {one.kind for one in part} == {one.kind for one in everything}


# The check itself must be able to fail.


def outcome(line: bytes) -> str:
    one = hostile_files.Hostile("a.mp4", "whole", lambda path, rng: None, frozenset({"ok"}))
    return hostile_runs._outcome(one, "a.mp4", line, 0.1).outcome


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "ok"),
        ({"path": "b.mp4"}, "bad answer"),
        ({"num_frames": 0}, "bad answer"),
        ({"duration_seconds": float("nan")}, "bad answer"),
        ({"ok": False}, "bad answer"),
        ({"ok": False, "error": {"path": "a.mp4", "code": "empty", "message": "x", "line": None}}, "empty"),
        ({"ok": False, "error": {"path": "a.mp4", "code": "strange", "message": "x", "line": None}}, "bad answer"),
        ({"ok": False, "error": {"path": "a.mp4", "code": "empty", "message": "x\ny", "line": None}}, "bad answer"),
        ({"ok": False, "error": {"path": "b.mp4", "code": "empty", "message": "x", "line": None}}, "bad answer"),
    ],
)
def test_an_answer_that_breaks_the_contract_is_a_fault(changes: dict[str, Any], expected: str) -> None:
    answer = {"path": "a.mp4", "ok": True, "num_frames": 3, "duration_seconds": 1.0, "top": [{"score": 1.0}]}
    assert outcome(json.dumps(answer | changes).encode()) == expected


def test_an_answer_that_is_no_json_is_a_fault() -> None:
    assert outcome(b"Traceback (most recent call last):") == "bad answer"


def test_a_wrong_code_is_counted_as_wrong() -> None:
    one = hostile_files.Hostile("a.mp4", "zero bytes", lambda path, rng: None, frozenset({"empty"}))
    for code, right in (("empty", True), ("not_video", False)):
        found = hostile_runs.Outcome("a.mp4", "zero bytes", code, 0.1)
        assert hostile_runs._together(one, [found]).right is right


def test_frames_that_are_not_those_of_the_sequence_are_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.mp4").write_bytes(hostile_files.video("h264.mp4"))
    (row,) = hostile_runs.compare_here(tmp_path, ["a.mp4"])
    assert (row["compared"], row["different"]) == (8, 0)
    real = hostile_runs.read_clip

    def one_pixel_off(*args: Any) -> Any:
        clip = real(*args)
        clip.frames[3, 0, 0, 0] ^= 1
        return clip

    monkeypatch.setattr(hostile_runs, "read_clip", one_pixel_off)
    (row,) = hostile_runs.compare_here(tmp_path, ["a.mp4"])
    assert (row["compared"], row["different"]) == (8, 1)


def test_rendered_pictures_differ_from_each_other() -> None:
    pictures = [hostile_files.picture(number) for number in range(hostile_files.NUM_FRAMES)]
    assert all(not np.array_equal(one, other) for one, other in itertools.pairwise(pictures))
