"""Progress of a long job: a bar with the time left on a terminal, a line now and then in a log."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

log = logging.getLogger("trainer")

LINE_EVERY_S = 5  # at first: see LogThrottle

Item = TypeVar("Item")


def track(
    items: Iterable[Item], size: Callable[[Item], int], *, total: int, what: str = "decoding images", bar: bool | None
) -> Iterator[Item]:
    """Yield `items` and show the progress: the sum of their sizes, of `total`. `bar` None: a bar on a terminal only."""
    if sys.stderr.isatty() if bar is None else bar:
        from rich.console import Console
        from rich.progress import Progress

        with Progress(console=Console(stderr=True), transient=True) as progress:
            task = progress.add_task(what, total=total)
            for item in items:
                yield item
                progress.advance(task, size(item))
        return
    done, throttle = 0, LogThrottle()
    for item in items:
        yield item
        done += size(item)
        if throttle.is_due():
            log.info("%s: %d of %d", what, done, total)


class LogThrottle:
    """Decides when a log gets its next line about a job: every few seconds at first, then each tenth of its time."""

    def __init__(self) -> None:
        self._start = self._last = time.monotonic()

    def is_due(self) -> bool:
        """Whether a line is due now; if so, the wait for the next begins."""
        now = time.monotonic()
        due = now - self._last >= max(LINE_EVERY_S, (now - self._start) / 10)
        if due:
            self._last = now
        return due

    def skip(self) -> None:
        """Begin the wait anew: the job has just logged another line."""
        self._last = time.monotonic()
