"""What a search tries next where it is not a grid: Optuna's samplers, over as many trials as they need.

TPE splits the trials into the best ones, at most 25, and the others, and takes longer the more there are: it is shown
the best ones and some of the others, spread over all. Quality does not suffer: see docs/decisions.md.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from trainer.sweep.optuna_space import distributions, sampler
from trainer.sweep.space import SweepSpec

BEST = 25  # that TPE takes for the good ones
OTHERS = 175
SHOWN = 2 * (BEST + OTHERS)  # at most: then it is cut down to these


class Proposals:
    """The trials that the sampler is shown; `history` gives all of the search, those that are running included."""

    def __init__(self, spec: SweepSpec, history: Callable[[], Iterable[FrozenTrial]]) -> None:
        self._spec = spec
        self._history = history
        self._running: dict[int, int] = {}  # the search's number of a trial → the one that it is shown with
        self._study = self._shown()

    def draw(self, seed: int) -> Mapping[str, Any]:
        """A proposal, to be taken or given up."""
        self._study.sampler = sampler(self._spec, seed)
        self._open = self._study.ask(distributions(self._spec))
        return self._open.params

    def take(self, number: int) -> None:
        """The last proposal is a trial of the search now."""
        self._running[number] = self._open.number

    def give_up(self) -> None:
        """The last proposal was tried before."""
        self._study.tell(self._open, state=TrialState.FAIL)

    def note(self, trial: FrozenTrial) -> None:
        """A trial of the search has ended."""
        if (shown := self._running.pop(trial.number, None)) is not None:
            self._study.tell(shown, state=TrialState.FAIL)  # the finished one stands for it now
        self._study.add_trial(trial)
        if len(self._study.get_trials(deepcopy=False)) > SHOWN:
            self._study = self._shown()

    def _shown(self) -> optuna.Study:
        counted = [one for one in self._history() if one.state in (TrialState.RUNNING, TrialState.PRUNED) or one.values]
        best = heapq.nlargest(BEST, (one for one in counted if one.values), key=lambda one: one.value or 0.0)
        good = {id(one) for one in best}
        others = [one for one in counted if id(one) not in good]
        shown = [*best, *others[:: math.ceil(len(others) / OTHERS) or 1]]
        self._running = {one.number: place for place, one in enumerate(shown) if one.state == TrialState.RUNNING}
        study = optuna.create_study(direction="maximize")
        study.add_trials(shown)
        return study
