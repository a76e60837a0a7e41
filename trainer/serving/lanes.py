"""Several images at once, each on one CPU: for a network that gains nothing by batches.

Threads that share an image wait for each other after every layer, and for whatever else their CPUs do in between:
photos to decode, above all. Engines with one thread each need not wait. An image that comes alone has all CPUs.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue

import numpy as np
from numpy.typing import NDArray

from trainer.artifact.engine import Engine, Outputs
from trainer.serving.runner import STALLED_S, OnBatch, least_cpu_s, tell


class Lanes:
    """Runs images that arrive one by one on the event loop, whose thread its public methods belong to."""

    def __init__(
        self,
        whole: Engine,
        engines: Sequence[Engine],
        *,
        queue_length: int,
        on_batch: OnBatch = lambda size, seconds: None,
    ) -> None:
        """`whole` has all CPUs, each of `engines` has one. `on_batch` is told of each image as `Runner` tells it,
        from several threads.
        """
        self._whole = whole
        self._idle: SimpleQueue[Engine] = SimpleQueue()
        for engine in engines:
            self._idle.put(engine)
        self._lanes = len(engines)
        self._queue_length = queue_length
        self._on_batch = on_batch
        self._in_flight = 0  # images that are not answered
        self._last_end = 0.0
        self._alone_cpu_s, self._lane_cpu_s = 0.0, 0.0
        self._threads = ThreadPoolExecutor(self._lanes, "engine")

    @property
    def waiting(self) -> int:
        return max(0, self._in_flight - self._lanes)

    @property
    def full(self) -> bool:
        return self.waiting >= self._queue_length

    @property
    def stalled(self) -> bool:
        """Whether no image comes to its end."""
        return self._in_flight > 0 and time.perf_counter() - self._last_end > STALLED_S + self._lane_cpu_s

    @property
    def image_cpu_s(self) -> float:
        """CPU seconds of an image in a lane. After `warm_up`."""
        return self._lane_cpu_s

    @property
    def alone_cpu_s(self) -> float:
        """CPU seconds of an image by itself. After `warm_up`."""
        return self._alone_cpu_s

    @property
    def largest_batch(self) -> int:
        """How many images of one request are handed over together: none of the lanes is to wait for the next."""
        return min(4 * self._lanes, self._queue_length)

    def warm_up(self, image_shape: Sequence[int]) -> None:
        """Run each engine once. Comes before all else."""
        image = np.zeros((1, *image_shape), np.uint8)
        self._alone_cpu_s = least_cpu_s(self._whole, image)
        for _ in range(self._lanes):
            engine = self._idle.get()
            self._lane_cpu_s = least_cpu_s(engine, image)
            self._idle.put(engine)

    def predict(self, image: NDArray[np.uint8]) -> asyncio.Future[Outputs]:
        """uint8 [H,W,C] → a future of the engine's outputs for it, such as `probabilities` float32 [K].

        Cancel it, and the image is dropped while it waits. Raises asyncio.QueueFull where as many images wait as may.
        Where the engine fails, the future has its exception.
        """
        if self.full:
            raise asyncio.QueueFull
        run = self._run_in_lane
        if self._in_flight == 0:
            run, self._last_end = self._run_alone, time.perf_counter()
        self._in_flight += 1
        future = asyncio.wrap_future(self._threads.submit(run, image))
        future.add_done_callback(self._leave)
        return future

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _leave(self, _: asyncio.Future[Outputs]) -> None:
        self._in_flight -= 1

    def _run_alone(self, image: NDArray[np.uint8]) -> Outputs:
        return self._run(self._whole, image)

    def _run_in_lane(self, image: NDArray[np.uint8]) -> Outputs:
        engine = self._idle.get()
        try:
            return self._run(engine, image)
        finally:
            self._idle.put(engine)

    def _run(self, engine: Engine, image: NDArray[np.uint8]) -> Outputs:
        start = time.perf_counter()
        outputs = engine.predict(image[None])
        self._last_end = time.perf_counter()
        tell(self._on_batch, 1, self._last_end - start)
        return {name: rows[0] for name, rows in outputs.items()}
