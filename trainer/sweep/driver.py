"""The driver of a sweep: takes the next trial while there is room, follows those that run, and notes their outcomes.

It alone touches the search, in one thread. A thread for each training waits for its events and passes them on.
"""

from __future__ import annotations

import logging
import math
import queue
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trainer.errors import InputError, RunError, TrainerError
from trainer.runs.run_folder import CHECKPOINTS
from trainer.sweep.executor import Executor, Outcome, Training
from trainer.sweep.search import RUN, Search, Trial
from trainer.sweep.space import METRIC

log = logging.getLogger("trainer")

REFRESH_S = 0.5
PATIENCE = 3  # failures in a row on one place, after which it gets no more
PATIENCE_ANYWHERE = 9  # failures in a row wherever they were: it is the trials' fault then
NO_SAVE = "--no-save"  # of a sweep file's command: where it saves every trial's model, each is exported
BEST = 3  # so many of the best are exported, or can be
LOSSES = 3  # after which a trial counts as failed: it takes its machine down, most likely


@dataclass
class Running:
    """A trial under way."""

    trial: Trial
    training: Training
    epoch: int = 0
    value: float | None = None
    pruned: bool = False
    started: float = field(default_factory=time.monotonic)


class Driver:
    """Runs the trials of a search by an executor."""

    def __init__(self, search: Search, executor: Executor, *, most: int | None, retry_failed: bool) -> None:
        self.running: dict[int, Running] = {}
        self._search = search
        self._executor = executor
        self._most = most
        # Not those that fail from now on: a failure that repeats would be run again and again.
        self._retry = {trial.number for trial in search.open_failures()} if retry_failed else set[int]()
        self._events: queue.SimpleQueue[tuple[Running, dict[str, Any] | Outcome | BaseException]] = queue.SimpleQueue()
        # Of trials that may have checkpoints although they have finished.
        self._kept = {trial.number: Path(trial.user_attrs[RUN]) for trial in search.leaders(BEST)}
        self._losses: Counter[int] = Counter()  # by trial
        self._failures: Counter[str] = Counter()  # in a row, by place
        self._failures_anywhere = 0
        self._last_error: TrainerError | None = None
        self._has_all = False  # nothing is left to claim
        self._is_stopping = False

    @property
    def room(self) -> int:
        """How many trials may run at once, at the moment."""
        return self._executor.room()

    def run(self, refresh: Callable[[], None]) -> None:
        """Until nothing is left to run; calls `refresh` now and then.

        Raises the last InputError or RunError where no place is left on which not three trials in a row have failed.
        After another error, such as one of `refresh`, the trainings write a checkpoint and end, and their trials are
        continued by the next sweep.
        """
        try:
            while self._fill() or self.running:
                self._follow(refresh)
            refresh()
        finally:
            self._is_stopping = True
            for running in list(self.running.values()):
                running.training.stop()
            while self.running:
                self._take(*self._events.get())

    def _fill(self) -> bool:
        """Start trials while there is room; whether one may be left that cannot be started now."""
        room = self._executor.room()
        busy = set[int]() if self._has_all else self._executor.busy(self._search.interrupted())
        while not self._has_all and len(self.running) < room:
            trial = self._search.claim(self._most, retry=self._retry, busy=busy)
            if trial:
                self._start(trial)
            elif busy:
                return True
            else:
                self._has_all = True
        if self._has_all:
            return False
        if room == 0 and self._last_error:
            raise type(self._last_error)(
                f"nothing is left to run on: {PATIENCE} failures in a row; the last: {self._last_error}"
            )
        return True

    def _start(self, trial: Trial) -> None:
        options = [*self._search.spec.options(trial.point), *self._export_above()]
        training = self._executor.start(trial, options)
        running = self.running[trial.number] = Running(trial, training)
        threading.Thread(target=self._wait, args=(running,), name=f"trial {trial.number}", daemon=True).start()

    def _export_above(self) -> list[str]:
        """Which trials are exported, which takes longer than many a training: those that may win, or none yet."""
        if NO_SAVE not in self._search.spec.command:
            return []
        if self._executor.keeps_folders:
            return [f"--export-above={math.inf}"]
        best = self._search.leaders(BEST)
        return [f"--export-above={best[-1].value}"] if len(best) == BEST else []

    def _wait(self, running: Running) -> None:
        """In a thread of its own: pass on what a training tells."""
        try:
            for event in running.training.events():
                self._events.put((running, event))
            self._events.put((running, running.training.outcome))
        except BaseException as error:
            self._events.put((running, error))

    def _follow(self, refresh: Callable[[], None]) -> None:
        """Take what trainings tell, for a while or until there is room for another."""
        deadline = time.monotonic() + REFRESH_S
        count = len(self.running)
        while len(self.running) == count and (left := deadline - time.monotonic()) > 0:
            try:
                self._take(*self._events.get(timeout=left))
            except queue.Empty:
                break
        refresh()

    def _take(self, running: Running, told: dict[str, Any] | Outcome | BaseException) -> None:
        if isinstance(told, dict):
            running.epoch, running.value = int(told["epoch"]), told[METRIC]
            if self._search.report(running.trial, running.epoch, told[METRIC]) and not running.pruned:
                running.pruned = True
                running.training.stop(for_good=True)
            return
        del self.running[running.trial.number]
        if isinstance(told, BaseException):
            if not self._is_stopping:
                raise told
        elif told.lost and not self._is_stopping and not running.pruned:
            self._run_again(running, told)
        else:
            self._finish(running, told)

    def _run_again(self, running: Running, outcome: Outcome) -> None:
        number = running.trial.number
        self._losses[number] += 1
        if self._losses[number] == LOSSES:
            self._finish(running, Outcome(reason=f"lost {LOSSES} times, the last time as {outcome.reason}"))
            return
        log.warning("trial %d: %s; it is run again", number, outcome.reason)
        self._start(running.trial)

    def _finish(self, running: Running, outcome: Outcome) -> None:
        place = running.training.place
        if outcome.result is not None:
            self._search.finish(running.trial, outcome.result[METRIC])
            self._delete_checkpoints(running.trial)
        elif running.pruned:
            self._search.finish(running.trial, None, pruned=True)
        elif self._is_stopping:  # it stays marked as running: the next sweep continues it
            return
        else:
            self._fail(running, outcome)
            return
        self._failures[place] = self._failures_anywhere = 0

    def _delete_checkpoints(self, finished: Trial) -> None:
        """Of those that are not among the best any more: they are of no use."""
        self._kept[finished.number] = finished.folder
        best = {trial.number for trial in self._search.leaders(BEST)}
        for number in self._kept.keys() - best:
            shutil.rmtree(self._kept.pop(number) / CHECKPOINTS, ignore_errors=True)

    def _fail(self, running: Running, outcome: Outcome) -> None:
        place = running.training.place
        self._search.finish(running.trial, None, reason=outcome.reason)
        self._last_error = (InputError if outcome.is_input else RunError)(outcome.reason)
        self._failures[place] += 1
        self._failures_anywhere += 1
        if self._failures[place] == PATIENCE:
            log.warning("%s: %d trials in a row have failed there; it gets no more", place, PATIENCE)
            self._executor.give_up(place)
        if self._failures_anywhere == PATIENCE_ANYWHERE:
            raise type(self._last_error)(
                f"{PATIENCE_ANYWHERE} trials in a row have failed; the last: {self._last_error}"
            )
