"""Checkpoints of a run: atomic on disk, the last two and the best kept; a damaged one is passed over."""

from __future__ import annotations

import json
import logging
import math
import shutil
import tempfile
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from trainer.errors import RunError
from trainer.files import rename_folder, write_text

log = logging.getLogger("trainer")

PROGRESS = "progress.json"
VARIABLES = "variables"
KEPT = 2  # besides the best: the newest may be the one that a failing disk spoiled


@dataclass
class Progress:
    """Where a run stands; what cannot be read from the variables."""

    step: int = 0  # training steps done
    history: list[dict[str, float]] = field(default_factory=list)  # one entry for each finished epoch
    best_accuracy: float = -1.0  # on validation
    best_loss: float = math.inf  # on validation, at the best accuracy
    best_step: int = 0
    # Sums over the epoch under way: loss, right answers, images, seconds.
    running: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.0, 0.0])

    @property
    def epochs(self) -> int:
        """How many have ended. The head of a pretrained network is no epoch: its entry has the number 0."""
        return int(self.history[-1]["epoch"]) if self.history else 0


class Checkpoints:
    """The folder `checkpoints/` of a run: one folder `step-N` for each checkpoint.

    `trackable` is a `tf.train.Checkpoint` of the model and the optimizer.
    """

    def __init__(self, folder: Path, trackable: Any) -> None:
        self.folder = folder
        self._trackable = trackable
        self._stored: int | None = None  # the step whose variables were written or restored last

    def save(self, progress: Progress) -> None:
        """Write a checkpoint: whole and on the disk under a private name, then renamed. Raises RunError on a full disk.

        Of a step that is stored already, before its validation, only the progress is written.
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
        """Restore the variables of the newest checkpoint that is sound; None where there is none."""
        for step in reversed(self._steps()):
            if progress := self._sound(step):
                self._restore(step)
                return progress
        return None

    def restore_best(self, progress: Progress) -> None:
        """Restore the variables of the best validation accuracy so far; those at hand stay where it is damaged."""
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
        """The progress of a checkpoint that can be read to its end; else None, and a warning.

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
        """Leave the newest and the best as each of them knows it; later ones are damaged, as this run began before."""
        newest = [step for step in self._steps() if step <= progress.step][-KEPT:]
        kept = {*newest, progress.best_step}
        for step in newest[:-1]:
            with suppress(OSError, ValueError, TypeError):
                kept.add(self._progress(step).best_step)
        for step in self._steps():
            if step not in kept:
                shutil.rmtree(self.folder / _name(step))
        for draft in self.folder.glob(".draft-*"):  # of a process that was killed while it wrote
            shutil.rmtree(draft, ignore_errors=True)


def newest_progress(folder: Path) -> Progress | None:
    """Where a run stands, by the checkpoints in `folder`; None without any. Its variables are not looked at."""
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
