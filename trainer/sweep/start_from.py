"""`--start-from`: finished trials of earlier sweeps over the same data, for a new sweep to learn from."""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import optuna
from optuna.storages.journal import JournalFileBackend, JournalStorage
from optuna.trial import FrozenTrial, TrialState

from trainer.errors import InputError
from trainer.sweep.journal import JOURNAL, cut_torn_end
from trainer.sweep.optuna_space import distributions, to_params
from trainer.sweep.search import DATA, PARAMS
from trainer.sweep.space import SweepSpec

log = logging.getLogger("trainer")


def earlier_trials(spec: SweepSpec, root: Path) -> list[FrozenTrial]:
    """The finished trials of the sweep `root`, or of the sweeps in it, whose params this sweep could draw, too.

    Trials on other data, or with other options in the command, are left out. Raises InputError where there is no sweep,
    and for a method that does not learn from earlier trials.
    """
    if spec.method != "bayes":
        raise InputError(
            f"--start-from: {spec.path} has `method: {spec.method}`; only `bayes` learns from earlier trials"
        )
    journals = sorted([root / JOURNAL] if (root / JOURNAL).exists() else root.glob(f"*/{JOURNAL}"))
    if not journals:
        raise InputError(
            f"--start-from: {root} is no folder of a sweep, and has none in it; runs/sweep-NAME-HASH is expected"
        )
    found = [trial for journal in journals for trial in _finished(spec, journal)]
    usable = list(_usable(spec, found))
    log.info(
        "learning from %d trials of earlier sweeps; left out, as their params are not in this sweep: %d",
        len(usable),
        len(found) - len(usable),
    )
    return usable


def _finished(spec: SweepSpec, journal: Path) -> list[FrozenTrial]:
    """The finished trials of another sweep over the same data, which may be running."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, JOURNAL)
        shutil.copy(journal, copy)
        cut_torn_end(copy)
        try:
            storage = JournalStorage(JournalFileBackend(str(copy)))
            names = optuna.get_all_study_names(storage)
            studies = [optuna.load_study(study_name=name, storage=storage) for name in names]
            of_this = [list(spec.data), list(spec.command)]
            return [
                trial
                for study in studies
                if study.study_name != spec.name and study.user_attrs.get(DATA) == of_this
                for trial in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
            ]
        except Exception as error:
            raise InputError(f"--start-from: {journal} cannot be read: {error}") from error


def _usable(spec: SweepSpec, trials: Iterable[FrozenTrial]) -> Iterable[FrozenTrial]:
    """The trials whose params this sweep could draw, as trials of its own parameters."""
    own = distributions(spec)
    for trial in trials:
        if set(trial.params) != set(own) or to_params(spec, trial.params) != trial.user_attrs.get(PARAMS):
            continue  # other parameters, or another distribution of the same value
        with suppress(ValueError):  # out of this sweep's range
            yield optuna.trial.create_trial(params=trial.params, distributions=own, value=trial.value)
