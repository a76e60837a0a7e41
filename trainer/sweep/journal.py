"""Journal of a sweep on disk: the lock of its folder, and a last record that a kill or a full disk has cut off."""

from __future__ import annotations

import json
import logging
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from optuna.storages.journal import JournalFileBackend

from trainer.errors import InputError
from trainer.files import writing_to
from trainer.locks import ProcessLock, Timeout

log = logging.getLogger("trainer")

JOURNAL = "journal.log"
LOCK = "sweep.lock"
PID = "sweep.pid"  # of the process that holds the lock; a file of its own, because locking a file empties it


def lock_folder(folder: Path) -> ProcessLock:
    """Create and lock the folder of a sweep. InputError where it is locked, or cannot be written."""
    lock = ProcessLock(folder / LOCK)
    with writing_to(f"{folder}:"):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(0)
        except Timeout:
            raise InputError(f"{folder}: this sweep is running already, as process {_pid(folder)}") from None
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


class Journal(JournalFileBackend):
    """Optuna's journal in a file that one process writes; of a record that cannot be written no part stays."""

    def __init__(self, file: Path) -> None:
        super().__init__(str(file), _NoLock())
        self._file = file

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        size = self._file.stat().st_size
        try:
            super().append_logs(logs)
        except OSError:
            with suppress(OSError):  # the next start cuts it off
                os.truncate(self._file, size)
            raise


class _NoLock:
    """Empty replacement for Optuna's lock of a journal: the folder is locked for as long as the search lives."""

    def acquire(self) -> bool:
        return True

    def release(self) -> None:
        pass
