"""The HTTP contract where BentoML has another: bodies that are bytes, errors with a code."""

from __future__ import annotations

from collections.abc import Collection

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

STATUS = {
    "empty_body": 400,
    "unsupported_type": 415,
    "too_many_pixels": 413,
    "corrupt_image": 422,
    "internal": 500,
}


def error_response(code: str, message: str) -> JSONResponse:
    """`{"error": {"code", "message"}}` with the code's status."""
    return JSONResponse({"error": {"code": code, "message": message}}, STATUS[code])


class RawBody:
    """ASGI middleware: on these paths the body is bytes, whatever its Content-Type says, and not empty.

    BentoML would parse a body by its Content-Type: as a form what curl's --data-binary sends, for example.
    """

    def __init__(self, app: ASGIApp, paths: Collection[str]) -> None:
        self._app = app
        self._paths = frozenset(paths)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST" or scope["path"] not in self._paths:
            await self._app(scope, receive, send)
            return
        message = await receive()
        if message["type"] == "http.request" and not message.get("body") and not message.get("more_body"):
            await error_response("empty_body", "the request has no body: the bytes of an image are expected")(
                scope, receive, send
            )
            return

        read = [message]

        async def replay() -> Message:
            return read.pop() if read else await receive()

        headers = [pair for pair in scope["headers"] if pair[0] != b"content-type"]
        headers.append((b"content-type", b"application/octet-stream"))
        await self._app({**scope, "headers": headers}, replay, send)
