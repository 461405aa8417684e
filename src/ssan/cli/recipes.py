"""``ssan recipes``: the recipes that come with the package."""

import os
import shutil
from pathlib import Path
from typing import Annotated

import typer

from ssan.cli import options
from ssan.cli.screen import print
from ssan.errors import UsageError, unknown
from ssan.shipped import shipped

app = typer.Typer(help="The recipes that come with ssan.")


def _known(name: str) -> Path:
    if name not in shipped():
        raise UsageError(unknown("recipe", name, shipped()))
    return shipped()[name]


@app.command("list")
def list_recipes(json: options.Json = False) -> int:
    """Names and first lines."""
    rows = [
        {"name": name, "about": path.read_text(encoding="utf-8").splitlines()[0].lstrip("# ")}
        for name, path in shipped().items()
    ]
    if json:
        options.show_json({"schema": 1, "recipes": rows})
    else:
        width = max(len(row["name"]) for row in rows)
        for row in rows:
            print(f"{row['name']:{width}}  {row['about']}")
    return options.DONE


@app.command("show")
def show(name: Annotated[str, typer.Argument(help="A name from `ssan recipes list`.")]) -> int:
    """Print a recipe."""
    for line in _known(name).read_text(encoding="utf-8").splitlines():
        print(line)
    return options.DONE


@app.command("copy")
def copy(
    name: Annotated[str, typer.Argument(help="A name from `ssan recipes list`.")],
    to: Annotated[str, typer.Argument(help="A file, or a folder to put it in.")] = ".",
) -> int:
    """Copy a recipe, to be changed."""
    source = _known(name)
    target = Path(to) / source.name if os.path.isdir(to) else Path(to)
    if target.exists():
        raise UsageError("there is a file of that name already; name another", path=str(target))
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    print(target)
    return options.DONE
