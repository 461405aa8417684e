"""The attentive head: it begins as the linear head, finds the time that matters, and is folded into one layer."""

from pathlib import Path

import numpy as np
import pytest
import torch

from ssan.datasets import Sample
from ssan.features.store import VectorWriter
from ssan.layers import AttentionOverFrames
from ssan.probe.attentive import AttentiveHead, fit_attentive, logits_of
from ssan.probe.features import ClipFeatures
from ssan.probe.linear import fit_linear
from ssan.training.journal import Journal

DIM, TIMES = 6, 8


def store_of(folder: Path, times_nvtd: np.ndarray) -> ClipFeatures:
    """A store of such features, as if a network had made them."""
    ids = [str(number) for number in range(len(times_nvtd))]
    with VectorWriter(folder, times_nvtd.shape[-1], {"of": "a test"}) as writer:
        for name, clip in zip(ids, times_nvtd, strict=True):
            rows = clip.reshape(-1, clip.shape[-1])
            writer.add(name, rows, np.zeros((len(rows), 2)), name)
    return ClipFeatures(folder, times_nvtd.shape[1], ids, [Sample(name, name) for name in ids])


def one_telling_time(num: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """One time of eight, marked by a feature of its own, tells the class; the others speak at random."""
    rng = np.random.default_rng(seed)
    labels = np.arange(num) % 2
    times = rng.normal(size=(num, 1, TIMES, DIM))
    times[..., 0] *= 4  # loud, and of no class
    where = rng.integers(TIMES, size=num)
    for clip, (place, label) in enumerate(zip(where, labels, strict=True)):
        times[clip, 0, place, 0] = 4.0 if label else -4.0
        times[clip, 0, place, 1] = 12.0
    return times, labels


@pytest.mark.slow
def test_attention_finds_the_time_that_tells_where_the_mean_does_not(tmp_path: Path) -> None:
    times, labels = one_telling_time(160)
    features = store_of(tmp_path / "store", times)
    train, test = np.arange(120), np.arange(120, 160)
    linear = fit_linear(features.pooled()[train, 0], labels[train], 2, 1.0)
    of_linear = (linear.logits(features.pooled()[test, 0]).argmax(axis=1) == labels[test]).mean()
    head = fit_attentive(features, train, labels, linear)
    of_attentive = (logits_of(head, features, test.tolist()).argmax(axis=1) == labels[test]).mean()
    assert of_attentive >= of_linear + 0.15
    assert of_attentive > 0.9
    # The query looks for the mark.
    query = head.fc.weight[-1].detach()
    assert query.abs().argmax() == 1
    assert query[1] > 0


def test_it_begins_with_the_answers_of_the_linear_head(tmp_path: Path) -> None:
    times, labels = one_telling_time(20)
    times = np.concatenate([times, times[:, :, ::-1] + 0.25], axis=1)  # two views
    features = store_of(tmp_path / "store", times)
    linear = fit_linear(features.pooled().reshape(-1, DIM), np.repeat(labels, 2), 3, 0.1)
    found = logits_of(AttentiveHead(linear, 40), features, range(20))
    assert np.abs(found - linear.logits(features.pooled().mean(axis=1))).max() < 1e-4


def test_the_penalty_is_that_of_the_regression(tmp_path: Path) -> None:
    """C = 0.5 of 10 rows: 1 / (2 x 0.5 x 10) of the squares, of weights of standardised features."""
    rows = np.array([[1.0, 10.0], [3.0, 30.0]] * 5)
    linear = fit_linear(rows, np.array([0, 1] * 5), 2, 0.5)
    _, penalty = AttentiveHead(linear, 10)(torch.zeros(1, 1, 2))
    assert float(penalty.detach()) == pytest.approx(0.1 * float(((linear.weight * [1.0, 10.0]) ** 2).sum()), rel=1e-5)


def test_folded_it_is_one_linear_layer_before_the_attention(tmp_path: Path) -> None:
    times, labels = one_telling_time(12)
    features = store_of(tmp_path / "store", times * np.logspace(-1, 1, DIM) + 5.0)
    head = AttentiveHead(fit_linear(features.pooled()[:, 0], labels, 2, 1.0), 12)
    with torch.no_grad():
        head.fc.weight[-1] = torch.randn(DIM)
    weight, bias = head.folded()
    clips = torch.from_numpy(np.stack([features.times(n)[0] for n in range(12)])).double()
    found = AttentionOverFrames(2)(clips @ weight.T + bias)
    assert np.abs(found.numpy() - logits_of(head, features, range(12))).max() < 1e-4


@pytest.mark.slow
def test_its_epochs_go_to_the_journal_of_the_run_and_the_same_seed_gives_the_same_head(tmp_path: Path) -> None:
    times, labels = one_telling_time(16)
    features = store_of(tmp_path / "store", times)
    linear = fit_linear(features.pooled()[:, 0], labels, 2, 1.0)
    heads = [fit_attentive(features, np.arange(16), labels, linear, seed=3, folder=folder)
             for folder in (tmp_path / "run", None)]  # fmt: skip
    epochs = Journal(tmp_path / "run").events("epoch")
    assert len(epochs) == 40
    assert {"train_loss", "train_top1"} <= set(epochs[0])
    assert not any(key.startswith("val_") for key in epochs[0])
    assert torch.equal(heads[0].fc.weight, heads[1].fc.weight)


def test_of_a_single_class_there_is_nothing_to_train(tmp_path: Path) -> None:
    times, _ = one_telling_time(6)
    features, labels = store_of(tmp_path / "store", times), np.ones(6, dtype=int)
    linear = fit_linear(features.pooled()[:, 0], labels, 2, 1.0)
    head = fit_attentive(features, np.arange(6), labels, linear)
    assert (logits_of(head, features, range(6)).argmax(axis=1) == 1).all()
