"""Run folder: its record `run.json`, checkpoints, export and report. See `open_run` for how it is found and locked."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer.artifact import read_spec
from trainer.errors import InputError
from trainer.files import write_text
from trainer.locks import ProcessLock, Timeout
from trainer.text import printable_json

log = logging.getLogger("trainer")

RUN_FILE = "run.json"
LOCK = "lock"  # held by the training that uses the folder
CHECKPOINTS = "checkpoints"
EXPORT = "export"
RUNNING, EXPORTED, FINISHED = "running", "exported", "finished"  # states
RUNS = Path("runs")


@dataclass
class RunFolder:
    """An open run folder.

    Its state is `running`, then `exported` while the model is published, then `finished`. A trial of a sweep that is
    not exported is finished after its training.
    """

    path: Path
    _run: dict[str, Any]
    _before: dict[str, Any] | None  # the record as this process found it; None: a new run
    _lock: ProcessLock

    @property
    def resumed(self) -> bool:
        """Whether the run was there before."""
        return self._before is not None

    @property
    def wandb_id(self) -> str | None:
        return self._run["wandb_id"]

    @property
    def result(self) -> dict[str, Any] | None:
        """Result of an exported or finished run, as `trainer fit` returns it; None for all others."""
        return result_of(self.path, self._run) if self._run["state"] in (EXPORTED, FINISHED) else None

    @property
    def command(self) -> tuple[str, ...]:
        """The command that continues the run, from the same working directory."""
        return resume_command(self.path)

    @property
    def checkpoints(self) -> Path:
        return self.path / CHECKPOINTS

    @property
    def export(self) -> Path:
        return self.path / EXPORT

    @property
    def report(self) -> Path:
        return self.path / "report"

    def update(self, **values: Any) -> None:
        """Change entries of `run.json`, atomically."""
        self._run.update(values)
        write_run(self.path, self._run)

    def reopen(self) -> None:
        """Continue a run that has finished and was not exported."""
        if self.result is not None:
            log.info("%s has finished and was not exported: it continues from there", self.path)
            self.update(state=RUNNING)

    def note_exported(self, result: Mapping[str, Any]) -> None:
        """Record that the export is complete, before it is published."""
        self.update(state=EXPORTED, result=dict(result))

    def finish(self, result: Mapping[str, Any], *, keep_checkpoints: bool = False) -> None:
        """Record the result, and delete the checkpoints.

        Those of an exported run go first: a run that is killed here is continued and deletes them, and a finished one
        is not looked at again. A run that is not exported needs its own until it has finished.
        """
        exported = self._run["state"] == EXPORTED
        if exported and not keep_checkpoints:
            shutil.rmtree(self.checkpoints, ignore_errors=True)
        self.update(state=FINISHED, result=dict(result))
        if not exported and not keep_checkpoints:
            shutil.rmtree(self.checkpoints, ignore_errors=True)

    def undo(self) -> None:
        """Restore the record of a run that was refused before its first step; of a new one, delete it."""
        if self._before is not None:
            write_run(self.path, self._before)
            return
        for file in (RUN_FILE, LOCK):
            (self.path / file).unlink(missing_ok=True)
        with suppress(OSError):  # other files in the folder stay
            self.path.rmdir()

    def close(self) -> None:
        self._lock.release()


def read_run(path: Path) -> dict[str, Any]:
    """Contents of a folder's `run.json`. Raises InputError if the folder is not a run."""
    try:
        run = json.loads((path / RUN_FILE).read_text())
    except FileNotFoundError:
        raise InputError(f"{path}: no run folder: it has no {RUN_FILE}; `trainer fit` makes one") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path / RUN_FILE}: cannot be read: {error}") from error
    if not isinstance(run, dict) or "identity" not in run:
        raise InputError(f"{path / RUN_FILE}: cannot be read: it is no run's")
    return run


def options_of(path: Path) -> dict[str, str]:
    """Options of a run, as the command line spells them; empty for a run of an earlier version.

    Raises InputError if the folder is not a run.
    """
    kept: dict[str, str] = read_run(path).get("options", {})
    return kept


def resume_command(path: Path) -> tuple[str, ...]:
    """The command that continues a run."""
    return ("trainer", "fit", "--resume", str(path))


def result_of(path: Path, run: Mapping[str, Any]) -> dict[str, Any]:
    """Result of a finished run; earlier versions kept its metrics with the export only.

    Raises ArtifactError if that is damaged or gone.
    """
    kept = run.get("result") or {**read_spec(path / EXPORT)["metrics"], "tag": None, "worse_than": None}
    return {**kept, "run_dir": str(path)}


def is_exported(result: Mapping[str, Any]) -> bool:
    """Whether the model of a finished run was exported; that of most trials of a sweep is not."""
    return "test_accuracy" in result


def note_saved(path: Path, tag: str) -> None:
    """Record that the model of a finished run is in the store."""
    run = read_run(path)
    write_run(path, run | {"result": result_of(path, run) | {"tag": tag}})


def is_in_use(path: Path) -> bool:
    """Whether a training uses this run folder now."""
    if not (path / LOCK).exists():
        return False
    lock = ProcessLock(path / LOCK)
    try:
        lock.acquire(0)
    except Timeout:
        return True
    except OSError:  # another user's folder: it cannot be locked
        return False
    lock.release()
    return False


def write_run(path: Path, run: Mapping[str, Any]) -> None:
    """Write a folder's `run.json`, atomically."""
    write_text(path / RUN_FILE, printable_json(json.dumps(run, indent=1, ensure_ascii=False)))
