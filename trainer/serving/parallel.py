"""Parallel engines: several images at once, each on one CPU, for a network that gains nothing by batches.

Threads that share an image wait for each other after every layer, and for whatever else their CPUs do in between: above
all, decoding photos. Engines with one thread each need not wait. An image that comes alone has all CPUs.
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
from trainer.serving.runner import STALLED_S, OnBatch, min_cpu_s, report_batch


class ParallelRunner:
    """Runs each image on an idle engine. `warm_up` comes first, from any thread; see `Runner`."""

    def __init__(
        self,
        whole: Engine,
        engines: Sequence[Engine],
        *,
        queue_length: int,
        on_batch: OnBatch = lambda size, seconds: None,
    ) -> None:
        """`whole` has all CPUs, each of `engines` has one. `on_batch` is called from several threads."""
        self._whole = whole
        self._idle: SimpleQueue[Engine] = SimpleQueue()
        for engine in engines:
            self._idle.put(engine)
        self._parallel = len(engines)
        self._queue_length = queue_length
        self._on_batch = on_batch
        self._in_flight = 0  # images without their outputs
        self._last_end = 0.0
        self._alone_cpu_s, self._image_cpu_s = 0.0, 0.0
        self._threads = ThreadPoolExecutor(self._parallel, "engine")

    @property
    def waiting(self) -> int:
        return max(0, self._in_flight - self._parallel)

    @property
    def full(self) -> bool:
        return self.waiting >= self._queue_length

    @property
    def stalled(self) -> bool:
        return self._in_flight > 0 and time.perf_counter() - self._last_end > STALLED_S + self._image_cpu_s

    @property
    def image_cpu_s(self) -> float:
        return self._image_cpu_s

    @property
    def alone_cpu_s(self) -> float:
        return self._alone_cpu_s

    @property
    def largest_batch(self) -> int:
        """A few for each engine: none of them is to wait for the next image."""
        return min(4 * self._parallel, self._queue_length)

    def warm_up(self, image_shape: Sequence[int]) -> None:
        """Run and measure every engine."""
        image = np.zeros((1, *image_shape), np.uint8)
        self._alone_cpu_s = min_cpu_s(self._whole, image)
        for _ in range(self._parallel):
            engine = self._idle.get()
            self._image_cpu_s = min_cpu_s(engine, image)
            self._idle.put(engine)

    def predict(self, image: NDArray[np.uint8]) -> asyncio.Future[Outputs]:
        if self.full:
            raise asyncio.QueueFull
        run = self._run_on_idle_engine
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

    def _run_on_idle_engine(self, image: NDArray[np.uint8]) -> Outputs:
        engine = self._idle.get()
        try:
            return self._run(engine, image)
        finally:
            self._idle.put(engine)

    def _run(self, engine: Engine, image: NDArray[np.uint8]) -> Outputs:
        start = time.perf_counter()
        outputs = engine.predict(image[None])
        self._last_end = time.perf_counter()
        report_batch(self._on_batch, 1, self._last_end - start)
        return {name: rows[0] for name, rows in outputs.items()}
