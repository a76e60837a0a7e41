"""Hints for a body that is no image: common mistakes of clients."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from trainer.errors import ImageError
from trainer.serving.request import Request

CURL_FORM = "application/x-www-form-urlencoded"  # sent by `curl -d` and `--data-binary`


@contextlib.contextmanager
def hint_at_cause(request: Request, body: bytes) -> Iterator[None]:
    """Add a hint to an ImageError that is raised for `body`, where there is one."""
    try:
        yield
    except ImageError as error:
        hint = body_hint(request.media_type, request.content_encoding, body)
        if not hint:
            raise
        raise ImageError(error.code, f"{error} ({hint})") from error


def body_hint(media_type: str, encoding: str, body: bytes) -> str:
    """Probable mistake of the client; empty where headers and body show none."""
    if encoding:
        return f"Content-Encoding: {encoding} is not read: send the image's bytes as they are"
    if media_type == "application/json" or body.startswith(b"{"):
        return "send the image's bytes, not JSON"
    return "with curl: --data-binary @FILE; -d alters the bytes" if media_type == CURL_FORM else ""
