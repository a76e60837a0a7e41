from __future__ import annotations

import itertools
import os
import re
import statistics
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState, create_trial

from trainer.errors import InputError
from trainer.sweep.optuna_space import grid
from trainer.sweep.search import POINT, Search
from trainer.sweep.space import Hyperband, Parameter, SweepSpec

GRID = {"dropout": Parameter(choices=(0.1, 0.2, 0.3)), "optimizer": Parameter(choices=("sgd", "adam"))}


def spec(method: str = "grid", parameters: dict[str, Parameter] | None = None, **values: Any) -> SweepSpec:
    defaults: dict[str, Any] = {"hyperband": None, "run_cap": None, "command": ("${args}",)}
    return SweepSpec(Path("sweep.yaml"), method, parameters=parameters or GRID, **(defaults | values))


def run_all(search: Search, most: int | None = None) -> list[dict[str, Any]]:
    points = []
    while trial := search.claim(most):
        points.append(dict(trial.point))
        search.finish(trial, 0.5)
    return points


def run_anew(folder: Path, one: SweepSpec, most: int | None = None) -> list[dict[str, Any]]:
    """As another process does after the one before it."""
    with Search(one, folder) as search:
        return run_all(search, most)


def test_a_grid_is_run_once_and_its_first_trials_are_spread_over_it(tmp_path: Path) -> None:
    points = run_anew(tmp_path, spec(), most=3)
    assert points == [
        {"dropout": 0.1, "optimizer": "sgd"},
        {"dropout": 0.3, "optimizer": "adam"},
        {"dropout": 0.2, "optimizer": "sgd"},
    ]
    points += run_anew(tmp_path, spec())
    assert len(points) == len({str(point) for point in points}) == 6
    assert run_anew(tmp_path, spec()) == []  # the journal remembers


@pytest.mark.parametrize("counts", [(1,), (2, 2), (3, 1, 2), (4, 6, 3), (2, 9, 5)])
def test_every_point_of_a_grid_comes_once(counts: tuple[int, ...]) -> None:
    parameters = {f"p{index}": Parameter(choices=tuple(range(count))) for index, count in enumerate(counts)}
    points = [tuple(point.values()) for _, point in grid(spec(parameters=parameters))]
    assert sorted(points) == sorted(itertools.product(*(range(count) for count in counts)))
    for index, count in enumerate(counts):
        assert len({point[index] for point in points[:count]}) == count  # no value twice before each has come


def test_a_grid_too_large_for_memory_begins_spread() -> None:
    ends = 10**12
    large = Parameter(low=1, high=ends, integer=True)
    points = [point["seed"] for _, point in itertools.islice(grid(spec(parameters={"seed": large})), 3)]
    assert [round(point / ends, 2) for point in points] == [0, 0.62, 0.24]  # type: ignore[operator]


def test_the_same_sweep_is_refused_twice_with_the_process_that_runs_it(tmp_path: Path) -> None:
    with (
        Search(spec(), tmp_path) as search,
        pytest.raises(InputError, match=f"this sweep is running already, as process {os.getpid()}$"),
    ):
        Search(spec(), tmp_path)
    assert run_all(search, most=1)
    Search(spec(), tmp_path).close()


@pytest.mark.parametrize("method", ["random", "bayes"])
def test_a_small_space_is_never_run_twice(tmp_path: Path, method: str) -> None:
    points = run_anew(tmp_path, spec(method), most=100)
    assert sorted(str(point) for point in points) == sorted({str(point) for point in points})
    assert len(points) == 6


def test_most_counts_earlier_trials(tmp_path: Path) -> None:
    assert len(run_anew(tmp_path, spec(), most=2)) == 2
    assert len(run_anew(tmp_path, spec(), most=3)) == 1
    assert run_anew(tmp_path, spec(), most=0) == []


def test_a_killed_trial_is_continued_in_its_folder_once_it_has_ended(tmp_path: Path) -> None:
    with Search(spec(), tmp_path) as search:
        killed = search.claim(None)
        assert killed
        assert search.interrupted() == []  # it is at it
    with Search(spec(), tmp_path) as search:
        assert search.interrupted() == [killed]
        beside = search.claim(None, busy={killed.number})
        assert beside
        assert beside.number != killed.number
        assert search.claim(None) == killed
        assert search.interrupted() == []


