"""Perceptual hashes of images, and the near-duplicates that they find.

A hash is 256 bits: whether each of the 16×16 lowest cosine frequencies of the gray image is positive; and the mean
colour and the contrast. Two images are near-duplicates if at most 12 bits differ and their mean colours are close.

Measured: the same image saved again as a JPEG of quality 75 differs in 0 to 12 bits (MNIST, CIFAR-10, photos of
clothing), a photo at half its size in 0 to 7; the nearest different image in 21 (9,000 of MNIST), 76 and 40 (1,500 of
the others). Near-duplicates at a much lower quality or without fine detail may be missed; crops and mirrored images
are not found, and blank images have no near-duplicates.
`imagehash` hashes one Pillow image at a time and brings PyWavelets; this module takes batches of decoded arrays.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

FREQUENCIES = 16  # of each axis
SIGN_WORDS = FREQUENCIES * FREQUENCIES // 64
HASH_WORDS = SIGN_WORDS + 1  # the last word: mean red, green and blue, and contrast, a byte each
MIN_AMPLITUDE = 1e-3  # of 255: the sign of a weaker frequency would be chance
MAX_DIFFERENT_BITS = 12
MAX_COLOUR_DIFFERENCE = 16  # of 255, in each channel
MIN_CONTRAST = 3  # of 255: the root of the sum of the squared amplitudes
# Of 16 bits. Near-duplicates differ in fewer bits than there are bands, so that they agree in at least one band.
BANDS = SIGN_WORDS * 4
# Comparisons of an image within a band that many share, as drawings on one background do. It keeps the time linear; a
# near-duplicate may be missed.
MAX_NEIGHBOURS = 500


def perceptual_hashes(images: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """Hashes uint64 [n,5] of images uint8 [n,H,W,C]. The hash of an image hardly depends on its size."""
    count, height, width, _ = images.shape
    colour_and_contrast = np.zeros((count, 8), np.uint8)
    gray = np.zeros((count, height, width), np.float32)
    for index in range(3):  # several times as fast as means over the last axis
        channel = images[..., index % images.shape[3]].astype(np.float32)
        colour_and_contrast[:, index] = channel.mean((1, 2)).round()
        gray += channel
    gray /= 3
    amplitudes = _cosines(height) @ gray @ _cosines(width).T
    contrast = np.sqrt((amplitudes.reshape(count, FREQUENCIES * FREQUENCIES)[:, 1:] ** 2).sum(1))
    colour_and_contrast[:, 3] = contrast.round()
    signs = (amplitudes > MIN_AMPLITUDE).reshape(count, FREQUENCIES * FREQUENCIES)
    signs[:, 0] = False  # brightness
    # Spread neighbouring frequencies over the bands: their values become more even.
    mixed = signs.reshape(count, BANDS, BANDS).swapaxes(1, 2).reshape(signs.shape)
    return np.concatenate([np.packbits(mixed, axis=1), colour_and_contrast], axis=1).view(np.uint64)


def mean_colours(hashes: NDArray[np.uint64]) -> NDArray[np.int16]:
    """Mean red, green and blue [n,3], 0 to 255, from hashes [n,5]."""
    return _colour_and_contrast(hashes)[:, :3]


def contrasts(hashes: NDArray[np.uint64]) -> NDArray[np.int16]:
    """Contrast [n], 0 to 255, from hashes [n,5]."""
    return _colour_and_contrast(hashes)[:, 3]


def group_near_duplicates(content_hashes: NDArray[np.uint64], hashes: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Group number int64 [N] of each image, from content hashes [N] and perceptual hashes [N,5].

    Images with equal bytes or near hashes are in one group, and so are the near-duplicates of near-duplicates. 60,000
    images take a second.
    """
    from scipy.sparse import coo_array  # half of the time to import `trainer.data`, which `predict` only searches with
    from scipy.sparse.csgraph import connected_components

    _, content = np.unique(content_hashes, return_inverse=True)
    unique, row = np.unique(hashes, axis=0, return_inverse=True)
    left, right = _near(unique)
    # Nodes are the contents, then the unique hashes. Edges join an image with its hash, and near hashes.
    count = int(content.max(initial=-1)) + 1
    has_detail = contrasts(hashes) >= MIN_CONTRAST
    ends = (
        np.concatenate([content[has_detail], count + left]),
        np.concatenate([count + row.reshape(-1)[has_detail], count + right]),
    )
    edges = coo_array((np.ones(len(ends[0]), np.bool_), ends), shape=(count + len(unique),) * 2)
    _, groups = connected_components(edges, directed=False)
    return groups[content].astype(np.int64)


def _cosines(length: int) -> NDArray[np.float32]:
    """Lowest frequencies of DCT-II over `length` pixels, [FREQUENCIES,length], each with mean amplitude 1."""
    frequencies = np.arange(FREQUENCIES)[:, None]
    return (np.cos(np.pi * frequencies * (np.arange(length) + 0.5) / length) / length).astype(np.float32)


def _colour_and_contrast(hashes: NDArray[np.uint64]) -> NDArray[np.int16]:
    """Red, green, blue and contrast [n,8] from hashes [n,5]; the other columns are 0."""
    return np.ascontiguousarray(hashes[:, SIGN_WORDS:]).view(np.uint8).astype(np.int16)


def _near(hashes: NDArray[np.uint64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pairs of rows of `hashes` [n,5] (sorted, all different) with few different bits and close mean colours."""
    signs = np.ascontiguousarray(hashes[:, :SIGN_WORDS])
    bands = signs.view(np.uint16)
    colours = mean_colours(hashes)
    pairs = [np.empty((2, 0), np.int64)]
    for band in range(BANDS):
        order = np.argsort(bands[:, band], kind="stable")
        values = bands[order, band]
        start = np.arange(len(order))
        for step in range(1, MAX_NEIGHBOURS + 1):
            start = start[start < len(order) - step]
            start = start[values[start] == values[start + step]]
            if not len(start):
                break
            left, right = order[start], order[start + step]
            different_bits = np.bitwise_count(signs[left] ^ signs[right]).sum(axis=1)
            colour_difference = np.abs(colours[left] - colours[right]).max(axis=1)
            near = (different_bits <= MAX_DIFFERENT_BITS) & (colour_difference <= MAX_COLOUR_DIFFERENCE)
            pairs.append(np.stack([left[near], right[near]]))
    left, right = np.concatenate(pairs, axis=1)
    return left, right
