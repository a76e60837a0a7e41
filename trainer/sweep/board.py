"""What a sweep shows while it runs and at its end: a live table, or lines in a log, and a leaderboard."""

from __future__ import annotations

import logging
import statistics
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from trainer.errors import ArtifactError, InputError
from trainer.runs.run_folder import read_run, result_of
from trainer.sweep.driver import Driver
from trainer.sweep.search import POINT, REASON, RUN, Search
from trainer.sweep.space import METRIC, SweepSpec, Value
from trainer.training.throughput import spoken

log = logging.getLogger("trainer")

LEADERS = 10
ROWS = 20  # of the live table


class Board:
    """Follows the trials of a sweep: a table that is redrawn on a terminal, a line for each trial in a log."""

    def __init__(self, search: Search, driver: Driver, most: int | None) -> None:
        self._search = search
        self._driver = driver
        self._most = most if most is not None else search.spec.points()
        self._started: set[int] = set()
        self._told = {trial.number for trial in search.trials() if trial.state.is_finished()}
        self._live: Any = None

    @contextmanager
    def shown(self) -> Iterator[Board]:
        """While it lasts, `refresh` draws."""
        if not sys.stderr.isatty():
            yield self
            return
        from rich.console import Console
        from rich.live import Live

        with Live(console=Console(stderr=True), auto_refresh=False) as self._live:
            yield self

    def refresh(self) -> None:
        trials = self._search.trials()
        if self._live is not None:
            self._live.update(self._table(trials), refresh=True)
            return
        for trial in trials:
            if trial.state.is_finished() and trial.number not in self._told:
                self._told.add(trial.number)
                log.info(
                    "trial %d: %s: %s%s",
                    trial.number,
                    described(self._search.spec, trial.user_attrs[POINT]),
                    outcome(trial),
                    self._time_left(trials),
                )
        for number, running in self._driver.running.items():
            if number not in self._started:
                self._started.add(number)
                log.info("trial %d: %s: started", number, described(self._search.spec, running.trial.point))

    def _table(self, trials: list[FrozenTrial]) -> Any:
        from rich.table import Table

        table = Table(title=f"{self._search.spec.name}{self._time_left(trials)}", title_justify="left")
        for column in ("trial", "parameters", "epoch", METRIC, "best so far"):
            table.add_column(column, justify="left" if column == "parameters" else "right")
        best: float | None = None
        rows = []
        for trial in trials:
            running = self._driver.running.get(trial.number)
            if trial.state == TrialState.COMPLETE and trial.value is not None:
                best = trial.value if best is None else max(best, trial.value)
            epoch = str(running.epoch) if running else ""
            value = f"{running.value:.2%}" if running and running.value is not None else outcome(trial)
            rows.append(
                (
                    str(trial.number),
                    described(self._search.spec, trial.user_attrs[POINT]),
                    epoch,
                    value,
                    "" if best is None else f"{best:.2%}",
                )
            )
        for row in rows[-ROWS:]:
            table.add_row(*row)
        return table

    def _time_left(self, trials: list[FrozenTrial]) -> str:
        done = [one.duration.total_seconds() for one in trials if one.duration and one.state == TrialState.COMPLETE]
        left = (self._most or 0) - sum(trial.state.is_finished() for trial in trials)
        if not done or left <= 0:
            return ""
        each = statistics.mean(done)
        now = time.monotonic()
        running = [max(0.0, each - (now - one.started)) for one in self._driver.running.values()]
        seconds = (sum(running) + each * max(0, left - len(running))) / max(1, min(left, self._driver.room))
        return f", about {spoken(seconds)} left" if seconds >= 1 else ""


def leaderboard(search: Search) -> list[tuple[str, str, str]]:
    """Trial, metric and parameters of the best trials."""
    return [
        (str(one.number), outcome(one), described(search.spec, one.user_attrs[POINT]))
        for one in search.leaders()[:LEADERS]
    ]


def described(spec: SweepSpec, point: Mapping[str, Value]) -> str:
    """What tells a trial from the others, in a line."""
    return in_a_line({name: value for name, value in point.items() if name in spec.varied} or point)


def in_a_line(values: Mapping[str, Value]) -> str:
    """Options with their values."""
    return ", ".join(
        f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}" for name, value in values.items()
    )


def outcome(trial: FrozenTrial) -> str:
    if trial.state == TrialState.COMPLETE:
        return f"{trial.value:.2%}"
    if trial.state == TrialState.FAIL:
        return f"failed: {trial.user_attrs.get(REASON, 'interrupted')}"
    return "stopped early" if trial.state == TrialState.PRUNED else "running"


def caution(search: Search) -> str:
    """How much the order of the trials can be trusted; empty where that is not known, as the folder is gone."""
    folder = Path(search.leaders()[0].user_attrs[RUN])
    try:
        low, high = result_of(folder, read_run(folder))[f"{METRIC}_interval"]
    except (InputError, ArtifactError, KeyError):
        return ""
    return (
        f"On more images like these the best would most likely be right for {low:.1%} to {high:.1%}, and rather for "
        "less, as it was chosen on these; trials within that may be as good."
    )
