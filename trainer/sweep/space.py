"""What a sweep searches: parameters with their ranges, and the points between them."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

METRIC = "val_accuracy"  # never test accuracy: what chooses must not be what judges
ARGS = "${args}"

Value = str | int | float | bool


@dataclass(frozen=True)
class Parameter:
    """One hyper-parameter: one value, a list of them, or a number from `low` to `high`.

    A search draws from [low, high], evenly or (`log`) evenly in the logarithm; `transform` makes the parameter's value
    of what it drew.
    """

    choices: tuple[Value, ...] = ()
    low: float = 0.0
    high: float = 1.0
    log: bool = False
    integer: bool = False
    transform: Callable[[float], float] = lambda drawn: drawn

    def grid(self) -> Sequence[Value] | None:
        """All values, not in memory; None where they cannot be counted."""
        if self.choices:
            return self.choices
        return range(int(self.low), int(self.high) + 1) if self.integer else None

    def count(self) -> int | None:
        """How many values there are, however many."""
        if self.choices:
            return len(self.choices)
        return int(self.high) - int(self.low) + 1 if self.integer else None


@dataclass(frozen=True)
class Hyperband:
    """Stop a trial early, by its place after `min_epochs`, `min_epochs`·eta, … epochs."""

    min_epochs: int
    eta: int


@dataclass(frozen=True)
class SweepSpec:
    """What a sweep file asks for."""

    path: Path
    method: str
    parameters: Mapping[str, Parameter]
    command: tuple[str, ...]  # options of `trainer fit` around `ARGS`
    hyperband: Hyperband | None
    run_cap: int | None
    data: tuple[str, ...] = ()  # fingerprints of what is trained on, once it has been looked at

    @property
    def name(self) -> str:
        """Changes with whatever changes the search, the data included."""
        described = {
            name: [p.choices, p.low, p.high, p.log, p.integer, p.transform(0.3)] for name, p in self.parameters.items()
        }
        content = json.dumps([self.method, described, self.command, self.data], sort_keys=True)
        return f"{self.path.stem}-{hashlib.sha256(content.encode()).hexdigest()[:8]}"

    @property
    def varied(self) -> list[str]:
        """The parameters that have more than one value."""
        return [name for name, parameter in self.parameters.items() if len(parameter.choices) != 1]

    def points(self) -> int | None:
        """How many points there are; None where they cannot be counted."""
        counts = [parameter.count() for parameter in self.parameters.values()]
        return None if None in counts else math.prod(count for count in counts if count is not None)

    def given(self, option: str) -> list[str]:
        """The values that the trials have for an option of `trainer fit`, from the parameters or the command."""
        if option in self.parameters:
            return [str(value) for value in self.parameters[option].choices]
        values = []
        for word, after in zip(self.command, (*self.command[1:], ""), strict=True):
            name, equals, value = word.partition("=")
            if name.removeprefix("--").replace("-", "_") == option:
                values.append(value if equals else after)
        return values

    def options(self, point: Mapping[str, Value]) -> list[str]:
        """The options of `trainer fit` for a point."""
        values = [f"--{name}={_spelled(value)}" for name, value in point.items()]
        return [part for word in self.command for part in (values if word == ARGS else [word])]


def _spelled(value: Value) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
