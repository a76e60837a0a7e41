"""Probabilities that can be taken at their word, and from which of them on an answer is known; fitted on validation."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from trainer.artifact.prediction import DECIMALS

COLDEST, HOTTEST = 0.05, 20.0  # temperatures


def fit_temperature(logits: NDArray[np.float32], labels: NDArray[np.int32]) -> float:
    """By which logits [N,K] are divided so that their probabilities fit `labels` [N] best, by cross-entropy.

    (Guo et al., "On Calibration of Modern Neural Networks", 2017.) A little of each label is shared by all classes, as
    a class with N right answers out of N need not be right the next time (Platt, "Probabilistic Outputs for Support
    Vector Machines", 1999): else images that are all named right would ask for a temperature of 0.
    """
    from scipy.optimize import minimize_scalar
    from scipy.special import log_softmax

    images = len(labels)
    shared = 1 / (images + 2)
    wide = logits.astype(np.float64)

    def loss(log_temperature: float) -> float:
        likely = log_softmax(wide / np.exp(log_temperature), axis=1)
        chosen = likely[np.arange(images), labels]
        return float(-((1 - shared) * chosen + shared * likely.mean(1)).mean())

    best = minimize_scalar(loss, bounds=(np.log(COLDEST), np.log(HOTTEST)), method="bounded")
    return float(np.exp(best.x))


def fit_threshold(probabilities: NDArray[np.float32], labels: NDArray[np.int32], confidence: float) -> float:
    """The lowest of the answers' probabilities from which on at least a share `confidence` of the answers is right.

    `probabilities` [N,K], `labels` [N]; the threshold has the decimals of a probability that is told. 1 where no
    probability is enough.
    """
    told = np.round(probabilities.max(1).astype(np.float64), DECIMALS)
    right = probabilities.argmax(1) == labels
    order = np.argsort(-told, kind="stable")
    share = np.cumsum(right[order]) / np.arange(1, len(order) + 1)
    last_of_equals = np.append(told[order][1:] != told[order][:-1], True)
    enough = np.flatnonzero((share >= confidence) & last_of_equals)
    return float(told[order][enough[-1]]) if len(enough) else 1.0
