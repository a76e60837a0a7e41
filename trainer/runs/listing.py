"""`trainer runs`: list run folders with their state, and delete checkpoints that are no longer needed."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from trainer.artifact import read_spec
from trainer.errors import ArtifactError, InputError
from trainer.runs.checkpoints import newest_progress
from trainer.runs.run_folder import (
    CHECKPOINTS,
    EXPORT,
    FINISHED,
    RUN_FILE,
    RUNS,
    is_exported,
    is_in_use,
    read_run,
    result_of,
)

TRIALS = "trial-*"  # run folders of a sweep, within its folder


@dataclass(frozen=True)
class Run:
    """A run folder, or the folder of a sweep."""

    path: str
    state: str  # finished | unfinished | running | damaged | sweep
    created: str  # ISO 8601, with a time zone
    size_bytes: int
    dataset: str | None = None
    epoch: int | None = None  # finished
    epochs: int | None = None  # planned
    val_accuracy: float | None = None  # 0..1; the best so far of an unfinished run, or of a sweep's trials
    test_accuracy: float | None = None
    tag: str | None = None  # of the model in the store
    trials: int | None = None  # of a sweep
    finished_trials: int | None = None
    resumable: bool = False  # by its folder alone; a run of an earlier version needs its options, too
    error: str | None = None  # why a damaged run cannot be read

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


def list_runs(root: Path | None = None) -> list[Run]:
    """Runs and sweeps under `root` (None: RUNS, which need not exist), the newest first.

    Raises InputError if `root` is not a folder.
    """
    if root is not None and not root.is_dir():
        raise InputError(f"{root}: no folder; one that holds run folders is expected, such as {RUNS}")
    found = [one for path in (root or RUNS).glob("*/") if (one := _look(path))]
    return sorted(found, key=lambda one: one.created, reverse=True)


def prune(root: Path | None = None) -> tuple[int, int]:
    """Delete the checkpoints of finished runs, in sweeps too → (runs, bytes) freed.

    A run deletes its own when it finishes; older versions left them, and so does a run that is killed just then. The
    best trials of a sweep keep theirs until its winner is exported from them.
    """
    count = size_bytes = 0
    for path in _finished(root or RUNS):
        if (path / CHECKPOINTS).is_dir() and not is_in_use(path) and not _may_be_exported(path):
            count += 1
            size_bytes += _size(path / CHECKPOINTS)
            shutil.rmtree(path / CHECKPOINTS)
    return count, size_bytes


def _finished(root: Path) -> Iterator[Path]:
    for pattern in (f"*/{RUN_FILE}", f"*/{TRIALS}/{RUN_FILE}"):
        for file in root.glob(pattern):
            try:
                if read_run(file.parent).get("state") == FINISHED:
                    yield file.parent
            except InputError:  # damaged: its checkpoints may still be needed
                continue


def _may_be_exported(path: Path) -> bool:
    """Whether a finished trial may be the winner of its sweep: none as good on the same data has been exported."""
    own = _fingerprint_and_result(path)
    if own is None or is_exported(own[1]):
        return False
    siblings = [found for trial in path.parent.glob(TRIALS) if (found := _fingerprint_and_result(trial))]
    return not any(
        fingerprint == own[0] and is_exported(result) and result["val_accuracy"] >= own[1]["val_accuracy"]
        for fingerprint, result in siblings
    )


def _fingerprint_and_result(path: Path) -> tuple[str | None, dict[str, Any]] | None:
    """The data set's fingerprint and the result of a finished run; None for any other folder."""
    try:
        run = read_run(path)
        finished = run.get("state") == FINISHED
        return (run["identity"].get("fingerprint"), result_of(path, run)) if finished else None
    except (InputError, ArtifactError):
        return None


def _look(path: Path) -> Run | None:
    """The run or sweep in a folder; None for any other folder."""
    if (path / RUN_FILE).exists():
        try:
            return _look_at_run(path, read_run(path))
        except (InputError, ArtifactError, KeyError, TypeError, AttributeError) as error:
            reason = str(error) if isinstance(error, InputError | ArtifactError) else f"{path / RUN_FILE}: is no run's"
            return Run(str(path), "damaged", _changed(path), _size(path), error=reason)
    return _look_at_sweep(path) if any(path.glob(TRIALS)) else None


def _look_at_run(path: Path, run: dict[str, Any]) -> Run:
    facts = {
        "path": str(path),
        "created": run.get("created") or _changed(path),
        "size_bytes": _size(path),
        "dataset": run["identity"]["dataset"],
        "epochs": run["identity"]["epochs"],
    }
    if run["state"] == FINISHED:
        result = result_of(path, run)
        if "test_accuracy" in result:  # else a trial that was not exported
            read_spec(path / EXPORT)  # raises where it is gone
        reached: dict[str, Any] = {name: result.get(name) for name in ("val_accuracy", "test_accuracy", "tag")}
        return Run(**facts, **reached, state="finished", epoch=result.get("epochs"))
    progress = newest_progress(path / CHECKPOINTS)
    return Run(
        **facts,
        state="running" if is_in_use(path) else "unfinished",
        epoch=progress.epochs if progress else 0,
        val_accuracy=progress.best_accuracy if progress and progress.history else None,
        resumable="options" in run,
    )


def _look_at_sweep(path: Path) -> Run:
    runs = [one for trial in path.glob(TRIALS) if (one := _look(trial))]
    finished = [one for one in runs if one.state == "finished"]
    datasets = sorted({one.dataset for one in runs if one.dataset})
    accuracies = [one.val_accuracy for one in finished if one.val_accuracy is not None]
    return Run(
        str(path),
        "sweep",
        max([one.created for one in runs], default=_changed(path)),
        _size(path),
        dataset=", ".join(datasets) or None,
        val_accuracy=max(accuracies, default=None) if len(datasets) == 1 else None,  # else there is no best one
        trials=len(list(path.glob(TRIALS))),
        finished_trials=len(finished),
    )


def _changed(path: Path) -> str:
    return datetime.fromtimestamp(path.stat().st_mtime, UTC).isoformat(timespec="seconds")


def _size(folder: Path) -> int:
    """Bytes of all files; a training may be deleting some of them now."""
    size_bytes = 0
    for file in folder.rglob("*"):
        try:
            size_bytes += file.lstat().st_size
        except OSError:
            continue
    return size_bytes
