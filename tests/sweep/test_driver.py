"""Driver with an executor whose trials end as the test says."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState

from trainer.errors import InputError, RunError
from trainer.sweep.driver import Driver
from trainer.sweep.executor import Outcome
from trainer.sweep.search import REASON, Search, Trial
from trainer.sweep.space import Hyperband, Parameter, SweepSpec

Ends = Callable[[int, int], Outcome]  # trial number, starts before this one → its outcome


class ScriptedTrial:
    """A trial with given accuracies and outcome."""

    def __init__(self, worker: str, values: Iterable[float], outcome: Outcome) -> None:
        self.worker, self.outcome, self._values = worker, outcome, values
        self.is_stopped = False

    def events(self) -> Iterator[dict[str, Any]]:
        for epoch, value in enumerate(self._values, 1):
            if self.is_stopped:
                self.outcome = Outcome(reason="stopped")
                return
            yield {"epoch": epoch, "val_accuracy": value}
            time.sleep(0.005)

    def stop(self, *, for_good: bool = False) -> None:
        self.is_stopped = True


class ScriptedExecutor:
    keeps_folders = True

    def __init__(self, ends: Ends, workers: Sequence[str] = ("a",)) -> None:
        self._ends, self.workers = ends, list(workers)
        self.starts: list[int] = []

    def slots(self) -> int:
        return len(self.workers)

    def start(self, trial: Trial, options: Sequence[str]) -> ScriptedTrial:
        outcome = self._ends(trial.number, self.starts.count(trial.number))
        self.starts.append(trial.number)
        return ScriptedTrial(self.workers[trial.number % len(self.workers)], [0.5], outcome)

    def still_running(self, trials: Iterable[Trial]) -> set[int]:
        return set()

    def exclude(self, worker: str) -> None:
        self.workers.remove(worker)


def search(folder: Path, params: int = 12, **values: Any) -> Search:
    defaults: dict[str, Any] = {
        "parameters": {"seed": Parameter(choices=tuple(range(params)))},
        "hyperband": None,
        "run_cap": None,
        "command": ("--dataset=images", "--no-save", "${args}"),
    }
    return Search(SweepSpec(Path("sweep.yaml"), "grid", **(defaults | values)), folder)


def run(one: Search, executor: ScriptedExecutor) -> None:
    Driver(one, executor, max_trials=None, retry_failed=False).run(lambda: None)


def done(number: int) -> Outcome:
    return Outcome({"val_accuracy": number / 100})


def test_every_trial_is_run_once(tmp_path: Path) -> None:
    one, executor = search(tmp_path), ScriptedExecutor(lambda number, _: done(number), ("a", "b", "c"))
    run(one, executor)
    assert sorted(executor.starts) == list(range(12))
    assert [trial.number for trial in one.leaders("", 2)] == [11, 10]


def test_a_lost_trial_is_run_again_and_fails_after_three_losses(tmp_path: Path) -> None:
    lost = Outcome(reason="node x was lost", lost=True)
    one = search(tmp_path)
    executor = ScriptedExecutor(lambda number, start: lost if number == 5 or (number == 2 and not start) else done(1))
    run(one, executor)
    assert executor.starts.count(2) == 2
    assert executor.starts.count(5) == 3
    (failure,) = one.open_failures()
    assert failure.number == 5
    assert failure.user_attrs[REASON] == "lost 3 times, the last time as node x was lost"
    assert len(one.leaders("")) == 11


def test_three_failures_in_a_row_exclude_a_worker_and_without_workers_the_sweep_ends(tmp_path: Path) -> None:
    one, executor = search(tmp_path), ScriptedExecutor(lambda *_: Outcome(reason="the disk is full"))
    with pytest.raises(RunError, match="3 failures in a row; the last: the disk is full"):
        run(one, executor)
    assert executor.workers == []
    assert len(executor.starts) == 3


def test_wrong_params_do_not_exclude_the_worker(tmp_path: Path) -> None:
    wrong = Outcome(reason="--weights none: …", is_input=True)
    one, executor = search(tmp_path), ScriptedExecutor(lambda number, _: wrong if number < 5 else done(number))
    run(one, executor)
    assert executor.workers == ["a"]
    assert len(one.leaders("")) == 12 - 5


def test_nine_failures_in_a_row_end_the_sweep(tmp_path: Path) -> None:
    workers = [str(number) for number in range(10)]
    executor = ScriptedExecutor(lambda *_: Outcome(reason="--epochs: no", is_input=True), workers)
    with pytest.raises(InputError, match="9 trials in a row have failed; the last: --epochs: no"):
        run(search(tmp_path, 40), executor)
    assert len(executor.starts) < 25


def test_a_trial_that_falls_behind_is_stopped_for_good(tmp_path: Path) -> None:
    one = search(tmp_path, 40, hyperband=Hyperband(1, 2))
    executor = ScriptedExecutor(lambda number, _: done(number))
    executor.start = lambda trial, options: ScriptedTrial(  # type: ignore[method-assign]
        "a", [0.9 if trial.number % 3 == 0 else 0.1] * 9, done(trial.number)
    )
    run(one, executor)
    states = [trial.state for trial in one.trials()]
    assert TrialState.PRUNED in states
    assert one.leaders("", 1)[0].intermediate_values[9] == 0.9


def test_an_error_of_the_display_stops_the_trials_and_they_stay_open(tmp_path: Path) -> None:
    one, executor = search(tmp_path), ScriptedExecutor(lambda number, _: done(number))
    endless = ScriptedTrial("a", itertools.repeat(0.5), done(0))
    executor.start = lambda trial, options: endless  # type: ignore[method-assign]

    def refuse() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Driver(one, executor, max_trials=None, retry_failed=False).run(refuse)
    assert endless.is_stopped
    assert [trial.state for trial in one.trials()] == [TrialState.RUNNING]


def test_the_best_trials_of_each_data_set_keep_their_checkpoints(tmp_path: Path) -> None:
    parameters = {"dataset": Parameter(choices=("easy", "hard")), "seed": Parameter(choices=tuple(range(5)))}
    one = search(tmp_path, parameters=parameters, datasets=("easy", "hard"), command=("--no-save", "${args}"))
    accuracies: dict[int, float] = {}

    class Keeping(ScriptedExecutor):
        def start(self, trial: Trial, options: Sequence[str]) -> ScriptedTrial:
            assert options[-1] == "--keep-checkpoints"
            (trial.folder / "checkpoints").mkdir()
            accuracies[trial.number] = (trial.params["dataset"] == "easy") / 2 + int(trial.params["seed"]) / 10
            self._ends = lambda number, _: Outcome({"val_accuracy": accuracies[number]})
            return super().start(trial, options)

    run(one, Keeping(lambda number, _: done(number)))
    kept = [number for number in accuracies if (tmp_path / f"trial-{number:04d}" / "checkpoints").exists()]
    assert sorted(accuracies[number] for number in kept) == pytest.approx([0.2, 0.3, 0.4, 0.7, 0.8, 0.9])
