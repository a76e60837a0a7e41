from __future__ import annotations

import numpy as np
import pytest

from trainer.data_checks.image_quality import LowQuality, find_blurred, find_odd_sizes, sharpness


def test_an_image_is_blurred_compared_with_the_others() -> None:
    from scipy.ndimage import gaussian_filter

    images = np.random.default_rng(0).integers(0, 256, (40, 64, 64)).astype(np.float32).repeat(2, 1).repeat(2, 2)
    one_blurred = images.copy()
    one_blurred[7] = gaussian_filter(images[7], 4)
    assert find_blurred(sharpness(one_blurred)).tolist() == [7]
    assert find_blurred(sharpness(images)).tolist() == []
    assert find_blurred(sharpness(np.stack([gaussian_filter(image, 4) for image in images]))).tolist() == []


@pytest.mark.parametrize(
    ("size", "found"),
    [
        ((300, 400), []),
        ((30, 40), [LowQuality(9, "tiny")]),
        ((1000, 300), [LowQuality(9, "oddly shaped")]),
        ((2000, 1500), []),
    ],
)
def test_a_size_is_odd_compared_with_the_others(size: tuple[int, int], found: list[LowQuality]) -> None:
    assert find_odd_sizes(np.array([(300, 400)] * 9 + [size]), side=160) == found
    assert find_odd_sizes(np.array([size] * 10), side=160) == []  # a size that all have is not odd
