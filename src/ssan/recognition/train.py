"""Training a classifier from a recipe and labelled videos."""

import contextlib
import inspect
import json
import os
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssan.attachment.attach import attached_layers
from ssan.datasets import Samples
from ssan.datasets.audit import Fault, Finding, audit, write_skipped
from ssan.datasets.clips import TestClips, TrainingClips, collate, collate_one_view
from ssan.datasets.doubts import doubts_of_training
from ssan.datasets.fingerprint import files_of, fingerprint
from ssan.datasets.samples import hash_list
from ssan.datasets.source import DataSource, Lists
from ssan.errors import UsageError, printable
from ssan.files import writing
from ssan.layers import LAYERS, SeparableSelfAttention
from ssan.models.catalogue import FAMILIES, specification
from ssan.models.classifier import Classifier
from ssan.models.cost import multiply_adds, num_parameters
from ssan.processes import Processes, processes
from ssan.recipe import Recipe, make_recipe, write_recipe
from ssan.recognition.evaluate import Reversal, reversal
from ssan.recognition.trainable import (
    batch_norms_of_backbone,
    freeze_batch_norm,
    freeze_stages,
    is_last,
    new_norm_weights,
    new_parameters,
    synchronise_batch_norm,
)
from ssan.training.activation_checkpointing import recompute
from ssan.training.batches import Batches, BatchPlan
from ssan.training.conditions import Files
from ssan.training.environment import environment, precision_note
from ssan.training.fit import AtFirst, Loss, Task, check_machine, fit
from ssan.training.journal import Journal
from ssan.training.metrics import TOOK_NO_PART
from ssan.training.optim import LearningRate, make_optimizer, scaled_lr, tsm_multiples
from ssan.training.run_folder import changes, ending_in_the_journal, epochs_to_make, open_run
from ssan.video.mirror import FlipMap, flip_pairs
from ssan.video.preprocess import Augmentation
from ssan.weights.classifier_file import OWN, build_from, load_labeller, preprocess_of, save_labeller
from ssan.weights.initial import Start, start_from


def complete(recipe: Recipe) -> Recipe:
    """Fill in what a recipe leaves to the model: its frames and their size, and how a new layer starts.

    Unsaid by the paper, our choice: with weights to start from, a layer that can starts as the identity, so that they
    survive; from random weights it does not; nor where ``layer.start`` says how much of it there is (pinned in
    tests/recognition/test_train.py).
    """
    spec = None if recipe.model == OWN else specification(recipe.model)
    crop_px = recipe.crop_px or (spec.size_px if spec else 224)
    published = spec.preprocess if spec else {}
    changes: dict[str, Any] = {key: value for key, value in published.items() if key not in recipe.model_fields_set}
    if changes.get("sampling", recipe.sampling) != "dense":
        changes.pop("frames_per_second", None)
    larger = published["size_px"] / spec.size_px if spec and "size_px" in published else 8 / 7
    changes |= {"crop_px": crop_px, "size_px": recipe.size_px or round(crop_px * larger)}
    can_start_as_identity = (
        spec is not None
        and spec.layer is not None
        and "identity_start" in inspect.signature(LAYERS[spec.layer]).parameters
        and recipe.layer.get("output") != "plain"
    )
    if can_start_as_identity and "identity_start" not in recipe.layer and recipe.layer.get("start") is None:
        changes["layer"] = {**recipe.layer, "identity_start": recipe.init is not None}
    if changes["size_px"] < crop_px:
        raise UsageError(f"size_px is {changes['size_px']}, smaller than crop_px, {crop_px}; a crop is cut out of it")
    return make_recipe({**recipe.model_dump(), **changes})


