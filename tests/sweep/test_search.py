from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState, create_trial

from trainer.sweep.optuna_space import distributions
from trainer.sweep.search import PARAMS, RUN, Search, Trial
from trainer.sweep.space import Hyperband, Parameter, SweepSpec

GRID = {"dropout": Parameter(choices=(0.1, 0.2, 0.3)), "optimizer": Parameter(choices=("sgd", "adam"))}


def spec(method: str = "grid", parameters: dict[str, Parameter] | None = None, **values: Any) -> SweepSpec:
    defaults: dict[str, Any] = {"hyperband": None, "run_cap": None, "command": ("${args}",)}
    return SweepSpec(Path("sweep.yaml"), method, parameters=parameters or GRID, **(defaults | values))


def run_all(search: Search, max_trials: int | None = None) -> list[dict[str, Any]]:
    """The params of the trials that were left to run."""
    params = []
    while trial := search.next_trial(max_trials):
        params.append(dict(trial.params))
        search.finish(trial, 0.5)
    return params


def reopen_and_run(folder: Path, one: SweepSpec, max_trials: int | None = None) -> list[dict[str, Any]]:
    """Run the trials that are left, as a new process does."""
    with Search(one, folder) as search:
        return run_all(search, max_trials)


def test_a_grid_is_run_once_in_a_fixed_shuffled_order(tmp_path: Path) -> None:
    params = reopen_and_run(tmp_path / "one", spec(), max_trials=3)
    params += reopen_and_run(tmp_path / "one", spec())
    assert len(params) == len({str(one) for one in params}) == 6
    assert reopen_and_run(tmp_path / "one", spec()) == []  # the journal has them all
    assert reopen_and_run(tmp_path / "two", spec()) == params
    assert params != sorted(params, key=str)


def test_a_grid_of_an_earlier_version_goes_on_in_any_order(tmp_path: Path) -> None:
    whole = reopen_and_run(tmp_path / "shuffled", spec())
    # Earlier versions took the combinations in another order: here, backwards.
    with Search(spec(), tmp_path / "sweep") as search:
        for params in whole[:1:-1]:
            search.study.add_trial(
                create_trial(
                    value=0.5,
                    params=params,
                    distributions=distributions(spec()),
                    user_attrs={PARAMS: params, RUN: str(tmp_path / "trial")},
                )
            )
    rest = reopen_and_run(tmp_path / "sweep", spec())
    assert rest == whole[:2]


@pytest.mark.parametrize("method", ["random", "bayes"])
def test_a_small_space_is_never_run_twice(tmp_path: Path, method: str) -> None:
    params = reopen_and_run(tmp_path, spec(method), max_trials=100)
    assert len(params) == len({str(one) for one in params}) == 6


def test_the_maximum_counts_earlier_trials(tmp_path: Path) -> None:
    assert len(reopen_and_run(tmp_path, spec(), max_trials=2)) == 2
    assert len(reopen_and_run(tmp_path, spec(), max_trials=3)) == 1
    assert reopen_and_run(tmp_path, spec(), max_trials=0) == []


def test_a_killed_trial_is_continued_in_its_folder_once_it_has_ended(tmp_path: Path) -> None:
    with Search(spec(), tmp_path) as search:
        killed = search.next_trial(None)
        assert killed
        assert search.interrupted() == []  # this process runs it
    with Search(spec(), tmp_path) as search:
        assert search.interrupted() == [killed]
        beside = search.next_trial(None, still_running={killed.number})
        assert beside
        assert beside.number != killed.number
        assert search.next_trial(None) == killed
        assert search.interrupted() == []


def test_a_failure_is_run_again_only_when_asked_for(tmp_path: Path) -> None:
    search = Search(spec(), tmp_path)
    first = search.next_trial(1)
    assert first
    search.finish(first, None, reason="the disk is full")
    assert search.next_trial(1) is None
    again = search.next_trial(1, retry={0})
    assert again
    assert again.params == first.params
    assert again.folder != first.folder
    search.finish(again, None, reason="it still is")
    assert search.next_trial(1, retry={0}) is None  # once
    assert [trial.number for trial in search.open_failures()] == [again.number]
    last = search.next_trial(1, retry={again.number})
    assert last
    search.finish(last, 0.7)
    assert search.open_failures() == []
    assert [trial.number for trial in search.leaders("")] == [last.number]


