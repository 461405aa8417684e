"""Training a joint space of texts and videos from captions and features (section 4.4, by the training of reference 22).

Pre-training on narrated videos (HowTo100M) and fine-tuning on captions are the same function on two kinds of data.
"""

import json
import platform
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

import ssan
from ssan.datasets.howto100m import NarratedVideos
from ssan.datasets.samples import Samples
from ssan.datasets.source import DataSource
from ssan.errors import AnnotationError, UsageError, few
from ssan.files import writing
from ssan.models.counting import num_parameters
from ssan.models.weights import LoadReport
from ssan.processes import processes
from ssan.recipe import RetrievalRecipe, make_retrieval_recipe, write_recipe
from ssan.retrieval.embedding import JointSpace
from ssan.retrieval.evaluate import positives_of, recalls
from ssan.retrieval.features import Stream, open_features
from ssan.retrieval.fingerprint import by_stream, fingerprint
from ssan.retrieval.losses import LOSSES
from ssan.retrieval.model_file import (
    Retriever,
    build_space,
    embed_clips,
    embed_texts,
    encoder,
    load_retriever,
    save_retriever,
    start_from,
)
from ssan.retrieval.pairs import (
    Batch,
    Captioned,
    CaptionPairs,
    ClipFeatures,
    Dropped,
    Encode,
    NarratedPairs,
    as_it_is,
    captioned,
    features_of,
    hash_captions,
    refuse,
    unused,
    write_dropped,
)
from ssan.retrieval.text import Vocabulary, word_counts
from ssan.retrieval.word_vectors import vocabulary_with_vectors
from ssan.training.batches import Batches, BatchPlan
from ssan.training.environment import environment
from ssan.training.fit import Task, check_machine, fit
from ssan.training.journal import Journal
from ssan.training.optim import LearningRate, make_optimizer
from ssan.training.run_folder import changes, ending_in_the_journal, open_run

# Of the training captions, where there are none for validation, so many are looked at after each epoch.
MOST_WATCHED = 1000
# What an epoch has once, by the recipe's `captions`.
EPOCHS = {"one": "clips, one caption drawn of each", "all": "captions"}


@dataclass(frozen=True)
class Material:
    """What is trained on.

    :param captions: captions, or narrated videos (format ``howto100m``).
    :param features: folders or files, one for each stream that the recipe names, in its order.
    :param rates: vectors a second of each, where the features do not say it.
    :param vectors: a file of word vectors; None to learn them.
    :param narrations: what is said in narrated videos.
    :param val_split: the captions that choose the best epoch; None keeps the last one.
    """

    captions: DataSource
    features: tuple[str, ...]
    rates: tuple[float | None, ...] = ()
    vectors: str | None = None
    narrations: str | None = None
    val_split: str | None = "val"


def open_streams(features: Sequence[str], rates: Sequence[float | None], names: Sequence[str]) -> list[Stream]:
    """Open folders or files of features as the streams of these names.

    :raises UsageError: another number of streams than names; a file of reference 22's can hold two.
    """
    rates = [*rates, *[None] * (len(features) - len(rates))]
    streams = [stream for path, rate in zip(features, rates, strict=False) for stream in open_features(path, rate)]
    if len(streams) != len(names):
        raise UsageError(
            f"the recipe's features are {'+'.join(names)}, {len(names)} stream{'s' * (len(names) != 1)}, and "
            f"{len(streams)} are given ({few([stream.name for stream in streams])}); give --features for each, in this "
            "order, or name them in the recipe, as features=ssa or features=2d+ssa"
        )
    return streams


