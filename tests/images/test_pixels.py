from __future__ import annotations

import pytest

from trainer.images.pixels import PixelSpec

DIGIT = PixelSpec(28, 28, 1, normalize="mnist")


def test_spec_round_trip_and_impossible_specs() -> None:
    assert PixelSpec.from_dict(DIGIT.to_dict()) == DIGIT
    for arguments in ((0, 4, 1), (4, 4, 2)):
        with pytest.raises(ValueError, match="is no HxWx1"):
            PixelSpec(*arguments)
    with pytest.raises(ValueError, match="28x28x1"):
        PixelSpec(32, 32, 1, normalize="mnist")
    with pytest.raises(ValueError, match="neither none nor mnist"):
        PixelSpec(28, 28, 1, normalize="zscore")
    with pytest.raises(ValueError, match="not bilinear"):
        PixelSpec(28, 28, 1, resize="nearest")
