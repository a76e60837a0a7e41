"""`trainer data inspect`, `trainer cache info` and `trainer cache prune`."""

from __future__ import annotations

import logging
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trainer.cli.common import DataDirOption, DatasetArgument, DatasetOption, JsonOption, format_size
from trainer.cli_options import either, require
from trainer.config import FitConfig
from trainer.console import print_json, print_line, print_next, print_table
from trainer.errors import InputError
from trainer.text import counted

if TYPE_CHECKING:
    from trainer.data import Dataset
    from trainer.data.dataset_summary import DatasetSummary

log = logging.getLogger("trainer")

MAX_SIZES = 5  # image sizes that are listed
MAX_REJECTED = 20  # rejected files that are listed


def inspect(
    first_dataset: DatasetArgument = None,
    dataset: DatasetOption = None,
    data_dir: DataDirOption = None,
    sheet: Annotated[
        Path | None, typer.Option(help="Where the contact sheet goes (default: contact-sheet-NAME.png).")
    ] = None,
    page: Annotated[
        Path | None, typer.Option(help="Write a page with the images in question, on which you choose what to do.")
    ] = None,
    fix: Annotated[
        Path | None, typer.Option(help="Write a table (csv:FILE) as --choices has it; no image is changed.")
    ] = None,
    choices: Annotated[Path | None, typer.Option(help="With --fix: the file that the page has saved.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Show classes, counts, sizes, rejected files and what may be wrong with the images, and draw a contact sheet."""
    from trainer.data import load
    from trainer.data.dataset_summary import summarize
    from trainer.data.sources.spec import open_source
    from trainer.data_checks import fix as fixing
    from trainer.data_checks.class_counts import missing_classes
    from trainer.data_checks.page import write_page
    from trainer.data_checks.run import run_checks
    from trainer.data_checks.summary import sentences, to_dict
    from trainer.files import writing_to
    from trainer.models import default_architecture

    spec = require(FitConfig, "dataset", either(FitConfig, "dataset", first_dataset, dataset))
    if (fix is None) != (choices is None):
        raise InputError("--fix and --choices go together: --page FILE writes a page that saves your choices")
    if fix and (sheet or page):
        raise InputError(f"{'--sheet' if sheet else '--page'}: --fix writes the table only; leave one out")
    source = open_source(spec, data_dir)
    if fix and choices:
        root = fixing.check(fix, source.spec)
    loaded = load(
        source,
        input_preference=lambda sizes: default_architecture(sizes, "none").input_preference,
        any_rejected=True,
    )
    if fix and choices:
        written = fixing.apply(fix, root, loaded, choices)
        if as_json:
            print_json(asdict(written))
            return
        print_line(
            f"{written.table}: {written.images:,} images, {written.left_out:,} left out, {written.relabelled:,} with "
            "another label; no image was deleted or changed"
        )
        print_next(*fixing.fit_command(written.table, loaded.name))
        return
    summary = summarize(loaded)
    sheet_file = _draw_sheet(loaded, sheet or Path(f"contact-sheet-{loaded.name}.png"))
    findings = run_checks(loaded, source)
    if page:
        with writing_to(f"--page: {page}"):
            write_page(findings, page, name=loaded.name, spec=spec, data_dir=data_dir, source=source)
    if as_json:
        files = {"contact_sheet": str(sheet_file) if sheet_file else None, "page": str(page) if page else None}
        print_json({**summary.to_dict(), **files, "findings": to_dict(findings)})
        return
    _print_dataset(summary, sheet_file)
    for line in (*missing_classes(loaded), *sentences(findings)):
        print_line(line)
    if page:
        print_line(f"the images in question, and what to do with each: open {page} in a browser")
    options = ("--data-dir", data_dir) if data_dir else ()
    if findings.has_images and page is None:
        print_next("trainer", "data", "inspect", spec, *options, "--page", "page.html")
    else:
        print_next("trainer", "fit", "--dataset", spec, *options)


def prune() -> None:
    """Delete the decoded images that no process is using; they are made again when needed."""
    from trainer.data.cache.entries import prune as prune_cache

    count, size_bytes = prune_cache()
    print_line(f"{counted(count, 'entry', 'entries')} deleted, {format_size(size_bytes)} freed")


def info() -> None:
    """Say where the decoded images are, and how much disk they take; `prune` makes it free."""
    from trainer.data.cache.entries import cache_dir, usage

    count, size_bytes = usage()
    print_line(f"{cache_dir()}: {counted(count, 'entry', 'entries')}, {format_size(size_bytes)}")


def _draw_sheet(dataset: Dataset, file: Path) -> Path | None:
    """Draw the contact sheet → its file; None, with a warning, where it cannot be written."""
    from trainer.data.contact_sheet import draw_contact_sheet

    try:
        draw_contact_sheet(dataset, file)
    except OSError as error:
        log.warning("the contact sheet %s cannot be written: %s; --sheet names another place", file, error.strerror)
        return None
    return file


def _print_dataset(summary: DatasetSummary, sheet: Path | None) -> None:
    """Print counts, sizes and rejected files."""
    counts = summary.counts
    print_table(
        summary.spec,
        ("class", *counts),
        [(name, *(f"{counts[split][i]:,}" for split in counts)) for i, name in enumerate(summary.class_names)],
    )
    for height, width, channels, images in summary.sizes[:MAX_SIZES]:
        print_line(f"{counted(images, 'image')} of {height}x{width}x{channels}")
    if len(summary.sizes) > MAX_SIZES:
        print_line(f"and {counted(len(summary.sizes) - MAX_SIZES, 'more size')}")
    pixels = summary.pixels
    drawn = f"; contact sheet in {sheet}" if sheet else ""
    print_line(f"decoded to {pixels.height}x{pixels.width}x{pixels.channels}{drawn}")
    print_line(f"{len(summary.rejected)} rejected, {summary.ignored} ignored (no images)")
    for file in summary.rejected[:MAX_REJECTED]:
        print_line(f"  {file.path}: {file.reason}")
    if summary.too_many_rejected:
        print_line("trainer fit refuses so many: replace or delete them")
