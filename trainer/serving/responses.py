"""Responses: JSON bodies, and errors with a code of the HTTP contract."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Any

from trainer.serving.schemas import Error, ErrorCode, ProtocolError
from trainer.text import printable_json

Headers = tuple[tuple[bytes, bytes], ...]

STATUS: dict[ErrorCode, int] = {
    "empty_body": 400,
    "bad_request": 400,
    "unauthorized": 401,
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
_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))
CHALLENGE = (b"www-authenticate", b"Bearer")
RETRY_AFTER_S = 1  # the queue holds less than a second of work


class ApiError(Exception):
    """A request that is refused with a code of the contract."""

    def __init__(self, code: ErrorCode, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class Response:
    status: int
    body: bytes
    media_type: str = "application/json"
    headers: Headers = ()
    error: Mapping[str, str] | None = None  # code and message

    @functools.cached_property
    def http(self) -> bytes:
        """The response on an HTTP/1.1 connection, without a date."""
        head = [
            f"HTTP/1.1 {self.status} {HTTPStatus(self.status).phrase}".encode(),
            b"content-type: " + self.media_type.encode(),
            b"content-length: " + str(len(self.body)).encode(),
            *(name + b": " + value for name, value in self.headers),
        ]
        return b"\r\n".join((*head, b"", self.body))


def in_protocol(response: Response) -> Response:
    """An error response as the Open Inference Protocol has it."""
    return replace(response, body=protocol_error_body(response.error["message"])) if response.error else response


def json_response(value: Any) -> Response:
    return Response(200, to_json(value))


def error_body(code: ErrorCode, message: str) -> Error:
    return {"error": {"code": code, "message": message}}


def protocol_error_body(message: str) -> bytes:
    """An error as the Open Inference Protocol has it: text. Its clients fail at an object."""
    body: ProtocolError = {"error": message}
    return to_json(body)


def error_response(code: ErrorCode, message: str, headers: Headers = ()) -> Response:
    if code == "unauthorized":
        headers = (*headers, CHALLENGE)
    elif code == "overloaded":
        headers = (*headers, (b"retry-after", str(RETRY_AFTER_S).encode()))
    body = error_body(code, message)
    return Response(STATUS[code], to_json(body), headers=headers, error={"code": code, "message": message})


def to_json(value: Any) -> bytes:
    """Raises ValueError for values that JSON does not have, such as NaN."""
    return printable_json(_ENCODER.encode(value)).encode()
