from __future__ import annotations

from pathlib import Path

import optuna
from optuna.trial import TrialState, create_trial

from trainer.sweep.optuna_space import distributions
from trainer.sweep.proposals import BEST, OTHERS, SHOWN, Proposals
from trainer.sweep.space import Parameter, SweepSpec

SPEC = SweepSpec(Path("s.yaml"), "bayes", {"dropout": Parameter(low=0, high=1)}, ("${args}",), None, None)


def test_the_sampler_is_shown_the_best_and_some_others_however_many_there_are() -> None:
    study = optuna.create_study(direction="maximize")
    proposals = Proposals(SPEC, lambda: study.get_trials(deepcopy=False))
    for number in range(2 * SHOWN):
        proposed = proposals.draw(number)
        proposals.take(number)
        value = 0.9 if number < 3 else 0.1
        study.add_trial(create_trial(params=dict(proposed), distributions=distributions(SPEC), value=value))
        proposals.note(study.get_trials(deepcopy=False)[-1])
    shown = [one for one in proposals._study.get_trials(deepcopy=False) if one.state == TrialState.COMPLETE]
    assert BEST + OTHERS // 2 <= len(shown) <= SHOWN
    assert sum(one.value == 0.9 for one in shown) == 3
    assert shown[-1].params == study.trials[-1].params


def test_a_trial_that_ran_before_is_replaced_by_the_finished_one() -> None:
    study = optuna.create_study(direction="maximize")
    drawn, own = {"dropout": 0.5}, distributions(SPEC)
    study.add_trial(create_trial(state=TrialState.RUNNING, params=drawn, distributions=own))
    proposals = Proposals(SPEC, lambda: study.get_trials(deepcopy=False))
    proposals.note(study.tell(0, 0.7))
    shown = [one.state for one in proposals._study.get_trials(deepcopy=False)]
    assert shown == [TrialState.FAIL, TrialState.COMPLETE]


def test_a_trial_that_runs_counts_until_it_has_ended() -> None:
    study = optuna.create_study(direction="maximize")
    proposals = Proposals(SPEC, lambda: study.get_trials(deepcopy=False))
    proposed = dict(proposals.draw(0))
    proposals.take(0)
    proposals.draw(1)
    proposals.give_up()
    shown = [one.state for one in proposals._study.get_trials(deepcopy=False)]
    assert shown == [TrialState.RUNNING, TrialState.FAIL]
    study.add_trial(create_trial(params=proposed, distributions=distributions(SPEC), value=0.5))
    proposals.note(study.get_trials(deepcopy=False)[-1])
    shown = [one.state for one in proposals._study.get_trials(deepcopy=False)]
    assert shown == [TrialState.FAIL, TrialState.FAIL, TrialState.COMPLETE]
