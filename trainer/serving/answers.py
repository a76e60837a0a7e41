"""What the server answers: JSON, and errors with a code of the contract."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

STATUS = {
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
CHALLENGE = (b"www-authenticate", b"Bearer")
RETRY_AFTER_S = 1  # the queue is worth less than a second of work


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
    return Answer(200, to_json(value))


def error_value(code: str, message: str) -> dict[str, dict[str, str]]:
    """`{"error": {"code", "message"}}`"""
    return {"error": {"code": code, "message": message}}


def error_answer(code: str, message: str, headers: tuple[tuple[bytes, bytes], ...] = ()) -> Answer:
    if code == "unauthorized":
        headers = (*headers, CHALLENGE)
    elif code == "overloaded":
        headers = (*headers, (b"retry-after", str(RETRY_AFTER_S).encode()))
    value = error_value(code, message)
    return Answer(STATUS[code], to_json(value), headers=headers, error=value["error"])


def to_json(value: Any) -> bytes:
    """Raises ValueError for what JSON does not have, such as NaN."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
