"""`--save-best`: export and publish the model of the best trial of each data set, beside what is promoted."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from pathlib import Path

from optuna.trial import FrozenTrial

from trainer.artifact.listing import list_models
from trainer.console import print_line, print_saved
from trainer.errors import InputError, RunError
from trainer.runs.publish import publish_run
from trainer.runs.run_folder import FINISHED, is_exported, read_run, result_of
from trainer.signals import Signals
from trainer.sweep.executor import TrialProgram
from trainer.sweep.search import PARAMS, RUN, Search

log = logging.getLogger("trainer")


def log_promoted(names: Sequence[str], *, save_best: bool) -> None:
    """Log the promoted version of each model that the sweep is about, with its accuracy; the winner has to match it."""
    for entry in list_models():
        if entry["latest"] and entry["tag"].partition(":")[0] in names and entry["val_accuracy"] is not None:
            log.info(
                "%s, promoted, reached %.1f%% on validation images of %s%s",
                *(entry["tag"], 100 * entry["val_accuracy"], entry["dataset"]),
                "; the winner replaces it if it is right as often on the held-out images of both" if save_best else "",
            )


def publish_best(search: Search) -> None:
    """Publish the best model of each data set; it is promoted where it is right as often as the promoted version.

    Raises InputError where no trial has finished, RunError where an export fails.
    """
    datasets = search.datasets()
    if not datasets:
        raise InputError(f"{search.folder}: no trial has finished; there is no best one to save")
    for dataset in datasets:
        _publish(search, search.leaders(dataset, 1)[0])


def _publish(search: Search, best: FrozenTrial) -> None:
    folder = Path(best.user_attrs[RUN])
    if not _is_done(folder):
        _export(search.spec.options(best.user_attrs[PARAMS]), best.number, folder)
    published = publish_run(folder, None, must_match=True)
    result = result_of(folder, read_run(folder))
    print_line(
        f"trial {best.number}: validation accuracy {result['val_accuracy']:.2%}, "
        f"test accuracy {result['test_accuracy']:.2%}"
    )
    print_saved(published.tag, published.latest)


def _is_done(folder: Path) -> bool:
    """Whether a trial's model is exported: an export folder alone may be that of an interrupted run."""
    run = read_run(folder)
    return run["state"] == FINISHED and is_exported(result_of(folder, run))


def _export(options: Sequence[str], number: int, folder: Path) -> None:
    """Export the model of a trial, on all of this machine. Raises RunError where that fails."""
    log.info("trial %d: exporting its model", number)
    process = TrialProgram(options, folder, {})
    follower = threading.Thread(target=lambda: list(process.events()), daemon=True)
    follower.start()
    with Signals():
        try:
            follower.join()
        except BaseException:
            process.stop()
            follower.join()  # the process ends with a checkpoint, and releases its folder
            raise
    if process.outcome.result is None:
        raise RunError(f"trial {number}: {process.outcome.reason}")
