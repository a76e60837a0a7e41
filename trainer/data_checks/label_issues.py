"""Labels that are likely wrong, by confident learning (Northcutt, Jiang & Chuang, "Confident Learning", 2021).

A picture may be wrong where the out-of-fold answer is another class, as surely as pictures that bear its label usually
are of it. All pictures are ranked by their normalised margin: the label's probability less the greatest of the others.
`cleanlab` has the same; docs/decisions.md says why it is not used.

In a sound set of pictures that are hard to tell apart, that names many. So no more are named than there are wrong
labels by another measure: where the answers are surest, all but none is a mistake, and what contradicts them there is
the share of wrong labels everywhere. (Measured on photos of clothing, with 0, 2, 5 and 10 % of the labels changed:
0.0, 1.9, 5.2 and 10.3 %; named by confident learning alone 5.7, 6.5, 7.9 and 11.8 %.)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# Of all pictures: those whose answers are surest, by which wrong labels are counted. Where there are fewer among the
# very surest, they were mistakes of the head after all.
SUREST = (0.1, 0.25)
LEAST_SURE = 100  # pictures: of fewer the share is chance


@dataclass(frozen=True, eq=False)
class WrongLabels:
    """Of N pictures."""

    order: NDArray[np.int64]  # [N] positions, the least likely label first
    named: NDArray[np.int64]  # positions whose label is likely wrong, in that order; about `share` of all at most
    suggested: NDArray[np.int32]  # [N]: the likeliest class beside the label
    probabilities: NDArray[np.float64]  # [N]: of that class
    share: float  # 0..1: of the pictures whose answers are surest, how many have another label


def find_wrong_labels(probabilities: NDArray[np.float64], labels: NDArray[np.int32]) -> WrongLabels:
    """From the out-of-fold probabilities [N,K] of pictures with `labels` [N]."""
    rows = np.arange(len(labels))
    others = probabilities.copy()
    others[rows, labels] = -1
    suggested = others.argmax(1).astype(np.int32)
    strongest = others[rows, suggested]
    margins = probabilities[rows, labels] - strongest
    order = np.argsort(margins, kind="stable")
    usual = np.array([_mean(probabilities[labels == label, label]) for label in range(probabilities.shape[1])])
    wrong = (margins < 0) & (strongest >= usual[suggested])
    share = _share(probabilities, labels)
    return WrongLabels(
        order=order,
        named=order[wrong[order]][: round(share * len(labels))],
        suggested=suggested,
        probabilities=strongest,
        share=share,
    )


def can_judge(probabilities: NDArray[np.float64], labels: NDArray[np.int32]) -> bool:
    """Whether the answers make less than half of the mistakes of naming the most frequent class each time."""
    accuracy = (probabilities.argmax(1) == labels).mean()
    guess = np.bincount(labels).max() / len(labels)
    return bool(1 - accuracy < (1 - guess) / 2)


def _share(probabilities: NDArray[np.float64], labels: NDArray[np.int32]) -> float:
    surest_first = np.argsort(-probabilities.max(1), kind="stable")
    contradicted = (probabilities.argmax(1) != labels)[surest_first]
    return min(float(contradicted[: max(LEAST_SURE, round(part * len(labels)))].mean()) for part in SUREST)


def _mean(values: NDArray[np.float64]) -> float:
    """1 for none: a class without pictures is never suggested."""
    return float(values.mean()) if len(values) else 1.0
