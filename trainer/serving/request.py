"""A request's body, read within limits of size, time and memory, and the files of a multipart form."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from typing import ClassVar

from starlette.datastructures import FormData, Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.types import Message, Receive, Scope

from trainer.serving.answers import ApiError
from trainer.serving.memory import Memory

MIB = 2**20
IMAGE_LIMIT = 10 * MIB
BATCH_LIMIT = 64 * MIB
BATCH_IMAGES = 256
FRAMING_LIMIT = MIB // 4  # what multipart adds around the files
GROWTH = 8  # a buffer that grows takes an eighth more than it holds
PART_HEADERS = 32  # of a file; each takes the parser's time and memory
READ_TIMEOUT_S = 30.0  # for the whole body
STOPPING_READ_TIMEOUT_S = 1.0  # what is left of it where the server stops
PIECE = MIB // 4  # of a body that is parsed before others have their turn


class Request:
    """A request to one of the contract's endpoints."""

    _reading: ClassVar[set[asyncio.Timeout]] = set()  # of all requests of this process
    _stop_at: ClassVar[float] = math.inf  # on the event loop's clock

    def __init__(self, scope: Scope, receive: Receive, memory: Memory) -> None:
        self.headers = Headers(scope=scope)
        self._receive = receive
        self._memory = memory
        self._held = 0

    @classmethod
    def stop_reading(cls) -> None:
        """From now on a body has a second left to arrive: the server stops, and waits for those that it answers."""
        cls._stop_at = asyncio.get_running_loop().time() + STOPPING_READ_TIMEOUT_S
        for timeout in [timeout for timeout in cls._reading if not timeout.expired()]:
            timeout.reschedule(min(cls._stop_at, timeout.when() or math.inf))

    async def body(self, limit: int) -> bytes:
        """The whole body. Raises ApiError: `too_large` as soon as it exceeds `limit` bytes, `empty_body`, `overloaded`,
        and `bad_request` where it does not arrive in time; ConnectionResetError for a client that has gone.
        """
        chunks = [chunk async for chunk in self.chunks(limit)]
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    async def chunks(self, limit: int) -> AsyncIterator[bytes]:
        """The body as it arrives. Raises as `body` does."""
        length = self.headers.get("content-length", "")
        if length.isdecimal() and int(length) > limit:
            raise _too_large(limit)
        latest = asyncio.get_running_loop().time() + READ_TIMEOUT_S
        size, more = 0, True
        while more:
            message = await self._receive_until(latest)
            if message["type"] == "http.disconnect":
                raise ConnectionResetError
            chunk = message.get("body", b"")
            size += len(chunk)
            if size > limit:
                raise _too_large(limit)
            self._hold(len(chunk) + len(chunk) // GROWTH)
            more = message.get("more_body", False)
            if chunk:
                yield chunk
        if not size:
            raise ApiError("empty_body", "the request has no body: the bytes of an image are expected")

    async def files(self, chunks: AsyncIterator[bytes], name: str, most: int) -> list[bytes]:
        """The file parts of a multipart body, all called `name`. Raises ApiError `bad_request` for another shape."""
        stream = _with_an_end(await anext(chunks), chunks)  # where there is no first chunk, that is what is wrong
        parser = _InMemoryParser(self.headers, stream, max_files=most, max_fields=most)  # type: ignore[arg-type]
        try:
            form: FormData = await parser.parse()
        except (MultiPartException, KeyError) as error:
            # A KeyError: no boundary in the Content-Type.
            raise ApiError("bad_request", f"not a multipart form with 1 to {most} files: {error}") from error
        found = []
        for key, part in form.multi_items():
            if not isinstance(part, UploadFile) or key != name:
                kind = "file" if isinstance(part, UploadFile) else "text field"
                raise ApiError("bad_request", f"the {kind} {key!r} is not expected: only files called {name!r} are")
            found.append(await part.read())
            await part.close()
        if not found:
            raise ApiError("bad_request", f"a multipart form with a file called {name!r} is expected; it has none")
        return found

    async def disconnected(self) -> None:
        """Wait until the client has gone. Only after the whole body has been read."""
        while (await self._receive())["type"] != "http.disconnect":
            pass

    def release(self) -> None:
        """Give back what the body took."""
        self._memory.give_back(self._held)
        self._held = 0

    async def _receive_until(self, latest: float) -> Message:
        try:
            async with asyncio.timeout_at(min(latest, self._stop_at)) as timeout:
                self._reading.add(timeout)
                try:
                    return await self._receive()
                finally:
                    self._reading.discard(timeout)
        except TimeoutError:
            raise ApiError("bad_request", "the body did not arrive in time") from None

    def _hold(self, size: int) -> None:
        if not self._memory.take(size):
            raise ApiError("overloaded", "the server holds as many bodies as it has memory for; try again later")
        self._held += size


class _InMemoryParser(MultiPartParser):
    spool_max_size = BATCH_LIMIT + FRAMING_LIMIT  # never to disk: there may be none to write to

    def on_header_end(self) -> None:
        super().on_header_end()
        if len(self._current_part.item_headers) > PART_HEADERS:
            raise MultiPartException(f"A part has more than {PART_HEADERS} headers.")


async def in_pieces(body: bytes) -> AsyncIterator[bytes]:
    """A whole body as `Request.files` reads it."""
    for start in range(0, len(body), PIECE):
        yield body[start : start + PIECE]
        await asyncio.sleep(0)


async def _with_an_end(first: bytes, others: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """As Starlette's parser expects it: an empty chunk comes last."""
    yield first
    async for chunk in others:
        yield chunk
    yield b""


def _too_large(limit: int) -> ApiError:
    return ApiError("too_large", f"the body is too large: at most {limit // MIB} MiB are read")
