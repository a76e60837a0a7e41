"""Entries of the cache: folders that are written once, atomically, by one process at a time.

An entry `KEY-…` is written into a temporary folder under the lock `KEY.lock`, then renamed: readers see all or nothing.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from platformdirs import user_cache_path

from trainer.errors import InputError
from trainer.files import delete_folder, rename_folder
from trainer.locks import ProcessLock, Timeout

log = logging.getLogger("trainer")

PARTIAL = ".tmp"
ARRAY = "array.npy"
KEY = "key.json"  # what an array was made from
CONTENTS = "contents.npy"  # content hashes of the images that the rows of an array belong to
# Errors of a folder in which nothing can be written.
UNWRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST)


def cache_dir() -> Path:
    """Folder of the cache: `$TRAINER_CACHE_DIR`, or `trainer` in the user's cache folder."""
    return Path(os.environ.get("TRAINER_CACHE_DIR") or user_cache_path("trainer")).expanduser()


def entry_prefix(key: Any) -> Path:
    """Path with which the paths of all entries made from `key` begin; `key` is plain JSON values."""
    return cache_dir() / hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:32]


@contextmanager
def draft_of(folder: Path) -> Iterator[Path]:
    """Temporary folder for the files of an entry. It is deleted at the end, unless `keep` was called.

    Raises InputError where the cache cannot be written.
    """
    draft = folder.with_suffix(PARTIAL)
    with _in_cache(folder.parent):
        delete_folder(draft)  # left by a killed writer
        draft.mkdir()
    try:
        yield draft
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def keep(draft: Path, folder: Path) -> None:
    """Make a complete draft the entry `folder`, atomically. Raises InputError where the cache cannot be written."""
    with _in_cache(folder.parent):
        rename_folder(draft, folder)


def load_array(
    key: Mapping[str, Any], make: Callable[[], NDArray[Any]], contents: NDArray[np.uint64] | None = None
) -> NDArray[Any]:
    """Cached result of `make`. `key` names everything that the array depends on, in plain JSON values.

    `contents` [N]: content hashes of the images of its N rows, for `find_arrays`. Raises InputError where the cache
    cannot be written.
    """
    prefix = entry_prefix(key)
    folder = prefix.with_name(f"{prefix.name}-array")
    if (found := _open_array(folder)) is not None:
        return found
    with locked(prefix):
        # Another process may have written it in the meantime.
        if (found := _open_array(folder)) is not None:
            return found
        array = make()
        with draft_of(folder) as draft:
            save_array(draft / ARRAY, array)
            (draft / KEY).write_text(json.dumps(key))
            if contents is not None:
                save_array(draft / CONTENTS, contents)
            keep(draft, folder)
        return array


def save_array(file: Path, array: NDArray[Any]) -> None:
    """Write a `.npy` file. Raises OSError where a part of it cannot be written."""
    # Open for reading, too: into a file that is open for writing alone NumPy writes through C's stdio, whose last error
    # it ignores, and whose others it reports without their number.
    with file.open("w+b") as stream:
        np.save(stream, array, allow_pickle=False)


def find_arrays(facts: Mapping[str, Any]) -> Iterator[tuple[NDArray[np.uint64], NDArray[Any]]]:
    """Content hashes and rows (mapped: read when used) of the arrays whose keys have all of the `facts`.

    Damaged or deleted ones are left out.
    """
    for file in sorted(cache_dir().glob(f"*/{KEY}")):
        with suppress(OSError, EOFError, ValueError):
            if facts.items() <= json.loads(file.read_text()).items():
                contents = np.load(file.with_name(CONTENTS), allow_pickle=False)
                yield contents, np.load(file.with_name(ARRAY), mmap_mode="r", allow_pickle=False)


@contextmanager
def locked(prefix: Path) -> Iterator[None]:
    """Lock out other writers of entries of `prefix`. Raises InputError where the cache cannot be written."""
    lock = ProcessLock(prefix.with_suffix(".lock"))
    with _in_cache(prefix.parent):
        prefix.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(0)
        except Timeout:
            log.info("waiting for another process that writes the same cache entry")
            lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _in_cache(folder: Path) -> Iterator[None]:
    """Turn OSErrors of the cache folder itself into InputError; errors of an entry's content have other causes."""
    try:
        yield
    except OSError as error:
        if error.errno not in UNWRITABLE:
            raise
        raise InputError(
            f"{folder}: the cache cannot be written ({error.strerror}); "
            "set TRAINER_CACHE_DIR to a folder that can be written"
        ) from error


def usage() -> tuple[int, int]:
    """Count and bytes of all entries; one that is deleted meanwhile is left out."""
    count = size_bytes = 0
    for lock in cache_dir().glob("*.lock"):
        for folder in lock.parent.glob(f"{lock.stem}-*"):
            with suppress(OSError):
                size_bytes += _size(folder)
                count += 1
    return count, size_bytes


def prune() -> tuple[int, int]:
    """Delete every entry that no process is writing; returns (entries, bytes) deleted. Open readers keep their data.

    Raises InputError where the cache cannot be written.
    """
    count = size_bytes = 0
    for lock in cache_dir().glob("*.lock"):
        try:
            with _in_cache(cache_dir()), ProcessLock(lock, timeout_s=0):
                for folder in lock.parent.glob(f"{lock.stem}-*"):
                    count += 1
                    size_bytes += _size(folder)
                    _delete(folder)
        except Timeout:
            log.info("%s is being written and stays", lock.with_suffix(""))
    return count, size_bytes


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.iterdir())


def _delete(folder: Path) -> None:
    """Delete an entry; rename it first, so that no reader sees a part of it, and as NFS keeps files that are open."""
    hidden = folder.with_name(f"{folder.name}-{secrets.token_hex(4)}{PARTIAL}")
    folder.rename(hidden)
    shutil.rmtree(hidden, ignore_errors=True)


def _open_array(folder: Path) -> NDArray[Any] | None:
    if not folder.exists():
        return None
    try:
        array: NDArray[Any] = np.load(folder / ARRAY, allow_pickle=False)
    except (OSError, EOFError, ValueError) as error:
        log.warning("%s is damaged and is written again: %s", folder, error)
        return None
    return array
