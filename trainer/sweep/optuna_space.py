"""A sweep's space and method in Optuna's terms."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from trainer.sweep.space import Parameter, SweepSpec, Value


def sampler(spec: SweepSpec, seed: int) -> optuna.samplers.BaseSampler:
    """Seeded by the trial, so that a sweep draws the same points however often it is started again."""
    if spec.method == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    # With Optuna 5's own settings: all parameters at once, and trials that are running count as bad ones, so that
    # workers do not all go to one place.
    return optuna.samplers.TPESampler(seed=seed)


def pruner(spec: SweepSpec) -> optuna.pruners.BasePruner:
    if spec.hyperband is None:
        return optuna.pruners.NopPruner()
    # What W&B calls Hyperband is one of its brackets: successive halving as results come (Li et al., "A System for
    # Massively Parallel Hyperparameter Tuning", 2020).
    return optuna.pruners.SuccessiveHalvingPruner(
        min_resource=spec.hyperband.min_epochs, reduction_factor=spec.hyperband.eta
    )


def distributions(spec: SweepSpec) -> dict[str, BaseDistribution]:
    return {name: _distribution(parameter) for name, parameter in spec.parameters.items()}


def _distribution(parameter: Parameter) -> BaseDistribution:
    if parameter.choices:
        return CategoricalDistribution(parameter.choices)
    if parameter.integer:
        return IntDistribution(int(parameter.low), int(parameter.high))
    return FloatDistribution(parameter.low, parameter.high, log=parameter.log)


def point_of(spec: SweepSpec, drawn: Mapping[str, Any]) -> dict[str, Value]:
    """The options' values for what was drawn."""
    point: dict[str, Value] = {}
    for name, parameter in spec.parameters.items():
        exact = parameter.choices or parameter.integer
        point[name] = drawn[name] if exact else parameter.transform(drawn[name])
    return point


def grid(spec: SweepSpec) -> Iterator[tuple[dict[str, Value], dict[str, Value]]]:
    """What to draw, and its point, for each point of a grid, once.

    The first few are spread over it, as few trials may be all: each is another value of every parameter.
    """
    values = {name: parameter.grid() or () for name, parameter in spec.parameters.items()}
    counts = {name: parameter.count() or 0 for name, parameter in spec.parameters.items()}
    # The digits of a trial's number, that of the longest parameter first; it moves all the others along.
    order = sorted(counts, key=lambda name: counts[name], reverse=True)
    for number in range(math.prod(counts.values())):
        rest, moved = divmod(number, counts[order[0]])
        places = {order[0]: moved}
        for name in order[1:]:
            rest, digit = divmod(rest, counts[name])
            places[name] = (digit + moved) % counts[name]
        drawn = {name: values[name][spread(places[name], counts[name])] for name in counts}
        yield drawn, point_of(spec, drawn)


def spread(place: int, count: int) -> int:
    """A permutation of 0 … `count` - 1 whose beginnings are spread: it steps by the golden section of `count`."""
    golden = round(count * (math.sqrt(5) - 1) / 2)
    step = next(one for away in range(count) for one in (golden + away, golden - away) if math.gcd(one, count) == 1)
    return place * step % count
