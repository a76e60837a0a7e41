"""How a command line is read: a dataclass's options as those of a Typer command, and one spelling for all options."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, get_type_hints

import typer

from trainer.config import InputError, Option, options

Command = Callable[..., None]


def typer_option(config: type[Any], name: str) -> Any:
    """The field `name` of a dataclass as Typer's kind of option, to be used in `Annotated`."""
    one: Option = options(config)[name]
    return typer.Option(metavar=one.metavar, help=one.described())


def with_options(config: type[Any]) -> Callable[[Command], Command]:
    """Decorator: the command gets an option for each of the dataclass's, and one `config` made of them.

    `command(config, …)`, whose other parameters stay, becomes what Typer can read: Typer takes the signature and the
    annotations of a function for its command line.
    """

    def decorate(command: Command) -> Command:
        _, *own = inspect.signature(command, eval_str=True).parameters.values()

        @functools.wraps(command)
        def run(**values: Any) -> None:
            asked = {name: values.pop(name) for name in options(config)}
            parsers = {name: one.parse for name, one in options(config).items() if one.parse}
            asked |= {name: parse(asked[name]) for name, parse in parsers.items()}
            command(config(**asked), **values)

        parameters = [*_parameters(config), *(one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in own)]
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {one.name: one.annotation for one in parameters}
        return run

    return decorate


def _parameters(config: type[Any]) -> list[inspect.Parameter]:
    types = get_type_hints(config)
    defaults = inspect.signature(config).parameters
    return [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=defaults[name].default,
            annotation=Annotated[str | None if one.parse else types[name], typer_option(config, name)],
        )
        for name, one in options(config).items()
    ]


def flags(command: Any) -> dict[str, str | None]:
    """The flags of a Typer command, or of all in a group: name → the option that says no (None: there is none)."""
    if within := getattr(command, "commands", None):
        return {name: no for one in within.values() for name, no in flags(one).items()}
    return {
        one.opts[0].removeprefix("--"): next(iter(one.secondary_opts), None)
        for one in command.params
        if getattr(one, "is_flag", False)
    }


def normalize_arguments(arguments: Sequence[str], known: Mapping[str, str | None]) -> list[str]:
    """The command line in one spelling; `known` are its `flags`.

    Underscores in option names become dashes and `--flag=true|false` becomes `--flag` or `--no-flag`, as W&B
    writes them in `${args}`; options that begin with `--_wandb` (added by W&B on resume) are
    dropped, and so is `--debug`, which `run` has seen. Raises InputError for a flag that is neither true nor false.
    """
    normal: list[str] = []
    for position, argument in enumerate(arguments):
        if argument == "--":
            normal.extend(arguments[position:])
            break
        if not argument.startswith("--"):
            normal.append(argument)
            continue
        option, equals, value = argument.partition("=")
        if option.startswith("--_wandb") or argument == "--debug":
            continue
        option = option.replace("_", "-")
        if equals and option.removeprefix("--no-").removeprefix("--") in known:
            normal.extend(_flag(option, value, known))
        else:
            normal.append(option + equals + value)
    return normal


def _flag(option: str, value: str, known: Mapping[str, str | None]) -> list[str]:
    if value.lower() not in ("true", "false"):
        raise InputError(f"{option}: {value!r} is neither true nor false")
    name = option.removeprefix("--no-").removeprefix("--")
    wanted = (value.lower() == "true") != option.startswith("--no-")
    spelling = f"--{name}" if wanted else known[name]
    return [spelling] if spelling else []
