"""Which pictures are held out, from what is in them alone, and twins together.

A picture's split follows from a hash of its bytes: not from a seed, not from its name, not from what else is there.
So a folder may grow, and figures of models that learnt from it before and after stay comparable. Pictures that are the
same or look the same are twins and go into one split: else a model is asked for what it has learnt by heart.

The look of a picture is 256 bits: whether each of its 16×16 lowest cosine frequencies is positive; and its mean colour.
Measured: the same picture saved again as a JPEG of quality 75 differs in 0 to 12 bits (MNIST, CIFAR-10, photos of
clothing), a photo at half its size in 0 to 7; the nearest of other pictures in 21 (of 9,000 of MNIST), 76 and 40 (of
1,500). Saved at a much lower quality, or without fine detail, twins may be missed; a crop or a mirrored picture is none
here, and a blank one has no look.
`imagehash` has the like for one Pillow image at a time, and brings PyWavelets; this takes decoded arrays.
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from trainer.data.sources.base import SPLITS

HELD_OUT = 0.1  # of the groups of twins, expected: for val, and again for test
FREQUENCIES = 16  # of each axis
SIGN_WORDS = FREQUENCIES * FREQUENCIES // 64
LOOK_WORDS = SIGN_WORDS + 1  # the last: red, green and blue on average, and contrast, a byte each
# Below this amplitude, of 255, a frequency is not there: its sign would be chance.
LEAST_AMPLITUDE = 1e-3
MAX_DIFFERENT_BITS = 12
MAX_TINT_DIFFERENCE = 16  # of 255, in each colour
MIN_CONTRAST = 3  # of 255: the root of the sum of the squared amplitudes
# Of 16 bits. Twins differ in fewer bits than there are bands, so that they agree in one of them.
BANDS = SIGN_WORDS * 4
# Within a band that very many share, as in drawings on one background: time stays linear, a twin may be missed.
MAX_NEIGHBOURS = 500
# A class of so many pictures that has fewer groups than there are splits: they look alike by nature, as icons do.
MIN_ALIKE = 6
TRAIN, VAL, TEST = range(len(SPLITS))


def content_hash(data: bytes) -> int:
    """Of the encoded bytes, 0 to 2^64 - 1, uniformly."""
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")


def look_hashes(images: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """uint8 [n,H,W,C] of one size → their looks, uint64 [n,5]. The same picture in another size looks the same."""
    count, height, width, _ = images.shape
    facts = np.zeros((count, 8), np.uint8)
    gray = np.zeros((count, height, width), np.float32)
    for channel in range(3):  # several times as fast as means over the last axis
        one = images[..., channel % images.shape[3]].astype(np.float32)
        facts[:, channel] = one.mean((1, 2)).round()
        gray += one
    gray /= 3
    amplitudes = _cosines(height) @ gray @ _cosines(width).T
    contrast = np.sqrt((amplitudes.reshape(count, FREQUENCIES * FREQUENCIES)[:, 1:] ** 2).sum(1))
    facts[:, 3] = contrast.round()
    signs = (amplitudes > LEAST_AMPLITUDE).reshape(count, FREQUENCIES * FREQUENCIES)
    signs[:, 0] = False  # brightness
    # Neighbouring frequencies go together: a band gets some from everywhere, which makes its values more even.
    mixed = signs.reshape(count, BANDS, BANDS).swapaxes(1, 2).reshape(signs.shape)
    return np.concatenate([np.packbits(mixed, axis=1), facts], axis=1).view(np.uint64)


def tints(looks: NDArray[np.uint64]) -> tuple[NDArray[np.int16], NDArray[np.int16]]:
    """Looks [n,5] → mean red, green and blue [n,3], and contrast [n], of 255."""
    facts = _facts(looks)
    return facts[:, :3], facts[:, 3]


def find_twins(contents: NDArray[np.uint64], looks: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Content hashes [N] and looks [N,5] → the group of each picture, int64 [N].

    Twins of twins are in one group. 60,000 pictures take a second.
    """
    _, same = np.unique(contents, return_inverse=True)
    unique, look = np.unique(looks, axis=0, return_inverse=True)
    left, right = _near(unique)
    # A graph of contents and looks: pictures join theirs, near looks join each other.
    size = int(same.max(initial=-1)) + 1
    seen = _facts(looks)[:, 3] >= MIN_CONTRAST
    ends = np.concatenate([same[seen], size + left]), np.concatenate([size + look.reshape(-1)[seen], size + right])
    edges = coo_array((np.ones(len(ends[0]), np.bool_), ends), shape=(size + len(unique),) * 2)
    _, groups = connected_components(edges, directed=False)
    return groups[same].astype(np.int64)


