"""Training a joint space: pairs a second and memory of ours beside reference 22's own loop, on the same random numbers.

    python -m benchmarks.pages.retrieval_training --howto100m CHECKOUT

The checkout is that of antoine77340/howto100m, which is no part of the package; its loader, network and loss are run as
its train.py runs them, with one reading process, on a CPU (``Tensor.cuda`` gives back the tensor itself), and with a
stand-in for gensim's word vectors. It needs pandas. Ours is `ssan retrieval train`'s own module, pairs, loss and
optimizer. Both make whole steps: pairs drawn, forward, backward, Adam. They take turns, in processes of their own, so
that the memory of each can be told. Figures go to benchmarks/results/retrieval_training.json.
"""

import argparse
import importlib.util
import itertools
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.timing import RESULTS, machine
from ssan.files import write_json

NUM_VIDEOS, CAPTIONS, NUM_WORDS, WORD_DIM, STREAM = 1500, 20, 5000, 300, 2048
# name: width of the joint space, pairs of a batch, words of a caption.
SETTINGS = {
    "fine-tuning, the code's default width": (2048, 256, 20),
    "fine-tuning, the paper's width": (4096, 256, 20),
    "a batch as large as in pre-training": (4096, 2048, 20),
}


def make(root: Path) -> None:
    """Random features, captions of words as frequent as words are, and vectors of the words."""
    rng = np.random.default_rng(0)
    names = [f"video{n}" for n in range(NUM_VIDEOS)]
    tensors = {
        kind: {name: torch.from_numpy(rng.standard_normal(STREAM).astype(np.float16)) for name in names}
        for kind in ("2d", "3d")
    }
    torch.save(tensors, root / "features.pth")
    frequent = 1 / np.arange(1, NUM_WORDS + 1)
    sentences = []
    for name in names:
        for _ in range(CAPTIONS):
            words = rng.choice(NUM_WORDS, size=rng.integers(5, 16), p=frequent / frequent.sum())
            sentences.append(
                {"video_id": name, "caption": " ".join(f"word{w}" for w in words), "sen_id": len(sentences)}
            )
    videos = [{"video_id": name, "category": 0, "url": "", "split": "train", "id": n} for n, name in enumerate(names)]
    (root / "MSRVTT_data.json").write_text(json.dumps({"videos": videos, "sentences": sentences}))
    (root / "train.csv").write_text("video_id\n" + "\n".join(names) + "\n")
    np.save(root / "words.npy", rng.standard_normal((NUM_WORDS, WORD_DIM)).astype(np.float32))


class Words:
    """What reference 22's loader asks of gensim: which words there are, and the vectors of a list of them."""

    def __init__(self, matrix: np.ndarray) -> None:
        self.matrix = matrix
        self.vocab = {f"word{n}": n for n in range(len(matrix))}

    def __getitem__(self, words: list[str]) -> np.ndarray:
        return np.vstack([self.matrix[self.vocab[word]] for word in words])


