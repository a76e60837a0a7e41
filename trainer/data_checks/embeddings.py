"""By what pictures are compared: the features of the pretrained network, or the pixels where pictures are tiny."""

from __future__ import annotations

import logging
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from trainer.data import Dataset, Split
from trainer.features.extract import Features
from trainer.models import build, suggest
from trainer.models.efficientnet_lite0 import EFFICIENTNET_LITE0

log = logging.getLogger("trainer")

MOST = 10_000  # pictures whose labels are examined; of more, as many of each split as is its share
CENTRES = 1000  # pictures to which tiny ones are compared
# Of the median distance to a centre: how far a picture is like another.
WIDTH = 0.2


def choose(dataset: Dataset) -> tuple[Split, Split, Split]:
    """The pictures of train, val and test whose labels are examined: all, or a draw that is always the same."""
    parts = (dataset.train, dataset.val, dataset.test)
    images = sum(map(len, parts))
    if images <= MOST:
        return parts
    draw = np.random.default_rng(0)
    counts = [round(MOST * len(part) / images) for part in parts]
    rows = [np.sort(draw.permutation(part.indices)[:count]) for part, count in zip(parts, counts, strict=True)]
    train, val, test = (Split(dataset.train.cache, chosen) for chosen in rows)
    return train, val, test


def has_network_features(dataset: Dataset) -> bool:
    """Whether the pictures are such that the pretrained network suits them."""
    return suggest(dataset.train.cache.sizes.keys(), dataset.pixels.normalize).features is not None


def features_of(
    dataset: Dataset, parts: tuple[Split, Split, Split], check_interrupted: Callable[[], None]
) -> NDArray[np.float32]:
    """float32 [N,F] of the pictures of `parts`, one after the other; from the cache where they are there.

    Those of the network are the very ones that `fit` starts from, so that they are computed once for both.
    """
    if not has_network_features(dataset):
        return likeness_to_some(np.concatenate([part.read(np.arange(len(part))) for part in parts]))
    log.info("comparing %d pictures by what a pretrained network sees in them", sum(map(len, parts)))
    pixels = dataset.pixels
    model = build(
        EFFICIENTNET_LITE0.name,
        input_shape=(pixels.height, pixels.width, pixels.channels),
        classes=len(dataset.class_names),
        dropout=0,
        kernel_size=3,
    )
    features = Features(EFFICIENTNET_LITE0, model, check_interrupted)
    return np.concatenate([features.of(part) for part in parts if len(part)])


def likeness_to_some(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """uint8 [N,H,W,C] → how alike each is to some of them, 0 to 1, float32 [N, at most CENTRES].

    (The Gaussian kernel's features of Williams & Seeger, "Using the Nyström Method", 2001, without the whitening.)
    """
    pixels = images.reshape(len(images), -1).astype(np.float32)
    centres = pixels[np.random.default_rng(0).permutation(len(pixels))[:CENTRES]]
    squares = (pixels**2).sum(1)[:, None] + (centres**2).sum(1) - 2 * pixels @ centres.T
    typical = max(float(np.median(squares)), 1.0)
    return np.exp(-np.maximum(squares, 0) / (WIDTH * typical)).astype(np.float32)
