"""What a loss of power leaves whole: it is on the disk before it has its name."""

from __future__ import annotations

import os
import shutil
from pathlib import Path


def write_text(file: Path, text: str) -> None:
    """Write `file` anew; at every moment it is there as it was or as it is to be."""
    draft = file.with_name(f".{file.name}.draft")
    draft.write_text(text, encoding="utf-8")
    _sync(draft)
    os.replace(draft, file)
    _sync(file.parent)


def name_folder(draft: Path, final: Path) -> None:
    """Give a folder of files its name, beside it; what had it before goes."""
    for path in (*draft.iterdir(), draft):
        _sync(path)
    shutil.rmtree(final, ignore_errors=True)
    os.rename(draft, final)
    _sync(final.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
