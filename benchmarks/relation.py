"""What the space part of SSA is good for: TSN, TSM, SSA, and SSA without spatial attention on the `relation` task.

    python benchmarks/relation.py --work runs/relation --levels near far --seeds 3

Renders each level once, trains every variant with every seed through the command line, one thread a run, evaluates on
the test split with the order probe, and writes benchmarks/results/relation.json and docs/relation.md. Runs that are
finished are not repeated; one that was interrupted goes on.
"""

import argparse
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from ssan.datasets.synthetic import LEVELS, Level
from ssan.files import read_json, write_json, writing
from ssan.recognition.metrics import pair_accuracies
from ssan.training.journal import read_journal

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "relation.json"
PAGE = ROOT / "docs" / "relation.md"
VARIANTS = {
    "tsn_tiny": "TSN",
    "tsm_tiny": "TSM",
    "ssan_without_space_tiny": "SSA without spatial attention",
    "ssan_tiny": "SSA",
}


def ssan(*arguments: str) -> str:
    """Run a command of ssan on one thread and return what it prints."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "ssan", *arguments], env=environment, stdout=subprocess.PIPE, text=True, check=True
    )
    return done.stdout


def run(work: Path, level: str, variant: str, seed: int) -> dict[str, Any]:
    """Train and evaluate one variant with one seed; a row of the results."""
    out, data = work / level / f"{variant}_{seed}", work / level / "data"
    scores = out / "test.npz"
    if not scores.exists():
        common = ["--data", str(data), "--workers", "0", "--seed", str(seed), "--quiet", "--json"]
        ssan("train", "--recipe", f"relation/{variant}", "--out", str(out), "--resume", *common)
        answer = json.loads(ssan("eval", str(out), "--split", "test", "--probe", "--scores", str(scores), *common))
        write_json(out / "test.json", answer)
    answer = read_json(out / "test.json")
    with np.load(scores) as content:
        predicted, labels = content["scores"].argmax(axis=1), content["labels"]
        pairs = [(2 * n, 2 * n + 1) for n in range(len(content["class_names"]) // 2)]
    pair, within = pair_accuracies(predicted, labels, pairs)
    (start,) = read_journal(out / "journal.jsonl", "start")[:1]
    epochs = {row["epoch"]: row for row in read_journal(out / "journal.jsonl", "epoch")}
    return {
        "level": level,
        "variant": variant,
        "seed": seed,
        "top1": answer["top1"],
        "pair_top1": pair,
        "within_pair_top1": within,
        "reversed_top1": answer["probe"]["reversed_top1"],
        "shuffled_top1": answer["probe"]["shuffled_top1"],
        "last_train_loss": epochs[max(epochs)]["train_loss"],
        "num_train": start["num_train"],
        "num_test": answer["num_scored"],
        "epochs": len(epochs),
        "train_seconds": round(sum(row["seconds"] for row in epochs.values()), 1),
    }


def parameters(level: str) -> str:
    """What sets a level apart from the easiest drawing: its fields that are not the defaults."""
    given, plain = asdict(LEVELS["relation"][level]), asdict(Level())
    return ", ".join(f"`{key}` {value}" for key, value in given.items() if value != plain[key])


def table(rows: list[dict[str, Any]]) -> str:
    """The results as Markdown: mean over seeds, and the seeds' own figures where they tell more than a mean."""
    lines = []
    for level in dict.fromkeys(row["level"] for row in rows):
        own = [row for row in rows if row["level"] == level]
        first = own[0]
        lines += [
            f"## Level `{level}`",
            "",
            f"{first['num_train']} training videos, {first['num_test']} test videos, {first['epochs']} epochs. "
            f"{parameters(level)}.",
            "",
            "| | top-1 | right pair | direction within it | each seed's top-1 | frames reversed | last training loss |",
            "|---|---|---|---|---|---|---|",
        ]
        for variant, title in VARIANTS.items():
            mine = sorted((row for row in own if row["variant"] == variant), key=lambda row: row["seed"])
            if not mine:
                lines.append(f"| {title} | | | | | | |")
                continue

            def mean(key: str, mine: list[dict[str, Any]] = mine) -> str:
                return f"{np.mean([row[key] for row in mine]):.3f}"

            seeds = ", ".join(f"{row['top1']:.3f}" for row in mine)
            lines.append(
                f"| {title} | {mean('top1')} | {mean('pair_top1')} | {mean('within_pair_top1')} | {seeds} | "
                f"{mean('reversed_top1')} | {mean('last_train_loss')} |"
            )
        lines += ["", space_part(own), ""]
    return "\n".join(lines)


def space_part(rows: list[dict[str, Any]]) -> str:
    """What spatial attention adds, seed by seed: the same seed gives both the same data order and the same start."""
    by_variant = {
        variant: {row["seed"]: row["top1"] for row in rows if row["variant"] == variant}
        for variant in ("ssan_tiny", "ssan_without_space_tiny")
    }
    whole, part = by_variant.values()
    gains = [whole[seed] - part[seed] for seed in sorted(whole.keys() & part.keys())]
    if not gains:
        return "Spatial attention on and off have not both been run."
    return (
        f"Top-1 with spatial attention less top-1 without it: {np.mean(gains):+.3f} in the mean, "
        f"{', '.join(f'{gain:+.3f}' for gain in gains)} by seed."
    )


def write_page() -> None:
    """Write docs/relation.md from the results and from docs/relation.head.md, which says what they mean."""
    head = (ROOT / "docs" / "relation.head.md").read_text(encoding="utf-8")
    with writing(PAGE) as handle:
        handle.write(head.rstrip() + "\n\n" + table(read_json(RESULTS)["runs"]).rstrip() + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, default=Path("runs/relation"))
    parser.add_argument("--levels", nargs="+", required=True)
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=list(VARIANTS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--videos", type=int, default=2900)
    parser.add_argument("--classes", type=int, default=4)
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time")
    arguments = parser.parse_args()
    for level in arguments.levels:
        ssan(
            "data", "synth", str(arguments.work / level / "data"), "--task", "relation", "--level", level, "--quiet",
            "--videos", str(arguments.videos), "--classes", str(arguments.classes), "--size-px", "48", "--seed", "0",
        )  # fmt: skip
    wanted = [
        (level, variant, seed)
        for level in arguments.levels
        for seed in range(arguments.seeds)
        for variant in arguments.variants
    ]
    known = {(row["level"], row["variant"], row["seed"]): row for row in _before()}
    with ThreadPoolExecutor(arguments.jobs) as pool:
        for row in pool.map(lambda job: run(arguments.work, *job), wanted):
            known[row["level"], row["variant"], row["seed"]] = row
            print(json.dumps(row), flush=True)
            write_json(RESULTS, {"schema": 1, "runs": list(known.values())})
    write_page()


def _before() -> list[dict[str, Any]]:
    return read_json(RESULTS)["runs"] if RESULTS.exists() else []


if __name__ == "__main__":
    main()
