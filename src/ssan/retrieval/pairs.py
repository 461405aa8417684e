"""Captions and the features of the clips they tell of: which can be used, and the pairs that training draws of them."""

import csv
import hashlib
import io
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ssan.datasets.howto100m import Caption, NarratedVideos
from ssan.datasets.samples import Sample, Samples
from ssan.errors import UsageError, few, quoted
from ssan.files import writing
from ssan.retrieval.features import Clip, Stream, pooled
from ssan.training.batches import Draw
from ssan.vectors import part_id

Encode = Callable[[Sequence[str]], np.ndarray]
"""Captions to the words that a text tower takes, (n, l) int64; a caption of which nothing can be read is all 0."""

MOST_VECTORS = 64
"""Of a stream, evenly spaced over a clip: as many as attention over time is given at most."""


# Of a video whose captions are mostly behind its features, so often are clips drawn again.
MOST_DRAWS = 20


@dataclass(frozen=True)
class Dropped:
    """A caption that cannot be used, or features that none tells of."""

    id: str
    video: str
    code: str
    message: str

    def as_dict(self) -> dict[str, Any]:
        return {"path": self.video, "code": self.code, "message": f"{self.id}: {self.message}", "line": None}


def clip_of(sample: Sample) -> Clip:
    """The clip that a caption tells of."""
    return sample.video or sample.id, sample.start_seconds, sample.end_seconds


def hash_captions(samples: Samples) -> str:
    """The start of a SHA-256 over the ids, captions and clips, in their order."""
    parts = [[sample.id, sample.caption, *clip_of(sample)] for sample in samples]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Captioned:
    """Captions that can be used.

    :param clips: the clips that they tell of, each once, in the order of their first captions.
    :param clip_of: (n,) int64, the place in ``clips`` of each caption's.
    :param words: (n, l) int64, the captions as the text tower takes them.
    :param dropped: the captions of the list that cannot be used.
    """

    samples: Samples
    clips: list[Clip]
    clip_of: np.ndarray
    words: np.ndarray
    dropped: list[Dropped]

    @property
    def texts(self) -> list[str]:
        return [sample.caption or "" for sample in self.samples]

    def beginning(self, num: int) -> "Captioned":
        """The first so many captions."""
        if num >= len(self.samples):
            return self
        places: dict[int, int] = {}
        owners = [places.setdefault(int(clip), len(places)) for clip in self.clip_of[:num]]
        return Captioned(
            self.samples.kept(self.samples[:num]),
            [self.clips[clip] for clip in places],
            np.array(owners, dtype=np.int64),
            self.words[:num],
            [],
        )


def captioned(samples: Samples, streams: Sequence[Stream], encode: Encode) -> Captioned:
    """Find what of a list of captions can be used: those with words and with features in every stream."""
    for stream in streams:
        stream.match(samples)
    words = encode([sample.caption or "" for sample in samples])
    there: dict[Clip, str | None] = {}
    kept: list[int] = []
    dropped: list[Dropped] = []
    for place, sample in enumerate(samples):
        clip = clip_of(sample)
        if clip not in there:
            there[clip] = next((stream.name for stream in streams if not stream.has(*clip)), None)
        lacking = there[clip]
        if not (sample.caption or "").strip():
            dropped.append(Dropped(sample.id, clip[0], "empty", "the caption is empty"))
        elif not words[place].any():
            dropped.append(
                Dropped(sample.id, clip[0], "empty", f"no word of the caption {quoted(sample.caption or '')} is known")
            )
        elif lacking is not None:
            dropped.append(Dropped(sample.id, clip[0], "missing", f"no features of {part_id(*clip)} in {lacking}"))
        else:
            kept.append(place)
    places: dict[Clip, int] = {}
    owners = [places.setdefault(clip_of(samples[place]), len(places)) for place in kept]
    return Captioned(
        samples.kept(samples[place] for place in kept),
        list(places),
        np.array(owners, dtype=np.int64),
        words[kept],
        dropped,
    )


