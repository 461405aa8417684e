"""The recipes that come with the package, by name."""

from pathlib import Path

FOLDER = Path(__file__).parent / "recipes"


def shipped() -> dict[str, Path]:
    """Recipes by name, such as ``demo/ssan_tiny``."""
    return {path.relative_to(FOLDER).with_suffix("").as_posix(): path for path in sorted(FOLDER.rglob("*.yaml"))}


JOINT = ("table7/", "table8/", "retrieval/")
"""How the names of recipes begin that are of joint spaces of texts and videos; all others are of classifiers."""


def find_recipe(name: str) -> Path:
    """A recipe by the name it is shipped under, or by its file."""
    return shipped().get(name) or Path(name)
