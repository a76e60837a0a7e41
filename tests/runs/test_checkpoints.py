from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from trainer.runs.checkpoints import Checkpoints, Progress


def test_of_equal_accuracies_the_smaller_loss_is_the_best() -> None:
    progress = Progress()
    for step, loss in ((10, 0.5), (20, 0.3), (30, 0.4)):
        progress.step = step
        progress.end_epoch({"epoch": step / 10, "val_accuracy": 0.5, "val_loss": loss})
    assert (progress.best_step, progress.best_loss, progress.epochs) == (20, 0.3, 3)


def test_the_last_two_and_the_best_checkpoint_are_kept(tmp_path: Path) -> None:
    variable = tf.Variable(0.0)
    checkpoints = Checkpoints(tmp_path, tf.train.Checkpoint(variable=variable))
    for step, best in ((10, 10), (20, 20), (30, 20), (40, 20), (50, 20)):
        variable.assign(float(step))
        checkpoints.save(Progress(step=step, best_step=best))
    (tmp_path / ".draft-of-a-killed-process").mkdir()
    progress = checkpoints.restore_latest()
    assert progress is not None
    assert (progress.step, float(variable)) == (50, 50.0)
    checkpoints.restore_best(progress)
    assert float(variable) == 20.0
    variable.assign(60.0)
    checkpoints.save(Progress(step=60, best_step=20))
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "step-000000020",
        "step-000000050",
        "step-000000060",
    ]


def saved_twice(folder: Path) -> tuple[Checkpoints, tf.Variable]:
    """A run that was saved at step 10, its best, and at step 20."""
    variable = tf.Variable(np.zeros(5000, np.float32))
    checkpoints = Checkpoints(folder, tf.train.Checkpoint(variable=variable))
    for step in (10, 20):
        variable.assign(np.full(5000, step, np.float32))
        checkpoints.save(Progress(step=step, best_step=10))
    return checkpoints, variable


def cut(file: Path) -> None:
    with file.open("r+b") as opened:
        opened.truncate(file.stat().st_size // 2)


def overwrite(file: Path) -> None:
    """As many zeros as there were bytes: what a loss of power may leave."""
    file.write_bytes(bytes(file.stat().st_size))


@pytest.mark.parametrize("name", ["progress.json", "variables.index", "variables.data-00000-of-00001"])
@pytest.mark.parametrize("damage", [cut, overwrite, os.remove, lambda file: file.write_bytes(b"")])
def test_a_damaged_checkpoint_is_passed_over(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str, damage: Callable[[Path], None]
) -> None:
    checkpoints, variable = saved_twice(tmp_path)
    damage(tmp_path / "step-000000020" / name)
    variable.assign(np.full(5000, 7, np.float32))
    progress = checkpoints.restore_latest()
    assert progress is not None
    assert (progress.step, set(variable.numpy())) == (10, {10.0})
    assert f"{tmp_path}/step-000000020: this checkpoint is damaged and is left out" in caplog.text
    # It goes with the next one, and is written anew where that has its step.
    variable.assign(np.full(5000, 15, np.float32))
    checkpoints.save(Progress(step=15, best_step=10))
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["step-000000010", "step-000000015"]


def test_without_a_sound_checkpoint_training_begins_anew(tmp_path: Path) -> None:
    checkpoints, variable = saved_twice(tmp_path)
    for step in (10, 20):
        cut(tmp_path / f"step-0000000{step}" / "variables.data-00000-of-00001")
    variable.assign(np.full(5000, 7, np.float32))
    assert checkpoints.restore_latest() is None
    checkpoints.restore_best(Progress(step=20, best_step=10))
    assert set(variable.numpy()) == {7.0}


def test_the_best_of_the_last_but_one_is_kept(tmp_path: Path) -> None:
    checkpoints, variable = saved_twice(tmp_path)
    checkpoints.save(Progress(step=30, best_step=30))
    cut(tmp_path / "step-000000030" / "variables.index")
    progress = checkpoints.restore_latest()
    assert progress is not None
    checkpoints.restore_best(progress)
    assert set(variable.numpy()) == {10.0}
