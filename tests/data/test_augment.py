from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from trainer.data import Augment, augment_for, load
from trainer.data.augment import DRAWS, STRENGTHS
from trainer.errors import InputError


def draws(count: int, **fixed: float) -> np.ndarray[Any, np.dtype[np.float32]]:
    """All in the middle (nothing changes), but for the named."""
    names = ("rotation", "zoom", "shift_x", "shift_y", "side", "brightness", "contrast")
    values = np.zeros((count, DRAWS), np.float32)
    for name, value in fixed.items():
        values[:, names.index(name)] = value
    return values


@pytest.fixture(scope="module")
def images() -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.random.default_rng(0).integers(0, 256, (4, 25, 25, 3), np.uint8)


PLAIN = Augment("strong", flips=True, colour=True)
RANGES = STRENGTHS["strong"]


def test_nothing_changes_in_the_middle(images: Any) -> None:
    result = PLAIN(images, draws(4, side=1))
    assert result.dtype == tf.uint8
    np.testing.assert_array_equal(result, images)


def test_flips_mirror_left_to_right_and_only_where_allowed(images: Any) -> None:
    np.testing.assert_array_equal(PLAIN(images, draws(4, side=-1)), images[:, :, ::-1])
    unflipped = Augment("strong", flips=False, colour=True)
    np.testing.assert_array_equal(unflipped(images, draws(4, side=-1)), images)


def test_shift_moves_by_its_part_of_the_side_and_continues_the_edge(images: Any) -> None:
    draw = 3 / (RANGES.shift * 25)  # three pixels
    result = PLAIN(images, draws(4, side=1, shift_x=draw)).numpy()
    np.testing.assert_array_equal(result[:, :, :-3], images[:, :, 3:])
    np.testing.assert_array_equal(result[:, :, -3:], np.repeat(images[:, :, -1:], 3, axis=2))
    result = PLAIN(images, draws(4, side=1, shift_y=draw)).numpy()
    np.testing.assert_array_equal(result[:, :-3], images[:, 3:])


def test_rotation_turns_about_the_centre_by_its_angle() -> None:
    image = np.zeros((1, 41, 41, 1), np.uint8)
    image[0, 19:22, 34:37] = 255  # 15 pixels right of the centre
    turned = PLAIN(image, draws(1, side=1, rotation=1)).numpy()[0, :, :, 0].astype(float)
    y, x = (np.tensordot(turned, grid, 2) / turned.sum() - 20 for grid in np.mgrid[:41, :41])
    assert np.hypot(x, y) == pytest.approx(15, abs=0.2)
    assert abs(np.degrees(np.arctan2(y, x))) == pytest.approx(RANGES.rotation_deg, abs=1)


def test_zoom_scales_about_the_centre() -> None:
    image = np.zeros((1, 41, 41, 1), np.uint8)
    image[0, 15:26, 15:26] = 255
    for draw in (-1, 1):
        zoomed = PLAIN(image, draws(1, side=1, zoom=draw)).numpy().astype(float).sum() / 255
        assert np.sqrt(zoomed) == pytest.approx(11 * (1 + draw * RANGES.zoom), rel=0.06)


def test_colour_stays_in_its_bounds_and_gray_keeps_its_tones(images: Any) -> None:
    lighter = PLAIN(images, draws(4, side=1, brightness=1)).numpy().astype(int)
    change = round(255 * RANGES.brightness)
    assert np.abs(lighter - np.minimum(images.astype(int) + change, 255)).max() <= 1
    flatter = PLAIN(images, draws(4, side=1, contrast=-1)).numpy().astype(int)
    assert np.abs(flatter - (127.5 + (images - 127.5) * (1 - RANGES.contrast))).max() <= 1
    plain = Augment("strong", flips=True, colour=False)
    np.testing.assert_array_equal(plain(images, draws(4, side=1, brightness=1, contrast=1)), images)


def test_what_a_dataset_gets() -> None:
    digits = load("builtin:digits")
    assert augment_for(digits, "none", "auto", default="light", flips=False) is None
    assert augment_for(digits, "none", "on", default="light", flips=True) == Augment("none", flips=True, colour=False)
    assert augment_for(digits, "auto", "auto", default="light", flips=False) == Augment(
        "light", flips=False, colour=False
    )
    assert augment_for(digits, "strong", "auto", default="light", flips=False) == Augment(
        "strong", flips=False, colour=False
    )
    with pytest.raises(InputError, match="--augment: 'heavy'"):
        augment_for(digits, "heavy", "auto", default="light", flips=False)
