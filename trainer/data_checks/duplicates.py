"""Duplicates: the same file, or one image re-encoded, resized, slightly cropped or mirrored.

The near-duplicate groups (`trainer.data.perceptual_hash`) exist for all images. Images with features of the network are
also compared with their nearest neighbours by `registration`: features find crops and mirror images, pixels confirm
them.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from trainer.data_checks.images import CheckedImages
from trainer.data_checks.registration import structure_similarity

NEIGHBOURS = 2  # of each image; a copy is nearly always the first
MIN_COSINE = 0.25  # of centred features: no copy was below it
MIN_PIXEL_CORRELATION = 0.99  # different handwritten digits with the same perceptual hash reach 0.98
MIN_SIMILARITY = 0.95  # nearly no pair of different photos is above, and nearly all copies are
MIN_SIMILARITY_ONE_WAY = 0.9  # of pairs that are compared in the other direction, too
CHUNK = 1024  # images whose neighbours are searched at once
NO_PAIRS = np.empty((0, 2), np.int64)


def find_duplicates(groups: NDArray[np.int64], pairs: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Sorted positions of each group of two and more: near-duplicate `groups` [N], joined by `pairs` [P,2]."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    _, group = np.unique(groups, return_inverse=True)
    count = int(group.max(initial=-1)) + 1
    ends = group[pairs]
    edges = coo_array((np.ones(len(ends), np.bool_), (ends[:, 0], ends[:, 1])), shape=(count, count))
    _, joined = connected_components(edges, directed=False)
    return sorted(members_of_groups(joined[group]), key=lambda members: int(members[0]))


def group_of_each(duplicates: list[NDArray[np.int64]], count: int) -> NDArray[np.int64]:
    """Number of the group of each of `count` images, [count]; an image without `duplicates` is a group of its own."""
    group = np.arange(count)
    for members in duplicates:
        group[members] = members[0]
    return group


def members_of_groups(groups: NDArray[np.integer]) -> list[NDArray[np.int64]]:
    """Sorted positions of the members of each group of two and more, from the group of each image [N]."""
    order = np.argsort(groups, kind="stable")
    parts = np.split(order, np.flatnonzero(np.diff(groups[order])) + 1)
    return [part for part in parts if len(part) > 1]


def confirm_near_duplicates(images: CheckedImages) -> NDArray[np.int64]:
    """Near-duplicate group of each image, [N], after members with different pixels are removed from their groups.

    Needed for tiny images: two digits in one handwriting have the same perceptual hash.
    """
    groups = images.near_duplicates.copy()
    hashes = images.combined.content_hashes
    next_group = int(groups.max(initial=-1)) + 1
    for members in members_of_groups(groups):
        if len(np.unique(hashes[members])) == 1:
            continue
        pixels = images.combined.read(members).reshape(len(members), -1).astype(np.float32)
        centred = pixels - pixels.mean(1, keepdims=True)
        unit = centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-6)
        different = (hashes[members] != hashes[members[0]]) & (unit @ unit[0] < MIN_PIXEL_CORRELATION)
        _, identical = np.unique(hashes[members[different]], return_inverse=True)
        groups[members[different]] = next_group + identical
        next_group += int(different.sum())
    return groups


def find_copies(features: NDArray[np.float32], gray: NDArray[np.float32]) -> NDArray[np.int64]:
    """Pairs [P,2] of positions that show the same, from features [n,F] and gray images [n,S,S] of the same images.

    S is registration.FINE_SIDE.
    """
    pairs = _neighbours(features)
    one_way = structure_similarity(gray, pairs)
    near = one_way >= MIN_SIMILARITY_ONE_WAY
    both_ways = (one_way[near] + structure_similarity(gray, pairs[near][:, ::-1])) / 2
    return pairs[near][both_ways >= MIN_SIMILARITY]


def _neighbours(features: NDArray[np.float32]) -> NDArray[np.int64]:
    """Pairs [P,2] where one image is among the NEIGHBOURS nearest of the other; each pair once."""
    centred = features - features.mean(0)
    unit = centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-12)
    pairs = [NO_PAIRS]
    count = min(NEIGHBOURS, len(unit) - 1)
    for start in range(0, len(unit), CHUNK):
        cosines = unit[start : start + CHUNK] @ unit.T
        rows = np.arange(len(cosines))
        cosines[rows, start + rows] = -1
        nearest = np.argpartition(-cosines, count - 1, axis=1)[:, :count]
        near = cosines[rows[:, None], nearest] >= MIN_COSINE
        image = np.broadcast_to(start + rows[:, None], nearest.shape)
        pairs.append(np.stack([image[near], nearest[near]], axis=1))
    return np.unique(np.sort(np.concatenate(pairs), axis=1), axis=0)
