"""Who is let in: an image that would not be answered in time is refused at once.

An image that waits in vain has cost its decoding, holds up those behind it, and its client learns too late to ask
elsewhere. So the wait is foreseen: the images ahead, times the seconds that one has taken lately. (DAGOR, Zhou et al.,
SoCC 2018, likewise goes by the time in the queue and not by its length.)
"""

from __future__ import annotations

import asyncio
import math
import time

# Of the deadline, for those ahead: the rest is for the image itself, and for what the machine does in between.
WAIT_SHARE = 0.85
LATELY_S = 0.5  # after so long, what was measured counts a third


class Admission:
    """Counts images from being let in to their answer. For the event loop's thread."""

    def __init__(self, deadline_s: float, *, image_s: float, gain: float) -> None:
        """`image_s`: what an image by itself takes, and `gain` how many times as fast they are when many come at once;
        until more is known.
        """
        self._deadline_s = deadline_s
        self._gain = gain
        self._inside = 0
        self._last_end = 0.0
        # Seconds at work and images done in them, each with the weight that it still has.
        self._seconds, self._images = image_s / gain, 1.0

    @property
    def wait_s(self) -> float:
        """How long those inside will take, foreseen."""
        return self._inside * self._seconds / self._images

    def enter(self) -> None:
        """Let an image in. `leave` has to follow. Raises asyncio.QueueFull where its wait would be too long."""
        if self._inside and self.wait_s > WAIT_SHARE * self._deadline_s:
            raise asyncio.QueueFull
        if not self._inside:
            self._last_end = time.perf_counter()
        self._inside += 1

    def leave(self, *, computed: bool) -> None:
        """`computed`: whether it went the whole way; those that did say how long that takes."""
        if computed:
            now = time.perf_counter()
            seconds = min(now - self._last_end, self._deadline_s)  # after a longer stall all ahead have gone
            if self._inside == 1:  # alone, for all that is known: many would have been faster
                seconds /= self._gain
            weight = math.exp(-seconds / LATELY_S)
            self._seconds = weight * self._seconds + seconds
            self._images = weight * self._images + 1
            self._last_end = now
        self._inside -= 1
