"""``ssan train``."""

import sys
from typing import Annotated

import typer

from ssan.cli import options
from ssan.cli.screen import print
from ssan.errors import SsanError, UsageError


def train(
    data: options.Data,
    out: Annotated[str, typer.Option(help="Folder of the run.")],
    overrides: Annotated[list[str] | None, typer.Argument(metavar="KEY=VALUE...", help="Change the recipe.")] = None,
    model: Annotated[str | None, typer.Option(help="A name from `ssan models`, with the paper's recipe.")] = None,
    recipe: Annotated[str | None, typer.Option(help="A YAML file, or a name from `ssan recipes list`.")] = None,
    init: Annotated[
        str | None, typer.Option(help="Weights to start from: a file, a run's folder, or `imagenet`.")
    ] = None,
    format: options.Format = "auto",
    annotations: options.Annotations = None,
    videos: options.Videos = None,
    splits: options.Splits = None,
    val_groups: options.ValGroups = None,
    val_fraction: options.ValFraction = None,
    fold: options.Fold = None,
    groups: options.Groups = None,
    reader: options.Reader = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out.")] = False,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Leave out videos that cannot be used.")] = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
    seed: Annotated[int | None, typer.Option(min=0, help="Of every random draw; the recipe's by default.")] = None,
    device: options.Device = "auto",
    workers: options.Workers = None,
) -> int:
    """Train a model on labelled videos and keep the best.

    KEY=VALUE after the options changes the recipe, such as epochs=20 or layer.channel_branch=false.
    """
    from ssan.processes import processes
    from ssan.recipe import make_recipe, read_recipe
    from ssan.recognition.train import train as run
    from ssan.shipped import find_recipe
    from ssan.training.callbacks import InterruptedRun

    if (model is None) == (recipe is None):
        raise UsageError("give either --model NAME or --recipe FILE")
    changes = [*([f"init={init}"] if init else []), *([f"seed={seed}"] if seed is not None else []), *(overrides or [])]
    chosen = read_recipe(find_recipe(recipe), changes) if recipe else make_recipe({"model": model}, changes)
    place = processes()
    source = options.data_source(
        data, format, annotations, videos, splits, val_groups, reader, val_fraction=val_fraction, fold=fold,
        groups=groups,
    )  # fmt: skip
    try:
        answer = run(
            chosen,
            source,
            out,
            resume=resume,
            skip_bad=skip_bad,
            device=options.choose_device(device),
            workers=options.choose_workers(workers, place.cores),
            quiet=quiet,
        )
    except InterruptedRun:
        if place.first:
            print(f"ssan: interrupted; the run is saved in {out}, go on with --resume", file=sys.stderr)
        return options.INTERRUPTED
    except SsanError as error:
        if place.world > 1:  # each process tells of its own fault, which the others need not have
            error.message += f" (process {place.rank + 1} of {place.world})"
        raise
    done = options.SOME_FAILED if answer["num_skipped"] else options.DONE
    if not place.first:
        return done  # the first process speaks for all
    if json:
        options.show_json({"schema": 1, **answer})
    else:
        low = f"{answer['val_top1']:.4f} top-1 on {answer['num_val']} validation videos, epoch {answer['best_epoch']}"
        print(f"{answer['model']}: {low}, {answer['train_seconds']:.0f} s")
    return done
