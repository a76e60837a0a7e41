"""The search: which point comes next. Optuna remembers the trials and proposes; each point is run once.

One process at a time touches a search: it holds the lock of its folder. Another one that starts meanwhile is refused.
"""

from __future__ import annotations

import heapq
import json
import logging
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from filelock import FileLock, Timeout
from optuna.storages.journal import JournalFileBackend, JournalStorage
from optuna.trial import FrozenTrial, TrialState

from trainer.errors import InputError
from trainer.sweep.optuna_space import distributions, grid, point_of, pruner
from trainer.sweep.proposals import Proposals
from trainer.sweep.space import SweepSpec, Value

optuna.logging.set_verbosity(optuna.logging.WARNING)
log = logging.getLogger("trainer")

JOURNAL = "journal.log"
LOCK = "sweep.lock"
PID = "sweep.pid"  # of the process that holds the lock: taking it empties the lock's own file
RUN = "run"  # a trial's folder, in its user attributes
REASON = "reason"  # why it failed
DATA = "data"  # of the study: the fingerprints of its data, and the command around the points
POINT = "point"  # the options of `trainer fit`, as they were given
# A point that was run already is proposed again only where few are left.
ATTEMPTS = 200


@dataclass(frozen=True)
class Trial:
    """A claimed trial: to be run, with its files in `folder`, until `Search.finish`."""

    number: int
    point: Mapping[str, Value]
    folder: Path


class Search:
    """The trials of one sweep, kept in `folder`.

    Raises InputError where another process runs the same sweep, or the folder cannot be used.
    """

    def __init__(self, spec: SweepSpec, folder: Path, earlier: Sequence[FrozenTrial] = ()) -> None:
        """`earlier`: finished trials of other sweeps that proposals learn from, and nothing else."""
        self.spec = spec
        self.folder = folder
        self._lock = _lock(folder)
        try:
            if torn := cut_torn_end(folder / JOURNAL):
                log.warning("%s: %d bytes at its end are no whole record and are cut off", folder / JOURNAL, torn)
            self._storage = JournalStorage(JournalFileBackend(str(folder / JOURNAL), _HeldAlready()))
            self.study = optuna.create_study(
                storage=self._storage,
                study_name=spec.name,
                direction="maximize",
                pruner=pruner(spec),
                load_if_exists=True,
            )
            if DATA not in self.study.user_attrs:  # for a later sweep that starts from this one
                self.study.set_user_attr(DATA, [list(spec.data), list(spec.command)])
        except Exception as error:
            self._lock.release()
            raise InputError(f"{folder}: cannot be used: {error}") from error
        self._claimed: set[int] = set()  # by this process, and not finished
        self._taken = {_key(trial.user_attrs[POINT]) for trial in self.trials()}
        self._proposals = Proposals(spec, lambda: [*earlier, *self.study.get_trials(deepcopy=False)])
        self._grid: Iterator[tuple[dict[str, Value], dict[str, Value]]] | None = None

    def __enter__(self) -> Search:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let another process go on with it."""
        self._lock.release()

    def interrupted(self) -> list[Trial]:
        """The trials that a process before this one has left unfinished."""
        return [
            _trial(old) for old in self.trials() if old.state == TrialState.RUNNING and old.number not in self._claimed
        ]

    def claim(self, most: int | None, *, retry: Collection[int] = (), busy: Collection[int] = ()) -> Trial | None:
        """The next trial; None where `most` trials exist (those that failed included), or no point is left.

        First come trials that were interrupted, but those that are still `busy`; then those of `retry` that failed,
        then new points.
        """
        trial = self._next(most, retry, busy)
        if trial:
            self._claimed.add(trial.number)
            trial.folder.mkdir(parents=True, exist_ok=True)
        return trial

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
        if reason is not None:
            self._storage.set_trial_user_attr(self._id(trial), REASON, reason)
        state = TrialState.FAIL if reason is not None else TrialState.PRUNED if pruned else TrialState.COMPLETE
        told = self.study.tell(trial.number, value if state == TrialState.COMPLETE else None, state=state)
        self._claimed.discard(trial.number)
        if state != TrialState.FAIL and self.spec.method != "grid":
            self._proposals.note(told)

    def trials(self) -> list[FrozenTrial]:
        """All trials that took a point, by number."""
        return [trial for trial in self.study.get_trials(deepcopy=False) if _counts(trial)]

    def open_failures(self) -> list[FrozenTrial]:
        """The trials that failed and whose point has not been run again since."""
        last = {_key(trial.user_attrs[POINT]): trial for trial in self.trials()}
        return [trial for trial in last.values() if trial.state == TrialState.FAIL]

    def leaders(self, count: int | None = None) -> list[FrozenTrial]:
        """The finished trials, or so many of them, the best first; of equals the one that finished earlier."""
        done = [trial for trial in self.trials() if trial.state == TrialState.COMPLETE]
        return heapq.nlargest(len(done) if count is None else count, done, key=_rank)

    def _id(self, trial: Trial) -> int:
        study_id = self._storage.get_study_id_from_name(self.study.study_name)
        return self._storage.get_trial_id_from_study_id_trial_number(study_id, trial.number)

    def _next(self, most: int | None, retry: Collection[int], busy: Collection[int]) -> Trial | None:
        trials = self.study.get_trials(deepcopy=False)
        for old in trials:
            if old.state != TrialState.RUNNING or old.number in self._claimed or old.number in busy:
                continue
            if _counts(old):
                return _trial(old)
        for old in self.open_failures() if retry else ():
            if old.number in retry:
                return self._add(old.params, len(trials))
        if most is not None and sum(map(_counts, trials)) >= most:
            return None
        return self._propose(len(trials))

    def _propose(self, number: int) -> Trial | None:
        if self.spec.method == "grid":
            self._grid = self._grid or grid(self.spec)
            for drawn, point in self._grid:
                if _key(point) not in self._taken:
                    return self._add(drawn, number)
            return None
        points = self.spec.points()
        if points is not None and len(self._taken) >= points:
            return None
        for attempt in range(ATTEMPTS):
            proposed = self._proposals.draw(seed=number + attempt)
            if _key(point_of(self.spec, proposed)) not in self._taken:
                self._proposals.take(number)
                return self._add(proposed, number)
            self._proposals.give_up()
        log.warning("no point was found in %d attempts that has not been run", ATTEMPTS)
        return None

    def _add(self, drawn: Mapping[str, Any], number: int) -> Trial:
        """A trial in one record, so that a journal that ends anywhere has all of it or nothing."""
        point = point_of(self.spec, drawn)
        trial = Trial(number, point, self.folder / f"trial-{number:04d}")
        self._taken.add(_key(point))
        self.study.add_trial(
            optuna.trial.create_trial(
                state=TrialState.RUNNING,
                params=dict(drawn),
                distributions=distributions(self.spec),
                user_attrs={POINT: point, RUN: str(trial.folder)},
            )
        )
        return trial


class _HeldAlready:
    """No lock of Optuna's: the search holds its own for as long as it lives."""

    def acquire(self) -> bool:
        return True

    def release(self) -> None:
        pass


