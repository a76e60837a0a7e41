"""Time on the event loop for hostile bodies of up to 10 MiB: generated files of every format, and forms."""

from __future__ import annotations

import asyncio
import gc
import gzip
import io
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from server import form
from starlette.types import Message

from trainer import artifact
from trainer.errors import ImageError
from trainer.serving.endpoints import Endpoints
from trainer.serving.inference import Inference
from trainer.serving.loaded_model import prepare_model
from trainer.serving.memory import MemoryBudget
from trainer.serving.metrics import Metrics
from trainer.serving.middleware import Handler, Routes
from trainer.serving.open_inference_paths import MODEL
from trainer.serving.request import MAX_IMAGE_BYTES, MIB, Request
from trainer.serving.responses import ApiError, Headers
from trainer.serving.settings import Settings

pytestmark = [pytest.mark.slow, pytest.mark.alone]  # it measures CPU time

MAX_ON_LOOP_S = 0.012  # CPU time in one turn; a request by itself takes 1 or 2 ms
FORMATS = ("PNG", "JPEG", "GIF", "BMP", "WebP", "AVIF")


@pytest.fixture(scope="module")
def routes(tiny_artifact: Path, metrics: Metrics) -> Iterator[Routes]:
    options = Settings(deadline_ms=60_000)
    memory = MemoryBudget(256 * MIB)
    model = prepare_model("tiny:1", artifact.load(tiny_artifact), options, metrics.on_batch)
    inference = Inference(model, options, metrics, memory)
    gc.collect()
    gc.freeze()  # as the service does
    yield Endpoints(inference, metrics, memory, with_token=False, is_ready=lambda: True).routes
    gc.unfreeze()


def longest_on_loop(handler: Handler, body: bytes, content_type: str = "", headers: Headers = ()) -> float:
    """CPU seconds of the event loop's thread in its longest turn, while one request is answered."""

    async def test() -> float:
        messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive() -> Message:
            return messages.pop() if messages else await asyncio.Future()

        scope = {
            "type": "http",
            "path": "/v2/models/tiny/infer",  # other handlers do not read it
            "headers": [(b"content-type", content_type.encode()), *headers],
        }
        request = Request(scope, receive, MemoryBudget(256 * MIB))
        task = asyncio.ensure_future(handler(request))
        longest = 0.0
        while not task.done():
            start = time.thread_time()
            await asyncio.sleep(0)
            longest = max(longest, time.thread_time() - start)
            if longest < MAX_ON_LOOP_S:
                await asyncio.sleep(0.0005)
        if error := task.exception():
            assert isinstance(error, ApiError | ImageError), error
        return longest

    return asyncio.run(test())


def image_file(format: str, side: int, seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format, **({"speed": 10} if format == "AVIF" else {}))
    return file.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")


def piece(format: str, kind: int, size: int) -> bytes:
    """A part that a file of the format may hold very often."""
    if format == "JPEG":
        marker = (0xE1, 0xE5, 0xFE, 0xDB, 0xDA, 0xFF, 0xC4)[kind % 7]
        return bytes((0xFF, marker)) + (size + 2).to_bytes(2, "big") + bytes(size)
    if format == "PNG":
        name = (b"teXt", b"zTXt", b"iTXt", b"iCCP", b"IDAT", b"tRNS", b"fdAT")[kind % 7]
        return chunk(name, zlib.compress(bytes(100 * size)) if kind % 7 == 1 else bytes(size))
    if format == "GIF":
        return (
            b"!"
            + bytes(((0xFE, 0xFF, 0xF9, 0x01)[kind % 4],))
            + bytes((max(1, size % 256),)) * (1 + size % 256)
            + b"\0"
        )
    return (b"EXIF", b"meta", b"\0\0\0\x08free", b"ALPH")[kind % 4] + size.to_bytes(4, "little") + bytes(size)


