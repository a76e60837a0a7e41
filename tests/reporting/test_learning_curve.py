from __future__ import annotations

import numpy as np
import pytest

from trainer.reporting.learning_curve import LearningCurve

IMAGES = (250, 500, 750, 1000)


def curve(accuracies: tuple[float, float, float, float], val_images: int = 2000, seed: int = 0) -> LearningCurve:
    """A curve with four draws: the easier an image, the more probes predict it correctly, with some noise."""
    random = np.random.default_rng(seed)
    difficulty = random.random((1, 1, val_images))
    correct = difficulty + random.normal(scale=0.05, size=(4, 4, val_images)) < np.array(accuracies)[:, None, None]
    correct[-1] = correct[-1, :1]  # there is one way to draw all images
    return LearningCurve(IMAGES, correct)


def law(exponent: float, floor: float = 0.0) -> tuple[float, float, float, float]:
    """Accuracies of a power law: the share of mistakes is 0.2 with 1,000 images, and tends to `floor`."""
    first, second, third, last = (1 - floor - (0.2 - floor) * (images / 1000) ** -exponent for images in IMAGES)
    return first, second, third, last


@pytest.mark.parametrize("floor", [0.0, 0.1])
@pytest.mark.parametrize("exponent", [0.2, 0.5])
@pytest.mark.parametrize("seed", range(3))
def test_gain_of_doubling_lies_in_the_interval(exponent: float, floor: float, seed: int) -> None:
    measured = curve(law(exponent, floor), seed=seed)
    assert measured.doubling
    low, high = measured.doubling
    gain = (0.2 - floor) * (1 - 2**-exponent)
    assert low < gain < high
    assert high - low < 0.06
    assert not measured.flat


def test_rising_curve() -> None:
    measured = curve(law(0.5))
    np.testing.assert_allclose(measured.accuracy, law(0.5), atol=0.03)
    assert measured.accuracies.shape == (4, 4)
    # 80 % of 2,000 images: a standard error of 0.9 points.
    assert measured.errors[-1] == pytest.approx(0.009, abs=0.001)
    assert measured.rises
    half, whole = 100 * measured.accuracy[[1, 3]]
    low, high = np.array(measured.doubling) * 100
    for part in (
        f"with 500 of the 1,000 training images {half:.1f} %",
        f"with all of them {whole:.1f} %",
        f"{low:.1f} to {high:.1f} points more",
    ):
        assert part in measured.summary


def test_flat_curve() -> None:
    measured = curve((0.9, 0.9, 0.9, 0.9))
    assert measured.flat
    assert not measured.rises
    assert "less than 1 point" in measured.summary


def test_few_validation_images() -> None:
    measured = curve(law(0.1), val_images=150)
    assert not measured.flat
    assert not measured.rises
    assert "perhaps none" in measured.summary
    fewer = curve(law(0.5), val_images=99)
    assert fewer.doubling is None
    assert not fewer.rises
    assert not fewer.flat
    assert "cannot be told" in fewer.summary


def test_one_validation_image() -> None:
    measured = LearningCurve(IMAGES, np.ones((4, 2, 1), np.bool_))
    assert measured.errors.tolist() == [0, 0, 0, 0]
    assert measured.doubling is None


def test_curve_that_follows_no_power_law_is_not_extrapolated() -> None:
    assert curve((0.5, 0.9, 0.5, 0.9)).doubling is None
    assert curve((0.5, 0.5, 0.5, 0.9)).doubling is None


def test_probes_without_mistakes() -> None:
    measured = LearningCurve(IMAGES, np.ones((4, 2, 200), np.bool_))
    assert measured.doubling == (0, 0)
    assert measured.flat
