"""Checks before a training: only those that take next to no time.

`trainer.data.dataset` reports duplicates across splits and classes when it loads the data.
"""

from __future__ import annotations

import logging
from collections import Counter

import numpy as np
from numpy.typing import NDArray

from trainer.data import Dataset
from trainer.data_checks.duplicates import NO_PAIRS, find_duplicates
from trainer.data_checks.embeddings import MAX_IMAGES
from trainer.data_checks.image_quality import KINDS, find_blank_or_dark
from trainer.data_checks.images import CheckedImages
from trainer.data_checks.labels import check_labels

log = logging.getLogger("trainer")

MIN_WARNING_SHARE = 0.02  # of the images: every data set has a few wrong labels
SECONDS, SECONDS_PER_IMAGE = 1.5, 0.5e-3  # of the label check, measured on two slow cores
MAX_TIME_SHARE = 0.03  # of the time that is left


def can_afford(dataset: Dataset, left_s: float) -> bool:
    """Whether the label check takes a negligible part of the time that a training has left."""
    images = min(MAX_IMAGES, len(dataset.train) + len(dataset.val))
    return SECONDS + SECONDS_PER_IMAGE * images <= MAX_TIME_SHARE * left_s


def log_blank_images(dataset: Dataset) -> None:
    """Warn of blank and dark images; no image is read."""
    images = CheckedImages.of(dataset)
    found = find_blank_or_dark(images.perceptual_hashes)
    for kind, count in Counter(image.kind for image in found).items():
        first = next(images.names[image.position] for image in found if image.kind == kind)
        log.warning("%d of %d images are %s, such as %s", count, len(images), KINDS[kind], first)


def count_label_issues(
    dataset: Dataset, train: NDArray[np.float32], val: NDArray[np.float32]
) -> tuple[int, int] | None:
    """Count and log label issues of training and validation images: (issues, images checked).

    None where the check is not reliable. `train` and `val`, float32 [n,F], are the images' features.
    """
    images = CheckedImages.of_train_and_val(dataset)
    sample = np.sort(np.random.default_rng(0).permutation(len(images))[:MAX_IMAGES])
    duplicates = find_duplicates(images.near_duplicates, NO_PAIRS)
    labels = check_labels(np.concatenate([train, val])[sample], images, sample, duplicates)
    if not labels.reliable:
        return None
    count = len(labels.issues)
    if count:
        worst = labels.issues[0]
        log.log(
            logging.WARNING if count >= MIN_WARNING_SHARE * len(sample) else logging.INFO,
            "%d of %d labels may be wrong: %s (%s) looks like %s; `trainer data inspect` with --page shows them",
            *(count, len(sample), images.names[worst.position]),
            *(dataset.class_names[images.labels[worst.position]], dataset.class_names[worst.suggested]),
        )
    return count, len(sample)
