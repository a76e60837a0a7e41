"""Time that networks take for a batch, on this machine."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from trainer.artifact.engine import Engine


def median_seconds(batches: Sequence[tuple[Engine, NDArray[np.uint8]]], runs: int) -> list[float]:
    """Median seconds that each engine takes for its batch [n,H,W,C].

    The engines run in turn, so that a drift of the machine's speed favours none.
    """
    seconds: list[list[float]] = [[] for _ in batches]
    for run in range(runs + 1):
        for (engine, images), times in zip(batches, seconds, strict=True):
            start = time.perf_counter()
            engine.predict(images)
            if run:  # the first allocates the tensors for this batch size
                times.append(time.perf_counter() - start)
    return [statistics.median(times) for times in seconds]
