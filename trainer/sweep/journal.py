"""Journal of a sweep on disk: the lock of its folder, and a last record that was cut off by a kill."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path

from trainer.errors import InputError
from trainer.locks import ProcessLock, Timeout

log = logging.getLogger("trainer")

JOURNAL = "journal.log"
LOCK = "sweep.lock"
PID = "sweep.pid"  # of the process that holds the lock; a file of its own, because locking a file empties it


def lock_folder(folder: Path) -> ProcessLock:
    """Create and lock the folder of a sweep. InputError where it is locked, or cannot be written."""
    lock = ProcessLock(folder / LOCK)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(0)
    except Timeout:
        raise InputError(f"{folder}: this sweep is running already, as process {_pid(folder)}") from None
    except OSError as error:
        raise InputError(f"{folder}: cannot be written: {error.strerror}") from error
    (folder / PID).write_text(f"{os.getpid()}\n")
    return lock


def _pid(folder: Path) -> str:
    try:
        return (folder / PID).read_text().strip()
    except OSError:
        return "?"


def cut_torn_end(journal: Path) -> int:
    """Cut off an incomplete last record, which a killed process left; return the number of bytes.

    Optuna would append the next record to it, and could read neither.
    """
    content = journal.read_bytes() if journal.exists() else b""
    whole = content
    while whole and not _is_record(whole[whole.rfind(b"\n", 0, -1) + 1 :]):
        whole = whole[: whole.rfind(b"\n", 0, -1) + 1]
    if len(whole) < len(content):
        os.truncate(journal, len(whole))
    return len(content) - len(whole)


def _is_record(line: bytes) -> bool:
    try:
        return line.endswith(b"\n") and isinstance(json.loads(line), dict)
    except ValueError:
        return False


class NoLock:
    """Empty replacement for Optuna's lock of a journal: the folder is locked for as long as the search lives."""

    def acquire(self) -> bool:
        return True

    def release(self) -> None:
        pass
