"""The driver with an executor whose trials end as they are told to."""

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

Ends = Callable[[int, int], Outcome]  # of a trial's number, and which start of it this is


class Scripted:
    """A training that tells its epochs and ends."""

    def __init__(self, place: str, values: Iterable[float], outcome: Outcome) -> None:
        self.place, self.outcome, self._values = place, outcome, values
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

    def __init__(self, ends: Ends, places: Sequence[str] = ("a",)) -> None:
        self._ends, self.places = ends, list(places)
        self.starts: list[int] = []

    def room(self) -> int:
        return len(self.places)

    def start(self, trial: Trial, options: Sequence[str]) -> Scripted:
        outcome = self._ends(trial.number, self.starts.count(trial.number))
        self.starts.append(trial.number)
        return Scripted(self.places[trial.number % len(self.places)], [0.5], outcome)

    def busy(self, trials: Iterable[Trial]) -> set[int]:
        return set()

    def give_up(self, place: str) -> None:
        self.places.remove(place)


def search(folder: Path, points: int = 12, **values: Any) -> Search:
    parameters = {"seed": Parameter(choices=tuple(range(points)))}
    defaults: dict[str, Any] = {"hyperband": None, "run_cap": None, "command": ("${args}",)}
    return Search(SweepSpec(Path("sweep.yaml"), "grid", parameters=parameters, **(defaults | values)), folder)


def run(one: Search, executor: ScriptedExecutor) -> None:
    Driver(one, executor, most=None, retry_failed=False).run(lambda: None)


def done(number: int) -> Outcome:
    return Outcome({"val_accuracy": number / 100})


def test_every_trial_is_run_once(tmp_path: Path) -> None:
    one, executor = search(tmp_path), ScriptedExecutor(lambda number, _: done(number), ("a", "b", "c"))
    run(one, executor)
    assert sorted(executor.starts) == list(range(12))
    assert [trial.number for trial in one.leaders(2)] == [11, 10]


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
    assert len(one.leaders()) == 11


def test_three_failures_in_a_row_end_a_place_and_the_last_place_the_sweep(tmp_path: Path) -> None:
    one, executor = search(tmp_path), ScriptedExecutor(lambda *_: Outcome(reason="the disk is full"))
    with pytest.raises(RunError, match="3 failures in a row; the last: the disk is full"):
        run(one, executor)
    assert executor.places == []
    assert len(executor.starts) == 3


def test_nine_failures_in_a_row_are_the_trials_own_fault(tmp_path: Path) -> None:
    places = [str(number) for number in range(10)]
    executor = ScriptedExecutor(lambda *_: Outcome(reason="--epochs: no", is_input=True), places)
    with pytest.raises(InputError, match="9 trials in a row have failed; the last: --epochs: no"):
        run(search(tmp_path, 40), executor)
    assert len(executor.starts) < 25


def test_what_falls_behind_is_stopped_for_good(tmp_path: Path) -> None:
    one = search(tmp_path, 40, hyperband=Hyperband(1, 2))
    executor = ScriptedExecutor(lambda number, _: done(number))
    executor.start = lambda trial, options: Scripted(  # type: ignore[method-assign]
        "a", [0.9 if trial.number % 3 == 0 else 0.1] * 9, done(trial.number)
    )
    run(one, executor)
    states = [trial.state for trial in one.trials()]
    assert TrialState.PRUNED in states
    assert one.leaders(1)[0].intermediate_values[9] == 0.9


def test_an_error_of_the_board_stops_the_trainings_and_their_trials_stay_open(tmp_path: Path) -> None:
    one, executor = search(tmp_path), ScriptedExecutor(lambda number, _: done(number))
    endless = Scripted("a", itertools.repeat(0.5), done(0))
    executor.start = lambda trial, options: endless  # type: ignore[method-assign]

    def refuse() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Driver(one, executor, most=None, retry_failed=False).run(refuse)
    assert endless.is_stopped
    assert [trial.state for trial in one.trials()] == [TrialState.RUNNING]
