"""`builtin:digits`: 1,797 real 8×8 digits from scikit-learn. No network, no files of its own."""

from __future__ import annotations

import io
from collections.abc import Iterator

import numpy as np
from PIL import Image

from trainer.data.sources.base import Example


class DigitsSource:
    """Source of `builtin:digits`; it has only a train split."""

    spec = "builtin:digits"
    name = "digits"
    class_names = tuple("0123456789")
    fingerprint = "scikit-learn digits, 0 to 16 scaled to 0 to 255"
    state = fingerprint
    default_normalize = "none"
    ignored = 0

    def __len__(self) -> int:
        return 1797

    def examples(self) -> Iterator[Example]:
        """PNG files in memory: they pass the same decoder as every other image."""
        from sklearn.datasets import load_digits

        digits = load_digits()
        pixels = np.rint(digits.images * (255 / 16)).astype(np.uint8)
        for index, (image, label) in enumerate(zip(pixels, digits.target, strict=True)):
            file = io.BytesIO()
            Image.fromarray(image).save(file, "PNG")
            yield Example("train", int(label), f"digits[{index}]", file.getvalue(), file.tell())
