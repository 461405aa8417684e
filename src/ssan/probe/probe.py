"""``ssan probe``: a head on frozen features, measured on clips that it was not fitted on, and written as a model."""

import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from ssan.datasets.audit import Fault, write_skipped
from ssan.datasets.doubts import doubts, doubts_of_training
from ssan.datasets.fingerprint import fingerprint
from ssan.datasets.samples import Samples, canonical_split, hash_list
from ssan.datasets.source import DataSource
from ssan.datasets.splits import groups_of
from ssan.datasets.wrong import MOST_WRONG, wrong_answers
from ssan.errors import SsanError, UsageError, few, quoted
from ssan.files import one_writer, sha256, writing
from ssan.models.catalogue import MODELS, specification
from ssan.models.classifier import Classifier
from ssan.models.cost import multiply_adds, num_parameters
from ssan.probe.attentive import AttentiveHead, fit_attentive, logits_of
from ssan.probe.doubts import doubts_of_classes, doubts_of_duplicates, doubts_of_folds, doubts_of_groups
from ssan.probe.features import ClipFeatures, Frozen, describe, own_store
from ssan.probe.folds import each_group, folds, names_as_numbers, other_items
from ssan.probe.learning_curve import learning_curve, num_heads, verdict
from ssan.probe.linear import LinearHead, choose_strength, fit_linear
from ssan.processes import terminable
from ssan.recipe import Recipe, make_recipe, write_recipe
from ssan.training.callbacks import InterruptedRun
from ssan.training.environment import environment
from ssan.training.journal import Journal
from ssan.training.metrics import accuracies, confusion_counts, per_class, share_interval
from ssan.weights.classifier_file import build_from, preprocess_of, save_labeller
from ssan.weights.head_file import OF_THE_ENCODER, HeadOnEncoder, save_head
from ssan.weights.hub import TransformersNetwork
from ssan.weights.initial import build_pretrained, seen_as_published
from ssan.weights.labeller import Labeller

# Of a protocol what says how the head came about, and nothing of how clips are looked at.
OF_THE_HEAD = ("split", "interval", "head", "strength", "fitted_on", "num_folds")

Head = Literal["linear", "attentive"]
Way = Literal["auto", "split", "groups", "folds"]
NUM_FOLDS = 5
MOST_GROUPS = 30
"""So many are left out one by one; more are left out some at a time."""


def labeller_of_weights(name: str, init: str, device: str = "cpu") -> Labeller:
    """A network by its name in ``ssan models`` with weights from elsewhere, such as ImageNet's, to be probed.

    Unsaid by the paper, our choice: it sees as many frames of a clip as the network is named for, one that looks at
    single frames too. Pinned by ``test_a_name_with_weights_sees_pictures_as_imagenet_is_tested``.

    :raises ModelError: weights that leave something of the backbone, or a layer between frames, as it was drawn.
    """
    model, path = build_pretrained(name, init)
    seen = seen_as_published(name, specification(name).num_frames)
    recipe = make_recipe({"model": name, "init": init, **seen})
    return Labeller(model.to(device), [], preprocess_of(recipe), recipe, {}, sha256(path), name)


@dataclass(frozen=True)
class Asked:
    """Which clips a head is fitted on, and which it is asked.

    :param train: for training; of folds, all clips.
    :param test: for testing; of folds None, as every clip is for both.
    :param way: ``split``, ``leave_one_group_out`` or ``folds``.
    :param groups: the regex whose group tells which clips stay together, if one is given.
    """

    train: Samples
    test: Samples | None
    way: str
    split: str
    groups: str | None