@ending_in_the_journal
def train(
    recipe: Recipe,
    data: DataSource | Lists | str | os.PathLike[str] | tuple[Samples, Samples],
    out: str | Path,
    *,
    resume: bool = False,
    skip_bad: bool = False,
    device: Literal["cpu", "cuda"] = "cpu",
    workers: int = 0,
    quiet: bool = False,
    model: Classifier | None = None,
    more_epochs: int | None = None,
) -> dict[str, Any]:
    """Train a classifier and keep the best one; the answer has the fields of ``ssan train --json``.

    ::

        train(make_recipe({"model": "ssan_r50", "epochs": 20}), "videos", "runs/mine")

    :param recipe: as ``ssan.recipe.make_recipe`` or ``read_recipe`` makes it.
    :param data: a folder or file of labelled videos, a ``DataSource`` where more than its path is to be said, or two
        lists that ``ssan.datasets.read`` gives, for training and for validation.
    :param model: a network of one's own, such as ``ssan.video_classifier`` makes, instead of one that the recipe names.
        Its file has its weights and everything else that a model file has, but nothing can build the network from it:
        ``load_labeller(path, model=...)`` reads it, given the network made once more. To resume, give it likewise.
    :param more_epochs: with ``resume``, as many epochs more of a run that has ended; ``training.fit`` says what becomes
        of the schedule.
    :raises UsageError: the recipe, the data or the folder does not allow it.
    :raises VideoError, AnnotationError: the list or a video is bad and ``skip_bad`` is off.
    """
    out, processes_here, data = Path(out), processes(), DataSource.of(data)
    quiet = quiet or not processes_here.first
    recipe = complete(_own(recipe, model))
    check_machine(processes_here, device, compile=recipe.compile)
    epochs = epochs_to_make(out, recipe.epochs, more_epochs, resume=resume)
    train_samples, val_samples = data.read("train"), data.read("val")
    for name, samples in (("train", train_samples), ("val", val_samples)):
        if not samples:
            raise UsageError(
                f"there are no videos in the split {name!r}; training needs both train and val", path=data.root
            )
    listed = {"train": fingerprint(train_samples), "val": fingerprint(val_samples)}
    torch.manual_seed(recipe.seed)
    if model is None:
        model = build_from(recipe, len(train_samples.classes))
    elif model.fc.out_features != len(train_samples.classes):
        raise UsageError(
            f"the model gives scores for {model.fc.out_features} classes, and the data have "
            f"{len(train_samples.classes)}; make it with num_classes={len(train_samples.classes)}",
            path=data.root,
        )
    warnings = doubts_of_training(train_samples, val_samples)
    # A run that goes on has its weights from its state, and does not need the file any more that it began with.
    goes_on = Journal(out).events("start") if resume and (out / "last" / "state.ckpt").is_file() else []
    begun = Start(goes_on[-1].get("weights", {})) if goes_on else start_from(model, recipe, train_samples.classes)
    notes = _at_scale(model, recipe, processes_here, device)
    train_samples, val_samples, faults, damaged = _checked(
        train_samples, val_samples, skip_bad, processes_here.cores, quiet
    )

    flips = flip_pairs(train_samples.classes)
    in_a_step = recipe.batch * processes_here.world * recipe.accumulate
    effective_batch = min(in_a_step, len(train_samples))
    if effective_batch < in_a_step:
        notes.append(
            f"batch x processes x accumulate is {in_a_step}, and an epoch has {effective_batch} videos: that is the "
            "effective batch, and the learning rate follows from it"
        )
    lr = scaled_lr(recipe.lr, recipe.lr_rule, effective_batch, recipe.lr_reference_batch)
    start = {
        "recipe": recipe.model_dump(),
        "data": {"root": data.root, "format": data.format, "options": data.options},
        "num_train": len(train_samples),
        "num_val": len(val_samples),
        "num_skipped": len(faults),
        "num_damaged": len(damaged),
        "listed": listed,
        "train_list": hash_list(train_samples),
        "val_list": hash_list(val_samples),
        "classes": train_samples.classes,
        "warnings": warnings,
        "flip_pairs": flips.pairs,
        "effective_batch": effective_batch,
        "lr": lr,
        "weights": begun.fields,
        "processes": processes_here.world,
        "machines": processes_here.machines,
        "device": device,
        "environment": environment(device, processes_here.world, recipe.precision),
        "cost": cost(model, recipe),
    }
    _open_run(out, recipe, start, faults, resume, processes_here.first)
    recipe = recipe.model_copy(update={"epochs": epochs})
    if not quiet:
        _announce(recipe, start, damaged, [*begun.told, *notes])
    if processes_here.first:
        for warning in begun.warnings:
            print(f"warning: {warning}", file=sys.stderr, flush=True)
    outcome = fit(
        _task(
            out,
            recipe,
            model,
            train_samples,
            val_samples,
            flips,
            workers,
            files_of([*train_samples, *val_samples]) if processes_here.first else None,
            start,
        ),
        out,
        recipe,
        device=device,
        quiet=quiet,
        resume=resume,
    )
    looked = None
    if processes_here.first and knows_order(model, recipe):
        looked = _look_at_order(out, recipe, model, val_samples, device, workers, quiet)
    answer = {
        "model": str(out / "model.safetensors"),
        "num_train": len(train_samples),
        "num_val": len(val_samples),
        "num_skipped": len(faults),
        "epochs": outcome.epochs,
        "stopped_early": outcome.stopped_early,
        "steps": outcome.steps,
        "best_epoch": outcome.best_epoch,
        "val_top1": outcome.best["val_top1"],
        "train_seconds": round(outcome.seconds, 3),
        "resumed_from_step": outcome.resumed_from_step,
        "weights": begun.fields,
        "reversed_same_prediction": None if looked is None else looked.same_prediction,
        "reversed_top1": None if looked is None else looked.reversed_top1,
        "reversed_num": None if looked is None else looked.num,
        "reversed_num_answers": None if looked is None else looked.num_answers,
    }
    if processes_here.first:
        _write_recipe(out, recipe)
        Journal(out).record("end", **answer)
    return answer


