"""Errors of a command line in our words: unknown options, wrong values, and paths that were not quoted."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

import typer

from trainer.errors import InputError, did_you_mean
from trainer.text import shell_command

# Names that other tools use, too far from ours for Typer's suggestion by spelling.
OPTION_SYNONYMS = {
    "lr": "learning-rate",
    "bs": "batch-size",
    "wd": "weight-decay",
    **dict.fromkeys(("arch", "network"), "model"),
    **dict.fromkeys(("data", "input"), "dataset"),
    **dict.fromkeys(("img-size", "imgsz", "size"), "image-size"),
    **dict.fromkeys(("output", "output-dir"), "run-dir"),
}
EXPECTED_TYPES = {"int_parsing": "a whole number", "float_parsing": "a number"}  # by pydantic's kinds of error
EXTRA_ARGUMENTS = re.compile(r"Got unexpected extra arguments?(?:\(s\))? \((.*)\)")  # Typer's message
BEFORE_PATH = re.compile(r"^(?:--[\w-]+=)?(?:folder:|csv:)?")
MAX_PATH_WORDS = 4  # of a path with spaces


def explain_usage_error(error: BaseException) -> BaseException:
    """An InputError for Typer's error about an unknown option, a wrong value or an argument too many.

    Any other error stays as it is.
    """
    if (name := getattr(error, "option_name", None)) and hasattr(error, "possibilities"):
        known = [option for parameter in error.ctx.command.params for option in parameter.opts]  # type: ignore[attr-defined]
        meant = "--" + OPTION_SYNONYMS.get(name.removeprefix("--"), "")
        near = [meant] if meant in known else error.possibilities or ()
        return InputError(f"no such option: {name}{did_you_mean(near)}")
    if isinstance(error, typer.BadParameter) and (errors := getattr(error.__cause__, "errors", None)):
        first = errors()[0]  # pydantic's errors: Typer parses values with it
        expected = EXPECTED_TYPES.get(first["type"])
        problem = f"is wrong; {expected} is expected" if expected else f"is wrong: {first['msg']}"
        option = error.param.opts[0] if error.param else error.param_hint
        return InputError(f"{option}: {first['input']!r} {problem}")
    if extra := EXTRA_ARGUMENTS.fullmatch(str(getattr(error, "message", ""))):
        return InputError(f"unexpected: {extra[1]}; quote a path with spaces")
    return error


def hint_at_quotes(error: BaseException, command_line: Sequence[str]) -> BaseException:
    """An InputError where an error of the input comes from a path with spaces that was not quoted; else the error."""
    if getattr(error, "exit_code", None) != InputError.exit_code:
        return error
    for start, word in enumerate(command_line):
        first = BEFORE_PATH.sub("", word)
        for stop in range(start + 2, min(start + MAX_PATH_WORDS, len(command_line)) + 1):
            path = " ".join((first, *command_line[start + 1 : stop]))
            if os.path.exists(path) and not os.path.exists(first):
                return InputError(f"a path with a space is to be quoted: {shell_command([path])}")
    return error
