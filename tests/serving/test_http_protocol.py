"""On a real connection: uvicorn with the protocol, and an application that echoes each request."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import pytest
import uvicorn
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send

from trainer.serving import http_protocol, unread
from trainer.serving.http_protocol import HttpProtocol
from trainer.serving.memory import MemoryBudget

TIMEOUT_S = 10


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    request = Request(scope, receive)
    if scope["path"] == "/refused":
        await JSONResponse({}, 413)(scope, receive, send)
        return
    body = (await request.body()).decode()
    await asyncio.sleep(0.05)  # a client may close its side meanwhile
    version = scope["http_version"]
    headers = {name: value for name, value in request.headers.items() if name in ("connection", "upgrade", "x-more")}
    value = {"method": request.method, "path": request.url.path, "version": version, "body": body, "headers": headers}
    await JSONResponse(value)(scope, receive, send)


@contextmanager
def listening() -> Iterator[int]:
    """A server; its port."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
    server = uvicorn.Server(
        uvicorn.Config(echo, port=port, http=HttpProtocol, log_config=None, timeout_graceful_shutdown=1)
    )
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield port
    finally:
        server.should_exit = True
        thread.join(TIMEOUT_S)


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with listening() as port:
        yield port


def exchange(
    port: int, *segments: bytes, expected: int, half_close: bool = False
) -> list[tuple[int, dict[str, object]]]:
    """(status, value) of the responses to these segments, which are sent one by one on one connection.

    Reads up to `expected` responses, or to the connection's end.
    """
    with socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT_S) as connection:
        for segment in segments:
            connection.sendall(segment)
            time.sleep(0.05 if len(segments) > 1 else 0)
        if half_close:
            connection.shutdown(socket.SHUT_WR)
        received = b""
        found: list[tuple[int, dict[str, object]]] = []
        while len(found) < expected:
            data = connection.recv(65536)
            received += data
            while head := re.match(rb"HTTP/1.1 (\d+).*?content-length: (\d+)\r\n.*?\r\n\r\n", received, re.DOTALL):
                end = head.end() + int(head[2])
                if len(received) < end:
                    break
                body = received[head.end() : end]
                found.append((int(head[1]), json.loads(body) if body.startswith(b"{") else {"text": body.decode()}))
                received = received[end:]
            if not data:
                break
        return found


OFFER = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAEAAAAIAAAAB\r\n"


@pytest.mark.parametrize(
    "offer",
    [OFFER, OFFER.upper(), b"upgrade: websocket\r\nconnection: keep-alive, upgrade\r\n", b"Upgrade: x\r\n", b""],
)
@pytest.mark.parametrize("split", [False, True], ids=["one segment", "head and body"])
def test_an_offer_to_upgrade_is_ignored(port: int, offer: bytes, split: bool) -> None:
    """As Java's HttpClient and `curl --http2` make it."""
    head = b"POST /predict HTTP/1.1\r\nHost: x\r\n" + offer + b"Content-Length: 5\r\nX-More: yes\r\n\r\n"
    segments = (head, b"hello") if split else (head + b"hello",)
    ((status, value),) = exchange(port, *segments, expected=1)
    assert status == 200
    assert (value["method"], value["path"], value["body"]) == ("POST", "/predict", "hello")
    headers = value["headers"]
    assert isinstance(headers, dict)
    assert headers["x-more"] == "yes"
    assert "upgrade" not in headers.get("connection", "").lower()


def test_a_head_in_many_segments_with_an_offer_and_a_body_in_chunks(port: int) -> None:
    head = b"POST / HTTP/1.1\r\nHost: x\r\n" + OFFER + b"Transfer-Encoding: chunked\r\n\r\n"
    body = b"5;note=1\r\nhello\r\n1\r\n!\r\n0\r\nTrailer: x\r\n\r\n"
    segments = [head[start : start + 20] for start in range(0, len(head), 20)] + [body[:7], body[7:]]
    ((status, value),) = exchange(port, *segments, expected=1)
    assert (status, value["body"]) == (200, "hello!")


