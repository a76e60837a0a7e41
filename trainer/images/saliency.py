"""Saliency maps: where in an image the evidence for a class lies, float32 [H,W] from 0 to 1.

Two methods. A network that pools its features has a class-activation map (Zhou et al., "Learning Deep Features for
Discriminative Localization", 2016). For any other network, occlusion sensitivity measures how the probability changes
when parts of the image are covered (Zeiler and Fergus, "Visualizing and Understanding Convolutional Networks", 2014).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

GRID = 7  # occluded regions along each side
OCCLUSIONS = GRID * GRID  # images to predict for one map
# A region spans two of the GRID + 1 steps of a side: four regions overlap everywhere but at the rim.
REGION_STEPS = 2
BLUR_RADIUS = 0.25  # of the longer side
MIN_PROBABILITY = np.finfo(np.float32).tiny  # log(0) is not finite
OPACITY = 0.7  # of the colour over the image, where saliency is 1
# Saliency 0 to 1 in quarters: black, purple, red, orange, yellow, in even steps of brightness (matplotlib's inferno).
COLOURS = np.array([(0, 0, 4), (87, 16, 110), (188, 55, 84), (249, 142, 9), (252, 255, 164)], np.float32)


def class_activation_map(activation: NDArray[np.float32], index: int, shape: tuple[int, int]) -> NDArray[np.float32]:
    """Saliency map [H,W] of class `index`, from the contributions [h,w,K] of each position to the logits.

    `shape` is (H, W). Equal contributions to all classes decide nothing: each position counts by how much its
    contribution to this class exceeds the mean over all classes.
    """
    excess = activation[:, :, index] - activation.mean(2)
    height, width = shape
    resized = Image.fromarray(excess.astype(np.float32)).resize((width, height), Image.Resampling.BICUBIC)
    return _normalize(np.asarray(resized))


def occlude(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Copies of the image [H,W,C], each with another region blurred: uint8 [OCCLUSIONS,H,W,C].

    Blurred, not filled: a patch of any one colour would be a feature of its own.
    """
    blurred = np.stack(
        [
            np.asarray(Image.fromarray(channel).filter(ImageFilter.GaussianBlur(BLUR_RADIUS * max(image.shape[:2]))))
            for channel in np.moveaxis(image, 2, 0)
        ],
        axis=2,
    )
    occluded = np.repeat(image[None], OCCLUSIONS, axis=0)
    for copy, region in zip(occluded, _regions(*image.shape[:2]), strict=True):
        copy[region] = blurred[region]
    return occluded


def occlusion_sensitivity(
    probability: float, occluded: NDArray[np.float32], shape: tuple[int, int]
) -> NDArray[np.float32]:
    """Saliency map [H,W] of a class, from its probability for the image and for each of the `occlude` copies.

    `occluded` is [OCCLUSIONS], `shape` (H, W). A pixel's saliency is the mean drop in log-probability over the regions
    that contain it.
    """
    drops = np.log(np.maximum(probability, MIN_PROBABILITY)) - np.log(np.maximum(occluded, MIN_PROBABILITY))
    total, count = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    for drop, region in zip(drops, _regions(*shape), strict=True):
        total[region] += drop
        count[region] += 1
    return _normalize(total / count)


def overlay(image: NDArray[np.uint8], saliency: NDArray[np.float32]) -> NDArray[np.uint8]:
    """The image [H,W,C] in gray under the colours of its saliency map [H,W]: uint8 [H,W,3]."""
    gray = image.astype(np.float32).mean(2, keepdims=True)
    steps = np.linspace(0, 1, len(COLOURS))
    colour = np.stack([np.interp(saliency, steps, COLOURS[:, channel]) for channel in range(3)], axis=2)
    opacity = OPACITY * saliency[:, :, None]
    return np.round((1 - opacity) * gray + opacity * colour).astype(np.uint8)


def _regions(height: int, width: int) -> list[tuple[slice, slice]]:
    rows, columns = (np.linspace(0, length, GRID + REGION_STEPS).round().astype(int) for length in (height, width))
    return [
        (slice(rows[row], rows[row + REGION_STEPS]), slice(columns[column], columns[column + REGION_STEPS]))
        for row in range(GRID)
        for column in range(GRID)
    ]


def _normalize(saliency: NDArray[np.float32]) -> NDArray[np.float32]:
    """Negative values become 0; the maximum becomes 1, if it is positive."""
    positive = np.maximum(saliency, 0)
    return positive / positive.max() if positive.max() > 0 else positive
