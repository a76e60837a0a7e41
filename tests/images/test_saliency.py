from __future__ import annotations

import numpy as np
import pytest

from trainer.images.saliency import OCCLUSIONS, class_activation_map, occlude, occlusion_sensitivity, overlay


def test_class_activation_map_shows_contributions_above_the_mean_of_all_classes() -> None:
    activation = np.zeros((4, 4, 3), np.float32)
    activation[0, 3, 1] = 9.0
    activation[3, 0] = 9.0  # for all classes alike
    activation[3, 3, 1] = -9.0
    saliency = class_activation_map(activation, 1, (64, 32))
    assert saliency.shape == (64, 32)
    assert (saliency.min(), saliency.max()) == (0, 1)
    row, column = np.unravel_index(saliency.argmax(), saliency.shape)
    assert row < 16
    assert column >= 24
    assert saliency[48:, :8].max() < 0.05
    assert saliency[48:, 24:].max() < 0.05
    assert class_activation_map(np.zeros((4, 4, 3), np.float32), 1, (8, 8)).max() == 0


@pytest.mark.parametrize(("height", "width", "channels"), [(28, 28, 1), (64, 96, 3), (8, 8, 1)])
def test_occlusion_sensitivity_shows_regions_whose_loss_lowers_the_probability(
    height: int, width: int, channels: int
) -> None:
    image = np.full((height, width, channels), 200, np.uint8)
    corner = slice(height * 3 // 4, height), slice(0, width // 4)
    image[corner] = 20
    occluded = occlude(image)
    assert occluded.shape == (OCCLUSIONS, *image.shape)
    assert occluded.dtype == np.uint8
    # A classifier of dark corners.
    darkness = 1 - occluded[(slice(None), *corner)].mean((1, 2, 3)) / 255
    probability = 1 - float(image[corner].mean()) / 255
    saliency = occlusion_sensitivity(probability, darkness.astype(np.float32), (height, width))
    assert saliency.max() == 1
    assert saliency[corner].mean() > 0.5
    assert saliency[: height // 2, width // 2 :].max() < 0.05


def test_overlay_keeps_the_gray_image_where_saliency_is_zero() -> None:
    image = np.full((4, 4, 3), (30, 60, 90), np.uint8)
    saliency = np.zeros((4, 4), np.float32)
    saliency[0, 0] = 1
    drawn = overlay(image, saliency)
    assert drawn.shape == (4, 4, 3)
    assert drawn.dtype == np.uint8
    assert drawn[3, 3].tolist() == [60, 60, 60]
    assert drawn[0, 0].tolist() == [194, 196, 133]  # seven tenths of the brightest colour
    assert (overlay(image[:, :, :1], saliency)[3, 3] == 30).all()
