"""Dataset spec → source: `tfds:NAME[/CONFIG][:VERSION]`, `folder:PATH` (or a path), `csv:FILE`, `builtin:digits`."""

from __future__ import annotations

import difflib
from pathlib import Path

from trainer.data.sources.base import Source
from trainer.data.sources.tfds import TfdsSource, data_root, prepared
from trainer.errors import InputError, did_you_mean

BUILTIN = "builtin:digits"
# Well-known names, so that a suggestion does not import TFDS, which takes seconds.
TFDS_NAMES = (
    *("mnist", "fashion_mnist", "kmnist", "emnist", "cifar10", "cifar100", "svhn_cropped", "stl10", "cats_vs_dogs"),
    *("tf_flowers", "oxford_flowers102", "oxford_iiit_pet", "stanford_dogs", "food101", "caltech101", "eurosat"),
    *("beans", "rock_paper_scissors", "imagenette", "imagenet2012", "horses_or_humans", "malaria", "plant_village"),
)

ARCHIVES = (".zip", ".tar", ".tgz", ".gz", ".bz2", ".xz", ".zst", ".7z", ".rar")


def open_source(spec: str, data_dir: Path | None = None, *, for_training: bool = True) -> Source:
    """Source of the images that `spec` names; `data_dir` has the prepared TFDS data sets.

    Without `for_training` one class is enough and no split is needed, to measure an existing model on all images.
    Raises InputError where the spec is malformed, or the data is missing or not usable.
    """
    check_spec(spec, data_dir)
    kind, _, rest = spec.partition(":")
    if kind == "tfds":
        return TfdsSource(rest, data_dir, for_training=for_training)
    if kind == "builtin":
        from trainer.data.sources.digits import DigitsSource

        return DigitsSource()
    if kind == "csv":
        from trainer.data.sources.csv import CsvSource

        return CsvSource(rest, for_training=for_training)
    from trainer.data.sources.folder import FolderSource

    return FolderSource(_path(spec), for_training=for_training)


def check_spec(spec: str, data_dir: Path | None = None) -> None:
    """Raise InputError for a malformed spec or a missing path, without reading data.

    The message has suggestions; `data_dir` as in `open_source`.
    """
    kind, _, rest = spec.partition(":")
    if spec == BUILTIN or kind == "tfds":
        return
    if kind == "builtin":
        raise InputError(f"--dataset: {spec!r} is unknown{did_you_mean(_similar_names(rest, data_dir) or [BUILTIN])}")
    if kind == "csv":
        _check_table(rest)
        return
    path = _path(spec)
    if kind != "folder" and not path.exists():
        similar = _similar_paths(path) + _similar_names(spec, data_dir)
        raise InputError(
            f"--dataset: {spec!r} is neither a path that exists nor one of tfds:NAME[/CONFIG][:VERSION], "
            f"folder:PATH, csv:FILE and {BUILTIN}{did_you_mean(similar)}"
        )
    if not path.is_dir():
        _refuse_archive(path)
        problem = "is a file; a folder of class folders" if path.exists() else "does not exist; a folder"
        table = f", or csv:{path}" if path.is_file() and path.suffix.lower() == ".csv" else ""
        raise InputError(f"--dataset: {path} {problem} is expected{table}{did_you_mean(_similar_paths(path))}")


def _check_table(rest: str) -> None:
    from trainer.data.sources.csv import parse_csv_spec

    file, _ = parse_csv_spec(rest)
    _refuse_archive(file)
    if not file.is_file():
        problem = "is a folder; a table" if file.is_dir() else "does not exist; a table"
        suggestion = did_you_mean(_similar_paths(file, kind="csv"))
        raise InputError(f"--dataset: {file} {problem} (csv:FILE) is expected{suggestion}")


def _refuse_archive(path: Path) -> None:
    if path.is_file() and path.name.lower().endswith(ARCHIVES):
        raise InputError(f"--dataset: {path} is an archive; unpack it first, and name the folder or table in it")


def _path(spec: str) -> Path:
    return Path(spec.removeprefix("folder:")).expanduser()


def _similar_paths(path: Path, *, kind: str = "folder") -> list[str]:
    """Specs of folders (or files) with a similar name, beside a missing one."""
    try:
        entries = [entry for entry in path.parent.iterdir() if entry.is_dir() == (kind == "folder")]
    except OSError:
        return []
    names = [entry.name for entry in entries if not entry.name.startswith(".")]
    return [f"{kind}:{path.parent / name}" for name in difflib.get_close_matches(path.name, names, n=3)]


def _similar_names(name: str, data_dir: Path | None) -> list[str]:
    """Specs of TFDS and built-in data sets with a similar name; only one if the name is exact."""
    present = {path.split("/")[0] for path in prepared(data_root(data_dir))}
    specs = {name: f"tfds:{name}" for name in (*TFDS_NAMES, *sorted(present))} | {"digits": BUILTIN}
    name = name.lower()
    return [specs[similar] for similar in ([name] if name in specs else difflib.get_close_matches(name, specs, n=3))]
