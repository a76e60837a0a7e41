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
    """Write the page of a sweep; False where no data set has two finished trials to compare."""
    sections = [_section(search, dataset) for dataset in search.datasets()]
    if not any(section["charts"] for section in sections):
        return False
    page = render(
        TEMPLATE,
        name=search.spec.name,
        save=shell_command(["trainer", "sweep", str(search.spec.path), "--trials=0", "--save-best"]),
        sections=sections,
    )
    file.write_text(page, encoding="utf-8")
    return True


def _section(search: Search, dataset: str) -> dict[str, Any]:
    """Values of the template for the trials on one data set."""
    leaders = search.leaders(dataset)
    options = [option for option in search.spec.options(leaders[0].user_attrs[PARAMS]) if option != "--no-save"]
    return {
        "dataset": dataset,
        "finished": len(leaders),
        "caution": caution(search, dataset),
        "number": leaders[0].number,
        "best": leaders[0].value,
        "leaders": leaderboard(search, dataset),
        "command": shell_command(["trainer", "fit", *map(_with_dashes, options)]),
        "charts": _charts(search, dataset) if len(leaders) > 1 else [],
    }


def _with_dashes(word: str) -> str:
    """An option as the help spells it; W&B's have underscores."""
    name, equals, value = word.partition("=")
    return f"{name.replace('_', '-')}{equals}{value}" if word.startswith("--") else word


def _charts(search: Search, dataset: str) -> list[tuple[str, str, str]]:
    """(title, explanation, PNG as a data URI) of each chart"""
    import matplotlib

    matplotlib.use("Agg", force=True)  # Optuna draws with pyplot, which needs a screen otherwise
    from optuna.visualization import matplotlib as draw

    study, leaders = _study_of(search, dataset), search.leaders(dataset)
    tried = [trial.user_attrs[PARAMS] for trial in leaders]
    # Few trials need not have tried two values of each parameter.
    varied = [name for name in search.spec.varied if len({str(params[name]) for params in tried}) > 1]
    charts: list[tuple[str, str, Callable[[], Any]]] = [
        (
            "Trial by trial",
            "Each point is a trial, the line the best so far: once it stays flat, more trials help little.",
            lambda: _by_number(draw.plot_optimization_history(study, target_name=AXIS)),
        )
    ]
    if varied:
        charts.append(
            (
                "Which settings went together",
                "Each line is a trial; follow the dark ones, the most accurate, from setting to setting.",
                lambda: draw.plot_parallel_coordinate(study, params=varied, target_name=AXIS),
            )
        )
    # A single parameter explains everything, and equal accuracies leave nothing to explain.
    if len(varied) > 1 and len({trial.value for trial in leaders}) > 1:
        charts.append(
            (
                "Which settings mattered",
                "How much of the difference between trials each setting explains; from few trials, a rough estimate.",
                lambda: draw.plot_param_importances(study, params=varied, target_name=AXIS),
            )
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return [(title, explanation, _png(draw_chart())) for title, explanation, draw_chart in charts]


def _study_of(search: Search, dataset: str) -> optuna.Study:
    """The search with the trials of one data set; the others count as failed, so that each keeps its number."""
    if len(search.datasets()) == 1:
        return search.study
    study = optuna.create_study(direction="maximize")
    for trial in search.study.get_trials(deepcopy=False):
        own = search.spec.dataset_of(trial.user_attrs.get(PARAMS, {})) == dataset
        study.add_trial(trial if own else optuna.trial.create_trial(state=optuna.trial.TrialState.FAIL))
    return study


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
