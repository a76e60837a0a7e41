"""The search: which point comes next. Optuna remembers the trials and proposes; each point is run once.

Several processes, also on several machines, may share one storage. A trial is claimed under a lock beside the journal,
and a lock in its folder says whether somebody is at it: one that is marked as running and not locked was killed, and is
continued.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import optuna
from filelock import FileLock, Timeout
from optuna.trial import FrozenTrial, TrialState

from trainer.config import InputError
from trainer.sweep.optuna_space import distributions, grid, point_of, pruner, sampler
from trainer.sweep.space import SweepSpec, Value
from trainer.training.run_folder import LOCK as RUN_LOCK

optuna.logging.set_verbosity(optuna.logging.WARNING)
log = logging.getLogger("trainer")

RUN = "run"  # a trial's folder, in its user attributes
REASON = "reason"  # why it failed
POINT = "point"  # the options of `trainer fit`, as they were given
LOCK = "sweep.lock"  # of a trial: held by the sweep that runs it
# A point that was run already is proposed again only where few are left.
ATTEMPTS = 200


@dataclass(frozen=True)
class Trial:
    """A claimed trial: to be run in `folder`, until `Search.finish`."""

    number: int
    point: Mapping[str, Value]
    folder: Path
    lock: FileLock


class Search:
    """The trials of one sweep. Raises InputError for a storage that cannot be used."""

    def __init__(self, spec: SweepSpec, folder: Path, storage: str | None = None) -> None:
        self.spec = spec
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._claims = FileLock(folder / "claims.lock")
        with self._claims:
            try:
                self._storage = optuna.storages.get_storage(storage or _journal(folder / "journal.log"))
                self.study = optuna.create_study(
                    storage=self._storage,
                    study_name=spec.name,
                    direction="maximize",
                    pruner=pruner(spec),
                    load_if_exists=True,
                )
            except Exception as error:
                place = "--storage" if storage else folder  # not the URL: it may hold a password in any form
                raise InputError(f"{place}: cannot be used: {error}") from error

    def claim(self, most: int | None, *, retry: Collection[int] = ()) -> Trial | None:
        """The next trial; None where `most` trials exist (those that failed included), or no point is left.

        First come trials that were interrupted, then those of `retry` that failed, then new points.
        """
        with self._claims:
            trials = self.study.get_trials(deepcopy=False)
            for old in trials:
                again = old.state == TrialState.RUNNING or (old.number in retry and _is_open_failure(old, trials))
                if again and (trial := self._reclaim(old)):
                    return trial
            if most is not None and len([one for one in trials if _counts(one)]) >= most:
                return None
            return self._propose(trials)

    def report(self, trial: Trial, epoch: int, value: float) -> bool:
        """Note the metric after an epoch; whether the trial should be stopped early."""
        trial_id = self._id(trial)
        live = optuna.Trial(self.study, trial_id)
        # A trial that was interrupted has told of its first epochs before.
        if epoch not in self._storage.get_trial(trial_id).intermediate_values:
            live.report(value, epoch)
        return self.spec.hyperband is not None and live.should_prune()

    def finish(self, trial: Trial, value: float | None, *, pruned: bool = False, reason: str | None = None) -> None:
        """End a trial: with its metric, stopped early, or failed for `reason`."""
        with self._claims:
            if reason is not None:
                self._storage.set_trial_user_attr(self._id(trial), REASON, reason)
            state = TrialState.FAIL if reason is not None else TrialState.PRUNED if pruned else TrialState.COMPLETE
            self.study.tell(trial.number, value if state == TrialState.COMPLETE else None, state=state)
        trial.lock.release()

    def has_orphans(self) -> bool:
        """Whether a training goes on whose sweep was killed: it can be claimed when it has ended."""
        running = [one for one in self.trials() if one.state == TrialState.RUNNING]
        return any(_is_free(Path(one.user_attrs[RUN]) / LOCK) for one in running)

    def trials(self) -> list[FrozenTrial]:
        """All trials that took a point, by number."""
        return [trial for trial in self.study.get_trials(deepcopy=False) if _counts(trial)]

    def open_failures(self) -> list[FrozenTrial]:
        """The trials that failed and whose point has not been run again since."""
        trials = self.trials()
        return [trial for trial in trials if _is_open_failure(trial, trials)]

    def leaders(self) -> list[FrozenTrial]:
        """The finished trials, the best first."""
        done = [trial for trial in self.trials() if trial.state == TrialState.COMPLETE]
        return sorted(done, key=lambda trial: trial.value or 0.0, reverse=True)

    def _id(self, trial: Trial) -> int:
        study_id = self._storage.get_study_id_from_name(self.study.study_name)
        return self._storage.get_trial_id_from_study_id_trial_number(study_id, trial.number)

    def _reclaim(self, old: FrozenTrial) -> Trial | None:
        """Take over an interrupted trial, or begin a failed one again; None where somebody is at it."""
        if RUN not in old.user_attrs:  # killed between the proposal and its note: nothing was run
            if old.state == TrialState.RUNNING:
                self.study.tell(old.number, state=TrialState.FAIL)
            return None
        folder = Path(old.user_attrs[RUN])
        lock = _try_lock(folder)
        if lock is None:
            return None
        if not _is_free(folder / RUN_LOCK):  # its sweep was killed, the training itself was not
            lock.release()
            return None
        if old.state == TrialState.RUNNING:
            return Trial(old.number, old.user_attrs[POINT], folder, lock)
        lock.release()
        self.study.enqueue_trial(old.params)
        return self._start(self.study.ask(distributions(self.spec)))

    def _propose(self, trials: list[FrozenTrial]) -> Trial | None:
        taken = [trial.user_attrs[POINT] for trial in trials if _counts(trial)]
        if self.spec.method == "grid":
            for drawn, point in grid(self.spec):
                if point not in taken:
                    self.study.enqueue_trial(drawn)
                    return self._start(self.study.ask(distributions(self.spec)))
            return None
        if self.spec.points() is not None and len(taken) >= (self.spec.points() or 0):
            return None
        for attempt in range(ATTEMPTS):
            self.study.sampler = sampler(self.spec, seed=len(trials) + attempt)
            asked = self.study.ask(distributions(self.spec))
            if point_of(self.spec, asked.params) not in taken:
                return self._start(asked)
            self.study.tell(asked, state=TrialState.FAIL)
        log.warning("no point was found in %d attempts that has not been run", ATTEMPTS)
        return None

    def _start(self, asked: optuna.Trial) -> Trial:
        folder = self.folder / f"trial-{asked.number:04d}"
        point = point_of(self.spec, asked.params)
        asked.set_user_attr(POINT, point)
        asked.set_user_attr(RUN, str(folder))
        lock = _try_lock(folder)
        assert lock is not None  # a new number
        return Trial(asked.number, point, folder, lock)


def _counts(trial: FrozenTrial) -> bool:
    """Whether it took a point: a proposal that was given up took none."""
    return RUN in trial.user_attrs


def _is_open_failure(trial: FrozenTrial, trials: list[FrozenTrial]) -> bool:
    """Failed, and its point has not been run again since."""
    if trial.state != TrialState.FAIL or not _counts(trial):
        return False
    point = trial.user_attrs[POINT]
    return not any(
        later.user_attrs.get(POINT) == point and later.number > trial.number and _counts(later) for later in trials
    )


def _try_lock(folder: Path) -> FileLock | None:
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK, thread_local=False)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        return None
    return lock


def _is_free(file: Path) -> bool:
    lock = FileLock(file)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        return False
    lock.release()
    return True


def _journal(file: Path) -> optuna.storages.BaseStorage:
    from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock, JournalStorage

    lock = JournalFileOpenLock(str(file))
    if file.exists():
        lock.acquire()  # another process may be writing a record just now
        try:
            _cut_torn_end(file)
        finally:
            lock.release()
    return JournalStorage(JournalFileBackend(str(file), lock))


def _cut_torn_end(journal: Path) -> None:
    """Take away the half record of a process that was killed: Optuna would write the next one onto it."""
    content = journal.read_bytes()
    whole = content
    while whole and not _is_record(whole[whole.rfind(b"\n", 0, -1) + 1 :]):
        whole = whole[: whole.rfind(b"\n", 0, -1) + 1]
    if len(whole) < len(content):
        log.warning("%s: %d bytes at its end are no whole record and are cut off", journal, len(content) - len(whole))
        os.truncate(journal, len(whole))


def _is_record(line: bytes) -> bool:
    try:
        return line.endswith(b"\n") and isinstance(json.loads(line), dict)
    except ValueError:
        return False
