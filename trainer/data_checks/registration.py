"""Whether two pictures show the same: one is laid over the other, mirrored or not, moved and stretched a little.

The place is found by Gauss-Newton steps on the difference of small gray pictures (Lucas & Kanade, "An Iterative Image
Registration Technique", 1981), for many pairs at once. Then fine structure alone is compared: brightness and large
shapes are alike in many photos on one background.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

SIDE = 32  # of the small pictures that are laid over each other
FINE_SIDE = 64  # of those that are compared then
MARGIN = 0.15  # of a side, on each of its ends: what a crop may have lost is not compared
STEPS = 10
MOST_STRETCH = 0.2  # a step further off than this has lost its way, and starts again
STRUCTURE = 3.0  # pixels of FINE_SIDE: what is larger than this is no fine structure
CHUNK = 512  # pairs at once


def likeness(fine: NDArray[np.float32], pairs: NDArray[np.int64]) -> NDArray[np.float32]:
    """How alike the structure is in each of `pairs` [P,2] of grays [n,FINE_SIDE,FINE_SIDE], float32 [P]: 1 is most."""
    small, structure = shrunk(fine, SIDE), _fine_structure(fine)
    found = [np.empty(0, np.float32)]
    for start in range(0, len(pairs), CHUNK):
        one, other = pairs[start : start + CHUNK].T
        both = []
        for turn in (slice(None), slice(None, None, -1)):
            place = _align(small[one], small[other][:, :, turn])
            both.append(_correlation(structure[one], structure[other][:, :, turn], place))
        found.append(np.maximum(*both))
    return np.concatenate(found)


def shrunk(gray: NDArray[np.float32], side: int) -> NDArray[np.float32]:
    """float32 [n,H,W] → [n,side,side]: each pixel the mean of what it stands for."""
    count, height, width = gray.shape
    down, across = _shares(height, side), _shares(width, side)
    # Two large products are several times as fast as two for each picture.
    narrow = (gray.reshape(-1, width) @ across.T).reshape(count, height, side)
    small = (narrow.swapaxes(1, 2).reshape(-1, height) @ down.T).reshape(count, side, side)
    return small.swapaxes(1, 2).astype(np.float32, copy=False)


def _shares(length: int, side: int) -> NDArray[np.float32]:
    """[side,length]: the share that each of `length` pixels has in each of `side`."""
    edges = np.linspace(0, length, side + 1)
    low, high = edges[:-1, None], edges[1:, None]
    pixel = np.arange(length)
    overlap = np.clip(np.minimum(high, pixel + 1) - np.maximum(low, pixel), 0, None)
    return (overlap / overlap.sum(1, keepdims=True)).astype(np.float32)


def _fine_structure(fine: NDArray[np.float32]) -> NDArray[np.float32]:
    from scipy.ndimage import gaussian_filter

    smooth = gaussian_filter(fine, (0, 1, 1))
    rough: NDArray[np.float32] = smooth - gaussian_filter(fine, (0, STRUCTURE, STRUCTURE))
    return rough


def _window(side: int) -> NDArray[np.float32]:
    """The places that are compared, from -1 to 1 over the whole picture."""
    places = ((np.arange(side) + 0.5) * 2 / side - 1).astype(np.float32)
    return places[np.abs(places) < 1 - 2 * MARGIN]


def _align(one: NDArray[np.float32], other: NDArray[np.float32]) -> NDArray[np.float32]:
    """Where in `other` [P,S,S] what `one` [P,S,S] shows is: float32 [P,4], the vertical stretch and move, and the
    horizontal ones; [1,0,1,0] is in the same place.
    """
    places = _window(one.shape[1])
    inner = _at(one, np.tile(np.array([1, 0, 1, 0], np.float32), (len(one), 1)), places)
    target = _standard(inner)
    # In units of -1..1.
    steep = [np.gradient(other, 2 / one.shape[1], axis=axis).astype(np.float32) for axis in (1, 2)]
    place = np.tile(np.array([1, 0, 1, 0], np.float32), (len(one), 1))
    for _ in range(STEPS):
        seen = _at(other, place, places)
        scale = seen.std((1, 2), keepdims=True) + 1e-3
        down, across = (_at(gradient, place, places) / scale for gradient in steep)
        slopes = np.stack([down * places[:, None], down, across * places, across], axis=1)
        slopes = (slopes - slopes.mean((2, 3), keepdims=True)).reshape(len(one), 4, -1)
        rest = (target - _standard(seen)).reshape(len(one), -1, 1)
        normal = slopes @ slopes.swapaxes(1, 2) + 1e-2 * slopes.shape[2] * np.eye(4, dtype=np.float32)
        place += np.linalg.solve(normal, slopes @ rest)[:, :, 0]
        lost = np.abs(place - [1, 0, 1, 0]).max(1) > MOST_STRETCH
        place[lost] = [1, 0, 1, 0]
    return place


def _correlation(
    one: NDArray[np.float32], other: NDArray[np.float32], place: NDArray[np.float32]
) -> NDArray[np.float32]:
    """float32 [P], from -1 to 1, of `one` and what is at `place` in `other`."""
    places = _window(one.shape[1])
    same = np.tile(np.array([1, 0, 1, 0], np.float32), (len(one), 1))
    correlation: NDArray[np.float32] = (_standard(_at(one, same, places)) * _standard(_at(other, place, places))).mean(
        (1, 2)
    )
    return correlation


def _standard(images: NDArray[np.float32]) -> NDArray[np.float32]:
    centred = images - images.mean((1, 2), keepdims=True)
    standard: NDArray[np.float32] = centred / (images.std((1, 2), keepdims=True) + 1e-3)
    return standard


def _at(images: NDArray[np.float32], place: NDArray[np.float32], places: NDArray[np.float32]) -> NDArray[np.float32]:
    """[P,S,S] → [P,n,n]: what stands at `places` [n] once they are stretched and moved; between pixels, of both."""
    side = images.shape[1]
    rows, columns = (
        _between(((place[:, [axis]] * places + place[:, [axis + 1]] + 1) * side - 1) / 2, side) for axis in (0, 2)
    )
    return (rows @ images @ columns.swapaxes(1, 2)).astype(np.float32, copy=False)


def _between(positions: NDArray[np.float32], side: int) -> NDArray[np.float32]:
    """Positions in pixels [P,n] → the weight of each pixel there [P,n,side]."""
    inside = np.clip(positions, 0, side - 1)
    distance = np.abs(inside[:, :, None] - np.arange(side, dtype=np.float32))
    return np.maximum(0, 1 - distance).astype(np.float32)
