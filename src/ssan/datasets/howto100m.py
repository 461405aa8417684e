"""Narrated videos: HowTo100M's list, and what is said in each video with its times, read when it is asked for.

Source: Miech et al., ICCV 2019 (reference 22 of the paper).
"""

import json
import math
import mmap
import os
import pickle
import re
from functools import lru_cache
from typing import Any, Literal

import numpy as np

from ssan.datasets.captions import VideosById, header_of, shown
from ssan.datasets.samples import Sample, Samples, is_plain
from ssan.datasets.tables import MOST_SECONDS, Where, beginning_of, check_id, check_once, fault, rows_with_header
from ssan.errors import UsageError, first_line, quoted
from ssan.files import is_text
from ssan.pickles import DamagedPickle, read_pickle

LIST = "HowTo100M_v1.csv"
MIN_SECONDS, MIN_WORDS = 5.0, 0
"""How long a caption is and how many words it has at least, as reference 22 trains."""

MOST_ENTRY_BYTES = 50_000_000

_WORD = re.compile(r"[\w']+")
# One member of the outermost object: an id, and an object with no other in it, its strings skipped as they are written.
_STRING = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
_OBJECT = rb'\{[^{}"]*+(?:' + _STRING + rb'[^{}"]*+)*+\}'
_MEMBER = re.compile(rb"\s*+(" + _STRING + rb")\s*+:\s*+(" + _OBJECT + rb")\s*+([,}])", re.DOTALL)
_NOTHING_MORE = re.compile(rb"\s*+\Z")

Caption = tuple[str, float, float]
"""What is said, and its start and end in seconds."""


# ---------------------------------------------------------------------------------------------------------- the list


def find_howto100m(folder: str) -> str | None:
    """The list of videos in a folder; None where there is none."""
    path = os.path.join(folder, LIST)
    return path if os.path.isfile(path) else None


def is_howto100m(path: str) -> bool:
    """Whether a file begins with a header as HowTo100M's list has it."""
    return {"video_id", "category_1", "category_2", "rank"} <= header_of(path)


def read_howto100m(root: str, split: str, *, annotations: str | None = None, videos: str | None = None) -> Samples:
    """HowTo100M: ``HowTo100M_v1.csv`` with the header ``video_id,category_1,category_2,rank,task_id``; or your own.

    A sample is a video, without a caption: there are 136 million of those, which ``NarratedVideos`` reads. Only the
    column ``video_id`` must be there. Where there is a column ``path``, the file of features that reference 22's
    training reads, ``video`` is that path without ``.npy``; else it is the ``video_id``, which is always the id. There
    are no splits: ``train`` and ``all`` are every video. Videos are ``{video_id}.mp4`` or of another suffix, in the
    root or in ``videos``.

    :param annotations: the file, or its folder, where that is another. So may be the root.
    :param videos: the folder of the videos, where that is another.
    :raises UsageError: there is no such file, or another split is asked for.
    :raises AnnotationError: the file is malformed, or an id is no file name or stands twice.
    """
    source = annotations or root
    path = source if os.path.isfile(source) else find_howto100m(source)
    if path is None:
        raise UsageError(
            f"there is no {LIST} here; expected it in the folder; --annotations names another folder, or the file",
            code="missing",
            path=source,
        )
    if split not in ("train", "all"):
        raise UsageError(f"these videos have no split {split!r}; use --split train", path=path)
    finder = VideosById(root, videos, ("videos",))
    samples = []
    seen: dict[str, Where] = {}
    for line, row in rows_with_header(path, ["video_id"]):
        identity = row["video_id"]
        check_id(identity, path, line)
        check_once(seen, identity, path, line)
        features = row.get("path", "").removesuffix(".npy")
        if features and not is_plain(features):
            raise fault(
                f"the path of features is {quoted(features)}; expected one relative to their folder, without detours",
                path,
                line,
                code="path_escape",
            )
        there, exists = finder.locate(identity)
        samples.append(Sample(identity, there, exists=exists, video=features or identity))
    if not samples:
        raise fault("there is no video in it; expected one in every line", path, code="empty")
    return Samples(samples, (), path)


# ------------------------------------------------------------------------------------------------------- the captions


