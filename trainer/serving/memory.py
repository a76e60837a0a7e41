"""Memory budget of a server: bodies that are being read, and images that are being decoded.

Memory is charged before it is allocated. A request that would exceed the budget waits, or is refused, so that no
request can get the process killed, and all others with it.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import psutil

from trainer.machine import memory_limit

RESERVED_SHARE = 0.1  # of the machine's memory: for what is not charged, such as responses and connections
MIN_BUDGET = 32 << 20  # one image of the largest size, and its form


class MemoryBudget:
    """A budget of `size` bytes, for any thread."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._free = size
        self._changed = threading.Condition()

    def take(self, size: int) -> bool:
        """Charge `size` bytes, at once or not at all."""
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


def request_memory(workers: int) -> int:
    """Bytes that each of `workers` processes may spend on requests, once its model is warm."""
    process = psutil.Process()
    own = process.memory_info().rss
    parent = process.parent()
    supervisor = parent.memory_info().rss if parent and workers > 1 else 0
    return max(MIN_BUDGET, int(((1 - RESERVED_SHARE) * memory_limit() - supervisor) / workers) - own)
