"""Memory budget of a server: bodies that are being read, images that are being decoded, engines of explanations.

Memory is charged before it is allocated. A request that would exceed the budget waits, or is refused, so that no
request can get the process killed, and all others with it. What exceeds the whole budget is refused at once.
"""

from __future__ import annotations

import asyncio
import ctypes
import sys
import threading
from collections import deque
from typing import NamedTuple

import psutil

from trainer.machine import memory_limit

RESERVED_SHARE = 0.1  # of the machine's memory: for what is not charged, such as responses and connections
MIN_BUDGET = 32 << 20  # one image of the largest size, and its form
MAPPED_BLOCK_BYTES = 1 << 20
M_MMAP_THRESHOLD = -3  # of glibc's malloc.h


class _Waiter(NamedTuple):
    size: int
    future: asyncio.Future[None]


class MemoryBudget:
    """A budget of `size` bytes, for any thread."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._free = size
        self._lock = threading.Lock()
        self._waiters: deque[_Waiter] = deque()

    def take(self, size: int) -> bool:
        """Charge `size` bytes, at once or not at all; this overtakes callers that wait in `acquire`."""
        with self._lock:
            if size > self._free:
                return False
            self._free -= size
            return True

    def take_in_turn(self, size: int) -> bool:
        """Charge `size` bytes, at once or not at all, unless others wait in `acquire`."""
        return not self._waiters and self.take(size)

    async def acquire(self, size: int) -> None:
        """Wait for `size` bytes, first come, first served. The caller limits the time."""
        if self.take_in_turn(size):
            return
        waiter = _Waiter(size, asyncio.get_running_loop().create_future())
        with self._lock:
            self._waiters.append(waiter)
            self._grant()  # some may have been given back meanwhile
        try:
            await waiter.future
        except asyncio.CancelledError:
            self._leave(waiter)
            raise

    def give_back(self, size: int) -> None:
        with self._lock:
            self._free += size
            self._grant()

    def _grant(self) -> None:
        while self._waiters and self._waiters[0].size <= self._free:
            waiter = self._waiters.popleft()
            self._free -= waiter.size
            waiter.future.get_loop().call_soon_threadsafe(self._wake, waiter)

    def _wake(self, waiter: _Waiter) -> None:
        if waiter.future.done():  # cancelled after its memory was granted
            self.give_back(waiter.size)
        else:
            waiter.future.set_result(None)

    def _leave(self, waiter: _Waiter) -> None:
        """A cancelled waiter: drop it, or give back what it has been granted and could not use."""
        if waiter.future.done() and not waiter.future.cancelled():
            self.give_back(waiter.size)
            return
        with self._lock:
            if waiter in self._waiters:
                self._waiters.remove(waiter)
                self._grant()  # the next one may need less


def request_memory(workers: int) -> int:
    """Bytes that each of `workers` processes may spend on requests, once its model is warm."""
    process = psutil.Process()
    own = process.memory_info().rss
    parent = process.parent()
    supervisor = parent.memory_info().rss if parent and workers > 1 else 0
    return max(MIN_BUDGET, int(((1 - RESERVED_SHARE) * memory_limit() - supervisor) / workers) - own)


def return_freed_blocks() -> None:
    """Let the process return blocks above 1 MiB to the system when they are freed, so that the budget holds.

    glibc keeps blocks of up to 32 MiB once one of these has been freed, and a heap with gaps took 160 MB more than was
    charged. A threshold that is set stays. Other C libraries have none.
    """
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):
        libc.mallopt(M_MMAP_THRESHOLD, MAPPED_BLOCK_BYTES)
