"""A client that does not read its responses: without a limit, it holds a descriptor as long as it likes."""

from __future__ import annotations

import asyncio

TIMEOUT_S = 30.0  # in which a client reads so much of what was sent to it, or all
MIN_BYTES = 64 << 10


class UnreadTimer:
    """Aborts a connection unless its client reads."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin when there is something to read, or when the connection is closing."""
        self.stop()
        self._timer = self._loop.call_later(TIMEOUT_S, self._check, self._transport.get_write_buffer_size())

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _check(self, bytes_before: int) -> None:
        if self._transport.get_write_buffer_size() <= bytes_before - MIN_BYTES:
            self.start()
        else:
            self._transport.abort()
