"""Dataset spec → source: `tfds:NAME[/CONFIG][:VERSION]`, `folder:PATH` (or a path), `csv:FILE`, `builtin:digits`."""

from __future__ import annotations

import difflib
from pathlib import Path

from trainer.config import InputError, choose
from trainer.data.source import Source


def open_source(spec: str, data_dir: Path | None = None, *, to_learn: bool = True) -> Source:
    """The source that `spec` names; `data_dir` is where prepared TFDS datasets lie.

    Not `to_learn`: a single class will do, and no split is asked for, as a model that exists is measured on all.
    Raises InputError where the spec cannot be read, or what it names is not there or not usable.
    """
    check_spec(spec)
    kind, _, rest = spec.partition(":")
    if kind == "tfds":
        from trainer.data.tfds_source import TfdsSource

        return TfdsSource(rest, data_dir, to_learn=to_learn)
    if kind == "builtin":
        from trainer.data.digits import DigitsSource

        return DigitsSource()
    if kind == "csv":
        from trainer.data.csv_source import CsvSource

        return CsvSource(rest, to_learn=to_learn)
    from trainer.data.folder import FolderSource

    return FolderSource(_path(spec), to_learn=to_learn)


def check_spec(spec: str) -> None:
    """Raise InputError for what can be told to be wrong in no time: a spec of no kind, or a path that is not there."""
    kind, _, rest = spec.partition(":")
    if kind == "builtin":
        choose("--dataset builtin", rest, ["digits"])
    if kind in ("tfds", "builtin"):
        return
    if kind == "csv":
        _check_table(rest)
        return
    path = _path(spec)
    if kind != "folder" and not path.exists():
        raise InputError(
            f"--dataset: {spec!r} is neither a path that exists nor one of tfds:NAME[/CONFIG][:VERSION], "
            f"folder:PATH, csv:FILE and builtin:digits{_nearest(path)}"
        )
    if not path.is_dir():
        problem = "is a file; a folder of class folders" if path.exists() else "does not exist; a folder"
        table = f", or csv:{path}" if path.is_file() and path.suffix.lower() == ".csv" else ""
        raise InputError(f"--dataset: {path} {problem} is expected{table}{_nearest(path)}")


def _check_table(rest: str) -> None:
    from trainer.data.csv_source import parse_csv_spec

    file, _ = parse_csv_spec(rest)
    if not file.is_file():
        problem = "is a folder; a table" if file.is_dir() else "does not exist; a table"
        raise InputError(f"--dataset: {file} {problem} (csv:FILE) is expected{_nearest(file, folders=False)}")


def _path(spec: str) -> Path:
    return Path(spec.removeprefix("folder:")).expanduser()


def _nearest(path: Path, *, folders: bool = True) -> str:
    """The folders (or the files) beside a missing one that are called alike."""
    try:
        beside = [entry.name for entry in path.parent.iterdir() if entry.is_dir() == folders]
    except OSError:
        return ""
    near = difflib.get_close_matches(path.name, beside, n=3)
    return f"; did you mean {' or '.join(str(path.parent / name) for name in near)}?" if near else ""
