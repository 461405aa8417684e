"""Pickles from elsewhere, read as plain values: containers, strings, numbers, and numpy's arrays of these.

Nothing is called that a file names. What stands for numpy's own is made here of the bytes in the file, and everything
else is refused by its name. The instructions are split by the standard library's ``pickletools``; the few that data
needs are carried out here, and what they make is bounded by what is in the file: memory by a hundred bytes a byte, and
what a walk through the result comes by, since a value may be referred to again and again, by a few times that.

One reader for all pickles: those of published features, of what is said in HowTo100M's videos, and, with torch's
storages in addition (``weights/torch_files``), of imported weights. It is our own because those that are there, a
``pickle.Unpickler`` that looks up few names and torch's with ``weights_only``, bound neither: a file of a few bytes
makes either fill the memory, or count for hours.
"""

import math
import mmap
import os
import pickle
import pickletools
import re
import struct
import sys
from collections.abc import Callable, Mapping
from typing import IO, Any

import numpy as np

from ssan.errors import named, quoted

MOST_DEPTH = 100
MOST_BITS = 128
MOST_SETS = 100_000
# What a walk through the values may come by, in all, beyond a few times what there are instructions and bytes for.
MOST_AGAIN = 200_000
# So many bytes of text or numbers count as much as one value.
BYTES_A_VALUE = 64


class DamagedPickle(pickle.UnpicklingError):
    """What is there is no whole pickle, or one that is made to take more than it holds."""


def read_pickle(path: str | os.PathLike[str]) -> Any:
    """The plain values of a pickle of any protocol, of either numpy.

    Numbers and text of numpy's become Python's, OrderedDicts become dicts, and an array of objects, which has to have
    one dimension, becomes a list. Arrays of numbers and of text share the memory of what was read.

    :raises pickle.UnpicklingError: it holds something else, which the message names.
    :raises DamagedPickle: it is cut short or otherwise no pickle, or a bomb; a kind of the former.
    """
    try:
        with open(path, "rb") as handle, mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return PlainReader(content, len(content), _CALLS).load()  # type: ignore[arg-type]  # it reads as a file
    except ValueError as error:  # an empty file cannot be mapped
        raise DamagedPickle(type(error).__name__) from None


DAMAGE = (ArithmeticError, AttributeError, EOFError, LookupError, MemoryError, RecursionError, TypeError, ValueError,
          struct.error)  # fmt: skip
"""What reading a damaged pickle runs into."""


class Unbuilt:
    """Stands for an object whose state comes with a later instruction; ``build`` makes the value of it."""

    def build(self, state: Any) -> Any:
        raise NotImplementedError


class _Dtype(Unbuilt):
    """Stands for numpy.dtype: numbers, truths and text of a plain layout, objects, and nothing else."""

    def __init__(self, name: object, align: object = False, copy: object = False) -> None:
        if not isinstance(name, str) or re.fullmatch(r"[biuf][1248]|[US]\d{1,4}|O8?", name) is None:
            raise pickle.UnpicklingError(f"numpy.dtype of {quoted(str(name), 40)}, neither numbers nor text")
        self.name, self.byte_order = name, "<"

    def build(self, state: object) -> "_Dtype":
        # (version, byte order, subarray, names, fields, ...): structured types have the latter three.
        if not isinstance(state, tuple) or len(state) < 5 or state[1] not in ("<", ">", "|", "="):
            raise pickle.UnpicklingError("numpy.dtype in another form than numpy writes")
        if any(field is not None for field in state[2:5]):
            raise pickle.UnpicklingError("numpy.dtype with fields, neither numbers nor text")
        if state[1] in ("<", ">"):
            self.byte_order = state[1]
        return self

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
        if kind.kind == "U" and (np.frombuffer(content, self.byte_order + "u4") > sys.maxunicode).any():
            raise pickle.UnpicklingError("numpy.ndarray of text with letters that there are not")
        return np.frombuffer(content, kind).reshape(shape, order="F" if order == "F" else "C")


class _Array(Unbuilt):
    """Stands for numpy.ndarray, which becomes its values alone: an array, or a list of objects."""

    def __init__(self, *_: object) -> None:
        pass

    def build(self, state: object) -> np.ndarray | list[Any]:
        if not isinstance(state, tuple) or len(state) != 5:
            raise pickle.UnpicklingError("numpy.ndarray in another form than numpy writes")
        _, shape, dtype, in_columns, content = state
        return _from_buffer(content, dtype, shape, "F" if in_columns else "C")


def _from_buffer(content: object, dtype: object, shape: object, order: object) -> np.ndarray | list[Any]:
    """How numpy writes an array from protocol 5 on."""
    if not isinstance(shape, tuple) or not all(type(length) is int and length >= 0 for length in shape):
        raise pickle.UnpicklingError("numpy.ndarray of a strange shape")
    if not isinstance(dtype, _Dtype) or order not in ("C", "F"):
        raise pickle.UnpicklingError("numpy.ndarray in another form than numpy writes")
    if not (dtype.is_object and isinstance(content, list)):
        return dtype.values(content, shape, str(order))
    if shape != (len(content),):
        raise pickle.UnpicklingError("numpy.ndarray of objects of another shape than one list")
    return content


