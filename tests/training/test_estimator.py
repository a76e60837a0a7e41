from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from trainer.config import FitConfig
from trainer.data import Dataset, load
from trainer.errors import InputError, Interrupted, RunError
from trainer.machine import resolve_precision
from trainer.reporting import metrics
from trainer.runs.checkpoints import Checkpoints, Progress
from trainer.training import loop
from trainer.training.distribution import count_workers
from trainer.training.estimator import Estimator
from trainer.training.train_step import balanced_weights


class Watcher:
    """Records what the estimator tells; stops it after a number of progress calls."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.epochs: list[dict[str, float]] = []
        self.calls = 0
        self._stop_after = stop_after

    def on_progress(self, step: int, total_steps: int) -> None:
        self.calls += 1

    def on_epoch(self, entry: dict[str, float], step: int) -> None:
        self.epochs.append(entry)

    def check_interrupted(self) -> None:
        if self._stop_after is not None and self.calls >= self._stop_after:
            raise Interrupted("stop", 143)


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRAINER_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        return load("builtin:digits")


def config(**options: Any) -> FitConfig:
    defaults: dict[str, Any] = {
        "dataset": "builtin:digits",
        "augment": "none",
        "precision": "float32",
        "batch_size": 64,
    }
    return FitConfig(**(defaults | options))


def train(folder: Path, dataset: Dataset, settings: FitConfig, watcher: Watcher | None = None) -> Estimator:
    estimator = Estimator(settings, dataset)
    estimator.train_and_evaluate(Checkpoints(folder, estimator.checkpoint), watcher or Watcher())
    return estimator


def weights(estimator: Estimator) -> list[np.ndarray]:
    return [np.asarray(value) for value in estimator.model.get_weights()]


def test_it_learns_and_predicts_in_order(tmp_path: Path, digits: Dataset) -> None:
    watcher = Watcher()
    estimator = train(tmp_path, digits, config(epochs=4), watcher)
    assert [entry["epoch"] for entry in watcher.epochs] == [1, 2, 3, 4]
    assert watcher.epochs[-1]["loss"] < watcher.epochs[0]["loss"]
    evaluation = estimator.evaluate(digits.val)
    assert evaluation.accuracy >= 0.85
    assert evaluation.accuracy == max(entry["val_accuracy"] for entry in watcher.epochs)
    probabilities = estimator.predict(digits.val)
    assert probabilities.shape == (len(digits.val), 10)
    assert np.allclose(probabilities.sum(1), 1, atol=1e-5)
    # In float32 again, for the export: the same answers.
    model = estimator.float32_model()
    images = digits.val.read(np.arange(8))
    assert np.allclose(tf.nn.softmax(model(images, training=False)), probabilities[:8], atol=1e-5)


def test_of_equal_accuracies_the_smaller_loss_is_the_best(
    tmp_path: Path, digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    estimator = Estimator(config(epochs=3), digits)
    measured = metrics.evaluate(np.zeros(1, np.int32), np.full((1, 2), 0.5, np.float32))
    losses = iter((0.5, 0.3, 0.4))
    monkeypatch.setattr(estimator, "evaluate", lambda _: dataclasses.replace(measured, loss=next(losses)))
    progress = estimator.train_and_evaluate(Checkpoints(tmp_path, estimator.checkpoint), Watcher())
    assert (progress.best_step, progress.best_loss) == (2 * estimator.plan.steps_per_epoch, 0.3)


def test_an_interrupted_run_continues_to_the_same_weights(tmp_path: Path, digits: Dataset) -> None:
    settings = config(epochs=2)
    whole = train(tmp_path / "whole", digits, settings)
    with pytest.raises(Interrupted):
        train(tmp_path / "parts", digits, settings, Watcher(stop_after=2))
    continued = Watcher()
    parts = train(tmp_path / "parts", digits, settings, continued)
    assert [entry["epoch"] for entry in continued.epochs] == [1, 2]
    for a, b in zip(weights(whole), weights(parts), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


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


def test_a_run_that_ends_in_validation_goes_on_there(
    tmp_path: Path, digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = config(epochs=2)
    whole = train(tmp_path / "whole", digits, settings)
    estimator = Estimator(settings, digits)
    monkeypatch.setattr(estimator, "evaluate", lambda _: pytest.fail("killed"))
    with pytest.raises(pytest.fail.Exception, match="killed"):
        estimator.train_and_evaluate(Checkpoints(tmp_path / "parts", estimator.checkpoint), Watcher())
    epoch = estimator.plan.steps_per_epoch
    assert [path.name for path in (tmp_path / "parts").iterdir()] == [f"step-{epoch:09}"]
    continued = Watcher()
    parts = train(tmp_path / "parts", digits, settings, continued)
    assert [entry["epoch"] for entry in continued.epochs] == [1, 2]
    for a, b in zip(weights(whole), weights(parts), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_checkpoints_are_written_within_an_epoch(
    tmp_path: Path, digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "CHECKPOINT_EVERY_S", 0.0)
    monkeypatch.setattr(loop, "STEPS_PER_CALL", 4)
    monkeypatch.setattr(loop, "MAX_CALL_SECONDS", 1e6)  # however slow the machine is just now
    estimator = Estimator(config(epochs=1), digits)
    steps: list[int] = []

    class Recorded(Checkpoints):
        def save(self, progress: Progress) -> None:
            steps.append(progress.step)
            super().save(progress)

    estimator.train_and_evaluate(Recorded(tmp_path, estimator.checkpoint), Watcher())
    assert steps[:3] == [1, 5, 9]
    assert max(steps) == estimator.plan.steps_per_epoch


def test_a_loss_that_is_not_finite_ends_the_run(tmp_path: Path, digits: Dataset) -> None:
    estimator = Estimator(config(), digits)
    # The last bias: no ReLU comes after it, some of whose kernels make 0 of what is no number.
    bias = estimator.model.get_layer("output").bias
    bias.assign(np.full(bias.shape, np.nan))
    with pytest.raises(RunError, match="loss is not finite") as caught:
        estimator.train_and_evaluate(Checkpoints(tmp_path, estimator.checkpoint), Watcher())
    assert caught.value.exit_code == 3
    assert not list(tmp_path.iterdir())


def test_class_weights_are_one_on_average(digits: Dataset) -> None:
    factors = balanced_weights(digits.train)
    assert np.isclose((factors * digits.train.counts).sum(), len(digits.train))
    assert factors.argmax() == digits.train.counts.argmin()


def test_precision() -> None:
    assert resolve_precision("bfloat16") == "bfloat16"
    assert resolve_precision("auto") in ("float32", "bfloat16")


def test_bfloat16_trains_and_gives_a_float32_model(tmp_path: Path, digits: Dataset) -> None:
    estimator = train(tmp_path, digits, config(precision="bfloat16", epochs=1))
    assert estimator.model.get_layer("conv1").compute_dtype == "bfloat16"
    model = estimator.float32_model()
    assert model.get_layer("conv1").compute_dtype == "float32"
    for a, b in zip(model.get_weights(), estimator.model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


# Two logical processors stand for two devices; they must exist before TensorFlow starts.
WORKER = """
import dataclasses, json, os, sys, time, types
import numpy as np, tensorflow as tf
devices, options, folder, out = int(sys.argv[1]), json.loads(sys.argv[2]), sys.argv[3], sys.argv[4]
from trainer.config import FitConfig
from trainer.runs.checkpoints import Checkpoints
from trainer.data import load
from trainer.training.distribution import make_strategy
from trainer.training.estimator import Estimator
if devices > 1:
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * devices)
    strategy = tf.distribute.MirroredStrategy([f"CPU:{i}" for i in range(devices)])
