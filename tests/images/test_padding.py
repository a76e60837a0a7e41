from __future__ import annotations

import numpy as np
import pytest
from encoded_images import encode
from PIL import Image

from trainer.images.decode import EncodedImage, decode
from trainer.images.padding import pad, size_within
from trainer.images.pixels import PixelSpec

PADDED = PixelSpec(32, 48, 3, "pad")


@pytest.mark.parametrize(
    ("image", "most", "size"),
    [
        ((400, 533), (160, 160), (120, 160)),
        ((533, 400), (160, 160), (160, 120)),
        ((20, 10), (160, 160), (160, 80)),  # a small image grows
        ((100, 100), (48, 32), (32, 32)),
        ((1, 10_000), (160, 160), (1, 160)),
        ((160, 160), (160, 160), (160, 160)),
    ],
)
def test_the_proportions_are_kept(image: tuple[int, int], most: tuple[int, int], size: tuple[int, int]) -> None:
    assert size_within(*image, most) == size


@pytest.mark.parametrize(("size", "top", "left"), [((5, 8), 2, 0), ((9, 3), 0, 2), ((4, 3), 0, 0)])
def test_the_image_lies_in_the_centre_and_its_edges_go_on(size: tuple[int, int], top: int, left: int) -> None:
    for shape in ((3, 4, 3), (3, 4)):
        pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
        padded = np.asarray(pad(Image.fromarray(pixels), size))
        rows = np.clip(np.arange(size[1]) - top, 0, 2)
        columns = np.clip(np.arange(size[0]) - left, 0, 3)
        np.testing.assert_array_equal(padded, pixels[rows][:, columns])


@pytest.mark.parametrize("side", [(60, 20), (20, 60), (90, 60)])
def test_decoding_keeps_the_proportions(side: tuple[int, int]) -> None:
    image = Image.fromarray(np.random.default_rng(1).integers(0, 256, (*side, 3), np.uint8))
    size = size_within(image.width, image.height, (48, 32))
    expected = pad(image.resize(size, Image.Resampling.BILINEAR), (48, 32))
    np.testing.assert_array_equal(decode(encode(image, "PNG"), PADDED), expected)
    np.testing.assert_array_equal(EncodedImage(encode(image, "PNG")).render(PADDED), expected)


@pytest.mark.parametrize(("orientation", "turn"), [(6, Image.Transpose.ROTATE_90), (3, Image.Transpose.ROTATE_180)])
def test_an_image_that_lies_on_its_side_is_padded_upright(orientation: int, turn: Image.Transpose) -> None:
    upright = Image.fromarray(np.random.default_rng(2).integers(0, 256, (61, 20, 3), np.uint8))
    exif = Image.Exif()
    exif[0x0112] = orientation
    turned = encode(upright.transpose(turn), "PNG", exif=exif)
    np.testing.assert_array_equal(decode(turned, PADDED), decode(encode(upright, "PNG"), PADDED))


def test_a_large_jpeg_is_decoded_at_a_fraction_of_its_padded_size() -> None:
    y, x = np.mgrid[:1640, :615] / 8
    image = Image.fromarray(np.stack([x, y, (x + y) / 2], -1).astype(np.uint8))
    data, spec = encode(image, "JPEG", quality=95), PixelSpec(16, 16, 3, "pad")
    whole = decode(encode(image, "PNG"), spec).astype(int)
    np.testing.assert_allclose(decode(data, spec), whole, atol=6)
    assert EncodedImage(data).decoding_bytes(spec) < EncodedImage(data).decoding_bytes(PixelSpec(1640, 615, 3)) / 3


def test_gray_and_colour_are_padded_alike() -> None:
    gray = Image.fromarray(np.random.default_rng(4).integers(0, 256, (30, 10), np.uint8))
    alone = decode(encode(gray, "PNG"), PixelSpec(32, 48, 1, "pad"))
    np.testing.assert_array_equal(decode(encode(gray, "PNG"), PADDED), np.repeat(alone, 3, axis=2))
