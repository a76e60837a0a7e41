"""Files: written atomically, checked for write access, sent as a tar; errors of the disk that they are on."""

from __future__ import annotations

import errno
import io
import os
import shutil
import tarfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from trainer.errors import InputError

FULL = (errno.ENOSPC, errno.EDQUOT)
DISK_ERRORS = (*FULL, errno.EIO)  # of a disk, wherever on it a file is to be


def write_text(file: Path, text: str, *, draft: Path | None = None) -> None:
    """Write UTF-8 text as `write_bytes` does."""
    write_bytes(file, text.encode(), draft=draft)


def write_bytes(file: Path, data: bytes, *, draft: Path | None = None) -> None:
    """Write `file` atomically: temporary file, fsync, rename. A link is followed.

    `draft` is the temporary file, on the same file system, where it must not lie beside `file`.
    """
    file = file.resolve()
    draft = draft or file.with_name(f".{file.name}.draft")
    try:
        draft.write_bytes(data)
        rename_file(draft, file)
    except OSError:
        with suppress(OSError):
            draft.unlink()
        raise


def rename_file(draft: Path, final: Path) -> None:
    """Rename a file atomically, after fsync; it replaces a file that has the name already."""
    _sync(draft)
    os.replace(draft, final)
    _sync(final.parent)


def rename_folder(draft: Path, final: Path) -> None:
    """Rename a folder of files atomically, after fsync; a folder that has the name already is deleted first."""
    for path in (*draft.rglob("*"), draft):
        _sync(path)
    delete_folder(final)
    os.rename(draft, final)
    _sync(final.parent)


def copy_folder(source: Path, target: Path) -> None:
    """Copy a folder and its permissions into another one, which may exist.

    Raises the OSError of the first file that cannot be copied; `shutil.copytree` raises one without its number.
    """
    for path in (source, *source.rglob("*")):
        copy = target / path.relative_to(source)
        if path.is_dir():
            copy.mkdir(parents=True, exist_ok=True)
        else:
            shutil.copyfile(path, copy)
        shutil.copymode(path, copy)


def delete_folder(folder: Path) -> None:
    """Delete a folder, which need not exist. Raises OSError where a part of it stays."""
    with suppress(FileNotFoundError):
        shutil.rmtree(folder)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def writing_to(place: str) -> Iterator[None]:
    """Turn OSErrors of a place that cannot be written into InputErrors; those of the disk itself stay as they are."""
    try:
        yield
    except OSError as error:
        if error.errno in DISK_ERRORS:
            raise
        raise InputError(f"{place} cannot be written: {error.strerror or error}") from error


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
