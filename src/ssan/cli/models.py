"""``ssan models``."""

import os
from collections.abc import Iterator
from typing import Annotated, Any

import typer

from ssan.cli import options
from ssan.errors import UsageError


def models(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME]...", help="All of them, if none is named.")
    ] = None,
    cost: Annotated[
        bool, typer.Option("--cost", help="Also measure memory and time of one clip on this machine's CPU.")
    ] = False,
    runs: Annotated[int, typer.Option(min=1, help="Inferences that --cost takes the median of.")] = 3,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> int:
    """List the models with their parameters and multiply-adds."""
    from ssan.models.catalogue import MODELS
    from ssan.models.cost import catalogue_rows

    for name in names or ():
        if name not in MODELS and os.path.exists(name):
            raise UsageError(f"it is a path, and no name of a network; `ssan info {name}` says what it is", path=name)
    rows = catalogue_rows(names or ())
    if cost:
        _measure(rows, runs, quiet)
    options.show({"models": rows}, lambda _: _lines(rows), as_json=json)
    return options.DONE


def _measure(rows: list[dict[str, Any]], runs: int, quiet: bool) -> None:
    from ssan.models.cost import measure

    with options.progress(rows, total=len(rows), what="measuring", unit="model", quiet=quiet) as bar:
        for row in bar:
            bar.set_postfix_str(row["name"])
            row.update(measure(row["name"], runs=runs))


def _lines(rows: list[dict[str, Any]]) -> Iterator[str]:
    measured = "latency_seconds" in rows[0]
    width = max(20, *(len(row["name"]) for row in rows))
    more = f" {'kept in training':>16} {'in inference':>12} {'latency':>9}" if measured else ""
    yield f"{'name':{width}} {'params':>9} {'multiply-adds':>13}{more}  input          order  layer"
    for row in rows:
        size = f"{row['num_frames']} x {row['size_px']} px"
        if measured:
            kept, most = (row[f"{work}_activation_bytes"] / 1e6 for work in ("train", "inference"))
            more = f" {kept:13.1f} MB {most:9.1f} MB {row['latency_seconds']:7.3f} s"
        looks = f"{row['layer']} over {row['over']}" if row["over"] else row["layer"] or row["consensus"] or ""
        yield (
            f"{row['name']:{width}} {row['params'] / 1e6:7.2f} M {row['macs'] / 1e9:11.2f} G{more}  {size:13}  "
            f"{'yes' if row['knows_order'] else 'no':5}  {looks}".rstrip()
        )
    if measured:
        threads, runs = rows[0]["latency_threads"], rows[0]["latency_runs"]
        yield f"one clip on the CPU, {threads} thread{'s' if threads > 1 else ''}; latency the median of {runs}"
