"""Image registration: aligns pairs of images, mirrored or not, and measures whether they show the same.

The alignment, a shift and a small stretch, is found by Gauss-Newton steps on the difference of small gray images (Lucas
& Kanade, "An Iterative Image Registration Technique", 1981), for many pairs at once. Then only fine structure is
compared: brightness and large shapes are alike in many photos on one background.

A transform is float32 [4]: vertical scale and shift, horizontal scale and shift, in coordinates from -1 to 1.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

SIDE = 32  # pixels, of the images that are aligned
FINE_SIDE = 64  # pixels, of the images that are compared then
MARGIN = 0.15  # of a side, at each end: it is not compared, as a crop may have lost it
STEPS = 10
MAX_CHANGE = 0.2  # from the identity, in each number of a transform: beyond, the search has diverged and restarts
MAX_STRUCTURE = 3.0  # pixels of FINE_SIDE: larger shapes are not fine structure
CHUNK = 512  # pairs at once
IDENTITY = np.array([1, 0, 1, 0], np.float32)


def structure_similarity(gray: NDArray[np.float32], pairs: NDArray[np.int64]) -> NDArray[np.float32]:
    """Similarity of the fine structure, float32 [P], at most 1, for `pairs` [P,2] of `gray` [n,FINE_SIDE,FINE_SIDE]."""
    small, structure = downscale(gray, SIDE), _fine_structure(gray)
    similarities = [np.empty(0, np.float32)]
    for start in range(0, len(pairs), CHUNK):
        first, second = pairs[start : start + CHUNK].T
        plain_and_mirrored = []
        for columns in (slice(None), slice(None, None, -1)):
            transform = _align(small[first], small[second][:, :, columns])
            plain_and_mirrored.append(_correlation(structure[first], structure[second][:, :, columns], transform))
        similarities.append(np.maximum(*plain_and_mirrored))
    return np.concatenate(similarities)


def downscale(gray: NDArray[np.float32], side: int) -> NDArray[np.float32]:
    """float32 [n,H,W] → [n,side,side]: each pixel is the mean of the area that it covers."""
    count, height, width = gray.shape
    down, across = _coverage(height, side), _coverage(width, side)
    # Two large products are several times as fast as two for each image.
    narrow = (gray.reshape(-1, width) @ across.T).reshape(count, height, side)
    small = (narrow.swapaxes(1, 2).reshape(-1, height) @ down.T).reshape(count, side, side)
    return small.swapaxes(1, 2).astype(np.float32, copy=False)


def _coverage(length: int, side: int) -> NDArray[np.float32]:
    """[side,length]: the share that each of `length` pixels has in each of `side`."""
    edges = np.linspace(0, length, side + 1)
    low, high = edges[:-1, None], edges[1:, None]
    pixel = np.arange(length)
    overlap = np.clip(np.minimum(high, pixel + 1) - np.maximum(low, pixel), 0, None)
    return (overlap / overlap.sum(1, keepdims=True)).astype(np.float32)


def _fine_structure(gray: NDArray[np.float32]) -> NDArray[np.float32]:
    from scipy.ndimage import gaussian_filter

    smooth = gaussian_filter(gray, (0, 1, 1))
    structure: NDArray[np.float32] = smooth - gaussian_filter(gray, (0, MAX_STRUCTURE, MAX_STRUCTURE))
    return structure


def _compared_coordinates(side: int) -> NDArray[np.float32]:
    """Coordinates of the pixels that are compared, along one axis of -1 to 1."""
    coordinates = ((np.arange(side) + 0.5) * 2 / side - 1).astype(np.float32)
    return coordinates[np.abs(coordinates) < 1 - 2 * MARGIN]


def _align(first: NDArray[np.float32], second: NDArray[np.float32]) -> NDArray[np.float32]:
    """Transforms float32 [P,4] that align each of `second` [P,S,S] with its `first` [P,S,S]."""
    coordinates = _compared_coordinates(first.shape[1])
    transform = np.tile(IDENTITY, (len(first), 1))
    target = _standardise(_resample(first, transform, coordinates))
    spacing = 2 / first.shape[1]
    gradients = [np.gradient(second, spacing, axis=axis).astype(np.float32) for axis in (1, 2)]
    for _ in range(STEPS):
        current = _resample(second, transform, coordinates)
        scale = current.std((1, 2), keepdims=True) + 1e-3
        down, across = (_resample(gradient, transform, coordinates) / scale for gradient in gradients)
        jacobian = np.stack([down * coordinates[:, None], down, across * coordinates, across], axis=1)
        jacobian = (jacobian - jacobian.mean((2, 3), keepdims=True)).reshape(len(first), 4, -1)
        residual = (target - _standardise(current)).reshape(len(first), -1, 1)
        normal = jacobian @ jacobian.swapaxes(1, 2) + 1e-2 * jacobian.shape[2] * np.eye(4, dtype=np.float32)
        transform += np.linalg.solve(normal, jacobian @ residual)[:, :, 0]
        diverged = np.abs(transform - IDENTITY).max(1) > MAX_CHANGE
        transform[diverged] = IDENTITY
    return transform


def _correlation(
    first: NDArray[np.float32], second: NDArray[np.float32], transform: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Correlation, float32 [P] from -1 to 1, of `first` and the transformed `second`."""
    coordinates = _compared_coordinates(first.shape[1])
    unchanged = np.tile(IDENTITY, (len(first), 1))
    product = _standardise(_resample(first, unchanged, coordinates)) * _standardise(
        _resample(second, transform, coordinates)
    )
    correlation: NDArray[np.float32] = product.mean((1, 2))
    return correlation


def _standardise(images: NDArray[np.float32]) -> NDArray[np.float32]:
    centred = images - images.mean((1, 2), keepdims=True)
    standard: NDArray[np.float32] = centred / (images.std((1, 2), keepdims=True) + 1e-3)
    return standard


def _resample(
    images: NDArray[np.float32], transform: NDArray[np.float32], coordinates: NDArray[np.float32]
) -> NDArray[np.float32]:
    """[P,S,S] → [P,n,n]: bilinear samples at the transformed `coordinates` [n] of both axes."""
    side = images.shape[1]
    rows, columns = (
        _bilinear_weights(((transform[:, [axis]] * coordinates + transform[:, [axis + 1]] + 1) * side - 1) / 2, side)
        for axis in (0, 2)
    )
    return (rows @ images @ columns.swapaxes(1, 2)).astype(np.float32, copy=False)


def _bilinear_weights(positions: NDArray[np.float32], side: int) -> NDArray[np.float32]:
    """Positions in pixels [P,n] → the weight of each pixel [P,n,side]."""
    inside = np.clip(positions, 0, side - 1)
    distance = np.abs(inside[:, :, None] - np.arange(side, dtype=np.float32))
    return np.maximum(0, 1 - distance).astype(np.float32)
