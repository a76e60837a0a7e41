"""Learning curve: accuracy of linear probes fitted on growing shares of the training images."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from trainer.features.linear_probe import Labelled, LinearProbe, fit_with_c
from trainer.reporting.learning_curve import LearningCurve

SHARES = (0.25, 0.5, 0.75)  # of the training images of each class; the probe on all of them exists already
MAX_DRAWS = 4
MIN_DRAWS = 2  # fewer do not show how much a draw matters
MIN_IMAGES_PER_CLASS = 2  # on average, in the smallest share


def measure_curve(
    probe: LinearProbe,
    train: Labelled,
    val: Labelled,
    *,
    balanced: bool = False,
    budget_s: float = float("inf"),
    check_interrupted: Callable[[], None] = lambda: None,
) -> LearningCurve | None:
    """Accuracy on `val` of `probe`, fitted on all of `train`, and of probes with its C on shares of `train`.

    Within a draw, each share contains the one before it. There are as many draws as fit into `budget_s` seconds. None
    where these are too few, or the images or their classes are. `check_interrupted` is called before each fit, and may
    raise.
    """
    features, labels = train
    classes = len(probe.bias)
    present = len(np.unique(labels))
    if present < 2 or len(labels) * SHARES[0] < MIN_IMAGES_PER_CLASS * present:
        return None
    start = time.perf_counter()
    images: list[int] = []
    draws: list[list[NDArray[np.bool_]]] = []  # [draw][share]: which images of val are predicted correctly
    while len(draws) < MAX_DRAWS:
        if draws and (time.perf_counter() - start) * (1 + 1 / len(draws)) > budget_s:
            break
        first_shares = _draw_shares(labels, np.random.default_rng(len(draws)))
        right: list[NDArray[np.bool_]] = []
        images = []
        for share in SHARES:
            check_interrupted()
            rows = np.flatnonzero(first_shares <= share)
            images.append(len(rows))
            smaller = fit_with_c(probe.c, (features[rows], labels[rows]), classes, balanced=balanced)
            right.append(smaller.probabilities(val[0]).argmax(1) == val[1])
            if not draws and share == SHARES[0]:
                # The time of a fit is proportional to its images.
                expected_s = (time.perf_counter() - start) * sum(SHARES) / share
                if MIN_DRAWS * expected_s > budget_s:
                    return None
        draws.append(right)
    if len(draws) < MIN_DRAWS:
        return None
    whole = probe.probabilities(val[0]).argmax(1) == val[1]
    points = [*np.array(draws).swapaxes(0, 1), np.tile(whole, (len(draws), 1))]
    return LearningCurve((*images, len(labels)), np.array(points))


def _draw_shares(labels: NDArray[np.int32], random: np.random.Generator) -> NDArray[np.float64]:
    """The smallest share, 0..1, that contains each image [N]: random within each class; one image of each is in all."""
    shares = np.zeros(len(labels))
    for label in np.unique(labels):
        rows = random.permutation(np.flatnonzero(labels == label))
        shares[rows[1:]] = (np.arange(1, len(rows)) + 0.5) / len(rows)
    return shares
