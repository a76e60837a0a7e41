"""On a real connection: uvicorn with the protocol and a shedder, and an application that says what it was sent."""

from __future__ import annotations

import asyncio
import http.client
import json
import logging
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import uvicorn
from starlette.types import Receive, Scope, Send

from trainer.serving import load_shedding
from trainer.serving.http_protocol import HttpProtocol
from trainer.serving.load_shedding import LoadShedder
from trainer.serving.memory import MemoryBudget
from trainer.serving.responses import Response
from trainer.serving.tokens import Tokens

TIMEOUT_S = 10
INFER = "/v2/models/{name}/infer"
REFUSED = {"error": {"code": "overloaded", "message": load_shedding.MESSAGE}}


async def application(scope: Scope, receive: Receive, send: Send) -> None:
    size, more = 0, True
    while more:
        message = await receive()
        size, more = size + len(message.get("body", b"")), message.get("more_body", False)
    body = json.dumps({"body": size}).encode()
    head = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": head})
    await send({"type": "http.response.body", "body": body})


@dataclass
class Overload:
    """Whether the server is overloaded, and the requests that were counted."""

    room: int = 0  # images that fit; the next is refused
    counted: Counter[tuple[str, int]] = field(default_factory=Counter)

    def shedder(self, tokens: Tokens | None = None) -> LoadShedder:
        def on_request(route: str, status: int, seconds: float) -> None:
            self.counted[route, status] += 1

        return LoadShedder(lambda ahead: ahead >= self.room, {"/predict", INFER}, tokens, on_request)


@contextmanager
def listening(shedder: LoadShedder, memory: MemoryBudget = HttpProtocol.memory) -> Iterator[http.client.HTTPConnection]:
    """A connection to a server."""

    class Protocol(HttpProtocol):
        pass

    Protocol.shedder, Protocol.memory = shedder, memory
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    config = uvicorn.Config(application, port=port, http=Protocol, log_config=None, timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)) as connection:
            yield connection
    finally:
        server.should_exit = True
        thread.join(TIMEOUT_S)


def ask(
    connection: http.client.HTTPConnection,
    path: str = "/predict",
    method: str = "POST",
    headers: dict[str, str] | None = None,
    size: int = 100,
) -> tuple[int, object]:
    connection.request(method, path, bytes(size), headers or {})
    response = connection.getresponse()
    return response.status, json.loads(response.read())


def test_a_refusal_leaves_the_connection_in_order() -> None:
    """A large body is dropped as it comes, and the next request on the same connection has its own response."""
    overload = Overload()
    with listening(overload.shedder()) as connection:
        connection.request("POST", "/predict", bytes(3_000_000))
        refusal = connection.getresponse()
        assert (refusal.status, json.loads(refusal.read())) == (503, REFUSED)
        assert refusal.headers["retry-after"] == "1"
        assert refusal.headers["content-type"] == "application/json"
        port = connection.sock.getsockname()
        overload.room = 1
        assert ask(connection, size=7) == (200, {"body": 7})
        assert connection.sock.getsockname() == port
        overload.room = 0
        assert ask(connection) == (503, REFUSED)
    assert overload.counted == {("/predict", 503): 2}


def test_pipelined_requests_have_their_responses_in_order() -> None:
    with listening(Overload().shedder()) as connection:
        connection.connect()
        head = "POST {} HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\nab"
        paths = ("/predict", "/predict", "/elsewhere", "/predict", "/elsewhere")
        connection.sock.sendall("".join(head.format(path) for path in paths).encode())
        statuses: list[int] = []
        with connection.sock.makefile("rb") as stream:
            while len(statuses) < len(paths):
                statuses.append(int(stream.readline().split()[1]))
                length = 0
                while line := stream.readline().strip().lower():
                    length = int(line.partition(b":")[2]) if line.startswith(b"content-length") else length
                stream.read(length)
    assert statuses == [503, 503, 200, 503, 200]


def test_a_refused_request_gives_the_memory_of_its_head_back() -> None:
    memory = MemoryBudget(1 << 20)
    with listening(Overload().shedder(), memory) as connection:
        assert ask(connection)[0] == 503
        assert connection.sock is not None  # still open
        assert memory.take(memory.size)


def test_the_open_inference_protocol_has_its_own_errors() -> None:
    overload = Overload()
    with listening(overload.shedder()) as connection:
        for path in ("/v2/models/any/infer", "/v2/models/any/versions/7/infer"):
            assert ask(connection, path) == (503, {"error": load_shedding.MESSAGE})
    assert overload.counted == {(INFER, 503): 2}


@pytest.mark.parametrize(
    ("path", "method", "headers"),
    [
        ("/predict", "GET", {}),
        ("/metrics", "POST", {}),
        ("/predict", "POST", {"Origin": "http://page.example"}),  # a page can read only what has the headers of CORS
        ("/predict", "POST", {"Expect": "100-continue"}),
        ("/predict", "POST", {"Connection": "close"}),
    ],
)
def test_other_requests_take_the_usual_way(path: str, method: str, headers: dict[str, str]) -> None:
    overload = Overload()
    with listening(overload.shedder()) as connection:
        assert ask(connection, path, method, headers) == (200, {"body": 100})
    assert not overload.counted


def test_a_client_without_a_token_takes_the_usual_way(tmp_path: Path) -> None:
    (tmp_path / "tokens").write_text("correct-horse\n")
    with listening(Overload().shedder(Tokens(tmp_path / "tokens"))) as connection:
        assert ask(connection, headers={"Authorization": "Bearer wrong"}) == (200, {"body": 100})
        assert ask(connection, headers={"Authorization": "Bearer correct-horse"}) == (503, REFUSED)


def test_requests_that_arrive_together_share_the_room() -> None:
    """None of them has been counted by the queue when the next one is judged."""
    scope: Scope = {"method": "POST", "path": "/predict", "headers": []}
    overload = Overload(room=3)

    async def rounds() -> list[list[Response | None]]:
        shedder, found = overload.shedder(), []
        for _ in range(2):
            found.append([shedder.refusal(scope) for _ in range(5)])
            await asyncio.sleep(0)
        return found

    for round in asyncio.run(rounds()):
        assert [response and response.status for response in round] == [None, None, None, 503, 503]


def test_a_second_of_refusals_is_one_line(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(load_shedding, "LOG_EVERY_S", 0.01)
    scope: Scope = {"method": "POST", "path": "/predict", "headers": []}

    async def refuse() -> None:
        shedder = Overload().shedder()
        for count in (3, 2):
            for _ in range(count):
                assert shedder.refusal(scope)
            await asyncio.sleep(0.1)

    with caplog.at_level(logging.WARNING, "bentoml.trainer"):
        asyncio.run(refuse())
    found = [(record.getMessage(), vars(record)["status"], vars(record)["path"]) for record in caplog.records]
    text = load_shedding.MESSAGE
    assert found == [(f"{text} ({count} such requests in a second)", 503, "/predict") for count in (3, 2)]
