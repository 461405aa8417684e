"""Torch files, which ``torch.save`` wrote, read as tensors and plain containers, by a reader of our own.

torch's own restricted reader calls what a file names, among it what makes room for any number of values, and unpacks
archives without looking at their size. Here nothing is made that is larger than the file: its members must not be
packed, as torch does not pack them, and a tensor must not be larger than its storage.
"""

import io
import math
import os
import pickle
import struct
import sys
import zipfile
from collections.abc import Callable
from typing import IO, Any

import torch
from torch import Tensor

from ssan.errors import first_line, quoted, shortened
from ssan.pickles import DAMAGE, DamagedPickle, Name, PlainReader, latin1, ordered

STORAGES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "ComplexDoubleStorage": torch.complex128,
    "ComplexFloatStorage": torch.complex64,
    "QInt8Storage": torch.int8,
    "QUInt8Storage": torch.uint8,
    "QInt32Storage": torch.int32,
}
DTYPES = {str(kind): kind for kind in vars(torch).values() if isinstance(kind, torch.dtype)}
# What stands at the beginning of a file of the older format.
MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001


class StandIn:
    """Stands for an object that a checkpoint holds beside its tensors; nothing of it is kept or carried out."""

    def __init__(self, *arguments: object) -> None:
        pass


class Strange(StandIn):
    """Stands for a tensor that is sparse, quantized or without content."""


# What checkpoints say of their run: its options, accuracies as numpy's numbers, curves, kinds of numbers. Classes and
# functions of these names are neither imported nor called. numpy's room had another name before its version 2.
PASSED_OVER = (
    "argparse.Namespace",
    "builtins.bytearray",
    "builtins.complex",
    "builtins.getattr",  # how the curves of mmengine name their averages
    "builtins.set",
    "collections.Counter",
    "mmengine.logging.history_buffer.HistoryBuffer",
    "numpy.dtype",
    "numpy.ndarray",
    *(f"numpy.{core}.multiarray.{name}" for core in ("core", "_core") for name in ("scalar", "_reconstruct")),
    "torch.Size",
    "torch.device",
    "torch.serialization._get_layout",
)


def _storage_named(called: object) -> torch.dtype:
    """The kind of numbers in a storage, by the name of its type; bytes where the tensors will say."""
    name = called.name.removeprefix("torch.").removeprefix("cuda.") if isinstance(called, Name) else ""
    if name == "storage.UntypedStorage":
        return torch.uint8
    if name not in STORAGES:
        raise DamagedPickle("a storage of unknown numbers")
    return STORAGES[name]


def _tensor(storage: object, offset: object, size: object, stride: object, *_: object) -> Tensor:
    """A tensor in its storage; one that would be larger, or reach out of it, is refused."""
    whole = (size, stride)
    if not isinstance(storage, Tensor) or not all(
        isinstance(numbers, tuple) and all(type(number) is int and number >= 0 for number in numbers)
        for numbers in ((offset,), *whole)
    ):
        raise DamagedPickle("a tensor in another form than torch writes")
    assert isinstance(size, tuple)
    assert isinstance(stride, tuple)
    assert isinstance(offset, int)
    num = math.prod(size)
    end = offset + 1 + sum((length - 1) * step for length, step in zip(size, stride, strict=True)) if num else offset
    if num > len(storage) or end > len(storage):
        raise DamagedPickle(
            f"a tensor of {shortened('x'.join(map(str, size)), 80)} numbers, larger than its storage of "
            f"{len(storage):,}"
        )
    return storage.as_strided(size, stride, offset) if num else torch.empty(size, dtype=storage.dtype)


def _tensor_of_kind(storage: object, offset: object, size: object, stride: object, *rest: object) -> Tensor:
    """As ``_tensor``, where the storage is of bytes, and the tensor says of what kind its numbers are."""
    kind = DTYPES.get(rest[2].name) if len(rest) > 2 and isinstance(rest[2], Name) else None
    if kind is None or not isinstance(storage, Tensor) or len(storage) % kind.itemsize:
        raise DamagedPickle("a tensor in another form than torch writes")
    return _tensor(storage.view(kind), offset, size, stride)


