"""``ssan weights``: published files of weights by name; what they are, fetching them, where they lie."""

from collections.abc import Iterator
from typing import Annotated, Any

import typer

from ssan.cli import options

app = typer.Typer(help="Published weights by name.", no_args_is_help=True, rich_markup_mode=None)
Name = Annotated[str, typer.Argument(help="A name from `ssan weights list`.")]


@app.command("list")
def list_(json: options.Json = False) -> int:
    """List the weights that can be named wherever a model is taken, and which are on this machine."""
    from ssan.weights.named import NAMED, as_row

    rows = [as_row(weights) for weights in NAMED.values()]
    options.show({"weights": rows}, lambda _: _lines(rows), as_json=json)
    return options.DONE


def _lines(rows: list[dict[str, Any]]) -> Iterator[str]:
    from ssan.weights.named import in_megabytes

    width = max(len(row["name"]) for row in rows)
    for row in rows:
        here = "here" if row["here"] else f"{in_megabytes(row['fetched_bytes'])} to fetch"
        yield f"{row['name']:{width}}  {row['what']:10}  {here:17}  {row['licence']:12}  {row['accuracy']}"


@app.command("get")
def get(
    name: Name,
    yes: options.Yes = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> int:
    """Fetch weights once, into the cache that all commands share."""
    from ssan.weights.named import find_named

    done = options.fetch(find_named(name), yes=yes, quiet=quiet)
    answer = {
        "name": done.name,
        "path": str(done.path),
        "bytes_fetched": done.bytes_fetched,
        "seconds": round(done.seconds, 3),
    }
    options.show(answer, lambda _: [str(done.path)], as_json=json)
    return options.DONE


@app.command("path")
def path(name: Name, json: options.Json = False) -> int:
    """Say where the file of the weights lies, or has to be put on a machine without a network."""
    from ssan.weights.named import find_named, is_here, path_of

    weights = find_named(name)
    where = path_of(weights)
    answer = {"name": name, "path": str(where), "here": is_here(weights)}
    options.show(answer, lambda _: [str(where)], as_json=json)
    return options.DONE