def unused(streams: Sequence[Stream], samples: Iterable[Sample]) -> list[Dropped]:
    """The features of each stream that no caption tells of."""
    clips = {clip_of(sample) for sample in samples}
    return [
        Dropped(name, name, "missing", f"features in {stream.name}, but no caption tells of {name}")
        for stream in streams
        for name in stream.unused(clips)
    ]


def refuse(dropped: Sequence[Dropped], num: int, what: str, advice: str, path: str) -> None:
    """Refuse to go on with faults, unless there are none; the first few are named, and the first is explained."""
    if dropped:
        raise UsageError(
            f"{len(dropped)} of {num} {what}: {few([fault.id for fault in dropped])}. First: {dropped[0].message}; "
            f"{advice}",
            code=dropped[0].code,
            path=path,
        )


def write_dropped(path: str | Path, dropped: Sequence[Dropped]) -> None:
    """Write ``skipped.csv``: a line for each caption left out, and for features that none tells of."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["id", "path", "code", "message"])
    writer.writerows([fault.id, fault.video, fault.code, fault.message] for fault in dropped)
    with writing(path) as handle:
        handle.write(text.getvalue())


# ----------------------------------------------------------------------------------------------- features of clips


class ClipFeatures(Protocol):
    """The features of clips, as the joint space takes them."""

    def __call__(self, places: np.ndarray) -> Any:
        """Those of the clips at these places."""


class Pooled:
    """Features pooled over time once for all: (b, f), f the streams' lengths together."""

    def __init__(self, streams: Sequence[Stream], clips: Sequence[Clip], how: Literal["max", "mean"]) -> None:
        self.matrix_nf = pooled(streams, clips, how)

    def __call__(self, places: np.ndarray) -> Tensor:
        return torch.from_numpy(self.matrix_nf[places])


class Sequences:
    """Features over time: of each stream the vectors (b, t, f), 0 behind a clip's last, and how many there are (b,)."""

    def __init__(self, streams: Sequence[Stream], clips: Sequence[Clip]) -> None:
        self.streams, self.clips = streams, clips

    def __call__(self, places: np.ndarray) -> list[tuple[Tensor, Tensor]]:
        return [self._of(stream, places) for stream in self.streams]

    def _of(self, stream: Stream, places: np.ndarray) -> tuple[Tensor, Tensor]:
        rows = [stream.rows(*self.clips[place]) for place in places]
        rows = [
            of_clip[np.linspace(0, len(of_clip) - 1, min(len(of_clip), MOST_VECTORS)).round().astype(int)]
            for of_clip in rows
        ]
        nums = [len(of_clip) for of_clip in rows]
        vectors_btf = np.zeros((len(rows), max(nums), stream.dim), dtype=np.float32)
        for place, of_clip in enumerate(rows):
            vectors_btf[place, : len(of_clip)] = of_clip
        return torch.from_numpy(vectors_btf), torch.tensor(nums)


def features_of(streams: Sequence[Stream], clips: Sequence[Clip], aggregate: str) -> ClipFeatures:
    """The features of clips in the form that a way of aggregating wants."""
    if aggregate == "attention":
        return Sequences(streams, clips)
    return Pooled(streams, clips, "mean" if aggregate == "mean" else "max")


# ------------------------------------------------------------------------------------------------------ the pairs

Batch = tuple[tuple[Tensor, Any], Tensor]
"""Words (b, l) and features of b pairs, and the group (b,) of each: pairs of one group are of one clip, or video."""


def as_it_is(batch: Batch) -> Batch:
    """What puts a batch together: the pairs give whole batches."""
    return batch