@ending_in_the_journal
def train(
    recipe: RetrievalRecipe,
    material: Material,
    out: str | Path,
    *,
    resume: bool = False,
    skip_bad: bool = False,
    allow_unused: bool = False,
    device: Literal["cpu", "cuda"] = "cpu",
    workers: int = 0,
    quiet: bool = False,
) -> dict[str, Any]:
    """Train a joint space and keep the best one; the answer has the fields of ``ssan retrieval train --json``.

    Best is the epoch with the highest mean of R@1, R@5 and R@10 from text to video over the whole of ``val_split``.

    :param skip_bad: leave out captions that are empty, have no known word, or no features; they are counted.
    :param allow_unused: features that no caption tells of are no fault.
    :raises UsageError: the recipe, the captions, the features or the folder do not allow it.
    """
    out, place = Path(out), processes()
    quiet = quiet or not place.first
    check_machine(place, device, compile=False)
    streams = open_streams(material.features, material.rates, recipe.streams)
    before = None if recipe.init is None else load_retriever(recipe.init)
    source = material.captions
    narrated = source.found_format == "howto100m"
    train_samples = source.read("train")
    val_samples = None
    if material.val_split is not None and not narrated:
        val_samples = _for_validation(source, material.val_split)
    torch.manual_seed(recipe.seed)
    vocabulary, matrix, words = _vocabulary(recipe, material, train_samples, val_samples, before)
    if matrix is not None:
        recipe = recipe.model_copy(update={"word_dim": matrix.shape[1]})
    model = build_space(recipe, vocabulary, matrix, [stream.dim for stream in streams])
    report = LoadReport() if before is None else start_from(model, vocabulary, before, recipe.init or "")
    encode = encoder(model, recipe, vocabulary)
    found = _gather(
        recipe, material, train_samples, val_samples, streams, encode, skip_bad=skip_bad, allow_unused=allow_unused
    )
    start = {
        "task": "retrieval",
        "recipe": recipe.model_dump(),
        "data": {
            "root": source.root, "format": source.format, "options": source.options,
            "features": list(material.features), "vectors": material.vectors, "narrations": material.narrations,
            "val_split": material.val_split,
        },
        "listed": fingerprint(
            {"train": train_samples, "val": val_samples}, by_stream(recipe.streams, material.features),
            vectors=material.vectors, narrations=material.narrations,
        ),
        "num_train": len(found.pairs),
        "num_val": 0 if found.val is None else len(found.val.samples),
        "num_skipped": len(found.dropped),
        "num_unused": len({fault.video for fault in found.unused}),
        "train_list": hash_captions(train_samples),
        "val_list": None if val_samples is None else hash_captions(val_samples),
        "epoch_of": "videos" if narrated else EPOCHS[recipe.captions],
        "num_clips": len(train_samples) if found.data is None else len(found.data.clips),
        "streams": [_told(name, stream) for name, stream in zip(recipe.streams, streams, strict=True)],
        "words": words,
        "weights": report.as_dict(),
        "effective_batch": min(recipe.batch * place.world * recipe.accumulate, len(found.pairs)),
        "lr": recipe.lr,
        "processes": place.world,
        "machines": place.machines,
        "device": device,
        "versions": {"ssan": ssan.__version__, "torch": torch.__version__, "python": platform.python_version()},
        "environment": environment(device, place.world, recipe.precision),
        "cost": {"params": num_parameters(model)},
    }  # fmt: skip

    def begin(folder: Path) -> None:
        with writing(folder / "recipe.yaml") as handle:
            handle.write(write_recipe(recipe))
        write_dropped(folder / "skipped.csv", [*found.dropped, *found.unused])

    open_run(out, start, _changes, resume=resume, first=place.first, begin=begin)
    if not quiet:
        _announce(recipe, start)
    watched = _watched(recipe, streams, found)
    chosen = found.val is not None
    outcome = fit(
        _task(out, recipe, model, found.pairs, watched, vocabulary, start, chosen=chosen, workers=workers),
        out,
        epochs=recipe.epochs,
        seed=recipe.seed,
        accumulate=recipe.accumulate,
        clip_norm=recipe.clip_norm,
        precision=recipe.precision,
        checkpoint_every_steps=recipe.checkpoint_every_steps,
        device=device,
        quiet=quiet,
        resume=resume,
    )
    answer = {
        "model": str(out / "model.safetensors"),
        "num_train": start["num_train"],
        "num_val": start["num_val"],
        "num_skipped": start["num_skipped"],
        "num_unused": start["num_unused"],
        "epochs": recipe.epochs,
        "steps": outcome.steps,
        "best_epoch": outcome.best_epoch,
        "val": {key.removeprefix("val_"): value for key, value in outcome.best.items() if key != "train_loss"},
        "train_seconds": round(outcome.seconds, 3),
        "resumed_from_step": outcome.resumed_from_step,
        "weights": report.as_dict(),
    }
    if place.first:
        Journal(out).record("end", **answer)
    return answer


@dataclass(frozen=True)
class Gathered:
    """What of captions and features is used, and what is not.

    :param data: the captions for training; None of narrated videos.
    :param val: the captions that choose the best epoch, where there are any.
    """

    pairs: CaptionPairs | NarratedPairs
    data: Captioned | None
    val: Captioned | None
    dropped: list[Dropped]
    unused: list[Dropped]


