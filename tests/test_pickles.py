"""Pickles from elsewhere: plain values come back as they were, and nothing else comes at all."""

import pickle
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


def test_arrays_are_looked_for_as_deep_as_is_asked(tmp_path: Path) -> None:
    path = written(tmp_path / "p", {"a": {"b": {"c": ARRAYS["half"]}}}, 4)
    assert not isinstance(read_pickle(path)["a"]["b"]["c"], np.ndarray)
    np.testing.assert_array_equal(read_pickle(path, depth=3)["a"]["b"]["c"], ARRAYS["half"])


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
