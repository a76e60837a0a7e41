"""Adaptive batching: single images in, one call of the engine for all that wait.

An idle engine gets what has arrived as soon as the event loop finds no more; while it is busy images collect for the
next batch. So batches grow with the load, and no image waits on a timer. (Clipper, Crankshaw et al., NSDI 2017, calls
batches whose size follows the load adaptive; a delay to fill them, which it and most servers have, is left out.)

A short batch is run by the event loop itself. That looks like blocking, but the way to a thread and back takes half a
millisecond, and what arrives meanwhile would be split over two batches, each at the price of one: requests wait in
their sockets instead, and are the next batch together. A thread is for long batches, for a backlog where there is
another CPU, and for a flood of requests.
"""

from __future__ import annotations

import asyncio
import logging
import math
import resource
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from trainer.artifact.engine import Engine, Outputs

log = logging.getLogger("bentoml.trainer")  # below BentoML's own logger, which is set up when it serves

OnBatch = Callable[[int, float], None]
Waiting = tuple[NDArray[np.uint8], "asyncio.Future[Outputs]"]

# A batch has the largest of these sizes that can be filled, and what is left over goes into the next one: all of them
# can be run in advance, and none computes padding.
BATCH_SIZES = (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 24, 28, 32, 40, 48, 56, 64)
# Of the CPU time for each image: a batch twice as large that saves less only lets its images wait longer.
WORTH_DOUBLING = 0.95
TRIED = 4  # times the largest that is worth it: one that is measured badly is no end
WARM_UP_RUNS = 3  # of the sizes that decide how large a batch may be
SHORT_S = 0.005  # up to which a batch may hold up the event loop
STALLED_S = 10.0  # in which not one batch was finished


