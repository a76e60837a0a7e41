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

from trainer.config import InputError, did_you_mean
from trainer.data.csv_source import COLUMNS, CsvSource
from trainer.data.source import SPLITS
from trainer.doctor.pictures import Pictures

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


def check(file: Path, spec: str) -> Path:
    """The folder that the pictures of `spec` (a canonical one) lie in.

    Raises InputError where a table at `file` cannot list them; nothing has been read yet.
    """
    kind, _, rest = spec.partition(":")
    if kind not in ("folder", "csv"):
        raise InputError(f"{OPTION}: {spec} has no files that a table could list; a folder or csv:FILE is expected")
    root = Path(rest) if kind == "folder" else Path(rest.partition("?")[0] if not os.path.exists(rest) else rest).parent
    place = file.absolute().parent.resolve()
    if not root.is_relative_to(place):
        raise InputError(
            f"{OPTION}: {file} is expected in {root}, or in a folder above it: a table names files beside it"
        )
    if file.exists():
        raise InputError(f"{OPTION}: {file} is there already, and nothing is overwritten; choose another name")
    return root


def write_table(file: Path, root: Path, pictures: Pictures, choices: Choices) -> tuple[int, int]:
    """Write `file`, which `check` has let pass → how many pictures are left out and have another label.

    Raises InputError where nothing could be learned from what is left, or a name cannot be written.
    """
    prefix = root.relative_to(file.absolute().parent.resolve())
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
    left_out = choices.leave_out
    return len(left_out), sum(name not in left_out for name in choices.relabel)
