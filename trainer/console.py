"""What every command shows: logs, tables, JSON, errors, and the command to try next."""

from __future__ import annotations

import errno
import json
import logging
import re
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trainer.errors import Interrupted, TrainerError

log = logging.getLogger("trainer")

NEXT = "next: "  # begins the closing line of a command
ECHO_S = 3.0  # a person who wants to stop at once has waited longer
MAX_WHOLE = 40  # letters, up to which the first column of a table is not broken
WIDEST = 1000  # letters, of a table
# Of a URL: what stands between the user and the last @, and what is named like a secret.
SECRETS = re.compile(r"(?<=://)([^\s:/@]*):\S*@|([?&]\w*(?:pass|secret|token)\w*)=[^&\s\x22\x27]*", re.IGNORECASE)


def masked(text: str) -> str:
    """Text for people and logs, without the passwords of its URLs."""
    return SECRETS.sub(lambda found: f"{found[2]}=***" if found[2] else f"{found[1]}:***@", text)


class _LogLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return masked(super().format(record))


def set_up_logging() -> None:
    """Plain lines on stderr: stdout is for results."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_LogLines("%(asctime)s %(message)s", datefmt="%H:%M:%S"))
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False


def fail(error: BaseException) -> int:
    """Print an error as one line on stderr; its exit code."""
    from trainer.errors import ArtifactError

    message = " ".join(str(error).split()) or type(error).__name__
    code = 1
    if isinstance(error, TrainerError):
        code = error.exit_code
    elif isinstance(error, ArtifactError):
        code = 2
    elif isinstance(error, KeyboardInterrupt):
        message, code = "interrupted", 130
    elif isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        message, code = f"the disk is full: {message}; make room and run the same command again to resume", 3
    elif hasattr(error, "format_message"):  # a usage error of Typer's
        message, code = " ".join(error.format_message().split()), 2
        if not message:  # a command without arguments has shown its help
            return code
    else:
        message = f"internal error: {type(error).__name__}: {message} (--debug shows where)"
    prefix = "" if isinstance(error, Interrupted) else "error: "  # somebody asked for it
    sys.stderr.write(f"{prefix}{masked(message)}\n")
    for note in getattr(error, "__notes__", ()):
        if note.startswith(NEXT):  # others have notes, too
            sys.stderr.write(f"{note}\n")
    return code


class Echoes:
    """Tells a signal that somebody sends again from one that arrives twice.

    Ctrl-C reaches a whole process group, systemd signals every process of a unit, and a sweep or `wandb agent` then
    passes its own signal on: two of them, meant as one.
    """

    def __init__(self) -> None:
        self._since: float | None = None

    def is_echo(self) -> bool:
        """Whether the signal that has just come is the one before once more."""
        now = time.monotonic()
        if self._since is not None and now - self._since < ECHO_S:
            return True
        self._since = now
        return False


def print_json(value: Any) -> None:
    """One JSON object on one line of stdout."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False) + "\n")
    sys.stdout.flush()


def print_next(*command: str | Path) -> None:
    """The closing line of a command: what to try next. On stderr, as it is no result that a pipe should carry."""
    sys.stdout.flush()
    sys.stderr.write(f"{_next(command)}\n")


def close_with_next(error: BaseException, *command: str | Path) -> None:
    """Have `fail` print, after the error, the command that goes on."""
    error.add_note(_next(command))


def _next(command: Sequence[str | Path]) -> str:
    return NEXT + shlex.join(masked(str(word)) for word in command)


def serve_command(model: str) -> tuple[str, ...]:
    """What serves a model of the store, by its name or tag."""
    return ("trainer", "serve", model)


def print_saved(tag: str, latest: str | None) -> None:
    """The last lines of what has published a model: its tag, and the command that serves what its name means now."""
    if tag == latest:
        sys.stdout.write(f"saved as {tag}\n")
        print_next(*serve_command(tag.partition(":")[0]))
        return
    sys.stdout.write(f"saved as {tag}, not promoted; `trainer promote {tag}` promotes it\n")
    print_next(*(serve_command(latest) if latest else ("trainer", "models")))


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], *, whole: bool = False) -> None:
    """A table on stdout; numbers to the right of the first column.

    `whole`: that one is never broken, as a person copies it; the table is then as wide as it must be.
    """
    from rich.console import Console
    from rich.table import Table

    table = Table()
    no_wrap = whole or max((len(row[0]) for row in rows), default=0) <= MAX_WHOLE
    for index, column in enumerate(columns):
        first = index == 0
        table.add_column(column, justify="left" if first else "right", overflow="fold", no_wrap=first and no_wrap)
    for row in rows:
        table.add_row(*row)
    console = Console()
    if whole:
        least = console.measure(table, options=console.options.update(max_width=WIDEST)).minimum
        console.width = max(console.width, least)
    # Not the title of the table: that is broken at its width.
    console.print(title, style="italic", markup=False, highlight=False, soft_wrap=True)
    console.print(table)
