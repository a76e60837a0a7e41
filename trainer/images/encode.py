"""Pixels → encoded image bytes."""

from __future__ import annotations

import base64
import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def encode_png(image: NDArray[np.uint8]) -> bytes:
    """Encode an image [H,W,C], C 1 or 3, as PNG."""
    file = io.BytesIO()
    Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image).save(file, "PNG")
    return file.getvalue()


def data_uri(file: bytes, media_type: str = "image/png") -> str:
    """The URI that holds a file itself, for a page without other files."""
    return f"data:{media_type};base64,{base64.b64encode(file).decode('ascii')}"