def read_clips(source: DataSource, *, way: Way = "auto", split: str | None = None) -> Asked:
    """Read the clips of a source, and decide how a head is to be measured on them.

    The data's own split is kept to where it has one. Else each group is left out in turn, or, of clips without groups,
    one fold after the other.

    :param split: on which of a split is measured: ``val``, or ``test`` where there is no ``val``, by default.
    :raises UsageError: there is no such split, or there are no clips, labels, or classes to tell apart.
    """
    options = dict(source.options)
    regex = options.get("groups")
    if not {"val_fraction", "fold"} & set(options):  # then the reader has nothing to do with groups
        options.pop("groups", None)
    source = replace(source, options=options)
    whole = source.read("all")
    homes = {sample.split for sample in whole}
    has_split = "train" in homes or source.found_format not in ("folder", "csv")
    if way == "split" and not has_split:
        source.read("train")  # says how a split is given
        raise UsageError("the data have no split; leave out --protocol split, or give --splits", path=source.root)
    if way in ("auto", "split") and has_split:
        named = canonical_split(split) if split else "val" if "val" in homes or None in homes else "test"
        asked = Asked(source.read("train"), source.read(named), "split", named, regex)
    elif split is not None and way == "auto":
        raise UsageError(f"--split {split}: the data have no split; give --splits, or leave it out", path=source.root)
    else:
        if way == "groups" and regex is None:
            raise UsageError("--protocol groups needs --groups 'REGEX', whose group says which clips stay together")
        leaves_groups = regex is not None and way != "folds"
        asked = Asked(whole, None, "leave_one_group_out" if leaves_groups else "folds", "all", regex)
    _refuse_useless(asked)
    return asked


def _refuse_useless(asked: Asked) -> None:
    for name, samples in (("train", asked.train), (asked.split, asked.test)):
        if samples is None:
            continue
        if not samples:
            raise UsageError(
                f"there are no clips in the split {name!r}; look at --data and --splits", path=samples.source
            )
        unlabelled = [sample for sample in samples if sample.label_index is None]
        if unlabelled:
            raise UsageError(
                f"{len(unlabelled)} of {len(samples)} clips of {name} have no label, first {unlabelled[0].path}; give "
                "every clip one",
                path=samples.source,
            )
    refuse_single_class(np.array([sample.label_index for sample in asked.train]), asked.train)


def refuse_single_class(labels: np.ndarray, samples: Samples) -> None:
    known = np.unique(labels)
    if len(known) < 2:
        only = few([samples.classes[index] for index in known], 1)
        raise UsageError(
            f"all {len(labels)} clips for training are of a single class, {only}: there is nothing to tell apart; "
            "expected clips of two classes or more",
            path=samples.source,
        )


def groups_by_name(samples: Samples, root: str, regex: str) -> list[str]:
    """The group of each clip, by its file's name or path.

    :raises UsageError: a clip has none; the message says in what it was searched.
    """
    found = groups_of(root, regex, [sample.path for sample in samples], "--groups")
    without = [path for path, group in found.items() if group is None]
    if without:
        shown = quoted(os.path.relpath(without[0], root))
        if len(without) == len(found):
            raise UsageError(
                f"--groups {regex!r} matches nothing: neither a file name nor a path below {root}, such as {shown}; "
                "write one whose group is part of these",
                path=samples.source,
            )
        raise UsageError(
            f"--groups {regex!r} matches {len(found) - len(without)} of {len(found)} clips, and not {shown}; every "
            "clip needs a group",
            path=samples.source,
        )
    return [str(found[sample.path]) for sample in samples]


@dataclass(frozen=True)
class Fitted:
    """A head, and the part of it that is linear."""

    linear: LinearHead
    attentive: AttentiveHead | None

    def folded(self) -> tuple[Tensor, Tensor]:
        """Weight and bias of the model's linear layer, float64."""
        if self.attentive is not None:
            return self.attentive.folded()
        return torch.from_numpy(self.linear.weight), torch.from_numpy(self.linear.bias)


class Fitter:
    """Fits heads on parts of the same clips, and asks them.

    :param groups: (n) of each clip, or None.
    """

    def __init__(
        self, kind: Head, features: ClipFeatures, labels: np.ndarray, groups: np.ndarray | None, num_classes: int,
        seed: int,
    ) -> None:  # fmt: skip
        self.kind, self.features, self.labels, self.groups = kind, features, labels, groups
        self.num_classes, self.seed = num_classes, seed
        self.pooled = features.pooled()  # (n, views, d)
        self.num_unfinished = 0

    def fit(self, items: np.ndarray, seed: int | None = None, folder: Path | None = None) -> Fitted:
        """A head for these clips; all views of a clip are rows of their own.

        :param folder: of the run, for the journal of what is trained by steps.
        """
        seed = self.seed if seed is None else seed
        views = self.features.num_views
        rows = self.pooled[items].reshape(-1, self.features.dim)
        labels, clips = np.repeat(self.labels[items], views), np.repeat(items, views)
        groups = None if self.groups is None else np.repeat(self.groups[items], views)
        strength = choose_strength(rows, labels, clips, groups, self.num_classes, seed)
        linear = fit_linear(rows, labels, self.num_classes, strength)
        self.num_unfinished += not linear.converged
        if self.kind == "linear":
            return Fitted(linear, None)
        trained = fit_attentive(self.features, items, self.labels, linear, seed=seed, folder=folder)
        return Fitted(linear, trained)

    def ask(self, head: Fitted, items: np.ndarray) -> np.ndarray:
        """Logits (n, k), the mean over a clip's views."""
        if head.attentive is not None:
            return logits_of(head.attentive, self.features, items.tolist())
        return head.linear.logits(self.pooled[items].mean(axis=1, dtype=np.float64))

    def answers(self, items: np.ndarray, asked: np.ndarray, seed: int) -> np.ndarray:
        return self.ask(self.fit(items, seed), asked)