class CaptionPairs(Dataset[Batch]):
    """Captions with the features of their clips.

    :param captions: ``one``: an epoch has each clip once, with one of its captions, drawn from (seed, epoch, clip), as
        reference 22's; ``all``: each caption once, as CLIP4Clip's. An epoch is another number of pairs by either.
    """

    def __init__(self, data: Captioned, features: ClipFeatures, captions: Literal["one", "all"], seed: int) -> None:
        self.words_nl, self.clip_of, self.features = data.words, data.clip_of, features
        self.captions, self.seed = captions, seed
        order = np.argsort(data.clip_of, kind="stable")
        self._of_clip = np.split(order, np.cumsum(np.bincount(data.clip_of, minlength=len(data.clips)))[:-1])

    def __len__(self) -> int:
        return len(self.words_nl) if self.captions == "all" else len(self._of_clip)

    def __getitem__(self, draw: Draw) -> Batch:
        return self.__getitems__([draw])

    def __getitems__(self, draws: Sequence[Draw]) -> Batch:
        chosen = np.array([draw.item if self.captions == "all" else self._drawn(draw) for draw in draws])
        clips = self.clip_of[chosen]
        return (torch.from_numpy(self.words_nl[chosen]), self.features(clips)), torch.from_numpy(clips)

    def _drawn(self, draw: Draw) -> int:
        own = self._of_clip[draw.item]
        if len(own) == 1:
            return int(own[0])
        return int(own[np.random.default_rng([self.seed, draw.epoch, draw.item]).integers(len(own))])


class NarratedPairs(Dataset[Batch]):
    """Clips of narrated videos, several drawn of each: the pre-training of reference 22, on HowTo100M.

    :param videos: ids of the captions and of the features of each.
    :param count: clips drawn of a video; they are one group.
    """

    def __init__(
        self,
        narrated: NarratedVideos,
        videos: Sequence[tuple[str, str]],
        streams: Sequence[Stream],
        encode: Encode,
        *,
        count: int,
        min_seconds: float,
        min_words: int,
        how: Literal["max", "mean"],
        seed: int,
    ) -> None:
        self.narrated, self.videos, self.streams, self.encode = narrated, videos, streams, encode
        self.count, self.min_seconds, self.min_words, self.how, self.seed = count, min_seconds, min_words, how, seed

    def beginning(self, num: int) -> "NarratedPairs":
        """The pairs of the first so many videos."""
        return NarratedPairs(
            self.narrated, self.videos[:num], self.streams, self.encode, count=self.count,
            min_seconds=self.min_seconds, min_words=self.min_words, how=self.how, seed=self.seed,
        )  # fmt: skip

    def __len__(self) -> int:
        return len(self.videos)

    def __getitem__(self, draw: Draw) -> Batch:
        return self.__getitems__([draw])

    def __getitems__(self, draws: Sequence[Draw]) -> Batch:
        texts: list[str] = []
        clips: list[Clip] = []
        for draw in draws:
            (told, video), rng = self.videos[draw.item], np.random.default_rng([self.seed, *draw])
            for text, start, end in self._drawn(told, video, rng):
                texts.append(text)
                clips.append((video, start, end))
        groups = torch.tensor([draw.item for draw in draws]).repeat_interleave(self.count)
        features = torch.from_numpy(pooled(self.streams, clips, self.how))
        return (torch.from_numpy(self.encode(texts)), features), groups

    def _drawn(self, told: str, video: str, rng: np.random.Generator) -> list[Caption]:
        """Clips of a video that have features: speech may go on behind the last vector, and is then drawn again."""
        found: list[Caption] = []
        for _ in range(MOST_DRAWS):
            drawn = self.narrated.clips(told, self.count - len(found), rng, self.min_seconds, self.min_words)
            found += [caption for caption in drawn if all(stream.has(video, *caption[1:]) for stream in self.streams)]
            if len(found) == self.count:
                return found
        raise UsageError(
            f"{MOST_DRAWS} times none or few of its captions had features within the video; look at the times of its "
            "captions, and at the rate of its features",
            code="too_few_frames",
            path=video,
        )
