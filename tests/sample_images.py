"""Real image files for the tests of trainer.data."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_sample_image

from trainer.data.splits import content_hash


def save_image(
    path: Path, *, size: tuple[int, int] = (16, 12), mode: str = "RGB", seed: int = 0, format: str | None = None
) -> Path:
    """Write a random image of `size` (height, width)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = size if mode in ("L", "1") else (*size, 3)
    pixels = np.random.default_rng(seed).integers(0, 256, shape, np.uint8)
    Image.fromarray(pixels).convert(mode).save(path, format)
    return path


def image_folder(
    root: Path,
    counts: dict[str, int],
    *,
    size: tuple[int, int] = (16, 12),
    mode: str = "RGB",
) -> Path:
    """Write `root/<class>/<number>.png` for each class (also `train/cat`) and count."""
    for index, (name, count) in enumerate(counts.items()):
        for number in range(count):
            save_image(root / name / f"{number:03}.png", size=size, mode=mode, seed=1000 * index + number)
    return root


def photo_crops() -> list[Image.Image]:
    """Sixteen crops, 200 pixels wide, of two real photos."""
    photos = [Image.fromarray(load_sample_image(name)) for name in ("china.jpg", "flower.jpg")]
    boxes = [(x, y, x + 200, y + 200) for x in (0, 140, 280, 420) for y in (20, 220)]
    return [photo.crop(box) for photo in photos for box in boxes]


def content_hashes(count: int, start: int = 0) -> NDArray[np.uint64]:
    """Content hashes [count] of different files."""
    return np.array([content_hash(b"%d" % number) for number in range(start, start + count)], np.uint64)
