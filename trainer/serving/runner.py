"""Adaptive batching: single images in, one call of the engine for all that wait.

While the engine is idle an image is dispatched at once; while it is busy images collect for the next batch. So
batches grow with the load, and no image waits on a timer. (Clipper, Crankshaw et al., NSDI 2017, calls batches whose
size follows the load adaptive; a delay to fill them, which it and most servers have, is left out.)
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from trainer.serving.engine import Engine

Waiting = tuple[NDArray[np.uint8], "asyncio.Future[NDArray[np.float32]]"]

# A batch has the largest of these sizes that can be filled, and what is left over goes into the next one: all of them
# can be run in advance, and none computes padding.
BATCH_SIZES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)
# Seconds for one image, up to which the event loop itself runs it where images come one at a time: the way to the
# engine's thread and back takes half a millisecond, and no other image waits.
SHORT_S = 0.005


class Runner:
    """Runs an engine for images that arrive one by one on the event loop, in a thread of its own under load.

    Every method belongs to the event loop's thread, except `warm_up`, which comes before all others.
    """

    def __init__(
        self,
        engine: Engine,
        image_shape: Sequence[int],
        *,
        queue_length: int,
        on_batch: Callable[[int, float, int], None] = lambda size, seconds, waiting: None,
    ) -> None:
        """`on_batch` is told of each batch: its images, the engine's seconds, and how many images wait."""
        self._engine = engine
        self._image_shape = tuple(image_shape)
        self._queue_length = queue_length
        self._on_batch = on_batch
        self._sizes: tuple[int, ...] = BATCH_SIZES
        self._waiting: deque[Waiting] = deque()
        self._busy = False
        self._last_was_short = False  # the last batch: one image, and no more than SHORT_S
        self._thread = ThreadPoolExecutor(1, "engine")

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @property
    def full(self) -> bool:
        return self.waiting >= self._queue_length

    @property
    def largest_batch(self) -> int:
        """How many images, at most, can wait and then be run at once."""
        return min(self._sizes[-1], self._queue_length)

    def warm_up(self, slowest: float) -> None:
        """Run every batch size that will be used; a size that takes longer than `slowest` seconds is none of them."""
        sizes: list[int] = []
        for size in BATCH_SIZES:
            images = np.zeros((size, *self._image_shape), np.uint8)
            self._engine.predict(images)  # the first call of a size also sets it up
            start = time.perf_counter()
            self._engine.predict(images)
            if sizes and time.perf_counter() - start > slowest:
                break
            sizes.append(size)
        self._sizes = tuple(sizes)

    def predict(self, image: NDArray[np.uint8]) -> asyncio.Future[NDArray[np.float32]]:
        """uint8 [H,W,C] → a future of probabilities float32 [K]. Cancel it, and the image is dropped while it waits.

        Raises asyncio.QueueFull where as many images wait as may. Where the engine fails, the future has its exception.
        """
        if self.full:
            raise asyncio.QueueFull
        loop = asyncio.get_running_loop()
        future: asyncio.Future[NDArray[np.float32]] = loop.create_future()
        self._waiting.append((image, future))
        if not self._busy:
            self._busy = True
            # Not now but when the loop has seen every request that has arrived: they make one batch.
            loop.call_soon(self._dispatch, loop)
        return future

    def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _dispatch(self, loop: asyncio.AbstractEventLoop) -> None:
        # Without the cancelled: their deadline has passed or their client has gone.
        self._waiting = deque(one for one in self._waiting if not one[1].done())
        self._busy = bool(self._waiting)
        if not self._busy:
            return
        size = max(size for size in self._sizes if size <= len(self._waiting))
        images, futures = zip(*(self._waiting.popleft() for _ in range(size)), strict=True)
        if size == 1 and self._last_was_short:
            self._finish(loop, futures, self._run_here(images))
            return
        batch = self._thread.submit(self._run, images)
        batch.add_done_callback(lambda done: loop.call_soon_threadsafe(self._finish, loop, futures, done))

    def _run(self, images: Sequence[NDArray[np.uint8]]) -> tuple[NDArray[np.float32], float]:
        """The probabilities [N,K] and how long they took."""
        batch = np.stack(images)
        start = time.perf_counter()
        probabilities = self._engine.predict(batch)
        return probabilities, time.perf_counter() - start

    def _run_here(self, images: Sequence[NDArray[np.uint8]]) -> Future[tuple[NDArray[np.float32], float]]:
        """As the engine's thread would, but on the event loop."""
        done: Future[tuple[NDArray[np.float32], float]] = Future()
        try:
            done.set_result(self._run(images))
        except Exception as error:
            done.set_exception(error)
        return done

    def _finish(
        self,
        loop: asyncio.AbstractEventLoop,
        futures: Sequence[asyncio.Future[NDArray[np.float32]]],
        done: Future[tuple[NDArray[np.float32], float]],
    ) -> None:
        error = done.exception()
        if error is None:
            probabilities, seconds = done.result()
            self._on_batch(len(futures), seconds, len(self._waiting))
            self._last_was_short = len(futures) == 1 and seconds <= SHORT_S
        for index, future in enumerate(futures):
            if future.done():
                continue
            if error is None:
                future.set_result(probabilities[index])
            else:
                future.set_exception(error)
        self._dispatch(loop)
