"""Features of videos as they are read for retrieval: our own stores, and the forms in which others have published them.

FEATURES/store.json ...        `ssan extract`: vectors with their times
FEATURES/any/name.npy          one file a video, any/name its id: (n, f) at a rate, or (f,), pooled already
msrvtt.pth                     {"2d": {id: tensor}, "3d": {id: tensor}}: reference 22's MSR-VTT and LSMDC
youcook.pkl                    [{"2d": array, "3d": array, "caption": str, "id": str}, ...]: its YouCook2
"""

import os
import tokenize
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np

from ssan.errors import UsageError, first_line
from ssan.features.published import read_published
from ssan.features.store import STORE, open_vectors, part_id
from ssan.features.stream import ClipKey, FeatureStream, TimedFeatureStream, check_part, checked

__all__ = ["ClipKey", "FeatureStream", "FolderStream", "StoreStream", "open_features", "pooled"]

# Files of a folder by which the length of its vectors is told.
MOST_LOOKED_AT = 5
# What Python's parser raises for the header of a .npy file that is none.
_NO_HEADER = (SyntaxError, tokenize.TokenError, RecursionError)


class StoreStream(FeatureStream):
    """A store that ``ssan extract`` made.

    A part of a video has the entry that was made of it alone, where there is one, else those windows of the whole video
    that overlap it. Unsaid by the paper, our choice: a part that lies between two windows, where strides are longer
    than windows, has the nearer one, the earlier of two equally near; one that begins when the last window has ended
    has none. Pinned by ``test_a_part_between_windows_has_the_nearer_one``.
    """

    def __init__(self, path: str | Path) -> None:
        self.vectors = open_vectors(path)
        self.where, self.dim, self.provenance = str(path), self.vectors.dim, self.vectors.provenance
        self.name = str(self.provenance.get("model", Path(path).name))

    def known(self) -> Sequence[str]:
        return self.vectors.ids

    def has(self, video: str, start: float | None = None, end: float | None = None) -> bool:
        if part_id(video, start, end) in self.vectors:
            return True
        whole = video in self.vectors and (start, end) != (None, None)
        return whole and check_part(video, start, end)[0] < self.vectors.spans(video)[-1, 1]

    def rows(self, video: str, start: float | None = None, end: float | None = None) -> np.ndarray:
        name = part_id(video, start, end)
        if name in self.vectors:
            return self.vectors.rows(name)
        if video not in self.vectors:
            raise self._missing(name, self.vectors.ids)
        first_second, last_second = check_part(video, start, end)
        starts, ends = self.vectors.spans(video).T
        if first_second >= ends[-1]:
            raise self._outside(video, start, end, f"whose vectors end at {ends[-1]:g} s")
        first = int(ends.searchsorted(first_second, "right"))
        stop = int(starts.searchsorted(last_second, "left"))
        if first >= stop:  # in a gap, or an instant at which a window begins
            in_gap = starts[first] > first_second
            if first > 0 and in_gap and first_second - ends[first - 1] <= starts[first] - last_second:
                first -= 1
            stop = first + 1
        return self.vectors.rows(video)[first:stop]


class FolderStream(TimedFeatureStream):
    """A folder with one .npy file a video; the id is its path below the folder, without the suffix.

    Nothing in a file is unpickled. The files that were asked for last stay mapped.
    """

    def __init__(self, path: str | Path, rate: float | None) -> None:
        self.where, self.name, self.rate = str(path), Path(path).name, rate
        self._files: dict[str, str] = {}
        for folder, below, names in os.walk(path):
            below.sort()
            for name in sorted(names):
                if name.endswith(".npy") and not name.startswith("."):
                    file = os.path.join(folder, name)
                    self._files[Path(os.path.relpath(file, path)).with_suffix("").as_posix()] = file
        if not self._files:
            raise UsageError(
                f"there are no features in it; expected {STORE}, which `ssan extract` makes, or .npy files",
                code="missing",
                path=str(path),
            )
        self.dim = _usual_dim(self._files.values())
        self.provenance = {"source": "npy", "vectors_per_second": rate}
        # Each mapped file counts as open to the system, which allows about a thousand.
        self._opened = lru_cache(64)(self._open)

    def _open(self, video: str) -> np.ndarray:
        path = self._files[video]
        return checked(_open_npy(path), self.dim, "the array", path)

    def _all(self, video: str) -> np.ndarray | None:
        return self._opened(video) if video in self._files else None

    def known(self) -> Sequence[str]:
        return list(self._files)

    def _file(self, video: str) -> str:
        return self._files[video]


