"""``ssan train``."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from ssan.cli import options
from ssan.errors import SsanError, UsageError

if TYPE_CHECKING:
    from ssan.datasets.source import DataSource


@options.reads_data
def train(
    out: Annotated[str, typer.Option(help="Folder of the run.")],
    overrides: options.Overrides = None,
    model: Annotated[
        str | None, typer.Option(help="A name from `ssan models`, with the paper's recipe unless --recipe names one.")
    ] = None,
    recipe: options.Recipe = None,
    init: Annotated[
        str | None,
        typer.Option(
            help="Weights to start from: a file, a run's folder, a name of `ssan weights list`, or `imagenet`."
        ),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out.")] = False,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Leave out videos that cannot be used.")] = False,
    *,
    source: "DataSource",
    yes: options.Yes = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
    seed: options.RecipeSeed = None,
    device: options.Device = "auto",
    workers: options.Workers = None,
) -> int:
    """Train a model on labelled videos and keep the best.

    KEY=VALUE after the options changes the recipe, such as epochs=20 or layer.channel_branch=false; `ssan recipes keys`
    explains the keys.
    """
    from ssan.processes import processes
    from ssan.recipe import make_recipe, read_recipe
    from ssan.recognition.train import train
    from ssan.shipped import find_recipe
    from ssan.training.callbacks import InterruptedRun

    if model is None and recipe is None:
        raise UsageError("give --model NAME or --recipe FILE; with both, the recipe is of that model")
    said = {"model": model if recipe else None, "init": init, "seed": seed}
    changes = [*(f"{key}={value}" for key, value in said.items() if value is not None), *(overrides or [])]
    chosen = read_recipe(find_recipe(recipe), changes) if recipe else make_recipe({"model": model}, changes)
    if not resume:  # a run that goes on has its weights
        options.have(chosen.init, yes=yes, quiet=quiet)
    processes_here = processes()
    try:
        answer = train(
            chosen,
            source,
            out,
            resume=resume,
            skip_bad=skip_bad,
            device=options.choose_device(device),
            workers=options.choose_workers(workers, processes_here.cores),
            quiet=quiet,
        )
    except InterruptedRun:
        if processes_here.first:
            return options.interrupted(f"the run is saved in {out}, go on with --resume")
        return options.INTERRUPTED
    except SsanError as error:
        if processes_here.world > 1:  # each process tells of its own fault, which the others need not have
            error.message += f" (process {processes_here.rank + 1} of {processes_here.world})"
        raise
    if processes_here.first:  # it speaks for all
        options.show(answer, _lines, as_json=json)
    return options.SOME_FAILED if answer["num_skipped"] else options.DONE


def _lines(answer: dict[str, Any]) -> list[str]:
    best = f"{answer['val_top1']:.4f} top-1 on {answer['num_val']} validation videos, epoch {answer['best_epoch']}"
    return [f"{answer['model']}: {best}, {answer['train_seconds']:.0f} s"]
