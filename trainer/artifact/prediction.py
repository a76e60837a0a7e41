"""Probabilities → the prediction of the HTTP contract."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

TOP = 5


def prediction(probabilities: NDArray[np.float32], labels: Sequence[str]) -> dict[str, Any]:
    """Probabilities float32 [K] → `label`, `index`, `probability` of the most probable class, and `top`.

    `top` has up to five, the most probable first; of equals the lower index. Probabilities have six decimals.
    Raises FloatingPointError where a probability is not finite, ValueError where K is not the number of labels.
    """
    if len(probabilities) != len(labels):
        raise ValueError(f"{len(probabilities)} probabilities for {len(labels)} labels")
    if not np.isfinite(probabilities).all():
        raise FloatingPointError("the model's answer is not finite")
    order = np.argsort(-probabilities, kind="stable")[:TOP].tolist()
    top = [
        {"label": labels[index], "index": index, "probability": round(float(probabilities[index]), 6)}
        for index in order
    ]
    return top[0] | {"top": top}
