"""Class counts, and warnings about few, missing or unbalanced images, before a fit."""

from __future__ import annotations

import logging
import math

from trainer.data import Dataset
from trainer.data.sources.folder_layout import shorten
from trainer.reporting.metrics import FEW_TEST_IMAGES

log = logging.getLogger("trainer")

MIN_TRAINING_IMAGES = 30  # of a class
MAX_IMBALANCE = 3  # times the images of the smallest class


def missing_classes(dataset: Dataset) -> list[str]:
    """A line for validation and test each, where classes have no images there."""
    lines = []
    for name, split in (("validation", dataset.val), ("test", dataset.test)):
        missing = tuple(dataset.class_names[label] for label in (split.counts == 0).nonzero()[0])
        if missing:
            lines.append(f"{name} has no images of {shorten(missing)}: its figures say nothing about them")
    return lines


def log_class_counts(dataset: Dataset) -> None:
    """Log the size of each split and class; warn where they are too small or far from balanced."""
    pixels = dataset.pixels
    log.info(
        "%s: %d classes, %d train + %d validation + %d test images, %dx%dx%d",
        dataset.spec,
        len(dataset.class_names),
        *(len(split) for split in (dataset.train, dataset.val, dataset.test)),
        *(pixels.height, pixels.width, pixels.channels),
    )
    counts = dataset.train.counts
    shown = ", ".join(f"{name} {count}" for name, count in zip(dataset.class_names, counts, strict=True))
    log.info("training images per class: %s", shown)
    if counts.min() < MIN_TRAINING_IMAGES:
        log.warning(
            "class %s has only %d training images; below %d a network learns little",
            dataset.class_names[int(counts.argmin())],
            counts.min(),
            MIN_TRAINING_IMAGES,
        )
    for line in missing_classes(dataset):
        log.warning("%s", line)
    images = len(dataset.test)
    if images < FEW_TEST_IMAGES:
        log.warning(
            "%d test images measure the accuracy to within %.0f points; %d and more to within 10",
            images,
            100 * 0.98 / math.sqrt(images),  # half of the 95 % interval at an accuracy of 50 %
            FEW_TEST_IMAGES,
        )
    if counts.max() > MAX_IMBALANCE * max(1, counts.min()):
        log.warning(
            "the largest class has %.1f times the images of the smallest",
            counts.max() / max(1, counts.min()),
        )
