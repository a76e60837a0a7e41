from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from sample_images import content_hashes

from trainer.data.perceptual_hash import HASH_WORDS, group_near_duplicates
from trainer.data.splits import TEST, TRAIN, VAL, divide

BOTH = ("val", "test")


def ungrouped(count: int) -> NDArray[np.int64]:
    """Groups of one image each."""
    return np.arange(count)


def test_no_images_and_one() -> None:
    for count in (0, 1):
        groups = group_near_duplicates(content_hashes(count), np.zeros((count, HASH_WORDS), np.uint64))
        assert groups.tolist() == [0] * count
        assert divide(content_hashes(count), groups, np.zeros(count, np.int32), BOTH).tolist() == [TRAIN] * count


def test_a_tenth_of_every_class_is_held_out_for_each_split() -> None:
    labels = np.repeat(np.arange(4), [10_000, 5_000, 1_000, 300]).astype(np.int32)
    split = divide(content_hashes(len(labels)), ungrouped(len(labels)), labels, BOTH)
    for label, tolerance in ((0, 0.01), (1, 0.015), (2, 0.03), (3, 0.06)):
        shares = np.bincount(split[labels == label], minlength=3) / (labels == label).sum()
        np.testing.assert_allclose(shares, [0.8, 0.1, 0.1], atol=tolerance)


def test_the_split_depends_on_the_content_alone() -> None:
    hashes, labels = content_hashes(2000), (np.arange(2000) % 5).astype(np.int32)
    split = divide(hashes, ungrouped(2000), labels, BOTH)
    order = np.random.default_rng(0).permutation(2000)
    np.testing.assert_array_equal(divide(hashes[order], ungrouped(2000), labels[order], BOTH), split[order])
    # A folder grows; then half of it is deleted.
    more = np.concatenate([hashes, content_hashes(3000, start=2000)])
    grown = divide(more, ungrouped(5000), (np.arange(5000) % 5).astype(np.int32), BOTH)
    np.testing.assert_array_equal(grown[:2000], split)
    np.testing.assert_array_equal(divide(hashes[1000:], ungrouped(1000), labels[1000:], BOTH), split[1000:])
    # Where test exists already, validation stays as it was.
    only = divide(hashes, ungrouped(2000), labels, ("val",))
    np.testing.assert_array_equal(only == VAL, split == VAL)
    assert (only[split == TEST] == TRAIN).all()


def test_near_duplicates_share_a_split_and_are_held_out_no_more_often() -> None:
    groups = np.repeat(np.arange(4000), 5)
    split = divide(content_hashes(20_000), groups, np.zeros(20_000, np.int32), BOTH).reshape(4000, 5)
    assert (split == split[:, :1]).all()
    np.testing.assert_allclose(np.bincount(split[:, 0]) / 4000, [0.8, 0.1, 0.1], atol=0.02)


def test_a_new_near_duplicate_moves_only_its_own_group() -> None:
    hashes = content_hashes(1001)
    labels = np.zeros(1001, np.int32)
    split = divide(hashes[:1000], ungrouped(1000), labels[:1000], BOTH)
    groups = ungrouped(1001)
    groups[1000] = 17
    grown = divide(hashes, groups, labels, BOTH)
    assert np.delete(grown[:1000], 17).tolist() == np.delete(split, 17).tolist()
    assert grown[17] == grown[1000]


@pytest.mark.parametrize("seed", range(20))
def test_small_classes_have_every_split_that_they_can(seed: int) -> None:
    sizes = np.array([1, 2, 3, 4, 8, 12])
    labels = np.repeat(np.arange(6), sizes).astype(np.int32)
    split = divide(content_hashes(len(labels), start=1000 * seed), ungrouped(len(labels)), labels, BOTH)
    for label, size in enumerate(sizes):
        train, val, test = np.bincount(split[labels == label], minlength=3)
        assert train >= 1
        assert val >= (size > 1)
        assert test >= (size > 2)


def test_a_class_whose_images_look_alike_by_nature_is_divided() -> None:
    labels = np.repeat([0, 1, 2], 40).astype(np.int32)
    groups = np.concatenate([np.zeros(40, np.int64), np.arange(1, 81)])
    groups[45] = 0  # an image of another class that looks the same
    hashes = content_hashes(120)
    hashes[1] = hashes[0]
    split = divide(hashes, groups, labels, BOTH)
    assert set(split[labels == 0].tolist()) == {TRAIN, VAL, TEST}
    assert split[0] == split[1]


@pytest.mark.parametrize("seed", range(20))
def test_every_class_keeps_a_training_image_where_groups_span_classes(seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = np.sort(rng.integers(0, 8, 60)).astype(np.int32)
    groups = rng.integers(0, 25, 60)
    split = divide(content_hashes(60, start=1000 * seed), groups, labels, BOTH)
    assert all((split[labels == label] == TRAIN).any() for label in np.unique(labels))
    assert all(len(np.unique(split[groups == group])) == 1 for group in np.unique(groups))
    assert {VAL, TEST} <= set(split.tolist())
