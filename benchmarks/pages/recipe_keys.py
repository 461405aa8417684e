"""The keys of both kinds of recipe, from the fields that describe them: docs/recipe-keys.md.

    python -m benchmarks.pages.recipe_keys

Run it whenever a key is added or changed.
"""

from collections.abc import Iterator
from json import dumps
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from ssan.cli.recipes import keys_of
from ssan.files import writing
from ssan.recipe import Recipe, RetrievalRecipe

PAGE = Path(__file__).parents[2] / "docs" / "recipe-keys.md"
HEAD = """# The keys of a recipe

A recipe is a file of YAML with a key a line, such as `epochs: 20`; what it leaves out is as said here. On the command
line `KEY=VALUE` changes a key, and `KEY.NAME=VALUE` reaches into one that is a mapping, such as
`layer.channel_branch=false`. `ssan recipes keys KEY` says the same of one key, and `ssan recipes show NAME` prints a
recipe that comes with ssan. This page is made by `python -m benchmarks.pages.recipe_keys`.
"""
KINDS: dict[str, type[BaseModel]] = {"ssan train": Recipe, "ssan retrieval train": RetrievalRecipe}


def groups(kind: type[BaseModel]) -> Iterator[tuple[str, list[str]]]:
    """Keys by the class that brings them in, with the first line of what it says of itself, in the order of fields."""
    known: set[str] = set()
    for part in reversed(kind.__mro__):
        if not issubclass(part, BaseModel) or part is BaseModel:
            continue
        own = [name for name in part.model_fields if name not in known]
        if own:
            title = "Of this command alone." if part is kind else (part.__doc__ or "").splitlines()[0]
            yield title, own
            known.update(own)


def row(key: dict[str, Any]) -> str:
    default = key["default"] if isinstance(key["default"], str) else dumps(key["default"])
    cells = (f"`{key['key']}`", f"`{default}`", key["values"], key["about"])
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def page() -> str:
    parts = [HEAD]
    for command, kind in KINDS.items():
        rows = {key["key"]: key for key in keys_of(command, kind)}
        parts.append(f"## `{command}`\n")
        for title, names in groups(kind):
            lines = ["| key | by default | values | what it means |", "|---|---|---|---|"]
            parts.append("\n".join([title, "", *lines, *(row(rows[name]) for name in names), ""]))
    return "\n".join(parts)


if __name__ == "__main__":
    with writing(PAGE) as handle:
        handle.write(page())
