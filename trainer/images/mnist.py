"""Normalizes a photographed or scanned digit to the form of MNIST images."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

MNIST_SIDE = 28
MNIST_BOX = 20  # the longer side of a digit's ink
# A scan is reduced until its longer side is below twice this: enough for the 20 pixels of a digit.
MNIST_WORKING_SIDE = 512
MNIST_DESPECKLE_SIDE = 100  # from this size on, a single dark pixel is dust, not ink
MNIST_MIN_CONTRAST = 24  # between ink and paper; a blank page has less
MNIST_NOISE_FLOOR = 0.2  # of the contrast; paper is never uniform


def normalize_mnist(gray: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Normalize a photographed or scanned digit, uint8 [H,W], the way MNIST was made: uint8 [28,28].

    The border gives the value of the paper; a digit darker than the paper is inverted. The ink is cropped, scaled to a
    longer side of 20, and placed with its centre of mass in the centre. A blank page becomes all zeros. An image that
    already has MNIST's form is returned unchanged, as are all 70,000 images of MNIST.
    """
    if _is_mnist_form(gray):
        return gray
    factor = max(gray.shape) // MNIST_WORKING_SIDE
    if factor > 1:
        gray = np.asarray(Image.fromarray(gray).reduce(factor))
    if min(gray.shape) >= MNIST_DESPECKLE_SIDE:
        gray = np.asarray(Image.fromarray(gray).filter(ImageFilter.MedianFilter(3)))
    ink = _ink(gray)
    if ink is None:
        return np.zeros((MNIST_SIDE, MNIST_SIDE), np.uint8)
    top, bottom, left, right = _box(ink)
    longer = max(bottom - top, right - left)
    height = max(1, round((bottom - top) * MNIST_BOX / longer))
    width = max(1, round((right - left) * MNIST_BOX / longer))
    crop = Image.fromarray(ink[top:bottom, left:right])
    digit = np.asarray(crop.resize((width, height), Image.Resampling.BILINEAR), np.float32)
    # All MNIST digits reach full white; a thin stroke gets gray when it shrinks.
    digit *= 255 / max(1.0, float(digit.max()))
    y, x = _centre_of_mass(digit)
    top = min(max(0, round(MNIST_SIDE / 2 - y)), MNIST_SIDE - height)
    left = min(max(0, round(MNIST_SIDE / 2 - x)), MNIST_SIDE - width)
    canvas = np.zeros((MNIST_SIDE, MNIST_SIDE), np.uint8)
    canvas[top : top + height, left : left + width] = np.rint(digit)
    return canvas


def _is_mnist_form(gray: NDArray[np.uint8]) -> bool:
    """Whether the image is 28×28, and its ink has a longer side of 19 or 20 and its centre of mass in the centre.

    All 70,000 images of MNIST pass: their centres lie between 13.48 and 14.50 on both axes.
    """
    if gray.shape != (MNIST_SIDE, MNIST_SIDE) or not gray.any():
        return False
    top, bottom, left, right = _box(gray)
    if not MNIST_BOX - 1 <= max(bottom - top, right - left) <= MNIST_BOX:
        return False
    y, x = _centre_of_mass(gray)
    return abs(y - MNIST_SIDE / 2) < 0.55 and abs(x - MNIST_SIDE / 2) < 0.55


def _ink(gray: NDArray[np.uint8]) -> NDArray[np.uint8] | None:
    """Difference of each pixel [H,W] from the paper, 0 if it is not towards the ink; None for a blank page."""
    edge = max(1, min(gray.shape) // 16)
    border = (gray[:edge], gray[-edge:], gray[:, :edge], gray[:, -edge:])
    ordered = np.sort(np.concatenate([side.ravel() for side in border]))
    middle = len(ordered) // 2
    # The median. np.median takes several times as long for so few values, and every request runs this.
    paper = (int(ordered[middle]) + int(ordered[~middle])) // 2
    darkest, lightest = int(gray.min()), int(gray.max())
    contrast = max(paper - darkest, lightest - paper)
    if contrast < MNIST_MIN_CONTRAST:
        return None
    if lightest - paper >= paper - darkest:
        ink = np.maximum(gray, paper) - np.uint8(paper)
    else:
        ink = np.uint8(paper) - np.minimum(gray, paper)
    ink[ink < MNIST_NOISE_FLOOR * contrast] = 0
    return ink


def _box(ink: NDArray[np.uint8]) -> tuple[int, int, int, int]:
    """Bounding box of the nonzero pixels in [H,W]: top, bottom, left, right; bottom and right are exclusive."""
    rows = np.flatnonzero(ink.any(axis=1))
    columns = np.flatnonzero(ink.any(axis=0))
    return int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1


def _centre_of_mass(ink: NDArray[Any]) -> tuple[float, float]:
    """Centre of mass (y, x) of [H,W], in pixels from the centre of the first pixel."""
    rows = ink.sum(axis=1, dtype=np.float64)
    columns = ink.sum(axis=0, dtype=np.float64)
    total = rows.sum()
    return float(rows @ np.arange(len(rows)) / total), float(columns @ np.arange(len(columns)) / total)
