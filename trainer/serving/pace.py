"""A start that leaves the CPUs to those that already serve.

A new replica's imports and warm-up would take a whole CPU for seconds. A lower priority does not help: the scheduler
divides CPUs between containers first, and within each one then. So the process sleeps between slices of work.
"""

from __future__ import annotations

import signal
import time
from types import FrameType

SLICE_S = 0.010  # of CPU time, at the most, before others have their turn


def slow_down(share: float) -> None:
    """From now on this process takes at most `share` of one CPU, until `full_speed`. For the main thread.

    It sleeps between two instructions of Python: what C code does in one call is not divided.
    """
    if share < 1:
        pause_s = SLICE_S * (1 / share - 1)

        def pause(_: int, __: FrameType | None) -> None:
            time.sleep(pause_s)

        signal.signal(signal.SIGPROF, pause)
        signal.setitimer(signal.ITIMER_PROF, SLICE_S, SLICE_S)


def full_speed() -> None:
    signal.setitimer(signal.ITIMER_PROF, 0)
