"""Flip check: whether a mirrored image still belongs to its class, so that training may mirror images."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from trainer.data import Dataset, Split
from trainer.features.extract import Features
from trainer.features.linear_probe import LinearProbe, fit_linear_probe
from trainer.models import build
from trainer.models.efficientnet_lite import EFFICIENTNET_LITE0
from trainer.reporting import metrics

log = logging.getLogger("trainer")

# Largest loss of accuracy on mirrored images: over all classes (beyond chance), and in one class.
MAX_LOSS = 0.05
MAX_CLASS_LOSS = 0.5
MIN_CLASS_IMAGES = 4  # fewer images are too few to judge a class by itself
# A network that starts from random weights has no features: those of a pretrained one are used, which takes seconds.
PROBE_SIDE = 128
MAX_PROBE_IMAGES = 1000  # of train and of validation each
MIN_PROBE_IMAGES = 100
# With a time limit: largest share of the time left that the check may take, and seconds of it that building the network
# takes on two slow cores. Each image of a split goes through the network 3.4 times, as a part of them is also mirrored.
TIME_SHARE = 0.15
START_S = 6.0
PASSES = 3.4
TIMED_IMAGES = 32


def is_flip_invariant(
    probe: LinearProbe, features: NDArray[np.float32], mirrored: NDArray[np.float32], labels: NDArray[np.int32]
) -> bool:
    """Whether `probe`, fitted on images as they are, is about as accurate on mirrored ones.

    `features` and `mirrored` float32 [N,F] are of the same images, with `labels` int32 [N].
    """
    plain, flipped = (metrics.evaluate(labels, probe.probabilities(each)) for each in (features, mirrored))
    images = plain.confusion.sum(1)
    class_loss = np.where(images >= MIN_CLASS_IMAGES, plain.recall - flipped.recall, 0.0)
    chance = 2 * np.sqrt(plain.accuracy * (1 - plain.accuracy) / len(labels))
    invariant = plain.accuracy - flipped.accuracy <= MAX_LOSS + chance and float(class_loss.max()) < MAX_CLASS_LOSS
    if not invariant:
        log.info(
            "images are not mirrored in training: %.1f%% of mirrored validation images are classified correctly, and "
            "%.1f%% of the others; --flip on mirrors them all the same",
            100 * flipped.accuracy,
            100 * plain.accuracy,
        )
    return invariant


def check_flips(dataset: Dataset, flip: str, left_s: float, check_interrupted: Callable[[], None]) -> bool:
    """Whether `flip` (`--flip`) lets training mirror images; only for a network without pretrained features.

    `auto` fits a linear probe on the features of another, pretrained network, unless the classes are characters. The
    probe gets as many images as a small share of `left_s` allows, the seconds that a time limit leaves for the
    training; if these are too few, no image is mirrored.
    """
    if flip != "auto" or dataset.has_character_classes:
        return flip == "on"
    start_s = time.monotonic()
    if TIME_SHARE * left_s < START_S:
        return _no_time()
    classes = len(dataset.class_names)
    shape = (PROBE_SIDE, PROBE_SIDE, 3)
    model = build(EFFICIENTNET_LITE0.name, input_shape=shape, classes=classes, dropout=0, kernel_size=3)
    features = Features(EFFICIENTNET_LITE0, model, check_interrupted, adapted=True)
    train, val = (np.random.default_rng(0).permutation(split.indices) for split in (dataset.train, dataset.val))
    count = MAX_PROBE_IMAGES
    if left_s < float("inf"):
        first, timed = (Split(dataset.train.cache, part) for part in np.array_split(train[: 2 * TIMED_IMAGES], 2))
        features.of(first)  # builds the extractor
        timed_s = time.monotonic()
        features.of(timed)
        image_s = (time.monotonic() - timed_s) / len(timed)
        count = min(count, int((TIME_SHARE * left_s - (time.monotonic() - start_s)) / max(PASSES * image_s, 1e-9)))
        if count < min(MIN_PROBE_IMAGES, len(train)):
            return _no_time()
    train, val = train[:count], val[:count]
    # A third of the training images is held out, too, because there may be few validation images.
    third = len(train) // 3
    fitted = Split(dataset.train.cache, train[third:])
    held_out = Split(dataset.train.cache, np.concatenate([train[:third], val]))
    plain = features.of(held_out)
    probe = fit_linear_probe((features.of(fitted), fitted.labels), (plain, held_out.labels), classes)
    return is_flip_invariant(probe, plain, features.of(held_out, mirrored=True), held_out.labels)


def _no_time() -> bool:
    log.info("images are not mirrored in training: --time-limit leaves no time to check; --flip on mirrors them")
    return False
