"""Text for terminals, logs and pages: names of files and classes may contain anything but never control them."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterable

# Control characters and line separators clear a screen or forge a line; marks of writing direction reorder text; half a
# surrogate pair, from a file name that is not UTF-8, cannot be encoded.
UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str) -> str:
    """`text` on one line, with Python's escapes for unprintable characters; twice is the same as once."""
    return UNPRINTABLE.sub(lambda found: repr(found[0])[1:-1], text)


def printable_json(json_text: str) -> str:
    """JSON with JSON's escapes for unprintable characters; line feeds between its values stay."""
    return UNPRINTABLE.sub(lambda found: "\n" if found[0] == "\n" else f"\\u{ord(found[0]):04x}", json_text)


def counted(count: int, noun: str, plural: str = "") -> str:
    """`1 epoch`, `1,200 epochs`; `plural` where it is not the noun and an s."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {plural or f'{noun}s'}"


def shell_command(words: Iterable[str]) -> str:
    """A printable command line that can be pasted into a shell (bash, or another one with $'…')."""
    return " ".join(_quote(word) for word in words)


def _quote(word: str) -> str:
    if not UNPRINTABLE.search(word):
        return shlex.quote(word)
    escaped = re.sub(r"['\\]", r"\\\g<0>", word)
    escaped = UNPRINTABLE.sub(lambda found: "".join(f"\\x{byte:02x}" for byte in os.fsencode(found[0])), escaped)
    return f"$'{escaped}'"
