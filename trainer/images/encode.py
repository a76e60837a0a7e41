"""Pixels → a file."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def encode_png(image: NDArray[np.uint8]) -> bytes:
    """A PNG file of an image [H,W,C], C being 1 or 3."""
    file = io.BytesIO()
    Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image).save(file, "PNG")
    return file.getvalue()