def _task(
    out: Path,
    recipe: Recipe,
    model: Classifier,
    train_samples: Samples,
    val_samples: Samples,
    flips: FlipMap,
    workers: int,
    files: Files | None,
    start: Mapping[str, Any],
) -> Task:
    """What the recipe asks for, in the terms of ``training.fit``."""
    preprocess = preprocess_of(recipe)
    new, norms = new_parameters(model), new_norm_weights(model)
    if recipe.backbone_lr_scale == 0:  # before several processes agree on what they exchange the gradients of
        for name, parameter in model.named_parameters():
            if name not in new:
                parameter.requires_grad_(False)
    frozen = freeze_batch_norm(model, of_new_layers=recipe.freeze_bn is True) if recipe.freeze_bn else []
    frozen += freeze_stages(model, recipe.frozen_stages)
    at_first = None
    if recipe.frozen_epochs:
        waiting = [(name, parameter) for name, parameter in model.named_parameters() if name not in new]
        trained_later = [parameter for _, parameter in waiting if parameter.requires_grad]
        at_first = AtFirst(recipe.frozen_epochs, trained_later, batch_norms_of_backbone(model))
    of_each = [sample.label_index or 0 for sample in train_samples]
    augment = Augmentation(crop=recipe.crop, crop_px=preprocess.crop_px, flip=recipe.flip, flip_pairs=flips)

    def batches(split: str, rank: int, world: int) -> Batches:
        if split == "train":
            plan = BatchPlan(
                len(train_samples), recipe.batch, seed=recipe.seed, shuffle=True, rank=rank, world=world,
                classes=of_each if recipe.balance == "classes" else None,
            )  # fmt: skip
            clips = TrainingClips(train_samples, preprocess, augment, recipe.seed)
            return Batches(clips, plan, workers=workers, collate=collate)
        plan = BatchPlan(len(val_samples), recipe.batch, rank=rank, world=world)
        return Batches(TestClips(val_samples, preprocess), plan, workers=workers, collate=collate_one_view)

    def optimizer(module: nn.Module, rate: float) -> torch.optim.Optimizer:
        return make_optimizer(
            module,
            recipe.optimizer,
            lr=rate,
            momentum=recipe.momentum,
            weight_decay=recipe.weight_decay,
            lr_scale=lambda name: (
                recipe.new_norm_lr_scale if name in norms else 1.0 if name in new else recipe.backbone_lr_scale
            ),
            multiples=tsm_multiples(module, is_last) if recipe.parameter_groups == "tsm" else None,
            own_decay=None
            if recipe.new_norm_weight_decay is None
            else dict.fromkeys(norms, recipe.new_norm_weight_decay),
        )

    def keep(module: nn.Module, measures: dict[str, float]) -> None:
        assert isinstance(module, Classifier)
        protocol = {
            "split": "val", "num_scored": len(val_samples), "top1": measures["val_top1"],
            "views": 1, "crops": 1, "average": "logits", **preprocess.as_dict(),
        }  # fmt: skip
        save_labeller(out / "model.safetensors", module, train_samples.classes, recipe, protocol)

    return Task(
        module=model,
        batches=batches,
        loss=weighted_loss(balanced_weights(of_each)) if recipe.class_weights == "balanced" else F.cross_entropy,
        measure=measure,
        optimizer=optimizer,
        rate=lambda steps: LearningRate.of(recipe, start["lr"], steps),
        keep=keep,
        frozen=frozen,
        at_first=at_first,
        files=files,
        environment=start["environment"],
        ema=recipe.ema,
        compile=recipe.compile,
    )