# Where parts are inserted: behind the header of most files.
AT = {"JPEG": 2, "PNG": 33, "GIF": 13, "BMP": 54, "WebP": 12, "AVIF": 32}


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(
    format=st.sampled_from(FORMATS),
    side=st.sampled_from([1, 28, 316, 1200]),
    kind=st.integers(0, 6),
    size=st.sampled_from([0, 1, 90, 3000, 60_000]),
    megabytes=st.sampled_from([0, 1, 9]),
    cut=st.booleans(),
    seed=st.integers(0, 3),
)
def test_no_file_holds_the_loop(
    routes: Routes, format: str, side: int, kind: int, size: int, megabytes: int, cut: bool, seed: int
) -> None:
    data = image_file(format, side, seed)
    part = piece(format, kind, size)
    data = data[: AT[format]] + part * (megabytes * MIB // len(part)) + data[AT[format] :]
    data = data[: len(data) * 2 // 3] if cut else data
    data = data[:MAX_IMAGE_BYTES]
    for path in ("/predict", "/preview"):
        assert longest_on_loop(routes[path][1], data) < MAX_ON_LOOP_S


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"--frame\r\n" * (MIB * 9 // 9), id="boundaries"),
        pytest.param(b"\r\n--fram" * (MIB * 9 // 8), id="nearly boundaries"),
        pytest.param(b"--frame\r\n" + b"a: b\r\n" * (MIB * 9 // 6), id="headers"),
        pytest.param(b"--frame\r\n" + b"a" * (MIB * 9), id="a header's name"),
        pytest.param(b"--frame\r\na: " + b"b" * (MIB * 9), id="a header's value"),
        pytest.param(form(*[("image", b"")] * 90_000)[0], id="files"),
        pytest.param(form(("image", b"\r\n-" * (3 * MIB)))[0], id="line feeds"),
        pytest.param(form(("image", image_file("PNG", 1200, 0)))[0], id="one that is right"),
    ],
)
def test_no_form_holds_the_loop(routes: Routes, body: bytes) -> None:
    handler = routes["/predict"][1]
    assert longest_on_loop(handler, body, "multipart/form-data; boundary=frame") < 3 * MAX_ON_LOOP_S


def test_a_batch_of_many_images_leaves_other_requests_their_turn(routes: Routes) -> None:
    body, content_type = form(*[("images", image_file("PNG", 100, 0))] * 209)
    assert longest_on_loop(routes["/predict_batch"][1], body, content_type) < 3 * MAX_ON_LOOP_S


def json_with(data: bytes) -> bytes:
    head = b'{"inputs":[{"name":"encoded","datatype":"BYTES","shape":[1],"data":'
    return head + data + b"}]}"


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        pytest.param(json_with(b"[" + b"123," * 259_000 + b"1]"), (), id="numbers"),
        pytest.param(json_with(b"[" + b"1.2345678901," * 259_000 + b"1]"), (), id="fractions"),
        pytest.param(json_with(b"[" + b"[]," * 86_000 + b"1]"), (), id="empty lists"),
        pytest.param(json_with(b"[" + b'{"":0},' * 64_000 + b"1]"), (), id="objects"),
        pytest.param(json_with(b"[" + (b"[" * 20 + b"]" * 20 + b",") * 6_300 + b"1]"), (), id="nested lists"),
        pytest.param(json_with(b'["' + b"\\u00e9" * 259_000 + b'"]'), (), id="escapes"),
        pytest.param(json_with(('["' + "é" * 129_000 + '"]').encode()), (), id="letters"),
        pytest.param(json_with(b'["' + b"iVBO" * (4 * MIB - 100) + b'"]'), (), id="base64 of the largest size"),
        pytest.param(b" " * (16 * MIB), (), id="spaces"),
        pytest.param(b"1" * (16 * MIB), (), id="digits"),
        pytest.param(json_with(b"[" + b"," * (15 * MIB)), (), id="commas"),
        pytest.param(gzip.compress(bytes(500 * MIB), 1), ((b"content-encoding", b"gzip"),), id="zeros in gzip"),
    ],
)
def test_no_json_holds_the_loop(routes: Routes, body: bytes, headers: Headers) -> None:
    """It is parsed in one go, and so is base64."""
    assert longest_on_loop(routes[f"{MODEL}/infer"][1], body, headers=headers) < 6 * MAX_ON_LOOP_S


def test_many_small_elements_do_not_hold_the_loop(routes: Routes) -> None:
    head = b'{"inputs":[{"name":"encoded","datatype":"BYTES","shape":[1],"parameters":{"binary_data_size":67108864}}]}'
    headers = ((b"inference-header-content-length", str(len(head)).encode()),)
    assert longest_on_loop(routes[f"{MODEL}/infer"][1], head + bytes(64 * MIB), headers=headers) < 3 * MAX_ON_LOOP_S
