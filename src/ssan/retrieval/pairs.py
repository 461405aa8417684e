"""Pairs of captions and clips: which can be used, the features of both sides, and what training draws of them."""

import csv
import hashlib
import io
import json
import unicodedata
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
from ssan.errors import SsanError, UsageError, few, quoted
from ssan.features.store import part_id
from ssan.features.streams import ClipKey, FeatureStream, pooled
from ssan.files import writing
from ssan.retrieval.text import no_spaces
from ssan.training.batches import Draw

Encode = Callable[[Sequence[str]], np.ndarray]
"""Captions to the words that a text tower takes, (n, l) int64; a caption of which nothing can be read is all 0."""

MOST_VECTORS = 64
"""Of a stream, evenly spaced over a clip: as many as attention over time is given at most."""


# So often are clips of a narrated video drawn again, before those that have features are looked for.
MOST_DRAWS = 20


@dataclass(frozen=True)
class DroppedCaptions:
    """A caption that cannot be used, or features that none tells of."""

    id: str
    video: str
    code: str
    message: str

    def as_dict(self) -> dict[str, Any]:
        return {"path": self.video, "code": self.code, "message": f"{self.id}: {self.message}", "line": None}


def clip_of(sample: Sample) -> ClipKey:
    """The clip that a caption tells of."""
    return sample.video or sample.id, *sample.seconds


def hash_captions(samples: Samples) -> str:
    """The start of a SHA-256 over the ids, captions and clips, in their order."""
    parts = [[sample.id, sample.caption, *clip_of(sample)] for sample in samples]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Captioned:
    """Captions that can be used.

    :param clips: the clips that they tell of, each once, in the order of their first captions.
    :param clip_of: (n,) int64, the index in ``clips`` of each caption's.
    :param words: (n, l) int64, the captions as the text tower takes them.
    :param dropped: the captions of the list that cannot be used.
    """

    samples: Samples
    clips: list[ClipKey]
    clip_of: np.ndarray
    words: np.ndarray
    dropped: list[DroppedCaptions]

    @property
    def texts(self) -> list[str]:
        return [sample.caption or "" for sample in self.samples]

    def beginning(self, num: int) -> "Captioned":
        """The first so many captions."""
        if num >= len(self.samples):
            return self
        index_of: dict[int, int] = {}
        owners = [index_of.setdefault(int(clip), len(index_of)) for clip in self.clip_of[:num]]
        return Captioned(
            self.samples.kept(self.samples[:num]),
            [self.clips[clip] for clip in index_of],
            np.array(owners, dtype=np.int64),
            self.words[:num],
            [],
        )


def captioned(
    samples: Samples, streams: Sequence[FeatureStream], encode: Encode, *, all_clips: bool = False
) -> Captioned:
    """Find what of a list of captions can be used: those with words, and with sound features in every stream.

    The features of each clip are read for that, once.

    :param all_clips: ``clips`` has also those of whose captions none can be used, for they can be found by mistake.
    """
    for stream in streams:
        stream.match(samples)
    _refuse_ids_that_look_alike(samples)
    words = encode([sample.caption or "" for sample in samples])
    faults: dict[ClipKey, tuple[str, str] | None] = {}
    kept: list[int] = []
    dropped: list[DroppedCaptions] = []
    for index, sample in enumerate(samples):
        clip, caption = clip_of(sample), sample.caption or ""
        if clip not in faults:
            faults[clip] = _fault_of(clip, streams)
        fault = faults[clip]
        if not caption.strip():
            fault = "empty", "the caption is empty"
        elif not words[index].any():
            fault = "empty", f"no word of the caption {quoted(caption)} is known{no_spaces(caption)}"
        if fault is None:
            kept.append(index)
        else:
            dropped.append(DroppedCaptions(sample.id, clip[0], *fault))
    index_of: dict[ClipKey, int] = {}
    for clip in map(clip_of, samples) if all_clips else (clip_of(samples[index]) for index in kept):
        if faults[clip] is None:
            index_of.setdefault(clip, len(index_of))
    return Captioned(
        samples.kept(samples[index] for index in kept),
        list(index_of),
        np.array([index_of[clip_of(samples[index])] for index in kept], dtype=np.int64),
        words[kept],
        dropped,
    )


def _fault_of(clip: ClipKey, streams: Sequence[FeatureStream]) -> tuple[str, str] | None:
    """Why the features of a clip cannot be used, as a code and in words; None where they can."""
    for stream in streams:
        try:
            if not stream.has(*clip):
                return "missing", f"no features of {part_id(*clip)} in {stream.name}{_alike(clip[0], stream)}"
            stream.rows(*clip)
        except SsanError as error:
            if error.code is None:  # a mistake of usage, which is not that of one clip
                raise
            return error.code, str(error)
    return None


def _alike(video: str, stream: FeatureStream) -> str:
    """A hint where features have the very name in letters that are composed otherwise, as file systems may do."""
    if video.isascii():
        return ""
    same = next((name for name in stream.known() if name != video and _composed(name) == _composed(video)), None)
    return "" if same is None else ", but of the same name in another Unicode form (NFC, NFD); write both alike"


