from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from trainer.data_checks.duplicates import find_duplicates
from trainer.data_checks.registration import FINE_SIDE, structure_similarity


def test_groups_and_pairs_are_joined() -> None:
    groups = find_duplicates(np.array([7, 8, 7, 9, 5, 6]), np.array([[2, 3], [4, 5]]))
    assert [group.tolist() for group in groups] == [[0, 2, 3], [4, 5]]


def test_a_crop_and_a_mirror_image_are_similar_and_another_image_is_not() -> None:
    from scipy.ndimage import gaussian_filter, zoom

    random = np.random.default_rng(0)
    image, other = (gaussian_filter(random.normal(size=(100, 100)), 3).astype(np.float32) * 500 for _ in range(2))

    def small(gray: NDArray[np.float32]) -> NDArray[np.float32]:
        return zoom(gray, FINE_SIDE / np.array(gray.shape), order=1).astype(np.float32)

    gray = np.stack([small(image), small(image[5:, :95]), small(image[:, ::-1]), small(other)])
    similarities = structure_similarity(gray, np.array([[0, 1], [0, 2], [1, 2], [0, 3]]))
    assert similarities[:3].min() > 0.95
    assert similarities[3] < 0.5
