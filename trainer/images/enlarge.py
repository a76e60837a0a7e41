"""Enlarges images that were decoded in their native size, as the decoder would have."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from trainer.images.padding import pad, size_within
from trainer.images.pixels import PixelSpec


def enlarge(images: NDArray[np.uint8], spec: PixelSpec) -> NDArray[np.uint8]:
    """Images [N,h,w,C], decoded in their native size → [N,spec.height,spec.width,C]: the bytes that `decode` gives.

    Only for images no larger than `spec` in either side and with nothing to do after the resizing.
    """
    size = spec.width, spec.height
    if spec.resize == "pad":
        size = size_within(images.shape[2], images.shape[1], size)
    mode = "L" if spec.channels == 1 else "RGB"
    sheet = Image.new(mode, (spec.width, len(images) * spec.height))
    for position, image in enumerate(images.reshape(images.shape[:3]) if spec.channels == 1 else images):
        enlarged = Image.fromarray(image).resize(size, Image.Resampling.BILINEAR)
        if spec.resize == "pad":
            enlarged = pad(enlarged, (spec.width, spec.height))
        sheet.paste(enlarged, (0, position * spec.height))
    return np.asarray(sheet).reshape(len(images), *spec.shape)
