"""What the space part of SSA is good for: TSN, TSM, SSA, and SSA without spatial attention on the `relation` task.

    python -m benchmarks.pages.relation --work runs/relation --levels near far --seeds 3

Renders each level once, trains every variant with every seed through the command line, one thread a run, evaluates on
the test split with the order probe, and writes benchmarks/results/relation.json and docs/relation.md. Runs that are
finished are not repeated; one that was interrupted goes on.
"""

import argparse
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.pages.trainings import ROOT, render, rows_of, run_all, train_and_evaluate
from ssan.files import writing
from ssan.synthetic.dataset import LEVELS, Level

RESULTS = ROOT / "benchmarks" / "results" / "relation.json"
PAGE = ROOT / "docs" / "relation.md"
NUM_VIDEOS, NUM_CLASSES = 2900, 4
VARIANTS = {
    "tsn_tiny": "TSN",
    "tsm_tiny": "TSM",
    "ssan_without_space_tiny": "SSA without spatial attention",
    "ssan_tiny": "SSA",
}


def run(work: Path, level: str, variant: str, seed: int) -> dict[str, Any]:
    """Train and evaluate one variant with one seed; its figures."""
    return train_and_evaluate(f"relation/{variant}", work / level / "data", work / level / f"{variant}_{seed}", seed)


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


def page() -> str:
    """The page: docs/relation.head.md, which says what the figures mean, and the tables."""
    head = (ROOT / "docs" / "relation.head.md").read_text(encoding="utf-8")
    return head.rstrip() + "\n\n" + table(rows_of(RESULTS)).rstrip() + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, default=Path("runs/relation"))
    parser.add_argument("--levels", nargs="+", required=True)
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=list(VARIANTS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--videos", type=int, default=NUM_VIDEOS)
    parser.add_argument("--classes", type=int, default=NUM_CLASSES)
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time")
    arguments = parser.parse_args()
    for level in arguments.levels:
        render(arguments.work / level / "data", "relation", level, arguments.videos, arguments.classes)
    wanted = [
        (level, variant, seed)
        for level in arguments.levels
        for seed in range(arguments.seeds)
        for variant in arguments.variants
    ]
    run_all(RESULTS, ("level", "variant", "seed"), wanted, partial(run, arguments.work), arguments.jobs)
    with writing(PAGE) as handle:
        handle.write(page())


if __name__ == "__main__":
    main()
