"""The command line: a module per group of commands. Each command parses, delegates and prints.

Nothing heavy is imported before a command runs: `trainer --help` and shell completion stay fast.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import typer
from typer.main import get_command

from trainer.cli.comparison import compare
from trainer.cli.data import info, inspect, prune
from trainer.cli.fit_help import FitCommand
from trainer.cli.inference import explain, predict, serve
from trainer.cli.runs import runs, sweep
from trainer.cli.store import models, promote, save
from trainer.cli.training import evaluate, fit
from trainer.cli_options import CommandGroup, run_command
from trainer.console import print_line, set_up_logging
from trainer.machine import require_home

# Group → its help, and its commands with an example of each, in the order of the help.
COMMANDS: dict[str, tuple[str, dict[Callable[..., None], str]]] = {
    "": (
        "Fit image classifiers on any folder or TFDS data set, and keep them in the BentoML model store.",
        {
            fit: "fit folder:photos --model compact_resnet --epochs 20",
            evaluate: "evaluate mnist tfds:mnist",
            compare: "compare photos photos:VERSION",
            predict: "predict mnist seven.png",
            explain: "explain photos cat.jpg",
            serve: "serve photos",
            models: "models",
            save: "save runs/mnist-20260101-120000",
            promote: "promote mnist:VERSION",
            runs: "runs --prune",
            sweep: "sweep sweeps/grid.yaml --workers 2 --save-best",
        },
    ),
    "data": ("Look at a data set before training on it.", {inspect: "data inspect folder:photos"}),
    "cache": ("The cache of decoded images.", {info: "cache info", prune: "cache prune"}),
}
HELP_SETTINGS: dict[str, Any] = {"help_option_names": ["-h", "--help"], "max_content_width": 110}
FIRST_EXAMPLE = "fit builtin:digits"  # of the program itself


def _group(name: str) -> typer.Typer:
    help_text, commands = COMMANDS[name]
    group = typer.Typer(
        name=name or "trainer",
        cls=CommandGroup,
        rich_markup_mode=None,  # Rich takes as long to import as the rest of `trainer --help`
        pretty_exceptions_enable=False,
        context_settings=HELP_SETTINGS,
        help=help_text,
        epilog=f"Example: trainer {next(iter(commands.values())) if name else FIRST_EXAMPLE}",
    )
    for command, example in commands.items():
        group.command(epilog=f"Example: trainer {example}", cls=FitCommand if command is fit else None)(command)
    return group


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print_line(version("trainer"))
        raise typer.Exit


app = _group("")
app.add_typer(_group("data"))
app.add_typer(_group("cache"))


@app.callback()
def _root(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    """`--debug` is here for the help only: `run_command` takes it off the command line, wherever it stands."""
    require_home()


def main() -> None:
    """The console script."""
    set_up_logging()
    sys.exit(run(sys.argv[1:]))


def run(command_line: Sequence[str]) -> int:
    """Run one command line → the exit code."""
    if command_line[:1] == ["help"]:
        command_line = [*command_line[1:], "--help"]
    return run_command(get_command(app), command_line)
