"""Training a joint space of texts and videos from captions and features (section 4.4, by the training of reference 22).

Pre-training on narrated videos (HowTo100M) and fine-tuning on captions are the same function on two kinds of data.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from ssan.datasets.samples import canonical_split
from ssan.errors import UsageError, few
from ssan.features.named import open_streams, paths_by_stream
from ssan.features.streams import FeatureStream
from ssan.files import writing
from ssan.models.cost import num_parameters
from ssan.processes import processes
from ssan.recipe import RetrievalRecipe, make_retrieval_recipe, write_recipe
from ssan.retrieval.embedding import JointSpace
from ssan.retrieval.evaluate import positives_of, recalls
from ssan.retrieval.fingerprint import fingerprint
from ssan.retrieval.losses import LOSSES
from ssan.retrieval.material import Gathered, Material, captions_of_split, for_validation, gather, vocabulary_of
from ssan.retrieval.model_file import (
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
    NarratedPairs,
    as_it_is,
    features_of,
    hash_captions,
    write_dropped,
)
from ssan.retrieval.text import REMEDY_FOR_UNSPACED, Vocabulary
from ssan.training.batches import Batches, BatchPlan
from ssan.training.environment import environment
from ssan.training.fit import NOTHING_TO_STOP_BY, Task, check_machine, fit
from ssan.training.journal import Journal
from ssan.training.optim import LearningRate, make_optimizer
from ssan.training.run_folder import changes, ending_in_the_journal, epochs_to_make, open_run
from ssan.weights.state_dict import LoadReport

__all__ = ["Material", "open_streams", "train"]

# Of the training captions, where there are none for validation, so many are looked at after each epoch.
MOST_WATCHED = 1000
# Of captions written without spaces between words it is told where they are more than this share.
UNSPACED_TOLD = 0.1
# What an epoch has once, by the recipe's `captions`.
EPOCHS = {"one": "clips, one caption drawn of each", "all": "captions"}


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
    more_epochs: int | None = None,
) -> dict[str, Any]:
    """Train a joint space and keep the best one; the answer has the fields of ``ssan retrieval train --json``.

    Best is the epoch with the highest mean of R@1, R@5 and R@10 from text to video over the whole of ``val_split``.

    :param skip_bad: leave out captions that are empty, have no known word, or no features; they are counted.
    :param allow_unused: features that no caption tells of are no fault.
    :param more_epochs: with ``resume``, as many epochs more of a run that has ended; ``training.fit`` says what becomes
        of the schedule.
    :raises UsageError: the recipe, the captions, the features or the folder do not allow it.
    """
    out, processes_here = Path(out), processes()
    quiet = quiet or not processes_here.first
    check_machine(processes_here, device, compile=False)
    epochs = epochs_to_make(out, recipe.epochs, more_epochs, resume=resume)
    streams = open_streams(material.features, material.rates, recipe.streams)
    before = None if recipe.init is None else load_retriever(recipe.init, transformer=recipe.transformer)
    source = material.captions
    narrated = source.found_format == "howto100m"
    if recipe.early_stop is not None and (narrated or material.val_split is None):
        raise UsageError(NOTHING_TO_STOP_BY)
    every_sample = source.read("all")
    train_samples = captions_of_split(source, "train", every_sample)
    val_samples = None
    if material.val_split is not None and not narrated:
        val_samples = for_validation(source, material.val_split, train_samples, every_sample)
    torch.manual_seed(recipe.seed)
    vocabulary, matrix, words = vocabulary_of(recipe, material, train_samples, val_samples, before)
    if matrix is not None:
        recipe = recipe.model_copy(update={"word_dim": matrix.shape[1]})
    model = build_space(recipe, vocabulary, matrix, [stream.dim for stream in streams])
    report, notes = LoadReport(), []
    if before is not None:
        report = start_from(model, vocabulary, before, recipe.init or "")
        notes = before.check(streams, rates=False)
    encode = encoder(model, recipe, vocabulary)
    found = gather(
        recipe, material, every_sample, train_samples, val_samples, streams, encode,
        skip_bad=skip_bad, allow_unused=allow_unused,
    )  # fmt: skip
    start = {
        "task": "retrieval",
        "recipe": recipe.model_dump(),
        "data": {
            "root": source.root, "format": source.format, "options": source.options,
            "features": list(material.features), "vectors": material.vectors, "narrations": material.narrations,
            "val_split": material.val_split,
        },
        "listed": fingerprint(
            {"train": train_samples, "val": val_samples}, paths_by_stream(material.features, recipe.streams),
            vectors=material.vectors, narrations=material.narrations,
        ),
        "num_train": len(found.pairs),
        "num_val": 0 if found.val is None else len(found.val.samples),
        "num_skipped": len(found.dropped),
        "num_unused": len({fault.video for fault in found.unused}),
        "train_list": hash_captions(train_samples),
        "val_list": None if val_samples is None else hash_captions(val_samples),
        "num_val_in_train": _num_shared(found),
        "epoch_of": "videos" if narrated else EPOCHS[recipe.captions],
        "num_clips": len(train_samples) if found.data is None else len(found.data.clips),
        "streams": [_told(name, stream) for name, stream in zip(recipe.streams, streams, strict=True)],
        "words": words,
        "weights": report.as_dict(),
        "effective_batch": min(recipe.batch * processes_here.world * recipe.accumulate, len(found.pairs)),
        "lr": recipe.lr,
        "processes": processes_here.world,
        "machines": processes_here.machines,
        "device": device,
        "environment": environment(device, processes_here.world, recipe.precision),
        "cost": {"params": num_parameters(model)},
    }  # fmt: skip

    def begin(folder: Path) -> None:
        _write_recipe(folder, recipe)
        write_dropped(folder / "skipped.csv", [*found.dropped, *found.unused])

    open_run(out, start, _changes, resume=resume, first=processes_here.first, begin=begin)
    recipe = recipe.model_copy(update={"epochs": epochs})
    if not quiet:
        _announce(recipe, start, notes)
    watched = _watched(recipe, material, streams, found)
    chosen = found.val is not None
    outcome = fit(
        _task(out, recipe, model, found.pairs, watched, vocabulary, start, chosen=chosen, workers=workers),
        out,
        recipe,
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
        "epochs": outcome.epochs,
        "stopped_early": outcome.stopped_early,
        "steps": outcome.steps,
        "best_epoch": outcome.best_epoch,
        "chosen_by": _chosen_by(watched.split if chosen else None),
        "measured_on": watched.split,
        watched.split: _of_split(outcome.best, watched.split),
        "train_seconds": round(outcome.seconds, 3),
        "resumed_from_step": outcome.resumed_from_step,
        "weights": report.as_dict(),
    }
    if processes_here.first:
        _write_recipe(out, recipe)
        Journal(out).record("end", **answer)
    return answer


def _write_recipe(folder: Path, recipe: RetrievalRecipe) -> None:
    with writing(folder / "recipe.yaml") as handle:
        handle.write(write_recipe(recipe))


@dataclass(frozen=True)
class Watched:
    """What is looked at after each epoch: batches for the loss, and captions for the recalls.

    :param split: which captions these are; their measures are called by it.
    """

    pairs: Dataset[Batch]
    split: str
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


def _watched(recipe: RetrievalRecipe, material: Material, streams: Sequence[FeatureStream], found: Gathered) -> Watched:
    """The captions for validation; without any a beginning of those for training, and of narrated videos the loss."""
    if isinstance(found.pairs, NarratedPairs):
        return Watched(found.pairs.beginning(max(1, MOST_WATCHED // recipe.clips)), "train")
    assert found.data is not None
    data = found.val or found.data.beginning(MOST_WATCHED)
    features = features_of(streams, data.clips, recipe.aggregate)
    split = "train" if found.val is None or material.val_split is None else canonical_split(material.val_split)
    return Watched(CaptionPairs(data, features, "all", recipe.seed), split, data, features)


def _num_shared(found: Gathered) -> int:
    """How many of the captions that choose the epoch are of clips that are trained on."""
    if found.data is None or found.val is None:
        return 0
    trained = set(found.data.clips)
    return sum(found.val.clips[clip] in trained for clip in found.val.clip_of)


def _chosen_by(split: str | None) -> str:
    """How the epoch that is kept was chosen, in words."""
    return "the last epoch is kept" if split is None else f"mean_recall on {split}"


def _of_split(measures: Mapping[str, float], split: str) -> dict[str, float]:
    """The measures of a split by their own names; the loss of the training itself is none of them."""
    named = {key.removeprefix(f"{split}_"): value for key, value in measures.items() if key != "train_loss"}
    return {key.removesuffix("_after"): value for key, value in named.items()}


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
    if recipe.loss != "mil_nce":
        options["same_video"] = _same_video(recipe, pairs)

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
            "chosen_by": _chosen_by(watched.split if chosen else None),
            "train_list": start["train_list"],
            "val_list": start["val_list"],
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
        measured_on=watched.split,
        environment=start["environment"],
    )


def _same_video(recipe: RetrievalRecipe, pairs: Dataset[Batch]) -> str:
    """What other pairs of a clip are to the loss; of narrated videos, whose clips differ, other pairs of a video.

    Unsaid by the paper, our choice: another caption of a clip is true of it, and so no negative; other moments of a
    narrated video are negatives, as in reference 22 (test_other_captions_of_a_clip_are_no_negatives_by_default).
    """
    if recipe.same_video != "auto":
        return recipe.same_video
    return "negative" if isinstance(pairs, NarratedPairs) else "left_out"


def _told(name: str, stream: FeatureStream) -> dict[str, Any]:
    return {"name": name, "given": stream.name, "dim": stream.dim, "provenance": dict(stream.provenance)}


def _changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    # Earlier versions did not write down how the features name themselves.
    given = [stream["given"] for stream in new["streams"]]
    known = [{"given": name, **stream} for name, stream in zip(given, old.get("streams", ()), strict=False)]
    return changes(
        {**old, "streams": known},
        new,
        keys=("data", "num_train", "num_val", "streams", "processes"),
        lists=("train", "val"),
        defaults={**json.loads(make_retrieval_recipe({}).model_dump_json()), **_as_before(old["recipe"])},
    )


def _as_before(recipe: Mapping[str, Any]) -> dict[str, str]:
    """What versions did that lacked a key, where it makes a difference to a recipe of theirs."""
    before = {}
    if recipe.get("text") == "transformer":
        before["pooling"] = "mean"
    if recipe.get("captions") == "all" and recipe.get("loss") != "mil_nce":
        before["same_video"] = "negative"
    return before


def _announce(recipe: RetrievalRecipe, start: Mapping[str, Any], notes: Sequence[str]) -> None:
    """Say on standard error what is about to be trained on."""
    streams = " + ".join(f"{stream['name']} ({stream['dim']})" for stream in start["streams"])
    words = start["words"]
    split = start["data"]["val_split"]
    choice = f"{start['num_val']} captions of {split} choose the epoch" if start["num_val"] else "the last one is kept"
    lines = [
        f"{start['num_train']} pairs an epoch ({start['epoch_of']}), {choice}, {start['num_skipped']} left out; "
        f"features {streams}",
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
    if start["num_val_in_train"]:
        lines.append(f"{start['num_val_in_train']} of the captions that choose the epoch are of clips trained on")
    if words.get("num_unspaced", 0) > UNSPACED_TOLD * start["num_train"]:
        lines.append(f"{words['num_unspaced']} captions may need it: {REMEDY_FOR_UNSPACED}")
    if start["num_unused"]:
        lines.append(f"{start['num_unused']} videos have features and no caption; skipped.csv lists them")
    lines += [f"started from another joint space: {note}" for note in notes]
    print("\n".join(lines), file=sys.stderr, flush=True)
