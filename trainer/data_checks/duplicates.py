"""Pictures that are there twice: the same file, saved again, in another size, cropped a little, or mirrored.

Twins by content and look (`trainer.data.splits`) are known of all pictures. Of those with features of the network,
the nearest neighbours are laid over each other as well (`alignment`): features find a crop or a mirrored picture, and
pixels tell whether it is one.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from trainer.data_checks.images import Pictures
from trainer.data_checks.registration import likeness

NEIGHBOURS = 2  # of each picture; a copy is nearly always the first
LEAST_COSINE = 0.25  # of centred features: below it nothing was a copy
SAME_PIXELS = 0.99  # correlation; of handwritten digits with one look some reach 0.98
SAME = 0.95  # likeness; of different photos nearly none is above, of copies nearly all are
WORTH_A_SECOND_LOOK = 0.9
CHUNK = 1024  # pictures whose neighbours are looked for at once


def find_duplicates(twins: NDArray[np.int64], pairs: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """The groups of two and more, as sorted positions, from the twins [N] and other `pairs` [P,2] of positions."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    _, group = np.unique(twins, return_inverse=True)
    count = int(group.max(initial=-1)) + 1
    ends = group[pairs]
    edges = coo_array((np.ones(len(ends), np.bool_), (ends[:, 0], ends[:, 1])), shape=(count, count))
    _, joined = connected_components(edges, directed=False)
    member = joined[group]
    order = np.argsort(member, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(member[order])) + 1)
    return sorted((one for one in groups if len(one) > 1), key=lambda one: int(one[0]))


def sure_twins(pictures: Pictures) -> NDArray[np.int64]:
    """The group of each picture, [N], where those of one look count as twins only if their pixels are the same, too.

    For tiny pictures: two ones by one hand have the same look.
    """
    groups = pictures.twins.copy()
    contents = pictures.all.contents
    others = int(groups.max(initial=-1)) + 1
    for members in find_duplicates(groups, np.empty((0, 2), np.int64)):
        if len(np.unique(contents[members])) == 1:
            continue
        pixels = pictures.all.read(members).reshape(len(members), -1).astype(np.float32)
        centred = pixels - pixels.mean(1, keepdims=True)
        unit = centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-6)
        apart = (contents[members] != contents[members[0]]) & (unit @ unit[0] < SAME_PIXELS)
        _, others_again = np.unique(contents[members[apart]], return_inverse=True)
        groups[members[apart]] = others + others_again
        others += int(apart.sum())
    return groups


def find_copies(
    features: NDArray[np.float32], fine: NDArray[np.float32], check_interrupted: Callable[[], None]
) -> NDArray[np.int64]:
    """Pairs [P,2] of pictures that show the same, from features [N,F] and `grays` [N,S,S] of the same pictures."""
    pairs = _neighbours(features, check_interrupted)
    alike = likeness(fine, pairs)
    near = pairs[alike >= WORTH_A_SECOND_LOOK]
    both = (alike[alike >= WORTH_A_SECOND_LOOK] + likeness(fine, near[:, ::-1])) / 2
    return near[both >= SAME]


def _neighbours(features: NDArray[np.float32], check_interrupted: Callable[[], None]) -> NDArray[np.int64]:
    """Each pair [P,2] of which one is among the NEIGHBOURS nearest of the other, once."""
    centred = features - features.mean(0)
    unit = centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-12)
    found = [np.empty((0, 2), np.int64)]
    count = min(NEIGHBOURS, len(unit) - 1)
    for start in range(0, len(unit), CHUNK):
        check_interrupted()
        cosines = unit[start : start + CHUNK] @ unit.T
        rows = np.arange(len(cosines))
        cosines[rows, start + rows] = -1
        nearest = np.argpartition(-cosines, count - 1, axis=1)[:, :count]
        near = cosines[rows[:, None], nearest] >= LEAST_COSINE
        one = np.broadcast_to(start + rows[:, None], nearest.shape)
        found.append(np.stack([one[near], nearest[near]], axis=1))
    return np.unique(np.sort(np.concatenate(found), axis=1), axis=0)
