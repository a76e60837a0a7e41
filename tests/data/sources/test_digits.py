from __future__ import annotations

import numpy as np
from sklearn.datasets import load_digits

from trainer.data.sources.digits import DigitsSource
from trainer.images.decode import decode
from trainer.images.pixels import PixelSpec


def test_every_digit_decodes_to_its_values_scaled_to_255() -> None:
    source = DigitsSource()
    examples = list(source.examples())
    digits = load_digits()
    assert len(examples) == len(source) == len(digits.target)
    assert [example.label for example in examples] == digits.target.tolist()
    for example, image in list(zip(examples, digits.images, strict=True))[::100]:
        assert isinstance(example.data, bytes)
        decoded = decode(example.data, PixelSpec(8, 8, 1))
        np.testing.assert_array_equal(decoded[:, :, 0], np.rint(image * 255 / 16))
