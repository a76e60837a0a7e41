"""Charts of a sweep's trials, drawn as the figures of a report are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from optuna.trial import FrozenTrial

from trainer.reporting.figures import BLUE, ORANGE, WIDTH, draw_png, new_figure
from trainer.reporting.fonts import drawable_names
from trainer.sweep.search import PARAMS
from trainer.sweep.space import Parameter, Value

HEIGHT = 3.6  # inches
LOG_RATIO = 20  # of the largest value to the smallest, from which on an axis is logarithmic
ACCURACY = "validation accuracy (%)"


def draw_history(leaders: Sequence[FrozenTrial]) -> bytes:
    """PNG of the accuracy by the number of the trial, and the best so far. `leaders`: finished trials, best first."""
    from matplotlib.ticker import MaxNLocator

    figure = new_figure(WIDTH, HEIGHT)
    axes = figure.subplots()
    trials = sorted(leaders, key=lambda trial: trial.number)
    numbers, accuracies = [trial.number for trial in trials], _accuracies(trials)
    axes.plot(numbers, accuracies, "o", color=BLUE, label="a trial")
    axes.plot(
        numbers, np.maximum.accumulate(accuracies), "-", color=ORANGE, drawstyle="steps-post", label="best so far"
    )
    best = leaders[0]
    label = f"best: trial {best.number}, {best.value:.2%}"
    axes.plot([best.number], _accuracies([best]), "D", color=ORANGE, markersize=9, label=label)
    axes.set(xlabel="trial", ylabel=ACCURACY)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    figure.legend(loc="outside lower center", ncols=3)
    return draw_png(figure)


def draw_setting(name: str, parameter: Parameter, leaders: Sequence[FrozenTrial]) -> bytes:
    """PNG of the accuracy by the value of a setting, which all `leaders` have; the first one is the best."""
    import matplotlib

    values: list[Value] = [trial.user_attrs[PARAMS][name] for trial in leaders]
    is_number = not parameter.choices
    tried = [choice for choice in _ordered(parameter.choices) if choice in values]
    fonts, names = drawable_names([str(choice) for choice in tried])
    x = np.array([float(value) for value in values] if is_number else [tried.index(value) for value in values])
    accuracies = _accuracies(leaders)
    with matplotlib.rc_context({"font.family": fonts}):
        figure = new_figure(WIDTH, HEIGHT)
        axes = figure.subplots()
        axes.plot(x, accuracies, "o", color=BLUE)
        axes.plot(x[:1], accuracies[:1], "D", color=ORANGE, markersize=9)
        axes.set(xlabel=name, ylabel=ACCURACY)
        if not is_number:
            axes.set_xlim(-0.5, len(tried) - 0.5)
            long = max(map(len, names)) * len(names) > 40
            axes.set_xticks(range(len(names)), names, rotation=30 if long else 0, ha="right" if long else "center")
        elif x.min() > 0 and x.max() / x.min() > LOG_RATIO:
            axes.set_xscale("log")
        axes.grid(alpha=0.3)
        return draw_png(figure)


def draw_importance(importances: Mapping[str, float]) -> bytes:
    """PNG of each setting's share (0..1) of the difference between trials."""
    figure = new_figure(WIDTH, 1.2 + 0.4 * len(importances))
    axes = figure.subplots()
    names, shares = zip(*sorted(importances.items(), key=lambda item: item[1]), strict=True)
    bars = axes.barh(names, [100 * share for share in shares], color=BLUE)
    axes.bar_label(bars, fmt="%.0f %%", padding=3)
    axes.set(xlabel="% of the difference between trials", xlim=(0, 112))
    axes.grid(axis="x", alpha=0.3)
    return draw_png(figure)


def _accuracies(trials: Sequence[FrozenTrial]) -> list[float]:
    return [100 * trial.value for trial in trials if trial.value is not None]


def _ordered(choices: Sequence[Value]) -> list[Value]:
    """Numbers by size; other values as they stand in the sweep file."""
    numbers = [choice for choice in choices if isinstance(choice, int | float)]
    return sorted(numbers) if len(numbers) == len(choices) else list(choices)
