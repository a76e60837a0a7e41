"""Deterministic split by content hash; near-duplicates share a split.

The split of an image follows from a hash of its bytes: not from a seed, its name, or the other images. A folder may
grow, and models that were fitted before and after stay comparable. Near-duplicates go into one split, else a model is
tested on images that it has memorized.
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from trainer.data.sources.base import SPLITS

HELD_OUT = 0.1  # expected share of the near-duplicate groups, for val and for test each
# A class with at least this many images and fewer groups than splits: its images look alike by nature, as icons do.
MIN_SIMILAR_IMAGES = 6
TRAIN, VAL, TEST = range(len(SPLITS))


def content_hash(data: bytes) -> int:
    """Hash of the encoded bytes, uniform over 0 to 2^64 - 1."""
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")


def divide(
    content_hashes: NDArray[np.uint64],
    groups: NDArray[np.int64],
    labels: NDArray[np.int32],
    held_out: tuple[str, ...],
) -> NDArray[np.int8]:
    """Split of each image, int8 [N], an index into SPLITS.

    `held_out` names the splits to make, of val and test; each gets about a tenth of every class, at random. A
    near-duplicate group is never divided. Every class keeps at least one group in train; val and then test get at
    least one of the others. In a class so small that chance gives them none, they get the groups with the lowest
    hashes. Only there can a new image move others, and where it joins a group.
    """
    _, member = np.unique(_divisible(content_hashes, groups, labels), return_inverse=True)
    lowest = np.full(int(member.max(initial=-1)) + 1, np.iinfo(np.uint64).max)
    np.minimum.at(lowest, member, content_hashes)
    # Mixed again: the lowest of several hashes is low, and large groups would be held out too often.
    key = _mixed(lowest)
    share = key / 2.0**64
    split = np.zeros(len(key), np.int8)
    for index in (VAL, TEST):
        if SPLITS[index] in held_out:
            split[(HELD_OUT * (index - 1) <= share) & (share < HELD_OUT * index)] = index
    _fill(split, key, np.unique(np.stack([labels, member], axis=1), axis=0), held_out)
    return split[member]


def is_trained(
    content_hashes: NDArray[np.uint64],
    groups: NDArray[np.int64],
    labels: NDArray[np.int32],
    trained: NDArray[np.uint64],
    *,
    whole_groups: bool,
) -> NDArray[np.bool_]:
    """Whether each image has one of the hashes `trained`, bool [N]; `whole_groups`: or is in a group with one."""
    known = np.isin(content_hashes, trained)
    if not whole_groups:
        return known
    divisible = _divisible(content_hashes, groups, labels)
    return np.isin(divisible, divisible[known])


def _divisible(
    content_hashes: NDArray[np.uint64], groups: NDArray[np.int64], labels: NDArray[np.int32]
) -> NDArray[np.int64]:
    """The groups to divide: near-duplicate groups, but one per content in classes whose images look alike by nature."""
    _, content = np.unique(content_hashes, return_inverse=True)
    dissolved = [np.empty(0, np.int64)]
    for label in np.unique(labels):
        of_class = labels == label
        found = np.unique(groups[of_class])
        if len(found) < len(SPLITS) and len(np.unique(content[of_class])) >= MIN_SIMILAR_IMAGES:
            dissolved.append(found)
    return np.where(np.isin(groups, np.concatenate(dissolved)), groups.max(initial=0) + 1 + content, groups)


def _fill(
    split: NDArray[np.int8], key: NDArray[np.uint64], pairs: NDArray[np.int64], held_out: tuple[str, ...]
) -> None:
    """Change `split` [groups] where a class lacks a split; `pairs` [n,2] are the (class, group) that occur."""
    of_class = {int(label): pairs[pairs[:, 0] == label, 1] for label in np.unique(pairs[:, 0])}
    classes_of: dict[int, list[int]] = {}
    for label, group in pairs.tolist():
        classes_of.setdefault(group, []).append(label)
    counts = {label: np.bincount(split[groups], minlength=len(SPLITS)) for label, groups in of_class.items()}

    def move(group: int, to: int) -> None:
        for label in classes_of[group]:
            counts[label][split[group]] -= 1
            counts[label][to] += 1
        split[group] = to

    def can_spare(group: int, to: int) -> bool:
        # Validation comes before test: models are chosen by it.
        return (split[group] == TEST and to == VAL) or all(
            counts[label][split[group]] > 1 for label in classes_of[group]
        )

    for label, groups in of_class.items():
        if not counts[label][TRAIN]:
            move(int(groups[np.argmax(key[groups])]), TRAIN)
    for index in (VAL, TEST):
        for label, groups in of_class.items():
            if SPLITS[index] not in held_out or counts[label][index]:
                continue
            # Groups are taken from train first, and there by the lowest hash.
            for group in groups[np.lexsort((key[groups], split[groups]))].tolist():
                if can_spare(group, index):
                    move(group, index)
                    break


def _mixed(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """One-to-one scrambling of 64 bits: the last steps of splitmix64."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
