"""Progress of a sweep while it runs: a table that is redrawn on a terminal, log lines elsewhere."""

from __future__ import annotations

import logging
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from trainer.console import format_duration
from trainer.data.progress import LogThrottle
from trainer.sweep.driver import Driver, RunningTrial
from trainer.sweep.leaderboard import describe_trial, format_outcome
from trainer.sweep.search import PARAMS, Search
from trainer.sweep.space import METRIC
from trainer.text import printable

log = logging.getLogger("trainer")

MAX_ROWS = 20


class LiveTable:
    """Follows the trials of a sweep; `max_trials` None: all combinations."""

    def __init__(self, search: Search, driver: Driver, max_trials: int | None) -> None:
        self._search = search
        self._driver = driver
        self._max_trials = max_trials if max_trials is not None else search.spec.count()
        self._throttle = LogThrottle()
        self._logged_starts: set[int] = set()
        earlier = search.trials()
        self._logged_epochs = {trial.number: set(trial.intermediate_values) for trial in earlier}
        self._logged_ends = {trial.number for trial in earlier if trial.state.is_finished()}
        self._live: Any = None  # rich.live.Live on a terminal

    @contextmanager
    def shown(self) -> Iterator[LiveTable]:
        """Context in which `refresh` draws."""
        if not sys.stderr.isatty():
            yield self
            return
        from rich.console import Console
        from rich.live import Live

        with Live(console=Console(stderr=True), auto_refresh=False) as self._live:
            yield self

    def refresh(self) -> None:
        """Redraw the table, or log the trials that have started, their epochs, and the trials that have ended."""
        trials = self._search.trials()
        if self._live is not None:
            self._live.update(self._table(trials), refresh=True)
            return
        for trial in trials:
            self._log(trial, trials)
        if self._throttle.is_due():
            for number, running in self._driver.running.items():
                log.info("trial %d: %s", number, _running_for(running))

    def _log(self, trial: FrozenTrial, trials: list[FrozenTrial]) -> None:
        """Log what is new about a trial."""
        lines = []
        running = self._driver.running.get(trial.number)
        if running and trial.number not in self._logged_starts:
            self._logged_starts.add(trial.number)
            lines.append(f"{describe_trial(self._search.spec, trial)}: started")
        logged = self._logged_epochs.setdefault(trial.number, set())
        for epoch, value in trial.intermediate_values.items():
            if epoch not in logged:
                logged.add(epoch)
                lines.append(f"{_format_epoch(epoch, running)}: {value:.2%}")
        if trial.state.is_finished() and trial.number not in self._logged_ends:
            self._logged_ends.add(trial.number)
            described = describe_trial(self._search.spec, trial)
            lines.append(f"{described}: {format_outcome(trial)}{self._time_left(trials)}")
        for line in lines:
            log.info("trial %d: %s", trial.number, line)
            self._throttle.skip()

    def _table(self, trials: list[FrozenTrial]) -> Any:
        from rich.table import Table
        from rich.text import Text

        title = Text(printable(f"{self._search.spec.name}{self._time_left(trials)}"))
        table = Table(title=title, title_justify="left")
        for column in ("trial", "parameters", "progress", METRIC, "best so far"):
            table.add_column(column, justify="left" if column == "parameters" else "right")
        best: dict[str, float] = {}  # by data set
        rows = []
        for trial in trials:
            running = self._driver.running.get(trial.number)
            dataset = self._search.spec.dataset_of(trial.user_attrs[PARAMS])
            if trial.state == TrialState.COMPLETE and trial.value is not None:
                best[dataset] = max(trial.value, best.get(dataset, trial.value))
            rows.append(
                (
                    str(trial.number),
                    describe_trial(self._search.spec, trial),
                    _format_epoch(running.epoch, running) if running and running.value is not None else "",
                    _running_outcome(running) if running else format_outcome(trial),
                    f"{best[dataset]:.2%}" if dataset in best else "",
                )
            )
        for row in rows[-MAX_ROWS:]:
            table.add_row(*(Text(printable(cell)) for cell in row))  # a str would be read as Rich's markup
        return table

    def _time_left(self, trials: list[FrozenTrial]) -> str:
        complete = (trial for trial in trials if trial.state == TrialState.COMPLETE)
        durations = [trial.duration.total_seconds() for trial in complete if trial.duration]
        left = (self._max_trials or 0) - sum(trial.state.is_finished() for trial in trials)
        if not durations or left <= 0:
            return ""
        mean = statistics.mean(durations)
        now = time.monotonic()
        running = [max(0.0, mean - (now - one.started)) for one in self._driver.running.values()]
        seconds = (sum(running) + mean * max(0, left - len(running))) / max(1, min(left, self._driver.slots))
        return f", about {format_duration(seconds)} left" if seconds >= 1 else ""


def _format_epoch(epoch: int, running: RunningTrial | None) -> str:
    if epoch == 0:
        return "linear probe"
    return f"epoch {epoch}" + (f" of {running.epochs}" if running and running.epochs else "")


def _running_outcome(running: RunningTrial) -> str:
    """Metric of the last epoch; before the first one, the time since the start."""
    return _running_for(running) if running.value is None else f"{running.value:.2%}"


def _running_for(running: RunningTrial) -> str:
    return f"running for {format_duration(time.monotonic() - running.started)}"
