from __future__ import annotations

import logging
from pathlib import Path

import pytest

from trainer.sweep.driver import Driver, RunningTrial
from trainer.sweep.live_table import LiveTable
from trainer.sweep.local import LocalExecutor
from trainer.sweep.search import Search
from trainer.sweep.space import Parameter, SweepSpec

SPEC = SweepSpec(Path("s.yaml"), "grid", {"seed": Parameter(choices=(0, 1))}, ("${args}",), None, None)


class SilentProcess:
    """A trial's process that does nothing."""


def test_a_log_has_a_line_for_each_trial_and_each_epoch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    now = [100.0]
    monkeypatch.setattr("trainer.sweep.live_table.time.monotonic", lambda: now[0])
    caplog.set_level(logging.INFO, "trainer")
    with Search(SPEC, tmp_path) as search:
        driver = Driver(search, LocalExecutor(1), max_trials=None, retry_failed=False)
        table = LiveTable(search, driver, None)
        trial = search.next_trial(None)
        assert trial
        running = RunningTrial(trial, SilentProcess(), started=100.0)  # type: ignore[arg-type]
        driver.running[trial.number] = running
        table.refresh()
        table.refresh()
        seed = trial.params["seed"]
        assert caplog.messages == [f"trial 0: seed {seed}: started"]
        caplog.clear()
        now[0] = 175.0
        table.refresh()  # a trial may decode images for minutes before its first epoch
        table.refresh()
        assert caplog.messages == ["trial 0: running for 1 min 15 s"]
        caplog.clear()
        for epoch, value in enumerate((0.25, 0.5, 0.75)):
            search.report(trial, epoch, value)
            running.epochs = 12
        table.refresh()  # several epochs since the last one
        table.refresh()
        assert caplog.messages == [
            "trial 0: linear probe: 25.00%",
            "trial 0: epoch 1 of 12: 50.00%",
            "trial 0: epoch 2 of 12: 75.00%",
        ]
        caplog.clear()
        search.report(trial, 3, 0.875)
        search.finish(trial, 0.875)
        del driver.running[trial.number]
        table.refresh()
        assert caplog.messages[0] == "trial 0: epoch 3: 87.50%"
        assert caplog.messages[1].startswith(f"trial 0: seed {seed}: 87.50%")
        caplog.clear()
        LiveTable(search, driver, None).refresh()  # what an earlier sweep has logged
        assert caplog.messages == []
