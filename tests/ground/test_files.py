"""Files appear whole or not at all; errors keep their fields; journals and model files survive what happens to them."""

import csv
import errno
import fcntl
import hashlib
import itertools
import json
import math
import os
import pickle
import re
import secrets
import signal
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from ssan.errors import (
    CODES,
    AnnotationError,
    ModelError,
    SsanError,
    TrainingError,
    UsageError,
    VideoError,
    few,
    first_line,
    named,
    on_one_line,
    quoted,
    shortened,
    unknown,
)
from ssan.files import (
    one_writer,
    open_regular,
    read_json,
    read_jsonl,
    read_text,
    remove_partials,
    replacing,
    sha256,
    write_json,
    writing,
)
from ssan.training.journal import Journal, read_journal
from ssan.weights.model_file import hash_tensors, read_model_file, write_model_file

# -------------------------------------------------------------------------------------------------------- writing


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_written_file_holds_what_was_written_and_nothing_lies_beside_it(tmp_path: Path) -> None:
    with writing(tmp_path / "deep" / "a.txt") as handle:
        handle.write("Gruß\nzwei\r\n")
    assert (tmp_path / "deep" / "a.txt").read_bytes() == "Gruß\nzwei\r\n".encode()
    assert _names(tmp_path / "deep") == ["a.txt"]


def test_bytes_are_written_as_they_are(tmp_path: Path) -> None:
    with writing(tmp_path / "a.bin", "wb") as handle:
        handle.write(b"\x00\xff\r\n")
    assert (tmp_path / "a.bin").read_bytes() == b"\x00\xff\r\n"


def test_readers_see_the_old_file_until_the_new_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with writing(path) as handle:
        handle.write("new")
        handle.flush()
        assert path.read_text() == "old"
    assert path.read_text() == "new"


@pytest.mark.parametrize("raised", [RuntimeError, KeyboardInterrupt, OSError])
def test_an_exception_inside_leaves_the_old_file_and_no_other(tmp_path: Path, raised: type[BaseException]) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")

    def write() -> None:
        with writing(path) as handle:
            handle.write("half")
            raise raised

    def replace() -> None:
        with replacing(path) as partial:
            Path(partial).write_text("half")
            raise raised

    for fail in (write, replace):
        with pytest.raises(raised):
            fail()
    assert path.read_text() == "old"
    assert _names(tmp_path) == ["a.txt"]


