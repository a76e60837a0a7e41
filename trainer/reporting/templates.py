"""Jinja templates of the HTML pages that are written to files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trainer.text import printable

BASE = Path(__file__).with_name("base.html.jinja")  # head and style of all pages


def render(template: Path, **values: object) -> str:
    """Render a template file, which may extend `base.html.jinja`, to HTML with escaped text.

    Raises jinja2.UndefinedError for a missing value.
    """
    import jinja2

    environment = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_printable,
        loader=jinja2.FileSystemLoader([template.parent, BASE.parent]),
    )
    return environment.get_template(template.name).render(**values)


def _printable(value: Any) -> Any:
    """Text without unprintable characters; markup, such as a script, is left unchanged."""
    return printable(value) if type(value) is str else value
