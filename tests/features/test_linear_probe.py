from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from trainer.features.linear_probe import fit_head

Labelled = tuple[NDArray[np.float32], NDArray[np.int32]]


def clouds(classes: int, each: int, seed: int, spread: float = 1.0) -> Labelled:
    """Features [N,16] around a centre for each class, on very different scales."""
    centres = np.random.default_rng(7).normal(size=(classes, 16)) * 3
    labels = np.repeat(np.arange(classes, dtype=np.int32), each)
    noise = np.random.default_rng(seed).normal(size=(len(labels), 16)) * spread
    return ((centres[labels] + noise) * np.logspace(-3, 3, 16) + 5).astype(np.float32), labels


@pytest.mark.parametrize("classes", [2, 5])
def test_it_tells_classes_apart_whatever_the_features_scale(classes: int) -> None:
    head = fit_head(clouds(classes, 30, seed=0), clouds(classes, 10, seed=1), classes)
    features, labels = clouds(classes, 50, seed=2)
    probabilities = head.probabilities(features)
    assert head.kernel.shape == (16, classes)
    np.testing.assert_allclose(probabilities.sum(1), 1, atol=1e-5)
    assert (probabilities.argmax(1) == labels).mean() > 0.97
    again = fit_head(clouds(classes, 30, seed=0), clouds(classes, 10, seed=1), classes)
    np.testing.assert_array_equal(again.kernel, head.kernel)


def test_a_class_without_pictures_is_never_the_answer() -> None:
    head = fit_head(clouds(3, 30, seed=0), clouds(3, 10, seed=1), classes=4)
    assert head.probabilities(clouds(3, 10, seed=2)[0])[:, 3].max() < 1e-6


@pytest.mark.parametrize("balanced", [False, True])
def test_pictures_of_one_class_alone_make_it_the_answer(balanced: bool) -> None:
    """`--limit 1` leaves one."""
    features, labels = clouds(3, 10, seed=0)
    one = labels == 2
    head = fit_head((features[one], labels[one]), (features, labels), classes=3, balanced=balanced)
    assert head.kernel.shape == (16, 3)
    np.testing.assert_allclose(head.probabilities(features), [[0, 0, 1]] * 30, atol=1e-6)


def test_balanced_classes_find_more_of_a_rare_one() -> None:
    features, labels = clouds(2, 200, seed=0, spread=8)
    few = np.concatenate([np.flatnonzero(labels == 0), np.flatnonzero(labels == 1)[:15]])
    val = clouds(2, 50, seed=1, spread=8)
    found = [
        (fit_head((features[few], labels[few]), val, 2, balanced=balanced).probabilities(val[0]).argmax(1) == 1).mean()
        for balanced in (False, True)
    ]
    assert found[1] > found[0]
