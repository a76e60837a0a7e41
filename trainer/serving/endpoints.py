"""Endpoints of the HTTP contract: routes and their handlers."""

from __future__ import annotations

import asyncio
import contextlib
import io
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

from PIL import Image
from starlette.types import Message

from trainer.errors import ImageError
from trainer.images.decode import is_image
from trainer.serving.body_hints import with_hint
from trainer.serving.inference import Inference
from trainer.serving.memory import MemoryBudget
from trainer.serving.metrics import CONTENT_TYPE, Metrics
from trainer.serving.middleware import PAGE_PATH, Routes
from trainer.serving.open_inference import OpenInference
from trainer.serving.open_inference_paths import MODEL
from trainer.serving.openapi import describe
from trainer.serving.request import (
    MAX_BATCH_BYTES,
    MAX_BATCH_IMAGES,
    MAX_FRAMING_BYTES,
    MAX_IMAGE_BYTES,
    Request,
    in_chunks,
)
from trainer.serving.responses import Response, json_response

QUEUE_WATCH_S = 1.0
WARM_UP_REQUESTS = 50
PAGE = Path(__file__).with_name("ui.html")
# The page contains all that it needs, and calls no other server.
PAGE_POLICY = b"default-src 'self'; img-src 'self' blob: data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"

# Paths whose requests all end in the engine; with an overloaded server, they are refused.
ENGINE_ROUTES = frozenset(("/predict", "/predict_batch", "/explain", f"{MODEL}/infer"))

T = TypeVar("T")
Infer = Callable[[bytes, int], Coroutine[Any, Any, T]]  # an image, and the bytes that its request holds


class Endpoints:
    """Endpoints of one worker. Call `warm_up` first."""

    def __init__(
        self,
        inference: Inference,
        metrics: Metrics,
        memory: MemoryBudget,
        *,
        with_token: bool,
        is_ready: Callable[[], bool],
    ) -> None:
        """`with_token`: whether callers need one, for the description."""
        self._inference = inference
        self._metrics = metrics
        self._memory = memory
        self._with_token = with_token
        self._page = PAGE.read_bytes()
        self.routes: Routes = {
            "/predict": ("POST", self._post_predict),
            "/predict_batch": ("POST", self._post_predict_batch),
            "/preview": ("POST", self._post_preview),
            "/explain": ("POST", self._post_explain),
            "/model": ("GET", self._get_model),
            PAGE_PATH: ("GET", self._get_page),
            "/metrics": ("GET", self._get_metrics),
            "/docs.json": ("GET", self._get_description),
            **OpenInference(inference, is_ready).routes,
        }

    async def warm_up(self) -> None:
        """Answer some requests, from body to response, before the server is ready."""
        blank = io.BytesIO()
        pixels = self._inference.loaded.pixels
        Image.new("L", (pixels.width, pixels.height)).save(blank, "PNG")
        body = {"type": "http.request", "body": blank.getvalue(), "more_body": False}
        for _ in range(WARM_UP_REQUESTS):
            messages: list[Message] = [body]

            async def receive(messages: list[Message] = messages) -> Message:
                return messages.pop() if messages else await asyncio.Future()

            with contextlib.suppress(TimeoutError):  # a short deadline, and nothing is warm yet
                await self._post_predict(Request({"type": "http", "headers": []}, receive, self._memory))
        self._inference.warm = True
        self._queue_watch = asyncio.create_task(self._watch_queue())

    async def _post_predict(self, request: Request) -> Response:
        image = await self._image(request)
        return json_response(await self._answer(request, image, self._inference.predict))

    async def _post_predict_batch(self, request: Request) -> Response:
        body = request.chunks(MAX_BATCH_BYTES + MAX_FRAMING_BYTES)
        images = await request.files(body, "images", MAX_BATCH_IMAGES)
        return json_response(await request.while_connected(self._inference.predict_batch(images, request.charged)))

    async def _post_preview(self, request: Request) -> Response:
        return await self._png(request, self._inference.preview)

    async def _post_explain(self, request: Request) -> Response:
        return await self._png(request, self._inference.explain)

    async def _png(self, request: Request, draw: Infer[bytes]) -> Response:
        return Response(200, await self._answer(request, await self._image(request), draw), "image/png")

    async def _answer(self, request: Request, image: bytes, infer: Infer[T]) -> T:
        """Await `infer` while the client is connected. Raises ImageError with a hint."""
        try:
            return await request.while_connected(infer(image, request.charged))
        except ImageError as error:
            raise with_hint(error, image, request) from error

    async def _get_model(self, _: Request) -> Response:
        return json_response(self._inference.describe_model())

    async def _get_page(self, _: Request) -> Response:
        return Response(200, self._page, "text/html; charset=utf-8", ((b"content-security-policy", PAGE_POLICY),))

    async def _get_metrics(self, _: Request) -> Response:
        return Response(200, self._metrics.render(), CONTENT_TYPE)

    async def _get_description(self, _: Request) -> Response:
        return json_response(describe(self._inference.loaded.tag, with_token=self._with_token))

    async def _image(self, request: Request) -> bytes:
        """The image that is the body, or the one in a multipart form; the bytes decide which it is."""
        body = await request.body(MAX_IMAGE_BYTES + MAX_FRAMING_BYTES)
        if not is_image(body) and request.media_type == "multipart/form-data":
            (body,) = await request.files(in_chunks(body), "image", 1)
        return body

    async def _watch_queue(self) -> None:
        while True:
            self._metrics.on_waiting(self._inference.loaded.runner.waiting)
            await asyncio.sleep(QUEUE_WATCH_S)