def probe(
    labeller: Labeller,
    source: DataSource,
    out: str | Path,
    *,
    head: Head = "linear",
    way: Way = "auto",
    split: str | None = None,
    num_folds: int = NUM_FOLDS,
    views: int = 1,
    store: str | Path | None = None,
    curve: bool = True,
    batch: int = 16,
    workers: int = 0,
    seed: int = 0,
    quiet: bool = False,
) -> dict[str, Any]:
    """Fit a head on a frozen network's features; the answer has the fields of ``ssan probe --json``.

    ``OUT/model.safetensors`` is the network with the head; of a network of the transformers library the head alone,
    which names the folder of its encoder. Of a split it is the head that was measured, fitted on the
    clips for training; of groups or folds left out in turn, one that was fitted on all clips.

    Of a probe that was made in ``out`` before, the features are taken up, and the rest is replaced.

    :param source: ``groups`` among its options is the regex of groups.
    :param store: of the features; by default in ``out``.
    :param curve: whether heads are fitted on parts of the clips too.
    :raises UsageError: the data, the folder or the store do not allow it.
    """
    out, began = Path(out), time.perf_counter()
    asked = read_clips(source, way=way, split=split)
    names = None
    if asked.groups is not None:
        parts = [asked.train, *([asked.test] if asked.test is not None else [])]
        names = [name for samples in parts for name in groups_by_name(samples, source.root, asked.groups)]
        if asked.way == "leave_one_group_out" and len(set(names)) < 2:
            raise UsageError(
                f"--groups {asked.groups!r}: all {len(names)} clips are of one group, {quoted(names[0])}, so that none "
                "can be left out; write a regex that tells them apart, or use --protocol folds",
                path=source.root,
            )
    frozen = frozen_network(labeller)
    if labeller.encoder is not None and head == "attentive":
        raise UsageError(
            f"--head attentive weighs the times of a clip, and {frozen.name} gives features of whole clips; take "
            "--head linear"
        )
    recipe = recipe_with_head(labeller, head) if labeller.encoder is None else None
    with one_writer(out, folder=True), terminable():
        journal = _begin(out, labeller, frozen, recipe, source, asked, head, seed)
        try:
            return _probe(
                labeller, frozen, recipe, source, asked, names, out, journal, began, head=head, num_folds=num_folds,
                views=views, store=store, curve=curve, batch=batch, workers=workers, seed=seed, quiet=quiet,
            )  # fmt: skip
        except (KeyboardInterrupt, InterruptedRun):
            journal.record("interrupted")
            raise
        except SsanError as error:
            journal.record("failed", code=error.code, message=str(error))
            raise


def frozen_network(labeller: Labeller) -> Frozen:
    """The network of a labeller, as the store of its features and what is computed of them name it."""
    name = labeller.name or ("" if labeller.recipe is None else labeller.recipe.model)
    # A head on an encoder changes no features: they are kept under the hash of the encoder alone.
    digest = labeller.hash if labeller.encoder is None else labeller.encoder.sha256
    return Frozen(labeller.model, labeller.preprocess, digest, name, labeller.model.num_features)


