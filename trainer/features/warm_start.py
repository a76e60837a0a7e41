"""Warm start: a linear probe on the frozen features of a pretrained network, from which fine-tuning starts.

The better of probe and fine-tuned network on validation is kept: the probe is epoch 0 of the run.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trainer.config import FitConfig
from trainer.data import Dataset
from trainer.data.cache.entries import load_array
from trainer.features.curve import measure_curve
from trainer.features.extract import Features
from trainer.features.flip_check import is_flip_invariant
from trainer.features.linear_probe import LinearProbe, fit_linear_probe
from trainer.reporting import metrics
from trainer.reporting.learning_curve import LearningCurve

# Most time for the learning curve: in seconds, and as a share of the time that a limit leaves for the training.
CURVE_S = 10.0
CURVE_SHARE = 0.05
PROBE_FORMAT = 1  # raise it when the same features give another probe


@dataclass(frozen=True)
class WarmStart:
    """The best linear probe, and what it says about the images."""

    probe: LinearProbe
    entry: dict[str, float]  # its metrics, as epoch 0 of the history
    flips: bool  # whether training may mirror images
    plain_probe: LinearProbe  # fitted on the images as they are, whether or not they may be mirrored


def fit_warm_start(features: Features, dataset: Dataset, config: FitConfig) -> WarmStart:
    """Fit the probe on the images as they are, check flips, and fit it on mirrored images, too, where they may be.

    Raises NotCached where `features` has no network and the cache lacks some.
    """
    start = time.perf_counter()
    train, val = features.of(dataset.train), features.of(dataset.val)
    probe = plain_probe = _fit_cached(features, dataset, config, mirrored=False)
    flips = config.flip == "on"
    if config.flip == "auto" and not dataset.has_character_classes:
        flips = is_flip_invariant(probe, val, features.of(dataset.val, mirrored=True), dataset.val.labels)
    if flips:
        probe = _fit_cached(features, dataset, config, mirrored=True)
    trained = metrics.evaluate(dataset.train.labels, probe.probabilities(train))
    validated = metrics.evaluate(dataset.val.labels, probe.probabilities(val))
    seconds = time.perf_counter() - start
    entry = {
        "epoch": 0,
        "loss": trained.loss,
        "accuracy": trained.accuracy,
        "val_loss": validated.loss,
        "val_accuracy": validated.accuracy,
        "learning_rate": 0.0,
        "seconds": seconds,
        "images_per_second": len(dataset.train) / seconds,
    }
    return WarmStart(probe, entry, flips, plain_probe)


def _fit_cached(features: Features, dataset: Dataset, config: FitConfig, *, mirrored: bool) -> LinearProbe:
    """The best probe on the training images as they are or, with `mirrored`, on both views.

    The probe is cached, because the trials of a sweep mostly differ in options that do not affect it.
    """
    train, val = dataset.train, dataset.val
    balanced = config.class_weights == "balanced"
    views = (False, True) if mirrored else (False,)

    def make() -> NDArray[np.float64]:
        probe = fit_linear_probe(
            (np.concatenate([features.of(train, mirrored=view) for view in views]), np.tile(train.labels, len(views))),
            (features.of(val), val.labels),
            len(dataset.class_names),
            balanced=balanced,
            check_interrupted=features.check_interrupted,
        )
        return np.vstack([probe.kernel, probe.bias, np.full(len(probe.bias), probe.c)], dtype=np.float64)

    key = {
        "head": PROBE_FORMAT,
        "images": train.cache.stored_fingerprint,
        "train": [features.key(train, mirrored=view) for view in views],
        "val": features.key(val),
        "classes": len(dataset.class_names),
        "balanced": balanced,
    }
    cached = load_array(key, make)
    return LinearProbe(cached[:-2].astype(np.float32), cached[-2].astype(np.float32), float(cached[-1, 0]))


def measure_learning_curve(
    probe: LinearProbe, features: Features, dataset: Dataset, config: FitConfig, left_s: float
) -> LearningCurve | None:
    """The learning curve of `probe` over shares of the training images.

    None where it takes more than a small share of `left_s`, the time that a limit leaves for the training.
    """
    return measure_curve(
        probe,
        (features.of(dataset.train), dataset.train.labels),
        (features.of(dataset.val), dataset.val.labels),
        balanced=config.class_weights == "balanced",
        budget_s=min(CURVE_S, CURVE_SHARE * left_s),
        check_interrupted=features.check_interrupted,
    )
