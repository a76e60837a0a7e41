"""Low-quality images: blank, dark, blurred, tiny, or of a shape that resizing distorts.

What is usual differs between data sets, so each image is compared with the others of its data set.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from trainer.data.perceptual_hash import contrasts, mean_colours

Kind = Literal["blank", "dark", "blurred", "tiny", "oddly shaped", "outlier"]

KINDS: dict[Kind, str] = {  # → the words for people: "3 images are …"
    "blank": "of one colour",
    "dark": "too dark to see much",
    "blurred": "far less sharp than the others",
    "tiny": "far smaller than the others, and than what the model takes",
    "oddly shaped": "far longer or wider than the others, which are stretched to one shape",
    "outlier": "like none of their class, the least alike first",
}
MAX_BLANK_CONTRAST = 1  # of 255
MIN_BRIGHTNESS = 40  # of 255: an image whose bright parts are below is dark
MAX_DEVIATIONS = 4  # standard deviations from the median, estimated from the median distance
MIN_BLURRED_SIDE = 64  # pixels: smaller images have no fine structure
MAX_BLURRED_SHARPNESS = 0.5  # of the median sharpness
MAX_TINY_SHARE = 0.25  # of the model's side, and of the median side
MIN_ODD_STRETCH = 2.5  # times as long or as wide as the median shape


class LowQuality(NamedTuple):
    """An image, by its position, and its kind of fault."""

    position: int
    kind: Kind


def find_blank_or_dark(hashes: NDArray[np.uint64]) -> list[LowQuality]:
    """Blank and dark images, from their perceptual hashes [N,5]; no image is read."""
    contrast = contrasts(hashes)
    blank = contrast <= MAX_BLANK_CONTRAST
    # Bright parts raise the contrast: white strokes on black are not a dark image.
    dark = ~blank & (mean_colours(hashes).max(1) + 2 * contrast < MIN_BRIGHTNESS)
    return [*_low_quality(blank, "blank"), *_low_quality(dark, "dark")]


def sharpness(gray: NDArray[np.float32]) -> NDArray[np.float32]:
    """float32 [n,H,W] → the steepest edge of each image relative to its contrast, float32 [n].

    The Laplacian is the usual measure of focus (Pech-Pacheco et al., "Diatom Autofocusing", 2000). Its maximum counts,
    because plain cloth before a plain wall has only one sharp edge; and after a blur of one pixel, because noise has
    edges.
    """
    smooth = _gaussian(gray)
    laplacian = smooth[:, :-2, 1:-1] + smooth[:, 2:, 1:-1] + smooth[:, 1:-1, :-2] + smooth[:, 1:-1, 2:]
    laplacian -= 4 * smooth[:, 1:-1, 1:-1]
    steepest = np.maximum(laplacian.max((1, 2)), -laplacian.min((1, 2)))
    return steepest / np.maximum(gray.std((1, 2)), 1)


def _gaussian(gray: NDArray[np.float32]) -> NDArray[np.float32]:
    """Gaussian blur of one pixel (weights 1, 4, 6, 4, 1 in each direction); the two outer pixels are cut off."""
    down = gray[:, :-4] + gray[:, 4:] + 4 * (gray[:, 1:-3] + gray[:, 3:-1]) + 6 * gray[:, 2:-2]
    both = down[:, :, :-4] + down[:, :, 4:] + 4 * (down[:, :, 1:-3] + down[:, :, 3:-1]) + 6 * down[:, :, 2:-2]
    return both / np.float32(256)


def find_blurred(sharpnesses: NDArray[np.float32]) -> NDArray[np.int64]:
    """Positions of the images that are blurred compared with the others, from the sharpness of each [n]."""
    values = np.log(np.maximum(sharpnesses, 1e-6))
    distance = np.maximum(MAX_DEVIATIONS * deviation(values), -np.log(MAX_BLURRED_SHARPNESS))
    return np.flatnonzero(values < np.median(values) - distance)


def find_odd_sizes(sizes: NDArray[np.int64], side: int) -> list[LowQuality]:
    """Tiny and oddly shaped images, from (height, width) of the files [N,2] and the `side` of the model's images."""
    short = sizes.min(1)
    tiny = (short < MAX_TINY_SHARE * side) & (short < MAX_TINY_SHARE * np.median(short))
    shape = np.log(sizes[:, 0] / sizes[:, 1])
    distance = np.abs(shape - np.median(shape))
    odd = distance > max(MAX_DEVIATIONS * deviation(shape), np.log(MIN_ODD_STRETCH))
    return [*_low_quality(tiny, "tiny"), *_low_quality(odd, "oddly shaped")]


def deviation(values: NDArray[np.floating]) -> float:
    """Robust standard deviation: that of a normal distribution with the same median distance to the median."""
    return float(1.4826 * np.median(np.abs(values - np.median(values))))


def _low_quality(mask: NDArray[np.bool_], kind: Kind) -> list[LowQuality]:
    return [LowQuality(position, kind) for position in np.flatnonzero(mask).tolist()]
