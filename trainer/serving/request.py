"""A request's body, read within limits, and the files of a multipart form."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from starlette.datastructures import FormData, Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.types import Message, Receive, Scope

from trainer.serving.answers import ApiError

MIB = 2**20
IMAGE_LIMIT = 10 * MIB
BATCH_LIMIT = 64 * MIB
BATCH_IMAGES = 256
FRAMING_LIMIT = MIB // 4  # what multipart adds around the files
# Of all requests that are being read: a body that would exceed it is refused as overload.
HELD_LIMIT = 512 * MIB
READ_TIMEOUT_S = 30.0  # for a body that does not come in one piece


class Request:
    """A request to one of the contract's endpoints."""

    held = 0  # bytes of bodies in memory, over all requests of this process

    def __init__(self, scope: Scope, receive: Receive) -> None:
        self.headers = Headers(scope=scope)
        self._receive = receive
        self._held = 0

    async def body(self, limit: int) -> bytes:
        """The whole body. Raises ApiError: `too_large` as soon as it exceeds `limit` bytes, `empty_body`."""
        length = self.headers.get("content-length", "")
        if length.isdecimal() and int(length) > limit:
            raise _too_large(limit)
        first = await self._receive()
        if first["type"] == "http.request" and not first.get("more_body"):
            self._hold(len(first.get("body", b"")), limit)
            body: bytes = first.get("body", b"")
        else:
            try:
                async with asyncio.timeout(READ_TIMEOUT_S):
                    body = await self._read(first, limit)
            except TimeoutError:
                message = f"the body did not arrive within {READ_TIMEOUT_S:.0f} s"
                raise ApiError("bad_request", message) from None
        if not body:
            raise ApiError("empty_body", "the request has no body: the bytes of an image are expected")
        return body

    async def files(self, body: bytes, name: str, most: int) -> list[bytes]:
        """The file parts of a multipart body, all called `name`. Raises ApiError `bad_request` for another shape."""

        async def chunks() -> AsyncIterator[bytes]:
            yield body
            yield b""

        parser = _InMemoryParser(self.headers, chunks(), max_files=most, max_fields=most)  # type: ignore[arg-type]
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
        if not found:
            raise ApiError("bad_request", f"a multipart form with a file called {name!r} is expected; it has none")
        return found

    async def disconnected(self) -> None:
        """Wait until the client has gone. Only after the whole body has been read."""
        while (await self._receive())["type"] != "http.disconnect":
            pass

    def release(self) -> None:
        Request.held -= self._held
        self._held = 0

    async def _read(self, message: Message, limit: int) -> bytes:
        body = bytearray()
        while True:
            if message["type"] == "http.disconnect":
                raise ConnectionResetError
            self._hold(len(message.get("body", b"")), limit)
            body += message.get("body", b"")
            if not message.get("more_body"):
                return bytes(body)
            message = await self._receive()

    def _hold(self, size: int, limit: int) -> None:
        self._held += size
        Request.held += size
        if self._held > limit:
            raise _too_large(limit)
        if Request.held > HELD_LIMIT:
            raise ApiError("overloaded", "the server holds as many bodies as it may; try again later")


class _InMemoryParser(MultiPartParser):
    spool_max_size = BATCH_LIMIT + FRAMING_LIMIT  # never to disk: there may be none to write to


def _too_large(limit: int) -> ApiError:
    return ApiError("too_large", f"the body is too large: at most {limit // MIB} MiB are read")
