from __future__ import annotations

import numpy as np

from trainer.data_checks.confusable_classes import find_confusable_classes
from trainer.data_checks.label_issues import beats_majority_class, find_label_issues
from trainer.data_checks.out_of_fold import out_of_fold
from trainer.features.linear_probe import Labelled


def clouds(spread: float = 1.5, count: int = 400) -> Labelled:
    """Features [count,16] around one centre for each of four classes."""
    random = np.random.default_rng(0)
    labels = np.arange(count, dtype=np.int32) % 4
    features = random.normal(size=(4, 16))[labels] * 2 + random.normal(size=(count, 16)) * spread
    return features.astype(np.float32), labels


def test_wrong_labels_are_ranked_first_and_counted() -> None:
    features, correct = clouds(count=2000)
    wrong = np.random.default_rng(1).permutation(2000)[:100]
    labels = correct.copy()
    labels[wrong] = (correct[wrong] + 1) % 4
    probabilities = out_of_fold(features, labels, np.arange(2000), 4)
    np.testing.assert_allclose(probabilities.sum(1), 1)
    ranking = find_label_issues(probabilities, labels)
    assert len(np.intersect1d(ranking.order[:200], wrong)) >= 90
    assert 0.025 <= ranking.noise_rate <= 0.075
    assert len(np.intersect1d(ranking.issues, wrong)) >= 0.8 * len(ranking.issues) > 40
    first = ranking.issues[0]
    assert ranking.suggested[first] == correct[first]


def test_correct_labels_of_a_hard_data_set_are_not_reported() -> None:
    features, labels = clouds(spread=3)
    probabilities = out_of_fold(features, labels, np.arange(400), 4)
    assert (probabilities.argmax(1) == labels).mean() < 0.95
    assert len(find_label_issues(probabilities, labels).issues) <= 4
    chance = out_of_fold(clouds(spread=100)[0], labels, np.arange(400), 4)
    assert beats_majority_class(probabilities, labels)
    assert not beats_majority_class(chance, labels)


def test_a_group_is_left_out_together() -> None:
    """Copies with the same wrong label do not confirm it."""
    features, labels = clouds(spread=1)
    features = np.concatenate([features, np.repeat(features[:1], 12, axis=0)])
    labels = np.concatenate([labels, np.full(12, 3, np.int32)])
    labels[0] = 3
    groups = np.concatenate([np.arange(400), np.zeros(12, np.int64)])
    alone = out_of_fold(features, labels, np.arange(412), 4)[0]
    together = out_of_fold(features, labels, groups, 4)[0]
    assert together.argmax() == 0
    assert together[3] < 0.02 < alone[3]


def test_classes_with_exchanged_labels_are_confusable() -> None:
    features, labels = clouds(spread=1)
    assert find_confusable_classes(out_of_fold(features, labels, np.arange(400), 4), labels) == []
    labels = np.where(labels == 3, np.arange(400) // 4 % 2 * 3, labels).astype(np.int32)  # half of class 3 is called 0
    labels = np.where((labels == 0) & (np.arange(400) % 8 == 0), 3, labels).astype(np.int32)
    (pair,) = find_confusable_classes(out_of_fold(features, labels, np.arange(400), 4), labels)
    assert (pair.first, pair.second) == (0, 3)
    assert pair.correct < 0.75 * pair.images
