"""Stream of features, as whoever uses it sees it: vectors by the video's id, of the whole of it or of a part."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from ssan.datasets.samples import Sample
from ssan.errors import SsanError, UsageError, few
from ssan.features.store import MOST_DIM, part_id

ClipKey = tuple[str, float | None, float | None]
"""A video's id, and the part of it that is meant, [start, end) in seconds; None is the beginning, or the end."""


class FeatureStream(ABC):
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

    def unused(self, clips: Iterable[ClipKey]) -> list[str]:
        """The entries that none of these clips takes anything of."""
        taken = {name for clip in clips for name in self._taken(clip)}
        return [name for name in self.known() if name not in taken]

    def _taken(self, clip: ClipKey) -> Sequence[str]:
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


def check_part(video: str, start: float | None, end: float | None) -> tuple[float, float]:
    """Start and end of a part as numbers; the end of the video is infinite."""
    first, last = 0.0 if start is None else float(start), np.inf if end is None else float(end)
    if not 0 <= first <= last or first == np.inf:
        raise UsageError(
            f"the part [{first:g}, {last:g}) of {video!r} is none; expected 0 <= start <= end, in seconds",
            code="bad_annotation",
        )
    return first, last


class TimedFeatureStream(FeatureStream):
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
        first, last = check_part(video, start, end)
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
            raise not_finite(video, self._file(video))
        return np.atleast_2d(found)

    def _file(self, video: str) -> str:
        return self.where


def not_finite(video: str, path: str) -> SsanError:
    return SsanError(
        f"the features of {video!r} are NaN or infinite; expected finite numbers. Extract them again, or leave out "
        "this video",
        code="nan",
        path=path,
    )


def checked(array: np.ndarray, dim: int | None, what: str, path: str) -> np.ndarray:
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
