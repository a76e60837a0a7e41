"""`sweep.html`: the best trials and Optuna's pictures of the search, in one file that needs no network."""

from __future__ import annotations

import base64
import io
import shlex
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna

from trainer.reporting.templates import render
from trainer.sweep.board import caution, leaderboard
from trainer.sweep.search import POINT, Search

TEMPLATE = Path(__file__).with_name("sweep.html.jinja")
AXIS = "validation accuracy"
SIZE = (10, 4)  # inches
DPI = 120


def write_page(search: Search, file: Path) -> bool:
    """Write the page of a sweep; False where there is nothing to show, as fewer than two trials have finished."""
    leaders = search.leaders()
    if len(leaders) < 2:
        return False
    options = [_dashed(option) for option in search.spec.options(leaders[0].user_attrs[POINT]) if option != "--no-save"]
    page = render(
        TEMPLATE,
        name=search.spec.name,
        finished=len(leaders),
        caution=caution(search),
        save=shlex.join(["trainer", "sweep", str(search.spec.path), "--trials=0", "--save-best"]),
        number=leaders[0].number,
        best=leaders[0].value,
        leaders=leaderboard(search),
        command=shlex.join(["trainer", "fit", *options]),
        pictures=_pictures(search),
    )
    file.write_text(page, encoding="utf-8")
    return True


def _dashed(word: str) -> str:
    """An option as the help spells it; W&B's has underscores."""
    name, equals, value = word.partition("=")
    return f"{name.replace('_', '-')}{equals}{value}" if word.startswith("--") else word


def _pictures(search: Search) -> list[tuple[str, str, str]]:
    """(title, how to read it, PNG as a data URI)"""
    import matplotlib

    matplotlib.use("Agg", force=True)  # Optuna draws with pyplot, which would look for a screen
    from optuna.visualization import matplotlib as draw

    points = [trial.user_attrs[POINT] for trial in search.leaders()]
    # Of those that may vary: few trials need not have tried two values of each.
    varied = [name for name in search.spec.varied if len({str(point[name]) for point in points}) > 1]
    drawn: list[tuple[str, str, Callable[[], Any]]] = [
        (
            "Trial by trial",
            "Each point is a trial, the line the best so far: once it stays flat, more trials help little.",
            lambda: _by_number(draw.plot_optimization_history(search.study, target_name=AXIS)),
        )
    ]
    if varied:
        drawn.append(
            (
                "Which settings went together",
                "Each line is a trial; follow the dark ones, the most accurate, from setting to setting.",
                lambda: draw.plot_parallel_coordinate(search.study, params=varied, target_name=AXIS),
            )
        )
    # One setting that varied explains all there is; with equal values there is nothing to explain.
    if len(varied) > 1 and len({trial.value for trial in search.leaders()}) > 1:
        drawn.append(
            (
                "Which settings mattered",
                "How much of the difference between trials each setting explains; from few trials, a rough estimate.",
                lambda: draw.plot_param_importances(search.study, params=varied, target_name=AXIS),
            )
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return [(title, words, _png(make())) for title, words, make in drawn]


def _by_number(axes: Any) -> Any:
    """The same axes; there is no trial between two."""
    axes.xaxis.get_major_locator().set_params(integer=True)
    return axes


def _png(axes: Any) -> str:
    """The figure of these axes as a data URI; its title is the page's."""
    from matplotlib import pyplot

    figure = axes.get_figure()
    axes.set_title("")
    axes.set_title("", loc="left")
    figure.set_size_inches(*SIZE)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI, bbox_inches="tight")
    pyplot.close(figure)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
