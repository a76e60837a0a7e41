from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from busy import use_cpu
from numpy.typing import NDArray

from trainer.artifact import Artifact
from trainer.artifact.engine import Outputs
from trainer.images.pixels import PixelSpec
from trainer.serving.batching import BatchRunner
from trainer.serving.loaded_model import prepare_model
from trainer.serving.parallel import ParallelRunner
from trainer.serving.settings import Settings


class TimedEngine:
    """Takes `call_s` CPU seconds for each call and `image_s` for each image."""

    def __init__(self, call_s: float, image_s: float) -> None:
        self._call_s, self._image_s = call_s, image_s

    def predict(self, images: NDArray[np.uint8]) -> Outputs:
        use_cpu(self._call_s + len(images) * self._image_s)
        return {"probabilities": np.zeros((len(images), 2), np.float32)}


@pytest.mark.parametrize(
    ("call_s", "image_s", "threads", "parallel"),
    [
        (0.0, 0.02, 2, True),
        (0.0, 0.02, 1, False),  # one CPU
        (0.02, 0.001, 2, False),  # gains by batches
    ],
)
def test_parallel_engines_are_chosen_where_batches_gain_nothing(
    call_s: float, image_s: float, threads: int, parallel: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads_of_engines: list[int] = []

    def load(artifact: Artifact, name: str, threads: int) -> TimedEngine:
        threads_of_engines.append(threads)
        return TimedEngine(call_s, image_s)

    monkeypatch.setattr("trainer.serving.loaded_model.load_engine", load)
    artifact = Artifact(Path("nowhere"), ("a", "b"), PixelSpec(2, 2, 1), "float32", 1.0, 0.5, "x", {}, {}, {}, None)
    model = prepare_model("a:1", artifact, Settings(threads=threads), lambda size, seconds: None)
    assert isinstance(model.runner, ParallelRunner if parallel else BatchRunner)
    assert threads_of_engines == [threads, *[1] * (threads if threads > 1 else 0)]
    model.runner.close()


@pytest.mark.parametrize(
    ("quantization", "flags", "warned"),
    [("static-int8", "avx2", True), ("static-int8", "avx2 avx512_vnni", False), ("float32", "avx2", False)],
)
def test_static_int8_on_a_processor_without_int8_instructions_is_told(
    quantization: str, flags: str, warned: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("trainer.serving.loaded_model.load_engine", lambda *_: TimedEngine(0, 0.0001))
    monkeypatch.setattr("trainer.serving.loaded_model.cpu_flags", lambda: set(flags.split()))
    artifact = Artifact(Path("nowhere"), ("a", "b"), PixelSpec(2, 2, 1), quantization, 1.0, 0.5, "x", {}, {}, {}, None)
    prepare_model("a:1", artifact, Settings(threads=1), lambda size, seconds: None).runner.close()
    assert ("`--quantize none` is faster" in caplog.text) == warned
