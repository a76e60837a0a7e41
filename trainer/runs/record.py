"""A recorded run: its folder, locked, with a tracker of its metrics; both are closed when the run ends."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from trainer.config import FitConfig
from trainer.console import close_with_next
from trainer.errors import DivergedError, InputError, Interrupted, RunError
from trainer.reporting.metrics import accuracy_interval
from trainer.runs import tracking
from trainer.runs.checkpoints import Progress
from trainer.runs.open_run import open_run
from trainer.runs.run_folder import RunFolder


@contextmanager
def record_run(
    config: FitConfig, name: str, identity: Mapping[str, Any], *, chief: bool = True
) -> Iterator[tuple[RunFolder, tracking.Tracker]]:
    """Open the run folder and start the tracker; see `open_run` for the errors.

    Only the `chief` of several workers writes and tracks. A run that fails keeps the files that continue it, and its
    error gets the command that continues it; a run that is refused before its first checkpoint leaves no files.
    """
    run = open_run(config, name, identity, shared=not chief)
    tracker = tracking.start(
        config.wandb if chief else "disabled",
        config={**config.result_settings(), "dataset_fingerprint": identity["fingerprint"]},
        run_dir=run.path,
        name=run.path.name,
        run_id=run.wandb_id,
        resume=run.resumed,
    )
    try:
        if chief:
            run.update(wandb_id=tracker.id)
        yield run, tracker
    except BaseException as error:
        tracker.finish(exit_code=getattr(error, "exit_code", 1), error=str(error) or type(error).__name__)
        if chief:
            _leave(run, error)
        raise
    finally:
        run.close()
    tracker.finish(exit_code=0, error=None)


def training_result(run: RunFolder, progress: Progress, val_images: int) -> dict[str, Any]:
    """Result of a training before the export; plain JSON values."""
    return {
        "run_dir": str(run.path),
        "epochs": progress.epochs,
        "train_seconds": sum(entry["seconds"] for entry in progress.history),
        "images_per_second": progress.history[-1]["images_per_second"],
        "val_accuracy": progress.best_accuracy,
        "val_accuracy_interval": list(accuracy_interval(progress.best_accuracy, val_images)),
    }


def _leave(run: RunFolder, error: BaseException) -> None:
    if isinstance(error, InputError) and not run.checkpoints.exists():
        run.undo()
    elif isinstance(error, RunError | Interrupted | OSError) and not isinstance(error, DivergedError):
        close_with_next(error, *run.command)
