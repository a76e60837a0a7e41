"""What more training images would bring: the head on features with growing shares of those that there are."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from trainer.features.linear_probe import Head, fit_at
from trainer.reporting.learning_curve import LearningCurve

SHARES = (0.25, 0.5, 0.75)  # of the training images of each class; all of them have been fitted already
DRAWS = 4  # at most
LEAST_DRAWS = 2  # fewer do not tell how much a draw matters
LEAST_IMAGES = 2  # of a class on average, in the smallest share


def measure_curve(
    head: Head,
    train: tuple[NDArray[np.float32], NDArray[np.int32]],
    val: tuple[NDArray[np.float32], NDArray[np.int32]],
    *,
    balanced: bool = False,
    budget_s: float = float("inf"),
    check_interrupted: Callable[[], None] = lambda: None,
) -> LearningCurve | None:
    """The accuracy on `val` of `head`, fitted on all of `train`, and of heads of its weight decay on shares of it.

    `train` and `val` are (features float32 [N,F], labels int32 [N] of 0..classes-1). In a draw each share holds the one
    before it. There are as many draws as `budget_s` seconds allow; None where they are too few to tell, or the images
    are, or their classes. `check_interrupted` is called before each fit, and may raise.
    """
    features, labels = train
    classes = len(head.bias)
    present = len(np.unique(labels))
    if present < 2 or len(labels) * SHARES[0] < LEAST_IMAGES * present:
        return None
    start = time.perf_counter()
    images: list[int] = []
    draws: list[list[NDArray[np.bool_]]] = []
    while len(draws) < DRAWS:
        if draws and (time.perf_counter() - start) * (1 + 1 / len(draws)) > budget_s:
            break
        turns = _turns(labels, np.random.default_rng(len(draws)))
        right: list[NDArray[np.bool_]] = []
        images = []
        for share in SHARES:
            check_interrupted()
            rows = np.flatnonzero(turns <= share)
            images.append(len(rows))
            smaller = fit_at(head.strength, (features[rows], labels[rows]), classes, balanced=balanced)
            right.append(smaller.probabilities(val[0]).argmax(1) == val[1])
            if not draws and share == SHARES[0]:
                # The time of a fit goes with its images.
                expected_s = (time.perf_counter() - start) * sum(SHARES) / share
                if LEAST_DRAWS * expected_s > budget_s:
                    return None
        draws.append(right)
    if len(draws) < LEAST_DRAWS:
        return None
    whole = head.probabilities(val[0]).argmax(1) == val[1]
    points = [*np.array(draws).swapaxes(0, 1), np.tile(whole, (len(draws), 1))]
    return LearningCurve((*images, len(labels)), np.array(points))


def _turns(labels: NDArray[np.int32], random: np.random.Generator) -> NDArray[np.float64]:
    """The share from which on each image belongs to it, 0..1: in random order within each class, its first always."""
    turns = np.zeros(len(labels))
    for label in np.unique(labels):
        rows = random.permutation(np.flatnonzero(labels == label))
        turns[rows[1:]] = (np.arange(1, len(rows)) + 0.5) / len(rows)
    return turns
