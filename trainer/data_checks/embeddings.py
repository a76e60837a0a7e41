"""Embeddings by which images are compared: features of the pretrained network, or of the pixels of tiny images."""

from __future__ import annotations

import logging

import numpy as np
from numpy.typing import NDArray

from trainer.data import Dataset, Split
from trainer.features.extract import Features
from trainer.models import build, default_architecture
from trainer.models.efficientnet_lite import EFFICIENTNET_LITE0

log = logging.getLogger("trainer")

MAX_IMAGES = 10_000  # whose labels are checked; a larger data set is sampled, with the same share of each split
MAX_CENTRES = 1000  # images that tiny ones are compared with
KERNEL_WIDTH = 0.2  # of the Gaussian kernel, as a share of the median squared distance to a centre


def draw_sample(dataset: Dataset) -> tuple[Split, Split, Split]:
    """The images of train, val and test whose labels are checked: all, or a random sample that is always the same."""
    splits = (dataset.train, dataset.val, dataset.test)
    images = sum(map(len, splits))
    if images <= MAX_IMAGES:
        return splits
    random = np.random.default_rng(0)
    counts = [round(MAX_IMAGES * len(split) / images) for split in splits]
    rows = [np.sort(random.permutation(split.indices)[:count]) for split, count in zip(splits, counts, strict=True)]
    train, val, test = (Split(dataset.train.cache, sampled) for sampled in rows)
    return train, val, test


def has_network_features(dataset: Dataset) -> bool:
    """Whether the pretrained network suits these images."""
    return default_architecture(dataset.train.cache.sizes.keys(), dataset.pixels.normalize).features is not None


def extract_features(dataset: Dataset, splits: tuple[Split, Split, Split]) -> NDArray[np.float32]:
    """float32 [N,F] of the images of `splits`, one split after the other; cached.

    Features of the network are the same that `fit` starts from: they are computed once for both.
    """
    if not has_network_features(dataset):
        return kernel_features(np.concatenate([split.read(np.arange(len(split))) for split in splits]))
    log.info("comparing %d images by the features of a pretrained network", sum(map(len, splits)))
    pixels = dataset.pixels
    model = build(
        EFFICIENTNET_LITE0.name,
        input_shape=(pixels.height, pixels.width, pixels.channels),
        classes=len(dataset.class_names),
        dropout=0,
        kernel_size=3,
    )
    features = Features(EFFICIENTNET_LITE0, model, lambda: None)
    return np.concatenate([features.of(split) for split in splits if len(split)])


def kernel_features(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """uint8 [N,H,W,C] → similarity of each image to a sample of them, 0 to 1, float32 [N, at most MAX_CENTRES].

    (Gaussian kernel features of Williams & Seeger, "Using the Nyström Method", 2001, without the whitening.)
    """
    pixels = images.reshape(len(images), -1).astype(np.float32)
    centres = pixels[np.random.default_rng(0).permutation(len(pixels))[:MAX_CENTRES]]
    squares = (pixels**2).sum(1)[:, None] + (centres**2).sum(1) - 2 * pixels @ centres.T
    median = max(float(np.median(squares)), 1.0)
    return np.exp(-np.maximum(squares, 0) / (KERNEL_WIDTH * median)).astype(np.float32)
