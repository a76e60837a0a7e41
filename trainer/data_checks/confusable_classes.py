"""Pairs of classes that cannot be told apart, found in out-of-fold predictions."""

from __future__ import annotations

from itertools import combinations
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

# Accuracy between two classes; guessing gives 0.5. Two classes are confusable where it is surely less than halfway from
# there to 1: below that, most images might as well have the other label.
MIN_ACCURACY = 0.75
MIN_IMAGES = 10  # of each class: fewer prove nothing
MAX_CLASSES = 200  # more have too many pairs to test each


class ConfusableClasses(NamedTuple):
    """Two classes (indices), and how many of the `images` of both are predicted correctly between the two."""

    first: int
    second: int
    correct: int
    images: int


def find_confusable_classes(probabilities: NDArray[np.float64], labels: NDArray[np.int32]) -> list[ConfusableClasses]:
    """Confusable pairs, the worst first, from out-of-fold probabilities [N,K] of images with `labels` [N]."""
    from scipy.stats import binomtest

    classes = probabilities.shape[1]
    if classes > MAX_CLASSES:
        return []
    members = [np.flatnonzero(labels == label) for label in range(classes)]
    found = []
    for first, second in combinations(range(classes), 2):
        counts = len(members[first]), len(members[second])
        if min(counts) < MIN_IMAGES:
            continue
        recalls = [
            (probabilities[members[label], label] > probabilities[members[label], other]).mean()
            for label, other in ((first, second), (second, first))
        ]
        images, accuracy = sum(counts), sum(recalls) / 2  # both classes count the same, whatever their sizes
        correct = round(accuracy * images)
        if accuracy < MIN_ACCURACY and binomtest(correct, images).proportion_ci(method="wilson").high < MIN_ACCURACY:
            found.append(ConfusableClasses(first, second, correct, images))
    return sorted(found, key=lambda pair: pair.correct / pair.images)
