"""A client that closes its side of the connection: does it still read?

The same packet (FIN) comes from a client that has ended its request (a half-close) and from one that has closed its
socket and is gone. Only data that is sent to them tells them apart: a closed socket answers with a reset (RST), and the
next write fails. Every response begins with the same bytes, so `ResponseProbe` sends these ahead, one at a time, while
the response is being computed. The client that still reads gets each byte once.
"""

from __future__ import annotations

import asyncio
from typing import Any

RESPONSE_START = b"HTTP/1.1 "
FIRST_DELAY_S = 0.02  # a quick response is not split; each further byte waits twice as long: 5 s for all but the last


class ResponseProbe:
    """A transport that writes the first bytes of a response before it is known, until the response itself comes."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._sent = 0
        self._delay_s = FIRST_DELAY_S
        self._timer = loop.call_later(self._delay_s, self._send_byte)

    def write(self, data: bytes) -> None:
        """Write a part of the response, without the bytes that were sent."""
        self._timer.cancel()
        rest, self._sent = data[self._sent :], 0
        self._transport.write(rest)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def _send_byte(self) -> None:
        if self._transport.is_closing() or self._sent == len(RESPONSE_START):
            return
        self._transport.write(RESPONSE_START[self._sent : self._sent + 1])
        self._sent += 1
        self._delay_s *= 2
        self._timer = self._loop.call_later(self._delay_s, self._send_byte)