def _parameter(tensor: object = None, *_: object) -> Any:
    if not isinstance(tensor, Tensor | Strange):
        raise DamagedPickle("a parameter without a tensor")
    return tensor


def _of_type(called: object, kind: object, arguments: object, state: object) -> Any:
    """A tensor with attributes, or of a class of its own; the tensor alone is kept."""
    if not isinstance(called, Name) or called.name not in _TENSORS or not isinstance(arguments, tuple):
        raise DamagedPickle("a tensor in another form than torch writes")
    return _TENSORS[called.name](*arguments)


_TENSORS: dict[str, Callable[..., Any]] = {
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _tensor_of_kind,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
    **dict.fromkeys(
        (
            "torch._utils._rebuild_sparse_tensor",
            "torch._utils._rebuild_qtensor",
            "torch._utils._rebuild_meta_tensor_no_storage",
            "torch._utils._rebuild_nested_tensor",
        ),
        Strange,
    ),
}
# Storages and kinds of numbers are named and never called.
_CALLS: dict[str, Callable[..., Any]] = {
    **dict.fromkeys(PASSED_OVER, StandIn),
    **dict.fromkeys((name.replace("builtins.", "__builtin__.") for name in PASSED_OVER), StandIn),
    **dict.fromkeys(
        (*DTYPES, "torch.storage.UntypedStorage", *(f"torch.{name}" for name in STORAGES),
         *(f"torch.cuda.{name}" for name in STORAGES), "torch.Tensor",
         "torch.per_tensor_affine", "torch.per_tensor_symmetric", "torch.per_channel_affine"),
        StandIn,
    ),
    **_TENSORS,
    "collections.OrderedDict": ordered,
    "_codecs.encode": latin1,
    "torch.nn.parameter.Parameter": _parameter,
    "torch._tensor._rebuild_from_type_v2": _of_type,
}  # fmt: skip


class _Reader(PlainReader):
    """Reads the pickle of a torch file; ``make`` gives the numbers of a storage, by key, kind and number."""

    def __init__(self, source: IO[bytes], size: int, make: Callable[[str, torch.dtype, int], Tensor]) -> None:
        super().__init__(source, size, _CALLS)
        self.make = make
        self.storages: dict[str, Tensor] = {}

    def build(self, made: Any, state: Any) -> Any:
        # An OrderedDict has the versions of modules for attributes, which change nothing.
        return made if isinstance(made, dict | StandIn) else super().build(made, state)

    def stored(self, key: Any) -> Any:
        if not isinstance(key, tuple) or len(key) not in (5, 6) or key[0] != "storage" or any(key[5:]):
            raise DamagedPickle("a storage in another form than torch writes")
        _, kind, name, _, num = key[:5]
        dtype = _storage_named(kind)
        if not isinstance(name, str) or type(num) is not int or num < 0:
            raise DamagedPickle("a storage in another form than torch writes")
        if name not in self.storages:
            self.storages[name] = self.make(name, dtype, num)
        if (self.storages[name].dtype, len(self.storages[name])) != (dtype, num):
            raise DamagedPickle("a storage in two forms")
        return self.storages[name]

    def leaf(self, value: Any) -> int:
        return 1 if isinstance(value, Tensor | StandIn | Name) else super().leaf(value)


