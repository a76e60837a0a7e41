"""Clients of every kind, good and hostile, that talk to one server until a moment."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import io
import itertools
import json
import socket
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from random import Random

from load import request_bytes
from mutated_requests import STATUSES, ask_all
from PIL import Image
from swap import Versions

from trainer.artifact import store

ANSWER_TIMEOUT_S = 60.0  # the machine may be busy, and a server that has hung is found all the same
PAUSE_S = 0.02  # of a good client between two requests
PIPELINED = 8
IDLE = 20
UNREAD = 20  # connections whose client never reads
UNREAD_REQUESTS = 200  # of them, and of the page: more than the kernel's buffers hold
ENDLESS = 4  # clients whose head never ends
HEAD = b"POST /predict HTTP/1.1\r\nHost: x\r\n"

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass
class Traffic:
    """The clients of one server, and what came of their requests."""

    port: int
    model: store.StoredModel  # its name is the one in v2's paths
    good: bytes  # an image of which `versions` know the answers
    versions: Versions
    images: Callable[[int], bytes]  # mutated ones
    slow: int  # connections that send a byte a second
    patient: bool  # the clients stay longer than the server may let idle, slow and unread connections wait
    random: Random
    counts: Counter[str] = field(default_factory=Counter)  # kind of client and status, or what it saw
    failures: list[str] = field(default_factory=list)
    numbers: Iterator[int] = field(default_factory=itertools.count)
    unread: list[socket.socket] = field(default_factory=list)  # of patient clients: only the server sees that they end

    async def run_until(self, end: float) -> None:
        """All clients at once; `end` is on the event loop's clock."""
        await asyncio.gather(
            self._mutated(end),
            self._good(end),
            self._open_inference(end),
            self._explain(end),
            self._pipelined(end),
            self._huge(end),
            self._cut_off(end),
            self._idle(end),
            self._slow(end),
            self._unread(end),
            *(self._endless(end) for _ in range(ENDLESS)),
        )

    async def _mutated(self, end: float) -> None:
        now = asyncio.get_running_loop().time
        numbers = itertools.takewhile(lambda _: now() < end, self.numbers)
        answers = await ask_all(self.port, self.model, self.images, numbers, self.good, self.versions)
        self.counts.update({f"mutated {key}": count for key, count in answers.statuses.items()})
        self.failures += answers.failures

    async def _good(self, end: float) -> None:
        request = request_bytes("/predict", self.good, "image/png")
        await self._ask(end, "good", request, self.versions.is_correct)

    async def _open_inference(self, end: float) -> None:
        inputs = {"name": "encoded", "datatype": "BYTES", "shape": [1], "data": [base64.b64encode(self.good).decode()]}
        name = self.model.tag.partition(":")[0]
        request = request_bytes(
            f"/v2/models/{name}/infer", json.dumps({"inputs": [inputs]}).encode(), "application/json"
        )

        def is_right(body: bytes) -> bool:
            answer = json.loads(body)
            outputs = {output["name"]: output["data"] for output in answer["outputs"]}
            model = f"{answer['model_name']}:{answer['model_version']}"
            return self.versions.is_right(
                {"model": model, "label": outputs["label"][0], "probability": max(outputs["probabilities"])}
            )

        await self._ask(end, "v2", request, is_right)

    async def _explain(self, end: float) -> None:
        request = request_bytes("/explain", self.good, "image/png")
        await self._ask(end, "explain", request, lambda body: body.startswith(b"\x89PNG"), pause_s=1)

    async def _huge(self, end: float) -> None:
        """A photo of 25 million pixels, and bodies above and below the limit."""
        photo = io.BytesIO()
        Image.new("L", (5000, 5000), 90).save(photo, "JPEG")
        bodies = (photo.getvalue(), b"\xff\xd8\xff" + bytes(9 << 20), bytes(11 << 20))
        for number in itertools.count():
            if asyncio.get_running_loop().time() > end:
                return
            request = request_bytes("/predict", bodies[number % len(bodies)], "image/jpeg")
            await self._ask(asyncio.get_running_loop().time(), "huge", request)
            await asyncio.sleep(0.5)

    async def _ask(
        self,
        end: float,
        kind: str,
        request: bytes,
        is_right: Callable[[bytes], bool] = lambda body: True,
        pause_s: float = PAUSE_S,
    ) -> None:
        """One request after the other, at least one, on connections of their own after an error."""
        streams: Streams | None = None
        while True:
            try:
                streams = streams or await self._open()
                streams[1].write(request)
                status, body, closes = await asyncio.wait_for(read_response(streams[0]), ANSWER_TIMEOUT_S)
                self._count(kind, status, body, status != 200 or is_right(body))
            except (OSError, EOFError, TimeoutError) as error:
                self.failures.append(f"{kind}: {error!r}")
                closes = True
            if closes and streams:
                streams[1].transport.abort()
                streams = None
            if asyncio.get_running_loop().time() > end:
                break
            await asyncio.sleep(pause_s)
        if streams:
            streams[1].transport.abort()

    async def _pipelined(self, end: float) -> None:
        request = request_bytes("/predict", self.good, "image/png")
        while asyncio.get_running_loop().time() < end:
            reader, writer = await self._open()
            writer.write(request * PIPELINED)
            try:
                for _ in range(PIPELINED):
                    status, body, _ = await asyncio.wait_for(read_response(reader), ANSWER_TIMEOUT_S)
                    self._count("pipelined", status, body, status != 200 or self.versions.is_correct(body))
            except (OSError, EOFError, TimeoutError) as error:
                self.failures.append(f"pipelined: {error!r}")
            writer.transport.abort()
            await asyncio.sleep(0.2)

    async def _cut_off(self, end: float) -> None:
        """A request that ends anywhere, or a client that goes before its answer."""
        request = request_bytes("/predict", self.good, "image/png")
        while asyncio.get_running_loop().time() < end:
            _, writer = await self._open()
            writer.write(request[: self.random.randint(0, len(request))])
            await asyncio.sleep(self.random.choice((0, 0.01)))
            writer.transport.abort()
            self.counts["cut off"] += 1

    async def _idle(self, end: float) -> None:
        opened = [await self._open() for _ in range(IDLE)]
        await self._wait_and_abort(end, "idle", opened)

    async def _slow(self, end: float) -> None:
        """Connections that send a byte a second: half of them of a head, half of a body."""
        body = HEAD + b"Content-Length: 10000\r\n\r\n"
        opened = []
        for number in range(self.slow):
            reader, writer = await self._open()
            if number % 2:
                writer.write(body)
            opened.append((reader, writer))
        sent = 0
        while asyncio.get_running_loop().time() < end:
            await asyncio.sleep(1)
            for number, (_, writer) in enumerate(opened):
                if not writer.transport.is_closing():
                    writer.write(b"x" if number % 2 else body[sent % len(body) :][:1])
            sent += 1
        await self._wait_and_abort(end, "slow", opened)

    async def _unread(self, end: float) -> None:
        """Requests for more than the kernel's buffers hold, whose responses nobody reads."""
        loop = asyncio.get_running_loop()
        sockets = [socket.socket() for _ in range(UNREAD)]
        for client in sockets:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.setblocking(False)
            await loop.sock_connect(client, ("127.0.0.1", self.port))
        for _ in range(UNREAD_REQUESTS // PIPELINED):
            for client in sockets:
                with contextlib.suppress(OSError):
                    client.send(b"GET /ui HTTP/1.1\r\nHost: x\r\n\r\n" * PIPELINED)
            await asyncio.sleep(0.25 if self.patient else 0.02)  # pipelined faster, they would be refused
        await asyncio.sleep(max(0, end - loop.time()))
        self.counts["unread"] += len(sockets)
        self.unread = sockets
        if not self.patient:
            self.close()

    def close(self) -> None:
        """Let the clients that do not read go."""
        for client in self.unread:
            client.close()
        self.unread = []

    async def _endless(self, end: float) -> None:
        """A head that goes on until it is refused."""
        while asyncio.get_running_loop().time() < end:
            reader, writer = await self._open()
            writer.write(HEAD)
            with contextlib.suppress(OSError):
                while not writer.transport.is_closing() and not reader.at_eof():
                    writer.write(b"a: b\r\n" * 500)
                    await writer.drain()
                    await asyncio.sleep(0.01)
            writer.transport.abort()
            self.counts["endless head, ended"] += 1
            await asyncio.sleep(0.5)

    async def _wait_and_abort(self, end: float, kind: str, opened: list[Streams]) -> None:
        await asyncio.sleep(max(0, end - asyncio.get_running_loop().time()))
        ended = await asyncio.gather(*(_has_ended(reader) for reader, _ in opened))
        self.counts[f"{kind}, ended by the server"] += sum(ended)
        if self.patient and not all(ended):
            self.failures.append(f"{kind}: {ended.count(False)} connections are still open")
        for _, writer in opened:
            writer.transport.abort()

    async def _open(self) -> Streams:
        return await asyncio.open_connection("127.0.0.1", self.port)

    def _count(self, kind: str, status: int, body: bytes, is_right: bool) -> None:
        self.counts[f"{kind} {status}"] += 1
        if status not in STATUSES or not is_right:
            self.failures.append(f"{kind}: {status} {body[:200]!r}")


async def _has_ended(reader: asyncio.StreamReader) -> bool:
    """Whether the server has closed the connection, perhaps after a response."""
    try:
        await asyncio.wait_for(reader.read(), 0.1)
    except TimeoutError:
        return False
    except OSError:
        return True
    return True


async def read_response(reader: asyncio.StreamReader) -> tuple[int, bytes, bool]:
    """Status, body, and whether the server ends the connection."""
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    length = int(head.partition(b"content-length: ")[2].split(b"\r\n")[0])
    return int(head.split(b" ", 2)[1]), await reader.readexactly(length), b"connection: close" in head
