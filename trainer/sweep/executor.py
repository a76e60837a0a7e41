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
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from trainer.console import NEXT
from trainer.machine import SHARED_BY

LOG = "fit.log"  # of a trial: what `trainer fit` said

Item = TypeVar("Item")


@dataclass(frozen=True)
class Share:
    """The part of this machine that a training may use."""

    cores: frozenset[int]
    variables: Mapping[str, str]  # of its environment: the GPUs, and the memory


class LocalTrial:
    """One training on this machine, started with `options` of `trainer fit`, on its `share` of it.

    It runs in `folder`, and in a process group of its own: Ctrl-C in a terminal reaches the sweep alone, which then
    stops it.
    """

    def __init__(self, options: Sequence[str], folder: Path, share: Share) -> None:
        # Offline, and `wandb sync` later, unless the sweep file's command says otherwise: its options come after.
        command = [sys.executable, "-m", "trainer", "fit", "--wandb=offline", *options]
        self._log = folder / LOG
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [*command, f"--run-dir={folder}", "--json", "--events"],
                stdout=subprocess.PIPE,
                stderr=log,
                env={**_environment(), **share.variables},
                process_group=0,
            )
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(self._process.pid, share.cores)
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
        if self.exit_code is not None and self.exit_code < 0:
            hint = ": the machine ran out of memory, most likely; fewer --workers or a smaller --batch-size need less"
            number = signal.Signals(-self.exit_code)
            return f"killed by {number.name}{hint if number == signal.SIGKILL else ''}"
        said = self._log.read_text(errors="replace").strip().splitlines()
        lines = [line for line in said if not line.startswith(NEXT)]
        return lines[-1].removeprefix("error: ") if lines else f"`trainer fit` ended with {self.exit_code}"


def share_of_machine(index: int, workers: int) -> Share:
    """What one of several workers may use."""
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))
    variables = {SHARED_BY: str(workers)}
    gpus = _gpus()
    if gpus and workers > 1:
        variables["CUDA_VISIBLE_DEVICES"] = ",".join(_part(gpus, index, workers))
        if len(gpus) < workers:  # else each takes all of the GPU's memory at its start
            variables["TF_FORCE_GPU_ALLOW_GROWTH"] = "true"
    return Share(frozenset(_part(cores, index, workers)), variables)


def _part(items: Sequence[Item], index: int, workers: int) -> Sequence[Item]:
    """The items of one worker: its own where there are enough, else one that it shares."""
    each = len(items) // workers
    return items[index * each : (index + 1) * each] if each else [items[index % len(items)]]


def _gpus() -> list[str]:
    """The names that CUDA_VISIBLE_DEVICES has for the GPUs that this process may use."""
    if (visible := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return [name for name in visible.split(",") if name]
    try:
        listed = subprocess.run(
            ["nvidia-smi", "--query-gpu=uuid", "--format=csv,noheader"], capture_output=True, text=True, check=False
        )
    except OSError:  # no driver of NVIDIA's
        return []
    return listed.stdout.split() if listed.returncode == 0 else []


def _environment() -> dict[str, str]:
    """Without W&B's id of another run, which would name the run folder's run."""
    return {key: value for key, value in os.environ.items() if key not in ("WANDB_RUN_ID", "WANDB_SWEEP_ID")}
