"""The endpoints of the HTTP contract: bytes of images in, predictions out."""

from __future__ import annotations

import asyncio
import contextlib
import io
import math
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from starlette.types import Message

from trainer.artifact.engine import PROBABILITIES
from trainer.artifact.prediction import prediction
from trainer.images.decode import EncodedImage, is_image
from trainer.images.pixels import ImageError
from trainer.machine import available_cpus
from trainer.serving.answers import Answer, ApiError, error_value, json_answer
from trainer.serving.http import Routes
from trainer.serving.metrics import CONTENT_TYPE, Metrics
from trainer.serving.openapi import describe
from trainer.serving.request import BATCH_IMAGES, BATCH_LIMIT, FRAMING_LIMIT, IMAGE_LIMIT, MIB, Request
from trainer.serving.served import Served
from trainer.serving.settings import Settings

# More pixels take about a millisecond to decode: not on the event loop, where all other requests would wait.
SMALL_PIXELS = 100_000
WARM_UP_REQUESTS = 50
PAGE = Path(__file__).with_name("ui.html")
CURL_FORM = "application/x-www-form-urlencoded"  # what `curl -d` and `--data-binary` claim
# It holds all that it needs, and asks nobody but this server.
UI_POLICY = b"default-src 'self'; img-src 'self' blob: data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"


