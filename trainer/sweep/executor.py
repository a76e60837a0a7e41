"""How trials are run: what an executor offers, and a trial under way as a `trainer fit` in a process of its own.

`trainer.sweep.local` runs trials on this machine, `trainer.sweep.cluster` on those of a Ray cluster.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from trainer.console import NEXT
from trainer.errors import InputError
from trainer.sweep.search import Trial

FIT = ("-m", "trainer", "fit")
LOG = "fit.log"  # of a trial: what `trainer fit` said
# Of another run: W&B would take a trial's for the same.
OTHER_RUN = ("WANDB_RUN_ID", "WANDB_SWEEP_ID")


@dataclass(frozen=True)
class Outcome:
    """How a training ended."""

    result: dict[str, Any] | None = None  # what `trainer fit` told at its end; None: it did not come to it
    reason: str = ""  # why not, in a line
    is_input: bool = False  # the reason lies in what was asked for
    lost: bool = False  # its machine went away, or cannot run trials: it is to be run again, elsewhere


class Training(Protocol):
    """A trial under way."""

    @property
    def place(self) -> str:
        """What it runs on, once it does: a part of this machine, or a node."""

    @property
    def outcome(self) -> Outcome:
        """Once the events have ended; the trial's files are in its folder then."""

    def events(self) -> Iterator[dict[str, Any]]:
        """The entry of each epoch as it ends (`epoch`, `val_accuracy`, …), until the training has ended."""

    def stop(self, *, for_good: bool = False) -> None:
        """Ask it to write a checkpoint and end; the events end after it has.

        `for_good`: it is not to be continued, and its checkpoints are deleted.
        """


class Executor(Protocol):
    """What runs trials."""

    keeps_folders: bool  # whether a trial's run folder stays, so that its model can be exported later

    def room(self) -> int:
        """How many trials may run at once, at the moment."""

    def start(self, trial: Trial, options: Sequence[str]) -> Training:
        """Run `trainer fit` for a trial, with these options."""

    def busy(self, trials: Iterable[Trial]) -> set[int]:
        """Which of these are still being trained, by a process whose sweep was killed; their numbers."""

    def give_up(self, place: str) -> None:
        """Start nothing more there."""


def group_of(trial: Trial) -> dict[str, str]:
    """The variable by which W&B shows the runs of a sweep together."""
    return {"WANDB_RUN_GROUP": os.environ.get("WANDB_RUN_GROUP", trial.folder.parent.name)}


class FitProcess:
    """`trainer fit` with `options` in a process of its own, in `folder`; `variables` are added to its environment.

    It is in a process group of its own: Ctrl-C in a terminal reaches the sweep alone, which then stops it. Where the
    process that started it dies, it writes a checkpoint and ends.
    """

    def __init__(self, options: Sequence[str], folder: Path, variables: Mapping[str, str]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._log = folder / LOG
        # Offline, and `wandb sync` later, unless the sweep file's command says otherwise: its options come after.
        command = [sys.executable, *FIT, "--wandb=offline", *options, f"--run-dir={folder}"]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [*command, "--json", "--events", "--end-with-stdin"],
                stdin=subprocess.PIPE,  # closed by the system when this process dies
                stdout=subprocess.PIPE,
                stderr=log,
                env={name: value for name, value in os.environ.items() if name not in OTHER_RUN} | dict(variables),
                process_group=0,
            )
        self.pid = self._process.pid
        self._result: dict[str, Any] | None = None

    def events(self) -> Iterator[dict[str, Any]]:
        """See `Training.events`."""
        assert self._process.stdout
        assert self._process.stdin
        with self._process.stdout as lines, self._process.stdin:
            for line in lines:
                event = json.loads(line)
                if "event" in event:
                    yield event
                else:
                    self._result = event
            self._process.wait()

    def stop(self) -> None:
        """See `Training.stop`."""
        self._process.send_signal(signal.SIGTERM)

    @property
    def outcome(self) -> Outcome:
        """See `Training.outcome`."""
        code = self._process.returncode
        if code == 0:
            return Outcome(self._result)
        return Outcome(reason=self._reason(code), is_input=code == InputError.exit_code)

    def _reason(self, code: int) -> str:
        if code < 0:
            hint = ": the machine ran out of memory, most likely; fewer --workers or a smaller --batch-size need less"
            number = signal.Signals(-code)
            return f"killed by {number.name}{hint if number == signal.SIGKILL else ''}"
        said = self._log.read_text(errors="replace").strip().splitlines()
        lines = [line for line in said if not line.startswith(NEXT)]
        return lines[-1].removeprefix("error: ") if lines else f"`trainer fit` ended with {code}"
