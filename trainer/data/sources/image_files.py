"""Which files in a folder are images, and which are left there by no person."""

from __future__ import annotations

import os
import re

from trainer.images.decode import is_image

# Tells images from the rest without opening them; the decoder then goes by the bytes alone.
IMAGE_SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif"),
    *(".heic", ".heif", ".hif", ".avif"),
)
# What a name ends with where it says what the file is. A camera's "IMG.0042" does not.
SUFFIX = re.compile(r"\.(?=\d*[a-z])[a-z0-9]{1,5}$")
# What network disks and operating systems leave, in lower case; what begins with a dot is as well.
JUNK = frozenset(
    (
        *("@eadir", "@recycle", "@recently-snapshot", "#recycle", "#snapshot", "lost+found"),
        *("$recycle.bin", "system volume information", "thumbs.db", "ehthumbs.db", "desktop.ini"),
        *("__macosx", "icon\r"),
    )
)
MAGIC_BYTES = 512  # of a file, which tell what it is


def suffix(name: str) -> str:
    """What the file is by its name: a dot and up to five letters or digits, in lower case; empty where it says none."""
    match = SUFFIX.search(name.lower())
    return match[0] if match else ""


def is_junk(name: str) -> bool:
    """Whether no person has put it there."""
    return name.startswith(".") or name.lower() in JUNK


def is_image_file(entry: os.DirEntry[str]) -> bool:
    """By its suffix (before a `?`, where a download has kept its query); by its bytes where it has none."""
    name = entry.name.lower().partition("?")[0]
    # A pipe or a device would block who opens it; a broken link is an image that cannot be read.
    if name.endswith(IMAGE_SUFFIXES):
        return entry.is_file() or entry.is_symlink()
    return not suffix(name) and entry.is_file() and _begins_as_image(entry.path)


def _begins_as_image(path: str) -> bool:
    try:
        with open(path, "rb") as file:
            return is_image(file.read(MAGIC_BYTES))
    except OSError:
        return True  # the decoder names it
