"""``ssan probe``."""

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ssan.cli import options
from ssan.cli.screen import tell
from ssan.errors import UsageError

if TYPE_CHECKING:
    from ssan.datasets.source import DataSource
    from ssan.weights.labeller import Labeller


@options.reads_data
def probe(
    model: options.ModelOrName,
    out: Annotated[str, typer.Option(help="Folder of the run.")],
    head: Annotated[
        Literal["linear", "attentive"],
        typer.Option(help="Logistic regression, or attention over time before a linear layer."),
    ] = "linear",
    views: Annotated[int, typer.Option(min=1, max=1000, help="Clips of each video, spread over it.")] = 1,
    split: Annotated[str | None, typer.Option(help="Of the data's split, on which is measured: val or test.")] = None,
    protocol: Annotated[
        Literal["auto", "split", "groups", "folds"],
        typer.Option(help="The data's split, else each of --groups left out in turn, else folds."),
    ] = "auto",
    folds: Annotated[int, typer.Option(min=2, max=1000, help="How many, where folds are left out in turn.")] = 5,
    init: Annotated[
        str | None, typer.Option(help="Weights for a name from `ssan models`: a file, or `imagenet`.")
    ] = None,
    features: Annotated[
        str | None,
        typer.Option(
            metavar="DIR", help="Store of the features, to share.  [default: OUT/features]", show_default=False
        ),
    ] = None,
    no_curve: Annotated[bool, typer.Option("--no-curve", help="No heads on parts of the clips.")] = False,
    batch: Annotated[int, typer.Option(min=1, max=4096, help="Clips at a time.")] = 16,
    *,
    source: "DataSource",
    yes: options.Yes = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
    seed: options.Seed = 0,
    device: options.Device = "auto",
    workers: options.Workers = None,
) -> int:
    """Fit a classifier on a frozen model's features, and say how good it is and whether more clips would help.

    Measured on the data's own split, or, with --groups, on each group left out in turn. Takes seconds to minutes, and
    writes an ordinary model. What is computed once is kept: the same command goes on from there.
    """
    from ssan.probe.probe import probe
    from ssan.training.callbacks import InterruptedRun

    labeller = open_network(model, init, options.choose_device(device), yes=yes, quiet=quiet)
    try:
        answer = probe(
            labeller,
            source,
            out,
            head=head,
            way=protocol,
            split=split,
            num_folds=folds,
            views=views,
            store=features,
            curve=not no_curve,
            batch=batch,
            workers=options.choose_workers(workers),
            seed=seed,
            quiet=quiet,
        )
    except (KeyboardInterrupt, InterruptedRun):
        return options.interrupted("the features that were computed are kept, the same command goes on from there")
    options.show(answer, _lines, as_json=json)
    return options.SOME_FAILED if answer["num_skipped"] else options.DONE


def _lines(answer: dict[str, Any]) -> Iterator[str]:
    low, high = answer["interval95"]
    how = answer["protocol"]
    units = "groups" if how["kind"] == "leave_one_group_out" else "folds"
    if how["kind"] == "split":
        where = f"on {answer['num_test']} clips of {how['split']}"
    else:
        where = f"on {answer['num_test']} clips, {how['num_folds']} {units} left out in turn"
    yield f"{answer['model']}: {answer['top1']:.4f} top-1 [{low:.4f}, {high:.4f}] {where}"
    for point in answer["learning_curve"]:
        low, high = point["interval95"]
        yield f"  {point['num_train']} clips: {point['top1']:.4f} [{low:.4f}, {high:.4f}]"
    if answer["more_clips"]:
        yield answer["more_clips"]
    took = answer["seconds"]
    yield f"features {took['features']:.1f} s, heads {took['head']:.1f} s"
    for warning in answer["warnings"]:
        tell(f"warning: {warning}")


def open_network(model: str, init: str | None, device: str, *, yes: bool, quiet: bool) -> "Labeller":
    """The network that the words name: a file of ours, or a name with weights from elsewhere."""
    from ssan.models.catalogue import MODELS
    from ssan.probe.probe import labeller_of_weights
    from ssan.weights.open_model import open_model

    if init is not None:
        if model.startswith("hf:") or (os.path.exists(model) and model not in MODELS):
            what = "a model of transformers" if model.startswith("hf:") else "a model file"
            raise UsageError(f"{what} has its weights already; leave out --init", path=model)
        options.have(init, yes=yes, quiet=quiet)
        return labeller_of_weights(model, init, device)
    options.have(model, yes=yes, quiet=quiet)
    return open_model(model, device)
