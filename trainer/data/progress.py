"""Progress of a long job: a bar with the time left on a terminal, a line now and then in a log."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

log = logging.getLogger("trainer")

LINE_EVERY_S = 10


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
    done, last = 0, time.monotonic()
    for item in items:
        yield item
        done += size(item)
        if time.monotonic() - last >= LINE_EVERY_S:
            last = time.monotonic()
            log.info("%s: %d of %d", what, done, total)