class Runner:
    """Runs an engine for images that arrive one by one on the event loop.

    Its public methods belong to the event loop's thread, except `warm_up`, which comes before all others.
    """

    def __init__(
        self,
        engine: Engine,
        image_shape: Sequence[int],
        *,
        queue_length: int,
        spare_cpu: bool = True,
        on_batch: OnBatch = lambda size, seconds: None,
    ) -> None:
        """`spare_cpu`: whether an engine's thread has another CPU than the event loop.

        `on_batch` is told of each batch: its images and the engine's seconds. Its failures are logged, no more.
        """
        self._engine = engine
        self._image_shape = tuple(image_shape)
        self._queue_length = queue_length
        self._spare_cpu = spare_cpu
        self._on_batch = on_batch
        self._sizes: tuple[int, ...] = BATCH_SIZES
        self._waiting: deque[Waiting] = deque()
        self._busy = False
        self._began = 0.0  # the batch under way
        self._seconds: dict[int, float] = {}  # of the last batch of each size; at first, of the CPU
        self._thread = ThreadPoolExecutor(1, "engine")

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @property
    def full(self) -> bool:
        return self.waiting >= self._queue_length

    @property
    def stalled(self) -> bool:
        """Whether a batch does not come to its end."""
        return self._busy and time.perf_counter() - self._began > STALLED_S + self._seconds.get(1, 0)

    @property
    def largest_batch(self) -> int:
        """How many images, at most, can wait and then be run at once."""
        return min(self._sizes[-1], self._queue_length)

    def warm_up(self, slowest: float) -> None:
        """Run every batch size that will be used.

        The largest is the one beyond which neither twice nor four times as many save work for each image, or which
        would take more than `slowest` CPU seconds.
        """
        largest = size = 1
        self._measure(size)
        while size < min(TRIED * largest, BATCH_SIZES[-1]):
            size *= 2
            self._measure(size)
            if self._seconds[size] > slowest:
                break
            if self._seconds[size] / size <= WORTH_DOUBLING * self._seconds[largest] / largest:
                largest = size
        self._sizes = tuple(size for size in BATCH_SIZES if size <= largest)
        for size in set(self._sizes) - self._seconds.keys():
            self._measure(size, runs=1)

    @property
    def image_cpu_s(self) -> float:
        """CPU seconds of an image in the largest batch. After `warm_up`, before the first image."""
        return self._seconds[self._sizes[-1]] / self._sizes[-1]

    @property
    def alone_cpu_s(self) -> float:
        """CPU seconds of an image by itself. After `warm_up`, before the first image."""
        return self._seconds[1]

    def predict(self, image: NDArray[np.uint8]) -> asyncio.Future[Outputs]:
        """uint8 [H,W,C] → a future of the engine's outputs for it, such as `probabilities` float32 [K].

        Cancel it, and the image is dropped while it waits.

        Raises asyncio.QueueFull where as many images wait as may. Where the engine fails, the future has its exception.
        """
        if self.full:
            raise asyncio.QueueFull
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Outputs] = loop.create_future()
        self._waiting.append((image, future))
        if not self._busy:
            self._busy, self._began = True, time.perf_counter()
            loop.call_soon(self._dispatch, loop)
        return future

    def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _measure(self, size: int, runs: int = WARM_UP_RUNS) -> None:
        self._seconds[size] = least_cpu_s(self._engine, np.zeros((size, *self._image_shape), np.uint8), runs)

    def _dispatch(self, loop: asyncio.AbstractEventLoop, seen: int = 0) -> None:
        """Run a batch, once the event loop has gone round and found no more than the `seen` images."""
        if seen < len(self._waiting) < self._sizes[-1]:
            loop.call_soon(self._dispatch, loop, len(self._waiting))
            return
        batch = self._next_batch()
        self._busy = bool(batch)
        if not batch:
            return
        backlog = len(batch) == self._sizes[-1] and bool(self._waiting)
        beside = self._flooded or (backlog and self._spare_cpu)
        if self._seconds.get(len(batch), math.inf) <= SHORT_S and not beside:
            self._finish(batch, self._run(batch))
            loop.call_soon(self._dispatch, loop)  # after the answers, and whatever arrives meanwhile
        else:
            self._thread.submit(self._work_off, loop, batch)

    @property
    def _flooded(self) -> bool:
        return self.waiting >= self._queue_length / 2

    def _next_batch(self) -> list[Waiting]:
        """Take the largest that can be filled, without the cancelled: their deadline or their client has passed."""
        batch: list[Waiting] = []
        while self._waiting and len(batch) < self._sizes[-1]:
            one = self._waiting.popleft()
            if not one[1].done():
                batch.append(one)
        size = max((size for size in self._sizes if size <= len(batch)), default=0)
        self._waiting.extendleft(reversed(batch[size:]))
        return batch[:size]

    def _work_off(self, loop: asyncio.AbstractEventLoop, batch: list[Waiting]) -> None:
        """In the engine's thread: this batch, and the next ones while there is a flood.

        An event loop that has to refuse requests is too busy to hand over each. (Meanwhile it only adds to what waits,
        and a deque bears that from another thread.)
        """
        while batch:
            outcome = self._run(batch)
            # Taken before the answers go out: whoever gets one finds the room of those that were cancelled meanwhile.
            following = self._next_batch() if self._flooded else []
            loop.call_soon_threadsafe(self._finish, batch, outcome)
            batch = following
        loop.call_soon_threadsafe(self._dispatch, loop)

    def _run(self, batch: list[Waiting]) -> tuple[Outputs, float] | Exception:
        """The outputs for the batch and how long they took, or why there are none."""
        try:
            images = np.stack([image for image, _ in batch])
            self._began = start = time.perf_counter()
            outputs = self._engine.predict(images)
            return outputs, time.perf_counter() - start
        except Exception as error:
            return error

    def _finish(self, batch: list[Waiting], outcome: tuple[Outputs, float] | Exception) -> None:
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
        tell(self._on_batch, len(batch), seconds)


def tell(on_batch: OnBatch, size: int, seconds: float) -> None:
    """Whatever comes of it, the batch is done and the next one has its turn."""
    try:
        on_batch(size, seconds)
    except Exception:
        log.exception("an error after a batch")


def least_cpu_s(engine: Engine, images: NDArray[np.uint8], runs: int = WARM_UP_RUNS) -> float:
    """CPU seconds of the least of so many runs; the first one of a size also sets the engine up for it.

    Not those of the clock: a replica starts beside others that serve, and what these take would be taken for its own.
    (Measured so, the largest batch of one network came out as 1, 2, 4 or 32 from start to start.)
    """
    seconds = []
    for _ in range(runs):
        start = _cpu_s()
        engine.predict(images)
        seconds.append(_cpu_s() - start)
    return min(seconds)


def _cpu_s() -> float:
    """Of this process. While `pace` has its timer run, `time.process_time` goes in steps of 4 ms."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime
