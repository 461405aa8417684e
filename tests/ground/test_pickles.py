"""Pickles from elsewhere: plain values come back as they were, and nothing else comes at all."""

import pickle
import struct
import sys
import tracemalloc
from collections import OrderedDict, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ssan.pickles import DamagedPickle, read_pickle

ARRAYS = {
    "half": np.arange(6, dtype=np.float16).reshape(2, 3),
    "columns": np.asfortranarray(np.arange(6, dtype=np.float32).reshape(2, 3)),
    "other end first": np.arange(5, dtype=">f8"),
    "bytes": np.arange(5, dtype=np.uint8),
    "truths": np.array([True, False]),
    "text": np.array(["a", "été"]),
    "nothing": np.zeros((0, 3)),
    "no axis": np.array(7),
}


def written(path: Path, content: Any, protocol: int) -> Path:
    path.write_bytes(pickle.dumps(content, protocol))
    return path


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_arrays_come_back_with_their_type_and_shape(tmp_path: Path, protocol: int) -> None:
    found = read_pickle(written(tmp_path / "p", {"a": ARRAYS, "b": [ARRAYS["half"]]}, protocol))
    assert found["a"].keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(found["a"][name], array, err_msg=name)
        assert found["a"][name].dtype == array.dtype, name
    np.testing.assert_array_equal(found["b"][0], ARRAYS["half"])


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_numbers_of_numpys_and_arrays_of_objects_become_pythons(tmp_path: Path, protocol: int) -> None:
    content = OrderedDict(
        number=np.float32(0.5), whole=np.int64(-3), objects=np.array(["a", None, 2.5], dtype=object), raw=b"\x00\xff"
    )
    found = read_pickle(written(tmp_path / "p", content, protocol))
    assert found == {"number": 0.5, "whole": -3, "objects": ["a", None, 2.5], "raw": b"\x00\xff"}
    assert [type(found[name]) for name in ("number", "whole")] == [float, int]
    assert type(found) is dict


def test_arrays_are_made_however_deep_they_lie_and_wherever_they_are_referred_to(tmp_path: Path) -> None:
    shared = np.arange(3)
    found = read_pickle(written(tmp_path / "p", {"a": [{"b": (shared,)}, shared], "c": {"d": {"e": shared}}}, 4))
    for array in (found["a"][0]["b"][0], found["a"][1], found["c"]["d"]["e"]):
        np.testing.assert_array_equal(array, shared)


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (defaultdict(list), "collections.defaultdict"),
        (Path("x"), "pathlib"),
        (np.zeros(2, [("x", "<f4")]), "numpy.dtype of 'V4'"),
        (np.zeros(2, "complex64"), "numpy.dtype of 'c8'"),
        (np.array([["a", None]], dtype=object), "objects of another shape"),
        (np.dtype, "a type or a function by itself"),
        ([np.ndarray], "a type or a function by itself"),
    ],
)
def test_anything_else_is_refused_by_its_name(tmp_path: Path, content: Any, named: str) -> None:
    with pytest.raises(pickle.UnpicklingError, match=named):
        read_pickle(written(tmp_path / "p", content, 4))


def test_a_pickle_cut_anywhere_is_damaged_and_needs_no_more_memory_than_it_has(tmp_path: Path) -> None:
    whole = pickle.dumps({"a": ARRAYS["half"], "b": "text"}, 5)
    for size in range(len(whole)):
        (tmp_path / "p").write_bytes(whole[:size])
        with pytest.raises(pickle.UnpicklingError):
            read_pickle(tmp_path / "p")
    (tmp_path / "p").write_bytes(b"")
    with pytest.raises(DamagedPickle):
        read_pickle(tmp_path / "p")
    with pytest.raises(FileNotFoundError):
        read_pickle(tmp_path / "none")


def text(letters: bytes) -> bytes:
    return b"X" + struct.pack("<I", len(letters)) + letters


