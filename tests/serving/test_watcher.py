from __future__ import annotations

import asyncio
import gc
import shutil
import threading
import weakref
from pathlib import Path

import numpy as np
import pytest
from server import publish

from trainer import artifact
from trainer.artifact import store
from trainer.serving.inference import Inference
from trainer.serving.loaded_model import FailedVersion, prepare_model
from trainer.serving.memory import MemoryBudget
from trainer.serving.metrics import Metrics
from trainer.serving.request import MIB
from trainer.serving.settings import Settings
from trainer.serving.watcher import CHECK_BYTES, MAX_RELEASE_S, Watcher

SETTINGS = Settings(watch_s=0.05, threads=1)
TIMEOUT_S = 60


@pytest.fixture
def home(tiny_artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store with a version of `tiny`."""
    monkeypatch.setenv("BENTOML_HOME", str(tmp_path / "home"))
    publish(tiny_artifact, tmp_path / "home")
    return tmp_path / "home"


def inference_of(stored: store.StoredModel, metrics: Metrics, memory: MemoryBudget) -> Inference:
    model = prepare_model(stored.tag, artifact.load(stored.path), SETTINGS, metrics.on_batch)
    return Inference(model, SETTINGS, metrics, memory)


def test_the_model_before_is_freed_once_no_request_has_it(tiny_artifact: Path, home: Path, metrics: Metrics) -> None:
    old = store.find("tiny")
    memory = MemoryBudget(256 * MIB)
    inference = inference_of(old, metrics, memory)
    watcher = Watcher(inference, old.path, SETTINGS, metrics, memory)

    async def test() -> None:
        request = inference.loaded  # one that has begun
        freed = weakref.ref(request.runner)
        watcher.start()
        tag = publish(tiny_artifact, home)
        async with asyncio.timeout(TIMEOUT_S):
            while inference.loaded.tag != tag:
                await asyncio.sleep(0.01)
            assert not memory.take(256 * MIB)  # both are in memory
            outputs = await request.runner.predict(np.zeros((28, 28, 1), np.uint8))
            assert outputs["probabilities"].shape == (10,)
            held: list[object] = [request]
            held.append(held)  # a cycle, as the traceback of a request's error may be one
            del request, held
            while freed():
                await asyncio.sleep(0.01)
            while not memory.take(256 * MIB):
                await asyncio.sleep(0.01)
        await watcher.stop()

    gc.disable()
    try:
        asyncio.run(test())
    finally:
        gc.enable()
    assert not [thread for thread in threading.enumerate() if thread.name == "watcher"]


def test_a_stop_does_not_wait_for_the_model_before(tiny_artifact: Path, home: Path, metrics: Metrics) -> None:
    old = store.find("tiny")
    inference = inference_of(old, metrics, MemoryBudget(256 * MIB))
    watcher = Watcher(inference, old.path, SETTINGS, metrics, MemoryBudget(256 * MIB))

    async def test() -> None:
        request = inference.loaded
        watcher.start()
        tag = publish(tiny_artifact, home)
        async with asyncio.timeout(TIMEOUT_S):
            while inference.loaded.tag != tag:
                await asyncio.sleep(0.01)
        async with asyncio.timeout(MAX_RELEASE_S / 2):
            await watcher.stop()
        outputs = await request.runner.predict(np.zeros((28, 28, 1), np.uint8))  # it is answered all the same
        assert outputs["probabilities"].shape == (10,)

    asyncio.run(test())


def test_a_failed_version_and_its_reason_are_known(tiny_artifact: Path, home: Path, metrics: Metrics) -> None:
    old = store.find("tiny")
    bad = shutil.copytree(tiny_artifact, home / "bad")
    (bad / "model.tflite").write_bytes(b"!")
    tag = publish(bad, home)
    inference = inference_of(old, metrics, MemoryBudget(256 * MIB))
    reason = failure(inference, Watcher(inference, old.path, SETTINGS, metrics, MemoryBudget(256 * MIB)))
    assert reason == FailedVersion(tag, "model.tflite: is not the file that was saved: its sha256 differs")
    inference.failed_version = None
    small = MemoryBudget(CHECK_BYTES)
    failed = failure(inference, Watcher(inference, old.path, SETTINGS, metrics, small))
    assert failed.tag == tag
    assert failed.reason == (
        "too little memory: its check takes 64 MiB, and this server has 64 MiB besides the served model"
    )
    assert inference.loaded.tag == old.tag
    assert small.take(CHECK_BYTES)


def failure(inference: Inference, watcher: Watcher) -> FailedVersion:
    """The failed version that the watcher finds."""

    async def watch() -> FailedVersion:
        watcher.start()
        async with asyncio.timeout(TIMEOUT_S):
            while inference.failed_version is None:
                await asyncio.sleep(0.01)
        await watcher.stop()
        return inference.failed_version

    return asyncio.run(watch())