def test_leaders_are_the_best_first(tmp_path: Path) -> None:
    search = Search(spec(), tmp_path)
    for value in (0.3, 0.9, 0.6):
        trial = search.next_trial(None)
        assert trial
        search.finish(trial, value)
    assert [trial.value for trial in search.leaders("")] == [0.9, 0.6, 0.3]


def test_hyperband_stops_what_falls_behind(tmp_path: Path) -> None:
    search = Search(spec("random", {"dropout": Parameter()}, hyperband=Hyperband(1, 2)), tmp_path)
    stopped = 0
    for index in range(12):
        trial = search.next_trial(None)
        assert trial
        accuracy = 0.9 if index % 3 == 0 else 0.1
        search.report(trial, 1, accuracy)  # reported twice, as after an interruption
        if any(search.report(trial, epoch, accuracy) for epoch in range(1, 9)):
            stopped += 1
            search.finish(trial, None, pruned=True)
        else:
            search.finish(trial, accuracy)
    assert 1 <= stopped <= 8
    assert max(trial.value or 0 for trial in search.leaders("")) == 0.9


TWO = {"dataset": Parameter(choices=("easy", "hard")), "dropout": Parameter()}


def accuracy_of(trial: Trial) -> float:
    """The best dropout of the easy data set is the worst of the hard one, where every accuracy is lower."""
    dropout = float(trial.params["dropout"])
    return 1 - dropout / 10 if trial.params["dataset"] == "easy" else dropout / 2


@pytest.mark.parametrize("method", ["random", "bayes"])
def test_data_sets_are_searched_apart_and_get_as_many_trials(tmp_path: Path, method: str) -> None:
    one = spec(method, TWO, datasets=("easy", "hard"))
    for count in (17, 34):  # another process goes on with it
        with Search(one, tmp_path) as search:
            while trial := search.next_trial(count):
                search.finish(trial, accuracy_of(trial))
    assert search.datasets() == ["easy", "hard"]
    easy, hard = (search.leaders(dataset) for dataset in search.datasets())
    assert len(easy) == len(hard) == 17
    if method == "bayes":
        assert easy[0].params["dropout"] < 0.1
        assert hard[0].params["dropout"] > 0.9


def test_hyperband_compares_trials_on_the_same_data_set_only(tmp_path: Path) -> None:
    parameters = {"dataset": Parameter(choices=("easy", "hard")), "seed": Parameter(choices=tuple(range(6)))}
    search = Search(spec(parameters=parameters, datasets=("easy", "hard"), hyperband=Hyperband(1, 2)), tmp_path)
    trials = [trial for _ in range(12) if (trial := search.next_trial(None))]
    trials.sort(key=lambda trial: (trial.params["dataset"], -int(trial.params["seed"])))
    # The hard data set comes last, and on both each trial is worse than the one before.
    base = {"easy": 0.9, "hard": 0.2}
    accuracies = [base[str(trial.params["dataset"])] + int(trial.params["seed"]) / 100 for trial in trials]
    stopped = [search.report(trial, 1, accuracy) for trial, accuracy in zip(trials, accuracies, strict=True)]
    assert stopped == [False, *[True] * 5] * 2


def test_bayes_beats_random(tmp_path: Path) -> None:
    space = {"dropout": Parameter(low=0, high=1), "learning_rate": Parameter(low=1e-5, high=1, log=True)}

    def best(start: int) -> float:
        search = Search(spec("bayes", space, command=("--seed", str(start), "${args}")), tmp_path / str(start))
        # Seeds come with the trials' numbers: this one begins elsewhere.
        for number in range(start):
            search.study.add_trial(create_trial(state=TrialState.FAIL, user_attrs={"number": number}))
        for _ in range(40):
            trial = search.next_trial(None)
            assert trial
            dropout, rate = float(trial.params["dropout"]), float(trial.params["learning_rate"])
            search.finish(trial, 1 - (dropout - 0.3) ** 2 - (rate - 0.01) ** 2 * 100)
        return search.leaders("", 1)[0].value or 0

    assert statistics.median(best(start) for start in range(0, 500, 100)) > statistics.median(_random_bests(40))


def _random_bests(trials: int) -> list[float]:
    """The best of `trials` uniform draws, for nine seeds."""
    import numpy as np

    bests = []
    for seed in range(9):
        random = np.random.default_rng(seed)
        dropout, rate = random.uniform(0, 1, trials), 10 ** random.uniform(-5, 0, trials)
        bests.append(float((1 - (dropout - 0.3) ** 2 - (rate - 0.01) ** 2 * 100).max()))
    return bests
