"""Progress of a long job: a bar with the time left on a terminal, a line now and then in a log."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

log = logging.getLogger("trainer")

LINE_EVERY_S = 5  # at first: see Pulse


Item = TypeVar("Item")


def track(
    items: Iterable[Item], size: Callable[[Item], int], *, total: int, what: str = "decoding images", bar: bool | None
) -> Iterator[Item]:
    """Pass on `items`, each of `size` of `total`, and show how far it is. `bar` None: only on a terminal."""
    if sys.stderr.isatty() if bar is None else bar:
        from rich.console import Console
        from rich.progress import Progress

        with Progress(console=Console(stderr=True), transient=True) as progress:
            task = progress.add_task(what, total=total)
            for item in items:
                yield item
                progress.advance(task, size(item))
        return
    done, pulse = 0, Pulse()
    for item in items:
        yield item
        done += size(item)
        if pulse.is_due():
            log.info("%s: %d of %d", what, done, total)


class Pulse:
    """When a log should have its next line about a job: every few seconds first, then every tenth of its time."""

    def __init__(self) -> None:
        self._start = self._last = time.monotonic()

    def is_due(self) -> bool:
        """Whether it is time; then the next line is due later."""
        now = time.monotonic()
        due = now - self._last >= max(LINE_EVERY_S, (now - self._start) / 10)
        if due:
            self._last = now
        return due

    def skip(self) -> None:
        """There was another line just now."""
        self._last = time.monotonic()
