"""HTTP load generator for loopback: a closed loop of keep-alive connections, or an open loop at a fixed rate.

It sends one prepared request and parses only the status and the length of each response. It shares the machine with
the server, so it must use little CPU: that is why it does not use httpx.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import cast

import uvloop

CONNECT_INTERVAL_S = 0.002
OnResponse = Callable[["tuple[bytes, bytes] | None"], None]


@dataclass
class LoadResult:
    """Counts and latencies of one run. Latencies are in seconds, of responses with status 200."""

    seconds: float = 0.0
    statuses: Counter[int] = field(default_factory=Counter)  # key 0: the connection failed; key -1: not sent
    latencies: list[float] = field(default_factory=list)
    refusal_latencies: list[float] = field(default_factory=list)  # the same of responses with status 503
    wrong: int = 0  # responses with status 200 that `is_correct` rejects

    @property
    def rate(self) -> float:
        """Responses with status 200 per second."""
        return self.statuses[200] / self.seconds

    @property
    def sent(self) -> int:
        return self.statuses.total() - self.statuses[-1]

    @property
    def failed(self) -> int:
        """Requests that were sent and got no response with status 200."""
        return self.sent - self.statuses[200]

    @property
    def errors(self) -> int:
        return self.statuses.total() - self.statuses[200] + self.wrong

    def percentile(self, fraction: float) -> float:
        return percentile(self.latencies, fraction)


def percentile(latencies: Sequence[float], fraction: float) -> float:
    ordered = sorted(latencies)
    return ordered[min(len(ordered) - 1, int(fraction * len(ordered)))] if ordered else float("nan")


def request_bytes(path: str, body: bytes, content_type: str, headers: Mapping[str, str] | None = None) -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\n"
    more = "".join(f"{name}: {value}\r\n" for name, value in (headers or {}).items())
    return f"{head}{more}\r\n".encode() + body


def closed_loop(
    port: int,
    request: bytes,
    *,
    connections: int,
    requests: int | None = None,
    seconds: float | None = None,
    is_correct: Callable[[bytes], bool] = lambda body: True,
) -> LoadResult:
    """Each connection sends its next request after the response to the last one, and honours Retry-After.

    Ends after `requests` in total, or after `seconds`.
    """

    async def run() -> LoadResult:
        load, left, start = LoadResult(), requests, 0.0

        def has_more() -> bool:
            nonlocal left
            if seconds is not None and time.perf_counter() - start > seconds:
                return False
            if left is not None:
                left -= 1
                return left >= 0
            return True

        async def client(connection: Connection | None) -> None:
            while has_more():
                connection, retry_after = await _send(connection, port, request, is_correct, load)
                if retry_after:
                    await asyncio.sleep(retry_after)
            if connection:
                connection.close()

        # All connections are opened before the measurement: otherwise the early ones delay the late ones. They are
        # opened one after the other, as real clients arrive: one of several workers may accept a whole burst.
        opened = [await connect(port)]
        for _ in range(connections - 1):
            await asyncio.sleep(CONNECT_INTERVAL_S)
            opened.append(await connect(port))
        start = time.perf_counter()
        await asyncio.gather(*(client(connection) for connection in opened))
        load.seconds = time.perf_counter() - start
        return load

    return uvloop.run(run())


def open_loop(
    port: int,
    request: bytes,
    *,
    rate: float,
    seconds: float,
    connections: int,
    keep_going: Callable[[], bool] = lambda: False,
    is_correct: Callable[[bytes], bool] = lambda body: True,
) -> LoadResult:
    """Sends `rate` requests per second whether or not earlier ones are answered; up to `connections` at once.

    Ends after `seconds`, or later, when `keep_going` returns False. A request that finds no free connection is counted
    as status -1: the machine cannot generate that much load.
    """

    async def run() -> LoadResult:
        load, start = LoadResult(), time.perf_counter()
        idle: list[Connection | None] = [None] * connections
        tasks: set[asyncio.Task[None]] = set()

        async def connect_and_send() -> None:
            begin = time.perf_counter()
            try:
                connection = await connect(port)
            except OSError:
                load.statuses[0] += 1
                idle.append(None)
            else:
                send(connection, begin)

        def send(connection: Connection, begin: float) -> None:
            def receive(response: tuple[bytes, bytes] | None) -> None:
                _record(response, begin, is_correct, load)
                idle.append(connection)

            connection.start(request, receive)

        sent = 0
        while (now := time.perf_counter() - start) < seconds or keep_going():
            while sent < now * rate:
                sent += 1
                if not idle:
                    load.statuses[-1] += 1
                    continue
                connection = idle.pop()
                if connection and connection.is_open:  # without a task, which takes as long as all else here
                    send(connection, time.perf_counter())
                    continue
                task = asyncio.create_task(connect_and_send())
                tasks.add(task)
                task.add_done_callback(tasks.discard)
            await asyncio.sleep(0.002)
        load.seconds = time.perf_counter() - start
        while len(idle) < connections:
            await asyncio.sleep(0.002)
        for connection in idle:
            if connection:
                connection.close()
        return load

    return uvloop.run(run())


class Connection(asyncio.Protocol):
    """Keep-alive connection with at most one request in flight."""

    def __init__(self) -> None:
        self._buffer = b""
        self._on_response: OnResponse | None = None
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0 or self._on_response is None:
            return
        head = self._buffer[:end].lower()
        length = int(_header(head, b"content-length") or 0)
        if len(self._buffer) >= end + 4 + length:
            body = self._buffer[end + 4 : end + 4 + length]
            self._buffer = b""
            self._end((head, body))

    def connection_lost(self, error: Exception | None) -> None:
        self._end(None)

    @property
    def is_open(self) -> bool:
        """Whether the server has not closed the connection, as it does with one that was idle for seconds."""
        return self._transport is not None and not self._transport.is_closing()

    def start(self, request: bytes, on_response: OnResponse) -> None:
        """Send the request; `on_response` gets the response's head and body, or None for a connection that is lost."""
        assert self._transport
        self._on_response = on_response
        self._transport.write(request)

    async def send(self, request: bytes) -> tuple[bytes, bytes] | None:
        """The response's head and body; None for a connection that is lost."""
        arrived: asyncio.Future[tuple[bytes, bytes] | None] = asyncio.get_running_loop().create_future()
        # It is cancelled where the caller waits no longer.
        self.start(request, lambda response: None if arrived.done() else arrived.set_result(response))
        return await arrived

    def close(self) -> None:
        if self._transport:
            self._transport.close()

    def _end(self, response: tuple[bytes, bytes] | None) -> None:
        on_response, self._on_response = self._on_response, None
        if on_response:
            on_response(response)


