"""Run folder: found by its configuration, locked while in use, and refused to a different training."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from trainer.artifact import read_spec
from trainer.config import FitConfig
from trainer.errors import InputError
from trainer.files import write_text

log = logging.getLogger("trainer")

RUN_FILE = "run.json"
LOCK = "lock"  # held by the training that uses the folder
CHECKPOINTS = "checkpoints"
EXPORT = "export"
FINISHED = "finished"
RUNS = Path("runs")


@dataclass
class RunFolder:
    """An open run folder. `state` is `running` until the model is exported and published, then `finished`."""

    path: Path
    resumed: bool
    _run: dict[str, Any]
    _lock: FileLock

    @property
    def wandb_id(self) -> str | None:
        return self._run["wandb_id"]

    @property
    def result(self) -> dict[str, Any] | None:
        """Result of a finished run, as `trainer fit` returns it; None for an unfinished one."""
        return result_of(self.path, self._run) if self._run["state"] == FINISHED else None

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
        _write(self.path, self._run)

    def reopen(self) -> None:
        """Continue a run that has finished and was not exported."""
        if self.result is not None:
            log.info("%s has finished and was not exported: it continues from there", self.path)
            self.update(state="running", result=None)

    def finish(self, result: Mapping[str, Any], *, keep_checkpoints: bool = False) -> None:
        """Record the result, and delete the checkpoints, which the export replaces."""
        self.update(state=FINISHED, result=dict(result))
        if not keep_checkpoints:
            shutil.rmtree(self.checkpoints, ignore_errors=True)

    def forget(self) -> None:
        """Delete the record of a run that was refused before its first step; other files in the folder stay."""
        (self.path / RUN_FILE).unlink(missing_ok=True)

    def close(self) -> None:
        self._lock.release()


def open_run(config: FitConfig, name: str, identity: Mapping[str, Any], *, shared: bool = False) -> RunFolder:
    """Open the folder that `--run-dir` and `--resume` ask for, and lock it.

    `identity` has everything that must match to resume a run (data set, labels, architecture, settings): a folder with
    another identity is never continued, and a finished run stays as it is. A `shared` folder, for a worker that is not
    the chief, is read only and not locked.
    Raises InputError for a folder in use, one with a different training, or one that is not a run.
    """
    run_hash = hashlib.sha256(json.dumps([config.hash(), dict(identity)], sort_keys=True).encode()).hexdigest()
    path = _choose(config, name, run_hash)
    if not shared:
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"--run-dir: {path} cannot be made: {error.strerror}") from error
    lock = FileLock(path / LOCK)
    if not shared:
        _acquire(lock, path)
    resumed = (path / RUN_FILE).exists()
    if resumed:
        run = read_run(path)
        if config.resume == "never" and not shared:  # the chief may just have made it
            raise InputError(f"--resume never: {path} already holds a run; name another --run-dir")
        _refuse_other(path, run["identity"], json.loads(json.dumps(dict(identity))))
    else:
        # The hash of the command that made the run: repeated, the command finds it.
        run = {
            "format": 1,
            "wandb_id": os.environ.get("WANDB_RUN_ID"),
            "hash": run_hash,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
        }
    if run.get("state") == FINISHED:
        _refuse_other_export(path, run["config"], config)
        return RunFolder(path, resumed, run, lock)
    run |= {
        "name": name,
        "config": config.result_settings(),
        "options": config.changed_options() | _places(config, identity),
        "identity": dict(identity),
        "state": "running",
    }
    if not shared:
        _write(path, run)
    return RunFolder(path, resumed, run, lock)


def refuse_private_folder(config: FitConfig, workers: int) -> None:
    """Raise InputError if several workers would each choose a run folder of their own."""
    named = config.run_dir is not None or config.resume not in ("auto", "never") or "WANDB_RUN_ID" in os.environ
    if workers > 1 and not named:
        raise InputError(f"--run-dir: {workers} workers need one folder that all of them reach; name it")


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
    _write(path, run | {"result": result_of(path, run) | {"tag": tag}})


def is_in_use(path: Path) -> bool:
    """Whether a training uses this run folder now."""
    if not (path / LOCK).exists():
        return False
    lock = FileLock(path / LOCK)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        return True
    except OSError:  # another user's folder: it cannot be locked
        return False
    lock.release()
    return False


def _choose(config: FitConfig, name: str, run_hash: str) -> Path:
    if config.resume not in ("auto", "never"):
        path = Path(config.resume)
        read_run(path)
        return path
    if config.run_dir is not None:
        return config.run_dir
    if run_id := os.environ.get("WANDB_RUN_ID"):
        return RUNS / run_id
    if config.resume == "auto":
        for path in sorted(RUNS.glob(f"{name}-*"), key=lambda path: path.stat().st_mtime, reverse=True):
            if _can_continue(path, run_hash):
                return path
    stamp = time.strftime("%Y%m%d-%H%M%S")
    path, count = RUNS / f"{name}-{stamp}", 1
    while path.exists():
        count += 1
        path = RUNS / f"{name}-{stamp}-{count}"
    return path


def _can_continue(path: Path, run_hash: str) -> bool:
    try:
        run = read_run(path)
    except InputError:
        return False
    return run.get("hash") == run_hash and run.get("state") != FINISHED and not is_in_use(path)


def _acquire(lock: FileLock, path: Path) -> None:
    try:
        lock.acquire(blocking=False)
    except Timeout:
        raise InputError(f"{path}: another process is using this run folder; name another --run-dir") from None
    except OSError as error:
        raise InputError(f"--run-dir: {path} cannot be written: {error.strerror}") from error


def _refuse_other(path: Path, old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    changed = [key for key in new if old.get(key) != new[key]]
    if changed:
        differences = "; ".join(f"{key}: {_shown(old.get(key))} there, {_shown(new[key])} now" for key in changed)
        raise InputError(f"{path}: holds a run of another training and is not continued: {differences}")


def _refuse_other_export(path: Path, old: Mapping[str, Any], new: FitConfig) -> None:
    if new.quantize != old["quantize"]:
        raise InputError(
            f"{path}: has finished with --quantize {old['quantize']} and is not exported again with {new.quantize}; "
            "name another --run-dir"
        )


def _places(config: FitConfig, identity: Mapping[str, Any]) -> dict[str, str]:
    """Paths of the data, so that the run can be continued from any folder."""
    places = {"dataset": identity["dataset"]}
    return places | ({"data_dir": str(config.data_dir.absolute())} if config.data_dir else {})


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 120 else f"{text[:117]}…"


def _write(path: Path, run: Mapping[str, Any]) -> None:
    write_text(path / RUN_FILE, json.dumps(run, indent=1, ensure_ascii=False))
