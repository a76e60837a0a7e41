"""Tells images from other files, and from files that no person has put there."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import Literal

from trainer.images.decode import is_image

Kind = Literal["image", "other", "junk"]

# Tells images from the rest without opening them; the decoder then uses the bytes alone.
IMAGE_SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif"),
    *(".heic", ".heif", ".hif", ".avif"),
)
# A suffix that names a file type. A camera's "IMG.0042" has none.
SUFFIX = re.compile(r"\.(?=\d*[a-z])[a-z0-9]{1,5}$")
# Files of network disks and operating systems, in lower case; files that begin with a dot are junk as well.
JUNK = frozenset(
    (
        *("@eadir", "@recycle", "@recently-snapshot", "#recycle", "#snapshot", "lost+found"),
        *("$recycle.bin", "system volume information", "thumbs.db", "ehthumbs.db", "desktop.ini"),
        *("__macosx", "icon\r"),
    )
)
MAGIC_BYTES = 512  # at the beginning of a file, which identify its type


def suffix(name: str) -> str:
    """Suffix that names the file type, in lower case: a dot and up to five letters or digits; empty without one."""
    match = SUFFIX.search(name.lower())
    return match[0] if match else ""


def sorted_entries(folder: str) -> list[os.DirEntry[str]]:
    """Entries of a folder, sorted by code point."""
    with os.scandir(folder) as entries:
        return sorted(entries, key=lambda entry: entry.name)


def walk(folder: str) -> Iterator[tuple[Kind, os.DirEntry[str]]]:
    """Entries of a folder and of the folders in it, each sorted by code point; of junk, a folder is one entry.

    Links are followed, except one to a folder that contains it. Raises OSError for a folder that cannot be read.
    """
    for entry in sorted_entries(folder):
        if is_junk(entry.name):
            yield "junk", entry
        elif entry.is_dir():
            if not (entry.is_symlink() and _is_loop(entry.path)):
                yield from walk(entry.path)
        else:
            yield ("image" if is_image_file(entry) else "other"), entry


def is_junk(name: str) -> bool:
    """Whether an operating system, a network disk or a tool has left the file."""
    return name.startswith(".") or name.lower() in JUNK


def is_image_file(entry: os.DirEntry[str]) -> bool:
    """Whether a file is an image: by its suffix (before a `?` of a download), or by its bytes without a suffix."""
    name = entry.name.lower().partition("?")[0]
    # Opening a pipe or a device would block; a broken link counts as an image that cannot be read.
    if name.endswith(IMAGE_SUFFIXES):
        return entry.is_file() or entry.is_symlink()
    return not suffix(name) and entry.is_file() and _begins_as_image(entry.path)


def _is_loop(link: str) -> bool:
    """Whether a link to a folder points back at a folder that contains it."""
    target = os.path.realpath(link)
    return os.path.commonpath([target, os.path.realpath(os.path.dirname(link))]) == target


def _begins_as_image(path: str) -> bool:
    try:
        with open(path, "rb") as file:
            return is_image(file.read(MAGIC_BYTES))
    except OSError:
        return True  # the decoder will report it
