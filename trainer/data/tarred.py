"""A folder as bytes, to be sent to another machine."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Collection
from pathlib import Path


def tar_folder(folder: Path, leave_out: Collection[str] = ()) -> bytes:
    """The folder's files, without links and without the entries of its own that are named in `leave_out`."""

    def is_sent(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
        return None if member.issym() or member.name in leave_out else member

    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        tar.add(folder, "", filter=is_sent)
    return buffer.getvalue()


def untar(files: bytes, folder: Path) -> None:
    """Put what `tar_folder` gave into a folder."""
    with tarfile.open(fileobj=io.BytesIO(files)) as tar:
        tar.extractall(folder, filter="data")