def _trial(old: FrozenTrial) -> Trial:
    return Trial(old.number, old.user_attrs[POINT], Path(old.user_attrs[RUN]))


def _counts(trial: FrozenTrial) -> bool:
    """Whether it took a point: a proposal that was given up took none."""
    return RUN in trial.user_attrs


def _rank(trial: FrozenTrial) -> tuple[float, float]:
    assert trial.value is not None
    assert trial.datetime_complete is not None
    return trial.value, -trial.datetime_complete.timestamp()


def _key(point: Mapping[str, Any]) -> str:
    return json.dumps(point, sort_keys=True)


def _lock(folder: Path) -> FileLock:
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK, thread_local=False)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        raise InputError(f"{folder}: this sweep is running already, as process {_pid(folder)}") from None
    except OSError as error:
        raise InputError(f"{folder}: cannot be written: {error.strerror}") from error
    (folder / PID).write_text(f"{os.getpid()}\n")
    return lock


def _pid(folder: Path) -> str:
    try:
        return (folder / PID).read_text().strip()
    except OSError:
        return "?"


def cut_torn_end(journal: Path) -> int:
    """Take away the half record of a process that was killed: Optuna would write the next one onto it → its bytes."""
    content = journal.read_bytes() if journal.exists() else b""
    whole = content
    while whole and not _is_record(whole[whole.rfind(b"\n", 0, -1) + 1 :]):
        whole = whole[: whole.rfind(b"\n", 0, -1) + 1]
    if len(whole) < len(content):
        os.truncate(journal, len(whole))
    return len(content) - len(whole)


def _is_record(line: bytes) -> bool:
    try:
        return line.endswith(b"\n") and isinstance(json.loads(line), dict)
    except ValueError:
        return False
