"""A table (`csv:FILE`) of a data set without what a person has chosen to leave out, and with the labels they chose.

No picture is touched: the table names the files, their labels and the splits that they were in, so that figures stay
comparable. The choices are a JSON file, which the page saves.
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer.data import Dataset
from trainer.data.sources.base import SPLITS
from trainer.data.sources.csv import COLUMNS, CsvSource, parse_csv_spec
from trainer.data_checks.images import Pictures
from trainer.errors import InputError, did_you_mean

OPTION = "--fix"
CHOICES = "--choices"


@dataclass(frozen=True)
class Choices:
    """What a person wants of some pictures, which are known by their names."""

    leave_out: frozenset[str]
    relabel: Mapping[str, str]  # → the name of the class

    @classmethod
    def read(cls, file: Path, pictures: Pictures) -> Choices:
        """Raises InputError for a file that is none, and for a picture or a class that is not there."""
        try:
            values: Any = json.loads(file.read_text(encoding="utf-8"))
        except OSError as error:
            raise InputError(f"{CHOICES}: {file} cannot be read: {error.strerror}") from error
        except ValueError as error:
            raise InputError(f"{CHOICES}: {file} is no JSON: {error}") from error
        try:
            choices = cls(
                leave_out=frozenset(str(name) for name in values["leave_out"]),
                relabel={str(name): str(label) for name, label in values["relabel"].items()},
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise InputError(
                f'{CHOICES}: {file} is expected to be what the page saves: {{"leave_out": [image, …], "relabel": '
                "{image: class, …}}"
            ) from error
        choices._check(file, pictures)
        return choices

    def _check(self, file: Path, pictures: Pictures) -> None:
        names = set(pictures.names)
        for name in (*self.leave_out, *self.relabel):
            if name not in names:
                raise InputError(f"{CHOICES}: {file} names the image {name!r}, which the data set does not have")
        for name, label in self.relabel.items():
            if label not in pictures.class_names:
                raise InputError(
                    f"{CHOICES}: {file} gives {name!r} the class {label!r}, which there is not"
                    f"{did_you_mean(pictures.class_names)}"
                )


@dataclass(frozen=True)
class Written:
    """What a new table has."""

    table: str
    images: int
    left_out: int
    relabelled: int


def folder_of(spec: str) -> Path | None:
    """The folder that the pictures of a source with this `spec` lie in; None where they are no files."""
    kind, _, rest = spec.partition(":")
    if kind == "csv":
        return parse_csv_spec(rest).file.parent
    return Path(rest) if kind == "folder" else None


def check(file: Path, spec: str) -> Path:
    """The `folder_of` a source. Raises InputError where a table at `file` cannot list its pictures."""
    root = folder_of(spec)
    if root is None:
        raise InputError(f"{OPTION}: {spec} has no files that a table could list; a folder or csv:FILE is expected")
    if not root.is_relative_to(_place(file)):
        raise InputError(
            f"{OPTION}: {file} is expected in {root}, or in a folder above it: a table names files beside it"
        )
    if file.exists():
        raise InputError(f"{OPTION}: {file} is there already, and nothing is overwritten; choose another name")
    return root


def apply(file: Path, root: Path, dataset: Dataset, choices_file: Path) -> Written:
    """Write `file` as the choices have it; `root` comes from `check`. Raises InputError, and then writes nothing."""
    pictures = Pictures.of(dataset)
    choices = Choices.read(choices_file, pictures)
    _write_table(file, root, pictures, choices)
    left_out = len(choices.leave_out)
    return Written(
        table=str(file),
        images=len(pictures) - left_out,
        left_out=left_out,
        relabelled=sum(name not in choices.leave_out for name in choices.relabel),
    )


def _write_table(file: Path, root: Path, pictures: Pictures, choices: Choices) -> None:
    prefix = root.relative_to(_place(file))
    partial = file.with_name(f"{file.name}.partial")
    rows = zip(pictures.names, pictures.labels.tolist(), pictures.splits.tolist(), strict=True)
    try:
        with partial.open("w", encoding="utf-8", newline="") as stream:
            table = csv.writer(stream)
            table.writerow(COLUMNS)
            for name, label, split in rows:
                if name not in choices.leave_out:
                    chosen = choices.relabel.get(name, pictures.class_names[label])
                    table.writerow((os.path.join(prefix, name), chosen, SPLITS[split]))
        CsvSource(str(partial))  # says what is wrong with it
        partial.rename(file)
    except InputError as error:
        problem = str(error).replace(str(partial.resolve()), str(file)).removeprefix("--dataset: ")
        raise InputError(f"{OPTION}: nothing is written: {problem}") from error
    except OSError as error:
        raise InputError(f"{OPTION}: {file} cannot be written: {error.strerror}") from error
    finally:
        partial.unlink(missing_ok=True)


def _place(file: Path) -> Path:
    return file.absolute().parent.resolve()
