"""Pages for people: one self-contained HTML file each, no request to anywhere."""

import base64
import io
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from markupsafe import Markup
from matplotlib.figure import Figure

TEMPLATES = Path(__file__).parent / "templates"


def render_page(template: str, **values: Any) -> str:
    """Fill a template; text is escaped, and a value that the template names and nobody gave is an error."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        undefined=StrictUndefined,
        autoescape=select_autoescape(default=True, default_for_string=True),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["share"] = lambda value: "" if value is None else f"{value:.3f}"
    return environment.get_template(template).render(**values)


def as_image(figure: Figure, alt: str, *, dots_per_inch: int = 110) -> Markup:
    """A figure as an ``img`` element that carries its own data."""
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=dots_per_inch, bbox_inches="tight")
    data = base64.b64encode(content.getvalue()).decode("ascii")
    return Markup('<img alt="{}" src="data:image/png;base64,{}">').format(alt, data)
