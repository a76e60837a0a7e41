"""Check of the labels: label issues and confusable classes, from out-of-fold predictions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from trainer.data_checks.confusable_classes import ConfusableClasses, find_confusable_classes
from trainer.data_checks.duplicates import group_of_each
from trainer.data_checks.images import CheckedImages
from trainer.data_checks.label_issues import beats_majority_class, find_label_issues
from trainer.data_checks.out_of_fold import out_of_fold

MIN_IMAGES_PER_CLASS = 5  # on average: from fewer, nothing is learned that could contradict a label


class LabelIssue(NamedTuple):
    """An image, by its position, whose label is likely wrong."""

    position: int
    suggested: int  # the predicted class
    probability: float  # of that class, 0..1


@dataclass(frozen=True, eq=False)
class LabelCheck:
    """Result of `check_labels`."""

    reliable: bool  # whether the predictions are good enough to doubt a label; if not, there are no issues
    issues: list[LabelIssue]  # the most likely first
    confusable: list[ConfusableClasses]


def check_labels(
    features: NDArray[np.float32],
    images: CheckedImages,
    sample: NDArray[np.int64],
    duplicates: list[NDArray[np.int64]],
) -> LabelCheck:
    """Check the labels of the images at the positions `sample` [n], from their features [n,F].

    An image and its `duplicates` are left out together: a copy with the same wrong label would confirm it.
    """
    labels, classes = images.labels[sample], len(images.class_names)
    if len(np.unique(labels)) < 2 or len(labels) < MIN_IMAGES_PER_CLASS * classes:
        return LabelCheck(reliable=False, issues=[], confusable=[])
    probabilities = out_of_fold(features, labels, group_of_each(duplicates, len(images))[sample], classes)
    confusable = find_confusable_classes(probabilities, labels)
    if not beats_majority_class(probabilities, labels):
        return LabelCheck(reliable=False, issues=[], confusable=confusable)
    ranking = find_label_issues(probabilities, labels)
    issues = [
        LabelIssue(int(sample[index]), int(ranking.suggested[index]), float(ranking.probabilities[index]))
        for index in ranking.issues
    ]
    return LabelCheck(reliable=True, issues=issues, confusable=confusable)
