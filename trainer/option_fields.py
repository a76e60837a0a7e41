"""Dataclass fields that are options: the source of the command line, the sweeps and the checks."""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from trainer.errors import InputError, choose


@dataclass(frozen=True)
class Option:
    """Facts about a field for the command line, the sweeps and the checks; name, type and default are the field's."""

    help: str
    metavar: str | None = None
    choices: tuple[str, ...] = ()
    low: float | None = None  # both ends are allowed
    high: float | None = None
    check: Callable[[str], None] | None = None  # another check; raises InputError
    positional: bool = False  # may also stand first on the command line, without its name
    same: Callable[[Any, Any], bool] = operator.eq  # whether two values mean the same
    parse: Callable[[str | None], Any] | None = None  # for a type that Typer does not know
    format: Callable[[Any], str] = str  # the inverse of `parse`
    affects_result: bool = True  # part of `FitConfig.hash`
    searchable: bool = True  # by a sweep
    repeated: bool = True  # part of the command that trains the same again

    @property
    def help_text(self) -> str:
        """The help, with its `{choices}`, `{low}` and `{high}` filled in."""
        *others, last = self.choices or ("",)
        choices = f"{', '.join(others)} or {last}" if others else last
        return self.help.format(choices=choices, low=self.low, high=self.high)


def option_field(default: Any = dataclasses.MISSING, **facts: Any) -> Any:
    """A dataclass field that is also an option; `facts` as in `Option`."""
    return dataclasses.field(default=default, metadata={"option": Option(**facts)})


def options(config: Any) -> dict[str, Option]:
    """Field → option, of a dataclass or an instance of one, in order."""
    return {field.name: field.metadata["option"] for field in dataclasses.fields(config) if "option" in field.metadata}


def searchable(config: Any) -> list[str]:
    """The options that a sweep may vary."""
    return [name for name, option in options(config).items() if option.searchable]


def flag(name: str) -> str:
    """A field's name as it stands on the command line."""
    return f"--{name.replace('_', '-')}"


def check_options(config: Any) -> None:
    """Raise InputError for the first value that its option does not allow; None is always allowed."""
    for name, option in options(config).items():
        value = getattr(config, name)
        if value is None:
            continue
        if option.choices:
            choose(flag(name), value, option.choices)
        if option.low is not None and option.high is not None and not option.low <= value <= option.high:
            raise InputError(f"{flag(name)}: {value} is out of range; {option.low:g} to {option.high:g} is expected")
        if option.check:
            option.check(value)