def _refuse_ids_that_look_alike(samples: Samples) -> None:
    seen: dict[str, str] = {}
    for video in dict.fromkeys(clip_of(sample)[0] for sample in samples):
        other = video if video.isascii() else seen.setdefault(_composed(video), video)
        if other != video:
            raise UsageError(
                f"the videos {other!a} and {video!a} differ only by their Unicode form; make them one, or "
                "name them apart",
                code="bad_annotation",
                path=samples.source,
            )


def _composed(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def unused(streams: Sequence[FeatureStream], samples: Iterable[Sample]) -> list[DroppedCaptions]:
    """The features of each stream that no caption tells of."""
    clips = {clip_of(sample) for sample in samples}
    return [
        DroppedCaptions(name, name, "missing", f"features in {stream.name}, but no caption tells of {name}")
        for stream in streams
        for name in stream.unused(clips)
    ]


def refuse(dropped: Sequence[DroppedCaptions], num: int, what: str, advice: str, path: str) -> None:
    """Refuse to go on with faults, unless there are none; the first few are named, and the first is explained."""
    if dropped:
        raise UsageError(
            f"{len(dropped)} of {num} {what}: {few([fault.id for fault in dropped])}. First: {dropped[0].message}; "
            f"{advice}",
            code=dropped[0].code,
            path=path,
        )


def write_dropped(path: str | Path, dropped: Sequence[DroppedCaptions]) -> None:
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

    def __call__(self, indices: np.ndarray) -> Any:
        """Those of the clips of these indices."""


class Pooled:
    """Features pooled over time once for all: (b, f), f the streams' lengths together."""

    def __init__(self, streams: Sequence[FeatureStream], clips: Sequence[ClipKey], how: Literal["max", "mean"]) -> None:
        self.matrix_nf = pooled(streams, clips, how)

    def __call__(self, indices: np.ndarray) -> Tensor:
        return torch.from_numpy(self.matrix_nf[indices])


class Sequences:
    """Features over time: of each stream the vectors (b, t, f), 0 behind a clip's last, and how many there are (b,)."""

    def __init__(self, streams: Sequence[FeatureStream], clips: Sequence[ClipKey]) -> None:
        self.streams, self.clips = streams, clips

    def __call__(self, indices: np.ndarray) -> list[tuple[Tensor, Tensor]]:
        return [self._of(stream, indices) for stream in self.streams]

    def _of(self, stream: FeatureStream, indices: np.ndarray) -> tuple[Tensor, Tensor]:
        rows = [stream.rows(*self.clips[index]) for index in indices]
        rows = [
            of_clip[np.linspace(0, len(of_clip) - 1, min(len(of_clip), MOST_VECTORS)).round().astype(int)]
            for of_clip in rows
        ]
        nums = [len(of_clip) for of_clip in rows]
        vectors_btf = np.zeros((len(rows), max(nums), stream.dim), dtype=np.float32)
        for row, of_clip in enumerate(rows):
            vectors_btf[row, : len(of_clip)] = of_clip
        return torch.from_numpy(vectors_btf), torch.tensor(nums)


def features_of(streams: Sequence[FeatureStream], clips: Sequence[ClipKey], aggregate: str) -> ClipFeatures:
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
        streams: Sequence[FeatureStream],
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

    def of(self, videos: Sequence[tuple[str, str]]) -> "NarratedPairs":
        """The same of other videos."""
        return NarratedPairs(
            self.narrated, videos, self.streams, self.encode, count=self.count, min_seconds=self.min_seconds,
            min_words=self.min_words, how=self.how, seed=self.seed,
        )  # fmt: skip

    def beginning(self, num: int) -> "NarratedPairs":
        """The pairs of the first so many videos."""
        return self.of(self.videos[:num])

    def problem(self, told: str, video: str) -> tuple[str, str] | None:
        """Why no clip of a video can be drawn, as a code and in words; None where some can.

        :raises SsanError: what is said in it, or its features, are malformed.
        """
        if told not in self.narrated or not self.narrated.num_captions(told):
            return "empty", f"{told} has no captions in {self.narrated.path}"
        lacking = next((stream.name for stream in self.streams if not stream.has(video)), None)
        if lacking is not None:
            return "missing", f"no features of {video} in {lacking}"
        if not any(self._has(video, self._grown(told, n)) for n in range(self.narrated.num_captions(told))):
            return "too_few_frames", f"all that is said in {video} lies behind its features; look at their rate"
        return None

    def __len__(self) -> int:
        return len(self.videos)

    def __getitem__(self, draw: Draw) -> Batch:
        return self.__getitems__([draw])

    def __getitems__(self, draws: Sequence[Draw]) -> Batch:
        texts: list[str] = []
        clips: list[ClipKey] = []
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
            found += [caption for caption in drawn if self._has(video, caption)]
            if len(found) == self.count:
                return found
        every = [self._grown(told, index) for index in range(self.narrated.num_captions(told))]
        within = [caption for caption in every if self._has(video, caption)]
        if not within:
            raise UsageError(
                "none of its captions has features within the video; look at the times of its captions, and at the "
                "rate of its features",
                code="too_few_frames",
                path=video,
            )
        return found + [within[n] for n in rng.integers(len(within), size=self.count - len(found))]

    def _grown(self, told: str, index: int) -> Caption:
        return self.narrated.grown(told, index, self.min_seconds, self.min_words)

    def _has(self, video: str, caption: Caption) -> bool:
        return all(stream.has(video, *caption[1:]) for stream in self.streams)
