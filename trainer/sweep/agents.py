"""The workers of a sweep: each takes the next trial, runs `trainer fit` for it in a process, and notes the outcome."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trainer.config import InputError, RunError, TrainerError
from trainer.sweep.search import Search, Trial
from trainer.sweep.sweep_file import METRIC, Value
from trainer.training.run_folder import CHECKPOINTS

POLL_S = 0.5
PATIENCE = 3  # failures in a row that stop a worker
LOG = "fit.log"  # of a trial: what `trainer fit` said


@dataclass
class Running:
    """A trial under way, as it is shown."""

    number: int
    point: dict[str, Value]
    started: float = field(default_factory=time.monotonic)
    epoch: int = 0
    value: float | None = None


class Agents:
    """`workers` trainings at once, each on its share of the processor's cores."""

    def __init__(self, search: Search, *, workers: int, most: int | None, retry_failed: bool) -> None:
        self.workers = workers
        self.running: dict[int, Running] = {}
        self.stopped: list[TrainerError] = []  # why workers gave up
        self._search = search
        self._most = most
        # Not those that fail from now on: a failure that repeats would be run again and again.
        self._retry = {trial.number for trial in search.open_failures()} if retry_failed else set[int]()
        self._stop = threading.Event()
        self._errors: list[BaseException] = []

    def run(self, refresh: Callable[[], None]) -> None:
        """Until nothing is left to run; calls `refresh` now and then.

        Raises the last InputError or RunError where every worker gave up. After KeyboardInterrupt or another error of
        `refresh`, the trainings write a checkpoint and end, and their trials are continued by the next sweep.
        """
        threads = [threading.Thread(target=self._work, args=(index,)) for index in range(self.workers)]
        for thread in threads:
            thread.start()
        try:
            while any(thread.is_alive() for thread in threads):
                refresh()
                time.sleep(POLL_S)
        finally:
            self._stop.set()
            for thread in threads:
                thread.join()
        if self._errors:
            raise self._errors[0]
        if len(self.stopped) == self.workers:
            last = self.stopped[-1]
            raise type(last)(f"every worker stopped after {PATIENCE} failures in a row; the last: {last}")

    def _work(self, index: int) -> None:
        failures = 0
        try:
            while not self._stop.is_set():
                trial = self._search.claim(self._most, retry=self._retry)
                if trial is None and self._search.has_orphans():
                    self._stop.wait(POLL_S)
                    continue
                if trial is None:
                    return
                error = self._train(trial, _share(index, self.workers))
                failures = failures + 1 if error else 0
                if error and failures == PATIENCE:
                    self.stopped.append(error)
                    return
        except BaseException as error:
            self._errors.append(error)
            self._stop.set()

    def _train(self, trial: Trial, cores: set[int]) -> TrainerError | None:
        """Run the trial to its end; the error where it failed."""
        shown = self.running[trial.number] = Running(trial.number, dict(trial.point))
        # Offline, and `wandb sync` later, unless the file's command says otherwise: its options come after.
        command = [sys.executable, "-m", "trainer", "fit", "--wandb=offline", *self._search.spec.options(trial.point)]
        command += [f"--run-dir={trial.folder}", "--json"]
        pruned = False
        try:
            with (trial.folder / LOG).open("ab") as log:
                process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, env=_environment())
            if hasattr(os, "sched_setaffinity"):
                os.sched_setaffinity(process.pid, cores)
            while process.poll() is None:
                time.sleep(POLL_S)
                if self._stop.is_set():
                    process.send_signal(signal.SIGTERM)
                    process.wait()
                    break
                if self._note_epochs(trial, shown) and not pruned:
                    pruned = True
                    process.send_signal(signal.SIGTERM)
            assert process.stdout
            output = process.stdout.read().decode()
            process.stdout.close()
        finally:
            del self.running[trial.number]
        if process.returncode == 0:
            self._search.finish(trial, json.loads(output.splitlines()[-1])[METRIC])
            _delete_checkpoints(trial)
        elif pruned:
            self._search.finish(trial, None, pruned=True)
            _delete_checkpoints(trial)
        elif self._stop.is_set():
            trial.lock.release()  # it stays marked as running: the next sweep continues it
        else:
            reason = _last_line(trial.folder / LOG) or f"`trainer fit` ended with {process.returncode}"
            self._search.finish(trial, None, reason=reason)
            return InputError(reason) if process.returncode == InputError.exit_code else RunError(reason)
        return None

    def _note_epochs(self, trial: Trial, shown: Running) -> bool:
        """Report the epochs that ended since; whether the trial is to be stopped early."""
        prune = False
        for entry in _history(trial.folder)[shown.epoch :]:
            shown.epoch, shown.value = int(entry["epoch"]), entry[METRIC]
            prune = self._search.report(trial, shown.epoch, shown.value)
        return prune


def _share(index: int, workers: int) -> set[int]:
    """The cores of one worker: their own where there are enough, else all."""
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))
    each = len(cores) // workers
    return set(cores[index * each : (index + 1) * each]) if each else set(cores)


def _environment() -> dict[str, str]:
    """Without W&B's id of another run, which would name the run folder's run."""
    return {key: value for key, value in os.environ.items() if key not in ("WANDB_RUN_ID", "WANDB_SWEEP_ID")}


def _history(folder: Path) -> list[dict[str, Any]]:
    """The finished epochs of a run folder, from its newest checkpoint."""
    newest = max(folder.glob(f"{CHECKPOINTS}/step-*/progress.json"), default=None)
    try:
        return json.loads(newest.read_text())["history"] if newest else []
    except (OSError, ValueError):  # replaced while it was read
        return []


def _delete_checkpoints(trial: Trial) -> None:
    """Of a trial that is over: three times the network with its optimizer, and what is published is the export."""
    shutil.rmtree(trial.folder / CHECKPOINTS, ignore_errors=True)


def _last_line(file: Path) -> str:
    lines = file.read_text(errors="replace").strip().splitlines()
    return lines[-1].removeprefix("error: ") if lines else ""