def _gather(
    recipe: RetrievalRecipe,
    material: Material,
    train_samples: Samples,
    val_samples: Samples | None,
    streams: Sequence[Stream],
    encode: Encode,
    *,
    skip_bad: bool,
    allow_unused: bool,
) -> Gathered:
    """Find what can be used; refuses where something cannot and that is not allowed."""
    source = material.captions
    everything = [*source.read("all"), *(val_samples or ())]
    for stream in streams:
        stream.match(everything)
    data = val = None
    pairs: CaptionPairs | NarratedPairs
    if source.found_format == "howto100m":
        pairs, dropped = _narrated(recipe, material.narrations, train_samples, streams, encode)
    else:
        data = captioned(train_samples, streams, encode)
        val = None if val_samples is None else captioned(val_samples, streams, encode)
        dropped = [*data.dropped, *(val.dropped if val else ())]
    if not skip_bad:
        num = len(train_samples) + len(val_samples or ())
        refuse(
            dropped, num, "captions cannot be used", "extract what is missing, or leave them out with --skip-bad",
            source.root,
        )  # fmt: skip
    superfluous = unused(streams, everything)
    if not allow_unused:
        refuse(
            superfluous, sum(len(stream.known()) for stream in streams), "features have no caption in any split",
            "look whether the captions are all there, or allow it with --allow-unused", source.root,
        )  # fmt: skip
    if any(of_split is not None and not of_split.clips for of_split in (data, val)):
        raise UsageError("after leaving out what cannot be used a split has no captions; mend some", path=source.root)
    if data is not None:
        pairs = CaptionPairs(data, features_of(streams, data.clips, recipe.aggregate), recipe.captions, recipe.seed)
    return Gathered(pairs, data, val, dropped, superfluous)


def _for_validation(source: DataSource, split: str) -> Samples:
    """The captions that choose the best epoch.

    :raises UsageError: there are none (code ``empty``).
    """
    try:
        return source.read(split)
    except AnnotationError as error:
        if error.code != "empty":
            raise
        raise UsageError(
            f"{error.message}; by them the best epoch is chosen: name another split with --val-split, or keep the last "
            "epoch with --val-split none",
            code="empty",
            path=error.path,
        ) from error


