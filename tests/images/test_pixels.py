from __future__ import annotations

import pytest

from trainer.images.pixels import InputPreference, PixelSpec

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
    with pytest.raises(ValueError, match="neither stretch nor pad"):
        PixelSpec(28, 28, 1, resize="nearest")
    with pytest.raises(ValueError, match="resize pad is not expected"):
        PixelSpec(28, 28, 1, resize="pad", normalize="mnist")


def test_the_resize_rule_in_files() -> None:
    """Stretching has the name by which earlier versions know it, so that they read such a model, and no padded one."""
    stretched, padded = PixelSpec(28, 20, 3), PixelSpec(28, 20, 3, "pad")
    assert [spec.to_dict()["resize"] for spec in (stretched, padded)] == ["bilinear", "pad"]
    assert [PixelSpec.from_dict(spec.to_dict()) for spec in (stretched, padded)] == [stretched, padded]


@pytest.mark.parametrize(
    ("preference", "native", "chosen"),
    [
        (InputPreference(), {(28, 30)}, (28, 30)),
        (InputPreference(), {(64, 64)}, (64, 64)),
        (InputPreference(), {(65, 64)}, (64, 64)),
        (InputPreference(), {(7, 28)}, (64, 64)),
        (InputPreference(), {(28, 28), (30, 30)}, (64, 64)),
        (InputPreference(), set(), (64, 64)),
        (InputPreference(size=(160, 160), native=False), {(28, 28)}, (160, 160)),
    ],
)
def test_small_images_keep_their_native_size(
    preference: InputPreference, native: set[tuple[int, int]], chosen: tuple[int, int]
) -> None:
    assert preference.choose_size(native) == chosen
