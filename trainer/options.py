"""A dataclass's options as those of a Typer command."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Annotated, Any, get_type_hints

import typer

from trainer.config import Option, options

Command = Callable[..., None]


def typer_option(config: type[Any], name: str) -> Any:
    """The field `name` of a dataclass as Typer's kind of option, to be used in `Annotated`."""
    one: Option = options(config)[name]
    return typer.Option(metavar=one.metavar, help=one.help)


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
