"""Parsing of command lines: a Typer command from a dataclass of options, and one spelling."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, get_type_hints

import typer
from typer.core import TyperGroup

from trainer.console import fail, masked
from trainer.errors import InputError, choose, did_you_mean
from trainer.option_fields import flag, options
from trainer.text import printable
from trainer.usage_errors import explain_usage_error, hint_at_quotes

Command = Callable[..., None]

# Names that other tools use, too far from ours for Typer's suggestion by spelling.
COMMAND_SYNONYMS = {
    "train": "fit",
    **dict.fromkeys(("test", "validate"), "evaluate"),
    **dict.fromkeys(("classify", "infer"), "predict"),
    **dict.fromkeys(("list", "ls"), "models"),
    **dict.fromkeys(("search", "tune"), "sweep"),
    **dict.fromkeys(("run", "start"), "serve"),
    "publish": "save",
    "inspect": "data inspect",
    "prune": "cache prune",
}


class CommandGroup(TyperGroup):
    """A group that shows its help without a command, and knows the names of its commands in other tools."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Print the help and exit with code 2 without a command."""
        if not args and not ctx.resilient_parsing:
            typer.echo(ctx.get_help())  # noqa: TID251 - several lines, none from users
            raise typer.Exit(2)
        return super().parse_args(ctx, args)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Raises InputError, with the nearest names, for a command that it does not have."""
        name = args[0]
        if not ctx.resilient_parsing and not name.startswith("-") and name not in self.commands:
            meant = COMMAND_SYNONYMS.get(name)
            if meant and meant.split()[0] in self.commands:
                raise InputError(f"no such command: {name}{did_you_mean([meant])}")
            choose("no such command", name, self.commands)
        return super().resolve_command(ctx, args)


def run_command(command: Any, command_line: Sequence[str]) -> int:
    """Run a Typer command with the arguments of a command line → the exit code. An error is printed as one line."""
    try:
        arguments = normalize_arguments(command_line, boolean_flags(command))
        # One name in every message, also for `python -m trainer` and a path to the script.
        code = command(arguments, prog_name=command.name, standalone_mode=False)
    except (Exception, KeyboardInterrupt) as error:
        if "--debug" in command_line:
            import traceback

            lines = masked(traceback.format_exc()).splitlines()
            sys.stderr.write("".join(f"{printable(line)}\n" for line in lines))
        return fail(hint_at_quotes(explain_usage_error(error), command_line))
    return code if isinstance(code, int) else 0


def typer_option(config: type[Any], name: str) -> Any:
    """Typer's option for the field `name` of a dataclass, to be used in `Annotated`."""
    option = options(config)[name]
    return typer.Option(metavar=option.metavar, help=option.help_text)


def typer_argument(config: type[Any], name: str) -> Any:
    """Typer's argument for the field `name` of a dataclass, which may stand in place of its option."""
    option = options(config)[name]
    help_text = f"{option.help_text} The same as {flag(name)}."
    return typer.Argument(metavar=option.metavar, help=help_text, show_default=False)


def with_options(
    config: type[Any], defaults_from: Mapping[str, Callable[[str], Mapping[str, str]]] | None = None
) -> Callable[[Command], Command]:
    """Decorator: makes `command(config, …)` a Typer command with an option for each field of the dataclass `config`.

    The other parameters stay. `defaults_from`: option → function from its value to the other options' defaults, as the
    command line spells them.
    """

    def decorate(command: Command) -> Command:
        _, *own = inspect.signature(command, eval_str=True).parameters.values()

        @functools.wraps(command)
        def run(context: typer.Context, **values: Any) -> None:
            asked = {name: values.pop(name) for name in options(config)}
            for name, option in options(config).items():
                if option.positional:
                    positional, source = values.pop(f"first_{name}"), context.get_parameter_source(name)
                    if positional is not None and source and source.name != "COMMANDLINE":
                        asked[name] = None  # a default from `defaults_from`
                    asked[name] = require(config, name, either(config, name, positional, asked[name]))
                if option.parse:
                    asked[name] = option.parse(asked[name])
            command(config(**asked), **values)

        parameters = [
            inspect.Parameter("context", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context),
            *_parameters(config, defaults_from or {}),
            *(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in own),
        ]
        # Typer makes a command line of a function's signature and annotations.
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return run

    return decorate


