from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from small_training import Recorder, StopWhen, Trained, make_network, run_training

from trainer.config import FitConfig
from trainer.data import Dataset, Split, load
from trainer.data.batches import predict_batches
from trainer.errors import InputError, Interrupted, RunError
from trainer.machine import resolve_precision
from trainer.reporting import metrics
from trainer.runs.checkpoints import Checkpoints, Progress
from trainer.training import loop
from trainer.training.distribution import count_workers
from trainer.training.network import Network
from trainer.training.settings import resolve
from trainer.training.train_step import balanced_weights


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


def weights(trained: Trained) -> list[np.ndarray]:
    return [np.asarray(value) for value in trained.network.model.get_weights()]


def validate(network: Network, split: Split) -> metrics.Evaluation:
    outputs = predict_batches(network.predict, split, "validating")
    return metrics.evaluate(split.labels, outputs["probabilities"])


def test_it_learns_and_predicts_in_order(tmp_path: Path, digits: Dataset) -> None:
    recorder = Recorder()
    trained = run_training(tmp_path, digits, config(epochs=4), recorder)
    assert [entry["epoch"] for entry in recorder.epochs] == [1, 2, 3, 4]
    assert recorder.epochs[-1]["loss"] < recorder.epochs[0]["loss"]
    evaluation = validate(trained.network, digits.val)
    assert evaluation.accuracy >= 0.85
    assert evaluation.accuracy == max(entry["val_accuracy"] for entry in recorder.epochs)
    assert (trained.result.end, trained.result.progress.epochs) == ("all epochs", 4)
    images = digits.val.read(np.arange(8))
    probabilities = trained.network.predict(images)["probabilities"]
    assert np.allclose(probabilities.sum(1), 1, atol=1e-5)
    # In float32 again, for the export: the same predictions.
    model = trained.network.float32_model()
    assert np.allclose(tf.nn.softmax(model(images, training=False)), probabilities, atol=1e-5)


