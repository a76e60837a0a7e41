from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from server import form
from starlette.types import Message

from trainer.serving import request as module
from trainer.serving.memory import MemoryBudget
from trainer.serving.request import MIB, Request, in_chunks
from trainer.serving.responses import ApiError


@pytest.fixture(autouse=True)
def _not_stopping(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Request, "stop_at", float("inf"))


def make_request(
    *chunks: bytes, memory: MemoryBudget | None = None, content_type: str = "", complete: bool = True
) -> Request:
    """A request with a body in these chunks; if not `complete`, the client then sends nothing more."""
    messages: list[Message] = [{"type": "http.request", "body": chunk, "more_body": True} for chunk in chunks]
    if complete:
        messages.append({"type": "http.request", "body": b"", "more_body": False})

    async def receive() -> Message:
        return messages.pop(0) if messages else await asyncio.Future()

    headers = [(b"content-type", content_type.encode())]
    return Request({"type": "http", "headers": headers}, receive, memory or MemoryBudget(MIB))


async def error_code(work: Any) -> str:
    with pytest.raises(ApiError) as error:
        await work
    return error.value.code


def test_a_body_is_read_whole_or_refused() -> None:
    assert asyncio.run(make_request(b"he", b"", b"llo").body(5)) == b"hello"
    assert asyncio.run(error_code(make_request(b"", b"").body(5))) == "empty_body"
    assert asyncio.run(error_code(make_request(b"hell", b"o!", complete=False).body(5))) == "too_large"


@pytest.mark.parametrize("chunks", [(), (b"half of it",)])
def test_a_body_that_does_not_arrive_times_out(chunks: tuple[bytes, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "READ_TIMEOUT_S", 0.05)
    assert asyncio.run(error_code(make_request(*chunks, complete=False).body(MIB))) == "bad_request"


def test_a_body_that_drips_times_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit is for the whole body, not for each chunk."""
    monkeypatch.setattr(module, "READ_TIMEOUT_S", 0.2)

    async def receive() -> Message:
        await asyncio.sleep(0.02)
        return {"type": "http.request", "body": b"x", "more_body": True}

    async def test() -> None:
        async with asyncio.timeout(5):
            request = Request({"type": "http", "headers": []}, receive, MemoryBudget(MIB))
            assert await error_code(request.body(MIB)) == "bad_request"

    asyncio.run(test())


def test_stopping_ends_the_reading_of_bodies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "STOPPING_READ_TIMEOUT_S", 0.05)

    async def test() -> None:
        async with asyncio.timeout(5):
            reading = [asyncio.create_task(error_code(make_request(b"x", complete=False).body(MIB))) for _ in range(3)]
            await asyncio.sleep(0.01)
            Request.stop_reading()
            assert await asyncio.gather(*reading) == ["bad_request"] * 3
            assert await error_code(make_request(complete=False).body(MIB)) == "bad_request"

    asyncio.run(test())


def test_bodies_are_charged_to_the_memory_budget() -> None:
    memory = MemoryBudget(1000)

    async def test() -> None:
        first, second = (make_request(bytes(600), memory=memory) for _ in range(2))
        assert len(await first.body(MIB)) == 600
        assert await error_code(second.body(MIB)) == "overloaded"
        second.release()
        first.release()
        assert len(await make_request(bytes(600), memory=memory).body(MIB)) == 600

    asyncio.run(test())


def test_a_body_that_exceeds_the_whole_budget_is_refused_for_good() -> None:
    memory = MemoryBudget(1000)

    async def receive() -> Message:
        raise AssertionError("nothing of it is read")

    announced = Request({"type": "http", "headers": [(b"content-length", b"1001")]}, receive, memory)
    assert asyncio.run(error_code(announced.body(MIB))) == "too_large"
    assert asyncio.run(error_code(make_request(bytes(600), bytes(600), memory=memory).body(MIB))) == "too_large"


@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_files_are_read_as_they_arrive(size: int) -> None:
    body, content_type = form(("images", b"one"), ("images", b""), ("images", bytes(5000)))
    chunks = [body[start : start + size] for start in range(0, len(body), size)]

    async def test() -> list[bytes]:
        request = make_request(*chunks, content_type=content_type)
        return await request.files(request.chunks(MIB), "images", 3)

    assert asyncio.run(test()) == [b"one", b"", bytes(5000)]


def test_a_file_with_too_many_headers_is_refused_early() -> None:
    """Each would cost the parser a microsecond or two, and a hundred bytes."""
    content_type = "multipart/form-data; boundary=frame"
    body = b'--frame\r\nContent-Disposition: form-data; name="image"; filename="f"\r\n' + b"a: b\r\n" * 1_600_000
    read = 0

    async def chunks() -> AsyncIterator[bytes]:
        nonlocal read
        async for chunk in in_chunks(body):
            read += len(chunk)
            yield chunk

    async def test() -> None:
        assert await error_code(make_request(content_type=content_type).files(chunks(), "image", 1)) == "bad_request"

    asyncio.run(test())
    assert read < MIB


def test_a_whole_body_is_parsed_in_chunks() -> None:
    body, content_type = form(("image", bytes(8 * MIB)))
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async def test() -> None:
        task = asyncio.create_task(others())
        (file,) = await make_request(content_type=content_type).files(in_chunks(body), "image", 1)
        task.cancel()
        assert len(file) == 8 * MIB

    asyncio.run(test())
    assert turns > 30
