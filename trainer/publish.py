"""`trainer save`: publish a run folder's model."""

from __future__ import annotations

from pathlib import Path

from trainer import store
from trainer.config import InputError
from trainer.run_folder import read_run
from trainer.serving import artifact


def publish_run(folder: Path, name: str | None) -> str:
    """`trainer save`: publish the export of a finished run; the tag.

    Raises InputError where the folder is not a run, or its export is not complete.
    """
    run = read_run(folder)
    export = folder / "export"
    if run["state"] != "finished":
        raise InputError(f"{folder}: the run has not finished; `trainer fit --resume {folder}` with its options does")
    artifact.load(export)
    return store.publish(export, name or run["name"])
