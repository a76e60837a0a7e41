"""A trial under way: `trainer fit` in a process of its own, started, followed and stopped.

What a search needs to know comes as events, one for each epoch that has ended; no file is polled. Another way to run
trials (on other machines, say) offers the same three: start, events, stop.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

LOG = "fit.log"  # of a trial: what `trainer fit` said


class LocalTrial:
    """One training on this machine, started with `options` of `trainer fit` on some of its `cores`.

    It runs in `folder`, and in a process group of its own: Ctrl-C in a terminal reaches the sweep alone, which then
    stops it.
    """

    def __init__(self, options: Sequence[str], folder: Path, cores: set[int]) -> None:
        # Offline, and `wandb sync` later, unless the sweep file's command says otherwise: its options come after.
        command = [sys.executable, "-m", "trainer", "fit", "--wandb=offline", *options]
        self._log = folder / LOG
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [*command, f"--run-dir={folder}", "--json", "--events"],
                stdout=subprocess.PIPE,
                stderr=log,
                env=_environment(),
                process_group=0,
            )
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(self._process.pid, cores)
        self.result: dict[str, Any] | None = None  # once the events have ended, of a training that came to its end

    def events(self) -> Iterator[dict[str, Any]]:
        """The entry of each epoch as it ends (`epoch`, `val_accuracy`, …), until the process has ended."""
        assert self._process.stdout
        with self._process.stdout as lines:
            for line in lines:
                event = json.loads(line)
                if "event" in event:
                    yield event
                else:
                    self.result = event
        if self._process.wait() != 0:
            self.result = None

    def stop(self) -> None:
        """Ask it to write a checkpoint and end; the events end after it has."""
        self._process.send_signal(signal.SIGTERM)

    @property
    def exit_code(self) -> int | None:
        """None while it runs."""
        return self._process.poll()

    def reason(self) -> str:
        """Why it failed, in a line."""
        lines = self._log.read_text(errors="replace").strip().splitlines()
        return lines[-1].removeprefix("error: ") if lines else f"`trainer fit` ended with {self.exit_code}"


def share_of_cores(index: int, workers: int) -> set[int]:
    """The cores of one of several workers: their own where there are enough, else all."""
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))
    each = len(cores) // workers
    return set(cores[index * each : (index + 1) * each]) if each else set(cores)


def _environment() -> dict[str, str]:
    """Without W&B's id of another run, which would name the run folder's run."""
    return {key: value for key, value in os.environ.items() if key not in ("WANDB_RUN_ID", "WANDB_SWEEP_ID")}