class NarratedVideos:
    """The captions of narrated videos: ``{video: {"start": [...], "end": [...], "text": [...]}}`` as JSON or pickle.

    Of JSON only where the videos stand is kept in memory, and what is said in one is read when it is asked for: that
    of all of HowTo100M is larger than the memory of most machines. A pickle has to be read whole, by a reader that
    makes plain containers, strings, numbers and arrays of these, refuses everything else by name and runs nothing. That
    takes some five seconds for a million captions, and all of them are in memory: JSON is the better form for many.

    A text that is null or NaN, as speech recognition leaves it, is a caption without words.

    :raises UsageError: the file is not there.
    :raises AnnotationError: it is in neither form, or a video stands in it twice. A video whose captions are malformed
        is an error when it is asked for.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)
        self._open()

    def _open(self) -> None:
        if not os.path.isfile(self.path):
            raise UsageError(
                "no such file; expected captions of narrated videos, JSON or pickle", code="missing", path=self.path
            )
        self._bytes: mmap.mmap | bytes = b""
        self._spans: dict[str, tuple[int, int]] = {}
        self._content: dict[str, Any] = {}
        if os.path.getsize(self.path):
            with open(self.path, "rb") as handle:
                self._bytes = mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ)
        begins = beginning_of(self.path, 1000).removeprefix(b"\xef\xbb\xbf").lstrip()
        if begins[:1] in (b"\x80", b"(", b"}", b"c"):
            self._content = _from_pickle(self.path)
        else:
            self._spans = _spans(self._bytes, self.path)
        self._known = lru_cache(maxsize=256)(self._read)

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.path = state["path"]
        self._open()

    @property
    def ids(self) -> list[str]:
        """The videos, in the order of the file."""
        return [*(self._spans or self._content)]

    def __len__(self) -> int:
        return len(self._spans or self._content)

    def __contains__(self, video: object) -> bool:
        return video in self._spans or video in self._content

    def num_captions(self, video: str) -> int:
        """How many captions a video has."""
        return len(self._known(video)[0])

    def captions(self, video: str) -> list[Caption]:
        """All captions of a video as they are, in the order of the file."""
        return [*zip(*self._known(video), strict=True)]

    def grown(
        self,
        video: str,
        index: int,
        min_seconds: float = MIN_SECONDS,
        min_words: int = MIN_WORDS,
        *,
        order: Literal["spoken", "taken"] = "spoken",
    ) -> Caption:
        """A caption grown with its neighbours until it lasts ``min_seconds`` and has ``min_words`` words, if it can.

        As long as it lacks either, it takes the caption before or the one after: of the two that with which the clip
        is shorter, the one before if they are equal; with ``min_seconds`` 0 that which has more words, the one before
        if they are equal. At either end of the video there is but one; where there is none left it stays as it is. A
        clip lasts from the start of its first caption to the end of its last. Words are what ``[\\w']+`` matches.
        Source: Miech et al., ICCV 2019, section 3.2, and the published loader.

        Unsaid by the paper, our choice: the text is in the order in which it is spoken. Reference 22's loader appends
        each caption that it takes, also those from before, which is the same to a tower that takes the maximum over
        words, and is not to a recurrent one; ``order="taken"`` is that
        (test_captions_from_before_stand_in_front_unless_the_order_is_that_of_taking).

        :return: text, start and end in seconds.
        :raises IndexError: there is no such caption.
        """
        texts, starts, ends = self._known(video)
        if not 0 <= index < len(texts):
            raise IndexError(f"caption {index} of {video!r}, which has {len(texts)}")
        first = last = index
        taken = [index]
        num_words = count_words(texts[index])
        while num_words < min_words or ends[last] - starts[first] < min_seconds:
            before, after = first > 0, last < len(texts) - 1
            if before and after:
                if min_seconds > 0:
                    before = ends[last] - starts[first - 1] <= ends[last + 1] - starts[first]
                else:
                    before = count_words(texts[first - 1]) >= count_words(texts[last + 1])
            elif not before and not after:
                break
            if before:
                first -= 1
                taken.append(first)
            else:
                last += 1
                taken.append(last)
            num_words += count_words(texts[taken[-1]])
        text = " ".join(filter(None, (texts[number] for number in (sorted(taken) if order == "spoken" else taken))))
        return text, starts[first], ends[last]

    def clips(
        self,
        video: str,
        count: int,
        rng: np.random.Generator,
        min_seconds: float = MIN_SECONDS,
        min_words: int = MIN_WORDS,
        *,
        order: Literal["spoken", "taken"] = "spoken",
    ) -> list[Caption]:
        """So many captions of a video drawn at random, the same perhaps more than once, each grown (``grown``).

        :raises AnnotationError: the video has no caption.
        """
        num = self.num_captions(video)
        if num == 0:
            raise fault(f"the video {quoted(video)} has no captions; leave it out", self.path, code="empty")
        return [
            self.grown(video, int(index), min_seconds, min_words, order=order)
            for index in rng.integers(num, size=count)
        ]

    def _read(self, video: str) -> tuple[list[str], list[float], list[float]]:
        """Texts, starts and ends of a video, checked."""
        if video in self._content:
            return _checked(self._content[video], video, self.path)
        if video not in self._spans:
            raise fault(f"there are no captions of the video {quoted(video)}; expected it in the file", self.path)
        begin, end = self._spans[video]
        try:
            return _checked(json.loads(self._bytes[begin:end]), video, self.path)
        except (ValueError, RecursionError) as error:
            raise fault(
                f"the captions of {quoted(video)} are no JSON ({first_line(error)}); copy or export the file again",
                self.path,
            ) from None


def count_words(text: str) -> int:
    """The number of words as reference 22 counts them.

    >>> count_words("don't over-cook it")
    4
    """
    return len(_WORD.findall(text))


def _checked(entry: object, video: str, path: str) -> tuple[list[str], list[float], list[float]]:
    """What is said in a video, in lists of one length."""
    expected = 'expected {"start": [...], "end": [...], "text": [...]}, in seconds, of one length'
    columns = [_listed(entry.get(key)) for key in ("text", "start", "end")] if isinstance(entry, dict) else []
    if len(columns) != 3 or any(column is None for column in columns):
        raise fault(f"the captions of {quoted(video)} are no such object; {expected}", path)
    texts, starts, ends = (column or [] for column in columns)
    if not len(texts) == len(starts) == len(ends):
        raise fault(
            f"{quoted(video)} has {len(starts)} starts, {len(ends)} ends and {len(texts)} texts; {expected}", path
        )
    said = []
    for number, (text, start, end) in enumerate(zip(texts, starts, ends, strict=True)):
        if text is None or (isinstance(text, float) and math.isnan(text)):
            text = ""
        if not isinstance(text, str) or not is_text(text):
            raise fault(f"caption {number} of {quoted(video)} is no text; {expected}", path)
        if not all(type(bound) in (int, float) and 0 <= bound < MOST_SECONDS for bound in (start, end)) or end < start:
            raise fault(
                f"caption {number} of {quoted(video)} is from {shown(start)} to {shown(end)}; {expected}, "
                "with no end before its start",
                path,
            )
        said.append(text.strip())
    return said, [float(start) for start in starts], [float(end) for end in ends]


def _listed(column: object) -> list[Any] | None:
    """A column as a list; an array of a pickle is one too."""
    if isinstance(column, np.ndarray):
        return column.tolist() if column.ndim == 1 else None
    return [*column] if isinstance(column, list | tuple) else None


# --------------------------------------------------------------------------------------------------------------- JSON


def _spans(content: mmap.mmap | bytes, path: str) -> dict[str, tuple[int, int]]:
    """Where in a JSON file the captions of each video are, [begin, end) in bytes."""
    wrong = 'expected JSON, {"VIDEO": {"start": [...], "end": [...], "text": [...]}, ...}, or the same pickled'
    opening = re.compile(rb"(?:\xef\xbb\xbf)?\s*+\{\s*+(\})?").match(content)
    if opening is None:
        raise fault(f"it is neither JSON nor a pickle of captions; {wrong}", path)
    found: dict[str, tuple[int, int]] = {}
    here = opening.end() if opening[1] is None else -1
    end = opening.end()
    while here >= 0:
        member = _MEMBER.match(content, here)
        if member is None or member.end(2) - member.start(2) > MOST_ENTRY_BYTES:
            raise fault(
                f"what follows byte {here:,} (video {len(found) + 1}) is not the captions of a video; {wrong}", path
            )
        try:
            video = json.loads(member[1])
        except ValueError as error:
            raise fault(f"the id at byte {here:,} is no text ({error}); {wrong}", path) from None
        check_id(video, path, prefix=f"video {len(found) + 1}: ")
        if video in found:
            raise fault(f"the video {quoted(video)} stands twice in it; ids must differ", path, code="duplicate")
        found[video] = member.span(2)
        end = member.end()
        here = end if member[3] == b"," else -1
    if _NOTHING_MORE.match(content, end) is None:
        raise fault(f"there is more after the last video, from byte {end:,} on; {wrong}", path)
    return found


# ------------------------------------------------------------------------------------------------------------- pickle


def _from_pickle(path: str) -> dict[str, Any]:
    expected = (
        'expected {"VIDEO": {"start": [...], "end": [...], "text": [...]}} of strings, numbers and arrays of them'
    )
    try:
        found = read_pickle(path)
    except DamagedPickle as error:
        raise fault(f"a damaged pickle ({error}); {expected}. Export it as JSON", path) from None
    except pickle.UnpicklingError as error:
        raise fault(
            f"a pickle with {quoted(str(error))}, which is not read; {expected}. Export it as JSON", path
        ) from None
    if not isinstance(found, dict) or not all(isinstance(video, str) for video in found):
        raise fault(f"a pickle of something else; {expected}", path)
    for number, video in enumerate(found, start=1):
        check_id(video, path, prefix=f"video {number}: ")
    return found
