"""Progress of a training: a bar on a terminal, lines in a log, or JSON objects for a program."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from trainer.console import format_duration, print_json

if TYPE_CHECKING:
    from trainer.data.progress import LogThrottle

log = logging.getLogger("trainer")


class TrainingDisplay:
    """Callbacks that show a training while it runs; see `trainer.training.callbacks`."""

    def __init__(self, *, json_events: bool = False) -> None:
        """`json_events`: each epoch is also a JSON object on stdout."""
        self._json_events = json_events
        self._bar: Any = None
        self._first: tuple[int, float] | None = None  # a step and its time, from which the throughput is measured
        self._pulse: LogThrottle | None = None
        self._total_steps: int | None = None  # of the first step: with a time limit it is corrected on the way

    def on_step(self, step: int, total_steps: int) -> None:
        """Move the bar. A log gets a line at the first call, and then whenever there was no other line for a while."""
        if not sys.stderr.isatty():
            self._log_step(step, total_steps)
            return
        if self._bar is None:
            from rich.console import Console
            from rich.progress import Progress

            self._bar = Progress(console=Console(stderr=True), transient=True)
            self._bar.start()
            self._bar.add_task("training", total=total_steps)
        self._bar.update(self._bar.task_ids[0], completed=step, total=total_steps)

    def _log_step(self, step: int, total_steps: int) -> None:
        from trainer.data.progress import LogThrottle

        if self._pulse is None:
            self._pulse = LogThrottle()
            self._total_steps = total_steps
            log.info("training: step %d of %d", step, total_steps)
            return
        if self._first is None:  # the first steps build the graph, and say nothing about the throughput
            self._first = step, time.monotonic()
        if self._pulse.is_due():
            first, since = self._first
            step_s = (time.monotonic() - since) / max(1, step - first)
            left = f", at most {format_duration(step_s * (total_steps - step))} left" if step > first else ""
            about = "" if total_steps == self._total_steps else "about "
            log.info("training: step %d of %s%d%s", step, about, total_steps, left)

    def on_epoch(self, entry: Mapping[str, float], *, step: int, epochs: int) -> None:
        """Log the metrics of an epoch; epoch 0 is the linear probe on a pretrained network."""
        if self._pulse:
            self._pulse.skip()
        if entry["epoch"] == 0:
            log.info(
                "linear probe on the pretrained network: validation loss %.4f, accuracy %.2f%%",
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

    def on_train_end(self) -> None:
        """Remove the bar."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
