"""BentoML as its documentation shows it: a batchable API for a list of images, with the same engine."""

import os
from pathlib import Path

import bentoml
import numpy as np
from PIL.Image import Image, Resampling

from trainer import artifact
from trainer.artifact.engine import PROBABILITIES, load_engine
from trainer.artifact.prediction import prediction


@bentoml.service(workers=1)
class Stock:
    def __init__(self) -> None:
        self.artifact = artifact.load(Path(os.environ["ARTIFACT"]))
        self.engine = load_engine(self.artifact)

    @bentoml.api(batchable=True, max_batch_size=64, max_latency_ms=1000)
    def predict(self, image: list[Image]) -> list[dict]:
        mode = "L" if self.artifact.pixels.channels == 1 else "RGB"
        size = (self.artifact.pixels.width, self.artifact.pixels.height)
        resized = [item.convert(mode).resize(size, Resampling.BILINEAR) for item in image]
        arrays = [np.asarray(item).reshape(*size[::-1], -1) for item in resized]
        rows = self.engine.predict(np.stack(arrays))[PROBABILITIES]
        return [prediction({PROBABILITIES: row}, self.artifact.class_names, self.artifact.threshold) for row in rows]
