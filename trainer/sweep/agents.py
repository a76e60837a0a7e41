"""The workers of a sweep: each takes the next trial, runs `trainer fit` for it in a process, and notes the outcome."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from trainer.config import InputError, RunError, TrainerError
from trainer.sweep.executor import LocalTrial, Share, share_of_machine
from trainer.sweep.search import Search, Trial
from trainer.sweep.space import METRIC, Value
from trainer.training.run_folder import CHECKPOINTS

POLL_S = 0.5
PATIENCE = 3  # failures in a row that stop a worker


@dataclass
class Running:
    """A trial under way, as it is shown."""

    number: int
    point: dict[str, Value]
    started: float = field(default_factory=time.monotonic)
    epoch: int = 0
    value: float | None = None


class Agents:
    """`workers` trainings at once, each on its share of the machine."""

    def __init__(self, search: Search, *, workers: int, most: int | None, retry_failed: bool) -> None:
        self.workers = workers
        self.running: dict[int, Running] = {}
        self.stopped: list[TrainerError] = []  # why workers gave up
        self._search = search
        self._most = most
        # Not those that fail from now on: a failure that repeats would be run again and again.
        self._retry = {trial.number for trial in search.open_failures()} if retry_failed else set[int]()
        self._stop = threading.Event()
        self._trainings: set[LocalTrial] = set()  # those under way
        self._guard = threading.Lock()  # of the two above
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
            self._stop_all()
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
                error = self._train(trial, share_of_machine(index, self.workers))
                failures = failures + 1 if error else 0
                if error and failures == PATIENCE:
                    self.stopped.append(error)
                    return
        except BaseException as error:
            self._errors.append(error)
            self._stop_all()

    def _train(self, trial: Trial, share: Share) -> TrainerError | None:
        """Run the trial to its end; the error where it failed."""
        shown = self.running[trial.number] = Running(trial.number, dict(trial.point))
        pruned = False
        try:
            training = LocalTrial(self._search.spec.options(trial.point), trial.folder, share)
            with self._stoppable(training):
                for event in training.events():
                    shown.epoch, shown.value = int(event["epoch"]), event[METRIC]
                    if self._search.report(trial, shown.epoch, event[METRIC]) and not pruned:
                        pruned = True
                        training.stop()
        finally:
            del self.running[trial.number]
        if training.result is not None:
            self._search.finish(trial, training.result[METRIC])
        elif pruned:
            self._search.finish(trial, None, pruned=True)
            _delete_checkpoints(trial)
        elif self._stop.is_set():
            trial.lock.release()  # it stays marked as running: the next sweep continues it
        else:
            reason = training.reason()
            self._search.finish(trial, None, reason=reason)
            return InputError(reason) if training.exit_code == InputError.exit_code else RunError(reason)
        return None

    @contextmanager
    def _stoppable(self, training: LocalTrial) -> Iterator[None]:
        """While it lasts, the end of the sweep stops the training."""
        with self._guard:
            self._trainings.add(training)
            if self._stop.is_set():
                training.stop()
        try:
            yield
        finally:
            with self._guard:
                self._trainings.remove(training)

    def _stop_all(self) -> None:
        with self._guard:
            self._stop.set()
            for training in self._trainings:
                training.stop()


def _delete_checkpoints(trial: Trial) -> None:
    """Of a trial that was stopped early and will not go on; one that finishes deletes its own."""
    shutil.rmtree(trial.folder / CHECKPOINTS, ignore_errors=True)