def either(config: type[Any], name: str, positional: str | None, named: str | None) -> str | None:
    """The value of the field `name`, given as an argument or as an option. Raises InputError for two that differ."""
    if positional is not None and named is not None and not options(config)[name].same(positional, named):
        raise InputError(f"{flag(name)}: both {positional!r} and {named!r} are given; one is expected")
    return named if positional is None else positional


def require(config: type[Any], name: str, value: str | None) -> str:
    """The value of the field `name` of a dataclass. Raises InputError for None."""
    if value is None:
        raise InputError(f"{flag(name)} is missing: expected {options(config)[name].help_text.rstrip('.')}")
    return value


def _parameters(
    config: type[Any], defaults_from: Mapping[str, Callable[[str], Mapping[str, str]]]
) -> list[inspect.Parameter]:
    """Parameters of the Typer command: one for each option, and `first_NAME` for a positional one."""
    types = get_type_hints(config)
    defaults = inspect.signature(config).parameters
    keyword_only = inspect.Parameter.KEYWORD_ONLY
    parameters = []
    for name, option in options(config).items():
        kind: Any = str | None if option.parse else types[name]
        default = defaults[name].default
        if option.positional:
            kind, default = kind | None, None
            argument = Annotated[kind, typer_argument(config, name)]
            parameters.append(inspect.Parameter(f"first_{name}", keyword_only, default=None, annotation=argument))
        shown = typer_option(config, name)
        if name in defaults_from:
            shown.is_eager = True  # read before the options whose defaults it changes
            shown.callback = _set_defaults(defaults_from[name])
        parameters.append(inspect.Parameter(name, keyword_only, default=default, annotation=Annotated[kind, shown]))
    return parameters


def _set_defaults(defaults_from: Callable[[str], Mapping[str, str]]) -> Callable[[typer.Context, str], str]:
    def callback(context: typer.Context, value: str) -> str:
        context.default_map = dict(defaults_from(value))
        return value

    return callback


def boolean_flags(command: Any) -> dict[str, str | None]:
    """The boolean flags of a Typer command or group: name → its negative option, None without one."""
    if subcommands := getattr(command, "commands", None):
        return {name: no for subcommand in subcommands.values() for name, no in boolean_flags(subcommand).items()}
    return {
        parameter.opts[0].removeprefix("--"): next(iter(parameter.secondary_opts), None)
        for parameter in command.params
        if getattr(parameter, "is_flag", False)
    }


def normalize_arguments(arguments: Sequence[str], flags: Mapping[str, str | None]) -> list[str]:
    """The command line in one spelling; `flags` are its `boolean_flags`.

    Underscores in option names become dashes, and `--flag=true|false` becomes `--flag` or `--no-flag`: W&B writes them
    so in `${args}`. Options that begin with `--_wandb`, which W&B adds on resume, are dropped, and so is `--debug`,
    which `run` reads. Raises InputError for a flag that is neither true nor false.
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
        if equals and option.removeprefix("--no-").removeprefix("--") in flags:
            normal.extend(_normal_flag(option, value, flags))
        else:
            normal.append(option + equals + value)
    return normal


def _normal_flag(option: str, value: str, flags: Mapping[str, str | None]) -> list[str]:
    if value.lower() not in ("true", "false"):
        raise InputError(f"{option}: {value!r} is neither true nor false")
    name = option.removeprefix("--no-").removeprefix("--")
    wanted = (value.lower() == "true") != option.startswith("--no-")
    spelling = f"--{name}" if wanted else flags[name]
    return [spelling] if spelling else []
