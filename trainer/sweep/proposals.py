"""Proposals of a `random` or `bayes` search: Optuna's samplers, over the trials of one data set at a time.

Accuracies on different data sets cannot be compared, so that a sampler must not learn from one what to do on another.
The studies are in memory: a proposal that is not taken leaves nothing in the journal.
"""

from __future__ import annotations

from collections.abc import Iterable

import optuna
from optuna.trial import FrozenTrial, TrialState

from trainer.sweep.optuna_space import distributions, sampler, to_params
from trainer.sweep.space import DATASET, SweepSpec


class Proposals:
    """Optuna's studies of the data sets, with the given trials."""

    def __init__(self, spec: SweepSpec, trials: Iterable[FrozenTrial]) -> None:
        self._spec = spec
        self._studies = {dataset: optuna.create_study(direction="maximize") for dataset in spec.datasets or ("",)}
        self._running: dict[int, tuple[optuna.Study, int]] = {}  # number of a trial → its copy in a study
        for trial in trials:
            self.add(trial)

    def ask(self, dataset: str, seed: int) -> optuna.Trial:
        """A proposal on a data set, to be passed to `take` or `reject`."""
        study = self._studies[dataset]
        study.sampler = sampler(self._spec, seed)
        if len(self._studies) > 1:
            study.enqueue_trial({DATASET: dataset})  # the other parameters are sampled
        return study.ask(distributions(self._spec))

    def take(self, proposal: optuna.Trial, number: int) -> None:
        """Accept a proposal, which is the trial `number` from now on."""
        self._running[number] = (proposal.study, proposal.number)

    def reject(self, proposal: optuna.Trial) -> None:
        """Discard a proposal, which is not run."""
        proposal.study.tell(proposal, state=TrialState.FAIL)

    def add(self, trial: FrozenTrial) -> None:
        """Learn from a trial; a finished one replaces its running copy, which has no epochs."""
        if trial.number in self._running and trial.state.is_finished():
            study, copy = self._running.pop(trial.number)
            study.tell(copy, state=TrialState.FAIL)
        study = self._studies.get(self._spec.dataset_of(to_params(self._spec, trial.params)))
        if study is None:
            return
        if not trial.state.is_finished():
            self._running[trial.number] = (study, len(study.get_trials(deepcopy=False)))
        study.add_trial(trial)
