"""Leaderboard of a sweep, as text: trials, their params, metrics and failures."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from optuna.trial import FrozenTrial, TrialState

from trainer.errors import ArtifactError, InputError
from trainer.runs.run_folder import read_run, result_of
from trainer.sweep.search import PARAMS, REASON, RUN, Search
from trainer.sweep.space import METRIC, SweepSpec, Value

MAX_ROWS = 10


def leaderboard(search: Search, dataset: str) -> list[tuple[str, str, str]]:
    """Trial, metric and params of the best trials on a data set."""
    return [
        (str(trial.number), format_outcome(trial), describe_trial(search.spec, trial))
        for trial in search.leaders(dataset, MAX_ROWS)
    ]


def describe_trial(spec: SweepSpec, trial: FrozenTrial) -> str:
    """The params that differ between trials, in a line; all of them where none does."""
    params = trial.user_attrs[PARAMS]
    return format_params({name: value for name, value in params.items() if name in spec.varied} or params)


def format_params(params: Mapping[str, Value]) -> str:
    """Options with their values, in a line."""
    return ", ".join(
        f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}" for name, value in params.items()
    )


def format_outcome(trial: FrozenTrial) -> str:
    """The metric of a finished trial, or its state."""
    if trial.state == TrialState.COMPLETE:
        return f"{trial.value:.2%}"
    if trial.state == TrialState.FAIL:
        return f"failed: {trial.user_attrs.get(REASON, 'interrupted')}"
    return "stopped early" if trial.state == TrialState.PRUNED else "running"


def caution(search: Search, dataset: str) -> str:
    """Confidence interval of the best trial on a data set, in a sentence; empty where its run cannot be read."""
    folder = Path(search.leaders(dataset, 1)[0].user_attrs[RUN])
    try:
        low, high = result_of(folder, read_run(folder))[f"{METRIC}_interval"]
    except (InputError, ArtifactError, KeyError):
        return ""
    return (
        f"On more images like these the best would most likely be right for {low:.1%} to {high:.1%}, and rather for "
        "less, as it was chosen on these; trials within that may be as good."
    )
