"""Fingerprint and state of a source, from the metadata of its files: no file is read."""

from __future__ import annotations

import hashlib
import os


class FileStates:
    """Two digests of files: by name, size and modification time, and by those with change time and inode.

    The first identifies a data set over time. The second also changes when files were exchanged and their modification
    times restored, as by tar, rsync and image layers; it changes without need after `chmod` or `mv`.
    """

    def __init__(self, data: bytes) -> None:
        """`data` is part of both digests."""
        self._fingerprint = hashlib.sha256(data)
        self._state = hashlib.sha256(data)

    def add(self, name: str, status: os.stat_result | None) -> None:
        """Add a file; `status` None is a file that cannot be found, such as a broken link."""
        size, modified, changed, inode = (
            (status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino) if status else (0, 0, 0, 0)
        )
        self._fingerprint.update(os.fsencode(f"{name}\0{size}\0{modified}\0"))
        self._state.update(os.fsencode(f"{name}\0{size}\0{modified}\0{changed}\0{inode}\0"))

    @property
    def fingerprint(self) -> str:
        """Hex digest that changes with names, sizes and modification times."""
        return self._fingerprint.hexdigest()

    @property
    def state(self) -> str:
        """Hex digest that changes whenever a file may have changed."""
        return self._state.hexdigest()
