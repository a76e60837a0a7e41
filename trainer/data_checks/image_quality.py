"""Pictures that tell a network little: blank, dark, blurred, tiny, or of a shape that stretching distorts.

What is usual differs from one data set to the next, so each picture is compared with the others of its own.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from trainer.data.splits import tints

Kind = Literal["blank", "dark", "blurred", "tiny", "oddly shaped"]

KINDS: dict[Kind, str] = {  # → what such pictures are
    "blank": "of one colour",
    "dark": "too dark to see much",
    "blurred": "far less sharp than the others",
    "tiny": "far smaller than the others, and than what the model takes",
    "oddly shaped": "far longer or wider than the others, which are stretched to one shape",
}
BLANK_CONTRAST = 1  # of 255, and less
DARK = 40  # of 255: where even the bright parts are darker, little can be seen
SPREADS = 4  # times the usual distance from the median (1.4826 times the median distance, as of a normal distribution)
SMALLEST_BLURRED = 64  # pixels a side: smaller ones have no fine structure
BLURRED = 0.5  # at least as much less fine structure than the median has
SMALL_SHARE = 0.25  # of the model's side, and of the usual side
ODD_STRETCH = 2.5  # times as long or as wide as usual


class Poor(NamedTuple):
    """One picture, by its position, and what is wrong with it."""

    position: int
    kind: Kind


def find_empty(looks: NDArray[np.uint64]) -> list[Poor]:
    """Blank and dark pictures, from the looks [N,5] of `trainer.data.splits`; no picture is read."""
    colours, contrast = tints(looks)
    blank = contrast <= BLANK_CONTRAST
    # A bright part of a dark picture raises the contrast: white strokes on black are no dark picture.
    dark = ~blank & (colours.max(1) + 2 * contrast < DARK)
    return [Poor(one, "blank") for one in _positions(blank)] + [Poor(one, "dark") for one in _positions(dark)]


def sharpness(gray: NDArray[np.float32]) -> NDArray[np.float32]:
    """float32 [n,H,W] → how steep the steepest edge of each is for its contrast, float32 [n].

    The Laplacian is the usual measure of focus (Pech-Pacheco et al., "Diatom Autofocusing", 2000). Its largest value
    counts, as plain cloth before a plain wall has one sharp edge only; and of a picture blurred by a pixel, as noise
    has edges.
    """
    smooth = _blurred(gray)
    laplacian = smooth[:, :-2, 1:-1] + smooth[:, 2:, 1:-1] + smooth[:, 1:-1, :-2] + smooth[:, 1:-1, 2:]
    laplacian -= 4 * smooth[:, 1:-1, 1:-1]
    steepest = np.maximum(laplacian.max((1, 2)), -laplacian.min((1, 2)))
    return steepest / np.maximum(gray.std((1, 2)), 1)


def _blurred(gray: NDArray[np.float32]) -> NDArray[np.float32]:
    """By the weights 1, 4, 6, 4, 1 in each direction, which is a Gaussian of one pixel; without the edges."""
    down = gray[:, :-4] + gray[:, 4:] + 4 * (gray[:, 1:-3] + gray[:, 3:-1]) + 6 * gray[:, 2:-2]
    both = down[:, :, :-4] + down[:, :, 4:] + 4 * (down[:, :, 1:-3] + down[:, :, 3:-1]) + 6 * down[:, :, 2:-2]
    return both / np.float32(256)


def find_blurred(sharp: NDArray[np.float32]) -> NDArray[np.int64]:
    """The positions of the pictures, of all whose `sharpness` [n] this is, that are blurred beside the others."""
    values = np.log(np.maximum(sharp, 1e-6))
    return np.flatnonzero(values < np.median(values) - np.maximum(SPREADS * _spread(values), -np.log(BLURRED)))


def find_odd_sizes(sizes: NDArray[np.int64], side: int) -> list[Poor]:
    """Tiny and oddly shaped ones of pictures whose files have `sizes` (height, width) [N,2]; `side`: the model's."""
    short = sizes.min(1)
    tiny = (short < SMALL_SHARE * side) & (short < SMALL_SHARE * np.median(short))
    shape = np.log(sizes[:, 0] / sizes[:, 1])
    distance = np.abs(shape - np.median(shape))
    odd = distance > max(SPREADS * _spread(shape), np.log(ODD_STRETCH))
    return [Poor(one, "tiny") for one in _positions(tiny)] + [Poor(one, "oddly shaped") for one in _positions(odd)]


def _spread(values: NDArray[np.floating]) -> float:
    return float(1.4826 * np.median(np.abs(values - np.median(values))))


def _positions(mask: NDArray[np.bool_]) -> list[int]:
    positions: list[int] = np.flatnonzero(mask).tolist()
    return positions
