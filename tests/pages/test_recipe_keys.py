"""The page of the keys of recipes: as its script makes it, and every key once with its default and its meaning."""

import re

import pytest
import yaml
from benchmarks.pages import recipe_keys
from pydantic import BaseModel


def test_the_page_is_what_the_fields_give() -> None:
    written = recipe_keys.PAGE.read_text(encoding="utf-8")
    assert written == recipe_keys.page(), "run `python -m benchmarks.pages.recipe_keys` and commit what it wrote"


@pytest.mark.parametrize(("command", "kind"), recipe_keys.KINDS.items())
def test_each_key_stands_there_once_with_the_default_that_holds(command: str, kind: type[BaseModel]) -> None:
    sections = re.split(r"^## `(.*)`$", recipe_keys.PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    section = sections[sections.index(command) + 1]
    rows = re.findall(r"^\| `(\w+)` \| `(.*?)` \| .+ \| (.+) \|$", section, flags=re.MULTILINE)
    whole = kind().model_dump()
    assert [name for name, _, _ in rows] == list(whole)
    for name, default, about in rows:
        # A word such as 32 stands there without the quotes that YAML wants.
        assert whole[name] in (default, yaml.safe_load(default)), name
        assert about == kind.model_fields[name].description
