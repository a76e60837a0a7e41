"""Open a run folder: find or make it, lock it, and refuse a different training."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from trainer.config import FitConfig
from trainer.errors import InputError
from trainer.files import writing_to
from trainer.locks import ProcessLock, Timeout
from trainer.option_fields import flag
from trainer.runs.run_folder import (
    EXPORTED,
    FINISHED,
    LOCK,
    RUN_FILE,
    RUNNING,
    RUNS,
    RunFolder,
    is_exported,
    is_in_use,
    read_run,
    write_run,
)

# Settings that change the export alone, and not the training: see `trainer.training.settings`.
EXPORT_SETTINGS = ("quantize", "confidence", "time_limit")


def open_run(config: FitConfig, name: str, identity: Mapping[str, Any], *, shared: bool = False) -> RunFolder:
    """Open the folder that `--run-dir` and `--resume` ask for, and lock it.

    `identity` has everything that must match to resume a run (data set, labels, architecture, settings): a folder with
    another identity is never continued, and a finished run stays as it is. A `shared` folder, for a worker that is not
    the chief, is read only and not locked.
    Raises InputError for a folder in use, one with a different training, or one that is not a run.
    """
    run_hash = hashlib.sha256(json.dumps([config.hash(), dict(identity)], sort_keys=True).encode()).hexdigest()
    path, lock = _shared(config) if shared else _locked(config, name, run_hash)
    before = read_run(path) if (path / RUN_FILE).exists() else None
    if before is not None:
        run = dict(before)
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
            "state": RUNNING,
        }
    if run["state"] in (EXPORTED, FINISHED) and is_exported(run.get("result") or {"test_accuracy": None}):
        _refuse_other_export(path, run["config"], config)
        return RunFolder(path, run, before, lock)
    run |= {
        "name": name,
        "config": config.result_settings(),
        "options": config.changed_options() | _places(config, identity),
        "identity": dict(identity),
    }
    if not shared:
        write_run(path, run)
    return RunFolder(path, run, before, lock)


def refuse_private_folder(config: FitConfig, workers: int) -> None:
    """Raise InputError if several workers would each choose a run folder of their own."""
    named = config.run_dir is not None or config.resume not in ("auto", "never") or "WANDB_RUN_ID" in os.environ
    if workers > 1 and not named:
        raise InputError(f"--run-dir: {workers} workers need one folder that all of them reach; name it")


def _shared(config: FitConfig) -> tuple[Path, ProcessLock]:
    """The folder that all workers of a training name; see `refuse_private_folder`."""
    path = next(_named(config))
    return path, ProcessLock(path / LOCK)


def _locked(config: FitConfig, name: str, run_hash: str) -> tuple[Path, ProcessLock]:
    """The run folder, made where it is new, and its lock, held."""
    for path in _named(config):
        _make(path)
        return path, _lock(path)
    if config.resume == "auto":
        for path in sorted(RUNS.glob(f"{name}-*"), key=lambda path: path.stat().st_mtime, reverse=True):
            if _can_continue(path, run_hash):
                try:
                    return path, _lock(path)
                except InputError:  # another process has just begun to continue it
                    continue
    stamp = time.strftime("%Y%m%d-%H%M%S")
    for count in itertools.count(1):  # a run may have begun in the same second
        path = RUNS / (f"{name}-{stamp}" if count == 1 else f"{name}-{stamp}-{count}")
        if _make(path):
            break
    return path, _lock(path)


def _named(config: FitConfig) -> Iterator[Path]:
    """The folder that the configuration or W&B names, if any."""
    if config.resume not in ("auto", "never"):
        path = Path(config.resume)
        read_run(path)
        yield path
    elif config.run_dir is not None:
        yield config.run_dir
    elif run_id := os.environ.get("WANDB_RUN_ID"):
        yield RUNS / run_id


def _make(path: Path) -> bool:
    """Make a run folder; returns whether it is new."""
    with writing_to(f"--run-dir: {path}"):
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            if not path.is_dir():
                raise
            return False
        return True


def _lock(path: Path) -> ProcessLock:
    lock = ProcessLock(path / LOCK)
    with writing_to(f"--run-dir: {path}"):
        try:
            lock.acquire(0)
        except Timeout:
            raise InputError(f"{path}: another process is using this run folder; name another --run-dir") from None
    return lock


def _can_continue(path: Path, run_hash: str) -> bool:
    try:
        run = read_run(path)
    except InputError:
        return False
    return run.get("hash") == run_hash and run.get("state") != FINISHED and not is_in_use(path)


def _refuse_other(path: Path, old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    changed = [key for key in new if old.get(key) != new[key]]
    if changed:
        differences = "; ".join(f"{key}: {_shown(old.get(key))} there, {_shown(new[key])} now" for key in changed)
        raise InputError(f"{path}: holds a run of another training and is not continued: {differences}")


def _refuse_other_export(path: Path, old: Mapping[str, Any], new: FitConfig) -> None:
    """Raise InputError if a run that is exported already is asked for with other settings of the export."""
    settings = new.result_settings()
    for name in EXPORT_SETTINGS:
        if settings[name] != old.get(name, settings[name]):
            raise InputError(
                f"{path}: is exported with {flag(name)} {_shown(old[name])} and is not exported again with "
                f"{_shown(settings[name])}; name another --run-dir"
            )


def _places(config: FitConfig, identity: Mapping[str, Any]) -> dict[str, str]:
    """Paths of the data, so that the run can be continued from any folder."""
    places = {"dataset": identity["dataset"]}
    return places | ({"data_dir": str(config.data_dir.absolute())} if config.data_dir else {})


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 120 else f"{text[:117]}…"
