"""`csv:FILE`: a table with a row for each image: its path beside the table, its label, and optionally its split."""

from __future__ import annotations

import csv
import io
import logging
import os
import stat
import unicodedata
from collections.abc import Iterator
from pathlib import Path, PureWindowsPath
from typing import NamedTuple
from urllib.parse import quote, unquote

from trainer.data.sources.base import SPLIT_NAMES, SPLITS, Example
from trainer.data.sources.file_states import FileStates
from trainer.data.sources.image_files import IMAGE_SUFFIXES
from trainer.data.sources.similar_names import warn_similar_names
from trainer.errors import InputError, choose, did_you_mean
from trainer.names import slug

log = logging.getLogger("trainer")

COLUMNS = ("image", "label", "split")
DELIMITERS = (",", ";", "\t")  # spreadsheets write each of them


class CsvSpec(NamedTuple):
    """Parts of a spec after `csv:`."""

    file: Path
    columns: dict[str, str]  # image, label, split → the table's column, where the spec names it


class Row(NamedTuple):
    """One image. `number` is the row number of a spreadsheet: the header is 1."""

    number: int
    image: str
    label: str
    split: str


def parse_csv_spec(rest: str) -> CsvSpec:
    """Parse `FILE` or `FILE?image=…&label=…&split=…`. Raises InputError for another key."""
    if os.path.exists(os.path.expanduser(rest)):  # a name may have a question mark
        return CsvSpec(Path(rest).expanduser(), {})
    file, _, query = rest.partition("?")
    columns: dict[str, str] = {}
    for part in filter(None, query.split("&")):
        key, _, name = part.partition("=")
        choose(f"--dataset csv:{file}?", key, COLUMNS)
        if not name:
            raise InputError(f"--dataset csv:{file}?{key}=: the name of a column is expected after {key}=")
        columns[key] = unquote(name)
    return CsvSpec(Path(file).expanduser(), columns)


