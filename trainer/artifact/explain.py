"""What in a picture spoke for a class: the engines of an artifact → heat (`trainer.images.heat`)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trainer.artifact.engine import PROBABILITIES, Engine, LiteRTEngine
from trainer.artifact.spec import EXPLAIN_FILE
from trainer.images.heat import activation_heat, cover, cover_heat

ACTIVATION = "activation"  # float32 [N,h,w,K]: what each place adds to the logits


def load_activation_engine(folder: Path, threads: int | None = None) -> Engine | None:
    """Of the artifact in `folder`, uint8 [N,H,W,C] → ACTIVATION; None where its network does not pool its features, and
    for an older artifact.
    """
    file = folder / EXPLAIN_FILE
    return LiteRTEngine(file, threads) if file.is_file() else None


def explain(
    image: NDArray[np.uint8], index: int, engine: Engine, activation: Engine | None = None
) -> NDArray[np.float32]:
    """The heat, float32 [H,W] from 0 to 1, of class `index` in a picture uint8 [H,W,C].

    From `activation` where there is one; else the `engine` is asked about the picture with parts of it covered.
    """
    if activation:
        return activation_heat_of(image, index, activation)
    probabilities = engine.predict(np.concatenate([image[None], cover(image)]))[PROBABILITIES][:, index]
    return cover_heat(float(probabilities[0]), probabilities[1:], image.shape[:2])


def activation_heat_of(image: NDArray[np.uint8], index: int, activation: Engine) -> NDArray[np.float32]:
    """The same from an engine that gives ACTIVATION."""
    return activation_heat(activation.predict(image[None])[ACTIVATION][0], index, image.shape[:2])