REPEATED = {
    # Each list refers to the one before it twice: 2 to the power of 40 values of 300 bytes.
    "lists within lists": b"\x80\x02(]q\0" + b"".join(b"]q%c(h%ch%ce" % (n + 1, n, n) for n in range(40)) + b"l.",
    "a dict a thousand times": b"\x80\x02(}q\1("
    + b"".join(text(b"%d" % n) + b"K\0" for n in range(300))
    + b"u"
    + b"h\1" * 30_000
    + b"l.",
    "bytes made anew": b"\x80\x02c_codecs\nencode\nq\1"
    + text(b"x" * 10_000)
    + text(b"latin1")
    + b"\x86q\2R]q\3("
    + b"h\1h\2R" * 20_000
    + b"e\x86.",
    "dicts made anew": b"\x80\x02ccollections\nOrderedDict\nq\1("
    + b"".join(b"J" + struct.pack("<i", n) + b"N\x86" for n in range(1_000))
    + b"l\x85q\2R(h\1h\2R"
    + b"h\1h\2R" * 20_000
    + b"l\x86.",
    "one array many times": pickle.dumps([np.zeros(10_000)] * 20_000, 4),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", REPEATED)
def test_a_value_that_is_referred_to_without_end_is_refused(tmp_path: Path, kind: str) -> None:
    (tmp_path / "p").write_bytes(REPEATED[kind])
    with pytest.raises(DamagedPickle, match=r"refer to each other far more often|copies of more than it holds"):
        read_pickle(tmp_path / "p")


def test_bytes_that_are_made_anew_take_no_more_memory_than_the_file_has(tmp_path: Path) -> None:
    (tmp_path / "p").write_bytes(REPEATED["bytes made anew"])
    tracemalloc.start()
    try:
        with pytest.raises(DamagedPickle):
            read_pickle(tmp_path / "p")
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("program", "words"),
    [
        (b"\x80\x02\x8b\xb8\x0b\0\0" + b"\x7f" * 3000 + b".", "a number of 23,999 bits"),
        (b"\x80\x02" + b"]" * 200 + b"a" * 199 + b".", "deeper than 100"),
        (b"\x80\x02)" + b"\x85" * 200_000 + b".", "deeper than 100"),
        (b"\x80\x02]q\0h\0a.", "deeper than 100"),  # a list that is its own only value
        (b"\x80\x02]2.", "the instruction DUP"),
        (b"\xff" * 206, "ValueError"),
        (b"\x80\x02K\1K\1.", "ValueError"),
    ],
)
def test_what_no_data_needs_is_refused_in_words(tmp_path: Path, program: bytes, words: str) -> None:
    (tmp_path / "p").write_bytes(program)
    with pytest.raises(DamagedPickle, match=words):
        read_pickle(tmp_path / "p")


@pytest.mark.parametrize("kind", ["dict", "set", "pairs", "tuples", "places"])
def test_keys_whose_places_a_file_has_chosen_are_refused(tmp_path: Path, kind: str) -> None:
    alike = [number * sys.hash_info.modulus for number in range(1, 30_001)]
    made: Any = {
        "dict": dict.fromkeys(alike[:3]),
        "set": set(alike[:3]),
        "pairs": OrderedDict.fromkeys(alike[:3]),
        "tuples": {(1, 2): 3},
        "places": None,
    }[kind]
    program = b"(" + b"I1\np%d\n" % alike[0] + b"l." if kind == "places" else pickle.dumps(made, 4)
    (tmp_path / "p").write_bytes(program)
    with pytest.raises(DamagedPickle, match=r"keys that are no text|a key that no pickle has"):
        read_pickle(tmp_path / "p")


def test_keys_as_data_have_them_are_read(tmp_path: Path) -> None:
    content = {"a": 1, b"b": 2, 3: 3, -4: 4, 0.5: 5, None: 6, True: 7, ("video", 3): 8}
    assert read_pickle(written(tmp_path / "p", content, 4)) == content


@pytest.mark.slow
def test_sets_by_the_million_are_refused(tmp_path: Path) -> None:
    (tmp_path / "p").write_bytes(b"\x80\x04(" + b"\x8f" * 200_000 + b"l.")
    with pytest.raises(DamagedPickle, match="more than 100,000 sets"):
        read_pickle(tmp_path / "p")


def test_values_that_many_others_share_are_read(tmp_path: Path) -> None:
    span, words = (0.5, 1.5), ["a", "b"]
    content = {f"v{n}": {"span": span, "words": words, "text": "a" * 200} for n in range(2_000)}
    assert read_pickle(written(tmp_path / "p", content, 4)) == content


def test_bytes_of_python_2_are_bytes_where_they_are_no_letters(tmp_path: Path) -> None:
    (tmp_path / "p").write_bytes(b"\x80\x02]q\0(U\x03abcU\x02\x00\xffe.")
    assert read_pickle(tmp_path / "p") == ["abc", b"\x00\xff"]