def test_requests_in_a_row_each_with_an_offer(port: int) -> None:
    requests = b"".join(
        b"POST /%d HTTP/1.1\r\nHost: x\r\n%sContent-Length: 1\r\n\r\n%d" % (number, OFFER, number)
        for number in range(5)
    )
    found = exchange(port, requests, expected=5)
    assert [(status, value["path"], value["body"]) for status, value in found] == [
        (200, f"/{number}", str(number)) for number in range(5)
    ]


def test_absolute_urls_and_expect_100_continue(port: int) -> None:
    whole = b"POST http://x/predict?a=b HTTP/1.1\r\nhOST: x\r\nCONTENT-length: 2\r\n\r\nhi"
    assert [(status, value["path"]) for status, value in exchange(port, whole, expected=1)] == [(200, "/predict")]
    head = b"POST / HTTP/1.1\r\nHost: x\r\n" + OFFER + b"Expect: 100-Continue\r\nContent-Length: 2\r\n\r\n"
    with socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT_S) as connection:
        connection.sendall(head)
        assert connection.recv(100).startswith(b"HTTP/1.1 100 Continue")
        connection.sendall(b"hi")
        assert connection.recv(1000).startswith(b"HTTP/1.1 200 OK")


def test_the_http_version_is_kept(port: int) -> None:
    head = b"POST / HTTP/1.0\r\nConnection: keep-alive, Upgrade\r\nUpgrade: h2c\r\nContent-Length: 2\r\n\r\nhi"
    ((status, value),) = exchange(port, head, expected=1)
    assert (status, value["version"], value["body"]) == (200, "1.0", "hi")


def test_a_half_closed_connection_gets_its_responses(port: int) -> None:
    requests = b"".join(b"POST /%d HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx" % number for number in range(3))
    found = exchange(port, requests, expected=4, half_close=True)
    assert [(status, value["path"]) for status, value in found] == [(200, "/0"), (200, "/1"), (200, "/2")]
    assert exchange(port, requests[: len(requests) // 3 - 1], expected=1, half_close=True) == []  # its body never comes


@pytest.mark.parametrize(
    "request_", [b"CONNECT a:1 HTTP/1.1\r\nHost: x\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"\0"]
)
def test_invalid_requests_are_refused(port: int, request_: bytes) -> None:
    ((status, _),) = exchange(port, request_, expected=1)
    assert status == 400


HEAD = b"POST / HTTP/1.1\r\nHost: x\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"


@pytest.mark.parametrize(
    ("start", "repeated"),
    [
        pytest.param(HEAD, b"a: b\r\n", id="short headers"),
        pytest.param(HEAD, b"name: " + b"v" * 1000 + b"\r\n", id="long headers"),
        pytest.param(HEAD + b"a: ", b"v" * 1000, id="a header's value"),
        pytest.param(HEAD, b"n" * 1000, id="a header's name"),
        pytest.param(b"GET /", b"u" * 1000, id="a URL"),
        pytest.param(b"", b"\r\n", id="empty lines"),
        pytest.param(HEAD + OFFER, b"a: b\r\n", id="headers with an offer to upgrade"),
        pytest.param(CHUNKED + b"0\r\n", b"a: b\r\n", id="trailers"),
        pytest.param(CHUNKED + b"0\r\na: ", b"v" * 1000, id="a trailer's value"),
        pytest.param(CHUNKED + b"5;", b"e" * 1000, id="a chunk's extension"),
    ],
)
def test_a_head_without_an_end_is_refused_after_some_kilobytes(port: int, start: bytes, repeated: bytes) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT_S) as connection:
        connection.sendall(start)
        sent, received = 0, b""
        with contextlib.suppress(ConnectionError):
            while sent < 64 << 20 and not select.select([connection], [], [], 0)[0]:
                connection.sendall(repeated * (4000 // len(repeated)))
                sent += 4000
            while data := connection.recv(65536):
                received += data
    assert sent < 8 << 20
    if start.startswith(CHUNKED):  # a response may have begun: another one must not follow
        assert received == b""
        return
    assert received.startswith(b"HTTP/1.1 431 ")
    assert json.loads(received.split(b"\r\n\r\n")[1])["error"]["code"] == "too_large"


def test_a_head_below_the_limit_is_read(port: int) -> None:
    headers = b"".join(b"x-%d: %s\r\n" % (number, b"v" * 900) for number in range(15))
    ((status, _),) = exchange(port, HEAD + headers + b"Content-Length: 2\r\n\r\nhi", expected=1)
    assert status == 200


def test_many_pipelined_requests_end_the_connection(port: int) -> None:
    """Each costs kilobytes while it waits for its turn."""
    requests = [b"GET /%d HTTP/1.1\r\nHost: x\r\n\r\n" % number for number in range(1000)]
    assert len(exchange(port, b"".join(requests[:30]), expected=30)) == 30
    assert len(exchange(port, b"".join(requests), expected=1000)) < 40


def test_heads_are_charged_and_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    budget = MemoryBudget(50_000)
    monkeypatch.setattr(HttpProtocol, "memory", budget)
    partial = HEAD + b"a: " + b"v" * 9000
    whole = HEAD + b"Content-Length: 2\r\n\r\nhi"
    with listening() as port:
        for _ in range(3):
            with ExitStack() as stack:
                for _ in range(5):
                    connection = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT_S))
                    connection.sendall(partial)
                wait_until(lambda: is_spent(budget, 9000))
                ((status, value),) = exchange(port, partial, expected=1)
                assert (status, "overloaded" in str(value)) == (503, True)
            wait_until(lambda: budget.take(50_000))
            budget.give_back(50_000)
        assert [status for status, _ in exchange(port, whole * 5, expected=5)] == [200] * 5
        wait_until(lambda: budget.take(50_000))


def is_spent(budget: MemoryBudget, size: int) -> bool:
    if budget.take(size):
        budget.give_back(size)
        return False
    return True


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_head_that_does_not_arrive_ends_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_protocol, "HEAD_TIMEOUT_S", 0.3)
    whole = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi"
    with listening() as port:
        for first in (b"", b"POST / HTTP/1.1\r\nHo", whole + b"POST /again HTTP/1.1\r\n"):
            with socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT_S) as connection:
                connection.sendall(first)
                while connection.recv(65536):  # raises TimeoutError if the connection stays open
                    pass
        # A slow body is not a slow head: the reader of bodies limits it.
        assert exchange(port, whole[:-1], b"", b"", b"", b"", b"", b"", b"", b"", b"i", expected=1)[0][0] == 200


