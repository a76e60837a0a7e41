"""Check of a trial's options before the sweep starts, by the parser of `trainer fit` itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import typer
from typer.main import get_command

from trainer.cli_options import boolean_flags, normalize_arguments, with_options
from trainer.config import FitConfig
from trainer.errors import InputError
from trainer.models import check_model_name
from trainer.usage_errors import explain_usage_error

HELP = ("-h", "--help")


def parse_options(words: Sequence[str]) -> FitConfig:
    """The configuration for these options of `trainer fit`. Raises InputError where it would refuse them."""
    if any(word in HELP for word in words):
        raise InputError("--help is no option of a trial")
    command, parsed = _parser()
    try:
        command(normalize_arguments(words, boolean_flags(command)), standalone_mode=False)
    except Exception as error:  # Typer's usage errors have no common public base
        if isinstance(explained := explain_usage_error(error), InputError):
            raise explained from None
        if hasattr(error, "format_message"):
            raise InputError(" ".join(error.format_message().split())) from None
        raise
    config = parsed.pop()
    check_model_name(config.model)
    return config


@cache
def _parser() -> tuple[Callable[..., Any], list[FitConfig]]:
    """A Typer command with the options of `trainer fit`, and the list that it puts the configuration into."""
    parsed: list[FitConfig] = []
    app = typer.Typer(add_completion=False)

    @app.command()
    @with_options(FitConfig)
    def command(config: FitConfig) -> None:
        parsed.append(config)

    return get_command(app), parsed