def recipe_with_head(labeller: Labeller, head: Head) -> Recipe:
    """The recipe of the network with a new head, from which ``load_labeller`` builds it.

    A consensus of the network's own is part of what is replaced.

    :raises UsageError: nothing of ours describes the network.
    """
    recipe: Recipe | None = labeller.recipe
    if recipe is None or recipe.model not in MODELS or not isinstance(labeller.model, Classifier):
        raise UsageError(
            "no recipe of ours builds this network, so that a model file with a head could not be read again; expected "
            "a model that `ssan train` or `ssan import` wrote, a name of `ssan weights list`, a name with --init, or "
            "hf:FOLDER"
        )
    changes: dict[str, Any] = {"consensus": "attention" if head == "attentive" else None}
    spec = MODELS[recipe.model]
    if spec.consensus is not None:
        plain = next(
            other for other in MODELS.values()
            if (other.backbone, other.layers, other.places, other.consensus)
            == (spec.backbone, spec.layers, spec.places, None)
        )  # fmt: skip
        changes |= {"model": plain.name, "layer": {}}
    return make_recipe({**recipe.model_dump(), **changes})


def model_with_head(labeller: Labeller, recipe: Recipe, num_classes: int, head: Fitted) -> Classifier:
    """The frozen network with a head in the place of its own, in evaluation mode, on the CPU."""
    weight, bias = head.folded()
    state = {
        name: tensor.cpu()
        for name, tensor in labeller.model.state_dict().items()
        if not name.startswith(("fc.", "consensus."))
    }
    model = build_from(recipe, num_classes)
    model.load_state_dict({**state, "fc.weight": weight.float(), "fc.bias": bias.float()})
    return model.eval()


def _begin(
    out: Path,
    labeller: Labeller,
    frozen: Frozen,
    recipe: Recipe | None,
    source: DataSource,
    asked: Asked,
    head: Head,
    seed: int,
) -> Journal:
    """Begin the run's folder; what an earlier probe said there gives way to this one."""
    path = out / "journal.jsonl"
    if path.exists() or (out / "model.safetensors").exists():
        starts = Journal(out).events("start")
        if not starts or starts[-1].get("task") != "probe":
            raise UsageError("the folder holds a run that is no probe; name another with --out", path=str(out))
        path.unlink()
        for name in ("metrics.csv", "model.safetensors", "recipe.yaml", "report.html", "skipped.csv"):
            (out / name).unlink(missing_ok=True)
        for old in out.glob("events.out.tfevents.*"):
            old.unlink()
    preprocess, network = labeller.preprocess, labeller.model
    # Of a network without a recipe the journal has what a recipe would say of it.
    described: dict[str, Any] = {"model": frozen.name, **preprocess.as_dict()}
    if recipe is not None:
        described = recipe.model_dump()
        with writing(out / "recipe.yaml") as handle:
            handle.write(write_recipe(recipe))
    elif isinstance(network, TransformersNetwork):
        network = HeadOnEncoder(network, len(asked.train.classes))
    journal = Journal(out)
    test = asked.train if asked.test is None else asked.test
    device = next(labeller.model.parameters()).device.type
    journal.record(
        "start",
        task="probe",
        head=head,
        frozen={"name": frozen.name, "hash": frozen.hash},
        recipe=described,
        data={"root": source.root, "format": source.format, "options": source.options},
        num_train=len(asked.train),
        num_val=len(test),
        classes=asked.train.classes,
        listed={"train": fingerprint(asked.train), asked.split: fingerprint(test)},
        train_list=hash_list(asked.train),
        val_list=hash_list(test),
        probe_seed=seed,
        environment={**environment(device, 1), "scikit-learn": version("scikit-learn")},
        cost={
            "params": num_parameters(network),
            "macs": multiply_adds(network, preprocess.num_frames, preprocess.crop_px),
            "num_frames": preprocess.num_frames,
            "crop_px": preprocess.crop_px,
        },
    )
    return journal


