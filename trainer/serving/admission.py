"""Admission control: an image that would miss its deadline is refused at once.

An image that waits in vain has cost its decoding, delays those behind it, and its client learns too late to ask
elsewhere. So the wait is predicted: the images ahead, times the seconds that one has taken lately. (DAGOR, Zhou et al.,
SoCC 2018, likewise uses the time in the queue and not its length.)
"""

from __future__ import annotations

import asyncio
import math
import time

# Share of the deadline for the images ahead: the rest is for the image itself and for other work of the machine.
MAX_WAIT_SHARE = 0.85
DECAY_S = 0.5  # after this time, a measurement counts a third


class Admission:
    """Counts images from admission to response. Call it only from the event loop's thread."""

    def __init__(self, deadline_s: float, *, image_s: float, gain: float) -> None:
        """First estimates, until images have been measured.

        `image_s`: seconds of an image by itself; `gain`: how many times faster they are when many come at once.
        """
        self._deadline_s = deadline_s
        self._gain = gain
        self._admitted = 0
        self._last_end = 0.0
        # Seconds of work and the images done in them, with exponentially decaying weights.
        self._seconds, self._images = image_s / gain, 1.0

    @property
    def wait_s(self) -> float:
        """Predicted time until all admitted images are done."""
        return self._wait_s(self._admitted)

    def full(self, ahead: int = 0) -> bool:
        """Whether an image would wait too long that comes after the admitted ones and `ahead` more."""
        images = self._admitted + ahead
        return images > 0 and self._wait_s(images) > MAX_WAIT_SHARE * self._deadline_s

    def enter(self) -> None:
        """Admit an image; `leave` has to follow. Raises asyncio.QueueFull where its wait would be too long."""
        if self.full():
            raise asyncio.QueueFull
        if not self._admitted:
            self._last_end = time.perf_counter()
        self._admitted += 1

    def leave(self, *, computed: bool) -> None:
        """`computed`: whether the image has its outputs; only such images are measured."""
        if computed:
            now = time.perf_counter()
            seconds = min(now - self._last_end, self._deadline_s)  # after a longer stall, all images ahead have left
            if self._admitted == 1:  # probably alone: many would have been faster
                seconds /= self._gain
            weight = math.exp(-seconds / DECAY_S)
            self._seconds = weight * self._seconds + seconds
            self._images = weight * self._images + 1
            self._last_end = now
        self._admitted -= 1

    def _wait_s(self, images: int) -> float:
        return images * self._seconds / self._images
