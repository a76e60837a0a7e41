"""SIGINT and SIGTERM as the exception Interrupted, raised at once or when the running work checks for it."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from trainer.errors import Interrupted

log = logging.getLogger("trainer")

DUPLICATE_S = 3.0  # a signal repeated sooner is a duplicate: a person waits longer before pressing Ctrl-C again


class Signals:
    """Handlers of SIGINT and SIGTERM, installed while it is entered; not entered, it never interrupts.

    Outside `deferred()` a signal raises Interrupted at once. Within, the first one waits for `check_interrupted()`, and
    a second one raises at once. Duplicate deliveries of one signal are ignored: Ctrl-C reaches a whole process group,
    systemd signals every process of a unit, and a sweep or `wandb agent` then passes its own signal on.
    """

    def __init__(self) -> None:
        self._received: int | None = None
        self._last_s: float | None = None
        self._deferred = False
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> Signals:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._previous[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Context in which signals wait for `check_interrupted`; they are raised at its end at the latest."""
        self._deferred = True
        try:
            yield
            self.check_interrupted()
        finally:
            self._deferred = False

    def check_interrupted(self) -> None:
        """Raise Interrupted if a signal has come."""
        if self._received is not None:
            raise _interrupted(self._received)

    def _on_signal(self, number: int, _: FrameType | None) -> None:
        now = time.monotonic()
        if self._last_s is not None and now - self._last_s < DUPLICATE_S:
            return
        self._last_s = now
        if self._deferred and self._received is None:
            self._received = number
            log.info("%s: stopping after a checkpoint", signal.Signals(number).name)
        else:
            raise _interrupted(number)


def terminate_with_stdin() -> None:
    """Send this process SIGTERM when its stdin ends: the program that held the other end has died."""
    threading.Thread(target=_wait_for_end, name="end of stdin", daemon=True).start()


def _wait_for_end() -> None:
    while os.read(0, 1024):  # not by `sys.stdin`, whose lock this thread would hold at the end of the process
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def _interrupted(number: int) -> Interrupted:
    return Interrupted(f"{signal.Signals(number).name}: stopped; run the same command again to continue", 128 + number)
