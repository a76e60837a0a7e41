"""The HTTP contract where BentoML has another: bodies that are bytes, errors with a code."""

from __future__ import annotations

from collections.abc import Collection

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

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
    """ASGI middleware: on these paths the body is bytes, whatever its Content-Type says.

    BentoML would parse a body by its Content-Type: as a form what curl's --data-binary sends, for example.
    """

    def __init__(self, app: ASGIApp, paths: Collection[str]) -> None:
        self._app = app
        self._paths = frozenset(paths)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] in self._paths:
            headers = [pair for pair in scope["headers"] if pair[0] != b"content-type"]
            scope = {**scope, "headers": [*headers, (b"content-type", b"application/octet-stream")]}
        await self._app(scope, receive, send)