def read_torch_file(path: str | os.PathLike[str]) -> Any:
    """What ``torch.save`` wrote, in its format of today or the older one: containers, plain values and tensors.

    Tensors that are sparse, quantized or without content come as ``Strange``, whatever else is ``PASSED_OVER`` as a
    ``StandIn``.

    :raises pickle.UnpicklingError: it names something else, which the message names.
    :raises DamagedPickle: it is no such file, is cut short, or holds less than it says; a kind of the former.
    """
    try:
        with open(path, "rb") as handle:
            if handle.read(4) == b"PK\x03\x04":
                with zipfile.ZipFile(handle) as archive:
                    return _read_archive(archive, os.fstat(handle.fileno()).st_size)
            handle.seek(0)
            return _read_in_sequence(handle, os.fstat(handle.fileno()).st_size)
    except pickle.UnpicklingError:
        raise
    except (zipfile.BadZipFile, NotImplementedError) as error:
        raise DamagedPickle(first_line(error)) from None
    except (RuntimeError, *DAMAGE) as error:
        raise DamagedPickle(f"{type(error).__name__}: {first_line(error)}") from None


def _read_archive(archive: zipfile.ZipFile, size: int) -> Any:
    members = {info.filename: info for info in archive.infolist()}
    if len(members) != len(archive.infolist()):
        raise DamagedPickle("two members of one name")
    packed = next(
        (info for info in members.values() if info.compress_type or info.file_size != info.compress_size), None
    )
    if packed is not None:
        raise DamagedPickle(
            f"the member {quoted(packed.filename, 80)} is packed, which torch does not do; unpack it first"
        )
    if sum(info.file_size for info in members.values()) > size:
        raise DamagedPickle("its members are said to be larger than the file")
    names = [name for name in members if name.partition("/")[2] == "data.pkl"]
    if len(names) != 1:
        raise DamagedPickle("an archive without the data.pkl of torch")
    folder = names[0].partition("/")[0]
    order = members.get(f"{folder}/byteorder")
    if order is not None and archive.read(order).decode() != sys.byteorder:
        raise DamagedPickle("its numbers are in the byte order of another kind of machine")

    def storage(key: str, dtype: torch.dtype, num: int) -> Tensor:
        info = members.get(f"{folder}/data/{key}")
        if info is None or info.file_size != num * dtype.itemsize:
            raise DamagedPickle(f"the storage {quoted(key, 40)} of {num:,} numbers is not in it")
        content = torch.empty(info.file_size, dtype=torch.uint8)
        with archive.open(info) as member:
            _fill(content, member)
        return content.view(dtype)

    with archive.open(names[0]) as member:
        program = member.read()
    return _Reader(io.BytesIO(program), len(program), storage).load()


def _read_in_sequence(handle: IO[bytes], size: int) -> Any:
    """The older format: a few pickles, the last of which lists the storages, and then those in that order."""
    left = size

    def storage(key: str, dtype: torch.dtype, num: int) -> Tensor:
        nonlocal left
        left -= num * dtype.itemsize
        if left < 0:
            raise DamagedPickle("storages larger than the file")
        return torch.empty(num, dtype=dtype)

    if _Reader(handle, size, storage).load() != MAGIC or _Reader(handle, size, storage).load() != PROTOCOL:
        raise DamagedPickle("not a file that torch.save wrote")
    system = _Reader(handle, size, storage).load()
    if not isinstance(system, dict) or system.get("little_endian") is not (sys.byteorder == "little"):
        raise DamagedPickle("its numbers are in the byte order of another kind of machine")
    reader = _Reader(handle, size, storage)
    content = reader.load()
    keys = _Reader(handle, size, storage).load()
    if not isinstance(keys, list) or set(keys) != set(reader.storages) or len(keys) != len(set(keys)):
        raise DamagedPickle("its storages are not those of its tensors")
    for key in keys:
        numbers = reader.storages[key]
        if struct.unpack("<q", handle.read(8)) != (len(numbers),):
            raise DamagedPickle(f"the storage {quoted(key, 40)} is of another size than its tensors")
        _fill(numbers.view(torch.uint8), handle)
    return content


def _fill(numbers: Tensor, source: IO[bytes]) -> None:
    """Read bytes into a tensor of as many, to the last."""
    room = memoryview(numbers.numpy())  # type: ignore[arg-type]  # an array is a buffer
    while len(room):
        count = source.readinto(room)  # type: ignore[attr-defined]
        if not count:
            raise DamagedPickle("it ends in the middle of a storage")
        room = room[count:]
