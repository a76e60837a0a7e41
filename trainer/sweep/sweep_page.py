"""`sweep.html`: the best trials and charts of the search, in one file that needs no network."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import optuna

from trainer.files import write_text
from trainer.images.encode import data_uri
from trainer.reporting.templates import render
from trainer.sweep.leaderboard import caution, describe_trial, leaderboard
from trainer.sweep.search import PARAMS, Search
from trainer.sweep.sweep_charts import draw_history, draw_importance, draw_setting
from trainer.text import shell_command

TEMPLATE = Path(__file__).with_name("sweep.html.jinja")


def write_page(search: Search, file: Path) -> bool:
    """Write the page of a sweep; False where no data set has two finished trials to compare."""
    sections = [_section(search, dataset) for dataset in search.datasets()]
    if not any(section["history"] for section in sections):
        return False
    page = render(
        TEMPLATE,
        name=search.spec.name,
        save=shell_command(["trainer", "sweep", str(search.spec.path), "--trials=0", "--save-best"]),
        sections=sections,
    )
    write_text(file, page)
    return True


def _section(search: Search, dataset: str) -> dict[str, Any]:
    """Values of the template for the trials on one data set; those of charts are empty with a single trial."""
    spec, leaders = search.spec, search.leaders(dataset)
    options = [option for option in spec.options(leaders[0].user_attrs[PARAMS]) if option != "--no-save"]
    tried = [trial.user_attrs[PARAMS] for trial in leaders]
    # Few trials need not have tried two values of each parameter.
    varied = [name for name in spec.varied if len({str(params[name]) for params in tried}) > 1]
    # A single parameter explains everything, and equal accuracies leave nothing to explain.
    explains = len(varied) > 1 and len({trial.value for trial in leaders}) > 1
    return {
        "dataset": dataset,
        "finished": len(leaders),
        "caution": caution(search, dataset),
        "number": leaders[0].number,
        "best": leaders[0].value,
        "settings": describe_trial(spec, leaders[0]),
        "leaders": leaderboard(search, dataset),
        "command": shell_command(["trainer", "fit", *map(_with_dashes, options)]),
        "history": data_uri(draw_history(leaders)) if len(leaders) > 1 else "",
        "importance": data_uri(draw_importance(_importances(search, dataset, varied))) if explains else "",
        "charts": {name: data_uri(draw_setting(name, spec.parameters[name], leaders)) for name in varied},
    }


def _with_dashes(word: str) -> str:
    """An option as the help spells it; W&B's have underscores."""
    name, equals, value = word.partition("=")
    return f"{name.replace('_', '-')}{equals}{value}" if word.startswith("--") else word


def _importances(search: Search, dataset: str, varied: list[str]) -> dict[str, float]:
    """Share (0..1) of the difference between the trials on a data set that each of the `varied` parameters explains."""
    study = search.study
    if len(search.datasets()) > 1:
        study = optuna.create_study(direction="maximize")
        study.add_trials(search.leaders(dataset))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return optuna.importance.get_param_importances(study, params=varied)
