"""Names of models in the store: made from any text, and checked."""

from __future__ import annotations

import hashlib
import re
import unicodedata

from trainer.errors import InputError

MAX_LETTERS = 63
HASH_LETTERS = 6


def slug(text: str) -> str:
    """A model name made from `text`: only [a-z0-9._-], at most 63 characters, never empty.

    Text that is not ASCII, too long or without a letter or digit gets a hash at the end: different texts have different
    names, on every machine the same.
    """
    text = unicodedata.normalize("NFC", text).casefold()  # some file systems decompose accents
    without_accents = re.sub(r"[\u0300-\u036f]", "", unicodedata.normalize("NFKD", text))
    name = re.sub(r"[^a-z0-9._-]+", "-", without_accents).strip("._-")
    if text.isascii() and 0 < len(name) <= MAX_LETTERS:
        return name
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:HASH_LETTERS]
    start = name[: MAX_LETTERS - HASH_LETTERS - 1].rstrip("._-") or "model"
    return f"{start}-{digest}"


def check_slug(name: str) -> None:
    """Raise InputError unless `name` can be a model's name in the store."""
    if slug(name) != name:
        raise InputError(
            f"--name: {name!r} is no model name; use up to {MAX_LETTERS} of a-z, 0-9, '.', '_' and '-', "
            "with a letter or digit at both ends"
        )
