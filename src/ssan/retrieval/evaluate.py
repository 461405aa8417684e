"""Evaluation of a joint space: the clips of a set ranked for each of its captions, and the captions for each clip."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ssan.datasets.samples import Samples
from ssan.datasets.tables import fault, table_with_header
from ssan.errors import UsageError, quoted
from ssan.features.store import part_id
from ssan.features.streams import FeatureStream
from ssan.retrieval.metrics import (
    INTERVAL,
    TIE_RULE,
    Positives,
    Rule,
    answer,
    from_embeddings,
    positives_by,
    summary,
)
from ssan.retrieval.model_file import Retriever, embed_clips, embed_texts
from ssan.retrieval.pairs import (
    Captioned,
    DroppedCaptions,
    captioned,
    clip_of,
    features_of,
    hash_captions,
    refuse,
    unused,
)

TWINS = ("video", "other", "kind")


@dataclass(frozen=True)
class Embedded:
    """Captions and clips in the joint space: (n, d) and (m, d), rows of length 1."""

    data: Captioned
    text_nd: np.ndarray
    video_md: np.ndarray


def evaluate(
    retriever: Retriever,
    samples: Samples,
    streams: Sequence[FeatureStream],
    *,
    split: str,
    positives: Rule = "own",
    twins: str | None = None,
    skip_bad: bool = False,
    allow_unused: bool = True,
    bootstrap: int = 1000,
    batch: int = 512,
    seed: int = 0,
) -> dict[str, Any]:
    """The figures of a model on captions and features; the answer has the fields of ``ssan retrieval eval --json``.

    All clips that the captions tell of are candidates of each caption, also those of whose captions none can be used.

    :param positives: ``own``: right is the clip that a caption was written for; ``same_caption``: every clip that has
        the very caption.
    :param twins: a table ``video,other,kind``. Of each kind the share of captions is given whose own video scores
        higher than the other one; equal scores count as wrong.
    :param skip_bad: leave out captions that are empty, have no known word, or no features; they are counted.
    :param allow_unused: features that no caption of the split tells of are no fault.
    :raises UsageError: captions that cannot be used, where ``skip_bad`` is off; scores that are not finite.
    :raises ModelError: the features are of another number or length than the model's.
    """
    notes = [*retriever.check(streams), *_seen_before(retriever, samples)]
    data = captioned(samples, streams, retriever.encode, all_clips=True)
    superfluous = unused(streams, samples)
    _refuse_unusable(data, superfluous, samples, streams, skip_bad, allow_unused)
    embedded = embed(retriever, data, streams, batch=batch)
    right, num_repeated = positives_of(data, positives)
    videos = _videos(data)
    figures = answer(
        from_embeddings(embedded.text_nd, embedded.video_md, right),
        right,
        bootstrap=bootstrap,
        seed=seed,
        video_of_query=videos[data.clip_of],
        video_of_candidate=videos,
    )
    found = {
        **figures,
        "num_missing": len(data.dropped),
        "num_clips_missing": len({clip_of(sample) for sample in samples}) - len(data.clips),
        "num_unused": len({fault.video for fault in superfluous}),
        "num_repeated_captions": num_repeated,
        "protocol": {
            "split": split,
            "captions": f"each of {len(data.texts)}, of {len(data.clips)} clips",
            "chosen_by": str(retriever.protocol.get("chosen_by", "not said"))[:200],
            "positives": positives,
            "tie_rule": TIE_RULE,
            "text": retriever.recipe.text,
            "tokens": retriever.recipe.tokens,
            "features": retriever.recipe.features,
            "aggregate": retriever.recipe.aggregate,
            "bootstrap": bootstrap,
            "interval": INTERVAL,
            "seed": seed,
        },
        "dropped": [dropped.as_dict() for dropped in data.dropped],
        "notes": notes,
    }
    if twins is not None:
        found["twins"] = tell_apart(embedded, twins, bootstrap=bootstrap, seed=seed)
    return found


def _refuse_unusable(
    data: Captioned,
    superfluous: Sequence[DroppedCaptions],
    samples: Samples,
    streams: Sequence[FeatureStream],
    skip_bad: bool,
    allow_unused: bool,
) -> None:
    """Refuse captions without features and features without captions, unless allowed, and where nothing is left."""
    if not skip_bad:
        refuse(
            data.dropped, len(samples), "captions cannot be used",
            "extract what is missing, or leave them out with --skip-bad", samples.source,
        )  # fmt: skip
    if not allow_unused:
        refuse(
            superfluous, sum(len(stream.known()) for stream in streams), "features have no caption",
            "name the captions of all of them, or allow it with --allow-unused", samples.source,
        )  # fmt: skip
    if not data.texts:
        raise UsageError(
            "none of the captions can be used, so nothing can be measured; look at --features", path=samples.source
        )


def _seen_before(retriever: Retriever, samples: Samples) -> list[str]:
    """What has to be said of figures on captions that had a part in training."""
    here, known = hash_captions(samples), retriever.protocol
    notes = []
    if here == known.get("train_list"):
        notes.append("these are the captions that it was trained on")
    if here == known.get("val_list"):
        notes.append("by these very captions the best epoch was chosen")
    return notes


def _videos(data: Captioned) -> np.ndarray:
    """Of which video each clip is, as whole numbers."""
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(clip[0], len(numbers)) for clip in data.clips], dtype=np.int64)


def positives_of(data: Captioned, rule: Rule) -> tuple[Positives, int]:
    """Which clips are right for each caption, and how many captions another clip has too."""
    names = [part_id(*clip) for clip in data.clips]
    return positives_by(rule, data.texts, [names[clip] for clip in data.clip_of], names)


def embed(retriever: Retriever, data: Captioned, streams: Sequence[FeatureStream], *, batch: int = 512) -> Embedded:
    """Put captions and their clips into the joint space."""
    features = features_of(streams, data.clips, retriever.recipe.aggregate)
    return Embedded(
        data,
        embed_texts(retriever.model, data.words, batch=batch),
        embed_clips(retriever.model, features, len(data.clips), batch=batch),
    )


def tell_apart(embedded: Embedded, path: str, *, bootstrap: int = 1000, seed: int = 0) -> dict[str, dict[str, Any]]:
    """Of each kind of twins, how many captions score their own video above the other: a share, and its interval.

    Rows whose videos are not both among the clips are left out and counted; of a video with several captions each
    counts.

    :raises AnnotationError: the table is malformed.
    :raises UsageError: no row of it is about these clips.
    """
    index_of = {clip[0]: index for index, clip in enumerate(embedded.data.clips)}
    captions: dict[int, list[int]] = {}
    for caption, clip in enumerate(embedded.data.clip_of):
        captions.setdefault(int(clip), []).append(caption)
    right: dict[str, list[bool]] = {}
    videos: dict[str, list[int]] = {}
    left_out: dict[str, int] = {}
    for line, row in table_with_header(path, TWINS):
        kind = row["kind"]
        if not kind or row["video"] == row["other"]:
            raise fault(
                f"expected two different videos and a kind, and found {quoted(','.join(row.values()))}", path, line
            )
        one, other = index_of.get(row["video"]), index_of.get(row["other"])
        right.setdefault(kind, [])
        videos.setdefault(kind, [])
        left_out.setdefault(kind, 0)
        if one is None or other is None:
            left_out[kind] += 1
            continue
        for caption in captions.get(one, ()):
            own, twin = embedded.video_md[[one, other]] @ embedded.text_nd[caption]
            right[kind].append(bool(own > twin))
            videos[kind].append(one)
    if not any(right.values()):
        raise UsageError("no row names two of the videos that were scored; give the twins of this split", path=path)
    return {
        kind: {
            "num": len(answers),
            "accuracy": float(np.mean(answers)) if answers else None,
            "interval95": _interval(answers, videos[kind], bootstrap, seed) if answers and bootstrap else None,
            "num_left_out": left_out[kind],
        }
        for kind, answers in right.items()
    }


def _interval(answers: Sequence[bool], videos: Sequence[int], bootstrap: int, seed: int) -> list[float]:
    """The interval of the share that is right: that of R@1, if what is right is ranked first."""
    ranks = np.where(answers, 1, 2)
    interval: list[float] = summary(ranks, bootstrap=bootstrap, seed=seed, groups=np.array(videos))["interval95"]["r1"]
    return interval


def recalls(text_nd: np.ndarray, video_md: np.ndarray, right: Positives) -> Mapping[str, float]:
    """What a run watches: the recalls from text to video, and their mean."""
    found = answer(from_embeddings(text_nd, video_md, right), right, bootstrap=0)["text_to_video"]
    shares = {key: float(found[key]) for key in ("r1", "r5", "r10")}
    return {**shares, "median_rank": float(found["median_rank"]), "mean_recall": sum(shares.values()) / len(shares)}
