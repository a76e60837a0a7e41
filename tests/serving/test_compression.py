from __future__ import annotations

import asyncio
import gzip
import random
import zlib
from collections.abc import AsyncIterator

import pytest

from trainer.serving.compression import MIN_RESPONSE_BYTES, PIECE_BYTES, compress, unpack
from trainer.serving.responses import ApiError, Response

BODIES = {
    "small": b"{}",
    "a piece": bytes(PIECE_BYTES),
    "pieces and a rest": bytes(3 * PIECE_BYTES + 7),
    "random": random.Random(0).randbytes(PIECE_BYTES),
}


def unpacked(packed: bytes, encoding: str, size: int) -> list[bytes]:
    """The pieces of a body that arrives in chunks of this size."""

    async def chunks() -> AsyncIterator[bytes]:
        for start in range(0, len(packed), size):
            yield packed[start : start + size]

    async def read() -> list[bytes]:
        return [piece async for piece in unpack(chunks(), encoding)]

    return asyncio.run(read())


@pytest.mark.parametrize("size", [1000, 10**9])
@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_a_body_is_unpacked_in_pieces(body: bytes, size: int) -> None:
    for encoding, packed in (("gzip", gzip.compress(body)), ("deflate", zlib.compress(body))):
        pieces = unpacked(packed, encoding, size)
        assert b"".join(pieces) == body
        assert max(map(len, pieces)) <= PIECE_BYTES


@pytest.mark.parametrize("size", [1, 10**9])
def test_a_damaged_body_is_refused(size: int) -> None:
    packed = gzip.compress(b"some text")
    for damaged in (packed[:-1], packed[:5], packed + b"x", packed[:-5] + b"\0" + packed[-4:], packed + packed):
        with pytest.raises(ApiError) as error:
            unpacked(damaged, "gzip", size)
        assert error.value.code == "bad_request"


@pytest.mark.parametrize(
    ("accepted", "encoding"),
    [
        ("gzip, deflate, br", "gzip"),
        ("deflate", "deflate"),
        ("deflate;q=1.0, GZIP;q=0", "deflate"),
        ("gzip ; q=0.5", "gzip"),
        ("gzip;q=0.000, br", None),
        ("identity", None),
        ("*", None),
        ("", None),
        (",;=,gzip;q=x,", None),
    ],
)
def test_a_response_is_compressed_as_the_client_accepts_it(accepted: str, encoding: str | None) -> None:
    plain = Response(200, bytes(MIN_RESPONSE_BYTES), headers=((b"a", b"b"),))
    response = compress(plain, accepted)
    if encoding is None:
        assert response == plain
    else:
        assert response.headers == ((b"a", b"b"), (b"content-encoding", encoding.encode()))
        assert zlib.decompress(response.body, 47) == plain.body
        assert len(response.body) < 100


def test_a_small_response_stays_as_it_is() -> None:
    small = Response(200, bytes(MIN_RESPONSE_BYTES - 1))
    assert compress(small, "gzip") == small