def _vocabulary(
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
    if material.vectors is not None:
        counts = word_counts(texts[0] + texts[1], recipe.tokens)
        vocabulary, matrix, told = vocabulary_with_vectors(counts, recipe.tokens, material.vectors)
        about = {
            "kind": "given, trained on" if recipe.train_words else "given, frozen",
            "num_words": len(vocabulary.words),
            "dim": matrix.shape[1],
            **asdict(told),
            "missing": [list(pair) for pair in told.missing],
        }
        return vocabulary, matrix, about
    if not texts[0] and before is None:
        raise UsageError("the words of narrated videos are not counted; give their vectors with --vectors")
    words = list(Vocabulary.of(texts[0], recipe.tokens).words) if texts[0] else []
    if before is not None and before.vocabulary is not None:
        words = list(dict.fromkeys([*before.vocabulary.words, *words]))
    return Vocabulary(words, recipe.tokens), None, {"kind": "learned", "num_words": len(words), "dim": recipe.word_dim}


def _narrated(
    recipe: RetrievalRecipe, narrations: str | None, samples: Samples, streams: Sequence[Stream], encode: Encode
) -> tuple[NarratedPairs, list[Dropped]]:
    """The pairs of narrated videos, and the videos that have no captions or no features."""
    if recipe.aggregate == "attention":
        raise UsageError("aggregate=attention: clips of narrated videos are pooled over time; use max or mean")
    if narrations is None:
        raise UsageError("narrated videos want what is said in them: --narrations FILE, JSON or pickle")
    told = NarratedVideos(narrations)
    videos: list[tuple[str, str]] = []
    dropped: list[Dropped] = []
    for sample in samples:
        video = sample.video or sample.id
        lacking = next((stream.name for stream in streams if not stream.has(video, None, None)), None)
        if sample.id not in told or not told.num_captions(sample.id):
            dropped.append(Dropped(sample.id, video, "empty", f"{sample.id} has no captions in {narrations}"))
        elif lacking is not None:
            dropped.append(Dropped(sample.id, video, "missing", f"no features of {video} in {lacking}"))
        else:
            videos.append((sample.id, video))
    if not videos:
        raise UsageError(
            "no narrated video has both captions and features; look at --narrations and --features", path=samples.source
        )
    how: Literal["max", "mean"] = "mean" if recipe.aggregate == "mean" else "max"
    pairs = NarratedPairs(
        told, videos, streams, encode, count=recipe.clips, min_seconds=recipe.min_seconds, min_words=recipe.min_words,
        how=how, seed=recipe.seed,
    )  # fmt: skip
    return pairs, dropped


@dataclass(frozen=True)
class Watched:
    """What is looked at after each epoch: batches for the loss, and captions for the recalls."""

    pairs: Dataset[Batch]
    data: Captioned | None = None
    features: ClipFeatures | None = None

    def __len__(self) -> int:
        return len(self.pairs)  # type: ignore[arg-type]

    def recalls(self, module: nn.Module) -> dict[str, float]:
        assert isinstance(module, JointSpace)
        assert self.data is not None
        assert self.features is not None
        text_nd = embed_texts(module, self.data.words)
        video_md = embed_clips(module, self.features, len(self.data.clips))
        return dict(recalls(text_nd, video_md, positives_of(self.data, "own")[0]))


def _watched(recipe: RetrievalRecipe, streams: Sequence[Stream], found: Gathered) -> Watched:
    """The captions for validation; without any a beginning of those for training, and of narrated videos the loss."""
    if isinstance(found.pairs, NarratedPairs):
        return Watched(found.pairs.beginning(max(1, MOST_WATCHED // recipe.clips)))
    assert found.data is not None
    data = found.val or found.data.beginning(MOST_WATCHED)
    features = features_of(streams, data.clips, recipe.aggregate)
    return Watched(CaptionPairs(data, features, "all", recipe.seed), data, features)


def _task(
    out: Path,
    recipe: RetrievalRecipe,
    model: JointSpace,
    pairs: Dataset[Batch],
    watched: Watched,
    vocabulary: Vocabulary | None,
    start: Mapping[str, Any],
    *,
    chosen: bool,
    workers: int,
) -> Task:
    """What the recipe asks for, in the terms of ``training.fit``."""
    options: dict[str, Any] = {
        "max_margin": {
            "margin": recipe.margin,
            "hard_negative_rate": recipe.hard_negative_rate,
            "negative_weighting": recipe.clips > 1,
        },
        "hardest_negative": {"margin": recipe.margin},
    }.get(recipe.loss, {"temperature": recipe.temperature})

    def batches(split: str, rank: int, world: int) -> Batches:
        if split == "train":
            plan = BatchPlan(start["num_train"], recipe.batch, seed=recipe.seed, shuffle=True, rank=rank, world=world)
            return Batches(pairs, plan, workers=workers, collate=as_it_is)
        plan = BatchPlan(len(watched), recipe.batch, rank=rank, world=world)
        return Batches(watched.pairs, plan, collate=as_it_is)

    def loss(outputs: tuple[Tensor, Tensor], groups: Tensor) -> Tensor:
        return LOSSES[recipe.loss](*outputs, groups, **options)

    def measure(outputs: tuple[Tensor, Tensor], groups: Tensor) -> dict[str, Tensor]:
        return {"loss": loss(outputs, groups).expand(len(groups))}

    def keep(module: nn.Module, measures: dict[str, float]) -> None:
        assert isinstance(module, JointSpace)
        protocol = {
            "chosen_by": f"mean_recall on {start['data']['val_split']}" if chosen else "the last epoch is kept",
            **{key: value for key, value in measures.items() if key != "train_loss"},
        }
        save_retriever(out / "model.safetensors", module, recipe, vocabulary, start["streams"], protocol)

    return Task(
        module=model,
        batches=batches,
        loss=loss,
        measure=measure,
        optimizer=lambda module, rate: make_optimizer(
            module,
            "adamw",
            lr=rate,
            momentum=0.0,
            weight_decay=recipe.weight_decay,
            fused=recipe.precision != "16",  # which scales gradients by itself, and then they could not be clipped
        ),
        rate=lambda steps: LearningRate.of(recipe, recipe.lr, steps),
        keep=keep,
        monitor="mean_recall" if chosen else None,
        whole=watched.recalls if watched.data is not None else None,
    )


def _told(name: str, stream: Stream) -> dict[str, Any]:
    return {"name": name, "dim": stream.dim, "provenance": dict(stream.provenance)}


def _changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    return changes(
        old,
        new,
        keys=("data", "num_train", "num_val", "streams", "processes"),
        lists=("train", "val"),
        defaults=json.loads(make_retrieval_recipe({}).model_dump_json()),
    )


def _announce(recipe: RetrievalRecipe, start: Mapping[str, Any]) -> None:
    """Say on standard error what is about to be trained on."""
    streams = " + ".join(f"{stream['name']} ({stream['dim']})" for stream in start["streams"])
    words = start["words"]
    lines = [
        f"{start['num_train']} pairs an epoch ({start['epoch_of']}), {start['num_val']} captions for validation, "
        f"{start['num_skipped']} left out; features {streams}",
        f"{recipe.text} text tower, joint space of {recipe.dim}, {recipe.loss}, {recipe.aggregate} over time; learning "
        f"rate {recipe.lr:g}, batch {recipe.batch}",
    ]
    if "num_running" in words:
        shares = [words[f"num_{kind}_covered"] / max(1, words[f"num_{kind}"]) for kind in ("distinct", "running")]
        lines.append(
            f"word vectors for {words['num_distinct_covered']} of {words['num_distinct']} words of the captions "
            f"({shares[0]:.1%}), {shares[1]:.1%} of the running ones"
            + (f"; without: {few([word for word, _ in words['missing']])}" if words["missing"] else "")
        )
    elif "num_words" in words:
        lines.append(f"{words['num_words']} words, whose vectors are learned")
    if start["num_unused"]:
        lines.append(f"{start['num_unused']} videos have features and no caption; skipped.csv lists them")
    print("\n".join(lines), file=sys.stderr, flush=True)
