"""``ssan models``."""

import sys
from typing import Annotated, Any

import typer

from ssan.cli import options
from ssan.cli.screen import print


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
    from ssan.models.cost import catalogue_rows

    rows = catalogue_rows(names or ())
    if cost:
        _measure(rows, runs, quiet)
    if json:
        options.show_json({"schema": 1, "models": rows})
    else:
        _show(rows)
    return options.DONE


def _measure(rows: list[dict[str, Any]], runs: int, quiet: bool) -> None:
    from tqdm import tqdm

    from ssan.models.cost import measure

    silent = quiet or not sys.stderr.isatty()
    with tqdm(rows, desc="measuring", unit="model", disable=silent, file=sys.stderr, leave=False) as bar:
        for row in bar:
            bar.set_postfix_str(row["name"])
            row.update(measure(row["name"], runs=runs))


def _show(rows: list[dict[str, Any]]) -> None:
    measured = "latency_seconds" in rows[0]
    width = max(20, *(len(row["name"]) for row in rows))
    more = f" {'kept in training':>16} {'in inference':>12} {'latency':>9}" if measured else ""
    print(f"{'name':{width}} {'params':>9} {'multiply-adds':>13}{more}  input          order  layer")
    for row in rows:
        size = f"{row['num_frames']} x {row['size_px']} px"
        if measured:
            kept, most = (row[f"{work}_activation_bytes"] / 1e6 for work in ("train", "inference"))
            more = f" {kept:13.1f} MB {most:9.1f} MB {row['latency_seconds']:7.3f} s"
        looks = f"{row['layer']} over {row['over']}" if row["over"] else row["layer"] or row["consensus"] or ""
        print(
            f"{row['name']:{width}} {row['params'] / 1e6:7.2f} M {row['macs'] / 1e9:11.2f} G{more}  {size:13}  "
            f"{'yes' if row['knows_order'] else 'no':5}  {looks}".rstrip()
        )
    if measured:
        threads, runs = rows[0]["latency_threads"], rows[0]["latency_runs"]
        print(f"one clip on the CPU, {threads} thread{'s' if threads > 1 else ''}; latency the median of {runs}")