class CsvSource:
    """Images that a table names; class names are its labels (in Unicode's composed form), sorted by code point.

    The table is UTF-8, with or without a byte order mark, separated by commas, semicolons or tabs. Without a split
    column every image is train. A repeated row counts once, and in `ignored`. Raises InputError, with the row, for a
    missing column, label or file, a path outside the table's folder, an unknown split, or an image with two labels or
    splits; with `for_training` also for fewer than two classes, or a class in val or test that is not in train.
    """

    default_normalize = "none"

    def __init__(self, rest: str, *, for_training: bool = True) -> None:
        file, self._columns = parse_csv_spec(rest)
        self._file = file.resolve()
        query = "&".join(f"{key}={quote(self._columns[key], safe='')}" for key in COLUMNS if key in self._columns)
        self.spec = f"csv:{self._file}" + (f"?{query}" if query else "")
        self.name = slug(self._file.stem)
        self.ignored = 0
        try:
            data = self._file.read_bytes()
        except OSError as error:
            raise InputError(f"--dataset: {self._file} cannot be read: {error.strerror}") from error
        rows = self._unique(self._rows(data))
        self.class_names = self._labels(rows, for_training)
        warn_similar_names(self.spec, self.class_names)
        files = FileStates(os.fsencode(self.spec) + b"\0" + data)
        label_of = {name: label for label, name in enumerate(self.class_names)}
        # A stable sort: the table's order within a split.
        rows.sort(key=lambda row: SPLITS.index(row.split))
        self._examples = [self._example(row, label_of[row.label], files) for row in rows]
        self.fingerprint, self.state = files.fingerprint, files.state

    def __len__(self) -> int:
        return len(self._examples)

    def examples(self) -> Iterator[Example]:
        """Examples sorted by split, then in the order of the table."""
        return iter(self._examples)

    def _rows(self, data: bytes) -> list[Row]:
        try:
            text = data.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            number = data[: error.start].count(b"\n") + 1
            raise self._wrong(number, "UTF-8 text is expected: save the table as CSV UTF-8") from error
        number = 1
        rows: list[Row] = []
        try:
            positions, reader = self._header(text)
            for cells in reader:
                number += 1
                if any(cell.strip() for cell in cells):
                    rows.append(self._row(number, cells, positions))
        except csv.Error as error:
            raise self._wrong(number + 1, f"cannot be read: {error}") from error
        return rows

    def _header(self, text: str) -> tuple[dict[str, int], Iterator[list[str]]]:
        """Positions of the columns, and a reader of the rows after the header."""
        wanted = {key: self._columns.get(key, key).lower() for key in COLUMNS}
        required = [name for key, name in wanted.items() if key != "split" or key in self._columns]
        headers: list[tuple[list[str], list[str]]] = []
        for delimiter in DELIMITERS:
            reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
            names = [name.strip().lower() for name in next(reader, [])]
            missing = [name for name in required if name not in names]
            if not missing:
                positions = {key: names.index(name) for key, name in wanted.items() if name in names}
                for key in positions:
                    if names.count(wanted[key]) > 1:
                        raise self._wrong(1, f"the column {wanted[key]!r} is there twice")
                return positions, reader
            headers.append((missing, names))
        missing, names = min(headers, key=lambda header: (len(header[0]), -len(header[1])))
        raise self._wrong(
            1,
            f"no column {' and no column '.join(map(repr, missing))}, only {', '.join(map(repr, names)) or 'nothing'}; "
            "name the columns with csv:FILE?image=…&label=…&split=…",
        )

    def _row(self, number: int, cells: list[str], positions: dict[str, int]) -> Row:
        values = {key: cells[position].strip() if position < len(cells) else "" for key, position in positions.items()}
        for key in ("image", "label"):
            if not values[key]:
                raise self._wrong(number, f"no {key} in the column {self._columns.get(key, key)!r}")
        path = os.path.normpath(values["image"])
        if os.path.isabs(path) and (inside := _relative(path, self._file.parent)):
            raise self._wrong(number, f"{path!r} is an absolute path; {inside!r}, from the table's folder, is expected")
        if os.path.isabs(path) or path.split(os.sep)[0] == os.pardir:
            raise self._wrong(
                number, f"{values['image']!r} leaves the folder of the file; a path beside it is expected"
            )
        split = values.get("split", "train")
        if split.lower() not in SPLIT_NAMES:
            raise self._wrong(number, f"the split {split!r} is not one of train, val and test")
        return Row(number, path, unicodedata.normalize("NFC", values["label"]), SPLIT_NAMES[split.lower()])

    def _unique(self, rows: list[Row]) -> list[Row]:
        """Rows without repetitions."""
        first: dict[str, Row] = {}
        for row in rows:
            other = first.setdefault(row.image, row)
            if other[1:] != row[1:]:
                column = "label" if other.label != row.label else "split"
                raise self._wrong(
                    row.number,
                    f"{row.image!r} has the {column} {getattr(row, column)!r} here and {getattr(other, column)!r} in "
                    f"row {other.number}; one of them is expected",
                )
        self.ignored = len(rows) - len(first)
        if self.ignored:
            log.warning("%s: %d rows are repeated and count once", self._file, self.ignored)
        return list(first.values())

    def _labels(self, rows: list[Row], for_training: bool) -> tuple[str, ...]:
        labels = tuple(sorted({row.label for row in rows if row.split == "train" or not for_training}))
        if not for_training and not labels:
            raise InputError(f"--dataset: {self._file} has no images")
        if for_training and len(labels) < 2:
            found = f"only one label, {labels[0]!r}," if labels else "no images"
            where = " for train" if any(row.split != "train" for row in rows) else ""
            raise InputError(f"--dataset: {self._file} has {found}{where} where at least two labels are expected")
        for row in rows:
            if row.label not in labels:
                raise self._wrong(row.number, f"the label {row.label!r} is in {row.split} but not in train")
        return labels

    def _example(self, row: Row, label: int, files: FileStates) -> Example:
        """Example of a row; its file is added to `files`."""
        path = os.path.join(self._file.parent, row.image)
        try:
            status = os.stat(path)
        except (OSError, ValueError) as error:
            hint = _hint(row.image, self._file.parent)
            raise self._wrong(row.number, f"{row.image!r}: no such file beside the table{hint}") from error
        if not stat.S_ISREG(status.st_mode):
            raise self._wrong(row.number, f"{row.image!r} is not a file")
        files.add(row.image, status)
        return Example(row.split, label, row.image, path, status.st_size)

    def _wrong(self, row: int, problem: str) -> InputError:
        return InputError(f"--dataset: {self._file}, row {row}: {problem}")


def _relative(path: str, folder: Path) -> str:
    """An absolute path as seen from the table's folder; empty outside of it."""
    try:
        return str(Path(os.path.realpath(path)).relative_to(folder))
    except ValueError:
        return ""


def _hint(image: str, folder: Path) -> str:
    """Hint at the path that was meant; empty without a guess."""
    if "\\" in image:
        parts = [part for part in PureWindowsPath(image).parts if not part.endswith("\\")]  # without the drive
        tails = ("/".join(parts[start:]) for start in range(len(parts)))
        found = next((tail for tail in tails if (folder / tail).is_file()), None)
        return f"; {found!r} is there: '/' is expected in paths" if found else "; paths with '/' are expected"
    try:
        beside = sorted(file.name for file in (folder / image).parent.iterdir() if file.stem == Path(image).name)
    except (OSError, ValueError):
        return ""
    near = [str(Path(image).with_name(name)) for name in beside if name.lower().endswith(IMAGE_SUFFIXES)]
    return did_you_mean([repr(name) for name in near[:3]])
