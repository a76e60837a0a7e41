"""Early stopping of trials by successive halving."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from trainer.sweep.space import Hyperband


def falls_behind(
    hyperband: Hyperband, epoch: int, value: float, others_after: Callable[[int], Sequence[float]]
) -> bool:
    """Whether to stop a trial with metric `value` after `epoch`; `others_after(epoch)`: the metrics of other trials.

    W&B's Hyperband is one of its brackets: asynchronous successive halving (Li et al., "A System for Massively Parallel
    Hyperparameter Tuning", 2020). After `min_epochs`, `min_epochs`·eta, … the best 1/eta go on, and always the best.
    """
    rung = hyperband.min_epochs
    while rung < epoch:
        rung *= hyperband.eta
    if rung != epoch:
        return False
    ranked = sorted([*others_after(epoch), value], reverse=True)
    return value < ranked[max(1, len(ranked) // hyperband.eta) - 1]
