"""Checkpoints of a run: atomic on disk, the last two and the best kept."""

from __future__ import annotations

import json
import math
import os
import shutil
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from trainer.config import RunError

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

    def save(self, progress: Progress) -> None:
        """Write a checkpoint: whole under a private name, then renamed. Raises RunError on a full disk."""
        import tensorflow as tf

        self.folder.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=".draft-", dir=self.folder))
        final = self.folder / _name(progress.step)
        try:
            self._trackable.write(str(draft / "variables"))
            (draft / "progress.json").write_text(json.dumps(asdict(progress)))
            if final.exists():  # the same step again: the epoch's end after an interruption just there
                shutil.rmtree(final)
            os.rename(draft, final)
        except (OSError, tf.errors.OpError) as error:
            raise RunError(f"{final}: the checkpoint could not be written: {error}") from error
        finally:
            shutil.rmtree(draft, ignore_errors=True)
        self._prune(keep=progress.best_step)

    def restore_latest(self) -> Progress | None:
        """Restore the newest checkpoint's variables; None where there is none."""
        steps = self._steps()
        return self._restore(steps[-1]) if steps else None

    def restore_best(self, progress: Progress) -> None:
        """Restore the variables of the best validation accuracy so far."""
        self._restore(progress.best_step)

    def _restore(self, step: int) -> Progress:
        folder = self.folder / _name(step)
        self._trackable.read(str(folder / "variables")).assert_existing_objects_matched()
        return Progress(**json.loads((folder / "progress.json").read_text()))

    def _steps(self) -> list[int]:
        return sorted(int(path.name.removeprefix("step-")) for path in self.folder.glob("step-*"))

    def _prune(self, keep: int) -> None:
        for step in self._steps()[:-KEPT]:
            if step != keep:
                shutil.rmtree(self.folder / _name(step))
        for draft in self.folder.glob(".draft-*"):  # of a process that was killed while it wrote
            shutil.rmtree(draft, ignore_errors=True)


def _name(step: int) -> str:
    return f"step-{step:09d}"