def _scalar(dtype: object, content: object = b"") -> Any:
    if not isinstance(dtype, _Dtype):
        raise pickle.UnpicklingError("numpy scalar in another form than numpy writes")
    return dtype.values(content, (), "C").item()


def _no_bytes(*content: object) -> bytes:
    """How no bytes stand in pickles of protocol 2 and before."""
    if content:
        raise pickle.UnpicklingError("bytes of an object")
    return b""


def latin1(text: object, encoding: object = None) -> bytes:
    """How bytes stand in pickles of protocol 2 and before."""
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError("_codecs.encode of another encoding than latin1")
    return text.encode("latin1")


def ordered(pairs: object = ()) -> dict[Any, Any]:
    """An OrderedDict, empty, as it stands in most pickles, or of a list of pairs."""
    if not isinstance(pairs, list | tuple):
        raise pickle.UnpicklingError("collections.OrderedDict of something else than pairs")
    return {_hashable(key): value for key, value in pairs}


_CALLS: dict[str, Callable[..., Any]] = {
    "collections.OrderedDict": ordered,
    "_codecs.encode": latin1,
    "builtins.bytes": _no_bytes,
    "__builtin__.bytes": _no_bytes,
    "numpy.ndarray": _Array,
    "numpy.dtype": _Dtype,
    # numpy's inner room had another name before its version 2.
    **{
        f"numpy.{room}.{name}": made
        for room in ("core", "_core")
        for name, made in (
            ("multiarray._reconstruct", _Array),
            ("multiarray.scalar", _scalar),
            ("numeric._frombuffer", _from_buffer),
        )
    },
}


class Name:
    """A function or a type that a file names, by its name; it is not looked up."""

    def __init__(self, name: str) -> None:
        self.name = name


_VALUES = {
    "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT", "UNICODE", "BINUNICODE",
    "SHORT_BINUNICODE", "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8",
}  # fmt: skip
_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "EMPTY_DICT": dict,
    "EMPTY_SET": set,
}
_OF_ALL = {"LIST": list, "TUPLE": tuple, "FROZENSET": frozenset}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


def _hashable(key: Any) -> Any:
    """A key of a dict or a set, as plain data has them: one whose hash no file can have chosen.

    Where all keys have one hash, a million take hours. Of text Python mixes a number of its own into the hash; of whole
    numbers below its modulus each has another.
    """
    if isinstance(key, str | bytes) or key is None:
        return key
    if isinstance(key, int | float) and abs(key) < sys.hash_info.modulus:
        return key
    if isinstance(key, tuple) and any(isinstance(part, str | bytes) for part in key):
        return key
    raise DamagedPickle("keys that are no text and no number of usual size")


