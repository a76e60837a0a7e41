"""Search space of a sweep: hyper-parameters with their ranges and W&B's distributions."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist

METRIC = "val_accuracy"  # never test accuracy: the test images must not take part in the choice
ARGS = "${args}"
DATASET = "dataset"  # the option

UNIFORM = ("min", "max")
NORMAL = ("mu", "sigma")
# Distribution → its keys. Those in QUANTIZED also exist with the prefix `q_` and the key `q`, the step.
DISTRIBUTIONS: dict[str, tuple[str, ...]] = {
    "constant": ("value",),
    "categorical": ("values",),
    "int_uniform": UNIFORM,
    "uniform": UNIFORM,
    "log_uniform": UNIFORM,
    "log_uniform_values": UNIFORM,
    "inv_log_uniform": UNIFORM,
    "inv_log_uniform_values": UNIFORM,
    "normal": NORMAL,
    "log_normal": NORMAL,
    "beta": ("a", "b"),
}
QUANTIZED = ("uniform", "log_uniform", "log_uniform_values", "normal", "log_normal", "beta")
BY_QUANTILE = ("normal", "log_normal", "beta")
MIN_QUANTILE = 1e-6  # at 0 and 1 the value may be infinite
DEFAULTS = {"mu": 0.0, "sigma": 1.0, "q": 1.0, "a": 1.0, "b": 1.0}

Value = str | int | float | bool


@dataclass(frozen=True)
class Parameter:
    """A hyper-parameter: a list of values, or a number from `low` to `high`.

    A search draws from [low, high], uniformly or (`log`) uniformly in the logarithm; `transform` turns the drawn number
    into the value of the option.
    """

    choices: tuple[Value, ...] = ()
    low: float = 0.0
    high: float = 1.0
    log: bool = False
    integer: bool = False
    transform: Callable[[float], float] = lambda drawn: drawn
    by_quantile: bool = False  # drawn as a quantile: the value has no sharp ends

    def values(self) -> Sequence[Value] | None:
        """All values, never expanded in memory; None for a continuous range."""
        if self.choices:
            return self.choices
        return range(int(self.low), int(self.high) + 1) if self.integer else None

    def count(self) -> int | None:
        """Number of values, which `len` refuses above 2**63; None for a continuous range."""
        if self.choices:
            return len(self.choices)
        return int(self.high) - int(self.low) + 1 if self.integer else None

    def examples(self) -> Sequence[Value]:
        """Values to check in advance: all choices, or the ends of a range and a number between them."""
        if self.choices:
            return self.choices
        if self.integer:
            return (int(self.low), int(self.high))
        between = self.low + (self.high - self.low) * 0.317  # never whole by chance
        drawn = (between,) if self.by_quantile else (self.low, self.high, between)
        return [self.transform(number) for number in drawn]


def quantile_parameter(base: str, numbers: Mapping[str, float], rounded: Callable[[float], float]) -> Parameter:
    """Parameter of one of BY_QUANTILE: the search draws a quantile."""
    if base == "beta":
        from scipy.stats import beta

        distribution = beta(numbers["a"], numbers["b"])
        inverse: Callable[[float], float] = lambda quantile: float(distribution.ppf(quantile))  # noqa: E731
    else:
        inverse = NormalDist(numbers["mu"], numbers["sigma"]).inv_cdf
    exponential: Callable[[float], float] = math.exp if base == "log_normal" else float
    return Parameter(
        low=MIN_QUANTILE,
        high=1 - MIN_QUANTILE,
        transform=lambda quantile: rounded(exponential(inverse(quantile))),
        by_quantile=True,
    )


@dataclass(frozen=True)
class Hyperband:
    """Early stopping of trials, by rank after `min_epochs`, `min_epochs`·eta, … epochs."""

    min_epochs: int
    eta: int


@dataclass(frozen=True)
class SweepSpec:
    """Contents of a sweep file."""

    path: Path
    method: str
    parameters: Mapping[str, Parameter]
    command: tuple[str, ...]  # options of `trainer fit` around `ARGS`
    hyperband: Hyperband | None
    run_cap: int | None
    datasets: tuple[str, ...] = ()  # specs as in the file
    data_dir: Path | None = None
    model_name: str | None = None  # None: the data set's
    data: tuple[str, ...] = ()  # fingerprints of the data sets; empty until they are opened

    @property
    def name(self) -> str:
        """File name and a hash of everything that changes the search, the data included."""
        described = {
            name: [p.choices, p.low, p.high, p.log, p.integer, p.transform(0.3)] for name, p in self.parameters.items()
        }
        content = json.dumps([self.method, described, self.command, self.data], sort_keys=True)
        return f"{self.path.stem}-{hashlib.sha256(content.encode()).hexdigest()[:8]}"

    @property
    def varied(self) -> list[str]:
        """The parameters with more than one value."""
        return [name for name, parameter in self.parameters.items() if len(parameter.choices) != 1]

    def dataset_of(self, params: Mapping[str, Value]) -> str:
        """The data set of a trial: only trials on the same one are compared."""
        return str(params.get(DATASET, next(iter(self.datasets), "")))

    def count(self) -> int | None:
        """Number of combinations of all values; None where a range is continuous."""
        counts = [parameter.count() for parameter in self.parameters.values()]
        return None if None in counts else math.prod(count for count in counts if count is not None)

    def options(self, params: Mapping[str, Value]) -> list[str]:
        """The options of `trainer fit` for a trial's params."""
        values = [f"--{name}={_spelled(value)}" for name, value in params.items()]
        return [part for word in self.command for part in (values if word == ARGS else [word])]


def _spelled(value: Value) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
