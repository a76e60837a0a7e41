"""The endpoints of the HTTP contract: bytes of images in, predictions out."""

from __future__ import annotations

import asyncio
import contextlib
import io
import math
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from starlette.types import Message

from trainer.artifact.engine import Outputs
from trainer.artifact.prediction import prediction
from trainer.errors import ImageError
from trainer.images.decode import EncodedImage, is_image
from trainer.images.encode import encode_png
from trainer.images.formats import format_of
from trainer.images.heat import overlay
from trainer.images.pixels import PixelSpec
from trainer.machine import available_cpus
from trainer.serving.answers import Answer, ApiError, error_value, json_answer
from trainer.serving.http import PAGE_PATH, Routes
from trainer.serving.memory import Memory
from trainer.serving.metrics import CONTENT_TYPE, Metrics
from trainer.serving.openapi import describe
from trainer.serving.request import BATCH_IMAGES, BATCH_LIMIT, FRAMING_LIMIT, IMAGE_LIMIT, MIB, Request, in_pieces
from trainer.serving.served import Served
from trainer.serving.settings import Settings

# More pixels take about a millisecond to decode: not on the event loop, where all other requests would wait.
SMALL_PIXELS = 100_000
# The header of more bytes may take as long; so may the formats that come from films, whatever their size.
SMALL_BYTES = 16 << 10
QUICK_FORMATS = ("JPEG", "PNG", "WebP", "BMP", "GIF")
QUEUE_SEEN_EVERY_S = 1.0
WARM_UP_REQUESTS = 50
PAGE = Path(__file__).with_name("ui.html")
CURL_FORM = "application/x-www-form-urlencoded"  # what `curl -d` and `--data-binary` claim
# It holds all that it needs, and asks nobody but this server.
UI_POLICY = b"default-src 'self'; img-src 'self' blob: data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"

S = TypeVar("S")
T = TypeVar("T")


