from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from busy import use_cpu
from numpy.typing import NDArray

from trainer.artifact import Artifact
from trainer.artifact.engine import Outputs
from trainer.images.pixels import PixelSpec
from trainer.serving.lanes import Lanes
from trainer.serving.runner import Runner
from trainer.serving.served import make_served
from trainer.serving.settings import Settings


class TimedEngine:
    """Takes `call_s` CPU seconds for each call and `image_s` for each image."""

    def __init__(self, call_s: float, image_s: float) -> None:
        self._call_s, self._image_s = call_s, image_s

    def predict(self, images: NDArray[np.uint8]) -> Outputs:
        use_cpu(self._call_s + len(images) * self._image_s)
        return {"probabilities": np.zeros((len(images), 2), np.float32)}


@pytest.mark.parametrize(
    ("call_s", "image_s", "threads", "lanes"),
    [
        (0.0, 0.02, 2, True),
        (0.0, 0.02, 1, False),  # one CPU
        (0.02, 0.001, 2, False),  # gains by batches
    ],
)
def test_several_images_at_once_where_batches_gain_nothing(
    call_s: float, image_s: float, threads: int, lanes: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[int] = []

    def load(artifact: Artifact, name: str, threads: int) -> TimedEngine:
        made.append(threads)
        return TimedEngine(call_s, image_s)

    monkeypatch.setattr("trainer.serving.served.load_engine", load)
    artifact = Artifact(Path("nowhere"), ("a", "b"), PixelSpec(2, 2, 1), "float32", 1.0, 0.5, "x", {}, {}, {}, None)
    served = make_served("a:1", artifact, Settings(threads=threads), lambda size, seconds: None)
    assert isinstance(served.runner, Lanes if lanes else Runner)
    assert made == [threads, *[1] * (threads if threads > 1 else 0)]
    served.runner.close()
