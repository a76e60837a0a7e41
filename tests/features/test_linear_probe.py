from __future__ import annotations

import numpy as np
import pytest

from trainer.features.linear_probe import Labelled, fit_linear_probe


def clouds(classes: int, each: int, seed: int, spread: float = 1.0) -> Labelled:
    """Features [N,16] around one centre for each class, on very different scales."""
    centres = np.random.default_rng(7).normal(size=(classes, 16)) * 3
    labels = np.repeat(np.arange(classes, dtype=np.int32), each)
    noise = np.random.default_rng(seed).normal(size=(len(labels), 16)) * spread
    return ((centres[labels] + noise) * np.logspace(-3, 3, 16) + 5).astype(np.float32), labels


@pytest.mark.parametrize("classes", [2, 5])
def test_it_separates_classes_whatever_the_features_scale(classes: int) -> None:
    probe = fit_linear_probe(clouds(classes, 30, seed=0), clouds(classes, 10, seed=1), classes)
    features, labels = clouds(classes, 50, seed=2)
    probabilities = probe.probabilities(features)
    assert probe.kernel.shape == (16, classes)
    np.testing.assert_allclose(probabilities.sum(1), 1, atol=1e-5)
    assert (probabilities.argmax(1) == labels).mean() > 0.97
    again = fit_linear_probe(clouds(classes, 30, seed=0), clouds(classes, 10, seed=1), classes)
    np.testing.assert_array_equal(again.kernel, probe.kernel)


def test_a_class_without_images_is_never_predicted() -> None:
    probe = fit_linear_probe(clouds(3, 30, seed=0), clouds(3, 10, seed=1), classes=4)
    assert probe.probabilities(clouds(3, 10, seed=2)[0])[:, 3].max() < 1e-6


@pytest.mark.parametrize("balanced", [False, True])
def test_a_single_class_is_always_predicted(balanced: bool) -> None:
    """`--limit 1` leaves one class."""
    features, labels = clouds(3, 10, seed=0)
    of_class = labels == 2
    probe = fit_linear_probe((features[of_class], labels[of_class]), (features, labels), classes=3, balanced=balanced)
    assert probe.kernel.shape == (16, 3)
    np.testing.assert_allclose(probe.probabilities(features), [[0, 0, 1]] * 30, atol=1e-6)


def test_balanced_weights_raise_the_recall_of_a_rare_class() -> None:
    features, labels = clouds(2, 200, seed=0, spread=8)
    rows = np.concatenate([np.flatnonzero(labels == 0), np.flatnonzero(labels == 1)[:15]])
    val = clouds(2, 50, seed=1, spread=8)
    probes = [fit_linear_probe((features[rows], labels[rows]), val, 2, balanced=value) for value in (False, True)]
    plain, balanced = ((probe.probabilities(val[0]).argmax(1) == 1).mean() for probe in probes)
    assert balanced > plain
