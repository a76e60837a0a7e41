"""Each kind of finding on values that are known."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from trainer.data_checks.confusable_classes import find_alike_classes
from trainer.data_checks.duplicates import find_duplicates
from trainer.data_checks.image_quality import Poor, find_blurred, find_odd_sizes, sharpness
from trainer.data_checks.label_issues import can_judge, find_wrong_labels
from trainer.data_checks.out_of_fold import out_of_fold
from trainer.data_checks.registration import FINE_SIDE, likeness

Labelled = tuple[NDArray[np.float32], NDArray[np.int32]]


def clouds(spread: float = 1.5, count: int = 400) -> Labelled:
    """Features [count,16] around a centre for each of four classes."""
    draw = np.random.default_rng(0)
    labels = np.arange(count, dtype=np.int32) % 4
    return (draw.normal(size=(4, 16))[labels] * 2 + draw.normal(size=(count, 16)) * spread).astype(np.float32), labels


def test_wrong_labels_are_at_the_head_of_the_list_and_counted() -> None:
    features, right = clouds(count=2000)
    wrong = np.random.default_rng(1).permutation(2000)[:100]
    labels = right.copy()
    labels[wrong] = (right[wrong] + 1) % 4
    probabilities = out_of_fold(features, labels, np.arange(2000), 4)
    np.testing.assert_allclose(probabilities.sum(1), 1)
    found = find_wrong_labels(probabilities, labels)
    assert len(np.intersect1d(found.order[:200], wrong)) >= 90
    assert 0.025 <= found.share <= 0.075
    assert len(np.intersect1d(found.named, wrong)) >= 0.8 * len(found.named) > 40
    one = found.named[0]
    assert found.suggested[one] == right[one]


def test_sound_labels_that_are_hard_to_tell_are_not_accused() -> None:
    features, labels = clouds(spread=3)
    probabilities = out_of_fold(features, labels, np.arange(400), 4)
    assert (probabilities.argmax(1) == labels).mean() < 0.95
    assert len(find_wrong_labels(probabilities, labels).named) <= 4
    chance = out_of_fold(clouds(spread=100)[0], labels, np.arange(400), 4)
    assert can_judge(probabilities, labels)
    assert not can_judge(chance, labels)


def test_a_group_is_left_out_together() -> None:
    """A copy with the same wrong label does not speak for it."""
    features, labels = clouds(spread=1)
    features = np.concatenate([features, np.repeat(features[:1], 12, axis=0)])
    labels = np.concatenate([labels, np.full(12, 3, np.int32)])
    labels[0] = 3
    groups = np.concatenate([np.arange(400), np.zeros(12, np.int64)])
    alone = out_of_fold(features, labels, np.arange(412), 4)[0]
    together = out_of_fold(features, labels, groups, 4)[0]
    assert together.argmax() == 0
    assert together[3] < 0.02 < alone[3]


def test_classes_that_are_one_are_named() -> None:
    features, labels = clouds(spread=1)
    labels = np.where(labels == 3, np.arange(400) // 4 % 2 * 3, labels).astype(np.int32)  # half of 3 is called 0
    labels = np.where((labels == 0) & (np.arange(400) % 8 == 0), 3, labels).astype(np.int32)
    (pair,) = find_alike_classes(out_of_fold(features, labels, np.arange(400), 4), labels)
    assert (pair.first, pair.second) == (0, 3)
    assert pair.right < 0.75 * pair.images
    features, labels = clouds(spread=1)
    assert find_alike_classes(out_of_fold(features, labels, np.arange(400), 4), labels) == []


def test_a_picture_is_found_in_a_crop_or_a_mirror_and_not_in_another() -> None:
    from scipy.ndimage import gaussian_filter, zoom

    draw = np.random.default_rng(0)
    one, other = (gaussian_filter(draw.normal(size=(100, 100)), 3).astype(np.float32) * 500 for _ in range(2))

    def small(picture: NDArray[np.float32]) -> NDArray[np.float32]:
        return zoom(picture, FINE_SIDE / np.array(picture.shape), order=1).astype(np.float32)

    fine = np.stack([small(one), small(one[5:, :95]), small(one[:, ::-1]), small(other)])
    alike = likeness(fine, np.array([[0, 1], [0, 2], [1, 2], [0, 3]]))
    assert alike[:3].min() > 0.95
    assert alike[3] < 0.5


def test_groups_join_twins_and_pairs() -> None:
    groups = find_duplicates(np.array([7, 8, 7, 9, 5, 6]), np.array([[2, 3], [4, 5]]))
    assert [group.tolist() for group in groups] == [[0, 2, 3], [4, 5]]


def test_blurred_is_beside_the_others() -> None:
    from scipy.ndimage import gaussian_filter

    pictures = np.random.default_rng(0).integers(0, 256, (40, 64, 64)).astype(np.float32).repeat(2, 1).repeat(2, 2)
    blurred = pictures.copy()
    blurred[7] = gaussian_filter(pictures[7], 4)
    assert find_blurred(sharpness(blurred)).tolist() == [7]
    assert find_blurred(sharpness(pictures)).tolist() == []
    assert find_blurred(sharpness(np.stack([gaussian_filter(one, 4) for one in pictures]))).tolist() == []


@pytest.mark.parametrize(
    ("size", "found"),
    [((300, 400), []), ((30, 40), [Poor(9, "tiny")]), ((1000, 300), [Poor(9, "oddly shaped")]), ((2000, 1500), [])],
)
def test_sizes_are_judged_beside_the_others(size: tuple[int, int], found: list[Poor]) -> None:
    assert find_odd_sizes(np.array([(300, 400)] * 9 + [size]), side=160) == found
    assert find_odd_sizes(np.array([size] * 10), side=160) == []  # what all are is not odd
