"""What a server may hold in memory at once: bodies that are being read, and pictures that are being decoded.

All of it is charged before it is taken. Whoever would exceed it waits, or is refused, so that no request can get the
process killed, and all others with it.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import psutil

from trainer.machine import memory_limit

SPARE = 0.1  # of the memory that there is: for what is not counted, such as answers and connections
LEAST = 32 << 20  # one image of the largest size, and its form


class Memory:
    """A budget of bytes, for any thread."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._free = size
        self._changed = threading.Condition()

    def take(self, size: int) -> bool:
        """At once or not at all."""
        with self._changed:
            if size > self._free:
                return False
            self._free -= size
            return True

    def give_back(self, size: int) -> None:
        with self._changed:
            self._free += size
            self._changed.notify_all()

    @contextmanager
    def hold(self, size: int, timeout_s: float) -> Iterator[None]:
        """Wait for `size` bytes, in a thread that may wait. Raises TimeoutError."""
        with self._changed:
            if not self._changed.wait_for(lambda: size <= self._free, timeout_s):
                raise TimeoutError
            self._free -= size
        try:
            yield
        finally:
            self.give_back(size)


def left_for_requests(workers: int) -> int:
    """Bytes that each of `workers` processes may spend on requests, once its model is warm."""
    process = psutil.Process()
    own = process.memory_info().rss
    parent = process.parent()
    supervisor = parent.memory_info().rss if parent and workers > 1 else 0
    return max(LEAST, int(((1 - SPARE) * memory_limit() - supervisor) / workers) - own)
