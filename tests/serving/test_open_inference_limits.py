"""Open Inference Protocol v2: memory, the queue and the deadline of a server in this process."""

from __future__ import annotations

import asyncio
import gzip
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from open_inference_requests import LENGTH, document, with_tensor
from starlette.types import Receive, Scope, Send

from trainer import artifact
from trainer.serving.endpoints import Endpoints
from trainer.serving.inference import Inference
from trainer.serving.loaded_model import LoadedModel, prepare_model
from trainer.serving.memory import MemoryBudget
from trainer.serving.metrics import Metrics
from trainer.serving.middleware import ApiMiddleware, Backend
from trainer.serving.request import MIB
from trainer.serving.settings import Settings
from trainer.serving.tensors import VALUE_BYTES

PIXEL_BYTES = 28 * 28


@pytest.fixture(scope="module")
def loaded(tiny_artifact: Path, metrics: Metrics) -> LoadedModel:
    return prepare_model("tiny:1", artifact.load(tiny_artifact), Settings(), metrics.on_batch)


class Asked:
    """A server with this model and memory, and what has been charged of it at most."""

    def __init__(self, loaded: LoadedModel, metrics: Metrics, memory: MemoryBudget, deadline_ms: int = 1000) -> None:
        self.memory = memory
        inference = Inference(loaded, Settings(deadline_ms=deadline_ms), metrics, memory)
        endpoints = Endpoints(inference, metrics, memory, with_token=False, is_ready=lambda: True)
        backend = Backend(endpoints.routes, metrics.on_request, memory, None)
        self._app = ApiMiddleware(nothing, lambda: backend)

    def infer(self, body: bytes, headers: dict[str, str]) -> httpx.Response:
        async def test() -> httpx.Response:
            transport = httpx.ASGITransport(self._app)
            async with httpx.AsyncClient(transport=transport, base_url="http://tiny") as client:
                return await client.post("/v2/models/tiny/infer", content=body, headers=headers)

        return asyncio.run(test())

    def all_is_given_back(self) -> bool:
        return self.memory.take(self.memory.size)


async def nothing(scope: Scope, receive: Receive, send: Send) -> None:
    raise AssertionError(scope["path"])


def pixels(images: int) -> tuple[bytes, dict[str, str]]:
    return with_tensor(document("images", "UINT8", [images, 28, 28, 1]), bytes(images * PIXEL_BYTES))


def numbers(images: int) -> bytes:
    return json.dumps(document("images", "UINT8", [images, 28, 28, 1], data=[0] * images * PIXEL_BYTES)).encode()


def deadline_shares(metrics: Metrics) -> tuple[float, float]:
    """Count and sum of the metric."""
    text = metrics.render().decode()
    count, total = (
        re.findall(rf"^trainer_deadline_share_{what} (.*)$", text, re.MULTILINE) for what in ("count", "sum")
    )
    return float(count[0]), float(total[0])


def test_json_is_charged_for_what_it_takes_in_memory(loaded: LoadedModel, metrics: Metrics) -> None:
    body = numbers(64)
    assert len(body) < MIB // 4
    for size, status in ((64 * PIXEL_BYTES * VALUE_BYTES - MIB, 413), (2 * 64 * PIXEL_BYTES * VALUE_BYTES, 200)):
        server = Asked(loaded, metrics, MemoryBudget(size))
        reply = server.infer(body, {})
        assert reply.status_code == status, reply.text
        assert server.all_is_given_back()


def test_an_unpacked_body_is_charged_and_given_back(loaded: LoadedModel, metrics: Metrics) -> None:
    body, headers = pixels(256)
    packed = gzip.compress(body)
    assert len(packed) < 2000
    headers |= {"Content-Encoding": "gzip"}
    for size, status, sent in (
        (MIB, 200, packed),
        (MIB // 8, 413, packed),
        (MIB, 400, packed[:-9]),
    ):
        server = Asked(loaded, metrics, MemoryBudget(size))
        reply = server.infer(sent, headers)
        assert reply.status_code == status, reply.text
        assert (status == 200) == (list(reply.json()) != ["error"])
        assert server.all_is_given_back()


def test_a_full_queue_and_a_deadline_are_told_with_a_reason(loaded: LoadedModel, metrics: Metrics) -> None:
    before = deadline_shares(metrics)
    full = replace(loaded, runner=Stuck(loaded.runner, full=True))
    reply = Asked(full, metrics, MemoryBudget(MIB)).infer(*pixels(2))
    assert (reply.status_code, reply.headers["retry-after"]) == (503, "1")
    assert reply.json() == {"error": "too many images wait; try again later"}
    assert deadline_shares(metrics) == before  # of what was refused, nothing was used
    late = replace(loaded, runner=Stuck(loaded.runner, full=False))
    reply = Asked(late, metrics, MemoryBudget(MIB), deadline_ms=20).infer(*pixels(2))
    assert (reply.status_code, reply.json()) == (504, {"error": "the answer was not ready within the deadline"})
    assert deadline_shares(metrics) == (before[0] + 1, before[1] + 1)


def test_an_answer_that_is_not_finite_is_an_error_of_the_server(
    infinite_artifact: Path, loaded: LoadedModel, metrics: Metrics
) -> None:
    broken = prepare_model("tiny:1", artifact.load(infinite_artifact), Settings(), metrics.on_batch)
    body, headers = with_tensor(document("images", "UINT8", [1, 28, 28, 1]), bytes([255]) * PIXEL_BYTES)
    reply = Asked(broken, metrics, MemoryBudget(MIB)).infer(body, headers)
    assert (reply.status_code, list(reply.json())) == (500, ["error"])
    assert "internal error" in reply.json()["error"]


class Stuck:
    """A runner that answers nothing."""

    def __init__(self, runner: Any, *, full: bool) -> None:
        self._runner = runner
        self.full = full

    def predict(self, image: np.ndarray) -> asyncio.Future[Any]:
        return asyncio.get_running_loop().create_future()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._runner, name)


def test_the_length_header_may_have_any_case(loaded: LoadedModel, metrics: Metrics) -> None:
    body, headers = pixels(1)
    for name in (LENGTH.lower(), LENGTH.upper()):
        reply = Asked(loaded, metrics, MemoryBudget(MIB)).infer(body, {name: headers[LENGTH]})
        assert reply.json()["outputs"][0]["shape"] == [1, 10]
