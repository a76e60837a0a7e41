"""Parallel engines: several images at once, each on one CPU, for a network that gains nothing by batches.

Threads that share an image wait for each other after every layer, and for whatever else their CPUs do in between: above
all, decoding photos. Engines with one thread each need not wait. An image that comes alone has all CPUs.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from queue import SimpleQueue

import numpy as np
from numpy.typing import NDArray

from trainer.artifact.engine import Engine, Outputs
from trainer.serving.runner import STALLED_S, Measured, OnBatch, RunningCalls, min_cpu_s, report_batch


@dataclass(frozen=True, eq=False)
class QueuedImage:
    image: NDArray[np.uint8]
    future: asyncio.Future[Outputs]


class ParallelRunner:
    """Runs each image on an idle engine; see `Runner`.

    `warm_up` comes first, from any thread, unless `measured` is given.
    """

    def __init__(
        self,
        whole: Engine,
        engines: Sequence[Engine],
        *,
        queue_length: int,
        on_batch: OnBatch = lambda size, seconds: None,
        measured: Measured | None = None,
    ) -> None:
        """`whole` has all CPUs, each of `engines` has one. `on_batch` is called from several threads.

        `measured`: results of a warm-up elsewhere; every engine has run an image.
        """
        self._whole = whole
        self._idle: SimpleQueue[Engine] = SimpleQueue()
        for engine in engines:
            self._idle.put(engine)
        self._parallel = len(engines)
        self._queue_length = queue_length
        self._on_batch = on_batch
        self._queue: deque[QueuedImage] = deque()
        self._running_threads = 0
        self._calls = RunningCalls()
        self._alone_cpu_s = measured.alone_cpu_s if measured else 0.0
        self._image_cpu_s = measured.batch_cpu_s[1] if measured else 0.0
        self._threads = ThreadPoolExecutor(self._parallel, "engine")

    @property
    def waiting(self) -> int:
        return len(self._queue)

    @property
    def full(self) -> bool:
        return self.waiting >= self._queue_length

    @property
    def stalled(self) -> bool:
        return self._calls.older_than(STALLED_S + self._image_cpu_s) > 0

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

    @property
    def measured(self) -> Measured:
        return Measured(True, self._alone_cpu_s, {1: self._image_cpu_s})

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
        loop = asyncio.get_running_loop()
        queued = QueuedImage(image, loop.create_future())
        if self._running_threads < self._parallel:
            self._start_thread(loop, queued)
        else:
            self._queue.append(queued)
            queued.future.add_done_callback(lambda _: self._drop(queued))
        return queued.future

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _drop(self, queued: QueuedImage) -> None:
        """Remove an image that was cancelled while it waited."""
        if queued.future.cancelled() and queued in self._queue:
            self._queue.remove(queued)

    def _start_thread(self, loop: asyncio.AbstractEventLoop, queued: QueuedImage) -> None:
        alone = self._running_threads == 0
        self._running_threads += 1
        self._threads.submit(self._run_queue, loop, self._whole if alone else self._idle.get(), queued)

    def _run_queue(self, loop: asyncio.AbstractEventLoop, engine: Engine, first: QueuedImage) -> None:
        """Run `first`, then the images that wait, in a thread. The engine `whole` runs only one: it needs all CPUs."""
        queued: QueuedImage | None = first
        while queued:
            outcome = self._run(engine, queued.image)
            following = self._next()
            if following and engine is self._whole:
                engine = self._idle.get()
            elif not following and engine is not self._whole:
                self._idle.put(engine)
            # The thread has ended by the time of its last response: an image that comes then is alone.
            loop.call_soon_threadsafe(self._finish, loop, queued.future, outcome, following is None)
            queued = following

    def _next(self) -> QueuedImage | None:
        """Take the first image that waits and is not cancelled. Any thread may call it."""
        while self._queue:
            with contextlib.suppress(IndexError):  # another thread was faster
                queued = self._queue.popleft()
                if not queued.future.done():
                    return queued
        return None

    def _finish(
        self,
        loop: asyncio.AbstractEventLoop,
        future: asyncio.Future[Outputs],
        outcome: Outputs | Exception,
        thread_ends: bool,
    ) -> None:
        if thread_ends:
            self._running_threads -= 1
            if queued := self._next():  # it came after the thread looked
                self._start_thread(loop, queued)
        if future.done():
            return
        if isinstance(outcome, Exception):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)

    def _run(self, engine: Engine, image: NDArray[np.uint8]) -> Outputs | Exception:
        try:
            start = time.perf_counter()
            with self._calls.track():
                outputs = engine.predict(image[None])
            report_batch(self._on_batch, 1, time.perf_counter() - start)
            return {name: rows[0] for name, rows in outputs.items()}
        except Exception as error:
            return error
