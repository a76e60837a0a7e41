"""What the command line shows: logs, progress, tables, errors; and the signals that it turns into them."""

from __future__ import annotations

import errno
import json
import logging
import shlex
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from trainer.config import InputError, Interrupted, TrainerError

log = logging.getLogger("trainer")

MAX_WHOLE = 40  # letters, up to which the first column of a table is not broken


def set_up_logging() -> None:
    """Plain lines on stderr: stdout is for results."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", datefmt="%H:%M:%S"))
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False


def normalize_arguments(arguments: Sequence[str]) -> list[str]:
    """The command line in one spelling.

    Underscores in option names become dashes and `--flag=true|false` becomes `--flag` or `--no-flag`, as W&B
    writes them in `${args}`; options that begin with `--_wandb` (added by W&B on resume) are
    dropped, and so is `--debug`, which `run` has seen.
    """
    flags = {"save": "--no-save", "json": None, "events": None}  # what each reads when it is false; None: left out
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
            normal.extend(_flag(option, value, flags))
        else:
            normal.append(option + equals + value)
    return normal


def _flag(option: str, value: str, flags: dict[str, str | None]) -> list[str]:
    if value.lower() not in ("true", "false"):
        raise InputError(f"{option}: {value!r} is neither true nor false")
    name = option.removeprefix("--no-").removeprefix("--")
    wanted = (value.lower() == "true") != option.startswith("--no-")
    spelling = f"--{name}" if wanted else flags[name]
    return [spelling] if spelling else []


def fail(error: BaseException) -> int:
    """Print an error as one line on stderr; its exit code."""
    from trainer.artifact.spec import ArtifactError

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
    sys.stderr.write(f"{prefix}{message}\n")
    return code


def print_json(value: Any) -> None:
    """One JSON object on one line of stdout."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False) + "\n")
    sys.stdout.flush()


def print_next(*command: str | Path) -> None:
    """The closing line of a command: what to try next. On stderr, as it is no result that a pipe should carry."""
    sys.stdout.flush()
    sys.stderr.write(f"next: {shlex.join(map(str, command))}\n")


def serve_command(model: str) -> tuple[str, ...]:
    """What serves a model of the store, by its name or tag."""
    return ("bentoml", "serve", "--arg", f"model={model}")


def print_saved(tag: str, worse_than: str | None) -> None:
    """The last lines of what has published a model: its tag, and the command that serves it, or that goes back."""
    sys.stdout.write(f"saved as {tag}\n")
    if worse_than:
        print_next("bentoml", "models", "delete", tag)
    else:
        print_next(*serve_command(tag.partition(":")[0]))


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table on stdout; numbers to the right of the first column."""
    from rich.console import Console
    from rich.table import Table

    table = Table()
    whole = max((len(row[0]) for row in rows), default=0) <= MAX_WHOLE
    for index, column in enumerate(columns):
        first = index == 0
        table.add_column(column, justify="left" if first else "right", overflow="fold", no_wrap=first and whole)
    for row in rows:
        table.add_row(*row)
    console = Console()
    # Not the title of the table: that is broken at its width.
    console.print(title, style="italic", markup=False, highlight=False, soft_wrap=True)
    console.print(table)


class TrainingDisplay:
    """Progress of a training (a bar on a terminal, plain lines in a log), and its signals.

    Outside `defer_signals` SIGINT and SIGTERM raise Interrupted at once; within, `check_interrupted` does.
    """

    def __init__(self, *, json_events: bool = False) -> None:
        """`json_events`: each epoch is also a JSON object on stdout, for a program that follows the training."""
        self._json_events = json_events
        self._received: int | None = None
        self._deferred = False
        self._previous: dict[int, Any] = {}
        self._progress: Any = None

    def __enter__(self) -> TrainingDisplay:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._previous[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(self, *_: object) -> None:
        self._stop_bar()
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    @contextmanager
    def defer_signals(self) -> Iterator[None]:
        """While the training loop runs: a signal waits until the loop asks."""
        self._deferred = True
        try:
            yield
        finally:
            self._deferred = False
            self._stop_bar()

    def check_interrupted(self) -> None:
        """Raise Interrupted once a signal has come."""
        if self._received is not None:
            raise _interrupted(self._received)

    def on_progress(self, step: int, total_steps: int) -> None:
        """Training steps done, of all."""
        if not sys.stderr.isatty():
            return
        if self._progress is None:
            from rich.console import Console
            from rich.progress import Progress

            self._progress = Progress(console=Console(stderr=True), transient=True)
            self._progress.start()
            self._progress.add_task("training", total=total_steps)
        self._progress.update(self._progress.task_ids[0], completed=step)

    def on_epoch(self, entry: dict[str, float], epochs: int) -> None:
        """The figures of a finished epoch."""
        log.info(
            "epoch %d/%d: loss %.4f, accuracy %.2f%%, validation loss %.4f, accuracy %.2f%%, %.0f images/s",
            entry["epoch"],
            epochs,
            entry["loss"],
            100 * entry["accuracy"],
            entry["val_loss"],
            100 * entry["val_accuracy"],
            entry["images_per_second"],
        )
        if self._json_events:
            print_json({"event": "epoch", "epochs": epochs, **entry})

    def _on_signal(self, number: int, _: FrameType | None) -> None:
        if self._deferred and self._received is None:
            self._received = number
            log.info("%s: stopping after a checkpoint", signal.Signals(number).name)
        else:
            raise _interrupted(number)

    def _stop_bar(self) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = None


def _interrupted(number: int) -> Interrupted:
    return Interrupted(f"{signal.Signals(number).name}: stopped; run the same command again to continue", 128 + number)
