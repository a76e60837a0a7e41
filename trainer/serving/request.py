"""Request bodies, read within limits of size, time and memory, and the files of a multipart form."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Coroutine
from typing import Any, ClassVar, TypeVar

from starlette.datastructures import FormData, Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.types import Message, Receive, Scope

from trainer.serving.compression import unpack
from trainer.serving.memory import MemoryBudget
from trainer.serving.responses import ApiError

T = TypeVar("T")

MIB = 2**20
MAX_IMAGE_BYTES = 10 * MIB
MAX_BATCH_BYTES = 64 * MIB
MAX_BATCH_IMAGES = 256
MAX_FRAMING_BYTES = MIB // 4  # of a multipart form, around its files
BUFFER_OVERHEAD = 8  # a growing buffer allocates an eighth more than it holds
MAX_PART_HEADERS = 32  # of a file in a form; each takes the parser's time and memory
READ_TIMEOUT_S = 30.0  # for the whole body
STOPPING_READ_TIMEOUT_S = 1.0  # for the rest of it, once the server stops
CHUNK_BYTES = MIB // 4  # parsed before other requests have their turn


class Request:
    """A request to an endpoint of the HTTP contract."""

    _reading: ClassVar[set[asyncio.Timeout]] = set()  # of all requests of this process
    stop_at: ClassVar[float] = math.inf  # on the event loop's clock; `stop_reading` sets it

    def __init__(self, scope: Scope, receive: Receive, memory: MemoryBudget) -> None:
        self.headers = Headers(scope=scope)
        self.path: str = scope.get("path", "")
        self._receive = receive
        self._memory = memory
        self.charged = 0  # bytes of the memory budget

    @classmethod
    def stop_reading(cls) -> None:
        """Let bodies arrive for one more second: the stopping server waits for the requests that it is answering."""
        cls.stop_at = asyncio.get_running_loop().time() + STOPPING_READ_TIMEOUT_S
        for timeout in [timeout for timeout in cls._reading if not timeout.expired()]:
            timeout.reschedule(min(cls.stop_at, timeout.when() or math.inf))

    @property
    def media_type(self) -> str:
        """The Content-Type in lower case, without its parameters; empty without one."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()

    @property
    def content_encoding(self) -> str:
        """The Content-Encoding in lower case; empty if the body is sent as it is."""
        encoding = self.headers.get("content-encoding", "").strip().lower()
        return "" if encoding == "identity" else encoding

    async def body(self, limit: int) -> bytes:
        """The whole body. Raises ApiError: `too_large` as soon as it exceeds `limit` bytes, `empty_body`, `overloaded`,
        and `bad_request` where it does not arrive in time; ConnectionResetError for a client that has gone.
        """
        chunks = [chunk async for chunk in self.chunks(limit)]
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    async def unpacked_body(self, limit: int) -> bytes | bytearray:
        """As `body`, after a Content-Encoding of gzip or deflate. The limit and the charge are also those of the body
        that it unpacks to. Raises ApiError `bad_request` for a damaged one, `unsupported_type` for another encoding.
        """
        if not self.content_encoding:
            return await self.body(limit)
        body = bytearray()
        async for piece in unpack(self.chunks(limit), self.content_encoding):
            if len(body) + len(piece) > limit:
                raise _too_large(limit)
            self.charge(len(piece) + len(piece) // BUFFER_OVERHEAD)
            body += piece
            await asyncio.sleep(0)  # other requests have their turn
        return body

    async def chunks(self, limit: int) -> AsyncIterator[bytes]:
        """The body as it arrives. Raises as `body` does."""
        length = self.headers.get("content-length", "")
        if length.isdecimal():
            if int(length) > limit:
                raise _too_large(limit)
            self._check_budget(int(length))
        deadline = asyncio.get_running_loop().time() + READ_TIMEOUT_S
        size, more = 0, True
        while more:
            message = await self._receive_until(deadline)
            if message["type"] == "http.disconnect":
                raise ConnectionResetError
            chunk = message.get("body", b"")
            size += len(chunk)
            if size > limit:
                raise _too_large(limit)
            self.charge(len(chunk) + len(chunk) // BUFFER_OVERHEAD)
            more = message.get("more_body", False)
            if chunk:
                yield chunk
        if not size:
            raise ApiError("empty_body", "the request has no body: the bytes of an image are expected")

    async def files(self, chunks: AsyncIterator[bytes], name: str, max_files: int) -> list[bytes]:
        """The file parts of a multipart body, all called `name`. Raises ApiError `bad_request` for another shape."""
        first = await anext(chunks)  # an empty body is refused here, before it is parsed
        stream = _end_with_empty_chunk(first, chunks)
        parser = _InMemoryParser(self.headers, stream, max_files=max_files, max_fields=max_files)  # type: ignore[arg-type]
        try:
            form: FormData = await parser.parse()
        except (MultiPartException, KeyError) as error:
            # A KeyError: no boundary in the Content-Type.
            raise ApiError("bad_request", f"not a multipart form with 1 to {max_files} files: {error}") from error
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

    async def while_connected(self, work: Coroutine[Any, Any, T]) -> T:
        """Await `work`, and cancel it when the client goes. Raises ConnectionResetError then."""
        task = asyncio.current_task()
        assert task
        gone = asyncio.ensure_future(self.disconnected())
        working = True

        def cancel_work(_: asyncio.Future[None]) -> None:
            if working and not gone.cancelled():
                task.cancel()

        gone.add_done_callback(cancel_work)
        try:
            return await work
        except asyncio.CancelledError:
            if gone.done() and not gone.cancelled() and not task.uncancel():
                raise ConnectionResetError from None
            raise
        finally:
            working = False
            gone.cancel()

    def charge(self, size: int) -> None:
        """Charge bytes to the memory budget until `release`. Raises ApiError `too_large`, or `overloaded`."""
        self._check_budget(self.charged + size)
        if not self._memory.take(size):
            raise ApiError("overloaded", "the server holds as many bodies as it has memory for; try again later")
        self.charged += size

    def release(self) -> None:
        """Give back the memory that was charged."""
        self._memory.give_back(self.charged)
        self.charged = 0

    async def _receive_until(self, deadline: float) -> Message:
        try:
            async with asyncio.timeout_at(min(deadline, self.stop_at)) as timeout:
                self._reading.add(timeout)
                try:
                    return await self._receive()
                finally:
                    self._reading.discard(timeout)
        except TimeoutError:
            raise ApiError("bad_request", "the body did not arrive in time") from None

    def _check_budget(self, size: int) -> None:
        """Raise ApiError `too_large` for what can never be charged."""
        if size > self._memory.size:
            budget = f"this server has {self._memory.size // MIB} MiB for all requests"
            raise ApiError("too_large", f"the body is too large: {budget}")


class _InMemoryParser(MultiPartParser):
    spool_max_size = MAX_BATCH_BYTES + MAX_FRAMING_BYTES  # never to disk: there may be none to write to

    def on_header_end(self) -> None:
        super().on_header_end()
        if len(self._current_part.item_headers) > MAX_PART_HEADERS:
            raise MultiPartException(f"A part has more than {MAX_PART_HEADERS} headers.")


async def in_chunks(body: bytes) -> AsyncIterator[bytes]:
    """A whole body as chunks for `Request.files`; other requests have their turn in between."""
    for start in range(0, len(body), CHUNK_BYTES):
        yield body[start : start + CHUNK_BYTES]
        await asyncio.sleep(0)


async def _end_with_empty_chunk(first: bytes, others: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Starlette's parser expects an empty chunk at the end."""
    yield first
    async for chunk in others:
        yield chunk
    yield b""


def _too_large(limit: int) -> ApiError:
    return ApiError("too_large", f"the body is too large: at most {limit // MIB} MiB are read")
