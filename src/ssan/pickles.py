"""Pickles from elsewhere, read as plain values: containers, strings, numbers, and numpy's arrays of these.

Nothing is called that a file names. What stands for numpy's own is made here of the bytes in the file, and everything
else is refused by its name.
"""

import math
import mmap
import os
import pickle
import re
import struct
from typing import Any

import numpy as np


class DamagedPickle(pickle.UnpicklingError):
    """What is there is no whole pickle."""


def read_pickle(path: str | os.PathLike[str], depth: int = 2) -> Any:
    """The plain values of a pickle of any protocol, of either numpy.

    Numbers and text of numpy's become Python's, OrderedDicts become dicts, and an array of objects, which has to have
    one dimension, becomes a list. Arrays of numbers and of text share the memory of what was read.

    :param depth: in how many layers of lists and dicts arrays are looked for; deeper ones are not made.
    :raises pickle.UnpicklingError: it holds something else, which the message names.
    :raises DamagedPickle: it is cut short or otherwise no pickle; a kind of the former.
    """
    try:
        with open(path, "rb") as handle, mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return _resolved(_PlainUnpickler(content).load(), depth)
    except _DAMAGE as error:
        raise DamagedPickle(type(error).__name__) from None


_DAMAGE = (ArithmeticError, AssertionError, AttributeError, EOFError, ImportError, LookupError, MemoryError,
           RecursionError, TypeError, ValueError, struct.error)  # fmt: skip
"""What reading a damaged pickle runs into; an empty file cannot be mapped, which is a ValueError."""


class _Dtype:
    """Stands for numpy.dtype: numbers, truths and text of a plain layout, objects, and nothing else."""

    def __init__(self, name: object, align: object = False, copy: object = False) -> None:
        if not isinstance(name, str) or re.fullmatch(r"[biuf][1248]|[US]\d{1,4}|O8?", name) is None:
            raise pickle.UnpicklingError(f"numpy.dtype of {str(name)[:40]!r}, neither numbers nor text")
        self.name, self.byte_order = name, "<"

    def __setstate__(self, state: object) -> None:
        # (version, byte order, subarray, names, fields, ...): structured types have the latter three.
        if not isinstance(state, tuple) or len(state) < 5 or state[1] not in ("<", ">", "|", "="):
            raise pickle.UnpicklingError("numpy.dtype in another form than numpy writes")
        if any(field is not None for field in state[2:5]):
            raise pickle.UnpicklingError("numpy.dtype with fields, neither numbers nor text")
        if state[1] in ("<", ">"):
            self.byte_order = state[1]

    @property
    def is_object(self) -> bool:
        return self.name.startswith("O")

    def values(self, content: object, shape: tuple[int, ...], order: str) -> np.ndarray:
        """The array that bytes of this type are."""
        if self.is_object or not isinstance(content, bytes | bytearray):
            raise pickle.UnpicklingError("numpy.ndarray whose values are not there")
        kind = np.dtype(self.byte_order + self.name)
        if kind.itemsize * math.prod(shape) != len(content) or kind.itemsize == 0:
            raise pickle.UnpicklingError("numpy.ndarray of another size than its values")
        return np.frombuffer(content, kind).reshape(shape, order="F" if order == "F" else "C")


class _Array:
    """Stands for numpy.ndarray: its values alone, an array, or a list of objects."""

    value: np.ndarray | list[Any] | None = None

    def __init__(self, *_: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        if not isinstance(state, tuple) or len(state) != 5:
            raise pickle.UnpicklingError("numpy.ndarray in another form than numpy writes")
        _, shape, dtype, in_columns, content = state
        self.fill(content, dtype, shape, "F" if in_columns else "C")

    def fill(self, content: object, dtype: object, shape: object, order: object) -> None:
        if not isinstance(shape, tuple) or not all(type(length) is int and length >= 0 for length in shape):
            raise pickle.UnpicklingError("numpy.ndarray of a strange shape")
        if not isinstance(dtype, _Dtype) or order not in ("C", "F"):
            raise pickle.UnpicklingError("numpy.ndarray in another form than numpy writes")
        if not (dtype.is_object and isinstance(content, list)):
            self.value = dtype.values(content, shape, order)
        elif shape == (len(content),):
            self.value = content
        else:
            raise pickle.UnpicklingError("numpy.ndarray of objects of another shape than one list")


def _scalar(dtype: object, content: object = b"") -> Any:
    if not isinstance(dtype, _Dtype):
        raise pickle.UnpicklingError("numpy scalar in another form than numpy writes")
    return dtype.values(content, (), "C").item()


def _from_buffer(content: object, dtype: object, shape: object, order: object) -> _Array:
    """How numpy writes an array from protocol 5 on."""
    array = _Array()
    array.fill(content, dtype, shape, order)
    return array


def _no_bytes(*content: object) -> bytes:
    """How no bytes stand in pickles of protocol 2 and before."""
    if content:
        raise pickle.UnpicklingError("bytes of an object")
    return b""


def _latin1(text: object, encoding: object = None) -> bytes:
    """How bytes stand in pickles of protocol 2 and before."""
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError("_codecs.encode of another encoding than latin1")
    return text.encode("latin1")


_ALLOWED: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): dict,
    ("_codecs", "encode"): _latin1,
    ("builtins", "bytes"): _no_bytes,
    ("__builtin__", "bytes"): _no_bytes,
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
    # numpy's inner room had another name before its version 2.
    **{
        (f"numpy.{room}.{file}", name): made
        for room in ("core", "_core")
        for file, name, made in (
            ("multiarray", "_reconstruct", _Array),
            ("multiarray", "scalar", _scalar),
            ("numeric", "_frombuffer", _from_buffer),
        )
    },
}


class _PlainUnpickler(pickle._Unpickler):
    """Python's own reader of pickles in Python: the faster one in C lets a file of a few bytes ask for all memory."""

    def load_build(self) -> None:
        # On anything else it would set attributes, also of what is found by name.
        if not isinstance(self.stack[-2], _Array | _Dtype):  # type: ignore[attr-defined]
            raise pickle.UnpicklingError("an object with a state of its own")
        super().load_build()  # type: ignore[misc]

    def load_bytearray8(self) -> None:
        # The base makes room for as many bytes as the file says, before there are any.
        (size,) = struct.unpack("<Q", self.read(8))  # type: ignore[attr-defined]
        self.append(bytes(self.read(size)))  # type: ignore[attr-defined]

    dispatch = {  # noqa: RUF012 - the base has it so
        **{
            code: step
            for code, step in pickle._Unpickler.dispatch.items()
            if code not in (pickle.NEXT_BUFFER[0], pickle.READONLY_BUFFER[0])
        },
        pickle.BUILD[0]: load_build,  # type: ignore[dict-item]
        pickle.BYTEARRAY8[0]: load_bytearray8,  # type: ignore[dict-item]
    }

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"{module}.{name}"[:200])
        return _ALLOWED[module, name]


_PLAIN = (type(None), bool, int, float, complex, str, bytes, bytearray, list, tuple, dict, set, frozenset)


def _resolved(content: Any, depth: int) -> Any:
    """Lists and dicts with the values in the place of what stood for arrays."""
    if isinstance(content, _Array):
        return content.value
    if not isinstance(content, _PLAIN):
        raise pickle.UnpicklingError("a type or a function by itself")
    if isinstance(content, list) and depth:
        return [_resolved(inner, depth - 1) for inner in content]
    if isinstance(content, dict) and depth:
        return {key: _resolved(inner, depth - 1) for key, inner in content.items()}
    return content
