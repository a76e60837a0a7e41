"""Dataclass fields that are options: the command line, the sweeps and the checks are made from them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from trainer.errors import InputError, choose


@dataclass(frozen=True)
class Option:
    """What the command line, the sweeps and the checks know of a field; name, type and default are the field's own."""

    help: str
    metavar: str | None = None
    choices: tuple[str, ...] = ()
    low: float | None = None  # both ends are allowed
    high: float | None = None
    check: Callable[[str], None] | None = None  # of another kind; raises InputError
    first: bool = False  # may also stand first on the command line, without its name
    parse: Callable[[str | None], Any] | None = None  # for a type that the command line does not know
    spell: Callable[[Any], str] = str  # the way back
    affects_result: bool = True  # part of `FitConfig.hash`
    searchable: bool = True  # by a sweep
    repeated: bool = True  # in the command that trains the same again

    def described(self) -> str:
        """The help, with the `{choices}`, `{low}` and `{high}` in it filled in."""
        *others, last = self.choices or ("",)
        choices = f"{', '.join(others)} or {last}" if others else last
        return self.help.format(choices=choices, low=self.low, high=self.high)


def option(default: Any = dataclasses.MISSING, **facts: Any) -> Any:
    """A dataclass field that is also an option; `facts` as in `Option`."""
    return dataclasses.field(default=default, metadata={"option": Option(**facts)})


def options(config: Any) -> dict[str, Option]:
    """Field → option, of a dataclass or an instance of one, in order."""
    return {field.name: field.metadata["option"] for field in dataclasses.fields(config) if "option" in field.metadata}


def searchable(config: Any) -> list[str]:
    """The options that a sweep may vary."""
    return [name for name, one in options(config).items() if one.searchable]


def flag(name: str) -> str:
    """A field's name as it stands on the command line."""
    return f"--{name.replace('_', '-')}"


def check_options(config: Any) -> None:
    """Raise InputError for the first value of a dataclass that its option does not allow; None is always allowed."""
    for name, one in options(config).items():
        value = getattr(config, name)
        if value is None:
            continue
        if one.choices:
            choose(flag(name), value, one.choices)
        if one.low is not None and one.high is not None and not one.low <= value <= one.high:
            raise InputError(f"{flag(name)}: {value} is out of range; {one.low:g} to {one.high:g} is expected")
        if one.check:
            one.check(value)
