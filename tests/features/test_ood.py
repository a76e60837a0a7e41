from __future__ import annotations

import numpy as np
import pytest

from trainer.features.ood import NEIGHBOURS, REFERENCES, choose_references, fit_novelty


def cluster(generator: np.random.Generator, centre: np.ndarray, count: int) -> np.ndarray:
    return (centre + 0.3 * generator.standard_normal((count, len(centre)))).astype(np.float32)


def test_what_lies_elsewhere_is_novel_and_what_was_held_out_is_spread_evenly() -> None:
    generator = np.random.default_rng(0)
    centres = generator.standard_normal((3, 64))
    learnt, val, unseen = (
        np.concatenate([cluster(generator, centre, count) for centre in centres]) for count in (50, 100, 100)
    )
    novelty = fit_novelty(learnt, val)
    own, elsewhere = novelty(unseen).numpy(), novelty(cluster(generator, generator.standard_normal(64), 50)).numpy()
    assert (elsewhere == 1).all()
    assert own.dtype == np.float32
    assert [np.quantile(own, share) for share in (0.25, 0.5, 0.75)] == pytest.approx([0.25, 0.5, 0.75], abs=0.1)
    # The share of the validation images that are nearer: of these themselves, their ranks.
    assert np.sort(novelty(val).numpy()) == pytest.approx(np.arange(300) / 300, abs=0.005)
    # How bright or rich in contrast a picture is scales its features, and says nothing.
    assert novelty(3 * unseen).numpy() == pytest.approx(own, abs=0.005)


def test_fewer_images_than_neighbours_and_features_that_are_nothing() -> None:
    few = np.eye(NEIGHBOURS - 2, 8, dtype=np.float32)
    novelty = fit_novelty(few, np.concatenate([few, np.zeros((1, 8), np.float32)]))
    assert np.isfinite(novelty(np.zeros((2, 8), np.float32)).numpy()).all()


def test_references_are_of_all_classes_alike() -> None:
    labels = np.repeat([0, 1, 3], [5000, 20, 400]).astype(np.int32)
    chosen = choose_references(labels)
    assert np.bincount(labels[chosen]).tolist() == [REFERENCES // 3, 20, 0, REFERENCES // 3]
    assert len(np.unique(chosen)) == len(chosen)
    assert (choose_references(labels) == chosen).all()
    # Of each of very many classes, one.
    assert (np.bincount(choose_references(np.arange(2000, dtype=np.int32).repeat(2)) // 2) == 1).all()