class Api:
    """One worker's endpoints. `warm_up` comes first."""

    def __init__(self, served: Served, settings: Settings, metrics: Metrics) -> None:
        self._served = served  # each request takes it once
        self._deadline = settings.deadline_ms / 1000
        self._metrics = metrics
        self._page = PAGE.read_bytes()
        self._decoders = ThreadPoolExecutor(available_cpus(), "decode")
        self.routes: Routes = {
            "/predict": ("POST", self._post_predict),
            "/predict_batch": ("POST", self._post_predict_batch),
            "/preview": ("POST", self._post_preview),
            "/model": ("GET", self._get_model),
            "/ui": ("GET", self._get_page),
            "/metrics": ("GET", self._get_metrics),
            "/docs.json": ("GET", self._get_description),
        }

    async def warm_up(self) -> None:
        """Go the way of a request from its body to its answer."""
        blank = io.BytesIO()
        Image.new("L", (self._served.pixels.width, self._served.pixels.height)).save(blank, "PNG")
        body = {"type": "http.request", "body": blank.getvalue(), "more_body": False}
        _, predict = self.routes["/predict"]
        for _ in range(WARM_UP_REQUESTS):
            messages: list[Message] = [body]

            async def receive(messages: list[Message] = messages) -> Message:
                return messages.pop() if messages else await asyncio.Future()

            with contextlib.suppress(TimeoutError):  # a short deadline, and nothing is warm yet
                await predict(Request({"type": "http", "headers": []}, receive))

    async def predict(self, data: bytes, request: Request | None = None) -> dict[str, Any]:
        """The prediction for one encoded image; given up where the client of `request` goes.

        Raises ApiError, ImageError, and TimeoutError after the deadline.
        """
        served = self._served
        async with asyncio.timeout(self._deadline):
            answer = await _classify(served, await self._decode(served, data), request)
        return answer | {"model": served.tag}

    async def predict_batch(self, images: Sequence[bytes]) -> dict[str, Any]:
        """The predictions, in order, of up to 256 encoded images; an error is an item's own."""
        served = self._served
        chunk = served.runner.largest_batch
        predictions: list[dict[str, Any]] = []
        async with asyncio.timeout(self._deadline * math.ceil(len(images) / chunk)):
            # One chunk after the other, so that a large batch leaves room in the queue for other requests.
            for start in range(0, len(images), chunk):
                items = (self._classify_item(served, data) for data in images[start : start + chunk])
                predictions += await asyncio.gather(*items)
        return {"model": served.tag, "predictions": predictions}

    async def preview(self, data: bytes) -> bytes:
        """The PNG of what the model sees of an encoded image. Raises ApiError and ImageError."""
        async with asyncio.timeout(self._deadline):
            pixels = await self._decode(self._served, data)
        png = io.BytesIO()
        Image.fromarray(pixels.squeeze(-1) if pixels.shape[-1] == 1 else pixels).save(png, "PNG")
        return png.getvalue()

    def describe_model(self) -> dict[str, Any]:
        """The answer of GET /model."""
        served = self._served
        pixels = served.pixels
        return {
            "model": served.tag,
            "labels": list(served.labels),
            "input": {
                "height": pixels.height,
                "width": pixels.width,
                "channels": pixels.channels,
                "normalize": pixels.normalize,
            },
            "metrics": dict(served.metrics),
        }

    async def _post_predict(self, request: Request) -> Answer:
        image = await self._image(request)
        try:
            return json_answer(await self.predict(image, request))
        except ImageError as error:
            if request.headers.get("content-type") != CURL_FORM:
                raise
            raise ImageError(error.code, f"{error} (with curl: --data-binary @FILE; -d alters the bytes)") from error

    async def _post_predict_batch(self, request: Request) -> Answer:
        body = await request.body(BATCH_LIMIT + FRAMING_LIMIT)
        return json_answer(await self.predict_batch(await request.files(body, "images", BATCH_IMAGES)))

    async def _post_preview(self, request: Request) -> Answer:
        return Answer(200, await self.preview(await self._image(request)), "image/png")

    async def _get_model(self, _: Request) -> Answer:
        return json_answer(self.describe_model())

    async def _get_page(self, _: Request) -> Answer:
        return Answer(200, self._page, "text/html; charset=utf-8", ((b"content-security-policy", UI_POLICY),))

    async def _get_metrics(self, _: Request) -> Answer:
        return Answer(200, self._metrics.render(), CONTENT_TYPE)

    async def _get_description(self, _: Request) -> Answer:
        return json_answer(describe(self._served.tag))

    async def _image(self, request: Request) -> bytes:
        """The image that is the body, or that a multipart form carries; the bytes decide which it is."""
        body = await request.body(IMAGE_LIMIT + FRAMING_LIMIT)
        if not is_image(body) and request.headers.get("content-type", "").startswith("multipart/form-data"):
            files = await request.files(body, "image", 1)
            body = files[0]
        return body

    async def _decode(self, served: Served, data: bytes) -> NDArray[np.uint8]:
        """Raises ApiError (`too_large`, `overloaded`) and ImageError."""
        if len(data) > IMAGE_LIMIT:
            raise ApiError("too_large", f"the image is too large: at most {IMAGE_LIMIT // MIB} MiB are read")
        if served.runner.full:  # before the work of decoding
            raise _overloaded()
        start = time.perf_counter()
        image = EncodedImage(data)
        if image.info.width * image.info.height <= SMALL_PIXELS:
            pixels = image.decode(served.pixels)
        else:
            pixels = await asyncio.get_running_loop().run_in_executor(self._decoders, image.decode, served.pixels)
        self._metrics.decode_seconds.observe(time.perf_counter() - start)
        return pixels

    async def _classify_item(self, served: Served, data: bytes) -> dict[str, Any]:
        """A prediction without `model`, or `{"error": …}` where the image is at fault."""
        try:
            return await _classify(served, await self._decode(served, data))
        except (ApiError, ImageError) as error:
            if error.code == "overloaded":  # not the image's fault
                raise
            return error_value(error.code, str(error))


async def _classify(served: Served, pixels: NDArray[np.uint8], request: Request | None = None) -> dict[str, Any]:
    """A prediction without `model`. Where the client of `request` goes, the image is not computed.

    Raises ApiError, and ConnectionResetError for a client that has gone.
    """
    try:
        future = served.runner.predict(pixels)
    except asyncio.QueueFull:
        raise _overloaded() from None
    gone = asyncio.ensure_future(request.disconnected()) if request else None
    if gone:
        gone.add_done_callback(lambda _: future.cancel())
    try:
        outputs = await future
    except asyncio.CancelledError:
        if gone and gone.done():
            raise ConnectionResetError from None
        raise
    finally:
        if gone:
            gone.cancel()
    return prediction(outputs[PROBABILITIES], served.labels)


def _overloaded() -> ApiError:
    return ApiError("overloaded", "too many images wait; try again later")
