"""Memory that this process and the one that decodes both see: pixels need not be copied from one to the other."""

import contextlib
import math
import mmap
import os
import weakref
from collections.abc import Iterator

import numpy as np

NUM_PLACES = 4
"""Of the memory that both processes see. Each holds the pixels of one clip, as long as somebody has it."""

PLACE_BYTES = 1 << 28
"""Room of a place: eight pictures of 4K. It is taken up when it is written to."""

KEPT_BYTES = 1 << 23
"""How much of a place stays taken up when nobody has its pixels any more."""


def shared_array(memory: mmap.mmap | None, place: int, shape: tuple[int, ...]) -> np.ndarray | None:
    """Bytes of this shape at a place of the shared memory; None where they do not fit or there is none."""
    count = math.prod(shape)
    if memory is None or count > len(memory) // NUM_PLACES:
        return None
    return np.frombuffer(memory, np.uint8, count, place * (len(memory) // NUM_PLACES)).reshape(shape)


class SharedSlots:
    """The places of the shared memory, lent to the clips whose pixels are there: a copy would cost a few percent.

    The first place is not lent. It is for when all others are, and its pixels are copied.
    """

    def __init__(self, memory: mmap.mmap) -> None:
        self._memory, self._owner = memory, os.getpid()
        self._free = list(range(1, NUM_PLACES))
        self._lent: set[int] = set()

    def choose(self) -> int:
        return self._free[-1] if self._free else 0

    def take(self, place: int, shape: tuple[int, ...]) -> np.ndarray | None:
        """The pixels of this shape at a place that was chosen; it is free again when the last view of them is gone."""
        array = shared_array(self._memory, place, shape)
        if array is None:
            return None
        if place == 0:
            array = array.copy()
            self._clear(place, array.size)
            return array
        self._free.remove(place)
        self._lent.add(place)
        # A reshaped array has the flat one as its base, and so have its views and the tensors made of them.
        weakref.finalize(array.base, self._give_back, place, array.size).atexit = False
        return array

    def keep_lent(self) -> None:
        """Never use again what is lent now: a process about to be forked off has it too."""
        self._lent.clear()

    def _give_back(self, place: int, size: int) -> None:
        if place in self._lent and os.getpid() == self._owner:
            self._lent.remove(place)
            self._clear(place, size)
            self._free.append(place)

    def _clear(self, place: int, size: int) -> None:
        if size > KEPT_BYTES:
            room = len(self._memory) // NUM_PLACES
            self._memory.madvise(mmap.MADV_REMOVE, place * room + KEPT_BYTES, room - KEPT_BYTES)


@contextlib.contextmanager
def shared_memory() -> Iterator[tuple[int, mmap.mmap] | tuple[None, None]]:
    """Memory that a process started meanwhile can map too, by its number as an open file; None where there is none."""
    file = memory = None
    if hasattr(os, "memfd_create") and hasattr(mmap, "MADV_REMOVE"):
        with contextlib.suppress(OSError):
            file = os.memfd_create("ssan", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
            os.ftruncate(file, NUM_PLACES * PLACE_BYTES)
            _keep_its_size(file)
            memory = mmap.mmap(file, NUM_PLACES * PLACE_BYTES)
    try:
        # The numbers to 2 are those of the standard streams, which the process started has its own for.
        yield (file, memory) if file is not None and file > 2 and memory is not None else (None, None)
    finally:
        if file is not None:
            os.close(file)


def _keep_its_size(file: int) -> None:
    """A process apart that made the memory shorter would end this one, when it looks there."""
    with contextlib.suppress(ImportError, AttributeError):
        import fcntl

        fcntl.fcntl(file, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
