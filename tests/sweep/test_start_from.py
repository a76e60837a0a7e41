from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from trainer.errors import InputError
from trainer.sweep.search import Search
from trainer.sweep.space import Parameter, SweepSpec
from trainer.sweep.start_from import earlier_trials

RATE = Parameter(low=1e-4, high=1e-1, log=True)


def spec(high: float = 1e-1, **values: Any) -> SweepSpec:
    parameters = {"learning_rate": replace(RATE, high=high), "epochs": Parameter(choices=(5,))}
    one = SweepSpec(Path("s.yaml"), "bayes", parameters, ("--no-save", "${args}"), None, None, data=("images",))
    return replace(one, **values)


def value_of(rate: float) -> float:
    return 1 - 10 * abs(rate - 0.003)


def run(search: Search, count: int) -> list[float]:
    rates = []
    for _ in range(count):
        trial = search.next_trial(None)
        assert trial
        rates.append(float(trial.params["learning_rate"]))
        search.finish(trial, value_of(rates[-1]))
    return rates


def test_a_new_sweep_learns_from_an_earlier_one_on_the_same_data(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with Search(spec(), tmp_path / "sweep-old") as old:
        rates = run(old, 20)
        journal = (tmp_path / "sweep-old" / "journal.log").read_bytes()
        (tmp_path / "sweep-old" / "journal.log").write_bytes(journal + b'{"torn')  # it is running
        caplog.set_level("INFO")
        narrow = spec(high=1e-2)
        for root in (tmp_path, tmp_path / "sweep-old"):
            earlier = earlier_trials(narrow, root)
            assert [trial.params["learning_rate"] for trial in earlier] == [rate for rate in rates if rate <= 1e-2]
        left = sum(rate > 1e-2 for rate in rates)
        assert 0 < left < 20
        assert [re.findall(r"\d+", message) for message in caplog.messages[:1]] == [[str(20 - left), str(left)]]
        assert (tmp_path / "sweep-old" / "journal.log").read_bytes() == journal + b'{"torn'
    with Search(narrow, tmp_path / "sweep-new", earlier) as new, Search(narrow, tmp_path / "sweep-cold") as cold:
        warm, without = (min(abs(rate - 0.003) for rate in run(one, 6)) for one in (new, cold))
        assert warm < without
        assert len(new.trials()) == 6  # those of the old one are no trials of this one
        assert new.leaders("", 1)[0].number < 6


def test_trials_on_other_data_or_with_another_command_are_left_out(tmp_path: Path) -> None:
    with Search(spec(), tmp_path / "sweep-old") as old:
        run(old, 3)
    assert len(earlier_trials(spec(high=1.0), tmp_path)) == 3
    for other in ({"data": ("other images",)}, {"command": ("--fine-tune=none", "${args}")}):
        assert earlier_trials(spec(**other), tmp_path) == []


def test_start_from_a_folder_without_sweeps_or_by_a_random_sweep_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"--start-from: .* is no folder of a sweep, and has none in it"):
        earlier_trials(spec(), tmp_path)
    with pytest.raises(InputError, match=r"--start-from: s.yaml has `method: random`; only `bayes` learns"):
        earlier_trials(spec(method="random"), tmp_path)
