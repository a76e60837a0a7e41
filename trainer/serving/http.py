"""The wire side of the HTTP contract: routing, bodies within limits, errors as JSON with a code.

`Contract` is ASGI middleware around BentoML's application. It answers the contract's endpoints itself: BentoML
parses a body by the Content-Type that a client claims, reads it without a limit, and builds JSON schemas for each
request. What belongs to BentoML (/livez, /readyz, its pages) goes through; only its errors are made JSON.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from starlette.datastructures import FormData, Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from trainer.images.pixels import ImageError

log = logging.getLogger("bentoml.trainer")  # below BentoML's own logger, which is set up when it serves

STATUS = {
    "empty_body": 400,
    "bad_request": 400,
    "not_found": 404,
    "method_not_allowed": 405,
    "too_large": 413,
    "too_many_pixels": 413,
    "unsupported_type": 415,
    "corrupt_image": 422,
    "internal": 500,
    "overloaded": 503,
    "not_ready": 503,
    "deadline_exceeded": 504,
}
RETRY_AFTER_S = 1  # the queue is worth less than a second of work

MIB = 2**20
IMAGE_LIMIT = 10 * MIB
BATCH_LIMIT = 64 * MIB
BATCH_IMAGES = 256
FRAMING_LIMIT = MIB // 4  # what multipart adds around the files
# Of all requests that are being read: a body that would exceed it is refused as overload.
HELD_LIMIT = 512 * MIB
# For BentoML's pages, which ask a browser to fetch a script of Google's (its Tag Manager).
BENTOML_POLICY = b"default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' blob: data:"
READ_TIMEOUT_S = 30.0  # for a body that does not come in one piece


class ApiError(Exception):
    """An answer that is an error. `code` is the contract's."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class Answer:
    status: int
    body: bytes
    media_type: str = "application/json"
    headers: tuple[tuple[bytes, bytes], ...] = ()
    error: Mapping[str, str] | None = None  # code and message


def json_answer(value: Any) -> Answer:
    return Answer(200, _json(value))


def error_value(code: str, message: str) -> dict[str, dict[str, str]]:
    """`{"error": {"code", "message"}}`"""
    return {"error": {"code": code, "message": message}}


def error_answer(code: str, message: str, headers: tuple[tuple[bytes, bytes], ...] = ()) -> Answer:
    if code == "overloaded":
        headers = (*headers, (b"retry-after", str(RETRY_AFTER_S).encode()))
    value = error_value(code, message)
    return Answer(STATUS[code], _json(value), headers=headers, error=value["error"])


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


Handler = Callable[[Request], Awaitable[Answer]]
Routes = Mapping[str, tuple[str, Handler]]  # path → its method and its handler


class Contract:
    """ASGI middleware: answers `routes`, passes all else on, counts every request with `on_request`.

    `backend` gives both when the first request comes: the service does not exist when middleware is declared.
    """

    def __init__(self, app: ASGIApp, backend: Callable[[], tuple[Routes, Callable[[str, int, float], None]]]) -> None:
        self._app = app
        self._backend = backend

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start = time.perf_counter()
        routes, on_request = self._backend()
        path = scope["path"]
        if path not in routes:
            status = await self._pass_on(scope, receive, send)
            on_request("other", status, time.perf_counter() - start)
            return
        method, handler = routes[path]
        request = Request(scope, receive)
        try:
            answer = await _answer(request, handler, scope["method"], method)
        except ConnectionResetError:  # nobody is left to answer
            return
        finally:
            request.release()
        await _send(send, answer)
        seconds = time.perf_counter() - start
        on_request(path, answer.status, seconds)
        if answer.error:
            _log_error(path, answer, seconds)

    async def _pass_on(self, scope: Scope, receive: Receive, send: Send) -> int:
        """Let BentoML answer; its error, if it is one, in the contract's form. The status."""
        status = 0

        async def replace_errors(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                if status >= 400:
                    allow = tuple(pair for pair in message.get("headers", ()) if pair[0].lower() == b"allow")
                    answer = _framework_error(status, scope["path"], allow)
                    await _send(send, answer)
                    _log_error(scope["path"], answer)
                else:
                    message["headers"] = [*message.get("headers", ()), (b"content-security-policy", BENTOML_POLICY)]
            if status < 400:
                await send(message)

        try:
            await self._app(scope, receive, replace_errors)
        except Exception:
            log.exception("an error in BentoML's application")
            if not status:
                status = 500
                await _send(send, _framework_error(status, scope["path"], ()))
        return status


class Outermost:
    """ASGI middleware that puts `wrap` around the whole Starlette application when that starts.

    BentoML places a service's middleware inside its own, where a timeout keeps a timer and its task for 60 s after
    each request: at a thousand a second, tens of megabytes and pauses of the garbage collector.
    """

    def __init__(self, app: ASGIApp, wrap: Callable[[ASGIApp], ASGIApp]) -> None:
        self._app = app
        self._wrap = wrap

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            application = scope["app"]
            application.middleware_stack = self._wrap(application.middleware_stack)
        await self._app(scope, receive, send)


async def _answer(request: Request, handler: Handler, asked: str, allowed: str) -> Answer:
    if asked != allowed and (asked, allowed) != ("HEAD", "GET"):
        allow = b"GET, HEAD" if allowed == "GET" else allowed.encode()
        return error_answer("method_not_allowed", f"{asked} is not allowed here: {allowed} is", ((b"allow", allow),))
    try:
        return await handler(request)
    except (ApiError, ImageError) as error:
        return error_answer(error.code, str(error))
    except TimeoutError:
        return error_answer("deadline_exceeded", "the answer was not ready within the deadline")
    except ConnectionResetError:
        raise
    except Exception:
        log.exception("an internal error")
        return error_answer("internal", "an internal error; the server's log says more")


def _framework_error(status: int, path: str, headers: tuple[tuple[bytes, bytes], ...]) -> Answer:
    if status == 404:
        return error_answer("not_found", f"{path!r} is no address here; the page at / lists them")
    if status == 405:
        return error_answer("method_not_allowed", "this method is not allowed here", headers)
    if status == 503:
        return error_answer("not_ready", "the server is starting or stopping")
    return error_answer("internal", "an internal error; the server's log says more")


def _log_error(path: str, answer: Answer, seconds: float | None = None) -> None:
    """One line of JSON for each answer that is an error; others leave none."""
    line = {"path": path[:100], "status": answer.status, **(answer.error or {})}
    if seconds is not None:
        line["ms"] = round(1000 * seconds, 1)
    log.log(logging.ERROR if answer.status == STATUS["internal"] else logging.WARNING, "%s", _json(line).decode())


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def _too_large(limit: int) -> ApiError:
    return ApiError("too_large", f"the body is too large: at most {limit // MIB} MiB are read")


async def _send(send: Send, answer: Answer) -> None:
    headers = [
        (b"content-type", answer.media_type.encode()),
        (b"content-length", str(len(answer.body)).encode()),
        *answer.headers,
    ]
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": answer.body})
