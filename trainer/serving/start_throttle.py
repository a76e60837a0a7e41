"""Throttled start: leaves the CPUs to the replicas that already serve.

A new replica's imports and warm-up would take a whole CPU for seconds. A lower priority does not help: the scheduler
divides CPUs between containers first, and only then within each. So the process sleeps between slices of work.
"""

from __future__ import annotations

import signal
import time
from types import FrameType

SLICE_S = 0.010  # CPU time between two pauses


def start_throttle(share: float) -> None:
    """Limit this process to `share` of one CPU, until `stop_throttle`. Call it from the main thread.

    It pauses between two instructions of Python: a single call into C code is not divided.
    """
    if share < 1:
        pause_s = SLICE_S * (1 / share - 1)

        def pause(_: int, __: FrameType | None) -> None:
            time.sleep(pause_s)

        signal.signal(signal.SIGPROF, pause)
        signal.setitimer(signal.ITIMER_PROF, SLICE_S, SLICE_S)


def stop_throttle() -> None:
    signal.setitimer(signal.ITIMER_PROF, 0)
