"""File locks between processes, also on file systems that have none, such as NFS without its lock daemon."""

from __future__ import annotations

import errno
import logging
from pathlib import Path

from filelock import BaseFileLock, FileLock, SoftFileLock, Timeout

__all__ = ["ProcessLock", "Timeout"]

log = logging.getLogger("trainer")

UNSUPPORTED = (errno.ENOLCK, errno.EOPNOTSUPP)  # from a file system without locks; filelock handles ENOSYS itself
HELD_SUFFIX = ".held"


class ProcessLock:
    """An exclusive lock by the file `path`, for one process; held while the lock is entered.

    Without locks of the file system, a second file marks it as held. A process that is killed leaves that file, and
    the next one on the same machine takes it over.
    """

    def __init__(self, path: Path, *, timeout_s: float = -1) -> None:
        """`timeout_s`: how long to wait for another process; -1 for ever, 0 not at all."""
        self._path = path
        self._timeout_s = timeout_s
        # One for all threads: a lock is released by whichever thread ends the work.
        self._lock: BaseFileLock = FileLock(path, thread_local=False)

    def acquire(self, timeout_s: float | None = None) -> None:
        """Take the lock. Raises Timeout where another process keeps it, OSError where the file cannot be written."""
        timeout_s = self._timeout_s if timeout_s is None else timeout_s
        try:
            self._lock.acquire(timeout=timeout_s)
        except OSError as error:
            if error.errno not in UNSUPPORTED:
                raise
            held = self._path.with_name(self._path.name + HELD_SUFFIX)
            log.debug("%s: this file system has no locks; %s stands for one", self._path.parent, held.name)
            self._lock = SoftFileLock(held, thread_local=False)
            self._lock.acquire(timeout=timeout_s)

    def release(self) -> None:
        """Release the lock if it is held."""
        self._lock.release()

    def __enter__(self) -> ProcessLock:
        self.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()
