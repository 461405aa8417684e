"""Features of videos as they are read for retrieval: our own stores, and the forms in which others have published them.

FEATURES/store.json ...        `ssan extract`: vectors with their times
FEATURES/any/name.npy          one file a video, any/name its id: (n, f) at a rate, or (f,), pooled already
msrvtt.pth                     {"2d": {id: tensor}, "3d": {id: tensor}}: reference 22's MSR-VTT and LSMDC
youcook.pkl                    [{"2d": array, "3d": array, "caption": str, "id": str}, ...]: its YouCook2
"""

import os
import pickle
import warnings
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from ssan.datasets.samples import Sample
from ssan.errors import SsanError, UsageError, few
from ssan.models.weights import UNREADABLE
from ssan.pickles import read_pickle
from ssan.vectors import MOST_DIM, STORE, open_vectors, part_id

# Files of other forms are read into memory. Reference 22's largest, of 128,000 clips, has 2 GB.
MOST_BYTES = 1 << 35

Clip = tuple[str, float | None, float | None]
"""A video's id, and the part of it that is meant, [start, end) in seconds; None is the beginning, or the end."""


class Stream(ABC):
    """The features that one network made of videos.

    ``dim`` is f, the length of each vector; ``provenance`` says where they come from, as far as that is known.
    """

    name: str
    dim: int
    provenance: dict[str, Any]
    where: str

    @abstractmethod
    def has(self, video: str, start: float | None = None, end: float | None = None) -> bool:
        """Whether there are vectors of a video, or of a part of it, in seconds."""

    @abstractmethod
    def rows(self, video: str, start: float | None = None, end: float | None = None) -> np.ndarray:
        """The vectors of a video, or of the part [start, end) of it in seconds, (n, f) with n of 1 or more.

        They are finite, of type float16, float32 or float64, in the order of time, and not to be written to.

        :raises UsageError: there are none (code ``missing``), or none in this part (code ``too_few_frames``).
        :raises SsanError: some are not finite (code ``nan``).
        """

    @abstractmethod
    def known(self) -> Sequence[str]:
        """The names of the entries: ids of videos, and of parts of them."""

    def unused(self, clips: Iterable[Clip]) -> list[str]:
        """The entries that none of these clips takes anything of."""
        taken = {name for clip in clips for name in self._taken(clip)}
        return [name for name in self.known() if name not in taken]

    def _taken(self, clip: Clip) -> Sequence[str]:
        """The entries that a clip may be in."""
        return clip[0], part_id(*clip)

    def match(self, samples: Iterable[Sample]) -> None:
        """Find out of which vectors each of these captions is, where only its words tell (reference 22's YouCook2).

        To be called once before ``has`` and ``rows`` for parts; of other forms it does nothing.
        """
        return

    def _missing(self, video: str, known: Sequence[str]) -> UsageError:
        return UsageError(
            f"there are no features of {video!r}; it has, for instance, {few(known)}. Extract them, or leave out the "
            "captions of this video",
            code="missing",
            path=self.where,
        )

    def _outside(self, video: str, start: float | None, end: float | None, lasts: str) -> UsageError:
        return UsageError(
            f"there are no features in the part {part_id(video, start, end)!r}, {lasts}; expected a part within the "
            "video. Look at the annotation",
            code="too_few_frames",
            path=self.where,
        )


def _check_part(video: str, start: float | None, end: float | None) -> tuple[float, float]:
    """Start and end of a part as numbers; the end of the video is infinite."""
    first, last = 0.0 if start is None else float(start), np.inf if end is None else float(end)
    if not 0 <= first <= last or first == np.inf:
        raise UsageError(
            f"the part [{first:g}, {last:g}) of {video!r} is none; expected 0 <= start <= end, in seconds",
            code="bad_annotation",
        )
    return first, last


class StoreStream(Stream):
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
        return whole and _check_part(video, start, end)[0] < self.vectors.spans(video)[-1, 1]

    def rows(self, video: str, start: float | None = None, end: float | None = None) -> np.ndarray:
        name = part_id(video, start, end)
        if name in self.vectors:
            return self.vectors.rows(name)
        if video not in self.vectors:
            raise self._missing(name, self.vectors.ids)
        first_second, last_second = _check_part(video, start, end)
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


