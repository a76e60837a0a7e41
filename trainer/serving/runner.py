"""Interface and shared parts of the runners: in batches (`batching`), or on parallel engines (`parallel`)."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import resource
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from trainer.artifact.engine import Engine, Outputs

log = logging.getLogger("bentoml.trainer")  # below BentoML's own logger, which is set up when it serves

OnBatch = Callable[[int, float], None]  # images of a finished batch, and the engine's seconds for it
WARM_UP_RUNS = 3
STALLED_S = 10.0  # a runner that finishes nothing in this time is stalled


@dataclass(frozen=True)
class Measured:
    """The runner that warm-up chose for a network on this machine, and its speed."""

    parallel: bool  # parallel engines, not batches
    alone_cpu_s: float  # CPU seconds of an image by itself
    batch_cpu_s: Mapping[int, float]  # size → CPU seconds, of each batch size in use; parallel engines have the size 1


class Runner(Protocol):
    """Runs an engine for images that arrive one by one. Call it only from the event loop's thread."""

    @property
    def waiting(self) -> int:
        """Images that no engine has taken yet."""

    @property
    def full(self) -> bool:
        """Whether the next image would be refused."""

    @property
    def stalled(self) -> bool:
        """Whether the engine does not return."""

    @property
    def largest_batch(self) -> int:
        """Images of one request that may be handed over together."""

    @property
    def image_cpu_s(self) -> float:
        """CPU seconds of an image when many come at once. After warm-up, before the first image."""

    @property
    def alone_cpu_s(self) -> float:
        """CPU seconds of an image by itself. After warm-up, before the first image."""

    @property
    def measured(self) -> Measured:
        """Results of the warm-up, before the first image."""

    def predict(self, image: NDArray[np.uint8]) -> asyncio.Future[Outputs]:
        """uint8 [H,W,C] → a future of the engine's outputs for it, such as `probabilities` float32 [K].

        A cancelled future drops its image while that waits. Raises asyncio.QueueFull for a full queue. A failure of the
        engine is the future's exception.
        """

    def close(self) -> None:
        """End the threads."""


class RunningCalls:
    """Calls that run now in threads, to find those that do not return."""

    def __init__(self) -> None:
        self._starts: dict[int, float] = {}  # thread → start of its call

    @contextlib.contextmanager
    def track(self) -> Iterator[None]:
        thread = threading.get_ident()
        self._starts[thread] = time.perf_counter()
        try:
            yield
        finally:
            del self._starts[thread]

    def older_than(self, seconds: float) -> int:
        """Number of calls that have run for longer."""
        now = time.perf_counter()
        return sum(now - start > seconds for start in list(self._starts.values()))


def report_batch(on_batch: OnBatch, size: int, seconds: float) -> None:
    """Call `on_batch`; its failure is logged, and the next batch has its turn."""
    try:
        on_batch(size, seconds)
    except Exception:
        log.exception("an error after a batch")


def min_cpu_s(engine: Engine, images: NDArray[np.uint8], runs: int = WARM_UP_RUNS) -> float:
    """Minimum of the CPU seconds of several runs; the first one of a size also sets the engine up for it.

    CPU time and not the clock's: a replica starts beside others that serve, and would measure their work as its own.
    (By the clock, the largest batch of one network came out as 1, 2, 4 or 32 from start to start.)
    """
    seconds = []
    for _ in range(runs):
        start = _cpu_s()
        engine.predict(images)
        seconds.append(_cpu_s() - start)
    return min(seconds)


def _cpu_s() -> float:
    """CPU seconds of this process. While `start_throttle`'s timer runs, `time.process_time` goes in steps of 4 ms."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime
