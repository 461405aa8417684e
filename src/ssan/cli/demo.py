"""``ssan demo``."""

import os
from collections.abc import Iterator
from typing import Annotated, Any

import typer

from ssan.cli import options
from ssan.processes import num_cores


def demo(
    context: typer.Context,
    out: Annotated[str, typer.Option(help="Folder for the videos, both runs, results.json and the page.")] = "demo-out",
    videos: Annotated[int, typer.Option(min=120, help="Videos to render.")] = 2000,
    epochs: Annotated[int | None, typer.Option(min=1, help="Of both trainings; the recipes' own by default.")] = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
    seed: options.Seed = 0,
    device: options.Device = "cpu",
    workers: options.Workers = None,
) -> int:
    """Train a TSN and an SSAN on rendered videos, on the CPU, and show on one page what they learn."""
    from ssan.demo import run_demo
    from ssan.errors import UsageError
    from ssan.files import one_writer

    if device == "cuda":
        raise UsageError(
            "the demo runs on the CPU; train on a GPU with `ssan train --recipe demo/ssan_tiny --device cuda`"
        )
    context.with_resource(one_writer(out, folder=True))
    cores = num_cores() if workers is None else workers + 1
    results = run_demo(out, num_videos=videos, epochs=epochs, seed=seed, quiet=quiet, cores=cores)
    options.show(results, lambda _: _lines(results, os.path.join(out, "index.html")), as_json=json)
    return options.DONE


def _lines(results: dict[str, Any], page: str) -> Iterator[str]:
    yield f"{'':10} {'top-1':>7} {'right pair':>11} {'direction':>10} {'reversed':>9} {'shuffled':>9}"
    for name, row in results["models"].items():
        within = "" if row["within_pair_top1"] is None else f"{row['within_pair_top1']:.3f}"
        yield (
            f"{name:10} {row['top1']:7.3f} {row['pair_top1']:11.3f} {within:>10} {row['reversed_top1']:9.3f} "
            f"{row['shuffled_top1']:9.3f}"
        )
    yield f"{results['num_test']} test videos. Open {page}"
