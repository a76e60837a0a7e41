"""Early stopping compared with random search for the same number of epochs, on recorded learning curves.

    trainer sweep curves.yaml --trials 60      a copy of sweeps/random.yaml with `epochs: {value: 12}`: records curves
    python benchmarks/early_stopping.py runs/sweep-random-…/journal.log

Each search draws trainings in a random order until its epochs are used up; its result is the best final accuracy.
"""

from __future__ import annotations

import argparse
import random
import statistics
from collections.abc import Callable

import optuna
from optuna.storages.journal import JournalFileBackend, JournalStorage

SEEDS = 200
BUDGETS = (5, 10, 20)  # epochs of so many whole trainings
Pruner = Callable[[], optuna.pruners.BasePruner]
PRUNERS: dict[str, Pruner] = {
    "random": optuna.pruners.NopPruner,
    "Hyperband (3, 3)": lambda: optuna.pruners.HyperbandPruner(min_resource=3, reduction_factor=3),
    "ASHA (3, 3)": lambda: optuna.pruners.SuccessiveHalvingPruner(min_resource=3, reduction_factor=3),
    "ASHA (1, 3)": lambda: optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=3),
}


def read_curves(journal: str) -> list[list[float]]:
    storage = JournalStorage(JournalFileBackend(journal))
    (name,) = optuna.get_all_study_names(storage)
    trials = optuna.load_study(study_name=name, storage=storage).get_trials(states=[optuna.trial.TrialState.COMPLETE])
    curves = [[value for _, value in sorted(trial.intermediate_values.items())] for trial in trials]
    longest = max(map(len, curves))
    return [curve for curve in curves if len(curve) == longest]


def best_within(curves: list[list[float]], budget: int, pruner: optuna.pruners.BasePruner, seed: int) -> float:
    """The best final accuracy that a search finds within `budget` epochs."""
    study = optuna.create_study(direction="maximize", pruner=pruner, study_name=str(seed))
    best = 0.0
    order = random.Random(seed).sample(curves, len(curves))
    for curve in order:
        trial = study.ask()
        for epoch, value in enumerate(curve, 1):
            if budget == 0:
                return best
            budget -= 1
            trial.report(value, epoch)
            if trial.should_prune():
                study.tell(trial, state=optuna.trial.TrialState.PRUNED)
                break
        else:
            best = max(best, curve[-1])
            study.tell(trial, curve[-1])
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("journal")
    arguments = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    curves = read_curves(arguments.journal)
    final = sorted(curve[-1] for curve in curves)
    print(f"{len(curves)} trainings of {len(curves[0])} epochs; final accuracies {final[0]:.3f} to {final[-1]:.3f}")
    for trainings in BUDGETS:
        for name, make in PRUNERS.items():
            found = [best_within(curves, trainings * len(curves[0]), make(), seed) for seed in range(SEEDS)]
            low, median, high = statistics.quantiles(found, n=4)
            print(
                f"{trainings:2} trainings' epochs, {name}: mean {statistics.mean(found):.4f}, median {median:.4f}, "
                f"quartiles {low:.4f} to {high:.4f}"
            )


if __name__ == "__main__":
    main()
