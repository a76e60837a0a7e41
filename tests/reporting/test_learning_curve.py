from __future__ import annotations

import numpy as np
import pytest

from trainer.reporting.learning_curve import LearningCurve

IMAGES = (250, 500, 750, 1000)


def curve(accuracies: tuple[float, float, float, float], val_images: int = 2000, seed: int = 0) -> LearningCurve:
    """Of four draws: the easier an image the more heads name it right, and some images by chance."""
    random = np.random.default_rng(seed)
    hard = random.random((1, 1, val_images))
    right = hard + random.normal(scale=0.05, size=(4, 4, val_images)) < np.array(accuracies)[:, None, None]
    right[-1] = right[-1, :1]  # all images are drawn once
    return LearningCurve(IMAGES, right)


def law(exponent: float, floor: float = 0.0) -> tuple[float, float, float, float]:
    """Accuracies whose share of mistakes is 0.2 with 1,000 images, `floor` of it for ever."""
    first, second, third, last = (1 - floor - (0.2 - floor) * (images / 1000) ** -exponent for images in IMAGES)
    return first, second, third, last


@pytest.mark.parametrize("floor", [0.0, 0.1])
@pytest.mark.parametrize("exponent", [0.2, 0.5])
@pytest.mark.parametrize("seed", range(3))
def test_what_twice_as_many_bring_lies_in_the_range(exponent: float, floor: float, seed: int) -> None:
    measured = curve(law(exponent, floor), seed=seed)
    assert measured.doubling
    low, high = measured.doubling
    gain = (0.2 - floor) * (1 - 2**-exponent)
    assert low < gain < high
    assert high - low < 0.06
    assert not measured.flat


def test_a_curve_that_rises() -> None:
    measured = curve(law(0.5))
    np.testing.assert_allclose(measured.accuracy, law(0.5), atol=0.03)
    assert measured.accuracies.shape == (4, 4)
    # Of 2,000 images, 80 % right: 0.9 points.
    assert measured.errors[-1] == pytest.approx(0.009, abs=0.001)
    assert measured.rises
    half, whole = 100 * measured.accuracy[[1, 3]]
    low, high = np.array(measured.doubling) * 100
    assert measured.in_words == (
        f"with 500 of the 1,000 training images {half:.1f} % of the validation images are named right, with all of "
        f"them {whole:.1f} %; twice as many would likely bring {low:.1f} to {high:.1f} points more"
    )


def test_a_flat_curve() -> None:
    measured = curve((0.9, 0.9, 0.9, 0.9))
    assert measured.flat
    assert not measured.rises
    assert measured.in_words.endswith("likely bring less than 1 point: more of the same images hardly help")


def test_too_few_validation_images_to_tell() -> None:
    measured = curve(law(0.1), val_images=150)
    assert not measured.flat
    assert not measured.rises
    assert measured.in_words.endswith("points more, and perhaps none")
    fewer = curve(law(0.5), val_images=99)
    assert fewer.doubling is None
    assert not fewer.rises
    assert not fewer.flat
    assert fewer.in_words.endswith("%; what more would bring cannot be told from so few, or from a curve like this")


def test_one_validation_image() -> None:
    measured = LearningCurve(IMAGES, np.ones((4, 2, 1), np.bool_))
    assert measured.errors.tolist() == [0, 0, 0, 0]
    assert measured.doubling is None


def test_a_curve_that_follows_no_law_is_not_continued() -> None:
    assert curve((0.5, 0.9, 0.5, 0.9)).doubling is None
    assert curve((0.5, 0.5, 0.5, 0.9)).doubling is None


def test_heads_that_are_always_right() -> None:
    measured = LearningCurve(IMAGES, np.ones((4, 2, 200), np.bool_))
    assert measured.doubling == (0, 0)
    assert measured.flat