@pytest.mark.parametrize("method", ["grid", "random"])
def test_a_journal_that_ends_at_any_byte_loses_no_point_and_runs_none_twice(tmp_path: Path, method: str) -> None:
    with Search(spec(method), tmp_path / "whole") as search:
        for _ in range(3):
            trial = search.claim(None)
            assert trial
            search.report(trial, 1, 0.5)
            search.finish(trial, 0.5)
        search.claim(None)
    journal = (tmp_path / "whole" / "journal.log").read_bytes()
    for end in sorted({*range(0, len(journal), 31), *(match.end() for match in re.finditer(rb"\n", journal))}):
        folder = tmp_path / str(end)
        folder.mkdir()
        (folder / "journal.log").write_bytes(journal[:end])
        with Search(spec(method), folder) as search:
            finished = len(search.leaders())
            whole_records = journal[: journal.rfind(b"\n", 0, end) + 1]
            assert finished == whole_records.count(b'"state":1,"values":[0.5]')
            points = run_all(search)
            assert len(points) == 6 - finished
            assert len({str(trial.user_attrs[POINT]) for trial in search.leaders()}) == 6


@pytest.mark.parametrize("torn", [b'{"op_code":6,"trial_id":1,"sta', b"\0" * 300, b'{"op_code":\n'])
def test_a_torn_record_is_cut_and_the_study_goes_on(
    tmp_path: Path, torn: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    first = run_anew(tmp_path, spec(), most=2)
    with (tmp_path / "journal.log").open("ab") as journal:
        journal.write(torn)
    search = Search(spec(), tmp_path)
    assert [trial.user_attrs[POINT] for trial in search.leaders()] == first
    assert caplog.messages == [
        f"{tmp_path / 'journal.log'}: {len(torn)} bytes at its end are no whole record and are cut off"
    ]
    assert len(run_all(search)) == 4
    search.close()
    assert len(Search(spec(), tmp_path).leaders()) == 6


def test_a_failure_is_run_again_only_when_asked_for(tmp_path: Path) -> None:
    search = Search(spec(), tmp_path)
    first = search.claim(1)
    assert first
    search.finish(first, None, reason="the disk is full")
    assert search.claim(1) is None
    again = search.claim(1, retry={0})
    assert again
    assert again.point == first.point
    assert again.folder != first.folder
    search.finish(again, None, reason="it still is")
    assert search.claim(1, retry={0}) is None  # once
    assert [trial.number for trial in search.open_failures()] == [again.number]
    last = search.claim(1, retry={again.number})
    assert last
    search.finish(last, 0.7)
    assert search.open_failures() == []
    assert [trial.number for trial in search.leaders()] == [last.number]


def test_leaders_are_the_best_first(tmp_path: Path) -> None:
    search = Search(spec(), tmp_path)
    for value in (0.3, 0.9, 0.6):
        trial = search.claim(None)
        assert trial
        search.finish(trial, value)
    assert [trial.value for trial in search.leaders()] == [0.9, 0.6, 0.3]


def test_hyperband_stops_what_falls_behind(tmp_path: Path) -> None:
    search = Search(spec("random", {"dropout": Parameter()}, hyperband=Hyperband(1, 2)), tmp_path)
    stopped = 0
    for index in range(12):
        trial = search.claim(None)
        assert trial
        accuracy = 0.9 if index % 3 == 0 else 0.1
        search.report(trial, 1, accuracy)  # told twice, as after an interruption
        if any(search.report(trial, epoch, accuracy) for epoch in range(1, 9)):
            stopped += 1
            search.finish(trial, None, pruned=True)
        else:
            search.finish(trial, accuracy)
    assert 1 <= stopped <= 8
    assert max(trial.value or 0 for trial in search.leaders()) == 0.9


def test_bayes_beats_random(tmp_path: Path) -> None:
    space = {"dropout": Parameter(low=0, high=1), "learning_rate": Parameter(low=1e-5, high=1, log=True)}

    def best(start: int) -> float:
        search = Search(spec("bayes", space, command=("--seed", str(start), "${args}")), tmp_path / str(start))
        # Seeds come with the trials' numbers: this one begins elsewhere.
        for number in range(start):
            search.study.add_trial(create_trial(state=TrialState.FAIL, user_attrs={"number": number}))
        for _ in range(40):
            trial = search.claim(None)
            assert trial
            dropout, rate = float(trial.point["dropout"]), float(trial.point["learning_rate"])
            search.finish(trial, 1 - (dropout - 0.3) ** 2 - (rate - 0.01) ** 2 * 100)
        return search.leaders(1)[0].value or 0

    assert statistics.median(best(start) for start in range(0, 500, 100)) > statistics.median(_random_bests(40))


def _random_bests(trials: int) -> list[float]:
    """The best of so many uniform draws, of nine seeds."""
    import numpy as np

    bests = []
    for seed in range(9):
        random = np.random.default_rng(seed)
        dropout, rate = random.uniform(0, 1, trials), 10 ** random.uniform(-5, 0, trials)
        bests.append(float((1 - (dropout - 0.3) ** 2 - (rate - 0.01) ** 2 * 100).max()))
    return bests


def test_a_folder_that_cannot_be_used_is_wrong_input(tmp_path: Path) -> None:
    (tmp_path / "journal.log").mkdir()
    with pytest.raises(InputError, match=f"{tmp_path}: cannot be used"):
        Search(spec(), tmp_path)
