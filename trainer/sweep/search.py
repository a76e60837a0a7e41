"""Search of a sweep: the params of the next trial, and the record of all trials in Optuna's journal.

No params are run twice. One process at a time uses a search: it holds the lock of its folder.
"""

from __future__ import annotations

import heapq
import json
import logging
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.storages.journal import JournalStorage
from optuna.trial import FrozenTrial, TrialState

from trainer.errors import InputError
from trainer.files import DISK_ERRORS
from trainer.sweep.early_stopping import falls_behind
from trainer.sweep.journal import JOURNAL, Journal, cut_torn_end, lock_folder
from trainer.sweep.optuna_space import distributions, grid, to_params
from trainer.sweep.proposals import Proposals
from trainer.sweep.space import SweepSpec, Value

optuna.logging.set_verbosity(optuna.logging.WARNING)
log = logging.getLogger("trainer")

# Keys of the journal: user attributes of a trial, and of the study.
RUN = "run"  # the trial's run folder
REASON = "reason"  # why the trial failed
PARAMS = "point"  # the trial's params: options of `trainer fit` with their values
DATA = "data"  # fingerprints of the data sets, and the command around the params
MAX_ATTEMPTS = 200  # a sampler repeats itself only where few params are left


@dataclass(frozen=True)
class Trial:
    """A trial to be run; its files go to `folder`."""

    number: int
    params: Mapping[str, Value]
    folder: Path