def test_an_exception_inside_leaves_no_file_where_there_was_none(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), writing(tmp_path / "a.txt"):
        raise RuntimeError
    assert _names(tmp_path) == []


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_named_and_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    path = tmp_path / "a.json"
    write_json(path, ["old"])

    def full(descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(SsanError, match="the disk is full") as caught:
        write_json(path, ["new"])
    assert (caught.value.code, caught.value.path) == ("no_space", str(path))
    assert read_json(path) == ["old"]
    assert _names(tmp_path) == ["a.json"]


def test_another_fault_of_the_disk_is_not_called_a_full_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(descriptor: int) -> None:
        raise OSError(errno.EIO, "broken")

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(OSError, match="broken"):
        write_json(tmp_path / "a.json", 1)
    assert _names(tmp_path) == []


def test_a_temporary_file_cannot_be_foreseen_and_follows_no_link(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = []
    for _ in range(2):
        with replacing(tmp_path / "a.txt") as partial:
            names.append(partial)
            Path(partial).write_text("mine")
    assert len({*names, str(tmp_path / f".a.txt.{os.getpid()}.part")}) == 3
    (tmp_path / "victim").write_text("dear to somebody")
    monkeypatch.setattr(secrets, "token_hex", lambda size: "foreseen")
    (tmp_path / ".a.txt.foreseen.part").symlink_to(tmp_path / "victim")
    with pytest.raises(FileExistsError), writing(tmp_path / "a.txt") as handle:
        handle.write("overwritten")
    assert (tmp_path / "victim").read_text() == "dear to somebody"


@pytest.mark.parametrize("name", ["\u6f22" * 84 + ".md", "a" * 255, "\U0001f415" * 63])
def test_a_name_as_long_as_names_may_be_is_written_and_locked(tmp_path: Path, name: str) -> None:
    with one_writer(tmp_path / name):
        with writing(tmp_path / name) as handle:
            handle.write("new")
        (tmp_path / f".{name[:10]}.left.part").touch()
        remove_partials(tmp_path, name[:10])
        with pytest.raises(UsageError, match="being written"), one_writer(tmp_path / name):
            pass
        with one_writer(tmp_path / (name[:-1] + "x")):  # another file whose name begins as this one's
            pass
    assert _names(tmp_path) == [name]


def test_a_file_that_is_to_be_new_leaves_one_that_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(*names: str) -> None:
        raise PermissionError(errno.EPERM, "no links here")

    for number, link in enumerate((os.link, no_links)):
        monkeypatch.setattr(os, "link", link)
        write_json(tmp_path / f"{number}.json", 1, new=True)
        with pytest.raises(FileExistsError):
            write_json(tmp_path / f"{number}.json", 2, new=True)
        assert read_json(tmp_path / f"{number}.json") == 1
    assert _names(tmp_path) == ["0.json", "1.json"]


# ---------------------------------------------------------------------------------------------------- one at a time


def test_one_process_at_a_time_writes_and_the_other_is_told_who_does(tmp_path: Path) -> None:
    for path, folder in ((tmp_path / "out" / "a.npz", False), (tmp_path / "run" / "one", True)):
        with one_writer(path, folder=folder):
            with pytest.raises(UsageError) as caught, one_writer(path, folder=folder):
                pass
            assert caught.value.path == str(path)
            assert re.fullmatch(
                rf"it is being written by process {os.getpid()} since \d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d; wait until "
                "that has ended, or name another path",
                caught.value.message,
            )
        with one_writer(path, folder=folder):
            pass
    assert _names(tmp_path) == [], "folders that were made for nothing are gone"


def test_what_was_put_into_a_folder_stays_and_the_lock_goes(tmp_path: Path) -> None:
    with one_writer(tmp_path / "run", folder=True):
        (tmp_path / "run" / "a").touch()
    assert _names(tmp_path / "run") == ["a"]
    with pytest.raises(UsageError, match="a file lies where"), one_writer(tmp_path / "run" / "a", folder=True):
        pass


HOLDS = """
import os, sys, time
from ssan.files import one_writer
with one_writer(sys.argv[1], folder=True):
    if os.fork() == 0:  # as loaders do
        print(os.getpid(), flush=True)
    time.sleep(600)
"""


def test_a_lock_ends_with_its_process_also_where_a_child_lives_on(tmp_path: Path) -> None:
    holder = subprocess.Popen([sys.executable, "-c", HOLDS, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    child = int(holder.stdout.readline())
    try:
        with pytest.raises(UsageError, match=f"by process {holder.pid} since"), one_writer(tmp_path, folder=True):
            pass
        holder.kill()
        holder.wait()
        assert _names(tmp_path) == [".lock"]
        with one_writer(tmp_path, folder=True):
            os.kill(child, 0)  # is there
        assert _names(tmp_path) == []
    finally:
        holder.kill()
        os.kill(child, signal.SIGKILL)
        holder.communicate()


def test_a_lock_that_somebody_has_laid_as_a_link_or_with_nonsense_harms_nobody(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("dear to somebody")
    (tmp_path / ".a.lock").symlink_to(tmp_path / "victim")
    with pytest.raises(OSError, match=r"\.a\.lock"), one_writer(tmp_path / "a"):
        pass
    assert (tmp_path / "victim").read_text() == "dear to somebody"
    (tmp_path / ".b.lock").write_bytes(b"\x1b[2J\xff" * 99)
    with open(tmp_path / ".b.lock", "rb") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        with pytest.raises(UsageError, match="by another process; wait"), one_writer(tmp_path / "b"):
            pass


def test_where_a_file_system_has_no_locks_the_work_is_done_and_that_is_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def none(*given: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", none)
    monkeypatch.setattr("ssan.files._told_of_no_locks", False)
    for _ in range(2):
        with one_writer(tmp_path / "a"):
            pass
    Journal(tmp_path).record("start")
    assert capsys.readouterr().err.count("has no locks (No locks available)") == 1
    assert _names(tmp_path) == ["journal.jsonl"]


def test_lines_of_several_processes_do_not_mix_and_none_takes_anothers_for_a_rest(tmp_path: Path) -> None:
    """A line longer than what goes to a file at once, cut off by nobody while another process mends."""
    writes = (
        "import sys\nfrom ssan.training.journal import Journal\n"
        "for n in range(40): Journal(sys.argv[1]).record('e', who=sys.argv[2], n=n, long='x' * 100_000)"
    )
    crew = [subprocess.Popen([sys.executable, "-c", writes, str(tmp_path), who]) for who in "ab"]
    assert [process.wait(300) for process in crew] == [0, 0]
    events = Journal(tmp_path).events("e")
    assert sorted((event["who"], event["n"]) for event in events) == [(who, n) for who in "ab" for n in range(40)]


@pytest.mark.parametrize("what", ["a pipe", "a device", "a folder"])
def test_what_is_no_file_is_refused_and_not_waited_for(tmp_path: Path, what: str) -> None:
    path = {"a pipe": tmp_path / "pipe", "a device": Path("/dev/zero"), "a folder": tmp_path}[what]
    if what == "a pipe":
        os.mkfifo(path)
    for read in (read_json, read_journal, lambda path: open_regular(path, "a list")):
        with pytest.raises(UsageError, match="not a file") as caught:
            read(path)
        assert caught.value.path == str(path)
    with pytest.raises(OSError, match=r"not a file|Is a directory"):
        sha256(path)


# ------------------------------------------------------------------------------------------------------------- json


def test_json_comes_back(tmp_path: Path) -> None:
    value = {"a": [1, 2.5, None, True], "Gruß": {"b": "c"}}
    write_json(tmp_path / "a.json", value)
    assert read_json(tmp_path / "a.json") == value
    assert "Gruß" in (tmp_path / "a.json").read_text(encoding="utf-8")


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_json_of_a_number_that_is_none_is_refused_and_the_old_file_stays(tmp_path: Path, number: float) -> None:
    path = tmp_path / "a.json"
    write_json(path, 1)
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(path, {"a": [number]})
    assert read_json(path) == 1


def _json_error(path: Path, content: bytes) -> UsageError:
    path.write_bytes(content)
    with pytest.raises(UsageError) as caught:
        read_json(path)
    assert (caught.value.path, caught.value.code) == (str(path), "bad_annotation")
    return caught.value


def test_malformed_json_is_named_with_its_line(tmp_path: Path) -> None:
    error = _json_error(tmp_path / "a.json", b'{"a": 1,\n "b": 2\n "c": 3}\n')
    assert error.line == 3
    assert str(error).startswith(f"{tmp_path / 'a.json'} line 3: not valid JSON")


@pytest.mark.parametrize(
    "content",
    [b"\xff\xfe{}", b"[" * 100_000, b"1" * 5_000],
    ids=["not UTF-8", "nested without end", "a number of thousands of digits"],
)
def test_json_that_no_reader_takes_is_an_error_of_the_file(tmp_path: Path, content: bytes) -> None:
    _json_error(tmp_path / "a.json", content)


def test_a_text_may_have_so_many_bytes_and_not_more(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"1234567")
    assert read_text(path, "a few words", most_bytes=7) == "1234567"
    with pytest.raises(AnnotationError, match="larger than 6 bytes; expected a few words") as caught:
        read_text(path, "a few words", most_bytes=6, error=AnnotationError)
    assert (caught.value.path, caught.value.code) == (str(path), "bad_annotation")


def test_a_pipe_is_no_text_and_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.json")
    with pytest.raises(UsageError, match="not a file; expected JSON"):
        read_json(tmp_path / "a.json")


def test_the_name_of_a_file_is_written_as_the_bytes_that_it_has(tmp_path: Path) -> None:
    name = os.fsdecode(b"\xff.mp4")
    with writing(tmp_path / "a.csv") as handle:
        handle.write(name)
    assert (tmp_path / "a.csv").read_bytes() == b"\xff.mp4"
    write_json(tmp_path / "a.json", {"path": name})
    assert os.fsencode(json.loads((tmp_path / "a.json").read_bytes())["path"]) == b"\xff.mp4"


def test_json_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(b"\xef\xbb\xbf[1]")
    assert read_json(tmp_path / "a.json") == [1]


def test_missing_json_is_missing(tmp_path: Path) -> None:
    for path in (tmp_path / "a.json", tmp_path):
        with pytest.raises(UsageError) as caught:
            read_json(path)
        assert (caught.value.path, caught.value.code, caught.value.line) == (str(path), "missing", None)


def test_lines_of_json_are_objects_or_none_and_end_at_newlines_alone(tmp_path: Path) -> None:
    lines = ['{"a": "x\u2028y"}', "[1]", "", "{", '{"b": 2}']
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(lines) + '\n{"cut": of', encoding="utf-8")
    found = list(read_jsonl(path, "lines"))
    assert [content for _, content in found] == [{"a": "x\u2028y"}, None, None, None, {"b": 2}]
    ends = [end for end, _ in found]
    assert ends == list(itertools.accumulate(len(line.encode()) + 1 for line in lines))
    path.write_bytes(b"")
    assert list(read_jsonl(path, "lines")) == []


def test_a_line_of_json_longer_than_lines_may_be_is_none_and_the_last(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"a":1}\n' + b'{"b":23}\n' + b"{}\n")
    assert [content for _, content in read_jsonl(path, "lines", most_bytes=9)] == [{"a": 1}, {"b": 23}, {}]
    assert list(read_jsonl(path, "lines", most_bytes=8)) == [(8, {"a": 1}), (17, {"b": 23}), (20, {})]
    assert list(read_jsonl(path, "lines", most_bytes=7)) == [(8, {"a": 1}), (8, None)]


def test_lines_of_json_that_are_no_file_are_missing(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file; expected lines") as caught:
        list(read_jsonl(tmp_path / "a.jsonl", "lines"))
    assert caught.value.code == "missing"


def test_the_hash_of_a_file_is_sha_256(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert sha256(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


# --------------------------------------------------------------------------------------------------------- errors

FAMILY = (SsanError, UsageError, VideoError, AnnotationError, ModelError, TrainingError)


def test_an_error_as_json_has_path_code_message_line() -> None:
    error = AnnotationError("no", code="duplicate", path="a.csv", line=7)
    assert error.as_dict() == {"path": "a.csv", "code": "duplicate", "message": "no", "line": 7}
    assert list(error.as_dict()) == ["path", "code", "message", "line"]
    assert UsageError("no").as_dict() == {"path": None, "code": None, "message": "no", "line": None}


def test_an_error_says_where_and_then_what() -> None:
    assert str(UsageError("no", path="a.csv", line=7)) == "a.csv line 7: no"
    assert str(UsageError("no", path="a.csv")) == "a.csv: no"
    assert str(UsageError("no", line=7)) == "line 7: no"
    assert str(UsageError("no")) == "no"


def test_a_path_object_becomes_text() -> None:
    assert UsageError("no", path=Path("a/b")).path == "a/b"  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", FAMILY)
def test_an_error_crosses_a_process_border_whole(kind: type[SsanError]) -> None:
    error = kind("no", code="truncated", path="a.mp4", line=3)
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is kind
    assert again.as_dict() == error.as_dict()
    assert str(again) == str(error)


def test_all_errors_are_one_family() -> None:
    assert all(issubclass(kind, SsanError) for kind in FAMILY)


def test_the_codes_are_the_promised_ones() -> None:
    assert " ".join(CODES) == (
        "missing empty not_video no_video_stream truncated decode_error too_few_frames duplicate bad_annotation "
        "unknown_label path_escape wrong_model nan no_space not_fetched"
    )


def test_a_code_outside_the_list_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'broken' is not an error code; known: missing, empty"):
        VideoError("no", code="broken")


def test_unknown_suggests_the_nearest_and_lists_all_sorted() -> None:
    sentence = unknown("layer", "sssa", ["temporal_shift", "ssa"])
    assert sentence == "unknown layer 'sssa'. Did you mean 'ssa'? Known: ssa, temporal_shift"


def test_a_long_word_that_is_unknown_is_cut() -> None:
    assert unknown("layer", "x" * 81, ["ssa"]) == f"unknown layer {'x' * 80 + '...'!r}. Known: ssa"


def test_values_are_cut_where_they_are_long_and_quoted_where_no_screen_shows_them() -> None:
    assert [shortened("abcd", most) for most in (4, 3)] == ["abcd", "abc..."]
    assert [quoted("a" * count) for count in (200, 201)] == [f"'{'a' * 200}'", f"'{'a' * 200}...'"]
    assert [named(name, 5) for name in ("a b", "a\nb", "abcdef")] == ["a b", r"'a\nb'", "abcde..."]


def test_of_many_names_the_first_are_shown() -> None:
    assert few(["a", "b", "c"]) == "'a', 'b', 'c'"
    assert few(["a", "b", "c", "d"], 2, show=named) == "a, b, ..."
    assert few([]) == "none"


def test_an_error_from_elsewhere_is_its_first_line_or_one_line_or_its_kind() -> None:
    error = ValueError("no number\n  in  line 3")
    assert (first_line(error), on_one_line(error)) == ("no number", "no number in line 3")
    assert (first_line(error, 4), on_one_line(error, 12)) == ("no n...", "no number in...")
    assert (first_line(KeyError()), on_one_line(KeyError())) == ("KeyError", "KeyError")


def test_unknown_suggests_nothing_where_nothing_is_near() -> None:
    assert unknown("layer", "zzz", ["ssa"]) == "unknown layer 'zzz'. Known: ssa"


# -------------------------------------------------------------------------------------------------------- journal


def test_each_record_is_a_line_with_event_and_time(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "run")
    journal.record("start", seed=3, classes=["links", "groß"])
    journal.record("epoch", epoch=0)
    lines = journal.path.read_text(encoding="utf-8").splitlines()
    first, second = (json.loads(line) for line in lines)
    assert list(first) == ["event", "time", "seed", "classes"]
    assert first["classes"] == ["links", "groß"]
    assert 0 <= second["time"] - first["time"] < 60
    assert first["time"] > 1.7e9


def test_events_are_those_of_one_kind_or_all_oldest_first(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    assert journal.events() == []
    for number, event in enumerate(("start", "epoch", "epoch", "end")):
        journal.record(event, number=number)
    assert [row["number"] for row in journal.events()] == [0, 1, 2, 3]
    assert [row["number"] for row in journal.events("epoch")] == [1, 2]


def test_what_is_no_number_is_written_as_null_however_deep(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.record("epoch", a=math.nan, b=[math.inf, 1.5], c={"d": (-math.inf, "x")})
    text = journal.path.read_text()
    assert not any(word in text for word in ("NaN", "Infinity"))
    (row,) = journal.events()
    assert (row["a"], row["b"], row["c"]) == (None, [None, 1.5], {"d": [None, "x"]})


def test_a_path_that_is_no_text_is_recorded_all_the_same(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.record("start", root="clips\udcff", title="Öl")
    (start,) = journal.events("start")
    assert (start["root"], start["title"]) == ("clips\udcff", "Öl")


def _crash(journal: Journal, rest: bytes) -> None:
    with open(journal.path, "ab") as handle:
        handle.write(rest)


@pytest.mark.parametrize("rest", [b'{"event": "epo', '{"event": "Gruß"}'.encode()[:15], b"{", b'{"event": "x"}'])
def test_a_cut_off_last_line_is_ignored_and_gone_with_the_next_record(tmp_path: Path, rest: bytes) -> None:
    journal = Journal(tmp_path)
    journal.record("start")
    _crash(journal, rest)
    assert [row["event"] for row in journal.events()] == ["start"]
    Journal(tmp_path).record("resume")
    Journal(tmp_path).record("end")
    assert [row["event"] for row in journal.events()] == ["start", "resume", "end"]
    assert journal.path.read_bytes().count(b"\n") == 3


def test_a_journal_that_is_nothing_but_a_cut_off_line_begins_anew(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    _crash(journal, b'{"event": "sta')
    assert journal.events() == []
    journal.record("start")
    assert [row["event"] for row in journal.events()] == ["start"]


def test_a_record_may_hold_any_character(tmp_path: Path) -> None:
    text = "a\nb\r\u2028c\x85d\x0c\x1ee"
    journal = Journal(tmp_path)
    journal.record("start", label=text)
    journal.record("end")
    assert [row.get("label") for row in journal.events()] == [text, None]


@pytest.mark.parametrize("wrong", [b"nonsense\n", b'{"event": "epo\n', b"3\n", b"\xff\n", b"\n"])
def test_a_bad_line_in_the_middle_is_an_error_with_its_number(tmp_path: Path, wrong: bytes) -> None:
    journal = Journal(tmp_path)
    journal.record("start")
    _crash(journal, wrong)
    journal.record("end")
    with pytest.raises(UsageError) as caught:
        journal.events()
    assert (caught.value.path, caught.value.line, caught.value.code) == (str(journal.path), 2, "bad_annotation")


def test_no_journal_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="name a run's folder") as caught:
        read_journal(tmp_path / "journal.jsonl")
    assert caught.value.code == "missing"


def test_the_table_keeps_the_later_record_of_an_epoch(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    for epoch, loss in ((1, 3.0), (0, 2.0), (1, math.nan), (2, 0.5)):
        journal.record("epoch", epoch=epoch, val_loss=loss)
    journal.record("end", epoch=9)
    journal.write_tables()
    with open(tmp_path / "metrics.csv", newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert rows == [
        {"epoch": "0", "val_loss": "2.0"},
        {"epoch": "1", "val_loss": ""},
        {"epoch": "2", "val_loss": "0.5"},
    ]


def test_no_table_before_the_first_epoch(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.record("start")
    journal.write_tables()
    assert _names(tmp_path) == ["journal.jsonl"]


# ---------------------------------------------------------------------------------------------------- model files

METADATA: dict[str, Any] = {
    "recipe": {"model": "ssan_tiny"},
    "classes": ["links", "rechts, groß"],
    "preprocess": {"crop_px": 48},
    "protocol": {},
}


def _tensors() -> dict[str, torch.Tensor]:
    shared = torch.arange(6.0)
    return {
        "b.weight": torch.randn(2, 3, 5, 7).to(memory_format=torch.channels_last),
        "a": shared,
        "a_again": shared,
        "part": shared[2:5],
        "turned": torch.randn(3, 5).t(),
        "scalar": torch.tensor(7),
        "nothing": torch.empty(0, 3),
        "half": torch.randn(5).to(torch.bfloat16),
        "yes": torch.tensor([True, False]),
        "trained": torch.nn.Parameter(torch.randn(2)),
    }


@pytest.fixture
def model_file(tmp_path: Path) -> Path:
    write_model_file(tmp_path / "model.safetensors", _tensors(), METADATA)
    return tmp_path / "model.safetensors"


def test_a_model_file_gives_back_tensors_and_metadata(tmp_path: Path) -> None:
    tensors = _tensors()
    digest = write_model_file(tmp_path / "m.safetensors", tensors, METADATA)
    again, metadata = read_model_file(tmp_path / "m.safetensors")
    assert set(again) == set(tensors)
    for name, tensor in tensors.items():
        assert (again[name].dtype, again[name].shape) == (tensor.dtype, tensor.shape)
        assert torch.equal(again[name], tensor)
        assert again[name].is_contiguous()
    assert metadata == {**METADATA, "sha256": digest}
    assert _names(tmp_path) == ["m.safetensors"]


def test_the_plain_safetensors_library_opens_it_and_finds_the_promised_metadata(model_file: Path) -> None:
    assert torch.equal(load_file(model_file)["a"], torch.arange(6.0))
    with safe_open(model_file, framework="pt") as file:
        text = file.metadata()
    assert sorted(text) == sorted(
        f"ssan.{key}" for key in ("format", "recipe", "classes", "preprocess", "protocol", "sha256", "metadata_sha256")
    )
    assert text["ssan.format"] == "2"
    assert json.loads(text["ssan.classes"]) == METADATA["classes"]
    assert text["ssan.sha256"] == hash_tensors(load_file(model_file))


def test_the_hash_is_of_names_types_shapes_and_bytes_and_of_nothing_else() -> None:
    one = {"a": torch.tensor([1.0, 2.0]), "b": torch.zeros(2, 3)}
    same = {"b": torch.zeros(3, 2).t(), "a": torch.tensor([1.0, 2.0])}
    others = [
        {"a": torch.tensor([1.0, 2.5]), "b": torch.zeros(2, 3)},
        {"a": torch.tensor([1.0, 2.0]), "b": torch.zeros(3, 2)},
        {"a": torch.tensor([1.0, 2.0]), "c": torch.zeros(2, 3)},
        {"a": torch.tensor([1.0, 2.0]), "b": torch.zeros(2, 3, dtype=torch.int32)},
    ]
    assert hash_tensors(one) == hash_tensors(same)
    assert len({hash_tensors(tensors) for tensors in [one, *others]}) == 5
    written = hashlib.sha256(b"a torch.float32 (1,)\n" + struct.pack("<f", 1.5)).hexdigest()
    assert hash_tensors({"a": torch.tensor([1.5])}) == written


def _refused(path: Path) -> ModelError:
    with pytest.raises(ModelError) as caught:
        read_model_file(path)
    assert caught.value.path == str(path)
    return caught.value


def test_a_changed_byte_of_a_tensor_is_noticed(model_file: Path) -> None:
    content = model_file.read_bytes()
    for place in (len(content) - 1, 8 + struct.unpack("<Q", content[:8])[0]):
        model_file.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        error = _refused(model_file)
        assert error.code == "wrong_model"
        assert "copy the file again" in error.message


def test_no_changed_bit_of_the_header_changes_what_is_read(tmp_path: Path) -> None:
    path, tensors = tmp_path / "m.safetensors", {"a": torch.arange(4.0)}
    digest = write_model_file(path, tensors, {"classes": ["left", "right"], "protocol": {"views": 1}})
    content = path.read_bytes()
    header = content[8 : 8 + struct.unpack("<Q", content[:8])[0]]
    codes: list[str | None] = []
    for place in range(8 + len(header.rstrip(b" "))):
        for bit in range(8):
            path.write_bytes(content[:place] + bytes([content[place] ^ 1 << bit]) + content[place + 1 :])
            try:
                again, metadata = read_model_file(path)
            except ModelError as error:
                codes.append(error.code)
            else:
                assert metadata == {"classes": ["left", "right"], "protocol": {"views": 1}, "sha256": digest}
                assert all(torch.equal(again[name], tensor) for name, tensor in tensors.items())
    assert set(codes) == {"wrong_model"}
    assert len(codes) > 2500


def test_metadata_without_its_hash_is_refused_where_the_format_promises_one(model_file: Path) -> None:
    with safe_open(model_file, framework="pt") as file:
        text = file.metadata()
    for name in ("ssan.metadata_sha256", "ssan.classes", "ssan.sha256"):
        save_file(
            load_file(model_file), model_file, metadata={key: value for key, value in text.items() if key != name}
        )
        assert "the hash differs" in _refused(model_file).message


def test_a_file_from_before_metadata_had_a_hash_is_read(model_file: Path) -> None:
    expected = read_model_file(model_file)[1]
    with safe_open(model_file, framework="pt") as file:
        text = {key: value for key, value in file.metadata().items() if key != "ssan.metadata_sha256"}
    save_file(load_file(model_file), model_file, metadata={**text, "ssan.format": "1"})
    assert read_model_file(model_file)[1] == expected


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.999])
def test_a_truncated_model_file_is_refused(model_file: Path, share: float) -> None:
    content = model_file.read_bytes()
    model_file.write_bytes(content[: int(len(content) * share)])
    assert _refused(model_file).code == "wrong_model"


def test_a_missing_model_file_is_missing(tmp_path: Path) -> None:
    for path in (tmp_path / "m.safetensors", tmp_path):
        assert _refused(path).code == "missing"


def test_a_safetensors_file_of_somebody_else_is_not_a_model(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    for metadata in (None, {"format": "pt"}):
        save_file({"a": torch.zeros(2)}, path, metadata=metadata)
        error = _refused(path)
        assert error.code == "wrong_model"
        assert "--init" in error.message


def test_a_newer_format_says_upgrade(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    save_file({"a": torch.zeros(2)}, path, metadata={"ssan.format": "3"})
    error = _refused(path)
    assert error.code == "wrong_model"
    assert "'3'" in error.message
    assert "Upgrade" in error.message


def test_metadata_that_is_no_json_is_refused(tmp_path: Path) -> None:
    path, tensors = tmp_path / "m.safetensors", {"a": torch.zeros(2)}
    metadata = {"ssan.format": "1", "ssan.sha256": hash_tensors(tensors), "ssan.recipe": "{"}
    save_file(tensors, path, metadata=metadata)
    assert "not valid JSON" in _refused(path).message


def test_a_pickle_is_not_unpickled(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    torch.save({"a": torch.zeros(2)}, path)
    assert _refused(path).code == "wrong_model"


def test_a_model_file_is_replaced_whole_or_not_at_all(model_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = model_file.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(SsanError) as caught:
        write_model_file(model_file, {"a": torch.zeros(2)}, METADATA)
    assert caught.value.code == "no_space"
    assert model_file.read_bytes() == before
    assert _names(model_file.parent) == ["model.safetensors"]
