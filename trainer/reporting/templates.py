"""Jinja templates of the HTML pages that are written to files."""

from __future__ import annotations

from pathlib import Path


def render(template: Path, **values: object) -> str:
    """Render a template file to HTML with escaped text. Raises jinja2.UndefinedError for a missing value."""
    import jinja2

    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    return environment.from_string(template.read_text(encoding="utf-8")).render(**values)
