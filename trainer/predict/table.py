"""Answers as a CSV table, a row for each image; a stopped command continues it."""

from __future__ import annotations

import csv
import io
import logging
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TextIO

from trainer.artifact.prediction import DECIMALS, MAX_TOP
from trainer.data.progress import track
from trainer.errors import InputError, TrainerError
from trainer.files import write_text, writing_to
from trainer.predict.files import Answer
from trainer.signals import Signals
from trainer.text import counted, printable

log = logging.getLogger("trainer")

STDOUT = Path("-")
# The most probable class, then those of the next places.
CLASS_COLUMNS = [("label", "probability"), *((f"label_{n}", f"probability_{n}") for n in range(2, MAX_TOP + 1))]
COLUMNS = ["path", *CLASS_COLUMNS[0], "known", *(name for pair in CLASS_COLUMNS[1:] for name in pair), "model", "error"]
# A spreadsheet runs a cell that begins so as a formula (the wide forms in a Japanese one), unless ' precedes it.
FORMULA = ("=", "+", "-", "@", "＝", "＋", "－", "＠")

Row = Mapping[str, str]


def write_answers(
    file: Path, model: str, paths: Sequence[Path], predict: Callable[[Sequence[Path]], Iterator[Answer]]
) -> None:
    """Write the answers for image files into a table, and show the progress.

    `model` is the tag of the model that `predict` asks. Images that have an answer in `file` already are left out, and
    those that had an error are tried again. Raises InputError for a file that is not such a table or cannot be written,
    at the end for faulty images, and Interrupted.
    """
    bar = False if file == STDOUT and sys.stdout.isatty() else None  # rows on a terminal would break the bar
    signals = Signals()
    with open_table(file, model) as table, nullcontext() if file == STDOUT else signals:
        remaining = [path for path in paths if path not in table]
        if len(remaining) < len(paths):
            log.info("%s has answers for %s already", file, counted(len(paths) - len(remaining), "image"))
        answers = track(predict(remaining), lambda _: 1, total=len(remaining), what="predicting", bar=bar)
        faulty = 0
        for path, answer in zip(remaining, answers, strict=True):
            with signals.deferred():
                table.write(path, answer)
            faulty += isinstance(answer, TrainerError)
    where = "the table" if file == STDOUT else str(file)
    if faulty:
        raise InputError(f"{faulty} of {counted(len(paths), 'image')} have no answer: see the column error of {where}")
    log.info("%s: answers for %s", where, counted(len(paths), "image"))


class Table:
    """Rows of answers on a stream. Each is written with its end before the next begins."""

    def __init__(self, stream: TextIO, model: str, rows: Sequence[Row]) -> None:
        """`rows`: those that are there already."""
        self._stream = stream
        self._model = model
        self._finished = {row["path"] for row in rows}

    def __contains__(self, path: Path) -> bool:
        return cell(os.fspath(path)) in self._finished

    def write(self, path: Path, answer: Answer) -> None:
        """Write the row of an image. Raises InputError for an answer of another model: a server may change it."""
        row: dict[str, str] = {"path": cell(os.fspath(path)), "model": cell(self._model)}
        if isinstance(answer, TrainerError):
            row["error"] = cell(str(answer).removeprefix(f"{path}: "))
        else:
            if answer["model"] != self._model:
                raise InputError(f"--csv: {answer['model']} answers now, and the table has answers of {self._model}")
            row["known"] = "true" if answer.get("known", True) else "false"  # old servers do not say
            for (label, probability), score in zip(CLASS_COLUMNS, answer["top"], strict=False):
                row[label], row[probability] = cell(score["label"]), f"{score['probability']:.{DECIMALS}f}"
        self._stream.write(_text([row]))
        self._stream.flush()


@contextmanager
def open_table(file: Path, model: str) -> Iterator[Table]:
    """Open the table in `file` (created if it is missing, continued otherwise; `-` is stdout) for answers of `model`.

    Raises InputError for a file that is not such a table, has answers of another model, or cannot be written.
    """
    if file == STDOUT:
        sys.stdout.write(HEADER)
        yield Table(sys.stdout, model, ())
        return
    with writing_to(f"--csv: {file}"):
        rows = _mend(file, model)
        stream = file.open("a", encoding="utf-8", newline="")
    with stream:
        yield Table(stream, model, rows)


def cell(text: str) -> str:
    """Text of a cell: printable, on one line, and no formula."""
    text = printable(text)
    return f"'{text}" if text.startswith((*FORMULA, "'")) else text


def _mend(file: Path, model: str) -> Sequence[Row]:
    """The answers of `model` in a file, which has nothing else afterwards: no half row at its end, no errors."""
    found = file.read_bytes() if file.exists() else b""
    whole = found[: found.rfind(b"\n") + 1]
    if not whole and HEADER.encode().startswith(found):  # new, or stopped within its first line
        whole = HEADER.encode()
    rows = [row for row in _parse(file, whole) if not row["error"]]
    for row in rows:
        if row["model"] != cell(model):
            raise InputError(
                f"--csv: {file} has answers of {row['model']}, and the model is {model} now; name another file, or "
                f"{row['model']} as the model"
            )
    text = HEADER + _text(rows)
    if text.encode() != found:
        write_text(file, text)
    return rows


def _parse(file: Path, table: bytes) -> list[dict[str, str]]:
    try:
        header, *lines = csv.reader(io.StringIO(table.decode("utf-8-sig"), newline=""), strict=True)
        if header == COLUMNS:
            return [dict(zip(COLUMNS, line, strict=True)) for line in lines]
    except (ValueError, csv.Error):
        pass
    raise InputError(f"--csv: {file} exists and is not a table of `trainer predict`; name another file")


def _text(rows: Sequence[Row]) -> str:
    file = io.StringIO()
    csv.DictWriter(file, COLUMNS, restval="", lineterminator="\n").writerows(rows)
    return file.getvalue()


HEADER = ",".join(COLUMNS) + "\n"
