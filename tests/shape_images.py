"""Small colour images that a pretrained network tells apart: arrows, and shapes that are symmetric."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

SIDE = 64


def arrow(points_left: bool, seed: int) -> Image.Image:
    """An arrow on a noisy ground, somewhere."""
    random = np.random.default_rng(seed)
    image = Image.fromarray(random.integers(100, 156, (SIDE, SIDE, 3), np.uint8))
    x, y = random.integers(14, 34, 2)
    points = [(x, y + 10), (x + 14, y), (x + 14, y + 20)]
    if not points_left:
        points = [(2 * x + 14 - px, py) for px, py in points]
    ImageDraw.Draw(image).polygon([(int(px), int(py)) for px, py in points], fill=(220, 30, 30))
    return image


def shape(round_: bool, seed: int) -> Image.Image:
    """A disc or a square, somewhere: mirrored it is the same."""
    random = np.random.default_rng(seed)
    image = Image.fromarray(random.integers(100, 156, (SIDE, SIDE, 3), np.uint8))
    x, y = (int(value) for value in random.integers(8, 30, 2))
    draw = ImageDraw.Draw(image)
    (draw.ellipse if round_ else draw.rectangle)((x, y, x + 26, y + 26), fill=(30, 200, 60))
    return image


def folder_of(path: Path, make: object, names: tuple[str, str], each: int) -> Path:
    for index, name in enumerate(names):
        (path / name).mkdir(parents=True)
        for number in range(each):
            make(index == 0, 2 * number + index).save(path / name / f"{number}.png")  # type: ignore[operator]
    return path
