"""Classes that cannot be told apart, from the out-of-fold answers."""

from __future__ import annotations

from itertools import combinations
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

# Guessing is right half of the time. Two classes are told apart where it is surely more than halfway from there to
# always: below that, most pictures might as well bear the other label.
TOLD_APART = 0.75
LEAST_IMAGES = 10  # of each class: fewer tell nothing
MOST_CLASSES = 200  # of more, there are too many pairs for a look at each


class AlikeClasses(NamedTuple):
    """Two classes, indices, and how many of the `images` of both are told right between the two."""

    first: int
    second: int
    right: int
    images: int


def find_alike_classes(probabilities: NDArray[np.float64], labels: NDArray[np.int32]) -> list[AlikeClasses]:
    """From out-of-fold probabilities [N,K] of pictures with `labels` [N]; the worst first."""
    from scipy.stats import binomtest

    classes = probabilities.shape[1]
    if classes > MOST_CLASSES:
        return []
    members = [np.flatnonzero(labels == label) for label in range(classes)]
    found = []
    for first, second in combinations(range(classes), 2):
        counts = len(members[first]), len(members[second])
        if min(counts) < LEAST_IMAGES:
            continue
        told = [
            (probabilities[members[one], one] > probabilities[members[one], other]).mean()
            for one, other in ((first, second), (second, first))
        ]
        images, share = sum(counts), sum(told) / 2  # the classes count alike, whatever their sizes
        right = round(share * images)
        if share < TOLD_APART and binomtest(right, images).proportion_ci(method="wilson").high < TOLD_APART:
            found.append(AlikeClasses(first, second, right, images))
    return sorted(found, key=lambda one: one.right / one.images)
