"""The store of vectors: what is committed stays, what is not is cut off, and what was altered is refused by name."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ssan.errors import SsanError, UsageError
from ssan.features.store import STORE, Vectors, VectorWriter, open_vectors, part_id

DIM = 5
MADE = {"model": {"name": "ssan_tiny", "hash": "ab12"}, "vectors_per_second": 1.5}


def rows_of(number: int, num: int = 3) -> np.ndarray:
    return np.random.default_rng(number).standard_normal((num, DIM)).astype(np.float16)


def spans_of(num: int = 3) -> np.ndarray:
    return np.array([[k / 3, k / 3 + 2] for k in range(num)])


def write(folder: Path, *numbers: int, part: int = 0) -> None:
    with VectorWriter(folder, DIM, MADE, part=part) as writer:
        for number in numbers:
            writer.add(f"v{number}", rows_of(number, 1 + number), spans_of(1 + number), f"clips/v{number}.mp4")


def content(folder: Path) -> dict[str, tuple[list[list[float]], list[list[float]]]]:
    store = open_vectors(folder)
    return {name: (store.rows(name).tolist(), store.spans(name).tolist()) for name in sorted(store.ids)}


def test_what_was_written_is_read_back_with_times_and_origin(tmp_path: Path) -> None:
    write(tmp_path / "s", 0, 2, 6)
    store = open_vectors(tmp_path / "s")
    assert (store.ids, store.dim, store.provenance, store.num_vectors) == (["v0", "v2", "v6"], DIM, MADE, 11)
    assert "v2" in store
    assert "v1" not in store
    for number in (6, 0, 2):
        rows, spans = store.rows(f"v{number}"), store.spans(f"v{number}")
        assert (rows.dtype, spans.dtype) == (np.float16, np.float64)
        np.testing.assert_array_equal(rows, rows_of(number, 1 + number))
        np.testing.assert_array_equal(spans, spans_of(1 + number))
        assert not rows.flags.writeable


def test_of_the_rows_those_are_read_that_are_asked_for(tmp_path: Path) -> None:
    write(tmp_path, 4, 5)
    store = open_vectors(tmp_path)
    with open(tmp_path / "part-0.vectors", "rb+") as handle:  # a fault in another's rows is none in these
        handle.write(b"\x7f\x7f\x7f")
    np.testing.assert_array_equal(store.rows("v5"), rows_of(5, 6))
    with pytest.raises(UsageError, match="not those that were written"):
        store.rows("v4")


@pytest.mark.parametrize("name", ["part-0.vectors", "part-0.spans"])
def test_a_file_that_shrinks_while_it_is_read_is_an_error_and_no_end_of_the_process(tmp_path: Path, name: str) -> None:
    write(tmp_path, 4, 5)
    store = open_vectors(tmp_path)
    os.truncate(tmp_path / name, 10)
    with pytest.raises(UsageError, match="cut off") as caught:
        store.rows("v5")
    assert (caught.value.code, caught.value.path) == ("truncated", str(tmp_path / name))


def test_a_pipe_in_the_place_of_a_file_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    write(tmp_path, 4)
    (tmp_path / "part-0.spans").unlink()
    os.mkfifo(tmp_path / "part-0.spans")
    with pytest.raises(UsageError, match="not a file"):
        open_vectors(tmp_path)


def test_of_two_writers_that_begin_at_a_time_the_later_finds_the_origin_of_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first comes when the later one has seen that there is no store, and has not made its own."""
    exists = Path.exists

    def seen(self: Path) -> bool:
        there = exists(self)
        if self.name == STORE and not there:
            monkeypatch.setattr(Path, "exists", exists)
            with VectorWriter(tmp_path, DIM, {**MADE, "hash": "of another"}, part=1) as first:
                first.add("first", rows_of(3), spans_of(), "x.mp4")
        return there

    monkeypatch.setattr(Path, "exists", seen)
    with pytest.raises(UsageError, match='hash is "of another" there'):
        VectorWriter(tmp_path, DIM, MADE)
    store = open_vectors(tmp_path)
    assert (store.provenance["hash"], store.ids) == ("of another", ["first"])
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "part-1.jsonl", "part-1.spans", "part-1.vectors", STORE,
    ]  # fmt: skip


