"""Log lines, errors, JSON, tables, durations, and the command to try next."""

from __future__ import annotations

import errno
import json
import logging
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO

from trainer.errors import Interrupted, TrainerError
from trainer.files import DISK_ERRORS, FULL
from trainer.text import printable, printable_json, shell_command

log = logging.getLogger("trainer")

NEXT = "next: "  # start of a command's closing line
MAX_UNBROKEN = 40  # letters; a first column up to this width is never broken
MAX_TABLE_WIDTH = 1000  # letters
# In a URL: the password between the user and the last @, and values whose names look like a secret's.
SECRETS = re.compile(r"(?<=://)([^\s:/@]*):\S*@|([?&]\w*(?:pass|secret|token)\w*)=[^&\s\x22\x27]*", re.IGNORECASE)


def masked(text: str) -> str:
    """`text` with the passwords and secrets in its URLs replaced by ***."""
    return SECRETS.sub(lambda found: f"{found[2]}=***" if found[2] else f"{found[1]}:***@", text)


_json_stream: TextIO | None = None  # None: sys.stdout


class _LogLines(logging.Formatter):
    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  # overrides
        record.message = printable(record.message)
        return super().formatMessage(record)

    def format(self, record: logging.LogRecord) -> str:
        return masked(super().format(record))


def set_up_logging() -> None:
    """Log plain lines to stderr; stdout is for results."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_LogLines("%(asctime)s %(message)s", datefmt="%H:%M:%S"))
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False


def fail(error: BaseException) -> int:
    """Print an error as one line on stderr; return its exit code."""
    message = " ".join(str(error).split()) or type(error).__name__
    code = 1
    if isinstance(error, TrainerError):
        code = error.exit_code
    elif isinstance(error, KeyboardInterrupt):
        message, code = "interrupted", 130
    elif isinstance(error, OSError) and error.errno in FULL:
        message, code = f"the disk is full: {message}; make room and run the same command again to resume", 3
    elif isinstance(error, OSError) and error.errno in (*DISK_ERRORS, errno.EROFS):
        message, code = f"the disk fails: {message}; once it is mended, run the same command again to resume", 3
    elif hasattr(error, "format_message"):  # a usage error of Typer's
        message, code = " ".join(error.format_message().split()), 2
        if not message:  # a command without arguments has shown its help
            return code
    else:
        message = f"internal error: {type(error).__name__}: {message} (--debug shows where)"
    prefix = "" if isinstance(error, Interrupted) else "error: "  # an interruption was asked for
    sys.stderr.write(f"{prefix}{printable(masked(message))}\n")
    for note in getattr(error, "__notes__", ()):
        if note.startswith(NEXT):  # other libraries add notes, too
            sys.stderr.write(f"{note}\n")
    return code


def reserve_stdout() -> None:
    """Keep stdout for `print_json`: what libraries print there goes to stderr until the process ends."""
    global _json_stream  # noqa: PLW0603 - one per process, as stdout is
    if sys.__stdout__ is not None and sys.stdout is sys.__stdout__:
        sys.__stdout__.flush()
        _json_stream = os.fdopen(os.dup(1), "w", encoding="utf-8")
        os.dup2(2, 1)


def print_json(value: Any) -> None:
    """Print one JSON object on one line of stdout."""
    stream = _json_stream or sys.stdout
    stream.write(printable_json(json.dumps(value, ensure_ascii=False)) + "\n")
    stream.flush()


def print_line(text: str) -> None:
    """Print one line of text for people on stdout."""
    sys.stdout.write(f"{printable(text)}\n")


def print_next(*command: str | Path) -> None:
    """Print the closing line of a command, what to try next, on stderr: a pipe should carry results only."""
    sys.stdout.flush()
    sys.stderr.write(f"{_next(command)}\n")


def close_with_next(error: BaseException, *command: str | Path) -> None:
    """Have `fail` print, after the error, the command that continues."""
    error.add_note(_next(command))


def _next(command: Sequence[str | Path]) -> str:
    return NEXT + shell_command(masked(str(word)) for word in command)


def serve_command(model: str) -> tuple[str, ...]:
    """The command that serves a model of the store, by name or tag."""
    return ("trainer", "serve", model)


def print_saved(tag: str, latest: str | None) -> None:
    """Print the tag of a published model, and the command that serves the model its name stands for now (`latest`)."""
    if tag == latest:
        print_line(f"saved as {tag}")
        print_next(*serve_command(tag.partition(":")[0]))
        return
    print_line(f"saved as {tag}, not promoted; `trainer promote {tag}` promotes it")
    print_next(*(serve_command(latest) if latest else ("trainer", "models")))


Cell = str | tuple[str, ...]  # one line, or several


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Cell]], *, whole: bool = False) -> None:
    """Print a table on stdout; all columns but the first are right-aligned.

    `whole`: the first column is never broken, so that it can be copied; the table is as wide as that needs.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    def text(cell: Cell) -> Text:  # a str would be read as Rich's markup
        return Text("\n".join(map(printable, (cell,) if isinstance(cell, str) else cell)))

    table = Table()
    cells = [[text(cell) for cell in row] for row in rows]
    no_wrap = whole or max((len(row[0]) for row in cells), default=0) <= MAX_UNBROKEN
    for index, column in enumerate(columns):
        first = index == 0
        table.add_column(text(column), justify="left" if first else "right", overflow="fold", no_wrap=first and no_wrap)
    for row in cells:
        table.add_row(*row)
    console = Console()
    if whole:
        least = console.measure(table, options=console.options.update(max_width=MAX_TABLE_WIDTH)).minimum
        console.width = max(console.width, least)
    # Not as the title of the table, which would be broken at the table's width.
    console.print(printable(title), style="italic", markup=False, highlight=False, soft_wrap=True)
    console.print(table)


def format_duration(seconds: float) -> str:
    """`0.3 s`, `45 s`, `3 min 20 s` or `2 h 5 min`."""
    if seconds < 59.5:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"
    whole = round(seconds)
    minutes = f"{whole // 60} min {whole % 60} s"
    return minutes if whole < 3600 else f"{whole // 3600} h {whole % 3600 // 60} min"
