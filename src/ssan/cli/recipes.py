"""``ssan recipes``: the recipes that come with the package, and what the keys of a recipe mean."""

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ssan.cli import options
from ssan.cli.screen import print
from ssan.errors import UsageError, unknown
from ssan.shipped import shipped

if TYPE_CHECKING:
    from pydantic import BaseModel

app = typer.Typer(help="The recipes that come with ssan, listed unless told otherwise; and what their keys mean.")


@app.callback(invoke_without_command=True)
def _list_unless_told_otherwise(context: typer.Context, json: options.Json = False) -> int:
    if context.invoked_subcommand is None:
        return list_recipes(json)
    if json:
        raise UsageError(f"--json belongs behind the word: ssan recipes {context.invoked_subcommand} --json")
    return options.DONE


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
    width = max(len(row["name"]) for row in rows)
    lines = [f"{row['name']:{width}}  {row['about']}" for row in rows]
    options.show({"recipes": rows}, lambda _: lines, as_json=json)
    return options.DONE


@app.command("keys")
def keys(
    key: Annotated[str | None, typer.Argument(help="A key, such as lr; all of them, if none is named.")] = None,
    json: options.Json = False,
) -> int:
    """Explain the keys of recipes: what they mean, which values they take, and what holds where they are left out."""
    from ssan.recipe import Recipe, RetrievalRecipe

    rows = [*keys_of("ssan train", Recipe), *keys_of("ssan retrieval train", RetrievalRecipe)]
    if key is not None:
        known = [row["key"] for row in rows]
        head = key.partition("=")[0].partition(".")[0]  # as it is written on the command line
        if head not in known:
            raise UsageError(unknown("key", head, set(known)))
        rows = [row for row in rows if row["key"] == head]
    options.show({"keys": rows}, lambda _: _lines(rows), as_json=json)
    return options.DONE


def keys_of(command: str, kind: "type[BaseModel]") -> list[dict[str, Any]]:
    """The keys of a kind of recipe, as its fields describe them."""
    return [
        {
            "key": name,
            "command": command,
            "values": _values(field),
            "default": field["default"],
            "about": field["description"],
        }
        for name, field in kind.model_json_schema()["properties"].items()
    ]


def _values(schema: Mapping[str, Any]) -> str:
    """Which values a key takes, in words, from its JSON schema."""
    if "anyOf" in schema:
        return " or ".join(map(_values, schema["anyOf"]))
    if "enum" in schema:
        return ", ".join(word if isinstance(word, str) else dumps(word) for word in schema["enum"])
    if "const" in schema:
        return str(schema["const"])
    said = KINDS[schema["type"]]
    if schema["type"] == "array":
        said += f" of {_values(schema['items'])}"
    for bound, word in BOUNDS.items():
        if bound in schema and schema[bound] < BOUNDLESS:
            said += f" {word} {schema[bound]:g}"
    return said


KINDS = {
    "integer": "whole number", "number": "number", "string": "text", "boolean": "true or false", "null": "null",
    "array": "list", "object": "a mapping, set as KEY.NAME=VALUE",
}  # fmt: skip
BOUNDS = {"minimum": "from", "exclusiveMinimum": "above", "maximum": "to", "exclusiveMaximum": "below"}
BOUNDLESS = 1e9
"""Where a recipe's numbers end for the sake of the machine's memory alone."""


def _lines(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """A line a key, by the command that takes it."""
    width = max(len(row["key"]) for row in rows)
    command = None
    for row in rows:
        if row["command"] != command:
            command = row["command"]
            yield f"{command} ... KEY=VALUE"
        default = row["default"] if isinstance(row["default"], str) else dumps(row["default"])
        yield f"  {row['key']:{width}}  {row['about']} ({row['values']}; {default} by default)"


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
