"""A client's offer to speak another protocol on the connection (`Upgrade`, RFC 9110, 7.8)."""

from __future__ import annotations

from collections.abc import Iterable

# Headers of the offer; the rest of the head is passed on as it came.
UPGRADE_HEADERS = (b"upgrade", b"http2-settings")


def head_without_offer(request: bytes, headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """The head of a request, from its first line and its headers with names in lower case, without an offer."""
    lines = [request]
    for name, value in headers:
        if name == b"connection":
            tokens = [token.strip() for token in value.split(b",")]
            lines.append(b"connection: " + b", ".join(t for t in tokens if t.lower() not in UPGRADE_HEADERS))
        elif name not in UPGRADE_HEADERS:
            lines.append(name + b": " + value)
    return b"\r\n".join((*lines, b"", b""))
