"""What the network gives for an image → the prediction of the HTTP contract, and whether it is known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainer.artifact.engine import NOVELTY, PROBABILITIES

TOP = 5
DECIMALS = 6  # of a probability, in answers and in the threshold that it is held against
NOVEL = 0.995  # from here on an image is unlike what was learnt from: so far off is 1 validation image in 200


def prediction(
    output: Mapping[str, NDArray[np.float32] | np.float32], class_names: Sequence[str], threshold: float | None
) -> dict[str, Any]:
    """One image's row of the engine's outputs → `label`, `index`, `probability` of the most probable class, `known`,
    and `top`.

    `top` has up to five, the most probable first; of equals the lower index. Probabilities have six decimals.
    `known` as in `known`. Raises FloatingPointError where a value is not finite, ValueError where the number of
    probabilities is not that of the class names.
    """
    probabilities = np.asarray(output[PROBABILITIES])
    if len(probabilities) != len(class_names):
        raise ValueError(f"{len(probabilities)} probabilities for {len(class_names)} labels")
    if not all(np.isfinite(values).all() for values in output.values()):
        raise FloatingPointError("the model's answer is not finite")
    order = np.argsort(-probabilities, kind="stable")[:TOP].tolist()
    top = [
        {"label": class_names[index], "index": index, "probability": round(float(probabilities[index]), DECIMALS)}
        for index in order
    ]
    sure = known(top[0]["probability"], output.get(NOVELTY), threshold)
    return top[0] | {"known": bool(sure), "top": top}


def known(probability: Any, novelty: Any, threshold: float | None) -> Any:
    """Whether an answer is one to rely on: its probability, as it is told, reaches the threshold, and the image is not
    NOVEL. Numbers, or arrays [N] → bool [N].

    Without a threshold, and without a novelty (None), nothing speaks against it.
    """
    sure = probability >= (threshold or 0.0)
    return sure if novelty is None else sure & (novelty < NOVEL)
