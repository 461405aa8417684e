"""``ssan extract``."""

import os
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from ssan.cli import options
from ssan.cli.screen import print, tell
from ssan.errors import UsageError

if TYPE_CHECKING:
    from ssan.datasets.source import DataSource
    from ssan.features.extract import Encoder


@options.reads_data
def extract(
    model: options.ModelOrName,
    out: Annotated[str, typer.Option("--out", "-o", help="Folder of the features; what is there is not done again.")],
    split: options.Split = "all",
    window_seconds: Annotated[
        float | None, typer.Option(help="Length of a window.  [default: by the model]", show_default=False)
    ] = None,
    stride_seconds: Annotated[
        float | None,
        typer.Option(
            help="From window to window.  [default: 2/3, so 1.5 vectors a second; 1 for single frames]",
            show_default=False,
        ),
    ] = None,
    whole_videos: Annotated[
        bool, typer.Option("--whole-videos", help="All of each video, also where the list names parts.")
    ] = False,
    init: Annotated[
        str | None,
        typer.Option(
            help="Weights for a name from `ssan models`: a file, a name of `ssan weights list`, or `imagenet`."
        ),
    ] = None,
    batch: Annotated[int, typer.Option(min=1, max=4096, help="Windows of a video at a time.")] = 16,
    *,
    source: "DataSource",
    yes: options.Yes = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
    seed: options.Seed = 0,
    device: options.Device = "auto",
    workers: options.Workers = None,
) -> int:
    """Describe videos by a frozen model's features, a vector for each window of time, for retrieval.

    Several captions of one video, or of one part of it, are one entry. Started with torchrun or srun, each process does
    its share, writes a part of its own, and answers for it.
    """
    from ssan.features.extract import Rate, extract, usual_rate
    from ssan.processes import processes

    processes_here = processes()
    where: str = options.choose_device(device)
    if where == "cuda" and processes_here.world > 1:
        where = f"cuda:{processes_here.local_rank}"
    options.have(model if init is None else init, yes=yes, quiet=quiet)
    encoder = _encoder(model, init, where)
    usual = usual_rate(encoder.preprocess)
    rate = Rate(
        usual.window_seconds if window_seconds is None else window_seconds,
        usual.stride_seconds if stride_seconds is None else stride_seconds,
    )
    try:
        done = extract(
            encoder,
            source.read(split),
            out,
            rate,
            whole_videos=whole_videos,
            batch=batch,
            workers=options.choose_workers(workers, processes_here.cores),
            processes=processes_here,
            data={**options.described(source), "split": split},
            quiet=quiet,
        )
    except KeyboardInterrupt:
        return options.interrupted(f"what is in {out} is kept, the same command goes on from there")
    first, share = processes_here.first, ""
    for error in done.failed if not (json and first) else ():
        tell(f"{error.code}: {error}")
    if processes_here.world > 1:
        share = f" (process {processes_here.rank + 1} of {processes_here.world})"
    line = (
        f"{out}: {done.num_videos} videos, {done.num_vectors} vectors of {done.dim}, {rate.vectors_per_second:g} a "
        f"second; {done.num_done_before} were there, {len(done.failed)} failed; reading {done.read_seconds:.1f} s, "
        f"computing {done.compute_seconds:.1f} s, writing {done.write_seconds:.1f} s{share}"
    )
    if first:
        answer = {**done.as_dict(), "process": processes_here.rank, "processes": processes_here.world}
        options.show(answer, lambda _: [line], as_json=json)
    else:
        print(line, file=sys.stderr)
    return options.SOME_FAILED if done.failed else options.DONE


def _encoder(model: str, init: str | None, device: str) -> "Encoder":
    """The network that the words name: a file of ours, or a name with weights from elsewhere."""
    from ssan.features.extract import Encoder, encoder_of_weights
    from ssan.models.catalogue import MODELS
    from ssan.weights.open_model import open_model

    if init is not None:
        if os.path.exists(model) and model not in MODELS:
            raise UsageError("a model file has its weights already; leave out --init", path=model)
        return encoder_of_weights(model, init, device)
    if model in MODELS and not os.path.exists(model):
        raise UsageError(
            f"{model} is the name of a network without weights; name a model file or a run's folder, or give --init "
            "with a file of weights, a name of `ssan weights list`, or --init imagenet"
        )
    labeller = open_model(model, device)
    return Encoder(labeller.model, labeller.preprocess, labeller.hash, labeller.name, labeller.model.num_features)
