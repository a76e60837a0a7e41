"""Arguments and output that several groups of commands share."""

from __future__ import annotations

import logging
import os
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer

from trainer.cli_options import typer_argument, typer_option
from trainer.config import FitConfig
from trainer.errors import InputError

log = logging.getLogger("trainer")

DatasetArgument = Annotated[str | None, typer_argument(FitConfig, "dataset")]
DatasetOption = Annotated[str | None, typer_option(FitConfig, "dataset")]
DataDirOption = Annotated[Path | None, typer_option(FitConfig, "data_dir")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object per line; logs go to stderr.")]
PromoteOption = Annotated[bool, typer_option(FitConfig, "promote")]
ModelArgument = Annotated[
    str, typer.Argument(metavar="MODEL", help="A model's tag: mnist, mnist:latest or mnist:VERSION.")
]
ReportDirOption = Annotated[Path | None, typer.Option(help="Where the report goes (default: a folder below report/).")]
TokenFileOption = Annotated[
    Path | None,
    typer.Option(
        help="With --url: the file's first token is sent to the server (default: the variable TRAINER_TOKEN's)."
    ),
]

REPORTS = Path("report")
FIRST_FIT = ("trainer", "fit", "--dataset", "builtin:digits")  # needs neither data nor network


def report_folder(asked: Path | None) -> Path | None:
    """`--report-dir`; a temporary folder where none is given and REPORTS cannot be written. Raises InputError."""
    from trainer.files import can_write

    if asked is not None and not can_write(asked):
        raise InputError(f"--report-dir: {asked} cannot be written")
    if asked is not None or can_write(REPORTS):
        return asked
    import tempfile

    folder = Path(tempfile.mkdtemp(prefix="trainer-report-"))
    log.warning("%s cannot be written: the report goes to %s", REPORTS.absolute(), folder)
    return folder


def server_token(url: str | None, token_file: Path | None) -> str:
    """The token for the server at `--url`; empty without one. Raises InputError for `--token-file` without `--url`."""
    from trainer.serving.tokens import token_to_send

    if url:
        return token_to_send(token_file, os.environ)
    if url is None and token_file is not None:
        raise InputError("--token-file: only a server wants a token; --url names it")
    return ""


def shorten_spec(spec: str) -> str:
    """A data set's spec with the last part of its path only."""
    return re.sub(r"^(folder|csv):.*/(?=.)", "…/", spec)


def format_age(created: str) -> str:
    """The time since `created` (ISO 8601) in minutes, hours or days. Another machine's clock may be ahead."""
    age = datetime.now(UTC) - datetime.fromisoformat(created)
    if age < timedelta(0):
        return "just now"
    if age < timedelta(hours=1):
        return f"{age // timedelta(minutes=1)} min"
    if age < timedelta(days=1):
        return f"{age // timedelta(hours=1)} h"
    return f"{age.days} d"


def format_size(size_bytes: int) -> str:
    """A size in megabytes, or in gigabytes from one on."""
    if size_bytes >= 1e9:
        return f"{size_bytes / 1e9:.1f} GB"
    return f"{size_bytes / 1e6:.0f} MB"
