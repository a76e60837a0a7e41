"""Hints for a body that is no image: common mistakes of clients."""

from __future__ import annotations

import binascii
import re
from collections.abc import Callable

from trainer.errors import ImageError
from trainer.images.decode import is_image
from trainer.serving.request import Request

CURL_FORM = "application/x-www-form-urlencoded"  # sent by `curl -d` and `--data-binary`
HINTED_CODES = ("unsupported_type", "corrupt_image")
BASE64 = re.compile(rb"[A-Za-z0-9+/_-]+={0,2}")
BASE64_BYTES = 400  # enough to recognize every image format
FORM_FIELD = re.compile(rb"[\w.-]+=[^=\s]")
PART_HEADER = re.compile(rb"--[^\r\n]{1,200}\r\ncontent-", re.IGNORECASE)
URL = re.compile(rb"[a-z]+://", re.IGNORECASE)


def with_hint(error: ImageError, body: bytes, request: Request | None = None) -> ImageError:
    """The error with a hint at its probable cause, where body and `request` show one."""
    if error.code not in HINTED_CODES:
        return error
    hint = _hint(body, request)
    return ImageError(error.code, f"{error} ({hint})") if hint else error


def _hint(body: bytes, request: Request | None) -> str:
    if request and request.content_encoding:
        return f"Content-Encoding: {request.content_encoding} is not read: send the image's bytes as they are"
    start = body[:BASE64_BYTES].lstrip(b"\xef\xbb\xbf \t\r\n")
    hints = [hint for is_cause, hint in BODY_HINTS if is_cause(start)]
    if hints:
        return hints[0]
    if request and request.media_type == "application/json":
        return NOT_JSON
    if request and request.media_type == CURL_FORM and _is_altered_by_curl(body):
        return "with curl: --data-binary @FILE; -d alters the bytes"
    return ""


def _is_altered_by_curl(body: bytes) -> bool:
    """Whether a body is no text and has none of the bytes that `curl -d @FILE` removes: nearly every image has some."""
    if any(byte in body for byte in (b"\r", b"\n", b"\0")):
        return False
    try:
        body.decode()
    except UnicodeDecodeError:
        return True
    return False


def _is_base64_image(start: bytes) -> bool:
    text = b"".join(start.strip(b"\"'").split())
    if not BASE64.fullmatch(text):
        return False
    text = text.rstrip(b"=").replace(b"-", b"+").replace(b"_", b"/")
    return is_image(binascii.a2b_base64(text[: len(text) // 4 * 4]))


NOT_JSON = "send the image's bytes, not JSON"
# Checks of a body's start, and their hints; the first one that applies is given.
BODY_HINTS: tuple[tuple[Callable[[bytes], object], str], ...] = (
    (lambda start: start.startswith((b"{", b"[")), NOT_JSON),
    (lambda start: start[:5].lower() == b"data:", "send the image's bytes, not a data URI"),
    (_is_base64_image, "send the image's bytes, not base64"),
    (URL.match, "send the image's bytes, not a URL: the server loads none"),
    (PART_HEADER.match, "a form needs the header Content-Type: multipart/form-data; boundary=…"),
    (FORM_FIELD.match, "send the image's bytes, not a form field"),
)
