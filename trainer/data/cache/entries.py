"""The folder of the cache: entries that are made once, whole or not at all, whoever makes them at the same time.

An entry `KEY-…` is written beside its place under the lock `KEY.lock`, then renamed: a reader sees all of it or none.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray
from platformdirs import user_cache_path

from trainer.errors import InputError

log = logging.getLogger("trainer")

PARTIAL = ".tmp"
ARRAY = "array.npy"
KEY = "key.json"  # what an array was made from
UNWRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST)


def cache_dir() -> Path:
    """Where what is costly to make is kept."""
    return Path(os.environ.get("TRAINER_CACHE_DIR") or user_cache_path("trainer")).expanduser()


def place_of(key: Any) -> Path:
    """Where entries stand that are made from `key`, plain JSON values; their names begin with this one."""
    return cache_dir() / hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:32]


def write_entry(folder: Path, write: Callable[[Path], None]) -> None:
    """Have `write` fill an empty folder, then put it in the place of `folder`; nothing of a failed one stays.

    Raises InputError where it cannot stand there, and whatever `write` raises.
    """
    partial = folder.with_suffix(PARTIAL)
    shutil.rmtree(partial, ignore_errors=True)  # of a writer that was killed
    with _in_cache(folder.parent):
        partial.mkdir()
    try:
        write(partial)
        with _in_cache(folder.parent):
            shutil.rmtree(folder, ignore_errors=True)  # a damaged one
            partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def load_array(key: Mapping[str, Any], make: Callable[[], NDArray[Any]]) -> NDArray[Any]:
    """The array that `make` gives, kept under what it is made from: plain JSON values that name all of that.

    Raises InputError where the cache directory cannot be written.
    """
    place = place_of(key)
    folder = place.with_name(f"{place.name}-array")
    if (found := _open_array(folder)) is not None:
        return found
    with locked(place):
        # Another process may have made it in the meantime.
        if (found := _open_array(folder)) is not None:
            return found
        array = make()

        def write(partial: Path) -> None:
            np.save(partial / ARRAY, array, allow_pickle=False)
            (partial / KEY).write_text(json.dumps(key))

        write_entry(folder, write)
        return array


@contextmanager
def locked(place: Path) -> Iterator[None]:
    """While it lasts, no other process makes what stands at `place`. Raises InputError where nothing can be kept."""
    lock = FileLock(place.with_suffix(".lock"))
    with _in_cache(place.parent):
        place.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            log.info("waiting for another process that makes the same")
            lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _in_cache(folder: Path) -> Iterator[None]:
    """Explains errors of `folder` itself; those of making what is kept there have other causes."""
    try:
        yield
    except OSError as error:
        if error.errno not in UNWRITABLE:
            raise
        raise InputError(
            f"{folder}: nothing can be kept there ({error.strerror}); "
            "set TRAINER_CACHE_DIR to a folder that can be written"
        ) from error


def prune() -> tuple[int, int]:
    """Delete every entry that no process is writing → (entries, bytes) deleted. Who reads one keeps it."""
    count = size_bytes = 0
    for lock in cache_dir().glob("*.lock"):
        try:
            with FileLock(lock, timeout=0):
                for folder in lock.parent.glob(f"{lock.stem}-*"):
                    count += 1
                    size_bytes += sum(file.stat().st_size for file in folder.iterdir())
                    shutil.rmtree(folder)
        except Timeout:
            log.info("%s is being written and stays", lock.with_suffix(""))
    return count, size_bytes


def _open_array(folder: Path) -> NDArray[Any] | None:
    if not folder.exists():
        return None
    try:
        array: NDArray[Any] = np.load(folder / ARRAY, allow_pickle=False)
    except (OSError, EOFError, ValueError) as error:
        log.warning("%s is damaged and is made again: %s", folder, error)
        return None
    return array