class TimedStream(Stream):
    """Vectors whose times follow from a rate: part [s, e) has the rows int(s * rate) to int(e * rate), both included.

    That is what reference 22's code takes (its ``youtube_dataloader``), but that a part without rows is an error there
    is none of: it counts as zeros there.

    :param rate: vectors a second; only needed where parts of videos are asked for.
    """

    rate: float | None

    @abstractmethod
    def _all(self, video: str) -> np.ndarray | None:
        """The vectors of a whole video, (n, f), or (f,) where they are pooled; None where there are none."""

    @abstractmethod
    def known(self) -> Sequence[str]:
        """Ids, some of them, for a message."""

    def _within(self, video: str, num: int, start: float | None, end: float | None) -> slice:
        first, last = _check_part(video, start, end)
        if self.rate is None:
            raise UsageError(
                f"a part of {video!r} is asked for, and nothing tells the times of the vectors; give their rate, "
                "vectors a second (of reference 22's features 1 for 2-D, 1.5 for 3-D)",
                path=self.where,
            )
        begin = min(int(first * self.rate), num)
        return slice(begin, num if last == np.inf else min(int(last * self.rate) + 1, num))

    def has(self, video: str, start: float | None = None, end: float | None = None) -> bool:
        found = self._all(video)
        if found is None or (start, end) == (None, None):
            return found is not None
        if found.ndim == 1:
            return False
        within = self._within(video, len(found), start, end)
        return within.start < within.stop

    def rows(self, video: str, start: float | None = None, end: float | None = None) -> np.ndarray:
        found = self._all(video)
        if found is None:
            raise self._missing(video, self.known())
        if (start, end) != (None, None):
            if found.ndim == 1:
                raise self._outside(video, start, end, "as the video has one vector, pooled already")
            within = self._within(video, len(found), start, end)
            if within.start >= within.stop:
                raise self._outside(video, start, end, f"whose {len(found)} vectors are {self.rate:g} a second")
            found = found[within]
        if not np.isfinite(found).all():
            raise _not_finite(video, self._file(video))
        return np.atleast_2d(found)

    def _file(self, video: str) -> str:
        return self.where


def _not_finite(video: str, path: str) -> SsanError:
    return SsanError(
        f"the features of {video!r} are NaN or infinite; expected finite numbers. Extract them again, or leave out "
        "this video",
        code="nan",
        path=path,
    )


def _checked(array: np.ndarray, dim: int | None, what: str, path: str) -> np.ndarray:
    """An array of features, (n, f) or (f,), if it is one, and of the length of the others."""
    floats = array.dtype.kind == "f" and array.dtype.itemsize in (2, 4, 8)
    if not floats or array.ndim not in (1, 2) or 0 in array.shape or array.shape[-1] > MOST_DIM:
        raise UsageError(
            f"{what} is {array.dtype} {array.shape}; expected features (n, f) or (f,) as float16, float32 or float64",
            code="bad_annotation",
            path=path,
        )
    if dim is not None and array.shape[-1] != dim:
        raise UsageError(
            f"{what} has vectors of length {array.shape[-1]}, the others before it of {dim}; expected one network's. "
            "Put others elsewhere",
            code="wrong_model",
            path=path,
        )
    return array


class FolderStream(TimedStream):
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
        self.dim = _open_npy(next(iter(self._files.values()))).shape[-1]
        self.provenance = {"source": "npy", "vectors_per_second": rate}
        # Each mapped file counts as open to the system, which allows about a thousand.
        self._opened = lru_cache(64)(self._open)

    def _open(self, video: str) -> np.ndarray:
        path = self._files[video]
        return _checked(_open_npy(path), self.dim, "the array", path)

    def _all(self, video: str) -> np.ndarray | None:
        return self._opened(video) if video in self._files else None

    def known(self) -> Sequence[str]:
        return list(self._files)

    def _file(self, video: str) -> str:
        return self._files[video]


