from __future__ import annotations

import numpy as np
import pytest

from trainer.artifact.prediction import MAX_OOD_SCORE
from trainer.features.ood import NEIGHBOURS, REFERENCES, choose_references, fit_ood_score


def cluster(generator: np.random.Generator, centre: np.ndarray, count: int) -> np.ndarray:
    return (centre + 0.3 * generator.standard_normal((count, len(centre)))).astype(np.float32)


def test_scores_are_uniform_for_held_out_images_and_1_for_others() -> None:
    generator = np.random.default_rng(0)
    centres = generator.standard_normal((3, 64))
    train, val, unseen = (
        np.concatenate([cluster(generator, centre, count) for centre in centres]) for count in (50, 100, 100)
    )
    score = fit_ood_score(train, val)
    own, elsewhere = score(unseen).numpy(), score(cluster(generator, generator.standard_normal(64), 50)).numpy()
    assert elsewhere == pytest.approx(1)
    assert own.dtype == np.float32
    assert [np.quantile(own, share) for share in (0.25, 0.5, 0.75)] == pytest.approx([0.26, 0.52, 0.78], abs=0.1)
    # For the validation images themselves, it is their rank.
    assert np.sort(score(val).numpy())[:291] == pytest.approx(0.99 * np.arange(291) / 291, abs=0.005)
    # Brightness and contrast scale the features, and do not matter.
    assert score(3 * unseen).numpy() == pytest.approx(own, abs=0.005)


@pytest.mark.parametrize(("images", "refused"), [(7, 1), (37, 1), (80, 2), (341, 10), (5000, 150)])
def test_the_farthest_validation_images_are_at_the_limit(images: int, refused: int) -> None:
    """As many of V as R in V + 1 of images like them, R / (V + 1) being at most 3 in 100 where that is possible."""
    generator = np.random.default_rng(1)
    centre = generator.standard_normal(64)
    score = fit_ood_score(cluster(generator, centre, 60), cluster(generator, centre, images))
    unseen = cluster(generator, centre, 20_000)
    farther = float((score(unseen).numpy() >= MAX_OOD_SCORE).mean())
    expected = refused / (images + 1)
    assert farther == pytest.approx(expected, abs=3 * (expected / images) ** 0.5)


def test_fewer_images_than_neighbours_and_features_of_zero_give_finite_scores() -> None:
    few = np.eye(NEIGHBOURS - 2, 8, dtype=np.float32)
    score = fit_ood_score(few, np.concatenate([few, np.zeros((1, 8), np.float32)]))
    assert np.isfinite(score(np.zeros((2, 8), np.float32)).numpy()).all()


def test_references_are_balanced_over_the_classes() -> None:
    labels = np.repeat([0, 1, 3], [5000, 20, 400]).astype(np.int32)
    chosen = choose_references(labels)
    assert np.bincount(labels[chosen]).tolist() == [REFERENCES // 3, 20, 0, REFERENCES // 3]
    assert len(np.unique(chosen)) == len(chosen)
    assert (choose_references(labels) == chosen).all()
    # With very many classes there is one of each.
    assert (np.bincount(choose_references(np.arange(2000, dtype=np.int32).repeat(2)) // 2) == 1).all()
