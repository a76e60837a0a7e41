"""Dataset spec → source: `tfds:NAME[/CONFIG][:VERSION]`, `folder:PATH` (or a path), `builtin:digits`."""

from __future__ import annotations

from pathlib import Path

from trainer.config import InputError, choose
from trainer.data.source import Source


def open_source(spec: str, data_dir: Path | None = None) -> Source:
    """The source that `spec` names; `data_dir` is where prepared TFDS datasets lie.

    Raises InputError where the spec cannot be read, or what it names is not there or not usable.
    """
    kind, _, rest = spec.partition(":")
    if kind == "tfds":
        from trainer.data.tfds_source import TfdsSource

        return TfdsSource(rest, data_dir)
    if kind == "builtin":
        from trainer.data.digits import DigitsSource

        choose("--dataset builtin:", rest, ["digits"])
        return DigitsSource()
    path = Path(rest if kind == "folder" else spec).expanduser()
    if kind != "folder" and not path.exists():
        raise InputError(
            f"--dataset: {spec!r} is neither a path that exists nor one of tfds:NAME[/CONFIG][:VERSION], "
            "folder:PATH and builtin:digits"
        )
    from trainer.data.folder import FolderSource

    return FolderSource(path)
