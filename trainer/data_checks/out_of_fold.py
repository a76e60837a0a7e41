"""Out-of-fold probabilities: the prediction for each image by a linear model that is fitted on all others.

Ridge regression on one-hot labels, because one decomposition gives all leave-one-out predictions (Golub, Heath &
Wahba, "Generalized Cross-Validation", 1979; for groups that are left out together: Cook & Weisberg, "Residuals and
Influence in Regression", 1982). It found as many wrong labels as five logistic regressions, in a fifth of their time.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from trainer.data_checks.duplicates import members_of_groups

DECAYS = tuple(10.0**power for power in (-1.5, -1, -0.5, 0, 0.5, 1, 1.5, 2))  # for features of unit length on average
TEMPERATURES = (1, 2, 3, 4, 6, 8, 10, 12, 16, 20, 30)
MAX_LEVERAGE = 0.999  # of an image on its own prediction: it reaches 1 where a feature is zero for all but one image


def out_of_fold(
    features: NDArray[np.float32], labels: NDArray[np.int32], groups: NDArray[np.int64], classes: int
) -> NDArray[np.float64]:
    """Probabilities [N,K] for features [N,F] of images with `labels` [N]; each of the `groups` [N] is left out as one.

    Decay and temperature are the ones with the smallest loss on the labels.
    """
    scaled = _standardise(features)
    targets = np.eye(classes)[labels]
    mean = targets.mean(0)
    values, vectors = np.linalg.eigh(scaled.T @ scaled)
    rotated = scaled @ vectors  # [N,F]
    values = np.maximum(values, 0)
    members = members_of_groups(groups)
    best, best_loss = np.zeros_like(targets), np.inf
    for decay in DECAYS:
        scores = _leave_one_out(rotated, 1 / (values + decay), targets - mean, members) + mean
        for temperature in TEMPERATURES:
            probabilities = _softmax(temperature * scores)
            of_label = probabilities[np.arange(len(labels)), labels]
            loss = float(-np.log(np.maximum(of_label, np.finfo(np.float64).tiny)).mean())
            if loss < best_loss:
                best, best_loss = probabilities, loss
    return best


def _standardise(features: NDArray[np.float32]) -> NDArray[np.float32]:
    centred = features - features.mean(0)
    return (centred / ((features.std(0) + 1e-6) * np.sqrt(features.shape[1]))).astype(np.float32)


def _leave_one_out(
    rotated: NDArray[np.float32],
    shrinkage: NDArray[np.float64],
    targets: NDArray[np.float64],
    members: list[NDArray[np.int64]],
) -> NDArray[np.float64]:
    """Predictions [N,K] of the regression without the image, or without all `members` of its group."""
    weighted = rotated * shrinkage.astype(np.float32)
    residual = targets - weighted @ (rotated.T @ targets)
    leverage = np.minimum((weighted * rotated).sum(1, dtype=np.float64) + 1 / len(rotated), MAX_LEVERAGE)
    errors = residual / (1 - leverage)[:, None]
    for group in members:
        hat = weighted[group] @ rotated[group].T + 1 / len(rotated)
        errors[group] = np.linalg.lstsq(np.eye(len(group)) - hat, residual[group], rcond=None)[0]
    return targets - errors


def _softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)
