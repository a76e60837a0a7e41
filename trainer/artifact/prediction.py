"""Engine outputs for an image → the prediction of the HTTP contract, with `known`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainer.artifact.engine import OOD_SCORE, PROBABILITIES

MAX_TOP = 5  # classes in `top`
DECIMALS = 6  # of a probability, in answers and before the comparison with the threshold
NONE_KNOWN = 1.0  # the threshold of a model none of whose probabilities reaches the target precision
MAX_OOD_SCORE = 0.995  # an image with this score or more is not known; `trainer.features.ood` scales the scores for it


def prediction(
    output: Mapping[str, NDArray[np.float32] | np.float32], class_names: Sequence[str], threshold: float | None
) -> dict[str, Any]:
    """One row of the engine's outputs → `label`, `index`, `probability` of the most probable class, `known`, `top`.

    `top` has up to five classes, most probable first; of equal ones, the lower index first. Probabilities have six
    decimals. Raises FloatingPointError if a value is not finite, ValueError if the numbers of probabilities and class
    names differ.
    """
    probabilities = np.asarray(output[PROBABILITIES])
    if len(probabilities) != len(class_names):
        raise ValueError(f"{len(probabilities)} probabilities for {len(class_names)} class names")
    if not all(np.isfinite(values).all() for values in output.values()):
        raise FloatingPointError("the model's answer is not finite")
    order = np.argsort(-probabilities, kind="stable")[:MAX_TOP].tolist()
    top = [
        {"label": class_names[index], "index": index, "probability": round(float(probabilities[index]), DECIMALS)}
        for index in order
    ]
    known = is_known(top[0]["probability"], output.get(OOD_SCORE), threshold)
    return top[0] | {"known": bool(known), "top": top}


def is_known(probability: Any, ood_score: Any, threshold: float | None) -> Any:
    """Whether a prediction is reliable: rounded probability ≥ threshold, and OOD score < MAX_OOD_SCORE.

    Numbers → bool; arrays [N] → bool [N]. A threshold or an OOD score of None is not checked. At the threshold
    NONE_KNOWN, no prediction is known, not even one whose probability rounds to 1.
    """
    confident = (probability >= (threshold or 0.0)) & (threshold != NONE_KNOWN)
    return confident if ood_score is None else confident & (ood_score < MAX_OOD_SCORE)