def _probe(
    labeller: Labeller, frozen: Frozen, recipe: Recipe | None, source: DataSource, asked: Asked,
    names: list[str] | None, out: Path, journal: Journal, began: float, *, head: Head, num_folds: int, views: int,
    store: str | Path | None, curve: bool, batch: int, workers: int, seed: int, quiet: bool,
) -> dict[str, Any]:  # fmt: skip
    listed = [*asked.train, *(asked.test or [])]
    sides = [0] * len(asked.train) + [1] * len(asked.test or [])
    features = describe(
        frozen, listed, own_store(out / "features", frozen, views) if store is None else store, root=source.folder,
        num_views=views, batch=batch, workers=workers, quiet=quiet,
    )  # fmt: skip
    failed = {id(sample) for sample, _ in features.failed}
    kept = [place for place, sample in enumerate(listed) if id(sample) not in failed]
    samples, side = [listed[place] for place in kept], np.array([sides[place] for place in kept])
    write_skipped(out / "skipped.csv", [Fault(sample, error) for sample, error in features.failed])
    heads_began = time.perf_counter()
    classes = asked.train.classes
    labels = np.array([sample.label_index for sample in samples])
    of_names = None if names is None else [names[place] for place in kept]
    groups = None if of_names is None else names_as_numbers(of_names)
    splits = splits_of(asked, side, labels, groups, num_folds, seed)
    for train, _ in splits:
        refuse_single_class(labels[train], asked.train)
    warnings = _warnings(asked, samples, side, labels, of_names, splits, features)

    fitter = Fitter(head, features, labels, groups, len(classes), seed)
    total = len(splits) + (num_heads(splits) if curve else 0) + (asked.test is None)
    with _bar(total, quiet) as told:
        measured: list[Fitted] = []
        for train, _ in splits:
            final = asked.test is not None
            measured.append(fitter.fit(train, folder=out if final else None))
            told()
        tested = np.concatenate([test for _, test in splits])
        scores = np.concatenate([fitter.ask(one, test) for one, (_, test) in zip(measured, splits, strict=True)])
        right = scores.argmax(axis=1) == labels[tested]
        points = learning_curve(
            fitter.answers, splits, labels, groups, right, seed=seed, told=told
        ) if curve else []  # fmt: skip
        final_head = measured[0]
        if asked.test is None:
            final_head = fitter.fit(np.arange(len(samples)), folder=out)
            told()
    sentence = verdict(points, None if groups is None else groups[tested], seed=seed) if curve else None
    warnings += _warnings_of_features(asked, fitter, of_names, side, samples)
    if fitter.num_unfinished:
        warnings.append(
            f"{fitter.num_unfinished} logistic regressions did not come to their end; features may be on very "
            "different scales"
        )
    top1 = float(right.mean())
    interval = share_interval(right.astype(np.float64), None if groups is None else groups[tested], seed=seed)
    protocol = {
        "kind": asked.way,
        "split": asked.split,
        **({"num_folds": len(splits)} if asked.test is None else {}),
        **({"groups": asked.groups} if asked.groups is not None else {}),
        "interval": "resampled groups" if groups is not None and len(np.unique(groups[tested])) > 1 else "Wilson",
        "head": head,
        "strength": final_head.linear.strength,
        "fitted_on": "train" if asked.test is not None else "all",
        "views": views,
        "crops": 1,
        "average": "logits",
        **labeller.preprocess.as_dict(),
    }
    path = out / "model.safetensors"
    told_of = {"num_scored": len(tested), "top1": top1, "frozen": frozen.name, "frozen_hash": frozen.hash}
    if labeller.encoder is not None:
        told_of |= {key: labeller.protocol[key] for key in OF_THE_ENCODER if key in labeller.protocol}
        model_hash = save_head(
            path, *final_head.folded(), classes, labeller.encoder, labeller.preprocess, {**protocol, **told_of}
        )
    else:
        assert recipe is not None
        model = model_with_head(labeller, recipe, len(classes), final_head)
        model_hash = save_labeller(path, model, classes, recipe, {**protocol, **told_of})
    seconds = {
        "features": round(features.seconds, 3),
        "head": round(time.perf_counter() - heads_began, 3),
    }
    answer: dict[str, Any] = {
        "model": str(path),
        "head": head,
        "num_train": int((side == 0).sum()),
        "num_test": len(tested),
        "num_skipped": len(features.failed),
        "top1": top1,
        "interval95": interval,
        "protocol": protocol,
        "seconds": seconds,
        "learning_curve": [point.as_dict() for point in points],
        "more_clips": sentence,
        "warnings": warnings,
        "failed": [error.as_dict() for _, error in features.failed],
    }
    _record(journal, answer, samples, scores, tested, labels, asked, model_hash, time.perf_counter() - began)
    return answer