def module(folder: str, name: str) -> ModuleType:
    """One file of a checkout, by itself."""
    spec = importlib.util.spec_from_file_location(f"peer_{name}", Path(folder, f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


def steps_of_theirs(root: Path, checkout: str, dim: int, batch: int, words: int) -> Any:
    """Their loop, step by step: yields the loss."""
    Tensor.cuda = lambda self, *_, **__: self  # type: ignore[assignment,method-assign]
    vectors = Words(np.load(root / "words.npy"))
    dataset = module(checkout, "msrvtt_dataloader").MSRVTT_TrainDataLoader(
        csv_path=root / "train.csv", json_path=root / "MSRVTT_data.json", features_path=root / "features.pth",
        we=vectors, max_words=words, we_dim=WORD_DIM,
    )  # fmt: skip
    loader = torch.utils.data.DataLoader(
        _Repeated(dataset, batch), batch_size=batch, num_workers=1, shuffle=True, drop_last=True
    )
    net = module(checkout, "model").Net(
        video_dim=2 * STREAM, embd_dim=dim, we_dim=WORD_DIM, n_pair=1, max_words=words, sentence_dim=-1
    )
    net.train()
    loss = module(checkout, "loss").MaxMarginRankingLoss(
        margin=0.1, negative_weighting=1, batch_size=batch, n_pair=1, hard_negative_rate=0.5
    )
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-4)
    while True:
        for data in loader:
            video, text = data["video"].cuda(), data["text"].cuda()
            video = video.view(-1, video.shape[-1])
            text = text.view(-1, text.shape[-2], text.shape[-1])
            optimizer.zero_grad()
            value = loss(net(video, text))
            value.backward()
            optimizer.step()
            yield value.item()


class _Repeated(torch.utils.data.Dataset[Any]):
    """A data set of fewer videos than a batch has pairs, some times over."""

    def __init__(self, dataset: Any, batch: int) -> None:
        self.dataset, self.times = dataset, max(1, -(-4 * batch // len(dataset)))

    def __len__(self) -> int:
        return self.times * len(self.dataset)

    def __getitem__(self, index: int) -> Any:
        return self.dataset[index % len(self.dataset)]


def steps_of_ours(root: Path, dim: int, batch: int, words: int) -> Any:
    """Ours, step by step, of the same captions and features: yields the loss."""
    from ssan.datasets import read
    from ssan.features.streams import open_features
    from ssan.recipe import make_retrieval_recipe
    from ssan.retrieval.losses import LOSSES
    from ssan.retrieval.model_file import build_space
    from ssan.retrieval.pairs import CaptionPairs, as_it_is, captioned, features_of
    from ssan.retrieval.text import Vocabulary
    from ssan.training.batches import Batches, BatchPlan
    from ssan.training.optim import make_optimizer

    recipe = make_retrieval_recipe(
        {"text": "maxpool", "dim": dim, "batch": batch, "max_words": words, "features": "2d+3d", "lr": 1e-4}
    )
    samples = read("msrvtt", str(root), "train", protocol="full")
    vocabulary = Vocabulary([f"word{n}" for n in range(NUM_WORDS)], recipe.tokens)
    matrix = np.concatenate([np.zeros((1, WORD_DIM), np.float32), np.load(root / "words.npy")])
    streams = open_features(root / "features.pth")
    model: nn.Module = build_space(recipe, vocabulary, matrix, [STREAM, STREAM]).train()
    data = captioned(samples, streams, lambda texts: vocabulary.encode(texts, words))
    pairs = CaptionPairs(data, features_of(streams, data.clips, "max"), "one" if batch <= NUM_VIDEOS else "all", 0)
    plan = BatchPlan(len(pairs), batch, seed=0, shuffle=True)
    optimizer = make_optimizer(model, "adamw", lr=1e-4, momentum=0.0, weight_decay=0.0, fused=True)
    while True:
        for inputs, groups in Batches(pairs, plan, collate=as_it_is):
            optimizer.zero_grad()
            value = LOSSES["max_margin"](*model(inputs), groups, margin=0.1, negative_weighting=False)
            value.backward()
            optimizer.step()
            yield value.item(), len(groups)


def child(arguments: argparse.Namespace) -> None:
    """Make a first step, then wait to be told: each line on standard input is one step, answered by its figures."""
    torch.manual_seed(0)
    random.seed(0)
    dim, batch, words = SETTINGS[arguments.setting]
    base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if arguments.child == "theirs":
        steps = steps_of_theirs(arguments.root, arguments.howto100m, dim, batch, words)
    else:
        steps = steps_of_ours(arguments.root, dim, batch, words)
    for _ in itertools.chain(["first"], sys.stdin):
        begin, own = time.perf_counter(), time.process_time()
        found = next(steps)
        loss, num = found if isinstance(found, tuple) else (found, batch)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - base
        answer = {
            "seconds": time.perf_counter() - begin, "processor_seconds": time.process_time() - own, "pairs": num,
            "loss": loss, "mb": peak / 1024,
        }  # fmt: skip
        print(json.dumps(answer), flush=True)


def compare(root: Path, checkout: str, setting: str, rounds: int) -> dict[str, Any]:
    """Both take turns, a step each, in processes of their own; the first step of each is not counted."""
    processes = {}
    for name in ("theirs", "ours"):
        processes[name] = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.pages.retrieval_training", "--howto100m", checkout, "--child", name,
             "--setting", setting, "--root", root],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=dict(os.environ),
        )  # fmt: skip
        assert processes[name].stdout is not None
        processes[name].stdout.readline()  # type: ignore[union-attr]
    found: dict[str, list[dict[str, float]]] = {name: [] for name in processes}
    for _ in range(rounds):
        for name, process in processes.items():
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write("step\n")
            process.stdin.flush()
            found[name].append(json.loads(process.stdout.readline()))
    for process in processes.values():
        process.terminate()
        process.wait()
    rates = {name: [step["pairs"] / step["seconds"] for step in steps] for name, steps in found.items()}
    dim, batch, words = SETTINGS[setting]
    return {
        "setting": setting, "dim": dim, "batch": batch, "max_words": words, "rounds": rounds,
        "pairs_a_second_over_theirs": median(o / t for o, t in zip(rates["ours"], rates["theirs"], strict=True)),
        "of_processor_seconds": median(
            t["processor_seconds"] / t["pairs"] * o["pairs"] / o["processor_seconds"]
            for o, t in zip(found["ours"], found["theirs"], strict=True)
        ),
        "mb": {name: round(max(step["mb"] for step in steps)) for name, steps in found.items()},
        "first_losses": {name: steps[0]["loss"] for name, steps in found.items()},
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--howto100m", required=True)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--settings", nargs="+", default=list(SETTINGS), choices=list(SETTINGS))
    parser.add_argument("--child", choices=["theirs", "ours"], help=argparse.SUPPRESS)
    parser.add_argument("--setting", help=argparse.SUPPRESS)
    parser.add_argument("--root", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        child(arguments)
        return
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        make(Path(folder))
        for setting in arguments.settings:
            rounds = arguments.rounds if SETTINGS[setting][1] <= 256 else min(3, arguments.rounds)
            rows.append(compare(Path(folder), arguments.howto100m, setting, rounds))
            print(json.dumps(rows[-1]), flush=True)
    write_json(RESULTS / "retrieval_training.json", {"machine": machine(), "rows": rows})


if __name__ == "__main__":
    main()
