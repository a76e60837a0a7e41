"""Resizing without distortion: the whole image in its own proportions, and its edges continued to the model's size.

Continued, not filled: a bar of one colour is a feature of its own, and augmentation continues edges, too.
"""

from __future__ import annotations

import numpy as np
from PIL import Image


def size_within(width: int, height: int, most: tuple[int, int]) -> tuple[int, int]:
    """Largest (width, height) of these proportions within `most`, at least one pixel each."""
    scale = min(most[0] / width, most[1] / height)
    return max(1, round(width * scale)), max(1, round(height * scale))


def pad(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """The image, of mode L or RGB, in the centre of `size` (width, height); its outermost pixels fill the rest."""
    right, below = size[0] - image.width, size[1] - image.height
    around = [(below // 2, below - below // 2), (right // 2, right - right // 2)]
    pixels = np.asarray(image)
    return Image.fromarray(np.pad(pixels, around + [(0, 0)] * (pixels.ndim - 2), mode="edge"))