def splits_of(
    asked: Asked, side: np.ndarray, labels: np.ndarray, groups: np.ndarray | None, num_folds: int, seed: int
) -> list[tuple[np.ndarray, np.ndarray]]:
    """The items for training and for testing, once for each head that is measured."""
    if asked.test is not None:
        split = np.flatnonzero(side == 0), np.flatnonzero(side == 1)
        for name, items in zip(("train", asked.split), split, strict=True):
            if not len(items):
                raise UsageError(f"no clip of {name} can be used; mend some of them", path=asked.train.source)
        return [split]
    if asked.way == "leave_one_group_out" and groups is not None:
        several = len(np.unique(groups)) > MOST_GROUPS
        held_out = folds(labels, groups, MOST_GROUPS, seed=seed) if several else each_group(groups)
    else:
        held_out = folds(labels, groups, num_folds, seed=seed)
    if len(held_out) < 2:
        raise UsageError("there are too few clips or groups to leave some out; add some", path=asked.train.source)
    return [(other_items(len(labels), items), items) for items in held_out]


def _warnings(
    asked: Asked, samples: Sequence[Any], side: np.ndarray, labels: np.ndarray, groups: list[str] | None,
    splits: Sequence[tuple[np.ndarray, np.ndarray]], features: ClipFeatures,
) -> list[str]:  # fmt: skip
    """What the lists alone make doubtful."""
    kept = [asked.train.kept(s for s, place in zip(samples, side, strict=True) if place == number) for number in (0, 1)]
    train = labels[side == 0]
    if asked.test is None:
        said = doubts(kept[0]) + doubts_of_classes(train, None, asked.train.classes)
        said += doubts_of_folds(splits, labels, asked.train.classes)
        if groups is None:
            said.append(
                "nothing says which clips are of one person or recording, so that these may be on both sides, and the "
                "accuracy too high: give --groups 'REGEX' or a split"
            )
    else:
        said = doubts_of_training(*kept) + doubts_of_classes(train, labels[side == 1], asked.train.classes)
        if groups is not None:
            on = [[group for group, place in zip(groups, side, strict=True) if place == number] for number in (0, 1)]
            said += doubts_of_groups(*on)
    if features.failed:
        sample, error = features.failed[0]
        said.append(
            f"{len(features.failed)} of {len(samples) + len(features.failed)} clips left out, as skipped.csv lists; "
            f"first {sample.path}: {error.message}"
        )
    return said


def _warnings_of_features(
    asked: Asked, fitter: Fitter, groups: list[str] | None, side: np.ndarray, samples: Sequence[Any]
) -> list[str]:
    pooled = fitter.pooled.mean(axis=1)
    if asked.test is not None:
        return doubts_of_duplicates(pooled, side, samples, "the split")
    if groups is not None:
        return doubts_of_duplicates(pooled, names_as_numbers(groups), samples, "groups")
    return doubts_of_duplicates(pooled, np.arange(len(pooled)), samples, "clips, which folds may part")


def _record(
    journal: Journal, answer: Mapping[str, Any], samples: Sequence[Any], scores: np.ndarray, tested: np.ndarray,
    labels: np.ndarray, asked: Asked, model_hash: str, seconds: float,
) -> None:  # fmt: skip
    own = asked.train.kept(samples[item] for item in tested)
    wrong = wrong_answers(own, scores, asked.train.classes)
    titles = {"leave_one_group_out": "groups left out in turn", "folds": "folds left out in turn"}
    journal.record(
        "evaluated",
        **{**accuracies(scores, labels[tested]), "top1": answer["top1"], "interval95": answer["interval95"]},
        num_scored=len(tested),
        num_missing=sum(error["code"] == "missing" for error in answer["failed"]),
        num_failed=sum(error["code"] != "missing" for error in answer["failed"]),
        split=titles.get(asked.way, asked.split),
        protocol={key: value for key, value in answer["protocol"].items() if key not in OF_THE_HEAD},
        per_class=per_class(scores, labels[tested], asked.train.classes),
        confusion=confusion_counts(scores, labels[tested]),
        num_wrong=len(wrong),
        wrong=wrong[:MOST_WRONG],
        list=hash_list(own),
        model_hash=model_hash,
        seconds=round(seconds, 3),
    )
    journal.record("probed", **{key: value for key, value in answer.items() if key != "failed"})
    journal.record("end", **{key: answer[key] for key in ("model", "head", "num_train", "num_test", "top1")})


@contextmanager
def _bar(total: int, quiet: bool) -> Iterator[Callable[[], None]]:
    silent = quiet or not sys.stderr.isatty()
    with tqdm(total=total, desc="heads", unit="head", disable=silent, file=sys.stderr, leave=False) as bar:
        yield lambda: (bar.update(), None)[1]
