"""Driver of a sweep: starts trials while slots are free, follows their epochs, and records their outcomes.

It alone uses the search, in one thread. A thread for each trial waits for its events and puts them into a queue.
"""

from __future__ import annotations

import logging
import queue
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from optuna.trial import FrozenTrial

from trainer.errors import InputError, RunError, TrainerError
from trainer.runs.run_folder import CHECKPOINTS
from trainer.sweep.executor import Executor, Outcome, TrialProcess
from trainer.sweep.search import RUN, Search, Trial
from trainer.sweep.space import METRIC
from trainer.sweep.trial_options import parse_options

log = logging.getLogger("trainer")

REFRESH_S = 0.5
MAX_WORKER_FAILURES = 3  # in a row on one worker, which then gets no more trials
MAX_FAILURES = 9  # in a row on any worker: the trials are at fault then
BEST = 3  # number of best trials of a data set that are exported, or keep their checkpoints for a later export
MAX_LOSSES = 3  # of one trial, which then counts as failed: most likely it takes its node down


@dataclass
class RunningTrial:
    """A running trial and its last epoch."""

    trial: Trial
    process: TrialProcess
    epoch: int = 0
    epochs: int = 0  # at most; 0: not known yet, or the trial is a linear probe
    value: float | None = None
    pruned: bool = False
    started: float = field(default_factory=time.monotonic)


