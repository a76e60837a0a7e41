"""Checkpoints of a training.

Fails without: TensorFlow's own errors as RunError in `Checkpoints.save`.
"""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path

import pytest
from operation import Operation, check
from system_calls import is_supported
from watched_process import Ended

from trainer.console import fail
from trainer.runs.checkpoints import Checkpoints, Progress

pytestmark = pytest.mark.skipif(not is_supported(), reason="needs seccomp's user notifications: Linux 5.6, x86-64")

ACCURACIES = (0.7, 0.9, 0.8, 0.6)  # after each epoch


def train() -> None:
    """Count epochs in a variable, as `trainer fit` trains, and print the best one."""
    import tensorflow as tf

    weights = tf.Variable([0.0] * 8)
    stored = Checkpoints(Path("checkpoints"), tf.train.Checkpoint(weights=weights))
    try:
        progress = stored.restore_latest() or Progress()
        for epoch in range(progress.epochs, len(ACCURACIES)):
            if progress.step == epoch:  # else it was killed before its validation
                weights.assign_add(tf.range(8.0))
                progress.step += 1
                stored.save(progress)
            progress.end_epoch({"epoch": epoch + 1, "val_accuracy": ACCURACIES[epoch], "val_loss": 0.0})
            print("epoch", flush=True)
            stored.save(progress)
        stored.restore_best(progress)
    except Exception as error:
        sys.exit(fail(error))
    print(json.dumps([progress.best_step, weights.numpy().tolist()]))


def test_checkpoints(tmp_path: Path, sample: random.Random | None) -> None:
    home = tmp_path / "home"
    (home / "work").mkdir(parents=True)

    def result(home: Path, ended: Ended) -> object:
        return ended.out.splitlines()[-1]

    def epochs(out: str) -> int:
        return out.count("epoch")

    check(Operation(home, train, (), lambda home: "", result, epochs), sample, kills=6, errors=4)