def test_the_files_are_as_the_page_says(tmp_path: Path) -> None:
    write(tmp_path, 1, 2)
    assert np.fromfile(tmp_path / "part-0.vectors", "<f2").reshape(-1, DIM).tolist() == [
        *rows_of(1, 2).tolist(), *rows_of(2, 3).tolist(),
    ]  # fmt: skip
    assert np.fromfile(tmp_path / "part-0.spans", "<f8").reshape(-1, 2).tolist()[2:] == spans_of(3).tolist()
    lines = [json.loads(line) for line in (tmp_path / "part-0.jsonl").read_text().splitlines()]
    assert [(line["id"], line["path"], line["first"], line["num"]) for line in lines] == [
        ("v1", "clips/v1.mp4", 0, 2), ("v2", "clips/v2.mp4", 2, 3),
    ]  # fmt: skip
    assert json.loads((tmp_path / "store.json").read_text()) == {
        "schema": 1, "dim": DIM, "dtype": "float16", "provenance": MADE,
    }  # fmt: skip


def test_parts_of_several_processes_are_one_store(tmp_path: Path) -> None:
    write(tmp_path, 1, part=0)
    write(tmp_path, 2, part=10)
    write(tmp_path, 3, part=2)
    assert open_vectors(tmp_path).ids == ["v1", "v3", "v2"]
    with VectorWriter(tmp_path, DIM, MADE, part=7) as writer:  # of another number of processes
        assert writer.done == {"v1", "v2", "v3"}
        with pytest.raises(UsageError, match="already"):
            writer.add("v3", rows_of(3), spans_of(), "v3.mp4")


def test_of_an_id_in_two_parts_the_first_counts(tmp_path: Path) -> None:
    with VectorWriter(tmp_path, DIM, MADE, part=1) as one, VectorWriter(tmp_path, DIM, MADE, part=0) as other:
        one.add("a", rows_of(1), spans_of(), "a")
        other.add("a", rows_of(2), spans_of(), "a")
    store = open_vectors(tmp_path)
    assert store.ids == ["a"]
    np.testing.assert_array_equal(store.rows("a"), rows_of(2))


def test_the_id_of_a_part_says_where_it_is() -> None:
    assert part_id("a/b", 2.0, 7.25) == "a/b@2-7.25"
    assert part_id("a", None, 3) == "a@0-3"
    assert part_id("a", 3, None) == "a@3-"
    assert part_id("a", None, None) == "a"


KILLED = """
import os, signal, sys
import numpy as np
from ssan.features.store import VectorWriter
writer = VectorWriter(sys.argv[1], 5, {"model": {"name": "ssan_tiny", "hash": "ab12"}, "vectors_per_second": 1.5})
writer.add("kept", np.full((2, 5), 3.0), np.array([[0, 1], [1, 2]]), "kept.mp4")
import ssan.features.store
write, count = ssan.features.store._write, int(sys.argv[2])
def dying(handle, content):
    global count
    count -= 1
    if count < 0:
        handle.write(memoryview(content).cast("B")[:7])
        os.kill(os.getpid(), signal.SIGKILL)
    write(handle, content)
ssan.features.store._write = dying
writer.add("lost", np.full((3, 5), 4.0), np.array([[0, 1], [1, 2], [2, 3]]), "lost.mp4")
"""


@pytest.mark.slow
@pytest.mark.parametrize("writes_before", [0, 1, 2], ids=["rows", "times", "line"])
def test_a_writer_killed_anywhere_loses_nothing_that_was_committed(tmp_path: Path, writes_before: int) -> None:
    run = subprocess.run([sys.executable, "-c", KILLED, tmp_path, str(writes_before)], check=False)
    assert run.returncode == -signal.SIGKILL
    assert (tmp_path / "part-0.vectors").stat().st_size > 2 * DIM * 2  # something was left behind
    assert content(tmp_path) == {"kept": ([[3.0] * DIM] * 2, [[0, 1], [1, 2]])}
    with VectorWriter(tmp_path, DIM, MADE) as writer:
        assert writer.done == {"kept"}
        assert (tmp_path / "part-0.vectors").stat().st_size == 2 * DIM * 2
        assert (tmp_path / "part-0.spans").stat().st_size == 2 * 2 * 8
        writer.add("lost", rows_of(1), spans_of(), "lost.mp4")
    np.testing.assert_array_equal(open_vectors(tmp_path).rows("lost"), rows_of(1))