def divide(
    contents: NDArray[np.uint64], groups: NDArray[np.int64], labels: NDArray[np.int32], held_out: tuple[str, ...]
) -> NDArray[np.int8]:
    """The split of each picture, int8 [N], an index into SPLITS.

    `held_out`: which of val and test are to be made; each gets a tenth of every class, as chance has it. A group goes
    as one. In each class one group at least is left for train; of what it has besides, val and then test get one at
    least: in a class so small that chance gives them none, those whose hash is lowest. Only there does a new picture
    move others, and where it joins a group.
    """
    _, member = np.unique(_divisible(contents, groups, labels), return_inverse=True)
    lowest = np.full(int(member.max(initial=-1)) + 1, np.iinfo(np.uint64).max)
    np.minimum.at(lowest, member, contents)
    # Mixed again: the lowest of several hashes is low, and large groups would be held out too often.
    key = _mixed(lowest)
    share = key / 2.0**64
    split = np.zeros(len(key), np.int8)
    for index in (VAL, TEST):
        if SPLITS[index] in held_out:
            split[(HELD_OUT * (index - 1) <= share) & (share < HELD_OUT * index)] = index
    _fill(split, key, np.unique(np.stack([labels, member], axis=1), axis=0), held_out)
    return split[member]


def _divisible(contents: NDArray[np.uint64], groups: NDArray[np.int64], labels: NDArray[np.int32]) -> NDArray[np.int64]:
    """The groups, but where pictures of a class are alike by nature: there, by the content alone."""
    _, same = np.unique(contents, return_inverse=True)
    alike = [
        np.unique(groups[of])
        for of in (labels == label for label in np.unique(labels))
        if len(np.unique(groups[of])) < len(SPLITS) and len(np.unique(same[of])) >= MIN_ALIKE
    ]
    broken = np.isin(groups, np.concatenate([*alike, np.empty(0, np.int64)]))
    return np.where(broken, groups.max(initial=0) + 1 + same, groups)


def _fill(
    split: NDArray[np.int8], key: NDArray[np.uint64], pairs: NDArray[np.int64], held_out: tuple[str, ...]
) -> None:
    """Mend `split` [groups] where a class lacks one; `pairs` [n,2] are the (class, group) that occur."""
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
        # Validation, by which a model is chosen, comes before test.
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
            # From train first, and there by the lowest hash.
            for group in groups[np.lexsort((key[groups], split[groups]))].tolist():
                if can_spare(group, index):
                    move(group, index)
                    break


def _cosines(length: int) -> NDArray[np.float32]:
    """The lowest frequencies of DCT-II over `length` pixels, [FREQUENCIES,length], each with mean amplitude 1."""
    frequencies = np.arange(FREQUENCIES)[:, None]
    return (np.cos(np.pi * frequencies * (np.arange(length) + 0.5) / length) / length).astype(np.float32)


def _facts(looks: NDArray[np.uint64]) -> NDArray[np.int16]:
    """Looks [n,5] → red, green, blue and contrast [n,8]; the rest is 0."""
    return np.ascontiguousarray(looks[:, SIGN_WORDS:]).view(np.uint8).astype(np.int16)


def _near(looks: NDArray[np.uint64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pairs of rows of `looks` [n,5] (sorted, all different) that differ in few bits and have nearly the same tint."""
    signs = np.ascontiguousarray(looks[:, :SIGN_WORDS])
    bands = signs.view(np.uint16)
    tints = _facts(looks)[:, :3]
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
            different = np.bitwise_count(signs[left] ^ signs[right]).sum(axis=1)
            tinted = np.abs(tints[left] - tints[right]).max(axis=1)
            near = (different <= MAX_DIFFERENT_BITS) & (tinted <= MAX_TINT_DIFFERENCE)
            pairs.append(np.stack([left[near], right[near]]))
    left, right = np.concatenate(pairs, axis=1)
    return left, right


def _mixed(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """A one-to-one scrambling of 64 bits: the last steps of splitmix64."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