class Driver:
    """Runs the trials of a search with an executor."""

    def __init__(self, search: Search, executor: Executor, *, max_trials: int | None, retry_failed: bool) -> None:
        self.running: dict[int, RunningTrial] = {}
        self._search = search
        self._executor = executor
        self._max_trials = max_trials
        # Only failures of earlier processes: a trial that fails every time would be run for ever.
        self._retry = {trial.number for trial in search.open_failures()} if retry_failed else set[int]()
        self._events: queue.SimpleQueue[tuple[RunningTrial, dict[str, Any] | Outcome | BaseException]] = (
            queue.SimpleQueue()
        )
        # Run folders of finished trials that may have checkpoints.
        self._kept = {trial.number: Path(trial.user_attrs[RUN]) for trial in self._best()}
        self._losses: Counter[int] = Counter()  # by trial
        self._worker_failures: Counter[str] = Counter()  # in a row, by worker
        self._failures = 0  # in a row
        self._last_error: TrainerError | None = None
        self._is_exhausted = False  # the search has no next trial
        self._is_stopping = False

    @property
    def slots(self) -> int:
        """How many trials may run at once now."""
        return self._executor.slots()

    def run(self, refresh: Callable[[], None]) -> None:
        """Run trials until none is left; calls `refresh` at least twice a second.

        Raises the last InputError or RunError where every worker has failed three times in a row, or nine trials in a
        row have failed. After any other error, such as one of `refresh`, the running trials write a checkpoint and end;
        the next sweep continues them.
        """
        try:
            while self._fill() or self.running:
                self._follow(refresh)
            refresh()
        finally:
            self._is_stopping = True
            for running in list(self.running.values()):
                running.process.stop()
            while self.running:
                self._handle(*self._events.get())

    def _fill(self) -> bool:
        """Start trials while slots are free; return whether a trial may be left that cannot be started now."""
        slots = self._executor.slots()
        still_running = set[int]() if self._is_exhausted else self._executor.still_running(self._search.interrupted())
        while not self._is_exhausted and len(self.running) < slots:
            trial = self._search.next_trial(self._max_trials, retry=self._retry, still_running=still_running)
            if trial:
                self._start(trial)
            elif still_running:
                return True
            else:
                self._is_exhausted = True
        if self._is_exhausted:
            return False
        if slots == 0 and self._last_error:
            raise type(self._last_error)(
                f"no worker is left: {MAX_WORKER_FAILURES} failures in a row; the last: {self._last_error}"
            )
        return True

    def _start(self, trial: Trial) -> None:
        options = self._search.spec.options(trial.params)
        options += self._export_options(trial, options)
        running = self.running[trial.number] = RunningTrial(trial, self._executor.start(trial, options))
        threading.Thread(target=self._wait, args=(running,), name=f"trial {trial.number}", daemon=True).start()

    def _export_options(self, trial: Trial, options: Sequence[str]) -> list[str]:
        """Options to export only a trial that may win, or none yet: an export takes longer than many a training."""
        with suppress(InputError):  # the trial itself reports it
            if parse_options(options).save:
                return []
        if self._executor.keeps_folders:
            return ["--keep-checkpoints"]
        best = self._search.leaders(self._search.spec.dataset_of(trial.params), BEST)
        return [f"--export-above={best[-1].value}"] if len(best) == BEST else []

    def _wait(self, running: RunningTrial) -> None:
        """Put the events of a trial into the queue, in a thread of its own."""
        try:
            for event in running.process.events():
                self._events.put((running, event))
            self._events.put((running, running.process.outcome))
        except BaseException as error:
            self._events.put((running, error))

    def _follow(self, refresh: Callable[[], None]) -> None:
        """Handle events for REFRESH_S, or until a slot is free."""
        deadline = time.monotonic() + REFRESH_S
        count = len(self.running)
        while len(self.running) == count and (left := deadline - time.monotonic()) > 0:
            try:
                self._handle(*self._events.get(timeout=left))
            except queue.Empty:
                break
        refresh()

    def _handle(self, running: RunningTrial, event: dict[str, Any] | Outcome | BaseException) -> None:
        if isinstance(event, dict):
            running.epoch, running.epochs = int(event["epoch"]), int(event.get("epochs", 0))
            running.value = event[METRIC]
            if self._search.report(running.trial, running.epoch, event[METRIC]) and not running.pruned:
                running.pruned = True
                running.process.stop(for_good=True)
            return
        del self.running[running.trial.number]
        if isinstance(event, BaseException):
            if not self._is_stopping:
                raise event
        elif event.lost and not self._is_stopping and not running.pruned:
            self._run_again(running, event)
        else:
            self._finish(running, event)

    def _run_again(self, running: RunningTrial, outcome: Outcome) -> None:
        number = running.trial.number
        self._losses[number] += 1
        if self._losses[number] == MAX_LOSSES:
            self._finish(running, Outcome(reason=f"lost {MAX_LOSSES} times, the last time as {outcome.reason}"))
            return
        log.warning("trial %d: %s; it is run again", number, outcome.reason)
        self._start(running.trial)

    def _finish(self, running: RunningTrial, outcome: Outcome) -> None:
        if outcome.result is not None:
            self._search.finish(running.trial, outcome.result[METRIC])
            self._delete_checkpoints(running.trial)
        elif running.pruned:
            self._search.finish(running.trial, None, pruned=True)
        elif self._is_stopping:  # it stays open: the next sweep continues it
            return
        else:
            self._fail(running, outcome)
            return
        self._worker_failures[running.process.worker] = self._failures = 0

    def _best(self) -> list[FrozenTrial]:
        """The best trials of each data set."""
        return [trial for dataset in self._search.datasets() for trial in self._search.leaders(dataset, BEST)]

    def _delete_checkpoints(self, finished: Trial) -> None:
        """Delete the checkpoints of trials that are no longer among the best."""
        self._kept[finished.number] = finished.folder
        best = {trial.number for trial in self._best()}
        for number in self._kept.keys() - best:
            shutil.rmtree(self._kept.pop(number) / CHECKPOINTS, ignore_errors=True)

    def _fail(self, running: RunningTrial, outcome: Outcome) -> None:
        worker = running.process.worker
        self._search.finish(running.trial, None, reason=outcome.reason)
        self._last_error = (InputError if outcome.is_input else RunError)(outcome.reason)
        self._worker_failures[worker] += not outcome.is_input  # wrong params are not the worker's fault
        self._failures += 1
        if self._worker_failures[worker] == MAX_WORKER_FAILURES:
            log.warning("%s: %d trials in a row have failed there; it gets no more", worker, MAX_WORKER_FAILURES)
            self._executor.exclude(worker)
        if self._failures == MAX_FAILURES:
            raise type(self._last_error)(f"{MAX_FAILURES} trials in a row have failed; the last: {self._last_error}")