@pytest.mark.parametrize("end", [b"", b"Connection: close\r\n"], ids=["keep-alive", "close"])
def test_a_client_that_does_not_read_is_disconnected(end: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its response is more than the kernel's buffers hold."""
    monkeypatch.setattr(unread, "TIMEOUT_S", 0.3)
    ended, connection_lost = threading.Event(), HttpProtocol.connection_lost

    def note_end(self: HttpProtocol, exc: Exception | None) -> None:
        connection_lost(self, exc)
        ended.set()

    monkeypatch.setattr(HttpProtocol, "connection_lost", note_end)
    with listening() as port, socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT_S) as connection:
        connection.sendall(HEAD + end + b"Content-Length: 8000000\r\n\r\n" + b"x" * 8_000_000)
        assert ended.wait(TIMEOUT_S)


def test_a_client_that_reads_slowly_gets_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unread, "TIMEOUT_S", 0.3)
    with listening() as port, socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT_S) as connection:
        connection.sendall(HEAD + b"Connection: close\r\nContent-Length: 8000000\r\n\r\n" + b"x" * 8_000_000)
        received = 0
        while data := connection.recv(400_000):
            received += len(data)
            time.sleep(0.05)
    assert received > 8_000_000


def test_the_rest_of_a_refused_body_has_a_limit_of_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_protocol, "HEAD_TIMEOUT_S", 0.3)
    refused = b"POST /refused HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n"
    whole = HEAD + b"Content-Length: 2\r\n\r\nhi"
    with listening() as port:
        with socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT_S) as connection:
            connection.sendall(refused)
            assert connection.recv(65536).startswith(b"HTTP/1.1 413 ")
            deadline = time.monotonic() + TIMEOUT_S
            with contextlib.suppress(ConnectionError):
                while not select.select([connection], [], [], 0.05)[0]:
                    connection.sendall(b"x")
                    assert time.monotonic() < deadline
        found = exchange(port, refused + bytes(1000), whole, expected=2)
        assert [status for status, _ in found] == [413, 200]  # once it has come, the connection goes on
