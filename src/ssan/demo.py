"""The demo: render videos whose classes differ by direction, train two networks, and show what each makes of them."""

import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import numpy as np

from ssan.commands import CommandRunner
from ssan.datasets import Samples, read
from ssan.errors import TrainingError
from ssan.files import write_json, writing
from ssan.models.attended import attended
from ssan.recognition.evaluate import Protocol, score
from ssan.recognition.predict import predict
from ssan.report.html import render_page
from ssan.report.matrix import confusion_table
from ssan.report.overlay import moving_positions, overlay
from ssan.report.plots import curves_plot, frame_strip
from ssan.synthetic.dataset import keep_number, render
from ssan.training.journal import read_journal
from ssan.training.metrics import accuracy, confusion, pair_accuracies, wilson_interval
from ssan.weights.classifier_file import load_labeller
from ssan.weights.labeller import Labeller

MODELS = ("tsn_tiny", "ssan_tiny")
NUM_CLASSES = 6
SIZE_PX = 48
NUM_UNSEEN = 12
UNSEEN_SEED_OFFSET = 1_000_003


def run_demo(
    out: str | Path, *, num_videos: int, epochs: int | None, seed: int, quiet: bool, cores: int
) -> dict[str, Any]:
    """Render, train, evaluate, label; write ``results.json`` and ``index.html``; return the results.

    A folder in which this was begun with the same arguments is gone on with. The two networks train side by side,
    each in a process of its own.

    :param num_videos: rendered in all; 70 % are for training, 15 % for validation, 15 % for the figures.
    :param epochs: of both trainings; the recipes' own where None.
    :param cores: processes that may compute at a time.
    """
    out = Path(out)
    say: Callable[[str], None] = (lambda _: None) if quiet else (lambda text: print(text, file=sys.stderr, flush=True))
    say(f"1/4 rendering {num_videos} videos of {NUM_CLASSES} classes, in pairs that differ by direction alone")
    keep_number(out / "data", out.glob("*/journal.jsonl"), num_videos, "--videos")
    started = time.monotonic()
    for folder, number, its_seed in (("data", num_videos, seed), ("unseen", NUM_UNSEEN, seed + UNSEEN_SEED_OFFSET)):
        render(str(out / folder), "order", number, its_seed, num_classes=NUM_CLASSES, size_px=SIZE_PX, workers=cores)
    render_seconds = time.monotonic() - started
    data = str(out / "data")

    say(f"2/4 training {' and '.join(MODELS)} from random weights")
    train_seconds = _train_all(out, data, epochs, seed, quiet, cores)

    test, train = read("sthv2", data, "test"), read("sthv2", data, "train")
    say(f"3/4 evaluating both on {len(test)} videos kept apart, with the frames in order, reversed and shuffled")
    started = time.monotonic()
    labellers = {name: load_labeller(out / name) for name in MODELS}
    scores = {name: _scores(name, labeller, test, seed, quiet) for name, labeller in labellers.items()}
    pairs = [(2 * n, 2 * n + 1) for n in range(len(test.classes) // 2)]
    labels = np.array([sample.label_index for sample in test])
    figures = {name: _figures(scores[name], labels, pairs) for name in MODELS}
    evaluate_seconds = time.monotonic() - started

    say(f"4/4 labelling {NUM_UNSEEN} videos rendered from another seed")
    predictions, shown = _label_unseen(read("sthv2", str(out / "unseen"), "all"), labellers)
    results = {
        "schema": 1,
        "render_seconds": round(render_seconds, 3),
        "train_seconds": train_seconds,
        "evaluate_seconds": round(evaluate_seconds, 3),
        "num_train": len(train),
        "num_test": len(test),
        "models": figures,
        "predictions": predictions,
    }
    write_json(out / "results.json", results)
    answers = {name: scores[name]["as_sampled"].argmax(axis=1) for name in MODELS}
    _write_page(out, results, test, answers, shown, seed)
    return results


def _scores(name: str, labeller: Labeller, test: Samples, seed: int, quiet: bool) -> dict[str, np.ndarray]:
    """Scores of the test videos by the order of their frames."""
    found = score(labeller, test, Protocol(), probe=True, batch=32, workers=0, seed=seed, quiet=quiet)
    if found.errors or found.missing:
        raise TrainingError(
            f"{name}: {len(found.errors) + len(found.missing)} test videos could not be read; "
            "remove the folder and render again"
        )
    return found.scores


def _write_page(
    out: Path,
    results: dict[str, Any],
    test: Samples,
    answers: dict[str, np.ndarray],
    shown: list[dict[str, Any]],
    seed: int,
) -> None:
    """The page ``index.html`` of the results, and of what both networks answered to the test videos."""
    labels = np.array([sample.label_index for sample in test])
    right = {name: round(results["models"][name]["top1"] * len(test)) for name in MODELS}
    page = render_page(
        "demo.html.j2",
        results=results,
        intervals={name: wilson_interval(right[name], len(test)) for name in MODELS},
        classes=test.classes,
        strips=shown,
        confusions={
            name: confusion_table(confusion(answers[name], labels, len(test.classes)), test.classes, paired=True)
            for name in MODELS
        },
        curves=curves_plot({name: _epochs(out / name) for name in MODELS}),
        seed=seed,
    )
    with writing(out / "index.html") as handle:
        handle.write(page)


def _train_all(out: Path, data: str, epochs: int | None, seed: int, quiet: bool, cores: int) -> dict[str, float]:
    """Train every model in a process of its own, at most ``cores`` at a time; return the seconds of each."""
    with ThreadPoolExecutor(cores) as pool, CommandRunner(threads=1) as runner:
        slower_first = reversed(MODELS)
        futures = [pool.submit(_train, runner, name, out, data, epochs, seed, quiet, cores) for name in slower_first]
        for future in as_completed(futures):
            future.result()
    # Epoch by epoch, so that a demo that was interrupted and gone on with tells the same time.
    return {
        name: round(sum({row["epoch"]: row["seconds"] for row in _epochs(out / name)}.values()), 3) for name in MODELS
    }


def _train(
    runner: CommandRunner, name: str, out: Path, data: str, epochs: int | None, seed: int, quiet: bool, cores: int
) -> None:
    """``ssan train`` with the demo's recipe, going on with what an earlier call has done.

    :raises TrainingError: it failed.
    """
    # The slower one gets a process that reads ahead, on the core that the other leaves idle.
    workers = 1 if name == "ssan_tiny" and cores > 1 else 0
    try:
        runner.run(
            "train", "--recipe", f"demo/{name}", "--resume", "--device", "cpu", "--data", data, "--format", "sthv2",
            "--out", str(out / name), "--seed", str(seed), "--workers", str(workers),
            *(["--quiet"] if quiet else []), *([f"epochs={epochs}"] if epochs else []),
        )  # fmt: skip
    except TrainingError as error:
        raise TrainingError(f"training {name} failed; {error.message}", path=str(out / name)) from None


def _epochs(folder: Path) -> list[dict[str, Any]]:
    return read_journal(folder / "journal.jsonl", "epoch")


def _figures(scores: dict[str, np.ndarray], labels: np.ndarray, pairs: Sequence[tuple[int, int]]) -> dict[str, Any]:
    pair, within = pair_accuracies(scores["as_sampled"].argmax(axis=1), labels, pairs)
    return {
        "top1": accuracy(scores["as_sampled"], labels),
        "pair_top1": pair,
        "within_pair_top1": within,
        "reversed_top1": accuracy(scores["reversed"], labels),
        "shuffled_top1": accuracy(scores["shuffled"], labels),
    }


def _label_unseen(unseen: Samples, labellers: dict[str, Labeller]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """What the SSAN says of each video, for the results; and frames with what every model says, for the page."""
    predictions, shown = [], []
    for sample in sorted(unseen, key=lambda sample: (sample.label_index or 0, sample.id)):
        answers = {name: predict(labeller, sample.path, top=1) for name, labeller in labellers.items()}
        for answer in answers.values():
            if not answer["ok"]:
                raise TrainingError(
                    f"a rendered video cannot be read: {answer['error']['message']}; render again", path=sample.path
                )
        best = {name: answer["top"][0] for name, answer in answers.items()}
        predictions.append(
            {
                "path": sample.path,
                "label": sample.label,
                "predicted": best["ssan_tiny"]["label"],
                "score": best["ssan_tiny"]["score"],
            }
        )
        views, _ = labellers["ssan_tiny"].preprocess.test_views(sample.path)
        queries = moving_positions(views[0])
        *_, last = attended(labellers["ssan_tiny"].model, views[0], queries)
        assert last.positions is not None
        shown.append(
            {
                "label": sample.label,
                "caption": sample.caption,
                "frames": frame_strip(views[0]),
                "attention": frame_strip(overlay(views[0], last.positions, queries)),
                "answers": best,
            }
        )
    return predictions, shown
