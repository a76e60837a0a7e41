"""Search space and method of a sweep as Optuna's distributions and samplers.

Optuna's `trial.params` are the drawn values; the params of a trial in the sense of this package are its options.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Mapping
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from trainer.sweep.space import Parameter, SweepSpec, Value


def sampler(spec: SweepSpec, seed: int) -> optuna.samplers.BaseSampler:
    """Sampler of one trial, with a seed of its own: a sweep that is started again draws the same params."""
    if spec.method == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    # Optuna 5's defaults: all parameters jointly, and running trials count as bad ones, so that workers spread out.
    return optuna.samplers.TPESampler(seed=seed)


def distributions(spec: SweepSpec) -> dict[str, BaseDistribution]:
    """Optuna's distribution of each parameter."""
    return {name: _distribution(parameter) for name, parameter in spec.parameters.items()}


def _distribution(parameter: Parameter) -> BaseDistribution:
    if parameter.choices:
        return CategoricalDistribution(parameter.choices)
    if parameter.integer:
        return IntDistribution(int(parameter.low), int(parameter.high))
    return FloatDistribution(parameter.low, parameter.high, log=parameter.log)


def to_params(spec: SweepSpec, drawn: Mapping[str, Any]) -> dict[str, Value]:
    """The options of `trainer fit` for drawn values."""
    params: dict[str, Value] = {}
    for name, parameter in spec.parameters.items():
        exact = parameter.choices or parameter.integer
        params[name] = drawn[name] if exact else parameter.transform(drawn[name])
    return params


def grid(spec: SweepSpec) -> list[dict[str, Value]]:
    """Every combination of the values once, shuffled: the first trials of a large grid may be all that are run."""
    values = [parameter.values() or () for parameter in spec.parameters.values()]
    combinations = [dict(zip(spec.parameters, combination, strict=True)) for combination in itertools.product(*values)]
    random.Random(0).shuffle(combinations)
    return combinations
