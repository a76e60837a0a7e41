"""Saliency maps (`trainer.images.saliency`) from the engines of an artifact."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trainer.artifact.engine import PROBABILITIES, Engine, LiteRTEngine
from trainer.artifact.spec import EXPLAIN_FILE
from trainer.images.saliency import class_activation_map, occlude, occlusion_sensitivity

ACTIVATION = "activation"  # float32 [N,h,w,K]: the contribution of each position to the logits


def load_activation_engine(folder: Path, threads: int | None = None) -> Engine | None:
    """Load the engine uint8 [N,H,W,C] → ACTIVATION of the artifact in `folder`.

    None for a network that does not pool its features, and for an older artifact.
    """
    file = folder / EXPLAIN_FILE
    return LiteRTEngine(file, threads) if file.is_file() else None


def explain(
    image: NDArray[np.uint8], index: int, engine: Engine, activation: Engine | None = None
) -> NDArray[np.float32]:
    """Saliency map, float32 [H,W] from 0 to 1, of class `index` for an image uint8 [H,W,C].

    A class-activation map if there is an `activation` engine; else the occlusion sensitivity of `engine`.
    """
    if activation:
        return activation_map(image, index, activation)
    probabilities = engine.predict(np.concatenate([image[None], occlude(image)]))[PROBABILITIES][:, index]
    return occlusion_sensitivity(float(probabilities[0]), probabilities[1:], image.shape[:2])


def activation_map(image: NDArray[np.uint8], index: int, activation: Engine) -> NDArray[np.float32]:
    """Class-activation map, float32 [H,W] from 0 to 1, from an engine that returns ACTIVATION."""
    return class_activation_map(activation.predict(image[None])[ACTIVATION][0], index, image.shape[:2])
