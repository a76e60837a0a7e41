"""`sweep.html`: the best trials and Optuna's charts of the search, in one file that needs no network."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna

from trainer.images.encode import data_uri
from trainer.reporting.templates import render
from trainer.sweep.leaderboard import caution, leaderboard
from trainer.sweep.search import PARAMS, Search
from trainer.text import shell_command

TEMPLATE = Path(__file__).with_name("sweep.html.jinja")
AXIS = "validation accuracy"
SIZE = (10, 4)  # inches
DPI = 120


def write_page(search: Search, file: Path) -> bool:
    """Write the page of a sweep; False where fewer than two trials have finished, and there is nothing to compare."""
    leaders = search.leaders()
    if len(leaders) < 2:
        return False
    options = search.spec.options(leaders[0].user_attrs[PARAMS])
    page = render(
        TEMPLATE,
        name=search.spec.name,
        finished=len(leaders),
        caution=caution(search),
        save=shell_command(["trainer", "sweep", str(search.spec.path), "--trials=0", "--save-best"]),
        number=leaders[0].number,
        best=leaders[0].value,
        leaders=leaderboard(search),
        command=shell_command(
            ["trainer", "fit", *(_with_dashes(option) for option in options if option != "--no-save")]
        ),
        charts=_charts(search),
    )
    file.write_text(page, encoding="utf-8")
    return True


def _with_dashes(word: str) -> str:
    """An option as the help spells it; W&B's have underscores."""
    name, equals, value = word.partition("=")
    return f"{name.replace('_', '-')}{equals}{value}" if word.startswith("--") else word


def _charts(search: Search) -> list[tuple[str, str, str]]:
    """(title, explanation, PNG as a data URI) of each chart"""
    import matplotlib

    matplotlib.use("Agg", force=True)  # Optuna draws with pyplot, which needs a screen otherwise
    from optuna.visualization import matplotlib as draw

    tried = [trial.user_attrs[PARAMS] for trial in search.leaders()]
    # Few trials need not have tried two values of each parameter.
    varied = [name for name in search.spec.varied if len({str(params[name]) for params in tried}) > 1]
    charts: list[tuple[str, str, Callable[[], Any]]] = [
        (
            "Trial by trial",
            "Each point is a trial, the line the best so far: once it stays flat, more trials help little.",
            lambda: _by_number(draw.plot_optimization_history(search.study, target_name=AXIS)),
        )
    ]
    if varied:
        charts.append(
            (
                "Which settings went together",
                "Each line is a trial; follow the dark ones, the most accurate, from setting to setting.",
                lambda: draw.plot_parallel_coordinate(search.study, params=varied, target_name=AXIS),
            )
        )
    # A single parameter explains everything, and equal accuracies leave nothing to explain.
    if len(varied) > 1 and len({trial.value for trial in search.leaders()}) > 1:
        charts.append(
            (
                "Which settings mattered",
                "How much of the difference between trials each setting explains; from few trials, a rough estimate.",
                lambda: draw.plot_param_importances(search.study, params=varied, target_name=AXIS),
            )
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return [(title, explanation, _png(draw_chart())) for title, explanation, draw_chart in charts]


def _by_number(axes: Any) -> Any:
    """The same axes, with ticks at whole trial numbers."""
    axes.xaxis.get_major_locator().set_params(integer=True)
    return axes


def _png(axes: Any) -> str:
    """Figure of the axes as a data URI, without its title, which the page has."""
    from matplotlib import pyplot

    figure = axes.get_figure()
    axes.set_title("")
    axes.set_title("", loc="left")
    figure.set_size_inches(*SIZE)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI, bbox_inches="tight")
    pyplot.close(figure)
    return data_uri(buffer.getvalue())
