"""Names of models in the store: made of any text, and checked."""

from __future__ import annotations

import re

from trainer.errors import InputError


def slug(text: str) -> str:
    """A model name made of `text`: only [a-z0-9._-], at most 63 characters, never empty."""
    cleaned = re.sub(r"[^a-z0-9._-]+", "-", text.lower()).strip("._-")[:63].strip("._-")
    return cleaned or "model"


def check_slug(name: str) -> None:
    """Raise InputError unless `name` can be a model's name in the store."""
    if slug(name) != name:
        raise InputError(
            f"--name: {name!r} is no model name; use up to 63 of a-z, 0-9, '.', '_' and '-', "
            "with a letter or digit at both ends"
        )
