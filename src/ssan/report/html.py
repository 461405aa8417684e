"""Pages for people: one self-contained HTML file each, no request to anywhere."""

import base64
import io
import warnings
from functools import lru_cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from markupsafe import Markup
from matplotlib import rc_context
from matplotlib.figure import Figure

JOINERS = "\u200c\u200d"
TEMPLATES = Path(__file__).parent / "templates"


def render_page(template: str, **values: Any) -> str:
    """Fill a template; a value that the template names and nobody gave is an error.

    Text is escaped for HTML, and what no page can show (control characters, bytes of a path that are no text) stands
    as its escape.
    """
    return _environment().get_template(template).render(**values)


@lru_cache(1)
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        undefined=StrictUndefined,
        autoescape=select_autoescape(default=True, default_for_string=True),
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: as_text(value) if isinstance(value, str) else value,
    )
    environment.filters["share"] = lambda value: "" if value is None else f"{value:.3f}"
    return environment


def as_text(value: str) -> str:
    """A text with an escape for each character that cannot be shown, or turns the others about; markup stays as it is.

    What joins letters or keeps them apart is part of the words of some scripts.
    """
    if isinstance(value, Markup) or value.isprintable():
        return value
    return "".join(letter if letter.isprintable() or letter in JOINERS else repr(letter)[1:-1] for letter in value)


def as_image(figure: Figure, alt: str, *, dots_per_inch: int = 110) -> Markup:
    """A figure as an ``img`` element that carries its own pixels."""
    return _embedded(figure, alt, "png", "image/png", dpi=dots_per_inch, bbox_inches="tight")


def as_drawing(figure: Figure, alt: str) -> Markup:
    """A figure as an ``img`` element that carries its own SVG: sharp at any size, its letters drawn."""
    return _embedded(figure, alt, "svg", "image/svg+xml", metadata={"Date": None})


def _embedded(figure: Figure, alt: str, format: str, kind: str, **options: Any) -> Markup:
    content = io.BytesIO()
    with rc_context({"svg.hashsalt": "ssan"}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # a letter that the font lacks is drawn as a box
        figure.savefig(content, format=format, **options)
    data = base64.b64encode(content.getvalue()).decode("ascii")
    return Markup('<img alt="{}" src="data:{};base64,{}">').format(as_text(alt), kind, data)