@pytest.mark.parametrize("name", ["part-0.vectors", "part-0.spans"])
def test_lines_that_reached_the_disk_before_their_rows_are_taken_back(tmp_path: Path, name: str) -> None:
    write(tmp_path, 1, 2, 3)
    size = (tmp_path / name).stat().st_size
    os.truncate(tmp_path / name, size * 5 // 9 - 1)  # within the rows of v2
    with VectorWriter(tmp_path, DIM, MADE) as writer:
        assert writer.done == {"v1"}
    write(tmp_path, 3, 2)
    store = open_vectors(tmp_path)
    assert store.ids == ["v1", "v3", "v2"]
    for number in (1, 2, 3):
        np.testing.assert_array_equal(store.rows(f"v{number}"), rows_of(number, 1 + number))


def test_a_disk_that_is_full_for_a_while_loses_only_what_did_not_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import errno

    import ssan.features.store

    whole = ssan.features.store._write

    def full(handle: object, content: memoryview) -> None:
        if bytes(content).startswith(b"{"):  # the line
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        whole(handle, content)  # type: ignore[arg-type]

    with VectorWriter(tmp_path, DIM, MADE) as writer:
        with monkeypatch.context() as patch:
            patch.setattr(ssan.features.store, "_write", full)
            with pytest.raises(SsanError, match="the disk is full") as caught:
                writer.add("a", rows_of(1), spans_of(), "a.mp4")
        assert caught.value.code == "no_space"
        writer.add("b", rows_of(2), spans_of(), "b.mp4")
    assert open_vectors(tmp_path).ids == ["b"]
    np.testing.assert_array_equal(open_vectors(tmp_path).rows("b"), rows_of(2))


def test_two_processes_cannot_write_to_one_part(tmp_path: Path) -> None:
    with (
        VectorWriter(tmp_path, DIM, MADE),
        pytest.raises(UsageError, match=r"part-0\.jsonl: it is being written by process \d+ since"),
    ):
        VectorWriter(tmp_path, DIM, MADE)
    VectorWriter(tmp_path, DIM, MADE).close()


def test_a_reader_sees_what_is_committed_while_a_writer_goes_on(tmp_path: Path) -> None:
    with VectorWriter(tmp_path, DIM, MADE) as writer:
        assert open_vectors(tmp_path).ids == []
        writer.add("a", rows_of(1), spans_of(), "a")
        before = open_vectors(tmp_path)
        writer.add("b", rows_of(2), spans_of(), "b")
        assert before.ids == ["a"]
        assert open_vectors(tmp_path).ids == ["a", "b"]


# ---------------------------------------------------------------------------------------------------------- refused


@pytest.mark.parametrize(
    ("dim", "made", "said"),
    [
        (7, MADE, "dim is 5 there and 7 here"),
        (DIM, {**MADE, "vectors_per_second": 1.0}, "vectors_per_second is 1.5 there and 1.0 here"),
        (DIM, {**MADE, "model": {"name": "ssan_tiny", "hash": "cd34"}}, 'model.hash is "ab12" there and "cd34" here'),
        (DIM, {**MADE, "new": True}, "new is null there and true here"),
    ],
)
def test_other_vectors_than_the_stores_are_refused_with_the_difference(
    tmp_path: Path, dim: int, made: dict[str, object], said: str
) -> None:
    write(tmp_path, 1)
    before = content(tmp_path)
    with pytest.raises(UsageError) as caught:
        VectorWriter(tmp_path, dim, made)
    assert said in caught.value.message
    assert content(tmp_path) == before


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 65_520.0, -1e30])
def test_numbers_that_are_none_or_too_large_are_refused_by_the_id(tmp_path: Path, value: float) -> None:
    rows = np.ones((3, DIM))
    rows[1, 2] = value
    with VectorWriter(tmp_path, DIM, MADE) as writer:
        with pytest.raises(SsanError, match="'a/b' are") as caught:
            writer.add("a/b", rows, spans_of(), "a/b.mp4")
        assert (caught.value.code, caught.value.path) == ("nan", "a/b.mp4")
        assert ("65504" in caught.value.message) == bool(np.isfinite(value))
        rows[1, 2] = 65_504.0  # the largest that there is
        writer.add("a/b", rows, spans_of(), "a/b.mp4")
    assert open_vectors(tmp_path).rows("a/b")[1, 2] == 65_504


@pytest.mark.parametrize(
    ("rows", "spans"),
    [
        (np.ones((3, 7)), spans_of(3)),
        (np.ones((3, DIM)), spans_of(2)),
        (np.ones((0, DIM)), np.ones((0, 2))),
        (np.ones(DIM), spans_of(1)),
        (np.ones((2, DIM)), [[2, 3], [0, 1]]),
        (np.ones((1, DIM)), [[3, 2]]),
        (np.ones((1, DIM)), [[np.nan, 2]]),
    ],
)
def test_rows_and_times_that_do_not_fit_are_refused(tmp_path: Path, rows: np.ndarray, spans: np.ndarray) -> None:
    with VectorWriter(tmp_path, DIM, MADE) as writer, pytest.raises(UsageError, match="expected"):
        writer.add("a", rows, spans, "a")
    assert open_vectors(tmp_path).ids == []


@pytest.mark.parametrize("name", ["", "a" * 5000, "\ud800"])
def test_ids_that_are_no_text_are_refused(tmp_path: Path, name: str) -> None:
    with VectorWriter(tmp_path, DIM, MADE) as writer, pytest.raises(UsageError, match="cannot be stored"):
        writer.add(name, rows_of(1), spans_of(), "a")


