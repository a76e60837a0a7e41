"""Files: written atomically, checked for write access, sent as a tar."""

from __future__ import annotations

import io
import os
import shutil
import tarfile
from collections.abc import Collection
from pathlib import Path


def write_text(file: Path, text: str, *, draft: Path | None = None) -> None:
    """Write `file` atomically: temporary file, fsync, rename.

    `draft` is the temporary file, on the same file system, where it must not lie beside `file`.
    """
    draft = draft or file.with_name(f".{file.name}.draft")
    draft.write_text(text, encoding="utf-8")
    _sync(draft)
    os.replace(draft, file)
    _sync(file.parent)


def rename_folder(draft: Path, final: Path) -> None:
    """Rename a folder of files atomically, after fsync; a folder that has the name already is deleted first."""
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


def can_write(folder: Path) -> bool:
    """Whether files can be made in a folder, which need not exist yet."""
    place = folder.absolute()
    existing = next(path for path in (place, *place.parents) if os.path.exists(path))
    return existing.is_dir() and os.access(existing, os.W_OK | os.X_OK)


def tar_folder(folder: Path, leave_out: Collection[str] = ()) -> bytes:
    """The folder's files as a tar, without links and without its own entries named in `leave_out`."""

    def is_sent(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
        return None if member.issym() or member.name in leave_out else member

    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        tar.add(folder, "", filter=is_sent)
    return buffer.getvalue()


def untar(files: bytes, folder: Path) -> None:
    """Extract what `tar_folder` returned into a folder."""
    with tarfile.open(fileobj=io.BytesIO(files)) as tar:
        tar.extractall(folder, filter="data")
