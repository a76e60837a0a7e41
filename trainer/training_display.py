"""A training as it is shown while it runs, and the signals that stop it."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Any

from trainer.console import Echoes, print_json
from trainer.errors import Interrupted
from trainer.training.throughput import spoken

if TYPE_CHECKING:
    from trainer.data.progress import Pulse

log = logging.getLogger("trainer")


class TrainingDisplay:
    """Progress of a training (a bar on a terminal, plain lines in a log), and its signals.

    Outside `defer_signals` SIGINT and SIGTERM raise Interrupted at once; within, `check_interrupted` does, or a second
    signal that is more than an echo of the first.
    """

    def __init__(self, *, json_events: bool = False, end_with_stdin: bool = False) -> None:
        """`json_events`: each epoch is also a JSON object on stdout, for a program that follows the training.

        `end_with_stdin`: the end of stdin is as SIGTERM: it comes when the program that holds the other end dies.
        """
        self._json_events = json_events
        self._end_with_stdin = end_with_stdin
        self._received: int | None = None
        self._echoes = Echoes()
        self._deferred = False
        self._previous: dict[int, Any] = {}
        self._progress: Any = None
        self._base: tuple[int, float] | None = None  # a step and its time, from which on the pace is measured
        self._pulse: Pulse | None = None

    def __enter__(self) -> TrainingDisplay:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._previous[number] = signal.signal(number, self._on_signal)
        if self._end_with_stdin:
            threading.Thread(target=_end_with_stdin, name="end with stdin", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop_bar()
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    @contextmanager
    def defer_signals(self) -> Iterator[None]:
        """While the training loop runs: a signal waits until the loop asks."""
        self._deferred = True
        try:
            yield
            self.check_interrupted()
        finally:
            self._deferred = False
            self._stop_bar()

    def check_interrupted(self) -> None:
        """Raise Interrupted once a signal has come."""
        if self._received is not None:
            raise _interrupted(self._received)

    def on_progress(self, step: int, total_steps: int) -> None:
        """Training steps done, of all. A log has a line at the first, and then where there is no other for a while."""
        if not sys.stderr.isatty():
            self._log_step(step, total_steps)
            return
        if self._progress is None:
            from rich.console import Console
            from rich.progress import Progress

            self._progress = Progress(console=Console(stderr=True), transient=True)
            self._progress.start()
            self._progress.add_task("training", total=total_steps)
        self._progress.update(self._progress.task_ids[0], completed=step)

    def _log_step(self, step: int, total_steps: int) -> None:
        from trainer.data.progress import Pulse

        if self._pulse is None:
            self._pulse = Pulse()
            log.info("training: step %d of %d", step, total_steps)
            return
        if self._base is None:  # the first steps build the graph, and tell nothing of the pace
            self._base = step, time.monotonic()
        if self._pulse.is_due():
            first, since = self._base
            each_s = (time.monotonic() - since) / max(1, step - first)
            left = f", at most {spoken(each_s * (total_steps - step))} left" if step > first else ""
            log.info("training: step %d of %d%s", step, total_steps, left)

    def on_epoch(self, entry: dict[str, float], epochs: int) -> None:
        """The figures of a finished epoch; 0 is the head of a pretrained network."""
        if self._pulse:
            self._pulse.skip()
        if entry["epoch"] == 0:
            log.info(
                "head on the pretrained network: validation loss %.4f, accuracy %.2f%%",
                entry["val_loss"],
                100 * entry["val_accuracy"],
            )
        else:
            log.info(
                "epoch %d/%d: loss %.4f, accuracy %.2f%%, validation loss %.4f, accuracy %.2f%%, %.0f images/s",
                entry["epoch"],
                epochs,
                entry["loss"],
                100 * entry["accuracy"],
                entry["val_loss"],
                100 * entry["val_accuracy"],
                entry["images_per_second"],
            )
        if self._json_events:
            print_json({"event": "epoch", "epochs": epochs, **entry})

    def _on_signal(self, number: int, _: FrameType | None) -> None:
        if self._echoes.is_echo():
            return
        if self._deferred and self._received is None:
            self._received = number
            log.info("%s: stopping after a checkpoint", signal.Signals(number).name)
        else:
            raise _interrupted(number)

    def _stop_bar(self) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = None


def _end_with_stdin() -> None:
    while os.read(0, 1024):  # not by `sys.stdin`, whose lock this thread would hold at the end of the process
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def _interrupted(number: int) -> Interrupted:
    return Interrupted(f"{signal.Signals(number).name}: stopped; run the same command again to continue", 128 + number)
