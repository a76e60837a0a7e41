"""Rules of one parameter in a W&B sweep file, checked: https://docs.wandb.ai/guides/sweeps/sweep-config-keys."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NoReturn

from trainer.sweep.space import (
    BY_QUANTILE,
    DEFAULTS,
    DISTRIBUTIONS,
    QUANTIZED,
    UNIFORM,
    Parameter,
    Value,
    quantile_parameter,
)

Fail = Callable[[str, str], NoReturn]  # key in the file, problem → InputError with file, line and key


def read_parameter(key: str, rules: Any, fail: Fail) -> Parameter:
    """The parameter at `key`, from its `value`, `values` or distribution."""
    if not isinstance(rules, dict):
        fail(key, "`value`, `values` or a distribution is expected")
    if "parameters" in rules:
        fail(key, "nested parameters are not options of `trainer fit`")
    if "probabilities" in rules or rules.get("distribution") == "categorical_w_probabilities":
        fail(key, "values with probabilities are drawn by W&B only; repeat no value and leave them out")
    name = rules.get("distribution") or _default_distribution(key, rules, fail)
    if not isinstance(name, str):
        fail(f"{key}.distribution", f"{name!r} is no name of a distribution")
    quantized = name.startswith("q_")
    base = name.removeprefix("q_")
    if base not in DISTRIBUTIONS or (quantized and base not in QUANTIZED):
        fail(f"{key}.distribution", f"{name!r} is not one of {', '.join(DISTRIBUTIONS)}, or with q_ in front")
    expected = (*DISTRIBUTIONS[base], *(("q",) if quantized else ()))
    for rule in rules:
        if rule not in (*expected, "distribution"):
            fail(f"{key}.{rule}", f"{name} takes {', '.join(expected)} and no {rule}")
    if base == "constant":
        return Parameter(choices=(_scalar(f"{key}.value", rules.get("value"), fail),))
    if base == "categorical":
        values = rules.get("values")
        if not isinstance(values, list) or not values:
            fail(f"{key}.values", "at least one value is expected")
        scalars = [_scalar(f"{key}.values", value, fail) for value in values]
        return Parameter(choices=tuple(dict.fromkeys(scalars)))
    numbers = {rule: _number(f"{key}.{rule}", rules.get(rule, DEFAULTS.get(rule)), fail) for rule in expected}
    try:
        return _numeric(key, base, numbers, fail)
    except OverflowError:
        fail(key, "e to the power of these is out of a number's range")


def _default_distribution(key: str, rules: dict[str, Any], fail: Fail) -> str:
    if "value" in rules:
        return "constant"
    if "values" in rules:
        return "categorical"
    if {"min", "max"} <= set(rules):
        whole = all(isinstance(rules[end], int) for end in UNIFORM)
        return "int_uniform" if whole else "uniform"
    fail(key, "`value`, `values`, or `min` and `max` are expected")


def _scalar(key: str, value: Any, fail: Fail) -> Value:
    if not isinstance(value, str | int | float | bool):
        fail(key, f"{value!r} is no word and no number")
    return value


def _number(key: str, value: Any, fail: Fail) -> float:
    number = value
    if isinstance(value, str):  # `1e-5`: a number in YAML 1.1 has a point before the exponent
        with suppress(ValueError):
            number = float(value)
    if isinstance(number, bool) or not isinstance(number, int | float) or not abs(number) <= sys.float_info.max:
        fail(key, f"{value!r} is no number")
    return number


def _numeric(key: str, base: str, numbers: dict[str, float], fail: Fail) -> Parameter:
    low, high = numbers.get("min", 0.0), numbers.get("max", 1.0)
    if low > high:
        fail(f"{key}.min", f"{low:g} is above max, {high:g}")
    if base.endswith("_values") and low <= 0:
        fail(f"{key}.min", f"{low:g} has no logarithm; more than 0 is expected")
    if numbers.get("sigma", 1) <= 0 or min(numbers.get("a", 1), numbers.get("b", 1)) <= 0:
        fail(key, "sigma, a and b are more than 0")
    step = numbers.get("q")
    if step is not None and step <= 0:
        fail(f"{key}.q", f"{step:g} is no step; more than 0 is expected")

    def rounded(value: float) -> float:
        return value if step is None else round(value / step) * step

    if base == "int_uniform":
        if int(low) != low or int(high) != high:
            fail(key, "whole numbers are expected")
        return Parameter(low=low, high=high, integer=True)
    if base in BY_QUANTILE:
        return quantile_parameter(base, numbers, rounded)
    if base == "log_uniform":  # of exponents to the base e
        low, high = math.exp(low), math.exp(high)
    elif base == "inv_log_uniform":  # 1/x is log-uniform
        low, high = math.exp(-high), math.exp(-low)
    if base != "uniform" and low == 0:  # rounded to it
        raise OverflowError
    return Parameter(low=low, high=high, log=base != "uniform", transform=rounded)
