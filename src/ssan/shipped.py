"""The recipes that come with the package, by name."""

import difflib
import os
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType

from ssan.errors import UsageError

FOLDER = Path(__file__).parent / "recipes"


@cache
def shipped() -> Mapping[str, Path]:
    """Recipes by name, such as ``demo/ssan_tiny``; looked up once a process."""
    found = sorted(FOLDER.rglob("*.yaml"))
    return MappingProxyType({path.relative_to(FOLDER).with_suffix("").as_posix(): path for path in found})


JOINT = ("table7/", "table8/", "retrieval/")
"""How the names of recipes begin that are of joint spaces of texts and videos; all others are of classifiers."""


def find_recipe(name: str) -> Path:
    """A recipe by the name it is shipped under, or by its file.

    :raises UsageError: there is neither; the nearest name is told.
    """
    known = shipped()
    if name not in known and not os.path.exists(name):
        whole = {word: full for full in known for word in (full.split("/")[-1], full)}
        near = difflib.get_close_matches(name.removesuffix(".yaml"), whole, n=1)
        hint = f" Did you mean {whole[near[0]]!r}?" if near else ""
        raise UsageError(
            f"no such recipe.{hint} Expected a YAML file, or a name: `ssan recipes list` shows those that come with "
            "ssan",
            code="missing",
            path=name,
        )
    return known.get(name) or Path(name)
