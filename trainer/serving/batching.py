"""Adaptive batching: single images in, one call of the engine for all that wait.

An idle engine gets what has arrived as soon as the event loop finds no more; while it runs, images collect for the next
batch. So batches grow with the load, and no image waits on a timer. (Clipper, Crankshaw et al., NSDI 2017, calls
batches whose size follows the load adaptive; a delay to fill them, which it and most servers have, is left out.)

A short batch runs on the event loop itself. That looks like blocking, but the way to a thread and back takes half a
millisecond, and what arrives meanwhile would be split over two batches, each at the price of one: requests wait in
their sockets instead, and are the next batch together. A thread runs long batches, a backlog where there is another
CPU, and all batches under overload.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from trainer.artifact.engine import Engine, Outputs
from trainer.serving.runner import STALLED_S, WARM_UP_RUNS, Measured, OnBatch, min_cpu_s, report_batch

QueuedImage = tuple[NDArray[np.uint8], "asyncio.Future[Outputs]"]

# A batch has the largest of these sizes that can be filled, and the rest goes into the next one: all sizes can be run
# in advance, and none computes padding.
BATCH_SIZES = (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 24, 28, 32, 40, 48, 56, 64)
# Share of the CPU time per image, at most: a batch twice as large that saves less only lets its images wait longer.
WORTH_DOUBLING = 0.95
LOOK_AHEAD = 4  # times the largest good size is tried: one bad measurement does not end the search
SHORT_S = 0.005  # longest batch that may run on the event loop


class BatchRunner:
    """Runs an engine in batches; see `Runner`. `warm_up` comes first, from any thread, unless `measured` is given."""

    def __init__(
        self,
        engine: Engine,
        image_shape: Sequence[int],
        *,
        queue_length: int,
        spare_cpu: bool = True,
        on_batch: OnBatch = lambda size, seconds: None,
        measured: Measured | None = None,
    ) -> None:
        """`spare_cpu`: whether the engine's thread has another CPU than the event loop.

        `measured`: results of a warm-up elsewhere; the engine has run each of its sizes.
        """
        self._engine = engine
        self._image_shape = tuple(image_shape)
        self._queue_length = queue_length
        self._spare_cpu = spare_cpu
        self._on_batch = on_batch
        self._sizes = tuple(measured.batch_cpu_s) if measured else BATCH_SIZES
        self._queue: deque[QueuedImage] = deque()
        self._running = False
        self._start = 0.0  # of the current batch
        # Of the last batch of each size; after warm-up, CPU seconds.
        self._seconds = dict(measured.batch_cpu_s) if measured else {}
        self._thread = ThreadPoolExecutor(1, "engine")

    @property
    def waiting(self) -> int:
        return len(self._queue)

    @property
    def full(self) -> bool:
        return self.waiting >= self._queue_length

    @property
    def stalled(self) -> bool:
        return self._running and time.perf_counter() - self._start > STALLED_S + self._seconds.get(1, 0)

    @property
    def largest_batch(self) -> int:
        return min(self._sizes[-1], self._queue_length)

    @property
    def image_cpu_s(self) -> float:
        return self._seconds[self._sizes[-1]] / self._sizes[-1]

    @property
    def alone_cpu_s(self) -> float:
        return self._seconds[1]

    @property
    def measured(self) -> Measured:
        return Measured(False, self.alone_cpu_s, {size: self._seconds[size] for size in self._sizes})

    def warm_up(self, max_batch_s: float) -> None:
        """Choose the largest batch, and run every size up to it.

        It is the largest beyond which neither twice nor four times as many images save work for each image, and that
        takes at most `max_batch_s` CPU seconds.
        """
        largest = size = 1
        self._measure(size)
        while size < min(LOOK_AHEAD * largest, BATCH_SIZES[-1]):
            size *= 2
            self._measure(size)
            if self._seconds[size] > max_batch_s:
                break
            if self._seconds[size] / size <= WORTH_DOUBLING * self._seconds[largest] / largest:
                largest = size
        self._sizes = tuple(size for size in BATCH_SIZES if size <= largest)
        for size in set(self._sizes) - self._seconds.keys():
            self._measure(size, runs=1)

    def predict(self, image: NDArray[np.uint8]) -> asyncio.Future[Outputs]:
        if self.full:
            raise asyncio.QueueFull
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Outputs] = loop.create_future()
        self._queue.append((image, future))
        if not self._running:
            self._running, self._start = True, time.perf_counter()
            loop.call_soon(self._dispatch, loop)
        return future

    def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _measure(self, size: int, runs: int = WARM_UP_RUNS) -> None:
        self._seconds[size] = min_cpu_s(self._engine, np.zeros((size, *self._image_shape), np.uint8), runs)

    def _dispatch(self, loop: asyncio.AbstractEventLoop, seen: int = 0) -> None:
        """Run a batch, once the event loop has gone round and found no more than the `seen` images."""
        if seen < len(self._queue) < self._sizes[-1]:
            loop.call_soon(self._dispatch, loop, len(self._queue))
            return
        batch = self._next_batch()
        self._running = bool(batch)
        if not batch:
            return
        backlog = len(batch) == self._sizes[-1] and bool(self._queue)
        in_thread = self._overloaded or (backlog and self._spare_cpu)
        if self._seconds.get(len(batch), math.inf) <= SHORT_S and not in_thread:
            self._finish(batch, self._run(batch))
            loop.call_soon(self._dispatch, loop)  # after the responses, and whatever arrives meanwhile
        else:
            self._thread.submit(self._drain, loop, batch)

    @property
    def _overloaded(self) -> bool:
        return self.waiting >= self._queue_length / 2

    def _next_batch(self) -> list[QueuedImage]:
        """Take the largest batch that can be filled, without cancelled images: their deadline or client has gone."""
        batch: list[QueuedImage] = []
        while self._queue and len(batch) < self._sizes[-1]:
            queued = self._queue.popleft()
            if not queued[1].done():
                batch.append(queued)
        size = max((size for size in self._sizes if size <= len(batch)), default=0)
        self._queue.extendleft(reversed(batch[size:]))
        return batch[:size]

    def _drain(self, loop: asyncio.AbstractEventLoop, batch: list[QueuedImage]) -> None:
        """Run this batch in the engine's thread, and the next ones while overloaded.

        An event loop that has to refuse requests is too busy to hand over each batch. (Meanwhile it only appends to the
        queue, and a deque may be read from another thread.)
        """
        while batch:
            outcome = self._run(batch)
            # Taken before the responses go out: their clients find the slots of images that were cancelled meanwhile.
            following = self._next_batch() if self._overloaded else []
            loop.call_soon_threadsafe(self._finish, batch, outcome)
            batch = following
        loop.call_soon_threadsafe(self._dispatch, loop)

    def _run(self, batch: list[QueuedImage]) -> tuple[Outputs, float] | Exception:
        """The outputs for the batch and the engine's seconds, or its failure."""
        try:
            images = np.stack([image for image, _ in batch])
            self._start = start = time.perf_counter()
            outputs = self._engine.predict(images)
            return outputs, time.perf_counter() - start
        except Exception as error:
            return error

    def _finish(self, batch: list[QueuedImage], outcome: tuple[Outputs, float] | Exception) -> None:
        if isinstance(outcome, Exception):
            for _, future in batch:
                if not future.done():
                    future.set_exception(outcome)
            return
        outputs, seconds = outcome
        self._seconds[len(batch)] = seconds
        for index, (_, future) in enumerate(batch):
            if not future.done():
                future.set_result({name: rows[index] for name, rows in outputs.items()})
        report_batch(self._on_batch, len(batch), seconds)
