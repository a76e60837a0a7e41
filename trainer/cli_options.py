"""How a command line is read: a dataclass's options as those of a Typer command, and one spelling for all options."""

from __future__ import annotations

import difflib
import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, get_type_hints

import typer
from pydantic import ValidationError
from typer.core import TyperGroup

from trainer.errors import InputError, choose, did_you_mean
from trainer.option_fields import Option, flag, options

Command = Callable[..., None]

# What other tools call ours, where the letters do not tell.
COMMAND_WORDS = {
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
OPTION_WORDS = {
    "lr": "learning-rate",
    "bs": "batch-size",
    "wd": "weight-decay",
    **dict.fromkeys(("arch", "network"), "model"),
    **dict.fromkeys(("data", "input"), "dataset"),
    **dict.fromkeys(("img-size", "imgsz", "size"), "image-size"),
    **dict.fromkeys(("output", "output-dir"), "run-dir"),
}
# Of pydantic, which Typer reads values with.
EXPECTED = {"int_parsing": "a whole number", "float_parsing": "a number"}


class Commands(TyperGroup):
    """A group that guesses which command was meant."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Raises InputError, with the nearest names, for a command that it does not have."""
        name = args[0]
        if not ctx.resilient_parsing and not name.startswith("-"):
            meant = COMMAND_WORDS.get(name, name)
            if meant != name and meant.split()[0] in self.commands:
                raise InputError(f"no such command: {name}{did_you_mean([meant])}")
            choose("no such command", name, self.commands)
        return super().resolve_command(ctx, args)


def in_our_words(error: BaseException) -> BaseException:
    """Typer's error for an unknown option or a wrong value as an InputError that guesses; any other as it is."""
    if (name := getattr(error, "option_name", None)) and hasattr(error, "possibilities"):
        known = [one for parameter in error.ctx.command.params for one in parameter.opts]  # type: ignore[attr-defined]
        meant = "--" + OPTION_WORDS.get(name.removeprefix("--"), "")
        near = [meant] if meant in known else difflib.get_close_matches(name, known, n=3)
        return InputError(f"no such option: {name}{did_you_mean(near)}")
    if isinstance(error, typer.BadParameter) and isinstance(error.__cause__, ValidationError):
        first = error.__cause__.errors()[0]
        expected = EXPECTED.get(first["type"])
        problem = f"is wrong; {expected} is expected" if expected else f"is wrong: {first['msg']}"
        option = error.param.opts[0] if error.param else error.param_hint
        return InputError(f"{option}: {first['input']!r} {problem}")
    return error


def typer_option(config: type[Any], name: str) -> Any:
    """The field `name` of a dataclass as Typer's kind of option, to be used in `Annotated`."""
    one: Option = options(config)[name]
    return typer.Option(metavar=one.metavar, help=one.described())


def with_options(
    config: type[Any], defaults_of: Mapping[str, Callable[[str], Mapping[str, str]]] | None = None
) -> Callable[[Command], Command]:
    """Decorator: the command gets an option for each of the dataclass's, and one `config` made of them.

    `defaults_of`: an option → what its value makes the defaults of the others, as the command line spells them.

    `command(config, …)`, whose other parameters stay, becomes what Typer can read: Typer takes the signature and the
    annotations of a function for its command line.
    """

    def decorate(command: Command) -> Command:
        _, *own = inspect.signature(command, eval_str=True).parameters.values()

        @functools.wraps(command)
        def run(**values: Any) -> None:
            asked = {name: values.pop(name) for name in options(config)}
            for name, one in options(config).items():
                if one.first:
                    asked[name] = require(config, name, either(flag(name), values.pop(f"first_{name}"), asked[name]))
            parsers = {name: one.parse for name, one in options(config).items() if one.parse}
            asked |= {name: parse(asked[name]) for name, parse in parsers.items()}
            command(config(**asked), **values)

        parameters = [
            *_parameters(config, defaults_of or {}),
            *(one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in own),
        ]
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {one.name: one.annotation for one in parameters}
        return run

    return decorate


def either(name: str, first: str | None, named: str | None) -> str | None:
    """What was given as an argument or by the option `name` of the same meaning. InputError for two that differ."""
    if first is not None and named is not None and first != named:
        raise InputError(f"{name}: both {first!r} and {named!r} are given; one is expected")
    return named if first is None else first


def require(config: type[Any], name: str, value: str | None) -> str:
    """The value of the field `name` of a dataclass. InputError where there is none."""
    if value is None:
        raise InputError(f"{flag(name)} is missing: {options(config)[name].described()}")
    return value


def first_argument(config: type[Any], name: str) -> Any:
    """The field `name` of a dataclass as Typer's kind of argument, which may stand in place of its option."""
    one: Option = options(config)[name]
    help_text = f"{one.described()} The same as {flag(name)}."
    return typer.Argument(metavar=one.metavar, help=help_text, show_default=False)


def _parameters(
    config: type[Any], defaults_of: Mapping[str, Callable[[str], Mapping[str, str]]]
) -> list[inspect.Parameter]:
    types = get_type_hints(config)
    defaults = inspect.signature(config).parameters
    keyword_only = inspect.Parameter.KEYWORD_ONLY
    found = []
    for name, one in options(config).items():
        kind: Any = str | None if one.parse else types[name]
        default = defaults[name].default
        if one.first:
            kind, default = kind | None, None
            argument = Annotated[kind, first_argument(config, name)]
            found.append(inspect.Parameter(f"first_{name}", keyword_only, default=None, annotation=argument))
        shown = typer_option(config, name)
        if name in defaults_of:
            shown.is_eager = True  # read before those whose defaults it gives
            shown.callback = _giving_defaults(defaults_of[name])
        found.append(inspect.Parameter(name, keyword_only, default=default, annotation=Annotated[kind, shown]))
    return found


def _giving_defaults(defaults_of: Callable[[str], Mapping[str, str]]) -> Callable[[typer.Context, str], str]:
    def give(context: typer.Context, value: str) -> str:
        context.default_map = dict(defaults_of(value))
        return value

    return give


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
