"""Transfer from a pretrained network: its features, a head on them, and what they tell of the pictures.

The head is where fine-tuning starts; the better of both on validation is kept (the head is checkpoint 0 of the run).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trainer.config import FitConfig
from trainer.data import Dataset, Split
from trainer.data.cache.entries import load_array
from trainer.features.curve import measure_curve
from trainer.features.extract import Features
from trainer.features.linear_probe import Head, fit_head
from trainer.models import build
from trainer.models.efficientnet_lite0 import EFFICIENTNET_LITE0
from trainer.reporting import metrics
from trainer.reporting.learning_curve import LearningCurve
from trainer.runs.checkpoints import Progress

log = logging.getLogger("trainer")

# How much less of the validation pictures, or of one class's, may be right when they are mirrored.
MIRROR_LOSS = 0.05
MIRROR_CLASS_LOSS = 0.5
MIRROR_CLASS_IMAGES = 4  # at least, for a class to count alone
# What a network that starts from nothing asks a pretrained one, which takes seconds.
PROBE_SIDE = 128
PROBE_IMAGES = 1000  # at most, of train and of validation each
HEAD_FORMAT = 1  # raise it when the same features give another head


@dataclass(frozen=True)
class HeadStart:
    """The best head on the frozen features of a pretrained network."""

    head: Head
    progress: Progress  # has it as epoch 0
    flips: bool  # whether pictures may be mirrored in training
    plain: Head  # of the pictures as they are, whether or not they may


def start_from_head(features: Features, dataset: Dataset, config: FitConfig) -> HeadStart:
    """The best head on the `features` of a pretrained network."""
    start = time.perf_counter()
    train, val = features.of(dataset.train), features.of(dataset.val)
    head = plain = _best_head(features, dataset, config, mirrored=False)
    flips = config.flip == "on"
    if config.flip == "auto" and not dataset.digits:
        flips = mirrored_alike(head, val, features.of(dataset.val, mirrored=True), dataset.val.labels)
    if flips:
        head = _best_head(features, dataset, config, mirrored=True)
    learnt = metrics.evaluate(dataset.train.labels, head.probabilities(train))
    judged = metrics.evaluate(dataset.val.labels, head.probabilities(val))
    seconds = time.perf_counter() - start
    entry = {
        "epoch": 0,
        "loss": learnt.loss,
        "accuracy": learnt.accuracy,
        "val_loss": judged.loss,
        "val_accuracy": judged.accuracy,
        "learning_rate": 0.0,
        "seconds": seconds,
        "images_per_second": len(dataset.train) / seconds,
    }
    progress = Progress(history=[entry], best_accuracy=judged.accuracy, best_loss=judged.loss)
    return HeadStart(head, progress, flips, plain)


def _best_head(features: Features, dataset: Dataset, config: FitConfig, *, mirrored: bool) -> Head:
    """The best head on the training pictures as they are, or (`mirrored`) also mirrored.

    It is kept in the cache: the trainings of a sweep differ in few of the things that decide it.
    """
    train, val = dataset.train, dataset.val
    balanced = config.class_weights == "balanced"
    views = (False, True) if mirrored else (False,)

    def make() -> NDArray[np.float64]:
        head = fit_head(
            (np.concatenate([features.of(train, mirrored=view) for view in views]), np.tile(train.labels, len(views))),
            (features.of(val), val.labels),
            len(dataset.class_names),
            balanced=balanced,
            check_interrupted=features.check_interrupted,
        )
        return np.vstack([head.kernel, head.bias, np.full(len(head.bias), head.strength)], dtype=np.float64)

    key = {
        "head": HEAD_FORMAT,
        "images": train.cache.fingerprint,
        "train": [features.key(train, mirrored=view) for view in views],
        "val": features.key(val),
        "classes": len(dataset.class_names),
        "balanced": balanced,
    }
    kept = load_array(key, make)
    return Head(kept[:-2].astype(np.float32), kept[-2].astype(np.float32), float(kept[-1, 0]))


def learning_curve(
    head: Head, features: Features, dataset: Dataset, config: FitConfig, budget_s: float
) -> LearningCurve | None:
    """What more pictures would bring to `head`, which is fitted on all; None where that takes longer than `budget_s`.

    See `trainer.features.curve`.
    """
    return measure_curve(
        head,
        (features.of(dataset.train), dataset.train.labels),
        (features.of(dataset.val), dataset.val.labels),
        balanced=config.class_weights == "balanced",
        budget_s=budget_s,
        check_interrupted=features.check_interrupted,
    )


def may_mirror(dataset: Dataset, check_interrupted: Callable[[], None]) -> bool:
    """For a network that starts from nothing: whether a pretrained one finds some of the pictures alike, mirrored."""
    architecture, classes = EFFICIENTNET_LITE0, len(dataset.class_names)
    model = build(architecture.name, input_shape=(PROBE_SIDE, PROBE_SIDE, 3), classes=classes, dropout=0, kernel_size=3)
    features = Features(architecture, model, check_interrupted, adapted=True)
    # A third of the training pictures is asked, too: there may be few for validation.
    train, val = (
        np.random.default_rng(0).permutation(split.indices)[:PROBE_IMAGES] for split in (dataset.train, dataset.val)
    )
    third = len(train) // 3
    learnt = Split(dataset.train.cache, train[third:])
    asked = Split(dataset.train.cache, np.concatenate([train[:third], val]))
    seen = features.of(asked)
    head = fit_head((features.of(learnt), learnt.labels), (seen, asked.labels), classes)
    return mirrored_alike(head, seen, features.of(asked, mirrored=True), asked.labels)


def mirrored_alike(
    head: Head, features: NDArray[np.float32], mirrored: NDArray[np.float32], labels: NDArray[np.int32]
) -> bool:
    """Whether mirrored pictures are still of their class: what a head that never saw one says of them.

    `features` and `mirrored` float32 [N,F] are of the same pictures, of classes `labels` int32 [N].
    """
    plain, turned = (metrics.evaluate(labels, head.probabilities(one)) for one in (features, mirrored))
    images = plain.confusion.sum(1)
    lost = np.where(images >= MIRROR_CLASS_IMAGES, plain.recall - turned.recall, 0.0)
    chance = 2 * np.sqrt(plain.accuracy * (1 - plain.accuracy) / len(labels))
    alike = plain.accuracy - turned.accuracy <= MIRROR_LOSS + chance and float(lost.max()) < MIRROR_CLASS_LOSS
    if not alike:
        log.info(
            "images are not mirrored in training: of mirrored validation images %.1f%% are told right, of the others "
            "%.1f%%; --flip on does so all the same",
            100 * turned.accuracy,
            100 * plain.accuracy,
        )
    return alike