class PlainReader:
    """Carries out the instructions of a pickle that plain data needs; any other is refused.

    :param source: what the pickle is read from; it is left standing behind the pickle.
    :param size: bytes of the source, which bound what is made.
    :param calls: what is made of the arguments where the file calls something by this name.
    """

    def __init__(self, source: IO[bytes], size: int, calls: Mapping[str, Callable[..., Any]]) -> None:
        self.source, self.calls = source, calls
        self.room = self.size = size
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        self.num_sets = 0
        # Under which numbers what is yet to be built is remembered.
        self.unbuilt: dict[int, list[int]] = {}

    def load(self) -> Any:
        """The value of the pickle.

        :raises pickle.UnpicklingError: it names what is not among ``calls``.
        :raises DamagedPickle: it is no whole pickle, has an instruction of another kind, or is a bomb.
        """
        count = 0
        try:
            for opcode, argument, _ in pickletools.genops(self.source):
                count += 1
                self._step(opcode.name, argument)
            (value,) = self.stack
            self._walk(value, 4 * (count + self.size // BYTES_A_VALUE) + MOST_AGAIN)
        except DAMAGE as error:
            raise DamagedPickle(type(error).__name__) from None
        return value

    def build(self, made: Any, state: Any) -> Any:
        """What an object is once it has its state."""
        # On anything else it would set attributes.
        if not isinstance(made, Unbuilt):
            raise pickle.UnpicklingError("an object with a state of its own")
        return made.build(state)

    def stored(self, key: Any) -> Any:
        """What is kept beside the pickle under a key."""
        raise DamagedPickle("something that is not in it")

    def leaf(self, value: Any) -> int:
        """The weight of a value that holds no others; anything but plain data is refused."""
        if isinstance(value, str | bytes | bytearray):
            return 1 + len(value) // BYTES_A_VALUE
        if isinstance(value, np.ndarray):
            return 1 + value.nbytes // BYTES_A_VALUE
        if value is None or isinstance(value, int | float):
            return 1
        raise pickle.UnpicklingError("a type or a function by itself")

    def _step(self, name: str, argument: Any) -> None:
        stack = self.stack
        if name in _VALUES:
            if type(argument) is int and argument.bit_length() > MOST_BITS:
                raise DamagedPickle(f"a number of {argument.bit_length():,} bits")
            stack.append(argument)
        elif name in ("BINGET", "LONG_BINGET", "GET"):
            stack.append(self.memo[argument])
        elif name in ("BINPUT", "LONG_BINPUT", "PUT", "MEMOIZE"):
            self._remember(len(self.memo) if name == "MEMOIZE" else argument)
        elif name in _CONSTANTS:
            self.num_sets += name == "EMPTY_SET"
            if self.num_sets > MOST_SETS:  # a byte of the file makes 216 of memory
                raise DamagedPickle(f"more than {MOST_SETS:,} sets")
            stack.append(_CONSTANTS[name]())
        elif name in _TUPLES:
            items = [stack.pop() for _ in range(_TUPLES[name])]
            stack.append(tuple(reversed(items)))
        elif name == "MARK":
            self.below.append(stack)
            self.stack = []
        elif name in _OF_ALL:
            self.stack = self.below.pop()
            self.stack.append(_OF_ALL[name](map(_hashable, stack) if name == "FROZENSET" else stack))
        elif name in ("SETITEM", "SETITEMS", "DICT"):
            self._set_items(name)
        elif name in ("APPEND", "APPENDS", "ADDITEMS"):
            self._add(name)
        elif name in ("GLOBAL", "STACK_GLOBAL"):
            self._named(argument.replace(" ", ".", 1) if name == "GLOBAL" else f"{stack.pop(-2)}.{stack.pop()}")
        elif name in ("REDUCE", "NEWOBJ"):
            self._call()
        elif name == "BUILD":
            self._build()
        elif name == "BINPERSID":
            stack.append(self.stored(stack.pop()))
        elif name in ("STRING", "BINSTRING", "SHORT_BINSTRING"):
            # Python 2 wrote text and bytes alike.
            stack.append(argument if argument.isascii() else argument.encode("latin1"))
        elif name not in ("PROTO", "FRAME", "STOP"):
            raise DamagedPickle(f"the instruction {name}, which plain data does not need")

    def _remember(self, key: int) -> None:
        if not 0 <= key < 1 << 32:
            raise DamagedPickle("a key that no pickle has")
        self.memo[key] = made = self.stack[-1]
        if isinstance(made, Unbuilt):
            self.unbuilt.setdefault(id(made), []).append(key)

    def _set_items(self, name: str) -> None:
        if name == "SETITEM":
            items = [self.stack.pop(-2), self.stack.pop()]
        else:
            items, self.stack = self.stack, self.below.pop()
        if name == "DICT":
            self.stack.append({})
        into = self.stack[-1]
        if type(into) is not dict:
            raise DamagedPickle("items of something else than a dict")
        into.update(zip(map(_hashable, items[::2]), items[1::2], strict=True))

    def _add(self, name: str) -> None:
        if name == "APPEND":
            items = [self.stack.pop()]
        else:
            items, self.stack = self.stack, self.below.pop()
        into = self.stack[-1]
        if type(into) is set and name == "ADDITEMS":
            into.update(map(_hashable, items))
        elif type(into) is list and name != "ADDITEMS":
            into.extend(items)
        else:
            raise DamagedPickle("items of something else than a list or a set")

    def _named(self, name: str) -> None:
        if name not in self.calls:
            raise pickle.UnpicklingError(named(name, 200))
        self.stack.append(Name(name))

    def _call(self) -> None:
        arguments, called = self.stack.pop(), self.stack.pop()
        if not isinstance(called, Name) or not isinstance(arguments, tuple):
            raise pickle.UnpicklingError("a call of what has no name")
        made = self.calls[called.name](*arguments)
        if isinstance(made, bytes | dict):  # a copy, perhaps of what was copied before
            self.room -= len(made)
            if self.room < 0:
                raise DamagedPickle("copies of more than it holds")
        self.stack.append(made)

    def _build(self) -> None:
        state, made = self.stack.pop(), self.stack.pop()
        value = self.build(made, state)
        self.stack.append(value)
        for key in self.unbuilt.pop(id(made), ()):
            self.memo[key] = value

    def _walk(self, value: Any, most: int) -> None:
        """Go through all values, as often as they are referred to."""
        holding = dict | list | tuple | set | frozenset
        left, todo = most, [(value, 0)]
        while todo:
            within, depth = todo.pop()
            if depth > MOST_DEPTH:
                raise DamagedPickle(f"values within values, deeper than {MOST_DEPTH}")
            if isinstance(within, dict):
                inner: Any = (*within, *within.values())
            elif isinstance(within, list | tuple | set | frozenset):
                inner = within
            else:
                inner = (within,)
            todo += [(item, depth + 1) for item in inner if isinstance(item, holding)]
            left -= 1
            left -= sum(self.leaf(item) for item in inner if not isinstance(item, holding))
            if left < 0:
                raise DamagedPickle("values that refer to each other far more often than they are there")
