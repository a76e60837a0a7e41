from __future__ import annotations

import numpy as np
import pytest

from trainer.images.heat import COVERS, activation_heat, cover, cover_heat, overlay


def test_only_what_speaks_for_this_class_more_than_for_others_is_hot() -> None:
    activation = np.zeros((4, 4, 3), np.float32)
    activation[0, 3, 1] = 9.0
    activation[3, 0] = 9.0  # for all classes alike
    activation[3, 3, 1] = -9.0
    heat = activation_heat(activation, 1, (64, 32))
    assert heat.shape == (64, 32)
    assert (heat.min(), heat.max()) == (0, 1)
    row, column = np.unravel_index(heat.argmax(), heat.shape)
    assert row < 16
    assert column >= 24
    assert heat[48:, :8].max() < 0.05
    assert heat[48:, 24:].max() < 0.05
    assert activation_heat(np.zeros((4, 4, 3), np.float32), 1, (8, 8)).max() == 0


@pytest.mark.parametrize(("height", "width", "channels"), [(28, 28, 1), (64, 96, 3), (8, 8, 1)])
def test_what_the_answer_falls_without_is_hot(height: int, width: int, channels: int) -> None:
    image = np.full((height, width, channels), 200, np.uint8)
    corner = slice(height * 3 // 4, height), slice(0, width // 4)
    image[corner] = 20
    covered = cover(image)
    assert covered.shape == (COVERS, *image.shape)
    assert covered.dtype == np.uint8
    # A classifier of dark corners.
    darkness = 1 - covered[(slice(None), *corner)].mean((1, 2, 3)) / 255
    heat = cover_heat(1 - float(image[corner].mean()) / 255, darkness.astype(np.float32), (height, width))
    assert heat.max() == 1
    assert heat[corner].mean() > 0.5
    assert heat[: height // 2, width // 2 :].max() < 0.05


def test_the_overlay_keeps_the_picture_where_it_is_cold() -> None:
    image = np.full((4, 4, 3), (30, 60, 90), np.uint8)
    heat = np.zeros((4, 4), np.float32)
    heat[0, 0] = 1
    drawn = overlay(image, heat)
    assert drawn.shape == (4, 4, 3)
    assert drawn.dtype == np.uint8
    assert drawn[3, 3].tolist() == [60, 60, 60]
    assert drawn[0, 0].tolist() == [194, 196, 133]  # seven tenths of the hottest colour
    assert (overlay(image[:, :, :1], heat)[3, 3] == 30).all()
