"""Writes a table (`csv:FILE`) of a data set with a person's choices: images left out, labels changed.

The images stay untouched: the table lists the files, their labels and their splits, so that metrics stay comparable.
The choices are a JSON file, which the page saves.
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer.data import Dataset
from trainer.data.sources.base import SPLITS
from trainer.data.sources.csv import COLUMNS, CsvSource, parse_csv_spec
from trainer.data_checks.images import CheckedImages
from trainer.errors import InputError, choose
from trainer.files import rename_file, writing_to
from trainer.text import printable

OPTION = "--fix"
CHOICES = "--choices"


@dataclass(frozen=True)
class Choices:
    """A person's choices, by the names of the images."""

    leave_out: frozenset[str]
    relabel: Mapping[str, str]  # → class name

    @classmethod
    def read(cls, file: Path, images: CheckedImages) -> Choices:
        """Raises InputError for a file of another format, and for an image or a class that does not exist."""
        try:
            values: Any = json.loads(file.read_text(encoding="utf-8"))
        except OSError as error:
            raise InputError(f"{CHOICES}: {file} cannot be read: {error.strerror}") from error
        except ValueError as error:
            raise InputError(f"{CHOICES}: {file} is not JSON: {error}") from error
        try:
            leave_out = [str(name) for name in values["leave_out"]]
            relabel = {str(name): str(class_name) for name, class_name in values["relabel"].items()}
        except (KeyError, TypeError, AttributeError) as error:
            raise InputError(
                f'{CHOICES}: {file} is expected to be the file that the page saves: {{"leave_out": [image, …], '
                '"relabel": {image: class, …}}'
            ) from error
        names, class_names = _by_shown_name(images.names), _by_shown_name(images.class_names)
        for name in (*leave_out, *relabel):
            if name not in names:
                raise InputError(f"{CHOICES}: {file} names the image {name!r}, which the data set does not have")
        for name, class_name in relabel.items():
            choose(f"{CHOICES}: {file}: the class of {name!r}", class_name, class_names)
        return cls(
            leave_out=frozenset(names[name] for name in leave_out),
            relabel={names[name]: class_names[class_name] for name, class_name in relabel.items()},
        )


def _by_shown_name(names: Sequence[str]) -> dict[str, str]:
    """Image names by the name itself, and by the printable form that the page shows and saves."""
    return {printable(name): name for name in names} | {name: name for name in names}


@dataclass(frozen=True)
class WrittenTable:
    """Counts of a table that was written."""

    table: str
    images: int
    left_out: int
    relabelled: int


def fit_command(table: Path | str, name: str) -> tuple[str, ...]:
    """The command that fits the mended table as another version of the model `name`, and not as one of its own."""
    return ("trainer", "fit", f"csv:{table}", "--name", name)


def source_folder(spec: str) -> Path | None:
    """The folder with the images of a data set `spec`; None where they are not files."""
    kind, _, rest = spec.partition(":")
    if kind == "csv":
        return parse_csv_spec(rest).file.parent
    return Path(rest) if kind == "folder" else None


def check(file: Path, spec: str) -> Path:
    """The folder with the images of `spec`. Raises InputError where a table at `file` cannot list them."""
    root = source_folder(spec)
    if root is None:
        raise InputError(f"{OPTION}: {spec} has no files that a table could list; a folder or csv:FILE is expected")
    if not root.is_relative_to(_folder(file)):
        raise InputError(
            f"{OPTION}: {file} is expected in {root}, or in a folder above it: a table lists files beside it"
        )
    if file.exists():
        raise InputError(f"{OPTION}: {file} exists already, and nothing is overwritten; choose another name")
    return root


def apply(file: Path, root: Path, dataset: Dataset, choices_file: Path) -> WrittenTable:
    """Write `file` with the choices applied; `root` comes from `check`. Raises InputError, and then writes nothing."""
    images = CheckedImages.of(dataset)
    choices = Choices.read(choices_file, images)
    _write_table(file, root, images, choices)
    left_out = len(choices.leave_out)
    return WrittenTable(
        table=str(file),
        images=len(images) - left_out,
        left_out=left_out,
        relabelled=sum(name not in choices.leave_out for name in choices.relabel),
    )


def _write_table(file: Path, root: Path, images: CheckedImages, choices: Choices) -> None:
    prefix = root.relative_to(_folder(file))
    partial = file.with_name(f"{file.name}.partial")
    rows = zip(images.names, images.labels.tolist(), images.splits.tolist(), strict=True)
    with writing_to(f"{OPTION}: {file}"):
        try:
            with partial.open("w", encoding="utf-8", newline="") as stream:
                table = csv.writer(stream)
                table.writerow(COLUMNS)
                for name, label, split in rows:
                    if name not in choices.leave_out:
                        class_name = choices.relabel.get(name, images.class_names[label])
                        table.writerow((os.path.join(prefix, name), class_name, SPLITS[split]))
            CsvSource(str(partial))  # raises InputError for a table that cannot be trained on
            rename_file(partial, file)
        except InputError as error:
            problem = str(error).replace(str(partial.resolve()), str(file)).removeprefix("--dataset: ")
            raise InputError(f"{OPTION}: nothing is written: {problem}") from error
        finally:
            partial.unlink(missing_ok=True)


def _folder(file: Path) -> Path:
    return file.absolute().parent.resolve()