class Search:
    """The trials of one sweep, recorded in `folder`.

    Raises InputError where another process runs the same sweep, or the folder cannot be used.
    """

    def __init__(self, spec: SweepSpec, folder: Path, earlier: Sequence[FrozenTrial] = ()) -> None:
        """`earlier`: finished trials of other sweeps; only the proposals use them."""
        self.spec = spec
        self.folder = folder
        self._lock = lock_folder(folder)
        try:
            if torn := cut_torn_end(folder / JOURNAL):
                log.warning("%s: %d bytes at its end are no whole record and are cut off", folder / JOURNAL, torn)
            self._storage = JournalStorage(Journal(folder / JOURNAL))
            self.study = optuna.create_study(
                storage=self._storage,
                study_name=spec.name,
                direction="maximize",
                load_if_exists=True,
            )
            if DATA not in self.study.user_attrs:  # `--start-from` compares it
                self.study.set_user_attr(DATA, [list(spec.data), list(spec.command)])
        except Exception as error:
            self._lock.release()
            if isinstance(error, OSError) and error.errno in DISK_ERRORS:
                raise
            raise InputError(f"{folder}: cannot be used: {error}") from error
        self._running: set[int] = set()  # numbers of the trials that this process has started
        self._tried = {_key(params): spec.dataset_of(params) for params in map(_params, self.trials())}
        self._grid: Iterator[dict[str, Value]] = iter(grid(spec) if spec.method == "grid" else ())
        self._proposals = None if spec.method == "grid" else Proposals(spec, [*earlier, *self.trials()])

    def __enter__(self) -> Search:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Release the lock of the folder."""
        self._lock.release()

    def interrupted(self) -> list[Trial]:
        """The trials that an earlier process has left unfinished."""
        return [_trial(one) for one in self.trials() if _is_running(one) and one.number not in self._running]

    def next_trial(
        self, max_trials: int | None, *, retry: Collection[int] = (), still_running: Collection[int] = ()
    ) -> Trial | None:
        """The next trial; None where `max_trials` exist (failed ones included), or no params are left.

        First the interrupted trials, without those that are `still_running`; then the failed ones of `retry`; then new
        params.
        """
        trial = self._next(max_trials, retry, still_running)
        if trial:
            self._running.add(trial.number)
            trial.folder.mkdir(parents=True, exist_ok=True)
        return trial

    def report(self, trial: Trial, epoch: int, value: float) -> bool:
        """Record the metric after an epoch; return whether the trial should be stopped early."""
        trial_id = self._id(trial)
        # A trial that was interrupted may report an epoch once more.
        if epoch not in self._storage.get_trial(trial_id).intermediate_values:
            self._storage.set_trial_intermediate_value(trial_id, epoch, value)
        if self.spec.hyperband is None:
            return False
        dataset = self.spec.dataset_of(trial.params)

        def others_after(epoch: int) -> list[float]:
            others = [one for one in self.trials() if one.number != trial.number and self._is_on(one, dataset)]
            return [one.intermediate_values[epoch] for one in others if epoch in one.intermediate_values]

        return falls_behind(self.spec.hyperband, epoch, value, others_after)

    def finish(self, trial: Trial, value: float | None, *, pruned: bool = False, reason: str | None = None) -> None:
        """End a trial: with its metric, stopped early (`pruned`), or failed for `reason`."""
        if reason is not None:
            self._storage.set_trial_user_attr(self._id(trial), REASON, reason)
        state = TrialState.FAIL if reason is not None else TrialState.PRUNED if pruned else TrialState.COMPLETE
        finished = self.study.tell(trial.number, value if state == TrialState.COMPLETE else None, state=state)
        self._running.discard(trial.number)
        if self._proposals:
            self._proposals.add(finished)

    def trials(self) -> list[FrozenTrial]:
        """All trials, by number."""
        return [trial for trial in self.study.get_trials(deepcopy=False) if _is_trial(trial)]

    def open_failures(self) -> list[FrozenTrial]:
        """The failed trials whose params have not been run again since."""
        last = {_key(_params(trial)): trial for trial in self.trials()}
        return [trial for trial in last.values() if trial.state == TrialState.FAIL]

    def leaders(self, dataset: str, count: int | None = None) -> list[FrozenTrial]:
        """The `count` best finished trials on a data set (None: all), the best first; of equals the earlier one."""
        finished = [trial for trial in self.finished() if self._is_on(trial, dataset)]
        return heapq.nlargest(len(finished) if count is None else count, finished, key=_rank)

    def finished(self) -> list[FrozenTrial]:
        """The trials that have a metric, by number."""
        return [trial for trial in self.trials() if trial.state == TrialState.COMPLETE]

    def datasets(self) -> list[str]:
        """The data sets with finished trials, in the order of the sweep file."""
        found = dict.fromkeys(self.spec.dataset_of(_params(trial)) for trial in self.finished())
        return sorted(found, key=lambda dataset: [*self.spec.datasets, dataset].index(dataset))

    def _is_on(self, trial: FrozenTrial, dataset: str) -> bool:
        return self.spec.dataset_of(_params(trial)) == dataset

    def _id(self, trial: Trial) -> int:
        study_id = self._storage.get_study_id_from_name(self.study.study_name)
        return self._storage.get_trial_id_from_study_id_trial_number(study_id, trial.number)

    def _next(self, max_trials: int | None, retry: Collection[int], still_running: Collection[int]) -> Trial | None:
        for interrupted in self.interrupted():
            if interrupted.number not in still_running:
                return interrupted
        number = len(self.study.get_trials(deepcopy=False))
        for failed in self.open_failures() if retry else ():
            if failed.number in retry:
                return self._add(failed.params, number)
        if max_trials is not None and len(self.trials()) >= max_trials:
            return None
        return self._next_of_grid(number) if self.spec.method == "grid" else self._propose(number)

    def _next_of_grid(self, number: int) -> Trial | None:
        left = (params for params in self._grid if _key(params) not in self._tried)
        params = next(left, None)
        return None if params is None else self._add(params, number)

    def _propose(self, number: int) -> Trial | None:
        count = self.spec.count()
        if count is not None and len(self._tried) >= count:
            return None
        assert self._proposals
        tried = Counter(self._tried.values())
        dataset = min(self.spec.datasets or ("",), key=lambda one: tried[one])
        for attempt in range(MAX_ATTEMPTS):
            proposal = self._proposals.ask(dataset, number + attempt)
            if _key(to_params(self.spec, proposal.params)) not in self._tried:
                self._proposals.take(proposal, number)
                return self._add(proposal.params, number)
            self._proposals.reject(proposal)
        log.warning("%d proposals had been run before; the search ends", MAX_ATTEMPTS)
        return None

    def _add(self, drawn: Mapping[str, Any], number: int) -> Trial:
        """Record a trial in one line: a journal that ends anywhere has all of it or nothing."""
        params = to_params(self.spec, drawn)
        trial = Trial(number, params, self.folder / f"trial-{number:04d}")
        self._tried[_key(params)] = self.spec.dataset_of(params)
        self.study.add_trial(
            optuna.trial.create_trial(
                state=TrialState.RUNNING,
                params=dict(drawn),
                distributions=distributions(self.spec),
                user_attrs={PARAMS: params, RUN: str(trial.folder)},
            )
        )
        return trial


def _trial(recorded: FrozenTrial) -> Trial:
    return Trial(recorded.number, _params(recorded), Path(recorded.user_attrs[RUN]))


def _params(recorded: FrozenTrial) -> dict[str, Value]:
    params: dict[str, Value] = recorded.user_attrs[PARAMS]
    return params


def _is_running(recorded: FrozenTrial) -> bool:
    return recorded.state == TrialState.RUNNING


def _is_trial(recorded: FrozenTrial) -> bool:
    """Whether the trial was run: earlier versions also recorded proposals that were not taken."""
    return RUN in recorded.user_attrs


def _rank(trial: FrozenTrial) -> tuple[float, float]:
    assert trial.value is not None
    assert trial.datetime_complete is not None
    return trial.value, -trial.datetime_complete.timestamp()


def _key(params: Mapping[str, Any]) -> str:
    return json.dumps(params, sort_keys=True)
