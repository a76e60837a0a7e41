"""Label issues: labels that are likely wrong, by confident learning.

(Northcutt, Jiang & Chuang, "Confident Learning", 2021.) An image may have a wrong label where its out-of-fold
prediction is another class, with at least the mean probability of images that have that class as their label. All
images are ranked by their normalised margin: the probability of the label minus the largest of the others. `cleanlab`
does the same; docs/decisions.md says why it is not used.

This alone reports many images of a sound data set that is hard. So the number of issues is limited by the noise rate:
the share of wrong labels among the images with the most confident predictions, where nearly every contradiction is a
wrong label. (Measured on photos of clothing with 0, 2, 5 and 10 % of the labels changed: 0.0, 1.9, 5.2 and 10.3 %;
confident learning alone reports 5.7, 6.5, 7.9 and 11.8 %.)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# The shares of the most confident predictions by which the noise rate is measured; the lower rate counts. Where the
# smaller share has more contradictions, they were mistakes of the linear model after all.
MOST_CONFIDENT = (0.1, 0.25)
MIN_CONFIDENT = 100  # images: a rate measured on fewer is chance


@dataclass(frozen=True, eq=False)
class LabelRanking:
    """N images, ranked by how likely their label is wrong."""

    order: NDArray[np.int64]  # [N] positions, the least likely label first
    issues: NDArray[np.int64]  # positions of the label issues, in that order; at most about `noise_rate` of all
    suggested: NDArray[np.int32]  # [N]: the most likely class other than the label
    probabilities: NDArray[np.float64]  # [N]: of the suggested class
    noise_rate: float  # 0..1: estimated share of wrong labels


def find_label_issues(probabilities: NDArray[np.float64], labels: NDArray[np.int32]) -> LabelRanking:
    """Rank images with `labels` [N] by their out-of-fold probabilities [N,K]."""
    rows = np.arange(len(labels))
    others = probabilities.copy()
    others[rows, labels] = -1
    suggested = others.argmax(1).astype(np.int32)
    strongest = others[rows, suggested]
    margins = probabilities[rows, labels] - strongest
    order = np.argsort(margins, kind="stable")
    thresholds = np.array([_mean(probabilities[labels == label, label]) for label in range(probabilities.shape[1])])
    wrong = (margins < 0) & (strongest >= thresholds[suggested])
    noise_rate = _noise_rate(probabilities, labels)
    return LabelRanking(
        order=order,
        issues=order[wrong[order]][: round(noise_rate * len(labels))],
        suggested=suggested,
        probabilities=strongest,
        noise_rate=noise_rate,
    )


def beats_majority_class(probabilities: NDArray[np.float64], labels: NDArray[np.int32]) -> bool:
    """Whether the predictions make less than half of the errors of always predicting the most frequent class."""
    accuracy = (probabilities.argmax(1) == labels).mean()
    majority = np.bincount(labels).max() / len(labels)
    return bool(1 - accuracy < (1 - majority) / 2)


def _noise_rate(probabilities: NDArray[np.float64], labels: NDArray[np.int32]) -> float:
    most_confident_first = np.argsort(-probabilities.max(1), kind="stable")
    contradicted = (probabilities.argmax(1) != labels)[most_confident_first]
    counts = [max(MIN_CONFIDENT, round(share * len(labels))) for share in MOST_CONFIDENT]
    return min(float(contradicted[:count].mean()) for count in counts)


def _mean(values: NDArray[np.float64]) -> float:
    """Mean of the values; 1 if there are none, so that a class without images is never suggested."""
    return float(values.mean()) if len(values) else 1.0
