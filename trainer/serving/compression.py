"""Compressed bodies (Content-Encoding: gzip or deflate) of requests and responses."""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import replace

from trainer.serving.responses import ApiError, Response

WINDOW_BITS = {"gzip": 31, "deflate": 15}  # of zlib; HTTP's deflate has zlib's header
PIECE_BYTES = 1 << 18  # unpacked at once: a small body may unpack to a thousand times as much
MIN_RESPONSE_BYTES = 1024  # a smaller one still fits into a packet or two
COMPRESS: Mapping[str, Callable[[bytes], bytes]] = {  # the preferred one first; the quick level
    "gzip": lambda body: gzip.compress(body, 1, mtime=0),
    "deflate": lambda body: zlib.compress(body, 1),
}
ACCEPTED = re.compile(r"\s*([a-z*-]+)\s*(?:;\s*q=([0-9.]+))?\s*")


async def unpack(chunks: AsyncIterator[bytes], encoding: str) -> AsyncIterator[bytes]:
    """Pieces of up to PIECE_BYTES that the chunks of a body unpack to.

    Raises ApiError: `unsupported_type` for another encoding than gzip and deflate, `bad_request` for a body that is
    damaged, not complete, or longer than its compressed data.
    """
    if encoding not in WINDOW_BITS:
        raise ApiError("unsupported_type", f"Content-Encoding: {encoding[:20]!r} is not read: gzip and deflate are")
    unpacker = zlib.decompressobj(WINDOW_BITS[encoding])
    async for chunk in chunks:
        piece = b""
        while chunk or len(piece) == PIECE_BYTES:
            try:
                piece = unpacker.decompress(chunk, PIECE_BYTES)
            except zlib.error:
                raise ApiError("bad_request", f"the body is not valid {encoding}") from None
            chunk = unpacker.unconsumed_tail  # noqa: PLW2901
            if unpacker.unused_data:
                raise ApiError("bad_request", f"the body goes on after its {encoding} data")
            yield piece
    if not unpacker.eof:
        raise ApiError("bad_request", f"the body ends before its {encoding} data")


def compress(response: Response, accept_encoding: str) -> Response:
    """The response in an encoding that the client accepts; as it is where it is small or the client accepts none."""
    if len(response.body) < MIN_RESPONSE_BYTES:
        return response
    offers = [ACCEPTED.fullmatch(part) for part in accept_encoding.lower().split(",")]
    accepted = {offer[1] for offer in offers if offer and (offer[2] or "1").strip("0.")}
    for encoding, function in COMPRESS.items():
        if encoding in accepted:
            headers = (*response.headers, (b"content-encoding", encoding.encode()))
            return replace(response, body=function(response.body), headers=headers)
    return response