async def connect(port: int) -> Connection:
    _, connection = await asyncio.get_running_loop().create_connection(Connection, "127.0.0.1", port)
    return connection


async def _send(
    connection: Connection | None, port: int, request: bytes, is_correct: Callable[[bytes], bool], load: LoadResult
) -> tuple[Connection | None, float]:
    """Send the request and record the response in `load`; returns the connection to reuse and the seconds to wait."""
    start = time.perf_counter()
    try:
        if connection is None or not connection.is_open:
            connection = await connect(port)
    except OSError:
        load.statuses[0] += 1
        return None, 0.0
    response = await connection.send(request)
    _record(response, start, is_correct, load)
    if response is None:
        return None, 0.0
    return connection, float(_header(response[0], b"retry-after") or 0)


def _record(
    response: tuple[bytes, bytes] | None, start: float, is_correct: Callable[[bytes], bool], load: LoadResult
) -> None:
    if response is None:
        load.statuses[0] += 1
        return
    head, body = response
    status = int(head.split(b" ", 2)[1])
    load.statuses[status] += 1
    if status == 200:
        load.latencies.append(time.perf_counter() - start)
        load.wrong += not is_correct(body)
    elif status == 503:
        load.refusal_latencies.append(time.perf_counter() - start)


def _header(head: bytes, name: bytes) -> bytes | None:
    start = head.find(b"\r\n" + name + b":")
    return None if start < 0 else head[start + len(name) + 3 :].split(b"\r\n", 1)[0].strip()