def balanced_weights(class_of_each: Sequence[int]) -> dict[int, float]:
    """Of each class that has videos what a video of it counts in the loss.

    It is the inverse of how many the class has, times what makes the mean over all videos one: n / (k n_c) with n
    videos, k classes that have any, and n_c of the class. All classes then count the same together.
    """
    counts = Counter(class_of_each)
    return {label: len(class_of_each) / (len(counts) * num) for label, num in sorted(counts.items())}


def weighted_loss(weights: Mapping[int, float]) -> Loss:
    """Cross entropy in which a video counts what ``weights`` say of its class; the mean is over videos.

    (torch's own divides by the weights in the batch: what a video counts for would then depend on its neighbours, and
    on how many processes share the batch.)
    """
    of_class = torch.zeros(max(weights) + 1)
    for label, weight in weights.items():
        of_class[label] = weight

    def loss(scores: Tensor, labels: Tensor) -> Tensor:
        return (F.cross_entropy(scores, labels, reduction="none") * of_class.to(labels.device)[labels]).mean()

    return loss


def measure(scores: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """Loss and top-1 of each video, from logits (b, k)."""
    return {
        "loss": F.cross_entropy(scores.float(), labels, reduction="none"),
        "top1": (scores.argmax(dim=1) == labels).float(),
    }


def knows_order(model: Classifier, recipe: Recipe) -> bool:
    """Whether the network's answers can depend on the order of frames.

    Of a network of one's own that is said by the layers attached to it, and no more is known.
    """
    if recipe.num_frames == 1:
        return False
    if recipe.model != OWN:
        # With a kernel of one frame separable self-attention compares a set of frames.
        of_one_frame = specification(recipe.model).layer == "ssa" and recipe.layer.get("temporal_kernel") == 1
        return specification(recipe.model).knows_order and not of_one_frame
    blind = {LAYERS[family.layer] for family in FAMILIES.values() if family.layer and not family.knows_order}
    return any(
        type(layer) not in blind
        and not (isinstance(layer, SeparableSelfAttention) and layer.temporal.kernel_size[0] == 1)
        for layer in attached_layers(model).values()
    )


def _at_scale(model: Classifier, recipe: Recipe, processes_here: Processes, device: str) -> list[str]:
    """Do to the network what the recipe asks for the sake of memory, speed and many processes; what is to be said."""
    notes = [note for note in [precision_note(recipe.precision, device)] if note is not None]
    world, machines = processes_here.world, processes_here.machines
    if world > 1:
        where = f"{world} processes on {machines} machine{'s' * (machines > 1)}, by {processes_here.launcher}"
        notes.append(f"{where}; {recipe.batch} clips of a batch on each")
    asks = [key for key in ("new_norm_lr_scale", "new_norm_weight_decay") if getattr(recipe, key) not in (1.0, None)]
    if asks and not new_norm_weights(model):
        notes.append(f"{' and '.join(asks)}: no new layer of this network has a norm, so this does nothing")
    if recipe.sync_bn and world == 1:
        notes.append("sync_bn: one process sees the whole batch, so there is nothing to synchronise")
    elif recipe.sync_bn:
        synchronise_batch_norm(model, device)
    if recipe.checkpoint_gradients:
        stages = getattr(model.backbone, "stages", None)
        if not isinstance(stages, dict):
            raise UsageError(
                f"checkpoint_gradients is true, but a {type(model.backbone).__name__} does not say which blocks it is "
                "made of (stages, names to lists of blocks); use the network's own checkpointing, and leave the key out"
            )
        recompute(block for blocks in stages.values() for block in blocks)
    return notes


def _look_at_order(
    out: Path, recipe: Recipe, model: Classifier, val: Samples, device: str, workers: int, quiet: bool
) -> Reversal | None:
    """What the order of frames did to the best model's answers, said in a line on standard error."""
    best = out / "model.safetensors"
    if not best.is_file():  # of a run that had ended before, whose model has been moved away
        return None
    if recipe.model == OWN:
        with _as_it_was(model):
            found = reversal(
                load_labeller(best, device, model=model), val, batch=recipe.batch, workers=workers, seed=recipe.seed,
                quiet=quiet,
            )  # fmt: skip
    else:
        found = reversal(
            load_labeller(best, device), val, batch=recipe.batch, workers=workers, seed=recipe.seed, quiet=quiet
        )
    if found is None:
        return None
    same = round(found.same_prediction * found.num)
    of = f"{found.num} validation videos" + (f", drawn of {found.num_listed}," * (found.num < found.num_listed))
    if not quiet:
        print(
            f"{out.name}: with their frames reversed, {found.num - same} of {of} get another answer "
            f"({1 - found.same_prediction:.1%}); top-1 {found.top1:.4f} as sampled, {found.reversed_top1:.4f} reversed",
            file=sys.stderr,
            flush=True,
        )
    if found.num_answers == 1:
        if not quiet:
            print("every one of them is given the same class, so that nothing can be told of order", file=sys.stderr)
    elif found.same_prediction >= TOOK_NO_PART:
        print(
            f"warning: the layer between frames took no part: with their frames reversed, {same} of {of} get the same "
            "answer, as from a network of single frames. Where classes are told by order it has learnt nothing of "
            "that; see docs/label.md",
            file=sys.stderr,
            flush=True,
        )
    return found


@contextlib.contextmanager
def _as_it_was(model: nn.Module) -> Iterator[None]:
    """Give a network its weights and modes back."""
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    modes = {module: module.training for module in model.modules()}
    try:
        yield
    finally:
        model.load_state_dict(weights)
        for module, mode in modes.items():
            module.training = mode


def _checked(
    train: Samples, val: Samples, skip_bad: bool, cores: int, quiet: bool
) -> tuple[Samples, Samples, list[Fault], list[Finding]]:
    """Both lists without the videos that cannot be used; refuses where there are any and ``skip_bad`` is off.

    Then those left out, and those that an earlier check of all their frames found to be truncated or damaged: they are
    kept, as far as they decode, so that what is trained on does not depend on which checks were made before.
    """
    audited = audit([*train, *val], workers=cores, quiet=quiet)  # each process of several checks
    faults = audited.unusable
    unlabelled = [sample for sample in (*train, *val) if sample.label_index is None]
    if unlabelled:
        raise UsageError(
            f"{len(unlabelled)} videos have no label, first {unlabelled[0].path}; give every video one",
            path=train.source,
        )
    if faults and not skip_bad:
        first = faults[0].error
        listed = "; ".join(f"{fault.error.path} ({fault.error.code})" for fault in faults[:5])
        raise UsageError(
            f"{len(faults)} of {len(train) + len(val)} videos cannot be used: {listed}"
            + ("; ..." if len(faults) > 5 else "")
            + f". Mend them or leave them out with --skip-bad. First: {first.message}",
            code=first.code,
        )
    bad = {fault.sample.id for fault in faults}
    kept = [samples.kept(s for s in samples if s.id not in bad) for samples in (train, val)]
    if not all(kept):
        raise UsageError("after leaving out the bad videos a split is empty; mend some of them", path=train.source)
    return kept[0], kept[1], faults, audited.damaged


def _own(recipe: Recipe, model: Classifier | None) -> Recipe:
    """The recipe with a network that is given; what says how to build one cannot hold for it."""
    if model is None:
        if recipe.model == OWN:
            raise UsageError(
                f"the model {OWN!r} is one that its maker's code builds; from Python give it as train(..., model=...), "
                "or name one of `ssan models`"
            )
        return recipe
    for key in ("layer", "places", "backbone", "consensus", "init"):
        if getattr(recipe, key):
            raise UsageError(
                f"{key} is {getattr(recipe, key)!r}, but the model is given as it is; set it where the model is made, "
                "and leave it out of the recipe"
            )
    if "dropout" in recipe.model_fields_set and recipe.dropout != model.dropout.p:
        raise UsageError(
            f"dropout is {recipe.dropout:g} in the recipe and {model.dropout.p:g} in the model that is given; set it "
            "where the model is made, and leave it out of the recipe"
        )
    return recipe.model_copy(update={"model": OWN, "dropout": model.dropout.p})


def _open_run(
    out: Path, recipe: Recipe, start: Mapping[str, Any], faults: Sequence[Fault], resume: bool, first: bool
) -> None:
    def begin(folder: Path) -> None:
        _write_recipe(folder, recipe)
        write_skipped(folder / "skipped.csv", faults)

    open_run(out, start, _difference, resume=resume, first=first, begin=begin)


def _write_recipe(folder: Path, recipe: Recipe) -> None:
    with writing(folder / "recipe.yaml") as handle:
        handle.write(write_recipe(recipe))


def _difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    return changes(
        old,
        new,
        keys=("data", "num_train", "num_val", "classes", "processes"),
        lists=("train", "val"),
        defaults=json.loads(make_recipe({}).model_dump_json()),
    )


def _announce(recipe: Recipe, start: Mapping[str, Any], damaged: Sequence[Finding], notes: Sequence[str]) -> None:
    """Say on standard error what is about to be trained on, which classes mirroring exchanges, and at which rate."""
    classes, pairs = start["classes"], start["flip_pairs"]
    lines = [
        f"{start['num_train']} videos for training, {start['num_val']} for validation, {start['num_skipped']} left "
        f"out, {len(classes)} classes",
        f"{recipe.model}: learning rate {start['lr']:g} for an effective batch of {start['effective_batch']} "
        f"({recipe.lr:g} at {recipe.lr_reference_batch}, rule {recipe.lr_rule})",
        *notes,
        *start["warnings"],
    ]
    if damaged:
        lines.append(f"{len(damaged)} of the videos are known to be damaged; what decodes of them is used:")
        lines += [f"  {printable(found.path)}: {found.message}" for found in damaged[:5]]
        lines += [f"  and {len(damaged) - 5} more; `ssan data check` lists them"] if len(damaged) > 5 else []
    if recipe.flip != "off":
        lines.append(f"mirroring ({recipe.flip}); pairs of classes that it exchanges: {len(pairs)}")
        lines += [f"  {classes[a]} <-> {classes[b]}" for a, b in pairs]
    print("\n".join(lines), file=sys.stderr, flush=True)


def cost(model: nn.Module, recipe: Recipe) -> dict[str, Any]:
    """Parameters, and multiply-adds of one clip of the recipe's frames and size; what is not known is None.

    :param recipe: complete: with ``crop_px``.
    """
    assert recipe.crop_px is not None
    try:
        macs = multiply_adds(model, recipe.num_frames, recipe.crop_px)
    except (RuntimeError, TypeError, ValueError):
        # A network of one's own may ask for the values of its features, or hold what cannot be copied; it can be
        # trained all the same.
        macs = None
    return {
        "params": num_parameters(model),
        "macs": macs,
        "num_frames": recipe.num_frames,
        "crop_px": recipe.crop_px,
    }
