"""Interface of the executors, which run trials, and the program of a trial in a process of its own.

`trainer.sweep.local` runs trials on this machine, `trainer.sweep.cluster` on the nodes of a Ray cluster.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from trainer.console import NEXT
from trainer.errors import InputError
from trainer.sweep.search import Trial
from trainer.sweep.space import METRIC

PROGRAM = ("-m", "trainer.sweep.trial")
LOG = "fit.log"  # stderr of the program, in the trial's folder
MAX_SHOWN = 200  # bytes of a line that is no event
# Variables that would make W&B continue another run.
OTHER_RUN = ("WANDB_RUN_ID", "WANDB_SWEEP_ID")


@dataclass(frozen=True)
class Outcome:
    """End of a trial's process."""

    result: dict[str, Any] | None = None  # of `trainer fit`; None: it failed or was stopped
    reason: str = ""  # of the failure, in a line
    is_input: bool = False  # the failure comes from the options or the data
    lost: bool = False  # its node went away: the trial is to be run again, elsewhere


class TrialProcess(Protocol):
    """A trial that an executor runs."""

    @property
    def worker(self) -> str:
        """Name of the worker that runs the trial: a part of this machine, or a node."""

    @property
    def outcome(self) -> Outcome:
        """Valid once the events have ended; the trial's files are in its folder then."""

    def events(self) -> Iterator[dict[str, Any]]:
        """The entry of each epoch as it ends (`epoch`, `val_accuracy`, …), until the process has ended."""

    def stop(self, *, for_good: bool = False) -> None:
        """Ask the process to write a checkpoint and end; the events end once it has ended.

        `for_good`: the trial will not be continued, and its checkpoints are deleted.
        """


class Executor(Protocol):
    """Runs trials on its workers."""

    keeps_folders: bool  # a trial's run folder stays, so that its model can be exported later

    def slots(self) -> int:
        """How many trials may run at once now, running ones included."""

    def start(self, trial: Trial, options: Sequence[str]) -> TrialProcess:
        """Start `trainer fit` for a trial, with these options."""

    def still_running(self, trials: Iterable[Trial]) -> set[int]:
        """Numbers of the trials that a process of a killed sweep still trains."""

    def exclude(self, worker: str) -> None:
        """Start nothing more on this worker."""


def group_of(trial: Trial) -> dict[str, str]:
    """The environment variable that groups the runs of a sweep in W&B."""
    return {"WANDB_RUN_GROUP": os.environ.get("WANDB_RUN_GROUP", trial.folder.parent.name)}


class TrialProgram:
    """`trainer.sweep.trial` with `options` in a process of its own, in `folder`; `variables` join its environment.

    The process has a process group of its own: Ctrl-C in a terminal reaches the sweep alone, which then stops it. When
    this process dies, it writes a checkpoint and ends.
    """

    def __init__(self, options: Sequence[str], folder: Path, variables: Mapping[str, str]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._log = folder / LOG
        # Offline, for `wandb sync` later; an option of the sweep file's command comes after and wins.
        command = [sys.executable, *PROGRAM, "--wandb=offline", *options, f"--run-dir={folder}"]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,  # closed by the system when this process dies
                stdout=subprocess.PIPE,
                stderr=log,
                env={name: value for name, value in os.environ.items() if name not in OTHER_RUN} | dict(variables),
                process_group=0,
            )
        self.pid = self._process.pid
        self._result: dict[str, Any] | None = None
        self._unreadable = ""  # start of the first line that is no event

    def events(self) -> Iterator[dict[str, Any]]:
        """See `TrialProcess.events`."""
        assert self._process.stdout
        assert self._process.stdin
        with self._process.stdout as lines, self._process.stdin:
            for line in lines:
                entry = _parse(line)
                if entry is None:
                    self._unreadable = self._unreadable or line[:MAX_SHOWN].decode(errors="replace").strip()
                    self.stop()
                elif "event" in entry:
                    yield entry
                else:
                    self._result = entry
            self._process.wait()

    def stop(self) -> None:
        """See `TrialProcess.stop`."""
        self._process.send_signal(signal.SIGTERM)

    @property
    def outcome(self) -> Outcome:
        """See `TrialProcess.outcome`."""
        code = self._process.returncode
        if self._unreadable:
            return Outcome(reason=f"its output is no event: {self._unreadable!r}")
        if code == 0:
            return Outcome(self._result, reason="" if self._result else "ended without a result")
        return Outcome(reason=self._reason(code), is_input=code == InputError.exit_code)

    def _reason(self, code: int) -> str:
        if code < 0:
            hint = ": the machine ran out of memory, most likely; fewer --workers or a smaller --batch-size need less"
            number = signal.Signals(-code)
            return f"killed by {number.name}{hint if number == signal.SIGKILL else ''}"
        logged = ""
        with suppress(OSError):  # somebody has deleted it
            logged = self._log.read_text(errors="replace")
        lines = [line for line in logged.strip().splitlines() if not line.startswith(NEXT)]
        return lines[-1].removeprefix("error: ") if lines else f"ended with exit code {code}"


def _parse(line: bytes) -> dict[str, Any] | None:
    """An epoch's event or the result, from a line of JSON; None where it is neither."""
    try:
        entry = json.loads(line)
        is_number = isinstance(entry[METRIC], int | float) and isinstance(entry.get("epoch", 0), int | float)
    except (ValueError, TypeError, KeyError, AttributeError):
        return None
    return entry if is_number else None