@pytest.mark.parametrize("name", ["part-0.vectors", "part-0.spans"])
def test_a_file_that_is_cut_off_is_refused_by_name(tmp_path: Path, name: str) -> None:
    write(tmp_path, 1, 2)
    os.truncate(tmp_path / name, (tmp_path / name).stat().st_size - 1)
    with pytest.raises(UsageError) as caught:
        open_vectors(tmp_path)
    assert (caught.value.code, caught.value.path) == ("truncated", str(tmp_path / name))
    (tmp_path / name).unlink()
    with pytest.raises(UsageError, match="missing") as caught:
        open_vectors(tmp_path)
    assert caught.value.path == str(tmp_path / name)


@pytest.mark.parametrize("name", ["part-0.vectors", "part-0.spans"])
def test_an_altered_number_is_refused_by_the_file(tmp_path: Path, name: str) -> None:
    write(tmp_path, 1, 2)
    damaged = bytearray((tmp_path / name).read_bytes())
    damaged[-1] ^= 1
    (tmp_path / name).write_bytes(damaged)
    store = open_vectors(tmp_path)
    np.testing.assert_array_equal(store.rows("v1"), rows_of(1, 2))
    with pytest.raises(UsageError, match=r"'v2' are not those that were written.*part-0\.spans") as caught:
        store.rows("v2")
    assert caught.value.path == str(tmp_path / "part-0.vectors")


@pytest.mark.parametrize(
    "line",
    [
        b"\n", b"[]\n", b'{"id": "x", "first": 0, "num": 2, "crc": 1}\n',
        b'{"id": "x", "first": 5, "num": 0, "crc": 1}\n',
        b'{"id": "v1", "first": 5, "num": 1, "crc": 1}\n', b'{"id": 3, "first": 5, "num": 1, "crc": 1}\n',
        b'{"id": "x", "first": 5, "num": true, "crc": 1}\n', b"[" * 2000 + b"\n", b"a" * 70_000, b"\xff\n",
    ],
)  # fmt: skip
def test_an_altered_line_is_refused_with_its_number(tmp_path: Path, line: bytes) -> None:
    write(tmp_path, 1, 2)
    with open(tmp_path / "part-0.jsonl", "ab") as handle:
        handle.write(line)
    for opening in (lambda: open_vectors(tmp_path), lambda: VectorWriter(tmp_path, DIM, MADE)):
        with pytest.raises(UsageError, match="altered") as caught:
            opening()
        assert (caught.value.path, caught.value.line) == (str(tmp_path / "part-0.jsonl"), 3)


@pytest.mark.parametrize(
    "said",
    [
        "[]", "{}", '{"schema": 2, "dim": 5, "dtype": "float16", "provenance": {}}',
        '{"schema": 1, "dim": 10000000, "dtype": "float16", "provenance": {}}',
        '{"schema": 1, "dim": 5, "dtype": "float32", "provenance": {}}',
        '{"schema": 1, "dim": 5, "dtype": "float16"}',
        '{"schema": 1, "dim": true, "dtype": "float16", "provenance": {}}',
    ],
)  # fmt: skip
def test_a_store_of_another_form_is_refused(tmp_path: Path, said: str) -> None:
    (tmp_path / "store.json").write_text(said)
    with pytest.raises(UsageError, match="not the description of a store") as caught:
        open_vectors(tmp_path)
    assert caught.value.path == str(tmp_path / "store.json")


def test_what_is_no_store_is_refused_with_advice(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="ssan extract"):
        open_vectors(tmp_path / "nowhere")
    write(tmp_path / "s", 1)
    (tmp_path / "s" / "store.json").unlink()
    with pytest.raises(UsageError, match="missing beside its parts"):
        VectorWriter(tmp_path / "s", DIM, MADE)
    with pytest.raises(UsageError, match="a file lies where"):
        VectorWriter(tmp_path / "s" / "part-0.jsonl", DIM, MADE)


def test_files_of_other_names_are_not_parts(tmp_path: Path) -> None:
    write(tmp_path, 1)
    for name in ("part-01.jsonl", "part-x.jsonl", "part--1.jsonl", "part-0.jsonl.bak", "part-99999999.jsonl"):
        (tmp_path / name).write_text("nothing of ours\n")
    assert open_vectors(tmp_path).ids == ["v1"]


def test_an_unknown_id_is_told_with_some_of_the_known(tmp_path: Path) -> None:
    write(tmp_path, 1)
    with pytest.raises(UsageError, match="no vectors of 'v9'; it has, for instance, 'v1'") as caught:
        Vectors(tmp_path).rows("v9")
    assert caught.value.code == "missing"