def _usual_dim(paths: Iterable[str]) -> int:
    """The length of the vectors in most of the first files that can be read, so that one that cannot decides nothing.

    :raises UsageError: none of them can be read; the first one's.
    """
    dims: Counter[int] = Counter()
    fault: UsageError | None = None
    for path in paths:
        try:
            dims[_open_npy(path).shape[-1]] += 1
        except UsageError as error:
            fault = fault or error
        if dims.total() == MOST_LOOKED_AT:
            break
    if not dims and fault is not None:
        raise fault
    return dims.most_common(1)[0][0]


def _open_npy(path: str) -> np.ndarray:
    """A .npy file, mapped; its header is data, and objects are never unpickled."""
    if not os.path.isfile(path):
        raise UsageError(
            "not a file of its own (a pipe, a folder, or a link to nothing); expected features (n, f). Remove it, or "
            "extract it again",
            code="bad_annotation",
            path=path,
        )
    try:
        return checked(np.asarray(np.lib.format.open_memmap(path, mode="r")), None, "the array", path)
    except (*_NO_HEADER, ValueError, OSError, EOFError, TypeError, OverflowError, MemoryError) as error:
        size = os.path.getsize(path) if os.path.isfile(path) else 0
        short = "mmap length" in str(error) or size == 0 or "EOF" in str(error)
        raise UsageError(
            f"not a whole .npy file of numbers ({first_line(error) if str(error) else 'empty'}; {size} "
            "bytes); expected features (n, f). Copy or extract it again",
            code="truncated" if short else "bad_annotation",
            path=path,
        ) from None


# ------------------------------------------------------------------------------------------------- published forms


def open_features(path: str | Path, rate: float | None = None, *, strict: bool = True) -> list[FeatureStream]:
    """Open features of videos: one stream, or two of a file with ``2d`` and ``3d``, in this order.

    :param rate: vectors a second, for forms that do not say it, where parts of videos are asked for.
    :param strict: a file with the features of many videos is refused where those of one cannot be used; otherwise that
        is an error where they are asked for, as it is of folders.
    :raises UsageError: there is nothing, or nothing readable; a damaged file is named. Nothing in a file is executed:
        a pickle of anything but numpy's arrays, numbers, words, lists and dicts is refused by name.
    """
    streams = _opened(path, rate)
    for stream in streams if strict else ():
        for fault in getattr(stream, "faults", {}).values():
            raise fault
    return streams


def _opened(path: str | Path, rate: float | None) -> list[FeatureStream]:
    if rate is not None and not (np.isfinite(rate) and rate > 0):
        raise UsageError(f"a rate of {rate:g} vectors a second; expected a number above 0", path=str(path))
    path = Path(path)
    if path.is_dir():
        return [StoreStream(path)] if (path / STORE).exists() else [FolderStream(path, rate)]
    if not path.is_file():
        raise UsageError(
            "no such features; expected a folder that `ssan extract` made, a folder of .npy files, or a .pth or .pkl "
            "file of reference 22's",
            code="missing",
            path=str(path),
        )
    return read_published(path, rate)


# --------------------------------------------------------------------------------------------------------- pooling


def pooled(
    streams: Sequence[FeatureStream],
    clips: Sequence[ClipKey],
    how: Literal["max", "mean"] = "max",
    normalise: bool = True,
) -> np.ndarray:
    """One vector for each clip: each stream pooled over time and divided by its length, then joined (reference 22).

    Returns float32 (len(clips), sum of dims). A vector of zeros stays as it is.

    :param how: ``max``, as reference 22 (section 5), or ``mean``.
    :param normalise: off, nothing is divided.
    :raises SsanError: as ``FeatureStream.rows``.
    """
    if how not in ("max", "mean"):
        raise UsageError(f"pooling by {how!r}; expected max or mean")
    joined = np.empty((len(clips), sum(stream.dim for stream in streams)), np.float32)
    first = 0
    for stream in streams:
        out = joined[:, first : first + stream.dim]
        first += stream.dim
        for number, (video, start, end) in enumerate(clips):
            rows = stream.rows(video, start, end)
            if len(rows) == 1:
                out[number] = rows[0]
            elif how == "max":
                out[number] = _max(rows)
            else:
                out[number] = rows.mean(axis=0, dtype=np.float64)
        if normalise:
            # As torch's normalize does, which reference 22 calls.
            out /= np.maximum(np.sqrt(np.einsum("nf,nf->n", out, out, dtype=np.float64)), 1e-12)[:, None]
    return joined


def _max(rows: np.ndarray) -> np.ndarray:
    """The largest of each column of finite numbers (n, f).

    numpy compares float16 one by one. With all bits but the sign turned over in the negative ones, they are in the
    order of whole numbers, which it compares many at a time.
    """
    if rows.dtype != np.float16:
        return rows.max(axis=0)
    return _turned(_turned(rows.view(np.int16)).max(axis=0)).view(np.float16)


def _turned(bits: np.ndarray) -> np.ndarray:
    return bits ^ ((bits >> 15) & 0x7FFF)