class Api:
    """One worker's endpoints. `warm_up` comes first."""

    def __init__(self, served: Served, settings: Settings, metrics: Metrics, memory: Memory) -> None:
        self._served = served  # each request takes it once
        self._deadline = settings.deadline_ms / 1000
        self._metrics = metrics
        self._memory = memory
        self._with_token = settings.token_file is not None
        self._page = PAGE.read_bytes()
        self._warm = False
        self._decoders = ThreadPoolExecutor(available_cpus(), "decode")
        self.routes: Routes = {
            "/predict": ("POST", self._post_predict),
            "/predict_batch": ("POST", self._post_predict_batch),
            "/preview": ("POST", self._post_preview),
            "/explain": ("POST", self._post_explain),
            "/model": ("GET", self._get_model),
            PAGE_PATH: ("GET", self._get_page),
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
                await predict(Request({"type": "http", "headers": []}, receive, self._memory))
        self._warm = True
        self._queue_watch = asyncio.create_task(self._watch_queue())

    @property
    def ready(self) -> bool:
        """Whether answers come. Once it is warm."""
        return not self._served.runner.stalled

    async def predict(self, data: bytes) -> dict[str, Any]:
        """The prediction for one encoded image. Raises ApiError, ImageError, and TimeoutError after the deadline."""
        served = self._served
        async with asyncio.timeout(self._deadline):
            answer = await self._classify(served, data)
        return answer | {"model": served.tag}

    async def predict_batch(self, images: Sequence[bytes]) -> dict[str, Any]:
        """The predictions, in order, of up to 256 encoded images; an error is an item's own."""
        served = self._served
        chunk = served.runner.largest_batch
        predictions: list[dict[str, Any]] = []
        async with asyncio.timeout(self._deadline * math.ceil(len(images) / chunk)):
            # One chunk after the other, so that a large batch leaves room in the queue for other requests.
            for start in range(0, len(images), chunk):
                predictions += await self._classify_together(served, images[start : start + chunk])
        return {"model": served.tag, "predictions": predictions}

    async def explain(self, data: bytes) -> bytes:
        """The PNG of what the model sees of an encoded image, in gray under the heat of what spoke for its answer.

        Raises ApiError, ImageError, and TimeoutError after the deadlines of as many batches as it takes.
        """
        served = self._served
        chunk = served.runner.largest_batch
        async with asyncio.timeout(self._deadline * (1 + math.ceil(served.explainer.images / chunk))):
            pixels = await self._decode(data, served.pixels)

            async def run(image: NDArray[np.uint8]) -> Outputs:
                return await self._run(served, lambda: _ready(image))

            outputs = await run(pixels)

            async def run_together(images: NDArray[np.uint8]) -> list[Outputs]:
                return await _together(run, images)

            try:
                heat = await served.explainer.explain(pixels, outputs, run_together, chunk, self._memory)
            except MemoryError:
                raise _overloaded() from None
            return await asyncio.to_thread(lambda: encode_png(overlay(pixels, heat)))

    async def preview(self, data: bytes) -> bytes:
        """The PNG of what the model sees of an encoded image. Raises ApiError and ImageError."""
        async with asyncio.timeout(self._deadline):
            pixels = await self._decode(data, self._served.pixels)
            return await asyncio.get_running_loop().run_in_executor(self._decoders, encode_png, pixels)

    def describe_model(self) -> dict[str, Any]:
        """The answer of GET /model."""
        served = self._served
        pixels = served.pixels
        return {
            "model": served.tag,
            "labels": list(served.class_names),
            "input": {
                "height": pixels.height,
                "width": pixels.width,
                "channels": pixels.channels,
                "normalize": pixels.normalize,
            },
            "threshold": served.threshold,
            "metrics": dict(served.metrics),
        }

    async def _post_predict(self, request: Request) -> Answer:
        image = await self._image(request)
        with _hinting(request, image):
            return json_answer(await _while_connected(request, self.predict(image)))

    async def _post_predict_batch(self, request: Request) -> Answer:
        images = await request.files(request.chunks(BATCH_LIMIT + FRAMING_LIMIT), "images", BATCH_IMAGES)
        return json_answer(await _while_connected(request, self.predict_batch(images)))

    async def _post_preview(self, request: Request) -> Answer:
        return await self._picture(request, self.preview)

    async def _post_explain(self, request: Request) -> Answer:
        return await self._picture(request, self.explain)

    async def _picture(self, request: Request, draw: Callable[[bytes], Coroutine[Any, Any, bytes]]) -> Answer:
        image = await self._image(request)
        with _hinting(request, image):
            return Answer(200, await _while_connected(request, draw(image)), "image/png")

    async def _get_model(self, _: Request) -> Answer:
        return json_answer(self.describe_model())

    async def _get_page(self, _: Request) -> Answer:
        return Answer(200, self._page, "text/html; charset=utf-8", ((b"content-security-policy", UI_POLICY),))

    async def _get_metrics(self, _: Request) -> Answer:
        return Answer(200, self._metrics.render(), CONTENT_TYPE)

    async def _get_description(self, _: Request) -> Answer:
        return json_answer(describe(self._served.tag, with_token=self._with_token))

    async def _image(self, request: Request) -> bytes:
        """The image that is the body, or that a multipart form carries; the bytes decide which it is."""
        body = await request.body(IMAGE_LIMIT + FRAMING_LIMIT)
        if not is_image(body) and request.headers.get("content-type", "").startswith("multipart/form-data"):
            (body,) = await request.files(in_pieces(body), "image", 1)
        return body

    async def _classify_together(self, served: Served, images: Sequence[bytes]) -> list[dict[str, Any]]:
        """A prediction, or an error, for each. Raises ApiError, and then the others are given up."""
        return await _together(lambda data: self._classify_item(served, data), images)

    async def _classify_item(self, served: Served, data: bytes) -> dict[str, Any]:
        """A prediction without `model`, or `{"error": …}` where the image is at fault."""
        try:
            return await self._classify(served, data)
        except (ApiError, ImageError) as error:
            if error.code == "overloaded":  # not the image's fault
                raise
            return error_value(error.code, str(error))

    async def _classify(self, served: Served, data: bytes) -> dict[str, Any]:
        """A prediction without `model`. Raises ApiError (`too_large`, `overloaded`) and ImageError."""
        outputs = await self._run(served, lambda: self._decode(data, served.pixels))
        answer = prediction(outputs, served.class_names, served.threshold)
        if self._warm and not answer["known"]:
            self._metrics.on_unknown()
        return answer

    async def _run(self, served: Served, pixels: Callable[[], Awaitable[NDArray[np.uint8]]]) -> Outputs:
        """The engine's outputs for an image, whose `pixels` are asked for once it is let in. Raises ApiError
        `overloaded`, and what they raise.
        """
        computed = False
        try:
            if served.runner.full:  # before the work of decoding
                raise asyncio.QueueFull
            served.admission.enter()
        except asyncio.QueueFull:
            raise _overloaded() from None
        try:
            outputs = await served.runner.predict(await pixels())
            computed = True
        except asyncio.QueueFull:
            raise _overloaded() from None
        finally:
            served.admission.leave(computed=computed)
        return outputs

    async def _decode(self, data: bytes, spec: PixelSpec) -> NDArray[np.uint8]:
        """uint8 [H,W,C]. Raises ApiError `too_large` and ImageError."""
        if len(data) > IMAGE_LIMIT:
            raise ApiError("too_large", f"the image is too large: at most {IMAGE_LIMIT // MIB} MiB are read")
        start = time.perf_counter()
        image = EncodedImage(data) if len(data) <= SMALL_BYTES and format_of(data) in QUICK_FORMATS else None
        if image and image.info.width * image.info.height <= SMALL_PIXELS:
            pixels = image.decode(spec)
        else:
            pixels = await asyncio.get_running_loop().run_in_executor(self._decoders, self._decode_beside, data, spec)
        self._metrics.decode_seconds.observe(time.perf_counter() - start)
        return pixels

    def _decode_beside(self, data: bytes, spec: PixelSpec) -> NDArray[np.uint8]:
        """The same in a decoder's thread, once there is memory for it."""
        image = EncodedImage(data)
        needed = image.decoding_bytes(spec)
        if needed > self._memory.size:
            size = f"{image.info.width}x{image.info.height}"
            room = f"{needed // MIB} MiB are needed to decode it, and this server has {self._memory.size // MIB}"
            raise ImageError("too_many_pixels", f"{size} has too many pixels for this server: {room}")
        with self._memory.hold(needed, self._deadline):
            return image.decode(spec)

    async def _watch_queue(self) -> None:
        while True:
            self._metrics.on_waiting(self._served.runner.waiting)
            await asyncio.sleep(QUEUE_SEEN_EVERY_S)


async def _while_connected(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Give the work up where the client goes. Raises ConnectionResetError then."""
    task = asyncio.current_task()
    assert task
    gone = asyncio.ensure_future(request.disconnected())
    working = True

    def give_up(_: asyncio.Future[None]) -> None:
        if working and not gone.cancelled():
            task.cancel()

    gone.add_done_callback(give_up)
    try:
        return await work
    except asyncio.CancelledError:
        if gone.done() and not gone.cancelled() and not task.uncancel():
            raise ConnectionResetError from None
        raise
    finally:
        working = False
        gone.cancel()


@contextlib.contextmanager
def _hinting(request: Request, body: bytes) -> Iterator[None]:
    """An ImageError for `body` says what may be wrong with it."""
    try:
        yield
    except ImageError as error:
        headers = request.headers
        hint = _hint(headers.get("content-type", ""), headers.get("content-encoding", ""), body)
        if not hint:
            raise
        raise ImageError(error.code, f"{error} ({hint})") from error


def _hint(content_type: str, encoding: str, body: bytes) -> str:
    """What may be wrong with a body that is no picture; empty where its headers and its first byte do not tell."""
    if encoding not in ("", "identity"):
        return f"Content-Encoding: {encoding} is not read: send the picture's bytes as they are"
    if content_type.startswith("application/json") or body.startswith(b"{"):
        return "send the picture's bytes, not JSON"
    return "with curl: --data-binary @FILE; -d alters the bytes" if content_type == CURL_FORM else ""


async def _together(run: Callable[[S], Coroutine[Any, Any, T]], images: Iterable[S]) -> list[T]:
    """What `run` gives for each image, in order. Raises the first ApiError, and then the others are given up."""
    started = []
    try:
        async with asyncio.TaskGroup() as group:
            for image in images:
                started.append(group.create_task(run(image)))
                await asyncio.sleep(0)  # its image is decoded; then other requests have their turn
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from None
    return [task.result() for task in started]


async def _ready(value: T) -> T:
    return value


def _overloaded() -> ApiError:
    return ApiError("overloaded", "too many images wait; try again later")
