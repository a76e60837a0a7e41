"""W&B's distributions: what each needs to be told, and those that are drawn by their quantile."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from statistics import NormalDist

from trainer.sweep.space import Parameter

UNIFORM = ("min", "max")
SPREAD = ("mu", "sigma")
# Distribution → the keys that it needs; those in QUANTIZED also exist with `q_` in front and `q`, the step.
DISTRIBUTIONS: dict[str, tuple[str, ...]] = {
    "constant": ("value",),
    "categorical": ("values",),
    "int_uniform": UNIFORM,
    "uniform": UNIFORM,
    "log_uniform": UNIFORM,
    "log_uniform_values": UNIFORM,
    "inv_log_uniform": UNIFORM,
    "inv_log_uniform_values": UNIFORM,
    "normal": SPREAD,
    "log_normal": SPREAD,
    "beta": ("a", "b"),
}
QUANTIZED = ("uniform", "log_uniform", "log_uniform_values", "normal", "log_normal", "beta")
BY_QUANTILE = ("normal", "log_normal", "beta")
TAIL = 1e-6
DEFAULTS = {"mu": 0.0, "sigma": 1.0, "q": 1.0, "a": 1.0, "b": 1.0}


def by_quantile(base: str, numbers: Mapping[str, float], rounded: Callable[[float], float]) -> Parameter:
    """A distribution that is drawn by its quantile, which stays off the ends: there it may be infinite."""
    if base == "beta":
        from scipy.stats import beta

        distribution = beta(numbers["a"], numbers["b"])
        inverse: Callable[[float], float] = lambda quantile: float(distribution.ppf(quantile))  # noqa: E731
    else:
        inverse = NormalDist(numbers["mu"], numbers["sigma"]).inv_cdf
    if base == "log_normal":
        return Parameter(low=TAIL, high=1 - TAIL, transform=lambda quantile: rounded(math.exp(inverse(quantile))))
    return Parameter(low=TAIL, high=1 - TAIL, transform=lambda quantile: rounded(inverse(quantile)))