def _open_npy(path: str) -> np.ndarray:
    """A .npy file, mapped; its header is data, and objects are never unpickled."""
    try:
        return _checked(np.asarray(np.lib.format.open_memmap(path, mode="r")), None, "the array", path)
    except (ValueError, OSError, EOFError, SyntaxError, TypeError, OverflowError, MemoryError) as error:
        size = os.path.getsize(path) if os.path.isfile(path) else 0
        short = "mmap length" in str(error) or size == 0 or "EOF" in str(error)
        raise UsageError(
            f"not a whole .npy file of numbers ({str(error).splitlines()[0][:200] if str(error) else 'empty'}; {size} "
            "bytes); expected features (n, f). Copy or extract it again",
            code="truncated" if short else "bad_annotation",
            path=path,
        ) from None


class TableStream(TimedStream):
    """Features in memory by the video's id: (n, f), or (f,), pooled already."""

    def __init__(self, name: str, table: Mapping[str, np.ndarray], rate: float | None, path: str, source: str) -> None:
        self.name, self.rate, self.where, self._table = name, rate, path, dict(table)
        self.dim, dim = 0, None
        for video, array in self._table.items():
            self.dim = dim = _checked(array, dim, f"{name} of {video[:80]!r}", path).shape[-1]
            if not np.isfinite(array).all():
                raise _not_finite(video, path)
        self.provenance = {"source": source, "stream": name, "vectors_per_second": rate}

    def _all(self, video: str) -> np.ndarray | None:
        return self._table.get(video)

    def known(self) -> Sequence[str]:
        return list(self._table)


class ListStream(TableStream):
    """Reference 22's file of YouCook2: a list of clips, each with its pooled features, its caption and its video's id.

    It has no times, and a video has several clips, so that only the caption tells of which part a vector is. ``match``
    finds it by id and caption, letters of either case and spaces counting alike; equal captions of one video are taken
    in the order of both lists, if both have as many of them, and otherwise count as missing. Without ``match``, and for
    the list itself (``captions``), clip k of a video, from 0, is ``id#k``; the only clip of a video is also ``id``.
    """

    def __init__(self, name: str, clips: Sequence[Mapping[str, Any]], path: str) -> None:
        self._places: dict[tuple[str, str], list[str]] = defaultdict(list)
        self.captions: list[tuple[str, str]] = []
        numbers: dict[str, int] = defaultdict(int)
        table: dict[str, np.ndarray] = {}
        for clip in clips:
            key = f"{clip['id']}#{numbers[clip['id']]}"
            numbers[clip["id"]] += 1
            table[key] = clip[name]
            self._places[clip["id"], _words(clip["caption"])].append(key)
            self.captions.append((key, clip["caption"]))
        super().__init__(name, table, None, path, "howto100m pickle")
        self._only = {video: f"{video}#0" for video, num in numbers.items() if num == 1}
        self._parts: dict[Clip, str] = {}

    def match(self, samples: Iterable[Sample]) -> None:
        asked: dict[tuple[str, str], list[Clip]] = defaultdict(list)
        for sample in samples:
            video = sample.video or sample.id
            asked[video, _words(sample.caption or "")].append((video, sample.start_seconds, sample.end_seconds))
        for place, clips in asked.items():
            keys = self._places.get(place, [])
            distinct = list(dict.fromkeys(clips))
            if len(keys) == len(distinct):
                self._parts.update(zip(distinct, keys, strict=True))

    def _key(self, video: str, start: float | None, end: float | None) -> str:
        key = self._parts.get((video, start, end))
        if key is None and (start, end) == (None, None):
            key = self._only.get(video, video)
        return part_id(video, start, end) if key is None else key

    def _taken(self, clip: Clip) -> Sequence[str]:
        return (self._key(*clip),)

    def has(self, video: str, start: float | None = None, end: float | None = None) -> bool:
        return super().has(self._key(video, start, end))

    def rows(self, video: str, start: float | None = None, end: float | None = None) -> np.ndarray:
        return super().rows(self._key(video, start, end))


def _words(caption: str) -> str:
    return " ".join(caption.casefold().split())


# ------------------------------------------------------------------------------------------------- published forms


