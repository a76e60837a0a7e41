"""CPU work of a known length, however busy the machine is."""

from __future__ import annotations

import time


def use_cpu(seconds: float) -> None:
    """Keep this thread busy for so many CPU seconds."""
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass
