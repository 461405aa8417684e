"""Features as others have published them: tables by id in files of torch and pickles, and reference 22's list of clips.

Nothing in a file is executed: a pickle of anything but numpy's arrays, numbers, words, lists and dicts is refused by
name.
"""

import pickle
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ssan.datasets.samples import Sample
from ssan.errors import SsanError, UsageError, first_line, quoted
from ssan.features.store import part_id
from ssan.features.stream import ClipKey, FeatureStream, TimedFeatureStream, checked, not_finite
from ssan.pickles import read_pickle
from ssan.weights.state_dict import UNREADABLE
from ssan.weights.torch_files import read_torch_file

# Files of other forms are read into memory. Reference 22's largest, of 128,000 clips, has 2 GB.
MOST_BYTES = 1 << 35


class TableStream(TimedFeatureStream):
    """Features in memory by the video's id: (n, f), or (f,), pooled already.

    ``faults`` has what is wrong with those that cannot be used, by id; it is raised where they are asked for.
    """

    def __init__(self, name: str, table: Mapping[str, np.ndarray], rate: float | None, path: str, source: str) -> None:
        self.name, self.rate, self.where, self._table = name, rate, path, dict(table)
        self.faults: dict[str, SsanError] = {}
        self.dim, dim = 0, None
        for video, array in self._table.items():
            try:
                self.dim = dim = checked(array, dim, f"{name} of {quoted(video, 80)}", path).shape[-1]
                if not np.isfinite(array).all():
                    raise not_finite(video, path)
            except SsanError as error:
                self.faults[video] = error
        if dim is None:
            raise next(iter(self.faults.values()))
        self.provenance = {"source": source, "stream": name, "vectors_per_second": rate}

    def _all(self, video: str) -> np.ndarray | None:
        if video in self.faults:
            raise self.faults[video]
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
        self._keys_of: dict[tuple[str, str], list[str]] = defaultdict(list)
        self.captions: list[tuple[str, str]] = []
        numbers: dict[str, int] = defaultdict(int)
        table: dict[str, np.ndarray] = {}
        for clip in clips:
            key = f"{clip['id']}#{numbers[clip['id']]}"
            numbers[clip["id"]] += 1
            table[key] = clip[name]
            self._keys_of[clip["id"], _words(clip["caption"])].append(key)
            self.captions.append((key, clip["caption"]))
        super().__init__(name, table, None, path, "howto100m pickle")
        self._only = {video: f"{video}#0" for video, num in numbers.items() if num == 1}
        self._parts: dict[ClipKey, str] = {}

    def match(self, samples: Iterable[Sample]) -> None:
        asked: dict[tuple[str, str], list[ClipKey]] = defaultdict(list)
        for sample in samples:
            video = sample.video or sample.id
            asked[video, _words(sample.caption or "")].append((video, *sample.seconds))
        for said, clips in asked.items():
            keys = self._keys_of.get(said, [])
            distinct = list(dict.fromkeys(clips))
            if len(keys) == len(distinct):
                self._parts.update(zip(distinct, keys, strict=True))

    def _key(self, video: str, start: float | None, end: float | None) -> str:
        key = self._parts.get((video, start, end))
        if key is None and (start, end) == (None, None):
            key = self._only.get(video, video)
        return part_id(video, start, end) if key is None else key

    def _taken(self, clip: ClipKey) -> Sequence[str]:
        return (self._key(*clip),)

    def has(self, video: str, start: float | None = None, end: float | None = None) -> bool:
        return super().has(self._key(video, start, end))

    def rows(self, video: str, start: float | None = None, end: float | None = None) -> np.ndarray:
        return super().rows(self._key(video, start, end))


def _words(caption: str) -> str:
    return " ".join(unicodedata.normalize("NFC", caption).casefold().split())


def read_published(path: Path, rate: float | None) -> list[FeatureStream]:
    """The streams of a file, by its suffix.

    :raises UsageError: it is of no such form, too large, damaged, or holds something else.
    """
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


def _streams(content: Any, rate: float | None, path: str, source: str) -> list[FeatureStream]:
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
    return UsageError(
        f"it cannot be read as plain features ({first_line(error)}); files that need code to be executed are refused. "
        "Save them as tensors or as .npy files where they were made",
        code="bad_annotation",
        path=str(path),
    )


def _of_torch(path: Path) -> Any:
    """What a torch file holds, tensors as arrays."""
    try:
        content = read_torch_file(path)
        num_bytes, there = _num_bytes(content, 2), path.stat().st_size
        if num_bytes > there:  # the same numbers many times over, which would be looked at as often
            raise ValueError(f"its tensors would have {num_bytes:,} bytes, and the file has {there:,}")
        return _as_arrays(content, 2)
    except (pickle.UnpicklingError, *UNREADABLE) as error:
        raise _unreadable(path, error) from None


def _num_bytes(content: Any, depth: int) -> int:
    if isinstance(content, torch.Tensor):
        return content.numel() * content.element_size()
    if isinstance(content, dict) and depth:
        return sum(_num_bytes(inner, depth - 1) for inner in content.values())
    return 0


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