def open_features(path: str | Path, rate: float | None = None) -> list[Stream]:
    """Open features of videos: one stream, or two of a file with ``2d`` and ``3d``, in this order.

    :param rate: vectors a second, for forms that do not say it, where parts of videos are asked for.
    :raises UsageError: there is nothing, or nothing readable; a damaged file is named. Nothing in a file is executed:
        a pickle of anything but numpy's arrays, numbers, words, lists and dicts is refused by name.
    """
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
    if path.stat().st_size > MOST_BYTES:
        raise UsageError(f"larger than {MOST_BYTES:,} bytes; make it a folder of .npy files", path=str(path))
    if path.suffix in (".pth", ".pt", ".tar"):
        return _streams(_of_torch(path), rate, str(path), "howto100m torch file")
    if path.suffix in (".pkl", ".pickle"):
        return _streams(_of_pickle(path), rate, str(path), "howto100m pickle")
    raise UsageError(
        "not a form of features that is known by its name; expected a folder, or a file that ends in .pth, .pt, .pkl "
        "or .pickle",
        path=str(path),
    )


def _streams(content: Any, rate: float | None, path: str, source: str) -> list[Stream]:
    """The streams of what a file holds: tables by id, of one network or of two, or a list of clips."""
    if isinstance(content, list) and content and all(map(_is_clip, content)):
        names = [name for name in ("2d", "3d") if name in content[0]]
        if all((name in clip) == (name in names) for clip in content for name in ("2d", "3d")):
            return [ListStream(name, content, path) for name in names]
    if isinstance(content, dict) and content:
        tables = content if content.keys() <= {"2d", "3d"} else {"features": content}
        if all(isinstance(table, dict) and table and _are_arrays(table) for table in tables.values()):
            return [TableStream(name, tables[name], rate, path, source) for name in sorted(tables)]
    raise UsageError(
        'not features of videos; expected {"2d": {id: array}, "3d": {id: array}}, {id: array}, or a list of {"2d", '
        '"3d", "caption", "id"}',
        code="bad_annotation",
        path=path,
    )


def _is_clip(clip: Any) -> bool:
    return (
        isinstance(clip, dict)
        and all(isinstance(clip.get(name), str) for name in ("id", "caption"))
        and ("2d" in clip or "3d" in clip)
        and all(isinstance(clip[name], np.ndarray) for name in ("2d", "3d") if name in clip)
    )


def _are_arrays(table: Mapping[Any, Any]) -> bool:
    return all(isinstance(video, str) and isinstance(array, np.ndarray) for video, array in table.items())


def _unreadable(path: Path, error: Exception) -> UsageError:
    said = next(iter(str(error).splitlines()), type(error).__name__)[:200]
    return UsageError(
        f"it cannot be read as plain features ({said}); files that need code to be executed are refused. Save them as "
        "tensors or as .npy files where they were made",
        code="bad_annotation",
        path=str(path),
    )


def _of_torch(path: Path) -> Any:
    """What a torch file holds, tensors as arrays."""
    try:
        with warnings.catch_warnings():  # a strange file is told about once, by the error
            warnings.simplefilter("ignore")
            content = torch.load(path, map_location="cpu", weights_only=True)
        return _as_arrays(content, 2)
    except (pickle.UnpicklingError, *UNREADABLE) as error:
        raise _unreadable(path, error) from None


def _as_arrays(content: Any, depth: int) -> Any:
    if isinstance(content, torch.Tensor):
        content = content.detach()
        return (content.float() if content.dtype == torch.bfloat16 else content).numpy()
    if isinstance(content, dict) and depth:
        return {key: _as_arrays(inner, depth - 1) for key, inner in content.items()}
    return content


def _of_pickle(path: Path) -> Any:
    try:
        return read_pickle(path)
    except (pickle.UnpicklingError, OSError) as error:
        raise _unreadable(path, error) from None


# --------------------------------------------------------------------------------------------------------- pooling


def pooled(
    streams: Sequence[Stream], clips: Sequence[Clip], how: Literal["max", "mean"] = "max", normalise: bool = True
) -> np.ndarray:
    """One vector for each clip: each stream pooled over time and divided by its length, then joined (reference 22).

    Returns float32 (len(clips), sum of dims). A vector of zeros stays as it is.

    :param how: ``max``, as reference 22 (section 5), or ``mean``.
    :param normalise: off, nothing is divided.
    :raises SsanError: as ``Stream.rows``.
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
