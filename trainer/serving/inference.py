"""Inference of one worker: decode → admit → run → prediction, within a deadline.

`endpoints` calls it for HTTP, and `service.py` for calls from Python.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from typing import Any, Literal, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from trainer.artifact.engine import Outputs
from trainer.artifact.prediction import prediction
from trainer.errors import ImageError
from trainer.images.saliency import overlay
from trainer.serving.body_hints import with_hint
from trainer.serving.decoding import Decoder, Pixels
from trainer.serving.load_shedding import MESSAGE
from trainer.serving.loaded_model import FailedVersion, LoadedModel
from trainer.serving.memory import MemoryBudget
from trainer.serving.metrics import Metrics
from trainer.serving.responses import ApiError, error_body
from trainer.serving.schemas import BatchPrediction, Error, ErrorCode, Model, Prediction, Predictions
from trainer.serving.settings import Settings

S = TypeVar("S")
T = TypeVar("T")


class Inference:
    """Answers for encoded images. Call it only from the event loop's thread.

    `loaded` may be replaced at any time. Each request takes it once, at its start, and hands it on: one version answers
    all of it, and the answer names that version.
    """

    def __init__(self, loaded: LoadedModel, settings: Settings, metrics: Metrics, memory: MemoryBudget) -> None:
        self.loaded = loaded  # the model of the requests that begin now
        self.failed_version: FailedVersion | None = None
        self.warm = False  # answers before are not counted as unknown
        # For traces: called in the request's task, with the stage that an image has reached.
        self.on_stage: Callable[[Literal["admitted", "decoded", "computed"]], None] = lambda stage: None
        self._deadline_s = settings.deadline_ms / 1000
        self._queue_length = settings.queue_length
        self._metrics = metrics
        self._memory = memory
        self._decoder = Decoder(memory, metrics)

    @property
    def stalled(self) -> bool:
        """Whether the engine, or every decoder, does not return."""
        return self.loaded.runner.stalled or self._decoder.stalled

    def overloaded(self, ahead: int) -> bool:
        """Whether an image would be refused that comes after `ahead` others, of which nothing is known yet."""
        runner, admission = self.loaded.runner, self.loaded.admission
        return runner.waiting + ahead >= self._queue_length or admission.full(ahead)

    async def predict(self, data: bytes, charged: int = 0) -> Prediction:
        """The prediction for one encoded image. Raises ApiError, ImageError, and TimeoutError after the deadline.

        `charged`, here and below: what the request holds of the memory budget.
        """
        loaded = self.loaded
        async with self._deadline():
            _, answer = await self._classify(loaded, lambda: self._decoder.decode(data, loaded.pixels, charged))
        return {**answer, "model": loaded.tag}

    async def predict_batch(self, images: Sequence[bytes], charged: int = 0) -> Predictions:
        """The predictions, in order, of up to 256 encoded images; a faulty image has an error in its place."""
        loaded = self.loaded
        predictions = await self._in_chunks(loaded, lambda data: self._classify_item(loaded, data, charged), images)
        return {"model": loaded.tag, "predictions": predictions}

    async def infer(
        self, loaded: LoadedModel, images: Sequence[bytes | Pixels], charged: int = 0
    ) -> list[tuple[Outputs, BatchPrediction]]:
        """The network's outputs and the prediction for each image, encoded or uint8 [H,W,C] as the model sees it.

        `loaded` is the model that the request began with. Raises as `predict`; errors name the image, as `encoded[0]`.
        """

        async def classify(item: tuple[int, bytes | Pixels]) -> tuple[Outputs, BatchPrediction]:
            index, image = item
            if not isinstance(image, bytes):
                return await self._classify(loaded, lambda: _completed(image))
            try:
                return await self._classify(loaded, lambda: self._decoder.decode(image, loaded.pixels, charged))
            except ImageError as error:
                raise ImageError(error.code, f"encoded[{index}]: {with_hint(error, image)}") from error
            except ApiError as error:
                if error.code == "overloaded":  # not the image's fault
                    raise
                raise ApiError(error.code, f"encoded[{index}]: {error}") from error

        return await self._in_chunks(loaded, classify, list(enumerate(images)))

    async def explain(self, data: bytes, charged: int = 0) -> bytes:
        """PNG of the image as the model sees it, in gray under the saliency map of the most probable class.

        Raises ApiError, ImageError, and TimeoutError after the deadlines of all batches that it takes.
        """
        loaded = self.loaded
        chunk = loaded.runner.largest_batch
        async with asyncio.timeout(self._deadline_s * (1 + math.ceil(loaded.explainer.images / chunk))):
            pixels = await self._decoder.decode(data, loaded.pixels, charged)

            async def run(image: Pixels) -> Outputs:
                return await self._run(loaded, lambda: _completed(image))

            outputs = await run(pixels)

            async def run_many(images: NDArray[np.uint8]) -> list[Outputs]:
                return await _gather(run, images)

            saliency = await loaded.explainer.explain(pixels, outputs, run_many, chunk, self._memory, charged)
            return await self._decoder.encode(await asyncio.to_thread(overlay, pixels, saliency))

    async def preview(self, data: bytes, charged: int = 0) -> bytes:
        """PNG of the image as the model sees it. Raises ApiError, ImageError, and TimeoutError after the deadline."""
        loaded = self.loaded
        async with asyncio.timeout(self._deadline_s):
            return await self._decoder.encode(await self._decoder.decode(data, loaded.pixels, charged))

    def describe_model(self) -> Model:
        """Body of GET /model."""
        loaded = self.loaded
        pixels = loaded.pixels
        return {
            "model": loaded.tag,
            "labels": list(loaded.class_names),
            "input": {
                "height": pixels.height,
                "width": pixels.width,
                "channels": cast(Any, pixels.channels),
                "resize": cast(Any, pixels.resize),
                "normalize": cast(Any, pixels.normalize),
            },
            "threshold": loaded.threshold,
            "metrics": dict(loaded.metrics),
        }

    async def _classify_item(self, loaded: LoadedModel, data: bytes, charged: int) -> BatchPrediction | Error:
        """A prediction, or the error of a faulty image. Raises ApiError `overloaded`."""
        try:
            _, answer = await self._classify(loaded, lambda: self._decoder.decode(data, loaded.pixels, charged))
            return answer
        except ImageError as error:
            return error_body(cast(ErrorCode, error.code), str(with_hint(error, data)))
        except ApiError as error:
            if error.code == "overloaded":  # not the image's fault
                raise
            return error_body(error.code, str(error))

    @contextlib.asynccontextmanager
    async def _deadline(self, batches: int = 1) -> AsyncIterator[None]:
        """A deadline for each batch of the network; its used share is a metric. Raises TimeoutError after it.

        Requests that are refused do not count: they would make a busy server look idle.
        """
        limit_s = self._deadline_s * batches
        start = time.perf_counter()
        try:
            async with asyncio.timeout(limit_s):
                yield
        except TimeoutError:
            self._metrics.on_deadline_share(1.0)
            raise
        if self.warm:
            self._metrics.on_deadline_share((time.perf_counter() - start) / limit_s)

    async def _in_chunks(
        self, loaded: LoadedModel, run: Callable[[S], Coroutine[Any, Any, T]], images: Sequence[S]
    ) -> list[T]:
        """Results of `run` for the images of one request, in order. Raises TimeoutError after a deadline for each batch
        of the model that they fill, and as `_gather`.
        """
        chunk = loaded.runner.largest_batch
        results: list[T] = []
        async with self._deadline(math.ceil(len(images) / chunk)):
            # One chunk after the other: a large batch leaves slots in the queue for other requests.
            for start in range(0, len(images), chunk):
                results += await _gather(run, images[start : start + chunk])
        return results

    async def _classify(
        self, loaded: LoadedModel, pixels: Callable[[], Awaitable[Pixels]]
    ) -> tuple[Outputs, BatchPrediction]:
        """The outputs and a prediction without `model`. Raises as `_run`."""
        outputs = await self._run(loaded, pixels)
        answer = cast(BatchPrediction, prediction(outputs, loaded.class_names, loaded.threshold))
        if self.warm and not answer["known"]:
            self._metrics.on_unknown()
        return outputs, answer

    async def _run(self, loaded: LoadedModel, pixels: Callable[[], Awaitable[Pixels]]) -> Outputs:
        """The engine's outputs for an image; `pixels` is called once it is admitted.

        Raises ApiError `overloaded`, and the errors of `pixels`.
        """
        computed = False
        try:
            if loaded.runner.full:  # before the work of decoding
                raise asyncio.QueueFull
            loaded.admission.enter()
        except asyncio.QueueFull:
            raise _overloaded() from None
        try:
            self.on_stage("admitted")
            image = await pixels()
            self.on_stage("decoded")
            outputs = await loaded.runner.predict(image)
            self.on_stage("computed")
            computed = True
        except asyncio.QueueFull:
            raise _overloaded() from None
        finally:
            loaded.admission.leave(computed=computed)
        return outputs


async def _gather(run: Callable[[S], Coroutine[Any, Any, T]], images: Sequence[S] | Pixels) -> list[T]:
    """Results of `run` for each image, in order. Raises the first error, and the other images are cancelled."""
    if len(images) == 1:  # without a task, which takes as long as the other work for a small image
        return [await run(images[0])]
    tasks = []
    try:
        async with asyncio.TaskGroup() as group:
            for image in images:
                tasks.append(group.create_task(run(image)))
                await asyncio.sleep(0)  # its image is decoded; then other requests have their turn
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from None
    return [task.result() for task in tasks]


async def _completed(value: T) -> T:
    return value


def _overloaded() -> ApiError:
    return ApiError("overloaded", MESSAGE)