else:
    strategy = make_strategy()
from trainer.training import loop
speed = float(os.environ.get("CLOCK_SPEED", 1))  # a slow machine, as it sees itself
loop.time = types.SimpleNamespace(perf_counter=lambda: speed * time.perf_counter())
class Watcher:
    def on_progress(self, *_): pass
    def on_epoch(self, *_): pass
    def check_interrupted(self): pass
plain = FitConfig.recipe
FitConfig.recipe = lambda *of: dataclasses.replace(plain(*of), weight_average=0.9)  # as efficientnet_lite0 has one
estimator = Estimator(FitConfig(**options), load(options["dataset"], limit=options["limit"]), strategy)
from pathlib import Path
estimator.train_and_evaluate(Checkpoints(Path(folder), estimator.checkpoint), Watcher())
np.savez(out, *estimator.model.get_weights(), step=int(estimator.optimizer.iterations.numpy()))
"""
TWENTY_STEPS = {
    "dataset": "builtin:digits", "limit": 640, "batch_size": 32, "epochs": 1, "dropout": 0.0,
    "augment": "none", "precision": "float32", "model": "branched_cnn",
}  # fmt: skip


def start(out: Path, folder: Path, *, devices: int = 1, options: dict[str, Any], **environment: str) -> Any:
    command = [sys.executable, "-c", WORKER, str(devices), json.dumps(options), str(folder), str(out)]
    return subprocess.Popen(command, env=os.environ | environment, stderr=subprocess.PIPE, text=True)


def finish(process: Any) -> None:
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors[-3000:]


def read(path: Path) -> list[np.ndarray]:
    with np.load(path) as file:
        assert int(file["step"]) == 20
        return [file[f"arr_{index}"] for index in range(len(file.files) - 1)]


def test_one_device_two_devices_and_two_workers_agree(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unused_ports: list[int]
) -> None:
    monkeypatch.setenv("TRAINER_CACHE_DIR", str(tmp_path / "cache"))
    load("builtin:digits")
    finish(start(tmp_path / "one.npz", tmp_path / "one", options=TWENTY_STEPS))
    one = read(tmp_path / "one.npz")

    finish(start(tmp_path / "devices.npz", tmp_path / "devices", devices=2, options=TWENTY_STEPS))
    cluster = {"worker": [f"127.0.0.1:{port}" for port in unused_ports[:2]]}
    workers = [
        start(
            tmp_path / f"worker{index}.npz",
            tmp_path / "workers",
            options=TWENTY_STEPS,
            TF_CONFIG=json.dumps({"cluster": cluster, "task": {"type": "worker", "index": index}}),
            CLOCK_SPEED=str(1 + 1000 * index),
        )
        for index in range(2)
    ]
    for worker in workers:
        finish(worker)
    first, second = read(tmp_path / "worker0.npz"), read(tmp_path / "worker1.npz")
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)
    for other in (first, read(tmp_path / "devices.npz")):
        for a, b in zip(one, other, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_a_batch_that_devices_cannot_share(digits: Dataset) -> None:
    class ThreeDevices:
        num_replicas_in_sync = 3
        cluster_resolver = None

    with pytest.raises(InputError, match="64 images cannot be shared evenly by 3 devices"):
        Estimator(config(), digits, ThreeDevices())


@pytest.mark.parametrize("text", ["{", "[]", '{"cluster": {"worker": 2}}'])
def test_a_tf_config_that_is_none_is_wrong_input(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(InputError, match="TF_CONFIG: a JSON object"):
        count_workers()
