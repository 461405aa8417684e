"""Material for a joint space: captions, features and words, gathered, and refused where they cannot be used."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np

from ssan.datasets.howto100m import NarratedVideos
from ssan.datasets.samples import Samples, canonical_split
from ssan.datasets.source import DataSource
from ssan.errors import AnnotationError, SsanError, UsageError
from ssan.features.streams import FeatureStream
from ssan.recipe import RetrievalRecipe
from ssan.retrieval.model_file import Retriever
from ssan.retrieval.pairs import (
    Captioned,
    CaptionPairs,
    DroppedCaptions,
    Encode,
    NarratedPairs,
    captioned,
    clip_of,
    features_of,
    refuse,
    unused,
)
from ssan.retrieval.text import Vocabulary, num_unspaced, word_counts
from ssan.retrieval.word_vectors import vocabulary_with_vectors


@dataclass(frozen=True)
class Material:
    """What is trained on.

    :param captions: captions, or narrated videos (format ``howto100m``).
    :param features: folders or files, one for each stream that the recipe names, in its order; or ``NAME=PATH`` each.
    :param rates: vectors a second of each, where the features do not say it.
    :param vectors: a file of word vectors; None to learn them.
    :param narrations: what is said in narrated videos.
    :param val_split: the captions that choose the best epoch: ``train``, ``val`` or ``test``; None keeps the last one.
    """

    captions: DataSource
    features: tuple[str, ...]
    rates: tuple[float | None, ...] = ()
    vectors: str | None = None
    narrations: str | None = None
    val_split: str | None = "val"


@dataclass(frozen=True)
class Gathered:
    """What of captions and features is used, and what is not.

    :param data: the captions for training; None of narrated videos.
    :param val: the captions that choose the best epoch, where there are any.
    """

    pairs: CaptionPairs | NarratedPairs
    data: Captioned | None
    val: Captioned | None
    dropped: list[DroppedCaptions]
    unused: list[DroppedCaptions]


def gather(
    recipe: RetrievalRecipe,
    material: Material,
    every_sample: Samples,
    train_samples: Samples,
    val_samples: Samples | None,
    streams: Sequence[FeatureStream],
    encode: Encode,
    *,
    skip_bad: bool,
    allow_unused: bool,
) -> Gathered:
    """Find what can be used; refuses where something cannot and that is not allowed.

    :param every_sample: those of all splits, by which it is known what features are of no use.
    """
    source = material.captions
    everything = [*every_sample, *(val_samples or ())]
    for stream in streams:
        stream.match(everything)
    data = val = None
    pairs: CaptionPairs | NarratedPairs
    narrated = source.found_format == "howto100m"
    if narrated:
        pairs, dropped = _narrated(recipe, material.narrations, train_samples, streams, encode)
    else:
        data = captioned(train_samples, streams, encode)
        val = None if val_samples is None else captioned(val_samples, streams, encode, all_clips=True)
        dropped = [*data.dropped, *(val.dropped if val else ())]
    if not skip_bad:
        num = len(train_samples) + len(val_samples or ())
        refuse(
            dropped, num, f"{'videos' if narrated else 'captions'} cannot be used",
            "mend or extract what is missing, or leave them out with --skip-bad", source.root,
        )  # fmt: skip
    superfluous = unused(streams, everything)
    if not allow_unused:
        refuse(
            superfluous, sum(len(stream.known()) for stream in streams), "features have no caption in any split",
            "look whether the captions are all there, or allow it with --allow-unused", source.root,
        )  # fmt: skip
    if narrated and not len(pairs):
        raise UsageError(
            "no narrated video has both captions and features; look at --narrations and --features",
            path=train_samples.source,
        )
    if any(of_split is not None and not len(of_split.samples) for of_split in (data, val)):
        raise UsageError("after leaving out what cannot be used a split has no captions; mend some", path=source.root)
    if data is not None:
        pairs = CaptionPairs(data, features_of(streams, data.clips, recipe.aggregate), recipe.captions, recipe.seed)
    return Gathered(pairs, data, val, dropped, superfluous)


def captions_of_split(source: DataSource, split: str, every_sample: Samples) -> Samples:
    """What ``source.read(split)`` gives, from a list of everything in it, so that nothing is read twice.

    A caption of which the list does not say its split is of whichever is asked for. Where there are none, the reader
    itself says what it makes of that.
    """
    kept = [sample for sample in every_sample if sample.split in (split, None)]
    if not kept or split == "all":
        return source.read(split)
    return every_sample.kept(replace(sample, split=sample.split or split) for sample in kept)


def for_validation(source: DataSource, split: str, train_samples: Samples, every_sample: Samples) -> Samples:
    """The captions that choose the best epoch.

    :param every_sample: those of all splits.

    :raises UsageError: there are none; or they are of the clips for training, which nobody asked for.
    """
    advice = (
        "name others that choose the best epoch with --val-split (test says that they are the test's), or keep the "
        "last epoch with --val-split none"
    )
    if canonical_split(split) == "all":
        raise UsageError(f"--val-split {split} has the captions of the test among others; {advice}")
    try:
        found = captions_of_split(source, canonical_split(split), every_sample)
    except (AnnotationError, UsageError) as error:
        if error.code not in (None, "empty", "missing"):
            raise
        raise UsageError(f"{error.message}; {advice}", code=error.code, path=error.path) from error
    clips = {clip_of(sample) for sample in found}
    if canonical_split(split) != "train" and clips <= {clip_of(sample) for sample in train_samples}:
        raise UsageError(
            f"the captions of the split {split!r} are of clips that are trained on, all {len(clips)} of them; tell the "
            f"splits apart, in a CSV file by a column `split`; or {advice}",
            code="duplicate",
            path=found.source,
        )
    return found


def vocabulary_of(
    recipe: RetrievalRecipe,
    material: Material,
    train_samples: Samples,
    val_samples: Samples | None,
    before: Retriever | None,
) -> tuple[Vocabulary | None, np.ndarray | None, dict[str, Any]]:
    """The words that the text tower will know, the vectors given for them, and what of it the journal tells.

    With a file of word vectors these are the words of the captions, also of those for validation, as far as they have a
    vector, and the file's most frequent ones beside; without, the words of the training captions, and those of the
    joint space that is started from.
    """
    if recipe.text == "transformer":
        return None, None, {"kind": "transformer"}
    texts = [[sample.caption for sample in samples if sample.caption] for samples in (train_samples, val_samples or ())]
    unspaced = {"num_unspaced": num_unspaced(texts[0] + texts[1])}
    if material.vectors is not None:
        counts = word_counts(texts[0] + texts[1], recipe.tokens)
        vocabulary, matrix, told = vocabulary_with_vectors(counts, recipe.tokens, material.vectors)
        about = {
            "kind": "given, trained on" if recipe.train_words else "given, frozen",
            "num_words": len(vocabulary.words),
            "dim": matrix.shape[1],
            **asdict(told),
            "missing": [list(pair) for pair in told.missing],
            **unspaced,
        }
        return vocabulary, matrix, about
    if not texts[0] and before is None:
        raise UsageError("the words of narrated videos are not counted; give their vectors with --vectors")
    words = list(Vocabulary.of(texts[0], recipe.tokens).words) if texts[0] else []
    if before is not None and before.vocabulary is not None:
        words = list(dict.fromkeys([*before.vocabulary.words, *words]))
    about = {"kind": "learned", "num_words": len(words), "dim": recipe.word_dim, **unspaced}
    return Vocabulary(words, recipe.tokens), None, about


def _narrated(
    recipe: RetrievalRecipe, narrations: str | None, samples: Samples, streams: Sequence[FeatureStream], encode: Encode
) -> tuple[NarratedPairs, list[DroppedCaptions]]:
    """The pairs of narrated videos, and the videos of which nothing is said while there are features."""
    if recipe.aggregate == "attention":
        raise UsageError("aggregate=attention: clips of narrated videos are pooled over time; use max or mean")
    if narrations is None:
        raise UsageError("narrated videos want what is said in them: --narrations FILE, JSON or pickle")
    told = NarratedVideos(narrations)
    how: Literal["max", "mean"] = "mean" if recipe.aggregate == "mean" else "max"
    pairs = NarratedPairs(
        told, [], streams, encode, count=recipe.clips, min_seconds=recipe.min_seconds, min_words=recipe.min_words,
        how=how, seed=recipe.seed,
    )  # fmt: skip
    videos: list[tuple[str, str]] = []
    dropped: list[DroppedCaptions] = []
    for sample in samples:
        video = sample.video or sample.id
        try:
            problem = pairs.problem(sample.id, video)
        except SsanError as error:
            if error.code is None:
                raise
            problem = error.code, str(error)
        if problem is None:
            videos.append((sample.id, video))
        else:
            dropped.append(DroppedCaptions(sample.id, video, *problem))
    return pairs.of(videos), dropped
