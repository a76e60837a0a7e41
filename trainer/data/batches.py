"""The batch loop for prediction: images of a split → a network's outputs, in order, with progress."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainer.data.dataset import Split
from trainer.data.progress import track

# Images uint8 [n,H,W,C] → named outputs, float32 [n,…] each.
Predict = Callable[[NDArray[np.uint8]], Mapping[str, NDArray[Any]]]


def predict_batches(
    predict: Predict,
    split: Split,
    what: str,
    *,
    bar: bool | None = None,
    check_interrupted: Callable[[], None] | None = None,
) -> dict[str, NDArray[Any]]:
    """Outputs for every image of `split`, which is not empty, in order: name → float32 [len(split),…].

    `what` names the job in the progress bar or the log; `bar` None: a bar on a terminal only. `check_interrupted`
    runs before each batch and raises Interrupted once a signal has come.
    """
    height, width, _ = split.shape
    parts: list[Mapping[str, NDArray[Any]]] = []
    for images in track(split.batches(inference_batch_size(height, width)), len, total=len(split), what=what, bar=bar):
        if check_interrupted:
            check_interrupted()
        parts.append(predict(images))
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def inference_batch_size(height: int, width: int) -> int:
    """Batch size for inference, 8..256; activations grow with the number of pixels."""
    return max(8, min(256, 256 * 64 * 64 // (height * width)))
