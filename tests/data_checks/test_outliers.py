from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from trainer.data_checks.outliers import CHUNK, NEIGHBOURS, find_outliers

FEATURES = 64


def clusters(counts: list[int]) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Features of classes with `counts` images each, all near their class's centre."""
    random = np.random.default_rng(0)
    labels = np.repeat(np.arange(len(counts)), counts)
    centres = random.uniform(0, 6, (len(counts), FEATURES))
    features = centres[labels] + random.normal(0, 1, (len(labels), FEATURES))
    return features.astype(np.float32), labels.astype(np.int32)


def test_images_like_none_of_their_class_are_found_the_farthest_first() -> None:
    features, labels = clusters([CHUNK + 100, 80])  # more than are compared at once
    before = find_outliers(features, labels, np.arange(len(labels)))
    assert len(before) <= 0.01 * len(labels)
    features[3] = -features[3]
    features[CHUNK + 50] = np.roll(features[CHUNK + 50], 7)
    features[CHUNK + 150] = features[5]  # of the second class, and like the first
    found = find_outliers(features, labels, np.arange(len(labels))).tolist()
    assert found[0] == 3
    assert sorted(found[:3]) == [3, CHUNK + 50, CHUNK + 150]
    assert set(found[3:]) <= set(before.tolist())


def test_copies_of_one_placeholder_do_not_confirm_each_other() -> None:
    features, labels = clusters([60, 60])
    copies = np.arange(NEIGHBOURS + 2)
    features[copies] = -features[0]
    groups = np.arange(len(labels))
    assert find_outliers(features, labels, groups).tolist() == []
    groups[copies] = 0
    assert sorted(find_outliers(features, labels, groups).tolist()) == copies.tolist()


def test_a_class_with_too_few_images_is_not_judged() -> None:
    features, labels = clusters([60, NEIGHBOURS])
    features[60:] = np.random.default_rng(1).normal(0, 1, (NEIGHBOURS, FEATURES))
    assert find_outliers(features, labels, np.arange(len(labels))).tolist() == []
    assert find_outliers(features[60:], labels[60:], np.arange(NEIGHBOURS)).tolist() == []
