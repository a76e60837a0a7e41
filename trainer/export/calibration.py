"""Temperature scaling, and the threshold of `known` predictions; both are fitted on the validation images."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from trainer.artifact.prediction import DECIMALS, NONE_KNOWN
from trainer.reporting.metrics import UNCALIBRATED, evaluate

MIN_TEMPERATURE, MAX_TEMPERATURE = 0.05, 20.0


def fit_temperature(logits: NDArray[np.float32], labels: NDArray[np.int32]) -> float:
    """Temperature that minimizes the cross-entropy of logits [N,K], divided by it, with `labels` [N].

    (Guo et al., "On Calibration of Modern Neural Networks", 2017.) The labels are smoothed a little, as N correct
    predictions out of N do not promise the next one (Platt, "Probabilistic Outputs for Support Vector Machines", 1999).
    Without that, images that are all classified correctly would give a temperature of 0.

    UNCALIBRATED unless the temperature lowers the cross-entropy with the labels as they are, and does not raise the
    calibration error: of few images, or of images that are all classified correctly, it is little more than a guess.
    """
    from scipy.optimize import minimize_scalar
    from scipy.special import log_softmax, softmax

    images = len(labels)
    smoothing = 1 / (images + 2)
    logits64 = logits.astype(np.float64)

    def loss(log_temperature: float) -> float:
        log_probabilities = log_softmax(logits64 / np.exp(log_temperature), axis=1)
        of_label = log_probabilities[np.arange(images), labels]
        return float(-((1 - smoothing) * of_label + smoothing * log_probabilities.mean(1)).mean())

    best = minimize_scalar(loss, bounds=(np.log(MIN_TEMPERATURE), np.log(MAX_TEMPERATURE)), method="bounded")
    temperature = float(np.exp(best.x))
    before, after = (evaluate(labels, softmax(logits / np.float32(each), axis=1)) for each in (1, temperature))
    helps = after.loss < before.loss and after.calibration_error <= before.calibration_error
    return temperature if helps else UNCALIBRATED


def fit_threshold(probabilities: NDArray[np.float32], labels: NDArray[np.int32], confidence: float) -> float:
    """Lowest threshold at which predictions with that probability or more have the precision `confidence`, 0..1.

    `probabilities` [N,K], `labels` [N]. NONE_KNOWN if no threshold has that precision. Any other threshold is rounded
    like the served probabilities, and stays below NONE_KNOWN even if only probabilities that round to 1 are precise
    enough.
    """
    rounded = np.round(probabilities.max(1).astype(np.float64), DECIMALS)
    correct = probabilities.argmax(1) == labels
    order = np.argsort(-rounded, kind="stable")
    precision = np.cumsum(correct[order]) / np.arange(1, len(order) + 1)
    last_of_equals = np.append(rounded[order][1:] != rounded[order][:-1], True)
    enough = np.flatnonzero((precision >= confidence) & last_of_equals)
    if not len(enough):
        return NONE_KNOWN
    return min(float(rounded[order][enough[-1]]), round(NONE_KNOWN - 10**-DECIMALS, DECIMALS))
