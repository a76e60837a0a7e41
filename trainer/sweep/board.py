"""What a sweep shows: a live table, a leaderboard, and pictures in one file."""

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

from trainer.sweep.agents import Agents
from trainer.sweep.search import POINT, REASON, Search
from trainer.sweep.sweep_file import METRIC

log = logging.getLogger("trainer")

LEADERS = 10
ROWS = 20  # of the live table


class Board:
    """Follows the trials of a sweep: a table that is redrawn on a terminal, a line for each trial in a log."""

    def __init__(self, search: Search, agents: Agents, most: int | None) -> None:
        self._search = search
        self._agents = agents
        self._most = most if most is not None else search.spec.points()
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
                log.info("trial %d: %s: %s%s", trial.number, described(trial), outcome(trial), self._time_left(trials))

    def _table(self, trials: list[FrozenTrial]) -> Any:
        from rich.table import Table

        table = Table(title=f"{self._search.spec.name}{self._time_left(trials)}", title_justify="left")
        for column in ("trial", "parameters", "epoch", METRIC, "best so far"):
            table.add_column(column, justify="left" if column == "parameters" else "right")
        best: float | None = None
        rows = []
        for trial in trials:
            running = self._agents.running.get(trial.number)
            if trial.state == TrialState.COMPLETE and trial.value is not None:
                best = trial.value if best is None else max(best, trial.value)
            epoch = str(running.epoch) if running else ""
            value = f"{running.value:.2%}" if running and running.value is not None else outcome(trial)
            rows.append((str(trial.number), described(trial), epoch, value, "" if best is None else f"{best:.2%}"))
        for row in rows[-ROWS:]:
            table.add_row(*row)
        return table

    def _time_left(self, trials: list[FrozenTrial]) -> str:
        done = [one.duration.total_seconds() for one in trials if one.duration and one.state == TrialState.COMPLETE]
        left = (self._most or 0) - len([trial for trial in trials if trial.state.is_finished()])
        if not done or left <= 0:
            return ""
        seconds = statistics.mean(done) * left / max(1, len(self._agents.running))
        return f", about {time.strftime('%H:%M:%S', time.gmtime(seconds))} left"


def leaderboard(search: Search) -> list[tuple[str, str, str]]:
    """Trial, metric and parameters of the best trials."""
    return [(str(one.number), outcome(one), described(one)) for one in search.leaders()[:LEADERS]]


def described(trial: FrozenTrial) -> str:
    """Its point, in a line."""
    point: Mapping[str, Any] = trial.user_attrs[POINT]
    return ", ".join(
        f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}" for name, value in point.items()
    )


def outcome(trial: FrozenTrial) -> str:
    if trial.state == TrialState.COMPLETE:
        return f"{trial.value:.2%}"
    if trial.state == TrialState.FAIL:
        return f"failed: {trial.user_attrs.get(REASON, 'interrupted')}"
    return "stopped early" if trial.state == TrialState.PRUNED else "running"


def write_pictures(search: Search, file: Path) -> bool:
    """Optuna's pictures of the search, in one HTML file that needs no network; False where there is nothing to show."""
    from optuna import visualization

    if len(search.leaders()) < 2:
        return False
    varied = [name for name, parameter in search.spec.parameters.items() if len(parameter.choices) != 1]
    figures = [visualization.plot_optimization_history(search.study)]
    if varied:
        figures.append(visualization.plot_parallel_coordinate(search.study, params=varied))
    # With equal values there is no variance to explain.
    if varied and len({trial.value for trial in search.leaders()}) > 1:
        figures.append(visualization.plot_param_importances(search.study, params=varied))
    parts = [figure.to_html(full_html=False, include_plotlyjs=index == 0) for index, figure in enumerate(figures)]
    head = f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{search.spec.name}</title>'
    file.write_text(head + "".join(parts), encoding="utf-8")
    return True
