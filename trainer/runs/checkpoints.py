"""Checkpoints of a run: written atomically, the last two and the best kept; a damaged one is skipped."""

from __future__ import annotations

import json
import logging
import math
import shutil
import tempfile
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from trainer.errors import RunError
from trainer.files import rename_folder, write_text

log = logging.getLogger("trainer")

PROGRESS = "progress.json"
VARIABLES = "variables"
KEPT = 2  # besides the best: a failing disk may have damaged the newest


End = Literal["all epochs", "no better", "no time"]  # why a training ended


@dataclass
class Progress:
    """State of a run that is not in the variables of its network."""

    step: int = 0  # training steps done
    history: list[dict[str, float]] = field(default_factory=list)  # one entry for each finished epoch
    best_accuracy: float = -1.0  # on validation
    best_loss: float = math.inf  # on validation, at the best accuracy
    best_step: int = 0
    end: End | None = None  # None: the training has not ended
    # Sums over the current epoch: loss, correct predictions, images, seconds.
    running: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.0, 0.0])

    @property
    def epochs(self) -> int:
        """Number of finished epochs. The linear probe of a pretrained network does not count: its entry is epoch 0."""
        return int(self.history[-1]["epoch"]) if self.history else 0

    @property
    def best(self) -> tuple[float, float]:
        """Validation accuracy and negative loss: few validation images often give two epochs the same accuracy."""
        return self.best_accuracy, -self.best_loss

    @classmethod
    def of_probe(cls, entry: dict[str, float]) -> Progress:
        """The start of a run from a linear probe, whose metrics are epoch 0."""
        return cls(history=[entry], best_accuracy=entry["val_accuracy"], best_loss=entry["val_loss"])

    def end_epoch(self, entry: dict[str, float]) -> None:
        """Add an epoch's metrics, and note whether it is the best so far."""
        self.history.append(entry)
        self.running = [0.0] * 4
        if (entry["val_accuracy"], -entry["val_loss"]) > self.best:
            self.best_accuracy, self.best_loss = entry["val_accuracy"], entry["val_loss"]
            self.best_step = self.step


class Checkpoints:
    """The folder `checkpoints/` of a run, with a folder `step-N` for each checkpoint.

    `trackable` is a `tf.train.Checkpoint` of the model and the optimizer.
    """

    def __init__(self, folder: Path, trackable: Any) -> None:
        self.folder = folder
        self._trackable = trackable
        self._stored: int | None = None  # step whose variables were written or restored last

    def save(self, progress: Progress) -> None:
        """Write a checkpoint atomically: temporary folder, fsync, rename. Raises RunError on a full disk.

        For a step that is stored already, before its validation, only the progress is written.
        """
        import tensorflow as tf

        final = self.folder / _name(progress.step)
        text = json.dumps(asdict(progress))
        try:
            if progress.step == self._stored and final.exists():
                write_text(final / PROGRESS, text)
            else:
                self._write(final, text)
        except (OSError, tf.errors.OpError) as error:
            raise RunError(f"{final}: the checkpoint could not be written: {error}") from error
        self._stored = progress.step
        self._prune(progress)

    def restore_latest(self) -> Progress | None:
        """Restore the variables of the newest undamaged checkpoint; None without one."""
        for step in reversed(self._steps()):
            if progress := self._sound(step):
                self._restore(step)
                return progress
        return None

    def restore_best(self, progress: Progress) -> None:
        """Restore the variables of the best validation accuracy; keep the current ones where that is damaged."""
        if self._sound(progress.best_step):
            self._restore(progress.best_step)

    def _write(self, final: Path, progress: str) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=".draft-", dir=self.folder))
        try:
            self._trackable.write(str(draft / VARIABLES))
            (draft / PROGRESS).write_text(progress, encoding="utf-8")
            rename_folder(draft, final)
        finally:
            shutil.rmtree(draft, ignore_errors=True)

    def _restore(self, step: int) -> None:
        self._trackable.read(str(self.folder / _name(step) / VARIABLES)).assert_existing_objects_matched()
        self._stored = step

    def _sound(self, step: int) -> Progress | None:
        """The progress of a checkpoint, if it can be read to its end; None, with a warning, for a damaged one.

        Restoring a damaged one would leave half of its variables in the network.
        """
        import tensorflow as tf

        folder = self.folder / _name(step)
        try:
            progress = self._progress(step)
            reader = tf.train.load_checkpoint(str(folder / VARIABLES))
            for name in reader.get_variable_to_shape_map():
                reader.get_tensor(name)  # compares its checksum
        except (OSError, ValueError, TypeError, LookupError, tf.errors.OpError) as error:
            log.warning("%s: this checkpoint is damaged and is left out: %s", folder, error)
            return None
        return progress

    def _progress(self, step: int) -> Progress:
        return _read_progress(self.folder, step)

    def _steps(self) -> list[int]:
        return _steps(self.folder)

    def _prune(self, progress: Progress) -> None:
        """Delete all checkpoints except the newest ones, and the best one that each of these records.

        Checkpoints of steps after `progress` are damaged, because this run continued from an earlier one.
        """
        newest = [step for step in self._steps() if step <= progress.step][-KEPT:]
        kept = {*newest, progress.best_step}
        for step in newest[:-1]:
            with suppress(OSError, ValueError, TypeError):
                kept.add(self._progress(step).best_step)
        for step in self._steps():
            if step not in kept:
                shutil.rmtree(self.folder / _name(step))
        for draft in self.folder.glob(".draft-*"):  # left by a process that was killed while it wrote
            shutil.rmtree(draft, ignore_errors=True)


def newest_progress(folder: Path) -> Progress | None:
    """Progress of the newest checkpoint in `folder`, without reading its variables; None without any."""
    for step in reversed(_steps(folder)):
        with suppress(OSError, ValueError, TypeError):
            return _read_progress(folder, step)
    return None


def _read_progress(folder: Path, step: int) -> Progress:
    progress = Progress(**json.loads((folder / _name(step) / PROGRESS).read_text(encoding="utf-8")))
    if progress.step != step:
        raise ValueError(f"{PROGRESS} is of step {progress.step}")
    return progress


def _steps(folder: Path) -> list[int]:
    return sorted(int(path.name.removeprefix("step-")) for path in folder.glob("step-*"))


def _name(step: int) -> str:
    return f"step-{step:09d}"