def test_an_interrupted_run_continues_to_the_same_weights(tmp_path: Path, digits: Dataset) -> None:
    settings = config(epochs=2)
    whole = run_training(tmp_path / "whole", digits, settings)
    interrupted = Recorder()
    with pytest.raises(Interrupted):
        run_training(tmp_path / "parts", digits, settings, interrupted, StopWhen(lambda: interrupted.steps >= 2))
    continued = Recorder()
    parts = run_training(tmp_path / "parts", digits, settings, continued)
    assert [entry["epoch"] for entry in continued.epochs] == [1, 2]
    for a, b in zip(weights(whole), weights(parts), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_a_run_that_ends_in_validation_goes_on_there(
    tmp_path: Path, digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = config(epochs=2)
    whole = run_training(tmp_path / "whole", digits, settings)
    with monkeypatch.context() as patch:
        patch.setattr(loop, "predict_batches", lambda *_, **__: pytest.fail("killed"))
        with pytest.raises(pytest.fail.Exception, match="killed"):
            run_training(tmp_path / "parts", digits, settings)
    epoch = whole.result.plan.steps_per_epoch
    assert [path.name for path in (tmp_path / "parts").iterdir()] == [f"step-{epoch:09}"]
    continued = Recorder()
    parts = run_training(tmp_path / "parts", digits, settings, continued)
    assert [entry["epoch"] for entry in continued.epochs] == [1, 2]
    for a, b in zip(weights(whole), weights(parts), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_a_training_that_has_ended_is_not_continued(tmp_path: Path, digits: Dataset) -> None:
    """Neither by more time than it had, as when its export was interrupted, nor in another process."""
    settings = config(epochs=1, time_limit=600.0)
    whole = run_training(tmp_path, digits, settings)
    checkpoint = tf.train.Checkpoint(model=whole.network.model)
    progress = Checkpoints(tmp_path, checkpoint).restore_latest()
    assert progress
    progress.end = "no time"
    Checkpoints(tmp_path, whole.network.checkpoint).save(progress)
    recorder = Recorder()
    again = run_training(tmp_path, digits, settings, recorder)
    assert recorder.epochs == []
    assert again.result.end == "no time"
    assert again.result.progress.history == whole.result.progress.history
    for a, b in zip(weights(whole), weights(again), strict=True):
        np.testing.assert_array_equal(a, b)


def test_checkpoints_are_written_within_an_epoch(
    tmp_path: Path, digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "CHECKPOINT_EVERY_S", 0.0)
    monkeypatch.setattr(loop, "STEPS_PER_CALL", 4)
    monkeypatch.setattr(loop, "MAX_CALL_SECONDS", 1e6)  # however slow the machine is just now
    steps: list[int] = []

    class Recorded(Checkpoints):
        def save(self, progress: Progress) -> None:
            steps.append(progress.step)
            super().save(progress)

    monkeypatch.setattr(loop, "Checkpoints", Recorded)
    trained = run_training(tmp_path, digits, config(epochs=1))
    assert steps[:3] == [1, 5, 9]
    assert max(steps) == trained.result.plan.steps_per_epoch


def test_a_loss_that_is_not_finite_ends_the_run(tmp_path: Path, digits: Dataset) -> None:
    network = make_network(config(), digits)
    # The last bias: no ReLU comes after it, some of whose kernels turn NaN into 0.
    bias = network.model.get_layer("output").bias
    bias.assign(np.full(bias.shape, np.nan))
    with pytest.raises(RunError, match="loss is not finite") as caught:
        run_training(tmp_path, digits, config(), network=network)
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
    network = run_training(tmp_path, digits, config(precision="bfloat16", epochs=1)).network
    assert network.model.get_layer("conv1").compute_dtype == "bfloat16"
    model = network.float32_model()
    assert model.get_layer("conv1").compute_dtype == "float32"
    for a, b in zip(model.get_weights(), network.model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


# Two logical processors stand for two devices; they must exist before TensorFlow starts.
WORKER = """
import dataclasses, json, os, sys, time, types
import numpy as np, tensorflow as tf
devices, options, outputs = int(sys.argv[1]), json.loads(sys.argv[2]), sys.argv[3:]
from pathlib import Path
from trainer.config import FitConfig
from trainer.data import load
from trainer.runs.checkpoints import Progress
from trainer.signals import Signals
from trainer.training.callbacks import CallbackList
from trainer.training.distribution import make_strategy
from trainer.training.network import Network
from trainer.training.settings import resolve
from trainer.training.throughput import measure_throughput
from trainer.training.timer import Timer
if devices > 1:
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * devices)
    mirrored = tf.distribute.MirroredStrategy([f"CPU:{i}" for i in range(devices)])
    strategies = [tf.distribute.get_strategy(), mirrored]
else:
    strategies = [make_strategy()]
from trainer.training import loop
speed = float(os.environ.get("CLOCK_SPEED", 1))  # a slow machine, as its own clock shows it
loop.time = types.SimpleNamespace(perf_counter=lambda: speed * time.perf_counter())
plain = FitConfig.recipe
FitConfig.recipe = lambda *of: dataclasses.replace(plain(*of), weight_average=0.9)  # as efficientnet_lite0 has one
config = FitConfig(**options)
dataset = load(options["dataset"], limit=options["limit"])
for strategy, out in zip(strategies, outputs, strict=True):
    settings = resolve(config, dataset, strategy.num_replicas_in_sync)
    network = Network(settings, dataset, strategy)
    throughput = measure_throughput(network, dataset, settings, Timer(None))
    start, folder = loop.Start(Progress(), flips=False), Path(out).parent / "checkpoints"
    loop.train(network, dataset, settings, start, folder, CallbackList(), throughput, Signals())
    np.savez(out, *network.model.get_weights(), step=int(network.optimizer.iterations.numpy()))
"""
TWENTY_STEPS = {
    "dataset": "builtin:digits", "limit": 640, "batch_size": 32, "epochs": 1, "dropout": 0.0,
    "augment": "none", "precision": "float32", "model": "branched_cnn",
}  # fmt: skip


def start(*outputs: Path, devices: int = 1, options: dict[str, Any], **environment: str) -> Any:
    """Train in a process of its own → weights in a file; with several devices first on one of them, then on all."""
    for out in outputs:
        out.parent.mkdir(exist_ok=True)
    command = [sys.executable, "-c", WORKER, str(devices), json.dumps(options), *map(str, outputs)]
    return subprocess.Popen(command, env=os.environ | environment, stderr=subprocess.PIPE, text=True)


def finish(process: Any) -> None:
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors[-3000:]


def read(path: Path) -> list[np.ndarray]:
    with np.load(path) as file:
        assert int(file["step"]) == 20
        return [file[f"arr_{index}"] for index in range(len(file.files) - 1)]


@pytest.mark.slow
def test_one_device_two_devices_and_two_workers_agree(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unused_ports: list[int]
) -> None:
    monkeypatch.setenv("TRAINER_CACHE_DIR", str(tmp_path / "cache"))
    load("builtin:digits")
    files = (tmp_path / "one" / "weights.npz", tmp_path / "devices" / "weights.npz")
    finish(start(*files, devices=2, options=TWENTY_STEPS))
    one, devices = map(read, files)
    cluster = {"worker": [f"127.0.0.1:{port}" for port in unused_ports[:2]]}
    workers = [
        start(
            tmp_path / "workers" / f"worker{index}.npz",
            options=TWENTY_STEPS,
            TF_CONFIG=json.dumps({"cluster": cluster, "task": {"type": "worker", "index": index}}),
            CLOCK_SPEED=str(1 + 1000 * index),
        )
        for index in range(2)
    ]
    for worker in workers:
        finish(worker)
    first, second = (read(tmp_path / "workers" / f"worker{index}.npz") for index in range(2))
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)
    for other in (first, devices):
        for a, b in zip(one, other, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_a_batch_that_devices_cannot_share(digits: Dataset) -> None:
    with pytest.raises(InputError, match="64 images cannot be shared evenly by 3 devices"):
        resolve(config(), digits, 3)


@pytest.mark.parametrize("text", ["{", "[]", '{"cluster": {"worker": 2}}'])
def test_a_tf_config_that_is_none_is_wrong_input(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(InputError, match="TF_CONFIG: a JSON object"):
        count_workers()
